//! Checks that the index of the WAL, the `-shm`, describes the WAL that is there.
//!
//! SQLite opens the `-wal` first and the `-shm` then. A process that does so while another store takes the place of this one may
//! have the WAL of one store and the index of the other. It finds out, and leaves. But if it was the first to use that index,
//! it has described the wrong WAL there, and processes that open the right one meanwhile would rely on that: SQLite writes
//! their commits behind frames that do not exist, and they are lost. Once all of them have left, the next process makes
//! the index anew.

use std::{path::Path, time::Instant};

use rusqlite::wal::CheckpointMode;
use rusqlite::{ErrorCode, MAIN_DB};

use super::connection::{Sqlite, millis, wait};
use super::errors::misled;
use super::files::is_noted;
use super::swap::settle;
use crate::error::{Kind, Result};
use crate::store::engine::Patience;

/// The headers of the WAL and of each of its frames, in bytes
/// (<https://sqlite.org/fileformat2.html#walformat>).
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;

/// How many milliseconds to wait until all misled processes have left.
const PATIENCE: u64 = 10_000;

/// How often to look again for a file that was not there.
const AGAIN: usize = 3;

impl Sqlite {
    /// Opens a file that exists. `path` is absolute.
    pub(in crate::store) fn open(path: &Path, patience: Patience) -> Result<Sqlite> {
        let (since, mut again) = (Instant::now(), AGAIN);
        loop {
            match Sqlite::open_once(path, patience) {
                Ok(Some(engine)) => return Ok(engine),
                Ok(None) => {}
                // It may only have been missing while it was restored.
                Err(error) if again > 0 && error.kind() == Kind::Unreachable => {
                    if !path.exists() && !settle(path, patience)? {
                        return Err(error);
                    }
                    again -= 1;
                    continue;
                }
                // It has the two names that a restore gives it, perhaps one that was interrupted.
                Err(error) if again > 0 && error.kind() == Kind::Busy && is_noted(path) => {
                    settle(path, patience)?;
                    again -= 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // It is closed meanwhile, because a process that has it open keeps the index from being made anew.
            if !wait(since, millis(patience).min(PATIENCE)) {
                return Err(misled(path));
            }
        }
    }

    /// Whether the WAL is at least as long as its index says. Check this before anything relies on the index, and only then: nobody
    /// makes an index anew while it is in use.
    pub(super) fn has_its_index(&self) -> rusqlite::Result<bool> {
        let ask = || self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::NOOP);
        // It is busy while somebody writes it. SQLite does not wait here.
        let (frames, _) = self.retry_on(ErrorCode::DatabaseBusy, ask)?;
        let Some(frames) = u64::try_from(frames).ok().filter(|frames| *frames > 0) else { return Ok(true) };
        let page: u32 = self.connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(self.file.wal_length() >= WAL_HEADER + frames * (FRAME_HEADER + u64::from(page)))
    }
}
