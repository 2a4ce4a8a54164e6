//! `asyncq schedule`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::format::{FormatOptions, Record};
use super::session::{Session, now};
use super::table::{Column, Table};
use super::{exit, output};
use crate::domain::moment::moment;
use crate::domain::schedule::Rule;
use crate::domain::time::{Timestamp, parse_span};
use crate::domain::zone::machine_zone_name;
use crate::error::{Error, Kind};

/// Schedules: rules for when a call is made, again and again
#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// Print the next times of a rule, without storing it
    Next(Next),
}

impl Schedule {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        match self {
            Schedule::Next(next) => next.run(session),
        }
    }
}

/// The options that make a rule.
#[derive(Debug, Args)]
struct RuleOptions {
    /// Minute, hour, day of the month, month and day of the week, as in '30 2 * * mon-fri'; or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    cron: Option<String>,
    /// The time zone of --cron, as in Europe/Berlin [default: `$TZ`, or the time zone of this machine]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// Every so often, as in 90s or 1h30m; counted from 1970 in exact time, so 1d is 24 hours, whatever the clocks do
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    every: Option<Duration>,
}

impl RuleOptions {
    /// The rule, and whether it takes its zone from this machine.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the options make no rule, or two.
    fn rule(&self, session: &Session) -> Result<(Rule, bool), Error> {
        let refuse = |message: &str, hint: &str| Err(Error::new(Kind::Usage, message).with_hint(hint));
        match (&self.cron, self.every) {
            (Some(_), Some(_)) => refuse("`--cron` and `--every` exclude each other", "leave one of them out"),
            (None, None) => refuse(
                "the rule of the schedule is missing",
                "give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s",
            ),
            (None, Some(_)) if self.tz.is_some() => refuse(
                "`--every` is exact time, in which time zones make no difference",
                "leave `--tz` out, or use --cron '0 9 * * *' for a time of day",
            ),
            (None, Some(every)) => Ok((Rule::every(every)?, false)),
            (Some(cron), None) => {
                let Some(zone) = &self.tz else {
                    let zone = session.zone(None)?;
                    let name = zone.iana_name().map_or_else(machine_zone_name, |name| Ok(name.to_owned()))?;
                    return Ok((Rule::cron(cron, &name)?, true));
                };
                Ok((Rule::cron(cron, zone)?, false))
            }
        }
    }
}

/// A time, in the zone of the rule if it has one.
fn from(text: &str, rule: &Rule, now: Timestamp, session: &Session) -> Result<Timestamp, Error> {
    moment(text, now, || if rule.as_cron().is_some() { Ok(rule.zone()) } else { session.zone(None) })
}

/// Prints the next times of a rule.
#[derive(Debug, Args)]
pub struct Next {
    #[command(flatten)]
    rule: RuleOptions,
    /// How many times
    #[arg(short = 'n', value_name = "N", default_value = "5", value_parser = parse_count, allow_negative_numbers = true)]
    count: usize,
    /// The time from which on, as in '2026-12-01 9:00' (docs/delays.md) [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    #[command(flatten)]
    format: FormatOptions,
}

/// The most times that are printed at once.
const MOST: usize = 10_000;

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| format!("it must be a whole number from 1 to {MOST}"))
}

impl Next {
    fn run(&self, session: &Session) -> anyhow::Result<u8> {
        let format = self.format.format()?;
        let (rule, is_here) = self.rule.rule(session)?;
        let now = now();
        let after = match self.from.as_deref().map(|text| from(text, &rule, now, session)).transpose()? {
            Some(from) => Timestamp(from.0.saturating_sub(1)),
            None => now,
        };
        let first = rule.first(after)?;
        let ticks = std::iter::successors(Some(first), |tick| rule.next(*tick));
        let ticks: Vec<Timestamp> = ticks.take(self.count).collect();
        session.notice(&format!("{rule}{}", if is_here { " (the time zone of this machine)" } else { "" }));
        let records: Vec<Tick> = ticks.iter().map(|tick| Tick { tick: rule.local(*tick) }).collect();
        format.print_all(&records, || table(&rule, &ticks, now))?;
        Ok(exit::DONE)
    }
}

/// What programs get to read about a tick.
#[derive(Serialize)]
struct Tick {
    tick: String,
}

impl Record for Tick {
    const COLUMNS: &'static str = "tick";
}

fn table(rule: &Rule, ticks: &[Timestamp], now: Timestamp) -> Table {
    let mut table = Table::new(&[Column::always("TIME"), Column::whole("FROM NOW", 0)]);
    for tick in ticks {
        table.row([output::moment_in(*tick, &rule.zone()), output::relative(*tick, now)]);
    }
    table
}
