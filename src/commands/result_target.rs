//! The file that gets the result of a nested call.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::domain::{job::JobId, json::Json, text::escape_control};
use crate::error::{Error, Kind, Result, reason};

/// An open file whose content is unchanged. Dropping this removes the file if this has made it.
pub(super) struct ResultTarget {
    path: PathBuf,
    file: File,
    is_new: bool,
}

impl ResultTarget {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// [`Kind::Denied`] when this user may not write to it, [`Kind::Io`] for all else that the file system answers.
    pub(super) fn open(path: &Path) -> Result<ResultTarget> {
        let mut options = OpenOptions::new();
        let (opened, is_new) = match options.write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => (options.create_new(true).open(path), true),
            opened => (opened, false),
        };
        let file = opened.map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                _ => Kind::Io,
            };
            Error::new(kind, format!("cannot write to {}: {}", named(path), reason(&error)))
                .with_hint("the call was not run; give `--result-to` a file that you may write")
        })?;
        Ok(ResultTarget { path: path.to_owned(), file, is_new })
    }

    /// Replaces the content of the file by the result of a job that has succeeded. Without a result, it becomes empty.
    ///
    /// # Errors
    /// [`Kind::Io`] when that is not possible.
    pub(super) fn write(mut self, job: JobId, result: Option<&Json>) -> Result<()> {
        self.is_new = false;
        let mut write = || {
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            result.map_or(Ok(()), |result| self.file.write_all(format!("{result}\n").as_bytes()))
        };
        write().map_err(|error| {
            let what = format!("job {job} is completed, but its result cannot be written to {}", named(&self.path));
            Error::new(Kind::Io, format!("{what}: {}", reason(&error)))
                .with_hint(format!("`asyncq job result {job}` prints it"))
        })
    }
}

impl Drop for ResultTarget {
    fn drop(&mut self) {
        if self.is_new {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn named(path: &Path) -> String {
    format!("`{}`", escape_control(&path.to_string_lossy()))
}
