//! What has to change in a store so that it is as a manifest says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::function::{Definition, Function};
use super::hook::{HookKind, HookTarget, Hooks};
use super::json::is_same;
use super::manifest_text::{EnvValues, differences, of_function, of_schedule, of_service};
use super::removal::Removed;
use super::schedule::{Schedule, ScheduleDefinition, ScheduleName};
use super::service::{Service, ServiceChange, ServiceName};
use crate::error::{Error, Kind, Result};

/// What a store is to have. Everything is looked up: sites are absolute, and variables have values.
#[derive(Debug, Clone, Default)]
pub struct WantedStore {
    /// Services; what is `None` in a change stays as it is.
    pub services: Vec<(ServiceName, ServiceChange)>,
    /// Functions.
    pub functions: Vec<(HookTarget, Definition)>,
    /// Schedules.
    pub schedules: Vec<WantedSchedule>,
    /// Whether other functions and schedules of these services are removed.
    pub prune: bool,
}

/// A schedule that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// What it calls, and when.
    pub definition: ScheduleDefinition,
    /// Whether it is paused; `None` leaves that as it is.
    pub paused: Option<bool>,
}

impl WantedStore {
    /// The services whose functions it is about, or names.
    #[must_use]
    pub fn mentioned(&self) -> BTreeSet<&ServiceName> {
        let services = self.services.iter().flat_map(|(name, change)| {
            std::iter::once(name).chain(change.hooks.targets().map(|(_, target)| &target.service))
        });
        let functions = self.functions.iter().flat_map(|(target, is)| {
            std::iter::once(&target.service).chain(is.policy.hooks.targets().map(|(_, target)| &target.service))
        });
        let schedules = self.schedules.iter().map(|schedule| &schedule.definition.call.service);
        services.chain(functions).chain(schedules).collect()
    }
}

/// What a store has, as far as it matters.
#[derive(Debug, Default)]
pub struct ExistingStore {
    /// All services.
    pub services: Vec<Service>,
    /// The functions of the services that are mentioned.
    pub functions: Vec<Function>,
    /// The schedules of the services of the manifest, and those that it names.
    pub schedules: Vec<Schedule>,
    /// All functions that have hooks, with these; needed only to prune.
    pub hooks: Vec<(HookTarget, Hooks)>,
}

/// The changes that make a store what a manifest says, in an order in which they can be made.
#[derive(Debug, Default)]
pub struct ManifestPlan {
    /// The changes.
    pub changes: Vec<PlannedChange>,
}

/// A change.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each stands for a change of the store, which costs far more")]
pub enum PlannedChange {
    /// A new service.
    AddService(ServiceName, ServiceChange),
    /// Another service, with the same name.
    SetService(Service, Service),
    /// A new function.
    AddFunction(HookTarget, Definition),
    /// Another definition of a function.
    SetFunction(Function, Definition),
    /// A new schedule.
    AddSchedule(WantedSchedule),
    /// Another definition of a schedule, and whether it is paused then.
    SetSchedule(Schedule, ScheduleDefinition, bool),
    /// A schedule surplus.
    RemoveSchedule(ScheduleName),
    /// A function goes, and these of its calls are cancelled.
    RemoveFunction(HookTarget, Removed),
}

/// As a line for people.
impl fmt::Display for PlannedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlannedChange::AddService(name, _) => write!(f, "+ service {name}"),
            PlannedChange::SetService(old, new) => {
                write!(f, "~ service {}: {}", old.name, differences(&of_service(old), &of_service(new)))
            }
            PlannedChange::AddFunction(target, _) => write!(f, "+ function {target}"),
            PlannedChange::SetFunction(old, new) => {
                let settings = |it| of_function(it, EnvValues::Shown);
                write!(f, "~ function {}: {}", old.target(), differences(&settings(&old.definition), &settings(new)))
            }
            PlannedChange::AddSchedule(schedule) => write!(f, "+ schedule {}", schedule.name),
            PlannedChange::SetSchedule(old, new, paused) => {
                let [old_settings, new] =
                    [(&old.definition, old.paused), (new, *paused)].map(|(it, paused)| of_schedule(it, paused));
                write!(f, "~ schedule {}: {}", old.name, differences(&old_settings, &new))
            }
            PlannedChange::RemoveSchedule(name) => write!(f, "- schedule {name}"),
            PlannedChange::RemoveFunction(target, removed) => {
                write!(f, "- function {target}")?;
                match removed.cancelled {
                    0 => Ok(()),
                    1 => write!(f, ", cancels 1 waiting call"),
                    many => write!(f, ", cancels {many} waiting calls"),
                }
            }
        }
    }
}

impl ManifestPlan {
    /// The plan for a store that has this.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when a service or a function is missing, [`Kind::Denied`] when a function is to go that others call.
    pub fn new(wanted: &WantedStore, there: &ExistingStore) -> Result<ManifestPlan> {
        let mut changes = Vec::new();
        let services: BTreeMap<&ServiceName, &Service> = there.services.iter().map(|it| (&it.name, it)).collect();
        for (name, change) in &wanted.services {
            match services.get(name) {
                None => changes.push(PlannedChange::AddService(name.clone(), change.clone())),
                Some(is) => {
                    let new = change.kept(is);
                    if new != **is {
                        changes.push(PlannedChange::SetService((*is).clone(), new));
                    }
                }
            }
        }
        let functions: HashMap<HookTarget, &Function> = there.functions.iter().map(|it| (it.target(), it)).collect();
        let named: BTreeSet<&ServiceName> = wanted.services.iter().map(|(name, _)| name).collect();
        for (target, is) in &wanted.functions {
            if !named.contains(&target.service) && !services.contains_key(&target.service) {
                return Err(no_service(target));
            }
            match functions.get(target) {
                None => changes.push(PlannedChange::AddFunction(target.clone(), is.clone())),
                Some(old) if old.definition.is_like(is) => {}
                Some(old) => changes.push(PlannedChange::SetFunction((*old).clone(), is.clone())),
            }
        }
        let schedules: HashMap<&str, &Schedule> = there.schedules.iter().map(|it| (it.name.as_str(), it)).collect();
        for schedule in &wanted.schedules {
            match schedules.get(schedule.name.as_str()) {
                None => changes.push(PlannedChange::AddSchedule(schedule.clone())),
                Some(old) => {
                    let (new, paused) = (schedule.like(old), schedule.paused.unwrap_or(old.paused));
                    if new != old.definition || paused != old.paused {
                        changes.push(PlannedChange::SetSchedule((*old).clone(), new, paused));
                    }
                }
            }
        }
        let surplus = Surplus::of(wanted, there);
        changes.extend(surplus.schedules.iter().map(|it| PlannedChange::RemoveSchedule((*it).clone())));
        let gone = Removed { cancelled: 0, oldest: Vec::new() };
        let removals = surplus.functions.iter().map(|it| PlannedChange::RemoveFunction(it.clone(), gone.clone()));
        changes.extend(removals);
        let new: BTreeSet<&HookTarget> = wanted.functions.iter().map(|(target, _)| target).collect();
        for (by, target) in wanted.uses() {
            let is_removed = surplus.functions.contains(&target);
            if is_removed || !(new.contains(&target) || functions.contains_key(&target)) {
                return Err(no_function(&by, &target, is_removed));
            }
        }
        surplus.refuse_hooks(wanted, there)?;
        Ok(ManifestPlan { changes })
    }

    /// Whether the store is as it is to be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl ServiceChange {
    /// The service with these changes. A pause without a reason keeps the reason of the one that is there.
    fn kept(&self, is: &Service) -> Service {
        let mut new = self.apply(is);
        if let (Some(old), Some(new)) = (&is.pause, &mut new.pause)
            && new.why.is_none()
        {
            new.why.clone_from(&old.why);
        }
        new
    }
}

impl WantedSchedule {
    /// Its definition, with the bytes of another one where the values are the same.
    fn like(&self, old: &Schedule) -> ScheduleDefinition {
        let (mut new, old) = (self.definition.clone(), &old.definition);
        if is_same(new.call.args.as_str(), old.call.args.as_str()) {
            new.call.args = old.call.args.clone();
        }
        if is_same(new.call.kwargs.as_str(), old.call.kwargs.as_str()) {
            new.call.kwargs = old.call.kwargs.clone();
        }
        if let (Some(meta), Some(is)) = (&new.meta, &old.meta)
            && is_same(meta.as_str(), is.as_str())
        {
            new.meta.clone_from(&old.meta);
        }
        new
    }
}

impl WantedStore {
    /// The functions that are called, each with who calls it.
    fn uses(&self) -> Vec<(String, HookTarget)> {
        let mut uses = Vec::new();
        let mut add = |kind: HookKind, of: String, target: Option<&HookTarget>| {
            if let Some(target) = target {
                uses.push((format!("`{}` of {of}", kind.as_str()), target.clone()));
            }
        };
        for kind in HookKind::ALL {
            for (name, change) in &self.services {
                add(kind, format!("service `{name}`"), change.hooks.get(kind).and_then(Option::as_ref));
            }
            for (target, is) in &self.functions {
                add(kind, format!("function `{target}`"), is.policy.hooks.get(kind));
            }
        }
        for schedule in &self.schedules {
            uses.push((format!("schedule `{}`", schedule.name), schedule.definition.target()));
        }
        uses
    }
}

/// What `--prune` removes.
struct Surplus<'a> {
    functions: BTreeSet<HookTarget>,
    schedules: Vec<&'a ScheduleName>,
}

impl<'a> Surplus<'a> {
    fn of(wanted: &WantedStore, there: &'a ExistingStore) -> Surplus<'a> {
        let mut surplus = Surplus { functions: BTreeSet::new(), schedules: Vec::new() };
        if !wanted.prune {
            return surplus;
        }
        let named: BTreeSet<&ServiceName> = wanted.services.iter().map(|(name, _)| name).collect();
        let functions: BTreeSet<&HookTarget> = wanted.functions.iter().map(|(target, _)| target).collect();
        let schedules: BTreeSet<&ScheduleName> = wanted.schedules.iter().map(|schedule| &schedule.name).collect();
        let rest = there.functions.iter().filter(|it| named.contains(&it.service)).map(Function::target);
        surplus.functions.extend(rest.filter(|it| !functions.contains(it)));
        let rest = there.schedules.iter().filter(|it| named.contains(&it.definition.call.service)).map(|it| &it.name);
        surplus.schedules.extend(rest.filter(|it| !schedules.contains(it)));
        surplus
    }

    /// Refuses to remove a function that something else calls which stays as it is.
    fn refuse_hooks(&self, wanted: &WantedStore, there: &ExistingStore) -> Result<()> {
        if self.functions.is_empty() {
            return Ok(());
        }
        let changed: BTreeSet<&HookTarget> = wanted.functions.iter().map(|(target, _)| target).collect();
        let named: BTreeSet<&ServiceName> = wanted.services.iter().map(|(name, _)| name).collect();
        let functions = there.hooks.iter().filter(|(of, _)| !changed.contains(of) && !self.functions.contains(of));
        let functions = functions.map(|(of, hooks)| {
            (format!("function `{of}`"), format!("function set {} {}", of.service, of.function), hooks)
        });
        let services = there.services.iter().filter(|it| !named.contains(&it.name));
        let services =
            services.map(|it| (format!("service `{}`", it.name), format!("service set {}", it.name), &it.hooks));
        for (of, set, hooks) in functions.chain(services) {
            for kind in HookKind::ALL {
                if let Some(target) = hooks.get(kind).filter(|target| self.functions.contains(target)) {
                    let message = format!("function `{target}` cannot be removed: it is a hook of {of}");
                    let hint = format!("`asyncq {set} --no-{}` takes the hook away", kind.option());
                    return Err(Error::new(Kind::Denied, message).with_hint(hint));
                }
            }
        }
        Ok(())
    }
}

fn no_service(target: &HookTarget) -> Error {
    let service = &target.service;
    Error::new(Kind::NotFound, format!("there is no service `{service}` for the function `{target}`"))
        .with_hint(format!("add [service.{service}] to the file, or `asyncq service add {service}`"))
}

/// The error for a function that is called, and is not there or surplus.
fn no_function(by: &str, target: &HookTarget, is_removed: bool) -> Error {
    let add = format!("add [function.\"{target}\"] to the file, or name another function");
    if is_removed {
        let message = format!("{by} calls `{target}`, which `--prune` removes");
        return Error::new(Kind::Denied, message).with_hint(add);
    }
    Error::new(Kind::NotFound, format!("{by} calls `{target}`, which is neither in the file nor in the store"))
        .with_hint(add)
}
