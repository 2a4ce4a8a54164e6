//! Tells a running call to end, from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Why to end a running call, and how hard. Later values are harder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stop {
    /// Let it run.
    No = 0,
    /// Somebody cancelled the job: ask it to end, then make it.
    Cancel = 1,
    /// The processor stops: ask it to end, then make it.
    Interrupt = 2,
    /// The processor stops at once: make it end.
    Kill = 3,
}

/// The switch for one running call after another. The thread that waits for the function notices it at once.
#[derive(Debug)]
pub struct StopSwitch {
    stop: AtomicU8,
    wake: OwnedFd,
}

impl StopSwitch {
    /// A switch that lets calls run.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new() -> std::io::Result<StopSwitch> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(StopSwitch { stop: AtomicU8::new(0), wake })
    }

    /// Asks the running call to end. Never takes back a harder request.
    pub fn stop(&self, how: Stop) {
        self.stop.fetch_max(how as u8, Ordering::SeqCst);
        self.wake_up();
    }

    /// Wakes the waiting thread, for another reason.
    pub fn wake_up(&self) {
        // A write fails only if the counter is full. Then the sleeper is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Lets the next call run.
    pub fn reset(&self) {
        self.stop.store(0, Ordering::SeqCst);
        self.drain();
    }

    /// What is asked for at the moment.
    pub fn asked(&self) -> Stop {
        match self.stop.load(Ordering::SeqCst) {
            0 => Stop::No,
            1 => Stop::Cancel,
            2 => Stop::Interrupt,
            _ => Stop::Kill,
        }
    }

    /// Becomes readable when something is asked for.
    pub(in crate::runner) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(in crate::runner) fn drain(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }
}
