//! An attempt: one run of a job, and how it ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{text::has_names, time::Timestamp};

/// One attempt of a job, to show. Its JSON is what programs read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Its number, from 1.
    #[serde(rename = "attempt")]
    pub number: i64,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<Timestamp>,
    /// How it ended; `None` while it runs.
    pub ending: Option<Ending>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How many bytes of its output are kept.
    pub log_bytes: i64,
    /// How many bytes of its output were dropped.
    pub log_dropped: i64,
    /// How many of the calls inside it were not recorded.
    #[serde(skip_serializing_if = "is_zero")]
    pub unrecorded: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// Why an attempt, or a whole job, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure, for programs.
    pub kind: FailureKind,
    /// One sentence for a person.
    pub message: String,
    /// The exit code, when the function exited.
    pub exit_code: Option<i32>,
    /// The number of the signal, when one ended the function.
    pub signal: Option<i32>,
    /// The class of the exception, if its worker names it, such as `package.module.Class`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The traceback of the exception, or the end of a long one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

impl Failure {
    /// A failure without exit code and signal.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), exit_code: None, signal: None, class: None, traceback: None }
    }
}

/// The kinds of failure, as in `error.kind` of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The function exited with a code other than 0 and 75.
    Exit,
    /// The function ran in a worker, which reported that it failed.
    Error,
    /// A signal ended the function.
    Signal,
    /// The function took longer than its time limit.
    Timeout,
    /// A conflict (exit code 75) in every attempt.
    Conflict,
    /// The function asked to run later. Only an attempt ends like this, and no job.
    Snooze,
    /// The function could not be started: its program or its site is missing, or it exited with 126 or 127.
    CannotRun,
    /// The stored call is not valid, which only an INSERT of a client can cause.
    BadCall,
    /// The function succeeded, but its result is refused.
    BadResult,
    /// The processor or the worker died too often while it ran the function.
    Crash,
    /// The call that made this nested call ended before it.
    Parent,
    /// A rule of the application, such as a unique index, refuses the new state of the job.
    Refused,
    /// A job that the call needs has not completed.
    Needs,
    /// The call was to run after the failure of a job, and that job has completed.
    NotNeeded,
    /// No attempt began before the call expired.
    Expired,
    /// Somebody cancelled the job.
    Cancelled,
    /// Its service or its function was removed.
    Removed,
}

has_names! { FailureKind {
    Exit: "exit",
    Error: "error",
    Signal: "signal",
    Timeout: "timeout",
    Conflict: "conflict",
    Snooze: "snooze",
    CannotRun: "cannot-run",
    BadCall: "bad-call",
    BadResult: "bad-result",
    Crash: "crash",
    Parent: "parent",
    Refused: "refused",
    Needs: "needs",
    NotNeeded: "not-needed",
    Expired: "expired",
    Cancelled: "cancelled",
    Removed: "removed",
} }

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The function succeeded.
    Completed,
    /// The function reports that it completed its job in its own transaction, so the processor must not.
    CompletedItself,
    /// The function asked to be tried again.
    Conflict(Conflict),
    /// The function asked to run later, and nothing failed.
    Snoozed(Snooze),
    /// The function failed for good.
    Failed(Failure),
    /// The program could not be started, so nothing of the call was executed. It is tried again, because a program may be missing
    /// for a moment while somebody replaces it.
    Unstarted(Failure),
    /// Its worker died, perhaps because of the function. The text says how it died.
    Crashed(String),
    /// The processor was asked to stop and ended the function. The job is put back, and the attempt is not counted.
    Interrupted,
    /// The job was cancelled while it ran.
    Cancelled,
}

impl Outcome {
    /// What its function says about its failure, if anything.
    pub fn failure_mut(&mut self) -> Option<&mut Failure> {
        match self {
            Outcome::Failed(failure) | Outcome::Unstarted(failure) => Some(failure),
            Outcome::Conflict(conflict) => conflict.reported.as_mut(),
            Outcome::Snoozed(snooze) => snooze.reported.as_mut(),
            _ => None,
        }
    }
}

/// The exit code by which a function asks to be tried again (`EX_TEMPFAIL` of sysexits.h).
pub(super) const CONFLICT: i32 = 75;

/// A function that asked to be tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NotedConflict")]
pub struct Conflict {
    /// How long it wants to wait, if it says so.
    pub pause: Option<Duration>,
    /// What its worker reports; `None` for a program that exited with code 75.
    pub reported: Option<Failure>,
}

/// A function that asks to run later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snooze {
    /// How much later.
    pub pause: Duration,
    /// What its worker reports about that, if anything.
    pub reported: Option<Failure>,
}

/// A conflict as it is read. Older builds noted only its pause.
#[derive(Deserialize)]
#[serde(untagged)]
enum NotedConflict {
    Pause(Option<Duration>),
    Whole { pause: Option<Duration>, reported: Option<Failure> },
}

impl From<NotedConflict> for Conflict {
    fn from(noted: NotedConflict) -> Conflict {
        match noted {
            NotedConflict::Pause(pause) => Conflict { pause, reported: None },
            NotedConflict::Whole { pause, reported } => Conflict { pause, reported },
        }
    }
}

impl Conflict {
    /// Why a call failed whose attempts have all ended in a conflict. This is the last one, with this number.
    #[must_use]
    pub fn failure(&self, number: i64) -> Failure {
        let Some(reported) = &self.reported else {
            let mut message = format!("temporary failure (exit code {CONFLICT})");
            if number > 1 {
                message += &format!(" in all {number} attempts");
            }
            return Failure { exit_code: Some(CONFLICT), ..Failure::new(FailureKind::Conflict, message) };
        };
        let mut failure = reported.clone();
        if number > 1 {
            failure.message = format!("a conflict in all {number} attempts: {}", reported.message);
        }
        failure
    }
}

/// How an attempt ended, as the store records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The function succeeded.
    Completed,
    /// The function asked to be tried again.
    Conflict,
    /// The function failed.
    Error,
    /// The processor was asked to stop.
    Interrupted,
    /// The job was cancelled.
    Cancelled,
    /// The processor or the worker died.
    Crash,
    /// The function asked to be run later; nothing failed.
    Snoozed,
}

has_names! { Ending {
    Completed: "completed",
    Conflict: "conflict",
    Error: "error",
    Interrupted: "interrupted",
    Cancelled: "cancelled",
    Crash: "crash",
    Snoozed: "snoozed",
} }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for ending in Ending::ALL {
            assert_eq!(Ending::from_name(ending.as_str()), Some(ending));
        }
        assert_eq!(Ending::from_name("finished"), None);
    }

    #[test]
    fn a_failure_reads_as_documented() {
        let failure = Failure { exit_code: Some(3), ..Failure::new(FailureKind::CannotRun, "no") };
        let json = r#"{"kind":"cannot-run","message":"no","exit_code":3,"signal":null}"#;
        assert_eq!(serde_json::to_string(&failure).unwrap(), json);
        assert_eq!(serde_json::from_str::<Failure>(json).unwrap(), failure);
        let (class, traceback) = (Some("shop.Late".to_owned()), Some("in mail\n".to_owned()));
        let failure = Failure { class, traceback, ..Failure::new(FailureKind::Error, "no") };
        let json = r#"{"kind":"error","message":"no","exit_code":null,"signal":null,"type":"shop.Late","traceback":"in mail\n"}"#;
        assert_eq!(serde_json::to_string(&failure).unwrap(), json);
        assert_eq!(serde_json::from_str::<Failure>(json).unwrap(), failure);
    }

    #[test]
    fn a_noted_conflict_is_read_back_and_so_is_one_of_an_older_build() {
        let pause = Some(Duration::from_millis(1500));
        for (reported, older) in [
            (None, Some(r#"{"Conflict":{"secs":1,"nanos":500000000}}"#)),
            (Some(Failure::new(FailureKind::Conflict, "locked")), None),
        ] {
            let outcome = Outcome::Conflict(Conflict { pause, reported });
            let json = serde_json::to_string(&outcome).unwrap();
            for json in [&*json].into_iter().chain(older) {
                assert_eq!(serde_json::from_str::<Outcome>(json).unwrap(), outcome, "{json}");
            }
        }
        let without = serde_json::from_str::<Outcome>(r#"{"Conflict":null}"#).unwrap();
        assert_eq!(without, Outcome::Conflict(Conflict::default()));
    }
}
