//! This build against an earlier one, which `ASYNCQ_BEFORE` names:
//!
//! ```sh
//! git worktree add --detach ../before COMMIT
//! (cd ../before && cargo build --release)
//! ASYNCQ_BEFORE=../before/target/release/asyncq cargo bench --bench speed -- before
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{ASYNCQ, Bench, in_turn, tell, timed};

/// How many calls are inserted at a time, and how many in one transaction.
const INSERTS: u32 = 50_000;
const AT_ONCE: u32 = 1000;
/// How many calls a batch has.
const BATCH: u32 = 200_000;

/// Plain INSERTs, which set none of the newer columns; batches; and single calls.
pub fn before() {
    let Some(before) = std::env::var_os("ASYNCQ_BEFORE").map(PathBuf::from) else {
        println!("before: left out, as ASYNCQ_BEFORE names no earlier asyncq");
        return;
    };
    let before = before.canonicalize().unwrap();
    let programs = [PathBuf::from(ASYNCQ), before];
    println!("before: this build | the earlier one, in turn; durable");
    let [ours, theirs] = in_turn(7, || programs.each_ref().map(|it| insert(it)));
    tell("a plain INSERT, 1,000 in a transaction", ours / INSERTS, theirs / INSERTS, "at most 1.18");
    let [ours, theirs] = in_turn(7, || programs.each_ref().map(|it| batch(it)));
    tell("a call of a batch", ours / BATCH, theirs / BATCH, "at most 1.05");
    let benches = programs.each_ref().map(|program| Bench::by(program, 1));
    let [ours, theirs] = in_turn(500, || {
        benches.each_ref().map(|bench| timed(|| bench.asyncq(&["enqueue", "events", "true", "2", "7"])))
    });
    tell("asyncq enqueue, the whole process", ours, theirs, "at most 1.05");
}

fn insert(program: &Path) -> std::time::Duration {
    let bench = Bench::by(program, 1);
    let db = Connection::open(bench.path()).unwrap();
    db.execute_batch("PRAGMA synchronous=FULL").unwrap();
    let mut insert =
        db.prepare("INSERT INTO asyncq_job (service, function, args) VALUES ('events', 'true', ?1)").unwrap();
    timed(|| {
        for first in (0..INSERTS).step_by(AT_ONCE as usize) {
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            for number in first..first + AT_ONCE {
                insert.execute([format!("[{number},7]")]).unwrap();
            }
            db.execute_batch("COMMIT").unwrap();
        }
    })
}

fn batch(program: &Path) -> std::time::Duration {
    let bench = Bench::by(program, 1);
    let calls = bench.folder.path().join("calls");
    let line = |number| format!("{{\"service\":\"events\",\"function\":\"true\",\"args\":[{number},7]}}\n");
    fs::write(&calls, (0..BATCH).map(line).collect::<String>()).unwrap();
    timed(|| bench.asyncq(&["enqueue", "--batch", calls.to_str().unwrap()]))
}
