//! Errors of the system in words, with hints.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

use crate::error::{Error, Kind, reason};

/// The error for `what`, which the system refused.
pub fn io_error(what: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Kind::Full,
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => Kind::Busy,
        _ => Kind::Io,
    };
    Error::new(kind, format!("{what}: {}", in_words(error))).with_hint(hint(error))
}

/// What the system lacks, for people; for any other error, its own words.
pub fn in_words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => "the system gives no more processes and threads".to_owned(),
        Some(Errno::NOMEM) => "the system gives no more memory".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "too many files are open".to_owned(),
        _ => reason(error),
    }
}

/// The error of a system call. It names the call if the system does not know it, or a container or sandbox refuses it.
pub fn of_call(name: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS | Errno::PERM) => io::Error::new(error.kind(), format!("the system refuses `{name}`")),
        _ => error,
    }
}

const MAY_BE_REFUSED: &str = "if a container or a sandbox refuses system calls, have it allow `clone3`, `fallocate`, `ioctl`, \
    `pidfd_open` and `prctl`; else look who may do this, and whether this Linux is older than 5.4";

/// The hint for an error of the system.
pub fn hint(error: &io::Error) -> &'static str {
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
