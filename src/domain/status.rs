//! An overview of the services of a store.

use std::time::Duration;

use super::flaw::Flaw;
use super::pause::{Pause, Paused};
use super::processor::Processor;
use super::service::Service;
use super::time::Timestamp;

/// A number of jobs; counting may stop early.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many there are; at least, if `more` is set.
    pub number: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// An overview of a service.
#[derive(Debug, Clone)]
pub struct ServiceOverview {
    /// The service.
    pub service: Service,
    /// How many of its calls run.
    pub running: u64,
    /// How many wait for a slot.
    pub queued: Count,
    /// How many wait for other calls.
    pub blocked: Count,
    /// How many are due later.
    pub delayed: Count,
    /// How many are held.
    pub held: Count,
    /// How many jobs ended in an error.
    pub errors: Count,
    /// Since when the oldest due call has waited for a slot.
    pub oldest: Option<Timestamp>,
    /// When a call is due next.
    pub next_due: Option<Timestamp>,
    /// When a schedule ticks next, and which.
    pub next_tick: Option<(Timestamp, String)>,
}

/// An overview of a store.
#[derive(Debug)]
pub struct Overview {
    /// The services, by name.
    pub services: Vec<ServiceOverview>,
    /// The processors, and whether each is at work.
    pub processors: Vec<(Processor, bool)>,
    /// How many schedules these services have, and how many of them are paused.
    pub schedules: (u64, u64),
    /// The pause of the whole store, if there is one.
    pub pause: Option<Pause>,
    /// How many bytes the files of the store have.
    pub bytes: u64,
    /// When it was looked at.
    pub now: Timestamp,
}

/// A problem that a person has to solve.
#[derive(Debug, Clone)]
pub enum Finding {
    /// A processor has died, and no other one has taken over from it.
    DeadProcessor(Processor),
    /// The store or a service is paused.
    Paused(Paused),
    /// A call has been in the queue for too long: of this service, due since then.
    Old(String, Timestamp),
    /// A schedule of this name should have ticked at this time.
    Overdue(String, Timestamp),
    /// A schedule of this name makes no calls, for this reason.
    Unfit(String, String),
    /// A service has more failed jobs than are allowed.
    Errors(String, Count),
    /// A function cannot run: its service, its name, and why.
    Broken(String, String, Flaw),
}

/// What counts as a problem.
#[derive(Debug, Clone, Copy)]
pub struct ProblemLimits {
    /// How long a call may wait in the queue.
    pub max_age: Duration,
    /// How many failed jobs a service may have; `None` for any number.
    pub max_errors: Option<u64>,
}

impl ProblemLimits {
    /// How long a call may wait before it counts as a problem, by default.
    pub const MAX_AGE: Duration = Duration::from_secs(600);
}
