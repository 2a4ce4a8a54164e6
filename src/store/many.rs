//! What people do with many jobs at once, in steps that keep nobody waiting for long.

use std::collections::HashMap;

use super::engine::{Reference, Tx, Value};
use super::job::{CANCEL, CANCELLING, RETRY, START, state};
use super::select::oldest;
use super::{Store, function};
use crate::domain::function::FunctionName;
use crate::domain::job::{JobId, State};
use crate::domain::query::{BulkChange, JobChange, Refusal};
use crate::domain::service::ServiceName;
use crate::domain::time::Timestamp;
use crate::error::{Kind, Result};

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// How many jobs were changed, or would be.
    pub changed: u64,
    /// Those among them that run and were asked to end.
    pub asked: Vec<JobId>,
    /// How many stayed as they are, as their service or function was removed.
    pub removed: u64,
    /// Those that a rule of the application did not let change.
    pub refused: Option<Refusal>,
    /// After which job the next step begins; `None` when all were seen.
    pub next: Option<JobId>,
}

const REMOVE: &str = "DELETE FROM asyncq_job WHERE id = ?1 AND state = ?2";
const STILL: &str = "SELECT 1 FROM asyncq_job WHERE id = ?1 AND state = ?2";
const ENDED_THEN: &str = "AND COALESCE(finished_at, 0) = COALESCE(?3, 0)";
const IS_CALLABLE: &str = "AND EXISTS (SELECT 1 FROM asyncq_function f
    WHERE f.service = asyncq_job.service AND f.name = asyncq_job.function)";

/// A job that matches.
struct Match {
    id: JobId,
    state: State,
    finished_at: Option<Timestamp>,
}

impl Store {
    /// Changes the next few jobs after `after`, or counts them.
    ///
    /// # Errors
    /// Whatever the database answers; what earlier steps did stays so.
    pub fn change_many(&mut self, many: &BulkChange, after: JobId) -> Result<Step> {
        let (found, mut step) = self.read(|tx| look(tx, many, after))?;
        if found.is_empty() {
            return Ok(step);
        }
        if many.dry_run {
            step.changed = found.len() as u64;
            return Ok(step);
        }
        self.write(|tx| {
            (step.changed, step.asked, step.refused) = (0, Vec::new(), None);
            let references = if many.change == JobChange::Remove { holding(tx)? } else { Vec::new() };
            for job in &found {
                let done = match change(tx, many.change, job, &references)? {
                    Ok(done) => done,
                    Err(why) => {
                        Refusal::add(&mut step.refused, Refusal { jobs: 1, first: job.id, why });
                        continue;
                    }
                };
                step.changed += done;
                if done > 0 && many.change == JobChange::Cancel && job.state == State::Processing {
                    step.asked.push(job.id);
                }
            }
            Ok(())
        })?;
        Ok(step)
    }
}

/// The next jobs to change, and what the step has come to without them.
fn look(tx: &mut dyn Tx, many: &BulkChange, after: JobId) -> Result<(Vec<Match>, Step)> {
    let mut matching = Vec::new();
    let next = oldest(tx, &many.filter, after, &mut |row| {
        let is_part_of_another = row.bool(4)?;
        if many.change == JobChange::Remove || !is_part_of_another {
            let job = Match { id: JobId(row.i64(0)?), state: state(row.str(3)?)?, finished_at: row.time(5)? };
            matching.push((job, (row.lossy(1)?.unwrap_or_default(), row.lossy(2)?.unwrap_or_default())));
        }
        Ok(())
    })?;
    let mut step = Step { next, ..Step::default() };
    let must_be_callable = matches!(many.change, JobChange::Retry | JobChange::Start);
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

/// The application's foreign keys that keep jobs from being removed.
fn holding(tx: &mut dyn Tx) -> Result<Vec<Reference>> {
    let mut references = tx.references()?;
    references.retain(|it| !it.follows && it.to.eq_ignore_ascii_case("asyncq_job"));
    Ok(references)
}

/// Removes a job unless it is no longer as it was found, or somebody refers to it: a foreign key may complain of that only
/// when everything is done.
fn remove(tx: &mut dyn Tx, job: &Match, references: &[Reference]) -> Result<Result<u64>> {
    let mut sql = format!("{REMOVE} {ENDED_THEN}");
    for reference in references {
        sql += " AND NOT ";
        sql += &reference.condition();
    }
    tx.try_execute(&sql, &[job.id.0.into(), job.state.as_str().into(), job.finished_at.into()])
}

/// Changes a job unless it is no longer as it was found; gives how many it changed, or which rule refuses that.
fn change(tx: &mut dyn Tx, change: JobChange, job: &Match, references: &[Reference]) -> Result<Result<u64, String>> {
    let (id, was): (Value<'_>, Value<'_>) = (job.id.0.into(), job.state.as_str().into());
    let now = tx.now();
    let done = match change {
        JobChange::Cancel if job.state == State::Processing => tx.try_execute(CANCELLING, &[id]),
        JobChange::Cancel => tx.try_execute(CANCEL, &[id, now.into(), was]),
        JobChange::Retry => tx.try_execute(&format!("{RETRY} {IS_CALLABLE}"), &[id, now.into(), was]),
        JobChange::Start => tx.try_execute(&format!("{START} {IS_CALLABLE}"), &[id, now.into()]),
        JobChange::Remove => remove(tx, job, references),
    };
    match done? {
        Ok(0) => why_not(tx, change, job, references),
        done => Ok(done.map_err(|error| error.to_string())),
    }
}

/// What kept a job from changing: a rule of the application, or nothing that is to be told, as it changed before.
fn why_not(tx: &mut dyn Tx, change: JobChange, job: &Match, references: &[Reference]) -> Result<Result<u64, String>> {
    let args: [Value<'_>; 3] = [job.id.0.into(), job.state.as_str().into(), job.finished_at.into()];
    let (still, count) = still(change);
    if tx.first(&still, &args[..count], |_| Ok(()))?.is_none() {
        return Ok(Ok(0));
    }
    for reference in references {
        let is_referred_to = format!("SELECT 1 FROM asyncq_job WHERE id = ?1 AND {}", reference.condition());
        if tx.first(&is_referred_to, &args[..1], |_| Ok(()))?.is_some() {
            return Ok(Err(format!("table `{}` refers to job {}", reference.table, job.id)));
        }
    }
    let error = tx.passed_over();
    if error.kind() == Kind::Denied { Ok(Err(error.to_string())) } else { Err(error) }
}

/// The statement that finds a job if it can still be changed as it was found, and how many values it takes.
fn still(change: JobChange) -> (String, usize) {
    match change {
        JobChange::Cancel => (STILL.to_owned(), 2),
        JobChange::Retry | JobChange::Start => (format!("{STILL} {IS_CALLABLE}"), 2),
        JobChange::Remove => (format!("{STILL} {ENDED_THEN}"), 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::in_a_new_store;

    #[test]
    fn whether_a_job_is_as_it_was_found_is_looked_up_by_its_number() {
        in_a_new_store(&mut |tx| {
            for change in [JobChange::Cancel, JobChange::Retry, JobChange::Start, JobChange::Remove] {
                let (sql, count) = still(change);
                let args = [7.into(), "error".into(), 8.into()];
                let sql = format!("EXPLAIN QUERY PLAN {sql}");
                let plan = tx.all(&sql, &args[..count], |row| Ok(row.str(3)?.to_owned()))?;
                let (job, rest) = plan.split_first().unwrap();
                assert_eq!(job, "SEARCH asyncq_job USING INTEGER PRIMARY KEY (rowid=?)");
                assert!(!rest.iter().any(|step| step.starts_with("SCAN f")), "{rest:?}");
            }
            Ok(())
        });
    }
}
