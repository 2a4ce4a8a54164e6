//! Schedules: calls that are made again and again.

use super::{caller::Caller, queue::Queue};
use crate::domain::call::{Call, OnBehalfOf};
use crate::domain::job::JobId;
use crate::domain::new_job::NewJob;
use crate::domain::schedule::{Backfill, Schedule, ScheduleChange, ScheduleDefinition, ScheduleName};
use crate::domain::service::{Added, Defined, ServiceName};
use crate::domain::time::Timestamp;
use crate::error::Result;
#[cfg(doc)]
use crate::store::Store;

impl Queue {
    /// The call of a schedule that `caller` adds, with its principal and its site.
    ///
    /// # Errors
    /// [`crate::Kind::Denied`] for another principal inside a running function, and whatever the store answers.
    pub fn call_of(&mut self, call: Call, on_behalf_of: OnBehalfOf, caller: &Caller) -> Result<Call> {
        let (origin, _) = self.origin(caller, on_behalf_of)?;
        let principal = origin.principal.clone();
        Ok(origin.job(NewJob::new(Call { principal, ..call }))?.call)
    }

    /// Adds a schedule. It may exist already if it is the same.
    ///
    /// # Errors
    /// As [`Store::add_schedule`].
    pub fn add_schedule(&mut self, name: &ScheduleName, is: &ScheduleDefinition) -> Result<Added> {
        self.store.add_schedule(name, is)
    }

    /// Makes sure that there is a schedule like this.
    ///
    /// # Errors
    /// As [`Store::define_schedule`].
    pub fn define_schedule(&mut self, name: &ScheduleName, is: &ScheduleDefinition) -> Result<Defined> {
        self.store.define_schedule(name, is)
    }

    /// Changes a schedule.
    ///
    /// # Errors
    /// As [`Store::set_schedule`].
    pub fn set_schedule(&mut self, name: &ScheduleName, change: &ScheduleChange<'_>) -> Result<Schedule> {
        self.store.set_schedule(name, change)
    }

    /// The schedules of a service, or all, by name.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is no such service.
    pub fn schedules(&mut self, service: Option<&ServiceName>) -> Result<Vec<Schedule>> {
        self.store.schedules(service)
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is none with this name.
    pub fn schedule(&mut self, name: &ScheduleName) -> Result<Schedule> {
        self.store.schedule(name)
    }

    /// Pauses schedules.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when one of them is not there; then none is paused.
    pub fn pause_schedules(&mut self, names: &[ScheduleName]) -> Result<()> {
        self.store.pause_schedules(names)
    }

    /// Resumes paused schedules.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when one of them does not exist; then none is resumed.
    pub fn resume_schedules(&mut self, names: &[ScheduleName]) -> Result<()> {
        self.store.resume_schedules(names)
    }

    /// Removes a schedule; its jobs stay.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is none with this name.
    pub fn remove_schedule(&mut self, name: &ScheduleName) -> Result<()> {
        self.store.remove_schedule(name)
    }

    /// Makes one call of a schedule now.
    ///
    /// # Errors
    /// As [`Store::run_schedule`].
    pub fn run_schedule(&mut self, name: &ScheduleName) -> Result<JobId> {
        self.store.run_schedule(name)
    }

    /// Makes the missing jobs for past ticks of a schedule.
    ///
    /// # Errors
    /// As [`Store::backfill`].
    pub fn backfill(&mut self, name: &ScheduleName, from: Timestamp, until: Option<Timestamp>) -> Result<Backfill> {
        self.store.backfill(name, from, until)
    }
}
