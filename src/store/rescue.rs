//! Taking over from a processor that died.

use super::columns::{error_text, groups};
use super::engine::{Tx, damaged};
use super::{Store, finish, follow_up, hook_call, needs};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::hook::EndHooks;
use crate::domain::job::{Fence, JobId, State, Token};
use crate::domain::{processor::ProcessorId, retry::CRASHES};
use crate::error::Result;

/// What became of the jobs of a dead processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// Each of its jobs with its state now.
    pub jobs: Vec<(JobId, State)>,
    /// Those that stay with it.
    pub held: Vec<JobId>,
}

const JOBS: &str = "SELECT id, attempt, claim, processor, (lane IS NOT NULL OR key_until IS NOT NULL),
    crashes, cancelling, started_at, service FROM asyncq_job
    WHERE token IS NOT NULL AND processor = ?1 AND state = 'processing' AND immediate = 0 ORDER BY id
    /*! FOR NO KEY UPDATE */";
const TOKENS: &str = "SELECT token, id FROM asyncq_job WHERE token IS NOT NULL AND processor = ?1";
const PUT_BACK: &str = concat!(
    "UPDATE asyncq_job SET state = ?5, finished_at = ?6, error = COALESCE(?7, CASE WHEN cancelling = 1 THEN error END),
    crashes = crashes + 1, token = NULL, cancelling = 0 WHERE id = ?1",
    finish::fenced!(),
    "'processing'"
);
const ATTEMPT: &str = "INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending, error)
    VALUES (?1, ?2, ?3, ?4, ?5, 'crash', ?6) ON CONFLICT (job, number) DO NOTHING";
const END_CHILDREN: &str = "UPDATE asyncq_job SET state = 'error', finished_at = ?2, error = ?3, token = NULL
    WHERE token IS NOT NULL AND processor = ?1 AND state = 'processing' AND immediate = 1 RETURNING id";
const COMPLETED_THEMSELVES: &str = "SELECT id FROM asyncq_job
    WHERE token IS NOT NULL AND processor = ?1 AND state = 'completed' AND immediate = 0 ORDER BY id";
const FORGET_TOKENS: &str = "UPDATE asyncq_job SET token = NULL, cancelling = 0,
    error = CASE WHEN state <> 'completed' THEN error END WHERE token IS NOT NULL AND processor = ?1";
const OF_ORIGINAL: &str = "SELECT COALESCE(store <> ?2, FALSE) FROM asyncq_processor WHERE id = ?1 /*! FOR UPDATE */";
/// Jobs that are `processing` but belong to a processor that does not exist.
const ORPHANED: &str = "SELECT id, token FROM asyncq_job WHERE token IS NOT NULL AND state = 'processing'
    AND NOT EXISTS (SELECT 1 FROM asyncq_processor p WHERE p.id = asyncq_job.processor) ORDER BY +id";
/// Jobs that are `processing` without a token. No claim leaves such a job. There is no index for them, because each claim would
/// have to pay for it.
const TOKENLESS: &str = "SELECT id FROM asyncq_job WHERE state = 'processing' AND token IS NULL";
const UNOWNED: &str = "SELECT immediate, cancelling FROM asyncq_job WHERE id = ?1 AND state = 'processing'
    AND (token IS NULL OR NOT EXISTS (SELECT 1 FROM asyncq_processor p WHERE p.id = asyncq_job.processor))
    /*! FOR NO KEY UPDATE */";
const DISOWN: &str = "UPDATE asyncq_job SET state = ?2, finished_at = ?3,
    error = COALESCE(?4, CASE WHEN cancelling = 1 THEN error END), token = NULL, cancelling = 0 WHERE id = ?1 AND state = 'processing'";
const FREE_SLOTS: &str = "DELETE FROM asyncq_slot WHERE processor = ?1";
const TAKE_SLOT: &str = "INSERT INTO asyncq_slot (service, processor, taken) VALUES (?1, ?2, 1)
    ON CONFLICT (service, processor) DO UPDATE SET taken = asyncq_slot.taken + 1";
const FORGET: &str = "DELETE FROM asyncq_processor WHERE id = ?1";

impl Store {
    /// The tokens of the calls that a processor runs. Their processes are found by these. Leaves out those of the jobs `held`, and
    /// of calls made inside them.
    pub fn tokens(&mut self, processor: ProcessorId, held: &[JobId]) -> Result<Vec<Token>> {
        self.read(|tx| {
            let all = tx.rows::<(String, JobId)>(TOKENS, &[processor.into()])?;
            let (kept, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, job)| held.contains(job));
            let inside = |token: &str| kept.iter().any(|(outer, _)| token.starts_with(outer));
            Ok(others.iter().filter(|(token, _)| !inside(token)).map(|(token, _)| Token::from_text(token)).collect())
        })
    }

    /// The jobs that are `processing` but belong to a processor that does not exist, with their tokens. Somebody has written that
    /// into the store, or removed the processor from it.
    pub fn orphaned(&mut self) -> Result<Vec<(JobId, Token)>> {
        self.read(|tx| tx.rows(ORPHANED, &[]))
    }

    /// The jobs that are `processing` without a token, which the schema's triggers do not allow. Reads all jobs.
    pub fn tokenless(&mut self) -> Result<Vec<JobId>> {
        self.read(|tx| tx.rows(TOKENLESS, &[]))
    }

    /// Puts back those of these jobs that belong to no processor. Ends those that ran as a part of another job. The caller has
    /// proven that no process with one of their tokens is left.
    pub fn put_back_unowned(&mut self, jobs: &[JobId]) -> Result<Vec<(JobId, State)>> {
        self.write_untriggered(|tx| {
            let now = tx.now();
            let mut back = Vec::new();
            for job in jobs.iter().copied() {
                let Some((immediate, cancelling)) = tx.row(UNOWNED, &[job.into()])? else { continue };
                let (state, error) = match (immediate, cancelling) {
                    (true, _) => (State::Error, Some(failure(FailureKind::Parent, "no processor runs it"))),
                    (false, true) => (State::Cancelled, None),
                    (false, false) => (State::Queued, None),
                };
                let finished_at = state.has_ended().then_some(now);
                let args = [job.into(), state.into(), finished_at.into(), error.as_ref().into()];
                tx.change(DISOWN, &args)?;
                finish::end_children(tx, job)?;
                follow_up::tie(tx, job)?;
                needs::note_ended(tx, &[job])?;
                back.push((job, state));
            }
            Ok(back)
        })
    }

    /// Puts the jobs of a processor back on their queues and forgets the processor. The caller has proven that the processor is
    /// dead and that nothing that it ran is left, and tells which jobs had begun, if that is known. A job whose processors died too
    /// often while they ran it ends in an error.
    ///
    /// The jobs `held` may still run in a program that outlives the processor. They stay as they are, with their slots, and until
    /// none is left the processor is not forgotten.
    pub fn rescue(&mut self, dead: ProcessorId, begun: Option<&[JobId]>, held: &[JobId]) -> Result<Rescued> {
        self.write_untriggered(|tx| {
            let here = tx.identity().map(str::to_owned);
            let copied = tx.row(OF_ORIGINAL, &[dead.into(), here.as_ref().into()])?;
            let why = if copied == Some(true) { "the store was copied while it ran" } else { "the processor died" };
            let found: Vec<ClaimOfDead> = tx.rows(JOBS, &[dead.into()])?;
            let (kept, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| held.contains(&found.fence.job));
            let mut jobs = Vec::with_capacity(found.len());
            for found in found {
                let job = found.fence.job;
                let has_begun = begun.is_none_or(|begun| begun.contains(&job));
                let state = if has_begun {
                    crashed(tx, &found, why)?
                } else {
                    let went = finish::give_back(tx, &found.fence)?;
                    if !went {
                        State::Error
                    } else if found.cancelling {
                        State::Cancelled
                    } else {
                        State::Queued
                    }
                };
                jobs.push((job, state));
                finish::end_children(tx, job)?;
                follow_up::changed(tx, [&found.fence])?;
                // Of one that was given back, that is done.
                if has_begun {
                    hook_call::call(tx, job, &EndHooks::Unknown, state)?;
                }
            }
            let held: Vec<JobId> = kept.iter().map(|kept| kept.fence.job).collect();
            if !held.is_empty() {
                tx.execute(FREE_SLOTS, &[dead.into()])?;
                for kept in &kept {
                    tx.execute(TAKE_SLOT, &[(&kept.service).into(), dead.into()])?;
                }
                return Ok(Rescued { jobs, held });
            }
            // Their parent completed itself, so it was not among the jobs above.
            let now = tx.now();
            let error = failure(FailureKind::Parent, "the processor of the job that made this call died");
            let ended: Vec<JobId> = tx.rows(END_CHILDREN, &[dead.into(), now.into(), (&error).into()])?;
            needs::note_ended(tx, &ended)?;
            for job in tx.rows(COMPLETED_THEMSELVES, &[dead.into()])? {
                hook_call::call(tx, job, &EndHooks::Unknown, State::Completed)?;
            }
            // Those of jobs that completed themselves.
            tx.execute(FORGET_TOKENS, &[dead.into()])?;
            tx.execute(FORGET, &[dead.into()])?;
            Ok(Rescued { jobs, held })
        })
    }
}

struct ClaimOfDead {
    fence: Fence,
    crashes: i64,
    cancelling: bool,
    started_at: Option<i64>,
    service: String,
}

groups! { ClaimOfDead { fence, crashes, cancelling, started_at, service } }

fn crashed(tx: &mut dyn Tx, job: &ClaimOfDead, why: &str) -> Result<State> {
    let now = tx.now();
    let crashes = job.crashes + 1;
    let (mut state, message) = if job.cancelling {
        (State::Cancelled, why.to_owned())
    } else if crashes >= CRASHES {
        (State::Error, format!("the processor died in {crashes} attempts"))
    } else {
        (State::Queued, why.to_owned())
    };
    let error = failure(FailureKind::Crash, &message);
    let final_error = (state == State::Error).then_some(&error);
    let finished_at = state.has_ended().then_some(now);
    let fence = finish::fence(&job.fence);
    let put_back = [state.into(), finished_at.into(), final_error.into()];
    match tx.try_execute(PUT_BACK, &[&fence[..], &put_back].concat())? {
        Ok(1) => {}
        Ok(_) => {
            return Err(damaged(&format!(
                "job {} stands in the index of running jobs, and does not run",
                job.fence.job
            )));
        }
        Err(refusal) => {
            state = State::Error;
            let error = failure(FailureKind::Refused, &refusal.to_string());
            let end = [state.into(), now.into(), (&error).into()];
            tx.change(PUT_BACK, &[&fence[..], &end].concat())?;
        }
    }
    let started_at = job.started_at.unwrap_or(now.0);
    let attempt = [started_at.into(), now.into(), (&error).into()];
    tx.execute(ATTEMPT, &[&fence[..3], &attempt].concat())?;
    Ok(state)
}

fn failure(kind: FailureKind, message: &str) -> String {
    error_text(&Failure::new(kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn what_a_dead_processor_leaves_is_found_by_an_index() {
        for sql in [JOBS, TOKENS, END_CHILDREN, COMPLETED_THEMSELVES, FORGET_TOKENS] {
            assert_eq!(ways_to_jobs(sql), ["INDEX asyncq_job_token (processor=?)"], "{sql}");
        }
        for sql in [UNOWNED, PUT_BACK, DISOWN] {
            assert_eq!(ways_to_jobs(sql), ["INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
        assert_eq!(ways_to_jobs(ORPHANED), ["SCAN asyncq_job USING INDEX asyncq_job_token"]);
    }
}
