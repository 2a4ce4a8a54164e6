//! How schedules are shown: in lists, alone, and to programs.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::format::Record;
use super::output::{self, FieldList, or_dash, relative, text};
use super::process;
use super::session::now;
use super::table::{Column, Table};
use crate::domain::call::{Call, Principal};
use crate::domain::lane::Lane;
use crate::domain::pause::Paused;
use crate::domain::schedule::{Schedule, ScheduleProgress};
use crate::domain::tick::{Skip, Why};
use crate::domain::time::{Timestamp, write_span};
use crate::domain::timetable::Rule;

/// How many of its next ticks a person sees.
pub const NEXT: usize = 5;

/// What programs read about a schedule. Spans are in seconds.
pub struct View<'a>(pub &'a Schedule);

impl Record for View<'_> {
    const COLUMNS: &'static str = "name,service,function,args,kwargs,principal,site,priority,lane,expires,meta,cron,zone,every,missed,\
                                   within,overlap,from,until,state,next_tick,last_tick,last_job,fired,skipped,\
                                   last_skip.tick,last_skip.why,description,created_at";
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Schedule { name, definition, progress, created_at, .. } = self.0;
        let (call, timetable, lateness) = (&definition.call, &definition.timetable, &definition.lateness);
        let (cron, zone) = timetable.rule.as_cron().unzip();
        let tick = |tick: Option<Timestamp>| tick.map(|tick| timetable.rule.local(tick));
        let raw = |json: &str| RawValue::from_string(json.to_owned()).ok();
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("name", name.as_str())?;
        object.serialize_entry("service", call.service.as_str())?;
        object.serialize_entry("function", call.function.as_str())?;
        object.serialize_entry("args", &raw(call.args.as_str()))?;
        object.serialize_entry("kwargs", &raw(call.kwargs.as_str()))?;
        object.serialize_entry("principal", &call.principal.as_ref().map(Principal::as_str))?;
        object.serialize_entry("site", &call.site)?;
        object.serialize_entry("priority", &definition.priority.get())?;
        object.serialize_entry("lane", &definition.lane.as_ref().map(Lane::as_str))?;
        object.serialize_entry("expires", &definition.expires.map(|span| span.as_secs_f64()))?;
        object.serialize_entry("meta", &definition.meta.as_ref().and_then(|meta| raw(meta.as_str())))?;
        object.serialize_entry("cron", &cron)?;
        object.serialize_entry("zone", &zone)?;
        object.serialize_entry("every", &timetable.rule.as_every().map(|every| every.as_secs_f64()))?;
        object.serialize_entry("missed", lateness.missed().as_str())?;
        object.serialize_entry("within", &lateness.within().as_secs_f64())?;
        object.serialize_entry("overlap", lateness.overlap().as_str())?;
        object.serialize_entry("from", &tick(timetable.from()))?;
        object.serialize_entry("until", &tick(timetable.until()))?;
        object.serialize_entry("state", state_name(self.0))?;
        object.serialize_entry("next_tick", &tick(progress.next_tick.filter(|_| !self.0.paused)))?;
        object.serialize_entry("last_tick", &tick(progress.last_tick))?;
        object.serialize_entry("last_job", &progress.last_job)?;
        object.serialize_entry("fired", &progress.fired)?;
        object.serialize_entry("skipped", &progress.skipped)?;
        object
            .serialize_entry("last_skip", &progress.last_skip.as_ref().map(|skip| SkipView(skip, &timetable.rule)))?;
        object.serialize_entry("description", &definition.description)?;
        object.serialize_entry("created_at", &created_at.to_string())?;
        object.end()
    }
}

/// What programs read about a tick that made no job.
struct SkipView<'a>(&'a Skip, &'a Rule);

impl Serialize for SkipView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("tick", &self.1.local(Timestamp(self.0.tick)))?;
        object.serialize_entry("why", &self.0.why.to_string())?;
        object.end()
    }
}

fn state_name(schedule: &Schedule) -> &'static str {
    match (schedule.paused, schedule.progress.next_tick) {
        (true, _) => "paused",
        (false, Some(_)) => "active",
        (false, None) => "ended",
    }
}

/// A call in one line.
fn call_line(call: &Call) -> String {
    let kwargs = if call.kwargs.as_str() == "{}" { String::new() } else { format!(" {}", call.kwargs) };
    let args = if call.args.as_str() == "[]" { String::new() } else { format!(" {}", call.args) };
    text(&format!("{} {}{args}{kwargs}", call.service, call.function))
}

/// A table of schedules.
pub fn table(schedules: &[Schedule]) -> Table {
    let columns = [
        Column::always("SCHEDULE"),
        Column::text("CALLS", 1),
        Column::text("RULE", 2),
        Column::always("STATE"),
        Column::whole("NEXT", 0),
    ];
    let (now, mut table) = (now(), Table::new(&columns));
    for it in schedules {
        let next = it.progress.next_tick.filter(|_| !it.paused).map(|tick| relative(tick, now));
        let Schedule { name, definition, .. } = it;
        let rule = definition.timetable.rule.to_string();
        table.row([
            name.to_string(),
            call_line(&definition.call),
            rule,
            state_name(it).to_owned(),
            or_dash(next.as_deref()),
        ]);
    }
    table
}

/// Shows one schedule to a person, with the pause of its service or of the store: in a pause, its ticks make no jobs.
pub fn show(schedule: &Schedule, paused: Option<&Paused>) -> anyhow::Result<()> {
    let now = now();
    let Schedule { name, definition, progress, created_at, .. } = schedule;
    let (call, timetable, lateness) = (&definition.call, &definition.timetable, &definition.lateness);
    let rule = &timetable.rule;
    let at = |tick: Timestamp| format!("{}  {}", output::moment_in(tick, &rule.zone()), relative(tick, now));
    let mut sheet = FieldList::new();
    sheet.line("schedule", name.to_string());
    if let Some(description) = &definition.description {
        sheet.line("for", text(description));
    }
    sheet.line("calls", call_line(call));
    sheet.line("principal", or_dash(call.principal.as_ref().map(Principal::as_str)));
    if let Some(site) = &call.site {
        sheet.line("site", text(site));
    }
    if definition.priority.get() != 0 {
        sheet.line("priority", definition.priority.get().to_string());
    }
    if let Some(lane) = &definition.lane {
        sheet.line("lane", text(lane.as_str()));
    }
    if let Some(expires) = definition.expires {
        sheet.line("expires", format!("{} after its tick", write_span(expires)));
    }
    if let Some(meta) = &definition.meta {
        sheet.line("metadata", text(meta.as_str()));
    }
    sheet.line("rule", rule.to_string());
    if let Some((cron, _)) = rule.as_cron() {
        sheet.line("cron", cron);
    }
    if let Some(from) = timetable.from() {
        sheet.line("from", at(from));
    }
    if let Some(until) = timetable.until() {
        sheet.line("until", at(until));
    }
    sheet.line("missed", format!("{}, within {}", lateness.missed().as_str(), write_span(lateness.within())));
    sheet.line("overlap", lateness.overlap().as_str());
    let paused = paused.map(|paused| format!(", but {}", process::paused(paused))).unwrap_or_default();
    sheet.line("state", format!("{}{paused}", state_name(schedule)));
    let next = schedule.next_ticks(NEXT);
    sheet.line("next", if next.is_empty() { "-".to_owned() } else { short_times(&next, rule) });
    let ScheduleProgress { last_tick, last_job, fired, skipped, last_skip, .. } = progress;
    if let Some(tick) = last_tick {
        sheet.line("last tick", at(*tick));
    }
    let last = last_job.map(|job| format!("; last: job {job}")).unwrap_or_default();
    sheet.line("made", format!("{}{last}", output::count(*fired, "job", "jobs")));
    if let Some(skip) = last_skip {
        sheet.line("skipped", format!("{}; last: {}", output::count(*skipped, "tick", "ticks"), why(skip, rule)));
    }
    sheet.line("created", format!("{}  {}", output::moment(*created_at), relative(*created_at, now)));
    sheet.print()
}

/// Why a tick made no job, and what helps.
fn why(skip: &Skip, rule: &Rule) -> String {
    let tick = output::moment_in(Timestamp(skip.tick), &rule.zone());
    let help = match &skip.why {
        Why::Late { .. } => Some("`--within` has to be longer than the pause between two runs of `asyncq process`"),
        Why::Refused { hint, .. } => hint.as_deref(),
        _ => None,
    };
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    text(&format!("{tick}: {}{help}", skip.why))
}

/// Ticks in one line, in the time of their rule: `Mon 30 Nov 02:30, Tue 1 Dec 02:30`.
pub fn short_times(ticks: &[Timestamp], rule: &Rule) -> String {
    let has_seconds = ticks.iter().any(|tick| tick.0 % 60_000 != 0);
    let format = if has_seconds { "%a %-d %b %H:%M:%S" } else { "%a %-d %b %H:%M" };
    let show = |tick: &Timestamp| match jiff::Timestamp::from_millisecond(tick.0) {
        Ok(exact) => exact.to_zoned_datetime(rule.zone()).strftime(format).to_string(),
        Err(_) => tick.to_string(),
    };
    let times: Vec<String> = ticks.iter().map(show).collect();
    format!("{}{}", times.join(", "), if rule.as_every().is_some() { " (UTC)" } else { "" })
}
