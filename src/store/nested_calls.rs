//! Records the calls that ran inside an attempt, in the same process, as the worker reports them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::columns::error_text;
use super::engine::{Tx, Value, one};
use super::insert::{LARGE, SMALL};
use super::set::{AT_ONCE, on_set, values_of_set};
use crate::domain::attempt::{Ending, Outcome};
use crate::domain::job::{Fence, JobId, State};
use crate::domain::nested::{MAX_NESTING, NestedCall, NestedCalls};
use crate::domain::{json::Json, retry::decide_once};
use crate::error::Result;

const AROUND: &str = "SELECT depth, principal, site, meta FROM asyncq_job WHERE id = ?1";
const FAILED: &str =
    "INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending, error)
    SELECT id, attempt, processor, started_at, finished_at, CASE WHEN conflicts > 0 THEN 'conflict' ELSE 'error' END, error
    FROM asyncq_job WHERE id = ?1";
static FAILED_SET: LazyLock<String> = LazyLock::new(|| on_set(FAILED, 1));
const UNRECORDED: &str =
    "INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending, unrecorded)
    SELECT id, ?2, processor, COALESCE(started_at, ?4), COALESCE(finished_at, ?4), 'completed', ?3
    FROM asyncq_job WHERE id = ?1 ON CONFLICT (job, number) DO UPDATE SET unrecorded = excluded.unrecorded";

/// The columns of a nested call that a worker reports: those with the same value for all, and its own.
const SHARED: &str = "principal, site, meta, processor, finished_at, immediate, attempt, claim";
const SHARED_VALUES: &str = "?1, ?2, ?3, ?4, ?5, 1, 1, 1";
const OWN: [&str; 14] = [
    "service",
    "function",
    "args",
    "kwargs",
    "state",
    "parent",
    "depth",
    "created_at",
    "run_at",
    "started_at",
    "failures",
    "conflicts",
    "error",
    "result",
];

/// Records the calls that ran inside an attempt, in the same process, together with the end of that attempt. Nobody knows when they
/// began, so each counts as if it had ended with the attempt. If a rule of the application refuses the job of a call, the call is
/// counted with those that are not recorded.
pub(super) fn record(tx: &mut dyn Tx, inside: &Fence, nested: &NestedCalls) -> Result<()> {
    let JobId(job) = inside.job;
    let around =
        one(tx.first(AROUND, &[job.into()], |row| Ok((row.i64(0)?, row.lossy(1)?, row.lossy(2)?, row.lossy(3)?)))?)?;
    let (depth, principal, site, meta) = &around;
    let (principal, site, meta) = (principal.as_ref().into(), site.as_ref().into(), meta.as_ref().into());
    let shared = [principal, site, meta, inside.processor.0.into(), tx.now().into()];
    let mut jobs: Vec<Option<i64>> = Vec::with_capacity(nested.calls.len());
    while let rest @ [_, ..] = &nested.calls[jobs.len()..] {
        // Their parents have numbers by now.
        let run = rest.iter().take_while(|call| call.parent.is_none_or(|parent| parent < jobs.len()));
        let rows: Vec<Option<NestedRow<'_>>> = run
            .map(|call| {
                let parent = call.parent.map_or(Some(job), |parent| jobs[parent]);
                let fits = depth + call.depth <= MAX_NESTING;
                parent.filter(|_| fits).map(|parent| NestedRow::new(call, parent, depth + call.depth))
            })
            .collect();
        let mut made = insert_run(tx, &shared, &rows.iter().flatten().collect::<Vec<_>>())?.into_iter();
        jobs.extend(rows.iter().map(|row| row.as_ref().and_then(|_| made.next().flatten())));
    }
    let failed = jobs.iter().zip(&nested.calls).filter(|(_, call)| call.outcome != Outcome::Completed);
    let failed: Vec<JobId> = failed.filter_map(|(job, _)| job.map(JobId)).collect();
    for some in failed.chunks(AT_ONCE) {
        tx.execute(&FAILED_SET, &values_of_set(some, &[]))?;
    }
    let lost = jobs.iter().filter(|job| job.is_none()).count() as u64;
    let unrecorded = nested.unrecorded.saturating_add(lost);
    if unrecorded > 0 {
        let unrecorded = i64::try_from(unrecorded).unwrap_or(i64::MAX);
        let args = [job.into(), inside.attempt.into(), unrecorded.into(), tx.now().into()];
        tx.execute(UNRECORDED, &args)?;
    }
    Ok(())
}

/// A nested call as a row.
struct NestedRow<'a> {
    call: &'a NestedCall,
    parent: i64,
    depth: i64,
    state: State,
    ending: Ending,
    error: Option<String>,
}

impl<'a> NestedRow<'a> {
    fn new(call: &'a NestedCall, parent: i64, depth: i64) -> NestedRow<'a> {
        let decision = decide_once(&call.outcome, 1);
        let error = decision.error.as_ref().map(error_text);
        NestedRow { call, parent, depth, state: decision.state, ending: decision.ending, error }
    }

    fn is_small(&self) -> bool {
        self.call.call.args.as_str().len() + self.call.call.kwargs.as_str().len() <= SMALL
    }

    fn values(&self, tx: &dyn Tx) -> [Value<'_>; OWN.len()] {
        let NestedCall { call, result, took, .. } = self.call;
        let (began, in_row) = (tx.now().before(*took).into(), self.is_small());
        [
            call.service.as_str().into(),
            call.function.as_str().into(),
            in_row.then_some(call.args.as_str()).into(),
            in_row.then_some(call.kwargs.as_str()).into(),
            self.state.as_str().into(),
            self.parent.into(),
            self.depth.into(),
            began,
            began,
            began,
            (self.ending == Ending::Error).into(),
            (self.ending == Ending::Conflict).into(),
            self.error.as_ref().into(),
            result.as_ref().map(Json::as_str).into(),
        ]
    }
}

/// Inserts nested calls. Returns the numbers of their jobs, without those that a rule of the application refuses.
fn insert_run(tx: &mut dyn Tx, shared: &[Value<'_>], rows: &[&NestedRow<'_>]) -> Result<Vec<Option<i64>>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(jobs) = insert(tx, shared, rows)? {
        return Ok(jobs.into_iter().map(Some).collect());
    }
    if rows.len() == 1 {
        return Ok(vec![None]);
    }
    // Inserting them one by one shows which of them are refused.
    let each = rows.iter().map(|row| Ok(insert(tx, shared, &[row])?.and_then(|jobs| jobs.first().copied())));
    each.collect()
}

/// Inserts nested calls by one statement. Returns the numbers of their jobs, or nothing if a rule of the application refuses one.
fn insert(tx: &mut dyn Tx, shared: &[Value<'_>], rows: &[&NestedRow<'_>]) -> Result<Option<Vec<i64>>> {
    let mut values = shared.to_vec();
    let mut sql = format!("INSERT INTO asyncq_job ({SHARED}, {}) VALUES ", OWN.join(", "));
    for (number, row) in rows.iter().enumerate() {
        sql += if number > 0 { ", (" } else { "(" };
        sql += SHARED_VALUES;
        for at in 1..=OWN.len() {
            // Writing to a string never fails.
            let _ = write!(sql, ", ?{}", values.len() + at);
        }
        sql.push(')');
        values.extend(row.values(tx));
    }
    let Ok(jobs) = tx.try_insert(&sql, &values)? else { return Ok(None) };
    for (job, row) in jobs.iter().zip(rows).filter(|(_, row)| !row.is_small()) {
        let NestedCall { call, .. } = row.call;
        tx.execute(LARGE, &[(*job).into(), call.args.as_str().into(), call.kwargs.as_str().into()])?;
    }
    Ok(Some(jobs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn the_job_around_a_call_and_the_calls_that_failed_are_found_by_number() {
        for sql in [AROUND, FAILED, &FAILED_SET, UNRECORDED] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
    }
}
