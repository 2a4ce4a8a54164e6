//! Enqueueing: what is kept of a call, and what is refused.

use crate::place::Place;

/// A place with a function that prints what it is given.
fn place() -> Place {
    Place::with_functions(&[("show", r#"for word in "$@"; do echo "<$word>"; done; cat"#)])
}

#[test]
fn arguments_are_json_or_strings() {
    place().session(
        r#"
        $ asyncq enqueue events show 2 true null '"2"' '{"a": [1,  2]}' bob@example.com -7 -1.5 1.10 18446744073709551616 ''
        1
        $ asyncq process
        <2>
        <true>
        <null>
        <2>
        <{"a":[1,2]}>
        <bob@example.com>
        <-7>
        <-1.5>
        <1.10>
        <18446744073709551616>
        <>
        {"job":1,"attempt":1,"service":"events","function":"show","args":[2,true,null,"2",{"a": [1,  2]},"bob@example.com",-7,-1.5,1.10,18446744073709551616,""],"kwargs":{},"principal":null,"site":"/[..]"}
        $ asyncq job show 1 --json
        {"id":1,"service":"events","function":"show","args":[2,true,null,"2",{"a": [1,  2]},"bob@example.com",-7,-1.5,1.10,18446744073709551616,""],"kwargs":{},[..]
        "#,
    );
}

#[test]
fn an_argument_with_space_around_it_is_a_string() {
    place().session(
        r#"
        $ asyncq enqueue events show '  3 ' "$(printf '[1]\nx')" ' {"a": 1}' -k 'n= 2' -k m=2
        1
        $ asyncq process
        <  3 >
        <[1]
        x>
        < {"a": 1}>
        <--n= 2>
        <--m=2>
        {"job":1,"attempt":1,"service":"events","function":"show","args":["  3 ","[1]\nx"," {\"a\": 1}"],"kwargs":{"n":" 2","m":2},"principal":null,"site":"/[..]"}
        "#,
    );
}

#[test]
fn raw_arguments_are_strings_as_given() {
    place().session(
        r#"
        $ asyncq enqueue --raw events show '"quoted subject"' '{"a": 1}' -7 null '{"a":1,"a":2}' -1e5 -k n=2
        1
        $ asyncq process
        <"quoted subject">
        <{"a": 1}>
        <-7>
        <null>
        <{"a":1,"a":2}>
        <-1e5>
        <--n=2>
        {"job":1,"attempt":1,"service":"events","function":"show","args":["\"quoted subject\"","{\"a\": 1}","-7","null","{\"a\":1,\"a\":2}","-1e5"],"kwargs":{"n":"2"},"principal":null,"site":"/[..]"}
        $ asyncq enqueue events show '{"a":1,"a":2}'
        ! error: argument 1: the key `a` twice in one object
        ! hint: readers disagree about which value counts, so name each key once
        ? 65
        $ asyncq enqueue events show '"\u0000"'
        ! error: argument 1: a NUL character in a string
        ! hint: `--raw` passes the text itself
        ? 65
        "#,
    );
}

#[test]
fn keyword_arguments_and_options_may_stand_anywhere() {
    place().session(
        r#"
        $ asyncq enqueue -k name=Bob events show 1 -k n=2 2 --principal me -k 'deep={"x": null}' -- -k --not-an-option
        1
        $ asyncq process
        <1>
        <2>
        <-k>
        <--not-an-option>
        <--name=Bob>
        <--n=2>
        <--deep={"x":null}>
        {"job":1,"attempt":1,"service":"events","function":"show","args":[1,2,"-k","--not-an-option"],"kwargs":{"name":"Bob","n":2,"deep":{"x": null}},"principal":"me","site":"/[..]"}
        "#,
    );
}

#[test]
fn a_held_job_waits_until_it_is_started() {
    place().session(
        "
        $ asyncq enqueue events show --hold
        1
        $ asyncq process
        $ asyncq job start 1
        $ asyncq process
        {\"job\":1,[..]
        $ asyncq job start 1
        ! error: job 1 is completed, not held
        ! hint: only a job that is held, or waits for other jobs, can be started
        ? 77
        ",
    );
}

#[test]
fn a_key_makes_a_repeat_safe() {
    let place = place();
    place.session(
        "
        $ asyncq enqueue events show 1 --key order-5
        1
        $ asyncq -v enqueue events show 1 --key order-5
        1
        ! asyncq: already enqueued as job 1 (same key, same call)
        $ asyncq enqueue events show 2 --key order-5
        ! error: key `order-5` belongs to job 1, which is another call
        ! hint: `asyncq job show 1` shows that call; a new call needs a new key
        ? 77
        $ asyncq enqueue events show 1 --key order-5 --principal bob
        ! error: key `order-5` belongs to job 1, which is another call
        ! hint: `asyncq job show 1` shows that call; a new call needs a new key
        ? 77
        $ asyncq process >/dev/null; asyncq enqueue events show 1 --key order-5
        1
        $ asyncq job clean; asyncq enqueue events show 1 --key order-5
        2
        $ asyncq enqueue events show --key ''
        ! error: `` cannot be a key
        ! hint: a key is 1 to 255 bytes of text without control characters
        ? 2
        ",
    );
    assert_eq!(place.count(""), 1);
}

#[test]
fn many_repeats_at_once_make_one_job() {
    let place = place();
    place.session(
        "
        $ for i in 1 2 3 4 5 6 7 8; do asyncq enqueue events show --key k & done | sort -u; wait
        1
        ",
    );
}

#[test]
fn the_user_who_enqueues_is_recorded() {
    let place = place();
    place.stdout("asyncq enqueue events show");
    let user = place.stdout("id -un");
    assert_eq!(place.job(1)["os_user"], user.trim());
}

#[test]
fn refused_arguments() {
    let place = place();
    place.write("deep", &format!("{}{}", "[".repeat(65), "]".repeat(65)));
    place.write("large", &"x".repeat(1024 * 1024));
    place.session(
        r#"
        $ asyncq enqueue events show '{"a":1,"a":2}'
        ! error: argument 1: the key `a` twice in one object
        ! hint: readers disagree about which value counts, so name each key once
        ? 65
        $ asyncq enqueue events show ok '"\u0000"'
        ! error: argument 2: a NUL character in a string
        ! hint: `--raw` passes the text itself
        ? 65
        $ asyncq enqueue events show '"\ud800"'
        ! error: argument 1: a lone surrogate in a string
        ! hint: `--raw` passes the text itself
        ? 65
        $ asyncq enqueue events show "$(cat deep)"
        ! error: argument 1: nested too deep: at most 64 levels are allowed
        ! hint: `--raw` passes the text itself
        ? 65
        $ asyncq enqueue events show -k a=1 -k a=2
        ! error: the keyword arguments together: the key `a` twice in one object
        ! hint: readers disagree about which value counts, so name each key once
        ? 65
        $ asyncq enqueue events show -k name
        ! error: `-k name` is not a keyword argument
        ! hint: write `-k NAME=VALUE`
        ? 2
        $ asyncq enqueue events show -k =x
        ! error: `-k =x` is not a keyword argument
        ! hint: write `-k NAME=VALUE`
        ? 2
        $ asyncq enqueue events show "$(printf 'a\001')" --principal "$(printf 'a\033[31m')"
        ! error: `a\u{1b}[31m` cannot be a principal
        ! hint: a principal is 1 to 255 bytes of text without control characters
        ? 2
        $ asyncq enqueue 'Events!' show
        ! error: `Events!` cannot be the name of a service
        ! hint: a name starts with a lower-case letter or a digit and goes on with those, `.`, `_` and `-`, at most 255 bytes
        ? 2
        $ asyncq enqueue events '1st'
        ! error: `1st` cannot be the name of a function
        ! hint: a name starts with a letter or `_` and goes on with letters, digits, `_`, `.`, `:` and `-`, at most 255 bytes
        ? 2
        $ asyncq job list
        "#,
    );
    // Nine parts of 128 KiB: one alone would not pass the kernel.
    let part = "$(head -c 131000 large)";
    let all = format!("asyncq enqueue events show {}", format!("{part} ").repeat(9));
    let output = place.run(&all);
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: the arguments together: too large: 1179028 bytes, at most 1048576 are allowed\n\
         hint: put the data into a file and pass its path\n"
    );
    assert_eq!(place.count(""), 0);
}

#[test]
fn unknown_names() {
    place().session(
        "
        $ asyncq enqueue evnets show
        ! error: there is no service `evnets`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq enqueue mail show
        ! error: there is no service `mail`
        ! hint: `asyncq service list` shows all
        ? 66
        $ asyncq enqueue events shwo
        ! error: service `events` has no function `shwo`
        ! hint: did you mean `show`? `asyncq function list events` shows all
        ? 66
        $ asyncq service add mail; asyncq enqueue mail show
        ! error: service `mail` has no function `show`
        ! hint: `asyncq function add mail show -- PROGRAM` adds it
        ? 66
        $ asyncq process evnts
        ! error: there is no service `evnts`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        ",
    );
}

#[test]
fn negative_numbers_need_no_dashes() {
    let place = Place::with_functions(&[("say", "echo \"$@\"")]);
    place.session(
        "
        $ asyncq enqueue events say -1 -2.5 -1e5 -1e-5 -1.5E+3 -k low=-3e-7
        1
        $ asyncq process
        -1 -2.5 -1e5 -1e-5 -1.5E+3 --low=-3e-7
        ",
    );
}

#[test]
fn a_number_that_cannot_be_printed_is_reported() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        "
        $ asyncq enqueue events hello > /dev/full
        ! error: job 1 was enqueued, but its number could not be printed: no space left on the device
        ! hint: do not enqueue the call again; `asyncq job show 1` shows it
        ? 74
        $ ASYNCQ_PRINCIPAL=$(printf 'e\\377') asyncq enqueue events hello
        ! error: `$ASYNCQ_PRINCIPAL` is not UTF-8
        ! hint: unset it, or give another one with `--principal`
        ? 2
        $ asyncq process
        hello
        ",
    );
}
