//! Recording how attempts end.

use std::sync::LazyLock;

use super::columns::error_text;
use super::engine::{Tx, Value};
use super::set::{AT_ONCE, WORTH_A_SET, on_set, values_of_set};
use super::{follow_up, hook_call, needs, nested_calls, used};
use crate::domain::attempt::{Ending, Failure, FailureKind};
use crate::domain::hook::{EndHooks, HookKind};
use crate::domain::job::{Fence, Finish, JobId, State};
use crate::domain::log::{Log, Stream};
use crate::domain::retry::{Decision, POSTPONED, not_by_itself, refused};
use crate::domain::time::{Timestamp, millis};
use crate::domain::{json::Json, processor::ProcessorId};
use crate::error::Result;

/// The condition that a fence holds, with its parts as the first four parameters. Claims of this build differ by their numbers;
/// those of an older build, which does not count claims, by their attempts.
macro_rules! fenced {
    () => {
        " AND attempt = ?2 AND processor = ?3 AND claim = ?4 AND state = "
    };
}
pub(super) use fenced;
/// Two forms: one job, and all jobs up to another one. A statement for a single job is cheaper.
macro_rules! complete {
    ($which:literal) => {
        concat!(
            "UPDATE asyncq_job SET state = 'completed', started_at = ?5, finished_at = ?6, result = ?7, token = NULL,
            cancelling = 0, error = NULL WHERE ",
            $which,
            fenced!(),
            "'processing'"
        )
    };
}
const COMPLETE: &str = complete!("id = ?1");
const COMPLETE_RUN: &str = complete!("id >= ?1 AND id <= ?8");
static COMPLETE_SET: LazyLock<String> = LazyLock::new(|| on_set(COMPLETE, 7));
const JUST_COMPLETED: &str = concat!(
    "SELECT id FROM asyncq_job WHERE id = ?1",
    fenced!(),
    "'completed' AND token IS NULL AND finished_at = ?5 ORDER BY id"
);
static JUST_COMPLETED_SET: LazyLock<String> = LazyLock::new(|| on_set(JUST_COMPLETED, 5));
const END: &str = concat!(
    "UPDATE asyncq_job SET state = ?7, started_at = ?5, finished_at = ?6,
    error = CASE WHEN cancelling = 1 AND ?7 = 'cancelled' THEN COALESCE(error, ?8) ELSE ?8 END, failures = failures + ?9,
    conflicts = conflicts + ?10, crashes = crashes + ?11, token = NULL, cancelling = 0 WHERE id = ?1",
    fenced!(),
    "'processing'"
);
const AGAIN: &str = concat!(
    "UPDATE asyncq_job SET state = ?6, started_at = ?5, run_at = COALESCE(?7, run_at), failures = failures + ?8,
    conflicts = conflicts + ?9, crashes = crashes + ?10, token = NULL WHERE id = ?1",
    fenced!(),
    "'processing' AND cancelling = 0"
);
const COMPLETED_ITSELF: &str = concat!(
    "UPDATE asyncq_job SET result = ?5, started_at = finished_at - ?6, token = NULL, cancelling = 0,
    error = NULL WHERE id = ?1",
    fenced!(),
    "'completed' AND token IS NOT NULL"
);
const GIVE_BACK: &str = concat!(
    "UPDATE asyncq_job SET state = CASE WHEN cancelling = 1 THEN 'cancelled' ELSE 'queued' END,
    finished_at = CASE WHEN cancelling = 1 THEN CAST(?5 AS BIGINT) END, started_at = NULL, attempt = attempt - 1, token = NULL,
    cancelling = 0 WHERE id = ?1",
    fenced!(),
    "'processing'"
);
const POSTPONE: &str = concat!(
    "UPDATE asyncq_job SET state = 'delayed', run_at = ?5, started_at = NULL, attempt = attempt - 1, token = NULL
    WHERE cancelling = 0 AND id = ?1",
    fenced!(),
    "'processing'"
);
const ATTEMPT: &str = "INSERT INTO asyncq_attempt
    (job, number, processor, started_at, finished_at, ending, error, dropped, gap, pieces, log)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (job, number) DO NOTHING";
/// Whether some jobs may have made calls, and whether others may need one of them.
const RELATED: &str = "SELECT (SELECT 1 FROM asyncq_job WHERE parent >= ?1 AND parent <= ?2 LIMIT 1),
    CASE WHEN ?3 THEN (SELECT 1 FROM asyncq_after WHERE needs >= ?1 AND needs <= ?2 LIMIT 1) END";
const END_CHILDREN: &str = "UPDATE asyncq_job SET state = 'error', finished_at = ?2, error = ?3, token = NULL
    WHERE parent = ?1 AND immediate = 1 AND state = 'processing' RETURNING id";

/// Records the ends of attempts. Returns for each the state of its job now, or `None` if the job no longer belonged to it.
pub(super) fn finish_all(tx: &mut dyn Tx, ends: &[&Finish]) -> Result<Vec<Option<State>>> {
    let mut states = vec![None; ends.len()];
    let mut order: Vec<usize> = (0..ends.len()).collect();
    // First what is recorded together, then by job.
    order.sort_by_key(|index| (shared(ends[*index]), ends[*index].fence.job));
    for run in order.chunk_by(|one, other| is_silent(ends[*one]) && shared(ends[*one]) == shared(ends[*other])) {
        let jobs: Vec<JobId> = run.iter().map(|index| ends[*index].fence.job).collect();
        let done = complete_all(tx, ends[run[0]], &jobs)?;
        for index in run {
            let is_done = done.binary_search(&ends[*index].fence.job).is_ok();
            states[*index] = if is_done { Some(State::Completed) } else { finish(tx, ends[*index])? };
        }
    }
    let ended = || ends.iter().zip(&states).filter(|(_, state)| state.is_some()).map(|(end, _)| end.fence.job);
    // Hardly any call has made others, or is needed by others. So it first asks once whether any of these may be such a call.
    let (mut have_children, mut are_needed) = (false, false);
    if let (Some(least), Some(most)) = (ended().map(|job| job.0).min(), ended().map(|job| job.0).max()) {
        let related: Option<(Option<i64>, Option<i64>)> =
            tx.row(RELATED, &[least.into(), most.into(), (tx.used() & used::NEEDS != 0).into()])?;
        (have_children, are_needed) =
            related.map_or((false, false), |(child, needed)| (child.is_some(), needed.is_some()));
    }
    if have_children {
        for job in ended() {
            end_children(tx, job)?;
        }
    }
    for (end, _) in ends.iter().zip(&states).filter(|(_, state)| state.is_some()) {
        if let Some(calls) = &end.nested {
            nested_calls::record(tx, &end.fence, calls)?;
        }
    }
    for (end, _) in ends.iter().zip(&states).filter(|(end, state)| state.is_some() && end.fence.tied) {
        follow_up::tie(tx, end.fence.job)?;
    }
    if are_needed {
        let ends = ends.iter().zip(&states).filter_map(|(end, state)| Some((end.fence.job, (*state)?)));
        let (completed, others): (Vec<_>, Vec<_>) = ends.partition(|(_, state)| *state == State::Completed);
        let numbers = |ends: Vec<(JobId, State)>| ends.into_iter().map(|(job, _)| job).collect::<Vec<_>>();
        needs::note_completed(tx, numbers(completed))?;
        needs::note_ended(tx, &numbers(others))?;
    }
    for (end, state) in ends.iter().zip(&states) {
        if let Some(state) = state {
            hook_call::call(tx, end.fence.job, &end.hooks, *state)?;
        }
    }
    Ok(states)
}

/// Whether there is nothing to record about an end except that the attempt succeeded.
fn is_silent(end: &Finish) -> bool {
    let Decision { state, error, ending, by_itself, pause: _, retry: _ } = &end.decision;
    let succeeded = *state == State::Completed && *ending == Ending::Completed && error.is_none() && !by_itself;
    let is_plain = end.result.is_none() && end.log.is_empty() && end.nested.is_none();
    succeeded && is_plain && end.hooks.has_none(HookKind::OnSuccess)
}

/// What ends must have in common, apart from their jobs, to be recorded together.
fn shared(end: &Finish) -> (bool, i64, i64, ProcessorId, i64) {
    let Fence { attempt, claim, processor, .. } = end.fence;
    (is_silent(end), attempt, claim, processor, millis(end.took))
}

/// Records successful ends that are [`shared`], if that takes fewer statements than one for each. Returns, in order, those whose
/// jobs still belonged to them.
fn complete_all(tx: &mut dyn Tx, end: &Finish, jobs: &[JobId]) -> Result<Vec<JobId>> {
    let (JobId(least), JobId(most)) = (jobs[0], jobs[jobs.len() - 1]);
    let is_run = most - least + 1 == i64::try_from(jobs.len()).unwrap_or(i64::MAX);
    if jobs.len() < if is_run { 2 } else { WORTH_A_SET } {
        return Ok(Vec::new());
    }
    let ([_, attempt, processor, claim], now) = (fence(&end.fence), tx.now());
    let rest = [attempt, processor, claim, now.before(end.took).into(), now.into(), Value::Null];
    let mut count = 0;
    if is_run {
        match tx.try_execute(COMPLETE_RUN, &[&[least.into()], &rest[..], &[most.into()]].concat())? {
            Ok(done) => count += done,
            // Recording them one by one shows which one was refused.
            Err(_) => return Ok(Vec::new()),
        }
    } else {
        for some in jobs.chunks(AT_ONCE) {
            // If a rule of the application refuses a set, its ends are recorded one by one.
            count += tx.try_execute(&COMPLETE_SET, &values_of_set(some, &rest))?.unwrap_or(0);
        }
    }
    if count == jobs.len() as u64 {
        return Ok(jobs.to_vec());
    }
    let mut done = Vec::with_capacity(jobs.len());
    for some in jobs.chunks(AT_ONCE) {
        let args = values_of_set(some, &[attempt, processor, claim, now.into()]);
        done.extend(tx.rows::<JobId>(&JUST_COMPLETED_SET, &args)?);
    }
    Ok(done)
}

/// Records the end of an attempt, unless the job no longer belongs to it. Returns the job's state then.
fn finish(tx: &mut dyn Tx, end: &Finish) -> Result<Option<State>> {
    let started_at = tx.now().before(end.took);
    let decision = &end.decision;
    let settled = if decision.by_itself {
        if completed_itself(tx, end)? {
            Some((State::Completed, Ending::Completed, None))
        } else {
            settle(tx, end, &not_by_itself(), started_at)?
        }
    } else {
        match settle(tx, end, decision, started_at)? {
            Some(settled) => Some(settled),
            None if completed_itself(tx, end)? => Some((State::Completed, Ending::Completed, decision.error.clone())),
            None => None,
        }
    };
    let Some((state, ending, error)) = settled else { return Ok(None) };
    if error.is_some() || ending != Ending::Completed || !end.log.is_empty() {
        record(tx, end, &(ending, error), started_at)?;
    }
    Ok(Some(state))
}

/// Adds what only the processor knows to a job that its function has completed. Returns whether the function had completed it. The
/// function decides when it ended; how long it took is measured.
fn completed_itself(tx: &mut dyn Tx, end: &Finish) -> Result<bool> {
    let result = end.result.as_ref().map(Json::as_str);
    let args = [&fence(&end.fence)[..], &[result.into(), millis(end.took).into()]].concat();
    Ok(tx.execute(COMPLETED_ITSELF, &args)? > 0)
}

pub(super) fn fence(fence: &Fence) -> [Value<'static>; 4] {
    [fence.job.into(), fence.attempt.into(), fence.processor.into(), fence.claim.into()]
}

/// What a job and its attempt have come to.
type Settled = (State, Ending, Option<Failure>);

/// Puts the job into the state of the decision; if a rule of the application refuses that state, into an error. Returns `None` if
/// the fence does not hold.
fn settle(tx: &mut dyn Tx, end: &Finish, decision: &Decision, started_at: Timestamp) -> Result<Option<Settled>> {
    let settled = |state, decision: &Decision| (state, decision.ending, decision.error.clone());
    match try_settle(tx, end, decision, started_at)? {
        Ok(state) => Ok(state.map(|state| settled(state, decision))),
        Err(refusal) => {
            let decision = refused(refusal.to_string());
            let state = try_settle(tx, end, &decision, started_at)??;
            Ok(state.map(|state| settled(state, &decision)))
        }
    }
}

/// Puts the job into the state of the decision, unless a rule of the application refuses that.
fn try_settle(
    tx: &mut dyn Tx,
    end: &Finish,
    decision: &Decision,
    started_at: Timestamp,
) -> Result<Result<Option<State>>> {
    let (fence, began, now) = (fence(&end.fence), started_at.into(), tx.now());
    let count = |ending| Value::from(decision.ending == ending);
    let [failed, met, crashed] = [Ending::Error, Ending::Conflict, Ending::Crash].map(count);
    if decision.state == State::Completed {
        let result = end.result.as_ref().map(Json::as_str);
        let [job, attempt, processor, claim] = fence;
        let args = [job, attempt, processor, claim, began, now.into(), result.into()];
        return Ok(tx.try_execute(COMPLETE, &args)?.map(|count| (count == 1).then_some(State::Completed)));
    }
    let mut state = decision.state;
    if state.is_waiting() {
        let due = decision.pause.map(|pause| now.after(pause));
        let args = [&fence[..], &[began, state.into(), due.into(), failed, met, crashed]].concat();
        match tx.try_execute(AGAIN, &args)? {
            Ok(0) => {}
            done => return Ok(done.map(|_| Some(state))),
        }
        // Either somebody has cancelled the job meanwhile, or it does not belong to this attempt. The next statement shows which.
        state = State::Cancelled;
    }
    let error = decision.error.as_ref().map(error_text);
    let end = [began, now.into(), state.into(), error.as_ref().into(), failed, met, crashed];
    Ok(tx.try_execute(END, &[&fence[..], &end].concat())?.map(|count| (count == 1).then_some(state)))
}

/// Records an attempt, unless it succeeded without anything to tell.
fn record(
    tx: &mut dyn Tx,
    end: &Finish,
    (ending, error): &(Ending, Option<Failure>),
    started_at: Timestamp,
) -> Result<()> {
    let log = &end.log;
    let (error, pieces) = (error.as_ref().map(error_text), pieces(log));
    let dropped = i64::try_from(log.dropped).unwrap_or(i64::MAX);
    let bytes = (!log.bytes.is_empty()).then_some(log.bytes.as_slice());
    let attempt = [started_at.into(), tx.now().into(), ending.as_str().into(), error.as_ref().into()];
    let output = [dropped.into(), log.gap.into(), pieces.as_ref().into(), bytes.into()];
    tx.execute(ATTEMPT, &[&fence(&end.fence)[..3], &attempt, &output].concat()).map(|_| ())
}

/// Puts back a call that was claimed and never began, so that the next claim gets the same attempt number. Returns whether it went
/// back. If a rule of the application refuses that, it ends in an error.
pub(super) fn give_back(tx: &mut dyn Tx, fence: &Fence) -> Result<bool> {
    let (job, fence, now, none) = (fence.job, self::fence(fence), tx.now().into(), 0_i64.into());
    let Err(refusal) = tx.try_execute(GIVE_BACK, &[&fence[..], &[now]].concat())? else { return Ok(true) };
    let error = error_text(&Failure::new(FailureKind::Refused, refusal.to_string()));
    let end = [now, now, State::Error.into(), (&error).into(), none, none, none];
    if tx.execute(END, &[&fence[..], &end].concat())? == 1 {
        hook_call::call(tx, job, &EndHooks::Unknown, State::Error)?;
    }
    Ok(false)
}

/// Puts back a call in the same way, to run after a pause. If it is cancelled, or if a rule of the application refuses the pause,
/// it goes back at once.
pub(super) fn postpone(tx: &mut dyn Tx, fence: &Fence) -> Result<bool> {
    let due = tx.now().after(POSTPONED).into();
    match tx.try_execute(POSTPONE, &[&self::fence(fence)[..], &[due]].concat())? {
        Ok(1) => Ok(true),
        Ok(_) | Err(_) => give_back(tx, fence),
    }
}

/// Ends the nested calls of a job that ends, because their processes end with it.
pub(super) fn end_children(tx: &mut dyn Tx, parent: JobId) -> Result<()> {
    let mut parents = vec![parent];
    while let Some(parent) = parents.pop() {
        let why = format!("job {parent}, which made this call, ended first");
        let error = error_text(&Failure::new(FailureKind::Parent, why));
        let args = [parent.into(), tx.now().into(), (&error).into()];
        let ended = tx.rows::<JobId>(END_CHILDREN, &args)?;
        needs::note_ended(tx, &ended)?;
        parents.extend(ended);
    }
    Ok(())
}

fn pieces(log: &Log) -> Option<String> {
    if log.pieces.iter().all(|(stream, _)| *stream == Stream::Out) {
        return None;
    }
    let pairs: Vec<_> = log.pieces.iter().map(|(stream, length)| (stream.fd(), length)).collect();
    serde_json::to_string(&pairs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn ends_are_recorded_by_number() {
        for sql in [COMPLETE, &COMPLETE_SET, &JUST_COMPLETED_SET, END, AGAIN, COMPLETED_ITSELF, GIVE_BACK, POSTPONE] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        assert_eq!(ways_to_jobs(COMPLETE_RUN), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]);
        assert_eq!(ways_to_jobs(END_CHILDREN), ["INDEX asyncq_job_parent (parent=?)"]);
        assert_eq!(ways_to_jobs(RELATED), ["COVERING INDEX asyncq_job_parent (parent>? AND parent<?)"]);
        let steps = plan(RELATED);
        assert!(steps.iter().any(|step| step.contains("PRIMARY KEY (needs>? AND needs<?)")), "{steps:?}");
    }
}
