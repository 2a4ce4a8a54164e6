//! Defines functions. What somebody types is looked up and made absolute here, so that it means the same under cron. Links stay
//! links, because they may lead to the next release tomorrow.

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, ffi::OsStr, time::Duration};

use super::{
    caller::Caller,
    flaw::broken_env_file,
    program::{Here, find_program},
    queue::Queue,
};
use crate::domain::function::{
    Args, CallFormat, Definition, Function, FunctionChange, FunctionName, Stdin, WorkerLimits,
};
use crate::domain::function::{FunctionPolicy, InputChange, Inputs, PolicyChange};
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::schedule::ScheduleName;
use crate::domain::service::{Added, ServiceName};
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};
use crate::processor::put_back_copied;
#[cfg(doc)]
use crate::store::Store;
use crate::store::absolute;
use crate::system::error::io_error;

/// A definition as somebody types it. What is `None` keeps its value, or has the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Typed {
    /// The program and its first arguments; empty when not given.
    pub command: Vec<String>,
    /// The site.
    pub site: Option<String>,
    /// `NAME=VALUE`, or `NAME` for the current value.
    pub env: Vec<String>,
    /// Names to forget.
    pub unset_env: Vec<String>,
    /// The time limit, or none.
    #[expect(clippy::option_option, reason = "as in the change: a limit, none, or as it is")]
    pub timeout: Option<Option<Duration>>,
    /// How its program is kept.
    pub worker: TypedWorker,
    /// How a command gets the arguments of its call.
    pub args: Option<Args>,
    /// What a command finds on its standard input.
    pub stdin: Option<Stdin>,
    /// Changes of what it takes.
    pub inputs: InputChange,
    /// Changes of its policy.
    pub policy: PolicyChange,
}

impl Typed {
    /// How the function gets its call from now on, if that changes. A worker gets its calls as the protocol says.
    fn call_format(&self, old: CallFormat, is_worker: bool) -> Result<Option<CallFormat>> {
        if !is_worker {
            let (args, stdin) = (self.args.unwrap_or(old.args()), self.stdin.unwrap_or(old.stdin()));
            return Ok(Some(CallFormat::new(args, stdin)?).filter(|format| *format != old));
        }
        if self.args.is_some() || self.stdin.is_some() {
            return Err(Error::new(
                Kind::Usage,
                "`--args` and `--stdin` are for commands, and this function is a worker",
            )
            .with_hint("leave them out: a worker gets its calls as messages (docs/protocol.md)"));
        }
        Ok((old != CallFormat::default()).then(CallFormat::default))
    }
}

/// How a program is kept, as it is typed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TypedWorker {
    /// As a worker, or not.
    pub is: Option<bool>,
    /// For how many calls.
    pub calls: Option<u64>,
    /// How long without any.
    pub idle: Option<Duration>,
    /// How much more memory it may use than at its start, in bytes.
    pub growth: Option<u64>,
}

impl TypedWorker {
    #[expect(clippy::option_option, reason = "as in the change: none, to be a command, or to be kept so")]
    fn change(self, old: Option<WorkerLimits>) -> Result<Option<Option<WorkerLimits>>> {
        let says = self.calls.is_some() || self.idle.is_some() || self.growth.is_some();
        let Some(kept) = old.or_else(|| (self.is == Some(true)).then(WorkerLimits::default)) else {
            if says {
                return Err(Error::new(Kind::Usage, "these options are for workers, and this function is a command")
                    .with_hint("`--worker` makes it one, if its program speaks the worker protocol"));
            }
            return Ok(None);
        };
        let kept = WorkerLimits {
            calls: self.calls.or(kept.calls),
            idle: self.idle.or(kept.idle),
            growth: self.growth.or(kept.growth),
        };
        Ok(match self.is {
            Some(false) => Some(None),
            None if !says => None,
            _ => Some(Some(kept)),
        })
    }
}

impl Queue {
    /// Adds a function. Its site is the caller's working directory, unless another one is typed.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the service, the site or the program is missing, [`Kind::Denied`] when the program is not
    /// executable, [`Kind::Usage`] for what cannot be recorded; and as [`Store::add_function`].
    pub fn add_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        typed: &Typed,
        caller: &Caller,
    ) -> Result<Added> {
        // First, because the service may be mistyped.
        self.store.service(service)?;
        let here = Here { folder: &caller.folder()?, caller };
        let definition = define(typed, here)?;
        match resolved(typed, &definition, here) {
            Some(old) if self.store.repath_function(service, name, &old, &definition)? => Ok(Added::Same),
            _ => self.store.add_function(service, name, &definition),
        }
    }

    /// All functions of a service, or of all services, by name.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service.
    pub fn functions(&mut self, service: Option<&ServiceName>) -> Result<Vec<Function>> {
        self.store.functions(service)
    }

    /// One function.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it or its service is not there.
    pub fn function(&mut self, service: &ServiceName, name: &FunctionName) -> Result<Function> {
        self.store.function(service, name)
    }

    /// Changes a function. Waiting calls then run with the new definition.
    ///
    /// # Errors
    /// As for [`Queue::add_function`], and as [`Store::set_function`].
    pub fn set_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        typed: &Typed,
        caller: &Caller,
    ) -> Result<()> {
        let old = self.store.function(service, name)?.definition;
        let change = change(typed, &old, Here { folder: &caller.folder()?, caller })?;
        self.store.set_function(service, name, &change).map(|_| ())
    }

    /// The schedules whose calls the function does not take, and why it does not.
    ///
    /// # Errors
    /// As [`Store::unfit_schedules`].
    pub fn unfit_schedules(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
    ) -> Result<Vec<(ScheduleName, Error)>> {
        self.store.unfit_schedules(service, name)
    }

    /// Why a function's file of variables cannot be used now, as far as this user can see; `None` if it can, or if there is none.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the function or its service does not exist.
    pub fn broken_env_file(&mut self, service: &ServiceName, name: &FunctionName) -> Result<Option<String>> {
        Ok(broken_env_file(&self.store.function(service, name)?.definition).map(|flaw| flaw.what))
    }

    /// Makes workers start anew: those of one function, of a service, or all. Returns how many functions this concerns.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function.
    pub fn reload_functions(&mut self, service: Option<&ServiceName>, name: Option<&FunctionName>) -> Result<u64> {
        self.store.reload_functions(service, name)
    }

    /// Removes a function; jobs that have ended stay.
    ///
    /// # Errors
    /// As [`Store::remove_function`].
    pub fn remove_function(
        &mut self,
        service: &ServiceName,
        name: &FunctionName,
        waiting: IfWaiting,
    ) -> Result<Removed> {
        put_back_copied(&mut self.store)?;
        self.store.remove_function(service, name, waiting)
    }
}

/// The definition of a new function. Its site is `here`, unless another one is typed.
fn define(typed: &Typed, here: Here<'_>) -> Result<Definition> {
    let blank = blank(site(typed.site.as_deref().unwrap_or("."), here)?);
    let change = change(typed, &blank, here)?;
    Ok(change.apply(blank))
}

/// A definition without a program.
pub(super) fn blank(site: String) -> Definition {
    Definition {
        command: Vec::new(),
        site,
        env: BTreeMap::new(),
        timeout: None,
        worker: None,
        call_format: CallFormat::default(),
        inputs: Inputs::default(),
        policy: FunctionPolicy::default(),
        generation: 0,
    }
}

/// The same definition with its paths resolved, as asyncq recorded it when it still followed links at once. `None` if that is no
/// different, or cannot be recorded.
fn resolved(typed: &Typed, is: &Definition, here: Here<'_>) -> Option<Definition> {
    let site = Path::new(&is.site).canonicalize().ok()?.into_os_string().into_string().ok()?;
    let folder = here.folder.canonicalize().ok()?;
    let typed = Typed { site: Some(site), ..typed.clone() };
    define(&typed, Here { folder: &folder, ..here }).ok().filter(|resolved| resolved != is)
}

/// The change to a function that is defined already.
fn change(typed: &Typed, old: &Definition, here: Here<'_>) -> Result<FunctionChange> {
    let new_site = typed.site.as_deref().map(|text| site(text, here)).transpose()?;
    let in_site = new_site.as_deref().unwrap_or(&old.site);
    let command = match typed.command.split_first() {
        None => None,
        Some((program, first)) => {
            let mut command = vec![find_program(program, in_site, here)?];
            command.extend_from_slice(first);
            Some(command)
        }
    };
    let mut env = BTreeMap::new();
    for name in &typed.unset_env {
        env.insert(variable_name(name)?, None);
    }
    env.extend(recorded(&typed.env, here)?.into_iter().map(|(name, value)| (name, Some(value))));
    let worker = typed.worker.change(old.worker)?;
    let call_format = typed.call_format(old.call_format, worker.unwrap_or(old.worker).is_some())?;
    typed.policy.retry.check(&old.policy.retry)?;
    if let Some(Some(file)) = &typed.inputs.env_file {
        check_env_file(file)?;
    }
    let (timeout, inputs, mut policy) = (typed.timeout, typed.inputs.clone(), typed.policy.clone());
    if worker.unwrap_or(old.worker).is_some() {
        if policy.is_merged == Some(true) {
            return Err(Error::new(Kind::Usage, "`--merge` is for commands, and this function is a worker")
                .with_hint("leave it out, or make the function a command: its program is then started for each call"));
        }
        // As its other options for commands.
        policy.is_merged = old.policy.is_merged.then_some(false);
    }
    Ok(FunctionChange { command, site: new_site, env, timeout, worker, call_format, inputs, policy })
}

/// Variables as asyncq records them: `NAME=VALUE`, or `NAME` for the current value.
pub(super) fn recorded(env: &[String], here: Here<'_>) -> Result<BTreeMap<String, String>> {
    let entries = env.iter().map(|entry| match entry.split_once('=') {
        Some((name, value)) => Ok((variable_name(name)?, value.to_owned())),
        None => Ok((variable_name(entry)?, current(entry, here)?)),
    });
    entries.collect()
}

pub(super) fn site(text: &str, here: Here<'_>) -> Result<String> {
    let hint = "a site is the directory in which the function runs";
    if text.is_empty() {
        return Err(Error::new(Kind::Usage, "`--site` is empty").with_hint(hint));
    }
    let path: PathBuf = absolute(here.folder, Path::new(text)).components().collect();
    let shown = path.display();
    match path.metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(Error::new(Kind::Usage, format!("the site `{shown}` is not a directory")).with_hint(hint)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(Kind::NotFound, format!("there is no directory `{shown}`")).with_hint(hint));
        }
        Err(error) => return Err(io_error(&format!("the site `{shown}`"), &error).with_hint(hint)),
    }
    match path.into_os_string().into_string() {
        Ok(text) => Ok(text),
        Err(path) => Err(Error::new(Kind::Usage, format!("the site `{}` is not UTF-8", path.display()))
            .with_hint("run the function from a directory with a UTF-8 name")),
    }
}

pub(super) fn variable_name(name: &str) -> Result<String> {
    let hint = "`--env NAME=VALUE` records a value, `--env NAME` the one that it has now";
    if name.is_empty() || name.contains('=') || name.contains(char::is_control) {
        let message = format!("`{}` cannot be the name of an environment variable", escape_control(name));
        return Err(Error::new(Kind::Usage, message).with_hint(hint));
    }
    if name.starts_with("ASYNCQ_") {
        let message = format!("`{name}` is set by asyncq itself");
        return Err(Error::new(Kind::Usage, message).with_hint("record a variable with another name"));
    }
    Ok(name.to_owned())
}

/// Refuses what cannot be the path of a file of variables. Whether the file exists is checked at each start of the program, because
/// this user may not even be able to see it.
pub(super) fn check_env_file(file: &str) -> Result<()> {
    if file.is_empty() || file.contains('\0') || file.len() > LONGEST_PATH {
        let message = format!("`{}` cannot be the path of an environment file", escape_control(file));
        return Err(Error::new(Kind::Usage, message).with_hint("name a file; a relative path counts from the site"));
    }
    Ok(())
}

/// The longest path that the system knows, in bytes (`PATH_MAX`, without the NUL).
const LONGEST_PATH: usize = 4095;

pub(super) fn current(name: &str, here: Here<'_>) -> Result<String> {
    let value = here.caller.raw_variable(name);
    match value.map(OsStr::to_str) {
        Some(Some(value)) => Ok(value.to_owned()),
        Some(None) => Err(Error::new(Kind::Usage, format!("the value of `{name}` is not UTF-8"))
            .with_hint("record it inside the function instead")),
        None => Err(Error::new(Kind::Usage, format!("the environment variable `{name}` is not set"))
            .with_hint(format!("`--env {name}=VALUE` records a value"))),
    }
}
