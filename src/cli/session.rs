//! What holds for every command: which store, how much talk, which colours.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ColorChoice};

use super::stdio;
use crate::commands::enqueue::Environment;
use crate::commands::{self, Location, Patience, Store};
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
        Ok(Session { global })
    }

    /// Where the store is.
    pub fn location(&self) -> anyhow::Result<Location> {
        let Some(text) = self.named() else { return default_location() };
        // Where it is absolute, nobody needs the working directory, which may be gone.
        let folder = if Path::new(&text).is_absolute() { PathBuf::from("/") } else { here()? };
        Ok(Location::parse(&text, &folder)?)
    }

    /// What the store is called, if it is not the default one.
    fn named(&self) -> Option<OsString> {
        self.global.db.clone().or_else(|| variable("ASYNCQ_DB"))
    }

    /// Where the store is, or is to be made. Nobody has asked for a default one in the home of another user, as it is with
    /// `sudo -E`.
    fn place_to_make(&self) -> anyhow::Result<Location> {
        let location = self.location()?;
        if self.named().is_none() {
            location.refuse_foreign_folder()?;
        }
        Ok(location)
    }

    /// Opens the store.
    pub fn open(&self) -> anyhow::Result<Store> {
        Ok(telling(commands::open(&self.location()?, self.patience()?)?))
    }

    /// Opens the store and makes a new file first if there is none; tells which, as the path may be mistyped.
    pub fn open_or_make(&self) -> anyhow::Result<Store> {
        let (store, made) = commands::open_or_make(&self.place_to_make()?, self.patience()?)?;
        if made {
            self.info(&format!("created the store `{}`", store.location()));
        }
        Ok(telling(store))
    }

    /// Opens the store and makes it first if there is none, in a database that is there, too.
    pub fn create(&self) -> anyhow::Result<(Store, bool)> {
        let (store, made) = commands::create(&self.place_to_make()?, self.patience()?)?;
        Ok((telling(store), made))
    }

    /// How long to wait for a locked store.
    pub fn patience(&self) -> Result<Patience, Error> {
        let span = match (self.global.lock_timeout, variable("ASYNCQ_LOCK_TIMEOUT")) {
            (Some(span), _) => span,
            (None, None) => LOCK_TIMEOUT,
            (None, Some(text)) => parse_span(&text.to_string_lossy()).map_err(|error| {
                let message = format!("`$ASYNCQ_LOCK_TIMEOUT` is `{}`: {error}", text.display());
                Error::new(Kind::Usage, message).with_hint("set it to a time, as in 10s, or unset it")
            })?,
        };
        Ok(Patience::Deadline(span))
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

/// Has a store tell what goes wrong behind what it has done.
fn telling(mut store: Store) -> Store {
    store.on_trouble(|error| show(&error.to_string(), error.hint()));
    store
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

fn say(text: &str, hint: Option<&str>) {
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

fn default_location() -> anyhow::Result<Location> {
    use etcetera::BaseStrategy;
    let data = etcetera::choose_base_strategy().ok().map(|base| base.data_dir()).filter(|folder| folder.is_absolute());
    let Some(data) = data else {
        return Err(Error::new(Kind::Unreachable, "there is no home directory, and so no default place for the store")
            .with_hint("`--db` or `$ASYNCQ_DB` names a place; `$HOME` has to be an absolute path")
            .into());
    };
    Ok(Location::File(data.join("asyncq").join("queue.db")))
}

/// An environment variable. One that is empty counts as not set, as services and containers pass on those that are not set.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The working directory, as the shell shows it.
pub fn here() -> anyhow::Result<PathBuf> {
    let folder = std::env::current_dir().map_err(|error| {
        Error::new(Kind::NotFound, format!("the working directory is gone: {}", reason(&error)))
            .with_hint("`cd` to a directory that exists")
    })?;
    Ok(commands::as_shown(folder, std::env::var_os("PWD").as_deref()))
}

/// The program that runs, under the name by which it was started where that leads to it: a link goes on leading to asyncq
/// after an upgrade, and its folder goes on the `PATH` of functions.
pub fn program() -> anyhow::Result<PathBuf> {
    let is = std::env::current_exe()?;
    let Some(name) = std::env::args_os().next().map(PathBuf::from) else { return Ok(is) };
    let folders: Vec<PathBuf> = if name.components().count() > 1 {
        here().into_iter().collect()
    } else {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).filter(|it| it.is_absolute()).collect()
    };
    let mut names = folders.iter().map(|folder| commands::absolute(folder, &name));
    Ok(names.find(|named| commands::is_same(named, &is)).unwrap_or(is))
}

/// What the environment says about where this is run.
pub fn environment() -> Environment {
    let text = |name| variable(name)?.into_string().ok();
    Environment { job: text("ASYNCQ_JOB"), token: text("ASYNCQ_TOKEN") }
}

/// What time it is for a person.
pub fn now() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Whether a person reads what is printed.
pub fn to_terminal() -> bool {
    stdio::is_terminal(Stream::Out)
}
