//! What people look at, among ten million jobs of which a million wait, and in a small store.

use std::time::Duration;

use super::{Bench, median, timed};

/// How often each command runs.
const RUNS: usize = 21;

pub fn seeing() {
    println!(
        "seeing: medians of {RUNS} whole processes, in a store with 20 jobs, and with 10,000,000 of which 1,000,000 wait"
    );
    let (small, big) = (Bench::new(1), Bench::new(1));
    for (bench, ended, waiting) in [(&small, 10, 10), (&big, 9_000_000, 1_000_000)] {
        let mut left = ended;
        while left > 0 {
            let some = left.min(1_000_000);
            fill(bench, some, "state = 'completed', attempt = 1, finished_at = run_at");
            left -= some;
        }
        fill(bench, waiting, "state = 'queued'");
        fill(bench, 10, "state = 'error', error = '{\"kind\":\"exit\",\"message\":\"exit code 1\"}', finished_at = 1");
        bench.asyncq(&["schedule", "add", "nightly", "--cron", "30 2 * * *", "--tz", "UTC", "events", "true"]);
    }
    let version = time(&small, &["--version"], "");
    println!("{:<50} {version:>10.1?}", "--version");
    let last = ["explain", "9500000"];
    for (what, in_small, in_big, complete) in [
        ("status", &["status"][..], &["status"][..], ""),
        ("due", &["due"], &["due"], ""),
        ("explain, of a call that waits", &["explain", "15"], &last, ""),
        ("job list", &["job", "list"], &["job", "list"], ""),
        (
            "completion of a job id",
            &["--", "asyncq", "job", "retry", ""],
            &["--", "asyncq", "job", "retry", ""],
            "fish",
        ),
    ] {
        let [in_small, in_big] = [time(&small, in_small, complete), time(&big, in_big, complete)];
        let ratio = in_small.as_secs_f64() / version.as_secs_f64();
        println!("{what:<50} {in_small:>10.1?} {ratio:>6.2} x --version {in_big:>10.1?}   (to reach: 3 x; 50 ms)");
    }
}

fn time(bench: &Bench, args: &[&str], complete: &str) -> Duration {
    let run = || {
        let mut command = bench.command(args);
        if !complete.is_empty() {
            command.env("COMPLETE", complete);
        }
        timed(|| assert!(command.status().is_ok()))
    };
    run();
    median((0..RUNS).map(|_| run()).collect())
}

fn fill(bench: &Bench, count: u32, change: &str) {
    bench.change(&format!(
        "BEGIN; CREATE TEMP TABLE last AS SELECT coalesce(max(id), 0) AS id FROM asyncq_job;
         INSERT INTO asyncq_job (service, function, state)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT 'events', 'true', 'held' FROM n;
         UPDATE asyncq_job SET {change} WHERE id > (SELECT id FROM temp.last); COMMIT"
    ));
}
