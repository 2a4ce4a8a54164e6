//! The environment of other processes, which shows to which attempt they belong.

use std::fs;
use std::io;
use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::runner::process::stat::Stat;

/// Flags of a process (`PF_EXITING` and `PF_KTHREAD` of the kernel's `sched.h`): a process that is ending or belongs to the kernel
/// has no memory, and so no environment.
const EXITING: u64 = 0x4;
const WITHOUT_MEMORY: u64 = EXITING | 0x0020_0000;

/// How often to try again when a process changes its environment all the time.
const LOOKS: usize = 3;

/// Whether the kernel shows where environments are, as Linux does; imitations of it may not.
static IS_TOLD: LazyLock<bool> = LazyLock::new(|| Memory::of(getpid()).is_ok_and(|own| own.end != 0));

/// Reads the environment of a process; `None` in the middle of `execve`, when the old one is gone and the new one is not there
/// yet. At that moment, the process may have lost the locks that it inherited.
///
/// # Errors
/// Whatever `/proc` answers.
pub(in crate::runner) fn read(pid: Pid) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..LOOKS {
        let environment = match fs::read(format!("/proc/{pid}/environ")) {
            // Some kernels say this when the first thread has ended, even if there are others.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Vec::new(),
            read => read?,
        };
        if !environment.is_empty() {
            return Ok(Some(environment));
        }
        let memory = Memory::of(pid)?;
        if memory.threads > 1 && memory.flags & EXITING != 0 {
            return Ok(Some(of_other_threads(pid)));
        }
        if memory.is_being_made() {
            return Ok(None);
        }
        if memory.start == memory.end {
            break;
        }
        // It was there a moment later.
    }
    Ok(Some(Vec::new()))
}

/// Whether a process has ended, or is about to.
pub(in crate::runner) fn is_gone(pid: Pid) -> bool {
    Memory::of(pid).map_or(true, |memory| memory.flags & EXITING != 0 && memory.threads < 2)
}

/// The tracer of a process (proc(5)), if there is one.
pub(in crate::runner) fn tracer(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    Pid::from_raw(tracer.trim().parse().ok()?)
}

/// The environment of a process that lives on without its first thread.
fn of_other_threads(pid: Pid) -> Vec<u8> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut read = threads.filter_map(|thread| fs::read(thread.path().join("environ")).ok());
    read.find(|environment| !environment.is_empty()).unwrap_or_default()
}

/// The memory of a process in `/proc/PID/stat` (proc(5)).
struct Memory {
    /// Field 9.
    flags: u64,
    /// Field 20: how many threads share it.
    threads: u64,
    /// Field 50: where the environment begins.
    start: u64,
    /// Field 51: where it ends.
    end: u64,
}

impl Memory {
    fn of(pid: Pid) -> io::Result<Memory> {
        let stat = Stat::of(pid)?;
        Ok(Memory { flags: stat.number(9), threads: stat.number(20), start: stat.number(50), end: stat.number(51) })
    }

    fn is_being_made(&self) -> bool {
        self.end == 0 && self.flags & WITHOUT_MEMORY == 0 && *IS_TOLD
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn it_is_told_of_every_process_that_may_be_looked_at() {
        let mut sleeping = Command::new("sleep").arg("1000").env_clear().stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&sleeping);
        // Of one that has none, it is told as well, once it has started.
        while read(pid).unwrap().is_none() {}
        assert_eq!(read(pid).unwrap(), Some(Vec::new()));
        sleeping.kill().unwrap();
        // Killed and not reaped.
        while fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S") {}
        assert_eq!(read(pid).unwrap(), Some(Vec::new()));
        sleeping.wait().unwrap();
        assert!(read(pid).is_err());
        assert!(!read(getpid()).unwrap().unwrap().is_empty());
    }
}
