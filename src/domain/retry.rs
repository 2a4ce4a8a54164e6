//! What follows from the end of an attempt: done, tried again, or final. Pure: the caller draws the random number.

use std::time::Duration;

use super::attempt::{Ending, Failure, FailureKind, Outcome};
use super::job::State;

/// How often a function that reports a conflict is run in all.
pub const CONFLICT_ATTEMPTS: i64 = 3;

/// The longest time that a job waits until it is tried again. One that would wait longer has seen the clock go back.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1 << (CONFLICT_ATTEMPTS - 1));

/// After how many deaths of the processor that ran it a job ends in an error.
pub const CRASHES: i64 = 3;

/// From how many deaths on a job runs alone in its processor, so that its last one is nobody else's doing: those that run
/// beside a job that kills its processor would else meet the same end as often as it does.
pub const SUSPECT: i64 = CRASHES - 1;

/// What follows for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Where the job stands next.
    pub state: State,
    /// How long it waits before it is due again; only for [`State::Delayed`].
    pub pause: Option<Duration>,
    /// The job's error, and the attempt's.
    pub error: Option<Failure>,
    /// How the attempt is recorded.
    pub ending: Ending,
}

impl Verdict {
    fn of(state: State, ending: Ending) -> Verdict {
        Verdict { state, pause: None, error: None, ending }
    }
}

/// Decides after an attempt of a queued job. `conflicts` counts the attempts that ended in one before; `draw` is a
/// random number from 0 up to 1.
///
/// After the n-th conflict the job pauses for a random time between 0 and 2^n seconds, so that calls which met once
/// do not meet again (as `gocept.async` did).
#[must_use]
pub fn decide(outcome: &Outcome, conflicts: i64, draw: f64) -> Verdict {
    let now = conflicts + 1;
    match outcome {
        Outcome::Conflict if now < CONFLICT_ATTEMPTS => {
            let longest = f64::from(2_i32.pow(u32::try_from(now).unwrap_or(1)));
            Verdict {
                pause: Some(Duration::from_secs_f64(longest * draw.clamp(0.0, 1.0))),
                ..Verdict::of(State::Delayed, Ending::Conflict)
            }
        }
        outcome => decide_once(outcome, now),
    }
}

/// Decides after a nested call, which is never tried again: `conflicts` counts this one as well.
#[must_use]
pub fn decide_once(outcome: &Outcome, conflicts: i64) -> Verdict {
    match outcome {
        Outcome::Completed => Verdict::of(State::Completed, Ending::Completed),
        Outcome::Conflict => {
            let message = match conflicts {
                1 => "a conflict".to_owned(),
                n => format!("a conflict in all of {n} attempts"),
            };
            let error = Failure { exit_code: Some(75), ..Failure::new(FailureKind::Conflict, message) };
            Verdict { error: Some(error), ..Verdict::of(State::Error, Ending::Conflict) }
        }
        Outcome::Failed(failure) => {
            Verdict { error: Some(failure.clone()), ..Verdict::of(State::Error, Ending::Error) }
        }
        Outcome::Interrupted => Verdict::of(State::Queued, Ending::Interrupted),
        Outcome::Cancelled => Verdict::of(State::Cancelled, Ending::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_tried_three_times_in_all() {
        let pauses: Vec<_> = [(0, 0.0), (0, 1.0), (1, 0.5), (1, 1.0)]
            .map(|(conflicts, draw)| decide(&Outcome::Conflict, conflicts, draw).pause.unwrap().as_secs_f64())
            .into();
        assert_eq!(pauses, [0.0, 2.0, 2.0, LONGEST_PAUSE.as_secs_f64()]);
        let last = decide(&Outcome::Conflict, 2, 0.5);
        assert_eq!((last.state, last.ending), (State::Error, Ending::Conflict));
        assert_eq!(last.error.unwrap().message, "a conflict in all of 3 attempts");
    }

    #[test]
    fn anything_else_is_tried_once() {
        let failed = Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1"));
        for (outcome, state) in [
            (Outcome::Completed, State::Completed),
            (failed, State::Error),
            (Outcome::Interrupted, State::Queued),
            (Outcome::Cancelled, State::Cancelled),
        ] {
            assert_eq!(decide(&outcome, 0, 0.5).state, state);
            assert!(State::Processing.may_become(state));
        }
        assert_eq!(decide_once(&Outcome::Conflict, 1).state, State::Error);
    }
}
