//! What there is to do next, and when.

use super::{job::JobId, processor::ProcessorId, service::ServiceName, time::Timestamp};

/// What there is to do next for a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextTask {
    /// When: now, at the earliest.
    pub at: Timestamp,
    /// The service; `None` for what concerns the whole store.
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
    /// A processor has to follow up calls that ended, end calls that expired, or move retries because the clock was set back.
    Upkeep,
    /// This processor has died, and its jobs have to be put back.
    Rescue(ProcessorId),
}
