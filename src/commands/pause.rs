//! Pauses of services and of the whole store.

use std::time::{Duration, Instant};

use super::lookout::Lookout;
use super::queue::Queue;
use crate::domain::job::JobId;
use crate::domain::pattern::ServiceSelection;
use crate::domain::pause::{Pause, Paused};
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::processor::lives;

impl Queue {
    /// Pauses the whole store, or ends its pause. Pauses of services stay as they are.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn set_pause(&mut self, pause: Option<&Pause>) -> Result<()> {
        self.store.set_pause(pause)
    }

    /// Pauses the selected services, or ends their pauses. Returns how many services there are.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when a named service does not exist.
    pub fn pause_services(&mut self, services: &ServiceSelection, pause: Option<&Pause>) -> Result<usize> {
        self.store.pause_services(services, pause)
    }

    /// The pause that keeps the calls of a service from running, if there is one.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service.
    pub fn pause_of(&mut self, service: &ServiceName) -> Result<Option<Paused>> {
        self.store.pause_of(service)
    }

    /// Waits until no living processor runs a call. If it has to wait, it calls `tell` with the oldest running job.
    ///
    /// # Errors
    /// [`Kind::Busy`] when that takes longer than `timeout`.
    pub fn wait_until_nothing_runs(&mut self, timeout: Option<Duration>, tell: impl FnOnce(JobId)) -> Result<()> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut tell = Some(tell);
        let mut lookout = Lookout::of(&mut self.store)?;
        loop {
            let Some(job) = self.oldest_running()? else { return Ok(()) };
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(still_runs(job));
            }
            if let Some(tell) = tell.take() {
                tell(job);
            }
            lookout.sleep(&mut self.store, until, None)?;
        }
    }

    /// The oldest job that a living processor runs.
    pub(super) fn oldest_running(&mut self) -> Result<Option<JobId>> {
        let running = self.store.busy_processors()?;
        if running.is_empty() {
            return Ok(None);
        }
        let processors = self.store.processors()?;
        let alive = processors.iter().filter(|processor| lives(&self.store, processor));
        let jobs = alive.filter_map(|it| running.iter().find(|(processor, _)| *processor == it.id));
        Ok(jobs.map(|(_, job)| *job).min())
    }
}

/// The error for a job that still runs when the time to wait for a pause is over.
pub(super) fn still_runs(job: JobId) -> Error {
    Error::new(Kind::Busy, format!("job {job} still runs"))
        .with_hint("the pause stays: `asyncq pause --wait` waits again, `asyncq resume` ends it")
}
