//! effectum. It sets `synchronous=NORMAL`, and means to set WAL and does not: `own` is with the rollback journal, and
//! `NORMAL` in a store that was switched to WAL beforehand.

#[path = "../../driver.rs"]
mod driver;

use std::time::{Duration, Instant};

use driver::{Task, report};
use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use rusqlite::Connection;

const AT_ONCE: u16 = 10;

#[tokio::main]
async fn main() {
    let task = Task::from_args();
    if task.sync == "NORMAL" {
        let db = Connection::open(task.store()).unwrap();
        db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    }
    let queue = Queue::new(&task.store()).await.unwrap();
    let began = Instant::now();
    match task.measure.as_str() {
        "each" => {
            for number in 0..task.count {
                queue.add_job(job(number)).await.unwrap();
            }
        }
        "bulk" => {
            for first in (0..task.count).step_by(1000) {
                let jobs = (first..task.count.min(first + 1000)).map(job).collect();
                queue.add_jobs(jobs).await.unwrap();
            }
        }
        "drain" => {
            let runner = JobRunner::builder("noop", |_: RunningJob, (): ()| async { Ok::<_, std::fmt::Error>(()) });
            let worker = Worker::builder(&queue, ());
            let worker = worker.min_concurrency(AT_ONCE).max_concurrency(AT_ONCE).jobs([runner.build()]);
            let worker = worker.build().await.unwrap();
            while worker.counts().finished < task.count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        other => panic!("effectum is not measured with `{other}`"),
    }
    // Whatever is written behind is in the store when it is closed; part of the time.
    queue.close(Duration::from_secs(60)).await.unwrap();
    let took = began.elapsed();
    let db = Connection::open(task.store()).unwrap();
    let which = if task.measure == "drain" { "status = 'succeeded'" } else { "finished_at IS NULL" };
    let query = format!("SELECT COUNT(*) FROM jobs WHERE {which}");
    let found: i64 = db.query_row(&query, [], |row| row.get(0)).unwrap();
    assert_eq!(found.unsigned_abs(), task.count);
    report(took);
}

fn job(number: u64) -> Job {
    Job::builder("noop").json_payload(&(number, 7)).unwrap().build()
}
