//! Draining: order, slots, limits, output.

use std::io::Read;

use crate::place::{COMPLETES, Place, wait_until};

/// A function that says when it begins, and ends when it may.
pub const WAITS: &str =
    r#"echo "begin $1"; touch "begun-$1"; until [ -e "go-$1" ] || [ -e go ]; do sleep 0.01; done; echo "end $1""#;

#[test]
fn by_priority_then_when_due_then_first_come() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    for (word, priority, run_at) in [
        ("c", 0, 1_700_000_000_002_i64),
        ("d", 0, 1_700_000_000_002),
        ("e", 1, 1_600_000_000_000),
        ("b", 0, 1_700_000_000_001),
        ("a", -1, 1_700_000_000_003),
    ] {
        place.insert("function, args, priority, run_at", &format!("'say', '[\"{word}\"]', {priority}, {run_at}"));
    }
    place.session("$ asyncq process\na\nb\nc\nd\ne");
}

#[test]
fn services_one_after_the_other() {
    let place = Place::new();
    place.program("say", "#!/bin/sh\necho $ASYNCQ_SERVICE $1\n");
    for service in ["b", "a", "c"] {
        place.stdout(&format!("asyncq service add {service} && asyncq function add {service} say -- ./say"));
    }
    let enqueue = "for s in c b a; do asyncq enqueue $s say 1; asyncq enqueue $s say 2; done >/dev/null";
    place.stdout(enqueue);
    place.session("$ asyncq process\na 1\na 2\nb 1\nb 2\nc 1\nc 2");
    place.stdout(enqueue);
    place.session("$ asyncq process c a\nc 1\nc 2\na 1\na 2\n$ asyncq process\nb 1\nb 2");
}

#[test]
fn never_more_at_once_than_the_service_allows() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout(
        "asyncq service set events --concurrency 3; for i in 1 2 3 4 5; do asyncq enqueue events waits $i; done",
    );
    let first = place.start("asyncq process --max-jobs 2");
    wait_until("two calls begin", || place.at("begun-1").exists() && place.at("begun-2").exists());
    let second = place.start("asyncq process");
    wait_until("a third call begins", || place.at("begun-3").exists());
    // A third processor finds no slot.
    let busy = place.run("asyncq --verbose process");
    assert!(busy.status.success() && busy.stdout.is_empty());
    let word = String::from_utf8(busy.stderr).unwrap();
    assert!(
        word.starts_with("asyncq: service `events` is busy: its 3 slots are taken by processor 1 (process "),
        "{word}"
    );
    assert!(word.contains(", processor 2 (process ") && word.lines().count() == 2, "{word}");
    assert_eq!(place.count("--state processing"), 3);
    assert_eq!(place.slots(), "events 2, events 1");
    // A slot that becomes free is taken by the one who freed it, or by whoever works on the same queue.
    place.write("go-1", "");
    wait_until("the fourth call begins", || place.at("begun-4").exists());
    place.write("go", "");
    assert!(first.wait().status.success() && second.wait().status.success());
    assert_eq!(place.count("--state completed"), 5);
    assert_eq!((place.slots().as_str(), place.processors()), ("", 0));
}

#[test]
fn calls_that_become_ready_meanwhile_run() {
    let place = Place::with_functions(&[("waits", WAITS), ("hello", "echo hello")]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events waits 1");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun-1").exists());
    place.stdout("asyncq enqueue events hello");
    wait_until("the new call ends", || place.job(2)["state"] == "completed");
    place.write("go", "");
    let output = process.wait();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "begin 1\nhello\nend 1\n");
}

#[test]
fn one_slow_call_delays_no_other() {
    let place = Place::with_functions(&[("quick", ":"), ("waits", WAITS), ("hello", "echo hello $1")]);
    place.stdout("for i in $(seq 20); do asyncq enqueue events quick; done; asyncq enqueue events waits 1");
    place.stdout("asyncq enqueue events hello 2; asyncq enqueue events hello 3");
    let process = place.start("asyncq process");
    wait_until("the slow call begins", || place.at("begun-1").exists());
    // Whatever was claimed ahead of its turn goes back.
    wait_until("the others are given back", || place.count("--state processing --state completed") == 21);
    place.stdout("asyncq service pause events");
    place.write("go", "");
    let output = process.wait();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "begin 1\nend 1\n");
    place.session("$ asyncq service resume events; asyncq process\nhello 2\nhello 3");
    assert_eq!(place.jobs("failures conflicts crashes"), vec!["0 0 0"; 23].join(", "));
}

#[test]
fn limits_end_it_early_and_politely() {
    let place = Place::with_functions(&[("say", "echo $1"), ("slow", "sleep 1.2; echo slow")]);
    place.session(
        "
        $ for i in 1 2 3; do asyncq enqueue events say $i; done >/dev/null; asyncq process --max-jobs 2
        1
        2
        $ asyncq process --max-jobs 5
        3
        $ for i in 1 2 3; do asyncq enqueue events slow; done >/dev/null; asyncq process --max-time 1s
        slow
        $ asyncq job list --state queued --json | grep -c '\"id\"'
        2
        $ asyncq process --max-jobs 0
        ! error: `--max-jobs` cannot be `0`: a number of calls is a whole number from 1
        ! hint: `asyncq process --help` shows how
        ? 2
        $ asyncq process --max-jobs -1
        ! error: `--max-jobs` cannot be `-1`: a number of calls is a whole number from 1
        ! hint: `asyncq process --help` shows how
        ? 2
        $ asyncq process --max-time 5
        ! error: `--max-time` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        ",
    );
}

#[test]
fn output_is_live_and_unaltered() {
    let place = Place::with_functions(&[(
        "drip",
        r"printf 'no line end'; until [ -e go ]; do sleep 0.01; done; printf '\033[1m\000\377' >&2; exit 3",
    )]);
    place.stdout("asyncq enqueue events drip");
    let mut process = place.start("asyncq -q process");
    let mut seen = [0; 11];
    process.0.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"no line end");
    place.write("go", "");
    let output = process.wait();
    assert_eq!((output.stdout, output.stderr), (Vec::new(), b"\x1b[1m\0\xff".to_vec()));
    assert_eq!(output.status.code(), Some(1));
    let log = place.run("asyncq job log 1");
    assert_eq!((log.stdout, log.stderr), (b"no line end".to_vec(), b"\x1b[1m\0\xff".to_vec()));
}

#[test]
fn several_at_once_print_whole_lines() {
    let line = "x".repeat(300);
    let place = Place::with_functions(&[("lines", &format!("for i in $(seq 200); do printf $1{line}; echo $1; done"))]);
    place
        .stdout("asyncq service set events --concurrency 2; for i in 1 2 3 4; do asyncq enqueue events lines $i; done");
    let output = place.stdout("asyncq process");
    assert_eq!(output.lines().count(), 800);
    for printed in output.lines() {
        let (first, last) = (&printed[..1], &printed[printed.len() - 1..]);
        assert!(printed.len() == 302 && first == last, "{printed}");
    }
}

#[test]
fn long_output_is_kept_in_part() {
    let place = Place::with_functions(&[("flood", "seq 1000000")]);
    place.stdout("asyncq enqueue events flood");
    let all = place.stdout("asyncq process");
    assert_eq!(all.lines().count(), 1_000_000);
    let log = place.run("asyncq job log 1");
    let kept = String::from_utf8(log.stdout).unwrap();
    assert_eq!(kept.len(), 1024 * 1024);
    assert!(all.starts_with(&kept[..256 * 1024]) && all.ends_with(&kept[256 * 1024..]));
    let dropped = all.len() - kept.len();
    assert_eq!(String::from_utf8(log.stderr).unwrap(), format!("... {dropped} bytes were not kept ...\n"));
    place.session(&format!(
        "
        $ asyncq job show 1 --json
        {{[..]\"log_bytes\":1048576,\"log_dropped\":{dropped}}}]}}
        "
    ));
}

#[test]
fn a_reader_who_goes_away_is_no_reason_to_stop() {
    let place = Place::with_functions(&[("flood", "seq 100000")]);
    place.session(
        "
        $ for i in 1 2 3; do asyncq enqueue events flood; done >/dev/null
        $ asyncq process | head -1
        1
        $ asyncq job list --state completed --json | grep -c '\"id\"'
        3
        ",
    );
}

#[test]
fn a_function_never_reads_the_input_of_its_processor() {
    let place = Place::with_functions(&[("cat", "cat")]);
    place.session(
        "
        $ asyncq enqueue events cat; echo secret | asyncq process
        1
        {\"job\":1,[..]
        ",
    );
}

#[test]
fn a_function_inherits_no_descriptors_but_its_own() {
    let place = Place::with_functions(&[("fds", "echo $(ls -1 /proc/self/fd | grep -v '^3$')")]);
    place.session("$ asyncq enqueue events fds; asyncq process 7</dev/null 8<.\n1\n0 1 2");
}

#[test]
fn the_duration_of_a_call_is_the_same_everywhere() {
    let place = Place::with_functions(&[
        ("short", "true"),
        ("long", "sleep 0.05; echo printed"),
        ("itself", &format!("{COMPLETES}; sleep 0.05; echo $1")),
    ]);
    place.stdout("for call in short long itself 'itself word'; do asyncq enqueue events $call; done");
    let output = place.run("asyncq --verbose process");
    let told = String::from_utf8(output.stderr).unwrap();
    for job in 1..=4 {
        let line = told.lines().find(|line| line.starts_with(&format!("asyncq: job {job} "))).unwrap();
        let took = line.rsplit_once(" completed after ").unwrap().1;
        let shown = place.stdout(&format!("asyncq job show {job}"));
        assert!(shown.contains(&format!("  took {took}\n")), "{line}\n{shown}");
        let attempt = shown.lines().last().unwrap();
        assert!(attempt.starts_with("1 ") && attempt.contains(&format!("Z  {took} ")), "{line}\n{shown}");
    }
}
