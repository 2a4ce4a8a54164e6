//! What people do with many jobs at once, in steps that keep nobody waiting for long.

use std::collections::HashMap;

use super::engine::{Tx, Value};
use super::job::{CANCEL, CANCELLING, RETRY, START, state};
use super::select::{JobFilter, oldest};
use super::{Store, function};
use crate::domain::function::FunctionName;
use crate::domain::job::{JobId, State};
use crate::domain::service::ServiceName;
use crate::domain::time::Timestamp;
use crate::error::{Kind, Result};

/// What to do with jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Cancel those that wait, and ask those that run to end.
    Cancel,
    /// Queue those again that ended in an error or were cancelled, with all their budgets renewed.
    Retry,
    /// Release those that are held.
    Start,
    /// Remove those that have ended.
    Remove,
}

/// Which jobs to change, and how.
#[derive(Debug, Clone)]
pub struct Many {
    /// What to do with them.
    pub change: Change,
    /// Which jobs; all its states must be ones in which this change is possible.
    pub filter: JobFilter,
    /// Only count them.
    pub dry_run: bool,
}

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// How many jobs were changed, or would be.
    pub changed: u64,
    /// Those among them that run and were asked to end.
    pub asked: Vec<JobId>,
    /// How many stayed as they are, as their service or function was removed.
    pub removed: u64,
    /// After which job the next step begins; `None` when all were seen.
    pub next: Option<JobId>,
}

const REMOVE: &str = "DELETE FROM asyncq_job
    WHERE id = ?1 AND state = ?2 AND COALESCE(finished_at, 0) = COALESCE(?3, 0)";
const IS_CALLABLE: &str = "AND EXISTS (SELECT 1 FROM asyncq_function f
    WHERE f.service = asyncq_job.service AND f.name = asyncq_job.function)";

/// A job that matches.
struct Found {
    id: JobId,
    state: State,
    finished_at: Option<Timestamp>,
}

impl Store {
    /// Changes the next few jobs after `after`, or counts them.
    ///
    /// # Errors
    /// Whatever the database answers; what earlier steps did stays so.
    pub fn change_many(&mut self, many: &Many, after: JobId) -> Result<Step> {
        let (found, mut step) = self.read(|tx| look(tx, many, after))?;
        if found.is_empty() {
            return Ok(step);
        }
        if many.dry_run {
            step.changed = found.len() as u64;
            return Ok(step);
        }
        let (changed, asked) = self.write(|tx| {
            let (mut changed, mut asked) = (0, Vec::new());
            for job in &found {
                let done = change(tx, many.change, job)?;
                changed += done;
                if done > 0 && many.change == Change::Cancel && job.state == State::Processing {
                    asked.push(job.id);
                }
            }
            Ok((changed, asked))
        })?;
        Ok(Step { changed, asked, ..step })
    }
}

/// The next jobs to change, and what the step has come to without them.
fn look(tx: &mut dyn Tx, many: &Many, after: JobId) -> Result<(Vec<Found>, Step)> {
    let mut matching = Vec::new();
    let next = oldest(tx, &many.filter, after, &mut |row| {
        let is_part_of_another = row.bool(4)?;
        if many.change == Change::Remove || !is_part_of_another {
            let job = Found { id: JobId(row.i64(0)?), state: state(row.str(3)?)?, finished_at: row.time(5)? };
            matching.push((job, (row.lossy(1)?.unwrap_or_default(), row.lossy(2)?.unwrap_or_default())));
        }
        Ok(())
    })?;
    let mut step = Step { next, ..Step::default() };
    let must_be_callable = matches!(many.change, Change::Retry | Change::Start);
    let (mut found, mut callable) = (Vec::with_capacity(matching.len()), HashMap::new());
    for (job, name) in matching {
        if must_be_callable && !callable.contains_key(&name) {
            let answer = is_callable(tx, &name.0, &name.1)?;
            callable.insert(name.clone(), answer);
        }
        if callable.get(&name) == Some(&false) {
            step.removed += 1;
        } else {
            found.push(job);
        }
    }
    Ok((found, step))
}

fn is_callable(tx: &mut dyn Tx, service: &str, function: &str) -> Result<bool> {
    let (Ok(service), Ok(function)) = (ServiceName::parse(service), FunctionName::parse(function)) else {
        return Ok(false);
    };
    match function::find(tx, &service, &function) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Changes a job unless it is no longer as it was found; gives how many it changed.
fn change(tx: &mut dyn Tx, change: Change, job: &Found) -> Result<u64> {
    let (id, was): (Value<'_>, Value<'_>) = (job.id.0.into(), job.state.as_str().into());
    let now = tx.now();
    match change {
        Change::Cancel if job.state == State::Processing => tx.execute(CANCELLING, &[id]),
        Change::Cancel => tx.execute(CANCEL, &[id, now.into(), was]),
        Change::Retry => tx.execute(&format!("{RETRY} {IS_CALLABLE}"), &[id, now.into(), was]),
        Change::Start => tx.execute(&format!("{START} {IS_CALLABLE}"), &[id, now.into()]),
        Change::Remove => tx.execute(REMOVE, &[id, was, job.finished_at.into()]),
    }
}
