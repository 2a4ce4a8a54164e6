//! What limits when a call may run: its priority, its end, its key, and the rate of its service.

use crate::place::Place;

fn place() -> Place {
    Place::with_functions(&[("say", "echo $1"), ("fail", "exit 3")])
}

#[test]
fn a_call_with_a_smaller_priority_runs_first() {
    place().session(
        "
        $ asyncq enqueue events say last --priority 1000; asyncq enqueue events say second
        1
        2
        $ asyncq enqueue events say first --priority -1000; asyncq job show 3 | grep priority
        3
        priority   -1000
        $ asyncq process
        first
        second
        last
        ",
    );
}

#[test]
fn what_is_no_priority() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events say --priority high
        ! error: `--priority` cannot be `high`: it is a whole number from -1000 to 1000
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq enqueue events say --priority -1001
        ! error: `--priority` cannot be `-1001`: it is a whole number from -1000 to 1000
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ echo '{"service":"events","function":"say","priority":1001}' | asyncq enqueue --batch -
        ! error: line 1: `priority` is 1001, which is not a whole number from -1000 to 1000; nothing was enqueued
        ! hint: a call with a smaller priority runs first; 0 is the default
        ? 65
        $ asyncq job list --output csv | wc -l
        1
        "#,
    );
}
