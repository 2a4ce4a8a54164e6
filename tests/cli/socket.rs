//! Programs that drain into themselves: calls run in the program which has started the processor.

use crate::place::{HOST, Place, Running, WORKER, runs, wait_until};

/// A place with a worker as the function `work` of the service `events`, and with a program `host.py` that can run it, too.
fn place(options: &str, host: &str) -> Place {
    let place = Place::with_functions(&[]);
    let worker = "serve(lambda call: 'elsewhere')";
    place.program("work.py", &format!("{WORKER}{worker}"));
    place.stdout(&format!("asyncq function add events work --worker {options} -- ./work.py"));
    place.program("host.py", &format!("{HOST}{host}"));
    place
}

fn enqueue(place: &Place, calls: &[&str]) {
    let all: Vec<String> = calls.iter().map(|call| format!("asyncq enqueue events {call}")).collect();
    place.stdout(&all.join(" && "));
}

fn states(place: &Place) -> String {
    place.jobs("state result")
}

/// Attempts, crashes and failures of all jobs.
fn counts(place: &Place) -> String {
    place.jobs("attempt crashes failures")
}

fn nothing_is_left(place: &Place) {
    assert_eq!(place.processors(), 0);
    assert_eq!(place.stdout("ls .local/share/asyncq/queue.db-asyncq"), "");
}

/// Kills the latest processor that a host has started, both its processes at once.
fn kill_processor(place: &Place) {
    let supervisor = place.read("processor").lines().last().unwrap().to_owned();
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    let both = format!("{children} {supervisor}");
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    wait_until("both are gone", || both.split_whitespace().all(|pid| !runs(pid)));
}

fn begins(place: &Place, count: usize) {
    wait_until("calls begin", || place.read("begun").lines().count() >= count);
}

/// A host that has begun job 1, and goes on with it although its processor was killed.
fn orphaned(place: &Place) -> Running {
    let host = place.start("./host.py");
    begins(place, 1);
    kill_processor(place);
    host
}

/// What an earlier attempt has noted, in the place that the next one takes, tells nothing of the call that runs.
#[test]
fn the_outcome_of_an_earlier_attempt_does_not_let_a_call_run_twice() {
    let host = "
start('events', '--wait-retries', functions=['work'])
say(id=hear()['id'], error={'code': 75, 'message': 'not yet', 'data': {'kind': 'conflict', 'pause': 0}})
hear(), note('begun', 1)
until(exists('go'))";
    let place = place("", host);
    enqueue(&place, &["work"]);
    let host = orphaned(&place);
    place.run("asyncq process");
    assert_eq!((states(&place).as_str(), counts(&place).as_str()), ("processing", "2 0 0"));
    place.write("go", "");
    host.wait();
    place.run("asyncq process");
    assert_eq!(states(&place), "completed \"elsewhere\"");
    nothing_is_left(&place);
}

#[test]
fn calls_run_in_the_program_itself() {
    let host = "
def run(call):
    say(method='output', params={'job': call['job'], 'stream': 'out', 'text': f'in job {call[\"job\"]}\\n'})
    say(method='output', params={'job': call['job'], 'stream': 'err', 'text': 'oh\\n'})
    return [os.getpid(), call['function'], call['args'], call['kwargs'], call['principal']]
print(start('events', functions=['work', 'other'])['result']['protocol'], flush=True)
print('ended with', serve(run))";
    let place = place("", host);
    place.function("command", "", "echo a command");
    place.stdout(
        "asyncq function add events other --worker -- /bin/false; asyncq function add events third --worker -- ./work.py",
    );
    enqueue(&place, &["--principal bob -k a=1 work 1.10", "command", "third", "other"]);
    let host = place.start("./host.py");
    let pid = host.0.id();
    let output = host.wait();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "1\nin job 1\na command\nin job 4\nended with 0\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "oh\noh\n");
    assert_eq!(
        states(&place),
        format!(
            "completed [{pid}, \"work\", [1.1], {{\"a\": 1}}, \"bob\"], completed, completed \"elsewhere\", completed [{pid}, \"other\", [], {{}}, null]"
        )
    );
    assert_eq!(place.stdout("asyncq job log 1 2>&1"), "in job 1\noh\n");
    nothing_is_left(&place);
}

/// The drain goes on with the calls after it.
#[test]
fn texts_that_are_no_unicode_or_too_long_do_not_end_a_drain() {
    let host = r"
texts = ['caf\ud83d', 'x' * (5 << 20)]
def run(call):
    note('runs', call['job'])
    how, text = call['args'][0], texts[call['args'][1]]
    if how == 'output': say(method='output', params={'job': call['job'], 'stream': 'out', 'text': text})
    if how == 'progress': say(method='progress', params={'job': call['job'], 'note': text})
    if how == 'error': raise ValueError(text)
    return text if how == 'value' else 1
start('events', functions=['work'])
sys.exit(serve(run))";
    let place = place("", host);
    let calls: Vec<String> = ["output", "progress", "error", "value"]
        .iter()
        .flat_map(|how| [0, 1].map(|text| format!("work {how} {text}")))
        .collect();
    enqueue(&place, &calls.iter().map(String::as_str).collect::<Vec<_>>());
    let output = place.run("./host.py");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let ends =
        "completed, completed, completed, completed, error error, error error, error bad-result, error bad-result";
    assert_eq!(place.jobs("state error.kind"), ends);
    assert_eq!(place.read("runs").lines().count(), 8);
    nothing_is_left(&place);
}

#[test]
fn a_program_runs_several_at_once_beside_commands() {
    let host = "
def run(call):
    note('begun', call['job'])
    until(lambda: len(lines('begun')) >= 3)
start('events', functions=['work'], calls=2)
sys.exit(serve(run, at_once=True))";
    let place = place("", host);
    place.function("command", "", "echo $ASYNCQ_JOB >> begun; until [ $(wc -l < begun) -ge 3 ]; do sleep 0.01; done");
    place.stdout("asyncq service set events --concurrency 3");
    enqueue(&place, &["work", "work", "command", "work"]);
    place.session("$ ./host.py");
    assert_eq!(counts(&place), "1 0 0, 1 0 0, 1 0 0, 1 0 0");
    assert_eq!(states(&place), "completed, completed, completed, completed");
    nothing_is_left(&place);
}

/// What is first in line waits for the host; a slot that has nothing else to do neither takes it nor keeps it from others.
#[test]
fn calls_that_wait_for_the_host_are_left_to_others() {
    let host = "
def run(call):
    note('begun', call['job'])
    until(exists('go'))
    return 'here'
start('events', functions=['work'])
sys.exit(serve(run))";
    let place = place("", host);
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work", "work"]);
    let host = place.start("./host.py");
    begins(&place, 1);
    wait_until("the other call goes back", || {
        place.run("asyncq process");
        states(&place).ends_with("completed \"elsewhere\"")
    });
    place.write("go", "");
    assert!(host.wait().status.success());
    assert_eq!(states(&place), "completed \"here\", completed \"elsewhere\"");
}

#[test]
fn a_program_that_follows_serves_all_services() {
    let host = "
start('--follow', functions=['work'])
sys.exit(serve(lambda call: call['service']))";
    let place = place("", host);
    place.stdout("asyncq service add others; asyncq function add others work --worker -- /bin/false");
    let host = place.start("./host.py");
    for (service, id) in [("events", 1), ("others", 2), ("events", 3)] {
        place.stdout(&format!("asyncq enqueue {service} work"));
        wait_until("the call is run", || place.job(id)["result"] == service);
    }
    place.stdout(&format!("kill -TERM {}", place.read("processor").trim()));
    assert!(host.wait().status.success());
    nothing_is_left(&place);
}

#[test]
fn calls_inside_calls_work_as_from_any_worker() {
    let host = "
def run(call):
    run = lambda *words: subprocess.run(['asyncq', *words], env=inside(call), stdout=subprocess.PIPE, text=True).stdout
    return [run('is-async'), run('whoami'), run('enqueue', 'events', 'nested')]
start('events', functions=['work'])
sys.exit(serve(run))";
    let place = place("", host);
    place.function("nested", "", "echo nested for $ASYNCQ_PRINCIPAL");
    enqueue(&place, &["--principal bob work"]);
    place.session("$ ./host.py");
    assert_eq!(states(&place), r#"completed ["true\n", "bob\n", "nested for bob\n"], completed"#);
    assert_eq!(place.jobs("parent principal"), "bob, 1 bob");
}

#[test]
fn a_call_that_is_cancelled_or_too_late_may_end_itself() {
    let host = "
start('events', functions=['work'])
for why, end in [('cancelled', {'result': {}}), ('cancelled', {'error': {'code': 1, 'message': 'no'}}), ('timeout', {'error': {'code': 1, 'message': 'no'}})]:
    call = hear()
    note('begun', call['params']['job'])
    told = hear()
    assert told['method'] == 'cancel' and told['params'] == {'job': call['params']['job'], 'why': why}, told
    say(id=call['id'], **end)
assert hear() is None
sys.exit(processor.wait())";
    let place = place("--timeout 1500ms", host);
    enqueue(&place, &["work", "work", "work"]);
    let host = place.start("./host.py");
    for job in 1..=2 {
        begins(&place, job);
        place.run(&format!("asyncq job cancel {job}"));
    }
    let output = host.wait();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(states(&place), "completed, cancelled, error");
    nothing_is_left(&place);
}

/// The call that does not end keeps its job; what else was claimed is settled.
#[test]
fn a_call_that_does_not_end_in_time_is_left_to_the_program() {
    let host = "
start('events', functions=['work'], calls=2)
call, other = hear(), hear()
say(id=other['id'], result={'value': 'here'})
assert hear()['params'] == {'job': 1, 'why': 'timeout'}
assert hear() is None
note('closed', 1)
note('code', processor.wait())
until(exists('go'))";
    let place = place("--timeout 1s", host);
    place.function("command", "", "[ -e code ] || until [ -e closed ]; do sleep 0.01; done");
    place.stdout("asyncq service set events --concurrency 3");
    enqueue(&place, &["work", "work", "command", "command", "command"]);
    let host = place.start("./host.py");
    wait_until("the processor gives up", || place.read("code").ends_with('\n'));
    assert_eq!(place.read("code"), "74\n");
    assert_eq!(states(&place), "processing, completed \"here\", completed, completed, queued");
    assert!(counts(&place).starts_with("1 0 0, 1 0 0, 1 0 0, 1 0 0, "));
    let pid = host.0.id();
    place.session(&format!(
        "
        $ asyncq process
        ! asyncq: processor 1 (process [..] on [..]) died, and its host, process {pid}, may still run job 1
        ! hint: it waits until that process ends, or starts `asyncq process` again and says `\"idle\":true`
        "
    ));
    assert_eq!(states(&place), "processing, completed \"here\", completed, completed, completed");
    place.write("go", "");
    let told = String::from_utf8(host.wait().stderr).unwrap();
    assert!(
        told.contains(&format!("error: the host (process {pid}) did not end job 1 within 10 seconds\nhint: job 1 may")),
        "{told}"
    );
    place.session("$ asyncq process\n! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs");
    assert_eq!(states(&place), "completed \"elsewhere\", completed \"here\", completed, completed, completed");
    assert!(counts(&place).starts_with("2 1 0, 1 0 0, 1 0 0, 1 0 0, "));
    nothing_is_left(&place);
}

#[test]
fn no_call_runs_twice_at_once_when_its_processor_is_killed() {
    let host = "
start('events', functions=['work'])
call = hear()
note('begun', call['params']['job'])
assert hear() is None
until(exists('go'))";
    let place = place("", host);
    place.function("command", "", "[ $ASYNCQ_ATTEMPT = 2 ] || { echo c >> begun; sleep 1000; }");
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work", "command", "work"]);
    let host = place.start("./host.py");
    begins(&place, 2);
    kill_processor(&place);
    // Somebody else's processor puts back and runs the rest at once.
    place.session(
        "
        $ asyncq process
        ! asyncq: processor 1 (process [..] on [..]) died; put back [..] of its jobs
        ! asyncq: processor 1 (process [..] on [..]) died, and its host, process [..], may still run job 1
        ! hint: [..]
        ",
    );
    assert_eq!(states(&place), "processing, completed, completed \"elsewhere\"");
    let follows = place.start("asyncq process --follow");
    enqueue(&place, &["work"]);
    wait_until("the new call is run", || states(&place).ends_with(", completed \"elsewhere\""));
    assert!(states(&place).starts_with("processing"));
    wait_until("only the call that may still run has a slot", || place.slots() == "events 1");
    place.write("go", "");
    host.wait();
    wait_until("the call is run again", || states(&place).starts_with("completed \"elsewhere\""));
    follows.signal("TERM");
    assert!(follows.wait().status.success());
    assert!(counts(&place).starts_with("2 1 0, "), "{}", counts(&place));
    nothing_is_left(&place);
}

#[test]
fn a_program_that_is_idle_gets_back_the_calls_of_an_earlier_processor() {
    let host = "
start('events', functions=['work'])
hear(), note('begun', 1)
until(exists('again'))
start('events', functions=['work'])
assert hear() is None
note('ended', processor.wait())
until(exists('idle'))
start('events', functions=['work'], idle=True)
sys.exit(serve(lambda call: call['attempt']))";
    let place = place("", host);
    enqueue(&place, &["work"]);
    let host = orphaned(&place);
    place.write("again", "");
    wait_until("the second one ends", || place.read("ended") == "0\n");
    assert_eq!(states(&place), "processing");
    place.write("idle", "");
    assert!(host.wait().status.success());
    assert_eq!((states(&place).as_str(), counts(&place).as_str()), ("completed 2", "2 1 0"));
    nothing_is_left(&place);
}

#[test]
fn an_answer_that_was_not_recorded_holds_nothing() {
    let host = "
start('events', functions=['work'])
for number in range(2):
    call = hear()
    time.sleep(0.002)
    say(id=call['id'], result={'value': 'here'})
    assert hear() is None
    processor.wait()
    if not number:
        start('events', functions=['work'])
until(exists('go'))";
    let mut place = place("", host);
    place.set("ASYNCQ_FAILPOINT", "outcome noted=kill");
    enqueue(&place, &["work", "work"]);
    let _host = place.start("./host.py");
    wait_until("the host has run both", || place.read("processor").lines().count() == 2);
    let second = place.read("processor").lines().last().unwrap().to_owned();
    wait_until("the second one is killed", || !runs(&second));
    place.set("ASYNCQ_FAILPOINT", "");
    place.session("$ asyncq process");
    assert_eq!(
        (states(&place).as_str(), counts(&place).as_str()),
        ("completed \"here\", completed \"here\"", "1 0 0, 1 0 0")
    );
    nothing_is_left(&place);
}

#[test]
fn the_end_of_the_program_is_a_crash_of_its_calls() {
    let host = "
start('events', functions=['work'])
call = hear()
child = subprocess.Popen(['sleep', '1000'], env=inside(call['params']))
note('child', child.pid), note('begun', 1)
os.kill(os.getpid(), signal.SIGKILL)";
    let place = place("", host);
    enqueue(&place, &["work", "work"]);
    let host = place.start("./host.py");
    let pid = host.0.id();
    let told = String::from_utf8(host.wait().stderr).unwrap();
    assert_eq!(
        told,
        format!(
            "asyncq: job 1 (`events` `work`): the program that it ran in has ended\nerror: the host (process {pid}) has ended\nhint: what it was running was put back, or has failed\n"
        )
    );
    assert!(!runs(&place.read("child")));
    assert_eq!((states(&place).as_str(), counts(&place).as_str()), ("queued, queued", "1 1 0, 0 0 0"));
    nothing_is_left(&place);
    place.session("$ asyncq process");
    assert_eq!(states(&place), "completed \"elsewhere\", completed \"elsewhere\"");
}

/// It gets as many calls as it runs at once. Those that it did not get would be claimed and put back again and again.
#[test]
fn a_host_with_unread_output_is_sent_calls() {
    let host = "
import select
start('events', '--follow', functions=['work'], calls=2)
first = hear()
text = 'x' * 100000
def prints():
    while not os.path.exists('go'):
        say(method='output', params={'job': first['params']['job'], 'stream': 'out', 'text': text})
printing = threading.Thread(target=prints)
printing.start()
until(lambda: not select.select([], [line], [], 0.5)[1])
note('clogged', 1)
second = hear()
note('begun', second['params']['job'])
until(exists('go')), printing.join()
for call in first, second: say(id=call['id'], result={'value': 'here'})
processor.terminate()
while hear(): pass
sys.exit(processor.wait())";
    let place = place("", host);
    place.stdout("asyncq service set events --concurrency 2");
    enqueue(&place, &["work"]);
    let host = place.start("./host.py");
    wait_until("nobody reads what it prints", || place.at("clogged").exists());
    enqueue(&place, &["work"]);
    begins(&place, 1);
    place.write("go", "");
    assert!(host.wait().status.success());
    assert_eq!(
        (states(&place).as_str(), counts(&place).as_str()),
        ("completed \"here\", completed \"here\"", "1 0 0, 1 0 0")
    );
}

#[test]
fn a_program_that_breaks_off_keeps_only_its_running_calls() {
    for (what, told, held) in [
        ("line.shutdown(socket.SHUT_RDWR)", "closed the socket", true),
        ("write('nonsense')", "sent an invalid message: [..]", true),
        ("say(id=77, result={})", "gave an answer with the id 77, which no open call has", true),
        (
            "write(json.dumps({'jsonrpc': '2.0', 'id': call['id'], 'result': {}}) + '\\nnonsense')",
            "sent an invalid message: [..]",
            false,
        ),
    ] {
        let host = format!(
            "
start('events', functions=['work'])
call = hear()
note('begun', 1)
{what}
note('code', processor.wait())
until(exists('go'))"
        );
        let place = place("", &host);
        enqueue(&place, &["work", "work"]);
        let host = place.start("./host.py 2> told");
        wait_until("the processor gives up", || place.read("code").ends_with('\n'));
        assert_eq!(place.read("code"), "74\n");
        let hint = if held { "job 1 may still run there: [..]" } else { "docs/protocol.md [..]" };
        place.session(&format!("$ sed 's/\\[..]//' told >&2\n! error: the host (process [..]) {told}\n! hint: {hint}"));
        let first = if held { "processing" } else { "completed" };
        assert_eq!(states(&place), format!("{first}, queued"), "{what}");
        place.write("go", "");
        host.wait();
        place.run("asyncq process");
        assert_eq!(states(&place).matches("completed").count(), 2, "{what}");
        nothing_is_left(&place);
    }
}

#[test]
fn nothing_is_claimed_before_a_hello_that_names_functions() {
    for (hello, told) in [
        ("write('nonsense')", "sent an invalid message: [..]"),
        ("say(id=1, result={})", "did not begin with hello"),
        ("say(id=0, method='hello', params={'protocol': 9})", "was refused: this asyncq speaks protocol 1"),
        ("say(id=0, method='hello', params={'protocol': 1})", "was refused: `functions` has to name what runs in it"),
        ("line.close(), read.close()", "closed the socket before it said hello"),
    ] {
        let place = place("", &format!("start('events')\n{hello}\nsys.exit(processor.wait())"));
        enqueue(&place, &["work"]);
        place.session(&format!(
            "$ ./host.py\n! error: the host (process [..]) {told}\n! hint: docs/protocol.md [..]\n? 74"
        ));
        assert_eq!((states(&place).as_str(), counts(&place).as_str()), ("queued", "0 0 0"));
        assert_eq!(place.processors(), 0);
    }
    // Nor does it wait when it is told to stop.
    let place = place("", "start('events')\nnote('begun', 1)\nprocessor.terminate()\nsys.exit(processor.wait())");
    enqueue(&place, &["work"]);
    assert!(place.run("./host.py").status.code().is_some());
    assert_eq!(states(&place), "queued");
}

#[test]
fn a_stop_is_passed_on_and_does_not_wait_for_ever() {
    let host = "
start('events', functions=['work'])
hear(), note('begun', 1)
def insist():
    while processor.poll() is None:
        processor.terminate(), time.sleep(0.1)
threading.Thread(target=insist).start()
told = hear()
assert told['params'] == {'job': 1, 'why': 'stop'}, told
assert hear() is None
note('code', processor.wait())
until(exists('go'))";
    let place = place("", host);
    enqueue(&place, &["work"]);
    let host = place.start("./host.py");
    wait_until("the processor gives up", || place.read("code").ends_with('\n'));
    assert_eq!((place.read("code").as_str(), states(&place).as_str()), ("74\n", "processing"));
    place.write("go", "");
    let told = String::from_utf8(host.wait().stderr).unwrap();
    assert!(told.contains(") was not waited for\nhint: job 1 may"), "{told}");
}

#[test]
fn a_descriptor_that_is_no_such_socket_is_refused_before_anything_happens() {
    let place = Place::new();
    place.program("host.py", HOST);
    let with = |descriptor: &str| {
        format!(
            "python3 -c 'import socket, subprocess, sys; from socket import *; s = {descriptor}; sys.exit(subprocess.run([\"asyncq\", \"process\", \"--worker-socket\", str(s.fileno())], pass_fds=[s.fileno()]).returncode)'"
        )
    };
    let itself = "python3 -c 'import os, socket; a, b = socket.socketpair(); os.set_inheritable(a.fileno(), True); os.execvp(\"asyncq\", [\"asyncq\", \"process\", \"--worker-socket\", str(a.fileno())])'";
    let id = place.stdout("id -u");
    let unshare = if id.trim() == "0" { "unshare" } else { "unshare -r" };
    let hidden = format!(
        "python3 -c 'import socket, subprocess, sys; a, b = socket.socketpair(); sys.exit(subprocess.run([*\"{unshare} -pf --mount-proc asyncq process --worker-socket\".split(), str(b.fileno())], pass_fds=[b.fileno()]).returncode)'"
    );
    for (command, told) in [
        ("asyncq process --worker-socket 1", "names a standard stream"),
        ("asyncq process --worker-socket 99", "is not an open descriptor"),
        ("asyncq process --worker-socket 4000000000", "is not an open descriptor"),
        ("asyncq process --worker-socket 5 5<host.py", "is not a socket"),
        (&with("socketpair(AF_UNIX, SOCK_DGRAM)[0]"), "is a socket of another kind"),
        (&with("socket(AF_UNIX)"), "is a socket without another end"),
        (
            &with("(server := create_server((\"127.0.0.1\", 0)), create_connection(server.getsockname()))[1]"),
            "is a socket of another kind",
        ),
        (itself, "was made by this process itself"),
        (&hidden, "was made by a process that cannot be seen from here"),
    ] {
        place.session(&format!(
            "$ {command}\n! error: `--worker-socket [..]` {told}\n! hint: give it one end of a `socketpair(AF_UNIX, SOCK_STREAM)` [..]\n? 2"
        ));
    }
    for number in ["-1", "x"] {
        place.session(&format!(
            "$ asyncq process --worker-socket {number}\n! error: `--worker-socket` cannot be `{number}`: a descriptor is a whole number from 3\n! hint: [..]\n? 2"
        ));
    }
    assert!(!place.at(".local").exists());
}

#[test]
fn neither_functions_nor_the_supervisor_keep_the_socket() {
    let host = "
start('events', functions=['work'])
say(id=hear()['id'], result={})
until(exists('sockets'))
supervisor = sum(os.readlink(f'/proc/{processor.pid}/fd/{fd}').startswith('socket:') for fd in os.listdir(f'/proc/{processor.pid}/fd') if int(fd) > 2)
note('supervisor', supervisor)
open('go', 'w').close()
sys.exit(serve(None))";
    let place = place("", host);
    place.function(
        "command",
        "",
        "ls -l /proc/self/fd | grep -c socket: > sockets; until [ -e go ]; do sleep 0.01; done",
    );
    enqueue(&place, &["work", "command"]);
    place.session("$ ./host.py");
    assert_eq!(place.read("sockets"), "0\n");
    // Its line to the engine, and two for each of its two kinds of signals.
    assert_eq!(place.read("supervisor").trim().parse::<usize>().unwrap() % 2, 1, "{}", place.read("supervisor"));
}

#[test]
fn the_example_drains_into_itself() {
    let place = Place::with_functions(&[("command", "echo from a command")]);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/drain.py");
    place.stdout("asyncq function add events heavy_computing --worker -- /bin/false; asyncq function add events hello --worker -- /bin/false");
    enqueue(&place, &["heavy_computing 2 7", "hello Bob", "command", "hello"]);
    place.session(&format!(
        "
        $ {example} events 2>/dev/null
        Hello Bob
        from a command
        ? 1
        $ asyncq job result 1; asyncq job log 2
        14
        Hello Bob
        "
    ));
    assert!(states(&place).ends_with("completed, completed, error"));
    nothing_is_left(&place);
}
