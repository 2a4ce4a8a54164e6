//! `asyncq due`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::exit;
use super::output;
use super::service_options::ServiceOptions;
use super::session::Session;
use super::stdio::print_line;
use crate::domain::due::{NextTask, Task};
use crate::domain::service::ServiceName;
use crate::domain::time::{Timestamp, millis, parse_span};

/// Print when `asyncq process` next has something to do: `now`, or a time
///
/// Prints nothing and exits with 1 if no call can begin, none is delayed, and no schedule is going to tick.
#[derive(Debug, Args)]
pub struct Due {
    #[command(flatten)]
    services: ServiceOptions,
    /// Print how many seconds that is from now, rounded up
    #[arg(long)]
    in_seconds: bool,
    /// Print at most the time that is this far away
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    at_most: Option<Duration>,
    /// Print JSON, with the call or the schedule that is next
    #[arg(long, conflicts_with = "in_seconds")]
    json: bool,
}

impl Due {
    /// Runs the command.
    pub fn run(&self, session: &Session) -> anyhow::Result<u8> {
        let (now, Some(next)) = session.open()?.next_task(&self.services.selection())? else { return Ok(exit::FAILED) };
        let at = self.at_most.map_or(next.at, |most| next.at.min(now.after(most)));
        let in_seconds = millis(at.since(now)).unsigned_abs().div_ceil(1000);
        print_line(if self.json {
            serde_json::to_string(&View::of(&next, (at, in_seconds)))?
        } else if self.in_seconds {
            in_seconds.to_string()
        } else if at <= now {
            "now".to_owned()
        } else {
            output::moment(at)
        })?;
        Ok(exit::DONE)
    }
}

/// What programs read: the time that is printed, and what is next.
#[derive(Serialize)]
struct View<'a> {
    due: String,
    in_seconds: u64,
    service: Option<&'a str>,
    job: Option<i64>,
    schedule: Option<&'a str>,
    processor: Option<i64>,
}

impl View<'_> {
    fn of(next: &NextTask, (at, in_seconds): (Timestamp, u64)) -> View<'_> {
        let service = next.service.as_ref().map(ServiceName::as_str);
        let nothing = View { due: at.to_string(), in_seconds, service, job: None, schedule: None, processor: None };
        match &next.what {
            Task::Job(job) => View { job: Some(job.0), ..nothing },
            Task::Schedule(name) => View { schedule: Some(name), ..nothing },
            Task::Rescue(processor) => View { processor: Some(processor.0), ..nothing },
            Task::Upkeep => nothing,
        }
    }
}
