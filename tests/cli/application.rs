//! An application's own database: enqueueing by INSERT, in its own transactions, from other languages' SQLite.

use std::process::Command;
use std::time::Duration;

use crate::explain::{codes, first, follow};
use crate::place::{Place, WORKER, wait_until};

/// An application with a database of its own, in the state in which its own libraries leave it.
pub fn application(journal_mode: &str) -> Place {
    let mut place = Place::new();
    place.write(
        "setup.py",
        &format!(
            "import sqlite3
db = sqlite3.connect('app.db')
db.executescript('''
    PRAGMA journal_mode={journal_mode}; PRAGMA user_version=42; PRAGMA application_id=4711;
    CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL);
    CREATE TABLE sent (order_id INTEGER PRIMARY KEY);
    INSERT INTO orders (item) VALUES ('the first');
''')
"
        ),
    );
    place.program("mail", "#!/bin/sh\necho \"mail for order $1, ${2#--greeting=}\"\n");
    place.stdout("python3 setup.py");
    place.set("ASYNCQ_DB", "app.db");
    place.stdout("asyncq -q init && asyncq service add shop && asyncq function add shop mail -- ./mail");
    place
}

#[test]
fn a_transaction_that_writes_an_order_and_enqueues_its_mail() {
    for journal_mode in ["DELETE", "WAL"] {
        let place = application(journal_mode);
        place.write(
            "order.py",
            "import sqlite3, sys
db = sqlite3.connect('app.db')
with db:
    for item in ('tea', 'milk'):
        order = db.execute('INSERT INTO orders (item) VALUES (?) RETURNING id', (item,)).fetchone()[0]
        job = db.execute('''INSERT INTO asyncq_job (service, function, args, kwargs)
                            VALUES ('shop', 'mail', json_array(?), '{\"greeting\": \"hello\"}') RETURNING id''', (order,)).fetchone()[0]
    print('job', job)
    if sys.argv[1] == 'fail':
        raise SystemExit('rolled back')
",
        );
        place.session(
            r#"
            $ python3 order.py fail
            job 2
            ! rolled back
            ? 1
            $ asyncq job list
            $ asyncq process
            $ python3 order.py succeed
            job 2
            $ asyncq job list --json
            [
            {"id":2,"service":"shop","function":"mail","args":[3],"kwargs":{"greeting": "hello"},"principal":null,[..]"os_user":null},
            {"id":1,[..]
            ]
            "#,
        );
        place.session("$ asyncq process\nmail for order 2, hello\nmail for order 3, hello");
    }
}

#[test]
fn nothing_of_the_application_is_touched() {
    for journal_mode in ["delete", "persist", "wal"] {
        let place = application(journal_mode);
        let journal_mode = if journal_mode == "wal" { "wal" } else { "delete" };
        place.stdout(
            "sqlite3 app.db \"INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'mail', '[1]')\"",
        );
        place.stdout("asyncq process && asyncq job clean && asyncq init && asyncq service list");
        let question = "PRAGMA user_version; PRAGMA application_id; PRAGMA journal_mode; SELECT item FROM orders;
            SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'asyncq_%' AND name NOT LIKE 'sqlite_%' AND tbl_name NOT LIKE 'asyncq_%';
            PRAGMA integrity_check; PRAGMA foreign_key_check;";
        let answer = place.stdout(&format!("sqlite3 app.db \"{question}\""));
        assert_eq!(answer, format!("42\n4711\n{journal_mode}\nthe first\n2\nok\n"));
        assert_eq!(place.stdout("sqlite3 app.db \"SELECT count(*) FROM sqlite_schema WHERE name LIKE 'asyncq_%'\" | sed 's/[1-9][0-9]*/some/'"), "some\n");
    }
}

/// Columns and values of an INSERT, and with what it is refused.
pub const REFUSED: &[(&str, &str, &str)] = &[
    ("service, function", "'shpo', 'mail'", "no such service"),
    ("service, function", "'shop', 'mial'", "no such function on this service"),
    ("service, function, state", "'shop', 'mail', 'processing'", "state must be queued, held or delayed"),
    ("service, function, state", "'shop', 'mail', 'completed'", "state must be queued, held or delayed"),
    ("service, function, error", "'shop', 'mail', 'x'", "leave out the columns that asyncq keeps itself"),
    ("service, function, attempt", "'shop', 'mail', 7", "leave out the columns that asyncq keeps itself"),
    ("service, function, claim", "'shop', 'mail', 7", "leave out the columns that asyncq keeps itself"),
    ("service, function, id", "'shop', 'mail', 9223372036854775807", "leave out the columns that asyncq keeps itself"),
    ("service, function, id", "'shop', 'mail', 1", "leave out the columns that asyncq keeps itself"),
    ("service, function, os_user", "'shop', 'mail', 'root'", "leave out the columns that asyncq keeps itself"),
    (
        "service, function, created_at",
        "'shop', 'mail', 1800000000000",
        "leave out the columns that asyncq keeps itself",
    ),
    ("service, function, parent", "'shop', 'mail', 77", "parent must be a job that exists"),
    ("service, function, args", "'shop', 'mail', '{}'", "args must be a JSON array"),
    ("service, function, args", "'shop', 'mail', '[1]' || char(0) || 'more'", "args must be a JSON array"),
    ("service, function, kwargs", "'shop', 'mail', '{}' || char(0)", "kwargs must be a JSON object"),
    ("service, function, args", r#"'shop', 'mail', '["\u0000"]'"#, "args and kwargs must not hold NUL characters"),
    (
        "service, function, kwargs",
        r#"'shop', 'mail', '{"a":"\\\u0000"}'"#,
        "args and kwargs must not hold NUL characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', printf('%256c', 'x')",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', 'a' || char(10)",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', 'a' || char(8238) || 'b'",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', 'a' || char(0) || 'b'",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', CAST(x'6180' AS TEXT)",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', CAST(x'61e282' AS TEXT)",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    (
        "service, function, principal",
        "'shop', 'mail', CAST(x'eda080' AS TEXT)",
        "principal must be at most 255 bytes of UTF-8 without control characters",
    ),
    ("service, function, site", "'shop', 'mail', 'tmp'", "site must be an absolute path"),
    ("service, function, key", "'shop', 'mail', ''", "key must not be empty"),
    ("service, function, run_at", "'shop', 'mail', 1795958267484123", "run_at must be in milliseconds since 1970"),
    ("service, function, run_at", "'shop', 'mail', 253402300800000", "run_at must be in milliseconds since 1970"),
    ("service, function, args", "'shop', 'mail', 'no json'", "args must be a JSON array"),
    ("service, function, args", "'shop', 'mail', NULL", "args must be a JSON array"),
    ("service, function, args", "'shop', 'mail', 7", "args must be a JSON array"),
    ("service, function, kwargs", "'shop', 'mail', '[]'", "kwargs must be a JSON object"),
    ("service, function, kwargs", "'shop', 'mail', NULL", "kwargs must be a JSON object"),
    ("service, function, run_at", "'shop', 'mail', 1800000000", "run_at must be in milliseconds since 1970"),
    (
        "service, function, args",
        "'shop', 'mail', '[\"' || hex(zeroblob(600000)) || '\"]'",
        "args and kwargs must be at most 1 MiB each",
    ),
    ("service, function, key_until", "'shop', 'mail', 'ended'", "key_until must be started or ended, and needs a key"),
    (
        "service, function, key, key_until",
        "'shop', 'mail', 'k', 'x'",
        "key_until must be started or ended, and needs a key",
    ),
    ("service, function, lane", "'shop', 'mail', ''", "lane must be 1 to 255 bytes without control characters"),
    ("service, function, lane", "'shop', 'mail', char(9)", "lane must be 1 to 255 bytes without control characters"),
    ("service, function, expires_at", "'shop', 'mail', 1800000000", "expires_at must be in milliseconds since 1970"),
    (
        "service, function, meta",
        "'shop', 'mail', '[]'",
        "meta must be a JSON object of at most 4 KiB without NUL characters",
    ),
    (
        "service, function, meta",
        "'shop', 'mail', '{\"a\":\"' || hex(zeroblob(2100)) || '\"}'",
        "meta must be a JSON object of at most 4 KiB without NUL characters",
    ),
    (
        "service, function, after",
        "'shop', 'mail', (SELECT json_group_array(n) FROM (WITH RECURSIVE it(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it \
         WHERE n < 100001) SELECT n FROM it))",
        "after must have at most 100000 job numbers",
    ),
    ("service, function, after", "'shop', 'mail', '[7, 7]'", "after must have each job number once"),
    ("service, function, after", "'shop', 'mail', '{\"ok\":[7],\"any\":[7]}'", "after must have each job number once"),
    ("service, function, after", "'shop', 'mail', '[7]'", "after must have numbers of jobs that exist"),
];

/// No call waits for what is not a list of job numbers.
#[test]
fn the_database_refuses_what_no_call_can_wait_for() {
    let place = application("WAL");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    let insert = |after: &str| {
        let sql = "INSERT INTO asyncq_job (service, function, after) VALUES ('shop', 'mail', ?1) RETURNING id";
        database.query_row(sql, [after], |row| row.get::<_, i64>(0)).map_err(|error| error.to_string())
    };
    let list = "asyncq: after must be a list of job numbers, or an object of lists ok, any and failed";
    for after in
        ["", "7", "x", r#""7""#, r#"["7"]"#, "[7.5]", "[[1,7]]", r#"{"ok":7}"#, r#"{"ok":["7"]}"#, r#"{"of":[7]}"#]
    {
        assert_eq!(insert(after).unwrap_err(), list, "{after}");
    }
    assert_eq!(insert(r#"{"ok":[7],"ok":[8]}"#).unwrap_err(), list);
    assert_eq!(insert("[]").unwrap(), 1);
    database.execute_batch("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1").unwrap();
    assert_eq!(insert("[1]").unwrap_err(), "asyncq: a job in after has already ended in another way");
    assert_eq!(insert(r#"{"any":[1]}"#).unwrap(), 2);
    assert_eq!(insert(r#"{"failed":[1],"ok":[2]}"#).unwrap(), 3);
    let refused = database.execute("DELETE FROM asyncq_job WHERE id = 2", []).unwrap_err();
    assert_eq!(refused.to_string(), "asyncq: other calls still need this job");
    place.session(
        "
        $ asyncq process | grep -c mail
        2
        ",
    );
    assert_eq!(insert(r#"{"failed":[3]}"#).unwrap_err(), "asyncq: a job in after has already ended in another way");
}

/// A function with a signature takes no other number of arguments, and a replaced call neither.
#[test]
fn the_database_counts_the_arguments_of_a_call() {
    let place = application("WAL");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    let takes = |signature: &str| place.stdout(&format!("asyncq function set shop mail --takes '{signature}'"));
    let call = |args: &str| {
        let sql = "INSERT INTO asyncq_job (service, function, args, key, key_until) VALUES ('shop', 'mail', ?1, 'k', 'started')
            ON CONFLICT (key) DO UPDATE SET args = excluded.args RETURNING id";
        database.query_row(sql, [args], |row| row.get::<_, i64>(0)).map_err(|error| error.to_string())
    };
    let (few, many) =
        (Err("asyncq: too few arguments for this function"), Err("asyncq: too many arguments for this function"));
    takes("order [more] [--html]");
    for _ in ["new", "replaced"] {
        for (args, answer) in [("[]", few), ("[1]", Ok(1)), ("[1,[2,3]]", Ok(1)), ("[1,2,3]", many), ("[2]", Ok(1))] {
            assert_eq!(call(args), answer.map_err(str::to_owned), "{args}");
        }
    }
    takes("a b c...");
    assert_eq!(call("[1,2]").unwrap_err(), few.unwrap_err());
    assert_eq!(call("[1,2,3,4,5]"), Ok(1));
}

/// What the database does not know of a signature is checked at the claim, as are calls that waited when it changed.
#[test]
fn a_call_that_its_function_does_not_take_ends_at_the_claim() {
    let place = application("WAL");
    let insert = |args: &str, kwargs: &str| {
        let insert = "INSERT INTO asyncq_job (service, function, args, kwargs) VALUES";
        place.stdout(&format!("sqlite3 app.db \"{insert} ('shop', 'mail', '{args}', '{kwargs}')\""));
    };
    insert("[1,2]", "{}");
    place.stdout("asyncq function set shop mail --takes 'order:int [note] [--html]' --retries 3");
    insert(r#"[\"x\"]"#, "{}");
    insert("[1]", r#"{\"htlm\":1}"#);
    insert("[1]", r#"{\"note\":\"hi\"}"#);
    place.stdout("asyncq function set shop mail --takes 'order:int [--note] [--html]'");
    place.session(
        r#"
        $ asyncq process
        mail for order 1, --note=hi
        ! asyncq: job 1 (`shop` `mail`): `shop mail` takes 1 argument, you gave 2
        ! asyncq: job 2 (`shop` `mail`): `shop mail` takes a whole number as `order`, you gave text
        ! asyncq: job 3 (`shop` `mail`): `shop mail` takes no argument `htlm`
        ? 1
        $ asyncq job list --state error --json | grep -o '"kind":"[a-z-]*"'
        "kind":"bad-call"
        "kind":"bad-call"
        "kind":"bad-call"
        $ asyncq explain 1 --json | grep -o '"code":"[a-z-]*"'
        "code":"bad-call"
        "#,
    );
    place.stdout("asyncq function set shop mail --takes 'order:int [note]'");
    insert("[1]", r#"{\"note\":\"hi\"}"#);
    assert_eq!(place.stdout("asyncq process"), "mail for order 1, hi\n");
}

/// The statements of the documented contract, with what the database answers.
#[test]
fn the_database_refuses_and_accepts_values() {
    let place = application("WAL");
    let insert = |columns: &str, values: &str| {
        let sql = format!("INSERT INTO asyncq_job ({columns}) VALUES ({values}) RETURNING id, state");
        let output = Command::new("sqlite3").arg("-batch").arg(place.at("app.db")).arg(&sql).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        String::from_utf8(text).unwrap().trim().replace(" (19)", "")
    };
    let one = "service, function";
    for (columns, values, message) in REFUSED {
        let said = insert(columns, values);
        assert!(said.ends_with(&format!(" asyncq: {message}")), "{values}: {said}");
    }
    let said = insert("service, function, principal", "'shop', 'mail', x'61'");
    assert!(said.ends_with(" cannot store BLOB value in TEXT column asyncq_job.principal"), "{said}");
    assert_eq!(insert(one, "'shop', 'mail'"), "1|queued");
    assert_eq!(insert("service, function, state", "'shop', 'mail', 'held'"), "2|held");
    // A call for later is delayed by itself; RETURNING still shows the row as it was inserted.
    assert_eq!(insert("service, function, run_at", "'shop', 'mail', 4102444800000"), "3|queued");
    assert_eq!(insert("service, function, state", "'shop', 'mail', 'delayed'"), "4|delayed");
    assert_eq!(insert("service, function, args", "'shop', 'mail', '[\"' || hex(zeroblob(50000)) || '\"]'"), "5|queued");
    place.session(
        r#"
        $ asyncq job list --json --limit 4 | cut -c -40
        [
        {"id":5,"service":"shop","function":"mai
        {"id":4,"service":"shop","function":"mai
        {"id":3,"service":"shop","function":"mai
        {"id":2,"service":"shop","function":"mai
        ]
        $ asyncq job list --json | grep -o '"state":"[a-z]*"'
        "state":"queued"
        "state":"delayed"
        "state":"delayed"
        "state":"held"
        "state":"queued"
        $ asyncq process | cut -c -20 | tr , .
        mail for order .[..]
        mail for order .[..]
        mail for order 00000
        "#,
    );
    let lengths = place.stdout("asyncq job log 5 | wc -c; asyncq job show 5 --json | wc -c");
    assert!(lengths.lines().all(|length| length.trim().parse::<usize>().unwrap() > 100_000), "{lengths}");
}

/// What looks like one of the things that are refused, and is none.
#[test]
fn values_that_the_database_does_not_refuse() {
    let place = application("WAL");
    let other = place.stdout("sqlite3 app.db 'SELECT sqlite_version()'");
    assert!(!other.is_empty());
    place.write(
        "calls.sql",
        r#"INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'mail', '["\\u0000"]');
           INSERT INTO asyncq_job (service, function, principal, site) VALUES ('shop', 'mail', '', '');
           INSERT INTO asyncq_job (service, function, principal) VALUES ('shop', 'mail', 'Zoë-[Ω] ^ 🧀' || char(65533, 65534, 65535));
           INSERT INTO asyncq_job (id, service, function, parent) VALUES (NULL, 'shop', 'mail', 1);
           INSERT INTO asyncq_job (service, function, run_at) VALUES ('shop', 'mail', 253402300799999);
           INSERT INTO asyncq_job (service, function, args, key, principal) VALUES
               ('shop', 'mail', '[1]', 'a', ''), ('shop', 'mail', '[2]', 'b', NULL), ('shop', 'mail', '[1]', 'a', NULL)
               ON CONFLICT (key) DO UPDATE SET key = excluded.key;"#,
    );
    place.session(
        r#"
        $ sqlite3 app.db < calls.sql
        $ sqlite3 app.db "SELECT id, principal IS NULL, site IS NULL, parent, state FROM asyncq_job"
        1|1|1||queued
        2|1|1||queued
        3|0|1||queued
        4|1|1|1|queued
        5|1|1||delayed
        6|1|1||queued
        7|1|1||queued
        $ asyncq process -q | wc -l
        6
        "#,
    );
}

/// Each UPDATE of docs/sql.md, and what else an ORM or a person may write.
#[test]
fn changes_that_a_client_may_make() {
    let place = application("WAL");
    place.program("slow", "#!/bin/sh\ntouch begun; until [ -e go ]; do sleep 0.01; done\n");
    let calls = "asyncq function add shop slow -- ./slow; asyncq enqueue shop slow; asyncq enqueue shop mail; asyncq enqueue --hold shop mail; asyncq enqueue --hold shop mail
        sqlite3 app.db \"INSERT INTO asyncq_job (service, function, run_at, key) VALUES ('shop', 'mail', 4102444800000, 'k')\"
        sqlite3 app.db \"INSERT INTO asyncq_job (service, function, state, run_at) VALUES ('shop', 'mail', 'held', 4102444800000)\"";
    place.stdout(calls);
    let process = place.start("asyncq process");
    crate::place::wait_until("it runs", || place.at("begun").exists());
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    client.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let change = |what: &str, id: i64| client.execute(&format!("UPDATE asyncq_job SET {what} WHERE id = ?1"), [id]);
    for (what, id) in [
        ("state = 'queued'", 1),
        ("state = 'queued', token = NULL, processor = NULL, attempt = 0", 1),
        ("state = 'cancelled'", 1),
        ("cancelling = 1", 1),
        ("state = 'completed', result = '1'", 1),
        ("state = 'completed', finished_at = 1", 1),
        ("state = 'completed'", 2),
        ("state = 'processing'", 2),
        ("state = 'held'", 2),
        ("state = 'delayed'", 2),
        ("state = 'error'", 2),
        ("id = 99", 2),
        ("args = '[5]'", 2),
        ("args = NULL, kwargs = NULL", 2),
        ("service = 'other'", 2),
        ("function = 'slow'", 2),
        ("principal = 'eve'", 2),
        ("site = '/tmp'", 2),
        ("key = 'mine'", 2),
        ("created_at = created_at - 1", 2),
        ("os_user = 'nobody at all'", 2),
        ("parent = 1", 2),
        ("finished_at = 1", 2),
        ("claim = 7", 2),
    ] {
        let refused = change(what, id).expect_err(what).to_string();
        assert_eq!(
            refused, "asyncq: a client may complete, cancel, release or postpone a job, and change nothing else",
            "{what}"
        );
    }
    let state = |id: i64| {
        let sql = "SELECT state || ifnull(finished_at > created_at - 1000, '') FROM asyncq_job WHERE id = ?1";
        client.query_row(sql, [id], |row| row.get::<_, String>(0)).unwrap()
    };
    for (id, what, then) in [
        (3, "state = 'queued'", "queued"),
        (6, "state = 'queued'", "delayed"),
        (4, "state = 'cancelled'", "cancelled1"),
        (5, "key = 'k'", "delayed"),
        (5, "state = 'cancelled'", "cancelled1"),
        (2, "state = state, args = args, priority = -1", "queued"),
        (2, "run_at = 4102444800000, expires_at = 4102444800001", "delayed"),
        (2, "run_at = created_at", "queued"),
        (2, "state = 'cancelled'", "cancelled1"),
        (1, "state = 'completed'", "completed1"),
    ] {
        assert_eq!(change(what, id).unwrap(), 1, "{what}");
        assert_eq!(state(id), then, "{what}");
    }
    for (what, id, why) in [
        ("run_at = run_at + 1", 1, "this call has begun"),
        ("priority = -1", 1, "this call has begun"),
        ("expires_at = 4102444800000", 4, "this call has begun"),
        ("run_at = 7", 3, "run_at must be in milliseconds since 1970"),
        ("expires_at = 7", 3, "expires_at must be in milliseconds since 1970"),
    ] {
        assert_eq!(change(what, id).unwrap_err().to_string(), format!("asyncq: {why}"), "{what}");
    }
    for what in ["state = 'queued'", "state = 'error'", "finished_at = NULL", "result = '2'"] {
        assert!(change(what, 5).is_err() && change(what, 1).is_err(), "{what}");
    }
    // What asyncq does by itself, and by hand, is another thing.
    place.stdout("asyncq job retry 2; asyncq job cancel 6; asyncq enqueue --hold shop mail; asyncq job start 7");
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!([2, 3, 6, 7].map(state), ["completed1", "completed1", "cancelled1", "completed1"]);
}

/// Most clients do without foreign keys.
#[test]
fn a_deletion_by_a_client_leaves_nothing_behind() {
    let place = application("WAL");
    place.stdout("asyncq enqueue shop mail; asyncq process");
    place.session(
        r#"
        $ sqlite3 app.db "INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'mail', json_array(hex(zeroblob(2000))))"
        $ sqlite3 app.db "DELETE FROM asyncq_job; SELECT (SELECT count(*) FROM asyncq_large) + (SELECT count(*) FROM asyncq_attempt)"
        0
        "#,
    );
}

/// The table of docs/limits.md, in SQL.
#[test]
fn a_key_with_a_lifetime_by_upsert() {
    const NOW: i64 = 1_700_000_000_000;
    const LATER: i64 = 4_102_444_800_000;
    let place = application("WAL");
    place.program("slow", "#!/bin/sh\ntouch begun; until [ -e go ]; do sleep 0.01; done\n");
    place.stdout("asyncq function add shop slow -- ./slow");
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    client.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    let upsert = |function: &str, (until, args, run_at): (&str, &str, i64), set: &str| {
        let sql = format!(
            "INSERT INTO asyncq_job (service, function, args, key, key_until, run_at) VALUES ('shop', ?1, ?2, ?1, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET {set} RETURNING id"
        );
        let values = (function, args, until, run_at);
        client.query_row(&sql, values, |row| row.get::<_, i64>(0)).map_err(|error| error.to_string())
    };
    let shown = |id: i64| {
        let sql = "SELECT state || ' ' || length(coalesce(j.args, l.args)) || ' ' || coalesce(length(l.args), 0)
            FROM asyncq_job j LEFT JOIN asyncq_large l ON l.job = j.id WHERE id = ?1";
        client.query_row(sql, [id], |row| row.get::<_, String>(0)).unwrap()
    };
    let (keep, replace) = ("key = excluded.key", "args = excluded.args, kwargs = excluded.kwargs");
    let postpone = &format!("{replace}, run_at = excluded.run_at");
    let large = &format!("[\"{}\"]", "x".repeat(3000));

    assert_eq!(upsert("mail", ("started", "[1]", NOW), keep).unwrap(), 1);
    assert_eq!(upsert("mail", ("started", "[22]", NOW), keep).unwrap(), 1);
    assert_eq!(shown(1), "queued 3 0");
    for (args, then) in
        [("[22]", "queued 4 0"), (large, "queued 3004 3004"), (large, "queued 3004 3004"), ("[1]", "queued 3 0")]
    {
        assert_eq!(upsert("mail", ("started", args, LATER), replace).unwrap(), 1);
        assert_eq!(shown(1), then);
    }
    for (run_at, then) in [
        (LATER, "delayed 4 0"),
        (LATER + 1, "delayed 4 0"),
        (NOW, "queued 4 0"),
        (LATER, "delayed 4 0"),
        (NOW, "queued 4 0"),
    ] {
        assert_eq!(upsert("mail", ("started", "[22]", run_at), postpone).unwrap(), 1);
        assert_eq!(shown(1), then);
    }
    assert_eq!(upsert("mail", ("started", large, NOW), replace).unwrap(), 1);
    // The two belong together where they are large.
    let alone = client.execute("UPDATE asyncq_job SET args = '[1]' WHERE id = 1", []).unwrap_err().to_string();
    assert_eq!(alone, "asyncq: kwargs must be a JSON object");
    for (what, why) in [
        ("args = '7', kwargs = '{}'", "args must be a JSON array"),
        ("args = '[]', kwargs = '[]'", "kwargs must be a JSON object"),
        ("args = '[]', kwargs = NULL", "kwargs must be a JSON object"),
        ("args = NULL, kwargs = '{}'", "args must be a JSON array"),
        (r#"args = '["\u0000"]', kwargs = '{}'"#, "args and kwargs must not hold NUL characters"),
        ("args = '[\"' || hex(zeroblob(600000)) || '\"]', kwargs = '{}'", "args and kwargs must be at most 1 MiB each"),
    ] {
        let refused = client.execute(&format!("UPDATE asyncq_job SET {what} WHERE id = 1"), []).unwrap_err();
        assert_eq!(refused.to_string(), format!("asyncq: {why}"), "{what}");
    }

    // A key until the call has ended: what has begun stays as it is.
    let slow = upsert("slow", ("ended", "[1]", NOW - 1), keep).unwrap();
    let processor = place.start("asyncq process");
    wait_until("it runs", || place.at("begun").exists());
    assert_eq!(upsert("slow", ("ended", "[22]", NOW), keep).unwrap(), slow);
    for set in [replace, postpone] {
        assert_eq!(upsert("slow", ("ended", "[22]", NOW), set).unwrap_err(), "asyncq: this call has begun");
    }
    // The key of the other one is free as soon as that is claimed.
    let free = "SELECT count(*) FROM asyncq_job WHERE key = 'mail'";
    place.write("go", "");
    assert!(processor.wait().status.success());
    assert_eq!(client.query_row(free, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert!(upsert("mail", ("started", "[1]", LATER), keep).unwrap() > slow);
    assert!(upsert("slow", ("ended", "[1]", LATER), keep).unwrap() > slow);
    // Without a lifetime, nothing changes.
    let sql = "INSERT INTO asyncq_job (service, function, args, key) VALUES ('shop', 'mail', '[5]', 'mail')
        ON CONFLICT (key) DO UPDATE SET key = excluded.key";
    assert_eq!(client.execute(sql, []).unwrap_err().to_string(), "asyncq: this key belongs to another call");
    // An upsert that frees a lane lets out the next.
    let in_lane = "INSERT INTO asyncq_job (service, function, lane, key, key_until, run_at) VALUES ('shop', 'mail', 'x', ?1, 'started', ?2)
        ON CONFLICT (key) DO UPDATE SET run_at = excluded.run_at RETURNING id";
    let lane = |key: &str, run_at: i64| client.query_row(in_lane, (key, run_at), |row| row.get::<_, i64>(0)).unwrap();
    let (first, second) = (lane("a", NOW), lane("b", NOW));
    let states = || [first, second].map(|id| shown(id).split(' ').next().unwrap().to_owned());
    assert_eq!(states(), ["queued", "blocked"]);
    lane("b", LATER);
    assert_eq!(states(), ["queued", "delayed"]);
    lane("b", NOW);
    assert_eq!(states(), ["queued", "blocked"]);
    lane("a", LATER);
    assert_eq!(states(), ["delayed", "queued"]);
    // A trigger of the application has the command line write as a client does.
    client.execute_batch("CREATE TRIGGER seen AFTER INSERT ON asyncq_job BEGIN SELECT 1; END").unwrap();
    let enqueue = "asyncq enqueue shop mail --lane x --key c --key-until started --if-taken postpone";
    let third = place.stdout(&format!("{enqueue} --in 1h"));
    assert_eq!(place.stdout(&format!("{enqueue} {}", "y".repeat(3000))), third);
    let third = third.trim().parse().unwrap();
    assert_eq!(shown(third), "blocked 3004 3004");
}

#[test]
fn a_key_is_safe_to_repeat_by_insert() {
    let place = application("WAL");
    let enqueue = |args: &str, key: &str| {
        let sql = format!(
            "INSERT INTO asyncq_job (service, function, args, key) VALUES ('shop', 'mail', {args}, '{key}')
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id"
        );
        let output = Command::new("sqlite3").arg("-batch").arg(place.at("app.db")).arg(&sql).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let large = "'[\"' || hex(zeroblob(5000)) || '\"]'";
    assert_eq!(enqueue("'[1]'", "order-1"), "1\n");
    assert_eq!(enqueue("'[1]'", "order-1"), "1\n");
    assert!(enqueue("'[2]'", "order-1").contains("asyncq: this key belongs to another call"));
    let second = enqueue(large, "order-2");
    assert_eq!(enqueue(large, "order-2"), second);
    assert!(enqueue("'[1]'", "order-2").contains("asyncq: this key belongs to another call"));
    // Both mouths mean the same.
    place.session(
        "$ asyncq enqueue shop mail 1 --key order-1\n1\n$ asyncq process | head -1 | tr , .\nmail for order 1. ",
    );
    assert_eq!(enqueue("'[1]'", "order-1"), "1\n");
}

#[test]
fn a_function_completes_its_job_in_its_own_transaction() {
    let place = application("WAL");
    place.program(
        "deliver",
        "#!/usr/bin/env python3
import json, os, signal, sqlite3, sys
call = json.loads(sys.stdin.readline())
db = sqlite3.connect(os.environ['ASYNCQ_DB'], isolation_level=None)
db.execute('BEGIN IMMEDIATE')
db.execute('INSERT INTO sent VALUES (?)', call['args'])
changed = db.execute('''UPDATE asyncq_job SET state = 'completed'
    WHERE id = :job AND attempt = :attempt AND token = :token AND state = 'processing' ''',
    {'job': call['job'], 'attempt': call['attempt'], 'token': os.environ['ASYNCQ_TOKEN']}).rowcount
assert changed == 1, changed
with open(os.environ['ASYNCQ_RESULT'], 'w') as result:
    result.write('\"delivered\"')
print('delivered', flush=True)
if call['kwargs'].get('die') == 'before':
    os.kill(os.getpid(), signal.SIGKILL)
db.execute('COMMIT')
if call['kwargs'].get('die') == 'after':
    os.kill(os.getpid(), signal.SIGKILL)
if call['kwargs'].get('die') == 'with':
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()
",
    );
    place.session(
        r#"
        $ asyncq function add shop deliver -- ./deliver
        $ asyncq enqueue shop deliver 1; asyncq process; asyncq job result 1
        1
        delivered
        "delivered"
        $ asyncq enqueue shop deliver 2 -k die=after; asyncq process; asyncq job result 2
        2
        delivered
        "delivered"
        $ asyncq job show 2 --json
        {[..]"state":"completed",[..]"finished_at":"2[..]"error":null,[..]"attempts":[{"attempt":1,[..]"ending":"completed","error":{"kind":"signal","message":"ended by signal 9 (SIGKILL)",[..]
        $ asyncq job log 2
        delivered
        $ asyncq enqueue shop deliver 3 -k die=before; asyncq process
        3
        delivered
        ! asyncq: job 3 (`shop` `deliver`): ended by signal 9 (SIGKILL)
        ? 1
        $ asyncq job retry 3; sqlite3 app.db "DROP TRIGGER asyncq_job_update; UPDATE asyncq_job SET kwargs = '{}' WHERE id = 3"; asyncq process
        delivered
        $ asyncq enqueue shop deliver 4 -k die=with; sh -c 'asyncq process; exit $?' >/dev/null 2>&1
        4
        ? 75
        $ asyncq process
        $ asyncq job show 4 --json
        {[..]"state":"completed",[..]"attempt":1,[..]"finished_at":"2[..]
        $ sqlite3 app.db 'SELECT group_concat(order_id) FROM sent; SELECT count(*) FROM asyncq_processor'
        1,2,3,4
        0
        "#,
    );
}

#[test]
fn an_application_may_keep_its_text_as_utf_16() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let mut place = Place::new();
        place.set("ASYNCQ_DB", "app.db");
        place.stdout(&format!("sqlite3 app.db \"PRAGMA encoding = '{encoding}'; CREATE TABLE orders (id)\""));
        place.program("mail", "#!/bin/sh\nasyncq is-async; asyncq enqueue shop echo \"$1\" ${2:+done}\n");
        place.session(
            "
            $ asyncq -q init; asyncq service add shop --concurrency 2; asyncq function add shop mail -- ./mail; asyncq function add shop echo -- echo
            $ asyncq enqueue shop mail käse; asyncq enqueue shop mail 🧀; asyncq process | sort
            1
            2
            käse
            true
            true
            🧀
            $ asyncq job list --json | grep -c '\"state\":\"completed\"'
            4
            ",
        );
        // Limits count as in any other database.
        let insert = |bytes: usize| {
            let args = format!("'[\"' || hex(zeroblob({})) || '\"]'", bytes / 2 - 2);
            let sql = format!("INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'echo', {args})");
            let output = Command::new("sqlite3").arg("-batch").arg(place.at("app.db")).arg(&sql).output().unwrap();
            String::from_utf8(output.stderr).unwrap()
        };
        assert_eq!(insert(1 << 20), "");
        assert!(insert((1 << 20) + 2).contains("asyncq: args and kwargs must be at most 1 MiB each"));
    }
}

#[test]
fn a_trigger_that_refuses_is_reported_as_such() {
    let place = application("WAL");
    trigger(&place, "BEFORE INSERT ON asyncq_job BEGIN SELECT RAISE(ABORT, 'too many calls today'); END");
    place.session(
        "
        $ asyncq enqueue shop mail
        ! error: trigger `own` refuses this: too many calls today
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        ",
    );
}

/// Whatever its name begins with, it sees each call once.
#[test]
fn a_trigger_of_the_application_sees_every_call() {
    let place = application("WAL");
    let audit = "CREATE TABLE audit (call, by);
        CREATE TRIGGER asyncq_audit AFTER INSERT ON asyncq_job BEGIN INSERT INTO audit VALUES (NEW.id, NEW.os_user); END";
    rusqlite::Connection::open(place.at("app.db")).unwrap().execute_batch(audit).unwrap();
    place.session(
        r#"
        $ asyncq enqueue shop mail 1
        1
        $ echo '{"service":"shop","function":"mail"}' | asyncq enqueue --batch -
        2
        $ sqlite3 app.db "INSERT INTO asyncq_job (service, function) VALUES ('shop', 'mail')"
        $ sqlite3 app.db "SELECT group_concat(call), count(by) FROM audit"
        1,2,3|2
        "#,
    );
}

#[test]
fn no_trigger_of_the_application_keeps_the_calls_of_a_dead_processor() {
    let place = application("WAL");
    place.program("mail", "#!/bin/sh\n[ $ASYNCQ_ATTEMPT = 2 ] || kill -9 $PPID\necho sent\n");
    place.stdout("asyncq enqueue shop mail");
    trigger(&place, "BEFORE UPDATE ON asyncq_job BEGIN SELECT RAISE(ABORT, 'leave my jobs alone'); END");
    place.run("asyncq process");
    place.session("$ asyncq process\nsent\n! asyncq: processor 1 [..] died; put back 1 of its jobs");
}

fn trigger(place: &Place, definition: &str) {
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    database.execute_batch(&format!("CREATE TRIGGER own {definition}")).unwrap();
}

/// It is put off by a second again and again, and nobody waits for it forever.
#[test]
fn no_processor_waits_long_for_a_call_that_a_rule_holds_back() {
    let place = application("WAL");
    place.stdout("asyncq enqueue --hold shop mail; asyncq enqueue shop mail");
    let rule = "CREATE UNIQUE INDEX one ON asyncq_job (function) WHERE state = 'held' OR state = 'processing'";
    place.stdout(&format!("sqlite3 app.db \"{rule}\""));
    let output = place.run("asyncq process --wait 1200ms");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), stderr.contains("index `one` refuses this")), (Some(77), true), "{stderr}");
}

#[test]
fn a_trigger_of_the_application_that_fails_is_named_and_no_damage() {
    for (action, why) in [
        ("INSERT INTO sent VALUES (1); INSERT INTO sent VALUES (1)", "UNIQUE constraint failed: sent.order_id"),
        ("INSERT INTO orders (item) VALUES (NULL)", "NOT NULL constraint failed: orders.item"),
        ("SELECT only_in_the_application(NEW.id)", "no such function: only_in_the_application"),
        ("INSERT INTO not_there VALUES (1)", "no such table: main.not_there"),
        ("INSERT INTO asyncq_audit VALUES (1)", "no such table: main.asyncq_audit"),
        ("SELECT RAISE(ROLLBACK, 'not today')", "not today"),
        ("SELECT RAISE(FAIL, 'not today')", "not today"),
        ("SELECT RAISE(IGNORE)", "RAISE(IGNORE)"),
    ] {
        let place = application("WAL");
        trigger(&place, &format!("BEFORE INSERT ON asyncq_job BEGIN {action}; END"));
        place.session(&format!(
            "
            $ asyncq enqueue shop mail
            ! error: trigger `own` refuses this: {why}
            ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
            ? 77
            $ asyncq init; asyncq job list
            ! asyncq: `[..]app.db` is up to date
            "
        ));
    }
}

#[test]
fn a_request_that_a_trigger_of_the_application_refuses_affects_no_other() {
    for (time, action) in [("BEFORE", "ABORT"), ("BEFORE", "ROLLBACK"), ("AFTER", "FAIL")] {
        let place = application("WAL");
        let refuses = format!("BEGIN SELECT RAISE({action}, 'not today'); END");
        trigger(&place, &format!("{time} INSERT ON asyncq_job WHEN NEW.args = '[3]' {refuses}"));
        let call = |number: usize| format!(r#"{{"service":"shop","function":"mail","args":[{number}]}}"#);
        let request = |id: usize, params: &str| {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"enqueue\",\"params\":{params}}}\n")
        };
        let listed = format!(r#"{{"calls":[{},{},{}]}}"#, call(6), call(3), call(7));
        let requests: String = (1..=5).map(|id| request(id, &call(id))).collect();
        place.write("requests", &format!("{requests}{}", request(6, &listed)));
        let answers = place.stdout("asyncq rpc < requests");
        let shorter = answers.replace(r#"{"jsonrpc":"2.0","id":"#, "").replace(r#","new":true}"#, "");
        let refused = r#""error":{"code":77,"message":"trigger `own` refuses this: not today","#;
        let parts: Vec<&str> = shorter.lines().map(|line| line.split(r#""data""#).next().unwrap()).collect();
        assert_eq!(
            parts[..5],
            [
                r#"1,"result":{"job":1}"#,
                r#"2,"result":{"job":2}"#,
                &format!("3,{refused}"),
                r#"4,"result":{"job":3}"#,
                r#"5,"result":{"job":4}"#,
            ]
        );
        assert_eq!(parts[5], format!(r#"6,"result":{{"jobs":[{{"job":5,{{{refused}"#));
        let made = place.stdout("asyncq job list --json");
        assert_eq!((made.matches(r#""args":["#).count(), made.matches("[3]").count()), (6, 0), "{time} {action}");
        // Of calls that belong together, the one that is refused is named.
        let together = request(1, &format!(r#"{{"calls":[{},{}],"atomic":true}}"#, call(1), call(3)));
        place.write("requests", &together);
        let answer = place.stdout("asyncq rpc < requests");
        assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":1,{refused}"#)), "{answer}");
        assert!(answer.contains(r#""call":1"#), "{answer}");
        place.write("calls", &[1, 2, 3, 4].map(call).join("\n"));
        place.session(
            "
            $ asyncq enqueue --batch calls
            7
            8
            ! error: line 3: trigger `own` refuses this: not today; the lines before it were enqueued
            ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
            ? 77
            ",
        );
    }
}

/// A key that is checked at the commit says nothing of the call that breaks it.
#[test]
fn a_request_that_spoils_the_commit_affects_no_other() {
    let place = application("WAL");
    let tables = "CREATE TABLE customer (id INTEGER PRIMARY KEY);
        CREATE TABLE mailed (customer INTEGER REFERENCES customer (id) DEFERRABLE INITIALLY DEFERRED)";
    rusqlite::Connection::open(place.at("app.db")).unwrap().execute_batch(tables).unwrap();
    trigger(&place, "AFTER INSERT ON asyncq_job WHEN NEW.args = '[3]' BEGIN INSERT INTO mailed VALUES (7); END");
    let requests = (1..=5).map(|id| {
        let params = format!(r#"{{"service":"shop","function":"mail","args":[{id}]}}"#);
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"enqueue\",\"params\":{params}}}\n")
    });
    place.write("requests", &requests.collect::<String>());
    let answers = place.stdout("asyncq rpc < requests");
    assert_eq!((answers.matches("\"new\":true").count(), place.count("")), (4, 4), "{answers}");
    assert!(answers.contains(r#""id":3,"error":{"code":77"#), "{answers}");
}

/// What Django and others make: checks and indexes with functions and collations that only the application has.
const OWN_FUNCTIONS: &str = "import sqlite3
db = sqlite3.connect('app.db')
db.create_function('regexp', 2, lambda pattern, value: 1, deterministic=True)
db.create_function('year_of', 1, lambda value: 2000, deterministic=True)
db.create_collation('mine', lambda a, b: (a > b) - (a < b))
db.executescript('''
    CREATE TABLE codes (code TEXT CHECK (code REGEXP '^x'), made TEXT COLLATE mine);
    CREATE INDEX codes_year ON codes (year_of(made));
    CREATE INDEX codes_made ON codes (made);
    CREATE INDEX codes_code ON codes (code);
    CREATE TRIGGER codes_trigger AFTER INSERT ON codes BEGIN SELECT year_of(NEW.made); END;
    CREATE VIEW years AS SELECT year_of(made) FROM codes;
    INSERT INTO codes VALUES ('x1', 'today');
''')
";

#[test]
fn an_application_may_have_functions_and_collations_of_its_own() {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "app.db");
    place.write("setup.py", OWN_FUNCTIONS);
    place.stdout("python3 setup.py");
    place.session(
        "
        $ asyncq -q init; asyncq service add shop; asyncq function add shop mail -- echo
        $ asyncq enqueue shop mail sent; asyncq process
        1
        sent
        $ asyncq init
        ! asyncq: `[..]app.db` is up to date
        ",
    );
    place.session(
        "
        $ asyncq backup b.db
        [..]/b.db
        ! asyncq: the database also holds tables of an application: the backup is the whole database
        $ sqlite3 b.db 'SELECT code FROM codes NOT INDEXED; SELECT count(*) FROM asyncq_job'
        x1
        1
        $ asyncq -q backup c.db
        [..]/c.db
        ",
    );
    // asyncq looks through its own tables, and through no others.
    let exchange = |index: &str, other: &str| {
        let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
        let sql = "UPDATE sqlite_schema SET rootpage = (SELECT sum(rootpage) FROM sqlite_schema
            WHERE name IN (?1, ?2)) - rootpage WHERE name IN (?1, ?2)";
        database.execute_batch("PRAGMA writable_schema = 1").unwrap();
        assert_eq!(database.execute(sql, [index, other]).unwrap(), 2);
    };
    exchange("codes_code", "codes_made");
    place.session("$ asyncq init\n! asyncq: `[..]app.db` is up to date");
    place.stdout("asyncq enqueue shop mail --hold");
    exchange("asyncq_job_stopped", "asyncq_job_parent");
    place.session("$ asyncq init\n! error: the store is damaged: [..]\n...\n? 65");
}

#[test]
fn a_restore_of_an_applications_database_is_of_all_of_it_and_has_to_be_meant() {
    for mode in ["WAL", "DELETE"] {
        let place = application(mode);
        place.stdout("asyncq -q backup b.db; asyncq -q --db own.db init");
        let query = |sql: &str| place.stdout(&format!("sqlite3 app.db \"{sql}\""));
        query("CREATE TABLE later (id INTEGER); PRAGMA user_version = 7");
        let refused = |command: &str, file: &str| {
            place.session(&format!(
                "
                $ asyncq {command}
                ! error: `[..]/{file}` also holds tables of an application
                ! hint: a restore puts back the whole file, with all that the application has in it: stop the application, then use `--force`
                ? 77
                "
            ));
        };
        refused("restore b.db", "app.db");
        refused("--db own.db restore b.db", "b.db");
        refused("restore own.db", "app.db");
        assert_eq!(query("PRAGMA user_version"), "7\n");
        place.session(
            "$ asyncq restore b.db --force\n! asyncq: restored `[..]/app.db` from `b.db`; what was there is in `[..]`",
        );
        assert_eq!(query("SELECT count(*) FROM sqlite_schema WHERE name = 'later'"), "0\n");
        assert_eq!(query("PRAGMA journal_mode"), format!("{}\n", mode.to_lowercase()));
        assert_eq!(query("PRAGMA integrity_check"), "ok\n");
    }
}

#[test]
fn an_index_of_the_application_that_refuses_a_call_is_named_and_no_damage() {
    let place = application("WAL");
    place.write(
        "index.py",
        "import sqlite3
db = sqlite3.connect('app.db')
db.create_function('year_of', 1, lambda value: 2000, deterministic=True)
db.execute('CREATE INDEX years ON asyncq_job (year_of(created_at))')
",
    );
    place.session(
        "
        $ python3 index.py; asyncq enqueue shop mail
        ! error: index `years` refuses this: unknown function: year_of()
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        $ asyncq init
        ! error: index `years` refuses this: unknown function: year_of()
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        $ sqlite3 app.db 'DROP INDEX years; CREATE UNIQUE INDEX only_once ON asyncq_job (function, args)'
        $ asyncq enqueue shop mail 1; asyncq enqueue shop mail 1
        1
        ! error: index `only_once` refuses this: UNIQUE constraint failed: asyncq_job.function, asyncq_job.args
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        $ sqlite3 app.db 'DROP INDEX only_once; CREATE UNIQUE INDEX asyncq_mine ON asyncq_job (lower(args))'
        $ asyncq enqueue shop mail 1 2>&1 | head -1
        error: index `asyncq_mine` refuses this: UNIQUE constraint failed: index 'asyncq_mine'
        ",
    );
}

#[test]
fn a_service_that_an_application_refers_to_stays() {
    for how in ["", "DEFERRABLE INITIALLY DEFERRED", "ON DELETE RESTRICT", "ON DELETE SET NULL NOT NULL"] {
        let place = application("WAL");
        place.stdout(&format!(
            "sqlite3 app.db \"CREATE TABLE shops (name TEXT REFERENCES asyncq_service (name) {how}); INSERT INTO shops VALUES ('shop')\""
        ));
        place.session(
            "
            $ asyncq service remove shop
            ! error: a foreign key of table `shops` refuses this: [..]
            ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
            ? 77
            ",
        );
    }
}

#[test]
fn jobs_without_references_are_removed() {
    for (how, why) in [
        ("REFERENCES asyncq_job (id)", "table `mails` refers to job 2"),
        ("REFERENCES asyncq_job", "table `mails` refers to job 2"),
        ("REFERENCES asyncq_job (id) DEFERRABLE INITIALLY DEFERRED", "table `mails` refers to job 2"),
        ("REFERENCES asyncq_job (id) ON DELETE RESTRICT", "table `mails` refers to job 2"),
        (
            "NOT NULL REFERENCES asyncq_job (id) ON DELETE SET NULL",
            "a foreign key of table `mails` refuses this: NOT NULL constraint failed: mails.job",
        ),
    ] {
        let place = application("WAL");
        place.stdout("for item in 1 2 3 4; do asyncq enqueue shop mail $item; done; asyncq process");
        place.stdout(&format!(
            "sqlite3 app.db \"CREATE TABLE mails (id INTEGER PRIMARY KEY, job INTEGER {how}); INSERT INTO mails (job) VALUES (2), (3)\""
        ));
        place.session(&format!(
            "
            $ asyncq job clean
            ! error: 2 jobs stay as they are: {why}
            ! hint: that rule is the application's, not asyncq's: change the rule, or the data that it checks
            ? 77
            $ asyncq job list --json | grep -o '\"id\":[0-9]*'
            \"id\":3
            \"id\":2
            $ sqlite3 app.db 'DELETE FROM mails'; asyncq job clean
            "
        ));
    }
}

#[test]
fn a_refusal_among_many_jobs_does_not_affect_the_others() {
    let place = application("WAL");
    place.stdout("for item in 1 2 3 4; do asyncq enqueue shop mail $item; done");
    trigger(&place, "BEFORE UPDATE ON asyncq_job WHEN NEW.id = 2 BEGIN SELECT RAISE(ABORT, 'that one is mine'); END");
    place.session(
        "
        $ asyncq job cancel --all
        ! asyncq: cancelled 3 jobs
        ! error: 1 job stays as it is: trigger `own` refuses this: that one is mine
        ! hint: that rule is the application's, not asyncq's: change the rule, or the data that it checks
        ? 77
        $ sqlite3 app.db 'DROP TRIGGER own'
        ",
    );
    trigger(&place, "BEFORE UPDATE ON asyncq_job BEGIN SELECT RAISE(IGNORE); END");
    place.session(
        "
        $ asyncq job cancel 2
        ! error: trigger `own` refuses this: RAISE(IGNORE)
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        $ asyncq job list --state queued | wc -l
        2
        ",
    );
}

#[test]
fn a_change_of_many_that_a_trigger_ignores_is_reported() {
    let place = application("WAL");
    place.stdout(
        "for item in 1 2 3; do asyncq enqueue shop mail $item; done; asyncq process; asyncq enqueue shop mail 4 --hold",
    );
    trigger(&place, "BEFORE DELETE ON asyncq_job WHEN OLD.id < 3 BEGIN SELECT RAISE(IGNORE); END");
    let hint = "! hint: that rule is the application's, not asyncq's: change the rule, or the data that it checks";
    place.session(&format!(
        "
        $ asyncq -v job clean
        ! asyncq: removed 1 job
        ! error: 2 jobs stay as they are: trigger `own` refuses this: RAISE(IGNORE)
        {hint}
        ? 77
        $ asyncq job list --json | grep -o '\"id\":[0-9]*'
        \"id\":4
        \"id\":2
        \"id\":1
        $ sqlite3 app.db 'DROP TRIGGER own'; asyncq -v job clean
        ! asyncq: removed 2 jobs
        "
    ));
    place.program("mail", "#!/bin/sh\nexit 3\n");
    place.stdout("asyncq enqueue shop mail 5; asyncq process; true");
    trigger(&place, "BEFORE UPDATE ON asyncq_job BEGIN SELECT RAISE(IGNORE); END");
    for (change, said) in [
        ("retry --state error", "queued 0 jobs again"),
        ("start --all", "released 0 jobs"),
        ("cancel --all", "cancelled 0 jobs"),
    ] {
        place.session(&format!(
            "
            $ asyncq job {change}
            ! asyncq: {said}
            ! error: 1 job stays as it is: trigger `own` refuses this: RAISE(IGNORE)
            {hint}
            ? 77
            "
        ));
    }
}

/// Whatever the states of the jobs, which are removed state by state.
#[test]
fn the_refusal_of_the_oldest_of_many_jobs_is_reported() {
    let place = application("WAL");
    place.stdout("for item in 1 2 3; do asyncq enqueue shop mail $item; done; asyncq job cancel 1; asyncq process");
    trigger(&place, "BEFORE DELETE ON asyncq_job BEGIN SELECT RAISE(ABORT, 'not job ' || OLD.id); END");
    place.session(
        "
        $ asyncq job clean
        ! error: 3 jobs stay as they are: trigger `own` refuses this: not job 1
        ! hint: that rule is the application's, not asyncq's: change the rule, or the data that it checks
        ? 77
        ",
    );
}

#[test]
fn a_service_that_gets_a_call_from_a_trigger_while_it_is_removed_stays_as_it_is() {
    let place = application("WAL");
    place.stdout("asyncq enqueue shop mail 1; asyncq enqueue shop mail 2 --hold");
    let calls = "INSERT INTO asyncq_job (service, function) VALUES ('shop', 'mail')";
    trigger(&place, &format!("AFTER UPDATE ON asyncq_job WHEN NEW.state = 'cancelled' BEGIN {calls}; END"));
    for (what, removed) in
        [("service `shop`", "service remove shop"), ("function `mail` of service `shop`", "function remove shop mail")]
    {
        place.session(&format!(
            "
            $ asyncq {removed} --force
            ! error: {what} got a new call while its jobs were cancelled
            ! hint: a trigger of the application makes that call: change the trigger, or drop it
            ? 77
            $ asyncq job list
            ID[..]
            2 [..] held [..]
            1 [..] queued [..]
            $ asyncq function list
            SERVICE[..]
            shop     mail [..]
            "
        ));
    }
    // A trigger that passes a job over, and one that cancels another job itself.
    place.stdout("sqlite3 app.db 'DROP TRIGGER own'");
    trigger(&place, "BEFORE UPDATE ON asyncq_job WHEN NEW.id = 2 BEGIN SELECT RAISE(IGNORE); END");
    place.session(
        "
        $ asyncq service remove shop --force
        ! error: trigger `own` refuses this: RAISE(IGNORE)
        ! hint: it belongs to the application, not to asyncq: change it, or the data that it checks
        ? 77
        $ sqlite3 app.db 'DROP TRIGGER own'
        ",
    );
    let cancels = "UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1 AND state = 'queued'";
    trigger(&place, &format!("AFTER UPDATE ON asyncq_job WHEN NEW.id = 2 BEGIN {cancels}; END"));
    place.session(
        "
        $ asyncq service remove shop --force
        ! asyncq: cancelled 2 waiting jobs: 1, 2
        $ asyncq service list
        ",
    );
}

#[test]
fn a_nested_call_that_a_trigger_changes_is_reported_as_such() {
    let place = application("WAL");
    place.stdout("asyncq function add shop order -- asyncq enqueue shop mail");
    let defer = "! hint: change the trigger, or queue the call with `--defer`";
    for (action, said, hint) in [
        (
            "UPDATE asyncq_job SET state = 'cancelled' WHERE id = NEW.id",
            "a trigger of the application has made this call cancelled, so that it cannot run at once",
            defer,
        ),
        (
            "DELETE FROM asyncq_job WHERE id = NEW.id",
            "a trigger of the application has removed this call, so that it cannot run at once",
            defer,
        ),
        (
            "SELECT RAISE(ABORT, 'not inside')",
            "trigger `own` refuses this: not inside",
            "! hint: it belongs to the application, not to asyncq: change it, or the data that it checks",
        ),
    ] {
        trigger(&place, &format!("AFTER INSERT ON asyncq_job WHEN NEW.parent IS NOT NULL BEGIN {action}; END"));
        place.session(&format!(
            "
            $ asyncq enqueue shop order > number; asyncq process
            ! error: {said}
            {hint}
            ! asyncq: job [..] (`shop` `order`): exit code 77
            ? 1
            $ sqlite3 app.db 'DROP TRIGGER own; SELECT count(*) FROM asyncq_job WHERE parent IS NOT NULL'
            0
            "
        ));
    }
}

#[test]
fn a_job_that_changes_before_its_turn_is_not_reported_as_refused() {
    let place = application("WAL");
    place.stdout("for item in 1 2 3; do asyncq enqueue shop mail $item; done");
    // The first change takes the second job away, as another process may.
    let takes = "UPDATE asyncq_job SET state = 'cancelled', finished_at = NEW.finished_at WHERE id = 2";
    trigger(&place, &format!("AFTER UPDATE ON asyncq_job WHEN NEW.id = 1 BEGIN {takes}; END"));
    place.session(
        "
        $ asyncq job cancel --all
        ! asyncq: cancelled 2 jobs
        $ sqlite3 app.db 'SELECT group_concat(state) FROM asyncq_job'
        cancelled,cancelled,cancelled
        $ sqlite3 app.db 'DROP TRIGGER own'
        ",
    );
    let goes = "DELETE FROM asyncq_job WHERE id = 2";
    trigger(&place, &format!("AFTER DELETE ON asyncq_job WHEN OLD.id = 1 BEGIN {goes}; END"));
    place.session("$ asyncq -v job clean\n! asyncq: removed 2 jobs");
}

#[test]
fn a_rule_of_the_application_that_refuses_one_outcome_keeps_no_processor_from_the_rest() {
    let place = application("WAL");
    place.program(
        "again",
        "#!/bin/sh\n[ -e second ] || asyncq enqueue --defer shop again >/dev/null; touch second; exit $1\n",
    );
    place.session(
        "
        $ asyncq function add shop again -- ./again
        $ sqlite3 app.db \"CREATE UNIQUE INDEX one_waits ON asyncq_job (function) WHERE state IN ('queued', 'delayed')\"
        $ asyncq enqueue shop again 75; asyncq enqueue shop mail 1; asyncq process
        1
        2
        mail for order 1, 
        ! asyncq: job 1 (`shop` `again`): a rule of the application refuses its outcome; `asyncq job show 1` names it
        ? 1
        $ asyncq job list --json | grep -o '\"state\":\"[a-z]*\"\\|\"message\":\"[^\"]*\"'
        \"state\":\"completed\"
        \"state\":\"completed\"
        \"state\":\"error\"
        \"message\":\"index `one_waits` refuses this: UNIQUE constraint failed: asyncq_job.function\"
        $ asyncq process; sqlite3 app.db 'SELECT count(*) FROM asyncq_processor'
        0
        ",
    );
}

#[test]
fn a_job_that_cannot_be_put_back_ends_in_an_error() {
    let place = application("WAL");
    place.program(
        "mail",
        "#!/bin/sh\n[ -e again ] || { touch again; asyncq enqueue --defer shop mail >/dev/null; kill -9 $PPID; }\n",
    );
    place.stdout("sqlite3 app.db \"CREATE UNIQUE INDEX one_waits ON asyncq_job (function) WHERE state = 'queued'\"");
    place.stdout("asyncq enqueue shop mail; asyncq process; true");
    place.session(
        "
        $ asyncq process
        ! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs ended in an error (`asyncq job list --state error` shows why)
        ? 1
        $ sqlite3 app.db 'SELECT group_concat(state) FROM asyncq_job'
        error,completed
        ",
    );
}

#[test]
fn calls_that_a_rule_of_the_application_holds_back_are_in_no_other_s_way() {
    let place = application("WAL");
    place.program("mail", "#!/bin/sh\necho \"$1\" >> begun\n[ $1 = 3 ] || until [ -e go ]; do sleep 0.01; done\n");
    place.session(
        "
        $ asyncq service set shop --concurrency 3; asyncq function add shop other -- ./mail
        $ sqlite3 app.db \"CREATE UNIQUE INDEX one_runs ON asyncq_job (function) WHERE state = 'processing'\"
        $ asyncq enqueue shop mail 1; asyncq enqueue shop mail 2; asyncq enqueue shop other 3
        1
        2
        3
        ",
    );
    let process = place.start("asyncq process");
    wait_until("the others begin", || place.read("begun").lines().count() == 2);
    place.write("go", "");
    let output = process.wait();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("index `one_runs` refuses this: UNIQUE constraint failed: asyncq_job.function; "), "{told}");
    assert_eq!(output.status.code(), Some(77));
    assert_eq!(place.stdout("sort begun"), "1\n3\n");
    wait_until("the last one is run", || {
        place.run("asyncq process");
        place.stdout("sort begun") == "1\n2\n3\n"
    });
}

#[test]
fn a_store_of_an_older_asyncq_beside_functions_of_the_application_is_upgraded() {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "app.db");
    place.write("setup.py", OWN_FUNCTIONS);
    place.write("schema-1.sql", include_str!("../store/fixtures/schema-1.sql"));
    place.stdout("python3 setup.py; sqlite3 app.db '.read schema-1.sql'");
    place.session(
        "
        $ asyncq init 2>&1 | head -1
        asyncq: the store `[..]app.db` is ready
        $ asyncq init; asyncq service list
        ! asyncq: `[..]app.db` is up to date
        ",
    );
}

#[test]
fn an_application_that_locks_its_database_ends_no_call() {
    let mut place = Place::new();
    place.stdout("sqlite3 app.db 'PRAGMA journal_mode=DELETE; CREATE TABLE t (x)'");
    place.set("ASYNCQ_DB", "app.db");
    place.stdout("asyncq -q init; asyncq service add events");
    place.function("waits", "", "touch begun; until [ -e go ]; do sleep 0.01; done; echo $ASYNCQ_JOB >> runs");
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process --lock-timeout 100ms");
    wait_until("the call begins", || place.at("begun").exists());
    let application = rusqlite::Connection::open(place.at("app.db")).unwrap();
    application.busy_timeout(Duration::from_secs(30)).unwrap();
    application.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Meanwhile, somebody who has nothing at stake gives up.
    let refused = place.run("asyncq enqueue events waits --lock-timeout 400ms");
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    application.execute_batch("COMMIT").unwrap();
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.read("runs"), "1\n");
}

/// In a database without a WAL, a writer keeps readers out.
#[test]
fn a_read_that_meets_a_lock_waits_once() {
    let mut place = Place::new();
    place.stdout("sqlite3 app.db 'PRAGMA journal_mode=DELETE; CREATE TABLE t (x)'");
    place.set("ASYNCQ_DB", "app.db");
    place.stdout("asyncq -q init; asyncq service add events");
    place.function("nothing", "", "true");
    place.enqueue_many("nothing", 1200);
    let mut read = place.start("asyncq job list --json --lock-timeout 2s");
    let mut stdout = read.0.stdout.take().unwrap();
    wait_until("its first page waits to be read", || rustix::io::ioctl_fionread(&stdout).unwrap() > 60_000);
    let application = rusqlite::Connection::open(place.at("app.db")).unwrap();
    application.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    // Somebody who is patient for half as long again gives up later.
    let later = place.run("asyncq job list --lock-timeout 3s");
    let ended = read.0.try_wait().unwrap();
    assert_eq!((ended.and_then(|status| status.code()), later.status.code()), (Some(75), Some(75)));
    reader.join().unwrap().unwrap();
}

#[test]
fn a_trigger_that_cancels_another_of_many_jobs_is_not_overruled() {
    let mut place = Place::new();
    place.stdout("sqlite3 app.db 'CREATE TABLE t (x)'");
    place.set("ASYNCQ_DB", "app.db");
    place.stdout("asyncq -q init; asyncq service add events");
    place.function("nothing", "", "true");
    place.stdout("for n in $(seq 30); do asyncq enqueue events nothing --hold; done");
    let cancels = "BEGIN UPDATE asyncq_job SET state = 'cancelled' WHERE id = NEW.id + 10 AND state = 'held'; END";
    trigger(&place, &format!("AFTER UPDATE ON asyncq_job WHEN NEW.state = 'queued' AND NEW.id <= 5 {cancels}"));
    place.stdout("asyncq job start --all");
    let cancelled =
        place.stdout("sqlite3 app.db \"SELECT group_concat(id) FROM asyncq_job WHERE state = 'cancelled'\"");
    assert_eq!(cancelled, "11,12,13,14,15\n");
}

#[test]
fn calls_inside_a_call_that_a_rule_of_the_application_refuses_are_counted_and_harm_nothing() {
    let place = Place::with_functions(&[]);
    let body = "
hello()
inside = [{'service': 'events', 'function': name, 'depth': depth} for name, depth in [('add', 1), ('log', 2), ('add', 1)]]
say(id=hear()['id'], result={'value': 1, 'nested': inside})";
    place.program("work.py", &format!("{WORKER}{body}"));
    place.stdout("asyncq function add events work --worker -- ./work.py && asyncq enqueue events work");
    place.execute("CREATE UNIQUE INDEX mine ON asyncq_job (immediate) WHERE immediate = 1");
    place.session("$ asyncq process");
    assert_eq!(place.jobs("function state result parent"), "work completed 1, add completed 1");
    assert_eq!(place.job(1)["attempts"][0]["unrecorded"], 2);
}

#[test]
fn a_call_inside_that_a_rule_of_the_application_refuses_falls_out_with_those_inside_it() {
    let place = Place::with_functions(&[]);
    let body = "
hello()
calls = [(1, 1, []), (13, 1, []), (2, 1, []), (13, 1, ['x' * 3000]), (13, 1, []), (3, 2, []), (4, 1, []), (5, 2, [])]
inside = [{'service': 'events', 'function': 'add', 'depth': depth, 'args': [number, *more]} for number, depth, more in calls]
say(id=hear()['id'], result={'nested': inside})";
    place.program("work.py", &format!("{WORKER}{body}"));
    place.stdout("asyncq function add events work --worker -- ./work.py && asyncq enqueue events work");
    place.execute("CREATE UNIQUE INDEX mine ON asyncq_job (args) WHERE args = '[13]'");
    place.session("$ asyncq process");
    assert_eq!(
        place.jobs("id args parent").replace(&"x".repeat(3000), "LONG"),
        "1 [], 2 [1] 1, 3 [13] 1, 4 [2] 1, 5 [13, \"LONG\"] 1, 6 [4] 1, 7 [5] 6"
    );
    assert_eq!(place.job(1)["attempts"][0]["unrecorded"], 2);
}

#[test]
fn clients_use_lanes_and_needs_by_plain_sql() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    let database = rusqlite::Connection::open(place.store()).unwrap();
    let sql = |text: &str| database.execute_batch(text).unwrap();
    sql(
        "INSERT INTO asyncq_job (service, function, args, lane) VALUES ('events', 'say', '[1]', 'a'), ('events', 'say', '[2]', 'a')",
    );
    sql("INSERT INTO asyncq_job (service, function, args, after) VALUES ('events', 'say', '[3]', '[2]')");
    sql("INSERT INTO asyncq_job (service, function, args, after) VALUES ('events', 'say', '[4]', '{\"any\": [3]}')");
    assert_eq!(place.jobs("state"), "queued, blocked, blocked, blocked");
    place.session(
        "
        $ asyncq process
        1
        2
        3
        4
        ",
    );
    sql(
        "INSERT INTO asyncq_job (service, function, args, lane) VALUES ('events', 'say', '[5]', 'a'), ('events', 'say', '[6]', 'a')",
    );
    sql("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 5");
    assert_eq!(place.jobs("state"), "completed, completed, completed, completed, cancelled, queued");
}

/// A client cannot bring a call out of the reach of processors, nor run it before it is due.
#[test]
fn a_client_blocks_no_call_by_hand() {
    let place = application("WAL");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    let run = |sql: &str| database.execute_batch(sql).map_err(|error| error.to_string());
    run("INSERT INTO asyncq_job (service, function) VALUES ('shop', 'mail')").unwrap();
    run("INSERT INTO asyncq_job (service, function, lane, run_at) VALUES ('shop', 'mail', 'x', 4102444800000)")
        .unwrap();
    run("INSERT INTO asyncq_job (service, function, lane, state) VALUES ('shop', 'mail', 'x', 'held')").unwrap();
    for change in [
        "state = 'blocked' WHERE id = 1",
        "state = 'blocked', waits = 1 WHERE id = 1",
        "state = 'blocked', waits = 2 WHERE id = 1",
        "waits = 7 WHERE id = 1",
        "state = 'blocked', waits = 2 WHERE id = 2",
        "state = 'blocked', waits = 1 WHERE id = 2",
        "state = 'blocked', waits = 2 WHERE id = 3",
    ] {
        let refused = run(&format!("UPDATE asyncq_job SET {change}")).unwrap_err();
        assert!(refused.starts_with("asyncq: a client may complete"), "{change}: {refused}");
    }
    assert_eq!(place.jobs("state"), "queued, delayed, held");
}

#[test]
fn a_call_that_needs_others_can_be_repeated_with_its_key() {
    let place = application("WAL");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    database.execute_batch("INSERT INTO asyncq_job (service, function) VALUES ('shop', 'mail')").unwrap();
    let repeat = || {
        let sql = "INSERT INTO asyncq_job (service, function, key, after) VALUES ('shop', 'mail', 'k', '[1]')
            ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id";
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(repeat(), 2);
    database.execute_batch("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1").unwrap();
    assert_eq!(repeat(), 2);
}

#[test]
fn a_lane_goes_on_after_a_rule_of_the_application_has_refused_its_next_call() {
    let place = application("WAL");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    database.execute_batch("CREATE UNIQUE INDEX one ON asyncq_job (function) WHERE state = 'queued'").unwrap();
    place.session(
        "
        $ asyncq enqueue shop mail --lane a; asyncq enqueue shop mail --lane b
        1
        2
        $ asyncq process --wait 10s | grep -c mail
        2
        ",
    );
}

#[test]
fn a_client_puts_no_call_into_the_lane_of_its_function_that_may_already_run() {
    let place = application("WAL");
    place.program("slow", "#!/bin/sh\ntouch begun; until [ -e go ]; do sleep 0.01; done\n");
    place.session(
        "
        $ asyncq function add shop slow -- ./slow; asyncq enqueue shop slow; asyncq enqueue shop slow
        1
        2
        $ asyncq enqueue --hold shop slow; asyncq enqueue --in 1h shop slow
        3
        4
        $ asyncq function set shop slow --lane one
        $ asyncq enqueue shop slow; asyncq enqueue shop slow
        5
        6
        ",
    );
    let process = place.start("asyncq process --max-jobs 1");
    crate::place::wait_until("the first call runs", || place.at("begun").exists());
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    client.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    for id in [1, 2] {
        let refused = client.execute("UPDATE asyncq_job SET lane = 'one' WHERE id = ?1", [id]).unwrap_err();
        assert!(refused.to_string().starts_with("asyncq: a client may "), "{refused}");
    }
    // Those get in line when they are due.
    client.execute("UPDATE asyncq_job SET lane = 'one' WHERE id IN (3, 4)", []).unwrap();
    client.execute("UPDATE asyncq_job SET state = 'queued' WHERE id = 3", []).unwrap();
    client.execute("UPDATE asyncq_job SET run_at = created_at WHERE id = 4", []).unwrap();
    place.session(
        "
        $ asyncq job list --output csv --state queued | grep -c shop; asyncq job list --output csv --state blocked | grep -c shop
        2
        3
        ",
    );
    place.write("go", "");
    assert!(process.wait().status.success());
    place.session("$ asyncq process && asyncq job list --output csv --state completed | grep -c shop\n6");
}

#[test]
fn a_job_of_a_service_that_is_gone_can_be_deleted() {
    let place = application("WAL");
    place.session("$ asyncq enqueue shop mail --lane a; asyncq service remove shop --force 2> /dev/null\n1");
    let database = rusqlite::Connection::open(place.at("app.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM asyncq_job", []).unwrap(), 1);
}

#[test]
fn an_end_is_recorded_where_a_rule_of_the_application_refuses_the_call_of_the_hook() {
    let place = Place::with_functions(&[("end", "exit $1")]);
    place.stdout("asyncq service add alerts; asyncq function add alerts page -- sh -c 'echo page \"$@\"' sh");
    place.stdout("asyncq service set events --on-error alerts/page --on-success alerts/page");
    place.execute("CREATE UNIQUE INDEX one_page ON asyncq_job (service) WHERE service = 'alerts'");
    place.session(
        r"
        $ for code in 0 0 4; do asyncq enqueue events end $code; done; asyncq process events
        1
        2
        3
        ! asyncq: job 3 (`events` `end`): exit code 4
        ? 1
        $ asyncq job show 2 | grep -E '^state|^error'
        state      completed
        error      its hook `alerts/page` cannot be called: index `one_page` refuses this: UNIQUE constraint failed: asyncq_job.service
        $ asyncq job show 3 | grep -E '^state|^error'
        state      error
        error      exit code 4; its hook `alerts/page` cannot be called: index `one_page` refuses this: UNIQUE constraint failed: asyncq_job.service
        $ asyncq process alerts
        page 1 --attempt=1 --function=end --kind=null --message=null --service=events --state=completed
        ",
    );
}

#[test]
fn a_rule_has_a_say_when_a_job_is_called_again() {
    let place = Place::with_functions(&[("show", "echo $1")]);
    place.stdout("asyncq enqueue --hold events show 1");
    place.execute("CREATE TRIGGER mine BEFORE INSERT ON asyncq_job BEGIN SELECT RAISE(ABORT, 'not now'); END");
    place.session(
        "
        $ asyncq job rerun 1
        ! error: [..]not now[..]
        ! hint: [..]
        ? 77
        ",
    );
    assert_eq!(place.jobs("state"), "held");
    place.execute("DROP TRIGGER mine; CREATE TRIGGER mine AFTER INSERT ON asyncq_job BEGIN SELECT 1; END");
    place.session("$ asyncq job rerun 1 -- 2\n2\n$ asyncq job start 2\n$ asyncq process\n2");
}

#[test]
fn a_call_that_an_application_cancels_has_no_other_reason() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail");
    place.execute("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1");
    place.session(
        "
        $ asyncq explain 1
        job 1  events mail  cancelled
        cancelled  a client cancelled it by SQL
                   next: asyncq job retry 1
        ",
    );
}

/// Where the application's database has a rollback journal, a writer keeps readers out. A shell that completes does not wait.
#[test]
fn a_shell_does_not_wait_for_a_transaction_of_the_application() {
    let place = Place::new();
    place.session(
        "
        $ sqlite3 app.db 'CREATE TABLE orders (id)'
        $ asyncq -q --db app.db init
        $ asyncq -q --db app.db service add events
        ",
    );
    let offered = || place.stdout("COMPLETE=bash asyncq -- asyncq --db app.db service remove e");
    wait_until("the service is offered", || offered() == "events\n");
    let client = rusqlite::Connection::open(place.at("app.db")).unwrap();
    client.execute_batch("BEGIN EXCLUSIVE; INSERT INTO orders VALUES (1)").unwrap();
    assert_eq!(offered(), "");
    client.execute_batch("COMMIT").unwrap();
    wait_until("the service is offered again", || offered() == "events\n");
}

#[test]
fn a_job_that_a_rule_refuses_is_explained() {
    let place = application("WAL");
    place.program("fails", "#!/bin/sh\n[ -e mended ]\n");
    place.stdout("asyncq function add shop fails --retries 1 --backoff 1h -- ./fails");
    place.stdout("sqlite3 app.db \"CREATE UNIQUE INDEX one ON asyncq_job (function) WHERE state = 'delayed'\"");
    place.stdout("asyncq enqueue --in 2h shop fails; asyncq enqueue shop fails");
    place.run("asyncq process");
    let told = first(&place, 2, "refused");
    assert_eq!(told, "index `one` refuses this: UNIQUE constraint failed: asyncq_job.function");
    place.write("mended", "");
    follow(&place, 2, "refused");
    place.stdout("asyncq process");
    assert_eq!(codes(&place, 2), "completed");
}
