//! A job: a call in the store, its attempts, and how they end.

use std::{fmt, sync::Arc};

use serde::Serialize;

use super::call::{Call, Principal};
use super::hook::{EndHooks, Hooks};
use super::json::{Json, serialize_stored};
use super::meta::Meta;
pub use super::state::{Phase, State};
use super::{
    attempt::Failure, function::Definition, job_tick::JobTick, log::Log, nested::NestedCalls, processor::ProcessorId,
    retry::AttemptCounts, service::ServiceName, time::Timestamp,
};

/// The number of a job in its store; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secret of one attempt: a process that knows it belongs to that attempt. It has 32 hexadecimal digits. The token of a nested
/// call begins with the token of the attempt that made it, followed by a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// How many digits one of random bits has.
    pub const DIGITS: usize = 32;

    /// A token of 128 random bits from the caller.
    #[must_use]
    pub fn from_random(bits: u128) -> Token {
        Token(format!("{bits:032x}").into())
    }

    /// A token from the environment or the store. A text that is not a token matches no attempt.
    #[must_use]
    pub fn from_text(text: &str) -> Token {
        Token(text.into())
    }

    /// This token for a nested call of the attempt with the token `outer`.
    #[must_use]
    pub fn inside(&self, outer: &Token) -> Token {
        Token(format!("{}.{}", outer.0, self.0).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The fence for changes by a processor: a change is made only if the job still has exactly this claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Its attempt, counted from 1. If a claim is put back before the call begins, the next claim gets the same number.
    pub attempt: i64,
    /// How often the job has been claimed, including this claim. Older builds do not count claims and leave it unchanged.
    pub claim: i64,
    /// The processor that has it.
    pub processor: ProcessorId,
    /// Whether its end may concern other calls: it is in a lane, or its key becomes free then. Without this, only calls that need
    /// the job may wait for it.
    pub tied: bool,
}

/// A claimed job, to run now.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The fence of its changes.
    pub fence: Fence,
    /// The secret of this attempt.
    pub token: Token,
    /// The call.
    pub call: Call,
    /// How its function runs.
    pub definition: Arc<Definition>,
    /// How its attempts have ended so far.
    pub before: AttemptCounts,
    /// After which no attempt begins.
    pub expires_at: Option<Timestamp>,
    /// What its caller adds about it.
    pub meta: Option<Meta>,
    /// The tick of a schedule that has made it, if there is one.
    pub tick: Option<Box<JobTick>>,
}

impl Claim {
    /// How many bytes its arguments have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.call.args.as_str().len() + self.call.kwargs.as_str().len()
    }

    /// Whether a worker runs it.
    #[must_use]
    pub fn is_for_worker(&self) -> bool {
        self.definition.worker.is_some()
    }

    /// The directory in which it runs: its own, or the one in which its function was defined.
    #[must_use]
    pub fn site(&self) -> &str {
        self.call.site.as_deref().unwrap_or(&self.definition.site)
    }
}

/// A claimed job that cannot run: its function was removed, or its stored call or definition is damaged.
#[derive(Debug, Clone)]
pub struct BrokenClaim {
    /// The fence of its changes.
    pub fence: Fence,
    /// Its service.
    pub service: ServiceName,
    /// Its function, as stored.
    pub function: String,
    /// How its attempts have ended so far.
    pub before: AttemptCounts,
    /// Why it cannot run.
    pub failure: Failure,
    /// The hooks of its function, or of its service.
    pub hooks: Hooks,
}

/// The running job to which a caller belongs, found by its number and token.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its fence.
    pub fence: Fence,
    /// The secret of its attempt.
    pub token: Token,
    /// On whose behalf it runs.
    pub principal: Option<Principal>,
    /// The site of its call, if it has its own.
    pub site: Option<String>,
    /// The metadata of its call.
    pub meta: Option<Meta>,
    /// How deep it is nested.
    pub depth: i64,
    /// The folder of its processor in the run folder.
    pub folder: String,
}

/// A job in the store, to show. Its JSON is what programs read.
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What was called.
    #[serde(flatten)]
    pub call: StoredCall,
    /// Its state.
    pub state: State,
    /// Whether it is a nested call, which ran at once inside another job.
    pub immediate: bool,
    /// The job inside which it was called.
    pub parent: Option<JobId>,
    /// Its attempts.
    #[serde(flatten)]
    pub counts: JobCounts,
    /// When it was enqueued, and the times of what happened after that.
    #[serde(flatten)]
    pub times: JobTimes,
    /// The result of the function.
    #[serde(serialize_with = "serialize_stored")]
    pub result: Option<String>,
    /// Why it ended in an error.
    pub error: Option<Failure>,
    /// How it was queued.
    #[serde(flatten)]
    pub options: StoredOptions,
    /// The tick of a schedule that has made it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<JobTick>,
    /// The operating system's name of the user who enqueued it; `None` if a client has inserted it.
    pub os_user: Option<String>,
    /// Whether it was cancelled while it runs.
    #[serde(skip)]
    pub cancelling: bool,
    /// The progress that its function reported, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}

/// How a job was queued.
#[derive(Debug, Clone, Serialize)]
pub struct StoredOptions {
    /// Smaller runs first.
    pub priority: i64,
    /// The key under which it was enqueued, until that key is free again.
    pub key: Option<String>,
    /// When the key becomes free: `started` or `ended`; `None` for when the job is removed.
    pub key_until: Option<String>,
    /// Its lane.
    pub lane: Option<String>,
    /// After which no attempt begins.
    pub expires_at: Option<Timestamp>,
    /// The jobs that it needs, as JSON.
    #[serde(serialize_with = "serialize_stored")]
    pub after: Option<String>,
    /// What its caller added about it, as JSON.
    #[serde(serialize_with = "serialize_stored")]
    pub meta: Option<String>,
}

/// A call as it is stored. A client may have stored something invalid.
#[derive(Debug, Clone, Serialize)]
pub struct StoredCall {
    /// Its service.
    pub service: String,
    /// Its function.
    pub function: String,
    /// Positional arguments.
    #[serde(serialize_with = "serialize_stored")]
    pub args: String,
    /// Keyword arguments.
    #[serde(serialize_with = "serialize_stored")]
    pub kwargs: String,
    /// On whose behalf.
    pub principal: Option<String>,
    /// Its own site, or otherwise that of the function, if the function still exists.
    pub site: Option<String>,
}

/// The attempts of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobCounts {
    /// The number of the latest attempt; 0 before the first.
    pub attempt: i64,
    /// How many have failed since it was enqueued or last retried by hand.
    pub failures: i64,
    /// How many of the others ended in a conflict.
    pub conflicts: i64,
    /// How many of the others ended in a crash.
    pub crashes: i64,
}

/// The times of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobTimes {
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it is or was due.
    pub run_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// The end of an attempt, to record.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The attempt.
    pub fence: Fence,
    /// How it ended and what follows.
    pub decision: super::retry::Decision,
    /// The result of the function; it is recorded only if the job is completed.
    pub result: Option<Json>,
    /// How long it took.
    pub took: std::time::Duration,
    /// Its output.
    pub log: Log,
    /// The calls that ran inside it, as its worker reports them.
    pub nested: Option<Box<NestedCalls>>,
    /// The hooks of its function.
    pub hooks: EndHooks,
}

impl Finish {
    /// The end of an attempt that took no time and left nothing.
    #[must_use]
    pub fn new(fence: Fence, decision: super::retry::Decision) -> Finish {
        let (took, log) = (std::time::Duration::ZERO, Log::default());
        Finish { fence, decision, result: None, took, log, nested: None, hooks: EndHooks::default() }
    }
}
