//! The options that say when a call is due.

use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;

use super::output;
use super::session::{Session, now};
use crate::domain::job::JobId;
use crate::domain::moment::{expiry, moment};
use crate::domain::new_job::{Due, Expiry};
use crate::domain::text::escape_control;
use crate::domain::time::{Timestamp, parse_span};
use crate::error::{Error, Kind};

/// When a call is due.
#[derive(Debug, Args)]
pub struct DelayOptions {
    /// Run the call after this time, as in 10m or 1h30m
    #[arg(long = "in", value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    delay: Option<Duration>,

    /// Run the call at this time, as in 14:30, 'tomorrow 9:00' or 2026-12-01T09:00+01:00 (docs/delays.md)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "delay")]
    at: Option<String>,

    /// The time zone of --at and --expires, as in Europe/Berlin [default: `$TZ`, or the time zone of this machine]
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

/// When a call is due, and what was asked for.
pub struct Delay {
    /// When it is due.
    pub due: Due,
    asked: Option<Timestamp>,
    now: Timestamp,
}

impl DelayOptions {
    /// Refuses a time zone if no time needs it. `verb` is the command.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn check_zone(&self, has_expiry: bool, verb: &str) -> Result<(), Error> {
        if self.tz.is_none() || self.at.is_some() || has_expiry {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, "`--tz` needs `--at` or `--expires`")
            .with_hint(format!("`asyncq {verb} --help` shows how")))
    }

    /// When the call is due.
    ///
    /// # Errors
    /// As [`moment`], and [`Kind::Usage`] for an unknown zone.
    pub fn delay(&self, session: &Session) -> Result<Delay, Error> {
        let now = now();
        let (due, asked) = match (self.delay, self.at.as_deref()) {
            (Some(span), _) => (Due::In(span), Some(now.after(span))),
            (None, None) => (Due::Now, None),
            (None, Some(text)) => {
                let named = self.named_zone(session)?;
                let asked = moment(text, now, || named.map_or_else(|| session.zone(None), Ok));
                let asked = asked.map_err(|error| match parse_span(text) {
                    Ok(_) => error.with_hint(format!("`--in {}` delays a call by a span", escape_control(text.trim()))),
                    Err(_) => error,
                })?;
                (if asked == now { Due::Now } else { Due::At(asked.max(now)) }, Some(asked))
            }
        };
        Ok(Delay { due, asked, now })
    }

    /// Whether they say when the call is due.
    pub fn is_given(&self) -> bool {
        self.delay.is_some() || self.at.is_some()
    }

    /// The named zone. A zone that does not exist is an error even if the time has an offset.
    fn named_zone(&self, session: &Session) -> Result<Option<TimeZone>, Error> {
        self.tz.as_deref().map(|name| session.zone(Some(name))).transpose()
    }

    /// When the call expires.
    ///
    /// # Errors
    /// As [`expiry`], and [`Kind::Usage`] for a moment that comes before the call is due.
    pub fn expiry(&self, session: &Session, delay: &Delay, text: &str) -> Result<Expiry, Error> {
        let named = self.named_zone(session)?;
        let found = expiry(text, delay.now, || named.map_or_else(|| session.zone(None), Ok))?;
        let due = delay.due.moment(delay.now).unwrap_or(delay.now);
        if found.moment(due) > due {
            return Ok(found);
        }
        let (text, at) = (escape_control(text), output::moment(found.moment(due)));
        let why = if found.moment(due) <= delay.now { "has passed" } else { "comes before the call is due" };
        Err(Error::new(Kind::Usage, format!("`--expires` cannot be `{text}`: {at} {why}"))
            .with_hint("a call that has expired never runs; a span, as in `10m`, counts from when the call is due"))
    }
}

impl Delay {
    /// Prints when the job is due, unless it is held. Always prints it if the job should have been due earlier than now.
    pub fn tell(&self, session: &Session, id: JobId, hold: bool) {
        match self.asked {
            Some(asked) if asked < self.now => {
                session.info(&format!("{} has passed, so the call is due now", output::moment(asked)));
            }
            Some(asked) if asked > self.now && !hold => {
                let (at, from_now) = (output::moment(asked), output::relative(asked, self.now));
                session.notice(&format!("job {id} is due at {at}, {from_now}"));
            }
            _ => {}
        }
    }
}
