//! `asyncq status`.

use crate::place::{Place, wait_until};

const WAITS: (&str, &str) = ("waits", "touch begun.$ASYNCQ_JOB; until [ -e go ]; do sleep 0.01; done");

#[test]
fn one_table_shows_how_things_stand() {
    let place = Place::with_functions(&[WAITS, ("fail", "exit 1"), ("mail", "true")]);
    place.session(
        r"
        $ asyncq status | tr -s ' '
        SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT
        events 0/1 0 0 0 0 0 - -

        processors: none schedules: 0 store: [..] kB
        ",
    );
    place.run("asyncq enqueue events fail; asyncq process");
    place.stdout("asyncq service set events --concurrency 2; asyncq service add other; asyncq service pause other");
    place.stdout("for n in 1 2 3; do asyncq enqueue events waits; done");
    place.stdout(
        "asyncq enqueue --hold events mail; asyncq enqueue --in 2h events mail; asyncq enqueue --after 2 events mail",
    );
    place.stdout("asyncq schedule add nightly --cron '30 2 * * *' --tz UTC events mail; asyncq schedule pause nightly");
    let process = place.start("asyncq process");
    wait_until("two run", || place.at("begun.2").exists() && place.at("begun.3").exists());
    place.session(
        r#"
        $ asyncq status | tr -s ' '
        SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT
        events 2/2 1 1 1 1 1 [..] in 1h
        other 0/1 0 0 0 0 0 - paused

        processors: 1 (processor 2 (process [..] on [..]), for [..]) schedules: 1, 1 paused store: [..] kB
        $ asyncq status 'o*' | tr -s ' ' | head -n 2
        SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT
        other 0/1 0 0 0 0 0 - paused
        $ asyncq status events --json
        {"at":"[..]","paused":false,"paused_why":null,"services":[{"name":"events","concurrency":2,"paused":false,"paused_why":null,"running":2,"queued":1,"blocked":1,"delayed":1,"held":1,"errors":1,"at_least":[],"oldest_due_at":"[..]","next_due_at":"[..]","next_tick_at":null,"next_schedule":null}],"processors":[{"id":2,"pid":[..],"host":"[..]","started_at":"[..]","is_alive":true}],"schedules":1,"schedules_paused":1,"bytes":[..]}
        "#,
    );
    place.write("go", "");
    assert!(process.wait().status.success());
}

#[test]
fn a_check_says_what_somebody_has_to_see_to() {
    let place = Place::with_functions(&[WAITS, ("fail", "exit 1")]);
    let check = |options: &str| {
        let output = place.run(&format!("asyncq status --check {options}"));
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    assert_eq!(check(""), (String::new(), Some(0)));
    place.stdout("asyncq enqueue events waits");
    assert_eq!(check(""), (String::new(), Some(0)));
    let (told, code) = check("--max-age 1ms");
    assert!(told.starts_with("service `events` has a call that has waited for ") && code == Some(1), "{told}");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("begun.1").exists());
    assert_eq!(check("--max-age 1ms"), (String::new(), Some(0)));
    place.stdout(&format!("kill -9 {} {}", process.engine(), process.0.id()));
    wait_until("its death is seen", || check("").1 == Some(1));
    let (told, _) = check("");
    assert!(
        told.starts_with("processor 1 (process ")
            && told.ends_with("died, and its calls wait for the next `asyncq process`\n")
    );
    place.write("go", "");
    place.stdout("asyncq -q process");
    assert_eq!(check(""), (String::new(), Some(0)));
    place.stdout("asyncq enqueue events fail");
    place.run("asyncq process");
    assert_eq!(check("--max-errors 1"), (String::new(), Some(0)));
    let told = "service `events` has 1 job in `error`; `asyncq job list --state error --service events` shows them\n";
    assert_eq!(check("--max-errors 0"), (told.to_owned(), Some(1)));
    place.stdout("asyncq service pause events");
    let told = "service `events` is paused; `asyncq service resume events` ends the pause\n";
    assert_eq!(check(""), (told.to_owned(), Some(1)));
    place.stdout("asyncq service resume events; rm fail");
    let (told, code) = check("");
    assert!(
        told.starts_with("function `fail` of service `events` cannot run: its program `/") && code == Some(1),
        "{told}"
    );
    place.stdout("asyncq function remove events fail");
    place.stdout("asyncq schedule add often --every 1m events waits");
    place.let_ticks_pass("often", 3);
    let (told, code) = check("");
    assert!(told.starts_with("schedule `often` should have made a call ") && code == Some(1), "{told}");
    place.stdout("asyncq -q process");
    assert_eq!(check(""), (String::new(), Some(0)));
}

#[test]
fn a_status_that_is_watched_is_shown_again_when_the_store_changes() {
    let place = Place::with_functions(&[("mail", "true")]);
    let watch = place.start("asyncq status --watch --json > seen");
    wait_until("it is shown", || place.read("seen").lines().count() == 1);
    place.stdout("asyncq enqueue events mail");
    wait_until("the call is shown", || place.read("seen").lines().any(|line| line.contains("\"queued\":1")));
    watch.signal("TERM");
    watch.wait();
    let seen = place.on_terminal(60, "timeout 1 asyncq status --watch");
    assert!(seen.contains("SERVICE") && seen.contains("\u{1b}[2J"), "{seen:?}");
}

#[test]
fn a_narrow_terminal_leaves_out_what_matters_least() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail");
    for (columns, head) in [
        (160, "SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT"),
        (80, "SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT"),
        (60, "SERVICE RUNNING QUEUED BLOCKED DELAYED ERRORS OLDEST"),
        (30, "SERVICE RUNNING QUEUED"),
    ] {
        let seen = place.on_terminal(columns, "asyncq --color never status");
        let names: Vec<&str> = seen.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(names.join(" "), head, "{columns}");
    }
}

#[test]
fn bad_input() {
    Place::with_functions(&[("mail", "true")]).session(
        "
        $ asyncq status evnts
        ! error: there is no service `evnts`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq status 'x*'
        processors: none   schedules: 0   store: [..]
        ! asyncq: no service matches
        $ asyncq status '['
        ! error: `SERVICE|PATTERN` cannot be `[`: `[` is not a pattern: invalid range pattern
        ! hint: `*` stands for any text, `?` for one character, and `[a-c]` for one of these
        ? 2
        $ asyncq status --max-age 1h
        ! error: `--max-age` needs `--check`
        ! hint: `asyncq status --help` shows how
        ? 2
        $ asyncq status --watch
        ! error: `--watch` needs a terminal
        ! hint: `--watch --json` prints a line of JSON for each change
        ? 2
        $ asyncq --db none.db status 2>&1 | head -n 1
        error: there is no store at `[..]/none.db`
        ",
    );
}
