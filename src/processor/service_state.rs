//! A service that a processor drains: its latest status, and what has to be recorded of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::finished::{self, FinishedCall};
use super::prefetch::CallSpeed;
use crate::domain::job::{Claim, Fence, JobId};
use crate::domain::{attempt::Outcome, service::ServiceName, time::Timestamp};
use crate::error::Result;
use crate::runner::{Mark, worker::EndedCall};
use crate::store::ServiceStatus;

/// The status of a service at a moment.
pub(super) struct Snapshot {
    pub(super) status: ServiceStatus,
    at: Instant,
}

impl Snapshot {
    pub(super) fn new(status: ServiceStatus) -> Snapshot {
        Snapshot { status, at: Instant::now() }
    }

    /// Time from now until `due`; zero when it has passed.
    pub(super) fn until(&self, due: Timestamp) -> Duration {
        due.since(self.status.now).saturating_sub(self.at.elapsed())
    }

    /// Time from now until a call is due or expires or a schedule ticks, if that lies ahead.
    pub(super) fn until_change(&self) -> Option<Duration> {
        let status = &self.status;
        let due = status.next_due.filter(|_| status.free() > 0);
        [due, status.expires, status.next_tick].into_iter().flatten().min().map(|at| self.until(at))
    }

    /// Time from now until the rate of the service lets a call start, if it lets none start now.
    pub(super) fn until_rate(&self) -> Option<Duration> {
        self.status.waits_for_rate().map(|at| self.until(at)).filter(|time| !time.is_zero())
    }

    /// Whether there are calls that have expired before they began.
    pub(super) fn have_expired(&self) -> bool {
        !self.status.outdated && self.status.expires.is_some_and(|at| self.until(at).is_zero())
    }

    /// Time from now until the next delayed call is due or a schedule ticks, if there is one.
    pub(super) fn until_next(&self) -> Option<Duration> {
        self.status.next_event().map(|due| self.until(due))
    }

    /// Whether a schedule ticks by now.
    pub(super) fn has_due_ticks(&self) -> bool {
        !self.status.outdated && self.status.next_tick.is_some_and(|tick| self.until(tick).is_zero())
    }
}

/// A service that a processor drains.
pub(super) struct ServiceState {
    pub(super) name: ServiceName,
    pub(super) snapshot: Snapshot,
    pub(super) speed: CallSpeed,
    /// How many slots of the service this processor has, by the store.
    pub(super) slots: usize,
    /// Calls that have ended in slots.
    done: VecDeque<EndedCall>,
    /// What else is to be recorded.
    pending: Pending,
    /// When a call of it last began or ended.
    moved: Instant,
    /// Whether calls were put back because the host had no room.
    pub(super) awaits_host: bool,
    /// Whether it was reported that its calls wait because it is paused.
    pause_reported: bool,
}

/// What is to be recorded.
#[derive(Default)]
pub(super) struct Pending {
    /// Claims that never ran, and outcomes that could not be recorded before. In a transaction, everything that it records.
    pub(super) finished: Vec<FinishedCall>,
    /// Claims that have not begun and are put back.
    pub(super) returned: Vec<Fence>,
    /// The same, to run after a pause.
    pub(super) postponed: Vec<Fence>,
}

impl Pending {
    /// Whether claims are put back.
    pub(super) fn puts_back(&self) -> bool {
        !self.returned.is_empty() || !self.postponed.is_empty()
    }
}

impl ServiceState {
    pub(super) fn new(name: ServiceName, status: ServiceStatus) -> ServiceState {
        ServiceState {
            name,
            snapshot: Snapshot::new(status),
            speed: CallSpeed::default(),
            slots: 0,
            done: VecDeque::new(),
            pending: Pending::default(),
            moved: Instant::now(),
            awaits_host: false,
            pause_reported: false,
        }
    }

    /// Whether to report now that its calls wait because of a pause. True once in each pause.
    pub(super) fn pauses(&mut self) -> bool {
        let ServiceStatus { paused, ready, .. } = self.snapshot.status;
        self.pause_reported &= paused;
        paused && ready && !std::mem::replace(&mut self.pause_reported, true)
    }

    /// Whether there is something to record.
    pub(super) fn has_pending(&self) -> bool {
        !self.done.is_empty() || !self.pending.finished.is_empty() || self.pending.puts_back()
    }

    /// How many calls have ended in slots and are not recorded.
    pub(super) fn ended(&self) -> usize {
        self.done.len()
    }

    /// What to record next: as much as one transaction may hold.
    pub(super) fn pending(&mut self) -> Result<Pending> {
        let finished = finished::collect(&mut self.pending.finished, &mut self.done)?;
        Ok(Pending { finished, ..self.returned() })
    }

    /// Keeps what could not be recorded, for another time.
    pub(super) fn keep(&mut self, pending: Pending) {
        self.pending.finished.extend(pending.finished);
        self.pending.returned.extend(pending.returned);
        self.pending.postponed.extend(pending.postponed);
    }

    /// A call has ended.
    pub(super) fn ends(&mut self, done: EndedCall) {
        self.speed.learn(&done.claim, done.ended.took);
        self.moved = Instant::now();
        self.done.push_back(done);
    }

    /// Calls may begin from now on.
    pub(super) fn begins(&mut self) {
        self.moved = Instant::now();
    }

    /// These claims never ran.
    pub(super) fn never_ran(&mut self, calls: impl IntoIterator<Item = FinishedCall>) {
        self.pending.finished.extend(calls);
    }

    /// These were cancelled before they began.
    pub(super) fn cancelled(&mut self, claims: &[Claim]) {
        self.pending.finished.extend(claims.iter().map(|claim| FinishedCall::unrun(claim, &Outcome::Cancelled)));
    }

    /// These have not begun and are put back.
    pub(super) fn gives_back(&mut self, claims: &[Claim]) {
        self.pending.returned.extend(claims.iter().map(|claim| claim.fence));
        if !claims.is_empty() {
            self.speed.forget();
        }
    }

    /// Puts back a call that cannot begin now, to run after a pause.
    pub(super) fn postpones(&mut self, claim: &Claim) {
        self.pending.postponed.push(claim.fence);
    }

    /// Takes what is to be put back.
    pub(super) fn returned(&mut self) -> Pending {
        let finished = std::mem::take(&mut self.pending.finished);
        std::mem::replace(&mut self.pending, Pending { finished, ..Pending::default() })
    }

    /// Whether no call has begun or ended for this time.
    pub(super) fn is_stuck(&self, time: Duration) -> bool {
        self.done.is_empty() && self.moved.elapsed() >= time
    }

    /// Takes the calls that have ended; with `all`, also those that could not be recorded before.
    pub(super) fn outcomes(&mut self, all: bool) -> Result<Vec<FinishedCall>> {
        let mut calls = if all { std::mem::take(&mut self.pending.finished) } else { Vec::new() };
        while let Some(done) = self.done.pop_front() {
            calls.push(FinishedCall::of(done)?);
        }
        Ok(calls)
    }

    /// The jobs of calls that are not recorded yet. Each has its mark, which shows that it had begun.
    pub(super) fn unrecorded(&self) -> impl Iterator<Item = (JobId, Option<&Mark>)> {
        let unrun = self.pending.finished.iter().map(|call| (call.finish.fence.job, call.mark.as_ref()));
        unrun.chain(self.done.iter().map(|done| (done.claim.fence.job, done.mark.as_ref())))
    }
}
