//! Putting calls on queues.
//!
//! Own calls are checked here, not by the schema's triggers, which do the same for plain INSERTs and take time for each.

use std::collections::HashSet;

use super::engine::{Triggers, Tx, one};
use super::insert::{Insertion, alike, insert};
use super::{Store, function};
use crate::domain::call::Call;
use crate::domain::job::{Enqueued, JobId, NewJob, State};
use crate::error::{Error, Kind, Result};

/// Why a batch was refused. Nothing of it is enqueued.
#[derive(Debug)]
pub struct Refused {
    /// Which of the calls is the reason, counted from 0, if it is one of them.
    pub call: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

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
        // An application's own triggers are to see its calls.
        let done = self.change(Triggers::IfForeign, |tx| {
            let way = if tx.runs_triggers() { Insertion::Client } else { Insertion::Own };
            enqueue_in(tx, new, way, &mut call)
        });
        done.map_err(|error| {
            // SQLite says the same of a full disk and of a table without a number left.
            let error = if error.kind() == Kind::Full { self.check_numbers().err().unwrap_or(error) } else { error };
            let its = matches!(error.kind(), Kind::NotFound | Kind::Denied);
            Refused { call: call.filter(|_| its), error }
        })
    }
}

/// Inserts calls as jobs; `at` is the one that it is at.
fn enqueue_in(tx: &mut dyn Tx, new: &[NewJob], way: Insertion, at: &mut Option<usize>) -> Result<Vec<Enqueued>> {
    let mut known = HashSet::new();
    let mut done = Vec::with_capacity(new.len());
    while let Some(first) = new.get(done.len()) {
        *at = Some(done.len());
        let Call { service: on, function: name, .. } = &first.call;
        if known.insert((on.as_str(), name.as_str())) {
            function::find_to_use(tx, on, name)?;
        }
        let state = if first.hold { State::Held } else { State::Queued };
        let rest = &new[done.len()..];
        if let Some(id) = same(tx, first)? {
            done.push(Enqueued::Same(id));
            continue;
        }
        let alike = if way == Insertion::Own { alike(rest) } else { 1 };
        let jobs = insert(tx, &rest[..alike], state, way)?;
        if jobs.len() == alike {
            done.extend(jobs.into_iter().map(Enqueued::New));
            continue;
        }
        // Somebody else has just taken the key; else it is the application that wants no such job.
        match same(tx, first)? {
            Some(id) => done.push(Enqueued::Same(id)),
            None => return Err(tx.passed_over()),
        }
    }
    *at = None;
    if done.iter().all(|done| matches!(done, Enqueued::Same(_))) {
        tx.force_sync()?;
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
        Some((id, false)) => {
            let key = crate::domain::text::escape_control(key.as_str());
            Err(Error::new(Kind::Denied, format!("key `{key}` belongs to job {id}, which is another call"))
                .with_hint(format!("`asyncq job show {id}` shows that call; a new call needs a new key")))
        }
        found => Ok(found.map(|(id, _)| id)),
    }
}
