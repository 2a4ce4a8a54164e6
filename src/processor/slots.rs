//! The slots of a processor: threads that run one call after another, or feed a worker, without waiting for the store.
//!
//! Invariant: each slot has at most one ended command call whose outcome is neither in the store nor in the journal. Each call has
//! a mark from before it begins until its outcome is recorded, and a rescuer finds that mark.

use std::sync::{Arc, MutexGuard};
use std::{collections::BTreeMap, io, thread::JoinHandle};

use super::dispatch_queue::{QueueState, SlotState};
use super::shared::{STACK, Shared};
use super::{host, prefetch::Load, shutdown::StopTargets, slot::Slot, worker_pool::WorkerPool};
use crate::domain::{job::Claim, service::ServiceName};
use crate::error::Result;
use crate::runner::{Mark, StopSwitch, worker::host_session::HostSession};
use crate::system::{error::io_error, fds};

/// All slots of a processor; their threads end when this is dropped.
pub(super) struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// How many there can be.
    most: usize,
    /// For each service, how many calls were handed in and have not come back, and the bytes of their arguments.
    held: BTreeMap<ServiceName, (usize, usize)>,
    /// Feeds the host, if there is one.
    host: Option<JoinHandle<()>>,
    /// How many calls are left to a host, or to processes that cannot be ended. Other processors see them as running; here they get
    /// no outcome.
    pub(super) left: usize,
}

impl Slots {
    /// No slots yet.
    pub(super) fn new(shared: Shared) -> Slots {
        let (shared, most) = (Arc::new(shared), fds::functions_at_once());
        Slots { shared, threads: Vec::new(), most, held: BTreeMap::new(), host: None, left: 0 }
    }

    /// From now on, the functions that this host names run in it.
    pub(super) fn use_host(&mut self, session: HostSession) -> Result<()> {
        let fail = |error| io_error("cannot speak to the host", &error);
        self.host = Some(host::feed(&self.shared, session).map_err(fail)?);
        Ok(())
    }

    /// How many calls were claimed and have neither ended nor been left behind.
    pub(super) fn open(&self) -> usize {
        self.held() - self.left
    }

    /// How many calls were claimed and have not ended.
    fn held(&self) -> usize {
        self.held.values().map(|(count, _)| count).sum()
    }

    /// How many calls of this service were claimed and have not ended, and how many of others.
    pub(super) fn load(&self, service: &ServiceName) -> Load {
        let held = self.held.get(service).map_or(0, |(count, _)| *count);
        Load { held, elsewhere: self.held() - held, bytes: self.held.values().map(|(_, bytes)| bytes).sum() }
    }

    /// Locks the queue from which they take their calls.
    pub(super) fn queue(&self) -> MutexGuard<'_, QueueState> {
        self.shared.queue.state()
    }

    /// The workers that none of them feeds.
    pub(super) fn workers(&self) -> &WorkerPool {
        &self.shared.workers
    }

    /// Hands in valid claims of a service, and sets how many of its calls may run at once from now on.
    ///
    /// # Errors
    /// When there is no slot, and the system gives no thread or descriptor for one.
    pub(super) fn begin(&mut self, service: &ServiceName, claims: Vec<Claim>, width: usize) -> io::Result<()> {
        let held = self.held.entry(service.clone()).or_default();
        held.0 += claims.len();
        held.1 += claims.iter().map(Claim::bytes).sum::<usize>();
        let mut state = self.queue();
        state.add(service, claims, width);
        let useful = state.useful_slots();
        drop(state);
        while self.threads.len() < useful.min(self.most) {
            match self.add() {
                // Fewer slots than there could be are enough.
                Err(_) if !self.threads.is_empty() => break,
                added => added?,
            }
        }
        self.shared.queue.notify();
        Ok(())
    }

    /// Takes back those calls for which `which` is true and that have not begun.
    pub(super) fn take_back(&mut self, which: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        let taken = self.queue().take_out(which);
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

    /// Forgets that a call has begun.
    pub(super) fn forget(&self, mark: &Mark) {
        self.shared.marks.clear(mark);
    }

    /// Notes that the outcome of a call is recorded.
    pub(super) fn recorded(&self, service: &ServiceName, mark: &Mark) {
        self.forget(mark);
        if mark.awaited {
            self.queue().recorded(service);
            self.shared.queue.notify();
        }
    }

    /// What a shutdown stops.
    pub(super) fn stop_targets(&self) -> StopTargets {
        self.shared.stop_targets()
    }

    fn add(&mut self) -> io::Result<()> {
        let control = Arc::new(StopSwitch::new()?);
        let slot = self.threads.len();
        self.queue().slots.push(SlotState::new(Arc::clone(&control)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("slot {}", slot + 1))
            .stack_size(STACK)
            .spawn(move || Slot { shared: &shared, number: slot, control: &control }.run());
        if thread.is_err() {
            self.queue().slots.pop();
        }
        self.threads.push(thread?);
        Ok(())
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let mut state = self.queue();
        state.closed = true;
        // Nobody waits for a worker that is starting for a cancelled call.
        state.wake_workers();
        state.call_host();
        drop(state);
        self.shared.queue.notify();
        for thread in self.threads.drain(..).chain(self.host.take()) {
            let _ = thread.join();
        }
        self.shared.workers.end();
    }
}
