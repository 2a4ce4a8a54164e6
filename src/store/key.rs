//! Keys: among the calls with one key, there is one job as long as the key is taken.
//!
//! A key without a lifetime is taken as long as its job exists, and always stands for the same call. A key with a lifetime is free
//! again when its job has ended, or has begun; until then, a call with other arguments may replace the waiting one.

use super::engine::Tx;
use super::insert::{Insertion, LARGE, is_small};
use super::{lane, used};
use crate::domain::call::Key;
use crate::domain::job::JobId;
use crate::domain::new_job::{IfTaken, NewJob};
use crate::domain::state::{Phase, State};
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};

const BY_KEY: &str = "SELECT j.id, j.service, j.function, COALESCE(j.args, l.args), COALESCE(j.kwargs, l.kwargs),
    j.principal, j.site, j.key_until IS NOT NULL, j.state, j.attempt
    FROM asyncq_job j LEFT JOIN asyncq_large l ON l.job = j.id WHERE j.key = ?1";
/// Only what has not begun is changed.
macro_rules! unbegun {
    ($change:literal) => {
        concat!(
            "UPDATE asyncq_job SET ",
            $change,
            " WHERE id = ?1 AND attempt = 0 AND (state = 'held' OR state = 'blocked' OR state = 'delayed' OR state = 'queued')"
        )
    };
}
const REPLACE: &str = unbegun!("args = ?2, kwargs = ?3");
const FORGET_LARGE: &str = "DELETE FROM asyncq_large WHERE job = ?1";
/// It counts as a statement of a client, so the schema's triggers follow it up.
const MOVE: &str = unbegun!("run_at = ?2, expires_at = ?3");
/// The same, complete; `?4` is now.
const MOVE_WHOLLY: &str = unbegun!(
    "run_at = ?2, expires_at = ?3,
    state = CASE WHEN state = 'held' OR waits = 1 THEN state WHEN ?2 > ?4 THEN 'delayed'
        WHEN state = 'delayed' AND lane IS NOT NULL THEN 'blocked' WHEN state = 'delayed' THEN 'queued' ELSE state END,
    waits = CASE WHEN state = 'held' OR waits = 1 THEN waits WHEN ?2 > ?4 THEN 0
        WHEN state = 'delayed' AND lane IS NOT NULL THEN 2 ELSE waits END"
);

/// The job that has a key.
struct Taken {
    id: JobId,
    /// Whether it is the same call, apart from its arguments.
    same_but_args: bool,
    same_args: bool,
    has_lifetime: bool,
    state: State,
    attempt: i64,
}

/// The job that has the call's key; `None` if the key is free. If the call asks for that, it replaces the waiting call. The inner
/// error says why it cannot; then nothing has changed.
pub(super) fn taken(tx: &mut dyn Tx, new: &NewJob, way: Insertion) -> Result<Result<Option<JobId>>> {
    let Some(key) = &new.key else { return Ok(Ok(None)) };
    let Some(there) = find(tx, key, new)? else { return Ok(Ok(None)) };
    let have_lifetimes = there.has_lifetime && new.options.key_until.is_some();
    if !there.same_but_args || !there.same_args && !have_lifetimes {
        return Ok(Err(of_another_call(key, there.id)));
    }
    let if_taken = new.options.if_taken;
    if if_taken == IfTaken::Keep || there.state.has_ended() {
        return Ok(Ok(Some(there.id)));
    }
    if there.state.phase() != Phase::Waiting || there.attempt > 0 {
        return Ok(Err(has_begun(key, &there)));
    }
    if !there.same_args
        && let Err(refusal) = replace(tx, there.id, new, way)?
    {
        return Ok(Err(refusal));
    }
    if if_taken == IfTaken::Postpone
        && let Err(refusal) = postpone(tx, there.id, new, way)?
    {
        return Ok(Err(refusal));
    }
    Ok(Ok(Some(there.id)))
}

fn find(tx: &mut dyn Tx, key: &Key, new: &NewJob) -> Result<Option<Taken>> {
    let call = &new.call;
    tx.first(BY_KEY, &[key.as_str().into()], |row| {
        let state = row.str(8)?;
        Ok(Taken {
            id: JobId(row.i64(0)?),
            same_but_args: row.str(1)? == call.service.as_str()
                && row.str(2)? == call.function.as_str()
                && row.bytes(5)? == call.principal.as_ref().map(|it| it.as_str().as_bytes())
                && row.bytes(6)? == call.site.as_ref().map(String::as_bytes),
            same_args: row.bytes(3)? == Some(call.args.as_str().as_bytes())
                && row.bytes(4)? == Some(call.kwargs.as_str().as_bytes()),
            has_lifetime: row.bool(7)?,
            state: State::from_name(state).unwrap_or(State::Processing),
            attempt: row.i64(9)?,
        })
    })
}

fn of_another_call(key: &Key, job: JobId) -> Error {
    let key = escape_control(key.as_str());
    Error::new(Kind::Denied, format!("key `{key}` belongs to job {job}, which is another call"))
        .with_hint(format!("`asyncq job show {job}` shows that call; a new call needs a new key"))
}

fn has_begun(key: &Key, there: &Taken) -> Error {
    let what = if there.state.phase() == Phase::Running { "is running" } else { "is to be tried again" };
    Error::new(Kind::Busy, format!("job {}, which has the key `{}`, {what}", there.id, escape_control(key.as_str())))
        .with_hint("with --key-until started a second call could wait")
}

/// Gives a job that has not begun the arguments of another call.
fn replace(tx: &mut dyn Tx, job: JobId, new: &NewJob, way: Insertion) -> Result<Result<()>> {
    let (args, kwargs) = (new.call.args.as_str(), new.call.kwargs.as_str());
    let in_row = way == Insertion::Client || is_small(new);
    let values = [job.into(), in_row.then_some(args).into(), in_row.then_some(kwargs).into()];
    match tx.try_execute(REPLACE, &values)? {
        Ok(0) => return Ok(Err(tx.passed_over())),
        Ok(_) => {}
        Err(refusal) => return Ok(Err(refusal)),
    }
    if way == Insertion::Own {
        tx.execute(FORGET_LARGE, &[job.into()])?;
        if !in_row {
            tx.execute(LARGE, &[job.into(), args.into(), kwargs.into()])?;
        }
    }
    Ok(Ok(()))
}

/// Moves a job that has not begun to when another call is due, and when that expires.
fn postpone(tx: &mut dyn Tx, job: JobId, new: &NewJob, way: Insertion) -> Result<Result<()>> {
    let now = tx.now();
    let values = [job.into(), new.due.moment(now).unwrap_or(now).into(), new.expires_at(now).into(), now.into()];
    let done = match way {
        Insertion::Client => tx.try_execute(MOVE, &values[..3])?,
        Insertion::Own => tx.try_execute(MOVE_WHOLLY, &values)?,
    };
    match done {
        Err(refusal) => Ok(Err(refusal)),
        Ok(0) => Ok(Err(tx.passed_over())),
        Ok(_) if way == Insertion::Client => Ok(Ok(())),
        Ok(_) => {
            if new.options.expires.is_some() {
                used::note(tx, used::EXPIRY)?;
            }
            lane::let_out(tx, job).map(Ok)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn a_job_is_found_by_its_key_and_changed_by_its_number() {
        assert_eq!(ways_to_jobs(BY_KEY), ["SEARCH j USING INDEX asyncq_job_key (key=?)"]);
        for sql in [REPLACE, MOVE, MOVE_WHOLLY] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
    }
}
