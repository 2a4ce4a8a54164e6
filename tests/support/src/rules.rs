//! What holds of calls that wait for others after every transaction of anybody, as questions to the tables. Each answer is a rule
//! that is broken. Their words are those of the indexes, so that they are quick in a large store, too.

use rusqlite::Connection;

/// More calls of a lane are in the queue or run than the service allows.
const TOO_MANY: &str = "SELECT 'too many heads of lane ' || service || ' ' || lane || ': ' || many FROM (
    SELECT service, lane, count(*) AS many FROM asyncq_job
    WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing') GROUP BY service, lane)
    WHERE many > (SELECT lane_width FROM asyncq_service WHERE name = service)";
/// A call waits for its turn, and there is room.
const STANDS_STILL: &str = "SELECT 'lane stands still: ' || b.service || ' ' || b.lane FROM (
    SELECT DISTINCT service, lane FROM asyncq_job WHERE waits <> 0 AND waits = 2) AS b WHERE (
    SELECT count(*) FROM asyncq_job h WHERE h.lane IS NOT NULL AND (h.state = 'queued' OR h.state = 'processing')
        AND h.service = b.service AND h.lane = b.lane) < (SELECT lane_width FROM asyncq_service WHERE name = b.service)";
/// A call waits for jobs, all of which have ended, and nobody is going to tell it.
const WAITS_FOR_NOTHING: &str = "SELECT 'waits for nothing: ' || b.id FROM asyncq_job b
    WHERE b.waits <> 0 AND b.waits = 1 AND NOT EXISTS (
    SELECT 1 FROM asyncq_after a JOIN asyncq_job n ON n.id = a.needs
    WHERE a.job = b.id AND (n.finished_at IS NULL OR EXISTS (SELECT 1 FROM asyncq_settle s WHERE s.job = n.id)))";
/// A call may run, runs or has run, and what it needs has not ended as it needs it.
const TOO_EARLY: &str = "SELECT 'too early: ' || j.id FROM asyncq_after a CROSS JOIN asyncq_job j ON a.job = j.id
    WHERE j.state IN ('queued', 'delayed', 'processing', 'completed')";
/// A state that is not what the reason to wait says.
const INCONSISTENT: &str = "SELECT 'blocked without a reason, or the other way round: ' || id FROM asyncq_job
    WHERE waits <> 0 AND state <> 'blocked'";
/// A call keeps others from its key longer than it said.
const KEY_KEPT: &str = "SELECT 'keeps its key: ' || id FROM asyncq_job WHERE key IS NOT NULL AND key_until IS NOT NULL
    AND (finished_at IS NOT NULL OR key_until = 'started' AND claim > 0)";
/// A link is left although the end of its job is as the call needs it.
const LINK_LEFT: &str = "SELECT 'a link to a job that met it: ' || a.needs || ' ' || a.job FROM asyncq_after a
    CROSS JOIN asyncq_job n ON n.id = a.needs WHERE n.finished_at IS NOT NULL
    AND CASE a.wants WHEN 'ok' THEN n.state = 'completed' WHEN 'failed' THEN n.state <> 'completed' ELSE 1 END
    AND NOT EXISTS (SELECT 1 FROM asyncq_settle s WHERE s.job = n.id)";

/// The rules that a store breaks. A store may be looked at while others write.
pub fn broken(store: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    let transaction = store.unchecked_transaction().unwrap();
    for rule in [TOO_MANY, STANDS_STILL, WAITS_FOR_NOTHING, TOO_EARLY, INCONSISTENT, KEY_KEPT, LINK_LEFT] {
        let mut statement = store.prepare_cached(rule).unwrap();
        found.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    }
    transaction.finish().unwrap();
    found
}
