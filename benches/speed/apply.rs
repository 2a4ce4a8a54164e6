//! Manifests: a large one for an empty store, and the same again, when nothing has to change.

use std::fs;
use std::time::Duration;

use super::{Bench, median, timed};

/// How many functions and how many schedules the manifest has.
const EACH: u32 = 1000;

/// `asyncq apply`, the whole process. The bytes of the store and its WAL show that the second one writes nothing.
pub fn apply() {
    println!("apply: {EACH} functions and {EACH} schedules, the whole process, durable");
    let functions = (0..EACH).map(|it| {
        format!(
            "[function.'many/f{it}']\ncommand = ['true', '{it}']\ntimeout = '30s'\nretries = 3\non_error = 'many/f0'\n"
        )
    });
    let schedules = (0..EACH).map(|it| {
        let (minute, hour) = (it % 60, it % 24);
        format!("[schedule.s{it}]\ncall = 'many/f{it}'\nargs = [{it}]\ncron = '{minute} {hour} * * *'\ntz = 'Europe/Berlin'\n")
    });
    let manifest: String = std::iter::once("[service.many]\n".to_owned()).chain(functions).chain(schedules).collect();
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let bench = Bench::new(1);
        let file = bench.folder.path().join("many.toml");
        fs::write(&file, &manifest).unwrap();
        let file = file.to_str().unwrap();
        first.push(timed(|| bench.asyncq(&["apply", file])));
        // It keeps the WAL, which another connection would empty when it is the last one to close.
        let reader = rusqlite::Connection::open(bench.path()).unwrap();
        let _: i64 = reader.query_row("SELECT count(*) FROM asyncq_schedule", [], |row| row.get(0)).unwrap();
        let written = || {
            ["", "-wal"]
                .map(|suffix| fs::metadata(format!("{}{suffix}", bench.path().display())).map_or(0, |it| it.len()))
        };
        let before = written();
        for _ in 0..5 {
            again.push(timed(|| bench.asyncq(&["apply", file])));
        }
        assert_eq!(written(), before, "something was written");
    }
    tell("to an empty store", first, "at most 1 s");
    tell("again, nothing to do", again, "at most 50 ms, no write");
}

fn tell(what: &str, times: Vec<Duration>, goal: &str) {
    let time = median(times);
    println!("{what:<58} {:>8.1} ms{:>26}(to reach: {goal})", time.as_secs_f64() * 1000.0, "");
}
