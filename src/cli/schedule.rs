//! `asyncq schedule`.

use std::cell::Cell;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::format::{FormatOptions, Record};
use super::input_options::RevealOption;
use super::schedule_options::{JobOptions, RuleOptions, TickOptions, edit};
use super::session::{Session, now};
use super::stdio::print_line;
use super::table::{Column, Table};
use super::{exit, output, schedule_view};
use crate::domain::call::Call;
use crate::domain::schedule::{ScheduleDefinition, ScheduleName};
use crate::domain::schedule_edit::{ScheduleEdit, time_by};
use crate::domain::service::{Added, ServiceName};
use crate::domain::time::Timestamp;
use crate::domain::timetable::{Rule, Timetable};
use crate::error::{Error, Kind};

/// Schedules: rules for when a call is made, again and again
#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// Add a schedule; adding the same one again changes nothing
    ///
    /// Any processor of the service makes the calls: `asyncq process` from cron, or `asyncq process --follow`.
    Add(Box<Add>),
    /// List schedules
    List {
        /// The service [default: all]
        service: Option<String>,
        #[command(flatten)]
        reveal: RevealOption,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Show one schedule, with its next ticks and the last tick that made no job
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        reveal: RevealOption,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Change a schedule; anything that you leave out stays the same
    ///
    /// If its rule, its begin or its end changes, it goes on with the next tick from now.
    Set(Box<Set>),
    /// Print the next times of a schedule, or of a rule without storing it
    Next(Next),
    /// Make one call of a schedule now, or with --from one for each tick since then that has no job
    Run(Run),
    /// Make no calls until `asyncq schedule resume`
    Pause {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Go on with the next tick from now
    Resume {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove a schedule, but keep its jobs
    Remove {
        /// Its name
        name: String,
    },
}

impl Schedule {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        match self {
            Schedule::Add(add) => add.run(session)?,
            Schedule::List { service, reveal, format } => {
                let format = format.format()?;
                let service = service.as_deref().map(ServiceName::parse).transpose()?;
                let schedules = reveal.open(session)?.schedules(service.as_ref())?;
                let records: Vec<_> = schedules.iter().map(schedule_view::View).collect();
                format.print_all(&records, || schedule_view::table(&schedules))?;
            }
            Schedule::Show { name, reveal, format } => {
                let format = format.format()?;
                let mut queue = reveal.open(session)?;
                let schedule = queue.schedule(&ScheduleName::parse(&name)?)?;
                let paused = queue.pause_of(&schedule.definition.call.service)?;
                format
                    .print_one(&schedule_view::View(&schedule), || schedule_view::show(&schedule, paused.as_ref()))?;
            }
            Schedule::Set(set) => set.run(session)?,
            Schedule::Next(next) => next.run(session)?,
            Schedule::Run(run) => run.run(session)?,
            Schedule::Pause { names } => session.open()?.pause_schedules(&parse_names(&names)?)?,
            Schedule::Resume { names } => session.open()?.resume_schedules(&parse_names(&names)?)?,
            Schedule::Remove { name } => session.open()?.remove_schedule(&ScheduleName::parse(&name)?)?,
        }
        Ok(exit::DONE)
    }
}

fn parse_names(names: &[String]) -> Result<Vec<ScheduleName>, Error> {
    names.iter().map(|name| ScheduleName::parse(name)).collect()
}

/// Adds a schedule.
#[derive(Debug, Args)]
pub struct Add {
    /// Its name: lower-case letters, digits, `.`, `_` and `-`
    name: String,
    #[command(flatten)]
    rule: RuleOptions,
    #[command(flatten)]
    ticks: TickOptions,
    #[command(flatten)]
    job: JobOptions,
    /// The service
    service: String,
    /// The function
    function: String,
    /// The arguments; one that is JSON without space around it is read as JSON, any other is a string
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

impl Add {
    fn run(&self, session: &Session) -> anyhow::Result<()> {
        let name = ScheduleName::parse(&self.name)?;
        let call = self.job.call((&self.service, &self.function), &self.args)?;
        let edit = ScheduleEdit { call: Some(call), ..edit(&self.rule, &self.ticks, &self.job)? };
        let (mut is, is_here) = session.here(|from| edit.new_definition(from))?;
        let on_behalf_of = self.job.on_behalf_of()?;
        let mut queue = session.open()?;
        is.call = queue.call_of(is.call, on_behalf_of, &session.caller)?;
        if queue.add_schedule(&name, &is)? == Added::Same {
            session.verbose(&format!("schedule `{name}` already exists"));
            return Ok(());
        }
        tell(session, &name, &is, is_here);
        Ok(())
    }
}

/// Prints what the rule of a schedule means.
fn tell(session: &Session, name: &ScheduleName, is: &ScheduleDefinition, is_here: bool) {
    let rule = &is.timetable.rule;
    session.notice(&format!("schedule `{name}`: {rule}{}", if is_here { HERE } else { "" }));
    let ticks: Vec<Timestamp> = is.timetable.ticks(now()).take(schedule_view::NEXT).collect();
    session.notice(&format!("next: {}", schedule_view::short_times(&ticks, rule)));
    if rule.as_every().is_some_and(|every| every < Duration::from_secs(60)) {
        session.notice(
            "cron starts `asyncq process` once a minute at most; `asyncq process --follow` makes a call at each tick",
        );
    }
}

/// How messages describe the default zone.
const HERE: &str = " (the time zone of this machine)";

/// Changes a schedule.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Set {
    /// Its name
    name: String,
    #[command(flatten)]
    rule: RuleOptions,
    #[command(flatten)]
    ticks: TickOptions,
    /// Tick from now on
    #[arg(long, conflicts_with = "from")]
    no_from: bool,
    /// Tick for ever
    #[arg(long, conflicts_with = "until")]
    no_until: bool,
    #[command(flatten)]
    job: JobOptions,
    /// The calls are in the lane of their function
    #[arg(long, conflicts_with = "lane")]
    no_lane: bool,
    /// The calls do not expire
    #[arg(long, conflicts_with = "expires")]
    no_expires: bool,
    /// The calls have no metadata
    #[arg(long, conflicts_with = "meta")]
    no_meta: bool,
    /// The new call: its service
    #[arg(requires = "function")]
    service: Option<String>,
    /// Its function
    function: Option<String>,
    /// Its arguments
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

impl Set {
    fn run(&self, session: &Session) -> anyhow::Result<()> {
        let name = ScheduleName::parse(&self.name)?;
        let mut edit = ScheduleEdit { call: self.new_call()?, ..self.edit()? };
        if edit.is_empty() && self.job.principal.is_none() {
            return Err(Error::new(Kind::Usage, "`asyncq schedule set` needs something to change")
                .with_hint("give an option, or a new call: its service, its function and its arguments")
                .into());
        }
        let mut queue = session.open()?;
        if self.job.principal.is_some() {
            let call = queue.schedule(&name)?.definition.call;
            edit.principal = Some(queue.call_of(call, self.job.on_behalf_of()?, &session.caller)?.principal);
        }
        let is_here = Cell::new(false);
        let schedule = session.here(|from| {
            queue.set_schedule(&name, &|old| {
                let (is, takes_zone) = edit.changed(old, from)?;
                is_here.set(takes_zone);
                Ok(is)
            })
        })?;
        tell(session, &name, &schedule.definition, is_here.get());
        Ok(())
    }

    /// What the options say.
    fn edit(&self) -> Result<ScheduleEdit, Error> {
        let mut edit = edit(&self.rule, &self.ticks, &self.job)?;
        edit.from = self.no_from.then_some(None).or(edit.from);
        edit.until = self.no_until.then_some(None).or(edit.until);
        edit.lane = self.no_lane.then_some(None).or(edit.lane);
        edit.expires = self.no_expires.then_some(None).or(edit.expires);
        edit.meta = self.no_meta.then_some(None).or(edit.meta);
        Ok(edit)
    }

    /// The new call, if there is one.
    fn new_call(&self) -> Result<Option<Call>, Error> {
        match (&self.service, &self.function) {
            (Some(service), Some(function)) => self.job.call((service, function), &self.args).map(Some),
            _ if self.job.raw || !self.job.kwargs.is_empty() => {
                Err(Error::new(Kind::Usage, "arguments change only with the whole call")
                    .with_hint("give the service and the function, too, and all arguments"))
            }
            _ => Ok(None),
        }
    }
}

/// Makes calls of a schedule out of turn.
#[derive(Debug, Args)]
pub struct Run {
    /// Its name
    name: String,
    /// Make the jobs of all ticks at this time or later that have none
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only of ticks before this time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "from")]
    until: Option<String>,
}

impl Run {
    fn run(&self, session: &Session) -> anyhow::Result<()> {
        let name = ScheduleName::parse(&self.name)?;
        let mut queue = session.open()?;
        let Some(from) = &self.from else {
            return print_line(queue.run_schedule(&name)?.to_string());
        };
        let rule = queue.schedule(&name)?.definition.timetable.rule;
        let time = |text: &str| session.here(|view| time_by(&rule, text, view));
        let until = self.until.as_deref().map(time).transpose()?;
        let done = queue.backfill(&name, time(from)?, until)?;
        let jobs: Vec<String> = done.jobs.iter().map(ToString::to_string).collect();
        if !jobs.is_empty() {
            print_line(jobs.join("\n"))?;
        }
        let had = match done.had {
            0 => String::new(),
            1 => "; 1 tick had a job already".to_owned(),
            many => format!("; {many} ticks had a job already"),
        };
        session.info(&format!("made {}{had}", output::count(done.jobs.len() as i128, "job", "jobs")));
        Ok(())
    }
}

/// Prints the next times of a schedule or a rule.
#[derive(Debug, Args)]
pub struct Next {
    /// The name of the schedule
    #[arg(conflicts_with_all = ["cron", "tz", "every"])]
    name: Option<String>,
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
    fn run(&self, session: &Session) -> anyhow::Result<()> {
        let format = self.format.format()?;
        let (timetable, is_here) = if let Some(name) = &self.name {
            (session.open()?.schedule(&ScheduleName::parse(name)?)?.definition.timetable, false)
        } else {
            let (rule, is_here) = session.here(|from| self.rule.words().rule(from))?;
            (Timetable::new(rule, None, None)?, is_here)
        };
        let (now, rule) = (now(), &timetable.rule);
        let after = match self.from.as_deref().map(|text| session.here(|view| time_by(rule, text, view))).transpose()? {
            Some(from) => Timestamp(from.0.saturating_sub(1)),
            None => now,
        };
        if self.name.is_none() {
            rule.first(after)?;
        }
        let ticks: Vec<Timestamp> = timetable.ticks(after).take(self.count).collect();
        session.notice(&format!("{rule}{}", if is_here { HERE } else { "" }));
        let records: Vec<Tick> = ticks.iter().map(|tick| Tick { tick: rule.local(*tick) }).collect();
        format.print_all(&records, || table(rule, &ticks, now))
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
