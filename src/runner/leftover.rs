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

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    waitpid,
};

use crate::domain::job::Token;

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
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = 0;
    for pid in pids.filter_map(Pid::from_raw) {
        // Held before its environment is read, so that the signal meets the process that was read.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if marks.iter().any(|mark| mark.is_on(&environment)) {
            found += 1;
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    found
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
    families: AtomicUsize,
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
        let mut orphans = Orphans { list, before: Vec::new(), families: AtomicUsize::new(0) };
        orphans.before = orphans.children();
        Ok(orphans)
    }

    /// Ends all of them, at once; only when no attempt runs any more.
    pub fn end(&self) {
        loop {
            let living = self.living(None, None);
            // One that may not be killed is not waited for.
            if living.iter().all(|pid| kill_process(*pid, Signal::KILL).is_err()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reaps the dead, and gives those that live: all but `child`, or only those that bear a mark.
    fn living(&self, mark: Option<&Mark>, child: Option<Pid>) -> Vec<Pid> {
        let mut pids = self.children();
        pids.retain(|pid| {
            Some(*pid) != child
                && matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None))
                && mark.is_none_or(|mark| {
                    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| mark.is_on(&environment))
                })
        });
        pids
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

/// The orphans of one attempt, as long as it runs.
#[derive(Debug)]
pub(super) struct Family<'a> {
    orphans: &'a Orphans,
    mark: Mark,
    /// The program of the attempt itself, in case it is a child of the main thread.
    child: Pid,
    /// Who was asked to end.
    asked: Vec<Pid>,
}

impl<'a> Family<'a> {
    /// The family of the attempt with this token, whose program is `child`.
    pub(super) fn new(orphans: &'a Orphans, token: &Token, child: Pid) -> Family<'a> {
        orphans.families.fetch_add(1, Ordering::SeqCst);
        Family { orphans, mark: Mark::new(token), child, asked: Vec::new() }
    }

    /// Asks every orphan to end, once, or makes it; says whether any are left that obey.
    pub(super) fn end(&mut self, kill: bool) -> bool {
        // Where no other attempt runs, even one without a mark can only belong to this one.
        let alone = self.orphans.families.load(Ordering::SeqCst) == 1;
        let mut left = false;
        for pid in self.orphans.living((!alone).then_some(&self.mark), Some(self.child)) {
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

impl Drop for Family<'_> {
    fn drop(&mut self) {
        self.orphans.families.fetch_sub(1, Ordering::SeqCst);
    }
}
