//! Checks that nobody changes a file while it is read without locks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{SIDECARS, with_suffix};
use crate::error::{Error, Kind, Result};

/// A file that counts as unchanged as long as it stays as it was seen.
pub(super) struct Still {
    path: PathBuf,
    seen: (u64, i64, i64),
}

impl Still {
    /// A file that has no log or journal next to it.
    pub(super) fn see(path: &Path) -> Option<Still> {
        let path = path.to_owned();
        let seen = Self::state(&path)?;
        Some(Still { path, seen })
    }

    fn state(path: &Path) -> Option<(u64, i64, i64)> {
        if SIDECARS.iter().any(|suffix| fs::symlink_metadata(with_suffix(path, suffix)).is_ok()) {
            return None;
        }
        let meta = fs::metadata(path).ok()?;
        Some((meta.len(), meta.mtime(), meta.mtime_nsec()))
    }

    /// Checks that nobody has begun to change the file.
    ///
    /// # Errors
    /// [`Kind::Busy`] if somebody has: what was read may be wrong.
    pub(super) fn check(&self) -> Result<()> {
        if Self::state(&self.path) == Some(self.seen) {
            return Ok(());
        }
        Err(Error::new(Kind::Busy, format!("the store `{}` has just changed", self.path.display()))
            .with_hint("try again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_still_until_somebody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.db");
        assert!(Still::see(&path).is_none());
        fs::write(&path, "a").unwrap();
        let still = Still::see(&path).unwrap();
        still.check().unwrap();
        let wal = with_suffix(&path, "-wal");
        fs::write(&wal, "").unwrap();
        assert!(Still::see(&path).is_none());
        assert_eq!(still.check().unwrap_err().kind(), Kind::Busy);
        fs::remove_file(&wal).unwrap();
        fs::write(&path, "ab").unwrap();
        assert_eq!(still.check().unwrap_err().kind(), Kind::Busy);
    }
}
