//! Functions in the store.

use super::columns::Column;
use super::definition::{Columns, broken, read_definition};
use super::engine::{Row, Tx, Value};
use super::waiting::{cancel_waiting, refuse_called};
use super::{Store, hook, service};
use crate::domain::attempt::Failure;
use crate::domain::function::{Definition, Function, FunctionChange, FunctionName, Registered, WantedFunction};
use crate::domain::hook::Hooks;
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::service::{Added, Defined, ServiceChange, ServiceName};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};

macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT service, name, command, site, env, timeout, worker, created_at, args, stdin, generation, lane, retry,
            on_error, on_success, local, takes, secret, env_file, merge,
            CASE WHEN COALESCE(worker, lane, retry, on_error, on_success, takes, secret, env_file) IS NULL
            AND timeout IS NULL AND args = 'words' AND stdin = 'call' AND local + merge = 0 THEN 0 ELSE 1 END
            FROM asyncq_function ",
            $which
        )
    };
}
const FUNCTION: &str = select!("WHERE service = ?1 AND name = ?2");
const TO_USE: &str = select!("WHERE service = ?1 AND name = ?2 /*! FOR KEY SHARE */");
pub(super) const TO_CHANGE: &str = select!("WHERE service = ?1 AND name = ?2 /*! FOR NO KEY UPDATE */");
const TO_REMOVE: &str = select!("WHERE service = ?1 AND name = ?2 /*! FOR UPDATE */");
pub(super) const FUNCTIONS: &str = select!("WHERE service = ?1 ORDER BY name");
pub(super) const FUNCTIONS_TO_CHANGE: &str = select!("WHERE service = ?1 ORDER BY name /*! FOR NO KEY UPDATE */");
const ALL_FUNCTIONS: &str = select!("ORDER BY service, name");
const NAMES: &str = "SELECT name FROM asyncq_function WHERE service = ?1 ORDER BY name";
const ADD: &str =
    "INSERT INTO asyncq_function (service, name, command, site, env, timeout, worker, args, stdin, generation, lane, retry,
    on_error, on_success, local, takes, args_min, args_max, secret, env_file, merge, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
    ON CONFLICT (service, name) DO NOTHING";
const SET: &str = "UPDATE asyncq_function SET command = ?3, site = ?4, env = ?5, timeout = ?6, worker = ?7,
    args = ?8, stdin = ?9, generation = ?10, lane = ?11, retry = ?12, on_error = ?13, on_success = ?14,
    local = ?15, takes = ?16, args_min = ?17, args_max = ?18, secret = ?19, env_file = ?20, merge = ?21
    WHERE service = ?1 AND name = ?2";
const LATEST: &str = "SELECT coalesce(max(generation), 0) FROM asyncq_function";
pub(super) const REMOVE: &str = "DELETE FROM asyncq_function WHERE service = ?1 AND name = ?2";

impl Store {
    /// Registers a function on a service.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service, [`Kind::Denied`] when the name is taken by a function that is
    /// defined differently, [`Kind::Usage`] when its parts do not fit together.
    pub fn add_function(&mut self, service: &ServiceName, name: &FunctionName, is: &Definition) -> Result<Added> {
        is.check()?;
        self.write(|tx| {
            service::find(tx, service)?;
            let Some(there) = add(tx, FUNCTION, (service, name), is)? else {
                hook::find(tx, is.policy.hooks.targets())?;
                return Ok(Added::New);
            };
            if there.definition.is_like(is) {
                tx.force_sync()?;
                return Ok(Added::Same);
            }
            let message = format!("service `{service}` has a function `{name}` that is defined differently");
            let hint = format!(
                "`asyncq function show {service} {name}` shows it, `asyncq function set {service} {name}` changes it"
            );
            Err(Error::new(Kind::Denied, message).with_hint(hint))
        })
    }

    /// Adds a service with one function, in one transaction. An existing service stays as it is; returns `None` if it has no such
    /// function.
    ///
    /// # Errors
    /// What the store answers.
    pub fn add_service_with(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        is: &Definition,
    ) -> Result<Option<Added>> {
        self.write(|tx| {
            if service::add_new(tx, service, &ServiceChange::default())?.is_some() {
                let there: Option<Function> = tx.row(FUNCTION, &key(service, name))?;
                return Ok(there.map(|_| Added::Same));
            }
            add(tx, FUNCTION, (service, name), is)?;
            Ok(Some(Added::New))
        })
    }

    /// If a function is defined as `old`, gives it the site and the program of `new`. Returns whether there was one.
    pub fn repath_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        old: &Definition,
        new: &Definition,
    ) -> Result<bool> {
        self.write(|tx| {
            let there: Option<Function> = tx.row(TO_CHANGE, &key(service, name))?;
            let Some(there) = there.filter(|there| there.definition.is_like(old)) else { return Ok(false) };
            let changed = Definition { command: new.command.clone(), site: new.site.clone(), ..there.definition };
            Ok(tx.execute(SET, &[&key(service, name)[..], &Columns::of(&changed).values()].concat())? == 1)
        })
    }

    /// The function of that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function.
    pub fn function(&mut self, service: &ServiceName, name: &FunctionName) -> Result<Function> {
        self.read(|tx| find(tx, service, name))
    }

    /// The functions of one service, or of all, by name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service.
    pub fn functions(&mut self, service: Option<&ServiceName>) -> Result<Vec<Function>> {
        self.read(|tx| match service {
            None => tx.rows(ALL_FUNCTIONS, &[]),
            Some(name) => {
                service::find(tx, name)?;
                tx.rows(FUNCTIONS, &[name.into()])
            }
        })
    }

    /// Changes a function. Waiting calls then run with the new definition.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none of that name, [`Kind::Usage`] when its parts would not fit together, [`Kind::Denied`]
    /// when it is a hook and its new signature takes no call of a hook.
    pub fn set_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        change: &FunctionChange,
    ) -> Result<Function> {
        self.write(|tx| {
            let mut function = find_by(tx, TO_CHANGE, service, name)?;
            set(tx, &mut function, change)?;
            hook::find(tx, change.policy.hooks.targets())?;
            Ok(function)
        })
    }

    /// Adds missing functions, in one transaction. Changes those that differ from what is wanted if `change` says so; otherwise
    /// they stay as they are.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service, [`Kind::Invalid`] for a new function without a program or a site; then
    /// nothing is added or changed.
    pub fn define_functions(&mut self, wanted: &[WantedFunction], change: bool) -> Result<Vec<Registered>> {
        self.write(|tx| {
            let mut done = Vec::with_capacity(wanted.len());
            for wanted in wanted {
                done.push(define(tx, wanted, change)?);
            }
            // They may be hooks of each other.
            for (wanted, done) in wanted.iter().zip(&done) {
                if matches!(done.outcome, Defined::Added | Defined::Changed) {
                    hook::find(tx, wanted.policy.hooks.targets())?;
                }
            }
            if done.iter().all(|done| matches!(done.outcome, Defined::Same | Defined::Kept)) {
                tx.force_sync()?;
            }
            Ok(done)
        })
    }

    /// Removes a function. Ended jobs stay.
    ///
    /// # Errors
    /// [`Kind::Denied`] when jobs of it are running, when a schedule calls it, or when jobs wait and are not to be cancelled.
    pub fn remove_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        waiting: IfWaiting,
    ) -> Result<Removed> {
        let by = (self.user)();
        self.write(|tx| {
            // Also one that cannot be read.
            if !tx.has(TO_REMOVE, &key(service, name))? {
                find(tx, service, name)?;
            }
            refuse_called(tx, service, name)?;
            hook::refuse_removal(tx, service, name)?;
            let removed = cancel_waiting(tx, service, Some(name), (waiting, &by))?;
            tx.change(REMOVE, &key(service, name))?;
            Ok(removed)
        })
    }
}

/// Adds a function, unless `find` reads one with this name.
pub(super) fn add(
    tx: &mut dyn Tx,
    find: &str,
    (service, name): (&ServiceName, &FunctionName),
    is: &Definition,
) -> Result<Option<Function>> {
    let (key, columns) = (key(service, name), Columns::of(is));
    let new = [&key[..], &columns.values(), &[tx.now().into()]].concat();
    service::add(tx, (find, &key), (ADD, &new))
}

/// Changes a function that was read with a lock.
fn set(tx: &mut dyn Tx, function: &mut Function, change: &FunctionChange) -> Result<()> {
    let changed = change.apply(function.definition.clone());
    function.definition = replace(tx, function, &changed, &mut None)?;
    Ok(())
}

/// Gives a function that was read with a lock another definition. Returns that definition as it is stored. All functions that one
/// transaction changes get the same `generation`, if their workers have to start anew.
pub(super) fn replace(
    tx: &mut dyn Tx,
    old: &Function,
    new: &Definition,
    generation: &mut Option<i64>,
) -> Result<Definition> {
    let mut new = Definition { generation: old.definition.generation, ..new.clone() };
    new.check()?;
    if let Some(takes) = new.inputs.takes.as_ref().filter(|takes| old.definition.inputs.takes.as_ref() != Some(*takes))
    {
        hook::refuse_signature(tx, (&old.service, &old.name), takes)?;
    }
    if !old.definition.shares_worker(&old.definition.site, &new, &new.site) {
        let next = generation.map_or_else(|| next_generation(tx), Ok)?;
        (*generation, new.generation) = (Some(next), next);
    }
    tx.change(SET, &[&key(&old.service, &old.name)[..], &Columns::of(&new).values()].concat())?;
    Ok(new)
}

/// Adds a function, or changes one that differs if `may_change`.
fn define(tx: &mut dyn Tx, wanted: &WantedFunction, may_change: bool) -> Result<Registered> {
    let (service, name) = (&wanted.service, &wanted.name);
    let mut there: Option<Function> = tx.row(TO_CHANGE, &key(service, name))?;
    if there.is_none() {
        service::find(tx, service)?;
        let is = wanted.definition()?;
        is.check()?;
        there = add(tx, TO_CHANGE, (service, name), &is)?;
    }
    let Some(mut there) = there else { return Ok(Registered { outcome: Defined::Added, differs: Vec::new() }) };
    let mut change = wanted.change(&there.definition);
    if !may_change && there.definition.inputs.takes.is_none() {
        // Whoever may change it adds its signature.
        change.inputs.takes = None;
    }
    let differs = change.members();
    let outcome = match (differs.is_empty(), may_change) {
        (true, _) => Defined::Same,
        (false, false) => Defined::Kept,
        (false, true) => {
            set(tx, &mut there, &change)?;
            Defined::Changed
        }
    };
    Ok(Registered { outcome, differs })
}

/// The number of a deploy that happens now. It is higher than all earlier ones, even those of removed functions.
pub(super) fn next_generation(tx: &mut dyn Tx) -> Result<i64> {
    let latest = tx.row::<i64>(LATEST, &[])?.unwrap_or_default();
    Ok(tx.now().0.max(latest + 1))
}

/// The first two parameters of a statement about one function.
pub(super) fn key<'a>(service: &'a ServiceName, name: &'a FunctionName) -> [Value<'a>; 2] {
    [service.into(), name.into()]
}

impl Column for Function {
    fn read(row: &dyn Row, _: &mut usize) -> Result<Self> {
        Ok(Function {
            service: ServiceName::parse(row.str(0)?).map_err(|error| broken(row, &error.to_string()))?,
            name: FunctionName::parse(row.str(1)?).map_err(|error| broken(row, &error.to_string()))?,
            definition: read_definition(row)?,
            created_at: row.i64(7).map(Timestamp)?,
        })
    }
}

/// The definition of a function, with the hooks of its service if it has none; or why it has no definition that can run, which
/// affects only its own calls.
pub(super) fn definition(
    tx: &mut dyn Tx,
    (service, name): (&str, &str),
    of_service: &Hooks,
) -> Result<Result<Definition, Failure>> {
    let found = tx.first(FUNCTION, &[service.into(), name.into()], |row| {
        let mut definition = read_definition(row).map_err(|error| Failure::not_found(error.to_string()));
        if let Ok(definition) = &mut definition {
            definition.policy.hooks = std::mem::take(&mut definition.policy.hooks).or(of_service);
        }
        Ok(definition)
    })?;
    Ok(found.unwrap_or_else(|| Err(Failure::not_found("its function was removed meanwhile"))))
}

/// The function of that name, or an error that suggests a similar name.
pub(super) fn find(tx: &mut dyn Tx, service: &ServiceName, name: &FunctionName) -> Result<Function> {
    find_by(tx, FUNCTION, service, name)
}

/// The same, for a transaction that makes or wakes a call of the function. Nobody removes it before the commit.
pub(super) fn find_to_use(tx: &mut dyn Tx, service: &ServiceName, name: &FunctionName) -> Result<Function> {
    find_by(tx, TO_USE, service, name)
}

fn find_by(tx: &mut dyn Tx, sql: &str, service: &ServiceName, name: &FunctionName) -> Result<Function> {
    if let Some(function) = tx.row(sql, &key(service, name))? {
        return Ok(function);
    }
    service::find(tx, service)?;
    let names: Vec<String> = tx.rows(NAMES, &[service.into()])?;
    let error = Error::new(Kind::NotFound, format!("service `{service}` has no function `{name}`"));
    let add = format!("asyncq function add {service} {name} -- PROGRAM");
    Err(error.with_hint(service::which(name.as_str(), &names, &format!("asyncq function list {service}"), &add)))
}
