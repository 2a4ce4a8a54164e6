//! The one error type of the library: what kind of failure it is, one sentence, and the way out.
//!
//! Invariant: knows no exit codes and prints nothing; `cli` turns a [`Kind`] into an exit code.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as a caller must tell cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is malformed: a name that cannot be a name, options that exclude each other.
    Usage,
    /// Data that is not what it should be: invalid JSON, a file that is no store, a damaged store.
    Invalid,
    /// No such service, function or job.
    NotFound,
    /// There is no store where one was looked for, or it cannot be reached.
    Unreachable,
    /// Reading or writing failed: a failing disk, a store that was moved away.
    Io,
    /// There is no space to write to: a full disk, a quota, a limit on the size of files. There may be some later.
    Full,
    /// Somebody else is in the way: a lock held past the deadline, a newer schema. Trying later may help.
    Busy,
    /// Understood, and refused: a name that is taken, missing rights, a running job.
    Denied,
}

/// The result of anything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the system says about a failure: `No such file or directory`. Rust adds its number, and the crate of temporary files
/// their path, which means nothing to a user.
pub fn reason(error: &impl fmt::Display) -> String {
    let mut said = error.to_string();
    if let Some(at) = said.find(" (os error ") {
        let end = said[at..].find(')').map_or(said.len(), |end| at + end + 1);
        said.replace_range(at..end, "");
    }
    said.truncate(said.find(" at path \"").unwrap_or(said.len()));
    said
}

/// One failure: one lower-case sentence without a full stop, and a hint that names the way out.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    transient: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hint: None, transient: false, source: None }
    }

    /// The same failure with the way out, a sentence that names a command where one helps.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with this way out, unless it has one.
    #[must_use]
    pub fn or_hint(mut self, hint: &str) -> Error {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }

    /// The same failure with what lies under it, for [`StdError::source`].
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// The same failure, marked as one that the same request may not meet again.
    #[must_use]
    pub fn transient(mut self) -> Error {
        self.transient = true;
        self
    }

    /// A failure with another kind and message, and the same way out.
    #[must_use]
    pub fn reworded(&self, kind: Kind, message: impl Into<String>) -> Error {
        Error { hint: self.hint.clone(), ..Error::new(kind, message) }
    }

    /// Whether the same request may succeed later without anybody changing it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient || matches!(self.kind, Kind::Busy | Kind::Full)
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The way out, if one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn a_reason_has_no_number_and_no_path_of_a_temporary_file() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(reason(&error), "No such file or directory");
        assert_eq!(reason(&format!("cannot look: {error}; go on")), "cannot look: No such file or directory; go on");
        assert_eq!(reason(&"(os error"), "(os error");
        let error = tempfile::NamedTempFile::new_in("/proc/self/nothing").unwrap_err();
        assert!(error.to_string().contains("at path"), "{error}");
        assert_eq!(reason(&error), "No such file or directory");
    }
}
