//! Any verbs of the store in any order, against a reference: after each, all that can be seen of all jobs is the same.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::call::{Key, Principal, Reading};
use asyncq::domain::function::{FunctionChange, PolicyChange};
use asyncq::domain::job::{BrokenClaim, Claim, Fence, Finish, JobId, State, Token};
use asyncq::domain::job_edit::JobEdit;
use asyncq::domain::json::Json;
use asyncq::domain::lane::Lane;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{Due, Enqueued, Expiry, IfTaken, KeyUntil, NewJob, Priority};
use asyncq::domain::pause::Pause;
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter, JobQuery};
use asyncq::domain::removal::{IfWaiting, Removed};
use asyncq::domain::retry::{LONGEST_PAUSE, decide_once};
use asyncq::domain::retry_policy::RetryPolicy;
use asyncq::domain::service::{Added, ServiceChange};
use asyncq::domain::time::Timestamp;
use asyncq::store::{Cancelled, Cycle, Location, Store};
use asyncq::{Kind, domain};
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::fixture::{PATIENCE, call, definition, function, new_processor, service, tokens, wide};
use crate::reference::{Called, Edit, Job, Name, Plan, Rate, Reference, Room, Setting, Wants};
use crate::rules;
use crate::scale::{figure, many, random};

const SERVICES: [&str; 2] = ["events", "mails"];
const FUNCTIONS: [&str; 2] = ["compute", "send"];
const LANES: [&str; 2] = ["a", "b"];
/// The lanes of functions: that of all of their calls, and one for each principal.
const LANES_OF_FUNCTIONS: [Option<&str>; 3] = [None, Some("a"), Some("{principal}")];

/// What is due or expires later does so in an hour, which a verb lets go by.
const HOUR: i64 = 3_600_000;

/// How long the verbs of one store may take, before calls are due that were put off.
const AT_MOST: Duration = Duration::from_secs(4);

/// One verb; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Verb {
    AddService(u8, u32),
    SetService(u8, Setting),
    AddFunction(Name),
    SetLane(Name, u8),
    Remove(u8, Option<u8>, bool),
    Enqueue { called: Called, options: Options },
    Insert { called: Called, options: Options },
    Register,
    Unregister(u8),
    RunCycle { processor: u8, service: u8, ended: Vec<Ended>, back: Back, held: Held },
    Finish(Ended),
    Nested { claim: u8, called: Called },
    CompleteItself(u8),
    Cancel(u8),
    Start(u8),
    Retry(u8),
    Set(u8, Changes),
    Clean(u8),
    CancelByClient(u8),
    LetGoByClient(u8),
    DeleteByClient(u8),
    Rescue { processor: u8, begun: Option<u8> },
    Pass,
}

/// How a call is queued.
#[derive(Debug, Clone)]
struct Options {
    hold: bool,
    far: bool,
    lane: Option<u8>,
    /// How far before the newest job the ones are that it needs.
    needs: Vec<(u8, u8)>,
    key_until: u8,
    if_taken: u8,
    expires: Option<bool>,
}

/// What changes of a call that waits; of times, whether they are in an hour.
#[derive(Debug, Clone)]
#[expect(clippy::option_option, reason = "a value, none, or as it is")]
struct Changes {
    far: Option<bool>,
    hold: bool,
    priority: Option<i64>,
    lane: Option<Option<u8>>,
    expires: Option<Option<bool>>,
}

/// How a claim ends; now and then with a fence that is not its own.
#[derive(Debug, Clone)]
struct Ended {
    claim: u8,
    how: u8,
    far: bool,
    forged: u8,
}

/// How many claims go back at once, and how many after a pause.
#[derive(Debug, Clone)]
struct Back {
    returned: u8,
    postponed: u8,
}

#[derive(Debug, Clone)]
struct Held {
    runs: bool,
    ahead: usize,
    tokens: usize,
}

fn name() -> impl Strategy<Value = Name> {
    (0..2_u8, 0..2_u8)
}

fn called() -> impl Strategy<Value = Called> {
    (name(), 0..2_u8, option::weighted(0.4, 0..2_u8), 0..2_u8, -1..2_i64).prop_map(
        |(name, number, key, principal, priority)| {
            let principal = (principal == 1).then(|| "somebody".to_owned());
            Called { name, number, principal, key, priority }
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let lane = option::weighted(0.5, 0..2_u8);
    let need = (0..8_u8, prop_oneof![3 => Just(0_u8), 1 => Just(1_u8), 1 => Just(2_u8)]);
    let needs = prop_oneof![3 => Just(Vec::new()), 2 => vec(need, 1..4)];
    let expires = option::weighted(0.2, any::<bool>());
    (weighted(0.1), weighted(0.15), lane, needs, 0..3_u8, 0..3_u8, expires).prop_map(
        |(hold, far, lane, needs, key_until, if_taken, expires)| Options {
            hold,
            far,
            lane,
            needs,
            key_until,
            if_taken,
            expires,
        },
    )
}

fn changes() -> impl Strategy<Value = Changes> {
    let lane = option::of(option::of(0..2_u8));
    let expires = option::weighted(0.2, option::weighted(0.7, any::<bool>()));
    (option::of(weighted(0.4)), weighted(0.2), option::of(-1..2_i64), lane, expires)
        .prop_map(|(far, hold, priority, lane, expires)| Changes { far, hold, priority, lane, expires })
}

fn settings() -> impl Strategy<Value = Setting> {
    let rate = (1..4_u32, 1..4_u32).prop_map(|(calls, burst)| Rate { calls, burst });
    let width = option::weighted(0.3, 1..4_u32);
    let rate = option::weighted(0.4, option::weighted(0.6, rate));
    (option::weighted(0.5, 1..4_u32), option::weighted(0.3, weighted(0.3)), width, rate)
        .prop_map(|(concurrency, paused, width, rate)| Setting { concurrency, paused, width, rate })
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let ended = || {
        let parts = (any::<u8>(), 0..6_u8, any::<bool>(), prop_oneof![6 => Just(0_u8), 1 => 1..3_u8]);
        parts.prop_map(|(claim, how, far, forged)| Ended { claim, how, far, forged })
    };
    let held = (prop_oneof![3 => Just(true), 1 => Just(false)], 0..3_usize, 0..4_usize);
    let held = held.prop_map(|(runs, ahead, tokens)| Held { runs, ahead, tokens });
    let begun = option::of(any::<u8>());
    let back = (prop_oneof![4 => Just(0_u8), 1 => 1..3_u8], prop_oneof![6 => Just(0_u8), 1 => Just(1_u8)])
        .prop_map(|(returned, postponed)| Back { returned, postponed });
    let cycle = (any::<u8>(), 0..2_u8, vec(ended(), 0..3), back, held);
    let processors = prop_oneof![
        3 => Just(Verb::Register),
        1 => any::<u8>().prop_map(Verb::Unregister),
        16 => cycle.prop_map(|(processor, service, ended, back, held)| {
            Verb::RunCycle { processor, service, ended, back, held }
        }),
        3 => ended().prop_map(Verb::Finish),
        2 => (any::<u8>(), called()).prop_map(|(claim, called)| Verb::Nested { claim, called }),
        1 => any::<u8>().prop_map(Verb::CompleteItself),
        2 => (any::<u8>(), begun).prop_map(|(processor, begun)| Verb::Rescue { processor, begun }),
    ];
    let definitions = prop_oneof![
        3 => (0..2_u8, 1..3_u32).prop_map(|(name, limit)| Verb::AddService(name, limit)),
        1 => (0..2_u8, settings()).prop_map(|(name, setting)| Verb::SetService(name, setting)),
        3 => name().prop_map(Verb::AddFunction),
        1 => (name(), 0..3_u8).prop_map(|(name, lane)| Verb::SetLane(name, lane)),
        1 => (0..2_u8, option::weighted(0.7, 0..2_u8), any::<bool>())
            .prop_map(|(service, function, force)| Verb::Remove(service, function, force)),
    ];
    let by_hand = prop_oneof![
        3 => any::<u8>().prop_map(Verb::Cancel),
        2 => any::<u8>().prop_map(Verb::Start),
        5 => any::<u8>().prop_map(Verb::Retry),
        3 => (any::<u8>(), changes()).prop_map(|(job, changes)| Verb::Set(job, changes)),
        1 => any::<u8>().prop_map(Verb::Clean),
    ];
    let by_clients = prop_oneof![
        6 => (called(), options()).prop_map(|(called, options)| Verb::Insert { called, options }),
        1 => any::<u8>().prop_map(Verb::CancelByClient),
        1 => any::<u8>().prop_map(Verb::LetGoByClient),
        1 => any::<u8>().prop_map(Verb::DeleteByClient),
    ];
    let verb = prop_oneof![
        4 => definitions,
        10 => (called(), options()).prop_map(|(called, options)| Verb::Enqueue { called, options }),
        7 => by_clients,
        24 => processors,
        11 => by_hand,
        2 => Just(Verb::Pass),
    ];
    // Most stores have a rate, or lanes that are wider than usual, from the start.
    (settings(), settings(), vec(verb, 50..150)).prop_map(|(events, mails, mut verbs)| {
        verbs.splice(0..0, [Verb::SetService(0, events), Verb::SetService(1, mails)]);
        verbs
    })
}

/// A store, its reference, and what processors hold of it.
struct Both<'a> {
    store: &'a mut Store,
    client: rusqlite::Connection,
    reference: Reference,
    /// In the order in which they were claimed; some are over, unknown to who holds them.
    claims: Vec<Claim>,
    registered: i64,
    /// Whether a lane may have more room than was taken, or less.
    widths_changed: bool,
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
    new.options.priority = Priority::new(called.priority).unwrap();
    new
}

fn lane(number: u8) -> Lane {
    Lane::parse(LANES[usize::from(number)]).unwrap()
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

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until nothing that was done before is of the same moment.
fn next_moment() -> i64 {
    let before = now();
    while now() == before {
        std::hint::spin_loop();
    }
    now()
}

impl Both<'_> {
    fn act(&mut self, verb: &Verb) {
        match verb {
            Verb::AddService(..) | Verb::SetService(..) | Verb::AddFunction(_) | Verb::SetLane(..) => self.define(verb),
            Verb::Remove(service, function, force) => self.remove(*service, *function, *force),
            Verb::Enqueue { called, options } => self.enqueue(called, options),
            Verb::Insert { called, options } => self.insert(called, options),
            Verb::Register => {
                self.registered += 1;
                let id = self.store.register(&new_processor(self.registered)).unwrap();
                self.reference.processors.push(id.0);
            }
            Verb::Unregister(number) => self.unregister(*number),
            Verb::RunCycle { processor, service, ended, back, held } => {
                if let Some(processor) = chosen(&self.reference.processors, *processor) {
                    self.cycle((processor, *service), ended, back, held);
                }
            }
            Verb::Finish(ended) => {
                if let Some(finish) = self.end(ended, |_| true) {
                    let expected = self.reference.finish(&finish);
                    assert_eq!(self.store.finish(&[&finish]).unwrap(), [expected]);
                }
            }
            Verb::Nested { claim, called } => self.nest(*claim, called),
            Verb::CompleteItself(claim) => self.complete_itself(*claim),
            Verb::Rescue { processor, begun } => self.rescue(*processor, *begun),
            Verb::Set(number, changes) => self.set(*number, changes),
            Verb::Cancel(_) | Verb::Start(_) | Verb::Retry(_) | Verb::Clean(_) => self.by_hand(verb),
            Verb::CancelByClient(_) | Verb::LetGoByClient(_) | Verb::DeleteByClient(_) => self.by_client(verb),
            Verb::Pass => self.pass(),
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
            Verb::SetService(name, setting) => {
                let rate = |rate: Rate| {
                    domain::rate::Rate::parse(&format!("{}/h", rate.calls)).unwrap().with_burst(rate.burst)
                };
                let change = ServiceChange {
                    concurrency: setting.concurrency.and_then(NonZeroU32::new),
                    pause: setting.paused.map(|it| it.then(Pause::default)),
                    lane_width: setting.width.and_then(NonZeroU32::new),
                    rate: setting.rate.map(|it| it.map(rate)),
                    ..ServiceChange::default()
                };
                let told = store.set_service(&service(SERVICES[usize::from(name)]), &change);
                let told =
                    kind(told).map(|it| (it.concurrency.get(), it.pause.is_some(), it.lane_width.get(), it.rate));
                let expected = reference.set_service(name, setting);
                let expected = expected.map(|it| (it.concurrency, it.paused, it.width, it.rate.map(rate)));
                assert_eq!(told, expected);
                self.widths_changed |= setting.width.is_some() && reference.last > 0;
            }
            Verb::AddFunction(name) => {
                let (service, function) = named(name);
                let told = store.add_function(&service, &function, &definition());
                assert_eq!(kind(told), reference.add_function(name).map(added));
            }
            Verb::SetLane(name, lane) => {
                let (service, function) = named(name);
                let lane = LANES_OF_FUNCTIONS[usize::from(lane)];
                let policy =
                    PolicyChange { lane: Some(lane.map(|lane| Lane::parse(lane).unwrap())), ..PolicyChange::default() };
                let change = FunctionChange { policy, ..FunctionChange::default() };
                let told = store.set_function(&service, &function, &change).map(|_| ());
                assert_eq!(kind(told), reference.set_lane(name, lane));
            }
            _ => unreachable!("all others do not define anything"),
        }
    }

    fn remove(&mut self, name: u8, which: Option<u8>, force: bool) {
        let (service, function) = named((name, which.unwrap_or(0)));
        let told = match which {
            Some(_) => self.store.remove_function(&service, &function, if_waiting(force)),
            None => self.store.remove_service(&service, if_waiting(force)),
        };
        let expected = self.reference.remove(name, which, force).map(|mut jobs| {
            let cancelled = jobs.len() as u64;
            jobs.truncate(10);
            Removed { cancelled, oldest: jobs.into_iter().map(JobId).collect() }
        });
        assert_eq!(kind(told), expected);
    }

    /// How a call is to be queued, for the reference.
    fn wants(&self, options: &Options) -> Wants {
        let all = [Need::Completed, Need::Ended, Need::Failed];
        let needed = |(back, need): &(u8, u8)| {
            // Now and then one that is not there.
            let id = (self.reference.last + 1 - i64::from(*back)).max(1);
            (id, all[usize::from(*need)])
        };
        Wants {
            hold: options.hold,
            due: options.far.then(|| self.reference.now + HOUR),
            lane: options.lane.map(|number| LANES[usize::from(number)].to_owned()),
            needs: options.needs.iter().map(needed).collect(),
            key_until: [None, Some(KeyUntil::Started), Some(KeyUntil::Ended)][usize::from(options.key_until)],
            if_taken: [IfTaken::Keep, IfTaken::Replace, IfTaken::Postpone][usize::from(options.if_taken)],
            expires_at: options.expires.map(|far| self.reference.now + if far { HOUR } else { -1000 }),
        }
    }

    fn enqueue(&mut self, called: &Called, options: &Options) {
        let mut wants = self.wants(options);
        wants.key_until = called.key.and(wants.key_until);
        let mut new = NewJob { hold: options.hold, ..new_job(called) };
        new.due = wants.due.map_or(Due::Now, |at| Due::At(Timestamp(at)));
        new.options.lane = options.lane.map(lane);
        new.options.key_until = wants.key_until;
        new.options.if_taken = wants.if_taken;
        new.options.expires = wants.expires_at.map(|at| Expiry::At(Timestamp(at)));
        for (job, need) in &wants.needs {
            new.options.needs.add([JobId(*job)], *need).unwrap();
        }
        let told = self.store.enqueue(&new);
        let expected = self.reference.enqueue(called, &wants);
        let enqueued = |(new, id)| if new { Enqueued::New(JobId(id)) } else { Enqueued::Same(JobId(id)) };
        assert_eq!(kind(told), expected.map(enqueued));
    }

    /// As an application does it, whose errors are those of the triggers.
    fn insert(&mut self, called: &Called, options: &Options) {
        let mut wants = self.wants(options);
        wants.key_until = called.key.and(wants.key_until);
        wants.due = wants.due.or(Some(self.reference.now - 1000));
        let mut needs = Needs::default();
        for (job, need) in &wants.needs {
            needs.add([JobId(*job)], *need).unwrap();
        }
        let (service, function) = named(called.name);
        let if_taken = match wants.if_taken {
            IfTaken::Keep => "key = excluded.key",
            IfTaken::Replace => "args = excluded.args, kwargs = excluded.kwargs",
            IfTaken::Postpone => "args = excluded.args, kwargs = excluded.kwargs, run_at = excluded.run_at",
        };
        let sql = format!(
            "INSERT INTO asyncq_job (service, function, args, kwargs, principal, priority, run_at, state, lane, after,
                key, key_until, expires_at)
            VALUES (?1, ?2, ?3, '{{\"key\":\"word\"}}', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
            ON CONFLICT (key) DO UPDATE SET {if_taken} RETURNING id"
        );
        let new = new_job(called);
        let values = rusqlite::params![
            service.as_str(),
            function.as_str(),
            new.call.args.as_str(),
            &called.principal,
            called.priority,
            wants.due,
            if wants.hold { "held" } else { "queued" },
            &wants.lane,
            (!needs.is_empty()).then(|| needs.to_json()),
            called.key.map(|key| key.to_string()),
            wants.key_until.map(KeyUntil::as_str),
            wants.expires_at,
        ];
        let told: rusqlite::Result<i64> = self.client.query_row(&sql, values, |row| row.get(0));
        let expected = self.reference.insert(called, &wants);
        assert_eq!(told.as_ref().ok(), expected.as_ref().ok(), "{told:?} {expected:?}");
    }

    fn set(&mut self, number: u8, changes: &Changes) {
        let id = self.job(number, |job| job.state.is_waiting());
        let at = |far: bool| self.reference.now + if far { HOUR } else { -1000 };
        let known = Edit {
            due: changes.far.map(|far| far.then(|| at(true))),
            hold: changes.hold,
            priority: changes.priority,
            lane: changes.lane.map(|lane| lane.map(|number| LANES[usize::from(number)].to_owned())),
            expires_at: changes.expires.map(|it| it.map(at)),
        };
        let edit = JobEdit {
            due: known.due.map(|due| due.map_or(Due::Now, |at| Due::At(Timestamp(at)))),
            hold: changes.hold,
            priority: changes.priority.and_then(Priority::new),
            lane: changes.lane.map(|it| it.map(lane)),
            expires: known.expires_at.map(|it| it.map(|at| Expiry::At(Timestamp(at)))),
        };
        if edit == JobEdit::default() {
            return;
        }
        assert_eq!(kind(self.store.set(JobId(id), &edit)), self.reference.set(id, &known));
    }

    fn by_client(&mut self, verb: &Verb) {
        let run = |sql: &str, id: i64| self.client.execute(sql, [id]).is_ok();
        match *verb {
            Verb::CancelByClient(number) => {
                let id = self.job(number, |job| job.state.is_waiting());
                let told = run("UPDATE asyncq_job SET state = 'cancelled' WHERE id = ?1", id);
                assert_eq!(told, self.reference.cancel_by_client(id));
            }
            Verb::LetGoByClient(number) => {
                let id = self.job(number, |job| job.state == State::Held);
                assert!(run("UPDATE asyncq_job SET state = 'queued' WHERE id = ?1 AND state = 'held'", id));
                self.reference.let_go(id);
            }
            Verb::DeleteByClient(number) => {
                let id = self.job(number, |job| job.state.has_ended());
                let told = run("DELETE FROM asyncq_job WHERE id = ?1 AND finished_at IS NOT NULL", id);
                assert_eq!(told, self.reference.delete(id));
            }
            _ => unreachable!("all others are not of clients"),
        }
    }

    /// An hour and a little more goes by, in no time.
    fn pass(&mut self) {
        let span = HOUR + 100_000;
        let sql = format!(
            "UPDATE asyncq_job SET run_at = run_at - {span}, created_at = created_at - {span},
                started_at = started_at - {span}, finished_at = finished_at - {span}, expires_at = expires_at - {span};
            UPDATE asyncq_service SET rate_at = rate_at - {span} * 1000"
        );
        let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        self.client.set_db_config(config, false).unwrap();
        self.client.execute_batch(&sql).unwrap();
        self.client.set_db_config(config, true).unwrap();
        self.reference.pass(span);
    }

    /// The number of a job, mostly of one that fits; now and then of one that is not there.
    fn job(&self, number: u8, fits: impl Fn(&Job) -> bool) -> i64 {
        let fitting = self.reference.jobs.iter().filter(|(_, job)| fits(job)).map(|(id, _)| *id);
        let any = i64::from(number / 4) % (self.reference.last + 1) + 1;
        let among = if number.is_multiple_of(4) { Vec::new() } else { fitting.collect() };
        chosen(&among, number / 4).unwrap_or(any)
    }

    fn unregister(&mut self, number: u8) {
        let Some(id) = chosen(&self.reference.processors, number) else { return };
        // One that ends has none.
        let nested = |job: &Job| job.depth > 0 && job.token && job.owner == Some(id);
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

    fn cycle(&mut self, (processor, on): (i64, u8), ended: &[Ended], back: &Back, held: &Held) {
        let name = SERVICES[usize::from(on)];
        let theirs = |claim: &Claim| {
            claim.fence.processor.0 == processor
                && claim.call.service.as_str() == name
                && !claim.token.as_str().contains('.')
        };
        let finished: Vec<Finish> = ended.iter().filter_map(|ended| self.end(ended, theirs)).collect();
        let mut back = [back.returned, back.postponed].map(|count| {
            let mut fences: Vec<Fence> = Vec::new();
            for _ in 0..count {
                if let Some(at) = self.claims.iter().position(theirs) {
                    fences.push(self.claims.remove(at).fence);
                }
            }
            fences
        });
        let [returned, postponed] = &mut back;
        let count = self.claims.iter().filter(|claim| theirs(claim)).count();
        let is_there = self.reference.services.contains_key(&on);
        let running = if held.runs && is_there { count } else { 0 };
        let (service, tokens) = (service(name), tokens(held.tokens as u128));
        let finishes: Vec<&Finish> = finished.iter().collect();
        let plan = Cycle {
            finished: &finishes,
            returned,
            postponed,
            held: count,
            running,
            ahead: held.ahead,
            tokens: &tokens,
            ..Cycle::of(ProcessorId(processor), &service)
        };
        let told = self.store.run_cycle(&plan).unwrap();

        (self.reference.now, self.reference.is_exact) = (told.status.now.0, true);
        let room = Room { held: count, running, ahead: held.ahead, tokens: held.tokens };
        let plan = Plan { service: on, processor, ends: &finishes, returned, postponed, room };
        let done = self.reference.cycle(&plan);
        assert_eq!(told.finished, done.finished);
        let claims = done.claims;
        assert_eq!((told.slots, told.status.free()), (done.slots, done.free));
        let jobs = |fences: &mut dyn Iterator<Item = Fence>| -> Vec<i64> { fences.map(|fence| fence.job.0).collect() };
        let can_run = |id: &i64| self.reference.functions.contains_key(&self.reference.jobs[id].called.name);
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
            let is_tied = job.lane.is_some() || job.key_until.is_some();
            assert_eq!((fence.attempt, fence.claim, fence.tied), (job.attempt, job.claim, is_tied));
            assert_eq!(before.conflicts, job.conflicts);
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
            self.reference.complete_itself(fence.job.0);
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
        match *verb {
            Verb::Cancel(number) => {
                let id = self.job(number, |job| !job.state.has_ended());
                let expected = self.reference.cancel(id).map(|before| match before {
                    State::Processing => Cancelled::Requested,
                    before if before.has_ended() => Cancelled::Ended(before),
                    _ => Cancelled::Now,
                });
                assert_eq!(kind(self.store.cancel(JobId(id))), expected);
            }
            Verb::Start(number) => {
                let id = self.job(number, |job| matches!(job.state, State::Held | State::Blocked));
                assert_eq!(kind(self.store.start(JobId(id))), self.reference.start(id));
            }
            Verb::Retry(number) => {
                let id = self.job(number, |job| matches!(job.state, State::Error | State::Cancelled));
                assert_eq!(kind(self.store.retry(JobId(id))), self.reference.retry(id));
            }
            Verb::Clean(number) => {
                let states = vec![JobChange::Remove.states()[usize::from(number) % 3]];
                let expected = self.reference.clean(states[0]);
                let filter = JobFilter { states, ..JobFilter::default() };
                let many = BulkChange { change: JobChange::Remove, filter, before: None, dry_run: false };
                let step = self.store.change_many(&many, JobId(0)).unwrap();
                assert_eq!((step.changed, step.next), (expected, None));
            }
            _ => unreachable!("all others are not by hand"),
        }
    }

    /// Holds all that can be seen of the store to the reference.
    fn compare(&mut self) {
        let passed = now() - self.reference.now;
        let seen = self.store.jobs(&JobQuery::default()).unwrap().jobs;
        let ids: Vec<i64> = seen.iter().rev().map(|job| job.id.0).collect();
        assert_eq!(ids, self.reference.jobs.keys().copied().collect::<Vec<_>>());
        for job in &seen {
            let known = self.reference.jobs.get_mut(&job.id.0).unwrap();
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
            let told = (&job.options.lane, &job.options.key, job.options.expires_at.map(|it| it.0), &job.call.args);
            let key = known.key.map(|key| key.to_string());
            let args = format!("[{}]", called.number);
            assert_eq!(told, (&known.lane, &key, known.expires_at, &args), "job {}", job.id);
            // Where the verb had its own time, it was that of the clock.
            let late = if known.is_roughly && !self.reference.is_exact { passed } else { 0 };
            let due = job.times.run_at.0;
            assert!(
                (known.run_at..=known.run_at + late).contains(&due),
                "job {}: {} is due {due}",
                job.id,
                known.run_at
            );
            (known.run_at, known.is_roughly) = (due, false);
        }
        self.compare_links();
        let processors: Vec<i64> = self.store.processors().unwrap().iter().map(|it| it.id.0).collect();
        assert_eq!(processors, self.reference.processors);
        for (number, name) in SERVICES.iter().enumerate() {
            let number = u8::try_from(number).unwrap();
            let status = self.store.service_status(&service(name), None).unwrap();
            let jobs = self.reference.jobs.values().filter(|job| job.called.name.0 == number);
            let is_due = |job: &Job| job.state == State::Delayed && job.run_at <= status.now.0;
            let is_ready = jobs.clone().any(|job| job.state == State::Queued || is_due(job));
            let is_there = self.reference.services.contains_key(&number);
            assert_eq!(status.ready, is_ready || is_there && self.reference.has_ended(), "{name}");
            assert_eq!(status.free(), self.reference.free(number, 0), "{name}");
        }
    }

    /// What holds calls back, and the promises of that.
    fn compare_links(&mut self) {
        let all = "SELECT needs, job, wants FROM asyncq_after ORDER BY needs, job";
        let mut statement = self.client.prepare_cached(all).unwrap();
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, String>(2)?))).unwrap();
        let told: Vec<((i64, i64), String)> = rows.map(Result::unwrap).collect();
        let links = self.reference.links.iter().map(|(link, need)| (*link, need.as_str().to_owned()));
        assert_eq!(told, links.collect::<Vec<_>>());
        let mut broken = rules::broken(&self.client);
        broken.retain(|rule| !(self.widths_changed && rule.contains("lane")));
        assert_eq!(broken, [""; 0]);
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
            let own = |job: &&Job| job.token && job.owner == Some(processor);
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
    let mut both = Both { store: &mut store, client, reference, claims, registered: 0, widths_changed: false };
    for name in [(0, 0), (0, 1), (1, 0)] {
        both.act(&Verb::AddService(name.0, 2));
        both.act(&Verb::AddFunction(name));
    }
    both.act(&Verb::Register);
    let began = Instant::now();
    for verb in verbs {
        // Whoever is due from now on comes after all others.
        let is_moved = matches!(verb, Verb::Retry(_) | Verb::Set(..) | Verb::Enqueue { .. } | Verb::Insert { .. });
        both.reference.now = if is_moved { next_moment() } else { now() };
        both.reference.is_exact = false;
        both.act(verb);
        // What waits to be tried again is due before long, which the reference does not know.
        if began.elapsed() > AT_MOST {
            return;
        }
        both.compare();
    }
    both.compare_the_rest();
}

#[test]
fn any_verbs_in_any_order_do_what_the_reference_does() {
    let transitions = many(1_000_000, 4_000) as u64;
    let seed: Vec<u8> = std::iter::repeat_with({
        let mut random = random("properties");
        move || random.u8(..)
    })
    .take(32)
    .collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    // About a hundred verbs make a case; a failing one is printed, as small as it can be made.
    let cases = u32::try_from(transitions / 100).unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_time: 60_000,
        max_shrink_iters: u32::MAX,
        ..Config::default()
    };
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
