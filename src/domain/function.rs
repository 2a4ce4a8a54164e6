//! A function: a name within a service, and how its calls run.

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub use super::call_format::{Args, CallFormat, Stdin};
use super::hook::{HookChange, HookTarget, Hooks};
pub use super::inputs::{InputChange, Inputs};
use super::lane::Lane;
pub use super::name::FunctionName;
use super::retry_policy::{RetryChange, RetryPolicy};
use super::service::{Defined, ServiceName};
use super::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// How a function runs: its program, its site and its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The program (an absolute path, or a path relative to the site) and its first arguments; never empty.
    pub command: Vec<String>,
    /// The absolute path of its site, the directory in which it runs.
    pub site: String,
    /// The environment variables recorded with it.
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// The limits of its workers; `None` for a command, which is started for each call.
    pub worker: Option<WorkerLimits>,
    /// How a command gets its call.
    pub call_format: CallFormat,
    /// What it takes, and what only it knows.
    pub inputs: Inputs,
    /// What it says of when and how its calls run.
    pub policy: FunctionPolicy,
    /// The number of its latest reload, counted for all functions of a store together. Workers that were started for an earlier
    /// reload do not run its calls.
    pub generation: i64,
}

/// When and how calls of a function run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionPolicy {
    /// The lane of calls that name none; `{principal}` in it stands for the principal of the call.
    pub lane: Option<Lane>,
    /// How often it is tried again, and after what.
    pub retry: RetryPolicy,
    /// The functions to call when one of its jobs ends for good. In a claim, those of its service fill the gaps.
    pub hooks: Hooks,
    /// Whether only programs that open the store themselves may call it.
    pub is_local: bool,
    /// Whether stdout and stderr of a command are one pipe.
    pub is_merged: bool,
}

/// Changes of a function's policy. `None` leaves a field unchanged, and `Some(None)` removes its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// Another lane, or none.
    pub lane: Option<Option<Lane>>,
    /// Changes of how it is tried again.
    pub retry: RetryChange,
    /// Changes of its hooks.
    pub hooks: HookChange,
    /// Whether only programs that open the store themselves may call it.
    pub is_local: Option<bool>,
    /// Whether its stdout and its stderr are one pipe.
    pub is_merged: Option<bool>,
}

impl PolicyChange {
    /// The changes that would change something in this policy.
    fn beyond(&self, policy: &FunctionPolicy) -> PolicyChange {
        PolicyChange {
            lane: self.lane.clone().filter(|lane| *lane != policy.lane),
            retry: self.retry.beyond(&policy.retry),
            hooks: self.hooks.beyond(&policy.hooks),
            is_local: self.is_local.filter(|is_local| *is_local != policy.is_local),
            is_merged: self.is_merged.filter(|is_merged| *is_merged != policy.is_merged),
        }
    }

    fn apply(&self, policy: &mut FunctionPolicy) {
        if let Some(lane) = &self.lane {
            policy.lane.clone_from(lane);
        }
        self.retry.apply(&mut policy.retry);
        policy.hooks = self.hooks.apply(&policy.hooks);
        policy.is_local = self.is_local.unwrap_or(policy.is_local);
        policy.is_merged = self.is_merged.unwrap_or(policy.is_merged);
    }
}

impl Definition {
    /// Whether a worker that was started for this definition in `site` can run `other` in `other_site`: it needs the same program
    /// and the same environment, and there must be no reload since.
    #[must_use]
    pub fn shares_worker(&self, site: &str, other: &Definition, other_site: &str) -> bool {
        self.worker.is_some() == other.worker.is_some()
            && site == other_site
            && self.command == other.command
            && self.env == other.env
            && self.env_file() == other.env_file()
            && self.generation >= other.generation
    }

    /// The path of its file of variables, if it has one. The path belongs to the function, whatever the site of a call.
    #[must_use]
    pub fn env_file(&self) -> Option<PathBuf> {
        self.inputs.env_file.as_ref().map(|file| Path::new(&self.site).join(file).components().collect())
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`Kind::Usage`] for secret arguments that are not in the signature, or that would not reach the program.
    pub fn check(&self) -> Result<()> {
        self.inputs.secret.check(self.inputs.takes.as_ref())?;
        if self.inputs.secret.is_empty() || self.worker.is_some() || self.call_format.stdin() == Stdin::Call {
            return Ok(());
        }
        let message = "with `--stdin none` the program gets no secret arguments, as they are never words";
        Err(Error::new(Kind::Usage, message).with_hint("`--stdin call` passes them on standard input"))
    }

    /// Whether two definitions are the same, apart from reloads.
    #[must_use]
    pub fn is_like(&self, other: &Definition) -> bool {
        *self == Definition { generation: self.generation, ..other.clone() }
    }
}

/// When a worker ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// It ends after this many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// It ends when it has been idle for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Duration>,
    /// It ends when it uses this many more bytes of memory than at its hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<u64>,
}

/// How long a worker may be idle by default.
pub const IDLE: Duration = Duration::from_secs(60);

impl WorkerLimits {
    /// How long it may be idle.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.idle.unwrap_or(IDLE)
    }
}

/// A function as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its service.
    pub service: ServiceName,
    /// Its name, unique within its service.
    pub name: FunctionName,
    /// How it is run.
    pub definition: Definition,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Function {
    /// It and its service, as a hook names it.
    #[must_use]
    pub fn target(&self) -> HookTarget {
        HookTarget { service: self.service.clone(), function: self.name.clone() }
    }
}

/// A function as a program wants it to be. A field that is `None` may stay as it is.
#[derive(Debug, Clone)]
pub struct WantedFunction {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub name: FunctionName,
    /// Its program and first arguments.
    pub command: Option<Vec<String>>,
    /// Its site, an absolute path.
    pub site: Option<String>,
    /// Variables to record. All others stay as they are.
    pub env: BTreeMap<String, String>,
    /// Its time limit, or none.
    pub timeout: Option<Option<Duration>>,
    /// A worker with at least these limits, or a command.
    pub worker: Option<Option<WorkerLimits>>,
    /// What it takes, as far as the program wants something about that.
    pub inputs: InputChange,
    /// Its policy, as far as the program wants something about it.
    pub policy: PolicyChange,
}

impl WantedFunction {
    /// The definition of a new function.
    ///
    /// # Errors
    /// [`Kind::Invalid`] without a program or a site.
    pub fn definition(&self) -> Result<Definition> {
        let (Some(command), Some(site)) = (&self.command, &self.site) else {
            let Self { service, name, .. } = self;
            let message = format!("function `{name}` of service `{service}` is new, so it needs `command` and `site`");
            return Err(Error::new(Kind::Invalid, message)
                .with_hint("give both, as in \"command\":[\"/usr/bin/python3\",\"job.py\"],\"site\":\"/srv/app\""));
        };
        let mut policy = FunctionPolicy::default();
        self.policy.apply(&mut policy);
        let mut inputs = Inputs::default();
        self.inputs.apply(&mut inputs);
        Ok(Definition {
            command: command.clone(),
            site: site.clone(),
            env: self.env.clone(),
            timeout: self.timeout.flatten(),
            worker: self.worker.flatten(),
            call_format: CallFormat::default(),
            inputs,
            policy,
            generation: 0,
        })
    }

    /// What would have to change in an existing function.
    #[must_use]
    pub fn change(&self, old: &Definition) -> FunctionChange {
        let worker = self.worker.map(|limits| {
            let kept = old.worker.unwrap_or_default();
            limits.map(|limits| WorkerLimits {
                calls: limits.calls.or(kept.calls),
                idle: limits.idle.or(kept.idle),
                growth: limits.growth.or(kept.growth),
            })
        });
        let differs = |(name, value): &(&String, &String)| old.env.get(*name) != Some(*value);
        let becomes_worker = worker.flatten().is_some() && old.call_format != CallFormat::default();
        FunctionChange {
            command: self.command.clone().filter(|command| *command != old.command),
            site: self.site.clone().filter(|site| *site != old.site),
            env: self.env.iter().filter(differs).map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
            timeout: self.timeout.filter(|timeout| *timeout != old.timeout),
            worker: worker.filter(|worker| *worker != old.worker),
            call_format: becomes_worker.then(CallFormat::default),
            inputs: self.inputs.beyond(&old.inputs),
            policy: self.policy.beyond(&old.policy),
        }
    }
}

/// What registering a function did. If the function existed, which members differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What it did.
    pub outcome: Defined,
    /// The names of the members.
    pub differs: Vec<&'static str>,
}

/// The changes of `function set`; `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct FunctionChange {
    /// A new program and its first arguments.
    pub command: Option<Vec<String>>,
    /// A new site.
    pub site: Option<String>,
    /// Variables to record (`Some`) or to remove (`None`), by name.
    pub env: BTreeMap<String, Option<String>>,
    /// A new time limit, or none (`Some(None)`).
    pub timeout: Option<Option<Duration>>,
    /// New limits as a worker, or a command from now on (`Some(None)`).
    pub worker: Option<Option<WorkerLimits>>,
    /// A new call format of the command.
    pub call_format: Option<CallFormat>,
    /// Changes of what it takes.
    pub inputs: InputChange,
    /// Changes of its policy.
    pub policy: PolicyChange,
}

impl FunctionChange {
    /// The names of the members that it changes.
    #[must_use]
    pub fn members(&self) -> Vec<&'static str> {
        let members = [
            ("command", self.command.is_some()),
            ("site", self.site.is_some()),
            ("env", !self.env.is_empty()),
            ("worker", self.worker.is_some()),
            ("timeout", self.timeout.is_some()),
            ("takes", self.inputs.takes.is_some()),
            ("secret", self.inputs.secret.is_some()),
            ("env_file", self.inputs.env_file.is_some()),
            ("retries", self.policy.retry.retries.is_some()),
            ("backoff", self.policy.retry.backoff.is_some()),
            ("retry_on", self.policy.retry.on.is_some()),
            ("no_retry_on", self.policy.retry.not_on.is_some()),
            ("conflicts", self.policy.retry.conflicts.is_some()),
            ("lane", self.policy.lane.is_some()),
            ("on_error", self.policy.hooks.on_error.is_some()),
            ("on_success", self.policy.hooks.on_success.is_some()),
            ("local", self.policy.is_local.is_some()),
            ("merge", self.policy.is_merged.is_some()),
        ];
        members.into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
    }

    /// The definition with these changes.
    #[must_use]
    pub fn apply(&self, mut definition: Definition) -> Definition {
        if let Some(command) = &self.command {
            definition.command.clone_from(command);
        }
        if let Some(site) = &self.site {
            definition.site.clone_from(site);
        }
        if let Some(timeout) = self.timeout {
            definition.timeout = timeout;
        }
        if let Some(worker) = self.worker {
            definition.worker = worker;
        }
        if let Some(call_format) = self.call_format {
            definition.call_format = call_format;
        }
        self.inputs.apply(&mut definition.inputs);
        self.policy.apply(&mut definition.policy);
        for (name, value) in &self.env {
            match value {
                Some(value) => definition.env.insert(name.clone(), value.clone()),
                None => definition.env.remove(name),
            };
        }
        definition
    }
}
