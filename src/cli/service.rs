//! `asyncq service`.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::exit;
use super::format::{FormatOptions, Record};
use super::hook_options::{HookOptions, NoHookOptions, print_hooks};
use super::output::{self, FieldList};
use super::pause::WhyOption;
use super::session::{Session, now};
use super::table::{Column, Table};
use crate::domain::hook::HookKind;
use crate::domain::lane::MAX_WIDTH;
use crate::domain::pattern::{ServicePattern, ServiceSelection};
use crate::domain::pause::Pause;
use crate::domain::rate::Rate;
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::retention::{self, Retention, RetentionChange};
use crate::domain::service::{self, Added, ServiceChange, ServiceName};
use crate::domain::time::write_span;
use crate::error::{Error, Kind};

/// Services: named queues and their limits
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Add a service; adding the same one again changes nothing
    ///
    /// If there is no store yet, this creates one and says so. It does not turn an existing database into a store: only
    /// `asyncq init` does.
    Add {
        /// Its name: lower-case letters, digits, `.`, `_` and `-`
        name: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// List all services
    List {
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Show one service
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        format: FormatOptions,
    },
    /// Change a service
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        no_hooks: NoHookOptions,
    },
    /// Run no calls of services, but accept new ones
    ///
    /// `asyncq pause` does the same for the whole store.
    Pause {
        /// The services, by names or patterns such as 'site-*'
        #[arg(value_name = "NAME|PATTERN", required = true, value_parser = ServicePattern::parse)]
        services: Vec<ServicePattern>,
        #[command(flatten)]
        why: WhyOption,
    },
    /// Run the calls of paused services again
    Resume {
        /// The services, by names or patterns such as 'site-*'
        #[arg(value_name = "NAME|PATTERN", required = true, value_parser = ServicePattern::parse)]
        services: Vec<ServicePattern>,
    },
    /// Remove a service and its functions, but keep jobs that have ended
    Remove {
        /// Its name
        name: String,
        /// Remove its schedules, and cancel its waiting jobs
        #[arg(long)]
        force: bool,
    },
}

/// The limits of a service.
#[derive(Debug, Args)]
pub struct Limits {
    /// How many of its calls may run at once, across all processors [default of a new service: 1]
    #[arg(long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    concurrency: Option<NonZeroU32>,
    /// How many of its calls in one lane may run at once, at most 1000 [default of a new service: 1]
    #[arg(long, value_name = "N", value_parser = parse_width, allow_negative_numbers = true)]
    lane_width: Option<NonZeroU32>,
    /// How often its calls may start, across all processors, as in 10/s, 100/h or 5/10m; `none` for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate, allow_hyphen_values = true)]
    rate: Option<RateLimit>,
    /// How many calls may start together after a pause [default: 1, or as many as start in a tenth of a second]
    #[arg(long, value_name = "N", value_parser = parse_burst, allow_negative_numbers = true, requires = "rate")]
    burst: Option<NonZeroU32>,
    /// Remove its jobs this long after they completed or were cancelled, as in 30d; `forever` keeps them [default: forever]
    #[arg(long, value_name = "SPAN", value_parser = parse_keep, allow_hyphen_values = true)]
    keep: Option<Keep>,
    /// Remove its jobs this long after they ended in an error, as in 90d; `forever` keeps them [default: forever]
    #[arg(long, value_name = "SPAN", value_parser = parse_keep, allow_hyphen_values = true)]
    keep_errors: Option<Keep>,
    #[command(flatten)]
    hooks: HookOptions,
}

/// How long to keep jobs; `None` means forever.
#[derive(Debug, Clone, Copy)]
pub struct Keep(Option<Duration>);

/// A rate, or that there is none.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit(Option<Rate>);

impl Limits {
    /// What they change.
    ///
    /// # Errors
    /// [`Kind::Usage`] for the burst of no rate.
    fn change(&self) -> Result<ServiceChange, Error> {
        if let (Some(RateLimit(None)), Some(_)) = (self.rate, self.burst) {
            return Err(Error::new(Kind::Usage, "`--burst` needs a rate, and `--rate none` sets none")
                .with_hint("leave out `--burst`, or give a rate, as in `--rate 10/s`"));
        }
        let burst = |rate: Rate| self.burst.map_or(rate, |burst| rate.with_burst(burst.get()));
        let rate = self.rate.map(|RateLimit(rate)| rate.map(burst));
        let (concurrency, lane_width, hooks) = (self.concurrency, self.lane_width, self.hooks.change());
        let [ended, errors] = [self.keep, self.keep_errors].map(|keep| keep.map(|Keep(span)| span));
        let retention = RetentionChange { ended, errors };
        Ok(ServiceChange { concurrency, lane_width, hooks, rate, retention, ..ServiceChange::default() })
    }
}

fn parse_rate(text: &str) -> Result<RateLimit, Error> {
    if text == "none" { Ok(RateLimit(None)) } else { Rate::parse(text).map(|rate| RateLimit(Some(rate))) }
}

fn parse_keep(text: &str) -> Result<Keep, Error> {
    retention::parse_keep(text).map(Keep)
}

fn parse_burst(text: &str) -> Result<NonZeroU32, String> {
    let burst = text.parse().ok().filter(|burst: &NonZeroU32| burst.get() <= Rate::LARGEST_BURST);
    burst.ok_or_else(|| format!("it is a whole number from 1 to {}", Rate::LARGEST_BURST))
}

fn parse_width(text: &str) -> Result<NonZeroU32, String> {
    let width = text.parse().ok().filter(|width: &NonZeroU32| width.get() <= MAX_WIDTH);
    width.ok_or_else(|| format!("it is a whole number from 1 to {MAX_WIDTH}"))
}

fn parse_limit(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("it is a whole number from 1 to {}", u32::MAX))
}

impl Service {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        match self {
            Service::Add { name, limits } => {
                let name = ServiceName::parse(&name)?;
                let wanted = limits.change()?;
                let added = session.open_or_create()?.add_service(&name, &wanted)?;
                session.verbose(&match added {
                    Added::New => format!("added service `{name}`"),
                    Added::Same => format!("service `{name}` already exists"),
                });
            }
            Service::List { format } => {
                let format = format.format()?;
                let services = session.open()?.services()?;
                let records: Vec<_> = services.iter().map(ServiceView).collect();
                format.print_all(&records, || table(&services))?;
            }
            Service::Show { name, format } => {
                let format = format.format()?;
                let service = session.open()?.service(&ServiceName::parse(&name)?)?;
                format.print_one(&ServiceView(&service), || show(&service))?;
            }
            Service::Set { name, limits, no_hooks } => {
                let mut wanted = limits.change()?;
                no_hooks.add_to(&mut wanted.hooks);
                if wanted == ServiceChange::default() {
                    return Err(Error::new(Kind::Usage, "`asyncq service set` needs something to change")
                        .with_hint("give an option, as in `--concurrency 4`")
                        .into());
                }
                session.open()?.set_service(&ServiceName::parse(&name)?, &wanted)?;
            }
            Service::Pause { services, why } => pause(session, services, Some(&why.pause()))?,
            Service::Resume { services } => pause(session, services, None)?,
            Service::Remove { name, force } => {
                let waiting = if force { IfWaiting::Cancel } else { IfWaiting::Refuse };
                let removed = session.open()?.remove_service(&ServiceName::parse(&name)?, waiting)?;
                print_cancelled(session, &removed);
            }
        }
        Ok(exit::DONE)
    }
}

/// What programs get to read about a service.
struct ServiceView<'a>(&'a service::Service);

impl Record for ServiceView<'_> {
    const COLUMNS: &'static str =
        "name,concurrency,paused,paused_why,lane_width,rate,burst,keep,keep_errors,on_error,on_success,created_at";
}

impl Serialize for ServiceView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("name", self.0.name.as_str())?;
        object.serialize_entry("concurrency", &self.0.concurrency)?;
        object.serialize_entry("paused", &self.0.pause.is_some())?;
        object.serialize_entry("paused_why", &self.0.pause.as_ref().and_then(|pause| pause.why.as_ref()))?;
        object.serialize_entry("lane_width", &self.0.lane_width)?;
        object.serialize_entry("rate", &self.0.rate.map(|rate| rate.to_string()))?;
        object.serialize_entry("burst", &self.0.rate.map(Rate::burst))?;
        object.serialize_entry("keep", &self.0.retention.ended.map(|span| span.as_secs_f64()))?;
        object.serialize_entry("keep_errors", &self.0.retention.errors.map(|span| span.as_secs_f64()))?;
        for kind in HookKind::ALL {
            object.serialize_entry(kind.as_str(), &self.0.hooks.get(kind).map(ToString::to_string))?;
        }
        object.serialize_entry("created_at", &self.0.created_at.to_string())?;
        object.end()
    }
}

/// Whether calls of it run, and why it is paused.
fn state(service: &service::Service) -> String {
    match service.pause.as_ref().map(|pause| &pause.why) {
        None => "active".to_owned(),
        Some(None) => "paused".to_owned(),
        Some(Some(why)) => format!("paused: {}", output::text(why)),
    }
}

fn table(services: &[service::Service]) -> Table {
    let columns = [Column::always("SERVICE"), Column::whole("CONCURRENCY", 0), Column::text("STATE", 1)];
    let mut table = Table::new(&columns);
    for it in services {
        table.row([it.name.to_string(), it.concurrency.to_string(), state(it)]);
    }
    table
}

fn show(service: &service::Service) -> anyhow::Result<()> {
    let mut sheet = FieldList::new();
    sheet.line("service", service.name.to_string());
    sheet.line("concurrency", service.concurrency.to_string());
    sheet.line("lane width", service.lane_width.to_string());
    if let Some(rate) = service.rate {
        sheet.line("rate", format!("{rate}, burst {}", rate.burst()));
    }
    let kept = |span: Option<Duration>| span.map_or_else(|| "forever".to_owned(), write_span);
    let Retention { ended, errors } = service.retention;
    if ended.is_some() || errors.is_some() {
        sheet.line("keeps", format!("jobs {}, errors {}", kept(ended), kept(errors)));
    }
    sheet.line("state", state(service));
    print_hooks(&mut sheet, &service.hooks);
    let created = service.created_at;
    sheet.line("created", format!("{}  {}", output::moment(created), output::relative(created, now())));
    sheet.print()
}

fn pause(session: &Session, services: Vec<ServicePattern>, pause: Option<&Pause>) -> anyhow::Result<()> {
    let selection = ServiceSelection { services, ..ServiceSelection::default() };
    if session.open()?.pause_services(&selection, pause)? == 0 {
        session.info("no service matches");
    }
    Ok(())
}

/// Prints which jobs a removal has cancelled.
pub fn print_cancelled(session: &Session, removed: &Removed) {
    if removed.cancelled == 0 {
        return;
    }
    let more = removed.cancelled - removed.oldest.len() as u64;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let jobs = output::count(removed.cancelled, "waiting job", "waiting jobs");
    session.info(&format!("cancelled {jobs}: {}{more}", output::list(&removed.oldest)));
}
