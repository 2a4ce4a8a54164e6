//! Making a store what a manifest says, in one transaction.

use std::collections::BTreeSet;

use super::columns::Column;
use super::engine::{Row, Tx, damaged};
use super::purpose::Purpose;
use super::waiting::{cancel_waiting, count_waiting};
use super::{Store, function, hook, schedule, service};
use crate::domain::function::{Definition, Function};
use crate::domain::hook::{HookTarget, Hooks};
use crate::domain::manifest_plan::{ExistingStore, ManifestPlan, PlannedChange, WantedSchedule, WantedStore};
use crate::domain::name::{FunctionName, ServiceName};
use crate::domain::pattern::ServiceSelection;
use crate::domain::removal::IfWaiting;
use crate::domain::schedule::{Schedule, ScheduleDefinition, ScheduleName};
use crate::domain::time::Timestamp;
use crate::error::Result;

const HOOKS: &str = "SELECT service, name, on_error, on_success FROM asyncq_function
    WHERE on_error IS NOT NULL OR on_success IS NOT NULL ORDER BY service, name";

impl Store {
    /// What [`Store::apply_manifest`] would change now. Delays no writer.
    ///
    /// # Errors
    /// As [`Store::apply_manifest`].
    pub fn plan_manifest(&mut self, wanted: &WantedStore, waiting: IfWaiting) -> Result<ManifestPlan> {
        self.read(|tx| plan(tx, wanted, waiting, Purpose::Look))
    }

    /// Makes the store what is wanted, all of it or nothing, and says what that changed. If nothing has to change, it writes
    /// nothing.
    ///
    /// # Errors
    /// As [`ManifestPlan::new`]; [`Kind::Denied`](crate::Kind::Denied) when a function is to go whose calls wait and are not
    /// to be cancelled, [`Kind::Busy`](crate::Kind::Busy) when some of them run; [`Kind::Usage`](crate::Kind::Usage) for a
    /// schedule that would never tick.
    pub fn apply_manifest(&mut self, wanted: &WantedStore, waiting: IfWaiting) -> Result<ManifestPlan> {
        if self.plan_manifest(wanted, waiting)?.is_empty() {
            return Ok(ManifestPlan::default());
        }
        let by = (self.user)();
        self.write(|tx| {
            let mut plan = plan(tx, wanted, waiting, Purpose::Change)?;
            carry_out(tx, &mut plan, &by)?;
            Ok(plan)
        })
    }
}

impl Store {
    /// The services of a selection, with their functions and schedules.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::Kind::NotFound) when there is no service of a name.
    pub fn export(&mut self, selection: &ServiceSelection) -> Result<ExistingStore> {
        self.read(|tx| {
            let mut there = ExistingStore { services: service::select(tx, selection)?, ..ExistingStore::default() };
            there.services.sort_by(|one, other| one.name.cmp(&other.name));
            for service in &there.services {
                there.functions.extend(functions(tx, &service.name, Purpose::Look)?);
                there.schedules.extend(schedules(tx, &service.name, Purpose::Look)?);
            }
            there.schedules.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(there)
        })
    }
}

/// What has to change. Refuses whatever would be refused while it is carried out.
fn plan(tx: &mut dyn Tx, wanted: &WantedStore, waiting: IfWaiting, purpose: Purpose) -> Result<ManifestPlan> {
    let mut plan = ManifestPlan::new(wanted, &existing(tx, wanted, purpose)?)?;
    for change in &mut plan.changes {
        if let PlannedChange::RemoveFunction(HookTarget { service, function }, removed) = change {
            removed.cancelled = count_waiting(tx, service, function, waiting)?;
        }
    }
    Ok(plan)
}

fn existing(tx: &mut dyn Tx, wanted: &WantedStore, purpose: Purpose) -> Result<ExistingStore> {
    let mut there = ExistingStore { services: service::all_for(tx, purpose)?, ..ExistingStore::default() };
    for service in wanted.mentioned() {
        there.functions.extend(functions(tx, service, purpose)?);
    }
    for (service, _) in &wanted.services {
        there.schedules.extend(schedules(tx, service, purpose)?);
    }
    let of_services: BTreeSet<ScheduleName> = there.schedules.iter().map(|it| it.name.clone()).collect();
    for wanted in wanted.schedules.iter().filter(|it| !of_services.contains(&it.name)) {
        there.schedules.extend(schedule_named(tx, &wanted.name, purpose)?);
    }
    if wanted.prune {
        there.hooks = tx.rows::<(HookTarget, Hooks)>(HOOKS, &[])?;
    }
    Ok(there)
}

fn carry_out(tx: &mut dyn Tx, plan: &mut ManifestPlan, by: &str) -> Result<()> {
    let mut generation = None;
    for change in &mut plan.changes {
        match change {
            PlannedChange::AddService(name, is) => service::add_planned(tx, name, is)?,
            PlannedChange::SetService(_, new) => service::set(tx, new)?,
            PlannedChange::AddFunction(target, is) => add_function(tx, target, is)?,
            PlannedChange::SetFunction(old, new) => drop(function::replace(tx, old, new, &mut generation)?),
            PlannedChange::AddSchedule(new) => add_schedule(tx, new)?,
            PlannedChange::SetSchedule(old, new, paused) => replace_schedule(tx, old, new, *paused)?,
            PlannedChange::RemoveSchedule(name) => schedule::remove(tx, name)?,
            PlannedChange::RemoveFunction(HookTarget { service, function: name }, removed) => {
                *removed = cancel_waiting(tx, service, Some(name), (IfWaiting::Cancel, by))?;
                tx.change(function::REMOVE, &function::key(service, name))?;
            }
        }
    }
    // Now that all of them are there.
    for change in &plan.changes {
        match change {
            PlannedChange::AddService(_, new) => hook::find(tx, new.hooks.targets())?,
            PlannedChange::SetService(_, new) => hook::find(tx, new.hooks.targets())?,
            PlannedChange::AddFunction(_, new) | PlannedChange::SetFunction(_, new) => {
                hook::find(tx, new.policy.hooks.targets())?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The functions of a service, by name; none if there is no such service.
fn functions(tx: &mut dyn Tx, service: &ServiceName, purpose: Purpose) -> Result<Vec<Function>> {
    tx.rows(purpose.choose(function::FUNCTIONS, function::FUNCTIONS_TO_CHANGE), &[service.into()])
}

/// Adds a function that was not there. Its hooks may come later.
fn add_function(tx: &mut dyn Tx, target: &HookTarget, is: &Definition) -> Result<()> {
    is.check()?;
    let there = function::add(tx, function::TO_CHANGE, (&target.service, &target.function), is)?;
    if there.is_some() { Err(tx.passed_over()) } else { Ok(()) }
}

/// The schedules of a service, by name.
fn schedules(tx: &mut dyn Tx, service: &ServiceName, purpose: Purpose) -> Result<Vec<Schedule>> {
    tx.rows(purpose.choose(schedule::SCHEDULES, schedule::SCHEDULES_TO_CHANGE), &[service.into()])
}

/// The schedule of a name, if there is one.
fn schedule_named(tx: &mut dyn Tx, name: &ScheduleName, purpose: Purpose) -> Result<Option<Schedule>> {
    tx.row(purpose.choose(schedule::SCHEDULE, schedule::TO_CHANGE), &[name.as_str().into()])
}

/// The first tick of a schedule that a file describes. If its last one has passed, it has none: the file is right nevertheless.
fn first_planned(tx: &mut dyn Tx, name: &ScheduleName, is: &ScheduleDefinition) -> Result<Option<Timestamp>> {
    let (now, table) = (tx.now(), &is.timetable);
    if table.until().is_some_and(|until| until <= now) {
        return Ok(None);
    }
    table.first(now).map(Some).map_err(|error| {
        let message = format!("schedule `{name}`: {error}");
        error.reworded(error.kind(), message)
    })
}

/// Adds a schedule that was not there.
fn add_schedule(tx: &mut dyn Tx, new: &WantedSchedule) -> Result<()> {
    schedule::fit(tx, &new.definition.call)?;
    let first = first_planned(tx, &new.name, &new.definition)?;
    schedule::add(tx, &new.name, &new.definition, first)?;
    if new.paused == Some(true) { tx.change(schedule::PAUSE, &[new.name.as_str().into()]) } else { Ok(()) }
}

/// Gives a schedule that was read to be changed another definition. If its times change or its pause ends, it goes on with the
/// first tick after now.
fn replace_schedule(tx: &mut dyn Tx, old: &Schedule, new: &ScheduleDefinition, paused: bool) -> Result<()> {
    schedule::fit(tx, &new.call)?;
    let mut changed = Schedule { definition: new.clone(), ..old.clone() };
    if new.timetable != old.definition.timetable {
        changed.progress.next_tick = first_planned(tx, &old.name, new)?;
    }
    schedule::set(tx, &changed)?;
    let name = old.name.as_str().into();
    match (old.paused, paused) {
        (false, true) => tx.change(schedule::PAUSE, &[name]),
        (true, false) => {
            let next = new.timetable.next(tx.now());
            tx.change(schedule::RESUME, &[name, next.into()])
        }
        _ => Ok(()),
    }
}

impl Column for HookTarget {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        let bad = |error: crate::error::Error| damaged(&error.to_string());
        let service = ServiceName::parse(row.str(*at)?).map_err(bad)?;
        let function = FunctionName::parse(row.str(*at + 1)?).map_err(bad)?;
        *at += 2;
        Ok(HookTarget { service, function })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn hooks_are_read_in_one_walk_without_sorting() {
        assert_eq!(plan(HOOKS), ["SCAN asyncq_function"]);
    }

    #[test]
    fn what_a_file_is_about_is_found_by_its_service() {
        for sql in [function::FUNCTIONS, function::FUNCTIONS_TO_CHANGE] {
            assert_eq!(plan(sql), ["SEARCH asyncq_function USING PRIMARY KEY (service=?)"], "{sql}");
        }
    }
}
