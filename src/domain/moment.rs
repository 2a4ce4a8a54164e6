//! Moments as people write them: `tomorrow 9:00`, `2026-12-01 09:00`, `2026-12-01T09:00+01:00`.
//!
//! Invariant: a time of day that a change of clocks skips or repeats is refused. Moving it would run a call an hour late.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::fmt::temporal::{Pieces, PiecesOffset, TimeZoneAnnotationKind};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, ToSpan};

use super::new_job::Expiry;
use super::suggest::nearest;
use super::text::escape_control;
use super::time::{NO_SPAN, Timestamp, parse_span};
use super::zone::zone;
use crate::error::{Error, Kind, Result};

/// The words that stand for a day.
const DAYS: [(&str, Day); 16] = [
    ("today", Day::Today),
    ("tomorrow", Day::Tomorrow),
    ("mon", Day::Next(Weekday::Monday)),
    ("tue", Day::Next(Weekday::Tuesday)),
    ("wed", Day::Next(Weekday::Wednesday)),
    ("thu", Day::Next(Weekday::Thursday)),
    ("fri", Day::Next(Weekday::Friday)),
    ("sat", Day::Next(Weekday::Saturday)),
    ("sun", Day::Next(Weekday::Sunday)),
    ("monday", Day::Next(Weekday::Monday)),
    ("tuesday", Day::Next(Weekday::Tuesday)),
    ("wednesday", Day::Next(Weekday::Wednesday)),
    ("thursday", Day::Next(Weekday::Thursday)),
    ("friday", Day::Next(Weekday::Friday)),
    ("saturday", Day::Next(Weekday::Saturday)),
    ("sunday", Day::Next(Weekday::Sunday)),
];

/// A day, as people name it.
#[derive(Debug, Clone, Copy)]
enum Day {
    Today,
    Tomorrow,
    /// The next day of this name whose time lies ahead.
    Next(Weekday),
    /// The next day on which the time lies ahead.
    Any,
    On(Date),
}

/// Parses a moment, such as `now`, `14:30`, `tomorrow 9:00`, `mon 9:00`, `2026-12-01 09:00`, `2026-12-01T09:00+01:00`,
/// `2026-12-01T09:00[Europe/Berlin]` or `@1795474163` (Unix seconds). A day without a time means its beginning. `docs/delays.md`
/// lists the forms. Only a time without an offset or a zone needs `here`, the zone in which it is read.
///
/// # Errors
/// [`Kind::Usage`] for a text that is not a moment, and for a time of day that does not exist on that day, or exists twice; and
/// whatever `here` answers.
pub fn moment(text: &str, now: Timestamp, here: impl FnOnce() -> Result<TimeZone>) -> Result<Timestamp> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("now") {
        return Ok(now);
    }
    let found = match text.strip_prefix('@') {
        Some(seconds) => unix(seconds),
        None => match day_and_time(text) {
            Some((day, time)) => Moment { now: instant(now)?, zone: here()? }.next(day, time),
            None => written(text, here),
        },
    };
    found.map(|it| Timestamp(it.as_millisecond()))
}

/// Parses when a call expires: a span, or a moment as [`moment`] reads it.
///
/// # Errors
/// [`Kind::Usage`] for what is neither, and as for [`moment`].
pub fn expiry(text: &str, now: Timestamp, here: impl FnOnce() -> Result<TimeZone>) -> Result<Expiry> {
    let is_time = |error: &Error| error.to_string() == NO_SPAN;
    match parse_span(text) {
        Ok(span) => Ok(Expiry::In(span)),
        Err(error) if is_time(&error) => moment(text, now, here).map(Expiry::At),
        Err(error) => {
            let message = format!("`--expires` cannot be `{}`: {error}", escape_control(text));
            Err(error.reworded(Kind::Usage, message))
        }
    }
}

/// Parses `@` and Unix seconds.
fn unix(seconds: &str) -> Result<jiff::Timestamp> {
    let found = seconds.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    found.ok_or_else(|| {
        Error::new(Kind::Usage, format!("`@{}` is not a time", escape_control(seconds)))
            .with_hint("`@` takes whole seconds since 1970, until the year 9999, as in `@1795474163`")
    })
}

/// Parses a day, a time of day or both, in the forms that jiff does not read.
fn day_and_time(text: &str) -> Option<(Day, Time)> {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim_start();
    if rest.is_empty() {
        return match (clock(first), day(first)) {
            (Some(time), _) => Some((Day::Any, time)),
            // The beginning of today has always passed.
            (None, None | Some(Day::Today)) => None,
            (None, Some(day)) => Some((day, Time::midnight())),
        };
    }
    let date = || Pieces::parse(first).ok().filter(is_date).map(|date| Day::On(date.date()));
    Some((day(first).or_else(date)?, clock(rest)?))
}

fn day(word: &str) -> Option<Day> {
    DAYS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, day)| *day)
}

fn is_date(written: &Pieces<'_>) -> bool {
    written.time().is_none() && written.offset().is_none() && written.time_zone_annotation().is_none()
}

/// Whether a moment is given in UTC, with `Z`: then a zone next to it says nothing about its offset.
fn is_utc(written: &Pieces<'_>) -> bool {
    written.offset() == Some(PiecesOffset::Zulu)
}

/// Parses a time of day: `9:00`, `09:00` or `09:00:30`.
fn clock(text: &str) -> Option<Time> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |part: &str, widths: std::ops::RangeInclusive<usize>| {
        let fits = widths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if fits { part.parse::<i8>().ok() } else { None }
    };
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    Time::new(number(hour, 1..=2)?, number(minute, 2..=2)?, number(second, 2..=2)?, 0).ok()
}

/// Parses RFC 3339 and RFC 9557, also without an offset or a time.
fn written(text: &str, here: impl FnOnce() -> Result<TimeZone>) -> Result<jiff::Timestamp> {
    let pieces = Pieces::parse(text).map_err(|_| not_a_moment(text))?;
    let named = pieces.time_zone_annotation().map(|annotation| match annotation.kind() {
        TimeZoneAnnotationKind::Named(name) => zone(name.as_str()),
        TimeZoneAnnotationKind::Offset(offset) => Ok(TimeZone::fixed(*offset)),
        _ => Err(not_a_moment(text)),
    });
    let named = named.transpose()?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or_else(Time::midnight));
    let Some(offset) = pieces.to_numeric_offset() else {
        return exact(civil, &named.map_or_else(here, Ok)?);
    };
    let found = offset.to_timestamp(civil).map_err(|_| not_a_moment(text))?;
    match named {
        Some(zone) if !is_utc(&pieces) && zone.to_offset(found) != offset => {
            let message = format!(
                "{} has another offset from UTC than {} at {} on {}",
                name(&zone),
                show_offset(offset),
                show_time(civil.time()),
                civil.date()
            );
            Err(Error::new(Kind::Usage, message).with_hint("give the offset or the zone, and leave the other out"))
        }
        _ => Ok(found),
    }
}

fn not_a_moment(text: &str) -> Error {
    let word = text.split_whitespace().next().unwrap_or_default().to_lowercase();
    let near = nearest(&word, DAYS.iter().map(|(name, _)| *name).filter(|name| name.len() > 3));
    let hint = match (near, day(&word)) {
        _ if text.eq_ignore_ascii_case("today") => "write `today 18:00`, or `now`".to_owned(),
        (Some(near), None) => format!("did you mean `{near}`?"),
        _ if text.len() > 4 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("write Unix seconds with `@`, as in `@{text}`")
        }
        _ => "write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`".to_owned(),
    };
    Error::new(Kind::Usage, format!("`{}` is not a time", escape_control(text))).with_hint(hint)
}

fn instant(moment: Timestamp) -> Result<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(moment.0).map_err(|_| out_of_range())
}

fn out_of_range() -> Error {
    Error::new(Kind::Usage, "a time cannot be after the year 9999").with_hint("give a time that is nearer")
}

/// The moment and the zone from which a day and a time of day are seen.
struct Moment {
    now: jiff::Timestamp,
    zone: TimeZone,
}

impl Moment {
    /// The moment at which the clock shows `time` on that day.
    fn next(&self, day: Day, time: Time) -> Result<jiff::Timestamp> {
        let today = self.zone.to_datetime(self.now).date();
        let later = |span: Span| today.checked_add(span).map_err(|_| out_of_range());
        match day {
            Day::Today => exact(today.to_datetime(time), &self.zone),
            Day::Tomorrow => exact(later(1.day())?.to_datetime(time), &self.zone),
            Day::On(date) => exact(date.to_datetime(time), &self.zone),
            Day::Any => self.first_ahead(later(0.days())?, 1.day(), time),
            Day::Next(weekday) => {
                let days = today.weekday().until(weekday);
                self.first_ahead(later(i64::from(days).days())?, 7.days(), time)
            }
        }
    }

    /// The first moment from now on at which the clock shows `time`, on `day` or after any number of `step`s.
    fn first_ahead(&self, mut day: Date, step: Span, time: Time) -> Result<jiff::Timestamp> {
        loop {
            let wanted = day.to_datetime(time);
            let ambiguous = self.zone.to_ambiguous_timestamp(wanted);
            let is_fold = matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. });
            let first = ambiguous.earlier().map_err(|_| out_of_range())?;
            let last = ambiguous.later().map_err(|_| out_of_range())?;
            if last >= self.now {
                // If a time exists twice, the second one may still be in the future.
                return if is_fold && first < self.now { Ok(last) } else { exact(wanted, &self.zone) };
            }
            day = day.checked_add(step).map_err(|_| out_of_range())?;
        }
    }
}

/// The only moment at which the clocks of a zone show this date and time.
fn exact(civil: DateTime, zone: &TimeZone) -> Result<jiff::Timestamp> {
    let at = |offset: Offset| offset.to_timestamp(civil).map_err(|_| out_of_range());
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset),
        AmbiguousOffset::Gap { before, after } => Err(gap(civil, zone, at(before)?, (before, after))),
        AmbiguousOffset::Fold { before, after } => {
            let write = |offset| format!("`{}`", show_exact(civil, offset));
            let (time, date) = (show_time(civil.time()), civil.date());
            Err(Error::new(Kind::Usage, format!("{time} on {date} happens twice in {}", name(zone)))
                .with_hint(format!("write {} for the first time, or {} for the second", write(before), write(after))))
        }
    }
}

/// The error for a date and time that the clocks skip. `shifted` is that time if the clocks had not changed.
fn gap(civil: DateTime, zone: &TimeZone, shifted: jiff::Timestamp, (before, after): (Offset, Offset)) -> Error {
    // The change is the last one until `shifted`, which may be the very moment of the change.
    let later = shifted.checked_add(1.second()).unwrap_or(shifted);
    let change = zone.preceding(later).next().map_or(shifted, |change| change.timestamp());
    let (from, to, instead) = (before.to_datetime(change), after.to_datetime(change), after.to_datetime(shifted));
    let show = |it: DateTime| {
        let time = show_time(it.time());
        if it.date() == civil.date() { time } else { format!("{} {time}", it.date()) }
    };
    let message = format!(
        "{} on {} does not exist in {}: the clocks go from {} to {}",
        show_time(civil.time()),
        civil.date(),
        name(zone),
        show(from),
        show(to)
    );
    let hint = format!("write `{}`, or give the offset, as in `{}`", show(instead), show_exact(civil, before));
    Error::new(Kind::Usage, message).with_hint(hint)
}

/// A zone, in a sentence.
fn name(zone: &TimeZone) -> String {
    match (zone.iana_name(), zone.to_fixed_offset()) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(offset)) => show_offset(offset),
        (None, Err(_)) => "the time zone of this machine".to_owned(),
    }
}

/// A date and time with its offset, as [`moment`] reads it.
fn show_exact(civil: DateTime, offset: Offset) -> String {
    format!("{}T{}{}", civil.date(), show_time(civil.time()), show_offset(offset))
}

/// A time of day to the minute, or more precise if necessary.
fn show_time(time: Time) -> String {
    match (time.second(), time.subsec_nanosecond()) {
        (0, 0) => format!("{:02}:{:02}", time.hour(), time.minute()),
        _ => time.to_string(),
    }
}

/// An offset from UTC: `+01:00`, or to the second, as before time zones existed.
fn show_offset(offset: Offset) -> String {
    let (sign, seconds) = (if offset.is_negative() { '-' } else { '+' }, offset.seconds().unsigned_abs());
    let text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 == 0 { text } else { format!("{text}:{:02}", seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is Monday, 30 November 2026, at 10:00.
    const NOW: &str = "2026-11-30T10:00+01:00[Europe/Berlin]";

    /// Reads `text` when and where it is `now`, and shows the moment there.
    fn read(text: &str, now: &str) -> Result<String> {
        let now: jiff::ZonedDateTime = now.parse().unwrap();
        let zone = now.time_zone().clone();
        let it = moment(text, Timestamp(now.timestamp().as_millisecond()), || Ok(zone.clone()))?;
        let it = jiff::Timestamp::from_millisecond(it.0).unwrap().to_zoned_datetime(zone);
        Ok(it.strftime("%F %T%:z").to_string())
    }

    /// The message and the hint with which `text` is refused.
    fn refused(text: &str, now: &str) -> (String, String) {
        let error = read(text, now).expect_err(text);
        assert_eq!(error.kind(), Kind::Usage, "{text}");
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    }

    #[test]
    fn every_form_is_read() {
        for (text, moment) in [
            ("now", "2026-11-30 10:00:00+01:00"),
            ("@1795474163", "2026-11-23 23:49:23+01:00"),
            ("2026-12-01T09:00+01:00", "2026-12-01 09:00:00+01:00"),
            ("2026-12-01T09:00Z", "2026-12-01 10:00:00+01:00"),
            ("2026-12-01t09:00:30.25z", "2026-12-01 10:00:30+01:00"),
            ("2026-12-01 09:00-05:30", "2026-12-01 15:30:00+01:00"),
            ("2026-12-01T09:00[America/New_York]", "2026-12-01 15:00:00+01:00"),
            ("2026-12-01T09:00-05:00[America/New_York]", "2026-12-01 15:00:00+01:00"),
            ("2026-12-01T09:00Z[Europe/Zurich]", "2026-12-01 10:00:00+01:00"),
            ("2026-12-01[America/New_York]", "2026-12-01 06:00:00+01:00"),
            ("2026-12-01T09:00", "2026-12-01 09:00:00+01:00"),
            ("2026-12-01 9:00", "2026-12-01 09:00:00+01:00"),
            (" 2026-12-01  09:00:30 ", "2026-12-01 09:00:30+01:00"),
            ("2026-12-01", "2026-12-01 00:00:00+01:00"),
            ("2026-07-01", "2026-07-01 00:00:00+02:00"),
            ("09:59", "2026-12-01 09:59:00+01:00"),
            ("10:00", "2026-11-30 10:00:00+01:00"),
            ("10:00:01", "2026-11-30 10:00:01+01:00"),
            ("9:00", "2026-12-01 09:00:00+01:00"),
            ("tomorrow", "2026-12-01 00:00:00+01:00"),
            ("Tomorrow 9:00", "2026-12-01 09:00:00+01:00"),
            ("today 18:00", "2026-11-30 18:00:00+01:00"),
            ("today 09:00", "2026-11-30 09:00:00+01:00"),
            ("mon", "2026-12-07 00:00:00+01:00"),
            ("Mon 09:00", "2026-12-07 09:00:00+01:00"),
            ("monday 11:00", "2026-11-30 11:00:00+01:00"),
            ("SUNDAY 9:00", "2026-12-06 09:00:00+01:00"),
        ] {
            assert_eq!(read(text, NOW).unwrap(), moment, "{text}");
        }
    }

    #[test]
    fn a_time_that_has_an_offset_needs_no_zone() {
        for text in ["now", "@1795474163", "2026-12-01T09:00Z", "2026-12-01T09:00[Europe/Berlin]"] {
            moment(text, Timestamp(0), || panic!("{text}")).unwrap();
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        let forms = "write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`";
        let unix = "`@` takes whole seconds since 1970, until the year 9999, as in `@1795474163`";
        for (text, hint) in [
            ("tea time", forms),
            ("", forms),
            ("90", forms),
            ("24:00", forms),
            ("9", forms),
            ("09:60", forms),
            ("+9:00", forms),
            ("2026-02-30", forms),
            ("2026-13-01 09:00", forms),
            ("2026-12-01 tea time", forms),
            ("2026-12-01T09:00+25:99", forms),
            ("mon 09:00 UTC", forms),
            ("today", "write `today 18:00`, or `now`"),
            ("tommorow 9:00", "did you mean `tomorrow`?"),
            ("1795474163", "write Unix seconds with `@`, as in `@1795474163`"),
            ("@", unix),
            ("@1795474163341", unix),
            ("@tea", unix),
            ("@1.5", unix),
        ] {
            assert_eq!(refused(text, NOW), (format!("`{text}` is not a time"), hint.to_owned()));
        }
        let (message, hint) = refused("2026-12-01T09:00[Europe/Berln]", NOW);
        assert_eq!(message, "there is no time zone `Europe/Berln`");
        assert_eq!(hint, "did you mean `Europe/Berlin`?");
        let (message, hint) = refused("2026-12-01T09:00+02:00[Europe/Berlin]", NOW);
        assert_eq!(message, "Europe/Berlin has another offset from UTC than +02:00 at 09:00 on 2026-12-01");
        assert_eq!(hint, "give the offset or the zone, and leave the other out");
        assert_eq!(
            refused("9999-12-31 23:59", "9999-12-30T00:00-05:00[America/New_York]").0,
            out_of_range().to_string()
        );
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_refused() {
        for (text, now, message, hint) in [
            (
                "2027-03-28 02:30",
                NOW,
                "02:30 on 2027-03-28 does not exist in Europe/Berlin: the clocks go from 02:00 to 03:00",
                "write `03:30`, or give the offset, as in `2027-03-28T02:30+01:00`",
            ),
            (
                "02:00",
                "2027-03-28T01:00+01:00[Europe/Berlin]",
                "02:00 on 2027-03-28 does not exist in Europe/Berlin: the clocks go from 02:00 to 03:00",
                "write `03:00`, or give the offset, as in `2027-03-28T02:00+01:00`",
            ),
            (
                "2026-03-29 02:59:59[Europe/Berlin]",
                "2026-11-30T10:00Z[UTC]",
                "02:59:59 on 2026-03-29 does not exist in Europe/Berlin: the clocks go from 02:00 to 03:00",
                "write `03:59:59`, or give the offset, as in `2026-03-29T02:59:59+01:00`",
            ),
            (
                "tomorrow",
                "2018-11-03T10:00-03:00[America/Sao_Paulo]",
                "00:00 on 2018-11-04 does not exist in America/Sao_Paulo: the clocks go from 00:00 to 01:00",
                "write `01:00`, or give the offset, as in `2018-11-04T00:00-03:00`",
            ),
            (
                "2011-12-30 09:00",
                "2011-12-29T10:00-10:00[Pacific/Apia]",
                "09:00 on 2011-12-30 does not exist in Pacific/Apia: the clocks go from 00:00 to 2011-12-31 00:00",
                "write `2011-12-31 09:00`, or give the offset, as in `2011-12-30T09:00-10:00`",
            ),
        ] {
            assert_eq!(refused(text, now), (message.to_owned(), hint.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_time_that_the_clocks_repeat_is_refused() {
        let message = "02:30 on 2026-10-25 happens twice in Europe/Berlin".to_owned();
        let hint = "write `2026-10-25T02:30+02:00` for the first time, or `2026-10-25T02:30+01:00` for the second";
        for (text, now) in [
            ("2026-10-25 02:30", NOW),
            ("02:30", "2026-10-25T01:00+02:00[Europe/Berlin]"),
            ("sun 02:30", "2026-10-24T10:00+02:00[Europe/Berlin]"),
            ("tomorrow 02:30", "2026-10-24T10:00+02:00[Europe/Berlin]"),
        ] {
            assert_eq!(refused(text, now), (message.clone(), hint.to_owned()), "{text}");
        }
        // Both are read as the hint writes them.
        assert_eq!(read("2026-10-25T02:30+02:00", NOW).unwrap(), "2026-10-25 02:30:00+02:00");
        assert_eq!(read("2026-10-25T02:30+01:00", NOW).unwrap(), "2026-10-25 02:30:00+01:00");
        // Only the second lies ahead, or none of them.
        assert_eq!(read("02:30", "2026-10-25T02:45+02:00[Europe/Berlin]").unwrap(), "2026-10-25 02:30:00+01:00");
        assert_eq!(read("02:30", "2026-10-25T02:45+01:00[Europe/Berlin]").unwrap(), "2026-10-26 02:30:00+01:00");
    }

    #[test]
    fn a_skipped_time_of_today_that_has_passed_means_tomorrow() {
        assert_eq!(read("02:30", "2027-03-28T10:00+02:00[Europe/Berlin]").unwrap(), "2027-03-29 02:30:00+02:00");
    }

    #[test]
    fn a_zone_without_a_name_is_read_and_named() {
        let here = || Ok(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_eq!(moment("2026-12-01 09:00", Timestamp(0), here).unwrap().to_string(), "2026-12-01T08:00:00.000Z");
        let error = moment("2027-03-28 02:30", Timestamp(0), here).unwrap_err();
        let message =
            "02:30 on 2027-03-28 does not exist in the time zone of this machine: the clocks go from 02:00 to 03:00";
        assert_eq!(error.to_string(), message);
    }
}
