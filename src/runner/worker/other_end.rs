//! Whether anybody still has the worker's end of its line. This process has it too, so that the kernel does not tell.
//!
//! Invariant: the line counts as closed only if twice, some time apart, no process was found that has its other end, and none
//! that may have it could not be looked at.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::runner::stat::Stat;

/// How often it is looked for, while a call is not answered.
pub(super) const RHYTHM: Duration = Duration::from_secs(2);

/// Which field of `/proc/PID/stat` tells when a process was started (proc(5)).
const START: usize = 22;

/// What was seen of the other end of a line.
#[derive(Debug)]
pub(super) struct OtherEnd {
    looked: Instant,
    /// Where it was found last.
    at: Option<PathBuf>,
    /// Whether nobody had it then.
    missing: bool,
}

/// Who has it.
enum Holder {
    /// It is there, among the descriptors of a process.
    At(PathBuf),
    Nobody,
    /// Not all could be looked at that may have it.
    Unknown,
}

impl OtherEnd {
    pub(super) fn new() -> OtherEnd {
        OtherEnd { looked: Instant::now(), at: None, missing: false }
    }

    /// How long until it is to be looked for.
    pub(super) fn next_look(&self) -> Duration {
        RHYTHM.saturating_sub(self.looked.elapsed())
    }

    /// Looks for it: the socket with this inode, of which the worker had a descriptor at first. Says whether nobody has it
    /// any more.
    pub(super) fn is_gone(&mut self, socket: u64, worker: Pid) -> bool {
        self.looked = Instant::now();
        let link = format!("socket:[{socket}]");
        let is_it = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == link.as_str());
        if self.at.as_ref().is_some_and(is_it) {
            self.missing = false;
            return false;
        }
        let before = self.missing;
        self.missing = false;
        match holder(worker, is_it) {
            Holder::At(path) => self.at = Some(path),
            Holder::Unknown => {}
            // It may have been on its way from one to another.
            Holder::Nobody => self.missing = true,
        }
        before && self.missing
    }
}

/// Looks at the worker first, then at all others: what it has started, and whoever got the descriptor from it.
fn holder(worker: Pid, is_it: impl Fn(&PathBuf) -> bool) -> Holder {
    let (Ok(processes), Ok(since)) = (std::fs::read_dir("/proc"), Stat::of(worker)) else { return Holder::Unknown };
    let others = processes.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let mut found = Holder::Nobody;
    for pid in [worker].into_iter().chain(others).filter(|pid| *pid != getpid()) {
        match descriptors(pid) {
            Ok(paths) => {
                if let Some(path) = paths.into_iter().find(&is_it) {
                    return Holder::At(path);
                }
            }
            // One that was started later may be the worker's.
            Err(error) if !is_gone(&error) => {
                if Stat::of(pid).is_ok_and(|stat| stat.number(START) >= since.number(START)) {
                    found = Holder::Unknown;
                }
            }
            Err(_) => {}
        }
    }
    found
}

/// The descriptors of a process, as links.
fn descriptors(pid: Pid) -> io::Result<Vec<PathBuf>> {
    let list = |path: String| -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
    };
    let found = list(format!("/proc/{pid}/fd"))?;
    if !found.is_empty() {
        return Ok(found);
    }
    // When the first thread has ended, only the others have them.
    let threads = list(format!("/proc/{pid}/task"))?;
    let lists = threads.into_iter().map(|thread| list(thread.join("fd").display().to_string()));
    Ok(lists.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::SRCH | Errno::NOENT))
}
