//! The slots of a processor: threads that run one call after another, or feed a worker, without waiting for the store in
//! between.
//!
//! Invariant: at most as many calls of commands again as can run have ended without their outcome being recorded or noted;
//! which calls have begun is marked, before they do and until that is done, where a rescuer finds it, and what came of them is
//! noted there.

mod slot;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::STACK_OF_A_FEEDER;
use super::dispatch_queue::{DispatchQueue, SlotState};
use super::events::EventQueue;
use super::host;
use super::prefetch::Load;
use super::shutdown::StopHandle;
use super::worker_pool::WorkerPool;
use crate::domain::job::{Claim, Fence};
use crate::domain::service::ServiceName;
use crate::error::Result;
use crate::runner::process::fds;
use crate::runner::system_error::io_error;
use crate::runner::worker::host_session::HostSession;
use crate::runner::{Forwarder, Mark, Marks, StopSwitch, Surroundings};

/// What all calls of a processor have in common.
pub(super) struct Common {
    pub(super) around: Surroundings,
    pub(super) marks: Arc<Marks>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) workers: Arc<WorkerPool>,
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
    /// How many of those held are left behind.
    left: usize,
}

/// What all slots have in common.
pub(super) struct Shared {
    pub(super) common: Common,
    pub(super) events: Arc<EventQueue>,
    pub(super) queue: Arc<DispatchQueue>,
}

impl Slots {
    /// No slots yet; they tell `events` when a call has ended.
    pub(super) fn new(common: Common, events: Arc<EventQueue>) -> Slots {
        let shared = Shared { common, events, queue: Arc::new(DispatchQueue::new()) };
        Slots {
            shared: Arc::new(shared),
            threads: Vec::new(),
            most: fds::functions_at_once(),
            held: BTreeMap::new(),
            host: None,
            left: 0,
        }
    }

    /// Runs in this host from now on what it can run.
    pub(super) fn use_host(&mut self, hosted: HostSession) -> Result<()> {
        let fail = |error| io_error("cannot speak to the host", &error);
        self.host = Some(host::feed(&self.shared, hosted).map_err(fail)?);
        Ok(())
    }

    /// Whether a call waits for the host, and would while that has no room.
    pub(super) fn waits_for_host(&self, claim: &Claim) -> bool {
        let work = self.shared.queue.work();
        work.host_is_full() && work.is_hosted(claim)
    }

    /// Whether the host can take no more calls now.
    pub(super) fn host_is_full(&self) -> bool {
        self.host.is_some() && self.shared.queue.work().host_is_full()
    }

    /// Notes that so many calls are left to a host, or to processes that may not be ended: they count as running for others, and
    /// nothing comes of them here.
    pub(super) fn leave(&mut self, count: usize) {
        self.left += count;
    }

    /// How many calls are left behind.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// How many calls were claimed and are not over yet, nor left behind.
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
        self.shared.queue.work().running()
    }

    /// How many calls of a service run.
    pub(super) fn running_of(&self, service: &ServiceName) -> usize {
        self.shared.queue.work().running_of(service)
    }

    /// How many calls of a service were handed in, have not begun, and do not only wait until their worker has started.
    pub(super) fn stranded_of(&self, service: &ServiceName) -> usize {
        self.shared.queue.work().stranded_of(service)
    }

    /// Hands in valid claims of a service, and says how many of its calls may run at once from now on.
    ///
    /// # Errors
    /// When there is no slot, and the system gives no thread or descriptor for one.
    pub(super) fn begin(&mut self, service: &ServiceName, claims: Vec<Claim>, width: usize) -> io::Result<()> {
        let held = self.held.entry(service.clone()).or_default();
        held.0 += claims.len();
        held.1 += claims.iter().map(Claim::bytes).sum::<usize>();
        let mut work = self.shared.queue.work();
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
        self.shared.queue.tell();
        Ok(())
    }

    /// Whether calls share the output, from now on.
    pub(super) fn share_output(&self, whole_lines: bool) {
        self.shared.queue.work().whole_lines = whole_lines;
    }

    /// Takes back what has not begun and is asked for.
    pub(super) fn take_back(&mut self, which: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        let taken = self.shared.queue.work().take_out(which);
        self.came_back(&taken);
        taken
    }

    /// Notes that calls came back.
    pub(super) fn came_back<'a>(&mut self, claims: impl IntoIterator<Item = &'a Claim>) {
        for claim in claims {
            if let Some(held) = self.held.get_mut(&claim.call.service) {
                held.0 -= 1;
                held.1 -= claim.bytes();
            }
        }
    }

    /// Asks one attempt to end, if it is running.
    pub(super) fn cancel(&self, which: Fence) {
        self.shared.queue.work().cancel(which);
    }

    /// Forgets that a call has begun.
    pub(super) fn forget(&self, mark: &Mark) {
        self.shared.common.marks.clear(mark);
    }

    /// Notes that the outcome of a call is recorded.
    pub(super) fn recorded(&self, service: &ServiceName, mark: &Mark) {
        self.forget(mark);
        if mark.awaited {
            self.shared.queue.work().recorded(service);
            self.shared.queue.tell();
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
    pub(super) fn stop_handle(&self) -> StopHandle {
        StopHandle::of(&self.shared)
    }

    fn add(&mut self) -> io::Result<()> {
        let control = Arc::new(StopSwitch::new()?);
        let slot = self.threads.len();
        self.shared.queue.work().slots.push(SlotState::new(Arc::clone(&control)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", slot + 1))
            .stack_size(STACK_OF_A_FEEDER)
            .spawn(move || shared.run(slot, &control));
        if thread.is_err() {
            self.shared.queue.work().slots.pop();
        }
        self.threads.push(thread?);
        Ok(())
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut work = self.shared.queue.work();
        work.closed = true;
        // One that just starts, for a call that was cancelled, is not waited for.
        work.wake_workers();
        work.call_host();
        drop(work);
        self.shared.queue.tell();
        for thread in self.threads.drain(..).chain(self.host.take()) {
            let _ = thread.join();
        }
        self.shared.common.workers.end();
    }
}
