//! Making sure that SQLite works on the file that the path names, and saying so where it does not.

use rusqlite::{ErrorCode, FileControl, MAIN_DB};

use super::super::explain::{explain, moved};
use super::Sqlite;
use crate::error::{Error, Kind, Result};

impl Sqlite {
    /// Makes sure that what SQLite has open is the file that the path names. After the first time, while the path names this
    /// file, it is so.
    pub(super) fn still_there(&self) -> Result<()> {
        if !self.is_known.get() {
            let mut has_moved = 0;
            self.connection
                .file_control(Some(MAIN_DB), FileControl::HasMoved(&mut has_moved))
                .map_err(|error| explain(&self.path, error))?;
            if has_moved != 0 {
                return Err(moved("the store", &self.path));
            }
        }
        self.file.check()?;
        self.is_known.set(true);
        Ok(())
    }

    /// An error in the words of asyncq; who waited for a file that is gone was not kept waiting by a lock.
    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        let gone = if busy { self.file.check_name().err() } else { None };
        gone.or_else(|| self.rule_behind(&error)).unwrap_or_else(|| explain(&self.path, error))
    }

    /// The error to report: in the file that was here before nothing may be as it is in the one that has taken its place,
    /// and it looks damaged together with the WAL of that.
    pub(super) fn or_moved(&self, error: Error) -> Error {
        let disk_fails = matches!(error.kind(), Kind::Io | Kind::Full);
        let moved = if disk_fails { None } else { self.still_there().err() };
        moved.unwrap_or(error)
    }
}
