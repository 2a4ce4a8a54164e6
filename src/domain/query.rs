//! Which jobs are meant: by a list, or by a change of many.

use std::time::Duration;

use super::job::{Job, JobId, State};

/// Which jobs are meant: those that match everything that is said here.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of this service.
    pub service: Option<String>,
    /// Of this function, on whatever service.
    pub function: Option<String>,
    /// On behalf of this principal; an empty one stands for nobody.
    pub principal: Option<String>,
    /// In one of these states; in any state when there are none.
    pub states: Vec<State>,
    /// Called at once by this job.
    pub parent: Option<JobId>,
    /// That ended at least this long ago or, while they have not ended, were enqueued at least this long ago.
    pub older_than: Option<Duration>,
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Those that are meant.
    pub filter: JobFilter,
    /// Older than this one, for the next page.
    pub before: Option<JobId>,
    /// At most this many; `None` for as many as one page holds.
    pub limit: Option<u32>,
}

/// Some jobs of a list. A page may hold fewer than there are, even none, so that each is read in a moment.
#[derive(Debug)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// Before which job the next page begins; `None` when there are no more.
    pub next: Option<JobId>,
}

/// What to do with jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChange {
    /// Cancel those that wait, and ask those that run to end.
    Cancel,
    /// Queue those again that ended in an error or were cancelled, with all their budgets renewed.
    Retry,
    /// Release those that are held.
    Start,
    /// Remove those that have ended.
    Remove,
}

/// Which jobs to change, and how.
#[derive(Debug, Clone)]
pub struct BulkChange {
    /// What to do with them.
    pub change: JobChange,
    /// Which jobs; all its states must be ones in which this change is possible.
    pub filter: JobFilter,
    /// Only count them.
    pub dry_run: bool,
}

/// Jobs that stay as they are because a rule of the application has it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How many.
    pub jobs: u64,
    /// The first of them.
    pub first: JobId,
    /// Which rule, and what it says of that one.
    pub why: String,
}

impl Refusal {
    /// Adds others, which come later.
    pub fn add(known: &mut Option<Refusal>, more: Refusal) {
        match known {
            Some(known) => known.jobs += more.jobs,
            None => *known = Some(more),
        }
    }
}
