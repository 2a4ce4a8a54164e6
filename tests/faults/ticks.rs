//! Changes of clocks: the ticks of random patterns around them, against a walk through every minute.

use asyncq::domain::time::Timestamp;
use asyncq::domain::timetable::Rule;
use fastrand::Rng;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

use crate::scale::{figure, many, random};

/// Where clocks change, and a day shortly before.
const CHANGES: [(&str, &str); 15] = [
    ("Europe/Berlin", "2026-03-20"),
    ("Europe/Berlin", "2026-10-20"),
    ("America/New_York", "2026-03-01"),
    ("America/New_York", "2026-10-25"),
    // By half an hour.
    ("Australia/Lord_Howe", "2026-03-29"),
    ("Australia/Lord_Howe", "2026-09-27"),
    // At midnight.
    ("Africa/Cairo", "2026-04-20"),
    ("Africa/Cairo", "2026-10-25"),
    ("America/Asuncion", "2023-09-25"),
    ("America/Asuncion", "2024-03-20"),
    ("Asia/Beirut", "2026-03-25"),
    // At a quarter to three.
    ("Pacific/Chatham", "2026-09-20"),
    // By two hours.
    ("Antarctica/Troll", "2026-10-20"),
    // At once by a day, which is left out.
    ("Pacific/Apia", "2011-12-25"),
    ("Pacific/Kwajalein", "1993-08-15"),
];

/// The largest and the smallest value of each field.
const BOUNDS: [(u8, u8); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];

/// A pattern, and what it says.
struct Random {
    text: String,
    values: [Vec<u8>; 5],
    stars: [bool; 5],
    last_day: bool,
    /// Which of the weekdays in a month, or the last one.
    of_month: Vec<(u8, Option<u8>)>,
}

impl Random {
    fn new(random: &mut Rng) -> Random {
        let (mut values, mut stars, mut texts) = (<[Vec<u8>; 5]>::default(), [false; 5], Vec::new());
        let (mut last_day, mut of_month) = (false, Vec::new());
        for (at, (low, high)) in BOUNDS.into_iter().enumerate() {
            let often_any = at >= 2;
            if random.u8(..10) < if often_any { 7 } else { 2 } {
                let step = if random.bool() { 1 } else { random.u8(2..=high.min(20)) };
                values[at].extend((low..=high).step_by(step.into()));
                stars[at] = true;
                texts.push(if step == 1 { "*".to_owned() } else { format!("*/{step}") });
                continue;
            }
            let mut items = Vec::new();
            for _ in 0..random.usize(1..=3) {
                // Most changes are at night.
                let high = if at == 1 && random.bool() { 4 } else { high };
                let (one, two) = (random.u8(low..=high), random.u8(low..=high));
                let (first, last) = (one.min(two), one.max(two));
                items.push(match random.u8(..10) {
                    0 | 1 => {
                        values[at].extend(first..=last);
                        format!("{first}-{last}")
                    }
                    2 => {
                        let step = random.u8(1..=high.max(2));
                        values[at].extend((first..=last).step_by(step.into()));
                        format!("{first}-{last}/{step}")
                    }
                    3 | 4 if at == 2 => {
                        last_day = true;
                        "L".to_owned()
                    }
                    3 if at == 4 => {
                        let which = random.u8(1..=5);
                        of_month.push((one % 7, Some(which)));
                        format!("{one}#{which}")
                    }
                    4 if at == 4 => {
                        of_month.push((one % 7, None));
                        format!("{one}L")
                    }
                    _ => {
                        values[at].push(one);
                        one.to_string()
                    }
                });
            }
            texts.push(items.join(","));
        }
        values[4].iter_mut().for_each(|day| *day %= 7);
        Random { text: texts.join(" "), values, stars, last_day, of_month }
    }

    fn names(&self, time: DateTime) -> bool {
        let weekday = u8::try_from(time.weekday().since(Weekday::Sunday)).unwrap();
        let number = |at: usize, value: i8| self.values[at].contains(&u8::try_from(value).unwrap());
        let which = u8::try_from((time.day() - 1) / 7 + 1).unwrap();
        let is_last = time.day() + 7 > time.days_in_month();
        let day = number(2, time.day()) || self.last_day && time.day() == time.days_in_month();
        let of_month =
            self.of_month.iter().any(|(day, nth)| *day == weekday && nth.map_or(is_last, |nth| nth == which));
        let of_week = self.values[4].contains(&weekday) || of_month;
        let days = if self.stars[2] || self.stars[4] { day && of_week } else { day || of_week };
        days && number(0, time.minute()) && number(1, time.hour()) && number(3, time.month())
    }
}

/// One minute of real time: what the clock shows in it, and what it has passed since the minute before, for the first time.
struct Step {
    at: i64,
    shows: DateTime,
    passes: Vec<DateTime>,
}

/// The minutes of 35 hours before and after the change.
fn walk(zone: &TimeZone, day: &str) -> Vec<Step> {
    let start = zone.to_timestamp(day.parse::<jiff::civil::Date>().unwrap().into()).unwrap();
    let change = zone.following(start).next().unwrap().timestamp();
    assert!(change.duration_since(start) < SignedDuration::from_hours(14 * 24), "{day}: the clocks change at {change}");
    let first = change - 35.hours();
    let mut highest = zone.to_datetime(first) - 1.minute();
    let steps = (0..70 * 60).map(|minute| {
        let moment = first + SignedDuration::from_mins(minute);
        let shows = zone.to_datetime(moment);
        let mut passes = Vec::new();
        while highest < shows {
            highest += 1.minute();
            passes.push(highest);
        }
        Step { at: moment.as_millisecond(), shows, passes }
    });
    let steps: Vec<Step> = steps.collect();
    assert!(steps.iter().any(|step| step.passes.len() != 1), "{day}: no clock changes");
    steps
}

/// When the pattern comes, decided minute by minute.
fn reference(pattern: &Random, steps: &[Step]) -> Vec<i64> {
    let keeps_beat = pattern.stars[0] || pattern.stars[1];
    let comes = |step: &&Step| {
        if keeps_beat { pattern.names(step.shows) } else { step.passes.iter().any(|time| pattern.names(*time)) }
    };
    steps.iter().filter(comes).map(|step| step.at).collect()
}

#[test]
fn ticks_around_changes_of_clocks_are_those_of_a_walk_through_every_minute() {
    let mut random = random("ticks");
    let (mut patterns, mut ticks, mut never) = (0, 0, 0);
    for (name, day) in CHANGES {
        let zone = TimeZone::get(name).unwrap();
        let steps = walk(&zone, day);
        let (start, end) = (steps[0].at - 1, steps[steps.len() - 1].at);
        let mut left = many(5000, 20);
        while left > 0 {
            let pattern = Random::new(&mut random);
            let rule = match Rule::cron(&pattern.text, name) {
                Ok(rule) => rule,
                Err(error) => {
                    let is_never = error.to_string().ends_with("never comes") && reference(&pattern, &steps).is_empty();
                    assert!(is_never, "{}: {error}", pattern.text);
                    never += 1;
                    continue;
                }
            };
            let expected = reference(&pattern, &steps);
            let found = std::iter::successors(rule.next(Timestamp(start)), |tick| rule.next(*tick));
            let found: Vec<i64> = found.map(|tick| tick.0).take_while(|tick| *tick <= end).collect();
            assert_eq!(found, expected, "{} in {name} after {day}", pattern.text);
            for _ in 0..5 {
                let after = random.i64(start..end);
                let next = expected.iter().copied().find(|tick| *tick > after);
                let found = rule.next(Timestamp(after)).map(|tick| tick.0).filter(|tick| *tick <= end);
                assert_eq!(found, next, "{} in {name} after {}", pattern.text, Timestamp(after));
            }
            patterns += 1;
            left -= 1;
            ticks += expected.len();
        }
    }
    figure(
        "ticks",
        format!(
            "{patterns} patterns around {} changes of clocks, {ticks} ticks: 0 differences; {never} never come",
            CHANGES.len()
        ),
    );
}
