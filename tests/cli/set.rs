//! `asyncq job set`: changes of calls that wait.

use crate::place::Place;

/// A place with a function, and `due`, which prints the state, the due time, the priority, the lane and the expiry of a job.
fn place() -> Place {
    let place = Place::with_functions(&[("mail", "echo mail $1"), ("fail", "exit 3")]);
    place.write(
        "due",
        r#"asyncq job show $1 --json | grep -oE '"(state|run_at|priority|lane|expires_at)":("[^"]*"|[-0-9a-z]+)' |
        cut -d: -f2- | tr -d '"' | sed -E 's/^20[0-2].*/now/; s/:00\.000Z$//; s/null/-/' | paste -sd'|'
"#,
    );
    place
}

#[test]
fn a_call_that_waits_gets_another_time() {
    place().session(
        r"
        $ asyncq enqueue events mail; sh due 1
        1
        queued|now|0|-|-
        $ asyncq job set 1 --at 2036-07-01T09:00Z; sh due 1
        delayed|2036-07-01T09:00|0|-|-
        $ asyncq job set 1 --at '2036-07-01 9:00' --tz America/New_York; sh due 1
        delayed|2036-07-01T13:00|0|-|-
        $ asyncq process; asyncq job set 1 --at now; sh due 1; asyncq process
        queued|now|0|-|-
        mail
        $ asyncq enqueue --hold events mail; asyncq job set 2 --at 2036-07-01T09:00Z; sh due 2
        2
        held|2036-07-01T09:00|0|-|-
        $ asyncq job start 2; sh due 2
        delayed|2036-07-01T09:00|0|-|-
        $ asyncq job set 2 --at now; sh due 2
        queued|now|0|-|-
        $ asyncq job set 2 --at 2020-01-01T00:00Z --tz UTC; sh due 2
        queued|now|0|-|-
        ! asyncq: 2020-01-01T00:00:00.000Z has passed, so the call is due now
        $ asyncq job set 2 --hold; sh due 2
        held|now|0|-|-
        ",
    );
}

#[test]
fn a_call_that_waits_gets_another_priority_and_expiry() {
    place().session(
        r"
        $ asyncq enqueue events mail 1; asyncq enqueue events mail 2; asyncq enqueue events mail 3
        1
        2
        3
        $ asyncq job set 2 3 --priority -5; asyncq job set 3 --priority -6; asyncq process
        mail 3
        mail 2
        mail 1
        $ asyncq enqueue --at 2036-07-01T09:00Z events mail; asyncq job set 4 --expires 2h; sh due 4
        4
        delayed|2036-07-01T09:00|0|-|2036-07-01T11:00
        $ asyncq job set 4 --at 2036-07-02T09:00Z --expires 10m; sh due 4
        delayed|2036-07-02T09:00|0|-|2036-07-02T09:10
        $ asyncq job set 4 --expires 2036-07-03T00:00Z; sh due 4
        delayed|2036-07-02T09:00|0|-|2036-07-03T00:00
        $ asyncq job set 4 --expires never; sh due 4
        delayed|2036-07-02T09:00|0|-|-
        $ asyncq enqueue events mail; asyncq job set 5 --expires 1ms; sleep 0.01; asyncq process; asyncq explain 5 | grep -c '^expired'
        5
        1
        ",
    );
}

#[test]
fn a_call_that_waits_changes_its_lane() {
    place().session(
        r"
        $ for n in 1 2 3; do asyncq enqueue --lane a events mail $n; done
        1
        2
        3
        $ asyncq enqueue --lane b events mail 4; asyncq enqueue events mail 5
        4
        5
        $ asyncq job set 1 --lane b; for n in 1 2 3 4; do sh due $n; done
        blocked|now|0|b|-
        queued|now|0|a|-
        blocked|now|0|a|-
        queued|now|0|b|-
        $ asyncq job set 3 --lane ''; asyncq job set 5 --lane a; for n in 3 5; do sh due $n; done
        queued|now|0|-|-
        blocked|now|0|a|-
        $ asyncq job set 2 --lane c --hold; for n in 2 5; do sh due $n; done
        held|now|0|c|-
        queued|now|0|a|-
        $ asyncq job set 4 --lane b --priority 7; asyncq job set 4 --lane new --at 2036-07-01T09:00Z; for n in 1 4; do sh due $n; done
        queued|now|0|b|-
        delayed|2036-07-01T09:00|7|new|-
        $ asyncq job start 2; asyncq process | sort
        mail 1
        mail 2
        mail 3
        mail 5
        ",
    );
}

#[test]
fn many_calls_change_at_once() {
    place().session(
        r"
        $ for n in 1 2 3; do asyncq enqueue --lane a --principal zoe events mail $n; done
        1
        2
        3
        $ asyncq enqueue events mail 4
        4
        $ asyncq job set --all --principal zoe --at 2036-07-01T09:00Z --dry-run
        ! asyncq: would change 3 jobs
        $ asyncq job set --all --principal zoe --at 2036-07-01T09:00Z; for n in 1 2 3 4; do sh due $n; done
        delayed|2036-07-01T09:00|0|a|-
        delayed|2036-07-01T09:00|0|a|-
        delayed|2036-07-01T09:00|0|a|-
        queued|now|0|-|-
        ! asyncq: changed 3 jobs
        $ asyncq job set --state delayed --priority 3 --lane ''; sh due 2
        delayed|2036-07-01T09:00|3|-|-
        ! asyncq: changed 3 jobs
        ",
    );
}

#[test]
fn what_cannot_be_set() {
    let place = place();
    place.session(
        r"
        $ asyncq enqueue events mail; asyncq process; asyncq enqueue events fail; asyncq process -q
        1
        mail
        2
        ? 1
        $ asyncq job set 1 --at now
        ! error: job 1 is completed, so it cannot be set
        ! hint: `asyncq job rerun 1` makes the call once more
        ? 77
        $ asyncq job set 2 --at now
        ! error: job 2 is error, so it cannot be set
        ! hint: `asyncq job retry 2` queues it again, and then you can set it
        ? 77
        $ asyncq job set 9 --at now
        ! error: there is no job 9
        ! hint: the newest is 2; `asyncq job list` shows which there are
        ? 66
        $ asyncq job set 1
        ! error: `job set` needs something to change
        ! hint: `--at`, `--in`, `--hold`, `--priority`, `--lane` and `--expires` change a call that waits
        ? 2
        $ asyncq job set 1 --tz UTC --hold
        ! error: `--tz` needs `--at` or `--expires`
        ! hint: `asyncq job set --help` shows how
        ? 2
        $ asyncq job set 1 --expires 2020-01-01T00:00Z --tz UTC
        ! error: `--expires` cannot be `2020-01-01T00:00Z`: 2020-01-01T00:00:00.000Z has passed
        ! hint: a call that has expired never runs; a span, as in `10m`, counts from when the call is due
        ? 2
        $ asyncq job set 1 --priority 5000 2>&1 | head -1; asyncq job set 1 --lane $(printf '%0256d' 0) 2>&1 | tail -1
        error: `--priority` cannot be `5000`: it is a whole number from -1000 to 1000
        hint: a lane is 1 to 255 bytes of text without control characters
        $ asyncq job set --at now 2>&1 | head -2; asyncq job set --state completed --at now 2>&1 | head -2
        error: `asyncq job set` needs to know which jobs
        hint: give the numbers of jobs, or options such as `--state` and `--service`; `--all` means all
        error: `--state` cannot be `completed`: it must be `held`, `blocked`, `delayed` or `queued`
        hint: `asyncq job set --help` shows how
        ",
    );
}
