//! A worker for a single call: one that is made inside a running function, and waits for nobody.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::{Begun, Desk, Done, Fate, Worker};
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence};
use crate::runner::{Capture, Control, Ended, Output, Surroundings};

/// Starts a worker, runs a call to its end, and ends the worker.
#[must_use]
pub fn run(claim: &Claim, around: &Surroundings, output: Output<'_>, control: &Control) -> Ended {
    let ended = |outcome, output| Ended { outcome, result: None, took: Duration::ZERO, output };
    let worker = match Worker::start(claim, &claim.token, around) {
        Ok(worker) => Box::new(worker),
        Err(failure) => return ended(Outcome::Failed(failure), Capture::new(&around.folder)),
    };
    let desk = OneCall { call: Cell::new(Some(claim.clone())), done: RefCell::default() };
    let fate = worker.serve(&desk, output, control);
    let done = desk.done.into_inner();
    match (fate, done) {
        (fate, Some(done)) => {
            if let Fate::Idle(worker) | Fate::Worn(worker) = fate {
                worker.end(output);
            }
            done.ended
        }
        (Fate::Unfit(unfit), None) => ended(unfit.outcome, unfit.output),
        // It was told to end before it had begun.
        (_, None) => ended(Outcome::Interrupted, Capture::new(&around.folder)),
    }
}

struct OneCall {
    call: Cell<Option<Claim>>,
    done: RefCell<Option<Done>>,
}

impl Desk for OneCall {
    fn next(&self, _held: usize, _at_once: usize) -> Option<Begun> {
        self.call.take().map(|claim| Begun { claim, mark: None })
    }

    fn done(&self, done: Vec<Done>) {
        if let Some(done) = done.into_iter().next() {
            self.done.replace(Some(done));
        }
    }

    fn back(&self, begun: Vec<Begun>) {
        self.call.set(begun.into_iter().next().map(|begun| begun.claim));
    }

    fn cancelled(&self) -> Vec<Fence> {
        Vec::new()
    }

    fn progress(&self, _fence: Fence, _text: String) {}
}
