//! Removing services, functions and whole stores: what to do with waiting jobs, and what went.

use super::job::JobId;

/// What to do with jobs that wait for what is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfWaiting {
    /// Remove nothing.
    Refuse,
    /// Cancel them.
    Cancel,
}

/// What removing a service or a function did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// How many waiting jobs were cancelled.
    pub cancelled: u64,
    /// The oldest of them, at most ten.
    pub oldest: Vec<JobId>,
}

/// What goes with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreContents {
    /// How many services it has.
    pub services: i64,
    /// How many functions.
    pub functions: i64,
    /// How many jobs, all of which have ended.
    pub jobs: i64,
}
