//! Manifests: `asyncq apply` and `asyncq export`.

use std::fs;

use crate::place::{Place, lock, wait_until};

/// A place with a program `send` and this manifest, `deploy.toml`.
fn with(manifest: &str) -> Place {
    let place = Place::new();
    place.program("send", "#!/bin/sh\necho \"$@\"\n");
    place.write("deploy.toml", manifest);
    place
}

const MAILS: &str = r#"
[service.mails]
concurrency = 2
rate = "10/s"

[function."mails/send"]
command = ["./send", "--"]
timeout = "30s"
retries = 5
no_retry_on = [64, 65, "timeout"]
env = { LANG = "C.UTF-8", HOME = true }
on_error = "alerts/page"

[schedule.report]
call = "mails/send"
args = [42, "all", 1.50, { b = 1, a = [true] }]
cron = "30 4 * * 1"
tz = "Europe/Berlin"
from = 2036-12-01T09:00:00

[service.alerts]

[function."alerts/page"]
command = ["cat"]
"#;

#[test]
fn a_file_is_planned_applied_and_exported() {
    let place = with(MAILS);
    let plan = "
        + service mails
        + service alerts
        + function mails/send
        + function alerts/page
        + schedule report";
    // What a run without a store plans makes none.
    place.session(&format!(
        "
        $ asyncq apply deploy.toml --dry-run{plan}
        ? 1
        $ asyncq service list
        ! error: there is no store at `[..]`
        ! hint: [..]
        ? 69
        $ asyncq apply deploy.toml{plan}
        ! asyncq: created the store `[..]`
        $ asyncq -v apply deploy.toml
        ! asyncq: nothing has to change
        $ asyncq apply deploy.toml --dry-run --prune
        $ asyncq enqueue mails send 1
        1
        $ asyncq process
        -- 1
        "
    ));
    place.session(
        r#"
        $ asyncq export
        [service.alerts]

        [service.mails]
        concurrency = 2
        rate = "10/s"

        [function."alerts/page"]
        command = ["/[..]/cat"]
        site = "/[..]"

        [function."mails/send"]
        command = ["./send", "--"]
        site = "/[..]"
        env = { HOME = true, LANG = true }
        timeout = "30s"
        retries = 5
        no_retry_on = [64, 65, "timeout"]
        on_error = "alerts/page"

        [schedule.report]
        call = "mails/send"
        args = [42, "all", 1.50, { b = 1, a = [true] }]
        cron = "30 4 * * 1"
        tz = "Europe/Berlin"
        from = "2036-12-01T09:00:00+01:00"
        $ asyncq export alerts
        [service.alerts]

        [function."alerts/page"]
        command = ["/[..]/cat"]
        site = "/[..]"
        $ asyncq export --env 'm*' | grep env
        env = { HOME = "/[..]", LANG = "C.UTF-8" }
        $ asyncq export nobody
        ! error: there is no service `nobody`
        ! hint: `asyncq service list` shows all
        ? 66
        $ asyncq export 'x*'
        ! asyncq: no service matches
        $ asyncq export --env | asyncq apply - --dry-run --prune
        $ asyncq export --env | asyncq --db other.db apply -
        + service alerts
        + service mails
        + function alerts/page
        + function mails/send
        + schedule report
        ! asyncq: created the store `[..]/other.db`
        $ asyncq export --env > one; asyncq --db other.db export --env | cmp - one
        "#,
    );
}

#[test]
fn every_option_of_the_commands_has_a_key() {
    let place = with("");
    place.session(
        r#"
        $ asyncq -q service add a --concurrency 3 --lane-width 2 --rate 5/10m --burst 4 --keep 30d --keep-errors 90d
        $ asyncq service add b
        $ asyncq function add b ends -- cat
        $ asyncq service set a --on-error b/ends --on-success b/ends
        $ asyncq service pause b --why 'new release'
        $ asyncq function add a f --site / --env N=1 --args stdin --timeout 90s --lane '{principal}' --retries 2 --backoff 1m,10m --retry-on 1,64-78,timeout --no-retry-on 75 --conflicts 9 --on-error b/ends --on-success b/ends -- sh -c 'cat; "'
        $ asyncq function add a w --worker --calls-per-worker 10 --idle 5m --memory-growth 500M -- cat
        $ asyncq function add a n --local --stdin none -- cat
        $ asyncq function add a t --takes 'to subject:text [--html:bool] [--pass]' --secret pass --secret 2 --env-file 'my secrets.env' --merge -- cat 2> said
        $ asyncq function set a n --backoff 1m --retries 1
        $ asyncq function set a n --retries 0
        $ asyncq schedule add s --every 1h30m --missed all --within 2h --from '2036-01-01 9:00' --until 2036-01-02T00:00:00Z --priority -5 --lane l --expires 1h --meta tenant=acme --principal zoe --description 'what it is for' -k 'n m=[1,null]' a f 'null' '[{"x":1e3}]'
        $ asyncq schedule add t --cron '0 9 * * mon-fri' --tz UTC --overlap queue -k k=1 a n
        $ asyncq schedule pause t
        $ asyncq export | tee first
        [service.a]
        concurrency = 3
        lane_width = 2
        rate = "5/10m"
        burst = 4
        keep = "30d"
        keep_errors = "90d"
        on_error = "b/ends"
        on_success = "b/ends"

        [service.b]
        paused = "new release"

        [function."a/f"]
        command = ["/[..]/sh", "-c", 'cat; "']
        site = "/"
        env = { N = true }
        timeout = "1m30s"
        args = "stdin"
        retries = 2
        backoff = "1m,10m"
        retry_on = [1, "64-78", "timeout"]
        no_retry_on = [75]
        conflicts = 9
        lane = "{principal}"
        on_error = "b/ends"
        on_success = "b/ends"

        [function."a/n"]
        command = ["/[..]/cat"]
        site = "/[..]"
        stdin = "none"
        retries = 0
        backoff = "1m"
        local = true

        [function."a/t"]
        command = ["/[..]/cat"]
        site = "/[..]"
        takes = "to subject:text [--html:bool] [--pass]"
        secret = ["pass", "2"]
        env_file = "my secrets.env"
        merge = true

        [function."a/w"]
        command = ["/[..]/cat"]
        site = "/[..]"
        worker = { calls_per_worker = 10, idle = "5m", memory_growth = "500M" }

        [function."b/ends"]
        command = ["/[..]/cat"]
        site = "/[..]"

        [schedule.s]
        call = "a/f"
        args = '[null,[{"x":1e3}]]'
        kwargs = '{"n m":[1,null]}'
        every = "1h30m"
        missed = "all"
        within = "2h"
        from = "2036-01-01T[..]"
        until = "2036-01-02T00:00:00Z"
        priority = -5
        lane = "l"
        expires = "1h"
        meta = { tenant = "acme" }
        principal = "zoe"
        description = "what it is for"

        [schedule.t]
        call = "a/n"
        kwargs = { k = 1 }
        cron = "0 9 * * mon-fri"
        tz = "UTC"
        overlap = "queue"
        paused = true
        $ N=1 asyncq apply first --dry-run --prune
        $ N=1 asyncq -q --db other.db apply first > /dev/null
        $ asyncq --db other.db export | cmp - first
        $ sed 's/^takes.*/takes = "to"/; s/^secret.*/secret = ["to"]/; s/^env_file.*//; s/^merge.*//' first > second
        $ N=1 asyncq apply second
        ~ function a/t: takes "to subject:text [--html:bool] [--pass]" -> "to", secret ["pass", "2"] -> ["to"], env_file "my secrets.env" -> none, merge true -> false
        $ asyncq enqueue a t one two
        ! error: `a t` takes 1 argument, you gave 2
        ! hint: usage: asyncq enqueue a t to
        ? 2
        "#,
    );
}

#[test]
fn what_a_table_leaves_out_is_at_its_default_and_what_is_paused_stays_so() {
    let place = with(MAILS);
    place.session("$ asyncq -q apply deploy.toml > plan\n$ asyncq service pause mails --why later\n$ asyncq schedule pause report");
    place.write(
        "deploy.toml",
        "[service.mails]\nlane_width = 3\n[function.'mails/send']\ncommand = ['./send']\nenv = { LANG = 'C' }\n\
         [schedule.report]\ncall = 'mails/send'\nevery = '1h'\nkwargs = { n = 1 }",
    );
    place.session(
        r#"
        $ asyncq apply deploy.toml
        ~ service mails: concurrency 2 -> 1, lane_width 1 -> 3, rate "10/s" -> none
        ~ function mails/send: command ["./send", "--"] -> ["./send"], env changed, timeout "30s" -> none, retries 5 -> 0, no_retry_on [64, 65, "timeout"] -> none, on_error "alerts/page" -> none
        ~ schedule report: args removed, kwargs added, cron "30 4 * * 1" -> none, tz "Europe/Berlin" -> none, every none -> "1h", from "2036-12-01T09:00:00+01:00" -> none
        $ asyncq apply deploy.toml
        $ asyncq export mails | grep paused
        paused = "later"
        paused = true
        $ asyncq schedule show report --json | grep -o '"next_tick":[^,]*'
        "next_tick":null
        $ sed -i 's/lane_width = 3/paused = true/; s/every.*/every = "1h"\npaused = false/' deploy.toml
        $ asyncq apply deploy.toml
        ~ service mails: lane_width 3 -> 1
        ~ schedule report: paused true -> false
        $ asyncq schedule show report --json | grep -o '"next_tick":"20'
        "next_tick":"20
        $ sed -i 's/paused = true/paused = false/' deploy.toml
        $ asyncq apply deploy.toml
        ~ service mails: paused "later" -> false
        $ sed -i 's/paused = false/paused = "for good"/' deploy.toml; asyncq apply deploy.toml
        ! error: `deploy.toml`, line 9, column 10: `paused` has to be true or false
        ! hint: write it as in paused = true
        ? 65
        "#,
    );
}

#[test]
fn pruning_removes_only_what_is_in_services_of_the_file() {
    let place = with(MAILS);
    place.session(
        r"
        $ asyncq -q apply deploy.toml > plan
        $ asyncq function add mails old -- cat
        $ asyncq function add alerts kept -- cat
        $ asyncq -q service add news
        $ asyncq function add news post --on-error mails/old -- cat
        $ asyncq schedule add old --every 1h mails old
        $ asyncq schedule add kept --every 1h alerts kept
        $ asyncq enqueue mails old 1; asyncq enqueue mails old 2
        1
        2
        ",
    );
    let file = MAILS.replace("[service.alerts]", "");
    place.write("deploy.toml", &file);
    place.session(
        r"
        $ asyncq apply deploy.toml
        $ asyncq apply deploy.toml --prune
        ! error: function `mails/old` cannot be removed: it is a hook of function `news/post`
        ! hint: `asyncq function set news post --no-on-error` takes the hook away
        ? 77
        $ asyncq function set news post --no-on-error
        $ asyncq service set news --on-success mails/old
        $ asyncq apply deploy.toml --prune --dry-run
        ! error: function `mails/old` cannot be removed: it is a hook of service `news`
        ! hint: `asyncq service set news --no-on-success` takes the hook away
        ? 77
        $ asyncq service set news --no-on-success
        $ asyncq apply deploy.toml --prune
        ! error: function `old` of service `mails` has 2 waiting jobs
        ! hint: `--force` removes it and cancels them
        ? 77
        $ asyncq apply deploy.toml --prune --dry-run
        ! error: function `old` of service `mails` has 2 waiting jobs
        ! hint: `--force` removes it and cancels them
        ? 77
        $ asyncq apply deploy.toml --prune --force --dry-run
        - schedule old
        - function mails/old, cancels 2 waiting calls
        ? 1
        $ asyncq job list --state cancelled
        $ asyncq apply deploy.toml --prune --force
        - schedule old
        - function mails/old, cancels 2 waiting calls
        ! asyncq: cancelled 2 waiting jobs: 1, 2
        $ asyncq apply deploy.toml --prune --force
        $ asyncq job show 1 | grep -o 'removed function .*'
        removed function `old` of service `mails`
        $ asyncq schedule list | cut -c1-7
        SCHEDUL
        kept   
        report 
        $ asyncq apply deploy.toml --force
        ! error: `--force` needs `--prune`
        ! hint: `asyncq apply --help` shows how
        ? 2
        ",
    );
}

#[test]
fn what_the_file_itself_calls_is_not_pruned() {
    let place = with(MAILS);
    place.session("$ asyncq -q apply deploy.toml > plan");
    place.write("deploy.toml", MAILS.split("\n[function.\"alerts/page\"]").next().unwrap());
    place.session(
        "
        $ asyncq apply deploy.toml --prune
        ! error: `on_error` of function `mails/send` calls `alerts/page`, which `--prune` removes
        ! hint: add [function.\"alerts/page\"] to the file, or name another function
        ? 77
        $ asyncq apply deploy.toml
        ",
    );
    place.write("deploy.toml", "[service.mails]\n[schedule.report]\ncall = 'mails/send'\nevery = '1h'");
    place.session(
        "
        $ asyncq apply deploy.toml --prune --dry-run
        ! error: schedule `report` calls `mails/send`, which `--prune` removes
        ! hint: add [function.\"mails/send\"] to the file, or name another function
        ? 77
        ",
    );
}

#[test]
fn a_function_is_not_pruned_while_its_call_runs() {
    let place = Place::new();
    place.write("deploy.toml", "[service.events]\n[function.'events/wait']\ncommand = ['sh', '-c', 'touch runs; while [ -e runs ]; do sleep 0.02; done']");
    place.session("$ asyncq -q apply deploy.toml > plan\n$ asyncq enqueue events wait\n1");
    let running = place.start("asyncq process --follow");
    wait_until("the function runs", || place.at("runs").exists());
    place.write(
        "deploy.toml",
        "[service.events]\nconcurrency = 2\n[function.'events/next']\ncommand = ['touch', 'ran']",
    );
    place.session(
        "
        $ asyncq apply deploy.toml --prune --force
        ! error: function `wait` of service `events` has 1 running job
        ! hint: wait for job 1 to end, or `asyncq job cancel 1`
        ? 75
        $ asyncq apply deploy.toml
        ~ service events: concurrency 1 -> 2
        + function events/next
        $ asyncq enqueue events next
        2
        ",
    );
    // The processor at work runs the new function, in its new slot.
    wait_until("the new function ran", || place.at("ran").exists());
    fs::remove_file(place.at("runs")).unwrap();
    place.session("$ asyncq wait 1 2\n$ asyncq apply deploy.toml --prune\n- function events/wait");
    drop(running);
}

#[test]
fn a_plan_waits_for_no_writer_and_one_that_changes_nothing_writes_nothing() {
    let place = with(MAILS);
    place.session("$ asyncq -q apply deploy.toml > plan");
    // Nobody can write now.
    let held = lock(&place.store());
    place.session("$ asyncq --lock-timeout 1ms apply deploy.toml");
    place.write("deploy.toml", &MAILS.replace("concurrency = 2", ""));
    place.session(
        "
        $ asyncq --lock-timeout 1ms apply deploy.toml --dry-run
        ~ service mails: concurrency 2 -> 1
        ? 1
        $ asyncq --lock-timeout 1ms apply deploy.toml
        ! error: [..]
        ! hint: [..]
        ? 75
        ",
    );
    drop(held);
    place.session("$ asyncq apply deploy.toml\n~ service mails: concurrency 2 -> 1");
}

#[test]
fn two_files_at_once_make_one_of_them() {
    let place = Place::new();
    place.session("$ asyncq -q service add a");
    let manifest = |version: usize| {
        let functions = (0..40).map(|it| format!("[function.'a/f{it}']\ncommand = ['cat', '{version}']\n"));
        let schedules = (0..40).map(|it| format!("[schedule.s{it}]\ncall = 'a/f{it}'\nevery = '{version}h'\n"));
        format!("[service.a]\nconcurrency = {version}\n{}", functions.chain(schedules).collect::<String>())
    };
    for version in 1..=3 {
        place.write(&format!("{version}.toml"), &manifest(version));
    }
    for _ in 0..3 {
        let mut applying: Vec<_> =
            (1..=3).map(|version| place.command(&format!("asyncq apply {version}.toml")).spawn().unwrap()).collect();
        for apply in &mut applying {
            assert!(apply.wait().unwrap().success());
        }
        let made = place.stdout("asyncq export");
        let version = made.split("concurrency = ").nth(1).map_or("1", |rest| &rest[..1]).to_owned();
        assert_eq!(made.matches(&format!("\"{version}\"]")).count(), 40, "{made}");
        assert_eq!(made.matches(&format!("every = \"{version}h\"")).count(), 40, "{made}");
    }
}

#[test]
fn paths_count_from_the_folder_of_the_file() {
    let place = Place::new();
    fs::create_dir_all(place.at("app/jobs")).unwrap();
    place.program("app/run", "#!/bin/sh\npwd\n");
    place.program("app/jobs/run", "#!/bin/sh\npwd\n");
    place.write(
        "app/deploy.toml",
        "[service.a]\n[function.'a/here']\ncommand = ['./run']\n[function.'a/jobs']\ncommand = ['./run']\nsite = 'jobs'\n\
         [schedule.s]\ncall = 'a/here'\nevery = '1h'\nsite = 'jobs'",
    );
    place.session(
        r#"
        $ asyncq -q apply app/deploy.toml > plan
        $ cd app/jobs && asyncq apply ../deploy.toml
        $ asyncq export | grep site
        site = "[..]/app"
        site = "[..]/app/jobs"
        site = "[..]/app/jobs"
        $ asyncq apply - < app/deploy.toml
        ! error: stdin, line 2: function `a/here`: it has no site, and stdin is in no folder
        ! hint: name the folder, as in `--site .`
        ? 2
        $ grep -v here app/deploy.toml | grep -v 'schedule' | asyncq apply -
        ! error: stdin, line 7, column 1: `site` is given twice
        ! hint: line 5 has it already: leave one of the two out
        ? 65
        $ asyncq apply - --site app < app/deploy.toml
        $ asyncq apply app/deploy.toml --site app/jobs
        ! error: `app/deploy.toml`, line 4: function `a/jobs`: there is no directory `/[..]/app/jobs/jobs`
        ! hint: a site is the directory in which the function runs
        ? 66
        $ asyncq apply app/deploy.toml --site nowhere
        ! error: there is no directory `/[..]/nowhere`
        ! hint: a site is the directory in which the function runs
        ? 66
        "#,
    );
}

/// What a file with this text is refused with: the message after the name of the file, the hint and the exit code.
fn refused(place: &Place, text: &str, message: &str, hint: &str, code: u8) {
    place.write("bad.toml", text);
    let hint = if hint.is_empty() { String::new() } else { format!("\n! hint: {hint}") };
    place.session(&format!("$ asyncq apply bad.toml\n! error: {message}{hint}\n? {code}"));
}

fn at(line: u32, column: u32, what: &str) -> String {
    format!("`bad.toml`, line {line}, column {column}: {what}")
}

fn of_service(line: &str) -> String {
    format!("[service.mails]\n{line}\n")
}

fn of_function(lines: &str) -> String {
    format!("[function.\"mails/send\"]\ncommand = [\"cat\"]\n{lines}\n")
}

fn of_schedule(lines: &str) -> String {
    format!("[schedule.s]\ncall = \"mails/send\"\n{lines}\n")
}

/// Each of these texts is refused with this message and this hint, and nothing is made, not even a store.
fn all_refused<const N: usize>(cases: [(String, String, &str); N]) {
    let place = Place::new();
    for (text, message, hint) in cases {
        refused(&place, &text, &message, hint, 65);
    }
    assert!(!place.store().exists());
}

#[test]
fn unknown_keys() {
    all_refused([
        ("[services.mails]".to_owned(), at(1, 2, "`services` is not known"), "did you mean `service`?"),
        ("verson = 1".to_owned(), at(1, 1, "`verson` is not known"), "known are service, function, schedule"),
        (of_service("concurency = 2"), at(2, 1, "`concurency` is not known"), "did you mean `concurrency`?"),
        (
            of_service("zzz = 2"),
            at(2, 1, "`zzz` is not known"),
            "known are concurrency, lane_width, burst, rate, keep, keep_errors, on_error, on_success, paused",
        ),
        (of_function("retry = 5"), at(3, 1, "`retry` is not known"), "did you mean `retry_on`?"),
        (
            "[function.\"mails/send\"]\ncomand = []".to_owned(),
            at(2, 1, "`comand` is not known"),
            "did you mean `command`?",
        ),
        (of_function("worker = { calls = 5 }"), at(3, 12, "`calls` is not known"), "did you mean `calls_per_worker`?"),
        (of_schedule("evry = \"1h\""), at(3, 1, "`evry` is not known"), "did you mean `every`?"),
    ]);
}

#[test]
fn values_of_the_wrong_kind() {
    all_refused([
        (
            "service = 3".to_owned(),
            at(1, 11, "`service` has to be tables with names"),
            "write it as in [service.mails], with its keys below it",
        ),
        (
            "[service]\nmails = 3".to_owned(),
            at(2, 9, "`mails` has to be a table"),
            "write it as in [service.mails], with its keys below it",
        ),
        (
            of_service("concurrency = \"2\""),
            at(2, 15, "`concurrency` has to be a whole number from 1 to 4294967295"),
            "write it as in concurrency = 2",
        ),
        (
            of_service("concurrency = 0"),
            at(2, 15, "`concurrency` has to be a whole number from 1 to 4294967295"),
            "write it as in concurrency = 2",
        ),
        (
            of_service("lane_width = 1001"),
            at(2, 14, "`lane_width` has to be a whole number from 1 to 1000"),
            "write it as in lane_width = 2",
        ),
        (of_service("rate = 10"), at(2, 8, "`rate` has to be a text in quotes"), "write it as in rate = \"10/s\""),
        (of_service("burst = 10"), at(1, 10, "`burst` needs `rate`"), "add a rate, as in rate = \"10/s\""),
        (
            of_service("paused = 1"),
            at(2, 10, "`paused` has to be true, false, or a text that says why"),
            "write it as in paused = \"a new release\"",
        ),
        (
            of_function("timeout = 30"),
            at(3, 11, "`timeout` has to be a text in quotes"),
            "write it as in timeout = \"90s\"",
        ),
        (
            of_function("env = [\"A=1\"]"),
            at(3, 7, "`env` has to be a table of texts"),
            "write it as in env = { LANG = \"C.UTF-8\", HOST = true }",
        ),
        (
            of_function("env = { A = false }"),
            at(3, 13, "`A` has to be a text, or true for the value that it has now"),
            "write it as in A = true",
        ),
        (
            of_function("args = \"word\""),
            at(3, 8, "`args` has to be \"words\" or \"stdin\""),
            "write it as in args = \"words\"",
        ),
        (
            of_function("retries = -1"),
            at(3, 11, "`retries` has to be a whole number from 0 to 4294967295"),
            "write it as in retries = 2",
        ),
        (
            of_function("retries = 1\nretry_on = 64"),
            at(4, 12, "`retry_on` has to be an array of codes and texts"),
            "write it as in retry_on = [64, \"timeout\"]",
        ),
        (
            of_function("worker = 3"),
            at(3, 10, "`worker` has to be true, or a table of limits"),
            "write it as in worker = { calls_per_worker = 1000, idle = \"5m\" }",
        ),
        (
            "[function.\"mails/send\"]\ncommand = \"cat\"".to_owned(),
            at(2, 11, "`command` has to be an array of texts"),
            "write it as in command = [\"cat\"]",
        ),
        (
            of_schedule("every = \"1h\"\nargs = 5"),
            at(4, 8, "`args` has to be an array"),
            "write it as in args = [\"zoe\", 1]",
        ),
        (
            of_schedule("every = \"1h\"\nkwargs = [1]"),
            at(4, 10, "`kwargs` has to be a table"),
            "write it as in kwargs = { user = \"zoe\" }",
        ),
        (
            of_schedule("every = \"1h\"\npaused = \"why\""),
            at(4, 10, "`paused` has to be true or false"),
            "write it as in paused = true",
        ),
    ]);
}

#[test]
fn values_that_mean_nothing() {
    all_refused([
        (
            of_service("rate = \"10\""),
            at(2, 8, "`rate` cannot be `10`: the span is missing"),
            "write a number of calls and a span, as in `10/s`, `100/h` or `5/10m`; `none` sets no rate",
        ),
        (
            of_function("timeout = \"30\""),
            at(3, 11, "`timeout` cannot be `30`: the unit is missing"),
            "a span is a number with its unit, as in `90s`, `10m` or `1h30m`",
        ),
        (
            of_function("retries = 1\nno_retry_on = [64, \"timout\"]"),
            at(4, 15, "`no_retry_on` cannot be `64,timout`: `timout` is neither an exit code nor a kind of failure"),
            "did you mean `timeout`?",
        ),
        (
            of_function("backoff = \"1m\""),
            at(1, 11, "`backoff` says nothing about a function without `retries`"),
            "add `retries`, as in retries = 5",
        ),
        (
            of_function("worker = true\nstdin = \"none\""),
            at(1, 11, "`args` and `stdin` are for commands, and this function is a worker"),
            "leave them out: a worker gets its calls as messages (docs/protocol.md)",
        ),
        (
            of_function("worker = true\nmerge = true"),
            at(1, 11, "`merge` is for commands, and this function is a worker"),
            "leave it out, or leave `worker` out",
        ),
        (
            of_function("takes = \"[a] b\""),
            at(3, 9, "`takes` cannot be `[a] b`: `b` is required, and stands after `[a]`, which may be left out"),
            "write `b` before `[a]`, or `[b]`",
        ),
        (
            of_function("takes = [\"a\"]"),
            at(3, 9, "`takes` has to be a text in quotes"),
            "write it as in takes = \"user [--html:bool]\"",
        ),
        (
            of_function("secret = \"password\""),
            at(3, 10, "`secret` has to be an array of texts"),
            "write it as in secret = [\"password\"]",
        ),
        (
            of_function("secret = [2]"),
            at(3, 10, "`secret` has to be an array of texts"),
            "write it as in secret = [\"one\", \"two\"]",
        ),
        (
            of_function("env_file = true"),
            at(3, 12, "`env_file` has to be a text in quotes"),
            "write it as in env_file = \"secrets.env\"",
        ),
        (
            of_function("args = \"stdin\"\nstdin = \"none\""),
            at(1, 11, "with `args = \"stdin\"` and `stdin = \"none\"` the program gets no arguments"),
            "leave one of them out",
        ),
        (
            of_function("lane = \"\""),
            at(3, 8, "`lane` cannot be ``: `` cannot be a lane"),
            "a lane is 1 to 255 bytes of text without control characters",
        ),
        (
            of_function("site = \"a\\u0000\""),
            at(3, 8, "`site` contains a NUL character"),
            "no program can get one: leave it out",
        ),
        (
            of_service("on_error = \"alerts.page\""),
            at(2, 12, "`on_error` cannot be `alerts.page`: a hook is SERVICE/FUNCTION"),
            "did you mean `alerts/page`?",
        ),
    ]);
}

#[test]
fn dates_and_numbers_that_json_does_not_have() {
    all_refused([
        (
            of_schedule("every = \"1h\"\nargs = [2026-12-01]"),
            at(4, 9, "`args` has a date, and JSON has none"),
            "write it as a text in quotes: \"2026-12-01\"",
        ),
        (
            of_schedule("every = \"1h\"\nkwargs = { at = 2026-12-01T09:00:00Z }"),
            at(4, 17, "`kwargs` has a date, and JSON has none"),
            "write it as a text in quotes: \"2026-12-01T09:00:00Z\"",
        ),
        (
            of_schedule("every = \"1h\"\nargs = [[inf]]"),
            at(4, 10, "`args` has inf, and JSON has no such number"),
            "write it as a text in quotes",
        ),
        (
            of_schedule("every = \"1h\"\nfrom = \"tomorrow 9:00\""),
            at(4, 8, "`from` cannot be `tomorrow 9:00`: it has no date"),
            "a file means the same every day: write the date, as in \"2026-12-01 9:00\"",
        ),
        (
            of_schedule("every = \"1h\"\nfrom = \"2026-13-01\""),
            at(4, 8, "`2026-13-01` is not a time"),
            "write `14:30`, `tomorrow 9:00`, `2026-12-01 09:00` or `2026-12-01T09:00+01:00`",
        ),
    ]);
}

#[test]
fn rules_of_schedules() {
    all_refused([
        (
            of_schedule(""),
            at(1, 11, "the rule of the schedule is missing"),
            "give times, as in cron = \"30 2 * * *\", or a span, as in every = \"90s\"",
        ),
        (
            of_schedule("every = \"1h\"\ncron = \"* * * * *\""),
            at(3, 1, "`cron` and `every` exclude each other"),
            "leave one of them out",
        ),
        (
            of_schedule("every = \"1h\"\ntz = \"UTC\""),
            at(4, 1, "`every` is exact time, in which time zones make no difference"),
            "leave `tz` out, or use cron = \"0 9 * * *\" for a time of day",
        ),
        (
            of_schedule("cron = \"60 * * * *\"\ntz = \"UTC\""),
            at(3, 8, "`cron` cannot be `60 * * * *`: `60` is not a minute"),
            "minutes go from 0 to 59",
        ),
        (
            of_schedule("cron = \"0 * * * *\"\ntz = \"Europe/Berln\""),
            at(4, 6, "`tz` cannot be `Europe/Berln`: there is no time zone `Europe/Berln`"),
            "did you mean `Europe/Berlin`?",
        ),
        (
            "[schedule.s]\nevery = \"1h\"".to_owned(),
            at(1, 11, "`call` is missing"),
            "name the function, as in call = \"reports/weekly\"",
        ),
        (
            "[function.\"mails/send\"]".to_owned(),
            at(1, 11, "`command` is missing"),
            "give the program and its first arguments, as in command = [\"./send\", \"--now\"]",
        ),
    ]);
}

#[test]
fn names_that_are_none_or_given_twice() {
    all_refused([
        (
            "[service.Mails]".to_owned(),
            at(1, 10, "`Mails` cannot be the name of a service"),
            "a name starts with a lower-case letter or a digit and goes on with those, `.`, `_` and `-`, at most 255 bytes",
        ),
        (
            "[function.mails.send]\ncommand = [\"cat\"]".to_owned(),
            at(1, 11, "a function is SERVICE/FUNCTION"),
            "write [function.\"mails/send\"]",
        ),
        (
            "[service.mails]\n[service.mails]".to_owned(),
            at(2, 10, "`mails` is given twice"),
            "line 1 has it already: leave one of the two out",
        ),
        (
            of_function("env = { A = \"1\", A = \"2\" }"),
            at(3, 18, "`A` is given twice"),
            "line 3 has it already: leave one of the two out",
        ),
        (
            "[service.a]\nkeep = \"1d\"\n[service.b]\nkeep = \"1d\"\nkeep = \"2d\"".to_owned(),
            at(5, 1, "`keep` is given twice"),
            "line 4 has it already: leave one of the two out",
        ),
        (
            "[service.a]\n[schedule.a]\n[service.a]".to_owned(),
            at(3, 10, "`a` is given twice"),
            "line 1 has it already: leave one of the two out",
        ),
        (
            of_service("rate = \"1/s\"\nrate = \"2/s\""),
            at(3, 1, "`rate` is given twice"),
            "line 2 has it already: leave one of the two out",
        ),
        (
            "[function.\"mails/send\"]\ncommand = [\"cat\"]\n[function.'mails/send']\ncommand = [\"cat\"]".to_owned(),
            at(3, 11, "`'mails/send'` is given twice"),
            "line 1 has it already: leave one of the two out",
        ),
    ]);
}

#[test]
fn files_that_are_no_toml_or_say_nothing() {
    let no_toml = "write tables as in [service.mails], and below them keys as in rate = \"10/s\" (docs/manifest.md)";
    all_refused([
        ("{\"service\": {}}".to_owned(), at(1, 1, "[..]"), no_toml),
        ("[service.mails".to_owned(), at(1, 15, "[..]"), no_toml),
        ("[service.mails]\nrate = 10/s".to_owned(), at(2, 8, "[..]"), no_toml),
        (
            "# nothing".to_owned(),
            "`bad.toml` names no service, function or schedule".to_owned(),
            "`asyncq export` shows how such a file looks, see docs/manifest.md",
        ),
        (
            String::new(),
            "`bad.toml` names no service, function or schedule".to_owned(),
            "`asyncq export` shows how such a file looks, see docs/manifest.md",
        ),
    ]);
}

#[test]
fn what_a_file_names_has_to_be_there() {
    let place = with(MAILS);
    place.session("$ asyncq -q apply deploy.toml > plan\n$ asyncq export > before");
    let file = |lines: &str| format!("[service.new]\n[function.\"mails/send\"]\n{lines}\n");
    for (text, message, hint, code) in [
        (
            file("command = [\"nowhere\"]"),
            "`bad.toml`, line 2: function `mails/send`: there is no program `nowhere` in `$PATH`",
            "name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`",
            66,
        ),
        (
            file("command = [\"./deploy.toml\"]"),
            "`bad.toml`, line 2: function `mails/send`: `/[..]/deploy.toml` is not executable",
            "`chmod +x /[..]/deploy.toml` makes it so",
            77,
        ),
        (
            file("command = [\"./send\"]\nenv = { NOWHERE = true }"),
            "`bad.toml`, line 2: function `mails/send`: the environment variable `NOWHERE` is not set",
            "set it, or write its value into the file: NOWHERE = \"VALUE\"",
            2,
        ),
        (
            file("command = [\"./send\"]\nenv = { ASYNCQ_JOB = \"7\" }"),
            "`bad.toml`, line 2: function `mails/send`: `ASYNCQ_JOB` is set by asyncq itself",
            "record a variable with another name",
            2,
        ),
        (
            file("command = [\"./send\"]\nsite = \"nowhere\""),
            "`bad.toml`, line 2: function `mails/send`: there is no directory `/[..]/nowhere`",
            "a site is the directory in which the function runs",
            66,
        ),
        (
            file("command = [\"./send\"]\non_error = \"mails/page\""),
            "`on_error` of function `mails/send` calls `mails/page`, which is neither in the file nor in the store",
            "add [function.\"mails/page\"] to the file, or name another function",
            66,
        ),
        (
            "[service.mails]\non_success = \"nowhere/page\"".to_owned(),
            "`on_success` of service `mails` calls `nowhere/page`, which is neither in the file nor in the store",
            "add [function.\"nowhere/page\"] to the file, or name another function",
            66,
        ),
        (
            "[service.new]\n[schedule.s]\ncall = \"new/job\"\nevery = \"1h\"".to_owned(),
            "schedule `s` calls `new/job`, which is neither in the file nor in the store",
            "add [function.\"new/job\"] to the file, or name another function",
            66,
        ),
        (
            "[service.new]\n[function.\"nowhere/f\"]\ncommand = [\"cat\"]".to_owned(),
            "there is no service `nowhere` for the function `nowhere/f`",
            "add [service.nowhere] to the file, or `asyncq service add nowhere`",
            66,
        ),
        (
            "[service.new]\n[schedule.s]\ncall = \"mails/send\"\ncron = \"0 0 29 2 */7\"\ntz = \"UTC\"\nfrom = 2032-03-01".to_owned(),
            "schedule `s`: `0 0 29 2 */7` does not come within ten years",
            "choose other days or months",
            2,
        ),
    ] {
        refused(&place, &text, message, hint, code);
    }
    place.session("$ asyncq export | cmp - before");
}

#[test]
fn files_that_cannot_be_read() {
    let place = with(MAILS);
    fs::write(place.at("latin"), b"# a\n# Z\xfcrich\n[service.mails]\n").unwrap();
    fs::write(place.at("large.toml"), format!("[service.mails]\n#{}", "x".repeat(10_000_000))).unwrap();
    fs::create_dir(place.at("folder")).unwrap();
    place.session(
        "
        $ asyncq apply nowhere.toml
        ! error: cannot read `nowhere.toml`: No such file or directory
        ! hint: `asyncq apply -` reads stdin
        ? 66
        $ asyncq apply folder
        ! error: cannot read `folder`: is a directory
        ! hint: `asyncq apply -` reads stdin
        ? 74
        $ asyncq apply latin
        ! error: `latin`, line 2: it is not UTF-8
        ! hint: convert it, as with `iconv -f latin1 -t utf-8`
        ? 65
        $ asyncq apply large.toml
        ! error: `large.toml` has more than 8.3 MB
        ! hint: divide it by services into several files, and apply one after the other
        ? 65
        $ asyncq apply - < large.toml
        ! error: stdin has more than 8.3 MB
        ! hint: divide it by services into several files, and apply one after the other
        ? 65
        $ asyncq apply - < /dev/null
        ! error: stdin names no service, function or schedule
        ! hint: `asyncq export` shows how such a file looks, see docs/manifest.md
        ? 65
        $ asyncq apply
        ! error: `asyncq apply` needs `FILE`
        ! hint: `asyncq apply --help` shows how
        ? 2
        ",
    );
}

#[test]
fn a_plan_that_cannot_be_printed_says_that_it_was_carried_out() {
    with(MAILS).session(
        "
        $ asyncq -q apply deploy.toml > /dev/full
        ! error: the file was applied, but not all could be printed: no space left on the device
        ! hint: `asyncq apply` with the same file changes nothing more
        ? 74
        $ asyncq apply deploy.toml
        ",
    );
}

#[test]
fn inside_a_function_schedules_have_its_principal() {
    let place = with(
        "[service.mails]\n[function.'mails/send']\ncommand = ['cat']\n[schedule.s]\ncall = 'mails/send'\nevery = '1h'",
    );
    place.write("other.toml", "[schedule.s]\ncall = 'mails/send'\nevery = '1h'\nprincipal = 'max'");
    place.session(
        r#"
        $ asyncq -q service add events
        $ asyncq function add events apply --stdin none -- sh -c 'asyncq -q apply $1; true' x
        $ asyncq enqueue --principal zoe events apply deploy.toml
        1
        $ asyncq enqueue --principal zoe events apply other.toml
        2
        $ asyncq process
        + service mails
        + function mails/send
        + schedule s
        ! error: schedule `s` has another principal than this function
        ! hint: leave `principal` out of the file
        $ asyncq export mails | grep principal
        principal = "zoe"
        $ ASYNCQ_PRINCIPAL=max asyncq apply deploy.toml
        ~ schedule s: principal "zoe" -> none
        "#,
    );
}
