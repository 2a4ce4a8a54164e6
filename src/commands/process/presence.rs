//! The processor's presence in the store and beside it: made with its first claim, gone when it ends.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::processor::ProcessorId;
use crate::error::Result;
use crate::runner::{Folder, Surroundings};
use crate::store::Store;

/// Where processors have their folders, and what functions inherit.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The folder beside the store.
    pub path: PathBuf,
    /// The path of asyncq itself.
    pub program: PathBuf,
    /// The processor's own environment.
    pub env: Vec<(OsString, OsString)>,
}

/// A registered processor with its locked folder.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) id: ProcessorId,
    pub(super) around: Arc<Surroundings>,
    folder: Folder,
}

impl Presence {
    /// Locks first and registers then, so that nobody who sees the registration can think us dead.
    pub(super) fn begin(store: &mut Store, run: &RunFolder) -> Result<Presence> {
        let fail = |error| {
            let what = format!("cannot work in `{}`", run.path.display());
            super::super::io_error(&what, &error)
        };
        let name = super::super::new_token()?.as_str().to_owned();
        let folder = Folder::make(&run.path, name).map_err(fail)?;
        let id = store.register(&folder.describe().map_err(fail)?)?;
        let around = Surroundings::new(
            store.location().to_string(),
            folder.path().to_owned(),
            run.env.iter().cloned(),
            &run.program,
        );
        Ok(Presence { id, around: Arc::new(around), folder })
    }

    /// Leaves nothing behind.
    pub(super) fn end(self, store: &mut Store) -> Result<()> {
        store.unregister(self.id)?;
        drop(self.folder);
        Ok(())
    }
}
