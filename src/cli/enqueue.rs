//! `asyncq enqueue`.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;

use super::call_options::CallOptionArgs;
use super::delay_options::{Delay, DelayOptions};
use super::session::Session;
use super::stdio::{self, Sink};
use super::{batch, clap_error::parse_count, console::console, exit, process};
use crate::commands::batch::BatchRequest;
use crate::commands::enqueue::{EnqueueRequest, Made};
use crate::domain::call::{Call, Key, OnBehalfOf, Reading};
use crate::domain::job::JobId;
use crate::domain::new_job::{Enqueued, IfTaken};
use crate::domain::{attempt::Outcome, event::Ran, function::FunctionName, json::Json, log::Stream};
use crate::domain::{service::ServiceName, text::escape_control};
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
    /// A keyword argument; may be repeated
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    kwargs: Vec<String>,

    /// Take every argument as a string, even if it is JSON
    #[arg(long)]
    raw: bool,

    /// On whose behalf the call is made; '' for nobody [default: `$ASYNCQ_PRINCIPAL`]
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,

    /// A key that makes it safe to repeat the call: the same call with the same key stays one job
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Hold the job until `asyncq job start` releases it
    #[arg(long)]
    hold: bool,

    #[command(flatten)]
    due: DelayOptions,

    #[command(flatten)]
    options: CallOptionArgs,

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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "delay", "at", "tz"])]
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
            let given = self.service.is_some() || !self.kwargs.is_empty() || self.raw;
            if given && !self.batch.then {
                return Err(Error::new(Kind::Usage, "with `--batch`, the calls come from the file")
                    .with_hint("`--then` enqueues a call on the command line after them")
                    .into());
            }
            let then = self
                .batch
                .then
                .then(|| self.parse(session, &self.due.delay(session)?))
                .transpose()?
                .map(|request| request.call);
            let request = BatchRequest {
                input: batch::open(file)?,
                on_behalf_of: self.on_behalf_of()?,
                hold: self.hold,
                defer: self.defer,
                atomic: self.batch.atomic,
                at_once: usize::try_from(self.batch.batch_size).unwrap_or(usize::MAX),
                then,
            };
            return batch::run(session, request);
        }
        self.due.check_zone(self.options.has_expiry(), "enqueue")?;
        self.options.check_key(self.key.is_some())?;
        let delay = self.due.delay(session)?;
        let (request, mut queue) = (self.parse(session, &delay)?, session.open()?);
        let (service, function) = (request.call.service.clone(), request.call.function.clone());
        let enqueued = match queue.enqueue(request, &session.caller, console())? {
            Made::Queued(enqueued) => enqueued,
            Made::Ran(ran) => return Ok(print_end(session, &format!("(`{service}` `{function}`)"), ran)),
        };
        // No error from here on is more important than to print the number of the job.
        let is_paused =
            !self.hold && session.is_interactive() && queue.service(&service).is_ok_and(|service| service.paused);
        // The end of the process closes the store too, at less cost.
        std::mem::forget(queue);
        let id = enqueued.id();
        print_number(id)?;
        if let Enqueued::Same(id) = enqueued {
            session.verbose(&match self.options.if_taken() {
                None => format!("already enqueued as job {id} (same key, same call)"),
                Some(IfTaken::Keep) => format!("job {id} has this key"),
                Some(IfTaken::Replace) => format!("job {id}, which has this key, has the arguments of this call now"),
                Some(IfTaken::Postpone) => {
                    format!("job {id}, which has this key, has the arguments and the time of this call now")
                }
            });
            return Ok(exit::DONE);
        }
        delay.tell(session, id, self.hold);
        if is_paused {
            session.notice(&process::paused(&service));
        }
        Ok(exit::DONE)
    }

    /// On whose behalf the calls are made.
    fn on_behalf_of(&self) -> Result<OnBehalfOf, Error> {
        self.principal.as_deref().map_or(Ok(OnBehalfOf::Caller), OnBehalfOf::parse)
    }

    fn parse(&self, session: &Session, delay: &Delay) -> anyhow::Result<EnqueueRequest> {
        let names = (self.service.as_deref().unwrap_or_default(), self.function.as_deref().unwrap_or_default());
        let reading = if self.raw { Reading::Raw } else { Reading::Json };
        Ok(EnqueueRequest {
            call: typed_call(names, &self.args, &self.kwargs, reading)?,
            on_behalf_of: self.on_behalf_of()?,
            key: self.key.as_deref().map(Key::parse).transpose()?,
            hold: self.hold,
            due: delay.due,
            options: self.options.parse(|text| self.due.expiry(session, delay, text))?,
            defer: self.defer,
            result_to: self.result_to.clone(),
        })
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

/// A call as it is typed: the names of its service and its function, and its arguments.
///
/// # Errors
/// [`Kind::Usage`] for an invalid name or keyword argument, [`Kind::Invalid`] for invalid values.
pub fn typed_call(
    (service, function): (&str, &str),
    args: &[String],
    kwargs: &[String],
    reading: Reading,
) -> Result<Call, Error> {
    let (service, function) = (ServiceName::parse(service)?, FunctionName::parse(function)?);
    Ok(Call::new(service, function, typed_positional(args, reading)?, typed_keywords(kwargs, reading)?))
}

/// Positional arguments as they are typed.
///
/// # Errors
/// [`Kind::Invalid`] for invalid values.
pub fn typed_positional(args: &[String], reading: Reading) -> Result<Json, Error> {
    let words: Vec<_> = args.iter().map(|arg| arg.trim_start_matches(NEGATIVE)).collect();
    reading.positional(&words)
}

/// Keyword arguments as they are typed, `NAME=VALUE` each.
///
/// # Errors
/// [`Kind::Usage`] for what is not a keyword argument, [`Kind::Invalid`] for invalid values.
pub fn typed_keywords(kwargs: &[String], reading: Reading) -> Result<Json, Error> {
    let mut pairs = Vec::with_capacity(kwargs.len());
    for text in kwargs {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => pairs.push((name, value)),
            _ => {
                let message = format!("`-k {}` is not a keyword argument", escape_control(text));
                return Err(Error::new(Kind::Usage, message).with_hint("write `-k NAME=VALUE`"));
            }
        }
    }
    reading.keywords(&pairs)
}

/// Marks a number that clap would take for an option. No argument can contain this character.
const NEGATIVE: char = '\0';

/// Marks a negative number with an exponent: clap accepts only other negative numbers as values.
pub fn escape_negative(word: OsString) -> OsString {
    let is_number = |text: &str| text.starts_with('-') && text.contains(['e', 'E']) && text.parse::<f64>().is_ok();
    match word.to_str() {
        Some(text) if is_number(text) => format!("{NEGATIVE}{text}").into(),
        _ => word,
    }
}

/// Prints how a nested call ended if it did not succeed. Returns the exit code.
fn print_end(session: &Session, call: &str, ran: Ran) -> u8 {
    stdio::report_losses(true);
    let job = ran.job;
    if ran.late {
        session.info(&format!("job {job} {call}: the job that made this call had already ended"));
    }
    match ran.outcome {
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
