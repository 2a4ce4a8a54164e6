//! Removing services, functions and whole stores: what happens to waiting jobs, and what was removed.

use super::job::JobId;

/// What to do with waiting jobs of a service or a function that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfWaiting {
    /// Remove nothing.
    Refuse,
    /// Cancel them.
    Cancel,
}

/// The result of removing a service or a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// How many waiting jobs were cancelled.
    pub cancelled: u64,
    /// The oldest of them, at most ten.
    pub oldest: Vec<JobId>,
}

/// What is removed with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreContents {
    /// How many services it has.
    pub services: i64,
    /// How many functions.
    pub functions: i64,
    /// How many jobs, all of which have ended.
    pub jobs: i64,
}
