//! `asyncq enqueue`.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;

use super::clap_error::parse_count;
use super::exit;
use super::process;
use super::session::{Session, environment, variable};
use super::stdio::{self, Sink};
use crate::commands::enqueue::{self, inside};
use crate::commands::process::nested::{self, NestedRuntime};
use crate::commands::{Store, reset_signals};
use crate::domain::attempt::Outcome;
use crate::domain::call::{Call, Key, Principal, Reading};
use crate::domain::function::FunctionName;
use crate::domain::job::{Enqueued, NewJob, Running};
use crate::domain::log::Stream;
use crate::domain::service::ServiceName;
use crate::domain::text::escape_control;
use crate::error::{Error, Kind};

/// Call a function: put the call on its service's queue and print the job's number
///
/// Inside a running function the call is run at once instead, in place: its output is printed, and the exit code is 0, 75
/// for a conflict, or 1.
#[derive(Debug, Args)]
#[command(
    override_usage = "asyncq enqueue [OPTIONS] <SERVICE> <FUNCTION> [ARG]...\n       asyncq enqueue [OPTIONS] --batch <FILE>"
)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Enqueue {
    /// A keyword argument
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    kwargs: Vec<String>,

    /// Take every argument as a string, even one that is JSON
    #[arg(long)]
    raw: bool,

    /// On whose behalf the call is made; '' for nobody [default: `$ASYNCQ_PRINCIPAL`]
    #[arg(long, value_name = "NAME")]
    pub(super) principal: Option<String>,

    /// Makes a repeat safe: the same call with the same key is the same job
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Let the job wait until `asyncq job start` releases it
    #[arg(long)]
    pub(super) hold: bool,

    /// Inside a running function: queue the call all the same
    #[arg(long)]
    pub(super) defer: bool,

    /// Enqueue the calls in a file, each a line of JSON; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kwargs", "raw", "key", "service", "function", "args"])]
    batch: Option<PathBuf>,

    /// With --batch: enqueue all calls or none
    #[arg(long, requires = "batch", conflicts_with = "batch_size")]
    pub(super) atomic: bool,

    /// With --batch: how many calls go into one transaction at most
    #[arg(long, requires = "batch", value_name = "N", default_value = "1000")]
    #[arg(value_parser = parse_count, allow_negative_numbers = true)]
    pub(super) batch_size: u64,

    /// The service
    #[arg(required_unless_present = "batch")]
    service: Option<String>,

    /// The function
    #[arg(required_unless_present = "batch")]
    function: Option<String>,

    /// The arguments: each is JSON if it is JSON without space around it, else the string itself
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
}

impl Enqueue {
    /// Does what is asked.
    pub fn run(self, session: &Session) -> anyhow::Result<u8> {
        if let Some(file) = &self.batch {
            return super::batch::run(session, &self, file);
        }
        let mut new = self.parse()?;
        let mut store = session.open()?;
        if let Some(running) = inside(&mut store, &environment())? {
            enqueue::refuse_principal(self.principal.is_some())?;
            new.call.principal.clone_from(&running.principal);
            new.call.site.clone_from(&running.site);
            new.parent = Some(running.fence.job);
            if !self.defer {
                enqueue::check_nested(&new)?;
                return run_now(session, &mut store, &running, &new);
            }
        } else if new.call.principal.is_none() && self.principal.is_none() {
            new.call.principal = inherited_principal()?;
        }
        let enqueued = store.enqueue(&new)?;
        // Nothing that fails from here on is worth more than the number of the job.
        let is_paused =
            !new.hold && session.is_watched() && store.service(&new.call.service).is_ok_and(|service| service.paused);
        // The end of the process closes it too, at less cost.
        std::mem::forget(store);
        let id = enqueued.id();
        Sink(Stream::Out).write_all(format!("{id}\n").as_bytes()).map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return stdio::cannot_write(Stream::Out, error);
            }
            let message = format!("the call is job {id}, but that could not be printed: {}", stdio::in_words(&error));
            Error::new(Kind::Io, message).with_hint(format!("do not make it again; `asyncq job show {id}` shows it"))
        })?;
        if let Enqueued::Same(id) = enqueued {
            session.verbose(&format!("job {id} has this key and is this call"));
        } else if is_paused {
            session.news(&process::paused(&new.call.service));
        }
        Ok(exit::DONE)
    }

    /// The principal that is named.
    pub fn own_principal(&self) -> Result<Option<Principal>, Error> {
        self.principal.as_deref().filter(|it| !it.is_empty()).map(Principal::parse).transpose()
    }

    fn parse(&self) -> anyhow::Result<NewJob> {
        let mut pairs = Vec::with_capacity(self.kwargs.len());
        for text in &self.kwargs {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => pairs.push((name, value)),
                _ => {
                    let message = format!("`-k {}` is no keyword argument", escape_control(text));
                    return Err(Error::new(Kind::Usage, message).with_hint("write `-k NAME=VALUE`").into());
                }
            }
        }
        let words: Vec<_> = self.args.iter().map(|arg| arg.trim_start_matches(NEGATIVE)).collect();
        let reading = if self.raw { Reading::Raw } else { Reading::Json };
        Ok(NewJob {
            call: Call {
                service: ServiceName::parse(self.service.as_deref().unwrap_or_default())?,
                function: FunctionName::parse(self.function.as_deref().unwrap_or_default())?,
                args: reading.positional(&words)?,
                kwargs: reading.keywords(&pairs)?,
                principal: self.own_principal()?,
                site: None,
            },
            key: self.key.as_deref().map(Key::parse).transpose()?,
            hold: self.hold,
            os_user: Some(enqueue::os_user()),
            parent: None,
        })
    }
}

/// The principal of the environment.
pub fn inherited_principal() -> anyhow::Result<Option<Principal>> {
    match variable("ASYNCQ_PRINCIPAL").map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(Principal::parse(&text)?)),
        Some(Err(_)) => Err(Error::new(Kind::Usage, "`$ASYNCQ_PRINCIPAL` is no UTF-8")
            .with_hint("unset it, or give another one with `--principal`")
            .into()),
    }
}

/// Stands before a number that clap would take for an option: nothing typed can contain it.
const NEGATIVE: char = '\0';

/// Hides a negative number with a signed exponent from clap, which knows only the other negative numbers.
pub fn escape_negative(word: OsString) -> OsString {
    let is_number = |text: &str| text.starts_with('-') && text.contains(['e', 'E']) && text.parse::<f64>().is_ok();
    match word.to_str() {
        Some(text) if is_number(text) => format!("{NEGATIVE}{text}").into(),
        _ => word,
    }
}

fn run_now(session: &Session, store: &mut Store, running: &Running, new: &NewJob) -> anyhow::Result<u8> {
    reset_signals()?;
    let (surroundings, echo) = process::equipment(store, &running.folder)?;
    let tell = |error: &Error| session.warn(&process::trying_again(error));
    let ran =
        nested::run(store, running, new, &NestedRuntime { around: &surroundings, forwarder: &echo, tell: &tell })?;
    drop(echo);
    stdio::end_echo();
    stdio::tell_losses(true);
    let job = ran.job;
    let (service, function) = (&new.call.service, &new.call.function);
    if ran.late {
        session.info(&format!("job {job} (`{service}` `{function}`): the job that made this call had ended before"));
    }
    match ran.outcome {
        Outcome::Completed | Outcome::CompletedItself => Ok(exit::DONE),
        Outcome::Conflict(_) => {
            session.info(&format!("job {job} (`{service}` `{function}`): a conflict"));
            Ok(exit::BUSY)
        }
        Outcome::Failed(failure) | Outcome::Unstarted(failure) => {
            session.info(&format!("job {job} (`{service}` `{function}`): {}", failure.message));
            Ok(exit::FAILED)
        }
        Outcome::Crashed(how) => {
            session.info(&format!("job {job} (`{service}` `{function}`): {how}"));
            Ok(exit::FAILED)
        }
        Outcome::Interrupted | Outcome::Cancelled => Ok(exit::FAILED),
    }
}
