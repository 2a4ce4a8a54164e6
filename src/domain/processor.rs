//! A processor: one running `asyncq process`.

use std::time::Duration;

use super::{pattern::ServiceSelection, time::Timestamp};

/// The number of a processor in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessorId(pub i64);

/// What a processor registers about itself. The kernel's lock on its lock file proves that it is alive. The rest is for people, and
/// in case that file was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProcessor {
    /// The name of its folder in the run folder next to the store; it contains the lock file.
    pub folder: String,
    /// The name of its machine.
    pub host: String,
    /// The random id of the machine's boot, a space, and the PID namespace, because each container has its own.
    pub boot: String,
    /// Its process id.
    pub pid: i64,
    /// When that process began, in clock ticks since boot. Together with `boot` and `pid`, it identifies one process forever.
    pub pid_start: i64,
}

/// A registered processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its number.
    pub id: ProcessorId,
    /// What it registered about itself.
    pub is: NewProcessor,
    /// When it registered.
    pub started_at: Timestamp,
    /// Whether it registered in another file, of which this store is a copy. Then it does not run here.
    pub of_original: bool,
}

/// What to drain, and when to stop early.
#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// The services, in this order.
    pub services: ServiceSelection,
    /// Claim at most this many calls.
    pub max_jobs: Option<u64>,
    /// Claim nothing after this time.
    pub max_time: Option<Duration>,
    /// When nothing is left to do, wait for calls that come due within this time.
    pub wait: Option<Duration>,
    /// Keep running, and serve all services at the same time, until asked to stop.
    pub follow: bool,
    /// After the first signal to stop, running calls have this time to end; without it, all the time that they need.
    pub grace: Option<Duration>,
    /// How often to tell how far it is while calls run.
    pub progress: Option<Duration>,
    /// The interval of its keep-alives.
    pub pulse: Option<Duration>,
    /// Assume that the container of a dead processor is gone, because only one container at a time uses the store.
    pub one_container: bool,
}

/// What a processor has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many attempts it ran.
    pub attempts: u64,
    /// How many of its jobs, and of those of dead processors, ended in an error.
    pub errors: u64,
    /// How often a rule of the application kept it from claiming a call.
    pub held_back: u64,
}
