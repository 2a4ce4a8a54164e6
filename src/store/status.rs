//! Overviews of services, from indexes alone.

use std::collections::HashMap;

use super::Store;
use super::cycle::look_at;
use super::engine::{Tx, Value};
use crate::domain::job::State;
use crate::domain::service::{Service, ServiceName};
use crate::domain::status::{Count, ServiceOverview};
use crate::domain::time::Timestamp;
use crate::error::Result;

const QUEUED: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM asyncq_job WHERE state = 'queued' AND service = ?1 LIMIT ?2) AS some";
const BLOCKED: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM asyncq_job WHERE waits <> 0 AND service = ?1 LIMIT ?2) AS some";
const DELAYED: &str =
    "SELECT COUNT(*) FROM (SELECT 1 FROM asyncq_job WHERE state = 'delayed' AND service = ?1 LIMIT ?2) AS some";
/// Of all services, the newest.
const STOPPED: &str = "SELECT service, COUNT(*) FROM (SELECT service FROM asyncq_job
    WHERE state = ?1 AND (finished_at IS NOT NULL AND state <> 'completed' OR state = 'held') ORDER BY id DESC LIMIT ?2) AS some
    GROUP BY service";
const RUNNING: &str = "SELECT service, COUNT(*) FROM asyncq_job
    WHERE token IS NOT NULL AND state = 'processing' AND immediate = 0 GROUP BY service";
/// The first call of the queue with a larger priority than `?2`.
const FIRST: &str = "SELECT priority, run_at FROM asyncq_job WHERE state = 'queued' AND service = ?1 AND priority > ?2
    ORDER BY priority, run_at LIMIT 1";
const NEXT_SCHEDULE: &str = "SELECT next_tick, name FROM asyncq_schedule
    WHERE paused = 0 AND next_tick IS NOT NULL AND service = ?1 ORDER BY next_tick LIMIT 1";
const SCHEDULES: &str = "SELECT COUNT(*), COALESCE(SUM(paused), 0) FROM asyncq_schedule WHERE service = ?1";

/// How many jobs are counted at most.
const MOST: u64 = 100_000;

/// The same for held and failed jobs. Their index covers all services, so each job is looked up for its service.
const MOST_STOPPED: u64 = 10_000;

/// How many priorities to look at to find the oldest call of a queue.
const PRIORITIES: usize = 100;

impl Store {
    /// Overviews of these services at one moment, and that moment. `exact` counts all jobs.
    pub fn overview(&mut self, services: &[Service], exact: bool) -> Result<(Timestamp, Vec<ServiceOverview>)> {
        let (most, most_stopped) = if exact { (i64::MAX as u64, i64::MAX as u64) } else { (MOST, MOST_STOPPED) };
        self.read(|tx| {
            let running: HashMap<String, u64> = tx.rows::<(String, u64)>(RUNNING, &[])?.into_iter().collect();
            let held = stopped(tx, State::Held, most_stopped)?;
            let errors = stopped(tx, State::Error, most_stopped)?;
            let services = services.iter().map(|service| {
                let (name, key) = (&service.name, service.name.as_str());
                let [queued, blocked, delayed] = [
                    count(tx, QUEUED, name.into(), most)?,
                    count(tx, BLOCKED, name.into(), most)?,
                    count(tx, DELAYED, name.into(), most)?,
                ];
                let next_due = look_at(tx, name)?.and_then(|status| status.next_due);
                // A due call that is still `delayed` waits for a processor, too.
                let overdue = next_due.filter(|due| *due <= tx.now());
                Ok(ServiceOverview {
                    service: service.clone(),
                    running: running.get(key).copied().unwrap_or(0),
                    queued,
                    blocked,
                    delayed,
                    held: held.of(key),
                    errors: errors.of(key),
                    oldest: [oldest(tx, name.into())?, overdue].into_iter().flatten().min(),
                    next_due,
                    next_tick: tx.row(NEXT_SCHEDULE, &[name.into()])?,
                })
            });
            let services: Result<Vec<_>> = services.collect();
            Ok((tx.now(), services?))
        })
    }

    /// How many calls of these services are queued. It counts at most 100,000.
    pub fn count_queued(&mut self, services: &[&ServiceName]) -> Result<Count> {
        self.read(|tx| {
            let mut all = 0;
            for service in services {
                all += count(tx, QUEUED, (*service).into(), MOST - all)?.number;
                if all == MOST {
                    break;
                }
            }
            Ok(Count { number: all, more: all == MOST })
        })
    }

    /// How many schedules these services have, and how many of them are paused.
    pub fn count_schedules(&mut self, services: &[Service]) -> Result<(u64, u64)> {
        self.read(|tx| {
            let mut all = (0, 0);
            for service in services {
                let (count, paused): (u64, u64) = tx.row(SCHEDULES, &[(&service.name).into()])?.unwrap_or_default();
                all = (all.0 + count, all.1 + paused);
            }
            Ok(all)
        })
    }
}

fn count(tx: &mut dyn Tx, sql: &str, service: Value<'_>, most: u64) -> Result<Count> {
    let number: u64 = tx.row(sql, &[service, most.cast_signed().into()])?.unwrap_or_default();
    Ok(Count { number, more: number == most })
}

/// How many jobs each service has in a state that has an index for all services.
struct Stopped {
    counts: HashMap<String, u64>,
    /// Whether not all were counted.
    more: bool,
}

impl Stopped {
    fn of(&self, service: &str) -> Count {
        Count { number: self.counts.get(service).copied().unwrap_or(0), more: self.more }
    }
}

fn stopped(tx: &mut dyn Tx, state: State, most: u64) -> Result<Stopped> {
    let counts: Vec<(String, u64)> = tx.rows(STOPPED, &[state.into(), most.cast_signed().into()])?;
    let more = counts.iter().map(|(_, count)| count).sum::<u64>() == most;
    Ok(Stopped { counts: counts.into_iter().collect(), more })
}

/// Since when the oldest call of a queue has been due. Calls of one priority are in that order.
fn oldest(tx: &mut dyn Tx, service: Value<'_>) -> Result<Option<Timestamp>> {
    let (mut oldest, mut after) = (None, i64::MIN);
    for _ in 0..PRIORITIES {
        let Some((priority, due)) = tx.row::<(i64, Timestamp)>(FIRST, &[service, after.into()])? else { break };
        after = priority;
        oldest = [oldest, Some(due)].into_iter().flatten().min();
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn each_number_comes_from_an_index() {
        for (sql, way) in [
            (QUEUED, "COVERING INDEX asyncq_job_queued (service=?)"),
            (BLOCKED, "COVERING INDEX asyncq_job_blocked (service=?)"),
            (DELAYED, "COVERING INDEX asyncq_job_delayed (service=?)"),
            (STOPPED, "INDEX asyncq_job_stopped (state=?)"),
            (FIRST, "COVERING INDEX asyncq_job_queued (service=? AND priority>?)"),
        ] {
            assert_eq!(ways_to_jobs(sql), [way], "{sql}");
        }
        assert!(plan(RUNNING)[0].contains("USING INDEX asyncq_job_token"), "{:?}", plan(RUNNING));
        assert!(plan(NEXT_SCHEDULE)[0].contains("asyncq_schedule_next (service=?"), "{:?}", plan(NEXT_SCHEDULE));
    }
}
