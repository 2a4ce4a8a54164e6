//! Honker.

#[path = "../../driver.rs"]
mod driver;

use driver::{Task, call_now_and_then, now, report, timed};
use honker::{Database, EnqueueOpts, Queue, QueueOpts};

const WORKER: &str = "worker";

fn main() {
    let task = Task::from_args();
    let db = Database::open(task.store()).unwrap();
    if let Some(sync) = task.pragma() {
        db.with_conn(|db| db.execute_batch(&format!("PRAGMA synchronous={sync}")).unwrap());
    }
    let queue = db.queue("events", QueueOpts::default());
    match task.measure.as_str() {
        "each" => {
            report(timed(|| {
                for number in 0..task.count {
                    queue.enqueue(&(number, 7), EnqueueOpts::default()).unwrap();
                }
            }));
            assert_eq!(waiting(&db), task.count);
        }
        "bulk" => bulk(&task, &db, &queue, &EnqueueOpts::default()),
        "future" => bulk(&task, &db, &queue, &EnqueueOpts { run_at: Some(4_102_444_800), ..EnqueueOpts::default() }),
        "empty" => report(timed(|| (0..task.count).for_each(|_| assert!(queue.claim_one(WORKER).unwrap().is_none())))),
        "work" => {
            let waker = queue.claim_waker();
            while let Some(job) = waker.next(WORKER).unwrap() {
                println!("{}", now());
                assert!(job.ack().unwrap());
            }
        }
        "call" => call_now_and_then(task.count, || {
            queue.enqueue(&(2, 7), EnqueueOpts::default()).unwrap();
        }),
        _ => claim(&task, &db, &queue),
    }
}

fn waiting(db: &Database) -> u64 {
    count(db, "state = 'pending'")
}

fn count(db: &Database, which: &str) -> u64 {
    let query = format!("SELECT COUNT(*) FROM _honker_live WHERE {which}");
    let found: i64 = db.with_conn(|db| db.query_row(&query, [], |row| row.get(0)).unwrap());
    found.unsigned_abs()
}

/// It has no verb for many; calls share transactions.
fn bulk(task: &Task, db: &Database, queue: &Queue, opts: &EnqueueOpts) {
    report(timed(|| {
        for first in (0..task.count).step_by(1000) {
            let tx = db.transaction().unwrap();
            for number in first..task.count.min(first + 1000) {
                queue.enqueue_tx(&tx, &(number, 7), opts.clone()).unwrap();
            }
            tx.commit().unwrap();
        }
    }));
    assert_eq!(waiting(db), task.count);
}

fn claim(task: &Task, db: &Database, queue: &Queue) {
    let mut done = 0;
    let at_once = i64::try_from(task.batch()).unwrap();
    // With a large backlog it would take minutes: `count` is what is claimed of it.
    report(timed(|| {
        while done < task.count {
            let jobs = queue.claim_batch(WORKER, at_once).unwrap();
            assert!(!jobs.is_empty());
            let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
            assert_eq!(queue.ack_batch(&ids, WORKER).unwrap(), ids.len() as i64);
            done += ids.len() as u64;
        }
    }));
    assert_eq!(count(db, "state <> 'pending'"), 0);
}
