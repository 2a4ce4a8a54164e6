//! Claiming calls: the most urgent ones that are ready, with all that is needed to run them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::engine::{Tx, Value, damaged};
use super::service::{ServiceStatus, lock_service, next_due};
use super::stored_call::{Extras, Stored, bad};
use super::{fire, function, hook, lane};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::call::Call;
use crate::domain::function::{Definition, FunctionName};
use crate::domain::hook::Hooks;
use crate::domain::job::{BrokenClaim, Claim, Fence, Finish, JobId, Token};
use crate::domain::retry::{HELD_BACK, POISON};
use crate::domain::signature::fitted;
use crate::domain::{processor::ProcessorId, service::ServiceName, time::Timestamp};
use crate::error::{Error, Result};

/// What a processor has done and can do next, on one service.
#[derive(Debug)]
pub struct Cycle<'a> {
    /// The processor.
    pub processor: ProcessorId,
    /// The service.
    pub service: &'a ServiceName,
    /// The calls that have ended.
    pub finished: &'a [&'a Finish],
    /// The claimed calls that never began and go back to the queue.
    pub returned: &'a [Fence],
    /// The claimed calls that could not begin for now and go back for after a pause.
    pub postponed: &'a [Fence],
    /// How many other calls of the service it has claimed.
    pub held: usize,
    /// How many calls of other services it has claimed.
    pub elsewhere: usize,
    /// How many of those are running.
    pub running: usize,
    /// How many calls it may hold beyond its slots, so that a slot need not wait for the store.
    pub ahead: usize,
    /// The tokens for new claims; it claims no more calls than there are tokens.
    pub tokens: &'a [Token],
    /// The size of arguments, in bytes, from which on it claims no further call.
    pub bytes: usize,
}

/// How many delayed calls one transaction makes ready.
const PROMOTE_STEP: i64 = 1000;

// Indexes say which jobs wait, and the statements that change them ask the jobs themselves.
macro_rules! due {
    () => {
        "SELECT id FROM asyncq_job WHERE state = 'delayed' AND service = ?1 AND run_at <= ?2 ORDER BY run_at LIMIT ?3
        /*! FOR NO KEY UPDATE SKIP LOCKED */"
    };
}
const DUE: &str = due!();
/// What is due goes to the queue, or to the end of its lane.
macro_rules! promote {
    ($which:literal) => {
        concat!(
            "UPDATE asyncq_job SET state = CASE WHEN lane IS NULL THEN 'queued' ELSE 'blocked' END,
            waits = CASE WHEN lane IS NULL THEN 0 ELSE 2 END WHERE state = 'delayed' AND ",
            $which
        )
    };
}
const PROMOTE: &str = concat!(promote!("id IN ("), due!(), ")");
const PROMOTE_ONE: &str = promote!("id = ?1");
const DUE_IN_LANES: &str =
    concat!("SELECT id FROM asyncq_job WHERE lane IS NOT NULL AND state = 'delayed' AND id IN (", due!(), ")");
const PUT_OFF: &str = "UPDATE asyncq_job SET state = 'delayed', run_at = ?2
    WHERE id = ?1 AND (state = 'delayed' OR state = 'queued')";
pub(super) const READY: &str = "SELECT id FROM asyncq_job WHERE state = 'queued' AND service = ?1 LIMIT 1";
macro_rules! next {
    ($which:literal) => {
        concat!(
            "SELECT id, attempt, claim, function, args, kwargs, principal, site, failures, conflicts, crashes,
            CASE WHEN lane IS NULL AND key_until IS NULL AND expires_at IS NULL AND meta IS NULL THEN os_user = '' ELSE TRUE END
            FROM asyncq_job
            WHERE state = 'queued' AND service = ?1",
            $which,
            " ORDER BY priority, run_at, id LIMIT ?2 /*! FOR NO KEY UPDATE SKIP LOCKED */"
        )
    };
}
const NEXT: &str = next!("");
const NEXT_BUT_POISON: &str = next!(" AND crashes < ?3");
const POISON_RUNS: &str = "SELECT 1 FROM asyncq_job
    WHERE token IS NOT NULL AND state = 'processing' AND immediate = 0 AND service = ?1 AND crashes >= ?2 LIMIT 1";
const OLDEST: &str = "SELECT processor FROM asyncq_slot WHERE service = ?1 ORDER BY processor LIMIT 1";
/// One job, and all up to another one; as a statement for one is the cheaper.
macro_rules! take {
    ($token:literal, $which:literal) => {
        concat!(
            "UPDATE asyncq_job SET state = 'processing', attempt = attempt + 1, claim = claim + 1, processor = ?2,
            started_at = ?3, token = ",
            $token,
            " WHERE state = 'queued' AND ",
            $which
        )
    };
}
const TAKE: &str = take!("?4", "id = ?1");
// Of bytes, ?6 for each token, as a piece of a text is found by counting its characters from the start.
// Differs by necessity: in PostgreSQL a piece of bytes is no text. A list of the tokens there, UPDATE ... FROM here, costs
// SQLite a tenth of the whole claim.
const TAKE_RUN: &str = take!("CAST(substr(?4, (id - ?1) * ?6 + 1, ?6) AS TEXT)", "id >= ?1 AND id <= ?5");
/// The key of a call that has it until it has started.
const FREE_KEY: &str = "UPDATE asyncq_job SET key = NULL WHERE id = ?1 AND key_until = 'started' AND key IS NOT NULL";

/// What a claim gives.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) claims: Vec<Claim>,
    pub(super) broken: Vec<BrokenClaim>,
    functions: BTreeMap<String, Known>,
    /// The hooks of the service.
    hooks: Hooks,
    /// Why a rule of the application kept a call from being made ready or claimed: the call waits a while longer.
    pub(super) refusal: Option<Error>,
}

/// Makes due calls of a service ready, and claims as many as there is room for; `status` says then what is left.
pub(super) fn claim(tx: &mut dyn Tx, plan: &Cycle<'_>, room: usize, status: &mut ServiceStatus) -> Result<Claimed> {
    let name = plan.service.as_str();
    let mut claimed = Claimed::default();
    if status.has_hooks {
        claimed.hooks = hook::of_service(tx, plan.service)?;
    }
    let may_be_due = status.ready;
    if may_be_due {
        let due = [name.into(), status.now.into(), PROMOTE_STEP.into()];
        let in_lanes: Vec<JobId> = tx.rows(DUE_IN_LANES, &due)?;
        match tx.try_execute(PROMOTE, &due)? {
            Ok(1..) => {}
            _ => claimed.refusal = promote_one_by_one(tx, plan.service, status.now)?,
        }
        for job in in_lanes {
            lane::let_out(tx, job)?;
        }
    }
    let next = select_next(tx, plan, room, status)?;
    let next = limit_bytes(tx, plan, next, status)?;
    for (stored, token) in mark_claimed(tx, plan, next, &mut claimed.refusal)?.into_iter().zip(plan.tokens) {
        let rest = stored.rest(tx)?;
        if rest.tied {
            // Where a rule of the application refuses that, the key is free at the end.
            drop(tx.try_execute(FREE_KEY, &[stored.id.into()])?);
        }
        hand_out(tx, plan, (stored, rest, token), &mut claimed)?;
    }
    if may_be_due || claimed.refusal.is_some() {
        status.next_due = next_due(tx, plan.service)?;
    }
    Ok(claimed)
}

/// Makes those due calls ready that no rule of the application holds back, and lets the others wait; gives the rule.
fn promote_one_by_one(tx: &mut dyn Tx, service: &ServiceName, now: Timestamp) -> Result<Option<Error>> {
    let mut refusal = None;
    let due: Vec<JobId> = tx.rows(DUE, &[service.into(), now.into(), PROMOTE_STEP.into()])?;
    for job in due {
        match tx.try_execute(PROMOTE_ONE, &[job.into()])? {
            Ok(0) => return Err(not_waiting(job)),
            Ok(_) => {}
            Err(error) => {
                hold_back(tx, job)?;
                refusal.get_or_insert(error);
            }
        }
    }
    Ok(refusal)
}

/// The error for a job that was found, and locked, among those that wait, and does not wait: the index lies.
fn not_waiting(job: JobId) -> Error {
    damaged(&format!("job {job} stands in an index of jobs that wait, and does not wait"))
}

/// Lets a call that a rule of the application refuses wait for a while, so that it does not block the others.
fn hold_back(tx: &mut dyn Tx, job: JobId) -> Result<()> {
    let later = tx.now().after(HELD_BACK);
    tx.execute(PUT_OFF, &[job.into(), later.into()])?;
    lane::let_out(tx, job)
}

/// The next calls, as many as there is room for. A poison job runs alone: only an idle processor claims it, and claims
/// nothing else. Until then the calls after it wait, unless this processor leaves it to another one.
fn select_next(tx: &mut dyn Tx, plan: &Cycle<'_>, room: usize, status: &mut ServiceStatus) -> Result<Vec<Stored>> {
    let name = plan.service.as_str();
    // One more than there is room for, to know whether more is ready.
    let limit = room.saturating_add(1);
    let mut next: Vec<Stored> = tx.rows(NEXT, &[name.into(), limit.into()])?;
    if let Some(first) = next.iter().take(room).position(Stored::is_poison) {
        if leaves_poison(tx, plan)? {
            next = tx.rows(NEXT_BUT_POISON, &[name.into(), limit.into(), POISON.into()])?;
        } else {
            let is_idle = plan.held + plan.elsewhere == 0;
            next.truncate(if is_idle { first.max(1) } else { first });
            status.wants_alone = first == 0 && !is_idle;
        }
    }
    status.ready = next.len() > room;
    next.truncate(room);
    Ok(next)
}

/// Whether a processor leaves poison jobs to others. Only one runs at a time, so that the other processors do the other work;
/// and the oldest processor becomes idle for it, so that its turn comes.
fn leaves_poison(tx: &mut dyn Tx, plan: &Cycle<'_>) -> Result<bool> {
    let name = plan.service.into();
    lock_service(tx, plan.service)?;
    if tx.has(POISON_RUNS, &[name, POISON.into()])? {
        return Ok(true);
    }
    if plan.held + plan.elsewhere == 0 {
        return Ok(false);
    }
    let oldest: Option<ProcessorId> = tx.row(OLDEST, &[name])?;
    Ok(oldest.is_some_and(|oldest| oldest != plan.processor))
}

/// The first of the next calls, with their arguments: at least one, and no more once the arguments have as many bytes as the
/// processor wants.
fn limit_bytes(
    tx: &mut dyn Tx,
    plan: &Cycle<'_>,
    next: Vec<Stored>,
    status: &mut ServiceStatus,
) -> Result<Vec<Stored>> {
    let mut some = Vec::with_capacity(next.len());
    let mut bytes = 0;
    for stored in next {
        if bytes >= plan.bytes && !some.is_empty() {
            status.ready = true;
            break;
        }
        let stored = stored.with_large(tx)?;
        bytes += [&stored.args, &stored.kwargs].into_iter().flatten().map(Vec::len).sum::<usize>();
        some.push(stored);
    }
    Ok(some)
}

/// Marks calls as the processor's: those whose numbers follow each other, as they mostly do, by one statement. Gives those
/// that no rule of the application refuses, each with the next token; the others wait.
fn mark_claimed(
    tx: &mut dyn Tx,
    plan: &Cycle<'_>,
    mut next: Vec<Stored>,
    refusal: &mut Option<Error>,
) -> Result<Vec<Stored>> {
    let mut tokens = plan.tokens;
    let mut refused = BTreeSet::new();
    for run in next.chunk_by(|one, other| one.id.0 + 1 == other.id.0) {
        if mark_run(tx, plan, run, tokens)?.is_ok() {
            tokens = &tokens[run.len()..];
            continue;
        }
        for stored in run {
            match mark_run(tx, plan, std::slice::from_ref(stored), tokens)? {
                Ok(()) => tokens = &tokens[1..],
                Err(error) => {
                    hold_back(tx, stored.id)?;
                    refused.insert(stored.id);
                    refusal.get_or_insert(error);
                }
            }
        }
    }
    if !refused.is_empty() {
        next.retain(|stored| !refused.contains(&stored.id));
    }
    Ok(next)
}

/// Marks calls whose numbers follow each other as the processor's, with the first of these tokens; all, or none where a rule
/// of the application refuses that.
fn mark_run(tx: &mut dyn Tx, plan: &Cycle<'_>, run: &[Stored], tokens: &[Token]) -> Result<Result<()>> {
    let joined: String = tokens.iter().take(run.len()).map(Token::as_str).collect();
    debug_assert_eq!(joined.len(), run.len() * Token::DIGITS, "each is as long as the statement takes it to be");
    let [job, processor, now]: [Value<'_>; 3] = [run[0].id.into(), plan.processor.into(), tx.now().into()];
    let marked = match run {
        [.., last] if run.len() > 1 => {
            let joined = tx.as_kept(&joined)?;
            let each = joined.len() / run.len();
            tx.try_execute(TAKE_RUN, &[job, processor, now, (&*joined).into(), last.id.into(), each.into()])?
        }
        _ => tx.try_execute(TAKE, &[job, processor, now, (&joined).into()])?,
    };
    match marked {
        Ok(count) if count != run.len() as u64 => Err(not_waiting(run[0].id)),
        marked => Ok(marked.map(|_| ())),
    }
}

/// Adds a call that was taken to those claimed, with all that is needed to run it.
fn hand_out(
    tx: &mut dyn Tx,
    plan: &Cycle<'_>,
    (mut stored, rest, token): (Stored, Extras, &Token),
    claimed: &mut Claimed,
) -> Result<()> {
    let Stored { id: job, attempt, claim, .. } = stored;
    let tied = rest.tied;
    let tick = if rest.is_own == Some(1) { fire::tick_of(tx, job)?.map(Box::new) } else { None };
    let fence = Fence { job, attempt: attempt + 1, claim: claim + 1, processor: plan.processor, tied };
    if !claimed.functions.contains_key(&stored.function) {
        let key = (plan.service.as_str(), stored.function.as_str());
        let definition = function::definition(tx, key, &claimed.hooks)?.map(Arc::new);
        let name = FunctionName::parse(&stored.function).map_err(|error| bad("function", &error.to_string()));
        claimed.functions.insert(stored.function.clone(), Known { name, definition });
    }
    let known = &claimed.functions[&stored.function];
    let call = known.name.clone().and_then(|name| stored.call(plan.service, name)).and_then(|call| known.fit(call));
    let (before, expires_at, meta) = (stored.before, rest.expires_at, rest.meta());
    match call.and_then(|call| Ok((call, meta?, known.definition.clone()?))) {
        Ok((call, meta, definition)) => {
            let token = token.clone();
            claimed.claims.push(Claim { fence, token, call, definition, before, expires_at, meta, tick });
        }
        Err(failure) => {
            let (service, function) = (plan.service.clone(), stored.function);
            let hooks = known.definition.as_ref().map_or(&claimed.hooks, |it| &it.policy.hooks).clone();
            claimed.broken.push(BrokenClaim { fence, service, function, before, failure, hooks });
        }
    }
    Ok(())
}

/// What the calls of one function have in common.
struct Known {
    name: Result<FunctionName, Failure>,
    definition: Result<Arc<Definition>, Failure>,
}

impl Known {
    /// A call as the function gets it. A client's own INSERT may have other arguments than it takes, and so may a call that was
    /// queued before the function had its signature.
    fn fit(&self, call: Call) -> Result<Call, Failure> {
        let takes = self.definition.as_ref().ok().and_then(|definition| definition.inputs.takes.as_ref());
        if takes.is_none() {
            return Ok(call);
        }
        fitted(call, takes).map_err(|error| Failure::new(FailureKind::BadCall, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn jobs_that_wait_are_found_by_their_index_and_changed_by_number() {
        let (delayed, number) = ("INDEX asyncq_job_delayed (service=? AND run_at<?)", "INTEGER PRIMARY KEY (rowid=?)");
        assert_eq!(ways_to_jobs(DUE), [format!("COVERING {delayed}")]);
        assert_eq!(ways_to_jobs(PROMOTE), [number.to_owned(), format!("COVERING {delayed}")]);
        for sql in [PROMOTE_ONE, PUT_OFF, TAKE, FREE_KEY] {
            assert_eq!(ways_to_jobs(sql), [number], "{sql}");
        }
        assert_eq!(ways_to_jobs(TAKE_RUN), ["INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]);
        for sql in [NEXT, NEXT_BUT_POISON] {
            assert_eq!(ways_to_jobs(sql), ["INDEX asyncq_job_queued (service=?)"], "{sql}");
            assert!(!plan(sql).iter().any(|step| step.contains("B-TREE")), "{sql}");
        }
    }
}
