//! One slot: runs calls, or feeds a worker with them.

use std::{cell::Cell, sync::Arc};

use super::{call_source::SlotCalls, events::LoopEvent, outcome_journal::note, shared::Shared};
use crate::domain::{attempt::Outcome, job::Claim};
use crate::failpoint::reached;
use crate::runner::worker::{EndedCall, FailedWorker, SentCall, ServeEnd};
use crate::runner::{Capture, Ended, Output, StartFailure, Stop, StopSwitch, command, has_expired};

/// One slot.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) shared: &'a Shared,
    pub(super) number: usize,
    /// Ends the call that runs in it.
    pub(super) control: &'a StopSwitch,
}

impl Slot<'_> {
    /// Runs one call after another until the queue is closed.
    pub(super) fn run(self) {
        let mut done = Vec::new();
        while let Some((claim, whole_lines)) = self.next(std::mem::take(&mut done)) {
            if has_expired(&claim) {
                self.hand_back(SentCall { claim, mark: None }, StartFailure::Expired);
                continue;
            }
            let output =
                Output { forwarder: &self.shared.forwarder, whole_lines, tap: Some(&self.shared.tap), claim: None };
            if claim.is_for_worker() {
                self.feed(claim, output);
            } else {
                done.extend(self.run_command(claim, output));
            }
        }
    }

    /// Reports ended calls, and waits for the next call that may begin; `None` if there will be none. Also returns whether it
    /// shares the output.
    fn next(self, done: Vec<EndedCall>) -> Option<(Claim, bool)> {
        let mut state = self.shared.queue.state();
        if !done.is_empty() {
            Shared::release(&mut state, self.number, &done);
            self.control.reset();
            let next = state.pick(self.number);
            self.shared.report(state, done);
            if let Some(claim) = next {
                return Some(claim);
            }
            state = self.shared.queue.state();
        }
        while !state.closed {
            // This comes before there is a call, so that it cannot cancel a request to stop that call.
            self.control.reset();
            if let Some(next) = state.pick(self.number) {
                return Some(next);
            }
            state = self.shared.queue.wait(state);
        }
        None
    }

    /// Runs a call; `None` if it goes back or is left behind.
    fn run_command(self, claim: Claim, output: Output<'_>) -> Option<EndedCall> {
        let Shared { around, marks, .. } = self.shared;
        let mark = marks.set(claim.fence.job);
        reached("call marked");
        let ended = match command::run(&claim, around, output, self.control) {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                self.shared.leave(self.number, &[(claim.fence, Some(mark))]);
                return None;
            }
            Err(failure) => match self.settle(failure) {
                Ok(ended) => ended,
                Err(failure) => {
                    self.hand_back(SentCall { claim, mark: Some(mark) }, failure);
                    return None;
                }
            },
        };
        reached("call ended");
        let mut done = EndedCall { claim, ended, mark: Some(mark) };
        note(marks, &mut done);
        reached("outcome noted");
        if let Some(mark) = &mut done.mark {
            mark.awaited = !mark.noted;
        }
        Some(done)
    }

    /// The end of a call whose program could not be started, or the reason why the call goes back.
    fn settle(self, failure: StartFailure) -> Result<Ended, StartFailure> {
        match failure {
            StartFailure::Unable(_) | StartFailure::Unfit(_) | StartFailure::Stopped(Stop::Cancel) => {
                Ok(Ended::unrun(failure.outcome(), Capture::new(&self.shared.around.folder)))
            }
            StartFailure::Written(_) | StartFailure::Scarce(_) | StartFailure::Stopped(_) | StartFailure::Expired => {
                Err(failure)
            }
        }
    }

    /// Hands back a call that has not begun.
    fn hand_back(self, SentCall { claim, mark }: SentCall, failure: StartFailure) {
        if let Some(mark) = mark {
            self.shared.marks.clear(&mark);
        }
        let mut state = self.shared.queue.state();
        state.serve(self.number, None);
        state.release(self.number, claim.fence);
        drop(state);
        self.shared.queue.notify();
        self.shared.events.send(LoopEvent::NotStarted(Box::new(claim), failure));
    }

    /// Feeds a worker with this call and those after it, until none is left for it.
    fn feed(self, claim: Claim, output: Output<'_>) {
        let Shared { around, workers, .. } = self.shared;
        let started = match workers.start_failure(&claim) {
            Some(failure) => Err(StartFailure::Unable(failure)),
            None => workers.take(&claim).map_or_else(|| workers.start(&claim, around, self.control), Ok),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(failure) => {
                let first = SentCall { claim, mark: None };
                return match self.settle(failure) {
                    Ok(ended) => self.refuse(first, ended),
                    Err(failure) => self.hand_back(first, failure),
                };
            }
        };
        self.shared.queue.state().serve(self.number, Some((&worker, worker.at_once())));
        let (definition, site) = worker.made_of();
        let worker_of = (Arc::clone(definition), site.to_owned());
        let calls = SlotCalls { shared: self.shared, slot: self.number, worker_of, first: Cell::new(Some(claim)) };
        let end = worker.serve(&calls, output, self.control);
        let first = calls.first.take();
        // This comes before the slot is free, so that no other slot starts a second worker meanwhile.
        let mut failed = None;
        match end {
            ServeEnd::Idle(worker) => workers.put(worker),
            ServeEnd::Worn(worker) => workers.retire(worker),
            ServeEnd::Gone => {}
            ServeEnd::FailedWorker(gone) => {
                if let Outcome::Unstarted(failure) = &gone.outcome {
                    let (definition, site) = &calls.worker_of;
                    workers.note_start_failure(definition, site, failure);
                }
                failed = Some(gone);
            }
        }
        self.shared.queue.state().serve(self.number, None);
        if let Some(failed) = failed {
            let FailedWorker { outcome, printed, first: unread } = *failed;
            if let Some(first) = unread.or(first.map(|claim| SentCall { claim, mark: None })) {
                self.refuse(first, Ended::unrun(outcome, printed));
            }
            return self.shared.queue.notify();
        }
        if let Some(claim) = first {
            // It waited for this worker alone.
            let mut state = self.shared.queue.state();
            state.release(self.number, claim.fence);
            state.put_back(vec![claim]);
        }
        self.shared.queue.notify();
    }

    /// Ends a call whose worker cannot be started.
    fn refuse(self, SentCall { claim, mark }: SentCall, ended: Ended) {
        self.shared.queue.state().serve(self.number, None);
        self.shared.finish(self.number, vec![EndedCall { claim, ended, mark }]);
    }
}
