//! Somebody sets the clock of the machine back.

use std::time::Duration;

use asyncq::domain::attempt::{Conflict, Outcome};
use asyncq::domain::job::State;
use asyncq::store::{Location, Store};
use rusqlite::config::DbConfig;

use crate::fixture::{claim, ends, enqueue, processor, run_cycle, service, sqlite, state, with_events};

const HOUR: i64 = 3_600_000;

/// Changes the store as a processor does, whose statements no trigger sees.
fn execute(store: &Store, sql: &str) {
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let database = rusqlite::Connection::open(path).unwrap();
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    database.execute_batch(sql).unwrap();
}

/// Makes a call that met a conflict, and waits an hour until it is tried again.
fn with_a_retry(store: &mut Store) -> (asyncq::domain::job::JobId, asyncq::domain::processor::ProcessorId) {
    with_events(store);
    let (id, processor) = (enqueue(store, 1), processor(store, 1));
    let mut end = ends(&claim(store, processor), &Outcome::Conflict(Conflict::default()));
    end.decision.pause = Some(Duration::from_secs(3600));
    assert_eq!(run_cycle(store, processor, &[&end], 0, 0).finished, [Some(State::Delayed)]);
    (id, processor)
}

#[test]
fn a_long_pause_stays_as_long_as_it_is() {
    sqlite(|store| {
        let (id, processor) = with_a_retry(store);
        let due = store.job(id).unwrap().times.run_at;
        assert!(!store.service_status(&service("events"), None).unwrap().ready);
        run_cycle(store, processor, &[], 0, 1);
        assert_eq!((state(store, id), store.job(id).unwrap().times.run_at), (State::Delayed, due));
    });
}

#[test]
fn a_retry_moves_back_with_the_clock_once() {
    sqlite(|store| {
        let (id, processor) = with_a_retry(store);
        let due = store.job(id).unwrap().times.run_at;
        // As if the clock had been two hours ahead until now, for the processor and for the retry.
        execute(
            store,
            &format!(
                "UPDATE asyncq_schema SET clock = 1000 * strftime('%s', 'now') + 2 * {HOUR};
                UPDATE asyncq_job SET run_at = run_at + 2 * {HOUR}, started_at = started_at + 2 * {HOUR}"
            ),
        );
        assert!(store.service_status(&service("events"), None).unwrap().ready);
        for _ in 0..2 {
            let after = run_cycle(store, processor, &[], 0, 1);
            let moved = store.job(id).unwrap().times.run_at;
            // To the second, as that is how the time was set above.
            assert!((moved.0 - due.0).abs() < 60_000, "{moved} and not {due}");
            assert_eq!((after.claims.len(), after.status.next_due), (0, Some(moved)));
        }
        assert!(!store.service_status(&service("events"), None).unwrap().ready);
    });
}

#[test]
fn a_call_for_later_stays_where_it_is_when_the_clock_is_set_back() {
    sqlite(|store| {
        with_events(store);
        let (id, processor) = (enqueue(store, 1), processor(store, 1));
        let later = "UPDATE asyncq_job SET state = 'delayed', run_at = run_at + 36000000;
            UPDATE asyncq_schema SET clock = 1000 * strftime('%s', 'now') + 7200000";
        execute(store, later);
        let due = store.job(id).unwrap().times.run_at;
        run_cycle(store, processor, &[], 0, 1);
        assert_eq!(store.job(id).unwrap().times.run_at, due);
    });
}
