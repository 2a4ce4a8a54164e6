//! `asyncq wait` and `asyncq call`: how soon they know of an end, what they cost while nothing happens, and what they cost others.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use asyncq::domain::attempt::Outcome;
use asyncq::domain::job::{Claim, Finish, Token};
use asyncq::domain::processor::{NewProcessor, ProcessorId};
use asyncq::domain::retry::AttemptCounts;
use asyncq::domain::{retry_policy::RetryPolicy, service::ServiceName};
use asyncq::store::{Cycle, Location, Patience, Store};

use super::workers::WORKER;
use super::{Bench, median, tell, timed};

/// How many ends are waited for.
const ENDS: usize = 200;

/// How many calls are drained.
const CALLS: u32 = 100_000;

/// A processor that runs nothing, but knows when the end of a call is recorded.
struct Recorder {
    store: Store,
    processor: ProcessorId,
    service: ServiceName,
    number: u128,
}

impl Recorder {
    fn new(bench: &Bench) -> Recorder {
        let mut store = Store::open(&Location::File(bench.path()), Patience::Endless).unwrap();
        let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
        let processor = store.register(&is).unwrap();
        Recorder { store, processor, service: ServiceName::parse("events").unwrap(), number: 0 }
    }

    fn claim(&mut self) -> Claim {
        loop {
            self.number += 1;
            let tokens = [Token::from_random(self.number)];
            let plan = Cycle { tokens: &tokens, ..Cycle::of(self.processor, &self.service) };
            if let Some(claim) = self.store.run_cycle(&plan).unwrap().claims.pop() {
                return claim;
            }
            sleep(Duration::from_millis(1));
        }
    }

    fn end(&mut self, claim: &Claim) {
        let decision = RetryPolicy::default().decide(&Outcome::Completed, AttemptCounts::default(), 0.0);
        let finish = Finish::new(claim.fence, decision);
        let plan = Cycle { finished: &[&finish], ..Cycle::of(self.processor, &self.service) };
        self.store.run_cycle(&plan).unwrap();
    }
}

/// How long it takes from the recorded end of a call to the exit of who waits for it.
fn from_end_to_exit(what: &str, wait: impl Fn(&Bench, u64) -> Child) {
    let bench = Bench::new(1);
    let mut recorder = Recorder::new(&bench);
    let mut times: Vec<Duration> = (1..=ENDS as u64)
        .map(|id| {
            let mut child = wait(&bench, id);
            let claim = recorder.claim();
            sleep(Duration::from_millis(60));
            recorder.end(&claim);
            timed(|| assert!(child.wait().unwrap().success()))
        })
        .collect();
    times.sort_unstable();
    let [half, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
    println!("{what:<58} {half:>10.1?} {most:>10.1?}   (to reach: at most 2 ms, 20 ms)");
}

/// The CPU time that a process has used.
fn cpu(child: &Child) -> Duration {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", child.id())).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn idle(what: &str, args: &[&str]) {
    const SECONDS: u64 = 20;
    let bench = Bench::new(1);
    bench.asyncq(&["enqueue", "events", "true", "--hold"]);
    let mut child = bench.command(args).spawn().unwrap();
    sleep(Duration::from_secs(3));
    let (began, before) = (Instant::now(), cpu(&child));
    sleep(Duration::from_secs(SECONDS));
    let share = cpu(&child).checked_sub(before).unwrap().as_secs_f64() / began.elapsed().as_secs_f64();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("{what:<58} {:>8.3} %{:>26}(to reach: below 0.1 %)", share * 100.0, "");
}

/// How long a drain takes beside so many that wait for another job, and one that watches the status if there are any.
fn drained(waiters: u32) -> Duration {
    let bench = Bench::new(1);
    let program = bench.folder.path().join("worker.py");
    fs::write(&program, WORKER).unwrap();
    bench.asyncq(&["function", "add", "events", "sleep", "--worker", "--", "python3", program.to_str().unwrap()]);
    bench.asyncq(&["enqueue", "events", "true", "--hold"]);
    bench.fill(CALLS, "sleep");
    let mut waiting: Vec<Child> = (0..waiters).map(|_| bench.command(&["wait", "1"]).spawn().unwrap()).collect();
    if waiters > 0 {
        waiting.push(bench.command(&["status", "--watch", "--json"]).spawn().unwrap());
    }
    sleep(Duration::from_millis(500));
    let time = timed(|| bench.asyncq(&["-q", "process"]));
    for child in &mut waiting {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    time / CALLS
}

/// All that is measured of them.
pub fn waiters() {
    println!("waiters: from the recorded end to the exit of the command, {ENDS} times: median, 99th percentile");
    from_end_to_exit("wait", |bench, id| {
        bench.asyncq(&["enqueue", "events", "true"]);
        bench.command(&["wait", &id.to_string()]).spawn().unwrap()
    });
    from_end_to_exit("call", |bench, _| bench.command(&["call", "events", "true"]).spawn().unwrap());
    println!("waiters: CPU time of one that waits while nothing happens; 20 s; of one core");
    idle("wait", &["wait", "1"]);
    idle("call", &["-q", "call", "events", "true", "--hold"]);
    idle("status --watch", &["status", "--watch", "--json"]);
    idle("job log -f", &["job", "log", "-f", "1"]);
    idle("call --start", &["-q", "call", "--start", "events", "true", "--hold"]);
    println!("waiters: {CALLS} no-op calls in a worker, medians of 5 drains, in turn with the other; per call");
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        beside.push(drained(10));
        alone.push(drained(0));
    }
    tell("beside ten that wait and a status --watch | alone", median(beside), median(alone), "at most 1.05");
}
