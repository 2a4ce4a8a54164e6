//! Making calls: each by a process, many by one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rusqlite::Connection;

use super::{Bench, median, rate, tell, timed};

/// The same tables and indexes, but nothing that checks what is inserted.
fn unchecked_schema() -> String {
    include_str!("../../schema.sql").split("CREATE TRIGGER").next().unwrap().replace("asyncq_", "like_")
}

/// A store like ours, opened as asyncq opens it.
fn unchecked(bench: &Bench) -> Connection {
    let like = Connection::open(bench.folder.path().join("like.db")).unwrap();
    like.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL").unwrap();
    like.execute_batch(&unchecked_schema()).unwrap();
    like
}

const INSERT: &str = "INSERT INTO like_job (service, function, args, run_at, created_at)
    VALUES ('events', 'true', ?1, ?2, ?2) RETURNING id";

/// One durable call, as a whole process: `asyncq enqueue` against the `sqlite3` shell.
pub fn one() {
    let bench = Bench::new(1);
    let like = bench.folder.path().join("like.db");
    let shell = |sql: &str| {
        let mut command = Command::new("sqlite3");
        command.arg(&like).arg(sql).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    shell(&format!("PRAGMA journal_mode=WAL; {}", unchecked_schema()));
    let insert = "INSERT INTO like_job (service, function, args) VALUES ('events', 'true', '[2,7]') RETURNING id";
    let (mut ours, mut theirs, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..500 {
        ours.push(timed(|| bench.asyncq(&["enqueue", "events", "true", "2", "7"])));
        theirs.push(timed(|| shell(insert)));
        floor.push(timed(|| assert!(Command::new("/bin/true").status().unwrap().success())));
    }
    println!("enqueue: medians of 500 processes, in turn with the other; /bin/true takes {:.1?}", median(floor));
    tell("asyncq enqueue | sqlite3 INSERT into a like table", median(ours), median(theirs), "at most 0.75");
}

/// Many calls out of a file, against a bare loop that inserts as many into a like table, also 1,000 in a transaction.
pub fn bulk() {
    const JOBS: u32 = 500_000;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let bench = Bench::new(1);
        let calls = bench.folder.path().join("calls");
        let line = |number| format!("{{\"service\":\"events\",\"function\":\"true\",\"args\":[{number},7]}}\n");
        fs::write(&calls, (0..JOBS).map(line).collect::<String>()).unwrap();
        ours.push(timed(|| bench.asyncq(&["enqueue", "--batch", calls.to_str().unwrap()])));
        let like = unchecked(&bench);
        theirs.push(timed(|| {
            for first in (0..JOBS).step_by(1000) {
                like.execute_batch("BEGIN IMMEDIATE").unwrap();
                let mut insert = like.prepare_cached(INSERT).unwrap();
                for number in first..first + 1000 {
                    let id = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
                    insert.query_row((format!("[{number},7]"), 1_700_000_000_000_i64), id).unwrap();
                }
                like.execute_batch("COMMIT").unwrap();
            }
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("bulk: medians of 5 runs of {JOBS} calls, in turn with the other; {:.0},000 a second", rate(JOBS, ours));
    tell("asyncq enqueue --batch | bare inserts, 1,000 at once", ours, theirs, "400,000 a second");
}

/// Calls through one process, each durable before the next one is made, against a bare loop that inserts in that way.
pub fn stream() {
    const JOBS: u32 = 5000;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let bench = Bench::new(1);
        let mut process = bench.command(&["enqueue", "--batch", "-"]);
        let mut process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut calls, numbers) = (File::from(owned(process.stdin.take())), process.stdout.take().unwrap());
        let mut numbers = BufReader::new(numbers).lines();
        ours.push(timed(|| {
            for _ in 0..JOBS {
                calls.write_all(b"{\"service\":\"events\",\"function\":\"true\",\"args\":[2,7]}\n").unwrap();
                numbers.next().unwrap().unwrap();
            }
        }));
        drop(calls);
        assert!(process.wait().unwrap().success());
        let like = unchecked(&bench);
        theirs.push(timed(|| {
            for _ in 0..JOBS {
                like.query_row(INSERT, ("[2,7]", 1_700_000_000_000_i64), |row| row.get::<_, i64>(0)).unwrap();
            }
        }));
    }
    println!("stream: medians of 5 runs of {JOBS} calls, each in a transaction of its own; per call");
    let (ours, theirs) = (median(ours) / JOBS, median(theirs) / JOBS);
    tell("asyncq enqueue --batch - | bare inserts", ours, theirs, "at most 1.11, that is 0.9 of its speed");
}

fn owned(pipe: Option<std::process::ChildStdin>) -> std::os::fd::OwnedFd {
    pipe.unwrap().into()
}
