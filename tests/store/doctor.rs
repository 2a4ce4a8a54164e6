//! What a check of the store finds.

use asyncq::Kind;
use asyncq::domain::diagnosis::StuckCalls;
use asyncq::domain::job::State;
use asyncq::store::Store;

use crate::fixture::{call, enqueue, state, with_events};

/// Changes the store as no client may.
fn change(store: &Store, sql: &str) {
    let other = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    other.execute_batch(sql).unwrap();
}

conformance! {
    fn a_healthy_store_has_no_findings(store: &mut Store) {
        with_events(store);
        store.enqueue(&call(1)).unwrap();
        assert_eq!(store.differences().unwrap(), Some(Vec::new()));
        store.check_pages().unwrap();
        assert_eq!(store.stuck().unwrap(), StuckCalls::default());
        assert_eq!(store.count_ended(10).unwrap(), 0);
        let (now, seen) = store.clocks().unwrap();
        assert!(now >= seen);
    }

    fn differences_are_named_and_nothing_is_changed(store: &mut Store) {
        with_events(store);
        change(store, "DROP TRIGGER asyncq_job_insert");
        for _ in 0..2 {
            let found = store.differences().unwrap().unwrap();
            assert_eq!((found.len(), found[0].name, found[0].was_missing), (1, "asyncq_job_insert", true));
        }
        change(store, "UPDATE asyncq_schema SET version = 1");
        assert_eq!(store.differences().unwrap(), None);
        change(store, "UPDATE asyncq_schema SET version = 1000");
        assert_eq!(store.differences().unwrap_err().kind(), Kind::Busy);
    }

    fn calls_that_wait_without_a_reason_are_found_and_let_go(store: &mut Store) {
        with_events(store);
        let jobs: Vec<_> = (1..=5).map(|number| enqueue(store, number)).collect();
        let [unlinked, lane, needed, needs] = [jobs[0].0, jobs[1].0, jobs[2].0, jobs[3].0];
        change(store, &format!(
            "UPDATE asyncq_job SET state = 'blocked', waits = 1 WHERE id IN ({unlinked}, {needs});
            UPDATE asyncq_job SET state = 'blocked', waits = 2, lane = 'a' WHERE id = {lane};
            UPDATE asyncq_job SET state = 'completed', finished_at = 1 WHERE id = {needed};
            INSERT INTO asyncq_after (needs, job) VALUES ({needed}, {needs});
            UPDATE asyncq_schema SET used = 7"
        ));
        let expected = StuckCalls { unlinked: 1, untold: 1, lanes: 1 };
        assert_eq!(store.stuck().unwrap(), expected);
        assert_eq!(store.free_stuck().unwrap(), expected);
        assert_eq!(store.stuck().unwrap(), StuckCalls::default());
        for job in [jobs[0], jobs[1], jobs[3], jobs[4]] {
            assert_eq!(state(store, job), State::Queued);
        }
        store.check().unwrap();
    }
}
