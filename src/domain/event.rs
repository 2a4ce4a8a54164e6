//! Events of a processor, for its caller to show.

use std::time::Duration;

use super::attempt::{Ending, Failure, Outcome};
use super::job::{Claim, JobId, State};
use super::pause::Paused;
use super::status::Count;
use super::{json::Json, processor::Processor, retry::Retry, service::ServiceName, tick::TickTrouble};
use crate::error::Error;

/// An event while a processor runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Calls wait, but other processors have taken all slots of the service.
    Busy {
        /// The service.
        service: &'a ServiceName,
        /// How many slots it has.
        concurrency: i64,
        /// The processors that have them.
        holders: &'a [Processor],
    },
    /// No service matches the patterns.
    NoService,
    /// Calls wait in a pause.
    Paused(&'a Paused),
    /// A call has ended, and its outcome is recorded.
    Ended(&'a Report),
    /// A call has ended, but this processor had already lost it.
    Late {
        /// Its job.
        job: JobId,
        /// Its state now; `None` if it is no longer in the store.
        now: Option<State>,
    },
    /// A part of the schema was missing or changed, and was made again. One sentence says which part.
    Mended(&'a str),
    /// Jobs that were `processing` but belonged to no processor were put back. These are their states now.
    Unowned(&'a [(JobId, State)]),
    /// The jobs of a processor that died were put back.
    Rescued {
        /// The dead one.
        processor: &'a Processor,
        /// Its jobs, with their states now.
        jobs: &'a [(JobId, State)],
    },
    /// A processor died, but its processes cannot be ended. That is tried again later.
    NotRescued {
        /// The dead one.
        processor: &'a Processor,
        /// A process of another user, if that is why.
        unkillable: Option<&'a Unkillable>,
    },
    /// A process of a call cannot be ended, because it belongs to another user. The call lasts until that process ends.
    Unkillable(&'a Unkillable),
    /// A processor died, and this process can neither see nor end its processes.
    OutOfReach {
        /// The dead one.
        processor: &'a Processor,
        /// Why not.
        barrier: Barrier,
    },
    /// A processor died, and its host is alive and may still run its calls.
    InHost {
        /// The dead one.
        processor: &'a Processor,
        /// The process of the host.
        host: i64,
        /// The jobs of these calls.
        jobs: &'a [JobId],
    },
    /// It is unknown whether a processor is alive.
    Unsure {
        /// The processor.
        processor: &'a Processor,
        /// Why.
        error: &'a std::io::Error,
    },
    /// A rule of the application refuses to let calls be claimed. That is tried again every second.
    HeldBack(&'a Error),
    /// A schedule did not tick as it was to.
    Schedule {
        /// Its name.
        name: &'a str,
        /// What went wrong.
        trouble: &'a TickTrouble,
    },
    /// The processor is ready, and runs calls as they arrive.
    Ready,
    /// The processor is alive; sent once in each keep-alive interval.
    Alive,
    /// How far the processor is, once in each interval while calls run; `None` once no call runs any longer.
    Progress(Option<DrainProgress>),
    /// The store cannot be watched for changes, so it is polled.
    Deaf(&'a std::io::Error),
    /// The processor was asked to stop, and waits for running calls.
    Stopping {
        /// How many calls are running.
        running: usize,
    },
    /// The store fails. The processor tries again, because it has outcomes to record.
    StoreFails(&'a Error),
    /// The processor was asked to end, and could not record the outcomes of these jobs.
    GivenUp(&'a [JobId]),
    /// The processor cannot mark the calls that begin. They run, but a crash may not be counted.
    Unmarked(&'a std::io::Error),
    /// A call could not begin because its program was being written. It is put back, and no attempt is counted.
    Postponed {
        /// The call.
        claim: &'a Claim,
        /// Why it could not begin.
        why: &'a Failure,
        /// How long it waits.
        pause: Duration,
    },
    /// No program can be started. Calls are put back, and none begins until that works again.
    Scarce(&'a Error),
    /// The disk is full. Outcomes are recorded, and no call begins until there is space.
    NoSpace(&'a Error),
}

/// How far a processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainProgress {
    /// How many attempts have ended since calls began to run without a pause.
    pub done: u64,
    /// For how long that has been so.
    pub time: Duration,
    /// How many calls run.
    pub running: usize,
    /// How many calls wait, in the queue or in the processor.
    pub queued: Count,
}

/// Why the processes of a dead processor are out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// They belong to the user with this number; only that user and root can end them.
    User(u32),
    /// They are in another PID namespace, such as that of a container.
    Namespace,
}

/// How a call ended.
#[derive(Debug)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// Its service.
    pub service: ServiceName,
    /// Its function.
    pub function: String,
    /// How the attempt ended.
    pub ending: Ending,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How long the job waits for its next attempt.
    pub pause: Option<Duration>,
    /// Which of its retries comes then, if it failed.
    pub retry: Option<Retry>,
    /// The state of the job now.
    pub state: State,
    /// How long it took.
    pub took: Duration,
    /// Whether it could not run because the call has its own site, and that site is missing.
    pub lacks_own_site: bool,
    /// Whether it said when to run instead, but did not ask to be tried again.
    pub in_vain: bool,
}

/// A process that cannot be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkillable {
    /// Its number.
    pub pid: i64,
    /// The user to whom it belongs.
    pub user: u32,
    /// The job whose function started it, if that is known.
    pub job: Option<JobId>,
    /// When it began, in clock ticks since boot.
    pub start: i64,
}

/// How a nested call ended.
#[derive(Debug)]
pub struct Ran {
    /// The job that records it.
    pub job: JobId,
    /// Its outcome.
    pub outcome: Outcome,
    /// What it left as its result, if it succeeded.
    pub result: Option<Json>,
    /// Whether its parent had already ended, so that its outcome was discarded.
    pub late: bool,
}
