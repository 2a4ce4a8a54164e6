//! The processes of one running attempt, and how to end them.

use std::{collections::BTreeSet, process::Child, sync::Arc};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::domain::event::Unkillable;
use crate::domain::job::{JobId, Token};
use crate::runner::process::orphans::{Ownership, TokenMark, marks, ownership};
use crate::runner::{Orphans, process::environ, process::oom_score::Offer};

/// A running attempt. It exists from before its program is started, so that no other attempt claims its orphans.
#[derive(Debug)]
pub(in crate::runner) struct RunningAttempt {
    orphans: Arc<Orphans>,
    number: i32,
}

impl RunningAttempt {
    pub(in crate::runner) fn begin(orphans: &Arc<Orphans>) -> RunningAttempt {
        let mut running = orphans.attempts();
        let number = (0..i32::MAX).find(|number| !running.contains(number)).unwrap_or(i32::MAX);
        running.insert(number);
        RunningAttempt { orphans: Arc::clone(orphans), number }
    }

    /// The rank with which its program is started.
    pub(in crate::runner) fn offer(&self) -> Offer {
        Offer { number: self.number }
    }

    /// Whether no other attempt runs, so that even orphans without a mark belong to this one.
    fn is_alone(&self) -> bool {
        self.orphans.are_ours() && self.orphans.attempts().len() == 1
    }
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        self.orphans.attempts().remove(&self.number);
    }
}

/// What is left of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum Remaining {
    /// No process.
    Nobody,
    /// There are processes that have not ended yet, as far as this can see.
    Some,
    /// Only processes that may not be ended.
    Unkillable,
    /// Some have just ended, and may have left children that this has not seen yet.
    Others,
}

/// The orphans of one attempt.
#[derive(Debug)]
pub(in crate::runner) struct AttemptProcesses {
    attempt: RunningAttempt,
    mark: TokenMark,
    /// The program of the attempt itself, in case it is a child of the main thread.
    child: Pid,
    /// The processes that were asked to end.
    asked: BTreeSet<i32>,
    /// The processes that may not be ended.
    unkillable: BTreeSet<i32>,
    /// The job for which the program works.
    pub(super) job: Option<JobId>,
}

impl AttemptProcesses {
    /// The processes of the attempt with this token. Its program is `child`.
    pub(in crate::runner) fn new(attempt: RunningAttempt, token: &Token, child: &Child) -> AttemptProcesses {
        AttemptProcesses {
            attempt,
            mark: TokenMark(token.clone()),
            child: Pid::from_child(child),
            asked: BTreeSet::new(),
            unkillable: BTreeSet::new(),
            job: None,
        }
    }

    /// Whether its group still has a process, after the program has ended. Reaps ended ones.
    pub(in crate::runner) fn has_group(&self, group: Pid) -> bool {
        self.attempt.orphans.reap_group(group)
    }

    /// Kills the tracer of the program if it belongs to the attempt, because it can keep the program from ending.
    pub(in crate::runner) fn end_tracer(&self) {
        let tracer = environ::tracer(self.child);
        // It is opened before it is checked, so that the signal reaches the process that was checked.
        let Some((pid, held)) = tracer.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))) else {
            return;
        };
        if matches!(self.ownership(pid), Ownership::Ours) {
            let _ = pidfd_send_signal(&held, Signal::KILL);
        }
    }

    /// A process of it has refused a signal.
    pub(in crate::runner) fn refused(&mut self, pid: Pid) {
        if self.unkillable.insert(pid.as_raw_nonzero().get())
            && let Some(unkillable) = Unkillable::of(pid, self.job)
        {
            self.attempt.orphans.note_unkillable(unkillable);
        }
    }

    /// Whether a process has refused a signal, and nobody waits for it.
    pub(in crate::runner) fn leaves(&self, pid: Pid) -> bool {
        self.attempt.orphans.leaves_unkillable() && self.unkillable.contains(&pid.as_raw_nonzero().get())
    }

    /// Whether there are processes that may not be ended, and nobody waits for them.
    pub(in crate::runner) fn leaves_unkillable(&self) -> bool {
        self.attempt.orphans.leaves_unkillable() && !self.unkillable.is_empty()
    }

    /// Asks every orphan once to end, or kills it. Returns what may be left.
    pub(in crate::runner) fn end(&mut self, kill: bool) -> Remaining {
        let (living, dead) = self.attempt.orphans.look(Some(self.child), Some(self.attempt.number));
        // This comes after the list was read, so the list has no orphan of an attempt that has begun since.
        let alone = self.attempt.is_alone();
        let (mut left, mut unkillable) = (false, false);
        for pid in living {
            match if alone { Ownership::Ours } else { self.ownership(pid) } {
                Ownership::Ours if self.end_one(pid, kill) => left = true,
                Ownership::Ours => unkillable = true,
                Ownership::Unknown => left = true,
                Ownership::Others => {}
            }
        }
        match (dead, left, unkillable) {
            (true, ..) => Remaining::Others,
            (false, true, _) => Remaining::Some,
            (false, false, true) => Remaining::Unkillable,
            (false, false, false) => Remaining::Nobody,
        }
    }

    fn ownership(&self, pid: Pid) -> Ownership {
        let marked = |environment: &[u8]| {
            let ours = self.mark.is_on(environment);
            (ours || marks(environment).next().is_some()).then_some(ours)
        };
        ownership(pid, marked, |number| number == self.attempt.number)
    }

    /// Asks an orphan once to end, or kills it. Returns whether it may be signalled.
    fn end_one(&mut self, pid: Pid, kill: bool) -> bool {
        let number = pid.as_raw_nonzero().get();
        let obeys = if kill {
            obeys(pid, Signal::KILL)
        } else if self.asked.insert(number) {
            // A stopped process sees the signal only when it continues.
            obeys(pid, Signal::TERM) && obeys(pid, Signal::CONT)
        } else {
            !self.unkillable.contains(&number)
        };
        if !obeys {
            self.refused(pid);
        }
        obeys
    }
}

/// Sends a signal. Returns whether the process may be signalled. A process that the thread of another attempt has reaped meanwhile
/// counts, because it may have left children.
fn obeys(pid: Pid, signal: Signal) -> bool {
    kill_process(pid, signal) != Err(Errno::PERM)
}
