//! How many calls a processor claims, and when it stops claiming.

use std::time::{Duration, Instant};

use crate::domain::job::Claim;
use crate::domain::processor::ProcessOptions;
use crate::domain::retry::POISON;
use crate::runner::process::fds;
use crate::store::ServiceStatus;

/// How much work is claimed ahead for each slot, as time, taken that calls go on as the latest one went: a few times what
/// a slow disk takes to record outcomes.
const AHEAD: Duration = Duration::from_millis(20);

/// How many calls that may be at most, for each slot, when each starts a program.
const MOST_COMMANDS_AHEAD: u128 = 16;

/// The same for calls that go to a worker: enough to keep it busy while outcomes are recorded.
const MOST_AHEAD: u128 = 2048;

/// How many calls of a service that may be at most for all slots: they take memory.
const MOST_AHEAD_IN_ALL: usize = 3072;

/// How many calls one transaction claims at most.
const MOST_AT_ONCE: usize = 1000;

/// How many bytes of arguments are claimed at most, about, for calls that cannot begin at once.
pub(super) const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How quick the calls of a service are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CallSpeed {
    /// How many calls to claim ahead for each slot.
    ahead: usize,
}

impl CallSpeed {
    /// Learns from a call that took so long.
    pub(super) fn learn(&mut self, claim: &Claim, took: Duration) {
        let many = AHEAD.as_nanos() / took.as_nanos().max(1);
        let most = if claim.is_for_worker() { MOST_AHEAD } else { MOST_COMMANDS_AHEAD };
        self.ahead = usize::try_from(many.min(most)).unwrap_or(0);
    }

    /// Nothing is known about the next calls, so that nothing is claimed ahead.
    pub(super) fn careful(&mut self) {
        self.ahead = 0;
    }
}

/// What a processor holds, of a service and besides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// How many calls of the service.
    pub(super) held: usize,
    /// How many of others.
    pub(super) elsewhere: usize,
    /// How many bytes of arguments, in all.
    pub(super) bytes: usize,
}

/// What was claimed so far.
pub(super) struct ClaimBudget<'a> {
    options: &'a ProcessOptions,
    began: Instant,
    claimed: u64,
    /// Whether the latest call claimed is to run alone.
    alone: bool,
    halted: bool,
    /// How many calls can run at once here, whatever a service allows.
    most: usize,
}

impl<'a> ClaimBudget<'a> {
    pub(super) fn new(options: &'a ProcessOptions) -> ClaimBudget<'a> {
        let most = fds::functions_at_once();
        ClaimBudget { options, began: Instant::now(), claimed: 0, alone: false, halted: false, most }
    }

    pub(super) fn claimed(&mut self, claims: &[Claim], broken: usize) {
        self.claimed += (claims.len() + broken) as u64;
        if let Some(latest) = claims.last() {
            self.alone = latest.before.crashes >= POISON;
        }
    }

    /// Claims that were ahead of their turn were given back.
    pub(super) fn gave_back(&mut self, count: usize) {
        self.claimed -= count as u64;
    }

    /// Claims nothing more.
    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn is_late(&self) -> bool {
        self.time_left().is_some_and(|left| left.is_zero())
    }

    /// How long it may go on claiming, if that has an end.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.options.max_time.map(|max| max.saturating_sub(self.began.elapsed()))
    }

    pub(super) fn may_claim(&self) -> bool {
        !self.halted && !self.is_late() && self.options.max_jobs.is_none_or(|max| self.claimed < max)
    }

    /// How many calls may be held beyond those that can run.
    pub(super) fn ahead(&self, status: &ServiceStatus, speed: CallSpeed) -> usize {
        (status.free().min(self.most) * speed.ahead).min(MOST_AHEAD_IN_ALL)
    }

    /// How many more calls of a service to claim now.
    pub(super) fn room(&self, status: &ServiceStatus, speed: CallSpeed, load: Load) -> usize {
        let Load { held, elsewhere, bytes } = load;
        if !self.may_claim() || status.free() == 0 || self.alone && held + elsewhere > 0 {
            return 0;
        }
        let (slots, ahead) = (status.free().min(self.most), self.ahead(status, speed));
        let room = (slots + ahead).saturating_sub(held).min(MOST_AT_ONCE);
        // Many at once is cheaper; and while more are held than can run, nobody waits for it.
        if held > slots && (room < ahead.div_ceil(2).min(MOST_AT_ONCE) || bytes >= MOST_BYTES) {
            return 0;
        }
        let left = self.options.max_jobs.map_or(u64::MAX, |max| max - self.claimed);
        room.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}
