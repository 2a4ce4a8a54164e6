//! What `asyncq doctor` says of stores that somebody has damaged or changed by hand, and of an application's database.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::explain::{codes, first, follow, next};
use crate::place::{Place, wait_until};

/// A store with one of everything, as the backup `good.db`.
fn place() -> Place {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout(
        "for n in 1 2 3; do asyncq enqueue events note $n; done; asyncq enqueue events note --after 3
         asyncq enqueue events note --lane a; asyncq enqueue events note --lane a
         asyncq schedule add hourly --every 1h events note; asyncq backup good.db",
    );
    place
}

/// Changes the store `bad.db`, a copy of `good.db`, as no client may.
fn damage(place: &Place, sql: &str) {
    std::fs::copy(place.at("good.db"), place.at("bad.db")).unwrap();
    let store = Connection::open(place.at("bad.db")).unwrap();
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false),
    ] {
        store.set_db_config(config, on).unwrap();
    }
    store.execute_batch(&format!("PRAGMA writable_schema = ON; {sql}")).unwrap();
}

/// What is wrong with a store: the lines of the output that are not `ok`, without hints.
fn wrong(place: &Place, options: &str) -> Vec<String> {
    let output = place.run(&format!("asyncq --db bad.db doctor {options}"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let has_fault = text.lines().any(|line| line.starts_with("fault"));
    assert_eq!(output.status.code(), Some(i32::from(has_fault)), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with("ok ") && !line.starts_with("   "));
    lines.map(str::to_owned).collect()
}

/// Damage, and what `asyncq doctor` says of it.
const DAMAGE: &[(&str, &str)] = &[
    ("DROP TRIGGER asyncq_job_insert", "fault    schema      trigger `asyncq_job_insert` is missing"),
    ("DROP INDEX asyncq_job_lane", "fault    schema      index `asyncq_job_lane` is missing"),
    ("DROP TABLE asyncq_progress", "fault    schema      table `asyncq_progress` is missing"),
    (
        "DROP TRIGGER asyncq_job_delete; CREATE TRIGGER asyncq_job_delete BEFORE DELETE ON asyncq_job BEGIN SELECT 1; END",
        "fault    schema      trigger `asyncq_job_delete` was changed",
    ),
    (
        "DROP INDEX asyncq_job_lane; CREATE INDEX asyncq_job_lane ON asyncq_job (lane)",
        "fault    schema      index `asyncq_job_lane` was changed",
    ),
    (
        "UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (lane_width > 0)', 'CHECK (lane_width > -1)')",
        "fault    schema      table `asyncq_service` was changed",
    ),
    ("DROP TABLE asyncq_schema", "fault    schema      `[..]/bad.db` holds no store"),
    (
        "DELETE FROM asyncq_schema",
        "fault    schema      `asyncq_schema` is empty, as in a schema that was copied without its rows",
    ),
    (
        "UPDATE asyncq_schema SET version = 5",
        "warning  schema      it has the schema of an older asyncq; nothing else was checked",
    ),
    (
        "UPDATE asyncq_schema SET version = 1000",
        "fault    schema      the store has schema 1000, this asyncq knows schemas up to 6",
    ),
    (
        "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'asyncq_job'",
        "fault    numbers     no call can be enqueued: a client has given a job the greatest number, 9223372036854775807",
    ),
    (
        "UPDATE asyncq_function SET takes = '[a] b'",
        "fault    definitions the store is damaged: function `note` of service `events`: `b` is required, and stands after `[a]`, which may be left out",
    ),
    (
        "UPDATE asyncq_service SET rate = 'fast'",
        "fault    definitions the store is damaged: a service with an impossible rate",
    ),
    (
        "UPDATE asyncq_schedule SET cron = '0 9 * * *', zone = 'Nowhere/X', every = NULL",
        "fault    schedules   the store is damaged: schedule `hourly`: there is no time zone `Nowhere/X`",
    ),
    (
        "UPDATE asyncq_service SET on_error = 'events/page'",
        "fault    hooks       the hook `events/page` of service `events` does not exist",
    ),
    (
        "UPDATE asyncq_job SET state = 'processing', processor = 9, token = 'x' WHERE id = 1",
        "fault    unowned     1 job that runs belongs to no processor",
    ),
    (
        "UPDATE asyncq_job SET state = 'blocked', waits = 1 WHERE id < 3",
        "fault    waiting     2 jobs wait for other jobs, but are linked to none",
    ),
    (
        "UPDATE asyncq_job SET state = 'completed', finished_at = 1 WHERE id = 3",
        "fault    waiting     1 job has ended, but the calls that need it do not know that",
    ),
    (
        "UPDATE asyncq_job SET state = 'completed', finished_at = 1 WHERE id = 5",
        "fault    waiting     1 lane has room, but its calls wait",
    ),
    (
        "UPDATE asyncq_schema SET clock = 4000000000000",
        "warning  clock       the clock is [..] behind the latest time of a processor",
    ),
    (
        "UPDATE asyncq_job SET run_at = 1000000000000 WHERE id = 2",
        "warning  calls       service `events` has a call that has waited for [..]",
    ),
];

/// Damage that only `asyncq doctor --full` finds.
const DEEP: &[(&str, &str)] = &[
    (
        "DELETE FROM asyncq_job WHERE id = 3",
        "fault    references  in table `asyncq_after`, 1 row refers to what is not in table `asyncq_job`",
    ),
    (
        "INSERT INTO asyncq_large VALUES (77, '[]', '{}'), (78, '[]', '{}')",
        "fault    references  in table `asyncq_large`, 2 rows refer to what is not in table `asyncq_job`",
    ),
    (
        "DELETE FROM asyncq_function",
        "fault    references  in table `asyncq_schedule`, 1 row refers to what is not in table `asyncq_function`",
    ),
    ("UPDATE asyncq_job SET state = 'blocked' WHERE id = 2", "fault    jobs        the state of job 2 contradicts the rest of it"),
    (
        "UPDATE asyncq_job SET state = 'blocked', waits = 2 WHERE id = 2",
        "fault    jobs        the state of job 2 contradicts the rest of it",
    ),
    ("UPDATE asyncq_job SET state = 'processing' WHERE id = 2", "fault    jobs        the state of job 2 contradicts the rest of it"),
    (
        "UPDATE asyncq_job SET state = 'completed' WHERE id < 3",
        "fault    jobs        the states of 2 jobs contradict the rest of them; the first is job 1",
    ),
    ("UPDATE asyncq_job SET finished_at = 7 WHERE id = 2", "fault    jobs        the state of job 2 contradicts the rest of it"),
    (
        "UPDATE asyncq_job SET service = 'nowhere' WHERE id < 3",
        "fault    jobs        2 jobs wait for service `nowhere`, which does not exist",
    ),
    (
        "UPDATE sqlite_schema SET sql = replace(sql, 'state = ''queued''', 'state = ''held''') WHERE name = 'asyncq_job_queued'; PRAGMA writable_schema = RESET;
         UPDATE asyncq_job SET priority = 7; PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'state = ''held''', 'state = ''queued''') WHERE name = 'asyncq_job_queued'",
        "fault    damage      the store is damaged: row [..] missing from index asyncq_job_queued",
    ),
];

fn is(line: &str, expected: &str) -> bool {
    match expected.split_once("[..]") {
        Some((begin, end)) => line.starts_with(begin) && line.ends_with(end),
        None => line == expected,
    }
}

#[test]
fn each_damage_is_named() {
    let place = place();
    damage(&place, "SELECT 1");
    assert_eq!((wrong(&place, ""), wrong(&place, "--full")), (Vec::new(), Vec::new()));
    for (sql, expected) in DAMAGE {
        damage(&place, sql);
        let found = wrong(&place, "");
        assert!(matches!(&found[..], [line] if is(line, expected)), "{sql}: {found:#?}");
    }
}

#[test]
fn a_look_at_all_rows_names_more() {
    let place = place();
    for (sql, expected) in DEEP {
        damage(&place, sql);
        assert_eq!(wrong(&place, ""), [""; 0], "{sql}");
        let found = wrong(&place, "--full");
        assert!(matches!(&found[..], [line] if is(line, expected)), "{sql}: {found:#?}");
    }
}

#[test]
fn pages_that_a_disk_has_changed_are_named() {
    let place = place();
    let store = Connection::open(place.at("good.db")).unwrap();
    let page = "SELECT rootpage FROM sqlite_schema WHERE name = 'asyncq_job'";
    let page: u32 = store.query_row(page, [], |row| row.get(0)).unwrap();
    let mut bytes = std::fs::read(place.at("good.db")).unwrap();
    let at = (page as usize - 1) * 4096;
    bytes[at + 8..at + 40].fill(0xff);
    std::fs::write(place.at("bad.db"), bytes).unwrap();
    let found = wrong(&place, "");
    assert!(
        matches!(&found[..], [line] if line.starts_with("fault    damage      the store is damaged: ")),
        "{found:?}"
    );
}

#[test]
fn a_fix_lets_calls_go_on_and_changes_nothing_else() {
    let place = place();
    damage(
        &place,
        "UPDATE asyncq_job SET state = 'blocked', waits = 1 WHERE id = 1;
         UPDATE asyncq_job SET state = 'completed', finished_at = 1 WHERE id IN (3, 5);
         UPDATE asyncq_service SET on_error = 'events/page'",
    );
    place.session(
        "
        $ asyncq --db bad.db doctor --fix > found; echo $?; grep -v '^ok ' found
        1
        fault    hooks       the hook `events/page` of service `events` does not exist
                             add that function, or set another hook
        ! asyncq: let the calls go on that waited without a reason
        $ asyncq --db bad.db job list | awk '{ print $1, $6 }'
        ID STATE
        6 queued
        5 completed
        4 queued
        3 completed
        2 queued
        1 queued
        $ asyncq --db bad.db doctor --fix | grep -v '^ok '
        fault    hooks       the hook `events/page` of service `events` does not exist
                             add that function, or set another hook
        $ asyncq --db bad.db service set events --no-on-error; asyncq -q --db bad.db process; asyncq --db bad.db doctor --full | grep -v '^ok '
        ? 1
        ",
    );
}

#[test]
fn what_init_mends_is_well_afterwards() {
    let place = place();
    damage(
        &place,
        "DROP TRIGGER asyncq_job_insert; DROP INDEX asyncq_job_lane; DROP TABLE asyncq_progress;
         UPDATE asyncq_job SET state = 'processing', processor = 9, token = 'x' WHERE id = 1",
    );
    assert_eq!(wrong(&place, "").len(), 3);
    place.run("asyncq --db bad.db init");
    assert_eq!(wrong(&place, "--full"), [""; 0]);
}

#[test]
fn a_reader_that_stays_and_a_folder_that_is_left_are_named() {
    let place = place();
    place.function("stays", "", "sleep 1000");
    place.stdout("asyncq pause; asyncq service add other; asyncq function add other stays -- ./stays; asyncq resume");
    place.stdout("asyncq enqueue other stays");
    let process = place.start("asyncq process other");
    wait_until("it runs", || place.stdout("asyncq job show 7 --json").contains("processing"));
    place.stdout(&format!("kill -9 {} {}", process.0.id(), process.engine()));
    process.wait();
    let reader = Connection::open(place.store()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM asyncq_job").unwrap();
    place.execute(
        "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; DELETE FROM asyncq_slot; DELETE FROM asyncq_processor;
         CREATE TABLE filler AS SELECT zeroblob(68000000)",
    );
    place.session(
        "
        $ asyncq doctor > found; echo $?; grep -A1 -e ' folders ' -e ' unowned ' -e ' wal ' found
        1
        warning  folders     1 folder is left of processors that the store does not know
                             remove what is in `[..]/queue.db-asyncq` while no processor runs
        fault    unowned     1 job that runs belongs to no processor
                             `asyncq init` puts them back
        --
        warning  wal         the WAL has [..] MB
                             a program that reads in one long transaction keeps it from being emptied: end that transaction
        ...
        ",
    );
}

/// An application may keep in the database what it likes, and some of that on asyncq's own tables.
#[test]
fn nothing_is_said_of_what_an_application_has_in_its_database() {
    let place = Place::new();
    place.write(
        "own.py",
        "import sqlite3
db = sqlite3.connect('app.db')
db.create_function('own_lower', 1, str.lower, deterministic=True)
db.create_collation('own', lambda one, two: (one > two) - (one < two))
db.executescript(\"\"\"
    CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT COLLATE own CHECK (own_lower(item) <> ''),
        customer REFERENCES customers (id));
    CREATE TABLE customers (id INTEGER PRIMARY KEY);
    CREATE INDEX orders_item ON orders (own_lower(item));
    CREATE VIEW items AS SELECT item FROM orders;
    INSERT INTO orders VALUES (1, 'tea', 99);
\"\"\")
",
    );
    place.stdout("python3 own.py");
    place.stdout("asyncq --db app.db init; asyncq --db app.db service add events; asyncq --db app.db function add events note -- true");
    let application = Connection::open(place.at("app.db")).unwrap();
    let on_ours = "
        CREATE TABLE sent (job INTEGER REFERENCES asyncq_job (id) ON DELETE CASCADE);
        CREATE TRIGGER own AFTER INSERT ON asyncq_job BEGIN INSERT INTO sent VALUES (NEW.id); END;
        CREATE TRIGGER asyncq_looks_like_one AFTER UPDATE ON asyncq_job BEGIN SELECT 1; END;
        CREATE INDEX own_principal ON asyncq_job (principal);
        ALTER TABLE asyncq_job ADD COLUMN own TEXT;
        CREATE TABLE asyncq_own (name TEXT);
        INSERT INTO asyncq_job (service, function, own) VALUES ('events', 'note', 'x');";
    application.execute_batch(on_ours).unwrap();
    place.stdout(
        "asyncq --db app.db enqueue events note; asyncq --db app.db process; asyncq --db app.db enqueue events note",
    );
    for command in ["doctor", "doctor --full", "doctor --fix"] {
        let found = place.stdout(&format!("asyncq --db app.db {command}"));
        assert!(found.lines().count() >= 15 && found.lines().all(|line| line.starts_with("ok ")), "{command}: {found}");
    }
    // An application that attaches it under another name finds the same.
    let other = Connection::open(place.at("other.db")).unwrap();
    other
        .execute_batch(&format!("ATTACH '{}' AS queue; CREATE TABLE asyncq_job (id)", place.at("app.db").display()))
        .unwrap();
    other.execute("INSERT INTO queue.asyncq_job (service, function) VALUES ('events', 'note')", []).unwrap();
    assert_eq!(place.stdout("asyncq --db app.db doctor --full | grep -vc '^ok '; true"), "0\n");
    let found = place.run("asyncq --db other.db doctor");
    assert!(String::from_utf8_lossy(&found.stdout).contains("fault    schema      "), "{found:?}");
    // What is wrong with asyncq's own part is named there, too.
    application.execute_batch("DROP TRIGGER asyncq_job_delete").unwrap();
    place.session("$ asyncq --db app.db doctor | grep -v '^ok '\nfault    schema      trigger `asyncq_job_delete` is missing\n                     `asyncq init` makes it again");
}

/// A program that deletes services by SQL leaves their calls.
#[test]
fn a_call_without_its_service_is_explained() {
    let mut place = place();
    damage(&place, "UPDATE asyncq_job SET service = 'gone' WHERE id = 1");
    place.set("ASYNCQ_DB", "bad.db");
    assert_eq!(first(&place, 1, "no-service"), "its service `gone` was removed");
    assert_eq!(next(&place, 1), "asyncq service add gone");
    follow(&place, 1, "no-service");
    assert_eq!(codes(&place, 1), "no-processor will-fail");
    place.session(
        "
        $ asyncq explain 1 | tail -2
        will-fail     it will fail: service `gone` has no function `note`
                      next: asyncq function add gone note -- PROGRAM
        $ asyncq function add gone note -- ./note; asyncq process gone; asyncq explain 1 | grep -c '^completed'
        1
        ",
    );
}
