//! The times in the fields of a cron pattern, as a clock on the wall shows them, and the search for the next one.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};

use super::cron_field::{Field, Item};

/// The search ends with the year before this one.
const END: i16 = 5000;

/// The times that five fields name. In each set of values, bit n stands for the value n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CronTimes {
    minutes: u64,
    hours: u64,
    days: u64,
    /// Whether the last day of a month is one of these days.
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// The weekdays that are named for one week of the month, from the first to the fifth.
    in_week: [u64; 5],
    /// The weekdays that are named for their last day in the month.
    last_weekdays: u64,
    needs_both_days: bool,
}

impl CronTimes {
    /// The times of these fields. With `needs_both_days`, a day must match as a day of the month and as a day of the week;
    /// otherwise one of them is enough.
    pub(super) fn of(fields: &[Vec<Item>; 5], needs_both_days: bool) -> CronTimes {
        let sets: [u64; 5] = std::array::from_fn(|at| set(Field::ALL[at].values(&fields[at])));
        let (mut in_week, mut last_weekdays) = ([0; 5], 0);
        for item in &fields[4] {
            match *item {
                Item::Nth { weekday, which } => in_week[usize::from(which) - 1] |= bit(weekday),
                Item::Last { weekday } => last_weekdays |= bit(weekday),
                _ => {}
            }
        }
        let [minutes, hours, days, months, weekdays] = sets;
        let last_day = fields[2].contains(&Item::LastDay);
        CronTimes { minutes, hours, days, last_day, months, weekdays, in_week, last_weekdays, needs_both_days }
    }

    /// The first of these times after `from`, or at `from` if `inclusive`. `None` if none comes before the year 5000.
    pub(super) fn next(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        let minute = from.date().at(from.hour(), from.minute(), 0, 0);
        let is_next = !inclusive || minute < from;
        let start = if is_next { minute.checked_add(SignedDuration::from_mins(1)).ok()? } else { minute };
        if self.has_day(start.date())
            && let Some(time) = self.time_from(start.date(), start.hour(), start.minute())
        {
            return Some(time);
        }
        let mut date = start.date();
        loop {
            let is_month = has(self.months, date.month());
            date = if is_month { date.tomorrow().ok()? } else { date.last_of_month().tomorrow().ok()? };
            if date.year() >= END {
                return None;
            }
            if self.has_day(date) {
                return self.time_from(date, 0, 0);
            }
        }
    }

    /// The first of the times of a day at this hour and minute or later.
    fn time_from(&self, date: Date, hour: i8, minute: i8) -> Option<DateTime> {
        let in_hour = has(self.hours, hour).then(|| first_from(self.minutes, minute)).flatten();
        let (hour, minute) = match in_hour {
            Some(minute) => (hour, minute),
            None => (first_from(self.hours, hour + 1)?, first_from(self.minutes, 0)?),
        };
        Some(date.at(hour, minute, 0, 0))
    }

    fn has_day(&self, date: Date) -> bool {
        if !has(self.months, date.month()) {
            return false;
        }
        let (day, length) = (date.day(), date.days_in_month());
        let of_month = has(self.days, day) || self.last_day && day == length;
        let weekday = date.weekday().to_sunday_zero_offset();
        let week = usize::from((day - 1).unsigned_abs() / 7);
        let of_week =
            has(self.weekdays | self.in_week[week], weekday) || has(self.last_weekdays, weekday) && day + 7 > length;
        if self.needs_both_days { of_month && of_week } else { of_month || of_week }
    }
}

fn bit(value: u8) -> u64 {
    1 << value
}

fn set(values: Vec<u8>) -> u64 {
    values.into_iter().fold(0, |set, value| set | bit(value))
}

fn has(set: u64, value: i8) -> bool {
    set & bit(value.unsigned_abs()) != 0
}

/// The smallest value of a set that is not less than this one, which is at most 63.
fn first_from(set: u64, least: i8) -> Option<i8> {
    let rest = set & (u64::MAX << least.unsigned_abs());
    i8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)
}
