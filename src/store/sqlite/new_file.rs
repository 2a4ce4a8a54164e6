//! Making the file of a new store.
//!
//! Invariant: a store appears at its path complete and readable by its owner only, or not at all.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files::{SIDECARS, refuse_leftovers, refuse_long, sync_folder, with_suffix, without_links};
use super::{connection::Sqlite, errors::no_space, filesystem::refuse_network};
use crate::error::{Error, Kind, Result, reason};
use crate::store::engine::{Engine, Mode, Patience, Triggers};

/// How many bytes a draft adds to the final name: a dot, six random characters and `.new`.
const DRAFT_NAME: usize = 11;

/// Makes an empty store at `path` unless there is something; returns whether it did.
///
/// # Errors
/// [`Kind::Io`] when the file of an earlier store is gone but its WAL is there.
pub(in crate::store) fn make(path: &Path, patience: Patience) -> Result<bool> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(false);
    }
    refuse_network(path)?;
    let draft = NewFile::new(path)?;
    fill(&draft, patience).map_err(|error| {
        draft.remove_sidecars();
        if error.kind() == Kind::Full { no_space(path) } else { error }
    })?;
    draft.publish()
}

/// Makes a store of an empty file.
fn fill(draft: &NewFile, patience: Patience) -> Result<()> {
    let mut engine = Sqlite::open(draft.path(), patience)?;
    // Before anything is in it: after that, every page is written and synced by steps that report their errors.
    engine.use_wal()?;
    engine.transact(Mode::Write(Triggers::None), &mut |tx| tx.bring())?;
    engine.close()
}

/// A file for a new store that nobody sees yet; removed again unless it is [put in place](NewFile::publish).
pub(in crate::store) struct NewFile {
    target: PathBuf,
    file: tempfile::TempPath,
}

impl NewFile {
    /// Makes an empty file, mode 0600 whatever the umask, in the folder of `target`, which is made with mode 0700 if
    /// it is missing.
    pub(in crate::store) fn new(target: &Path) -> Result<NewFile> {
        let fail = |error: io::Error| cannot_create(target, &error);
        refuse_leftovers(target)?;
        let folder = target.parent().unwrap_or(Path::new("/"));
        refuse_long(&without_links(folder).join(target.file_name().unwrap_or_default()), DRAFT_NAME)?;
        make_folder(folder).map_err(fail)?;
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        let file = tempfile::Builder::new().prefix(&name).suffix(".new").tempfile_in(folder).map_err(fail)?;
        file.as_file().set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
        // Closed before SQLite opens it: a descriptor closed later would drop SQLite's locks.
        Ok(NewFile { target: target.to_owned(), file: file.into_temp_path() })
    }

    /// Its path until it is published.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.file
    }

    /// Removes the files that SQLite left next to it, when it could not be made a store and is no longer in use.
    pub(in crate::store) fn remove_sidecars(&self) {
        for suffix in SIDECARS {
            let _ = fs::remove_file(with_suffix(self.path(), suffix));
        }
    }

    /// Gives the file its name. Returns whether it did: if somebody else was faster, theirs stays.
    pub(in crate::store) fn publish(self) -> Result<bool> {
        refuse_leftovers(&self.target)?;
        match self.file.persist_noclobber(&self.target) {
            Ok(()) => {}
            Err(refused) if refused.error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(refused) => return Err(cannot_create(&self.target, &refused.error)),
        }
        sync_folder(&self.target).map_err(|error| cannot_create(&self.target, &error))?;
        Ok(true)
    }
}

/// Makes a folder and the missing ones above it, each for its owner only, whatever the umask. Their names survive a power
/// cut.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o700))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match sync_folder(folder) {
        // A user who may only add names to a folder cannot sync it; common file systems do that along with the store's file.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

fn cannot_create(target: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        _ => Kind::Io,
    };
    Error::new(kind, format!("cannot create the store `{}`: {}", target.display(), reason(error)))
        .with_hint("`--db` or `$ASYNCQ_DB` names another place")
}
