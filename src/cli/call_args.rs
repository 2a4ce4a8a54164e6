//! How a call is typed: its arguments, and how to make it.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};

use clap::Args;

use super::call_options::CallOptionArgs;
use super::delay_options::{Delay, DelayOptions};
use super::{session::Session, stdio};
use crate::commands::enqueue::EnqueueRequest;
use crate::domain::call::{Call, Key, OnBehalfOf, Reading, keywords};
use crate::domain::function::FunctionName;
use crate::domain::job::JobId;
use crate::domain::json::{Json, MAX_BYTES};
use crate::domain::new_job::IfTaken;
use crate::domain::{service::ServiceName, text::escape_control};
use crate::error::{Error, Kind};
use crate::system::error::io_error;

/// The keyword arguments of a call, and how to make it.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// A keyword argument; may be repeated. NAME=@- reads its value, a string, from standard input
    #[arg(short, long = "kwarg", value_name = "NAME=VALUE")]
    pub kwargs: Vec<String>,

    /// Take every argument as a string, even if it is JSON
    #[arg(long)]
    pub raw: bool,

    #[command(flatten)]
    pub request: RequestOptions,
}

/// How to make a call, whatever its arguments are.
#[derive(Debug, Args)]
pub struct RequestOptions {
    /// On whose behalf the call is made; '' for nobody [default: `$ASYNCQ_PRINCIPAL`]
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,

    /// A key that makes it safe to repeat the call: the same call with the same key stays one job
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Hold the job until `asyncq job start` releases it
    #[arg(long)]
    pub hold: bool,

    #[command(flatten)]
    pub due: DelayOptions,

    #[command(flatten)]
    options: CallOptionArgs,
}

impl CallArgs {
    /// The arguments that say something about one call only.
    pub const OF_ONE: [&str; 13] = [
        "key",
        "delay",
        "at",
        "tz",
        "priority",
        "lane",
        "expires",
        "key_until",
        "if_taken",
        "meta",
        "after",
        "after_any",
        "after_failed",
    ];

    /// How its arguments are read.
    pub fn reading(&self) -> Reading {
        if self.raw { Reading::Raw } else { Reading::Json }
    }
}

impl RequestOptions {
    /// On whose behalf the call is made.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an invalid name.
    pub fn on_behalf_of(&self) -> Result<OnBehalfOf, Error> {
        self.principal.as_deref().map_or(Ok(OnBehalfOf::Caller), OnBehalfOf::parse)
    }

    /// When the call is due; `verb` is the command. Refuses options that do not fit together.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn delay(&self, session: &Session, verb: &str) -> Result<Delay, Error> {
        self.due.check_zone(self.options.has_expiry(), verb)?;
        self.options.check_key(self.key.is_some())?;
        self.due.delay(session)
    }

    /// How to make `call`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for invalid values.
    pub fn parse(&self, session: &Session, delay: &Delay, call: Call) -> Result<EnqueueRequest, Error> {
        Ok(EnqueueRequest {
            call,
            on_behalf_of: self.on_behalf_of()?,
            key: self.key.as_deref().map(Key::parse).transpose()?,
            hold: self.hold,
            due: delay.due,
            options: self.options.parse(|text| self.due.expiry(session, delay, text))?,
            defer: false,
            result_to: None,
        })
    }

    /// What became of a call that has the key of job `id`.
    pub fn describe_same(&self, id: JobId) -> String {
        match self.options.if_taken() {
            None => format!("already enqueued as job {id} (same key, same call)"),
            Some(IfTaken::Keep) => format!("job {id} has this key"),
            Some(IfTaken::Replace) => format!("job {id}, which has this key, has the arguments of this call now"),
            Some(IfTaken::Postpone) => {
                format!("job {id}, which has this key, has the arguments and the time of this call now")
            }
        }
    }
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
    let call = Call::new(service, function, typed_positional(args, reading)?, typed_keywords(kwargs, reading)?);
    Ok(Call { is_typed: true, ..call })
}

/// Positional arguments as they are typed.
///
/// # Errors
/// [`Kind::Invalid`] for invalid values.
pub fn typed_positional(args: &[String], reading: Reading) -> Result<Json, Error> {
    let words: Vec<_> = args.iter().map(|arg| arg.trim_start_matches(NEGATIVE)).collect();
    reading.positional(&words)
}

/// Keyword arguments as they are typed, each as `NAME=VALUE`. The value `@-` stands for what is on standard input, because every
/// user of the machine can read a command line.
///
/// # Errors
/// [`Kind::Usage`] for what is not a keyword argument, [`Kind::Invalid`] for invalid values.
pub fn typed_keywords(kwargs: &[String], reading: Reading) -> Result<Json, Error> {
    let mut pairs = Vec::with_capacity(kwargs.len());
    for text in kwargs {
        match text.split_once('=') {
            Some((name, FROM_STDIN)) if !name.is_empty() && reading == Reading::Json => {
                stdio::claim_stdin(&format!("argument `{}`", escape_control(name)))?;
                pairs.push((name.to_owned(), read_stdin(name)?, Reading::Raw));
            }
            Some((name, value)) if !name.is_empty() => pairs.push((name.to_owned(), value.to_owned(), reading)),
            _ => {
                let message = format!("`-k {}` is not a keyword argument", escape_control(text));
                return Err(Error::new(Kind::Usage, message).with_hint("write `-k NAME=VALUE`"));
            }
        }
    }
    keywords(&pairs)
}

/// The value that stands for what is on standard input.
const FROM_STDIN: &str = "@-";

/// The value of an argument that is on standard input, without the line end that `echo` adds.
fn read_stdin(name: &str) -> Result<String, Error> {
    let name = escape_control(name);
    if std::io::stdin().is_terminal() {
        let message = format!("`-k {name}=@-` reads standard input, and that is a terminal");
        let hint = format!("pass a file or a pipe, as in `asyncq enqueue ... -k {name}=@- < FILE`");
        return Err(Error::new(Kind::Usage, message).with_hint(hint));
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_BYTES as u64 + 2).read_to_end(&mut bytes);
    read.map_err(|error| io_error("cannot read standard input", &error))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > MAX_BYTES {
        let message = format!("standard input, for `-k {name}=@-`, has more than {MAX_BYTES} bytes");
        return Err(Error::new(Kind::Invalid, message).with_hint("put the data into a file and pass its path"));
    }
    String::from_utf8(bytes).map_err(|_| {
        Error::new(Kind::Invalid, format!("standard input, for `-k {name}=@-`, is not UTF-8"))
            .with_hint("encode it, for example with `base64`")
    })
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
