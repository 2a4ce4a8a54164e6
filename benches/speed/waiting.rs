//! What calls that wait cost those that do not: claims beside a million of each kind, and lanes and chains as they drain.

use std::time::Duration;

use super::store::{Run, claim_some};
use super::{Bench, median, rate, tell, timed};

/// How many calls wait in each store.
const ROWS: u32 = 1_000_000;

/// Rows of `events`, as columns and values, which may use the number `i` of each, from 1 on.
const BESIDE: &[(&str, &str, &str)] = &[
    ("delayed", "state, run_at", "'delayed', 4102444800000 + i"),
    ("finished", "state, attempt, run_at, finished_at", "'completed', 1, 1700000000000 + i, 1700000000000 + i"),
    ("held", "state, run_at", "'held', 1700000000000 + i"),
    ("blocked in one lane", "state, waits, lane, run_at", "'blocked', 2, 'x', 1700000000000 + i"),
    ("blocked in 100,000 lanes", "state, waits, lane, run_at", "'blocked', 2, 'x' || (i % 100000), 1700000000000 + i"),
    ("blocked by another call", "state, waits, run_at", "'blocked', 1, 1700000000000 + i"),
    ("delayed, and expire later", "state, run_at, expires_at", "'delayed', 4102444800000 + i, 4102444900000 + i"),
    ("delayed, each with a key", "state, run_at, key, key_until", "'delayed', 4102444800000 + i, 'k' || i, 'ended'"),
];

fn rows(count: u32, columns: &str, values: &str) -> String {
    format!(
        "INSERT INTO asyncq_job (service, function, {columns})
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT 'events', 'true', {values} FROM n"
    )
}

/// Claims beside a million calls of each kind that wait, against the same in an almost empty store.
pub fn beside() {
    println!("beside: finish and claim the next, beside {ROWS} others; durable; medians of 7 runs, in turn; per job");
    let empty = Bench::new(1000);
    let stores: Vec<(String, Bench)> = BESIDE
        .iter()
        .map(|(name, columns, values)| {
            let bench = Bench::new(1000);
            bench.change(&rows(ROWS, columns, values));
            if columns.contains("waits") && !columns.contains("lane") {
                bench.change("INSERT INTO asyncq_after (needs, job) SELECT 1, id FROM asyncq_job WHERE id > 1");
            }
            ((*name).to_owned(), bench)
        })
        .chain([("10,000 schedules".to_owned(), with_schedules())])
        .collect();
    for (at_once, count) in [(1, 500), (128, 10_000)] {
        let run = Run { at_once, count, durable: true };
        let mut times = vec![Vec::new(); stores.len() + 1];
        for _ in 0..7 {
            for (bench, times) in [&empty].into_iter().chain(stores.iter().map(|(_, bench)| bench)).zip(&mut times) {
                bench.fill(count, "true");
                times.push(claim_some(&bench.path(), run));
            }
        }
        let mut medians = times.into_iter().map(|times| median(times) / count);
        let alone = medians.next().unwrap();
        for ((name, _), time) in stores.iter().zip(medians) {
            tell(&format!("{at_once} at once: beside {name} | alone"), time, alone, "at most 1.10");
        }
    }
}

fn with_schedules() -> Bench {
    let bench = Bench::new(1000);
    bench.change(
        "INSERT INTO asyncq_schedule (name, service, function, every, next_tick, created_at)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         SELECT 's' || i, 'events', 'true', 3600000, 4102444800000 + i, 1700000000000 FROM n",
    );
    bench
}

/// Lanes, and a call after many others, as they drain.
pub fn lanes() {
    println!("lanes: in the store, durable, medians of 3 runs");
    // One lane: alone, and in front of a million.
    let (alone, long) = (Bench::new(1000), Bench::new(1000));
    long.change(&rows(ROWS, "state, waits, lane, run_at, priority", "'blocked', 2, 'x', 1700000000000 + i, 5"));
    let one = |bench: &Bench| {
        let count = 500;
        bench.sql(&rows(count, "lane", "'x'"));
        claim_some(&bench.path(), Run { at_once: 1, count, durable: true }) / count
    };
    let (mut short_times, mut long_times) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        short_times.push(one(&alone));
        long_times.push(one(&long));
    }
    tell("a call in a lane: in front of 1M | alone", median(long_times), median(short_times), "at most 1.25");

    let many = Bench::new(1000);
    many.sql(&rows(100_000, "lane", "'l' || (i % 10000)"));
    let time = claim_some(&many.path(), Run { at_once: 128, count: 100_000, durable: true });
    println!("{:<58} {:>7.1} k calls/s            (to reach: 30 k)", "10,000 lanes of 10", rate(100_000, time));

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for (times, then) in [(&mut without, false), (&mut with, true)] {
            let bench = Bench::new(1000);
            bench.fill(100_000, "true");
            if then {
                bench.sql(
                    "INSERT INTO asyncq_job (service, function, after)
                     SELECT 'events', 'true', json_group_array(id) FROM asyncq_job",
                );
            }
            times.push(claim_some(&bench.path(), Run { at_once: 128, count: 100_000, durable: true }));
        }
    }
    tell("100,000 calls: with one after all of them | without", median(with), median(without), "at most 1.18");
}

/// A million calls that have expired, in front of good ones.
pub fn expired() {
    let bench = Bench::new(1000);
    bench.change(&rows(ROWS, "state, run_at, expires_at", "'queued', 1700000000000 + i, 1700000000000 + i"));
    bench.fill(1000, "true");
    let time: Duration = timed(|| {
        claim_some(&bench.path(), Run { at_once: 128, count: 1000, durable: true });
    });
    println!("{:<58} {time:>10.1?}{:>26}(to reach: at most 10 s)", "1,000 good calls behind 1M expired ones", "");
}
