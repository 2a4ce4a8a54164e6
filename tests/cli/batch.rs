//! `asyncq enqueue --batch`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::place::Place;

const FUNCTIONS: &[(&str, &str)] = &[("mail", "cat"), ("print", "true")];

#[test]
fn each_line_is_a_call_and_gets_a_number() {
    let place = Place::with_functions(FUNCTIONS);
    place.write(
        "calls",
        r#"{"service":"events","function":"mail"}
{"service":"events","function":"mail","args":[ 2, 7.10 ],"kwargs":{"to":"bob"},"principal":"alice","key":"k","hold":true}

{ "function" : "print", "service" : "events", "args" : null, "principal" : null }
"#,
    );
    place.session(
        r#"
        $ ASYNCQ_PRINCIPAL=carol asyncq enqueue --batch calls
        1
        2
        3
        $ asyncq job start 2; asyncq process
        {"job":1,"attempt":1,"service":"events","function":"mail","args":[],"kwargs":{},"principal":"carol","site":"/[..]"}
        {"job":2,"attempt":1,"service":"events","function":"mail","args":[ 2, 7.10 ],"kwargs":{"to":"bob"},"principal":"alice","site":"/[..]"}
        $ asyncq job show 3 --json
        [..]"principal":null[..]
        "#,
    );
}

#[test]
fn the_first_bad_line_is_reported_and_the_calls_before_it_are_enqueued() {
    let place = Place::with_functions(FUNCTIONS);
    let good = r#"{"service":"events","function":"mail"}"#;
    for (bad, code, said) in [
        ("{", 65, "not a call in JSON: it is not complete"),
        (r#"["events","mail",[1],{},null,null,false]"#, 65, "not a call in JSON: it has to be an object"),
        (r#"["events","mail",1]"#, 65, "not a call in JSON: it has to be an object"),
        ("[1,", 65, "not a call in JSON: it has to be an object"),
        (r#"{"service":"events","function":7}"#, 65, "not a call in JSON: `function` has to be a string"),
        (
            r#"{"service":"events","function":"mail","hold":1}"#,
            65,
            "not a call in JSON: `hold` has to be true or false",
        ),
        (
            r#"{"service":"events","funktion":"mail"}"#,
            65,
            "not a call in JSON: `funktion` is not known, did you mean `function`?",
        ),
        (r#"{"service":"events"}"#, 65, "not a call in JSON: `function` is missing"),
        (r#"{"service":"events","function":"mail","delay":1}"#, 65, "not a call in JSON: `delay` is not known"),
        (
            r#"{"service":"events","function":"mail","inside":{"job":1,"token":""}}"#,
            65,
            "not a call in JSON: `inside` is not known",
        ),
        (
            r#"{"service":"events","function":"mail","priority":"high"}"#,
            65,
            "not a call in JSON: `priority` has to be a whole number",
        ),
        (
            r#"{"service":"events","function":"mail","at":"2036-01-01T00:00:00"}"#,
            65,
            "`at` is `2036-01-01T00:00:00`, which is not a time with its offset from UTC",
        ),
        (
            r#"{"service":"events","function":"mail","at":"1970-01-01T00:00:00Z"}"#,
            65,
            "`at` is `1970-01-01T00:00:00Z`, and no call can be due before 1973-03-03T09:46:40.000Z",
        ),
        (
            r#"{"service":"events","function":"mail","site":"here"}"#,
            65,
            "`site` is `here`, which is not an absolute path",
        ),
        (r#"{"service":"events","function":"mail","args":{}}"#, 65, "`args` is not an array, as in [2,7]"),
        (
            r#"{"service":"events","function":"mail","kwargs":[1]}"#,
            65,
            r#"`kwargs` is not an object, as in {"to":"bob"}"#,
        ),
        (
            r#"{"service":"events","function":"mail","kwargs":{"a":1,"a":2}}"#,
            65,
            "`kwargs`: the key `a` twice in one object",
        ),
        (r#"{"service":"Events","function":"mail"}"#, 65, "`Events` cannot be the name of a service"),
        (r#"{"service":"event","function":"mail"}"#, 66, "there is no service `event`"),
        (r#"{"service":"events","function":"male"}"#, 66, "service `events` has no function `male`"),
        (r#"{"service":"events","function":"mail","key":""}"#, 65, "`` cannot be a key"),
        ("\u{fffd}\u{fffd}", 65, "not a call in JSON: unexpected `\u{fffd}` at column 1"),
    ] {
        let before = place.count("");
        place.write("calls", &format!("{good}\n{good}\n\n{bad}\n{good}\n"));
        let output = place.run("asyncq enqueue --batch calls");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("error: line 4: {said}")), "{bad}: {stderr}");
        assert!(stderr.lines().next().unwrap().ends_with("; the lines before it were enqueued"), "{bad}: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{bad}: {stderr}");
        let after = place.count("");
        assert_eq!(after, before + 2, "{bad}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2, "{bad}");

        let output = place.run("asyncq enqueue --batch calls --atomic");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.lines().next().unwrap().ends_with("; nothing was enqueued"), "{bad}: {stderr}");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{bad}: {stderr}");
        assert_eq!(place.count(""), after, "{bad}");
    }
}

#[test]
fn a_line_may_say_where_and_when_its_call_runs() {
    let place = Place::with_functions(&[("mail", "pwd")]);
    place.stdout("mkdir other && cp mail other");
    let line = |more: &str| format!("{{\"service\":\"events\",\"function\":\"mail\"{more}}}\n");
    let other = format!(r#","site":"{}/other","priority":-1"#, place.path().display());
    place.write(
        "calls",
        &[
            line(""),
            line(&other),
            line(r#","at":"2036-01-01T01:00:00+01:00""#),
            line(r#","at":"2036-01-01T00:00:00Z","hold":true"#),
            line(r#","at":"2016-01-01T00:00:00.25Z""#),
        ]
        .concat(),
    );
    place.session(
        "
        $ asyncq enqueue --batch calls | tail -1
        5
        $ asyncq process
        [..]/other
        [..]
        [..]
        ",
    );
    assert_eq!(place.jobs("state priority"), "completed 0, completed -1, delayed 0, held 0, completed 0");
    for (id, at) in [(3, "2036-01-01T00:00:00.000Z"), (4, "2036-01-01T00:00:00.000Z"), (5, "2016-01-01T00:00:00.250Z")]
    {
        assert_eq!(place.job(id)["run_at"], at);
    }
}

#[test]
fn an_unreadable_batch_is_reported() {
    let place = Place::with_functions(FUNCTIONS);
    place.session(
        "
        $ asyncq enqueue --batch nowhere
        ! error: cannot read `nowhere`: No such file or directory
        ! hint: `--batch -` reads stdin
        ? 66
        $ asyncq enqueue --batch .
        ! error: cannot read `.`: is a directory
        ! hint: `--batch -` reads stdin
        ? 74
        $ printf '{\\n\\377' | asyncq enqueue --batch -
        ! error: line 1: not a call in JSON: it is not complete; nothing was enqueued
        ! hint: write {\"service\":\"events\",\"function\":\"mail\",\"args\":[2,7]}
        ? 65
        $ printf '\\377' | asyncq enqueue --batch -
        ! error: line 1: not UTF-8 from byte 1 on; nothing was enqueued
        ? 65
        $ head -c 5000000 /dev/zero | tr '\\0' ' ' | asyncq enqueue --batch -
        ! error: line 1: too long for a call; nothing was enqueued
        ! hint: put the data into a file and pass its path
        ? 65
        $ asyncq enqueue --batch - --batch-size 0 < /dev/null
        ! error: `--batch-size` cannot be `0`: a number of calls is a whole number from 1
        ! hint: [..]
        ? 2
        $ asyncq job list --limit x
        ! error: `--limit` cannot be `x`: a limit is a whole number from 0 to 4294967295
        ! hint: [..]
        ? 2
        $ asyncq job log 1 --attempt 1st
        ! error: `--attempt` cannot be `1st`: the number of an attempt is a whole number from 1
        ! hint: [..]
        ? 2
        $ asyncq enqueue --batch - events mail < /dev/null
        ! error: [..]
        ! hint: [..]
        ? 2
        $ asyncq enqueue --batch - < /dev/null
        ",
    );
}

#[test]
fn keys_make_a_batch_safe_to_repeat() {
    let place = Place::with_functions(FUNCTIONS);
    let mut calls = String::new();
    for number in 0..2500 {
        writeln!(calls, r#"{{"service":"events","function":"print","args":[{number}],"key":"{number}"}}"#).unwrap();
    }
    place.write("calls", &calls);
    let numbers = place.stdout("seq 2500");
    assert_eq!(place.stdout("asyncq enqueue --batch calls"), numbers);
    assert_eq!(place.stdout("asyncq enqueue --batch calls --batch-size 7"), numbers);
    place.write("calls", &calls.replace("[2400]", "[1]"));
    place.session(
        "
        $ asyncq enqueue --batch calls --atomic
        ! error: line 2401: key `2400` belongs to job 2401, which is another call; nothing was enqueued
        ! hint: `asyncq job show 2401` shows that call; a new call needs a new key
        ? 77
        $ asyncq enqueue --batch calls | tail -1
        2400
        ! error: line 2401: key `2400` belongs to job 2401, which is another call; the lines before it were enqueued
        ! hint: `asyncq job show 2401` shows that call; a new call needs a new key
        ",
    );
}

#[test]
fn a_call_in_a_pipe_is_answered_at_once() {
    let place = Place::with_functions(FUNCTIONS);
    let mut command = place.command("exec asyncq enqueue --batch -");
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut calls, numbers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
    let mut numbers = BufReader::new(numbers).lines();
    for number in 1..=3 {
        calls.write_all(b"{\"service\":\"events\",\"function\":\"mail\"}\n").unwrap();
        assert_eq!(numbers.next().unwrap().unwrap(), number.to_string());
        assert_eq!(place.count(""), number);
    }
    drop(calls);
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_batch_whose_numbers_are_not_read_is_enqueued_whole() {
    let place = Place::with_functions(FUNCTIONS);
    place.write("calls", &"{\"service\":\"events\",\"function\":\"mail\"}\n".repeat(5000));
    assert_eq!(place.stdout("asyncq enqueue --batch calls | head -1"), "1\n");
    assert_eq!(place.count(""), 5000);
}

#[test]
fn inside_a_function_a_batch_is_deferred_and_inherits() {
    let place = Place::with_functions(&[("print", "true"), ("outer", "asyncq enqueue --batch calls $1")]);
    place.write("calls", "{\"service\":\"events\",\"function\":\"print\"}\n");
    place.session(
        "
        $ asyncq enqueue events outer; asyncq --quiet process
        1
        ! error: inside a running function, calls run at once, one at a time
        ! hint: `--defer` queues a batch; `asyncq enqueue SERVICE FUNCTION` runs one call
        ? 1
        $ asyncq enqueue --principal bob events outer -- --defer && asyncq process
        2
        3
        $ asyncq job show 3 --json
        [..]\"principal\":\"bob\"[..]\"parent\":2[..]
        ",
    );
    place.write("calls", "{\"service\":\"events\",\"function\":\"print\",\"principal\":\"eve\"}\n");
    let output = place.run("asyncq enqueue events outer -- --defer; asyncq process");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("line 1: a call inside a running function has the principal")
    );
}
