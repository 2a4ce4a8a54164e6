//! A job: a call in the store, its states, its attempts, and how they end.

use std::fmt;
use std::sync::Arc;

use super::attempt::Failure;
use super::call::{Call, Key, OnBehalfOf, Principal};
use super::function::Definition;
use super::json::Json;
use super::log::Log;
use super::processor::ProcessorId;
use super::retry::AttemptCounts;
use super::service::ServiceName;
pub use super::state::State;
use super::time::Timestamp;
use crate::error::{Error, Kind};

/// The number of a job in its store; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How deep nested calls may be: a job that was queued is at depth 0, a call made by it at once is at depth 1.
pub const MAX_NESTING: i64 = 32;

/// The secret of one attempt: whoever knows it is inside that attempt. 32 hexadecimal digits; that of a nested call has
/// the token of the attempt which made it before them, and a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// How many digits one of random bits has.
    pub const DIGITS: usize = 32;

    /// A token of 128 random bits, which the caller draws.
    #[must_use]
    pub fn from_random(bits: u128) -> Token {
        Token(format!("{bits:032x}").into())
    }

    /// A token as it was found in the environment or in the store; anything that is no token matches no attempt.
    #[must_use]
    pub fn from_text(text: &str) -> Token {
        Token(text.into())
    }

    /// This token as that of a call made inside the attempt whose token is `outer`.
    #[must_use]
    pub fn inside(&self, outer: &Token) -> Token {
        Token(format!("{}.{}", outer.0, self.0).into())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is put on a queue.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The call.
    pub call: Call,
    /// Makes a repeat safe: the same key with the same call is the same job.
    pub key: Option<Key>,
    /// Whether the job waits until somebody starts it.
    pub hold: bool,
    /// The operating system's name for who enqueues.
    pub os_user: Option<String>,
    /// The job inside which this call is made, if any.
    pub parent: Option<JobId>,
}

impl NewJob {
    /// A job for this call, and nothing else said about it: no key, not held, by nobody, inside no other job.
    #[must_use]
    pub fn new(call: Call) -> NewJob {
        NewJob { call, key: None, hold: false, os_user: None, parent: None }
    }
}

/// What enqueueing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// A job was made.
    New(JobId),
    /// The same call was there already under the same key.
    Same(JobId),
}

impl Enqueued {
    /// The job that now stands for the call.
    #[must_use]
    pub fn id(self) -> JobId {
        match self {
            Enqueued::New(id) | Enqueued::Same(id) => id,
        }
    }
}

/// Where calls are made: what their jobs have from there.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// On whose behalf, unless a call says otherwise.
    pub principal: Option<Principal>,
    /// Whether no call may say otherwise, as inside a running function.
    pub is_bound: bool,
    /// The directory to run in, when it is not the one in which the function was defined.
    pub site: Option<String>,
    /// The operating system's name for who enqueues.
    pub os_user: Option<String>,
    /// The job inside which the calls are made, if any.
    pub parent: Option<JobId>,
}

impl Origin {
    /// The principal of a call that is made here.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the call says otherwise, and may not.
    pub fn principal(&self, of: OnBehalfOf) -> Result<Option<Principal>, Error> {
        match of {
            OnBehalfOf::Caller => Ok(self.principal.clone()),
            _ if self.is_bound => {
                Err(Error::new(Kind::Denied, "a call inside a running function has the principal of that function"))
            }
            OnBehalfOf::Nobody => Ok(None),
            OnBehalfOf::Named(principal) => Ok(Some(principal)),
        }
    }

    /// What is put on a queue for a call that is made here.
    #[must_use]
    pub fn job(&self, call: Call, key: Option<Key>, hold: bool) -> NewJob {
        let Origin { site, os_user, parent, .. } = self;
        NewJob { call: Call { site: site.clone(), ..call }, key, hold, os_user: os_user.clone(), parent: *parent }
    }
}

/// What fences every change that a processor makes: it holds only while exactly this claim is being processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// Its attempt, counted from 1. A claim that goes back before it began gives its number to the next one.
    pub attempt: i64,
    /// How often the job has been claimed, with this claim. Older builds do not count claims and leave it as it was.
    pub claim: i64,
    /// Who processes it.
    pub processor: ProcessorId,
}

/// A job that was claimed and is to be run now.
#[derive(Debug, Clone)]
pub struct Claim {
    /// What its processor shows to change it.
    pub fence: Fence,
    /// The secret of this attempt.
    pub token: Token,
    /// The call.
    pub call: Call,
    /// How its function is run.
    pub definition: Arc<Definition>,
    /// How its attempts have ended so far.
    pub before: AttemptCounts,
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

    /// The directory in which it runs.
    #[must_use]
    pub fn site(&self) -> &str {
        self.call.site_for(&self.definition)
    }
}

/// A job that was claimed and cannot be run: its function was removed, or what is stored is damaged.
#[derive(Debug, Clone)]
pub struct BrokenClaim {
    /// What its processor shows to change it.
    pub fence: Fence,
    /// Its service.
    pub service: ServiceName,
    /// Its function, as stored.
    pub function: String,
    /// How its attempts have ended so far.
    pub before: AttemptCounts,
    /// Why it cannot be run.
    pub failure: Failure,
}

/// The job inside which something is called, found by its number and token.
#[derive(Debug, Clone)]
pub struct Running {
    /// What fences it.
    pub fence: Fence,
    /// The secret of its attempt.
    pub token: Token,
    /// On whose behalf it runs.
    pub principal: Option<Principal>,
    /// The site that its caller asked for, if any.
    pub site: Option<String>,
    /// How deep it is nested.
    pub depth: i64,
    /// The folder of its processor among the run files.
    pub folder: String,
}

/// A job as it stands in the store, for showing.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// Its service.
    pub service: String,
    /// Its function.
    pub function: String,
    /// Positional arguments, as stored.
    pub args: String,
    /// Keyword arguments, as stored.
    pub kwargs: String,
    /// On whose behalf it was called.
    pub principal: Option<String>,
    /// The site asked for, else that of the function, if it still exists.
    pub site: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Whether it ran at once, inside another job.
    pub immediate: bool,
    /// The job inside which it was called.
    pub parent: Option<JobId>,
    /// The number of its latest attempt; 0 before the first.
    pub attempt: i64,
    /// How many attempts have failed since it was last queued by hand.
    pub failures: i64,
    /// How the others of these attempts ended.
    pub before: AttemptCounts,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// When it is or was due.
    pub run_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What the function left as its result.
    pub result: Option<String>,
    /// Why it ended in an error.
    pub error: Option<Failure>,
    /// Smaller runs first.
    pub priority: i64,
    /// The key under which it was enqueued.
    pub key: Option<String>,
    /// The operating system's name for who enqueued it; `None` for a client's own INSERT.
    pub os_user: Option<String>,
    /// Whether somebody asked to cancel it while it runs.
    pub cancelling: bool,
    /// How far it is, in the words of its function, if it runs and has told.
    pub progress: Option<String>,
}

/// One attempt's end, as its processor records it.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which attempt.
    pub fence: Fence,
    /// How it ended and what follows.
    pub verdict: super::retry::Decision,
    /// What the function left as its result; it counts only if the job is completed.
    pub result: Option<Json>,
    /// How long it took.
    pub took: std::time::Duration,
    /// What it printed.
    pub log: Log,
}
