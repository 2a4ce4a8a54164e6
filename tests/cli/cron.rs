//! Draining under cron's conditions, and real batches.

use std::fs;

use crate::place::{Place, wait_until};

#[test]
fn a_bare_environment_and_twice_at_once() {
    let place = Place::with_functions(&[(
        "slow",
        "echo run >> runs; until [ -e go ]; do sleep 0.01; done; tr -d '\\n' < /dev/null",
    )]);
    place.stdout("for i in 1 2 3; do asyncq enqueue events slow; done");
    let asyncq = env!("CARGO_BIN_EXE_asyncq");
    let line = format!("env -i HOME=\"$HOME\" PATH=/usr/bin:/bin sh -c 'cd / && {asyncq} process'");
    let first = place.start(&line);
    wait_until("the first call begins", || place.read("runs").lines().count() == 1);
    let second = place.run(&line);
    assert!(second.status.success());
    // Nothing is amiss: cron mails what is printed.
    assert!(second.stdout.is_empty() && second.stderr.is_empty(), "{second:?}");
    place.write("go", "");
    assert!(first.wait().status.success());
    assert_eq!(place.read("runs").lines().count(), 3);
    let third = place.run(&line);
    assert!(third.status.success() && third.stdout.is_empty() && third.stderr.is_empty(), "{third:?}");
}

#[test]
fn many_processors_run_each_call_once() {
    let place = Place::with_functions(&[("count", "echo $ASYNCQ_JOB >> runs")]);
    place.stdout("asyncq service set events --concurrency 3");
    let store = rusqlite::Connection::open(place.store()).unwrap();
    for _ in 0..200 {
        store.execute("INSERT INTO asyncq_job (service, function) VALUES ('events', 'count')", []).unwrap();
    }
    drop(store);
    place.stdout("for i in 1 2 3 4 5 6; do asyncq -q process & done; wait; asyncq process");
    let mut runs: Vec<u32> = place.read("runs").lines().map(|line| line.parse().unwrap()).collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=200).collect::<Vec<_>>());
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job WHERE state = 'completed' AND crashes = 0"), "200");
}

/// Compresses and checksums real files of this machine, and compares with a plain loop.
#[test]
fn a_batch_of_real_files() {
    let place = Place::new();
    let mut files: Vec<_> = fs::read_dir("/usr/bin")
        .unwrap()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() < 200_000))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.truncate(300);
    assert!(files.len() > 100, "too few files on this machine: {}", files.len());
    place.program(
        "pack",
        "#!/bin/sh
set -e
sum=$(sha256sum < \"$1\" | cut -d ' ' -f 1)
packed=$(gzip -9n < \"$1\" | tee \"packed/$(basename \"$1\").gz\" | wc -c)
printf '{\"file\": \"%s\", \"sha256\": \"%s\", \"packed\": %d}' \"$1\" \"$sum\" \"$packed\" > \"$ASYNCQ_RESULT\"
",
    );
    place.stdout("mkdir packed; asyncq service add batch --concurrency 2; asyncq function add batch pack -- ./pack");
    let list = files.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>().join("\n");
    place.write("files", &list);
    place
        .stdout("while read -r file || [ -n \"$file\" ]; do asyncq enqueue batch pack \"$file\" || exit; done < files");
    place.stdout("asyncq process");
    let jobs: serde_json::Value = serde_json::from_str(&place.stdout("asyncq job list --limit 0 --json")).unwrap();
    let jobs = jobs.as_array().unwrap();
    assert_eq!(jobs.len(), files.len());
    for job in jobs {
        let result = &job["result"];
        assert_eq!((&job["state"], &result["file"]), (&"completed".into(), &job["args"][0]), "{job}");
    }
    let plain = place.stdout(
        "while read -r file || [ -n \"$file\" ]; do
            echo \"$file $(sha256sum < \"$file\" | cut -d ' ' -f 1) $(gzip -9n < \"$file\" | wc -c)\"
            gzip -dc \"packed/$(basename \"$file\").gz\" | cmp - \"$file\" || exit
         done < files",
    );
    let mut results: Vec<String> = jobs
        .iter()
        .map(|job| {
            let result = &job["result"];
            format!("{} {} {}", result["file"].as_str().unwrap(), result["sha256"].as_str().unwrap(), result["packed"])
        })
        .collect();
    results.sort();
    assert_eq!(results, plain.lines().collect::<Vec<_>>());
}
