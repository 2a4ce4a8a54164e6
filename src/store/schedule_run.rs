//! Jobs that somebody makes for a schedule by hand, and the ticks of jobs.

use super::engine::Triggers;
use super::schedule::{TO_CHANGE, find_by};
use super::{Store, fire};
use crate::domain::job::JobId;
use crate::domain::job_tick::JobTick;
use crate::domain::schedule::{Backfill, Schedule, ScheduleName};
use crate::domain::tick::TickJob;
use crate::domain::time::Timestamp;
use crate::domain::timetable::Timetable;
use crate::error::{Error, Kind, Result};

/// How many ticks one backfill may have.
const MOST_TICKS: usize = 10_000;

impl Store {
    /// Makes one call of a schedule now, even if it is paused. Its ticks stay the same.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name; and as [`Store::enqueue`].
    pub fn run_schedule(&mut self, name: &ScheduleName) -> Result<JobId> {
        let made = self.make_ticks(name, &|schedule, now| {
            // Now must not be a tick of the schedule, because that tick makes a job itself.
            let is_tick = schedule.definition.timetable.next(Timestamp(now.0 - 1)) == Some(now);
            let first = if is_tick { Timestamp(now.0 + 1) } else { now };
            Ok(vec![first])
        })?;
        match made.jobs[..] {
            [job] => Ok(job),
            // Somebody has just run it, too.
            _ => Err(Error::new(Kind::Busy, format!("schedule `{name}` was run in this very moment"))
                .with_hint("run it again")),
        }
    }

    /// Makes a job for each tick of a schedule that has none, at `from` or later, before `until` and until now.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name, [`Kind::Usage`] for a time without ticks or with more than 10,000; and
    /// as [`Store::enqueue`]. Then it makes none.
    pub fn backfill(&mut self, name: &ScheduleName, from: Timestamp, until: Option<Timestamp>) -> Result<Backfill> {
        self.make_ticks(name, &|schedule, now| {
            let table = Timetable::new(schedule.definition.timetable.rule.clone(), Some(from), until)?;
            let ticks = table.ticks(Timestamp(i64::MIN)).take_while(|tick| *tick <= now);
            let ticks: Vec<Timestamp> = ticks.take(MOST_TICKS + 1).collect();
            if ticks.len() > MOST_TICKS {
                return Err(Error::new(
                    Kind::Usage,
                    format!("schedule `{name}` has more than {MOST_TICKS} ticks then"),
                )
                .with_hint("give `--from` and `--until` that are closer together"));
            }
            if ticks.is_empty() {
                return Err(Error::new(Kind::Usage, format!("schedule `{name}` has no tick then that has passed"))
                    .with_hint(format!("`asyncq schedule next {name} --from TIME` shows its ticks")));
            }
            Ok(ticks)
        })
    }

    /// Makes jobs for ticks that somebody names.
    fn make_ticks(
        &mut self,
        name: &ScheduleName,
        ticks: &dyn Fn(&Schedule, Timestamp) -> Result<Vec<Timestamp>>,
    ) -> Result<Backfill> {
        // The application's own triggers must see its calls.
        self.change(Triggers::IfForeign, |tx| {
            let schedule = find_by(tx, TO_CHANGE, name)?;
            let ticks: Vec<TickJob> =
                ticks(&schedule, tx.now())?.into_iter().map(|tick| TickJob { tick, missed: 0 }).collect();
            let (made, refused) = fire::make(tx, &schedule, &ticks)?;
            refused.map_or(Ok(()), Err)?;
            Ok(Backfill { had: ticks.len() - made.len(), jobs: made })
        })
    }

    /// The tick that has made a job, if one has.
    pub fn job_tick(&mut self, job: JobId) -> Result<Option<JobTick>> {
        self.read(|tx| fire::tick_of(tx, job))
    }
}
