//! `asyncq job list`.

use std::collections::BTreeSet;

use clap::Args;

use super::format::{Format, FormatOptions, ListPrinter};
use super::input_options::RevealOption;
use super::job_selection::{Filter, job_number};
use super::job_view::{self, JobView};
use super::session::{Session, to_terminal};
use super::{clap_error::one_of, process::paused};
use crate::commands::queue::Queue;
use crate::domain::job::{JobId, State};
use crate::domain::{query::JobQuery, service::ServiceName};

/// Selects the jobs to list.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only jobs in this state; may be repeated
    #[arg(long, value_name = "STATE", value_parser = one_of(State::ALL, State::as_str))]
    state: Vec<State>,
    /// Only the jobs that this one needs, as with `enqueue --after` or `--batch --then`
    #[arg(long, value_name = "ID", value_parser = job_number, allow_negative_numbers = true)]
    needed_by: Option<i64>,
    /// Only jobs older than this one, for the next page
    #[arg(long, value_name = "ID", value_parser = job_number, allow_negative_numbers = true)]
    before: Option<i64>,
    /// At most N jobs; 0 for all [default: 50 on a terminal, else all]
    #[arg(long, value_name = "N", value_parser = parse_limit, allow_negative_numbers = true)]
    limit: Option<u32>,
    #[command(flatten)]
    reveal: RevealOption,
    #[command(flatten)]
    format: FormatOptions,
}

fn parse_limit(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a limit is a whole number from 0 to {}", u32::MAX))
}

impl List {
    /// How many jobs a terminal shows by default.
    const SCREEN: u32 = 50;

    /// Prints the jobs page by page.
    pub fn run(&self, session: &Session, queue: &mut Queue) -> anyhow::Result<()> {
        self.reveal.apply(queue);
        let filter = self.filter.parse(session, queue, self.state.clone())?;
        let limit = self.limit.unwrap_or(if to_terminal() { Self::SCREEN } else { 0 });
        let among = self.needed_by.map(|id| queue.needed_by(JobId(id))).transpose()?;
        let query = JobQuery { filter, among, before: self.before.map(JobId), limit: (limit > 0).then_some(limit) };
        let format = self.format.format()?;
        let columns = job_view::columns(&self.state);
        let mut list = ListPrinter::new::<JobView<'_>>(format);
        let mut waited_for = BTreeSet::new();
        let next = queue.list_jobs(query, format == Format::Table, |jobs| {
            let waiting = jobs.iter().filter(|job| matches!(job.state, State::Delayed | State::Queued));
            waited_for.extend(waiting.map(|job| job.call.service.clone()).filter(|_| session.is_interactive()));
            list.print(jobs.iter().map(|job| JobView { job, attempts: None }), || job_view::table(jobs, &columns))
        })?;
        list.end()?;
        let mut notices = BTreeSet::new();
        for service in waited_for.iter().filter_map(|name| ServiceName::parse(name).ok()) {
            notices.extend(queue.pause_of(&service).ok().flatten().map(|it| paused(&it)));
        }
        for notice in notices {
            session.notice(&notice);
        }
        if let Some(next) = next {
            let more = format!("there are more jobs; `--before {next}` shows the next, `--limit 0` all");
            // A person cannot see that jobs are missing. A script has set the limit itself.
            if to_terminal() { session.info(&more) } else { session.verbose(&more) }
        }
        Ok(())
    }
}
