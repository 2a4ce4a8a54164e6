//! Between a slot and the worker that it feeds: what goes to the worker is marked before it does, and what comes back is noted.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::events::LoopEvent;
use super::outcome_journal;
use super::slots::Shared;
use crate::domain::attempt::Outcome;
use crate::domain::function::Definition;
use crate::domain::job::{Claim, Fence};
use crate::failpoint::reached;
use crate::runner::worker::{CallSource, EndedCall, SendLimits, SentCall};
use crate::runner::{Capture, Ended, Marks};

/// How long a call of a worker must have taken for its outcome to be noted: to repeat a quicker one costs less.
const WORTH_A_NOTE: Duration = Duration::from_millis(1);

/// Notes what came of a call, if that can be noted.
pub(super) fn note(marks: &Marks, done: &mut EndedCall) {
    if let (Some(mark), Some(note)) = (&mut done.mark, outcome_journal::write(&done.claim, &done.ended)) {
        marks.note(mark, done.claim.fence.job, &note);
    }
}

/// The desk at which a worker gets its calls from a slot.
pub(super) struct SlotCalls<'a> {
    pub(super) shared: &'a Shared,
    pub(super) slot: usize,
    /// How the program of the worker was started: as what function, and in which site.
    pub(super) worker_of: (Arc<Definition>, String),
    /// The call for which the worker was taken, until it has it.
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
    fn next(&self, room: SendLimits) -> Option<SentCall> {
        let Shared { queue, common, .. } = self.shared;
        let mut work = queue.work();
        if room.held == 0 && work.learn(self.slot, room.at_once) {
            queue.tell();
        }
        if !work.is_open() {
            return None;
        }
        let claim = match self.first.take() {
            Some(claim) => claim,
            None => work.pick_more(self.slot, |claim| self.is_for(claim), room)?,
        };
        drop(work);
        let mark = common.marks.set(claim.fence.job);
        reached("call marked");
        Some(SentCall { claim, mark: Some(mark) })
    }

    fn done(&self, mut done: Vec<EndedCall>) {
        if done.is_empty() {
            return;
        }
        reached("call ended");
        for done in &mut done {
            // A call that a crash was charged to shall not be charged again with what it has outlived.
            if done.ended.took >= WORTH_A_NOTE || done.claim.before.crashes > 0 {
                note(&self.shared.common.marks, done);
            }
        }
        reached("outcome noted");
        self.shared.over(self.slot, done);
    }

    fn back(&self, begun: Vec<SentCall>) {
        if begun.is_empty() {
            return;
        }
        let mut claims = Vec::with_capacity(begun.len());
        let mut work = self.shared.queue.work();
        for SentCall { claim, mark } in begun {
            work.release(self.slot, claim.fence);
            if let Some(mark) = mark {
                self.shared.common.marks.clear(&mark);
            }
            claims.push(claim);
        }
        work.put_back(claims);
        drop(work);
        self.shared.queue.tell();
        // What waits now may be for others.
        self.shared.events.send(LoopEvent::Back);
    }

    fn leave(&self, begun: Vec<SentCall>) {
        let begun: Vec<_> = begun.into_iter().map(|SentCall { claim, mark }| (claim.fence, mark)).collect();
        self.shared.leave(self.slot, &begun);
    }

    fn cancelled(&self) -> Vec<Fence> {
        let mut cancels = std::mem::take(&mut self.shared.queue.work().slots[self.slot].cancels);
        // The one for which the worker just starts need not wait for it.
        if let Some(claim) = self.first.take() {
            let Some(place) = cancels.iter().position(|which| *which == claim.fence) else {
                self.first.set(Some(claim));
                return cancels;
            };
            cancels.swap_remove(place);
            let output = Capture::new(&self.shared.common.around.folder);
            let ended = Ended::unrun(Outcome::Cancelled, output);
            self.shared.over(self.slot, vec![EndedCall { claim, ended, mark: None }]);
        }
        cancels
    }

    fn is_open(&self) -> bool {
        self.shared.queue.work().is_open()
    }

    fn leaves(&self) {
        self.shared.queue.work().leaves(self.slot);
        self.shared.queue.tell();
    }

    fn is_short_of_calls(&self) -> bool {
        self.shared.queue.work().is_short_of_calls(self.slot)
    }

    fn progress(&self, fence: Fence, text: String) {
        self.shared.events.send(LoopEvent::Progress(fence, text));
    }
}
