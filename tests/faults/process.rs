//! Processes as the kernel shows them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::place::{Place, Running, wait_until};

/// A process by its number and the time of its start, which no other one has.
pub struct Process {
    pid: String,
    start: String,
}

impl Process {
    /// As `hostile.c` notes them; other lines are none.
    pub fn noted(line: &str) -> Option<Process> {
        let (pid, start) = line.split_once(' ').filter(|(pid, _)| pid.parse::<u32>().is_ok())?;
        Some(Process { pid: pid.to_owned(), start: start.to_owned() })
    }

    /// Whether it runs, and be it in one thread only; one that waits to be reaped does not.
    pub fn lives(&self) -> bool {
        stat(&self.pid).is_some_and(|stat| stat[START] == self.start && !is_dead(&stat))
    }
}

/// Where in what follows the name in `/proc/PID/stat` these fields are (proc(5)): 3, 4, 20 and 22 there.
const STATE: usize = 0;
const PARENT: usize = 1;
const THREADS: usize = 17;
const START: usize = 19;

fn stat(pid: &str) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (_, after) = text.rsplit_once(") ")?;
    Some(after.split_ascii_whitespace().map(str::to_owned).collect())
}

fn is_dead(stat: &[String]) -> bool {
    matches!(stat[STATE].as_str(), "Z" | "X") && stat[THREADS].parse::<u32>().unwrap() < 2
}

fn all() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.parse::<u32>().is_ok())
}

/// The children of some processes that wait to be reaped, and for how long each was seen to.
#[derive(Default)]
pub struct Dead {
    seen: HashMap<(String, String), Instant>,
    /// The most of them at once,
    pub most: usize,
    /// and the longest time.
    pub longest: Duration,
}

impl Dead {
    /// Looks once; gives how many there are now.
    pub fn look(&mut self, parents: &[String]) -> usize {
        let stats = all().filter_map(|pid| Some((stat(&pid)?, pid)));
        let now: Vec<(String, String)> = stats
            .filter(|(stat, _)| parents.contains(&stat[PARENT]) && is_dead(stat))
            .map(|(stat, pid)| (pid, stat[START].clone()))
            .collect();
        self.seen.retain(|one, _| now.contains(one));
        self.most = self.most.max(now.len());
        let count = now.len();
        for one in now {
            self.longest = self.longest.max(self.seen.entry(one).or_insert_with(Instant::now).elapsed());
        }
        count
    }
}

/// The processes that run this program.
pub fn running(program: &Path) -> Vec<String> {
    all().filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)).collect()
}

/// Starts a processor, whose output nobody wants.
pub fn start(place: &Place, line: &str) -> Running {
    let mut command = place.command(&format!("exec {line}"));
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// How many descriptors a process has open.
pub fn descriptors(pid: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A measure of a process's memory in KiB, as `VmHWM`, its peak, or `VmRSS` (proc(5)).
pub fn memory(pid: &str, measure: &str) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(measure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Enqueues as many calls with this word.
pub fn enqueue(place: &Place, function: &str, word: &str, count: usize) {
    let store = rusqlite::Connection::open(place.store()).unwrap();
    store.busy_timeout(Duration::from_secs(60)).unwrap();
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?3)
        INSERT INTO asyncq_job (service, function, args) SELECT 'events', ?1, json_array(?2) FROM n";
    store.execute(insert, (function, word, i64::try_from(count).unwrap())).unwrap();
}

/// Waits until a processor has nothing left but one call of `waits`.
pub fn only_waits(place: &Place) {
    let left = "SELECT group_concat(function || state) FROM asyncq_job WHERE state IN ('queued', 'processing')";
    wait_until("one call waits", || place.query(left) == "waitsprocessing");
}
