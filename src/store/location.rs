//! Where a store is, and which engine keeps it.

use std::path::{Path, PathBuf};
use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt};

use super::engine::{Engine, Patience};
use super::{path::absolute, sqlite};
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file: an absolute path, which may contain links.
    File(PathBuf),
    /// The URL of a database server. No build has an engine for one yet.
    Server(String),
}

const NAME_A_FILE: &str = "name a SQLite file, as in `--db queue.db`";

impl Location {
    /// Reads the value of `--db` or `$ASYNCQ_DB`; a relative path counts from `folder`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the text names nothing.
    pub fn parse(text: impl AsRef<OsStr>, folder: &Path) -> Result<Location> {
        let text = text.as_ref();
        if let Some(url) = text.to_str().filter(|text| text.contains("://")) {
            return Ok(Location::Server(url.to_owned()));
        }
        if text.is_empty() || text.as_bytes().contains(&0) {
            return Err(Error::new(Kind::Usage, "the name of the store is empty").with_hint(NAME_A_FILE));
        }
        Ok(Location::File(absolute(folder, Path::new(text))))
    }

    /// The text that [`Location::parse`] has read, byte for byte.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        match self {
            Location::File(path) => path.as_os_str(),
            Location::Server(url) => url.as_ref(),
        }
    }

    /// The file in which SQLite keeps the store.
    pub fn file(&self) -> Result<&Path> {
        match self {
            Location::File(path) => Ok(path),
            Location::Server(url) => {
                let message = format!("`{}` stores are not supported", escape_control(scheme(url)));
                Err(Error::new(Kind::Usage, message).with_hint(NAME_A_FILE))
            }
        }
    }

    /// Connects to an existing store, with its engine.
    pub(super) fn connect(&self, patience: Patience) -> Result<Box<dyn Engine>> {
        sqlite::connect(self.file()?, patience)
    }

    /// Connects to an existing store only to read. Makes, locks and upgrades nothing.
    pub(super) fn connect_to_read(&self, patience: Patience) -> Result<Box<dyn Engine>> {
        sqlite::connect_to_read(self.file()?, patience)
    }

    /// Makes an empty store unless there is one. Returns whether it did.
    pub(super) fn make(&self, patience: Patience) -> Result<bool> {
        sqlite::new_file::make(self.file()?, patience)
    }

    /// Refuses a store that anybody but root could change: directly, by a file next to it, or by a link on the way to it (functions
    /// get that path as `ASYNCQ_DB`). Whoever can change the store decides what functions are.
    ///
    /// # Errors
    /// [`Kind::Denied`] if there is somebody. A store that does not exist belongs to nobody, and a directory is no store.
    pub fn only_root_can_change(&self) -> Result<()> {
        sqlite::permissions::only_root_can_change(self.file()?)
    }

    /// Keeps root from making a store in another user's folder, because that user could not use it.
    ///
    /// # Errors
    /// [`Kind::Denied`] when this process belongs to root, there is no store, and another user owns the folder in which it would
    /// make the first file or folder.
    pub fn refuse_foreign_folder(&self) -> Result<()> {
        sqlite::permissions::refuse_foreign_folder(self.file()?)
    }
}

/// Which kind of server a URL names.
fn scheme(url: &str) -> &str {
    url.split("://").next().unwrap_or(url)
}

/// For messages: a URL may hold a password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => path.display().fmt(f),
            Location::Server(url) => write!(f, "{}://...", scheme(url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let at = |text| Location::parse(text, Path::new("/here"));
        assert_eq!(at("q.db").unwrap(), Location::File("/here/q.db".into()));
        assert_eq!(at("").unwrap_err().kind(), Kind::Usage);
        let server = at("mysql://eve:secret@host/db").unwrap();
        assert_eq!(server.to_string(), "mysql://...");
        let error = server.connect(Patience::Endless).err().unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Usage, "`mysql` stores are not supported"));
    }
}
