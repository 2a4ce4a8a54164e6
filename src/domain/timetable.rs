//! Timetables: rules for when a schedule ticks, and from when until when.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::cron::Pattern;
use super::time::{Timestamp, millis, write_span};
use super::zone;
use crate::error::{Error, Kind, Result};

/// The shortest time between two ticks.
const SHORTEST: Duration = Duration::from_secs(1);

/// The time within which the first tick must come. A later one is most likely a mistake.
const FIRST_WITHIN: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// When a schedule ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Whenever the clock of a time zone shows a time of a pattern.
    Cron {
        /// The times.
        pattern: Box<Pattern>,
        /// Whose clock.
        zone: TimeZone,
    },
    /// In steps of exact time counted from 1970-01-01 UTC, so that every processor counts the same.
    Every(Duration),
}

impl Rule {
    /// A rule for a cron pattern, such as `30 2 * * *`, in a named time zone, such as `Europe/Berlin`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is not a pattern, or no zone has that name.
    pub fn cron(pattern: &str, zone_name: &str) -> Result<Rule> {
        Ok(Rule::Cron { pattern: Pattern::parse(pattern)?.into(), zone: zone::zone(zone_name)? })
    }

    /// A rule for a tick every `span`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when that is less than a second.
    pub fn every(span: Duration) -> Result<Rule> {
        if span < SHORTEST {
            let message = format!("a schedule cannot run every {}", write_span(span));
            return Err(Error::new(Kind::Usage, message).with_hint("the shortest span is 1s"));
        }
        Ok(Rule::Every(span))
    }

    /// The first tick after `after`, if there is one before the year 5000.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Rule::Cron { pattern, zone } => pattern.next(after, zone),
            Rule::Every(span) => {
                let span = millis(*span);
                after.0.div_euclid(span).checked_add(1)?.checked_mul(span).map(Timestamp)
            }
        }
    }

    /// The same, for somebody who makes this rule now.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the first tick is more than ten years away.
    pub fn first(&self, after: Timestamp) -> Result<Timestamp> {
        self.next(after).filter(|tick| *tick <= after.after(FIRST_WITHIN)).ok_or_else(|| {
            let (rule, hint) = match self {
                Rule::Cron { pattern, .. } => (pattern.as_str().to_owned(), "choose other days or months"),
                Rule::Every(_) => (self.to_string(), "choose a shorter span"),
            };
            Error::new(Kind::Usage, format!("`{rule}` does not come within ten years")).with_hint(hint)
        })
    }

    /// The pattern and the name of the zone, as a store keeps them; `None` for exact time.
    #[must_use]
    pub fn as_cron(&self) -> Option<(&str, &str)> {
        match self {
            Rule::Cron { pattern, zone } => Some((pattern.as_str(), zone.iana_name().unwrap_or_default())),
            Rule::Every(_) => None,
        }
    }

    /// The span between two ticks; `None` for a pattern.
    #[must_use]
    pub fn as_every(&self) -> Option<Duration> {
        match self {
            Rule::Cron { .. } => None,
            Rule::Every(span) => Some(*span),
        }
    }

    /// The zone whose clock the rule follows; UTC for exact time.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        match self {
            Rule::Cron { zone, .. } => zone.clone(),
            Rule::Every(_) => TimeZone::UTC,
        }
    }

    /// A moment as the clock of the rule shows it, in RFC 3339: `2026-11-30T02:30:00+01:00`.
    #[must_use]
    pub fn local(&self, moment: Timestamp) -> String {
        match (jiff::Timestamp::from_millisecond(moment.0), self) {
            (Ok(exact), Rule::Cron { zone, .. }) => exact.display_with_offset(zone.to_offset(exact)).to_string(),
            (Ok(exact), Rule::Every(_)) => exact.to_string(),
            (Err(_), _) => moment.to_string(),
        }
    }
}

/// The rule as a sentence: `at 02:30, Europe/Berlin`, `every 1h30m`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Cron { pattern, zone } => {
                write!(f, "{}, {}", pattern.describe(), zone.iana_name().unwrap_or_default())
            }
            Rule::Every(span) => write!(f, "every {}", write_span(*span)),
        }
    }
}

/// The ticks of a rule within a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    /// The rule.
    pub rule: Rule,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Timetable {
    /// The ticks of `rule` that come at `from` or later, and before `until`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when `until` does not come after `from`.
    pub fn new(rule: Rule, from: Option<Timestamp>, until: Option<Timestamp>) -> Result<Timetable> {
        if let (Some(from), Some(until)) = (from, until)
            && until <= from
        {
            let message = format!("--until {} is not later than --from {}", rule.local(until), rule.local(from));
            return Err(Error::new(Kind::Usage, message)
                .with_hint("the schedule runs at `--from` or later, and before `--until`"));
        }
        Ok(Timetable { rule, from, until })
    }

    /// When it begins, if that was said.
    #[must_use]
    pub fn from(&self) -> Option<Timestamp> {
        self.from
    }

    /// When it ends, if that was said.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// The first tick after `after`; `None` if the schedule never ticks again.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let before_from = self.from.map_or(Timestamp(i64::MIN), |from| Timestamp(from.0.saturating_sub(1)));
        self.rule.next(after.max(before_from)).filter(|tick| self.until.is_none_or(|until| *tick < until))
    }

    /// All ticks after `after`, the earliest first.
    pub fn ticks(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |tick| self.next(*tick))
    }

    /// The first tick after `now`, for somebody who makes this timetable now.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there is none, or when the rule has none for more than ten years.
    pub fn first(&self, now: Timestamp) -> Result<Timestamp> {
        self.rule.first(self.from.map_or(now, |from| from.max(now)))?;
        self.next(now).ok_or_else(|| {
            Error::new(Kind::Usage, format!("`{}` does not come before --until", self.rule))
                .with_hint("give a later --until, or leave it out")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn exact_time_is_counted_from_1970() {
        let rule = Rule::every(Duration::from_millis(1500)).unwrap();
        assert_eq!(
            [-1500, -1, 0, 1, 1499, 1500].map(|ms| rule.next(Timestamp(ms)).unwrap().0),
            [0, 0, 1500, 1500, 1500, 3000]
        );
        assert_eq!(rule.next(Timestamp(i64::MAX)), None);
        assert_eq!(
            (rule.to_string(), rule.as_every(), rule.as_cron()),
            ("every 1s500ms".to_owned(), Some(Duration::from_millis(1500)), None)
        );
        assert_eq!(rule.local(Timestamp(1500)), "1970-01-01T00:00:01.5Z");
        let error = Rule::every(Duration::from_millis(999)).unwrap_err();
        assert_eq!(
            (&*error.to_string(), error.hint()),
            ("a schedule cannot run every 999ms", Some("the shortest span is 1s"))
        );
    }

    #[test]
    fn a_rule_with_a_zone() {
        let rule = Rule::cron("30  2 * * *", "europe/berlin").unwrap();
        assert_eq!(rule.to_string(), "at 02:30, Europe/Berlin");
        assert_eq!(rule.as_cron(), Some(("30 2 * * *", "Europe/Berlin")));
        assert_eq!(rule, Rule::cron("30 2 * * *", "Europe/Berlin").unwrap());
        assert_eq!(rule.local(at("2026-07-01T00:30:00Z")), "2026-07-01T02:30:00+02:00");
        assert_eq!(Rule::cron("* * * * *", "Europe/Berln").unwrap_err().hint(), Some("did you mean `Europe/Berlin`?"));
    }

    #[test]
    fn a_timetable_begins_and_ends() {
        let rule = || Rule::cron("0 * * * *", "UTC").unwrap();
        let (from, until) = (at("2026-12-01T09:00:00Z"), at("2026-12-01T11:00:00Z"));
        let table = Timetable::new(rule(), Some(from), Some(until)).unwrap();
        assert!(table.ticks(Timestamp(0)).eq([from, at("2026-12-01T10:00:00Z")]));
        assert_eq!(table.next(from), Some(at("2026-12-01T10:00:00Z")));
        assert_eq!(table.first(Timestamp(0)).unwrap(), from);
        let error = table.first(until).unwrap_err();
        assert_eq!(
            (&*error.to_string(), error.hint()),
            ("`every hour, UTC` does not come before --until", Some("give a later --until, or leave it out"))
        );
        let error = Timetable::new(rule(), Some(until), Some(from)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--until 2026-12-01T09:00:00+00:00 is not later than --from 2026-12-01T11:00:00+00:00"
        );
        let rare = Timetable::new(Rule::cron("0 0 29 2 */7", "UTC").unwrap(), None, None).unwrap();
        assert_eq!(rare.first(at("2026-12-01T00:00:00Z")).unwrap(), at("2032-02-29T00:00:00Z"));
        let error = rare.first(at("2032-03-01T00:00:00Z")).unwrap_err();
        assert_eq!(
            (&*error.to_string(), error.hint()),
            ("`0 0 29 2 */7` does not come within ten years", Some("choose other days or months"))
        );
    }
}
