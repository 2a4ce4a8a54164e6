//! A call that runs after all calls of a batch, of which there may be millions.
//!
//! It is made held, linked to the others in steps, so that no transaction takes long, and released at the end.

use super::engine::Tx;
use super::{Store, needs, used};
use crate::domain::job::JobId;
use crate::domain::needs::ranges_to_json;
use crate::domain::new_job::{Enqueued, NewJob};
use crate::error::{Error, Kind, Result};
use crate::store::Refused;

/// How many jobs one transaction links.
const LINKED_AT_ONCE: usize = 10_000;

/// The call does not wait for jobs that have completed, or that were removed.
const LINK_RANGE: &str = "INSERT INTO asyncq_after (needs, job) SELECT id, ?1 FROM asyncq_job
    WHERE id >= ?2 AND id <= ?3 AND state <> 'completed' ON CONFLICT (needs, job) DO NOTHING";
const WATCH_RANGE: &str = "INSERT INTO asyncq_settle (job) SELECT id FROM asyncq_job
    WHERE id >= ?1 AND id <= ?2 AND state = 'processing' AND processor <= (SELECT older FROM asyncq_schema)
    ON CONFLICT (job) DO NOTHING";
const SET_AFTER: &str = "UPDATE asyncq_job SET after = ?2 WHERE id = ?1";
/// Jobs that ended before they were linked, or meanwhile.
const NOTE_ENDED: &str = "INSERT INTO asyncq_settle (job) SELECT j.id FROM asyncq_after a CROSS JOIN asyncq_job j
    WHERE j.id = a.needs AND a.job = ?1 AND j.finished_at IS NOT NULL
    ON CONFLICT (job) DO UPDATE SET told = 0";
const BLOCK: &str = "UPDATE asyncq_job SET state = 'blocked', waits = 1 WHERE id = ?1 AND state = 'held'";

impl Store {
    /// Enqueues a call that runs after all these jobs have completed. It is cancelled if one of them has failed.
    ///
    /// # Errors
    /// As [`Store::enqueue`]. If this process dies meanwhile, the call stays held.
    pub fn enqueue_after_all(&mut self, new: &NewJob, jobs: &[JobId]) -> Result<Enqueued> {
        let enqueued = self.enqueue(&NewJob { hold: true, ..new.clone() })?;
        let Enqueued::New(job) = enqueued else { return Ok(enqueued) };
        for some in jobs.chunks(LINKED_AT_ONCE) {
            self.write_untriggered(|tx| link(tx, job, some))?;
        }
        self.write_untriggered(|tx| release(tx, job, jobs))?;
        Ok(enqueued)
    }

    /// Enqueues calls and one that runs after all of them, in one transaction or none.
    ///
    /// # Errors
    /// As [`Store::enqueue_all`].
    pub fn enqueue_all_then(&mut self, new: &[NewJob], then: &NewJob) -> Result<Vec<Enqueued>, Refused> {
        let all: Vec<NewJob> = new.iter().cloned().chain([NewJob { hold: true, ..then.clone() }]).collect();
        self.enqueue_all_and(&all, &mut |tx, done| {
            let Some((Enqueued::New(last), others)) = done.split_last() else { return Ok(()) };
            let jobs: Vec<JobId> = others.iter().map(|done| done.id()).collect();
            link(tx, *last, &jobs)?;
            release(tx, *last, &jobs)
        })
    }
}

/// Links a call to jobs that it needs.
fn link(tx: &mut dyn Tx, job: JobId, jobs: &[JobId]) -> Result<()> {
    let mut jobs = jobs.to_vec();
    jobs.sort_unstable();
    used::note(tx, used::NEEDS)?;
    for run in jobs.chunk_by(|one, other| one.0 + 1 >= other.0) {
        let [first, last] = [run[0], run[run.len() - 1]].map(Into::into);
        tx.execute(LINK_RANGE, &[job.into(), first, last])?;
        tx.execute(WATCH_RANGE, &[first, last])?;
    }
    Ok(())
}

/// Lets a call wait that is linked to everything that it needs.
fn release(tx: &mut dyn Tx, job: JobId, jobs: &[JobId]) -> Result<()> {
    let after = ranges_to_json(jobs);
    tx.change(SET_AFTER, &[job.into(), (&after).into()])?;
    if tx.execute(BLOCK, &[job.into()])? != 1 {
        return Err(Error::new(
            Kind::Denied,
            format!("somebody has changed job {job}, which was to wait for the others"),
        ));
    }
    tx.execute(NOTE_ENDED, &[job.into()])?;
    needs::release(tx, job)??;
    needs::settle(tx).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn jobs_are_found_by_their_numbers() {
        for sql in [LINK_RANGE, WATCH_RANGE] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"], "{sql}");
        }
        for sql in [SET_AFTER, BLOCK] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        let steps = plan(NOTE_ENDED);
        assert!(steps.iter().any(|step| step.contains("asyncq_after_job (job=?)")), "{steps:?}");
    }
}
