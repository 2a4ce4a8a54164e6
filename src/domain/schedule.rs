//! Schedules: calls that are made again and again. The moments are the *ticks* of a schedule.

use std::sync::Arc;
use std::time::Duration;

use super::call::Call;
use super::hook::HookTarget;
use super::job::JobId;
use super::lane::Lane;
use super::meta::Meta;
use super::name::plain_name;
use super::new_job::Priority;
use super::state::State;
use super::text::has_text;
use super::tick::{Lateness, ScheduleStanding, Skip};
use super::time::Timestamp;
use super::timetable::Timetable;
use crate::error::Result;

/// The name of a schedule, unique in a store: `[a-z0-9][a-z0-9._-]*`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleName(Arc<str>);

impl ScheduleName {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a name.
    pub fn parse(text: &str) -> Result<ScheduleName> {
        plain_name(text, "a schedule").map(ScheduleName)
    }
}

has_text! { ScheduleName }

/// What a schedule calls, when, and how its jobs are queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleDefinition {
    /// The call.
    pub call: Call,
    /// When.
    pub timetable: Timetable,
    /// What happens to ticks that come late, or too soon after others.
    pub lateness: Lateness,
    /// The priority of its jobs.
    pub priority: Priority,
    /// The lane of its jobs, if it is not that of the function.
    pub lane: Option<Lane>,
    /// How long after its tick a job expires, if it does.
    pub expires: Option<Duration>,
    /// The metadata of its jobs.
    pub meta: Option<Meta>,
    /// What it is for, in words.
    pub description: Option<String>,
}

impl ScheduleDefinition {
    /// The function that it calls.
    #[must_use]
    pub fn target(&self) -> HookTarget {
        HookTarget { service: self.call.service.clone(), function: self.call.function.clone() }
    }

    /// The differences between this and another schedule, in words.
    #[must_use]
    pub fn differences(&self, other: &ScheduleDefinition) -> Vec<&'static str> {
        let (own, its) = (&self.timetable, &other.timetable);
        let parts = [
            ("rule", own.rule != its.rule),
            ("call", self.call != other.call),
            ("`--from`", own.from() != its.from()),
            ("`--until`", own.until() != its.until()),
            ("`--missed`", self.lateness.missed() != other.lateness.missed()),
            ("`--within`", self.lateness.within() != other.lateness.within()),
            ("`--overlap`", self.lateness.overlap() != other.lateness.overlap()),
            ("priority", self.priority != other.priority),
            ("lane", self.lane != other.lane),
            ("`--expires`", self.expires != other.expires),
            ("metadata", self.meta != other.meta),
            ("description", self.description != other.description),
        ];
        parts.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name.
    pub name: ScheduleName,
    /// What it calls, and when.
    pub definition: ScheduleDefinition,
    /// A paused schedule does not tick.
    pub paused: bool,
    /// How far it is.
    pub progress: ScheduleProgress,
    /// When it was added.
    pub created_at: Timestamp,
}

/// How far a schedule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleProgress {
    /// Its next tick; `None` if there is none.
    pub next_tick: Option<Timestamp>,
    /// Its latest tick that was due.
    pub last_tick: Option<Timestamp>,
    /// The latest job that a tick has made.
    pub last_job: Option<JobId>,
    /// How many jobs its ticks have made.
    pub fired: u64,
    /// How many ticks have made none.
    pub skipped: u64,
    /// The latest of these.
    pub last_skip: Option<Skip>,
}

impl Schedule {
    /// Its standing, for [`ScheduleStanding::fire`]. `state` is that of its last job, if the job still exists.
    #[must_use]
    pub fn standing(&self, state: Option<State>) -> Option<ScheduleStanding> {
        let ScheduleProgress { next_tick, last_tick, last_job, .. } = self.progress;
        next_tick.map(|next_tick| ScheduleStanding { next_tick, last_tick, last_job: last_job.zip(state) })
    }

    /// The next ticks, at most `count`: none while it is paused.
    pub fn next_ticks(&self, count: usize) -> Vec<Timestamp> {
        let first = self.progress.next_tick.filter(|_| !self.paused);
        std::iter::successors(first, |tick| self.definition.timetable.next(*tick)).take(count).collect()
    }
}

/// A change of what a schedule does.
pub type ScheduleChange<'a> = dyn Fn(&ScheduleDefinition) -> Result<ScheduleDefinition> + 'a;

/// What a backfill did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// The jobs that it made, that of the earliest tick first.
    pub jobs: Vec<JobId>,
    /// How many ticks had one already.
    pub had: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(ScheduleName::parse("nightly-1").unwrap().as_str(), "nightly-1");
        let error = ScheduleName::parse("Nightly").unwrap_err();
        assert_eq!(error.to_string(), "`Nightly` cannot be the name of a schedule");
    }
}
