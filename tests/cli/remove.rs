//! Taking the store out of an application's database again.

use crate::place::{Place, wait_until};

fn application() -> Place {
    let mut place = Place::new();
    place.stdout("sqlite3 app.db 'PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT); INSERT INTO orders VALUES (1, 1)'");
    place.set("ASYNCQ_DB", "app.db");
    place
}

#[test]
fn init_in_a_database_that_is_there_says_which_sqlite_it_takes() {
    application().session(
        "
        $ asyncq init
        ! asyncq: the store `[..]/app.db` is ready
        ! asyncq: from now on, programs need SQLite 3.37 or later to read any table of this file
        $ asyncq init
        ! asyncq: `[..]/app.db` is up to date
        $ asyncq --db new.db init
        ! asyncq: the store `[..]/new.db` is ready
        ",
    );
}

#[test]
fn tables_that_were_added_to_a_database_can_be_removed_again() {
    let place = application();
    let before = place.stdout("sqlite3 app.db .dump");
    place.program("slow", "#!/bin/sh\ntouch begun; until [ -e go ]; do sleep 0.01; done\n");
    place.session(
        "
        $ asyncq -q init; asyncq service add shop; asyncq function add shop slow -- ./slow; asyncq enqueue shop slow
        1
        $ asyncq remove --yes
        ! error: 1 call waits in this store
        ! hint: `asyncq process` runs them, `asyncq job cancel --all` cancels them
        ? 77
        ",
    );
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("begun").exists());
    place.session(
        "
        $ asyncq remove --yes
        ! error: processor 1 is at work on this store
        ! hint: end it; if it died, `asyncq process` puts its jobs back
        ? 75
        ",
    );
    place.write("go", "");
    assert!(process.wait().status.success());
    place.stdout("sqlite3 app.db 'CREATE TABLE sent (job INTEGER REFERENCES asyncq_job (id))'");
    place.session(
        "
        $ asyncq remove --yes
        ! error: table `sent` refers to `asyncq_job`
        ! hint: drop that foreign key first: it would refer to nothing
        ? 77
        $ sqlite3 app.db 'DROP TABLE sent; CREATE TRIGGER mine AFTER INSERT ON asyncq_job BEGIN SELECT 1; END'
        $ asyncq remove < /dev/null
        ! error: there is no terminal on which to ask
        ! hint: `--yes` removes without asking
        ? 2
        $ asyncq job list --json | grep -c '\"id\"'
        1
        $ asyncq remove --yes
        ! asyncq: removed asyncq's tables from `[..]/app.db`
        $ asyncq remove --yes
        ! error: `[..]/app.db` holds no store
        ! hint: `asyncq init` makes one in it, next to the tables that it has; `--db` names another file
        ? 69
        ",
    );
    // SQLite keeps an empty table of its own, which cannot be dropped.
    let after = place.stdout("sqlite3 app.db .dump");
    assert_eq!(after.replace("DELETE FROM sqlite_sequence;\n", ""), before);
    assert!(!place.at("app.db-asyncq").exists());
    place.stdout("asyncq init && asyncq service add shop && asyncq function add shop slow -- ./slow");
    place.session("$ asyncq enqueue shop slow\n1");
}

#[test]
fn a_call_that_waits_for_other_calls_keeps_the_store() {
    let place = application();
    place.stdout("asyncq init && asyncq service add s && asyncq function add s f -- /bin/true");
    place.stdout("asyncq enqueue s f && asyncq enqueue s f --after-any 1");
    // No processor has told job 2 yet that job 1 has ended.
    place.session(
        "
        $ sqlite3 app.db \"UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1\"
        $ asyncq remove --yes
        ! error: 1 call waits in this store
        ! hint: `asyncq process` runs them, `asyncq job cancel --all` cancels them
        ? 77
        $ asyncq job cancel --all
        ! asyncq: cancelled 1 job
        $ asyncq remove --yes
        ! asyncq: removed asyncq's tables from `[..]/app.db`
        ",
    );
}

#[test]
fn a_person_is_asked_first() {
    let place = application();
    place.stdout("asyncq init && asyncq service add shop");
    for (answer, left) in [("n", "shop\n"), ("", "shop\n"), ("y", "")] {
        let said = place.stdout(&format!("echo '{answer}' | script -qec 'asyncq remove' /dev/null || true"));
        assert!(said.contains("remove 1 service, 0 functions and 0 jobs from `"), "{said}");
        let services = place.stdout("sqlite3 app.db 'SELECT name FROM asyncq_service' 2>/dev/null || true");
        assert_eq!(services, left, "{answer}: {said}");
    }
}

#[test]
fn a_file_of_asyncqs_own_is_left_to_rm() {
    let place = Place::with_functions(&[]);
    place.session(
        "
        $ asyncq remove --yes
        ! error: `[..]/queue.db` holds nothing but the store
        ! hint: stop every processor, and remove its files: `rm -rf '[..]/queue.db' '[..]/queue.db-wal' '[..]/queue.db-shm' '[..]/queue.db-asyncq'`
        ? 77
        ",
    );
    // What the hint says can be pasted, whatever the path.
    let hint = place.run("mkdir \"it's a\" && cp .local/share/asyncq/queue.db \"it's a/q.db\" && asyncq --db \"it's a/q.db\" remove --yes");
    let hint = String::from_utf8(hint.stderr).unwrap();
    let command = hint.split('`').find(|text| text.starts_with("rm ")).unwrap().to_owned();
    place.stdout("touch \"it's a/q.db.bak\" a");
    place.stdout(&command);
    place.session("$ ls \"it's a\"; ls a\nq.db.bak\na");
    // A view is the application's.
    place.session(
        "
        $ sqlite3 .local/share/asyncq/queue.db 'CREATE VIEW mine AS SELECT 1'; asyncq remove --yes
        ! asyncq: [..]
        ",
    );
}
