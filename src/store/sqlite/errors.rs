//! Turns errors of SQLite into errors that a user understands.

use std::{io, path::Path};

use rusqlite::{ErrorCode, ffi};
use rustix::fs::{Access, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::files::{SIDECARS, with_suffix, without_links};
use super::{lock_owner::lock_owner, permissions::may, schema_script::part};
use crate::error::{Error, Kind, reason};
use crate::store::engine::{self, rule_refuses};

/// The most by which a file of a store grows at once, in bytes: its index in shared memory grows by this.
const GROWTH: u64 = 32 * 1024;

/// `COPY` stands for the copy of the store. The user reads the copy into a new file, because a damaged store must never be written.
pub(super) const WAY_OUT_OF_DAMAGE: &str = "stop every processor, and copy the file together with its `-wal`; then \
    restore a backup, or save what can be read: `sqlite3 COPY .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 NEW`";

/// The error for a store that contains something impossible, with the way out.
pub(super) fn damaged(what: &str) -> Error {
    engine::damaged(what).with_hint(WAY_OUT_OF_DAMAGE)
}

/// An error of SQLite in the words of asyncq, with the way out.
pub(super) fn explain(path: &Path, error: rusqlite::Error) -> Error {
    explained(path, &error).with_source(error)
}

fn explained(path: &Path, error: &rusqlite::Error) -> Error {
    let (store, detail) = (path.display(), error.to_string());
    let Some(failure) = error.sqlite_error().copied() else {
        // A column is missing, or has a form that asyncq did not expect.
        return damaged(match error {
            rusqlite::Error::SqlInputError { msg, .. } => msg,
            _ => "an answer has another form than asyncq asked for",
        });
    };
    if misses_own_table(&detail) {
        return Error::new(Kind::Invalid, format!("the store is not complete: {detail}"))
            .with_hint("`asyncq init` creates the missing parts of its schema");
    }
    if failure.extended_code == ffi::SQLITE_CONSTRAINT_TRIGGER {
        return refused(&detail);
    }
    match failure.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => locked(path),
        ErrorCode::NotADatabase => Error::new(Kind::Invalid, format!("`{store}` is not a SQLite database")).with_hint(
            "check `--db` and `$ASYNCQ_DB`; the file was left as it is; if it was a store, restore a backup",
        ),
        // The schema allows everything that asyncq does. So a refusal means that something in the store is not as asyncq has made
        // it.
        ErrorCode::DatabaseCorrupt
        | ErrorCode::Unknown
        | ErrorCode::ConstraintViolation
        | ErrorCode::TooBig
        | ErrorCode::TypeMismatch => damaged(&detail),
        ErrorCode::ReadOnly if failure.extended_code == ffi::SQLITE_READONLY_DBMOVED => moved("the store", path),
        // SQLite has a code of its own for a file that is too short.
        _ if is_misled(error) => damaged("it is cut short"),
        // If a file cannot be opened for writing, SQLite opens it for reading, whatever the reason.
        ErrorCode::ReadOnly if may_write(path) => cannot_be_opened(path),
        ErrorCode::ReadOnly => Error::new(Kind::Denied, format!("the store `{store}` is read-only"))
            .with_hint("asyncq must be able to write the file and the folder it is in"),
        ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
            Error::new(Kind::Denied, format!("not allowed to use the store `{store}`"))
                .with_hint("it belongs to the user who created it")
        }
        _ if has_no_space(path, failure) => no_space(path),
        ErrorCode::CannotOpen => cannot_open(path),
        _ => {
            let system = system_error(failure).map(|what| format!(" ({what})")).unwrap_or_default();
            Error::new(Kind::Io, format!("the store `{store}` failed: {detail}{system}"))
                .with_hint("look at the disk; nothing was acknowledged")
                .transient()
        }
    }
}

/// Whether SQLite misses a table of the store.
pub(super) fn misses_own_table(what: &str) -> bool {
    let table = what.strip_prefix("no such table: ");
    table.is_some_and(|table| part(table.trim_start_matches("main.")).is_some())
}

/// The error for a refusal by a trigger: one of asyncq's own, or one that an application has added.
fn refused(why: &str) -> Error {
    match why.strip_prefix("asyncq: ") {
        Some(rule) => Error::new(Kind::Denied, rule)
            .with_hint("this breaks a rule of the store; if it should not, `asyncq init` checks the store for damage"),
        None => rule_refuses("a trigger", why),
    }
}

/// The error for a store in whose place another file is being put.
pub(super) fn is_under_way(store: &Path) -> Error {
    Error::new(Kind::Busy, format!("a restore of `{}` is under way", store.display()))
        .with_hint("try again when it has ended")
}

/// The error for a file that is not the one that was opened.
pub(super) fn moved(what: &str, path: &Path) -> Error {
    let message = format!("{what} `{}` was moved, replaced or removed while in use", path.display());
    Error::new(Kind::Io, message).with_hint("nothing was acknowledged; put the file back, or run the command again")
}

/// The error for a store whose index in shared memory describes another store's WAL.
pub(super) fn misled(path: &Path) -> Error {
    let (store, index) = (path.display(), with_suffix(&without_links(path), "-shm"));
    let hint =
        format!("nothing was changed; end all that use it, which `fuser {}` shows, then try again", index.display());
    Error::new(Kind::Busy, format!("the store `{store}` took the place of another one while somebody opened it"))
        .with_hint(hint)
}

/// Whether an error may come from an index that describes more frames than exist.
pub(super) fn is_misled(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHORT_READ)
}

fn locked(path: &Path) -> Error {
    let store = path.display();
    let Some(owner) = lock_owner(path) else {
        return Error::new(Kind::Busy, format!("the store `{store}` is locked by another process"))
            .with_hint("try again; a writer that is stopped or works in one long transaction keeps everybody waiting");
    };
    let pid = owner.pid;
    let error = Error::new(Kind::Busy, format!("the store `{store}` is locked by process {pid} (`{}`)", owner.name));
    if owner.stopped {
        error
            .with_hint(format!("that process is stopped and keeps everybody waiting: `kill -CONT {pid}` lets it go on"))
    } else {
        error.with_hint("try again; a writer that works in one long transaction keeps everybody waiting")
    }
}

/// Whether a write failed because there was no space. SQLite has one code for a full disk, and others for a file that may not grow
/// and for its index in shared memory, which it only writes to make the file longer.
fn has_no_space(path: &Path, failure: ffi::Error) -> bool {
    match failure.extended_code {
        ffi::SQLITE_FULL | ffi::SQLITE_IOERR_SHMSIZE => true,
        ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE => may_not_grow(path),
        _ => false,
    }
}

/// The error for a write that failed for lack of space.
pub(super) fn no_space(path: &Path) -> Error {
    let store = path.display();
    if may_not_grow(path) {
        let message = format!("no space left for the store `{store}`: its files have the size that files may have");
        return Error::new(Kind::Full, message)
            .with_hint("nothing was changed; `ulimit -f` shows the limit, in blocks");
    }
    Error::new(Kind::Full, format!("no space left for the store `{store}`"))
        .with_hint("nothing was changed; make room and try again")
}

/// Whether a file of the store is about as large as files may be.
fn may_not_grow(path: &Path) -> bool {
    let Some(limit) = getrlimit(Resource::Fsize).current else { return false };
    let path = without_links(path);
    files().any(|suffix| {
        let size = std::fs::metadata(with_suffix(&path, suffix)).map_or(0, |meta| meta.len());
        size + GROWTH > limit
    })
}

/// Whether the file system of the store is out of file numbers, if it counts them.
fn no_more_files(path: &Path) -> bool {
    statvfs(path).is_ok_and(|is| is.f_files > 0 && is.f_favail == 0)
}

/// The endings of the names of a store's files.
fn files() -> impl Iterator<Item = &'static str> {
    [""].into_iter().chain(SIDECARS)
}

fn system_error(failure: ffi::Error) -> Option<&'static str> {
    match failure.extended_code {
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => Some("the disk did not confirm a write"),
        ffi::SQLITE_IOERR_WRITE => Some("a write failed"),
        ffi::SQLITE_IOERR_READ => Some("a read failed"),
        _ => None,
    }
}

/// Why a file could not be opened; SQLite does not say.
fn cannot_open(path: &Path) -> Error {
    let store = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Error::new(Kind::Unreachable, format!("`{store}` is a directory, not a store"))
            .with_hint("name a file, as in `--db queue.db`"),
        Err(_) if path.is_symlink() => {
            Error::new(Kind::Unreachable, format!("`{store}` is a link to a file that is not there"))
                .with_hint("remove the link, or put the file back")
        }
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
            Error::new(Kind::Unreachable, format!("there is no store at `{store}`"))
                .with_hint("`asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place")
        }
        // SQLite makes files next to it.
        _ if no_more_files(path) => no_space(path),
        _ if may_write(path) => cannot_be_opened(path),
        _ => Error::new(Kind::Denied, format!("the store `{store}` cannot be opened"))
            .with_hint("asyncq must be able to write the file and the folder it is in"),
    }
}

/// The error for a folder that the disk did not confirm.
pub(super) fn cannot_sync(store: &Path, error: io::Error) -> Error {
    let message = format!("the folder of the store `{}` cannot be synced: {}", store.display(), reason(&error));
    let failure = if error.kind() == io::ErrorKind::PermissionDenied {
        Error::new(Kind::Denied, message).with_hint("asyncq must be able to read the folder")
    } else {
        Error::new(Kind::Io, message).with_hint("look at the disk; nothing was acknowledged").transient()
    };
    failure.with_source(error)
}

/// The error for a store that this user may use, although one of its files cannot be opened.
fn cannot_be_opened(path: &Path) -> Error {
    Error::new(Kind::Io, format!("opening the store `{}` failed", path.display()))
        .with_hint("look at the disk; nothing was acknowledged")
        .transient()
}

/// Whether this user may write the store, what belongs to it, and the folder it is in.
fn may_write(path: &Path) -> bool {
    let path = without_links(path);
    let file = |suffix: &str| {
        let answer = may(&with_suffix(&path, suffix), Access::READ_OK | Access::WRITE_OK);
        answer.is_ok() || !suffix.is_empty() && answer == Err(Errno::NOENT)
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    files().all(file) && may(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
