//! Disk space that a processor reserves for the outcomes of its calls, in case the disk is full when they end.
//!
//! It is a separate file, because SQLite cannot reserve space for one writer: free space in the WAL goes to whichever process
//! writes next, and does not help when the database file itself has to grow.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

/// The size of the reserve, in bytes.
pub const SIZE: u64 = 1024 * 1024;

/// How much of it to free at once. That is more than the outcome of one call takes, unless its result is large. But it is small, so
/// that other processes that wait for space get little of it.
const PIECE: u64 = 128 * 1024;

/// A file in the folder of a processor that holds only space. The process that records outcomes of its calls frees it.
#[derive(Debug)]
pub struct DiskReserve(PathBuf);

impl DiskReserve {
    /// The reserve in a folder, whatever is left of it.
    pub fn of(folder: &Path) -> DiskReserve {
        DiskReserve(folder.join("reserve"))
    }

    /// Fills it up. This also shows whether there is space.
    ///
    /// # Errors
    /// Whatever the file system answers; then the reserve is as before.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        let there = file.metadata()?.len();
        // A limit on the size of files may stop the store before the disk is full.
        let size = getrlimit(Resource::Fsize).current.map_or(SIZE, |limit| limit.min(SIZE));
        let filled = match retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, size)) {
            Err(Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(size.saturating_sub(there)), &mut file).map(drop),
            done => done.map_err(io::Error::from),
        };
        // Other processes may need the space that the file system took before it failed.
        filled.inspect_err(|_| drop(file.set_len(there)))
    }

    /// How many bytes it lacks; none if this user cannot see it.
    #[must_use]
    pub fn missing(&self) -> u64 {
        match fs::metadata(&self.0) {
            Ok(meta) => SIZE.saturating_sub(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => SIZE,
            Err(_) => 0,
        }
    }

    /// Frees a piece of it. Returns whether there was one.
    #[must_use]
    pub fn give(&self) -> bool {
        let left = fs::metadata(&self.0).map_or(0, |meta| meta.len());
        let given = || OpenOptions::new().write(true).open(&self.0)?.set_len(left.saturating_sub(PIECE));
        left > 0 && given().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_was_given_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let space = || fs::metadata(folder.path().join("reserve")).map_or(0, |meta| meta.blocks() * 512);
        let reserve = DiskReserve::of(folder.path());
        assert!(!reserve.give() && reserve.missing() == SIZE);
        reserve.fill().unwrap();
        let whole = space();
        assert!(whole >= SIZE, "{whole}");
        assert!(reserve.give() && reserve.give());
        assert_eq!(space(), whole - 2 * PIECE);
        reserve.fill().unwrap();
        assert_eq!(space(), whole);
        assert_eq!((0..100).filter(|_| reserve.give()).count() as u64, SIZE / PIECE);
        assert_eq!(space(), 0);
    }
}
