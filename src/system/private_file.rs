//! Files that only their owner may read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::error::reason;

/// Who else may read or write: the group and others.
const OTHERS: u32 = 0o066;

/// Why a file cannot be used.
#[derive(Debug)]
pub struct UnfitFile {
    /// The same in words, to follow the name of the file.
    pub what: String,
    /// Whether this user may not read it, although another user perhaps may.
    pub is_denied: bool,
    /// Whether others may read or write it.
    pub is_open: bool,
}

/// Reads a file that only its owner may read and write, of at most `largest` bytes. Follows links.
///
/// # Errors
/// What is wrong with it.
pub fn read_private(path: &Path, largest: u64) -> Result<Vec<u8>, UnfitFile> {
    let cannot = |error: std::io::Error| UnfitFile {
        what: match error.kind() {
            ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("cannot be read: {}", reason(&error)),
        },
        is_denied: error.kind() == ErrorKind::PermissionDenied,
        is_open: false,
    };
    let unfit = |what| Err(UnfitFile { what, is_denied: false, is_open: false });
    // Not to wait for the other end of a pipe.
    let opened =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = opened.map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return unfit("is not a file".to_owned());
    }
    if meta.mode() & OTHERS != 0 {
        let what = format!("is open to other users; `chmod 600 {}` closes it", path.display());
        return Err(UnfitFile { what, is_denied: false, is_open: true });
    }
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > largest {
        return unfit(format!("has more than {largest} bytes"));
    }
    Ok(bytes)
}
