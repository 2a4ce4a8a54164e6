//! Waiting until jobs have ended, without asking all the time.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::job::when;
use super::queue::Queue;
use crate::domain::attempt::Attempt;
use crate::domain::job::{Job, JobId, State};
use crate::error::{Error, Kind, Result};
use crate::processor::Notifications;
use crate::store::Store;
use crate::system::fds;

/// How long to wait at most for the commit that follows a notification, before looking again.
const COMMIT: Duration = Duration::from_millis(10);

/// For how long after a notification that is so. A disk that takes longer is noticed later.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

/// How often to look at least, and whether the store was moved.
const LOOK: Duration = Duration::from_millis(500);

/// How often to look at most, so that a busy store costs little.
const BREATH: Duration = Duration::from_millis(1);

/// A job as it is shown, with its attempts.
pub type ShownJob = (Job, Vec<Attempt>);

/// Sleeps until the store was changed.
pub(super) struct Lookout {
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
    /// The time is over, or what else was waited for is readable.
    Other,
}

impl Lookout {
    /// Begins to watch a store.
    pub(super) fn of(store: &mut Store) -> Result<Lookout> {
        let notifications = Notifications::by(store.watch().ok());
        store.changed()?;
        let now = Instant::now();
        Ok(Lookout { notifications, notified: None, woke: now, looked_for_store: now })
    }

    /// Sleeps until the store was changed, `other` is readable, or `until`.
    ///
    /// # Errors
    /// [`Kind::Io`] when the store was moved or removed; whatever the store answers.
    pub(super) fn sleep(
        &mut self,
        store: &mut Store,
        until: Option<Instant>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Woken> {
        std::thread::sleep(BREATH.saturating_sub(self.woke.elapsed()));
        let woken = self.sleep_on(store, until, other);
        self.woke = Instant::now();
        woken
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

/// What there is to know of jobs that are waited for.
pub(super) enum Progress {
    /// All have ended.
    Ended,
    /// This one has not.
    Open(JobId, State),
}

/// Whether all of these jobs have ended.
///
/// # Errors
/// [`Kind::NotFound`] when there is none with one of the numbers; `were_there` says whether there was one before.
pub(super) fn look(store: &mut Store, jobs: &[JobId], were_there: bool) -> Result<Progress> {
    let states = store.states(jobs)?;
    progress(store, jobs.iter().copied().zip(states), were_there)
}

/// The same, of jobs whose states are known.
///
/// # Errors
/// As [`look`].
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

fn removed(id: JobId) -> Error {
    Error::new(Kind::NotFound, format!("job {id} was removed while it was waited for"))
        .with_hint("`asyncq job clean` removes jobs that have ended, and their outcomes; keep them longer")
}

/// The error for a job that has not ended in time.
pub(super) fn not_yet(id: JobId, state: State) -> Error {
    Error::new(Kind::Busy, format!("job {id} has not ended yet: it is {state}")).with_hint(when(id, state))
}

impl Queue {
    /// Waits until all of these jobs have ended, at most for this time. Where they have not when it begins, `begins` gets the
    /// first of those that have not. Returns the jobs.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none with one of the numbers, or it is removed meanwhile; [`Kind::Busy`] when the
    /// time is over; and whatever the store or `begins` answers.
    pub fn wait<E: From<Error>>(
        &mut self,
        jobs: &[JobId],
        timeout: Option<Duration>,
        begins: impl FnOnce(&mut Queue, JobId) -> Result<(), E>,
    ) -> Result<Vec<ShownJob>, E> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut lookout = Lookout::of(&mut self.store)?;
        if let Progress::Open(id, state) = look(&mut self.store, jobs, false)? {
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(not_yet(id, state).into());
            }
            begins(self, id)?;
        }
        loop {
            match look(&mut self.store, jobs, true)? {
                Progress::Ended => return Ok(jobs.iter().map(|id| self.job(*id)).collect::<Result<_>>()?),
                Progress::Open(id, state) if until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(not_yet(id, state).into());
                }
                Progress::Open(..) => drop(lookout.sleep(&mut self.store, until, None)?),
            }
        }
    }
}
