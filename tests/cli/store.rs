//! Where the store is, who makes it, and stores that are not what they should be.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::line::is_in_line;
use crate::place::{Place, install, is_stopped, lock, wait_until};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn only_init_and_service_add_make_a_store() {
    let place = Place::new();
    for command in [
        "service list",
        "service show a",
        "service set a --concurrency 2",
        "service remove a",
        "function list",
        "job list",
        "function add a b -- true",
        "enqueue a b",
        "process",
        "job clean",
        "job show 1",
    ] {
        place.session(&format!(
            "
            $ asyncq {command}
            ! error: there is no store at `[..]/.local/share/asyncq/queue.db`
            ! hint: `asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place
            ? 69
            "
        ));
    }
    assert!(!place.at(".local").exists());
    place.session(
        "
        $ asyncq init
        ! asyncq: the store `[..]/.local/share/asyncq/queue.db` is ready
        $ asyncq init
        ! asyncq: `[..]/.local/share/asyncq/queue.db` is up to date
        $ asyncq -q init
        $ asyncq --db other.db service add events; asyncq service list --db other.db
        SERVICE  CONCURRENCY  STATE
        events   1            active
        ! asyncq: created the store `[..]/other.db`
        $ asyncq --db other.db service add more; asyncq -q --db quiet.db service add events
        $ ASYNCQ_DB=$HOME/other.db asyncq service list
        SERVICE  CONCURRENCY  STATE
        events   1            active
        more     1            active
        $ XDG_DATA_HOME=$HOME/data asyncq -v service add x
        ! asyncq: created the store `[..]/data/asyncq/queue.db`
        ! asyncq: added service `x`
        ",
    );
}

#[test]
fn only_init_adds_tables_to_a_file_that_is_there() {
    let place = Place::new();
    place
        .stdout("sqlite3 places.db 'CREATE TABLE moz (a)'; : > empty.db; ln -s places.db link.db; cp places.db before");
    for db in ["places.db", "empty.db", "link.db"] {
        for command in
            ["service add x", "service list", "function add x f -- true", "enqueue x f", "process", "job clean"]
        {
            place.session(&format!(
                "
                $ asyncq --db {db} {command}
                ! error: `/[..]/{db}` holds no store
                ! hint: `asyncq init` makes one in it, next to the tables that it has; `--db` names another file
                ? 69
                "
            ));
        }
    }
    place.session(
        "
        $ cmp before places.db; wc -c < empty.db
        0
        $ asyncq --db link.db init; asyncq --db places.db service add x; sqlite3 places.db .tables | grep -o 'moz\\|asyncq_service'
        moz
        asyncq_service
        ! asyncq: the store `/[..]/link.db` is ready
        ! asyncq: from now on, programs need SQLite 3.37 or later to read any table of this file
        ",
    );
}

#[test]
fn a_new_store_is_its_owners_whatever_the_umask() {
    for umask in ["000", "022", "777"] {
        let place = Place::with_functions(&[]);
        place.stdout(&format!("umask {umask}; asyncq --db deep/er/q.db service add events"));
        place.stdout("asyncq --db deep/er/q.db function add events hello --site . -- true");
        assert_eq!((mode(&place.at("deep")), mode(&place.at("deep/er"))), (0o700, 0o700));
        assert_eq!(mode(&place.at("deep/er/q.db")), 0o600);
        place.stdout(&format!("umask {umask}; asyncq --db deep/er/q.db enqueue events hello"));
        assert_eq!(mode(&place.at("deep/er/q.db-wal")), 0o600);
        assert_eq!(mode(&place.at("deep/er/q.db-shm")), 0o600);
        place.stdout(&format!("umask {umask}; asyncq --db deep/er/q.db process"));
        assert_eq!(mode(&place.at("deep/er/q.db-asyncq")), 0o700);
        let files: Vec<_> = fs::read_dir(place.at("deep/er")).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert!(files.iter().all(|name| name.to_str().unwrap().starts_with("q.db")), "{files:?}");
    }
}

#[test]
fn a_new_store_is_never_made_beside_an_old_wal() {
    for suffix in ["-wal", "-shm", "-journal"] {
        let place = Place::new();
        place.write(&format!("q.db{suffix}"), "what is left");
        place.session(&format!(
            "
            $ asyncq --db q.db service add events
            ! error: `/[..]/q.db` is gone, but `/[..]/q.db{suffix}` is there
            ! hint: the store was moved or removed; put it back together with that file, which may hold calls, or move that file away
            ? 74
            $ ls
            q.db{suffix}
            "
        ));
        assert_eq!(place.read(&format!("q.db{suffix}")), "what is left");
    }
}

#[test]
fn two_inits_at_once_make_one_store() {
    let place = Place::new();
    place.stdout("for i in 1 2 3 4 5 6 7 8; do asyncq service add s$i & done; wait");
    assert_eq!(place.stdout("asyncq service list").lines().count(), 9);
}

#[test]
fn a_file_that_is_no_store_is_reported_and_left_alone() {
    let place = Place::new();
    place.write(
        "text.db",
        "this is no database, it is only a text that is long enough to be looked at, and looked at closely",
    );
    place.write("empty.db", "");
    fs::create_dir(place.at("folder.db")).unwrap();
    place.session(
        "
        $ asyncq --db text.db enqueue events x; asyncq --db text.db init
        ! error: `/[..]/text.db` is not a SQLite database
        ! hint: check `--db` and `$ASYNCQ_DB`; the file was left as it is; if it was a store, restore a backup
        ! error: `/[..]/text.db` is not a SQLite database
        ! hint: check `--db` and `$ASYNCQ_DB`; the file was left as it is; if it was a store, restore a backup
        ? 65
        $ asyncq --db folder.db job list; asyncq --db folder.db init
        ! error: `/[..]/folder.db` is a directory, not a store
        ! hint: name a file, as in `--db queue.db`
        ! error: `/[..]/folder.db` is a directory, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        $ asyncq --db empty.db job list
        ! error: `/[..]/empty.db` holds no store
        ! hint: `asyncq init` makes one in it, next to the tables that it has; `--db` names another file
        ? 69
        $ asyncq --db postgres://host/db job list
        ! error: `postgres` stores are not supported
        ! hint: name a SQLite file, as in `--db queue.db`
        ? 2
        $ wc -c < empty.db; cat text.db
        0
        this is no database, it is only a text that is long enough to be looked at, and looked at closely
        $ ls
        empty.db
        folder.db
        text.db
        $ mkdir -m 777 anybodys; asyncq --db anybodys process
        ! error: `/[..]/anybodys` is a directory, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        ",
    );
}

#[test]
fn a_store_that_cannot_be_written() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("asyncq enqueue events hello");
    fs::copy(place.store(), place.at("q.db")).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.at("q.db"), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write everywhere, so somebody else is to try.
    let other =
        if place.stdout("id -u").trim() == "0" { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" };
    let copy = std::env::temp_dir().join(format!("asyncq-{}", std::process::id()));
    install(Path::new(env!("CARGO_BIN_EXE_asyncq")), &copy);
    let line = format!("{other} {} --db {} enqueue events hello", copy.display(), place.at("q.db").display());
    let refused = place.run(&line);
    fs::set_permissions(place.at("q.db"), fs::Permissions::from_mode(0o600)).unwrap();
    if !other.is_empty() {
        let unreadable = place.run(&line);
        assert_eq!(unreadable.status.code(), Some(77));
        let said = String::from_utf8(unreadable.stderr).unwrap();
        assert!(
            said.starts_with("error: the store `/")
                && said.contains("/q.db` cannot be opened\nhint: asyncq must be able to write"),
            "{said}"
        );
    }
    fs::remove_file(&copy).unwrap();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.starts_with("error: the store `/") && said.lines().count() == 2, "{said}");
    assert!(said.ends_with("\nhint: asyncq must be able to write the file and the folder it is in\n"), "{said}");
}

#[test]
fn a_full_disk() {
    let place = Place::new();
    fs::create_dir(place.at("disk")).unwrap();
    place.program("hello", "#!/bin/sh\necho hello\n");
    // A file system of its own, small, and gone with the namespace in which it is mounted.
    place.write(
        "full",
        "mount -t tmpfs -o size=4M none disk || exit 99
         asyncq -q --db disk/q.db service add events && asyncq --db disk/q.db function add events hello -- ./hello
         asyncq --db disk/q.db enqueue events hello
         head -c 4M /dev/zero > disk/filler 2>/dev/null
         n=0; code=0; while [ $code = 0 ]; do asyncq --db disk/q.db enqueue events hello >> acknowledged 2> said; code=$?; n=$((n + 1)); [ $n -lt 1000 ] || exit 98; done
         cat said >&2; echo code $code
         rm disk/filler
         asyncq --db disk/q.db job list --limit 0 --state queued --json | grep -c '\"id\"' > there
         asyncq --db disk/q.db enqueue events hello > /dev/null && asyncq --db disk/q.db process --trust-store-writers | sort | uniq -c",
    );
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare -m" } else { "unshare -rm" };
    let output = place.run(&format!("{unshare} sh ./full"));
    assert_ne!(output.status.code(), Some(99), "cannot mount: {output:?}");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("error: no space left for the store `/")
            && said.contains("hint: nothing was changed; make room and try again"),
        "{said}"
    );
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("code 74\n"), "{told}");
    // Whatever was acknowledged is there, and nothing else; and all of it is run once there is room.
    let acknowledged = place.read("acknowledged").lines().count() + 1;
    assert_eq!(place.read("there").trim(), acknowledged.to_string());
    assert!(told.ends_with(&format!(" {} hello\n", acknowledged + 1)), "{told} {acknowledged}");
}

#[test]
fn a_full_disk_keeps_no_outcome_waiting() {
    let place = Place::new();
    // It also takes the space that the store could have used again.
    place.program(
        "fill",
        "#!/bin/sh
         echo run >> runs; [ $ASYNCQ_JOB = 1 ] || exit 0
         until sqlite3 $ASYNCQ_DB 'PRAGMA wal_checkpoint(TRUNCATE)' | grep -q '^0'; do :; done
         head -c 10M /dev/zero > disk/filler 2>/dev/null
         echo full",
    );
    std::fs::create_dir(place.at("disk")).unwrap();
    place.write(
        "full",
        "mount -t tmpfs -o size=2M none disk || exit 99
         export ASYNCQ_DB=disk/q.db
         asyncq service add events && asyncq function add events fill -- ./fill || exit 98
         asyncq enqueue events fill && asyncq enqueue events fill || exit 97
         asyncq -q process --trust-store-writers 2> said & process=$!
         until [ \"$(asyncq job list --state completed --json | grep -c completed)\" = 1 ] && grep -q starts said; do
             kill -0 $process || { cat said >&2; asyncq job list >&2; exit 96; }
         done
         asyncq job list --json
         asyncq -v process --trust-store-writers 2> late || exit 95
         rm disk/filler
         wait $process && asyncq job list --json",
    );
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare -m" } else { "unshare -rm" };
    let told = place.stdout(&format!("{unshare} sh ./full"));
    let states: Vec<_> = told.split("\"state\":\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    assert_eq!(states, ["queued", "completed", "completed", "completed"], "{told}");
    assert_eq!(place.read("runs"), "run\nrun\n");
    let said = place.read("said");
    assert!(said.starts_with("asyncq: no space left for the store `") && said.lines().count() == 1, "{said}");
    assert!(place.read("late").contains("is busy"), "{}", place.read("late"));
}

#[test]
fn a_store_that_is_locked_past_the_deadline() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    // There is a line once a processor was there.
    place.stdout("asyncq enqueue events hello && asyncq process");
    let lock = lock(&place.store());
    place.session(
        "
        $ asyncq enqueue events hello --lock-timeout 200ms
        ! error: the store `/[..]/queue.db` is locked by process [..] (`[..]`)
        ! hint: try again; a writer that works in one long transaction keeps everybody waiting
        ? 75
        $ ASYNCQ_LOCK_TIMEOUT=100ms asyncq service add more
        ! error: the store `/[..]/queue.db` is locked by process [..] (`[..]`)
        ! hint: try again; a writer that works in one long transaction keeps everybody waiting
        ? 75
        $ asyncq service list
        SERVICE  CONCURRENCY  STATE
        events   1            active
        ",
    );
    // Who waits longer than the lock is held gets in.
    let waits = place.start("asyncq enqueue events hello");
    wait_until("it waits", || is_in_line(&place, waits.0.id()));
    drop(lock);
    assert_eq!(String::from_utf8(waits.wait().stdout).unwrap(), "2\n");
}

#[test]
fn an_outcome_waits_for_a_locked_store_as_long_as_it_must() {
    let place = Place::with_functions(&[(
        "hello",
        "touch begun; until [ -e go ]; do sleep 0.01; done; touch ended; echo hello",
    )]);
    place.stdout("asyncq enqueue events hello");
    let process = place.start("asyncq process --lock-timeout 100ms");
    wait_until("the call begins", || place.at("begun").exists());
    let lock = lock(&place.store());
    place.write("go", "");
    wait_until("the call ends", || place.at("ended").exists());
    let engine = process.engine().parse().unwrap();
    wait_until("its outcome waits", || is_in_line(&place, engine));
    // Meanwhile, somebody who has nothing at stake and the same patience gives up.
    let refused = place.run("asyncq enqueue events hello --lock-timeout 500ms");
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    drop(lock);
    assert!(process.wait().status.success());
    assert_eq!(place.jobs("state"), "completed");
}

#[test]
fn a_newer_store_is_refused() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("asyncq enqueue events hello");
    let store = rusqlite::Connection::open(place.store()).unwrap();
    store.execute("UPDATE asyncq_schema SET version = 99", []).unwrap();
    drop(store);
    for command in ["enqueue events hello", "process", "job list", "init", "service add events"] {
        place.session(&format!(
            "
            $ asyncq {command}
            ! error: the store has schema 99, this asyncq knows schemas up to [..]
            ! hint: a newer asyncq has upgraded it: install that version here too
            ? 75
            "
        ));
    }
    assert_eq!(place.query("SELECT state FROM asyncq_job"), "queued");
}

#[test]
fn a_store_that_moves_away_under_a_processor() {
    let place = Place::with_functions(&[("hello", "touch begun; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout("asyncq enqueue events hello");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    fs::rename(place.store(), place.at("moved.db")).unwrap();
    place.write("go", "");
    let output = process.wait();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("was moved, replaced or removed while in use\nhint: nothing was acknowledged; put the file back"),
        "{said}"
    );
    fs::rename(place.at("moved.db"), place.store()).unwrap();
    place.session("$ asyncq process 2>/dev/null; asyncq job list --state completed --json | grep -c '\"id\"'\n1");
}

#[test]
fn a_link_to_nothing_and_a_folder_that_is_gone() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ ln -s nothing q.db; asyncq --db q.db init
        ! error: `/[..]/q.db` is a link to a file that is not there
        ! hint: remove the link, or put the file back
        ? 69
        $ asyncq enqueue events hello; mkdir gone; cd gone; rmdir ../gone; asyncq process
        1
        hello
        ",
    );
}

#[test]
fn root_is_not_led_elsewhere_by_a_link_that_changes_once_it_was_looked_at() {
    let place = Place::new();
    if place.stdout("id -u") != "0\n" {
        return;
    }
    place.program("work", "#!/bin/sh\necho $ASYNCQ_DB >> ran\n");
    place.stdout(
        "mkdir ours theirs
         for db in ours/q.db theirs/q.db; do
             export ASYNCQ_DB=$db
             asyncq service add events && asyncq function add events work -- ./work && asyncq enqueue events work
         done
         chown -R 65001 theirs; ln -s ours/q.db link",
    );
    let process = place.start("env ASYNCQ_FAILPOINT='store looked at=stop' asyncq --db link process");
    wait_until("it has looked", || is_stopped(process.engine()));
    place.stdout("ln -sfn theirs/q.db link");
    place.stdout(&format!("kill -CONT {}", process.engine()));
    let output = process.wait();
    assert_eq!((output.status.code(), place.read("ran").as_str()), (Some(77), ""), "{output:?}");
    place.stdout("rm link; ln -s ours/q.db link; asyncq --db link process");
    assert_eq!(place.read("ran").lines().count(), 1);
}

/// An older schema has accepted it from a client.
#[test]
fn a_store_in_which_a_client_used_the_greatest_number_is_reported_and_mended() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("asyncq enqueue events hello");
    let store = place.store().display().to_string();
    for (number, told) in [
        (
            "9223372036854775807",
            "no call can be enqueued: a client has given a job the greatest number, 9223372036854775807",
        ),
        (
            "9007199254740993",
            "a client has given a job the number 9007199254740993, which is too great for programs that read JSON",
        ),
    ] {
        place.stdout(&format!(
            "sqlite3 -cmd '.dbconfig enable_trigger off' {store} \"INSERT INTO asyncq_job (id, service, function) VALUES ({number}, 'events', 'hello')\""
        ));
        if number == "9223372036854775807" {
            place.session(&format!(
                "
                $ asyncq enqueue events hello
                ! error: {told}
                ! hint: stop every processor, and take the number out: [..]
                ? 65
                "
            ));
        }
        let output = place.run("asyncq init");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().next()), (Some(65), Some(format!("error: {told}").as_str())));
        let hint = said.split('`').nth(1).unwrap();
        place.stdout(hint);
        place.stdout("asyncq init");
    }
    place.session("$ asyncq enqueue events hello\n2");
}

#[test]
fn a_call_without_a_key_needs_no_index_of_keys() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.execute("DROP index `asyncq_job_key`");
    place.session(
        "
        $ asyncq enqueue events hello; asyncq process
        1
        hello
        ",
    );
}

#[test]
fn missing_parts_of_a_schema_are_made_again() {
    for part in [
        "trigger `asyncq_job_insert`",
        "trigger `asyncq_job_inserted`",
        "index `asyncq_job_queued`",
        "index `asyncq_job_key`",
        "table `asyncq_slot`",
        "table `asyncq_large`",
        "table `asyncq_progress`",
    ] {
        let place = Place::with_functions(&[("hello", "echo hello")]);
        place.execute(&format!("DROP {part}"));
        place.session(&format!(
            "
            $ asyncq init
            ! asyncq: {part} was missing, and is made again
            ! asyncq: `[..]queue.db` is up to date
            $ asyncq init
            ! asyncq: `[..]queue.db` is up to date
            $ asyncq enqueue events hello; asyncq process
            1
            hello
            "
        ));
    }
}

#[test]
fn a_store_that_has_lost_its_jobs_takes_new_ones() {
    let place = Place::with_functions(&[("fails", "[ $1 = 2 ] || exit 3")]);
    place.stdout("asyncq enqueue events fails 1; asyncq process; true");
    place.execute("PRAGMA foreign_keys = OFF; DROP TABLE asyncq_job");
    place.session(
        "
        $ asyncq init 2>&1 | grep table
        asyncq: table `asyncq_job` was missing, and is made again
        $ asyncq enqueue events fails 2; asyncq process; asyncq job show 1 --json | grep -o '\"attempts\":.*'
        1
        \"attempts\":[{\"attempt\":1,[..]\"ending\":\"completed\",[..]
        ",
    );
}

#[test]
fn calls_for_later_wait_again_once_the_trigger_is_back_that_delays_them() {
    let place = Place::with_functions(&[("hello", "echo hello $1")]);
    place.execute(
        "DROP TRIGGER asyncq_job_inserted; DROP TABLE asyncq_slot;
         INSERT INTO asyncq_job (service, function, run_at) VALUES ('events', 'hello', 4102444800000);
         INSERT INTO asyncq_job (service, function, args) VALUES ('events', 'hello', '[\"now\"]')",
    );
    place.session(
        "
        $ asyncq process
        ! error: the store is not complete: no such table: [..]asyncq_slot
        ! hint: `asyncq init` creates the missing parts of its schema
        ? 65
        $ asyncq init
        ! asyncq: table `asyncq_slot` was missing, and is made again
        ! asyncq: trigger `asyncq_job_inserted` was missing, and is made again
        ! asyncq: `[..]queue.db` is up to date
        $ asyncq process
        hello now
        $ sqlite3 .local/share/asyncq/queue.db 'SELECT group_concat(state) FROM asyncq_job'
        delayed,completed
        ",
    );
}

#[test]
fn changed_parts_of_a_schema_are_restored() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.execute(
        "DROP TRIGGER asyncq_job_insert; CREATE TRIGGER asyncq_job_insert BEFORE INSERT ON asyncq_job BEGIN SELECT 1; END;
         DROP INDEX asyncq_job_parent; CREATE INDEX asyncq_job_parent ON asyncq_job (parent) WHERE depth = 7;
         DROP TABLE asyncq_progress; CREATE TABLE asyncq_progress (job INTEGER PRIMARY KEY, attempt INTEGER,
            processor INTEGER, told TEXT);
         ALTER TABLE asyncq_job ADD COLUMN mine TEXT; CREATE INDEX my_index ON asyncq_job (mine);
         CREATE TRIGGER my_trigger AFTER INSERT ON asyncq_job BEGIN SELECT 1; END",
    );
    place.session(
        "
        $ asyncq init
        ! asyncq: index `asyncq_job_parent` was changed, and is made again
        ! asyncq: table `asyncq_progress` was changed, and is made again
        ! asyncq: trigger `asyncq_job_insert` was changed, and is made again
        ! asyncq: `[..]queue.db` is up to date
        $ asyncq init
        ! asyncq: `[..]queue.db` is up to date
        $ sqlite3 .local/share/asyncq/queue.db \"INSERT INTO asyncq_job (service, function) VALUES ('no', 'no')\" 2>&1 | grep -o 'asyncq: .*'
        asyncq: no such service[..]
        $ sqlite3 .local/share/asyncq/queue.db \"SELECT count(*) FROM sqlite_schema WHERE name LIKE 'my_%'\"
        2
        ",
    );
    // Rows of such a table cannot be kept as they are.
    place.execute(
        "DROP TABLE asyncq_slot; CREATE TABLE asyncq_slot (service TEXT, processor INTEGER, taken INTEGER,
            PRIMARY KEY (service, processor)); DROP TRIGGER asyncq_job_inserted",
    );
    place.session(
        "
        $ asyncq init
        ! error: table `asyncq_slot` is not the one that asyncq has made
        ! hint: its columns, or how its rows are stored, were changed: make a new store, and copy into it what you need
        ? 65
        ",
    );
    assert_eq!(place.query("SELECT count(*) FROM sqlite_schema WHERE name = 'asyncq_job_inserted'"), "0");
}

#[test]
fn a_store_that_has_lost_the_table_of_its_version_gets_it_again() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.execute("DROP TABLE asyncq_schema");
    place.session(
        "
        $ asyncq init
        ! asyncq: the store `[..]queue.db` is ready
        $ asyncq enqueue events hello; asyncq process
        1
        hello
        ",
    );
    place.execute("DELETE FROM asyncq_schema");
    place.session(
        "
        $ asyncq init
        ! error: `asyncq_schema` is empty, as in a schema that was copied without its rows
        ! hint: if it was copied so, drop the tables `asyncq_*` and run `asyncq init`; if not, restore a backup
        ? 65
        ",
    );
}
