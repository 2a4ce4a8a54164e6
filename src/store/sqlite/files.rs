//! The files of a store: their names, and which file a name leads to.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{io, os::unix::fs::MetadataExt};

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};

/// The endings of the files that SQLite keeps next to a database.
pub(in crate::store) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The run folder, next to a store. `path` is without links.
pub(in crate::store) fn run_folder(path: &Path) -> PathBuf {
    with_suffix(path, "-asyncq")
}

/// The file that a path leads to, next to which the store's other files are; the path itself if it leads nowhere.
pub(in crate::store) fn without_links(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// How many links there are on a path at most (`MAXSYMLINKS` of the kernel).
const MAX_LINKS: usize = 40;

/// What the note of a restore adds to the store's name.
const NOTE: &str = "-restore";

/// The note next to a store that is being restored. `path` is without links.
pub(super) fn note_at(path: &Path) -> PathBuf {
    with_suffix(path, NOTE)
}

/// Whether there is a note. Then the store may be about to appear.
pub(super) fn is_noted(given: &Path) -> bool {
    fs::symlink_metadata(note_at(&file_at(given))).is_ok()
}

/// The file that a path leads to, whether it exists or not.
pub(super) fn file_at(given: &Path) -> PathBuf {
    let mut at = given.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new("/")).join(to);
    }
    let folder = at.parent().and_then(|folder| fs::canonicalize(folder).ok());
    folder.map_or(at.clone(), |folder| folder.join(at.file_name().unwrap_or(OsStr::new(""))))
}

pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The longest path that SQLite opens, in bytes: with a suffix it has at most 512 (`MAX_PATHNAME` of its `os_unix.c`).
const LONGEST_PATH: usize = 512 - LONGEST_SUFFIX;

/// The longest name of a file that SQLite opens, in bytes: with a suffix it has at most `NAME_MAX` of common file systems.
const LONGEST_NAME: usize = 255 - LONGEST_SUFFIX;

/// The length of `-journal` in bytes.
const LONGEST_SUFFIX: usize = 8;

/// Refuses a path that SQLite does not open, or would not with `more` bytes in its name. `path` has no links.
pub(in crate::store) fn refuse_long(path: &Path, more: usize) -> Result<()> {
    let parts = [
        ("path", path.as_os_str(), LONGEST_PATH - more),
        ("name", path.file_name().unwrap_or_default(), LONGEST_NAME - more),
    ];
    for (what, text, most) in parts {
        if text.len() > most {
            let message = format!("the {what} of the store has {} bytes, and at most {most} are possible", text.len());
            return Err(Error::new(Kind::Usage, message).with_hint("name a shorter one with `--db` or `$ASYNCQ_DB`"));
        }
    }
    Ok(())
}

/// Refuses a WAL without its database. It holds acknowledged calls, which a new database next to it would destroy.
pub(in crate::store) fn refuse_leftovers(target: &Path) -> Result<()> {
    for suffix in SIDECARS {
        let sidecar = with_suffix(target, suffix);
        // The order matters: if the store is there after all, somebody has just made it, and the sidecar belongs to it.
        if fs::symlink_metadata(&sidecar).is_ok() && fs::symlink_metadata(target).is_err() {
            let message = format!("`{}` is gone, but `{}` is there", target.display(), sidecar.display());
            return Err(Error::new(Kind::Io, message).with_hint(
                "the store was moved or removed; put it back together with that file, which may hold calls, or move \
                 that file away",
            ));
        }
    }
    Ok(())
}

/// Syncs the names in the folder of a file or folder.
pub(in crate::store) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

/// Whether two names are names of one file.
pub(super) fn are_same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::symlink_metadata(path).map(|is| (is.dev(), is.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// The identity of a file on this machine, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// The facts about a file that each commit needs.
pub(super) struct Named {
    pub(super) id: Id,
    /// How many names it has.
    pub(super) links: u64,
    pub(super) length: u64,
}

impl Named {
    /// This does not ask for times. Since Linux 6.13, the next write to a file gives it new times if somebody has asked for them,
    /// which took a third of a durable commit here.
    pub(super) fn by(path: &Path) -> io::Result<Named> {
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::NLINK | StatxFlags::SIZE) {
            Ok(stat) => {
                let id = Id { device: makedev(stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino };
                Ok(Named { id, links: stat.stx_nlink.into(), length: stat.stx_size })
            }
            // Before Linux 4.11, and in a sandbox that does not know this call.
            Err(Errno::NOSYS) => {
                let meta = fs::metadata(path)?;
                let id = Id { device: meta.dev(), inode: meta.ino() };
                Ok(Named { id, links: meta.nlink(), length: meta.len() })
            }
            Err(error) => Err(error.into()),
        }
    }
}
