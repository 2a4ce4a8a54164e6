//! Services, functions and schedules as the tables of a manifest, and how two of them differ.
//!
//! Invariant: [`Manifest::parse`](super::manifest::Manifest::parse) reads what is written here, as the same settings.

use std::fmt::Write as _;

use toml_writer::{ToTomlKey, ToTomlValue, TomlKeyBuilder, TomlStringBuilder};

use super::function::{CallFormat, Definition, Function, WorkerLimits};
use super::hook::{HookKind, Hooks};
use super::json::{Json, unquote};
use super::rate::Rate;
use super::retention::write_keep;
use super::retry_policy::{Backoff, RetryPolicy};
use super::schedule::{Schedule, ScheduleDefinition};
use super::service::Service;
use super::size::write_size;
use super::tick::{Lateness, Missed};
use super::time::{Timestamp, write_span};
use super::timetable::Rule;

/// Whether the values of recorded variables are written, or only their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvValues {
    /// Both.
    Shown,
    /// The names: each variable has the value that it has when the manifest is applied.
    Hidden,
}

/// One setting of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    key: &'static str,
    /// As TOML writes it; `None` where the setting has no value.
    value: Option<String>,
    is_default: bool,
    /// Whether it may hold what not everybody is to see.
    is_private: bool,
}

/// Collects settings.
#[derive(Debug, Default)]
struct Settings(Vec<Setting>);

impl Settings {
    /// A setting that has no value by default.
    fn add(&mut self, key: &'static str, value: Option<String>) {
        self.0.push(Setting { key, is_default: value.is_none(), value, is_private: false });
    }

    /// A setting with a default.
    fn add_unless(&mut self, is_default: bool, key: &'static str, value: String) {
        self.0.push(Setting { key, value: Some(value), is_default, is_private: false });
    }

    /// A setting whose value is not shown when it changes.
    fn add_private(&mut self, key: &'static str, value: Option<String>) {
        self.0.push(Setting { key, is_default: value.is_none(), value, is_private: true });
    }

    fn add_hooks(&mut self, hooks: &Hooks) {
        for kind in HookKind::ALL {
            self.add(kind.as_str(), hooks.get(kind).map(|target| string(&target.to_string())));
        }
    }
}

/// The settings of a service.
pub(super) fn of_service(service: &Service) -> Vec<Setting> {
    let mut it = Settings::default();
    let (concurrency, width) = (service.concurrency.get(), service.lane_width.get());
    it.add_unless(concurrency == 1, "concurrency", concurrency.to_string());
    it.add_unless(width == 1, "lane_width", width.to_string());
    it.add("rate", service.rate.map(|rate| string(&rate.to_string())));
    let burst = service.rate.filter(|rate| Rate::parse(&rate.to_string()).map(Rate::burst).ok() != Some(rate.burst()));
    it.add("burst", burst.map(|rate| rate.burst().to_string()));
    for (key, time) in [("keep", service.retention.ended), ("keep_errors", service.retention.errors)] {
        it.add_unless(time.is_none(), key, string(&write_keep(time)));
    }
    it.add_hooks(&service.hooks);
    let pause = service.pause.as_ref().map(|pause| pause.why.as_deref().map_or_else(|| "true".to_owned(), string));
    it.add_unless(pause.is_none(), "paused", pause.unwrap_or_else(|| "false".to_owned()));
    it.0
}

/// The settings of a function.
pub(super) fn of_function(is: &Definition, env: EnvValues) -> Vec<Setting> {
    let mut it = Settings::default();
    it.add("command", Some(array(&is.command)));
    it.add("site", Some(string(&is.site)));
    let variable = |(name, value): (&String, &String)| {
        let value = if env == EnvValues::Shown { string(value) } else { "true".to_owned() };
        format!("{} = {value}", key(name))
    };
    it.add_private("env", (!is.env.is_empty()).then(|| table(is.env.iter().map(variable))));
    it.add("timeout", is.timeout.map(|span| string(&write_span(span))));
    it.add_unless(is.worker.is_none(), "worker", is.worker.map_or_else(|| "false".to_owned(), worker));
    let (args, stdin, usual) = (is.call_format.args(), is.call_format.stdin(), CallFormat::default());
    it.add_unless(args == usual.args(), "args", string(args.as_str()));
    it.add_unless(stdin == usual.stdin(), "stdin", string(stdin.as_str()));
    let (policy, usual) = (&is.policy.retry, RetryPolicy::default());
    let says = policy.backoff != Backoff::default() || policy.on.is_some() || policy.not_on.is_some();
    it.add_unless(policy.retries == 0 && !says, "retries", policy.retries.to_string());
    it.add_unless(policy.backoff == usual.backoff, "backoff", string(&policy.backoff.to_string()));
    it.add("retry_on", policy.on.as_ref().map(|list| codes(&list.to_string())));
    it.add("no_retry_on", policy.not_on.as_ref().map(|list| codes(&list.to_string())));
    it.add_unless(policy.conflicts == usual.conflicts, "conflicts", policy.conflicts.to_string());
    it.add("takes", is.inputs.takes.as_ref().map(|takes| string(&takes.to_string())));
    let secret: Vec<String> = is.inputs.secret.words().collect();
    it.add("secret", (!secret.is_empty()).then(|| array(&secret)));
    it.add("env_file", is.inputs.env_file.as_deref().map(string));
    it.add("lane", is.policy.lane.as_ref().map(|lane| string(lane.as_str())));
    it.add_unless(!is.policy.is_local, "local", is.policy.is_local.to_string());
    it.add_unless(!is.policy.is_merged, "merge", is.policy.is_merged.to_string());
    it.add_hooks(&is.policy.hooks);
    it.0
}

/// The settings of a schedule.
pub(super) fn of_schedule(is: &ScheduleDefinition, paused: bool) -> Vec<Setting> {
    let mut it = Settings::default();
    let (call, rule) = (&is.call, &is.timetable.rule);
    it.add("call", Some(string(&is.target().to_string())));
    it.add_private("args", (call.args.as_str() != "[]").then(|| json(&call.args)));
    it.add_private("kwargs", (call.kwargs.as_str() != "{}").then(|| json(&call.kwargs)));
    let (cron, zone) = rule.as_cron().unzip();
    it.add("cron", cron.map(string));
    it.add("tz", zone.map(string));
    it.add("every", rule.as_every().map(|span| string(&write_span(span))));
    let lateness = &is.lateness;
    let usual = Lateness::new(lateness.missed(), None, None).map(|usual| usual.overlap());
    it.add_unless(lateness.missed() == Missed::default(), "missed", string(lateness.missed().as_str()));
    it.add("within", lateness.given_within().map(|span| string(&write_span(span))));
    it.add_unless(usual.is_ok_and(|it| it == lateness.overlap()), "overlap", string(lateness.overlap().as_str()));
    it.add("from", is.timetable.from().map(|from| moment(rule, from)));
    it.add("until", is.timetable.until().map(|until| moment(rule, until)));
    it.add_unless(is.priority.get() == 0, "priority", is.priority.get().to_string());
    it.add("lane", is.lane.as_ref().map(|lane| string(lane.as_str())));
    it.add("expires", is.expires.map(|span| string(&write_span(span))));
    it.add_private("meta", is.meta.as_ref().map(|meta| json(meta.json())));
    it.add("principal", call.principal.as_ref().map(|principal| string(principal.as_str())));
    it.add("site", call.site.as_deref().map(string));
    it.add("description", is.description.as_deref().map(string));
    it.add_unless(!paused, "paused", paused.to_string());
    it.0
}

/// What differs between two settings of the same kind, as in `concurrency 1 -> 2, rate "10/s" -> none`.
pub(super) fn differences(old: &[Setting], new: &[Setting]) -> String {
    let differs = old.iter().zip(new).filter(|(old, new)| old.value != new.value).map(|(old, new)| {
        let text = |it: &Setting| it.value.clone().unwrap_or_else(|| "none".to_owned());
        match (old.is_private, &old.value, &new.value) {
            (true, None, _) => format!("{} added", old.key),
            (true, _, None) => format!("{} removed", old.key),
            (true, ..) => format!("{} changed", old.key),
            (false, ..) => format!("{} {} -> {}", old.key, text(old), text(new)),
        }
    });
    differs.collect::<Vec<_>>().join(", ")
}

/// A manifest of these services, functions and schedules.
#[must_use]
pub fn manifest_text(services: &[Service], functions: &[Function], schedules: &[Schedule], env: EnvValues) -> String {
    let mut out = String::new();
    for service in services {
        write_table(&mut out, "service", service.name.as_str(), &of_service(service));
    }
    for function in functions {
        write_table(&mut out, "function", &function.target().to_string(), &of_function(&function.definition, env));
    }
    for schedule in schedules {
        write_table(&mut out, "schedule", schedule.name.as_str(), &of_schedule(&schedule.definition, schedule.paused));
    }
    out
}

fn write_table(out: &mut String, kind: &str, name: &str, settings: &[Setting]) {
    let gap = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{gap}[{kind}.{}]", key(name));
    for setting in settings.iter().filter(|setting| !setting.is_default) {
        let _ = writeln!(out, "{} = {}", setting.key, setting.value.as_deref().unwrap_or_default());
    }
}

fn string(text: &str) -> String {
    TomlStringBuilder::new(text).as_default().to_toml_value()
}

fn key(text: &str) -> String {
    TomlKeyBuilder::new(text).as_default().to_toml_key()
}

fn array(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| string(text)).collect::<Vec<_>>().join(", "))
}

fn table(entries: impl Iterator<Item = String>) -> String {
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

/// Exit codes as numbers, everything else as texts.
fn codes(list: &str) -> String {
    let item = |item: &str| if item.parse::<u8>().is_ok() { item.to_owned() } else { string(item) };
    format!("[{}]", list.split(',').map(item).collect::<Vec<_>>().join(", "))
}

fn worker(limits: WorkerLimits) -> String {
    let entries = [
        limits.calls.map(|calls| format!("calls_per_worker = {calls}")),
        limits.idle.map(|idle| format!("idle = {}", string(&write_span(idle)))),
        limits.growth.map(|bytes| format!("memory_growth = {}", string(&write_size(bytes)))),
    ];
    let entries: Vec<String> = entries.into_iter().flatten().collect();
    if entries.is_empty() { "true".to_owned() } else { table(entries.into_iter()) }
}

/// A moment as the clock of the rule shows it, if that is exact.
fn moment(rule: &Rule, moment: Timestamp) -> String {
    let local = rule.local(moment);
    let text = if Timestamp::parse(&local) == Some(moment) { local } else { moment.to_string() };
    string(&text)
}

/// JSON as TOML; as a text with JSON in it where TOML has no such value.
fn json(value: &Json) -> String {
    toml_of(value.as_str()).unwrap_or_else(|| string(value.as_str()))
}

/// A JSON value as TOML, unless there is null in it, or a number that TOML cannot hold.
fn toml_of(text: &str) -> Option<String> {
    let text = text.trim_ascii();
    if let Some(text) = unquote(text) {
        return Some(string(&text));
    }
    let value = Json::parse(text).ok()?;
    if value.is_array() {
        let elements = value.elements().into_iter().map(toml_of).collect::<Option<Vec<_>>>()?;
        return Some(format!("[{}]", elements.join(", ")));
    }
    if value.is_object() {
        let entry = |(name, value): (String, &str)| Some(format!("{} = {}", key(&name), toml_of(value)?));
        let entries = value.entries().into_iter().map(entry).collect::<Option<Vec<_>>>()?;
        return Some(if entries.is_empty() { "{}".to_owned() } else { table(entries.into_iter()) });
    }
    let is_held = match text {
        "null" => false,
        "true" | "false" => true,
        number if number.contains(['.', 'e', 'E']) => number.parse::<f64>().is_ok_and(f64::is_finite),
        number => number.parse::<i64>().is_ok(),
    };
    is_held.then(|| text.to_owned())
}
