//! A worker for a single call: a nested call, which runs at once.

use std::cell::{Cell, RefCell};

use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence};
use crate::runner::worker::{CallSource, EndedCall, SendLimits, SentCall, ServeEnd, Worker};
use crate::runner::{Capture, Ended, Output, Stop, StopSwitch, Surroundings};

/// Starts a worker, runs a call to its end, and ends the worker.
#[must_use]
pub fn run(claim: &Claim, around: &Surroundings, output: Output<'_>, control: &StopSwitch) -> Ended {
    let worker = match Worker::start(claim, &claim.token, around, control) {
        Ok(worker) => Box::new(worker),
        Err(hitch) => return Ended::unrun(hitch.outcome(), Capture::new(&around.folder)),
    };
    let calls = OneCall { call: Cell::new(Some(claim.clone())), done: RefCell::default(), control };
    let fate = worker.serve(&calls, output, control);
    let unfit = match fate {
        ServeEnd::Idle(worker) | ServeEnd::Worn(worker) => {
            worker.end(output);
            None
        }
        ServeEnd::Gone => None,
        ServeEnd::FailedWorker(unfit) => Some(unfit),
    };
    match (calls.done.into_inner(), unfit) {
        (Some(done), _) => done.ended,
        (None, Some(unfit)) => Ended::unrun(unfit.outcome, unfit.printed),
        // The processor stopped before the call began.
        (None, None) => Ended::unrun(Outcome::Interrupted, Capture::new(&around.folder)),
    }
}

struct OneCall<'a> {
    call: Cell<Option<Claim>>,
    done: RefCell<Option<EndedCall>>,
    control: &'a StopSwitch,
}

impl CallSource for OneCall<'_> {
    fn next(&self, _room: SendLimits) -> Result<Option<SentCall>, String> {
        let claim = self.call.take().filter(|_| self.is_open());
        Ok(claim.map(|claim| SentCall { claim, mark: None }))
    }

    fn done(&self, done: Vec<EndedCall>) {
        if let Some(done) = done.into_iter().next() {
            self.done.replace(Some(done));
        }
    }

    fn back(&self, begun: Vec<SentCall>) {
        self.call.set(begun.into_iter().next().map(|begun| begun.claim));
    }

    fn cancelled(&self) -> Vec<Fence> {
        Vec::new()
    }

    fn is_open(&self) -> bool {
        self.control.asked() == Stop::No
    }
}
