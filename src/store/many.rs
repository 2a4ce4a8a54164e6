//! Changes of many jobs at once, in steps that keep nobody waiting for long.

use std::collections::{BTreeSet, HashMap};

use super::Store;
use super::edit::edit;
use super::engine::{Reference, Tx, Value};
use super::job::{CANCEL, CANCELLING, RETRY, START, cancelled_by};
use super::needs;
use super::select::{Match, oldest};
use super::set::{AT_ONCE, WORTH_A_SET, on_set, values_of_set};
use crate::domain::job::{JobId, State};
use crate::domain::query::{BulkChange, JobChange, Refusal};
use crate::domain::time::Timestamp;
use crate::error::{Kind, Result};

/// What one step did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// How many jobs were changed, or would be.
    pub changed: u64,
    /// Those that are running and were asked to end.
    pub asked: Vec<JobId>,
    /// How many stayed unchanged because their service or function was removed.
    pub removed: u64,
    /// Those that a rule of the application kept from changing.
    pub refused: Option<Refusal>,
    /// The job after which the next step begins; `None` when all were seen.
    pub next: Option<JobId>,
}

const REMOVE: &str = "DELETE FROM asyncq_job WHERE id = ?1 AND state = ?2";
/// Calls that need it may not know yet how it ended.
const IS_SETTLED: &str = "AND NOT EXISTS (SELECT 1 FROM asyncq_settle WHERE asyncq_settle.job = asyncq_job.id)";
const STILL: &str = "SELECT 1 FROM asyncq_job WHERE id = ?1 AND state = ?2";
/// If a job has ended once more since then, its time is later.
const ENDED_BY_THEN: &str = "AND COALESCE(finished_at, 0) <= CAST(?3 AS BIGINT)";
const FUNCTION: &str = "SELECT 1 FROM asyncq_function WHERE service = ?1 AND name = ?2";
const IS_CALLABLE: &str = "AND EXISTS (SELECT 1 FROM asyncq_function f
    WHERE f.service = asyncq_job.service AND f.name = asyncq_job.function /*! FOR KEY SHARE */)";

impl Store {
    /// Changes the next few jobs after `after`, or counts them.
    pub fn change_many(&mut self, many: &BulkChange, after: JobId) -> Result<Step> {
        let (found, mut step) = self.read(|tx| look(tx, many, after))?;
        if found.is_empty() {
            return Ok(step);
        }
        if many.dry_run {
            step.changed = found.len() as u64;
            return Ok(step);
        }
        let why = cancelled_by(&(self.user)());
        self.write(|tx| {
            (step.changed, step.asked, step.refused) = (0, Vec::new(), None);
            if many.change == JobChange::Remove {
                needs::settle(tx)?;
            }
            let references = if many.change == JobChange::Remove { holding(tx)? } else { Vec::new() };
            let states: BTreeSet<State> = found.iter().map(|job| job.state).collect();
            for state in states {
                let jobs: Vec<&Match> = found.iter().filter(|job| job.state == state).collect();
                Changes::new(&many.change, state, &references, &why).make(tx, &jobs, &mut step)?;
                if many.change == JobChange::Retry {
                    needs::revive_all(tx, &jobs.iter().map(|job| job.id).collect::<Vec<_>>())?;
                }
            }
            if many.change == JobChange::Remove { Ok(()) } else { needs::settle(tx).map(drop) }
        })?;
        Ok(step)
    }
}

/// The next jobs to change, and a step without them.
fn look(tx: &mut dyn Tx, many: &BulkChange, after: JobId) -> Result<(Vec<Match>, Step)> {
    let (mut found, next) = oldest(tx, &many.filter, after)?;
    let is_before = |id: JobId| many.before.is_none_or(|before| id < before);
    found.retain(|job| is_before(job.id) && (many.change == JobChange::Remove || !job.immediate));
    let mut step = Step { next: next.filter(|next| is_before(*next)), ..Step::default() };
    if matches!(many.change, JobChange::Retry | JobChange::Start) {
        let (all, mut callable) = (found.len(), HashMap::new());
        for job in &found {
            if !callable.contains_key(&job.name) {
                let is_callable = tx.has(FUNCTION, &[(&job.name.0).into(), (&job.name.1).into()])?;
                callable.insert(job.name.clone(), is_callable);
            }
        }
        found.retain(|job| callable[&job.name]);
        step.removed = (all - found.len()) as u64;
    }
    Ok((found, step))
}

/// Removes these jobs, except for those that have changed since they were found, and those that a rule of the application protects.
pub(super) fn remove(tx: &mut dyn Tx, found: &[Match]) -> Result<Step> {
    needs::settle(tx)?;
    let (references, mut step) = (holding(tx)?, Step::default());
    let states: BTreeSet<State> = found.iter().map(|job| job.state).collect();
    for state in states {
        let jobs: Vec<&Match> = found.iter().filter(|job| job.state == state).collect();
        Changes::new(&JobChange::Remove, state, &references, "").make(tx, &jobs, &mut step)?;
    }
    Ok(step)
}

/// The application's foreign keys that prevent jobs from being removed.
fn holding(tx: &mut dyn Tx) -> Result<Vec<Reference>> {
    let mut references = tx.references()?;
    references.retain(|it| !it.follows && it.to.eq_ignore_ascii_case("asyncq_job"));
    Ok(references)
}

/// Changes of jobs that were found in one state.
struct Changes<'a> {
    change: &'a JobChange,
    was: State,
    references: &'a [Reference],
    /// The error of jobs that are cancelled.
    why: &'a str,
    /// Changes job `?1`, unless it has changed since it was found. It removes no job that a table of the application refers to,
    /// because a foreign key may complain only at the commit.
    sql: String,
}

impl Changes<'_> {
    fn new<'a>(change: &'a JobChange, was: State, references: &'a [Reference], why: &'a str) -> Changes<'a> {
        let sql = match change {
            JobChange::Cancel if was == State::Processing => CANCELLING.to_owned(),
            JobChange::Cancel => CANCEL.to_owned(),
            JobChange::Retry => format!("{RETRY} {IS_CALLABLE}"),
            JobChange::Start => format!("{START} {IS_CALLABLE}"),
            JobChange::Remove => {
                let kept: Vec<String> = references.iter().map(|it| format!(" AND NOT {}", it.condition())).collect();
                format!("{REMOVE} {ENDED_BY_THEN} {IS_SETTLED}{}", kept.concat())
            }
            // What it sets depends on the job.
            JobChange::Set(_) => String::new(),
        };
        Changes { change, was, references, why, sql }
    }

    /// The parameters of the statement after the first one.
    fn rest(&self, tx: &dyn Tx, job: &Match) -> Vec<Value<'_>> {
        let (was, now) = (self.was.into(), tx.now().into());
        match self.change {
            JobChange::Cancel if self.was == State::Processing => vec![self.why.into()],
            JobChange::Cancel => vec![now, was, self.why.into()],
            JobChange::Retry => vec![now, was],
            JobChange::Start => vec![now],
            JobChange::Remove => vec![was, ended(job)],
            JobChange::Set(_) => Vec::new(),
        }
    }

    /// Changes these jobs, in sets unless a rule of the application refuses one of them, and notes in `step` what happened.
    fn make(&self, tx: &mut dyn Tx, jobs: &[&Match], step: &mut Step) -> Result<()> {
        let asks = *self.change == JobChange::Cancel && self.was == State::Processing;
        // A trigger of the application may change another job of a set that the statement has already found.
        let by_sets = !asks && !self.sql.is_empty() && !tx.has_foreign_trigger()?;
        let mut on_set_sql = None;
        for some in jobs.chunks(AT_ONCE) {
            if by_sets && some.len() >= WORTH_A_SET {
                let ids: Vec<JobId> = some.iter().map(|job| job.id).collect();
                let Some(newest) = some.iter().max_by_key(|job| job.finished_at) else { continue };
                let rest = self.rest(tx, newest);
                let sql = on_set_sql.get_or_insert_with(|| on_set(&self.sql, 1 + rest.len()));
                if let Ok(count) = tx.try_execute(sql, &values_of_set(&ids, &rest))? {
                    step.changed += count;
                    // Those that have not changed since then were passed over.
                    for job in some.iter().filter(|_| count < some.len() as u64) {
                        self.add_refusal(tx, job, step)?;
                    }
                    continue;
                }
            }
            for job in some {
                match self.change_one(tx, job)? {
                    Ok(0) => self.add_refusal(tx, job, step)?,
                    Ok(_) => {
                        step.changed += 1;
                        step.asked.extend(asks.then_some(job.id));
                    }
                    Err(why) => step.refuse(job.id, why.to_string()),
                }
            }
        }
        Ok(())
    }

    fn change_one(&self, tx: &mut dyn Tx, job: &Match) -> Result<Result<u64>> {
        if let JobChange::Set(changes) = self.change {
            return edit(tx, job.id, changes);
        }
        let args = [vec![job.id.into()], self.rest(tx, job)].concat();
        tx.try_execute(&self.sql, &args)
    }

    /// Adds a job to the refused ones if a rule of the application kept it from changing, and not if the job has changed meanwhile.
    fn add_refusal(&self, tx: &mut dyn Tx, job: &Match, step: &mut Step) -> Result<()> {
        let args: [Value<'_>; 3] = [job.id.into(), self.was.into(), ended(job)];
        let (still, count) = still(self.change);
        if !tx.has(&still, &args[..count])? {
            return Ok(());
        }
        for reference in self.references {
            let is_referred_to = format!("SELECT 1 FROM asyncq_job WHERE id = ?1 AND {}", reference.condition());
            if tx.has(&is_referred_to, &args[..1])? {
                step.refuse(job.id, format!("table `{}` refers to job {}", reference.table, job.id));
                return Ok(());
            }
        }
        let error = tx.passed_over();
        if error.kind() != Kind::Denied {
            return Err(error);
        }
        step.refuse(job.id, error.to_string());
        Ok(())
    }
}

impl Step {
    fn refuse(&mut self, job: JobId, why: String) {
        Refusal::add(&mut self.refused, Refusal { jobs: 1, first: job, why });
    }
}

fn ended(job: &Match) -> Value<'static> {
    job.finished_at.unwrap_or(Timestamp(0)).into()
}

/// The statement that finds a job if it can still be changed as it was found, and how many values it takes.
fn still(change: &JobChange) -> (String, usize) {
    match change {
        JobChange::Cancel | JobChange::Set(_) => (STILL.to_owned(), 2),
        JobChange::Retry | JobChange::Start => (format!("{STILL} {IS_CALLABLE}"), 2),
        JobChange::Remove => (format!("{STILL} {ENDED_BY_THEN} {IS_SETTLED}"), 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn jobs_are_changed_by_number_and_looked_up_by_number_where_they_did_not_change() {
        for change in [JobChange::Cancel, JobChange::Retry, JobChange::Start, JobChange::Remove] {
            let Changes { sql, .. } = Changes::new(&change, State::Error, &[], "");
            for sql in [on_set(&sql, 3), sql, still(&change).0] {
                let plan = plan(&sql);
                assert!(plan[0].starts_with("SEARCH asyncq_job ") && plan[0].ends_with("rowid=?)"), "{plan:?}");
                assert!(!plan.iter().any(|step| step.starts_with("SCAN f")), "{plan:?}");
            }
        }
    }
}
