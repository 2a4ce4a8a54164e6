//! A queue: the store that a caller names, and what concerns all of it.

use std::path::{Path, PathBuf};
use std::{ffi::OsStr, time::Duration};

use super::caller::{Caller, os_user};
use crate::domain::{event::Event, removal::StoreContents};
use crate::error::{Error, Result};
use crate::processor::{put_back_all_unowned, put_back_copied, rescue_copied};
use crate::store::{Location, Patience, Store};

/// Which store a caller means, and how it uses it.
#[derive(Debug, Clone)]
pub struct Place {
    pub(super) location: Location,
    pub(super) patience: Patience,
    is_named: bool,
    trouble: fn(&Error),
}

/// A queue that is open. Its methods are what every caller can ask of asyncq.
pub struct Queue {
    pub(super) store: Store,
}

/// What making or mending a store did.
#[derive(Debug, Clone, Copy)]
pub struct Prepared {
    /// Whether it was made, or upgraded; otherwise it was searched for damage.
    pub made: bool,
    /// Whether it was made in a file that holds tables of an application.
    pub is_shared: bool,
}

impl Place {
    /// The store with this name. A relative path counts from the caller's working directory. `lock_timeout` is how long to wait for
    /// a store that another process has locked. `trouble` gets errors that do not stop the command.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] for a name that names no store, [`crate::Kind::NotFound`] when the name is relative and the working
    /// directory is gone.
    pub fn named(name: &OsStr, caller: &Caller, lock_timeout: Duration, trouble: fn(&Error)) -> Result<Place> {
        // An absolute path does not need the working directory, which may be gone.
        let folder = if Path::new(name).is_absolute() { PathBuf::from("/") } else { caller.folder()? };
        let location = Location::parse(name, &folder)?;
        Ok(Place { location, patience: Patience::Deadline(lock_timeout), is_named: true, trouble })
    }

    /// The store that is meant when none is named.
    pub fn default_at(path: PathBuf, lock_timeout: Duration, trouble: fn(&Error)) -> Place {
        Place { location: Location::File(path), patience: Patience::Deadline(lock_timeout), is_named: false, trouble }
    }

    /// The location of the store, as it was named. The path of a file is absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(self.location.as_os_str())
    }

    /// Whether there is a file.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path().exists()
    }

    /// Opens the store.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(&self) -> Result<Queue> {
        Store::open(&self.location, self.patience).map(|store| self.queue(store))
    }

    /// Opens the store. If there is no file, makes one first, and says so.
    ///
    /// # Errors
    /// As [`Store::open_or_make`].
    pub fn open_or_make(&self) -> Result<(Queue, bool)> {
        self.refuse_strangers_home()?;
        let (store, made) = Store::open_or_make(&self.location, self.patience)?;
        Ok((self.queue(store), made))
    }

    /// Makes or upgrades the store, even in an existing database. If it is up to date, searches it for damage, and makes missing or
    /// changed parts of its schema again. `tell` gets what was mended and which jobs were put back.
    ///
    /// # Errors
    /// As [`Store::create`], [`Store::check`] and [`Store::check_numbers`].
    pub fn prepare(&self, tell: &mut dyn FnMut(Event<'_>)) -> Result<(Queue, Prepared)> {
        self.refuse_strangers_home()?;
        let (store, made) = Store::create(&self.location, self.patience)?;
        let mut queue = self.queue(store);
        let store = &mut queue.store;
        if !made {
            store.check()?;
        }
        for mended in store.mend()? {
            tell(Event::Mended(&mended.to_string()));
        }
        if !made {
            store.check_numbers()?;
            rescue_copied(store, tell)?;
            let unowned = put_back_all_unowned(store)?;
            if !unowned.is_empty() {
                tell(Event::Unowned(&unowned));
            }
        }
        let is_shared = made && store.has_company()?;
        Ok((queue, Prepared { made, is_shared }))
    }

    fn queue(&self, mut store: Store) -> Queue {
        store.on_trouble(self.trouble);
        store.set_user(os_user);
        Queue { store }
    }

    /// With `sudo -E`, the default store is in the home of another user. Nobody has asked for that.
    pub(super) fn refuse_strangers_home(&self) -> Result<()> {
        if self.is_named { Ok(()) } else { self.location.refuse_foreign_folder() }
    }
}

impl Queue {
    /// From now on, jobs and schedules show their secret arguments.
    pub fn reveal_secrets(&mut self) {
        self.store.reveal_secrets();
    }

    /// Where its store is, as it was named.
    pub fn place(&self) -> &(dyn std::fmt::Display + 'static) {
        self.store.location()
    }

    /// What would be removed with asyncq's tables now.
    ///
    /// # Errors
    /// As [`Store::removal`].
    pub fn removal(&mut self) -> Result<StoreContents> {
        put_back_copied(&mut self.store)?;
        self.store.removal()
    }

    /// Removes asyncq's tables from their database.
    ///
    /// # Errors
    /// As [`Store::removal`]; then nothing was removed.
    pub fn remove(mut self) -> Result<()> {
        self.store.remove()
    }
}

/// The database engines that are built in, with their versions.
pub fn engines() -> String {
    Store::engines()
}
