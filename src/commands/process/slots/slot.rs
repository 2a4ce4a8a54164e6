//! One slot: what it does with a call, and with one whose program was not started.

use std::cell::Cell;
use std::sync::{Arc, MutexGuard};

use super::super::board::Work;
use super::super::desk::SlotDesk;
use super::super::note;
use super::super::wake::Wake;
use super::{Common, Shared};
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence};
use crate::failpoint::reached;
use crate::runner::worker::{Begun, Done, Fate, Unfit};
use crate::runner::{Capture, Control, Ended, Hitch, Mark, Output, Request, Stop, command};

impl Shared {
    /// A slot's life: one call after another.
    pub(super) fn run(&self, slot: usize, control: &Control) {
        let mut done = Vec::new();
        while let Some((claim, whole_lines)) = self.next(slot, control, std::mem::take(&mut done)) {
            let output = Output { echo: &self.common.echo, whole_lines };
            if claim.is_for_worker() {
                self.feed(slot, control, claim, output);
            } else {
                done.extend(self.run_command(slot, control, claim, output));
            }
        }
    }

    /// Tells that calls are done, and waits for the next one that may begin; `None` when there will be none. Says also
    /// whether it shares the output.
    fn next(&self, slot: usize, control: &Control, done: Vec<Done>) -> Option<(Claim, bool)> {
        let mut work = self.board.work();
        if !done.is_empty() {
            Shared::release(&mut work, slot, &done);
            control.reset();
            let next = work.pick(slot);
            self.tell(work, done);
            if let Some(claim) = next {
                return Some(claim);
            }
            work = self.board.work();
        }
        while !work.closed {
            // Before it is there, so that whoever stops it does so after this.
            control.reset();
            if let Some(next) = work.pick(slot) {
                return Some(next);
            }
            work = self.board.wait(work);
        }
        None
    }

    /// Runs a call to its end, unless it goes back or is left behind.
    fn run_command(&self, slot: usize, control: &Control, claim: Claim, output: Output<'_>) -> Option<Done> {
        let (Ok(call), Ok(definition)) = (&claim.call, &claim.definition) else {
            unreachable!("a call that cannot be run never gets to a slot")
        };
        let Common { around, marks, .. } = &self.common;
        let mut mark = marks.set(claim.fence.job);
        reached("call marked");
        let request = Request { fence: &claim.fence, token: &claim.token, call, definition };
        let ended = match command::run(&request, around, output, control) {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                self.leave(slot, &[(claim.fence, Some(mark))]);
                return None;
            }
            Err(hitch) => match self.settle(hitch) {
                Ok(ended) => ended,
                Err(hitch) => {
                    self.hand_back(slot, Begun { claim, mark: Some(mark) }, hitch);
                    return None;
                }
            },
        };
        reached("call ended");
        if let Some(note) = note::write(&claim, &ended) {
            marks.note(&mut mark, claim.fence.job, &note);
        }
        reached("outcome noted");
        mark.awaited = !mark.noted;
        Some(Done { claim, ended, mark: Some(mark) })
    }

    /// Calls are left behind, in processes that may not be ended: they stay with this processor when it has ended, and are
    /// not charged with that.
    pub(in super::super) fn leave(&self, slot: usize, calls: &[(Fence, Option<Mark>)]) {
        let mut work = self.board.work();
        for (fence, mark) in calls {
            work.release(slot, *fence);
            if let Some(mark) = mark {
                self.common.marks.clear(mark);
            }
        }
        self.board.tell();
        drop(work);
        self.wakes.send(Wake::Left(calls.len()));
    }

    /// How a call ends whose program was not started, if it ends.
    fn settle(&self, hitch: Hitch) -> Result<Ended, Hitch> {
        match hitch {
            Hitch::Unable(_) | Hitch::Unfit(_) | Hitch::Stopped(Stop::Cancel) => {
                Ok(Ended::unrun(hitch.outcome(), Capture::new(&self.common.around.folder)))
            }
            Hitch::Written(_) | Hitch::Scarce(_) | Hitch::Stopped(_) => Err(hitch),
        }
    }

    /// Hands back a call that has not begun.
    fn hand_back(&self, slot: usize, Begun { claim, mark }: Begun, hitch: Hitch) {
        if let Some(mark) = mark {
            self.common.marks.clear(&mark);
        }
        let mut work = self.board.work();
        work.serve(slot, None);
        work.release(slot, claim.fence);
        drop(work);
        self.board.tell();
        self.wakes.send(Wake::Unbegun(Box::new(claim), hitch));
    }

    /// Notes that a slot has these calls no more, before that is told, so that whoever hears of it does not count them.
    fn release(work: &mut Work, slot: usize, done: &[Done]) {
        for done in done {
            work.release(slot, done.claim.fence);
            if done.mark.as_ref().is_some_and(|mark| mark.awaited) {
                work.await_record(&done.claim.service);
            }
        }
    }

    /// Tells that calls are over.
    pub(in super::super) fn tell(&self, work: MutexGuard<'_, Work>, done: Vec<Done>) {
        if work.halted || work.seats.len() > 1 || work.host.is_some() {
            self.board.tell();
        }
        drop(work);
        self.wakes.send(Wake::Done(done));
    }

    pub(in super::super) fn over(&self, slot: usize, done: Vec<Done>) {
        let mut work = self.board.work();
        Shared::release(&mut work, slot, &done);
        self.tell(work, done);
    }

    /// Feeds the worker that runs a call with this one and those after it, until it has nothing to do.
    fn feed(&self, slot: usize, control: &Control, claim: Claim, output: Output<'_>) {
        let Common { around, workers, .. } = &self.common;
        let started = match workers.flaw(&claim) {
            Some(failure) => Err(Hitch::Unable(failure)),
            None => workers.take(&claim).map_or_else(|| workers.start(&claim, around, control), Ok),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(hitch) => {
                let first = Begun { claim, mark: None };
                return match self.settle(hitch) {
                    Ok(ended) => self.refuse(slot, first, ended),
                    Err(hitch) => self.hand_back(slot, first, hitch),
                };
            }
        };
        self.board.work().serve(slot, Some((&worker, worker.at_once())));
        let (definition, site) = worker.made_of();
        let worker_of = (Arc::clone(definition), site.to_owned());
        let desk = SlotDesk { shared: self, slot, worker_of, first: Cell::new(Some(claim)) };
        let fate = worker.serve(&desk, output, control);
        let first = desk.first.take();
        // Before the seat is free, so that nobody who looks meanwhile starts another one in its place.
        let mut unfit = None;
        match fate {
            Fate::Idle(worker) => workers.put(worker),
            Fate::Worn(worker) => workers.retire(worker),
            Fate::Gone => {}
            Fate::Unfit(gone) => {
                if let Outcome::Unstarted(failure) = &gone.outcome {
                    let (definition, site) = &desk.worker_of;
                    workers.broke(definition, site, failure);
                }
                unfit = Some(gone);
            }
        }
        self.board.work().serve(slot, None);
        if let Some(unfit) = unfit {
            let Unfit { outcome, printed, first: unread } = *unfit;
            if let Some(first) = unread.or(first.map(|claim| Begun { claim, mark: None })) {
                self.refuse(slot, first, Ended::unrun(outcome, printed));
            }
            return self.board.tell();
        }
        if let Some(claim) = first {
            // It waited for this worker only.
            let mut work = self.board.work();
            work.release(slot, claim.fence);
            work.put_back(vec![claim]);
        }
        self.board.tell();
    }

    /// A call cannot be run, as its worker cannot be started.
    fn refuse(&self, slot: usize, Begun { claim, mark }: Begun, ended: Ended) {
        self.board.work().serve(slot, None);
        self.over(slot, vec![Done { claim, ended, mark }]);
    }
}
