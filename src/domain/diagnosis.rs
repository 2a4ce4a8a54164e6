//! What a check of a store has found.

use super::job::JobId;
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

/// Rows of a table that refer to rows that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostReferences {
    /// Their table.
    pub table: String,
    /// The table to whose rows they refer.
    pub refers_to: String,
    /// How many there are.
    pub rows: u64,
}

/// Jobs that nobody runs or ends, because what is written of them cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImpossibleJobs {
    /// Jobs whose state contradicts the rest of them: how many, and the first.
    pub contradictory: Option<(u64, JobId)>,
    /// Jobs that wait for a service that does not exist: how many, and the first service.
    pub without_service: Option<(u64, String)>,
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
