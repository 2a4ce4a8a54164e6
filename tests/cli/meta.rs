//! Metadata of calls.

use crate::place::Place;

/// A place with functions that show their metadata, and one that makes calls.
fn place() -> Place {
    Place::with_functions(&[
        ("show", r#"echo "$ASYNCQ_META $TRACEPARENT $(cat | grep -o '"meta":.*')""#),
        (
            "outer",
            r"asyncq enqueue events show; asyncq enqueue events show --meta n=2 --meta own=x; asyncq enqueue --defer events show >&2",
        ),
    ])
}

#[test]
fn a_function_gets_the_metadata_of_its_call() {
    place().session(
        r#"
        $ asyncq enqueue events show --meta tenant=acme --meta traceparent=00-ab-cd-01; asyncq enqueue events show
        1
        2
        $ asyncq process
        {"tenant":"acme","traceparent":"00-ab-cd-01"} 00-ab-cd-01 "meta":{"tenant":"acme","traceparent":"00-ab-cd-01"}}
          
        $ asyncq job show 1 | grep metadata
        metadata   {"tenant":"acme","traceparent":"00-ab-cd-01"}
        $ asyncq job show 1 --json | grep -o '"meta":{[^}]*}'
        "meta":{"tenant":"acme","traceparent":"00-ab-cd-01"}
        $ asyncq job show 2 --json | grep -o '"meta":null'
        "meta":null
        "#,
    );
}

#[test]
fn calls_inside_a_call_inherit_its_metadata() {
    place().session(
        r#"
        $ asyncq enqueue events outer --meta n=1 --meta tenant=acme
        1
        $ asyncq process 2> /dev/null
        {"n":"1","tenant":"acme"}  "meta":{"n":"1","tenant":"acme"}}
        {"n":"2","own":"x","tenant":"acme"}  "meta":{"n":"2","own":"x","tenant":"acme"}}
        {"n":"1","tenant":"acme"}  "meta":{"n":"1","tenant":"acme"}}
        "#,
    );
}

#[test]
fn the_call_of_a_hook_inherits_the_metadata_of_the_job_that_it_is_about() {
    let place = place();
    place.function("fail", "", "exit 3");
    place.session(
        r#"
        $ asyncq function set events fail --on-error events/show; asyncq enqueue events fail --meta tenant=acme
        1
        $ asyncq process 2> /dev/null | grep -o '^{[^}]*}'
        {"tenant":"acme"}
        "#,
    );
}

#[test]
fn jobs_are_found_by_their_metadata() {
    let place = place();
    place.session(
        r#"
        $ asyncq enqueue events show 1 --meta tenant=acme --meta n=1; asyncq enqueue events show 2 --meta tenant=acme
        1
        2
        $ echo '{"service":"events","function":"show","args":[3],"meta":{"tenant":"zenith","n":1,"on":true}}' | asyncq enqueue --batch -
        3
        $ asyncq job list --meta tenant=acme --output csv | cut -d, -f1 | xargs; asyncq job list --meta n=1 --output csv | cut -d, -f1 | xargs
        id 2 1
        id 3 1
        $ asyncq job list --meta n=1 --meta tenant=zenith --meta on=true --state queued --output csv | cut -d, -f1 | xargs
        id 3
        $ asyncq job cancel --meta tenant=acme; asyncq job list --state queued --output csv | wc -l
        2
        ! asyncq: cancelled 2 jobs
        "#,
    );
}

#[test]
fn metadata_does_not_count_for_the_same_call() {
    place().session(
        "
        $ asyncq enqueue events show --key k --meta n=1; asyncq enqueue events show --key k --meta n=2
        1
        1
        ",
    );
}

#[test]
fn what_cannot_be_metadata() {
    let place = place();
    let large = "x".repeat(4096);
    place.session(&format!(
        r#"
        $ asyncq enqueue events show --meta tenant
        ! error: `--meta tenant` has no name and value
        ! hint: write `--meta NAME=VALUE`, as in `--meta tenant=acme`
        ? 2
        $ asyncq enqueue events show --meta =acme
        ! error: `--meta =acme` has no name and value
        ! hint: write `--meta NAME=VALUE`, as in `--meta tenant=acme`
        ? 2
        $ asyncq enqueue events show --meta a=1 --meta a=2
        ! error: the metadata has `a` twice
        ! hint: give each name once
        ? 2
        $ asyncq enqueue events show --meta a={large}
        ! error: the metadata has 4104 bytes, at most 4096 are allowed
        ! hint: put the data into the arguments, or into a file
        ? 65
        $ echo '{{"service":"events","function":"show","meta":[1]}}' | asyncq enqueue --batch -
        ! error: line 1: `meta` is not an object, as in {{"tenant":"acme"}}; nothing was enqueued
        ? 65
        $ asyncq job list --meta tenant
        ! error: `--meta tenant` has no name and value
        ! hint: write `--meta NAME=VALUE`, as in `--meta tenant=acme`
        ? 2
        "#
    ));
}
