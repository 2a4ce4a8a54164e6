//! Waiting for jobs: `asyncq wait`.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;

use crate::place::{Place, Running, wait_until};

#[test]
fn it_says_how_jobs_have_ended() {
    let place = Place::with_functions(&[("mail", "true"), ("fail", "exit 3")]);
    place.session(
        "
        $ asyncq enqueue events mail; asyncq enqueue events mail; asyncq enqueue events fail; asyncq enqueue events mail
        1
        2
        3
        4
        $ asyncq job cancel 4; asyncq -q process
        ? 1
        $ asyncq wait 1
        $ asyncq wait 1 2 --timeout 5s
        $ asyncq -v wait 1 2
        ! asyncq: job 1 is completed
        ! asyncq: job 2 is completed
        $ asyncq wait 1 3 2 4 --timeout 0
        ! asyncq: job 3 ended in an error: exit code 3
        ! asyncq: job 4 was cancelled by [..]
        ? 1
        $ asyncq -q wait 3
        ? 1
        $ asyncq job clean --state error; asyncq wait 1 3
        ! error: there is no job 3
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ? 66
        ",
    );
}

#[test]
fn the_time_may_be_over_first() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.session(
        "
        $ asyncq enqueue events mail; asyncq enqueue events mail --hold
        1
        2
        $ asyncq wait 1 --timeout 0
        ! error: job 1 has not ended yet: it is queued
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq wait 1 --timeout 20ms
        ! error: job 1 has not ended yet: it is queued
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq -q process; asyncq wait 1 2 --timeout 20ms
        ! error: job 2 has not ended yet: it is held
        ! hint: `asyncq job show 2` shows what it waits for
        ? 75
        $ asyncq -v wait 2 --timeout 20ms
        ! asyncq: job 2 has not ended: it is held until somebody starts it: `asyncq job start 2`
        ! error: [..]
        ! hint: [..]
        ? 75
        $ asyncq wait 1 --timeout 5
        ! error: `--timeout` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        $ asyncq wait
        ! error: `asyncq wait` needs `ID`
        ! hint: `asyncq wait --help` shows how
        ? 2
        $ asyncq wait x
        ! error: `ID` cannot be `x`: the number of a job is a whole number from 1
        ! hint: [..]
        ? 2
        $ asyncq wait 7
        ! error: there is no job 7
        ! hint: [..]
        ? 66
        $ asyncq --db nothing.db wait 7
        ! error: [..]
        ! hint: [..]
        ? 69
        ",
    );
}

#[test]
fn it_wakes_when_the_last_job_has_ended() {
    let place = Place::with_functions(&[("waits", "until [ -e go-$1 ]; do sleep 0.02; done")]);
    place.stdout("asyncq service set events --concurrency 2");
    place.stdout("asyncq enqueue events waits 1; asyncq enqueue events waits 2");
    let process = place.start("asyncq -q process");
    let (first, both) = (place.start("asyncq wait 1"), place.start("asyncq wait 1 2 --timeout 10m"));
    place.write("go-1", "");
    assert!(first.wait().status.success());
    place.write("go-2", "");
    let output = both.wait();
    assert_eq!((output.status.code(), output.stderr.len(), output.stdout.len()), (Some(0), 0, 0));
    process.wait();
}

/// A command that waits, once it does, with what it has said. It is run verbosely.
fn waiting(place: &Place, command: &str) -> (Running, BufReader<ChildStderr>, String) {
    let mut running = place.start(command);
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    (running, stderr, said)
}

/// How it ends, and what else it says.
fn end(running: Running, stderr: BufReader<ChildStderr>) -> (Option<i32>, String, String) {
    let said = std::io::read_to_string(stderr).unwrap();
    let output = running.wait();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
}

#[test]
fn a_job_that_is_removed_before_it_was_seen_to_end_is_an_error() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("for n in $(seq 20); do asyncq enqueue events mail --hold; done");
    let (running, stderr, _) = waiting(&place, "asyncq -v wait 1-20");
    place.stdout("asyncq job cancel 20 && asyncq job clean --state cancelled && asyncq job cancel $(seq 19)");
    let error = "error: job 20 was removed while it was waited for\n\
        hint: `asyncq job clean` removes jobs that have ended, and their outcomes; keep them longer\n";
    assert_eq!(end(running, stderr), (Some(66), String::new(), error.to_owned()));
}

#[test]
fn a_job_that_was_seen_to_end_may_be_removed_or_queued_again() {
    let place = Place::with_functions(&[("mail", "true"), ("fail", "exit 3")]);
    place.stdout("asyncq enqueue events mail; asyncq enqueue events fail; asyncq enqueue events mail --hold");
    place.run("asyncq -q process");
    let (running, stderr, said) = waiting(&place, "asyncq -v wait 3 1 2");
    assert_eq!(said, "asyncq: job 3 has not ended: it is held until somebody starts it: `asyncq job start 3`\n");
    place.stdout("asyncq job clean --state completed && asyncq job retry 2 && asyncq job start 3");
    place.stdout("asyncq -q process --max-jobs 1 || true; asyncq job cancel 3 || true");
    let (code, _, said) = end(running, stderr);
    let ends = said.split_once('\n').unwrap().1;
    assert_eq!((code, ends), (Some(1), "asyncq: job 1 is completed\nasyncq: job 2 ended in an error: exit code 3\n"));
}

#[test]
fn numbers_may_come_from_stdin_and_in_ranges() {
    let place = Place::with_functions(&[("mail", "true"), ("fail", "exit 3")]);
    place.write("calls", &"{\"service\":\"events\",\"function\":\"mail\"}\n".repeat(3));
    place.session(
        "
        $ asyncq enqueue --batch calls > ids; asyncq enqueue events fail; asyncq -q process
        4
        ? 1
        $ asyncq -v wait - < ids
        ! asyncq: job 1 is completed
        ! asyncq: job 2 is completed
        ! asyncq: job 3 is completed
        $ echo '1 2-3,4' | asyncq wait -
        ! asyncq: job 4 ended in an error: exit code 3
        ? 1
        $ echo 2 | asyncq wait 1 - 3-4
        ! asyncq: job 4 ended in an error: exit code 3
        ? 1
        $ asyncq wait - < /dev/null
        ! error: stdin contains no number of a job
        ! hint: the command before the pipe may have failed: `set -o pipefail` shows that in bash
        ? 2
        $ echo one | asyncq wait -
        ! error: `one` is not the number of a job
        ! hint: write numbers of jobs and ranges, as in 7,9-12
        ? 2
        $ asyncq wait 4-2
        ! error: `ID` cannot be `4-2`: the number of a job is a whole number from 1
        ! hint: [..]
        ? 2
        $ asyncq wait 1-100001
        ! error: one command can wait for at most 100000 jobs
        ! hint: wait for them in parts, or for the whole service with `--service`
        ? 2
        $ asyncq wait 3-9
        ! error: there is no job 5
        ! hint: the newest is 4; `asyncq job list` shows which there are
        ? 66
        ",
    );
}

#[test]
fn the_first_of_several_may_be_enough() {
    let place = Place::with_functions(&[("mail", "true"), ("fail", "exit 3")]);
    place.session(
        "
        $ for n in 1 2 3; do asyncq enqueue events mail --hold; done; asyncq enqueue events fail
        1
        2
        3
        4
        $ asyncq wait --any 1-4 --timeout 0
        ! error: job 1 has not ended yet: it is held
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq -q process
        ? 1
        $ asyncq wait --any 1-4
        4
        ! asyncq: job 4 ended in an error: exit code 3
        ? 1
        $ asyncq job cancel 2; asyncq wait --any 4 2 1
        4
        ! asyncq: job 4 ended in an error: exit code 3
        ? 1
        $ asyncq wait --any 1 9
        ! error: there is no job 9
        ! hint: [..]
        ? 66
        $ asyncq wait --any
        ! error: `asyncq wait` needs `ID`
        ! hint: [..]
        ? 2
        $ asyncq wait --any --service events
        ! error: `--any` cannot be used with `--service`
        ! hint: [..]
        ? 2
        $ asyncq wait --any 4 > /dev/full
        ! asyncq: job 4 ended in an error: exit code 3
        ! error: cannot write to stdout: no space left on the device
        ! hint: [..]
        ? 74
        ",
    );
    let (running, stderr, said) = waiting(&place, "asyncq -v wait --any 1 3");
    assert_eq!(said, "asyncq: job 1 has not ended: it is held until somebody starts it: `asyncq job start 1`\n");
    place.stdout("asyncq job start 3; asyncq process");
    assert_eq!(end(running, stderr), (Some(0), "3\n".to_owned(), "asyncq: job 3 is completed\n".to_owned()));
}

#[test]
fn a_whole_service_is_waited_for() {
    let place = Place::with_functions(&[("mail", "true"), ("fail", "exit 3")]);
    place.session(
        "
        $ asyncq wait --service events
        $ asyncq enqueue events mail --hold; asyncq enqueue events mail --in 1h; asyncq wait --service events
        1
        2
        $ asyncq enqueue events mail --after 1; asyncq wait --service events --timeout 0
        3
        ! error: service `events` still has calls that are queued, blocked or running
        ! hint: `asyncq job list --service events` shows them
        ? 75
        $ asyncq job cancel 1; asyncq wait --service events
        $ asyncq wait --service event
        ! error: there is no service `event`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq wait --service 'a b'
        ! error: [..]
        ! hint: [..]
        ? 2
        $ asyncq wait 1 --service events
        ! error: `ID` cannot be used with `--service`
        ! hint: [..]
        ? 2
        $ asyncq enqueue events fail
        4
        ",
    );
    let (running, stderr, said) = waiting(&place, "asyncq -v wait --service events");
    assert_eq!(said, "asyncq: service `events` has calls that are queued, blocked or running\n");
    place.run("asyncq -q process");
    assert_eq!(end(running, stderr), (Some(0), String::new(), String::new()));
    // A call that is due, but that no processor has looked at since, is left to run.
    place.stdout("asyncq enqueue events mail --in 1ms; sleep 0.01");
    assert_eq!(place.run("asyncq wait --service events --timeout 0").status.code(), Some(75));
    let (running, stderr, _) = waiting(&place, "asyncq -v wait --service events");
    place.stdout("asyncq service remove events --force");
    let error = "error: service `events` was removed while it was waited for\n\
        hint: `asyncq service list` shows which there are\n";
    assert_eq!(end(running, stderr), (Some(66), String::new(), error.to_owned()));
}

#[test]
fn services_are_chosen_by_patterns() {
    let place = Place::with_functions(&[("say", "echo said")]);
    place.session(
        "
        $ for it in site-a site-b; do asyncq service add $it; asyncq function add $it say -- echo said; done
        $ asyncq enqueue site-b say
        1
        $ asyncq wait --service events --service site-a; asyncq wait --service 'site-*' --except site-b
        $ asyncq wait --service 'site-*' --timeout 0
        ! error: service `site-b` still has calls that are queued, blocked or running
        ! hint: `asyncq job list --service site-b` shows them
        ? 75
        $ asyncq wait --service 'x*'
        ! asyncq: no service matches
        $ asyncq wait --service 'site-*' --service evnts
        ! error: there is no service `evnts`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq wait --except events 1
        ! error: `--except` cannot be used with `ID`
        ! hint: `asyncq wait --help` shows how
        ? 2
        $ asyncq wait --except events
        ! error: `--except` needs `--service`
        ! hint: `asyncq wait --help` shows how
        ? 2
        ",
    );
    let (running, stderr, said) = waiting(&place, "asyncq -v wait --service '*'");
    assert_eq!(said, "asyncq: service `site-b` has calls that are queued, blocked or running\n");
    // A service that is added meanwhile is meant too.
    place.stdout("asyncq -q service add site-c; asyncq function add site-c say -- echo; asyncq enqueue site-c say");
    place.stdout("asyncq process site-b");
    let mut running = running;
    assert!(running.0.try_wait().unwrap().is_none());
    place.stdout("asyncq process");
    assert_eq!(end(running, stderr).0, Some(0));
}

#[test]
fn a_running_call_of_a_service_is_waited_for() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.02; done")]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq -q process");
    wait_until("the call begins", || place.at("begun").exists());
    let (running, stderr, _) = waiting(&place, "asyncq -v wait --service events");
    place.write("go", "");
    assert_eq!(end(running, stderr).0, Some(0));
    assert_eq!(place.jobs("state"), "completed");
    process.wait();
}

#[test]
fn a_function_cannot_wait_for_itself() {
    let inner = "asyncq wait 1 2>&1; echo $?; asyncq wait --service events 2>&1; echo $?";
    let place = Place::with_functions(&[
        ("outer", "asyncq wait --any 1 2>&1; echo $?; asyncq enqueue events inner"),
        ("inner", inner),
    ]);
    place.session(
        "
        $ asyncq enqueue events outer; asyncq process
        1
        error: this command runs inside job 1, which would wait for itself
        hint: leave out its number
        77
        error: this command runs inside job 1, which would wait for itself
        hint: leave out its number
        77
        error: this command runs inside job 2 of service `events`, which would wait for itself
        hint: wait for other jobs by their numbers
        77
        ",
    );
}

#[test]
fn a_store_that_is_gone_is_an_error() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail");
    let mut waits = place.command("exec asyncq -v wait 1").spawn().unwrap();
    let stderr = waits.stderr.take().unwrap();
    wait_until("it waits", || rustix::io::ioctl_fionread(&stderr).unwrap() > 0);
    place.stdout("mv .local/share/asyncq elsewhere");
    assert_eq!(waits.wait().unwrap().code(), Some(74));
}

#[test]
fn a_person_at_a_terminal_sees_what_a_job_waits_for() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail");
    let said = place.terminal("asyncq wait 1 --timeout 20ms; echo $?");
    let expected =
        "asyncq: job 1 has not ended: no processor is at work on service `events`: `asyncq process events`\n";
    assert!(said.starts_with(expected) && said.ends_with("\n75\n"), "{said}");
    place.stdout("asyncq -q process");
    assert_eq!(place.terminal("asyncq wait 1; echo $?"), "0\n");
}
