//! How often calls of a service may start.
//!
//! The rule is GCRA: one moment tells how much of the rate is used. Each start moves it by the gap between two starts, and it must
//! not pass now. It is never further back than a burst of gaps, so a pause saves up no more than that.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::escape_control;
use super::time::{NO_SPAN, Timestamp, millis, parse_span, write_span};
use crate::error::{Error, Kind, Result};

/// The most calls that a rate may name, and that may start in a second.
const MOST: u32 = 1_000_000;

/// How often calls may start: in any span of time, at most the `calls` of that span and the `burst`, less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    calls: u32,
    /// In milliseconds.
    span: u64,
    burst: u32,
}

impl Rate {
    /// The largest burst.
    pub const LARGEST_BURST: u32 = 1_000_000;

    /// Parses a number of calls and a span, as in `10/s`, `100/h` or `5/10m`. If a rate is fast, the calls of a tenth of a second
    /// may start together.
    ///
    /// # Errors
    /// [`Kind::Usage`], with what is wrong as a part of a sentence.
    pub fn parse(text: &str) -> Result<Rate> {
        let refuse = |message: String| {
            let hint = "write a number of calls and a span, as in `10/s`, `100/h` or `5/10m`; `none` sets no rate";
            Err(Error::new(Kind::Usage, message).with_hint(hint))
        };
        let Some((calls, span)) = text.split_once('/') else { return refuse("the span is missing".to_owned()) };
        if calls.is_empty() {
            return refuse("the number of calls is missing".to_owned());
        }
        let Ok(calls @ 1..=MOST) = calls.parse() else {
            let calls = escape_control(calls);
            return refuse(format!("`{calls}` is not a number of calls from 1 to {MOST}"));
        };
        let one = if span.starts_with(|first: char| first.is_ascii_alphabetic()) { "1" } else { "" };
        let span = match parse_span(&format!("{one}{span}")) {
            Ok(span) => span,
            Err(error) => {
                let why = error.to_string();
                let why = if why == NO_SPAN { String::new() } else { format!(": {why}") };
                return refuse(format!("`{}` is not a span{why}", escape_control(span)));
            }
        };
        let tenth = u128::from(calls) * 100 / span.as_millis().max(1);
        let burst = u32::try_from(tenth).unwrap_or(u32::MAX).max(1);
        let rate = Rate { calls, span: millis(span).unsigned_abs(), burst };
        if u128::from(calls) * 1000 > u128::from(MOST) * span.as_millis() {
            return refuse(format!("it is faster than {MOST} calls a second"));
        }
        Ok(rate)
    }

    /// The same rate with another burst: how many calls may start together after a pause.
    #[must_use]
    pub fn with_burst(self, burst: u32) -> Rate {
        Rate { burst, ..self }
    }

    /// How many calls may start together after a pause.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The rate as the store keeps it.
    #[must_use]
    pub fn to_json(self) -> String {
        serde_json::to_string(&self).expect("three numbers are JSON")
    }

    /// A rate from the store, if it is one that [`Rate::parse`] can give.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Rate> {
        let rate: Rate = serde_json::from_str(text).ok()?;
        (rate.calls > 0 && rate.span > 0 && rate.burst > 0).then_some(rate)
    }

    /// The time between two starts, in microseconds. It is rounded up, so that no more calls start than the rate says.
    fn gap(self) -> i64 {
        let gap = (u128::from(self.span) * 1000).div_ceil(u128::from(self.calls.max(1)));
        i64::try_from(gap).unwrap_or(i64::MAX).max(1)
    }

    /// How many calls may start `now`, if the rate is used up to the moment `used`, in microseconds.
    #[must_use]
    pub fn allowance(self, now: Timestamp, used: i64) -> Allowance {
        let (now, gap) = (now.0.saturating_mul(1000), self.gap());
        let least = now.saturating_sub(gap.saturating_mul(i64::from(self.burst)));
        Allowance { now, gap, used: used.clamp(least, now), is_ahead: used > now }
    }
}

/// `10/s`, `5/10m`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = write_span(Duration::from_millis(self.span));
        let rest = span.strip_prefix('1').filter(|rest| rest.bytes().all(|byte| byte.is_ascii_alphabetic()));
        write!(f, "{}/{}", self.calls, rest.unwrap_or(&span))
    }
}

/// What a rate lets start at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    now: i64,
    gap: i64,
    used: i64,
    is_ahead: bool,
}

impl Allowance {
    /// How many calls may start.
    #[must_use]
    pub fn starts(self) -> usize {
        usize::try_from((self.now - self.used) / self.gap).unwrap_or(0)
    }

    /// The allowance that is left after this many starts.
    #[must_use]
    pub fn after(self, starts: usize) -> Allowance {
        let starts = i64::try_from(starts).unwrap_or(i64::MAX);
        Allowance { used: self.used.saturating_add(self.gap.saturating_mul(starts)), is_ahead: false, ..self }
    }

    /// The moment up to which the rate is used, in microseconds.
    #[must_use]
    pub fn used(self) -> i64 {
        self.used
    }

    /// Whether the store has a later moment than now. Then the clock was set back, and the rate has to start over.
    #[must_use]
    pub fn is_ahead(self) -> bool {
        self.is_ahead
    }

    /// When the next call may start, if none may now.
    #[must_use]
    pub fn next(self) -> Option<Timestamp> {
        let next = self.used.saturating_add(self.gap);
        (self.starts() == 0 && !self.is_ahead).then(|| Timestamp(next.div_euclid(1000) + i64::from(next % 1000 != 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).unwrap()
    }

    #[test]
    fn rates_are_read_and_written() {
        for (text, shown, burst) in [
            ("10/s", "10/s", 1),
            ("100/h", "100/h", 1),
            ("5/10m", "5/10m", 1),
            ("1/1s", "1/s", 1),
            ("3/90s", "3/1m30s", 1),
            ("200/s", "200/s", 20),
            ("1000000/s", "1000000/s", 100_000),
        ] {
            let rate = rate(text);
            assert_eq!((rate.to_string().as_str(), rate.burst()), (shown, burst), "{text}");
            assert_eq!(Rate::from_json(&rate.to_json()), Some(rate));
            assert_eq!(Rate::parse(shown).unwrap(), rate);
        }
        assert_eq!(rate("10/s").to_json(), r#"{"calls":10,"span":1000,"burst":1}"#);
        for text in ["", "{}", "7", r#"{"calls":0,"span":1,"burst":1}"#] {
            assert_eq!(Rate::from_json(text), None, "{text}");
        }
    }

    #[test]
    fn in_no_span_start_more_calls_than_the_rate_and_its_burst() {
        // A linear congruential generator: the same cases in each run.
        let mut seed = 1_u64;
        let mut draw = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let rate = Rate {
                calls: 1 + u32::try_from(draw(40)).unwrap(),
                span: 1 + draw(3000),
                burst: 1 + u32::try_from(draw(10)).unwrap(),
            };
            let (mut now, mut used, mut starts) = (1_700_000_000_000_i64, 0, Vec::new());
            let began = now;
            for _ in 0..300 {
                let allowance = rate.allowance(Timestamp(now), used);
                let wanted = usize::try_from(draw(6)).unwrap();
                let taken = wanted.min(allowance.starts());
                used = allowance.after(taken).used();
                starts.extend(std::iter::repeat_n(now, taken));
                now += i64::try_from(if draw(10) == 0 { draw(2 * rate.span) } else { draw(5) }).unwrap();
            }
            let (span, most) = (i64::try_from(rate.span).unwrap(), (rate.calls + rate.burst - 1) as usize);
            for (at, first) in starts.iter().enumerate() {
                let within = starts[at..].iter().take_while(|start| **start < first + span).count();
                assert!(within <= most, "{rate:?}: {within} of {most}");
            }
            // A caller that always asks gets everything that the rate allows.
            let (mut used, mut count) = (0, 0);
            for now in began..began + 3000 {
                let allowance = rate.allowance(Timestamp(now), used);
                count += allowance.starts();
                used = allowance.after(allowance.starts()).used();
            }
            // As far as it can, looking once in a millisecond.
            let least = if rate.gap() < 1000 { 0 } else { 3000 / rate.gap().cast_unsigned().div_ceil(1000) };
            assert!(count as u64 >= least, "{rate:?}: {count} of {least}");
        }
    }

    #[test]
    fn the_next_call_may_start_a_gap_later() {
        let (rate, now) = (rate("3/s"), Timestamp(1_700_000_000_000));
        let full = rate.allowance(now, 0);
        assert_eq!((full.starts(), full.next()), (1, None));
        let empty = full.after(1);
        assert_eq!((empty.starts(), empty.next()), (0, Some(Timestamp(now.0 + 334))));
        assert_eq!(rate.allowance(Timestamp(now.0 + 333), empty.used()).starts(), 0);
        assert_eq!(rate.allowance(Timestamp(now.0 + 334), empty.used()).starts(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_up_nothing_for_longer_than_a_gap() {
        let (rate, now) = (rate("1/s"), Timestamp(1_700_000_000_000));
        let allowance = rate.allowance(now, (now.0 + 3_600_000) * 1000);
        assert_eq!((allowance.starts(), allowance.is_ahead(), allowance.next()), (0, true, None));
        assert_eq!(allowance.after(0).next(), Some(Timestamp(now.0 + 1000)));
    }

    #[test]
    fn what_is_no_rate() {
        for (text, message) in [
            ("10", "the span is missing"),
            ("", "the span is missing"),
            ("/s", "the number of calls is missing"),
            ("0/s", "`0` is not a number of calls from 1 to 1000000"),
            ("-1/s", "`-1` is not a number of calls from 1 to 1000000"),
            ("1.5/s", "`1.5` is not a number of calls from 1 to 1000000"),
            ("10/", "`` is not a span"),
            ("10/5", "`5` is not a span: the unit is missing"),
            ("10/parsec", "`parsec` is not a span"),
            ("10/0s", "`0s` is not a span: a span must be at least one millisecond"),
            ("1000000/ms", "it is faster than 1000000 calls a second"),
        ] {
            assert_eq!(Rate::parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
