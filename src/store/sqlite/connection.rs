//! One connection to a SQLite file: how to open it, how it waits, and what its errors mean.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, FileControl, MAIN_DB, OpenFlags};
use rusqlite::{config::DbConfig, wal::CheckpointMode};

use super::errors::{explain, is_misled, moved};
use super::files::{refuse_long, run_folder};
use super::identity::{StoreFile, refuse_emptied};
use super::steps::{SCHEMA, Schema};
use super::{row::Encoding, still::Still, write_queue::WriteQueue};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::store::engine::{Engine, Patience, Trouble};

/// The oldest SQLite that does not lose commits when one connection writes while another one resets the WAL
/// (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST: i32 = 3_051_003;

/// After how many attempts to get a lock to check whether the file is still there: about 0.1 s.
const LOOK_AT_FILE: i32 = 100;

/// The number of milliseconds that stands for [`Patience::Endless`].
pub(super) const ENDLESS: u64 = u64::MAX;

/// One connection to one SQLite file.
pub(in crate::store) struct Sqlite {
    pub(super) connection: Connection,
    /// The path as somebody gave it, which may contain links. Errors name it.
    pub(super) path: PathBuf,
    /// The file at `path`, shared with the busy handler.
    pub(super) file: Arc<StoreFile>,
    /// Whether SQLite is known to have this very file open.
    pub(super) is_known: Cell<bool>,
    pub(super) queue: WriteQueue,
    /// How long to wait for locks, in milliseconds; shared with the busy handler.
    pub(super) patience: Arc<AtomicU64>,
    pub(super) wal: Wal,
    /// Receives the error of a checkpoint that failed.
    pub(super) trouble: Trouble,
    pub(super) data_version: i64,
    /// Whether triggers run; SQLite's default.
    pub(super) triggers: bool,
    /// The latest time that a processor has seen, as the store had it when this transaction began.
    pub(super) clock: Cell<Timestamp>,
    /// What the store uses, in the same way.
    pub(super) used: Cell<i64>,
    /// Whether it is paused, in the same way.
    pub(super) paused: Cell<bool>,
    /// How the database keeps text, once that was asked.
    pub(super) encoding: OnceCell<Encoding>,
    /// How the database keeps text, once somebody has asked.
    pub(super) foreign_trigger: Cell<Option<(i64, bool)>>,
    /// The schema that this build works with.
    pub(super) schema: Schema,
    /// The file, if SQLite was told that nobody changes it.
    pub(super) still: Option<Still>,
}

/// The WAL as a connection knows it.
#[derive(Default)]
pub(super) struct Wal {
    /// How many pages it had after the latest commit, as SQLite told the WAL hook.
    pub(super) pages: Arc<AtomicI32>,
    /// How many pages it had when a checkpoint was last tried.
    pub(super) tried_at: i32,
    pub(super) commits: u32,
    /// For how many more commits to take little space, because the disk was full.
    pub(super) scarce: u32,
}

/// The schema that this build works with.
fn schema_of_this_build() -> Schema {
    #[cfg(debug_assertions)]
    if crate::failpoint::plays_a_newer_build() {
        return super::future::SCHEMA;
    }
    SCHEMA
}

impl Sqlite {
    /// Opens a file that exists. Returns nothing if it was missing a moment ago, or if its users are misled about its WAL. `path`
    /// is absolute.
    pub(super) fn open_once(path: &Path, patience: Patience) -> Result<Option<Sqlite>> {
        let version = rusqlite::version_number();
        if version < OLDEST {
            let message = format!("SQLite {} loses commits under load", rusqlite::version());
            return Err(Error::new(Kind::Unreachable, message).with_hint("build asyncq with SQLite 3.51.3 or later"));
        }
        let file = StoreFile::find(path)?;
        refuse_long(&file.path, 0)?;
        refuse_emptied(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match Connection::open_with_flags(&file.path, flags) {
            Ok(connection) => connection,
            Err(_) if !file.was_there && path.exists() => return Ok(None),
            Err(error) => return Err(file.replaced().unwrap_or_else(|| explain(path, error))),
        };
        let mut engine = Sqlite::over(connection, path, file);
        engine.be_patient(patience);
        match engine.configure().and_then(|()| engine.has_its_index()) {
            Ok(true) => Ok(Some(engine)),
            Ok(false) => Ok(None),
            // If the index describes the right WAL, the store itself is cut short.
            Err(error) if is_misled(&error) && !engine.has_its_index().unwrap_or(false) => Ok(None),
            Err(error) => Err(engine.or_moved(explain(&engine.path, error))),
        }
    }

    /// A connection that is not configured yet, to a file that was asked for at `path`.
    pub(super) fn over(connection: Connection, path: &Path, file: StoreFile) -> Sqlite {
        Sqlite {
            connection,
            queue: WriteQueue::at(&run_folder(&file.path)),
            path: path.to_owned(),
            file: Arc::new(file),
            is_known: Cell::default(),
            patience: Arc::default(),
            wal: Wal::default(),
            trouble: Box::new(|_| ()),
            data_version: 0,
            triggers: true,
            clock: Cell::default(),
            used: Cell::default(),
            paused: Cell::default(),
            encoding: OnceCell::new(),
            foreign_trigger: Cell::default(),
            schema: schema_of_this_build(),
            still: None,
        }
    }

    pub(super) fn configure(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.set_prepared_statement_cache_capacity(64);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Otherwise, statements are compiled anew whenever a parameter changes that might concern a partial index.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // Nobody would check a checkpoint on close. Ours follow commits and report their errors.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
        let (patience, file) = (Arc::clone(&self.patience), Arc::clone(&self.file));
        let mut since = Instant::now();
        connection.busy_handler(Some(move |tries| {
            if tries == 0 {
                since = Instant::now();
            }
            // Nobody needs to wait for a file that is gone.
            let lost = tries % LOOK_AT_FILE == LOOK_AT_FILE - 1 && file.check_name().is_err();
            !lost && wait(since, patience.load(Ordering::Relaxed))
        }))?;
        let pages = Arc::clone(&self.wal.pages);
        // This also turns off automatic checkpoints, because SQLite makes them with its own WAL hook.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        // With a WAL, EXTRA is the same as FULL. With an application's rollback journal, deleting the journal is the commit, and
        // only EXTRA syncs that.
        let settings = "PRAGMA synchronous=EXTRA; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;";
        self.patiently(|| self.connection.execute_batch(settings))
    }

    /// Switches a file that asyncq has made to write-ahead logging.
    pub(in crate::store) fn use_wal(&mut self) -> Result<()> {
        // It runs to the very end, where it commits. Before that, it only returns the mode that it wants.
        let switch = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare("PRAGMA journal_mode=WAL")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        let modes = switch().map_err(|error| explain(&self.path, error))?;
        if modes == ["wal"] {
            return Ok(());
        }
        let message = format!("the store `{}` cannot use write-ahead logging here", self.path.display());
        Err(Error::new(Kind::Io, message).with_hint("put the store on a local file system"))
    }

    /// Moves everything into the database file and closes the connection. Leaves no `-wal` behind.
    pub(in crate::store) fn close(self) -> Result<()> {
        let fail = |error| explain(&self.path, error);
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(fail)?;
        self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE).map_err(fail)?;
        self.connection.close().map_err(|(_, error)| explain(&self.path, error))
    }

    /// Does something that takes a lock. The busy handler is meant for races between openers too, but SQLite does not call it for
    /// them.
    pub(super) fn patiently<T>(&self, work: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.retry_on(ErrorCode::FileLockingProtocolFailed, work)
    }

    /// Repeats what fails with this error, as long as this connection is patient.
    pub(super) fn retry_on<T>(&self, code: ErrorCode, work: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let since = Instant::now();
        loop {
            match work() {
                Err(error)
                    if error.sqlite_error_code() == Some(code)
                        && wait(since, self.patience.load(Ordering::Relaxed)) => {}
                done => return done,
            }
        }
    }

    /// Checks that SQLite has the file open that the path names. After the first time, that holds as long as the path names this
    /// file.
    pub(super) fn still_there(&self) -> Result<()> {
        if !self.is_known.get() {
            let mut has_moved = 0;
            self.connection
                .file_control(Some(MAIN_DB), FileControl::HasMoved(&mut has_moved))
                .map_err(|error| explain(&self.path, error))?;
            if has_moved != 0 {
                return Err(moved("the store", &self.path));
            }
        }
        self.file.check()?;
        self.is_known.set(true);
        Ok(())
    }

    /// An error in asyncq's words. If the file is gone, that was the reason for the wait, and not a lock.
    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        let busy = error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        let gone = if busy { self.file.check_name().err() } else { None };
        gone.or_else(|| self.rule_behind(&error)).unwrap_or_else(|| explain(&self.path, error))
    }

    /// The error to report. If another file has replaced this one, this file together with the other's WAL looks damaged.
    pub(super) fn or_moved(&self, error: Error) -> Error {
        let disk_fails = matches!(error.kind(), Kind::Io | Kind::Full);
        let moved = if disk_fails { None } else { self.still_there().err() };
        moved.unwrap_or(error)
    }

    pub(super) fn command(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.raw_execute().map(|_| ())
    }

    pub(super) fn use_triggers(&mut self, on: bool) -> Result<()> {
        if self.triggers != on {
            let config = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
            self.connection.set_db_config(config, on).map_err(|error| explain(&self.path, error))?;
            self.triggers = on;
        }
        Ok(())
    }
}

pub(super) fn millis(patience: Patience) -> u64 {
    match patience {
        Patience::Deadline(time) => u64::try_from(time.as_millis()).unwrap_or(ENDLESS - 1),
        Patience::Endless => ENDLESS,
    }
}

/// Sleeps a little, unless `millis` have passed since `since`. Returns whether to try again. The pause is short and always the
/// same, because growing pauses starve the process that has waited longest.
pub(super) fn wait(since: Instant, millis: u64) -> bool {
    if millis != ENDLESS && since.elapsed() >= Duration::from_millis(millis) {
        return false;
    }
    let jitter = since.elapsed().subsec_nanos() % 1_000_000;
    std::thread::sleep(Duration::from_nanos(500_000 + u64::from(jitter)));
    true
}
