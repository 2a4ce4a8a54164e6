//! What an application's own SQLite may be: the oldest one that docs/sql.md names, that of the system, and the newest.
//!
//! The first and the last are made from the sources that crates contain. All other tests run with the system's alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::place::Place;
use crate::{application, register};

/// The crate that contains SQLite 3.37.0.
const OLDEST: &str = "0.23.2";

/// Folders with a shell `sqlite3` and the library, and which version that is.
static MADE: LazyLock<[(PathBuf, String); 2]> =
    LazyLock::new(|| [make(&source_of_oldest()), make(&source_of_newest())]);

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The folder with the source of SQLite among the packages of this one.
fn source(manifest: &Path) -> PathBuf {
    let manifest = manifest.to_str().unwrap();
    let metadata = cargo(&["metadata", "--quiet", "--format-version", "1", "--manifest-path", manifest]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "libsqlite3-sys").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("sqlite3")
}

fn source_of_newest() -> PathBuf {
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
}

fn source_of_oldest() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oldest-sqlite");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("src/lib.rs"), "").unwrap();
    let dependency = format!("libsqlite3-sys = {{ version = \"={OLDEST}\", default-features = false }}");
    let manifest =
        format!("[package]\nname = \"oldest\"\nversion = \"0.0.0\"\n[workspace]\n[dependencies]\n{dependency}\n");
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    source(&folder.join("Cargo.toml"))
}

/// Makes a library and a shell, unless they are there.
fn make(source: &Path) -> (PathBuf, String) {
    let header = fs::read_to_string(source.join("sqlite3.h")).unwrap();
    let version = header.split("#define SQLITE_VERSION ").nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    let shell = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/shell.c")).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sqlite-{version}"));
    if fs::read(folder.join("shell.c")).ok().as_ref() != Some(&shell) {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("draft.c"), shell).unwrap();
        let from = source.display();
        let make = format!(
            "set -e
            cc -O0 -w -shared -fPIC -DSQLITE_ENABLE_JSON1 -DSQLITE_ENABLE_COLUMN_METADATA -Wl,-soname,libsqlite3.so.0 \
                -o libsqlite3.so.0 {from}/sqlite3.c -lm
            cc -O0 -Wall -D_GNU_SOURCE -I{from} -o sqlite3 draft.c ./libsqlite3.so.0
            mv draft.c shell.c"
        );
        let made = Command::new("sh").args(["-c", &make]).current_dir(&folder).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    (folder, version)
}

/// A place with the shell that is made here, which and Python use the library in this folder, or the system's.
fn place(library: Option<&Path>) -> Place {
    let mut place = Place::new();
    let path = place.stdout("echo $PATH");
    place.set("PATH", &format!("{}:{}", MADE[0].0.display(), path.trim()));
    if let Some(folder) = library {
        place.set("LD_LIBRARY_PATH", folder.to_str().unwrap());
    }
    place
}

/// A place for each version of SQLite, and the version.
fn places() -> Vec<(Place, String)> {
    let [oldest, newest] = &*MADE;
    assert_eq!(oldest.1, "3.37.0");
    let system = Place::new().stdout("sqlite3 :memory: 'SELECT sqlite_version()'");
    let [from, to] = [oldest, newest].map(|(folder, version)| (place(Some(folder)), version.clone()));
    let places = vec![from, (place(None), system.trim().to_owned()), to];
    for (place, version) in &places {
        let shell = place.stdout("sqlite3 :memory: 'SELECT sqlite_version()'");
        let python = place.stdout("python3 -c 'import sqlite3; print(sqlite3.sqlite_version)'");
        assert_eq!([shell.trim(), python.trim()], [version; 2]);
    }
    places
}

/// A store that the library itself has made of `schema.sql`, with a service and a function.
fn with_store(place: &mut Place) {
    place.write("schema.sql", include_str!("../../schema.sql"));
    place.set("ASYNCQ_DB", "app.db");
    place.program("mail", "#!/bin/sh\necho mail $*\n");
    place.session(
        r#"
        $ sqlite3 app.db "CREATE TABLE orders (id INTEGER PRIMARY KEY, sent TEXT); INSERT INTO orders VALUES (3, NULL)"
        $ sqlite3 app.db < schema.sql
        $ asyncq init
        ! asyncq: `[..]/app.db` is up to date
        $ asyncq service add shop; asyncq function add shop mail -- ./mail
        "#,
    );
}

/// Statements of docs/sql.md, limits.md and chains.md, each with what it gives: rows, or the message that refuses it.
const STATEMENTS: &[(&str, &str)] = &[
    ("INSERT INTO asyncq_service (name) VALUES ('news') ON CONFLICT DO NOTHING", ""),
    ("INSERT INTO asyncq_service (name) VALUES ('news') ON CONFLICT DO NOTHING", ""),
    (
        "INSERT INTO asyncq_function (service, name, command, site)
         VALUES ('news', 'letter', '[\"/bin/echo\", \"a letter to\"]', '/') ON CONFLICT DO NOTHING",
        "",
    ),
    (
        "INSERT INTO asyncq_function (service, name, command, site, env, timeout, worker, merge) VALUES ('news', 'serve',
         '[\"./serve\"]', '/srv', '{\"LANG\": \"C\"}', 30000, '{\"calls\": 7, \"idle\": {\"secs\": 9, \"nanos\": 0}}', 1)",
        "",
    ),
    ("UPDATE asyncq_service SET concurrency = 7", "asyncq: a client may add a service, and not change or remove it"),
    ("DELETE FROM asyncq_function", "asyncq: a client may add a function, and not change or remove it"),
    (
        "INSERT INTO asyncq_job (service, function, args) VALUES ('shop', 'mail', json_array(1)) RETURNING id, state",
        "1|queued",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, kwargs, principal, site, state, run_at, priority, key, parent,
             key_until, lane, expires_at, meta, after)
         VALUES ('shop', 'mail', '[\"a\"]', '{\"b\": 1}', 'Zoë', '/', 'held', 4102444800000, -1, 'k', 1, 'ended', 'x',
             4102444800001, '{\"tenant\": \"acme\"}', '[1]') RETURNING id, state",
        "2|held",
    ),
    ("UPDATE asyncq_job SET state = 'queued' WHERE id = 2 AND state = 'held' RETURNING id", "2"),
    ("SELECT state, waits FROM asyncq_job WHERE id = 2", "blocked|1"),
    ("DELETE FROM asyncq_job WHERE id = 1", "asyncq: other calls still need this job"),
    ("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 2 AND state = 'blocked' RETURNING id, state", "2|cancelled"),
    ("SELECT key IS NULL, finished_at IS NOT NULL, waits FROM asyncq_job WHERE id = 2", "1|1|0"),
    ("DELETE FROM asyncq_job WHERE id = 2", ""),
    ("SELECT count(*) FROM asyncq_after", "0"),
    // Lanes: one call of a lane is in the queue, and the next one is let out when that has left it.
    (
        "INSERT INTO asyncq_job (service, function, lane) VALUES ('shop', 'mail', 'a'), ('shop', 'mail', 'a'),
             ('shop', 'mail', 'a') RETURNING id",
        "3\n4\n5",
    ),
    ("SELECT state FROM asyncq_job WHERE lane = 'a' ORDER BY id", "queued\nblocked\nblocked"),
    ("UPDATE asyncq_job SET priority = -1 WHERE id = 5", ""),
    ("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 3", ""),
    ("SELECT state FROM asyncq_job WHERE lane = 'a' ORDER BY id", "cancelled\nblocked\nqueued"),
    ("UPDATE asyncq_job SET run_at = 4102444800000 WHERE id = 5", ""),
    ("SELECT state FROM asyncq_job WHERE lane = 'a' ORDER BY id", "cancelled\nqueued\ndelayed"),
    ("UPDATE asyncq_job SET run_at = created_at WHERE id = 5", ""),
    ("SELECT state FROM asyncq_job WHERE lane = 'a' ORDER BY id", "cancelled\nqueued\nblocked"),
    ("DELETE FROM asyncq_job WHERE id = 4", ""),
    ("SELECT state FROM asyncq_job WHERE lane = 'a' ORDER BY id", "cancelled\nqueued"),
    // Calls that need others.
    (
        "INSERT INTO asyncq_job (service, function, after) VALUES
             ('shop', 'mail', '{\"ok\": [1], \"any\": [5], \"failed\": [3]}') RETURNING id",
        "6",
    ),
    ("SELECT needs, job, wants FROM asyncq_after ORDER BY needs", "1|6|ok\n5|6|any"),
    ("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 5", ""),
    ("SELECT job FROM asyncq_settle", "5"),
    (
        "INSERT INTO asyncq_job (service, function, after) VALUES ('shop', 'mail', '[3]')",
        "asyncq: a job in after has already ended in another way",
    ),
    // Keys, with a lifetime and without.
    (
        "INSERT INTO asyncq_job (service, function, args, key) VALUES ('shop', 'mail', '[3]', 'mail-3')
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id",
        "7",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, key) VALUES ('shop', 'mail', '[3]', 'mail-3')
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id",
        "7",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, key) VALUES ('shop', 'mail', '[4]', 'mail-3')
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id",
        "asyncq: this key belongs to another call",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, key, key_until) VALUES ('shop', 'mail', '[9]', 'pack', 'started')
             ON CONFLICT (key) DO UPDATE SET args = excluded.args, kwargs = excluded.kwargs RETURNING id",
        "9",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, key, key_until) VALUES
             ('shop', 'mail', '[\"' || hex(zeroblob(1500)) || '\"]', 'pack', 'started')
             ON CONFLICT (key) DO UPDATE SET args = excluded.args, kwargs = excluded.kwargs RETURNING id",
        "9",
    ),
    (
        "SELECT j.args IS NULL, length(l.args) FROM asyncq_job j JOIN asyncq_large l ON l.job = j.id WHERE j.id = 9",
        "1|3004",
    ),
    (
        "INSERT INTO asyncq_job (service, function, args, key, key_until, run_at)
             VALUES ('shop', 'mail', '[9]', 'pack', 'started', 4102444800000)
             ON CONFLICT (key) DO UPDATE SET args = excluded.args, kwargs = excluded.kwargs, run_at = excluded.run_at
             RETURNING id",
        "9",
    ),
    ("SELECT j.args, state, l.job FROM asyncq_job j LEFT JOIN asyncq_large l ON l.job = j.id WHERE j.id = 9", "[9]|delayed|"),
    ("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 9", ""),
    ("SELECT key FROM asyncq_job WHERE id = 9", ""),
    (
        "UPDATE asyncq_job SET state = 'completed' WHERE id = 7",
        "asyncq: a client may complete, cancel, release or postpone a job, and change nothing else",
    ),
    ("UPDATE asyncq_job SET priority = 1 WHERE id = 9", "asyncq: this call has begun"),
    ("SELECT version FROM asyncq_schema", "SCHEMA"),
    ("PRAGMA integrity_check", "ok"),
    ("PRAGMA foreign_key_check", ""),
];

/// What a shell answers to each statement.
fn answers(place: &Place, statements: impl Iterator<Item = String>) -> Vec<String> {
    let script: Vec<String> = statements.map(|sql| format!("{sql};\nSELECT '--';\n")).collect();
    place.write("statements.sql", &script.concat());
    let told = String::from_utf8(place.run("sqlite3 app.db < statements.sql 2>&1").stdout).unwrap();
    let told: Vec<String> = told.split("--\n").map(|answer| answer.trim_end().to_owned()).collect();
    assert_eq!(told.len(), script.len() + 1, "{told:?}");
    told
}

/// The message of asyncq in what a shell says of an error.
fn message(told: &str) -> &str {
    let from = told.find("asyncq: ").unwrap_or(0);
    let until = told.rfind(" (").filter(|until| *until > from).unwrap_or(told.len());
    &told[from..until]
}

#[test]
fn the_documented_statements_do_the_same() {
    for (mut place, version) in places() {
        with_store(&mut place);
        let schema = include_str!("../../schema.sql");
        let schema = schema.split("INSERT INTO asyncq_schema").nth(1).unwrap().split("VALUES (").nth(1).unwrap();
        let schema = schema.split([',', ')']).next().unwrap();
        let told = answers(&place, STATEMENTS.iter().map(|(sql, _)| (*sql).to_owned()));
        for ((sql, expected), told) in STATEMENTS.iter().zip(&told) {
            let told = if expected.starts_with("asyncq: ") { message(told) } else { told };
            assert_eq!(told, expected.replace("SCHEMA", schema), "{version}: {sql}");
        }
        // One that completes its own job, and one that asyncq ends.
        place.write("complete.sql", &format!("{COMPLETE}\n"));
        place.program("completes", "#!/bin/sh\nsed \"s/:job/$ASYNCQ_JOB/; s/:attempt/$ASYNCQ_ATTEMPT/; s/:token/'$ASYNCQ_TOKEN'/\" complete.sql | sqlite3 -cmd '.timeout 20000' app.db\n");
        place.session(
            "
            $ asyncq function add shop completes -- ./completes; asyncq enqueue shop completes
            12
            $ asyncq process shop
            mail 1
            mail
            mail 3
            $ sqlite3 app.db \"SELECT sent IS NOT NULL FROM orders; SELECT state, finished_at IS NOT NULL FROM asyncq_job WHERE id = 12\"
            1
            completed|1
            ",
        );
    }
}

/// As docs/sql.md has it.
const COMPLETE: &str = "BEGIN IMMEDIATE;
UPDATE orders SET sent = datetime() WHERE id = 3;
UPDATE asyncq_job SET state = 'completed'
 WHERE id = :job AND attempt = :attempt AND token = :token AND state = 'processing';    -- must change one row
COMMIT;";

#[test]
fn each_refusal_has_the_same_message() {
    assert!(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md")).unwrap().contains(COMPLETE));
    let refused = application::REFUSED
        .iter()
        .map(|(columns, values, message)| (format!("INSERT INTO asyncq_job ({columns}) VALUES ({values})"), *message));
    let refused: Vec<(String, &str)> = refused.chain(register::refused("")).collect();
    for (mut place, version) in places() {
        with_store(&mut place);
        let told = answers(&place, refused.iter().map(|(sql, _)| sql.clone()));
        for ((sql, expected), told) in refused.iter().zip(&told) {
            assert_eq!(message(told), format!("asyncq: {expected}"), "{version}: {}", &sql[..sql.len().min(300)]);
        }
    }
}

#[test]
fn the_documents_tell_the_truth() {
    for document in ["README.md", "docs/sql.md", "docs/python.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        // With the system's, another test goes through them.
        for (folder, _) in MADE.iter() {
            let mut place = place(Some(folder));
            place.set("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/python"));
            place.document(&text);
        }
    }
}

/// The statements that lanes, needs and keys have to do with, and the ways to rows that they and their triggers take.
const PLANNED: &[(&str, &[&str])] = &[
    (
        "INSERT INTO asyncq_job (service, function, lane, after, key, key_until, expires_at)
         VALUES ('shop', 'mail', 'a', '[1]', 'k', 'started', 4102444800000)
         ON CONFLICT (key) DO UPDATE SET args = excluded.args, kwargs = excluded.kwargs, run_at = excluded.run_at",
        &[
            "INDEX asyncq_job_key (",
            "INDEX asyncq_after_job (",
            "INDEX asyncq_job_blocked (",
            "INDEX asyncq_job_lane (",
        ],
    ),
    (
        "UPDATE asyncq_job SET state = 'cancelled' WHERE id = 7 AND state = 'held'",
        &["INDEX asyncq_job_blocked (", "INDEX asyncq_job_lane (", "SEARCH asyncq_after USING PRIMARY KEY (needs"],
    ),
    ("UPDATE asyncq_job SET state = 'queued' WHERE id = 7 AND state = 'held'", &["INDEX asyncq_after_job ("]),
    ("UPDATE asyncq_job SET run_at = 1, priority = 1, expires_at = 1 WHERE id = 7", &["INDEX asyncq_job_blocked ("]),
    (
        "UPDATE asyncq_job SET state = 'completed' WHERE id = 7 AND attempt = 1 AND token = 't' AND state = 'processing'",
        &["INDEX asyncq_job_blocked (", "INDEX asyncq_job_lane (", "SEARCH asyncq_after USING PRIMARY KEY (needs"],
    ),
    (
        "DELETE FROM asyncq_job WHERE id = 7",
        &["INDEX asyncq_job_blocked (", "INDEX asyncq_after_job (", "SEARCH it USING PRIMARY KEY (needs"],
    ),
];

#[test]
fn no_statement_goes_through_all_jobs() {
    for (mut place, version) in places() {
        with_store(&mut place);
        for (sql, ways) in PLANNED {
            place.write("plan.sql", &format!("EXPLAIN QUERY PLAN {sql};\n"));
            let plan = place.stdout("sqlite3 -plans app.db < plan.sql");
            for way in *ways {
                assert!(plan.contains(way), "{version}: {sql}: {way}\n{plan}");
            }
            // One row, a list in the statement itself, or the characters of a name.
            let is_short = |step: &str| {
                step == "SCAN asyncq_schema"
                    || step == "SCAN rest"
                    || step.contains(" VIRTUAL TABLE ")
                    || step.contains("SUBQUERY")
                    || step.contains("subquery")
            };
            let scans: Vec<&str> = plan.lines().filter(|step| step.starts_with("SCAN ") && !is_short(step)).collect();
            assert!(scans.is_empty(), "{version}: {sql}: {scans:?}");
        }
    }
}
