//! Many that wait, while processors are killed: each learns once how its job has ended, and none waits for ever.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::place::{Place, Running, wait_until};
use crate::scale;

/// How long everything may take at most, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What functions do.
const FUNCTIONS: [(&str, &str); 3] =
    [("well", "sleep 0.0$(($$ % 5)); echo well"), ("fail", "exit 3"), ("meet", "sleep 0.02; exit 75")];

/// Ends the storm when it is dropped, also by a test that fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn place() -> Place {
    let place = Place::with_functions(&[]);
    place.stdout("asyncq service set events --concurrency 4");
    for (name, script) in FUNCTIONS {
        place.function(name, "--conflicts 1", script);
    }
    place
}

fn spawn(place: &Place, line: &str) -> Child {
    let mut command = place.command(&format!("exec {line}"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits for the ends of processes; gives their exit codes.
fn codes(children: Vec<Child>) -> Vec<Option<i32>> {
    let until = Instant::now() + PATIENCE;
    let ended = children.into_iter().enumerate().map(|(number, mut child)| {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > until {
                child.kill().unwrap();
                panic!("number {number} hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    ended.collect()
}

/// Kills one processor after the other, so many in all. The last one is killed at the end.
fn kill(place: &Place, kills: usize, over: &AtomicBool) -> usize {
    let (mut random, mut met) = (scale::random("kills of waiters"), 0);
    while !over.load(Ordering::SeqCst) {
        let mut processor = spawn(place, "asyncq -q process --follow");
        let mut left = random.u64(20..300);
        while left > 0 && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
            left -= u64::from(met < kills);
        }
        met += usize::from(!over.load(Ordering::SeqCst));
        processor.kill().unwrap();
        processor.wait().unwrap();
    }
    met
}

#[test]
fn each_learns_how_its_job_ends_under_a_storm_of_kills() {
    let place = place();
    let (rounds, waiters, kills) = (scale::many(10, 2), scale::many(100, 12), scale::many(400, 6));
    let over = AtomicBool::new(false);
    let (calls, met) = std::thread::scope(|scope| {
        let end = End(&over);
        let killer = scope.spawn(|| kill(&place, kills, &over));
        let mut calls = Vec::new();
        for _ in 0..rounds {
            let first = calls.len();
            let waiting = (first..first + waiters).map(|number| {
                let call = format!("events {} {number}", FUNCTIONS[number % 3].0);
                if number % 2 == 0 {
                    return spawn(&place, &format!("asyncq -q call {call}"));
                }
                let id = place.stdout(&format!("asyncq enqueue {call}"));
                spawn(&place, &format!("asyncq -q wait {}", id.trim()))
            });
            let waiting = waiting.collect();
            calls.extend(codes(waiting));
        }
        drop(end);
        (calls, killer.join().unwrap())
    });
    let mut states: Vec<Option<String>> = vec![None; calls.len()];
    for job in place.jobs("args state error.kind").split(", ") {
        let (number, end) = job.trim_start_matches("[\"").split_once(' ').unwrap();
        let number: usize = number.trim_end_matches(']').trim_matches(|c| c == '[' || c == '"').parse().unwrap();
        assert_eq!(states[number].replace(end.to_owned()), None, "{number} was called twice");
    }
    for (number, (code, end)) in calls.iter().zip(states).enumerate() {
        let end = end.unwrap();
        // A job that met three kills ends in an error, whatever its function does.
        let expected = match end.as_str() {
            "completed" => 0,
            "error conflict" if number % 2 == 0 => 75,
            _ => 1,
        };
        assert_eq!(*code, Some(expected), "{number}: {end}");
    }
    scale::figure("waiters", format!("{} waited for their jobs, {met} kills", calls.len()));
}

/// How many processors have slots, or have run nothing yet. One that has run calls and has no slot is about to end, and a
/// loaded machine may keep it for long.
fn at_work(place: &Place) -> usize {
    let count = "SELECT count(*) FROM asyncq_processor p
        WHERE EXISTS (SELECT 1 FROM asyncq_slot s WHERE s.processor = p.id)
        OR NOT EXISTS (SELECT 1 FROM asyncq_job j WHERE j.processor = p.id)";
    place.query(count).parse().unwrap()
}

#[test]
fn a_crowd_that_starts_processors_leaves_none_behind() {
    let place = place();
    let (crowd, slots) = (scale::many(200, 8), 4);
    let mut calls: Vec<Child> = (0..crowd).map(|_| spawn(&place, "asyncq -q call --start events well")).collect();
    // Some are killed, perhaps while they start a processor.
    for call in calls.iter_mut().step_by(8).skip(1) {
        call.kill().unwrap();
    }
    let mut most = 0;
    wait_until("all have ended", || {
        most = most.max(at_work(&place));
        calls.iter_mut().all(|call| call.try_wait().unwrap().is_some())
    });
    for (number, code) in codes(calls).into_iter().enumerate() {
        assert!(code == Some(0) || number % 8 == 0 && code.is_none(), "{number}: {code:?}");
    }
    assert!(most <= slots + 1, "{most} processors at once");
    wait_until("none is left behind", || place.processors() == 0);
    scale::figure("waiters: a crowd", format!("{crowd} calls with --start, at most {most} processors at once"));
}

/// Nobody waits for these: each command sees only that a processor runs.
#[test]
fn a_crowd_of_commands_that_starts_processors_strands_none() {
    let place = place();
    let (crowd, slots) = (scale::many(200, 8), 2);
    place.stdout(&format!("asyncq service add shell --concurrency {slots}"));
    place.stdout("asyncq function add shell run --local --takes word... --stdin none -- env --");
    let mut runs: Vec<Child> = (0..crowd).map(|_| spawn(&place, "asyncq -q run --start true")).collect();
    let mut most = 0;
    wait_until("all have ended", || {
        most = most.max(at_work(&place));
        runs.iter_mut().all(|run| run.try_wait().unwrap().is_some())
    });
    assert!(codes(runs).iter().all(|code| *code == Some(0)));
    wait_until("all commands have run", || place.count("--service shell --state completed --limit 0") == crowd);
    wait_until("no processor is left behind", || place.processors() == 0);
    assert!(most <= slots + 1, "{most} processors at once");
    scale::figure("waiters: commands", format!("{crowd} with --start, at most {most} processors at once"));
}

#[test]
fn nobody_waits_for_what_is_gone() {
    let place = place();
    let many = scale::many(50, 6);
    place.stdout(&format!("for n in $(seq {many}); do asyncq enqueue events well --hold; done"));
    // Removed at once after their ends: who has seen the end says so, and the others that it is gone.
    let mut waiters: Vec<Child> = (1..=many).map(|id| spawn(&place, &format!("asyncq -q wait {id}"))).collect();
    place.stdout("asyncq -q job cancel --all && asyncq -q job clean --state cancelled");
    wait_until("all have ended", || waiters.iter_mut().all(|waiter| waiter.try_wait().unwrap().is_some()));
    for mut waiter in waiters {
        let code = waiter.wait().unwrap().code();
        assert!(matches!(code, Some(1 | 66)), "{code:?}");
    }
    // The store is moved away.
    let calls: Vec<Child> = (0..many).map(|_| spawn(&place, "asyncq -q call events well")).collect();
    wait_until("all are enqueued", || place.count("--state queued") == many);
    place.stdout("mv .local/share/asyncq elsewhere");
    assert!(codes(calls).iter().all(|code| *code == Some(74)));
}

/// Starts a program and keeps what it says.
fn listen(place: &Place, line: &str) -> Running {
    let mut command = place.command(&format!("exec {line}"));
    Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Each ends with this code and says why, once.
#[track_caller]
fn each_ends(waiting: Vec<Running>, code: i32, why: &str) {
    for waiter in waiting {
        let end = waiter.wait();
        let said = String::from_utf8(end.stderr).unwrap();
        assert_eq!(end.status.code(), Some(code), "{said}");
        assert!(said.matches("error: ").count() == 1 && said.contains(why), "{said}");
    }
}

fn signal(waiting: &[Running], signal: &str) {
    for waiter in waiting {
        waiter.signal(signal);
    }
}

/// A function that runs until it is told to end.
const LASTS: &str = "echo $$ >> begun; until [ -e go ]; do sleep 0.01; done";

/// A place with half as many calls that wait as ones that run, each waited for by `call`, and by `wait` once more.
fn waited_for(many: usize) -> (Place, Running, Vec<Running>) {
    let place = place();
    place.function("lasts", "", LASTS);
    place.stdout(&format!("asyncq service set events --concurrency {many}"));
    let mut waiting: Vec<Running> = (0..many).map(|_| listen(&place, "asyncq -q call events lasts")).collect();
    let processor = place.start("asyncq -q process --follow");
    wait_until("all run", || place.read("begun").lines().count() == many);
    waiting.extend((1..=many).map(|_| listen(&place, "asyncq -q call events lasts")));
    wait_until("the others are enqueued", || place.count("--state queued") == many);
    let waits: Vec<Running> = (1..=2 * many).map(|id| listen(&place, &format!("asyncq -v wait {id}"))).collect();
    for wait in &waits {
        let said = wait.0.stderr.as_ref().unwrap();
        wait_until("it says for what it waits", || rustix::io::ioctl_fionread(said).unwrap() > 0);
    }
    waiting.extend(waits);
    (place, processor, waiting)
}

#[test]
fn whoever_looks_too_late_learns_that_the_job_is_gone() {
    let (place, processor, waiting) = waited_for(scale::many(20, 2));
    signal(&waiting, "STOP");
    place.stdout("asyncq -q job cancel --all --state queued");
    place.write("go", "");
    wait_until("all have ended", || place.count("--state processing") == 0);
    place.stdout("asyncq job clean");
    assert_eq!(place.jobs("id"), "");
    signal(&waiting, "CONT");
    each_ends(waiting, 66, " was removed while it was waited for\n");
    processor.signal("TERM");
    assert!(processor.wait().status.success());
}

#[test]
fn whoever_waits_in_a_store_that_is_moved_is_told_so_also_when_the_processor_is_killed_with_it() {
    for kills in [false, true] {
        let (place, processor, waiting) = waited_for(scale::many(20, 2));
        let both = format!("{} {}", processor.0.id(), processor.engine());
        let kill = if kills { format!("kill -STOP {both}; kill -9 {both}; ") } else { String::new() };
        place.stdout(&format!("{kill}mv .local/share/asyncq elsewhere"));
        each_ends(waiting, 74, " was moved, replaced or removed");
        place.write("go", "");
        assert!(kills || processor.wait().status.code() == Some(74));
    }
}

#[test]
fn whoever_waits_for_a_call_whose_processor_is_killed_learns_how_its_next_attempt_ends() {
    let (place, processor, waiting) = waited_for(scale::many(20, 2));
    let both = format!("{} {}", processor.0.id(), processor.engine());
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    place.write("go", "");
    assert!(place.run("asyncq -q process").status.success());
    for waiter in waiting {
        let end = waiter.wait();
        let said = String::from_utf8(end.stderr).unwrap();
        assert!(end.status.code() == Some(0) && !said.contains("error: "), "{said}");
    }
}
