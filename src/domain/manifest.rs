//! The manifest: a TOML file that lists services, functions and schedules. `docs/manifest.md` describes it.
//!
//! What a table leaves out gets its default. Only a pause stays as it is.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::call::{Call, Principal};
use super::function::{Args, CallFormat, FunctionPolicy, Inputs, Stdin, WorkerLimits};
use super::hook::{HookChange, HookKind, HookTarget, Hooks};
use super::json::Json;
use super::lane::{Lane, MAX_WIDTH};
use super::meta::Meta;
use super::moment::moment;
use super::new_job::Priority;
use super::pause::Pause;
use super::rate::Rate;
use super::retention::{RetentionChange, parse_keep};
use super::retry_policy::{Backoff, FailureList, RetryChange};
use super::schedule::{ScheduleDefinition, ScheduleName};
use super::secret::Secrets;
use super::service::{ServiceChange, ServiceName};
use super::signature::Signature;
use super::size::parse_size;
use super::tick::{Lateness, Missed, Overlap};
use super::time::{Timestamp, parse_span};
use super::timetable::{Rule, Timetable};
use super::toml_file::{Section, TomlFile, TomlValue};
use super::zone::{machine_zone_name, zone};
use crate::error::{Error, Kind, Result};

/// The longest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 8 * 1024 * 1024;

/// What a manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its services. What is `None` in a change stays as it is.
    pub services: Vec<(ServiceName, ServiceChange)>,
    /// Its functions.
    pub functions: Vec<ManifestFunction>,
    /// Its schedules.
    pub schedules: Vec<ManifestSchedule>,
}

/// A function of a manifest. Its program, its site and its variables are not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFunction {
    /// The byte of the file at which it begins.
    pub at: usize,
    /// Its service and its name.
    pub target: HookTarget,
    /// Its program and first arguments; not empty.
    pub command: Vec<String>,
    /// Its site; `None` for the folder of the file.
    pub site: Option<String>,
    /// The variables that it records; `None` for the value that one has now.
    pub env: BTreeMap<String, Option<String>>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// The limits of its workers, if it is one.
    pub worker: Option<WorkerLimits>,
    /// How a command gets its call.
    pub call_format: CallFormat,
    /// What it takes.
    pub inputs: Inputs,
    /// When and how its calls run.
    pub policy: FunctionPolicy,
}

/// A schedule of a manifest. The site of its call is not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSchedule {
    /// The byte of the file at which it begins.
    pub at: usize,
    /// Its name.
    pub name: ScheduleName,
    /// What it calls, and when.
    pub definition: ScheduleDefinition,
    /// Whether it is paused; `None` leaves that as it is.
    pub paused: Option<bool>,
}

impl Manifest {
    /// Parses a manifest. `here` is the zone of a schedule that names none.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the line and the column of what is wrong, and whatever `here` answers.
    pub fn parse(file: TomlFile<'_>, here: &dyn Fn() -> Result<TimeZone>) -> Result<Manifest> {
        let manifest = file.read(|mut top| {
            let mut manifest = Manifest::default();
            for value in tables(&mut top, "service", "service.mails")? {
                manifest.services.push((value.parsed_key(ServiceName::parse)?, service(&value)?));
            }
            for value in tables(&mut top, "function", "function.\"mails/send\"")? {
                manifest.functions.push(function(&value)?);
            }
            for value in tables(&mut top, "schedule", "schedule.nightly")? {
                manifest.schedules.push(schedule(&value, here)?);
            }
            top.finish()?;
            Ok(manifest)
        })?;
        if manifest == Manifest::default() {
            let message = format!("{} names no service, function or schedule", file.name);
            return Err(Error::new(Kind::Invalid, message)
                .with_hint("`asyncq export` shows how such a file looks, see docs/manifest.md"));
        }
        Ok(manifest)
    }
}

/// The tables of one kind, each with its name.
fn tables<'a>(top: &mut Section<'a>, kind: &'static str, example: &str) -> Result<Vec<TomlValue<'a>>> {
    let Some(value) = top.get(kind) else { return Ok(Vec::new()) };
    Ok(value.section("tables with names", &format!("[{example}], with its keys below it"))?.entries())
}

const TABLE: (&str, &str) = ("a table", "[service.mails], with its keys below it");

fn service(value: &TomlValue<'_>) -> Result<ServiceChange> {
    let mut it = value.section(TABLE.0, TABLE.1)?;
    let mut limit = |key, most: u32| {
        let limit = it.number(key, 1, i64::from(most))?.and_then(|limit| u32::try_from(limit).ok());
        Ok::<_, Error>(limit.and_then(NonZeroU32::new))
    };
    let concurrency = limit("concurrency", u32::MAX)?.unwrap_or(NonZeroU32::MIN);
    let lane_width = limit("lane_width", MAX_WIDTH)?.unwrap_or(NonZeroU32::MIN);
    let burst = limit("burst", Rate::LARGEST_BURST)?;
    let rate = it.parsed("rate", |text| if text == "none" { Ok(None) } else { Rate::parse(text).map(Some) })?.flatten();
    let (ended, errors) = (it.parsed("keep", parse_keep)?, it.parsed("keep_errors", parse_keep)?);
    let hooks = hooks(&mut it)?;
    let pause = it.get("paused").map(pause).transpose()?;
    it.finish()?;
    if burst.is_some() && rate.is_none() {
        return Err(it.error("`burst` needs `rate`").with_hint("add a rate, as in rate = \"10/s\""));
    }
    Ok(ServiceChange {
        concurrency: Some(concurrency),
        lane_width: Some(lane_width),
        rate: Some(rate.map(|rate| burst.map_or(rate, |burst| rate.with_burst(burst.get())))),
        hooks: HookChange {
            on_error: Some(hooks.get(HookKind::OnError).cloned()),
            on_success: Some(hooks.get(HookKind::OnSuccess).cloned()),
        },
        retention: RetentionChange { ended: Some(ended.flatten()), errors: Some(errors.flatten()) },
        pause,
    })
}

/// Whether a service is paused: true, false, or why it is.
fn pause(value: TomlValue<'_>) -> Result<Option<Pause>> {
    match (value.is(true), value.is(false), value.text()) {
        (true, ..) => Ok(Some(Pause::default())),
        (_, true, _) => Ok(None),
        (_, _, Ok(_)) => value.parsed(Pause::because).map(Some),
        (_, _, Err(_)) => Err(value.wrong("true, false, or a text that says why", "\"a new release\"")),
    }
}

fn hooks(it: &mut Section<'_>) -> Result<Hooks> {
    Ok(Hooks::new([it.parsed("on_error", HookTarget::parse)?, it.parsed("on_success", HookTarget::parse)?]))
}

fn function(value: &TomlValue<'_>) -> Result<ManifestFunction> {
    let target = value.parsed_key(|key| HookTarget::parse_as("a function", key)).map_err(|error| {
        // A name without quotes, whose parts are tables.
        let inner = value.first_key().filter(|_| !value.key.contains('/'));
        let meant = inner.map(|inner| format!("{}/{inner}", value.key)).filter(|it| HookTarget::parse(it).is_ok());
        match meant {
            Some(meant) => {
                error.reworded(error.kind(), error.to_string()).with_hint(format!("write [function.\"{meant}\"]"))
            }
            None => error,
        }
    })?;
    let mut it = value.section(TABLE.0, TABLE.1)?;
    let command = it.get("command").map(|value| value.texts()).transpose()?.unwrap_or_default();
    let site = it.text("site")?;
    let env = it.get("env").map(|value| variables(&value)).transpose()?.unwrap_or_default();
    let timeout = it.parsed("timeout", parse_span)?;
    let worker = it.get("worker").map(|value| worker(&value)).transpose()?.flatten();
    let args = it.named("args", &Args::ALL, Args::as_str)?;
    let stdin = it.named("stdin", &Stdin::ALL, Stdin::as_str)?;
    let change = retry(&mut it)?;
    let lane = it.parsed("lane", Lane::parse)?;
    let is_local = it.flag("local")?.unwrap_or_default();
    let is_merged = it.flag("merge")?.unwrap_or_default();
    let takes = it.parsed("takes", Signature::parse)?;
    let secret = it.get("secret").map(|value| Secrets::parse(&value.texts()?)).transpose()?.unwrap_or_default();
    let inputs = Inputs { takes, secret, env_file: it.text("env_file")? };
    let hooks = hooks(&mut it)?;
    it.finish()?;
    if command.is_empty() {
        return Err(it
            .error("`command` is missing")
            .with_hint("give the program and its first arguments, as in command = [\"./send\", \"--now\"]"));
    }
    if change.retries.is_none()
        && let Some(member) = change.idle_member()
    {
        return Err(it
            .error(format!("`{member}` says nothing about a function without `retries`"))
            .with_hint("add `retries`, as in retries = 5"));
    }
    if worker.is_some() && is_merged {
        return Err(it
            .error("`merge` is for commands, and this function is a worker")
            .with_hint("leave it out, or leave `worker` out"));
    }
    if worker.is_some() && (args.is_some() || stdin.is_some()) {
        return Err(it
            .error("`args` and `stdin` are for commands, and this function is a worker")
            .with_hint("leave them out: a worker gets its calls as messages (docs/protocol.md)"));
    }
    let call_format = CallFormat::new(args.unwrap_or(Args::Words), stdin.unwrap_or(Stdin::Call)).map_err(|_| {
        it.error("with `args = \"stdin\"` and `stdin = \"none\"` the program gets no arguments")
            .with_hint("leave one of them out")
    })?;
    let mut policy = FunctionPolicy { lane, hooks, is_local, is_merged, ..FunctionPolicy::default() };
    change.apply(&mut policy.retry);
    let at = it.at();
    Ok(ManifestFunction { at, target, command, site, env, timeout, worker, call_format, inputs, policy })
}

/// The variables that a function records: each has a text, or is true for the value that it has now.
fn variables(value: &TomlValue<'_>) -> Result<BTreeMap<String, Option<String>>> {
    let entries = value.section("a table of texts", "env = { LANG = \"C.UTF-8\", HOST = true }")?.entries();
    let variable = |entry: TomlValue<'_>| {
        let text = match (entry.is(true), entry.text()) {
            (true, _) => None,
            (false, Ok(text)) => Some(text.to_owned()),
            (false, Err(_)) => return Err(entry.wrong("a text, or true for the value that it has now", true)),
        };
        Ok((entry.key.to_owned(), text))
    };
    entries.into_iter().map(variable).collect()
}

/// How a program is kept: as a worker with these limits, or not.
fn worker(value: &TomlValue<'_>) -> Result<Option<WorkerLimits>> {
    if value.is(true) || value.is(false) {
        return Ok(value.is(true).then(WorkerLimits::default));
    }
    let mut it = value.section("true, or a table of limits", "worker = { calls_per_worker = 1000, idle = \"5m\" }")?;
    let calls = it.number("calls_per_worker", 1, i64::MAX)?.map(i64::unsigned_abs);
    let idle = it.parsed("idle", parse_span)?;
    let growth = it.parsed("memory_growth", |text| parse_size(text).map_err(|flaw| Error::new(Kind::Usage, flaw)))?;
    it.finish()?;
    Ok(Some(WorkerLimits { calls, idle, growth }))
}

fn retry(it: &mut Section<'_>) -> Result<RetryChange> {
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut list = |key| it.get(key).map(|value: TomlValue<'_>| value.list(FailureList::parse)).transpose();
    let (on, not_on) = (list("retry_on")?, list("no_retry_on")?);
    Ok(RetryChange {
        none: false,
        retries: it.number("retries", 0, u32::MAX.into())?.map(count),
        backoff: it.parsed("backoff", Backoff::parse)?,
        on,
        not_on,
        conflicts: it.number("conflicts", 1, u32::MAX.into())?.map(count).and_then(NonZeroU32::new),
    })
}

fn schedule(value: &TomlValue<'_>, here: &dyn Fn() -> Result<TimeZone>) -> Result<ManifestSchedule> {
    let name = value.parsed_key(ScheduleName::parse)?;
    let mut it = value.section(TABLE.0, TABLE.1)?;
    let target = it.parsed("call", |text| HookTarget::parse_as("a call", text))?;
    let args = it.get("args").map(|value| value.json('[', "an array")).transpose()?;
    let kwargs = it.get("kwargs").map(|value| value.json('{', "a table")).transpose()?;
    let meta = it.get("meta").map(|value| meta(&value)).transpose()?.flatten();
    let principal = it.parsed("principal", Principal::parse)?;
    let site = it.text("site")?;
    let rule = rule(&mut it, here);
    let priority = it.number("priority", -1000, 1000)?.and_then(Priority::new);
    let lane = it.parsed("lane", Lane::parse)?;
    let expires = it.parsed("expires", parse_span)?;
    let description = it.text("description")?.filter(|text| !text.is_empty());
    let missed = it.named("missed", &Missed::ALL, Missed::as_str)?;
    let within = it.parsed("within", parse_span)?;
    let overlap = it.named("overlap", &Overlap::ALL, Overlap::as_str)?;
    let (from, until) = (it.get("from"), it.get("until"));
    let paused = it.flag("paused")?;
    it.finish()?;
    let rule = rule?;
    let Some(HookTarget { service, function }) = target else {
        return Err(it.error("`call` is missing").with_hint("name the function, as in call = \"reports/weekly\""));
    };
    let zone = || if rule.as_cron().is_some() { Ok(rule.zone()) } else { here() };
    let time = |value: TomlValue<'_>| value.moment(|text| moment(text, Timestamp(0), zone));
    let (from, until) = (from.map(time).transpose()?, until.map(time).transpose()?);
    let whole = |error: Error| match error.hint() {
        Some(hint) => it.error(&error).with_hint(hint),
        None => it.error(&error),
    };
    let empty = |text| Json::parse(text).map_err(|fault| Error::new(Kind::Invalid, fault.to_string()));
    let call = Call {
        principal,
        site,
        ..Call::new(service, function, args.map_or_else(|| empty("[]"), Ok)?, kwargs.map_or_else(|| empty("{}"), Ok)?)
    };
    let definition = ScheduleDefinition {
        call,
        timetable: Timetable::new(rule.clone(), from, until).map_err(whole)?,
        lateness: Lateness::new(missed.unwrap_or_default(), within, overlap).map_err(whole)?,
        priority: priority.unwrap_or_default(),
        lane,
        expires,
        meta,
        description,
    };
    Ok(ManifestSchedule { at: it.at(), name, definition, paused })
}

fn meta(value: &TomlValue<'_>) -> Result<Option<Meta>> {
    Meta::of(value.json('{', "a table")?).map_err(|error| value.error(&error))
}

/// The rule of a schedule. Its keys count as asked for in any case.
fn rule(it: &mut Section<'_>, here: &dyn Fn() -> Result<TimeZone>) -> Result<Rule> {
    let (cron, tz, every) = (it.get("cron"), it.get("tz"), it.get("every"));
    match (cron, every) {
        (Some(_), Some(every)) => {
            Err(every.bad_key("`cron` and `every` exclude each other").with_hint("leave one of them out"))
        }
        (None, None) => Err(it
            .error("the rule of the schedule is missing")
            .with_hint("give times, as in cron = \"30 2 * * *\", or a span, as in every = \"90s\"")),
        (None, Some(every)) => match tz {
            Some(tz) => Err(tz
                .bad_key("`every` is exact time, in which time zones make no difference")
                .with_hint("leave `tz` out, or use cron = \"0 9 * * *\" for a time of day")),
            None => every.parsed(|text| Rule::every(parse_span(text)?)),
        },
        (Some(cron), None) => {
            let zone = match tz {
                Some(tz) => tz.parsed(zone)?,
                None => here()?,
            };
            let name = zone.iana_name().map_or_else(machine_zone_name, |name| Ok(name.to_owned()))?;
            cron.parsed(|text| Rule::cron(text, &name))
        }
    }
}
