//! Listing, showing and cleaning jobs.

use std::fs;
use std::process::Command;

use crate::place::{Place, wait_until};

fn place() -> Place {
    let place = Place::with_functions(&[("say", "echo $1"), ("fail", "echo trouble >&2; exit 1")]);
    place.stdout("asyncq service add mail; asyncq function add mail say -- ./say");
    place
}

#[test]
fn lists_are_filtered_and_newest_first() {
    let place = place();
    place.stdout(
        "asyncq enqueue events say 1; asyncq enqueue events fail --principal bob; asyncq enqueue mail say 2 -k a=x",
    );
    place.run("asyncq process");
    place.stdout("asyncq enqueue mail say 3 --hold --principal bob");
    place.session(
        r#"
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS      PRINCIPAL  STATE      WHEN
        4   mail     say       [3]            bob        held       [..]
        3   mail     say       [2] {"a":"x"}  -          completed  [..]
        2   events   fail      []             bob        error      [..]
        1   events   say       [1]            -          completed  [..]
        $ asyncq job list --service mail --state completed
        ID  SERVICE  FUNCTION  ARGUMENTS      PRINCIPAL  STATE      WHEN
        3   mail     say       [2] {"a":"x"}  -          completed  [..]
        $ asyncq job list --principal bob --function say
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE  WHEN
        4   mail     say       [3]        bob        held   [..]
        $ asyncq job list --state delayed
        $ asyncq job list --state delayed --json
        [
        ]
        $ asyncq job list --service mial
        ! error: there is no service `mial`
        ! hint: did you mean `mail`? `asyncq service list` shows all
        ? 66
        $ asyncq job list --state finished
        ! error: invalid value `finished` for `--state <STATE>` [possible values: held, delayed, queued, processing, completed, error, cancelled]
        ! hint: `asyncq job list --help` shows how
        ? 2
        $ asyncq job show 2
        job        2
        service    events
        function   fail
        args       []
        kwargs     {}
        principal  bob
        site       /[..]
        state      error
        created    20[..]Z  [..]  by [..]
        started    20[..]Z  [..]
        finished   20[..]Z  [..]  took [..]s
        error      exit code 1

        ATTEMPT  STARTED                   TOOK  ENDING  OUTPUT   ERROR
        1        20[..]Z  [..]  error   8 bytes  exit code 1
        $ asyncq job show 2 --json
        {"id":2,"service":"events","function":"fail","args":[],"kwargs":{},"principal":"bob","site":"/[..]","state":"error","immediate":false,"parent":null,"attempt":1,"created_at":"20[..]Z","run_at":"20[..]Z","started_at":"20[..]Z","finished_at":"20[..]Z","result":null,"error":{"kind":"exit","message":"exit code 1","exit_code":1,"signal":null},"priority":0,"key":null,"os_user":"[..]","attempts":[{"attempt":1,"started_at":"20[..]Z","finished_at":"20[..]Z","ending":"error","error":{"kind":"exit","message":"exit code 1","exit_code":1,"signal":null},"log_bytes":8,"log_dropped":0}]}
        $ asyncq job log 2
        ! trouble
        $ asyncq job result 2
        ! asyncq: job 2 ended in an error: exit code 1
        ? 1
        $ for verb in show result log cancel retry start; do asyncq job $verb 77; done
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows the newest 50
        ? 66
        "#,
    );
    Place::with_functions(&[])
        .session("$ asyncq job show 1\n! error: there is no job 1\n! hint: there are no jobs at all\n? 66");
}

#[test]
fn lists_are_paged() {
    let place = place();
    let store = rusqlite::Connection::open(place.store()).unwrap();
    store.execute_batch("BEGIN").unwrap();
    for _ in 0..2345 {
        store.execute("INSERT INTO asyncq_job (service, function) VALUES ('events', 'say')", []).unwrap();
    }
    store.execute_batch("COMMIT").unwrap();
    drop(store);
    let ids = |command: &str| -> Vec<u32> {
        let lines = place.stdout(command);
        lines.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    };
    assert_eq!(ids("asyncq job list"), (2296..=2345).rev().collect::<Vec<_>>());
    assert_eq!(ids("asyncq job list --before 2296 --limit 3"), [2295, 2294, 2293]);
    assert_eq!(ids("asyncq job list --limit 0"), (1..=2345).rev().collect::<Vec<_>>());
    assert_eq!(ids("asyncq job list --limit 1500"), (846..=2345).rev().collect::<Vec<_>>());
    let json = place.stdout("asyncq job list --limit 0 --json");
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), 2345);
    place.session("$ asyncq -v job list --limit 1\nID[..]\n2345 [..]\n! asyncq: `--before 2345` shows the next page");
}

#[test]
fn cleaning_removes_what_has_ended() {
    let place = place();
    place.stdout("asyncq enqueue events say 1; asyncq enqueue events fail; asyncq enqueue events say 2");
    place.run("asyncq job cancel 3; asyncq process; asyncq enqueue events say 4; asyncq enqueue events say 5 --hold");
    place.session(
        "
        $ asyncq job clean --older-than 1h
        ! asyncq: removed 0 jobs
        $ asyncq job clean --state error
        ! asyncq: removed 1 job
        $ asyncq job clean --state queued
        ! error: invalid value `queued` for `--state <STATE>` [possible values: completed, error, cancelled]
        ! hint: `asyncq job clean --help` shows how
        ? 2
        $ asyncq -q job clean
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE   WHEN
        5   events   say       [5]        -          held    [..]
        4   events   say       [4]        -          queued  [..]
        $ asyncq job show 1
        ! error: there is no job 1
        ! hint: the newest is 5; `asyncq job list` shows the newest 50
        ? 66
        ",
    );
    assert_eq!(place.query("SELECT count(*) FROM asyncq_attempt"), "0");
    // Numbers are never used again.
    place.session("$ asyncq job cancel 4 5; asyncq -q job clean; asyncq enqueue events say 6\n6");
}

#[test]
fn who_enqueues_gets_in_between_the_steps_of_cleaning() {
    let place = place();
    let made = rusqlite::Connection::open(place.store()).unwrap().execute_batch(
        "INSERT INTO asyncq_job (service, function)
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 4500)
         SELECT 'events', 'say' FROM n;
         UPDATE asyncq_job SET state = 'completed', finished_at = run_at",
    );
    made.unwrap();
    // Between the second step and the third.
    let clean = place.start("env ASYNCQ_FAILPOINT='transaction committed:2=stop' asyncq job clean");
    let process = clean.0.id();
    wait_until("it has made two steps", || {
        fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default().contains(") T ")
    });
    place.session("$ asyncq enqueue events say now\n4501");
    assert_eq!(place.query("SELECT count(*) || ' from ' || min(id) FROM asyncq_job"), "501 from 4001");
    place.stdout(&format!("kill -CONT {process}"));
    let output = clean.wait();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "asyncq: removed 4500 jobs\n");
    assert_eq!(place.query("SELECT count(*) || ' from ' || min(id) FROM asyncq_job"), "1 from 4501");
}

#[test]
fn old_jobs_are_told_by_when_they_ended() {
    let place = place();
    place.run("for i in 1 2 3; do asyncq enqueue events say $i; done; asyncq process");
    let day = 86_400_000;
    let store = rusqlite::Connection::open(place.store()).unwrap();
    store.execute(&format!("UPDATE asyncq_job SET finished_at = finished_at - {day} * id * 2"), []).unwrap();
    drop(store);
    place.session(
        "
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        3   events   say       [3]        -          completed  6d ago
        2   events   say       [2]        -          completed  4d ago
        1   events   say       [1]        -          completed  2d ago
        $ asyncq job clean --older-than 3d
        ! asyncq: removed 2 jobs
        $ asyncq job list --json | grep -o '\"id\":[0-9]*'
        \"id\":1
        ",
    );
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let place = place();
    place.stdout("for i in $(seq 20); do asyncq enqueue events say $i; done");
    // A pipe whose reader has gone before anything is written.
    place.session(
        "
        $ asyncq job list | head -1
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE   WHEN
        $ asyncq job list --json | head -1
        [
        ",
    );
    for command in
        ["job list", "job list --json", "job show 1", "service list", "service list --json", "function list", "--help"]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.command(&format!("exec asyncq {command}"));
        let child = command.stdout(writer).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty() && output.status.success(), "{output:?}");
    }
}

#[test]
fn a_terminal_sees_fitted_tables_and_no_control_characters() {
    let place = place();
    place.program(
        "evil",
        "#!/bin/sh\nprintf 'red \\033[31m bell \\007 text\\n'; printf '\"\\\\u001b[2J\"' > \"$ASYNCQ_RESULT\"\n",
    );
    place.stdout("asyncq function add events evil -- ./evil");
    place.stdout("asyncq enqueue events say \"$(printf 'esc \\033[2J and a text so long that it does not fit into the terminal')\" --principal x");
    place.stdout("asyncq enqueue events evil; asyncq process > out");
    assert!(place.read("out").contains("red \x1b[31m bell \x07 text"));
    // `script` gives its command a terminal.
    let on_terminal = |line: &str| {
        let command = format!("stty cols 60; {line}");
        let mut script = place.command("");
        let path = script.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(place.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", place.path())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        script.stdout(std::process::Stdio::null());
        String::from_utf8(output.stdout).unwrap()
    };
    let table = on_terminal("asyncq --color never job list");
    assert!(table.contains("…") && !table.contains('\x1b'), "{table}");
    for line in table.lines() {
        assert!(line.trim_end().chars().count() <= 60, "{line}");
    }
    let coloured = on_terminal("asyncq job list");
    assert!(coloured.contains("\x1b[32mcompleted\x1b[0m") && !coloured.contains("\x1b[2J"), "{coloured:?}");
    assert_eq!(on_terminal("asyncq job log 2"), "red \\u{1b}[31m bell \\u{7} text\r\n");
    assert_eq!(on_terminal("asyncq job log 2 --raw"), "red \x1b[31m bell \x07 text\r\n");
    let shown = on_terminal("asyncq --color never job show 1");
    assert!(!shown.contains('\x1b') && shown.contains("esc \\u001b[2J"), "{shown}");
    assert!(!on_terminal("asyncq --color never job show 1 --json").contains('\x1b'));
}

#[test]
fn a_long_list_is_one_table_and_one_array() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2500)";
    let store = rusqlite::Connection::open(place.store()).unwrap();
    let insert = "INSERT INTO asyncq_job (service, function, args)";
    store
        .execute(&format!("{insert} {many} SELECT 'events', 'hello', json_array(hex(zeroblob(500))) FROM n"), [])
        .unwrap();
    drop(store);
    place.session(
        r"
        $ asyncq job list --limit 0 | grep -c SERVICE
        1
        $ asyncq job list --limit 0 | wc -l
        2501
        $ asyncq job list --limit 0 --json | head -n 1
        [
        $ asyncq job list --limit 0 --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'
        2500
        ",
    );
}

#[test]
fn mistyped_names_are_told_and_removed_ones_listed() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ asyncq enqueue events hello; asyncq process
        1
        hello
        $ asyncq job list --function helo
        ! error: no service has a function `helo`
        ! hint: did you mean `hello`? `asyncq function list` shows all
        ? 66
        $ asyncq job list --service events --function helo
        ! error: service `events` has no function `helo`
        ! hint: did you mean `hello`? `asyncq function list events` shows all
        ? 66
        $ asyncq service remove events && asyncq job list --service events --function hello --state queued
        $ asyncq job list --service events --json | grep -c id
        1
        $ asyncq job log 1 --attempt 0
        ! error: job 1 has no attempt 0
        ! hint: `asyncq job show 1` shows all
        ? 66
        ",
    );
}
