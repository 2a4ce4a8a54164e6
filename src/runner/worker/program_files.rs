//! The files from which a worker was started. They tell when a deploy has replaced or written one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs::Metadata, os::unix::fs::MetadataExt};

use crate::domain::function::Definition;

/// How often to check at most.
const LOOK: Duration = Duration::from_secs(1);

/// The files that the command line of a worker names, its site, and its file of variables, as they were before its start.
#[derive(Debug)]
pub(super) struct ProgramFiles {
    named: Vec<(PathBuf, Seen)>,
    looked: Instant,
    /// Whether the last check found a change.
    pub(super) has_changed: bool,
}

/// What identifies a file and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    /// When it was last written, and its length; `None` for a folder, because each new file in it changes it.
    written: Option<(i64, i64, u64)>,
}

impl Seen {
    /// Follows symbolic links; `None` if the file is missing, a terminal or a pipe.
    fn look(path: &Path) -> Option<Seen> {
        let meta = path.metadata().ok()?;
        let file = (meta.dev(), meta.ino());
        let written = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec(), meta.size());
        match meta.file_type() {
            kind if kind.is_file() => Some(Seen { file, written: Some(written(&meta)) }),
            kind if kind.is_dir() => Some(Seen { file, written: None }),
            _ => None,
        }
    }
}

impl ProgramFiles {
    /// Looks at them before a program is started in a site. The `store` is written all the time, and is not a part of the program.
    pub(super) fn of(definition: &Definition, site: &str, store: &Path) -> ProgramFiles {
        let site = Path::new(site);
        let store = Seen::look(store);
        let words = definition.command.iter().filter(|word| !word.is_empty()).map(|word| site.join(word));
        let paths = std::iter::once(site.to_owned()).chain(words).chain(definition.env_file());
        let seen = |path: PathBuf| Seen::look(&path).map(|seen| (path, seen));
        let named = paths.filter_map(seen).filter(|(_, seen)| store.is_none_or(|store| store.file != seen.file));
        ProgramFiles { named: named.collect(), looked: Instant::now(), has_changed: false }
    }

    /// Checks now and then whether one of them was replaced or written. A missing file does not count, because no new worker could
    /// be started without it.
    pub(super) fn check(&mut self) -> bool {
        if !self.has_changed && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.has_changed = self.named.iter().any(|(path, seen)| Seen::look(path).is_some_and(|now| now != *seen));
        }
        self.has_changed
    }
}
