//! A transaction of SQLite's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{borrow::Cow, sync::atomic::Ordering};

use rusqlite::ffi;

use super::connection::{ENDLESS, Sqlite};
use super::errors::{WAY_OUT_OF_DAMAGE, damaged};
use super::files::{with_suffix, without_links};
use super::row::Encoding;
use crate::domain::diagnosis::LostReferences;
use crate::domain::time::{Timestamp, millis};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::store::engine::{Mode, Reference, Row, Triggers, Tx, Value, rule_refuses};
use crate::store::schema::{Copied, Mended, SchemaFound};

/// The schema's triggers recognize asyncq by a version below 0, which nobody else ever sees.
const TURN_VERSION: &str = "UPDATE asyncq_schema SET version = -version";

/// The greatest number that a row of a table has ever had.
const NEWEST: &str = "SELECT seq FROM sqlite_sequence WHERE name = ?1";

/// One transaction of a connection.
pub(super) struct SqliteTx<'a> {
    pub(super) engine: &'a Sqlite,
    now: Timestamp,
    found: SchemaFound,
    /// Whether the schema's triggers already know that asyncq writes.
    is_known: bool,
}

impl SqliteTx<'_> {
    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        self.engine.fail(error)
    }

    /// Whether the transaction goes on, with the rows as they were after this many changes.
    fn is_as_of(&self, changes: u64) -> bool {
        !self.engine.connection.is_autocommit() && self.engine.connection.total_changes() == changes
    }

    /// Makes the schema's triggers, if they run, let this transaction do more than clients may do.
    fn introduce(&mut self) -> Result<()> {
        if self.engine.triggers && self.found == SchemaFound::Current {
            self.turn_version()?;
            self.is_known = true;
        }
        Ok(())
    }

    fn turn_version(&mut self) -> Result<()> {
        self.execute(TURN_VERSION, &[]).map(|_| ())
    }

    /// Runs a script without parameters.
    pub(super) fn script(&self, sql: &str) -> Result<()> {
        self.engine.connection.execute_batch(sql).map_err(|error| self.fail(error))
    }
}

impl Sqlite {
    fn begin(&mut self, mode: Mode) -> Result<SchemaFound> {
        let begun = match mode {
            Mode::Write(_) => self.begin_in_turn(),
            Mode::Read => self.command("BEGIN"),
        };
        begun.map_err(|error| self.fail(error))?;
        // In a transaction that reads, this takes the lock.
        let found = self.look()?;
        // Before its commit a write looks anyway.
        if mode == Mode::Read || !self.is_known.get() {
            self.still_there()?;
        }
        Ok(found)
    }

    /// Keeps everybody else from writing, until it is dropped.
    pub(super) fn locked(mut self) -> Result<Sqlite> {
        match self.begin_in_turn() {
            Ok(()) => Ok(self),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn begin_in_turn(&mut self) -> rusqlite::Result<()> {
        let (since, patience) = (Instant::now(), self.patience.load(Ordering::Relaxed));
        let _turn = self.queue.wait_for_turn(Duration::from_millis(patience));
        if patience != ENDLESS {
            let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(ENDLESS);
            self.patience.store(patience.saturating_sub(waited), Ordering::Relaxed);
        }
        let begun = self.patiently(|| self.command("BEGIN IMMEDIATE"));
        self.patience.store(patience, Ordering::Relaxed);
        begun
    }

    /// Runs the work of a transaction that has begun, and commits.
    fn commit(
        &mut self,
        mode: Mode,
        found: SchemaFound,
        work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>,
    ) -> Result<()> {
        if mode == Mode::Write(Triggers::IfForeign) {
            let has_some = self.has_foreign_trigger().map_err(|error| self.fail(error))?;
            self.use_triggers(has_some)?;
        }
        let is_write = mode != Mode::Read;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut tx = SqliteTx { engine: self, now: Timestamp(millis(now)), found, is_known: false };
        if is_write {
            tx.introduce()?;
            work(&mut tx)?;
            if tx.is_known {
                tx.turn_version()?;
            }
            self.file.check()?;
            self.keep_names()?;
            reached("transaction done");
        } else {
            work(&mut tx)?;
        }
        let done = self.command("COMMIT");
        let error = done.as_ref().err().and_then(rusqlite::Error::sqlite_error);
        if error.is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
            self.clear_away();
        }
        done.map_err(|error| self.fail(error))
    }

    /// Tries to run a transaction.
    pub(super) fn try_once(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()> {
        match mode {
            Mode::Write(Triggers::All) => self.use_triggers(true)?,
            Mode::Write(Triggers::None) => self.use_triggers(false)?,
            Mode::Write(Triggers::IfForeign) | Mode::Read => {}
        }
        let begun = self.begin(mode);
        if begun.is_ok() && mode != Mode::Read {
            reached("transaction begun");
        }
        let done = begun.and_then(|found| self.commit(mode, found, work));
        if done.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to report. A connection that cannot roll back loses the transaction anyway.
            let _ = self.command("ROLLBACK");
        }
        done.map_err(|error| match self.or_moved(error) {
            error if error.kind() == Kind::Invalid => error.or_hint(WAY_OUT_OF_DAMAGE),
            error => error,
        })
    }
}

impl Tx for SqliteTx<'_> {
    fn execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<u64> {
        let run = || {
            let mut statement = self.engine.connection.prepare_cached(sql)?;
            statement.execute(rusqlite::params_from_iter(args))
        };
        run().map(|count| count as u64).map_err(|error| self.fail(error))
    }

    fn try_execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Result<u64>> {
        let before = self.engine.connection.total_changes();
        match self.execute(sql, args) {
            // Unless the refusal has ended the transaction, or left a part of the statement done, as `RAISE(ROLLBACK)` and
            // `RAISE(FAIL)` in a trigger do.
            Err(error) if error.kind() == Kind::Denied && self.is_as_of(before) => Ok(Err(error)),
            done => done.map(Ok),
        }
    }

    // Differs by necessity: RETURNING first collects its rows in a table of its own, which takes as long as the INSERT. The numbers
    // that one statement gives to its rows follow each other here, because nobody else inserts meanwhile.
    fn try_insert(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Result<Vec<i64>>> {
        Ok(self.try_execute(sql, args)?.map(|count| {
            let last = self.engine.connection.last_insert_rowid();
            (last - count.cast_signed() + 1..=last).collect()
        }))
    }

    fn query(&mut self, sql: &str, args: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        let mut statement = self.engine.connection.prepare_cached(sql).map_err(|error| self.fail(error))?;
        let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(|error| self.fail(error))?;
        while let Some(row) = rows.next().map_err(|error| self.fail(error))? {
            each(row)?;
        }
        Ok(())
    }

    fn found(&self) -> SchemaFound {
        self.found
    }

    fn clock(&self) -> Timestamp {
        self.engine.clock.get()
    }

    fn used(&self) -> i64 {
        self.engine.used.get()
    }

    fn is_paused(&self) -> bool {
        self.engine.paused.get()
    }

    fn bring(&mut self) -> Result<()> {
        if self.found != SchemaFound::Current {
            self.upgrade()?;
            self.found = SchemaFound::Current;
            self.introduce()?;
        }
        Ok(())
    }

    fn is_whole(&mut self) -> Result<bool> {
        self.has_whole_schema()
    }

    fn differences(&mut self) -> Result<Vec<Mended>> {
        self.schema_differences()
    }

    fn mend(&mut self) -> Result<Vec<Mended>> {
        self.mend_schema()
    }

    fn drop_schema(&mut self) -> Result<()> {
        self.drop_tables()
    }

    fn lost_references(&mut self) -> Result<Vec<LostReferences>> {
        self.rows_without_parents()
    }

    fn quick_check(&mut self) -> Result<Option<String>> {
        self.first_damaged_page()
    }

    fn integrity_check(&mut self) -> Result<Option<String>> {
        self.first_damage()
    }

    fn copy_to(&mut self, target: &Path) -> Result<Copied> {
        SqliteTx::copy_to(self, target)
    }

    fn check_numbers(&mut self) -> Result<()> {
        self.refuse_great_numbers()
    }

    fn newest_numbers(&mut self) -> Result<(i64, i64)> {
        let newest = |tx: &mut dyn Tx, table: &str| tx.row::<i64>(NEWEST, &[table.into()]);
        Ok((newest(self, "asyncq_job")?.unwrap_or(0), newest(self, "asyncq_processor")?.unwrap_or(0)))
    }

    fn number_after(&mut self, job: i64, processor: i64) -> Result<()> {
        for (table, newest) in [("asyncq_job", job), ("asyncq_processor", processor)] {
            self.execute("DELETE FROM sqlite_sequence WHERE name = ?1", &[table.into()])?;
            self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", &[table.into(), newest.into()])?;
        }
        Ok(())
    }

    // After the second change, the content is as before, and yet a page has changed. Only a commit that changes something syncs,
    // and it also syncs everything that was committed before.
    fn force_sync(&mut self) -> Result<()> {
        self.turn_version()?;
        self.turn_version()
    }

    fn runs_triggers(&self) -> bool {
        self.engine.triggers
    }

    fn passed_over(&mut self) -> Error {
        match self.engine.triggers() {
            Ok(triggers) if triggers.is_empty() => damaged("a row is missing"),
            Ok(triggers) => rule_refuses(&triggers.join(" or "), "RAISE(IGNORE)"),
            Err(error) => self.fail(error),
        }
    }

    fn references(&mut self) -> Result<Vec<Reference>> {
        self.engine.references().map_err(|error| self.fail(error))
    }

    fn has_foreign_trigger(&mut self) -> Result<bool> {
        self.engine.has_foreign_trigger().map_err(|error| self.fail(error))
    }

    fn has_foreign_table(&mut self) -> Result<bool> {
        self.engine.has_foreign_table().map_err(|error| self.fail(error))
    }

    fn how_to_remove_all(&self) -> String {
        let (link, file) = (&self.engine.path, without_links(&self.engine.path));
        let links = if *link == file { None } else { Some(link.clone()) };
        let beside = ["", "-wal", "-shm", "-asyncq"].map(|suffix| with_suffix(&file, suffix));
        // As a shell takes them.
        let quoted = |path: PathBuf| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let files: Vec<_> = links.into_iter().chain(beside).map(quoted).collect();
        format!("stop every processor, and remove its files: `rm -rf {}`", files.join(" "))
    }

    fn as_kept<'a>(&mut self, text: &'a str) -> Result<Cow<'a, [u8]>> {
        if self.engine.encoding.get().is_none() {
            let name = (self as &mut dyn Tx).row::<String>("PRAGMA encoding", &[])?;
            let _ = self.engine.encoding.set(Encoding::named(name.as_deref().unwrap_or_default()));
        }
        Ok(self.engine.encoding.get().map_or(Cow::Borrowed(text.as_bytes()), |encoding| encoding.of(text)))
    }

    fn identity(&self) -> Option<&str> {
        self.engine.file.lasting_id()
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}
