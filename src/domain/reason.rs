//! Why a call does not run yet, or why it ended as it did.

use super::attempt::{Ending, Failure};
use super::event::Barrier;
use super::flaw::Flaw;
use super::job::JobId;
use super::pause::Paused;
use super::processor::Processor;
use super::rate::Rate;
use super::time::Timestamp;

/// One reason. `docs/explain.md` lists the codes, which programs may rely on.
#[derive(Debug, Clone)]
pub enum Reason {
    /// A person has to start the call.
    Held,
    /// It is not due.
    Delayed(Timestamp),
    /// It is tried again then.
    Retry(Timestamp, Tried),
    /// Its function asked to run then.
    Snoozed(Timestamp),
    /// It needs these jobs, and perhaps more.
    After(Vec<JobId>),
    /// Its lane is full.
    Lane(LanePosition),
    /// The service is gone.
    NoService,
    /// The store or the service is paused.
    Paused(Paused),
    /// The rate of the service lets no call start before then.
    Rate(Rate, Option<Timestamp>),
    /// All slots of the service are taken.
    Slots(TakenSlots),
    /// It waits for its turn, or is next.
    Order(QueueAhead),
    /// No processor is at work.
    NoProcessor(Absence),
    /// Processors died while they ran it, so it runs alone.
    Quarantine,
    /// A processor died, and the next one puts its jobs back.
    DeadProcessor(Processor),
    /// A processor died, and its processes may run where others cannot see them.
    OutOfReach(Processor, Barrier),
    /// All processors at work are older than the store.
    Outdated(Processor),
    /// The disk of the store is full: only this many bytes are free.
    NoSpace(u64),
    /// It will fail, because its function cannot run.
    WillFail(Flaw),
    /// It will be cancelled then if no attempt has begun.
    WillExpire(Timestamp),
    /// It runs.
    Running(CurrentAttempt),
    /// It runs, and was asked to end.
    Cancelling(Option<Failure>),
    /// It completed, in this attempt.
    Completed(i64),
    /// It ended in an error.
    Failed(Failure, NotRetried, Revival),
    /// It was cancelled. A client that cancels by SQL leaves no reason.
    Cancelled(Option<Failure>, Revival),
}

/// What lets a call run again that failed or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revival {
    /// To queue it again.
    Retry,
    /// To run the job again of which it was a part.
    Whole(JobId),
    /// First, its service has to be there again.
    Service,
    /// First, its function has to be there again.
    Function,
    /// First, this job has to end as the call needs it.
    Needed(JobId),
    /// Nothing, because it was to handle a failure, and there was none.
    Nothing,
}

/// How often an attempt was repeated already.
#[derive(Debug, Clone)]
pub struct Tried {
    /// How the last one ended.
    pub ending: Ending,
    /// Why the last one failed.
    pub failure: Option<Failure>,
    /// How many attempts failed so, of this budget.
    pub failed: i64,
    /// How many attempts there are at most.
    pub of: Option<i64>,
}

/// Where a call stands in its lane.
#[derive(Debug, Clone)]
pub struct LanePosition {
    /// The lane.
    pub lane: String,
    /// The first of the calls that are in the queue or run.
    pub heads: Vec<JobId>,
    /// How many calls wait in the lane before this one; at most [`MOST`] are counted.
    pub before: u64,
}

/// What takes all slots of a service.
#[derive(Debug, Clone)]
pub struct TakenSlots {
    /// How many there are.
    pub concurrency: i64,
    /// Which processors have them.
    pub holders: Vec<Processor>,
    /// The first of the jobs that run.
    pub running: Vec<RunningJob>,
}

/// A job that runs.
#[derive(Debug, Clone)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// When its attempt began.
    pub started_at: Option<Timestamp>,
    /// How long it may take, in milliseconds.
    pub timeout: Option<i64>,
}

/// The calls of a service that come before a call.
#[derive(Debug, Clone, Copy)]
pub struct QueueAhead {
    /// How many, of at most [`MOST`].
    pub before: u64,
    /// The smallest priority among those that wait in the queue.
    pub priority: Option<i64>,
}

/// That no processor is at work.
#[derive(Debug, Clone, Copy)]
pub struct Absence {
    /// Whether processors are at work that have no slot of the service.
    pub others_work: bool,
    /// When a call of the service last ended, if that was not long ago.
    pub last_end: Option<Timestamp>,
}

/// An attempt that runs.
#[derive(Debug, Clone)]
pub struct CurrentAttempt {
    /// Its number.
    pub number: i64,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// Which processor runs it.
    pub processor: Option<Processor>,
    /// When its time limit ends it.
    pub until: Option<Timestamp>,
    /// What its function reported.
    pub progress: Option<String>,
}

/// Why a call that failed is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRetried {
    /// Its function was removed.
    NoFunction,
    /// Its function retries nothing.
    Never,
    /// Its function retries other failures.
    OtherFailures,
    /// It was tried this often.
    UsedUp(u32),
    /// It ran as a part of this job.
    PartOf(JobId),
    /// Failures of this kind are never retried.
    NotARun,
}

/// How many calls before a call are counted at most.
pub const MOST: u64 = 1000;

impl Reason {
    /// Its code, which stays the same.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Held => "held",
            Reason::Delayed(_) => "delayed",
            Reason::Retry(..) => "retry",
            Reason::Snoozed(_) => "snoozed",
            Reason::After(_) => "after",
            Reason::Lane(_) => "lane",
            Reason::NoService => "no-service",
            Reason::Paused(Paused::Store(_)) => "store-paused",
            Reason::Paused(Paused::Service(..)) => "service-paused",
            Reason::Rate(..) => "rate",
            Reason::Slots(_) => "slots",
            Reason::Order(_) => "order",
            Reason::NoProcessor(_) => "no-processor",
            Reason::Quarantine => "quarantine",
            Reason::DeadProcessor(_) => "dead-processor",
            Reason::OutOfReach(..) => "out-of-reach",
            Reason::Outdated(_) => "outdated",
            Reason::NoSpace(_) => "no-space",
            Reason::WillFail(_) => "will-fail",
            Reason::WillExpire(_) => "will-expire",
            Reason::Running(_) => "running",
            Reason::Cancelling(_) => "cancelling",
            Reason::Completed(_) => "completed",
            Reason::Failed(failure, ..) | Reason::Cancelled(Some(failure), _) => failure.kind.as_str(),
            Reason::Cancelled(None, _) => "cancelled",
        }
    }
}
