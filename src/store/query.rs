//! Reading jobs, their attempts and their output.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::columns::{columns, groups};
use super::engine::{Row, Tx, one};
use super::masking::Masking;
use super::select::{newest, newest_among};
use super::set::{AT_ONCE, WORTH_A_SET, on_set, values_of_set};
use super::{Store, job};
use crate::domain::attempt::{Attempt, Ending, Failure};
use crate::domain::job::{Job, JobId, State};
use crate::domain::log::{Log, Stream};
use crate::domain::needs::Blockers;
use crate::domain::query::{JobFilter, JobPage, JobQuery};
use crate::domain::{processor::ProcessorId, retry::POISON};
use crate::error::{Error, Kind, Result};

/// How many jobs a page holds at most.
const PAGE: u32 = 1000;

/// A page that has reached this many bytes takes no further job.
const PAGE_BYTES: usize = 1024 * 1024;

columns! { job_columns -> Job {
    id: "j.id",
    call: "j.service, j.function, COALESCE(j.args, l.args, ''), COALESCE(j.kwargs, l.kwargs, ''), j.principal,
        COALESCE(j.site, f.site)",
    state: "j.state",
    immediate: "j.immediate",
    parent: "j.parent",
    counts: "j.attempt, j.failures, j.conflicts, j.crashes",
    times: "j.created_at, j.run_at, j.started_at, j.finished_at",
    result: "j.result",
    error: "j.error",
    options: "j.priority, j.key, j.key_until, j.lane, j.expires_at, j.after, j.meta",
    schedule: "o.schedule, o.tick, o.missed, s.zone",
    os_user: "NULLIF(j.os_user, '')",
    cancelling: "j.cancelling",
    progress: "p.told",
} }
const JOB: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", f.secret, f.takes FROM asyncq_job j
    LEFT JOIN asyncq_large l ON l.job = j.id
    LEFT JOIN asyncq_function f ON f.service = j.service AND f.name = j.function
    LEFT JOIN asyncq_origin o ON j.os_user = '' AND o.job = j.id AND o.schedule IS NOT NULL
    LEFT JOIN asyncq_schedule s ON s.name = o.schedule
    LEFT JOIN asyncq_progress p ON p.job = j.id AND p.attempt = j.attempt AND j.state = 'processing'
    WHERE j.id = ?1"
);
columns! { attempt_columns -> Attempt {
    number: "number",
    started_at: "started_at",
    finished_at: "finished_at",
    ending: "ending",
    error: "error",
    log_bytes: "COALESCE(LENGTH(log), 0)",
    log_dropped: "dropped",
    unrecorded: "unrecorded",
} }
const ATTEMPTS: &str = concat!("SELECT ", attempt_columns!(), " FROM asyncq_attempt WHERE job = ?1 ORDER BY number");
const LOG: &str = "SELECT log, pieces, dropped, gap FROM asyncq_attempt WHERE job = ?1 AND number = ?2";

/// The jobs that job `?1` needs, and those at the head of its lane.
const NEEDED: &str = "SELECT needs FROM asyncq_after WHERE job = ?1 ORDER BY needs LIMIT ?2";
const HEADS: &str = "SELECT o.id FROM asyncq_job j CROSS JOIN asyncq_job o
    WHERE o.service = j.service AND o.lane = j.lane AND j.id = ?1 AND o.lane IS NOT NULL AND (o.state = 'queued' OR o.state = 'processing') LIMIT ?2";

/// The folder of the processor that runs job `?1`.
const RUNS_IN: &str = "SELECT p.folder FROM asyncq_job j CROSS JOIN asyncq_processor p
    WHERE p.id = j.processor AND j.id = ?1 AND j.state = 'processing'";

const STATE: &str = "SELECT id, state FROM asyncq_job WHERE id = ?1";
static STATE_SET: LazyLock<String> = LazyLock::new(|| on_set(STATE, 1));

const LINE: &str = "SELECT j.processor, j.crashes >= ?6, (SELECT COUNT(*) FROM (
        SELECT 1 FROM asyncq_job o WHERE o.state = 'queued' AND o.service = ?2
            AND (o.priority, o.run_at, o.id) < (?3, ?4, ?1) LIMIT ?5) AS before_it)
    FROM asyncq_job j WHERE j.id = ?1";

groups! { QueuePosition { processor, is_poison, before } }

/// The place of a job in the queue of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePosition {
    /// The processor that claimed it last.
    pub processor: Option<ProcessorId>,
    /// Whether it runs alone, because processors died while they ran it.
    pub is_poison: bool,
    /// How many queued calls come before it; it counts at most [`Store::MOST_BEFORE`].
    pub before: u64,
}

impl Store {
    /// How many calls before a job are counted at most.
    pub const MOST_BEFORE: u64 = 1000;

    /// The place of a job in the queue of its service.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job.
    pub fn line(&mut self, job: &Job) -> Result<QueuePosition> {
        let most = Store::MOST_BEFORE.cast_signed();
        self.read(|tx| {
            let (service, priority, due) =
                ((&job.call.service).into(), job.options.priority.into(), job.times.run_at.into());
            let args = [job.id.into(), service, priority, due, most.into(), POISON.into()];
            let found = tx.row(LINE, &args)?;
            found.map_or_else(|| Err(job::no_job(tx, job.id)), Ok)
        })
    }

    /// The first jobs for which a blocked job waits: those that it needs, or else those before it in its lane.
    pub fn blocked_by(&mut self, id: JobId) -> Result<Blockers> {
        self.read(|tx| {
            let args = [id.into(), Blockers::MOST.into()];
            let needed: Vec<JobId> = tx.rows(NEEDED, &args)?;
            Ok(if needed.is_empty() { Blockers::Lane(tx.rows(HEADS, &args)?) } else { Blockers::Needs(needed) })
        })
    }

    /// The job of that number.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none.
    pub fn job(&mut self, id: JobId) -> Result<Job> {
        let reveals = self.reveals;
        self.read(|tx| read_job(tx, id, reveals)?.map_or_else(|| Err(job::no_job(tx, id)), Ok))
    }

    /// The states of these jobs at one moment, in the same order; `None` for a number that no job has.
    pub fn states(&mut self, ids: &[JobId]) -> Result<Vec<Option<State>>> {
        self.read(|tx| {
            let mut states = Vec::with_capacity(ids.len());
            for some in ids.chunks(AT_ONCE) {
                let found: Vec<(JobId, State)> = if some.len() < WORTH_A_SET {
                    let found = some.iter().map(|id| tx.row(STATE, &[(*id).into()]));
                    found.filter_map(Result::transpose).collect::<Result<_>>()?
                } else {
                    tx.rows(&STATE_SET, &values_of_set(some, &[]))?
                };
                let found: HashMap<JobId, State> = found.into_iter().collect();
                states.extend(some.iter().map(|id| found.get(id).copied()));
            }
            Ok(states)
        })
    }

    /// The numbers of the newest jobs of `filter` before `before`, at most `limit` in one look; and the job before which to go on,
    /// unless there are no more.
    pub fn newest_jobs(
        &mut self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<(Vec<JobId>, Option<JobId>)> {
        self.read(|tx| newest(tx, filter, before, limit))
    }

    /// One page of the jobs that `query` describes, newest first.
    pub fn jobs(&mut self, query: &JobQuery) -> Result<JobPage> {
        let (limit, reveals) = (query.limit.map_or(PAGE, |limit| limit.min(PAGE)), self.reveals);
        self.read(|tx| {
            let (ids, mut next) = match &query.among {
                None => newest(tx, &query.filter, query.before, limit)?,
                Some(ranges) => newest_among(tx, query, ranges, limit)?,
            };
            let (mut jobs, mut bytes) = (Vec::new(), 0);
            for id in ids {
                let job: Job = one(read_job(tx, id, reveals)?)?;
                bytes += size(&job);
                jobs.push(job);
                if bytes >= PAGE_BYTES {
                    next = Some(id);
                    break;
                }
            }
            Ok(JobPage { jobs, next })
        })
    }

    /// The attempts of a job, oldest first. If the latest one has no record, the job itself describes it.
    pub fn attempts(&mut self, job: &Job) -> Result<Vec<Attempt>> {
        let mut attempts = self.read(|tx| tx.rows::<Attempt>(ATTEMPTS, &[job.id.into()]))?;
        let recorded = attempts.iter().any(|attempt| attempt.number == job.counts.attempt);
        if job.counts.attempt > 0 && !recorded && matches!(job.state, State::Processing | State::Completed) {
            let ended = job.state == State::Completed;
            attempts.push(Attempt {
                number: job.counts.attempt,
                started_at: job.times.started_at,
                finished_at: job.times.finished_at,
                ending: ended.then_some(Ending::Completed),
                error: None,
                log_bytes: 0,
                log_dropped: 0,
                unrecorded: 0,
            });
        }
        Ok(attempts)
    }

    /// The name of the folder of the processor that runs a job; `None` if none does.
    pub fn runs_in(&mut self, job: JobId) -> Result<Option<String>> {
        self.read(|tx| tx.row(RUNS_IN, &[job.into()]))
    }

    /// The output of an attempt of a job. It is empty if the attempt printed nothing, still runs, or never existed.
    pub fn log(&mut self, job: JobId, attempt: i64) -> Result<Log> {
        let log = self.read(|tx| tx.first(LOG, &[job.into(), attempt.into()], read_log))?;
        Ok(log.unwrap_or_default())
    }
}

/// A job to show: without its secret arguments, unless somebody may see them.
fn read_job(tx: &mut dyn Tx, id: JobId, reveals: bool) -> Result<Option<Job>> {
    let found: Option<(Job, Masking)> = tx.row(JOB, &[id.into()])?;
    Ok(found.map(|(mut job, masking)| {
        if !reveals {
            masking.mask(&mut job.call.args, &mut job.call.kwargs);
        }
        job
    }))
}

/// About how many bytes a job has.
fn size(job: &Job) -> usize {
    let result = job.result.as_ref().map_or(0, String::len);
    let traceback = |error: &Failure| error.traceback.as_ref().map_or(0, String::len);
    let error = job.error.as_ref().map_or(0, |error| error.message.len() + traceback(error));
    job.call.args.len() + job.call.kwargs.len() + result + error
}

fn read_log(row: &dyn Row) -> Result<Log> {
    let bytes = row.bytes(0)?.unwrap_or_default().to_vec();
    let (dropped, gap) = (row.i64(2)?.unsigned_abs(), usize::try_from(row.i64(3)?).unwrap_or(0));
    let pieces = match row.text(1)? {
        // Two pieces, because no piece reaches across the gap.
        None if dropped > 0 && 0 < gap && gap < bytes.len() => {
            vec![(Stream::Out, gap), (Stream::Out, bytes.len() - gap)]
        }
        None => vec![(Stream::Out, bytes.len())],
        Some(text) => pieces(text)
            .filter(|pieces| pieces.iter().map(|piece| piece.1).sum::<usize>() == bytes.len())
            .ok_or_else(|| Error::new(Kind::Invalid, "the store is damaged: a log whose pieces are not its own"))?,
    };
    Ok(Log { bytes, pieces, dropped, gap })
}

fn pieces(text: &str) -> Option<Vec<(Stream, usize)>> {
    let pairs: Vec<(i64, usize)> = serde_json::from_str(text).ok()?;
    pairs.into_iter().map(|(fd, length)| Some((Stream::from_fd(fd)?, length))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn states_are_found_by_number() {
        for sql in [STATE, &STATE_SET] {
            assert_eq!(plan(sql), ["SEARCH asyncq_job USING INTEGER PRIMARY KEY (rowid=?)"], "{sql}");
        }
    }

    #[test]
    fn the_processor_of_a_job_is_found_by_their_numbers() {
        let steps = ["j", "p"].map(|table| format!("SEARCH {table} USING INTEGER PRIMARY KEY (rowid=?)"));
        assert_eq!(plan(RUNS_IN), steps);
    }

    #[test]
    fn a_place_in_the_line_is_counted_in_the_index_of_what_is_queued() {
        let mut plan = plan(LINE);
        plan.retain(|step| step.starts_with("SEARCH") || step.starts_with("SCAN"));
        plan.sort();
        assert_eq!(
            plan,
            [
                "SCAN before_it",
                "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)",
                "SEARCH o USING COVERING INDEX asyncq_job_queued (service=? AND (priority,run_at)<(?,?))",
            ]
        );
    }
}
