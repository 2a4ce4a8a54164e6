//! Too few processes, threads and memory: calls go back, and nothing is charged to them.

use std::process::Output;

use crate::place::{Place, Running, WORKER, install, wait_until};
use crate::scale::{figure, full};

/// A place of a user with this number, who has no other process; `None` when this is not run as root, whom no limit of
/// processes holds.
fn place(test: &str, user: u32) -> Option<Place> {
    let place = Place::with_functions(&[]);
    if place.stdout("id -u").trim() != "0" {
        assert!(!full(), "only root can become other users: run this as root");
        figure(test, "not checked: only root can become other users");
        return None;
    }
    install(env!("CARGO_BIN_EXE_asyncq").as_ref(), &place.at("asyncq"));
    place.stdout("asyncq function add events hello -- echo hello");
    place.stdout(&format!("chown -R {user}:{user} . && chmod 755 ."));
    Some(place)
}

/// Becomes that user, who may have so many processes and threads.
fn limited(user: u32, most: u32) -> String {
    format!("setpriv --reuid {user} --regid {user} --clear-groups prlimit --nproc={most}:4096")
}

fn counts(place: &Place) -> String {
    place.query(
        "SELECT (SELECT count(*) FROM asyncq_job WHERE state = 'queued') || ' wait, ' ||
         (SELECT count(*) FROM asyncq_job WHERE state = 'completed') || ' done, ' ||
         (SELECT count(*) FROM asyncq_attempt WHERE ending <> 'completed') || ' failed'",
    )
}

/// It is told in one sentence and a hint, exit code 75, and no call has met anything.
fn told(place: &Place, output: &Output, case: &str) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(75), "{case}: {output:?}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("error: cannot "), "{case}: {said}");
    assert!(lines[1].starts_with("hint: try again when fewer processes run and memory is free; "), "{case}: {said}");
    assert_eq!(counts(place), "4 wait, 0 done, 0 failed", "{case}");
    lines[0].to_owned()
}

#[test]
fn calls_go_back_when_there_are_too_few_processes() {
    const USER: u32 = 65_101;
    let Some(place) = place("scarce", USER) else { return };
    place.stdout("for i in 1 2 3 4; do asyncq enqueue events hello; done; asyncq service set events --concurrency 2");
    place.stdout(&format!("chown -R {USER} ."));
    let mut why = Vec::new();
    // One more each time, until there are enough.
    let enough = (1..20).find(|most| {
        let case = format!("{most} processes");
        let output = place.run(&format!("{} ./asyncq process", limited(USER, *most)));
        let is_enough = output.status.success();
        if !is_enough {
            why.push(told(&place, &output, &case));
        }
        is_enough
    });
    assert_eq!(counts(&place), "0 wait, 4 done, 0 failed");
    why.dedup();
    let last = why.last().unwrap();
    assert_eq!(last, "error: cannot start a program: the system gives no more processes and threads");
    figure("scarce", format!("{} processes and threads are enough; with fewer: {why:?}", enough.unwrap()));
}

#[test]
fn a_follower_goes_on_when_there_are_processes_again() {
    const USER: u32 = 65_102;
    let Some(place) = place("scarce", USER) else { return };
    place.program("worker.py", &format!("{WORKER}serve(lambda call: 1)"));
    place.stdout("asyncq function add events worker --worker -- ./worker.py");
    place.stdout(&format!("chown -R {USER} ."));
    let limit = |most: u32, follower: &Running| {
        place.stdout(&format!("{} prlimit --nproc={most}:4096 --pid {}", limited(USER, 100), follower.engine()));
    };
    let follower = place.start(&format!("{} ./asyncq -v process --follow 2>told", limited(USER, 100)));
    wait_until("it is there", || place.read("told").contains("ready"));
    limit(1, &follower);
    place.stdout("for f in hello worker hello; do asyncq enqueue events $f; done");
    let sentence = "the system gives no more processes and threads; no job starts until that is possible again";
    wait_until("it tells", || place.read("told").contains(sentence));
    wait_until("the calls are back", || counts(&place) == "3 wait, 0 done, 0 failed");
    assert_eq!(place.read("told").matches(sentence).count(), 1, "{}", place.read("told"));
    limit(100, &follower);
    wait_until("it goes on", || counts(&place) == "0 wait, 3 done, 0 failed");
    follower.signal("TERM");
    assert!(follower.wait().status.success());
}

/// Also where it shows how far it is.
#[test]
fn a_batch_needs_no_thread() {
    const USER: u32 = 65_103;
    let Some(place) = place("scarce", USER) else { return };
    place.write("calls", &[r#"{"service":"events","function":"hello"}"#; 3].join("\n"));
    let line = format!("{} ./asyncq enqueue --batch calls", limited(USER, 1));
    place.stdout(&format!("script -qec '{line}' out"));
    assert_eq!(counts(&place), "3 wait, 0 done, 0 failed", "{}", place.read("out"));
}

/// None of them ends by a signal, in the middle of a call.
#[test]
fn calls_go_back_when_there_is_too_little_memory() {
    for limit in ["--as", "--data"] {
        let place = Place::with_functions(&[("hello", "echo hello")]);
        place.stdout(
            "asyncq service set events --concurrency 4; for i in 1 2 3 4; do asyncq enqueue events hello; done",
        );
        let mut why = Vec::new();
        // From where the program itself does not start to where all is well.
        let started = (2..40).find(|size| {
            let most = size * 1024 * 1024;
            let output = place.run(&format!("prlimit {limit}={most} asyncq --version"));
            output.status.success()
        });
        let enough = (started.unwrap() + 2..60).find(|size| {
            let most = size * 1024 * 1024;
            let output = place.run(&format!("prlimit {limit}={most} asyncq process"));
            if !output.status.success() {
                why.push(told(&place, &output, &format!("{limit} {size} MiB")));
            }
            output.status.success()
        });
        assert_eq!(counts(&place), "0 wait, 4 done, 0 failed", "{limit}");
        why.dedup();
        assert_eq!(why, ["error: cannot run functions: the system gives no more memory"], "{limit}");
        figure("scarce", format!("{limit}: {} MiB are enough", enough.unwrap()));
    }
}
