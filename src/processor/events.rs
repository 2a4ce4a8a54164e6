//! What wakes the main loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::{io, time::Duration};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use crate::domain::job::{Claim, Fence};
use crate::error::{Error, Kind};
use crate::runner::worker::{CallReport, EndedCall, host_session::HostLoss};
use crate::{runner::StartFailure, system::fds};

/// Something that the main loop acts on.
pub(super) enum LoopEvent {
    /// Calls have ended.
    Ended(Vec<EndedCall>),
    /// Calls that were sent to a worker are back in the queue.
    Returned,
    /// A call has not begun, because its program could not be started.
    NotStarted(Box<Claim>, StartFailure),
    /// A call that runs reports something.
    Report(Fence, CallReport),
    /// This many calls are left behind in processes that cannot be ended.
    Left(usize),
    /// The host runs no more calls.
    LostHost(LostHost),
    /// A signal to stop came.
    Stop,
}

impl<T> AsFd for EventQueue<T> {
    /// Readable while there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// Events that a loop has not seen yet, in the order in which they happened.
pub struct EventQueue<T> {
    arrived: Mutex<Vec<T>>,
    /// Readable while there are events.
    bell: OwnedFd,
}

impl<T> EventQueue<T> {
    /// An empty queue.
    pub fn new() -> io::Result<EventQueue<T>> {
        Ok(EventQueue {
            arrived: Mutex::new(Vec::new()),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Adds an event, and wakes the loop.
    pub fn send(&self, event: T) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push(event);
        if arrived.len() == 1 {
            // A write fails only if the counter is full. Then the sleeper is awake already.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes all events.
    pub fn take(&self) -> Vec<T> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if !arrived.is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        std::mem::take(&mut arrived)
    }

    /// Sleeps until there is an event, or `other` is readable, at most for `time`.
    pub fn wait(&self, time: Duration, other: Option<BorrowedFd<'_>>) {
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        // It makes no difference whether a signal interrupted this: the caller looks for events anyway.
        let _ = fds::wait(&mut fds, Some(time));
    }
}

/// A host that runs no more calls.
#[derive(Debug)]
pub(super) struct LostHost {
    /// Its process.
    pub(super) pid: i64,
    /// Why not.
    pub(super) loss: HostLoss,
    /// The calls that may still be running in it.
    pub(super) left: Vec<Claim>,
}

impl LostHost {
    /// The error with which the processor ends.
    pub(super) fn error(&self) -> Error {
        let error = lost(self.pid, &self.loss);
        if self.left.is_empty() {
            return error;
        }
        let jobs: Vec<String> = self.left.iter().map(|claim| claim.fence.job.to_string()).collect();
        let jobs = if jobs.len() == 1 { format!("job {}", jobs[0]) } else { format!("jobs {}", jobs.join(", ")) };
        error.with_hint(format!(
            "{jobs} may still run there: `asyncq process` puts that back when the process has ended, or says `\"idle\":true` in a new hello"
        ))
    }
}

/// The error for a host that runs no more calls.
pub(super) fn lost(pid: i64, loss: &HostLoss) -> Error {
    let (what, hint) = match loss {
        HostLoss::Ended => ("has ended", "what it was running was put back, or has failed"),
        HostLoss::Protocol(what) => {
            (what.as_str(), "docs/protocol.md tells what a program has to say that is drained into")
        }
    };
    Error::new(Kind::Io, format!("the host (process {pid}) {what}")).with_hint(hint)
}
