//! Hooks: functions that are called when a job ends for good.

use crate::place::{COMPLETES, Place, wait_until};

/// A service `mails` with a function that ends as its argument says, and hooks on another service.
fn place() -> Place {
    let place = Place::with_functions(&[("end", "exit $1")]);
    place.stdout("asyncq service add alerts");
    place.stdout("asyncq function add alerts page -- sh -c 'echo page \"$@\"' sh");
    place
}

#[test]
fn a_hook_is_called_when_a_job_ends_for_good() {
    let place = place();
    place.session(
        r#"
        $ asyncq function set events end --on-error alerts/page --retries 1 --backoff 1ms
        $ asyncq function show events end | grep 'on e'
        on error  alerts/page
        $ asyncq function show events end --json | grep -o '"on_error.*on_success":[^,]*'
        "on_error":"alerts/page","on_success":null
        $ asyncq enqueue events end 0 --principal zoe; asyncq enqueue events end 4 --principal zoe
        1
        2
        $ asyncq process events --wait 1m
        ! asyncq: job 2 (`events` `end`): exit code 4
        ? 1
        $ asyncq process alerts
        page 2 --attempt=2 --function=end --kind=exit --message=exit code 4 --service=events --state=error
        $ asyncq job show 3 --json
        {"id":3,"service":"alerts","function":"page","args":[2],"kwargs":{"attempt":2,"function":"end","kind":"exit","message":"exit code 4","service":"events","state":"error"},"principal":"zoe",[..]"state":"completed","immediate":false,"parent":2,[..]"os_user":null,[..]
        $ asyncq job list --json | grep -c id
        3
        "#,
    );
}

#[test]
fn a_success_has_a_hook_too_and_a_service_has_them_for_its_functions() {
    let place = place();
    place.session(
        r#"
        $ asyncq function add alerts cheer -- sh -c 'echo cheer "$@"' sh
        $ asyncq service set events --on-error alerts/page --on-success alerts/cheer
        $ asyncq service show events | grep on
        concurrency  1
        on error     alerts/page
        on success   alerts/cheer
        $ asyncq service show events --json | grep -o '"on_error.*on_success":[^,]*'
        "on_error":"alerts/page","on_success":"alerts/cheer"
        $ asyncq enqueue events end 0; asyncq enqueue events end 1; asyncq process -q events; asyncq process alerts
        1
        2
        cheer 1 --attempt=1 --function=end --kind=null --message=null --service=events --state=completed
        page 2 --attempt=1 --function=end --kind=exit --message=exit code 1 --service=events --state=error
        $ asyncq function set events end --on-success alerts/page; asyncq service set events --no-on-error
        $ asyncq enqueue events end 0; asyncq enqueue events end 1; asyncq process -q events; asyncq process alerts
        5
        6
        page 5 --attempt=1 --function=end --kind=null --message=null --service=events --state=completed
        "#,
    );
}

#[test]
fn the_end_of_a_hook_calls_none() {
    let place = place();
    place.session(
        r"
        $ asyncq function set events end --on-error events/end --on-success events/end
        $ asyncq enqueue events end 0; asyncq enqueue events end 1; asyncq process -q
        1
        2
        ? 1
        $ asyncq job list --json | grep -c id
        4
        $ asyncq function remove events end
        ",
    );
}

#[test]
fn nested_calls_and_cancelled_ones_have_none() {
    let place = place();
    place.function("outer", "", "asyncq enqueue events end 1; exit 0");
    place.session(
        r"
        $ asyncq function set events end --on-error alerts/page --on-success alerts/page
        $ asyncq enqueue events outer; asyncq process -q events; asyncq enqueue events end 1; asyncq job cancel 3
        1
        3
        ! asyncq: job 2 (`events` `end`): exit code 1
        $ asyncq job list --json | grep -c id
        3
        ",
    );
}

#[test]
fn a_call_that_cannot_run_has_a_hook() {
    let place = place();
    place.session(
        r"
        $ asyncq service set events --on-error alerts/page
        ",
    );
    place.insert("function, args", r#"'end', '["\ud800"]'"#);
    place.session(
        r"
        $ asyncq process -q events; asyncq process alerts | cut -c 1-60
        page 1 --attempt=1 --function=end --kind=bad-call --message=
        ",
    );
}

#[test]
fn what_is_a_hook_is_not_removed() {
    let place = place();
    place.session(
        r"
        $ asyncq function set events end --on-error alerts/page
        $ asyncq function remove alerts page --force
        ! error: function `page` of service `alerts` is a hook of function `end` of service `events`
        ! hint: `asyncq function set events end` with `--no-on-error` or `--no-on-success` takes the hook away
        ? 77
        $ asyncq service remove alerts --force
        ! error: a function of service `alerts` is a hook of function `end` of service `events`
        ! hint: `asyncq function set events end` with `--no-on-error` or `--no-on-success` takes the hook away
        ? 77
        $ asyncq function set events end --no-on-error; asyncq service set events --on-success alerts/page
        $ asyncq function remove alerts page
        ! error: function `page` of service `alerts` is a hook of service `events`
        ! hint: `asyncq service set events` with `--no-on-error` or `--no-on-success` takes the hook away
        ? 77
        $ asyncq service remove alerts
        ! error: a function of service `alerts` is a hook of service `events`
        ! hint: `asyncq service set events` with `--no-on-error` or `--no-on-success` takes the hook away
        ? 77
        $ asyncq service remove events && asyncq service remove alerts
        ",
    );
}

#[test]
fn what_cannot_be_a_hook_is_refused() {
    let place = place();
    place.session(
        r"
        $ asyncq function set events end --on-error page
        ! error: `--on-error` cannot be `page`: a hook is SERVICE/FUNCTION
        ! hint: name the service and the function, as in `alerts/page`
        ? 2
        $ asyncq function set events end --on-error alerts/pgae
        ! error: service `alerts` has no function `pgae`, which is to be a hook
        ! hint: `asyncq function list alerts` shows all; add it first
        ? 66
        $ asyncq function add events more --on-success nowhere/page -- /bin/true
        ! error: service `nowhere` has no function `page`, which is to be a hook
        ! hint: `asyncq function list nowhere` shows all; add it first
        ? 66
        $ asyncq service set events --on-success alerts/pgae
        ! error: service `alerts` has no function `pgae`, which is to be a hook
        ! hint: `asyncq function list alerts` shows all; add it first
        ? 66
        $ asyncq service add more --on-success alerts/pgae
        ! error: service `alerts` has no function `pgae`, which is to be a hook
        ! hint: `asyncq function list alerts` shows all; add it first
        ? 66
        $ asyncq service add events --on-error alerts/page
        ! error: service `events` exists with no hook on error
        ! hint: `asyncq service set events --on-error alerts/page` changes it
        ? 77
        $ asyncq function set events end --on-error alerts/page --no-on-error
        ! error: `--on-error` cannot be used with `--no-on-error`
        ! hint: `asyncq function set --help` shows how
        ? 2
        $ asyncq function list --output csv | wc -l; asyncq service list --output csv | wc -l
        3
        3
        ",
    );
}

#[test]
fn a_kill_between_an_end_and_its_hook_leaves_neither_or_both() {
    for point in ["hook due", "hook called"] {
        let place = place();
        place.stdout("asyncq function set events end --on-error alerts/page; asyncq enqueue events end 1");
        place.run(&format!("ASYNCQ_FAILPOINT='{point}=kill' asyncq process events"));
        assert_eq!(place.jobs("state"), "processing", "{point}");
        // The end is noted, so that the next processor records it with its hook.
        place.run("asyncq process events");
        assert_eq!(place.jobs("state attempt"), "error 1, queued 0", "{point}");
        place.run("ASYNCQ_FAILPOINT='transaction committed=kill' asyncq process alerts; asyncq process");
        assert_eq!(place.jobs("state"), "error, completed", "{point}");
    }
}

#[test]
fn a_job_that_completed_itself_before_its_processor_died_calls_its_hook_once() {
    let place = place();
    place.function("own", "--on-success alerts/page", &format!("{COMPLETES}; touch done; sleep 1000"));
    place.stdout("asyncq enqueue events own --principal zoe");
    let process = place.start("asyncq process events");
    wait_until("it has completed itself", || place.at("done").exists());
    process.signal("KILL");
    drop(process);
    place.session(
        r#"
        $ asyncq process events
        $ asyncq process events
        $ asyncq process alerts
        page 1 --attempt=1 --function=own --kind=null --message=null --service=events --state=completed
        $ asyncq job show 2 --json
        {"id":2,[..]"principal":"zoe",[..]"parent":1,[..]
        $ asyncq job list --json | grep -c id
        2
        "#,
    );
}
