//! How many calls a processor claims, and when it stops claiming.

use std::time::{Duration, Instant};

use super::Options;
use crate::domain::job::Claim;
use crate::domain::retry::SUSPECT;
use crate::domain::time::Timestamp;
use crate::runner::descriptors;
use crate::store::Outlook;

/// How much work is claimed ahead for each slot, as time, taken that calls go on as the latest one went: a few times what
/// a slow disk takes to record outcomes.
const AHEAD: Duration = Duration::from_millis(20);

/// How many calls that may be at most, for each slot.
const MOST_AHEAD: u128 = 16;

/// How many calls one transaction claims at most.
const MOST_AT_ONCE: usize = 1000;

/// A service as it was seen at a moment.
pub(super) struct View {
    pub(super) outlook: Outlook,
    at: Instant,
}

impl View {
    pub(super) fn new(outlook: Outlook) -> View {
        View { outlook, at: Instant::now() }
    }

    /// How long from now until `due`; zero when that has passed.
    pub(super) fn until(&self, due: Timestamp) -> Duration {
        due.since(self.outlook.now).saturating_sub(self.at.elapsed())
    }
}

/// What was claimed so far, and how quick calls are.
pub(super) struct Pace<'a> {
    options: &'a Options,
    began: Instant,
    claimed: u64,
    /// How many calls to claim ahead for each slot.
    ahead: usize,
    /// Whether the latest call claimed is to run alone.
    alone: bool,
    halted: bool,
    /// How many calls can run at once here, whatever a service allows.
    most: usize,
}

impl<'a> Pace<'a> {
    pub(super) fn new(options: &'a Options) -> Pace<'a> {
        Pace {
            options,
            began: Instant::now(),
            claimed: 0,
            ahead: 0,
            alone: false,
            halted: false,
            most: descriptors::functions_at_once(),
        }
    }

    /// Nothing is known about the next calls, so that nothing is claimed ahead.
    pub(super) fn careful(&mut self) {
        self.ahead = 0;
    }

    /// Learns how long a call took.
    pub(super) fn took(&mut self, took: Duration) {
        let many = AHEAD.as_micros() / took.as_micros().max(1);
        self.ahead = usize::try_from(many.min(MOST_AHEAD)).unwrap_or(0);
    }

    pub(super) fn claimed(&mut self, claims: &[Claim]) {
        self.claimed += claims.len() as u64;
        if let Some(latest) = claims.last() {
            self.alone = latest.before.crashes >= SUSPECT;
        }
    }

    /// Claims that were ahead of their turn were given back.
    pub(super) fn gave_back(&mut self, count: usize) {
        self.claimed -= count as u64;
        if count > 0 {
            self.careful();
        }
    }

    /// Claims nothing more.
    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn is_late(&self) -> bool {
        self.options.max_time.is_some_and(|max| self.began.elapsed() >= max)
    }

    pub(super) fn may_claim(&self) -> bool {
        !self.halted && !self.is_late() && self.options.max_jobs.is_none_or(|max| self.claimed < max)
    }

    /// How many calls may be held beyond those that can run.
    pub(super) fn ahead(&self, outlook: &Outlook) -> usize {
        outlook.free().min(self.most) * self.ahead
    }

    /// How many more calls to claim now, when so many are held.
    pub(super) fn room(&self, outlook: &Outlook, held: usize) -> usize {
        if !self.may_claim() || outlook.free() == 0 || self.alone && held > 0 {
            return 0;
        }
        let (slots, ahead) = (outlook.free().min(self.most), self.ahead(outlook));
        let room = (slots + ahead).saturating_sub(held).min(MOST_AT_ONCE);
        // Many at once is cheaper; and while more are held than can run, nobody waits for it.
        if held > slots && room < ahead.div_ceil(2) {
            return 0;
        }
        let left = self.options.max_jobs.map_or(u64::MAX, |max| max - self.claimed);
        room.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}
