//! When there is next something to do.

use super::Store;
use super::claim::READY;
use super::cycle::look_at;
use super::engine::Tx;
use crate::domain::due::{NextTask, Task};
use crate::domain::rate::Allowance;
use crate::domain::{job::JobId, service::ServiceName, time::Timestamp};
use crate::error::Result;

const NEXT_JOB: &str = "SELECT id FROM asyncq_job WHERE state = 'delayed' AND service = ?1 ORDER BY run_at LIMIT 1";
const NEXT_SCHEDULE: &str = "SELECT name FROM asyncq_schedule
    WHERE paused = 0 AND next_tick IS NOT NULL AND service = ?1 ORDER BY next_tick LIMIT 1";

impl Store {
    /// What to do next on these services, and the time now.
    pub fn next_task(&mut self, services: &[ServiceName]) -> Result<(Timestamp, Option<NextTask>)> {
        self.read(|tx| {
            let mut next = None;
            for service in services {
                let found =
                    next_of(tx, service)?.map(|(at, what)| NextTask { at, service: Some(service.clone()), what });
                next = [next, found].into_iter().flatten().min_by_key(|task: &NextTask| task.at);
            }
            Ok((tx.now(), next))
        })
    }
}

/// What there is to do next on a service.
fn next_of(tx: &mut dyn Tx, service: &ServiceName) -> Result<Option<(Timestamp, Task)>> {
    let now = tx.now();
    let Some(status) = look_at(tx, service)? else { return Ok(None) };
    let mut tasks = Vec::new();
    if status.free() > 0 {
        if let Some(job) = tx.row::<JobId>(READY, &[service.into()])? {
            let at = status.allowance.and_then(Allowance::next).unwrap_or(now);
            tasks.push((at.max(now), Task::Job(job)));
        }
        let job: Option<JobId> = tx.row(NEXT_JOB, &[service.into()])?;
        tasks.extend(status.next_due.zip(job).map(|(due, job)| (due.max(now), Task::Job(job))));
        tasks.extend(status.expires.map(|at| (at.max(now), Task::Upkeep)));
    }
    let schedule: Option<String> = tx.row(NEXT_SCHEDULE, &[service.into()])?;
    tasks.extend(status.next_tick.zip(schedule).map(|(tick, name)| (tick.max(now), Task::Schedule(name))));
    let next = tasks.into_iter().min_by_key(|(at, _)| *at);
    // A processor would have something to do, but none of the above.
    let is_upkeep = status.ready && status.free() > 0 && next.as_ref().is_none_or(|(at, _)| *at > now);
    Ok(if is_upkeep { Some((now, Task::Upkeep)) } else { next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn what_is_next_is_found_by_its_index() {
        assert_eq!(ways_to_jobs(NEXT_JOB), ["COVERING INDEX asyncq_job_delayed (service=?)"]);
        let schedule = "SEARCH asyncq_schedule USING COVERING INDEX asyncq_schedule_next (service=? AND next_tick>?)";
        assert_eq!(plan(NEXT_SCHEDULE), [schedule]);
    }
}
