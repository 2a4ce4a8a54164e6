//! `asyncq explain`: each reason, set up for real, and that the next command makes it go away.

use serde_json::Value;

use crate::place::{Place, WORKER, wait_until};
use crate::rescue::{child, contained};

/// The reasons of a job: their codes, sentences and next commands.
pub fn reasons(place: &Place, job: u32) -> Vec<(String, String, String)> {
    let shown: Value = serde_json::from_str(&place.stdout(&format!("asyncq explain {job} --json"))).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reasons = shown[0]["reasons"].as_array().unwrap();
    reasons.iter().map(|it| (text(&it["code"]), text(&it["message"]), text(&it["next"]))).collect()
}

/// The codes of a job, in their order.
pub fn codes(place: &Place, job: u32) -> String {
    let codes: Vec<String> = reasons(place, job).into_iter().map(|(code, ..)| code).collect();
    codes.join(" ")
}

/// The first reason of a job is this; gives its sentence.
pub fn first(place: &Place, job: u32, code: &str) -> String {
    let (found, message, _) = reasons(place, job).swap_remove(0);
    assert_eq!(found, code, "{message}");
    message
}

/// The next command of the first reason of a job.
pub fn next(place: &Place, job: u32) -> String {
    reasons(place, job).swap_remove(0).2
}

/// Runs the command that the first reason of a job gives, which has this code, until the reason is gone. A command that explains
/// another job leads to the next command of that one.
pub fn follow(place: &Place, job: u32, code: &str) {
    let (found, message, mut next) = reasons(place, job).swap_remove(0);
    assert_eq!(found, code, "{message}");
    while let Some(other) = next.strip_prefix("asyncq explain ") {
        next = self::next(place, other.parse().unwrap());
    }
    place.run(&next);
    assert!(!codes(place, job).split(' ').any(|it| it == code), "`{next}` does not end `{message}`");
}

/// Functions that wait until there is a file `go`.
const WAITS: (&str, &str) = ("waits", "touch begun.$ASYNCQ_JOB; until [ -e go ]; do sleep 0.01; done");

#[test]
fn a_call_that_waits_for_a_person_or_a_time() {
    let place = Place::with_functions(&[
        ("mail", "true"),
        ("later", "[ $ASYNCQ_ATTEMPT -gt 1 ] || { echo 1h > $ASYNCQ_LATER; exit 75; }"),
        ("busy", "[ $ASYNCQ_ATTEMPT -gt 1 ] || exit 75"),
    ]);
    place.function("fails", "--retries 4 --backoff 1h", "[ $ASYNCQ_ATTEMPT -gt 1 ] || exit 3");
    place.stdout("asyncq enqueue --hold events mail; asyncq enqueue --in 2h events mail");
    place.stdout("asyncq enqueue events later; asyncq enqueue events fails; asyncq process");
    assert_eq!(codes(&place, 1), "held no-processor");
    assert_eq!(first(&place, 1, "held"), "it is held until somebody starts it");
    follow(&place, 1, "held");
    let told = first(&place, 2, "delayed");
    assert!(told.starts_with("it is due at 20") && told.contains("Z, in 1h"), "{told}");
    follow(&place, 2, "delayed");
    let told = first(&place, 3, "snoozed");
    assert!(told.starts_with("its function asked to run again at 20") && told.contains("Z, in "), "{told}");
    follow(&place, 3, "snoozed");
    let told = first(&place, 4, "retry");
    let expected = "1 of at most 5 attempts failed (exit code 3); it is tried again at 20";
    assert!(told.starts_with(expected) && told.contains("Z, in "), "{told}");
    follow(&place, 4, "retry");
    place.stdout("asyncq process");
    assert!(first(&place, 4, "completed").starts_with("attempt 2 completed after "));
    // The first pause of a conflict is short, and may be over.
    let mut job = 4;
    wait_until("it is seen in its pause", || {
        job += 1;
        place.run("asyncq enqueue events busy; asyncq process");
        reasons(&place, job)[0].1.starts_with("1 of at most 3 attempts asked to be tried again; it is tried again at")
    });
}

#[test]
fn a_call_that_waits_for_other_calls() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue --hold events mail; asyncq enqueue --after 1 events mail; asyncq enqueue --after-any 1,2 events mail");
    assert_eq!(codes(&place, 3), "after no-processor");
    assert_eq!(first(&place, 3, "after"), "it waits for jobs 1 and 2");
    // The next command leads to the job that is to blame.
    assert_eq!(reasons(&place, 2)[0].2, "asyncq explain 1");
    follow(&place, 1, "held");
    place.stdout("asyncq process");
    assert_eq!([2, 3].map(|job| codes(&place, job)), ["completed", "completed"]);
    place.stdout("for n in 4 5 6; do asyncq enqueue --lane a events mail; done");
    assert_eq!(first(&place, 5, "lane"), "its lane `a` is taken by job 4");
    assert_eq!(first(&place, 6, "lane"), "its lane `a` is taken by job 4; 1 call comes first");
    assert_eq!(reasons(&place, 6)[0].2, "asyncq explain 4");
    assert_eq!(codes(&place, 4), "no-processor");
    place.stdout("asyncq process");
    assert_eq!(codes(&place, 6), "completed");
}

#[test]
fn a_call_in_the_queue() {
    let place = Place::with_functions(&[WAITS, ("mail", "true")]);
    place.stdout("asyncq enqueue events mail; asyncq enqueue events mail; asyncq service pause events");
    assert_eq!(codes(&place, 2), "service-paused no-processor order");
    follow(&place, 2, "service-paused");
    assert_eq!(first(&place, 2, "no-processor"), "no processor is at work on service `events`");
    assert_eq!(reasons(&place, 2)[1].1, "1 call comes first");
    place.stdout(&reasons(&place, 2)[1].2);
    assert_eq!((codes(&place, 2), codes(&place, 1)), ("no-processor".to_owned(), "no-processor order".to_owned()));
    follow(&place, 2, "no-processor");
    place.stdout("asyncq enqueue events mail");
    assert!(first(&place, 3, "no-processor").contains("; its last call "));
    place.stdout("asyncq process");
    // A processor that takes no calls of this service.
    place.stdout("asyncq service add other; asyncq enqueue events waits; asyncq enqueue events mail");
    let other = place.start("asyncq process --follow other");
    wait_until("it is there", || place.processors() == 1);
    assert!(
        first(&place, 5, "no-processor").starts_with("no processor at work takes calls of service `events`; its last")
    );
    other.signal("TERM");
    other.wait();
    let process = place.start("asyncq process");
    wait_until("the first one runs", || place.at("begun.4").exists());
    let told = first(&place, 5, "slots");
    assert!(told.starts_with("the only slot is taken: job 4 for ") && told.ends_with(" (no time limit)"), "{told}");
    assert_eq!((codes(&place, 5), reasons(&place, 5)[0].2.as_str()), ("slots".to_owned(), "asyncq explain 4"));
    let told = first(&place, 4, "running");
    let expected = format!(" (process {} on ", process.0.id());
    assert!(told.starts_with("attempt 1 runs for ") && told.contains(&expected), "{told}");
    // It does not see that there is another slot.
    let engine = process.engine();
    place.stdout(&format!("kill -STOP {engine}; asyncq service set events --concurrency 2"));
    assert_eq!(first(&place, 5, "order"), "it is next: a processor is about to take it");
    place.stdout(&format!("asyncq service set events --concurrency 1; kill -9 {engine} {}", process.0.id()));
    // The system may take back its lock a moment after its main thread.
    wait_until("its death is seen", || codes(&place, 5).starts_with("dead-processor"));
    let told = first(&place, 4, "dead-processor");
    assert!(told.starts_with("processor ") && told.ends_with(" died; the next processor puts its jobs back"));
    place.write("go", "");
    follow(&place, 4, "dead-processor");
    assert_eq!(codes(&place, 5), "completed");
}

#[test]
fn a_call_that_a_rate_keeps_in_the_queue() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq service set events --rate 1/h; asyncq enqueue events mail; asyncq enqueue events mail");
    let process = place.start("asyncq process");
    wait_until("one has run", || codes(&place, 1) == "completed");
    let told = first(&place, 2, "rate");
    assert!(told.starts_with("the rate of service `events` is 1/h; the next call starts at 20"), "{told}");
    place.run(&reasons(&place, 2)[0].2);
    assert!(process.wait().status.success());
    assert_eq!(codes(&place, 2), "completed");
}

#[test]
fn a_call_that_will_fail_or_expire() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue --in 1h --expires 1h events mail; mkdir site; asyncq enqueue events mail");
    assert_eq!(codes(&place, 1), "delayed no-processor will-expire");
    place.stdout(&reasons(&place, 1)[2].2);
    assert_eq!(codes(&place, 1), "delayed no-processor");
    // Each fault, and with what to fill in the next command.
    place.stdout("mkdir old; echo A=b > e.env; chmod 600 e.env; cp mail good; cp e.env good.env");
    place.stdout("asyncq function set events mail --site old --env-file ../e.env -- ../mail");
    for (change, fault, next, fill) in [
        ("rmdir old", "its site `[..]/old` is missing", "asyncq function set events mail --site FOLDER", "site"),
        ("chmod -x mail", "its program `[..]/mail` is not executable", "chmod +x [..]/mail", ""),
        ("rm mail", "its program `[..]/mail` is missing", "asyncq function set events mail -- PROGRAM", "../good"),
        (
            "chmod 640 e.env",
            "its environment file `[..]/e.env` is open to other users; `chmod 600 [..]/e.env` closes it",
            "chmod 600 [..]/e.env",
            "",
        ),
        (
            "rm e.env",
            "its environment file `[..]/e.env` is missing",
            "asyncq function set events mail --env-file FILE",
            "../good.env",
        ),
        (
            "echo A > good.env",
            "its environment file `[..]/good.env` cannot be used: line 1: it is not NAME=VALUE",
            "asyncq function set events mail --env-file FILE",
            "../better.env",
        ),
    ] {
        assert_eq!(codes(&place, 2), "no-processor", "{fault}");
        place.stdout(change);
        place.session(&format!(
            "
            $ asyncq explain 2 | tail -2 | sed 's/^ *//'
            will-fail     it will fail: {fault}
            next: {next}
            "
        ));
        place.stdout("echo A=b > better.env; chmod 600 better.env");
        let next = reasons(&place, 2).pop().unwrap().2;
        let filled = ["FOLDER", "PROGRAM", "FILE"].iter().fold(next, |next, word| next.replace(word, fill));
        place.stdout(&filled);
    }
    assert_eq!(codes(&place, 2), "no-processor");
    place.stdout("asyncq process");
    assert_eq!(codes(&place, 2), "completed");
    // The folder belongs to the call, not to its function.
    place.stdout("mkdir 'own folder'; cd 'own folder'; asyncq run --hold -- true; rmdir \"$PWD\"");
    let (code, message, next) = reasons(&place, 3).pop().unwrap();
    assert!(code == "will-fail" && message.ends_with("/own folder` is missing"), "{message}");
    assert!(next.starts_with("mkdir -p '/"), "{next}");
    place.stdout(&next);
    assert_eq!(codes(&place, 3), "held no-processor");
}

#[test]
fn a_call_that_was_cancelled_with_what_it_needs() {
    let place = Place::with_functions(&[("fails", "[ -e mended ]"), ("mail", "true")]);
    place.stdout(
        "asyncq enqueue events fails; asyncq enqueue --after 1 events mail; asyncq enqueue --after 2 events mail",
    );
    place.stdout("asyncq enqueue events mail; asyncq enqueue --after-failed 4 events mail");
    place.stdout("asyncq enqueue --after 1 events mail; asyncq job cancel 6");
    place.run("asyncq process");
    assert_eq!(first(&place, 3, "needs"), "job 2, which this needs, was cancelled");
    assert_eq!(first(&place, 2, "needs"), "job 1, which this needs, ended in an error");
    // Not one that would run the call without what it needs. The same for a call that somebody has cancelled before.
    assert_eq!([3, 2, 6].map(|job| next(&place, job)), ["asyncq explain 2", "asyncq explain 1", "asyncq explain 1"]);
    place.write("mended", "");
    follow(&place, 3, "needs");
    assert_eq!([1, 2, 3].map(|job| codes(&place, job)), ["no-processor", "after no-processor", "after no-processor"]);
    place.stdout("asyncq process");
    assert_eq!([1, 2, 3].map(|job| codes(&place, job)), ["completed"; 3]);
    follow(&place, 6, "cancelled");
    // What handles a failure has nothing to do after a success.
    assert_eq!(first(&place, 5, "not-needed"), "job 4, after whose failure this was to run, has completed");
    assert_eq!(next(&place, 5), "");
    place.session("$ asyncq explain 5\njob 5  events mail  cancelled\nnot-needed  job 4, after whose failure this was to run, has completed");
}

#[test]
fn a_call_whose_service_or_function_was_removed() {
    let place = Place::with_functions(&[("fails", "[ -e mended ]"), ("mail", "true")]);
    place.stdout("asyncq service add other; asyncq function add other mail -- ./mail; asyncq enqueue other mail");
    place.stdout("asyncq -q service remove other --force");
    let steps = ["asyncq service add other", "asyncq function add other mail -- PROGRAM", "asyncq job retry 1"];
    for step in steps {
        first(&place, 1, "removed");
        assert_eq!(next(&place, 1), step);
        place.stdout(&step.replace("PROGRAM", "./mail"));
    }
    assert_eq!(codes(&place, 1), "no-processor");
    place.stdout("asyncq enqueue events mail; asyncq -q function remove events mail --force");
    for step in ["asyncq function add events mail -- PROGRAM", "asyncq job retry 2"] {
        first(&place, 2, "removed");
        assert_eq!(next(&place, 2), step);
        place.stdout(&step.replace("PROGRAM", "./mail"));
    }
    // A call that has failed before.
    place.stdout("asyncq enqueue events fails");
    place.run("asyncq process; asyncq function remove events fails");
    assert_eq!(first(&place, 3, "exit"), "exit code 1; its function was removed");
    place.write("mended", "");
    for step in ["asyncq function add events fails -- PROGRAM", "asyncq job retry 3"] {
        assert_eq!(next(&place, 3), step);
        place.stdout(&step.replace("PROGRAM", "./fails"));
    }
    place.stdout("asyncq process");
    assert_eq!([1, 2, 3].map(|job| codes(&place, job)), ["completed"; 3]);
}

#[test]
fn a_call_whose_processors_die() {
    let place = Place::with_functions(&[("poison", "[ -e mended ] || { kill -9 $PPID; sleep 1000; }")]);
    place.stdout("asyncq service add other; asyncq enqueue events poison");
    // One that works for another service puts it back, and does not run it.
    let die = || place.run("asyncq process; asyncq -q process other");
    die();
    assert_eq!(codes(&place, 1), "no-processor");
    die();
    assert_eq!(codes(&place, 1), "no-processor quarantine");
    let told = reasons(&place, 1).pop().unwrap();
    assert_eq!(told.1, "two processors died while they ran it, so a processor runs it when it runs nothing else");
    assert_eq!(told.2, "asyncq job show 1");
    die();
    assert_eq!(first(&place, 1, "crash"), "the processor died in 3 attempts");
    place.write("mended", "");
    follow(&place, 1, "crash");
    // The budget is fresh, so it is in quarantine no longer.
    assert_eq!(codes(&place, 1), "no-processor");
    place.stdout("asyncq process");
    assert_eq!(codes(&place, 1), "completed");
}

#[test]
fn a_call_in_quarantine_that_runs_alone() {
    let place = Place::with_functions(&[("poison", "[ -e mended ] || { kill -9 $PPID; sleep 1000; }")]);
    place.stdout("asyncq service add other; asyncq enqueue events poison");
    for _ in 0..2 {
        place.run("asyncq process; asyncq -q process other");
    }
    assert_eq!(codes(&place, 1), "no-processor quarantine");
    place.write("mended", "");
    follow(&place, 1, "no-processor");
    assert_eq!(codes(&place, 1), "completed");
}

#[test]
fn a_call_that_ended_with_the_job_that_made_it() {
    let place = Place::with_functions(&[
        ("inner", "[ -e mended ] || { kill -9 $PPID; sleep 1000; }"),
        ("outer", "asyncq enqueue events inner; [ -e mended ]"),
    ]);
    place.stdout("asyncq enqueue events outer");
    place.run("asyncq process");
    let told = first(&place, 2, "parent");
    assert_eq!(told, "job 1, which made this call, ended first; it ran as a part of job 1");
    assert_eq!(next(&place, 2), "asyncq explain 1");
    place.write("mended", "");
    follow(&place, 1, "exit");
    place.stdout("asyncq process");
    assert_eq!([1, 3].map(|job| codes(&place, job)), ["completed"; 2]);
}

#[test]
fn a_call_whose_worker_says_that_it_failed() {
    let place = Place::with_functions(&[]);
    let body = "
def run(call):
    if not os.path.exists('mended'): raise ValueError('it does not work')
serve(run)";
    place.program("work.py", &format!("{WORKER}{body}"));
    place.stdout("asyncq function add events work --worker -- ./work.py; asyncq enqueue events work");
    place.run("asyncq process");
    assert_eq!(first(&place, 1, "error"), "it does not work; its function has no `--retries`");
    place.write("mended", "");
    follow(&place, 1, "error");
    place.stdout("asyncq process");
    assert_eq!(codes(&place, 1), "completed");
}

#[test]
fn how_a_call_ended() {
    let place = Place::with_functions(&[
        ("exits", "echo first; for n in 1 2 3 4 5 6; do echo line $n >&2; done; exit 3"),
        ("signalled", "kill -9 $$"),
        ("busy", "exit 75"),
        ("missing", "exit 127"),
        ("result", "echo '{' > $ASYNCQ_RESULT"),
        ("calls", "asyncq enqueue events exits; exit 4"),
        ("mail", "true"),
    ]);
    place.function("slow", "--timeout 50ms", "sleep 100");
    place.function("some", "--retries 2 --backoff 1ms --retry-on 4", "exit 5");
    place.function("often", "--retries 1 --backoff 1ms", "exit 6");
    place.stdout(
        "for f in exits signalled busy missing result calls slow some often; do asyncq enqueue events $f; done",
    );
    place.stdout("asyncq enqueue --in 1ms --expires 1ms events mail; asyncq enqueue --after 1 events mail; asyncq enqueue --after-failed 13 events mail 2> /dev/null; asyncq function set events busy --conflicts 1");
    place.run("asyncq -q process --wait 1m");
    for (job, code, told) in [
        (1, "exit", "exit code 3; its function has no `--retries`"),
        (2, "signal", "ended by signal 9 (SIGKILL); its function has no `--retries`"),
        (3, "conflict", "temporary failure (exit code 75); its function has no `--retries`"),
        (4, "cannot-run", "[..]"),
        (5, "bad-result", "[..]"),
        (6, "exit", "exit code 4; its function has no `--retries`"),
        (7, "timeout", "[..]"),
        (8, "exit", "exit code 5; its function does not retry that (`--retry-on`)"),
        (9, "exit", "exit code 6; all 1 retry are used up"),
        (10, "expired", "[..]"),
        (11, "needs", "job 1, which this needs, ended in an error"),
    ] {
        let message = first(&place, job, code);
        assert!(told == "[..]" || message == told, "{job}: {message}");
    }
    place.session(
        "
        $ asyncq explain 1
        job 1  events exits  error
        exit  exit code 3; its function has no `--retries`
              next: asyncq job retry 1

        last lines of its output:
          line 2
          line 3
          line 4
          line 5
          line 6
        $ asyncq explain 10 | head -3; asyncq job retry 10
        job 10  events mail  cancelled
        expired  it expired before an attempt began
                 next: asyncq job retry 10
        $ asyncq process; asyncq explain 10 | grep -c completed
        2
        ",
    );
}

#[test]
fn who_cancelled_a_call() {
    let place = Place::with_functions(&[WAITS, ("mail", "true")]);
    let user = place.stdout("id -un").trim().to_owned();
    place.stdout("for n in 1 2 3 4; do asyncq enqueue events mail; done; asyncq job cancel 1");
    let message = format!("cancelled by {user}");
    assert_eq!(first(&place, 1, "cancelled"), message);
    place.stdout("asyncq -q job cancel --all");
    assert_eq!(first(&place, 2, "cancelled"), message);
    follow(&place, 2, "cancelled");
    // One that runs, and does not end at once.
    place.function(
        "stays",
        "",
        "trap 'until [ -e end ]; do sleep 0.01; done; exit 1' TERM; touch up; while :; do sleep 0.01; done",
    );
    place.stdout("asyncq enqueue events stays");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.at("up").exists());
    let cancel = place.start("asyncq job cancel 5");
    wait_until("it is asked to end", || codes(&place, 5) == "cancelling running");
    assert_eq!(first(&place, 5, "cancelling"), format!("it was asked to end: {message}"));
    place.write("end", "");
    assert!(cancel.wait().status.success() && process.wait().status.success());
    assert_eq!(first(&place, 5, "cancelled"), message);
    // A whole service.
    place.stdout("asyncq service add other; asyncq function add other mail -- ./mail; asyncq enqueue other mail; asyncq -q service remove other --force");
    assert_eq!(first(&place, 6, "removed"), format!("{user} removed service `other`"));
}

#[test]
fn a_call_of_a_processor_that_died_in_another_container() {
    let place = Place::with_functions(&[WAITS]);
    place.stdout("asyncq enqueue events waits");
    let container = place.start(&contained(&place, "sh -c 'asyncq process & sleep 1000'"));
    wait_until("the call begins", || place.at("begun.1").exists());
    let first_process = child(&container.0.id().to_string());
    let supervisor = child(&first_process);
    let both = format!("{} {supervisor}", child(&supervisor));
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    place.write("look", "asyncq explain 1 --json");
    let seen = || place.stdout(&contained(&place, "sh look"));
    wait_until("its death is seen", || seen().contains("out-of-reach"));
    let seen = seen();
    assert!(seen.contains("died in another container, where its calls may still run"), "{seen}");
    assert!(seen.contains("\"next\":\"asyncq process --one-container\""), "{seen}");
    place.write("go", "");
    place.stdout(&format!("kill -9 {first_process}"));
    container.wait();
    place.stdout("asyncq -q process --one-container");
    assert_eq!(codes(&place, 1), "completed");
}

/// A debug build plays the next version of asyncq when `ASYNCQ_FUTURE_SCHEMA` is set.
#[test]
fn a_call_that_older_processors_do_not_take() {
    let mut place = Place::with_functions(&[WAITS, ("mail", "true")]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events waits");
    let older = place.start("asyncq process --follow");
    wait_until("it works", || place.at("begun.1").exists());
    place.set("ASYNCQ_FUTURE_SCHEMA", "1");
    place.stdout("asyncq enqueue events mail; asyncq enqueue --hold events mail");
    assert_eq!([1, 2, 3].map(|job| codes(&place, job)), ["running", "outdated", "held outdated"]);
    let told = first(&place, 2, "outdated");
    assert!(told.starts_with(&format!("processor 1 (process {} on ", older.0.id())), "{told}");
    assert!(told.ends_with(") is older than the store, and takes no calls: restart it"), "{told}");
    follow(&place, 2, "outdated");
    // It ends when its call has ended.
    place.write("go", "");
    assert_eq!(older.wait().status.code(), Some(75));
    assert_eq!([1, 2, 3].map(|job| codes(&place, job)), ["completed", "completed", "held no-processor"]);
}

#[test]
fn bad_input() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.session(
        "
        $ asyncq explain 1
        ! error: there is no job 1
        ! hint: there are no jobs at all
        ? 66
        $ asyncq explain 2>&1 | head -2
        error: `asyncq explain` needs `ID`
        hint: `asyncq explain --help` shows how
        $ asyncq explain x
        ! error: `ID` cannot be `x`: the number of a job is a whole number from 1
        ! hint: `asyncq explain --help` shows how
        ? 2
        $ asyncq enqueue events mail; asyncq explain 1 2
        1
        ! error: there is no job 2
        ! hint: the newest is 1; `asyncq job list` shows which there are
        ? 66
        ",
    );
}
