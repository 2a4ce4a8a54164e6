//! Statements on a set of jobs.

use super::engine::Value;
use crate::domain::job::JobId;

/// The most jobs in one statement. A smaller set repeats its last job, so that there is one text for all sizes.
pub(super) const AT_ONCE: usize = 64;

/// A smaller set costs more than one statement for each of its jobs.
pub(super) const WORTH_A_SET: usize = 16;

/// Turns a statement about job `?1` into one about a set of jobs. The numbers of the other jobs come after its parameters.
pub(super) fn on_set(statement: &str, parameters: usize) -> String {
    let more: Vec<String> = (1..AT_ONCE).map(|number| format!("?{}", parameters + number)).collect();
    statement.replacen("id = ?1", &format!("id IN (?1, {})", more.join(", ")), 1)
}

/// The parameters of such a statement for one to [`AT_ONCE`] jobs. `rest` are those after the first one.
pub(super) fn values_of_set<'a>(jobs: &[JobId], rest: &[Value<'a>]) -> Vec<Value<'a>> {
    let more = jobs.iter().skip(1).chain(std::iter::repeat(&jobs[jobs.len() - 1])).take(AT_ONCE - 1);
    let mut values = Vec::with_capacity(rest.len() + AT_ONCE);
    values.push(jobs[0].0.into());
    values.extend(rest);
    values.extend(more.map(|job| Value::from(job.0)));
    values
}
