//! Ends processes that functions have left running, when the functions have ended or their processor is dead.
//!
//! A process belongs to an attempt if its environment has the attempt's token. Every descendant inherits that, unless it clears its
//! environment. The token of a nested call begins with the token of its caller. So the token of an attempt finds everything that
//! began inside it, however deep. A worker gives its programs the token of a call; its own token is in another variable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    test_kill_process_group, wait, waitpgid, waitpid,
};

use crate::domain::{event::Unkillable, job::Token};
use crate::runner::process::{environ, oom_score, stat};

/// How long to wait for killed orphans. Only the kernel can keep one longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kills every process with one of these tokens, and waits until none is left. Returns whether that happened within `patience`.
#[must_use]
pub fn end(tokens: &[Token], patience: Duration) -> bool {
    let marks: Vec<TokenMark> = tokens.iter().cloned().map(TokenMark).collect();
    let until = Instant::now() + patience;
    while !marks.is_empty() {
        let found = kill_all(&marks);
        if found == 0 {
            break;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Kills the processes that exist now, and counts them. A process that only waits to be reaped does not count.
fn kill_all(marks: &[TokenMark]) -> usize {
    let Ok(processes) = stat::processes() else { return 1 };
    let mut found = 0;
    for pid in processes {
        // It is opened before its environment is read, so that the signal reaches the process that was read.
        let read = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let read = read.and_then(|process| Ok((process, environ::read(pid)?)));
        match read {
            Ok((process, Some(environment))) if marks.iter().any(|mark| mark.is_on(&environment)) => {
                found += 1;
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
            Ok((_, Some(_))) => {}
            Err(error) if is_gone_or_strange(&error) => {}
            // A process that is just starting may be one of them, and so may one that cannot be read.
            Ok((_, None)) | Err(_) => found += 1,
        }
    }
    found
}

/// Whether a process could not be read because it has ended, or belongs to another user. The tokens belong to processors of this
/// user; root can read all processes.
fn is_gone_or_strange(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::SRCH | Errno::NOENT | Errno::ACCESS | Errno::PERM))
}

/// The token in the environment of every process of an attempt or a worker.
#[derive(Debug)]
pub(super) struct TokenMark(pub(super) Token);

/// How the mark of any attempt begins.
const ANY: &str = "ASYNCQ_TOKEN=";

/// The variable with a worker's own token. Everything that the worker has started for any call has it.
pub(in crate::runner) const WORKER_TOKEN: &str = "ASYNCQ_WORKER_TOKEN";

impl TokenMark {
    pub(super) fn is_on(&self, environment: &[u8]) -> bool {
        entries(environment).any(|entry| {
            let of_worker = || entry.strip_prefix(WORKER_TOKEN.as_bytes())?.strip_prefix(b"=");
            let token = entry.strip_prefix(ANY.as_bytes()).or_else(of_worker);
            token.is_some_and(|token| token.starts_with(self.0.as_str().as_bytes()))
        })
    }
}

fn entries(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    environment.split(|b| *b == 0)
}

/// The marks of all attempts. An empty one does not count.
pub(super) fn marks(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    entries(environment).filter(|entry| entry.starts_with(ANY.as_bytes()) && entry.len() > ANY.len())
}

/// The processes that this one has adopted, because their parents ended first.
#[derive(Debug)]
pub struct Orphans {
    /// The kernel's list of the main thread's children. Orphans go there, while functions are children of the threads that run
    /// them. On a kernel without the list (`CONFIG_PROC_CHILDREN`), asyncq ends process groups only.
    list: Option<File>,
    /// Held while the list is read or a process on it is reaped. If one disappears meanwhile, the kernel skips others.
    looking: Mutex<()>,
    /// The children of this process from before, left by a program that started asyncq by `exec`.
    before: Vec<Pid>,
    /// The attempts that run now, each with its own number.
    attempts: Mutex<BTreeSet<i32>>,
    /// Processes that cannot be ended, found since somebody last asked for them.
    unkillable: Mutex<Vec<Unkillable>>,
    leaves_unkillable: AtomicBool,
}

impl Orphans {
    /// From now on, descendants of this process become its children when their parents end.
    ///
    /// # Errors
    /// When the system does not allow that.
    pub fn adopt() -> io::Result<Orphans> {
        let own = getpid();
        set_child_subreaper(Some(own))?;
        let list = File::open(format!("/proc/{own}/task/{own}/children")).ok();
        let (looking, attempts, unkillable) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (before, leaves_unkillable) = (Vec::new(), AtomicBool::new(false));
        let mut orphans = Orphans { list, looking, before, attempts, unkillable, leaves_unkillable };
        orphans.before = orphans.children();
        Ok(orphans)
    }

    /// Kills all orphans of functions, including new ones. Call this when no attempt runs.
    pub fn end(&self) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let killed = self.children().into_iter().filter(|pid| self.kill(*pid)).count();
            let mut reaped = 0;
            // Unlike the kernel's list, this never misses a child.
            let none_left = loop {
                match wait(WaitOptions::NOHANG) {
                    Ok(Some(_)) => reaped += 1,
                    Ok(None) => break false,
                    Err(error) => break error == Errno::CHILD,
                }
            };
            if none_left || self.list.is_none() || killed + reaped == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The processes that cannot be ended, found since the last call of this.
    pub fn unkillable(&self) -> Vec<Unkillable> {
        std::mem::take(&mut self.unkillable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes one more of them.
    pub(super) fn note_unkillable(&self, unkillable: Unkillable) {
        self.unkillable.lock().unwrap_or_else(PoisonError::into_inner).push(unkillable);
    }

    /// From now on, no call waits for processes that cannot be ended.
    pub fn leave_unkillable(&self) {
        self.leaves_unkillable.store(true, Ordering::SeqCst);
    }

    /// Whether no call waits for them.
    pub(super) fn leaves_unkillable(&self) -> bool {
        self.leaves_unkillable.load(Ordering::SeqCst)
    }

    /// Reaps those that have ended.
    pub fn reap(&self) {
        self.look(None, None);
    }

    /// Reaps the ended processes of a group. Returns whether the group has any process left.
    pub(in crate::runner) fn reap_group(&self, group: Pid) -> bool {
        let _alone = self.looking.lock();
        // Ended processes still count until they are reaped, and they are now children of this process.
        while let Ok(Some(_)) = waitpgid(group, WaitOptions::NOHANG) {}
        test_kill_process_group(group).is_ok()
    }

    /// Kills an orphan of a function. Returns whether to wait for it. Nobody waits for one that may not be killed.
    fn kill(&self, pid: Pid) -> bool {
        match if self.are_ours() { Ownership::Ours } else { ownership(pid, is_of_a_function, |_| true) } {
            Ownership::Ours => kill_process(pid, Signal::KILL).is_ok(),
            Ownership::Unknown => true,
            Ownership::Others => false,
        }
    }

    /// Whether every orphan comes from a function of this process. That is not so if this process is a system's first one, or if a
    /// program with children has started it by `exec`.
    pub(super) fn are_ours(&self) -> bool {
        self.before.is_empty() && getpid() != Pid::INIT
    }

    /// Reaps ended processes except for `child`, and returns those that live. Also returns whether an ended one may belong to the
    /// attempt with this number.
    pub(super) fn look(&self, child: Option<Pid>, number: Option<i32>) -> (Vec<Pid>, bool) {
        let _alone = self.looking.lock();
        let running = number.map(|_| self.attempts().clone()).unwrap_or_default();
        let mut pids = self.children();
        pids.retain(|pid| Some(*pid) != child);
        let mut ours = false;
        pids.retain(|pid| {
            // Ended processes have a score until they are reaped. If no attempt has that score, the process has chosen it.
            let whose = number.and_then(|_| oom_score::attempt(*pid)).filter(|number| running.contains(number));
            let lives = matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            ours |= !lives && (whose.is_none() || whose == number);
            lives
        });
        (pids, ours)
    }

    pub(super) fn attempts(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn children(&self) -> Vec<Pid> {
        let Some(list) = &self.list else { return Vec::new() };
        let (mut text, mut chunk) = (Vec::new(), [0; 512]);
        while let Ok(count) = list.read_at(&mut chunk, text.len() as u64) {
            text.extend_from_slice(&chunk[..count]);
            // The kernel fills the chunk if there is more.
            if count < chunk.len() / 2 {
                break;
            }
        }
        let pids = text.split(u8::is_ascii_whitespace).filter_map(|number| str::from_utf8(number).ok()?.parse().ok());
        pids.filter_map(Pid::from_raw).filter(|pid| !self.before.contains(pid)).collect()
    }
}

/// Whether an orphan belongs to an attempt.
pub(super) enum Ownership {
    Ours,
    Others,
    /// The process is starting or ending.
    Unknown,
}

/// Whether an orphan belongs to an attempt: by the marks in its environment if `marked` knows them, otherwise by the number in its
/// score.
pub(super) fn ownership(pid: Pid, marked: impl Fn(&[u8]) -> Option<bool>, numbered: impl Fn(i32) -> bool) -> Ownership {
    let mark = match environ::read(pid) {
        Ok(None) => return Ownership::Unknown,
        Ok(Some(environment)) => marked(&environment),
        Err(_) => None,
    };
    // The score comes second: every process may raise its own.
    match mark.or_else(|| oom_score::attempt(pid).map(&numbered)) {
        Some(true) => Ownership::Ours,
        // It is ending: its environment is gone, but it may leave children.
        _ if mark.is_none() && environ::is_gone(pid) => Ownership::Unknown,
        _ => Ownership::Others,
    }
}

/// Whether a function of this processor has started a process, if its environment shows that. If this processor itself runs inside
/// a function, the mark of that function does not count.
fn is_of_a_function(environment: &[u8]) -> Option<bool> {
    let own = environ::read(getpid()).ok().flatten().unwrap_or_default();
    marks(environment).any(|mark| entries(&own).all(|ours| ours != mark)).then_some(true)
}
