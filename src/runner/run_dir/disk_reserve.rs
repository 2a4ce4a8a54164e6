//! Space that a processor keeps for the outcomes of its calls, should the disk be full when they end.
//!
//! A file apart from the store, as SQLite cannot be told to keep any for these: a WAL that is longer than what is in it
//! is there for whoever writes next, and no help where the database file itself has to grow.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

/// How large it is, in bytes.
const SIZE: u64 = 1024 * 1024;

/// How much of it is given up at once, so that others who wait for space get little of it: more than the outcome of one
/// call takes, unless its result is large.
const PIECE: u64 = 128 * 1024;

/// A file in the folder of a processor that holds nothing but space. Whoever records outcomes of its calls may give it up.
#[derive(Debug)]
pub struct DiskReserve(PathBuf);

impl DiskReserve {
    /// The reserve in that folder, as much of it as there is.
    #[must_use]
    pub fn of(folder: &Path) -> DiskReserve {
        DiskReserve(folder.join("reserve"))
    }

    /// Makes what is missing of it; so this also tells whether there is space.
    ///
    /// # Errors
    /// Whatever the file system answers; then it is what it was before.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        let there = file.metadata()?.len();
        // Where files may not be as large, the limit is in the way before the disk is full.
        let size = getrlimit(Resource::Fsize).current.map_or(SIZE, |limit| limit.min(SIZE));
        let filled = match retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, size)) {
            Err(Errno::OPNOTSUPP) => io::copy(&mut io::repeat(0).take(size.saturating_sub(there)), &mut file).map(drop),
            done => done.map_err(io::Error::from),
        };
        // What a file system has got together before it failed would be missing to others.
        filled.inspect_err(|_| drop(file.set_len(there)))
    }

    /// Gives up a piece of it; says whether there was one.
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
        assert!(!reserve.give());
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
