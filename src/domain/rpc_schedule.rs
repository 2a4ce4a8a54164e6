//! What programs ask about schedules. `docs/rpc.md` describes it.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::{json, meta, priority, site};
use super::call::{Call, OnBehalfOf};
use super::function::FunctionName;
use super::json::Json;
use super::lane::Lane;
use super::rpc_fault::{MOST_ENTRIES, RpcFault, check_count, name, parsed, present, read};
use super::schedule::ScheduleName;
use super::schedule_edit::{Edit, RuleWords, ScheduleEdit};
use super::service::ServiceName;
use super::text::escape_control;
use super::tick::{Missed, Overlap};
use super::time::parse_span;
use crate::error::Result;

/// What a program asks about schedules.
#[derive(Debug)]
pub enum ScheduleRequest {
    /// To make sure that there is a schedule like this. The flag says whether a different one of that name is changed; otherwise,
    /// it is an error.
    Add(ScheduleName, WrittenSchedule, bool),
    /// To change a schedule.
    Set(ScheduleName, WrittenSchedule),
    /// The schedules of a service, or all.
    List(Option<ServiceName>),
    /// One schedule.
    Show(ScheduleName),
    /// The next ticks.
    Next(NextTicks),
    /// To pause these.
    Pause(Vec<ScheduleName>),
    /// To have these go on.
    Resume(Vec<ScheduleName>),
    /// To remove one.
    Remove(ScheduleName),
    /// To make one call of a schedule now, or one for each tick from a time on and until another one.
    Run(ScheduleName, Option<(String, Option<String>)>),
}

impl ScheduleRequest {
    /// Whether it changes nothing.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(self, ScheduleRequest::List(_) | ScheduleRequest::Show(_) | ScheduleRequest::Next(_))
    }
}

/// What a program says about a schedule.
#[derive(Debug)]
pub struct WrittenSchedule {
    /// All but the principal.
    pub edit: ScheduleEdit,
    /// On whose behalf its calls are made, if the program says so.
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// Which ticks a program asks for.
#[derive(Debug)]
pub struct NextTicks {
    /// Those of a schedule, or of a rule.
    pub of: Result<ScheduleName, RuleWords>,
    /// How many.
    pub count: usize,
    /// At this time or later.
    pub from: Option<String>,
}

/// The methods for schedules.
pub(super) const SCHEDULE_METHODS: [&str; 9] = [
    "schedule.add",
    "schedule.set",
    "schedule.list",
    "schedule.show",
    "schedule.next",
    "schedule.pause",
    "schedule.resume",
    "schedule.remove",
    "schedule.run",
];

/// Parses a request about schedules.
pub(super) fn schedule_request(method: &str, params: &str) -> Result<ScheduleRequest, RpcFault> {
    Ok(match method {
        "schedule.add" => {
            let params: ScheduleParams<'_> = read(params)?;
            let (name, change) = (name(ScheduleName::parse(&params.schedule))?, params.change.unwrap_or_default());
            let written = written(params)?;
            if written.edit.call.is_none() {
                return Err(RpcFault::params("wrong params: `service` is missing"));
            }
            ScheduleRequest::Add(name, written, change)
        }
        "schedule.set" => {
            let params: ScheduleParams<'_> = read(params)?;
            if params.change.is_some() {
                return Err(RpcFault::params("wrong params: `change` is not known"));
            }
            let (name, written) = (name(ScheduleName::parse(&params.schedule))?, written(params)?);
            if written.edit.is_empty() && written.on_behalf_of.is_none() {
                return Err(RpcFault::params("wrong params: they change nothing"));
            }
            ScheduleRequest::Set(name, written)
        }
        "schedule.list" => list(params)?,
        "schedule.next" => next(params)?,
        "schedule.pause" => ScheduleRequest::Pause(names(params)?),
        "schedule.resume" => ScheduleRequest::Resume(names(params)?),
        "schedule.run" => run(params)?,
        "schedule.remove" => ScheduleRequest::Remove(one(params)?),
        _ => ScheduleRequest::Show(one(params)?),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "another value, none, or as it is")]
struct ScheduleParams<'a> {
    #[serde(borrow)]
    schedule: Cow<'a, str>,
    #[serde(borrow)]
    service: Option<Cow<'a, str>>,
    #[serde(borrow)]
    function: Option<Cow<'a, str>>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    kwargs: Option<&'a RawValue>,
    site: Option<String>,
    #[serde(default, deserialize_with = "present")]
    principal: Option<Option<String>>,
    cron: Option<String>,
    tz: Option<String>,
    every: Option<String>,
    missed: Option<String>,
    within: Option<String>,
    overlap: Option<String>,
    #[serde(default, deserialize_with = "present")]
    from: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    until: Option<Option<String>>,
    priority: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    lane: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    expires: Option<Option<String>>,
    #[serde(default, borrow, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    description: Option<Option<String>>,
    change: Option<bool>,
}

fn wrong(flaw: impl Into<String>) -> RpcFault {
    RpcFault::params(format!("wrong params: {}", flaw.into()))
}

/// What the parameters say about a schedule.
fn written(params: ScheduleParams<'_>) -> Result<WrittenSchedule, RpcFault> {
    let call = call(&params)?;
    let span = |member, text: Option<String>| parsed(member, text, parse_span).map_err(wrong);
    let expires: Edit<Duration> = params.expires.map(|text| span("expires", text)).transpose()?;
    let lane = name(params.lane.map(|lane| lane.as_deref().map(Lane::parse).transpose()).transpose())?;
    let edit = ScheduleEdit {
        call,
        principal: None,
        rule: RuleWords { cron: params.cron, tz: params.tz, every: span("every", params.every)? },
        missed: named("missed", params.missed, &Missed::ALL, Missed::as_str)?,
        within: span("within", params.within)?,
        overlap: named("overlap", params.overlap, &Overlap::ALL, Overlap::as_str)?,
        from: params.from,
        until: params.until,
        priority: name(params.priority.map(priority).transpose())?,
        lane,
        expires,
        meta: match params.meta.map(RawValue::get) {
            Some("null") => Some(None),
            _ => name(params.meta.map(meta).transpose())?,
        },
        description: params.description.map(|text| text.filter(|text| !text.is_empty())),
    };
    let on_behalf_of = params.principal.map(|principal| OnBehalfOf::parse(&principal.unwrap_or_default()));
    Ok(WrittenSchedule { edit, on_behalf_of: name(on_behalf_of.transpose())? })
}

/// The call, if there is one.
fn call(params: &ScheduleParams<'_>) -> Result<Option<Call>, RpcFault> {
    let (Some(service), Some(function)) = (&params.service, &params.function) else {
        let needs = if params.function.is_some() { "service" } else { "function" };
        let has_part = params.service.is_some()
            || params.function.is_some()
            || params.args.is_some()
            || params.kwargs.is_some()
            || params.site.is_some();
        return if has_part { Err(wrong(format!("a call needs `{needs}`, too"))) } else { Ok(None) };
    };
    let (args, kwargs) = (params.args.map_or("[]", RawValue::get), params.kwargs.map_or("{}", RawValue::get));
    let args = name(json("args", args, Json::is_array, "an array, as in [2,7]"))?;
    let kwargs = name(json("kwargs", kwargs, Json::is_object, r#"an object, as in {"to":"bob"}"#))?;
    let (service, function) = (name(ServiceName::parse(service))?, name(FunctionName::parse(function))?);
    let site = name(params.site.clone().map(site).transpose())?;
    Ok(Some(Call { site, ..Call::new(service, function, args, kwargs) }))
}

/// A value that has a name.
fn named<T: Copy>(
    member: &str,
    text: Option<String>,
    all: &[T],
    as_str: fn(T) -> &'static str,
) -> Result<Option<T>, RpcFault> {
    let Some(text) = text else { return Ok(None) };
    if let Some(found) = all.iter().find(|it| as_str(**it) == text) {
        return Ok(Some(*found));
    }
    let names: Vec<String> = all.iter().map(|it| format!("\"{}\"", as_str(*it))).collect();
    Err(wrong(format!("`{member}` has to be {}, not `{}`", names.join(" or "), escape_control(&text))))
}

fn list(params: &str) -> Result<ScheduleRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ListParams {
        service: Option<String>,
    }
    let service = read::<ListParams>(params)?.service;
    Ok(ScheduleRequest::List(name(service.as_deref().map(ServiceName::parse).transpose())?))
}

fn one(params: &str) -> Result<ScheduleName, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OneParams {
        schedule: String,
    }
    name(ScheduleName::parse(&read::<OneParams>(params)?.schedule))
}

fn names(params: &str) -> Result<Vec<ScheduleName>, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NamesParams {
        schedules: Vec<String>,
    }
    let NamesParams { schedules } = read(params)?;
    check_count("schedules", &schedules)?;
    schedules.iter().map(|it| name(ScheduleName::parse(it))).collect()
}

fn next(params: &str) -> Result<ScheduleRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NextParams {
        schedule: Option<String>,
        cron: Option<String>,
        tz: Option<String>,
        every: Option<String>,
        count: Option<usize>,
        from: Option<String>,
    }
    let NextParams { schedule, cron, tz, every, count, from } = read(params)?;
    let count = count.unwrap_or(5);
    if !(1..=MOST_ENTRIES).contains(&count) {
        return Err(wrong(format!("`count` has to be a whole number from 1 to {MOST_ENTRIES}")));
    }
    let words = RuleWords { cron, tz, every: parsed("every", every, parse_span).map_err(wrong)? };
    let of = match schedule {
        Some(_) if words != RuleWords::default() => {
            return Err(wrong("`schedule` and a rule exclude each other"));
        }
        Some(schedule) => Ok(name(ScheduleName::parse(&schedule))?),
        None => Err(words),
    };
    Ok(ScheduleRequest::Next(NextTicks { of, count, from }))
}

fn run(params: &str) -> Result<ScheduleRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RunParams {
        schedule: String,
        from: Option<String>,
        until: Option<String>,
    }
    let RunParams { schedule, from, until } = read(params)?;
    if from.is_none() && until.is_some() {
        return Err(wrong("`until` needs `from`"));
    }
    Ok(ScheduleRequest::Run(name(ScheduleName::parse(&schedule))?, from.map(|from| (from, until))))
}
