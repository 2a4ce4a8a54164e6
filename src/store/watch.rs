//! Hearing that somebody may have changed the store, without looking.
//!
//! Invariant: opens none of the store's files: closing it again would drop the locks that SQLite holds. inotify watches
//! files by their paths.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use super::Store;
use super::sqlite::new_file::{SIDECARS, with_suffix};

/// Becomes readable when somebody writes to the store, this process too. What is being written may not be committed yet:
/// [`Store::changed`] tells.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Store {
    /// Begins to watch the store.
    ///
    /// # Errors
    /// When the system watches no more files for this user (`/proc/sys/fs/inotify/max_user_instances`, `max_user_watches`).
    pub fn watch(&self) -> io::Result<Watch> {
        let path = &self.file;
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // A commit writes to the WAL, or to the file itself where an application keeps a rollback journal; who leaves
        // closes it, after its last commit.
        let flags = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watch, path, flags)?;
        let [wal, ..] = SIDECARS;
        match inotify::add_watch(&watch, with_suffix(path, wal), flags) {
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(Watch(watch)),
            Err(error) => Err(error.into()),
        }
    }
}

impl Watch {
    /// Takes note of what was written so far; says whether anything was.
    pub fn heard(&mut self) -> bool {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut space);
        let mut any = false;
        while events.next().is_ok() {
            any = true;
        }
        any
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
