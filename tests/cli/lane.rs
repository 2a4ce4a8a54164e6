//! Lanes, and calls that wait for others.

use crate::place::Place;

fn place() -> Place {
    Place::with_functions(&[("say", "echo $1"), ("fail", "exit 3"), ("show", "sleep 0; echo $1")])
}

#[test]
fn of_one_lane_one_call_runs_at_a_time_in_its_order() {
    let place = place();
    place.session(
        r#"
        $ asyncq service set events --concurrency 4
        $ for n in 1 2 3; do asyncq enqueue events say $n --lane a; done; asyncq enqueue events say 4 --lane b
        1
        2
        3
        4
        $ asyncq job list --json | grep id | cut -d, -f1,8
        {"id":4,"state":"queued"
        {"id":3,"state":"blocked"
        {"id":2,"state":"blocked"
        {"id":1,"state":"queued"
        $ asyncq job show 3 | grep -E 'state|why|lane'
        state      blocked
        why        lane: its lane `a` is taken by job 1; 1 call comes first: `asyncq explain 1`
        lane       a
        $ asyncq process | sort
        1
        2
        3
        4
        "#,
    );
    assert_eq!(place.jobs("state"), "completed, completed, completed, completed");
}

#[test]
fn a_lane_of_a_function_has_the_principal_in_it() {
    let place = place();
    place.session(
        r#"
        $ asyncq function set events say --lane 'for {principal}'
        $ asyncq function show events say --json | grep -o '"lane":"[^"]*"'
        "lane":"for {principal}"
        $ asyncq enqueue events say 1 --principal zoe; asyncq enqueue events say 2 --principal zoe
        1
        2
        $ asyncq enqueue events say 3 --principal bob; asyncq enqueue events say 4 --principal zoe --lane own
        3
        4
        $ asyncq job show 2 | grep -E 'state|lane  '
        state      blocked
        lane       for zoe
        $ asyncq function set events say --no-lane; asyncq enqueue events say 5 --principal zoe
        5
        $ asyncq process
        1
        3
        4
        5
        2
        "#,
    );
}

#[test]
fn more_calls_of_a_lane_run_at_once_when_it_is_wider() {
    let place = place();
    place.session(
        "
        $ asyncq service set events --concurrency 4 --lane-width 2
        $ asyncq service show events | grep -E 'conc|lane'
        concurrency  4
        lane width   2
        $ for n in 1 2 3; do asyncq enqueue events say $n --lane a; done
        1
        2
        3
        $ asyncq job cancel 1; asyncq job show 3 | grep state
        state      queued
        ",
    );
    assert_eq!(place.jobs("state"), "cancelled, queued, queued");
}

#[test]
fn a_call_runs_after_those_that_it_needs() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1; asyncq enqueue events say 2
        1
        2
        $ asyncq enqueue events say 3 --after 1-2; echo 3 | asyncq enqueue events say 4 --after -
        3
        4
        $ asyncq job show 3 | grep -E 'state|why|after'
        state      blocked
        why        after: it waits for jobs 1 and 2: `asyncq explain 1`
        after      [1,2]
        $ asyncq process
        1
        2
        3
        4
        $ asyncq enqueue events say 5 --after 1; asyncq process
        5
        5
        ",
    );
}

#[test]
fn a_call_cannot_wait_for_its_own_number() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1 --after 1
        ! error: there is no job 1 to wait for
        ! hint: a job that was cleaned away had ended: leave it out
        ? 66
        $ asyncq enqueue events say 1
        1
        $ asyncq enqueue events say 2 --after 2
        ! error: there is no job 2 to wait for
        ! hint: a job that was cleaned away had ended: leave it out
        ? 66
        $ asyncq enqueue events say 2 --after-any 1-2
        ! error: there is no job 2 to wait for
        ! hint: a job that was cleaned away had ended: leave it out
        ? 66
        $ asyncq process
        1
        ",
    );
    assert_eq!(place.jobs("state"), "completed");
}

#[test]
fn a_failure_cancels_what_needs_it_and_a_retry_revives_that() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events fail
        1
        $ asyncq enqueue events say 2 --after 1; asyncq enqueue events say 3 --after 2
        2
        3
        $ asyncq enqueue events say 4 --after-any 1; asyncq enqueue events say 5 --after-failed 1
        4
        5
        $ asyncq process 2> /dev/null
        4
        5
        ? 1
        $ asyncq job show 2 | grep -E '^(state|error)'; asyncq job show 3 | grep error
        state      cancelled
        error      job 1, which this needs, ended in an error
        error      job 2, which this needs, was cancelled
        $ asyncq enqueue events say 6 --after 1
        ! error: job 1, which this call needs, ended in an error
        ! hint: `asyncq job retry 1` runs it again; `--after-any 1` waits for its end only
        ? 77
        $ asyncq function set events fail -- echo good
        $ asyncq job retry 1
        ! asyncq: job 1 is queued; 2 calls that need it wait again
        $ asyncq process
        good
        2
        3
        ",
    );
    assert_eq!(place.jobs("state"), "completed, completed, completed, completed, completed");
}

#[test]
fn a_call_after_a_failure_is_cancelled_by_a_success() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1; asyncq enqueue events say 2 --after-failed 1; asyncq process
        1
        2
        1
        $ asyncq job show 2 | grep error
        error      job 1, after whose failure this was to run, has completed
        $ asyncq enqueue events say 3 --after-failed 1
        ! error: job 1 has completed, so this call would never run
        ! hint: leave it out
        ? 77
        ",
    );
}

#[test]
fn a_blocked_call_can_be_started_without_what_it_needs() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1 --hold; asyncq enqueue events say 2 --after 1 --lane a
        1
        2
        $ asyncq job start 2; asyncq process
        2
        $ asyncq enqueue events say 3 --after 1 --hold; asyncq job start 3; asyncq job cancel 1
        3
        $ asyncq job show 3 | grep -E '^(state|error)'
        state      cancelled
        error      job 1, which this needs, was cancelled
        $ asyncq enqueue events say 4 --lane b; asyncq enqueue events say 5 --lane b; asyncq job start 5
        4
        5
        ! error: job 5 is blocked, not held
        ! hint: it waits for its turn in its lane
        ? 77
        ",
    );
}

#[test]
fn what_a_call_cannot_wait_for() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events say 1
        1
        $ asyncq enqueue events say 2 --after 7
        ! error: there is no job 7 to wait for
        ! hint: a job that was cleaned away had ended: leave it out
        ? 66
        $ asyncq enqueue events say 2 --after x
        ! error: `x` is not the number of a job
        ! hint: write numbers of jobs and ranges, as in 7,9-12
        ? 2
        $ asyncq enqueue events say 2 --after 1 --after-any 1
        ! error: job 1 is named twice among those to wait for
        ! hint: name each job once
        ? 2
        $ asyncq enqueue events say 2 --after 1-1000000
        ! error: a call can wait for at most 100000 jobs
        ! hint: enqueue them with `--batch FILE --then`
        ? 2
        $ asyncq enqueue events say 2 --lane ''
        ! error: `` cannot be a lane
        ! hint: a lane is 1 to 255 bytes of text without control characters
        ? 2
        $ asyncq job list --output csv | wc -l
        2
        ",
    );
}

#[test]
fn a_batch_has_lanes_and_needs() {
    let place = place();
    place.session(
        r#"
        $ echo '{"service":"events","function":"say","args":[1],"lane":"a"}' > calls
        $ echo '{"service":"events","function":"say","args":[2],"lane":"a"}' >> calls
        $ asyncq enqueue --batch calls
        1
        2
        $ echo '{"service":"events","function":"say","args":[3],"after":[1,2]}' > calls
        $ echo '{"service":"events","function":"say","args":[4],"after":{"any":[3]}}' >> calls
        $ asyncq enqueue --batch calls; asyncq process
        3
        4
        1
        2
        3
        4
        $ echo '{"service":"events","function":"say","after":"7"}' | asyncq enqueue --batch -
        ! error: line 1: `after` is not a list of job numbers; nothing was enqueued
        ! hint: write "after":[7,8], or "after":{"ok":[7],"any":[8],"failed":[9]}
        ? 65
        "#,
    );
}

#[test]
fn lines_of_a_batch_wait_for_each_other_by_their_names() {
    let place = place();
    place.session(
        r#"
        $ echo '{"service":"events","function":"say","args":[1],"name":"a"}' > calls
        $ echo '{"service":"events","function":"say","args":[2],"name":"b","after":["a"]}' >> calls
        $ echo '{"service":"events","function":"say","args":[3],"after":{"ok":["a"],"any":["b"]}}' >> calls
        $ asyncq enqueue --batch calls --atomic; asyncq enqueue --batch calls --batch-size 1
        1
        2
        3
        4
        5
        6
        $ asyncq job show 6 | grep ^after
        after      {"any":[5],"ok":[4]}
        $ asyncq process | sort
        1
        1
        2
        2
        3
        3
        $ echo '{"service":"events","function":"say","after":["c"]}' | asyncq enqueue --batch -
        ! error: line 1: no earlier line has the name `c`; nothing was enqueued
        ! hint: a line can only wait for lines before it, and for jobs by their numbers
        ? 65
        $ echo '{"service":"events","function":"say","name":"a"}' >> calls; asyncq enqueue --batch calls --atomic
        ! error: line 4: an earlier line has the name `a`, too; nothing was enqueued
        ! hint: give each line a name of its own
        ? 65
        "#,
    );
}

#[test]
fn a_call_runs_after_a_whole_batch() {
    let place = place();
    place.session(
        r#"
        $ for n in 1 2 3; do echo '{"service":"events","function":"say","args":["'$n'"]}'; done > calls
        $ asyncq enqueue --batch calls --then events say last
        1
        2
        3
        4
        $ asyncq enqueue --batch calls --atomic --then events say again
        5
        6
        7
        8
        $ asyncq job show 4 | grep -E 'state|why|after'
        state      blocked
        why        after: it waits for jobs 1, 2 and 3: `asyncq explain 1`
        after      [[1,3]]
        $ asyncq job list --needed-by 8 --json | grep -o '"id":[0-9]*'; asyncq job list --needed-by 4 --limit 1 --json | grep -o '"id":[0-9]*'
        "id":7
        "id":6
        "id":5
        "id":3
        $ asyncq job list --needed-by 4 --state error --json; asyncq job list --needed-by 1 --json; asyncq job list --needed-by 4 --before 3 --json | grep -o '"id":[0-9]*'
        [
        ]
        [
        ]
        "id":2
        "id":1
        $ asyncq job list --needed-by 99
        ! error: there is no job 99
        ! hint: the newest is 8; `asyncq job list` shows which there are
        ? 66
        $ asyncq process | sort | tail -n 2
        again
        last
        $ echo '{"service":"events","function":"fail"}' > calls; asyncq enqueue --batch calls --then events say last
        9
        10
        $ asyncq process 2> /dev/null
        ? 1
        $ asyncq job show 10 | grep error
        error      job 9, which this needs, ended in an error
        $ asyncq function set events fail -- echo good; asyncq job retry 9; asyncq process
        good
        last
        ! asyncq: job 9 is queued; 1 call that needs it waits again
        $ asyncq enqueue --batch /dev/null --then events say nothing; asyncq process
        11
        nothing
        $ asyncq enqueue --batch calls events say
        ! error: with `--batch`, the calls come from the file
        ! hint: `--then` enqueues a call on the command line after them
        ? 2
        $ asyncq enqueue --batch calls --then events male
        ! error: service `events` has no function `male`
        ! hint: `asyncq function list events` shows all
        ? 66
        "#,
    );
}

#[test]
fn a_retry_revives_no_call_that_somebody_cancelled() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events fail; asyncq enqueue events say 2 --after 1; asyncq job cancel 2
        1
        2
        $ asyncq process 2> /dev/null
        ? 1
        $ asyncq job retry 1; asyncq job show 2 | grep state
        state      cancelled
        ",
    );
}

#[test]
fn all_calls_that_need_a_job_learn_of_its_end_in_one_run() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events fail
        1
        $ for n in $(seq 1500); do echo '{"service":"events","function":"say","after":[1]}'; done > calls
        $ asyncq enqueue --batch calls | wc -l; asyncq enqueue events say alert --after-failed 1
        1500
        1502
        $ asyncq process 2> /dev/null
        alert
        ? 1
        $ asyncq job clean; asyncq job list --output csv | wc -l
        1
        "#,
    );
}
