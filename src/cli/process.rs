//! `asyncq process`.

use std::time::{Duration, Instant};

use clap::Args;

use sd_notify::NotifyState;

use super::console::{console, trying_again};
use super::drain_view::{print_end, show_progress};
use super::output::{count, list, text};
use super::service_options::ServiceOptions;
use super::session::{Session, print_info};
use super::{clap_error::parse_count, exit, stdio};
use crate::commands::process::{self, ProcessRequest, Processed};
use crate::domain::attempt::Failure;
use crate::domain::console::Console;
use crate::domain::event::{Barrier, Event, Unkillable};
use crate::domain::job::{Claim, JobId, State};
use crate::domain::pause::{Pause, Paused};
use crate::domain::processor::{ProcessOptions, Processor};
use crate::domain::tick::{Shift, TickTrouble};
use crate::domain::time::{parse_span, parse_span_or_zero, show_span, write_span};
use crate::error::reason;
use crate::system::user::user_name;

/// Run the calls that are ready, then exit
///
/// Drains the services one after the other, and prints the output of functions to stdout and stderr. On a terminal it also shows
/// how each call ends, and how far a long drain is. The exit code is 1 if a job ended in an error. After a first signal to stop,
/// asyncq waits for the running calls (`--grace` limits the time); after a second one, it ends them and puts them back.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Process {
    #[command(flatten)]
    services: ServiceOptions,

    /// Run at most N calls
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    max_jobs: Option<u64>,

    /// Start no new call after this time, as in 50s
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    max_time: Option<Duration>,

    /// When nothing is left to do, wait for calls that come due within this time
    ///
    /// These are delayed calls and retries. Each call that runs renews the time; --max-time limits the total.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    wait: Option<Duration>,

    /// The same as `--wait 1m`
    #[arg(long, conflicts_with = "wait")]
    wait_retries: bool,

    /// Keep running, and serve all the services at the same time, until a signal stops it
    ///
    /// Notifies systemd, if it asks, when it is ready and that it is alive (docs/follow.md).
    #[arg(long, conflicts_with_all = ["wait", "wait_retries"])]
    follow: bool,

    /// After a first signal to stop, let running calls end within this time; then end them and put them back
    ///
    /// 0 ends them at once. Without it, they have all the time they need. Set it at least 15 seconds below the time after which
    /// systemd or a container kills asyncq, because a function that ignores SIGTERM gets 10 more seconds.
    #[arg(long, value_name = "SPAN", value_parser = parse_span_or_zero, allow_hyphen_values = true)]
    grace: Option<Duration>,

    /// Begin each line that a function prints with its job and its function, as in `12 thumbnail | done`
    #[arg(long)]
    label: bool,

    /// Assume that the container of a dead processor is gone
    ///
    /// Only for a store that one container at a time uses. With two containers, a call could run twice at the same time.
    #[arg(long)]
    one_container: bool,

    /// Run calls of workers in the calling program, which speaks the worker protocol on the other end of this socket
    ///
    /// FD is the number of an inherited descriptor: one end of a `socketpair(AF_UNIX, SOCK_STREAM)` of the calling program
    /// (docs/protocol.md). The hello of that program names the functions that it runs.
    #[arg(long, value_name = "FD", value_parser = parse_descriptor, allow_negative_numbers = true)]
    worker_socket: Option<u32>,

    /// As root, run functions even from a store that others can change
    ///
    /// Any user who can write to the store, or to a folder that contains it, decides what root runs.
    #[arg(long)]
    trust_store_writers: bool,
}

/// How long `--wait-retries` waits.
const WAIT_FOR_RETRIES: Duration = Duration::from_secs(60);

fn parse_descriptor(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "a descriptor is a whole number from 3".to_owned())
}

impl Process {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let options = ProcessOptions {
            services: self.services.selection(),
            max_jobs: self.max_jobs,
            max_time: self.max_time,
            wait: self.wait.or(self.wait_retries.then_some(WAIT_FOR_RETRIES)),
            follow: self.follow,
            grace: self.grace,
            progress: session.shows_status().then_some(PROGRESS),
            pulse: if self.follow { keep_alive_interval() } else { None },
            one_container: self.one_container,
        };
        let request = ProcessRequest {
            options: &options,
            place: &session.place()?,
            caller: &session.caller,
            socket: self.worker_socket,
            trust_store_writers: self.trust_store_writers,
        };
        let began = Instant::now();
        let done = process::run(&request, Console { has_labels: self.label, ..console() }, &mut |event| {
            print_event(session, &options, &event);
        });
        if options.progress.is_some() {
            stdio::show_status(None);
        }
        stdio::report_skipped();
        let done = done?;
        let summary = match done {
            Processed::Supervised(ended) => {
                if ended.is_err() && options.progress.is_some() {
                    // Nobody knows where the killed process has left the cursor.
                    stdio::begin_line();
                }
                return Ok(ended?);
            }
            Processed::Done(summary) => summary,
        };
        let attempts = count(summary.attempts, "attempt", "attempts");
        let errors = count(summary.errors, "job", "jobs");
        if session.is_interactive() && summary.attempts > 0 {
            session.info(&format!("{attempts} in {}; {errors} ended in an error", show_span(began.elapsed())));
        } else {
            session.verbose(&format!("{attempts}; {errors} ended in an error"));
        }
        let all_reported = stdio::report_losses(true);
        Ok(match (summary.errors, summary.held_back, all_reported) {
            (1.., _, _) => exit::FAILED,
            (0, 1.., _) => exit::DENIED,
            (0, 0, true) => exit::DONE,
            // Only the exit code can tell that output is lost.
            (0, 0, false) => exit::IO,
        })
    }
}

/// How often a terminal shows how far a processor is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Notifies systemd, if it listens (`$NOTIFY_SOCKET`). A notification that fails is ignored.
fn notify(what: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(what);
}

/// How often to send systemd a keep-alive: twice in the time after which systemd takes the service for dead (`$WATCHDOG_USEC`,
/// `sd_watchdog_enabled(3)`).
fn keep_alive_interval() -> Option<Duration> {
    // `$WATCHDOG_PID` is not checked. It names the process that systemd started, which is the supervisor of this one.
    let time: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (time > 0).then(|| Duration::from_micros(time / 2))
}

/// The message about calls that wait in a pause.
pub(super) fn paused(paused: &Paused) -> String {
    format!("{}; `{}` lets its calls run", pause(paused), resume(paused))
}

/// What is paused, and why.
pub(super) fn pause(paused: &Paused) -> String {
    let (what, Pause { why }) = match paused {
        Paused::Store(pause) => ("the store".to_owned(), pause),
        Paused::Service(service, pause) => (format!("service `{service}`"), pause),
    };
    let why = why.as_ref().map(|why| format!(": {}", text(why))).unwrap_or_default();
    format!("{what} is paused{why}")
}

/// The command that ends a pause.
pub(super) fn resume(paused: &Paused) -> String {
    match paused {
        Paused::Store(_) => "asyncq resume".to_owned(),
        Paused::Service(service, _) => format!("asyncq service resume {service}"),
    }
}

/// The message about a call that ended after this processor had lost it.
fn late(job: JobId, now: Option<State>) -> String {
    let why = match now {
        None => format!("job {job} is no longer in the store"),
        Some(State::Processing) => format!("another processor took over job {job}"),
        Some(state) => format!("job {job} is already {state}"),
    };
    format!("{why}; this attempt's result was discarded")
}

/// The message about jobs that were put back because they belonged to no processor.
fn unowned(jobs: &[(JobId, State)]) -> String {
    let jobs = list(jobs.iter().map(|(job, state)| match state {
        State::Error => format!("job {job} ended in an error"),
        _ => format!("job {job} is {state}"),
    }));
    format!("put back jobs that were `processing` without a processor: {jobs}")
}

/// Prints what happens while no processor runs.
pub(super) fn print_aside(session: &Session, event: &Event<'_>) {
    print_event(session, &ProcessOptions::default(), event);
}

fn print_trouble(session: &Session, name: &str, trouble: &TickTrouble) {
    let of = |what: &dyn std::fmt::Display| format!("schedule `{name}`: {what}");
    match trouble {
        TickTrouble::Shifted(shift @ Shift::Zone) => session.verbose(&of(shift)),
        TickTrouble::Shifted(shift @ Shift::Clock) => session.info(&of(shift)),
        TickTrouble::Refused(error) => session
            .info_with_hint(&of(&format_args!("{error}; the tick made no job")), error.hint().unwrap_or_default()),
        TickTrouble::Unreadable(error) => session.info_with_hint(
            &of(&format_args!("{error}; it is tried again in an hour")),
            &format!("`asyncq schedule remove {name}` removes it"),
        ),
    }
}

fn print_event(session: &Session, options: &ProcessOptions, event: &Event<'_>) {
    match event {
        Event::Busy { service, concurrency, holders } => {
            let slots =
                if *concurrency == 1 { "its one slot is".to_owned() } else { format!("its {concurrency} slots are") };
            session
                .notice(&format!("service `{service}` is busy: {slots} taken by {}", list(holders.iter().map(name))));
        }
        Event::NoService => session.info("no service matches"),
        Event::Paused(it) => session.notice(&paused(it)),
        Event::Ended(report) => print_end(session, report),
        Event::Late { job, now } => session.info(&late(*job, *now)),
        Event::Mended(what) => session.info(what),
        Event::Unowned(jobs) => session.info(&unowned(jobs)),
        Event::Rescued { processor, jobs } => print_rescued(session, processor, jobs),
        Event::Unkillable(unkillable) => print_unkillable(session, None, unkillable),
        Event::NotRescued { processor, unkillable: Some(unkillable) } => {
            print_unkillable(session, Some(processor), unkillable);
        }
        Event::NotRescued { processor, unkillable: None } => {
            session.info_with_hint(
                &format!("{} died, and its processes cannot be ended", name(processor)),
                "its jobs are put back once they have ended; `ps -eo pid,stat,args` shows which wait for the kernel (D)",
            );
        }
        Event::OutOfReach { processor, barrier: Barrier::User(user) } => {
            session.info_with_hint(
                &format!("{} of user {user} died; only that user or root can put its jobs back", name(processor)),
                "run `asyncq process` as one of them",
            );
        }
        Event::OutOfReach { processor, barrier: Barrier::Namespace } => {
            session.info_with_hint(&format!(
                "{} died in another container, where its calls may still run, so its jobs are not put back",
                name(processor)
            ), "run `asyncq process` there or outside of containers, or with `--one-container` if that container has ended");
        }
        Event::InHost { processor, host, jobs } => {
            let (of, wait) = if jobs.len() == 1 { ("job", "it waits") } else { ("jobs", "they wait") };
            session.info_with_hint(
                &format!("{} died, and its host, process {host}, may still run {of} {}", name(processor), list(*jobs)),
                &format!("{wait} until that process ends, or starts `asyncq process` again and says `\"idle\":true`"),
            );
        }
        Event::Unsure { processor, error } => {
            session.verbose(&format!("cannot find out whether {} is alive: {}", name(processor), reason(&error)));
        }
        Event::HeldBack(error) => session.info_with_hint(
            &format!("{error}; the calls that it holds back are tried again every second"),
            error.hint().unwrap_or_default(),
        ),
        Event::Schedule { name, trouble } => print_trouble(session, name, trouble),
        Event::Ready => {
            notify(&[NotifyState::Ready]);
            session.verbose("ready; a signal stops this processor");
        }
        Event::Alive => notify(&[NotifyState::Watchdog]),
        Event::Progress(progress) => show_progress(progress.as_ref()),
        Event::Deaf(error) => {
            print_info(
                &format!("cannot watch the store: {}; polling it a hundred times a second instead", reason(&error)),
                Some("`sysctl fs.inotify.max_user_instances` shows how many watchers a user may have"),
            );
        }
        Event::Stopping { running: 0 } => notify(&[NotifyState::Stopping]),
        Event::Stopping { running } => {
            notify(&[NotifyState::Stopping]);
            let text = stopping(*running, options.grace);
            // Cron may stop a processor each time, and should not mail that. In the log of a service, it is useful.
            if options.follow { session.info(&text) } else { session.notice(&text) }
        }
        Event::StoreFails(error) => print_info(&trying_again(error), None),
        Event::GivenUp(jobs) => {
            let (outcomes, them) =
                if jobs.len() == 1 { ("outcome of job", "it") } else { ("outcomes of jobs", "them") };
            let text = format!(
                "could not record the {outcomes} {}; the next `asyncq process` may run {them} again",
                list(*jobs)
            );
            print_info(&text, None);
        }
        Event::Unmarked(error) => {
            let why = reason(&error);
            let text = format!("cannot record which calls have begun: {why}; a crash may not be counted for them");
            print_info(&text, None);
        }
        Event::Postponed { claim, why, pause } => print_postponed(session, claim, why, *pause),
        Event::Scarce(error) => {
            print_info(&format!("{error}; no job starts until that is possible again"), None);
        }
        Event::NoSpace(error) => print_info(&format!("{error}; no job starts until there is space"), None),
    }
}

/// The message about running calls that a processor waits for before it stops.
fn stopping(running: usize, grace: Option<Duration>) -> String {
    let (jobs, have, them) = match running {
        1 => ("the running job".to_owned(), "has", "it"),
        _ => (format!("{running} running jobs"), "have", "them"),
    };
    match grace {
        Some(Duration::ZERO) => format!("stopping: asyncq ends {jobs} and puts {them} back"),
        Some(grace) => format!(
            "stopping when {jobs} {have} ended; after {}, or when you signal again, asyncq ends {them} and puts {them} back, which takes up to 10 seconds",
            write_span(grace)
        ),
        None => format!("stopping when {jobs} {have} ended; signal again to end {them} and put {them} back"),
    }
}

fn print_rescued(session: &Session, processor: &Processor, jobs: &[(JobId, State)]) {
    let count = |state| jobs.iter().filter(|(_, now)| *now == state).count();
    let back = count(State::Queued);
    let failed = count(State::Error);
    let what = if processor.of_original { "belongs to the original of this copy" } else { "died" };
    let mut text = format!("{} {what}", name(processor));
    if back > 0 {
        text += &format!("; put back {back} of its jobs");
    }
    if failed > 0 {
        text += &format!("; {failed} of its jobs ended in an error (`asyncq job list --state error` shows why)");
    }
    session.info(&text);
}

fn print_postponed(session: &Session, claim: &Claim, why: &Failure, pause: Duration) {
    let what = format!("job {} (`{}` `{}`)", claim.fence.job, claim.call.service, claim.call.function);
    session.info(&format!("{what}: {}; tried again in {}", why.message, show_span(pause)));
}

/// Prints that a process of a running call or of a dead processor cannot be ended.
fn print_unkillable(session: &Session, dead: Option<&Processor>, process: &Unkillable) {
    let Unkillable { pid, job, .. } = process;
    let owner = user_name(process.user);
    let hint = format!("root can end it with `kill {pid}`");
    if let Some(processor) = dead {
        return session.info_with_hint(
            &format!("{} died, and its process {pid}, which belongs to user {owner}, cannot be ended", name(processor)),
            &format!("its jobs are put back once that process ends; {hint}"),
        );
    }
    let what = job.map_or_else(|| "a worker".to_owned(), |job| format!("job {job}"));
    session.info_with_hint(
        &format!(
            "{what} runs process {pid}, which belongs to user {owner} and cannot be ended; its slot stays taken until that process ends"
        ),
        &hint,
    );
}

/// A processor, in messages.
pub(super) fn name(processor: &Processor) -> String {
    format!("processor {} (process {} on {})", processor.id.0, processor.is.pid, processor.is.host)
}
