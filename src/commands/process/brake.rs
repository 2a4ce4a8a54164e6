//! What stops the slots of a processor from another thread.

use std::sync::{Arc, Weak};

use super::board::Board;
use super::slots::{Common, Shared};
use super::workers::Workers;
use crate::runner::{Hurry, Orphans, Stop};

/// Stops all slots, whatever their owner is waiting for.
pub(super) struct Brake {
    board: Arc<Board>,
    orphans: Arc<Orphans>,
    /// Not kept from going with the slots: what they print is waited for when nobody can print any more.
    workers: Weak<Workers>,
    hurry: Hurry,
}

impl Brake {
    /// The brake of slots that have this in common.
    pub(super) fn of(shared: &Shared) -> Brake {
        let Common { around, echo, workers, .. } = &shared.common;
        Brake {
            board: Arc::clone(&shared.board),
            orphans: Arc::clone(&around.orphans),
            workers: Arc::downgrade(workers),
            hurry: echo.hurry(),
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
        let mut work = self.board.work();
        work.halted = true;
        work.wake_workers();
        if how != Stop::No {
            work.stop(how);
        }
    }

    /// Ends everything at once and returns when nothing is left.
    pub(super) fn end_everything(&self) {
        self.pull(Stop::Kill);
        let mut work = self.board.work();
        while work.running() > 0 {
            work = self.board.wait(work);
        }
        drop(work);
        if let Some(workers) = self.workers.upgrade() {
            workers.kill();
        }
        self.orphans.end();
    }
}
