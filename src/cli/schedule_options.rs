//! The options that make a schedule.

use std::time::Duration;

use clap::Args;

use super::call_args::typed_call;
use super::call_options::{meta_of, parse_priority};
use super::clap_error::one_of;
use super::session::{Session, now};
use crate::domain::call::{Call, OnBehalfOf, Reading};
use crate::domain::lane::Lane;
use crate::domain::meta::Meta;
use crate::domain::moment::moment;
use crate::domain::new_job::Priority;
use crate::domain::tick::{Missed, Overlap};
use crate::domain::time::{Timestamp, parse_span};
use crate::domain::timetable::{Rule, Timetable};
use crate::domain::zone::machine_zone_name;
use crate::error::{Error, Kind};

/// The options that make a rule.
#[derive(Debug, Args)]
pub struct RuleOptions {
    /// Minute, hour, day of the month, month and day of the week, as in '30 2 * * mon-fri'; or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub cron: Option<String>,
    /// The time zone of --cron, as in Europe/Berlin [default: `$TZ`, or the time zone of this machine]
    #[arg(long, value_name = "ZONE")]
    pub tz: Option<String>,
    /// The span between two ticks, as in 90s or 1h30m; 1d is exactly 24 hours, even when clocks change
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    pub every: Option<Duration>,
}

impl RuleOptions {
    /// The rule, and whether it takes its zone from this machine.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the options make no rule, or two.
    pub fn rule(&self, session: &Session) -> Result<(Rule, bool), Error> {
        let refuse = |message: &str, hint: &str| Err(Error::new(Kind::Usage, message).with_hint(hint));
        match (&self.cron, self.every) {
            (Some(_), Some(_)) => refuse("`--cron` and `--every` exclude each other", "leave one of them out"),
            (None, None) => refuse(
                "the rule of the schedule is missing",
                "give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s",
            ),
            (None, Some(_)) if self.tz.is_some() => Err(no_zone()),
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

    /// The rule that they make of one that is there, if they say anything; and whether it takes its zone from this machine.
    ///
    /// # Errors
    /// As [`RuleOptions::rule`].
    pub fn changed(&self, old: &Rule, session: &Session) -> Result<Option<(Rule, bool)>, Error> {
        match (&self.cron, self.every, &self.tz, old.as_cron()) {
            (None, None, None, _) => Ok(None),
            (None, None, Some(zone), Some((pattern, _))) => Ok(Some((Rule::cron(pattern, zone)?, false))),
            (Some(cron), None, None, Some((_, zone))) => Ok(Some((Rule::cron(cron, zone)?, false))),
            (None, None, Some(_), None) => Err(no_zone()),
            _ => self.rule(session).map(Some),
        }
    }
}

/// The error for a zone of exact time.
fn no_zone() -> Error {
    Error::new(Kind::Usage, "`--every` is exact time, in which time zones make no difference")
        .with_hint("leave `--tz` out, or use --cron '0 9 * * *' for a time of day")
}

/// When a schedule begins and ends, and what it does with ticks that come late or too soon.
#[derive(Debug, Args)]
pub struct TickOptions {
    /// What happens to missed ticks: one job for all, one job only if the newest tick is recent, or one job for each [default: once]
    #[arg(long, value_name = "HOW", value_parser = one_of(Missed::ALL, Missed::as_str))]
    pub missed: Option<Missed>,
    /// How late a tick may be and still make a job [default: 1d; with --missed skip: 1m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    pub within: Option<Duration>,
    /// Whether a tick makes a job while the job of the one before has not ended: no, only if that one runs already, or yes [default: skip; with --missed all: allow]
    #[arg(long, value_name = "HOW", value_parser = one_of(Overlap::ALL, Overlap::as_str))]
    pub overlap: Option<Overlap>,
    /// The time from which on it ticks, as in '2026-12-01 9:00' (docs/delays.md)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The time before which it ticks for the last time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
}

impl TickOptions {
    /// The timetable of a rule.
    pub fn timetable(&self, rule: Rule, session: &Session) -> Result<Timetable, Error> {
        let now = now();
        let read = |text: &Option<String>| text.as_deref().map(|text| time(text, &rule, now, session)).transpose();
        let (from, until) = (read(&self.from)?, read(&self.until)?);
        Timetable::new(rule, from, until)
    }
}

/// How the jobs of a schedule are queued.
#[derive(Debug, Args)]
pub struct JobOptions {
    /// Run the calls before those with a larger priority, from -1000 to 1000 [default: 0]
    #[arg(long, value_name = "N", value_parser = parse_priority, allow_hyphen_values = true)]
    pub priority: Option<Priority>,
    /// The lane of the calls [default: that of the function]
    #[arg(long, value_name = "LANE")]
    pub lane: Option<String>,
    /// Cancel a call that has not begun this long after its tick
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    pub expires: Option<Duration>,
    /// Something to know about the calls, which their function gets, as in tenant=acme; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub meta: Vec<String>,
    /// On whose behalf the calls are made; '' for nobody [default: `$ASYNCQ_PRINCIPAL`]
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// What the schedule is for, in words
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A keyword argument; may be repeated
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    pub kwargs: Vec<String>,
    /// Take every argument as a string, even if it is JSON
    #[arg(long)]
    pub raw: bool,
}

impl JobOptions {
    pub fn lane(&self) -> Result<Option<Lane>, Error> {
        self.lane.as_deref().map(Lane::parse).transpose()
    }

    pub fn meta(&self) -> Result<Option<Meta>, Error> {
        meta_of(&self.meta)
    }

    pub fn on_behalf_of(&self) -> Result<OnBehalfOf, Error> {
        self.principal.as_deref().map_or(Ok(OnBehalfOf::Caller), OnBehalfOf::parse)
    }

    /// The call of these words.
    pub fn call(&self, names: (&str, &str), args: &[String]) -> Result<Call, Error> {
        typed_call(names, args, &self.kwargs, if self.raw { Reading::Raw } else { Reading::Json })
    }

    pub fn description(&self) -> Option<String> {
        self.description.clone().filter(|text| !text.is_empty())
    }
}

/// A time, in the zone of the rule if it has one.
pub fn time(text: &str, rule: &Rule, now: Timestamp, session: &Session) -> Result<Timestamp, Error> {
    moment(text, now, || if rule.as_cron().is_some() { Ok(rule.zone()) } else { session.zone(None) })
}
