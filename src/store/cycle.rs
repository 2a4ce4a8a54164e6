//! What a processor does with the store: it registers, looks for work, records ended calls and claims the next ones.

use super::Store;
use super::claim::{Claimed, Cycle, READY, claim};
use super::columns::Column;
use super::engine::{Tx, one};
use super::expire::{expire, next_expiry, soonest};
use super::finish::{finish_all, give_back, postpone};
use super::service::{ServiceStatus, lock_service};
use super::used::if_used;
use super::{clock, fire, follow_up, needs};
use crate::domain::job::{BrokenClaim, Claim, Fence, Finish, State};
use crate::domain::processor::{NewProcessor, Processor, ProcessorId};
use crate::domain::{rate::Rate, service::ServiceName, tick::TickTrouble, time::Timestamp};
use crate::error::{Error, Kind, Result};

/// What a [`Cycle`] did.
#[derive(Debug)]
pub struct CycleResult {
    /// For each ended call the state of its job now, or `None` if the job no longer belonged to this attempt.
    pub finished: Vec<Option<State>>,
    /// The new claims, most urgent first.
    pub claims: Vec<Claim>,
    /// Claims that cannot be run. They end when the processor records that.
    pub broken: Vec<BrokenClaim>,
    /// Why a rule of the application holds a call back, if one does.
    pub refusal: Option<Error>,
    /// What went wrong with schedules, each with its name.
    pub troubles: Vec<(String, TickTrouble)>,
    /// How many of its calls the processor may have running at once from now on.
    pub slots: usize,
    /// How things stand after that.
    pub status: ServiceStatus,
}

const REGISTER: &str = "INSERT INTO asyncq_processor (folder, host, boot, pid, pid_start, started_at, store)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id";
const UNREGISTER: &str = "DELETE FROM asyncq_processor WHERE id = ?1";
const UNHEARD: &str =
    "SELECT id, attempt, claim, processor, (lane IS NOT NULL OR key_until IS NOT NULL) FROM asyncq_job
    WHERE token IS NOT NULL AND processor = ?1 AND state = 'processing' AND immediate = 0";
/// The last column says whether the processor registered in another file. It says no if either file is unknown.
const PROCESSORS: &str = "SELECT id, folder, host, boot, pid, pid_start, started_at, COALESCE(store <> ?1, FALSE)
    FROM asyncq_processor ORDER BY id";
/// Only a cycle needs to know whether there are hooks. `used.rs` defines the bits.
macro_rules! service {
    ($has_hooks:literal, $from:literal) => {
        concat!(
            "SELECT s.concurrency, s.paused,
            (SELECT CAST(COALESCE(SUM(taken), 0) AS BIGINT) FROM asyncq_slot WHERE service = s.name AND processor <> ?2),
            (SELECT taken FROM asyncq_slot WHERE service = s.name AND processor = ?2),
            (SELECT run_at FROM asyncq_job WHERE state = 'delayed' AND service = ?1 ORDER BY run_at LIMIT 1), ",
            if_used!("1", next_expiry!()),
            ", ",
            if_used!(
                "2",
                "SELECT next_tick FROM asyncq_schedule WHERE paused = 0 AND next_tick IS NOT NULL AND service = ?1
                ORDER BY next_tick LIMIT 1"
            ),
            ", ",
            $has_hooks,
            ", ",
            if_used!(
                "4",
                "SELECT 1 FROM asyncq_settle t CROSS JOIN asyncq_job j WHERE j.id = t.job AND j.finished_at IS NOT NULL LIMIT 1"
            ),
            ", s.rate, s.rate_at
            FROM asyncq_service s ",
            $from
        )
    };
}
const SERVICE: &str = service!("FALSE", "WHERE s.name = ?1");
/// This is for a processor that nobody may declare dead before the commit.
const SERVICE_OF: &str = service!(
    "COALESCE(s.on_error, s.on_success) IS NOT NULL",
    "JOIN asyncq_processor p ON p.id = ?2 WHERE s.name = ?1 /*! FOR KEY SHARE OF p */"
);
const IS_REGISTERED: &str = "SELECT 1 FROM asyncq_processor WHERE id = ?1";
const HOLDERS: &str =
    "SELECT p.id, p.folder, p.host, p.boot, p.pid, p.pid_start, p.started_at, COALESCE(p.store <> ?2, FALSE)
    FROM asyncq_slot s JOIN asyncq_processor p ON p.id = s.processor WHERE s.service = ?1 ORDER BY p.id";
const TAKE_SLOTS: &str = "INSERT INTO asyncq_slot (service, processor, taken) VALUES (?1, ?2, ?3)
    ON CONFLICT (service, processor) DO UPDATE SET taken = excluded.taken";
const FREE_SLOTS: &str = "DELETE FROM asyncq_slot WHERE service = ?1 AND processor = ?2";
const USE_RATE: &str = "UPDATE asyncq_service SET rate_at = ?2 WHERE name = ?1";
const CANCELLING: &str =
    "SELECT id, attempt, claim, processor, (lane IS NOT NULL OR key_until IS NOT NULL) FROM asyncq_job
    WHERE token IS NOT NULL AND processor = ?1 AND state = 'processing' AND cancelling = 1 AND immediate = 0";
const RECORD_PROGRESS: &str = "INSERT INTO asyncq_progress (job, attempt, processor, told)
    SELECT id, attempt, processor, ?4 FROM asyncq_job
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND claim = ?5 AND state = 'processing'
    ON CONFLICT (job) DO UPDATE SET attempt = excluded.attempt, processor = excluded.processor, told = excluded.told";
const FORGET_PROGRESS: &str =
    "DELETE FROM asyncq_progress WHERE processor = ?1 AND NOT EXISTS (SELECT 1 FROM asyncq_job j
    WHERE j.id = asyncq_progress.job AND j.attempt = asyncq_progress.attempt AND j.state = 'processing')";

impl<'a> Cycle<'a> {
    /// A cycle that records nothing and claims nothing.
    #[must_use]
    pub fn of(processor: ProcessorId, service: &'a ServiceName) -> Cycle<'a> {
        let (finished, returned, postponed, tokens) = (&[], &[], &[], &[]);
        let (held, elsewhere, running, ahead, bytes) = (0, 0, 0, 0, usize::MAX);
        Cycle { processor, service, finished, returned, postponed, held, elsewhere, running, ahead, tokens, bytes }
    }

    /// How many calls it may claim.
    fn room(&self, status: &ServiceStatus) -> usize {
        let free = status.free();
        // With a rate, each claim counts as a start, so nothing is claimed ahead.
        let ahead = if status.allowance.is_some() { 0 } else { self.ahead };
        let target = if free == 0 { 0 } else { free + ahead };
        target.saturating_sub(self.held).min(self.tokens.len())
    }
}

impl Store {
    /// Registers a processor. It holds the lock on its file from before this until it is gone.
    pub fn register(&mut self, is: &NewProcessor) -> Result<ProcessorId> {
        self.write_untriggered(|tx| {
            let (now, store) = (tx.now(), tx.identity().map(str::to_owned));
            let process =
                [(&is.folder).into(), (&is.host).into(), (&is.boot).into(), is.pid.into(), is.pid_start.into()];
            let args = [&process[..], &[now.into(), store.as_ref().into()]].concat();
            one(tx.row(REGISTER, &args)?)
        })
    }

    /// Removes a processor that has finished all its calls. If the store still has calls of it, they go back: when a commit fails,
    /// the processor does not know about claims in it, although they may be there. This also works in a store that a newer build
    /// has upgraded.
    pub fn unregister(&mut self, processor: ProcessorId) -> Result<()> {
        self.write_in_any_schema(|tx, _| {
            let unheard: Vec<Fence> = tx.rows(UNHEARD, &[processor.into()])?;
            for fence in &unheard {
                give_back(tx, fence)?;
            }
            follow_up::changed(tx, &unheard)?;
            tx.execute(UNREGISTER, &[processor.into()]).map(|_| ())
        })
    }

    /// The registered processors, oldest first: those that work, and those that have died.
    pub fn processors(&mut self) -> Result<Vec<Processor>> {
        self.read(|tx| {
            let here = tx.identity().map(str::to_owned);
            tx.rows(PROCESSORS, &[here.as_ref().into()])
        })
    }

    /// The processors that have taken slots of a service.
    pub fn holders(&mut self, service: &ServiceName) -> Result<Vec<Processor>> {
        self.read(|tx| {
            let here = tx.identity().map(str::to_owned);
            tx.rows(HOLDERS, &[service.into(), here.as_ref().into()])
        })
    }

    /// The status of a service. Changes nothing.
    pub fn service_status(&mut self, service: &ServiceName, processor: Option<ProcessorId>) -> Result<ServiceStatus> {
        self.read(|tx| {
            let found = look(tx, SERVICE, service, processor.unwrap_or(ProcessorId(0)))?;
            let mut status = found.unwrap_or_else(|| Found::nothing(tx.now())).status;
            status.ready = status.ready || tx.has(READY, &[service.into()])?;
            Ok(status)
        })
    }

    /// Records ended calls, takes back those that never began, makes the jobs of schedules, makes due calls ready, and claims the
    /// next ones, in one transaction. Takes slots for the calls that may run then, and frees the other slots. If a newer build has
    /// upgraded the store, it claims nothing.
    pub fn run_cycle(&mut self, plan: &Cycle<'_>) -> Result<CycleResult> {
        self.write_in_any_schema(|tx, outdated| {
            let finished = finish_all(tx, plan.finished)?;
            for fence in plan.returned {
                give_back(tx, fence)?;
            }
            for fence in plan.postponed {
                postpone(tx, fence)?;
            }
            follow_up::changed(tx, plan.returned.iter().chain(plan.postponed))?;
            let mut found = look_as(tx, plan)?;
            let takes_slots = found.status.free().min(plan.held + plan.room(&found.status)) > found.taken;
            if !outdated && (takes_slots || found.status.allowance.is_some()) {
                // If two processors see the same free slot, or the same allowance, only one may take it.
                lock_service(tx, plan.service)?;
                found = look_as(tx, plan)?;
            }
            let Found { mut status, taken, mut has_ended } = found;
            let clock = tx.clock();
            status.outdated = outdated;
            let expires = !outdated && status.expires.is_some_and(|expires| expires <= status.now);
            let more_expire = expires && expire(tx, plan.service)?;
            has_ended |= expires;
            // Calls that it lets go on are claimed at once.
            let is_left = has_ended && !outdated && needs::settle(tx)?;
            if expires {
                status.expires = soonest(tx, plan.service)?;
            }
            // Expired calls that are left must not begin.
            let wanted = if more_expire { 0 } else { plan.room(&status) };
            let room = status.allowance.map_or(wanted, |allowance| allowance.starts().min(wanted));
            let mut troubles = Vec::new();
            if clock::was_set_back(clock, status.now) && !outdated {
                clock::move_retries(tx, clock)?;
                troubles = fire::wake(tx)?;
            }
            let fires = status.has_due_ticks();
            if fires {
                let fired = fire::fire(tx, plan.service)?;
                status.next_tick = fired.next_tick;
                status.expires = soonest(tx, plan.service)?;
                troubles.extend(fired.troubles);
            }
            let Claimed { claims, broken, refusal, .. } =
                if outdated { Claimed::default() } else { claim(tx, plan, room, &mut status)? };
            status.ready |= is_left || more_expire || status.has_due_ticks();
            if !finished.is_empty() || !claims.is_empty() || fires {
                clock::note(tx, clock)?;
            }
            let mut slots = plan.held + claims.len() + broken.len();
            if let Some(before) = status.allowance {
                let after = before.after(claims.len() + broken.len());
                status.allowance = Some(after);
                if after != before && !outdated {
                    tx.execute(USE_RATE, &[plan.service.into(), after.used().into()])?;
                }
                if status.waits_for_rate().is_some() {
                    // A processor keeps its slots for the calls that the rate lets start next.
                    slots = plan.held + wanted;
                }
            }
            let slots = slots.min(status.free());
            let taking = slots.max(plan.running);
            if taking != taken {
                let slots = [plan.service.into(), plan.processor.into()];
                match taking {
                    0 => tx.execute(FREE_SLOTS, &slots)?,
                    _ => tx.execute(TAKE_SLOTS, &[slots[0], slots[1], taking.into()])?,
                };
            }
            Ok(CycleResult { finished, claims, broken, refusal, troubles, slots, status })
        })
    }

    /// Records ended calls and nothing else, in one transaction. Returns for each the state of its job now, or `None` if the job no
    /// longer belonged to this attempt; a nested call no longer does if its parent has ended. This also works in a store that a
    /// newer build has upgraded.
    pub fn finish(&mut self, finished: &[&Finish]) -> Result<Vec<Option<State>>> {
        self.write_in_any_schema(|tx, outdated| {
            let states = finish_all(tx, finished)?;
            if !outdated {
                needs::settle(tx)?;
            }
            Ok(states)
        })
    }

    /// The running jobs of a processor that somebody has cancelled.
    pub fn cancelling(&mut self, processor: ProcessorId) -> Result<Vec<Fence>> {
        self.read(|tx| tx.rows(CANCELLING, &[processor.into()]))
    }

    /// Records the progress of a processor's calls, and forgets that of its ended calls.
    pub fn record_progress(&mut self, processor: ProcessorId, reports: &[(Fence, String)]) -> Result<()> {
        self.write_untriggered(|tx| {
            for (fence, text) in reports {
                let Fence { job, attempt, claim, processor, tied: _ } = *fence;
                let args = [job.into(), attempt.into(), processor.into(), text.into(), claim.into()];
                tx.execute(RECORD_PROGRESS, &args)?;
            }
            tx.execute(FORGET_PROGRESS, &[processor.into()]).map(|_| ())
        })
    }
}

/// How a look finds a service.
struct Found {
    /// Its `ready` knows only of due calls that are not in the queue yet, and not of the queue.
    status: ServiceStatus,
    /// How many slots the processor has itself.
    taken: usize,
    /// Whether jobs have ended and the calls that need them do not know that yet.
    has_ended: bool,
}

impl Found {
    /// A service that is not there runs nothing.
    fn nothing(now: Timestamp) -> Found {
        let status = ServiceStatus { paused: true, now, ..ServiceStatus::default() };
        Found { status, taken: 0, has_ended: false }
    }
}

/// The status of a service, for a processor that holds nothing of it.
pub(super) fn look_at(tx: &mut dyn Tx, service: &ServiceName) -> Result<Option<ServiceStatus>> {
    Ok(look(tx, SERVICE, service, ProcessorId(0))?.map(|found| found.status))
}

/// Looks at a service by one of its statements.
fn look(tx: &mut dyn Tx, sql: &str, service: &ServiceName, processor: ProcessorId) -> Result<Option<Found>> {
    let (now, clock, is_paused) = (tx.now(), tx.clock(), tx.is_paused());
    let args = [service.into(), processor.into(), tx.used().into()];
    tx.first(sql, &args, |row| {
        let (next_due, expires, has_ended) = (row.time(4)?, row.time(5)?, row.int(8)?.is_some());
        let (concurrency, paused, taken, has_hooks) = (row.i64(0)?, row.bool(1)?, row.i64(2)?, row.bool(7)?);
        // In a pause, ticks are missed.
        let paused = paused || is_paused;
        let next_tick = row.time(6)?.filter(|_| !paused);
        let is_due = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        // A round happens only if something is ready. It also moves the retries of a clock that was set back.
        let ready = is_due(next_due) || is_due(next_tick) || clock::was_set_back(clock, now) || has_ended;
        let status = ServiceStatus {
            paused,
            concurrency,
            taken,
            ready,
            has_hooks,
            next_due,
            expires,
            next_tick,
            now,
            ..ServiceStatus::default()
        };
        let rate: Option<Rate> = Column::read(row, &mut 9)?;
        let used = row.i64(10)?;
        let allowance = rate.map(|rate| rate.allowance(now, used));
        let status = ServiceStatus { allowance, ..status };
        let taken = usize::try_from(row.int(3)?.unwrap_or(0)).unwrap_or(0);
        Ok(Found { status, taken, has_ended })
    })
}

/// Looks at the service of a cycle. Nobody may declare its processor dead before the commit.
fn look_as(tx: &mut dyn Tx, plan: &Cycle<'_>) -> Result<Found> {
    if let Some(found) = look(tx, SERVICE_OF, plan.service, plan.processor)? {
        return Ok(found);
    }
    if !plan.tokens.is_empty() && !tx.has(IS_REGISTERED, &[plan.processor.into()])? {
        return Err(Error::new(Kind::Denied, format!("processor {} is no longer registered", plan.processor.0))
            .with_hint("another processor has taken over its jobs; start a new one"));
    }
    Ok(Found::nothing(tx.now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn a_look_at_a_service_walks_through_no_jobs() {
        for sql in [SERVICE, SERVICE_OF] {
            let steps = plan(sql);
            let walks: Vec<_> = steps.iter().filter(|step| step.starts_with("SCAN")).collect();
            assert_eq!(walks, ["SCAN t"], "{steps:?}");
            let tick = "SEARCH asyncq_schedule USING COVERING INDEX asyncq_schedule_next (service=? AND next_tick>?)";
            assert!(steps.iter().any(|step| step == tick), "{steps:?}");
        }
    }
}
