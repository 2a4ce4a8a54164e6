//! Whether anybody still has the worker's end of its line. This process has it too, so that the kernel does not tell.
//!
//! Invariant: the line counts as closed only if twice, some time apart, no process was found that has its other end, and none
//! that may have it could not be looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::runner::process::stat::Stat;

/// How often it is looked for, while a call is not answered.
pub(in crate::runner) const RHYTHM: Duration = Duration::from_secs(2);

/// Which field of `/proc/PID/stat` names the parent (proc(5)).
const PARENT: usize = 4;

/// What was seen of the other end of a line.
#[derive(Debug)]
pub(in crate::runner) struct HangupDetector {
    looked: Instant,
    /// Where it was found last.
    at: Option<PathBuf>,
    /// Whether nobody had it then.
    missing: bool,
}

/// Who has it.
enum EndHolder {
    /// It is there, among the descriptors of a process.
    At(PathBuf),
    Nobody,
    /// Not all could be looked at that may have it.
    Unknown,
}

impl HangupDetector {
    pub(in crate::runner) fn new() -> HangupDetector {
        HangupDetector { looked: Instant::now(), at: None, missing: false }
    }

    /// How long until it is to be looked for.
    pub(in crate::runner) fn next_look(&self) -> Duration {
        RHYTHM.saturating_sub(self.looked.elapsed())
    }

    /// Looks for it: the socket with this inode, of which the worker had a descriptor at first. Says whether nobody has it
    /// any more.
    pub(in crate::runner) fn is_gone(&mut self, socket: u64, worker: Pid) -> bool {
        self.looked = Instant::now();
        let link = format!("socket:[{socket}]");
        let before = self.missing;
        self.missing = false;
        if self.at.as_ref().is_some_and(|path| is_it(path, &link).unwrap_or(false)) {
            return false;
        }
        match holder(worker, &link) {
            EndHolder::At(path) => self.at = Some(path),
            EndHolder::Unknown => {}
            // It may have been on its way from one to another.
            EndHolder::Nobody => self.missing = true,
        }
        before && self.missing
    }
}

/// Looks at the worker first, then at all others: what it has started, and whoever got the descriptor from it.
fn holder(worker: Pid, link: &str) -> EndHolder {
    let Ok(processes) = std::fs::read_dir("/proc") else { return EndHolder::Unknown };
    // Whoever does not see that this process has it would not see who else has.
    if !matches!(find(getpid(), link), Ok(Some(_))) {
        return EndHolder::Unknown;
    }
    let others = processes.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let mut found = EndHolder::Nobody;
    for pid in [worker].into_iter().chain(others).filter(|pid| *pid != getpid()) {
        match find(pid, link) {
            Ok(Some(path)) => return EndHolder::At(path),
            Err(_) if descends(pid) => found = EndHolder::Unknown,
            Ok(None) | Err(_) => {}
        }
    }
    found
}

/// Whether a process comes from this one, to which orphans fall.
fn descends(pid: Pid) -> bool {
    let parent = |pid: Pid| Pid::from_raw(i32::try_from(Stat::of(pid).ok()?.number(PARENT)).ok()?);
    std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == getpid())
}

/// Where it is among the descriptors of a process.
fn find(pid: Pid, link: &str) -> io::Result<Option<PathBuf>> {
    let mut found = list(&PathBuf::from(format!("/proc/{pid}/fd")))?;
    if found.is_empty() {
        // When the first thread has ended, only the others have them.
        for thread in list(&PathBuf::from(format!("/proc/{pid}/task")))? {
            found.append(&mut list(&thread.join("fd"))?);
        }
    }
    for path in found {
        if is_it(&path, link)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What is in a folder of `/proc`; nothing, when whose it was has ended.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.path())).filter(|path| !path.as_ref().is_err_and(is_gone)).collect()
        }
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether a descriptor is that; not, when it was just closed.
fn is_it(path: &Path, link: &str) -> io::Result<bool> {
    match std::fs::read_link(path) {
        Ok(to) => Ok(to.as_os_str() == link),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::SRCH | Errno::NOENT))
}
