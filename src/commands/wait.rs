//! Waits until jobs have ended, without polling all the time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::job::when;
use super::lookout::Lookout;
use super::{caller::Caller, queue::Queue};
use crate::domain::attempt::Failure;
use crate::domain::job::{JobId, State};
use crate::domain::pattern::{ServicePattern, ServiceSelection};
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::store::Store;

/// How far a wait for jobs is.
pub(super) enum Progress {
    /// All have ended.
    Ended,
    /// This one has not.
    Open(JobId, State),
}

/// Whether all these jobs have ended, judged by these states.
///
/// # Errors
/// [`Kind::NotFound`] when a job does not exist; `were_there` says whether it existed before.
pub(super) fn progress(
    store: &mut Store,
    jobs: impl Iterator<Item = (JobId, Option<State>)>,
    were_there: bool,
) -> Result<Progress> {
    let mut open = None;
    for (id, state) in jobs {
        match state {
            Some(state) if state.has_ended() => {}
            Some(state) => open = open.or(Some(Progress::Open(id, state))),
            None if were_there => return Err(removed(id)),
            None => return Err(store.job(id).err().unwrap_or_else(|| removed(id))),
        }
    }
    Ok(open.unwrap_or(Progress::Ended))
}

/// The error for a job that was there.
fn removed(id: JobId) -> Error {
    Error::new(Kind::NotFound, format!("job {id} was removed while it was waited for"))
        .with_hint("`asyncq job clean` removes jobs that have ended, and their outcomes; keep them longer")
}

/// Turns the error for a missing job into one that says that the job was removed.
pub(super) fn still_there<T>(id: JobId, found: Result<T>) -> Result<T> {
    found.map_err(|error| if error.kind() == Kind::NotFound { removed(id) } else { error })
}

/// The error for a job that has not ended in time.
pub(super) fn not_yet(id: JobId, state: State) -> Error {
    Error::new(Kind::Busy, format!("job {id} has not ended yet: it is {state}")).with_hint(when(id, state))
}

/// What to wait for.
#[derive(Debug)]
pub enum Awaited {
    /// All of these jobs end.
    All(Vec<JobId>),
    /// One of these jobs ends.
    Any(Vec<JobId>),
    /// No call of these services is queued, blocked or running.
    Services(ServiceSelection),
}

/// A job that was seen to end. What happens to it later makes no difference.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// Its number.
    pub id: JobId,
    /// The state in which it ended.
    pub state: State,
    /// Why it ended in an error or was cancelled, if it did and that is noted.
    pub error: Option<Failure>,
}

/// What is not over yet.
#[derive(Debug, Clone)]
pub enum StillOpen {
    /// This job has not ended.
    Job(JobId, State),
    /// This service has calls to run.
    Service(ServiceName),
}

impl StillOpen {
    /// The error when the time is over.
    pub(super) fn too_late(&self) -> Error {
        match self {
            StillOpen::Job(id, state) => not_yet(*id, *state),
            StillOpen::Service(name) => {
                let message = format!("service `{name}` still has calls that are queued, blocked or running");
                Error::new(Kind::Busy, message).with_hint(format!("`asyncq job list --service {name}` shows them"))
            }
        }
    }
}

/// How many jobs are looked up at least. If a list is longer, the others follow when all of these have ended.
const TOGETHER: usize = 16;

/// What is waited for, and what was seen of it.
enum Watched<'a> {
    All(Jobs<'a>),
    Any(Jobs<'a>),
    Services(&'a ServiceSelection),
}

impl<'a> Watched<'a> {
    /// Looks it up for the first time.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when a job or the service does not exist.
    fn find(store: &mut Store, awaited: &'a Awaited) -> Result<Watched<'a>> {
        Ok(match awaited {
            Awaited::All(jobs) => Watched::All(Jobs::find(store, jobs)?),
            Awaited::Any(jobs) => Watched::Any(Jobs::find(store, jobs)?),
            Awaited::Services(services) => {
                store.select_services(services)?;
                Watched::Services(services)
            }
        })
    }

    /// The first job or service that has not ended, if there is one.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when a job was removed before it was seen to end, or the service was.
    fn open(&mut self, store: &mut Store) -> Result<Option<StillOpen>> {
        match self {
            Watched::All(jobs) => jobs.open(store),
            Watched::Any(jobs) => jobs.open_of_any(store),
            Watched::Services(services) => {
                let busy = store.busy_service(services);
                Ok(busy.map_err(|error| service_gone(store, services, error))?.map(StillOpen::Service))
            }
        }
    }
}

/// Jobs to wait for.
struct Jobs<'a> {
    jobs: &'a [JobId],
    /// How many from the first on have ended.
    passed: usize,
    ended: HashMap<JobId, JobEnd>,
}

impl<'a> Jobs<'a> {
    fn find(store: &mut Store, jobs: &'a [JobId]) -> Result<Jobs<'a>> {
        let mut found = Jobs { jobs, passed: 0, ended: HashMap::new() };
        for (id, state) in jobs.iter().zip(store.states(jobs)?) {
            match state {
                None => return Err(store.job(*id).err().unwrap_or_else(|| removed(*id))),
                Some(state) => drop(found.see(store, *id, state)?),
            }
        }
        Ok(found)
    }

    /// Notes the state of a job. Returns whether it has ended.
    fn see(&mut self, store: &mut Store, id: JobId, state: State) -> Result<bool> {
        if state.has_ended() {
            let is_noted = matches!(state, State::Error | State::Cancelled);
            let job = is_noted.then(|| still_there(id, store.job(id))).transpose()?;
            let ended = JobEnd { id, state, error: job.and_then(|job| job.error) };
            self.ended.insert(id, ended);
        }
        Ok(state.has_ended())
    }

    /// The first job that has not ended. The cost does not depend on how many jobs come after it.
    fn open(&mut self, store: &mut Store) -> Result<Option<StillOpen>> {
        let mut count = TOGETHER;
        loop {
            let ended = &self.ended;
            self.passed += self.jobs[self.passed..].iter().take_while(|id| ended.contains_key(id)).count();
            let rest = self.jobs[self.passed..].iter().filter(|id| !ended.contains_key(id));
            let some: Vec<JobId> = rest.take(count).copied().collect();
            if some.is_empty() {
                return Ok(None);
            }
            let mut open = None;
            for (id, state) in some.iter().zip(store.states(&some)?) {
                let state = state.ok_or_else(|| removed(*id))?;
                if !self.see(store, *id, state)? {
                    open = open.or(Some(StillOpen::Job(*id, state)));
                }
            }
            if open.is_some() {
                return Ok(open);
            }
            count *= 2;
        }
    }

    /// The first job, unless one has ended. Once one has ended, only the first of those counts.
    fn open_of_any(&mut self, store: &mut Store) -> Result<Option<StillOpen>> {
        let states = store.states(self.jobs)?;
        for (at, state) in states.iter().enumerate() {
            let id = self.jobs[at];
            let has_ended = self.ended.contains_key(&id);
            if has_ended || state.is_some_and(State::has_ended) {
                if let (false, Some(state)) = (has_ended, state) {
                    self.see(store, id, *state)?;
                }
                self.jobs = &self.jobs[at..=at];
                return Ok(None);
            }
        }
        let mut open = None;
        for (id, state) in self.jobs.iter().zip(states) {
            let state = state.ok_or_else(|| removed(*id))?;
            open = open.or(Some(StillOpen::Job(*id, state)));
        }
        Ok(open)
    }

    /// How they have ended, in their order.
    fn into_ended(mut self) -> Vec<JobEnd> {
        self.jobs.iter().filter_map(|id| self.ended.remove(id)).collect()
    }
}

/// The error where one of these services was there, if that is what an error of the store means.
pub(super) fn service_gone(store: &mut Store, services: &ServiceSelection, error: Error) -> Error {
    let mut names = services.services.iter().chain(&services.except).filter_map(ServicePattern::as_name);
    match names.find(|name| error.kind() == Kind::NotFound && store.service(name).is_err()) {
        None => error,
        Some(name) => Error::new(Kind::NotFound, format!("service `{name}` was removed while it was waited for"))
            .with_hint("`asyncq service list` shows which there are"),
    }
}

impl Queue {
    /// Waits, at most for this time; zero only looks. If it has to wait, `begins` gets the first open job or service. Returns the
    /// jobs that have ended: none for a service, and one with `any`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for jobs and services that do not exist, or are removed meanwhile; [`Kind::Denied`] when `caller` runs
    /// inside what it would wait for; [`Kind::Busy`] when the time is over; and whatever the store or `begins` answers.
    pub fn wait<E: From<Error>>(
        &mut self,
        awaited: &Awaited,
        timeout: Option<Duration>,
        caller: &Caller,
        begins: impl FnOnce(&mut Queue, &StillOpen) -> Result<(), E>,
    ) -> Result<Vec<JobEnd>, E> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut lookout = Lookout::of(&mut self.store)?;
        let mut watched = Watched::find(&mut self.store, awaited)?;
        self.refuse_to_wait_for_itself(awaited, caller)?;
        let mut begins = Some(begins);
        while let Some(open) = watched.open(&mut self.store)? {
            if let Some(begins) = begins.take().filter(|_| timeout != Some(Duration::ZERO)) {
                begins(self, &open)?;
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Err(open.too_late().into());
            }
            lookout.sleep(&mut self.store, until, None)?;
            lookout.slow_down();
        }
        Ok(match watched {
            Watched::All(jobs) | Watched::Any(jobs) => jobs.into_ended(),
            Watched::Services(_) => Vec::new(),
        })
    }

    /// Refuses a wait that cannot end, because `caller` runs inside what it waits for.
    pub(super) fn refuse_to_wait_for_itself(&mut self, awaited: &Awaited, caller: &Caller) -> Result<()> {
        let mut next = self.running(caller)?.map(|running| running.fence.job);
        while let Some(id) = next {
            let job = self.store.job(id)?;
            let (what, hint) = match awaited {
                Awaited::All(jobs) if jobs.contains(&id) => (format!("job {id}"), "leave out its number"),
                Awaited::Any(jobs) if jobs.iter().all(|it| *it == id) => (format!("job {id}"), "leave out its number"),
                Awaited::Services(services)
                    if ServiceName::parse(&job.call.service).is_ok_and(|name| services.includes(&name)) =>
                {
                    (format!("job {id} of service `{}`", job.call.service), "wait for other jobs by their numbers")
                }
                _ => {
                    // A call that runs at once is a part of the job that made it.
                    next = job.parent.filter(|_| job.immediate);
                    continue;
                }
            };
            let message = format!("this command runs inside {what}, which would wait for itself");
            return Err(Error::new(Kind::Denied, message).with_hint(hint));
        }
        Ok(())
    }
}
