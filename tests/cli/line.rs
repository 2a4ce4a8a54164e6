//! Writers wait in line, and nothing depends on it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::place::{Place, Running, lock, wait_until};

/// Whether a process has a place in the line.
pub fn is_in_line(place: &Place, pid: u32) -> bool {
    let pid = pid.to_string();
    let Ok(line) = fs::metadata(format!("{}-asyncq/.line", place.store().display())) else { return false };
    let file = format!(":{}", line.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| {
        let words: Vec<&str> = lock.split_ascii_whitespace().collect();
        words.contains(&&*pid) && words.iter().any(|word| word.ends_with(&file))
    })
}

#[test]
fn a_writer_that_is_stopped_first_in_line_costs_a_processor_no_more_than_one_thread() {
    let place = Place::with_functions(&[("count", "ls /proc/$PPID/task | wc -l")]);
    place.stdout("asyncq enqueue events count && asyncq process");
    place.enqueue_many("count", 30);
    let lock = lock(&place.store());
    let stopped = place.start("asyncq enqueue events count");
    wait_until("it is first in line", || is_in_line(&place, stopped.0.id()));
    stopped.signal("STOP");
    drop(lock);

    let counts = place.stdout("asyncq --quiet process");
    let counts: Vec<usize> = counts.lines().map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts.len(), 30);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    // One for each job would make them many more.
    assert!(most - least < 15, "threads of the processor, job by job: {counts:?}");

    stopped.signal("CONT");
    assert!(stopped.wait().status.success());
    place.stdout("asyncq process");
    assert_eq!(place.count("--state completed"), 32);
}

#[test]
fn the_first_to_come_is_served_first() {
    let place = Place::with_functions(&[("nothing", "true")]);
    place.stdout("asyncq enqueue events nothing && asyncq process");
    let lock = lock(&place.store());
    let crowd: Vec<Running> = (2..12)
        .map(|_| {
            let one = place.start("asyncq enqueue events nothing");
            wait_until("it is in line", || is_in_line(&place, one.0.id()));
            one
        })
        .collect();
    drop(lock);
    let ids: Vec<String> = crowd.into_iter().map(|one| String::from_utf8(one.wait().stdout).unwrap()).collect();
    assert_eq!(ids.concat(), "2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n");
}
