//! Many at once: nobody is told that the store is locked, nobody starves, and who waits for a stopped writer is told.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::place::{Place, Running, wait_until};
use crate::scale::{figure, full, many};

/// What the crowd has done.
#[derive(Default)]
struct Crowd {
    over: AtomicBool,
    /// How long each `asyncq enqueue` took.
    latencies: Mutex<Vec<Duration>>,
    /// How many calls each of the enqueuers made.
    counts: Mutex<Vec<usize>>,
    processed: AtomicUsize,
    listed: AtomicUsize,
}

impl Crowd {
    /// Enqueues in turns for all services, from one of them on.
    fn enqueue(&self, place: &Place, services: &[String], first: usize, go_on: impl Fn(usize) -> bool) {
        let mut latencies = Vec::new();
        while go_on(latencies.len()) {
            let begun = Instant::now();
            let service = &services[(first + latencies.len()) % services.len()];
            succeed(asyncq(place).args(["enqueue", service, "nothing"]));
            latencies.push(begun.elapsed());
        }
        self.counts.lock().unwrap().push(latencies.len());
        self.latencies.lock().unwrap().extend(latencies);
    }

    fn process(&self, place: &Place, service: &str) {
        while !self.over.load(Ordering::SeqCst) {
            succeed(asyncq(place).args(["--quiet", "process", service]));
            self.processed.fetch_add(1, Ordering::SeqCst);
            // Cron would wait a minute.
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn list(&self, place: &Place) {
        while !self.over.load(Ordering::SeqCst) {
            succeed(asyncq(place).args(["job", "list", "--json"]));
            self.listed.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn asyncq(place: &Place) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asyncq"));
    command.env_clear().env("HOME", place.path()).current_dir(place.path());
    command
}

/// Runs a command that must succeed and has nothing to complain about.
fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command:?}\n{output:?}");
}

/// How many calls each processor has run that has a service of its own.
const DONE: &str = "SELECT group_concat(done, ' ') FROM (SELECT sum(state = 'completed') AS done FROM asyncq_job
    WHERE service <> 'events' GROUP BY service)";

/// What percentage of the mean the least of them is.
fn least(counts: &[usize]) -> usize {
    counts.iter().min().unwrap() * 100 * counts.len() / counts.iter().sum::<usize>().max(1)
}

#[test]
fn a_crowd_of_enqueuers_and_processors_never_sees_a_locked_store_and_none_starves() {
    let name = "contention";
    let place = Place::new();
    let crowd = Crowd::default();
    let (enqueuers, processors) = (many(64, 16), many(16, 4));
    // Half of the processors have a service of their own, so that it is seen how much each of them gets done; the others
    // share one, of which whoever comes first takes all slots.
    let services: Vec<String> =
        (0..processors).map(|n| if n % 2 == 0 { format!("own{n}") } else { "events".to_owned() }).collect();
    for service in services.iter().collect::<BTreeSet<_>>() {
        let add = format!("asyncq -q service add {service} --concurrency 16");
        place.session(&format!("$ {add}; asyncq function add {service} nothing -- true"));
    }
    let time = Duration::from_secs(std::env::var("ASYNCQ_SECONDS").map_or(600, |text| text.parse().unwrap()));
    let (begun, mut done) = (Instant::now(), Vec::new());
    thread::scope(|scope| {
        let enqueuing: Vec<_> = (0..enqueuers)
            .map(|first| {
                let go_on = move |made| if full() { begun.elapsed() < time } else { made < 25 };
                let (crowd, place, services) = (&crowd, &place, &services);
                scope.spawn(move || crowd.enqueue(place, services, first, go_on))
            })
            .collect();
        let others: Vec<_> = services.iter().map(|service| scope.spawn(|| crowd.process(&place, service))).collect();
        let reading = scope.spawn(|| crowd.list(&place));
        let failed = enqueuing.into_iter().filter_map(|one| one.join().err()).count();
        crowd.over.store(true, Ordering::SeqCst);
        done = place.query(DONE).split(' ').map(|count| count.parse().unwrap()).collect();
        let failed = failed + others.into_iter().chain([reading]).filter_map(|one| one.join().err()).count();
        assert_eq!(failed, 0, "so many of the crowd had an error");
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut latencies = crowd.latencies.into_inner().unwrap();
    latencies.sort_unstable();
    let all = latencies.len();
    let at = |share: usize| latencies[(all * share / 10_000).min(all - 1)];
    let counts = crowd.counts.into_inner().unwrap();
    let slowest = least(&counts);
    let (processed, listed, hindmost) = (crowd.processed.into_inner(), crowd.listed.into_inner(), least(&done));
    figure(
        name,
        format!(
            "{enqueuers} enqueuers and {processors} processors for {seconds:.0} s: {all} calls enqueued, no error; \
             p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}; the slowest enqueuer made {slowest} % of the mean; \
             {processed} processors ran, those with a service of their own {done:?} calls, \
             the hindmost {hindmost} % of the mean; {listed} lists",
            at(5000),
            at(9900),
            at(9990),
            at(10_000),
        ),
    );
    place.stdout("asyncq --quiet process");
    let states = place.query("SELECT group_concat(DISTINCT state) || ' ' || count(*) FROM asyncq_job");
    assert_eq!(states, format!("completed {all}"));
    assert_eq!(done.len(), processors / 2);
    assert!(hindmost >= 25, "the hindmost processor has run only {hindmost} % of the mean");
    if full() {
        assert!(at(9990) <= Duration::from_secs(1), "p99.9 is {:?}", at(9990));
        assert!(at(10_000) <= Duration::from_secs(5), "the longest took {:?}", at(10_000));
        assert!(slowest >= 50, "the slowest enqueuer made only {slowest} % of the mean");
    }
}

/// Waits until a process has stopped itself.
fn wait_until_stopped(process: &Running) {
    let stat = format!("/proc/{}/stat", process.0.id());
    wait_until("it stops", || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
    });
}

/// How long somebody may take whose deadline is 200 ms: in a small run, the machine may have much else to do.
fn late() -> Duration {
    Duration::from_secs(if full() { 2 } else { 20 })
}

/// Everybody who writes gives up at the deadline and names who holds the lock; who only reads is not kept.
fn others_name_the_holder(place: &Place, holder: &Running, program: &str) {
    let pid = holder.0.id();
    for command in ["enqueue events nothing", "service add more", "service pause events", "process", "job cancel 1"] {
        let begun = Instant::now();
        place.session(&format!(
            "
            $ asyncq {command} --lock-timeout 200ms
            ! error: the store `/[..].db` is locked by process {pid} (`{program}`)
            ! hint: that process is stopped and keeps everybody waiting: `kill -CONT {pid}` lets it go on
            ? 75
            "
        ));
        assert!(begun.elapsed() >= Duration::from_millis(200));
        assert!(begun.elapsed() < late(), "`asyncq {command}` took {:?}", begun.elapsed());
    }
}

#[test]
fn a_process_that_waits_for_a_stopped_asyncq_gives_up_at_the_deadline_and_names_its_pid() {
    for step in ["transaction begun", "transaction done"] {
        let place = Place::with_functions(&[("nothing", "true")]);
        place.stdout("asyncq enqueue events nothing");
        let stopped = place.start(&format!("env ASYNCQ_FAILPOINT='{step}=stop' asyncq enqueue events nothing"));
        wait_until_stopped(&stopped);
        others_name_the_holder(&place, &stopped, "asyncq");
        place.stdout("asyncq job list --lock-timeout 200ms");
        stopped.signal("CONT");
        assert_eq!(String::from_utf8(stopped.wait().stdout).unwrap(), "2\n");
        place.stdout("asyncq enqueue events nothing --lock-timeout 200ms");
    }
}

/// Takes and releases many locks, until it is killed.
const BUSY_WITH_LOCKS: &str = "import fcntl, random
file = open('locks', 'wb')
while True:
    byte = 2 * random.randrange(500)
    fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
    for _ in range(20):
        fcntl.lockf(file, fcntl.LOCK_UN, 1, 2 * random.randrange(200))
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * random.randrange(200))
";

#[test]
fn the_holder_is_named_while_others_take_and_release_many_locks() {
    let place = Place::with_functions(&[("nothing", "true")]);
    place.stdout("asyncq enqueue events nothing");
    let stopped = place.start("env ASYNCQ_FAILPOINT='transaction begun=stop' asyncq enqueue events nothing");
    wait_until_stopped(&stopped);
    place.program("busy", BUSY_WITH_LOCKS);
    let mut busy = place.start("python3 busy");
    let text = || std::fs::read_to_string("/proc/locks").unwrap_or_default();
    wait_until("many locks are held", || {
        text().lines().filter(|line| line.contains(&busy.0.id().to_string())).count() > 100
    });
    for _ in 0..many(1000, 100) {
        place.session(&format!(
            "
            $ asyncq job cancel 1 --lock-timeout 1ms
            ! error: the store `/[..].db` is locked by process {} (`asyncq`)
            ! hint: that process is stopped [..]
            ? 75
            ",
            stopped.0.id()
        ));
    }
    busy.0.kill().unwrap();
    stopped.signal("CONT");
    assert!(stopped.wait().status.success());
}

#[test]
fn a_process_that_waits_for_a_stopped_client_names_its_pid_in_every_journal_mode() {
    for mode in ["wal", "delete"] {
        let mut place = Place::new();
        place.set("ASYNCQ_DB", "shop.db");
        place.stdout(&format!("sqlite3 shop.db 'PRAGMA journal_mode = {mode}; CREATE TABLE orders (id)'"));
        place.session(
            "
            $ asyncq -q init; asyncq service add events; asyncq function add events nothing -- true; asyncq enqueue events nothing
            1
            ",
        );
        place.program(
            "client",
            "import os, signal, sqlite3\ndb = sqlite3.connect('shop.db', isolation_level=None)\n\
             db.execute('BEGIN IMMEDIATE')\ndb.execute('INSERT INTO orders VALUES (1)')\n\
             os.kill(os.getpid(), signal.SIGSTOP)\ndb.execute('COMMIT')\n",
        );
        // In its own name, whatever stands between it and `PATH`.
        let client = place.start("\"$(python3 -c 'import sys; print(sys.executable)')\" client");
        wait_until_stopped(&client);
        let program = std::fs::read_to_string(format!("/proc/{}/comm", client.0.id())).unwrap();
        others_name_the_holder(&place, &client, program.trim_end());
        place.stdout("asyncq job list --lock-timeout 200ms");
        client.signal("CONT");
        assert!(client.wait().status.success());
        place.stdout("asyncq enqueue events nothing --lock-timeout 2s");
    }
}

/// Where a processor, or an enqueuer, can be stopped, and whether it then has the store to itself.
const STEPS: &[(&str, bool)] = &[
    ("transaction begun", true),
    ("transaction done", true),
    ("transaction committed", false),
    ("folder locked", false),
    ("processor registered", false),
    ("claims made", false),
    ("processor unregistered", false),
];

#[test]
fn a_processor_that_is_stopped_anywhere_makes_no_other_hang() {
    for (step, locks) in STEPS {
        for time in 1..=many(3, 1) {
            let place = Place::with_functions(&[("nothing", "true")]);
            place.stdout("asyncq enqueue events nothing");
            let stopped = place.start(&format!("env ASYNCQ_FAILPOINT='{step}:{time}=stop' asyncq process"));
            let state = |pid: &str| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").map_or(b'Z', |(_, after)| after.as_bytes()[0])
            };
            let is_stopped = || state(&stopped.engine()) == b'T';
            wait_until("it stops or ends", || is_stopped() || state(&stopped.0.id().to_string()) == b'Z');
            let begun = Instant::now();
            let code = place.run("asyncq enqueue events nothing --lock-timeout 200ms").status.code();
            let expected = if *locks && is_stopped() { 75 } else { 0 };
            assert_eq!(code, Some(expected), "a processor stopped at `{step}`, time {time}");
            assert!(begun.elapsed() < late(), "`{step}`: {:?}", begun.elapsed());
            if is_stopped() {
                place.stdout(&format!("kill -CONT {}", stopped.engine()));
            }
            assert!(stopped.wait().status.success());
            place.stdout("asyncq process");
            let left = place.query("SELECT count(*) FROM asyncq_job WHERE state <> 'completed'");
            assert_eq!(left, "0", "a processor stopped at `{step}`, time {time}");
        }
    }
}
