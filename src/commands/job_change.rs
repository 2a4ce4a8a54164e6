//! What people do with jobs by hand: cancel, retry, rerun, start, change, remove.

use std::time::{Duration, Instant};

use super::caller::os_user;
use super::{caller::Caller, queue::Queue};
use crate::domain::call::Principal;
use crate::domain::event::Unkillable;
use crate::domain::job::{JobId, State};
use crate::domain::job_edit::JobEdit;
use crate::domain::new_job::{Rerun, Rerunning};
use crate::domain::query::{BulkChange, JobChange, JobFilter, Refusal};
use crate::error::{Error, Kind, Result};
use crate::processor::{put_back_copied, put_back_unowned, unkillable_of};
use crate::store::{Cancelled, Store};
use crate::system::user::user_name;

/// How long cancelling waits for a running job to end. Its processor looks several times a second, and gives the function ten
/// seconds to end by itself.
pub(super) const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

/// How often to look at a job that was asked to end.
pub(super) const LOOK_AT_CANCELLED: Duration = Duration::from_millis(50);

/// How many jobs one look for the newest ones finds at most.
const LOOKED_AT_ONCE: u32 = 1000;

/// How long a change of many jobs pauses at most after a step.
const LONGEST_BREATH: Duration = Duration::from_millis(100);

/// What became of many jobs.
#[derive(Debug, Default)]
pub struct Changed {
    /// How many were changed, or would be.
    pub jobs: u64,
    /// How many stayed unchanged because their service or function was removed.
    pub removed: u64,
    /// How many ended by themselves before they could be cancelled.
    pub too_late: u64,
    /// Those that were asked to end, and still run.
    pub running: Vec<JobId>,
    /// Those that a rule of the application kept from changing.
    pub refused: Option<Refusal>,
}

impl Queue {
    /// Cancels a job. Waits until a running one has ended.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it had already ended in another state, [`Kind::Busy`] when it has not ended yet.
    pub fn cancel_job(&mut self, id: JobId) -> Result<()> {
        let until = Instant::now() + CANCEL_PATIENCE;
        if self.begin_to_cancel(id)? { Ok(()) } else { is_cancelled(id, &ended(&mut self.store, id, until)?) }
    }

    /// Cancels a job, or asks a running one to end. Returns whether it is cancelled now; if not, call [`look_if_cancelled`].
    ///
    /// # Errors
    /// [`Kind::Denied`] when it had already ended in another state.
    pub(super) fn begin_to_cancel(&mut self, id: JobId) -> Result<bool> {
        let store = &mut self.store;
        match store.cancel(id)? {
            Cancelled::Now | Cancelled::Ended(State::Cancelled) => return Ok(true),
            Cancelled::Ended(state) => return Err(too_late(id, state)),
            Cancelled::Requested => drop(put_back_unowned(store, &[id])?),
        }
        put_back_copied(store)?;
        Ok(false)
    }

    /// Queues a job again that ended in an error or was cancelled. Returns how many calls that need it wait again.
    ///
    /// # Errors
    /// As [`Store::retry`].
    pub fn retry_job(&mut self, id: JobId) -> Result<u64> {
        put_back_copied(&mut self.store)?;
        self.store.retry(id)
    }

    /// Calls the function of a job again, as a new job; cancels the job if it waits. Inside a running function, the call has
    /// that function's job as its parent.
    ///
    /// # Errors
    /// [`Kind::Denied`] inside a function that runs on behalf of another principal; and as [`Store::rerun`].
    pub fn rerun_job(&mut self, id: JobId, again: Rerun, caller: &Caller) -> Result<Rerunning> {
        let running = self.running(caller)?;
        if let Some(running) = &running
            && self.store.job(id)?.call.principal.as_deref() != running.principal.as_ref().map(Principal::as_str)
        {
            let message = format!("job {id} has another principal than the function that calls it again");
            return Err(Error::new(Kind::Denied, message)
                .with_hint("a call inside a running function has the principal of that function"));
        }
        let parent = running.map(|running| running.fence.job);
        self.store.rerun(id, &Rerun { os_user: Some(os_user()), parent, ..again })
    }

    /// Releases a held job.
    ///
    /// # Errors
    /// As [`Store::start`].
    pub fn start_job(&mut self, id: JobId) -> Result<()> {
        self.store.start(id).map(|_| ())
    }

    /// Changes when a waiting job runs.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn set_job(&mut self, id: JobId, changes: &JobEdit) -> Result<State> {
        self.store.set(id, changes)
    }

    /// Removes ended jobs that match, except for the newest `keep`, in the same way as [`Queue::change_jobs`].
    ///
    /// # Errors
    /// Whatever the store answers; the changes so far remain.
    pub fn clean_jobs(&mut self, filter: JobFilter, keep: u64, dry_run: bool) -> Result<Changed> {
        let (mut before, mut left) = (None, keep);
        while left > 0 {
            let limit = u32::try_from(left).unwrap_or(u32::MAX).min(LOOKED_AT_ONCE);
            let (found, next) = self.store.newest_jobs(&filter, before, limit)?;
            left -= found.len() as u64;
            match next {
                Some(next) => before = Some(next),
                // There are no more jobs than those.
                None if left > 0 => return Ok(Changed::default()),
                None => before = found.last().copied(),
            }
        }
        self.change_jobs(&BulkChange { change: JobChange::Remove, filter, before, dry_run })
    }

    /// Changes many jobs, in steps that keep nobody waiting. Clients that write plain SQL take no part in the queue of writers:
    /// they only look now and then whether they may write, so this leaves them most of the time. Waits until running jobs have
    /// ended.
    ///
    /// # Errors
    /// Whatever the store answers; the changes so far remain.
    pub fn change_jobs(&mut self, many: &BulkChange) -> Result<Changed> {
        let store = &mut self.store;
        let mut all = Changed::default();
        let mut asked = Vec::new();
        let mut after = Some(JobId(0));
        while let Some(from) = after {
            let began = Instant::now();
            let step = store.change_many(many, from)?;
            all.jobs += step.changed;
            all.removed += step.removed;
            asked.extend(step.asked);
            if let Some(refused) = step.refused {
                Refusal::add(&mut all.refused, refused);
            }
            after = step.next;
            if step.changed > 0 && !many.dry_run && after.is_some() {
                std::thread::sleep((began.elapsed() * 3).min(LONGEST_BREATH));
            }
        }
        let until = Instant::now() + CANCEL_PATIENCE;
        if !asked.is_empty() {
            put_back_copied(store)?;
            put_back_unowned(store, &asked)?;
        }
        for id in asked {
            match ended(store, id, until) {
                Ok((State::Cancelled, _)) => continue,
                Ok((State::Processing, _)) => all.running.push(id),
                Ok(_) => all.too_late += 1,
                // It was cancelled, and somebody has removed it since.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => return Err(error),
            }
            all.jobs -= 1;
        }
        Ok(all)
    }
}

/// Waits until a job no longer runs, at most until `until`, or until its processor knows that it cannot end a process of it.
/// Returns the job's state then, and that process.
fn ended(store: &mut Store, id: JobId, until: Instant) -> Result<(State, Option<Unkillable>)> {
    loop {
        if let Some(ended) = look(store, id, until)? {
            return Ok(ended);
        }
        std::thread::sleep(LOOK_AT_CANCELLED);
    }
}

/// Looks once, as [`ended`] does. Returns nothing while the job runs.
fn look(store: &mut Store, id: JobId, until: Instant) -> Result<Option<(State, Option<Unkillable>)>> {
    let state = store.job(id)?.state;
    if state != State::Processing || Instant::now() >= until {
        return Ok(Some((state, None)));
    }
    Ok(unkillable_of(store, id).map(|unkillable| (state, Some(unkillable))))
}

/// Whether a job that was asked to end is cancelled now. Nobody waits for it after `until`.
///
/// # Errors
/// As [`Queue::cancel_job`].
pub(super) fn look_if_cancelled(store: &mut Store, id: JobId, until: Instant) -> Result<bool> {
    let Some(ended) = look(store, id, until)? else { return Ok(false) };
    is_cancelled(id, &ended).map(|()| true)
}

/// Whether a job has ended as it was asked to.
fn is_cancelled(id: JobId, ended: &(State, Option<Unkillable>)) -> Result<()> {
    match ended {
        (_, Some(Unkillable { pid, user, .. })) => {
            let owner = user_name(*user);
            let what = format!("job {id} still runs: its process {pid} belongs to user {owner} and cannot be ended");
            Err(Error::new(Kind::Busy, what)
                .with_hint(format!("root can end it with `kill {pid}`; the job is cancelled once it has ended")))
        }
        (State::Cancelled, None) => Ok(()),
        (State::Processing, None) => Err(Error::new(Kind::Busy, format!("job {id} was asked to end but still runs"))
            .with_hint("if its processor died, the next `asyncq process` cancels it, or tells what it waits for")),
        (state, None) => Err(too_late(id, *state)),
    }
}

fn too_late(id: JobId, state: State) -> Error {
    let error = Error::new(Kind::Denied, format!("job {id} is {state}, nothing to cancel"));
    if state.has_ended() { error.with_hint(format!("`asyncq job show {id}` shows how it ended")) } else { error }
}
