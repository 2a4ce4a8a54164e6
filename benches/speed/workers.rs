//! Several workers that run one call after another, against one of them alone.

use std::fs;
use std::time::Duration;

use super::{Bench, median, tell, timed};

/// A worker in Python whose function sleeps for as many milliseconds as it is told to.
pub const WORKER: &str = r#"
import json, socket, time
line = socket.socket(fileno=3)
read = line.makefile("rb")
line.sendall(b'{"jsonrpc":"2.0","id":0,"method":"hello","params":{"protocol":1,"output":"counted"}}\n')
read.readline()
for message in map(json.loads, read):
    for time_to_sleep in message["params"]["args"]: time.sleep(time_to_sleep / 1000)
    line.sendall(b'{"jsonrpc":"2.0","id":%d,"result":{"output":[0,0]}}\n' % message["id"])
"#;

/// How many workers there are.
const MANY: u32 = 8;

/// How long a call takes, from the beginning of a drain to its end, when so many are run by so many workers.
fn drained(workers: u32, calls: u32, args: &str) -> Duration {
    let bench = Bench::new(workers);
    let program = bench.folder.path().join("worker.py");
    fs::write(&program, WORKER).unwrap();
    bench.asyncq(&["function", "add", "events", "sleep", "--worker", "--", "python3", program.to_str().unwrap()]);
    bench.fill(calls, "sleep");
    bench.change(&format!("UPDATE asyncq_job SET args = '{args}'"));
    timed(|| bench.asyncq(&["process"])) / calls
}

/// Eight workers and one, with calls that take some milliseconds, and with calls that do nothing.
pub fn workers() {
    println!("workers: medians of 5 drains, in turn with the other, from a worker's start to its end; per call");
    for (args, calls) in [("[0.5]", 4000), ("[1]", 3000), ("[3]", 1500), ("[5]", 1000)] {
        let (many, one) = in_turn(args, calls * MANY, calls);
        let what = format!("{MANY} workers | one alone, divided by {MANY}: {args} ms");
        tell(&what, many, one / MANY, "at most 1.33, that is 0.75 of eight");
    }
    let (many, one) = in_turn("[]", 200_000, 200_000);
    tell(&format!("{MANY} workers | one alone: no-op calls"), many, one, "at most 1.11");
}

fn in_turn(args: &str, calls_of_many: u32, calls_of_one: u32) -> (Duration, Duration) {
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        many.push(drained(MANY, calls_of_many, args));
        one.push(drained(1, calls_of_one, args));
    }
    (median(many), median(one))
}
