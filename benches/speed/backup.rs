//! `asyncq backup`: what it costs those who write meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Bench, median};

/// How many bytes the store has, about.
const BYTES: u64 = 500_000_000;

/// How many backups are made in each journal mode.
const ROUNDS: usize = 5;

/// What a writer has done.
struct Written {
    commits: u32,
    time: Duration,
    longest: Duration,
}

impl Written {
    fn pace(&self) -> f64 {
        f64::from(self.commits) / self.time.as_secs_f64()
    }
}

/// Enqueues durably, one call in each commit, while `beside` does its work.
fn written(bench: &Bench, mode: &str, beside: impl FnOnce()) -> Written {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let store = rusqlite::Connection::open(bench.path()).unwrap();
            store.busy_timeout(Duration::from_secs(60)).unwrap();
            store.execute_batch(&format!("PRAGMA journal_mode={mode}; PRAGMA synchronous=FULL")).unwrap();
            let (began, mut written) =
                (Instant::now(), Written { commits: 0, time: Duration::ZERO, longest: Duration::ZERO });
            while !is_over.load(Ordering::Relaxed) {
                let commit = Instant::now();
                store.execute("INSERT INTO asyncq_job (service, function) VALUES ('events', 'true')", []).unwrap();
                written.longest = written.longest.max(commit.elapsed());
                written.commits += 1;
            }
            written.time = began.elapsed();
            written
        });
        beside();
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    })
}

/// A writer alone and beside a backup, in turns.
pub fn backup() {
    let bench = Bench::new(1);
    let rows = BYTES / 100_000;
    bench.sql(&format!(
        "INSERT INTO asyncq_job (service, function, args)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         SELECT 'events', 'true', json_array(hex(randomblob(50000))) FROM n"
    ));
    bench.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let megabytes = std::fs::metadata(bench.path()).unwrap().len() / 1_000_000;
    println!(
        "backup: a writer of durable calls beside a backup of {megabytes} MB; {ROUNDS} rounds, in turn with the writer alone"
    );
    for mode in ["WAL", "DELETE"] {
        let (mut ratios, mut longest, mut times) = (Vec::new(), Duration::ZERO, Vec::new());
        let mut alone_longest = Duration::ZERO;
        for round in 0..ROUNDS {
            let alone = written(&bench, mode, || sleep(Duration::from_secs(2)));
            let target = bench.folder.path().join(format!("{mode}{round}.db"));
            let mut time = Duration::ZERO;
            let beside = written(&bench, mode, || {
                let began = Instant::now();
                bench.asyncq(&["backup", target.to_str().unwrap()]);
                time = began.elapsed();
            });
            std::fs::remove_file(target).unwrap();
            ratios.push(beside.pace() / alone.pace());
            longest = longest.max(beside.longest);
            alone_longest = alone_longest.max(alone.longest);
            times.push(time);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:<58} {:>10.1?} {:>10.1?}   (to reach with a WAL: at most 250 ms)",
            format!("{mode}: the longest commit beside it | alone"),
            longest,
            alone_longest
        );
        println!(
            "{:<58} {:>10.1?}              {:.2} x   (to reach with a WAL: at least 0.5)",
            format!("{mode}: a backup takes; the writer's pace"),
            median(times),
            ratios[ROUNDS / 2]
        );
    }
}
