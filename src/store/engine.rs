//! What differs between database engines, and nothing else. `docs/engines.md` says how to add one.
//!
//! Invariant: verbs above this seam hold one copy of the SQL, in the subset that SQLite and PostgreSQL share;
//! placeholders are `?1` to `?n` and may occur more than once and in any order. No verb goes on after a statement that
//! failed, except by [`Tx::try_execute`] and [`Tx::try_insert`].
//!
//! A `SELECT` locks the rows that the transaction is about to change by a suffix in an executable comment, such as
//! `SELECT state FROM asyncq_job WHERE id = ?1 /*! FOR NO KEY UPDATE */`. An engine that locks single rows runs what stands in
//! the comment; SQLite, where a writer has locked the whole store, skips it. So a text stays one constant, costs nothing
//! where it locks nothing, and can lock inside a sub-select. `docs/engines.md` lists the locks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{borrow::Cow, fs::Metadata, io, time::Duration};

use super::schema::{Copied, Mended, SchemaFound};
use crate::domain::diagnosis::LostReferences;
use crate::domain::time::Timestamp;
use crate::domain::{function::FunctionName, job::JobId, processor::ProcessorId, service::ServiceName, state::State};
use crate::error::{Error, Kind, Result};

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Sees one state of the store and delays no writer.
    Read,
    /// Sees a consistent state. Other writers may change all rows, except for those that this transaction has locked or changed. So
    /// lock a row before you decide what to do with it, and say in each `UPDATE` which state it expects. With SQLite, a writer is
    /// alone with the store.
    Write(Triggers),
}

/// Which triggers a transaction runs. The schema's own triggers check and complete what clients write. If they run, they let asyncq
/// do more than clients may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Triggers {
    /// Those of an application and the schema's own.
    All,
    /// The same if an application has a trigger on the jobs, otherwise none. Without triggers, the writer completes the rows
    /// itself.
    IfForeign,
    /// None, if the engine can do without them: an application cannot interfere with the course of its calls.
    None,
}

/// How long to wait for a store that another process has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Give up after this time with [`Kind::Busy`].
    Deadline(Duration),
    /// Wait as long as necessary, so that no outcome is lost.
    Endless,
}

/// Receives errors that happen after a commit, such as a failed checkpoint: what was committed stays.
pub(super) type Trouble = Box<dyn FnMut(&Error) + Send>;

/// Becomes readable when a process writes to the store, even this one. The writer may not have committed yet: call
/// [`Store::changed`](super::Store::changed).
#[derive(Debug)]
pub struct Watch {
    /// Does not block, and gives a few bytes for each event.
    pub(super) descriptor: OwnedFd,
}

impl Watch {
    /// Consumes all events so far; returns whether there were any.
    pub fn heard(&mut self) -> bool {
        let mut events = [0_u8; 4096];
        let mut any = false;
        while rustix::io::read(&self.descriptor, &mut events).is_ok_and(|length| length > 0) {
            any = true;
        }
        any
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<Watch> for OwnedFd {
    fn from(watch: Watch) -> OwnedFd {
        watch.descriptor
    }
}

/// One connection to one store.
pub(super) trait Engine: Send {
    /// Runs `work` in one transaction. Commits if it returns `Ok`, and otherwise rolls back. When this returns `Ok`, the write is
    /// durable, in the store that the location still names. `work` may run more than once.
    ///
    /// Before `work` runs, the engine has looked up which schema the store has, for [`Tx::found`]. If `work` returns the error that
    /// the store is [`damaged`], the engine adds the way out.
    fn transact(&mut self, mode: Mode, work: &mut dyn FnMut(&mut dyn Tx) -> Result<()>) -> Result<()>;

    /// Sets how long later transactions wait for locks.
    fn be_patient(&mut self, patience: Patience);

    /// Sets who receives errors that happen after a commit.
    fn on_trouble(&mut self, trouble: Trouble);

    /// From now on, commits do not wait for the disk, so that one can measure the rest of their cost.
    fn measure_without_disk(&mut self) -> Result<()>;

    /// Checks that the location still names the store that is open.
    fn still_there(&self) -> Result<()>;

    /// Whether somebody else may have changed the store since the last call; never misses a change.
    fn changed(&mut self) -> Result<bool>;

    /// Begins to watch the store for writes.
    fn watch(&self) -> io::Result<Watch>;

    /// The folder on this machine in which processors keep their files. It is the same for all who use the store.
    fn run_folder(&self) -> PathBuf;

    /// The file whose owner, group and mode the files in the run folder take.
    fn metadata(&self) -> io::Result<Metadata>;

    /// Refuses a store that anybody but root could change.
    fn only_root_can_change(&self) -> Result<()>;

    /// Closes the connection and leaves everything in one file. Nobody else has the store open.
    fn close(self: Box<Self>) -> Result<()>;

    /// If the store has no processor: removes from its run folder what no processor removes, and then the folder if it is empty.
    fn remove_run_folder(&self);
}

/// One transaction.
pub(super) trait Tx {
    /// Runs a statement; returns how many rows it changed.
    fn execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<u64>;

    /// Runs a statement that a rule of an application may refuse. If so, it returns the error that names the rule; the statement
    /// has then done nothing, and the transaction goes on.
    fn try_execute(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Result<u64>>;

    /// Runs an INSERT of jobs that a rule of an application may refuse, like [`Tx::try_execute`]. Returns the numbers of the new
    /// jobs in the order of the rows. No number can be inferred from another one.
    fn try_insert(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Result<Vec<i64>>>;

    /// Runs a statement and calls `each` with each row.
    fn query(&mut self, sql: &str, args: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()>;

    /// Which schema the store has.
    fn found(&self) -> SchemaFound;

    /// The latest time that a processor has seen, by the store.
    fn clock(&self) -> Timestamp;

    /// Which features the store had used when the transaction began, as in `asyncq_schema`; all, if that is unknown.
    fn used(&self) -> i64;

    /// Whether the whole store was paused when the transaction began.
    fn is_paused(&self) -> bool;

    /// Brings the store to the schema of this build: creates it, or upgrades an older one.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it is newer.
    fn bring(&mut self) -> Result<()>;

    /// Whether the schema is as this build creates it, apart from what an application has added.
    fn is_whole(&mut self) -> Result<bool>;

    /// What of the schema is missing or was changed.
    fn differences(&mut self) -> Result<Vec<Mended>>;

    /// Creates missing or changed parts of the schema again.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a table differs so much that its rows cannot be kept.
    fn mend(&mut self) -> Result<Vec<Mended>>;

    /// Removes everything that belongs to the store from the database.
    fn drop_schema(&mut self) -> Result<()>;

    /// Searches the whole store for damage, and returns the first that it finds. Ignores what an application has in the same
    /// database.
    fn integrity_check(&mut self) -> Result<Option<String>>;

    /// The rows of the store's tables that refer to rows that are not there.
    fn lost_references(&mut self) -> Result<Vec<LostReferences>>;

    /// Searches the pages of the store's tables for damage, and returns the first that it finds.
    fn quick_check(&mut self) -> Result<Option<String>>;

    /// Copies the whole database, as this transaction sees it, into a new file; see [`Store::back_up`](super::Store::back_up).
    fn copy_to(&mut self, target: &Path) -> Result<Copied>;

    /// Checks that enough numbers for new jobs are left.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a client has used a number so high that hardly any are left, or none.
    fn check_numbers(&mut self) -> Result<()>;

    /// The greatest numbers that a job and a processor have ever had.
    fn newest_numbers(&mut self) -> Result<(i64, i64)>;

    /// Gives jobs and processors new numbers that are greater than these.
    fn number_after(&mut self, job: i64, processor: i64) -> Result<()>;

    /// Makes sure that the commits of others survive a power cut, when this process answers with them and has nothing to change
    /// itself. Whoever committed may have been killed before the disk had the commit.
    fn force_sync(&mut self) -> Result<()>;

    /// Whether triggers run in this transaction.
    fn runs_triggers(&self) -> bool;

    /// The error for a statement that did nothing although it should have: a trigger of the application prevented it.
    fn passed_over(&mut self) -> Error;

    /// Whether the application has triggers on tables of the store.
    fn has_foreign_trigger(&mut self) -> Result<bool>;
    /// The application's foreign keys to tables of the store.
    fn references(&mut self) -> Result<Vec<Reference>>;

    /// Whether the database holds tables or views that are not the store's.
    fn has_foreign_table(&mut self) -> Result<bool>;

    /// How a person removes a database that holds nothing but the store.
    fn how_to_remove_all(&self) -> String;

    /// A text as the bytes that the database keeps. A statement can cut pieces out of them.
    fn as_kept<'a>(&mut self, text: &'a str) -> Result<Cow<'a, [u8]>>;

    /// What distinguishes this store from its copies, as long as it exists; `None` if the system does not tell.
    fn identity(&self) -> Option<&str>;

    /// The database's clock, read once at the start of the transaction, so that the clocks of hosts need not agree.
    fn now(&self) -> Timestamp;
}

/// A foreign key that an application has to a table of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The application's table.
    pub(super) table: String,
    /// The store's table.
    pub(super) to: String,
    /// The columns that refer, each with the column to which it refers.
    pub(super) columns: Vec<(String, String)>,
    /// Whether rows that refer to a removed row are changed or removed with it. If not, that row has to stay.
    pub(super) follows: bool,
}

impl Reference {
    /// The condition that something refers to a row of the store's table.
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

macro_rules! value {
    ($($type:ty: |$it:ident| $value:expr;)*) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from($it: $type) -> Self {
                $value
            }
        }
    )*};
}

value! {
    i64: |it| Value::Int(it);
    usize: |it| Value::Int(i64::try_from(it).unwrap_or(i64::MAX));
    bool: |it| Value::Int(it.into());
    JobId: |it| Value::Int(it.0);
    ProcessorId: |it| Value::Int(it.0);
    Timestamp: |it| Value::Int(it.0);
    &'a str: |it| Value::Text(it);
    &'a String: |it| Value::Text(it);
    &'a ServiceName: |it| Value::Text(it.as_str());
    &'a FunctionName: |it| Value::Text(it.as_str());
    State: |it| Value::Text(it.as_str());
    &'a [u8]: |it| Value::Blob(it);
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// One row of a result. Columns are counted from 0. A value of another type than expected means damage.
pub(super) trait Row {
    fn int(&self, column: usize) -> Result<Option<i64>>;
    fn text(&self, column: usize) -> Result<Option<&str>>;
    /// The bytes of a blob or a text. They may not be UTF-8, because clients can write anything.
    fn bytes(&self, column: usize) -> Result<Option<&[u8]>>;
}

/// Reads columns that must have a value.
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

/// The error for a store that contains something impossible. The engine adds the way out.
pub(super) fn damaged(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("the store is damaged: {what}"))
}

/// The error of a store that is a copy of a backup, in words about the backup: the store itself is as it was.
pub(super) fn of_backup(from: &Path, error: Error) -> Error {
    if error.kind() != Kind::Invalid {
        return error;
    }
    let what = error.to_string();
    damaged_backup(from, what.strip_prefix("the store is damaged: ").unwrap_or(&what))
}

/// The error for a backup in which damage was found.
pub(super) fn damaged_backup(from: &Path, what: &str) -> Error {
    Error::new(Kind::Invalid, format!("the backup `{}` is damaged: {what}", from.display()))
        .with_hint("nothing was changed; restore another backup")
}

/// Refuses a store in which damage was found.
pub(super) fn no_fault(found: Option<String>) -> Result<()> {
    found.map_or(Ok(()), |fault| Err(damaged(&fault)))
}

/// The one row that a statement must give.
pub(super) fn one<T>(row: Option<T>) -> Result<T> {
    row.ok_or_else(|| damaged("a row is missing"))
}

/// The error for what a rule of an application refuses.
pub(super) fn rule_refuses(rule: &str, why: &str) -> Error {
    Error::new(Kind::Denied, format!("{rule} refuses this: {why}"))
        .with_hint("it belongs to the application, not to asyncq: change it, or the data that it checks")
}

/// What follows from the methods of an engine.
impl dyn Tx + '_ {
    /// Runs a statement that must change a row.
    ///
    /// # Errors
    /// [`Tx::passed_over`] when it changes none.
    pub(super) fn change(&mut self, sql: &str, args: &[Value<'_>]) -> Result<()> {
        if self.execute(sql, args)? == 0 { Err(self.passed_over()) } else { Ok(()) }
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
}
