//! Calls that need other jobs to end first: the links between them, and what happens when such a job ends.
//!
//! Invariant: a call that waits for other jobs has a link to each of them that has not ended, or whose end is still noted in
//! `asyncq_settle`. A link goes when its need is met. If a need cannot be met, the link stays and the call is cancelled, so that a
//! retry of the job revives the call.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::error_text;
use super::engine::Tx;
use super::{lane, used};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::job::{JobId, State};
use crate::domain::needs::{Need, Needs};
use crate::error::{Error, Kind, Result};

/// How many links one transaction follows at most, so that none takes long.
const LINKS_AT_ONCE: usize = 1000;

/// How many links one statement removes at most.
const LINKS_REMOVED_AT_ONCE: usize = 10_000;

const STATE: &str = "SELECT state FROM asyncq_job WHERE id = ?1 /*! FOR KEY SHARE */";
const LINK: &str = "INSERT INTO asyncq_after (needs, job, wants) VALUES (?1, ?2, ?3)";
/// An older processor may run the job now. It does not know of calls that need it.
const WATCH: &str = "INSERT INTO asyncq_settle (job) SELECT id FROM asyncq_job
    WHERE id = ?1 AND state = 'processing' AND processor <= (SELECT older FROM asyncq_schema) ON CONFLICT DO NOTHING";
const ANY_LINK: &str = "SELECT 1 FROM asyncq_after WHERE needs >= ?1 AND needs <= ?2 LIMIT 1";
const NOTE: &str = "INSERT INTO asyncq_settle (job)
    SELECT id FROM asyncq_job WHERE id = ?1 AND finished_at IS NOT NULL AND EXISTS (SELECT 1 FROM asyncq_after WHERE needs = ?1)
    ON CONFLICT DO NOTHING";
const NOTED: &str = "SELECT s.job, s.told, j.state FROM asyncq_settle s CROSS JOIN asyncq_job j
    WHERE j.id = s.job AND j.finished_at IS NOT NULL ORDER BY s.job LIMIT ?1 /*! FOR NO KEY UPDATE SKIP LOCKED */";
/// Jobs that were queued again since, and those that an older processor has put back.
const FORGET_UNENDED: &str = "DELETE FROM asyncq_settle WHERE job IN (SELECT s.job FROM asyncq_settle s
    CROSS JOIN asyncq_job j WHERE j.id = s.job AND j.finished_at IS NULL AND j.state <> 'processing')";
pub(super) const FORGET: &str = "DELETE FROM asyncq_settle WHERE job = ?1";
const TOLD: &str = "UPDATE asyncq_settle SET told = ?2 WHERE job = ?1";
const LINKS: &str = "SELECT job, wants FROM asyncq_after WHERE needs = ?1 AND job > ?2 ORDER BY job LIMIT ?3";
const UNLINK: &str = "DELETE FROM asyncq_after WHERE needs = ?1 AND job = ?2";
/// The links to all jobs from `?1` to `?2`: the calls, and whether they wait for a failure. If one call has many links, DISTINCT
/// takes longer than reading all of them.
const LINKS_TO_RUN: &str = "SELECT job, wants = 'failed' FROM asyncq_after WHERE needs >= ?1 AND needs <= ?2 LIMIT ?3";
const UNLINK_RUN: &str = "DELETE FROM asyncq_after WHERE needs >= ?1 AND needs <= ?2";
const UNLINK_ALL: &str = "DELETE FROM asyncq_after WHERE job = ?1";
const RELEASE: &str = "UPDATE asyncq_job SET
    state = CASE WHEN run_at > ?2 THEN 'delayed' WHEN lane IS NOT NULL THEN 'blocked' ELSE 'queued' END,
    waits = CASE WHEN run_at <= ?2 AND lane IS NOT NULL THEN 2 ELSE 0 END
    WHERE id = ?1 AND waits = 1 AND NOT EXISTS (SELECT 1 FROM asyncq_after WHERE job = ?1)";
/// A held call whose needs are not written down yet is still being linked to them, as in `then.rs`.
const CANCEL: &str = "UPDATE asyncq_job SET state = 'cancelled', finished_at = ?2, error = ?3, waits = 0,
    key = CASE WHEN key_until IS NULL THEN key END
    WHERE id = ?1 AND (state = 'blocked' OR state = 'held' AND after IS NOT NULL)";
/// Calls that were cancelled because a job like `?1`, which they need, had failed.
const CANCELLED_WITH: &str = "SELECT it.job FROM asyncq_after it CROSS JOIN asyncq_job j
    WHERE j.id = it.job AND it.needs = ?1 AND it.wants = 'ok' AND j.state = 'cancelled' AND j.error LIKE '{\"kind\":\"needs\"%'
    ORDER BY it.job /*! FOR NO KEY UPDATE */";
/// The first job from `?2` on that has ended without meeting the need of call `?1`.
const UNMET: &str = "SELECT it.needs, it.wants FROM asyncq_after it CROSS JOIN asyncq_job j
    WHERE j.id = it.needs AND it.job = ?1 AND it.needs >= ?2 AND CASE it.wants WHEN 'ok' THEN j.state IN ('error', 'cancelled')
        WHEN 'failed' THEN j.state = 'completed' ELSE FALSE END ORDER BY it.needs LIMIT 1";

/// For each call that stays cancelled, the job that is the reason. The next look begins there. So if somebody retries thousands of
/// jobs one by one, a call that needs all of them is not compared with all of them each time.
pub(super) type Unmet = BTreeMap<JobId, JobId>;

const REVIVE: &str = "UPDATE asyncq_job SET state = 'blocked', waits = 1, finished_at = NULL, error = NULL
    WHERE id = ?1 AND state = 'cancelled'";

/// Links a new call to those jobs that it needs and that have not ended.
///
/// # Errors
/// As for [`check`].
pub(super) fn link(tx: &mut dyn Tx, job: JobId, needs: &Needs) -> Result<()> {
    for (needed, need) in needs.jobs() {
        if is_open(tx, *needed, *need)? {
            used::note(tx, used::NEEDS)?;
            tx.execute(LINK, &[(*needed).into(), job.into(), need.as_str().into()])?;
            tx.execute(WATCH, &[(*needed).into()])?;
        }
    }
    Ok(())
}

/// Whether a new call has to wait for a job that it needs.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such job, [`Kind::Denied`] when it has already ended in another way.
pub(super) fn check(tx: &mut dyn Tx, needs: &Needs) -> Result<bool> {
    let mut waits = false;
    for (needed, need) in needs.jobs() {
        waits |= is_open(tx, *needed, *need)?;
    }
    Ok(waits)
}

/// Whether a needed job has not ended yet.
fn is_open(tx: &mut dyn Tx, needed: JobId, need: Need) -> Result<bool> {
    let Some(state) = tx.row::<State>(STATE, &[needed.into()])? else {
        return Err(Error::new(Kind::NotFound, format!("there is no job {needed} to wait for"))
            .with_hint("a job that was cleaned away had ended: leave it out"));
    };
    if !state.has_ended() {
        return Ok(true);
    }
    if need.is_met_by(state) {
        return Ok(false);
    }
    Err(match need {
        Need::Failed => Error::new(Kind::Denied, format!("job {needed} has completed, so this call would never run"))
            .with_hint("leave it out"),
        Need::Completed | Need::Ended => {
            Error::new(Kind::Denied, format!("job {needed}, which this call needs, {}", ended(state))).with_hint(
                format!("`asyncq job retry {needed}` runs it again; `--after-any {needed}` waits for its end only"),
            )
        }
    })
}

fn ended(state: State) -> &'static str {
    match state {
        State::Cancelled => "was cancelled",
        State::Completed => "has completed",
        _ => "ended in an error",
    }
}

/// Notes which of these jobs have ended and are needed by other calls.
pub(super) fn note_ended(tx: &mut dyn Tx, jobs: &[JobId]) -> Result<()> {
    if tx.used() & used::NEEDS == 0 {
        return Ok(());
    }
    let (Some(least), Some(most)) = (jobs.iter().min(), jobs.iter().max()) else { return Ok(()) };
    // Hardly any job is needed, so it first asks once whether any of these may be.
    if tx.has(ANY_LINK, &[(*least).into(), (*most).into()])? {
        for job in jobs {
            tx.execute(NOTE, &[(*job).into()])?;
        }
    }
    Ok(())
}

/// Follows the links of completed jobs. Usually their numbers follow each other, and one statement handles all of them. Notes the
/// jobs that need more than that.
pub(super) fn note_completed(tx: &mut dyn Tx, mut jobs: Vec<JobId>) -> Result<()> {
    jobs.sort_unstable();
    for run in jobs.chunk_by(|one, other| one.0 + 1 == other.0) {
        let range = [run[0].into(), run[run.len() - 1].into()];
        let links: Vec<(JobId, bool)> =
            tx.rows(LINKS_TO_RUN, &[range[0], range[1], (LINKS_REMOVED_AT_ONCE + 1).into()])?;
        let dependents: BTreeSet<JobId> = links.iter().map(|(dependent, _)| *dependent).collect();
        let are_many = links.len() > LINKS_REMOVED_AT_ONCE || dependents.len() > LINKS_AT_ONCE;
        if are_many || links.iter().any(|(_, wants_failure)| *wants_failure) {
            note_ended(tx, run)?;
            continue;
        }
        tx.execute(UNLINK_RUN, &range)?;
        for dependent in dependents {
            release_or_cancel(tx, dependent)?;
        }
    }
    Ok(())
}

/// Follows the links of jobs whose end is noted, some at a time. Returns whether some are left.
pub(super) fn settle(tx: &mut dyn Tx) -> Result<bool> {
    tx.execute(FORGET_UNENDED, &[])?;
    let mut room = LINKS_AT_ONCE;
    loop {
        if room == 0 {
            return tx.has(NOTED, &[1_i64.into()]);
        }
        let noted: Vec<(JobId, (JobId, State))> = tx.rows(NOTED, &[room.into()])?;
        if noted.is_empty() {
            return Ok(false);
        }
        for (job, (told, state)) in noted {
            if room == 0 {
                return Ok(true);
            }
            let links: Vec<(JobId, Need)> = tx.rows(LINKS, &[job.into(), told.into(), room.into()])?;
            for (dependent, need) in &links {
                follow(tx, (job, state), *dependent, *need)?;
            }
            match links.last() {
                Some((last, _)) if links.len() == room => tx.execute(TOLD, &[job.into(), (*last).into()])?,
                _ => tx.execute(FORGET, &[job.into()])?,
            };
            // A job without links takes time as well.
            room = room.saturating_sub(links.len().max(1));
        }
    }
}

/// Follows one link of a job that has ended.
fn follow(tx: &mut dyn Tx, (job, state): (JobId, State), dependent: JobId, need: Need) -> Result<()> {
    if need.is_met_by(state) {
        tx.execute(UNLINK, &[job.into(), dependent.into()])?;
        return release_or_cancel(tx, dependent);
    }
    let why = if need == Need::Failed {
        Failure::new(FailureKind::NotNeeded, format!("job {job}, after whose failure this was to run, has completed"))
    } else {
        Failure::new(FailureKind::Needs, format!("job {job}, which this needs, {}", ended(state)))
    };
    cancel(tx, dependent, &why)
}

/// Lets a call go on that no longer waits for any job. If a rule of the application refuses that, the call is cancelled.
fn release_or_cancel(tx: &mut dyn Tx, dependent: JobId) -> Result<()> {
    match release(tx, dependent)? {
        Ok(()) => Ok(()),
        Err(refusal) => cancel(tx, dependent, &Failure::new(FailureKind::Refused, refusal.to_string())),
    }
}

fn cancel(tx: &mut dyn Tx, dependent: JobId, why: &Failure) -> Result<()> {
    let now = tx.now().into();
    if let Ok(1) = tx.try_execute(CANCEL, &[dependent.into(), now, (&error_text(why)).into()])? {
        note_ended(tx, &[dependent])?;
    }
    Ok(())
}

/// Lets a call go on without the jobs that it waits for.
pub(super) fn start_without(tx: &mut dyn Tx, job: JobId) -> Result<()> {
    tx.execute(UNLINK_ALL, &[job.into()])?;
    release(tx, job)?
}

/// Lets a call go on that no longer waits for any job. The inner error names the rule of the application that refuses that.
pub(super) fn release(tx: &mut dyn Tx, job: JobId) -> Result<Result<()>> {
    let now = tx.now().into();
    match tx.try_execute(RELEASE, &[job.into(), now])? {
        Ok(0) => Ok(Ok(())),
        Ok(_) => lane::let_out(tx, job).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// The same as [`revive`], for those of these jobs that were queued again.
pub(super) fn revive_all(tx: &mut dyn Tx, jobs: &[JobId]) -> Result<()> {
    let (Some(least), Some(most)) = (jobs.iter().min(), jobs.iter().max()) else { return Ok(()) };
    if tx.has(ANY_LINK, &[(*least).into(), (*most).into()])? {
        let mut queued = Vec::new();
        for job in jobs {
            let state = tx.row::<State>(STATE, &[(*job).into()])?;
            queued.extend(state.is_some_and(|state| !state.has_ended()).then_some(*job));
        }
        revive(tx, queued, &mut Unmet::new())?;
    }
    Ok(())
}

/// Lets calls wait again that were cancelled because these jobs had failed, and those that were cancelled because of them in turn.
/// Returns how many.
pub(super) fn revive(tx: &mut dyn Tx, mut jobs: Vec<JobId>, unmet: &mut Unmet) -> Result<u64> {
    let (mut revived, mut cancelled) = (0, BTreeSet::new());
    loop {
        for job in jobs.drain(..) {
            tx.execute(FORGET, &[job.into()])?;
            cancelled.extend(tx.rows::<JobId>(CANCELLED_WITH, &[job.into()])?);
        }
        // A call has a higher number than the jobs that it needs. So when it has the lowest number, all these jobs were seen, and
        // its links, of which there may be many, are followed once.
        let Some(call) = cancelled.pop_first() else { return Ok(revived) };
        if !has_unmet(tx, call, unmet)? && matches!(tx.try_execute(REVIVE, &[call.into()])?, Ok(1)) {
            revived += 1;
            jobs.push(call);
        }
    }
}

/// Whether a call needs a job that has ended in another way than it needs.
fn has_unmet(tx: &mut dyn Tx, call: JobId, unmet: &mut Unmet) -> Result<bool> {
    let first = JobId(0);
    let from = unmet.remove(&call).unwrap_or(first);
    let mut found = first_unmet(tx, call, from)?;
    if found.is_none() && from != first {
        found = first_unmet(tx, call, first)?;
    }
    unmet.extend(found.map(|(job, _)| (call, job)));
    Ok(found.is_some())
}

/// The first job from `from` on that has ended in another way than a call needs, and what the call needs.
pub(super) fn first_unmet(tx: &mut dyn Tx, call: JobId, from: JobId) -> Result<Option<(JobId, Need)>> {
    tx.row(UNMET, &[call.into(), from.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn links_and_jobs_are_found_by_their_numbers() {
        for sql in [STATE, RELEASE, CANCEL, REVIVE, WATCH, NOTE] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        for (sql, way) in [
            (ANY_LINK, "SEARCH asyncq_after USING PRIMARY KEY (needs>? AND needs<?)"),
            (LINKS, "SEARCH asyncq_after USING PRIMARY KEY (needs=? AND job>?)"),
            (UNLINK, "SEARCH asyncq_after USING PRIMARY KEY (needs=? AND job=?)"),
            (LINKS_TO_RUN, "SEARCH asyncq_after USING PRIMARY KEY (needs>? AND needs<?)"),
            (UNLINK_RUN, "SEARCH asyncq_after USING PRIMARY KEY (needs>? AND needs<?)"),
            (CANCELLED_WITH, "SEARCH it USING PRIMARY KEY (needs=?)"),
            (UNMET, "SEARCH it USING INDEX asyncq_after_job (job=? AND needs>?)"),
        ] {
            let steps = plan(sql);
            assert!(steps.iter().any(|step| step == way), "{sql}: {steps:?}");
            assert!(!steps.iter().any(|step| step.contains("B-TREE")), "{sql}: {steps:?}");
        }
        // A few rows, in their order.
        assert!(plan(NOTED).iter().any(|step| step == "SCAN s"), "{:?}", plan(NOTED));
    }
}
