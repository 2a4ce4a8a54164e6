//! Calls made inside running functions.

use crate::place::{Place, WORKER};

#[test]
fn children_are_recorded_with_their_parent() {
    let place = Place::with_functions(&[
        ("inner", "echo inner for $(asyncq whoami)"),
        ("outer", "asyncq enqueue events inner 5"),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer --principal zope.user
        1
        $ asyncq process
        inner for zope.user
        $ asyncq job show 2 --json
        {"id":2,"service":"events","function":"inner","args":[5],"kwargs":{},"principal":"zope.user","site":"/[..]","state":"completed","immediate":true,"parent":1,"attempt":1,[..]
        $ asyncq job show 1
        ...
        calls that it made:
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        2   events   inner     [5]        zope.user  completed  [..]
        $ asyncq job log 2
        inner for zope.user
        $ asyncq job retry 2
        ! error: job 2 ran at once, as a part of another job
        ! hint: `asyncq job retry 1` concerns the whole
        ? 77
        "#,
    );
}

#[test]
fn a_nested_call_prints_no_id_and_its_failure_is_an_exit_code() {
    let place = Place::with_functions(&[
        ("end", "exit $1"),
        ("outer", "for code in 0 75 3; do asyncq enqueue events end $code; echo \"$code: $?\"; done"),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer
        1
        $ asyncq process
        0: 0
        75: 75
        3: 1
        ! asyncq: job 3 (`events` `end`): temporary failure (exit code 75)
        ! asyncq: job 4 (`events` `end`): exit code 3
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        4   events   end       [3]        -          error      [..]
        3   events   end       [75]       -          error      [..]
        2   events   end       [0]        -          completed  [..]
        1   events   outer     []         -          completed  [..]
        $ asyncq job show 3 --json
        {[..]"error":{"kind":"conflict","message":"temporary failure (exit code 75)","exit_code":75,"signal":null},[..]
        "#,
    );
}

#[test]
fn the_result_of_a_nested_call_is_written_to_a_file() {
    let place = Place::with_functions(&[
        ("inner", r#"[ "$1" = none ] && exit; echo "$2" > "$ASYNCQ_RESULT"; exit $1"#),
        (
            "outer",
            r#"say() { printf '%s ' "$@"; cat out 2>/dev/null || echo no file; }
            echo 'before, and longer' > out
            asyncq -q enqueue --result-to out events inner 3 1; say failed $?
            asyncq -q enqueue --result-to out events inner 75 1; say conflict $?
            asyncq -q enqueue --result-to out events inner 0 '{"a": 1.10}'; say done $?
            asyncq -q enqueue --result-to out events inner none; say nothing $?
            rm -f out; echo; asyncq -q enqueue --result-to out events inner 3; say failed $?
            asyncq -q enqueue --result-to out events inner 0 7; say new $?
            asyncq enqueue --result-to /dev/stdout events inner 0 8 | cat
            asyncq enqueue --result-to no/out events inner 0 1; echo $?
            asyncq enqueue --result-to . events inner 0 1; echo $?
            asyncq enqueue --result-to /dev/full events inner 0 1; echo $?
            asyncq enqueue --result-to out --hold events inner 0 1; say held $?"#,
        ),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer
        1
        $ asyncq process
        failed 1 before, and longer
        conflict 75 before, and longer
        done 0 {"a":1.10}
        nothing 0 
        failed 1 no file
        new 0 7
        8
        74
        74
        74
        held 2 7
        ! error: cannot write to `no/out`: No such file or directory
        ! hint: the call was not run; give `--result-to` a file that you may write
        ! error: cannot write to `.`: Is a directory
        ! hint: the call was not run; give `--result-to` a file that you may write
        ! error: job 9 is completed, but its result cannot be written to `/dev/full`: No space left on device
        ! hint: `asyncq job result 9` prints it
        ! error: a call inside a running function runs at once, so it cannot be held
        ! hint: `asyncq enqueue --defer` queues the call instead of running it now
        $ asyncq enqueue --result-to out events inner 0
        ! error: outside of a running function, a call is queued and has no result yet
        ! hint: leave `--result-to` out; `asyncq job result ID` prints the result when the job has ended
        ? 2
        $ asyncq enqueue --result-to out --defer events inner 0
        ! error: `--result-to` cannot be used with `--defer`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq enqueue --result-to out --batch calls
        ! error: `--result-to` cannot be used with `--batch`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        "#,
    );
    assert_eq!(place.read("out"), "7\n");
}

#[test]
fn the_result_of_a_nested_call_of_a_worker_is_written_to_a_file() {
    let place = Place::with_functions(&[("outer", "asyncq enqueue --result-to out events work; cat out")]);
    place.program("work.py", &format!("{WORKER}serve(lambda call: {{'job': call['job']}})"));
    place.session(
        r#"
        $ asyncq function add events work --worker -- ./work.py
        $ asyncq enqueue events outer
        1
        $ asyncq process
        {"job": 2}
        "#,
    );
}

/// What its function did in its own transaction is undone.
#[test]
fn a_nested_call_whose_own_commit_is_missing_has_failed() {
    let place =
        Place::with_functions(&[("outer", "exec 2>&1; asyncq enqueue --result-to out events work || echo $?; ls out")]);
    let body = "
hello()
say(id=hear()['id'], result={'value': 1, 'completed': True})";
    place.program("work.py", &format!("{WORKER}{body}"));
    place.session(
        "
        $ asyncq function add events work --worker -- ./work.py
        $ asyncq enqueue events outer
        1
        $ asyncq process 2>&1 | grep -v outer
        asyncq: job 2 (`events` `work`): it said that it completed its job in its own transaction, but that was not committed
        1
        ls: cannot access 'out': No such file or directory
        ",
    );
    assert_eq!(place.jobs("state"), "error, error");
}

#[test]
fn it_runs_whatever_the_limits_of_its_service() {
    let place = Place::with_functions(&[
        ("inner", "echo inner"),
        ("outer", "asyncq enqueue other inner; asyncq enqueue events inner"),
    ]);
    place.session(
        "
        $ asyncq service add other; asyncq function add other inner -- ./inner; asyncq service pause other
        $ asyncq enqueue events outer; asyncq process
        1
        inner
        inner
        ",
    );
}

#[test]
fn deferring_queues() {
    let place = Place::with_functions(&[
        ("inner", "echo inner for $(asyncq whoami)"),
        ("outer", "asyncq enqueue --defer events inner"),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer --principal me; asyncq process
        1
        2
        inner for me
        $ asyncq job show 2 --json
        {"id":2,[..]"principal":"me",[..]"immediate":false,"parent":1,[..]
        $ asyncq enqueue --defer events inner
        3
        "#,
    );
}

#[test]
fn options_that_a_nested_call_cannot_have() {
    let place = Place::with_functions(&[
        ("inner", "echo inner"),
        (
            "outer",
            "asyncq enqueue events inner --principal root; asyncq enqueue --defer events inner --principal root;
            asyncq enqueue events inner --hold; asyncq enqueue events inner --key k; asyncq enqueue events innner",
        ),
    ]);
    place.session(
        "
        $ asyncq enqueue events outer; asyncq process
        1
        ! error: a call inside a running function has the principal of that function
        ! hint: leave `--principal` out
        ! error: a call inside a running function has the principal of that function
        ! hint: leave `--principal` out
        ! error: a call inside a running function runs at once, so it cannot be held
        ! hint: `asyncq enqueue --defer` queues the call instead of running it now
        ! error: a call inside a running function runs at once, so it takes no key
        ! hint: `asyncq enqueue --defer` queues the call instead of running it now
        ! error: service `events` has no function `innner`
        ! hint: did you mean `inner`? `asyncq function list events` shows all
        ! asyncq: job 1 (`events` `outer`): exit code 66
        ? 1
        ",
    );
}

#[test]
fn nesting_has_an_end() {
    let place = Place::with_functions(&[("again", "asyncq enqueue events again || exit 9")]);
    let output = place.run("asyncq enqueue events again; asyncq process");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with(
        "error: calls are nested too deep: at most 32 levels are allowed\n\
         hint: a function that calls itself needs an end; `--defer` queues a call instead of running it\n\
         asyncq: job 33 (`events` `again`): exit code 9\n"
    ));
    // Each call but the first one was made inside the one before it.
    let calls: Vec<String> = (2..=33).map(|id| format!("{id} {}", id - 1)).collect();
    assert_eq!(place.jobs("id parent"), format!("1, {}", calls.join(", ")));
}

#[test]
fn a_stale_or_forged_token_means_not_async() {
    let place = Place::with_functions(&[("leak", "env | grep '^ASYNCQ' > leaked"), ("hello", "echo hello")]);
    place.session(
        "
        $ asyncq enqueue events leak; asyncq process
        1
        $ set -a; . ./leaked; asyncq is-async; asyncq enqueue events hello
        false
        2
        $ ASYNCQ_JOB=2 ASYNCQ_TOKEN=00000000000000000000000000000000 asyncq is-async
        false
        ? 1
        $ ASYNCQ_JOB=x ASYNCQ_TOKEN= asyncq is-async
        false
        ? 1
        $ ASYNCQ_DB=$HOME/nowhere.db ASYNCQ_JOB=1 ASYNCQ_TOKEN=x asyncq is-async
        false
        ? 1
        ",
    );
}

#[test]
fn the_token_of_another_attempt_is_stale() {
    let place = Place::with_functions(&[(
        "twice",
        "if [ $ASYNCQ_ATTEMPT = 1 ]; then echo $ASYNCQ_TOKEN > first; exit 75; fi
         asyncq is-async; ASYNCQ_TOKEN=$(cat first) asyncq is-async; :",
    )]);
    place.session("$ asyncq enqueue events twice; asyncq process --wait-retries\n1\ntrue\nfalse");
}

#[test]
fn a_site_asked_for_by_the_caller_is_inherited() {
    let place = Place::with_functions(&[
        ("inner", "pwd | sed \"s|$HOME|~|\""),
        ("outer", "pwd | sed \"s|$HOME|~|\"; asyncq enqueue events inner"),
    ]);
    let absolute = place.at("inner").display().to_string();
    place.session(&format!(
        "
        $ asyncq function set events inner -- {absolute}; asyncq function set events outer -- $HOME/outer; mkdir elsewhere
        $ asyncq enqueue events outer; asyncq process
        1
        ~
        ~
        "
    ));
    place.insert("function, site", &format!("'outer', '{}'", place.at("elsewhere").display()));
    place.session(
        r#"
        $ asyncq process
        ~/elsewhere
        ~/elsewhere
        $ asyncq job show 4 --json
        {"id":4,[..]"site":"/[..]/elsewhere",[..]"immediate":true,"parent":3,[..]
        "#,
    );
}

#[test]
fn a_child_that_is_killed_ends_with_its_parent() {
    let place = Place::with_functions(&[
        ("inner", "kill -9 $PPID; sleep 1000"),
        ("outer", "asyncq enqueue events inner; echo \"asyncq ended with $?\""),
    ]);
    place.session(
        r#"
        $ asyncq enqueue events outer; asyncq process 2>/dev/null
        1
        asyncq ended with 137
        $ asyncq job show 2 --json
        {[..]"state":"error",[..]"error":{"kind":"parent","message":"job 1, which made this call, ended first","exit_code":null,"signal":null},[..]
        "#,
    );
}
