//! Services on the command line.

use crate::place::{Place, wait_until};

#[test]
fn adding_listing_showing_changing() {
    Place::new().session(
        r#"
        $ asyncq -q service add events
        $ asyncq service add mail --concurrency 4
        $ asyncq service list
        SERVICE  CONCURRENCY  STATE
        events   1            active
        mail     4            active
        $ asyncq service set events --concurrency 2
        $ asyncq service pause mail
        $ asyncq service show events
        service      events
        concurrency  2
        lane width   1
        state        active
        created      20[..]Z  now
        $ asyncq service list --json
        [{"name":"events","concurrency":2,"paused":false,"paused_why":null,"lane_width":1,"rate":null,"burst":null,"keep":null,"keep_errors":null,"on_error":null,"on_success":null,"created_at":"20[..]Z"},{"name":"mail","concurrency":4,"paused":true,"paused_why":null,"lane_width":1,"rate":null,"burst":null,"keep":null,"keep_errors":null,"on_error":null,"on_success":null,"created_at":"20[..]Z"}]
        $ asyncq service show mail --json
        {"name":"mail","concurrency":4,"paused":true,"paused_why":null,"lane_width":1,"rate":null,"burst":null,"keep":null,"keep_errors":null,"on_error":null,"on_success":null,"created_at":"20[..]Z"}
        $ asyncq service resume mail
        $ asyncq service remove mail
        $ asyncq service list
        SERVICE  CONCURRENCY  STATE
        events   2            active
        "#,
    );
}

#[test]
fn adding_twice() {
    Place::new().session(
        "
        $ asyncq -v service add events --concurrency 2
        ! asyncq: created the store `[..]/.local/share/asyncq/queue.db`
        ! asyncq: added service `events`
        $ asyncq -v service add events --concurrency 2
        ! asyncq: service `events` already exists
        $ asyncq service add events --concurrency 3
        ! error: service `events` exists with concurrency 2
        ! hint: `asyncq service set events --concurrency 3` changes it
        ? 77
        $ asyncq -v service add events
        ! asyncq: service `events` already exists
        $ asyncq service show events --json
        {\"name\":\"events\",\"concurrency\":2,[..]
        ",
    );
}

#[test]
fn a_paused_service_accepts_calls_and_runs_none() {
    Place::with_functions(&[("hello", "echo hello")]).session(
        "
        $ asyncq service pause events
        $ asyncq enqueue events hello
        1
        $ asyncq process
        $ asyncq process events
        $ asyncq --verbose process
        ! asyncq: service `events` is paused; `asyncq service resume events` lets its calls run
        ! asyncq: 0 attempts; 0 jobs ended in an error
        $ asyncq service resume events
        $ asyncq process
        hello
        ",
    );
}

#[test]
fn a_person_at_a_terminal_hears_that_calls_wait_for_the_end_of_a_pause() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    let told = "asyncq: service `events` is paused; `asyncq service resume events` lets its calls run\n";
    place.stdout("asyncq service pause events");
    assert_eq!(place.terminal("asyncq process; asyncq process events"), "");
    assert_eq!(place.terminal("asyncq enqueue events hello"), format!("1\n{told}"));
    assert_eq!(place.terminal("asyncq enqueue events hello --hold"), "2\n");
    let listed = place.terminal("asyncq job list");
    assert!(listed.starts_with("ID") && listed.ends_with(&format!("\n{told}")), "{listed}");
    assert!(!place.terminal("asyncq job list --state held").contains("paused"));
    assert_eq!(place.terminal("asyncq process; asyncq process events"), told.repeat(2));
    assert_eq!(place.terminal("asyncq -q enqueue events hello; asyncq -q process"), "3\n");
    // A script has said what it wants.
    place.session("$ asyncq enqueue events hello\n4");
    place.stdout("asyncq service resume events");
    let shown = place.terminal("asyncq process");
    assert_eq!(shown.lines().filter(|line| *line == "hello").count(), 3, "{shown}");
    assert!(!shown.contains("paused"), "{shown}");
}

#[test]
fn a_processor_that_follows_tells_each_pause_once() {
    let place = Place::with_functions(&[("hello", "echo $1")]);
    place.stdout("asyncq service add another && asyncq function add another hello -- ./hello");
    let process = place.start("asyncq --verbose process --follow");
    let run = |jobs| wait_until("they have run", || place.count("--state completed") == jobs);
    for before in [0, 4] {
        place.stdout("asyncq service pause events");
        for more in 1..=2 {
            place.stdout("asyncq enqueue events hello && asyncq enqueue another hello");
            run(before + more);
        }
        place.stdout("asyncq service resume events");
        run(before + 4);
    }
    process.signal("TERM");
    let output = process.wait();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("service `events` is paused").count(), 2, "{told}");
}

#[test]
fn removing_asks_before_it_cancels() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ asyncq enqueue events hello
        1
        $ asyncq enqueue events hello --hold
        2
        $ asyncq service remove events
        ! error: service `events` has 2 waiting jobs
        ! hint: `--force` removes it and cancels them
        ? 77
        $ asyncq function remove events hello
        ! error: function `hello` of service `events` has 2 waiting jobs
        ! hint: `--force` removes it and cancels them
        ? 77
        $ asyncq service remove events --force
        ! asyncq: cancelled 2 waiting jobs: 1, 2
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        2   events   hello     []         -          cancelled  [..]
        1   events   hello     []         -          cancelled  [..]
        $ asyncq function list
        ",
    );
}

#[test]
fn a_service_with_a_running_job_stays() {
    let place = Place::with_functions(&[("long", "touch began; until [ -e go ]; do sleep 0.01; done")]);
    place.session(
        "
        $ asyncq enqueue events long
        1
        $ asyncq process & until [ -e began ]; do sleep 0.01; done; asyncq service remove events --force; echo $?; touch go; wait
        75
        ! error: service `events` has 1 running job
        ! hint: wait for job 1 to end, or `asyncq job cancel 1`
        $ asyncq service remove events
        ",
    );
}

#[test]
fn many_cancelled_jobs_are_counted() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    for _ in 0..12 {
        place.stdout("asyncq enqueue events hello");
    }
    place.session(
        "
        $ asyncq function remove events hello --force
        ! asyncq: cancelled 12 waiting jobs: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more
        ",
    );
}

#[test]
fn numbers_are_explained() {
    Place::new().session(
        "
        $ asyncq service add events --concurrency 0
        ! error: `--concurrency` cannot be `0`: it is a whole number from 1 to 4294967295
        ! hint: `asyncq service add --help` shows how
        ? 2
        $ asyncq service add events --concurrency -1
        ! error: `--concurrency` cannot be `-1`: it is a whole number from 1 to 4294967295
        ! hint: `asyncq service add --help` shows how
        ? 2
        $ asyncq service add events --lane-width 1001
        ! error: `--lane-width` cannot be `1001`: it is a whole number from 1 to 1000
        ! hint: `asyncq service add --help` shows how
        ? 2
        $ asyncq service set events --lane-width 0
        ! error: `--lane-width` cannot be `0`: it is a whole number from 1 to 1000
        ! hint: `asyncq service set --help` shows how
        ? 2
        $ asyncq job show 9223372036854775808
        ! error: `ID` cannot be `9223372036854775808`: it is too large: the number of a job is at most 9223372036854775807
        ! hint: `asyncq job show --help` shows how
        ? 2
        $ asyncq job log 1 --attempt 99999999999999999999999
        ! error: `--attempt` cannot be `99999999999999999999999`: it is too large: the number of an attempt is at most 9223372036854775807
        ! hint: `asyncq job log --help` shows how
        ? 2
        $ asyncq process --max-jobs 99999999999999999999999
        ! error: `--max-jobs` cannot be `99999999999999999999999`: it is too large: a number of calls is at most 9223372036854775807
        ! hint: `asyncq process --help` shows how
        ? 2
        $ asyncq job show abc
        ! error: `ID` cannot be `abc`: the number of a job is a whole number from 1
        ! hint: `asyncq job show --help` shows how
        ? 2
        $ asyncq function add events f --timeout 9999999d -- true
        ! error: `--timeout` cannot be `9999999d`: it is too long
        ! hint: the longest span is a hundred years, `36600d`
        ? 2
        ",
    );
}

#[test]
fn a_call_without_a_command_lists_the_commands() {
    let place = Place::new();
    for (line, commands) in [
        ("asyncq", ["init ", "enqueue ", "is-async "]),
        ("asyncq -v", ["init ", "enqueue ", "is-async "]),
        ("asyncq job", ["list ", "retry ", "clean "]),
        ("asyncq --db queue.db job", ["list ", "retry ", "clean "]),
        ("asyncq service", ["add ", "pause ", "remove "]),
        ("asyncq function -q", ["add ", "set ", "remove "]),
    ] {
        let output = place.run(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{line}: {said}");
        let words: Vec<&str> =
            line.split(' ').filter(|word| ["asyncq", "job", "service", "function"].contains(word)).collect();
        assert!(said.contains(&format!("Usage: {} [OPTIONS] <COMMAND>", words.join(" "))), "{line}: {said}");
        assert!(commands.iter().all(|command| said.contains(&format!("\n  {command}"))), "{line}: {said}");
        assert!(!said.starts_with("error"), "{line}: {said}");
    }
}
