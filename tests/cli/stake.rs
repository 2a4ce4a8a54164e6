//! Outcomes at stake: what goes wrong while calls run costs none of them.

use crate::place::{Place, lock, runs, wait_until};

const WAITS: &str = "echo $ASYNCQ_JOB >> runs; touch begun; until [ -e go ]; do sleep 0.01; done";

#[test]
fn few_descriptors_make_fewer_slots() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place
        .stdout("asyncq service set events --concurrency 60; for i in $(seq 60); do asyncq enqueue events hello; done");
    place.session("$ ulimit -n 40; asyncq process | sort | uniq -c\n[..]     60 hello");
    assert_eq!(place.count("--state completed"), 60);
}

#[test]
fn a_processor_that_dies_before_it_records_an_outcome_is_a_crash() {
    let place = Place::with_functions(&[("hello", "echo $ASYNCQ_ATTEMPT >> runs; echo hello")]);
    place.stdout("asyncq enqueue events hello");
    let output = place.run("env ASYNCQ_FAILPOINT='call ended:1=kill' asyncq process");
    assert_eq!((output.status.code(), place.read("runs").as_str()), (Some(75), "1\n"), "{output:?}");
    place.session("$ asyncq process\nhello\n! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs");
    assert_eq!(place.jobs("crashes attempt state"), "1 2 completed");
}

#[test]
fn signals_work_while_an_outcome_waits_for_the_store() {
    let place = Place::with_functions(&[("slow", "echo $$ > pid; while :; do sleep 0.05; done"), ("waits", WAITS)]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events slow; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("both have begun", || place.at("begun").exists() && !place.read("pid").is_empty());
    let lock = lock(&place.store());
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
    wait_until("it waits for space", || place.read("said").contains("no job starts until there is space"));
    let pid = process.0.id().to_string();
    wait_until("it gives up", || {
        process.signal("TERM");
        !runs(&pid)
    });
    assert_eq!(process.wait().status.code(), Some(74), "{}", place.read("said"));
    place.session("$ asyncq process\n! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs");
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
