//! Calls that expire: after a certain time, no attempt of them begins, and they end as cancelled.

use super::columns::error_text;
use super::engine::{Tx, Value};
use super::{lane, needs};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::{job::JobId, service::ServiceName, time::Timestamp};
use crate::error::Result;

/// How many calls one transaction ends at most, so that none takes long.
const AT_ONCE: i64 = 1000;

/// The calls of service `?1` that can expire. SQLite uses a partial index only if its condition is repeated word for word.
macro_rules! expiring {
    () => {
        "FROM asyncq_job WHERE expires_at IS NOT NULL
        AND (state = 'queued' OR state = 'delayed' OR state = 'held' OR state = 'blocked') AND service = ?1"
    };
}
/// When the next call of service `?1` expires, as a subquery.
macro_rules! next_expiry {
    () => {
        concat!("SELECT expires_at ", $crate::store::expire::expiring!(), " ORDER BY expires_at LIMIT 1")
    };
}
pub(super) use {expiring, next_expiry};

const NEXT: &str = next_expiry!();
/// The second column says whether it leaves the head of a lane.
const EXPIRED: &str = concat!(
    "SELECT id, (lane IS NOT NULL AND state = 'queued') ",
    expiring!(),
    " AND expires_at <= ?2 ORDER BY expires_at LIMIT ?3 /*! FOR NO KEY UPDATE SKIP LOCKED */"
);
const END: &str = "UPDATE asyncq_job SET state = ?2, finished_at = ?3, error = ?4, waits = 0,
    key = CASE WHEN key_until IS NULL THEN key END
    WHERE id = ?1 AND (state = 'queued' OR state = 'delayed' OR state = 'held' OR state = 'blocked')";

/// Ends expired calls of a service, in the order in which they expired. Returns whether more are left. If a rule of the application
/// refuses to cancel a call, that call ends in an error.
pub(super) fn expire(tx: &mut dyn Tx, service: &ServiceName) -> Result<bool> {
    let now = tx.now();
    let found: Vec<(JobId, bool)> = tx.rows(EXPIRED, &[service.into(), now.into(), AT_ONCE.into()])?;
    let expired = error_text(&Failure::new(FailureKind::Expired, "it expired before an attempt began"));
    for (job, _) in &found {
        let end = |state: &'static str| -> [Value<'_>; 3] { [(*job).into(), state.into(), now.into()] };
        if let Err(refusal) = tx.try_execute(END, &[&end("cancelled")[..], &[(&expired).into()]].concat())? {
            let refused = error_text(&Failure::new(FailureKind::Refused, refusal.to_string()));
            tx.execute(END, &[&end("error")[..], &[(&refused).into()]].concat())?;
        }
    }
    for (job, _) in found.iter().filter(|(_, is_head)| *is_head) {
        lane::let_out(tx, *job)?;
    }
    let ended: Vec<JobId> = found.iter().map(|(job, _)| *job).collect();
    needs::note_ended(tx, &ended)?;
    Ok(i64::try_from(ended.len()).is_ok_and(|count| count >= AT_ONCE))
}

/// When the next call of a service expires.
pub(super) fn soonest(tx: &mut dyn Tx, service: &ServiceName) -> Result<Option<Timestamp>> {
    tx.row(NEXT, &[service.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn calls_that_expire_are_found_by_their_index() {
        assert_eq!(ways_to_jobs(NEXT), ["INDEX asyncq_job_expires (service=? AND expires_at>?)"]);
        assert_eq!(ways_to_jobs(EXPIRED), ["INDEX asyncq_job_expires (service=? AND expires_at>? AND expires_at<?)"]);
        assert_eq!(ways_to_jobs(END), ["INTEGER PRIMARY KEY (rowid=?)"]);
        assert!(!plan(EXPIRED).iter().any(|step| step.contains("B-TREE")), "{:?}", plan(EXPIRED));
    }
}
