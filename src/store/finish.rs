//! Recording how attempts end.

use super::engine::Tx;
use crate::domain::attempt::{Ending, Failure, FailureKind};
use crate::domain::job::{Fence, Finish, JobId, State};
use crate::domain::json::Json;
use crate::domain::log::{Log, Stream};
use crate::domain::retry::Verdict;
use crate::error::Result;

const FINISH: &str = "UPDATE asyncq_job SET
    state = CASE WHEN cancelling = 1 AND ?4 IN ('queued', 'delayed') THEN 'cancelled' ELSE ?4 END,
    finished_at = CASE WHEN cancelling = 1 OR ?4 NOT IN ('queued', 'delayed') THEN ?5 END,
    started_at = ?6, run_at = COALESCE(?7, run_at), result = CASE WHEN ?4 = 'completed' THEN ?8 END, error = ?9,
    failures = failures + ?10, conflicts = conflicts + ?11, token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing' RETURNING state";
const COMPLETED_ITSELF: &str = "UPDATE asyncq_job SET result = ?4, started_at = ?5, token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'completed' AND token IS NOT NULL";
const ATTEMPT: &str = "INSERT INTO asyncq_attempt
    (job, number, processor, started_at, finished_at, ending, error, dropped, gap, pieces, log)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (job, number) DO NOTHING";
const CHILDREN: &str = "SELECT id FROM asyncq_job WHERE parent = ?1 AND immediate = 1 AND state = 'processing'";
const END_CHILD: &str = "UPDATE asyncq_job SET state = 'error', finished_at = ?2, error = ?3, token = NULL
    WHERE id = ?1";

/// Records the end of an attempt, unless it is no longer this attempt's job.
pub(super) fn finish(tx: &mut dyn Tx, end: &Finish) -> Result<Option<State>> {
    let Fence { job, attempt, processor } = end.fence;
    let verdict = &end.verdict;
    let now = tx.now();
    let started_at = now.before(end.took);
    let error = verdict.error.as_ref().map(error_text);
    let result = end.result.as_ref().map(Json::as_str);
    let counts = counts(verdict);
    let fence = [job.0.into(), attempt.into(), processor.0.into()];
    let state = tx.first(
        FINISH,
        &[
            fence[0],
            fence[1],
            fence[2],
            verdict.state.as_str().into(),
            now.into(),
            started_at.into(),
            verdict.pause.map(|pause| now.after(pause)).into(),
            result.into(),
            error.as_ref().into(),
            counts.0.into(),
            counts.1.into(),
        ],
        |row| super::job::state(row.str(0)?),
    )?;
    let (state, ending) = if let Some(state) = state {
        (state, verdict.ending)
    } else {
        let args = [fence[0], fence[1], fence[2], result.into(), started_at.into()];
        if tx.execute(COMPLETED_ITSELF, &args)? == 0 {
            return Ok(None);
        }
        (State::Completed, Ending::Completed)
    };
    let silent = verdict.error.is_none() && verdict.state == State::Completed && end.log.is_empty();
    if !silent {
        let pieces = pieces(&end.log);
        tx.execute(
            ATTEMPT,
            &[
                fence[0],
                fence[1],
                fence[2],
                started_at.into(),
                now.into(),
                ending.as_str().into(),
                error.as_ref().into(),
                i64::try_from(end.log.dropped).unwrap_or(i64::MAX).into(),
                i64::try_from(end.log.gap).unwrap_or(i64::MAX).into(),
                pieces.as_ref().into(),
                (!end.log.bytes.is_empty()).then_some(end.log.bytes.as_slice()).into(),
            ],
        )?;
    }
    end_children(tx, job)?;
    Ok(Some(state))
}

/// Ends the nested calls of a job that ends: whatever of them is left is gone with it.
pub(super) fn end_children(tx: &mut dyn Tx, parent: JobId) -> Result<()> {
    let mut parents = vec![parent];
    while let Some(parent) = parents.pop() {
        let children = tx.all(CHILDREN, &[parent.0.into()], |row| row.i64(0).map(JobId))?;
        if children.is_empty() {
            continue;
        }
        let now = tx.now();
        let error =
            error_text(&Failure::new(FailureKind::Parent, format!("job {parent}, which made this call, ended first")));
        for child in &children {
            tx.execute(END_CHILD, &[child.0.into(), now.into(), (&error).into()])?;
        }
        parents.extend(children);
    }
    Ok(())
}

/// A failure as it is stored.
pub(super) fn error_text(failure: &Failure) -> String {
    serde_json::to_string(failure).unwrap_or_default()
}

fn counts(verdict: &Verdict) -> (i64, i64) {
    match verdict.ending {
        Ending::Error => (1, 0),
        Ending::Conflict => (0, 1),
        Ending::Completed | Ending::Interrupted | Ending::Cancelled | Ending::Crash => (0, 0),
    }
}

fn pieces(log: &Log) -> Option<String> {
    if log.pieces.iter().all(|(stream, _)| *stream == Stream::Out) {
        return None;
    }
    let pairs: Vec<_> = log.pieces.iter().map(|(stream, length)| (stream.fd(), length)).collect();
    serde_json::to_string(&pairs).ok()
}
