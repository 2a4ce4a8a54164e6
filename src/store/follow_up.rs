//! What happens to other calls when a job has ended, or has left the head of its lane.
//!
//! Processors write without the schema's triggers, and call this instead.

use super::engine::Tx;
use super::{lane, needs};
use crate::domain::job::{Fence, JobId};
use crate::error::Result;

const FREE_KEY: &str = "UPDATE asyncq_job SET key = NULL
    WHERE id = ?1 AND key_until IS NOT NULL AND key IS NOT NULL AND finished_at IS NOT NULL";

/// Follows up changes of these jobs.
pub(super) fn changed<'a>(tx: &mut dyn Tx, fences: impl IntoIterator<Item = &'a Fence>) -> Result<()> {
    let mut jobs: Vec<JobId> = Vec::new();
    for fence in fences {
        jobs.push(fence.job);
        if fence.tied {
            tie(tx, fence.job)?;
        }
    }
    needs::note_ended(tx, &jobs)
}

/// Follows up a change of a job that may be in a lane, or whose key may be free now.
pub(super) fn tie(tx: &mut dyn Tx, job: JobId) -> Result<()> {
    tx.execute(FREE_KEY, &[job.into()])?;
    lane::let_out(tx, job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn a_job_is_found_by_its_number() {
        assert_eq!(ways_to_jobs(FREE_KEY), ["INTEGER PRIMARY KEY (rowid=?)"]);
    }
}
