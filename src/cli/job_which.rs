//! Which jobs are meant: by their numbers, or by what they have in common.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::clap_error::whole_number;
use super::exit;
use super::session::{Session, show_error};
use crate::commands::queue::Queue;
use crate::domain::job::{JobId, State};
use crate::domain::query::{BulkChange, JobChange, JobFilter};
use crate::domain::time::parse_span;
use crate::error::{Error, Kind};

/// What jobs have in common.
#[derive(Debug, Clone, Args)]
#[group(id = "filter", multiple = true)]
pub struct Filter {
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    /// Of this function
    #[arg(long)]
    function: Option<String>,
    /// On behalf of this principal; '' for nobody
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Ended at least this long ago, as in 7d; or enqueued that long ago, if it has not ended
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    older_than: Option<Duration>,
}

/// Jobs by their numbers, or all that match.
#[derive(Debug, Args)]
pub struct Which {
    /// Their numbers
    #[arg(value_name = "ID", value_parser = job_number, allow_negative_numbers = true)]
    #[arg(required_unless_present_any = ["filter", "state", "all"], conflicts_with_all = ["filter", "state", "all", "dry_run"])]
    ids: Vec<i64>,
    /// Every job in one of the states below
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    matching: Matching,
}

/// All jobs that match.
#[derive(Debug, Args)]
pub struct Matching {
    #[command(flatten)]
    filter: Filter,
    /// Only say how many jobs match; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Reads one of these states.
pub fn one_of(states: &'static [State]) -> impl TypedValueParser<Value = State> {
    let names = PossibleValuesParser::new(states.iter().map(|state| state.as_str()));
    names.try_map(|name| State::from_name(&name).ok_or("no state has this name"))
}

/// Reads the number of a job.
///
/// # Errors
/// What such a number has to be.
pub fn job_number(text: &str) -> Result<i64, String> {
    whole_number(text, "the number of a job", 1)
}

impl Filter {
    /// The jobs in one of these states that match.
    pub fn parse(&self, queue: &mut Queue, states: Vec<State>) -> anyhow::Result<JobFilter> {
        let Filter { service, function, principal, older_than } = self.clone();
        let filter = JobFilter { service, function, principal, states, parent: None, older_than };
        queue.check_filter(&filter)?;
        Ok(filter)
    }
}

impl Which {
    /// Does the same with each job that has a number here, or changes all that match and are in one of these states.
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
        let mut said = String::new();
        // A failure of one keeps nobody from the others.
        for id in self.ids {
            if let Err(error) = verb(queue, JobId(id)) {
                let error: anyhow::Error = error.into();
                // A full disk is told once, not for each job.
                if said != error.to_string() {
                    show_error(&error);
                }
                code = code.max(exit::code(&error));
                said = error.to_string();
            }
        }
        Ok(code)
    }
}

impl Matching {
    /// Changes all jobs that match and are in one of these states.
    pub fn change(
        &self,
        session: &Session,
        queue: &mut Queue,
        (change, states): (JobChange, Vec<State>),
    ) -> anyhow::Result<u8> {
        let many = BulkChange { change, filter: self.filter.parse(queue, states)?, dry_run: self.dry_run };
        let done = queue.change_jobs(&many)?;
        let said = said(change, self.dry_run, done.jobs);
        // What cron removes each night is no trouble.
        if change == JobChange::Remove && !self.dry_run {
            session.news(&said);
        } else {
            session.info(&said);
        }
        if done.removed > 0 {
            let what = count(
                done.removed,
                "job stays as it is, as its function is",
                "jobs stay as they are, as their functions are",
            );
            session.info(&format!("{what} removed"));
        }
        if done.too_late > 0 {
            session.info(&format!("{} ended before", count(done.too_late, "job", "jobs")));
        }
        let mut code = exit::DONE;
        if let Some(refused) = done.refused {
            let stay = count(refused.jobs, "job stays as it is", "jobs stay as they are");
            let error = Error::new(Kind::Denied, format!("{stay}: {}", refused.why))
                .with_hint("that rule belongs to the application, and not to asyncq: change it, or what it looks at")
                .into();
            show_error(&error);
            code = exit::code(&error);
        }
        let Some(oldest) = done.running.first() else { return Ok(code) };
        let still = count(
            done.running.len() as u64,
            "job is asked to end, but still runs",
            "jobs are asked to end, but still run",
        );
        Err(Error::new(Kind::Busy, format!("{still}; the oldest is job {oldest}"))
            .with_hint("if its processor died, the next `asyncq process` cancels it, or tells what it waits for")
            .into())
    }
}

/// What was done with so many jobs, or would be.
fn said(change: JobChange, dry_run: bool, jobs: u64) -> String {
    let (would, done, after) = match change {
        JobChange::Cancel => ("cancel", "cancelled", ""),
        JobChange::Retry => ("queue", "queued", " again"),
        JobChange::Start => ("release", "released", ""),
        JobChange::Remove => ("remove", "removed", ""),
    };
    let verb = if dry_run { format!("would {would}") } else { done.to_owned() };
    format!("{verb} {}{after}", count(jobs, "job", "jobs"))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
