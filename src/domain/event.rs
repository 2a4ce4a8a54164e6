//! What happens while a processor works, for its caller to show.

use std::time::Duration;

use super::attempt::{Ending, Failure, Outcome};
use super::job::{Claim, JobId, State};
use super::processor::Processor;
use super::service::ServiceName;
use crate::error::Error;

/// What happens while a processor works, for whoever wants to tell it.
#[derive(Debug)]
pub enum Event<'a> {
    /// There is work, but others have taken all slots of the service.
    Busy {
        /// The service.
        service: &'a ServiceName,
        /// How many slots it has.
        concurrency: i64,
        /// Who has them.
        holders: &'a [Processor],
    },
    /// There is work, but the service is paused.
    Paused {
        /// The service.
        service: &'a ServiceName,
    },
    /// A call has ended and that is recorded.
    Ended(&'a Report),
    /// A call has ended, but was no longer this processor's to finish.
    Late {
        /// Its job.
        job: JobId,
        /// In which state that is now; `None` when it is not in the store any more.
        now: Option<State>,
    },
    /// Something was missing of the schema, or was changed, and was made again.
    Mended {
        /// What, in one sentence.
        what: &'a str,
    },
    /// Jobs that were `processing` and belonged to no processor were put back.
    Unowned {
        /// Which, with their states now.
        jobs: &'a [(JobId, State)],
    },
    /// The jobs of a processor that died were put back.
    Rescued {
        /// The dead one.
        processor: &'a Processor,
        /// Its jobs, with their states now.
        jobs: &'a [(JobId, State)],
    },
    /// A processor died, but what it ran cannot be ended; that is tried again later.
    NotRescued {
        /// The dead one.
        processor: &'a Processor,
        /// A process of it that another user's rights protect, if that is why.
        immune: Option<&'a Unkillable>,
    },
    /// A process of a call cannot be ended, as it is another user's. Its call goes on until it has ended by itself.
    Unkillable {
        /// The process.
        immune: &'a Unkillable,
    },
    /// A processor died, and what it left running can neither be seen nor ended from here.
    OutOfReach {
        /// The dead one.
        processor: &'a Processor,
        /// Why not.
        barrier: Barrier,
    },
    /// A processor died, and the program that it drained into, which lives, may still run calls of it.
    InHost {
        /// The dead one.
        processor: &'a Processor,
        /// The process of that program.
        host: i64,
        /// Their jobs.
        jobs: &'a [JobId],
    },
    /// It cannot be told whether a processor lives.
    Unsure {
        /// Which one.
        processor: &'a Processor,
        /// Why.
        error: &'a std::io::Error,
    },
    /// A rule of the application holds calls back; they are tried again every second.
    HeldBack {
        /// Which rule, and why.
        error: &'a Error,
    },
    /// The processor stays from now on, and runs calls as they come.
    Ready,
    /// It is there and works, as its pulse tells.
    Alive,
    /// The system does not tell when the store changes; it is looked at often instead.
    Deaf {
        /// Why.
        error: &'a std::io::Error,
    },
    /// The processor was asked to stop and waits for what is running.
    Stopping {
        /// How many calls are running.
        running: usize,
    },
    /// The store is failing; it is tried again because outcomes are to be recorded.
    StoreFails {
        /// How it fails.
        error: &'a Error,
    },
    /// It was told to end, and outcomes cannot be recorded.
    GivenUp {
        /// Whose.
        jobs: &'a [JobId],
    },
    /// It cannot be written down which calls run; they do, and a crash might not be counted.
    Unmarked {
        /// Why.
        error: &'a std::io::Error,
    },
    /// A call could not begin for now, as its program was being written; it goes back, and counts no attempt.
    Postponed {
        /// The call.
        claim: &'a Claim,
        /// What was in its way.
        why: &'a Failure,
        /// How long it waits.
        pause: Duration,
    },
    /// No program can be started: calls go back, and nothing begins until one can.
    Scarce {
        /// What the system lacks.
        error: &'a Error,
    },
    /// The disk is full: outcomes are recorded, and nothing begins until there is space.
    NoSpace {
        /// How that was met.
        error: &'a Error,
    },
}

/// What keeps what a dead processor has left out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// It belongs to the user with this number; only that user and root can see and end it.
    User(u32),
    /// It is in another PID namespace, as of another container.
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
    /// How long it waits to be tried again.
    pub pause: Option<Duration>,
    /// Where the job stands now.
    pub state: State,
    /// How long it took.
    pub took: Duration,
    /// Whether it could not be run, and has a site of its own that is not there.
    pub lacks_own_site: bool,
}

/// A process that cannot be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkillable {
    /// Its number.
    pub pid: i64,
    /// Whose it is.
    pub user: u32,
    /// The job whose function has started it, if that is known.
    pub job: Option<JobId>,
    /// When it began, in clock ticks since boot.
    pub start: i64,
}

/// How a nested call ended.
#[derive(Debug)]
pub struct Ran {
    /// The job that records it.
    pub job: JobId,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether its parent had ended before it did, so that its own end counts for nothing.
    pub late: bool,
}
