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
        ! hint: enqueue the call once more to run it once more
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
