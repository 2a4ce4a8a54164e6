//! What all commands share: the store, how many messages they print, and which colours.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ColorChoice};
use jiff::tz::TimeZone;

use super::stdio;
use crate::commands::caller::Caller;
use crate::commands::queue::{Place, Queue};
use crate::domain::schedule_edit::Viewpoint;
use crate::domain::time::{Timestamp, millis, parse_span};
use crate::domain::zone::zone;
use crate::domain::{log::Stream, text::escape_control};
use crate::error::{Error, Kind, reason};

/// The options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Global {
    /// The store: a SQLite file [env: `ASYNCQ_DB`] [default: asyncq/queue.db in your data directory]
    #[arg(long, global = true, value_name = "PATH")]
    db: Option<OsString>,

    /// How long to wait for a store that another process has locked [env: `ASYNCQ_LOCK_TIMEOUT`] [default: 30s]
    #[arg(long, global = true, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    lock_timeout: Option<Duration>,

    /// Print only errors of asyncq itself to stderr, and nothing about calls that fail
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Also print to stderr what succeeds, and why nothing runs; `process` always does so on a terminal
    #[arg(short, long, global = true)]
    verbose: bool,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// How long to wait for a locked store by default.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// One run of the command line.
pub struct Session {
    global: Global,
    /// This process, as commands see it.
    pub caller: Caller,
}

impl Session {
    /// A run with these options.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the path of the store is empty: a script with an unset variable must not use the default store.
    pub fn new(global: Global) -> Result<Session, Error> {
        if global.db.as_ref().is_some_and(|text| text.is_empty()) {
            return Err(Error::new(Kind::Usage, "`--db` is empty")
                .with_hint("name a SQLite file, as in `--db queue.db`, or leave `--db` out"));
        }
        let choice = match global.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        let caller = Caller {
            env: std::env::vars_os().collect(),
            words: std::env::args_os().collect(),
            folder: std::env::current_dir(),
            clock: now,
        };
        Ok(Session { global, caller })
    }

    /// The store that the options or the environment name, or the default one.
    pub fn place(&self) -> Result<Place, Error> {
        self.place_within(self.lock_timeout()?)
    }

    /// The same, but it waits at most this long for a store that another process has locked, whatever the options say.
    pub fn place_within(&self, patience: Duration) -> Result<Place, Error> {
        match self.global.db.as_deref().or_else(|| self.caller.variable("ASYNCQ_DB")) {
            Some(name) => Place::named(name, &self.caller, patience, show_trouble),
            None => Ok(Place::default_at(default_store()?, patience, show_trouble)),
        }
    }

    /// Opens the store.
    pub fn open(&self) -> Result<Queue, Error> {
        self.place()?.open()
    }

    /// Opens the store. If there is none, creates a file and says so, because the path may be mistyped.
    pub fn open_or_create(&self) -> Result<Queue, Error> {
        let (queue, made) = self.place()?.open_or_make()?;
        if made {
            self.info(&format!("created the store `{}`", queue.place()));
        }
        Ok(queue)
    }

    /// How long to wait for a locked store.
    fn lock_timeout(&self) -> Result<Duration, Error> {
        match (self.global.lock_timeout, self.caller.variable("ASYNCQ_LOCK_TIMEOUT")) {
            (Some(span), _) => Ok(span),
            (None, None) => Ok(LOCK_TIMEOUT),
            (None, Some(text)) => parse_span(&text.to_string_lossy()).map_err(|error| {
                let message = format!("`$ASYNCQ_LOCK_TIMEOUT` is `{}`: {error}", text.display());
                Error::new(Kind::Usage, message).with_hint("set it to a time, as in 10s, or unset it")
            }),
        }
    }

    /// The time zone with this name; without one, the zone of this machine.
    pub fn zone(&self, name: Option<&str>) -> Result<TimeZone, Error> {
        name.map_or_else(|| self.caller.zone(), zone)
    }

    /// Calls `read` with what it needs to read times that are given here and now.
    pub fn here<T>(&self, read: impl FnOnce(&Viewpoint<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.caller.here(read)
    }

    /// Prints that a call has failed, or that something else needs attention.
    pub fn info(&self, text: &str) {
        if !self.global.quiet {
            print_info(text, None);
        }
    }

    /// The same, with what you can do about it.
    pub fn info_with_hint(&self, text: &str, hint: &str) {
        if !self.global.quiet {
            print_info(text, Some(hint));
        }
    }

    /// Prints what a person at a terminal wants to know, but cron should not mail.
    pub fn notice(&self, text: &str) {
        if self.global.verbose || self.is_interactive() {
            self.info(text);
        }
    }

    /// Whether a person reads the messages.
    pub fn is_interactive(&self) -> bool {
        !self.global.quiet && stdio::is_terminal(Stream::Err)
    }

    /// Whether a line may stay at the end of the terminal of stderr. That needs a terminal that can erase it.
    pub fn shows_status(&self) -> bool {
        self.is_interactive() && self.caller.variable("TERM").is_some_and(|term| term != "dumb")
    }

    /// Prints a detail, only with `--verbose`.
    pub fn verbose(&self, text: &str) {
        if self.global.verbose {
            self.info(text);
        }
    }
}

/// Prints an error that does not fail the command, such as a checkpoint that fails after a commit.
fn show_trouble(error: &Error) {
    show(&error.to_string(), error.hint());
}

/// Prints the error that made a command fail.
pub fn show_error(error: &anyhow::Error) {
    show(&reason(error), error.downcast_ref::<Error>().and_then(Error::hint));
}

/// Prints an error and its hint.
pub fn show(error: &str, hint: Option<&str>) {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    print_message(&format!("{style}error{style:#}"), error, hint);
}

/// Prints one message that is not an error, with its hint if it has one. Even `--quiet` shows what asyncq itself cannot do.
pub fn print_info(text: &str, hint: Option<&str>) {
    print_message("asyncq", text, hint);
}

/// Prints on a terminal how a call has ended, after a coloured word. If the terminal is too slow for `is_passing` lines, some of
/// them are left out.
pub fn print_outcome((word, colour): (&str, anstyle::AnsiColor), text: &str, hint: Option<&str>, is_passing: bool) {
    let style = colour.on_default();
    let message = with_hint(format!("{style}{word:<6}{style:#} {}\n", escape_control(text)), hint);
    if is_passing { stdio::print_passing(&message) } else { stdio::print_message(&message) }
}

/// Prints one message, with its hint if it has one.
fn print_message(label: &str, text: &str, hint: Option<&str>) {
    stdio::print_message(&with_hint(format!("{label}: {}\n", escape_control(text)), hint));
}

fn with_hint(message: String, hint: Option<&str>) -> String {
    let Some(hint) = hint else { return message };
    let style = anstyle::AnsiColor::Green.on_default().bold();
    format!("{message}{style}hint{style:#}: {}\n", escape_control(hint))
}

fn default_store() -> Result<PathBuf, Error> {
    use etcetera::BaseStrategy;
    let data = etcetera::choose_base_strategy().ok().map(|base| base.data_dir()).filter(|folder| folder.is_absolute());
    data.map(|data| data.join("asyncq").join("queue.db")).ok_or_else(|| {
        Error::new(Kind::Unreachable, "there is no home directory, so the store has no default location")
            .with_hint("set `--db` or `$ASYNCQ_DB`, or set `$HOME` to an absolute path")
    })
}

/// The current time, to show to a person.
pub fn now() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Whether stdout is a terminal.
pub fn to_terminal() -> bool {
    stdio::is_terminal(Stream::Out)
}
