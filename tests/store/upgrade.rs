//! Stores that an older asyncq has made.

use std::time::Duration;

use asyncq::domain::attempt::{Ending, Outcome};
use asyncq::domain::job::{JobId, State, Token};
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, NewJob};
use asyncq::domain::processor::ProcessorId;
use asyncq::store::{Location, Store};
use rusqlite::Connection;

use crate::fixture::{PATIENCE, call, ends, run_cycle, state, with_events};

/// The older schemas, and what stood in a store of version 1.
const SCHEMA_1: &str = include_str!("fixtures/schema-1.sql");
const SCHEMA_2: &str = include_str!("fixtures/schema-2.sql");
const SCHEMA_3: &str = include_str!("fixtures/schema-3.sql");
const SCHEMA_4: &str = include_str!("fixtures/schema-4.sql");
const SCHEMA_5: &str = include_str!("fixtures/schema-5.sql");
const ROWS_1: &str = "
    INSERT INTO asyncq_service (name, concurrency, created_at) VALUES ('events', 9, 100000000001);
    INSERT INTO asyncq_function (service, name, command, site, created_at)
        VALUES ('events', 'compute', '[\"/bin/program\"]', '/the/site', 100000000002);
    INSERT INTO asyncq_job (service, function, key) VALUES ('events', 'compute', 'the key');
    INSERT INTO asyncq_job (service, function, args) VALUES ('events', 'compute', json_array(hex(zeroblob(3000))));
    INSERT INTO asyncq_job (service, function) VALUES ('events', 'compute'), ('events', 'compute'),
        ('events', 'compute'), ('events', 'compute'), ('events', 'compute'), ('events', 'compute');
    INSERT INTO asyncq_processor (folder, host, boot, pid, pid_start, started_at) VALUES ('old', 'h', 'b', 1, 2, 3);
    INSERT INTO asyncq_slot (service, processor, taken) VALUES ('events', 1, 5);
    UPDATE asyncq_job SET state = 'processing', attempt = 3, processor = 1, token = 'secret ' || id,
        started_at = 100000000003 WHERE id BETWEEN 3 AND 7;
    INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending) VALUES
        (3, 1, 1, 100000000001, 100000000002, 'conflict'), (3, 2, 1, 100000000001, 100000000002, 'interrupted');
    INSERT INTO asyncq_progress (job, attempt, processor, told) VALUES (3, 3, 1, 'half of it');
    UPDATE asyncq_job SET state = 'delayed', attempt = 1, run_at = 4102444800000 WHERE id = 8;";

/// What an older processor writes to end its work, in its own words: job, attempt, processor and a moment.
const OLD_COMPLETE: &str =
    "UPDATE asyncq_job SET state = 'completed', started_at = ?4, finished_at = ?4, result = NULL,
    token = NULL, cancelling = 0 WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing'";
const OLD_AGAIN: &str = "UPDATE asyncq_job SET state = 'delayed', started_at = ?4, run_at = ?4,
    conflicts = conflicts + 1, token = NULL
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing' AND cancelling = 0";
const OLD_GIVE_BACK: &str = "UPDATE asyncq_job SET state = CASE WHEN cancelling = 1 THEN 'cancelled' ELSE 'queued' END,
    finished_at = CASE WHEN cancelling = 1 THEN ?4 END, started_at = NULL, token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing'";
const OLD_ATTEMPT: &str = "INSERT INTO asyncq_attempt
    (job, number, processor, started_at, finished_at, ending, error, dropped, gap, pieces, log)
    VALUES (?1, ?2, ?3, ?4, ?4, 'conflict', NULL, 0, 0, NULL, NULL) ON CONFLICT (job, number) DO NOTHING";

struct Upgraded {
    _folder: tempfile::TempDir,
    store: Store,
    /// A client of plain SQL, or an older processor.
    other: Connection,
}

/// A store of version 1, after the first command of this version.
fn upgraded(more: &str) -> Upgraded {
    upgraded_from(SCHEMA_1, &format!("{ROWS_1} {more}"))
}

fn upgraded_from(schema: &str, rows: &str) -> Upgraded {
    let folder = tempfile::tempdir().unwrap();
    let other = Connection::open(folder.path().join("queue.db")).unwrap();
    other.execute_batch(&format!("PRAGMA journal_mode=WAL; {schema} {rows}")).unwrap();
    let mut store = Store::open(&Location::parse("queue.db", folder.path()).unwrap(), PATIENCE).unwrap();
    store.services().unwrap();
    Upgraded { _folder: folder, store, other }
}

/// Every part of the schema, by name, but for the application's.
fn parts(database: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE name LIKE 'asyncq%' ORDER BY name";
    let mut statement = database.prepare(sql).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn one<T: rusqlite::types::FromSql>(database: &Connection, sql: &str) -> T {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn an_upgraded_store_has_the_schema_of_a_new_one() {
    let Upgraded { other, _folder, .. } = upgraded("");
    let new = Connection::open_in_memory().unwrap();
    new.execute_batch(include_str!("../../schema.sql")).unwrap();
    let mut expected = parts(&new);
    // The index of an inline UNIQUE cannot be dropped.
    expected.retain(|(name, _)| name != "asyncq_job_key");
    let job = expected.iter_mut().find(|(name, _)| name == "asyncq_job").unwrap();
    job.1 = job.1.replacen("key         TEXT,       ", "key         TEXT UNIQUE,", 1);
    assert_eq!(parts(&other), expected);
    assert_eq!(
        one::<i64>(&other, "SELECT version FROM asyncq_schema"),
        one::<i64>(&new, "SELECT version FROM asyncq_schema")
    );
    for check in
        ["PRAGMA integrity_check", "SELECT coalesce(group_concat(\"table\"), 'ok') FROM pragma_foreign_key_check"]
    {
        assert_eq!(one::<String>(&other, check), "ok");
    }
    // Who has it open already is told too, and so is the one that upgrades it.
    assert_eq!(one::<i64>(&other, "SELECT sum(claim) FROM asyncq_job"), 0);
    let refused = other.execute("INSERT INTO asyncq_slot VALUES ('events', 1, 0)", []).unwrap_err().to_string();
    assert!(refused.contains("asyncq_slot_taken"), "{refused}");
}

/// The rows of a store of version 2. A client has written one of its functions, which cannot be read.
const ROWS_2: &str = "
    INSERT INTO asyncq_service (name, concurrency, created_at) VALUES ('events', 9, 100000000001);
    INSERT INTO asyncq_function (service, name, command, site, created_at) VALUES
        ('events', 'compute', '[\"/bin/program\"]', '/the/site', 100000000002),
        ('events', 'unreadable', '{}', '/the/site', 100000000003);
    INSERT INTO asyncq_job (service, function, principal) VALUES ('events', 'compute', CAST(x'ff' AS TEXT));";

#[test]
fn a_store_of_version_2_gets_a_default_and_triggers_and_keeps_its_rows() {
    let rows = "SELECT group_concat(it) FROM (SELECT name || concurrency || created_at it FROM asyncq_service
        UNION ALL SELECT name || command || created_at || generation FROM asyncq_function
        UNION ALL SELECT id || state || hex(principal) FROM asyncq_job)";
    let more = "ALTER TABLE asyncq_service ADD COLUMN mine TEXT DEFAULT 'x';
        ALTER TABLE asyncq_function ADD COLUMN created_at_home TEXT; CREATE INDEX own ON asyncq_function (site);";
    for added in ["", more] {
        let old = Connection::open_in_memory().unwrap();
        old.execute_batch(&format!("{SCHEMA_2} {ROWS_2} {added}")).unwrap();
        let Upgraded { mut store, other, _folder } = upgraded_from(SCHEMA_2, &format!("{ROWS_2} {added}"));
        assert_eq!(one::<String>(&other, rows), one::<String>(&old, rows));
        if added.is_empty() {
            let new = Connection::open_in_memory().unwrap();
            new.execute_batch(include_str!("../../schema.sql")).unwrap();
            assert_eq!(parts(&other), parts(&new));
        }
        assert_eq!(store.mend().unwrap(), []);
        store.check().unwrap();
        let now = "abs(created_at - 1000 * strftime('%s', 'now')) < 60000";
        let service = "INSERT INTO asyncq_service (name) VALUES ('news') RETURNING ";
        assert!(one::<bool>(&other, &format!("{service} {now}")));
        let function =
            "INSERT INTO asyncq_function (service, name, command, site) VALUES ('news', 'f', '[\"./f\"]', '/')
            RETURNING ";
        assert!(one::<bool>(&other, &format!("{function} {now}")));
        let bad = "INSERT INTO asyncq_function (service, name, command, site) VALUES ('news', 'g', '{}', '/')";
        assert!(other.execute_batch(bad).unwrap_err().to_string().starts_with("asyncq: command must be"));
        for what in ["INSERT INTO asyncq_service (name) VALUES ('A')", "DELETE FROM asyncq_service"] {
            assert!(other.execute_batch(what).unwrap_err().to_string().starts_with("asyncq: "), "{what}");
        }
    }
}

/// The rows of a store of version 3, and a processor at work in it.
const ROWS_3: &str = "
    INSERT INTO asyncq_service (name, concurrency) VALUES ('events', 9);
    INSERT INTO asyncq_function (service, name, command, site) VALUES ('events', 'compute', '[\"/bin/program\"]', '/');
    INSERT INTO asyncq_processor (id, folder, host, boot, pid, pid_start, started_at) VALUES (7, 'old', 'h', 'b', 1, 2, 3);
    INSERT INTO asyncq_job (service, function) VALUES ('events', 'compute'), ('events', 'compute');";

#[test]
fn a_store_of_version_3_gets_lanes_schedules_and_policies_and_keeps_its_rows() {
    let rows = "SELECT group_concat(it) FROM (SELECT name || concurrency || lane_width it FROM asyncq_service
        UNION ALL SELECT name || command || coalesce(retry, 'no') FROM asyncq_function
        UNION ALL SELECT id || state || waits FROM asyncq_job UNION ALL SELECT older FROM asyncq_schema)";
    for added in ["", "ALTER TABLE asyncq_job ADD COLUMN mine TEXT; ALTER TABLE asyncq_attempt ADD COLUMN mine TEXT;"] {
        let Upgraded { mut store, other, _folder } = upgraded_from(SCHEMA_3, &format!("{ROWS_3} {added}"));
        let kept = "events91,compute[\"/bin/program\"]no,1queued0,2queued0,7";
        assert_eq!(one::<String>(&other, rows), kept);
        if added.is_empty() {
            let new = Connection::open_in_memory().unwrap();
            new.execute_batch(include_str!("../../schema.sql")).unwrap();
            assert_eq!(parts(&other), parts(&new));
        }
        assert_eq!(store.mend().unwrap(), []);
        store.check().unwrap();
        // The state and the ending that are new fit also into tables with columns of the application.
        other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        let new = "UPDATE asyncq_job SET state = 'blocked', waits = 1 WHERE id = 2;
            INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending)
            VALUES (2, 1, 7, 1, 2, 'snoozed')";
        other.execute_batch(new).unwrap();
        assert_eq!(state(&mut store, JobId(2)), State::Blocked);
        assert!(other.execute("UPDATE asyncq_job SET state = 'unknown'", []).is_err());
    }
}

#[test]
fn a_store_of_version_4_gets_metadata_of_schedules_and_keeps_its_rows() {
    let all = "
        INSERT INTO asyncq_job (service, function, after) VALUES ('events', 'compute', '[1]');
        INSERT INTO asyncq_job (service, function, run_at) VALUES ('events', 'compute', 4102444800000);
        INSERT INTO asyncq_schedule (name, service, function, every, next_tick, created_at)
            VALUES ('hourly', 'events', 'compute', 3600000, 4102444800000, 100000000001);";
    let rows = "SELECT group_concat(it) FROM (SELECT name || merge it FROM asyncq_function
        UNION ALL SELECT id || state || waits FROM asyncq_job UNION ALL SELECT needs || job FROM asyncq_after
        UNION ALL SELECT name || next_tick || coalesce(meta, 'no') FROM asyncq_schedule)";
    let kept = [
        ("", "compute0,1queued0,2queued0"),
        (all, "compute0,1queued0,2queued0,3blocked1,4delayed0,13,hourly4102444800000no"),
    ];
    // Nobody knows whether ended calls would expire; of the rest it notes what is there.
    for ((rows_4, kept), used) in kept.into_iter().zip([1, 7]) {
        for mine in ["", "ALTER TABLE asyncq_schema ADD COLUMN mine INTEGER NOT NULL DEFAULT 0;"] {
            let Upgraded { mut store, other, _folder } = upgraded_from(SCHEMA_4, &format!("{ROWS_3} {rows_4} {mine}"));
            assert_eq!(one::<String>(&other, rows), kept);
            if mine.is_empty() {
                let new = Connection::open_in_memory().unwrap();
                new.execute_batch(include_str!("../../schema.sql")).unwrap();
                assert_eq!(parts(&other), parts(&new));
            }
            assert_eq!(one::<i64>(&other, "SELECT used FROM asyncq_schema"), used);
            assert_eq!(store.mend().unwrap(), []);
            store.check().unwrap();
            assert!(other.execute("UPDATE asyncq_function SET merge = 2", []).is_err());
        }
    }
    let Upgraded { other, _folder, .. } = upgraded_from(SCHEMA_3, ROWS_3);
    assert_eq!(one::<i64>(&other, "SELECT used FROM asyncq_schema"), 0);
}

#[test]
fn a_store_of_version_5_pauses_nothing_and_keeps_all_after_its_upgrade() {
    let rows = "
        INSERT INTO asyncq_service (name, concurrency) VALUES ('mails', 2);
        INSERT INTO asyncq_function (service, name, command, site) VALUES ('mails', 'send', '[\"/bin/true\"]', '/');
        INSERT INTO asyncq_job (service, function, args) VALUES ('mails', 'send', '[1]');";
    let found =
        "SELECT (SELECT name || concurrency || coalesce(paused_why, keep, keep_errors, 'no') FROM asyncq_service)
        || (SELECT name || local || coalesce(takes, args_min, args_max, secret, env_file, 'no') FROM asyncq_function)
        || (SELECT id || state || args FROM asyncq_job)
        || (SELECT coalesce(paused, 'no') || pruned_at || pruned_to FROM asyncq_schema)";
    for mine in ["", "ALTER TABLE asyncq_service ADD COLUMN mine INTEGER NOT NULL DEFAULT 0;"] {
        let Upgraded { mut store, other, _folder } = upgraded_from(SCHEMA_5, &format!("{rows} {mine}"));
        assert_eq!(one::<String>(&other, found), "mails2nosend0no1queued[1]no00");
        if mine.is_empty() {
            let new = Connection::open_in_memory().unwrap();
            new.execute_batch(include_str!("../../schema.sql")).unwrap();
            assert_eq!(parts(&other), parts(&new));
        }
        assert_eq!(store.mend().unwrap(), []);
        store.check().unwrap();
        for wrong in
            ["asyncq_function SET local = 2", "asyncq_service SET keep = 0", "asyncq_service SET keep_errors = -1"]
        {
            assert!(other.execute(&format!("UPDATE {wrong}"), []).is_err(), "{wrong}");
        }
    }
}

#[test]
fn an_upgraded_store_is_whole_and_so_is_one_with_columns_of_the_application() {
    for more in ["", "ALTER TABLE asyncq_job ADD COLUMN mine TEXT;"] {
        let Upgraded { mut store, other, _folder } = upgraded(more);
        assert_eq!(store.mend().unwrap(), []);
        other.execute_batch("DROP TRIGGER asyncq_job_inserted; ALTER TABLE asyncq_job ADD COLUMN more TEXT").unwrap();
        let mended = store.mend().unwrap();
        assert_eq!(
            mended.iter().map(|it| (it.name, it.was_missing)).collect::<Vec<_>>(),
            [("asyncq_job_inserted", true)]
        );
        assert_eq!(store.mend().unwrap(), []);
        store.check().unwrap();
    }
}

#[test]
fn what_stood_in_an_older_store_stays() {
    let Upgraded { mut store, other, _folder } = upgraded("");
    let job = store.job(JobId(3)).unwrap();
    assert_eq!((job.state, job.counts.attempt, job.progress.as_deref()), (State::Processing, 3, Some("half of it")));
    assert_eq!(store.attempts(&job).unwrap().len(), 3);
    assert_eq!(store.job(JobId(1)).unwrap().options.key.as_deref(), Some("the key"));
    assert!(store.job(JobId(2)).unwrap().call.args.len() > 6000);
    let repeat = "INSERT INTO asyncq_job (service, function, key) VALUES ('events', 'compute', 'the key')
        ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id";
    assert_eq!(one::<i64>(&other, repeat), 1);
    // It waits to be tried again.
    assert!(store.service_status(&crate::fixture::service("events"), None).unwrap().next_due.is_some());
}

#[test]
fn columns_that_an_application_has_added_stay_its_own() {
    let Upgraded { mut store, other, _folder } =
        upgraded("ALTER TABLE asyncq_job ADD COLUMN mine TEXT; UPDATE asyncq_job SET mine = 'note ' || id;");
    assert_eq!(one::<String>(&other, "SELECT mine || claim FROM asyncq_job WHERE id = 4"), "note 40");
    assert_eq!(store.job(JobId(4)).unwrap().counts.attempt, 3);
    assert_eq!(one::<String>(&other, "PRAGMA integrity_check"), "ok");
}

#[test]
fn an_older_processor_ends_its_work_after_the_upgrade() {
    let Upgraded { mut store, other, _folder } = upgraded("");
    // Processors work without triggers.
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    let moment = 100_000_000_009_i64;
    for (sql, job) in [(OLD_COMPLETE, 3), (OLD_AGAIN, 4), (OLD_ATTEMPT, 4), (OLD_GIVE_BACK, 5)] {
        assert_eq!(other.execute(sql, (job, 3, 1, moment)).unwrap(), 1, "{sql}");
    }
    let now = |store: &mut Store, id| state(store, JobId(id));
    assert_eq!([3, 4, 5].map(|id| now(&mut store, id)), [State::Completed, State::Delayed, State::Queued]);
    // What it dies with goes back: the one that it had begun, and the one that it had not.
    store.rescue(ProcessorId(1), Some(&[JobId(6)]), &[]).unwrap();
    assert_eq!([6, 7].map(|id| now(&mut store, id)), [State::Queued, State::Queued]);
    assert_eq!([6, 7].map(|id| store.job(JobId(id)).unwrap().counts.attempt), [3, 2]);
    let six = store.job(JobId(6)).unwrap();
    assert_eq!(store.attempts(&six).unwrap().last().unwrap().ending, Some(Ending::Crash));
}

/// A processor of version 3 runs these calls when the store is upgraded.
const OLD_AT_WORK: &str = "UPDATE asyncq_schema SET version = -version;
    UPDATE asyncq_job SET state = 'processing', attempt = 1, claim = 1, processor = 7,
    token = 'secret ' || id, started_at = 100000000003;
    INSERT INTO asyncq_slot (service, processor, taken) VALUES ('events', 7, 9);
    UPDATE asyncq_schema SET version = -version;";
const OLD_FAIL: &str = "UPDATE asyncq_job SET state = 'error', started_at = ?4, finished_at = ?4,
    error = '{\"kind\":\"exit\",\"message\":\"exit code 3\",\"exit_code\":3,\"signal\":null}', token = NULL, cancelling = 0
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND state = 'processing'";

/// How a call comes to need a job.
#[derive(Debug, Clone, Copy)]
enum Way {
    Enqueue,
    Insert,
    Then,
}

/// A new call that needs a job which has not ended.
fn dependent(store: &mut Store, other: &Connection, way: Way, job: i64) -> JobId {
    let dependent = match way {
        Way::Enqueue => {
            let mut needs = Needs::default();
            needs.add([JobId(job)], Need::Completed).unwrap();
            let new = NewJob { options: CallOptions { needs, ..CallOptions::default() }, ..call(job) };
            store.enqueue(&new).unwrap().id()
        }
        Way::Insert => {
            let columns = "(service, function, after) VALUES ('events', 'compute'";
            JobId(one(other, &format!("INSERT INTO asyncq_job {columns}, '[{job}]') RETURNING id")))
        }
        Way::Then => store.enqueue_after_all(&call(job), &[JobId(job)]).unwrap().id(),
    };
    assert_eq!(state(store, dependent), State::Blocked, "{way:?} {job}");
    dependent
}

/// An older processor knows nothing of calls that need what it runs, and writes without triggers.
#[test]
fn calls_that_need_what_an_older_processor_runs_are_told_of_its_end() {
    for way in [Way::Enqueue, Way::Insert, Way::Then] {
        told_of_ends(way);
    }
}

fn told_of_ends(way: Way) {
    let jobs = "INSERT INTO asyncq_job (service, function) VALUES ('events', 'compute'), ('events', 'compute'),
        ('events', 'compute'), ('events', 'compute');";
    let Upgraded { mut store, other, _folder } = upgraded_from(SCHEMA_3, &format!("{ROWS_3} {jobs} {OLD_AT_WORK}"));
    let dependents = [1, 2, 3, 4, 5, 6].map(|job| dependent(&mut store, &other, way, job));
    let new = crate::fixture::processor(&mut store, 1);
    let states = |store: &mut Store| dependents.map(|id| state(store, id));
    // As long as the older one runs them, everybody waits.
    run_cycle(&mut store, new, &[], 0, 0);
    assert_eq!(states(&mut store), [State::Blocked; 6], "{way:?}");

    other.execute("UPDATE asyncq_job SET state = 'completed' WHERE id = 6", []).unwrap();
    other.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    for (sql, job) in [(OLD_COMPLETE, 1), (OLD_FAIL, 2), (OLD_AGAIN, 3), (OLD_GIVE_BACK, 4)] {
        assert_eq!(other.execute(sql, (job, 1, 7, 100_000_000_009_i64)).unwrap(), 1, "{sql}");
    }
    // The next transaction of any processor tells them.
    assert!(store.service_status(&crate::fixture::service("events"), None).unwrap().ready, "{way:?}");
    run_cycle(&mut store, new, &[], 0, 0);
    let [completed, failed, again, given_back, still_runs, completed_itself] = states(&mut store);
    assert_eq!([completed, completed_itself, failed], [State::Queued, State::Queued, State::Cancelled], "{way:?}");
    assert_eq!([again, given_back, still_runs], [State::Blocked; 3], "{way:?}");
    assert_eq!(store.retry(JobId(2)).unwrap(), 1);
    store.rescue(ProcessorId(7), None, &[]).unwrap();
    assert_eq!(states(&mut store)[1..5], [State::Blocked; 4], "{way:?}");

    // What the older one left is run like any other call, and before what needs it.
    let (mut order, mut ended) = (Vec::new(), Vec::new());
    loop {
        let claims = run_cycle(&mut store, new, &ended.iter().collect::<Vec<_>>(), 0, 9).claims;
        order.extend(claims.iter().map(|claim| claim.fence.job));
        ended = claims.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
        if ended.is_empty() {
            break;
        }
    }
    let at = |job| order.iter().position(|it| *it == job).unwrap();
    assert!((2..=5).all(|job| at(JobId(job)) < at(dependents[usize::try_from(job).unwrap() - 1])), "{way:?} {order:?}");
    assert_eq!(order.len(), 4 + 6, "each once: {order:?}");
    let left = "SELECT (SELECT count(*) FROM asyncq_after) + (SELECT count(*) FROM asyncq_settle)
        + (SELECT count(*) FROM asyncq_job WHERE state <> 'completed')";
    assert_eq!(one::<i64>(&other, left), 0, "{way:?}");
}

#[test]
fn what_an_older_processor_noted_is_recorded_for_its_own_attempt_alone() {
    let Upgraded { mut store, _folder, .. } = upgraded("");
    let fence = |attempt| asyncq::domain::job::Fence {
        job: JobId(3),
        attempt,
        claim: 0,
        processor: ProcessorId(1),
        tied: false,
    };
    let before = asyncq::domain::retry::AttemptCounts::default();
    let decision = asyncq::domain::retry_policy::RetryPolicy::default().decide(&Outcome::Completed, before, 0.5);
    let end = |attempt| asyncq::domain::job::Finish {
        took: Duration::from_millis(1),
        ..asyncq::domain::job::Finish::new(fence(attempt), decision.clone())
    };
    assert_eq!(store.finish(&[&end(2)]).unwrap(), [None]);
    assert_eq!(store.finish(&[&end(3)]).unwrap(), [Some(State::Completed)]);
}

#[test]
fn a_claim_that_goes_back_before_it_began_is_no_attempt() {
    crate::fixture::sqlite(|store| {
        with_events(store);
        let id = crate::fixture::enqueue(store, 1);
        let processor = crate::fixture::processor(store, 1);
        let late = crate::fixture::claim(store, processor);
        let given = crate::fixture::give_back(store, processor, &late);
        assert_eq!((late.fence.attempt, given.claims[0].fence.attempt), (1, 1));
        // The claim tells them apart.
        let second = given.claims.into_iter().next().unwrap();
        assert_ne!(late.fence, second.fence);
        assert_eq!(store.finish(&[&ends(&late, &Outcome::Completed)]).unwrap(), [None]);
        let again = run_cycle(store, processor, &[&ends(&second, &Outcome::Interrupted)], 0, 1);
        assert_eq!(again.claims[0].fence.attempt, 2, "it began");
        // A dead one had claimed it, and had not begun.
        store.rescue(processor, Some(&[]), &[]).unwrap();
        let other = crate::fixture::processor(store, 2);
        let third = crate::fixture::claim(store, other);
        assert_eq!((third.fence.attempt, third.fence.claim), (2, 4));
        store.unregister(other).unwrap();
        assert_eq!(store.job(id).unwrap().counts.attempt, 1);
        let job = store.job(id).unwrap();
        let told = store.attempts(&job).unwrap();
        assert_eq!(told.iter().map(|it| it.number).collect::<Vec<_>>(), [1]);
    });
}

/// What an older schema let clients write.
#[test]
fn what_belongs_to_no_processor_is_found_and_put_back() {
    let lost = "UPDATE asyncq_job SET state = 'processing', processor";
    let Upgraded { mut store, _folder, other } = upgraded(&format!(
        "{lost} = NULL WHERE id = 1; {lost} = 1, cancelling = 1 WHERE id = 2;
         {lost} = 99, token = 'theirs', immediate = 1, parent = 1 WHERE id = 8;"
    ));
    assert_eq!(store.tokenless().unwrap(), [JobId(1), JobId(2)]);
    assert_eq!(store.orphaned().unwrap(), [(JobId(8), Token::from_text("theirs"))]);
    // Also those that are a living processor's stay, whoever asks for them.
    let back = store.put_back_unowned(&[1, 2, 3].map(JobId)).unwrap();
    assert_eq!(back, [(JobId(1), State::Queued), (JobId(2), State::Cancelled)]);
    assert_eq!(state(&mut store, JobId(3)), State::Processing);
    // It was made inside the first one.
    assert_eq!(state(&mut store, JobId(8)), State::Error);
    assert!(store.tokenless().unwrap().is_empty() && store.orphaned().unwrap().is_empty());
    assert_eq!(one::<i64>(&other, "SELECT count(*) FROM asyncq_job WHERE token IS NULL AND cancelling = 0"), 3);
}

#[test]
fn a_number_that_only_a_client_can_have_set_is_found() {
    let Upgraded { mut store, _folder, .. } = upgraded("");
    store.check_numbers().unwrap();
    let insert = "INSERT INTO asyncq_job (id, service, function) VALUES (9223372036854775807, 'events', 'compute');
        DELETE FROM asyncq_job WHERE id = 9223372036854775807;";
    let Upgraded { mut store, _folder, .. } = upgraded(insert);
    assert_eq!(store.check_numbers().unwrap_err().kind(), asyncq::Kind::Invalid);
    let refused = store.enqueue(&crate::fixture::call(1)).unwrap_err();
    assert_eq!(refused.kind(), asyncq::Kind::Invalid);
}

#[test]
fn a_store_is_taken_out_of_a_database_that_others_use() {
    let Upgraded { mut store, _folder, other } = upgraded("CREATE TABLE orders (id INTEGER PRIMARY KEY);");
    assert!(store.has_company().unwrap());
    // A processor is registered.
    assert_eq!(store.removal().unwrap_err().kind(), asyncq::Kind::Busy);
    store.rescue(ProcessorId(1), None, &[]).unwrap();
    assert_eq!(store.remove().unwrap_err().kind(), asyncq::Kind::Denied);
    for id in 1..=8 {
        store.cancel(JobId(id)).unwrap();
    }
    let contents = store.removal().unwrap();
    assert_eq!((contents.services, contents.functions, contents.jobs), (1, 1, 8));
    store.remove().unwrap();
    assert_eq!(
        one::<String>(&other, "SELECT group_concat(name) FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'"),
        "orders"
    );
}
