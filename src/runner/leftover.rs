//! Ending what functions leave running, when they have ended or their processor is dead.
//!
//! What belongs to an attempt is known by the attempt's token in its environment, which every descendant inherits unless it
//! clears its environment. The token of a nested call begins with that of the attempt which made it, so that whatever
//! began inside an attempt, however deep, is found by the attempt's own token.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    wait, waitpid,
};

use super::environ;
use crate::domain::job::Token;

/// How long to wait for orphans that were killed; only the kernel can keep one longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends every process that carries one of these tokens, at once, and waits until none is left; says whether that was
/// reached within `patience`.
#[must_use]
pub fn end(tokens: &[Token], patience: Duration) -> bool {
    let marks: Vec<Mark> = tokens.iter().map(Mark::new).collect();
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
fn kill_all(marks: &[Mark]) -> usize {
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

/// What the environment of every process of an attempt contains.
#[derive(Debug)]
struct Mark(String);

impl Mark {
    fn new(token: &Token) -> Mark {
        Mark(format!("ASYNCQ_TOKEN={}", token.as_str()))
    }

    fn is_on(&self, environment: &[u8]) -> bool {
        environment.split(|b| *b == 0).any(|entry| entry.starts_with(self.0.as_bytes()))
    }
}

/// The processes that have fallen to this one because their parents ended before them.
#[derive(Debug)]
pub struct Orphans {
    /// The kernel's list of the main thread's children, which is where orphans go; functions are children of the threads
    /// that run them. A kernel without that list (`CONFIG_PROC_CHILDREN`) tells nothing, and only process groups are ended.
    list: Option<File>,
    /// The children that this process had before, from a program in whose place it was started.
    before: Vec<Pid>,
    /// How many attempts run now.
    attempts: AtomicUsize,
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
        let mut orphans = Orphans { list, before: Vec::new(), attempts: AtomicUsize::new(0) };
        orphans.before = orphans.children();
        Ok(orphans)
    }

    /// Ends all of them, at once, and whatever falls to this process meanwhile; only when no attempt runs any more.
    pub fn end(&self) {
        let until = Instant::now() + PATIENCE;
        while self.are_ours() && Instant::now() < until {
            // One that may not be killed is not waited for.
            let killed = self.children().iter().filter(|pid| kill_process(**pid, Signal::KILL).is_ok()).count();
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

    /// Reaps those that have ended, which nobody else does.
    pub fn reap(&self) {
        self.look(None);
    }

    /// Whether whatever falls to this process must come from its functions. Not so where others fall to it as well: below
    /// a program in whose place it was started, and as a system's first process.
    fn are_ours(&self) -> bool {
        self.before.is_empty() && getpid() != Pid::INIT
    }

    /// Reaps the dead but `child`, and gives those that live, and how many were reaped.
    fn look(&self, child: Option<Pid>) -> (Vec<Pid>, usize) {
        let mut pids = self.children();
        pids.retain(|pid| Some(*pid) != child);
        let all = pids.len();
        pids.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
        let reaped = all - pids.len();
        (pids, reaped)
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

/// Says that an attempt runs, from before its program is started, so that nobody else takes its orphans for his own.
#[derive(Debug)]
pub(super) struct Attempt<'a>(&'a Orphans);

impl<'a> Attempt<'a> {
    pub(super) fn begin(orphans: &'a Orphans) -> Attempt<'a> {
        orphans.attempts.fetch_add(1, Ordering::SeqCst);
        Attempt(orphans)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.attempts.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The orphans of one attempt.
#[derive(Debug)]
pub(super) struct Family<'a> {
    attempt: Attempt<'a>,
    mark: Mark,
    /// The program of the attempt itself, in case it is a child of the main thread.
    child: Pid,
    /// Who was asked to end.
    asked: Vec<Pid>,
}

impl<'a> Family<'a> {
    /// The family of the attempt with this token, whose program is `child`.
    pub(super) fn new(attempt: Attempt<'a>, token: &Token, child: Pid) -> Family<'a> {
        Family { attempt, mark: Mark::new(token), child, asked: Vec::new() }
    }

    /// Asks every orphan to end, once, or makes it; says whether any may be left that obey.
    pub(super) fn end(&mut self, kill: bool) -> bool {
        let orphans = self.attempt.0;
        let (living, reaped) = orphans.look(Some(self.child));
        // Where no other attempt runs, even one without a mark can only belong to this one. Asked after the list was read:
        // an attempt that has begun since has none in it.
        let alone = orphans.are_ours() && orphans.attempts.load(Ordering::SeqCst) == 1;
        // What was reaped may have left children that were not in the list yet.
        let mut left = reaped > 0;
        for pid in living {
            if !alone {
                match environ::read(pid) {
                    Ok(Some(environment)) if self.mark.is_on(&environment) => {}
                    // It begins just now, and may be one of them.
                    Ok(None) => {
                        left = true;
                        continue;
                    }
                    Ok(Some(_)) | Err(_) => continue,
                }
            }
            left |= if kill {
                kill_process(pid, Signal::KILL).is_ok()
            } else if self.asked.contains(&pid) {
                true
            } else {
                self.asked.push(pid);
                let told = kill_process(pid, Signal::TERM).is_ok();
                // A stopped process does not see the signal before it goes on.
                told && kill_process(pid, Signal::CONT).is_ok()
            };
        }
        left
    }
}
