//! Makes a call: queues it, or runs it at once inside a running function.

use std::path::PathBuf;

use super::caller::{Caller, os_user};
use super::{queue::Queue, result_target::ResultTarget};
use crate::domain::attempt::Outcome;
use crate::domain::call::{Call, Key, OnBehalfOf};
use crate::domain::job::Running;
use crate::domain::new_job::{CallOptions, Due, Enqueued, NewJob, Origin, Priority};
use crate::domain::{console::Console, event::Ran};
use crate::error::{Error, Kind, Result};
use crate::processor::nested::{self, NestedRuntime};

/// A call, and how it is to be made.
#[derive(Debug)]
pub struct EnqueueRequest {
    /// The call. Its principal and its site follow from the caller.
    pub call: Call,
    /// On whose behalf.
    pub on_behalf_of: OnBehalfOf,
    /// Makes it safe to repeat the enqueue: the same call with the same key is the same job.
    pub key: Option<Key>,
    /// Whether the job waits until somebody starts it.
    pub hold: bool,
    /// When the call is due.
    pub due: Due,
    /// What else says when it may run.
    pub options: CallOptions,
    /// Whether the call is queued even inside a running function.
    pub defer: bool,
    /// The file that gets the result of a call that runs at once. It is an error if the call would be queued.
    pub result_to: Option<PathBuf>,
}

/// What making a call did.
#[derive(Debug)]
pub enum Made {
    /// It is on its service's queue.
    Queued(Enqueued),
    /// It was run at once, inside a running function.
    Ran(Ran),
}

impl Queue {
    /// Makes a call. Inside a running function, it runs at once and shows its output on `console`, unless it is deferred. Otherwise
    /// it is queued, and durable when this returns.
    ///
    /// # Errors
    /// [`Kind::Denied`] for another principal inside a running function, [`Kind::Usage`] for options that make sense only in a
    /// queue; and as [`Store::enqueue`](crate::store::Store::enqueue) and
    /// [`Store::begin_nested`](crate::store::Store::begin_nested).
    pub fn enqueue(&mut self, request: EnqueueRequest, caller: &Caller, console: Console) -> Result<Made> {
        let EnqueueRequest { call, on_behalf_of, key, hold, due, options, defer, result_to } = request;
        let (origin, running) = self.origin(caller, on_behalf_of)?;
        let principal = origin.principal.clone();
        let new = origin.job(NewJob { key, hold, due, options, ..NewJob::new(Call { principal, ..call }) })?;
        match running {
            Some(running) if !defer => {
                let refuse = |what: &str| {
                    let message = format!("a call inside a running function runs at once, so it {what}");
                    let hint = "`asyncq enqueue --defer` queues the call instead of running it now";
                    Err(Error::new(Kind::Usage, message).with_hint(hint))
                };
                match (new.hold, new.due, &new.key) {
                    (true, _, _) => refuse("cannot be held"),
                    (false, Due::At(_) | Due::In(_), _) => refuse("cannot be delayed"),
                    (false, Due::Now, Some(_)) => refuse("takes no key"),
                    (false, Due::Now, None) if new.options.priority != Priority::default() => refuse("has no priority"),
                    (false, Due::Now, None) if new.options.lane.is_some() => refuse("is in no lane"),
                    (false, Due::Now, None) if new.options.expires.is_some() => refuse("cannot expire"),
                    (false, Due::Now, None) if !new.options.needs.is_empty() => refuse("cannot wait for other jobs"),
                    (false, Due::Now, None) => {
                        let runtime = NestedRuntime { program: &caller.program()?, env: &caller.env, console };
                        let target = result_to.as_deref().map(ResultTarget::open).transpose()?;
                        let ran = nested::run(&mut self.store, &running, &new, &runtime)?;
                        if let (Some(target), Outcome::Completed | Outcome::CompletedItself) = (target, &ran.outcome) {
                            target.write(ran.job, ran.result.as_ref())?;
                        }
                        Ok(Made::Ran(ran))
                    }
                }
            }
            _ if result_to.is_some() => {
                let message = "outside of a running function, a call is queued and has no result yet";
                let hint = "leave `--result-to` out; `asyncq job result ID` prints the result when the job has ended";
                Err(Error::new(Kind::Usage, message).with_hint(hint))
            }
            _ => self.store.enqueue(&new).map(Made::Queued),
        }
    }

    /// The origin of calls that `caller` makes on behalf of `principal`, and the job inside which it runs, if it does.
    pub(super) fn origin(&mut self, caller: &Caller, principal: OnBehalfOf) -> Result<(Origin, Option<Running>)> {
        let os_user = Some(os_user());
        let Some(running) = self.running(caller)? else {
            let principal = match principal {
                OnBehalfOf::Caller => caller.principal()?,
                OnBehalfOf::Nobody => None,
                OnBehalfOf::Named(principal) => Some(principal),
            };
            return Ok((Origin { principal, os_user, ..Origin::default() }, None));
        };
        let origin = origin_inside(&running, os_user);
        origin.principal(principal).map_err(|error| error.with_hint("leave `--principal` out"))?;
        Ok((origin, Some(running)))
    }

    /// Whether `caller` runs inside a job.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn is_inside(&mut self, caller: &Caller) -> Result<bool> {
        Ok(self.running(caller)?.is_some())
    }

    /// The job inside which `caller` runs, if it does. That is the job that its environment names, as long as exactly that attempt
    /// is being processed. A stale or forged token counts as none.
    pub(super) fn running(&mut self, caller: &Caller) -> Result<Option<Running>> {
        caller.attempt().map_or(Ok(None), |(job, token)| self.store.running(job, &token))
    }
}

/// The origin of calls that are made inside a running job.
pub(super) fn origin_inside(running: &Running, os_user: Option<String>) -> Origin {
    let (principal, site, meta) = (running.principal.clone(), running.site.clone(), running.meta.clone());
    Origin { principal, is_bound: true, site, meta, os_user, parent: Some(running.fence.job) }
}

/// The job inside which `caller` runs, if it does. If its environment names none, no store is opened to find out.
///
/// # Errors
/// Whatever the store answers, except that there is no store: then nothing runs in it.
pub fn inside(caller: &Caller, open: impl FnOnce() -> Result<Queue>) -> Result<Option<Running>> {
    if caller.attempt().is_none() {
        return Ok(None);
    }
    match open().and_then(|mut queue| queue.running(caller)) {
        Err(error) if error.kind() == Kind::Unreachable => Ok(None),
        found => found,
    }
}

/// On whose behalf `caller` runs, if on anybody's.
///
/// # Errors
/// As for [`inside`].
pub fn principal(caller: &Caller, open: impl FnOnce() -> Result<Queue>) -> Result<Option<String>> {
    Ok(match inside(caller, open)? {
        Some(running) => running.principal.map(|principal| principal.to_string()),
        None => caller.variable("ASYNCQ_PRINCIPAL").and_then(|text| text.to_str()).map(str::to_owned),
    })
}
