//! How things stand with a service: its slots, and which calls are ready or due.

use super::engine::Tx;
use crate::domain::service::ServiceName;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// How things stand with a service, for one processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct ServiceStatus {
    /// Whether it is paused (or was removed).
    pub paused: bool,
    /// Whether a newer build has upgraded the store, so that this one may only end what it has begun.
    pub outdated: bool,
    /// How many of its calls may be running at once.
    pub concurrency: i64,
    /// How many slots other processors have taken.
    pub taken: i64,
    /// Whether a call is ready to be claimed.
    pub ready: bool,
    /// Whether the next call is a poison job that this processor claims as soon as it holds nothing else.
    pub wants_alone: bool,
    /// When the next call is due that is not ready yet.
    pub next_due: Option<Timestamp>,
    /// The database's clock.
    pub now: Timestamp,
}

impl ServiceStatus {
    /// How many slots this processor may have, including those that it has.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.paused || self.outdated { 0 } else { usize::try_from(self.concurrency - self.taken).unwrap_or(0) }
    }
}

const NEXT_DUE: &str = "SELECT run_at FROM asyncq_job WHERE state = 'delayed' AND service = ?1 ORDER BY run_at LIMIT 1";
const LOCK: &str = "SELECT name FROM asyncq_service WHERE name = ?1 /*! FOR NO KEY UPDATE */";

/// Has nobody else take slots of a service, or claim a poison job of it, before the commit.
pub(super) fn lock_service(tx: &mut dyn Tx, service: &ServiceName) -> Result<()> {
    tx.first(LOCK, &[service.as_str().into()], |_| Ok(())).map(|_| ())
}

/// When the next delayed call of a service is due.
pub(super) fn next_due(tx: &mut dyn Tx, service: &ServiceName) -> Result<Option<Timestamp>> {
    tx.first(NEXT_DUE, &[service.as_str().into()], |row| row.i64(0).map(Timestamp))
}
