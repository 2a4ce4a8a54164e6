//! SQLite behind the seam.
//!
//! Invariant: nothing but SQLite ever opens the database file, its `-wal` or its `-shm`: closing any descriptor of
//! them would drop the locks that SQLite holds for this process. Whatever must be known about them is asked by `stat`.

mod checkpoint;
mod encoding;
pub(super) mod errors;
pub(super) mod filesystem;
mod identity;
mod lock_owner;
pub(super) mod new_file;
pub(super) mod permissions;
mod rules;
mod schema_text;
mod tx;
mod wal_index;
mod write_queue;

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, ffi};

use super::engine::{Engine, Mode, Patience, Trouble, Tx};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;

use encoding::Encoding;
use errors::explain;
use identity::StoreFile;
use new_file::run_folder;
use tx::SqliteTx;
use wal_index::is_misled;
use write_queue::WriteQueue;

/// The oldest SQLite that does not lose commits when one connection writes while another one resets the WAL
/// (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST: i32 = 3_051_003;

/// After how many commits it is taken that a disk that was full is so no more. Until then each of them is copied into the
/// database file: a WAL that grows would take all the space there is, and leave none to copy it to.
const SCARCE_COMMITS: u32 = 100;

/// Reads, and gives no row.
const TAKE_A_LOOK: &str = "SELECT 1 FROM sqlite_schema WHERE 0";

/// After how many tries to get a lock it is looked whether the file is still there: about 0.1 s.
const LOOK_AT_FILE: i32 = 100;

/// The number of milliseconds that stands for [`Patience::Endless`].
const ENDLESS: u64 = u64::MAX;

/// One connection to one SQLite file.
pub(in crate::store) struct Sqlite {
    connection: Connection,
    /// The path that was asked for, maybe through links: what errors call it.
    path: PathBuf,
    /// The file at `path`, shared with the busy handler.
    file: Arc<StoreFile>,
    /// Whether SQLite has been seen to have this very file open.
    is_known: Cell<bool>,
    /// Where writers wait in line.
    line: WriteQueue,
    /// How long to wait for locks, in milliseconds; shared with the busy handler.
    patience: Arc<AtomicU64>,
    /// How many pages the WAL had after the latest commit, as SQLite told the WAL hook.
    wal_pages: Arc<AtomicI32>,
    /// How many pages the WAL had when a checkpoint was last tried.
    tried_at: i32,
    commits: u32,
    /// How many commits will do with little space, since the disk was full.
    scarce: u32,
    /// Who is told how a checkpoint failed.
    trouble: Trouble,
    data_version: i64,
    /// Whether triggers run; SQLite's default.
    triggers: bool,
    /// How the database keeps text, once that was asked.
    encoding: OnceCell<Encoding>,
    /// Whether the application has a trigger on a table, and in which state of the whole schema that was looked up.
    foreign_trigger: RefCell<Option<(i64, String, bool)>>,
}

impl Sqlite {
    /// Opens a file that exists; gives none where it was not there a moment ago, or those who use it are misled about its WAL.
    /// `path` is absolute.
    fn open_once(path: &Path, patience: Patience) -> Result<Option<Sqlite>> {
        let version = rusqlite::version_number();
        if version < OLDEST {
            let message = format!("SQLite {} loses commits under load", rusqlite::version());
            return Err(Error::new(Kind::Unreachable, message).with_hint("build asyncq with SQLite 3.51.3 or later"));
        }
        let file = StoreFile::find(path)?;
        super::sqlite::new_file::refuse_long(file.path(), 0)?;
        super::sqlite::new_file::refuse_emptied(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match Connection::open_with_flags(file.path(), flags) {
            Ok(connection) => connection,
            Err(_) if !file.was_there() && path.exists() => return Ok(None),
            Err(error) => return Err(file.replaced().unwrap_or_else(|| explain(path, error))),
        };
        let mut engine = Sqlite {
            connection,
            line: WriteQueue::at(&run_folder(file.path())),
            path: path.to_owned(),
            file: Arc::new(file),
            is_known: Cell::default(),
            patience: Arc::default(),
            wal_pages: Arc::default(),
            tried_at: 0,
            commits: 0,
            scarce: 0,
            trouble: Box::new(|_| ()),
            data_version: 0,
            triggers: true,
            encoding: OnceCell::new(),
            foreign_trigger: RefCell::default(),
        };
        engine.be_patient(patience);
        match engine.configure().and_then(|()| engine.has_its_index()) {
            Ok(true) => Ok(Some(engine)),
            Ok(false) => Ok(None),
            Err(error) if is_misled(&error) => Ok(None),
            Err(error) => Err(engine.or_moved(explain(&engine.path, error))),
        }
    }

    /// The path of the file, without links.
    pub(in crate::store) fn path(&self) -> &Path {
        self.file.path()
    }

    fn configure(&mut self) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.set_prepared_statement_cache_capacity(64);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Otherwise statements are compiled anew whenever a parameter changes that might concern a partial index.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // A checkpoint on close would be one that nobody checks; ours follow commits and report their errors.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
        let (patience, file) = (Arc::clone(&self.patience), Arc::clone(&self.file));
        let mut since = Instant::now();
        connection.busy_handler(Some(move |tries| {
            if tries == 0 {
                since = Instant::now();
            }
            // Nobody needs to wait for a file that is not there any more.
            let lost = tries % LOOK_AT_FILE == LOOK_AT_FILE - 1 && file.check_name().is_err();
            !lost && wait(since, patience.load(Ordering::Relaxed))
        }))?;
        let pages = Arc::clone(&self.wal_pages);
        // This also switches the automatic checkpoints off: SQLite makes them with a WAL hook of its own.
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        // With a WAL, EXTRA is FULL. With an application's rollback journal, deleting that is the commit, and only EXTRA has
        // the disk keep it.
        let settings = "PRAGMA synchronous=EXTRA; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;";
        self.patiently(|| self.connection.execute_batch(settings))
    }

    /// Switches a file that asyncq made itself to write-ahead logging.
    pub(in crate::store) fn use_wal(&mut self) -> Result<()> {
        // To its very end, where it commits: what it gives before that is only the mode that it wants.
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

    /// Moves everything into the database file and ends the connection, leaving no `-wal` behind.
    pub(in crate::store) fn close(self) -> Result<()> {
        let fail = |error| explain(&self.path, error);
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(fail)?;
        self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE).map_err(fail)?;
        self.connection.close().map_err(|(_, error)| explain(&self.path, error))
    }

    /// Does what takes a lock. Races between openers are for the busy handler too, but SQLite does not call it for them.
    fn patiently<T>(&self, work: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let since = Instant::now();
        loop {
            match work() {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::FileLockingProtocolFailed)
                        && wait(since, self.patience.load(Ordering::Relaxed)) => {}
                done => return done,
            }
        }
    }

    fn command(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.raw_execute().map(|_| ())
    }

    fn begin(&mut self, mode: Mode) -> Result<()> {
        let begun = match mode {
            Mode::Write => self.begin_in_turn(),
            // Only the first statement that reads takes a lock.
            Mode::Read => self.command("BEGIN").and_then(|()| self.patiently(|| self.command(TAKE_A_LOOK))),
        };
        begun.map_err(|error| self.fail(error))?;
        // Before its commit a write looks anyway.
        if mode == Mode::Write && self.is_known.get() { Ok(()) } else { self.still_there() }
    }

    fn begin_in_turn(&mut self) -> rusqlite::Result<()> {
        let (since, patience) = (Instant::now(), self.patience.load(Ordering::Relaxed));
        let _turn = self.line.wait_for_turn(Duration::from_millis(patience));
        if patience != ENDLESS {
            let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(ENDLESS);
            self.patience.store(patience.saturating_sub(waited), Ordering::Relaxed);
        }
        let begun = self.patiently(|| self.command("BEGIN IMMEDIATE"));
        self.patience.store(patience, Ordering::Relaxed);
        begun
    }

    fn commit(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut tx = SqliteTx { engine: self, now: Timestamp(crate::domain::time::millis(now)) };
        work(&mut tx)?;
        if mode == Mode::Write {
            self.file.check()?;
            self.keep_names()?;
            reached("transaction done");
        }
        let done = self.command("COMMIT");
        let error = done.as_ref().err().and_then(rusqlite::Error::sqlite_error);
        if error.is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
            self.clear_away();
        }
        done.map_err(|error| self.fail(error))
    }

    fn try_once(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        let begun = self.begin(mode);
        if begun.is_ok() && mode == Mode::Write {
            reached("transaction begun");
        }
        let done = begun.and_then(|()| self.commit(mode, work));
        if done.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to report; a connection that cannot roll back loses the transaction anyway.
            let _ = self.command("ROLLBACK");
        }
        done.map_err(|error| self.or_moved(error))
    }
}

impl Engine for Sqlite {
    fn transact(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        match self.try_once(mode, work) {
            // The WAL cannot grow; but it may hold only what can be copied into the database file, in whose place there is
            // room then.
            Err(error) if mode == Mode::Write && error.kind() == Kind::Full => {
                self.scarce = SCARCE_COMMITS;
                if !self.empty_wal(CheckpointMode::PASSIVE)? {
                    return Err(error);
                }
                self.try_once(mode, work)?;
            }
            done => done?,
        }
        if mode == Mode::Write {
            reached("transaction committed");
            self.file.check()?;
            if let Err(error) = self.checkpoint() {
                (self.trouble)(&error.with_hint("what was done is safe; look at the disk"));
            }
        }
        Ok(())
    }

    fn be_patient(&mut self, patience: Patience) {
        self.patience.store(millis(patience), Ordering::Relaxed);
    }

    fn on_trouble(&mut self, trouble: Trouble) {
        self.trouble = trouble;
    }

    fn use_triggers(&mut self, on: bool) -> Result<()> {
        if self.triggers != on {
            let config = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
            self.connection.set_db_config(config, on).map_err(|error| explain(&self.path, error))?;
            self.triggers = on;
        }
        Ok(())
    }

    fn measure_without_disk(&mut self) -> Result<()> {
        self.patiently(|| self.connection.execute_batch("PRAGMA synchronous=NORMAL")).map_err(|error| self.fail(error))
    }

    fn look_where_it_is(&self) -> Result<()> {
        self.still_there()
    }

    fn changed(&mut self) -> Result<bool> {
        let ask = || self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        let version = self.patiently(ask).map_err(|error| self.fail(error))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }
}

fn millis(patience: Patience) -> u64 {
    match patience {
        Patience::Deadline(time) => u64::try_from(time.as_millis()).unwrap_or(ENDLESS - 1),
        Patience::Endless => ENDLESS,
    }
}

/// Sleeps a little unless `millis` have passed since `since`; says whether to try again. A short, even pause: growing
/// ones starve whoever has waited longest.
fn wait(since: Instant, millis: u64) -> bool {
    if millis != ENDLESS && since.elapsed() >= Duration::from_millis(millis) {
        return false;
    }
    let jitter = since.elapsed().subsec_nanos() % 1_000_000;
    std::thread::sleep(Duration::from_nanos(500_000 + u64::from(jitter)));
    true
}
