//! The clock of the machine, which somebody may set back.
//!
//! The store keeps the latest time that a processor has seen, rounded to a minute. If the clock shows an earlier time, somebody has
//! set it back. Retries that were due by the old clock are then moved by the difference, so that no pause gets longer.

use std::time::Duration;

use super::engine::Tx;
use crate::domain::retry::POSTPONED;
use crate::domain::time::{Timestamp, millis};
use crate::error::Result;

/// How far the kept time may differ from the clock. It is written no more often than this.
const PRECISION: Duration = Duration::from_secs(60);

/// How many retries one transaction moves at most.
const MOVED_AT_ONCE: i64 = 10_000;

const KEEP_LATER: &str = "UPDATE asyncq_schema SET clock = ?1 WHERE clock < ?1";
const KEEP: &str = "UPDATE asyncq_schema SET clock = ?1";
/// An attempt that began after now, or a postponed call without an attempt that began. The move changes both times, so that it
/// happens only once.
const MOVE: &str = "UPDATE asyncq_job SET run_at = run_at - ?1, started_at = started_at - ?1
    WHERE state = 'delayed' AND id IN (SELECT id FROM asyncq_job WHERE state = 'delayed' AND claim + attempt > 0
        AND (started_at > ?2 OR started_at IS NULL AND run_at > ?3 AND run_at <= ?4) LIMIT ?5 /*! FOR NO KEY UPDATE */)";

/// Whether somebody has set the clock back since a processor saw the time `kept`.
pub(super) fn was_set_back(kept: Timestamp, now: Timestamp) -> bool {
    kept > now.after(PRECISION)
}

/// Moves retries whose attempts began after now, in steps. Those that a rule of the application refuses to move stay.
pub(super) fn move_retries(tx: &mut dyn Tx, kept: Timestamp) -> Result<()> {
    let now = tx.now();
    let soon = now.after(POSTPONED);
    let last = kept.after(PRECISION + POSTPONED);
    let args = [millis(kept.since(now)).into(), now.into(), soon.into(), last.into(), MOVED_AT_ONCE.into()];
    match tx.try_execute(MOVE, &args)? {
        Ok(moved) if i64::try_from(moved).is_ok_and(|moved| moved >= MOVED_AT_ONCE) => Ok(()),
        Ok(_) | Err(_) => keep(tx),
    }
}

/// Notes the time, in a transaction that writes anyway.
pub(super) fn note(tx: &mut dyn Tx, kept: Timestamp) -> Result<()> {
    if tx.now() > kept.after(PRECISION) { keep(tx) } else { Ok(()) }
}

/// Notes the time in a transaction that has stored something that follows from it. So if the clock is wrong, that shows later.
pub(super) fn note_at_least(tx: &mut dyn Tx) -> Result<()> {
    let now = tx.now();
    tx.execute(KEEP_LATER, &[now.into()]).map(|_| ())
}

fn keep(tx: &mut dyn Tx) -> Result<()> {
    let now = tx.now();
    tx.execute(KEEP, &[now.into()]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn retries_are_found_among_delayed_calls() {
        let found = ["INTEGER PRIMARY KEY (rowid=?)", "SCAN asyncq_job USING INDEX asyncq_job_delayed"];
        assert_eq!(ways_to_jobs(MOVE), found);
    }
}
