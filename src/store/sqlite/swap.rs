//! Puts another file in the place of a store.
//!
//! The store that was there moves into a folder next to it, with all that belongs to it: first the database file, so that nobody
//! opens it without its WAL, and then the others. Each file gets its second name before it loses the first one, so that a power cut
//! leaves it with one of them. So for a moment there is no store. A note next to it, locked by the process
//! that does this, tells those who come meanwhile to wait. A note without a lock is what a killed process or a power cut has left:
//! whoever comes next puts back what was there.
//!
//! Invariant: what follows relies on what came before only when the disk has that. No store is ever next to the WAL of another one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::process::geteuid;

use super::connection::{Sqlite, millis, wait};
use super::draft::{Draft, remove_name_as_draft};
use super::errors::is_under_way;
use super::files::{SIDECARS, are_same, file_at, note_at, run_folder, sync_folder, with_suffix};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result, reason};
use crate::failpoint::reached;
use crate::store::engine::Patience;

/// The right to put another file in the place of a store.
pub(in crate::store) struct Swap {
    /// The path of the store, as it was named.
    given: PathBuf,
    /// The same without links, whether there is a file or not.
    path: PathBuf,
    /// Locked. It holds the name of the folder into which the store moves.
    note: File,
}

impl Swap {
    /// Takes the right, and puts back first what an interrupted swap has left.
    ///
    /// # Errors
    /// [`Kind::Busy`] when somebody else has it.
    pub(in crate::store) fn begin(given: &Path) -> Result<Swap> {
        let path = file_at(given);
        let note = take_note(&path, true).map_err(|error| cannot_restore(given, &error))?;
        let Some(note) = note else { return Err(is_under_way(given)) };
        let swap = Swap { given: given.to_owned(), path, note };
        swap.undo_interrupted()?;
        Ok(swap)
    }

    /// The path of the store without links.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves what is there into a folder, which is named after the moment, and puts the draft in its place, for the same users.
    /// Writers wait meanwhile, and `check` is the last to have a say. Returns the folder, if there was anything.
    ///
    /// # Errors
    /// Whatever `check` and the file system answer. Then what was there is there again.
    pub(in crate::store) fn replace(
        self,
        draft: Draft,
        now: Timestamp,
        (patience, check): (Patience, &mut dyn FnMut() -> Result<()>),
    ) -> Result<Option<PathBuf>> {
        let fail = |error: io::Error| cannot_restore(&self.given, &error);
        // Where it is damaged, nobody can write to it either.
        let lock = if self.path.exists() {
            match Sqlite::open(&self.given, patience).and_then(Sqlite::locked) {
                Err(error) if error.kind() == Kind::Busy => return Err(error),
                lock => lock.ok(),
            }
        } else {
            None
        };
        check()?;
        let present: Vec<PathBuf> =
            self.parts().into_iter().filter(|part| fs::symlink_metadata(part).is_ok()).collect();
        let moved = if present.is_empty() {
            None
        } else {
            let folder = self.make_folder(now).map_err(fail)?;
            let done = self.move_away(&present, &folder);
            done.map_err(|error| self.undone(&folder, fail(error)))?;
            Some(folder)
        };
        let published = self.as_before(&draft, moved.as_deref()).and_then(|()| {
            reached("restore moved");
            draft.publish(&self.path)
        });
        if let Err(error) = published {
            let error = fail(error);
            return Err(match moved {
                Some(folder) => self.undone(&folder, error),
                None => error,
            });
        }
        reached("restore named");
        drop(lock);
        Ok(moved)
    }

    /// The files of the store and its run folder, the database file first.
    fn parts(&self) -> Vec<PathBuf> {
        let beside = SIDECARS.map(|suffix| with_suffix(&self.path, suffix));
        [self.path.clone()].into_iter().chain(beside).chain([run_folder(&self.path)]).collect()
    }

    /// Makes the folder into which the store moves, and notes its name.
    fn make_folder(&self, now: Timestamp) -> io::Result<PathBuf> {
        let mut moment = now;
        let folder = loop {
            let folder = with_suffix(&self.path, &format!(".before-restore-{}", moment.in_name()));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => moment = moment.after(Duration::from_secs(1)),
                made => break made.map(|()| folder)?,
            }
        };
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        if let Some(owner) = fs::metadata(&self.path).ok().filter(|_| geteuid().is_root()) {
            chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
        }
        let name = folder.file_name().unwrap_or_default();
        self.note.set_len(0)?;
        self.note.write_all_at(name.as_bytes(), 0)?;
        self.note.sync_all()?;
        sync_folder(&self.path)?;
        reached("restore noted");
        Ok(folder)
    }

    fn move_away(&self, present: &[PathBuf], folder: &Path) -> io::Result<()> {
        let (database, others): (Vec<_>, Vec<_>) = present.iter().partition(|part| **part == self.path);
        for parts in [database, others] {
            for part in parts {
                carry(part, &folder.join(part.file_name().unwrap_or_default()))?;
                reached("restore part moved");
            }
            self.sync(folder)?;
        }
        Ok(())
    }

    /// Syncs the names in both folders.
    fn sync(&self, folder: &Path) -> io::Result<()> {
        sync_folder(&folder.join("it"))?;
        sync_folder(&self.path)
    }

    /// Gives the draft the owner and the mode that the store had.
    fn as_before(&self, draft: &Draft, folder: Option<&Path>) -> io::Result<()> {
        let before = folder.map(|folder| folder.join(self.path.file_name().unwrap_or_default()));
        let Some(before) = before.and_then(|it| fs::metadata(it).ok()) else { return Ok(()) };
        let file = draft.file();
        let is = file.metadata()?;
        if geteuid().is_root() || is.gid() != before.gid() {
            let owner = geteuid().is_root().then_some(before.uid());
            fchown(file, owner, Some(before.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(before.mode() & 0o666))
    }

    /// Puts back what was moved, after this error; the error that says where it is, if that fails.
    fn undone(&self, folder: &Path, error: Error) -> Error {
        match self.put_back(folder) {
            Ok(()) => error,
            Err(more) => stranded(&self.given, folder, &more),
        }
    }

    /// Puts back what an interrupted swap has moved.
    fn undo_interrupted(&self) -> Result<()> {
        let mut name = Vec::new();
        let read = (&self.note).read_to_end(&mut name);
        read.map_err(|error| cannot_restore(&self.given, &error))?;
        if name.is_empty() {
            return Ok(());
        }
        let folder = self.path.with_file_name(OsString::from_vec(name));
        // The database file moves first, and is put back last. If it is there, everything else is at its place, or the swap is done.
        let undone = match fs::symlink_metadata(&self.path) {
            Ok(_) => self.remove_other_names(&folder),
            Err(_) => self.put_back(&folder),
        };
        undone.map_err(|error| stranded(&self.given, &folder, &error))
    }

    /// Takes away all other names of the database file: in a folder, and as a draft.
    fn remove_other_names(&self, folder: &Path) -> io::Result<()> {
        remove_name_as_draft(&self.path)?;
        let second = folder.join(self.path.file_name().unwrap_or_default());
        if !are_same(&self.path, &second) {
            return sync_folder(&self.path);
        }
        fs::remove_file(&second)?;
        self.sync(folder)?;
        fs::remove_dir(folder)
    }

    /// Moves everything back from a folder, the database file last.
    fn put_back(&self, folder: &Path) -> io::Result<()> {
        for part in self.parts().into_iter().rev() {
            let moved = folder.join(part.file_name().unwrap_or_default());
            if part == self.path {
                self.sync(folder)?;
            }
            if fs::symlink_metadata(&moved).is_ok() {
                carry(&moved, &part)?;
                reached("restore part put back");
            }
        }
        self.sync(folder)?;
        fs::remove_dir(folder)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // Without the store, it still says where that is.
        if fs::symlink_metadata(&self.path).is_ok() || !fs::metadata(note_at(&self.path)).is_ok_and(|it| it.len() > 0) {
            let _ = fs::remove_file(note_at(&self.path));
        }
    }
}

/// Waits for a swap that is under way, or puts back what an interrupted one has left. Asked where nothing is at the path; says whether
/// there may be a store now.
///
/// # Errors
/// [`Kind::Busy`] when it is still under way after all patience, and what the file system answers.
pub(super) fn settle(given: &Path, patience: Patience) -> Result<bool> {
    let (path, since) = (file_at(given), Instant::now());
    let mut was_pending = false;
    loop {
        let note = take_note(&path, false).map_err(|error| cannot_restore(given, &error))?;
        match note {
            Some(note) => {
                let swap = Swap { given: given.to_owned(), path: path.clone(), note };
                swap.undo_interrupted()?;
                return Ok(true);
            }
            None if fs::symlink_metadata(note_at(&path)).is_err() => return Ok(was_pending || path.exists()),
            None if !wait(since, millis(patience)) => return Err(is_under_way(given)),
            None => was_pending = true,
        }
    }
}

/// Takes the note at a store, if nobody has it; `make` makes one.
fn take_note(path: &Path, make: bool) -> io::Result<Option<File>> {
    let at = note_at(path);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    loop {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(make).mode(0o600).custom_flags(flags).open(&at);
        let note = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound && !make => return Ok(None),
            note => note?,
        };
        match note.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last owner may have removed it meanwhile.
        let is_named =
            fs::symlink_metadata(&at).is_ok_and(|is| note.metadata().is_ok_and(|note| note.ino() == is.ino()));
        if is_named {
            return Ok(Some(note));
        }
    }
}

/// Moves a file to another folder, and replaces nothing there. It has both names until the disk has the new one: by a rename, a power
/// cut could leave it with none where a file system keeps no journal. A folder is renamed.
fn carry(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        return rename(from, to);
    }
    match fs::hard_link(from, to) {
        Ok(()) => {}
        // An earlier move was interrupted here.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && are_same(from, to) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        // The file system knows no second names, or the kernel allows this user none.
        Err(_) => return rename(from, to),
    }
    reached("restore part linked");
    sync_folder(to)?;
    fs::remove_file(from)
}

/// Renames, and replaces nothing.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know how to.
        Err(rustix::io::Errno::INVAL) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        done => Ok(done?),
    }
}

/// The error for a restore that could not be done.
pub(super) fn cannot_restore(store: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Kind::Full,
        _ => Kind::Io,
    };
    Error::new(kind, format!("cannot restore `{}`: {}", store.display(), reason(error)))
        .with_hint("what was there is there still")
}

fn stranded(store: &Path, folder: &Path, error: &io::Error) -> Error {
    let (store, folder) = (store.display(), folder.display());
    Error::new(Kind::Io, format!("a restore of `{store}` was interrupted, and cannot be undone: {}", reason(error)))
        .with_hint(format!("the store is in `{folder}`: move its files back, those with an ending first"))
}
