//! Waiting for jobs: `asyncq wait`.

use crate::place::{Place, wait_until};

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
        ! asyncq: job 4 was cancelled
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
        ! asyncq: job 2 waits for its release: `asyncq job start 2`
        ! error: [..]
        ! hint: [..]
        ? 75
        $ asyncq wait 1 --timeout 5
        ! error: `--timeout` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        $ asyncq wait
        ! error: `asyncq wait` needs `ID`
        ! hint: [..]
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

#[test]
fn a_job_that_is_removed_meanwhile_is_an_error() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail; asyncq enqueue events mail --hold; asyncq -q process");
    let mut command = place.command("exec asyncq -v wait 1 2");
    let mut waits = command.spawn().unwrap();
    let stderr = waits.stderr.take().unwrap();
    wait_until("it waits", || rustix::io::ioctl_fionread(&stderr).unwrap() > 0);
    place.stdout("asyncq job clean --state completed");
    let said = std::io::read_to_string(stderr).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[1], "error: job 1 was removed while it was waited for");
    assert_eq!(said[2], "hint: `asyncq job clean` removes jobs that have ended, and their outcomes; keep them longer");
    assert_eq!(waits.wait().unwrap().code(), Some(66));
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
    let expected = "asyncq: job 1 waits for `asyncq process`: no processor is running\n";
    assert!(said.starts_with(expected) && said.ends_with("\n75\n"), "{said}");
    place.stdout("asyncq -q process");
    assert_eq!(place.terminal("asyncq wait 1; echo $?"), "0\n");
}
