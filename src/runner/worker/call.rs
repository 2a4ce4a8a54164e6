//! The calls that a session sends and gets back, and their source.

use crate::domain::job::{Claim, Fence};
use crate::runner::{Ended, Mark};

/// A call that is handed to a worker or to the host.
#[derive(Debug)]
pub struct SentCall {
    /// The claim.
    pub claim: Claim,
    /// Says that the call may have begun.
    pub mark: Option<Mark>,
}

/// A call that has ended.
#[derive(Debug)]
pub struct EndedCall {
    /// The claim.
    pub claim: Claim,
    /// How it ended.
    pub ended: Ended,
    /// Shows that the call had begun, if it had, until its outcome is recorded.
    pub mark: Option<Mark>,
}

/// What a worker reports about a call while it runs. A report replaces the earlier one of its kind.
#[derive(Debug, PartialEq)]
pub enum CallReport {
    /// How far it is, as a text.
    Progress(String),
}

/// What a worker holds, and how much more it can take.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// How many calls it holds.
    pub held: usize,
    /// How many it runs at once.
    pub at_once: usize,
    /// How many calls may wait behind the running one if another worker could run them as well, so that each of them begins soon.
    pub ahead: usize,
    /// Whether calls take so little time that it makes no difference which worker runs them.
    pub are_tiny: bool,
}

/// Where the calls of a session come from and go to.
pub trait CallSource {
    /// The next call for a peer with this room, if it may have one now.
    ///
    /// # Errors
    /// Why the peer can get no call at all, to continue "the host".
    fn next(&self, room: SendLimits) -> Result<Option<SentCall>, String>;
    /// Takes calls that have ended.
    fn done(&self, done: Vec<EndedCall>);
    /// Takes back calls that have not begun and will not. The first one was to be the next.
    fn back(&self, begun: Vec<SentCall>);
    /// Notes calls that stay in a worker that asyncq cannot end and does not wait for. They have no outcome here.
    fn leave(&self, _begun: Vec<SentCall>) {}
    /// Attempts that somebody has cancelled. Names each of them once.
    fn cancelled(&self) -> Vec<Fence>;
    /// Whether calls may still begin.
    fn is_open(&self) -> bool;
    /// Whether a session without calls waits for more.
    fn waits(&self) -> bool {
        false
    }
    /// Notes that the worker gets no more calls, although it holds some. Others may run the waiting calls.
    fn leaves(&self) {}
    /// Whether others have nothing to do, and could run the calls that wait behind this worker's running one.
    fn is_short_of_calls(&self) -> bool {
        false
    }
    /// Takes a report of a call that runs.
    fn report(&self, _fence: Fence, _report: CallReport) {}
}
