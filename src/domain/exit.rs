//! What the end of a function means for its call. The rule is the same for a command, which exits, and for a function of a worker,
//! which reports an error with a code.

use std::time::Duration;

use serde::Deserialize;

use super::attempt::{CONFLICT, Conflict, Failure, FailureKind, Outcome, Snooze};

/// The exit code of a shell for a command that it cannot execute.
const NOT_EXECUTABLE: i32 = 126;

/// The exit code of a shell for a command that it does not find.
const NOT_FOUND: i32 = 127;

/// Shells add the number of a signal to this when a signal ended their command.
const SIGNALLED: i32 = 128;

/// How many characters are kept of the message of an error that a worker reports.
const LONGEST_MESSAGE: usize = 2000;

/// How many bytes are kept of the name of a class.
const LONGEST_CLASS: usize = 255;

/// How many bytes are kept of a traceback. Its end says most, so that is kept.
const LONGEST_TRACEBACK: usize = 64 * 1024;

/// How a function ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its program exited with this code.
    Code(i32),
    /// A signal ended its program: its number, and its name for people.
    Signal(i32, String),
    /// Its worker reported an error.
    Reported(ReportedError),
    /// The system does not say how; the message is for people.
    Unknown(String),
}

/// An error that a worker reports of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportedError {
    /// Its code. Without a kind, it means the same as the exit code of a program.
    pub code: i64,
    /// What kind of end it is. This takes precedence over the code.
    pub kind: Option<ErrorKind>,
    /// For a conflict or a snooze: how long to wait before the next attempt.
    pub pause: Option<Duration>,
    /// Its message.
    pub message: String,
    /// The class of the exception.
    pub class: Option<String>,
    /// The traceback of the exception.
    pub traceback: Option<String>,
}

/// How a function that did not succeed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// It failed for good.
    Error,
    /// It asks to be tried again.
    Conflict,
    /// It asks to run later, and nothing failed.
    Snooze,
    /// It could not be run.
    CannotRun,
}

impl ErrorKind {
    fn of(code: i64) -> ErrorKind {
        match i32::try_from(code) {
            Ok(CONFLICT) => ErrorKind::Conflict,
            Ok(NOT_EXECUTABLE | NOT_FOUND) => ErrorKind::CannotRun,
            _ => ErrorKind::Error,
        }
    }
}

impl Exit {
    /// What it means for the call.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Exit::Code(0) => Outcome::Completed,
            Exit::Code(code) => match (ErrorKind::of(code.into()), code) {
                (ErrorKind::Conflict, _) => Outcome::Conflict(Conflict::default()),
                (ErrorKind::CannotRun, NOT_EXECUTABLE) => {
                    Outcome::Failed(Failure::not_executable(format!("exit code {code}: not executable")))
                }
                (ErrorKind::CannotRun, _) => {
                    Outcome::Failed(Failure::not_found(format!("exit code {code}: a command was not found")))
                }
                // No code alone asks to run later.
                (ErrorKind::Error | ErrorKind::Snooze, _) => {
                    let failure = Failure::new(FailureKind::Exit, format!("exit code {code}"));
                    Outcome::Failed(Failure { exit_code: Some(code), ..failure })
                }
            },
            Exit::Signal(number, name) => {
                let failure = Failure::new(FailureKind::Signal, format!("ended by {name}"));
                Outcome::Failed(Failure { signal: Some(number), ..failure })
            }
            Exit::Reported(error) => error.outcome(),
            Exit::Unknown(why) => Outcome::Failed(Failure::new(FailureKind::Exit, why)),
        }
    }
}

impl ReportedError {
    /// What it means for the call.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        let says_nothing = self.message.trim().is_empty();
        let message = match self.message.trim() {
            "" => "it failed, and did not say why".to_owned(),
            text => text.chars().take(LONGEST_MESSAGE).collect(),
        };
        let kind = self.kind.unwrap_or_else(|| ErrorKind::of(self.code));
        let failure = match kind {
            ErrorKind::Conflict => {
                Failure { exit_code: Some(CONFLICT), ..Failure::new(FailureKind::Conflict, message) }
            }
            ErrorKind::Snooze => Failure::new(FailureKind::Snooze, message),
            ErrorKind::CannotRun if self.code == i64::from(NOT_EXECUTABLE) => Failure::not_executable(message),
            ErrorKind::CannotRun => Failure::not_found(message),
            ErrorKind::Error => Failure::new(FailureKind::Error, message),
        };
        let class = self.class.map(|mut class| {
            let end = (0..=LONGEST_CLASS.min(class.len())).rev().find(|at| class.is_char_boundary(*at));
            class.truncate(end.unwrap_or_default());
            class
        });
        let traceback = self.traceback.map(|text| {
            let from = text.len().saturating_sub(LONGEST_TRACEBACK);
            let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text[from..].to_owned()
        });
        let failure = Failure { class, traceback, ..failure };
        let is_known = !says_nothing || failure.class.is_some() || failure.traceback.is_some();
        match kind {
            ErrorKind::Snooze => {
                let snooze = match self.pause {
                    Some(pause) => Snooze::new(pause, is_known.then(|| failure.clone())),
                    None => Err("it asks to run later, and does not say when".to_owned()),
                };
                match snooze {
                    Ok(snooze) => Outcome::Snoozed(snooze),
                    Err(why) => {
                        let message = if says_nothing { why } else { format!("{why}: {}", failure.message) };
                        Outcome::Conflict(Conflict::because(message, Some(&failure)))
                    }
                }
            }
            ErrorKind::Conflict => {
                Outcome::Conflict(Conflict { pause: self.pause, reported: is_known.then_some(failure) })
            }
            ErrorKind::CannotRun | ErrorKind::Error => Outcome::Failed(failure),
        }
    }
}

impl Failure {
    /// A function whose program, worker or site cannot be used, for which a shell would exit with 126.
    pub fn not_executable(message: impl Into<String>) -> Failure {
        Failure { exit_code: Some(NOT_EXECUTABLE), ..Failure::new(FailureKind::CannotRun, message) }
    }

    /// A function whose program or site is not there, for which a shell would exit with 127.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure { exit_code: Some(NOT_FOUND), ..Failure::new(FailureKind::CannotRun, message) }
    }
}

impl Outcome {
    /// Whether surely the function alone caused this. A crash of the machine or a kill of the whole group may end functions a
    /// moment before their processor, and such an end must count as a crash.
    #[must_use]
    pub fn is_own_doing(&self) -> bool {
        match self {
            Outcome::Completed
            | Outcome::CompletedItself
            | Outcome::Conflict(_)
            | Outcome::Snoozed(_)
            | Outcome::Unstarted(_) => true,
            Outcome::Failed(failure) => match failure.kind {
                // What its worker says, or its result.
                FailureKind::Error | FailureKind::BadResult => true,
                _ => failure.exit_code.is_some_and(|code| code < SIGNALLED),
            },
            Outcome::Crashed(_) | Outcome::Interrupted | Outcome::Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(exit: Exit) -> Failure {
        match exit.outcome() {
            Outcome::Failed(failure) => failure,
            outcome => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn an_exit_code_says_what_follows() {
        assert_eq!(Exit::Code(0).outcome(), Outcome::Completed);
        assert_eq!(Exit::Code(75).outcome(), Outcome::Conflict(Conflict::default()));
        for (code, kind) in [
            (1, FailureKind::Exit),
            (74, FailureKind::Exit),
            (126, FailureKind::CannotRun),
            (127, FailureKind::CannotRun),
            (128, FailureKind::Exit),
            (255, FailureKind::Exit),
        ] {
            let failure = failed(Exit::Code(code));
            assert_eq!((failure.kind, failure.exit_code, failure.signal), (kind, Some(code), None));
        }
        let failure = failed(Exit::Signal(9, "signal 9 (SIGKILL)".to_owned()));
        assert_eq!((failure.kind, failure.exit_code, failure.signal), (FailureKind::Signal, None, Some(9)));
        assert_eq!(failure.message, "ended by signal 9 (SIGKILL)");
    }

    #[test]
    fn the_kind_that_a_worker_reports_is_above_the_code() {
        let reported = |code, kind| {
            let pause = Some(Duration::from_secs(2));
            Exit::Reported(ReportedError { code, kind, pause, message: " no\n".to_owned(), ..ReportedError::default() })
        };
        let failure = Failure { exit_code: Some(75), ..Failure::new(FailureKind::Conflict, "no") };
        let conflict = Conflict { pause: Some(Duration::from_secs(2)), reported: Some(failure) };
        assert_eq!(reported(75, None).outcome(), Outcome::Conflict(conflict.clone()));
        assert_eq!(reported(1, Some(ErrorKind::Conflict)).outcome(), Outcome::Conflict(conflict));
        let silent = ReportedError { code: 75, message: " ".to_owned(), ..ReportedError::default() };
        assert_eq!(silent.outcome(), Outcome::Conflict(Conflict::default()));
        let of = |code, kind| {
            let failure = failed(reported(code, kind));
            assert_eq!(failure.message, "no");
            (failure.kind, failure.exit_code)
        };
        assert_eq!(of(-32602, None), (FailureKind::Error, None));
        assert_eq!(of(i64::MAX, None), (FailureKind::Error, None));
        assert_eq!(of(126, None), (FailureKind::CannotRun, Some(126)));
        assert_eq!(of(127, None), (FailureKind::CannotRun, Some(127)));
        assert_eq!(of(75, Some(ErrorKind::Error)), (FailureKind::Error, None));
        assert_eq!(of(1, Some(ErrorKind::CannotRun)), (FailureKind::CannotRun, Some(127)));
    }

    #[test]
    fn a_worker_may_ask_to_run_later() {
        let asks = |pause, message: &str| {
            let kind = Some(ErrorKind::Snooze);
            Exit::Reported(ReportedError {
                code: 75,
                kind,
                pause,
                message: message.to_owned(),
                ..ReportedError::default()
            })
            .outcome()
        };
        let snooze = |pause, reported| Outcome::Snoozed(Snooze { pause, reported });
        let (long, short) = (Duration::from_secs(600), Duration::from_millis(100));
        let reported = Some(Failure::new(FailureKind::Snooze, "HTTP 429"));
        assert_eq!(asks(Some(long), "HTTP 429"), snooze(long, reported));
        assert_eq!(asks(Some(Duration::ZERO), ""), snooze(short, None));
        let conflict = |pause, message: &str| match asks(pause, message) {
            Outcome::Conflict(conflict) => conflict.failure(1).message,
            outcome => panic!("{outcome:?}"),
        };
        assert_eq!(conflict(None, ""), "it asks to run later, and does not say when");
        let long = "it asks to run more than 366 days later: HTTP 429";
        assert_eq!(conflict(Some(Duration::from_secs(367 * 86_400)), "HTTP 429"), long);
    }

    #[test]
    fn of_a_long_class_the_beginning_is_kept_and_of_a_long_traceback_the_end() {
        let long = |text: &str| Some(text.repeat(LONGEST_TRACEBACK) + ".");
        let error =
            ReportedError { code: 1, class: long("\u{e4}"), traceback: long("\u{1f600}"), ..ReportedError::default() };
        let failure = failed(Exit::Reported(error));
        assert_eq!(failure.class.unwrap(), "\u{e4}".repeat(127));
        assert_eq!(failure.traceback.unwrap(), "\u{1f600}".repeat(LONGEST_TRACEBACK / 4 - 1) + ".");
    }

    #[test]
    fn a_kill_is_not_surely_the_functions_own_doing() {
        let reported = Exit::Reported(ReportedError { code: 1, ..ReportedError::default() }).outcome();
        assert!([Exit::Code(75).outcome(), Exit::Code(127).outcome(), reported].iter().all(Outcome::is_own_doing));
        let killed = Exit::Signal(9, "signal 9".to_owned()).outcome();
        assert!(![Exit::Code(137).outcome(), killed, Outcome::Interrupted].iter().any(Outcome::is_own_doing));
    }
}
