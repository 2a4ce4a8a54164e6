//! Functions on the command line.

use crate::place::Place;

#[test]
fn adding_listing_showing_changing() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        r#"
        $ asyncq function add events shell --timeout 1h30m --env GREETING=hi -- sh -c 'echo "$GREETING"'
        $ asyncq function list
        SERVICE  FUNCTION  RUNS     PROGRAM[..]SITE[..]TIMEOUT
        events   hello     command  ./hello [..] /[..]  -
        events   shell     command  /[..]bin/sh -c 'echo "$GREETING"'  /[..]  1h30m
        $ asyncq function show events shell
        service   events
        function  shell
        command   /[..]bin/sh -c 'echo "$GREETING"'
        site      /[..]
        env       GREETING=hi
        args      words
        stdin     call
        timeout   1h30m
        created   20[..]Z  now
        $ asyncq function show events shell --json
        {"service":"events","name":"shell","command":["/[..]bin/sh","-c","echo \"$GREETING\""],"site":"/[..]","env":{"GREETING":"hi"},"timeout":5400.0,"worker":null,"args":"words","stdin":"call","lane":null,[..],"created_at":"20[..]Z"}
        $ mkdir other
        $ asyncq function set events shell --site other --env NAME=you --unset-env GREETING --no-timeout -- sh -c 'echo "$NAME in $(basename "$PWD")"'
        $ asyncq enqueue events shell
        1
        $ asyncq process
        you in other
        $ asyncq function show events shell --json
        {[..]"site":"/[..]/other","env":{"NAME":"you"},"timeout":null,[..]}
        $ asyncq function list events --json
        [{"service":"events","name":"hello",[..]},{"service":"events","name":"shell",[..]}]
        $ asyncq function remove events shell
        $ asyncq function remove events shell
        ! error: service `events` has no function `shell`
        ! hint: `asyncq function list events` shows all
        ? 66
        "#,
    );
}

#[test]
fn adding_twice() {
    Place::with_functions(&[("hello", "echo hello")]).session(
        "
        $ asyncq -v function add events hello -- ./hello
        ! asyncq: function `hello` of service `events` already exists
        $ asyncq function add events hello --timeout 5s -- ./hello
        ! error: service `events` has a function `hello` that is defined differently
        ! hint: `asyncq function show events hello` shows it, `asyncq function set events hello` changes it
        ? 77
        $ mkdir elsewhere && cd elsewhere && asyncq function add events hello -- ../hello
        ! error: service `events` has a function `hello` that is defined differently
        ! hint: `asyncq function show events hello` shows it, `asyncq function set events hello` changes it
        ? 77
        $ asyncq enqueue events hello
        1
        $ asyncq process
        hello
        ",
    );
}

#[test]
fn the_site_is_restored() {
    let place = Place::with_functions(&[("where", r#"echo "$PWD $ASYNCQ_SITE" | sed "s|$HOME|~|g""#)]);
    place.session(
        "
        $ mkdir -p a/b && cd a/b && cp ../../where . && asyncq function add events deep -- ./where
        $ asyncq enqueue events where; asyncq enqueue events deep
        1
        2
        $ cd / && asyncq process
        ~ ~
        ~/a/b ~/a/b
        ",
    );
}

#[test]
fn a_variable_is_recorded_with_its_value_of_now() {
    Place::with_functions(&[]).session(
        "
        $ COLOUR=blue asyncq function add events show --env COLOUR -- sh -c 'echo $COLOUR $SHADE'
        $ asyncq enqueue events show
        1
        $ COLOUR=red SHADE=dark asyncq process
        blue dark
        $ asyncq function set events show --env SHADE
        ! error: the environment variable `SHADE` is not set
        ! hint: `--env SHADE=VALUE` records a value
        ? 2
        $ asyncq function set events show --env ASYNCQ_DB=/elsewhere
        ! error: `ASYNCQ_DB` is set by asyncq itself
        ! hint: record a variable with another name
        ? 2
        $ asyncq function set events show
        ! error: `asyncq function set` needs something to change
        ! hint: give an option, or a new program after `--`
        ? 2
        $ asyncq function set events show --env =x
        ! error: `` cannot be the name of an environment variable
        ! hint: `--env NAME=VALUE` records a value, `--env NAME` the one that it has now
        ? 2
        ",
    );
}

#[test]
fn programs_are_looked_up_when_they_are_named() {
    let place = Place::with_functions(&[]);
    place.program("tool", "#!/bin/sh\necho tool\n");
    place.write("notes", "no program");
    place.session(
        "
        $ PATH=$PATH:$HOME asyncq function add events tool -- tool
        $ asyncq enqueue events tool
        1
        $ asyncq process
        tool
        $ asyncq function add events x -- tool
        ! error: there is no program `tool` in `$PATH`
        ! hint: did you mean `./tool`?
        ? 66
        $ asyncq function add events x -- nonsense
        ! error: there is no program `nonsense` in `$PATH`
        ! hint: name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`
        ? 66
        $ asyncq function add events x -- ./nonsense
        ! error: there is no program `/[..]/nonsense`
        ! hint: a path with a slash is relative to the site of the function
        ? 66
        $ asyncq function add events x -- ./notes
        ! error: `/[..]/notes` is not executable
        ! hint: `chmod +x /[..]/notes` makes it so
        ? 77
        $ PATH=$PATH:$HOME asyncq function add events x -- notes
        ! error: `/[..]/notes` is not executable
        ! hint: `chmod +x /[..]/notes` makes it so
        ? 77
        $ asyncq function add events x -- /tmp
        ! error: `/tmp` is not executable
        ! hint: it is a directory; name a program
        ? 77
        $ asyncq function add events x --site nowhere -- ./tool
        ! error: there is no directory `/[..]/nowhere`
        ! hint: a site is the directory in which the function runs
        ? 66
        $ asyncq function add events x --site notes -- ./tool
        ! error: the site `/[..]/notes` is not a directory
        ! hint: a site is the directory in which the function runs
        ? 2
        $ asyncq function list --json
        [{\"service\":\"events\",\"name\":\"tool\",\"command\":[\"/[..]/tool\"],[..]}]
        ",
    );
}

#[test]
fn a_program_without_a_name_and_a_site_that_is_not_there() {
    let place = Place::with_functions(&[]);
    place.session(
        "
        $ asyncq function add events nothing -- ''
        ! error: a program needs a name
        ! hint: name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`
        ? 2
        $ asyncq function add events ls --site gone -- ls
        ! error: there is no directory `/[..]/gone`
        ! hint: a site is the directory in which the function runs
        ? 66
        ",
    );
}

#[test]
fn how_a_function_gets_its_call() {
    let place = Place::new();
    place.program("hello", "#!/bin/sh\necho hello\n");
    place.session(
        r#"
        $ asyncq service add events -q; asyncq function add events hello --args stdin -- ./hello
        $ asyncq function add events hello --args stdin -- ./hello
        $ asyncq function add events hello -- ./hello
        ! error: service `events` has a function `hello` that is defined differently
        ! hint: `asyncq function show events hello` shows it, `asyncq function set events hello` changes it
        ? 77
        $ asyncq function set events hello --stdin none
        ! error: with `--args stdin` and `--stdin none` the program gets no arguments
        ! hint: `--args words` passes them as words, `--stdin call` on standard input
        ? 2
        $ asyncq function set events hello --stdin none --args words; asyncq function list --json
        [{"service":"events","name":"hello",[..]"worker":null,"args":"words","stdin":"none","lane":null,[..],"created_at":"[..]"}]
        $ asyncq function add events other --args stdin --stdin none -- ./hello
        ! error: with `--args stdin` and `--stdin none` the program gets no arguments
        ! hint: `--args words` passes them as words, `--stdin call` on standard input
        ? 2
        $ asyncq function add events other --args line -- ./hello
        ! error: `--args` cannot be `line`: it must be `words` or `stdin`
        ! hint: `asyncq function add --help` shows how
        ? 2
        $ asyncq function add events other --worker --args words -- ./hello
        ! error: `--args` and `--stdin` are for commands, and this function is a worker
        ! hint: leave them out: a worker gets its calls as messages (docs/protocol.md)
        ? 2
        $ asyncq function set events hello --worker; asyncq function show events hello --json
        {[..]"worker":{[..]},"args":null,"stdin":null,[..]
        $ asyncq function set events hello --stdin none
        ! error: `--args` and `--stdin` are for commands, and this function is a worker
        ! hint: leave them out: a worker gets its calls as messages (docs/protocol.md)
        ? 2
        $ asyncq function set events hello --no-worker --stdin none; asyncq function show events hello | grep -e args -e stdin
        args      words
        stdin     none
        "#,
    );
}

#[test]
fn a_function_with_one_pipe_for_both_streams_keeps_the_exact_order() {
    let both = "for n in 1 2 3; do echo out $n; echo err $n >&2; done";
    let place = Place::with_functions(&[("both", both), ("fails", "echo why >&2; exit 3")]);
    let mixed = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n";
    place.stdout("asyncq function set events both --merge; asyncq function set events fails --merge");
    place.stdout("asyncq enqueue events both");
    for line in ["asyncq process", "asyncq job log 1", "asyncq job log -f 1"] {
        let output = place.run(line);
        assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), output.stderr), (mixed, Vec::new()), "{line}");
    }
    // Inside a function, too.
    place.function("nests", "", "asyncq enqueue events both 2>/dev/null");
    place.stdout("asyncq enqueue events nests");
    assert_eq!(place.stdout("asyncq process"), mixed);
    place.session(
        "
        $ asyncq enqueue events fails; asyncq process
        4
        why
        ! asyncq: job 4 (`events` `fails`): exit code 3
        ? 1
        $ asyncq explain 4
        ...
        [..]why
        ...
        $ asyncq function set events both --no-merge; asyncq enqueue events both; asyncq process
        5
        out 1
        out 2
        out 3
        ! err 1
        ! err 2
        ! err 3
        ",
    );
}

#[test]
fn one_pipe_is_shown_and_is_for_commands() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    place.session(
        r#"
        $ asyncq function add events merged --merge -- ./hello
        $ asyncq function add events merged -- ./hello
        ! error: service `events` has a function `merged` that is defined differently
        ! hint: [..]
        ? 77
        $ asyncq function show events merged
        ...
        merge     stdout and stderr are one stream
        ...
        $ asyncq function list events --json
        [{"service":"events","name":"hello",[..]"merge":false,[..]},{"service":"events","name":"merged",[..]"merge":true,[..]}]
        $ asyncq function add events work --worker --merge -- ./hello
        ! error: `--merge` is for commands, and this function is a worker
        ! hint: leave it out, or make the function a command: its program is then started for each call
        ? 2
        $ asyncq function set events merged --merge --worker
        ! error: `--merge` is for commands, and this function is a worker
        ! hint: [..]
        ? 2
        $ asyncq function set events merged --worker
        $ asyncq function set events merged --merge
        ! error: `--merge` is for commands, and this function is a worker
        ! hint: [..]
        ? 2
        $ asyncq function show events merged --json
        {[..]"merge":false,[..]}
        "#,
    );
}

/// A program that closes one of its streams, or prints much to both, with one pipe.
#[test]
fn one_pipe_holds_much_output_and_survives_a_closed_stream() {
    let place = Place::with_functions(&[]);
    place.function("much", "--merge", "exec 1>&-; echo hidden; for n in $(seq 40000); do echo line $n >&2; done");
    place.stdout("asyncq enqueue events much");
    let expected = place.stdout("seq -f 'line %.0f' 40000");
    let output = place.run("asyncq process 2>/dev/null");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.ends_with(&expected), "{} bytes", printed.len());
    assert!(place.stdout("asyncq job log 1").ends_with(&expected));
}
