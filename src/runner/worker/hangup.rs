//! Detects that a worker has closed its end of the channel. asyncq has a copy of that end, to take back unread calls, so the
//! kernel reports no end of file.
//!
//! Invariant: a channel counts as closed only after two searches, some time apart. Neither found a process with the worker's
//! end, and each could look at all processes that may have it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

use crate::runner::process::stat::{Stat, is_gone, processes};

/// How often to search for the end, while a call is not answered.
pub(super) const RHYTHM: Duration = Duration::from_secs(2);

/// Which field of `/proc/PID/stat` names the parent (proc(5)).
const PARENT: usize = 4;

/// What the searches have found.
#[derive(Debug)]
pub(super) struct HangupDetector {
    /// The inode of the worker's end.
    socket: u64,
    /// The worker, which had it first.
    worker: Pid,
    looked: Instant,
    /// Where the last search found it.
    at: Option<PathBuf>,
    /// Whether the last search found nobody.
    missing: bool,
}

/// The process that has the end.
enum EndHolder {
    /// Its path among the descriptors of a process.
    At(PathBuf),
    Nobody,
    /// A process that may have it could not be looked at.
    Unknown,
}

impl HangupDetector {
    pub(super) fn new(socket: u64, worker: Pid) -> HangupDetector {
        HangupDetector { socket, worker, looked: Instant::now(), at: None, missing: false }
    }

    /// How long until the next search.
    pub(super) fn next_look(&self) -> Duration {
        RHYTHM.saturating_sub(self.looked.elapsed())
    }

    /// Searches. Returns whether the channel counts as closed.
    pub(super) fn is_gone(&mut self) -> bool {
        self.looked = Instant::now();
        let link = format!("socket:[{}]", self.socket);
        let before = self.missing;
        self.missing = false;
        if self.at.as_ref().is_some_and(|path| is_it(path, &link).unwrap_or(false)) {
            return false;
        }
        match holder(self.worker, &link) {
            EndHolder::At(path) => self.at = Some(path),
            EndHolder::Unknown => {}
            // The end may be on its way from one process to another.
            EndHolder::Nobody => self.missing = true,
        }
        before && self.missing
    }
}

/// Looks at the worker first and then at all other processes, because its children may have the end, or a process that got it
/// through a socket.
fn holder(worker: Pid, link: &str) -> EndHolder {
    let Ok(others) = processes() else { return EndHolder::Unknown };
    // If `/proc` does not show that this process has it, it does not show others either.
    if !matches!(find(getpid(), link), Ok(Some(_))) {
        return EndHolder::Unknown;
    }
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

/// Whether a process descends from this one, which adopts orphans.
fn descends(pid: Pid) -> bool {
    let parent = |pid: Pid| Pid::from_raw(i32::try_from(Stat::of(pid).ok()?.number(PARENT)).ok()?);
    std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == getpid())
}

/// Where it is among the descriptors of a process.
fn find(pid: Pid, link: &str) -> io::Result<Option<PathBuf>> {
    let mut found = list(&PathBuf::from(format!("/proc/{pid}/fd")))?;
    if found.is_empty() {
        // If the first thread has ended, only the others show descriptors.
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

/// The entries of a folder of `/proc`; none if its process has ended.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.path())).filter(|path| !path.as_ref().is_err_and(is_gone)).collect()
        }
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether a descriptor is the socket; `false` if it was just closed.
fn is_it(path: &Path, link: &str) -> io::Result<bool> {
    match std::fs::read_link(path) {
        Ok(to) => Ok(to.as_os_str() == link),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
