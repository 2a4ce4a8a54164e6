//! Lanes: in each lane, the service allows a number of calls to be in the queue or run; all others are blocked.
//!
//! Invariant: code that removes a call from the head of a lane, or adds one to its end, lets the next one out. If clients or people
//! do that, the schema's triggers follow it up.

use super::engine::Tx;
use crate::domain::{job::JobId, retry::HELD_BACK};
use crate::error::Result;

/// Lets as many calls out of the lane of job `?1` as there is room for. They become due now, so that lanes take turns.
const LET_OUT: &str = "UPDATE asyncq_job SET state = 'queued', waits = 0, run_at = CASE WHEN run_at < ?2 THEN ?2 ELSE run_at END
    WHERE waits = 2 AND id IN (
        SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 2
            AND service = (SELECT service FROM asyncq_job WHERE id = ?1) AND lane = (SELECT lane FROM asyncq_job WHERE id = ?1)
        ORDER BY priority, run_at, id LIMIT (
            SELECT COALESCE(max(CASE WHEN s.lane_width > heads.many THEN s.lane_width - heads.many ELSE 0 END), 0)
            FROM asyncq_service s, (SELECT count(*) AS many FROM asyncq_job
                WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing')
                    AND service = (SELECT service FROM asyncq_job WHERE id = ?1)
                    AND lane = (SELECT lane FROM asyncq_job WHERE id = ?1)) AS heads
            WHERE s.name = (SELECT service FROM asyncq_job WHERE id = ?1)))";

const PUT_OFF: &str = "UPDATE asyncq_job SET state = 'delayed', waits = 0, run_at = ?2 WHERE waits = 2 AND id IN (
    SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 2
        AND service = (SELECT service FROM asyncq_job WHERE id = ?1) AND lane = (SELECT lane FROM asyncq_job WHERE id = ?1)
    ORDER BY priority, run_at, id LIMIT 1)";

/// Lets the next calls out of a job's lane, if it is in one. If a rule of the application refuses that, the first one waits for a
/// while before it is tried again.
pub(super) fn let_out(tx: &mut dyn Tx, job: JobId) -> Result<()> {
    let now = tx.now();
    if tx.try_execute(LET_OUT, &[job.into(), now.into()])?.is_err() {
        tx.execute(PUT_OFF, &[job.into(), now.after(HELD_BACK).into()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn the_head_and_the_line_of_a_lane_are_found_by_their_indexes() {
        let mut ways = ways_to_jobs(LET_OUT);
        ways.retain(|way| way != "INTEGER PRIMARY KEY (rowid=?)");
        let expected = [
            "INDEX asyncq_job_lane (service=? AND lane=?)",
            "COVERING INDEX asyncq_job_blocked (service=? AND waits=? AND lane=?)",
        ];
        assert_eq!(ways, expected);
    }
}
