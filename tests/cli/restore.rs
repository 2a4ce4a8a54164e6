//! `asyncq restore`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use crate::place::{Place, is_stopped, runs, wait_until};

/// A place with a store in `q.db`, a call that waits, and a backup in `b.db`.
fn place() -> Place {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "q.db");
    place.session(
        "
        $ asyncq -q service add events; asyncq function add events note -- echo
        $ asyncq enqueue events note 1
        1
        $ asyncq backup b.db
        [..]/b.db
        ",
    );
    place
}

/// The names in a folder, but those of the files that SQLite makes.
fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.at(folder)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    names.sort();
    names
}

/// The folder into which a restore has moved the store.
fn before(place: &Place) -> String {
    let mut folders: Vec<String> = names(place, ".").into_iter().filter(|it| it.contains(".before-restore-")).collect();
    assert_eq!(folders.len(), 1);
    folders.remove(0)
}

#[test]
fn a_restored_store_goes_on_where_the_backup_was_with_new_numbers() {
    let place = place();
    place.stdout("chmod 640 q.db; asyncq process; asyncq enqueue events note 2; asyncq -q process");
    place.session(
        "
        $ asyncq restore b.db
        ! asyncq: restored `[..]/q.db` from `b.db`; what was there is in `[..]/q.db.before-restore-[..]Z`
        ! asyncq: 1 call that waits in it has ended since the backup was made, or been removed, and will run again
        $ stat -c %a q.db
        640
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE   WHEN
        1   events   note      [1]        -          queued  [..]
        $ asyncq enqueue events note 3
        1000003
        $ asyncq process
        1
        3
        $ asyncq init
        ! asyncq: `[..]/q.db` is up to date
        ",
    );
    let folder = before(&place);
    assert_eq!(names(&place, "."), ["b.db", "q.db", "q.db-asyncq", &folder]);
    place.session(&format!(
        "
        $ asyncq --db {folder}/q.db job list --json | grep -c completed
        2
        $ asyncq --db {folder}/q.db init
        ! asyncq: `[..]/q.db` is up to date
        "
    ));
}

#[test]
fn calls_that_the_backup_lacks_are_told_of() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events note 2; asyncq enqueue events note 3; asyncq job cancel 3; asyncq -q restore b.db
        2
        3
        $ asyncq enqueue events note 4; asyncq enqueue --in 1h events note 5; asyncq backup c.db
        1000004
        1000005
        [..]/c.db
        $ asyncq restore b.db
        ! asyncq: restored `[..]/q.db` from `b.db`; what was there is in `[..]`
        ! asyncq: 2 calls that had not ended are not waiting in the backup, and will not run; `asyncq --db '/[..]/q.db.before-restore-[..]Z/q.db' job list` shows what was there
        $ asyncq restore c.db
        ! asyncq: restored `[..]/q.db` from `c.db`; what was there is in `[..]`
        ! asyncq: 2 calls that wait in it have ended since the backup was made, or been removed, and will run again
        ",
    );
    // Also when the calls that wait in the backup are removed by now, and when a program enqueues during the restore.
    place.stdout("asyncq job cancel --all; asyncq job clean");
    let restore = place.start("env 'ASYNCQ_FAILPOINT=restore pages copied=stop' asyncq restore b.db");
    wait_until("it has copied the backup", || is_stopped(restore.0.id()));
    place.stdout("asyncq enqueue events note 6");
    restore.signal("CONT");
    let said = String::from_utf8(restore.wait().stderr).unwrap();
    assert!(said.contains("1 call that waits in it has ended since the backup was made, or been removed"), "{said}");
    assert!(said.contains("1 call that had not ended is not waiting in the backup, and will not run; "), "{said}");
}

#[test]
fn a_pause_outlives_a_restore() {
    let place = place();
    place.session(
        "
        $ asyncq pause --why 'a restore'; asyncq -q restore b.db
        $ asyncq -v process 2>&1 | grep paused
        asyncq: the store is paused: a restore; `asyncq resume` lets its calls run
        $ asyncq resume; asyncq process
        1
        ",
    );
}

#[test]
fn jobs_that_ran_when_the_backup_was_made_are_queued_and_charged_with_nothing() {
    let place = place();
    place.stdout(
        "asyncq function add events waits -- sh -c 'until [ -e go ]; do sleep 0.01; done'; asyncq job cancel 1",
    );
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.stdout("asyncq job show 2 --json").contains("processing"));
    place.stdout("asyncq backup running.db");
    place.session(
        "
        $ asyncq restore running.db
        ! error: processor 1 (process [..] on [..]) works on `[..]/q.db`
        ! hint: end it, as with `kill` or `systemctl stop`, and keep cron from starting another; then restore again
        ? 75
        ",
    );
    assert_eq!(names(&place, "."), ["b.db", "q.db", "q.db-asyncq", "running.db"]);
    place.write("go", "");
    process.wait();
    place.session(
        "
        $ asyncq restore running.db
        ! asyncq: restored `[..]/q.db` from `running.db`; what was there is in `[..]`
        ! asyncq: 1 call that ran when the backup was made is in the queue again
        ! asyncq: 1 call that waits in it has ended since the backup was made, or been removed, and will run again
        $ asyncq process; asyncq job show 2 --json | grep -o '\"state\":\"[a-z]*\"\\|\"crashes\":[0-9]\\|\"attempt\":[0-9]'
        \"state\":\"completed\"
        \"attempt\":1
        \"crashes\":0
        \"attempt\":1
        ",
    );
}

#[test]
fn what_is_no_backup_is_refused_and_the_store_stays() {
    let place = place();
    symlink("q.db", place.at("link.db")).unwrap();
    place.write("empty.db", "");
    place.write("text.db", &"text ".repeat(1000));
    place.stdout("mkdir folder; asyncq --db newer.db -q init");
    let bytes = fs::read(place.at("b.db")).unwrap();
    let mut damaged = bytes.clone();
    let half = damaged.len() / 2;
    damaged[half..].fill(0xa5);
    fs::write(place.at("damaged.db"), &damaged).unwrap();
    fs::write(place.at("cut.db"), &bytes[..half / 4096 * 4096]).unwrap();
    fs::write(place.at("begin.db"), &bytes[..20_000]).unwrap();
    fs::write(place.at("head.db"), &bytes[..100]).unwrap();
    fs::write(place.at("hot.db"), &bytes).unwrap();
    place.write("hot.db-journal", "a journal");
    let (before, store) = (names(&place, "."), fs::metadata(place.at("q.db")).unwrap().ino());
    let name = "name a file that `asyncq backup` has made";
    let another = "nothing was changed; restore another backup";
    let first = "make a backup of it first: `asyncq --db '/[..]/hot.db' backup FILE`";
    for (file, error, hint, code) in [
        ("none.db", "cannot read the backup `[..]/none.db`: No such file or directory", name, 66),
        ("folder", "`[..]/folder` is not a file", name, 65),
        ("empty.db", "`[..]/empty.db` is empty", name, 65),
        ("text.db", "`[..]/text.db` is not a SQLite database", name, 65),
        ("damaged.db", "the backup `[..]/damaged.db` is damaged: database disk image is malformed", another, 65),
        ("cut.db", "the backup `[..]/cut.db` is damaged: database disk image is malformed", another, 65),
        ("begin.db", "the backup `[..]/begin.db` is damaged: database disk image is malformed", another, 65),
        ("head.db", "the backup `[..]/head.db` is damaged: database disk image is malformed", another, 65),
        ("hot.db", "`[..]/hot.db` is in the middle of a change, which `[..]/hot.db-journal` would undo", first, 65),
        ("q.db", "`[..]/q.db` is the store itself", name, 77),
        ("link.db", "`[..]/link.db` is the store itself", name, 77),
    ] {
        place.session(&format!("$ asyncq restore {file}\n! error: {error}\n! hint: {hint}\n? {code}\n"));
    }
    assert_eq!((names(&place, "."), fs::metadata(place.at("q.db")).unwrap().ino()), (before, store));
    place.session(
        "
        $ ASYNCQ_FUTURE_SCHEMA=1 asyncq --db newer.db -q service add s; asyncq restore newer.db
        ! error: `[..]/newer.db` has schema [..], this asyncq knows schemas up to [..]
        ! hint: a newer asyncq has made it: install that version here too
        ? 75
        $ asyncq --db nowhere/q.db restore b.db
        ! error: cannot restore `[..]/nowhere/q.db`: No such file or directory
        ! hint: [..]
        ? 74
        $ asyncq process
        1
        ",
    );
}

#[test]
fn a_store_that_is_gone_damaged_or_newer_is_replaced() {
    let place = place();
    place.session(
        "
        $ asyncq --db other.db restore b.db
        ! asyncq: restored `[..]/other.db` from `b.db`
        $ stat -c %a other.db; asyncq --db other.db job list --json | grep -c '\"state\"'
        600
        1
        ",
    );
    let folder = || place.stdout("rm -r q.db.before*");
    // All that is left of a store is its WAL.
    place.stdout("rm q.db");
    place.session("$ asyncq restore b.db\n! asyncq: restored `[..]/q.db` from `b.db`; what was there is in `[..]`\n$ asyncq process\n1");
    folder();
    place.write("q.db", "a text");
    place.stdout("rm -f q.db-wal q.db-shm");
    place.session("$ asyncq restore b.db\n! asyncq: restored `[..]/q.db` from `b.db`; what was there is in `[..]`\n$ asyncq process\n1");
    folder();
    place.stdout("ASYNCQ_FUTURE_SCHEMA=1 asyncq service set events --concurrency 2");
    place.session("$ asyncq restore b.db\n! asyncq: restored `[..]/q.db` from `b.db`; what was there is in `[..]`\n$ asyncq process\n1");
}

#[test]
fn through_a_link_the_file_itself_is_replaced() {
    let place = place();
    fs::create_dir(place.at("real")).unwrap();
    place.stdout("mv q.db* real/; ln -s real/q.db q.db");
    place.session(
        "
        $ asyncq -q restore b.db; asyncq process; readlink q.db
        1
        real/q.db
        ",
    );
    assert!(names(&place, "real").iter().any(|name| name.contains("before-restore")));
}

#[test]
fn who_waits_or_follows_hears_that_the_store_was_replaced() {
    let place = place();
    let waiting = place.start("asyncq wait 1");
    let following = place.start("asyncq job log -f 1");
    // A program that stays connected, as the package for Python has one.
    place.stdout("mkfifo requests");
    let rpc = place.start("asyncq rpc < requests");
    let mut requests = fs::OpenOptions::new().write(true).open(place.at("requests")).unwrap();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"enqueue","params":{"service":"events","function":"note"}}"#;
    writeln!(requests, "{call}").unwrap();
    wait_until("it has enqueued one", || place.stdout("asyncq job list --json").matches("\"state\"").count() == 2);
    let begun = |it: &crate::place::Running| crate::place::sleeps(&it.0.id().to_string()) > 0;
    wait_until("they wait", || begun(&waiting) && begun(&following) && begun(&rpc));
    place.session(
        "
        $ asyncq -q restore b.db
        $ asyncq process
        1
        ",
    );
    for (what, it) in [("wait", waiting), ("follow", following)] {
        let output = it.wait();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(74) && said.contains("was moved, replaced or removed"),
            "{what}: {output:?}"
        );
    }
    writeln!(requests, "{call}").unwrap();
    drop(requests);
    let answer = String::from_utf8(rpc.wait().stdout).unwrap();
    assert!(answer.contains("error") && answer.contains("moved, replaced or removed"), "{answer}");
    place.session("$ asyncq job list --json | grep -c '\"state\"'\n1");
}

#[test]
fn what_a_dead_processor_left_running_ends_before_its_call_runs_again() {
    let place = place();
    place.stdout(
        "asyncq function add events stays -- sh -c 'echo $$ > pid; exec sleep 1000'; asyncq enqueue events stays",
    );
    let process = place.start("asyncq process");
    wait_until("it runs", || !place.read("pid").trim().is_empty());
    let pid = place.read("pid").trim().to_owned();
    place.stdout("asyncq backup running.db");
    place.stdout(&format!("kill -9 {} {}", process.0.id(), process.engine()));
    process.wait();
    place.session(
        "
        $ asyncq restore running.db
        ! asyncq: restored `[..]/q.db` from `running.db`; what was there is in `[..]`
        ! asyncq: 1 call that ran when the backup was made is in the queue again
        ",
    );
    assert!(!runs(&pid));
}

#[test]
fn a_restore_that_fails_or_is_killed_leaves_what_was_there() {
    let place = place();
    place.stdout("asyncq enqueue events note 2");
    for step in [
        "restore noted",
        "restore part linked",
        "restore part moved",
        "restore part linked:2",
        "restore part moved:2",
        "restore moved",
    ] {
        let killed = place.run(&format!("ASYNCQ_FAILPOINT='{step}=kill' asyncq restore b.db"));
        assert!(!killed.status.success(), "{step}: {killed:?}");
        assert_eq!(place.stdout("asyncq job list --json | grep -c '\"state\"'"), "2\n", "{step}");
        assert!(!place.at("q.db-restore").exists() || step == "restore noted");
    }
    // Also for a command that makes a store where there is none.
    let killed = place.run("ASYNCQ_FAILPOINT='restore moved=kill' asyncq restore b.db");
    assert!(!killed.status.success() && !place.at("q.db").exists());
    place.session(
        "
        $ asyncq service add more; asyncq job list --json | grep -c '\"state\"'
        2
        ",
    );
    let killed = place.run("ASYNCQ_FAILPOINT='restore named=kill' asyncq restore b.db");
    assert!(!killed.status.success());
    place.session(
        "
        $ asyncq job list --json | grep -c '\"state\"'
        1
        $ asyncq -q restore b.db; ls -A | grep -c 'copy-of\\|q.db-restore'
        0
        ? 1
        ",
    );
}

#[test]
fn others_wait_while_a_restore_is_under_way() {
    let place = place();
    place.stdout("asyncq enqueue events note 2");
    let restore = place.start("env 'ASYNCQ_FAILPOINT=restore moved=stop' asyncq -q restore b.db");
    wait_until("it has moved the store", || !place.at("q.db").exists());
    for command in ["job list", "service add more", "enqueue events note"] {
        place.session(&format!(
            "
            $ asyncq --lock-timeout 10ms {command}
            ! error: a restore of `[..]/q.db` is under way
            ! hint: try again when it has ended
            ? 75
            "
        ));
    }
    place.session(
        "
        $ asyncq restore b.db
        ! error: a restore of `[..]/q.db` is under way
        ! hint: try again when it has ended
        ? 75
        ",
    );
    let listing = place.start("asyncq job list --json");
    restore.signal("CONT");
    assert!(restore.wait().status.success());
    assert_eq!(String::from_utf8(listing.wait().stdout).unwrap().matches("\"state\"").count(), 1);
}
