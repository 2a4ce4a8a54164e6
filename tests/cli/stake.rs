//! Outcomes at stake: what goes wrong while calls run costs none of them.

use std::time::Duration;

use crate::place::{Place, runs, wait_until};

const WAITS: &str = "echo $ASYNCQ_JOB >> runs; touch begun; until [ -e go ]; do sleep 0.01; done";

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
         until [ \"$(asyncq job list --state completed --json | grep -c completed)\" = 1 ] && grep -q begins said; do
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
fn an_application_that_locks_its_database_ends_no_call() {
    let mut place = Place::new();
    place.stdout("sqlite3 app.db 'PRAGMA journal_mode=DELETE; CREATE TABLE t (x)'");
    place.set("ASYNCQ_DB", "app.db");
    place.stdout("asyncq -q init; asyncq service add events");
    place.function("waits", "", WAITS);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process --lock-timeout 100ms");
    wait_until("the call begins", || place.at("begun").exists());
    let application = rusqlite::Connection::open(place.at("app.db")).unwrap();
    application.busy_timeout(Duration::from_secs(30)).unwrap();
    application.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Longer than the deadline that somebody has who has nothing at stake.
    std::thread::sleep(Duration::from_millis(400));
    application.execute_batch("COMMIT").unwrap();
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(place.read("runs"), "1\n");
}

#[test]
fn few_descriptors_make_fewer_slots() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place
        .stdout("asyncq service set events --concurrency 60; for i in $(seq 60); do asyncq enqueue events hello; done");
    place.session("$ ulimit -n 40; asyncq process | sort | uniq -c\n[..]     60 hello");
    assert_eq!(place.count("--state completed"), 60);
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
fn a_processor_that_dies_before_it_records_an_outcome_is_a_crash() {
    let place = Place::with_functions(&[("hello", "echo $ASYNCQ_ATTEMPT >> runs; echo hello")]);
    place.stdout("asyncq enqueue events hello");
    let output = place.run("env ASYNCQ_FAILPOINT='call ended:1=kill' asyncq process");
    assert_eq!((output.status.code(), place.read("runs").as_str()), (Some(75), "1\n"), "{output:?}");
    place.session("$ asyncq process\nhello\n! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs put back");
    assert_eq!(place.jobs("crashes attempt state"), "1 2 completed");
}

#[test]
fn a_processor_of_which_nothing_can_be_told_disturbs_nobody() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("mkdir -p .local/share/asyncq/queue.db-asyncq/other/lock; asyncq enqueue events hello");
    place.query("SELECT 1");
    let store = rusqlite::Connection::open(place.store()).unwrap();
    let other = "INSERT INTO asyncq_processor (folder, host, boot, pid, pid_start, started_at) VALUES ('other', 'h', 'b', 1, 1, 1)";
    store.execute(other, []).unwrap();
    place.session("$ asyncq process\nhello\n$ asyncq -v process\n! asyncq: cannot tell whether processor 1 (process 1 on h) lives: [..]\n! asyncq: attempts: 0; jobs that ended in an error: 0");
}

#[test]
fn signals_are_heeded_while_an_outcome_waits_for_the_store() {
    let place = Place::with_functions(&[("slow", "echo $$ > pid; while :; do sleep 0.05; done"), ("waits", WAITS)]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events slow; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("both have begun", || place.at("begun").exists() && !place.read("pid").is_empty());
    let lock = place.lock();
    place.write("go", "");
    // Those that come at once are one.
    process.signal("TERM");
    wait_until("the slow call is ended", || {
        process.signal("TERM");
        !runs(&place.read("pid"))
    });
    drop(lock);
    assert!(process.wait().status.success());
    assert_eq!(place.jobs("state failures crashes"), "queued 0 0, completed 0 0");
}

#[test]
fn a_damaged_definition_costs_its_own_calls_and_nothing_else() {
    let place = Place::with_functions(&[("waits", WAITS), ("damaged", "echo never")]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events damaged");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    let store = rusqlite::Connection::open(place.store()).unwrap();
    store.execute("UPDATE asyncq_function SET command = '[7]' WHERE name = 'damaged'", []).unwrap();
    place.write("go", "");
    let output = process.wait();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("function `damaged` of service `events`: its command is "), "{said}");
    assert!(place.jobs("state attempt").starts_with("completed 1, error "));
}

#[test]
fn a_concurrency_that_no_machine_has_does_no_harm() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "$ asyncq service set events --concurrency 4294967295; asyncq enqueue events hello; asyncq process\n1\nhello",
    );
}

#[test]
fn an_outcome_that_a_second_signal_gives_up_counts_for_nothing() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process 2> said");
    wait_until("the call begins", || place.at("begun").exists());
    // None of its files may grow any more, as on a full disk without a reserve.
    place.stdout(&format!("prlimit --fsize=4096 --pid {}", process.engine()));
    place.write("go", "");
    wait_until("it waits for space", || place.read("said").contains("nothing begins until there is some"));
    let pid = process.0.id().to_string();
    wait_until("it gives up", || {
        process.signal("TERM");
        !runs(&pid)
    });
    assert_eq!(process.wait().status.code(), Some(74), "{}", place.read("said"));
    place.session("$ asyncq process\n! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs put back");
    assert_eq!(place.jobs("crashes failures state"), "0 0 completed");
}

/// The folders in which processors work, when somebody takes them for rubbish.
const RUN_FOLDER: &str = ".local/share/asyncq/queue.db-asyncq";

#[test]
fn a_follower_whose_folder_is_removed_ends_and_leaves_its_calls_to_the_next() {
    let place = Place::with_functions(&[("give", "echo 1 > \"$ASYNCQ_RESULT\"; exit 0")]);
    let follower = place.start("asyncq -v process --follow 2> said");
    wait_until("it is ready", || place.read("said").contains("ready"));
    place.stdout(&format!("rm -r {RUN_FOLDER}; asyncq enqueue events give; asyncq enqueue events give"));
    let pid = follower.0.id().to_string();
    wait_until("it ends", || !runs(&pid));
    assert_eq!(follower.wait().status.code(), Some(74), "{}", place.read("said"));
    assert!(place.read("said").contains("was removed while this processor worked in it\nhint: start it again"));
    place.session("$ asyncq process; asyncq job result 1; asyncq job result 2\n1\n1");
    for job in 1..=2 {
        assert_eq!(place.attempts(job, "ending"), "completed");
    }
}

/// Whatever a call has left by then cannot be told from nothing, so it is not recorded as that.
#[test]
fn no_result_is_lost_with_the_folder_for_it() {
    let remove = format!("[ $ASYNCQ_ATTEMPT != 1 ] || rm -r {RUN_FOLDER}");
    let place = Place::with_functions(&[
        ("after", &format!("echo 1 > \"$ASYNCQ_RESULT\"\n{remove}")),
        ("before", &format!("{remove}\necho 2 > \"$ASYNCQ_RESULT\"")),
        ("inside", &format!("{remove}\nasyncq enqueue events hello || exit 1")),
        ("hello", "echo hello"),
        ("waits", &format!("{remove}\n[ $ASYNCQ_ATTEMPT != 1 ] || sleep 1000\necho 4 > \"$ASYNCQ_RESULT\"")),
    ]);
    for (job, name) in ["after", "before", "inside", "waits"].into_iter().enumerate() {
        place.stdout(&format!("asyncq enqueue events {name}"));
        let output = place.run("asyncq process");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(74), "{name}: {said}");
        assert_eq!(said.matches(&format!("(`events` `{name}`): ended and put back")).count(), 1, "{name}: {said}");
        assert!(said.contains("was removed while this processor worked in it"), "{name}: {said}");
        assert_eq!(place.count("--state queued"), 1, "{name}: {}", place.jobs("state result"));
        assert_eq!(place.processors(), 0, "{name}");
        place.stdout("asyncq process");
        assert!(job > 0 || place.jobs("state result") == "completed 1", "{name}: {}", place.jobs("state result"));
    }
    assert_eq!(place.jobs("function result"), "after 1, before 2, inside, hello, waits 4");
}
