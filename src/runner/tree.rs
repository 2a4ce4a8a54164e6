//! A program that was started, with all that it starts: watching it, and ending all of it.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::hitch::{of_call, patiently};
use super::leftover::{Attempt, Family, Left, Orphans};
use super::score::Offer;
use crate::domain::job::{JobId, Token};

/// How long a program that was asked to end may take before it is made to.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long what is left of a process group may take to end, after the program itself has ended.
pub(super) const REST_GRACE: Duration = Duration::from_secs(2);

/// How often to look again what is left of a tree that is to end: at first, and where something changes; and at last.
const LOOK: Duration = Duration::from_millis(1);
pub(super) const LAST_LOOK: Duration = Duration::from_millis(50);

/// A program in a process group of its own, and what it has left.
#[derive(Debug)]
pub(super) struct Tree {
    child: Child,
    group: Pid,
    family: Family,
}

/// What is left of a program that has ended.
struct Rest {
    /// Whether its group is there. Once it is not, its number may be another's.
    group: bool,
    /// How the program ended, once that is known.
    status: Option<io::Result<ExitStatus>>,
}

impl Tree {
    /// Starts a program; every process that it starts carries `token`.
    pub(super) fn start<E>(
        orphans: &Arc<Orphans>,
        token: &Token,
        start: impl FnOnce(Offer) -> Result<Child, E>,
    ) -> Result<Tree, E> {
        let attempt = Attempt::begin(orphans);
        let child = start(attempt.offer())?;
        let family = Family::new(attempt, token, &child);
        Ok(Tree { group: Pid::from_child(&child), child, family })
    }

    /// The program itself.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process.
    pub(super) fn pid(&self) -> Pid {
        self.group
    }

    /// What tells that the program has ended.
    pub(super) fn watch(&self) -> io::Result<OwnedFd> {
        patiently(|| pidfd_open(self.group, PidfdFlags::empty()).map_err(|error| of_call("pidfd_open", error)))
    }

    /// The program works for this job from now on.
    pub(super) fn works_for(&mut self, job: JobId) {
        self.family.works_for(job);
    }

    /// Whether the program may not be ended, and is not waited for any more.
    pub(super) fn is_left(&self) -> bool {
        self.family.leaves(self.group)
    }

    /// Asks the whole group to end.
    pub(super) fn ask(&mut self) {
        self.signal(Signal::TERM);
        // A stopped process does not see the signal before it goes on.
        self.signal(Signal::CONT);
    }

    /// Asks what the program has orphaned to end, or makes all of the tree end.
    pub(super) fn press(&mut self, kill: bool) {
        if kill {
            self.signal(Signal::KILL);
            self.family.end_tracer();
        }
        self.family.end(kill);
    }

    /// The program has ended, or is made to by `kill_now`: ends what it left behind, in its group and out of it; gives how
    /// it ended, or nothing where processes are left that may not be ended and are not waited for. Meanwhile `read` is called
    /// now and then, for those who wait until what they print is taken.
    pub(super) fn end_the_rest(
        &mut self,
        kill_now: impl Fn() -> bool,
        mut read: impl FnMut(),
    ) -> Option<io::Result<ExitStatus>> {
        // Its number still belongs to the group: it is not reaped yet.
        self.ask();
        let mut rest = Rest { group: true, status: None };
        let mut pause = LOOK;
        loop {
            let kill = kill_now();
            if kill && rest.group {
                self.signal(Signal::KILL);
            }
            let orphans = self.family.end(kill);
            self.reap(&mut rest);
            if orphans == Left::Nobody
                && !rest.group
                && let Some(status) = rest.status.take()
            {
                return Some(status);
            }
            let over = rest.status.is_some() || self.is_left();
            if over && matches!(orphans, Left::Nobody | Left::Immune) && self.family.leaves_immune() {
                return None;
            }
            read();
            std::thread::sleep(pause);
            pause = if orphans == Left::Others { LOOK } else { (pause * 2).min(LAST_LOOK) };
        }
    }

    /// Ends all of it, at once.
    pub(super) fn kill(&mut self) -> Option<io::Result<ExitStatus>> {
        self.press(true);
        self.end_the_rest(|| true, || ())
    }

    /// Takes note of the dead.
    fn reap(&mut self, rest: &mut Rest) {
        if rest.status.is_none() {
            // Never waited for: as long as somebody traces it, it is not ours.
            rest.status = self.child.try_wait().transpose();
        }
        if rest.status.is_some() && rest.group {
            rest.group = self.family.has_group(self.group);
        }
    }

    fn signal(&mut self, signal: Signal) {
        // Otherwise the whole group is gone.
        if kill_process_group(self.group, signal) == Err(Errno::PERM) {
            self.family.refused(self.group);
        }
    }
}

/// A moment from now on which a tree is killed.
pub(super) fn soon(by: Option<Instant>) -> Instant {
    let soon = Instant::now() + REST_GRACE;
    by.map_or(soon, |by| soon.min(by))
}
