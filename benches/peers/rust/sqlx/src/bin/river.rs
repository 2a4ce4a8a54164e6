//! River for Rust, with 1,000 workers and the shortest pause between fetches that it allows.

#[path = "../../../driver.rs"]
mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use driver::{Task, now, report};
use riverqueue::migrate::SqliteMigrator;
use riverqueue::{Client, Job, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

#[derive(Clone, Debug, Deserialize, JobArgs, Serialize)]
#[river(kind = "noop")]
struct Noop {
    a: u64,
    b: u64,
}

#[tokio::main]
async fn main() {
    let task = Task::from_args();
    let mut options = SqliteConnectOptions::new()
        .filename(task.store())
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(5));
    if let Some(sync) = task.pragma() {
        options = options.pragma("synchronous", sync.to_owned());
    }
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    SqliteMigrator::new(pool.clone()).migrate_up().await.unwrap();
    match task.measure.as_str() {
        "each" | "bulk" => insert(&task, &pool).await,
        "drain" => drain(&task, &pool).await,
        "work" => work(&pool).await,
        "call" => {
            let client = Client::builder(pool).fetch_cooldown(COOLDOWN).build().unwrap();
            for number in 0..task.count {
                tokio::time::sleep(Duration::from_millis(10 + number * 7 % 20)).await;
                let began = now();
                client.insert(Noop { a: 2, b: 7 }).await.unwrap();
                println!("{began} {}", now());
            }
        }
        other => panic!("River is not measured with `{other}`"),
    }
}

const COOLDOWN: Duration = Duration::from_millis(1);

async fn insert(task: &Task, pool: &SqlitePool) {
    let client = Client::builder(pool.clone()).fetch_cooldown(COOLDOWN).build().unwrap();
    let began = Instant::now();
    if task.measure == "each" {
        for number in 0..task.count {
            client.insert(Noop { a: number, b: 7 }).await.unwrap();
        }
    } else {
        for first in (0..task.count).step_by(1000) {
            let jobs: Vec<_> = (first..task.count.min(first + 1000)).map(|number| Noop { a: number, b: 7 }).collect();
            client.insert_many(jobs).await.unwrap();
        }
    }
    let took = began.elapsed();
    assert_eq!(count(pool, "available").await, task.count);
    report(took);
}

async fn count(pool: &SqlitePool, state: &str) -> u64 {
    let query = "SELECT COUNT(*) FROM river_job WHERE state = ?1";
    let found: i64 = sqlx::query_scalar(query).bind(state).fetch_one(pool).await.unwrap();
    found.unsigned_abs()
}

/// Counts what has run, and looks then whether all is recorded.
async fn drain(task: &Task, pool: &SqlitePool) {
    let ran = Arc::new(AtomicU64::new(0));
    let mut workers = Workers::new();
    let counter = ran.clone();
    let noop = move |_: WorkContext, _: Job<Noop>| {
        let counter = counter.clone();
        async move {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(WorkOutcome::Complete)
        }
    };
    workers.add_fn(noop).unwrap();
    let client = client(pool, workers);
    let began = Instant::now();
    let mut run = client.start().unwrap();
    while ran.load(Ordering::Relaxed) < task.count || count(pool, "completed").await < task.count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed();
    run.stop().await.unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), task.count);
    report(took);
}

fn client(pool: &SqlitePool, workers: Workers) -> Client {
    let builder = Client::builder(pool.clone()).workers(workers).fetch_cooldown(COOLDOWN);
    builder.queue("default", QueueConfig::new(1000)).build().unwrap()
}

async fn work(pool: &SqlitePool) {
    let mut workers = Workers::new();
    let noop = |_: WorkContext, _: Job<Noop>| async {
        println!("{}", now());
        Ok::<_, std::io::Error>(WorkOutcome::Complete)
    };
    workers.add_fn(noop).unwrap();
    client(pool, workers).start().unwrap().wait().await.unwrap();
}
