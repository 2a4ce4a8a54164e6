//! Functions that ask to run later.

use crate::place::Place;

#[test]
fn a_function_that_asks_to_run_later_does_and_no_attempt_counts() {
    let place = Place::with_functions(&[(
        "fetch",
        "echo attempt $ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 5 ] && exit; echo 100ms > \"$ASYNCQ_LATER\"; exit 75",
    )]);
    place.session(
        r#"
        $ asyncq enqueue events fetch; asyncq process -v
        1
        attempt 1
        ! asyncq: job 1 (`events` `fetch`): it asks to run later; runs again in 100ms, and no attempt counts
        ! asyncq: 1 attempt; 0 jobs ended in an error
        $ asyncq process --wait 1m
        attempt 2
        attempt 3
        attempt 4
        attempt 5
        $ asyncq job show 1 --json
        {[..]"state":"completed",[..]"attempt":5,"failures":0,"conflicts":0,"crashes":0,[..]"attempts":[{"attempt":1,[..]"ending":"snoozed","error":null,[..]},{[..]"ending":"snoozed",[..]},{[..]"ending":"snoozed",[..]},{[..]"ending":"snoozed",[..]},{"attempt":5,[..]"ending":"completed",[..]
        "#,
    );
}

#[test]
fn it_may_name_a_time() {
    let place = Place::with_functions(&[("fetch", "echo \"$1\" > \"$ASYNCQ_LATER\"; exit 75")]);
    place.session(
        r#"
        $ asyncq enqueue events fetch 10m; asyncq enqueue events fetch tomorrow; asyncq enqueue events fetch 366d
        1
        2
        3
        $ TZ=Europe/Berlin asyncq process -v
        ! asyncq: job 1 (`events` `fetch`): it asks to run later; runs again in [..]m, and no attempt counts
        ! asyncq: job 2 (`events` `fetch`): it asks to run later; runs again in [..], and no attempt counts
        ! asyncq: job 3 (`events` `fetch`): it asks to run later; runs again in 36[..]d, and no attempt counts
        ! asyncq: 3 attempts; 0 jobs ended in an error
        $ asyncq job list --json | grep -o '"state":"[a-z]*"\|T2[23]:00'
        "state":"delayed"
        "state":"delayed"
        T23:00
        "state":"delayed"
        "#,
    );
}

#[test]
fn what_is_neither_a_span_nor_a_time_is_a_conflict_that_says_so() {
    let place = Place::with_functions(&[
        ("nonsense", "echo nonsense > \"$ASYNCQ_LATER\"; exit 75"),
        ("large", "head -c 1000000 /dev/zero > \"$ASYNCQ_LATER\"; exit 75"),
        ("folder", "mkdir \"$ASYNCQ_LATER\"; exit 75"),
        ("bytes", "printf '\\377' > \"$ASYNCQ_LATER\"; exit 75"),
        ("pipe", "mkfifo \"$ASYNCQ_LATER\"; exit 75"),
        ("link", "ln -s /etc/hostname \"$ASYNCQ_LATER\"; exit 75"),
        ("far", "echo 367d > \"$ASYNCQ_LATER\"; exit 75"),
        ("empty", ": > \"$ASYNCQ_LATER\"; exit 75"),
    ]);
    place.session(
        r#"
        $ for f in nonsense large folder bytes pipe link far empty; do
        >   asyncq function set events $f --conflicts 1; asyncq enqueue events $f
        > done >/dev/null
        $ asyncq process
        ! asyncq: job 1 (`events` `nonsense`): exit code 75 with a bad `$ASYNCQ_LATER`: `nonsense` is neither a span, as in `10m`, nor a time
        ! asyncq: job 2 (`events` `large`): exit code 75 with a bad `$ASYNCQ_LATER`: it has more than 1024 bytes
        ! asyncq: job 3 (`events` `folder`): exit code 75 with a bad `$ASYNCQ_LATER`: it is not a regular file
        ! asyncq: job 4 (`events` `bytes`): exit code 75 with a bad `$ASYNCQ_LATER`: it is not UTF-8
        ! asyncq: job 5 (`events` `pipe`): exit code 75 with a bad `$ASYNCQ_LATER`: it is not a regular file
        ! asyncq: job 6 (`events` `link`): exit code 75 with a bad `$ASYNCQ_LATER`: it is unreadable: [..]
        ! asyncq: job 7 (`events` `far`): exit code 75 with a bad `$ASYNCQ_LATER`: it asks to run more than 366 days later
        ! asyncq: job 8 (`events` `empty`): temporary failure (exit code 75)
        ? 1
        $ asyncq job list --json | grep -c '"failures":0,"conflicts":1'
        8
        "#,
    );
    place.session(
        r"
        $ asyncq function set events nonsense --conflicts 3; asyncq job retry 1; asyncq process -v
        ! asyncq: job 1 (`events` `nonsense`): exit code 75 with a bad `$ASYNCQ_LATER`: `nonsense` is neither a span, as in `10m`, nor a time; tried again in [..]s
        ! asyncq: 1 attempt; 0 jobs ended in an error
        ",
    );
}

#[test]
fn without_exit_code_75_it_counts_for_nothing() {
    let place = Place::with_functions(&[("fetch", "echo 10m > \"$ASYNCQ_LATER\"; exit $1")]);
    place.session(
        r"
        $ asyncq enqueue events fetch 0; asyncq enqueue events fetch 4; asyncq process -v
        1
        2
        ! asyncq: job 1 (`events` `fetch`): completed after [..]; it wrote to `$ASYNCQ_LATER`, which counts only with exit code 75
        ! asyncq: job 2 (`events` `fetch`): exit code 4
        ! asyncq: 2 attempts; 1 job ended in an error
        ? 1
        ",
    );
}

#[test]
fn a_call_inside_another_one_cannot_run_later() {
    let place = Place::with_functions(&[
        ("inner", "echo 10m > \"$ASYNCQ_LATER\"; exit 75"),
        ("outer", "asyncq enqueue events inner; echo $?"),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer; asyncq process
        1
        75
        ! asyncq: job 2 (`events` `inner`): it asks to run 10m later (exit code 75)
        $ asyncq job show 2 --json
        {[..]"state":"error",[..]"conflicts":1,[..]"error":{"kind":"conflict","message":"it asks to run 10m later (exit code 75)","exit_code":75,[..]"ending":"conflict",[..]
        "#,
    );
}

#[test]
fn a_cancelled_job_does_not_run_later() {
    let place = Place::with_functions(&[("fetch", "asyncq job cancel 1 -q; echo 10m > \"$ASYNCQ_LATER\"; exit 75")]);
    place.stdout("asyncq enqueue events fetch");
    place.run("asyncq process");
    assert_eq!(place.jobs("state"), "cancelled");
}
