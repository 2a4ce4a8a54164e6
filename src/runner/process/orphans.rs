//! Ending what functions leave running, when they have ended or their processor is dead.
//!
//! What belongs to an attempt is known by the attempt's token in its environment, which every descendant inherits unless it
//! clears its environment. The token of a nested call begins with that of the attempt which made it, so that whatever
//! began inside an attempt, however deep, is found by the attempt's own token. A worker gives what it starts the token of a
//! call; what belongs to the worker has its token in a variable of its own.

mod attempt_processes;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    test_kill_process_group, wait, waitpgid, waitpid,
};

pub(in crate::runner) use attempt_processes::{AttemptProcesses, Remaining, RunningAttempt};

use crate::domain::event::Unkillable;
use crate::domain::job::Token;
use crate::runner::process::environ;
use crate::runner::process::oom_score;
use crate::runner::process::unkillable::Unkillables;

/// How long to wait for orphans that were killed; only the kernel can keep one longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends every process that carries one of these tokens, at once, and waits until none is left; says whether that was
/// reached within `patience`.
#[must_use]
pub fn end(tokens: &[Token], patience: Duration) -> bool {
    let marks: Vec<TokenMark> = tokens.iter().map(TokenMark::new).collect();
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

/// Kills those that are there now, and counts them; a process that is only waiting to be reaped is gone already.
fn kill_all(marks: &[TokenMark]) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 1 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = 0;
    for pid in pids.filter_map(Pid::from_raw) {
        // Held before its environment is read, so that the signal meets the process that was read.
        let read = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let read = read.and_then(|process| Ok((process, environ::read(pid)?)));
        match read {
            Ok((process, Some(environment))) if marks.iter().any(|mark| mark.is_on(&environment)) => {
                found += 1;
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
            Ok((_, Some(_))) => {}
            Err(error) if is_gone_or_strange(&error) => {}
            // One that begins just now may be one of those; and who cannot look has not seen that nothing is left.
            Ok((_, None)) | Err(_) => found += 1,
        }
    }
    found
}

/// Whether a process could not be looked at because it has ended, or is another user's. The tokens are those of processors
/// of this user, unless this is root, who can look at all.
fn is_gone_or_strange(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::SRCH | Errno::NOENT | Errno::ACCESS | Errno::PERM))
}

/// The token that the environment of every process of an attempt, or of a worker, contains.
#[derive(Debug)]
struct TokenMark(Token);

/// With what the mark of any attempt begins.
const ANY: &str = "ASYNCQ_TOKEN=";

/// Where what a worker has started carries the worker's own token, whatever call it was started for.
pub(in crate::runner) const WORKER_TOKEN: &str = "ASYNCQ_WORKER_TOKEN";

impl TokenMark {
    fn new(token: &Token) -> TokenMark {
        TokenMark(token.clone())
    }

    fn is_on(&self, environment: &[u8]) -> bool {
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

/// The marks of any attempts. One without a token is none.
fn marks(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    entries(environment).filter(|entry| entry.starts_with(ANY.as_bytes()) && entry.len() > ANY.len())
}

/// The processes that have fallen to this one because their parents ended before them.
#[derive(Debug)]
pub struct Orphans {
    /// The kernel's list of the main thread's children, which is where orphans go; functions are children of the threads
    /// that run them. A kernel without that list (`CONFIG_PROC_CHILDREN`) tells nothing, and only process groups are ended.
    list: Option<File>,
    /// Held while the list is read, and while somebody on it is reaped: the kernel overlooks others when one goes meanwhile.
    looking: Mutex<()>,
    /// The children that this process had before, from a program in whose place it was started.
    before: Vec<Pid>,
    /// The attempts that run now, by numbers which no two of them share.
    attempts: Mutex<BTreeSet<i32>>,
    /// Those that may not be ended.
    immune: Unkillables,
}

impl Orphans {
    /// From now on, descendants of this process whose parents end become its children.
    ///
    /// # Errors
    /// When the system does not allow that.
    pub fn adopt() -> io::Result<Orphans> {
        let own = getpid();
        set_child_subreaper(Some(own))?;
        let list = File::open(format!("/proc/{own}/task/{own}/children")).ok();
        let (looking, attempts, immune) = (Mutex::default(), Mutex::default(), Unkillables::default());
        let mut orphans = Orphans { list, looking, before: Vec::new(), attempts, immune };
        orphans.before = orphans.children();
        Ok(orphans)
    }

    /// Ends all of them that come from functions, at once, and those which fall to this process meanwhile; only when no
    /// attempt runs any more.
    pub fn end(&self) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let killed = self.children().into_iter().filter(|pid| self.kill(*pid)).count();
            let mut reaped = 0;
            // Unlike the kernel's list, this never overlooks a child.
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

    /// The processes that were found since this was asked last and may not be ended.
    pub fn immune(&self) -> Vec<Unkillable> {
        self.immune.take()
    }

    /// From now on, no call waits for processes that may not be ended.
    pub fn leave_immune(&self) {
        self.immune.leave();
    }

    /// Reaps those that have ended, which nobody else does.
    pub fn reap(&self) {
        self.look(None, None);
    }

    /// Reaps those of a process group that have ended; says whether any of it are there.
    pub(in crate::runner) fn reap_group(&self, group: Pid) -> bool {
        let _alone = self.looking.lock();
        // The dead count as there until they are reaped, and have fallen to us.
        while let Ok(Some(_)) = waitpgid(group, WaitOptions::NOHANG) {}
        test_kill_process_group(group).is_ok()
    }

    /// Kills an orphan that comes from a function; says whether it is waited for. One that may not be killed is not.
    fn kill(&self, pid: Pid) -> bool {
        match if self.are_ours() { Ownership::Ours } else { ownership(pid, is_of_a_function, |_| true) } {
            Ownership::Ours => kill_process(pid, Signal::KILL).is_ok(),
            Ownership::Unknown => true,
            Ownership::Others => false,
        }
    }

    /// Whether whatever falls to this process must come from its functions. Not so where others fall to it as well: below
    /// a program in whose place it was started, and as a system's first process.
    fn are_ours(&self) -> bool {
        self.before.is_empty() && getpid() != Pid::INIT
    }

    /// Reaps the dead but `child`, and gives those that live; says whether any of the dead may have been of the attempt with
    /// this number.
    fn look(&self, child: Option<Pid>, number: Option<i32>) -> (Vec<Pid>, bool) {
        let _alone = self.looking.lock();
        let running = number.map(|_| self.attempts().clone()).unwrap_or_default();
        let mut pids = self.children();
        pids.retain(|pid| Some(*pid) != child);
        let mut ours = false;
        pids.retain(|pid| {
            // Told of the dead as well, until they are reaped. What no attempt has, somebody has given himself.
            let whose = number.and_then(|_| oom_score::attempt(*pid)).filter(|number| running.contains(number));
            let lives = matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
            ours |= !lives && (whose.is_none() || whose == number);
            lives
        });
        (pids, ours)
    }

    fn attempts(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn children(&self) -> Vec<Pid> {
        let Some(list) = &self.list else { return Vec::new() };
        let (mut text, mut chunk) = (Vec::new(), [0; 512]);
        while let Ok(count) = list.read_at(&mut chunk, text.len() as u64) {
            text.extend_from_slice(&chunk[..count]);
            // The kernel fills what it is given, as long as there is more.
            if count < chunk.len() / 2 {
                break;
            }
        }
        let pids = text.split(u8::is_ascii_whitespace).filter_map(|number| str::from_utf8(number).ok()?.parse().ok());
        pids.filter_map(Pid::from_raw).filter(|pid| !self.before.contains(pid)).collect()
    }
}

/// To whom an orphan belongs.
enum Ownership {
    Ours,
    Others,
    /// It begins or ends just now.
    Unknown,
}

/// To whom an orphan belongs, by the marks in its environment, as far as `marked` knows them, and otherwise by the number
/// that its score tells.
fn ownership(pid: Pid, marked: impl Fn(&[u8]) -> Option<bool>, numbered: impl Fn(i32) -> bool) -> Ownership {
    let mark = match environ::read(pid) {
        Ok(None) => return Ownership::Unknown,
        Ok(Some(environment)) => marked(&environment),
        Err(_) => None,
    };
    // The score comes second: everybody may raise his own.
    match mark.or_else(|| oom_score::attempt(pid).map(&numbered)) {
        Some(true) => Ownership::Ours,
        // It has no environment any more, and leaves who knows whom.
        _ if mark.is_none() && environ::is_gone(pid) => Ownership::Unknown,
        _ => Ownership::Others,
    }
}

/// Whether a process was started by a function of this processor, if its environment tells: not if this processor was
/// itself started by a function, and what it finds has the mark of that one.
fn is_of_a_function(environment: &[u8]) -> Option<bool> {
    let own = environ::read(getpid()).ok().flatten().unwrap_or_default();
    marks(environment).any(|mark| entries(&own).all(|ours| ours != mark)).then_some(true)
}
