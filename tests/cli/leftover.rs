//! What functions leave running when they end.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use asyncq::domain::job::Token;
use asyncq::orphans;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{COMPLETES, Place, runs, wait_until};

const STUBBORN: &str = "trap '' TERM HUP; echo $$ > pid; while :; do sleep 0.05; done";
const UNTIL_IT_RUNS: &str = "until [ -s pid ]; do sleep 0.01; done";

fn left(how: &str) -> Place {
    let place = Place::with_functions(&[("leaves", &format!("{how} & {UNTIL_IT_RUNS}"))]);
    place.program("stubborn", &format!("#!/bin/sh\n{STUBBORN}\n"));
    place.session("$ asyncq function add events stubborn -- ./stubborn\n$ asyncq enqueue events leaves\n1");
    place
}

#[test]
fn processes_that_a_function_leaves_behind_end_before_its_job() {
    // Each gets a while to end by itself.
    std::thread::scope(|scope| {
        for how in ["./stubborn", "setsid ./stubborn", "(setsid ./stubborn &)", "env -i setsid ./stubborn"] {
            scope.spawn(move || {
                let place = left(how);
                place.session("$ asyncq process\n");
                assert!(!runs(&place.read("pid")), "{how}");
            });
        }
    });
}

#[test]
fn orphans_of_others_are_left_alone() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    // A child of the shell in whose place asyncq is started is a child of asyncq.
    place.session("$ asyncq enqueue events hello\n1\n$ sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! > pid; exec asyncq process'\nhello");
    let pid = place.read("pid");
    assert!(runs(&pid));
    place.stdout(&format!("kill {pid}"));
}

#[test]
fn among_several_calls_each_is_rid_of_its_own() {
    // Without a token, its score tells to whom it belongs.
    let scored = "until [ $(cat /proc/self/oom_score_adj) -ge 500 ]; do :; done";
    for how in ["setsid ./stubborn", &format!("{scored}; ASYNCQ_TOKEN= setsid ./stubborn")] {
        among_several(how);
    }
}

fn among_several(how: &str) {
    let place = left(how);
    place.function(
        "waits",
        "",
        "touch begun; setsid sh -c 'echo $$ > kept; exec sleep 1000' & until [ -e go ]; do sleep 0.01; done",
    );
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the first call is over", || place.job(1)["state"] == "completed");
    wait_until("the other has begun", || !place.read("kept").is_empty());
    assert!(!runs(&place.read("pid")) && runs(&place.read("kept")));
    place.write("go", "");
    assert!(process.wait().status.success());
    assert!(!runs(&place.read("kept")));
}

#[test]
fn a_process_that_offers_itself_to_the_memory_killer_still_ends_with_its_call() {
    let daemon = "(echo 700 > /proc/self/oom_score_adj; exec setsid ./stubborn)";
    let place = left(&format!("until [ -e begun ]; do sleep 0.01; done; {daemon}"));
    place.function("waits", "", "touch begun; until [ -e go ]; do sleep 0.01; done");
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the first call is over", || place.job(1)["state"] == "completed");
    let survives = runs(&place.read("pid"));
    place.write("go", "");
    assert!(process.wait().status.success());
    assert!(!survives);
    assert_eq!(place.job(2)["state"], "completed");
}

#[test]
fn a_program_that_cannot_be_watched_leaves_nothing() {
    let place = left("setsid ./stubborn");
    place.function("looks", "", "! kill -0 $(cat pid) 2>/dev/null");
    place.stdout("asyncq service set events --concurrency 1; asyncq job cancel 1");
    place.stdout("asyncq enqueue events looks; asyncq enqueue events leaves; asyncq enqueue events looks");
    // The second time that a thread wants to watch somebody, it is refused that, and late: somebody has got away by then.
    let refuse = "inject=pidfd_open:error=EPERM:delay_enter=1000000:when=2";
    place.run(&format!("strace -f -qq -o /dev/null -e trace=pidfd_open -e {refuse} asyncq process"));
    assert!(place.stdout("asyncq job show 3 --json").contains("cannot be watched"));
    assert_eq!(place.jobs("state"), "cancelled, completed, error, completed");
    // Too few descriptors, that passes.
    place.stdout("asyncq enqueue events looks; asyncq enqueue events looks");
    place.stdout(
        "strace -f -qq -o /dev/null -e trace=pidfd_open -e inject=pidfd_open:error=EMFILE:when=2 asyncq process",
    );
    assert!(place.jobs("state").ends_with(", completed, completed, completed"));
}

#[test]
fn a_supervisor_with_children_of_its_own_ends_only_the_orphans_of_its_processor() {
    let place = Place::with_functions(&[]);
    place.program("stubborn", &format!("#!/bin/sh\n{}\n", STUBBORN.replace("> pid", ">> pids")));
    place.function("offered", "", "echo 1000 > /proc/self/oom_score_adj; exec ./stubborn");
    place.function("bare", "", "exec env -i ./stubborn");
    // Only the score tells whose what is bare is; where scores are high already, it tells nothing.
    let own: i32 = place.stdout("cat /proc/self/oom_score_adj").trim().parse().unwrap();
    let functions: &[&str] = if own < 500 { &["offered", "bare"] } else { &["offered"] };
    for function in functions {
        place.stdout(&format!("asyncq enqueue events {function}"));
    }
    place.stdout("asyncq service set events --concurrency 2");
    let process = place.start("sh -c 'sleep 1000 >/dev/null 2>&1 & echo $! > kept; exec asyncq process'");
    let pids = || place.read("pids").lines().map(str::to_owned).collect::<Vec<_>>();
    wait_until("all are at work", || pids().len() == functions.len());
    let kept = place.read("kept").trim().to_owned();
    let children = process.engine();
    let engine = children.split(' ').find(|pid| *pid != kept).unwrap();
    place.stdout(&format!("kill -9 {engine}"));
    let status = process.wait().status;
    let survivors: Vec<String> = pids().into_iter().filter(|pid| runs(pid)).collect();
    let keeps = runs(&kept);
    for pid in survivors.iter().chain([&kept]) {
        place.run(&format!("kill -9 {pid}"));
    }
    assert_eq!((status.code(), survivors, keeps), (Some(75), Vec::new(), true));
}

#[test]
fn a_nested_call_in_the_background_ends_with_its_parent() {
    let place = left("asyncq enqueue events stubborn");
    place.session(
        r#"
        $ asyncq process
        ...
        $ asyncq job show 2 --json
        {[..]"state":"error",[..]"error":{"kind":"parent",[..]
        "#,
    );
    assert!(!runs(&place.read("pid")));
}

#[test]
fn a_system_that_reaps_no_orphans_delays_no_processor() {
    let place = Place::with_functions(&[("leaves", "sleep 1000 & echo left")]);
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare" } else { "unshare -r" };
    // For a user in a namespace of his own, the folders above belong to nobody.
    let process = "asyncq process --trust-store-writers";
    place.session(&format!("$ asyncq enqueue events leaves\n1\n$ {unshare} -pf {process}\nleft"));
    assert_eq!(place.jobs("state"), "completed");
}

#[test]
fn a_function_that_completed_its_job_is_ended_with_its_dead_processor() {
    let place = Place::with_functions(&[("completes", &format!("{COMPLETES}; {STUBBORN}"))]);
    place.stdout("asyncq enqueue events completes");
    let process = place.start("asyncq process");
    wait_until("it has completed its job", || !place.read("pid").is_empty());
    place.session(
        "
        $ asyncq service remove events
        ! error: a processor is at work on service `events`
        ! hint: wait until it has ended, or end it
        ? 77
        ",
    );
    process.signal("KILL");
    drop(process);
    place.session("$ asyncq process");
    assert!(!runs(&place.read("pid")));
    assert_eq!(place.jobs("state attempt"), "completed 1");
    place.session("$ asyncq service remove events");
}

#[test]
fn the_dead_do_not_pile_up_while_a_function_runs() {
    let place = Place::with_functions(&[(
        "forks",
        "for number in $(seq 50); do (true &); done; touch begun; until [ -e go ]; do sleep 0.01; done",
    )]);
    place.stdout("asyncq enqueue events forks");
    let process = place.start("asyncq process");
    wait_until("it has forked", || place.at("begun").exists());
    let children = format!("/proc/{0}/task/{0}/children", process.engine());
    wait_until("they are reaped", || std::fs::read_to_string(&children).unwrap().is_empty());
    place.write("go", "");
    assert!(process.wait().status.success());
}

#[test]
fn a_process_that_a_dying_processor_had_just_started_is_found() {
    for number in 0..50 {
        let token = Token::from_random(number);
        let mut command = Command::new("sleep");
        let mut program = command.arg("1000").env("ASYNCQ_TOKEN", token.as_str()).spawn().unwrap();
        // Mostly, the program is in the middle of `execve` now: the old environment is gone, the new one not there yet.
        let ended = orphans::end(&[token], Duration::from_secs(20));
        // Does nothing to one that was killed before.
        let pid = Pid::from_child(&program);
        kill_process(pid, Signal::TERM).unwrap();
        let signal = program.wait().unwrap().signal();
        assert_eq!((ended, signal), (true, Some(9)), "program {number}");
    }
}
