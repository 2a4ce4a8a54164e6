//! The options that make a schedule.

use std::time::Duration;

use clap::Args;

use super::call_args::typed_call;
use super::call_options::{meta_of, parse_priority};
use super::clap_error::one_of;
use crate::domain::call::{Call, OnBehalfOf, Reading};
use crate::domain::lane::Lane;
use crate::domain::new_job::Priority;
use crate::domain::schedule_edit::{RuleWords, ScheduleEdit};
use crate::domain::tick::{Missed, Overlap};
use crate::domain::time::parse_span;
use crate::error::Error;

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
    /// The words of the rule.
    pub fn words(&self) -> RuleWords {
        RuleWords { cron: self.cron.clone(), tz: self.tz.clone(), every: self.every }
    }
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
    /// The earliest time at which it ticks, as in '2026-12-01 9:00' (docs/delays.md)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The time from which on it no longer ticks
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
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
    /// Metadata for the function, as in tenant=acme; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub meta: Vec<String>,
    /// On whose behalf the calls are made; '' for nobody [default: `$ASYNCQ_PRINCIPAL`]
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// What the schedule is for, in words
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A keyword argument; may be repeated. NAME=@- reads its value, a string, from standard input
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    pub kwargs: Vec<String>,
    /// Take every argument as a string, even if it is JSON
    #[arg(long)]
    pub raw: bool,
}

impl JobOptions {
    pub fn on_behalf_of(&self) -> Result<OnBehalfOf, Error> {
        self.principal.as_deref().map_or(Ok(OnBehalfOf::Caller), OnBehalfOf::parse)
    }

    /// The call of these words.
    pub fn call(&self, names: (&str, &str), args: &[String]) -> Result<Call, Error> {
        typed_call(names, args, &self.kwargs, if self.raw { Reading::Raw } else { Reading::Json })
    }
}

/// What the options say about a schedule, except for its call and its principal.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for invalid values.
pub fn edit(rule: &RuleOptions, ticks: &TickOptions, job: &JobOptions) -> Result<ScheduleEdit, Error> {
    let TickOptions { missed, within, overlap, from, until } = ticks;
    Ok(ScheduleEdit {
        rule: rule.words(),
        missed: *missed,
        within: *within,
        overlap: *overlap,
        from: from.clone().map(Some),
        until: until.clone().map(Some),
        priority: job.priority,
        lane: job.lane.as_deref().map(Lane::parse).transpose()?.map(Some),
        expires: job.expires.map(Some),
        meta: meta_of(&job.meta)?.map(Some),
        description: job.description.clone().map(|text| Some(text).filter(|text| !text.is_empty())),
        ..ScheduleEdit::default()
    })
}
