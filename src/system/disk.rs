//! The space on a disk.

use std::{os::unix::fs::MetadataExt, path::Path};

/// How many bytes this user can still write to the file system of this file; `None` if the system does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    let is = rustix::fs::statvfs(path).ok()?;
    let blocks = if rustix::process::geteuid().is_root() { is.f_bfree } else { is.f_bavail };
    Some(blocks.saturating_mul(is.f_frsize))
}

/// How many files this process may have open.
pub fn file_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether a file can be written by users who are neither its owner nor in its group.
#[must_use]
pub fn others_can_write(file: &Path) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o002;
    std::fs::metadata(file).is_ok_and(|is| is.mode() & OTHERS_MAY_WRITE != 0)
}
