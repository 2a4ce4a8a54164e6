//! Going on while the store fails: outcomes are tried again, and on a full disk recorded with what is kept for that.
//!
//! Invariant: nothing is claimed unless the whole reserve is there, so that what runs can always be recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Event;
use super::super::over::Over;
use super::super::presence::Presence;
use super::{Drain, View};
use crate::commands::outcome;
use crate::domain::job::JobId;
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::runner::Reserve;
use crate::store::{Outlook, Patience, Plan, Store};

/// How long it waits before it tries a store again that failed while outcomes were to be recorded.
const FAILING: Duration = Duration::from_millis(500);

/// How often it looks whether there is space again.
const LOOK_FOR_SPACE: Duration = Duration::from_millis(250);

/// A full disk.
pub(super) struct Shortage {
    /// How it was met.
    error: Error,
    looked: Instant,
}

impl Drain<'_> {
    /// A store that fails while there are outcomes to record is tried until it does not: an outcome is lost only with
    /// the processor.
    pub(super) fn persist<T>(&mut self, at_stake: bool, mut work: impl FnMut(&mut Store) -> Result<T>) -> Result<T> {
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
        let mut told = false;
        loop {
            match work(self.store) {
                Err(error) if error.kind() == Kind::Io && error.can_pass() && at_stake && !self.pace.is_halted() => {
                    if self.button.pressed() > 1 {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut told, true) {
                        (self.tell)(Event::StoreFails { error: &error });
                    }
                    self.mind_the_marks();
                    std::thread::sleep(FAILING);
                }
                answer => return answer,
            }
        }
    }

    /// Tells, once, that it could not be written down which calls run.
    pub(super) fn mind_the_marks(&mut self) {
        if let Some(error) = self.presence.as_ref().and_then(Presence::flaw)
            && !std::mem::replace(&mut self.told_of_marks, true)
        {
            (self.tell)(Event::Unmarked { error });
        }
    }

    /// A round failed; what was to be recorded is kept. When that is for want of space, begins to do with the reserve.
    pub(super) fn round_failed(&mut self, service: &ServiceName, error: Error) -> Result<Option<View>> {
        if error.kind() != Kind::Full {
            return Err(error);
        }
        if !std::mem::replace(&mut self.told_of_shortage, true) {
            (self.tell)(Event::NoSpace { error: &error });
        }
        self.shortage = Some(Shortage { error, looked: Instant::now() });
        self.spare(service, true)?;
        Ok(None)
    }

    /// Whether there is something to do that waits for space.
    pub(super) fn waits_for_space(&self, outlook: &Outlook) -> bool {
        let could_claim = outlook.ready && outlook.free() > 0 && self.may_claim();
        self.shortage.is_some() && (self.has_news() || could_claim)
    }

    /// While the disk is full: looks now and then whether the reserve can be whole again, which ends that, and records
    /// what has ended.
    pub(super) fn do_with_the_reserve(&mut self, service: &ServiceName) -> Result<()> {
        let Some(shortage) = &mut self.shortage else { return Ok(()) };
        let look = shortage.looked.elapsed() >= LOOK_FOR_SPACE;
        if look {
            shortage.looked = Instant::now();
            if self.reserve().is_some_and(|reserve| reserve.fill().is_ok()) {
                self.shortage = None;
                return Ok(());
            }
        }
        self.spare(service, look)?;
        if self.button.pressed() > 1
            && self.has_news()
            && let Some(shortage) = self.shortage.take()
        {
            return Err(shortage.error);
        }
        Ok(())
    }

    /// Records what has just ended, and on `all` also what could not be recorded before.
    fn spare(&mut self, service: &ServiceName, all: bool) -> Result<()> {
        self.record_one_by_one(all)?;
        if all { self.give_back_alone(service) } else { Ok(()) }
    }

    /// Records outcomes each for itself, so that a large one is in no other's way. What does not fit is kept.
    pub(super) fn record_one_by_one(&mut self, all: bool) -> Result<()> {
        let before = if all { self.unrun.len() } else { 0 };
        for _ in 0..before {
            let over = self.unrun.remove(0);
            self.record(over)?;
        }
        while let Some(done) = self.done.pop_front() {
            let over = Over::of(done)?;
            self.record(over)?;
        }
        Ok(())
    }

    fn record(&mut self, mut over: Over) -> Result<()> {
        let Some(reserve) = self.reserve() else { return Ok(()) };
        match self.persist(true, |store| outcome::record(store, &reserve, &mut over.finish)) {
            Ok(state) => self.report(vec![over], vec![state]),
            Err(error) => {
                self.unrun.push(over);
                if error.kind() != Kind::Full {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives back what was claimed and never begun.
    fn give_back_alone(&mut self, service: &ServiceName) -> Result<()> {
        let Some(presence) = self.presence.as_ref().filter(|_| !self.returned.is_empty()) else { return Ok(()) };
        let (held, running) =
            (presence.slots.held_of(service) + self.done.len() + self.unrun.len(), presence.slots.running_of(service));
        let (processor, reserve) = (presence.id, Arc::clone(&presence.reserve));
        let returned = std::mem::take(&mut self.returned);
        let plan =
            Plan { processor, service, finished: &[], returned: &returned, held, running, ahead: 0, tokens: &[] };
        let given = self.persist(true, |store| {
            loop {
                match store.advance(&plan) {
                    Err(error) if error.kind() == Kind::Full && reserve.give() => {}
                    done => return done,
                }
            }
        });
        match given {
            Ok(_) => Ok(()),
            Err(error) => {
                self.returned = returned;
                if error.kind() == Kind::Full { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Gives up, as it was told to, the outcomes that cannot be recorded: their calls are put back by who comes next, and
    /// this processor did not crash with them. A commit that the disk did not confirm may be there all the same.
    pub(super) fn give_up(&mut self) {
        let Some(presence) = &self.presence else { return };
        let ended = self.done.iter().map(|done| done.claim.fence.job);
        let jobs: Vec<JobId> = self.unrun.iter().map(|over| over.finish.fence.job).chain(ended).collect();
        if !jobs.is_empty() {
            (self.tell)(Event::GivenUp { jobs: &jobs });
        }
        let unrun = self.unrun.iter().filter_map(|over| over.mark.as_ref());
        for mark in unrun.chain(self.done.iter().filter_map(|done| done.mark.as_ref())) {
            presence.slots.forget(mark);
        }
        self.mind_the_marks();
    }

    fn reserve(&self) -> Option<Arc<Reserve>> {
        self.presence.as_ref().map(|presence| Arc::clone(&presence.reserve))
    }
}
