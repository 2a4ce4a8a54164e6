//! A transaction of SQLite's.

use std::borrow::Cow;

use super::encoding::Encoding;
use super::{Sqlite, schema_text};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::store::engine::{Reference, Row, Storage, Tx, Value, damaged, rule_refuses};

/// One transaction of a connection.
pub(super) struct SqliteTx<'a> {
    pub(super) engine: &'a Sqlite,
    pub(super) now: Timestamp,
}

impl SqliteTx<'_> {
    pub(super) fn fail(&self, error: rusqlite::Error) -> Error {
        self.engine.fail(error)
    }

    /// The first damage that SQLite finds in a table, or in the whole database.
    fn integrity_check(&mut self, what: &str) -> Result<Option<String>> {
        let sql = format!("PRAGMA integrity_check({what})");
        let found = (self as &mut dyn Tx).first(&sql, &[], |row| Ok(row.str(0)?.to_owned()))?;
        Ok(found.filter(|answer| answer != "ok"))
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
        match self.execute(sql, args) {
            // Unless it has ended the transaction, as a trigger may.
            Err(error) if error.kind() == Kind::Denied && !self.engine.connection.is_autocommit() => Ok(Err(error)),
            done => done.map(Ok),
        }
    }

    // Differs by necessity: RETURNING gathers its rows in a table of its own first, which takes as long as the INSERT. The
    // numbers that one statement gives to its rows follow each other here, as nobody else inserts meanwhile.
    fn insert(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Vec<i64>> {
        let count = i64::try_from(self.execute(sql, args)?).unwrap_or(i64::MAX);
        let last = self.engine.connection.last_insert_rowid();
        Ok((last - count + 1..=last).collect())
    }

    fn query(&mut self, sql: &str, args: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        let mut statement = self.engine.connection.prepare_cached(sql).map_err(|error| self.fail(error))?;
        let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(|error| self.fail(error))?;
        while let Some(row) = rows.next().map_err(|error| self.fail(error))? {
            each(row)?;
        }
        Ok(())
    }

    fn script(&mut self, sql: &str) -> Result<()> {
        self.engine.connection.execute_batch(sql).map_err(|error| self.fail(error))
    }

    fn reword(&mut self, table: &str, words: &str) -> Result<()> {
        schema_text::set(self, table, words)
    }

    fn has_inline_unique(&mut self, table: &str) -> Result<bool> {
        schema_text::have_unique(self, table)
    }

    fn words(&mut self, kind: &str, name: &str) -> Result<Option<String>> {
        schema_text::of(self, kind, name)
    }

    fn storage(&mut self, table: &str, words: &str) -> Result<Storage> {
        schema_text::compare(&self.engine.connection, table, words).map_err(|error| self.fail(error))
    }

    fn integrity_check(&mut self) -> Result<Option<String>> {
        let Some(tables) = self.engine.own_tables_among_others().map_err(|error| self.fail(error))? else {
            return self.integrity_check("1");
        };
        // The whole database can be looked through only with the application's own functions and collations.
        for table in ["sqlite_schema".to_owned()].into_iter().chain(tables) {
            let found = self.integrity_check(&format!("'{}'", table.replace('\'', "''")))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn references(&mut self) -> Result<Vec<Reference>> {
        self.engine.references().map_err(|error| self.fail(error))
    }

    fn passed_over(&mut self) -> Error {
        match self.engine.triggers() {
            Ok(triggers) if triggers.is_empty() => damaged("a row is missing"),
            Ok(triggers) => rule_refuses(&triggers.join(" or "), "RAISE(IGNORE)"),
            Err(error) => self.fail(error),
        }
    }

    fn has_foreign_table(&mut self) -> Result<bool> {
        self.engine.has_foreign_table().map_err(|error| self.fail(error))
    }

    fn last_number(&mut self, table: &str) -> Result<i64> {
        schema_text::last_number(self, table)
    }

    fn has_table(&mut self, name: &str) -> Result<bool> {
        schema_text::have_table(self, name)
    }

    fn has_foreign_trigger(&mut self, table: &str) -> Result<bool> {
        schema_text::have_foreign_trigger(self, table)
    }

    fn as_kept<'a>(&mut self, text: &'a str) -> Result<Cow<'a, [u8]>> {
        if self.engine.encoding.get().is_none() {
            let name = (self as &mut dyn Tx).first("PRAGMA encoding", &[], |row| Ok(row.str(0)?.to_owned()))?;
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
