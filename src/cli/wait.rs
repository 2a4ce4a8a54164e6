//! `asyncq wait`.

use std::time::Duration;

use clap::Args;

use super::call_options::jobs_of_stdin;
use super::explain;
use super::job_selection::job_number;
use super::output::text;
use super::session::{Session, now};
use super::{exit, stdio::print_line};
use crate::commands::queue::Queue;
use crate::commands::wait::{Awaited, JobEnd, StillOpen};
use crate::domain::attempt::Failure;
use crate::domain::job::{JobId, State};
use crate::domain::needs::{Needs, parse_jobs};
use crate::domain::pattern::{ServicePattern, ServiceSelection};
use crate::domain::time::parse_span_or_zero;
use crate::error::{Error, Kind};

/// Wait until jobs have ended
///
/// The exit code is 0 if all jobs completed, 1 if one failed or was cancelled, and 75 if the time is over first. With --service it
/// is 0 as soon as no call is left to run, even if some failed.
#[derive(Debug, Args)]
#[command(
    override_usage = "asyncq wait [OPTIONS] <ID>...\n       asyncq wait [OPTIONS] -\n       asyncq wait [OPTIONS] --service <SERVICE|PATTERN>"
)]
pub struct Wait {
    /// The numbers of the jobs, and ranges of them, as in 7 9-12; `-` reads stdin
    #[arg(value_name = "ID", value_parser = parse_ids, required_unless_present = "service", allow_negative_numbers = true)]
    ids: Vec<Ids>,
    /// Wait until no call of these services, by name or pattern such as 'site-*', is queued, blocked or running; may be repeated
    #[arg(long, value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse, conflicts_with = "ids")]
    service: Vec<ServicePattern>,
    /// With --service: leave out these services; may be repeated
    #[arg(long, value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse)]
    #[arg(requires = "service", conflicts_with = "ids")]
    except: Vec<ServicePattern>,
    /// Wait until one of the jobs has ended, and print its number
    #[arg(long, conflicts_with = "service")]
    any: bool,
    /// How long to wait at most, as in 90s or 1h30m; 0 only looks [default: as long as it takes]
    #[arg(long, value_name = "SPAN", value_parser = parse_span_or_zero, allow_hyphen_values = true)]
    timeout: Option<Duration>,
}

/// Numbers of jobs, as one word of the command line gives them.
#[derive(Debug, Clone)]
enum Ids {
    Jobs(Vec<JobId>),
    Stdin,
}

fn parse_ids(text: &str) -> Result<Ids, String> {
    match parse_jobs(text) {
        _ if text == "-" => Ok(Ids::Stdin),
        Ok(jobs) => Ok(Ids::Jobs(jobs)),
        Err(_) => job_number(text).map(|id| Ids::Jobs(vec![JobId(id)])),
    }
}

impl Wait {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let (any, timeout) = (self.any, self.timeout);
        let awaited = self.awaited()?;
        let begins = |queue: &mut Queue, open: &StillOpen| notice(session, queue, open);
        let mut queue = session.open()?;
        if let Awaited::Services(services) = &awaited
            && !queue.has_service(services)?
        {
            session.info("no service matches");
        }
        let ended = queue.wait(&awaited, timeout, &session.caller, begins)?;
        // The end of the process closes the store too, at less cost.
        std::mem::forget(queue);
        let mut code = exit::DONE;
        for job in ended {
            code = code.max(report(session, &job));
            if any {
                print_line(job.id)?;
            }
        }
        Ok(code)
    }

    fn awaited(self) -> Result<Awaited, Error> {
        if !self.service.is_empty() {
            return Ok(Awaited::Services(ServiceSelection { services: self.service, except: self.except }));
        }
        let mut jobs = Vec::new();
        for ids in self.ids {
            match ids {
                Ids::Jobs(some) => jobs.extend(some),
                Ids::Stdin => jobs.extend(jobs_of_stdin()?),
            }
        }
        if jobs.len() > Needs::MOST {
            return Err(Error::new(Kind::Usage, format!("one command can wait for at most {} jobs", Needs::MOST))
                .with_hint("wait for them in parts, or for the whole service with `--service`"));
        }
        Ok(if self.any { Awaited::Any(jobs) } else { Awaited::All(jobs) })
    }
}

/// Says how a job has ended. Returns the exit code for that.
pub fn report(session: &Session, job: &JobEnd) -> u8 {
    match ending(job) {
        None => {
            session.verbose(&format!("job {} is completed", job.id));
            exit::DONE
        }
        Some(ending) => {
            session.info(&ending);
            exit::FAILED
        }
    }
}

/// Tells a person at a terminal what this waits for.
fn notice(session: &Session, queue: &mut Queue, open: &StillOpen) -> anyhow::Result<()> {
    session.notice(&match open {
        StillOpen::Job(id, _) => waits(queue, *id)?,
        StillOpen::Service(name) => format!("service `{name}` has calls that are queued, blocked or running"),
    });
    Ok(())
}

/// What a job waits for, in a sentence.
fn waits(queue: &mut Queue, id: JobId) -> anyhow::Result<String> {
    let (job, attempts) = queue.job(id)?;
    Ok(match queue.reasons(&job, &attempts)?.first() {
        Some(reason) => format!("job {id} has not ended: {}", explain::line(&job, reason, now())),
        None => format!("job {id} is {}", job.state),
    })
}

/// Who cancelled a job, or why, if that is known.
pub fn how_cancelled(error: Option<&Failure>) -> String {
    let message = error.map(|error| text(&error.message)).unwrap_or_default();
    match message.as_str() {
        "" => "cancelled".to_owned(),
        by if by.starts_with("cancelled") => message,
        why => format!("cancelled: {why}"),
    }
}

/// How a job that did not complete has ended.
fn ending(job: &JobEnd) -> Option<String> {
    let id = job.id;
    match job.state {
        State::Completed => None,
        State::Cancelled => Some(format!("job {id} was {}", how_cancelled(job.error.as_ref()))),
        _ => {
            let why = job.error.as_ref().map_or_else(|| "unknown".to_owned(), |error| text(&error.message));
            Some(format!("job {id} ended in an error: {why}"))
        }
    }
}
