//! Schedules: many ticks at once, the way from a tick to its function, and a processor that waits for ticks.

use std::fs;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use asyncq::domain::processor::NewProcessor;
use asyncq::domain::service::ServiceName;
use asyncq::store::{Cycle, Location, Patience, ServiceStatus, Store};

use super::{Bench, timed};

/// How many schedules there are.
const SCHEDULES: u32 = 10_000;

/// How many ticks are followed to their functions, and the milliseconds between two of them.
const TICKS: u32 = 220;
const APART: u32 = 100;
/// How many of them only start the worker.
const FIRST: usize = 20;

/// A worker in Python whose function writes down how long ago the moment was that it gets as its argument.
const WORKER: &str = r#"
import json, socket, sys, time
line = socket.socket(fileno=3)
read = line.makefile("rb")
out = open(sys.argv[1], "a")
line.sendall(b'{"jsonrpc":"2.0","id":0,"method":"hello","params":{"protocol":1,"output":"counted"}}\n')
read.readline()
for message in map(json.loads, read):
    print(time.time() * 1000 - message["params"]["args"][0], file=out, flush=True)
    line.sendall(b'{"jsonrpc":"2.0","id":%d,"result":{"output":[0,0]}}\n' % message["id"])
"#;

/// Schedules `s1`, `s2` and so on of a function, with this rule and these arguments; their next ticks may use the number `i`.
fn add(bench: &Bench, count: u32, [columns, rule]: [&str; 2], [function, args, next]: [&str; 3]) {
    bench.sql(&format!(
        "INSERT INTO asyncq_schedule (name, service, function, args, {columns}, next_tick, created_at)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         SELECT 's' || i, 'events', '{function}', {args}, {rule}, {next}, 1700000000000 FROM n"
    ));
}

fn now() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

const EVERY: [&str; 2] = ["every", "3600000"];
const CRON: [&str; 2] = ["cron, zone", "'*/5 * * * *', 'Europe/Berlin'"];

/// Ticks that are due at once, as a processor makes jobs of them.
pub fn ticks() {
    println!("ticks: jobs made of {SCHEDULES} ticks that are due at once, durable; medians of 5 runs; per tick");
    for (what, rule) in [("of schedules with a span", EVERY), ("of schedules with a cron pattern", CRON)] {
        let times = (0..5).map(|_| {
            let bench = Bench::new(1);
            add(&bench, SCHEDULES, rule, ["true", "'[]'", &(now() - 1000).to_string()]);
            let mut store = Store::open(&Location::File(bench.path()), Patience::Endless).unwrap();
            let service = ServiceName::parse("events").unwrap();
            let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
            let processor = store.register(&is).unwrap();
            let are_due = |status: &ServiceStatus| status.next_tick.is_some_and(|tick| tick <= status.now);
            let time = timed(|| while are_due(&store.run_cycle(&Cycle::of(processor, &service)).unwrap().status) {});
            let made = "SELECT count(*) FROM asyncq_origin";
            let made: u32 =
                rusqlite::Connection::open(bench.path()).unwrap().query_row(made, [], |row| row.get(0)).unwrap();
            assert_eq!(made, SCHEDULES);
            time / SCHEDULES
        });
        let time = super::median(times.collect());
        println!("{:<58} {time:>10.1?}{:>26}(to reach: at most 100 µs)", format!("a tick {what}"), "");
    }
}

/// A processor that follows the store, ended with this.
struct Following(Child);

impl Following {
    fn new(bench: &Bench) -> Following {
        Following(bench.command(&["process", "--follow"]).spawn().unwrap())
    }

    /// The CPU time that all its threads have used.
    fn cpu(&mut self) -> Duration {
        assert!(self.0.try_wait().unwrap().is_none(), "it has ended");
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let nanos = tasks.map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// From a tick to the start of its function in a worker that waits.
pub fn follow() {
    println!("follow: from a tick to the start of its function in a worker, {TICKS} ticks, {APART} ms apart; durable");
    let bench = Bench::new(8);
    let [program, out] = ["worker.py", "late"].map(|name| bench.folder.path().join(name));
    fs::write(&program, WORKER).unwrap();
    let [program, out_name] = [&program, &out].map(|path| path.to_str().unwrap());
    bench.asyncq(&["function", "add", "events", "late", "--worker", "--", "python3", program, out_name]);
    let first = now() + 3000;
    let next = format!("{first} + {APART} * i");
    add(&bench, TICKS, EVERY, ["late", &format!("json_array({next})"), &next]);
    let following = Following::new(&bench);
    let lines = || fs::read_to_string(&out).unwrap_or_default();
    while lines().lines().count() < TICKS as usize {
        sleep(Duration::from_millis(100));
    }
    drop(following);
    let mut late: Vec<f64> = lines().lines().skip(FIRST).map(|line| line.parse().unwrap()).collect();
    late.sort_by(f64::total_cmp);
    let [half, most] = [50, 99].map(|percent| late[late.len() * percent / 100]);
    println!("{:<58} {half:>8.1} ms {most:>8.1} ms   (to reach: p99 at most 20 ms)", "median, and 99th percentile");
}

/// The CPU time of a processor that waits for the next tick of many schedules.
pub fn waiting() {
    const SECONDS: u64 = 20;
    println!("waiting: CPU time of process --follow, next to {SCHEDULES} schedules, none due; {SECONDS} s");
    let bench = Bench::new(1);
    add(&bench, SCHEDULES, CRON, ["true", "'[]'", "4102444800000 + i"]);
    let mut following = Following::new(&bench);
    sleep(Duration::from_secs(3));
    let (began, before) = (Instant::now(), following.cpu());
    sleep(Duration::from_secs(SECONDS));
    let share = following.cpu().checked_sub(before).unwrap().as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{:<58} {:>8.3} %{:>26}(to reach: below 0.1 %)", "of one core", share * 100.0, "");
}
