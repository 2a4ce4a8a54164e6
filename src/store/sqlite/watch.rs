//! Watches the files of a store.
//!
//! Invariant: opens none of them: closing it again would drop the locks that SQLite holds. inotify watches files by their
//! paths.

use std::{io, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::files::{SIDECARS, with_suffix};
use crate::store::engine::Watch;

/// Begins to watch the store at `path`, which is without links.
pub(super) fn watch(path: &Path) -> io::Result<Watch> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // A commit writes to the WAL, or to the file itself where an application keeps a rollback journal; a process that
    // leaves closes it, after its last commit.
    let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&watch, path, flags)?;
    let [wal, ..] = SIDECARS;
    match inotify::add_watch(&watch, with_suffix(path, wal), flags) {
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(Watch::on(watch)),
        Err(error) => Err(error.into()),
    }
}
