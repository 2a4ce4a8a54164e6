//! Where a worker gets its calls from. Each call is marked before it is sent, and its outcome is noted when it comes back.

use std::{cell::Cell, sync::Arc, time::Duration};

use super::{events::LoopEvent, outcome_journal::note, shared::Shared};
use crate::domain::job::{Claim, Fence};
use crate::domain::{attempt::Outcome, function::Definition};
use crate::failpoint::reached;
use crate::runner::worker::{CallReport, CallSource, EndedCall, SendLimits, SentCall};
use crate::runner::{Capture, Ended, StartFailure, has_expired};

/// Outcomes of worker calls that took less than this are not noted, because repeating such a call costs less than noting it.
const WORTH_A_NOTE: Duration = Duration::from_millis(1);

/// The calls that a slot has for its worker.
pub(super) struct SlotCalls<'a> {
    pub(super) shared: &'a Shared,
    pub(super) slot: usize,
    /// The function and the site for which the worker was started.
    pub(super) worker_of: (Arc<Definition>, String),
    /// The call for which the worker was started, until it is sent.
    pub(super) first: Cell<Option<Claim>>,
}

impl SlotCalls<'_> {
    fn is_for(&self, claim: &Claim) -> bool {
        let (definition, site) = (&claim.definition, claim.site());
        let (own, own_site) = &self.worker_of;
        Arc::ptr_eq(definition, own) && site == own_site || own.shares_worker(own_site, definition, site)
    }
}

impl CallSource for SlotCalls<'_> {
    fn next(&self, room: SendLimits) -> Result<Option<SentCall>, String> {
        let Shared { queue, marks, .. } = self.shared;
        let mut state = queue.state();
        if room.held == 0 && state.learn(self.slot, room.at_once) {
            queue.notify();
        }
        if !state.is_open() {
            return Ok(None);
        }
        let claim = loop {
            let more = || state.pick_more(self.slot, |claim| self.is_for(claim), room);
            let Some(claim) = self.first.take().or_else(more) else { return Ok(None) };
            if !has_expired(&claim) {
                break claim;
            }
            state.release(self.slot, claim.fence);
            self.shared.events.send(LoopEvent::NotStarted(Box::new(claim), StartFailure::Expired));
        };
        drop(state);
        let mark = marks.set(claim.fence.job);
        reached("call marked");
        Ok(Some(SentCall { claim, mark: Some(mark) }))
    }

    fn done(&self, mut done: Vec<EndedCall>) {
        if done.is_empty() {
            return;
        }
        reached("call ended");
        for done in &mut done {
            // A call that was charged with a crash before must not be charged again after it has ended.
            if done.ended.took >= WORTH_A_NOTE || done.claim.before.crashes > 0 {
                note(&self.shared.marks, done);
            }
        }
        reached("outcome noted");
        self.shared.finish(self.slot, done);
    }

    fn back(&self, sent: Vec<SentCall>) {
        if sent.is_empty() {
            return;
        }
        let mut claims = Vec::with_capacity(sent.len());
        let mut state = self.shared.queue.state();
        for SentCall { claim, mark } in sent {
            state.release(self.slot, claim.fence);
            if let Some(mark) = mark {
                self.shared.marks.clear(&mark);
            }
            claims.push(claim);
        }
        state.put_back(claims);
        drop(state);
        self.shared.queue.notify();
        // Other slots may run these.
        self.shared.events.send(LoopEvent::Returned);
    }

    fn leave(&self, sent: Vec<SentCall>) {
        let sent: Vec<_> = sent.into_iter().map(|SentCall { claim, mark }| (claim.fence, mark)).collect();
        self.shared.leave(self.slot, &sent);
    }

    fn cancelled(&self) -> Vec<Fence> {
        let mut cancels = std::mem::take(&mut self.shared.queue.state().slots[self.slot].cancels);
        // If the worker is only starting for a cancelled call, nobody waits for the start.
        if let Some(claim) = self.first.take() {
            let Some(place) = cancels.iter().position(|which| *which == claim.fence) else {
                self.first.set(Some(claim));
                return cancels;
            };
            cancels.swap_remove(place);
            let output = Capture::new(&self.shared.around.folder);
            let ended = Ended::unrun(Outcome::Cancelled, output);
            self.shared.finish(self.slot, vec![EndedCall { claim, ended, mark: None }]);
        }
        cancels
    }

    fn is_open(&self) -> bool {
        self.shared.queue.state().is_open()
    }

    fn leaves(&self) {
        self.shared.queue.state().leaves(self.slot);
        self.shared.queue.notify();
    }

    fn is_short_of_calls(&self) -> bool {
        self.shared.queue.state().is_short_of_calls(self.slot)
    }

    fn report(&self, fence: Fence, report: CallReport) {
        self.shared.events.send(LoopEvent::Report(fence, report));
    }
}
