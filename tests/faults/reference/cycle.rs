//! A cycle of a processor: what has ended is recorded, what waited for it goes on, and the next calls are claimed.

use asyncq::domain::job::{Fence, Finish, State};
use asyncq::domain::needs::Need;
use asyncq::domain::retry::{POISON, POSTPONED};

use super::{Job, Reference, Service, Waits};

/// What a processor does on a service.
#[derive(Debug)]
pub struct Plan<'a> {
    pub service: u8,
    pub processor: i64,
    pub ends: &'a [&'a Finish],
    pub returned: &'a [Fence],
    pub postponed: &'a [Fence],
    pub room: Room,
}

/// The part of a plan that decides how much is claimed.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub held: usize,
    pub running: usize,
    pub ahead: usize,
    pub tokens: usize,
}

/// What came of a cycle.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub finished: Vec<Option<State>>,
    pub claims: Vec<i64>,
    pub slots: usize,
    /// How many slots it could have had.
    pub free: usize,
}

impl Service {
    /// How many calls its rate lets start, and from when on they count, both in microseconds.
    fn allowance(&self, now: i64) -> Option<(usize, i64, i64)> {
        let rate = self.rate?;
        let (now, gap) = (now * 1000, (3_600_000_000 + i64::from(rate.calls) - 1) / i64::from(rate.calls));
        let used = self.rate_at.max(now - gap * i64::from(rate.burst));
        Some((usize::try_from((now - used) / gap).unwrap(), used, gap))
    }
}

impl Reference {
    pub fn cycle(&mut self, plan: &Plan<'_>) -> Done {
        let finished = self.finish_all(plan.ends);
        for fence in plan.returned {
            self.change_if_theirs(fence, Job::give_back);
        }
        let later = self.now + i64::try_from(POSTPONED.as_millis()).unwrap();
        for fence in plan.postponed {
            self.change_if_theirs(fence, |job| {
                job.give_back();
                if job.state == State::Queued {
                    (job.state, job.run_at) = (State::Delayed, later);
                }
            });
        }
        for fence in plan.returned.iter().chain(plan.postponed) {
            self.tie(fence);
        }
        for fence in plan.returned.iter().chain(plan.postponed) {
            self.note(fence.job.0);
        }
        if self.services.contains_key(&plan.service) {
            let has_ended = self.has_ended();
            if self.expire(plan.service) || has_ended {
                self.settle();
            }
        }
        let free = self.free(plan.service, plan.processor);
        let (claims, slots) = self.claim(plan.service, plan.processor, plan.room);
        Done { finished, claims, slots, free }
    }

    /// What follows for the lane and the key of a job.
    fn tie(&mut self, fence: &Fence) {
        if fence.tied && self.jobs.contains_key(&fence.job.0) {
            self.free_key(fence.job.0);
            self.let_out(fence.job.0);
        }
    }

    /// Whether calls do not know yet that what they need has ended.
    pub fn has_ended(&self) -> bool {
        self.noted.iter().any(|id| self.jobs[id].state.has_ended())
    }

    fn change_if_theirs(&mut self, fence: &Fence, change: impl FnOnce(&mut Job)) {
        let job = self.jobs.get_mut(&fence.job.0).filter(|job| job.is_of(fence) && job.state == State::Processing);
        if let Some(job) = job {
            change(job);
        }
    }

    /// Ends alone, without a look at a service.
    pub fn finish(&mut self, end: &Finish) -> Option<State> {
        let ended = self.finish_all(&[end])[0];
        self.settle();
        ended
    }

    fn finish_all(&mut self, ends: &[&Finish]) -> Vec<Option<State>> {
        let mut states = Vec::new();
        for end in ends {
            let now = self.now;
            let job = self.jobs.get_mut(&end.fence.job.0);
            states.push(job.and_then(|job| job.finish(end, now).then_some(job.state)));
        }
        let ended: Vec<(i64, State)> =
            ends.iter().zip(&states).filter_map(|(end, state)| Some((end.fence.job.0, (*state)?))).collect();
        for (id, _) in &ended {
            self.end_children(*id);
        }
        for (end, _) in ends.iter().zip(&states).filter(|(_, state)| state.is_some()) {
            self.tie(&end.fence);
        }
        self.tell_completed(ended.iter().filter(|it| it.1 == State::Completed).map(|it| it.0).collect());
        for (id, _) in &ended {
            self.note(*id);
        }
        states
    }

    /// Those that need jobs which have completed go on at once, unless somebody waits for a failure.
    fn tell_completed(&mut self, mut completed: Vec<i64>) {
        completed.sort_unstable();
        for run in completed.chunk_by(|one, other| one + 1 == *other) {
            let links = self.links.iter().filter(|(link, _)| run.contains(&link.0));
            let links: Vec<((i64, i64), Need)> = links.map(|(link, need)| (*link, *need)).collect();
            if links.iter().any(|(_, need)| *need == Need::Failed) {
                continue;
            }
            self.links.retain(|link, _| !run.contains(&link.0));
            let mut dependents: Vec<i64> = links.iter().map(|(link, _)| link.1).collect();
            dependents.sort_unstable();
            dependents.dedup();
            for dependent in dependents {
                self.release(dependent);
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

    /// What is due goes to the queue, or to its lane.
    fn promote(&mut self, service: u8) {
        let now = self.now;
        let is_due = |job: &Job| job.called.name.0 == service && job.state == State::Delayed && job.run_at <= now;
        let due: Vec<i64> = self.jobs.iter().filter(|(_, job)| is_due(job)).map(|(id, _)| *id).collect();
        for id in &due {
            let job = self.jobs.get_mut(id).unwrap();
            if job.lane.is_some() {
                job.go(State::Blocked);
                job.waits = Waits::InLane;
            } else {
                job.go(State::Queued);
            }
        }
        for id in due {
            self.let_out(id);
        }
    }

    /// The claims of a cycle, and how many may run.
    fn claim(&mut self, service: u8, processor: i64, room: Room) -> (Vec<i64>, usize) {
        let allowance = self.services.get(&service).and_then(|is| is.allowance(self.now));
        let free = self.free(service, processor);
        // Where starts are counted, nothing is claimed ahead.
        let ahead = if allowance.is_some() { 0 } else { room.ahead };
        let target = if free == 0 { 0 } else { free + ahead };
        let wanted = target.saturating_sub(room.held).min(room.tokens);
        let count = allowance.map_or(wanted, |(starts, ..)| starts.min(wanted));
        self.promote(service);
        let mut ready = Vec::new();
        for (id, job) in self.jobs.iter().filter(|(_, job)| job.called.name.0 == service) {
            if job.state == State::Queued {
                ready.push((job.called.priority, job.run_at, *id));
            }
        }
        ready.sort_unstable();
        let ready = ready.into_iter().map(|(.., id)| id).collect();
        let (claims, is_more) = self.choose((service, processor), ready, count, room.held);
        for id in &claims {
            let job = self.jobs.get_mut(id).unwrap();
            job.go(State::Processing);
            (job.attempt, job.claim) = (job.attempt + 1, job.claim + 1);
            (job.owner, job.token) = (Some(processor), true);
            self.start_key(*id);
        }
        let mut slots = room.held + claims.len();
        if let Some((starts, used, gap)) = allowance {
            let started = i64::try_from(claims.len()).unwrap();
            if started > 0 {
                self.services.get_mut(&service).unwrap().rate_at = used + gap * started;
            }
            // It keeps its slots for what the rate lets start next.
            if is_more && starts == claims.len() {
                slots = room.held + wanted;
            }
        }
        let slots = free.min(slots);
        match slots.max(room.running) {
            0 => self.slots.remove(&(service, processor)),
            taken => self.slots.insert((service, processor), taken),
        };
        (claims, slots)
    }

    /// What two processors died of is claimed with empty hands only, alone, and one at a time; the oldest processor takes
    /// nothing before it. Says also whether more is left that could be claimed.
    fn choose(&self, who: (u8, i64), mut ready: Vec<i64>, count: usize, held: usize) -> (Vec<i64>, bool) {
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
        let is_more = ready.len() > count;
        ready.truncate(count);
        (ready, is_more)
    }
}
