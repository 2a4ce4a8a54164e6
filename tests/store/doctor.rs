//! What a check of the store finds.

use asyncq::Kind;
use asyncq::domain::diagnosis::{ImpossibleJobs, LostReferences, StuckCalls};
use asyncq::domain::job::{JobId, State};
use asyncq::store::Store;

use crate::fixture::{call, enqueue, state, with_events};

/// Changes the store as no client may.
fn change(store: &Store, sql: &str) {
    let other = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    other.execute_batch(sql).unwrap();
}

/// Changes the schema as no client may.
fn change_schema(store: &Store, sql: &str) {
    rusqlite::Connection::open(store.location().as_os_str()).unwrap().execute_batch(sql).unwrap();
}

/// The indexes and triggers of the store, each with its kind, its name and its definition.
fn parts(store: &Store) -> Vec<(String, String, String)> {
    let other = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
    let sql = "SELECT type, name, sql FROM sqlite_schema
        WHERE type IN ('index', 'trigger') AND name LIKE 'asyncq%' AND sql IS NOT NULL";
    let mut found = other.prepare(sql).unwrap();
    let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

conformance! {
    fn a_healthy_store_has_no_findings(store: &mut Store) {
        with_events(store);
        store.enqueue(&call(1)).unwrap();
        assert_eq!(store.differences().unwrap(), Some(Vec::new()));
        store.check_pages().unwrap();
        assert_eq!(store.stuck().unwrap(), StuckCalls::default());
        assert_eq!(store.count_ended(10).unwrap(), 0);
        assert_eq!(store.lost_references().unwrap(), []);
        assert_eq!(store.impossible_jobs().unwrap(), ImpossibleJobs::default());
        let (now, seen) = store.clocks().unwrap();
        assert!(now >= seen);
    }

    fn each_index_and_trigger_is_missed_and_known(store: &mut Store) {
        with_events(store);
        for (kind, name, sql) in parts(store) {
            let mut found = |change: &str| {
                change_schema(store, change);
                let found = store.differences().unwrap().unwrap();
                let parts: Vec<_> = found.iter().map(|it| (it.kind, it.name, it.was_missing)).collect();
                assert_eq!(parts.len(), 1, "{change}: {parts:?}");
                assert_eq!((parts[0].0, parts[0].1), (&*kind, &*name));
                parts[0].2
            };
            assert!(found(&format!("DROP {kind} {name}")));
            let other = if kind == "index" {
                format!("CREATE INDEX {name} ON asyncq_service (concurrency)")
            } else {
                format!("CREATE TRIGGER {name} BEFORE DELETE ON asyncq_service BEGIN SELECT 1; END")
            };
            assert!(!found(&other));
            change_schema(store, &format!("DROP {kind} {name}; {sql}"));
            assert_eq!(store.differences().unwrap(), Some(Vec::new()), "{name}");
        }
    }

    fn rows_that_refer_to_nothing_are_counted(store: &mut Store) {
        with_events(store);
        let jobs = [enqueue(store, 1), enqueue(store, 2)];
        change(store, &format!(
            "PRAGMA foreign_keys = OFF; INSERT INTO asyncq_large VALUES (70, '[]', '{{}}'), (71, '[]', '{{}}');
            INSERT INTO asyncq_after (needs, job) VALUES ({}, 72);
            INSERT INTO asyncq_slot VALUES ('events', 7, 1)", jobs[0].0
        ));
        let lost = |table: &str, refers_to: &str, rows| {
            LostReferences { table: table.to_owned(), refers_to: refers_to.to_owned(), rows }
        };
        let expected = [
            lost("asyncq_large", "asyncq_job", 2),
            lost("asyncq_slot", "asyncq_processor", 1),
            lost("asyncq_after", "asyncq_job", 1),
        ];
        assert_eq!(store.lost_references().unwrap(), expected);
    }

    fn jobs_that_nobody_runs_or_ends_are_counted(store: &mut Store) {
        with_events(store);
        let jobs: Vec<i64> = (1..=7).map(|number| enqueue(store, number).0).collect();
        for (set, count) in [
            ("state = 'blocked'", 1),
            ("state = 'blocked', waits = 3", 2),
            ("state = 'blocked', waits = 2", 3),
            ("state = 'processing'", 4),
            ("state = 'error'", 5),
            ("finished_at = 7", 6),
        ] {
            change(store, &format!("UPDATE asyncq_job SET {set} WHERE id = {}", jobs[count - 1]));
            let found = store.impossible_jobs().unwrap();
            assert_eq!(found.contradictory, Some((count as u64, JobId(jobs[0]))), "{set}");
        }
        change(store, &format!("UPDATE asyncq_job SET service = 'gone' WHERE id = {}", jobs[6]));
        assert_eq!(store.impossible_jobs().unwrap().without_service, Some((1, "gone".to_owned())));
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
