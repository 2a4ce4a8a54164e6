//! Looking what others have done.

use std::time::{Duration, Instant};

use super::super::registration::Registration;
use super::super::service_state::{ServiceState, Snapshot};
use super::change_watcher::ChangeWatcher;
use super::{LOOK, LOOK_FOR_OTHERS, MainLoop};
use crate::domain::event::Event;
use crate::domain::job::Fence;
use crate::error::Result;
use crate::store::Patience;

impl MainLoop<'_> {
    /// Tells of each service that is ready why none of its calls can begin; says whether it is so for all.
    pub(super) fn tell_why_not(&mut self) -> Result<bool> {
        let blocked = |served: &ServiceState| served.snapshot.status.ready && served.snapshot.status.free() == 0;
        if !self.may_claim() || !self.served.iter().all(blocked) {
            return Ok(false);
        }
        self.tell_of_pauses();
        for ServiceState { name: service, snapshot, .. } in &self.served {
            if !snapshot.status.paused {
                let holders = self.store.holders(service)?;
                (self.tell)(Event::Busy { service, concurrency: snapshot.status.concurrency, holders: &holders });
            }
        }
        Ok(!self.served.is_empty())
    }

    /// Tells of calls that wait because their service is paused, once in each pause.
    pub(super) fn tell_of_pauses(&mut self) {
        for served in &mut self.served {
            if served.pauses() {
                (self.tell)(Event::Paused { service: &served.name });
            }
        }
    }

    /// Looks what others have done meanwhile: processors that died, jobs to cancel, calls that became ready.
    pub(super) fn look_around(&mut self) -> Result<()> {
        self.tell_of_life();
        let heard = self.watcher.as_mut().is_some_and(ChangeWatcher::heard);
        let due = |served: &ServiceState| served.snapshot.until_next().is_some_and(|time| time.is_zero());
        let is_due = self.served.iter().any(due);
        if !is_due && !heard && self.looked_around.elapsed() < LOOK {
            return Ok(());
        }
        self.looked_around = Instant::now();
        self.pass_on_progress();
        self.be_patient();
        self.changed |= self.store.changed()?;
        let mut others = false;
        if self.looked_for_others.elapsed() >= LOOK_FOR_OTHERS {
            self.looked_for_others = Instant::now();
            self.still_there()?;
            others = self.changed || std::mem::take(&mut self.news_of_others);
            if others || self.has_company {
                self.rescue()?;
            }
            if let Some(registration) = &self.registration {
                registration.tidy_up();
            }
        }
        self.news_of_others |= self.changed && !others;
        if self.changed {
            if let Some(watcher) = &mut self.watcher {
                watcher.prick();
            }
            for fence in self.cancelling()? {
                self.cancel(fence);
            }
        }
        if others {
            self.look_for_services()?;
        }
        for index in 0..self.served.len() {
            if self.changed || due(&self.served[index]) {
                let name = self.served[index].name.clone();
                self.served[index].snapshot = Snapshot::new(self.look(&name)?);
            }
        }
        self.changed = false;
        Ok(())
    }

    /// Looks whether the store and this processor's folder are still there.
    pub(super) fn still_there(&self) -> Result<()> {
        self.store.still_there()?;
        self.home_is_there()
    }

    /// Looks whether this processor's folder is there, or has gone with the store.
    pub(super) fn home_is_there(&self) -> Result<()> {
        let is_there = self.registration.as_ref().map_or(Ok(()), Registration::still_there);
        is_there.or_else(|gone| self.store.still_there().and(Err(gone)))
    }

    fn cancelling(&mut self) -> Result<Vec<Fence>> {
        let own = self.own_id().filter(|_| self.held() > 0);
        own.map_or(Ok(Vec::new()), |own| self.store.cancelling(own))
    }

    fn cancel(&mut self, fence: Fence) {
        let Some(registration) = &mut self.registration else { return };
        let unrun = registration.slots.take_back(|claim| claim.fence == fence);
        registration.slots.cancel(fence);
        for claim in unrun {
            if let Some(served) = self.served.iter_mut().find(|served| served.name == claim.call.service) {
                served.cancelled(&[claim]);
            }
        }
    }

    /// Records how far calls are; not worth waiting for, nor ending what runs.
    fn pass_on_progress(&mut self) {
        let Some(own) = self.own_id().filter(|_| !self.progress.is_empty() && self.shortage.is_none()) else { return };
        let told: Vec<(Fence, String)> = self.progress.values().cloned().collect();
        self.store.be_patient(Patience::Deadline(Duration::ZERO));
        if self.store.tell_progress(own, &told).is_ok() {
            self.progress.clear();
        }
    }
}
