//! What a shell completes.

use std::ffi::OsStr;

use super::program::is_program;
use super::queue::Place;
use crate::domain::completion::{Candidate, Topic};
use crate::error::Result;
use crate::store::Store;

impl Place {
    /// Words that `start` may be the beginning of. Makes, locks and upgrades nothing.
    ///
    /// # Errors
    /// As [`Store::open_to_read`], and whatever keeps the store from being read.
    pub fn completions(&self, topic: &Topic, start: &str) -> Result<Vec<Candidate>> {
        Store::open_to_read(&self.location, self.patience)?.completions(topic, start)
    }
}

/// The names of the programs in the folders of a `$PATH` that begin like this, sorted. A name with a slash is a path, for which
/// there are none.
#[must_use]
pub fn programs(path: &OsStr, start: &str) -> Vec<String> {
    let folders = std::env::split_paths(path).filter_map(|folder| std::fs::read_dir(folder).ok());
    let entries = folders.flat_map(Iterator::flatten);
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (name.starts_with(start) && is_program(&entry.path())).then_some(name)
    });
    let names: std::collections::BTreeSet<String> = names.collect();
    names.into_iter().collect()
}
