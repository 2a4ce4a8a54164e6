//! Workers: what holds for functions that are programs holds for those that are run by workers, and a worker that is killed
//! costs no more than the calls that it may have begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::books::{Books, compiled};
use crate::place::{Place, Running, install, runs, wait_until};
use crate::process;
use crate::referee::{OWN, judge};
use crate::scale::{self, figure, full};
use crate::storm::{Storm, effects_are_there_once, kill, own_command};
use crate::trees::trees;

/// How many calls the workers of the last two services run at once.
const AT_ONCE: usize = 4;

/// How the workers of each service read, and how many calls they run at once: most swallow all that there is on their line,
/// some leave calls on it.
fn how(number: usize) -> String {
    match number {
        0..4 => "65536".to_owned(),
        4..6 => "300".to_owned(),
        _ => format!("65536 {AT_ONCE}"),
    }
}

/// Kills one of the processes that run the workers' program: a worker, or what it is just starting; some are stopped before.
/// Says whether there was one.
fn kill_a_worker(storm: &Storm, random: &mut fastrand::Rng) -> bool {
    let program = storm.place.at("worker");
    let workers = process::running(&program);
    if workers.is_empty() {
        return false;
    }
    let pid = Pid::from_raw(workers[random.usize(..workers.len())].parse().unwrap()).unwrap();
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // It is still the one that was found, and stays it.
    if std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program) {
        if random.u8(..4) == 0 {
            let _ = pidfd_send_signal(&held, Signal::STOP);
            std::thread::sleep(Duration::from_millis(random.u64(..20)));
        }
        return pidfd_send_signal(&held, Signal::KILL).is_ok();
    }
    false
}

/// How many attempts ended in a crash of which is told so.
fn crashes(storm: &Storm, told: &str) -> usize {
    let count = "SELECT count(*) FROM asyncq_attempt WHERE ending = 'crash' AND error ->> 'message'";
    storm.place.query(&format!("{count} LIKE '{told}%'")).parse().unwrap()
}

#[test]
fn a_storm_of_kills_of_workers_and_processors_loses_nothing_and_runs_nothing_twice() {
    let (jobs, faults) = (scale::many(300_000, 6000), [scale::many(3000, 50), scale::many(3000, 50)]);
    let mix = &[(5, OWN), (15, "meet"), (35, "fail"), (95, "slow"), (100, "nests"), (110, "child"), (300, "print")];
    let storm = Storm::of([jobs, faults[0]], mix, |place, books, number| {
        for name in ["quick", "slow", "fail", "meet", "nests", "child", "print", OWN] {
            books.worker(place, &format!("s{number} {name}"), &how(number), &own_command());
        }
    });
    let killed = AtomicUsize::new(0);
    let verdict = std::thread::scope(|scope| {
        scope.spawn(|| {
            storm.at_moments(faults[1], "kills of workers", |random| {
                while !kill_a_worker(&storm, random) && !storm.is_over() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                killed.fetch_add(1, Ordering::SeqCst);
            });
        });
        storm.rage(&kill)
    });
    let [workers, processors] = ["its worker", "the processor"].map(|whose| crashes(&storm, whose));
    // Each such call has lost its worker to one of the kills, or with the worker that it was made in.
    let nested = verdict.nested_crashes;
    let in_flight = storm.in_flight.load(Ordering::SeqCst);
    let killed = killed.into_inner();
    figure(
        "worker storm",
        format!(
            "{} kills of processors, {in_flight} calls in their hands, {processors} charged; {killed} of workers, {workers} \
             charged, {nested} nested; {verdict}",
            faults[0]
        ),
    );
    verdict.is_clean();
    assert!(verdict.acknowledged >= jobs && verdict.interrupted == 0);
    assert!(workers <= killed * AT_ONCE && workers > 0, "{workers} calls charged for {killed} kills of workers");
    assert!(verdict.extra_starts <= in_flight + workers, "{} extra starts", verdict.extra_starts);
    assert!(processors > 0 || !full());
    effects_are_there_once(&storm.place);
    assert_eq!(process::running(&storm.place.at("worker")), Vec::<String>::new());
    each_has_its_own_output(&storm.place);
}

/// What a call has printed is its own.
fn each_has_its_own_output(place: &Place) {
    let wrong =
        "SELECT count(*) FROM asyncq_job AS job LEFT JOIN asyncq_attempt ON job = job.id AND number = job.attempt
        WHERE state = 'completed' AND CAST(coalesce(log, '') AS TEXT) <>
        iif(function = 'print', job.id || ' ' || job.attempt || char(10), '')";
    assert_eq!(place.query(wrong), "0");
}

#[test]
fn the_output_of_quick_calls_is_their_own() {
    let (place, books) = (Place::with_functions(&[]), Books::open());
    for name in ["quick", "print"] {
        books.worker(&place, &format!("events {name}"), &how(0), "");
    }
    for _ in 0..scale::many(100, 10) {
        process::enqueue(&place, "print", "", 100);
        process::enqueue(&place, "quick", "", 400);
    }
    place.session("$ asyncq -q process > /dev/null");
    each_has_its_own_output(&place);
}

/// A worker that runs a call which does not end, in itself and in a program in a session of its own, both deaf, beside
/// another call, which ends when there is a file `go`. Also what is on the command line of that program.
fn busy(place: &Place, books: &Books) -> (Running, String) {
    place.stdout("asyncq service set events --concurrency 3");
    books.worker(place, "events waits", &how(0), "");
    books.function(place, "events until", &format!("until {}", place.at("go").display()));
    let name = place.at("other").display().to_string();
    place.stdout(&format!("asyncq enqueue events until; asyncq enqueue events waits {name}"));
    let processor = place.start("asyncq -q process");
    wait_until("all of it is there", || books.count("START") == 2 && trees(&name, None).len() == 1);
    (processor, name)
}

#[test]
fn the_processes_of_a_worker_are_gone_before_its_call_runs_again() {
    let (place, books) = (Place::with_functions(&[]), Books::open());
    let (processor, name) = busy(&place, &books);
    let other = trees(&name, None);
    for pid in process::running(&place.at("worker")).iter().filter(|pid| !other.contains(pid)) {
        kill_process(pid.parse().ok().and_then(Pid::from_raw).unwrap(), Signal::KILL).unwrap();
    }
    wait_until("it has run again", || books.count("START") == 3);
    place.write("go", "");
    assert!(processor.wait().status.success());
    judge(&books, &place.store()).is_clean();
    assert_eq!(trees(&name, None), Vec::<String>::new());
}

/// Both halves of a processor are killed at once; a worker that is busy is left, and one that is idle, and does not mind that
/// its line has ended.
#[test]
fn the_workers_of_a_dead_processor_are_gone_before_its_calls_run_again() {
    let (place, books) = (Place::with_functions(&[]), Books::open());
    let (processor, name) = busy(&place, &books);
    let (worker, idle) = (place.at("worker"), place.at("hostile_worker"));
    install(&compiled("hostile_worker", &[]), &idle);
    let job = place.stdout(
        "asyncq function add events stays --worker -- ./hostile_worker stays > /dev/null; asyncq enqueue events stays",
    );
    let state = format!("SELECT state FROM asyncq_job WHERE id = {job}");
    wait_until("its only call is over", || place.query(&state) == "completed");

    let halves = [processor.0.id().to_string(), processor.engine()];
    // One is stopped before, so that it has no time to end what the other one leaves.
    let [supervisor, engine] = halves.each_ref().map(|pid| pid.parse().ok().and_then(Pid::from_raw).unwrap());
    for (pid, signal) in [(supervisor, Signal::STOP), (engine, Signal::KILL), (supervisor, Signal::KILL)] {
        kill_process(pid, signal).unwrap();
    }
    processor.wait();
    wait_until("both halves are dead", || halves.iter().all(|pid| !runs(pid)));
    let left = [&worker, &idle].map(|program| process::running(program).len());
    assert_eq!(left, [2, 1], "the busy one with what it has started, and the idle one");

    place.write("go", "");
    // The locks that the books keep tell whoever begins beside what is left of an attempt.
    place.stdout("asyncq -q process");
    assert_eq!([worker, idle].map(|program| process::running(&program)), [const { Vec::<String>::new() }; 2]);
    assert_eq!(trees(&name, None), Vec::<String>::new());
    assert_eq!(books.count("START"), 4, "both that were running have run again");
    assert_eq!(books.count("OVERLAP"), 0);
}

/// A call that runs inside of its caller is not tried again.
#[test]
fn a_nested_call_ends_with_the_worker_that_ran_it() {
    let (place, books) = (Place::with_functions(&[]), Books::open());
    let name = place.at("other").display().to_string();
    books.worker(&place, "events waits", &how(0), "");
    place.stdout(&format!(
        "asyncq function add events calls -- asyncq enqueue events waits {name} > /dev/null; asyncq enqueue events calls"
    ));
    let processor = place.start("asyncq -q process");
    // The caller has the name among its words too: of those that run the worker's program, one is the worker.
    let workers = || {
        let named = trees(&name, None);
        process::running(&place.at("worker")).into_iter().partition::<Vec<_>, _>(|pid| !named.contains(pid))
    };
    wait_until("all of it is there", || [workers().0.len(), workers().1.len()] == [1, 1]);
    for pid in workers().0 {
        kill_process(pid.parse().ok().and_then(Pid::from_raw).unwrap(), Signal::KILL).unwrap();
    }
    processor.wait();
    let told = "SELECT state || ' ' || attempt || ' ' || (error ->> 'kind') || ': ' || (error ->> 'message')
        FROM asyncq_job WHERE immediate";
    assert_eq!(place.query(told), "error 1 crash: its worker was ended by signal 9 (SIGKILL)");
    assert_eq!(books.count("START"), 1);
    assert_eq!(trees(&name, None), Vec::<String>::new());
}
