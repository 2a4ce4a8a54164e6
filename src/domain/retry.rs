//! What an attempt's end leads to: done, tried again, or final. Pure: the caller draws the random number.

use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::{Ending, Failure, FailureKind, Outcome};
use super::retry_policy::RetryPolicy;
use super::state::State;

/// The longest time that a job waits after a conflict until it is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a call waits if a rule of the application holds it back.
pub const HELD_BACK: Duration = Duration::from_secs(1);

/// How long a call waits that could not begin although nothing is wrong with it, because its program was being written.
pub const POSTPONED: Duration = Duration::from_secs(5);

/// A job ends in an error after the processor or the worker that ran it has died this often.
pub const CRASHES: i64 = 3;

/// After this many deaths, a job runs alone in its processor, so that no other job causes its last one. Otherwise, jobs that run
/// next to one that kills its processor would die as often as that one.
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
    /// Which of its retries comes next, if it failed and is tried again.
    pub retry: Option<Retry>,
    /// Whether the function says that it has put the job into this state itself. Then asyncq only checks that.
    pub by_itself: bool,
}

impl Decision {
    fn of(state: State, ending: Ending) -> Decision {
        Decision { state, pause: None, error: None, ending, retry: None, by_itself: false }
    }

    fn error(ending: Ending, failure: Failure) -> Decision {
        Decision { error: Some(failure), ..Decision::of(State::Error, ending) }
    }
}

/// One of the retries of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Its number, counted from 1.
    pub number: u32,
    /// How many there are at most.
    pub of: u32,
}

/// How attempts of a job have ended before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptCounts {
    /// How many failed. Missing in notes of older builds, which retried no failures.
    #[serde(default)]
    pub failures: i64,
    /// How many in a conflict.
    pub conflicts: i64,
    /// How many because the processor or the worker died.
    pub crashes: i64,
}

impl RetryPolicy {
    /// Decides after an attempt of a queued job. `draw` is a random number from 0 up to 1.
    ///
    /// After the n-th conflict, the job pauses for a random time between 0 and 2^n seconds, so that calls which met once do not
    /// meet again (as `gocept.async` did), unless the function says for how long. A call that could not be started pauses as often,
    /// for the longer half of that time: you have 3 seconds to replace its program. After the last of these conflicts, the call
    /// fails like any other.
    #[must_use]
    pub fn decide(&self, outcome: &Outcome, before: AttemptCounts, draw: f64) -> Decision {
        let now = before.conflicts + 1;
        let again = Decision::of(State::Delayed, Ending::Conflict);
        let may_meet = now < i64::from(self.conflicts.get());
        match outcome {
            Outcome::Conflict(conflict) if may_meet => {
                let pause = conflict.pause.unwrap_or(after_conflict(now, draw)).min(LONGEST_PAUSE);
                Decision { pause: Some(pause), error: conflict.reported.clone(), ..again }
            }
            Outcome::Unstarted(failure) if may_meet => {
                let pause = after_conflict(now, f64::midpoint(1.0, draw));
                Decision { pause: Some(pause), error: Some(failure.clone()), ..again }
            }
            Outcome::Snoozed(snooze) => {
                let (pause, error) = (Some(snooze.pause), snooze.reported.clone());
                Decision { pause, error, ..Decision::of(State::Delayed, Ending::Snoozed) }
            }
            Outcome::Crashed(how) => after_crash(how, before.crashes),
            outcome => self.try_again(decide_once(outcome, now), before, draw),
        }
    }

    /// Lets a call that failed be tried again, if the policy has a retry left for it.
    fn try_again(&self, end: Decision, before: AttemptCounts, draw: f64) -> Decision {
        let Some(failure) = end.error.as_ref().filter(|_| end.state == State::Error) else { return end };
        // The first conflicts do not count as failures.
        let conflicts = (before.conflicts - i64::from(self.conflicts.get()) + 1).max(0);
        let number = u32::try_from(before.failures.max(0) + conflicts + 1).unwrap_or(u32::MAX);
        if number > self.retries || !self.retries_after(failure) {
            return end;
        }
        let retry = Some(Retry { number, of: self.retries });
        Decision { state: State::Delayed, pause: Some(self.backoff.pause(number, draw)), retry, ..end }
    }
}

/// How long a job pauses after its n-th conflict: this part of the longest pause.
fn after_conflict(n: i64, part: f64) -> Duration {
    let longest = i32::try_from(n).ok().and_then(|n| 2_i32.checked_pow(n.max(1).cast_unsigned()));
    Duration::from_secs_f64(longest.map_or(f64::MAX, f64::from).min(LONGEST_PAUSE.as_secs_f64()) * part.clamp(0.0, 1.0))
}

/// Decides after the processor or the worker has died; `how` says which of them.
fn after_crash(how: &str, crashes: i64) -> Decision {
    let now = crashes + 1;
    let (state, message) = match now {
        CRASHES.. => (State::Error, format!("{how} in {now} attempts")),
        _ => (State::Queued, how.to_owned()),
    };
    Decision { error: Some(Failure::new(FailureKind::Crash, message)), ..Decision::of(state, Ending::Crash) }
}

/// The decision when a function said that it had completed its job itself, but the store does not know that. What it did in that
/// transaction is undone.
#[must_use]
pub fn not_by_itself() -> Decision {
    let message = "it said that it completed its job in its own transaction, but that was not committed";
    Decision::error(Ending::Error, Failure::new(FailureKind::BadResult, message))
}

/// The decision for a call when a rule of the application refuses its outcome.
#[must_use]
pub fn refused(why: String) -> Decision {
    Decision::error(Ending::Error, Failure::new(FailureKind::Refused, why))
}

/// The decision that was recorded because a rule of the application refused the actual one. The job names the rule.
#[must_use]
pub fn refused_here(job: impl Display) -> Decision {
    refused(format!("a rule of the application refuses its outcome; `asyncq job show {job}` names it"))
}

/// Decides after a nested call, which is never tried again. `conflicts` includes this one.
#[must_use]
pub fn decide_once(outcome: &Outcome, conflicts: i64) -> Decision {
    match outcome {
        Outcome::Completed => Decision::of(State::Completed, Ending::Completed),
        Outcome::CompletedItself => Decision { by_itself: true, ..Decision::of(State::Completed, Ending::Completed) },
        Outcome::Conflict(conflict) => Decision::error(Ending::Conflict, conflict.failure(conflicts)),
        Outcome::Snoozed(snooze) => Decision::error(Ending::Conflict, snooze.as_conflict().failure(conflicts)),
        Outcome::Crashed(how) => Decision::error(Ending::Crash, Failure::new(FailureKind::Crash, how.as_str())),
        Outcome::Failed(failure) | Outcome::Unstarted(failure) => Decision::error(Ending::Error, failure.clone()),
        Outcome::Interrupted => Decision::of(State::Queued, Ending::Interrupted),
        Outcome::Cancelled => Decision::of(State::Cancelled, Ending::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::super::attempt::{Conflict, Snooze};
    use super::*;

    fn usual() -> RetryPolicy {
        RetryPolicy::default()
    }

    fn conflict(pause: Option<Duration>) -> Outcome {
        Outcome::Conflict(Conflict { pause, reported: None })
    }

    #[test]
    fn what_a_worker_says_of_a_conflict_is_kept_in_each_attempt() {
        let reported =
            Failure { class: Some("shop.Locked".to_owned()), ..Failure::new(FailureKind::Conflict, "locked") };
        let met = Outcome::Conflict(Conflict { pause: None, reported: Some(reported.clone()) });
        let after = |conflicts| usual().decide(&met, AttemptCounts { conflicts, ..AttemptCounts::default() }, 0.5);
        assert_eq!((after(0).state, after(1).error), (State::Delayed, Some(reported.clone())));
        let last = Failure { message: "a conflict in all 3 attempts: locked".to_owned(), ..reported.clone() };
        assert_eq!(after(2).error, Some(last));
        assert_eq!(decide_once(&met, 1).error, Some(reported));
    }

    #[test]
    fn a_conflict_is_tried_three_times_in_all() {
        let after = |conflicts| AttemptCounts { conflicts, ..AttemptCounts::default() };
        let pauses: Vec<_> = [(0, 0.0), (0, 1.0), (1, 0.5), (1, 1.0)]
            .map(|(conflicts, draw)| usual().decide(&conflict(None), after(conflicts), draw).pause.unwrap())
            .into();
        assert_eq!(pauses, [0, 2, 2, 4].map(Duration::from_secs));
        for (asked, given) in [(Duration::ZERO, Duration::ZERO), (Duration::from_secs(3600), LONGEST_PAUSE)] {
            assert_eq!(usual().decide(&conflict(Some(asked)), after(0), 0.5).pause, Some(given));
        }
        let last = usual().decide(&conflict(None), after(2), 0.5);
        assert_eq!((last.state, last.ending), (State::Error, Ending::Conflict));
        assert_eq!(last.error.unwrap().message, "temporary failure (exit code 75) in all 3 attempts");
    }

    #[test]
    fn a_call_that_cannot_be_started_is_tried_three_times_in_all() {
        let gone = Outcome::Unstarted(Failure::new(FailureKind::CannotRun, "its program is missing"));
        let after =
            |conflicts, draw| usual().decide(&gone, AttemptCounts { conflicts, ..AttemptCounts::default() }, draw);
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
            assert_eq!(usual().decide(&outcome, AttemptCounts::default(), 0.5).state, state);
            assert!(State::Processing.may_become(state));
        }
        assert_eq!(decide_once(&conflict(None), 1).state, State::Error);
    }

    #[test]
    fn a_crash_is_tried_three_times_in_all() {
        let after = |crashes| {
            usual().decide(
                &Outcome::Crashed("it died".to_owned()),
                AttemptCounts { crashes, conflicts: 9, failures: 9 },
                0.5,
            )
        };
        assert_eq!([0, 1, 2].map(|crashes| after(crashes).state), [State::Queued, State::Queued, State::Error]);
        assert_eq!(after(2).error.unwrap().message, "it died in 3 attempts");
    }

    #[test]
    fn a_failure_is_tried_again_as_often_as_the_policy_says() {
        let policy = RetryPolicy { retries: 2, ..usual() };
        let failed = Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1"));
        let after = |failures| policy.decide(&failed, AttemptCounts { failures, ..AttemptCounts::default() }, 1.0);
        for (failures, pause) in [(0, 15), (1, 30)] {
            let Decision { state, pause: given, retry, ending, error, .. } = after(failures);
            assert_eq!((state, given), (State::Delayed, Some(Duration::from_secs(pause))));
            assert_eq!(retry, Some(Retry { number: u32::try_from(failures).unwrap() + 1, of: 2 }));
            assert_eq!((ending, error.unwrap().message.as_str()), (Ending::Error, "exit code 1"));
        }
        assert_eq!((after(2).state, after(2).retry, after(2).pause), (State::Error, None, None));
        let (bad, counts) = (Failure::new(FailureKind::BadCall, "args: no array"), AttemptCounts::default());
        assert_eq!(policy.decide(&Outcome::Failed(bad), counts, 0.5).state, State::Error);
        for outcome in [Outcome::Completed, Outcome::Cancelled, Outcome::Interrupted] {
            assert_eq!(policy.decide(&outcome, counts, 0.5), usual().decide(&outcome, counts, 0.5));
        }
    }

    #[test]
    fn a_conflict_too_many_is_a_failure() {
        let once = std::num::NonZeroU32::MIN;
        let policy = RetryPolicy { retries: 2, conflicts: once.saturating_add(1), ..usual() };
        let after = |conflicts, failures| {
            policy.decide(&conflict(None), AttemptCounts { conflicts, failures, crashes: 0 }, 0.0)
        };
        assert_eq!((after(0, 0).state, after(0, 0).retry), (State::Delayed, None));
        assert_eq!(after(1, 0).retry, Some(Retry { number: 1, of: 2 }));
        assert_eq!((after(2, 0).retry, after(2, 0).ending), (Some(Retry { number: 2, of: 2 }), Ending::Conflict));
        assert_eq!([after(3, 0).state, after(1, 2).state, after(2, 1).state], [State::Error; 3]);
        assert_eq!(
            (RetryPolicy { conflicts: once, ..usual() }).decide(&conflict(None), AttemptCounts::default(), 0.5).state,
            State::Error
        );
        let patient = RetryPolicy { conflicts: std::num::NonZeroU32::MAX, ..usual() };
        let counts = AttemptCounts { conflicts: 4_000_000_000, ..AttemptCounts::default() };
        assert_eq!(patient.decide(&conflict(None), counts, 1.0).pause, Some(LONGEST_PAUSE));
    }

    #[test]
    fn a_call_that_cannot_be_started_is_retried_if_the_policy_lists_that() {
        let gone = Outcome::Unstarted(Failure::new(FailureKind::CannotRun, "its program is missing"));
        let on = super::super::retry_policy::FailureList::parse("cannot-run").unwrap();
        let policy = RetryPolicy { retries: 1, on: Some(on), ..usual() };
        let after = |conflicts, failures| policy.decide(&gone, AttemptCounts { conflicts, failures, crashes: 0 }, 0.5);
        assert_eq!((after(0, 0).ending, after(0, 0).retry), (Ending::Conflict, None));
        assert_eq!((after(2, 0).ending, after(2, 0).retry), (Ending::Error, Some(Retry { number: 1, of: 1 })));
        assert_eq!(after(2, 1).state, State::Error);
    }

    #[test]
    fn a_snooze_counts_as_nothing() {
        let snooze = Snooze { pause: Duration::from_secs(600), reported: None };
        let counts = AttemptCounts { failures: 9, conflicts: 9, crashes: 2 };
        let after = usual().decide(&Outcome::Snoozed(snooze.clone()), counts, 0.5);
        assert_eq!((after.state, after.ending, after.error), (State::Delayed, Ending::Snoozed, None));
        assert_eq!(after.pause, Some(Duration::from_secs(600)));
        let nested = decide_once(&Outcome::Snoozed(snooze), 1);
        assert_eq!((nested.state, nested.ending), (State::Error, Ending::Conflict));
        assert_eq!(nested.error.unwrap().kind, FailureKind::Conflict);
    }

    #[test]
    fn counts_of_older_builds_are_read() {
        let counts = serde_json::from_str::<AttemptCounts>(r#"{"conflicts":1,"crashes":2}"#).unwrap();
        assert_eq!(counts, AttemptCounts { failures: 0, conflicts: 1, crashes: 2 });
    }
}
