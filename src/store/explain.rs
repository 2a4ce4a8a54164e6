//! Facts that explain why a call does not run. An index answers each statement.

use super::columns::groups;
use super::engine::Value;
use super::{Store, needs};
use crate::domain::job::{Job, JobId};
use crate::domain::needs::Need;
use crate::domain::processor::ProcessorId;
use crate::domain::reason::{MOST, RunningJob};
use crate::domain::{service::ServiceName, time::Timestamp};
use crate::error::Result;

/// Of the calls that wait in lane `?2` of service `?1`, those before a call with this priority, time and number.
const BEFORE_IN_LANE: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM asyncq_job
    WHERE waits <> 0 AND waits = 2 AND service = ?1 AND lane = ?2 AND (priority, run_at, id) < (?3, ?4, ?5) LIMIT ?6) AS before_it";
const RUNNING: &str = "SELECT j.id, j.started_at, f.timeout FROM asyncq_job j
    LEFT JOIN asyncq_function f ON f.service = j.service AND f.name = j.function
    WHERE j.token IS NOT NULL AND j.service = ?1 AND j.state = 'processing' AND j.immediate = 0 ORDER BY +j.id LIMIT ?2";
const FIRST_PRIORITY: &str =
    "SELECT priority FROM asyncq_job WHERE state = 'queued' AND service = ?1 ORDER BY priority LIMIT 1";
/// Among the newest jobs, of all services.
const LAST_END: &str = "SELECT MAX(finished_at) FROM
    (SELECT service, finished_at FROM asyncq_job ORDER BY id DESC LIMIT ?2) AS newest WHERE service = ?1";
const OLDER: &str = "SELECT older FROM asyncq_schema";

/// How many running jobs are named at most.
const FEW: i64 = 10;

groups! { RunningJob { id, started_at, timeout } }

impl Store {
    /// How many calls wait before a job in its lane; it counts at most [`MOST`].
    pub fn before_in_lane(&mut self, job: &Job) -> Result<u64> {
        let Some(lane) = &job.options.lane else { return Ok(0) };
        let args: [Value<'_>; 6] = [
            (&job.call.service).into(),
            lane.into(),
            job.options.priority.into(),
            job.times.run_at.into(),
            job.id.into(),
            MOST.cast_signed().into(),
        ];
        self.read(|tx| Ok(tx.row(BEFORE_IN_LANE, &args)?.unwrap_or_default()))
    }

    /// The oldest running jobs of a service, at most ten.
    pub fn running_jobs(&mut self, service: &ServiceName) -> Result<Vec<RunningJob>> {
        self.read(|tx| tx.rows(RUNNING, &[service.into(), FEW.into()]))
    }

    /// The smallest priority in the queue of a service.
    pub fn first_priority(&mut self, service: &ServiceName) -> Result<Option<i64>> {
        self.read(|tx| tx.row(FIRST_PRIORITY, &[service.into()]))
    }

    /// The first job that has ended in another way than this call needs, and what the call needs.
    pub fn unmet_need(&mut self, call: JobId) -> Result<Option<(JobId, Need)>> {
        self.read(|tx| needs::first_unmet(tx, call, JobId(0)))
    }

    /// When a job of a service last ended, if it is among the newest jobs.
    pub fn last_end(&mut self, service: &ServiceName) -> Result<Option<Timestamp>> {
        let newest = MOST.cast_signed().into();
        self.read(|tx| Ok(tx.row::<Option<Timestamp>>(LAST_END, &[service.into(), newest])?.flatten()))
    }

    /// The newest processor that worked when the store was last upgraded. It and all earlier ones are older than the store.
    pub fn newest_older(&mut self) -> Result<Option<ProcessorId>> {
        self.read(|tx| Ok(tx.row::<Option<ProcessorId>>(OLDER, &[])?.flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn each_question_is_answered_by_an_index() {
        for (sql, way) in [
            (
                BEFORE_IN_LANE,
                "COVERING INDEX asyncq_job_blocked (service=? AND waits=? AND lane=? AND (priority,run_at)<(?,?))",
            ),
            (FIRST_PRIORITY, "COVERING INDEX asyncq_job_queued (service=?)"),
        ] {
            assert_eq!(ways_to_jobs(sql), [way], "{sql}");
        }
        // The sign keeps the planner from a walk through all jobs in their order.
        let steps = plan(RUNNING);
        assert!(steps[0].contains("USING INDEX asyncq_job_token"), "{steps:?}");
        let steps = plan(LAST_END);
        assert!(!steps.iter().any(|step| step.contains("B-TREE")), "{steps:?}");
    }
}
