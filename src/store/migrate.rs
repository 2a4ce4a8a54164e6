//! The version of the schema: a new store gets the newest, an older one is upgraded, a newer one is refused.
//!
//! Invariant: whatever happens, happens in the caller's transaction; a store is never seen half upgraded.

use std::cmp::Ordering;

use super::engine::Tx;
use crate::error::{Error, Kind, Result};

/// What this build works with.
pub(super) const SCHEMA: Schema = Schema { version: 1, fresh: include_str!("../../schema.sql"), steps: &[] };

/// A schema and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Its number.
    pub(super) version: i64,
    /// The script that makes it in a database without one.
    pub(super) fresh: &'static str,
    /// The scripts that lead from version 1 to 2, from 2 to 3, and so on; each only adds.
    pub(super) steps: &'static [&'static str],
}

/// What was found in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// No tables of asyncq.
    Nothing,
    /// The schema of this build.
    Current,
    /// An older one, with its number.
    Older(i64),
}

impl Schema {
    /// Looks which schema the store has.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it is newer than this build.
    pub(super) fn look(&self, tx: &mut dyn Tx) -> Result<Found> {
        let version = match tx.first("SELECT version FROM asyncq_schema", &[], |row| row.i64(0)) {
            Ok(version) => version,
            // Asked only now, so that a good store pays for one look and not for two.
            Err(_) if !tx.has_table("asyncq_schema")? => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let version = version.ok_or_else(|| super::engine::damaged("`asyncq_schema` is empty"))?;
        match version.cmp(&self.version) {
            Ordering::Equal => Ok(Found::Current),
            Ordering::Less => Ok(Found::Older(version)),
            Ordering::Greater => Err(Error::new(
                Kind::Busy,
                format!("the store has schema {version}, this asyncq knows schemas up to {}", self.version),
            )
            .hint("a newer asyncq has upgraded it: install that version here too")),
        }
    }

    /// Brings the store to this schema.
    pub(super) fn bring(&self, tx: &mut dyn Tx, found: Found) -> Result<()> {
        let from = match found {
            Found::Current => return Ok(()),
            Found::Nothing => return tx.script(self.fresh),
            Found::Older(from) => from,
        };
        let done = usize::try_from(from - 1).map_err(|_| super::engine::damaged("a schema before the first"))?;
        for step in &self.steps[done..] {
            tx.script(step)?;
        }
        tx.execute("UPDATE asyncq_schema SET version = ?1", &[self.version.into()])?;
        Ok(())
    }
}
