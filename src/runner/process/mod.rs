//! Processes: their identity, their trees, their orphans, their signals and descriptors.

pub(in crate::runner) mod attempt_processes;
pub(in crate::runner) mod environ;
pub mod fds;
pub mod identity;
pub mod memory;
pub(in crate::runner) mod oom_score;
pub mod orphans;
pub mod signals;
pub(in crate::runner) mod stat;
pub mod supervisor;
pub(in crate::runner) mod tree;
pub mod unkillable;
