//! `asyncq status`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::clap_error::whole_number;
use super::output::{self, relative, text};
use super::service_options::ServiceOptions;
use super::session::{Session, to_terminal};
use super::stdio::{self, print_line};
use super::table::{Column, Table};
use super::{exit, explain, process};
use crate::commands::queue::Queue;
use crate::domain::flaw::{Flaw, Remedy};
use crate::domain::pause::{Pause, Paused};
use crate::domain::processor::Processor;
use crate::domain::size::show_size;
use crate::domain::status::{Count, Finding, Overview, ProblemLimits, ServiceOverview};
use crate::domain::time::{Timestamp, parse_span, show_span};
use crate::error::{Error, Kind};

/// Show all services with their calls, and the processors and schedules
///
/// With --check, prints one line for each problem instead, and exits with 1 if there is one: for health checks.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Status {
    #[command(flatten)]
    services: ServiceOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Count everything; otherwise counts stop at 100000, and those of HELD and ERRORS at 10000 for all services together
    #[arg(long, conflicts_with = "watch")]
    exact: bool,
    /// Update the table whenever the store changes, until a signal; with --json, print a line each time
    #[arg(long)]
    watch: bool,
    /// Print problems only, and exit with 1 if there is one
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    check: bool,
    /// With --check: how long a call may wait in the queue [default: 10m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true, requires = "check")]
    max_age: Option<Duration>,
    /// With --check: how many jobs of a service may be in `error` [default: any number]
    #[arg(long, value_name = "N", value_parser = parse_errors, requires = "check", allow_negative_numbers = true)]
    max_errors: Option<u64>,
}

fn parse_errors(text: &str) -> Result<u64, String> {
    whole_number(text, "a number of jobs", 0).map(i64::cast_unsigned)
}

impl Status {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let mut queue = session.open()?;
        if self.check {
            return self.check(session, &mut queue);
        }
        if self.watch {
            if !self.json && !to_terminal() {
                return Err(Error::new(Kind::Usage, "`--watch` needs a terminal")
                    .with_hint("`--watch --json` prints a line of JSON for each change")
                    .into());
            }
            queue.watch_overview(&self.services.selection(), |overview| self.print(overview))?;
            return Ok(exit::DONE);
        }
        let overview = queue.overview(&self.services.selection(), self.exact)?;
        if overview.services.is_empty() && !self.services.selection().is_all() {
            session.info("no service matches");
        }
        self.print(&overview)?;
        Ok(exit::DONE)
    }

    fn print(&self, overview: &Overview) -> anyhow::Result<()> {
        if self.json {
            return print_line(serde_json::to_string(&OverviewView(overview))?);
        }
        if self.watch {
            // Moves to the upper left corner, and clears the screen.
            stdio::print("\u{1b}[H\u{1b}[2J")?;
        }
        if let Some(pause) = &overview.pause {
            stdio::print(&format!("{}\n\n", process::paused(&Paused::Store(pause.clone()))))?;
        }
        table(overview).print()?;
        Ok(stdio::print(&format!("{}\n", summary(overview)))?)
    }

    fn check(&self, session: &Session, queue: &mut Queue) -> anyhow::Result<u8> {
        let overview = queue.overview(&self.services.selection(), false)?;
        if overview.services.is_empty() && !self.services.selection().is_all() {
            print_line("no service matches")?;
            return Ok(exit::FAILED);
        }
        let max_age = self.max_age.unwrap_or(ProblemLimits::MAX_AGE);
        let limits = ProblemLimits { max_age, max_errors: self.max_errors };
        let troubles = queue.troubles(&overview, limits)?;
        for trouble in &troubles {
            print_line(text(&sentence(trouble, overview.now)))?;
        }
        if troubles.is_empty() {
            session.verbose("no problems");
        }
        Ok(if troubles.is_empty() { exit::DONE } else { exit::FAILED })
    }
}

fn table(overview: &Overview) -> Table {
    let mut table = Table::new(&[
        Column::always("SERVICE"),
        Column::always("RUNNING"),
        Column::always("QUEUED"),
        Column::whole("BLOCKED", 1),
        Column::whole("DELAYED", 2),
        Column::whole("HELD", 0),
        Column::whole("ERRORS", 5),
        Column::whole("OLDEST", 3),
        Column::text("NEXT", 4),
    ]);
    let number = |count: Count| format!("{}{}", count.number, if count.more { "+" } else { "" });
    for it in &overview.services {
        let oldest = it.oldest.map_or_else(|| "-".to_owned(), |at| show_span(overview.now.since(at)));
        table.row([
            it.service.name.to_string(),
            format!("{}/{}", it.running, it.service.concurrency),
            number(it.queued),
            number(it.blocked),
            number(it.delayed),
            number(it.held),
            number(it.errors),
            oldest,
            next(it, overview.now),
        ]);
    }
    table
}

/// When the next call of a service is due, or its next schedule ticks.
fn next(it: &ServiceOverview, now: Timestamp) -> String {
    if it.service.pause.is_some() {
        return "paused".to_owned();
    }
    let when = |at: Timestamp| relative(at.max(now), now);
    match (it.next_due, &it.next_tick) {
        (None, None) => "-".to_owned(),
        (Some(due), Some((tick, _))) if due <= *tick => when(due),
        (_, Some((tick, name))) => format!("{}  {}", when(*tick), text(name)),
        (Some(due), None) => when(due),
    }
}

fn summary(overview: &Overview) -> String {
    let process = |(it, lives): &(Processor, bool)| {
        let age = show_span(overview.now.since(it.started_at));
        if *lives { format!("{}, for {age}", process::name(it)) } else { format!("{}, dead", process::name(it)) }
    };
    let processors = match &overview.processors[..] {
        [] => "processors: none".to_owned(),
        some => format!("processors: {} ({})", some.len(), output::list(some.iter().map(process))),
    };
    let (schedules, paused) = overview.schedules;
    let paused = if paused > 0 { format!(", {paused} paused") } else { String::new() };
    let gap = if overview.services.is_empty() { "" } else { "\n" };
    format!("{gap}{processors}   schedules: {schedules}{paused}   store: {}", show_size(overview.bytes))
}

/// A problem in a sentence, with what helps.
pub fn sentence(trouble: &Finding, now: Timestamp) -> String {
    let (what, help) = describe(trouble, now);
    help.map_or_else(|| what.clone(), |help| format!("{what}; {help}"))
}

/// A problem, and what helps. Some say that themselves.
pub fn describe(trouble: &Finding, now: Timestamp) -> (String, Option<String>) {
    let (what, help) = match trouble {
        Finding::DeadProcessor(dead) => {
            return (format!("{} died, and its calls wait for the next `asyncq process`", process::name(dead)), None);
        }
        Finding::Paused(paused) => (process::pause(paused), format!("`{}` ends the pause", process::resume(paused))),
        Finding::Old(service, since) => (
            format!("service `{service}` has a call that has waited for {}", show_span(now.since(*since))),
            format!("`asyncq status {service}` shows its calls"),
        ),
        Finding::Overdue(schedule, tick) => (
            format!("schedule `{schedule}` should have made a call {} ago", show_span(now.since(*tick))),
            "`asyncq process` makes it".to_owned(),
        ),
        Finding::Unfit(schedule, why) => (
            format!("schedule `{schedule}` makes no calls: {why}"),
            format!("`asyncq schedule set {schedule}` with the call changes it"),
        ),
        Finding::Errors(service, count) => {
            let more = if count.more { " or more" } else { "" };
            let jobs = output::count(count.number, "job", "jobs");
            (
                format!("service `{service}` has {jobs}{more} in `error`"),
                format!("`asyncq job list --state error --service {service}` shows them"),
            )
        }
        Finding::Broken(service, function, Flaw { what, remedy }) => {
            let what = format!("function `{function}` of service `{service}` cannot run: {what}");
            let effect = match remedy {
                Remedy::Function | Remedy::Folder(_) => "makes it",
                Remedy::Program => "names another program",
                Remedy::Executable(_) => "makes it executable",
                Remedy::Site => "names another site",
                Remedy::EnvFile => "names another file",
                Remedy::Private(_) => return (what, None),
            };
            (what, format!("`{}` {effect}", explain::remedy((service, function), remedy)))
        }
    };
    (what, Some(help))
}

/// The overview as JSON.
pub struct OverviewView<'a>(pub &'a Overview);

impl Serialize for OverviewView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Overview { services, processors, schedules, pause, bytes, now } = self.0;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("at", now)?;
        print_pause(&mut object, pause.as_ref())?;
        object.serialize_entry("services", &services.iter().map(ServiceView).collect::<Vec<_>>())?;
        object.serialize_entry("processors", &processors.iter().map(ProcessorView).collect::<Vec<_>>())?;
        object.serialize_entry("schedules", &schedules.0)?;
        object.serialize_entry("schedules_paused", &schedules.1)?;
        object.serialize_entry("bytes", bytes)?;
        object.end()
    }
}

fn print_pause<M: SerializeMap>(object: &mut M, pause: Option<&Pause>) -> Result<(), M::Error> {
    object.serialize_entry("paused", &pause.is_some())?;
    object.serialize_entry("paused_why", &pause.and_then(|pause| pause.why.as_ref()))
}

struct ServiceView<'a>(&'a ServiceOverview);

impl Serialize for ServiceView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let it = self.0;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("name", it.service.name.as_str())?;
        object.serialize_entry("concurrency", &it.service.concurrency)?;
        print_pause(&mut object, it.service.pause.as_ref())?;
        object.serialize_entry("running", &it.running)?;
        let counts = [
            ("queued", it.queued),
            ("blocked", it.blocked),
            ("delayed", it.delayed),
            ("held", it.held),
            ("errors", it.errors),
        ];
        for (name, count) in counts {
            object.serialize_entry(name, &count.number)?;
        }
        let at_least: Vec<&str> = counts.into_iter().filter(|(_, count)| count.more).map(|(name, _)| name).collect();
        object.serialize_entry("at_least", &at_least)?;
        object.serialize_entry("oldest_due_at", &it.oldest)?;
        object.serialize_entry("next_due_at", &it.next_due)?;
        object.serialize_entry("next_tick_at", &it.next_tick.as_ref().map(|(tick, _)| tick))?;
        object.serialize_entry("next_schedule", &it.next_tick.as_ref().map(|(_, name)| name))?;
        object.end()
    }
}

struct ProcessorView<'a>(&'a (Processor, bool));

impl Serialize for ProcessorView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (it, lives) = self.0;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("id", &it.id.0)?;
        object.serialize_entry("pid", &it.is.pid)?;
        object.serialize_entry("host", &it.is.host)?;
        object.serialize_entry("started_at", &it.started_at)?;
        object.serialize_entry("is_alive", lives)?;
        object.end()
    }
}
