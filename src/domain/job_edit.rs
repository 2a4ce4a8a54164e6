//! Changes of a waiting call.

use super::lane::Lane;
use super::new_job::{Due, Expiry, Priority};

/// Changes of a waiting call. A field that is `None` stays unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobEdit {
    /// When it is due.
    pub due: Option<Due>,
    /// Whether it is held from now on.
    pub hold: bool,
    /// Calls with a smaller one run first.
    pub priority: Option<Priority>,
    /// Its lane; the inner `None` takes it out of its lane.
    pub lane: Option<Option<Lane>>,
    /// When it expires; the inner `None` means never. A span begins when the call is due, but not in the past.
    pub expires: Option<Option<Expiry>>,
}
