//! How many calls a processor claims, and when it stops claiming.

use std::time::{Duration, Instant};

use super::random::new_tokens;
use crate::domain::job::{Claim, Token};
use crate::domain::{processor::ProcessOptions, retry::POISON};
use crate::error::Result;
use crate::store::ServiceStatus;
use crate::system::fds;

/// How much work to prefetch for each slot, judged by the duration of the latest call. It is several times what a slow disk takes
/// to record outcomes.
const PREFETCH_TIME: Duration = Duration::from_millis(20);

/// The most calls to prefetch for each slot when each call starts a program.
const MOST_COMMANDS: u128 = 16;

/// The same for calls of a worker. It is enough to keep the worker busy while outcomes are recorded.
const MOST_CALLS: u128 = 2048;

/// The most calls of a service to prefetch for all slots, because they take memory.
const MOST_IN_ALL: usize = 3072;

/// The most calls that one transaction claims.
const MOST_AT_ONCE: usize = 1000;

/// About the most bytes of arguments to prefetch.
pub(super) const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How quick the calls of a service are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CallSpeed {
    /// How many calls to prefetch for each slot.
    prefetch: usize,
}

impl CallSpeed {
    /// Learns from a call that took this time.
    pub(super) fn learn(&mut self, claim: &Claim, took: Duration) {
        let many = PREFETCH_TIME.as_nanos() / took.as_nanos().max(1);
        let most = if claim.is_for_worker() { MOST_CALLS } else { MOST_COMMANDS };
        self.prefetch = usize::try_from(many.min(most)).unwrap_or(0);
    }

    /// Prefetches nothing until the next call has ended.
    pub(super) fn forget(&mut self) {
        self.prefetch = 0;
    }
}

/// Calls that a processor has claimed and that have not ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// Those of the service.
    pub(super) held: usize,
    /// Those of other services.
    pub(super) elsewhere: usize,
    /// Bytes of arguments of all.
    pub(super) bytes: usize,
}

/// What may still be claimed.
pub(super) struct ClaimBudget<'a> {
    options: &'a ProcessOptions,
    began: Instant,
    claimed: u64,
    /// Whether the latest claim runs alone.
    alone: bool,
    halted: bool,
    /// How many calls can run at once here, whatever the services allow.
    most: usize,
    /// Secrets for the next claims.
    tokens: Vec<Token>,
}

impl<'a> ClaimBudget<'a> {
    pub(super) fn new(options: &'a ProcessOptions) -> ClaimBudget<'a> {
        let most = fds::functions_at_once();
        ClaimBudget {
            options,
            began: Instant::now(),
            claimed: 0,
            alone: false,
            halted: false,
            most,
            tokens: Vec::new(),
        }
    }

    pub(super) fn claimed(&mut self, claims: &[Claim], broken: usize) {
        self.claimed += (claims.len() + broken) as u64;
        if let Some(latest) = claims.last() {
            self.alone = latest.before.crashes >= POISON;
        }
    }

    /// Prefetched calls were put back.
    pub(super) fn gave_back(&mut self, count: usize) {
        self.claimed -= count as u64;
    }

    /// Secrets for this many claims, and perhaps more. Pass those that no claim got to [`ClaimBudget::unused_tokens`].
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn tokens(&mut self, count: usize) -> Result<Vec<Token>> {
        let missing = count.saturating_sub(self.tokens.len());
        if missing > 0 {
            self.tokens.extend(new_tokens(missing)?);
        }
        Ok(std::mem::take(&mut self.tokens))
    }

    /// Keeps secrets for the next claims.
    pub(super) fn unused_tokens(&mut self, tokens: impl IntoIterator<Item = Token>) {
        self.tokens.extend(tokens);
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

    /// How long it may go on claiming, with `--max-time`.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.options.max_time.map(|max| max.saturating_sub(self.began.elapsed()))
    }

    pub(super) fn may_claim(&self) -> bool {
        !self.halted && !self.is_late() && self.options.max_jobs.is_none_or(|max| self.claimed < max)
    }

    /// How many calls may be prefetched.
    pub(super) fn prefetch(&self, status: &ServiceStatus, speed: CallSpeed) -> usize {
        // With a rate, each claim counts as a start, so nothing is claimed ahead.
        if status.allowance.is_some() {
            return 0;
        }
        (status.free().min(self.most) * speed.prefetch).min(MOST_IN_ALL)
    }

    /// How many more calls of a service to claim now.
    pub(super) fn room(&self, status: &ServiceStatus, speed: CallSpeed, load: Load) -> usize {
        let Load { held, elsewhere, bytes } = load;
        if !self.may_claim() || status.free() == 0 || self.alone && held + elsewhere > 0 {
            return 0;
        }
        let (slots, prefetch) = (status.free().min(self.most), self.prefetch(status, speed));
        let room = (slots + prefetch).saturating_sub(held).min(MOST_AT_ONCE);
        // Claiming many calls at once is cheaper. No slot waits for them as long as more calls are held than can run.
        if held > slots && (room < prefetch.div_ceil(2).min(MOST_AT_ONCE) || bytes >= MOST_BYTES) {
            return 0;
        }
        let left = self.options.max_jobs.map_or(u64::MAX, |max| max - self.claimed);
        room.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}
