//! Notices when somebody has removed a processor's folder.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::{io, os::unix::fs::MetadataExt};

use crate::runner::run_dir::LOCK;

/// The folder of a processor, as it was at some moment.
#[derive(Debug, Clone)]
pub struct Home {
    lock: PathBuf,
    /// Device and inode of the lock; `None` if there was none.
    was: Option<(u64, u64)>,
}

impl Home {
    /// The folder with this path, as it is now.
    pub fn find(folder: &Path) -> Home {
        let lock = folder.join(LOCK);
        Home { was: fs::symlink_metadata(&lock).ok().map(|is| identity(&is)), lock }
    }

    /// Whether it is still the same; also `true` if that is unknown.
    pub fn is_there(&self) -> bool {
        match fs::symlink_metadata(&self.lock) {
            Ok(is) => Some(identity(&is)) == self.was,
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        }
    }
}

fn identity(is: &Metadata) -> (u64, u64) {
    (is.dev(), is.ino())
}
