//! One line of the kernel about a process: `/proc/PID/stat` (proc(5)).

use std::{fmt::Display, fs, io};

use rustix::io::Errno;
use rustix::process::Pid;

/// Whether this error of `/proc` means that the process, or that part of it, does not exist.
pub(in crate::runner) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::SRCH | Errno::NOENT))
}

/// The processes that `/proc` lists.
pub(in crate::runner) fn processes() -> io::Result<impl Iterator<Item = Pid>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(Pid::from_raw))
}

/// The fields of that line, without the first two.
pub(in crate::runner) struct Stat(Vec<String>);

impl Stat {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever `/proc` answers, for instance when there is no such process.
    pub(in crate::runner) fn of(pid: impl Display) -> io::Result<Stat> {
        let line = fs::read(format!("/proc/{pid}/stat"))?;
        // The name of the program, in parentheses, may contain anything.
        let after = line.iter().rposition(|b| *b == b')').map_or(&line[..0], |end| &line[end + 1..]);
        Ok(Stat(String::from_utf8_lossy(after).split_ascii_whitespace().map(str::to_owned).collect()))
    }

    /// A field by its number in proc(5), from 3 on; empty if this kernel does not have it.
    pub(in crate::runner) fn field(&self, number: usize) -> &str {
        self.0.get(number - 3).map_or("", String::as_str)
    }

    /// A field as a number; 0 if it is not one.
    pub(in crate::runner) fn number(&self, number: usize) -> u64 {
        self.field(number).parse().unwrap_or(0)
    }
}
