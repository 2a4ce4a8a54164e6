//! What a call needs to run, how it ended, and how programs read it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{ffi::OsString, io, sync::Arc};

use serde::Serialize;
use serde_json::value::{RawValue, Value};

use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::{call::Principal, job::Claim, json::Json, nested::NestedCalls};
use crate::domain::{job_tick::JobTick, time::Timestamp};
use crate::runner::{Capture, Home, Orphans, process::orphans, start_failure::Scarcity};

/// Variables of systemd for a service. Functions must not speak for their processor.
const OF_SYSTEMD: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What is the same for all functions of a processor.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The store, for `ASYNCQ_DB`.
    pub store: OsString,
    /// The folder for results and long outputs while a function runs.
    pub folder: PathBuf,
    /// The same folder. It notices when somebody removes the folder.
    pub home: Home,
    /// The changes that turn this process's environment into that of functions: no `ASYNCQ_*`, no variables of systemd for the
    /// processor, and asyncq itself on the `PATH`.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Whether this process belongs to a worker. Then its children keep that worker's token.
    pub in_worker: bool,
    /// The processes that functions have orphaned.
    pub orphans: Arc<Orphans>,
    /// Since when no program could be started.
    pub scarcity: Arc<Scarcity>,
}

impl Surroundings {
    /// Prepares everything. `env` is the processor's own environment, and `program` the path of asyncq itself. From now on, this
    /// process adopts the orphans of its functions.
    ///
    /// # Errors
    /// As [`Orphans::adopt`].
    pub fn new(
        store: OsString,
        folder: PathBuf,
        env: impl Iterator<Item = (OsString, OsString)>,
        program: &Path,
    ) -> io::Result<Self> {
        let (mut path, mut changes, mut in_worker) = (None, Vec::new(), false);
        for (name, value) in env {
            if name == "PATH" {
                path = Some(value);
            } else if name == orphans::WORKER_TOKEN && !value.is_empty() {
                in_worker = true;
            } else if name.as_encoded_bytes().starts_with(b"ASYNCQ_") || OF_SYSTEMD.iter().any(|its| name == *its) {
                changes.push((name, None));
            }
        }
        if let Some(own) = program.parent() {
            let mut path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            if !std::env::split_paths(&path).any(|entry| entry == own) {
                path.push(":");
                path.push(own);
            }
            changes.push(("PATH".into(), Some(path)));
        }
        let (orphans, scarcity) = (Arc::new(Orphans::adopt()?), Arc::default());
        let home = Home::find(&folder);
        Ok(Surroundings { store, folder, home, env: changes, in_worker, orphans, scarcity })
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// The outcome.
    pub outcome: Outcome,
    /// The result of the function, if that is valid.
    pub result: Option<Json>,
    /// How long it took.
    pub took: Duration,
    /// What it printed.
    pub output: Capture,
    /// The calls that ran inside it, as its worker reports them.
    pub nested: Option<Box<NestedCalls>>,
    /// Whether it said when to run instead, but did not ask to be tried again.
    pub in_vain: bool,
}

impl Ended {
    /// The end of a call that was not run.
    pub fn unrun(outcome: Outcome, output: Capture) -> Ended {
        Ended { outcome, result: None, took: Duration::ZERO, output, nested: None, in_vain: false }
    }
}

/// How to end a call that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) struct CallEnding {
    pub(in crate::runner) why: EndReason,
    /// When it is killed.
    pub(in crate::runner) kill_at: Instant,
}

/// Why a call has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum EndReason {
    Cancelled,
    TooLong,
    Interrupted,
}

impl EndReason {
    /// In the words of the protocol.
    pub(in crate::runner) fn as_str(self) -> &'static str {
        match self {
            EndReason::Cancelled => "cancelled",
            EndReason::TooLong => "timeout",
            EndReason::Interrupted => "stop",
        }
    }

    pub(in crate::runner) fn outcome(self) -> Outcome {
        match self {
            EndReason::Cancelled => Outcome::Cancelled,
            EndReason::Interrupted => Outcome::Interrupted,
            EndReason::TooLong => {
                Outcome::Failed(Failure::new(FailureKind::Timeout, "took longer than its time limit"))
            }
        }
    }
}

/// A call in the JSON that programs read, on standard input and in the worker protocol.
#[derive(Debug, Serialize)]
pub(in crate::runner) struct CallParams<'a> {
    job: i64,
    attempt: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    service: &'a str,
    function: &'a str,
    args: &'a RawValue,
    kwargs: &'a RawValue,
    principal: Option<&'a str>,
    site: &'a str,
    /// Left out if programs do not expect it; otherwise `null` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Value>,
    /// Left out if no schedule has made the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<&'a JobTick>,
    /// Left out if the caller added none.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

impl<'a> CallParams<'a> {
    /// A call as its program reads it on standard input. Its secret is not in it, but in the environment.
    pub(in crate::runner) fn for_stdin(claim: &'a Claim) -> CallParams<'a> {
        let Claim { fence, call, .. } = claim;
        CallParams {
            job: fence.job.0,
            attempt: fence.attempt,
            token: None,
            service: call.service.as_str(),
            function: call.function.as_str(),
            args: raw(&call.args),
            kwargs: raw(&call.kwargs),
            principal: call.principal.as_ref().map(Principal::as_str),
            site: claim.site(),
            deadline: None,
            schedule: claim.tick.as_deref(),
            meta: claim.meta.as_ref().map(|meta| raw(meta.json())),
        }
    }

    /// A call as a worker reads it.
    pub(in crate::runner) fn for_worker(claim: &'a Claim, deadline: Option<Timestamp>) -> CallParams<'a> {
        let deadline = Some(deadline.map_or(Value::Null, |deadline| deadline.to_string().into()));
        CallParams { token: Some(claim.token.as_str()), deadline, ..CallParams::for_stdin(claim) }
    }
}

/// A [`Json`] is valid JSON, so this always returns the text itself.
fn raw(json: &Json) -> &RawValue {
    serde_json::from_str(json.as_str()).unwrap_or(RawValue::NULL)
}

/// Writes a message as one line.
pub(in crate::runner) fn write_line(into: &mut Vec<u8>, message: &impl Serialize) {
    let from = into.len();
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *into, message);
    // In JSON, a line end can only be between tokens, where a space means the same.
    for byte in into[from..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    into.push(b'\n');
}
