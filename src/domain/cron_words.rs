//! Cron patterns in words.

use super::cron_field::{Field, Item};

/// The most times of the day that a sentence names.
const TIMES: usize = 6;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const WHICH: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// When a pattern with these fields comes: `at 02:30 on Monday`. With `needs_both_days`, a day must match both fields for days.
pub fn describe(fields: &[Vec<Item>; 5], needs_both_days: bool) -> String {
    let [minutes, hours, days, months, weekdays] = fields;
    let parts = [time(minutes, hours), day(days, weekdays, needs_both_days), month(months)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn time(minutes: &[Item], hours: &[Item]) -> String {
    let (minute_values, hour_values) = (Field::Minute.values(minutes), Field::Hour.values(hours));
    if minute_values.len() * hour_values.len() <= TIMES {
        let times = hour_values.iter().flat_map(|hour| minute_values.iter().map(move |minute| (hour, minute)));
        return format!("at {}", list(times.map(|(hour, minute)| format!("{hour:02}:{minute:02}")).collect()));
    }
    let is_every_hour = hour_values.len() == 24;
    let hour = match hour_values[..] {
        [hour] => format!("hour {hour}"),
        _ => format!("hours {}", list(numbers(&hour_values))),
    };
    match (minutes, hours) {
        ([Item::All { step }], _) if 60 % step == 0 => {
            let every = if *step == 1 { "every minute".to_owned() } else { format!("every {step} minutes") };
            if is_every_hour { every } else { format!("{every} in {hour}") }
        }
        (_, [Item::All { step: 1 }]) if minute_values == [0] => "every hour".to_owned(),
        (_, [Item::All { step }]) if minute_values == [0] && 24 % step == 0 => format!("every {step} hours"),
        _ => {
            let noun = if minute_values.len() == 1 { "minute" } else { "minutes" };
            let hour = if is_every_hour { "every hour".to_owned() } else { hour };
            format!("at {noun} {} of {hour}", list(numbers(&minute_values)))
        }
    }
}

fn day(days: &[Item], weekdays: &[Item], needs_both: bool) -> String {
    match (days_of_month(days), days_of_week(weekdays)) {
        (Some(day), Some(weekday)) if needs_both => format!("{day}, but only {weekday}"),
        (Some(day), Some(weekday)) => format!("{day} and also {weekday}"),
        // If one field matches every day, the other one is enough.
        (Some(day), None) | (None, Some(day)) if needs_both => day,
        _ => String::new(),
    }
}

/// Nothing if these are all days.
fn days_of_month(items: &[Item]) -> Option<String> {
    let values = Field::Day.values(items);
    if values.len() == 31 {
        return None;
    }
    let mut parts = Vec::new();
    if !values.is_empty() {
        let noun = if values.len() == 1 { "day" } else { "days" };
        parts.push(format!("{noun} {}", list(numbers(&values))));
    }
    if items.contains(&Item::LastDay) {
        parts.push("the last day".to_owned());
    }
    Some(format!("on {} of the month", list(parts)))
}

/// Nothing if these are all days.
fn days_of_week(items: &[Item]) -> Option<String> {
    let name = |day: u8| WEEKDAYS[usize::from(day % 7)];
    // A week ends with Sunday.
    let mut values: Vec<u8> =
        Field::Weekday.values(items).into_iter().map(|day| if day == 0 { 7 } else { day }).collect();
    values.sort_unstable();
    if values.len() == 7 {
        return None;
    }
    let plain = ranges(&values, " to ", |day| name(day).to_owned());
    let of_month = items.iter().filter_map(|item| match *item {
        Item::Nth { weekday, which } => Some((WHICH[usize::from(which) - 1], weekday)),
        Item::Last { weekday } => Some(("last", weekday)),
        _ => None,
    });
    let of_month = of_month.map(|(which, weekday)| format!("the {which} {} of the month", name(weekday)));
    Some(format!("on {}", list(plain.into_iter().chain(of_month).collect())))
}

fn month(items: &[Item]) -> String {
    let values = Field::Month.values(items);
    let names = ranges(&values, " to ", |month| MONTHS[usize::from(month) - 1].to_owned());
    if values.len() == 12 { String::new() } else { format!("in {}", list(names)) }
}

fn numbers(values: &[u8]) -> Vec<String> {
    ranges(values, "-", |value| value.to_string())
}

/// The sorted values, with three or more consecutive ones as a range.
fn ranges(values: &[u8], to: &str, name: impl Fn(u8) -> String) -> Vec<String> {
    let rows = values.chunk_by(|one, next| one + 1 == *next);
    let names = rows.flat_map(|row| match *row {
        [first, _, .., last] => vec![format!("{}{to}{}", name(first), name(last))],
        _ => row.iter().map(|value| name(*value)).collect(),
    });
    names.collect()
}

/// `a, b and c`.
fn list(mut items: Vec<String>) -> String {
    match items.pop() {
        Some(last) if !items.is_empty() => format!("{} and {last}", items.join(", ")),
        last => last.unwrap_or_default(),
    }
}
