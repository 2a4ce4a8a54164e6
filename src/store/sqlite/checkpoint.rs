//! Keeps the WAL small, and keeps out of it a commit that the disk did not confirm.

use std::sync::atomic::Ordering;

use rusqlite::{MAIN_DB, wal::CheckpointMode};

use super::errors::{cannot_sync, explain};
use super::{connection::Sqlite, files::sync_folder};
use crate::error::{Kind, Result};
use crate::failpoint::reached;

/// How many pages the WAL grows before a connection in use copies them into the database file, so that writers begin the WAL anew.
/// This is SQLite's own default.
const CHECKPOINT_PAGES: i32 = 1000;

/// The same for a connection that has made only a few commits, like that of `asyncq enqueue`. It is small, because a process that
/// opens a store which nobody else has open reads the whole WAL once, and such processes alone never begin it anew.
const CHECKPOINT_PAGES_AT_FIRST: i32 = 50;

/// The number of commits that counts as a few.
const FIRST_COMMITS: u32 = 4;

/// For how many commits after a full disk every commit is checkpointed at once. A growing WAL would take all the space there is,
/// and leave none to copy it to.
pub(super) const SCARCE_COMMITS: u32 = 100;

/// Milliseconds to wait for other connections that keep a failed commit from being cleared away.
const PATIENCE_TO_CLEAR: u64 = 500;

impl Sqlite {
    /// Syncs the name of a new WAL or rollback journal before a commit relies on it. SQLite tries that too, but does not report a
    /// failure.
    pub(super) fn keep_names(&self) -> Result<()> {
        if self.file.has_written_wal() {
            return Ok(());
        }
        sync_folder(&self.file.path).map_err(|error| cannot_sync(&self.path, error))
    }

    /// Empties the WAL after a commit whose sync failed. Processes that have the store open ignore that commit, but it is complete
    /// in the WAL. A process that reads the WAL later would take it for committed, and acknowledge the commits that follow it. But
    /// the disk may never have got it, and no later sync reports that.
    pub(super) fn clear_away(&self) {
        let patience = self.patience.load(Ordering::Relaxed);
        self.patience.store(patience.min(PATIENCE_TO_CLEAR), Ordering::Relaxed);
        // After this, only the transaction keeps the WAL from being emptied.
        let _ = self.command("ROLLBACK");
        // If this fails, either the disk still fails, which was reported, or another process is at work, and its next commit
        // overwrites the failed one.
        let _ = self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE);
        self.patience.store(patience, Ordering::Relaxed);
    }

    /// Copies the WAL into the database file when it has grown enough. Commits are durable before that, and stay acknowledged. A
    /// failed checkpoint starts again from its first page, so a failed sync loses nothing.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        let wal = &mut self.wal;
        let pages = wal.pages.load(Ordering::Relaxed);
        wal.commits = wal.commits.saturating_add(1);
        if pages < wal.tried_at {
            wal.tried_at = 0;
        }
        let grown = pages - wal.tried_at;
        let scarce = wal.scarce > 0;
        wal.scarce = wal.scarce.saturating_sub(1);
        let mode = if wal.commits <= FIRST_COMMITS && grown >= CHECKPOINT_PAGES_AT_FIRST {
            // Only this keeps the next opener from reading the same pages again.
            CheckpointMode::TRUNCATE
        } else if grown >= CHECKPOINT_PAGES || scarce {
            CheckpointMode::PASSIVE
        } else {
            return Ok(());
        };
        wal.tried_at = pages;
        self.empty_wal(mode).map(|_| ())
    }

    /// Copies as much of the WAL into the database file as is possible now. Returns whether the next transaction may begin it anew.
    /// An error means that the disk fails.
    pub(super) fn empty_wal(&mut self, mode: CheckpointMode) -> Result<bool> {
        reached("checkpoint due");
        let patience = self.patience.swap(0, Ordering::Relaxed);
        let done = self.connection.wal_checkpoint_v2(Some(MAIN_DB), mode);
        self.patience.store(patience, Ordering::Relaxed);
        reached("checkpoint made");
        match done.map_err(|error| explain(&self.path, error)) {
            Ok((pages, copied)) => Ok(pages > 0 && pages == copied),
            // Other processes are at work, and the last one that writes does it. Or there is no room, which the next commit notices
            // itself.
            Err(error) if matches!(error.kind(), Kind::Busy | Kind::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
