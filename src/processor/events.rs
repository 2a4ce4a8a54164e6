//! What wakes a processor that waits.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::host::Lost;
use super::shutdown::StopHandle;
use crate::domain::job::{Claim, Fence};
use crate::runner::process::fds;
use crate::runner::process::signals::die;
use crate::runner::worker::EndedCall;
use crate::runner::{StartFailure, Stop};

/// What wakes the loop.
pub(super) enum LoopEvent {
    /// Calls have ended.
    EndedCall(Vec<EndedCall>),
    /// Calls that were on their way to a worker wait again.
    Back,
    /// A call has not begun, as something was in the way of its program.
    Unbegun(Box<Claim>, StartFailure),
    /// A call tells how far it is.
    Progress(Fence, String),
    /// So many calls are left behind in processes that may not be ended.
    Left(usize),
    /// Nothing can be run in the host any more.
    Lost(Lost),
    /// A signal to stop came.
    Stop,
}

/// What has come and was not looked at yet, in the order in which it came.
pub(super) struct EventQueue {
    arrived: Mutex<Vec<LoopEvent>>,
    /// Readable while something is there that was not looked at.
    bell: OwnedFd,
}

impl EventQueue {
    /// Nothing yet.
    pub(super) fn new() -> io::Result<EventQueue> {
        Ok(EventQueue { arrived: Mutex::default(), bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Wakes who waits.
    pub(super) fn send(&self, wake: LoopEvent) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push(wake);
        if arrived.len() == 1 {
            // Only fails when the counter is full: then the sleeper is awake already.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes what is there.
    pub(super) fn take(&self) -> Vec<LoopEvent> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if !arrived.is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        std::mem::take(&mut arrived)
    }

    /// Sleeps until something is there, or `other` is readable, at most for `time`.
    pub(super) fn wait(&self, time: Duration, other: Option<BorrowedFd<'_>>) {
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        // Interrupted or not: whoever waits looks what has happened.
        let _ = fds::wait(&mut fds, Some(time));
    }
}

/// Signals to stop that come as quickly as this after each other are one: whoever ends a whole process group, or looks
/// for programs by name, sends several.
const ONE_PRESS: Duration = Duration::from_millis(200);

/// Counts the signals to stop.
#[derive(Clone)]
pub(super) struct ShutdownSignal {
    presses: Arc<SignalCount>,
    stop_handle: Arc<OnceLock<StopHandle>>,
    events: Arc<EventQueue>,
}

#[derive(Default)]
struct SignalCount {
    count: AtomicUsize,
    latest: Mutex<Option<Instant>>,
    /// Whether the supervisor has died.
    lost: AtomicBool,
}

impl ShutdownSignal {
    pub(super) fn new(events: Arc<EventQueue>) -> ShutdownSignal {
        ShutdownSignal { presses: Arc::default(), stop_handle: Arc::default(), events }
    }

    /// From now on, signals reach the slots themselves: the loop may be waiting for the store.
    pub(super) fn connect(&self, stop_handle: StopHandle) {
        if self.stop_handle.set(stop_handle).is_ok() {
            self.pull();
        }
    }

    fn pull(&self) {
        let Some(stop_handle) = self.stop_handle.get() else { return };
        match self.pressed() {
            0 => {}
            1 => stop_handle.pull(Stop::No),
            2 => stop_handle.pull(Stop::Interrupt),
            _ => stop_handle.pull(Stop::Kill),
        }
        if self.pressed() > 1 {
            stop_handle.hurry();
        }
    }

    /// How many signals have come.
    pub(super) fn pressed(&self) -> usize {
        self.presses.count.load(Ordering::SeqCst)
    }

    pub(super) fn press(&self) {
        let mut latest = self.presses.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.is_some_and(|latest| latest.elapsed() < ONE_PRESS) {
            return;
        }
        *latest = Some(Instant::now());
        self.presses.count.fetch_add(1, Ordering::SeqCst);
        self.pull();
        self.events.send(LoopEvent::Stop);
    }

    /// The supervisor has died, and this process is to follow it: whoever ended it meant both. What runs is ended, and
    /// found by a rescuer as what a dead processor ran.
    pub(super) fn lose(&self) {
        self.presses.lost.store(true, Ordering::SeqCst);
        if let Some(stop_handle) = self.stop_handle.get() {
            stop_handle.end_everything();
        }
        die();
    }

    /// Does not return once the supervisor has died: how calls end from then on is nobody's outcome.
    pub(super) fn stay_if_lost(&self) {
        while self.presses.lost.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}
