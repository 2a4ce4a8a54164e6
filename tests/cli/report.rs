//! What answers of workers report of a call besides its value: the calls that ran inside it, and the exception that ended it.

use serde_json::Value;

use crate::place::{Place, WORKER};

/// A worker whose answers are those of `answers`, an expression of Python, one after the other.
fn place(answers: &str) -> Place {
    let place = Place::with_functions(&[]);
    worker(&place, "work", answers);
    place
}

fn worker(place: &Place, name: &str, answers: &str) {
    let body = "
def call(function, depth=1, **more):
    return {'service': 'events', 'function': function, 'depth': depth, **more}

answers = iter(ANSWERS)
note('started', os.getpid())
hello()
while message := hear():
    reply = next(answers)
    write(reply.replace('ID', str(message['id']))) if isinstance(reply, str) else say(id=message['id'], **reply)
";
    place.program(&format!("{name}.py"), &format!("{WORKER}{}", body.replace("ANSWERS", answers)));
    place.stdout(&format!("asyncq function add events {name} --worker -- ./{name}.py"));
}

fn run(place: &Place, calls: usize) {
    place.stdout(&"asyncq enqueue --principal zope.user events work;".repeat(calls));
    place.run("asyncq process --wait-retries");
    assert_eq!(place.read("started").lines().count(), 1, "a report costs the worker");
}

fn milliseconds(job: &Value, time: &str) -> i64 {
    let text = job[time].as_str().unwrap();
    let clock: Vec<i64> = text[11..23].split([':', '.']).map(|part| part.parse().unwrap()).collect();
    ((clock[0] * 60 + clock[1]) * 60 + clock[2]) * 1000 + clock[3]
}

#[test]
fn calls_inside_a_call_are_jobs_of_their_own() {
    let place = place(
        "[{'result': {'value': 14, 'nested': [
            call('add', args=[1.5, 'ä'], kwargs={'a': 1}, milliseconds=250, value=[3]),
            call('log', 2, value=None),
            call('send', 2, error={'message': 'ValueError: no', 'type': 'ValueError'}),
            call('load', 3, error={'message': 'locked', 'kind': 'conflict'}),
            call('add', args=['x' * 3000]),
        ]}}]",
    );
    run(&place, 1);
    assert_eq!(
        place.jobs("id function parent state immediate attempt failures conflicts result error.kind error.message"),
        "1 work completed false 1 0 0 14, 2 add 1 completed true 1 0 0 [3], 3 log 2 completed true 1 0 0, \
         4 send 2 error true 1 1 0 error ValueError: no, 5 load 4 error true 1 0 1 conflict locked, \
         6 add 1 completed true 1 0 0"
    );
    assert_eq!(place.attempts(4, "attempt ending error.type"), "1 error ValueError");
    assert_eq!(place.attempts(5, "attempt ending error.message"), "1 conflict locked");
    assert_eq!(place.attempts(2, "attempt ending"), "1 completed");
    assert_eq!(place.job(6)["args"][0].as_str().unwrap().len(), 3000);
    let (own, inner) = (place.job(1), place.job(2));
    assert_eq!((&inner["args"], &inner["kwargs"]), (&serde_json::json!([1.5, "ä"]), &serde_json::json!({"a": 1})));
    assert_eq!(inner["finished_at"], own["finished_at"]);
    assert_eq!(milliseconds(&inner, "finished_at") - milliseconds(&inner, "started_at"), 250);
    assert_eq!([&inner["created_at"], &inner["run_at"]], [&inner["started_at"]; 2]);
    place.session(
        "
        $ asyncq job show 1
        ...
        calls that it made:
        ID[..]
        6[..]add[..]xxxxx[..]
        2[..]add[..][1.5, [..]
          4[..]send[..]
            5[..]load[..]
          3[..]log[..]
        $ asyncq job show 4
        ...
        parent     2  run at once, as a part of it
        ...
        error      ValueError: no
        type       ValueError
        ...
        $ asyncq job retry 4
        ! error: job 4 ran at once, as a part of another job
        ! hint: `asyncq job retry 2` concerns the whole
        ? 77
        $ asyncq process
        ",
    );
}

#[test]
fn a_call_inside_has_the_site_of_its_job() {
    let place = place("[{'result': {'nested': [call('add'), call('add', 2)]}}]");
    place.insert("function, site", &format!("'work', '{}'", place.path().display()));
    place.run("asyncq process");
    assert_eq!(place.jobs("site"), [place.path().to_str().unwrap(); 3].join(", "));
}

#[test]
fn calls_inside_are_kept_of_each_attempt_and_of_one_that_failed() {
    let place = place(
        "[{'error': {'code': 75, 'message': 'locked', 'data': {'pause': 0, 'nested': [call('one')], 'unrecorded': 2 ** 64 - 1}}},
          {'error': {'code': 1, 'message': 'no', 'data': {'nested': [call('two')], 'unrecorded': 3}}}]",
    );
    run(&place, 1);
    assert_eq!(place.jobs("function state parent"), "work error, one completed 1, two completed 1");
    assert_eq!(place.attempts(1, "attempt ending error.message"), "1 conflict locked, 2 error no");
    let attempts = &place.job(1)["attempts"];
    assert_eq!((&attempts[0]["unrecorded"], &attempts[1]["unrecorded"]), (&Value::from(i64::MAX), &Value::from(3)));
    place.session(
        "
        $ asyncq job show 1
        ...
        calls that it made and that have no job: 9223372036854775807
        ",
    );
}

/// A shell function calls one of a worker, that reports a call, and calls a shell function.
#[test]
fn calls_inside_calls_are_one_tree_whatever_runs_them() {
    let place = Place::with_functions(&[("outer", "asyncq enqueue events work"), ("inner", "echo inner")]);
    let body = "
def run(call):
    subprocess.run(['asyncq', 'enqueue', 'events', 'inner'], env=inside(call))
note('started', os.getpid())
hello()
while message := hear():
    run(message['params'])
    reported = [{'service': 'events', 'function': name, 'depth': depth} for name, depth in [('add', 1), ('log', 2)]]
    say(id=message['id'], result={'nested': reported})";
    place.program("work.py", &format!("{WORKER}{body}"));
    place.session(
        "
        $ asyncq function add events work --worker -- ./work.py
        $ asyncq enqueue events outer
        1
        $ asyncq process
        inner
        $ asyncq job show 1
        ...
        calls that it made:
        ID     SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        2      events   work      []         -          completed  [..]
          4    events   add       []         -          completed  [..]
            5  events   log       []         -          completed  [..]
          3    events   inner     []         -          completed  [..]
        ",
    );
    assert_eq!(
        place.jobs("id function parent state"),
        "1 outer completed, 2 work 1 completed, 3 inner 2 completed, 4 add 2 completed, 5 log 4 completed"
    );
}

#[test]
fn what_cannot_be_recorded_is_counted_and_harms_no_call() {
    let place = place(
        r#"[
            {'result': {'value': 1, 'nested': [call('add') for _ in range(10000)]}},
            {'result': {'value': 2, 'nested': [call('add', 3), call('add'), call('add', 9), call('add', 33), call('add', 2)]}},
            {'result': {'value': 3, 'nested': [call('add', args=3), call('-'), call('add', args=['\ud83d']), 7], 'unrecorded': 2}},
            {'result': {'value': 4, 'nested': [call('add', value='x' * 600000), call('add', value='x' * 600000)]}},
            {'result': {'value': 5, 'nested': 'none', 'unrecorded': 'none'}},
            {'result': {'value': 6, 'nested': {}, 'unrecorded': -1}},
            {'result': {'value': 7, 'unrecorded': 2 ** 64 - 1}},
            '{"jsonrpc":"2.0","id":ID,"result":{"value":8,"nested":[' + '[' * 5000 + ']' * 5000 + ']}}',
            {'result': {'value': 9, 'nested': [call('add', milliseconds=1e9), call('add', milliseconds=1e10)]}},
        ]"#,
    );
    run(&place, 9);
    let done: Vec<String> = (1..=9).map(|number| format!("completed {number}")).collect();
    let jobs: Vec<String> = place.jobs("parent state result").split(", ").map(str::to_owned).collect();
    assert_eq!(jobs[..9], done);
    let of = |job: usize| {
        let inside = jobs.iter().filter(|it| it.starts_with(&format!("{job} "))).count();
        let unrecorded = place.job(job)["attempts"][0]["unrecorded"].as_i64().unwrap_or_default();
        (inside, unrecorded)
    };
    let ends: Vec<(usize, i64)> = (1..=9).map(of).collect();
    assert_eq!(ends, [(100, 9900), (1, 3), (0, 6), (1, 1), (0, 0), (0, 0), (0, i64::MAX), (0, 1), (1, 1)]);
}

#[test]
fn an_exception_keeps_its_class_and_its_traceback() {
    let place = place(
        r#"[
            {'error': {'code': 1, 'message': 'ValueError: no', 'data': {'type': 'ValueError', 'traceback': 'in f\nin \x1b[31mg\n'}}},
            {'error': {'code': 1, 'message': 'no', 'data': {'type': 'T' * 300, 'traceback': 'b' + 'x' * 2 ** 20 + 'e'}}},
            {'error': {'code': 1, 'message': 'no', 'data': {'type': 3, 'traceback': ['x']}}},
            '{"jsonrpc":"2.0","id":ID,"error":{"code":1,"message":"caf\\ud83d","data":{"type":"a\\ud83d","traceback":"\\ude00b"}}}',
            {'error': {'code': 127, 'message': 'gone', 'data': {'type': 'ImportError'}}},
        ]"#,
    );
    run(&place, 5);
    place.session(
        r#"
        $ asyncq job show 1 --json
        {[..]"error":{"kind":"error","message":"ValueError: no","exit_code":null,"signal":null,"type":"ValueError","traceback":"in f\nin \u001b[31mg\n"},[..]
        $ asyncq job show 1
        ...
        error      ValueError: no
        type       ValueError
        ...
        traceback:
        in f
        in \u{1b}[31mg
        $ asyncq job show 1 --output csv
        id,[..],error.signal,error.type,error.traceback,[..]
        1,events,work,[..],error,ValueError: no,,,ValueError,"in f
        in [..]
        "[..]
        $ asyncq job show 3 --json
        {[..]"error":{"kind":"error","message":"no","exit_code":null,"signal":null},[..]
        "#,
    );
    let error = |job: usize| place.job(job)["error"].clone();
    let (class, traceback) = (error(2)["type"].clone(), error(2)["traceback"].clone());
    assert_eq!(class.as_str().unwrap(), "T".repeat(255));
    assert_eq!(traceback.as_str().unwrap(), "x".repeat(65535) + "e");
    let of = |error: &Value| ["message", "type", "traceback"].map(|name| error[name].as_str().unwrap().to_owned());
    assert_eq!(of(&error(4)), ["caf\u{fffd}", "a\u{fffd}", "\u{fffd}b"]);
    assert_eq!((&error(5)["kind"], &error(5)["type"]), (&"cannot-run".into(), &"ImportError".into()));
    assert_eq!(place.job(1)["attempts"][0]["error"], error(1));
}

#[test]
fn a_conflict_keeps_what_it_says() {
    let reply = "{'error': {'code': 75, 'message': 'locked', 'data': {'pause': 0, 'type': 'shop.Locked', 'traceback': 'in f'}}}";
    let place = place(&format!("[{reply}] * 3"));
    place.stdout("asyncq enqueue events work");
    place.session(
        "
        $ asyncq process --wait-retries -v
        ! asyncq: job 1 (`events` `work`): locked; tried again in 0.0s
        ! asyncq: job 1 (`events` `work`): locked; tried again in 0.0s
        ! asyncq: job 1 (`events` `work`): a conflict in all 3 attempts: locked
        ! asyncq: 3 attempts; 1 job ended in an error
        ? 1
        ",
    );
    assert_eq!(
        place.jobs("error.kind error.exit_code error.type error.traceback error.message"),
        "conflict 75 shop.Locked in f a conflict in all 3 attempts: locked"
    );
    assert_eq!(
        place.attempts(1, "ending error.message error.type"),
        "conflict locked shop.Locked, conflict locked shop.Locked, conflict a conflict in all 3 attempts: locked shop.Locked"
    );
}

/// Values in such a line may be cut, so asyncq records none of its calls.
#[test]
fn of_an_answer_that_is_too_long_no_calls_are_recorded() {
    let place = place(
        "[{'error': {'code': 1, 'message': 'no', 'data': {'nested': [call('add', args=['x' * 1000])] + [call('add')] * 200000}}},
          {'error': {'code': 1, 'message': 'no', 'data': {'nested': [call('add', args=['x' * 1000])], 'traceback': 'x' * (5 << 20)}}},
          {'result': {'nested': [call('add')], 'value': 'x' * (5 << 20)}}]",
    );
    run(&place, 3);
    assert_eq!(place.jobs("state error.message"), "error no, error no, error its answer is longer than 4 MiB");
}

/// The processor is killed between the answer of a call and its commit.
#[test]
fn a_call_that_reports_much_is_not_repeated_when_its_processor_is_killed() {
    let nested = "'nested': [call('add'), call('log', 2)], 'unrecorded': 5";
    let traceback = "'type': 'shop.Late', 'traceback': 'line\\n' * 13000";
    let error = |code: u8, data: &str| format!("{{'error': {{'code': {code}, 'message': 'no', 'data': {{{data}}}}}}}");
    let long = "\u{e4}".repeat(1000);
    for (answer, state, unrecorded) in [
        (format!("{{'result': {{'value': 14, {nested}}}}}"), "completed 14", Some(7)),
        (error(1, ""), "error error no", None),
        (error(1, &format!("{traceback}, {nested}")), "error error no", Some(7)),
        (error(75, &format!("'pause': 600, {traceback}")), "delayed", None),
        ("{'error': {'code': 1, 'message': '\u{e4}' * 5000}}".to_owned(), &format!("error error {long}"), None),
        (
            r#"'{"jsonrpc":"2.0","id":ID,"result":{"value":{"a":1,"a":2}}}\n'"#.to_owned(),
            "error bad-result its result is the key `a` twice in one object",
            None,
        ),
    ] {
        // One that takes less than a millisecond is repeated.
        let place = place(&format!("(time.sleep(0.005) or answer for answer in [{answer}])"));
        place.stdout("asyncq enqueue events work");
        place.run("ASYNCQ_FAILPOINT='outcome noted:1=kill' asyncq process");
        assert_eq!(place.jobs("state"), "processing", "{answer}");
        place.run("asyncq process");
        assert_eq!(place.read("started").lines().count(), 1, "{answer}");
        assert_eq!(place.jobs("state result error.kind error.message"), state, "{answer}");
        let attempt = &place.job(1)["attempts"][0];
        assert_eq!(attempt["unrecorded"].as_u64(), unrecorded, "{answer}");
        if answer.contains("traceback") {
            let kept = attempt["error"]["traceback"].as_str().unwrap();
            assert_eq!(attempt["error"]["type"], "shop.Late");
            assert!(kept.ends_with("line\nline\n") && kept.len() > 1000, "{kept}");
        }
    }
}
