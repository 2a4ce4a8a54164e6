//! Stopping a processor: the signals that ask for it, and how they reach the slots even while the main loop waits for the store.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::events::{EventQueue, LoopEvent};
use super::{dispatch_queue::DispatchQueue, worker_pool::WorkerPool};
use crate::runner::{ForwarderHandle, Orphans, Stop};
use crate::system::signals::die;

/// Signals that follow each other within this time count as one, because a signal to a whole process group, or to all programs of a
/// name, arrives several times.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

/// Counts the signals to stop, and stops the slots.
#[derive(Clone)]
pub(super) struct Shutdown(Arc<ShutdownState>);

struct ShutdownState {
    signals: AtomicUsize,
    latest: Mutex<Option<Instant>>,
    /// Notified at each signal.
    arrived: Condvar,
    supervisor_died: AtomicBool,
    targets: OnceLock<StopTargets>,
    events: Arc<EventQueue<LoopEvent>>,
}

/// What is stopped.
pub(super) struct StopTargets {
    pub(super) queue: Arc<DispatchQueue>,
    pub(super) orphans: Arc<Orphans>,
    /// Weak, so that the pool ends with the slots. Only when no worker can print any longer does asyncq wait for their output to be
    /// read.
    pub(super) workers: Weak<WorkerPool>,
    pub(super) forwarder: ForwarderHandle,
}

impl Shutdown {
    /// No signal has arrived. `events` wakes the loop at each one.
    pub(super) fn new(events: Arc<EventQueue<LoopEvent>>) -> Shutdown {
        let (signals, latest, arrived) = (AtomicUsize::new(0), Mutex::default(), Condvar::new());
        let (supervisor_died, targets) = (AtomicBool::new(false), OnceLock::new());
        Shutdown(Arc::new(ShutdownState { signals, latest, arrived, supervisor_died, targets, events }))
    }

    /// Gives running calls this much time to end after a first signal. Then the processor does what it does at a second signal.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn limit(&self, grace: Duration) -> io::Result<()> {
        // It has its own thread, because the main loop may be waiting for the store.
        let shutdown = self.clone();
        let thread = thread::Builder::new().name("grace".to_owned()).stack_size(64 * 1024);
        thread.spawn(move || shutdown.end_after(grace)).map(drop)
    }

    fn end_after(&self, grace: Duration) {
        let is_unasked = |latest: &mut Option<Instant>| latest.is_none();
        let asked = self.0.arrived.wait_while(self.latest(), is_unasked).unwrap_or_else(PoisonError::into_inner);
        drop(asked);
        thread::sleep(grace);
        let latest = self.latest();
        // After a second signal there is nothing left to do.
        if self.signals() == 1 {
            self.count_signal(latest);
        }
    }

    /// From now on, signals reach the slots directly, because the main loop may be waiting for the store.
    pub(super) fn connect(&self, targets: StopTargets) {
        if self.0.targets.set(targets).is_ok() {
            self.obey();
        }
    }

    fn obey(&self) {
        match self.signals() {
            0 => {}
            1 => self.stop(Stop::No),
            2 => self.stop(Stop::Interrupt),
            _ => self.stop(Stop::Kill),
        }
        if self.signals() > 1
            && let Some(targets) = self.0.targets.get()
        {
            targets.forwarder.skip_wait();
        }
    }

    /// How many signals have arrived.
    pub(super) fn signals(&self) -> usize {
        self.0.signals.load(Ordering::SeqCst)
    }

    /// A signal to stop has arrived.
    pub(super) fn signal(&self) {
        let latest = self.latest();
        if latest.is_none_or(|latest| latest.elapsed() >= ONE_SIGNAL) {
            self.count_signal(latest);
        }
    }

    fn latest(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_signal(&self, mut latest: MutexGuard<'_, Option<Instant>>) {
        *latest = Some(Instant::now());
        self.0.signals.fetch_add(1, Ordering::SeqCst);
        self.obey();
        self.0.events.send(LoopEvent::Stop);
        self.0.arrived.notify_all();
    }

    /// Lets no call begin, and asks the running ones to end, unless `how` is [`Stop::No`].
    pub(super) fn stop(&self, how: Stop) {
        let Some(StopTargets { queue, orphans, .. }) = self.0.targets.get() else { return };
        if how == Stop::Kill {
            orphans.leave_unkillable();
        }
        let mut state = queue.state();
        state.halted = true;
        state.wake_workers();
        if how != Stop::No {
            state.stop(how);
        }
    }

    /// The supervisor has died, so this process ends, too: whoever kills one of the two means both. All running calls end, and the
    /// next processor rescues them as those of a dead processor.
    pub(super) fn supervisor_died(&self) {
        self.0.supervisor_died.store(true, Ordering::SeqCst);
        if let Some(StopTargets { queue, orphans, workers, .. }) = self.0.targets.get() {
            self.stop(Stop::Kill);
            let mut state = queue.state();
            while state.running() > 0 {
                state = queue.wait(state);
            }
            drop(state);
            if let Some(workers) = workers.upgrade() {
                workers.kill();
            }
            orphans.end();
        }
        die();
    }

    /// Never returns once the supervisor has died, because calls that end after that must not get an outcome.
    pub(super) fn park_if_supervisor_died(&self) {
        while self.0.supervisor_died.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}
