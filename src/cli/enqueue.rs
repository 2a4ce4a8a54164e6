//! `asyncq enqueue`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;

use super::call_args::{CallArgs, typed_call};
use super::delay_options::Delay;
use super::session::Session;
use super::stdio::{self, Sink};
use super::{batch, clap_error::parse_count, console::console, exit, process};
use crate::commands::batch::BatchRequest;
use crate::commands::enqueue::{EnqueueRequest, Made};
use crate::domain::{attempt::Outcome, event::Ran, job::JobId, log::Stream, new_job::Enqueued};
use crate::error::{Error, Kind};

/// Call a function: queue the call and print the number of its job
///
/// Inside a running function, the call runs at once instead. Its output is printed, and the exit code is 0, 75 for a temporary
/// failure, or 1.
#[derive(Debug, Args)]
#[command(
    override_usage = "asyncq enqueue [OPTIONS] <SERVICE> <FUNCTION> [ARG]...\n       asyncq enqueue [OPTIONS] --batch <FILE> [--then <SERVICE> <FUNCTION> [ARG]...]"
)]
pub struct Enqueue {
    #[command(flatten)]
    call: CallArgs,

    /// Inside a running function, queue the call instead of running it
    #[arg(long)]
    defer: bool,

    /// Inside a running function, write the result of the call to a file, as JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = ["defer", "batch"])]
    result_to: Option<PathBuf>,

    #[command(flatten)]
    batch: BatchOptions,

    /// The service
    #[arg(required_unless_present = "batch")]
    service: Option<String>,

    /// The function
    #[arg(required_unless_present = "batch")]
    function: Option<String>,

    /// The arguments; one that is JSON without space around it is read as JSON, any other is a string
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

/// How many calls are enqueued at once.
#[derive(Debug, Args)]
struct BatchOptions {
    /// Enqueue the calls in a file, one line of JSON each; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = CallArgs::OF_ONE)]
    batch: Option<PathBuf>,

    /// With --batch: enqueue one more call, which runs after all calls of the batch have completed
    #[arg(long, requires = "batch", requires = "function")]
    then: bool,

    /// With --batch: enqueue all calls or none
    #[arg(long, requires = "batch", conflicts_with = "batch_size")]
    atomic: bool,

    /// With --batch: enqueue at most N calls in one transaction
    #[arg(long, requires = "batch", value_name = "N", default_value = "1000")]
    #[arg(value_parser = parse_count, allow_negative_numbers = true)]
    batch_size: u64,
}

impl Enqueue {
    /// Runs the command.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        if let Some(file) = &self.batch.batch {
            let given = self.service.is_some() || !self.call.kwargs.is_empty() || self.call.raw;
            if given && !self.batch.then {
                return Err(Error::new(Kind::Usage, "with `--batch`, the calls come from the file")
                    .with_hint("`--then` enqueues a call on the command line after them")
                    .into());
            }
            let then = self
                .batch
                .then
                .then(|| self.parse(session, &self.call.request.due.delay(session)?))
                .transpose()?
                .map(|request| request.call);
            let request = BatchRequest {
                input: batch::open(file, "--batch")?,
                on_behalf_of: self.call.request.on_behalf_of()?,
                hold: self.call.request.hold,
                defer: self.defer,
                atomic: self.batch.atomic,
                at_once: usize::try_from(self.batch.batch_size).unwrap_or(usize::MAX),
                then,
            };
            return batch::run(session, request);
        }
        let delay = self.call.request.delay(session, "enqueue")?;
        let (request, mut queue) = (self.parse(session, &delay)?, session.open()?);
        let (service, function) = (request.call.service.clone(), request.call.function.clone());
        let enqueued = match queue.enqueue(request, &session.caller, console())? {
            Made::Queued(enqueued) => enqueued,
            Made::Ran(ran) => return Ok(print_end(session, &format!("(`{service}` `{function}`)"), &ran)),
        };
        // No error from here on is more important than to print the number of the job.
        let is_shown = !self.call.request.hold && session.is_interactive();
        let pause = is_shown.then(|| queue.pause_of(&service).ok().flatten()).flatten();
        // The end of the process closes the store too, at less cost.
        std::mem::forget(queue);
        let id = enqueued.id();
        print_number(id)?;
        if let Enqueued::Same(id) = enqueued {
            session.verbose(&self.call.request.describe_same(id));
            return Ok(exit::DONE);
        }
        delay.tell(session, id, self.call.request.hold);
        if let Some(paused) = pause {
            session.notice(&process::paused(&paused));
        }
        Ok(exit::DONE)
    }

    fn parse(&self, session: &Session, delay: &Delay) -> anyhow::Result<EnqueueRequest> {
        let names = (self.service.as_deref().unwrap_or_default(), self.function.as_deref().unwrap_or_default());
        let request = self.call.request.parse(
            session,
            delay,
            typed_call(names, &self.args, &self.call.kwargs, self.call.reading())?,
        )?;
        Ok(EnqueueRequest { defer: self.defer, result_to: self.result_to.clone(), ..request })
    }
}

/// Prints the number of a new job.
///
/// # Errors
/// [`Kind::Io`] when that fails; it says that the job is there.
pub fn print_number(id: JobId) -> Result<(), Error> {
    Sink(Stream::Out).write_all(format!("{id}\n").as_bytes()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return stdio::cannot_write(Stream::Out, error);
        }
        let message =
            format!("job {id} was enqueued, but its number could not be printed: {}", stdio::in_words(&error));
        Error::new(Kind::Io, message)
            .with_hint(format!("do not enqueue the call again; `asyncq job show {id}` shows it"))
    })
}

/// Prints how a nested call ended if it did not succeed. Returns the exit code.
pub fn print_end(session: &Session, call: &str, ran: &Ran) -> u8 {
    stdio::report_losses(true);
    let job = ran.job;
    if ran.late {
        session.info(&format!("job {job} {call}: the job that made this call had already ended"));
    }
    match &ran.outcome {
        Outcome::Completed | Outcome::CompletedItself => exit::DONE,
        Outcome::Conflict(conflict) => {
            session.info(&format!("job {job} {call}: {}", conflict.failure(1).message));
            exit::BUSY
        }
        // A call inside another one cannot run later.
        Outcome::Snoozed(snooze) => {
            session.info(&format!("job {job} {call}: {}", snooze.as_conflict().failure(1).message));
            exit::BUSY
        }
        Outcome::Failed(failure) | Outcome::Unstarted(failure) => {
            session.info(&format!("job {job} {call}: {}", failure.message));
            exit::FAILED
        }
        Outcome::Crashed(how) => {
            session.info(&format!("job {job} {call}: {how}"));
            exit::FAILED
        }
        Outcome::Interrupted | Outcome::Cancelled => exit::FAILED,
    }
}
