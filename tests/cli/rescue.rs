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
        ! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs put back
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
        $ asyncq process
        ! asyncq: processor 3 (process [..] on [..]) died; 1 of its jobs ended in an error (`asyncq job list --state error` says why)
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
        ! asyncq: attempts: 0; jobs that ended in an error: 0
        ",
    );
    place.stdout(&format!("kill -CONT {}", process.engine()));
    assert_eq!(process.wait().status.code(), Some(74));
    place.write("go", "");
    place.session("$ asyncq process\ndone\ndone");
}

#[test]
fn what_a_processor_left_that_was_never_registered_is_swept_away() {
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
fn what_had_ended_is_recorded_and_not_run_again() {
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

fn is_root(place: &Place) -> bool {
    place.stdout("id -u").trim() == "0"
}

/// Runs a shell command in a PID namespace of its own, as containers do.
fn contained(place: &Place, command: &str) -> String {
    let unshare = if is_root(place) { "unshare" } else { "unshare -r" };
    // For a user in a namespace of his own, the folders above belong to nobody.
    let command = command.replace("asyncq process", "asyncq process --trust-store-writers");
    format!("{unshare} -pf --mount-proc {command}")
}

/// The only child of a process.
fn child(pid: &str) -> String {
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
fn what_died_in_another_container_is_not_run_beside_what_it_left() {
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
        ! asyncq: processor 1 (process [..] on [..]) died in another container; what it ran may go on there, so its jobs are not put back
        ! hint: `asyncq process` can do it there or outside of containers, and `--one-container` if that one has ended
        "
    ));
    assert_eq!(place.read("begun"), "1\n");
    let enter = if is_root(&place) { "nsenter" } else { "nsenter -U --preserve-credentials" };
    place.session(&format!(
        "
        $ {enter} -t {first} -m -p asyncq process --trust-store-writers
        ! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs put back
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
    place.session(&format!("$ {next}\n! asyncq: processor 1 (process 1 on [..]) died; 1 of its jobs put back"));
    assert_eq!(place.read("begun"), "1\n2\n");
}

#[test]
fn a_container_that_has_ended_is_taken_over_from_by_who_says_that_there_is_one() {
    let (place, container) = begun_in_a_container("sh -c 'asyncq process & sleep 1000'");
    let first = child(&container.0.id().to_string());
    // Otherwise the next container might get the number of its namespace, and know that nothing is left in that.
    let _held = std::fs::File::open(format!("/proc/{first}/ns/pid")).unwrap();
    place.stdout(&format!("kill -9 {first}"));
    // Until all of it is gone, it counts as alive.
    container.wait();
    for (option, told) in
        [("", "died in another container; [..]"), (" --one-container", "died; 1 of its jobs put back")]
    {
        let next = contained(&place, &format!("sh -c 'asyncq process{option} 2>&1 | grep -v hint'"));
        place.session(&format!("$ {next}\nasyncq: processor 1 (process [..] on [..]) {told}"));
    }
    assert_eq!(place.read("begun"), "1\n2\n");
}

/// A call that is running, and a copy of its store, made meanwhile.
fn copied_while_it_runs() -> (Place, Running) {
    let place = Place::with_functions(&[(
        "waits",
        "echo $ASYNCQ_ATTEMPT >> begun; [ $ASYNCQ_ATTEMPT = 2 ] || until [ -e go ]; do sleep 0.01; done; echo done",
    )]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.read("begun") == "1\n");
    place.execute(&format!("VACUUM INTO '{}'", place.at("copy.db").display()));
    (place, process)
}

const OF_THE_ORIGINAL: &str = "
    $ asyncq --db copy.db process
    done
    ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; 1 of its jobs put back
    ";

#[test]
fn a_copy_is_not_held_up_by_the_processor_of_the_original_and_ends_nothing_of_it() {
    let (place, process) = copied_while_it_runs();
    place.session(OF_THE_ORIGINAL);
    place.session(
        r#"
        $ asyncq --db copy.db job show 1 --json
        {[..]"state":"completed",[..]"attempts":[{"attempt":1,[..]"ending":"crash","error":{"kind":"crash","message":"the store was copied while it ran",[..]
        "#,
    );
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
    place.session("$ asyncq job list --json | grep -o '\"state\":\"[a-z]*\"\\|\"attempt\":[0-9]*'\n\"state\":\"completed\"\n\"attempt\":1");
}

#[test]
fn a_copy_with_its_folder_ends_nothing_of_the_original_either() {
    let (place, process) = copied_while_it_runs();
    place.stdout("cp -r .local/share/asyncq/queue.db-asyncq copy.db-asyncq");
    place.session(OF_THE_ORIGINAL);
    place.session("$ ls copy.db-asyncq");
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
}

/// Each on a copy of its own, of the same moment: without the folder of the original, with it, and with it after a reboot.
#[test]
fn every_command_that_meets_what_ran_in_the_original_puts_it_back() {
    let (place, process) = copied_while_it_runs();
    let folder = "cp -r .local/share/asyncq/queue.db-asyncq now.db-asyncq";
    let rebooted = format!("{folder}; sqlite3 now.db \"UPDATE asyncq_processor SET boot = 'another pid:[1]'\"");
    for beside in ["", folder, &rebooted] {
        for session in [
            "
            $ asyncq --db now.db init
            ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; 1 of its jobs put back
            ! asyncq: `[..]` is up to date
            $ asyncq --db now.db init
            ! asyncq: `[..]` is up to date
            $ asyncq --db now.db process
            done
            ",
            "
            $ asyncq --db now.db job cancel 1
            $ asyncq --db now.db job show 1 --json | grep -o '\"state\":\"[a-z]*\"\\|the store was copied while it ran'
            \"state\":\"cancelled\"
            the store was copied while it ran
            ",
            "
            $ asyncq --db now.db job cancel --all
            ! asyncq: cancelled 1 job
            $ asyncq --db now.db job retry 1
            $ asyncq --db now.db process
            done
            ",
            "
            $ asyncq --db now.db job retry 1
            ! error: job 1 is queued, nothing to retry
            ! hint: it will run by itself
            ? 77
            ",
            "
            $ asyncq --db now.db service remove events
            ! error: service `events` has 1 waiting job
            ! hint: `--force` removes it and cancels them
            ? 77
            $ asyncq --db now.db service remove events --force
            ! asyncq: cancelled 1 waiting job: 1
            ",
            "
            $ asyncq --db now.db function remove events waits --force
            ! asyncq: cancelled 1 waiting job: 1
            ",
        ] {
            place.stdout(&format!("rm -rf now.db*; cp copy.db now.db; echo 1 > begun; {beside}"));
            place.session(session);
            place.session(
                "
                $ sqlite3 now.db 'SELECT count(*) FROM asyncq_processor'; find . -path './now.db-asyncq/[0-9a-f]*'
                0
                ",
            );
        }
    }
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
    assert_eq!(place.jobs("state attempt"), "completed 1");
}

#[test]
fn what_may_still_run_is_put_back_only_by_a_processor_where_a_backup_takes_the_place_of_its_original() {
    let (place, process) = copied_while_it_runs();
    let engine = process.engine();
    let both = format!("{engine} $(ps -o ppid= -p {engine})");
    // Neither is to see the other one die, and end what it ran.
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    drop(process);
    place.session(
        "
        $ cd .local/share/asyncq; rm queue.db queue.db-wal queue.db-shm; mv ../../../copy.db queue.db
        $ asyncq job retry 1
        ! error: job 1 is processing, nothing to retry
        ! hint: `asyncq job cancel 1` ends it first
        ? 77
        $ asyncq process
        done
        ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; 1 of its jobs put back
        ",
    );
}

#[test]
fn what_ran_when_a_backup_was_made_is_run_again_on_a_machine_with_another_name() {
    let (place, process) = copied_while_it_runs();
    place.write("go", "");
    assert!(process.wait().status.success());
    let unshare = if is_root(&place) { "unshare -u" } else { "unshare -ru" };
    place.session(&format!(
        "
        $ {unshare} sh -c 'hostname newbox; asyncq --db copy.db process --trust-store-writers'
        done
        ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; 1 of its jobs put back
        $ asyncq --db copy.db job list --json | grep -o '\"state\":\"[a-z]*\"'
        \"state\":\"completed\"
        "
    ));
}

#[test]
fn a_machine_is_known_by_its_boot_and_not_by_its_name() {
    let (place, process) = copied_while_it_runs();
    // One that is stopped does not see that its folder is gone, and so does not end.
    place.stdout(&format!("kill -STOP {}; rm -r .local/share/asyncq/queue.db-asyncq", process.engine()));
    let unshare = if is_root(&place) { "unshare -u" } else { "unshare -ru" };
    // The same machine with another name: what runs there runs here.
    place.session(&format!(
        "
        $ {unshare} sh -c 'hostname newname; asyncq enqueue events waits; asyncq -v process --trust-store-writers'
        2
        ! asyncq: service `events` is busy: its one slot is taken by processor 1 (process [..] on [..])
        ! asyncq: attempts: 0; jobs that ended in an error: 0
        "
    ));
    // Another machine with the same name, or after a new start.
    place.execute("UPDATE asyncq_processor SET boot = 'another pid:[1]'");
    place.session(
        "
        $ asyncq process --max-jobs 1
        done
        ! asyncq: processor 1 (process [..] on [..]) died; 1 of its jobs put back
        ",
    );
    drop(process);
}

/// What older schemas let clients write, or somebody writes without the triggers.
fn write_whatever(place: &Place, sql: &str) {
    place.stdout(&format!("sqlite3 -cmd '.dbconfig enable_trigger off' {} \"{sql}\"", place.store().display()));
}

#[test]
fn what_is_processing_without_a_processor_is_put_back() {
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
        ! asyncq: found `processing` without a processor, and put back: job 3 is queued, job 4 is cancelled
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
        ! asyncq: found `processing` without a processor, and put back: job 3 is queued
        $ asyncq process
        $ asyncq enqueue events hello 5
        5
        ",
    );
    write_whatever(&place, &format!("{lost} WHERE id = 5"));
    place.session("$ asyncq job cancel 5");
    assert_eq!(place.jobs("state attempt"), "completed 1, cancelled 1, completed 1, cancelled 0, cancelled 0");
}

#[test]
fn what_was_taken_from_a_processor_is_told_as_what_it_is() {
    let place = Place::with_functions(&[("slow", "touch begun-$1; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout(
        "asyncq service set events --concurrency 2; asyncq enqueue events slow 1; asyncq enqueue events slow 2",
    );
    let process = place.start("asyncq process --max-jobs 2");
    crate::place::wait_until("both run", || place.at("begun-1").exists() && place.at("begun-2").exists());
    write_whatever(
        &place,
        "DELETE FROM asyncq_job WHERE id = 1; UPDATE asyncq_job SET state = 'cancelled' WHERE id = 2",
    );
    place.write("go", "");
    let output = process.wait();
    let said = String::from_utf8(output.stderr).unwrap();
    for told in [
        "asyncq: job 1 is not in the store any more; what it did here counts for nothing\n",
        "asyncq: job 2 is cancelled now, which was not done here; what it did here counts for nothing\n",
    ] {
        assert!(said.contains(told), "{said}");
    }
}
