//! Putting calls on queues.
//!
//! Own calls are checked here, not by the schema's triggers, which do the same for plain INSERTs and take time for each.

use std::collections::HashSet;

use super::engine::Tx;
use super::{Store, function, one, service};
use crate::domain::call::{Call, Key, Principal};
use crate::domain::job::{JobId, NewJob, State};
use crate::error::{Error, Kind, Result};

/// What enqueueing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// A job was made.
    New(JobId),
    /// The same call was there already under the same key.
    Same(JobId),
}

impl Enqueued {
    /// The job that now stands for the call.
    #[must_use]
    pub fn id(self) -> JobId {
        match self {
            Enqueued::New(id) | Enqueued::Same(id) => id,
        }
    }
}

/// Why a batch was refused. Nothing of it is enqueued.
#[derive(Debug)]
pub struct Refused {
    /// Which of the calls is the reason, counted from 0, if it is one of them.
    pub call: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

/// How many bytes of arguments stand in the job's own row at most, as in the schema's trigger `asyncq_job_large`.
const SMALL: usize = 2000;

/// As a client writes it.
const INSERT: &str = "INSERT INTO asyncq_job
    (service, function, args, kwargs, principal, site, state, key, os_user, parent)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) RETURNING id";
/// Complete, where no trigger completes it.
const INSERT_ALL: &str = "INSERT INTO asyncq_job
    (service, function, args, kwargs, principal, site, state, key, os_user, parent, run_at, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11) RETURNING id";
const INSERT_LARGE: &str = "INSERT INTO asyncq_large (job, args, kwargs) VALUES (?1, ?2, ?3)";
const BY_KEY: &str = "SELECT j.id, j.service, j.function, COALESCE(j.args, l.args), COALESCE(j.kwargs, l.kwargs),
    j.principal, j.site FROM asyncq_job j LEFT JOIN asyncq_large l ON l.job = j.id WHERE j.key = ?1";

impl Store {
    /// Puts a call on its service's queue; durable when this returns. The job waits if it is to be held.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function; [`Kind::Denied`] when the key belongs to another
    /// call.
    pub fn enqueue(&mut self, new: &NewJob) -> Result<Enqueued> {
        let done = self.enqueue_all(std::slice::from_ref(new)).map_err(|refused| refused.error)?;
        one(done.first().copied())
    }

    /// Puts calls on their services' queues, in this order, all in one transaction or none; durable when this returns.
    ///
    /// # Errors
    /// As [`Store::enqueue`], of the first call that is refused.
    pub fn enqueue_all(&mut self, new: &[NewJob]) -> Result<Vec<Enqueued>, Refused> {
        let mut call = None;
        let done = self.insert_all(new, &mut call);
        done.map_err(|error| {
            let its = matches!(error.kind(), Kind::NotFound | Kind::Denied);
            Refused { call: call.filter(|_| its), error }
        })
    }

    fn insert_all(&mut self, new: &[NewJob], at: &mut Option<usize>) -> Result<Vec<Enqueued>> {
        let done = self.write_untriggered(|tx| {
            // An application's own triggers are to see its calls.
            if tx.has_foreign_trigger("asyncq_job")? {
                return Ok(None);
            }
            put_all(tx, new, insert_complete, at).map(Some)
        })?;
        match done {
            Some(done) => Ok(done),
            None => self.write(|tx| put_all(tx, new, insert, at)),
        }
    }
}

/// One way to insert a job.
type Insert = fn(&mut dyn Tx, &NewJob, State) -> Result<JobId>;

/// Puts calls on their queues; `at` tells where it stands.
fn put_all(tx: &mut dyn Tx, new: &[NewJob], insert: Insert, at: &mut Option<usize>) -> Result<Vec<Enqueued>> {
    let mut known = HashSet::new();
    let mut done = Vec::with_capacity(new.len());
    for (index, new) in new.iter().enumerate() {
        *at = Some(index);
        let Call { service: on, function: name, .. } = &new.call;
        if known.insert((on.as_str(), name.as_str())) {
            service::find(tx, on)?;
            function::find(tx, on, name)?;
        }
        done.push(match same(tx, new)? {
            Some(id) => Enqueued::Same(id),
            None => Enqueued::New(insert(tx, new, if new.hold { State::Held } else { State::Queued })?),
        });
    }
    *at = None;
    if done.iter().all(|done| matches!(done, Enqueued::Same(_))) {
        tx.confirm()?;
    }
    Ok(done)
}

/// The job that stands for the same call under the same key.
fn same(tx: &mut dyn Tx, new: &NewJob) -> Result<Option<JobId>> {
    let (call, Some(key)) = (&new.call, &new.key) else { return Ok(None) };
    let found = tx.first(BY_KEY, &[key.as_str().into()], |row| {
        let same = row.str(1)? == call.service.as_str()
            && row.str(2)? == call.function.as_str()
            && row.bytes(3)? == Some(call.args.as_str().as_bytes())
            && row.bytes(4)? == Some(call.kwargs.as_str().as_bytes())
            && row.bytes(5)? == call.principal.as_ref().map(|it| it.as_str().as_bytes())
            && row.bytes(6)? == call.site.as_ref().map(String::as_bytes);
        Ok((JobId(row.i64(0)?), same))
    })?;
    match found {
        Some((id, false)) => Err(other_call(key.as_str(), id)),
        found => Ok(found.map(|(id, _)| id)),
    }
}

/// Inserts a job just as any client would, so that the triggers see it.
pub(super) fn insert(tx: &mut dyn Tx, new: &NewJob, state: State) -> Result<JobId> {
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
    one(id).map(JobId)
}

/// Inserts a job as the triggers would leave it.
fn insert_complete(tx: &mut dyn Tx, new: &NewJob, state: State) -> Result<JobId> {
    let Call { service, function, args, kwargs, principal, site } = &new.call;
    let (args, kwargs) = (args.as_str(), kwargs.as_str());
    let small = args.len() + kwargs.len() <= SMALL;
    let now = tx.now();
    let id = tx.first(
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
        |row| row.i64(0),
    )?;
    let id = one(id)?;
    if !small {
        tx.execute(INSERT_LARGE, &[id.into(), args.into(), kwargs.into()])?;
    }
    Ok(JobId(id))
}

fn other_call(key: &str, id: JobId) -> Error {
    let key = crate::domain::text::visible(key);
    Error::new(Kind::Denied, format!("key `{key}` belongs to job {id}, which is another call"))
        .hint(format!("`asyncq job show {id}` shows that call; a new call needs a new key"))
}
