//! The clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::time::{Timestamp, millis};

/// The current time.
pub fn now() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}
