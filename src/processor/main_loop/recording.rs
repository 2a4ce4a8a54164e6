//! Recording outcomes while the store fails or the disk is full.
//!
//! Invariant: nothing is claimed unless the disk reserve is whole, so that every outcome can be recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{MainLoop, Obstacle};
use crate::domain::{event::Event, job::JobId};
use crate::error::{Error, Kind, Result};
use crate::processor::finished::{self, FinishedCall};
use crate::processor::{registration::Registration, reporter::Warning, service_state::ServiceState};
use crate::runner::DiskReserve;
use crate::store::{Cycle, Patience, Store};

/// Pause before a failing store is tried again.
const RETRY_STORE: Duration = Duration::from_millis(500);

/// Pause before the disk reserve is tried again.
const RETRY_DISK: Duration = Duration::from_millis(250);

impl MainLoop<'_> {
    /// Runs `work` on the store. While outcomes are at stake, it retries a failing store again and again, because they are lost
    /// only if this processor ends. A second signal ends that.
    pub(super) fn persist<T>(&mut self, at_stake: bool, mut work: impl FnMut(&mut Store) -> Result<T>) -> Result<T> {
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
        let mut reported = false;
        loop {
            match work(self.store) {
                Err(error)
                    if error.kind() == Kind::Io && error.is_transient() && at_stake && !self.budget.is_halted() =>
                {
                    if self.shutdown.signals() > 1 {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut reported, true) {
                        self.reporter.tell(Event::StoreFails(&error));
                    }
                    self.report_unwritten_marks();
                    std::thread::sleep(RETRY_STORE);
                }
                answer => return answer,
            }
        }
    }

    /// Reports marks that could not be written.
    pub(super) fn report_unwritten_marks(&mut self) {
        if let Some(error) = self.membership.get().and_then(Registration::mark_error) {
            self.reporter.warn(Warning::Unmarked, Event::Unmarked(error));
        }
    }

    /// Handles a cycle that failed. What it was to record is kept. After a full disk, the reserve is used to record from now on.
    pub(super) fn cycle_failed(&mut self, error: Error) -> Result<()> {
        if error.kind() != Kind::Full {
            return Err(error);
        }
        self.reporter.warn(Warning::FullDisk, Event::NoSpace(&error));
        self.full_disk = Some(Obstacle::new(error));
        self.record_with_reserve(true)
    }

    /// Whether something waits for space on the disk.
    pub(super) fn waits_for_space(&self) -> bool {
        let ready = |state: &ServiceState| state.snapshot.status.ready && state.snapshot.status.free() > 0;
        let could_claim = self.may_claim() && self.services.iter().any(ready);
        self.full_disk.is_some() && (self.has_something_to_record() || could_claim)
    }

    /// Records ended calls while the disk is full. Tries now and then to fill the reserve again; once that succeeds, this phase is
    /// over.
    pub(super) fn record_on_full_disk(&mut self) -> Result<()> {
        let Some(full_disk) = &mut self.full_disk else { return Ok(()) };
        let try_again = full_disk.since.elapsed() >= RETRY_DISK;
        if try_again {
            full_disk.since = Instant::now();
            if self.reserve().is_some_and(|reserve| reserve.fill().is_ok()) {
                self.full_disk = None;
                return Ok(());
            }
        }
        self.record_with_reserve(try_again)?;
        if self.shutdown.signals() > 1
            && self.has_something_to_record()
            && let Some(full_disk) = self.full_disk.take()
        {
            return Err(full_disk.error);
        }
        Ok(())
    }

    /// Records what has just ended; with `all`, also what could not be recorded before.
    fn record_with_reserve(&mut self, all: bool) -> Result<()> {
        self.record_one_by_one(all)?;
        if all { (0..self.services.len()).try_for_each(|index| self.give_back_alone(index)) } else { Ok(()) }
    }

    /// Records each outcome separately, so that a large one does not hold up the others. Keeps what does not fit.
    pub(super) fn record_one_by_one(&mut self, all: bool) -> Result<()> {
        for index in 0..self.services.len() {
            let mut outcomes = self.services[index].outcomes(all)?.into_iter();
            while let Some(call) = outcomes.next() {
                if let Err(failed) = self.record(call) {
                    let (call, error) = *failed;
                    self.services[index].never_ran([call]);
                    if error.kind() != Kind::Full {
                        self.services[index].never_ran(outcomes);
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, mut call: FinishedCall) -> Result<(), Box<(FinishedCall, Error)>> {
        let Some(reserve) = self.reserve() else { return Ok(()) };
        match self.persist(true, |store| finished::record(store, &reserve, &mut call.finish)) {
            Ok(state) => self.report(vec![call], vec![state]),
            Err(error) => return Err(Box::new((call, error))),
        }
        Ok(())
    }

    /// Gives back what was claimed of a service and never begun.
    fn give_back_alone(&mut self, index: usize) -> Result<()> {
        let state = &mut self.services[index];
        let Some(registration) = self.membership.get() else { return Ok(()) };
        let pending = state.returned();
        if !pending.puts_back() {
            return Ok(());
        }
        let load = registration.slots.load(&state.name);
        let (processor, reserve, service) = (registration.id, Arc::clone(&registration.reserve), state.name.clone());
        let cycle = Cycle {
            returned: &pending.returned,
            postponed: &pending.postponed,
            held: load.held + state.unrecorded().count(),
            elsewhere: load.elsewhere,
            running: registration.slots.queue().running_of(&service),
            ..Cycle::of(processor, &service)
        };
        let given = self.persist(true, |store| {
            loop {
                match store.run_cycle(&cycle) {
                    Err(error) if error.kind() == Kind::Full && reserve.give() => {}
                    done => return done,
                }
            }
        });
        match given {
            Ok(_) => Ok(()),
            Err(error) => {
                self.services[index].keep(pending);
                if error.kind() == Kind::Full { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Gives up the outcomes that cannot be recorded, after a second signal. The next processor puts back their calls without
    /// charging a crash. A commit that the disk did not confirm may have happened all the same.
    pub(super) fn give_up(&mut self) {
        let Some(registration) = self.membership.get() else { return };
        let unrecorded: Vec<_> = self.services.iter().flat_map(ServiceState::unrecorded).collect();
        let jobs: Vec<JobId> = unrecorded.iter().map(|(job, _)| *job).collect();
        if !jobs.is_empty() {
            self.reporter.tell(Event::GivenUp(&jobs));
        }
        for mark in unrecorded.iter().filter_map(|(_, mark)| *mark) {
            registration.slots.forget(mark);
        }
        self.report_unwritten_marks();
    }

    fn reserve(&self) -> Option<Arc<DiskReserve>> {
        self.membership.get().map(|registration| Arc::clone(&registration.reserve))
    }
}
