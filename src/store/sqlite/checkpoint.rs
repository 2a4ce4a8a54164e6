//! Keeping the WAL small, and a commit that the disk did not confirm out of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::MAIN_DB;
use rusqlite::wal::CheckpointMode;

use super::Sqlite;
use super::errors::{cannot_sync, explain};
use super::new_file::sync_folder;
use crate::error::{Kind, Result};
use crate::failpoint::reached;

/// After how many more pages in the WAL a connection that works on copies its content into the database file; others
/// then begin the WAL anew. SQLite's own default.
const CHECKPOINT_PAGES: i32 = 1000;

/// The same for a connection that has only made a few commits, as that of `asyncq enqueue`, and small: whoever opens a
/// store that nobody else has open reads the whole WAL once, and such openers never begin it anew by themselves.
const CHECKPOINT_PAGES_AT_FIRST: i32 = 50;

/// How many commits are a few.
const FIRST_COMMITS: u32 = 4;

/// Commits after a full disk during which every commit is checkpointed at once: a WAL that grows would take all the space
/// there is, and leave none to copy it to.
pub(super) const SCARCE_COMMITS: u32 = 100;

/// What a connection knows of the WAL.
#[derive(Default)]
pub(super) struct Wal {
    /// How many pages it had after the latest commit, as SQLite told the WAL hook.
    pub(super) pages: Arc<AtomicI32>,
    /// How many pages it had when a checkpoint was last tried.
    tried_at: i32,
    commits: u32,
    /// How many more commits are to take little space, as the disk was full.
    pub(super) scarce: u32,
}

/// How many milliseconds are spent on others who keep a commit that failed from being cleared away.
const PATIENCE_TO_CLEAR: u64 = 500;

impl Sqlite {
    /// Has the disk keep the name of a new WAL or rollback journal before a commit relies on it: SQLite tries that too, and
    /// says nothing when it fails.
    pub(super) fn keep_names(&self) -> Result<()> {
        if self.file.has_written_wal() {
            return Ok(());
        }
        sync_folder(self.file.path()).map_err(|error| cannot_sync(&self.path, error))
    }

    /// Empties the WAL after a commit whose sync failed. For those who have the store open that commit does not count, but
    /// it stands whole in the WAL: whoever reads the WAL later would take it for done, and acknowledge what follows it,
    /// although the disk may never have got it, and no later sync tells so.
    pub(super) fn clear_away(&self) {
        let patience = self.patience.load(Ordering::Relaxed);
        self.patience.store(patience.min(PATIENCE_TO_CLEAR), Ordering::Relaxed);
        // After this, nothing but the transaction keeps the WAL from being emptied.
        let _ = self.command("ROLLBACK");
        // If it fails, the disk still does, which was told; or somebody else is at work, whose next commit takes the place.
        let _ = self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE);
        self.patience.store(patience, Ordering::Relaxed);
    }

    /// Copies the WAL into the database file when it has grown enough. What was committed is durable before, and stays
    /// acknowledged. A checkpoint that fails is made anew from its first page, so that a sync which failed costs nothing.
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

    /// Copies the WAL into the database file, as far as that is possible now; says whether the next transaction may begin
    /// it anew. An error says that the disk fails.
    pub(super) fn empty_wal(&mut self, mode: CheckpointMode) -> Result<bool> {
        reached("checkpoint due");
        let patience = self.patience.swap(0, Ordering::Relaxed);
        let done = self.connection.wal_checkpoint_v2(Some(MAIN_DB), mode);
        self.patience.store(patience, Ordering::Relaxed);
        reached("checkpoint made");
        match done.map_err(|error| explain(&self.path, error)) {
            Ok((pages, copied)) => Ok(pages > 0 && pages == copied),
            // Others are at work, and whoever of them is last to write does it; or there is no room, which the next commit
            // finds out for itself.
            Err(error) if matches!(error.kind(), Kind::Busy | Kind::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
