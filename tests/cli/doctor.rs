//! `asyncq doctor`.

use crate::place::{Place, wait_until};

#[test]
fn a_healthy_store_is_ok_in_each_check() {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout("asyncq enqueue events note; asyncq process");
    for command in ["asyncq doctor", "asyncq doctor --full", "asyncq doctor --fix"] {
        let found = place.stdout(command);
        assert!(found.lines().count() >= 15 && found.lines().all(|line| line.starts_with("ok ")), "{found}");
    }
    let json = place.stdout("asyncq doctor --json");
    assert_eq!(json.matches("\"health\":\"ok\"").count(), json.matches("\"check\":").count());
}

#[test]
fn faults_are_named_with_the_way_out() {
    let place = Place::with_functions(&[("stays", "sleep 1000")]);
    place.session(
        "
        $ asyncq --db none.db doctor
        fault    file        there is no store at `[..]/none.db`
                             `asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place
        ? 1
        $ cp /bin/true gone; asyncq function add events gone -- ./gone; rm gone; asyncq doctor | grep -v '^ok '
        fault    calls       function `gone` of service `events` cannot run: its program `[..]/gone` is missing
        ",
    );
    place.stdout("asyncq function remove events gone; asyncq enqueue events stays");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.stdout("asyncq job show 1 --json").contains("processing"));
    place.session("$ asyncq doctor | grep -v '^ok '\n? 1");
    place.stdout(&format!("kill -9 {} {}", process.0.id(), process.engine()));
    process.wait();
    place.session(
        "
        $ asyncq doctor > found; echo $?; grep -A1 '^fault' found
        1
        fault    processors  processor 1 (process [..] on [..]) died, and its calls wait for another
                             `asyncq process` puts them back and runs them
        $ asyncq service pause events; asyncq doctor | grep '^warning'
        warning  calls       service `events` is paused[..]
        ",
    );
}
