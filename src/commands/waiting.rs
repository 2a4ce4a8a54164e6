//! What a job waits for.

use super::queue::Queue;
use crate::domain::job::{Job, JobId, Phase, State};
use crate::domain::rate::Rate;
use crate::domain::{needs::Blockers, processor::Processor, service::ServiceName, time::Timestamp};
use crate::error::{Kind, Result};
use crate::processor::lives;
use crate::store::Store;

/// What a job waits for; the first of several reasons, in the order in which they have to go.
#[derive(Debug)]
pub enum Waiting {
    /// Somebody has to release it.
    Release,
    /// It waits for other jobs.
    Jobs(Blockers),
    /// It is not due.
    Due {
        /// When it is.
        at: Timestamp,
        /// Whether it is to be tried again.
        again: bool,
        /// Whether its service is paused, too.
        paused: bool,
    },
    /// Its service is gone.
    Service,
    /// Its service is paused.
    Resume,
    /// All slots of its service are taken.
    Slot {
        /// How many there are.
        concurrency: i64,
        /// By whom.
        holders: Vec<Processor>,
        /// How many calls of the service come before it.
        before: u64,
    },
    /// A processor died that had its slot, or was running it.
    Rescue(Processor),
    /// No processor is at work.
    Processor,
    /// Those that are at work have no slot of its service: they may be there for others.
    AnotherProcessor,
    /// A processor that runs nothing else, as others died while they ran it.
    Alone,
    /// The rate of its service lets no call start now.
    Rate(Rate),
    /// It is in line, and processors are at work on its service.
    Turn {
        /// How many calls of the service come before it.
        before: u64,
    },
}

impl Waiting {
    /// No more calls than this are counted before a job.
    pub const MANY: u64 = Store::MOST_BEFORE;

    fn in_line(store: &mut Store, job: &Job) -> Result<Waiting> {
        let service = ServiceName::parse(&job.call.service)?;
        let limit = match store.service(&service) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(Waiting::Service),
            found => found?.rate,
        };
        let status = store.service_status(&service, None)?;
        if job.state == State::Delayed && job.times.run_at > status.now {
            return Ok(Waiting::Due { at: job.times.run_at, again: job.counts.attempt > 0, paused: status.paused });
        }
        if status.paused {
            return Ok(Waiting::Resume);
        }
        let rate = limit.filter(|_| status.waits_for_rate().is_some());
        let line = store.line(job)?;
        let holders = store.holders(&service)?;
        if status.free() == 0 {
            let dead = holders.iter().find(|holder| !lives(store, holder));
            return Ok(match (dead, rate) {
                (Some(dead), _) => Waiting::Rescue(dead.clone()),
                (None, Some(rate)) => Waiting::Rate(rate),
                (None, None) => Waiting::Slot { concurrency: status.concurrency, holders, before: line.before },
            });
        }
        let processors = store.processors()?;
        let at_work: Vec<&Processor> = processors.iter().filter(|it| lives(store, it)).collect();
        let is_here = |it: &&Processor| holders.iter().any(|holder| holder.id == it.id);
        Ok(match (at_work.is_empty(), at_work.iter().any(is_here)) {
            (true, _) => Waiting::Processor,
            (false, false) => Waiting::AnotherProcessor,
            (false, true) if line.is_poison => Waiting::Alone,
            (false, true) => rate.map_or(Waiting::Turn { before: line.before }, Waiting::Rate),
        })
    }
}

/// What a job waits for; nothing when it runs or has ended.
///
/// # Errors
/// Whatever the store answers.
pub(super) fn waiting(store: &mut Store, job: &Job) -> Result<Option<Waiting>> {
    match job.state.phase() {
        Phase::Waiting if job.state == State::Held => Ok(Some(Waiting::Release)),
        Phase::Waiting if job.state == State::Blocked => store.blocked_by(job.id).map(Waiting::Jobs).map(Some),
        Phase::Waiting => Waiting::in_line(store, job).map(Some),
        Phase::Running => {
            let by = store.line(job)?.processor;
            let dead = store.processors()?.into_iter().find(|it| Some(it.id) == by).filter(|it| !lives(store, it));
            Ok(dead.map(Waiting::Rescue))
        }
        Phase::Ended => Ok(None),
    }
}

/// Whether a job waits for nothing but a processor.
///
/// # Errors
/// Whatever the store answers.
pub(super) fn needs_processor(store: &mut Store, id: JobId) -> Result<bool> {
    let job = store.job(id)?;
    Ok(match waiting(store, &job)? {
        Some(Waiting::Rescue(_)) => true,
        Some(Waiting::Processor | Waiting::AnotherProcessor) => {
            let service = ServiceName::parse(&job.call.service)?;
            store.service_status(&service, None)?.waits_for_rate().is_none()
        }
        _ => false,
    })
}

impl Queue {
    /// What a job waits for; nothing when it runs or has ended.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn waiting(&mut self, job: &Job) -> Result<Option<Waiting>> {
        waiting(&mut self.store, job)
    }
}
