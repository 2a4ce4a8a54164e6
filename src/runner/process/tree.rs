//! A program with everything that it starts: how to watch it, and how to end it.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use std::{io, os::fd::OwnedFd, sync::Arc};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::domain::job::{JobId, Token};
use crate::runner::process::attempt_processes::{AttemptProcesses, Remaining, RunningAttempt};
use crate::runner::{Orphans, process::oom_score::Offer, start_failure::patiently};
use crate::system::error::of_call;

/// How long a program may take to end before it is killed.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long the rest of a process group may take to end, after the program has ended.
pub(in crate::runner) const REST_GRACE: Duration = Duration::from_secs(2);

/// How often to check what is left of a tree that has to end: at first and after each change, and later on.
const LOOK: Duration = Duration::from_millis(1);
pub(in crate::runner) const LAST_LOOK: Duration = Duration::from_millis(50);

/// A program in its own process group, and the processes that it has left.
#[derive(Debug)]
pub(in crate::runner) struct Tree {
    /// The program itself.
    pub(in crate::runner) child: Child,
    group: Pid,
    processes: AttemptProcesses,
}

/// What is left of a program that has ended.
struct Rest {
    /// Whether its group exists. If it does not, another group may get its number.
    group: bool,
    /// How the program ended, once that is known.
    status: Option<io::Result<ExitStatus>>,
}

impl Tree {
    /// Starts a program. Every process that it starts carries `token`.
    pub(in crate::runner) fn start<E>(
        orphans: &Arc<Orphans>,
        token: &Token,
        start: impl FnOnce(Offer) -> Result<Child, E>,
    ) -> Result<Tree, E> {
        let attempt = RunningAttempt::begin(orphans);
        let child = start(attempt.offer())?;
        let processes = AttemptProcesses::new(attempt, token, &child);
        Ok(Tree { group: Pid::from_child(&child), child, processes })
    }

    /// Its process.
    pub(in crate::runner) fn pid(&self) -> Pid {
        self.group
    }

    /// A descriptor that becomes readable when the program has ended.
    pub(in crate::runner) fn watch(&self) -> io::Result<OwnedFd> {
        patiently(|| pidfd_open(self.group, PidfdFlags::empty()).map_err(|error| of_call("pidfd_open", error)))
    }

    /// The program works for this job from now on.
    pub(in crate::runner) fn works_for(&mut self, job: JobId) {
        self.processes.job = Some(job);
    }

    /// Whether the program may not be ended, and nobody waits for it.
    pub(in crate::runner) fn is_left(&self) -> bool {
        self.processes.leaves(self.group)
    }

    /// Asks the whole group to end.
    pub(in crate::runner) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        // A stopped process sees the signal only when it continues.
        self.signal(Signal::CONT);
    }

    /// Asks the orphans of the program to end, or kills the whole tree.
    pub(in crate::runner) fn escalate(&mut self, kill: bool) {
        if kill {
            self.signal(Signal::KILL);
            self.processes.end_tracer();
        }
        self.processes.end(kill);
    }

    /// The program has ended, or is killed when `kill_now` says so. Ends what it has left, in its group and outside of it. Returns
    /// how the program ended, or `None` if processes are left that cannot be ended and that nobody waits for. Calls `read`
    /// meanwhile, because processes may wait until somebody reads what they print.
    pub(in crate::runner) fn end_the_rest(
        &mut self,
        kill_now: impl Fn() -> bool,
        mut read: impl FnMut(),
    ) -> Option<io::Result<ExitStatus>> {
        // It is not reaped yet, so its number still belongs to the group.
        self.terminate();
        let mut rest = Rest { group: true, status: None };
        let mut pause = LOOK;
        loop {
            let kill = kill_now();
            if kill && rest.group {
                self.signal(Signal::KILL);
            }
            let orphans = self.processes.end(kill);
            self.reap(&mut rest);
            if orphans == Remaining::Nobody
                && !rest.group
                && let Some(status) = rest.status.take()
            {
                return Some(status);
            }
            let over = rest.status.is_some() || self.is_left();
            if over
                && matches!(orphans, Remaining::Nobody | Remaining::Unkillable)
                && self.processes.leaves_unkillable()
            {
                return None;
            }
            read();
            std::thread::sleep(pause);
            pause = if orphans == Remaining::Others { LOOK } else { (pause * 2).min(LAST_LOOK) };
        }
    }

    /// Kills all of it.
    pub(in crate::runner) fn kill(&mut self) -> Option<io::Result<ExitStatus>> {
        self.escalate(true);
        self.end_the_rest(|| true, || ())
    }

    /// Reaps what has ended.
    fn reap(&mut self, rest: &mut Rest) {
        if rest.status.is_none() {
            // This does not wait: while a process is traced, its parent cannot reap it.
            rest.status = self.child.try_wait().transpose();
        }
        if rest.status.is_some() && rest.group {
            rest.group = self.processes.has_group(self.group);
        }
    }

    fn signal(&mut self, signal: Signal) {
        // Any other error means that the whole group is gone.
        if kill_process_group(self.group, signal) == Err(Errno::PERM) {
            self.processes.refused(self.group);
        }
    }
}

/// When a tree is killed that has to end soon.
pub(in crate::runner) fn soon(by: Option<Instant>) -> Instant {
    let soon = Instant::now() + REST_GRACE;
    by.map_or(soon, |by| soon.min(by))
}
