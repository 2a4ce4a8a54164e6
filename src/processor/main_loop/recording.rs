//! Going on while the store fails: outcomes are tried again, and on a full disk recorded with what is kept for that.
//!
//! Invariant: nothing is claimed unless the whole reserve is there, so that what runs can always be recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::finished::FinishedCall;
use super::super::registration::Registration;
use super::super::service_state::ServiceState;
use super::MainLoop;
use crate::domain::event::Event;
use crate::domain::job::JobId;
use crate::error::{Error, Kind, Result};
use crate::processor::outcome;
use crate::runner::DiskReserve;
use crate::store::{Cycle, Patience, Store};

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

impl MainLoop<'_> {
    /// A store that fails while there are outcomes to record is tried until it does not: an outcome is lost only with
    /// the processor.
    pub(super) fn persist<T>(&mut self, at_stake: bool, mut work: impl FnMut(&mut Store) -> Result<T>) -> Result<T> {
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
        let mut told = false;
        loop {
            match work(self.store) {
                Err(error)
                    if error.kind() == Kind::Io && error.is_transient() && at_stake && !self.budget.is_halted() =>
                {
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
        if let Some(error) = self.registration.as_ref().and_then(Registration::flaw)
            && !std::mem::replace(&mut self.told_of_marks, true)
        {
            (self.tell)(Event::Unmarked { error });
        }
    }

    /// A round failed; what was to be recorded is kept. When that is for want of space, begins to do with the reserve.
    pub(super) fn round_failed(&mut self, error: Error) -> Result<()> {
        if error.kind() != Kind::Full {
            return Err(error);
        }
        if !std::mem::replace(&mut self.told_of_shortage, true) {
            (self.tell)(Event::NoSpace { error: &error });
        }
        self.shortage = Some(Shortage { error, looked: Instant::now() });
        self.spare(true)
    }

    /// Whether there is something to do that waits for space.
    pub(super) fn waits_for_space(&self) -> bool {
        let ready = |served: &ServiceState| served.snapshot.status.ready && served.snapshot.status.free() > 0;
        let could_claim = self.may_claim() && self.served.iter().any(ready);
        self.shortage.is_some() && (self.has_news() || could_claim)
    }

    /// While the disk is full: looks now and then whether the reserve can be whole again, which ends that, and records
    /// what has ended.
    pub(super) fn do_with_the_reserve(&mut self) -> Result<()> {
        let Some(shortage) = &mut self.shortage else { return Ok(()) };
        let look = shortage.looked.elapsed() >= LOOK_FOR_SPACE;
        if look {
            shortage.looked = Instant::now();
            if self.reserve().is_some_and(|reserve| reserve.fill().is_ok()) {
                self.shortage = None;
                return Ok(());
            }
        }
        self.spare(look)?;
        if self.button.pressed() > 1
            && self.has_news()
            && let Some(shortage) = self.shortage.take()
        {
            return Err(shortage.error);
        }
        Ok(())
    }

    /// Records what has just ended, and on `all` also what could not be recorded before.
    fn spare(&mut self, all: bool) -> Result<()> {
        self.record_one_by_one(all)?;
        if all { (0..self.served.len()).try_for_each(|index| self.give_back_alone(index)) } else { Ok(()) }
    }

    /// Records outcomes each for itself, so that a large one is in no other's way. What does not fit is kept.
    pub(super) fn record_one_by_one(&mut self, all: bool) -> Result<()> {
        for index in 0..self.served.len() {
            let mut outcomes = self.served[index].outcomes(all)?.into_iter();
            while let Some(over) = outcomes.next() {
                if let Err(failed) = self.record(over) {
                    let (over, error) = *failed;
                    self.served[index].never_ran([over]);
                    if error.kind() != Kind::Full {
                        self.served[index].never_ran(outcomes);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, mut over: FinishedCall) -> Result<(), Box<(FinishedCall, Error)>> {
        let Some(reserve) = self.reserve() else { return Ok(()) };
        match self.persist(true, |store| outcome::record(store, &reserve, &mut over.finish)) {
            Ok(state) => self.report(vec![over], vec![state]),
            Err(error) => return Err(Box::new((over, error))),
        }
        Ok(())
    }

    /// Gives back what was claimed of a service and never begun.
    fn give_back_alone(&mut self, index: usize) -> Result<()> {
        let served = &mut self.served[index];
        let Some(registration) = &self.registration else { return Ok(()) };
        let news = served.returned();
        if news.returned.is_empty() && news.postponed.is_empty() {
            return Ok(());
        }
        let load = registration.slots.load(&served.name);
        let (processor, reserve, service) = (registration.id, Arc::clone(&registration.reserve), served.name.clone());
        let plan = Cycle {
            processor,
            service: &service,
            finished: &[],
            returned: &news.returned,
            postponed: &news.postponed,
            held: load.held + served.over(),
            elsewhere: load.elsewhere,
            running: registration.slots.running_of(&service),
            ahead: 0,
            tokens: &[],
            bytes: 0,
        };
        let given = self.persist(true, |store| {
            loop {
                match store.run_cycle(&plan) {
                    Err(error) if error.kind() == Kind::Full && reserve.give() => {}
                    done => return done,
                }
            }
        });
        match given {
            Ok(_) => Ok(()),
            Err(error) => {
                self.served[index].keep(news);
                if error.kind() == Kind::Full { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Gives up, as it was told to, the outcomes that cannot be recorded: their calls are put back by who comes next, and
    /// this processor did not crash with them. A commit that the disk did not confirm may be there all the same.
    pub(super) fn give_up(&mut self) {
        let Some(registration) = &self.registration else { return };
        let unrecorded: Vec<_> = self.served.iter().flat_map(ServiceState::unrecorded).collect();
        let jobs: Vec<JobId> = unrecorded.iter().map(|(job, _)| *job).collect();
        if !jobs.is_empty() {
            (self.tell)(Event::GivenUp { jobs: &jobs });
        }
        for mark in unrecorded.iter().filter_map(|(_, mark)| *mark) {
            registration.slots.forget(mark);
        }
        self.mind_the_marks();
    }

    fn reserve(&self) -> Option<Arc<DiskReserve>> {
        self.registration.as_ref().map(|registration| Arc::clone(&registration.reserve))
    }
}
