//! Processes: their identity, their trees and their orphans.

pub(in crate::runner) mod attempt_processes;
pub mod background;
pub(in crate::runner) mod environ;
pub mod identity;
pub(in crate::runner) mod oom_score;
pub mod orphans;
pub(in crate::runner) mod stat;
pub mod supervisor;
pub(in crate::runner) mod tree;
pub mod unkillable;
