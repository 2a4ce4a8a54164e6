//! Copies that get their name only when they are complete and on the disk.
//!
//! Invariant: the process that makes a draft holds its lock (`flock`) until the draft is published or removed. So a draft without
//! a lock is what a killed process has left, and anybody may remove it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::{Builder, NamedTempFile};

use super::files::{SIDECARS, are_same, sync_folder, with_suffix};
use crate::failpoint::reached;

/// The beginning of a draft's name. In drafts of earlier builds, the rest of the beginning differs.
const PREFIX: &str = ".copy-of-store-";

/// How the name of any draft begins.
const ANY_PREFIX: &str = ".copy-of-";

/// The end of a draft's name.
const SUFFIX: &str = ".new";

/// How many random characters a draft's name has.
const RANDOM: usize = 6;

/// How often to make a draft anew if somebody takes it for an abandoned one before it is locked.
const TRIES: usize = 10;

/// A file that nobody sees yet, with mode 0600. Dropping this removes it.
pub(in crate::store) struct Draft {
    file: NamedTempFile,
}

impl Draft {
    /// Makes an empty draft in a folder, and removes all that killed processes have left there.
    pub(super) fn make(folder: &Path) -> io::Result<Draft> {
        remove_left(folder);
        for _ in 0..TRIES {
            let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
            file.as_file().set_permissions(Permissions::from_mode(0o600))?;
            let is_locked = file.as_file().try_lock().is_ok();
            if is_locked && fs::symlink_metadata(file.path()).is_ok() {
                return Ok(Draft { file });
            }
        }
        Err(io::Error::other("somebody removes new files there"))
    }

    /// Where it is.
    pub(in crate::store) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Gives it its name, unless something has that name, and syncs both. After a failure, the name is free again.
    pub(super) fn publish(self, target: &Path) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        reached("backup synced");
        self.file.persist_noclobber(target).map_err(|refused| refused.error)?;
        reached("backup named");
        sync_folder(target).inspect_err(|_| {
            let _ = fs::remove_file(target);
        })
    }
}

fn remove_left(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_draft(&entry.file_name()) && is_left(&entry.path()) {
            for suffix in SIDECARS.into_iter().chain([""]) {
                let _ = fs::remove_file(with_suffix(&entry.path(), suffix));
            }
        }
    }
}

/// Removes the draft's name of a file that has another one, as a power cut can leave it. Nobody opens the file for that: its locks
/// would be gone.
pub(super) fn remove_name_as_draft(file: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_draft(&entry.file_name()) && are_same(&entry.path(), file) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether asyncq gives such a name to a draft.
fn is_draft(name: &OsStr) -> bool {
    let name = name.as_bytes().strip_prefix(ANY_PREFIX.as_bytes());
    let parts = name.and_then(|it| it.strip_suffix(SUFFIX.as_bytes())).and_then(|it| it.split_last_chunk::<RANDOM>());
    parts.is_some_and(|(label, random)| {
        label.len() > 1 && label.ends_with(b"-") && random.iter().all(u8::is_ascii_alphanumeric)
    })
}

/// Whether no process works on a draft.
fn is_left(path: &Path) -> bool {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.is_ok_and(|file| file.metadata().is_ok_and(|is| is.is_file()) && file.try_lock().is_ok())
}

/// Whether a failure means that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_works_on_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let at_work = Draft::make(place.path()).unwrap();
        let others = [".copy-of-q.db-abc.new", ".copy-of-q.db-ab_def.new", ".copy-of-abcdef.new", ".q.dbabcdef.new"];
        let left = [".copy-of-store-abcdef.new", ".copy-of-q.db-abcdef.new", ".copy-of-a-b-1bcdef.new"];
        for name in others.iter().chain(&left) {
            fs::write(place.path().join(name), "").unwrap();
        }
        let second = Draft::make(place.path()).unwrap();
        assert!(at_work.path().exists() && second.path().exists());
        let is_there = |name: &str| place.path().join(name).exists();
        assert!(others.into_iter().all(is_there));
        assert!(!left.into_iter().any(is_there));
    }
}
