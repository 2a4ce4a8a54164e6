//! Who asks, and from where: the facts about a process, as data.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use crate::domain::call::Principal;
use crate::domain::job::{JobId, Token};
use crate::domain::schedule_edit::Viewpoint;
use crate::domain::text::escape_control;
use crate::domain::time::Timestamp;
use crate::domain::zone::{machine_zone, meant};
use crate::error::{Error, Kind, Result, reason};
use crate::store::{absolute, as_shown, is_same};
use crate::system::error::io_error;
use crate::system::user::user_name;

/// The process on whose behalf a command is carried out.
#[derive(Debug)]
pub struct Caller {
    /// Its environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// Its command line. The first word is the name by which it was started.
    pub words: Vec<OsString>,
    /// Its working directory, as the kernel names it.
    pub folder: io::Result<PathBuf>,
    /// What the clock shows.
    pub clock: fn() -> Timestamp,
}

impl Caller {
    /// An environment variable, even one that is empty.
    pub(super) fn raw_variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_os_str())
    }

    /// An environment variable. An empty one counts as not set, because services and containers pass on variables that are not set
    /// as empty ones.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.raw_variable(name).filter(|value| !value.is_empty())
    }

    /// The working directory, as the shell shows it.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        match &self.folder {
            Ok(folder) => Ok(as_shown(folder.clone(), self.raw_variable("PWD"))),
            Err(error) => Err(Error::new(Kind::NotFound, format!("the working directory is gone: {}", reason(error)))
                .with_hint("`cd` to a directory that exists")),
        }
    }

    /// Makes a path absolute that the process names. An absolute path does not need the working directory, which may be gone.
    pub(super) fn path(&self, named: &Path) -> Result<PathBuf> {
        let folder = if named.is_absolute() { PathBuf::from("/") } else { self.folder()? };
        Ok(absolute(&folder, named))
    }

    /// The program of this process, under the name by which it was started if that leads to it. So a link still leads to asyncq
    /// after an upgrade, and its folder goes on the `PATH` of functions.
    pub(super) fn program(&self) -> Result<PathBuf> {
        let is = std::env::current_exe().map_err(|error| io_error("cannot find asyncq itself", &error))?;
        let Some(name) = self.words.first().map(Path::new) else { return Ok(is) };
        let folders: Vec<PathBuf> = if name.components().count() > 1 {
            self.folder().into_iter().collect()
        } else {
            let path = self.raw_variable("PATH").unwrap_or_default();
            std::env::split_paths(path).filter(|it| it.is_absolute()).collect()
        };
        let mut names = folders.iter().map(|folder| absolute(folder, name));
        Ok(names.find(|named| is_same(named, &is)).unwrap_or(is))
    }

    /// The time zone of this caller: that of `$TZ`, or of the machine.
    ///
    /// # Errors
    /// [`Kind::Usage`] when that names no time zone.
    pub fn zone(&self) -> Result<TimeZone> {
        let Some(text) = self.variable("TZ") else {
            // Without this file, every program shows UTC as the local time.
            let is_set = std::fs::symlink_metadata("/etc/localtime").is_ok();
            return machine_zone().or_else(|error| if is_set { Err(error) } else { Ok(TimeZone::UTC) });
        };
        machine_zone().map_err(|_| {
            let text = text.to_string_lossy();
            let message = format!("`$TZ` is `{}`, which names no time zone", escape_control(&text));
            let hint = match meant(&text) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "name one with `--tz`, as in `--tz Europe/Berlin`".to_owned(),
            };
            Error::new(Kind::Usage, message).with_hint(hint)
        })
    }

    /// Calls `read` with what it needs to read times that this caller gives now.
    ///
    /// # Errors
    /// What `read` answers.
    pub fn here<T>(&self, read: impl FnOnce(&Viewpoint<'_>) -> Result<T>) -> Result<T> {
        read(&Viewpoint { now: (self.clock)(), zone: &|| self.zone() })
    }

    /// The attempt that the environment names: its job and its secret.
    pub(super) fn attempt(&self) -> Option<(JobId, Token)> {
        let text = |name| self.variable(name)?.to_str();
        Some((JobId(text("ASYNCQ_JOB")?.parse().ok()?), Token::from_text(text("ASYNCQ_TOKEN")?)))
    }

    /// The principal that the environment names.
    pub(super) fn principal(&self) -> Result<Option<Principal>> {
        match self.variable("ASYNCQ_PRINCIPAL").map(OsStr::to_str) {
            None => Ok(None),
            Some(Some(text)) => Principal::parse(text).map(Some),
            Some(None) => Err(Error::new(Kind::Usage, "`$ASYNCQ_PRINCIPAL` is not UTF-8")
                .with_hint("unset it, or give another one with `--principal`")),
        }
    }
}

/// The operating system's name of the user who runs this.
pub(super) fn os_user() -> String {
    user_name(rustix::process::getuid().as_raw())
}
