//! Calling a function and waiting for it: `asyncq call`.

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStderr;

use crate::place::{Place, Running, wait_until};

/// A call, once it is enqueued as the job with this number.
fn calling(place: &Place, job: u32, command: &str) -> (Running, BufReader<ChildStderr>) {
    let mut running = place.start(command);
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, format!("asyncq: enqueued as job {job}\n"));
    (running, stderr)
}

/// How it ends: its exit code, or minus the signal that ended it, and what it printed to both streams.
fn end(mut running: Running, mut stderr: BufReader<ChildStderr>) -> (i32, String, String) {
    use std::os::unix::process::ExitStatusExt;
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut stdout) = running.0.stdout.take() {
        stdout.read_to_string(&mut out).unwrap();
    }
    stderr.read_to_string(&mut err).unwrap();
    let status = running.0.wait().unwrap();
    (status.code().unwrap_or_else(|| -status.signal().unwrap()), out, err)
}

/// A place with a processor that stays.
fn followed(functions: &[(&str, &str)]) -> (Place, Running) {
    let place = Place::with_functions(functions);
    let process = place.start("asyncq -q process --follow > /dev/null 2>&1");
    wait_until("it is there", || place.processors() == 1);
    (place, process)
}

#[test]
fn it_has_the_face_of_the_function() {
    let (place, _process) = followed(&[
        ("hello", "printf 'Hello %s' \"$1\"; echo aside >&2; echo '{\"n\": 1}' > \"$ASYNCQ_RESULT\""),
        ("fail", "echo before; exit 3"),
        ("meets", "echo $ASYNCQ_ATTEMPT; [ -e free ] || exit 75"),
        ("quiet", "true"),
    ]);
    place.stdout("asyncq function set events meets --conflicts 1");
    place.session(
        "
        $ asyncq call events hello there; echo
        Hello there
        ! aside
        $ asyncq call events hello there --result
        {\"n\": 1}
        $ asyncq call events quiet --result
        null
        $ asyncq call events fail
        before
        ! asyncq: job 4 (`events` `fail`): exit code 3
        ? 1
        $ asyncq call events fail --result
        ! asyncq: job 5 (`events` `fail`): exit code 3
        ? 1
        $ asyncq -q call events fail
        before
        ? 1
        $ asyncq call events meets
        1
        ! asyncq: job 7 (`events` `meets`): temporary failure (exit code 75)
        ? 75
        $ asyncq call events quiet --key k; asyncq -v call events quiet --key k
        ! asyncq: already enqueued as job 8 (same key, same call)
        ! asyncq: job 8 is completed
        $ asyncq call events hello -k x=1 --meta a=b --in 1ms --priority 5 --lane l x > /dev/null
        ! aside
        ",
    );
}

#[test]
fn what_a_function_prints_appears_as_it_comes() {
    let (place, _process) =
        followed(&[("says", "printf begin; until [ -e go ]; do sleep 0.02; done; echo aside >&2; echo end")]);
    let (mut call, stderr) = calling(&place, 1, "asyncq -v call events says");
    let mut said = [0; 5];
    call.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"begin");
    place.write("go", "");
    assert_eq!(end(call, stderr), (0, "end\n".to_owned(), "aside\nasyncq: job 1 is completed\n".to_owned()));
}

#[test]
fn attempts_follow_each_other() {
    let (place, _process) = followed(&[("meets", "echo try $ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 2 ] || exit 75")]);
    place.session(
        "
        $ asyncq -v call events meets
        try 1
        try 2
        ! asyncq: enqueued as job 1
        ! asyncq: attempt 1 of job 1 has ended (conflict)[..]
        ! asyncq: job 1 is completed
        ",
    );
}

#[test]
fn what_cannot_be_called_is_refused_at_once() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.session(
        "
        $ asyncq call event mail
        ! error: there is no service `event`
        ! hint: did you mean `events`? `asyncq service list` shows all
        ? 66
        $ asyncq call events mial
        ! error: service `events` has no function `mial`
        ! hint: did you mean `mail`? `asyncq function list events` shows all
        ? 66
        $ asyncq call events
        ! error: `asyncq call` needs `FUNCTION`
        ! hint: [..]
        ? 2
        $ asyncq call events mail --timeout 5
        ! error: `--timeout` cannot be `5`: the unit is missing
        ! hint: a span is a number with its unit, as in `90s`, `10m` or `1h30m`
        ? 2
        $ asyncq call events mail --tz UTC
        ! error: `--tz` needs `--at` or `--expires`
        ! hint: `asyncq call --help` shows how
        ? 2
        $ asyncq --db nothing.db call events mail
        ! error: [..]
        ! hint: [..]
        ? 69
        $ asyncq job list --limit 1
        ",
    );
}

#[test]
fn the_time_may_be_over_first() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.session(
        "
        $ asyncq call events mail --timeout 0
        ! error: job 1 has not ended in time: it is queued
        ! hint: it is not cancelled: `asyncq wait 1` waits on, and `asyncq job cancel 1` cancels it
        ? 75
        $ asyncq call events mail --timeout 20ms --hold
        ! error: job 2 has not ended in time: it is held
        ! hint: it is not cancelled: `asyncq wait 2` waits on, and `asyncq job cancel 2` cancels it
        ? 75
        ",
    );
}

#[test]
fn it_says_why_nothing_runs() {
    let place = Place::with_functions(&[("mail", "true")]);
    let mut call = place.start("asyncq call events mail");
    let mut stderr = BufReader::new(call.0.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "asyncq: no processor is at work on `events`; `--start` starts one\n");
    place.stdout("asyncq service pause events");
    said.clear();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "asyncq: service `events` is paused; `asyncq service resume events` lets its calls run\n");
    place.stdout("asyncq service resume events; asyncq process");
    assert_eq!(end(call, stderr), (0, String::new(), String::new()));
}

#[test]
fn a_job_that_is_cancelled_ends_the_call() {
    let place = Place::with_functions(&[("mail", "true")]);
    let (call, stderr) = calling(&place, 1, "asyncq -v call events mail");
    place.stdout("asyncq job cancel 1");
    let end_of = end(call, stderr);
    let user = place.stdout("id -un");
    let said = format!("asyncq: job 1 (`events` `mail`) was cancelled by {}", user.trim());
    assert_eq!((end_of.0, end_of.2.lines().last().unwrap()), (1, said.as_str()));
}

#[test]
fn a_store_that_is_gone_is_an_error() {
    let place = Place::with_functions(&[("mail", "true")]);
    let (call, stderr) = calling(&place, 1, "asyncq -v call events mail");
    place.stdout("mv .local/share/asyncq elsewhere");
    assert_eq!(end(call, stderr).0, 74);
}

#[test]
fn an_interrupt_ends_the_wait_and_a_second_one_the_call() {
    let (place, _process) =
        followed(&[("waits", "trap 'exit 1' TERM; touch begun.$ASYNCQ_JOB; until [ -e go ]; do sleep 0.02; done")]);
    let named = |job| {
        format!(
            "asyncq: job {job} goes on without this command; interrupt again within 2 seconds to cancel it\n\
             hint: `asyncq wait {job}` waits for it, and `asyncq job log {job}` prints what it has printed\n"
        )
    };
    let (call, mut stderr) = calling(&place, 1, "asyncq -v call events waits");
    wait_until("it runs", || place.at("begun.1").exists());
    call.signal("INT");
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, named(1));
    call.signal("INT");
    assert_eq!(end(call, stderr), (-2, String::new(), "asyncq: job 1 was cancelled\n".to_owned()));
    assert_eq!(place.jobs("state"), "cancelled");

    let (call, stderr) = calling(&place, 2, "asyncq -v call events waits");
    wait_until("it runs", || place.at("begun.2").exists());
    call.signal("INT");
    assert_eq!(end(call, stderr), (-2, String::new(), named(2)));
    place.write("go", "");
    place.stdout("asyncq wait 2");
}

#[test]
fn a_reader_that_is_gone_does_not_end_the_wait() {
    let (place, _process) = followed(&[("says", "seq 100000; echo end >&2; exit 3")]);
    place.session(
        "
        $ { asyncq call events says; echo $? >&2; } | head -1
        1
        ! end
        ! asyncq: job 1 (`events` `says`): exit code 3
        ! 1
        ",
    );
}

/// What asyncq says about the output of job N.
const KEPT: &str = "hint: `asyncq job log N` prints what is kept of it, `asyncq job result N` its result, \
                    and `asyncq wait N` says how it ended";

/// A function that prints more than a pipe and asyncq take, and then lasts until it may end.
const FLOODS: (&str, &str) = ("floods", "yes | head -c 3000000; touch printed; until [ -e go ]; do sleep 0.02; done");

/// How a call ends whose stdout is never read.
fn end_unread(mut call: Running, stderr: BufReader<ChildStderr>) -> (i32, String) {
    let unread = call.0.stdout.take();
    let (code, _, said) = end(call, stderr);
    drop(unread);
    (code, said)
}

#[test]
fn the_time_may_be_over_while_nobody_reads() {
    let (place, _process) = followed(&[FLOODS]);
    let (call, stderr) = calling(&place, 1, "asyncq -v call events floods --timeout 1s");
    let (code, said) = end_unread(call, stderr);
    let error = said.lines().rev().nth(1).unwrap();
    assert!(code == 75 && error.starts_with("error: job 1 has not ended in time: it is "), "{code}: {said}");
    wait_until("the function is not held up", || place.at("printed").exists());
    // A single pipe for both streams: its message cannot be read either.
    let mut call = place.start("asyncq call events floods --timeout 1s 2>&1");
    let unread = call.0.stdout.take();
    assert_eq!(call.0.wait().unwrap().code(), Some(75));
    drop(unread);
    place.write("go", "");
    place.stdout("asyncq wait 1 2");
}

#[test]
fn output_that_nobody_reads_in_time_is_not_lost() {
    let (place, _process) = followed(&[("floods", "yes | head -c 3000000; exit 3")]);
    let (call, stderr) = calling(&place, 1, "asyncq -v call events floods --timeout 1s");
    place.stdout("asyncq -q wait 1 || true");
    let (code, said) = end_unread(call, stderr);
    assert!(said.contains("asyncq: job 1 (`events` `floods`): exit code 3\nerror: job 1 has ended, but"), "{said}");
    assert_eq!((code, said.lines().last().unwrap()), (75, KEPT.replace('N', "1").as_str()));
    // A reader that only begins late gets everything, or learns how much is missing.
    let (mut call, stderr) = calling(&place, 2, "asyncq -v call events floods");
    place.stdout("asyncq -q wait 2 || true");
    let mut out = String::new();
    call.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let (code, _, said) = end(call, stderr);
    let lost = said.lines().filter_map(|line| line.strip_prefix("... ")?.split_once(' '));
    let lost: usize = lost.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
    assert_eq!((code, out.len() + lost), (1, 3_000_000), "{said}");
    assert!(said.ends_with("asyncq: job 2 (`events` `floods`): exit code 3\n"), "{said}");
}

#[test]
fn an_interrupt_is_seen_while_nobody_reads() {
    let (place, _process) = followed(&[FLOODS]);
    let (call, mut stderr) = calling(&place, 1, "asyncq -v call events floods");
    wait_until("it has printed", || place.at("printed").exists());
    call.signal("INT");
    // Before it may stand how much of the output is lost.
    let mut said = stderr.by_ref().lines().map(Result::unwrap).skip_while(|line| line.starts_with("... "));
    let named = "asyncq: job 1 goes on without this command; interrupt again within 2 seconds to cancel it";
    assert_eq!(said.next().unwrap(), named);
    drop(said);
    call.signal("INT");
    let (code, said) = end_unread(call, stderr);
    assert_eq!((code, said.lines().last().unwrap()), (-2, "asyncq: job 1 was cancelled"));
    // The call has ended, and only its output is left.
    let (call, stderr) = calling(&place, 2, "asyncq -v call events floods");
    place.write("go", "");
    place.stdout("asyncq wait 2");
    call.signal("INT");
    let (code, said) = end_unread(call, stderr);
    assert!(said.contains("asyncq: job 2 has ended, but its output was not read in time\n"), "{said}");
    assert_eq!((code, said.lines().last().unwrap()), (-2, KEPT.replace('N', "2").as_str()));
}

#[test]
fn a_long_result_that_nobody_reads_ends_in_time_too() {
    let (place, _process) = followed(&[("long", r#"seq -s , 100000 | sed "s/.*/[&]/" > "$ASYNCQ_RESULT""#)]);
    let (call, stderr) = calling(&place, 1, "asyncq -v call events long --result --timeout 1s");
    let (code, said) = end_unread(call, stderr);
    assert_eq!((code, said.lines().last().unwrap()), (75, KEPT.replace('N', "1").as_str()), "{said}");
    let (call, stderr) = calling(&place, 2, "asyncq -v call events long --result");
    wait_until("it writes", || rustix::io::ioctl_fionread(call.0.stdout.as_ref().unwrap()).unwrap() > 0);
    call.signal("INT");
    assert_eq!(end_unread(call, stderr).0, -2);
}

#[test]
fn inside_a_function_the_call_runs_at_once() {
    let place = Place::with_functions(&[
        ("inner", "echo inner $1; echo 7 > $ASYNCQ_RESULT; exit ${2:-0}"),
        (
            "outer",
            "asyncq call events inner 1; echo $?; asyncq call --start --result events inner 2; echo $?
             asyncq call events inner 3 75 2>&1; echo $?; asyncq call events inner --timeout 1s 2>&1; echo $?
             asyncq call events inner --hold 2>&1; echo $?",
        ),
    ]);
    place.session(
        "
        $ asyncq enqueue events outer; asyncq process
        1
        inner 1
        0
        7
        0
        inner 3
        asyncq: job 4 (`events` `inner`): temporary failure (exit code 75)
        75
        error: a call inside a running function runs at once, so it takes no `--timeout`
        hint: set the time limit of the function instead: `asyncq function set --timeout`
        2
        error: a call inside a running function runs at once, so it cannot be held
        hint: `asyncq enqueue --defer` queues the call instead of running it now
        2
        ",
    );
}

#[test]
fn a_processor_is_started_where_none_is_at_work() {
    let place = Place::with_functions(&[("hello", "echo Hello"), ("fail", "exit 3")]);
    place.session(
        "
        $ asyncq call --start events hello
        Hello
        $ asyncq call --start events fail
        ! asyncq: job 2 (`events` `fail`): exit code 3
        ? 1
        ",
    );
    // The calls that have to end first need one, too.
    place.session(
        "
        $ asyncq enqueue --lane a events hello; asyncq call --start --lane a events hello
        3
        Hello
        $ asyncq enqueue events hello; asyncq call --start --after 5 events hello
        5
        Hello
        ",
    );
    wait_until("none is left behind", || place.processors() == 0);
    // A paused service needs none.
    place.stdout("asyncq service pause events");
    let (call, mut stderr) = calling(&place, 7, "asyncq -v call --start events hello");
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "asyncq: service `events` is paused; `asyncq service resume events` lets its calls run\n");
    assert_eq!(place.processors(), 0);
    place.stdout("asyncq service resume events");
    assert_eq!(end(call, stderr).1, "Hello\n");
}

#[test]
fn another_processor_is_started_for_a_call_that_is_due_or_whose_processor_died() {
    let place = Place::with_functions(&[("dies", "[ $ASYNCQ_ATTEMPT = 2 ] || kill -9 $PPID; echo $ASYNCQ_ATTEMPT")]);
    place.session(
        "
        $ asyncq call --start events dies --in 300ms
        2
        ",
    );
    assert_eq!(place.attempts(1, "ending"), "crash, completed");
    wait_until("none is left behind", || place.processors() == 0);
}

#[test]
fn a_processor_that_cannot_work_is_an_error() {
    let place = Place::with_functions(&[("hello", "echo Hello")]);
    if place.stdout("id -u") != "0\n" {
        return;
    }
    place.session(
        "
        $ chmod 755 . .local .local/share .local/share/asyncq; chown 65001 .local/share/asyncq
        $ asyncq call --start events hello
        ! error: the processor that was started ended with exit code 77
        ! hint: `asyncq process events` shows why; the call stays in the queue
        ? 77
        ",
    );
}

#[test]
fn a_crowd_that_starts_processors_has_one_too_many_at_most() {
    let place = Place::with_functions(&[("counts", "echo x >> ran")]);
    place.stdout("asyncq service set events --concurrency 2");
    let calls: Vec<Running> = (0..20).map(|_| place.start("asyncq call --start events counts")).collect();
    let mut most = 0;
    wait_until("all have run", || {
        most = most.max(place.processors());
        place.read("ran").lines().count() == 20
    });
    for call in calls {
        let output = call.wait();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    assert!(most <= 3, "{most} processors at once");
    wait_until("none is left behind", || place.processors() == 0);
}
