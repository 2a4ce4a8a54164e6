//! What asyncq does, as its mouths ask for it: the command line now, others later.
//!
//! Invariant: no clap and no printing here. What is only one verb of the store is asked of the store itself, which
//! [`open`] hands out.

pub mod batch;
pub mod enqueue;
pub mod function;
pub mod job;
pub mod lines;
pub mod process;
pub mod waiting;

use crate::error::Result;
use crate::runner::process::signals;
use crate::runner::system_error::io_error;
pub use crate::store::{Cancelled, Location, Patience, Store, absolute, as_shown, is_same};

/// Opens a store that exists.
///
/// # Errors
/// As [`Store::open`].
pub fn open(location: &Location, patience: Patience) -> Result<Store> {
    Store::open(location, patience)
}

/// Opens a store, and makes its file first where there is none; says whether it did.
///
/// # Errors
/// As [`Store::open_or_make`].
pub fn open_or_make(location: &Location, patience: Patience) -> Result<(Store, bool)> {
    Store::open_or_make(location, patience)
}

/// Opens a store, and makes or upgrades it first where that is needed; says whether it was.
///
/// # Errors
/// As [`Store::create`].
pub fn create(location: &Location, patience: Patience) -> Result<(Store, bool)> {
    Store::create(location, patience)
}

/// The database engines that are built in, with their versions.
#[must_use]
pub fn engines() -> String {
    Store::engines()
}

/// A write that exceeds the size that files may have (`ulimit -f`) fails from now on, instead of ending this process.
///
/// # Errors
/// When the system refuses handlers.
pub fn outlive_limits() -> Result<()> {
    signals::outlive_limits().map_err(|error| io_error("cannot handle signals", &error))
}

/// Undoes what the caller has done to signals; every command that starts programs calls this first.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn reset_signals() -> Result<()> {
    signals::reset().map_err(|error| io_error("cannot handle signals", &error))
}
