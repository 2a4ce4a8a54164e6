//! A processor that stays: `asyncq process --follow`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::place::{Place, Running, unix_time, wait_until};

fn state(place: &Place, job: usize) -> String {
    place.jobs("state").split(", ").nth(job - 1).unwrap_or("none").to_owned()
}

/// A processor that follows, once it does.
fn following(place: &Place, options: &str) -> Running {
    let process = place.start(&format!("asyncq process --follow {options}"));
    wait_until("it is there", || place.processors() == 1);
    process
}

#[test]
fn calls_run_as_they_arrive_from_any_client() {
    let place = Place::with_functions(&[("hello", "echo Hello $1")]);
    let process = following(&place, "");
    place.stdout("asyncq enqueue events hello there");
    wait_until("the call has run", || state(&place, 1) == "completed");
    place.insert("function, args", "'hello', '[\"SQL\"]'");
    wait_until("a plain INSERT has run", || state(&place, 2) == "completed");
    process.signal("TERM");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Hello there\nHello SQL\n");
    assert_eq!(place.processors(), 0);
}

#[test]
fn a_delayed_call_runs_when_it_is_due_and_a_conflict_is_tried_again() {
    let place = Place::with_functions(&[("hello", "echo $1"), ("meets", "[ $ASYNCQ_ATTEMPT = 3 ] || exit 75")]);
    let process = following(&place, "");
    place.insert("function, run_at", &format!("'hello', {}", unix_time() + 1000));
    assert_eq!(state(&place, 1), "delayed");
    wait_until("it was due", || state(&place, 1) == "completed");
    let job = place.job(1);
    assert!(job["started_at"].as_str().unwrap() >= job["run_at"].as_str().unwrap(), "{job}");
    place.stdout("asyncq enqueue events meets");
    wait_until("it was tried three times", || state(&place, 2) == "completed");
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn many_services_run_at_once_each_within_its_concurrency() {
    let place = Place::with_functions(&[]);
    place.stdout("asyncq service set events --concurrency 2 && asyncq service add others");
    // Each says that it has begun, and ends when it may.
    place.program("waits", "#!/bin/sh\ntouch begun.$ASYNCQ_JOB\nuntil [ -e end ]; do sleep 0.02; done\n");
    for service in ["events", "others"] {
        place.stdout(&format!("asyncq function add {service} waits -- ./waits"));
    }
    let process = following(&place, "");
    place.stdout("for n in 1 2 3; do asyncq enqueue events waits; asyncq enqueue others waits; done");
    wait_until("all slots are taken", || [1, 2, 3].iter().all(|job| place.at(&format!("begun.{job}")).exists()));
    assert_eq!(place.slots(), "events 2, others 1");
    assert!([4, 5, 6].iter().all(|job| !place.at(&format!("begun.{job}")).exists()));
    place.write("end", "");
    wait_until("all have run", || place.count("--state completed") == 6);
    wait_until("no slot is kept", || place.slots().is_empty());
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn services_and_functions_that_are_added_meanwhile_are_followed() {
    let place = Place::with_functions(&[("says", "echo before > said")]);
    let process = following(&place, "");
    place.stdout("asyncq enqueue events says");
    wait_until("it has run", || place.read("said") == "before\n");
    place.program("says_more", "#!/bin/sh\necho after > said\n");
    place.stdout("asyncq function set events says -- ./says_more && asyncq enqueue events says");
    wait_until("the new program has run", || place.read("said") == "after\n");
    place.stdout("asyncq service add new && asyncq function add new says -- ./says");
    place.stdout("asyncq enqueue new says");
    wait_until("the new service is served", || place.read("said") == "before\n");
    place.stdout("asyncq service pause events && asyncq enqueue events says && asyncq enqueue new says");
    wait_until("the other one is served", || state(&place, 5) == "completed");
    assert_eq!(state(&place, 4), "queued");
    place.stdout("asyncq service resume events");
    wait_until("it is resumed", || state(&place, 4) == "completed");
    place.stdout("asyncq service remove new");
    place.stdout("asyncq enqueue events says");
    wait_until("those that are left are served", || state(&place, 6) == "completed");
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn only_named_services_are_followed() {
    let place = Place::with_functions(&[("hello", "echo $1")]);
    place.stdout("asyncq service add other && asyncq function add other hello -- ./hello");
    let process = following(&place, "other");
    place.stdout("asyncq enqueue events hello 1; asyncq enqueue other hello 2");
    wait_until("it is served", || state(&place, 2) == "completed");
    assert_eq!(state(&place, 1), "queued");
    process.signal("TERM");
    assert!(process.wait().status.success());
    place.session(
        "
        $ asyncq process --follow nothing
        ! error: there is no service `nothing`
        ! hint: `asyncq service list` shows all
        ? 66
        ",
    );
}

#[test]
fn a_signal_lets_running_calls_end_and_cancelling_still_works() {
    let place = Place::with_functions(&[("waits", "touch begun.$ASYNCQ_JOB; until [ -e end ]; do sleep 0.02; done")]);
    let mut process = following(&place, "");
    place.stdout("asyncq enqueue events waits");
    wait_until("it has begun", || place.at("begun.1").exists());
    place.stdout("asyncq job cancel 1");
    assert_eq!(state(&place, 1), "cancelled");
    place.stdout("asyncq enqueue events waits && asyncq enqueue events waits");
    wait_until("the next one has begun", || place.at("begun.2").exists());
    process.signal("TERM");
    let mut told = String::new();
    BufReader::new(process.0.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("stopping when the running job has ended"), "{told}");
    place.write("end", "");
    assert!(process.wait().status.success());
    assert_eq!((state(&place, 2), state(&place, 3)), ("completed".to_owned(), "queued".to_owned()));
}

#[test]
fn it_ends_after_so_many_calls_or_so_much_time() {
    let place = Place::with_functions(&[("hello", "echo $1")]);
    place.stdout("for n in 1 2 3; do asyncq enqueue events hello $n; done");
    assert_eq!(place.stdout("asyncq process --follow --max-jobs 2"), "1\n2\n");
    assert_eq!(place.stdout("asyncq process --follow --max-time 200ms"), "3\n");
}

#[test]
fn a_dead_processor_is_taken_over_from_while_nothing_else_happens() {
    let place = Place::with_functions(&[(
        "dies",
        "[ $ASYNCQ_ATTEMPT != 1 ] || touch begun; until [ -e end ]; do sleep 0.02; done",
    )]);
    let process = following(&place, "");
    place.stdout("asyncq enqueue events dies");
    wait_until("it has begun", || place.at("begun").exists());
    let other = place.start("asyncq process --follow");
    wait_until("there are two", || place.processors() == 2);
    process.signal("KILL");
    wait_until("the other one runs it", || place.jobs("attempt") == "2");
    place.write("end", "");
    wait_until("the other one has run it", || state(&place, 1) == "completed");
    assert_eq!(place.jobs("attempt crashes"), "2 1");
    other.signal("TERM");
    assert!(other.wait().status.success());
}

#[test]
fn systemd_hears_that_it_is_ready_and_lives_and_functions_do_not_speak_for_it() {
    let mut place = Place::with_functions(&[("env", "echo \"${NOTIFY_SOCKET-none} ${WATCHDOG_USEC-none}\"")]);
    let socket = UnixDatagram::bind(place.at("notify")).unwrap();
    let path = place.at("notify");
    place.set("NOTIFY_SOCKET", path.to_str().unwrap());
    place.set("WATCHDOG_USEC", "100000");
    let process = place.start("asyncq process --follow");
    // Heard all the time, as systemd does: a socket takes only so many messages that nobody reads, and no more.
    let (say, heard) = channel();
    thread::spawn(move || {
        let mut space = [0; 256];
        while let Ok(count) = socket.recv(&mut space) {
            let _ = say.send(String::from_utf8_lossy(&space[..count]).trim().to_owned());
        }
    });
    let next = || heard.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    place.stdout("asyncq enqueue events env");
    wait_until("it has run", || state(&place, 1) == "completed");
    process.signal("TERM");
    while next() != "STOPPING=1" {}
    assert_eq!(String::from_utf8(process.wait().stdout).unwrap(), "none none\n");
    fs::remove_file(place.at("notify")).unwrap();
}

#[test]
fn systemd_hears_that_it_stops_whenever_the_signal_comes() {
    let mut place = Place::with_functions(&[]);
    let socket = UnixDatagram::bind(place.at("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    place.set("NOTIFY_SOCKET", place.at("notify").to_str().unwrap());
    place.set("ASYNCQ_FAILPOINT", "processor registered=stop");
    let process = place.start("asyncq process --follow");
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.engine())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, after)| after.starts_with('T'))
    };
    wait_until("it stops before its first look for calls", is_stopped);
    process.signal("TERM");
    place.stdout(&format!("kill -CONT {}", process.engine()));
    let mut space = [0; 256];
    let heard = [(); 2]
        .map(|()| socket.recv(&mut space).map(|count| String::from_utf8_lossy(&space[..count]).trim().to_owned()));
    assert_eq!(heard.map(Result::unwrap), ["READY=1", "STOPPING=1"]);
    assert!(process.wait().status.success());
}

#[test]
fn the_unit_and_the_container_of_the_documents_are_those_of_the_examples() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/follow.md")).unwrap();
    for (language, example) in [("ini", "asyncq.service"), ("yaml", "compose.yaml")] {
        let file = fs::read_to_string(root.join("examples").join(example)).unwrap();
        let shown = page.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(shown, file);
    }
}

#[test]
fn an_idle_follower_notices_that_the_store_was_replaced() {
    let ways = [
        ("mkdir before; mv queue.db* before; cp before/queue.db queue.db", ""),
        ("mv queue.db moved.db", ""),
        ("rm queue.db", ""),
        ("cp queue.db copy.db; mv copy.db queue.db", ""),
        ("rm queue.db-wal", "-wal"),
        ("rm queue.db-shm", "-shm"),
        ("rm queue.db-wal queue.db-shm", "-wal"),
        ("cp queue.db-shm copy; mv copy queue.db-shm", "-shm"),
    ];
    let followers = ways.map(|(way, named)| {
        let place = Place::with_functions(&[("hello", "echo hello")]);
        let process = following(&place, "");
        place.stdout("asyncq enqueue events hello");
        wait_until("the call has run", || state(&place, 1) == "completed");
        (place, process, way, named)
    });
    for (place, _, way, _) in &followers {
        place.stdout(&format!("cd .local/share/asyncq; {way}"));
    }
    for (place, process, way, named) in followers {
        let output = process.wait();
        let told = String::from_utf8(output.stderr).unwrap();
        let file = format!("{}{named}", place.store().display());
        assert!(told.contains(&format!("`{file}` was moved, replaced or removed while in use\n")), "{way}: {told}");
        assert_eq!(output.status.code(), Some(74), "{way}: {told}");
    }
}
