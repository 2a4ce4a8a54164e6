//! Processors that die.

use crate::place::{Place, Running, runs, wait_until};

#[test]
fn the_jobs_of_a_dead_processor_are_run_again() {
    let place = Place::with_functions(&[(
        "once",
        "echo $$ >> pids; [ $ASYNCQ_ATTEMPT = 2 ] || { trap '' TERM; while :; do sleep 0.05; done; }; echo attempt $ASYNCQ_ATTEMPT",
    )]);
    place.stdout("asyncq enqueue events once");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("pids").exists());
    process.signal("KILL");
    drop(process);
    place.session(
        r#"
        $ asyncq process
        attempt 2
        ! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs
        $ asyncq job show 1 --json
        {[..]"state":"completed",[..]"attempts":[{"attempt":1,[..]"ending":"crash","error":{"kind":"crash","message":"the processor died",[..]},{"attempt":2,[..]"ending":"completed",[..]
        $ ls .local/share/asyncq/queue.db-asyncq
        "#,
    );
    assert!(place.read("pids").lines().all(|pid| !runs(pid)));
    assert_eq!(place.jobs("crashes"), "1");
    assert_eq!((place.slots().as_str(), place.processors()), ("", 0));
}

#[test]
fn another_processor_takes_over_while_it_works() {
    let place = Place::with_functions(&[
        ("victim", "touch victim-$ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 2 ] || sleep 1000"),
        ("waits", "touch begun; until [ -e go ]; do sleep 0.01; done"),
    ]);
    place
        .stdout("asyncq service set events --concurrency 2; asyncq enqueue events victim; asyncq enqueue events waits");
    let dies = place.start("asyncq process --max-jobs 1");
    wait_until("the victim begins", || place.at("victim-1").exists());
    let lives = place.start("asyncq process");
    wait_until("the other call begins", || place.at("begun").exists());
    dies.signal("KILL");
    drop(dies);
    wait_until("the victim is run again", || place.at("victim-2").exists());
    place.write("go", "");
    assert!(lives.wait().status.success());
    assert_eq!(place.count("--state completed"), 2);
}

#[test]
fn a_job_whose_processors_die_ends_in_an_error() {
    let place = Place::with_functions(&[("poison", "kill -9 $PPID; sleep 1000")]);
    place.stdout("asyncq enqueue events poison");
    for _ in 0..3 {
        let _ = place.run("asyncq process");
    }
    place.session(
        r#"
        $ asyncq -v process
        ! asyncq: processor 3 (process [..] on [..]) died; 1 of its jobs ended in an error (`asyncq job list --state error` shows why)
        ! asyncq: 0 attempts; 1 job ended in an error
        ? 1
        $ asyncq process
        $ asyncq job show 1 --json
        {[..]"state":"error",[..]"error":{"kind":"crash","message":"the processor died in 3 attempts","exit_code":null,"signal":null},[..]
        "#,
    );
}

#[test]
fn a_processor_whose_folder_is_removed_is_not_taken_for_dead_until_it_ends() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done; echo done")]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    // It looks for its folder now and then.
    place.stdout(&format!("kill -STOP {}", process.engine()));
    place.session(
        "
        $ rm -r .local/share/asyncq/queue.db-asyncq
        $ asyncq --verbose process
        ! asyncq: service `events` is busy: its one slot is taken by processor 1 (process [..] on [..])
        ! asyncq: 0 attempts; 0 jobs ended in an error
        ",
    );
    place.stdout(&format!("kill -CONT {}", process.engine()));
    assert_eq!(process.wait().status.code(), Some(74));
    place.write("go", "");
    place.session("$ asyncq process\ndone\ndone");
}

#[test]
fn folders_of_unregistered_processors_are_removed() {
    let place = Place::with_functions(&[("ls", "ls .local/share/asyncq/queue.db-asyncq | wc -l")]);
    place.session(
        "
        $ mkdir -p .local/share/asyncq/queue.db-asyncq/0123456789abcdef && touch .local/share/asyncq/queue.db-asyncq/0123456789abcdef/lock
        $ asyncq enqueue events ls
        1
        $ asyncq process
        1
        $ ls .local/share/asyncq/queue.db-asyncq
        ",
    );
}

#[test]
fn folders_whose_making_was_never_ended_are_removed_after_an_hour() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ mkdir -m 700 .local/share/asyncq/queue.db-asyncq
        $ cd .local/share/asyncq/queue.db-asyncq; mkdir 0abc 1abc mine; touch -d '2 hours ago' 0abc mine
        $ asyncq enqueue events hello; asyncq process
        1
        hello
        $ ls .local/share/asyncq/queue.db-asyncq
        1abc
        mine
        ",
    );
}

#[test]
fn an_ended_call_is_recorded_and_not_run_again() {
    let place = Place::with_functions(&[(
        "done",
        "echo $1 >> runs; echo said $1; echo '{\"a\": 1}' > $ASYNCQ_RESULT; exit $1",
    )]);
    place.stdout("asyncq enqueue events 'done' 0; asyncq enqueue events 'done' 3");
    for _ in 1..=2 {
        place.run("ASYNCQ_FAILPOINT='outcome noted=kill' asyncq process");
    }
    place.session(
        "
        $ asyncq process
        ! asyncq: job 2 (`events` `done`): exit code 3
        ? 1
        $ cat runs
        0
        3
        $ asyncq job log 1; asyncq job log 2
        said 0
        said 3
        $ asyncq job show 1 --json | grep -o '\"result\":{[^}]*}'
        \"result\":{\"a\": 1}
        ",
    );
    assert_eq!(place.jobs("state attempt crashes"), "completed 1 0, error 1 0");
}

#[test]
fn a_noted_wish_to_run_later_counts_from_the_end_of_the_call() {
    let place = Place::with_functions(&[("fetch", "echo $1 > $ASYNCQ_LATER; exit 75")]);
    place.stdout("asyncq enqueue events fetch 10m; asyncq enqueue events fetch 20m");
    for _ in 1..=2 {
        place.run("ASYNCQ_FAILPOINT='outcome noted=kill' asyncq process events");
    }
    place.stdout("asyncq process");
    assert_eq!(place.jobs("attempt failures conflicts crashes"), "1 0 0 0, 1 0 0 0");
    assert_eq!(place.attempts(1, "ending"), "snoozed");
    assert_eq!(place.attempts(2, "ending"), "snoozed");
}

pub fn is_root(place: &Place) -> bool {
    place.stdout("id -u").trim() == "0"
}

/// Runs a shell command in a PID namespace of its own, as containers do.
pub fn contained(place: &Place, command: &str) -> String {
    let unshare = if is_root(place) { "unshare" } else { "unshare -r" };
    // For a user in a namespace of his own, the folders above belong to nobody.
    let command = command.replace("asyncq process", "asyncq process --trust-store-writers");
    format!("{unshare} -pf --mount-proc {command}")
}

/// The only child of a process.
pub fn child(pid: &str) -> String {
    let mut child = String::new();
    wait_until("there is a child", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split(' ').next().unwrap_or_default().clone_into(&mut child);
        !child.is_empty()
    });
    child
}

/// A call that begins in a container, whose first process `command` is, and goes on until it is told not to.
fn begun_in_a_container(command: &str) -> (Place, Running) {
    let place = Place::with_functions(&[(
        "once",
        "echo $ASYNCQ_ATTEMPT >> begun; [ $ASYNCQ_ATTEMPT = 2 ] || { trap '' TERM; while :; do sleep 0.05; done; }",
    )]);
    place.stdout("asyncq enqueue events once");
    let container = place.start(&contained(&place, command));
    wait_until("the call begins", || place.read("begun") == "1\n");
    (place, container)
}

#[test]
fn calls_of_a_dead_container_do_not_run_beside_their_orphans() {
    let (place, container) = begun_in_a_container("sh -c 'asyncq process & sleep 1000'");
    let first = child(&container.0.id().to_string());
    let supervisor = child(&first);
    // Neither is to see the other one die: the engine goes on when its supervisor has, and the other way round not.
    let both = format!("{} {supervisor}", child(&supervisor));
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    let next = contained(&place, "sh -c 'asyncq process; true'");
    place.session(&format!(
        "
        $ {next}
        ! asyncq: processor 1 (process [..] on [..]) died in another container, where its calls may still run, so its jobs are not put back
        ! hint: run `asyncq process` there or outside of containers, or with `--one-container` if that container has ended
        "
    ));
    assert_eq!(place.read("begun"), "1\n");
    let enter = if is_root(&place) { "nsenter" } else { "nsenter -U --preserve-credentials" };
    place.session(&format!(
        "
        $ {enter} -t {first} -m -p asyncq process --trust-store-writers
        ! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs
        "
    ));
    assert_eq!(place.read("begun"), "1\n2\n");
    place.stdout(&format!("kill -9 {first}"));
}

#[test]
fn a_container_that_was_a_processor_is_known_to_be_gone_with_it() {
    let (place, container) = begun_in_a_container("asyncq process");
    let first = child(&container.0.id().to_string());
    place.stdout(&format!("kill -9 {first}"));
    // Until all of it is gone, it counts as alive.
    container.wait();
    let next = contained(&place, "asyncq process");
    place.session(&format!("$ {next}\n! asyncq: processor 1 (process 1 on [..]) died; put back 1 of its jobs"));
    assert_eq!(place.read("begun"), "1\n2\n");
}

#[test]
fn an_ended_container_is_taken_over_from_with_one_container() {
    let (place, container) = begun_in_a_container("sh -c 'asyncq process & sleep 1000'");
    let first = child(&container.0.id().to_string());
    // Otherwise the next container might get the number of its namespace, and know that nothing is left in that.
    let _held = std::fs::File::open(format!("/proc/{first}/ns/pid")).unwrap();
    place.stdout(&format!("kill -9 {first}"));
    // Until all of it is gone, it counts as alive.
    container.wait();
    for (option, told) in
        [("", "died in another container, where[..]"), (" --one-container", "died; put back 1 of its jobs")]
    {
        let next = contained(&place, &format!("sh -c 'asyncq process{option} 2>&1 | grep -v hint'"));
        place.session(&format!("$ {next}\nasyncq: processor 1 (process [..] on [..]) {told}"));
    }
    assert_eq!(place.read("begun"), "1\n2\n");
}
