//! Pauses of the whole store, apart from those of its services.

use super::Store;
use super::engine::Tx;
use super::service;
use crate::domain::job::JobId;
use crate::domain::pause::{Pause, Paused};
use crate::domain::{processor::ProcessorId, service::ServiceName};
use crate::error::Result;

const PAUSE: &str = "SELECT paused FROM asyncq_schema WHERE paused IS NOT NULL";
const SET: &str = "UPDATE asyncq_schema SET paused = ?1";
/// The oldest job that each processor runs.
const RUNNING: &str = "SELECT processor, MIN(id) FROM asyncq_job
    WHERE token IS NOT NULL AND state = 'processing' AND immediate = 0 GROUP BY processor";

impl Store {
    /// Pauses the whole store, or ends its pause.
    pub fn set_pause(&mut self, pause: Option<&Pause>) -> Result<()> {
        let why = pause.map(|pause| pause.why.as_deref().unwrap_or_default());
        self.write(|tx| tx.change(SET, &[why.into()]))
    }

    /// The pause of the whole store, if it is paused.
    pub fn pause(&mut self) -> Result<Option<Pause>> {
        self.read(|tx| of_store(tx))
    }

    /// What keeps the calls of a service from running: a pause of the store, or otherwise its own.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is no such service.
    pub fn pause_of(&mut self, service: &ServiceName) -> Result<Option<Paused>> {
        self.read(|tx| {
            let own = service::find(tx, service)?.pause;
            Ok(of_store(tx)?.map(Paused::Store).or_else(|| own.map(|pause| Paused::Service(service.clone(), pause))))
        })
    }

    /// The processors that run calls, each with the oldest job that it runs.
    pub fn busy_processors(&mut self) -> Result<Vec<(ProcessorId, JobId)>> {
        self.read(|tx| tx.rows(RUNNING, &[]))
    }
}

fn of_store(tx: &mut dyn Tx) -> Result<Option<Pause>> {
    if !tx.is_paused() {
        return Ok(None);
    }
    let why: Option<String> = tx.row(PAUSE, &[])?;
    Ok(why.map(|why| Pause { why: (!why.is_empty()).then_some(why) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn running_jobs_are_found_by_their_index() {
        assert!(plan(RUNNING)[0].contains("USING INDEX asyncq_job_token"), "{:?}", plan(RUNNING));
    }
}
