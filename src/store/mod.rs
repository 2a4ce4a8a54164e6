//! The store: services, functions and jobs in a database.
//!
//! Invariant: the only module that holds SQL. [`Store`] is concrete; its verbs say what happened, each is one
//! transaction, and there is one copy of each, over the private engine seam.

mod apply;
mod backup;
mod claim;
mod clock;
mod columns;
mod complete;
mod cycle;
mod definition;
mod doctor;
mod due;
mod edit;
mod engine;
mod enqueue;
mod expire;
mod explain;
mod finish;
mod fire;
mod follow_up;
mod function;
mod hook;
mod hook_call;
mod insert;
mod job;
mod key;
mod lane;
mod location;
mod many;
mod masking;
mod needs;
mod nested;
mod nested_calls;
mod path;
mod pause;
mod prune;
mod purpose;
mod query;
mod reload;
mod remove;
mod rerun;
mod rescue;
mod restore;
mod schedule;
mod schedule_run;
mod schema;
mod select;
mod service;
mod set;
mod sqlite;
mod status;
mod stored_call;
mod then;
mod unfit;
mod used;
mod waiting;

pub use claim::Cycle;
pub use cycle::CycleResult;
pub use engine::{Patience, Watch};
pub use enqueue::Refused;
pub use job::Cancelled;
pub use location::Location;
pub use many::Step;
pub use path::{absolute, as_shown, is_same};
pub use prune::Pruned;
pub use query::QueuePosition;
pub use rescue::Rescued;
pub use restore::{Restoration, RestoreTurn};
pub use schema::{Copied, Mended};
pub use service::ServiceStatus;

use std::path::{Path, PathBuf};

use engine::{Engine, Mode, Triggers, Tx, no_fault};
use schema::SchemaFound;

use crate::error::{Error, Kind, Result};

/// One connection to one store.
///
/// Each verb is one transaction. If it fails, nothing of it has happened. Any verb fails with what the database answers:
/// [`Kind::Busy`], [`Kind::Full`], [`Kind::Io`] or [`Kind::Invalid`]. The verbs list only their own errors.
pub struct Store {
    engine: Box<dyn Engine>,
    /// As it was named, maybe through links.
    location: Location,
    /// What earlier retries of jobs have found out about calls that need these jobs.
    unmet: needs::Unmet,
    /// Returns the name of the user, which cancelled jobs record.
    user: fn() -> String,
    /// Whether jobs and schedules show their secret arguments.
    reveals: bool,
}

impl Store {
    /// Opens an existing store. The first verb upgrades an older one.
    ///
    /// # Errors
    /// [`Kind::Usage`] when this build has no engine for it, [`Kind::Unreachable`] when there is none, [`Kind::Denied`] when this
    /// user cannot use it without harm to others, and whatever the file system answers. The first verb says if it is no store, or a
    /// newer one.
    pub fn open(location: &Location, patience: Patience) -> Result<Store> {
        Ok(Store::over(location.connect(patience)?, location))
    }

    fn over(engine: Box<dyn Engine>, location: &Location) -> Store {
        let (location, unmet) = (location.clone(), needs::Unmet::new());
        Store { engine, location, unmet, user: || "an unknown user".to_owned(), reveals: false }
    }

    /// Opens a store. If there is no file, it first makes one that only its owner can read, and says so. An existing file gets no
    /// tables: the first verb says that it is no store.
    ///
    /// # Errors
    /// As [`Store::open`], and [`Kind::Io`] when the file of an earlier store is gone but its WAL is there.
    pub fn open_or_make(location: &Location, patience: Patience) -> Result<(Store, bool)> {
        let made = location.make(patience)?;
        Ok((Store::open(location, patience)?, made))
    }

    /// Opens a store, or makes one if there is none: a new file, as [`Store::open_or_make`] does, or the tables in a database that
    /// an application made. Returns whether it made or upgraded anything.
    ///
    /// # Errors
    /// As [`Store::open_or_make`].
    pub fn create(location: &Location, patience: Patience) -> Result<(Store, bool)> {
        let (mut store, mut made) = Store::open_or_make(location, patience)?;
        if !made {
            let mut found = SchemaFound::Current;
            store.engine.transact(Mode::Read, &mut |tx| {
                found = tx.found();
                Ok(())
            })?;
            // A store that has lost its tables looks like a database that never had any.
            if found == SchemaFound::Nothing {
                store.check()?;
            }
            store.engine.transact(Mode::Write(Triggers::None), &mut |tx| {
                made = tx.found() != SchemaFound::Current;
                tx.bring()
            })?;
        }
        Ok((store, made))
    }

    /// From now on, the verbs that show jobs and schedules show their secret arguments, too.
    pub fn reveal_secrets(&mut self) {
        self.reveals = true;
    }

    /// Searches the whole store for damage, whatever else the database holds. Delays no writer.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the first damage that it finds.
    pub fn check(&mut self) -> Result<()> {
        self.engine.transact(Mode::Read, &mut |tx| no_fault(tx.integrity_check()?))
    }

    /// Makes missing or changed parts of the schema again, and returns which ones. What an application has added stays.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a table differs so much that its rows cannot be kept; then nothing is changed.
    pub fn mend(&mut self) -> Result<Vec<Mended>> {
        let (mut is_whole, mut mended) = (true, Vec::new());
        self.engine.transact(Mode::Read, &mut |tx| {
            is_whole = tx.found() != SchemaFound::Current || tx.is_whole()?;
            Ok(())
        })?;
        if !is_whole {
            self.write_untriggered(|tx| tx.mend().map(|it| mended = it))?;
        }
        Ok(mended)
    }

    /// Checks that enough numbers for new jobs are left.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a client has used a number so high that hardly any are left, or none.
    pub fn check_numbers(&mut self) -> Result<()> {
        self.read(|tx| tx.check_numbers())
    }

    /// The engines that are built in, with their versions.
    #[must_use]
    pub fn engines() -> String {
        sqlite::name()
    }

    /// The location of this store, as it was named when it was opened.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The folder in which processors keep their lock files and what they need while they run. It is the same for all who use the
    /// store, whatever link led them there.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.engine.run_folder()
    }

    /// The run folder of the store in a file, which need not exist.
    #[must_use]
    pub fn run_folder_of(file: &Path) -> PathBuf {
        sqlite::run_folder_of(file)
    }

    /// The owner, group and mode that files in the run folder take: those of the store.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn metadata(&self) -> std::io::Result<std::fs::Metadata> {
        self.engine.metadata()
    }

    /// Refuses a store that anybody but root could change, as [`Location::only_root_can_change`] does, but after it was opened: a
    /// link may have led elsewhere before.
    ///
    /// # Errors
    /// [`Kind::Denied`] if there is somebody.
    pub fn only_root_can_change(&self) -> Result<()> {
        self.engine.only_root_can_change()
    }

    /// Sets how long verbs wait for a store that another process has locked.
    pub fn be_patient(&mut self, patience: Patience) {
        self.engine.be_patient(patience);
    }

    /// Sets the function that returns the name of the user, which cancelled jobs record.
    pub fn set_user(&mut self, user: fn() -> String) {
        self.user = user;
    }

    /// Sets who receives errors that happen after a verb has succeeded. Usually the disk fails then.
    pub fn on_trouble(&mut self, tell: impl FnMut(&Error) + Send + 'static) {
        self.engine.on_trouble(Box::new(tell));
    }

    /// Only for measurements, which no command makes: verbs are no longer durable, so that their cost without the disk shows.
    #[doc(hidden)]
    pub fn measure_without_disk(&mut self) -> Result<()> {
        self.engine.measure_without_disk()
    }

    /// Checks that the location still names the store that is open, and that its other files are still there. Every verb does that,
    /// too; this is for a caller that has nothing else to do.
    ///
    /// # Errors
    /// [`Kind::Io`] when a part of it was moved, replaced or removed.
    pub fn still_there(&self) -> Result<()> {
        self.engine.still_there()
    }

    /// Whether another process may have changed the store since the last call. Never misses a change.
    pub fn changed(&mut self) -> Result<bool> {
        self.engine.changed()
    }

    /// Begins to watch the store.
    ///
    /// # Errors
    /// When the system watches no more files for this user (`/proc/sys/fs/inotify/max_user_instances`, `max_user_watches`).
    pub fn watch(&self) -> std::io::Result<Watch> {
        self.engine.watch()
    }

    /// Runs `work` in one transaction that writes. `work` may run more than once. Triggers of an application see these changes like
    /// those of clients.
    fn write<T>(&mut self, work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        self.change(Triggers::All, work)
    }

    /// Like [`Store::write`], but without triggers: those of an application cannot interfere with the course of its calls.
    fn write_untriggered<T>(&mut self, work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        self.change(Triggers::None, work)
    }

    /// Like [`Store::write`], to end work that was begun before. It works even if a newer build has upgraded the store since.
    /// `work` learns whether that is so; then it may write nothing else. It runs without triggers, for speed: with triggers on a
    /// table, SQLite first collects the rows to update in a table of its own.
    fn write_in_any_schema<T>(&mut self, mut work: impl FnMut(&mut dyn Tx, bool) -> Result<T>) -> Result<T> {
        self.transact(Mode::Write(Triggers::None), |tx| {
            let is_newer = matches!(tx.found(), SchemaFound::Newer { .. });
            if !is_newer {
                tx.bring()?;
            }
            work(tx, is_newer)
        })
    }

    fn change<T>(&mut self, triggers: Triggers, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        self.transact(Mode::Write(triggers), |tx| {
            tx.bring()?;
            work(tx)
        })
    }

    /// Runs `work` on one state of the store.
    fn read<T>(&mut self, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        let done = self.transact(Mode::Read, |tx| match tx.found() {
            SchemaFound::Older(_) => Ok(None),
            SchemaFound::Newer { version, known } => Err(schema::too_new(version, known)),
            SchemaFound::Nothing | SchemaFound::Current => work(tx).map(Some),
        })?;
        match done {
            Some(done) => Ok(done),
            // It is upgraded first.
            None => self.write(work),
        }
    }

    /// Runs `work` on a store with any schema.
    fn transact<T>(&mut self, mode: Mode, mut work: impl FnMut(&mut dyn Tx) -> Result<T>) -> Result<T> {
        let (location, mut result) = (&self.location, None);
        self.engine.transact(mode, &mut |tx| {
            if tx.found() == SchemaFound::Nothing {
                let error = Error::new(Kind::Unreachable, format!("`{location}` holds no store"));
                return Err(error.with_hint(
                    "`asyncq init` makes one in it, next to the tables that it has; `--db` names another file",
                ));
            }
            result = Some(work(tx)?);
            Ok(())
        })?;
        Ok(result.expect("a committed transaction has run its work"))
    }
}
