//! Which features a store uses. Statements leave out the features that the store has never used.
//!
//! Invariant: the transaction that adds the first row of a feature also sets its bit. When clients write, triggers of the schema do
//! that. No bit is ever cleared.

use super::engine::Tx;
use crate::error::Result;

/// Calls that expire. Bit 2 stands for schedules; a trigger on schedules sets it.
pub(super) const EXPIRY: i64 = 1;
/// Calls that need other jobs.
pub(super) const NEEDS: i64 = 4;
/// Services that do not keep their jobs forever.
pub(super) const RETENTION: i64 = 8;

const NOTE: &str = "UPDATE asyncq_schema SET used = used | ?1 WHERE (used & ?1) = 0";

/// A subquery that runs only if the store uses this feature. `?3` has the bits of all used features.
macro_rules! if_used {
    ($bit:literal, $($query:expr),+) => { concat!("CASE WHEN (?3 & ", $bit, ") <> 0 THEN (", $($query),+, ") END") };
}
pub(super) use if_used;

/// Sets the bit of a feature.
pub(super) fn note(tx: &mut dyn Tx, what: i64) -> Result<()> {
    if tx.used() & what == 0 {
        tx.execute(NOTE, &[what.into()])?;
    }
    Ok(())
}
