//! Jobs and schedules of a service or a function that is about to be removed.

use super::columns::error_text;
use super::engine::{Tx, Value};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::job::{JobId, State};
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::{function::FunctionName, service::ServiceName};
use crate::error::{Error, Kind, Result};

const REMOVE_OF: &str = "DELETE FROM asyncq_schedule WHERE service = ?1";
const OF_SERVICE: &str = "SELECT name FROM asyncq_schedule WHERE service = ?1 ORDER BY name";
const CALLS: &str = "SELECT name FROM asyncq_schedule WHERE service = ?1 AND function = ?2 ORDER BY name LIMIT 1";

/// Cancels what waits for a service, or for one function of it, that `by` removes; or refuses, because something waits.
pub(super) fn cancel_waiting(
    tx: &mut dyn Tx,
    service: &ServiceName,
    function: Option<&FunctionName>,
    (waiting, by): (IfWaiting, &str),
) -> Result<Removed> {
    let what = what(service, function);
    let names = names(service, function);
    let which = |state| which(state, function.is_some());
    let (waits, mut found) = find_waiting(tx, service, function, waiting)?;
    let (now, why) = (tx.now().into(), error_text(&Failure::new(FailureKind::Removed, format!("{by} removed {what}"))));
    for state in waits {
        let args = [&names[..], &[now, (&why).into()]].concat();
        tx.execute(&cancel(&which(state), names.len() + 1), &args)?;
    }
    found.sort_unstable();
    // Triggers of the application may skip jobs, or make calls, which would then wait forever.
    for state in waiting_states() {
        if let Some(job) = tx.first(&oldest(&which(state)), &names, |row| row.i64(0).map(JobId))? {
            return Err(if found.binary_search(&job).is_ok() { tx.passed_over() } else { got_a_call(&what) });
        }
    }
    let cancelled = found.len() as u64;
    found.truncate(10);
    Ok(Removed { cancelled, oldest: found })
}

/// How many calls wait for a function that is about to be removed. Refuses as [`cancel_waiting`] does.
pub(super) fn count_waiting(
    tx: &mut dyn Tx,
    service: &ServiceName,
    function: &FunctionName,
    waiting: IfWaiting,
) -> Result<u64> {
    Ok(find_waiting(tx, service, Some(function), waiting)?.1.len() as u64)
}

/// What waits for a service or for one function of it, and in which states that is.
///
/// # Errors
/// [`Kind::Busy`] when calls run, [`Kind::Denied`] when some wait and that is not to be.
fn find_waiting(
    tx: &mut dyn Tx,
    service: &ServiceName,
    function: Option<&FunctionName>,
    waiting: IfWaiting,
) -> Result<(Vec<State>, Vec<JobId>)> {
    let (what, names) = (what(service, function), names(service, function));
    let (mut found, mut waits) = (Vec::new(), Vec::new());
    for state in [State::Processing].into_iter().chain(waiting_states()) {
        let jobs = tx.rows::<JobId>(&all(&which(state, function.is_some())), &names)?;
        if state == State::Processing && !jobs.is_empty() {
            let message = format!("{what} has {}", count(jobs.len(), "running job"));
            let hint = format!("wait for job {0} to end, or `asyncq job cancel {0}`", jobs[0]);
            return Err(Error::new(Kind::Busy, message).with_hint(hint));
        }
        if !jobs.is_empty() {
            waits.push(state);
            found.extend(jobs);
        }
    }
    if !found.is_empty() && waiting == IfWaiting::Refuse {
        let message = format!("{what} has {}", count(found.len(), "waiting job"));
        return Err(Error::new(Kind::Denied, message).with_hint("`--force` removes it and cancels them"));
    }
    Ok((waits, found))
}

fn waiting_states() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|state| state.is_waiting())
}

fn what(service: &ServiceName, function: Option<&FunctionName>) -> String {
    match function {
        None => format!("service `{service}`"),
        Some(function) => format!("function `{function}` of service `{service}`"),
    }
}

fn names<'a>(service: &'a ServiceName, function: Option<&'a FunctionName>) -> Vec<Value<'a>> {
    std::iter::once(service.into()).chain(function.map(Into::into)).collect()
}

/// The jobs of service `?1`, or of its function `?2`, in this state, which stands in the text as its partial index has it.
fn which(state: State, of_function: bool) -> String {
    let index = match state {
        State::Blocked => " AND waits <> 0",
        State::Processing => " AND token IS NOT NULL",
        _ => "",
    };
    let of_function = if of_function { " AND function = ?2" } else { "" };
    format!("WHERE service = ?1 AND state = '{state}'{index}{of_function}")
}

fn all(which: &str) -> String {
    // The sign keeps the planner from a walk through all jobs in their order.
    format!("SELECT id FROM asyncq_job {which} ORDER BY +id /*! FOR NO KEY UPDATE */")
}

fn oldest(which: &str) -> String {
    format!("SELECT id FROM asyncq_job {which} ORDER BY +id LIMIT 1")
}

/// `time` is the number of the parameter for the time, and the next one is that for the error.
fn cancel(which: &str, time: usize) -> String {
    let error = time + 1;
    format!("UPDATE asyncq_job SET state = 'cancelled', waits = 0, finished_at = ?{time}, error = ?{error} {which}")
}

/// Refuses to remove a function that a schedule calls.
pub(super) fn refuse_called(tx: &mut dyn Tx, service: &ServiceName, function: &FunctionName) -> Result<()> {
    match tx.row::<String>(CALLS, &[service.into(), function.into()])? {
        None => Ok(()),
        Some(name) => Err(Error::new(Kind::Denied, format!("schedule `{name}` calls `{service} {function}`"))
            .with_hint(format!("`asyncq schedule remove {name}` first"))),
    }
}

/// Removes the schedules of a service, or refuses because it has some.
pub(super) fn remove_schedules(tx: &mut dyn Tx, service: &ServiceName, waiting: IfWaiting) -> Result<()> {
    let names: Vec<String> = tx.rows(OF_SERVICE, &[service.into()])?;
    if waiting == IfWaiting::Refuse
        && let Some(first) = names.first()
    {
        let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
        let what = if names.len() == 1 { "the schedule" } else { "the schedules" };
        return Err(Error::new(Kind::Denied, format!("service `{service}` has {what} `{first}`{more}"))
            .with_hint("`--force` removes the service with its schedules, and cancels its waiting jobs"));
    }
    tx.execute(REMOVE_OF, &[service.into()]).map(|_| ())
}

fn got_a_call(what: &str) -> Error {
    Error::new(Kind::Denied, format!("{what} got a new call while its jobs were cancelled"))
        .with_hint("a trigger of the application makes that call: change the trigger, or drop it")
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn what_waits_or_runs_is_found_by_an_index_of_few() {
        for (state, index) in [
            (State::Processing, "asyncq_job_token"),
            (State::Queued, "asyncq_job_queued"),
            (State::Delayed, "asyncq_job_delayed"),
            (State::Blocked, "asyncq_job_blocked"),
            (State::Held, "asyncq_job_stopped"),
        ] {
            for of_function in [false, true] {
                let which = which(state, of_function);
                for sql in [all(&which), oldest(&which), cancel(&which, 3)] {
                    let ways = ways_to_jobs(&sql);
                    assert!(ways.len() == 1 && ways[0].contains(&format!(" {index}")), "{sql}: {ways:?}");
                }
            }
        }
    }
}
