//! Moments and spans, as numbers and as text. Nothing here reads a clock.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// What [`parse_span`] says about a text that is not a span at all.
pub(super) const NO_SPAN: &str = "it is not a span";

const NEGATIVE: &str = "a span cannot be negative";

/// A moment in milliseconds since 1970-01-01 UTC, the unit of every time in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Parses RFC 3339, with an offset from UTC, as in `2026-11-23T22:29:00Z`; `None` for everything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Timestamp> {
        text.parse::<jiff::Timestamp>().ok().map(|moment| Timestamp(moment.as_millisecond()))
    }

    /// This moment as a part of a file name, in whole seconds of UTC: `20261130T023000Z`.
    #[must_use]
    pub fn in_name(self) -> String {
        let moment = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        moment.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// This moment moved by `span` into the future.
    #[must_use]
    pub fn after(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(span)))
    }

    /// This moment moved by `span` into the past.
    #[must_use]
    pub fn before(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(span)))
    }

    /// The time from `earlier` until this moment; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with milliseconds, as in `2026-11-23T22:29:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            // This is a year after 9999, which only a client can have stored.
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A span in whole milliseconds.
#[must_use]
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The longest span: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Parses a span such as `500ms`, `90s`, `10m`, `1h30m` or `2d` (a day is 24 hours here).
///
/// # Errors
/// [`Kind::Usage`] when `text` is not such a span, or is zero, or is longer than a hundred years; in words that can follow
/// "`TEXT`: ".
pub fn parse_span(text: &str) -> Result<Duration> {
    match parse_span_or_zero(text)? {
        Duration::ZERO => Err(too_short()),
        span => Ok(span),
    }
}

fn too_short() -> Error {
    Error::new(Kind::Usage, "a span must be at least one millisecond").with_hint("the shortest span is `1ms`")
}

/// Parses a span, or no time at all: `0`, which needs no unit.
///
/// # Errors
/// As [`parse_span`], but for zero.
pub fn parse_span_or_zero(text: &str) -> Result<Duration> {
    let refuse = |message: &str, hint: &str| Err(Error::new(Kind::Usage, message).with_hint(hint));
    let example = "a span is a number with its unit, as in `90s`, `10m` or `1h30m`";
    let too_long = "the longest span is a hundred years, `36600d`";
    let text = text.trim();
    match text.parse::<f64>() {
        _ if text == "0" => return Ok(Duration::ZERO),
        Ok(number) if number.is_finite() && number < 0.0 => return refuse(NEGATIVE, example),
        Ok(number) if number.is_finite() => return refuse("the unit is missing", example),
        _ => {}
    }
    let span: jiff::Span = match text.parse::<jiff::Span>() {
        Ok(span) => span,
        Err(error) if error.is_range() => return refuse("it is too long", too_long),
        Err(_) => return refuse(NO_SPAN, example),
    };
    if span.is_negative() {
        return refuse(NEGATIVE, example);
    }
    let Ok(exact) = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()) else {
        return refuse("months and years have no fixed length", "write days, as in `30d`");
    };
    match exact.unsigned_abs() {
        exact if !exact.is_zero() && exact < Duration::from_millis(1) => Err(too_short()),
        exact if exact > LONGEST => refuse("it is too long", too_long),
        exact => Ok(exact),
    }
}

/// A span for a person, rounded down to its largest unit: `350ms`, `12s`, `3m`, `5h`, `2d`.
#[must_use]
pub fn show_span(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{}ms", span.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A span in the form that [`parse_span`] reads: `1h30m`, `1s500ms`.
#[must_use]
pub fn write_span(span: Duration) -> String {
    let mut left = span.as_millis();
    let mut out = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if left >= length {
            out += &format!("{}{unit}", left / length);
            left %= length;
        }
    }
    if out.is_empty() { "0ms".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, millis) in
            [("500ms", 500), ("90s", 90_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("1w", 604_800_000)]
        {
            let span = parse_span(text).unwrap();
            assert_eq!(span.as_millis(), millis);
            assert_eq!(parse_span(&write_span(span)).unwrap(), span);
        }
        assert_eq!(show_span(Duration::from_secs(7300)), "2h");
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        let example = "a span is a number with its unit, as in `90s`, `10m` or `1h30m`";
        let none = "the shortest span is `1ms`";
        let (days, longest) = ("write days, as in `30d`", "the longest span is a hundred years, `36600d`");
        for (text, message, hint) in [
            ("0", "a span must be at least one millisecond", none),
            ("90", "the unit is missing", example),
            ("-90", "a span cannot be negative", example),
            ("", "it is not a span", example),
            ("5 parsecs", "it is not a span", example),
            ("inf", "it is not a span", example),
            ("09:00", "it is not a span", example),
            ("-5s", "a span cannot be negative", example),
            ("5s ago", "a span cannot be negative", example),
            ("-1mo", "a span cannot be negative", example),
            ("0s", "a span must be at least one millisecond", none),
            ("999us", "a span must be at least one millisecond", none),
            ("1mo", "months and years have no fixed length", days),
            ("1000y", "months and years have no fixed length", days),
            ("36601d", "it is too long", longest),
            ("365250d", "it is too long", longest),
            ("9999999d", "it is too long", longest),
        ] {
            let error = parse_span(text).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)), "{text}");
        }
        assert_eq!(parse_span("36600d").unwrap(), LONGEST);
        for zero in ["0", "0s", " 0h0m ", "-0s"] {
            assert_eq!(parse_span_or_zero(zero).unwrap(), Duration::ZERO, "{zero}");
        }
        for text in ["999us", "-5s", "1"] {
            assert!(parse_span_or_zero(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_795_474_163_341).to_string(), "2026-11-23T22:49:23.341Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), "@9223372036854775807");
        for text in ["2026-11-23T22:49:23.341Z", "2026-11-23T23:49:23.341+01:00", "2026-11-23t17:19:23.341-05:30"] {
            assert_eq!(Timestamp::parse(text), Some(Timestamp(1_795_474_163_341)), "{text}");
        }
        for text in ["", "2026-11-23", "2026-11-23T22:49:23", "tomorrow", "1795474163341", "2026-13-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
