//! What a store uses, noted where it begins, so that looks at a store that uses none of it cost less.
//!
//! Invariant: the transaction that adds the first row of something also notes it. For what clients write, triggers of the schema
//! do that. Nothing that was noted is forgotten.

use super::engine::Tx;
use crate::error::Result;

/// Calls that expire. Schedules are 2, which their trigger notes.
pub(super) const EXPIRY: i64 = 1;
/// Calls that need other jobs.
pub(super) const NEEDS: i64 = 4;

const NOTE: &str = "UPDATE asyncq_schema SET used = used | ?1 WHERE (used & ?1) = 0";

/// Gives a subquery where the store uses this; `?3` is what it uses.
macro_rules! if_used {
    ($bit:literal, $($query:expr),+) => { concat!("CASE WHEN (?3 & ", $bit, ") <> 0 THEN (", $($query),+, ") END") };
}
pub(super) use if_used;

/// Notes that the store uses this from now on.
pub(super) fn note(tx: &mut dyn Tx, what: i64) -> Result<()> {
    if tx.used() & what == 0 {
        tx.execute(NOTE, &[what.into()])?;
    }
    Ok(())
}
