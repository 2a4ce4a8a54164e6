//! Signatures: which arguments a function takes.

use crate::place::Place;

/// A service `events` with a function that takes two whole numbers, and one that takes other things.
fn place() -> Place {
    let place = Place::with_functions(&[("show", r#"printf '<%s>' "$@"; echo"#), ("any", "true")]);
    place.session(
        "
        $ asyncq function add events heavy_computing --takes 'a:int b:int' -- ./show
        $ asyncq function add events mail --takes 'to subject:text [body] [--html:bool]' -- ./show
        ",
    );
    place
}

#[test]
fn a_call_that_a_function_does_not_take_is_refused() {
    place().session(
        "
        $ asyncq enqueue events heavy_computing 2
        ! error: `events heavy_computing` takes 2 arguments, you gave 1
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        ? 2
        $ asyncq enqueue events heavy_computing 2 seven
        ! error: `events heavy_computing` takes a whole number as `b`, you gave text
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        ? 2
        $ asyncq enqueue events mail zoe hello -k htlm=true
        ! error: `events mail` takes no argument `htlm`
        ! hint: did you mean `html`?
        ? 2
        $ asyncq enqueue events mail zoe hello -k to=bob
        ! error: `events mail` was given its argument `to` twice
        ! hint: usage: asyncq enqueue events mail to subject:text [body] [-k html=bool]
        ? 2
        $ asyncq call events mail
        ! error: `events mail` takes 2 to 3 arguments, you gave 0
        ! hint: usage: asyncq enqueue events mail to subject:text [body] [-k html=bool]
        ? 2
        $ asyncq job list
        $ asyncq enqueue events heavy_computing 2 7
        1
        $ asyncq process
        <2><7>
        ",
    );
}

/// The type says how a word is read, and an argument that is named gets its place.
#[test]
fn words_are_read_by_their_types() {
    place().session(
        r#"
        $ asyncq enqueue events mail zoe 1234 -k html=true
        1
        $ asyncq enqueue events mail zoe '"1234"' null
        2
        $ asyncq enqueue events mail --raw 5 '"1234"' -k html=false
        3
        $ asyncq enqueue events mail -k html=true -k subject=007 -k to=zoe
        4
        $ asyncq job list --limit 4 --json | grep -o '"args".*"principal"'
        "args":["zoe","007"],"kwargs":{"html":true},"principal"
        "args":["5","\"1234\""],"kwargs":{"html":false},"principal"
        "args":["zoe","1234",null],"kwargs":{},"principal"
        "args":["zoe","1234"],"kwargs":{"html":true},"principal"
        $ printf '{"service":"events","function":"mail","args":["zoe",1234]}\n' | asyncq enqueue --batch -
        ! error: line 1: `events mail` takes text as `subject`, you gave a whole number; nothing was enqueued
        ! hint: usage: asyncq enqueue events mail to subject:text [body] [-k html=bool]
        ? 65
        "#,
    );
}

#[test]
fn every_door_checks() {
    let place = place();
    place.program("outer", "#!/bin/sh\nasyncq enqueue events heavy_computing \"$@\"\necho code $?\n");
    place.session(
        r#"
        $ asyncq function add events outer -- ./outer
        $ asyncq enqueue events outer 1; asyncq enqueue events outer 1 2
        1
        2
        $ asyncq process
        code 2
        <1><2>
        code 0
        ! error: `events heavy_computing` takes 2 arguments, you gave 1
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        $ asyncq job rerun 3 -- 4
        ! error: `events heavy_computing` takes 2 arguments, you gave 1
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        ? 2
        $ asyncq schedule add nightly --cron '0 4 * * *' --tz UTC events heavy_computing 4
        ! error: `events heavy_computing` takes 2 arguments, you gave 1
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        ? 2
        $ asyncq schedule add nightly --cron '0 4 * * *' --tz UTC events mail zoe 12
        $ asyncq -v schedule add nightly --cron '0 4 * * *' --tz UTC events mail zoe 12
        ! asyncq: schedule `nightly` already exists
        $ asyncq schedule show nightly | grep calls
        calls      events mail ["zoe","12"]
        $ asyncq schedule set nightly events mail zoe
        ! error: `events mail` takes 2 to 3 arguments, you gave 1
        ! hint: usage: asyncq enqueue events mail to subject:text [body] [-k html=bool]
        ? 2
        $ asyncq enqueue --batch /dev/null --then events mail zoe
        ! error: `events mail` takes 2 to 3 arguments, you gave 1
        ! hint: usage: asyncq enqueue events mail to subject:text [body] [-k html=bool]
        ? 2
        $ printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"enqueue","params":{"service":"events","function":"mail","args":["zoe"]}}' | asyncq rpc
        {"jsonrpc":"2.0","id":1,"error":{[..]"message":"`events mail` takes 2 to 3 arguments, you gave 1"[..]"hint":"usage: [..]
        "#,
    );
}

/// A batch with calls that fit and others: those that are refused are named, and all others are there.
#[test]
fn a_batch_goes_around_a_call_that_is_refused() {
    let place = place();
    place.session(
        r#"
        $ for n in $(seq 200); do echo "{\"service\":\"events\",\"function\":\"heavy_computing\",\"args\":[$n,2]}"; done > calls
        $ sed 's/\[77,2\]/[77]/' calls | asyncq enqueue --batch - --atomic
        ! error: line 77: `events heavy_computing` takes 2 arguments, you gave 1; nothing was enqueued
        ! hint: usage: asyncq enqueue events heavy_computing a:int b:int
        ? 65
        $ asyncq job list
        $ asyncq enqueue --batch calls | tail -1
        200
        "#,
    );
}

#[test]
fn a_signature_is_shown_changed_and_taken_away() {
    place().session(
        r#"
        $ asyncq function show events mail | grep -E 'takes|usage'
        takes     to subject:text [body] [--html:bool]
        usage     asyncq enqueue events mail to subject:text [body] [-k html=bool]
        $ asyncq function show events mail --json | grep -o '"takes":"[^"]*"'
        "takes":"to subject:text [body] [--html:bool]"
        $ asyncq function list | sed 's/  */ /g' | cut -d' ' -f-3,4-6
        SERVICE FUNCTION RUNS TAKES PROGRAM SITE
        events any command - ./any [..]
        events heavy_computing command a:int b:int ./show
        events mail command to subject:text [body]
        events show command - ./show [..]
        $ asyncq -v function add events heavy_computing --takes 'a:int   b:int' -- ./show
        ! asyncq: function `heavy_computing` of service `events` already exists
        $ asyncq function add events heavy_computing -- ./show
        ! error: service `events` has a function `heavy_computing` that is defined differently
        ! hint: `asyncq function show events heavy_computing` shows it, `asyncq function set events heavy_computing` changes it
        ? 77
        $ asyncq function set events heavy_computing --takes ''
        $ asyncq function show events heavy_computing | grep -E 'takes|usage'
        takes     no arguments
        usage     asyncq enqueue events heavy_computing
        $ asyncq enqueue events heavy_computing 1
        ! error: `events heavy_computing` takes no arguments, you gave 1
        ! hint: usage: asyncq enqueue events heavy_computing
        ? 2
        $ asyncq function set events heavy_computing --no-takes
        $ asyncq enqueue events heavy_computing 1 2 3
        1
        $ asyncq function set events any --takes '[a] b'
        ! error: `--takes` cannot be `[a] b`: `b` is required, and stands after `[a]`, which may be left out
        ! hint: write `b` before `[a]`, or `[b]`
        ? 2
        "#,
    );
}

#[test]
fn who_calls_a_function_hears_of_its_new_signature() {
    place().session(
        "
        $ asyncq schedule add nightly --cron '0 4 * * *' --tz UTC events any 1 2
        $ asyncq function set events any --takes 'a b c'
        ! asyncq: schedule `nightly` no longer makes calls: `events any` takes 3 arguments, you gave 2
        ! hint: `asyncq schedule set nightly` with the call changes it
        $ asyncq function set events show --on-error events/any
        ! error: `events/any` cannot be a hook: `events any` takes 3 arguments, you gave 1
        ! hint: a hook gets the number of a job, and service, function, state, kind, message and attempt as keyword arguments
        ? 77
        $ asyncq function set events any --takes 'job [--...]'
        ! error: [..]
        ! hint: [..]
        ? 2
        $ asyncq function set events any --takes 'job:int [--rest...]'
        ! asyncq: schedule `nightly` no longer makes calls: `events any` takes 1 argument, you gave 2
        ! hint: `asyncq schedule set nightly` with the call changes it
        $ asyncq function set events show --on-error events/any; asyncq service set events --on-success events/any
        $ asyncq function set events any --takes 'job:int --state --message:text [--rest...]'
        ! error: `events/any` is a hook of service `events`, and could no longer be called: `events any` takes text as `message`, you gave null
        ! hint: a hook gets the number of a job, and service, function, state, kind, message and attempt as keyword arguments
        ? 77
        $ asyncq service set events --no-on-success
        $ asyncq function set events any --takes 'job:int --state --message:text [--rest...]'
        ! asyncq: schedule `nightly` no longer makes calls: `events any` takes 1 argument, you gave 2
        ! hint: `asyncq schedule set nightly` with the call changes it
        $ asyncq function set events any --takes 'job:text [--rest...]'
        ! error: `events/any` is a hook of function `show` of service `events`, and could no longer be called: `events any` takes text as `job`, you gave a whole number
        ! hint: a hook gets the number of a job, and service, function, state, kind, message and attempt as keyword arguments
        ? 77
        ",
    );
}

#[test]
fn a_schedule_whose_function_takes_other_arguments_is_a_trouble() {
    let place = place();
    place.session(
        "
        $ asyncq schedule add each --every 300d --within 9000d events any 1 2; asyncq status --check
        $ asyncq -q function set events any --takes 'a b c'; asyncq status --check
        schedule `each` makes no calls: `events any` takes 3 arguments, you gave 2; `asyncq schedule set each` with the call changes it
        ? 1
        $ asyncq doctor > found; echo $?; grep -v '^ok ' found
        1
        fault    calls       schedule `each` makes no calls: `events any` takes 3 arguments, you gave 2
                             `asyncq schedule set each` with the call changes it
        $ asyncq schedule pause each; asyncq status --check; asyncq schedule resume each
        ",
    );
    place.let_ticks_pass("each", 2);
    place.session(
        "
        $ asyncq process
        ! asyncq: schedule `each`: `events any` takes 3 arguments, you gave 2; the tick made no job
        ! hint: usage: asyncq enqueue events any a b c
        $ asyncq schedule show each | grep skipped
        skipped    1 tick; last: [..]: `events any` takes 3 arguments, you gave 2; usage: asyncq enqueue events any a b c
        $ asyncq schedule show each --json | grep -o '\"why\":\"[^\"]*\"'
        \"why\":\"`events any` takes 3 arguments, you gave 2\"
        $ asyncq schedule set each events any 1 2 3; asyncq status --check; asyncq doctor | grep -v '^ok '
        ? 1
        ",
    );
    place.let_ticks_pass("each", 1);
    place.session("$ asyncq process; asyncq job list --json | grep -c completed\n1");
}
