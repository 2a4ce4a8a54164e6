//! A call to enqueue, where it is made, and the result.

use std::time::Duration;

use super::call::{Call, Key, OnBehalfOf, Principal};
use super::{job::JobId, json::Json, lane::Lane, meta::Meta, needs::Needs, text::has_names, time::Timestamp};
use crate::error::{Error, Kind};

/// A call to enqueue.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The call.
    pub call: Call,
    /// A key that makes it safe to repeat the call: the same key with the same call is the same job.
    pub key: Option<Key>,
    /// Whether the job is held until it is started.
    pub hold: bool,
    /// When it is due.
    pub due: Due,
    /// What most calls leave out.
    pub options: CallOptions,
    /// The operating system's name of the user who enqueues.
    pub os_user: Option<String>,
    /// The job inside which this call is made, if any.
    pub parent: Option<JobId>,
}

/// How a call is queued, apart from what most calls say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Calls with a smaller one run first.
    pub priority: Priority,
    /// Its lane, if it is not that of its function.
    pub lane: Option<Lane>,
    /// When it expires, if it does.
    pub expires: Option<Expiry>,
    /// When its key becomes free again; `None` for when its job is removed.
    pub key_until: Option<KeyUntil>,
    /// What follows if another job has its key.
    pub if_taken: IfTaken,
    /// What the caller adds about it.
    pub meta: Option<Meta>,
    /// Other jobs that have to end first.
    pub needs: Needs,
}

impl CallOptions {
    /// Whether they say nothing.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == CallOptions::default()
    }
}

/// The priority of a call: calls with a smaller one run first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Priority(i64);

impl Priority {
    /// What a priority is, in words.
    pub const RANGE: &str = "a whole number from -1000 to 1000";

    /// This number as a priority, if it is one.
    #[must_use]
    pub fn new(number: i64) -> Option<Priority> {
        (-1000..=1000).contains(&number).then_some(Priority(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

/// When a new job is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// At this moment; at once if it has passed.
    At(Timestamp),
    /// This long after it is enqueued.
    In(Duration),
}

impl Due {
    /// The moment for a job that is enqueued `now`; `None` for at once.
    #[must_use]
    pub fn moment(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Due::Now => None,
            Due::At(moment) => Some(moment),
            Due::In(span) => Some(now.after(span)),
        }
    }
}

/// When the key of a call becomes free again, before its job is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUntil {
    /// When a processor has claimed it, so that at most one call with the key waits.
    Started,
    /// When it has ended, so that at most one call with the key waits or runs.
    Ended,
}

has_names! { KeyUntil {
    Started: "started",
    Ended: "ended",
} }

/// What to do if a waiting call has the same key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IfTaken {
    /// That call stays as it is.
    #[default]
    Keep,
    /// It gets the arguments of the new one, but keeps its time.
    Replace,
    /// It gets the arguments of the new one, and is due and expires when the new one would.
    Postpone,
}

has_names! { IfTaken {
    Keep: "keep",
    Replace: "replace",
    Postpone: "postpone",
} }

/// When a call expires. No attempt of it begins after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// At this moment.
    At(Timestamp),
    /// This long after it is due.
    In(Duration),
}

impl Expiry {
    /// The moment for a call that is due at this one.
    #[must_use]
    pub fn moment(self, due: Timestamp) -> Timestamp {
        match self {
            Expiry::At(moment) => moment,
            Expiry::In(span) => due.after(span),
        }
    }
}

impl NewJob {
    /// When it expires if it is enqueued `now`.
    #[must_use]
    pub fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.options.expires.map(|expiry| expiry.moment(self.due.moment(now).unwrap_or(now)))
    }

    /// A job for this call with default values: no key, not held, due at once, without a user or a parent.
    #[must_use]
    pub fn new(call: Call) -> NewJob {
        NewJob {
            call,
            key: None,
            hold: false,
            due: Due::Now,
            options: CallOptions::default(),
            os_user: None,
            parent: None,
        }
    }
}

/// The result of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// A new job.
    New(JobId),
    /// The job of an earlier enqueue of the same call with the same key.
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

/// What a new call of a job changes, and where it is made.
#[derive(Debug, Clone, Default)]
pub struct Rerun {
    /// Other positional arguments, a JSON array.
    pub args: Option<Json>,
    /// Other keyword arguments, a JSON object.
    pub kwargs: Option<Json>,
    /// Whether these are words that were typed.
    pub is_typed: bool,
    /// The operating system's name of the user who makes the call.
    pub os_user: Option<String>,
    /// The job inside which the call is made, if any.
    pub parent: Option<JobId>,
}

/// What became of a job that was called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rerunning {
    /// The job of the new call.
    pub new: JobId,
    /// Whether the other job was waiting, and is cancelled now.
    pub cancelled: bool,
}

/// The place where calls are made, and what their jobs inherit from it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// On whose behalf the calls are made by default.
    pub principal: Option<Principal>,
    /// Whether a call may not choose another principal, as inside a running function.
    pub is_bound: bool,
    /// The directory to run in, if it is not the site of the function.
    pub site: Option<String>,
    /// The metadata of the job inside which the calls are made.
    pub meta: Option<Meta>,
    /// The operating system's name of the user who enqueues.
    pub os_user: Option<String>,
    /// The job inside which the calls are made, if any.
    pub parent: Option<JobId>,
}

impl Origin {
    /// The principal of a call that is made here.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the call chooses another one and may not.
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

    /// The job for a call that is made here. A call may have its own site and metadata.
    ///
    /// # Errors
    /// As for [`Meta::inside`].
    pub fn job(&self, mut new: NewJob) -> Result<NewJob, Error> {
        if new.call.site.is_none() {
            new.call.site.clone_from(&self.site);
        }
        new.options.meta = match (new.options.meta, &self.meta) {
            (Some(own), Some(outer)) => Some(own.inside(outer)?),
            (own, outer) => own.or_else(|| outer.clone()),
        };
        Ok(NewJob { os_user: self.os_user.clone(), parent: self.parent, ..new })
    }
}
