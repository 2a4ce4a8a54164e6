//! What stands in the tables: what clients write there, what is damaged, what is left behind.
//!
//! Five files of this suite are about the database, and may use SQL: this one, `application.rs`, `copy.rs`, `remove.rs` and
//! `store.rs`. The others ask the command line, so that they hold for a store of any kind; `tests/tidy` sees to that.

use std::fs;

use crate::place::{COMPLETES, Place, wait_until};
use crate::process::WAITS;

#[test]
fn large_arguments_and_application_triggers_are_as_with_one_call() {
    let place = Place::with_functions(&[("mail", ":")]);
    place.write(
        "calls",
        &format!("{{\"service\":\"events\",\"function\":\"mail\",\"args\":[\"{}\"]}}\n", "x".repeat(5000)),
    );
    place.stdout("asyncq enqueue --batch calls");
    assert_eq!(place.query("SELECT args IS NULL AND (SELECT count(*) FROM asyncq_large) FROM asyncq_job"), "1");
    let watch = "CREATE TABLE seen (job);
        CREATE TRIGGER sees AFTER INSERT ON asyncq_job BEGIN INSERT INTO seen VALUES (NEW.id); END;";
    place.execute(watch);
    place.stdout("asyncq enqueue --batch calls && asyncq enqueue events mail");
    assert_eq!(place.query("SELECT group_concat(job) FROM seen"), "2,3");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_large"), "2");
}

/// With triggers and without, what a line of a batch says becomes the row that an INSERT with the same values makes.
#[test]
fn a_row_of_a_batch_is_that_of_a_client() {
    let place = Place::with_functions(&[("mail", ":")]);
    let sees = "CREATE TABLE seen (job); CREATE TRIGGER sees AFTER INSERT ON asyncq_job BEGIN INSERT INTO seen VALUES (1); END;";
    let calls = [
        ("", "function", "'mail'"),
        (r#","site":"/srv","priority":-7"#, "function, site, priority", "'mail', '/srv', -7"),
        (r#","at":"2036-01-01T00:00:00Z","key":"1""#, "function, run_at, key", "'mail', 2082758400000, '1'"),
        (r#","at":"2036-01-01T00:00:00Z""#, "function, run_at", "'mail', 2082758400000"),
        (r#","at":"2016-01-01T00:00:00Z""#, "function, run_at", "'mail', 1451606400000"),
        (r#","at":"2036-01-01T00:00:00Z","hold":true"#, "function, run_at, state", "'mail', 2082758400000, 'held'"),
    ];
    let rows = "SELECT group_concat(service || function || args || kwargs || ifnull(site, '-') || state || priority ||
        iif(run_at = created_at, 'now', run_at) || ifnull(key, '-') || attempt || claim, ' ' ORDER BY id) FROM asyncq_job";
    let mut seen = Vec::new();
    for way in ["insert", "batch", "triggers"] {
        if way == "triggers" {
            place.execute(sees);
        }
        for (line, columns, values) in calls {
            if way == "insert" {
                place.insert(columns, values);
            } else {
                place.write("calls", &format!("{{\"service\":\"events\",\"function\":\"mail\"{line}}}"));
                place.stdout("asyncq enqueue --batch calls");
            }
        }
        seen.push(place.query(rows));
        place.execute("DELETE FROM asyncq_job");
    }
    assert_eq!(place.query("SELECT count(*) FROM seen"), "6");
    assert!(seen[0].contains("delayed") && seen[0].contains("now"), "{seen:?}");
    assert!(seen.iter().all(|rows| *rows == seen[0]), "{seen:#?}");
}

/// A rule of the application refuses one call of many that `asyncq rpc` gets together.
#[test]
fn a_call_that_a_rule_refuses_falls_out_alone() {
    let trigger =
        "CREATE TRIGGER no AFTER INSERT ON asyncq_job WHEN NEW.args = '[13]' BEGIN SELECT RAISE(ABORT, 'no 13'); END";
    let index = "CREATE UNIQUE INDEX one ON asyncq_job (args) WHERE args = '[13]'";
    for (rule, refused) in [(trigger, 2), (index, 1)] {
        let place = Place::with_functions(&[("mail", ":")]);
        place.execute(rule);
        let mut requests = String::new();
        for number in (0..60).chain([13]) {
            requests += &format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"enqueue\",\"params\":{{\"service\":\"events\",\"function\":\"mail\",\"args\":[{number}]}}}}\n"
            );
        }
        place.write("requests", &requests);
        let answers = place.stdout("asyncq rpc < requests");
        let wrong: Vec<&str> = answers.lines().filter(|line| line.contains("\"error\"")).collect();
        assert_eq!((answers.lines().count(), wrong.len()), (61, refused), "{wrong:#?}");
        let is_told = |line: &&str| line.contains("\"id\":13,") && line.contains("\"exit_code\":77");
        assert!(wrong.iter().all(is_told), "{wrong:#?}");
        assert_eq!(place.count("--limit 1000"), 61 - refused);
    }
}

#[test]
fn a_slow_reader_of_a_list_delays_no_writer_and_needs_little_memory() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    // Of a database with a rollback journal, a reader keeps every writer out.
    place.stdout(
        "sqlite3 app.db 'PRAGMA journal_mode=DELETE; CREATE TABLE mine (a)' && asyncq --db app.db init 2> /dev/null",
    );
    place.stdout("asyncq --db app.db service add events && asyncq --db app.db function add events say -- ./say");
    let store = rusqlite::Connection::open(place.at("app.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let made = store.execute_batch(
        "INSERT INTO asyncq_job (service, function)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         SELECT 'events', 'say' FROM n;
         INSERT INTO asyncq_job (service, function, args)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         SELECT 'events', 'say', json_array(hex(zeroblob(450000))) FROM n",
    );
    made.unwrap();
    for options in ["", "--json"] {
        let mut list = place.start(&format!("asyncq --db app.db job list {options}"));
        let mut stdout = list.0.stdout.take().unwrap();
        wait_until("its reader is too slow", || rustix::io::ioctl_fionread(&stdout).unwrap() > 60_000);
        store.execute("INSERT INTO mine VALUES (1)", []).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", list.0.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        // All jobs together have 54 MB.
        assert!(peak < 40_000, "{peak} kB");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
        assert!(list.wait().status.success());
        let jobs = rest.lines().count();
        assert!((3060..=3062).contains(&jobs), "{jobs}");
    }
}

#[test]
fn old_jobs_are_found_by_when_they_ended() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    place.run("for i in 1 2 3; do asyncq enqueue events say $i; done; asyncq process");
    let day = 86_400_000;
    let earlier = format!("UPDATE asyncq_job SET finished_at = finished_at - {day} * id * 2");
    place.execute(&format!("DROP TRIGGER asyncq_job_update; {earlier}"));
    place.session(
        "
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        3   events   say       [3]        -          completed  6d ago
        2   events   say       [2]        -          completed  4d ago
        1   events   say       [1]        -          completed  2d ago
        $ asyncq job clean --older-than 3d
        $ asyncq job list --json | grep -o '\"id\":[0-9]*'
        \"id\":1
        ",
    );
}

#[test]
fn attempts_are_counted_from_one_without_gaps() {
    let place = Place::with_functions(&[
        ("quick", ":"),
        ("waits", WAITS),
        ("itself", &format!("echo attempt $ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 2 ] || exit 75\n{COMPLETES}")),
    ]);
    place.stdout("for i in $(seq 20); do asyncq enqueue events quick; done; asyncq enqueue events waits 1");
    place.stdout("asyncq enqueue events itself");
    let process = place.start("asyncq process --wait-retries");
    wait_until("the slow call begins", || place.at("begun-1").exists());
    let call = "SELECT claim || state || attempt FROM asyncq_job WHERE id = 22";
    wait_until("the call behind it is given back", || place.query(call) == "1queued0");
    place.write("go", "");
    let output = process.wait();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "begin 1\nend 1\nattempt 1\nattempt 2\n");
    assert_eq!(place.query(call), "3completed2");
    place.session(
        r#"
        $ asyncq job show 22 --json
        {[..]"state":"completed",[..]"attempt":2,[..]"attempts":[{"attempt":1,[..]"ending":"conflict",[..]},{"attempt":2,[..]"ending":"completed",[..]
        "#,
    );
}

#[test]
fn values_that_sql_cannot_check_are_checked_at_the_claim() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    let store = rusqlite::Connection::open(place.store()).unwrap();
    // Older schemas have accepted all of it.
    store.execute_batch("DROP TRIGGER asyncq_job_insert").unwrap();
    let insert = "INSERT INTO asyncq_job (service, function, args, kwargs, principal, site) VALUES ('events', 'say', ?1, ?2, ?3, ?4)";
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let none: Option<&str> = None;
    for (args, kwargs, principal, site) in [
        ("[{\"a\":1,\"a\":2}]", "{}", none, none),
        (&deep, "{}", none, none),
        ("[\"\\u0000\"]", "{}", none, none),
        ("[]", "{\"k\":\"\\ud800\"}", none, none),
        ("[]", "{}", Some("a\x1b[m"), none),
        ("[]", "{}", none, Some("relative")),
        ("[\"fine\"]", "{}", none, none),
    ] {
        store.execute(insert, (args, kwargs, principal, site)).unwrap();
    }
    store
        .execute(
            "INSERT INTO asyncq_job (service, function, args) VALUES ('events', 'say', CAST(x'5B22FF225D' AS TEXT))",
            [],
        )
        .unwrap();
    drop(store);
    place.session(
        r"
        $ asyncq process
        fine
        ! asyncq: job 1 (`events` `say`): args: the key `a` twice in one object
        ! asyncq: job 2 (`events` `say`): args: nested too deep: at most 64 levels are allowed
        ! asyncq: job 3 (`events` `say`): args: a NUL character in a string
        ! asyncq: job 4 (`events` `say`): kwargs: a lone surrogate in a string
        ! asyncq: job 5 (`events` `say`): principal: `a\u{1b}[m` cannot be a principal
        ! asyncq: job 6 (`events` `say`): site: not an absolute path
        ! asyncq: job 8 (`events` `say`): args: bytes that are not UTF-8
        ? 1
        $ asyncq job list
        ...
        5   events   say       []  [..]  a\u{1b}[m  error      [..]
        ...
        ",
    );
}

#[test]
fn a_drained_service_is_free() {
    let place = Place::new();
    place.program("slots", "#!/bin/sh\nsqlite3 \"$ASYNCQ_DB\" 'SELECT count(*) FROM asyncq_slot'\n");
    for number in 10..30 {
        place.stdout(&format!("asyncq service add s{number}; asyncq function add s{number} slots -- ./slots; asyncq enqueue s{number} slots"));
    }
    assert_eq!(place.stdout("taskset -c 0 asyncq process"), "1\n".repeat(20));
}

#[test]
fn a_processor_that_cannot_be_examined_disturbs_no_other() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("mkdir -p .local/share/asyncq/queue.db-asyncq/other/lock; asyncq enqueue events hello");
    let other = "INSERT INTO asyncq_processor (folder, host, boot, pid, pid_start, started_at) VALUES ('other', 'h', 'b', 1, 1, 1)";
    place.execute(other);
    place.session("$ asyncq process\nhello\n$ asyncq -v process\n! asyncq: cannot find out whether processor 1 (process 1 on h) is alive: [..]\n! asyncq: 0 attempts; 0 jobs ended in an error");
}

#[test]
fn a_damaged_definition_costs_its_own_calls_and_nothing_else() {
    let place = Place::with_functions(&[
        ("waits", "touch begun; until [ -e go ]; do sleep 0.01; done"),
        ("damaged", "echo never"),
    ]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events damaged");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    write_whatever(&place, "UPDATE asyncq_function SET command = '[7]' WHERE name = 'damaged'");
    place.write("go", "");
    let output = process.wait();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("function `damaged` of service `events`: its command is "), "{said}");
    assert!(place.jobs("state attempt").starts_with("completed 1, error "));
}

/// What older schemas let clients write, or somebody writes without the triggers.
fn write_whatever(place: &Place, sql: &str) {
    place.stdout(&format!("sqlite3 -cmd '.dbconfig enable_trigger off' {} \"{sql}\"", place.store().display()));
}

#[test]
fn jobs_that_are_processing_without_a_processor_are_put_back() {
    let place = Place::with_functions(&[("hello", "echo hello $1")]);
    place.stdout("for i in 1 2 3 4; do asyncq enqueue events hello $i; done");
    let lost = "UPDATE asyncq_job SET state = 'processing'";
    write_whatever(
        &place,
        &format!(
            "{lost}, token = 'gone' WHERE id = 1; {lost}, processor = 77, token = 'gone', attempt = 1 WHERE id = 2"
        ),
    );
    place.session(
        "
        $ asyncq job cancel 2
        $ asyncq process --max-jobs 1
        hello 1
        ",
    );
    write_whatever(
        &place,
        &format!("{lost} WHERE id = 3; {lost}, processor = 78, token = 'gone', cancelling = 1 WHERE id = 4"),
    );
    place.session(
        "
        $ asyncq init
        ! asyncq: put back jobs that were `processing` without a processor: job 3 is queued, job 4 is cancelled
        ! asyncq: `[..]` is up to date
        $ asyncq init
        ! asyncq: `[..]` is up to date
        ",
    );
    write_whatever(&place, &format!("{lost}, processor = 79, token = 'gone' WHERE id = 3"));
    place.session(
        "
        $ asyncq process
        hello 3
        ! asyncq: put back jobs that were `processing` without a processor: job 3 is queued
        $ asyncq process
        $ asyncq enqueue events hello 5
        5
        ",
    );
    write_whatever(&place, &format!("{lost} WHERE id = 5"));
    place.session("$ asyncq job cancel 5; asyncq enqueue --hold events hello 6\n6");
    // A call inside another one cannot go back.
    write_whatever(&place, &format!("{lost}, processor = 80, token = 'gone', immediate = 1, parent = 1 WHERE id = 6"));
    place.session(
        "
        $ asyncq process
        ! asyncq: put back jobs that were `processing` without a processor: job 6 ended in an error
        ? 1
        ",
    );
    assert_eq!(place.jobs("state attempt"), "completed 1, cancelled 1, completed 1, cancelled 0, cancelled 0, error 0");
}

#[test]
fn a_job_that_was_taken_from_its_processor_is_reported_with_its_state() {
    let place = Place::with_functions(&[("slow", "touch begun-$1; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout(
        "asyncq service set events --concurrency 2; asyncq enqueue events slow 1; asyncq enqueue events slow 2",
    );
    let process = place.start("asyncq process --max-jobs 2");
    wait_until("both run", || place.at("begun-1").exists() && place.at("begun-2").exists());
    write_whatever(
        &place,
        "DELETE FROM asyncq_job WHERE id = 1; UPDATE asyncq_job SET state = 'cancelled' WHERE id = 2",
    );
    place.write("go", "");
    let output = process.wait();
    let said = String::from_utf8(output.stderr).unwrap();
    for told in [
        "asyncq: job 1 is no longer in the store; this attempt's result was discarded\n",
        "asyncq: job 2 is already cancelled; this attempt's result was discarded\n",
    ] {
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn cleaning_leaves_no_rows() {
    let place = Place::with_functions(&[("say", "echo $1"), ("fail", "exit 1")]);
    let long = "x".repeat(5000);
    place.run(&format!("asyncq enqueue events say {long}; asyncq enqueue events fail; asyncq process"));
    place.stdout("asyncq job clean");
    let rows = ["job", "attempt", "large", "progress"]
        .map(|table| place.query(&format!("SELECT count(*) FROM asyncq_{table}")));
    assert_eq!(rows, ["0"; 4]);
}
