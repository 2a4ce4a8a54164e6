//! What calls wait for: lanes, jobs that they need, and keys.
//!
//! Of a lane, as many calls as its width are in the queue or run. Who enters the lane, or leaves its head, lets out the next
//! ones, which are due then. Who needs other jobs is linked to each of them until it has ended as it is needed.

use std::collections::{BTreeMap, BTreeSet};

use asyncq::Kind;
use asyncq::domain::attempt::FailureKind;
use asyncq::domain::job::State;
use asyncq::domain::needs::Need;
use asyncq::domain::new_job::{IfTaken, KeyUntil};

use super::{Called, Edit, Job, Reference, Waits, Wants};

impl Wants {
    /// Nothing that most calls do not want.
    pub fn plain() -> Wants {
        let (lane, needs, if_taken) = (None, BTreeMap::new(), IfTaken::Keep);
        Wants { hold: false, due: None, lane, needs, key_until: None, if_taken, expires_at: None }
    }
}

impl Reference {
    /// Gives whether the job is new, and which it is.
    pub fn enqueue(&mut self, called: &Called, wants: &Wants) -> Result<(bool, i64), Kind> {
        self.find(called.name)?;
        if let Some(id) = self.taken(called, wants)? {
            return Ok((false, id));
        }
        self.check(&wants.needs)?;
        let id = self.add(called, wants);
        self.link(id, wants);
        self.place(id, wants.hold);
        self.let_out(id);
        Ok((true, id))
    }

    /// The same in a client's own statement, which changes what has the key already if that has not begun.
    pub fn insert(&mut self, called: &Called, wants: &Wants) -> Result<i64, Kind> {
        self.find(called.name)?;
        if let Some((id, same_args)) = self.with_key(called, wants)? {
            let (replaces, postpones) = (wants.if_taken != IfTaken::Keep, wants.if_taken == IfTaken::Postpone);
            let job = self.jobs.get_mut(&id).unwrap();
            let moves = postpones && wants.due.is_some_and(|due| due != job.run_at);
            if (replaces && !same_args || moves) && !(job.state.is_waiting() && job.attempt == 0) {
                return Err(Kind::Denied);
            }
            if replaces {
                job.called.number = called.number;
            }
            if moves {
                self.go_to(id, wants.due.unwrap());
            }
            // The statement has taken a number for the row that it did not insert.
            self.last += 1;
            return Ok(id);
        }
        self.check(&wants.needs)?;
        let id = self.add(called, wants);
        self.link(id, wants);
        self.place(id, wants.hold);
        // It was queued for a moment, in its own lane if it has one.
        if !wants.hold && wants.lane.is_some() {
            self.let_out(id);
        }
        Ok(id)
    }

    /// A new job, which is in no state that anybody waits in.
    pub(super) fn add(&mut self, called: &Called, wants: &Wants) -> i64 {
        self.last += 1;
        let of_function = self.functions[&called.name].map(|lane| {
            let principal = called.principal.as_deref().unwrap_or_default();
            lane.replace("{principal}", principal)
        });
        let job = Job {
            called: called.clone(),
            state: State::Held,
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
            attempts: BTreeMap::new(),
            lane: wants.lane.clone().or(of_function.filter(|lane| !lane.is_empty())),
            waits: Waits::Not,
            key: called.key,
            key_until: wants.key_until,
            expires_at: wants.expires_at,
            run_at: wants.due.unwrap_or(self.now),
            is_roughly: wants.due.is_none(),
            has_needs: !wants.needs.is_empty(),
        };
        self.jobs.insert(self.last, job);
        self.last
    }

    fn link(&mut self, id: i64, wants: &Wants) {
        for (needed, need) in &wants.needs {
            if !self.jobs[needed].state.has_ended() {
                self.links.insert((*needed, id), *need);
            }
        }
    }

    /// Brings a new job to where it has to wait.
    fn place(&mut self, id: i64, hold: bool) {
        if self.needed_by(id).next().is_some() && !hold {
            let job = self.jobs.get_mut(&id).unwrap();
            job.go(State::Blocked);
            job.waits = Waits::ForJobs;
        } else if !hold {
            self.stand(id);
        }
    }

    /// Whether the jobs that a call needs are there and have not ended in another way.
    fn check(&self, needs: &BTreeMap<i64, Need>) -> Result<(), Kind> {
        for (needed, need) in needs {
            let state = self.jobs.get(needed).ok_or(Kind::NotFound)?.state;
            if state.has_ended() && !need.is_met_by(state) {
                return Err(Kind::Denied);
            }
        }
        Ok(())
    }

    /// The job that has the key of a call, and whether the arguments are the same.
    fn with_key(&self, called: &Called, wants: &Wants) -> Result<Option<(i64, bool)>, Kind> {
        let has_key = |job: &Job| called.key.is_some() && job.key == called.key;
        let Some((id, there)) = self.jobs.iter().find(|(_, job)| has_key(job)) else { return Ok(None) };
        let same = there.called.name == called.name && there.called.principal == called.principal;
        let same_args = there.called.number == called.number;
        let have_lifetimes = there.key_until.is_some() && wants.key_until.is_some();
        if same && (same_args || have_lifetimes) { Ok(Some((*id, same_args))) } else { Err(Kind::Denied) }
    }

    fn taken(&mut self, called: &Called, wants: &Wants) -> Result<Option<i64>, Kind> {
        let Some((id, _)) = self.with_key(called, wants)? else { return Ok(None) };
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        if wants.if_taken == IfTaken::Keep || job.state.has_ended() {
            return Ok(Some(id));
        }
        if !job.state.is_waiting() || job.attempt > 0 {
            return Err(Kind::Busy);
        }
        job.called.number = called.number;
        if wants.if_taken == IfTaken::Postpone {
            job.expires_at = wants.expires_at;
            self.go_to(id, wants.due.unwrap_or(now));
            self.jobs.get_mut(&id).unwrap().is_roughly |= wants.due.is_none();
            self.let_out(id);
        }
        Ok(Some(id))
    }

    /// Makes a call due at another time, and moves it if it waits for a time, or could run.
    fn go_to(&mut self, id: i64, at: i64) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        (job.run_at, job.is_roughly) = (at, false);
        let is_out = job.state == State::Held || job.waits == Waits::ForJobs;
        if !is_out && at > now && job.state != State::Delayed {
            self.leave(id, |job| job.go(State::Delayed));
        } else if !is_out && at <= now && job.state == State::Delayed {
            self.stand(id);
        }
    }

    /// A call that waits for no other job goes to its time, its lane, or the queue.
    pub(super) fn stand(&mut self, id: i64) {
        let now = self.now;
        let job = self.jobs.get_mut(&id).unwrap();
        match (job.run_at > now, &job.lane) {
            (true, _) => job.go(State::Delayed),
            (false, None) => job.go(State::Queued),
            (false, Some(_)) => {
                (job.state, job.waits) = (State::Blocked, Waits::InLane);
                self.let_out(id);
            }
        }
    }

    /// What was held, or has ended, goes back to where it has to wait; what it needs and has ended, it needs no more.
    pub(super) fn go_on(&mut self, id: i64) {
        let ended = |job: &i64| self.jobs[job].state.has_ended();
        let over: Vec<_> = self.links.keys().filter(|link| link.1 == id && ended(&link.0)).copied().collect();
        self.links.retain(|link, _| !over.contains(link));
        let needs_others = self.needed_by(id).next().is_some();
        let job = self.jobs.get_mut(&id).unwrap();
        if needs_others {
            let was_head = job.is_head();
            (job.state, job.waits) = (State::Blocked, Waits::ForJobs);
            if was_head {
                self.let_out(id);
            }
        } else if job.state == State::Queued {
            self.jobs.get_mut(&id).unwrap().state = State::Held;
            self.stand(id);
        }
    }

    /// Lets out the next calls of a job's lane.
    pub(super) fn let_out(&mut self, id: i64) {
        let Some((service, lane)) = self.jobs.get(&id).and_then(Job::in_lane) else { return };
        let lane = (service, lane.to_owned());
        self.let_out_of(&lane);
    }

    fn let_out_of(&mut self, (service, lane): &(u8, String)) {
        let Some(width) = self.services.get(service).map(|service| service.width as usize) else { return };
        let in_it = |job: &&mut Job| job.in_lane() == Some((*service, lane.as_str()));
        let heads = self.jobs.values_mut().filter(in_it).filter(|job| job.is_head()).count();
        let mut line: Vec<(i64, i64, i64)> = Vec::new();
        for (id, job) in &self.jobs {
            if job.in_lane() == Some((*service, lane.as_str())) && job.waits == Waits::InLane {
                line.push((job.called.priority, job.run_at, *id));
            }
        }
        line.sort_unstable();
        for (.., id) in line.into_iter().take(width.saturating_sub(heads)) {
            let job = self.jobs.get_mut(&id).unwrap();
            job.go(State::Queued);
            (job.run_at, job.is_roughly) = (job.run_at.max(self.now), true);
        }
    }

    /// Changes a job that may leave the head of its lane, or end.
    pub(super) fn leave(&mut self, id: i64, change: impl FnOnce(&mut Job)) {
        let job = self.jobs.get_mut(&id).unwrap();
        let was_head = job.is_head();
        change(job);
        self.free_key(id);
        if was_head {
            self.let_out(id);
        }
        self.note(id);
    }

    /// Frees the key of a job that has ended.
    pub(super) fn free_key(&mut self, id: i64) {
        let job = self.jobs.get_mut(&id).unwrap();
        if job.state.has_ended() && job.key_until.is_some() {
            job.key = None;
        }
    }

    pub(super) fn start_key(&mut self, id: i64) {
        let job = self.jobs.get_mut(&id).unwrap();
        if job.key_until == Some(KeyUntil::Started) {
            job.key = None;
        }
    }

    /// The jobs that a job needs.
    pub(super) fn needed_by(&self, id: i64) -> impl Iterator<Item = (i64, Need)> {
        self.links.iter().filter(move |(link, _)| link.1 == id).map(|(link, need)| (link.0, *need))
    }

    /// Notes a job that has ended and that others need.
    pub(super) fn note(&mut self, id: i64) {
        if self.jobs.get(&id).is_some_and(|job| job.state.has_ended()) && self.links.keys().any(|link| link.0 == id) {
            self.noted.insert(id);
        }
    }

    /// Tells of ended jobs to those that need them, and of those that end by that.
    pub(super) fn settle(&mut self) {
        self.noted.retain(|id| {
            let state = self.jobs[id].state;
            state.has_ended() || state == State::Processing
        });
        loop {
            let noted: Vec<i64> = self.noted.iter().copied().filter(|id| self.jobs[id].state.has_ended()).collect();
            if noted.is_empty() {
                return;
            }
            for id in noted {
                let state = self.jobs[&id].state;
                let links: Vec<(i64, Need)> =
                    self.links.iter().filter(|(link, _)| link.0 == id).map(|(link, need)| (link.1, *need)).collect();
                for (dependent, need) in links {
                    if need.is_met_by(state) {
                        self.links.remove(&(id, dependent));
                        self.release(dependent);
                    } else {
                        self.fail(dependent, need);
                    }
                }
                self.noted.remove(&id);
            }
        }
    }

    /// Lets a call go on, if it waits for no job any more.
    pub(super) fn release(&mut self, id: i64) {
        if self.jobs[&id].waits == Waits::ForJobs && self.needed_by(id).next().is_none() {
            self.stand(id);
            self.let_out(id);
        }
    }

    /// Cancels a call that cannot get what it needs.
    fn fail(&mut self, id: i64, need: Need) {
        let why = if need == Need::Failed { FailureKind::NotNeeded } else { FailureKind::Needs };
        let job = &self.jobs[&id];
        if job.state == State::Blocked || job.state == State::Held && job.has_needs {
            self.leave(id, |job| job.end(State::Cancelled, Some(why)));
        }
    }

    /// The calls wait again that were cancelled because they need this job, and those that need them; gives how many.
    pub(super) fn revive(&mut self, id: i64) -> u64 {
        let (mut revived, mut jobs, mut cancelled) = (0, vec![id], BTreeSet::new());
        loop {
            for job in jobs.drain(..) {
                self.noted.remove(&job);
                for (link, need) in &self.links {
                    let other = &self.jobs[&link.1];
                    let by_it = other.state == State::Cancelled && other.error == Some(FailureKind::Needs);
                    if link.0 == job && *need == Need::Completed && by_it {
                        cancelled.insert(link.1);
                    }
                }
            }
            let Some(call) = cancelled.pop_first() else { return revived };
            let state = |needed: i64| self.jobs[&needed].state;
            let mut needs = self.needed_by(call);
            if needs.any(|(needed, need)| state(needed).has_ended() && !need.is_met_by(state(needed))) {
                continue;
            }
            drop(needs);
            let job = self.jobs.get_mut(&call).unwrap();
            job.end(State::Blocked, None);
            job.waits = Waits::ForJobs;
            revived += 1;
            jobs.push(call);
        }
    }

    /// Ends the calls of a service that have expired before they began; says whether there were any.
    pub(super) fn expire(&mut self, service: u8) -> bool {
        let now = self.now;
        let is_over = |job: &Job| job.state.is_waiting() && job.expires_at.is_some_and(|at| at <= now);
        let mut over: Vec<(Option<i64>, i64)> = Vec::new();
        for (id, job) in self.jobs.iter().filter(|(_, job)| job.called.name.0 == service && is_over(job)) {
            over.push((job.expires_at, *id));
        }
        over.sort_unstable();
        let heads: Vec<i64> = over.iter().map(|it| it.1).filter(|id| self.jobs[id].is_head()).collect();
        for (_, id) in &over {
            self.jobs.get_mut(id).unwrap().end(State::Cancelled, Some(FailureKind::Expired));
            self.free_key(*id);
        }
        for id in heads {
            self.let_out(id);
        }
        for (_, id) in &over {
            self.note(*id);
        }
        !over.is_empty()
    }

    /// Changes a call that waits.
    pub fn set(&mut self, id: i64, edit: &Edit) -> Result<State, Kind> {
        let now = self.now;
        let job = self.jobs.get_mut(&id).ok_or(Kind::NotFound)?;
        if job.depth > 0 || !job.state.is_waiting() {
            return Err(Kind::Denied);
        }
        let (was, old_run_at) = (job.state, job.run_at);
        let old_lane = job.in_lane().filter(|_| job.state == State::Queued).map(|(of, lane)| (of, lane.to_owned()));
        job.called.priority = edit.priority.unwrap_or(job.called.priority);
        job.expires_at = edit.expires_at.unwrap_or(job.expires_at);
        if let Some(due) = edit.due {
            (job.run_at, job.is_roughly) = (due.unwrap_or(now), due.is_none());
        }
        let can_run = job.state == State::Queued || job.waits == Waits::InLane;
        let enters = can_run && edit.lane.as_ref().is_some_and(|lane| *lane != job.lane);
        if let Some(lane) = &edit.lane {
            job.lane.clone_from(lane);
        }
        if edit.hold {
            (job.state, job.waits) = (State::Held, Waits::Not);
        } else if can_run && job.run_at > now && (enters || job.run_at != old_run_at) {
            (job.state, job.waits) = (State::Delayed, Waits::Not);
        } else if enters && job.lane.is_none() {
            (job.state, job.waits) = (State::Queued, Waits::Not);
        } else if enters {
            (job.state, job.waits) = (State::Blocked, Waits::InLane);
        }
        let becomes_due = !edit.hold && was == State::Delayed && edit.due.is_some() && job.run_at <= now;
        let lets_out = was == State::Queued && job.state != State::Queued
            || edit.lane.is_some() && !edit.hold && job.waits == Waits::InLane;
        if becomes_due {
            self.stand(id);
        } else if lets_out {
            self.let_out(id);
        }
        if let Some(lane) = old_lane.filter(|_| edit.lane.is_some()) {
            self.let_out_of(&lane);
        }
        Ok(self.jobs[&id].state)
    }
}
