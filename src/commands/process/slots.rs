//! The slots of a processor: threads that run one call after another.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::drain::Wake;
use crate::domain::job::{Claim, Fence};
use crate::error::Result;
use crate::runner::{Control, Echo, Ended, Output, Request, Stop, Surroundings, command};

/// How much stack a slot needs: it runs no recursion.
const STACK: usize = 256 * 1024;

/// A call that has ended in a slot.
#[derive(Debug)]
pub(super) struct Done {
    slot: usize,
    pub(super) claim: Claim,
    pub(super) ended: Ended,
}

/// All slots of a processor; they end when this is dropped.
pub(super) struct Slots {
    echo: Arc<Echo>,
    wake: Sender<Wake>,
    slots: Vec<Slot>,
    idle: Vec<usize>,
}

struct Slot {
    work: Option<Sender<Work>>,
    control: Arc<Control>,
    /// The attempt that it runs.
    busy: Option<Fence>,
    thread: Option<JoinHandle<()>>,
}

struct Work {
    claim: Claim,
    around: Arc<Surroundings>,
    whole_lines: bool,
}

impl Slots {
    /// None yet; they tell `wake` when a call has ended.
    pub(super) fn new(echo: Echo, wake: Sender<Wake>) -> Slots {
        Slots { echo: Arc::new(echo), wake, slots: Vec::new(), idle: Vec::new() }
    }

    /// How many calls are running.
    pub(super) fn running(&self) -> usize {
        self.slots.len() - self.idle.len()
    }

    /// Begins a valid call in a slot that is idle, or in a new one.
    pub(super) fn begin(&mut self, claim: Claim, around: &Arc<Surroundings>, whole_lines: bool) -> Result<()> {
        let index = match self.idle.pop() {
            Some(index) => index,
            None => self.add()?,
        };
        let slot = &mut self.slots[index];
        slot.control.reset();
        slot.busy = Some(claim.fence);
        if let Some(work) = &slot.work {
            // The thread waits for work until its sender is dropped.
            let _ = work.send(Work { claim, around: Arc::clone(around), whole_lines });
        }
        Ok(())
    }

    /// Notes that the slot which ran this is idle again.
    pub(super) fn free(&mut self, done: &Done) {
        self.slots[done.slot].busy = None;
        self.idle.push(done.slot);
    }

    /// Asks what is running to end: one attempt, or all.
    pub(super) fn stop(&self, which: Option<Fence>, how: Stop) {
        for slot in &self.slots {
            if slot.busy.is_some_and(|busy| which.is_none_or(|which| which == busy)) {
                slot.control.stop(how);
            }
        }
    }

    fn add(&mut self) -> Result<usize> {
        let fail = |error| super::super::io_error("cannot run more at once", &error);
        let index = self.slots.len();
        let control = Arc::new(Control::new().map_err(fail)?);
        let (work, of_thread) = channel();
        let (echo, wake, watched) = (Arc::clone(&self.echo), self.wake.clone(), Arc::clone(&control));
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", index + 1))
            .stack_size(STACK)
            .spawn(move || run(index, &of_thread, &echo, &watched, &wake))
            .map_err(fail)?;
        self.slots.push(Slot { work: Some(work), control, busy: None, thread: Some(thread) });
        Ok(index)
    }
}

fn run(slot: usize, work: &Receiver<Work>, echo: &Echo, control: &Control, wake: &Sender<Wake>) {
    while let Ok(Work { claim, around, whole_lines }) = work.recv() {
        let (Ok(call), Some(definition)) = (&claim.call, &claim.definition) else {
            unreachable!("a call that cannot be run never gets to a slot")
        };
        let request = Request { fence: &claim.fence, token: &claim.token, call, definition };
        let ended = command::run(&request, &around, Output { echo, whole_lines }, control);
        // Without a listener the processor is ending, and with it this thread.
        let _ = wake.send(Wake::Done(Box::new(Done { slot, claim, ended })));
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            slot.work = None;
        }
        for slot in &mut self.slots {
            if let Some(thread) = slot.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
