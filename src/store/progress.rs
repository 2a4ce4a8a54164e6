//! The progress of running calls, as their workers report it.

use super::Store;
use crate::domain::job::Fence;
use crate::domain::processor::ProcessorId;
use crate::error::Result;

const RECORD: &str = "INSERT INTO asyncq_progress (job, attempt, processor, told)
    SELECT id, attempt, processor, ?4 FROM asyncq_job
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND claim = ?5 AND state = 'processing'
    ON CONFLICT (job) DO UPDATE SET attempt = excluded.attempt, processor = excluded.processor, told = excluded.told";
const FORGET: &str = "DELETE FROM asyncq_progress WHERE processor = ?1 AND NOT EXISTS (SELECT 1 FROM asyncq_job j
    WHERE j.id = asyncq_progress.job AND j.attempt = asyncq_progress.attempt AND j.state = 'processing')";

impl Store {
    /// Records the progress of calls of a processor, and forgets that of calls that have ended.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn record_progress(&mut self, processor: ProcessorId, reports: &[(Fence, String)]) -> Result<()> {
        self.write_untriggered(|tx| {
            for (fence, text) in reports {
                let Fence { job, attempt, claim, processor } = fence;
                tx.execute(
                    RECORD,
                    &[job.0.into(), (*attempt).into(), processor.0.into(), text.into(), (*claim).into()],
                )?;
            }
            tx.execute(FORGET, &[processor.0.into()])?;
            Ok(())
        })
    }
}
