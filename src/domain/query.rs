//! Queries that select jobs, to list or to change them.

use std::time::Duration;

use super::job::{Job, JobId, State};
use super::job_edit::JobEdit;
use super::pattern::OfServices;

/// Selects the jobs that match all of these fields.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of these services.
    pub services: OfServices,
    /// Of this function, in any service.
    pub function: Option<String>,
    /// On behalf of this principal; an empty one means nobody.
    pub principal: Option<String>,
    /// With all of this metadata: names, and their values as texts.
    pub meta: Vec<(String, String)>,
    /// In one of these states; in any state, if empty.
    pub states: Vec<State>,
    /// Nested calls of this job.
    pub parent: Option<JobId>,
    /// Ended at least this long ago; if they have not ended, enqueued at least this long ago.
    pub older_than: Option<Duration>,
}

impl JobFilter {
    /// Whether no job can match.
    #[must_use]
    pub fn is_of_none(&self) -> bool {
        matches!(&self.services, OfServices::Only(names) if names.is_empty())
    }

    /// All jobs in this state.
    #[must_use]
    pub fn of_state(state: State) -> JobFilter {
        JobFilter { states: vec![state], ..JobFilter::default() }
    }
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Selects the jobs.
    pub filter: JobFilter,
    /// With one of these numbers: ranges from the first to the last, in order.
    pub among: Option<Vec<[i64; 2]>>,
    /// Older than this one, for the next page.
    pub before: Option<JobId>,
    /// At most this many; `None` for as many as fit on one page.
    pub limit: Option<u32>,
}

/// A page of a list of jobs. It may hold fewer than the limit, even none, so that it is quick to read.
#[derive(Debug)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// The job before which the next page begins; `None` at the end of the list.
    pub next: Option<JobId>,
}

/// What to do with jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobChange {
    /// Cancel those that wait, and ask those that run to end.
    Cancel,
    /// Queue those again that ended in an error or were cancelled, with fresh counts of attempts.
    Retry,
    /// Release those that are held.
    Start,
    /// Remove those that have ended.
    Remove,
    /// Change the time, priority, lane or expiry of those that wait.
    Set(JobEdit),
}

impl JobChange {
    /// Whether it changes jobs in this state.
    #[must_use]
    pub fn applies_to(&self, state: State) -> bool {
        match self {
            JobChange::Cancel => state.may_become(State::Cancelled),
            JobChange::Retry => state.has_ended() && state.may_become(State::Queued),
            JobChange::Start => state == State::Held,
            JobChange::Remove => state.has_ended(),
            JobChange::Set(_) => state.is_waiting(),
        }
    }

    /// The states of the jobs that it changes.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        State::ALL.into_iter().filter(|state| self.applies_to(*state)).collect()
    }
}

/// Which jobs to change, and how.
#[derive(Debug, Clone)]
pub struct BulkChange {
    /// What to do with them.
    pub change: JobChange,
    /// Which jobs. The change must be possible in all states of the filter.
    pub filter: JobFilter,
    /// Only those before this one.
    pub before: Option<JobId>,
    /// Only count them.
    pub dry_run: bool,
}

/// Jobs that stay unchanged because a rule of the application refuses the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How many.
    pub jobs: u64,
    /// The oldest of them.
    pub first: JobId,
    /// The rule, and what it says of that job.
    pub why: String,
}

impl Refusal {
    /// Adds more of them, in any order.
    pub fn add(known: &mut Option<Refusal>, more: Refusal) {
        let jobs = more.jobs + known.as_ref().map_or(0, |known| known.jobs);
        let oldest = known.take().filter(|known| known.first < more.first).unwrap_or(more);
        *known = Some(Refusal { jobs, ..oldest });
    }
}
