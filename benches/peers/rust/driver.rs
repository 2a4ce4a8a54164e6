//! What the drivers in Rust share: `DRIVER MEASURE COUNT FOLDER SYNC`, and the one line of JSON that they print.

#![allow(dead_code, reason = "no driver needs all of it")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// What a driver is asked to do.
pub struct Task {
    /// Which measure.
    pub measure: String,
    /// How many jobs, claims or programs.
    pub count: u64,
    /// Where the store is.
    pub folder: PathBuf,
    /// `OFF`, `NORMAL` or `FULL`; `own` leaves what the peer itself sets.
    pub sync: String,
    /// The words after these.
    pub more: Vec<String>,
}

impl Task {
    pub fn from_args() -> Task {
        let mut words = std::env::args().skip(1);
        let mut word = || words.next().expect("DRIVER MEASURE COUNT FOLDER SYNC");
        let (measure, count, folder, sync) = (word(), word(), word(), word());
        let count = count.parse().expect("COUNT is a number");
        Task { measure, count, folder: folder.into(), sync, more: words.collect() }
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.folder.join("queue.db")
    }

    /// How many jobs one transaction takes: `claim-128` has 128 of them.
    pub fn batch(&self) -> u64 {
        self.measure.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).expect("MEASURE-NUMBER")
    }

    /// Whether this process is asked to set `synchronous`, and to what.
    pub fn pragma(&self) -> Option<&str> {
        (self.sync != "own").then_some(self.sync.as_str())
    }
}

/// Prints what came of it: how long it took, and the peak memory of this process.
pub fn report(took: Duration) {
    report_with(took, peak_kib("self"));
}

pub fn report_with(took: Duration, kib: u64) {
    println!(r#"{{"seconds":{},"kib":{kib}}}"#, took.as_secs_f64());
}

pub fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The peak resident memory of a process, 0 when it is gone.
pub fn peak_kib(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse().ok()).unwrap_or(0)
}

/// The time in nanoseconds, the same clock in all drivers.
pub fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_nanos()
}

/// Makes `count` calls, now and then, in a store whose worker is idle: prints when each began and was durable.
pub fn call_now_and_then(count: u64, mut call: impl FnMut()) {
    for number in 0..count {
        std::thread::sleep(Duration::from_millis(10 + number * 7 % 20));
        let began = now();
        call();
        println!("{began} {}", now());
    }
}
