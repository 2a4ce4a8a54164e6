//! `asyncq explain`.

use std::borrow::Cow;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::format::{FormatOptions, Record};
use super::job_selection::job_number;
use super::output::{self, list, relative, text};
use super::session::{Session, now};
use super::table::Table;
use super::{exit, process, stdio};
use crate::commands::explain::Explanation;
use crate::domain::attempt::Ending;
use crate::domain::event::Barrier;
use crate::domain::flaw::Remedy;
use crate::domain::job::{Job, JobId};
use crate::domain::needs::Blockers;
use crate::domain::reason::{
    Absence, CurrentAttempt, LanePosition, MOST, NotRetried, QueueAhead, Reason, Revival, RunningJob, TakenSlots, Tried,
};
use crate::domain::text::escape_control;
use crate::domain::time::{Timestamp, show_span};
use crate::system::user::user_name;

/// Explain why calls do not run, or why they ended as they did
///
/// Prints every reason, the one that stops the call now first, and the command to run next.
#[derive(Debug, Args)]
pub struct Explain {
    /// The numbers of the jobs
    #[arg(value_name = "ID", value_parser = job_number, allow_negative_numbers = true, required = true)]
    ids: Vec<i64>,
    #[command(flatten)]
    format: FormatOptions,
}

impl Explain {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let (format, mut queue) = (self.format.format()?, session.open()?);
        let found: Vec<Explanation> =
            self.ids.iter().map(|id| queue.explain(JobId(*id))).collect::<crate::Result<_>>()?;
        let now = now();
        let views: Vec<ExplanationView<'_>> = found.iter().map(|it| ExplanationView::new(it, now)).collect();
        if format == super::format::Format::Table {
            for (index, (it, view)) in found.iter().zip(&views).enumerate() {
                show(it, view, index > 0)?;
            }
        } else {
            format.print_all(&views, || Table::new(&[]))?;
        }
        Ok(exit::DONE)
    }
}

fn show(it: &Explanation, view: &ExplanationView<'_>, is_next: bool) -> anyhow::Result<()> {
    let job = &it.job;
    let gap = if is_next { "\n" } else { "" };
    let (service, function) = (text(&job.call.service), text(&job.call.function));
    let mut lines = format!("{gap}job {}  {service} {function}  {}\n", job.id, output::state(job.state));
    let width = view.reasons.iter().map(|reason| reason.code.len()).max().unwrap_or(0);
    for reason in &view.reasons {
        lines += &format!("{:width$}  {}\n", reason.code, text(&reason.message));
        if let Some(next) = &reason.next {
            lines += &format!("{:width$}  next: {}\n", "", text(next));
        }
    }
    if !view.stderr.is_empty() {
        lines += "\nlast lines of its output:\n";
        for line in view.stderr {
            lines += &format!("  {}\n", escape_control(line));
        }
    }
    Ok(stdio::print(&lines)?)
}

/// What programs read about why a job does not run.
#[derive(Serialize)]
pub struct ExplanationView<'a> {
    id: JobId,
    service: &'a str,
    function: &'a str,
    state: &'static str,
    reasons: Vec<ReasonView>,
    stderr: &'a [String],
}

#[derive(Serialize)]
struct ReasonView {
    code: &'static str,
    message: String,
    next: Option<Cow<'static, str>>,
}

impl<'a> ExplanationView<'a> {
    /// The same, seen now.
    pub fn new(it: &'a Explanation, now: Timestamp) -> ExplanationView<'a> {
        let view = |reason: &Reason| {
            let (message, next) = describe(&it.job, reason, now);
            ReasonView { code: reason.code(), message, next }
        };
        ExplanationView {
            id: it.job.id,
            service: &it.job.call.service,
            function: &it.job.call.function,
            state: it.job.state.as_str(),
            reasons: it.reasons.iter().map(view).collect(),
            stderr: &it.stderr,
        }
    }
}

impl Record for ExplanationView<'_> {
    const COLUMNS: &'static str = "id,service,function,state,reasons,stderr";
}

/// A reason and the next command, in one line.
pub fn line(job: &Job, reason: &Reason, now: Timestamp) -> String {
    let (message, next) = describe(job, reason, now);
    next.map_or_else(|| message.clone(), |next| format!("{message}: `{next}`"))
}

/// A reason in a sentence about the call, and the command to run next.
pub fn describe(job: &Job, reason: &Reason, now: Timestamp) -> (String, Option<Cow<'static, str>>) {
    let (id, service) = (job.id, &job.call.service);
    let at = |moment: Timestamp| format!("{}, {}", output::moment(moment), relative(moment, now));
    let (message, next) = match reason {
        Reason::Held => ("it is held until somebody starts it".to_owned(), format!("asyncq job start {id}")),
        Reason::Delayed(due) => (format!("it is due at {}", at(*due)), format!("asyncq job set {id} --at now")),
        Reason::Retry(due, tried) => {
            (format!("{}; it is tried again at {}", retried(tried), at(*due)), format!("asyncq job set {id} --at now"))
        }
        Reason::Snoozed(due) => {
            (format!("its function asked to run again at {}", at(*due)), format!("asyncq job set {id} --at now"))
        }
        Reason::After(jobs) => (format!("it waits for {}", jobs_of(jobs)), explain_first(jobs)),
        Reason::Lane(LanePosition { lane, heads, before }) => {
            let before = if *before > 0 { format!("; {}", ahead(*before)) } else { String::new() };
            (format!("its lane `{lane}` is taken by {}{before}", jobs_of(heads)), explain_first(heads))
        }
        Reason::NoService => (format!("its service `{service}` was removed"), format!("asyncq service add {service}")),
        Reason::Paused(paused) => (process::pause(paused), process::resume(paused)),
        Reason::Rate(rate, next) => {
            let next = next.map(|next| format!("; the next call starts at {}", at(next))).unwrap_or_default();
            (
                format!("the rate of service `{service}` is {rate}{next}"),
                format!("asyncq service set {service} --rate none"),
            )
        }
        Reason::Slots(taken) => slots(taken, now),
        Reason::Order(QueueAhead { before: 0, .. }) => {
            return ("it is next: a processor is about to take it".to_owned(), None);
        }
        Reason::Order(QueueAhead { before, priority }) => {
            let first = priority.unwrap_or(0).saturating_sub(1).max(-1000);
            (ahead(*before), format!("asyncq job set {id} --priority {first}"))
        }
        Reason::NoProcessor(Absence { others_work, last_end }) => {
            let who = if *others_work { "no processor at work takes calls of" } else { "no processor is at work on" };
            let last = last_end.map(|last| match relative(last, now) {
                now if now == "now" => "; its last call has just ended".to_owned(),
                ago => format!("; its last call ended {ago}"),
            });
            (format!("{who} service `{service}`{}", last.unwrap_or_default()), format!("asyncq process {service}"))
        }
        Reason::Quarantine => (
            "two processors died while they ran it, so a processor runs it when it runs nothing else".to_owned(),
            format!("asyncq job show {id}"),
        ),
        Reason::DeadProcessor(dead) => {
            let why = if dead.of_original { "belongs to the original of this copy" } else { "died" };
            (
                format!("{} {why}; the next processor puts its jobs back", process::name(dead)),
                "asyncq process".to_owned(),
            )
        }
        Reason::OutOfReach(dead, Barrier::User(user)) => {
            let user = user_name(*user);
            let what =
                format!("{} died, and only its user {user}, or root, can put its jobs back", process::name(dead));
            // Some users have no name.
            let account = if user.parse::<u32>().is_ok() { format!("\\#{user}") } else { user };
            (what, format!("sudo -u {account} asyncq process"))
        }
        Reason::OutOfReach(dead, Barrier::Namespace) => (
            format!("{} died in another container, where its calls may still run", process::name(dead)),
            "asyncq process --one-container".to_owned(),
        ),
        Reason::Outdated(old) => {
            let what = format!("{} is older than the store, and takes no calls: restart it", process::name(old));
            (what, format!("kill {}; asyncq process", old.is.pid))
        }
        Reason::NoSpace(free) => {
            let what = format!("the disk of the store is full ({free} bytes are free), so no call can start");
            (what, "df -h".to_owned())
        }
        Reason::WillFail(flaw) => {
            (format!("it will fail: {}", flaw.what), remedy((service, &job.call.function), &flaw.remedy))
        }
        Reason::WillExpire(moment) => {
            let what = format!("it is cancelled if no attempt has begun at {}", at(*moment));
            (what, format!("asyncq job set {id} --expires never"))
        }
        Reason::Running(attempt) => (runs(attempt, now), format!("asyncq job log -f {id}")),
        Reason::Cancelling(by) => {
            let by = by.as_ref().map(|by| format!(": {}", by.message)).unwrap_or_default();
            (format!("it was asked to end{by}"), format!("asyncq job show {id}"))
        }
        Reason::Completed(attempt) => {
            let took = job.times.started_at.zip(job.times.finished_at);
            let took = took.map(|(start, end)| format!(" after {}", show_span(end.since(start)))).unwrap_or_default();
            (format!("attempt {attempt} completed{took}"), format!("asyncq job result {id}"))
        }
        Reason::Failed(failure, why, revival) => return (failed(&failure.message, *why), revive(job, *revival)),
        Reason::Cancelled(failure, revival) => {
            let why = failure.as_ref().map_or("a client cancelled it by SQL", |failure| &failure.message);
            return (why.to_owned(), revive(job, *revival));
        }
    };
    (message, Some(next.into()))
}

fn retried(Tried { ending, failure, failed, of }: &Tried) -> String {
    let why = failure.as_ref().map(|failure| format!(" ({})", failure.message)).unwrap_or_default();
    let did = match ending {
        Ending::Conflict => "asked to be tried again",
        Ending::Crash => "ended because its processor or its worker died",
        _ => "failed",
    };
    match of {
        Some(of) => format!("{failed} of at most {of} attempts {did}{why}"),
        None => format!("{} {did}{why}", output::count(*failed, "attempt", "attempts")),
    }
}

fn failed(message: &str, why: NotRetried) -> String {
    match why {
        NotRetried::NoFunction => format!("{message}; its function was removed"),
        NotRetried::PartOf(parent) => format!("{message}; it ran as a part of job {parent}"),
        NotRetried::Never => format!("{message}; its function has no `--retries`"),
        NotRetried::OtherFailures => format!("{message}; its function does not retry that (`--retry-on`)"),
        NotRetried::UsedUp(retries) => {
            format!("{message}; all {} are used up", output::count(retries, "retry", "retries"))
        }
        NotRetried::NotARun => message.to_owned(),
    }
}

/// The next command for a call that failed or was cancelled.
fn revive(job: &Job, revival: Revival) -> Option<Cow<'static, str>> {
    let (service, function) = (&job.call.service, &job.call.function);
    let next = match revival {
        Revival::Retry => format!("asyncq job retry {}", job.id),
        Revival::Whole(other) | Revival::Needed(other) => format!("asyncq explain {other}"),
        Revival::Service => format!("asyncq service add {service}"),
        Revival::Function => remedy((service, function), &Remedy::Function),
        Revival::Nothing => return None,
    };
    Some(next.into())
}

/// The command that lets a function run which cannot.
pub fn remedy((service, function): (&str, &str), remedy: &Remedy) -> String {
    let set = format!("asyncq function set {service} {function}");
    let on = |command: &str, path: &Path| format!("{command} {}", output::command_line(&[path.display().to_string()]));
    match remedy {
        Remedy::Function => format!("asyncq function add {service} {function} -- PROGRAM"),
        Remedy::Program => format!("{set} -- PROGRAM"),
        Remedy::Executable(program) => on("chmod +x", program),
        Remedy::Site => format!("{set} --site FOLDER"),
        Remedy::Folder(folder) => on("mkdir -p", folder),
        Remedy::EnvFile => format!("{set} --env-file FILE"),
        Remedy::Private(file) => on("chmod 600", file),
    }
}

fn slots(TakenSlots { concurrency, holders, running }: &TakenSlots, now: Timestamp) -> (String, String) {
    let all = if *concurrency == 1 { "the only slot is".to_owned() } else { format!("all {concurrency} slots are") };
    let job = |it: &RunningJob| {
        let since = it.started_at.map(|at| format!(" for {}", show_span(now.since(at)))).unwrap_or_default();
        let limit = if it.timeout.is_none() { " (no time limit)" } else { "" };
        format!("job {}{since}{limit}", it.id)
    };
    if let Some(first) = running.first() {
        return (format!("{all} taken: {}", list(running.iter().map(job))), format!("asyncq explain {}", first.id));
    }
    let by = list(holders.iter().map(process::name));
    (format!("{all} taken by {by}"), "asyncq job list --state processing".to_owned())
}

fn runs(attempt: &CurrentAttempt, now: Timestamp) -> String {
    let mut what = format!("attempt {} runs", attempt.number);
    if let Some(started) = attempt.started_at {
        what += &format!(" for {}", show_span(now.since(started)));
    }
    if let Some(processor) = &attempt.processor {
        what += &format!(" in {}", process::name(processor));
    }
    if let Some(progress) = &attempt.progress {
        what += &format!("; it reports \"{progress}\"");
    }
    if let Some(until) = attempt.until {
        what += &format!("; its time limit ends it {}", relative(until, now));
    }
    what
}

fn explain_first(jobs: &[JobId]) -> String {
    jobs.first().map_or_else(|| "asyncq process".to_owned(), |job| format!("asyncq explain {job}"))
}

/// The first of perhaps many jobs.
fn jobs_of(jobs: &[JobId]) -> String {
    match jobs {
        [] => "no job".to_owned(),
        [job] => format!("job {job}"),
        jobs if jobs.len() as u64 == Blockers::MOST.unsigned_abs() => format!("jobs {} and perhaps more", list(jobs)),
        [first @ .., last] => format!("jobs {} and {last}", list(first)),
    }
}

fn ahead(before: u64) -> String {
    match before {
        1 => "1 call comes first".to_owned(),
        MOST.. => format!("{MOST} calls or more come first"),
        _ => format!("{before} calls come first"),
    }
}
