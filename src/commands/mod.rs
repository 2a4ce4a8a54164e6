//! What asyncq does, as its mouths ask for it: the command line now, others later.
//!
//! Invariant: no clap and no printing here. What is only one verb of the store is asked of the store itself, which
//! [`open`] hands out.

pub mod enqueue;
pub mod function;
pub mod job;
pub mod nested;
pub mod process;

use crate::domain::job::Token;
use crate::error::{Error, Kind, Result};
pub use crate::store::{
    Added, Cancelled, CleanQuery, Enqueued, IfWaiting, JobQuery, Location, Patience, Removed, Store,
};

/// Opens a store that exists.
///
/// # Errors
/// As [`Store::open`].
pub fn open(location: &Location, patience: Patience) -> Result<Store> {
    Store::open(location, patience)
}

/// Opens a store, and makes or upgrades it first where that is needed; says whether it was.
///
/// # Errors
/// As [`Store::create`].
pub fn create(location: &Location, patience: Patience) -> Result<(Store, bool)> {
    Store::create(location, patience)
}

/// The version of the SQLite that is built in.
#[must_use]
pub fn store_version() -> &'static str {
    Store::sqlite_version()
}

/// A secret that nobody can guess.
fn new_token() -> Result<Token> {
    let mut bits = [0; 16];
    random(&mut bits)?;
    Ok(Token::from_random(u128::from_ne_bytes(bits)))
}

/// A random number from 0 up to 1.
fn draw() -> Result<f64> {
    let mut bits = [0; 4];
    random(&mut bits)?;
    Ok(f64::from(u32::from_ne_bytes(bits)) / f64::from(u32::MAX))
}

fn random(bits: &mut [u8]) -> Result<()> {
    getrandom::fill(bits).map_err(|error| Error::new(Kind::Io, format!("the system gives no random numbers: {error}")))
}

fn io_error(what: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        _ => Kind::Io,
    };
    Error::new(kind, format!("{what}: {error}"))
}
