//! Copies of a whole database, made while it is in use.
//!
//! Pages are copied as they are, and not by `VACUUM INTO`: that needs the functions and collations of an application, and makes
//! new indexes, which would hide that those of the store are damaged. A read transaction keeps one state of the database for the
//! copy. Without it, SQLite would begin again after each commit.

use std::io::{self, ErrorKind};
use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
use std::{fs, path::Path};
use std::{thread::sleep, time::Instant};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::draft::{Draft, is_full};
use super::errors::{damaged, explain};
use super::files::{SIDECARS, refuse_leftovers, with_suffix, without_links};
use super::rules::is_own;
use super::swap::cannot_restore;
use super::tx::SqliteTx;
use crate::error::{Error, Kind, Result, reason};
use crate::failpoint::reached;
use crate::store::engine::{damaged_backup, of_backup};
use crate::store::schema::Copied;

/// How many pages to copy before the disk gets them. A commit of others may have to wait until the disk has all that was written
/// before.
const STEP: i32 = 1024;

/// The way out when a file is no backup.
const NAME_A_BACKUP: &str = "name a file that `asyncq backup` has made";

/// Endings of names that SQLite or asyncq gives to files and folders next to a database.
const TAKEN: [&str; 2] = ["-asyncq", "-restore"];

impl SqliteTx<'_> {
    /// Copies the state of the database that this transaction sees into a new file, which gets its name when it is complete, is
    /// found undamaged, and is on the disk.
    pub(super) fn copy_to(&self, target: &Path) -> Result<Copied> {
        refuse_target(target)?;
        let fail = |error: io::Error| cannot_back_up(target, &error);
        let folder = target.parent().unwrap_or(Path::new("/"));
        let draft = Draft::make(&without_links(folder)).map_err(fail)?;
        reached("backup draft made");
        self.copy_pages(&draft, target)?;
        refuse_damage(draft.path())?;
        reached("backup pages checked");
        let bytes = draft.file().metadata().map_err(fail)?.len();
        draft.publish(target).map_err(fail)?;
        let is_shared = self.engine.has_foreign_table().map_err(|error| self.fail(error))?;
        Ok(Copied { bytes, is_shared })
    }

    fn copy_pages(&self, draft: &Draft, target: &Path) -> Result<()> {
        let connection = &self.engine.connection;
        let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        let delays_nobody = mode.map_err(|error| self.fail(error))? == "wal";
        copy_all(connection, draft, delays_nobody).map_err(|failure| match failure {
            CopyFailure::Disk(error) => cannot_back_up(target, &error),
            CopyFailure::Engine(error) => self.copy_failed(target, error),
        })
    }

    /// A failure of the store, or of the file that its pages are copied to.
    fn copy_failed(&self, target: &Path, error: rusqlite::Error) -> Error {
        let code = error.sqlite_error().map_or(0, |failure| failure.extended_code);
        match code {
            ffi::SQLITE_FULL => cannot_back_up(target, &ErrorKind::StorageFull.into()),
            ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_CANTOPEN => {
                cannot_back_up(target, &io::Error::other("a write failed"))
            }
            _ => self.fail(error),
        }
    }
}

/// What can fail while pages are copied.
enum CopyFailure {
    Engine(rusqlite::Error),
    Disk(io::Error),
}

impl From<rusqlite::Error> for CopyFailure {
    fn from(error: rusqlite::Error) -> CopyFailure {
        CopyFailure::Engine(error)
    }
}

/// Copies all pages that a read transaction sees into a draft.
fn copy_all(from: &Connection, draft: &Draft, slowly: bool) -> Result<(), CopyFailure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(draft.path(), flags)?;
    // A draft that is not complete is thrown away.
    to.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")?;
    let copying = Backup::new(from, &mut to)?;
    loop {
        let began = Instant::now();
        let step = copying.step(STEP)?;
        draft.file().sync_data().map_err(CopyFailure::Disk)?;
        reached("backup pages copied");
        match step {
            StepResult::Done => break,
            // The writers want the disk, too. With a rollback journal they wait for the end, and so it should come soon.
            StepResult::More if slowly => sleep(began.elapsed() / 2),
            StepResult::More => {}
            // Nobody else has the draft, and the transaction has its lock.
            _ => return Err(CopyFailure::Disk(io::Error::other("the new file is locked"))),
        }
    }
    drop(copying);
    to.close().map_err(|(_, error)| CopyFailure::Engine(error))
}

/// Whether SQLite could not write.
fn writes_failed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map_or(0, |failure| failure.extended_code);
    [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_TRUNCATE].contains(&code)
}

/// Copies all pages of a backup into a draft next to a store, and searches the draft for damaged pages. Changes nothing at the backup, but
/// where a WAL belongs to it SQLite needs an index next to it.
pub(in crate::store) fn copy_in(from: &Path, store: &Path) -> Result<Draft> {
    let fail = |error: io::Error| cannot_restore(store, &error);
    refuse_source(from, store)?;
    let folder = store.parent().unwrap_or(Path::new("/"));
    let draft = Draft::make(folder).map_err(fail)?;
    let file = without_links(from);
    let has_wal = fs::metadata(with_suffix(&file, "-wal")).is_ok_and(|wal| wal.len() > 0);
    let unreadable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            Error::new(Kind::Invalid, format!("`{}` is not a SQLite database", from.display())).with_hint(NAME_A_BACKUP)
        }
        _ => of_backup(from, explain(from, error)),
    };
    let source = if has_wal {
        Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
    } else {
        open_unchanging(&file)
    };
    let source = source.map_err(unreadable)?;
    source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema").map_err(unreadable)?;
    copy_all(&source, &draft, false).map_err(|failure| match failure {
        CopyFailure::Disk(error) => fail(error),
        CopyFailure::Engine(error) if writes_failed(&error) => fail(ErrorKind::StorageFull.into()),
        CopyFailure::Engine(error) => unreadable(error),
    })?;
    reached("restore pages copied");
    let damage = first_damage(draft.path()).map_err(unreadable)?;
    match damage {
        None => Ok(draft),
        Some(damage) => Err(damaged_backup(from, &damage)),
    }
}

/// Refuses what is no file, what belongs to the store itself, and a backup of which a part is missing.
fn refuse_source(from: &Path, store: &Path) -> Result<()> {
    let show = from.display();
    let meta = match fs::metadata(from) {
        Ok(meta) if meta.is_file() => meta,
        Ok(_) => {
            return Err(Error::new(Kind::Invalid, format!("`{show}` is not a file")).with_hint(NAME_A_BACKUP));
        }
        Err(error) => {
            let kind = if error.kind() == ErrorKind::NotFound { Kind::NotFound } else { Kind::Denied };
            return Err(Error::new(kind, format!("cannot read the backup `{show}`: {}", reason(&error)))
                .with_hint(NAME_A_BACKUP));
        }
    };
    if fs::metadata(store).is_ok_and(|store| (store.dev(), store.ino()) == (meta.dev(), meta.ino())) {
        return Err(Error::new(Kind::Denied, format!("`{show}` is the store itself")).with_hint(NAME_A_BACKUP));
    }
    if meta.len() == 0 {
        return Err(Error::new(Kind::Invalid, format!("`{show}` is empty")).with_hint(NAME_A_BACKUP));
    }
    let journal = with_suffix(&without_links(from), "-journal");
    if fs::metadata(&journal).is_ok_and(|journal| journal.len() > 0) {
        return Err(Error::new(
            Kind::Invalid,
            format!("`{show}` is in the middle of a change, which `{}` would undo", journal.display()),
        )
        .with_hint(format!("make a backup of it first: `asyncq --db '{show}' backup FILE`")));
    }
    Ok(())
}

/// Refuses a target that is there, and a name that belongs to another database.
fn refuse_target(target: &Path) -> Result<()> {
    let show = target.display();
    if fs::symlink_metadata(target).is_ok() {
        return Err(Error::new(Kind::Denied, format!("`{show}` is there, and a backup replaces nothing"))
            .with_hint("name another file, or a folder, in which each backup gets a name of its own"));
    }
    let name = target.file_name().unwrap_or_default().as_bytes();
    if let Some(end) = SIDECARS.into_iter().chain(TAKEN).find(|end| name.ends_with(end.as_bytes())) {
        return Err(Error::new(
            Kind::Denied,
            format!("`{show}` is a name for a part of a database, by its end `{end}`"),
        )
        .with_hint("name another file"));
    }
    let in_run_folder = target
        .parent()
        .is_some_and(|folder| without_links(folder).iter().any(|part| part.as_bytes().ends_with(b"-asyncq")));
    if in_run_folder {
        return Err(Error::new(Kind::Denied, format!("`{show}` is in the run folder of a store"))
            .with_hint("processors remove what is there: name another folder"));
    }
    refuse_leftovers(target)
}

/// The error for a backup that could not be written.
fn cannot_back_up(target: &Path, error: &io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        _ if is_full(error) => (Kind::Full, "nothing is left of it; make room, or name another place"),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (Kind::Denied, "asyncq must be able to write the folder of the backup")
        }
        ErrorKind::AlreadyExists => (Kind::Denied, "somebody has just made this file: name another one"),
        ErrorKind::NotFound | ErrorKind::NotADirectory => (Kind::NotFound, "make its folder first, with `mkdir`"),
        _ => (Kind::Io, "nothing is left of it; look at the disk, or name another place"),
    };
    Error::new(kind, format!("cannot write the backup `{}`: {}", target.display(), reason(error))).with_hint(hint)
}

/// Opens a file that nobody else writes, and leaves nothing next to it.
fn open_unchanging(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02x}"));
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(uri, flags)
}

/// Refuses a copy in which SQLite finds damage: the store has it too. Looks at the pages, and not whether each index has
/// an entry for each row, as `asyncq init` does.
fn refuse_damage(copy: &Path) -> Result<()> {
    let found = first_damage(copy).map_err(|error| explain(copy, error))?;
    found.map_or(Ok(()), |found| Err(damaged(&found)))
}

fn first_damage(copy: &Path) -> rusqlite::Result<Option<String>> {
    let connection = open_unchanging(copy)?;
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for table in ["sqlite_schema".to_owned()].into_iter().chain(tables) {
        let check = format!("PRAGMA quick_check('{}')", table.replace('\'', "''"));
        match connection.query_row(&check, [], |row| row.get::<_, String>(0)) {
            Ok(found) if found == "ok" => {}
            Ok(found) => return Ok(Some(found)),
            // Only the application has its functions and collations.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) && !is_own(&table) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
