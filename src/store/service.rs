//! Services in the store.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Store;
use super::columns::Column;
use super::engine::{Row, Tx, Value};
use super::hook;
use super::purpose::Purpose;
use super::used::{self, RETENTION};
use super::waiting::{cancel_waiting, remove_schedules};
use crate::domain::hook::Hooks;
use crate::domain::pattern::{ServicePattern, ServiceSelection};
use crate::domain::pause::Pause;
use crate::domain::rate::{Allowance, Rate};
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::retention::Retention;
use crate::domain::service::{Added, Defined, Service, ServiceChange, ServiceName};
use crate::domain::{suggest::nearest, time::Timestamp, time::millis};
use crate::error::{Error, Kind, Result};

/// The status of a service, for one processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct ServiceStatus {
    /// Whether it or the store is paused, or it was removed.
    pub paused: bool,
    /// Whether a newer build has upgraded the store, so that this one may only end what it has begun.
    pub outdated: bool,
    /// How many of its calls may be running at once.
    pub concurrency: i64,
    /// How many slots other processors have taken.
    pub taken: i64,
    /// Whether a call is ready to be claimed.
    pub ready: bool,
    /// Whether the next call is a poison job that this processor claims once it holds nothing else.
    pub wants_alone: bool,
    /// Whether it has hooks for its functions.
    pub has_hooks: bool,
    /// When the next call that is not ready yet is due.
    pub next_due: Option<Timestamp>,
    /// When the next call that has not begun expires.
    pub expires: Option<Timestamp>,
    /// When the next schedule ticks; `None` while the service is paused.
    pub next_tick: Option<Timestamp>,
    /// What the rate of the service lets start, if it has one.
    pub allowance: Option<Allowance>,
    /// The database's clock.
    pub now: Timestamp,
}

impl ServiceStatus {
    /// When the next thing happens that is not ready yet.
    #[must_use]
    pub fn next_event(&self) -> Option<Timestamp> {
        [self.next_due, self.next_tick].into_iter().flatten().min()
    }

    /// When the rate of the service lets a call start, if it lets none start now.
    #[must_use]
    pub fn waits_for_rate(&self) -> Option<Timestamp> {
        self.allowance.and_then(Allowance::next).filter(|_| self.ready)
    }

    /// Whether ticks of schedules are due.
    #[must_use]
    pub fn has_due_ticks(&self) -> bool {
        !self.outdated && self.next_tick.is_some_and(|tick| tick <= self.now)
    }

    /// How many slots this processor may have, including its current ones.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.paused || self.outdated { 0 } else { usize::try_from(self.concurrency - self.taken).unwrap_or(0) }
    }
}

macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT name, concurrency, paused, paused_why, created_at, lane_width, rate, on_error, on_success, keep,
            keep_errors FROM asyncq_service ",
            $which
        )
    };
}
const SERVICE: &str = select!("WHERE name = ?1");
const TO_CHANGE: &str = select!("WHERE name = ?1 /*! FOR NO KEY UPDATE */");
const TO_REMOVE: &str = select!("WHERE name = ?1 /*! FOR UPDATE */");
const NEXT_DUE: &str = "SELECT run_at FROM asyncq_job WHERE state = 'delayed' AND service = ?1 ORDER BY run_at LIMIT 1";
const LOCK: &str = "SELECT name FROM asyncq_service WHERE name = ?1 /*! FOR NO KEY UPDATE */";
const SERVICES: &str = select!("ORDER BY name");
const SERVICES_TO_CHANGE: &str = select!("ORDER BY name /*! FOR NO KEY UPDATE */");
/// Whether a call of service `?1` is queued, blocked, running, or due by `?2` but not queued yet.
const BUSY_WITH: &str = "SELECT 1 WHERE EXISTS (SELECT 1 FROM asyncq_job WHERE service = ?1 AND state = 'queued')
    OR EXISTS (SELECT 1 FROM asyncq_job WHERE service = ?1 AND state = 'blocked' AND waits <> 0)
    OR EXISTS (SELECT 1 FROM asyncq_job WHERE service = ?1 AND state = 'delayed' AND run_at <= ?2)
    OR EXISTS (SELECT 1 FROM asyncq_job WHERE service = ?1 AND state = 'processing' AND token IS NOT NULL)";
const ADD: &str =
    "INSERT INTO asyncq_service (name, concurrency, created_at, lane_width, on_error, on_success, rate, keep,
    keep_errors) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO NOTHING";
const SET: &str = "UPDATE asyncq_service SET concurrency = ?2, paused = ?3, lane_width = ?4, on_error = ?5,
    on_success = ?6, rate = ?7, paused_why = ?8, keep = ?9, keep_errors = ?10 WHERE name = ?1";
const START_OVER: &str = "UPDATE asyncq_schema SET pruned_at = 0, pruned_to = 0 WHERE pruned_to > 0";
const BUSY: &str = "SELECT 1 FROM asyncq_slot WHERE service = ?1 LIMIT 1";
const REMOVE: &str = "DELETE FROM asyncq_service WHERE name = ?1";
const FUNCTIONS_TO_REMOVE: &str = "SELECT name FROM asyncq_function WHERE service = ?1 /*! FOR UPDATE */";

impl Store {
    /// Registers a service. It may exist already if it does not differ from what is wanted.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the name is taken by a service with other limits.
    pub fn add_service(&mut self, name: &ServiceName, wanted: &ServiceChange) -> Result<Added> {
        self.write(|tx| {
            let Some(there) = add_with_hooks(tx, name, wanted)? else { return Ok(Added::New) };
            let (options, values): (Vec<_>, Vec<_>) = wanted.differences(&there).into_iter().unzip();
            if options.is_empty() {
                tx.force_sync()?;
                return Ok(Added::Same);
            }
            let message = format!("service `{name}` exists with {}", values.join(" and "));
            let hint = format!("`asyncq service set {name} {}` changes it", options.join(" "));
            Err(Error::new(Kind::Denied, message).with_hint(hint))
        })
    }

    /// Makes sure that there is a service with these limits. An existing service keeps everything else; a new one gets the default
    /// of 1.
    pub fn define_service(&mut self, name: &ServiceName, wanted: &ServiceChange) -> Result<Defined> {
        self.write(|tx| {
            let Some(there) = add_with_hooks(tx, name, wanted)? else { return Ok(Defined::Added) };
            let changed = wanted.apply(&there);
            if changed == there {
                tx.force_sync()?;
                return Ok(Defined::Same);
            }
            hook::find(tx, wanted.hooks.targets())?;
            set(tx, &changed)?;
            Ok(Defined::Changed)
        })
    }

    /// The service of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn service(&mut self, name: &ServiceName) -> Result<Service> {
        self.read(|tx| find(tx, name))
    }

    /// The first service of a selection with a call that is queued, blocked or running. A due call counts as queued.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no service of a name in it.
    pub fn busy_service(&mut self, selection: &ServiceSelection) -> Result<Option<ServiceName>> {
        self.read(|tx| {
            let now = tx.now().into();
            for Service { name, .. } in select(tx, selection)? {
                if tx.has(BUSY_WITH, &[(&name).into(), now])? {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        })
    }

    /// All services, by name.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        self.read(|tx| tx.rows(SERVICES, &[]))
    }

    /// The services of a selection, in its order.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no service of a name in it.
    pub fn select_services(&mut self, selection: &ServiceSelection) -> Result<Vec<Service>> {
        self.read(|tx| select(tx, selection))
    }

    /// Pauses the selected services, or ends their pauses. Returns how many services there are.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when a named service does not exist.
    pub fn pause_services(&mut self, selection: &ServiceSelection, pause: Option<&Pause>) -> Result<usize> {
        let change = ServiceChange { pause: Some(pause.cloned()), ..ServiceChange::default() };
        self.write(|tx| {
            let services = select(tx, selection)?;
            for service in &services {
                let now = find_by(tx, TO_CHANGE, &service.name)?;
                set(tx, &change.apply(&now))?;
            }
            Ok(services.len())
        })
    }

    /// Changes a service.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name.
    pub fn set_service(&mut self, name: &ServiceName, change: &ServiceChange) -> Result<Service> {
        self.write(|tx| {
            let service = change.apply(&find_by(tx, TO_CHANGE, name)?);
            hook::find(tx, change.hooks.targets())?;
            set(tx, &service)?;
            Ok(service)
        })
    }

    /// Removes a service, its functions and its schedules. Ended jobs stay.
    ///
    /// # Errors
    /// [`Kind::Denied`] when jobs of it are running, or when it has schedules or waiting jobs that are not to be removed and
    /// cancelled.
    pub fn remove_service(&mut self, name: &ServiceName, waiting: IfWaiting) -> Result<Removed> {
        let by = (self.user)();
        self.write(|tx| {
            find_by(tx, TO_REMOVE, name)?;
            hook::refuse_removal_of(tx, name)?;
            // Nobody makes a call of any of these before the commit, which removes them all.
            tx.query(FUNCTIONS_TO_REMOVE, &[name.into()], &mut |_| Ok(()))?;
            remove_schedules(tx, name, waiting)?;
            let removed = cancel_waiting(tx, name, None, (waiting, &by))?;
            if tx.has(BUSY, &[name.into()])? {
                let message = format!("a processor is at work on service `{name}`");
                return Err(Error::new(Kind::Denied, message).with_hint("wait until it has ended, or end it"));
            }
            tx.change(REMOVE, &[name.into()])?;
            Ok(removed)
        })
    }
}

/// Adds a service with these limits, whose hooks must exist. Returns the service of that name if there is one.
fn add_with_hooks(tx: &mut dyn Tx, name: &ServiceName, wanted: &ServiceChange) -> Result<Option<Service>> {
    let there = add_new(tx, name, wanted)?;
    if there.is_none() {
        hook::find(tx, wanted.hooks.targets())?;
    }
    Ok(there)
}

/// Adds a new service with everything that is wanted of it. Its hooks may be added later.
pub(super) fn add_planned(tx: &mut dyn Tx, name: &ServiceName, wanted: &ServiceChange) -> Result<()> {
    if add_new(tx, name, wanted)?.is_some() {
        return Err(tx.passed_over());
    }
    match &wanted.pause {
        Some(Some(_)) => {
            let new = wanted.apply(&find(tx, name)?);
            set(tx, &new)
        }
        _ => Ok(()),
    }
}

/// All services, by name.
pub(super) fn all_for(tx: &mut dyn Tx, purpose: Purpose) -> Result<Vec<Service>> {
    tx.rows(purpose.choose(SERVICES, SERVICES_TO_CHANGE), &[])
}

/// Adds a service with these limits. Returns the service of that name if there is one.
pub(super) fn add_new(tx: &mut dyn Tx, name: &ServiceName, wanted: &ServiceChange) -> Result<Option<Service>> {
    let [concurrency, lane_width] =
        [wanted.concurrency, wanted.lane_width].map(|limit| i64::from(limit.map_or(1, NonZeroU32::get)).into());
    let hooks = hook::texts(&wanted.hooks.apply(&Hooks::default()));
    let [on_error, on_success] = hooks.each_ref().map(|hook| hook.as_ref().into());
    let rate = wanted.rate.flatten().map(Rate::to_json);
    let retention = wanted.retention.apply(Retention::default());
    let [keep, keep_errors] = keeps(tx, retention)?;
    let now = tx.now().into();
    let new =
        [name.into(), concurrency, now, lane_width, on_error, on_success, rate.as_ref().into(), keep, keep_errors];
    add::<Service>(tx, (TO_CHANGE, &new[..1]), (ADD, &new))
}

/// Changes a service to this one.
pub(super) fn set(tx: &mut dyn Tx, service: &Service) -> Result<()> {
    let [concurrency, lane_width] = [service.concurrency, service.lane_width].map(|it| i64::from(it.get()).into());
    let hooks = hook::texts(&service.hooks);
    let [on_error, on_success] = hooks.each_ref().map(|hook| hook.as_ref().into());
    let rate = service.rate.map(Rate::to_json);
    let [keep, keep_errors] = keeps(tx, service.retention)?;
    tx.change(
        SET,
        &[
            (&service.name).into(),
            concurrency,
            service.pause.is_some().into(),
            lane_width,
            on_error,
            on_success,
            rate.as_ref().into(),
            service.pause.as_ref().and_then(|pause| pause.why.as_ref()).into(),
            keep,
            keep_errors,
        ],
    )
}

/// How long a service keeps its jobs, as it is stored. Also notes that some service limits that.
fn keeps(tx: &mut dyn Tx, retention: Retention) -> Result<[Value<'static>; 2]> {
    if retention != Retention::default() {
        used::note(tx, RETENTION)?;
        // Jobs that the rounds have passed have to be checked again by the new times.
        tx.execute(START_OVER, &[])?;
    }
    Ok([retention.ended, retention.errors].map(|span| span.map(millis).into()))
}

/// Adds a row that does not exist; returns the row that does. It looks first, because even an INSERT that does nothing fires the
/// triggers of the application.
pub(super) fn add<T: Column>(
    tx: &mut dyn Tx,
    (find, key): (&str, &[Value<'_>]),
    (add, new): (&str, &[Value<'_>]),
) -> Result<Option<T>> {
    let there = tx.row(find, key)?;
    if there.is_some() || tx.execute(add, new)? == 1 {
        return Ok(there);
    }
    // Somebody else has just added it.
    let there = tx.row(find, key)?;
    if there.is_none() { Err(tx.passed_over()) } else { Ok(there) }
}

/// The services of a selection, in its order.
pub(super) fn select(tx: &mut dyn Tx, selection: &ServiceSelection) -> Result<Vec<Service>> {
    for pattern in selection.services.iter().chain(&selection.except) {
        if let ServicePattern::Name(name) = pattern {
            find(tx, name)?;
        }
    }
    Ok(selection.choose(tx.rows(SERVICES, &[])?, |service: &Service| &service.name))
}

impl Column for Retention {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        let [ended, errors] = [row.int(*at)?, row.int(*at + 1)?]
            .map(|span| span.map(|millis| Duration::from_millis(millis.unsigned_abs())));
        *at += 2;
        Ok(Retention { ended, errors })
    }
}

impl Column for Option<Pause> {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        let (paused, why) = (row.bool(*at)?, row.lossy(*at + 1)?);
        *at += 2;
        Ok(paused.then_some(Pause { why }))
    }
}

/// The service of that name, or an error that suggests a similar name.
pub(super) fn find(tx: &mut dyn Tx, name: &ServiceName) -> Result<Service> {
    find_by(tx, SERVICE, name)
}

fn find_by(tx: &mut dyn Tx, sql: &str, name: &ServiceName) -> Result<Service> {
    if let Some(service) = tx.row(sql, &[name.into()])? {
        return Ok(service);
    }
    let names: Vec<String> = tx.rows(SERVICES, &[])?;
    let hint = which(name.as_str(), &names, "asyncq service list", &format!("asyncq service add {name}"));
    Err(Error::new(Kind::NotFound, format!("there is no service `{name}`")).with_hint(hint))
}

/// The hint for a name that is not one of `names`: a similar name, and the command that shows all or adds it.
pub(super) fn which(name: &str, names: &[String], list: &str, add: &str) -> String {
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? `{list}` shows all"),
        None if names.is_empty() => format!("`{add}` adds it"),
        None => format!("`{list}` shows all"),
    }
}

/// Until the commit, nobody else takes slots of a service, or claims a poison job of it.
pub(super) fn lock_service(tx: &mut dyn Tx, service: &ServiceName) -> Result<()> {
    tx.has(LOCK, &[service.into()]).map(drop)
}

/// When the next delayed call of a service is due.
pub(super) fn next_due(tx: &mut dyn Tx, service: &ServiceName) -> Result<Option<Timestamp>> {
    tx.row(NEXT_DUE, &[service.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn what_a_service_still_has_to_run_is_found_by_indexes() {
        assert_eq!(
            ways_to_jobs(BUSY_WITH),
            [
                "COVERING INDEX asyncq_job_queued (service=?)",
                "INDEX asyncq_job_blocked (service=?)",
                "COVERING INDEX asyncq_job_delayed (service=? AND run_at<?)",
                // It holds nothing but running jobs.
                "SCAN asyncq_job USING INDEX asyncq_job_token",
            ]
        );
    }
}
