//! Options that select jobs: by their numbers, or by what they have in common.

use std::time::Duration;

use clap::Args;

use super::session::{Session, show_error};
use super::{call_options::name_and_value, clap_error::whole_number, exit, output::count};
use crate::commands::job_change::Changed;
use crate::commands::queue::Queue;
use crate::domain::job::{JobId, State};
use crate::domain::pattern::{ServicePattern, ServiceSelection};
use crate::domain::query::{BulkChange, JobChange, JobFilter};
use crate::domain::time::parse_span;
use crate::error::{Error, Kind};

/// Selects jobs by what they have in common.
#[derive(Debug, Clone, Args)]
#[group(id = "filter", multiple = true)]
pub struct Filter {
    /// Only jobs of these services, by name or pattern such as 'site-*'; may be repeated
    #[arg(long, value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse)]
    service: Vec<ServicePattern>,
    /// No jobs of these services; may be repeated
    #[arg(long, value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse)]
    except: Vec<ServicePattern>,
    /// Only jobs of this function
    #[arg(long)]
    function: Option<String>,
    /// Only jobs on behalf of this principal; '' for jobs without one
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Only jobs with this metadata; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    meta: Vec<String>,
    /// Only jobs that ended this long ago or earlier, as in 7d; for jobs that have not ended, when they were enqueued counts
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    older_than: Option<Duration>,
}

/// Selects jobs by their numbers, or all that match.
#[derive(Debug, Args)]
pub struct JobSelection {
    /// The numbers of the jobs
    #[arg(value_name = "ID", value_parser = job_number, allow_negative_numbers = true)]
    #[arg(required_unless_present_any = ["filter", "state", "all"], conflicts_with_all = ["filter", "state", "all", "dry_run"])]
    ids: Vec<i64>,
    /// All jobs in the states below
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    matching: MatchingJobs,
}

/// Selects all jobs that match.
#[derive(Debug, Args)]
pub struct MatchingJobs {
    #[command(flatten)]
    filter: Filter,
    /// Only print how many jobs match; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Parses the number of a job.
///
/// # Errors
/// What the number must be.
pub fn job_number(text: &str) -> Result<i64, String> {
    whole_number(text, "the number of a job", 1)
}

impl Filter {
    /// The jobs in one of these states that match.
    pub fn parse(&self, session: &Session, queue: &mut Queue, states: Vec<State>) -> anyhow::Result<JobFilter> {
        let Filter { service, except, function, principal, meta, older_than } = self.clone();
        let pairs = meta.iter().map(|word| name_and_value(word));
        let meta = pairs
            .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect::<Result<_, _>>()?;
        let filter = JobFilter { function, principal, meta, states, older_than, ..JobFilter::default() };
        let filter = queue.filter_of(&ServiceSelection { services: service, except }, filter)?;
        if filter.is_of_none() {
            session.info("no service matches");
        }
        Ok(filter)
    }
}

impl JobSelection {
    /// Applies `verb` to each job that is named by its number. Without numbers, changes all jobs that match and are in these
    /// states.
    pub fn each(
        self,
        session: &Session,
        queue: &mut Queue,
        many: (JobChange, Vec<State>),
        verb: impl Fn(&mut Queue, JobId) -> crate::Result<()>,
    ) -> anyhow::Result<u8> {
        if self.ids.is_empty() {
            return self.matching.change(session, queue, many);
        }
        let mut code = exit::DONE;
        let mut previous = String::new();
        // If one job fails, the others are changed all the same.
        for id in self.ids {
            if let Err(error) = verb(queue, JobId(id)) {
                let error: anyhow::Error = error.into();
                // A full disk is reported once, not for each job.
                if previous != error.to_string() {
                    show_error(&error);
                }
                code = code.max(exit::code(&error));
                previous = error.to_string();
            }
        }
        Ok(code)
    }
}

impl MatchingJobs {
    /// Changes all jobs that match and are in these states.
    pub fn change(
        &self,
        session: &Session,
        queue: &mut Queue,
        (change, states): (JobChange, Vec<State>),
    ) -> anyhow::Result<u8> {
        let summary_of = summary(&change);
        let filter = self.filter.parse(session, queue, states)?;
        let done = queue.change_jobs(&BulkChange { change, filter, before: None, dry_run: self.dry_run })?;
        session.info(&summary_of(self.dry_run, done.jobs));
        report(session, done)
    }

    /// Removes all jobs that match and are in these states, except for the newest `keep`.
    pub fn clean(&self, session: &Session, queue: &mut Queue, (states, keep): (Vec<State>, u64)) -> anyhow::Result<u8> {
        let filter = self.filter.parse(session, queue, states)?;
        let done = queue.clean_jobs(filter, keep, self.dry_run)?;
        let summary = summary(&JobChange::Remove)(self.dry_run, done.jobs);
        // Cron should not mail each night what was removed.
        if self.dry_run {
            session.info(&summary);
        } else {
            session.notice(&summary);
        }
        report(session, done)
    }
}

/// Prints what a change of many jobs did not do; returns the exit code.
fn report(session: &Session, done: Changed) -> anyhow::Result<u8> {
    if done.removed > 0 {
        let what = count(
            done.removed,
            "job stays as it is, because its function was",
            "jobs stay as they are, because their functions were",
        );
        session.info(&format!("{what} removed"));
    }
    if done.too_late > 0 {
        session.info(&format!("{} had already ended", count(done.too_late, "job", "jobs")));
    }
    let mut code = exit::DONE;
    if let Some(refused) = done.refused {
        let stay = count(refused.jobs, "job stays as it is", "jobs stay as they are");
        let error = Error::new(Kind::Denied, format!("{stay}: {}", refused.why))
            .with_hint("that rule is the application's, not asyncq's: change the rule, or the data that it checks")
            .into();
        show_error(&error);
        code = exit::code(&error);
    }
    let Some(oldest) = done.running.first() else { return Ok(code) };
    let still =
        count(done.running.len() as u64, "job was asked to end but still runs", "jobs were asked to end but still run");
    Err(Error::new(Kind::Busy, format!("{still}; the oldest is job {oldest}"))
        .with_hint("if its processor died, the next `asyncq process` cancels it, or says what it waits for")
        .into())
}

/// The sentence about what was done with jobs, or would be done. Its parameters say whether it only would be, and how many jobs.
fn summary(change: &JobChange) -> impl Fn(bool, u64) -> String + use<> {
    let (would, done, after) = match change {
        JobChange::Cancel => ("cancel", "cancelled", ""),
        JobChange::Retry => ("queue", "queued", " again"),
        JobChange::Start => ("release", "released", ""),
        JobChange::Remove => ("remove", "removed", ""),
        JobChange::Set(_) => ("change", "changed", ""),
    };
    move |dry_run, jobs| {
        let verb = if dry_run { format!("would {would}") } else { done.to_owned() };
        format!("{verb} {}{after}", count(jobs, "job", "jobs"))
    }
}
