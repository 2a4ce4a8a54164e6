//! A processor: one running `asyncq process`.

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
