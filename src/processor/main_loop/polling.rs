//! Looks at what others have done: dead processors, jobs to cancel, ready calls, new services.

use std::time::Duration;

use super::MainLoop;
use crate::domain::event::{DrainProgress, Event};
use crate::domain::{job::Fence, pause::Paused};
use crate::error::{Kind, Result};
use crate::processor::registration::Registration;
use crate::processor::reporter::Warning;
use crate::processor::service_state::{ServiceState, Snapshot};
use crate::store::Patience;

impl MainLoop<'_> {
    /// Registers, so that others see it, asks for notifications of changes, and reports that it is ready.
    pub(super) fn begin_to_follow(&mut self) -> Result<()> {
        self.set_patience();
        self.registration()?;
        let watch = self.store.watch();
        if let Err(error) = &watch {
            self.reporter.tell(Event::Deaf(error));
        }
        self.watcher.follow(watch.ok());
        self.reporter.tell(Event::Ready);
        Ok(())
    }

    /// If no call can begin on any of the ready services, reports for each of them why.
    pub(super) fn all_are_blocked(&mut self) -> Result<bool> {
        let blocked = |state: &ServiceState| state.snapshot.status.ready && state.snapshot.status.free() == 0;
        if !self.may_claim() || !self.services.iter().all(blocked) {
            return Ok(false);
        }
        self.report_paused_services()?;
        for ServiceState { name: service, snapshot, .. } in &self.services {
            if !snapshot.status.paused {
                let holders = self.store.holders(service)?;
                let concurrency = snapshot.status.concurrency;
                self.reporter.tell(Event::Busy { service, concurrency, holders: &holders });
            }
        }
        Ok(!self.services.is_empty())
    }

    /// Reports calls that wait because the store or their service is paused, once in each pause.
    pub(super) fn report_paused_services(&mut self) -> Result<()> {
        for service in &mut self.services {
            if !service.snapshot.status.paused {
                self.reporter.is_over(Warning::StorePaused);
            }
            if !service.pauses() {
                continue;
            }
            match self.store.pause_of(&service.name)? {
                Some(paused @ Paused::Store(_)) => self.reporter.warn(Warning::StorePaused, Event::Paused(&paused)),
                Some(paused) => self.reporter.tell(Event::Paused(&paused)),
                None => {}
            }
        }
        Ok(())
    }

    /// Looks at the store, if it is time. While calls run, an error of the store ends nothing here: if their outcomes cannot be
    /// recorded later, that is reported then.
    pub(super) fn poll(&mut self) -> Result<()> {
        self.reporter.alive(self.options.pulse);
        let due = |state: &ServiceState| state.snapshot.until_change().is_some_and(|time| time.is_zero());
        let is_due = self.services.iter().any(due);
        if !self.watcher.is_time(is_due) {
            return Ok(());
        }
        match self.look_at_store(due) {
            Err(error) if error.is_transient() && (self.has_something_at_stake() || self.full_disk.is_some()) => Ok(()),
            looked => looked,
        }
    }

    /// Tells how far this processor is, if it is time. Does not wait for a locked store.
    pub(super) fn tell_progress(&mut self) {
        let open = self.open_calls();
        let Some((done, time)) = self.reporter.drained(self.options.progress, open > 0) else { return };
        self.store.be_patient(Patience::Deadline(Duration::ZERO));
        let services: Vec<_> = self.services.iter().map(|service| &service.name).collect();
        if let Ok(mut queued) = self.store.count_queued(&services) {
            let running = self.membership.get().map_or(0, |registration| registration.slots.queue().running());
            queued.number += open.saturating_sub(running) as u64;
            self.reporter.tell(Event::Progress(Some(DrainProgress { done, time, running, queued })));
        }
    }

    fn look_at_store(&mut self, due: impl Fn(&ServiceState) -> bool) -> Result<()> {
        self.record_progress();
        self.set_patience();
        self.watcher.changed |= self.store.changed()?;
        let others = self.watcher.is_time_for_others() && self.look_at_others()?;
        if self.watcher.changed {
            self.watcher.found_change(others);
            for fence in self.jobs_to_cancel()? {
                self.cancel(fence);
            }
        }
        if others {
            self.take_up_services()?;
        }
        for index in 0..self.services.len() {
            if self.watcher.changed || due(&self.services[index]) {
                let name = self.services[index].name.clone();
                self.services[index].snapshot = Snapshot::new(self.status_of(&name)?);
            }
        }
        self.watcher.changed = false;
        Ok(())
    }

    /// Rescues what dead processors left. Returns whether the store has changed since the last time.
    fn look_at_others(&mut self) -> Result<bool> {
        self.store_is_there()?;
        let changed = self.watcher.take_change_for_others();
        if changed || self.others.exist {
            self.rescue()?;
        }
        if let Some(registration) = self.membership.get() {
            registration.tidy_up();
        }
        Ok(changed)
    }

    fn store_is_there(&self) -> Result<()> {
        self.store.still_there()?;
        self.folder_is_there()
    }

    /// Makes sure that this processor's folder is there. If it is missing, the store may have been moved with it.
    pub(super) fn folder_is_there(&self) -> Result<()> {
        let is_there = self.membership.get().map_or(Ok(()), Registration::still_there);
        is_there.or_else(|gone| self.store.still_there().and(Err(gone)))
    }

    fn jobs_to_cancel(&mut self) -> Result<Vec<Fence>> {
        let own = self.membership.id().filter(|_| self.open_calls() > 0);
        own.map_or(Ok(Vec::new()), |own| self.store.cancelling(own))
    }

    fn cancel(&mut self, fence: Fence) {
        let Some(registration) = self.membership.active() else { return };
        let unrun = registration.slots.take_back(|claim| claim.fence == fence);
        registration.slots.queue().cancel(fence);
        for claim in unrun {
            if let Some(service) = self.state_of(&claim.call.service) {
                service.cancelled(&[claim]);
            }
        }
    }

    /// Records the progress of calls. If that fails, the calls run on: progress is not worth a wait or an error.
    fn record_progress(&mut self) {
        let Some(own) = self.membership.id().filter(|_| !self.progress.is_empty() && self.full_disk.is_none()) else {
            return;
        };
        let progress: Vec<(Fence, String)> = self.progress.values().cloned().collect();
        self.store.be_patient(Patience::Deadline(Duration::ZERO));
        if self.store.record_progress(own, &progress).is_ok() {
            self.progress.clear();
        }
    }

    /// A processor that follows all services, or those of a pattern, takes up new ones and drops removed ones.
    fn take_up_services(&mut self) -> Result<()> {
        if !self.options.follow || !self.options.services.is_open() {
            return Ok(());
        }
        let names: Vec<_> = self.options.services.choose(self.store.services()?, |service| &service.name);
        let names: Vec<_> = names.into_iter().map(|service| service.name).collect();
        let Some(registration) = self.membership.get() else { return Ok(()) };
        let in_use = |state: &ServiceState| state.has_pending() || registration.slots.load(&state.name).held > 0;
        self.services.retain(|state| in_use(state) || names.contains(&state.name));
        for name in names {
            if self.services.iter().all(|state| state.name != name) {
                match self.status_of(&name) {
                    Ok(status) => self.services.push(ServiceState::new(name, status)),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
