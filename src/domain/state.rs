//! The states of a job, and which of them may follow each other.

use std::fmt;

use serde::Serialize;

use super::text::has_names;

/// The state of a job, in the order of its life. `docs/states.md` draws the transitions; a test compares the drawing with
/// [`State::may_become`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits until it is started by hand.
    Held,
    /// Waits for other calls: those that it needs, or those before it in its lane.
    Blocked,
    /// Waits until it is due.
    Delayed,
    /// Ready to run.
    Queued,
    /// Claimed by a processor.
    Processing,
    /// Ended successfully.
    Completed,
    /// Failed; can be retried by hand.
    Error,
    /// Ended by `job cancel`.
    Cancelled,
}

/// What the states of a job have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The job waits to be run.
    Waiting,
    /// A processor has it.
    Running,
    /// The job has ended.
    Ended,
}

impl State {
    /// The phase of a job in this state.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            State::Held | State::Blocked | State::Delayed | State::Queued => Phase::Waiting,
            State::Processing => Phase::Running,
            State::Completed | State::Error | State::Cancelled => Phase::Ended,
        }
    }

    /// Whether a job in this state has ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        self.phase() == Phase::Ended
    }

    /// Whether a job in this state waits to be run.
    #[must_use]
    pub fn is_waiting(self) -> bool {
        self.phase() == Phase::Waiting
    }

    /// Whether a job may go from this state to `next`.
    #[must_use]
    pub fn may_become(self, next: State) -> bool {
        match self {
            State::Held => matches!(next, State::Queued | State::Blocked | State::Delayed | State::Cancelled),
            State::Blocked => matches!(next, State::Held | State::Queued | State::Delayed | State::Cancelled),
            State::Delayed => matches!(next, State::Held | State::Queued | State::Blocked | State::Cancelled),
            State::Queued => {
                matches!(next, State::Held | State::Processing | State::Delayed | State::Blocked | State::Cancelled)
            }
            State::Processing => {
                matches!(next, State::Queued | State::Delayed | State::Completed | State::Error | State::Cancelled)
            }
            State::Error | State::Cancelled => matches!(next, State::Queued | State::Blocked),
            State::Completed => false,
        }
    }
}

has_names! { State {
    Held: "held",
    Blocked: "blocked",
    Delayed: "delayed",
    Queued: "queued",
    Processing: "processing",
    Completed: "completed",
    Error: "error",
    Cancelled: "cancelled",
} }

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.as_str()), Some(state));
        }
        assert_eq!(State::from_name("done"), None);
    }
}
