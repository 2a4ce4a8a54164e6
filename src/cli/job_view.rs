//! How jobs are shown: in lists, alone, and to programs.

use serde::Serialize;

use super::output::{self, FieldList, or_dash, relative, text};
use super::table::{Column, Table};
use super::{explain, format::Record, session::now, stdio::print_line};
use crate::commands::queue::Queue;
use crate::domain::attempt::Attempt;
use crate::domain::job::{Job, Phase, State};
use crate::domain::text::escape_control_in_lines;
use crate::domain::time::{Timestamp, show_span};

/// The text of a column for a job, at a moment.
pub type Cell = fn(&Job, Timestamp) -> String;

/// The columns of a list of jobs. `docs/states.md` says which ones a narrow terminal leaves out first.
const COLUMNS: [(Column, Cell); 7] = [
    (Column::always("ID"), |job, _| job.id.to_string()),
    (Column::whole("SERVICE", 2), |job, _| text(&job.call.service)),
    (Column::text("FUNCTION", 7), |job, _| text(&job.call.function)),
    (Column::text("ARGUMENTS", 1), |job, _| text(&arguments(job))),
    (Column::text("PRINCIPAL", 0), |job, _| or_dash(job.call.principal.as_deref())),
    (Column::always("STATE"), |job, _| output::state(job.state)),
    (Column::whole("WHEN", 4), |job, now| relative(latest(job), now)),
];
/// An additional column for lists of ended jobs.
const TOOK: (Column, Cell) = (Column::whole("TOOK", 3), |job, _| or_dash(took(job).as_deref()));
/// Additional columns for lists of ended jobs that include errors.
const WHY: [(Column, Cell); 2] = [
    (Column::whole("EXIT", 5), |job, _| {
        let code = job.error.as_ref().and_then(|error| error.exit_code);
        code.map_or_else(|| "-".to_owned(), |code| code.to_string())
    }),
    (Column::text("ERROR", 6), |job, _| or_dash(job.error.as_ref().map(|error| error.message.as_str()))),
];

/// The columns for a list of jobs in these states, or in all states.
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
    job.times.started_at.zip(job.times.finished_at).map(|(started, finished)| show_span(finished.since(started)))
}

/// When a job entered its state; for a waiting job, when it is due.
fn latest(job: &Job) -> Timestamp {
    match job.state.phase() {
        Phase::Waiting if job.state == State::Held => job.times.created_at,
        Phase::Waiting => job.times.run_at,
        Phase::Running => job.times.started_at.unwrap_or(job.times.run_at),
        Phase::Ended => job.times.finished_at.unwrap_or(job.times.run_at),
    }
}

/// The arguments in one line of at most 200 characters.
fn arguments(job: &Job) -> String {
    const LONGEST: usize = 200;
    let mut line = job.call.args.clone();
    if job.call.kwargs != "{}" {
        line = format!("{line} {}", job.call.kwargs);
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
    sheet.line("service", text(&job.call.service));
    sheet.line("function", text(&job.call.function));
    sheet.line("args", text(&job.call.args));
    sheet.line("kwargs", text(&job.call.kwargs));
    sheet.line("principal", or_dash(job.call.principal.as_deref()));
    sheet.line("site", or_dash(job.call.site.as_deref()));
    let mut state = output::state(job.state);
    if job.cancelling {
        state += "  asked to end";
    }
    sheet.line("state", state);
    if !job.state.has_ended()
        && let Some(reason) = queue.reasons(job, attempts)?.first()
    {
        sheet.line("why", format!("{}: {}", reason.code(), text(&explain::line(job, reason, now))));
    }
    if let Some(parent) = job.parent {
        sheet.line("parent", format!("{parent}{}", if job.immediate { "  run at once, as a part of it" } else { "" }));
    }
    let options = &job.options;
    if let Some(key) = &options.key {
        let until =
            options.key_until.as_deref().map(|until| format!("  until it has {}", text(until))).unwrap_or_default();
        sheet.line("key", text(key) + &until);
    }
    if options.priority != 0 {
        sheet.line("priority", options.priority.to_string());
    }
    if let Some(lane) = &options.lane {
        sheet.line("lane", text(lane));
    }
    if let Some(after) = &options.after {
        sheet.line("after", text(after));
    }
    if let Some(tick) = &job.schedule {
        let missed = match tick.missed {
            0 => String::new(),
            missed => format!("  and {}", output::count(missed, "earlier one", "earlier ones")),
        };
        sheet.line("schedule", format!("{}  tick {}{missed}", text(&tick.name), text(&tick.tick)));
    }
    if let Some(meta) = &options.meta {
        sheet.line("metadata", text(meta));
    }
    let by = job.os_user.as_deref().map(|user| format!("  by {}", text(user))).unwrap_or_default();
    sheet.line("created", moment(job.times.created_at) + &by);
    if job.times.run_at > job.times.created_at {
        sheet.line("due", moment(job.times.run_at));
    }
    if let Some(expires_at) = options.expires_at {
        sheet.line("expires", moment(expires_at));
    }
    if let Some(started) = job.times.started_at {
        sheet.line("started", moment(started));
    }
    if let Some(progress) = &job.progress {
        sheet.line("progress", text(progress));
    }
    if let Some(finished) = job.times.finished_at {
        let took = took(job).map(|took| format!("  took {took}"));
        sheet.line("finished", moment(finished) + &took.unwrap_or_default());
    }
    if let Some(result) = &job.result {
        sheet.line("result", text(result));
    }
    if let Some(error) = &job.error {
        sheet.line("error", text(&error.message));
        if let Some(class) = &error.class {
            sheet.line("type", text(class));
        }
    }
    sheet.print()?;
    print_attempts(attempts)?;
    // Workers may claim any number.
    let unrecorded = attempts.iter().fold(0, |sum: i64, attempt| sum.saturating_add(attempt.unrecorded));
    print_children(&queue.children(job.id)?, unrecorded)?;
    if let Some(traceback) = job.error.as_ref().and_then(|error| error.traceback.as_ref()) {
        print_line(format!("\ntraceback:\n{}", escape_control_in_lines(traceback.trim_end().as_bytes())))?;
    }
    Ok(())
}

/// Prints the calls inside a job. `unrecorded` is how many more there are, for which there are no jobs.
fn print_children(children: &[(usize, Job)], unrecorded: i64) -> anyhow::Result<()> {
    if !children.is_empty() {
        print_line("\ncalls that it made:")?;
        let (now, mut table) = (now(), Table::new(&COLUMNS.map(|(column, _)| column)));
        for (depth, job) in children {
            let mut cells = COLUMNS.map(|(_, cell)| cell(job, now));
            cells[0].insert_str(0, &"  ".repeat(*depth));
            table.row(cells);
        }
        table.print()?;
    }
    if unrecorded > 0 {
        print_line(format!("\ncalls that it made and that have no job: {unrecorded}"))?;
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
    #[serde(flatten)]
    pub job: &'a Job,
    /// Its attempts, if they were read; only in JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<&'a [Attempt]>,
}

impl Record for JobView<'_> {
    const COLUMNS: &'static str = "id,service,function,args,kwargs,principal,site,state,immediate,parent,attempt,failures,\
                                   conflicts,crashes,created_at,run_at,started_at,finished_at,result,error.kind,\
                                   error.message,error.exit_code,error.signal,error.type,error.traceback,priority,key,key_until,lane,expires_at,after,meta,\
                                   schedule.name,schedule.tick,schedule.missed,os_user,progress";
}
