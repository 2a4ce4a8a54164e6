//! The slots of a processor: threads that run one call after another, or feed a worker, without waiting for the store in
//! between.
//!
//! Invariant: at most as many calls of commands again as can run have ended without their outcome being recorded or noted;
//! which calls have begun is marked, before they do and until that is done, where a rescuer finds it, and what came of them is
//! noted there.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::STACK_OF_A_FEEDER;
use super::board::{Board, Seat, Work};
use super::brake::Brake;
use super::desk::SlotDesk;
use super::host;
use super::note;
use super::pace::Load;
use super::wake::{Wake, Wakes};
use super::workers::Workers;
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence};
use crate::domain::service::ServiceName;
use crate::error::Result;
use crate::failpoint::reached;
use crate::runner::worker::hosted::Hosted;
use crate::runner::worker::{Begun, Done, Fate, Unfit};
use crate::runner::{Capture, Control, Echo, Ended, Mark, Marks, Output, Request, Surroundings, command, descriptors};

/// What all calls of a processor have in common.
pub(super) struct Common {
    pub(super) around: Surroundings,
    pub(super) marks: Arc<Marks>,
    pub(super) echo: Arc<Echo>,
    pub(super) workers: Arc<Workers>,
}

/// All slots of a processor; they end when this is dropped.
pub(super) struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// How many there can be.
    most: usize,
    /// How many calls of each service were handed in and did not come back yet, and the bytes of their arguments.
    held: BTreeMap<ServiceName, (usize, usize)>,
    /// Feeds the host, if there is one.
    host: Option<JoinHandle<()>>,
    /// How many of those held are left to a host.
    left: usize,
}

/// What all slots have in common.
pub(super) struct Shared {
    pub(super) common: Common,
    pub(super) wakes: Arc<Wakes>,
    pub(super) board: Arc<Board>,
}

impl Slots {
    /// No slots yet; they tell `wakes` when a call has ended.
    pub(super) fn new(common: Common, wakes: Arc<Wakes>) -> Slots {
        let shared = Shared { common, wakes, board: Arc::new(Board::new()) };
        Slots {
            shared: Arc::new(shared),
            threads: Vec::new(),
            most: descriptors::functions_at_once(),
            held: BTreeMap::new(),
            host: None,
            left: 0,
        }
    }

    /// Runs in this host from now on what it can run.
    pub(super) fn drain_into(&mut self, hosted: Hosted) -> Result<()> {
        let fail = |error| super::super::io_error("cannot speak to the host", &error);
        self.host = Some(host::feed(&self.shared, hosted).map_err(fail)?);
        Ok(())
    }

    /// Whether a call waits for the host, and would while that has no room.
    pub(super) fn waits_for_host(&self, claim: &Claim) -> bool {
        let work = self.shared.board.work();
        work.host_is_full() && work.is_hosted(claim)
    }

    /// Whether the host can take no more calls now.
    pub(super) fn host_is_full(&self) -> bool {
        self.host.is_some() && self.shared.board.work().host_is_full()
    }

    /// Notes that so many calls are left to a host: they count as running for others, and nothing comes of them here.
    pub(super) fn leave_to_host(&mut self, count: usize) {
        self.left += count;
    }

    /// How many calls are left to a host.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// How many calls were claimed and are not over yet, nor left to a host.
    pub(super) fn open(&self) -> usize {
        self.held() - self.left
    }

    /// How many calls were claimed and are not over yet.
    fn held(&self) -> usize {
        self.held.values().map(|(count, _)| count).sum()
    }

    /// How many of them are of a service, and of others.
    pub(super) fn load(&self, service: &ServiceName) -> Load {
        let held = self.held.get(service).map_or(0, |(count, _)| *count);
        Load { held, elsewhere: self.held() - held, bytes: self.held.values().map(|(_, bytes)| bytes).sum() }
    }

    /// How many calls run.
    pub(super) fn running(&self) -> usize {
        self.shared.board.work().running()
    }

    /// How many calls of a service run.
    pub(super) fn running_of(&self, service: &ServiceName) -> usize {
        self.shared.board.work().running_of(service)
    }

    /// How many calls of a service were handed in, have not begun, and do not only wait until their worker has started.
    pub(super) fn stranded_of(&self, service: &ServiceName) -> usize {
        self.shared.board.work().stranded_of(service)
    }

    /// Hands in valid claims of a service, and says how many of its calls may run at once from now on.
    pub(super) fn begin(&mut self, service: &ServiceName, claims: Vec<Claim>, width: usize) -> Result<()> {
        let held = self.held.entry(service.clone()).or_default();
        held.0 += claims.len();
        held.1 += claims.iter().map(Claim::bytes).sum::<usize>();
        let mut work = self.shared.board.work();
        work.add(service, claims, width);
        let useful = work.useful_slots();
        drop(work);
        while self.threads.len() < useful.min(self.most) {
            match self.add() {
                // Fewer slots than there could be are enough.
                Err(_) if !self.threads.is_empty() => break,
                added => added?,
            }
        }
        self.shared.board.tell();
        Ok(())
    }

    /// Whether calls share the output, from now on.
    pub(super) fn share_output(&self, whole_lines: bool) {
        self.shared.board.work().whole_lines = whole_lines;
    }

    /// Takes back what has not begun and is asked for.
    pub(super) fn take_back(&mut self, which: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        let taken = self.shared.board.work().take_out(which);
        self.came_back(&taken);
        taken
    }

    /// Notes that calls came back.
    pub(super) fn came_back<'a>(&mut self, claims: impl IntoIterator<Item = &'a Claim>) {
        for claim in claims {
            if let Some(held) = self.held.get_mut(&claim.service) {
                held.0 -= 1;
                held.1 -= claim.bytes();
            }
        }
    }

    /// Asks one attempt to end, if it is running.
    pub(super) fn cancel(&self, which: Fence) {
        self.shared.board.work().cancel(which);
    }

    /// Forgets that a call has begun.
    pub(super) fn forget(&self, mark: &Mark) {
        self.shared.common.marks.clear(mark);
    }

    /// Notes that the outcome of a call is recorded.
    pub(super) fn recorded(&self, service: &ServiceName, mark: &Mark) {
        self.forget(mark);
        if mark.awaited {
            self.shared.board.work().recorded(service);
            self.shared.board.tell();
        }
    }

    /// Ends the workers that have been idle for long enough.
    pub(super) fn retire_idle(&self) {
        self.shared.common.workers.retire_idle();
    }

    /// When the next worker has been idle for long enough.
    pub(super) fn next_retirement(&self) -> Option<Duration> {
        self.shared.common.workers.next_end()
    }

    /// What stops them, for another thread.
    pub(super) fn brake(&self) -> Brake {
        Brake::of(&self.shared)
    }

    fn add(&mut self) -> Result<()> {
        let fail = |error| super::super::io_error("cannot run more at once", &error);
        let control = Arc::new(Control::new().map_err(fail)?);
        let slot = self.threads.len();
        self.shared.board.work().seats.push(Seat::new(Arc::clone(&control)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", slot + 1))
            .stack_size(STACK_OF_A_FEEDER)
            .spawn(move || shared.run(slot, &control));
        if thread.is_err() {
            self.shared.board.work().seats.pop();
        }
        self.threads.push(thread.map_err(fail)?);
        Ok(())
    }
}

impl Shared {
    /// A slot's life: one call after another.
    fn run(&self, slot: usize, control: &Control) {
        let mut done = Vec::new();
        while let Some((claim, whole_lines)) = self.next(slot, control, std::mem::take(&mut done)) {
            let output = Output { echo: &self.common.echo, whole_lines };
            if claim.is_for_worker() {
                self.feed(slot, control, claim, output);
            } else {
                done.push(self.run_command(control, claim, output));
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

    fn run_command(&self, control: &Control, claim: Claim, output: Output<'_>) -> Done {
        let (Ok(call), Ok(definition)) = (&claim.call, &claim.definition) else {
            unreachable!("a call that cannot be run never gets to a slot")
        };
        let Common { around, marks, .. } = &self.common;
        let mut mark = marks.set(claim.fence.job);
        reached("call marked");
        let request = Request { fence: &claim.fence, token: &claim.token, call, definition };
        let ended = command::run(&request, around, output, control);
        reached("call ended");
        if let Some(note) = note::write(&claim, &ended) {
            marks.note(&mut mark, claim.fence.job, &note);
        }
        reached("outcome noted");
        mark.awaited = !mark.noted;
        Done { claim, ended, mark: Some(mark) }
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
    pub(super) fn tell(&self, work: MutexGuard<'_, Work>, done: Vec<Done>) {
        if work.halted || work.seats.len() > 1 || work.host.is_some() {
            self.board.tell();
        }
        drop(work);
        self.wakes.send(Wake::Done(done));
    }

    pub(super) fn over(&self, slot: usize, done: Vec<Done>) {
        let mut work = self.board.work();
        Shared::release(&mut work, slot, &done);
        self.tell(work, done);
    }

    /// Feeds the worker that runs a call with this one and those after it, until it has nothing to do.
    fn feed(&self, slot: usize, control: &Control, claim: Claim, output: Output<'_>) {
        let Common { around, workers, .. } = &self.common;
        if let Some(failure) = workers.flaw(&claim) {
            let first = Begun { claim, mark: None };
            return self.refuse(slot, first, Outcome::Unstarted(failure), Capture::new(&around.folder));
        }
        let started = match workers.take(&claim) {
            Some(idle) => Ok(idle),
            None => workers.start(&claim, around),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(failure) => {
                if let (Ok(call), Ok(definition)) = (&claim.call, &claim.definition) {
                    workers.broke(definition, call.site.as_deref().unwrap_or(&definition.site), &failure);
                }
                let first = Begun { claim, mark: None };
                return self.refuse(slot, first, Outcome::Unstarted(failure), Capture::new(&around.folder));
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
                self.refuse(slot, first, outcome, printed);
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
    fn refuse(&self, slot: usize, Begun { claim, mark }: Begun, outcome: Outcome, output: Capture) {
        self.board.work().serve(slot, None);
        let ended = Ended { outcome, result: None, took: Duration::ZERO, output };
        self.over(slot, vec![Done { claim, ended, mark }]);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut work = self.shared.board.work();
        work.closed = true;
        // One that just starts, for a call that was cancelled, is not waited for.
        work.wake_workers();
        work.call_host();
        drop(work);
        self.shared.board.tell();
        for thread in self.threads.drain(..).chain(self.host.take()) {
            let _ = thread.join();
        }
        self.shared.common.workers.end();
    }
}
