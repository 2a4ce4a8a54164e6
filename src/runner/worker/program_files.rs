//! The files from which a worker was started: whether a deploy has put others in their place, or has written to them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::domain::function::Definition;

/// How often to look at most.
const LOOK: Duration = Duration::from_secs(1);

/// What the command line of a worker names, and the site in which it runs, as they were before it started.
#[derive(Debug)]
pub(in crate::runner) struct ProgramFiles {
    named: Vec<(PathBuf, Seen)>,
    looked: Instant,
    has_changed: bool,
}

/// What tells one file from another one, and from itself before it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    /// When it was written last, and its length; not of a folder, which changes with each file that somebody puts there.
    written: Option<(i64, i64, u64)>,
}

impl Seen {
    /// Through symbolic links; `None` of what is missing and of what is no file, as a terminal or a pipe.
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
    /// Looks at them, before a program is started in a site. What is written all the time, as the `store`, is not taken for a
    /// part of the program.
    pub(in crate::runner) fn of(definition: &Definition, site: &str, store: &Path) -> ProgramFiles {
        let site = Path::new(site);
        let store = Seen::look(store);
        let words = definition.command.iter().filter(|word| !word.is_empty()).map(|word| site.join(word));
        let paths = std::iter::once(site.to_owned()).chain(words);
        let seen = |path: PathBuf| Seen::look(&path).map(|seen| (path, seen));
        let named = paths.filter_map(seen).filter(|(_, seen)| store.is_none_or(|store| store.file != seen.file));
        ProgramFiles { named: named.collect(), looked: Instant::now(), has_changed: false }
    }

    /// Whether that was so when it was looked last.
    pub(in crate::runner) fn was_changed(&self) -> bool {
        self.has_changed
    }

    /// Whether one of them is another file now, or was written, as far as was looked. One that is missing will come: as long as
    /// it is not there, no other worker could be started from it.
    pub(in crate::runner) fn has_changed(&mut self) -> bool {
        if !self.has_changed && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.has_changed = self.named.iter().any(|(path, seen)| Seen::look(path).is_some_and(|now| now != *seen));
        }
        self.has_changed
    }
}
