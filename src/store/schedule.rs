//! Schedules in the store.

use std::time::Duration;

use super::columns::Column;
use super::engine::{Row, Tx, Value, damaged};
use super::masking::mask_call;
use super::service::{self, which};
use super::{Store, clock, function};
use crate::domain::call::{Call, Principal};
use crate::domain::function::FunctionName;
use crate::domain::job::JobId;
use crate::domain::json::Json;
use crate::domain::lane::Lane;
use crate::domain::meta::Meta;
use crate::domain::new_job::Priority;
use crate::domain::schedule::{Schedule, ScheduleChange, ScheduleDefinition, ScheduleName, ScheduleProgress};
use crate::domain::service::{Added, Defined, ServiceName};
use crate::domain::signature::fitted;
use crate::domain::tick::{Lateness, Missed, Overlap};
use crate::domain::time::{Timestamp, millis};
use crate::domain::timetable::{Rule, Timetable};
use crate::error::{Error, Kind, Result};

macro_rules! select_schedule {
    ($which:literal) => {
        concat!(
            "SELECT name, service, function, args, kwargs, principal, site, priority, lane, cron, zone, every, missed, within,
            overlap, from_at, until_at, description, expires, paused, next_tick, last_tick, last_job, fired, skipped, last_skip,
            created_at, meta FROM asyncq_schedule ",
            $which
        )
    };
}
pub(super) use select_schedule;

pub(super) const SCHEDULE: &str = select_schedule!("WHERE name = ?1");
pub(super) const TO_CHANGE: &str = select_schedule!("WHERE name = ?1 /*! FOR NO KEY UPDATE */");
pub(super) const SCHEDULES: &str = select_schedule!("WHERE service = ?1 ORDER BY name");
pub(super) const SCHEDULES_TO_CHANGE: &str =
    select_schedule!("WHERE service = ?1 ORDER BY name /*! FOR NO KEY UPDATE */");
const ALL_SCHEDULES: &str = select_schedule!("ORDER BY name");
const NAMES: &str = "SELECT name FROM asyncq_schedule ORDER BY name";
const ADD: &str =
    "INSERT INTO asyncq_schedule (service, function, args, kwargs, principal, site, priority, lane, cron, zone,
    every, missed, within, overlap, from_at, until_at, description, expires, meta, name, next_tick, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
    ON CONFLICT (name) DO NOTHING";
const SET: &str = "UPDATE asyncq_schedule SET service = ?1, function = ?2, args = ?3, kwargs = ?4, principal = ?5, site = ?6,
    priority = ?7, lane = ?8, cron = ?9, zone = ?10, every = ?11, missed = ?12, within = ?13, overlap = ?14, from_at = ?15,
    until_at = ?16, description = ?17, expires = ?18, meta = ?19, next_tick = ?21 WHERE name = ?20";
pub(super) const PAUSE: &str = "UPDATE asyncq_schedule SET paused = 1 WHERE name = ?1 AND paused = 0";
pub(super) const RESUME: &str = "UPDATE asyncq_schedule SET paused = 0, next_tick = ?2 WHERE name = ?1 AND paused = 1";
const REMOVE: &str = "DELETE FROM asyncq_schedule WHERE name = ?1";

impl Store {
    /// Adds a schedule. Its first tick is the next one. Returns whether it is new.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such function, [`Kind::Usage`] when it would never tick, or the function does not take
    /// its arguments, [`Kind::Denied`] when the name is taken by another schedule.
    pub fn add_schedule(&mut self, name: &ScheduleName, is: &ScheduleDefinition) -> Result<Added> {
        self.write(|tx| {
            let call = fit(tx, &is.call);
            if let Some(there) = tx.row::<Schedule>(TO_CHANGE, &[name.as_str().into()])? {
                let call = call.unwrap_or_else(|_| is.call.clone());
                let differences = there.definition.differences(&ScheduleDefinition { call, ..is.clone() });
                if differences.is_empty() {
                    tx.force_sync()?;
                    return Ok(Added::Same);
                }
                return Err(taken(name, is, &differences));
            }
            let is = ScheduleDefinition { call: call?, ..is.clone() };
            let first = is.timetable.first(tx.now())?;
            add(tx, name, &is, Some(first))?;
            Ok(Added::New)
        })
    }

    /// Changes a schedule. If its times change, the next tick is the first one after now.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such schedule or function, [`Kind::Usage`] when it would never tick, or the function
    /// does not take its arguments; and what `change` answers.
    pub fn set_schedule(&mut self, name: &ScheduleName, change: &ScheduleChange<'_>) -> Result<Schedule> {
        self.write(|tx| {
            let mut schedule = find_by(tx, TO_CHANGE, name)?;
            let mut changed = change(&schedule.definition)?;
            changed.call = fit(tx, &changed.call)?;
            if changed.timetable != schedule.definition.timetable {
                schedule.progress.next_tick = Some(changed.timetable.first(tx.now())?);
            }
            schedule.definition = changed;
            set(tx, &schedule)?;
            Ok(schedule)
        })
    }

    /// Makes sure that there is a schedule like this. Changes an existing one that differs, but keeps its pause; if its times
    /// change, its next tick is the first one after now.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such function, [`Kind::Usage`] when it would never tick, or the function does not take
    /// its arguments.
    pub fn define_schedule(&mut self, name: &ScheduleName, is: &ScheduleDefinition) -> Result<Defined> {
        self.write(|tx| {
            let there = tx.row::<Schedule>(TO_CHANGE, &[name.as_str().into()])?;
            let call = fit(tx, &is.call);
            let is = &ScheduleDefinition { call: call.as_ref().unwrap_or(&is.call).clone(), ..is.clone() };
            if there.as_ref().is_some_and(|there| there.definition == *is) {
                tx.force_sync()?;
                return Ok(Defined::Same);
            }
            call?;
            let Some(mut schedule) = there else {
                let first = is.timetable.first(tx.now())?;
                add(tx, name, is, Some(first))?;
                return Ok(Defined::Added);
            };
            if is.timetable != schedule.definition.timetable {
                schedule.progress.next_tick = Some(is.timetable.first(tx.now())?);
            }
            schedule.definition = is.clone();
            set(tx, &schedule)?;
            Ok(Defined::Changed)
        })
    }

    /// The schedule of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn schedule(&mut self, name: &ScheduleName) -> Result<Schedule> {
        let reveals = self.reveals;
        self.read(|tx| {
            let mut schedule = find_by(tx, SCHEDULE, name)?;
            show(tx, std::slice::from_mut(&mut schedule), reveals)?;
            Ok(schedule)
        })
    }

    /// The schedules of a service, or all, by name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service.
    pub fn schedules(&mut self, service: Option<&ServiceName>) -> Result<Vec<Schedule>> {
        let reveals = self.reveals;
        self.read(|tx| {
            let mut schedules = match service {
                None => tx.rows(ALL_SCHEDULES, &[])?,
                Some(name) => {
                    service::find(tx, name)?;
                    tx.rows(SCHEDULES, &[name.into()])?
                }
            };
            show(tx, &mut schedules, reveals)?;
            Ok(schedules)
        })
    }

    /// Pauses schedules, all or none of them.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when one of them is not there.
    pub fn pause_schedules(&mut self, names: &[ScheduleName]) -> Result<()> {
        self.write(|tx| {
            for name in names {
                if tx.execute(PAUSE, &[name.as_str().into()])? == 0 {
                    find_by(tx, SCHEDULE, name)?;
                }
            }
            Ok(())
        })
    }

    /// Resumes paused schedules with their next ticks, all or none of them.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when one of them does not exist.
    pub fn resume_schedules(&mut self, names: &[ScheduleName]) -> Result<()> {
        self.write(|tx| {
            let now = tx.now();
            for name in names {
                let schedule = find_by(tx, TO_CHANGE, name)?;
                let next = schedule.definition.timetable.next(now);
                tx.execute(RESUME, &[name.as_str().into(), next.into()])?;
            }
            clock::note_at_least(tx)
        })
    }

    /// Removes a schedule. Its jobs stay.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name.
    pub fn remove_schedule(&mut self, name: &ScheduleName) -> Result<()> {
        self.write(|tx| {
            // Also one that cannot be read.
            remove(tx, name)
        })
    }
}

/// The call of a schedule as its function gets it. Nobody removes the function before the commit.
pub(super) fn fit(tx: &mut dyn Tx, call: &Call) -> Result<Call> {
    let function = function::find_to_use(tx, &call.service, &call.function)?;
    fitted(call.clone(), function.definition.inputs.takes.as_ref())
}

/// Adds a schedule whose function was found.
pub(super) fn add(
    tx: &mut dyn Tx,
    name: &ScheduleName,
    is: &ScheduleDefinition,
    first: Option<Timestamp>,
) -> Result<()> {
    let columns = ScheduleColumns::of(is);
    let rest = [name.as_str().into(), first.into(), tx.now().into()];
    tx.change(ADD, &[&columns.values()[..], &rest].concat())?;
    clock::note_at_least(tx)
}

/// Changes a schedule that was read with a lock, and whose function was found.
pub(super) fn set(tx: &mut dyn Tx, schedule: &Schedule) -> Result<()> {
    let columns = ScheduleColumns::of(&schedule.definition);
    let rest = [schedule.name.as_str().into(), schedule.progress.next_tick.into()];
    tx.change(SET, &[&columns.values()[..], &rest].concat())?;
    clock::note_at_least(tx)
}

/// Removes a schedule.
pub(super) fn remove(tx: &mut dyn Tx, name: &ScheduleName) -> Result<()> {
    if tx.execute(REMOVE, &[name.as_str().into()])? == 0 { Err(no_schedule(tx, name)) } else { Ok(()) }
}

/// Hides the secret arguments of schedules, unless somebody may see them.
fn show(tx: &mut dyn Tx, schedules: &mut [Schedule], reveals: bool) -> Result<()> {
    if !reveals {
        for schedule in schedules {
            mask_call(tx, &mut schedule.definition.call)?;
        }
    }
    Ok(())
}

/// The error for a name that is taken by a schedule that differs from this one.
fn taken(name: &ScheduleName, wanted: &ScheduleDefinition, differences: &[&str]) -> Error {
    let rule = &wanted.timetable.rule;
    let hint = match (differences, rule.as_cron(), rule.as_every()) {
        (["rule"], Some((cron, zone)), _) => {
            format!("`asyncq schedule set {name} --cron '{cron}' --tz {zone}` changes it")
        }
        (["rule"], None, Some(every)) => {
            format!("`asyncq schedule set {name} --every {}` changes it", crate::domain::time::write_span(every))
        }
        _ => format!("`asyncq schedule show {name}` shows it, `asyncq schedule set {name}` changes it"),
    };
    let differences = match differences {
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
        [] => String::new(),
    };
    Error::new(Kind::Denied, format!("schedule `{name}` exists with another {differences}")).with_hint(hint)
}

/// The schedule of that name, or an error that suggests a similar name.
pub(super) fn find_by(tx: &mut dyn Tx, sql: &str, name: &ScheduleName) -> Result<Schedule> {
    let found = tx.row(sql, &[name.as_str().into()])?;
    found.map_or_else(|| Err(no_schedule(tx, name)), Ok)
}

fn no_schedule(tx: &mut dyn Tx, name: &ScheduleName) -> Error {
    let names: Vec<String> = match tx.rows(NAMES, &[]) {
        Ok(names) => names,
        Err(error) => return error,
    };
    let hint = which(name.as_str(), &names, "asyncq schedule list", &format!("asyncq schedule add {name}"));
    Error::new(Kind::NotFound, format!("there is no schedule `{name}`")).with_hint(hint)
}

/// What a schedule does, as it is stored.
struct ScheduleColumns<'a> {
    is: &'a ScheduleDefinition,
}

impl ScheduleColumns<'_> {
    fn of(is: &ScheduleDefinition) -> ScheduleColumns<'_> {
        ScheduleColumns { is }
    }

    /// The first parameters of [`ADD`] and [`SET`].
    fn values(&self) -> [Value<'_>; 19] {
        let ScheduleDefinition { call, timetable, lateness, priority, lane, expires, meta, description } = self.is;
        let (cron, zone) = timetable.rule.as_cron().unzip();
        [
            (&call.service).into(),
            (&call.function).into(),
            call.args.as_str().into(),
            call.kwargs.as_str().into(),
            call.principal.as_ref().map(Principal::as_str).into(),
            call.site.as_ref().into(),
            priority.get().into(),
            lane.as_ref().map(Lane::as_str).into(),
            cron.into(),
            zone.into(),
            timetable.rule.as_every().map(millis).into(),
            lateness.missed().as_str().into(),
            lateness.given_within().map(millis).into(),
            lateness.overlap().as_str().into(),
            timetable.from().into(),
            timetable.until().into(),
            description.as_ref().into(),
            expires.map(millis).into(),
            meta.as_ref().map(Meta::as_str).into(),
        ]
    }
}

impl Column for Schedule {
    fn read(row: &dyn Row, _: &mut usize) -> Result<Self> {
        let broken =
            |what: &str| damaged(&format!("schedule `{}`: {what}", row.lossy(0).ok().flatten().unwrap_or_default()));
        let bad = |error: Error| broken(&error.to_string());
        let json =
            |column: usize| Json::parse(row.str(column)?).map_err(|fault| broken(&format!("its arguments: {fault}")));
        let call = Call {
            service: ServiceName::parse(row.str(1)?).map_err(bad)?,
            function: FunctionName::parse(row.str(2)?).map_err(bad)?,
            args: json(3)?,
            kwargs: json(4)?,
            principal: row.text(5)?.map(Principal::parse).transpose().map_err(bad)?,
            site: row.text(6)?.map(str::to_owned),
            is_typed: false,
        };
        if !call.args.is_array() || !call.kwargs.is_object() {
            return Err(broken("its arguments are not an array and an object"));
        }
        let meta = |row: &dyn Row| match row.text(27)? {
            Some(text) => Meta::stored(text.to_owned()).map_err(|fault| broken(&format!("its metadata: {fault}"))),
            None => Ok(None),
        };
        let span = |millis: i64| Duration::from_millis(millis.unsigned_abs());
        let rule = match (row.text(9)?, row.text(10)?, row.int(11)?) {
            (Some(cron), Some(zone), None) => Rule::cron(cron, zone).map_err(bad)?,
            (None, None, Some(every)) => Rule::every(span(every)).map_err(bad)?,
            _ => return Err(broken("it has no rule, or two")),
        };
        let lateness = Missed::from_name(row.str(12)?).zip(Overlap::from_name(row.str(14)?));
        let (missed, overlap) = lateness.ok_or_else(|| broken("what it does with missed ticks is unknown"))?;
        let skip = row.text(25)?.map(serde_json::from_str).transpose();
        Ok(Schedule {
            name: ScheduleName::parse(row.str(0)?).map_err(bad)?,
            definition: ScheduleDefinition {
                call,
                timetable: Timetable::new(rule, row.time(15)?, row.time(16)?).map_err(bad)?,
                lateness: Lateness::new(missed, row.int(13)?.map(span), Some(overlap)).map_err(bad)?,
                priority: Priority::new(row.i64(7)?).ok_or_else(|| broken("its priority is out of range"))?,
                lane: row.text(8)?.map(Lane::parse).transpose().map_err(bad)?,
                expires: row.int(18)?.map(span),
                meta: meta(row)?,
                description: row.lossy(17)?,
            },
            paused: row.bool(19)?,
            progress: ScheduleProgress {
                next_tick: row.time(20)?,
                last_tick: row.time(21)?,
                last_job: row.int(22)?.map(JobId),
                fired: row.i64(23)?.unsigned_abs(),
                skipped: row.i64(24)?.unsigned_abs(),
                last_skip: skip.map_err(|_| broken("why its last tick made no job is unknown"))?,
            },
            created_at: row.i64(26).map(Timestamp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn schedules_are_found_by_their_names() {
        for sql in [SCHEDULE, PAUSE, RESUME, REMOVE] {
            assert_eq!(plan(sql), ["SEARCH asyncq_schedule USING PRIMARY KEY (name=?)"], "{sql}");
        }
    }
}
