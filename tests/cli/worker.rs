//! Functions that are run by workers: programs that stay, and get one call after another.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::place::{COMPLETES, Place, WORKER, runs, sleeps, wait_until};

/// A place with the service `events`, and a worker as its function `work`.
fn place(options: &str, body: &str) -> Place {
    let place = Place::with_functions(&[]);
    worker(&place, "work", options, body);
    place
}

fn worker(place: &Place, name: &str, options: &str, body: &str) {
    place.program(&format!("{name}.py"), &format!("{WORKER}{body}"));
    place.stdout(&format!("asyncq function add events {name} --worker {options} -- ./{name}.py"));
}

fn words(place: &Place, file: &str) -> Vec<String> {
    place.read(file).split_ascii_whitespace().map(str::to_owned).collect()
}

/// The workers that were started.
fn started(place: &Place) -> Vec<String> {
    words(place, "started")
}

fn nothing_is_left(place: &Place) {
    assert!(started(place).iter().all(|pid| !runs(pid)), "a worker is left");
    assert_eq!(place.processors(), 0);
}

fn states(place: &Place) -> String {
    place.jobs("state result")
}

/// How many attempts of all jobs failed, met a conflict or crashed.
fn bad_ends(place: &Place) -> usize {
    let counts = place.jobs("failures conflicts crashes");
    counts.split([',', ' ']).filter(|count| !count.is_empty()).map(|count| count.parse::<usize>().unwrap()).sum()
}

fn enqueue(place: &Place, calls: &[&str]) {
    let all: Vec<String> = calls.iter().map(|call| format!("asyncq enqueue events {call}")).collect();
    place.stdout(&all.join(" && "));
}

#[test]
fn functions_with_the_same_program_share_their_workers() {
    let place = place("", "serve(lambda call: os.getpid())");
    place.session(
        "
        $ asyncq service add others
        $ asyncq function add events again --worker --timeout 1h -- ./work.py
        $ asyncq function add events elsewhere --worker --env COLOUR=red -- ./work.py
        $ asyncq function add others work --worker -- ./work.py
        ",
    );
    enqueue(&place, &["work", "again", "elsewhere", "work"]);
    place.stdout("asyncq enqueue others work");
    place.session("$ asyncq process");
    let results = place.jobs("result");
    let pids: Vec<&str> = results.split(", ").collect();
    assert!(pids[0] == pids[1] && pids[0] == pids[3] && pids[0] == pids[4] && pids[0] != pids[2], "{pids:?}");
    assert_eq!(started(&place).len(), 2);
    nothing_is_left(&place);
}

#[test]
fn as_many_are_started_as_calls_may_run_at_once_and_no_more() {
    let body = "
def run(call):
    note('at', os.getpid())
    until(lambda: len(set(lines('at'))) >= 3)
    return 1
serve(run)";
    let place = place("", body);
    place.stdout("asyncq service set events --concurrency 3");
    enqueue(&place, &["work"; 9]);
    place.session("$ asyncq process");
    assert_eq!(place.count("--state completed"), 9);
    assert_eq!(started(&place).len(), 3);
    nothing_is_left(&place);
}

/// There are more slots than calls may run at once: while one puts its worker aside, another one looks for work.
#[test]
fn a_worker_that_is_just_put_aside_is_found() {
    let place = place("", "serve(lambda call: 1)");
    place.stdout("asyncq service set events --concurrency 2");
    let calls = [r#"{"service":"events","function":"work"}"#; 1000];
    place.write("calls", &calls.join("\n"));
    place.stdout("asyncq enqueue --batch calls");
    place.session("$ asyncq process");
    assert_eq!(place.count("--state completed"), 1000);
    assert!(started(&place).len() <= 2, "{} were started", started(&place).len());
}

#[test]
fn workers_are_replaced_after_so_many_calls_or_when_they_have_grown() {
    let place = place("--calls-per-worker 2", "serve(lambda call: 1, output='counted')");
    enqueue(&place, &["work"; 5]);
    place.session("$ asyncq process");
    assert_eq!(
        (started(&place).len(), states(&place).as_str()),
        (3, "completed 1, completed 1, completed 1, completed 1, completed 1")
    );
    nothing_is_left(&place);

    let body = "
kept = []
def run(call):
    kept.append(b'x' * (call['args'][0] << 20))
serve(run)";
    let place = self::place("--memory-growth 20M", body);
    enqueue(&place, &["work 1", "work 1", "work 30", "work 1"]);
    place.session("$ asyncq process");
    assert_eq!((started(&place).len(), states(&place).as_str()), (2, "completed, completed, completed, completed"));
    nothing_is_left(&place);
}

#[test]
fn an_idle_worker_is_ended() {
    let place = place("--idle 50ms", "serve(lambda call: 1)");
    place.function("waits", "", "while [ ! -e started ] || kill -0 $(cat started) 2>/dev/null; do sleep 0.01; done");
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work", "waits"]);
    place.session("$ asyncq process");
    assert_eq!((started(&place).len(), states(&place).as_str()), (1, "completed 1, completed"));
}

#[test]
fn workers_are_gone_with_all_that_they_have_started_before_the_processor_is() {
    let body = "
def run(call):
    own = subprocess.Popen(['sleep', '1000'], env=inside(call))
    away = subprocess.run(['sh', '-c', 'setsid sleep 1000 >&- 2>&- & echo $!'], stdout=subprocess.PIPE, text=True, env=inside(call))
    note('started', own.pid), note('started', away.stdout)
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work", "work"]);
    place.session("$ asyncq process");
    assert_eq!(started(&place).len(), 5);
    nothing_is_left(&place);
}

/// A worker that has read its version when it started.
const VERSIONED: &str = "
version = int(open('version').read())
serve(lambda call: version)";

/// What the next call returns.
fn next_result(place: &Place) -> String {
    let job = place.stdout("asyncq enqueue events work").trim().parse().unwrap();
    wait_until("the call is done", || place.job(job)["state"] == "completed");
    place.job(job)["result"].to_string()
}

#[test]
fn a_deploy_reaches_a_worker_that_has_nothing_to_do() {
    let place = Place::with_functions(&[]);
    place.stdout("mkdir one two && ln -s one current");
    for (release, version) in [("one", 1), ("two", 2)] {
        place.program(&format!("{release}/work.py"), &format!("{WORKER}{VERSIONED}"));
        place.write(&format!("{release}/version"), &version.to_string());
    }
    place.stdout("asyncq function add events work --worker --site current -- python3 ./work.py");
    let processor = place.start("asyncq process --follow");
    assert_eq!(next_result(&place), "1");
    // One who reads the file anew has to be another worker.
    place.stdout("echo 3 > one/version");
    assert_eq!(next_result(&place), "1");
    place.stdout("touch -d '1 hour ago' one/work.py");
    wait_until("a file that was written is seen", || next_result(&place) == "3");
    place.stdout("mv one/work.py one/gone");
    assert_eq!(next_result(&place), "3");
    place.stdout("cp one/gone one/work.py && echo 4 > one/version");
    wait_until("a file that came back is seen", || next_result(&place) == "4");
    place.stdout("ln -sfn two current");
    wait_until("a link to another release is seen", || next_result(&place) == "2");
    place.stdout("echo 5 > two/version");
    for (change, told) in [
        ("function reload events work", "replacing the workers of 1 function"),
        ("function reload events", "replacing the workers of 1 function"),
        ("function reload", "replacing the workers of 1 function"),
    ] {
        place.session(&format!("$ asyncq {change} -v\n! asyncq: {told}"));
        assert_eq!(next_result(&place), place.read("two/version").trim());
        place.stdout("echo $(($(cat two/version) + 1)) > two/version");
    }
    place.stdout("asyncq function set events work --env COLOUR=red");
    assert_eq!(next_result(&place), place.read("two/version").trim());
    let all: Vec<String> = ["one", "two"].iter().flat_map(|site| words(&place, &format!("{site}/started"))).collect();
    wait_until("all but the latest are gone", || all.iter().filter(|pid| runs(pid)).count() == 1);
    assert_eq!(all.len(), 8);
    place.session(
        "
        $ asyncq function reload events nothing
        ! error: service `events` has no function `nothing`
        ! hint: [..]
        ? 66
        ",
    );
    processor.signal("TERM");
    assert!(processor.wait().status.success());
}

#[test]
fn a_deploy_reaches_a_worker_that_is_never_without_calls() {
    for deploy in
        ["touch -d '1 hour ago' work.py", "asyncq function reload", "asyncq function set events work --env A=1"]
    {
        let place = place("", VERSIONED);
        place.write("version", "1");
        place.write("calls", &[r#"{"service":"events","function":"work"}"#; 300].join("\n"));
        place.stdout("asyncq enqueue --batch calls");
        let processor = place.start("asyncq process --follow");
        let done = |version| place.jobs("result").split(", ").any(|result| result == version);
        wait_until("the first calls are done", || done("1"));
        place.stdout(&format!("echo 2 > version && {deploy}"));
        wait_until("it is seen", || {
            if place.count("--state queued") < 300 {
                place.stdout("asyncq enqueue --batch calls");
            }
            done("2")
        });
        assert!(started(&place).len() >= 2, "{deploy}");
        processor.signal("TERM");
        processor.wait();
        assert_eq!(bad_ends(&place), 0, "{deploy}");
        nothing_is_left(&place);
    }
}

/// A file that is written all the time costs starts, but no call waits for ever.
#[test]
fn a_worker_runs_a_call_at_least_before_it_is_outdated() {
    let body = "
time.sleep(1.1)
open('log', 'a').write('started\\n')
serve(lambda call: open('log', 'a').write('called\\n'))";
    let place = Place::with_functions(&[]);
    place.write("log", "");
    place.program("work.py", &format!("{WORKER}{body}"));
    place.stdout("asyncq function add events work --worker -- ./work.py log");
    enqueue(&place, &["work", "work"]);
    place.session("$ asyncq process");
    assert_eq!(states(&place), "completed 7, completed 7");
}

/// What a worker that gets no more calls still runs may take long.
#[test]
fn calls_do_not_wait_for_a_worker_that_gets_no_more() {
    let body = "
def run(call):
    if call['args'] == ['long']: until(exists('go'))
    return os.getpid()
note('started', os.getpid())
hello(calls=2)
while message := hear():
    if message.get('method') == 'call':
        threading.Thread(target=answer, args=(message['id'], run, message['params'])).start()";
    let place = place("--calls-per-worker 2", body);
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work long", "work", "work", "work"]);
    let processor = place.start("asyncq process");
    wait_until("the others are done", || place.count("--state completed") == 3);
    assert_eq!(place.job(1)["state"], "processing");
    place.write("go", "");
    assert!(processor.wait().status.success());
    assert_eq!(started(&place).len(), 2);
    nothing_is_left(&place);
}

#[test]
fn a_worker_inherits_four_descriptors() {
    let body = "
def run(call):
    return sorted(os.listdir('/proc/self/fd'), key=int)[:-1] + [os.readlink('/proc/self/fd/0')]
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work"]);
    place.session("$ asyncq process 5</dev/null 7</dev/null");
    assert_eq!(states(&place), r#"completed ["0", "1", "2", "3", "/dev/null"]"#);
}

#[test]
fn output_belongs_to_the_call_that_printed_it() {
    let counted = "
printed = [0, 0]
def run(call):
    for which, text in enumerate([f\"out {call['args'][0]}\\n\", f\"err {call['args'][0]}\\n\"]):
        os.write(1 + which, text.encode())
        printed[which] += len(text)
note('started', os.getpid())
hello(output='counted')
while message := hear():
    printed = [0, 0]
    run(message['params'])
    say(id=message['id'], result={'output': printed})";
    let plain = "
def run(call):
    print('out', call['args'][0])
    print('err', call['args'][0], file=sys.stderr)
serve(run)";
    for body in [counted, plain] {
        let place = place("", body);
        let calls: Vec<String> =
            (1..=60).map(|n| format!(r#"{{"service":"events","function":"work","args":[{n}]}}"#)).collect();
        place.write("calls", &calls.join("\n"));
        place.stdout("asyncq enqueue --batch calls");
        let output = place.run("asyncq process");
        let expected = |stream: &str| (1..=60).map(|n| format!("{stream} {n}")).collect::<Vec<_>>().join("\n") + "\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected("out"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected("err"));
        for job in 1..=60 {
            let log = place.run(&format!("exec asyncq job log {job}"));
            let printed = [log.stdout, log.stderr].map(|stream| String::from_utf8(stream).unwrap());
            assert_eq!(printed, [format!("out {job}\n"), format!("err {job}\n")]);
        }
        assert_eq!(started(&place).len(), 1);
    }
}

#[test]
fn a_worker_that_runs_several_calls_answers_in_any_order_and_sends_what_they_print() {
    let body = "
note('started', os.getpid())
hello(calls=3)
print('of the worker', file=sys.stderr, flush=True)
calls = [hear() for _ in range(3)]
for message in reversed(calls):
    job = message['params']['job']
    for stream in ('out', 'err'):
        say(method='output', params={'job': job, 'stream': stream, 'text': f'{stream} {job}\\n'})
    say(id=message['id'], result={'value': len(calls)})
hear()";
    let place = place("", body);
    place.stdout("asyncq service set events --concurrency 5");
    enqueue(&place, &["work"; 3]);
    place.session(
        "
        $ asyncq process
        out 3
        out 2
        out 1
        ...
        $ asyncq job log 3
        out 3
        ! err 3
        $ asyncq job log 2
        out 2
        ! err 2
        ",
    );
    assert_eq!((started(&place).len(), states(&place).as_str()), (1, "completed 3, completed 3, completed 3"));
    nothing_is_left(&place);
}

#[test]
fn an_answer_decides_how_the_job_ends() {
    let body = "
def run(call):
    what = call['args'][0]
    if what == 'conflict' and call['attempt'] == 1:
        note('conflicts', time.time())
    if what == 'error': raise ValueError('it does not work')
    if what == 'conflict' and call['attempt'] == 1: raise Conflict('busy')
    if what == 'cannot': raise CannotRun('no module')
    return {'value': [1.5, None], 'nothing': None, 'conflict': 'second time'}[what]
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work value", "work nothing", "work error", "work cannot", "work conflict"]);
    place.session(
        r#"
        $ asyncq process --wait-retries
        ! asyncq: job 3 (`events` `work`): it does not work
        ! asyncq: job 4 (`events` `work`): no module
        ! hint: `asyncq function set events work` changes its program, site or environment file
        ? 1
        $ asyncq job show 3 --json
        {[..]"state":"error",[..]"error":{"kind":"error","message":"it does not work","exit_code":null,"signal":null},[..]
        $ asyncq job show 4 --json
        {[..]"state":"error",[..]"error":{"kind":"cannot-run","message":"no module","exit_code":127,"signal":null},[..]
        $ asyncq job result 1; asyncq job result 2; asyncq job result 5
        [1.5, null]
        null
        "second time"
        "#,
    );
    assert_eq!(place.jobs("failures conflicts crashes attempt"), "0 0 0 1, 0 0 0 1, 1 0 0 1, 1 0 0 1, 0 1 0 2");
    assert_eq!(started(&place).len(), 1);
}

/// A call that ends in the function's own transaction is completed once, whatever the worker says or fails to say then.
#[test]
fn a_function_may_complete_its_own_job() {
    let body = "
hello()
while message := hear():
    call = message['params']
    if call['args'] == ['does']:
        environment = {**inside(call), 'ASYNCQ_ATTEMPT': str(call['attempt'])}
        subprocess.run(['sh', './completes'], env=environment, check=True)
    say(id=message['id'], result={'completed': True, 'value': 7})";
    let place = place("", body);
    place.write("completes", COMPLETES);
    enqueue(&place, &["work does", "work says"]);
    let output = place.run("asyncq process");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(states(&place), "completed 7, error");
    place.session("$ asyncq job result 2\n! asyncq: job 2 ended in an error: [..]\n? 1");
}

/// Only the oldest call can have begun; those behind it are as if they had never been sent.
#[test]
fn when_a_worker_dies_only_the_oldest_call_is_charged() {
    let body = "
def run(call):
    if call['args'] == ['die']:
        os._exit(9)
    note('ran', call['job'])
serve(run, output='counted')";
    let place = place("", body);
    let calls: Vec<String> = (1..=300)
        .map(|n| {
            format!(r#"{{"service":"events","function":"work","args":["{}"]}}"#, if n == 150 { "die" } else { "go" })
        })
        .collect();
    place.write("calls", &calls.join("\n"));
    place.stdout("asyncq enqueue --batch calls");
    place.session(
        "
        $ asyncq process --wait-retries
        ! asyncq: job 150 (`events` `work`): its worker ended with exit code 9
        ! asyncq: job 150 (`events` `work`): its worker ended with exit code 9
        ! asyncq: job 150 (`events` `work`): its worker ended with exit code 9 in 3 attempts
        ? 1
        $ asyncq job show 150 --json
        {[..]\"error\":{\"kind\":\"crash\",[..]
        ",
    );
    assert_eq!(words(&place, "ran").len(), 299);
    assert_eq!(words(&place, "ran").into_iter().collect::<BTreeSet<_>>().len(), 299);
    let ends = place.jobs("state attempt failures conflicts crashes");
    assert_eq!(ends.matches("completed 1 0 0 0").count(), 299, "{ends}");
    nothing_is_left(&place);
}

/// What it has outlived is noted, though it took too little time to be worth a note otherwise.
#[test]
fn a_call_that_was_charged_with_a_crash_is_not_charged_with_a_death_after_its_end() {
    let body = "
def run(call):
    if call['attempt'] == 1:
        os._exit(9)
    return call['attempt']
serve(run, output='counted')";
    let place = place("", body);
    enqueue(&place, &["work"]);
    // The outcome of the second attempt.
    place.run("ASYNCQ_FAILPOINT='outcome noted:2=kill' asyncq process --wait-retries");
    assert_eq!(states(&place), "processing");
    place.stdout("asyncq process --wait-retries");
    assert_eq!(states(&place), "completed 2");
    assert_eq!(place.jobs("crashes"), "1");
    nothing_is_left(&place);
}

/// Of several calls at once, all may have begun.
#[test]
fn when_a_worker_dies_that_runs_several_calls_all_are_charged() {
    let body = "
note('started', os.getpid())
hello(calls=2)
if len(lines('started')) == 1:
    hear(), hear()
    os.kill(os.getpid(), signal.SIGKILL)
while message := hear():
    say(id=message['id'], result={'value': message['params']['attempt']})";
    let place = place("", body);
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work"; 2]);
    place.stdout("asyncq process --wait-retries");
    assert_eq!(states(&place), "completed 2, completed 2");
    for job in 1..=2 {
        let told = "crash its worker was ended by signal 9 (SIGKILL), completed";
        assert_eq!(place.attempts(job, "ending error.message"), told);
    }
    nothing_is_left(&place);
}

#[test]
fn a_breach_of_protocol_costs_only_the_calls_that_the_worker_holds() {
    for (bad, why) in [
        ("write('hello there')", "its worker sent an invalid message: [..]"),
        ("say(id=4711, result={})", "its worker gave an answer with the id 4711, which no open call has"),
        ("hello()", "its worker said hello twice"),
        ("say(id=9, method='drop', params={})", "its worker called the unknown method `drop`"),
        ("say(id=message['id'], result=3)", "its worker sent an invalid message: [..]"),
        ("write('x' * (5 << 20))", "its worker wrote a line of more than 4 MiB"),
        ("line.shutdown(socket.SHUT_RDWR); sys.exit(3)", "its worker ended with exit code 3"),
    ] {
        let body = format!(
            "
note('started', os.getpid())
hello()
while message := hear():
    if message['params']['args'] == ['bad']:
        {bad}
        time.sleep(1000)
    say(id=message['id'], result={{}})"
        );
        let place = place("", &body);
        enqueue(&place, &["work good", "work bad", "work good"]);
        place.session(&format!(
            "$ asyncq process --wait-retries
...
! asyncq: job 2 (`events` `work`): {why} in 3 attempts
? 1"
        ));
        assert_eq!(place.jobs("state crashes"), "completed 0, error 3, completed 0", "{bad}");
        nothing_is_left(&place);
    }
}

/// What the worker says of a call, how the job ends, and what is kept of its output and of how far it is.
#[test]
fn texts_that_are_no_unicode_or_too_long_cost_one_run() {
    let body = r#"
note('started', os.getpid())
hello()
def send(text):
    line.sendall(text + b'\n')
def output(id, call, text):
    send(b'{"jsonrpc":"2.0","method":"output","params":{"job":%d,"stream":"out","text":"%s"}}' % (call['job'], text))
    say(id=id, result={})
def value(id, call, text):
    send(b'{"jsonrpc":"2.0","id":%d,"result":{"value":%s}}' % (id, text))
def error(id, call, text, code=1):
    send(b'{"jsonrpc":"2.0","error":{"code":%d,"message":"%s"},"id":%d}' % (code, text, id))
def progress(id, call, text):
    send(b'{"jsonrpc":"2.0","method":"progress","params":{"job":%d,"note":"%s"}}' % (call['job'], text))
    say(id=id, result={})
def unnamed(id, call, text):
    send(b'{"jsonrpc":"2.0","id":%d,"\\ud83d":"%s","result":{"value":1}}' % (id, text))
texts = {'half': b'caf\\ud83d', 'bytes': b'caf\xff', 'long': b'x' * (5 << 20)}
while message := hear():
    call = message['params']
    note('runs', call['job'])
    how, which = call['args']
    text = b'[%s]' % (b'1,' * (3 << 20) + b'1') if (how, which) == ('value', 'long') else texts[which]
    globals()[how](message['id'], call, b'"%s"' % text if how == 'value' and which != 'long' else text)"#;
    let place = place("", body);
    let told = [
        ("error half", "error error caf\u{fffd}", None),
        ("error bytes", "error error caf\u{fffd}", None),
        ("error long", &*format!("error error {}", "x".repeat(2000)), None),
        ("value half", "error bad-result its result is a lone surrogate in a string", None),
        ("value bytes", "error bad-result its result has a string that is not valid Unicode", None),
        ("value long", "error bad-result its answer is longer than 4 MiB", None),
        ("output half", "completed", Some("caf\u{fffd}")),
        ("output bytes", "completed", Some("caf\u{fffd}")),
        ("output long", "completed", Some("x\nasyncq: the rest is left out, as the message is longer than 4 MiB\n")),
        ("progress half", "completed", None),
        ("progress bytes", "completed", None),
        ("progress long", "completed", None),
        ("unnamed half", "completed 1", None),
    ];
    enqueue(&place, &told.map(|(call, ..)| format!("work {call}")).each_ref().map(|call| &**call));
    let output = place.run("asyncq process");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let ends = place.jobs("state result error.kind error.message");
    let mut ended = ends.split(", ");
    for (id, (call, end, log)) in (1..).zip(told) {
        assert_eq!(ended.next(), Some(end), "{call}");
        if let Some(end) = log {
            let log = place.stdout(&format!("asyncq job log {id}"));
            assert!(log.ends_with(end), "{call}: {}", &log[log.len().saturating_sub(200)..]);
        }
    }
    assert_eq!(words(&place, "runs").len(), told.len());
    assert_eq!(started(&place).len(), 1);
    nothing_is_left(&place);
}

/// The call had its answer; the second one costs the worker.
#[test]
fn a_second_answer_costs_the_worker_and_no_call() {
    let body = "
note('started', os.getpid())
hello()
while message := hear():
    for _ in range(2 if message['params']['args'] == ['twice'] else 1):
        say(id=message['id'], result={'value': message['params']['attempt']})";
    let place = place("", body);
    enqueue(&place, &["work twice"]);
    place.stdout("asyncq process");
    enqueue(&place, &["work once"]);
    place.session("$ asyncq process");
    assert_eq!(states(&place), "completed 1, completed 1");
    nothing_is_left(&place);
}

#[test]
fn a_time_limit_ends_the_worker_and_the_next_call_gets_another() {
    let body = "
def run(call):
    if call['args'] == ['hang']:
        subprocess.run(['sh', '-c', 'echo $$ >> started; exec sleep 1000'])
    return os.getpid()
serve(run)";
    let place = place("--timeout 500ms", body);
    enqueue(&place, &["work hang", "work"]);
    place.session(
        r#"
        $ asyncq process
        ! asyncq: job 1 (`events` `work`): took longer than its time limit
        ? 1
        $ asyncq job show 1 --json
        {[..]"error":{"kind":"timeout",[..]
        "#,
    );
    assert_eq!((states(&place).starts_with("error, completed"), started(&place).len()), (true, 3));
    nothing_is_left(&place);
}

/// A worker that does not listen ends with the call that took too long; the others that it ran are run once more.
#[test]
fn a_time_limit_of_one_of_several_calls_at_once_puts_the_others_back() {
    let body = "
note('started', os.getpid())
hello(calls=3)
if len(lines('started')) == 1:
    for _ in range(3): note('begun', hear()['params']['job'])
    time.sleep(1000)
while message := hear():
    say(id=message['id'], result={'value': message['params']['attempt']})";
    let place = place("", body);
    place.stdout(
        "asyncq function add events late --worker --timeout 2s -- ./work.py; asyncq service set events --concurrency 3",
    );
    enqueue(&place, &["work", "late", "work"]);
    place
        .session("$ asyncq process\n...\n! asyncq: job 2 (`events` `late`): took longer than its time limit\n...\n? 1");
    assert_eq!(words(&place, "begun").len(), 3);
    assert_eq!(states(&place), "completed 2, error, completed 2");
    assert_eq!(place.jobs("failures conflicts crashes"), "0 0 0, 1 0 0, 0 0 0");
    let endings = [1, 2, 3].map(|job| place.attempts(job, "ending"));
    assert_eq!(endings, ["interrupted, completed", "error", "interrupted, completed"]);
    assert_eq!(started(&place).len(), 2);
    nothing_is_left(&place);
}

/// One that listens ends only that call, and goes on with the others.
#[test]
fn a_worker_with_several_calls_is_notified_of_a_time_limit_of_one() {
    let body = "
note('started', os.getpid())
hello(calls=3, cancel=True)
open_calls, told = {}, len(lines('started')) > 1
while message := hear():
    if message['method'] == 'call':
        open_calls[message['params']['job']] = message['id']
    else:
        told = True
        note('wishes', json.dumps(message['params'], separators=(',', ':')))
        say(id=open_calls.pop(message['params']['job']), error={'code': 1, 'message': 'as you wish'})
    if told:
        for id in open_calls.values(): say(id=id, result={'value': len(lines('started'))})
        open_calls = {}";
    let place = place("", body);
    place.stdout(
        "asyncq function add events late --worker --timeout 1s -- ./work.py; asyncq service set events --concurrency 3",
    );
    enqueue(&place, &["work", "late", "work"]);
    place.session("$ asyncq process\n! asyncq: job 2 (`events` `late`): took longer than its time limit\n? 1");
    assert_eq!(states(&place), "completed 1, error, completed 1");
    assert_eq!(words(&place, "wishes"), [r#"{"job":2,"why":"timeout"}"#]);
    assert_eq!([1, 2, 3].map(|job| place.attempts(job, "ending")), ["completed", "error", "completed"]);
    assert_eq!(started(&place).len(), 1);
    nothing_is_left(&place);
}

/// It was asked to end, and may do so at any moment, even if it has answered.
#[test]
fn a_worker_that_was_asked_to_end_gets_no_more_calls() {
    let body = "
def asked(*_): raise ValueError('asked to end')
signal.signal(signal.SIGTERM, asked)
def run(call):
    if call['args'] == ['long']:
        note('begun', call['job'])
        time.sleep(1000)
    return len(lines('started'))
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work long", "work"]);
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    place.session("$ asyncq job cancel 1");
    assert!(process.wait().status.success());
    assert_eq!(states(&place), "cancelled, completed 2");
    nothing_is_left(&place);
}

/// Calls that a worker has read ahead cannot be taken back, and looking again and again does not help.
#[test]
fn a_slow_call_with_others_behind_it_keeps_no_processor_busy() {
    let body = "
note('started', os.getpid())
hello(output='counted')
messages = [hear()]
say(id=messages.pop()['id'], result={})
# All that is there, as with a buffer of its own.
while len(messages) < 3: messages.append(hear())
note('begun', 1)
until(lambda: os.path.exists('go'))
for message in messages: say(id=message['id'], result={})
while message := hear(): say(id=message['id'], result={})";
    let place = place("", body);
    enqueue(&place, &["work"; 5]);
    let process = place.start("asyncq process");
    wait_until("the slow call begins", || place.at("begun").exists());
    let (engine, moment) = (process.engine(), std::time::Duration::from_millis(100));
    // Once it has looked what can be taken back, and taken note.
    wait_until("it rests", || {
        let before = sleeps(&engine);
        std::thread::sleep(moment);
        sleeps(&engine) - before < 20
    });
    place.write("go", "");
    assert!(process.wait().status.success());
    assert_eq!(states(&place), "completed, completed, completed, completed, completed");
}

#[test]
fn a_job_is_cancelled_while_its_worker_runs_it() {
    let listens = "
hello(cancel=True)
note('started', os.getpid())
while message := hear():
    if message['params'].get('args') == ['long']:
        note('begun', message['params']['job'])
        wish = hear()
        note('wishes', json.dumps(wish, separators=(',', ':')))
        say(id=message['id'], error={'code': 1, 'message': 'as you wish'})
    else:
        say(id=message['id'], result={'value': len(lines('started'))})";
    let deaf = "
def run(call):
    if call['args'] == ['long']:
        note('begun', call['job'])
        time.sleep(1000)
    return len(lines('started'))
serve(run)";
    for (body, workers) in [(listens, 1), (deaf, 2)] {
        let place = place("", body);
        enqueue(&place, &["work long", "work"]);
        let process = place.start("asyncq process");
        wait_until("the call begins", || place.at("begun").exists());
        place.session("$ asyncq job cancel 1");
        let output = process.wait();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(states(&place), format!("cancelled, completed {workers}"));
        if workers == 1 {
            let wish = r#"{"jsonrpc":"2.0","method":"cancel","params":{"job":1,"why":"cancelled"}}"#;
            assert_eq!(place.read("wishes").trim(), wish);
        }
        nothing_is_left(&place);
    }
}

#[test]
fn how_far_a_call_is_is_shown_while_it_runs() {
    let body = "
def run(call):
    for done in range(4):
        say(method='progress', params={'job': call['job'], 'done': done, 'of': 10, 'note': 'thumb\\x1bnails'})
    note('begun', 1)
    until(lambda: os.path.exists('go'))
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work"]);
    let process = place.start("asyncq process");
    let shown = || place.stdout("asyncq job show 1 --json");
    wait_until("it is shown", || shown().contains(r#""progress":"3 of 10: thumb\u001bnails""#));
    place.session("$ asyncq job show 1\n...\nprogress   3 of 10: thumb[..]nails\n...");
    place.write("go", "");
    assert!(process.wait().status.success());
    assert!(!shown().contains("progress"), "{}", shown());
}

#[test]
fn a_worker_that_sends_too_much_delays_no_other() {
    let body = "
def run(call):
    for done in range(100000):
        line.sendall(b'{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"job\":%d,\"done\":%d}}\\n' % (call['job'], done))
    return done
serve(run)";
    let place = place("", body);
    enqueue(&place, &["work"]);
    place.session("$ asyncq process");
    assert_eq!(states(&place), "completed 99999");
}

#[test]
fn calls_inside_a_call_of_a_worker() {
    let body = "
def run(call):
    at_once = [['asyncq', 'is-async'], ['asyncq', 'whoami'], ['asyncq', 'enqueue', 'events', 'inner', '5'], ['asyncq', 'enqueue', 'events', 'nested', '6']]
    for command in at_once:
        code = subprocess.run(command, env=inside(call)).returncode
        print('exit code', code, flush=True)
serve(run)";
    let place = place("", body);
    place.function("inner", "", "echo inner $1 for $(asyncq whoami)");
    worker(
        &place,
        "nested",
        "",
        "
def run(call):
    print('nested', call['args'][0], 'for', call['principal'], flush=True)
    subprocess.run(['asyncq', 'enqueue', 'events', 'inner', '7'], env=inside(call))
    return call['args'][0]
serve(run)",
    );
    place.session(
        r"
        $ asyncq enqueue --principal zope.user events work
        1
        $ asyncq process
        true
        exit code 0
        zope.user
        exit code 0
        inner 5 for zope.user
        exit code 0
        nested 6 for zope.user
        inner 7 for zope.user
        exit code 0
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE      WHEN
        4   events   inner     [7]        zope.user  completed  [..]
        3   events   nested    [6]        zope.user  completed  [..]
        2   events   inner     [5]        zope.user  completed  [..]
        1   events   work      []         zope.user  completed  [..]
        $ asyncq job result 3
        6
        ",
    );
    assert_eq!(place.jobs("id parent"), "1, 2 1, 3 1, 4 3");
    nothing_is_left(&place);
}

/// The rerun of a call makes its nested calls anew, so none of the first run may go on.
#[test]
fn a_worker_that_dies_takes_its_nested_calls_with_it() {
    let body = "
def run(call):
    if call['attempt'] == 1:
        subprocess.Popen(['asyncq', 'enqueue', 'events', 'inner'], env=inside(call))
        until(lambda: lines('pids'))
        os.kill(os.getpid(), signal.SIGKILL)
    return [pid for pid in lines('pids') if os.path.exists(f'/proc/{pid}')]
serve(run)";
    let place = place("", body);
    place.function("inner", "", "echo $$ >> pids; exec sleep 1000");
    enqueue(&place, &["work"]);
    place.stdout("asyncq process --wait-retries");
    assert!(place.jobs("state result error.kind").starts_with("completed [], error parent"), "{}", states(&place));
}

/// One that cannot be started is started now and then, not for each of its calls. Each of these is tried three times, and
/// told once.
#[test]
fn a_worker_that_cannot_start_is_not_started_for_each_call() {
    let bodies = [
        (
            "raise SystemExit('no module `shop`')",
            "its worker ended with exit code 1 before it said hello: no module `shop`",
            1,
        ),
        (
            "sys.stdout.write('x\\n' * 1000000); sys.stdout.flush(); print('the last', file=sys.stderr); os._exit(3)",
            "its worker ended with exit code 3 before it said hello: the last",
            1,
        ),
        // One that says hello is taken for one that runs: the other slot starts its own.
        (
            "say(id=0, method='hello', params={'protocol': 1}); os._exit(4)",
            "its worker ended with exit code 4 before it read a call",
            2,
        ),
        (
            "say(id=0, method='hello', params={'protocol': 2}); hear(); time.sleep(1000)",
            "its worker was refused: this asyncq speaks protocol 1",
            1,
        ),
        ("write('hello')", "its worker sent an invalid message: [..]", 1),
        ("say(id=0, result={})", "its worker did not begin with hello", 1),
        ("hello(functions=['other', 'more'])\nhear()", "its worker has no function `work`; it has other, more", 2),
    ];
    // Most of the time they wait to be tried again.
    std::thread::scope(|scope| {
        for (body, why, starts) in bodies {
            scope.spawn(move || {
                let place = place("", &format!("note('started', os.getpid())\n{body}"));
                let calls = [r#"{"service":"events","function":"work"}"#; 500];
                place.write("calls", &calls.join("\n"));
                place.stdout("asyncq enqueue --batch calls; asyncq service set events --concurrency 2");
                let began = Instant::now();
                let output = place.run("asyncq process --wait-retries >/dev/null");
                assert_eq!(output.status.code(), Some(1), "{body}");
                let most = starts * (1 + usize::try_from(began.elapsed().as_millis()).unwrap() / 500);
                let told = String::from_utf8(output.stderr).unwrap();
                place.session(&format!("$ asyncq job result 1\n! asyncq: job 1 ended in an error: {why}\n? 1"));
                assert_eq!(told.matches("`events` `work`): its worker").count(), 500, "{told}");
                assert_eq!(place.jobs("state attempt crashes"), vec!["error 3 0"; 500].join(", "));
                assert!(started(&place).len() <= most, "{body}: {} were started", started(&place).len());
                nothing_is_left(&place);
            });
        }
    });
}

/// As in a deploy.
#[test]
fn a_worker_that_is_gone_for_a_moment_costs_no_call() {
    let place = place("", "serve(lambda call: 1)");
    place.program("broken.py", "#!/usr/bin/env python3\nraise SystemExit('half of it is there')\n");
    enqueue(&place, &["work"; 4]);
    place.session(
        r"
        $ mv work.py good; mv broken.py work.py; asyncq process
        ! half of it is there
        $ asyncq job list --state delayed | wc -l
        5
        $ mv good work.py; asyncq process --wait-retries
        ",
    );
    assert_eq!(states(&place), "completed 1, completed 1, completed 1, completed 1");
    for job in 1..=4 {
        let attempts = place.attempts(job, "ending error.kind");
        let (tries, last) = attempts.rsplit_once(", ").unwrap();
        assert!(last == "completed" && tries.split(", ").all(|it| it == "conflict cannot-run"), "{attempts}");
    }
}

#[test]
fn a_worker_that_cannot_start_keeps_no_other_function_from_running() {
    let place = place("", "sys.exit(1)");
    worker(&place, "good", "", "serve(lambda call: 1)");
    enqueue(&place, &["work", "good", "work", "good"]);
    assert_eq!(place.run("asyncq process").status.code(), Some(0));
    assert_eq!(states(&place), "delayed, completed 1, delayed, completed 1");
}

#[test]
fn a_first_signal_lets_workers_end_their_calls() {
    let body = "
def run(call):
    note('begun', call['job'])
    until(lambda: os.path.exists('go'))
serve(run)";
    let place = place("", body);
    worker(&place, "idle", "", "serve(lambda call: 1)");
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["idle", "work", "work", "work"]);
    let process = place.start("asyncq process");
    wait_until("two calls run", || words(&place, "begun").len() == 2);
    process.signal("TERM");
    let pid = process.0.id().to_string();
    wait_until("it has heard", || place.count("--state queued") == 1);
    place.write("go", "");
    wait_until("it ends", || !runs(&pid));
    assert!(process.wait().status.success());
    assert_eq!(states(&place), "completed 1, completed, completed, queued");
    nothing_is_left(&place);
}

#[test]
fn a_second_signal_puts_back_the_calls_of_workers() {
    for hello in ["", ", cancel=True", ", calls=2"] {
        let body = format!(
            "
def run(call):
    note('begun', call['job'])
    time.sleep(1000)
serve(run{hello})"
        );
        // Who listens is not asked by a signal, and would have ten seconds.
        let body = body.replace(
            "time.sleep(1000)",
            if hello.contains("cancel") { "hear()\n    raise ValueError('ended')" } else { "time.sleep(1000)" },
        );
        let place = place("", &body);
        enqueue(&place, &["work", "work"]);
        let process = place.start("asyncq process");
        wait_until("a call runs", || place.at("begun").exists());
        let pid = process.0.id().to_string();
        wait_until("it ends", || {
            process.signal("TERM");
            !runs(&pid)
        });
        assert_eq!(states(&place), "queued, queued");
        assert_eq!(bad_ends(&place), 0);
        nothing_is_left(&place);
    }
}

/// A worker that is only starting is no call that failed: neither the one for which it starts, nor those that wait for it.
#[test]
fn a_signal_while_a_worker_starts_puts_its_calls_back() {
    let place = place("", "note('started', os.getpid())\ntime.sleep(1000)");
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work"; 3]);
    let process = place.start("asyncq process");
    wait_until("it starts", || !started(&place).is_empty());
    process.signal("TERM");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(states(&place), "queued, queued, queued");
    assert_eq!(bad_ends(&place), 0);
    assert_eq!([1, 2, 3].map(|job| place.attempts(job, "ending")), [""; 3]);
    assert_eq!(started(&place).len(), 1);
    nothing_is_left(&place);
}

/// The calls that were cancelled end at once and never begin, and the worker is there for the others.
#[test]
fn jobs_are_cancelled_while_their_worker_starts() {
    let body = "
note('started', os.getpid())
until(lambda: os.path.exists('go'))
hello()
while message := hear():
    note('ran', message['params']['job'])
    say(id=message['id'], result={'value': message['params']['attempt']})";
    let place = place("", body);
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work"; 4]);
    let process = place.start("asyncq process");
    wait_until("it starts", || !started(&place).is_empty());
    // The one for which it starts, and one that waits for it.
    place.session("$ asyncq job cancel 1\n$ asyncq job cancel 3");
    assert_eq!([1, 3].map(|job| place.job(job)["state"] == "cancelled"), [true; 2]);
    place.write("go", "");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(states(&place), "cancelled, completed 1, cancelled, completed 1");
    assert_eq!(words(&place, "ran").into_iter().collect::<BTreeSet<_>>().len(), 2);
    nothing_is_left(&place);
}

/// A worker that has nobody to start for any more is not waited for, whenever its processor finds that it can end.
#[test]
fn a_worker_that_just_starts_ends_with_its_processor_when_its_only_call_is_cancelled() {
    for _ in 0..10 {
        let place = place("", "note('started', os.getpid())\ntime.sleep(1000)");
        enqueue(&place, &["work"]);
        let process = place.start("asyncq process");
        wait_until("it starts", || !started(&place).is_empty());
        let cancelled = std::time::Instant::now();
        place.session("$ asyncq job cancel 1");
        assert!(process.wait().status.success());
        // It would have 30 seconds to say hello.
        assert!(cancelled.elapsed().as_secs() < 20, "{:?}", cancelled.elapsed());
        assert_eq!(states(&place), "cancelled");
        nothing_is_left(&place);
    }
}

#[test]
fn a_worker_with_unread_output_is_ended_at_the_second_signal() {
    let said = "
hello(calls=2)
note('started', os.getpid())
message = hear()
note('begun', 1)
while True:
    say(method='output', params={'job': message['params']['job'], 'stream': 'out', 'text': 'x' * 100000})";
    let printed = "
def run(call):
    note('begun', 1)
    while True:
        print('x' * 100000)
serve(run)";
    for body in [said, printed] {
        let place = place("", body);
        enqueue(&place, &["work"]);
        let process = place.start("asyncq process");
        wait_until("the call begins", || place.at("begun").exists());
        // A processor without bounds would take all that it says, and more and more memory.
        let (worker, engine) = (started(&place).pop().unwrap(), process.engine());
        wait_until("the worker is kept from writing", || {
            let status = std::fs::read_to_string(format!("/proc/{engine}/status")).unwrap();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            let peak: u32 = peak.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(peak < 60_000, "{peak} kB");
            let before = sleeps(&worker);
            std::thread::sleep(std::time::Duration::from_millis(100));
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
            stat.contains(") S ") && sleeps(&worker) == before
        });
        let pid = process.0.id().to_string();
        wait_until("it ends", || {
            process.signal("TERM");
            !runs(&pid)
        });
        assert_eq!(states(&place), "queued");
        nothing_is_left(&place);
    }
}

#[test]
fn a_worker_may_print_much_while_it_ends() {
    let body = "
serve(lambda call: print('in the call'))
say(method='later', params={})
print('x' * 1000000)
note('ended', 1)";
    let place = place("", body);
    enqueue(&place, &["work"]);
    assert_eq!(place.stdout("asyncq process").len(), "in the call\n".len() + 1_000_001);
    assert_eq!(place.read("ended"), "1\n");
    assert_eq!(place.stdout("asyncq job log 1"), "in the call\n");
}

#[test]
fn a_worker_may_leave_when_it_has_answered_all_that_it_has_read() {
    for leave in ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGTERM)"] {
        let body = format!(
            "
read = line.makefile('rb', buffering=0)
note('started', os.getpid())
hello(output='counted')
for _ in range(2):
    say(id=hear()['id'], result={{'output': [0, 0]}})
{leave}"
        );
        let place = place("", &body);
        place.write("calls", &[r#"{"service":"events","function":"work"}"#; 10].join("\n"));
        place.stdout("asyncq enqueue --batch calls");
        place.session("$ asyncq process");
        assert_eq!((place.count("--state completed"), bad_ends(&place)), (10, 0), "{leave}");
        assert_eq!(started(&place).len(), 5, "{leave}");
        nothing_is_left(&place);
    }
}

/// Arguments go through at their full length, and so do results.
#[test]
fn a_worker_gets_and_gives_a_mebibyte() {
    let place = place("", "serve(lambda call: call['args'][0], output='counted')");
    place.write(
        "calls",
        &format!("{{\"service\":\"events\",\"function\":\"work\",\"args\":[\"{}\"]}}\n", "u".repeat(1_000_000))
            .repeat(4),
    );
    place.stdout("asyncq enqueue --batch calls");
    place.session("$ asyncq process");
    assert_eq!(place.jobs("state result"), [&*format!("completed \"{}\"", "u".repeat(1_000_000)); 4].join(", "));
}
