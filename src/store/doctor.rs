//! What `asyncq doctor` checks in the store, and what it can repair.

use super::engine::{Mode, Tx};
use super::schema::{Mended, SchemaFound};
use super::{Store, lane, needs};
use crate::domain::diagnosis::{ImpossibleJobs, LostReferences, StuckCalls};
use crate::domain::job::JobId;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// Calls that wait for other jobs, but have no link to any.
const UNLINKED: &str = "SELECT id FROM asyncq_job WHERE waits <> 0 AND waits = 1
    AND NOT EXISTS (SELECT 1 FROM asyncq_after a WHERE a.job = asyncq_job.id)";
/// Ended jobs without a note for the calls that wait for them.
const UNTOLD: &str = "SELECT DISTINCT a.needs FROM asyncq_job j CROSS JOIN asyncq_after a CROSS JOIN asyncq_job n
    WHERE j.waits <> 0 AND j.waits = 1 AND a.job = j.id AND n.id = a.needs AND n.finished_at IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM asyncq_settle s WHERE s.job = a.needs)";
/// The first call of each lane that has room.
const LANES: &str = "SELECT min(id) FROM asyncq_job j WHERE waits <> 0 AND waits = 2 AND lane IS NOT NULL GROUP BY service, lane
    HAVING (SELECT count(*) FROM asyncq_job h WHERE h.lane IS NOT NULL AND (h.state = 'queued' OR h.state = 'processing')
        AND h.service = j.service AND h.lane = j.lane) < (SELECT lane_width FROM asyncq_service s WHERE s.name = j.service)";
/// Jobs in a state that nobody gives them with the rest of what they say.
const CONTRADICTORY: &str = "SELECT COUNT(*), MIN(id) FROM asyncq_job
    WHERE state = 'blocked' AND (waits <> 1 AND waits <> 2 OR waits = 2 AND lane IS NULL)
        OR state = 'processing' AND (token IS NULL OR processor IS NULL)
        OR (finished_at IS NULL) = (state = 'completed' OR state = 'error' OR state = 'cancelled')";
const WITHOUT_SERVICE: &str = "SELECT COUNT(*), MIN(service) FROM asyncq_job
    WHERE finished_at IS NULL AND service NOT IN (SELECT name FROM asyncq_service)";
const NOTE: &str = "INSERT INTO asyncq_settle (job) SELECT id FROM asyncq_job WHERE id = ?1 AND finished_at IS NOT NULL
    ON CONFLICT DO NOTHING";
const ENDED: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM asyncq_job WHERE finished_at IS NOT NULL LIMIT ?1) AS some";

impl Store {
    /// Which parts of the schema are missing or changed, without repairing them; `None` if the schema is older, because the next
    /// command upgrades it.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::Kind) when it is newer.
    pub fn differences(&mut self) -> Result<Option<Vec<Mended>>> {
        let mut found = None;
        self.transact(Mode::Read, |tx| {
            found = match tx.found() {
                SchemaFound::Older(_) => None,
                SchemaFound::Newer { version, known } => return Err(super::schema::too_new(version, known)),
                SchemaFound::Current | SchemaFound::Nothing => Some(tx.differences()?),
            };
            Ok(())
        })?;
        Ok(found)
    }

    /// Searches the pages of the store's tables for damage. [`Store::check`] searches more thoroughly.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind) with the first damage that it finds.
    pub fn check_pages(&mut self) -> Result<()> {
        self.read(|tx| super::engine::no_fault(tx.quick_check()?))
    }

    /// The rows of the store that refer to rows that are not there. It reads the whole store.
    pub fn lost_references(&mut self) -> Result<Vec<LostReferences>> {
        self.read(|tx| tx.lost_references())
    }

    /// Jobs that nobody runs or ends. It reads all jobs.
    pub fn impossible_jobs(&mut self) -> Result<ImpossibleJobs> {
        self.read(|tx| {
            let (jobs, first): (u64, Option<JobId>) = super::engine::one(tx.row(CONTRADICTORY, &[])?)?;
            let (lost, service): (u64, Option<String>) = super::engine::one(tx.row(WITHOUT_SERVICE, &[])?)?;
            Ok(ImpossibleJobs {
                contradictory: first.map(|first| (jobs, first)),
                without_service: service.map(|service| (lost, service)),
            })
        })
    }

    /// The clock of the database, and the latest time that a processor has seen.
    pub fn clocks(&mut self) -> Result<(Timestamp, Timestamp)> {
        self.read(|tx| Ok((tx.now(), tx.clock())))
    }

    /// How many jobs have ended, up to this number.
    pub fn count_ended(&mut self, most: u64) -> Result<u64> {
        self.read(|tx| Ok(tx.row(ENDED, &[most.cast_signed().into()])?.unwrap_or_default()))
    }

    /// Calls that wait although they have no reason to wait.
    pub fn stuck(&mut self) -> Result<StuckCalls> {
        self.read(|tx| Ok(find(tx)?.count()))
    }

    /// Lets those calls go on. Returns how many there were.
    pub fn free_stuck(&mut self) -> Result<StuckCalls> {
        self.write_untriggered(|tx| {
            let found = find(tx)?;
            for job in &found.untold {
                tx.execute(NOTE, &[(*job).into()])?;
            }
            while !found.untold.is_empty() && needs::settle(tx)? {}
            for job in &found.unlinked {
                needs::release(tx, *job)??;
            }
            for job in &found.lanes {
                lane::let_out(tx, *job)?;
            }
            Ok(found.count())
        })
    }
}

struct StuckLists {
    unlinked: Vec<JobId>,
    untold: Vec<JobId>,
    lanes: Vec<JobId>,
}

impl StuckLists {
    fn count(&self) -> StuckCalls {
        let count = |jobs: &[JobId]| jobs.len() as u64;
        StuckCalls { unlinked: count(&self.unlinked), untold: count(&self.untold), lanes: count(&self.lanes) }
    }
}

fn find(tx: &mut dyn Tx) -> Result<StuckLists> {
    Ok(StuckLists { unlinked: tx.rows(UNLINKED, &[])?, untold: tx.rows(UNTOLD, &[])?, lanes: tx.rows(LANES, &[])? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn a_look_at_all_jobs_reads_each_once() {
        for sql in [CONTRADICTORY, WITHOUT_SERVICE] {
            assert_eq!(ways_to_jobs(sql), ["SCAN asyncq_job"], "{sql}");
        }
    }

    #[test]
    fn only_calls_that_wait_are_looked_at() {
        for sql in [UNLINKED, UNTOLD, LANES] {
            let ways = ways_to_jobs(sql);
            assert!(
                ways.iter().all(|way| !way.starts_with("SCAN") || way.contains("asyncq_job_blocked")),
                "{sql}: {ways:?}"
            );
        }
    }
}
