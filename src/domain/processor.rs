//! A processor: one running `asyncq process`.

use std::time::Duration;

use super::service::ServiceName;
use super::time::Timestamp;

/// The number of a processor in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessorId(pub i64);

/// What a processor tells about itself when it registers. Its life is proven by the kernel lock on its lock file; the
/// rest is for people, and for the one case in which that file was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProcessor {
    /// The name of its folder among the run files beside the store; its lock file is in there.
    pub folder: String,
    /// The name of its machine.
    pub host: String,
    /// The id that the kernel drew when that machine booted, a space, and the PID namespace, as containers have their own.
    pub boot: String,
    /// Its process id.
    pub pid: i64,
    /// When that process began, in clock ticks since boot: with `boot` and `pid`, it names one process for ever.
    pub pid_start: i64,
}

/// A registered processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its number.
    pub id: ProcessorId,
    /// What it told about itself.
    pub is: NewProcessor,
    /// When it registered.
    pub started_at: Timestamp,
    /// Whether it registered with another file, of which this store is a copy: it does not work here.
    pub of_original: bool,
}

/// What to drain, and when to stop early.
#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// These services, in this order; all of them, by name, when there are none.
    pub services: Vec<ServiceName>,
    /// Claim at most so many calls.
    pub max_jobs: Option<u64>,
    /// Claim nothing any more after this time.
    pub max_time: Option<Duration>,
    /// Wait for the calls that are to be tried again.
    pub wait_retries: bool,
    /// Stay, and run calls as they come, of all services at once, until told to stop.
    pub follow: bool,
    /// Tell this often that it lives.
    pub pulse: Option<Duration>,
    /// A container in which a processor died is gone, as only one at a time uses the store.
    pub one_container: bool,
}

/// What a processor has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many attempts it ran.
    pub attempts: u64,
    /// How many jobs ended in an error with it.
    pub errors: u64,
    /// How often a rule of the application kept it from claiming a call.
    pub held_back: u64,
}
