//! What follows from the end of an attempt: done, tried again, or final. Pure: the caller draws the random number.

use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::{Ending, Failure, FailureKind, Outcome};
use super::state::State;

/// How often a function that reports a conflict, or that cannot be started, is tried in all.
pub const CONFLICT_ATTEMPTS: i64 = 3;

/// The longest time that a job waits after a conflict until it is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a call waits that could not begin although nothing is amiss with it: its program was being written.
pub const POSTPONED: Duration = Duration::from_secs(5);

/// After how many deaths of the processor, or the worker, that ran it a job ends in an error.
pub const CRASHES: i64 = 3;

/// From how many deaths on a job runs alone in its processor, so that no other job causes its last one. Otherwise jobs that
/// run at the same time as one that kills its processor would die as often as it does.
pub const POISON: i64 = CRASHES - 1;

/// What follows for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where the job stands next.
    pub state: State,
    /// How long it waits before it is due again; only for [`State::Delayed`].
    pub pause: Option<Duration>,
    /// The job's error, and the attempt's.
    pub error: Option<Failure>,
    /// How the attempt is recorded.
    pub ending: Ending,
    /// Whether the function is to have brought its job there itself, so that this is only looked up.
    pub by_itself: bool,
}

impl Decision {
    fn of(state: State, ending: Ending) -> Decision {
        Decision { state, pause: None, error: None, ending, by_itself: false }
    }

    fn error(ending: Ending, failure: Failure) -> Decision {
        Decision { error: Some(failure), ..Decision::of(State::Error, ending) }
    }
}

/// How attempts of a job have ended before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptCounts {
    /// How many in a conflict.
    pub conflicts: i64,
    /// How many because the processor or the worker died.
    pub crashes: i64,
}

/// Decides after an attempt of a queued job; `draw` is a random number from 0 up to 1.
///
/// After the n-th conflict the job pauses for a random time between 0 and 2^n seconds, so that calls which met once
/// do not meet again (as `gocept.async` did), unless the function says for how long. A call that could not be started
/// pauses just as often, for the longer half of that time: you have 3 seconds to replace its program.
#[must_use]
pub fn decide(outcome: &Outcome, before: AttemptCounts, draw: f64) -> Decision {
    let now = before.conflicts + 1;
    let longest = f64::from(2_i32.pow(u32::try_from(now.clamp(1, CONFLICT_ATTEMPTS)).unwrap_or(1)));
    let pause = |part: f64| Duration::from_secs_f64(longest * part.clamp(0.0, 1.0));
    let again = Decision::of(State::Delayed, Ending::Conflict);
    match outcome {
        Outcome::Conflict(conflict) if now < CONFLICT_ATTEMPTS => {
            let pause = conflict.pause.unwrap_or(pause(draw)).min(LONGEST_PAUSE);
            Decision { pause: Some(pause), error: conflict.reported.clone(), ..again }
        }
        Outcome::Unstarted(failure) if now < CONFLICT_ATTEMPTS => {
            Decision { pause: Some(pause(f64::midpoint(1.0, draw))), error: Some(failure.clone()), ..again }
        }
        Outcome::Crashed(how) => after_crash(how, before.crashes),
        outcome => decide_once(outcome, now),
    }
}

/// Decides after the processor or the worker has died; `how` says which.
fn after_crash(how: &str, crashes: i64) -> Decision {
    let now = crashes + 1;
    let (state, message) = match now {
        CRASHES.. => (State::Error, format!("{how} in {now} attempts")),
        _ => (State::Queued, how.to_owned()),
    };
    Decision { error: Some(Failure::new(FailureKind::Crash, message)), ..Decision::of(state, Ending::Crash) }
}

/// What follows when a function said that it had completed its job itself, and the store knows nothing of that: what it did
/// in that transaction is undone.
#[must_use]
pub fn not_by_itself() -> Decision {
    let message = "it said that it completed its job in its own transaction, but that was not committed";
    Decision::error(Ending::Error, Failure::new(FailureKind::BadResult, message))
}

/// What follows for a call whose outcome a rule of the application refuses.
#[must_use]
pub fn refused(why: String) -> Decision {
    Decision::error(Ending::Error, Failure::new(FailureKind::Refused, why))
}

/// The decision that was recorded instead of one that a rule of the application refuses. The job names the rule.
#[must_use]
pub fn refused_here(job: impl Display) -> Decision {
    refused(format!("a rule of the application refuses its outcome; `asyncq job show {job}` names it"))
}

/// Decides after a nested call, which is never tried again: `conflicts` counts this one as well.
#[must_use]
pub fn decide_once(outcome: &Outcome, conflicts: i64) -> Decision {
    match outcome {
        Outcome::Completed => Decision::of(State::Completed, Ending::Completed),
        Outcome::CompletedItself => Decision { by_itself: true, ..Decision::of(State::Completed, Ending::Completed) },
        Outcome::Conflict(conflict) => Decision::error(Ending::Conflict, conflict.failure(conflicts)),
        Outcome::Crashed(how) => Decision::error(Ending::Crash, Failure::new(FailureKind::Crash, how.as_str())),
        Outcome::Failed(failure) | Outcome::Unstarted(failure) => Decision::error(Ending::Error, failure.clone()),
        Outcome::Interrupted => Decision::of(State::Queued, Ending::Interrupted),
        Outcome::Cancelled => Decision::of(State::Cancelled, Ending::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempt::Conflict;
    use super::*;

    fn conflict(pause: Option<Duration>) -> Outcome {
        Outcome::Conflict(Conflict { pause, reported: None })
    }

    #[test]
    fn what_a_worker_says_of_a_conflict_is_kept_in_each_attempt() {
        let reported =
            Failure { class: Some("shop.Locked".to_owned()), ..Failure::new(FailureKind::Conflict, "locked") };
        let met = Outcome::Conflict(Conflict { pause: None, reported: Some(reported.clone()) });
        let after = |conflicts| decide(&met, AttemptCounts { conflicts, ..AttemptCounts::default() }, 0.5);
        assert_eq!((after(0).state, after(1).error), (State::Delayed, Some(reported.clone())));
        let last = Failure { message: "a conflict in all 3 attempts: locked".to_owned(), ..reported.clone() };
        assert_eq!(after(2).error, Some(last));
        assert_eq!(decide_once(&met, 1).error, Some(reported));
    }

    #[test]
    fn a_conflict_is_tried_three_times_in_all() {
        let after = |conflicts| AttemptCounts { conflicts, ..AttemptCounts::default() };
        let pauses: Vec<_> = [(0, 0.0), (0, 1.0), (1, 0.5), (1, 1.0)]
            .map(|(conflicts, draw)| decide(&conflict(None), after(conflicts), draw).pause.unwrap())
            .into();
        assert_eq!(pauses, [0, 2, 2, 4].map(Duration::from_secs));
        for (asked, given) in [(Duration::ZERO, Duration::ZERO), (Duration::from_secs(3600), LONGEST_PAUSE)] {
            assert_eq!(decide(&conflict(Some(asked)), after(0), 0.5).pause, Some(given));
        }
        let last = decide(&conflict(None), after(2), 0.5);
        assert_eq!((last.state, last.ending), (State::Error, Ending::Conflict));
        assert_eq!(last.error.unwrap().message, "temporary failure (exit code 75) in all 3 attempts");
    }

    #[test]
    fn a_call_that_cannot_be_started_is_tried_three_times_in_all() {
        let gone = Outcome::Unstarted(Failure::new(FailureKind::CannotRun, "its program is missing"));
        let after = |conflicts, draw| decide(&gone, AttemptCounts { conflicts, ..AttemptCounts::default() }, draw);
        let pauses = [(0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0)].map(|(before, draw)| after(before, draw).pause.unwrap());
        assert_eq!(pauses, [1, 2, 2, 4].map(Duration::from_secs));
        assert_eq!((after(1, 0.5).state, after(1, 0.5).ending), (State::Delayed, Ending::Conflict));
        let last = after(2, 0.5);
        assert_eq!((last.state, last.ending, last.pause), (State::Error, Ending::Error, None));
        assert_eq!(last.error.unwrap().message, "its program is missing");
        assert_eq!(decide_once(&gone, 1).state, State::Error);
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
            assert_eq!(decide(&outcome, AttemptCounts::default(), 0.5).state, state);
            assert!(State::Processing.may_become(state));
        }
        assert_eq!(decide_once(&conflict(None), 1).state, State::Error);
    }

    #[test]
    fn a_crash_is_tried_three_times_in_all() {
        let after =
            |crashes| decide(&Outcome::Crashed("it died".to_owned()), AttemptCounts { crashes, conflicts: 9 }, 0.5);
        assert_eq!([0, 1, 2].map(|crashes| after(crashes).state), [State::Queued, State::Queued, State::Error]);
        assert_eq!(after(2).error.unwrap().message, "it died in 3 attempts");
    }
}
