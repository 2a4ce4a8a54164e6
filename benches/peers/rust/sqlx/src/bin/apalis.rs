//! apalis-sqlite. Its `setup` sets `synchronous=OFF` on the one connection that it gets (`own`); with another setting, that
//! connection is not used any more.

#[path = "../../../driver.rs"]
mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use driver::{Task, report};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

type Storage = SqliteStorage<(u64, u64)>;

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
        let first = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
        SqliteStorage::setup(&first).await.unwrap();
        first.close().await;
    }
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    if task.pragma().is_none() {
        SqliteStorage::setup(&pool).await.unwrap();
    }
    let config = Config::default().queue("events").batch_size(100);
    let mut storage = Storage::new(&pool).with_config(config);
    let began = Instant::now();
    match task.measure.as_str() {
        "each" => {
            for number in 0..task.count {
                storage.push((number, 7)).await.unwrap();
            }
        }
        "bulk" => {
            for first in (0..task.count).step_by(1000) {
                let jobs = (first..task.count.min(first + 1000)).map(|number| (number, 7)).collect();
                storage.push_bulk(jobs).await.unwrap();
            }
        }
        "drain" => drain(&task, storage).await,
        other => panic!("apalis is not measured with `{other}`"),
    }
    let took = began.elapsed();
    let state = if task.measure == "drain" { "Done" } else { "Pending" };
    assert_eq!(count(&pool, state).await, task.count);
    report(took);
}

async fn count(pool: &SqlitePool, state: &str) -> u64 {
    let query = "SELECT COUNT(*) FROM Jobs WHERE status = ?1";
    let found: i64 = sqlx::query_scalar(query).bind(state).fetch_one(pool).await.unwrap();
    found.unsigned_abs()
}

/// Counts what has run, and looks then whether all is recorded.
async fn drain(task: &Task, storage: Storage) {
    let (pool, ran) = (storage.pool().clone(), Arc::new(AtomicU64::new(0)));
    let counter = ran.clone();
    let noop = move |_: (u64, u64)| {
        let counter = counter.clone();
        async move {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok::<(), BoxDynError>(())
        }
    };
    let backend = storage.poll_with_interval(Duration::from_millis(5));
    let worker = WorkerBuilder::new("worker").backend(backend).parallelize(tokio::spawn).build(noop);
    let running = tokio::spawn(worker.run());
    while ran.load(Ordering::Relaxed) < task.count || count(&pool, "Done").await < task.count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.abort();
}
