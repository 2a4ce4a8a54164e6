//! The slots of a processor: threads that run one call after another, without waiting for the store in between.
//!
//! Invariant: at most as many calls run at once as the width says; which calls run is marked, before they begin, where a
//! rescuer finds it.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::wake::Wake;
use crate::domain::job::{Claim, Fence};
use crate::error::Result;
use crate::runner::{Control, Echo, Ended, Marks, Output, Request, Stop, Surroundings, command};

/// How much stack a slot needs: it runs no recursion.
const STACK: usize = 256 * 1024;

/// A call that has ended in a slot.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) claim: Claim,
    pub(super) ended: Ended,
}

/// What all calls of a processor have in common.
pub(super) struct Common {
    pub(super) around: Surroundings,
    pub(super) marks: Arc<Marks>,
    pub(super) echo: Echo,
}

/// All slots of a processor; they end when this is dropped.
pub(super) struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// How many calls were handed in and did not come back yet.
    held: usize,
}

struct Shared {
    common: Common,
    wake: Sender<Wake>,
    work: Mutex<Work>,
    changed: Condvar,
}

struct Work {
    /// What may begin, most urgent first.
    waiting: VecDeque<Claim>,
    /// How many calls may run at once.
    width: usize,
    /// What each slot runs, and the switch that ends it.
    slots: Vec<(Option<Fence>, Arc<Control>)>,
    whole_lines: bool,
    closed: bool,
}

impl Work {
    fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.0.is_some()).count()
    }
}

impl Slots {
    /// No slots yet; they tell `wake` when a call has ended.
    pub(super) fn new(common: Common, wake: Sender<Wake>) -> Slots {
        let work = Work { waiting: VecDeque::new(), width: 0, slots: Vec::new(), whole_lines: false, closed: false };
        let shared = Shared { common, wake, work: Mutex::new(work), changed: Condvar::new() };
        Slots { shared: Arc::new(shared), threads: Vec::new(), held: 0 }
    }

    /// How many calls were claimed and are not over yet.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many of those are running.
    pub(super) fn running(&self) -> usize {
        self.shared.work().running()
    }

    /// How many of those have not begun.
    pub(super) fn waiting(&self) -> usize {
        self.shared.work().waiting.len()
    }

    /// Hands in valid claims, and says how many calls may run at once from now on, and whether they share the output.
    pub(super) fn begin(&mut self, claims: Vec<Claim>, width: usize, whole_lines: bool) -> Result<()> {
        self.held += claims.len();
        while self.threads.len() < width.min(self.held) {
            self.add()?;
        }
        let mut work = self.shared.work();
        work.waiting.extend(claims);
        work.width = width;
        work.whole_lines = whole_lines;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Notes that a call came back.
    pub(super) fn came_back(&mut self) {
        self.held -= 1;
    }

    /// Takes back what has not begun: all of it, or one attempt.
    pub(super) fn take_back(&mut self, which: Option<Fence>) -> Vec<Claim> {
        let mut work = self.shared.work();
        let waiting = std::mem::take(&mut work.waiting);
        let (taken, left): (VecDeque<_>, _) =
            waiting.into_iter().partition(|claim| which.is_none_or(|which| which == claim.fence));
        work.waiting = left;
        self.held -= taken.len();
        taken.into()
    }

    /// Asks what is running to end: one attempt, or all.
    pub(super) fn stop(&self, which: Option<Fence>, how: Stop) {
        for (busy, control) in &self.shared.work().slots {
            if busy.is_some_and(|busy| which.is_none_or(|which| which == busy)) {
                control.stop(how);
            }
        }
    }

    fn add(&mut self) -> Result<()> {
        let fail = |error| super::super::io_error("cannot run more at once", &error);
        let control = Arc::new(Control::new().map_err(fail)?);
        let slot = self.threads.len();
        self.shared.work().slots.push((None, Arc::clone(&control)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", slot + 1))
            .stack_size(STACK)
            .spawn(move || shared.run(slot, &control))
            .map_err(fail)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot's life: one call after another.
    fn run(&self, slot: usize, control: &Control) {
        while let Some((claim, whole_lines)) = self.next(slot, control) {
            let (Ok(call), Some(definition)) = (&claim.call, &claim.definition) else {
                unreachable!("a call that cannot be run never gets to a slot")
            };
            let Common { around, marks, echo } = &self.common;
            marks.set(slot, Some(claim.fence.job));
            let request = Request { fence: &claim.fence, token: &claim.token, call, definition };
            let ended = command::run(&request, around, Output { echo, whole_lines }, control);
            marks.set(slot, None);
            // Without a listener the processor is ending, and with it this thread.
            let _ = self.wake.send(Wake::Done(Box::new(Done { claim, ended })));
        }
    }

    /// Waits for the next call that may begin; `None` when there will be none.
    fn next(&self, slot: usize, control: &Control) -> Option<(Claim, bool)> {
        let mut work = self.work();
        work.slots[slot].0 = None;
        loop {
            if work.closed {
                return None;
            }
            if work.running() < work.width
                && let Some(claim) = work.waiting.pop_front()
            {
                control.reset();
                work.slots[slot].0 = Some(claim.fence);
                return Some((claim, work.whole_lines));
            }
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.shared.work().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
