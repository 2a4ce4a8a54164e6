//! Jobs for people to read: lists, results and output.

use super::queue::Queue;
use crate::domain::job::{Job, JobId, State};
use crate::domain::needs::ranges_of_json;
use crate::domain::pattern::{OfServices, ServicePattern, ServiceSelection};
use crate::domain::query::{JobFilter, JobQuery};
use crate::domain::{attempt::Attempt, function::FunctionName, log::Log, service::ServiceName, suggest::nearest};
use crate::error::{Error, Kind, Result};
use crate::store::Store;

/// How many calls inside a job are shown at most.
const CHILDREN: u32 = 50;

/// How a job has ended.
#[derive(Debug)]
pub enum JobResult {
    /// Well, with this result, as JSON.
    Completed(String),
    /// In an error, for this reason.
    Failed(String),
    /// On request.
    Cancelled,
}

/// What a job has printed.
#[derive(Debug)]
pub struct JobLog {
    /// Which attempt that is; 0 if none has begun.
    pub attempt: i64,
    /// The output of the requested attempt, or of the latest one that has ended.
    pub log: Option<Log>,
    /// Whether the job was cancelled before it began.
    pub never_began: bool,
    /// Why there may be more later.
    pub incomplete: Option<Error>,
}

impl Queue {
    /// Hands out the jobs that `query` describes, newest first, page by page. It holds nothing of the store between the pages, so
    /// that a slow reader delays nobody. If it `looks_for_more`, it returns before which job the rest begins, if the limit has left
    /// any; that may take long if few jobs match.
    ///
    /// # Errors
    /// Whatever the store or `show` answers.
    pub fn list_jobs<E: From<Error>>(
        &mut self,
        mut query: JobQuery,
        looks_for_more: bool,
        mut show: impl FnMut(&[Job]) -> Result<(), E>,
    ) -> Result<Option<JobId>, E> {
        loop {
            let page = self.store.jobs(&query)?;
            show(&page.jobs)?;
            query.before = page.next;
            if let Some(left) = &mut query.limit {
                *left -= u32::try_from(page.jobs.len()).unwrap_or(*left).min(*left);
            }
            if page.next.is_none() {
                return Ok(None);
            }
            if query.limit == Some(0) {
                return Ok(if looks_for_more && any(&mut self.store, &query)? { page.next } else { None });
            }
        }
    }

    /// The same filter, for jobs of these services alone: patterns mean the services that exist now. Makes sure that the services and
    /// the function that are named exist, or that a job has their names. Reporting a mistyped name is better than listing nothing,
    /// but a removed service still has jobs.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a name that nothing has, [`Kind::Usage`] for one that nothing can have.
    pub fn filter_of(&mut self, services: &ServiceSelection, filter: JobFilter) -> Result<JobFilter> {
        let function = filter.function.as_deref().map(FunctionName::parse).transpose()?;
        let names = services.services.iter().chain(&services.except).filter_map(ServicePattern::as_name);
        match (&services.services[..], &services.except[..], &function) {
            ([ServicePattern::Name(name)], [], function) => self.check_names(Some(name), function.as_ref())?,
            (_, _, function) => {
                for name in names {
                    self.check_names(Some(name), None)?;
                }
                self.check_names(None, function.as_ref())?;
            }
        }
        if services.is_all() {
            return Ok(filter);
        }
        let there: Vec<ServiceName> = self.store.services()?.into_iter().map(|it| it.name).collect();
        Ok(JobFilter { services: services.of_jobs(&there), ..filter })
    }

    fn check_names(&mut self, service: Option<&ServiceName>, function: Option<&FunctionName>) -> Result<()> {
        let Some(error) = unknown(&mut self.store, service, function)? else { return Ok(()) };
        let services = service.cloned().map(OfServices::only).unwrap_or_default();
        let named = JobFilter { services, function: function.map(ToString::to_string), ..JobFilter::default() };
        let is_known = any(&mut self.store, &JobQuery { filter: named, ..JobQuery::default() })?;
        if is_known { Ok(()) } else { Err(error) }
    }

    /// The jobs that a job needs, including ended ones, as ranges of their numbers in order.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job.
    pub fn needed_by(&mut self, id: JobId) -> Result<Vec<[i64; 2]>> {
        Ok(self.store.job(id)?.options.after.as_deref().map(ranges_of_json).unwrap_or_default())
    }

    /// One job, and its attempts, oldest first.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job.
    pub fn job(&mut self, id: JobId) -> Result<(Job, Vec<Attempt>)> {
        let job = self.store.job(id)?;
        let attempts = self.store.attempts(&job)?;
        Ok((job, attempts))
    }

    /// The newest calls that a job made, at most 50, each with its depth: 0 for a call that the job itself made. Each comes before
    /// the calls inside it.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn children(&mut self, id: JobId) -> Result<Vec<(usize, Job)>> {
        let mut children = Vec::new();
        self.add_children(id, 0, &mut children)?;
        Ok(children)
    }

    fn add_children(&mut self, id: JobId, depth: usize, to: &mut Vec<(usize, Job)>) -> Result<()> {
        let left = CHILDREN.saturating_sub(u32::try_from(to.len()).unwrap_or(CHILDREN));
        if left == 0 {
            return Ok(());
        }
        let filter = JobFilter { parent: Some(id), ..JobFilter::default() };
        let query = JobQuery { filter, limit: Some(left), ..JobQuery::default() };
        for child in self.store.jobs(&query)?.jobs {
            if to.len() as u64 == u64::from(CHILDREN) {
                break;
            }
            let (id, ran_inside) = (child.id, child.immediate);
            to.push((depth, child));
            if ran_inside {
                self.add_children(id, depth + 1, to)?;
            }
        }
        Ok(())
    }

    /// What a job left as its result.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job, [`Kind::Busy`] when it has not ended.
    pub fn job_result(&mut self, id: JobId) -> Result<JobResult> {
        let job = self.store.job(id)?;
        match job.state {
            State::Completed => Ok(JobResult::Completed(job.result.unwrap_or_else(|| "null".to_owned()))),
            State::Error => {
                Ok(JobResult::Failed(job.error.map_or_else(|| "unknown".to_owned(), |error| error.message)))
            }
            State::Cancelled => Ok(JobResult::Cancelled),
            State::Held | State::Blocked | State::Delayed | State::Queued | State::Processing => {
                Err(Error::new(Kind::Busy, format!("job {id} has no result yet: it is {}", job.state))
                    .with_hint(when(id, job.state)))
            }
        }
    }

    /// The output of an attempt of a job, or of the latest attempt that has ended. If the job has not ended, more may follow.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job or attempt.
    pub fn job_log(&mut self, id: JobId, attempt: Option<i64>) -> Result<JobLog> {
        let job = self.store.job(id)?;
        let number = attempt.unwrap_or(job.counts.attempt);
        if (attempt.is_some() || number != 0) && !(1..=job.counts.attempt).contains(&number) {
            let message = format!("job {id} has no attempt {number}");
            return Err(Error::new(Kind::NotFound, message).with_hint(format!("`asyncq job show {id}` shows all")));
        }
        let runs = job.state == State::Processing && number == job.counts.attempt;
        let log = if number > 0 && !runs { Some(self.store.log(id, number)?) } else { None };
        let never_began = job.state == State::Cancelled && number == 0;
        if job.state.has_ended() || (attempt.is_some() && log.is_some()) {
            return Ok(JobLog { attempt: number, log, never_began, incomplete: None });
        }
        let (message, hint) = if log.is_some() {
            (format!("that was attempt {number}; job {id} has not ended: it is {}", job.state), when(id, job.state))
        } else if runs && number > 1 {
            let hint = format!("`asyncq job log {id} --attempt {}` prints the log of the previous attempt", number - 1);
            (format!("attempt {number} of job {id} has no log yet: it is still running"), hint)
        } else {
            (format!("job {id} has no log yet: it is {}", job.state), when(id, job.state))
        };
        Ok(JobLog {
            attempt: number,
            log,
            never_began,
            incomplete: Some(Error::new(Kind::Busy, message).with_hint(hint)),
        })
    }
}

/// What to do about a job that has not ended.
pub(super) fn when(id: JobId, state: State) -> String {
    match state {
        State::Processing => "try again when it has ended".to_owned(),
        _ => format!("`asyncq job show {id}` shows what it waits for"),
    }
}

/// Whether there is a job that `query` describes.
fn any(store: &mut Store, query: &JobQuery) -> Result<bool> {
    let mut query = JobQuery { limit: Some(1), ..query.clone() };
    loop {
        let page = store.jobs(&query)?;
        if page.next.is_none() || !page.jobs.is_empty() {
            return Ok(!page.jobs.is_empty());
        }
        query.before = page.next;
    }
}

/// The error for a service or a function that does not exist.
fn unknown(store: &mut Store, service: Option<&ServiceName>, function: Option<&FunctionName>) -> Result<Option<Error>> {
    Ok(match (service, function) {
        (None, None) => None,
        (Some(service), None) => store.service(service).err(),
        (Some(service), Some(function)) => store.function(service, function).err(),
        (None, Some(function)) => {
            let all = store.functions(None)?;
            let names = all.iter().map(|it| it.name.as_str());
            if names.clone().any(|name| name == function.as_str()) {
                return Ok(None);
            }
            let error = Error::new(Kind::NotFound, format!("no service has a function `{function}`"));
            Some(error.with_hint(match nearest(function.as_str(), names) {
                Some(near) => format!("did you mean `{near}`? `asyncq function list` shows all"),
                None => "`asyncq function list` shows all".to_owned(),
            }))
        }
    })
}
