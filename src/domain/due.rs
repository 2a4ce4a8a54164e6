//! What there is to do next, and when.

use super::{job::JobId, processor::ProcessorId, service::ServiceName, time::Timestamp};

/// What there is to do next for a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextTask {
    /// When: now, at the earliest.
    pub at: Timestamp,
    /// On which service; `None` for what concerns the whole store.
    pub service: Option<ServiceName>,
    /// What.
    pub what: Task,
}

/// A reason to process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// This job is the first that can run.
    Job(JobId),
    /// The schedule of this name ticks.
    Schedule(String),
    /// Calls that wait for others have to be told of their end, calls that have expired to be ended, or retries to be moved with
    /// a clock that was set back.
    Upkeep,
    /// This processor has died, and its jobs have to be put back.
    Rescue(ProcessorId),
}
