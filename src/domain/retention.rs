//! How long jobs stay in the store after they have ended.

use std::time::Duration;

use super::time::{parse_span, write_span};
use crate::error::Result;

/// How long a service keeps its jobs; `None` means forever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that completed or were cancelled.
    pub ended: Option<Duration>,
    /// Those that ended in an error.
    pub errors: Option<Duration>,
}

/// What stands for ever.
const FOREVER: &str = "forever";

/// Parses how long jobs are kept: a span, or `forever`.
///
/// # Errors
/// As [`parse_span`].
pub fn parse_keep(text: &str) -> Result<Option<Duration>> {
    if text == FOREVER {
        Ok(None)
    } else {
        parse_span(text).map_err(|error| error.with_hint("write `forever`, or a span as in `30d`")).map(Some)
    }
}

/// Writes a time in the form that [`parse_keep`] reads.
#[must_use]
pub fn write_keep(time: Option<Duration>) -> String {
    time.map_or_else(|| FOREVER.to_owned(), write_span)
}

/// Changes of it; `None` leaves a time as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// Another time for those that completed or were cancelled.
    pub ended: Option<Option<Duration>>,
    /// Another time for those that ended in an error.
    pub errors: Option<Option<Duration>>,
}

impl RetentionChange {
    /// The times with these changes.
    #[must_use]
    pub fn apply(self, to: Retention) -> Retention {
        Retention { ended: self.ended.unwrap_or(to.ended), errors: self.errors.unwrap_or(to.errors) }
    }
}
