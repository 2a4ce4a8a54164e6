//! What a processor does: register, see whether there is work, finish calls and claim the next ones.

use std::collections::HashMap;

use super::engine::{Row, Tx, damaged};
use super::{Store, function, one};
use crate::domain::call::{Call, Principal};
use crate::domain::function::{Definition, FunctionName};
use crate::domain::job::{Claim, Ending, Failure, FailureKind, Fence, Finish, JobId, State, Token};
use crate::domain::json::Json;
use crate::domain::log::{Log, Stream};
use crate::domain::processor::{NewProcessor, Processor, ProcessorId};
use crate::domain::retry::Verdict;
use crate::domain::service::ServiceName;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// How things stand with a service, for one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// Whether it is paused (or was removed).
    pub paused: bool,
    /// How many of its calls may be running at once.
    pub concurrency: i64,
    /// How many slots other processors have taken.
    pub taken: i64,
    /// Whether a call is ready.
    pub ready: bool,
    /// When the next call is due that waits to be tried again.
    pub next_retry: Option<Timestamp>,
    /// When the next call is due at all.
    pub next_due: Option<Timestamp>,
    /// The database's clock.
    pub now: Timestamp,
}

impl Outlook {
    /// How many slots are free for this processor, including those that it has.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.paused { 0 } else { usize::try_from(self.concurrency - self.taken).unwrap_or(0) }
    }
}

/// What a processor has done and can do next, on one service.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Who.
    pub processor: ProcessorId,
    /// On which service.
    pub service: &'a ServiceName,
    /// The calls that have ended.
    pub finished: &'a [&'a Finish],
    /// How many of its calls go on running.
    pub running: usize,
    /// The secrets for the calls that it could begin now: as many as it has room for.
    pub tokens: &'a [Token],
}

/// What came of a [`Plan`].
#[derive(Debug)]
pub struct Advance {
    /// For each finished call the state of its job now; `None` when it was no longer this attempt's to finish.
    pub finished: Vec<Option<State>>,
    /// The calls to begin, most urgent first.
    pub claims: Vec<Claim>,
    /// How things stand after that.
    pub outlook: Outlook,
}

/// How many delayed calls one transaction makes ready.
const PROMOTE_STEP: i64 = 1000;

const REGISTER: &str = "INSERT INTO asyncq_processor (folder, host, boot, pid, pid_start, started_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING id";
const UNREGISTER: &str = "DELETE FROM asyncq_processor WHERE id = ?1";
const PROCESSORS: &str = "SELECT id, folder, host, boot, pid, pid_start, started_at FROM asyncq_processor ORDER BY id";
const SERVICE: &str = "SELECT s.concurrency, s.paused,
    (SELECT CAST(COALESCE(SUM(taken), 0) AS BIGINT) FROM asyncq_slot WHERE service = s.name AND processor <> ?2),
    (SELECT taken FROM asyncq_slot WHERE service = s.name AND processor = ?2)
    FROM asyncq_service s WHERE s.name = ?1";
const HOLDERS: &str = "SELECT p.id, p.folder, p.host, p.boot, p.pid, p.pid_start, p.started_at
    FROM asyncq_slot s JOIN asyncq_processor p ON p.id = s.processor WHERE s.service = ?1 ORDER BY p.id";
const PROMOTE: &str = "UPDATE asyncq_job SET state = 'queued' WHERE id IN (
    SELECT id FROM asyncq_job WHERE state = 'delayed' AND service = ?1 AND run_at <= ?2 ORDER BY run_at LIMIT ?3)";
const NEXT: &str = "SELECT id FROM asyncq_job WHERE state = 'queued' AND service = ?1
    ORDER BY priority, run_at, id LIMIT ?2";
const TAKE: &str = "UPDATE asyncq_job SET state = 'processing', attempt = attempt + 1, processor = ?2, token = ?3,
    started_at = ?4 WHERE id = ?1 RETURNING attempt, function, args, kwargs, principal, site, conflicts";
const LARGE: &str = "SELECT args, kwargs FROM asyncq_large WHERE job = ?1";
const NEXT_DUE: &str = "SELECT run_at FROM asyncq_job WHERE state = 'delayed' AND service = ?1 ORDER BY run_at LIMIT 1";
const NEXT_RETRY: &str = "SELECT run_at FROM asyncq_job WHERE state = 'delayed' AND attempt > 0 AND service = ?1
    ORDER BY run_at LIMIT 1";
const TAKE_SLOTS: &str = "INSERT INTO asyncq_slot (service, processor, taken) VALUES (?1, ?2, ?3)
    ON CONFLICT (service, processor) DO UPDATE SET taken = excluded.taken";
const FREE_SLOTS: &str = "DELETE FROM asyncq_slot WHERE service = ?1 AND processor = ?2";
const CANCELLING: &str = "SELECT id, attempt FROM asyncq_job
    WHERE state = 'processing' AND processor = ?1 AND cancelling = 1 AND immediate = 0";
const FINISH: &str = "UPDATE asyncq_job SET
    state = CASE WHEN cancelling = 1 AND ?4 IN ('queued', 'delayed') THEN 'cancelled' ELSE ?4 END,
    finished_at = CASE WHEN cancelling = 1 OR ?4 NOT IN ('queued', 'delayed') THEN ?5 END,
    started_at = ?6, run_at = COALESCE(?7, run_at), result = CASE WHEN ?4 = 'completed' THEN ?8 END, error = ?9,
    failures = failures + ?10, conflicts = conflicts + ?11, token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing' RETURNING state";
const COMPLETED_ITSELF: &str = "UPDATE asyncq_job SET result = ?4, started_at = ?5, token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'completed' AND token IS NOT NULL";
const ATTEMPT: &str = "INSERT INTO asyncq_attempt
    (job, number, processor, started_at, finished_at, ending, error, dropped, gap, pieces, log)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (job, number) DO NOTHING";
const CHILDREN: &str = "SELECT id FROM asyncq_job WHERE parent = ?1 AND immediate = 1 AND state = 'processing'";
const END_CHILD: &str = "UPDATE asyncq_job SET state = 'error', finished_at = ?2, error = ?3, token = NULL
    WHERE id = ?1";

impl Store {
    /// Registers a processor, which holds the lock on its file from before until it is gone.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn register(&mut self, is: &NewProcessor) -> Result<ProcessorId> {
        self.write(|tx| {
            let now = tx.now();
            let id = tx.first(
                REGISTER,
                &[
                    (&is.folder).into(),
                    (&is.host).into(),
                    (&is.boot).into(),
                    is.pid.into(),
                    is.pid_start.into(),
                    now.into(),
                ],
                |row| row.i64(0),
            )?;
            one(id).map(ProcessorId)
        })
    }

    /// Removes a processor that has finished all its calls.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn unregister(&mut self, processor: ProcessorId) -> Result<()> {
        self.write(|tx| tx.execute(UNREGISTER, &[processor.0.into()]).map(|_| ()))
    }

    /// The registered processors, oldest first: those at work, and those that died at it.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn processors(&mut self) -> Result<Vec<Processor>> {
        self.read(|tx| tx.all(PROCESSORS, &[], read_processor))
    }

    /// The processors that have taken slots of a service.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn holders(&mut self, service: &ServiceName) -> Result<Vec<Processor>> {
        self.read(|tx| tx.all(HOLDERS, &[service.as_str().into()], read_processor))
    }

    /// Looks how things stand with a service, without changing anything.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn outlook(&mut self, service: &ServiceName, processor: Option<ProcessorId>) -> Result<Outlook> {
        self.read(|tx| Ok(look(tx, service, processor.unwrap_or(ProcessorId(0)))?.0))
    }

    /// Records calls that have ended, makes due calls ready, and claims the next ones, in one transaction. Takes slots
    /// for what is running then, and frees the others.
    ///
    /// # Errors
    /// Whatever the database answers; then nothing of it happened.
    pub fn advance(&mut self, plan: &Plan<'_>) -> Result<Advance> {
        self.write(|tx| {
            let finished = plan.finished.iter().map(|one| finish(tx, one)).collect::<Result<_>>()?;
            let (before, taken) = look(tx, plan.service, plan.processor)?;
            let room = before.free().saturating_sub(plan.running).min(plan.tokens.len());
            let claims = claim(tx, plan, room)?;
            let running = i64::try_from(plan.running + claims.len()).unwrap_or(i64::MAX);
            if running != taken {
                let who = [plan.service.as_str().into(), plan.processor.0.into()];
                match running {
                    0 => tx.execute(FREE_SLOTS, &who)?,
                    _ => tx.execute(TAKE_SLOTS, &[who[0], who[1], running.into()])?,
                };
            }
            let (outlook, _) = look(tx, plan.service, plan.processor)?;
            Ok(Advance { finished, claims, outlook })
        })
    }

    /// The jobs of a processor that somebody wants to be ended.
    ///
    /// # Errors
    /// Whatever the database answers.
    pub fn cancelling(&mut self, processor: ProcessorId) -> Result<Vec<Fence>> {
        self.read(|tx| {
            tx.all(CANCELLING, &[processor.0.into()], |row| {
                Ok(Fence { job: JobId(row.i64(0)?), attempt: row.i64(1)?, processor })
            })
        })
    }
}

fn read_processor(row: &dyn Row) -> Result<Processor> {
    Ok(Processor {
        id: ProcessorId(row.i64(0)?),
        is: NewProcessor {
            folder: row.str(1)?.to_owned(),
            host: row.str(2)?.to_owned(),
            boot: row.str(3)?.to_owned(),
            pid: row.i64(4)?,
            pid_start: row.i64(5)?,
        },
        started_at: row.time(6)?.ok_or_else(|| damaged("a processor without a time"))?,
    })
}

/// The outlook, and how many slots the processor has itself.
fn look(tx: &mut dyn Tx, service: &ServiceName, processor: ProcessorId) -> Result<(Outlook, i64)> {
    let name = service.as_str().into();
    let limits = tx.first(SERVICE, &[name, processor.0.into()], |row| {
        Ok((row.i64(0)?, row.bool(1)?, row.i64(2)?, row.int(3)?.unwrap_or(0)))
    })?;
    let (concurrency, paused, taken, own) = limits.unwrap_or((0, true, 0, 0));
    let now = tx.now();
    let ready = tx.first(NEXT, &[name, 1.into()], |_| Ok(()))?.is_some();
    let next_due = tx.first(NEXT_DUE, &[name], |row| row.i64(0))?.map(Timestamp);
    let outlook = Outlook {
        paused,
        concurrency,
        taken,
        ready: ready || next_due.is_some_and(|due| due <= now),
        next_retry: tx.first(NEXT_RETRY, &[name], |row| row.i64(0))?.map(Timestamp),
        next_due,
        now,
    };
    Ok((outlook, own))
}

fn claim(tx: &mut dyn Tx, plan: &Plan<'_>, room: usize) -> Result<Vec<Claim>> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let name = plan.service.as_str();
    let now = tx.now();
    tx.execute(PROMOTE, &[name.into(), now.into(), PROMOTE_STEP.into()])?;
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let ids = tx.all(NEXT, &[name.into(), limit.into()], |row| row.i64(0).map(JobId))?;
    let mut definitions = HashMap::new();
    let mut claims = Vec::with_capacity(ids.len());
    for (id, token) in ids.into_iter().zip(plan.tokens) {
        claims.push(take(tx, plan, id, token, &mut definitions)?);
    }
    Ok(claims)
}

fn take(
    tx: &mut dyn Tx,
    plan: &Plan<'_>,
    id: JobId,
    token: &Token,
    definitions: &mut HashMap<String, Option<Definition>>,
) -> Result<Claim> {
    let now = tx.now();
    let args = [id.0.into(), plan.processor.0.into(), token.as_str().into(), now.into()];
    let stored = one(tx.first(TAKE, &args, |row| {
        Ok(Stored {
            attempt: row.i64(0)?,
            function: row.lossy(1)?.unwrap_or_default(),
            args: row.bytes(2)?.map(<[u8]>::to_vec),
            kwargs: row.bytes(3)?.map(<[u8]>::to_vec),
            principal: row.bytes(4)?.map(<[u8]>::to_vec),
            site: row.bytes(5)?.map(<[u8]>::to_vec),
            conflicts: row.i64(6)?,
        })
    })?)?;
    let stored = stored.with_large(tx, id)?;
    let definition = match definitions.get(&stored.function) {
        Some(known) => known.clone(),
        None => {
            let found = function::definition(tx, plan.service.as_str(), &stored.function)?;
            definitions.insert(stored.function.clone(), found.clone());
            found
        }
    };
    Ok(Claim {
        fence: Fence { job: id, attempt: stored.attempt, processor: plan.processor },
        token: token.clone(),
        call: stored.call(plan.service),
        definition,
        conflicts: stored.conflicts,
        service: plan.service.clone(),
        function: stored.function,
    })
}

/// A call as a client may have stored it: what the triggers cannot check cheaply is checked here.
struct Stored {
    attempt: i64,
    function: String,
    args: Option<Vec<u8>>,
    kwargs: Option<Vec<u8>>,
    principal: Option<Vec<u8>>,
    site: Option<Vec<u8>>,
    conflicts: i64,
}

impl Stored {
    fn with_large(mut self, tx: &mut dyn Tx, id: JobId) -> Result<Stored> {
        if self.args.is_none() {
            let bytes = |row: &dyn Row, column| Ok(row.bytes(column)?.map(<[u8]>::to_vec));
            let large = tx.first(LARGE, &[id.0.into()], |row| Ok((bytes(row, 0)?, bytes(row, 1)?)))?;
            (self.args, self.kwargs) = large.unwrap_or_default();
        }
        Ok(self)
    }

    fn call(&self, service: &ServiceName) -> Result<Call, Failure> {
        let bad = |what: &str, why: &str| Failure::new(FailureKind::BadCall, format!("{what}: {why}"));
        let text = |what, bytes: &Option<Vec<u8>>| {
            let bytes = bytes.clone().map(String::from_utf8).transpose();
            bytes.map_err(|_| bad(what, "bytes that are no UTF-8"))
        };
        let json = |what, bytes| {
            let text = text(what, bytes)?.ok_or_else(|| bad(what, "missing"))?;
            Json::parse(&text).map_err(|flaw| bad(what, &flaw.to_string()))
        };
        let principal = text("principal", &self.principal)?;
        let site = text("site", &self.site)?;
        let call = Call {
            service: service.clone(),
            function: FunctionName::parse(&self.function).map_err(|error| bad("function", &error.to_string()))?,
            args: json("args", &self.args)?,
            kwargs: json("kwargs", &self.kwargs)?,
            principal: principal
                .map(|text| Principal::parse(&text).map_err(|error| bad("principal", &error.to_string())))
                .transpose()?,
            site,
        };
        if !call.args.is_array() {
            return Err(bad("args", "not an array"));
        }
        if !call.kwargs.is_object() {
            return Err(bad("kwargs", "not an object"));
        }
        match &call.site {
            Some(site) if !site.starts_with('/') || site.contains('\0') => Err(bad("site", "not an absolute path")),
            _ => Ok(call),
        }
    }
}

/// Records the end of an attempt, unless it is no longer this attempt's job.
pub(super) fn finish(tx: &mut dyn Tx, end: &Finish) -> Result<Option<State>> {
    let Fence { job, attempt, processor } = end.fence;
    let verdict = &end.verdict;
    let now = tx.now();
    let started_at = now.before(end.took);
    let error = verdict.error.as_ref().map(error_text);
    let result = end.result.as_ref().map(Json::as_str);
    let counts = counts(verdict);
    let fence = [job.0.into(), attempt.into(), processor.0.into()];
    let state = tx.first(
        FINISH,
        &[
            fence[0],
            fence[1],
            fence[2],
            verdict.state.as_str().into(),
            now.into(),
            started_at.into(),
            verdict.pause.map(|pause| now.after(pause)).into(),
            result.into(),
            error.as_ref().into(),
            counts.0.into(),
            counts.1.into(),
        ],
        |row| super::job::state(row.str(0)?),
    )?;
    let (state, ending) = match state {
        Some(state) => (state, verdict.ending),
        None => {
            let args = [fence[0], fence[1], fence[2], result.into(), started_at.into()];
            if tx.execute(COMPLETED_ITSELF, &args)? == 0 {
                return Ok(None);
            }
            (State::Completed, Ending::Completed)
        }
    };
    let silent = verdict.error.is_none() && verdict.state == State::Completed && end.log.is_empty();
    if !silent {
        let pieces = pieces(&end.log);
        tx.execute(
            ATTEMPT,
            &[
                fence[0],
                fence[1],
                fence[2],
                started_at.into(),
                now.into(),
                ending.as_str().into(),
                error.as_ref().into(),
                i64::try_from(end.log.dropped).unwrap_or(i64::MAX).into(),
                i64::try_from(end.log.gap).unwrap_or(i64::MAX).into(),
                pieces.as_ref().into(),
                (!end.log.bytes.is_empty()).then_some(end.log.bytes.as_slice()).into(),
            ],
        )?;
    }
    end_children(tx, job)?;
    Ok(Some(state))
}

/// Ends the nested calls of a job that ends: whatever of them is left is gone with it.
pub(super) fn end_children(tx: &mut dyn Tx, parent: JobId) -> Result<()> {
    let mut parents = vec![parent];
    while let Some(parent) = parents.pop() {
        let children = tx.all(CHILDREN, &[parent.0.into()], |row| row.i64(0).map(JobId))?;
        if children.is_empty() {
            continue;
        }
        let now = tx.now();
        let error =
            error_text(&Failure::new(FailureKind::Parent, format!("job {parent}, which made this call, ended first")));
        for child in &children {
            tx.execute(END_CHILD, &[child.0.into(), now.into(), (&error).into()])?;
        }
        parents.extend(children);
    }
    Ok(())
}

/// A failure as it is stored.
pub(super) fn error_text(failure: &Failure) -> String {
    serde_json::to_string(failure).unwrap_or_default()
}

fn counts(verdict: &Verdict) -> (i64, i64) {
    match verdict.ending {
        Ending::Error => (1, 0),
        Ending::Conflict => (0, 1),
        Ending::Completed | Ending::Interrupted | Ending::Cancelled | Ending::Crash => (0, 0),
    }
}

fn pieces(log: &Log) -> Option<String> {
    if log.pieces.iter().all(|(stream, _)| *stream == Stream::Out) {
        return None;
    }
    let pairs: Vec<_> = log.pieces.iter().map(|(stream, length)| (stream.fd(), length)).collect();
    serde_json::to_string(&pairs).ok()
}
