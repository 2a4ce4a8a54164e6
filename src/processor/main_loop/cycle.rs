//! Rounds. Each round is one transaction for one service: it records ended calls and claims as many new ones as there is room for.

use std::time::Duration;

use super::MainLoop;
use crate::domain::event::Event;
use crate::domain::job::{Finish, State};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::processor::service_state::{Pending, Snapshot};
use crate::processor::{finished::FinishedCall, prefetch::MOST_BYTES, registration::Registration, reporter::Warning};
use crate::store::{Cycle, CycleResult};
use crate::system::memory;

impl MainLoop<'_> {
    /// Makes rounds for the services, in turn, until there is nothing to record and nothing to claim.
    pub(super) fn run_cycles(&mut self) -> Result<()> {
        let mut any = true;
        while std::mem::take(&mut any) {
            for index in 0..self.services.len() {
                let due = self.services[index].has_pending() || self.could_claim(index) || self.could_fire(index);
                if due && self.full_disk.is_none() {
                    self.run_cycle(index)?;
                    any = true;
                }
            }
        }
        Ok(())
    }

    /// How many more calls of a service could be claimed now.
    fn room(&self, index: usize) -> usize {
        let state = &self.services[index];
        let waits = |other: &usize| *other != index && self.services[*other].snapshot.status.wants_alone;
        // What waits for empty hands gets them.
        let may = self.may_begin() && self.scarcity.is_none();
        if !may || (0..self.services.len()).any(|other| waits(&other)) {
            return 0;
        }
        // The next call waits for the host, here or elsewhere. Without this check, it would be claimed and given back all the time.
        if state.awaits_host
            && self.membership.get().is_some_and(|registration| registration.slots.queue().host_is_full())
        {
            return 0;
        }
        let load = self.membership.get().map(|registration| registration.slots.load(&state.name)).unwrap_or_default();
        self.budget.room(&state.snapshot.status, state.speed, load)
    }

    fn could_claim(&self, index: usize) -> bool {
        let status = &self.services[index].snapshot.status;
        let alone = status.wants_alone && self.open_calls() == 0;
        // A processor keeps its slots while it waits for the rate, but it has to take them first.
        let waits = self.services[index].snapshot.until_rate().is_some() && self.services[index].slots > 0;
        self.could_expire(index) || (status.ready || alone) && !waits && self.room(index) > 0
    }

    /// Whether there are expired calls to end.
    fn could_expire(&self, index: usize) -> bool {
        self.may_begin() && self.services[index].snapshot.have_expired()
    }

    /// How long to wait until the rate lets a call start that nothing else holds up.
    pub(super) fn time_to_rate(&self) -> Option<Duration> {
        let waits = |index: usize| self.services[index].snapshot.until_rate().filter(|_| self.room(index) > 0);
        (0..self.services.len()).filter_map(waits).min().map(|time| time.max(Duration::from_millis(1)))
    }

    /// Whether ticks can make jobs, even if none of the jobs can begin now.
    fn could_fire(&self, index: usize) -> bool {
        self.may_begin() && self.services[index].snapshot.has_due_ticks()
    }

    /// Makes jobs of the ticks that are due.
    pub(super) fn fire_ticks(&mut self) -> Result<()> {
        for index in 0..self.services.len() {
            if self.could_fire(index) {
                self.run_cycle(index)?;
            }
        }
        Ok(())
    }

    /// Records what has ended on a service, claims as many calls as there is room for, and begins them. Afterwards, the snapshot of
    /// the service is up to date, unless the round did not look because more calls are held than can run.
    fn run_cycle(&mut self, index: usize) -> Result<()> {
        let processor = self.registration()?.id;
        let mut room = self.room(index);
        if room > 0 {
            self.folder_is_there()?;
            if let Err(error) = memory::look() {
                if self.could_claim(index) {
                    self.pause_starts("cannot run functions", &error);
                }
                room = 0;
            }
        }
        let (tokens, fires) = (self.budget.tokens(room)?, self.could_fire(index) || self.could_expire(index));
        let state = &mut self.services[index];
        let (service, before, speed) = (state.name.clone(), state.snapshot.status, state.speed);
        let pending = state.pending()?;
        let ended = state.ended();
        let finished: Vec<&Finish> = pending.finished.iter().map(|call| &call.finish).collect();
        let slots = &self.registration()?.slots;
        let (load, running) = (slots.load(&service), slots.queue().running_of(&service));
        if room == 0 && !fires && !pending.puts_back() && (1..load.held).contains(&before.free()) {
            self.budget.unused_tokens(tokens);
            return match self.persist(true, |store| store.finish(&finished)) {
                Ok(states) => {
                    self.report(pending.finished, states);
                    Ok(())
                }
                Err(error) => self.keep(index, pending).cycle_failed(error),
            };
        }
        let cycle = Cycle {
            processor,
            service: &service,
            finished: &finished,
            returned: &pending.returned,
            postponed: &pending.postponed,
            // Calls that have come back and are not recorded yet still count.
            held: load.held + ended,
            elsewhere: load.elsewhere,
            running,
            ahead: self.budget.prefetch(&before, speed),
            tokens: &tokens[..room],
            bytes: MOST_BYTES.saturating_sub(load.bytes).max(1),
        };
        let at_stake = cycle.held > 0 || !finished.is_empty();
        let done = self.persist(at_stake, |store| store.run_cycle(&cycle));
        // The next round uses the tokens that no call got. Not after an error: the claims may have been committed all the same,
        // with some of these tokens.
        if let Ok(done) = &done {
            self.budget.unused_tokens(tokens.into_iter().skip(done.claims.len() + done.broken.len()));
        }
        let CycleResult { finished: states, claims, broken, refusal, troubles, slots, status } = match done {
            Ok(done) => done,
            Err(error) => return self.keep(index, pending).cycle_failed(error),
        };
        reached("claims made");
        self.reporter.is_over(Warning::FullDisk);
        self.report(pending.finished, states);
        self.budget.claimed(&claims, broken.len());
        if let Some(error) = &refusal {
            self.reporter.held_back(error);
        }
        for (name, trouble) in &troubles {
            self.reporter.tell(Event::Schedule { name, trouble });
        }
        let whole_lines = status.concurrency > 1 || self.services.len() > 1;
        let state = &mut self.services[index];
        state.never_ran(broken.into_iter().map(FinishedCall::broken));
        state.snapshot = Snapshot::new(status);
        state.slots = slots;
        state.begins();
        let registration = self.registration()?;
        registration.slots.queue().whole_lines = whole_lines;
        registration.slots.begin(&service, claims, slots).or_else(|error| {
            self.give_back_of(index);
            self.pause_starts("cannot run functions", &error);
            Ok(())
        })
    }

    /// Gives back what has not begun of a service.
    pub(super) fn give_back_of(&mut self, index: usize) {
        let (Some(registration), state) = (self.membership.active(), &mut self.services[index]) else { return };
        let claims = registration.slots.take_back(|claim| claim.call.service == state.name);
        self.budget.gave_back(claims.len());
        let queue = registration.slots.queue();
        state.awaits_host = claims.iter().any(|claim| queue.waits_for_host(claim));
        state.gives_back(&claims);
    }

    /// Keeps what could not be recorded, for another time.
    fn keep(&mut self, index: usize, pending: Pending) -> &mut Self {
        self.services[index].keep(pending);
        self
    }

    /// Reports recorded calls, each with the state of its job now, or `None` if the job no longer belonged to this processor.
    pub(super) fn report(&mut self, calls: Vec<FinishedCall>, states: Vec<Option<State>>) {
        for (call, state) in calls.into_iter().zip(states) {
            if let (Some(mark), Some(registration)) = (&call.mark, self.membership.get()) {
                registration.slots.recorded(&call.service, mark);
            }
            if state.is_none() {
                let job = call.finish.fence.job;
                let now = match self.store.job(job) {
                    Ok(job) => Some(job.state),
                    Err(error) if error.kind() == Kind::NotFound => None,
                    // A newer build has upgraded the store: the job belongs to another processor.
                    Err(_) => Some(State::Processing),
                };
                self.reporter.tell(Event::Late { job, now });
            }
            self.reporter.finished(call, state);
        }
        self.report_unwritten_marks();
    }

    /// The registration. Registers when it is needed for the first time.
    ///
    /// # Errors
    /// [`Kind::Busy`] when this processor has left; and as for registering.
    pub(super) fn registration(&mut self) -> Result<&mut Registration> {
        let joined = self.membership.join(self.store, &self.events)?;
        let registration =
            self.membership.active().ok_or_else(|| Error::new(Kind::Busy, "this processor has left the store"))?;
        if joined {
            self.shutdown.connect(registration.slots.stop_targets());
        }
        Ok(registration)
    }
}
