//! The answers to a program's requests, and who takes them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::explain::Explanation;
use super::job::JobLog;
use crate::domain::attempt::Attempt;
use crate::domain::function::Registered;
use crate::domain::job::Job;
use crate::domain::new_job::{Enqueued, Rerunning};
use crate::domain::rpc_fault::{RpcFault, RpcFlaw};
use crate::domain::schedule::{Backfill, Schedule};
use crate::domain::service::Defined;
use crate::domain::status::{Finding, Overview};
use crate::domain::time::Timestamp;
use crate::domain::timetable::Rule;
use crate::error::{Error, Result};

/// A job as it is shown, with its attempts.
pub type ShownJob = (Job, Vec<Attempt>);

/// What a request gets.
#[derive(Debug)]
pub enum RpcResult<'a> {
    /// The store, as it was named.
    Hello(&'a Path),
    /// The job of a call.
    Enqueued(Enqueued),
    /// The jobs of calls in their order; for a refused call, why.
    EnqueuedAll(Vec<Result<Enqueued, RpcError>>),
    /// What defining a service did.
    Defined(Defined),
    /// What registering functions did, in their order.
    Registered(Vec<Registered>),
    /// A job.
    Job(Box<ShownJob>),
    /// Jobs that have ended.
    Jobs(Vec<ShownJob>),
    /// The job of a new call of another job.
    Rerun(Rerunning),
    /// What is kept of the output of an attempt.
    Log(JobLog),
    /// Why a job does not run.
    Explained(Box<Explanation>),
    /// An overview of services.
    Overview(Box<Overview>),
    /// Problems, as they were at this time.
    Problems(Vec<Finding>, Timestamp),
    /// How many services were meant.
    Services(usize),
    /// A schedule.
    Schedule(Box<Schedule>),
    /// Schedules.
    Schedules(Vec<Schedule>),
    /// Ticks of a rule.
    Ticks(Rule, Vec<Timestamp>),
    /// The jobs that ticks of a schedule have made.
    Made(Backfill),
    /// That it is done.
    Done,
}

/// Why a request gets nothing.
#[derive(Debug)]
pub struct RpcError {
    /// What is wrong with the message itself, if that is the reason.
    pub flaw: Option<RpcFlaw>,
    /// What went wrong.
    pub error: Error,
    /// Which call is the reason, counted from 0, if there are several.
    pub call: Option<usize>,
}

impl From<Error> for RpcError {
    fn from(error: Error) -> RpcError {
        RpcError { flaw: None, error, call: None }
    }
}

impl From<RpcFault> for RpcError {
    fn from(fault: RpcFault) -> RpcError {
        RpcError { flaw: Some(fault.what), error: fault.error, call: None }
    }
}

/// Takes answers, from any thread.
pub trait Answers: Sync {
    /// Takes the answer to the request with this id, as JSON.
    fn answer(&self, id: &str, answer: Result<RpcResult<'_>, RpcError>);

    /// Hands out all answers that it was given.
    fn flush(&self);

    /// Once `end` is readable, a reader that takes nothing for some seconds counts as gone.
    fn end_with(&self, end: Arc<OwnedFd>);

    /// Whether nobody reads answers any longer.
    fn is_closed(&self) -> bool;

    /// The error for answers that could not be written, if there is one.
    fn failure(&self) -> Option<Error>;
}
