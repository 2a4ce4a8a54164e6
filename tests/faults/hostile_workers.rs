//! Workers that do not keep to the protocol, or do not want to end: each costs the calls that it held, and no other one.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::books::{Books, compiled};
use crate::place::{Place, Running, install, runs, wait_until};
use crate::process::{self, Dead, enqueue, only_waits};
use crate::scale::{figure, full, many};

/// What `hostile_worker.c` can be, and how a call ends that such a worker holds: the kind of its error, none if it is
/// completed, and after how many attempts.
const SHAPES: [(&str, &str, i64); 26] = [
    ("no_hello", "cannot-run", 3),
    ("versions", "cannot-run", 3),
    ("leaves", "cannot-run", 3),
    ("killed", "crash", 3),
    ("killed_later", "crash", 3),
    ("dies", "crash", 3),
    ("half_an_answer", "crash", 3),
    ("nonsense", "crash", 3),
    ("hello_again", "crash", 3),
    ("no_such_call", "crash", 3),
    ("long", "crash", 3),
    ("survived", "crash", 3),
    ("shuts", "crash", 3),
    ("twice", "", 1),
    ("miscounts", "", 1),
    ("slow", "", 1),
    ("unread", "timeout", 1),
    ("closes", "timeout", 1),
    ("half_and_silence", "timeout", 1),
    ("hangs", "timeout", 1),
    ("stops", "timeout", 1),
    ("progress", "timeout", 1),
    ("unknown", "timeout", 1),
    ("output", "timeout", 1),
    ("endless", "timeout", 1),
    ("talks", "timeout", 1),
];

/// How much more memory a processor may have after many calls, in KiB.
const MORE_MEMORY: i64 = 4096;

/// How much memory a processor may need for workers that say something without end, in KiB.
const MOST_OF_A_FLOOD: i64 = 24_576;

/// A store with a function `waits`, on which a processor stays until there is a file.
fn place(concurrency: usize) -> Place {
    let place = Place::with_functions(&[("waits", "until [ -e go-$1 ]; do sleep 0.02; done")]);
    place.session(&format!("$ asyncq service set events --concurrency {concurrency}"));
    install(&compiled("hostile_worker", &[]), &place.at("hostile_worker"));
    place
}

fn add(place: &Place, shape: &str) {
    // What crashes must do so before its time is over, also on a loaded machine.
    let crashes = SHAPES.iter().any(|(name, kind, _)| *name == shape && *kind == "crash");
    let timeout = if crashes { "60s" } else { "1s" };
    let function =
        format!("asyncq function add events {shape} --worker --timeout {timeout} -- ./hostile_worker {shape}");
    place.session(&format!("$ {function}"));
}

/// The process that does the work.
fn start(place: &Place) -> (Running, String) {
    enqueue(place, "waits", "end", 1);
    let processor = process::start(place, "asyncq -q process --trust-store-writers");
    wait_until("it is at work", || place.query("SELECT count(*) FROM asyncq_job WHERE state = 'processing'") == "1");
    let engine = processor.engine();
    (processor, engine)
}

#[test]
fn a_misbehaving_worker_costs_only_the_calls_that_it_held() {
    for _ in 0..many(10, 1) {
        let (place, books) = (place(2 * SHAPES.len() + 4), Books::open());
        for (shape, ..) in SHAPES {
            add(&place, shape);
        }
        books.worker(&place, "events quick", "65536", "");
        for (shape, ..) in SHAPES {
            enqueue(&place, shape, "x", 1);
            // A second one, which waits on the line of the first where it can.
            if ["unread", "slow", "twice"].contains(&shape) {
                enqueue(&place, shape, "x", 1);
            }
            enqueue(&place, "quick", "x", 20);
        }
        // Nothing else keeps it at work: what has crashed twice runs with empty hands only.
        let output = place.run("asyncq -q process --wait-retries --trust-store-writers > /dev/null");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let wrong: Vec<String> = SHAPES
            .into_iter()
            .map(|(shape, kind, attempts)| {
                let told = format!(
                    "SELECT group_concat(DISTINCT coalesce(error ->> 'kind', '') || ' ' || attempt) FROM asyncq_job
                     WHERE function = '{shape}'"
                );
                (format!("{shape}: {kind} {attempts}"), format!("{shape}: {}", place.query(&told)))
            })
            .filter(|(wanted, told)| wanted != told)
            .map(|(wanted, told)| format!("{wanted}, not {told}"))
            .collect();
        assert_eq!(wrong, Vec::<String>::new());
        let others =
            "SELECT count(*) FROM asyncq_job WHERE function = 'quick' AND (state <> 'completed' OR attempt > 1)";
        assert_eq!(place.query(others), "0");
        assert_eq!(process::running(&place.at("hostile_worker")), Vec::<String>::new());
        figure("hostile workers", format!("{} shapes at once: each cost its own calls", SHAPES.len()));
    }
}

/// Also those that have not begun are not charged: of several at once all, of those one after another the oldest.
#[test]
fn those_behind_a_worker_that_dies_are_not_charged() {
    let place = place(1);
    place.session("$ asyncq function add events several --worker -- ./hostile_worker several");
    place.session("$ asyncq service set events --concurrency 4");
    enqueue(&place, "several", "x", 4);
    let output = place.run("asyncq -q process");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_attempt WHERE ending = 'crash'"), "4");
}

/// Nothing of the worker, and of what it has started, is there any more.
fn nothing_is_left(place: &Place) {
    assert_eq!(process::running(&place.at("hostile_worker")), Vec::<String>::new());
}

/// Waits until a processor has ended; fails where it does not.
fn ends(processor: Running) -> Output {
    let pid = processor.0.id().to_string();
    wait_until("it ends", || !runs(&pid));
    processor.wait()
}

/// It has 30 seconds, others run meanwhile and after it, and those that are for it too meet the same error.
#[test]
fn a_worker_that_never_says_hello_is_ended_after_a_while_and_is_one_error() {
    // The second call for it waits, and has its place while it does.
    let place = place(3);
    place.session(
        "
        $ asyncq function add events mute --worker -- ./hostile_worker mute
        $ asyncq function add events quick --worker -- ./hostile_worker quick
        ",
    );
    enqueue(&place, "mute", "x", 2);
    enqueue(&place, "quick", "x", 1);
    let begun = Instant::now();
    let processor = place.start("asyncq process");
    wait_until("the other one is not kept", || {
        place.query("SELECT state FROM asyncq_job WHERE function = 'quick'") == "completed"
    });
    assert_eq!(
        place.query("SELECT group_concat(state) FROM asyncq_job WHERE function = 'mute'"),
        "processing,processing"
    );
    let output = ends(processor);
    assert!(begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = "SELECT group_concat(DISTINCT state || number || crashes || (a.error ->> 'kind') || ': ' || (a.error ->> 'message'))
        FROM asyncq_attempt AS a JOIN asyncq_job AS j ON j.id = a.job WHERE function = 'mute'";
    assert_eq!(place.query(told), "delayed10cannot-run: its worker did not say hello in 30 seconds");
    nothing_is_left(&place);
}

/// An answer can only come from who has the other end of the line: the worker under whatever number, or what it has started.
#[test]
fn a_worker_that_closes_its_line_and_stays_has_crashed_but_not_one_that_hands_it_on() {
    let place = place(5);
    let shapes = ["closes_later", "closes", "hands_on", "hides", "moves"];
    for shape in shapes {
        place.session(&format!("$ asyncq function add events {shape} --worker -- ./hostile_worker {shape}"));
        enqueue(&place, shape, "x", 1);
    }
    let processor = process::start(&place, "asyncq -q process --wait-retries");
    ends(processor);
    let told = "SELECT group_concat(function || ': ' || state || attempt || coalesce(' ' || (error ->> 'kind') || ', ' || (error ->> 'message'), ''), '; ')
        FROM asyncq_job";
    assert_eq!(
        place.query(told),
        "closes_later: error3 crash, its worker closed its channel in 3 attempts; closes: error3 cannot-run, its worker closed \
         its channel; hands_on: completed1; hides: completed1; moves: completed1"
    );
    nothing_is_left(&place);
}

/// A cancel, and a time limit of one of several calls: ten seconds later all of the worker is killed. The other call that it ran
/// is run once more.
#[test]
fn a_worker_that_is_deaf_has_ten_seconds() {
    let place = place(4);
    place.session(
        "
        $ asyncq function add events hangs --worker -- ./hostile_worker hangs
        $ asyncq function add events listens --worker -- ./hostile_worker listens
        $ asyncq function add events late --worker --timeout 3s -- ./hostile_worker listens
        ",
    );
    enqueue(&place, "hangs", "x", 1);
    enqueue(&place, "late", "x", 1);
    enqueue(&place, "listens", "x", 1);
    let processor = process::start(&place, "asyncq -q process");
    // Each of the three with what it has started.
    wait_until("all of it is there", || process::running(&place.at("hostile_worker")).len() == 3 + 2);
    place.run("asyncq job cancel 1");
    ends(processor);
    let told = "SELECT group_concat(function || ': ' || state || ' ' || coalesce(error ->> 'kind', result, ''), ', ') FROM asyncq_job";
    assert_eq!(place.query(told), "hangs: cancelled cancelled, late: error timeout, listens: completed \"at last\"");
    let endings = "SELECT group_concat(job || ' ' || ending, ', ' ORDER BY job) FROM asyncq_attempt WHERE number = 1";
    assert_eq!(place.query(endings), "1 cancelled, 2 error, 3 interrupted");
    assert_eq!(place.query("SELECT sum(failures + conflicts + crashes) FROM asyncq_job WHERE id = 3"), "0");
    let shortest: i64 =
        place.query("SELECT min(finished_at - started_at) FROM asyncq_attempt WHERE number = 1").parse().unwrap();
    assert!(shortest >= 10_000, "{shortest} ms");
    nothing_is_left(&place);
}

/// Ten seconds after its line has ended a worker is asked to end, and two later killed.
#[test]
fn a_worker_that_does_not_end_with_its_processor_has_twelve_seconds() {
    let place = place(2);
    place.session(
        "
        $ asyncq function add events lingers --worker -- ./hostile_worker lingers
        $ asyncq function add events dawdles --worker -- ./hostile_worker dawdles
        ",
    );
    enqueue(&place, "lingers", "x", 1);
    enqueue(&place, "dawdles", "x", 1);
    let begun = Instant::now();
    let processor = process::start(&place, "asyncq -q process");
    wait_until("one is asked to end", || place.at("asked").exists());
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    ends(processor);
    assert!(begun.elapsed() >= Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job WHERE state = 'completed'"), "2");
    nothing_is_left(&place);
}

#[test]
fn a_processor_that_is_stopped_while_a_worker_starts_gives_the_call_back() {
    let place = place(1);
    place.session("$ asyncq function add events silent --worker -- ./hostile_worker silent");
    enqueue(&place, "silent", "x", 2);
    let processor = process::start(&place, "asyncq -q process");
    wait_until("its worker starts", || !process::running(&place.at("hostile_worker")).is_empty());
    processor.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    // The first signal lets what runs come to its end, the second one does not.
    processor.signal("TERM");
    processor.wait();
    let told = "SELECT group_concat(state || crashes || coalesce(error, '')) FROM asyncq_job";
    assert_eq!(place.query(told), "queued0,queued0");
    assert_eq!(process::running(&place.at("hostile_worker")), Vec::<String>::new());
}

#[test]
fn many_calls_and_workers_leave_no_descriptor_and_no_memory_behind() {
    let calls = many(10_000, 1500);
    let place = place(5);
    let add = |name: &str, more: &str| {
        place.session(&format!("$ asyncq function add events {name} --worker {more} -- ./hostile_worker {name}"));
    };
    add("quick", "--calls-per-worker 50");
    let (processor, engine) = start(&place);
    // As many as later: what is claimed ahead grows with how many wait, to its limit.
    enqueue(&place, "quick", "x", calls);
    only_waits(&place);
    let pids = [processor.0.id().to_string(), engine];
    let look = || pids.each_ref().map(|pid| (process::descriptors(pid), process::memory(pid, "VmRSS")));
    wait_until("no worker is on its way out", || process::running(&place.at("hostile_worker")).len() <= 5);
    let before = look();
    enqueue(&place, "quick", "x", calls);
    only_waits(&place);
    let mut dead = Dead::default();
    wait_until("all is as before", || {
        dead.look(&pids) == 0 && look().iter().zip(&before).all(|(now, before)| now.0 <= before.0 + 5 * 5)
    });
    let after = look();
    figure(
        "descriptors of workers",
        format!("{calls} calls: (descriptors, KiB) of both {before:?} before, {after:?} after"),
    );
    for (before, after) in before.into_iter().zip(after) {
        // The slots may have as many idle workers as there are slots, more than before.
        assert!(after.1 - before.1 <= MORE_MEMORY, "{before:?} {after:?}");
    }
    assert!(!full() || dead.most <= 50, "{} dead at once", dead.most);
    fs::write(place.at("go-end"), "").unwrap();
    processor.wait();
    assert_eq!(process::running(&place.at("hostile_worker")), Vec::<String>::new());
}

/// Workers talk without end, and nobody reads what the processor prints: they wait, and it keeps little of what they say.
#[test]
fn endless_messages_of_workers_do_not_fill_the_memory_of_their_processor() {
    let place = place(5);
    let floods = ["output", "progress", "unknown", "endless", "talks"];
    for shape in floods {
        add(&place, shape);
    }
    enqueue(&place, "waits", "end", 1);
    let processor = place.start("asyncq -q process --trust-store-writers");
    wait_until("it is at work", || place.query("SELECT count(*) FROM asyncq_job WHERE state = 'processing'") == "1");
    let engine = processor.engine();
    let before = process::memory(&engine, "VmHWM");
    for shape in floods {
        enqueue(&place, shape, "x", 1);
    }
    only_waits(&place);
    let more = process::memory(&engine, "VmHWM") - before;
    figure("floods of workers", format!("{floods:?}, unread: {more} KiB more at the peak"));
    assert!(more <= MOST_OF_A_FLOOD, "{more} KiB more");
    fs::write(place.at("go-end"), "").unwrap();
    processor.wait();
}
