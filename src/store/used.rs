//! What a store uses, noted where it begins, so that looks at a store that uses none of it cost less.
//!
//! Invariant: the transaction that adds the first row of something also notes it. For what clients write, triggers of the schema
//! do that. Nothing that was noted is forgotten.

use super::engine::Tx;
use crate::error::Result;

/// Calls that expire.
pub(super) const EXPIRY: i64 = 1;
/// Calls that need other jobs.
pub(super) const NEEDS: i64 = 4;

const NOTE: &str = "UPDATE asyncq_schema SET used = used | ?1 WHERE (used & ?1) = 0";

/// Notes that the store uses this from now on.
pub(super) fn note(tx: &mut dyn Tx, what: i64) -> Result<()> {
    if tx.used() & what == 0 {
        tx.execute(NOTE, &[what.into()])?;
    }
    Ok(())
}
