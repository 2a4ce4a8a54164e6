//! The calls that a session sends and gets back, and where they come from.

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
    /// Says that the call had begun, if it had, until its outcome is recorded.
    pub mark: Option<Mark>,
}

/// What a worker reports of a call while it runs. A report replaces an earlier one of its kind.
#[derive(Debug, PartialEq)]
pub enum CallReport {
    /// How far it is, as a text.
    Progress(String),
}

/// What a worker holds, and how much more it could take.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// How many calls it holds.
    pub held: usize,
    /// How many it runs at once.
    pub at_once: usize,
    /// How many may wait behind the running one, so that each begins soon, if another worker could run them as well.
    pub ahead: usize,
    /// Whether calls take so little time that it makes no difference which worker runs them.
    pub are_tiny: bool,
}

/// Where the calls of a session come from and go to.
pub trait CallSource {
    /// The next call for a peer with this room, if there is one that it may have now.
    ///
    /// # Errors
    /// Why the peer can get no call at all, to go on after "the host".
    fn next(&self, room: SendLimits) -> Result<Option<SentCall>, String>;
    /// Takes calls that have ended.
    fn done(&self, done: Vec<EndedCall>);
    /// Takes back calls that have not begun and will not. The first one was to be the next.
    fn back(&self, begun: Vec<SentCall>);
    /// Takes note of calls that stay in a worker which asyncq may not end and does not wait for. They have no outcome here.
    fn leave(&self, _begun: Vec<SentCall>) {}
    /// Attempts that somebody has cancelled; names each once.
    fn cancelled(&self) -> Vec<Fence>;
    /// Whether calls may still begin.
    fn is_open(&self) -> bool;
    /// Whether a session without calls waits for more.
    fn waits(&self) -> bool {
        false
    }
    /// Takes note that the worker gets no more calls, although it holds some: others may run the calls that wait.
    fn leaves(&self) {}
    /// Whether others have nothing to do, and could run the calls that wait behind the one which this worker runs.
    fn is_short_of_calls(&self) -> bool {
        false
    }
    /// Takes a report of a call that runs.
    fn report(&self, _fence: Fence, _report: CallReport) {}
}
