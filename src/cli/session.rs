//! What holds for every command: which store, how much talk, which colours.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ColorChoice};

use super::stdio;
use crate::commands::caller::Caller;
use crate::commands::queue::{Place, Prepared, Queue};
use crate::domain::event::Event;
use crate::domain::log::Stream;
use crate::domain::text::escape_control;
use crate::domain::time::{Timestamp, millis, parse_span};
use crate::error::{Error, Kind, reason};

/// The options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for every command")]
pub struct Global {
    /// The store: a SQLite file [env: `ASYNCQ_DB`] [default: asyncq/queue.db in the user's data directory]
    #[arg(long, global = true, value_name = "PATH")]
    db: Option<OsString>,

    /// How long to wait for a store that somebody else has locked [env: `ASYNCQ_LOCK_TIMEOUT`] [default: 30s]
    #[arg(long, global = true, value_name = "SPAN", value_parser = parse_span)]
    lock_timeout: Option<Duration>,

    /// Say nothing on stderr but what asyncq itself cannot do: calls that fail are not told either
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Say on stderr what goes well, too, and why nothing runs, as a terminal shows it anyway
    #[arg(short, long, global = true)]
    verbose: bool,

    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// How long to wait for a store that somebody else has locked, unless something else is said.
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
    /// [`Kind::Usage`] when the store is named by nothing: the variable of a script that is not set is no reason to use
    /// another store.
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
        };
        Ok(Session { global, caller })
    }

    /// Which store is meant.
    pub fn place(&self) -> Result<Place, Error> {
        let patience = self.lock_timeout()?;
        match self.global.db.as_deref().or_else(|| self.caller.variable("ASYNCQ_DB")) {
            Some(name) => Place::named(name, &self.caller, patience, show_trouble),
            None => Ok(Place::default_at(default_store()?, patience, show_trouble)),
        }
    }

    /// Opens the store.
    pub fn open(&self) -> Result<Queue, Error> {
        self.place()?.open()
    }

    /// Opens the store and makes a new file first if there is none; tells which, as the path may be mistyped.
    pub fn open_or_make(&self) -> Result<Queue, Error> {
        let (queue, made) = self.place()?.open_or_make()?;
        if made {
            self.info(&format!("created the store `{}`", queue.place()));
        }
        Ok(queue)
    }

    /// Makes the store or upgrades it, in a database that is there, too; or mends it.
    pub fn prepare(&self, tell: &mut dyn FnMut(Event<'_>)) -> Result<(Queue, Prepared), Error> {
        self.place()?.prepare(tell)
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

    /// Whether to say more.
    pub fn is_verbose(&self) -> bool {
        self.global.verbose
    }

    /// Whether to say nothing but errors.
    pub fn is_quiet(&self) -> bool {
        self.global.quiet
    }

    /// Says what asyncq itself cannot do, also to whoever wants to hear nothing else.
    #[expect(clippy::unused_self, reason = "a session may be asked for messages in another form one day")]
    pub fn warn(&self, text: &str) {
        say(text, None);
    }

    /// The same, with what can be done about it.
    #[expect(clippy::unused_self, reason = "a session may be asked for messages in another form one day")]
    pub fn warn_with_hint(&self, text: &str, hint: &str) {
        say(text, Some(hint));
    }

    /// Says that a call has failed, or what else is amiss.
    pub fn info(&self, text: &str) {
        if !self.global.quiet {
            say(text, None);
        }
    }

    /// The same, with what can be done about it.
    pub fn info_with_hint(&self, text: &str, hint: &str) {
        if !self.global.quiet {
            say(text, Some(hint));
        }
    }

    /// Says what is not amiss, but of use to a person who watches: cron would mail it.
    pub fn news(&self, text: &str) {
        if self.global.verbose || self.is_watched() {
            self.info(text);
        }
    }

    /// Whether a person reads what is said.
    pub fn is_watched(&self) -> bool {
        !self.global.quiet && stdio::is_terminal(Stream::Err)
    }

    /// Says something for whoever wants to know more.
    pub fn verbose(&self, text: &str) {
        if self.global.verbose {
            self.info(text);
        }
    }
}

/// Shows what goes wrong behind what a store has done.
fn show_trouble(error: &Error) {
    show(&error.to_string(), error.hint());
}

/// Shows what failed a command.
pub fn show_error(error: &anyhow::Error) {
    show(&reason(error), error.downcast_ref::<Error>().and_then(Error::hint));
}

/// Shows a failure and the way out.
pub fn show(error: &str, hint: Option<&str>) {
    let style = anstyle::AnsiColor::Red.on_default().bold();
    tell(&format!("{style}error{style:#}"), error, hint);
}

pub fn say(text: &str, hint: Option<&str>) {
    tell("asyncq", text, hint);
}

/// Says one message, with its hint if it has one.
fn tell(label: &str, text: &str, hint: Option<&str>) {
    let mut message = format!("{label}: {}\n", escape_control(text));
    if let Some(hint) = hint {
        let style = anstyle::AnsiColor::Green.on_default().bold();
        message += &format!("{style}hint{style:#}: {}\n", escape_control(hint));
    }
    stdio::tell(&message);
}

fn default_store() -> Result<PathBuf, Error> {
    use etcetera::BaseStrategy;
    let data = etcetera::choose_base_strategy().ok().map(|base| base.data_dir()).filter(|folder| folder.is_absolute());
    data.map(|data| data.join("asyncq").join("queue.db")).ok_or_else(|| {
        Error::new(Kind::Unreachable, "there is no home directory, and so no default place for the store")
            .with_hint("`--db` or `$ASYNCQ_DB` names a place; `$HOME` has to be an absolute path")
    })
}

/// What time it is for a person.
pub fn now() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Whether a person reads what is printed.
pub fn to_terminal() -> bool {
    stdio::is_terminal(Stream::Out)
}
