//! `asyncq run`: commands that nobody has defined as functions.

use crate::place::{Place, wait_until};

#[test]
fn a_command_runs_later_in_its_folder() {
    Place::new().session(
        r#"
        $ mkdir work; cd work; asyncq run sh -c 'echo "$1 in $(basename $PWD)"' -- 'two words'
        1
        ! asyncq: created the store `[..]/queue.db`
        ! asyncq: added the service `shell` with the function `run`
        $ asyncq run -- printf '%s|' 007 true -x '{"a":1}' "it's"
        2
        $ cd /; asyncq process
        two words in work
        007|true|-x|{"a":1}|it's|
        $ asyncq run -c 'echo a b | tr a-z A-Z; cat'; asyncq process shell
        3
        A B
        $ asyncq job show 3 | grep -E 'service|function'
        service    shell
        function   run
        $ asyncq function show shell run | grep -E 'local|command|stdin|takes'
        command   /[..]/env --
        stdin     none
        takes     word...
        local     only for programs that open the store themselves
        "#,
    );
}

#[test]
fn a_call_without_a_command_is_refused() {
    Place::new().session(
        "
        $ asyncq -q run true
        1
        $ asyncq enqueue shell run
        ! error: `shell run` takes at least 1 argument, you gave 0
        ! hint: usage: asyncq enqueue shell run word...
        ? 2
        $ asyncq enqueue shell run printf '%s %s' 7 x; asyncq process
        2
        7 x
        ",
    );
}

#[test]
fn a_command_gets_the_variables_that_it_is_given() {
    let mut place = Place::new();
    place.set("KEPT", "as it was");
    place.set("LOST", "secret");
    place.session(
        r#"
        $ asyncq run --env KEPT --env OTHER='x = y' sh -c 'echo "$KEPT, $OTHER,$LOST"' 2> said
        1
        $ KEPT=changed LOST= asyncq process
        as it was, x = y,
        $ asyncq run --env MISSING true
        ! error: the environment variable `MISSING` is not set
        ! hint: `--env MISSING=VALUE` records a value
        ? 2
        $ asyncq run --env ASYNCQ_JOB=7 true
        ! error: `ASYNCQ_JOB` is set by asyncq itself
        ! hint: record a variable with another name
        ? 2
        "#,
    );
}

#[test]
fn what_cannot_be_run_is_refused_and_makes_nothing() {
    let place = Place::new();
    place.write("a=b", "true");
    place.stdout("chmod +x a=b; echo > plain");
    place.session(
        "
        $ asyncq run
        ! error: `asyncq run` needs `CMD`
        ! hint: [..]
        ? 2
        $ asyncq run -c ''
        ! error: `-c` cannot be ``: it is empty
        ! hint: give a script, as in `asyncq run -c './fetch | sort'`
        ? 2
        $ asyncq run -c ' '
        ! error: `-c` cannot be ` `: it is empty
        ! hint: give a script, as in `asyncq run -c './fetch | sort'`
        ? 2
        $ asyncq run ''
        ! error: a program needs a name
        ! hint: name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`
        ? 2
        $ asyncq run no-such-program
        ! error: there is no program `no-such-program` in `$PATH`
        ! hint: [..]
        ? 66
        $ asyncq run 'ls | wc'
        ! error: there is no program `ls | wc`
        ! hint: `asyncq run -c 'a | b'` runs a script of the shell
        ? 66
        $ asyncq run ./plain
        ! error: `[..]/plain` is not executable
        ! hint: [..]
        ? 77
        $ asyncq run ./a=b
        ! error: the path of the program has a `=`: `[..]/a=b`
        ! hint: `env` would take it for a variable: run it with `asyncq run -c '...'`
        ? 2
        $ mkdir gone; cd gone; rmdir ../gone; asyncq run true
        ! error: [..]
        ! hint: [..]
        ? 66
        $ asyncq run --timeout 1s true
        ! error: `--timeout` needs `--wait`
        ! hint: [..]
        ? 2
        $ asyncq status
        ! error: there is no store at `[..]`
        ! hint: [..]
        ? 69
        ",
    );
}

#[test]
fn a_service_without_the_function_means_no() {
    Place::new().session(
        "
        $ asyncq service add shell 2> said
        $ asyncq run true
        ! error: service `shell` has no function `run` for `asyncq run`
        ! hint: `asyncq function add shell run --local --takes word... --stdin none -- env --` adds it
        ? 77
        $ asyncq function add shell run --local --takes word... --stdin none -- env --; asyncq run echo said; asyncq process
        1
        said
        $ asyncq run --service other echo other; asyncq process other
        2
        other
        ! asyncq: added the service `other` with the function `run`
        $ asyncq function set shell run --no-local; asyncq function show shell run | grep -c local
        0
        ? 1
        ",
    );
}

#[test]
fn run_waits_and_has_the_success_of_the_command() {
    Place::new().session(
        "
        $ asyncq run --start --wait -- sh -c 'echo out; echo err >&2' 2> said; tail -n 1 said
        out
        err
        $ asyncq run --start --wait false
        ! asyncq: job 2 (`shell` `run`): exit code 1
        ? 1
        $ asyncq run --wait --timeout 0 true
        ! error: job 3 has not ended in time: it is queued
        ! hint: [..]
        ? 75
        ",
    );
}

#[test]
fn started_processors_run_all_commands_and_leave_none_behind() {
    let place = Place::new();
    place.stdout("asyncq service add shell --concurrency 2");
    place.stdout("asyncq function add shell run --local --takes word... --stdin none -- env --");
    let runs: Vec<_> = (0..20).map(|_| place.start("asyncq run --start sh -c 'echo x >> did'")).collect();
    for run in runs {
        let output = run.wait();
        assert!(output.status.success(), "{output:?}");
    }
    wait_until("all have run", || place.count("--state completed") == 20);
    assert_eq!(place.read("did").len(), 40);
    wait_until("no processor is left", || place.processors() == 0);
}

#[test]
fn a_crowd_that_runs_the_first_commands_of_a_store_adds_the_function_once() {
    let place = Place::new();
    let runs: Vec<_> = (0..16).map(|_| place.start("asyncq run true")).collect();
    for run in runs {
        let output = run.wait();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(place.count("--state queued --limit 0"), 16);
}

#[test]
fn a_processor_is_started_for_what_a_call_waits_for() {
    let place = Place::new();
    place.stdout("asyncq run --lane a true; asyncq run --start --lane a true; asyncq run --start --after 1 true");
    wait_until("all have run", || place.count("--state completed") == 3);
}

#[test]
fn start_says_what_it_does_not_help() {
    Place::new().session(
        "
        $ asyncq run --start --in 1h true 2> said; tail -n 1 said
        1
        asyncq: `--start` does not help job 1: it is due at [..]
        $ asyncq pause --why later; asyncq run --start true
        2
        ! asyncq: `--start` does not help job 2: the store is paused: later: `asyncq resume`
        ",
    );
}

#[test]
fn a_started_processor_passes_nothing_on_to_other_commands() {
    let mut place = Place::new();
    place.set("MINE", "secret");
    place.stdout("asyncq run --start sh -c 'echo \"[$MINE$OTHER]\" > seen'");
    wait_until("it has run", || place.count("--state completed") == 1);
    assert_eq!(place.read("seen"), "[]\n");
}

#[test]
fn a_call_that_is_due_later_starts_no_processor() {
    let place = Place::new();
    place.stdout("asyncq run --start --in 1h true");
    assert_eq!((place.processors(), place.count("--state delayed")), (0, 1));
}
