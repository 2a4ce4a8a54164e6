//! What stops the slots of a processor from another thread.

use std::sync::{Arc, Weak};

use super::dispatch_queue::DispatchQueue;
use super::slots::{Common, Shared};
use super::worker_pool::WorkerPool;
use crate::runner::{Orphans, SkipWait, Stop};

/// Stops all slots, whatever their owner is waiting for.
pub(super) struct StopHandle {
    queue: Arc<DispatchQueue>,
    orphans: Arc<Orphans>,
    /// Not kept from going with the slots: what they print is waited for when nobody can print any more.
    workers: Weak<WorkerPool>,
    hurry: SkipWait,
}

impl StopHandle {
    /// The brake of slots that have this in common.
    pub(super) fn of(shared: &Shared) -> StopHandle {
        let Common { around, forwarder, workers, .. } = &shared.common;
        StopHandle {
            queue: Arc::clone(&shared.queue),
            orphans: Arc::clone(&around.orphans),
            workers: Arc::downgrade(workers),
            hurry: forwarder.hurry(),
        }
    }

    /// Lets nobody who does not read what functions have printed keep the processor from ending.
    pub(super) fn hurry(&self) {
        self.hurry.up();
    }

    /// Lets nothing begin any more, and asks what is running to end, unless that is [`Stop::No`].
    pub(super) fn pull(&self, how: Stop) {
        if how == Stop::Kill {
            self.orphans.leave_immune();
        }
        let mut work = self.queue.work();
        work.halted = true;
        work.wake_workers();
        if how != Stop::No {
            work.stop(how);
        }
    }

    /// Ends everything at once and returns when nothing is left.
    pub(super) fn end_everything(&self) {
        self.pull(Stop::Kill);
        let mut work = self.queue.work();
        while work.running() > 0 {
            work = self.queue.wait(work);
        }
        drop(work);
        if let Some(workers) = self.workers.upgrade() {
            workers.kill();
        }
        self.orphans.end();
    }
}
