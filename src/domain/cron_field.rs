//! The five fields of a cron pattern: what each of them may contain, and a message with the way out for everything else.

use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// A field of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The minute of the hour.
    Minute,
    /// The hour of the day.
    Hour,
    /// The day of the month.
    Day,
    /// The month of the year.
    Month,
    /// The day of the week; 0 and 7 are Sunday.
    Weekday,
}

/// An item of the list that a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// `*` or `*/5`: all values, in steps.
    All {
        /// From one value to the next.
        step: u8,
    },
    /// `3`, `3-7` or `3-7/2`: the values between two, in steps.
    Range {
        /// The first value.
        first: u8,
        /// No value is larger.
        last: u8,
        /// From one value to the next.
        step: u8,
    },
    /// `L`: the last day of the month.
    LastDay,
    /// `fri#2`: one of the Fridays of the month.
    Nth {
        /// The day of the week.
        weekday: u8,
        /// The first is 1.
        which: u8,
    },
    /// `friL`: the last Friday of the month.
    Last {
        /// The day of the week.
        weekday: u8,
    },
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn refuse<T>(message: String, hint: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::Usage, message).with_hint(hint))
}

impl Field {
    /// All of them, in the order of a pattern.
    pub const ALL: [Field; 5] = [Field::Minute, Field::Hour, Field::Day, Field::Month, Field::Weekday];

    /// The smallest and the largest value.
    pub fn bounds(self) -> (u8, u8) {
        match self {
            Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::Day => (1, 31),
            Field::Month => (1, 12),
            Field::Weekday => (0, 7),
        }
    }

    /// Parses the list of items in this field.
    ///
    /// # Errors
    /// [`Kind::Usage`], with the way out, for the first item that cannot stand here.
    pub fn parse(self, text: &str) -> Result<Vec<Item>> {
        let items: Vec<&str> = text.split(',').collect();
        if items.iter().any(|item| item.is_empty()) {
            let message = format!("`{}` has a comma too many", escape_control(text));
            return refuse(message, "write the values of a list with one comma between two, as in `1,15`");
        }
        let items = items.iter().map(|item| self.item(item, items.len() == 1));
        items.collect()
    }

    /// The values that the items name, without those that depend on the month.
    pub fn values(self, items: &[Item]) -> Vec<u8> {
        let (low, high) = self.bounds();
        let ranges = items.iter().filter_map(|item| match *item {
            Item::All { step } => Some((low, high, step)),
            Item::Range { first, last, step } => Some((first, last, step)),
            _ => None,
        });
        let values = ranges.flat_map(|(first, last, step)| (first..=last).step_by(step.into()));
        let mut values: Vec<u8> = values.map(|value| if self == Field::Weekday { value % 7 } else { value }).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn item(self, text: &str, alone: bool) -> Result<Item> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(self.step(text, step)?)),
            None => (text, None),
        };
        let (low, high) = self.bounds();
        match (range, step) {
            ("*", step) if alone => return Ok(Item::All { step: step.unwrap_or(1) }),
            ("*", step) => return Ok(Item::Range { first: low, last: high, step: step.unwrap_or(1) }),
            ("L" | "l", None) if self == Field::Day => return Ok(Item::LastDay),
            _ => {}
        }
        if self == Field::Weekday
            && let Some(item) = self.weekday_of_month(range, step)?
        {
            return Ok(item);
        }
        if let Some((first, last)) = range.split_once('-').filter(|(first, last)| !first.is_empty() && !last.is_empty())
        {
            return self.range(first, last, step);
        }
        let value = self.value(range)?;
        if step.is_some() {
            let shown = escape_control(text);
            let (_, every) = shown.split_once('/').unwrap_or_default();
            return refuse(
                format!("`{shown}` has a step and no range"),
                format!("write `{range}-{high}/{every}`, or `*/{every}` for the whole field"),
            );
        }
        Ok(Item::Range { first: value, last: value, step: 1 })
    }

    fn range(self, from: &str, to: &str, step: Option<u8>) -> Result<Item> {
        let (first, mut last) = (self.value(from)?, self.value(to)?);
        // As an end, Sunday is after Saturday.
        if first > 0 && self == Field::Weekday && to.eq_ignore_ascii_case("sun") {
            last = 7;
        }
        if first <= last {
            return Ok(Item::Range { first, last, step: step.unwrap_or(1) });
        }
        let (low, high) = self.bounds();
        let high = if self == Field::Weekday { 6 } else { high };
        let part = |first: u8, last: u8| if first >= last { first.to_string() } else { format!("{first}-{last}") };
        refuse(
            format!("the range `{from}-{to}` goes backwards"),
            format!("write it as two, `{},{}`", part(first, high), part(low, last)),
        )
    }

    /// `fri#2` and `friL`; nothing for items without these marks.
    fn weekday_of_month(self, text: &str, step: Option<u8>) -> Result<Option<Item>> {
        let hint = "write `fri#2` for the second Friday of the month, and `friL` for the last";
        if step.is_some() {
            return Ok(None);
        }
        if let Some((day, which)) = text.split_once('#') {
            return match which.parse() {
                Ok(which @ 1..=5) => Ok(Some(Item::Nth { weekday: self.value(day)? % 7, which })),
                _ => refuse(format!("`{}` is not one of the weeks 1 to 5 of a month", escape_control(text)), hint),
            };
        }
        match text.strip_suffix(['L', 'l']) {
            None => Ok(None),
            Some("") => refuse(format!("`{text}` does not say which day of the week"), hint),
            Some(day) => Ok(Some(Item::Last { weekday: self.value(day)? % 7 })),
        }
    }

    fn step(self, item: &str, step: &str) -> Result<u8> {
        let item = escape_control(item);
        let (_, high) = self.bounds();
        let hint = format!("a step here is a number from 1 to {high}");
        let is_number = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
        match step.parse::<u8>() {
            Ok(0) => refuse(format!("`{item}` has a step of 0"), hint),
            Ok(step) if is_number && step <= high => Ok(step),
            _ if !is_number => refuse(format!("`{item}` has a step that is not a number"), hint),
            _ => {
                let unit = match self {
                    Field::Minute => "m",
                    Field::Hour => "h",
                    _ => "d",
                };
                let way_out =
                    if self == Field::Month { String::new() } else { format!("; or use --every {step}{unit}") };
                refuse(format!("`{item}` has a step of more than {high}"), hint + &way_out)
            }
        }
    }

    /// A number or a name as a value of this field.
    fn value(self, text: &str) -> Result<u8> {
        let (low, high) = self.bounds();
        let named = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let name = match self {
            Field::Month => named(&MONTHS).map(|at| at + 1),
            Field::Weekday => named(&WEEKDAYS),
            _ => None,
        };
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let number = if is_number { text.parse().ok() } else { None };
        let value = name.and_then(|at| u8::try_from(at).ok()).or(number);
        if let Some(value) = value.filter(|value| (low..=high).contains(value)) {
            return Ok(value);
        }
        let hint = match (text, self) {
            ("?", _) => "write `*` for any value",
            (text, _) if text.starts_with(['H', 'R']) => "asyncq does not choose a time for you: write a number",
            (_, Field::Minute) => "minutes go from 0 to 59",
            (_, Field::Hour) => "hours go from 0 to 23",
            (_, Field::Day) => "days go from 1 to 31, and `L` is the last day of the month",
            (_, Field::Month) => "months go from 1 to 12, or from `jan` to `dec`",
            (_, Field::Weekday) => "days of the week go from 0 to 7, where 0 and 7 are Sunday, or from `sun` to `sat`",
        };
        let name = match self {
            Field::Minute => "a minute",
            Field::Hour => "an hour",
            Field::Day => "a day of the month",
            Field::Month => "a month",
            Field::Weekday => "a day of the week",
        };
        refuse(format!("`{}` is not {name}", escape_control(text)), hint)
    }
}
