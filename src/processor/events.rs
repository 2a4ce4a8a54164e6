//! What wakes the main loop.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::lost_host::LostHost;
use crate::domain::job::{Claim, Fence};
use crate::runner::StartFailure;
use crate::runner::worker::EndedCall;
use crate::system::fds;

/// Something that the main loop acts on.
pub(super) enum LoopEvent {
    /// Calls have ended.
    Ended(Vec<EndedCall>),
    /// Calls that were sent to a worker are back in the queue.
    Returned,
    /// A call has not begun, because its program could not be started.
    NotStarted(Box<Claim>, StartFailure),
    /// A call reports its progress.
    Progress(Fence, String),
    /// This many calls are left behind in processes that cannot be ended.
    Left(usize),
    /// The host runs no more calls.
    LostHost(LostHost),
    /// A signal to stop came.
    Stop,
}

/// Events that the main loop has not seen yet, in the order in which they happened.
pub(super) struct EventQueue {
    arrived: Mutex<Vec<LoopEvent>>,
    /// Readable while there are events.
    bell: OwnedFd,
}

impl EventQueue {
    /// An empty queue.
    pub(super) fn new() -> io::Result<EventQueue> {
        Ok(EventQueue { arrived: Mutex::default(), bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Adds an event, and wakes the loop.
    pub(super) fn send(&self, event: LoopEvent) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push(event);
        if arrived.len() == 1 {
            // Only fails when the counter is full: then the sleeper is awake already.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes all events.
    pub(super) fn take(&self) -> Vec<LoopEvent> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if !arrived.is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        std::mem::take(&mut arrived)
    }

    /// Sleeps until there is an event, or `other` is readable, at most for `time`.
    pub(super) fn wait(&self, time: Duration, other: Option<BorrowedFd<'_>>) {
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        // Interrupted or not: the caller looks for events.
        let _ = fds::wait(&mut fds, Some(time));
    }
}
