//! Where a store is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::path::absolute;
use crate::error::{Error, Kind, Result};

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file; an absolute path, maybe through links.
    File(PathBuf),
}

impl Location {
    /// Reads what stands after `--db` or in `$ASYNCQ_DB`; a relative path counts from `folder`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the text is empty or names an engine that this build does not have.
    pub fn parse(text: impl AsRef<OsStr>, folder: &Path) -> Result<Location> {
        let text = text.as_ref();
        if let Some((scheme, _)) = text.to_str().and_then(|text| text.split_once("://")) {
            let message = format!("`{}` stores are not supported", crate::domain::text::escape_control(scheme));
            return Err(Error::new(Kind::Usage, message).with_hint("name a SQLite file, as in `--db queue.db`"));
        }
        if text.is_empty() || text.as_bytes().contains(&0) {
            let hint = "name a SQLite file, as in `--db queue.db`";
            return Err(Error::new(Kind::Usage, "the name of the store is empty").with_hint(hint));
        }
        Ok(Location::File(absolute(folder, Path::new(text))))
    }
}

impl Location {
    /// The path, byte for byte.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        let Location::File(path) = self;
        path
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Location::File(path) = self;
        path.display().fmt(f)
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
        assert_eq!(at("mysql://host/db").unwrap_err().to_string(), "`mysql` stores are not supported");
    }
}
