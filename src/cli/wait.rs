//! `asyncq wait`.

use std::time::Duration;

use clap::Args;

use super::job_selection::job_number;
use super::job_waits;
use super::output::text;
use super::session::{Session, now};
use super::{clap_error::span_or_zero, exit};
use crate::commands::queue::Queue;
use crate::domain::job::{Job, JobId, State};

/// Wait until jobs have ended
///
/// The exit code is 0 when all are completed, 1 when one has ended otherwise, and 75 when the time is over.
#[derive(Debug, Args)]
pub struct Wait {
    /// The numbers of the jobs
    #[arg(value_name = "ID", value_parser = job_number, required = true, allow_negative_numbers = true)]
    ids: Vec<i64>,
    /// How long to wait at most, as in 90s or 1h30m; 0 only looks [default: as long as it takes]
    #[arg(long, value_name = "SPAN", value_parser = span_or_zero)]
    timeout: Option<Duration>,
}

impl Wait {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let ids: Vec<JobId> = self.ids.into_iter().map(JobId).collect();
        let jobs = session.open()?.wait(&ids, self.timeout, |queue, id| notice(session, queue, id))?;
        let mut code = exit::DONE;
        for (job, _) in jobs {
            match ending(&job) {
                None => session.verbose(&format!("job {} is completed", job.id)),
                Some(ending) => {
                    session.info(&ending);
                    code = exit::FAILED;
                }
            }
        }
        Ok(code)
    }
}

/// Says to a person at a terminal what a job waits for.
fn notice(session: &Session, queue: &mut Queue, id: JobId) -> anyhow::Result<()> {
    let (job, _) = queue.job(id)?;
    session.notice(&match queue.waiting(&job)? {
        Some(waiting) => format!("job {id} waits for {}", job_waits::describe(&job, &waiting, now())),
        None => format!("job {id} is {}", job.state),
    });
    Ok(())
}

/// How a job has ended that is not completed.
fn ending(job: &Job) -> Option<String> {
    let id = job.id;
    match job.state {
        State::Completed => None,
        State::Cancelled => Some(format!("job {id} was cancelled")),
        _ => {
            let why = job.error.as_ref().map_or_else(|| "unknown".to_owned(), |error| text(&error.message));
            Some(format!("job {id} ended in an error: {why}"))
        }
    }
}
