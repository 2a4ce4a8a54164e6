//! What differs between database engines, and nothing else.
//!
//! Invariant: verbs above this seam hold one copy of the SQL, in the subset that SQLite and PostgreSQL share;
//! placeholders are `?1` to `?n` and may occur more than once and in any order.
//!
//! A `SELECT` locks the rows that the transaction is about to change by a suffix in an executable comment, such as
//! `SELECT state FROM asyncq_job WHERE id = ?1 /*! FOR NO KEY UPDATE */`. An engine that locks single rows runs what stands in
//! the comment; SQLite, where a writer has locked the whole store, skips it. So a text stays one constant, costs nothing
//! where it locks nothing, and can lock inside a sub-select. `docs/engines.md` lists the locks.

use std::borrow::Cow;
use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Sees one state of the store and delays no writer.
    Read,
    /// Sees a consistent state, in which other writers may change all rows but those that this transaction has locked or
    /// changed. So lock a row before you decide what to do with it, and have every `UPDATE` say which state it expects.
    /// SQLite gives more: there a writer is alone with the store.
    Write,
}

/// How long to wait for a store that somebody else has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Give up after this time with [`Kind::Busy`].
    Deadline(Duration),
    /// Wait as long as it takes, so that an outcome is not lost.
    Endless,
}

/// Who is told what goes wrong after a transaction that is done and stays so.
pub(super) type Trouble = Box<dyn FnMut(&Error) + Send>;

/// One connection to one store.
pub(super) trait Engine: Send {
    /// Runs `work` in one transaction: commits when it returns `Ok`, else rolls back. A write is durable when this
    /// returns `Ok`, and was made to the store that the path still names.
    fn transact(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()>;

    /// Sets how long the following transactions wait for locks.
    fn be_patient(&mut self, patience: Patience);

    /// Sets who is told what goes wrong after a transaction that is done and stays so.
    fn on_trouble(&mut self, trouble: Trouble);

    /// Whether the schema's triggers, which check and complete what clients write, run in the following transactions.
    fn use_triggers(&mut self, on: bool) -> Result<()>;

    /// Has commits wait for the disk no more, so that the rest of what they cost can be measured.
    fn measure_without_disk(&mut self) -> Result<()>;

    /// Makes sure that the path still names the store that is open.
    fn look_where_it_is(&self) -> Result<()>;

    /// Whether somebody else may have changed the store since this was last asked; never misses a change.
    fn changed(&mut self) -> Result<bool>;
}

/// One transaction.
pub(super) trait Tx {
    /// Runs a statement and tells how many rows it changed.
    fn execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<u64>;

    /// Runs a statement that a rule of an application may refuse: then gives the error that names the rule, and the statement
    /// has done nothing.
    fn try_execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Result<u64>>;

    /// Runs an INSERT of jobs; gives the numbers of those that it made, in the order of its rows. No number follows from
    /// another one.
    fn insert(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Vec<i64>>;

    /// Runs a statement and hands each row it gives to `each`.
    fn query(&mut self, sql: &str, args: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()>;

    /// Runs a script without parameters; only for schemas.
    fn script(&mut self, sql: &str) -> Result<()>;

    /// Puts other words for a table into the schema, which change neither its columns nor its rows; leaves it as it is where
    /// the table has other columns than the words say, as an application may have added some. Only for upgrades.
    fn reword(&mut self, table: &str, words: &str) -> Result<()>;

    /// Whether a table has an index that a UNIQUE among its own words has made. Only for upgrades.
    fn has_inline_unique(&mut self, table: &str) -> Result<bool>;

    /// The words that made a table, an index or a trigger, if there is one of that name.
    fn words(&mut self, kind: &str, name: &str) -> Result<Option<String>>;

    /// How the rows of a table are stored, compared with those of a table with these words.
    fn storage(&mut self, table: &str, words: &str) -> Result<Storage>;

    /// Looks through the whole store for damage; gives the first that it finds. What an application has in the same
    /// database is not looked at.
    fn integrity_check(&mut self) -> Result<Option<String>>;

    /// The application's foreign keys to tables of the store.
    fn references(&mut self) -> Result<Vec<Reference>>;

    /// The error for a statement that did nothing although it should have: a trigger of the application made it so.
    fn passed_over(&mut self) -> Error;

    /// Whether the database holds a table that is not the store's.
    fn has_foreign_table(&mut self) -> Result<bool>;

    /// The greatest number that a row of a table which numbers its rows itself has ever had.
    fn last_number(&mut self, table: &str) -> Result<i64>;

    /// Whether the store has a table of that name.
    fn has_table(&mut self, name: &str) -> Result<bool>;

    /// Whether an application has a trigger of its own on that table of the store's.
    fn has_foreign_trigger(&mut self, table: &str) -> Result<bool>;

    /// A text as the bytes in which the database keeps it, out of which a statement can cut pieces.
    fn as_kept<'a>(&mut self, text: &'a str) -> Result<Cow<'a, [u8]>>;

    /// What tells this store from its copies, for as long as it is there; `None` where the system does not tell.
    fn identity(&self) -> Option<&str>;

    /// The database's clock, read once at the start of the transaction, so that hosts need not agree.
    fn now(&self) -> Timestamp;
}

/// How the rows of a table are stored, compared with those of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In the same way: the words of the one can be given to the other.
    Same,
    /// With more columns, as an application may add them.
    Wider,
    /// In another way.
    Other,
}

/// A foreign key that an application has to a table of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The application's table.
    pub(super) table: String,
    /// The store's table.
    pub(super) to: String,
    /// Which columns of the one refer to which of the other.
    pub(super) columns: Vec<(String, String)>,
    /// Whether what refers to a row that goes is changed, or goes too; otherwise that row has to stay.
    pub(super) follows: bool,
}

impl Reference {
    /// The condition that a row of the store's table is referred to.
    pub(super) fn condition(&self) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let pairs = self.columns.iter().map(|(from, to)| format!("it.{} = {}.{}", quoted(from), self.to, quoted(to)));
        let pairs: Vec<String> = pairs.collect();
        format!("EXISTS (SELECT 1 FROM {} it WHERE {})", quoted(&self.table), pairs.join(" AND "))
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Int(value.into())
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Value::Int(value.0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Value::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Value::Blob(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One row of a result. Columns are counted from 0. A value of another type than asked for is damage.
pub(super) trait Row {
    fn int(&self, column: usize) -> Result<Option<i64>>;
    fn text(&self, column: usize) -> Result<Option<&str>>;
    /// The bytes of a blob or of a text, which a client may have filled with bytes that are no UTF-8.
    fn bytes(&self, column: usize) -> Result<Option<&[u8]>>;
}

/// Reading rows without repeating what must be there.
impl dyn Row + '_ {
    pub(super) fn i64(&self, column: usize) -> Result<i64> {
        self.int(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn str(&self, column: usize) -> Result<&str> {
        self.text(column)?.ok_or_else(|| missing(column))
    }

    pub(super) fn bool(&self, column: usize) -> Result<bool> {
        Ok(self.i64(column)? != 0)
    }

    pub(super) fn lossy(&self, column: usize) -> Result<Option<String>> {
        Ok(self.bytes(column)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    pub(super) fn time(&self, column: usize) -> Result<Option<Timestamp>> {
        Ok(self.int(column)?.map(Timestamp))
    }
}

pub(super) fn missing(column: usize) -> Error {
    damaged(&format!("column {column} is empty"))
}

/// `COPY` stands for the copy of the store. What saves something works on that, and makes a new file: a damaged one
/// is never written.
pub(super) const WAY_OUT_OF_DAMAGE: &str = "stop every processor, and copy the file together with its `-wal`; then \
    restore a backup, or save what can be read: `sqlite3 COPY .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 NEW`";

/// The error for a store that holds what it cannot hold.
pub(super) fn damaged(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("the store is damaged: {what}")).with_hint(WAY_OUT_OF_DAMAGE)
}

/// The error for what a rule of an application refuses.
pub(super) fn rule_refuses(rule: &str, why: &str) -> Error {
    Error::new(Kind::Denied, format!("{rule} refuses this: {why}"))
        .with_hint("that belongs to the application, and not to asyncq: change it, or what it looks at")
}

/// Reading through a transaction.
impl dyn Tx + '_ {
    /// Makes sure that what is there survives a power cut, where that is the answer and nothing is left to change: whoever
    /// committed it may have been killed before it was on the disk. Only a commit that changes something syncs, and what was
    /// committed before along with it.
    pub(super) fn force_sync(&mut self) -> Result<()> {
        // The second time it is as it was, and yet a page has changed.
        for _ in 0..2 {
            self.turn_version()?;
        }
        Ok(())
    }

    /// Runs a statement that changes a row, unless a trigger of an application makes it pass that over.
    pub(super) fn change(&mut self, sql: &str, args: &[Value<'_>]) -> Result<()> {
        if self.execute(sql, args)? == 0 { Err(self.passed_over()) } else { Ok(()) }
    }

    /// Makes the version of the schema negative, by which the schema's triggers know asyncq, or positive again: nobody else
    /// ever sees it negative.
    pub(super) fn turn_version(&mut self) -> Result<()> {
        self.execute("UPDATE asyncq_schema SET version = -version", &[]).map(|_| ())
    }

    /// The first row that a statement gives, read by `read`.
    pub(super) fn first<T>(
        &mut self,
        sql: &str,
        args: &[Value<'_>],
        mut read: impl FnMut(&dyn Row) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut found = None;
        self.query(sql, args, &mut |row| {
            if found.is_none() {
                found = Some(read(row)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Every row that a statement gives, read by `read`.
    pub(super) fn all<T>(
        &mut self,
        sql: &str,
        args: &[Value<'_>],
        mut read: impl FnMut(&dyn Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.query(sql, args, &mut |row| {
            found.push(read(row)?);
            Ok(())
        })?;
        Ok(found)
    }
}
