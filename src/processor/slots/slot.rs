//! One slot: what it does with a call, and with one whose program was not started.

use std::cell::Cell;
use std::sync::{Arc, MutexGuard};

use super::super::call_source::SlotCalls;
use super::super::dispatch_queue::QueueState;
use super::super::events::LoopEvent;
use super::super::outcome_journal;
use super::{Common, Shared};
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence};
use crate::failpoint::reached;
use crate::runner::worker::{EndedCall, FailedWorker, SentCall, ServeEnd};
use crate::runner::{Capture, Ended, Mark, Output, Request, StartFailure, Stop, StopSwitch, command};

impl Shared {
    /// A slot's life: one call after another.
    pub(super) fn run(&self, slot: usize, control: &StopSwitch) {
        let mut done = Vec::new();
        while let Some((claim, whole_lines)) = self.next(slot, control, std::mem::take(&mut done)) {
            let output = Output { forwarder: &self.common.forwarder, whole_lines };
            if claim.is_for_worker() {
                self.feed(slot, control, claim, output);
            } else {
                done.extend(self.run_command(slot, control, claim, output));
            }
        }
    }

    /// Tells that calls are done, and waits for the next one that may begin; `None` when there will be none. Says also
    /// whether it shares the output.
    fn next(&self, slot: usize, control: &StopSwitch, done: Vec<EndedCall>) -> Option<(Claim, bool)> {
        let mut work = self.queue.work();
        if !done.is_empty() {
            Shared::release(&mut work, slot, &done);
            control.reset();
            let next = work.pick(slot);
            self.tell(work, done);
            if let Some(claim) = next {
                return Some(claim);
            }
            work = self.queue.work();
        }
        while !work.closed {
            // Before it is there, so that whoever stops it does so after this.
            control.reset();
            if let Some(next) = work.pick(slot) {
                return Some(next);
            }
            work = self.queue.wait(work);
        }
        None
    }

    /// Runs a call to its end, unless it goes back or is left behind.
    fn run_command(&self, slot: usize, control: &StopSwitch, claim: Claim, output: Output<'_>) -> Option<EndedCall> {
        let Common { around, marks, .. } = &self.common;
        let mut mark = marks.set(claim.fence.job);
        reached("call marked");
        let ended = match command::run(&Request::of(&claim), around, output, control) {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                self.leave(slot, &[(claim.fence, Some(mark))]);
                return None;
            }
            Err(hitch) => match self.settle(hitch) {
                Ok(ended) => ended,
                Err(hitch) => {
                    self.hand_back(slot, SentCall { claim, mark: Some(mark) }, hitch);
                    return None;
                }
            },
        };
        reached("call ended");
        if let Some(note) = outcome_journal::write(&claim, &ended) {
            marks.note(&mut mark, claim.fence.job, &note);
        }
        reached("outcome noted");
        mark.awaited = !mark.noted;
        Some(EndedCall { claim, ended, mark: Some(mark) })
    }

    /// Calls are left behind, in processes that may not be ended: they stay with this processor when it has ended, and are
    /// not charged with that.
    pub(in super::super) fn leave(&self, slot: usize, calls: &[(Fence, Option<Mark>)]) {
        let mut work = self.queue.work();
        for (fence, mark) in calls {
            work.release(slot, *fence);
            if let Some(mark) = mark {
                self.common.marks.clear(mark);
            }
        }
        self.queue.tell();
        drop(work);
        self.events.send(LoopEvent::Left(calls.len()));
    }

    /// How a call ends whose program was not started, if it ends.
    fn settle(&self, hitch: StartFailure) -> Result<Ended, StartFailure> {
        match hitch {
            StartFailure::Unable(_) | StartFailure::Unfit(_) | StartFailure::Stopped(Stop::Cancel) => {
                Ok(Ended::unrun(hitch.outcome(), Capture::new(&self.common.around.folder)))
            }
            StartFailure::Written(_) | StartFailure::Scarce(_) | StartFailure::Stopped(_) => Err(hitch),
        }
    }

    /// Hands back a call that has not begun.
    fn hand_back(&self, slot: usize, SentCall { claim, mark }: SentCall, hitch: StartFailure) {
        if let Some(mark) = mark {
            self.common.marks.clear(&mark);
        }
        let mut work = self.queue.work();
        work.serve(slot, None);
        work.release(slot, claim.fence);
        drop(work);
        self.queue.tell();
        self.events.send(LoopEvent::Unbegun(Box::new(claim), hitch));
    }

    /// Notes that a slot has these calls no more, before that is told, so that whoever hears of it does not count them.
    fn release(work: &mut QueueState, slot: usize, done: &[EndedCall]) {
        for done in done {
            work.release(slot, done.claim.fence);
            if done.mark.as_ref().is_some_and(|mark| mark.awaited) {
                work.await_record(&done.claim.call.service);
            }
        }
    }

    /// Tells that calls are over.
    pub(in super::super) fn tell(&self, work: MutexGuard<'_, QueueState>, done: Vec<EndedCall>) {
        if work.halted || work.slots.len() > 1 || work.host.is_some() {
            self.queue.tell();
        }
        drop(work);
        self.events.send(LoopEvent::EndedCall(done));
    }

    pub(in super::super) fn over(&self, slot: usize, done: Vec<EndedCall>) {
        let mut work = self.queue.work();
        Shared::release(&mut work, slot, &done);
        self.tell(work, done);
    }

    /// Feeds the worker that runs a call with this one and those after it, until it has nothing to do.
    fn feed(&self, slot: usize, control: &StopSwitch, claim: Claim, output: Output<'_>) {
        let Common { around, workers, .. } = &self.common;
        let started = match workers.flaw(&claim) {
            Some(failure) => Err(StartFailure::Unable(failure)),
            None => workers.take(&claim).map_or_else(|| workers.start(&claim, around, control), Ok),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(hitch) => {
                let first = SentCall { claim, mark: None };
                return match self.settle(hitch) {
                    Ok(ended) => self.refuse(slot, first, ended),
                    Err(hitch) => self.hand_back(slot, first, hitch),
                };
            }
        };
        self.queue.work().serve(slot, Some((&worker, worker.at_once())));
        let (definition, site) = worker.made_of();
        let worker_of = (Arc::clone(definition), site.to_owned());
        let calls = SlotCalls { shared: self, slot, worker_of, first: Cell::new(Some(claim)) };
        let fate = worker.serve(&calls, output, control);
        let first = calls.first.take();
        // Before the seat is free, so that nobody who looks meanwhile starts another one in its place.
        let mut unfit = None;
        match fate {
            ServeEnd::Idle(worker) => workers.put(worker),
            ServeEnd::Worn(worker) => workers.retire(worker),
            ServeEnd::Gone => {}
            ServeEnd::FailedWorker(gone) => {
                if let Outcome::Unstarted(failure) = &gone.outcome {
                    let (definition, site) = &calls.worker_of;
                    workers.broke(definition, site, failure);
                }
                unfit = Some(gone);
            }
        }
        self.queue.work().serve(slot, None);
        if let Some(unfit) = unfit {
            let FailedWorker { outcome, printed, first: unread } = *unfit;
            if let Some(first) = unread.or(first.map(|claim| SentCall { claim, mark: None })) {
                self.refuse(slot, first, Ended::unrun(outcome, printed));
            }
            return self.queue.tell();
        }
        if let Some(claim) = first {
            // It waited for this worker only.
            let mut work = self.queue.work();
            work.release(slot, claim.fence);
            work.put_back(vec![claim]);
        }
        self.queue.tell();
    }

    /// A call cannot be run, as its worker cannot be started.
    fn refuse(&self, slot: usize, SentCall { claim, mark }: SentCall, ended: Ended) {
        self.queue.work().serve(slot, None);
        self.over(slot, vec![EndedCall { claim, ended, mark }]);
    }
}
