//! The store's own verbs, without processes.

use std::path::Path;
use std::time::Duration;

use asyncq::domain::attempt::Outcome;
use asyncq::domain::job::{Finish, Token};
use asyncq::domain::log::Log;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::retry::{Tally, decide};
use asyncq::domain::service::ServiceName;
use asyncq::store::{Location, Patience, Plan, Store};
use rusqlite::Connection;

use super::{Bench, median, rate, tell, timed};

/// Finishing and claiming, in batches and one at a time, against the same in a bare table.
pub fn engine() {
    println!(
        "engine: finish some and claim as many, in one transaction; medians of 5 runs, in turn with the other; per job"
    );
    for (backlog, at_once, goal) in
        [(20_000, 128, "150,000 a second"), (100_000, 128, "150,000 a second"), (5000, 1, "at most 1.18")]
    {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let bench = Bench::new(1000);
            bench.fill(backlog, "true");
            ours.push(claim_all(&bench.path(), at_once, backlog));
            theirs.push(bare(&bench, at_once, backlog));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let what = format!("{at_once} at once of {backlog}: {:.1},000 a second | bare", rate(backlog, ours));
        tell(&what, ours / backlog, theirs / backlog, goal);
    }
}

/// The least that a queue in SQLite can do: no retries, no limits, no fences, no outcomes.
fn bare(bench: &Bench, at_once: u32, backlog: u32) -> Duration {
    let db = Connection::open(bench.folder.path().join("bare.db")).unwrap();
    let schema = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
        CREATE TABLE job (id INTEGER PRIMARY KEY, service TEXT, function TEXT, args TEXT, state INTEGER, run_at INTEGER);
        CREATE INDEX ready ON job (service, run_at, id) WHERE state = 0;";
    db.execute_batch(schema).unwrap();
    db.execute_batch(&format!(
        "INSERT INTO job (service, function, args, state, run_at)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {backlog})
         SELECT 'events', 'true', '[]', 0, 1 FROM n"
    ))
    .unwrap();
    let claim = "UPDATE job SET state = 1 WHERE id IN
        (SELECT id FROM job WHERE state = 0 AND service = ?1 ORDER BY run_at, id LIMIT ?2) RETURNING id, function, args";
    timed(|| {
        let mut claimed: Vec<i64> = Vec::new();
        loop {
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut finish = db.prepare_cached("UPDATE job SET state = 2 WHERE id = ?1 AND state = 1").unwrap();
            for id in claimed.drain(..) {
                finish.execute([id]).unwrap();
            }
            let mut claim = db.prepare_cached(claim).unwrap();
            let mut rows = claim.query(("events", at_once)).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let _: (String, String) = (row.get(1).unwrap(), row.get(2).unwrap());
                claimed.push(row.get(0).unwrap());
            }
            drop(rows);
            db.execute_batch("COMMIT").unwrap();
            if claimed.is_empty() {
                break;
            }
        }
    })
}

/// A claim that finds nothing due.
pub fn idle() {
    let bench = Bench::new(1);
    bench.sql(
        "INSERT INTO asyncq_job (service, function, state, run_at)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
         SELECT 'events', 'true', 'delayed', 4102444800000 + i FROM n",
    );
    let mut store = Store::open(&Location::File(bench.path()), Patience::Endless).unwrap();
    let service = ServiceName::parse("events").unwrap();
    let mut times = Vec::new();
    for _ in 0..1000 {
        times.push(timed(|| assert!(!store.outlook(&service, None).unwrap().ready)));
    }
    println!("idle: looking for work beside 50,000 future calls, median of 1,000");
    println!("{:<58} {:>10.1?}{:>26}(to reach: at most 50 µs)", "nothing is due", median(times), "");
}

/// How large the store is after a million small jobs.
pub fn size() {
    const JOBS: u32 = 1_000_000;
    let bench = Bench::new(1000);
    bench.fill(JOBS, "true");
    claim_all(&bench.path(), 1000, JOBS);
    bench.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let bytes = std::fs::metadata(bench.path()).unwrap().len();
    println!("size: the store after {JOBS} jobs without arguments");
    println!("{:<58} {:>5} bytes{:>25}(to reach: at most 250)", "a job that is done", bytes / u64::from(JOBS), "");
}

/// A claim beside millions of jobs that cannot run, against one in a store that is almost empty.
pub fn claim() {
    let (small, large) = (Bench::new(1), Bench::new(1));
    for bench in [&small, &large] {
        bench.asyncq(&["service", "add", "other"]);
        bench.asyncq(&["function", "add", "other", "true", "--", "/bin/true"]);
    }
    let rows = |count: u32, values: &str| {
        format!(
            "INSERT INTO asyncq_job (service, function, state, run_at)
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT {values} FROM n;"
        )
    };
    large.sql(&rows(1_000_000, "'events', 'true', 'delayed', 4102444800000 + i"));
    large.sql(&rows(1_000_000, "'events', 'true', 'held', 1700000000000 + i"));
    large.sql("UPDATE asyncq_job SET state = 'completed', attempt = 1, finished_at = run_at WHERE state = 'held'");
    large.sql(&rows(100_000, "'other', 'true', 'queued', 1700000000000 + i"));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (bench, times) in [&large, &small].into_iter().zip(&mut times) {
            bench.fill(200, "true");
            times.push(claim_all(&bench.path(), 1, 200));
        }
    }
    let [large, small] = times.map(median);
    println!("claim: finish one and claim the next, medians of 5 runs of 200, in turn with the other; per claim");
    tell("beside 1M delayed, 1M finished, 100k others | alone", large / 200, small / 200, "at most 1.5");
}

/// Claims every call of `events`, so many at a time, finishing those before.
fn claim_all(path: &Path, at_once: u32, expected: u32) -> Duration {
    let mut store = Store::open(&Location::File(path.to_owned()), Patience::Endless).unwrap();
    let service = ServiceName::parse("events").unwrap();
    let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
    let processor = store.register(&is).unwrap();
    let tokens: Vec<Token> = (0..at_once).map(|number| Token::from_random(number.into())).collect();
    let mut claimed = 0;
    let mut last: Vec<Finish> = Vec::new();
    let time = timed(|| {
        loop {
            let finished: Vec<&Finish> = last.iter().collect();
            let (finished, returned) = (&finished[..], &[][..]);
            let (held, elsewhere, running, ahead, tokens, bytes) = (0, 0, 0, 0, &tokens[..], usize::MAX);
            let plan = Plan {
                processor,
                service: &service,
                finished,
                returned,
                held,
                elsewhere,
                running,
                ahead,
                tokens,
                bytes,
            };
            let claims = store.advance(&plan).unwrap().claims;
            if claims.is_empty() {
                break;
            }
            claimed += claims.len();
            let ended = claims.into_iter().map(|claim| {
                let verdict = decide(&Outcome::Completed, Tally::default(), 0.0);
                let (took, log) = (Duration::ZERO, Log::default());
                Finish { fence: claim.fence, verdict, result: None, took, log }
            });
            last = ended.collect();
        }
    });
    assert_eq!(claimed, expected as usize);
    store.unregister(processor).unwrap();
    time
}
