//! The least that could do: bare INSERTs and UPDATEs, and a bare loop that starts programs.

#[path = "../../../driver.rs"]
mod driver;

use std::process::{Command, Stdio};

use driver::{Task, report, timed};
use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS job
        (id INTEGER PRIMARY KEY, service TEXT, function TEXT, args TEXT, state INTEGER, run_at INTEGER);
    CREATE INDEX IF NOT EXISTS ready ON job (service, run_at, id) WHERE state = 0;";
const INSERT: &str = "INSERT INTO job (service, function, args, state, run_at)
    VALUES ('events', 'noop', ?1, 0, ?2) RETURNING id";
const CLAIM: &str = "UPDATE job SET state = 1 WHERE id IN (SELECT id FROM job
    WHERE state = 0 AND service = 'events' AND run_at <= ?2 ORDER BY run_at, id LIMIT ?1) RETURNING id, function, args";
const FINISH: &str = "UPDATE job SET state = 2 WHERE id = ?1 AND state = 1";
const NOW: i64 = 1_700_000_000_000;

fn main() {
    // The C library keeps freed memory from now on, and does not ask for it anew with each transaction, as it else does here.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(16 << 20)));
    let task = Task::from_args();
    match task.measure.as_str() {
        // In the words after SYNC: how many at once, and what.
        "spawn" => report(timed(|| spawn(task.count, task.more[0].parse().unwrap(), &task.more[1..]))),
        // So many times what the median one took: others' use of the disk is no part of it.
        "median" => {
            let mut times: Vec<_> = (0..task.count).map(|_| timed(|| spawn(1, 1, &task.more))).collect();
            times.sort_unstable();
            report(times[times.len() / 2] * u32::try_from(task.count).unwrap());
        }
        "each" => {
            let db = open(&task);
            report(timed(|| (0..task.count).for_each(|number| insert(&db, number, NOW))));
            count(&task, &db, 0);
        }
        "bulk" => bulk(&task, NOW),
        "future" => bulk(&task, 2 * NOW),
        "empty" => {
            let db = open(&task);
            report(timed(|| (0..task.count).for_each(|_| assert!(claim(&db, 1).is_empty()))));
        }
        _ => merged(&task),
    }
}

fn open(task: &Task) -> Connection {
    let db = Connection::open(task.store()).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode=WAL; PRAGMA synchronous={}; {SCHEMA}", task.sync)).unwrap();
    db
}

fn insert(db: &Connection, number: u64, run_at: i64) {
    let mut insert = db.prepare_cached(INSERT).unwrap();
    let _: i64 = insert.query_row((format!("[{number},7]"), run_at), |row| row.get(0)).unwrap();
}

fn bulk(task: &Task, run_at: i64) {
    let db = open(task);
    report(timed(|| {
        for first in (0..task.count).step_by(1000) {
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            (first..task.count.min(first + 1000)).for_each(|number| insert(&db, number, run_at));
            db.execute_batch("COMMIT").unwrap();
        }
    }));
    count(task, &db, 0);
}

fn claim(db: &Connection, at_once: i64) -> Vec<i64> {
    let mut claim = db.prepare_cached(CLAIM).unwrap();
    let read = |row: &rusqlite::Row<'_>| {
        let _: (String, String) = (row.get(1)?, row.get(2)?);
        row.get(0)
    };
    claim.query_map((at_once, NOW), read).unwrap().map(Result::unwrap).collect()
}

/// Finishes some and claims as many in one transaction: no retries, no limits, no fences, no outcomes.
fn merged(task: &Task) {
    let db = open(task);
    report(timed(|| {
        let (mut claimed, mut done) = (Vec::new(), 0);
        loop {
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            let mut finish = db.prepare_cached(FINISH).unwrap();
            for id in claimed {
                finish.execute([id]).unwrap();
            }
            // The last turn claims nothing.
            let at_once = if done < task.count { task.batch().cast_signed() } else { 0 };
            claimed = claim(&db, at_once);
            done += claimed.len() as u64;
            db.execute_batch("COMMIT").unwrap();
            if claimed.is_empty() {
                break;
            }
        }
    }));
    count(task, &db, 2);
}

fn count(task: &Task, db: &Connection, state: u8) {
    let found: i64 = db.query_row("SELECT COUNT(*) FROM job WHERE state = ?1", [state], |row| row.get(0)).unwrap();
    assert_eq!(found.unsigned_abs(), task.count);
}

fn spawn(count: u64, threads: u64, program: &[String]) {
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count / threads {
                    let mut command = Command::new(&program[0]);
                    command.args(&program[1..]).stdin(Stdio::null()).stdout(Stdio::null());
                    assert!(command.status().unwrap().success());
                }
            });
        }
    });
}
