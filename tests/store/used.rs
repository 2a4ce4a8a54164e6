//! What a store notes about what it uses, so that looks leave out the rest.

use std::time::Duration;

use asyncq::domain::call::Key;
use asyncq::domain::job::JobId;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, Expiry, IfTaken, KeyUntil, NewJob};
use asyncq::domain::retention::RetentionChange;
use asyncq::domain::schedule::{ScheduleDefinition, ScheduleName};
use asyncq::domain::service::ServiceChange;
use asyncq::domain::tick::{Lateness, Missed};
use asyncq::domain::timetable::{Rule, Timetable};
use asyncq::store::{Location, Store};
use rusqlite::Connection;

use crate::fixture::{call, enqueue, processor, run_cycle, service, with_events};

const EXPIRY: i64 = 1;
const SCHEDULES: i64 = 2;
const NEEDS: i64 = 4;
const RETENTION: i64 = 8;

fn connection(store: &Store) -> Connection {
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    Connection::open(path).unwrap()
}

fn execute(store: &Store, sql: &str) {
    connection(store).execute_batch(sql).unwrap();
}

fn used(store: &Store) -> i64 {
    connection(store).query_row("SELECT used FROM asyncq_schema", [], |row| row.get(0)).unwrap()
}

fn expires() -> CallOptions {
    CallOptions { expires: Some(Expiry::In(Duration::from_secs(3600))), ..CallOptions::default() }
}

fn needs() -> CallOptions {
    let mut needs = Needs::default();
    needs.add([JobId(1)], Need::Completed).unwrap();
    CallOptions { needs, ..CallOptions::default() }
}

fn add(store: &mut Store, options: CallOptions) {
    store.enqueue(&NewJob { options, ..call(2) }).unwrap();
}

fn keyed(if_taken: IfTaken, expires: Option<Expiry>) -> NewJob {
    let options = CallOptions { key_until: Some(KeyUntil::Ended), if_taken, expires, ..CallOptions::default() };
    NewJob { key: Some(Key::parse("k").unwrap()), options, ..call(3) }
}

fn schedule(store: &mut Store, expires: Option<Duration>) {
    let is = ScheduleDefinition {
        call: call(7).call,
        timetable: Timetable::new(Rule::every(Duration::from_secs(3600)).unwrap(), None, None).unwrap(),
        lateness: Lateness::new(Missed::Once, None, None).unwrap(),
        priority: asyncq::domain::new_job::Priority::default(),
        lane: None,
        expires,
        meta: None,
        description: None,
    };
    store.add_schedule(&ScheduleName::parse("hourly").unwrap(), &is).unwrap();
}

/// What somebody does, and what it notes.
type Case = (i64, fn(&mut Store));

const CASES: &[Case] = &[
    (0, |store| {
        enqueue(store, 2);
        let processor = processor(store, 1);
        run_cycle(store, processor, &[], 0, 1);
        store.enqueue(&NewJob { due: Due::In(Duration::from_secs(60)), ..keyed(IfTaken::Keep, None) }).unwrap();
        store.enqueue(&keyed(IfTaken::Postpone, None)).unwrap();
        execute(store, "INSERT INTO asyncq_job (service, function, lane, site) VALUES ('events', 'compute', 'x', '')");
    }),
    (EXPIRY, |store| add(store, expires())),
    (EXPIRY, |store| {
        store.enqueue(&keyed(IfTaken::Keep, None)).unwrap();
        store.enqueue(&keyed(IfTaken::Postpone, expires().expires)).unwrap();
    }),
    (EXPIRY | SCHEDULES, |store| {
        schedule(store, Some(Duration::from_secs(60)));
        assert_eq!(used(store), SCHEDULES);
        store.run_schedule(&ScheduleName::parse("hourly").unwrap()).unwrap();
    }),
    (EXPIRY | SCHEDULES, |store| {
        schedule(store, Some(Duration::from_secs(60)));
        execute(store, "UPDATE asyncq_schedule SET next_tick = next_tick - 3600000");
        let processor = processor(store, 1);
        assert_eq!(run_cycle(store, processor, &[], 0, 2).claims.len(), 2);
    }),
    (SCHEDULES, |store| schedule(store, None)),
    (NEEDS, |store| add(store, needs())),
    (NEEDS, |store| {
        store.enqueue_after_all(&call(9), &[JobId(1)]).unwrap();
    }),
    (NEEDS, |store| {
        store.enqueue_all_then(&[call(8)], &call(9)).unwrap();
    }),
    // Where an application has a trigger, rows are written as clients write them.
    (EXPIRY | NEEDS, |store| {
        execute(
            store,
            "CREATE TABLE mine (id INTEGER); CREATE TRIGGER mine AFTER INSERT ON asyncq_job BEGIN INSERT INTO mine VALUES (NEW.id); END",
        );
        add(store, CallOptions { expires: expires().expires, ..needs() });
    }),
    (EXPIRY, |store| {
        execute(
            store,
            "INSERT INTO asyncq_job (service, function, expires_at) VALUES ('events', 'compute', 4102444800000)",
        );
    }),
    (EXPIRY, |store| execute(store, "UPDATE asyncq_job SET expires_at = 4102444800000")),
    (NEEDS, |store| {
        execute(store, "INSERT INTO asyncq_job (service, function, after) VALUES ('events', 'compute', '[1]')");
    }),
    (SCHEDULES, |store| {
        execute(
            store,
            "INSERT INTO asyncq_schedule (name, service, function, every, next_tick, created_at)
                VALUES ('hourly', 'events', 'compute', 3600000, 4102444800000, 100000000001)",
        );
    }),
    // Without its triggers, a store does not know.
    (EXPIRY | SCHEDULES | NEEDS | RETENTION, |store| {
        execute(store, "DROP TRIGGER asyncq_job_inserted");
        assert_eq!(store.mend().unwrap().len(), 1);
    }),
    (RETENTION, |store| {
        let retention = RetentionChange { ended: Some(Some(Duration::from_secs(1))), ..RetentionChange::default() };
        store.set_service(&service("events"), &ServiceChange { retention, ..ServiceChange::default() }).unwrap();
    }),
    (RETENTION, |store| {
        let retention = RetentionChange { errors: Some(Some(Duration::from_secs(1))), ..RetentionChange::default() };
        store.add_service(&service("other"), &ServiceChange { retention, ..ServiceChange::default() }).unwrap();
    }),
];

#[test]
fn a_store_notes_what_it_uses_with_the_first_row_of_it() {
    for (case, (noted, act)) in CASES.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::File(folder.path().join("queue.db"));
        let (mut store, _) = Store::create(&location, crate::fixture::PATIENCE).unwrap();
        with_events(&mut store);
        enqueue(&mut store, 1);
        assert_eq!(used(&store), 0);
        act(&mut store);
        assert_eq!(used(&store), *noted, "case {case}");
    }
}
