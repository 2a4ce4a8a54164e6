//! Snoozing: a function asks to run later, although nothing failed. Pure.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::attempt::{CONFLICT, Conflict, Failure, FailureKind, Outcome, Snooze};
use super::moment::moment;
use super::retry_policy::LONGEST_WAIT;
use super::text::escape_control;
use super::time::{Timestamp, parse_span, write_span};
use crate::error::Result;

/// The shortest pause. Otherwise, a function that always asks to run at once would run all the time.
const SHORTEST: Duration = Duration::from_millis(100);

/// How many bytes are read of a text that says when to run.
pub const LONGEST_TEXT: usize = 1024;

/// How many characters of it are shown at most.
const SHOWN: usize = 60;

impl Snooze {
    /// A function that asks to run `pause` later. The pause is at least a tenth of a second.
    ///
    /// # Errors
    /// What is wrong if it is more than 366 days.
    pub fn new(pause: Duration, reported: Option<Failure>) -> std::result::Result<Snooze, String> {
        if pause > LONGEST_WAIT {
            return Err("it asks to run more than 366 days later".to_owned());
        }
        Ok(Snooze { pause: pause.max(SHORTEST), reported })
    }

    /// The same for a call inside another one, which cannot run later.
    #[must_use]
    pub fn as_conflict(&self) -> Conflict {
        let message = || format!("it asks to run {} later (exit code {CONFLICT})", write_span(self.pause));
        let message = self.reported.as_ref().map_or_else(message, |reported| reported.message.clone());
        Conflict::because(message, self.reported.as_ref())
    }
}

/// The outcome of a function that asks for a pause with this text: a span, or a time as [`moment`] reads it. What is neither
/// is a conflict that says so.
pub fn asks_for(text: &str, now: Timestamp, here: impl FnOnce() -> Result<TimeZone>) -> Outcome {
    let text = text.trim();
    let pause = parse_span(text).or_else(|_| moment(text, now, here).map(|moment| moment.since(now)));
    let snooze = pause.map_err(|error| {
        let mut shown: String = escape_control(text).chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown += "...";
        }
        let message = error.to_string();
        if message.ends_with("` is not a time") {
            format!("`{shown}` is neither a span, as in `10m`, nor a time")
        } else {
            message
        }
    });
    match snooze.and_then(|pause| Snooze::new(pause, None)) {
        Ok(snooze) => Outcome::Snoozed(snooze),
        Err(why) => unusable(&why),
    }
}

/// The outcome of a function that asks for a pause in an impossible way.
#[must_use]
pub fn unusable(why: &str) -> Outcome {
    Outcome::Conflict(Conflict::because(format!("exit code {CONFLICT} with a bad `$ASYNCQ_LATER`: {why}"), None))
}

impl Conflict {
    /// A conflict with this message, and what else was reported.
    pub(super) fn because(message: String, reported: Option<&Failure>) -> Conflict {
        let failure = Failure { exit_code: Some(CONFLICT), ..Failure::new(FailureKind::Conflict, message) };
        let (class, traceback) =
            reported.map(|reported| (reported.class.clone(), reported.traceback.clone())).unwrap_or_default();
        Conflict { pause: None, reported: Some(Failure { class, traceback, ..failure }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(text: &str) -> Outcome {
        // Monday, 30 November 2026, 9:00 in UTC.
        asks_for(text, Timestamp(1_796_029_200_000), || Ok(TimeZone::UTC))
    }

    fn why(text: &str) -> String {
        match asks(text) {
            Outcome::Conflict(Conflict { pause: None, reported: Some(failure) }) => {
                assert_eq!((failure.kind, failure.exit_code), (FailureKind::Conflict, Some(75)));
                failure.message
            }
            outcome => panic!("{text}: {outcome:?}"),
        }
    }

    #[test]
    fn a_span_or_a_time_is_a_pause() {
        for (text, millis) in [
            ("10m\n", 600_000),
            (" 90s ", 90_000),
            ("09:30", 1_800_000),
            ("tomorrow 9:00", 86_400_000),
            ("2026-11-30T10:00+01:00", 100),
            ("@1796029260", 60_000),
            ("now", 100),
            ("1ms", 100),
            ("2020-01-01", 100),
            ("366d", 366 * 86_400_000),
        ] {
            let snooze = Snooze { pause: Duration::from_millis(millis), reported: None };
            assert_eq!(asks(text), Outcome::Snoozed(snooze), "{text}");
        }
    }

    #[test]
    fn anything_else_is_a_conflict_that_says_why() {
        let bad = "exit code 75 with a bad `$ASYNCQ_LATER`: ";
        for (text, reason) in [
            ("nonsense", "`nonsense` is neither a span, as in `10m`, nor a time"),
            ("90", "`90` is neither a span, as in `10m`, nor a time"),
            ("-5s", "`-5s` is neither a span, as in `10m`, nor a time"),
            ("\u{1b}[31m", r"`\u{1b}[31m` is neither a span, as in `10m`, nor a time"),
            ("367d", "it asks to run more than 366 days later"),
            ("2028-01-01", "it asks to run more than 366 days later"),
            ("2026-12-01T09:00[Europe/Berln]", "there is no time zone `Europe/Berln`"),
        ] {
            assert_eq!(why(text), format!("{bad}{reason}"));
        }
        assert_eq!(
            why(&"x".repeat(1000)),
            format!("{bad}`{}...` is neither a span, as in `10m`, nor a time", "x".repeat(60))
        );
    }

    #[test]
    fn inside_another_call_it_is_a_conflict() {
        let snooze = Snooze { pause: Duration::from_secs(600), reported: None };
        assert_eq!(snooze.as_conflict().failure(1).message, "it asks to run 10m later (exit code 75)");
        let class = Some("shop.Busy".to_owned());
        let reported = Failure { class, ..Failure::new(FailureKind::Snooze, "HTTP 429") };
        let failure = Snooze { reported: Some(reported), ..snooze }.as_conflict().failure(1);
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Conflict, "HTTP 429"));
        assert_eq!(failure.class.as_deref(), Some("shop.Busy"));
    }
}
