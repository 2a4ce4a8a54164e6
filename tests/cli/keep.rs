//! How long jobs are kept: `service set --keep`, and `job clean --keep`.

use crate::place::{Place, wait_until};

#[test]
fn a_service_says_how_long_it_keeps_its_jobs() {
    Place::with_functions(&[("say", "echo said")]).session(
        r#"
        $ asyncq service set events --keep 30d --keep-errors 90d; asyncq service show events | grep keeps
        keeps        jobs 30d, errors 90d
        $ asyncq service show events --json
        {"name":"events",[..]"keep":2592000.0,"keep_errors":7776000.0,[..]}
        $ asyncq service set events --keep-errors forever; asyncq service show events | grep keeps
        keeps        jobs 30d, errors forever
        $ asyncq service add events --keep 31d
        ! error: service `events` exists with keep 30d
        ! hint: `asyncq service set events --keep 31d` changes it
        ? 77
        $ asyncq service add events --keep 30d
        $ asyncq service add other --keep 1h; asyncq service show other | grep keeps
        keeps        jobs 1h, errors forever
        $ asyncq service set events --keep 0
        ! error: `--keep` cannot be `0`: [..]
        ! hint: [..]
        ? 2
        $ asyncq service set events --keep -1d
        ! error: `--keep` cannot be `-1d`: [..]
        ! hint: [..]
        ? 2
        $ asyncq service set events --keep forever; asyncq service show events | grep -c keeps
        0
        ? 1
        "#,
    );
}

#[test]
fn a_processor_removes_what_is_not_kept() {
    let place = Place::with_functions(&[("say", "echo said"), ("fail", "exit 1")]);
    place.run("asyncq enqueue events say; asyncq enqueue events fail; asyncq process");
    place.stdout("asyncq service set events --keep 10ms; sleep 0.02; asyncq process");
    assert_eq!(place.stdout("asyncq job list --json | grep -o '\"id\":[0-9]*'"), "\"id\":2\n");

    let place = Place::with_functions(&[("say", "echo said"), ("fail", "exit 1")]);
    place.run("asyncq enqueue events say; asyncq enqueue events fail; asyncq process");
    place.stdout("asyncq service set events --keep 10ms --keep-errors 10ms; sleep 0.02");
    let process = place.start("asyncq process --follow");
    wait_until("they are removed", || place.count("") == 0);
    process.signal("TERM");
    assert!(process.wait().status.success());
}

#[test]
fn clean_keeps_the_newest() {
    let place = Place::with_functions(&[("say", "true"), ("fail", "exit 1")]);
    place.stdout("for n in 1 2 3 4 5; do asyncq enqueue events say; done");
    place.run("asyncq enqueue events fail; asyncq process");
    place.session(
        "
        $ asyncq job clean --state completed --keep 2 --dry-run
        ! asyncq: would remove 3 jobs
        $ asyncq job clean --service events --keep 10; asyncq job list | wc -l
        7
        $ asyncq job clean --state completed --keep 2; asyncq job list | cut -c 1-2
        ID
        6[..]
        5[..]
        4[..]
        $ asyncq job clean --keep 1; asyncq job list | cut -c 1-2
        ID
        6[..]
        $ asyncq job clean --keep -1
        ! error: `--keep` cannot be `-1`: a number of jobs is [..]
        ! hint: [..]
        ? 2
        $ asyncq job clean --keep 0; asyncq job list --json | wc -c
        4
        ",
    );
}
