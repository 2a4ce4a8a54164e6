//! What a store does, in plain Rust: the reference that [`crate::properties`] holds the real one to.

use std::collections::BTreeMap;

use asyncq::Kind;
use asyncq::domain::attempt::{Ending, FailureKind};
use asyncq::domain::job::{Fence, Finish, State};
use asyncq::domain::retry::{CRASHES, POISON};

pub type Name = (u8, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub concurrency: u32,
    pub paused: bool,
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

#[derive(Debug, Clone)]
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
    /// Whether it is due in an hour, and else when exactly, as the store told.
    pub far: bool,
    pub run_at: i64,
    pub attempts: BTreeMap<i64, Ending>,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub services: BTreeMap<u8, Service>,
    pub functions: Vec<Name>,
    pub jobs: BTreeMap<i64, Job>,
    pub last: i64,
    pub processors: Vec<i64>,
    pub slots: BTreeMap<(u8, i64), usize>,
}

/// The part of a plan that decides how much is claimed.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub held: usize,
    pub running: usize,
    pub ahead: usize,
    pub tokens: usize,
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
    }

    fn is_of(&self, fence: &Fence) -> bool {
        (self.attempt, self.claim) == (fence.attempt, fence.claim) && self.owner == Some(fence.processor.0)
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

    fn finish(&mut self, end: &Finish, far: bool) -> bool {
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
                (self.token, self.far) = (false, far && decision.state == State::Delayed);
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
        match self.services.get(&name) {
            Some(there) if there.concurrency == concurrency => Ok(false),
            Some(_) => Err(Kind::Denied),
            None => Ok(self.services.insert(name, Service { concurrency, paused: false }).is_none()),
        }
    }

    pub fn set_service(&mut self, name: u8, concurrency: Option<u32>, paused: Option<bool>) -> Result<Service, Kind> {
        let service = self.services.get_mut(&name).ok_or(Kind::NotFound)?;
        service.concurrency = concurrency.unwrap_or(service.concurrency);
        service.paused = paused.unwrap_or(service.paused);
        Ok(*service)
    }

    pub fn add_function(&mut self, name: Name) -> Result<bool, Kind> {
        self.services.get(&name.0).ok_or(Kind::NotFound)?;
        let new = !self.functions.contains(&name);
        if new {
            self.functions.push(name);
        }
        Ok(new)
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
        for id in &waiting {
            self.jobs.get_mut(id).unwrap().end(State::Cancelled, Some(FailureKind::Removed));
        }
        self.functions.retain(|name| !concerns(*name));
        if function.is_none() {
            self.services.remove(&service);
        }
        Ok(waiting)
    }

    fn find(&self, name: Name) -> Result<(), Kind> {
        if self.functions.contains(&name) { Ok(()) } else { Err(Kind::NotFound) }
    }

    /// Gives whether the job is new, and which it is.
    pub fn enqueue(&mut self, called: &Called, state: State) -> Result<(bool, i64), Kind> {
        self.find(called.name)?;
        let same_key = |job: &Job| called.key.is_some() && job.called.key == called.key;
        if let Some((id, there)) = self.jobs.iter().find(|(_, job)| same_key(job)) {
            return if there.called == *called { Ok((false, *id)) } else { Err(Kind::Denied) };
        }
        self.last += 1;
        let job = Job {
            called: called.clone(),
            state,
            attempt: 0,
            claim: 0,
            owner: None,
            token: false,
            cancelling: false,
            conflicts: 0,
            crashes: 0,
            error: None,
            result: None,
            parent: None,
            depth: 0,
            far: state == State::Delayed,
            run_at: 0,
            attempts: BTreeMap::new(),
        };
        self.jobs.insert(self.last, job);
        Ok((true, self.last))
    }

    pub fn begin_nested(&mut self, inside: &Fence, called: &Called) -> Result<i64, Kind> {
        self.find(called.name)?;
        let parent = self.jobs.get(&inside.job.0).filter(|job| job.is_of(inside) && job.state == State::Processing);
        let depth = parent.ok_or(Kind::Denied)?.depth + 1;
        let (_, id) = self.enqueue(called, State::Held)?;
        let job = self.jobs.get_mut(&id).unwrap();
        (job.state, job.attempt, job.owner, job.token) = (State::Processing, 1, Some(inside.processor.0), true);
        (job.parent, job.depth, job.claim) = (Some(inside.job.0), depth, 1);
        Ok(id)
    }

    pub fn cancel(&mut self, id: i64) -> Result<State, Kind> {
        let job = self.jobs.get_mut(&id).ok_or(Kind::NotFound)?;
        let before = job.state;
        match before {
            State::Processing if job.depth > 0 => return Err(Kind::Denied),
            State::Processing => (job.cancelling, job.error) = (true, Some(FailureKind::Cancelled)),
            state if state.is_waiting() => job.end(State::Cancelled, Some(FailureKind::Cancelled)),
            _ => {}
        }
        Ok(before)
    }

    pub fn retry(&mut self, id: i64) -> Result<(), Kind> {
        let job = self.jobs.get(&id).ok_or(Kind::NotFound)?;
        if job.depth > 0 || !matches!(job.state, State::Error | State::Cancelled) {
            return Err(Kind::Denied);
        }
        self.find(job.called.name)?;
        let job = self.jobs.get_mut(&id).unwrap();
        job.end(State::Queued, None);
        (job.conflicts, job.crashes, job.result, job.far) = (0, 0, None, false);
        Ok(())
    }

    pub fn start(&mut self, id: i64) -> Result<State, Kind> {
        let job = self.jobs.get(&id).ok_or(Kind::NotFound)?;
        if job.state != State::Held {
            return Err(Kind::Denied);
        }
        self.find(job.called.name)?;
        let job = self.jobs.get_mut(&id).unwrap();
        job.go(if job.far { State::Delayed } else { State::Queued });
        Ok(job.state)
    }

    pub fn clean(&mut self, states: &[State]) -> u64 {
        let before = self.jobs.len();
        self.jobs.retain(|_, job| !states.contains(&job.state));
        (before - self.jobs.len()) as u64
    }

    pub fn finish(&mut self, end: &Finish, far: bool) -> Option<State> {
        let job = self.jobs.get_mut(&end.fence.job.0)?;
        if !job.finish(end, far) {
            return None;
        }
        let state = job.state;
        self.end_children(|job| job == end.fence.job.0);
        Some(state)
    }

    pub fn give_back(&mut self, fence: &Fence) {
        let job = self.jobs.get_mut(&fence.job.0).filter(|job| job.is_of(fence) && job.state == State::Processing);
        job.into_iter().for_each(Job::give_back);
    }

    fn end_children(&mut self, is_over: impl Fn(i64) -> bool) {
        let mut over: Vec<i64> = self.jobs.keys().copied().filter(|id| is_over(*id)).collect();
        while let Some(parent) = over.pop() {
            for (id, child) in &mut self.jobs {
                if child.parent == Some(parent) && child.depth > 0 && child.state == State::Processing {
                    child.end(State::Error, Some(FailureKind::Parent));
                    over.push(*id);
                }
            }
        }
    }

    /// How many slots a processor may have on a service.
    pub fn free(&self, service: u8, processor: i64) -> usize {
        let Some(is) = self.services.get(&service).filter(|is| !is.paused) else { return 0 };
        let taken: usize =
            self.slots.iter().filter(|(at, _)| at.0 == service && at.1 != processor).map(|it| it.1).sum();
        (is.concurrency as usize).saturating_sub(taken)
    }

    /// The claims of an advance, and how many may run.
    pub fn claim(&mut self, service: u8, processor: i64, room: Room) -> (Vec<i64>, usize) {
        let free = self.free(service, processor);
        let target = if free == 0 { 0 } else { free + room.ahead };
        let mut ready = Vec::new();
        for (id, job) in self.jobs.iter_mut().filter(|(_, job)| job.called.name.0 == service) {
            if job.state == State::Delayed && !job.far {
                job.go(State::Queued);
            }
            if job.state == State::Queued {
                ready.push((job.called.priority, job.run_at, *id));
            }
        }
        ready.sort_unstable();
        let count = target.saturating_sub(room.held).min(room.tokens);
        let ready = ready.into_iter().map(|(.., id)| id).collect();
        let claims = self.choose((service, processor), ready, count, room.held);
        for id in &claims {
            let job = self.jobs.get_mut(id).unwrap();
            job.go(State::Processing);
            (job.attempt, job.claim) = (job.attempt + 1, job.claim + 1);
            (job.owner, job.token) = (Some(processor), true);
        }
        let slots = free.min(room.held + claims.len());
        match slots.max(room.running) {
            0 => self.slots.remove(&(service, processor)),
            taken => self.slots.insert((service, processor), taken),
        };
        (claims, slots)
    }

    /// What two processors died of is claimed with empty hands only, alone, and one at a time; the oldest processor takes
    /// nothing before it.
    fn choose(&self, who: (u8, i64), mut ready: Vec<i64>, count: usize, held: usize) -> Vec<i64> {
        let is_poison = |id: &i64| self.jobs[id].crashes >= POISON;
        let on =
            |job: &Job| job.called.name.0 == who.0 && job.depth == 0 && job.state == State::Processing && job.token;
        let one_runs = self.jobs.iter().any(|(id, job)| on(job) && is_poison(id));
        let oldest = self.slots.keys().filter(|slot| slot.0 == who.0).map(|slot| slot.1).min();
        if let Some(first) = ready.iter().take(count).position(is_poison) {
            if one_runs || held > 0 && oldest != Some(who.1) {
                ready.retain(|id| !is_poison(id));
            } else {
                ready.truncate(if held == 0 { first.max(1) } else { first });
            }
        }
        ready.truncate(count);
        ready
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
            self.jobs.get_mut(&id).unwrap().give_back();
        }
        self.forget(processor);
    }

    pub fn rescue(&mut self, processor: i64, begun: Option<&[i64]>) -> Vec<(i64, State)> {
        let mut rescued = Vec::new();
        for id in self.own(processor) {
            let job = self.jobs.get_mut(&id).unwrap();
            if begun.is_none_or(|begun| begun.contains(&id)) {
                job.crash();
            } else {
                job.give_back();
            }
            rescued.push((id, job.state));
            self.end_children(|job| job == id);
        }
        for job in self.jobs.values_mut().filter(|job| job.owner == Some(processor)) {
            if job.state == State::Processing && job.token {
                job.end(State::Error, Some(FailureKind::Parent));
            }
            if job.token && job.state == State::Completed {
                (job.error, job.cancelling) = (None, false);
            }
            job.token = false;
        }
        self.forget(processor);
        rescued
    }
}
