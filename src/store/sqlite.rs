//! SQLite behind the seam.
//!
//! Invariant: only SQLite opens the database file, its `-wal` or its `-shm`: closing any descriptor of them would drop
//! the locks that SQLite holds for this process. asyncq learns everything else about them by `stat`.

mod checkpoint;
mod encoding;
mod errors;
mod filesystem;
#[cfg(debug_assertions)]
mod future;
mod identity;
mod integrity;
mod lock_owner;
mod mend;
mod migrate;
pub(super) mod new_file;
pub(super) mod permissions;
#[cfg(test)]
pub(super) mod plan;
mod row;
mod rules;
pub(super) mod schema_script;
mod schema_text;
mod tx;
mod wal_index;
mod watch;
mod write_queue;

use std::cell::{Cell, OnceCell};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};

use super::engine::{Engine, Mode, Patience, Trouble, Tx, Watch};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;

use checkpoint::{SCARCE_COMMITS, Wal};
use encoding::Encoding;
use errors::explain;
use identity::StoreFile;
use migrate::Schema;
use wal_index::is_misled;
use write_queue::WriteQueue;

/// The oldest SQLite that does not lose commits when one connection writes while another one resets the WAL
/// (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST: i32 = 3_051_003;

/// After how many tries to get a lock to check whether the file is still there: about 0.1 s.
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
    queue: WriteQueue,
    /// How long to wait for locks, in milliseconds; shared with the busy handler.
    patience: Arc<AtomicU64>,
    wal: Wal,
    /// Receives the error of a checkpoint that failed.
    trouble: Trouble,
    data_version: i64,
    /// Whether triggers run; SQLite's default.
    triggers: bool,
    /// How the database keeps text, once that was asked.
    encoding: OnceCell<Encoding>,
    /// Whether the application has a trigger on the jobs, and in which state of the whole schema that was looked up.
    foreign_trigger: Cell<Option<(i64, bool)>>,
    /// The schema that this build works with.
    schema: Schema,
}

/// Opens the store in a file, unless this user cannot use it without harm to others.
pub(super) fn connect(path: &Path, patience: Patience) -> Result<Box<dyn Engine>> {
    permissions::allow_use(path)?;
    reached("store looked at");
    Ok(Box::new(Sqlite::open(path, patience)?))
}

/// The name of the engine, with the version that is built in.
pub(super) fn name() -> String {
    format!("SQLite {}", rusqlite::version())
}

impl Sqlite {
    /// Opens a file that exists; returns none if it was not there a moment ago, or if its users are misled about its WAL.
    /// `path` is absolute.
    fn open_once(path: &Path, patience: Patience) -> Result<Option<Sqlite>> {
        let version = rusqlite::version_number();
        if version < OLDEST {
            let message = format!("SQLite {} loses commits under load", rusqlite::version());
            return Err(Error::new(Kind::Unreachable, message).with_hint("build asyncq with SQLite 3.51.3 or later"));
        }
        let file = StoreFile::find(path)?;
        new_file::refuse_long(file.path(), 0)?;
        new_file::refuse_emptied(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match Connection::open_with_flags(file.path(), flags) {
            Ok(connection) => connection,
            Err(_) if !file.was_there() && path.exists() => return Ok(None),
            Err(error) => return Err(file.replaced().unwrap_or_else(|| explain(path, error))),
        };
        let mut engine = Sqlite {
            connection,
            queue: WriteQueue::at(&new_file::run_folder(file.path())),
            path: path.to_owned(),
            file: Arc::new(file),
            is_known: Cell::default(),
            patience: Arc::default(),
            wal: Wal::default(),
            trouble: Box::new(|_| ()),
            data_version: 0,
            triggers: true,
            encoding: OnceCell::new(),
            foreign_trigger: Cell::default(),
            schema: Schema::of_this_build(),
        };
        engine.be_patient(patience);
        match engine.configure().and_then(|()| engine.has_its_index()) {
            Ok(true) => Ok(Some(engine)),
            Ok(false) => Ok(None),
            Err(error) if is_misled(&error) => Ok(None),
            Err(error) => Err(engine.or_moved(explain(&engine.path, error))),
        }
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
            // Nobody needs to wait for a file that is gone.
            let lost = tries % LOOK_AT_FILE == LOOK_AT_FILE - 1 && file.check_name().is_err();
            !lost && wait(since, patience.load(Ordering::Relaxed))
        }))?;
        let pages = Arc::clone(&self.wal.pages);
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

    fn use_triggers(&mut self, on: bool) -> Result<()> {
        if self.triggers != on {
            let config = DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
            self.connection.set_db_config(config, on).map_err(|error| explain(&self.path, error))?;
            self.triggers = on;
        }
        Ok(())
    }
}

impl Engine for Sqlite {
    fn transact(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        match self.try_once(mode, work) {
            // The WAL cannot grow; but it may hold only what can be copied into the database file, in whose place there is
            // room then.
            Err(error) if mode != Mode::Read && error.kind() == Kind::Full => {
                self.wal.scarce = SCARCE_COMMITS;
                if !self.empty_wal(CheckpointMode::PASSIVE)? {
                    return Err(error);
                }
                self.try_once(mode, work)?;
            }
            done => done?,
        }
        if mode != Mode::Read {
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

    fn measure_without_disk(&mut self) -> Result<()> {
        self.patiently(|| self.connection.execute_batch("PRAGMA synchronous=NORMAL")).map_err(|error| self.fail(error))
    }

    fn still_there(&self) -> Result<()> {
        self.still_there()
    }

    fn changed(&mut self) -> Result<bool> {
        let ask = || self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        let version = self.patiently(ask).map_err(|error| self.fail(error))?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    fn watch(&self) -> io::Result<Watch> {
        watch::watch(self.file.path())
    }

    fn run_folder(&self) -> PathBuf {
        new_file::run_folder(self.file.path())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(self.file.path())
    }

    fn only_root_can_change(&self) -> Result<()> {
        permissions::refuse_changeable(&self.path, self.file.path())
    }

    fn remove_run_folder(&self) {
        let folder = self.run_folder();
        // Nothing depends on the write queue.
        let _ = fs::remove_file(folder.join(write_queue::FILE));
        let _ = fs::remove_dir(folder);
    }
}

fn millis(patience: Patience) -> u64 {
    match patience {
        Patience::Deadline(time) => u64::try_from(time.as_millis()).unwrap_or(ENDLESS - 1),
        Patience::Endless => ENDLESS,
    }
}

/// Sleeps a little unless `millis` have passed since `since`; returns whether to try again. A short, even pause: growing
/// pauses starve the process that has waited longest.
fn wait(since: Instant, millis: u64) -> bool {
    if millis != ENDLESS && since.elapsed() >= Duration::from_millis(millis) {
        return false;
    }
    let jitter = since.elapsed().subsec_nanos() % 1_000_000;
    std::thread::sleep(Duration::from_nanos(500_000 + u64::from(jitter)));
    true
}

/// Runs `work` in the first transaction of a new store.
#[cfg(test)]
pub(super) fn in_a_new_store(work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    fs::write(&path, "").unwrap();
    let mut engine = Sqlite::open(&path, Patience::Endless).unwrap();
    let done = engine.transact(Mode::Write(super::engine::Triggers::None), &mut |tx| {
        tx.bring()?;
        work(tx)
    });
    done.unwrap();
}
