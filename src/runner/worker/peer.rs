//! The programs that run calls, and why a session with such a program stops.

use crate::domain::job::{Claim, JobId};
use crate::runner::Stop;
use crate::runner::worker::protocol::Hello;

/// What differs between a worker and the host. The defaults are those of the host.
pub(super) trait Peer {
    /// Takes its hello.
    ///
    /// # Errors
    /// Why asyncq refuses it.
    fn accept(&mut self, hello: &Hello) -> Result<(), String>;
    /// Ends calls that were told to end.
    ///
    /// # Errors
    /// What the peer did, if it cannot be ended itself.
    fn end_calls(&mut self, calls: &EndingCalls) -> Result<(), String>;
    /// Whether it may be sent calls that wait behind a running one, because asyncq can take them back.
    fn can_queue(&self) -> bool {
        false
    }
    /// Whether the output that it sends in messages is printed, and not only logged.
    fn echoes(&self, _hello: Option<&Hello>) -> bool {
        true
    }
    /// Notes the call that it is about to get.
    fn prepare(&mut self, _claim: &Claim) {}
    /// Notes answers, and how many calls it still holds.
    fn count_answers(&mut self, _answers: usize, _held: usize) {}
    /// Whether it has done enough, with the calls that it holds.
    fn is_worn(&self, _held: usize) -> bool {
        false
    }
    /// Whether it has just become worn while it holds calls. Called before it gets more.
    fn wears_out(&mut self, _held: usize) -> bool {
        false
    }
    /// Whether it cannot be ended and nobody waits for it.
    fn is_left(&self) -> bool {
        false
    }
}

/// Running calls that were told to end.
pub(super) struct EndingCalls {
    /// The job of the one that has to end first.
    pub(super) job: JobId,
    /// Whether one of them was told just now.
    pub(super) are_new: bool,
    /// Whether their time to end is over.
    pub(super) are_late: bool,
    pub(super) stop: Stop,
}

/// Why a session stops.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The peer holds no call, and there is none for it.
    Idle,
    /// The peer has not said hello, and has nothing left to run.
    Unneeded,
    /// The peer cannot be ended, and nobody waits for it.
    Unkillable,
    /// The peer has ended, or has closed its channel.
    Ended,
    /// What is wrong with its hello.
    Refused(String),
    /// What it did that the protocol does not allow, to continue "its worker" or "the host".
    Violation(String),
}
