//! How jobs look: in lists, alone, as JSON.

use std::io::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use super::job_waits;
use super::output::{self, Sheet, Table, or_dash, relative, text};
use super::session::now;
use super::stdio::Sink;
use crate::commands::waiting::Waiting;
use crate::commands::{JobFilter, JobQuery, Store};
use crate::domain::attempt::{Attempt, Failure};
use crate::domain::job::{Job, JobId, State};
use crate::domain::json::{is_too_deep, quote};
use crate::domain::log::Stream;
use crate::domain::time::{Timestamp, show_span};

/// Prints a list of jobs, piece by piece.
pub struct JobPrinter {
    json: bool,
    /// Whether a job was printed.
    begun: bool,
}

impl JobPrinter {
    /// A list of which nothing is printed yet.
    pub fn new(json: bool) -> JobPrinter {
        JobPrinter { json, begun: false }
    }

    /// Prints the next jobs of the list; in JSON it is one array, a job a line.
    pub fn print(&mut self, jobs: &[Job]) -> anyhow::Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let first = !std::mem::replace(&mut self.begun, true);
        if !self.json {
            return print_jobs(jobs, first);
        }
        let mut out = std::io::BufWriter::new(Sink(Stream::Out));
        for (index, job) in jobs.iter().enumerate() {
            out.write_all(if first && index == 0 { b"[\n" } else { b",\n" })?;
            serde_json::to_writer(&mut out, &JobView::of(job, None))?;
        }
        out.flush()?;
        Ok(())
    }

    /// Ends the list.
    pub fn end(self) -> anyhow::Result<()> {
        match (self.json, self.begun) {
            (true, true) => super::say("\n]"),
            (true, false) => super::say("[\n]"),
            (false, _) => Ok(()),
        }
    }
}

fn print_jobs(jobs: &[Job], first: bool) -> anyhow::Result<()> {
    let now = now();
    let mut table = Table::new(["ID", "SERVICE", "FUNCTION", "ARGUMENTS", "PRINCIPAL", "STATE", "WHEN"]);
    for job in jobs {
        table.row([
            job.id.to_string(),
            text(&job.service),
            text(&job.function),
            text(&arguments(job)),
            or_dash(job.principal.as_deref()),
            output::state(job.state),
            relative(latest(job), now),
        ]);
    }
    table.print_page(first)
}

/// When what a job's state says came about, or will.
fn latest(job: &Job) -> Timestamp {
    match job.state {
        State::Held => job.created_at,
        State::Delayed | State::Queued => job.run_at,
        State::Processing => job.started_at.unwrap_or(job.run_at),
        State::Completed | State::Error | State::Cancelled => job.finished_at.unwrap_or(job.run_at),
    }
}

/// Arguments on one line, cut where nobody would read on.
fn arguments(job: &Job) -> String {
    const LONGEST: usize = 200;
    let mut line = job.args.clone();
    if job.kwargs != "{}" {
        line = format!("{line} {}", job.kwargs);
    }
    if line.chars().count() > LONGEST {
        line = line.chars().take(LONGEST).chain(['…']).collect();
    }
    line
}

/// Prints one job.
pub fn print_job(store: &mut Store, job: &Job, attempts: &[Attempt], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&JobView::of(job, Some(attempts)));
    }
    let now = now();
    let moment = |moment: Timestamp| format!("{moment}  {}", relative(moment, now));
    let mut sheet = Sheet::new();
    sheet.line("job", job.id.to_string());
    sheet.line("service", text(&job.service));
    sheet.line("function", text(&job.function));
    sheet.line("args", text(&job.args));
    sheet.line("kwargs", text(&job.kwargs));
    sheet.line("principal", or_dash(job.principal.as_deref()));
    sheet.line("site", or_dash(job.site.as_deref()));
    let mut state = output::state(job.state);
    if job.cancelling {
        state += "  asked to end";
    }
    sheet.line("state", state);
    if let Some(waiting) = Waiting::of(store, job)? {
        sheet.line("waits for", text(&job_waits::words(job, &waiting, now)));
    }
    if let Some(parent) = job.parent {
        sheet.line("parent", format!("{parent}{}", if job.immediate { "  run at once, as a part of it" } else { "" }));
    }
    if let Some(key) = &job.key {
        sheet.line("key", text(key));
    }
    if job.priority != 0 {
        sheet.line("priority", job.priority.to_string());
    }
    let by = job.os_user.as_deref().map(|user| format!("  by {}", text(user))).unwrap_or_default();
    sheet.line("created", moment(job.created_at) + &by);
    if job.run_at > job.created_at {
        sheet.line("due", moment(job.run_at));
    }
    if let Some(started) = job.started_at {
        sheet.line("started", moment(started));
    }
    if let Some(progress) = &job.progress {
        sheet.line("progress", text(progress));
    }
    if let Some(finished) = job.finished_at {
        let took = job.started_at.map(|started| format!("  took {}", show_span(finished.since(started))));
        sheet.line("finished", moment(finished) + &took.unwrap_or_default());
    }
    if let Some(result) = &job.result {
        sheet.line("result", text(result));
    }
    if let Some(error) = &job.error {
        sheet.line("error", text(&error.message));
    }
    sheet.print()?;
    print_attempts(attempts)?;
    print_children(store, job.id)
}

fn print_children(store: &mut Store, parent: JobId) -> anyhow::Result<()> {
    const AT_MOST: u32 = 50;
    let filter = JobFilter { parent: Some(parent), ..JobFilter::default() };
    let children = store.jobs(&JobQuery { filter, limit: Some(AT_MOST), ..JobQuery::default() })?;
    if !children.jobs.is_empty() {
        super::say("\ncalls that it made:")?;
        print_jobs(&children.jobs, true)?;
    }
    Ok(())
}

fn print_attempts(attempts: &[Attempt]) -> anyhow::Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    super::say("")?;
    let mut table = Table::new(["ATTEMPT", "STARTED", "TOOK", "ENDING", "OUTPUT", "ERROR"]);
    for it in attempts {
        let took = it.started_at.zip(it.finished_at).map(|(start, end)| show_span(end.since(start)));
        let output = match (it.log_bytes, it.log_dropped) {
            (0, 0) => "-".to_owned(),
            (kept, 0) => format!("{kept} bytes"),
            (kept, dropped) => format!("{kept} bytes kept, {dropped} not"),
        };
        table.row([
            it.number.to_string(),
            or_dash(it.started_at.map(|start| start.to_string()).as_deref()),
            or_dash(took.as_deref()),
            or_dash(it.ending.map(crate::domain::attempt::Ending::as_str)),
            output,
            or_dash(it.error.as_ref().map(|error| error.message.as_str())),
        ]);
    }
    table.print()
}

/// What `--json` gives of a job.
#[derive(Serialize)]
struct JobView<'a> {
    id: i64,
    service: &'a str,
    function: &'a str,
    args: Box<RawValue>,
    kwargs: Box<RawValue>,
    principal: Option<&'a str>,
    site: Option<&'a str>,
    state: &'a str,
    immediate: bool,
    parent: Option<i64>,
    attempt: i64,
    created_at: String,
    run_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    result: Option<Box<RawValue>>,
    error: Option<&'a Failure>,
    priority: i64,
    key: Option<&'a str>,
    os_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView<'a>>>,
}

/// What `--json` gives of an attempt.
#[derive(Serialize)]
struct AttemptView<'a> {
    attempt: i64,
    started_at: Option<String>,
    finished_at: Option<String>,
    ending: Option<&'a str>,
    error: Option<&'a Failure>,
    log_bytes: i64,
    log_dropped: i64,
}

impl<'a> JobView<'a> {
    fn of(job: &'a Job, attempts: Option<&'a [Attempt]>) -> JobView<'a> {
        JobView {
            id: job.id.0,
            service: &job.service,
            function: &job.function,
            args: raw(&job.args),
            kwargs: raw(&job.kwargs),
            principal: job.principal.as_deref(),
            site: job.site.as_deref(),
            state: job.state.as_str(),
            immediate: job.immediate,
            parent: job.parent.map(|it| it.0),
            attempt: job.attempt,
            created_at: job.created_at.to_string(),
            run_at: job.run_at.to_string(),
            started_at: job.started_at.map(|it| it.to_string()),
            finished_at: job.finished_at.map(|it| it.to_string()),
            result: job.result.as_deref().map(raw),
            error: job.error.as_ref(),
            priority: job.priority,
            key: job.key.as_deref(),
            os_user: job.os_user.as_deref(),
            progress: job.progress.as_deref(),
            attempts: attempts.map(|all| all.iter().map(AttemptView::of).collect()),
        }
    }
}

impl<'a> AttemptView<'a> {
    fn of(attempt: &'a Attempt) -> AttemptView<'a> {
        AttemptView {
            attempt: attempt.number,
            started_at: attempt.started_at.map(|it| it.to_string()),
            finished_at: attempt.finished_at.map(|it| it.to_string()),
            ending: attempt.ending.map(crate::domain::attempt::Ending::as_str),
            error: attempt.error.as_ref(),
            log_bytes: attempt.log_bytes,
            log_dropped: attempt.log_dropped,
        }
    }
}

/// Stored JSON byte for byte. What a client stored that is not JSON, or that is nested deeper than readers can follow, is
/// a string.
fn raw(text: &str) -> Box<RawValue> {
    let own = Some(text).filter(|text| !is_too_deep(text)).and_then(|text| RawValue::from_string(text.to_owned()).ok());
    own.or_else(|| RawValue::from_string(quote(text)).ok()).unwrap_or_default()
}
