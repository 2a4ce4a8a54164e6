//! A new call of a job: `asyncq job rerun`.

use crate::place::{Place, wait_until};

#[test]
fn a_job_that_has_ended_is_called_again() {
    let place = Place::with_functions(&[("show", r#"echo "$ASYNCQ_PRINCIPAL $ASYNCQ_META $@""#)]);
    place.stdout("asyncq service set events --lane-width 2");
    place.session(
        r#"
        $ asyncq enqueue --principal anna --meta tenant=acme --lane l --priority 5 --key once events show 1 two -k size=3
        1
        $ asyncq process
        anna {"tenant":"acme"} 1 two --size=3
        $ asyncq job rerun 1
        2
        $ asyncq job rerun 1 -- '{"a":1}' -- -1e5
        3
        $ asyncq job rerun 1 -k colour=red --raw -- 7
        4
        $ asyncq process
        anna {"tenant":"acme"} 1 two --size=3
        anna {"tenant":"acme"} {"a":1} -- -1e5 --size=3
        anna {"tenant":"acme"} 7 --colour=red
        $ asyncq job rerun 3 -k size=4
        5
        $ asyncq process
        anna {"tenant":"acme"} {"a":1} -- -1e5 --size=4
        "#,
    );
    assert_eq!(place.stdout("asyncq job show 4 --json | grep -o '\"args\":[^]]*]'"), "\"args\":[\"7\"]\n");
    assert_eq!(place.jobs("key lane priority attempt"), "once l 5 1, l 5 1, l 5 1, l 5 1, l 5 1");
    assert_eq!(place.job(2)["os_user"], place.job(1)["os_user"]);
}

#[test]
fn a_job_that_failed_stays_as_it_is() {
    let place = Place::with_functions(&[("fails", "exit $1")]);
    place.session(
        "
        $ asyncq enqueue events fails 3
        1
        $ asyncq -q process
        ? 1
        $ asyncq job rerun 1 -- 0
        2
        $ asyncq process
        ",
    );
    assert_eq!(place.jobs("state"), "error, completed");
}

#[test]
fn the_new_call_takes_the_place_of_one_that_waits() {
    let place = Place::with_functions(&[("show", "echo $1")]);
    place.session(
        "
        $ asyncq enqueue --hold events show first
        1
        $ asyncq enqueue --at 2100-01-01T12:00Z --expires 2100-01-02T12:00Z events show delayed
        2
        $ asyncq enqueue --after 1 events show after
        3
        $ asyncq enqueue --key k --key-until ended events show queued
        4
        $ asyncq job rerun 1 -- held
        5
        $ asyncq job rerun 2 -- later
        6
        $ asyncq job rerun 4 -- soon
        7
        ",
    );
    assert_eq!(place.jobs("state"), "cancelled, cancelled, cancelled, cancelled, held, delayed, queued");
    for field in ["run_at", "expires_at"] {
        assert_eq!(place.job(6)[field], place.job(2)[field]);
    }
    place.session(
        "
        $ asyncq enqueue --hold events show needed
        8
        $ asyncq enqueue --after 8 --after-any 6 events show waits
        9
        $ asyncq job rerun 9 -- anew
        10
        $ asyncq process
        soon
        $ asyncq job start 8
        $ asyncq job cancel 6
        $ asyncq process
        needed
        anew
        ",
    );
    assert_eq!(place.terminal("asyncq job rerun 5"), "11\nasyncq: job 5 is cancelled; job 11 replaces it\n");
}

#[test]
fn large_and_damaged_arguments() {
    let place = Place::with_functions(&[("count", "wc -c")]);
    let large = "x".repeat(50_000);
    place.write("call", &format!("{{\"service\":\"events\",\"function\":\"count\",\"args\":[\"{large}\"]}}\n"));
    place.stdout("asyncq function set events count --args stdin; asyncq enqueue --batch call; asyncq job rerun 1");
    assert_eq!(place.job(2)["args"], place.job(1)["args"]);
    place.insert("function, args", "'count', '[{\"a\":1,\"a\":2}]'");
    place.session(
        "
        $ asyncq job cancel 3
        $ asyncq job rerun 3
        ! error: job 3 cannot be called again: args: [..]
        ! hint: `asyncq enqueue` makes a new call
        ? 65
        $ asyncq job rerun 3 -- 7
        4
        ",
    );
}

#[test]
fn what_cannot_be_called_again() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done"), ("gone", "")]);
    place.stdout(
        "asyncq enqueue events gone; asyncq process; asyncq function remove events gone; asyncq enqueue events waits",
    );
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    place.session(
        "
        $ asyncq job rerun 1
        ! error: service `events` has no function `gone`
        ! hint: [..]
        ? 66
        $ asyncq job rerun 2
        ! error: job 2 is running
        ! hint: `asyncq wait 2` waits for its end, `asyncq job cancel 2` ends it
        ? 77
        $ asyncq job rerun 3
        ! error: there is no job 3
        ! hint: the newest is 2; `asyncq job list` shows which there are
        ? 66
        $ asyncq job rerun 0
        ! error: [..]
        ! hint: [..]
        ? 2
        $ asyncq job rerun 2 -k size
        ! error: `-k size` is not a keyword argument
        ! hint: write `-k NAME=VALUE`
        ? 2
        ",
    );
    assert_eq!(place.jobs("state"), "completed, processing");
    place.write("go", "");
    assert!(process.wait().status.success());
}

#[test]
fn a_function_calls_only_jobs_of_its_own_principal_again() {
    let place = Place::with_functions(&[("show", "echo $1"), ("again", r#"asyncq job rerun "$1""#)]);
    place.session(
        "
        $ asyncq enqueue --principal anna events show mine; asyncq enqueue --principal ben events show other
        1
        2
        $ asyncq enqueue --principal anna events again 1; asyncq enqueue --principal anna events again 2
        3
        4
        $ asyncq process
        mine
        other
        5
        mine
        ! error: job 2 has another principal than the function that calls it again
        ! hint: a call inside a running function has the principal of that function
        ! asyncq: job 4 (`events` `again`): exit code 77
        ? 1
        ",
    );
    assert_eq!(place.job(5)["parent"], 3);
}
