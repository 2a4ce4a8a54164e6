//! A deadline for a polite stop: `asyncq process --grace`.

use std::io::{BufRead, BufReader};

use crate::place::{Place, Running, WORKER, runs, wait_until};
use crate::rescue::{child, contained};

/// A call of ten minutes, and a short one at its sixth attempt.
const LONG: &str = "touch begun-$ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 6 ] || exec sleep 600; echo done";

/// Starts a processor while a call waits, and gives the process that a service manager signals.
type Start = fn(&Place) -> (Running, String);

fn started(place: &Place, line: &str) -> (Running, String) {
    let process = place.start(line);
    let pid = process.0.id().to_string();
    (process, pid)
}

/// A call outlives five stops: the processor ends in time each time, so that nobody has to kill it.
fn outlives_five_stops(start: Start) -> Place {
    let place = Place::with_functions(&[("long", LONG)]);
    place.stdout("asyncq enqueue events long");
    for attempt in 1..=5 {
        let (process, pid) = start(&place);
        wait_until("the call begins", || place.at(&format!("begun-{attempt}")).exists());
        place.stdout(&format!("kill -TERM {pid}"));
        let output = process.wait();
        assert!(output.status.success(), "{output:?}");
        assert!(!runs(&pid));
        assert_eq!(place.jobs("state attempt crashes"), format!("queued {attempt} 0"));
        assert_eq!(place.processors(), 0);
    }
    place.session("$ asyncq process\ndone");
    assert_eq!(place.jobs("state failures conflicts crashes"), "completed 0 0 0");
    place
}

#[test]
fn a_call_that_takes_longer_is_put_back_and_runs_to_its_end_at_last() {
    outlives_five_stops(|place| started(place, "asyncq process --grace 20ms"));
    outlives_five_stops(|place| started(place, "asyncq process --follow --grace 20ms"));
}

#[test]
fn without_any_grace_a_first_signal_puts_back() {
    outlives_five_stops(|place| started(place, "asyncq process --grace 0"));
}

#[test]
fn the_first_process_of_a_container_ends_in_time() {
    outlives_five_stops(|place| {
        let container = place.start(&contained(place, "asyncq process --grace 20ms"));
        let first = child(&container.0.id().to_string());
        (container, first)
    });
}

#[test]
fn a_call_that_ends_in_time_is_completed() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done; echo done")]);
    place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
    let mut process = place.start("asyncq --verbose process --grace 1h30m");
    wait_until("the call begins", || place.at("begun").exists());
    process.signal("TERM");
    let mut told = String::new();
    BufReader::new(process.0.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert_eq!(
        told,
        "asyncq: stopping when the running job has ended; after 1h30m, or when you signal again, asyncq ends it and puts it back, \
         which takes up to 10 seconds\n"
    );
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
    assert_eq!(place.jobs("state"), "completed, queued");
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace() {
    let place = Place::with_functions(&[("long", LONG)]);
    place.stdout("asyncq enqueue events long");
    let process = place.start("asyncq process --grace 100d");
    wait_until("the call begins", || place.at("begun-1").exists());
    process.signal("TERM");
    wait_until("it is asked once more", || {
        process.signal("TERM");
        place.jobs("state") == "queued"
    });
    assert!(process.wait().status.success());
}

#[test]
fn a_worker_is_asked_to_end_after_the_grace() {
    let place = Place::with_functions(&[]);
    let sleeps = "import time\nserve(lambda call: (note('begun', 1), time.sleep(600)))";
    place.program("work.py", &format!("{WORKER}{sleeps}"));
    place.stdout("asyncq function add events work --worker -- ./work.py; asyncq enqueue events work");
    let process = place.start("asyncq process --grace 20ms");
    wait_until("the call begins", || !place.read("begun").is_empty());
    process.signal("TERM");
    assert!(process.wait().status.success());
    assert_eq!(place.jobs("state crashes"), "queued 0");
}

#[test]
fn a_grace_is_a_span() {
    let place = Place::new();
    for (given, why) in
        [("5", "the unit is missing"), ("-1s", "a span cannot be negative"), ("soon", "it is not a span")]
    {
        let output = place.run(&format!("asyncq process --grace {given}"));
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.starts_with(&format!("error: `--grace` cannot be `{given}`: {why}\n")), "{told}");
    }
}
