//! Copies of the whole store.

use std::path::Path;

use super::Store;
use super::engine::{Mode, one};
use super::schema::Copied;
use crate::error::Result;

impl Store {
    /// Copies the whole database, as it is now, into a new file with mode 0600. The file gets its name when it is complete, has been
    /// searched for damaged pages, and is on the disk. Nothing in the store changes, not even an older schema. `target` is absolute.
    /// What killed copies left in its folder is removed.
    ///
    /// With a WAL, writers go on meanwhile. With a rollback journal they wait with their commits until the copy is made.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::Kind) when something is at the target, or would belong to another database there, and when this user may
    /// not write there; [`Kind::Full`](crate::Kind) when there is no space; [`Kind::Invalid`](crate::Kind) when the store is damaged. Then
    /// nothing is left of the copy.
    pub fn back_up(&mut self, target: &Path) -> Result<Copied> {
        let mut copied = None;
        self.transact(Mode::Read, |tx| {
            copied = Some(tx.copy_to(target)?);
            Ok(())
        })?;
        one(copied)
    }
}
