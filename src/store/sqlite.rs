//! SQLite behind the seam.
//!
//! Invariant: only SQLite opens the database file, its `-wal` or its `-shm`: closing any descriptor of them would drop
//! the locks that SQLite holds for this process. asyncq learns everything else about them by `stat`.

mod checkpoint;
mod connection;
pub(super) mod copy;
mod draft;
mod errors;
mod files;
mod filesystem;
#[cfg(debug_assertions)]
mod future;
mod identity;
mod integrity;
mod lock_owner;
mod mend;
mod migrate;
pub(super) mod new_file;
pub(super) mod permissions;
#[cfg(test)]
pub(super) mod plan;
mod read_only;
mod row;
mod rules;
pub(super) mod schema_script;
mod schema_text;
mod steps;
mod still;
mod swap;
mod tx;
mod wal_index;
mod write_queue;

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::{io, sync::atomic::Ordering};

use rusqlite::wal::CheckpointMode;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::engine::{Engine, Mode, Patience, Trouble, Tx, Watch};
use crate::error::{Kind, Result};
use crate::failpoint::reached;

use checkpoint::SCARCE_COMMITS;
use connection::{Sqlite, millis};
pub(super) use draft::Draft;
use files::{run_folder, with_suffix};
pub(super) use swap::Swap;

/// Opens the store in a file, unless this user cannot use it without harm to others.
pub(super) fn connect(path: &Path, patience: Patience) -> Result<Box<dyn Engine>> {
    permissions::allow_use(path)?;
    reached("store looked at");
    Ok(Box::new(Sqlite::open(path, patience)?))
}

/// Opens the store in a file only to read. Makes, locks and upgrades nothing.
pub(super) fn connect_to_read(path: &Path, patience: Patience) -> Result<Box<dyn Engine>> {
    read_only::connect(path, patience)
}

/// The run folder of the store in a file, through links.
pub(super) fn run_folder_of(file: &Path) -> PathBuf {
    run_folder(&files::without_links(file))
}

/// The name of the engine, with the version that is built in.
pub(super) fn name() -> String {
    format!("SQLite {}", rusqlite::version())
}

impl Engine for Sqlite {
    fn transact(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        match self.try_once(mode, work) {
            // The WAL cannot grow. But perhaps its content can be copied into the database file, which makes room.
            Err(error) if mode != Mode::Read && error.kind() == Kind::Full => {
                self.wal.scarce = SCARCE_COMMITS;
                if !self.empty_wal(CheckpointMode::PASSIVE)? {
                    return Err(error);
                }
                self.try_once(mode, work)?;
            }
            done => done?,
        }
        if let Some(still) = &self.still {
            still.check()?;
        }
        if mode != Mode::Read {
            reached("transaction committed");
            self.file.check()?;
            if let Err(error) = self.checkpoint() {
                (self.trouble)(&error.with_hint("what was done is safe; look at the disk"));
            }
        }
        Ok(())
    }

    fn be_patient(&mut self, patience: Patience) {
        self.patience.store(millis(patience), Ordering::Relaxed);
    }

    fn on_trouble(&mut self, trouble: Trouble) {
        self.trouble = trouble;
    }

    fn measure_without_disk(&mut self) -> Result<()> {
        self.patiently(|| self.connection.execute_batch("PRAGMA synchronous=NORMAL")).map_err(|error| self.fail(error))
    }

    fn still_there(&self) -> Result<()> {
        self.still_there()
    }

    fn changed(&mut self) -> Result<bool> {
        let ask = || self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        let version = self.patiently(ask).map_err(|error| self.fail(error))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    fn watch(&self) -> io::Result<Watch> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // inotify watches files by their paths, and opens none. A commit writes to the WAL, or to the file itself if an application
        // keeps a rollback journal. A process that leaves closes it after its last commit.
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&descriptor, &self.file.path, flags)?;
        match inotify::add_watch(&descriptor, with_suffix(&self.file.path, "-wal"), flags) {
            Ok(_) | Err(Errno::NOENT) => Ok(Watch { descriptor }),
            Err(error) => Err(error.into()),
        }
    }

    fn run_folder(&self) -> PathBuf {
        run_folder(&self.file.path)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(&self.file.path)
    }

    fn only_root_can_change(&self) -> Result<()> {
        permissions::refuse_changeable(&self.path, &self.file.path)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Sqlite::close(*self)
    }

    fn remove_run_folder(&self) {
        let folder = self.run_folder();
        // Nothing depends on the write queue.
        let _ = fs::remove_file(folder.join(write_queue::FILE));
        let _ = fs::remove_dir(folder);
    }
}
