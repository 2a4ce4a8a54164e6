//! `asyncq process`.

use std::time::Duration;

use clap::Args;

use sd_notify::NotifyState;

use super::clap_error::parse_count;
use super::console::{console, trying_again};
use super::exit;
use super::session::Session;
use super::stdio;
use super::systemd;
use crate::commands::process::{self, ProcessRequest, Processed};
use crate::commands::user;
use crate::domain::attempt::{Ending, Failure, FailureKind};
use crate::domain::event::{Barrier, Event, Report, Unkillable};
use crate::domain::job::{Claim, JobId, State};
use crate::domain::processor::{ProcessOptions, Processor};
use crate::domain::service::ServiceName;
use crate::domain::time::{parse_span, show_span};
use crate::error::reason;

/// Run the calls that are ready, then end
///
/// Drains the services one after the other. What functions print appears on stdout and stderr. The exit code is 1 when a
/// job ended in an error. A first signal to stop lets what is running end, a second one ends it and puts it back.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Process {
    /// The services [default: all, by name]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Run at most so many calls
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    max_jobs: Option<u64>,

    /// Begin no call any more after this time, as in 50s
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_time: Option<Duration>,

    /// Wait for the calls that are to be tried again
    #[arg(long)]
    wait_retries: bool,

    /// Stay, and run calls as they come, of all the services at once, until told to stop
    ///
    /// Tells systemd when it is ready and that it lives, if that asks (docs/follow.md).
    #[arg(long, conflicts_with = "wait_retries")]
    follow: bool,

    /// Take it that a container in which a processor died has ended
    ///
    /// For a store that only one container uses at a time. Where two do, calls could run twice at once.
    #[arg(long)]
    one_container: bool,

    /// Run calls of workers in the calling program itself, which speaks the worker protocol on the other end of this socket
    ///
    /// The number of an inherited descriptor: one end of a `socketpair(AF_UNIX, SOCK_STREAM)` that the calling program has made
    /// (docs/protocol.md). Its hello names the functions that run in it.
    #[arg(long, value_name = "FD", value_parser = parse_descriptor, allow_negative_numbers = true)]
    worker_socket: Option<u32>,

    /// As root, run functions even out of a store that others can change
    ///
    /// Whoever can write the store, or a folder that it is in, decides what root runs.
    #[arg(long)]
    trust_store_writers: bool,
}

fn parse_descriptor(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "a descriptor is a whole number from 3".to_owned())
}

impl Process {
    /// Does what is asked.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        let options = ProcessOptions {
            services: self.services.iter().map(|name| ServiceName::parse(name)).collect::<Result<_, _>>()?,
            max_jobs: self.max_jobs,
            max_time: self.max_time,
            wait_retries: self.wait_retries,
            follow: self.follow,
            pulse: if self.follow { systemd::pulse() } else { None },
            one_container: self.one_container,
        };
        let request = ProcessRequest {
            options: &options,
            place: &session.place()?,
            caller: &session.caller,
            socket: self.worker_socket,
            trust_store_writers: self.trust_store_writers,
        };
        let done = process::run(&request, &console(), &mut |event| tell(session, &options, &event))?;
        let summary = match done {
            Processed::Supervised(code) => return Ok(code),
            Processed::Done(summary) => summary,
        };
        if session.is_verbose() {
            session.info(&format!("attempts: {}; jobs that ended in an error: {}", summary.attempts, summary.errors));
        }
        let told = stdio::tell_losses(true);
        Ok(match (summary.errors, summary.held_back, told) {
            (1.., _, _) => exit::FAILED,
            (0, 1.., _) => exit::DENIED,
            (0, 0, true) => exit::DONE,
            // Nothing but the exit code can say that output is lost.
            (0, 0, false) => exit::IO,
        })
    }
}

/// What is told of calls that wait because their service is paused.
pub(super) fn paused(service: &ServiceName) -> String {
    format!("service `{service}` is paused; `asyncq service resume {service}` lets its calls run")
}

/// What is told of a call whose outcome nobody wants any more.
fn late(job: JobId, now: Option<State>) -> String {
    let why = match now {
        None => "is not in the store any more".to_owned(),
        Some(State::Processing) => "was taken over by another processor".to_owned(),
        Some(state) => format!("is {state} now, which was not done here"),
    };
    format!("job {job} {why}; what it did here counts for nothing")
}

/// What is told of jobs that were put back, as they belonged to no processor.
fn unowned(jobs: &[(JobId, State)]) -> String {
    let list: Vec<String> = jobs.iter().map(|(job, state)| format!("job {job} is {state}")).collect();
    format!("found `processing` without a processor, and put back: {}", list.join(", "))
}

/// Tells what happens while no processor works.
pub(super) fn tell_aside(session: &Session, event: &Event<'_>) {
    tell(session, &ProcessOptions::default(), event);
}

fn tell(session: &Session, options: &ProcessOptions, event: &Event<'_>) {
    match event {
        Event::Busy { service, concurrency, holders } => {
            let by: Vec<String> = holders.iter().map(name).collect();
            let slots =
                if *concurrency == 1 { "its one slot is".to_owned() } else { format!("its {concurrency} slots are") };
            session.news(&format!("service `{service}` is busy: {slots} taken by {}", by.join(", ")));
        }
        Event::Paused { service } => session.news(&paused(service)),
        Event::Ended(report) => tell_end(session, report),
        Event::Late { job, now } => session.info(&late(*job, *now)),
        Event::Mended { what } => session.info(what),
        Event::Unowned { jobs } => session.info(&unowned(jobs)),
        Event::Rescued { processor, jobs } => tell_rescued(session, processor, jobs),
        Event::Unkillable { immune } => tell_of_immune(session, None, immune),
        Event::NotRescued { processor, immune: Some(immune) } => tell_of_immune(session, Some(processor), immune),
        Event::NotRescued { processor, immune: None } => {
            session.info_with_hint(
                &format!("{} died, and what it ran cannot be ended", name(processor)),
                "its jobs are put back once that is gone; `ps -eo pid,stat,args` shows what waits for the kernel (D)",
            );
        }
        Event::OutOfReach { processor, barrier: Barrier::User(user) } => {
            session.info_with_hint(
                &format!("{} of user {user} died; only that user or root can put its jobs back", name(processor)),
                "one of them must run `asyncq process`",
            );
        }
        Event::OutOfReach { processor, barrier: Barrier::Namespace } => {
            session.info_with_hint(&format!(
                "{} died in another container; what it ran may go on there, so its jobs are not put back",
                name(processor)
            ), "`asyncq process` can do it there or outside of containers, and `--one-container` if that one has ended");
        }
        Event::InHost { processor, host, jobs } => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            let (of, wait) = if jobs.len() == 1 { ("job", "it waits") } else { ("jobs", "they wait") };
            session.info_with_hint(
                &format!(
                    "{} died, and process {host}, which it drained into, may still run {of} {}",
                    name(processor),
                    jobs.join(", ")
                ),
                &format!(
                    "{wait} until that process has ended, or starts `asyncq process` anew and says `\"idle\":true`"
                ),
            );
        }
        Event::Unsure { processor, error } => {
            session.verbose(&format!("cannot tell whether {} lives: {}", name(processor), reason(&error)));
        }
        Event::HeldBack { error } => session.info_with_hint(
            &format!("{error}; what is held back is tried again every second"),
            error.hint().unwrap_or_default(),
        ),
        Event::Ready => {
            systemd::tell(&[NotifyState::Ready]);
            session.verbose("ready; a signal stops it");
        }
        Event::Alive => systemd::tell(&[NotifyState::Watchdog]),
        Event::Deaf { error } => {
            session.warn_with_hint(
                &format!("cannot watch the store: {}; looking at it a hundred times a second instead", reason(&error)),
                "`sysctl fs.inotify.max_user_instances` says how many watchers a user may have",
            );
        }
        Event::Stopping { running: 0 } => systemd::tell(&[NotifyState::Stopping]),
        Event::Stopping { running } => {
            systemd::tell(&[NotifyState::Stopping]);
            let jobs = if *running == 1 { "one job".to_owned() } else { format!("{running} jobs") };
            let text = format!("stopping; waiting for {jobs} to end (once more: end and put back)");
            // Where cron stops it each time, that is no trouble; in the log of a service it is of use.
            if options.follow { session.info(&text) } else { session.news(&text) }
        }
        Event::StoreFails { error } => session.warn(&trying_again(error)),
        Event::GivenUp { jobs } => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            session.warn(&format!(
                "could not record the outcomes of jobs {}; who processes next may run them once more",
                jobs.join(", ")
            ));
        }
        Event::Unmarked { error } => session.warn(&format!(
            "cannot write down which calls run: {}; a crash may not be counted against them",
            reason(&error)
        )),
        Event::Postponed { claim, why, pause } => tell_postponed(session, claim, why, *pause),
        Event::Scarce { error } => session.warn(&format!("{error}; nothing begins until that is possible again")),
        Event::NoSpace { error } => session.warn(&format!("{error}; nothing begins until there is some")),
    }
}

fn tell_rescued(session: &Session, processor: &Processor, jobs: &[(JobId, State)]) {
    let count = |state| jobs.iter().filter(|(_, now)| *now == state).count();
    let back = count(State::Queued);
    let failed = count(State::Error);
    let what = if processor.of_original { "belongs to the original of this copy" } else { "died" };
    let mut text = format!("{} {what}", name(processor));
    if back > 0 {
        text += &format!("; {back} of its jobs put back");
    }
    if failed > 0 {
        text += &format!("; {failed} of its jobs ended in an error (`asyncq job list --state error` says why)");
    }
    session.info(&text);
}

fn tell_postponed(session: &Session, claim: &Claim, why: &Failure, pause: Duration) {
    let what = format!("job {} (`{}` `{}`)", claim.fence.job, claim.call.service, claim.call.function);
    session.info(&format!("{what}: {}; tried again in {}", why.message, show_span(pause)));
}

/// Tells of a process that cannot be ended, of a call that runs or of a processor that is gone.
fn tell_of_immune(session: &Session, gone: Option<&Processor>, immune: &Unkillable) {
    let Unkillable { pid, job, .. } = immune;
    let owner = user(immune.user);
    let hint = format!("root can end it with `kill {pid}`");
    if let Some(processor) = gone {
        return session.info_with_hint(
            &format!(
                "{} is gone, and its process {pid}, which belongs to user {owner}, cannot be ended",
                name(processor)
            ),
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

fn tell_end(session: &Session, report: &Report) {
    let Report { job, service, function, .. } = report;
    let what = format!("job {job} (`{service}` `{function}`)");
    let took = show_span(report.took);
    let pause = report.pause.unwrap_or_default().as_secs_f64();
    match (&report.error, report.ending) {
        (Some(error), _) if report.state == State::Delayed => {
            session.verbose(&format!("{what}: {}; tried again in {pause:.1}s", error.message));
        }
        (Some(error), _) if report.lacks_own_site => session.info_with_hint(
            &format!("{what}: {}", error.message),
            &format!("that site belongs to this call alone: make the directory, then `asyncq job retry {job}`"),
        ),
        // Without a code, the message names the way out.
        (Some(error), _) if error.kind == FailureKind::CannotRun && error.exit_code.is_some() => session
            .info_with_hint(
                &format!("{what}: {}", error.message),
                &format!("`asyncq function set {service} {function}` changes its program or its site"),
            ),
        (Some(error), _) => session.info(&format!("{what}: {}", error.message)),
        (None, Ending::Conflict) if report.state == State::Delayed => {
            session.verbose(&format!("{what}: a conflict; tried again in {pause:.1}s"));
        }
        (None, Ending::Interrupted) => session.info(&format!("{what}: ended and put back")),
        (None, Ending::Cancelled) => session.verbose(&format!("{what}: cancelled after {took}")),
        (None, _) => session.verbose(&format!("{what}: {} after {took}", report.state)),
    }
}

/// How a processor is called.
pub(super) fn name(processor: &Processor) -> String {
    format!("processor {} (process {} on {})", processor.id.0, processor.is.pid, processor.is.host)
}
