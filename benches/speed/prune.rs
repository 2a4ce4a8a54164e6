//! Removing old jobs while calls run.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::workers::WORKER;
use super::{Bench, median, tell, timed};

const OLD: u32 = 1_000_000;
const CALLS: u32 = 300_000;

pub fn prune() {
    println!(
        "prune: a drain of {CALLS} no-op calls in a worker beside {OLD} jobs that are too old, medians of 5, in turn; per call"
    );
    let (mut beside, mut alone, mut waits, mut waits_alone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let (time, longest) = drain("1d");
        beside.push(time);
        waits.push(longest);
        let (time, longest) = drain("forever");
        alone.push(time);
        waits_alone.push(longest);
    }
    tell("while they are removed | while they stay", median(beside), median(alone), "at most 1.05");
    tell("the longest wait of another writer", median(waits), median(waits_alone), "at most 50 ms");
}

/// How long a drain takes, and the longest time that another writer waited meanwhile.
fn drain(keep: &str) -> (Duration, Duration) {
    let bench = Bench::new(1);
    let program = bench.folder.path().join("worker.py");
    fs::write(&program, WORKER).unwrap();
    bench.asyncq(&["function", "add", "events", "sleep", "--worker", "--", "python3", program.to_str().unwrap()]);
    bench.fill(OLD, "true");
    bench.change(
        "UPDATE asyncq_job SET state = 'completed', attempt = 1, created_at = 1, finished_at = 1;
        INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending, log)
            SELECT id, 1, 1, 1, 1, 'completed', randomblob(200) FROM asyncq_job",
    );
    bench.asyncq(&["service", "set", "events", "--keep", keep]);
    bench.fill(CALLS, "sleep");
    // What was written until now is nobody's cost.
    bench.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| {
            let mut db = rusqlite::Connection::open(bench.path()).unwrap();
            // SQLite's own would sleep for up to 100 ms while the lock is free.
            db.busy_handler(Some(|_| {
                std::thread::sleep(Duration::from_millis(1));
                true
            }))
            .unwrap();
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                longest = longest.max(began.elapsed());
                db.execute_batch("ROLLBACK").unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            longest
        });
        let mut process = bench.command(&["-q", "process", "--follow"]).spawn().unwrap();
        let time = timed(|| bench.asyncq(&["wait", "--service", "events"]));
        done.store(true, Ordering::Relaxed);
        process.kill().unwrap();
        process.wait().unwrap();
        (time / CALLS, waited.join().unwrap())
    })
}
