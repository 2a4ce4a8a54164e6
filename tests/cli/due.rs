//! When there is next something to do: `asyncq due`.

use crate::place::{Place, wait_until};

#[test]
fn what_is_next_and_when() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        r#"
        $ asyncq service add others && asyncq function add others hello -- true
        $ asyncq due
        ? 1
        $ asyncq due --json --at-most 5m
        ? 1
        $ asyncq enqueue events hello --in 2h
        1
        $ asyncq due --json
        {"due":"[..]Z","in_seconds":7[..],"service":"events","job":1,"schedule":null,"processor":null}
        $ asyncq due --in-seconds --at-most 5m
        300
        $ asyncq schedule add each --cron '0 0 1 1 *' --tz UTC others hello
        $ asyncq due others
        [..]-01-01T00:00:00.000Z
        $ asyncq due others --json
        {"due":"[..]-01-01T00:00:00.000Z","in_seconds":[..],"service":"others","job":null,"schedule":"each","processor":null}
        $ asyncq enqueue events hello && asyncq due && asyncq due --in-seconds && asyncq due --json
        2
        now
        0
        {"due":"[..]Z","in_seconds":0,"service":"events","job":2,"schedule":null,"processor":null}
        $ asyncq service pause events && asyncq due events
        ? 1
        $ asyncq schedule pause each && asyncq due
        ? 1
        $ asyncq service resume events && asyncq process && asyncq due --in-seconds
        hello
        7[..]
        $ asyncq due event
        ! error: there is no service `event`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq due --json --in-seconds
        ! error: `--json` cannot be used with `--in-seconds`
        ! hint: `asyncq due --help` shows how
        ? 2
        $ asyncq due --at-most 5
        ! error: `--at-most` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        "#,
    );
}

#[test]
fn a_call_without_a_free_slot_is_not_due_until_its_processor_has_died() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e end ]; do sleep 0.02; done")]);
    place.session("$ asyncq enqueue events waits && asyncq enqueue events waits\n1\n2");
    let process = place.start("asyncq process --max-jobs 1");
    wait_until("the call runs", || place.at("begun").exists());
    place.session("$ asyncq due\n? 1");
    place.stdout(&format!("kill -KILL {}", process.engine()));
    let killed = process.wait();
    assert_eq!(killed.status.code(), Some(75), "{killed:?}");
    place.write("end", "");
    place.session(
        r#"
        $ asyncq due && asyncq due --json
        now
        {"due":"[..]Z","in_seconds":0,"service":null,"job":null,"schedule":null,"processor":1}
        $ asyncq -q process && asyncq due
        ? 1
        "#,
    );
}
