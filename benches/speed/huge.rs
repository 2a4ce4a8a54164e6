//! Listing and cleaning among ten million jobs, and how long others wait for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Bench, median, timed};

/// Most are done; of each thing that people look for there is little, and that is old.
const JOBS: u32 = 10_000_000;
const FEW: u32 = 100;

pub fn huge() {
    println!(
        "huge: among 10,000,000 jobs; how long a BEGIN IMMEDIATE of another connection waited meanwhile: 99.9 %, all"
    );
    let bench = Bench::new(1);
    bench.asyncq(&["service", "add", "other"]);
    bench.asyncq(&["function", "add", "other", "true", "--", "/bin/true"]);
    fill(&bench, "other", FEW, "state = 'held'");
    fill(
        &bench,
        "events",
        FEW,
        "state = 'error', error = '{\"kind\":\"exit\",\"message\":\"exit code 1\"}', finished_at = 1",
    );
    fill(&bench, "events", FEW, "state = 'cancelled', finished_at = 1");
    fill(&bench, "events", FEW, "state = 'delayed', run_at = 4102444800000 + id");
    fill(&bench, "events", FEW, "state = 'queued'");
    for _ in 0..JOBS / 1_000_000 {
        fill(&bench, "events", 1_000_000, "state = 'completed', attempt = 1, finished_at = run_at");
    }
    for filter in [
        "",
        "--state completed",
        "--state error",
        "--state cancelled",
        "--state held",
        "--state delayed",
        "--state queued",
        "--state processing",
        "--state queued --service events",
        "--service other --state held",
        "--service other",
        "--function true",
        "--principal nobody",
    ] {
        let mut args = vec!["job", "list", "--limit", "50"];
        args.extend(filter.split_whitespace());
        tell(&bench, &args);
    }
    fill(&bench, "events", 1_000_000, "state = 'queued'");
    for line in ["job retry ", "job cancel ", "job show ", "job show 77", "enqueue other "] {
        complete(&bench, line);
    }
    tell(&bench, &["job", "clean", "--state", "error"]);
    tell(&bench, &["job", "clean"]);
}

fn fill(bench: &Bench, service: &str, count: u32, change: &str) {
    bench.change(&format!(
        "BEGIN; CREATE TEMP TABLE last AS SELECT coalesce(max(id), 0) AS id FROM asyncq_job;
         INSERT INTO asyncq_job (service, function, state)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT '{service}', 'true', 'held' FROM n;
         UPDATE asyncq_job SET {change} WHERE id > (SELECT id FROM temp.last); COMMIT"
    ));
}

/// What a shell waits for when somebody presses Tab.
fn complete(bench: &Bench, line: &str) {
    let words = ["--", "asyncq"].into_iter().chain(line.split(' ')).collect::<Vec<_>>();
    let ask = || assert!(bench.command(&words).env("COMPLETE", "bash").status().unwrap().success());
    let time = median((0..20).map(|_| timed(ask)).collect());
    println!("{:<50} {time:>10.1?}   (to reach: 60 ms)", format!("completion of `asyncq {line}`"));
}

fn tell(bench: &Bench, args: &[&str]) {
    let done = AtomicBool::new(false);
    let (time, mut waited) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let db = rusqlite::Connection::open(bench.path()).unwrap();
            db.busy_timeout(Duration::from_secs(60)).unwrap();
            let mut waited = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                db.execute_batch("BEGIN IMMEDIATE").unwrap();
                waited.push(began.elapsed());
                db.execute_batch("ROLLBACK").unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            waited
        });
        let time = timed(|| bench.asyncq(args));
        done.store(true, Ordering::Relaxed);
        (time, waits.join().unwrap())
    });
    waited.sort_unstable();
    let count = waited.len();
    let (most, longest) = (waited[count - 1 - count / 1000], waited[count - 1]);
    println!(
        "{:<50} {time:>10.1?} {most:>10.1?} {longest:>10.1?}   (to reach: others wait at most 100 ms)",
        args.join(" ")
    );
}
