//! What the threads of a processor share: its slots, and the one that feeds a host.

use std::sync::{Arc, MutexGuard};

use super::dispatch_queue::{DispatchQueue, QueueState};
use super::events::{EventQueue, LoopEvent};
use super::{shutdown::StopTargets, worker_pool::WorkerPool};
use crate::domain::job::Fence;
use crate::runner::{Forwarder, Mark, Marks, Surroundings, Tap, worker::EndedCall};

/// The stack of a thread that runs calls or feeds a worker or host, in bytes. Such threads do not recurse.
pub(super) const STACK: usize = 256 * 1024;

/// What the threads share.
pub(super) struct Shared {
    pub(super) around: Surroundings,
    pub(super) marks: Arc<Marks>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) workers: Arc<WorkerPool>,
    pub(super) events: Arc<EventQueue<LoopEvent>>,
    pub(super) queue: Arc<DispatchQueue>,
    /// The tap, through which others follow the output of calls.
    pub(super) tap: Arc<Tap>,
}

impl Shared {
    /// What a shutdown stops.
    pub(super) fn stop_targets(&self) -> StopTargets {
        StopTargets {
            queue: Arc::clone(&self.queue),
            orphans: Arc::clone(&self.around.orphans),
            workers: Arc::downgrade(&self.workers),
            forwarder: self.forwarder.handle(),
        }
    }

    /// Leaves calls behind in processes that cannot be ended. They stay with this processor after its end, without being charged
    /// with a crash.
    pub(super) fn leave(&self, slot: usize, calls: &[(Fence, Option<Mark>)]) {
        let mut state = self.queue.state();
        for (fence, mark) in calls {
            state.release(slot, *fence);
            if let Some(mark) = mark {
                self.marks.clear(mark);
            }
        }
        self.queue.notify();
        drop(state);
        self.events.send(LoopEvent::Left(calls.len()));
    }

    /// Frees the slot of ended calls. This happens before the event is sent, so that the main loop no longer counts the calls.
    pub(super) fn release(state: &mut QueueState, slot: usize, ended: &[EndedCall]) {
        for call in ended {
            state.release(slot, call.claim.fence);
            if call.mark.as_ref().is_some_and(|mark| mark.awaited) {
                state.await_record(&call.claim.call.service);
            }
        }
    }

    /// Reports calls that have ended.
    pub(super) fn report(&self, state: MutexGuard<'_, QueueState>, ended: Vec<EndedCall>) {
        if state.halted || state.slots.len() > 1 || state.host.is_some() {
            self.queue.notify();
        }
        drop(state);
        self.events.send(LoopEvent::Ended(ended));
    }

    /// Frees a slot of calls that have ended, and reports them.
    pub(super) fn finish(&self, slot: usize, ended: Vec<EndedCall>) {
        let mut state = self.queue.state();
        Shared::release(&mut state, slot, &ended);
        self.report(state, ended);
    }
}
