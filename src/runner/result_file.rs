//! The file into which a function may write its result.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::{io::Read, os::unix::fs::OpenOptionsExt};

use rustix::fs::OFlags;

use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::job::Fence;
use crate::domain::json::{Json, MAX_BYTES};
use crate::error::reason;

/// A place for the result of one attempt. The function makes the file; dropping this removes it.
#[derive(Debug)]
pub(in crate::runner) struct ResultFile(PathBuf);

impl ResultFile {
    pub(in crate::runner) fn new(folder: &Path, fence: &Fence) -> ResultFile {
        ResultFile(folder.join(format!("result-{}-{}", fence.job, fence.attempt)))
    }

    pub(in crate::runner) fn path(&self) -> &Path {
        &self.0
    }

    /// The result that the function has left, if any.
    pub(in crate::runner) fn take(&self) -> Result<Option<Json>, Failure> {
        let bad = |why: &str| Err(Failure::new(FailureKind::BadResult, format!("its result is {why}")));
        // Not through a link, and without waiting for a pipe.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return bad(&format!("unreadable: {}", reason(&error))),
        };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return bad("not a regular file");
        }
        let mut bytes = Vec::new();
        match file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) if bytes.trim_ascii().is_empty() => Ok(None),
            Ok(_) if bytes.len() > MAX_BYTES => bad(&format!("too large: at most {MAX_BYTES} bytes are allowed")),
            Ok(_) => match String::from_utf8(bytes).map(|text| Json::parse(&text)) {
                Ok(Ok(json)) => Ok(Some(json)),
                Ok(Err(flaw)) => bad(&flaw.to_string()),
                Err(_) => bad("not UTF-8"),
            },
            Err(error) => bad(&format!("unreadable: {}", reason(&error))),
        }
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        // Most functions make none.
        let _ = fs::remove_file(&self.0);
    }
}
