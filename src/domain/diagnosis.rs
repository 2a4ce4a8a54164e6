//! What a check of a store has found.

use super::text::has_names;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warning,
    /// Something does not work, or will be lost unless somebody acts.
    Fault,
}

has_names! { Health { Ok: "ok", Warning: "warning", Fault: "fault", } }

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The check: one word, the same in each version.
    pub check: &'static str,
    /// How bad it is.
    pub health: Health,
    /// What was found, in words.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// Calls that wait although they have no reason to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StuckCalls {
    /// Calls that wait for other jobs, but are linked to none.
    pub unlinked: u64,
    /// Ended jobs that are needed by calls which will never learn of the end.
    pub untold: u64,
    /// Lanes with room in which calls wait.
    pub lanes: u64,
}
