//! Statements on a set of jobs.

use super::engine::{Tx, Value};
use crate::domain::job::JobId;
use crate::error::Result;

/// The largest set of one statement. Smaller sets repeat their last job, so that there is one text whatever their size.
pub(super) const AT_ONCE: usize = 64;

/// A smaller set costs more than one statement for each of its jobs.
pub(super) const WORTH_A_SET: usize = 16;

/// A statement about job `?1` as one about a set of jobs, whose other numbers come after its parameters.
pub(super) fn on_set(statement: &str, parameters: usize) -> String {
    let more: Vec<String> = (1..AT_ONCE).map(|number| format!("?{}", parameters + number)).collect();
    statement.replacen("id = ?1", &format!("id IN (?1, {})", more.join(", ")), 1)
}

/// Runs such a statement on at most [`AT_ONCE`] jobs; `rest` are its parameters but the first.
pub(super) fn run_on_set(tx: &mut dyn Tx, sql: &str, jobs: &[JobId], rest: &[Value<'_>]) -> Result<Result<u64>> {
    let (Some(first), Some(last)) = (jobs.first(), jobs.last()) else { return Ok(Ok(0)) };
    let more = jobs.iter().skip(1).chain(std::iter::repeat(last)).take(AT_ONCE - 1);
    let mut args: Vec<Value<'_>> = Vec::with_capacity(rest.len() + AT_ONCE);
    args.push(first.0.into());
    args.extend(rest);
    args.extend(more.map(|job| Value::from(job.0)));
    tx.try_execute(sql, &args)
}
