//! Conflicts, and retrying by hand.

use crate::place::Place;

#[test]
fn a_conflict_is_tried_three_times_in_all() {
    let place = Place::with_functions(&[("meet", "echo attempt $ASYNCQ_ATTEMPT; exit 75")]);
    place.session(
        r#"
        $ asyncq enqueue events meet; asyncq process --wait-retries
        1
        attempt 1
        attempt 2
        attempt 3
        ! asyncq: job 1 (`events` `meet`): temporary failure (exit code 75) in all 3 attempts
        ? 1
        $ asyncq job show 1 --json
        {[..]"state":"error",[..]"attempt":3,[..]"error":{"kind":"conflict","message":"temporary failure (exit code 75) in all 3 attempts","exit_code":75,"signal":null},[..]"attempts":[{"attempt":1,[..]"ending":"conflict",[..]},{"attempt":2,[..]"ending":"conflict",[..]},{"attempt":3,[..]"ending":"conflict",[..]
        $ for n in 1 2 3; do asyncq job log 1 --attempt $n; done; asyncq job log 1 --attempt 4
        attempt 1
        attempt 2
        attempt 3
        ! error: job 1 has no attempt 4
        ! hint: `asyncq job show 1` shows all
        ? 66
        "#,
    );
}

#[test]
fn others_run_while_one_waits() {
    let place = Place::with_functions(&[
        ("meet", "echo attempt $ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 2 ] || exit 75"),
        ("hello", "echo hello"),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events meet; asyncq enqueue events hello
        1
        2
        $ asyncq process --max-jobs 2
        attempt 1
        hello
        $ asyncq process --wait-retries
        attempt 2
        $ asyncq job show 1 --json
        {[..]"state":"completed",[..]"attempt":2,[..]"error":null,[..]"attempts":[{"attempt":1,[..]"ending":"conflict",[..]},{"attempt":2,[..]"ending":"completed",[..]
        "#,
    );
}

#[test]
fn no_processor_waits_for_a_call_that_was_enqueued_for_later() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.insert("function, run_at", "'hello', 4102444800000");
    place.session(
        r#"
        $ asyncq process --wait-retries
        $ asyncq job list --json
        [
        {"id":1,[..]"state":"delayed",[..]"run_at":"2100-01-01T00:00:00.000Z",[..]
        ]
        "#,
    );
}

#[test]
fn retrying_by_hand_renews_the_budget() {
    let place = Place::with_functions(&[("meet", "exit 75"), ("fail", "exit 1"), ("fine", ":")]);
    place.session(
        r#"
        $ for f in meet fail fine; do asyncq enqueue events $f; done >/dev/null; asyncq process --wait-retries -q
        ? 1
        $ asyncq job retry 1 2 3
        ! error: job 3 is completed, nothing to retry
        ! hint: `asyncq job rerun 3` makes a new call of it
        ? 77
        $ asyncq job list --json
        [
        {"id":3,[..]"state":"completed",[..]
        {"id":2,[..]"state":"queued",[..]"attempt":1,[..]"finished_at":null,"result":null,"error":null,[..]
        {"id":1,[..]"state":"queued",[..]"attempt":3,[..]
        ]
        $ asyncq process --wait-retries -q
        ? 1
        $ asyncq job show 1 --json | tr '{' '\n' | grep -c '"ending":"conflict"'
        6
        "#,
    );
}

#[test]
fn a_failure_is_tried_again_as_often_as_its_function_says() {
    let place = Place::with_functions(&[("send", "echo attempt $ASYNCQ_ATTEMPT; exit 4")]);
    place.session(
        r#"
        $ asyncq function set events send --retries 2 --backoff 100ms
        $ asyncq function show events send | grep retr
        retries   2, with pauses of 100ms
        retry on  exit,error,signal,timeout,conflict
        $ asyncq function show events send --json | grep -o '"retries.*conflicts":[0-9]*'
        "retries":2,"backoff":"100ms","retry_on":"exit,error,signal,timeout,conflict","no_retry_on":null,"conflicts":3
        $ asyncq enqueue events send; asyncq process -v
        1
        attempt 1
        ! asyncq: job 1 (`events` `send`): exit code 4; retry 1 of 2 in 100ms
        ! asyncq: 1 attempt; 0 jobs ended in an error
        $ asyncq process --wait 1m
        attempt 2
        attempt 3
        ! asyncq: job 1 (`events` `send`): exit code 4
        ? 1
        $ asyncq job show 1 --json
        {[..]"state":"error",[..]"attempt":3,"failures":3,"conflicts":0,"crashes":0,[..]"error":{"kind":"exit","message":"exit code 4","exit_code":4,"signal":null},[..]"attempts":[{"attempt":1,[..]"ending":"error","error":{"kind":"exit",[..]},{"attempt":2,[..]"ending":"error",[..]},{"attempt":3,[..]"ending":"error",[..]
        $ asyncq job retry 1; asyncq process --wait-retries -q
        attempt 4
        attempt 5
        attempt 6
        ? 1
        "#,
    );
}

#[test]
fn only_listed_failures_are_tried_again() {
    let place = Place::with_functions(&[("send", "exit $1")]);
    place.session(
        r#"
        $ asyncq function set events send --retries 1 --backoff 1ms --retry-on 1,64-78,cannot-run --no-retry-on 66
        $ asyncq function show events send | grep -E 'ret|not'
        retries   1, with pauses of 1ms
        retry on  1,64-78,cannot-run
        not on    66
        $ for code in 1 2 66 78 127; do asyncq enqueue events send $code; done >/dev/null; asyncq process -q --wait 1m
        ? 1
        $ asyncq job list --json | grep id | grep -o '"args":[^]]*.\|"attempt":[0-9]*' | paste -d' ' - -
        "args":[127] "attempt":2
        "args":[78] "attempt":2
        "args":[66] "attempt":1
        "args":[2] "attempt":1
        "args":[1] "attempt":2
        "#,
    );
}

#[test]
fn a_conflict_has_a_budget_of_its_own() {
    let place = Place::with_functions(&[("meet", "[ $ASYNCQ_ATTEMPT -gt 3 ] || exit 75"), ("once", "exit 75")]);
    place.session(
        r#"
        $ asyncq function set events meet --conflicts 2 --retries 2 --backoff 1ms; asyncq function set events once --conflicts 1
        $ asyncq function show events meet | grep conflicts
        conflicts  tried 2 times in all
        $ asyncq enqueue events meet; asyncq enqueue events once; asyncq process --wait 1m
        1
        2
        ! asyncq: job 2 (`events` `once`): temporary failure (exit code 75)
        ? 1
        $ asyncq job show 1 --json
        {[..]"state":"completed",[..]"attempt":4,"failures":0,"conflicts":3,[..]
        $ asyncq job show 2 --json
        {[..]"state":"error",[..]"attempt":1,"failures":0,"conflicts":1,[..]
        "#,
    );
}

#[test]
fn a_policy_counts_from_the_next_failure_on_and_goes_away() {
    let place = Place::with_functions(&[("send", "exit 4")]);
    place.session(
        r#"
        $ asyncq function set events send --retries 5 --backoff 300ms; asyncq enqueue events send; asyncq process
        1
        $ asyncq function set events send --no-retries
        $ asyncq function show events send --json | grep -o '"retries.*conflicts":[0-9]*'
        "retries":0,"backoff":null,"retry_on":null,"no_retry_on":null,"conflicts":3
        $ asyncq process --wait 1m -q
        ? 1
        "#,
    );
    assert_eq!(place.jobs("attempt"), "2");
}

#[test]
fn what_says_nothing_about_retries_is_refused() {
    let place = Place::with_functions(&[("send", "exit 4")]);
    let help = "! hint: `asyncq function set --help` shows how";
    for (options, lines) in [
        (
            "--retry-on 256",
            [
                "! error: `--retry-on` cannot be `256`: `256` is not an exit code of a failure",
                "! hint: exit codes of failures are 1 to 255, as in `1,64-78`",
            ],
        ),
        ("--retries -1", ["! error: `--retries` cannot be `-1`: a number of retries is a whole number from 0", help]),
        (
            "--retries many",
            ["! error: `--retries` cannot be `many`: a number of retries is a whole number from 0", help],
        ),
        (
            "--retries 4294967296",
            [
                "! error: `--retries` cannot be `4294967296`: it is too large: a number of retries is at most 4294967295",
                help,
            ],
        ),
        (
            "--conflicts 0",
            ["! error: `--conflicts` cannot be `0`: a number of attempts is a whole number from 1", help],
        ),
        (
            "--retries 3 --backoff 1m,,1h",
            [
                "! error: `--backoff` cannot be `1m,,1h`: one of its pauses is empty",
                "! hint: write `1m`, `15s..1h` for pauses that double, or `1m,10m,1h` for one after the other",
            ],
        ),
        (
            "--retries 3 --backoff 1h..15s",
            [
                "! error: `--backoff` cannot be `1h..15s`: its lowest pause is above its highest",
                "! hint: put the shorter pause first: `15s..1h`",
            ],
        ),
        (
            "--backoff 1m",
            [
                "! error: `--backoff` says nothing about a function without retries",
                "! hint: add `--retries`, as in `--retries 5`",
            ],
        ),
        (
            "--retries 0 --no-retry-on 3",
            [
                "! error: `--no-retry-on` says nothing about a function without retries",
                "! hint: add `--retries`, as in `--retries 5`",
            ],
        ),
        ("--no-retries --retries 3", ["! error: `--no-retries` cannot be used with `--retries`", help]),
    ] {
        place.session(&format!("$ asyncq function set events send {options}\n{}\n{}\n? 2\n", lines[0], lines[1]));
    }
}
