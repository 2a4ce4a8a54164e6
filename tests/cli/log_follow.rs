//! Following what a job prints: `asyncq job log -f`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::place::{Place, Running, WORKER, sleeps, wait_until};

/// A function that prints what it is told to, until it may end.
const WAITS: &str = "echo begun >&2; echo first; touch begun; until [ -e go ]; do sleep 0.01; done; echo last";

fn following(place: &Place, job: usize) -> Running {
    place.start(&format!("asyncq job log -f {job}"))
}

/// The socket of the only processor.
fn tap(place: &Place) -> PathBuf {
    let folder = place.at(".local/share/asyncq/queue.db-asyncq");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.map(|path| path.join("tap")).find(|tap| tap.exists()).unwrap()
}

/// What both streams of a log hold, attempt by attempt.
fn kept(place: &Place, job: usize, attempts: i64) -> [Vec<u8>; 2] {
    let mut kept = [Vec::new(), Vec::new()];
    for attempt in 1..=attempts {
        let log = place.run(&format!("asyncq job log {job} --attempt {attempt}"));
        kept[0].extend(log.stdout);
        kept[1].extend(log.stderr);
    }
    kept
}

/// Output without asyncq's own lines.
fn without_messages(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"asyncq: "));
    lines.flatten().copied().collect()
}

#[test]
fn it_shows_what_the_log_keeps_through_three_attempts() {
    let ends = "exit $((3 - ASYNCQ_ATTEMPT))";
    let scripts = [
        "for n in 1 2 3 4 5; do echo out $n; sleep 0.02; echo err $n >&2; sleep 0.02; done",
        "seq 60000; seq 20000 >&2",
        "for n in $(seq 300); do echo $n; echo $n >&2; done",
        "head -c 300000 /dev/urandom; echo; head -c 100000 /dev/urandom >&2; echo >&2",
        ":",
    ];
    for script in scripts {
        let place = Place::with_functions(&[]);
        place.function("prints", "--retries 2 --backoff 1ms", &format!("{script}\n{ends}"));
        place.stdout("asyncq enqueue events prints");
        let follower = following(&place, 1);
        let processed = place.run("asyncq process --wait 1m");
        assert!(processed.status.success(), "{processed:?}");
        let shown = follower.wait();
        assert_eq!(shown.status.code(), Some(0), "{script}");
        let kept = kept(&place, 1, 3);
        assert!(shown.stdout == kept[0], "{script}: {} and {} bytes", shown.stdout.len(), kept[0].len());
        assert!(without_messages(&shown.stderr) == kept[1], "{script}");
        let messages = shown.stderr.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"asyncq: "));
        let messages: Vec<_> = messages.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages[0].starts_with("asyncq: attempt 1 of job 1 has ended (exit code 2); "), "{messages:?}");
        assert!(messages[1].starts_with("asyncq: attempt 2 of job 1 has ended (exit code 1); "), "{messages:?}");
    }
}

#[test]
fn who_joins_late_gets_what_was_printed_before() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("it begins", || place.at("begun").exists());
    let mut followers = [following(&place, 1), following(&place, 1)];
    for follower in &mut followers {
        let mut first = String::new();
        BufReader::new(follower.0.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "first\n");
    }
    place.write("go", "");
    for follower in followers {
        let shown = follower.wait();
        assert_eq!((shown.stdout, shown.stderr), (b"last\n".to_vec(), b"begun\n".to_vec()));
    }
    assert!(process.wait().status.success());
    place.session("$ asyncq job log -f 1\nfirst\nlast\n! begun");
}

#[test]
fn what_a_worker_prints_is_followed_too() {
    let place = Place::with_functions(&[]);
    let work = "
def work(call):
    print('printed', flush=True)
    os.system('echo by a child')
    until(lambda: os.path.exists('go'))
    print('last', flush=True)
serve(work)";
    place.program("work.py", &format!("{WORKER}{work}"));
    place.stdout("asyncq function add events work --worker -- ./work.py");
    place.stdout("asyncq enqueue events work; asyncq enqueue events work");
    let mut follower = following(&place, 2);
    let process = place.start("asyncq process");
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    wait_until("the first one is at work", || place.jobs("state").starts_with("processing"));
    let also = following(&place, 1);
    place.write("go", "");
    assert_eq!(lines.next().unwrap().unwrap(), "printed");
    assert_eq!(lines.next().unwrap().unwrap(), "by a child");
    assert_eq!(lines.next().unwrap().unwrap(), "last");
    assert!(process.wait().status.success() && follower.wait().status.success());
    assert_eq!(String::from_utf8(also.wait().stdout).unwrap(), "printed\nby a child\nlast\n");
}

#[test]
fn a_stopped_follower_holds_up_nobody_and_learns_what_it_has_lost() {
    let place = Place::with_functions(&[("prints", &format!("{WAITS}; yes | head -c 20000000; printf end"))]);
    place.stdout("asyncq enqueue events prints");
    let mut process = place.start("asyncq process");
    let mut printed = process.0.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut printed, &mut std::io::sink()).unwrap());
    wait_until("it begins", || place.at("begun").exists());
    let mut stopped = following(&place, 1);
    let killed = following(&place, 1);
    let mut first = [0; 6];
    stopped.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    stopped.signal("STOP");
    killed.signal("KILL");
    place.write("go", "");
    assert!(process.wait().status.success());
    assert_eq!(reader.join().unwrap(), 11 + 20_000_000 + 3);
    stopped.signal("CONT");
    let shown = stopped.wait();
    assert_eq!(shown.status.code(), Some(0));
    let told = String::from_utf8(shown.stderr).unwrap();
    let lost: usize = told.split("... ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(6 + shown.stdout.len() + lost, 11 + 20_000_000 + 3, "{told}");
    assert!(shown.stdout.ends_with(b"y\nend"));
}

#[test]
fn a_log_says_where_bytes_are_missing_also_if_all_went_to_stdout() {
    let place = Place::with_functions(&[("prints", "yes head | head -c 1000000; yes tail | head -c 1000000")]);
    place.stdout("asyncq enqueue events prints; asyncq -q process > /dev/null");
    for log in ["asyncq job log 1", "asyncq job log -f 1"] {
        let lines = place.stdout(&format!("{log} 2>&1 | uniq"));
        assert_eq!(lines.lines().next(), Some("head"), "{log}");
        assert!(lines.contains("head\n... 951424 bytes were not kept ...\n"), "{log}: {lines}");
        assert!(lines.ends_with("tail\n"), "{log}: {lines}");
    }
}

#[test]
fn a_job_is_followed_when_its_processor_was_killed() {
    let place = Place::with_functions(&[(
        "once",
        "echo attempt $ASYNCQ_ATTEMPT; touch begun-$ASYNCQ_ATTEMPT; [ $ASYNCQ_ATTEMPT = 2 ] || exec sleep 600; exit 3",
    )]);
    place.stdout("asyncq enqueue events once");
    let mut follower = following(&place, 1);
    let process = place.start("asyncq process");
    wait_until("it begins", || place.at("begun-1").exists());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "attempt 1");
    place.stdout(&format!("kill -KILL {} {}", process.0.id(), process.engine()));
    assert_eq!(place.run("asyncq process").status.code(), Some(1));
    assert_eq!(lines.next().unwrap().unwrap(), "attempt 2");
    let shown = follower.wait();
    assert_eq!(shown.status.code(), Some(1));
    let told = String::from_utf8(shown.stderr).unwrap();
    assert!(told.starts_with("asyncq: attempt 1 of job 1 has ended ("), "{told}");
    assert!(told.ends_with("asyncq: job 1 ended in an error: exit code 3\n"), "{told}");
}

#[test]
fn a_job_that_has_ended_or_is_not_there() {
    let place = Place::with_functions(&[("fails", "echo no; exit 4"), ("hello", "echo hello")]);
    place.session(
        "
        $ for f in hello fails hello; do asyncq enqueue events $f; done; asyncq job cancel 3; asyncq -q process
        1
        2
        3
        hello
        no
        ? 1
        $ asyncq job log -f 1
        hello
        $ asyncq job log --follow 2
        no
        ! asyncq: job 2 ended in an error: exit code 4
        ? 1
        $ asyncq job log -f 3
        ! asyncq: job 3 was cancelled by [..]
        ? 1
        $ asyncq job log -f 4
        ! error: there is no job 4
        ! hint: the newest is 3; `asyncq job list` shows which there are
        ? 66
        $ asyncq job log -f --attempt 1 1
        ! error: [..]
        ! hint: [..]
        ? 2
        ",
    );
    place.stdout("asyncq enqueue events hello");
    let follower = following(&place, 4);
    wait_until("it waits", || sleeps(&follower.0.id().to_string()) > 2);
    place.stdout("asyncq job cancel 4; asyncq job clean --state cancelled");
    let code = follower.wait().status.code();
    assert!(code == Some(1) || code == Some(66), "{code:?}");
}

#[test]
fn a_function_does_not_follow_itself() {
    let place = Place::with_functions(&[("follows", "asyncq job log -f $ASYNCQ_JOB")]);
    place.session(
        "
        $ asyncq enqueue events follows
        1
        $ asyncq -q process
        ! error: this command runs inside job 1, which would wait for itself
        ! hint: leave out its number
        ? 1
        ",
    );
}

#[test]
fn a_follower_ends_when_nobody_reads_it() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    // The function prints nothing more meanwhile.
    assert_eq!(place.stdout("asyncq job log -f 1 | head -n 1"), "first\n");
    place.stdout("asyncq enqueue --hold events waits");
    let mut waiting = following(&place, 2);
    drop(waiting.0.stdout.take());
    assert_eq!(waiting.wait().status.code(), Some(0));
    place.write("go", "");
    assert!(process.wait().status.success());
}

#[test]
fn output_cannot_control_a_terminal() {
    let place = Place::with_functions(&[(
        "steers",
        r"printf 'a\033[31m\342'; touch begun; until [ -e go ]; do sleep 0.01; done; printf '\202\254\n'",
    )]);
    place.stdout("asyncq enqueue events steers");
    let process = place.start("asyncq process");
    wait_until("it begins", || place.at("begun").exists());
    place.write("follow", "(sleep 0.1; touch go) & asyncq job log -f 1 $1");
    assert_eq!(place.terminal("sh ./follow"), "a\\u{1b}[31m€\n");
    assert!(process.wait().status.success());
    assert_eq!(place.terminal("sh ./follow --raw"), "a\u{1b}[31m€\n");
}

#[test]
fn the_socket_is_for_those_who_may_use_the_store() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("it begins", || place.at("begun").exists());
    let (tap, mode) = (tap(&place), |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777);
    assert_eq!((mode(&tap), mode(&tap.parent().unwrap().to_owned())), (0o600, 0o700));
    // What is no request, or asks for what does not run, gets nothing.
    for said in [&[0; 16][..], &[255; 40], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stranger = UnixStream::connect(&tap).unwrap();
        stranger.write_all(said).unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer == b"?\0\0\0\0" || answer.is_empty(), "{answer:?}");
    }
    // Nobody waits for those who say nothing.
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&tap).unwrap()).collect();
    drop(silent);
    let follower = following(&place, 1);
    place.write("go", "");
    assert_eq!(follower.wait().stdout, b"first\nlast\n");
    assert!(process.wait().status.success());
    assert!(!tap.exists());
}

#[test]
fn what_cannot_be_followed_is_shown_when_it_has_ended() {
    let place = Place::with_functions(&[("waits", WAITS)]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("it begins", || place.at("begun").exists());
    fs::remove_file(tap(&place)).unwrap();
    let mut follower = following(&place, 1);
    let mut told = String::new();
    let mut stderr = BufReader::new(follower.0.stderr.take().unwrap());
    stderr.read_line(&mut told).unwrap();
    assert_eq!(told, "asyncq: job 1 cannot be followed while it runs: No such file or directory\n");
    place.write("go", "");
    assert_eq!(follower.wait().stdout, b"first\nlast\n");
    assert!(process.wait().status.success());
}
