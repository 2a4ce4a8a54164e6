//! How long jobs stay in the store after they have ended.

use std::time::Duration;

/// How long a service keeps its jobs; `None` stands for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that completed or were cancelled.
    pub ended: Option<Duration>,
    /// Those that ended in an error.
    pub errors: Option<Duration>,
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
