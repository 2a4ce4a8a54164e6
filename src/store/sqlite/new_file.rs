//! Makes the file of a new store.
//!
//! Invariant: a store appears at its path complete and readable by its owner only, or not at all.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::{ffi::OsString, path::Path};

use tempfile::TempPath;

use super::files::{SIDECARS, refuse_leftovers, refuse_long, sync_folder, with_suffix, without_links};
use super::{connection::Sqlite, errors::no_space, filesystem::refuse_network, swap::settle};
use crate::error::{Error, Kind, Result, reason};
use crate::store::engine::{Engine, Mode, Patience, Triggers};

/// How many bytes a draft adds to the final name: a dot, six random characters and `.new`.
const DRAFT_NAME: usize = 11;

/// Makes an empty store at `path` unless there is something. Returns whether it did.
///
/// # Errors
/// [`Kind::Io`] when the file of an earlier store is gone but its WAL is there.
pub(in crate::store) fn make(path: &Path, patience: Patience) -> Result<bool> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(false);
    }
    if settle(path, patience)? && path.exists() {
        return Ok(false);
    }
    refuse_network(path)?;
    refuse_leftovers(path)?;
    let draft = draft(path)?;
    fill(&draft, patience).map_err(|error| {
        for suffix in SIDECARS {
            let _ = fs::remove_file(with_suffix(&draft, suffix));
        }
        if error.kind() == Kind::Full { no_space(path) } else { error }
    })?;
    refuse_leftovers(path)?;
    let published = draft.persist_noclobber(path).map_err(|refused| refused.error);
    match published.and_then(|()| sync_folder(path)) {
        // Somebody else was faster, and theirs stays.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        done => done.map(|()| true).map_err(|error| cannot_create(path, &error)),
    }
}

/// Makes an empty file that nobody sees yet, with mode 0600 whatever the umask, in the folder of `target`. Makes that folder with
/// mode 0700 if it is missing. The file is removed again unless it gets its name.
fn draft(target: &Path) -> Result<TempPath> {
    let fail = |error: io::Error| cannot_create(target, &error);
    let (folder, name) = (target.parent().unwrap_or(Path::new("/")), target.file_name().unwrap_or_default());
    refuse_long(&without_links(folder).join(name), DRAFT_NAME)?;
    make_folder(folder).map_err(fail)?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    let file = tempfile::Builder::new().prefix(&prefix).suffix(".new").tempfile_in(folder).map_err(fail)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
    // It is closed before SQLite opens it, because closing a descriptor later would drop SQLite's locks.
    Ok(file.into_temp_path())
}

/// Makes a store of an empty file.
fn fill(draft: &Path, patience: Patience) -> Result<()> {
    let mut engine = Sqlite::open(draft, patience)?;
    // This happens before the file has any content. After that, steps that report their errors write and sync every page.
    engine.use_wal()?;
    engine.transact(Mode::Write(Triggers::None), &mut |tx| tx.bring())?;
    engine.close()
}

/// Makes a folder and its missing parents, each for its owner only, whatever the umask. Their names survive a power cut.
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
        // A user who may only add names to a folder cannot sync it. Common file systems do that together with the store's file.
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
