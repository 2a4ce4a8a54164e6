//! Functions that are commands: what they get, and how their ends are understood.

use std::fs::OpenOptions;

use crate::place::{Place, WORKER, runs, wait_until};

#[test]
fn exit_codes_and_signals() {
    let place = Place::with_functions(&[("end", "eval \"$1\"")]);
    place.session(
        r#"
        $ asyncq enqueue events end 'exit 3'; asyncq enqueue events end 'exit 126'; asyncq enqueue events end 'exit 127'
        1
        2
        3
        $ asyncq enqueue events end 'kill -9 $$'; asyncq enqueue events end 'exit 0'
        4
        5
        $ asyncq process
        ! asyncq: job 1 (`events` `end`): exit code 3
        ! asyncq: job 2 (`events` `end`): exit code 126: not executable
        ! hint: `asyncq function set events end` changes its program, site or environment file
        ! asyncq: job 3 (`events` `end`): exit code 127: a command was not found
        ! hint: `asyncq function set events end` changes its program, site or environment file
        ! asyncq: job 4 (`events` `end`): ended by signal 9 (SIGKILL)
        ? 1
        $ asyncq process
        $ for i in 1 2 3 4 5; do asyncq job show $i --json | sed 's/.*"result":null,\("error":[^}]*\).*/\1/'; done
        "error":{"kind":"exit","message":"exit code 3","exit_code":3,"signal":null
        "error":{"kind":"cannot-run","message":"exit code 126: not executable","exit_code":126,"signal":null
        "error":{"kind":"cannot-run","message":"exit code 127: a command was not found","exit_code":127,"signal":null
        "error":{"kind":"signal","message":"ended by signal 9 (SIGKILL)","exit_code":null,"signal":9
        "error":null,"priority":0,"key":null,[..]"os_user":"[..]","attempts":[{"attempt":1,[..]"ending":"completed",[..]
        "#,
    );
}

#[test]
fn the_environment() {
    let mut place = Place::with_functions(&[("env", "env | grep -v '^_=\\|^OLDPWD=\\|^SHLVL=' | sort")]);
    place.set("ASYNCQ_EXTRA", "not for functions");
    place.set("FROM_PROCESS", "inherited");
    place.session(
        r"
        $ asyncq enqueue events env --principal zope.user
        1
        $ asyncq process | sed 's/[0-9a-f]\{32\}/<hex>/g; s|'$HOME'|~|g'
        ASYNCQ_ATTEMPT=1
        ASYNCQ_DB=~/.local/share/asyncq/queue.db
        ASYNCQ_FUNCTION=env
        ASYNCQ_JOB=1
        ASYNCQ_LATER=~/.local/share/asyncq/queue.db-asyncq/<hex>/later-1-1
        ASYNCQ_PRINCIPAL=zope.user
        ASYNCQ_RESULT=~/.local/share/asyncq/queue.db-asyncq/<hex>/result-1-1
        ASYNCQ_SERVICE=events
        ASYNCQ_SITE=~
        ASYNCQ_TOKEN=<hex>
        FROM_PROCESS=inherited
        HOME=~
        PATH=[..]/debug:/usr/local/bin:/usr/bin:/bin
        PWD=~
        ",
    );
}

#[test]
fn asyncq_is_found_by_functions_even_where_the_path_is_short() {
    let place = Place::with_functions(&[("nested", "asyncq is-async")]);
    place.session(
        "
        $ asyncq enqueue events nested
        1
        $ asyncq=$(which asyncq); PATH=/usr/bin:/bin $asyncq process
        true
        $ asyncq enqueue events nested
        2
        $ asyncq=$(which asyncq); unset PATH; $asyncq process
        true
        ",
    );
}

#[test]
fn a_result_is_json_in_a_file() {
    let place = Place::with_functions(&[("give", "cat > \"$ASYNCQ_RESULT\" <<END\n$1\nEND")]);
    place.session(
        r#"
        $ asyncq enqueue events give '"[1, 2.50, {\"a\": null}]"'
        1
        $ asyncq job result 1
        ! error: job 1 has no result yet: it is queued
        ! hint: `asyncq job show 1` shows what it waits for
        ? 75
        $ asyncq process; asyncq job result 1
        [1, 2.50, {"a": null}]
        $ asyncq enqueue events give 'no json'; asyncq process; asyncq job result 2
        2
        ! asyncq: job 2 (`events` `give`): its result is not valid JSON: unexpected `[..]` at column 2
        ! asyncq: job 2 ended in an error: its result is not valid JSON: unexpected `[..]` at column 2
        ? 1
        $ asyncq job show 2 --json
        {[..]"result":null,"error":{"kind":"bad-result",[..]
        $ asyncq enqueue events give ''; asyncq process; asyncq job result 3
        3
        null
        "#,
    );
    let place = Place::with_functions(&[
        ("large", "head -c 2000000 /dev/zero | tr '\\0' 1 > \"$ASYNCQ_RESULT\""),
        ("folder", "mkdir \"$ASYNCQ_RESULT\""),
        ("pipe", "mkfifo \"$ASYNCQ_RESULT\""),
        ("link", "ln -s /etc/passwd \"$ASYNCQ_RESULT\""),
        ("fails", "echo 1 > \"$ASYNCQ_RESULT\"; exit 4"),
    ]);
    place.session(
        "
        $ for f in large folder pipe link fails; do asyncq enqueue events $f; done >/dev/null; asyncq process
        ! asyncq: job 1 (`events` `large`): its result is too large: at most 1048576 bytes are allowed
        ! asyncq: job 2 (`events` `folder`): its result is not a regular file
        ! asyncq: job 3 (`events` `pipe`): its result is not a regular file
        ! asyncq: job 4 (`events` `link`): its result is unreadable: Too many levels of symbolic links
        ! asyncq: job 5 (`events` `fails`): exit code 4
        ? 1
        $ ls .local/share/asyncq/queue.db-asyncq
        ",
    );
}

/// Nothing is left out: such a call ends in an error, unless its function takes it on standard input alone.
#[test]
fn a_call_that_does_not_fit_on_a_command_line_is_reported_with_a_hint() {
    let place = Place::with_functions(&[("count", "echo \"$# words\"; wc -c")]);
    let call = |call: &str| format!(r#"{{"service":"events","function":"count",{call}}}"#);
    let long = "x".repeat(131_072);
    let calls = [
        call(&format!(r#""args":["a","{long}","b"]"#)),
        call(&format!(r#""kwargs":{{"key":"{}"}}"#, &long[6..])),
        // One byte less each.
        call(&format!(r#""args":["{}"],"kwargs":{{"key":"{}"}}"#, &long[1..], &long[7..])),
        call(&format!(r#""args":[{}1]"#, "1,".repeat(399_999))),
    ];
    place.write("calls", &calls.join("\n"));
    let hint = "`asyncq function set events count --args stdin` passes the call on standard input alone";
    place.session(&format!(
        "
        $ asyncq enqueue --batch calls > /dev/null; asyncq process
        2 words
        262270
        ! asyncq: job 1 (`events` `count`): its argument 2 is a word of 131072 bytes, and one may have at most 131071; {hint}
        ! asyncq: job 2 (`events` `count`): its argument `key` is a word of 131072 bytes, and one may have at most 131071; {hint}
        ! asyncq: job 4 (`events` `count`): its 400000 arguments take 4000000 bytes of a command line, more than it may have; {hint}
        ? 1
        $ asyncq job show 4 --json
        {{[..]\"error\":{{\"kind\":\"cannot-run\",[..]\"attempts\":[{{\"attempt\":1,[..]}}]}}
        $ asyncq function set events count --args stdin; asyncq job retry 1 2 4 && asyncq process
        0 words
        131206
        0 words
        131198
        0 words
        800123
        "
    ));
}

/// Some programs take whatever stands on their standard input.
#[test]
fn a_function_gets_its_call_as_it_is_defined() {
    let place = Place::with_functions(&[]);
    place.function("words", "--stdin none", "echo \"$#: $*\"; wc -c; ls -l /proc/self/fd/0 | grep -o '/dev/null$'");
    place.function("line", "--args stdin", "echo \"$#: $*\"; cat");
    place.session(
        r#"
        $ asyncq enqueue events words a 1 -k b=2; asyncq enqueue events line a 1 -k b=2
        1
        2
        $ asyncq process
        3: a 1 --b=2
        0
        /dev/null
        0:[..]
        {"job":2,"attempt":1,"service":"events","function":"line","args":["a",1],"kwargs":{"b":2},"principal":null,"site":"[..]"}
        "#,
    );
}

#[test]
fn a_call_is_one_line_on_stdin() {
    let place = Place::with_functions(&[("lines", "wc -l; :")]);
    place.function("ignores", "--args stdin", "exec <&-; sleep 0.05");
    place.insert("function, args", "'lines', '[1,\n \"a\\nb\",\r\n2]'");
    // More than a pipe holds, and nobody reads it.
    place.insert("function, args", &format!("'ignores', '[\"{}\"]'", "x".repeat(900_000)));
    place.session("$ asyncq process\n1\n$ asyncq job list --state error");
}

#[test]
fn there_is_no_shell_unless_one_is_named() {
    let place = Place::with_functions(&[]);
    place.session(
        "
        $ asyncq function add events say -- echo '$HOME;' '*'
        $ asyncq enqueue events say '$(id)' '`id`' '; id'
        1
        $ asyncq process
        $HOME; * $(id) `id` ; id
        ",
    );
}

#[test]
fn a_missing_program_or_site_is_reported() {
    let place = Place::with_functions(&[("one", "echo one"), ("two", "echo two"), ("three", "echo three")]);
    place.program("script", "#!/nonexistent/interpreter\n");
    place.program("text", "echo no first line\n");
    place.program("worker.py", WORKER);
    place.session(
        "
        $ asyncq function add events work --worker -- ./worker.py
        $ asyncq function add events script -- ./script; asyncq function add events text -- ./text
        $ mkdir site && cp one site && asyncq function add events four --site site -- ./one
        $ for f in one two three four script text; do asyncq enqueue events $f; done >/dev/null
        ",
    );
    // Calls with a site of their own: of the last one, that is there.
    let here = place.path().display();
    for (function, site) in [("three", "own"), ("work", "own"), ("one", "own2")] {
        place.insert("function, site", &format!("'{function}', '{here}/{site}'"));
    }
    place.session(
        "
        $ rm one; chmod -x two; rm -r site; mkdir site2 own2; asyncq process --wait-retries 2>told; echo $?; sort told
        three
        1
        asyncq: job 1 (`events` `one`): its program `/[..]/one` is gone
        asyncq: job 2 (`events` `two`): its program `/[..]/two` is not executable
        asyncq: job 4 (`events` `four`): its site `/[..]/site` is gone
        asyncq: job 5 (`events` `script`): the interpreter `[..]` that `/[..]/script` names in its first line is missing
        asyncq: job 6 (`events` `text`): its program `/[..]/text` is neither a binary nor a script that begins with `#!`
        asyncq: job 7 (`events` `three`): its site `/[..]/own` is gone
        asyncq: job 8 (`events` `work`): its site `/[..]/own` is gone
        asyncq: job 9 (`events` `one`): its program `/[..]/own2/one` is gone
        hint: `asyncq function set events four` changes its program, site or environment file
        hint: `asyncq function set events one` changes its program, site or environment file
        hint: `asyncq function set events one` changes its program, site or environment file
        hint: `asyncq function set events script` changes its program, site or environment file
        hint: `asyncq function set events text` changes its program, site or environment file
        hint: `asyncq function set events two` changes its program, site or environment file
        hint: only this call has that site: make the directory, then run `asyncq job retry 7`
        hint: only this call has that site: make the directory, then run `asyncq job retry 8`
        $ asyncq job show 4 --json
        {[..]\"error\":{\"kind\":\"cannot-run\",\"message\":\"its site `/[..]/site` is gone\",\"exit_code\":127,\"signal\":null},[..]
        $ asyncq job show 2 --json
        {[..]\"exit_code\":126,[..]
        ",
    );
    assert_eq!(place.jobs("attempt"), "3, 3, 1, 3, 3, 3, 3, 3, 3");
}

/// As in a deploy: nothing of the calls was executed, so they are tried again, and succeed with the new program.
#[test]
fn a_program_that_is_gone_for_a_moment_costs_no_call() {
    let place = Place::with_functions(&[("one", "echo one")]);
    place.function("two", "--site .", "echo two");
    place.session(
        r#"
        $ mkdir site; cp two site; asyncq function set events two --site site
        $ for f in one two one two; do asyncq enqueue events $f; done >/dev/null
        $ mv one old; mv site away; asyncq process -v
        ! asyncq: job 1 (`events` `one`): its program `/[..]/one` is gone; tried again in [..]s
        ! asyncq: job 2 (`events` `two`): its site `/[..]/site` is gone; tried again in [..]s
        ! asyncq: job 3 (`events` `one`): its program `/[..]/one` is gone; tried again in [..]s
        ! asyncq: job 4 (`events` `two`): its site `/[..]/site` is gone; tried again in [..]s
        ! asyncq: 4 attempts; 0 jobs ended in an error
        $ asyncq job show 1 --json
        {[..]"state":"delayed",[..]"error":null,[..]"attempts":[{"attempt":1,[..]"ending":"conflict","error":{"kind":"cannot-run","message":"its program `/[..]/one` is gone","exit_code":127,[..]
        $ mv old one; mv away site; asyncq process --wait-retries | sort
        one
        one
        two
        two
        $ asyncq job list --state error
        "#,
    );
}

#[test]
fn a_program_that_is_being_written_is_waited_for() {
    let place = Place::with_functions(&[("one", "echo one")]);
    place.stdout("asyncq enqueue events one");
    let written = OpenOptions::new().append(true).open(place.at("one")).unwrap();
    let process = place.start("asyncq process");
    wait_until("it is claimed", || place.jobs("state") == "processing");
    drop(written);
    let output = process.wait();
    assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(0), &b"one\n"[..], &b""[..]));
    assert_eq!(place.jobs("state attempt"), "completed 1");
}

/// Others run meanwhile and after it, and the next attempt is the first one.
#[test]
fn a_call_whose_program_is_written_for_long_goes_back() {
    let place = Place::with_functions(&[("one", "echo $ASYNCQ_ATTEMPT"), ("two", "echo two")]);
    place.program("work.py", &format!("{WORKER}serve(lambda call: call['attempt'])"));
    place.stdout("asyncq function add events work --worker -- ./work.py; asyncq service set events --concurrency 2");
    place.stdout("for f in one work two; do asyncq enqueue events $f; done");
    let written = ["one", "work.py"].map(|name| OpenOptions::new().append(true).open(place.at(name)).unwrap());
    place.session(
        "
        $ asyncq process 2> told; sort told
        two
        asyncq: job 1 (`events` `one`): its program `/[..]/one` is being written; tried again in 5s
        asyncq: job 2 (`events` `work`): its program `/[..]/work.py` is being written; tried again in 5s
        $ asyncq job show 1 --json
        {[..]\"state\":\"delayed\",[..]\"attempt\":0,[..]\"error\":null,[..]\"attempts\":[]}
        ",
    );
    drop(written);
    place.session("$ asyncq process --wait-retries; asyncq job result 2\n1\n1");
    assert_eq!(place.jobs("state attempt"), "completed 1, completed 1, completed 1");
}

/// What was executed is not repeated, nor is a call inside of a call.
#[test]
fn a_program_that_began_and_says_that_it_cannot_is_not_tried_again() {
    let place =
        Place::with_functions(&[("inner", ":"), ("outer", "asyncq enqueue events inner"), ("shell", "no-such")]);
    place.session(
        "
        $ asyncq enqueue events shell; asyncq enqueue events outer; rm inner; asyncq -q process 2>/dev/null
        1
        2
        ? 1
        ",
    );
    assert_eq!(place.jobs("state attempt error.kind"), "error 1 cannot-run, error 1 exit, error 1 cannot-run");
}

#[test]
fn a_time_limit_ends_the_whole_group() {
    let place = Place::with_functions(&[]);
    place.function(
        "polite",
        "--timeout 2s",
        "trap 'echo ended; exit 0' TERM; touch here; while :; do sleep 0.01; done",
    );
    place.function("family", "--timeout 100ms", "sleep 1000 & sleep 1001 & echo $! > child; wait 2>/dev/null");
    place.function("stopped", "--timeout 100ms", "kill -STOP $$");
    place.session(
        "
        $ for f in polite family stopped; do asyncq enqueue events $f; done >/dev/null
        $ asyncq process 2>&1 | grep -v -e '^Terminated' -e '^$'; asyncq job list --state completed
        ended
        asyncq: job 1 (`events` `polite`): took longer than its time limit
        asyncq: job 2 (`events` `family`): took longer than its time limit
        asyncq: job 3 (`events` `stopped`): took longer than its time limit
        $ asyncq job show 1 --json
        {[..]\"error\":{\"kind\":\"timeout\",\"message\":\"took longer than its time limit\",\"exit_code\":null,\"signal\":null},[..]
        $ asyncq job show 3 --json
        {[..]\"kind\":\"timeout\",[..]\"signal\":15},[..]
        ",
    );
    assert!(!runs(&place.read("child")));
}

#[test]
fn a_function_that_ignores_the_request_to_end_is_killed() {
    let place = Place::with_functions(&[]);
    place.function("stubborn", "--timeout 100ms", "trap '' TERM; while :; do sleep 0.1; done");
    let began = std::time::Instant::now();
    place.session(
        "
        $ asyncq enqueue events stubborn; asyncq process
        1
        ! asyncq: job 1 (`events` `stubborn`): took longer than its time limit
        ? 1
        $ asyncq job show 1 --json
        {[..]\"signal\":9},[..]
        ",
    );
    assert!(began.elapsed() >= std::time::Duration::from_secs(10), "it got its grace");
}

#[test]
fn processes_that_a_program_leaves_behind_end_with_it() {
    let place = Place::with_functions(&[
        ("leaves", "sleep 1000 & echo $! > pid; echo done"),
        ("stubborn", "(trap '' TERM; while :; do sleep 0.01; done) & echo $! > pid2; sleep 0.05"),
    ]);
    place.session(
        "
        $ asyncq enqueue events leaves; asyncq process
        1
        done
        $ asyncq enqueue events stubborn; asyncq process
        2
        $ asyncq job list --json
        [
        {\"id\":2,[..]\"state\":\"completed\",[..]
        {\"id\":1,[..]\"state\":\"completed\",[..]
        ]
        ",
    );
    assert!(!runs(&place.read("pid")) && !runs(&place.read("pid2")));
}
