//! Calls that wait for others, under whatever happens: random verbs, by processors, people and clients, with the promises of
//! lanes, needs, keys and rates checked after each step.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::call::Key;
use asyncq::domain::function::{FunctionChange, PolicyChange};
use asyncq::domain::job::{Claim, JobId, State};
use asyncq::domain::job_edit::JobEdit;
use asyncq::domain::lane::Lane;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, Expiry, IfTaken, KeyUntil, NewJob, Priority};
use asyncq::domain::pattern::OfServices;
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter};
use asyncq::domain::rate::Rate;
use asyncq::domain::service::{ServiceChange, ServiceName};
use asyncq::store::{Cycle, CycleResult, Location, Store};
use rusqlite::Connection;

use crate::fixture::{PATIENCE, call, definition, ends, function, processor, service, tokens, with_events};
use crate::rules;
use crate::scale::{figure, many, random};

/// How many verbs one store sees.
const STEPS: usize = 120;

/// How many calls of the second service may start; no more do in a test, as the span is an hour.
const STARTS: usize = 3;

/// A store and what is done with it.
struct Random<'a> {
    store: &'a mut Store,
    client: Connection,
    processor: ProcessorId,
    next_processor: i64,
    claims: Vec<Claim>,
    jobs: Vec<JobId>,
    random: fastrand::Rng,
    /// How many calls of the second service have started.
    starts: usize,
}

impl Random<'_> {
    fn any_job(&mut self) -> Option<JobId> {
        self.random.choice(&self.jobs).copied()
    }

    fn lane(&mut self) -> Option<Lane> {
        let name = ["a", "b"][self.random.usize(0..2)];
        (self.random.u8(0..3) > 0).then(|| Lane::parse(name).unwrap())
    }

    fn service(&mut self) -> ServiceName {
        service(if self.random.u8(0..4) == 0 { "mails" } else { "events" })
    }

    fn due(&mut self) -> Due {
        if self.random.u8(0..5) == 0 { Due::In(Duration::from_secs(3600)) } else { Due::Now }
    }

    fn enqueue(&mut self) {
        let (mut needs, lane, hold) = (Needs::default(), self.lane(), self.random.u8(0..8) == 0);
        for _ in 0..self.random.usize(0..3) {
            let need = Need::ALL[self.random.usize(0..3)];
            if let Some(job) = self.any_job() {
                let _ = needs.add([job], need);
            }
        }
        let number = self.random.i64(0..3);
        let has_key = self.random.u8(0..4) == 0;
        let key = has_key.then(|| Key::parse(["one", "other"][self.random.usize(0..2)]).unwrap());
        let key_until = key
            .as_ref()
            .and_then(|_| self.random.choice([None, Some(KeyUntil::Started), Some(KeyUntil::Ended)]))
            .flatten();
        let if_taken = [IfTaken::Keep, IfTaken::Replace, IfTaken::Postpone][self.random.usize(0..3)];
        let options = CallOptions {
            lane,
            needs,
            key_until,
            if_taken: if key_until.is_some() { if_taken } else { IfTaken::Keep },
            priority: Priority::new(self.random.i64(-1..2)).unwrap(),
            expires: (self.random.u8(0..8) == 0).then_some(Expiry::In(Duration::from_secs(60))),
            ..CallOptions::default()
        };
        let mut new = NewJob { hold, key, due: self.due(), options, ..call(number) };
        new.call.service = self.service();
        // What it needs may have ended in another way, or its key be another call's.
        if let Ok(enqueued) = self.store.enqueue(&new) {
            self.jobs.push(enqueued.id());
        }
    }

    fn insert_as_client(&mut self) {
        let lane = self.lane().map_or("NULL".to_owned(), |lane| format!("'{lane}'"));
        let after = self.any_job().filter(|_| self.random.bool()).map_or("NULL".to_owned(), |job| {
            let list = ["", "{\"any\":", "{\"failed\":"][self.random.usize(0..3)];
            format!("'{list}[{job}]{}'", if list.is_empty() { "" } else { "}" })
        });
        let key = ["NULL, NULL", "'one', 'started'", "'other', 'ended'", "'mine', NULL"][self.random.usize(0..4)];
        let service = self.service();
        let sql = format!(
            "INSERT INTO asyncq_job (service, function, lane, after, key, key_until)
             VALUES ('{service}', 'compute', {lane}, {after}, {key})
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id"
        );
        if let Ok(id) = self.client.query_row(&sql, [], |row| row.get(0)) {
            self.jobs.push(JobId(id));
        }
    }

    /// A cycle of one of the services: of its own claims, `ended` and `returned` are over.
    fn cycle(
        &mut self,
        on: &ServiceName,
        ended: Option<(&Claim, &Outcome)>,
        returned: Option<&Claim>,
        room: u128,
    ) -> CycleResult {
        let held = self.claims.iter().filter(|claim| claim.call.service == *on).count();
        let ended: Vec<_> = ended.into_iter().map(|(claim, outcome)| ends(claim, outcome)).collect();
        let finished: Vec<_> = ended.iter().collect();
        let returned: Vec<_> = returned.into_iter().map(|claim| claim.fence).collect();
        let tokens = tokens(room);
        let plan = Cycle {
            finished: &finished,
            returned: &returned,
            held,
            running: held,
            ahead: 2,
            tokens: &tokens,
            ..Cycle::of(self.processor, on)
        };
        let done = self.store.run_cycle(&plan).unwrap();
        if on.as_str() == "mails" {
            self.starts += done.claims.len() + done.broken.len();
        }
        self.claims.extend(done.claims.iter().cloned());
        done
    }

    fn take_claim(&mut self) -> Option<Claim> {
        (!self.claims.is_empty()).then(|| self.claims.swap_remove(self.random.usize(0..self.claims.len())))
    }

    fn finish(&mut self) {
        let Some(claim) = self.take_claim() else { return };
        let outcome = match self.random.u8(0..6) {
            0..3 => Outcome::Completed,
            3 => Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1")),
            4 => Outcome::Conflict(Conflict::default()),
            _ => Outcome::Interrupted,
        };
        let on = claim.call.service.clone();
        let room = self.random.u8(0..3).into();
        self.cycle(&on, Some((&claim, &outcome)), None, room);
    }

    fn die(&mut self) {
        let begun: Option<Vec<JobId>> =
            self.random.bool().then(|| self.claims.iter().map(|claim| claim.fence.job).step_by(2).collect());
        self.claims.clear();
        self.store.rescue(self.processor, begun.as_deref(), &[]).unwrap();
        self.next_processor += 1;
        self.processor = processor(self.store, self.next_processor);
    }

    fn change_many(&mut self) {
        let edit = JobEdit { lane: Some(self.lane()), ..JobEdit::default() };
        let changes = [JobChange::Cancel, JobChange::Retry, JobChange::Start, JobChange::Remove, JobChange::Set(edit)];
        let change = changes[self.random.usize(0..changes.len())].clone();
        let filter =
            JobFilter { states: change.states(), services: OfServices::only(self.service()), ..JobFilter::default() };
        self.store.change_many(&BulkChange { change, filter, before: None, dry_run: false }, JobId(0)).unwrap();
    }

    fn set(&mut self, job: JobId) {
        let lane = self.lane();
        let edit = JobEdit {
            due: self.random.bool().then(|| self.due()),
            hold: self.random.u8(0..8) == 0,
            priority: self.random.bool().then(|| Priority::new(self.random.i64(-1..2)).unwrap()),
            lane: self.random.bool().then_some(lane),
            expires: None,
        };
        // It may have begun.
        let _ = self.store.set(job, &edit);
    }

    fn change_as_client(&mut self, job: JobId) {
        let hour = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 3600000";
        let what = [
            "state = 'cancelled'",
            "state = 'queued'",
            "lane = 'of the function'",
            "lane = 'of the function'",
            "priority = 1",
            "run_at = created_at",
            &format!("run_at = {hour}"),
            "state = 'completed'",
        ];
        let what = what[self.random.usize(0..what.len())];
        // The schema may refuse it. Nobody completes a call but itself.
        let _ = self.client.execute(&format!("UPDATE asyncq_job SET {what} WHERE id = {job}"), []);
    }

    fn step(&mut self) {
        match self.random.u8(0..34) {
            0..6 | 26..32 => self.enqueue(),
            6..9 | 32..34 => self.insert_as_client(),
            9..13 => {
                let on = self.service();
                self.cycle(&on, None, None, 2);
            }
            13..17 => self.finish(),
            17 => {
                if let Some(claim) = self.take_claim() {
                    let on = claim.call.service.clone();
                    self.cycle(&on, None, Some(&claim), 1);
                }
            }
            18 => self.die(),
            19 if self.random.u8(0..3) == 0 => self.change_many(),
            19 => {
                let lane = self.random.bool().then(|| Lane::parse("of the function").unwrap());
                set_lane_of_function(self.store, lane);
            }
            verb => {
                let Some(job) = self.any_job() else { return };
                match verb {
                    20 => drop(self.store.cancel(job)),
                    21 => drop(self.store.retry(job)),
                    22 => drop(self.store.start(job)),
                    23 => self.set(job),
                    24 => drop(
                        self.client
                            .execute("DELETE FROM asyncq_job WHERE id = ?1 AND finished_at IS NOT NULL", [job.0]),
                    ),
                    _ => self.change_as_client(job),
                }
            }
        }
        // Whoever waits for a time need not wait for it here.
        if self.random.u8(0..4) == 0 {
            let due = "UPDATE asyncq_job SET run_at = run_at - 3700000, started_at = started_at - 3700000,
                expires_at = expires_at - 3700000 WHERE state = 'delayed'";
            self.untriggered(due);
        }
    }

    fn untriggered(&self, sql: &str) {
        let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        self.client.set_db_config(config, false).unwrap();
        self.client.execute_batch(sql).unwrap();
        self.client.set_db_config(config, true).unwrap();
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = rules::broken(&self.client);
        let blocked = "SELECT count(*) FROM asyncq_job WHERE state = 'blocked' AND waits = 0";
        if self.client.query_row(blocked, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
            broken.push("blocked without a reason".to_owned());
        }
        if self.starts > STARTS {
            broken.push(format!("{} starts", self.starts));
        }
        broken
    }

    /// Ends all that can run.
    fn drain(&mut self) {
        let free = ServiceChange { rate: Some(None), ..ServiceChange::default() };
        self.store.set_service(&service("mails"), &free).unwrap();
        for _ in 0..10_000 {
            self.untriggered("UPDATE asyncq_job SET run_at = 1 WHERE state = 'delayed'");
            let claims = self.claims.clone();
            let mut is_over = claims.is_empty();
            for claim in claims {
                self.claims.retain(|other| other.fence != claim.fence);
                let on = claim.call.service.clone();
                self.cycle(&on, Some((&claim, &Outcome::Completed)), None, 0);
            }
            for on in [service("events"), service("mails")] {
                is_over &= !self.cycle(&on, None, None, 2).status.ready && self.claims.is_empty();
            }
            if is_over {
                return;
            }
        }
        panic!("it never ends");
    }
}

#[test]
fn no_lane_stands_still_and_no_call_runs_before_what_it_needs() {
    let name = "waiting";
    let (seeds, mut random) = (many(2_000, 6), random(name));
    let mut jobs = 0;
    for number in 0..seeds {
        let folder = folder();
        let location = Location::parse("queue.db", folder.path()).unwrap();
        let mut store = Store::create(&location, PATIENCE).unwrap().0;
        store.measure_without_disk().unwrap();
        let seed = random.u64(..);
        jobs += run(&mut store, seed, &format!("store {number}, seed {seed}"));
    }
    figure(name, format!("{seeds} stores, {STEPS} verbs and {} jobs each: 0 rules broken", jobs / seeds));
}

fn set_lane_of_function(store: &mut Store, lane: Option<Lane>) {
    let policy = PolicyChange { lane: Some(lane), ..PolicyChange::default() };
    let change = FunctionChange { policy, ..FunctionChange::default() };
    store.set_function(&service("events"), &function("compute"), &change).unwrap();
}

/// Where a commit costs nothing, if there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Gives how many jobs there were.
fn run(store: &mut Store, seed: u64, which: &str) -> usize {
    with_events(store);
    let mut random = fastrand::Rng::with_seed(seed);
    let rate = Rate::parse(&format!("{STARTS}/h")).unwrap().with_burst(u32::try_from(STARTS).unwrap());
    store
        .add_service(&service("mails"), &ServiceChange { concurrency: NonZeroU32::new(9), ..ServiceChange::default() })
        .unwrap();
    store.add_function(&service("mails"), &function("compute"), &definition()).unwrap();
    let change = ServiceChange { lane_width: NonZeroU32::new(random.u32(1..3)), ..ServiceChange::default() };
    store.set_service(&service("events"), &change).unwrap();
    let change = ServiceChange { rate: Some(Some(rate)), ..ServiceChange::default() };
    store.set_service(&service("mails"), &change).unwrap();
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let client = Connection::open(path).unwrap();
    let processor = processor(store, 1);
    let (claims, jobs) = (Vec::new(), Vec::new());
    let mut random = Random { store, client, processor, next_processor: 1, claims, jobs, random, starts: 0 };
    for number in 0..STEPS {
        random.step();
        let broken = random.broken();
        assert!(broken.is_empty(), "{which}, step {number}: {broken:?}");
    }
    random.drain();
    random.jobs.sort_unstable();
    random.jobs.dedup();
    let ids = random.jobs.clone();
    let states = random.store.states(&ids).unwrap();
    for (id, state) in ids.iter().zip(states) {
        // Some were removed.
        let ends = state.is_none_or(|state| state.has_ended() || state == State::Held || state == State::Blocked);
        assert!(ends, "{which}: job {id} is {state:?}");
    }
    // Only those are blocked that need a held one.
    let stuck = "SELECT id FROM asyncq_job b WHERE state = 'blocked' AND NOT EXISTS (
        SELECT 1 FROM asyncq_after a JOIN asyncq_job n ON n.id = a.needs WHERE a.job = b.id AND n.state IN ('held', 'blocked'))";
    let mut statement = random.client.prepare(stuck).unwrap();
    let stuck: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(stuck.is_empty(), "{which}: {stuck:?}");
    ids.len()
}
