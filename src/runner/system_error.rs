//! Errors of the system, with hints.

use std::io::ErrorKind;

use rustix::io::Errno;

use super::start_failure::in_words;
use crate::error::{Error, Kind};

/// The error for `what`, which the system refused.
#[must_use]
pub fn io_error(what: &str, error: &std::io::Error) -> Error {
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

/// The hint for an error of the system.
pub fn hint(error: &std::io::Error) -> &'static str {
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
