//! asyncq: its command and the verbs of its library. The store, its service `events` and the function `noop` are there.

#[path = "../../driver.rs"]
mod driver;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use asyncq::domain::attempt::Outcome;
use asyncq::domain::call::Call;
use asyncq::domain::function::FunctionName;
use asyncq::domain::job::{Finish, Token};
use asyncq::domain::new_job::NewJob;
use asyncq::domain::json::Json;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::{retry::AttemptCounts, retry_policy::RetryPolicy};
use asyncq::domain::service::ServiceName;
use asyncq::store::{Location, Patience, Cycle, Store};
use driver::{Task, call_now_and_then, peak_kib, report, report_with, timed};

fn main() {
    let task = Task::from_args();
    match task.measure.as_str() {
        "each" => each(&task),
        "lines" => lines(&task),
        "bulk" => bulk(&task),
        "future" => future(&task),
        "drain" => drain(&task),
        "empty" => empty(&task),
        "call" => {
            let mut store = open(&task);
            call_now_and_then(task.count, || {
                store.enqueue(&call("now", 0)).unwrap();
            });
        }
        _ => claim(&task),
    }
}

fn open(task: &Task) -> Store {
    Store::open(&Location::File(task.store()), Patience::Endless).unwrap()
}

fn events() -> ServiceName {
    ServiceName::parse("events").unwrap()
}

fn call(function: &str, number: u64) -> NewJob {
    let (args, kwargs) = (Json::parse(&format!("[{number},7]")).unwrap(), Json::parse("{}").unwrap());
    NewJob::new(Call::new(events(), FunctionName::parse(function).unwrap(), args, kwargs))
}

/// One durable transaction each, by the library.
fn each(task: &Task) {
    let mut store = open(task);
    report(timed(|| {
        for number in 0..task.count {
            store.enqueue(&call("noop", number)).unwrap();
        }
    }));
}

fn asyncq(task: &Task, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("ASYNCQ").expect("$ASYNCQ names the program"));
    command.args(words).env("ASYNCQ_DB", task.store()).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn line(number: u64) -> String {
    format!("{{\"service\":\"events\",\"function\":\"noop\",\"args\":[{number},7]}}\n")
}

/// One durable transaction each, through one process of the command: the next call waits for the number of the one before.
fn lines(task: &Task) {
    let mut command = asyncq(task, &["enqueue", "--batch", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut calls = File::from(OwnedFd::from(child.stdin.take().unwrap()));
    let mut numbers = BufReader::new(child.stdout.take().unwrap()).lines();
    let took = timed(|| {
        for number in 0..task.count {
            calls.write_all(line(number).as_bytes()).unwrap();
            numbers.next().unwrap().unwrap();
        }
    });
    report_with(took, peak_kib(&child.id().to_string()));
    drop(calls);
    assert!(child.wait().unwrap().success());
}

/// Many out of a file, by the command; all of it is timed, also its start.
fn bulk(task: &Task) {
    let file = task.folder.join("calls");
    fs::write(&file, (0..task.count).map(line).collect::<String>()).unwrap();
    let mut command = asyncq(task, &["--quiet", "enqueue", "--batch", file.to_str().unwrap()]);
    watch(&mut command);
    fs::remove_file(file).unwrap();
    count(task, "state = 'queued'");
}

/// Runs `asyncq process` until it ends.
fn drain(task: &Task) {
    watch(&mut asyncq(task, &["--quiet", "process", "events"]));
    count(task, "state = 'completed'");
}

/// Fails unless so many jobs are in the store.
fn count(task: &Task, which: &str) {
    let db = rusqlite::Connection::open(task.store()).unwrap();
    let query = format!("SELECT COUNT(*) FROM asyncq_job WHERE {which}");
    let found: i64 = db.query_row(&query, [], |row| row.get(0)).unwrap();
    assert_eq!(found.unsigned_abs(), task.count, "{which}");
}

/// Runs a command and reports it, with the most memory that one of its processes has needed that are `asyncq` too.
fn watch(command: &mut Command) {
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let pid = child.id().to_string();
    let waited = thread::spawn(move || (child.wait().unwrap(), began.elapsed()));
    let mut peak = 0;
    while !waited.is_finished() {
        peak = peak.max(peak_of_tree(&pid));
        thread::sleep(Duration::from_millis(20));
    }
    let (status, took) = waited.join().unwrap();
    assert!(status.success());
    report_with(took, peak);
}

fn peak_of_tree(pid: &str) -> u64 {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() != "asyncq" {
        return 0;
    }
    let children = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = children.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let below = children.flat_map(|line| line.split(' ').map(peak_of_tree).collect::<Vec<_>>());
    below.chain([peak_kib(pid)]).max().unwrap_or(0)
}

/// Calls that are due in the year 2100, as a client inserts them.
fn future(task: &Task) {
    let db = rusqlite::Connection::open(task.store()).unwrap();
    let insert = "INSERT INTO asyncq_job (service, function, state, run_at)
        WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        SELECT 'events', 'noop', 'delayed', 4102444800000 + i FROM n";
    report(timed(|| {
        db.execute(insert, [i64::try_from(task.count).unwrap()]).unwrap();
    }));
}

/// Looking for work where nothing is due.
fn empty(task: &Task) {
    let mut store = open(task);
    let events = events();
    report(timed(|| {
        for _ in 0..task.count {
            assert!(!store.service_status(&events, None).unwrap().ready);
        }
    }));
}

/// Claims all calls, so many at a time, and finishes those before in the same transaction.
fn claim(task: &Task) {
    let (mut store, service) = (open(task), events());
    let is = NewProcessor { folder: "peers".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
    let processor = store.register(&is).unwrap();
    let tokens: Vec<Token> = (0..task.batch()).map(|number| Token::from_random(number.into())).collect();
    let mut claimed = 0;
    let mut last: Vec<Finish> = Vec::new();
    let took = timed(|| {
        // The last turn claims nothing.
        loop {
            let finished: Vec<&Finish> = last.iter().collect();
            let tokens = if claimed < task.count { &tokens[..] } else { &[] };
            let plan = Cycle { finished: &finished, tokens, ..Cycle::of(processor, &service) };
            let claims = store.run_cycle(&plan).unwrap().claims;
            if claims.is_empty() {
                break;
            }
            claimed += claims.len() as u64;
            let ended = claims.into_iter().map(|claim| {
                let decision = RetryPolicy::default().decide(&Outcome::Completed, AttemptCounts::default(), 0.0);
                Finish::new(claim.fence, decision)
            });
            last = ended.collect();
        }
    });
    store.unregister(processor).unwrap();
    report(took);
    count(task, "state = 'completed'");
}
