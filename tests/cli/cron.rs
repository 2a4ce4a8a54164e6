//! Draining under cron's conditions, and real batches.

use std::fs;
use std::path::Path;
use std::process::Output;

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

/// The lines of a document for a crontab, without their times.
fn crontab(text: &str) -> Vec<&str> {
    let is_time = |field: &&str| field.chars().all(|c| c.is_ascii_digit() || "*/,-".contains(c));
    let command = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 5 && fields.iter().take(5).all(is_time)
    };
    let after_times = |line: &'_ str| {
        let mut rest = line;
        for _ in 0..5 {
            rest = rest.trim_start().split_once(char::is_whitespace).unwrap().1;
        }
        rest.trim_start().len()
    };
    text.lines().filter(command).map(|line| &line[line.len() - after_times(line)..]).collect()
}

/// As cron runs a line.
fn under_cron(place: &Place, line: &str) -> Output {
    assert!(!line.replace("\\%", "").contains('%'), "cron ends this line at its `%`: {line}");
    place
        .command("exec env -i HOME=\"$HOME\" LOGNAME=me SHELL=/bin/sh PATH=/usr/bin:/bin /bin/sh -c \"$LINE\"")
        .env("LINE", line)
        .output()
        .unwrap()
}

#[test]
fn the_crontab_lines_of_the_documents_work_as_they_stand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> = fs::read_dir(root.join("docs")).unwrap().map(|file| file.unwrap().path()).collect();
    documents.push(root.join("README.md"));
    let texts: Vec<_> = documents
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // What has gaps is printed by a session, whose test is the next one.
    let lines: Vec<_> = texts.iter().flat_map(|text| crontab(text)).filter(|line| !line.contains("[..]")).collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in lines {
        // As `cargo install` leaves it.
        let place = Place::with_functions(&[("note", "asyncq is-async >> ran")]);
        place.stdout("mkdir -p .cargo/bin; ln -s $(command -v asyncq) .cargo/bin/asyncq; mkdir backups; asyncq enqueue events note");
        for service in ["mails", "thumbnails", "exports"] {
            place.stdout(&format!("asyncq service add {service}; asyncq function add {service} note -- ./note; asyncq enqueue {service} note"));
        }
        let output = under_cron(&place, line);
        assert!(output.status.success() && output.stderr.is_empty(), "{line}\n{output:?}");
        let services = ["mails", "thumbnails", "exports"].iter().filter(|service| line.contains(*service)).count();
        let runs = if ["job clean", "backup"].iter().any(|command| line.contains(command)) {
            0
        } else if services == 0 {
            4
        } else {
            services
        };
        let ran = fs::read_to_string(place.at("ran")).unwrap_or_default();
        assert_eq!(ran, "true\n".repeat(runs), "{line}");
        let backups = fs::read_dir(place.at("backups")).unwrap().count();
        assert_eq!(backups, usize::from(line.contains("backup")), "{line}");
    }
}

#[test]
fn a_crontab_line_that_names_a_store_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains("`asyncq --db /srv/shop.db process`"));
    let mut place = Place::new();
    place.stdout("mkdir 'my shop' bin; ln -s $(command -v asyncq) bin/asyncq");
    let shop = place.at("my shop/shop.db");
    place.set("ASYNCQ_DB", shop.to_str().unwrap());
    place.stdout("asyncq -q init; asyncq service add events");
    place.function("note", "", "asyncq is-async >> ran");
    place.stdout("asyncq enqueue events note");
    let line = format!("* * * * * $HOME/bin/asyncq --db '{}' process\n", shop.display());
    let output = under_cron(&place, crontab(&line)[0]);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}\n{output:?}");
    assert_eq!(place.read("ran"), "true\n");
}

#[test]
fn many_processors_run_each_call_once() {
    let place = Place::with_functions(&[("count", "echo $ASYNCQ_JOB >> runs")]);
    place.stdout("asyncq service set events --concurrency 3");
    place.enqueue_many("count", 200);
    place.stdout("for i in 1 2 3 4 5 6; do asyncq -q process & done; wait; asyncq process");
    let mut runs: Vec<u32> = place.read("runs").lines().map(|line| line.parse().unwrap()).collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=200).collect::<Vec<_>>());
    assert_eq!(place.jobs("state crashes"), vec!["completed 0"; 200].join(", "));
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
    files.truncate(100);
    assert!(files.len() == 100, "too few files on this machine: {}", files.len());
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
