//! The ways in which a call becomes a row.
//!
//! Invariant: whichever way is taken, the row is the one that a client's plain INSERT would have made.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::engine::{Tx, Value};
use crate::domain::call::{Call, Key, Principal};
use crate::domain::job::{JobId, NewJob, State};
use crate::error::Result;

/// How many bytes of arguments stand in the job's own row at most, as in the schema's trigger `asyncq_job_large`.
const SMALL: usize = 2000;

/// How many calls one statement inserts. More gain next to nothing.
const AT_ONCE: usize = 50;

/// How many parameters all rows of such a statement have in common, and how many each has for itself.
const COMMON: usize = 7;
const OWN: usize = 3;

/// As a client writes it.
const INSERT: &str = "INSERT INTO asyncq_job
    (service, function, args, kwargs, principal, site, state, key, os_user, parent)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING id";
/// Complete, where no trigger completes it.
const INSERT_ALL: &str = "INSERT INTO asyncq_job
    (service, function, args, kwargs, principal, site, state, key, os_user, parent, run_at, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)";
const INSERT_LARGE: &str = "INSERT INTO asyncq_large (job, args, kwargs) VALUES (?1, ?2, ?3)";

/// Likewise, [`AT_ONCE`] of them.
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| {
    let mut sql = String::from(
        "INSERT INTO asyncq_job (service, function, site, state, os_user, parent, run_at, created_at, args, kwargs, principal) VALUES",
    );
    for row in 0..AT_ONCE {
        let (comma, own) = (if row == 0 { ' ' } else { ',' }, 1 + COMMON + row * OWN);
        // Writing to a string never fails.
        let _ = write!(sql, "{comma}(?1,?2,?3,?4,?5,?6,?7,?7,?{own},?{},?{})", own + 1, own + 2);
    }
    sql
});

/// Inserts a job just as any client would, so that the triggers see it.
pub(super) fn as_client(tx: &mut dyn Tx, new: &NewJob, state: State) -> Result<JobId> {
    let Call { service, function, args, kwargs, principal, site } = &new.call;
    let id = tx.first(
        INSERT,
        &[
            service.as_str().into(),
            function.as_str().into(),
            args.as_str().into(),
            kwargs.as_str().into(),
            principal.as_ref().map(Principal::as_str).into(),
            site.as_ref().into(),
            state.as_str().into(),
            new.key.as_ref().map(Key::as_str).into(),
            new.os_user.as_ref().into(),
            new.parent.map(|it| it.0).into(),
        ],
        |row| row.i64(0),
    )?;
    id.map(JobId).ok_or_else(|| tx.passed_over())
}

/// Inserts a job as the triggers would leave it.
pub(super) fn complete(tx: &mut dyn Tx, new: &NewJob, state: State) -> Result<JobId> {
    let Call { service, function, args, kwargs, principal, site } = &new.call;
    let (args, kwargs) = (args.as_str(), kwargs.as_str());
    let small = is_small(new);
    let now = tx.now();
    let id = tx.insert(
        INSERT_ALL,
        &[
            service.as_str().into(),
            function.as_str().into(),
            small.then_some(args).into(),
            small.then_some(kwargs).into(),
            principal.as_ref().map(Principal::as_str).into(),
            site.as_ref().into(),
            state.as_str().into(),
            new.key.as_ref().map(Key::as_str).into(),
            new.os_user.as_ref().into(),
            new.parent.map(|it| it.0).into(),
            now.into(),
        ],
    )?;
    if !small {
        tx.execute(INSERT_LARGE, &[id.into(), args.into(), kwargs.into()])?;
    }
    Ok(JobId(id))
}

/// How many of the next calls [`many`] inserts; 0 when they are not alike enough, or too few.
pub(super) fn alike(next: &[NewJob]) -> usize {
    let Some(calls) = next.get(..AT_ONCE) else { return 0 };
    let first = &calls[0];
    let fits = |new: &NewJob| {
        new.key.is_none()
            && is_small(new)
            && new.call.function == first.call.function
            && new.call.service == first.call.service
            && new.call.site == first.call.site
            && new.hold == first.hold
            && new.os_user == first.os_user
            && new.parent == first.parent
    };
    if calls.iter().all(fits) { AT_ONCE } else { 0 }
}

/// Inserts calls that are [`alike`] as the triggers would leave them; gives the number of the first, which the others
/// follow one by one.
pub(super) fn many(tx: &mut dyn Tx, calls: &[NewJob], state: State) -> Result<JobId> {
    let first = &calls[0];
    let mut args: Vec<Value<'_>> = Vec::with_capacity(COMMON + OWN * calls.len());
    let common: [Value<'_>; COMMON] = [
        first.call.service.as_str().into(),
        first.call.function.as_str().into(),
        first.call.site.as_ref().into(),
        state.as_str().into(),
        first.os_user.as_ref().into(),
        first.parent.map(|it| it.0).into(),
        tx.now().into(),
    ];
    args.extend(common);
    for Call { args: positional, kwargs, principal, .. } in calls.iter().map(|new| &new.call) {
        let principal = principal.as_ref().map(Principal::as_str);
        let own: [Value<'_>; OWN] = [positional.as_str().into(), kwargs.as_str().into(), principal.into()];
        args.extend(own);
    }
    let last = tx.insert(&INSERT_MANY, &args)?;
    Ok(JobId(last + 1 - i64::try_from(calls.len()).unwrap_or(i64::MAX)))
}

fn is_small(new: &NewJob) -> bool {
    new.call.args.as_str().len() + new.call.kwargs.as_str().len() <= SMALL
}
