//! The two processes of a processor: whichever is killed, nothing is left and nothing runs twice.

use crate::place::{Place, Running, runs, sleeps, wait_until};

/// Functions that get away from whoever runs them, as far as they can, and say who they are.
fn hostile() -> Place {
    let place = Place::with_functions(&[]);
    place.program("stubborn", "#!/bin/sh\ntrap '' TERM HUP\necho $$ >> pids\nwhile :; do sleep 0.05; done\n");
    for (name, how) in [
        ("stays", "exec ./stubborn"),
        ("session", "setsid ./stubborn & wait"),
        ("bare", "(env -i setsid ./stubborn &)"),
    ] {
        place.function(name, "", &format!("[ $ASYNCQ_ATTEMPT = 1 ] || exit 0\n{how}\nwhile :; do sleep 0.05; done"));
        place.stdout(&format!("asyncq enqueue events {name}"));
    }
    place.stdout("asyncq service set events --concurrency 3");
    place
}

fn pids(place: &Place) -> Vec<String> {
    place.read("pids").lines().map(str::to_owned).collect()
}

fn at_work(place: &Place) -> Running {
    let process = place.start("setsid asyncq process");
    wait_until("all are at work", || pids(place).len() == 3);
    process
}

fn all_is_put_back_and_nothing_left(place: &Place) {
    place.session("$ asyncq process\n! asyncq: processor 1 (process [..] on [..]) died; put back 3 of its jobs");
    assert!(pids(place).iter().all(|pid| !runs(pid)));
    assert_eq!(place.jobs("state attempt crashes"), "completed 2 1, completed 2 1, completed 2 1");
}

#[test]
fn a_processor_whose_engine_is_killed_leaves_nothing() {
    let place = hostile();
    let process = at_work(&place);
    place.stdout(&format!("kill -9 {}", process.engine()));
    let output = process.wait();
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: the processor was ended by signal 9 (SIGKILL)\n\
         hint: nothing is lost: the next `asyncq process` puts back what was running\n"
    );
    assert!(pids(&place).iter().all(|pid| !runs(pid)));
    all_is_put_back_and_nothing_left(&place);
}

#[test]
fn a_processor_that_is_killed_leaves_nothing() {
    for whom in ["", "-"] {
        let place = hostile();
        let process = at_work(&place);
        place.stdout(&format!("kill -9 {whom}{}", process.0.id()));
        wait_until("the signal has arrived", || !runs(&process.0.id().to_string()));
        all_is_put_back_and_nothing_left(&place);
    }
}

#[test]
fn a_processor_that_is_just_dying_is_waited_for() {
    let place = hostile();
    let process = at_work(&place);
    let engine = process.engine();
    process.signal("STOP");
    place.stdout(&format!("kill -9 {engine}"));
    wait_until("the engine is dead, all of it", || !runs(&engine));
    let next = place.start("asyncq process");
    // It looks again and again, and does not find that there is nothing to do.
    let pid = next.0.id().to_string();
    wait_until("it waits", || sleeps(&next.engine()) > 100 || !runs(&pid));
    process.signal("CONT");
    let said = String::from_utf8(next.wait().stderr).unwrap();
    assert!(said.contains("died; put back 3 of its jobs"), "{said}");
    assert!(pids(&place).iter().all(|pid| !runs(pid)));
    drop(process);
    assert_eq!(place.count("--state completed"), 3);
}

fn is_stopped(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().rsplit_once(") ").unwrap().1.starts_with('T')
}

#[test]
fn a_terminal_that_stops_background_writers_stops_no_processor() {
    let place = Place::with_functions(&[("prints", "(echo aloud >/dev/tty) 2>/dev/null; echo done")]);
    place.stdout("asyncq enqueue events prints; asyncq enqueue events prints");
    let process = place.start("script -qec 'stty tostop; asyncq process' /dev/null");
    let pid = process.0.id().to_string();
    wait_until("it ends", || !runs(&pid));
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("done\r\n").count(), 2, "{output:?}");
}

#[test]
fn a_stopped_engine_hears_the_request_to_stop() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done; echo done")]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    let (pid, engine) = (process.0.id().to_string(), process.engine());
    place.stdout(&format!("kill -STOP {engine}"));
    wait_until("the engine is stopped", || is_stopped(&engine));
    process.signal("TERM");
    place.write("go", "");
    wait_until("it ends", || !runs(&pid));
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}

#[test]
fn a_processor_that_is_killed_while_it_is_stopped_leaves_nothing() {
    let place = hostile();
    let process = at_work(&place);
    let both = [process.0.id().to_string(), process.engine()];
    process.signal("TSTP");
    wait_until("both are stopped", || both.iter().all(|pid| is_stopped(pid)));
    process.signal("KILL");
    wait_until("both are gone", || both.iter().all(|pid| !runs(pid)));
    all_is_put_back_and_nothing_left(&place);
}

#[test]
fn both_halves_stop_at_the_terminals_wish_and_go_on() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done; echo done")]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    let both = [process.0.id().to_string(), process.engine()];
    process.signal("TSTP");
    wait_until("both are stopped", || both.iter().all(|pid| is_stopped(pid)));
    process.signal("CONT");
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\ndone\n");
}

#[test]
fn a_refusal_of_the_system_is_reported_with_a_hint() {
    let place = Place::with_functions(&[]);
    place.session(
        "
        $ ulimit -n 8; asyncq process
        ! error: cannot start a processor: too many files are open
        ! hint: `ulimit -n` shows how many there may be; try again when there are fewer
        ? 74
        ",
    );
    // A call costs nothing where none can be run.
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.stdout("asyncq enqueue events hello");
    place.session(
        "
        $ ulimit -n 20; asyncq process
        ! error: cannot run functions: too many files are open
        ! hint: `ulimit -n` shows how many there may be; try again when there are fewer
        ? 74
        $ asyncq process
        hello
        ",
    );
}
