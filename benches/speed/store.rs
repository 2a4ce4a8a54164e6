//! The store's own verbs, without processes.

use std::path::Path;
use std::time::Duration;

use asyncq::domain::attempt::Outcome;
use asyncq::domain::call::Call;
use asyncq::domain::function::FunctionName;
use asyncq::domain::job::{Finish, Token};
use asyncq::domain::json::Json;
use asyncq::domain::new_job::NewJob;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::service::ServiceName;
use asyncq::domain::{retry::AttemptCounts, retry_policy::RetryPolicy};
use asyncq::store::{Cycle, Location, Patience, Store};
use rusqlite::Connection;

use super::{Bench, median, rate, tell, timed};

/// How claims are made, and how many.
#[derive(Clone, Copy)]
pub struct Run {
    /// In batches of so many.
    pub at_once: u32,
    /// So many in all.
    pub count: u32,
    /// Whether each commit waits for the disk, as all of asyncq's do (`FULL`), or none (`NORMAL`).
    pub durable: bool,
}

impl Run {
    fn name(self) -> String {
        let Run { at_once, durable, .. } = self;
        let batches = if at_once == 1 { "one at a time".to_owned() } else { format!("{at_once} at once") };
        format!("{batches}, {}", if durable { "FULL" } else { "NORMAL" })
    }
}

/// Finishing and claiming, in batches and one at a time, against the same in a bare table.
pub fn engine() {
    println!(
        "engine: finish some and claim as many, in one transaction; medians of 5 runs, in turn with the other; per job"
    );
    for (at_once, count, durable, goal) in [
        (128, 20_000, true, "150,000 a second"),
        (128, 100_000, true, "150,000 a second"),
        (1, 5000, true, "at most 1.18"),
        (1, 20_000, false, "at most 1.18"),
    ] {
        let run = Run { at_once, count, durable };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let bench = Bench::new(1000);
            bench.fill(count, "true");
            ours.push(claim_some(&bench.path(), run));
            theirs.push(bare(&bench, run));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let what = format!("{} of {count}: {:.1},000 a second | bare", run.name(), rate(count, ours));
        tell(&what, ours / count, theirs / count, goal);
    }
}

/// A bare table with calls in it.
pub fn bare_table(bench: &Bench, count: u32, durable: bool) -> Connection {
    let db = Connection::open(bench.folder.path().join("bare.db")).unwrap();
    db.execute_batch(&format!("PRAGMA synchronous={}", if durable { "FULL" } else { "NORMAL" })).unwrap();
    let schema = "PRAGMA journal_mode=WAL;
        CREATE TABLE job (id INTEGER PRIMARY KEY, service TEXT, function TEXT, args TEXT, state INTEGER, run_at INTEGER);
        CREATE INDEX ready ON job (service, run_at, id) WHERE state = 0;";
    db.execute_batch(schema).unwrap();
    db.execute_batch(&format!(
        "INSERT INTO job (service, function, args, state, run_at)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT 'events', 'true', '[]', 0, 1 FROM n"
    ))
    .unwrap();
    db
}

/// The least that a queue in SQLite can do: no retries, no limits, no fences, no outcomes.
fn bare(bench: &Bench, Run { at_once, count, durable }: Run) -> Duration {
    let db = bare_table(bench, count, durable);
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
        times.push(timed(|| assert!(!store.service_status(&service, None).unwrap().ready)));
    }
    println!("idle: looking for work beside 50,000 future calls, median of 1,000");
    println!("{:<58} {:>10.1?}{:>26}(to reach: at most 50 µs)", "nothing is due", median(times), "");
}

/// How large the store is after a million small jobs.
pub fn size() {
    const JOBS: u32 = 1_000_000;
    let bench = Bench::new(1000);
    bench.fill(JOBS, "true");
    claim_some(&bench.path(), Run { at_once: 1000, count: JOBS, durable: true });
    bench.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let bytes = std::fs::metadata(bench.path()).unwrap().len();
    println!("size: the store after {JOBS} jobs without arguments");
    println!("{:<58} {:>5} bytes{:>25}(to reach: at most 250)", "a job that is done", bytes / u64::from(JOBS), "");
}

/// How often arguments of 100 KB are written on their way through the store.
pub fn large() {
    const JOBS: u32 = 100;
    let bench = Bench::new(1000);
    let argument = format!("[\"{}\"]", "x".repeat(100_000));
    let service = ServiceName::parse("events").unwrap();
    let (function, args) = (FunctionName::parse("true").unwrap(), Json::parse(&argument).unwrap());
    let new = NewJob::new(Call::new(service.clone(), function, args, Json::parse("{}").unwrap()));
    let mut store = Store::open(&Location::File(bench.path()), Patience::Endless).unwrap();
    let before = written();
    for _ in 0..JOBS {
        store.enqueue(&new).unwrap();
    }
    let enqueued = written();
    claim_some(&bench.path(), Run { at_once: 1, count: JOBS, durable: true });
    let claimed = written();
    let asked = f64::from(JOBS * u32::try_from(argument.len()).unwrap());
    let times = |bytes: u64| f64::from(u32::try_from(bytes).unwrap()) / asked;
    println!(
        "large: bytes written for each byte of arguments, {JOBS} calls of 100 KB, one at a time; 2 are WAL and file"
    );
    for (what, times) in [("enqueue", times(enqueued - before)), ("claim and finish", times(claimed - enqueued))] {
        println!("{what:<58} {times:>8.2} x");
    }
}

/// How many bytes this process has written.
fn written() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

/// A claim beside millions of jobs that cannot run, and one in front of a million that can, against one in a store that
/// is almost empty.
pub fn claim() {
    println!("claim: finish and claim the next, medians of 5 runs, in turn with the other; per job");
    let [small, large, backlog] = [(); 3].map(|()| Bench::new(1000));
    for bench in [&small, &large, &backlog] {
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
    large.change("UPDATE asyncq_job SET state = 'completed', attempt = 1, finished_at = run_at WHERE state = 'held'");
    large.sql(&rows(100_000, "'other', 'true', 'queued', 1700000000000 + i"));
    backlog.fill(1_000_000, "true");
    for (at_once, count, durable) in [(1, 2000, true), (1, 20_000, false), (128, 20_000, true), (128, 20_000, false)] {
        let run = Run { at_once, count, durable };
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..5 {
            for ((bench, full), times) in
                [(&small, false), (&large, false), (&backlog, true)].into_iter().zip(&mut times)
            {
                if !full {
                    bench.fill(count, "true");
                }
                times.push(claim_some(&bench.path(), run));
            }
        }
        let [small, large, backlog] = times.map(|times| median(times) / count);
        tell(&format!("{}: beside 2.1M others | alone", run.name()), large, small, "at most 1.11");
        tell(&format!("{}: in front of 1M | alone", run.name()), backlog, small, "at most 1.11");
    }
}

/// Claims calls of `events`, finishing those before, and finishes the last.
pub fn claim_some(path: &Path, Run { at_once, count, durable }: Run) -> Duration {
    let mut store = Store::open(&Location::File(path.to_owned()), Patience::Endless).unwrap();
    if !durable {
        store.measure_without_disk().unwrap();
    }
    let service = ServiceName::parse("events").unwrap();
    let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
    let processor = store.register(&is).unwrap();
    let tokens: Vec<Token> = (0..at_once).map(|number| Token::from_random(number.into())).collect();
    let mut claimed = 0;
    let mut last: Vec<Finish> = Vec::new();
    let time = timed(|| {
        loop {
            let finished: Vec<&Finish> = last.iter().collect();
            let room = tokens.len().min(count as usize - claimed);
            let plan = Cycle { finished: &finished, tokens: &tokens[..room], ..Cycle::of(processor, &service) };
            let done = store.run_cycle(&plan).unwrap();
            let claims = done.claims;
            if claims.is_empty() && (claimed == count as usize || !done.status.ready) {
                break;
            }
            claimed += claims.len();
            let ended = claims.into_iter().map(|claim| {
                let decision = RetryPolicy::default().decide(&Outcome::Completed, AttemptCounts::default(), 0.0);
                Finish::new(claim.fence, decision)
            });
            last = ended.collect();
        }
    });
    assert_eq!(claimed, count as usize);
    store.unregister(processor).unwrap();
    time
}
