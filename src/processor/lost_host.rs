//! A host that was lost, and the calls that it may still be running.

use crate::domain::job::Claim;
use crate::error::{Error, Kind};
use crate::runner::worker::host_session::HostLoss;

/// A host that runs no more calls.
#[derive(Debug)]
pub(super) struct LostHost {
    /// Its process.
    pub(super) pid: i64,
    /// Why not.
    pub(super) loss: HostLoss,
    /// The calls that may still be running in it.
    pub(super) left: Vec<Claim>,
}

impl LostHost {
    /// The error with which the processor ends.
    pub(super) fn error(&self) -> Error {
        let error = lost(self.pid, &self.loss);
        if self.left.is_empty() {
            return error;
        }
        let jobs: Vec<String> = self.left.iter().map(|claim| claim.fence.job.to_string()).collect();
        let jobs = if jobs.len() == 1 { format!("job {}", jobs[0]) } else { format!("jobs {}", jobs.join(", ")) };
        error.with_hint(format!(
            "{jobs} may still run there: `asyncq process` puts that back when the process has ended, or says `\"idle\":true` in a new hello"
        ))
    }
}

/// The error for a host that runs no more calls.
pub(super) fn lost(pid: i64, loss: &HostLoss) -> Error {
    let (what, hint) = match loss {
        HostLoss::Ended => ("has ended", "what it was running was put back, or has failed"),
        HostLoss::Protocol(what) => {
            (what.as_str(), "docs/protocol.md tells what a program has to say that is drained into")
        }
    };
    Error::new(Kind::Io, format!("the host (process {pid}) {what}")).with_hint(hint)
}
