//! The exit codes of asyncq, and which error has which code.

use crate::error::{Error, Kind};

/// Done.
pub const DONE: u8 = 0;
/// A call failed, or the answer is no.
pub const FAILED: u8 = 1;
/// Wrong usage (clap's own).
pub const USAGE: u8 = 2;
/// Bad data (`EX_DATAERR` of sysexits.h).
pub const DATA: u8 = 65;
/// No such service, function or job (`EX_NOINPUT`).
pub const NOT_FOUND: u8 = 66;
/// There is no store, or it cannot be reached (`EX_UNAVAILABLE`).
pub const UNREACHABLE: u8 = 69;
/// Input or output failed (`EX_IOERR`).
pub const IO: u8 = 74;
/// Busy, or a newer schema: try again (`EX_TEMPFAIL`). Also a nested call that ended in a conflict.
pub const BUSY: u8 = 75;
/// Not allowed (`EX_NOPERM`).
pub const DENIED: u8 = 77;

/// The exit code for an error.
pub fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Error>().map_or(IO, |error| code_of(error.kind()))
}

/// The exit code for an error of this kind.
pub fn code_of(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => USAGE,
        Kind::Invalid => DATA,
        Kind::NotFound => NOT_FOUND,
        Kind::Unreachable => UNREACHABLE,
        Kind::Io | Kind::Full => IO,
        Kind::Busy => BUSY,
        Kind::Denied => DENIED,
    }
}
