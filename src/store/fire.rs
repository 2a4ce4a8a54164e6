//! Makes jobs of the due ticks of schedules.
//!
//! Invariant: the transaction that makes the job of a tick also notes the tick in `asyncq_origin`, where it is unique, and moves
//! the schedule forward from the tick that it has read there.

use std::time::Duration;

use super::columns::Column;
use super::engine::{Tx, Value, damaged};
use super::enqueue;
use super::schedule::select_schedule;
use crate::domain::job::{JobId, State};
use crate::domain::job_tick::JobTick;
use crate::domain::new_job::{CallOptions, Expiry, NewJob};
use crate::domain::schedule::{Schedule, ScheduleDefinition};
use crate::domain::service::ServiceName;
use crate::domain::tick::{Firing, Shift, Skip, TRIED_AGAIN, TickJob, TickTrouble, Why};
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};
use crate::failpoint::reached;

/// How many schedules one transaction fires at most, and after how many jobs it stops.
const SCHEDULES_AT_ONCE: usize = 100;
const JOBS_AT_ONCE: usize = 1000;

/// A last tick that is further in the future than this comes from a wrong clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The earliest tick of a service.
const NEXT_TICK: &str = "SELECT next_tick FROM asyncq_schedule
    WHERE paused = 0 AND next_tick IS NOT NULL AND service = ?1 ORDER BY next_tick LIMIT 1";
const DUE: &str = select_schedule!(
    "WHERE paused = 0 AND service = ?1 AND next_tick <= ?2 ORDER BY next_tick LIMIT ?3
    /*! FOR NO KEY UPDATE SKIP LOCKED */"
);
const STATE: &str = "SELECT state FROM asyncq_job WHERE id = ?1";
const HAS_JOB: &str = "SELECT 1 FROM asyncq_origin WHERE schedule = ?1 AND tick = ?2";
const ORIGIN: &str = "INSERT INTO asyncq_origin (job, schedule, tick, missed) VALUES (?1, ?2, ?3, ?4)";
const MOVE: &str = "UPDATE asyncq_schedule SET next_tick = ?3, last_tick = ?4, last_job = COALESCE(?5, last_job),
    fired = fired + ?6, skipped = skipped + ?7, last_skip = COALESCE(?8, last_skip) WHERE name = ?1 AND next_tick = ?2";
/// Schedules that a wrong clock may have put to sleep: those with a last tick in the future, and those without one.
const ASLEEP: &str = select_schedule!(
    "WHERE paused = 0 AND (next_tick IS NULL OR next_tick > ?1) AND (last_tick IS NULL OR last_tick > ?2)
    ORDER BY name /*! FOR NO KEY UPDATE */"
);
const WAKE: &str = "UPDATE asyncq_schedule SET next_tick = ?2, last_tick = NULL WHERE name = ?1";
const TICK_OF: &str = "SELECT o.schedule, o.tick, o.missed, s.zone
    FROM asyncq_origin o LEFT JOIN asyncq_schedule s ON s.name = o.schedule WHERE o.job = ?1 AND o.schedule IS NOT NULL";

/// What firing the schedules of a service did.
#[derive(Default)]
pub(super) struct Fired {
    /// Whether ticks were due.
    pub(super) any: bool,
    /// What went wrong, and with which schedules.
    pub(super) troubles: Vec<(String, TickTrouble)>,
    /// The next tick then.
    pub(super) next_tick: Option<Timestamp>,
}

/// Makes jobs of the due ticks of a service. Handles only some schedules at a time.
pub(super) fn fire(tx: &mut dyn Tx, service: &ServiceName) -> Result<Fired> {
    let now = tx.now();
    let (mut due, mut fired) = (Vec::new(), Fired::default());
    tx.query(DUE, &[service.into(), now.into(), SCHEDULES_AT_ONCE.into()], &mut |row| {
        due.push((row.str(0)?.to_owned(), Timestamp(row.i64(20)?), Schedule::read(row, &mut 0)));
        Ok(())
    })?;
    let mut jobs = 0;
    for (name, next_tick, schedule) in due {
        reached("tick chosen");
        fired.any = true;
        match schedule {
            Ok(schedule) => jobs += fire_one(tx, &schedule, &mut fired.troubles)?,
            Err(error) => {
                let skip = Skip { tick: next_tick.0, why: Why::Unreadable };
                let firing = Firing {
                    jobs: Vec::new(),
                    skipped: 1,
                    last_skip: Some(skip),
                    next_tick: Some(now.after(TRIED_AGAIN)),
                    last_tick: Some(next_tick),
                    shift: None,
                };
                move_on(tx, (&name, next_tick), &firing, &[])?;
                fired.troubles.push((name, TickTrouble::Unreadable(error)));
            }
        }
        if jobs >= JOBS_AT_ONCE {
            break;
        }
    }
    fired.next_tick = tx.row(NEXT_TICK, &[service.into()])?;
    Ok(fired)
}

/// Makes jobs of the due ticks of a schedule. Returns how many.
fn fire_one(tx: &mut dyn Tx, schedule: &Schedule, troubles: &mut Vec<(String, TickTrouble)>) -> Result<usize> {
    let now = tx.now();
    let name = schedule.name.as_str();
    let state = schedule.progress.last_job.map(|job| tx.row::<State>(STATE, &[job.into()])).transpose()?.flatten();
    let Some(standing) = schedule.standing(state) else { return Ok(0) };
    let ScheduleDefinition { timetable, lateness, .. } = &schedule.definition;
    let mut firing = standing.fire(timetable, lateness, now);
    let (made, refused) = make(tx, schedule, &firing.jobs)?;
    if let Some(shift) = firing.shift {
        troubles.push((name.to_owned(), TickTrouble::Shifted(shift)));
    }
    if let Some(error) = refused {
        let last = firing.jobs.last().map_or(standing.next_tick, |job| job.tick);
        firing.skipped += (firing.jobs.len() - made.len()) as u64;
        firing.last_skip = Some(Skip { tick: last.0, why: refusal(&error) });
        troubles.push((name.to_owned(), TickTrouble::Refused(error)));
    }
    reached("job made");
    move_on(tx, (name, standing.next_tick), &firing, &made)?;
    Ok(made.len())
}

fn refusal(error: &Error) -> Why {
    Why::Refused { error: Some(error.to_string()), hint: error.hint().map(str::to_owned) }
}

/// Makes jobs for these ticks, except for those that have one. Returns the jobs, and why one was refused, if one was.
pub(super) fn make(tx: &mut dyn Tx, schedule: &Schedule, ticks: &[TickJob]) -> Result<(Vec<JobId>, Option<Error>)> {
    let name = schedule.name.as_str();
    let mut open = Vec::with_capacity(ticks.len());
    for job in ticks {
        if !tx.has(HAS_JOB, &[name.into(), job.tick.into()])? {
            open.push(job);
        }
    }
    let jobs: Vec<NewJob> = open.iter().map(|job| new_job(&schedule.definition, job.tick)).collect();
    let (mut made, mut refused) = (Vec::with_capacity(jobs.len()), None);
    for (job, tick) in enqueue::make(tx, &jobs)?.into_iter().zip(open) {
        match job {
            Ok(job) => {
                let missed = i64::try_from(tick.missed).unwrap_or(i64::MAX);
                tx.execute(ORIGIN, &[job.into(), name.into(), tick.tick.into(), missed.into()])?;
                made.push(job);
            }
            Err(error) => refused = Some(error),
        }
    }
    Ok((made, refused))
}

/// The job of a tick. It has no user, not even an unknown one: that marks jobs that asyncq has made.
fn new_job(is: &ScheduleDefinition, tick: Timestamp) -> NewJob {
    let expires = is.expires.map(|span| Expiry::At(tick.after(span)));
    let (lane, meta) = (is.lane.clone(), is.meta.clone());
    let options = CallOptions { priority: is.priority, lane, expires, meta, ..CallOptions::default() };
    NewJob { options, os_user: Some(String::new()), ..NewJob::new(is.call.clone()) }
}

/// Moves a schedule on from this tick.
fn move_on(tx: &mut dyn Tx, (name, tick): (&str, Timestamp), firing: &Firing, made: &[JobId]) -> Result<()> {
    let skip = firing.last_skip.as_ref().map(|skip| serde_json::to_string(skip).unwrap_or_default());
    let skipped = i64::try_from(firing.skipped).unwrap_or(i64::MAX);
    let args: [Value<'_>; 8] = [
        name.into(),
        tick.into(),
        firing.next_tick.into(),
        firing.last_tick.into(),
        made.last().copied().into(),
        made.len().into(),
        skipped.into(),
        skip.as_ref().into(),
    ];
    if tx.execute(MOVE, &args)? == 0 {
        return Err(damaged(&format!("schedule `{name}` stands in an index at another tick than its own")));
    }
    reached("tick moved");
    Ok(())
}

/// Lets schedules go on from now that a clock which was ahead has put to sleep. Returns which ones.
pub(super) fn wake(tx: &mut dyn Tx) -> Result<Vec<(String, TickTrouble)>> {
    let now = tx.now();
    let (mut asleep, mut woken) = (Vec::new(), Vec::new());
    tx.query(ASLEEP, &[now.into(), now.after(DAY).into()], &mut |row| {
        // If one cannot be read, that is reported when it is due.
        asleep.extend(Schedule::read(row, &mut 0).ok());
        Ok(())
    })?;
    for schedule in asleep {
        let next = schedule.definition.timetable.next(now);
        if next != schedule.progress.next_tick {
            let name = schedule.name.as_str();
            tx.execute(WAKE, &[name.into(), next.into()])?;
            woken.push((name.to_owned(), TickTrouble::Shifted(Shift::Clock)));
        }
    }
    Ok(woken)
}

/// The tick that has made a job, if one has.
pub(super) fn tick_of(tx: &mut dyn Tx, job: JobId) -> Result<Option<JobTick>> {
    Ok(tx.row::<Option<JobTick>>(TICK_OF, &[job.into()])?.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn due_schedules_and_ticks_are_found_by_their_indexes() {
        let next = "SEARCH asyncq_schedule USING INDEX asyncq_schedule_next (service=? AND next_tick<?)";
        assert_eq!(plan(DUE), [next]);
        let next = "SEARCH asyncq_schedule USING COVERING INDEX asyncq_schedule_next (service=? AND next_tick>?)";
        assert_eq!(plan(NEXT_TICK), [next]);
        let origin =
            "SEARCH asyncq_origin USING COVERING INDEX sqlite_autoindex_asyncq_origin_1 (schedule=? AND tick=?)";
        assert_eq!(plan(HAS_JOB), [origin]);
        for sql in [MOVE, WAKE] {
            assert_eq!(plan(sql), ["SEARCH asyncq_schedule USING PRIMARY KEY (name=?)"], "{sql}");
        }
        assert_eq!(ways_to_jobs(STATE), ["INTEGER PRIMARY KEY (rowid=?)"]);
        let of_job = ["SEARCH o USING INTEGER PRIMARY KEY (rowid=?)", "SEARCH s USING PRIMARY KEY (name=?) LEFT-JOIN"];
        assert_eq!(plan(TICK_OF), of_job);
    }
}
