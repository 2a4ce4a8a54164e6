//! The store: services, functions and jobs in a database.
//!
//! Invariant: the only module that holds SQL. [`Store`] is concrete; its verbs say what happened, each is one
//! transaction, and there is one copy of each, over the private engine seam.

mod claim;
mod columns;
mod cycle;
mod engine;
mod enqueue;
mod finish;
mod function;
#[cfg(debug_assertions)]
mod future;
mod insert;
mod integrity;
mod job;
mod location;
mod many;
mod migrate;
mod nested;
mod path;
mod progress;
mod query;
mod remove;
mod rescue;
mod row;
mod schema;
mod schema_script;
mod select;
mod service;
mod sqlite;
mod watch;

pub use cycle::{Cycle, CycleResult, ServiceStatus};
pub use engine::Patience;
pub use enqueue::Refused;
pub use job::Cancelled;
pub use location::Location;
pub use many::Step;
pub use path::{absolute, as_shown, is_same};
pub use query::QueuePosition;
pub use rescue::Rescued;
pub use schema::Mended;
pub use watch::Watch;

use std::path::PathBuf;

use engine::{Engine, Mode, Tx};
use migrate::{Schema, SchemaFound};
use sqlite::Sqlite;
use sqlite::errors::no_space;
use sqlite::{new_file, permissions};

use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;

/// One connection to one store.
pub struct Store {
    engine: Box<dyn Engine>,
    /// As it was named, maybe through links.
    location: Location,
    /// The file without links: what belongs to it is beside it, whatever name led there.
    file: PathBuf,
    schema: Schema,
}

impl Store {
    /// Opens a store that exists. An older one is upgraded by the first verb.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when there is none, [`Kind::Denied`] when this user cannot use it without harm to others, and
    /// whatever the file system answers. That a file holds no store, or
    /// a newer one, is told by the first verb.
    pub fn open(location: &Location, patience: Patience) -> Result<Store> {
        let Location::File(path) = location;
        permissions::allow_use(path)?;
        reached("store looked at");
        let engine = Sqlite::open(path, patience)?;
        let file = engine.path().to_owned();
        Ok(Store { engine: Box::new(engine), location: location.clone(), file, schema: Schema::of_this_build() })
    }

    /// Opens a store. Where there is no file, it makes one first, readable by its owner only, and says so. A file that is
    /// there gets no tables: the first verb says that it holds no store.
    ///
    /// # Errors
    /// [`Kind::Io`] when the file of an earlier store is gone but its WAL is there.
    pub fn open_or_make(location: &Location, patience: Patience) -> Result<(Store, bool)> {
        let Location::File(path) = location;
        let mut made = false;
        if std::fs::symlink_metadata(path).is_err() {
            sqlite::filesystem::refuse_network(path)?;
            let draft = new_file::NewFile::new(path)?;
            fill(&draft, patience).map_err(|error| {
                draft.remove_sidecars();
                if error.kind() == Kind::Full { no_space(path) } else { error }
            })?;
            made = draft.publish()?;
        }
        Ok((Store::open(location, patience)?, made))
    }

    /// Opens a store and makes it first if there is none: a new file, as [`Store::open_or_make`] does, or the tables in a
    /// database that an application made. Says whether anything was made or upgraded.
    ///
    /// # Errors
    /// As [`Store::open_or_make`].
    pub fn create(location: &Location, patience: Patience) -> Result<(Store, bool)> {
        let (mut store, mut made) = Store::open_or_make(location, patience)?;
        if !made {
            let schema = store.schema;
            // What has lost its tables looks like a database that never had them.
            if store.found()? == SchemaFound::Nothing {
                store.check()?;
            }
            store.engine.transact(Mode::Write, &mut |tx| {
                let found = schema.look(tx)?;
                made = found != SchemaFound::Current;
                if found == SchemaFound::Nothing && tx.has_table("asyncq_job")? {
                    return schema::name_schema(tx);
                }
                schema.bring(tx, found)
            })?;
        }
        Ok((store, made))
    }

    fn found(&mut self) -> Result<SchemaFound> {
        let (schema, mut found) = (self.schema, SchemaFound::Nothing);
        self.engine.transact(Mode::Read, &mut |tx| schema.look(tx).map(|it| found = it))?;
        Ok(found)
    }

    /// Looks through the whole store for damage, whatever else the file holds; delays no writer.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the first damage found.
    pub fn check(&mut self) -> Result<()> {
        let mut fault = None;
        self.engine.transact(Mode::Read, &mut |tx| integrity::integrity_check(tx).map(|it| fault = it))?;
        fault.map_or(Ok(()), |fault| Err(engine::damaged(&fault)))
    }

    /// Makes sure that jobs can be numbered for as long as anybody may enqueue.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a client has set a number that leaves hardly any, or none.
    pub fn check_numbers(&mut self) -> Result<()> {
        let last = self.read(|tx| tx.last_number("asyncq_job"))?;
        integrity::numbers(last, &self.location)
    }

    /// The version of the SQLite that is built in.
    #[must_use]
    pub fn sqlite_version() -> &'static str {
        rusqlite::version()
    }

    /// Where this store is, as it was named when it was opened.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The folder beside the store in which processors keep their lock files and what they need while they run: the same
    /// one for all who use the store, whatever link led them there.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        new_file::run_folder(&self.file)
    }

    /// Sets how long verbs wait for a store that somebody else has locked.
    pub fn be_patient(&mut self, patience: Patience) {
        self.engine.be_patient(patience);
    }

    /// Sets who is told what goes wrong after a verb that is done and stays so: a failing disk, usually.
    pub fn on_trouble(&mut self, tell: impl FnMut(&Error) + Send + 'static) {
        self.engine.on_trouble(Box::new(tell));
    }

    /// For measurements only, which no command makes: verbs are durable no more, so that what they cost beyond the disk
    /// shows.
    ///
    /// # Errors
    /// Whatever the database answers.
    #[doc(hidden)]
    pub fn measure_without_disk(&mut self) -> Result<()> {
        self.engine.measure_without_disk()
    }

    /// Makes sure that the path still names the store that is open, and that what belongs to it is still beside it. Every
    /// verb does that too; this is for who has nothing to do.
    ///
    /// # Errors
    /// [`Kind::Io`] when something of it was moved, replaced or removed.
    pub fn still_there(&self) -> Result<()> {
        self.engine.look_where_it_is()
    }

    /// Whether somebody else may have changed the store since this was last asked; never misses a change.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn changed(&mut self) -> Result<bool> {
        self.engine.changed()
    }

    /// Runs `work` alone with the store; it may run more than once. The triggers of an application see it as they see what
    /// clients write; those of the schema let more pass than clients may do.
    fn write<T>(&mut self, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        self.engine.use_triggers(true)?;
        self.change(|tx| {
            tx.turn_version()?;
            let done = work(tx)?;
            tx.turn_version()?;
            Ok(done)
        })
    }

    /// Like [`Store::write`], without the triggers: those of an application have no say in what becomes of its calls.
    fn write_untriggered<T>(&mut self, work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        self.engine.use_triggers(false)?;
        self.change(work)
    }

    /// Like [`Store::write`], for what ends work that was begun before: accepted even when a newer build has upgraded the
    /// store since. `work` is told whether that is so; it may write nothing else then. Runs without the triggers, which
    /// do nothing for it, and is to be fast: with triggers on a table, SQLite gathers the rows to update in a table of its
    /// own first.
    fn write_in_any_schema<T>(&mut self, mut work: impl FnMut(&mut dyn Tx, bool) -> Result<T>) -> Result<T> {
        self.engine.use_triggers(false)?;
        let schema = self.schema;
        self.change_whatever(|tx, found| {
            let newer = matches!(found, SchemaFound::Newer(_));
            if !newer {
                schema.bring(tx, found)?;
            }
            work(tx, newer)
        })
    }

    fn change<T>(&mut self, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        let schema = self.schema;
        self.change_whatever(|tx, found| {
            schema.bring(tx, found)?;
            work(tx)
        })
    }

    /// Runs `work` on a store of whatever schema.
    fn change_whatever<T>(&mut self, mut work: impl FnMut(&mut dyn Tx, SchemaFound) -> Result<T>) -> Result<T> {
        let (schema, location) = (self.schema, &self.location);
        let mut result = None;
        self.engine.transact(Mode::Write, &mut |tx| {
            result = match schema.look(tx)? {
                SchemaFound::Nothing => return Err(no_store(location)),
                found => Some(work(tx, found)?),
            };
            Ok(())
        })?;
        Ok(result.expect("a committed transaction has run its work"))
    }

    /// Runs `work` on one state of the store.
    fn read<T>(&mut self, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        let (schema, location) = (self.schema, &self.location);
        let mut result = None;
        self.engine.transact(Mode::Read, &mut |tx| {
            match schema.look(tx)? {
                SchemaFound::Nothing => return Err(no_store(location)),
                SchemaFound::Newer(version) => return Err(schema.refuse(version)),
                SchemaFound::Older(_) => {}
                SchemaFound::Current => result = Some(work(tx)?),
            }
            Ok(())
        })?;
        match result {
            Some(result) => Ok(result),
            None => self.write(work),
        }
    }
}

fn no_store(location: &Location) -> Error {
    Error::new(Kind::Unreachable, format!("`{location}` holds no store"))
        .with_hint("`asyncq init` makes one in it, beside the tables that it has; `--db` names another file")
}

/// Makes a store of an empty file.
fn fill(draft: &new_file::NewFile, patience: Patience) -> Result<()> {
    let mut engine = Sqlite::open(draft.path(), patience)?;
    // Before anything is in it: after that, every page is written and synced by steps that tell how they end.
    engine.use_wal()?;
    engine.transact(Mode::Write, &mut |tx| Schema::of_this_build().bring(tx, SchemaFound::Nothing))?;
    engine.close()
}

/// The one row that a statement must give.
fn one<T>(row: Option<T>) -> Result<T> {
    row.ok_or_else(|| engine::damaged("a row is missing"))
}
