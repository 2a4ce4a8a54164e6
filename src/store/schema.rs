//! Which schema a store has. The schema itself, and the upgrades to it, belong to an engine.

use std::fmt;

use crate::error::{Error, Kind};

/// Which schema a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaFound {
    /// No tables of asyncq.
    Nothing,
    /// The schema of this build.
    Current,
    /// An older one, with its version.
    Older(i64),
    /// A newer one.
    Newer {
        /// Its version.
        version: i64,
        /// The newest version that this build knows.
        known: i64,
    },
}

/// The error for a store that is newer than this build.
pub(super) fn too_new(version: i64, known: i64) -> Error {
    let message = format!("the store has schema {version}, this asyncq knows schemas up to {known}");
    Error::new(Kind::Busy, message).with_hint("a newer asyncq has upgraded it: install that version here too")
}

/// A part of the schema that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// `table`, `index` or `trigger`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether it was missing; otherwise it was different.
    pub was_missing: bool,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let was = if self.was_missing { "missing" } else { "changed" };
        write!(f, "{} `{}` was {was}, and is made again", self.kind, self.name)
    }
}

/// A copy of a whole database that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it holds tables of an application too.
    pub is_shared: bool,
}
