//! Asking a processor to stop, and cancelling what it runs.

use std::io::{BufRead, BufReader};

use crate::place::{Place, runs, wait_until};

const WAITS: &str = "touch begun; until [ -e go ]; do sleep 0.01; done; echo done";

#[test]
fn a_first_signal_lets_running_calls_end() {
    for signal in ["TERM", "INT", "HUP"] {
        let place = Place::with_functions(&[("waits", WAITS)]);
        place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
        let mut process = place.start("asyncq --verbose process");
        wait_until("the call begins", || place.at("begun").exists());
        process.signal(signal);
        let mut word = String::new();
        BufReader::new(process.0.stderr.take().unwrap()).read_line(&mut word).unwrap();
        assert_eq!(word, "asyncq: stopping when the running job has ended; signal again to end it and put it back\n");
        place.write("go", "");
        let output = process.wait();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
        place.session("$ asyncq process\ndone");
    }
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_so_for_functions_too() {
    for (signal, line) in [("HUP", "nohup asyncq process"), ("INT", "sh -c 'trap \"\" INT; exec asyncq process'")] {
        let place = Place::with_functions(&[("waits", &format!("kill -{signal} $$; {WAITS}"))]);
        place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
        let process = place.start(line);
        wait_until("the call begins", || place.at("begun").exists());
        process.signal(signal);
        place.write("go", "");
        let output = process.wait();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "done\ndone\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn a_second_signal_puts_back_without_counting() {
    let place = Place::with_functions(&[(
        "waits",
        "touch begun-$ASYNCQ_ATTEMPT; until [ -e go ]; do sleep 0.01; done; echo done",
    )]);
    place.stdout("asyncq enqueue events waits");
    for attempt in 1..=4 {
        let process = place.start("asyncq process");
        wait_until("the call begins", || place.at(&format!("begun-{attempt}")).exists());
        process.signal("TERM");
        process.signal("TERM");
        wait_until("it is asked once more", || {
            process.signal("TERM");
            place.jobs("state") == "queued"
        });
        let output = process.wait();
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.ends_with("asyncq: job 1 (`events` `waits`): ended and put back\n"), "{stderr}");
    }
    place.session(
        r#"
        $ touch go; asyncq process
        done
        $ asyncq job show 1 --json
        {[..]"state":"completed",[..]"attempt":5,[..]"attempts":[{"attempt":1,[..]"ending":"interrupted",[..]
        "#,
    );
    assert_eq!(place.jobs("failures conflicts crashes"), "0 0 0");
}

#[test]
fn a_signal_while_nothing_runs_ends_the_wait() {
    let place = Place::with_functions(&[("meet", "touch begun; exit 75")]);
    place.stdout("asyncq enqueue events meet");
    let process = place.start("asyncq process --wait-retries");
    wait_until("it waits", || place.jobs("state") == "delayed");
    process.signal("TERM");
    assert!(process.wait().status.success());
    assert_eq!(place.jobs("state"), "delayed");
}

#[test]
fn waiting_jobs_are_cancelled_and_ended_ones_are_not() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ for i in 1 2 3; do asyncq enqueue events hello; done >/dev/null; asyncq enqueue events hello --hold >/dev/null
        $ asyncq job cancel 2 4
        $ asyncq process
        hello
        hello
        $ asyncq job cancel 1 2 9 3
        ! error: job 1 is completed, nothing to cancel
        ! hint: `asyncq job show 1` shows how it ended
        ! error: there is no job 9
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: job 3 is completed, nothing to cancel
        ! hint: `asyncq job show 3` shows how it ended
        ? 77
        $ asyncq job retry 2; asyncq process
        hello
        ",
    );
}

#[test]
fn cancelling_a_running_job_ends_it() {
    let place = Place::with_functions(&[("waits", "echo $$ > pid; touch begun; until [ -e go ]; do sleep 0.01; done")]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    place.session(
        r#"
        $ asyncq job cancel 1
        $ asyncq job show 1 --json
        {[..]"state":"cancelled",[..]"attempts":[{"attempt":1,[..]"ending":"cancelled",[..]
        "#,
    );
    assert!(process.wait().status.success() && !runs(&place.read("pid")));
}

#[test]
fn cancelling_a_parent_ends_its_nested_call() {
    let place = Place::with_functions(&[
        ("inner", "echo $$ > pid; touch begun; until [ -e go ]; do sleep 0.01; done"),
        ("outer", "asyncq enqueue events inner"),
    ]);
    place.stdout("asyncq enqueue events outer");
    let process = place.start("asyncq process");
    wait_until("the nested call begins", || place.at("begun").exists());
    place.session(
        r"
        $ asyncq job cancel 2
        ! error: job 2 ran at once, as a part of another job
        ! hint: `asyncq job cancel 1` concerns the whole
        ? 77
        $ asyncq job cancel 1
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        2   events   inner     []         -          error      [..]
        1   events   outer     []         -          cancelled  [..]
        ",
    );
    assert!(process.wait().status.success() && !runs(&place.read("pid")));
}

#[test]
fn a_processor_with_unread_output_ends_at_the_second_signal() {
    let place = Place::with_functions(&[("flood", "touch begun; seq 200000")]);
    place.stdout("asyncq enqueue events flood");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    let pid = process.0.id().to_string();
    wait_until("it ends", || {
        process.signal("TERM");
        !runs(&pid)
    });
    assert_eq!(place.jobs("state"), "queued");
    assert_eq!(place.processors(), 0);
}

#[test]
fn a_processor_that_only_waits_for_its_reader_is_none_any_more() {
    let place = Place::with_functions(&[("prints", "seq 40000")]);
    place.stdout("asyncq enqueue events prints");
    let process = place.start("asyncq process");
    wait_until("the call ends", || place.jobs("state") == "completed");
    wait_until("it leaves the store", || place.processors() == 0);
    assert!(runs(&process.0.id().to_string()));
    let printed = String::from_utf8(process.wait().stdout).unwrap();
    assert_eq!(printed.lines().count(), 40000);
}
