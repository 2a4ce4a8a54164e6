//! What asyncq does, as its mouths ask for it: the command line now, others later.
//!
//! Invariant: no clap and no printing here. What is only one verb of the store is asked of the store itself, which
//! [`open`] hands out.

pub mod batch;
pub mod enqueue;
pub mod function;
pub mod job;
pub mod lines;
pub mod nested;
mod outcome;
pub mod process;
pub mod waiting;

use std::io::ErrorKind;

use nix::unistd::User;
use rustix::io::Errno;

use crate::domain::attempt::Outcome;
use crate::domain::job::Token;
use crate::error::{Error, Kind, Result, reason};
use crate::runner::{in_words, signals};
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

/// The version of the SQLite that is built in.
#[must_use]
pub fn store_version() -> &'static str {
    Store::sqlite_version()
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

/// The system's name for a user, or the number when there is no name.
#[must_use]
pub fn user(number: u32) -> String {
    User::from_uid(number.into()).ok().flatten().map_or_else(|| number.to_string(), |user| user.name)
}

/// A secret that nobody can guess.
fn new_token() -> Result<Token> {
    let mut bits = [0; 16];
    random(&mut bits)?;
    Ok(Token::from_random(u128::from_ne_bytes(bits)))
}

/// So many new secrets, drawn at once.
fn new_tokens(count: usize) -> Result<impl Iterator<Item = Token>> {
    let mut bits = vec![[0; 16]; count];
    random(bits.as_flattened_mut())?;
    Ok(bits.into_iter().map(|bits| Token::from_random(u128::from_ne_bytes(bits))))
}

/// What decides how long a call that ended so waits to be tried again.
fn draw_for(outcome: &Outcome) -> Result<f64> {
    if matches!(outcome, Outcome::Conflict(_) | Outcome::Unstarted(_)) { draw() } else { Ok(0.0) }
}

/// A random number from 0 up to 1.
fn draw() -> Result<f64> {
    let mut bits = [0; 4];
    random(&mut bits)?;
    Ok(f64::from(u32::from_ne_bytes(bits)) / f64::from(u32::MAX))
}

fn random(bits: &mut [u8]) -> Result<()> {
    getrandom::fill(bits).map_err(|error| {
        Error::new(Kind::Io, format!("the system gives no random numbers: {}", reason(&error)))
            .with_hint("asyncq needs `getrandom(2)`")
    })
}

fn io_error(what: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Kind::Full,
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => Kind::Busy,
        _ => Kind::Io,
    };
    Error::new(kind, format!("{what}: {}", in_words(error))).with_hint(hint(error))
}

const MAY_BE_REFUSED: &str = "if a container or a sandbox refuses system calls, have it allow `clone3`, `fallocate`, `ioctl`, \
    `pidfd_open` and `prctl`; else look who may do this, and whether this Linux is older than 5.4";

fn hint(error: &std::io::Error) -> &'static str {
    if error.kind() == ErrorKind::InvalidFilename {
        return "a name in it is too long; put the store where its path is shorter";
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => "make room and try again",
        Some(Errno::MFILE | Errno::NFILE) => "`ulimit -n` shows how many there may be; try again when there are fewer",
        Some(Errno::AGAIN | Errno::NOMEM) => {
            "try again when fewer processes run and memory is free; `ulimit -u` and `ulimit -v` show the limits"
        }
        Some(Errno::NOENT | Errno::NOTDIR) => "look whether it is there; asyncq also needs `/proc`",
        Some(Errno::ACCESS | Errno::ROFS) => "let its owner change what asyncq may do there",
        Some(Errno::PERM) => MAY_BE_REFUSED,
        // An error that names a system call has no number.
        _ if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => MAY_BE_REFUSED,
        _ => "look at the disk, and at `dmesg` for what the system says about it; then try again",
    }
}
