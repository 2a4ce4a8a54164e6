//! How jobs are shown: in lists, alone, and to programs.

use serde::Serialize;
use serde_json::value::RawValue;

use super::format::Record;
use super::job_waits;
use super::output::{self, FieldList, or_dash, relative, text};
use super::session::now;
use super::stdio::print_line;
use super::table::{Column, Table};
use crate::commands::queue::Queue;
use crate::domain::attempt::{Attempt, Failure};
use crate::domain::job::{Job, State};
use crate::domain::json::{Json, quote};
use crate::domain::time::{Timestamp, show_span};

/// The text of a column for a job, at a moment.
pub type Cell = fn(&Job, Timestamp) -> String;

/// The columns of a list of jobs; `docs/states.md` says which are left out first where a terminal is narrow.
const COLUMNS: [(Column, Cell); 7] = [
    (Column::always("ID"), |job, _| job.id.to_string()),
    (Column::whole("SERVICE", 2), |job, _| text(&job.service)),
    (Column::text("FUNCTION", 7), |job, _| text(&job.function)),
    (Column::text("ARGUMENTS", 1), |job, _| text(&arguments(job))),
    (Column::text("PRINCIPAL", 0), |job, _| or_dash(job.principal.as_deref())),
    (Column::always("STATE"), |job, _| output::state(job.state)),
    (Column::whole("WHEN", 4), |job, now| relative(latest(job), now)),
];
/// One more column for lists of jobs that have ended.
const TOOK: (Column, Cell) = (Column::whole("TOOK", 3), |job, _| or_dash(took(job).as_deref()));
/// More columns for lists of ended jobs that include errors.
const WHY: [(Column, Cell); 2] = [
    (Column::whole("EXIT", 5), |job, _| {
        let code = job.error.as_ref().and_then(|error| error.exit_code);
        code.map_or_else(|| "-".to_owned(), |code| code.to_string())
    }),
    (Column::text("ERROR", 6), |job, _| or_dash(job.error.as_ref().map(|error| error.message.as_str()))),
];

/// The columns for a list of jobs in these states, or in any.
pub fn columns(states: &[State]) -> Vec<(Column, Cell)> {
    let mut columns = COLUMNS.to_vec();
    if !states.is_empty() && states.iter().all(|state| state.has_ended()) {
        columns.push(TOOK);
        if states.contains(&State::Error) {
            columns.extend(WHY);
        }
    }
    columns
}

/// A table of jobs.
pub fn table(jobs: &[Job], columns: &[(Column, Cell)]) -> Table {
    let now = now();
    let mut table = Table::new(&columns.iter().map(|(column, _)| *column).collect::<Vec<_>>());
    for job in jobs {
        table.row(columns.iter().map(|(_, cell)| cell(job, now)));
    }
    table
}

/// How long the latest attempt of an ended job took.
fn took(job: &Job) -> Option<String> {
    job.started_at.zip(job.finished_at).map(|(started, finished)| show_span(finished.since(started)))
}

/// When a job got into its state, or when a waiting one is due.
fn latest(job: &Job) -> Timestamp {
    match job.state {
        State::Held => job.created_at,
        State::Delayed | State::Queued => job.run_at,
        State::Processing => job.started_at.unwrap_or(job.run_at),
        State::Completed | State::Error | State::Cancelled => job.finished_at.unwrap_or(job.run_at),
    }
}

/// The arguments in one line, cut after 200 characters.
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

/// Shows one job to a person, with its attempts and nested calls.
pub fn show(queue: &mut Queue, job: &Job, attempts: &[Attempt]) -> anyhow::Result<()> {
    let now = now();
    let moment = |moment: Timestamp| format!("{}  {}", output::moment(moment), relative(moment, now));
    let mut sheet = FieldList::new();
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
    if let Some(waiting) = queue.waiting(job)? {
        sheet.line("waits for", text(&job_waits::describe(job, &waiting, now)));
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
        let took = took(job).map(|took| format!("  took {took}"));
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
    print_children(&queue.children(job.id)?)
}

fn print_children(children: &[Job]) -> anyhow::Result<()> {
    if !children.is_empty() {
        print_line("\ncalls that it made:")?;
        table(children, &COLUMNS).print()?;
    }
    Ok(())
}

fn print_attempts(attempts: &[Attempt]) -> anyhow::Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    print_line("")?;
    let mut table = Table::new(&[
        Column::always("ATTEMPT"),
        Column::whole("STARTED", 1),
        Column::whole("TOOK", 2),
        Column::always("ENDING"),
        Column::whole("OUTPUT", 0),
        Column::text("ERROR", 3),
    ]);
    for it in attempts {
        let took = it.started_at.zip(it.finished_at).map(|(start, end)| show_span(end.since(start)));
        let output = match (it.log_bytes, it.log_dropped) {
            (0, 0) => "-".to_owned(),
            (kept, 0) => format!("{kept} bytes"),
            (kept, dropped) => format!("{kept} bytes kept, {dropped} dropped"),
        };
        table.row([
            it.number.to_string(),
            or_dash(it.started_at.map(output::moment).as_deref()),
            or_dash(took.as_deref()),
            or_dash(it.ending.map(crate::domain::attempt::Ending::as_str)),
            output,
            or_dash(it.error.as_ref().map(|error| error.message.as_str())),
        ]);
    }
    table.print()
}

/// What programs get to read about a job.
#[derive(Serialize)]
pub struct JobView<'a> {
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
    failures: i64,
    conflicts: i64,
    crashes: i64,
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

/// What programs get to read about an attempt; only in JSON.
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

impl Record for JobView<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "service",
        "function",
        "args",
        "kwargs",
        "principal",
        "site",
        "state",
        "immediate",
        "parent",
        "attempt",
        "failures",
        "conflicts",
        "crashes",
        "created_at",
        "run_at",
        "started_at",
        "finished_at",
        "result",
        "error.kind",
        "error.message",
        "error.exit_code",
        "error.signal",
        "priority",
        "key",
        "os_user",
        "progress",
    ];
}

impl<'a> JobView<'a> {
    /// Its fields, with its attempts if they are known.
    pub fn of(job: &'a Job, attempts: Option<&'a [Attempt]>) -> JobView<'a> {
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
            failures: job.failures,
            conflicts: job.before.conflicts,
            crashes: job.before.crashes,
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

/// Stored JSON, byte for byte. A client may have stored a text that is not JSON, or that some programs cannot read (nested too
/// deep, half a surrogate pair, a name twice): that becomes a string.
fn raw(text: &str) -> Box<RawValue> {
    let is_for_all = Json::parse(text).is_ok();
    let own = Some(text).filter(|_| is_for_all).and_then(|text| RawValue::from_string(text.to_owned()).ok());
    own.or_else(|| RawValue::from_string(quote(text)).ok()).unwrap_or_default()
}
