//! Pauses of the whole store and of services, and patterns that choose services.

use crate::place::{Place, wait_until};

const WAITS: (&str, &str) = ("waits", "touch begun.$ASYNCQ_JOB; until [ -e go ]; do sleep 0.01; done");

#[test]
fn a_paused_store_accepts_calls_and_runs_none() {
    let place = Place::with_functions(&[("say", "echo said $1")]);
    place.session(
        r#"
        $ asyncq service add other; asyncq service pause other
        $ asyncq pause --why 'new release'
        $ asyncq enqueue events say 1; asyncq -v process 2>&1 | grep paused; asyncq due
        1
        asyncq: the store is paused: new release; `asyncq resume` lets its calls run
        ? 1
        $ asyncq status | head -n 3 | tr -s ' '
        the store is paused: new release; `asyncq resume` lets its calls run

        SERVICE RUNNING QUEUED BLOCKED DELAYED HELD ERRORS OLDEST NEXT
        $ asyncq status --json | tr , '\n' | grep -m 2 paused
        "paused":true
        "paused_why":"new release"
        $ asyncq status --check
        the store is paused: new release; `asyncq resume` ends the pause
        service `other` is paused; `asyncq service resume other` ends the pause
        ? 1
        $ asyncq explain 1 | head -n 3
        [..]
        [..]the store is paused: new release[..]
        [..]
        $ asyncq job show 1 | grep why
        why        store-paused[..]
        $ asyncq pause; asyncq status | head -n 1
        the store is paused; `asyncq resume` lets its calls run
        $ asyncq resume; asyncq resume; asyncq process
        said 1
        $ asyncq service show other | grep state
        state        paused
        "#,
    );
}

#[test]
fn a_pause_of_a_service_says_why() {
    Place::with_functions(&[("say", "echo said $1")]).session(
        r#"
        $ asyncq service pause events --why 'the server is down'; asyncq enqueue events say 1
        1
        $ asyncq -v process 2>&1 | grep paused
        asyncq: service `events` is paused: the server is down; `asyncq service resume events` lets its calls run
        $ asyncq service show events | grep state
        state        paused: the server is down
        $ asyncq service list
        SERVICE  CONCURRENCY  STATE
        events   1            paused: the server is down
        $ asyncq service show events --json
        {"name":"events",[..]"paused":true,"paused_why":"the server is down",[..]}
        $ asyncq explain 1 | grep -c 'paused: the server is down'
        1
        $ asyncq service pause events; asyncq service show events | grep state
        state        paused
        $ asyncq service resume events; asyncq service show events | grep state
        state        active
        $ asyncq service pause events --why ''
        ! error: `--why` cannot be ``: a reason is one line of 1 to 1000 bytes
        ! hint: leave out `--why`, or write as in `--why 'new release'`
        ? 2
        $ asyncq pause --timeout 1s
        ! error: `--timeout` needs `--wait`
        ! hint: `asyncq pause --help` shows how
        ? 2
        "#,
    );
}

#[test]
fn a_pause_waits_until_nothing_runs() {
    let place = Place::with_functions(&[WAITS]);
    place.stdout("asyncq pause --wait; asyncq resume; asyncq enqueue events waits; asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("begun.1").exists());
    place.session(
        "
        $ asyncq pause --wait --timeout 10ms
        ! error: job 1 still runs
        ! hint: the pause stays: `asyncq pause --wait` waits again, `asyncq resume` ends it
        ? 75
        ",
    );
    let pause = place.start("asyncq pause --wait");
    place.write("go", "");
    assert!(pause.wait().status.success() && process.wait().status.success());
    assert_eq!(
        place.stdout("asyncq job list --json | grep -o '\"state\":\"[a-z]*\"'"),
        "\"state\":\"queued\"\n\"state\":\"completed\"\n"
    );
    // A processor that died runs nothing.
    std::fs::remove_file(place.at("go")).unwrap();
    place.stdout("asyncq resume");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("begun.2").exists());
    process.signal("KILL");
    drop(process.wait());
    place.stdout("asyncq pause --wait");
}

#[test]
fn patterns_choose_services() {
    let place = Place::new();
    place.write("say", "echo $ASYNCQ_SERVICE");
    place.session(
        r"
        $ for s in site-a site-b mails; do asyncq service add $s; asyncq function add $s say -- sh say; asyncq enqueue $s say; done 2> created
        1
        2
        3
        $ asyncq due 'x*'
        ? 1
        $ asyncq due 'site-*' --json --except site-a
        {[..]site-b[..]}
        $ asyncq process 'x*'
        ! asyncq: no service matches
        $ asyncq process 'site-*' --except '*-b'
        site-a
        $ asyncq process --except mail
        ! error: there is no service `mail`
        ! hint: did you mean `mails`? `asyncq service list` shows all
        ? 66
        $ asyncq process '['
        ! error: [..]
        ! hint: `*` stands for any text, `?` for one character, and `[a-c]` for one of these
        ? 2
        $ asyncq service pause 'x*'
        ! asyncq: no service matches
        $ asyncq service pause 'site-*' mails --why later; asyncq service list | grep -c paused
        3
        $ asyncq service resume '*'; asyncq process mails '*'
        mails
        site-b
        ",
    );
}

#[test]
fn a_processor_of_a_pattern_takes_up_new_services() {
    let place = Place::new();
    place.write("say", "touch did.$ASYNCQ_JOB");
    let add = |service: &str| {
        let add = "asyncq service add S && asyncq function add S say -- sh say && asyncq enqueue S say";
        place.stdout(&add.replace('S', service));
    };
    add("mails");
    let process = place.start("asyncq process --follow 'site-*' --except 'site-x*'");
    add("site-x1");
    add("site-a");
    wait_until("the new one is served", || place.at("did.3").exists());
    assert!(!place.at("did.1").exists() && !place.at("did.2").exists());
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn a_pause_of_the_store_keeps_ticks_from_making_jobs() {
    let place = Place::with_functions(&[("say", "echo said")]);
    place.session(
        "
        $ asyncq schedule add each --every 1s events say
        $ asyncq pause; asyncq due
        ? 1
        ",
    );
    place.stdout("sleep 1.1; asyncq process 2>&1");
    assert_eq!(place.stdout("asyncq job list --json"), "[\n]\n");
    place.stdout("asyncq resume; asyncq process");
    assert_eq!(place.stdout("asyncq job list --json | grep -o '\"id\":[0-9]*'"), "\"id\":1\n");
}
