//! The scenario of the package that asyncq succeeds, as shell functions.

use crate::place::Place;

fn seed() -> Place {
    let place = Place::new();
    place.program("heavy_computing", "#!/bin/sh\necho \"Computing $1 + $2 = $(($1 + $2))\"\n");
    place.program("who_am_i", "#!/bin/sh\nasyncq whoami || echo nobody\n");
    place.program("call_another", "#!/bin/sh\necho Before\nasyncq enqueue events heavy_computing 1 2\necho After\n");
    place.program("is_async_test", "#!/bin/sh\nasyncq is-async\n");
    place.session(
        "
        $ asyncq -q service add events
        $ asyncq function add events heavy_computing -- ./heavy_computing
        $ asyncq function add events who_am_i -- ./who_am_i
        $ asyncq function add events call_another -- ./call_another
        $ asyncq function add events is_async_test -- ./is_async_test
        ",
    );
    place
}

#[test]
fn a_call_is_run_when_the_service_is_processed() {
    seed().session(
        "
        $ asyncq enqueue events heavy_computing 2 7
        1
        $ asyncq process
        Computing 2 + 7 = 9
        $ asyncq process
        ",
    );
}

#[test]
fn a_function_runs_as_the_principal_who_called_it() {
    seed().session(
        "
        $ asyncq enqueue events who_am_i
        1
        $ asyncq process
        nobody
        $ ASYNCQ_PRINCIPAL=zope.user asyncq enqueue events who_am_i
        2
        $ asyncq enqueue --principal bob@example.com events who_am_i
        3
        $ asyncq process
        zope.user
        bob@example.com
        $ ASYNCQ_PRINCIPAL=zope.user asyncq enqueue events who_am_i --principal ''
        4
        $ asyncq process events
        nobody
        ",
    );
}

#[test]
fn a_call_inside_a_function_is_run_at_once() {
    seed().session(
        "
        $ asyncq enqueue events call_another
        1
        $ asyncq process
        Before
        Computing 1 + 2 = 3
        After
        $ asyncq job list
        ID  SERVICE  FUNCTION         ARGUMENTS  PRINCIPAL  STATE      WHEN
        2   events   heavy_computing  [1,2]      -          completed  [..]
        1   events   call_another     []         -          completed  [..]
        ",
    );
}

#[test]
fn a_function_knows_that_it_is_run_asynchronously() {
    seed().session(
        "
        $ asyncq is-async
        false
        ? 1
        $ asyncq enqueue events is_async_test
        1
        $ asyncq process
        true
        ",
    );
}
