//! `asyncq job`.

use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::job_view::{print_job, print_jobs};
use super::session::{Session, to_terminal};
use super::{exit, say};
use crate::commands::{CleanQuery, JobQuery, Store, job};
use crate::domain::function::FunctionName;
use crate::domain::job::{JobId, State};
use crate::domain::log::{Log, Stream};
use crate::domain::service::ServiceName;
use crate::domain::suggest::nearest;
use crate::domain::text::{visible, visible_lines};
use crate::domain::time::parse_span;
use crate::error::{Error, Kind};

/// Jobs: calls in the store, and what became of them
#[derive(Debug, Subcommand)]
pub enum Job {
    /// List jobs, newest first
    List(List),
    /// Show one job and its attempts
    Show {
        /// Its number
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a job left as its result, as JSON
    Result {
        /// Its number
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
    },
    /// Print what a job printed: stdout to stdout, stderr to stderr
    Log {
        /// Its number
        #[arg(value_parser = job_number, allow_negative_numbers = true)]
        id: i64,
        /// Of this attempt [default: the latest]
        #[arg(long, value_name = "N")]
        attempt: Option<i64>,
        /// Print control characters to a terminal as they are
        #[arg(long)]
        raw: bool,
    },
    /// Cancel jobs: those that wait at once, those that run by ending them
    Cancel(Ids),
    /// Queue jobs again that ended in an error or were cancelled
    Retry(Ids),
    /// Release held jobs
    Start(Ids),
    /// Remove jobs that have ended
    Clean {
        /// Only those in this state [default: all that have ended]
        #[arg(long, value_name = "STATE")]
        state: Vec<EndedState>,
        /// Only those that ended at least so long ago, as in 7d
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        older_than: Option<Duration>,
    },
}

/// Which jobs to list.
#[derive(Debug, Args)]
pub struct List {
    /// Of this service
    #[arg(long)]
    service: Option<String>,
    /// Of this function
    #[arg(long)]
    function: Option<String>,
    /// In this state
    #[arg(long)]
    state: Option<AnyState>,
    /// On behalf of this principal
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Older than this job, for the next page
    #[arg(long, value_name = "ID", value_parser = job_number, allow_negative_numbers = true)]
    before: Option<i64>,
    /// At most so many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Some jobs.
#[derive(Debug, Args)]
pub struct Ids {
    /// Their numbers
    #[arg(value_name = "ID", required = true, value_parser = job_number, allow_negative_numbers = true)]
    ids: Vec<i64>,
}

/// The states by their names.
#[derive(Debug, Clone, Copy)]
pub struct AnyState(State);

impl ValueEnum for AnyState {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [AnyState; 7] = {
            let mut all = [AnyState(State::Held); 7];
            let mut index = 0;
            while index < all.len() {
                all[index] = AnyState(State::ALL[index]);
                index += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

/// The final states by their names.
#[derive(Debug, Clone, Copy)]
pub struct EndedState(State);

impl ValueEnum for EndedState {
    fn value_variants<'a>() -> &'a [Self] {
        &[EndedState(State::ENDED[0]), EndedState(State::ENDED[1]), EndedState(State::ENDED[2])]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

impl Job {
    /// Does what is asked.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut store = session.open()?;
        match self {
            Job::List(list) => list.run(session, &mut store)?,
            Job::Show { id, json } => {
                let job = store.job(JobId(id))?;
                let attempts = store.attempts(&job)?;
                print_job(&mut store, &job, &attempts, json)?;
            }
            Job::Result { id } => return result(session, &mut store, JobId(id)),
            Job::Log { id, attempt, raw } => {
                let job = store.job(JobId(id))?;
                let number = attempt.unwrap_or(job.attempt);
                if (attempt.is_some() || number != 0) && !(1..=job.attempt).contains(&number) {
                    let message = format!("job {id} has no attempt {number}");
                    return Err(Error::new(Kind::NotFound, message)
                        .hint(format!("`asyncq job show {id}` shows all"))
                        .into());
                }
                print_log(&store.log(JobId(id), number)?, raw)?;
            }
            Job::Cancel(ids) => return Ok(ids.each(session, |id| job::cancel(&mut store, id))),
            Job::Retry(ids) => return Ok(ids.each(session, |id| store.retry(id))),
            Job::Start(ids) => return Ok(ids.each(session, |id| store.start(id).map(|_| ()))),
            Job::Clean { state, older_than } => {
                let states =
                    if state.is_empty() { State::ENDED.to_vec() } else { state.iter().map(|it| it.0).collect() };
                let query = CleanQuery { states, older_than: older_than.unwrap_or_default() };
                let removed = job::clean(&mut store, &query)?;
                session.talk(&format!("removed {removed} {}", if removed == 1 { "job" } else { "jobs" }));
            }
        }
        Ok(exit::DONE)
    }
}

impl List {
    /// As many are read at once.
    const PAGE: u32 = 1000;

    /// A mistyped name is better told than answered with nothing; but what was removed still has jobs.
    fn refuse_unknown_names(&self, store: &mut Store) -> anyhow::Result<()> {
        let service = self.service.as_deref().map(ServiceName::parse).transpose()?;
        let function = self.function.as_deref().map(FunctionName::parse).transpose()?;
        let unknown = match (&service, &function) {
            (None, None) => return Ok(()),
            (Some(service), None) => store.service(service).err(),
            (Some(service), Some(function)) => store.function(service, function).err(),
            (None, Some(function)) => {
                let all = store.functions(None)?;
                let names = all.iter().map(|it| it.name.as_str());
                if names.clone().any(|name| name == function.as_str()) {
                    return Ok(());
                }
                let error = Error::new(Kind::NotFound, format!("no service has a function `{function}`"));
                Some(error.hint(match nearest(function.as_str(), names) {
                    Some(near) => format!("did you mean `{near}`? `asyncq function list` shows all"),
                    None => "`asyncq function list` shows all".to_owned(),
                }))
            }
        };
        let named = JobQuery {
            service: service.map(|it| it.to_string()),
            function: function.map(|it| it.to_string()),
            limit: Some(1),
            ..JobQuery::default()
        };
        match unknown {
            Some(error) if store.jobs(&named)?.is_empty() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn run(&self, session: &Session, store: &mut Store) -> anyhow::Result<()> {
        let mut query = JobQuery {
            service: self.service.as_deref().map(ServiceName::parse).transpose()?.map(|it| it.to_string()),
            function: self.function.as_deref().map(FunctionName::parse).transpose()?.map(|it| it.to_string()),
            state: self.state.map(|it| it.0),
            principal: self.principal.clone(),
            parent: None,
            before: self.before.map(JobId),
            limit: None,
        };
        self.refuse_unknown_names(store)?;
        let mut left = self.limit;
        let mut first = true;
        loop {
            let page = if self.limit == 0 { Self::PAGE } else { left.min(Self::PAGE) };
            query.limit = Some(page);
            let jobs = store.jobs(&query)?;
            left = left.saturating_sub(page);
            let full = jobs.len() == page as usize;
            let last = !full || (self.limit > 0 && left == 0);
            print_jobs(&jobs, self.json, first, last)?;
            let Some(oldest) = jobs.last() else { break };
            query.before = Some(oldest.id);
            if last {
                if full && !self.json {
                    let more = format!("`--before {}` shows the next page", oldest.id);
                    // A person does not see what is missing; a script has said what it wants.
                    if to_terminal() { session.talk(&more) } else { session.whisper(&more) }
                }
                break;
            }
            first = false;
        }
        Ok(())
    }
}

fn job_number(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "the number of a job is a whole number from 1".to_owned())
}

impl Ids {
    /// Does the same with each job; a failure of one keeps nobody from the others.
    fn each(self, session: &Session, mut verb: impl FnMut(JobId) -> crate::Result<()>) -> u8 {
        let mut code = exit::DONE;
        for id in self.ids {
            if let Err(error) = verb(JobId(id)) {
                let error = error.into();
                session.show_error(&error);
                code = code.max(exit::code(&error));
            }
        }
        code
    }
}

fn result(session: &Session, store: &mut Store, id: JobId) -> anyhow::Result<u8> {
    let job = store.job(id)?;
    match job.state {
        State::Completed => {
            let result = job.result.as_deref().unwrap_or("null");
            // JSON as it was left, unless it could steer the terminal on which it would appear.
            if to_terminal() {
                say(visible(result))?;
            } else {
                say(result)?;
            }
            Ok(exit::DONE)
        }
        State::Error => {
            let why = job.error.map_or_else(|| "unknown".to_owned(), |error| error.message);
            session.talk(&format!("job {id} ended in an error: {why}"));
            Ok(exit::FAILED)
        }
        State::Cancelled => {
            session.talk(&format!("job {id} was cancelled"));
            Ok(exit::FAILED)
        }
        State::Held | State::Delayed | State::Queued | State::Processing => {
            Err(Error::new(Kind::Busy, format!("job {id} has no result yet, it is {}", job.state))
                .hint("try again when it has ended")
                .into())
        }
    }
}

fn print_log(log: &Log, raw: bool) -> anyhow::Result<()> {
    let gap = format!("... {} bytes are not kept ...\n", log.dropped);
    let mut told = log.dropped == 0;
    for (stream, bytes, after_gap) in log.parts() {
        if after_gap {
            told = true;
            std::io::stderr().write_all(gap.as_bytes())?;
        }
        match stream {
            Stream::Out => write_log(std::io::stdout(), bytes, raw)?,
            Stream::Err => write_log(std::io::stderr(), bytes, raw)?,
        }
    }
    if !told {
        std::io::stderr().write_all(gap.as_bytes())?;
    }
    Ok(())
}

fn write_log(mut to: impl Write + std::io::IsTerminal, bytes: &[u8], raw: bool) -> anyhow::Result<()> {
    if to.is_terminal() && !raw {
        to.write_all(visible_lines(bytes).as_bytes())?;
    } else {
        to.write_all(bytes)?;
    }
    to.flush()?;
    Ok(())
}
