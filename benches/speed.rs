//! Speed, measured against what a user would do instead, side by side in one run:
//!
//! ```sh
//! cargo bench --bench speed                # everything; a few minutes
//! cargo bench --bench speed -- enqueue     # or: drain, claim, memory
//! ```
//!
//! Every store is durable (`journal_mode=WAL`, `synchronous=FULL`). Machines differ: what counts is the ratio.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use asyncq::domain::job::Token;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::service::ServiceName;
use asyncq::store::{Location, Patience, Plan, Store};
use tempfile::TempDir;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let measures: &[(&str, fn())] = &[("enqueue", enqueue), ("drain", drain), ("claim", claim), ("memory", memory)];
    for (name, measure) in measures {
        if asked.is_empty() || asked.iter().any(|it| it == name) {
            measure();
        }
    }
}

const ASYNCQ: &str = env!("CARGO_BIN_EXE_asyncq");

/// A store with the service `events` and the function `true` on it, on the disk and not in memory.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(concurrency: u32) -> Bench {
        let bench = Bench { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        bench.asyncq(&["service", "add", "events", "--concurrency", &concurrency.to_string()]);
        bench.asyncq(&["function", "add", "events", "true", "--", "/bin/true"]);
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(ASYNCQ);
        command.args(args).env("ASYNCQ_DB", self.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn asyncq(&self, args: &[&str]) {
        assert!(self.command(args).status().unwrap().success());
    }

    fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    /// Puts `count` calls on the queue of `events`, in one transaction.
    fn fill(&self, count: u32, function: &str) {
        self.sql(&format!(
            "INSERT INTO asyncq_job (service, function)
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             SELECT 'events', '{function}' FROM n"
        ));
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Prints a comparison: what was reached, what it is compared with, and the ratio that is to be reached.
fn tell(what: &str, ours: Duration, theirs: Duration, goal: &str) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("{what:<58} {ours:>10.1?} {theirs:>10.1?}   {ratio:.2} x   (to reach: {goal})");
}

/// One durable call, as a whole process: `asyncq enqueue` against the `sqlite3` shell.
fn enqueue() {
    let bench = Bench::new(1);
    let like = bench.folder.path().join("like.db");
    let schema = include_str!("../schema.sql");
    let shell = |sql: &str| {
        let mut command = Command::new("sqlite3");
        command.arg(&like).arg(sql).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    // The same tables and indexes, but nothing that checks what is inserted.
    let tables: String = schema.split("CREATE TRIGGER").next().unwrap().replace("asyncq_", "like_");
    shell(&format!("PRAGMA journal_mode=WAL; {tables}"));
    let insert = "INSERT INTO like_job (service, function, args) VALUES ('events', 'true', '[2,7]') RETURNING id";
    let (mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..500 {
        ours.push(timed(|| bench.asyncq(&["enqueue", "events", "true", "2", "7"])));
        theirs.push(timed(|| shell(insert)));
        floor.push(timed(|| assert!(Command::new("/bin/true").status().unwrap().success())));
    }
    println!("enqueue: medians of 500 processes, in turn with the other; /bin/true takes {:.1?}", median(floor));
    tell("asyncq enqueue | sqlite3 INSERT into a like table", median(ours), median(theirs), "at most 1.0");
}

/// Draining jobs of `/bin/true` against a bare loop that starts and awaits as many.
fn drain() {
    const JOBS: u32 = 2000;
    println!("drain: medians of 5 runs of {JOBS} jobs of /bin/true, in turn with the other; per job");
    for at_once in [1, 2] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let bench = Bench::new(at_once);
            bench.fill(JOBS, "true");
            ours.push(timed(|| bench.asyncq(&["process"])));
            theirs.push(timed(|| spawn_loop(JOBS, at_once)));
        }
        let (ours, theirs) = (median(ours) / JOBS, median(theirs) / JOBS);
        let what = format!("asyncq process | bare loop, {at_once} at once");
        tell(&what, ours, theirs, "at most 1.43, that is 0.7 of its speed");
    }
}

fn spawn_loop(jobs: u32, threads: u32) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..jobs / threads {
                    assert!(Command::new("/bin/true").status().unwrap().success());
                }
            });
        }
    });
}

/// A claim beside millions of jobs that cannot run, against one in a store that is almost empty.
fn claim() {
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
            times.push(claim_all(&bench.path(), 200));
        }
    }
    let [large, small] = times.map(median);
    println!("claim: finish one and claim the next, medians of 5 runs of 200, in turn with the other; per claim");
    tell("beside 1M delayed, 1M finished, 100k others | alone", large / 200, small / 200, "at most 1.5");
}

/// Claims every call of `events`, one at a time, finishing the one before.
fn claim_all(path: &Path, expected: usize) -> Duration {
    use asyncq::domain::attempt::Outcome;
    use asyncq::domain::job::Finish;
    use asyncq::domain::log::Log;
    use asyncq::domain::retry::decide;

    let mut store = Store::open(&Location::File(path.to_owned()), Patience::Endless).unwrap();
    let service = ServiceName::parse("events").unwrap();
    let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
    let processor = store.register(&is).unwrap();
    let token = [Token::from_random(7)];
    let mut claimed = 0;
    let mut last: Option<Finish> = None;
    let time = timed(|| {
        loop {
            let finished: Vec<&Finish> = last.iter().collect();
            let (finished, returned) = (&finished[..], &[][..]);
            let (held, running, ahead, tokens) = (0, 0, 0, &token[..]);
            let plan = Plan { processor, service: &service, finished, returned, held, running, ahead, tokens };
            let Some(claim) = store.advance(&plan).unwrap().claims.pop() else { break };
            claimed += 1;
            let verdict = decide(&Outcome::Completed, 0, 0.0);
            let (took, log) = (Duration::ZERO, Log::default());
            last = Some(Finish { fence: claim.fence, verdict, result: None, took, log });
        }
    });
    assert_eq!(claimed, expected);
    store.unregister(processor).unwrap();
    time
}

/// The memory that a processor needs, whatever waits and whatever functions print.
fn memory() {
    let bench = Bench::new(4);
    let script = bench.folder.path().join("flood.sh");
    fs::write(&script, "head -c 200000000 /dev/zero; head -c 20000000 /dev/urandom >&2").unwrap();
    let peak = "grep VmHWM /proc/$PPID/status >> \"$ASYNCQ_SITE/peak\"";
    let site = bench.folder.path().to_str().unwrap();
    bench.asyncq(&["function", "add", "events", "flood", "--site", site, "--", "/bin/sh", script.to_str().unwrap()]);
    bench.asyncq(&["function", "add", "events", "peak", "--site", site, "--", "/bin/sh", "-c", peak]);
    bench.fill(300_000, "true");
    bench.sql("UPDATE asyncq_job SET priority = 1");
    bench.fill(12, "flood");
    bench.sql("INSERT INTO asyncq_job (service, function, priority) VALUES ('events', 'peak', 2)");
    bench.sql("UPDATE asyncq_job SET state = 'held' WHERE function = 'true' AND id > 2000");
    let status = bench.command(&["process"]).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let text = fs::read_to_string(bench.folder.path().join("peak")).unwrap();
    let kib: u32 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("memory: a processor with 4 slots, 300,000 jobs in the store, 12 functions that print 220 MB each");
    println!(
        "{:<58} {:>7.1} MiB{:>26}(to reach: under 20 MiB)",
        "peak resident memory (VmHWM)",
        f64::from(kib) / 1024.0,
        ""
    );
}
