//! The slots of a processor: threads that run one call after another, without waiting for the store in between.
//!
//! Invariant: at most as many calls run at once as the width says, and at most as many again have ended without their
//! outcome being recorded or noted; which calls have begun is marked, before they do and until that is done, where a rescuer
//! finds it, and what came of them is noted there.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::note;
use super::wake::Wake;
use crate::domain::job::{Claim, Fence};
use crate::error::Result;
use crate::failpoint::reached;
use crate::runner::{
    Control, Echo, Ended, Hurry, Mark, Marks, Orphans, Output, Request, Stop, Surroundings, command, descriptors,
};

/// How much stack a slot needs: it runs no recursion.
const STACK: usize = 256 * 1024;

/// How long it may take until an outcome is recorded, for slots to go on meanwhile. A processor's death repeats what has
/// ended and is not recorded: where many share a store, that would be more with every call that begins.
const QUICK: Duration = Duration::from_millis(5);

/// A call that has ended in a slot.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) claim: Claim,
    pub(super) ended: Ended,
    /// Says that it had begun, until its outcome is recorded.
    pub(super) mark: Mark,
}

/// What all calls of a processor have in common.
pub(super) struct Common {
    pub(super) around: Surroundings,
    pub(super) marks: Arc<Marks>,
    pub(super) echo: Arc<Echo>,
}

/// All slots of a processor; they end when this is dropped.
pub(super) struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// How many there can be.
    most: usize,
    /// How many calls were handed in and did not come back yet.
    held: usize,
}

struct Shared {
    common: Common,
    wake: Sender<Wake>,
    board: Arc<Board>,
}

/// Where the slots find what to do.
struct Board {
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
    /// When calls ended whose outcome is neither noted nor recorded yet.
    unrecorded: VecDeque<Instant>,
    /// How long the latest outcome took to be recorded.
    recording: Duration,
    whole_lines: bool,
    /// Whether nothing is to begin any more.
    halted: bool,
    closed: bool,
}

impl Work {
    fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.0.is_some()).count()
    }

    /// Takes the next call for a slot, if it may begin; says also whether it shares the output with others.
    fn pick(&mut self, slot: usize, control: &Control) -> Option<(Claim, bool)> {
        let spare = if self.recording < QUICK { self.width } else { 0 };
        let busy = self.running() + self.unrecorded.len().saturating_sub(spare);
        if self.closed || self.halted || busy >= self.width {
            return None;
        }
        let claim = self.waiting.pop_front()?;
        control.reset();
        self.slots[slot].0 = Some(claim.fence);
        Some((claim, self.whole_lines))
    }
}

impl Slots {
    /// No slots yet; they tell `wake` when a call has ended.
    pub(super) fn new(common: Common, wake: Sender<Wake>) -> Slots {
        let work = Work {
            waiting: VecDeque::new(),
            width: 0,
            slots: Vec::new(),
            unrecorded: VecDeque::new(),
            recording: Duration::ZERO,
            whole_lines: false,
            halted: false,
            closed: false,
        };
        let board = Arc::new(Board { work: Mutex::new(work), changed: Condvar::new() });
        let shared = Shared { common, wake, board };
        Slots { shared: Arc::new(shared), threads: Vec::new(), most: descriptors::functions_at_once(), held: 0 }
    }

    /// How many calls were claimed and are not over yet.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// How many of those are running.
    pub(super) fn running(&self) -> usize {
        self.shared.board.work().running()
    }

    /// How many of those have not begun.
    pub(super) fn waiting(&self) -> usize {
        self.shared.board.work().waiting.len()
    }

    /// Hands in valid claims, and says how many calls may run at once from now on, and whether they share the output.
    pub(super) fn begin(&mut self, claims: Vec<Claim>, width: usize, whole_lines: bool) -> Result<()> {
        self.held += claims.len();
        let mut work = self.shared.board.work();
        work.waiting.extend(claims);
        work.width = width;
        work.whole_lines = whole_lines;
        drop(work);
        while self.threads.len() < width.min(self.held).min(self.most) {
            match self.add() {
                // Fewer slots than there could be are enough.
                Err(_) if !self.threads.is_empty() => break,
                added => added?,
            }
        }
        self.shared.board.changed.notify_all();
        Ok(())
    }

    /// Notes that a call came back.
    pub(super) fn came_back(&mut self) {
        self.held -= 1;
    }

    /// Takes back what has not begun: all of it, or one attempt.
    pub(super) fn take_back(&mut self, which: Option<Fence>) -> Vec<Claim> {
        let mut work = self.shared.board.work();
        let waiting = std::mem::take(&mut work.waiting);
        let (taken, left): (VecDeque<_>, _) =
            waiting.into_iter().partition(|claim| which.is_none_or(|which| which == claim.fence));
        work.waiting = left;
        self.held -= taken.len();
        taken.into()
    }

    /// Asks one attempt to end, if it is running.
    pub(super) fn cancel(&self, which: Fence) {
        let work = self.shared.board.work();
        for (_, control) in work.slots.iter().filter(|(busy, _)| *busy == Some(which)) {
            control.stop(Stop::Cancel);
        }
    }

    /// Forgets that a call has begun.
    pub(super) fn forget(&self, mark: &Mark) {
        self.shared.common.marks.clear(mark);
    }

    /// Notes that the outcome of a call is recorded.
    pub(super) fn recorded(&self, mark: &Mark) {
        self.forget(mark);
        let mut work = self.shared.board.work();
        if !mark.noted
            && let Some(ended) = work.unrecorded.pop_front()
        {
            work.recording = ended.elapsed();
        }
        if !work.waiting.is_empty() {
            self.shared.board.changed.notify_all();
        }
    }

    /// What stops them, for another thread.
    pub(super) fn brake(&self) -> Brake {
        let Common { around, echo, .. } = &self.shared.common;
        Brake { board: Arc::clone(&self.shared.board), orphans: Arc::clone(&around.orphans), hurry: echo.hurry() }
    }

    fn add(&mut self) -> Result<()> {
        let fail = |error| super::super::io_error("cannot run more at once", &error);
        let control = Arc::new(Control::new().map_err(fail)?);
        let slot = self.threads.len();
        self.shared.board.work().slots.push((None, Arc::clone(&control)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", slot + 1))
            .stack_size(STACK)
            .spawn(move || shared.run(slot, &control));
        if thread.is_err() {
            self.shared.board.work().slots.pop();
        }
        self.threads.push(thread.map_err(fail)?);
        Ok(())
    }
}

/// Stops all slots, whatever their owner is waiting for.
pub(super) struct Brake {
    board: Arc<Board>,
    orphans: Arc<Orphans>,
    hurry: Hurry,
}

impl Brake {
    /// Lets nobody who does not read what functions have printed keep the processor from ending.
    pub(super) fn hurry(&self) {
        self.hurry.up();
    }

    /// Lets nothing begin any more, and asks what is running to end, unless that is [`Stop::No`].
    pub(super) fn pull(&self, how: Stop) {
        let mut work = self.board.work();
        work.halted = true;
        if how != Stop::No {
            for (_, control) in work.slots.iter().filter(|(busy, _)| busy.is_some()) {
                control.stop(how);
            }
        }
    }

    /// Ends everything at once and returns when nothing is left.
    pub(super) fn end_everything(&self) {
        self.pull(Stop::Kill);
        let mut work = self.board.work();
        while work.running() > 0 {
            work = self.board.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
        self.orphans.end();
    }
}

impl Board {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A slot's life: one call after another.
    fn run(&self, slot: usize, control: &Control) {
        let mut done = None;
        while let Some((claim, whole_lines)) = self.next(slot, control, done.take()) {
            let (Ok(call), Ok(definition)) = (&claim.call, &claim.definition) else {
                unreachable!("a call that cannot be run never gets to a slot")
            };
            let Common { around, marks, echo } = &self.common;
            let mut mark = marks.set(claim.fence.job);
            reached("call marked");
            let request = Request { fence: &claim.fence, token: &claim.token, call, definition };
            let ended = command::run(&request, around, Output { echo, whole_lines }, control);
            reached("call ended");
            if let Some(note) = note::write(&claim, &ended) {
                marks.note(&mut mark, claim.fence.job, &note);
            }
            reached("outcome noted");
            done = Some(Box::new(Done { claim, ended, mark }));
        }
    }

    /// Tells that a call is done, and waits for the next one that may begin; `None` when there will be none.
    fn next(&self, slot: usize, control: &Control, done: Option<Box<Done>>) -> Option<(Claim, bool)> {
        let mut work = self.board.work();
        // Before it is told, so that whoever hears of it does not count it as running.
        work.slots[slot].0 = None;
        if work.halted {
            self.board.changed.notify_all();
        }
        if done.as_ref().is_some_and(|done| !done.mark.noted) {
            work.unrecorded.push_back(Instant::now());
        }
        let mut next = work.pick(slot, control);
        if let Some(done) = done {
            drop(work);
            // Without a listener the processor is ending, and with it this thread.
            let _ = self.wake.send(Wake::Done(done));
            if next.is_some() {
                return next;
            }
            work = self.board.work();
        }
        while next.is_none() && !work.closed {
            next = work.pick(slot, control);
            if next.is_none() {
                work = self.board.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
            }
        }
        next
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.shared.board.work().closed = true;
        self.shared.board.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
