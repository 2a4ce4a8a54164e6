//! Which file a store is, and whether its path still names it.
//!
//! In WAL mode, SQLite goes on acknowledging commits to a file that was moved, replaced or removed, or whose `-wal` or `-shm` was.
//! A second name of the file would have a second WAL. And SQLite plays any WAL next to a file into it, even that of another file
//! which had the same name before.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, XattrFlags, getxattr, setxattr, statx};

use super::errors::{damaged, is_under_way, moved};
use super::files::{Id, Named, is_noted, refuse_leftovers, with_suffix, without_links};
use super::filesystem::refuse_network;
use crate::error::{Error, Kind, Result};

/// The extended attribute of a WAL that says which file it belongs to.
const MARK: &str = "user.asyncq.store";

/// The file of an open store, its path, and the files that SQLite keeps next to it.
pub(in crate::store) struct StoreFile {
    /// The path as somebody gave it, which may contain links.
    given: PathBuf,
    /// The path without links. SQLite keeps its other files next to it.
    pub(super) path: PathBuf,
    /// Whether something existed when it was looked for.
    pub(super) was_there: bool,
    id: OnceLock<Id>,
    /// See [`StoreFile::lasting_id`].
    lasting: OnceLock<Option<String>>,
    wal: Sidecar,
    shm: Sidecar,
    /// Set once the WAL has had content.
    written_wal: OnceLock<()>,
    /// Whether to mark the WAL.
    marks: bool,
}

/// A file next to the store, as it was when it was first used.
struct Sidecar {
    path: PathBuf,
    id: Mutex<Option<Id>>,
}

impl StoreFile {
    /// Finds where a path leads, before SQLite opens anything there. SQLite reports a missing file.
    ///
    /// # Errors
    /// [`Kind::Io`] when a store must not be used: on a network file system, under several names, or with the WAL of another file.
    pub(in crate::store) fn find(given: &Path) -> Result<StoreFile> {
        refuse_network(given)?;
        let path = without_links(given);
        let sidecar = |suffix| Sidecar { path: with_suffix(&path, suffix), id: Mutex::default() };
        let (wal, shm) = (sidecar("-wal"), sidecar("-shm"));
        let meta = fs::metadata(given);
        let (given, was_there) = (given.to_owned(), meta.is_ok());
        let (id, lasting, written_wal) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let found = StoreFile { given, path, was_there, id, lasting, wal, shm, written_wal, marks: true };
        match meta {
            Ok(meta) if meta.is_file() => {
                found.check_name()?;
                found.refuse_mount()?;
                found.refuse_foreign_wal()?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !is_noted(&found.given) => {
                refuse_leftovers(&found.given)?;
            }
            _ => {}
        }
        Ok(found)
    }

    /// Like [`StoreFile::find`], for a process that changes nothing.
    pub(super) fn find_to_read(given: &Path) -> Result<StoreFile> {
        Ok(StoreFile { marks: false, ..StoreFile::find(given)? })
    }

    /// The identity of the file, which stays the same after the machine was restarted, and which no copy of the file shares. Call
    /// this while the path is known to name the file. `None` if the file system keeps no time of creation.
    pub(in crate::store) fn lasting_id(&self) -> Option<&str> {
        self.lasting.get_or_init(|| lasting_id(&self.given)).as_deref()
    }

    /// The length of the WAL in bytes; 0 if there is none.
    pub(in crate::store) fn wal_length(&self) -> u64 {
        Named::by(&self.wal.path).map_or(0, |wal| wal.length)
    }

    /// Whether the WAL has had any content and is still the same file; false in a store without a WAL.
    pub(in crate::store) fn has_written_wal(&self) -> bool {
        if self.written_wal.get().is_none() && self.wal_length() > 0 {
            self.written_wal.get_or_init(|| ());
        }
        self.written_wal.get().is_some()
    }

    /// The error for a file that existed and is another one now.
    pub(in crate::store) fn replaced(&self) -> Option<Error> {
        self.id.get()?;
        self.check_name().err()
    }

    /// Checks that the path still names the file, and that no other path does.
    pub(in crate::store) fn check_name(&self) -> Result<()> {
        let named = Named::by(&self.given).map_err(|_| moved("the store", &self.given))?;
        if *self.id.get_or_init(|| named.id) != named.id {
            return Err(moved("the store", &self.given));
        }
        self.refuse_links(&named)
    }

    /// The same, including the files next to it. Call this within a transaction: then SQLite has them open, and nobody may remove
    /// them.
    pub(in crate::store) fn check(&self) -> Result<()> {
        self.check_name()?;
        if self.wal.check()? && self.marks {
            self.mark();
        }
        self.shm.check().map(drop)
    }

    fn refuse_links(&self, named: &Named) -> Result<()> {
        if named.links <= 1 {
            return Ok(());
        }
        // A restore moves the file by giving it a second name for a moment.
        if is_noted(&self.given) {
            return Err(is_under_way(&self.given));
        }
        let message = format!("the store `{}` has a second name (a hard link)", self.given.display());
        Err(Error::new(Kind::Io, message).with_hint(format!(
            "changes made under one name are lost under the other; `find / -inum {} 2>/dev/null` shows them: \
             remove all but one, or make a symbolic link",
            named.id.inode
        )))
    }

    /// If a file is mounted by itself, as containers do, its name is in two folders, each with its own WAL.
    fn refuse_mount(&self) -> Result<()> {
        let Ok(stat) = statx(CWD, &self.path, AtFlags::empty(), StatxFlags::TYPE) else { return Ok(()) };
        let root = StatxAttributes::MOUNT_ROOT;
        if !(stat.stx_attributes & stat.stx_attributes_mask).contains(root) {
            return Ok(());
        }
        let message = format!("the store `{}` is mounted without its folder", self.given.display());
        Err(Error::new(Kind::Io, message)
            .with_hint("its calls are also in the files next to it: mount the folder that they are in"))
    }

    fn refuse_foreign_wal(&self) -> Result<()> {
        if self.wal_length() == 0 {
            return Ok(());
        }
        let (store, own) = (lasting_id(&self.given), lasting_id(&self.wal.path));
        let (Some(store), Some(own), Some(mark)) = (store, own, self.marked()) else {
            return Ok(());
        };
        // A mark that names another file means that another WAL was copied here.
        if mark.strip_prefix(&own).is_none_or(|marked| marked == store) {
            return Ok(());
        }
        let (path, wal) = (self.given.display(), self.wal.path.display());
        Err(Error::new(Kind::Io, format!("`{wal}` does not belong to the store `{path}`, which was replaced"))
            .with_hint(format!(
                "to use the store as it is now, move `{wal}` away; to keep the calls in that file, put the store back \
                 that was here before"
            )))
    }

    /// Notes on the WAL which file it belongs to. If that is not possible, only the warning is missing.
    fn mark(&self) {
        // The store is checked last: if it is still this one, the WAL was its own.
        let (Some(own), Some(store)) = (lasting_id(&self.wal.path), lasting_id(&self.given)) else { return };
        let mark = own + &store;
        if self.check_name().is_ok() && self.marked().as_ref() != Some(&mark) {
            let _ = setxattr(&self.wal.path, MARK, mark.as_bytes(), XattrFlags::empty());
        }
    }

    fn marked(&self) -> Option<String> {
        let mut mark = [0_u8; 128];
        let length = getxattr(&self.wal.path, MARK, &mut mark[..]).ok()?;
        std::str::from_utf8(&mark[..length]).ok().map(str::to_owned)
    }
}

impl Sidecar {
    /// Checks that this is the same file as before. Returns whether this is the first check.
    fn check(&self) -> Result<bool> {
        let now = Named::by(&self.path).ok().map(|named| named.id);
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = now;
            return Ok(now.is_some());
        }
        if *known == now { Ok(false) } else { Err(moved("the file", &self.path)) }
    }
}

/// The identity of a file, even after the machine was restarted and another file got its number. Like [`Named::by`], it does not
/// ask for the time of the last change.
fn lasting_id(path: &Path) -> Option<String> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME).ok()?;
    let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME).then_some(stat.stx_btime)?;
    let nanos = i128::from(born.tv_sec) * 1_000_000_000 + i128::from(born.tv_nsec);
    Some(format!("{}@{nanos};", stat.stx_ino))
}

/// Refuses an empty database with a WAL. SQLite would remove the WAL, but if this was a store, the WAL holds its calls.
pub(super) fn refuse_emptied(store: &Path) -> Result<()> {
    // It checks twice, because the WAL may belong to another store that has just replaced this one.
    let empty = |path: &Path| fs::metadata(path).ok().filter(|meta| meta.len() == 0).map(|meta| meta.ino());
    let Some(inode) = empty(store) else { return Ok(()) };
    let wal = with_suffix(&without_links(store), "-wal");
    if fs::metadata(&wal).map_or(0, |meta| meta.len()) == 0 || empty(store) != Some(inode) {
        return Ok(());
    }
    Err(damaged(&format!("`{}` is empty, but `{}` is not", store.display(), wal.display())))
}
