//! Removes jobs that are older than their service keeps them.
//!
//! No index knows when jobs ended, because that would cost something in each call. Instead, a round goes through all jobs by
//! number, a few at a time, from a pointer to the first job that was too young. Now and then the pointer starts over, for jobs that
//! ended long after they were enqueued.

use std::time::Duration;

use super::Store;
use super::columns::groups;
use super::engine::Tx;
use super::many::remove;
use super::select::Match;
use super::used::RETENTION;
use crate::domain::job::JobId;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// The time between the end of a round and the beginning of the next. It is less than a minute, so that a processor that cron
/// starts each minute never comes a moment too early.
const BETWEEN: Duration = Duration::from_secs(50);

/// The shortest and the longest time, in milliseconds, after which the pointer starts over. In between, it is the shortest time for
/// which a service keeps jobs.
const PERIODS: [i64; 2] = [10 * 60 * 1000, 24 * 60 * 60 * 1000];

/// How many jobs one step looks at.
const LOOK: i64 = 20_000;

const POINTER: &str = "SELECT pruned_at, pruned_to FROM asyncq_schema";
/// The shortest time that a service keeps a job.
const SHORTEST: &str = "SELECT MIN(CASE WHEN keep_errors IS NULL OR keep <= keep_errors THEN keep ELSE keep_errors END) FROM asyncq_service
    WHERE keep IS NOT NULL OR keep_errors IS NOT NULL";
const LAST: &str = "SELECT id FROM asyncq_job WHERE id > ?1 ORDER BY id LIMIT 1 OFFSET ?2";
const NEWEST: &str = "SELECT MAX(id) FROM asyncq_job";
const YOUNG: &str = "SELECT id FROM asyncq_job WHERE id > ?1 AND id <= ?2 AND created_at > ?3 ORDER BY id LIMIT 1";
const OLD: &str = "SELECT j.id, j.service, j.function, j.state, j.immediate, j.finished_at FROM asyncq_job j
    CROSS JOIN asyncq_service s WHERE j.id > ?1 AND j.id <= ?2 AND s.name = j.service
    AND (j.state = 'completed' OR j.state = 'cancelled' OR j.state = 'error')
    AND j.finished_at <= CAST(?3 AS BIGINT) - CASE j.state WHEN 'error' THEN s.keep_errors ELSE s.keep END
    ORDER BY j.id LIMIT ?4";
const MOVE: &str = "UPDATE asyncq_schema SET pruned_to = ?3, pruned_at = ?4 WHERE pruned_to = ?2 AND pruned_at = ?1";

/// What one step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many jobs it has removed.
    pub removed: u64,
    /// Whether the round is not over.
    pub more: bool,
}

/// How far the rounds have got: when the last one ended, and its last job.
#[derive(Debug, Clone, Copy)]
struct Pointer {
    at: Timestamp,
    to: JobId,
}
groups! { Pointer { at, to } }

/// The jobs that a step removes, and the pointer before and after it.
struct OldJobs {
    old: Vec<Match>,
    before: Pointer,
    after: Pointer,
    more: bool,
}

impl Store {
    /// Removes the next few jobs that are older than their service keeps them, at most `most`. It begins a round a minute after the
    /// last one; until then it does nothing, and neither while the store is paused.
    pub fn prune(&mut self, most: u16) -> Result<Pruned> {
        let Some(found) = self.read(|tx| look(tx, most))? else { return Ok(Pruned::default()) };
        self.write(|tx| {
            let OldJobs { old, before, after, more } = &found;
            // Otherwise another processor was faster.
            let moved = tx.execute(MOVE, &[before.at.into(), before.to.into(), after.to.into(), after.at.into()])?;
            let removed = if moved == 1 { remove(tx, old)?.changed } else { 0 };
            Ok(Pruned { removed, more: *more })
        })
    }
}

fn look(tx: &mut dyn Tx, most: u16) -> Result<Option<OldJobs>> {
    if tx.used() & RETENTION == 0 || tx.is_paused() {
        return Ok(None);
    }
    let (now, Some(before)) = (tx.now(), tx.row::<Pointer>(POINTER, &[])?) else { return Ok(None) };
    let Some(shortest) = tx.row::<Option<i64>>(SHORTEST, &[])?.flatten() else { return Ok(None) };
    let period = shortest.clamp(PERIODS[0], PERIODS[1]);
    let starts_over = before.at.0 / period != now.0 / period;
    if !starts_over && now.since(before.at) < BETWEEN && before.at <= now {
        return Ok(None);
    }
    // As long as this round lasts, it goes on from its pointer.
    let this_period = Timestamp(now.0 - now.0 % period).max(now.before(BETWEEN));
    let (from, at) = if starts_over { (JobId(0), this_period) } else { (before.to, before.at) };
    let last = tx.row::<JobId>(LAST, &[from.into(), (LOOK - 1).into()])?;
    let end = match last {
        Some(last) => last,
        None => tx.row::<Option<JobId>>(NEWEST, &[])?.flatten().unwrap_or(from).max(from),
    };
    let young: Option<JobId> = tx.row(YOUNG, &[from.into(), end.into(), Timestamp(now.0 - shortest).into()])?;
    let end = young.map_or(end, |young| JobId(young.0 - 1));
    let old: Vec<Match> = tx.rows(OLD, &[from.into(), end.into(), now.into(), i64::from(most).into()])?;
    let stopped = old.last().filter(|_| old.len() == usize::from(most));
    let more = stopped.is_some() || last.is_some() && young.is_none();
    let to = stopped.map_or(end, |last| last.id);
    Ok(Some(OldJobs { old, before, after: Pointer { at: if more { at } else { now }, to }, more }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn a_step_walks_over_its_jobs_by_number() {
        for sql in [LAST, YOUNG, OLD] {
            let steps = plan(sql);
            assert!(steps[0].contains("USING INTEGER PRIMARY KEY (rowid>?"), "{steps:?}");
            assert!(steps.iter().all(|step| !step.contains("B-TREE") && !step.starts_with("SCAN")), "{steps:?}");
        }
    }
}
