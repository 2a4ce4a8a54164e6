//! Calls of hooks. asyncq makes them when a job ends for good, in the transaction that records the end.
//!
//! Invariant: a hook never prevents an outcome from being recorded. The call of a hook that does not exist becomes a job that has
//! ended in an error.

use super::columns::{error_text, groups};
use super::engine::{Tx, damaged};
use super::enqueue;
use super::insert::{Insertion, Standing, insert};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::call::{Call, Principal};
use crate::domain::hook::{EndHooks, HookKind, HookTarget, Hooks};
use crate::domain::hook_call::HookedJob;
use crate::domain::job::{JobId, State};
use crate::domain::meta::Meta;
use crate::domain::new_job::{CallOptions, NewJob};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;

const OF_JOB: &str = "SELECT f.on_error, f.on_success, s.on_error, s.on_success FROM asyncq_job j
    LEFT JOIN asyncq_service s ON s.name = j.service
    LEFT JOIN asyncq_function f ON f.service = j.service AND f.name = j.function WHERE j.id = ?1";
const IS_HOOK: &str = "SELECT 1 FROM asyncq_origin WHERE job = ?1 AND hook IS NOT NULL";
const ENDED: &str =
    "SELECT service, function, principal, meta, error, attempt FROM asyncq_job WHERE id = ?1 AND immediate = 0";
const ORIGIN: &str = "INSERT INTO asyncq_origin (job, hook) VALUES (?1, ?2)";
const FAIL: &str = "UPDATE asyncq_job SET error = ?2, finished_at = ?3 WHERE id = ?1";
const NOTE: &str = "UPDATE asyncq_job SET error = ?2 WHERE id = ?1";
/// Calls the hook of a job that has entered this state, if it has one. A call of a hook has no hooks itself.
pub(super) fn call(tx: &mut dyn Tx, job: JobId, hooks: &EndHooks, state: State) -> Result<()> {
    let Some(kind) = HookKind::of(state) else { return Ok(()) };
    let found;
    let hooks = match hooks {
        EndHooks::Known(hooks) => hooks,
        EndHooks::Unknown => {
            found = tx.row::<(Hooks, Hooks)>(OF_JOB, &[job.into()])?;
            &found.map(|(own, of_service)| own.or(&of_service)).unwrap_or_default()
        }
    };
    let Some(target) = hooks.get(kind) else { return Ok(()) };
    if tx.has(IS_HOOK, &[job.into()])? {
        return Ok(());
    }
    let Some(ended) = tx.row::<EndedJob>(ENDED, &[job.into()])? else { return Ok(()) };
    reached("hook due");
    let new = ended.call(job, state, target)?;
    let made = match one(enqueue::make(tx, std::slice::from_ref(&new))?)? {
        Err(error) if error.kind() == Kind::NotFound => fail(tx, &new, &error)?,
        made => made,
    };
    match made {
        Ok(made) => tx.execute(ORIGIN, &[made.into(), kind.as_str().into()]).map(|_| ())?,
        Err(error) => note(tx, job, &ended, &format!("its hook `{target}` cannot be called: {error}"))?,
    }
    reached("hook called");
    Ok(())
}

fn one<T>(mut all: Vec<T>) -> Result<T> {
    all.pop().ok_or_else(|| damaged("a call became nothing"))
}

/// Records a call of a hook that does not exist.
fn fail(tx: &mut dyn Tx, new: &NewJob, why: &Error) -> Result<Result<JobId>> {
    let made = match insert(tx, std::slice::from_ref(new), &Standing::alone(State::Error), Insertion::Own)? {
        Ok(made) => one(made)?,
        Err(error) => return Ok(Err(error)),
    };
    let error = error_text(&Failure::not_found(why.to_string()));
    tx.execute(FAIL, &[made.into(), (&error).into(), tx.now().into()])?;
    Ok(Ok(made))
}

/// Adds to the error of a job what happened to its hook.
fn note(tx: &mut dyn Tx, job: JobId, ended: &EndedJob, what: &str) -> Result<()> {
    let failure = match ended.error.clone() {
        Some(failure) => Failure { message: format!("{}; {what}", failure.message), ..failure },
        None => Failure::new(FailureKind::Refused, what),
    };
    tx.try_execute(NOTE, &[job.into(), (&error_text(&failure)).into()]).map(drop)
}

/// A job that has ended.
struct EndedJob {
    service: String,
    function: String,
    principal: Option<Principal>,
    meta: Option<Meta>,
    error: Option<Failure>,
    attempt: i64,
}

groups! { EndedJob { service, function, principal, meta, error, attempt } }

impl EndedJob {
    /// The call of its hook.
    fn call(&self, job: JobId, state: State, target: &HookTarget) -> Result<NewJob> {
        let Self { service, function, error, attempt, .. } = self;
        let ended = HookedJob { service, function, state, error: error.as_ref(), attempt: *attempt };
        let call = ended.call(job, target).map_err(|flaw| damaged(&format!("the error of a job: {flaw}")))?;
        let call = Call { principal: self.principal.clone(), ..call };
        // It has no user, not even an unknown one: that marks jobs that asyncq has made.
        let options = CallOptions { meta: self.meta.clone(), ..CallOptions::default() };
        Ok(NewJob { options, parent: Some(job), os_user: Some(String::new()), ..NewJob::new(call) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn a_job_and_its_hooks_are_found_by_their_keys() {
        for sql in [ENDED, FAIL, NOTE] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        for sql in [OF_JOB, IS_HOOK] {
            let steps = plan(sql);
            assert!(steps.iter().all(|step| step.starts_with("SEARCH ")), "{steps:?}");
        }
    }
}
