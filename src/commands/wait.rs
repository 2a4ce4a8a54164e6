//! Waits until jobs have ended, without polling all the time.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::job::when;
use super::{caller::Caller, queue::Queue};
use crate::domain::attempt::Failure;
use crate::domain::job::{JobId, State};
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::processor::Notifications;
use crate::store::Store;
use crate::system::fds;

/// After a notification: how long to wait at most for the commit, before looking again.
const COMMIT: Duration = Duration::from_millis(10);

/// For how long after a notification that applies. A commit on a slower disk is noticed later.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

/// How often to look at least, and to check whether the store was moved.
const LOOK: Duration = Duration::from_millis(500);

/// The shortest time between two looks, so that a busy store costs little.
const BREATH: Duration = Duration::from_millis(1);

/// The longest time between two looks at a busy store, after many looks that found nothing.
const LONG_BREATH: Duration = Duration::from_millis(15);

/// Sleeps until the store was changed.
pub(super) struct Lookout {
    breath: Duration,
    notifications: Notifications,
    /// When a notification came last.
    notified: Option<Instant>,
    woke: Instant,
    looked_for_store: Instant,
}

/// Why a sleep is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The store was changed.
    Change,
    /// The time is over, or the other descriptor is readable.
    Other,
}

impl Lookout {
    /// Begins to watch a store.
    pub(super) fn of(store: &mut Store) -> Result<Lookout> {
        let notifications = Notifications::by(store.watch().ok());
        store.changed()?;
        let now = Instant::now();
        Ok(Lookout { breath: BREATH, notifications, notified: None, woke: now, looked_for_store: now })
    }

    /// Sleeps until the store changes, `other` is readable, or the time is `until`.
    ///
    /// # Errors
    /// [`Kind::Io`] when the store was moved or removed; whatever the store answers.
    pub(super) fn sleep(
        &mut self,
        store: &mut Store,
        until: Option<Instant>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Woken> {
        std::thread::sleep(self.breath.saturating_sub(self.woke.elapsed()));
        let began = Instant::now();
        let woken = self.sleep_on(store, until, other);
        self.woke = Instant::now();
        self.breath = if began.elapsed() >= LOOK / 2 { BREATH } else { self.breath };
        woken
    }

    /// Delays the next look at a busy store after a look that found nothing, so that looking does not slow down processors.
    pub(super) fn slow_down(&mut self) {
        self.breath = (self.breath * 3 / 2).min(LONG_BREATH);
    }

    fn sleep_on(&mut self, store: &mut Store, until: Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Woken> {
        loop {
            if store.changed()? {
                self.notifications.look_soon();
                return Ok(Woken::Change);
            }
            if self.looked_for_store.elapsed() >= LOOK {
                store.still_there()?;
                self.looked_for_store = Instant::now();
            }
            let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Woken::Other);
            }
            let (pause, watch) = self.notifications.wait_for();
            let is_commit_near = self.notified.is_some_and(|at| at.elapsed() < SLOW_COMMIT);
            let time = if is_commit_near { pause.min(COMMIT) } else { pause };
            let watched = [other, watch].into_iter().flatten();
            let mut watched: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // Interrupted or not: it looks.
            let _ = fds::wait(&mut watched, Some(time.min(left)));
            let is_called = other.is_some() && !watched[0].revents().is_empty();
            if self.notifications.take() {
                self.notified = Some(Instant::now());
            }
            if is_called {
                return Ok(Woken::Other);
            }
        }
    }
}

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
    /// No call of this service is queued, blocked or running.
    Service(ServiceName),
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
    Service(&'a ServiceName),
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
            Awaited::Service(name) => {
                store.service(name)?;
                Watched::Service(name)
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
            Watched::Service(name) => {
                let is_quiet = store.is_quiet(name).map_err(|error| service_gone(error, name))?;
                Ok((!is_quiet).then(|| StillOpen::Service(name.clone())))
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

/// The error for a service that was there.
pub(super) fn service_gone(error: Error, name: &ServiceName) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    Error::new(Kind::NotFound, format!("service `{name}` was removed while it was waited for"))
        .with_hint("`asyncq service list` shows which there are")
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
            Watched::Service(_) => Vec::new(),
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
                Awaited::Service(name) if job.call.service == name.as_str() => {
                    (format!("job {id} of service `{name}`"), "wait for other jobs by their numbers")
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
