//! Calls of programs that nobody has defined as functions.

use std::path::Path;
use std::time::{Duration, Instant};

use super::call::StartWith;
use super::explain::needs_processor;
use super::function::{blank, recorded, site};
use super::program::{Here, find_program, is_for_shell};
use super::{caller::Caller, queue::Queue};
use crate::domain::call::{Call, Reading};
use crate::domain::function::{CallFormat, Definition, FunctionName, FunctionPolicy, Inputs};
use crate::domain::job::{Job, JobId, State};
use crate::domain::reason::Reason;
use crate::domain::service::{Added, ServiceName};
use crate::domain::signature::Signature;
use crate::error::{Error, Kind, Result};
use crate::processor::lives;
use crate::store::absolute;

/// The service of such calls, unless another one is named.
pub const SERVICE: &str = "shell";

/// The function of such calls.
pub const FUNCTION: &str = "run";

/// What it takes: the words of the command.
const TAKES: &str = "word...";

/// How often to look whether a processor runs the call.
const LOOK: Duration = Duration::from_millis(10);

/// How long a reason that is not a missing processor has to hold.
const SOON: Duration = Duration::from_millis(500);

/// How long a processor that is alive may be neither running calls nor gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command to run later.
#[derive(Debug)]
pub struct ShellCommand {
    /// The program and its arguments; a script alone for the shell, if `is_script`.
    pub words: Vec<String>,
    /// Whether it is a script for `sh`.
    pub is_script: bool,
    /// Variables for it: `NAME=VALUE`, or `NAME` for the value that it has now.
    pub env: Vec<String>,
}

impl ShellCommand {
    /// The call that runs the command in the current folder. A program is looked up now, because the `PATH` of a processor is
    /// another one.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such program or the folder is gone, [`Kind::Denied`] when the program is not executable,
    /// [`Kind::Usage`] for what cannot be run.
    pub fn call(&self, service: ServiceName, caller: &Caller) -> Result<Call> {
        let folder = caller.folder()?;
        let here = Here { folder: &folder, caller };
        let site = site(".", here)?;
        let variables = recorded(&self.env, here)?;
        let mut words: Vec<String> = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        if self.is_script {
            words.extend([find_program("sh", &site, here)?, "-c".to_owned()]);
            words.extend(self.words.iter().cloned());
        } else if let Some((program, arguments)) = self.words.split_first() {
            words.push(full_path(program, &site, here)?);
            words.extend(arguments.iter().cloned());
        }
        let (args, kwargs) = (Reading::Raw.positional(&words)?, Reading::Raw.keywords::<&str>(&[])?);
        Ok(Call { site: Some(site), ..Call::new(service, FunctionName::parse(FUNCTION)?, args, kwargs) })
    }
}

/// The full path of a program.
fn full_path(program: &str, site: &str, here: Here<'_>) -> Result<String> {
    let found = find_program(program, site, here).map_err(|error| {
        let is_script = program.contains(|c: char| c.is_whitespace() || "|&;<>".contains(c));
        if is_script && is_for_shell(program) {
            error.with_hint("`asyncq run -c 'a | b'` runs a script of the shell")
        } else {
            error
        }
    })?;
    let path = absolute(Path::new(site), Path::new(&found));
    let path = path.into_os_string().into_string().unwrap_or(found);
    if path.contains('=') {
        return Err(Error::new(Kind::Usage, format!("the path of the program has a `=`: `{path}`"))
            .with_hint("`env` would take it for a variable: run it with `asyncq run -c '...'`"));
    }
    Ok(path)
}

impl Queue {
    /// Makes sure that there is a function for such calls. Returns whether it was added, with its service.
    ///
    /// # Errors
    /// [`Kind::Denied`] when there is such a service without that function: so an administrator says no.
    pub fn add_shell(&mut self, service: &ServiceName, caller: &Caller) -> Result<bool> {
        let name = FunctionName::parse(FUNCTION)?;
        match self.store.function(service, &name) {
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        let here = Here { folder: Path::new("/"), caller };
        let definition = Definition {
            command: vec![find_program("env", "/", here)?, "--".to_owned()],
            call_format: CallFormat::Words,
            // Without a word, `env` prints its environment, with the token of the attempt.
            inputs: Inputs { takes: Some(Signature::parse(TAKES)?), ..Inputs::default() },
            policy: FunctionPolicy { is_local: true, ..FunctionPolicy::default() },
            ..blank("/".to_owned())
        };
        if let Some(added) = self.store.add_service_with(service, &name, &definition)? {
            return Ok(added == Added::New);
        }
        Err(Error::new(Kind::Denied, format!("service `{service}` has no function `{FUNCTION}` for `asyncq run`"))
            .with_hint(format!(
                "`asyncq function add {service} {FUNCTION} --local --takes {TAKES} --stdin none -- env --` adds it"
            )))
    }

    /// Starts a processor in the background for a call, unless one is at work on its service. Returns when a processor runs the
    /// call, or runs another one after which it looks for more. Returns the job and a reason if no processor helps.
    ///
    /// # Errors
    /// [`Kind::Io`] when no processor can be started; and whatever the store answers.
    pub fn start_for(&mut self, id: JobId, start: StartWith<'_>) -> Result<Option<(Job, Reason)>> {
        let mut starter = start.starter()?;
        let began = Instant::now();
        loop {
            let job = self.store.job(id)?;
            match job.state {
                State::Queued | State::Blocked if self.is_being_drained(start.service)? => return Ok(None),
                State::Queued | State::Blocked => {}
                State::Delayed | State::Held => return Ok(self.held_up_by(&job)?.map(|reason| (job, reason))),
                _ => return Ok(None),
            }
            starter.tend(&mut self.store, &mut |store| needs_processor(store, id))?;
            let is_other = |reason: &Reason| {
                let helps = matches!(
                    reason,
                    Reason::NoProcessor(_) | Reason::DeadProcessor(_) | Reason::Order(_) | Reason::Slots(_)
                );
                !helps && began.elapsed() > SOON || began.elapsed() > PATIENCE
            };
            if let Some(reason) = self.held_up_by(&job)?.filter(is_other) {
                return Ok(Some((job, reason)));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether a processor that is alive runs a call of a service: it looks for more when that has ended.
    fn is_being_drained(&mut self, service: &ServiceName) -> Result<bool> {
        if self.store.running_jobs(service)?.is_empty() {
            return Ok(false);
        }
        let holders = self.store.holders(service)?;
        Ok(holders.iter().any(|holder| lives(&self.store, holder)))
    }
}
