//! What a store does, in plain Rust: the reference that [`crate::properties`] holds the real one to.

mod cycle;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use asyncq::Kind;
use asyncq::domain::attempt::{Ending, FailureKind};
use asyncq::domain::job::{Fence, Finish, State};
use asyncq::domain::needs::Need;
use asyncq::domain::new_job::{IfTaken, KeyUntil};
use asyncq::domain::retry::CRASHES;

pub use cycle::{Plan, Room};

pub type Name = (u8, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub concurrency: u32,
    pub paused: bool,
    /// How many calls of a lane may be in the queue or run.
    pub width: u32,
    pub rate: Option<Rate>,
    /// Up to when the rate is used, in microseconds.
    rate_at: i64,
}

/// A change of a service.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::option_option, reason = "a rate, none, or as it is")]
pub struct Setting {
    pub concurrency: Option<u32>,
    pub paused: Option<bool>,
    pub width: Option<u32>,
    pub rate: Option<Option<Rate>>,
}

/// So many calls in an hour, and so many together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub calls: u32,
    pub burst: u32,
}

/// What a job was called with, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub name: Name,
    pub number: u8,
    pub principal: Option<String>,
    pub key: Option<u8>,
    pub priority: i64,
}

/// How a call is to be queued; without a time, it is due now.
#[derive(Debug, Clone)]
pub struct Wants {
    pub hold: bool,
    pub due: Option<i64>,
    pub lane: Option<String>,
    pub needs: BTreeMap<i64, Need>,
    pub key_until: Option<KeyUntil>,
    pub if_taken: IfTaken,
    pub expires_at: Option<i64>,
}

/// A change of a call that waits.
#[derive(Debug, Clone, Default)]
#[expect(clippy::option_option, reason = "a value, none, or as it is")]
pub struct Edit {
    /// When it is due, if that changes; the inner `None` is now.
    pub due: Option<Option<i64>>,
    pub hold: bool,
    pub priority: Option<i64>,
    pub lane: Option<Option<String>>,
    pub expires_at: Option<Option<i64>>,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Job {
    pub called: Called,
    pub state: State,
    pub attempt: i64,
    pub claim: i64,
    pub owner: Option<i64>,
    /// Whether the attempt has its secret still.
    pub token: bool,
    pub cancelling: bool,
    pub conflicts: i64,
    pub crashes: i64,
    pub error: Option<FailureKind>,
    pub result: Option<String>,
    pub parent: Option<i64>,
    pub depth: i64,
    pub attempts: BTreeMap<i64, Ending>,
    pub lane: Option<String>,
    /// Why it is blocked.
    pub waits: Waits,
    /// The key, until it is free again.
    pub key: Option<u8>,
    pub key_until: Option<KeyUntil>,
    pub expires_at: Option<i64>,
    pub run_at: i64,
    /// Whether it was made due at the moment of the latest verb, which the reference knows roughly.
    pub is_roughly: bool,
    /// Whether it was enqueued with other jobs that it needs.
    has_needs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    Not,
    ForJobs,
    InLane,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub services: BTreeMap<u8, Service>,
    /// With the lanes of calls that name none.
    pub functions: BTreeMap<Name, Option<&'static str>>,
    pub jobs: BTreeMap<i64, Job>,
    pub last: i64,
    pub processors: Vec<i64>,
    pub slots: BTreeMap<(u8, i64), usize>,
    /// Which job is needed by which one, and how it has to end.
    pub links: BTreeMap<(i64, i64), Need>,
    /// The jobs that have ended and whose dependents do not know it.
    pub noted: BTreeSet<i64>,
    /// The time, in milliseconds.
    pub now: i64,
    /// Whether that is the very time of the store's transaction.
    pub is_exact: bool,
}

impl Job {
    fn end(&mut self, state: State, error: Option<FailureKind>) {
        self.go(state);
        self.error = error;
        (self.token, self.cancelling) = (false, false);
    }

    fn go(&mut self, state: State) {
        assert!(self.state.may_become(state), "{} to {state}", self.state);
        self.state = state;
        self.waits = Waits::Not;
    }

    fn is_of(&self, fence: &Fence) -> bool {
        (self.attempt, self.claim) == (fence.attempt, fence.claim) && self.owner == Some(fence.processor.0)
    }

    /// Whether it takes a place of its lane.
    fn is_head(&self) -> bool {
        matches!(self.state, State::Queued | State::Processing)
    }

    fn in_lane(&self) -> Option<(u8, &str)> {
        self.lane.as_deref().map(|lane| (self.called.name.0, lane))
    }

    fn give_back(&mut self) {
        self.go(if self.cancelling { State::Cancelled } else { State::Queued });
        (self.token, self.cancelling) = (false, false);
        self.attempt -= 1;
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.attempts.entry(self.attempt).or_insert(Ending::Crash);
        match () {
            () if self.cancelling => self.end(State::Cancelled, self.error),
            () if self.crashes >= CRASHES => self.end(State::Error, Some(FailureKind::Crash)),
            () => self.end(State::Queued, None),
        }
    }

    fn finish(&mut self, end: &Finish, now: i64) -> bool {
        let (decision, result) = (&end.decision, end.result.as_ref().map(|it| it.as_str().to_owned()));
        let mut ending = decision.ending;
        let error = decision.error.as_ref().map(|error| error.kind);
        if !self.is_of(&end.fence) {
            return false;
        } else if self.state == State::Completed && self.token {
            (self.result, self.error, self.token, self.cancelling) = (result, None, false, false);
            ending = Ending::Completed;
        } else if self.state != State::Processing {
            return false;
        } else {
            self.conflicts += i64::from(ending == Ending::Conflict);
            if decision.state == State::Completed {
                self.result = result;
                self.end(State::Completed, None);
            } else if !decision.state.is_waiting() && decision.state != State::Cancelled {
                self.end(decision.state, error);
            } else if self.cancelling || decision.state == State::Cancelled {
                self.end(State::Cancelled, self.error.or(error));
            } else {
                self.go(decision.state);
                self.token = false;
                if let Some(pause) = decision.pause {
                    self.run_at = now + i64::try_from(pause.as_millis()).unwrap();
                    self.is_roughly = true;
                }
            }
        }
        if decision.state != State::Completed {
            self.attempts.entry(self.attempt).or_insert(ending);
        }
        true
    }
}

impl Reference {
    pub fn add_service(&mut self, name: u8, concurrency: u32) -> Result<bool, Kind> {
        let new = Service { concurrency, paused: false, width: 1, rate: None, rate_at: 0 };
        match self.services.get(&name) {
            Some(there) if there.concurrency == concurrency => Ok(false),
            Some(_) => Err(Kind::Denied),
            None => Ok(self.services.insert(name, new).is_none()),
        }
    }

    pub fn set_service(&mut self, name: u8, setting: Setting) -> Result<Service, Kind> {
        let service = self.services.get_mut(&name).ok_or(Kind::NotFound)?;
        service.concurrency = setting.concurrency.unwrap_or(service.concurrency);
        service.paused = setting.paused.unwrap_or(service.paused);
        // Who enters a lane, or leaves its head, is the next to notice.
        service.width = setting.width.unwrap_or(service.width);
        service.rate = setting.rate.unwrap_or(service.rate);
        Ok(*service)
    }

    /// Adds a function without a lane.
    pub fn add_function(&mut self, name: Name) -> Result<bool, Kind> {
        self.services.get(&name.0).ok_or(Kind::NotFound)?;
        match self.functions.get(&name) {
            None => Ok(self.functions.insert(name, None).is_none()),
            Some(None) => Ok(false),
            Some(Some(_)) => Err(Kind::Denied),
        }
    }

    pub fn set_lane(&mut self, name: Name, lane: Option<&'static str>) -> Result<(), Kind> {
        *self.functions.get_mut(&name).ok_or(Kind::NotFound)? = lane;
        Ok(())
    }

    /// Removes a function, or a whole service; gives which jobs were cancelled.
    pub fn remove(&mut self, service: u8, function: Option<u8>, force: bool) -> Result<Vec<i64>, Kind> {
        match function {
            Some(function) => self.find((service, function))?,
            None => self.services.get(&service).map(|_| ()).ok_or(Kind::NotFound)?,
        }
        let concerns = |name: Name| name.0 == service && function.is_none_or(|function| function == name.1);
        let of = |state: fn(State) -> bool| {
            self.jobs.iter().filter(move |(_, job)| concerns(job.called.name) && state(job.state)).map(|(id, _)| *id)
        };
        let waiting: Vec<i64> = of(State::is_waiting).collect();
        if of(|state| state == State::Processing).next().is_some() {
            return Err(Kind::Busy);
        }
        if !force && !waiting.is_empty() || function.is_none() && self.slots.keys().any(|slot| slot.0 == service) {
            return Err(Kind::Denied);
        }
        // Whoever is in line first, so that none of these goes on when the head of its lane is cancelled.
        let mut order = waiting.clone();
        order.sort_by_key(|id| self.jobs[id].state);
        for id in order {
            self.leave(id, |job| job.end(State::Cancelled, Some(FailureKind::Removed)));
        }
        self.functions.retain(|name, _| !concerns(*name));
        if function.is_none() {
            self.services.remove(&service);
        }
        Ok(waiting)
    }

    fn find(&self, name: Name) -> Result<(), Kind> {
        if self.functions.contains_key(&name) { Ok(()) } else { Err(Kind::NotFound) }
    }

    pub fn begin_nested(&mut self, inside: &Fence, called: &Called) -> Result<i64, Kind> {
        self.find(called.name)?;
        let parent = self.jobs.get(&inside.job.0).filter(|job| job.is_of(inside) && job.state == State::Processing);
        let depth = parent.ok_or(Kind::Denied)?.depth + 1;
        let id = self.add(called, &Wants::plain());
        let job = self.jobs.get_mut(&id).unwrap();
        (job.state, job.attempt, job.owner, job.token) = (State::Processing, 1, Some(inside.processor.0), true);
        // It runs at once, whatever the lane.
        (job.parent, job.depth, job.claim, job.lane) = (Some(inside.job.0), depth, 1, None);
        Ok(id)
    }

    pub fn cancel(&mut self, id: i64) -> Result<State, Kind> {
        let job = self.jobs.get_mut(&id).ok_or(Kind::NotFound)?;
        let before = job.state;
        match before {
            State::Processing if job.depth > 0 => return Err(Kind::Denied),
            State::Processing => (job.cancelling, job.error) = (true, Some(FailureKind::Cancelled)),
            state if state.is_waiting() => {
                self.leave(id, |job| job.end(State::Cancelled, Some(FailureKind::Cancelled)));
                self.settle();
            }
            _ => {}
        }
        Ok(before)
    }

    /// Gives how many calls wait again that needed it.
    pub fn retry(&mut self, id: i64) -> Result<u64, Kind> {
        let job = self.jobs.get(&id).ok_or(Kind::NotFound)?;
        if job.depth > 0 || !matches!(job.state, State::Error | State::Cancelled) {
            return Err(Kind::Denied);
        }
        self.find(job.called.name)?;
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        job.end(State::Queued, None);
        (job.conflicts, job.crashes, job.result) = (0, 0, None);
        (job.run_at, job.is_roughly) = (now, true);
        job.expires_at = job.expires_at.filter(|at| *at > now);
        self.go_on(id);
        Ok(self.revive(id))
    }

    pub fn start(&mut self, id: i64) -> Result<State, Kind> {
        let job = self.jobs.get(&id).ok_or(Kind::NotFound)?;
        let needs_others = self.needed_by(id).next().is_some();
        if job.state != State::Held && !(job.state == State::Blocked && needs_others) {
            return Err(Kind::Denied);
        }
        self.find(job.called.name)?;
        if job.state == State::Blocked {
            self.links.retain(|link, _| link.1 != id);
            self.release(id);
        } else {
            self.let_go(id);
        }
        Ok(self.jobs[&id].state)
    }

    /// A client releases a held job.
    pub fn let_go(&mut self, id: i64) -> bool {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state == State::Held) else { return false };
        job.go(if job.run_at > now { State::Delayed } else { State::Queued });
        self.go_on(id);
        true
    }

    /// A client cancels a job that waits.
    pub fn cancel_by_client(&mut self, id: i64) -> bool {
        match self.jobs.get(&id).map(|job| job.state) {
            None => true,
            Some(State::Cancelled) => {
                self.note(id);
                true
            }
            Some(state) if state.is_waiting() => {
                let error = self.jobs[&id].error;
                self.leave(id, |job| job.end(State::Cancelled, error));
                true
            }
            Some(_) => false,
        }
    }

    /// A function completes its own job.
    pub fn complete_itself(&mut self, id: i64) {
        self.leave(id, |job| job.go(State::Completed));
    }

    /// A client removes a job that has ended; says whether it may. Calls that need it may not know its end yet.
    pub fn delete(&mut self, id: i64) -> bool {
        let waits = |job: &i64| self.jobs[job].state.is_waiting();
        if self.links.keys().filter(|link| link.0 == id).any(|link| waits(&link.1)) {
            return !self.jobs[&id].state.has_ended();
        }
        if self.jobs.get(&id).is_some_and(|job| job.state.has_ended()) {
            self.jobs.remove(&id);
            self.links.retain(|link, _| link.0 != id && link.1 != id);
            self.noted.remove(&id);
        }
        true
    }

    pub fn clean(&mut self, state: State) -> u64 {
        let found: Vec<i64> = self.jobs.iter().filter(|(_, job)| job.state == state).map(|(id, _)| *id).collect();
        if !found.is_empty() {
            self.settle();
        }
        let before = self.jobs.len();
        for id in found {
            self.delete(id);
        }
        (before - self.jobs.len()) as u64
    }

    fn end_children(&mut self, parent: i64) {
        let mut ended = Vec::new();
        for (id, child) in &mut self.jobs {
            if child.parent == Some(parent) && child.depth > 0 && child.state == State::Processing {
                child.end(State::Error, Some(FailureKind::Parent));
                ended.push(*id);
            }
        }
        for child in ended {
            self.note(child);
            self.end_children(child);
        }
    }

    fn forget(&mut self, processor: i64) {
        self.slots.retain(|slot, _| slot.1 != processor);
        self.processors.retain(|other| *other != processor);
    }

    fn own(&self, processor: i64) -> Vec<i64> {
        let own = |job: &Job| job.token && job.owner == Some(processor) && job.state == State::Processing;
        self.jobs.iter().filter(|(_, job)| own(job) && job.depth == 0).map(|(id, _)| *id).collect()
    }

    pub fn unregister(&mut self, processor: i64) {
        for id in self.own(processor) {
            self.leave(id, Job::give_back);
        }
        self.forget(processor);
    }

    pub fn rescue(&mut self, processor: i64, begun: Option<&[i64]>) -> Vec<(i64, State)> {
        let mut rescued = Vec::new();
        for id in self.own(processor) {
            let has_begun = begun.is_none_or(|begun| begun.contains(&id));
            self.leave(id, |job| if has_begun { job.crash() } else { job.give_back() });
            rescued.push((id, self.jobs[&id].state));
            self.end_children(id);
        }
        let left: Vec<i64> =
            self.jobs.iter().filter(|(_, job)| job.owner == Some(processor) && job.token).map(|(id, _)| *id).collect();
        for id in left {
            let job = self.jobs.get_mut(&id).unwrap();
            if job.state == State::Processing {
                job.end(State::Error, Some(FailureKind::Parent));
                self.note(id);
                continue;
            }
            if job.state == State::Completed {
                (job.error, job.cancelling) = (None, false);
            }
            job.token = false;
        }
        self.forget(processor);
        rescued
    }

    /// An hour and a little more goes by.
    pub fn pass(&mut self, span: i64) {
        for job in self.jobs.values_mut() {
            job.run_at -= span;
            job.expires_at = job.expires_at.map(|at| at - span);
        }
        for service in self.services.values_mut() {
            service.rate_at -= span * 1000;
        }
    }
}
