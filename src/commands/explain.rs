//! Why a call does not run yet, and why it ended as it did.

use std::time::Duration;

use super::flaw::flaw;
use super::queue::Queue;
use crate::domain::attempt::{Attempt, Ending, FailureKind};
use crate::domain::function::{Definition, FunctionName};
use crate::domain::job::{Job, JobId, Phase, State};
use crate::domain::log::Stream;
use crate::domain::needs::{Blockers, Need};
use crate::domain::processor::Processor;
use crate::domain::reason::{
    Absence, CurrentAttempt, LanePosition, NotRetried, QueueAhead, Reason, Revival, TakenSlots, Tried,
};
use crate::domain::retry::CRASHES;
use crate::domain::{service::ServiceName, time::Timestamp};
use crate::error::{Kind, Result};
use crate::processor::{Fate, fate, lives, missing_space};
use crate::store::{ServiceStatus, Store};
use crate::system::disk::free_space;

/// With fewer free bytes than this, in addition to those of its disk reserve, a processor may be unable to claim a call.
const LITTLE_SPACE: u64 = 64 * 1024;

/// How many lines of stderr of a failed attempt are shown.
const LAST_LINES: usize = 5;

/// Everything that explains a job.
#[derive(Debug)]
pub struct Explanation {
    /// The job.
    pub job: Job,
    /// Why it does not run, or why it ended as it did. The reason that stops it now comes first.
    pub reasons: Vec<Reason>,
    /// The last lines that a failed call printed to stderr.
    pub stderr: Vec<String>,
}

impl Queue {
    /// Explains a job.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job.
    pub fn explain(&mut self, id: JobId) -> Result<Explanation> {
        let (job, attempts) = self.job(id)?;
        let reasons = self.reasons(&job, &attempts)?;
        let stderr = match reasons.first() {
            Some(Reason::Failed(..)) => last_lines(&mut self.store, &job)?,
            _ => Vec::new(),
        };
        Ok(Explanation { job, reasons, stderr })
    }

    /// The first reason why a waiting job, or one whose processor died, does not go on.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn held_up_by(&mut self, job: &Job) -> Result<Option<Reason>> {
        held_up_by(&mut self.store, job)
    }

    /// Why a job does not run, or why it ended as it did. There is at least one reason, and the one that stops it now comes first.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn reasons(&mut self, job: &Job, attempts: &[Attempt]) -> Result<Vec<Reason>> {
        reasons(&mut self.store, job, attempts)
    }
}

fn reasons(store: &mut Store, job: &Job, attempts: &[Attempt]) -> Result<Vec<Reason>> {
    match job.state.phase() {
        Phase::Waiting => waiting(store, job, attempts),
        Phase::Running => running(store, job),
        Phase::Ended => ended(store, job).map(|reason| vec![reason]),
    }
}

fn held_up_by(store: &mut Store, job: &Job) -> Result<Option<Reason>> {
    if job.state.has_ended() {
        return Ok(None);
    }
    let attempts = store.attempts(job)?;
    let first = reasons(store, job, &attempts)?.into_iter().next();
    Ok(first.filter(|reason| !matches!(reason, Reason::Running(_) | Reason::Cancelling(_))))
}

/// Whether a new processor would help a job: the job waits for a processor or for other calls, and a call of its service is ready.
///
/// # Errors
/// Whatever the store answers.
pub(super) fn needs_processor(store: &mut Store, id: JobId) -> Result<bool> {
    let job = store.job(id)?;
    if job.state.has_ended() {
        return Ok(false);
    }
    let attempts = store.attempts(&job)?;
    let reasons = reasons(store, &job, &attempts)?;
    let is_absent = reasons.iter().any(|reason| matches!(reason, Reason::NoProcessor(_)));
    let mut status = || store.service_status(&ServiceName::parse(&job.call.service)?, None);
    Ok(match reasons.first() {
        Some(Reason::DeadProcessor(_)) => true,
        Some(Reason::NoProcessor(_)) => status()?.waits_for_rate().is_none(),
        Some(Reason::After(_) | Reason::Lane(_)) if is_absent => {
            let status = status()?;
            status.ready && status.waits_for_rate().is_none()
        }
        _ => false,
    })
}

/// The definition of the function of a job.
fn definition(store: &mut Store, job: &Job) -> Result<Option<Definition>> {
    let (Ok(service), Ok(function)) = (ServiceName::parse(&job.call.service), FunctionName::parse(&job.call.function))
    else {
        return Ok(None);
    };
    match store.function(&service, &function) {
        Ok(function) => Ok(Some(function.definition)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn waiting(store: &mut Store, job: &Job, attempts: &[Attempt]) -> Result<Vec<Reason>> {
    let Some(service) = service_of(store, job)? else { return Ok(vec![Reason::NoService]) };
    let (status, definition) = (store.service_status(&service, None)?, definition(store, job)?);
    let mut reasons = Vec::new();
    match job.state {
        State::Held => reasons.push(Reason::Held),
        State::Blocked => match store.blocked_by(job.id)? {
            Blockers::Needs(jobs) => reasons.push(Reason::After(jobs)),
            Blockers::Lane(heads) => {
                let (lane, before) = (job.options.lane.clone().unwrap_or_default(), store.before_in_lane(job)?);
                reasons.push(Reason::Lane(LanePosition { lane, heads, before }));
            }
        },
        State::Delayed if job.times.run_at > status.now => {
            reasons.push(later(job, attempts.last(), definition.as_ref()));
        }
        _ => {}
    }
    let now_in_queue = reasons.is_empty();
    reasons.extend(store.pause_of(&service)?.map(Reason::Paused));
    let processors = store.processors()?;
    let at_work: Vec<&Processor> = processors.iter().filter(|it| lives(store, it)).collect();
    let needed = LITTLE_SPACE + missing_space(store, &at_work);
    if let Some(free) = store.location().file().ok().and_then(free_space).filter(|free| *free < needed) {
        reasons.push(Reason::NoSpace(free));
    }
    reasons.extend(processing(store, (job, now_in_queue), &status, &at_work)?);
    if now_in_queue {
        let before = store.line(job)?.before;
        if before > 0 || reasons.is_empty() {
            let priority = store.first_priority(&service)?;
            reasons.push(Reason::Order(QueueAhead { before, priority }));
        }
    }
    if let Some(at) = job.options.expires_at {
        reasons.push(Reason::WillExpire(at));
    }
    if let Some(why) = flaw(job, definition.as_ref()) {
        reasons.push(Reason::WillFail(why));
    }
    Ok(reasons)
}

/// The service of a job, if it is there.
fn service_of(store: &mut Store, job: &Job) -> Result<Option<ServiceName>> {
    let Ok(name) = ServiceName::parse(&job.call.service) else { return Ok(None) };
    match store.service(&name) {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        found => found.map(|service| Some(service.name)),
    }
}

/// Why a call is due later.
fn later(job: &Job, last: Option<&Attempt>, definition: Option<&Definition>) -> Reason {
    let at = job.times.run_at;
    let Some(last) = last else { return Reason::Delayed(at) };
    let policy = definition.map(|definition| &definition.policy.retry);
    let Some(ending) = last.ending else { return Reason::Delayed(at) };
    let tried = |failed, of: Option<i64>| Reason::Retry(at, Tried { ending, failure: last.error.clone(), failed, of });
    match ending {
        Ending::Snoozed => Reason::Snoozed(at),
        Ending::Conflict if job.counts.conflicts > 0 => {
            tried(job.counts.conflicts, policy.map(|policy| policy.conflicts.get().into()))
        }
        Ending::Error => tried(job.counts.failures, policy.map(|policy| i64::from(policy.retries) + 1)),
        Ending::Crash => tried(job.counts.crashes, Some(CRASHES)),
        _ => Reason::Delayed(at),
    }
}

/// Why no processor takes the call, or why none will when it gets into the queue.
fn processing(
    store: &mut Store,
    (job, in_queue): (&Job, bool),
    status: &ServiceStatus,
    at_work: &[&Processor],
) -> Result<Vec<Reason>> {
    let (service, mut reasons) = (ServiceName::parse(&job.call.service)?, Vec::new());
    let holders = store.holders(&service)?;
    let here = |it: &&Processor| holders.iter().any(|holder| holder.id == it.id);
    let dead = holders.iter().find(|holder| !lives(store, holder));
    let is_full = status.concurrency <= status.taken;
    if let Some(dead) = dead.filter(|_| is_full) {
        reasons.push(gone(store, dead));
    }
    let older = store.newest_older()?;
    let outdated = at_work.first().filter(|_| older.is_some_and(|older| at_work.iter().all(|it| it.id <= older)));
    if let Some(outdated) = outdated {
        reasons.push(Reason::Outdated((*outdated).clone()));
    } else if at_work.is_empty() || in_queue && !is_full && !status.paused && !at_work.iter().any(here) {
        let absence = Absence { others_work: !at_work.is_empty(), last_end: store.last_end(&service)? };
        reasons.push(Reason::NoProcessor(absence));
    }
    if !in_queue {
        return Ok(reasons);
    }
    if status.waits_for_rate().is_some()
        && let Some(rate) = store.service(&service)?.rate
    {
        reasons.push(Reason::Rate(rate, status.waits_for_rate()));
    }
    if is_full && dead.is_none() {
        let running = store.running_jobs(&service)?;
        // A processor keeps its slots while it waits for the rate.
        if !running.is_empty() || status.waits_for_rate().is_none() {
            let (concurrency, holders) = (status.concurrency, holders.clone());
            reasons.push(Reason::Slots(TakenSlots { concurrency, holders, running }));
        }
    }
    if store.line(job)?.is_poison {
        reasons.push(Reason::Quarantine);
    }
    Ok(reasons)
}

/// What a dead processor means for its jobs.
fn gone(store: &Store, processor: &Processor) -> Reason {
    match fate(store, processor) {
        Fate::OutOfReach(barrier) => Reason::OutOfReach(processor.clone(), barrier),
        Fate::Dead | Fate::Lives => Reason::DeadProcessor(processor.clone()),
    }
}

fn running(store: &mut Store, job: &Job) -> Result<Vec<Reason>> {
    let mut reasons = Vec::new();
    let by = store.line(job)?.processor;
    let processor = store.processors()?.into_iter().find(|it| Some(it.id) == by);
    if let Some(dead) = processor.as_ref().filter(|it| !lives(store, it)) {
        reasons.push(gone(store, dead));
    }
    if job.cancelling {
        reasons.push(Reason::Cancelling(job.error.clone()));
    }
    let timeout = definition(store, job)?.and_then(|definition| definition.timeout);
    let ends = |started: Timestamp, timeout: Duration| started.after(timeout);
    reasons.push(Reason::Running(CurrentAttempt {
        number: job.counts.attempt,
        started_at: job.times.started_at,
        processor,
        until: job.times.started_at.zip(timeout).map(|(started, timeout)| ends(started, timeout)),
        progress: job.progress.clone(),
    }));
    Ok(reasons)
}

fn ended(store: &mut Store, job: &Job) -> Result<Reason> {
    if job.state == State::Completed {
        return Ok(Reason::Completed(job.counts.attempt));
    }
    let definition = definition(store, job)?;
    let revival = revival(store, job, definition.is_some())?;
    let failure = match (job.state, job.error.clone()) {
        (State::Error, Some(failure)) => failure,
        (_, failure) => return Ok(Reason::Cancelled(failure, revival)),
    };
    let why = match (job.parent.filter(|_| job.immediate), &definition) {
        (Some(parent), _) => NotRetried::PartOf(parent),
        (None, None) => NotRetried::NoFunction,
        (None, Some(definition)) => {
            let policy = &definition.policy.retry;
            match failure.kind {
                FailureKind::BadCall | FailureKind::Crash | FailureKind::Refused => NotRetried::NotARun,
                _ if policy.retries == 0 => NotRetried::Never,
                _ if !policy.retries_after(&failure) => NotRetried::OtherFailures,
                _ => NotRetried::UsedUp(policy.retries),
            }
        }
    };
    Ok(Reason::Failed(failure, why, revival))
}

/// What lets a call run again that failed or was cancelled.
fn revival(store: &mut Store, job: &Job, has_function: bool) -> Result<Revival> {
    if let Some(parent) = job.parent.filter(|_| job.immediate) {
        return Ok(Revival::Whole(parent));
    }
    if job.error.as_ref().is_some_and(|error| error.kind == FailureKind::NotNeeded) {
        return Ok(Revival::Nothing);
    }
    if !has_function {
        return Ok(if service_of(store, job)?.is_some() { Revival::Function } else { Revival::Service });
    }
    Ok(match store.unmet_need(job.id)? {
        Some((_, Need::Failed)) => Revival::Nothing,
        Some((needed, _)) => Revival::Needed(needed),
        None => Revival::Retry,
    })
}

/// The last lines that the latest attempt printed to stderr, or to stdout if stderr is empty.
fn last_lines(store: &mut Store, job: &Job) -> Result<Vec<String>> {
    let log = store.log(job.id, job.counts.attempt)?;
    let of = |only: Option<Stream>| -> Vec<u8> {
        let parts = log.parts().filter(|(stream, ..)| only.is_none_or(|only| *stream == only));
        parts.flat_map(|(_, bytes, _)| bytes.to_vec()).collect()
    };
    let mut bytes = of(Some(Stream::Err));
    if bytes.is_empty() {
        bytes = of(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()).collect())
}
