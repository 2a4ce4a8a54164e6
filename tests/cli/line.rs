//! Writers wait in line, and nothing depends on it.

use std::fs;

use rusqlite::Connection;

use crate::place::{Place, Running, wait_until};

/// Whether a process has the kernel's lock that is the line, or waits for it.
fn is_in_line(process: &Running) -> bool {
    let pid = process.0.id().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains(" FLOCK ") && line.split_ascii_whitespace().any(|word| word == pid))
}

#[test]
fn a_writer_that_is_stopped_first_in_line_costs_a_processor_no_more_than_one_thread() {
    let place = Place::with_functions(&[("count", "ls /proc/$PPID/task /proc/$PPID/fd | wc -l")]);
    place.stdout("asyncq enqueue events count && asyncq process");
    place.stdout("for n in 1 2 3 4 5 6 7 8; do asyncq enqueue events count; done");
    let application = Connection::open(place.store()).unwrap();
    application.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stopped = place.start("asyncq enqueue events count");
    wait_until("it is first in line", || is_in_line(&stopped));
    stopped.signal("STOP");
    application.execute_batch("COMMIT").unwrap();

    let counts = place.stdout("asyncq --quiet process");
    let counts: Vec<usize> = counts.lines().map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts.len(), 8);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 4, "threads and descriptors of the processor, job by job: {counts:?}");

    stopped.signal("CONT");
    assert!(stopped.wait().status.success());
    place.stdout("asyncq process");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job WHERE state = 'completed'"), "10");
}
