//! Any verbs of the store in any order, against a reference: after each, all that can be seen of all jobs is the same.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use asyncq::Kind;
use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::call::{Key, Principal, Reading};
use asyncq::domain::job::{BrokenClaim, Claim, Fence, Finish, JobId, State, Token};
use asyncq::domain::json::Json;
use asyncq::domain::new_job::{Enqueued, NewJob};
use asyncq::domain::pause::Pause;
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter, JobQuery};
use asyncq::domain::removal::{IfWaiting, Removed};
use asyncq::domain::retry::{LONGEST_PAUSE, decide_once};
use asyncq::domain::retry_policy::RetryPolicy;
use asyncq::domain::service::{Added, ServiceChange};
use asyncq::store::{Cancelled, Cycle, Location, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::fixture::{PATIENCE, call, definition, function, new_processor, service, tokens, wide};
use crate::reference::{Called, Name, Reference, Room};
use crate::scale::{figure, many, random};

const SERVICES: [&str; 2] = ["events", "mails"];
const FUNCTIONS: [&str; 2] = ["compute", "send"];

/// One verb; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Verb {
    AddService(u8, u32),
    SetService(u8, Option<u32>, Option<bool>),
    AddFunction(Name),
    Remove(u8, Option<u8>, bool),
    Enqueue { called: Called, hold: bool },
    Insert { called: Called, far: bool },
    Register,
    Unregister(u8),
    RunCycle { processor: u8, service: u8, ended: Vec<Ended>, returned: u8, held: Held },
    Finish(Ended),
    Nested { claim: u8, called: Called },
    CompleteItself(u8),
    Cancel(u8),
    Start(u8),
    Retry(u8),
    Clean(u8),
    Rescue { processor: u8, begun: Option<u8> },
}

/// How a claim ends; now and then with a fence that is not its own.
#[derive(Debug, Clone)]
struct Ended {
    claim: u8,
    how: u8,
    far: bool,
    forged: u8,
}

#[derive(Debug, Clone)]
struct Held {
    runs: bool,
    ahead: usize,
    tokens: usize,
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let name = || (0..2_u8, 0..2_u8);
    let named = (name(), 0..2_u8, proptest::option::weighted(0.2, 0..2_u8), 0..2_u8);
    let called = named.prop_map(|(name, number, key, principal)| {
        let principal = (principal == 1).then(|| "somebody".to_owned());
        Called { name, number, principal, key, priority: 0 }
    });
    let ended = || {
        let parts = (any::<u8>(), 0..6_u8, any::<bool>(), prop_oneof![6 => Just(0_u8), 1 => 1..3_u8]);
        parts.prop_map(|(claim, how, far, forged)| Ended { claim, how, far, forged })
    };
    let held = (prop_oneof![3 => Just(true), 1 => Just(false)], 0..3_usize, 0..4_usize);
    let held = held.prop_map(|(runs, ahead, tokens)| Held { runs, ahead, tokens });
    let begun = proptest::option::of(any::<u8>());
    let advance = (any::<u8>(), 0..2_u8, vec(ended(), 0..3), prop_oneof![4 => Just(0_u8), 1 => 1..3_u8], held);
    let verb = prop_oneof![
        3 => (0..2_u8, 1..3_u32).prop_map(|(name, limit)| Verb::AddService(name, limit)),
        1 => (0..2_u8, proptest::option::of(1..4_u32), proptest::option::weighted(0.3, any::<bool>()))
            .prop_map(|(name, limit, paused)| Verb::SetService(name, limit, paused)),
        3 => name().prop_map(Verb::AddFunction),
        1 => (0..2_u8, proptest::option::weighted(0.7, 0..2_u8), any::<bool>())
            .prop_map(|(service, function, force)| Verb::Remove(service, function, force)),
        8 => (called.clone(), prop_oneof![4 => Just(false), 1 => Just(true)])
            .prop_map(|(called, hold)| Verb::Enqueue { called, hold }),
        3 => (called.clone(), any::<bool>(), -1..2_i64)
            .prop_map(|(called, far, priority)| Verb::Insert { called: Called { priority, ..called }, far }),
        2 => Just(Verb::Register),
        1 => any::<u8>().prop_map(Verb::Unregister),
        12 => advance.prop_map(|(processor, service, ended, returned, held)| {
            Verb::RunCycle { processor, service, ended, returned, held }
        }),
        3 => ended().prop_map(Verb::Finish),
        3 => (any::<u8>(), called).prop_map(|(claim, called)| Verb::Nested { claim, called }),
        1 => any::<u8>().prop_map(Verb::CompleteItself),
        3 => any::<u8>().prop_map(Verb::Cancel),
        2 => any::<u8>().prop_map(Verb::Start),
        3 => any::<u8>().prop_map(Verb::Retry),
        1 => any::<u8>().prop_map(Verb::Clean),
        1 => (any::<u8>(), begun).prop_map(|(processor, begun)| Verb::Rescue { processor, begun }),
    ];
    vec(verb, 50..150)
}

/// A store, its reference, and what processors hold of it.
struct Both<'a> {
    store: &'a mut Store,
    client: rusqlite::Connection,
    reference: Reference,
    /// In the order in which they were claimed; some are over, unknown to who holds them.
    claims: Vec<Claim>,
    registered: i64,
}

fn named(name: Name) -> (asyncq::domain::service::ServiceName, asyncq::domain::function::FunctionName) {
    (service(SERVICES[usize::from(name.0)]), function(FUNCTIONS[usize::from(name.1)]))
}

fn new_job(called: &Called) -> NewJob {
    let mut new = call(0);
    (new.call.service, new.call.function) = named(called.name);
    new.call.args = Reading::Json.positional(&[called.number.to_string()]).unwrap();
    new.call.principal = called.principal.as_deref().map(|text| Principal::parse(text).unwrap());
    new.key = called.key.map(|key| Key::parse(&key.to_string()).unwrap());
    new
}

fn kind<T>(result: asyncq::Result<T>) -> Result<T, Kind> {
    result.map_err(|error| error.kind())
}

fn chosen<T: Copy>(among: &[T], number: u8) -> Option<T> {
    among.get(usize::from(number) % among.len().max(1)).copied()
}

fn if_waiting(force: bool) -> IfWaiting {
    if force { IfWaiting::Cancel } else { IfWaiting::Refuse }
}

impl Both<'_> {
    fn act(&mut self, verb: &Verb) {
        match verb {
            Verb::AddService(..) | Verb::SetService(..) | Verb::AddFunction(_) | Verb::Remove(..) => self.define(verb),
            Verb::Enqueue { called, hold } => self.enqueue(called, *hold),
            Verb::Insert { called, far } => self.insert(called, *far),
            Verb::Register => {
                self.registered += 1;
                let id = self.store.register(&new_processor(self.registered)).unwrap();
                self.reference.processors.push(id.0);
            }
            Verb::Unregister(number) => self.unregister(*number),
            Verb::RunCycle { processor, service, ended, returned, held } => {
                if let Some(processor) = chosen(&self.reference.processors, *processor) {
                    self.advance((processor, *service), ended, *returned, held);
                }
            }
            Verb::Finish(ended) => {
                if let Some(finish) = self.end(ended, |_| true) {
                    let expected = self.reference.finish(&finish, ended.far);
                    assert_eq!(self.store.finish(&[&finish]).unwrap(), [expected]);
                }
            }
            Verb::Nested { claim, called } => self.nest(*claim, called),
            Verb::CompleteItself(claim) => self.complete_itself(*claim),
            Verb::Rescue { processor, begun } => self.rescue(*processor, *begun),
            Verb::Cancel(_) | Verb::Start(_) | Verb::Retry(_) | Verb::Clean(_) => self.by_hand(verb),
        }
    }

    fn define(&mut self, verb: &Verb) {
        let (store, reference) = (&mut *self.store, &mut self.reference);
        let added = |new| if new { Added::New } else { Added::Same };
        match *verb {
            Verb::AddService(name, limit) => {
                let told =
                    store.add_service(&service(SERVICES[usize::from(name)]), &wide(NonZeroU32::new(limit).unwrap()));
                assert_eq!(kind(told), reference.add_service(name, limit).map(added));
            }
            Verb::SetService(name, limit, paused) => {
                let change = ServiceChange {
                    concurrency: limit.and_then(NonZeroU32::new),
                    pause: paused.map(|it| it.then(Pause::default)),
                    ..ServiceChange::default()
                };
                let told = store.set_service(&service(SERVICES[usize::from(name)]), &change);
                let told = kind(told).map(|it| (it.concurrency.get(), it.pause.is_some()));
                let expected = reference.set_service(name, limit, paused).map(|it| (it.concurrency, it.paused));
                assert_eq!(told, expected);
            }
            Verb::AddFunction(name) => {
                let (service, function) = named(name);
                let told = store.add_function(&service, &function, &definition());
                assert_eq!(kind(told), reference.add_function(name).map(added));
            }
            Verb::Remove(name, which, force) => {
                let (service, function) = named((name, which.unwrap_or(0)));
                let told = match which {
                    Some(_) => store.remove_function(&service, &function, if_waiting(force)),
                    None => store.remove_service(&service, if_waiting(force)),
                };
                let expected = reference.remove(name, which, force).map(|mut jobs| {
                    let cancelled = jobs.len() as u64;
                    jobs.truncate(10);
                    Removed { cancelled, oldest: jobs.into_iter().map(JobId).collect() }
                });
                assert_eq!(kind(told), expected);
            }
            _ => unreachable!("all others do not define anything"),
        }
    }

    fn enqueue(&mut self, called: &Called, hold: bool) {
        let told = self.store.enqueue(&NewJob { hold, ..new_job(called) });
        let state = if hold { State::Held } else { State::Queued };
        let expected = self.reference.enqueue(called, state);
        let enqueued = |(new, id)| if new { Enqueued::New(JobId(id)) } else { Enqueued::Same(JobId(id)) };
        assert_eq!(kind(told), expected.map(enqueued));
    }

    /// As an application does it, whose errors are those of the triggers.
    fn insert(&mut self, called: &Called, far: bool) {
        let called = Called { key: None, ..called.clone() };
        let (service, function) = named(called.name);
        let sql = "INSERT INTO asyncq_job (service, function, args, kwargs, principal, priority, run_at)
            VALUES (?1, ?2, ?3, '{\"key\":\"word\"}', ?4, ?5,
                CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + ?6)";
        let new = new_job(&called).call;
        let later = if far { 3_600_000 } else { -1000 };
        let values =
            (service.as_str(), function.as_str(), new.args.as_str(), &called.principal, called.priority, later);
        let told = self.client.execute(sql, values);
        let expected = self.reference.enqueue(&called, if far { State::Delayed } else { State::Queued });
        assert_eq!(told.is_ok(), expected.is_ok());
    }

    fn unregister(&mut self, number: u8) {
        let Some(id) = chosen(&self.reference.processors, number) else { return };
        // One that ends has none.
        let nested = |job: &crate::reference::Job| job.depth > 0 && job.token && job.owner == Some(id);
        if !self.reference.jobs.values().any(nested) {
            self.store.unregister(ProcessorId(id)).unwrap();
            self.reference.unregister(id);
        }
    }

    /// The end of one of the claims that `fit`, which is not held any more unless it is forged.
    fn end(&mut self, ended: &Ended, fit: impl Fn(&Claim) -> bool) -> Option<Finish> {
        let fitting: Vec<usize> = (0..self.claims.len()).filter(|at| fit(&self.claims[*at])).collect();
        let at = chosen(&fitting, ended.claim)?;
        let claim = if ended.forged == 0 { self.claims.remove(at) } else { self.claims[at].clone() };
        let nested = claim.token.as_str().contains('.');
        let outcome = match ended.how {
            0 | 1 => Outcome::Completed,
            2 => Outcome::Conflict(Conflict::default()),
            3 => Outcome::Failed(Failure { exit_code: Some(3), ..Failure::new(FailureKind::Exit, "exit code 3") }),
            // What runs inside another call is never put back or cancelled by itself.
            _ if nested => Outcome::Failed(Failure::new(FailureKind::Parent, "it was told to stop")),
            4 => Outcome::Interrupted,
            _ => Outcome::Cancelled,
        };
        let mut decision =
            if nested { decide_once(&outcome, 1) } else { RetryPolicy::default().decide(&outcome, claim.before, 0.0) };
        decision.pause = decision.pause.map(|_| if ended.far { LONGEST_PAUSE } else { Duration::ZERO });
        let mut fence = claim.fence;
        match ended.forged {
            0 => {}
            1 => fence.claim += 1,
            _ => fence.processor.0 += 1,
        }
        let result = Json::parse(&ended.claim.to_string()).ok();
        let (took, log) = (Duration::from_millis(1), asyncq::domain::log::Log::default());
        Some(Finish { result, took, log, ..Finish::new(fence, decision) })
    }

    fn advance(&mut self, (processor, on): (i64, u8), ended: &[Ended], returned: u8, held: &Held) {
        let name = SERVICES[usize::from(on)];
        let theirs = |claim: &Claim| {
            claim.fence.processor.0 == processor
                && claim.call.service.as_str() == name
                && !claim.token.as_str().contains('.')
        };
        let mut finished = Vec::new();
        for ended in ended {
            finished.extend(self.end(ended, theirs).map(|finish| (finish, ended.far)));
        }
        let mut back: Vec<Fence> = Vec::new();
        for _ in 0..returned {
            if let Some(at) = self.claims.iter().position(theirs) {
                back.push(self.claims.remove(at).fence);
            }
        }
        let count = self.claims.iter().filter(|claim| theirs(claim)).count();
        let is_there = self.reference.services.contains_key(&on);
        let running = if held.runs && is_there { count } else { 0 };
        let (service, tokens) = (service(name), tokens(held.tokens as u128));
        let finishes: Vec<&Finish> = finished.iter().map(|(finish, _)| finish).collect();
        let plan = Cycle {
            finished: &finishes,
            returned: &back,
            held: count,
            running,
            ahead: held.ahead,
            tokens: &tokens,
            ..Cycle::of(ProcessorId(processor), &service)
        };
        let told = self.store.run_cycle(&plan).unwrap();

        let ends: Vec<_> = finished.iter().map(|(finish, far)| self.reference.finish(finish, *far)).collect();
        assert_eq!(told.finished, ends);
        for fence in &back {
            self.reference.give_back(fence);
        }
        // When what is to be tried again is due is known only now.
        self.learn_times();
        let room = Room { held: count, running, ahead: held.ahead, tokens: held.tokens };
        let free = self.reference.free(on, processor);
        let (claims, slots) = self.reference.claim(on, processor, room);
        assert_eq!((told.slots, told.status.free()), (slots, free));
        let jobs = |fences: &mut dyn Iterator<Item = Fence>| -> Vec<i64> { fences.map(|fence| fence.job.0).collect() };
        let can_run = |id: &i64| self.reference.functions.contains(&self.reference.jobs[id].called.name);
        let (fit, broken): (Vec<i64>, Vec<i64>) = claims.iter().partition(|id| can_run(id));
        assert_eq!(jobs(&mut told.claims.iter().map(|claim| claim.fence)), fit);
        assert_eq!(jobs(&mut told.broken.iter().map(|claim| claim.fence)), broken);
        for claim in &told.claims {
            assert_eq!(claim.call, new_job(&self.reference.jobs[&claim.fence.job.0].called).call);
        }
        // What cannot be run is held, and ends or goes back, like the others.
        let hold = |broken: BrokenClaim| {
            let place = claims.iter().position(|id| *id == broken.fence.job.0).unwrap();
            let (fence, before, token) = (broken.fence, broken.before, tokens[place].clone());
            let call = new_job(&self.reference.jobs[&fence.job.0].called).call;
            Claim {
                fence,
                token,
                call,
                definition: Arc::new(definition()),
                before,
                expires_at: None,
                meta: None,
                tick: None,
            }
        };
        let held: Vec<Claim> = told.claims.into_iter().chain(told.broken.into_iter().map(hold)).collect();
        for Claim { fence, before, .. } in &held {
            let job = &self.reference.jobs[&fence.job.0];
            assert_eq!((fence.attempt, fence.claim, before.conflicts), (job.attempt, job.claim, job.conflicts));
        }
        self.claims.extend(held);
    }

    fn nest(&mut self, claim: u8, called: &Called) {
        let number = usize::from(claim) % self.claims.len().max(1);
        let Some(claim) = self.claims.get(number) else { return };
        let called = Called { key: None, ..called.clone() };
        let new = NewJob { parent: Some(claim.fence.job), ..new_job(&called) };
        let token = tokens(1)[0].inside(&claim.token);
        let told = kind(self.store.begin_nested(&claim.fence, &new, &token));
        let expected = self.reference.begin_nested(&claim.fence, &called);
        assert_eq!(told.as_ref().map(|it| it.fence.job.0).map_err(|kind| *kind), expected);
        self.claims.extend(told);
    }

    /// The statement of `docs/sql.md`.
    fn complete_itself(&mut self, claim: u8) {
        let number = usize::from(claim) % self.claims.len().max(1);
        let Some(Claim { fence, token, .. }) = self.claims.get(number) else { return };
        let sql = "UPDATE asyncq_job SET state = 'completed'
            WHERE id = ?1 AND attempt = ?2 AND token = ?3 AND state = 'processing'";
        let changed = self.client.execute(sql, (fence.job.0, fence.attempt, token.as_str())).unwrap();
        let is_it = self.store_has(*fence);
        assert_eq!(changed == 1, is_it);
        if is_it {
            self.reference.jobs.get_mut(&fence.job.0).unwrap().state = State::Completed;
        }
    }

    /// Whether this attempt is processed now, for the reference.
    fn store_has(&self, fence: Fence) -> bool {
        let job = self.reference.jobs.get(&fence.job.0);
        job.is_some_and(|job| job.token && job.claim == fence.claim && job.state == State::Processing)
    }

    fn rescue(&mut self, number: u8, begun: Option<u8>) {
        let Some(dead) = chosen(&self.reference.processors, number) else { return };
        let begun: Option<Vec<i64>> =
            begun.map(|bits| self.reference.jobs.keys().copied().filter(|id| bits & (1 << (id % 8)) != 0).collect());
        let ids: Option<Vec<JobId>> = begun.as_ref().map(|begun| begun.iter().copied().map(JobId).collect());
        let told = self.store.rescue(ProcessorId(dead), ids.as_deref(), &[]).unwrap();
        let told: Vec<_> = told.jobs.into_iter().map(|(id, state)| (id.0, state)).collect();
        assert_eq!(told, self.reference.rescue(dead, begun.as_deref()));
    }

    fn by_hand(&mut self, verb: &Verb) {
        // One more than there are, so that one is not there.
        let job = |number: u8| i64::from(number) % (self.reference.last + 1) + 1;
        match *verb {
            Verb::Cancel(number) => {
                let told = kind(self.store.cancel(JobId(job(number))));
                let expected = self.reference.cancel(job(number)).map(|before| match before {
                    State::Processing => Cancelled::Requested,
                    before if before.has_ended() => Cancelled::Ended(before),
                    _ => Cancelled::Now,
                });
                assert_eq!(told, expected);
            }
            Verb::Start(number) => {
                assert_eq!(kind(self.store.start(JobId(job(number)))), self.reference.start(job(number)));
            }
            Verb::Retry(number) => {
                assert_eq!(
                    kind(self.store.retry(JobId(job(number))).map(|revived| assert_eq!(revived, 0))),
                    self.reference.retry(job(number))
                );
            }
            Verb::Clean(number) => {
                let states = vec![JobChange::Remove.states()[usize::from(number) % 3]];
                let expected = self.reference.clean(&states);
                let filter = JobFilter { states, ..JobFilter::default() };
                let many = BulkChange { change: JobChange::Remove, filter, before: None, dry_run: false };
                let step = self.store.change_many(&many, JobId(0)).unwrap();
                assert_eq!((step.changed, step.next), (expected, None));
            }
            _ => unreachable!("all others are not by hand"),
        }
    }

    fn learn_times(&mut self) {
        for job in self.store.jobs(&JobQuery::default()).unwrap().jobs {
            if let Some(known) = self.reference.jobs.get_mut(&job.id.0) {
                known.run_at = job.times.run_at.0;
            }
        }
    }

    /// Holds all that can be seen of the store to the reference.
    fn compare(&mut self) {
        let seen = self.store.jobs(&JobQuery::default()).unwrap().jobs;
        let ids: Vec<i64> = seen.iter().rev().map(|job| job.id.0).collect();
        assert_eq!(ids, self.reference.jobs.keys().copied().collect::<Vec<_>>());
        for job in &seen {
            let known = self.reference.jobs.get_mut(&job.id.0).unwrap();
            known.run_at = job.times.run_at.0;
            let told =
                (job.state, job.counts.attempt, job.cancelling, job.error.as_ref().map(|it| it.kind), &job.result);
            let expected = (known.state, known.attempt, known.cancelling, known.error, &known.result);
            assert_eq!(told, expected, "job {}", job.id);
            let told = (
                job.options.priority,
                &job.call.principal,
                job.immediate,
                job.parent.map(|it| it.0),
                job.times.finished_at.is_some(),
            );
            let called = &known.called;
            let ended = known.state.has_ended();
            assert_eq!(
                told,
                (called.priority, &called.principal, known.depth > 0, known.parent, ended),
                "job {}",
                job.id
            );
        }
        let processors: Vec<i64> = self.store.processors().unwrap().iter().map(|it| it.id.0).collect();
        assert_eq!(processors, self.reference.processors);
        for (number, name) in SERVICES.iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let status = self.store.service_status(&service(name), None).unwrap();
            let jobs = self.reference.jobs.values().filter(|job| job.called.name.0 == number);
            let ready =
                |job: &crate::reference::Job| job.state == State::Queued || job.state == State::Delayed && !job.far;
            assert_eq!(status.ready, jobs.clone().any(ready), "{name}");
            assert_eq!(status.free(), self.reference.free(number, 0), "{name}");
        }
    }

    /// What is not looked at after each verb.
    fn compare_the_rest(&mut self) {
        for job in self.store.jobs(&JobQuery::default()).unwrap().jobs {
            let known = &self.reference.jobs[&job.id.0];
            let attempts = self.store.attempts(&job).unwrap();
            let told: HashMap<_, _> = attempts.iter().map(|it| (it.number, it.ending)).collect();
            for (number, ending) in &known.attempts {
                assert_eq!(told.get(number), Some(&Some(*ending)), "attempt {number} of job {}", job.id);
            }
            let filter = JobFilter { states: vec![job.state], parent: job.parent, ..JobFilter::default() };
            let all = JobQuery { filter, ..JobQuery::default() };
            assert!(self.store.jobs(&all).unwrap().jobs.iter().any(|it| it.id == job.id));
            assert_eq!(self.store.job(job.id).unwrap().state, job.state);
        }
        for Claim { fence, token, .. } in self.claims.clone() {
            let running = self.store.running(fence.job, &token).unwrap();
            let expected = self.store_has(fence) && self.reference.processors.contains(&fence.processor.0);
            assert_eq!(running.map(|it| it.fence), expected.then_some(fence));
            assert!(self.store.running(fence.job, &Token::from_text("forged")).unwrap().is_none());
        }
        for processor in self.reference.processors.clone() {
            let own = |job: &&crate::reference::Job| job.token && job.owner == Some(processor);
            let tokens = self.reference.jobs.values().filter(own).count();
            assert_eq!(self.store.tokens(ProcessorId(processor), &[]).unwrap().len(), tokens);
            let asked = self
                .reference
                .jobs
                .values()
                .filter(own)
                .filter(|job| job.cancelling && job.state == State::Processing && job.depth == 0);
            assert_eq!(self.store.cancelling(ProcessorId(processor)).unwrap().len(), asked.count());
        }
    }
}

/// Where a commit costs nothing, if there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn run(verbs: &[Verb]) {
    let folder = folder();
    let location = Location::parse("queue.db", folder.path()).unwrap();
    let mut store = Store::create(&location, PATIENCE).unwrap().0;
    let client = rusqlite::Connection::open(folder.path().join("queue.db")).unwrap();
    let (reference, claims) = (Reference::default(), Vec::new());
    let mut both = Both { store: &mut store, client, reference, claims, registered: 0 };
    for name in [(0, 0), (0, 1), (1, 0)] {
        both.act(&Verb::AddService(name.0, 2));
        both.act(&Verb::AddFunction(name));
    }
    both.act(&Verb::Register);
    let began = Instant::now();
    for verb in verbs {
        both.act(verb);
        // What waits to be tried again is due before long, which the reference does not know.
        if began.elapsed() > LONGEST_PAUSE / 2 {
            return;
        }
        both.compare();
    }
    both.compare_the_rest();
}

#[test]
fn any_verbs_in_any_order_do_what_the_reference_does() {
    let transitions = many(1_000_000, 2_000) as u64;
    let seed: Vec<u8> = std::iter::repeat_with({
        let mut random = random("properties");
        move || random.u8(..)
    })
    .take(32)
    .collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    // About a hundred verbs make a case; a failing one is printed, as small as it can be made.
    let cases = u32::try_from(transitions / 100).unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let (began, made) = (Instant::now(), std::cell::Cell::new(0_u64));
    let done = TestRunner::new_with_rng(config, rng).run(&verbs(), |verbs| {
        run(&verbs);
        made.set(made.get() + verbs.len() as u64);
        Ok(())
    });
    if let Err(failure) = done {
        panic!("seed {}: {failure}", crate::scale::seed());
    }
    let (made, seconds) = (made.get(), began.elapsed().as_secs_f64());
    figure("properties", format!("{made} verbs in {cases} cases, 0 divergences, {seconds:.0} s"));
    assert!(made >= transitions * 9 / 10);
}
