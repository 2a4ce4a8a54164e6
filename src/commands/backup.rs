//! Backups of a store.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io::ErrorKind, os::unix::ffi::OsStrExt};

use super::{caller::Caller, queue::Queue};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result, reason};

/// Where a backup goes.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// A file that is not there yet, or a folder.
    pub to: PathBuf,
    /// In a folder: how many of the store's backups stay, the new one included.
    pub keep: Option<NonZeroUsize>,
    /// The moment that the file is named after, in a folder.
    pub now: Timestamp,
}

/// A backup that was made.
#[derive(Debug)]
pub struct BackedUp {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it holds tables of an application too.
    pub is_shared: bool,
    /// How many older ones were removed.
    pub removed: usize,
}

/// The end of a backup's name in a folder.
const SUFFIX: &str = ".db";

impl Queue {
    /// Copies the whole database into a new file.
    ///
    /// # Errors
    /// As [`Store::back_up`](crate::store::Store::back_up); [`Kind::Usage`] for `-`, and when backups are to be kept and no folder is named. When
    /// an older backup cannot be removed, the new one is there.
    pub fn back_up(&mut self, caller: &Caller, request: &BackupRequest) -> Result<BackedUp> {
        if request.to == Path::new("-") {
            return Err(Error::new(Kind::Usage, "a backup cannot be written to standard output")
                .with_hint("name a file, and read that when it is complete: asyncq backup q.db && gzip q.db"));
        }
        let to = caller.path(&request.to)?;
        if !to.is_dir() {
            if to.as_os_str().as_bytes().ends_with(b"/") {
                return Err(Error::new(Kind::NotFound, format!("there is no folder `{}`", request.to.display()))
                    .with_hint("make it first, with `mkdir`"));
            }
            if request.keep.is_some() {
                return Err(Error::new(Kind::Usage, format!("`{}` is no folder", request.to.display()))
                    .with_hint("`--keep` is for backups in a folder: name one that is there"));
            }
            let copied = self.store.back_up(&to)?;
            return Ok(BackedUp { path: to, bytes: copied.bytes, is_shared: copied.is_shared, removed: 0 });
        }
        let stem = self.stem()?;
        let (path, copied) = loop {
            let path = free_name(&to, &stem, request.now);
            match self.store.back_up(&path) {
                // Another backup has taken the name meanwhile.
                Err(error) if error.kind() == Kind::Denied && fs::symlink_metadata(&path).is_ok() => {}
                made => break (path, made?),
            }
        };
        let removed = match request.keep {
            Some(keep) => remove_older(&to, &stem, (&path, keep))?,
            None => 0,
        };
        Ok(BackedUp { path, bytes: copied.bytes, is_shared: copied.is_shared, removed })
    }

    /// The name of the store's file without its ending, through links.
    fn stem(&self) -> Result<OsString> {
        let file = self.store.location().file()?;
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        Ok(file.file_stem().unwrap_or(OsStr::new("queue")).to_owned())
    }
}

/// The path of a backup of this moment; of a later second, if there is one.
fn free_name(folder: &Path, stem: &OsStr, now: Timestamp) -> PathBuf {
    let mut moment = now;
    loop {
        let mut name = stem.to_owned();
        name.push(format!("-{}{SUFFIX}", moment.in_name()));
        let path = folder.join(name);
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        moment = moment.after(Duration::from_secs(1));
    }
}

/// Whether asyncq gives such a name to a backup of this store.
fn is_backup(name: &OsStr, stem: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(stem.as_bytes()).and_then(|rest| rest.strip_prefix(b"-"));
    let moment = rest.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    moment.is_some_and(|moment| {
        moment.len() == 16
            && moment.iter().enumerate().all(|(at, byte)| match at {
                8 => *byte == b'T',
                15 => *byte == b'Z',
                _ => byte.is_ascii_digit(),
            })
    })
}

/// Removes the older backups of a store, so that `keep` stay: the one that was made now, whatever its name says, and then those with
/// the latest names.
fn remove_older(folder: &Path, stem: &OsStr, (new, keep): (&Path, NonZeroUsize)) -> Result<usize> {
    let fail = |path: &Path, error: &std::io::Error| {
        let kind = if error.kind() == ErrorKind::PermissionDenied { Kind::Denied } else { Kind::Io };
        let message = format!("the backup `{}` is made, but `{}` cannot be removed", new.display(), path.display());
        Error::new(kind, format!("{message}: {}", reason(error))).with_hint("remove it yourself, or leave out `--keep`")
    };
    let entries = fs::read_dir(folder).map_err(|error| fail(folder, &error))?;
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let names =
        entries.flatten().filter(|entry| is_file(entry) && Some(entry.file_name().as_os_str()) != new.file_name());
    let mut names: Vec<OsString> = names.map(|entry| entry.file_name()).filter(|name| is_backup(name, stem)).collect();
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(keep.get() - 1));
    for name in &names {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|error| fail(&path, &error))?;
    }
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_backups_of_this_store() {
        let is = |name: &str| is_backup(OsStr::new(name), OsStr::new("queue"));
        assert!(is("queue-20261130T023000Z.db"));
        for other in [
            "queue.db",
            "queue-20261130T023000Z.db-wal",
            "queue-20261130T023000Z",
            "queue-20261130T02300Z.db",
            "queue-2026113xT023000Z.db",
            "queue-old-20261130T023000Z.db",
            "other-20261130T023000Z.db",
            ".queue-20261130T023000Z.db",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
