//! Manifests: making a store what a file says, and writing such a file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::caller::Caller;
use super::function::{check_env_file, current, site, variable_name};
use super::program::{Here, find_program};
use super::queue::Queue;
use super::register::check_texts;
use crate::domain::function::Definition;
use crate::domain::manifest::{Manifest, ManifestFunction, ManifestSchedule};
use crate::domain::manifest_plan::{ExistingStore, ManifestPlan, PlannedChange, WantedSchedule, WantedStore};
use crate::domain::manifest_text::{EnvValues, manifest_text};
use crate::domain::pattern::ServiceSelection;
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::toml_file::TomlFile;
use crate::error::{Error, Kind, Result};
use crate::processor::put_back_copied;
#[cfg(doc)]
use crate::store::Store;
use crate::store::absolute;

/// A manifest, and where its paths begin.
#[derive(Debug, Clone, Copy)]
pub struct ManifestSource<'a> {
    /// The file.
    pub file: TomlFile<'a>,
    /// Its path; `None` for stdin.
    pub path: Option<&'a Path>,
    /// The folder from which its paths count, if it is not that of the file.
    pub site: Option<&'a str>,
}

impl ManifestSource<'_> {
    /// Reads the manifest, and looks up programs, sites and variables. `zone` is that of schedules that name none.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and as for [`Queue::add_function`].
    pub fn read(self, caller: &Caller, zone: &dyn Fn() -> Result<TimeZone>) -> Result<WantedStore> {
        let manifest = Manifest::parse(self.file, zone)?;
        let base = self.base(caller)?;
        let mut lookups = Lookups { base: base.as_deref(), caller, sites: HashMap::new(), programs: HashMap::new() };
        let mut wanted = WantedStore { services: manifest.services, ..WantedStore::default() };
        for function in manifest.functions {
            let definition = self.at(function.at, define(&function, &mut lookups))?;
            wanted.functions.push((function.target, definition));
        }
        for mut schedule in manifest.schedules {
            self.at(schedule.at, resolve_site(&mut schedule, &mut lookups))?;
            let ManifestSchedule { name, definition, paused, .. } = schedule;
            wanted.schedules.push(WantedSchedule { name, definition, paused });
        }
        Ok(wanted)
    }

    /// The folder from which relative paths count, if there is one.
    fn base(self, caller: &Caller) -> Result<Option<PathBuf>> {
        match (self.site, self.path) {
            (Some(typed), _) => {
                let folder = caller.folder()?;
                site(typed, Here { folder: &folder, caller }).map(|site| Some(site.into()))
            }
            (None, None) => Ok(None),
            (None, Some(path)) => {
                let path = if path.is_absolute() { path.to_owned() } else { absolute(&caller.folder()?, path) };
                Ok(path.parent().map(Path::to_owned))
            }
        }
    }

    /// Adds to an error where in the file it has its cause.
    fn at<T>(self, at: usize, done: Result<T>) -> Result<T> {
        done.map_err(|error| {
            let message = format!("{}, line {}: {error}", self.file.name, self.file.line(at));
            error.reworded(error.kind(), message)
        })
    }
}

/// The plan for a store that does not exist yet.
///
/// # Errors
/// As [`ManifestPlan::new`].
pub fn plan_of_new_store(wanted: &WantedStore) -> Result<ManifestPlan> {
    ManifestPlan::new(wanted, &ExistingStore::default())
}

/// The calls that a plan cancels, or has cancelled.
#[must_use]
pub fn cancelled(plan: &ManifestPlan) -> Removed {
    let mut all = Removed { cancelled: 0, oldest: Vec::new() };
    for change in &plan.changes {
        if let PlannedChange::RemoveFunction(_, removed) = change {
            all.cancelled += removed.cancelled;
            all.oldest.extend(&removed.oldest);
        }
    }
    all.oldest.sort_unstable();
    all.oldest.truncate(10);
    all
}

impl Queue {
    /// Makes the store what a manifest says, or only plans that.
    ///
    /// # Errors
    /// As [`Store::apply_manifest`], and [`Kind::Denied`] for a schedule with another principal inside a running function.
    pub fn apply(
        &mut self,
        mut wanted: WantedStore,
        waiting: IfWaiting,
        is_dry: bool,
        caller: &Caller,
    ) -> Result<ManifestPlan> {
        if let Some(running) = self.running(caller)? {
            for schedule in &mut wanted.schedules {
                let principal = &mut schedule.definition.call.principal;
                if principal.is_some() && *principal != running.principal {
                    let message = format!("schedule `{}` has another principal than this function", schedule.name);
                    return Err(Error::new(Kind::Denied, message).with_hint("leave `principal` out of the file"));
                }
                principal.clone_from(&running.principal);
            }
        }
        if is_dry {
            return self.store.plan_manifest(&wanted, waiting);
        }
        if wanted.prune {
            put_back_copied(&mut self.store)?;
        }
        self.store.apply_manifest(&wanted, waiting)
    }

    /// A manifest of these services, with their functions and schedules.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no service of a name.
    pub fn export(&mut self, services: &ServiceSelection, env: EnvValues) -> Result<String> {
        let there = self.store.export(services)?;
        Ok(manifest_text(&there.services, &there.functions, &there.schedules, env))
    }
}

/// Sites and programs of a file, each looked up once.
struct Lookups<'a> {
    /// The folder from which relative paths count, if there is one.
    base: Option<&'a Path>,
    caller: &'a Caller,
    /// By what the file names as the site.
    sites: HashMap<Option<String>, String>,
    /// By the program, as the file names it, and the site.
    programs: HashMap<(String, String), String>,
}

impl<'a> Lookups<'a> {
    fn here(&self) -> Here<'a> {
        Here { folder: self.base.unwrap_or(Path::new("/")), caller: self.caller }
    }

    fn site(&mut self, typed: Option<&str>) -> Result<String> {
        let typed = typed.map(str::to_owned);
        if let Some(site) = self.sites.get(&typed) {
            return Ok(site.clone());
        }
        let site = find_site(typed.as_deref(), self.base, self.caller)?;
        self.sites.insert(typed, site.clone());
        Ok(site)
    }

    fn program(&mut self, program: &str, site: &str) -> Result<String> {
        let key = (program.to_owned(), site.to_owned());
        if let Some(found) = self.programs.get(&key) {
            return Ok(found.clone());
        }
        let found = find_program(program, site, self.here())?;
        self.programs.insert(key, found.clone());
        Ok(found)
    }
}

fn define(function: &ManifestFunction, lookups: &mut Lookups<'_>) -> Result<Definition> {
    let ManifestFunction { target, timeout, worker, call_format, inputs, policy, .. } = function;
    let named = |error: Error| {
        let message = format!("function `{target}`: {error}");
        error.reworded(error.kind(), message)
    };
    let in_site = lookups.site(function.site.as_deref()).map_err(named)?;
    let here = lookups.here();
    let mut command = function.command.clone();
    if let Some(program) = command.first_mut() {
        *program = lookups.program(program, &in_site).map_err(named)?;
    }
    let env = function.env.iter().map(|(name, value)| {
        let name = variable_name(name).map_err(named)?;
        let value = match value {
            Some(value) => value.clone(),
            None => current(&name, here).map_err(named).map_err(|error| {
                let hint = format!("set it, or write its value into the file: {name} = \"VALUE\"");
                error.reworded(error.kind(), error.to_string()).with_hint(hint)
            })?,
        };
        Ok((name, value))
    });
    let env = env.collect::<Result<BTreeMap<_, _>>>()?;
    if let Some(file) = &inputs.env_file {
        check_env_file(file).map_err(named)?;
    }
    check_texts(&command, Some(&in_site), &env).map_err(named)?;
    Ok(Definition {
        command,
        site: in_site,
        env,
        timeout: *timeout,
        worker: *worker,
        call_format: *call_format,
        inputs: inputs.clone(),
        policy: policy.clone(),
        generation: 0,
    })
}

fn resolve_site(schedule: &mut ManifestSchedule, lookups: &mut Lookups<'_>) -> Result<()> {
    let typed = &mut schedule.definition.call.site;
    if typed.is_some() {
        let found = lookups.site(typed.as_deref()).map_err(|error| {
            let message = format!("schedule `{}`: {error}", schedule.name);
            error.reworded(error.kind(), message)
        });
        *typed = Some(found?);
    }
    Ok(())
}

/// The site that a file names, or else the folder of the file.
fn find_site(typed: Option<&str>, base: Option<&Path>, caller: &Caller) -> Result<String> {
    match (typed, base) {
        (Some(typed), None) if typed.starts_with('/') => site(typed, Here { folder: Path::new("/"), caller }),
        (typed, Some(base)) => site(typed.unwrap_or("."), Here { folder: base, caller }),
        (typed, None) => {
            let what = match typed {
                Some(typed) => format!("the site `{}` is relative", crate::domain::text::escape_control(typed)),
                None => "it has no site".to_owned(),
            };
            Err(Error::new(Kind::Usage, format!("{what}, and stdin is in no folder"))
                .with_hint("name the folder, as in `--site .`"))
        }
    }
}
