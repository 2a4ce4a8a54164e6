//! Listing, showing and cleaning jobs.

use crate::place::{Place, is_stopped, wait_until};

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
        ID  SERVICE  FUNCTION  ARGUMENTS      PRINCIPAL  STATE      WHEN  TOOK
        3   mail     say       [2] {"a":"x"}  -          completed  [..]  [..]
        $ asyncq job list --state error
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE  WHEN  TOOK  EXIT  ERROR
        2   events   fail      []         bob        error  [..]  [..]  1     exit code 1
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
        ! error: `--state` cannot be `finished`: it must be `held`, `blocked`, `delayed`, `queued`, `processing`, `completed`, `error` or `cancelled`
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
        {"id":2,"service":"events","function":"fail","args":[],"kwargs":{},"principal":"bob","site":"/[..]","state":"error","immediate":false,"parent":null,"attempt":1,"failures":1,"conflicts":0,"crashes":0,"created_at":"20[..]Z","run_at":"20[..]Z","started_at":"20[..]Z","finished_at":"20[..]Z","result":null,"error":{"kind":"exit","message":"exit code 1","exit_code":1,"signal":null},"priority":0,"key":null,"key_until":null,"lane":null,"expires_at":null,"after":null,"meta":null,"os_user":"[..]","attempts":[{"attempt":1,"started_at":"20[..]Z","finished_at":"20[..]Z","ending":"error","error":{"kind":"exit","message":"exit code 1","exit_code":1,"signal":null},"log_bytes":8,"log_dropped":0}]}
        $ asyncq job log 2
        ! trouble
        $ asyncq job result 2
        ! asyncq: job 2 ended in an error: exit code 1
        ? 1
        $ for verb in show result log cancel retry start; do asyncq job $verb 77; done
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ! error: there is no job 77
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ? 66
        "#,
    );
    Place::with_functions(&[])
        .session("$ asyncq job show 1\n! error: there is no job 1\n! hint: there are no jobs at all\n? 66");
}

#[test]
fn lists_are_paged() {
    let place = place();
    place.enqueue_many("say", 2345);
    let ids = |command: &str| -> Vec<u32> {
        let lines = place.stdout(command);
        lines.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    };
    assert_eq!(ids("asyncq job list"), (1..=2345).rev().collect::<Vec<_>>());
    assert_eq!(ids("asyncq job list --limit 50"), (2296..=2345).rev().collect::<Vec<_>>());
    assert_eq!(ids("asyncq job list --before 2296 --limit 3"), [2295, 2294, 2293]);
    assert_eq!(ids("asyncq job list --limit 0"), (1..=2345).rev().collect::<Vec<_>>());
    assert_eq!(ids("asyncq job list --limit 1500"), (846..=2345).rev().collect::<Vec<_>>());
    let json = place.stdout("asyncq job list --json");
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), 2345);
    // A program needs no message, and to look for more may take long.
    place.session(
        "
        $ asyncq -v job list --limit 1
        ID[..]
        2345 [..]
        ! asyncq: there are more jobs; `--before 2345` shows the next, `--limit 0` all
        $ asyncq -v job list --limit 1 --json | wc -l
        3
        $ asyncq -v job list --limit 1 --before 2
        ID[..]
        1 [..]
        ",
    );
    // A person sees the newest 50 and is told that there are more.
    let seen = place.on_terminal(100, "asyncq job list");
    assert!(seen.contains("\n2296 ") && !seen.contains("\n2295 "), "{seen}");
    assert!(seen.contains("asyncq: there are more jobs; `--before 2296` shows the next"), "{seen}");
    let seen = place.on_terminal(100, "asyncq job list --before 51");
    assert!(seen.contains("\n1 ") && !seen.contains("more jobs"), "{seen}");
}

#[test]
fn many_jobs_are_retried_cancelled_and_started_at_once() {
    let place = place();
    place.stdout(
        "for i in $(seq 60); do asyncq enqueue events fail; done; asyncq enqueue events say 1; asyncq enqueue mail say 2",
    );
    place.run("asyncq process");
    place.session(
        "
        $ asyncq job retry --state error --dry-run
        ! asyncq: would queue 60 jobs again
        $ asyncq job list --state error --json | grep -c id
        60
        $ asyncq job retry --all --service mail
        ! asyncq: queued 0 jobs again
        $ asyncq job retry --state error --service events --function fail --older-than 1h
        ! asyncq: queued 0 jobs again
        $ asyncq job retry --state error --service events --function fail
        ! asyncq: queued 60 jobs again
        $ asyncq job list --state error
        $ asyncq job cancel --state queued --function fail --dry-run
        ! asyncq: would cancel 60 jobs
        $ asyncq job cancel --function fail
        ! asyncq: cancelled 60 jobs
        $ asyncq job retry --all
        ! asyncq: queued 0 jobs again
        $ asyncq enqueue mail say 3 --hold --principal bob; asyncq enqueue mail say 4 --hold
        63
        64
        $ asyncq job start --principal bob
        ! asyncq: released 1 job
        $ asyncq job start --principal '' --dry-run
        ! asyncq: would release 1 job
        $ asyncq job start --all
        ! asyncq: released 1 job
        $ asyncq job clean --service events --state cancelled --dry-run
        ! asyncq: would remove 60 jobs
        $ asyncq -v job clean --service events --state cancelled
        ! asyncq: removed 60 jobs
        $ asyncq job list --state queued --state completed
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        64  mail     say       [4]        -          queued     [..]
        63  mail     say       [3]        bob        queued     [..]
        62  mail     say       [2]        -          completed  [..]
        61  events   say       [1]        -          completed  [..]
        ",
    );
}

#[test]
fn jobs_to_change_are_named_in_one_way_only() {
    let place = place();
    place.session(
        "
        $ asyncq job retry
        ! error: `asyncq job retry` needs to know which jobs
        ! hint: give the numbers of jobs, or options such as `--state` and `--service`; `--all` means all
        ? 2
        $ asyncq job retry 1 --all
        ! error: `ID` cannot be used with `--all`
        ! hint: `asyncq job retry --help` shows how
        ? 2
        $ asyncq job cancel 1 --dry-run
        ! error: `ID` cannot be used with `--dry-run`
        ! hint: `asyncq job cancel --help` shows how
        ? 2
        $ asyncq job start --state error
        ! error: `--state` cannot be `error`: it must be `held`
        ! hint: `asyncq job start --help` shows how
        ? 2
        $ asyncq job retry --function sya
        ! error: no service has a function `sya`
        ! hint: did you mean `say`? `asyncq function list` shows all
        ? 66
        ",
    );
}

#[test]
fn services_are_chosen_by_names_and_patterns() {
    let place = Place::new();
    place.program(
        "list",
        "#!/bin/sh\nasyncq job list --json \"$@\" | grep -o '\"id\":[0-9]*' | cut -d: -f2 | tr '\\n' ' '; echo\n",
    );
    place.session(
        "
        $ for it in site-a site-b mail gone; do asyncq -q service add $it; asyncq function add $it say -- echo; asyncq enqueue $it say; done
        1
        2
        3
        4
        $ asyncq job cancel 4; asyncq service remove gone
        $ ./list --service 'site-*'; ./list --service site-a --service mail; ./list --service 'site-*' --except '*-a'
        2 1[..]
        3 1[..]
        2[..]
        $ ./list --except 'site-*'; ./list --service gone; ./list --except gone --except mail; ./list --service '*'
        4 3[..]
        4[..]
        2 1[..]
        3 2 1[..]
        $ asyncq job list --service 'x*'
        ! asyncq: no service matches
        $ asyncq job list --service 'x*' --json
        [
        ]
        ! asyncq: no service matches
        $ asyncq job list --service maill
        ! error: there is no service `maill`
        ! hint: did you mean `mail`? `asyncq service list` shows all
        ? 66
        $ asyncq job list --except maill
        ! error: there is no service `maill`
        ! hint: did you mean `mail`? `asyncq service list` shows all
        ? 66
        $ asyncq job list --service 'site-*' --function sya
        ! error: no service has a function `sya`
        ! hint: did you mean `say`? `asyncq function list` shows all
        ? 66
        $ asyncq job list --service '***'
        ! error: `--service` cannot be `***`: `***` is not a pattern: wildcards are either regular `*` or recursive `**`
        ! hint: `*` stands for any text, `?` for one character, and `[a-c]` for one of these
        ? 2
        $ asyncq job cancel --service 'site-*' --except site-b; asyncq job clean --service 'x*'
        ! asyncq: cancelled 1 job
        ! asyncq: no service matches
        $ asyncq -v job clean --except gone
        ! asyncq: removed 1 job
        ",
    );
}

#[test]
fn of_many_jobs_those_that_run_are_ended_and_those_that_nothing_could_run_stay() {
    let place = place();
    place.function("sleep", "", "echo > running; exec sleep 600");
    place.stdout("asyncq enqueue events sleep; asyncq enqueue events sleep; asyncq enqueue mail say 1");
    let process = place.start("asyncq process events");
    wait_until("it runs", || place.at("running").exists());
    place.session("$ asyncq job cancel --service events\n! asyncq: cancelled 2 jobs");
    process.wait();
    place.session(
        "
        $ asyncq job cancel 3 && asyncq service remove mail
        $ asyncq job retry --state cancelled --dry-run
        ! asyncq: would queue 2 jobs again
        ! asyncq: 1 job stays as it is, because its function was removed
        $ asyncq job retry --state cancelled
        ! asyncq: queued 2 jobs again
        ! asyncq: 1 job stays as it is, because its function was removed
        ",
    );
}

#[test]
fn an_enqueue_gets_in_between_the_steps_of_a_retry() {
    let place = place();
    place.enqueue_many("say", 4500);
    place.stdout("asyncq job cancel --all");
    let retry = place.start("env ASYNCQ_FAILPOINT='transaction committed:2=stop' asyncq job retry --state cancelled");
    let process = retry.0.id();
    wait_until("it has made two steps", || is_stopped(process));
    place.session("$ asyncq enqueue events say now\n4501");
    assert_eq!(place.count("--state cancelled"), 500);
    place.stdout(&format!("kill -CONT {process}"));
    let output = retry.wait();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "asyncq: queued 4500 jobs again\n");
}

#[test]
fn cleaning_removes_ended_jobs() {
    let place = place();
    place.stdout("asyncq enqueue events say 1; asyncq enqueue events fail; asyncq enqueue events say 2");
    place.run("asyncq job cancel 3; asyncq process; asyncq enqueue events say 4; asyncq enqueue events say 5 --hold");
    place.session(
        "
        $ asyncq --verbose job clean --older-than 1h
        ! asyncq: removed 0 jobs
        $ asyncq --verbose job clean --state error
        ! asyncq: removed 1 job
        $ asyncq job clean --state queued
        ! error: `--state` cannot be `queued`: it must be `completed`, `error` or `cancelled`
        ! hint: `asyncq job clean --help` shows how
        ? 2
        $ asyncq -q job clean
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE   WHEN
        5   events   say       [5]        -          held    [..]
        4   events   say       [4]        -          queued  [..]
        $ asyncq job show 1
        ! error: there is no job 1
        ! hint: the newest is 5; `asyncq job list` shows which there are
        ? 66
        ",
    );
    // Numbers are never used again.
    place.session("$ asyncq job cancel 4 5; asyncq -q job clean; asyncq enqueue events say 6\n6");
}

#[test]
fn an_enqueue_gets_in_between_the_steps_of_cleaning() {
    let place = place();
    place.enqueue_many("say", 4500);
    place.stdout("asyncq job cancel --all");
    // Between the second step and the third.
    let clean = place.start("env ASYNCQ_FAILPOINT='transaction committed:2=stop' asyncq --verbose job clean");
    let process = clean.0.id();
    wait_until("it has made two steps", || is_stopped(process));
    place.session("$ asyncq enqueue events say now\n4501");
    assert_eq!(place.jobs("id"), (4001..=4501).map(|id| id.to_string()).collect::<Vec<_>>().join(", "));
    place.stdout(&format!("kill -CONT {process}"));
    let output = clean.wait();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "asyncq: removed 4500 jobs\n");
    assert_eq!(place.jobs("id"), "4501");
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
    let table = place.on_terminal(60, "asyncq --color never job list");
    assert!(table.contains("…") && !table.contains('\x1b'), "{table}");
    for line in table.lines() {
        assert!(line.trim_end().chars().count() <= 60, "{line}");
    }
    let coloured = place.on_terminal(60, "asyncq job list");
    assert!(coloured.contains("\x1b[32mcompleted\x1b[0m") && !coloured.contains("\x1b[2J"), "{coloured:?}");
    assert_eq!(place.on_terminal(60, "asyncq job log 2"), "red \\u{1b}[31m bell \\u{7} text\r\n");
    assert_eq!(place.on_terminal(60, "asyncq job log 2 --raw"), "red \x1b[31m bell \x07 text\r\n");
    let shown = place.on_terminal(60, "asyncq --color never job show 1");
    assert!(!shown.contains('\x1b') && shown.contains("esc \\u001b[2J"), "{shown}");
    assert!(!place.on_terminal(60, "asyncq --color never job show 1 --json").contains('\x1b'));
}

#[test]
fn a_long_list_is_one_table_and_one_array() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    let call = format!("{{\"service\":\"events\",\"function\":\"hello\",\"args\":[\"{}\"]}}\n", "0".repeat(1000));
    place.write("calls", &call.repeat(2500));
    place.stdout("asyncq enqueue --batch calls");
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
fn mistyped_names_are_reported_and_removed_ones_listed() {
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

#[test]
fn the_log_of_a_job_that_has_not_ended_says_so() {
    let place = Place::with_functions(&[(
        "meets",
        "echo attempt $ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT != 1 ] || exit 75; touch begun; until [ -e go ]; do sleep 0.01; done",
    )]);
    place.session(
        "
        $ asyncq enqueue events meets --hold; asyncq job log 1
        1
        ! error: job 1 has no log yet: it is held
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq job start 1; asyncq job log 1
        ! error: job 1 has no log yet: it is queued
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq process; asyncq job log 1
        attempt 1
        attempt 1
        ! error: that was attempt 1; job 1 has not ended: it is delayed
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq job log 1 --attempt 1
        attempt 1
        $ asyncq job log 1 --attempt 2
        ! error: job 1 has no attempt 2
        ! hint: `asyncq job show 1` shows all
        ? 66
        ",
    );
    let process = place.start("asyncq process --wait-retries");
    wait_until("the second attempt runs", || place.at("begun").exists());
    place.session(
        "
        $ asyncq job log 1
        ! error: attempt 2 of job 1 has no log yet: it is still running
        ! hint: `asyncq job log 1 --attempt 1` prints the log of the previous attempt
        ? 75
        $ asyncq job log 1 --attempt 2
        ! error: attempt 2 of job 1 has no log yet: it is still running
        ! hint: `asyncq job log 1 --attempt 1` prints the log of the previous attempt
        ? 75
        $ asyncq job log 1 --attempt 1
        attempt 1
        ",
    );
    place.write("go", "");
    assert!(process.wait().status.success());
    place.session(
        "
        $ asyncq job log 1
        attempt 2
        $ rm go begun; asyncq enqueue events meets; asyncq job cancel 2; asyncq -v job log 2
        2
        ! asyncq: job 2 was cancelled before it began
        ",
    );
    place.stdout("asyncq service set events --concurrency 2");
    place.function("once", "", "touch begun; until [ -e go ]; do sleep 0.01; done; printf 'no line end'");
    place.stdout("asyncq enqueue events once");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("begun").exists());
    place.session(
        "
        $ asyncq job log 3
        ! error: job 3 has no log yet: it is processing
        ! hint: try again when it has ended
        ? 75
        ",
    );
    place.write("go", "");
    assert!(process.wait().status.success());
    place.session("$ asyncq job log 3\nno line end");
}

#[test]
fn a_job_that_waits_says_why_in_one_line() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.session(
        r"
        $ asyncq enqueue --hold events mail; asyncq job show 1 | grep '^why'
        1
        why        held: it is held until somebody starts it: `asyncq job start 1`
        $ asyncq job start 1; asyncq job show 1 | grep '^why'
        why        no-processor: no processor is at work on service `events`: `asyncq process events`
        $ asyncq process; asyncq job show 1 | grep -c '^why'
        0
        ? 1
        ",
    );
}

#[test]
fn json_that_readers_may_not_take_is_shown_as_a_string() {
    let place = place();
    let deep = [64, 65, 999].map(|depth| "[".repeat(depth) + &"]".repeat(depth));
    for args in deep.iter().map(String::as_str).chain([r#"["\ud83d"]"#, r#"[{"a": 1, "a": 2}]"#]) {
        place.insert("function, args", &format!("'say', '{args}'"));
    }
    let read = "import json, sys; print([type(job['args']).__name__ for job in json.load(sys.stdin)])";
    place.write("read.py", read);
    place.session("$ asyncq job list --json | python3 read.py\n['str', 'str', 'str', 'str', 'list']");
    let shown = place.stdout("asyncq job show 3 --json");
    assert!(shown.contains("\"args\":\"[[[["), "{shown}");
}

#[test]
fn a_narrow_terminal_leaves_out_columns_and_never_cuts_number_and_state() {
    let place =
        Place::with_functions(&[("heavy_computing", "sleep 0.01"), ("fail", r#"echo '{"message":"x"}'; exit 3"#)]);
    place.stdout("asyncq enqueue events heavy_computing 'a text that is long enough to be cut' 2 7");
    place.run("asyncq enqueue events fail x; asyncq process");
    let seen = |columns, line: &str| {
        let seen = place.on_terminal(columns, &format!("asyncq --color never {line}")).replace("\r\n", "\n");
        for line in seen.lines() {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
        let head: Vec<String> = seen.lines().next().unwrap().split_whitespace().map(str::to_owned).collect();
        (head.join(" "), seen)
    };
    for (columns, head) in [
        (200, "ID SERVICE FUNCTION ARGUMENTS PRINCIPAL STATE WHEN"),
        (80, "ID SERVICE FUNCTION ARGUMENTS STATE WHEN"),
        (60, "ID SERVICE FUNCTION ARGUMENTS STATE WHEN"),
        (40, "ID FUNCTION STATE WHEN"),
        (20, "ID STATE"),
    ] {
        let (names, seen) = seen(columns, "job list");
        assert_eq!(names, head, "{columns}");
        assert!(seen.contains("completed") && seen.contains("error") && seen.contains("\n2 "), "{seen}");
        assert_eq!([60, 80].contains(&columns), seen.contains('…'), "{seen}");
    }
    for (columns, head) in [
        (200, "ID SERVICE FUNCTION ARGUMENTS PRINCIPAL STATE WHEN TOOK EXIT ERROR"),
        (80, "ID SERVICE FUNCTION ARGUMENTS STATE WHEN TOOK EXIT ERROR"),
        (66, "ID SERVICE FUNCTION STATE WHEN TOOK EXIT ERROR"),
        (40, "ID FUNCTION STATE EXIT ERROR"),
        (20, "ID FUNCTION STATE"),
    ] {
        assert_eq!(seen(columns, "job list --state error").0, head, "{columns}");
    }
    assert_eq!(seen(40, "function list").0, "SERVICE FUNCTION PROGRAM");
    assert_eq!(seen(30, "function list").0, "SERVICE FUNCTION");
    assert_eq!(seen(20, "service list").0, "SERVICE STATE");
}

#[test]
fn a_narrow_terminal_leaves_out_empty_columns_then_cuts_text_then_leaves_out_columns() {
    let place = Place::new();
    place.stdout("asyncq -q service add events; asyncq -q service add mails");
    place.stdout("asyncq function add events say --site / -- echo 'a list of words that is long'");
    place.stdout("asyncq function add mails write --site /tmp -- echo 日本語日本語日本語日本語");
    for (columns, table) in [
        (
            87,
            "\
SERVICE  FUNCTION  RUNS     PROGRAM                                       SITE  TIMEOUT
events   say       command  /usr/bin/echo 'a list of words that is long'  /     -
mails    write     command  /usr/bin/echo '日本語日本語日本語日本語'      /tmp  -
",
        ),
        (
            86,
            "\
SERVICE  FUNCTION  RUNS     PROGRAM                                       SITE
events   say       command  /usr/bin/echo 'a list of words that is long'  /
mails    write     command  /usr/bin/echo '日本語日本語日本語日本語'      /tmp
",
        ),
        (
            77,
            "\
SERVICE  FUNCTION  RUNS     PROGRAM                                      SITE
events   say       command  /usr/bin/echo 'a list of words that is lon…  /
mails    write     command  /usr/bin/echo '日本語日本語日本語日本語'     /tmp
",
        ),
        (
            61,
            "\
SERVICE  FUNCTION  RUNS     PROGRAM                      SITE
events   say       command  /usr/bin/echo 'a list of w…  /
mails    write     command  /usr/bin/echo '日本語日本…   /tmp
",
        ),
        (
            40,
            "\
SERVICE  FUNCTION  PROGRAM          SITE
events   say       /usr/bin/echo …  /
mails    write     /usr/bin/echo …  /tmp
",
        ),
        (
            30,
            "\
SERVICE  FUNCTION
events   say
mails    write
",
        ),
        (
            5,
            "\
FUNCTION
say
write
",
        ),
    ] {
        let seen = place.on_terminal(columns, "asyncq function list").replace("\r\n", "\n");
        assert_eq!(seen, table, "{columns}");
    }
}

/// A long list is printed in parts, of which the later ones may need less room.
#[test]
fn all_parts_of_a_long_table_have_the_same_columns() {
    let place = Place::with_functions(&[("f", ""), ("function", "")]);
    place.stdout("asyncq enqueue events f");
    place.enqueue_many("function", 1000);
    let seen = place.on_terminal(40, "asyncq --color never job list --limit 0");
    let mut lines = seen.lines();
    let column = lines.next().unwrap().find("STATE").unwrap();
    assert_eq!(lines.clone().count(), 1001, "{seen}");
    assert!(lines.all(|line| line.find("queued") == Some(column)), "{seen}");
}

#[test]
fn times_are_local_on_a_terminal_and_utc_elsewhere() {
    let mut place = place();
    place.set("TZ", "XYZ-05:30");
    place.stdout("asyncq enqueue events say 1 && asyncq process");
    let created = place.job(1)["created_at"].as_str().unwrap().to_owned();
    let shown = |zone| place.stdout(&format!("TZ={zone} date -d {created} '+%Y-%m-%d %H:%M'")).trim().to_owned();
    let (utc, local) = (shown("UTC"), shown("XYZ-05:30"));
    for line in ["asyncq job show 1", "asyncq job show 1 --json", "asyncq job list --json"] {
        let utc = utc.replace(' ', "T");
        assert!(place.stdout(line).contains(&utc), "{line}");
        let json = line.ends_with("--json");
        let seen = place.on_terminal(200, line);
        assert_eq!((seen.contains(&utc), seen.contains(&local)), (json, !json), "{seen}");
    }
    let seen = place.on_terminal(200, "asyncq job show 1");
    assert_eq!(seen.matches(" XYZ").count(), 4, "{seen}");
    for line in ["asyncq service show events", "asyncq function show events say"] {
        assert!(place.on_terminal(200, line).contains(" XYZ"), "{line}");
    }
}

#[test]
fn a_broken_store_is_reported_once_and_not_for_each_job() {
    let place = place();
    place.stdout("for i in 1 2 3; do asyncq enqueue events say $i; done");
    place.session(
        "
        $ ulimit -f 1; asyncq job cancel 1 2 3
        ! error: no space left for the store `[..]/queue.db`: its files have the size that files may have
        ! hint: nothing was changed; `ulimit -f` shows the limit, in blocks
        ? 74
        $ asyncq job cancel 8 9
        ! error: there is no job 8
        ! hint: the newest is 3; `asyncq job list` shows which there are
        ! error: there is no job 9
        ! hint: the newest is 3; `asyncq job list` shows which there are
        ? 66
        ",
    );
}
