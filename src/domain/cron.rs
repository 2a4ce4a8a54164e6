//! Cron patterns: when they come, even when clocks change.
//!
//! When clocks change, the rule is Debian's. A pattern whose minute or hour begins with `*` *keeps its beat*: it comes whenever the
//! clock shows one of its times, so twice in a repeated hour and not at all in a skipped hour. Any other pattern comes once for
//! each of its times: the first time if the clock shows it twice, and at the change if the clock skips it.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::cron_field::{Field, Item};
use super::cron_times::CronTimes;
use super::cron_words::describe;
use super::text::escape_control;
use super::time::{Timestamp, parse_span};
use crate::error::{Error, Kind, Result};

/// The longest pattern, in bytes. One that lists all minutes and all hours is half as long.
const MAX_BYTES: usize = 500;

const EXAMPLE: &str = "write minute, hour, day of the month, month and day of the week, as in `30 2 * * mon-fri`";

/// The names that stand for a whole pattern.
const NAMES: [(&str, &str); 5] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];

/// A pattern of five fields: `30 2 * * *`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    fields: [Vec<Item>; 5],
    times: CronTimes,
    keeps_beat: bool,
    needs_both_days: bool,
}

impl Pattern {
    /// Parses five fields with one or more blanks between two, or a name such as `@daily`.
    ///
    /// If the day of the month or the day of the week begins with `*`, a day must match both fields. Otherwise, it must match one
    /// of them.
    ///
    /// # Errors
    /// [`Kind::Usage`], with the way out, for a text that is not a pattern, and for a pattern that never matches.
    pub fn parse(text: &str) -> Result<Pattern> {
        if text.len() > MAX_BYTES {
            let message = format!("a pattern has at most {MAX_BYTES} bytes, this one has {}", text.len());
            return Err(Error::new(Kind::Usage, message)
                .with_hint("use ranges with a step, as in `0-30/5`, or add several schedules"));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let text = words.join(" ");
        let name = NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        let words = name.map_or(words, |(_, pattern)| pattern.split(' ').collect());
        let fields: [&str; 5] = words.try_into().map_err(|words: Vec<&str>| no_pattern(&words))?;
        let mut items: [Vec<Item>; 5] = Default::default();
        for (at, field) in Field::ALL.into_iter().enumerate() {
            items[at] = field.parse(fields[at])?;
        }
        let begins_with_star = |at: usize| fields[at].starts_with('*');
        let needs_both_days = begins_with_star(2) || begins_with_star(4);
        let keeps_beat = begins_with_star(0) || begins_with_star(1);
        let times = CronTimes::of(&items, needs_both_days);
        let pattern = Pattern { text, fields: items, times, keeps_beat, needs_both_days };
        let any = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        if pattern.times.next(any, true).is_none() {
            return Err(Error::new(Kind::Usage, format!("`{}` never comes", pattern.text))
                .with_hint("no such month has such a day; `L` is the last day of a month, as in `0 0 L 2 *`"));
        }
        Ok(pattern)
    }

    /// The pattern, as it was given, with single blanks.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern in words: `at 02:30 on Monday`.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(&self.fields, self.needs_both_days)
    }

    /// The first time after `after` at which the pattern comes in this zone. `None` if none comes before the year 5000.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.0).ok()?;
        let next = if self.keeps_beat { self.next_beat(after, zone) } else { self.next_named(after, zone) };
        next.map(|tick| Timestamp(tick.as_millisecond()))
    }

    /// The same for a pattern that comes once for each of its times. Here, a later time on the clock is never an earlier moment, so
    /// the search can begin at the time that the clock shows.
    fn next_named(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let mut civil = zone.to_datetime(after);
        loop {
            civil = self.times.next(civil, false)?;
            let tick = moment(civil, zone)?;
            if tick > after {
                return Some(tick);
            }
        }
    }

    /// The same for a pattern that keeps its beat, from one change of clocks to the next.
    fn next_beat(&self, after: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        loop {
            let civil = self.times.next(zone.to_datetime(from), inclusive)?;
            let tick = zone.to_offset(from).to_timestamp(civil).ok()?;
            match zone.following(from).next() {
                Some(change) if change.timestamp() <= tick => (from, inclusive) = (change.timestamp(), true),
                _ => return Some(tick),
            }
        }
    }
}

/// The moment that stands for a time on the clock: the first one, or the change that skips this time.
fn moment(civil: DateTime, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let moment = zone.to_ambiguous_timestamp(civil);
    match moment.offset() {
        AmbiguousOffset::Gap { after, .. } => {
            let before_change = after.to_timestamp(civil).ok()?;
            zone.following(before_change).find(|change| change.offset() == after).map(|change| change.timestamp())
        }
        _ => moment.earlier().ok(),
    }
}

/// Explains why these words are not a pattern.
fn no_pattern(words: &[&str]) -> Error {
    let text = words.join(" ");
    let shown = escape_control(&text);
    let refuse = |message: String, hint: String| Error::new(Kind::Usage, message).with_hint(hint);
    let Some(first) = words.first() else { return refuse("the pattern is empty".to_owned(), EXAMPLE.to_owned()) };
    if let Some((variable, zone)) = first.split_once('=').filter(|(variable, _)| variable.ends_with("TZ")) {
        let message = format!("a pattern cannot begin with `{}=`", escape_control(variable));
        return refuse(message, format!("use --tz {}", escape_control(zone)));
    }
    if first.starts_with('@') {
        let hint = match first.to_ascii_lowercase().as_str() {
            "@midnight" => "`@daily` is the same".to_owned(),
            "@annually" => "`@yearly` is the same".to_owned(),
            "@reboot" => "a schedule has times; to run something when the machine starts, put `@reboot asyncq enqueue ...` into a crontab".to_owned(),
            "@every" => match words.get(1).filter(|span| parse_span(span).is_ok()) {
                Some(span) => format!("use --every {span}"),
                None => "use --every, as in --every 90s".to_owned(),
            },
            _ => format!("there are {}", NAMES.map(|(name, _)| format!("`{name}`")).join(", ")),
        };
        return refuse(format!("asyncq does not know `{shown}`"), hint);
    }
    let hint = if words.len() == 6 { "for seconds use --every, as in --every 10s" } else { EXAMPLE };
    refuse(format!("a schedule needs 5 fields, `{shown}` has {}", words.len()), hint.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::zone::zone;

    /// The ticks of the 24 hours before noon, as hour, minute and offset.
    fn ticks(pattern: &str, name: &str, day: &str) -> String {
        let (pattern, zone) = (Pattern::parse(pattern).unwrap(), zone(name).unwrap());
        let noon = day.parse::<jiff::civil::Date>().unwrap().at(12, 0, 0, 0).to_zoned_datetime(zone.clone()).unwrap();
        let mut at = Timestamp(noon.timestamp().as_millisecond()).before(Duration::from_secs(24 * 3600));
        let mut shown = Vec::new();
        while let Some(tick) = pattern.next(at, &zone).filter(|tick| tick.0 < noon.timestamp().as_millisecond()) {
            let moment = jiff::Timestamp::from_millisecond(tick.0).unwrap().to_zoned_datetime(zone.clone());
            shown.push(moment.strftime("%d %H:%M%:::z").to_string());
            at = tick;
        }
        shown.join(", ")
    }

    #[test]
    fn ticks_at_changes_of_clocks() {
        for (pattern, march, october) in [
            ("30 2 * * *", "29 03:00+02", "25 02:30+02"),
            ("0,30 2 * * *", "29 03:00+02", "25 02:00+02, 25 02:30+02"),
            ("0 2,14 * * *", "28 14:00+01, 29 03:00+02", "24 14:00+02, 25 02:00+02"),
            (
                "*/30 1-3 * * *",
                "29 01:00+01, 29 01:30+01, 29 03:00+02, 29 03:30+02",
                "25 01:00+02, 25 01:30+02, 25 02:00+02, 25 02:30+02, 25 02:00+01, 25 02:30+01, 25 03:00+01, 25 03:30+01",
            ),
            (
                "15 */2 * * *",
                "28 12:15+01, 28 14:15+01, 28 16:15+01, 28 18:15+01, 28 20:15+01, 28 22:15+01, 29 00:15+01, 29 04:15+02, 29 06:15+02, 29 08:15+02, 29 10:15+02",
                "24 14:15+02, 24 16:15+02, 24 18:15+02, 24 20:15+02, 24 22:15+02, 25 00:15+02, 25 02:15+02, 25 02:15+01, 25 04:15+01, 25 06:15+01, 25 08:15+01, 25 10:15+01",
            ),
        ] {
            assert_eq!(ticks(pattern, "Europe/Berlin", "2026-03-29"), march, "{pattern}");
            assert_eq!(ticks(pattern, "Europe/Berlin", "2026-10-25"), october, "{pattern}");
        }
        // Samoa had no 30 December 2011.
        assert_eq!(ticks("0 18 * * *", "Pacific/Apia", "2011-12-31"), "29 18:00-10, 31 00:00+14");
        assert_eq!(ticks("0 0 * * *", "Africa/Cairo", "2026-04-24"), "24 01:00+03");
        assert_eq!(ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-04"), "04 02:30+11");
    }

    #[test]
    fn days() {
        let next = |pattern: &str, after: &str| {
            let next = Pattern::parse(pattern).unwrap().next(Timestamp::parse(after).unwrap(), &TimeZone::UTC);
            next.unwrap().to_string()
        };
        for (pattern, tick) in [
            ("0 0 13 * fri", "2026-12-04"),
            ("0 0 13 * *", "2026-12-13"),
            ("0 0 */12 * fri", "2026-12-25"),
            ("0 0 13 * */5", "2026-12-13"),
            ("0 0 L * *", "2026-11-30"),
            ("0 0 * * friL", "2026-12-25"),
            ("0 0 * * Fri#2", "2026-12-11"),
            ("0 0 * * 7", "2026-12-06"),
            ("0 0 * * sat-sun", "2026-12-05"),
            ("0 0 29 feb *", "2028-02-29"),
            ("  @Monthly ", "2026-12-01"),
            ("@yearly", "2027-01-01"),
            ("@weekly", "2026-12-06"),
        ] {
            assert_eq!(next(pattern, "2026-11-29T10:00:00Z"), format!("{tick}T00:00:00.000Z"), "{pattern}");
        }
        assert_eq!(next("@hourly", "2026-11-29T10:59:59.999Z"), "2026-11-29T11:00:00.000Z");
        assert_eq!(next("* * * * *", "2026-11-29T11:00:00Z"), "2026-11-29T11:01:00.000Z");
        assert_eq!(next("* * * * *", "1969-12-31T23:58:59.999Z"), "1969-12-31T23:59:00.000Z");
    }

    #[test]
    fn what_is_no_pattern_has_a_way_out() {
        let long = format!("0{} * * * *", ",0".repeat(5000));
        for (text, message, hint) in [
            ("", "the pattern is empty", EXAMPLE),
            ("* * * *", "a schedule needs 5 fields, `* * * *` has 4", EXAMPLE),
            (
                "* * * * * *",
                "a schedule needs 5 fields, `* * * * * *` has 6",
                "for seconds use --every, as in --every 10s",
            ),
            ("* * * * * * *", "a schedule needs 5 fields, `* * * * * * *` has 7", EXAMPLE),
            ("CRON_TZ=Asia/Tokyo 0 6 * * *", "a pattern cannot begin with `CRON_TZ=`", "use --tz Asia/Tokyo"),
            ("@every 5m", "asyncq does not know `@every 5m`", "use --every 5m"),
            ("@every x", "asyncq does not know `@every x`", "use --every, as in --every 90s"),
            ("@midnight", "asyncq does not know `@midnight`", "`@daily` is the same"),
            (
                "@reboot",
                "asyncq does not know `@reboot`",
                "a schedule has times; to run something when the machine starts, put `@reboot asyncq enqueue ...` into a crontab",
            ),
            (
                "@fortnightly",
                "asyncq does not know `@fortnightly`",
                "there are `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`",
            ),
            ("60 * * * *", "`60` is not a minute", "minutes go from 0 to 59"),
            ("999 * * * *", "`999` is not a minute", "minutes go from 0 to 59"),
            ("-5 * * * *", "`-5` is not a minute", "minutes go from 0 to 59"),
            ("mon * * * *", "`mon` is not a minute", "minutes go from 0 to 59"),
            ("0 24 * * *", "`24` is not an hour", "hours go from 0 to 23"),
            (
                "0 0 0 * *",
                "`0` is not a day of the month",
                "days go from 1 to 31, and `L` is the last day of the month",
            ),
            (
                "0 0 15W * *",
                "`15W` is not a day of the month",
                "days go from 1 to 31, and `L` is the last day of the month",
            ),
            ("0 0 * 13 *", "`13` is not a month", "months go from 1 to 12, or from `jan` to `dec`"),
            (
                "0 0 * * monday",
                "`monday` is not a day of the week",
                "days of the week go from 0 to 7, where 0 and 7 are Sunday, or from `sun` to `sat`",
            ),
            ("H 3 * * *", "`H` is not a minute", "asyncq does not choose a time for you: write a number"),
            ("0 3 ? * *", "`?` is not a day of the month", "write `*` for any value"),
            ("0 22-6 * * *", "the range `22-6` goes backwards", "write it as two, `22-23,0-6`"),
            ("0 0 * * fri-mon", "the range `fri-mon` goes backwards", "write it as two, `5-6,0-1`"),
            ("*/0 * * * *", "`*/0` has a step of 0", "a step here is a number from 1 to 59"),
            ("1-9/0 * * * *", "`1-9/0` has a step of 0", "a step here is a number from 1 to 59"),
            ("*/x * * * *", "`*/x` has a step that is not a number", "a step here is a number from 1 to 59"),
            ("*/ * * * *", "`*/` has a step that is not a number", "a step here is a number from 1 to 59"),
            (
                "*/90 * * * *",
                "`*/90` has a step of more than 59",
                "a step here is a number from 1 to 59; or use --every 90m",
            ),
            ("5/15 * * * *", "`5/15` has a step and no range", "write `5-59/15`, or `*/15` for the whole field"),
            (
                "1,,2 * * * *",
                "`1,,2` has a comma too many",
                "write the values of a list with one comma between two, as in `1,15`",
            ),
            (
                "0 0 * * fri#6",
                "`fri#6` is not one of the weeks 1 to 5 of a month",
                "write `fri#2` for the second Friday of the month, and `friL` for the last",
            ),
            (
                "0 0 * * L",
                "`L` does not say which day of the week",
                "write `fri#2` for the second Friday of the month, and `friL` for the last",
            ),
            (
                "0 0 31 2 *",
                "`0 0 31 2 *` never comes",
                "no such month has such a day; `L` is the last day of a month, as in `0 0 L 2 *`",
            ),
            ("\u{1b}[2J * * * *", "`\\u{1b}[2J` is not a minute", "minutes go from 0 to 59"),
            (
                &long,
                "a pattern has at most 500 bytes, this one has 10009",
                "use ranges with a step, as in `0-30/5`, or add several schedules",
            ),
        ] {
            let error = Pattern::parse(text).unwrap_err();
            assert_eq!((error.kind(), &*error.to_string(), error.hint()), (Kind::Usage, message, Some(hint)), "{text}");
        }
    }

    #[test]
    fn patterns_in_words() {
        for (pattern, words) in [
            ("30 2 * * *", "at 02:30"),
            ("0 2,14 * * *", "at 02:00 and 14:00"),
            ("0,30 9 * * mon-fri", "at 09:00 and 09:30 on Monday to Friday"),
            ("* * * * *", "every minute"),
            ("*/15 * * * *", "every 15 minutes"),
            ("*/15 9-17 * * *", "every 15 minutes in hours 9-17"),
            ("* 3 * * *", "every minute in hour 3"),
            ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
            ("0-30/10,45 * * * *", "at minutes 0, 10, 20, 30 and 45 of every hour"),
            ("@hourly", "every hour"),
            ("5 * * * *", "at minute 5 of every hour"),
            ("0 */2 * * *", "every 2 hours"),
            ("0 0-12/2 * * *", "at minute 0 of hours 0, 2, 4, 6, 8, 10 and 12"),
            ("0 0 13 * fri", "at 00:00 on day 13 of the month and also on Friday"),
            ("0 0 */10 * fri", "at 00:00 on days 1, 11, 21 and 31 of the month, but only on Friday"),
            ("0 0 1,L * *", "at 00:00 on day 1 and the last day of the month"),
            ("0 0 * * 5#2,sunL", "at 00:00 on the second Friday of the month and the last Sunday of the month"),
            ("0 0 * * 0,6", "at 00:00 on Saturday and Sunday"),
            ("0 0 1-31 * 1", "at 00:00"),
            ("0 0 * 1-3,7 *", "at 00:00 in January to March and July"),
            ("@yearly", "at 00:00 on day 1 of the month in January"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().describe(), words, "{pattern}");
        }
    }
}
