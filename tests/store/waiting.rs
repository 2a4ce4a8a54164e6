//! Calls that wait for others, under whatever happens: random verbs, by processors, people and clients, with the promises of
//! lanes and needs checked after each step.

use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::job::{Claim, JobId, State};
use asyncq::domain::job_edit::JobEdit;
use asyncq::domain::lane::Lane;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, NewJob, Priority};
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::service::ServiceChange;
use asyncq::store::{Location, Store};
use rusqlite::Connection;
use std::{num::NonZeroU32, time::Duration};

use crate::fixture::{PATIENCE, call, ends, give_back, processor, run_cycle, service, with_events};

/// More calls are in the queue or run than the lane allows. Those are forgiven that were let out when it was wider.
const TOO_MANY: &str = "SELECT 'too many heads: ' || lane FROM asyncq_job
    WHERE lane IS NOT NULL AND state IN ('queued', 'processing') GROUP BY lane
    HAVING count(*) > (SELECT max(lane_width) FROM asyncq_service)";
/// A call waits for its turn, and there is room.
const STANDS_STILL: &str = "SELECT 'lane stands still: ' || b.lane FROM asyncq_job b WHERE b.waits = 2 AND (
    SELECT count(*) FROM asyncq_job h WHERE h.lane = b.lane AND h.state IN ('queued', 'processing')) = 0";
/// A call waits for jobs, all of which have ended, and nobody is going to tell it.
const WAITS_FOR_NOTHING: &str =
    "SELECT 'waits for nothing: ' || b.id FROM asyncq_job b WHERE b.waits = 1 AND NOT EXISTS (
    SELECT 1 FROM asyncq_after a JOIN asyncq_job n ON n.id = a.needs
    WHERE a.job = b.id AND (n.finished_at IS NULL OR EXISTS (SELECT 1 FROM asyncq_settle s WHERE s.job = n.id)))";
/// A call may run, and what it needs has not ended.
const TOO_EARLY: &str = "SELECT 'too early: ' || j.id FROM asyncq_job j JOIN asyncq_after a ON a.job = j.id
    WHERE j.state IN ('queued', 'delayed', 'processing', 'completed')";
const INCONSISTENT: &str =
    "SELECT 'state and reason differ: ' || id FROM asyncq_job WHERE (state = 'blocked') <> (waits > 0)";

/// A store and what is done with it.
struct Random<'a> {
    store: &'a mut Store,
    client: Connection,
    processor: ProcessorId,
    next_processor: i64,
    claims: Vec<Claim>,
    jobs: Vec<JobId>,
    random: fastrand::Rng,
}

impl Random<'_> {
    fn any_job(&mut self) -> Option<JobId> {
        self.random.choice(&self.jobs).copied()
    }

    fn lane(&mut self) -> Option<Lane> {
        let name = ["a", "b", "c"][self.random.usize(0..3)];
        self.random.bool().then(|| Lane::parse(name).unwrap())
    }

    fn enqueue(&mut self) {
        let (mut needs, lane, hold) = (Needs::default(), self.lane(), self.random.u8(0..8) == 0);
        for _ in 0..self.random.usize(0..3) {
            let need = Need::ALL[self.random.usize(0..3)];
            if let Some(job) = self.any_job() {
                let _ = needs.add([job], need);
            }
        }
        let number = self.random.i64(0..100);
        let new = NewJob { hold, options: CallOptions { lane, needs, ..CallOptions::default() }, ..call(number) };
        // What it needs may have ended in another way.
        if let Ok(enqueued) = self.store.enqueue(&new) {
            self.jobs.push(enqueued.id());
        }
    }

    fn insert_as_client(&mut self) {
        let lane = self.lane().map_or("NULL".to_owned(), |lane| format!("'{lane}'"));
        let after = self.any_job().filter(|_| self.random.bool()).map_or("NULL".to_owned(), |job| format!("'[{job}]'"));
        let sql = format!(
            "INSERT INTO asyncq_job (service, function, lane, after) VALUES ('events', 'compute', {lane}, {after}) RETURNING id"
        );
        if let Ok(id) = self.client.query_row(&sql, [], |row| row.get(0)) {
            self.jobs.push(JobId(id));
        }
    }

    fn finish(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let claim = self.claims.swap_remove(self.random.usize(0..self.claims.len()));
        let outcome = match self.random.u8(0..6) {
            0..3 => Outcome::Completed,
            3 => Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1")),
            4 => Outcome::Conflict(Conflict::default()),
            _ => Outcome::Interrupted,
        };
        run_cycle(self.store, self.processor, &[&ends(&claim, &outcome)], self.claims.len(), 0);
    }

    fn die(&mut self) {
        self.claims.clear();
        self.store.rescue(self.processor, None, &[]).unwrap();
        self.next_processor += 1;
        self.processor = processor(self.store, self.next_processor);
    }

    fn set(&mut self, job: JobId) {
        let due = match self.random.u8(0..3) {
            0 => Some(Due::Now),
            1 => Some(Due::In(Duration::from_secs(60))),
            _ => None,
        };
        let (hold, lane) = (self.random.u8(0..8) == 0, self.random.bool().then(|| self.lane()));
        let priority = self.random.bool().then(|| Priority::new(self.random.i64(-5..5))).flatten();
        drop(self.store.set(job, &JobEdit { due, hold, lane, priority, expires: None }));
    }

    fn step(&mut self) {
        match self.random.u8(0..21) {
            0..5 => self.enqueue(),
            5..7 => self.insert_as_client(),
            7..10 => {
                let held = self.claims.len();
                self.claims.extend(run_cycle(self.store, self.processor, &[], held, 2).claims);
            }
            10..14 => self.finish(),
            14 if !self.claims.is_empty() => {
                let claim = self.claims.pop().unwrap();
                self.claims.extend(give_back(self.store, self.processor, &claim).claims);
            }
            15 => self.die(),
            verb => {
                let Some(job) = self.any_job() else { return };
                match verb {
                    16 => drop(self.store.cancel(job)),
                    17 => drop(self.store.retry(job)),
                    18 => drop(self.store.start(job)),
                    19 => self.set(job),
                    _ => {
                        let state = ["cancelled", "queued"][self.random.usize(0..2)];
                        let sql = format!("UPDATE asyncq_job SET state = '{state}' WHERE id = {job} AND token IS NULL");
                        let _ = self.client.execute(&sql, []);
                    }
                }
            }
        }
        // Whoever waits for a time need not wait for it here.
        if self.random.u8(0..4) == 0 {
            let due = "UPDATE asyncq_job SET run_at = run_at - 100000, started_at = started_at - 100000 WHERE state = 'delayed'";
            self.untriggered(due);
        }
    }

    fn untriggered(&self, sql: &str) {
        let config = rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER;
        self.client.set_db_config(config, false).unwrap();
        self.client.execute_batch(sql).unwrap();
        self.client.set_db_config(config, true).unwrap();
    }

    fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for rule in [TOO_MANY, STANDS_STILL, WAITS_FOR_NOTHING, TOO_EARLY, INCONSISTENT] {
            let mut statement = self.client.prepare_cached(rule).unwrap();
            found.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
        }
        found
    }

    /// Ends all that can run.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.untriggered("UPDATE asyncq_job SET run_at = 1 WHERE state = 'delayed'");
            let ended: Vec<_> = self.claims.drain(..).map(|claim| ends(&claim, &Outcome::Completed)).collect();
            let ended: Vec<_> = ended.iter().collect();
            let done = run_cycle(self.store, self.processor, &ended, 0, 2);
            self.claims = done.claims;
            if self.claims.is_empty() && !done.status.ready && ended.is_empty() {
                return;
            }
        }
        panic!("it never ends");
    }
}

#[test]
fn no_lane_stands_still_and_no_call_runs_before_what_it_needs() {
    let seeds = if std::env::var("ASYNCQ_FAULTS").as_deref() == Ok("full") { 2000 } else { 12 };
    for seed in 0..seeds {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse("queue.db", folder.path()).unwrap();
        run(&mut Store::create(&location, PATIENCE).unwrap().0, seed);
    }
}

fn run(store: &mut Store, seed: u64) {
    with_events(store);
    let random = fastrand::Rng::with_seed(seed);
    let width = NonZeroU32::new(1 + u32::try_from(seed).unwrap() % 2);
    store.set_service(&service("events"), &ServiceChange { lane_width: width, ..ServiceChange::default() }).unwrap();
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let client = Connection::open(path).unwrap();
    let processor = processor(store, 1);
    let mut random =
        Random { store, client, processor, next_processor: 1, claims: Vec::new(), jobs: Vec::new(), random };
    for number in 0..60 {
        random.step();
        let violations = random.violations();
        assert!(violations.is_empty(), "seed {seed}, step {number}: {violations:?}");
    }
    random.drain();
    let ids = random.jobs.clone();
    let states = random.store.states(&ids).unwrap();
    for (id, state) in ids.iter().zip(states) {
        let ends = state.is_some_and(|state| state.has_ended() || state == State::Held || state == State::Blocked);
        assert!(ends, "seed {seed}: job {id} is {state:?}");
    }
    // Only those are blocked that need a held one.
    let stuck = "SELECT id FROM asyncq_job b WHERE state = 'blocked' AND NOT EXISTS (
        SELECT 1 FROM asyncq_after a JOIN asyncq_job n ON n.id = a.needs WHERE a.job = b.id AND n.state IN ('held', 'blocked'))";
    let mut statement = random.client.prepare(stuck).unwrap();
    let stuck: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(stuck.is_empty(), "seed {seed}: {stuck:?}");
}
