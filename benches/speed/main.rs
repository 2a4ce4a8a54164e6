//! Speed, measured against what a user would do instead, side by side in one run:
//!
//! ```sh
//! cargo bench --bench speed                # everything; a few minutes
//! cargo bench --bench speed -- enqueue     # or: bulk, stream, drain, engine, claim, idle, size, large, beside, lanes,
//!                                            expired, ticks, follow, waiting, waiters, apply, backup, memory,
//!                                            prune, workers, signature
//! cargo bench --bench speed -- huge        # or: seeing; only when asked for: 10,000,000 jobs, 3 GB of disk
//! ASYNCQ_BEFORE=/the/asyncq cargo bench --bench speed -- before    # against an earlier build
//! ```
//!
//! Every store is durable (`journal_mode=WAL`, `synchronous=FULL`). Machines differ: what counts is the ratio.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

mod apply;
mod backup;
mod before;
mod enqueue;
mod huge;
mod prune;
mod schedules;
mod seeing;
mod signature;
mod store;
mod waiters;
mod waiting;
mod workers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let measures: &[(&str, fn())] = &[
        ("enqueue", enqueue::one),
        ("bulk", enqueue::bulk),
        ("stream", enqueue::stream),
        ("drain", drain),
        ("engine", store::engine),
        ("claim", store::claim),
        ("idle", store::idle),
        ("size", store::size),
        ("large", store::large),
        ("beside", waiting::beside),
        ("lanes", waiting::lanes),
        ("expired", waiting::expired),
        ("ticks", schedules::ticks),
        ("follow", schedules::follow),
        ("waiting", schedules::waiting),
        ("waiters", waiters::waiters),
        ("backup", backup::backup),
        ("apply", apply::apply),
        ("before", before::before),
        ("huge", huge::huge),
        ("seeing", seeing::seeing),
        ("prune", prune::prune),
        ("signature", signature::signature),
        ("memory", memory),
        ("workers", workers::workers),
    ];
    keep_freed_memory();
    for (name, measure) in measures {
        if (asked.is_empty() && !["huge", "seeing"].contains(name)) || asked.iter().any(|it| it == name) {
            measure();
        }
    }
}

/// Has the C library ask the system no more for memory that it has just given back, as it does, by chance, with each
/// transaction of one side and not of the other: it keeps twice of what the largest freed block had.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(16 << 20)));
}

const ASYNCQ: &str = env!("CARGO_BIN_EXE_asyncq");

/// A store with the service `events` and the function `true` on it, on the disk and not in memory.
struct Bench {
    folder: TempDir,
    program: PathBuf,
}

impl Bench {
    fn new(concurrency: u32) -> Bench {
        Bench::by(Path::new(ASYNCQ), concurrency)
    }

    /// One that another build of asyncq makes and uses.
    fn by(program: &Path, concurrency: u32) -> Bench {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bench = Bench { folder, program: program.to_owned() };
        bench.asyncq(&["service", "add", "events", "--concurrency", &concurrency.to_string()]);
        bench.asyncq(&["function", "add", "events", "true", "--", "/bin/true"]);
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("queue.db")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("ASYNCQ_DB", self.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn asyncq(&self, args: &[&str]) {
        assert!(self.command(args).status().unwrap().success());
    }

    fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    /// Changes the store as no client may. No trigger notes what it uses.
    fn change(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.path()).unwrap();
        store.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        store.execute_batch("UPDATE asyncq_schema SET used = 7").unwrap();
        store.execute_batch(sql).unwrap();
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

/// The medians of so many runs of both.
fn in_turn(runs: u32, mut both: impl FnMut() -> [Duration; 2]) -> [Duration; 2] {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let [one, other] = both();
        ours.push(one);
        theirs.push(other);
    }
    [median(ours), median(theirs)]
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// How many of them in a second, in thousands.
fn rate(count: u32, time: Duration) -> f64 {
    f64::from(count) / time.as_secs_f64() / 1000.0
}

/// Prints a comparison: what was reached, what it is compared with, and the ratio that is to be reached.
fn tell(what: &str, ours: Duration, theirs: Duration, goal: &str) {
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    println!("{what:<58} {ours:>10.1?} {theirs:>10.1?}   {ratio:.2} x   (to reach: {goal})");
}

/// Draining jobs of `/bin/true` against a bare loop that starts and awaits as many; and that against one beside which the
/// outcomes are recorded, which is the most that any durable queue can do.
fn drain() {
    const JOBS: u32 = 2000;
    println!("drain: medians of 5 runs of {JOBS} jobs of /bin/true, in turn with the others; per job");
    for at_once in [1, 2] {
        let (mut ours, mut theirs, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let bench = Bench::new(at_once);
            bench.fill(JOBS, "true");
            ours.push(timed(|| bench.asyncq(&["process"])));
            theirs.push(timed(|| spawn_loop(JOBS, at_once, &|| ())));
            recorded.push(recorded_loop(&bench, JOBS, at_once));
        }
        let [ours, theirs, recorded] = [ours, theirs, recorded].map(|times| median(times) / JOBS);
        let what = format!("asyncq process | bare loop, {at_once} at once");
        tell(&what, ours, theirs, "at most 1.11, that is 0.9 of its speed");
        let what = format!("bare loop and durable records | bare loop, {at_once} at once");
        tell(&what, recorded, theirs, "what it costs to record at all");
    }
}

fn spawn_loop(jobs: u32, threads: u32, ended: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..jobs / threads {
                    assert!(Command::new("/bin/true").status().unwrap().success());
                    ended();
                }
            });
        }
    });
}

/// A loop that goes on meanwhile, and a thread that records all that has ended in a bare table, durably.
fn recorded_loop(bench: &Bench, jobs: u32, threads: u32) -> Duration {
    let db = store::bare_table(bench, jobs, true);
    let (ended, record) = std::sync::mpsc::channel();
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut id = 0;
                while record.recv().is_ok() {
                    let more = record.try_iter().count();
                    db.execute_batch("BEGIN IMMEDIATE").unwrap();
                    for _ in 0..=more {
                        id += 1;
                        db.prepare_cached("UPDATE job SET state = 2 WHERE id = ?1").unwrap().execute([id]).unwrap();
                    }
                    db.execute_batch("COMMIT").unwrap();
                }
                assert_eq!(id, jobs);
            });
            spawn_loop(jobs, threads, &|| ended.send(()).unwrap());
            drop(ended);
        });
    })
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
    bench.change("UPDATE asyncq_job SET priority = 1");
    bench.fill(12, "flood");
    bench.sql("INSERT INTO asyncq_job (service, function, priority) VALUES ('events', 'peak', 2)");
    bench.change("UPDATE asyncq_job SET state = 'held' WHERE function = 'true' AND id > 2000");
    let status = bench.command(&["process"]).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let text = fs::read_to_string(bench.folder.path().join("peak")).unwrap();
    let kib: u32 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("memory: a processor with 4 slots, 300,000 jobs in the store, 12 functions that print 220 MB each");
    println!(
        "{:<58} {:>7.1} MiB{:>26}(to reach: at most 25 MiB)",
        "peak resident memory (VmHWM)",
        f64::from(kib) / 1024.0,
        ""
    );
}
