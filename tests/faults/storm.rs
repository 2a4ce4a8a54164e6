//! The storm: many processors and clients at once, which are killed, or told to stop, all the time.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::books::Books;
use crate::place::Place;
use crate::referee::{OWN, Verdict, judge};
use crate::rules;
use crate::scale;

/// How many processors there are at once, each with a service of its own to begin with.
const PROCESSORS: usize = 8;

/// How many slots each service has.
const SLOTS: usize = 4;

/// How many calls of one slot may have begun without their outcome being recorded: the one that runs and, while outcomes
/// are recorded quickly, one that has ended.
const HELD: usize = 2;

/// How many bytes a job leaves in the functions' book, at least: the last fault happens before the last job.
const BYTES_OF_A_JOB: u64 = 70;

/// How many of a hundred clients are the command line; the others make some 25 calls at once.
const BY_HAND: usize = 30;

/// How many calls of a lane may run at once, and the rate of the first service, which no processor reaches for long.
const LANE_WIDTH: usize = 2;
const RATE: &str = "2000/s";

/// Where functions that complete their own job have their effect.
const EFFECTS: &str = "CREATE TABLE effect (job INTEGER)";

/// What is done to a processor now and then.
pub type Fault<'a> = &'a (dyn Fn(&mut fastrand::Rng, &Child) + Sync);

pub struct Storm {
    pub place: Place,
    books: Books,
    /// Which function every thousandth to thousandth call is of, up to these numbers; the rest is `quick`.
    mix: &'static [(usize, &'static str)],
    jobs: usize,
    faults: usize,
    /// Whether the faults end processors at once.
    kills: bool,
    /// How many calls of a processor may be running when it meets its fault.
    most: usize,
    /// The processors, and no one where one has ended and the next was not started yet.
    processors: Vec<Mutex<Option<Child>>>,
    /// To which process the latest fault happened.
    met: Mutex<Vec<u32>>,
    /// How many attempts were running where a fault happened, by what the store said just before.
    pub in_flight: AtomicUsize,
    /// How many calls were made although the client got no answer, so that it repeated them.
    pub repeated: AtomicUsize,
    /// How often the store was looked at, and no rule was broken.
    pub looks: AtomicUsize,
    enqueued: AtomicUsize,
    over: AtomicBool,
}

/// A call to make.
struct Called {
    key: String,
    service: String,
    function: String,
    lane: Option<&'static str>,
    /// Whether it needs the call before it, which this client has made.
    follows: bool,
}

impl Storm {
    fn new(jobs: usize, faults: usize, kills: bool) -> Storm {
        let own = format!("around {}", own_command());
        let functions =
            [("quick", "quick"), ("slow", "sleep 10"), ("fail", "fail"), ("meet", "conflict"), (OWN, own.as_str())];
        let mix = &[(30, OWN), (40, "meet"), (60, "fail"), (170, "slow")];
        let storm = Storm::of([jobs, faults], mix, |place, books, number| {
            for (name, how) in functions {
                books.function(place, &format!("s{number} {name}"), how);
            }
        });
        Storm { kills, most: SLOTS, ..storm }
    }

    /// So many jobs and kills, and the functions that `add` adds to each service.
    pub fn of(
        [jobs, faults]: [usize; 2],
        mix: &'static [(usize, &'static str)],
        add: impl Fn(&Place, &Books, usize),
    ) -> Storm {
        let (place, books) = (Place::new(), Books::open());
        for number in 0..PROCESSORS {
            let options = format!("--concurrency {SLOTS} --lane-width {LANE_WIDTH}");
            place.session(&format!("$ asyncq -q service add s{number} {options}"));
            add(&place, &books, number);
        }
        place.session(&format!("$ asyncq service set s0 --rate {RATE}"));
        Connection::open(place.store()).unwrap().execute_batch(EFFECTS).unwrap();
        let processors = (0..PROCESSORS).map(|_| Mutex::new(None)).collect();
        let [in_flight, repeated, looks, enqueued] = std::array::from_fn(|_| AtomicUsize::new(0));
        let met = Mutex::new(vec![0; PROCESSORS]);
        let over = AtomicBool::new(false);
        let (kills, most) = (true, usize::MAX);
        Storm {
            place,
            books,
            mix,
            jobs,
            faults,
            kills,
            most,
            processors,
            met,
            in_flight,
            repeated,
            looks,
            enqueued,
            over,
        }
    }

    /// Lets it rage until every call is enqueued and every fault has happened, then drains what is left.
    pub fn rage(&self, fault: Fault<'_>) -> Verdict {
        std::thread::scope(|scope| {
            let _end = End(&self.over);
            let keepers: Vec<_> = (0..PROCESSORS).map(|number| scope.spawn(move || self.keep(number))).collect();
            let clients = [scope.spawn(|| self.call(0)), scope.spawn(|| self.call(1))];
            let watcher = scope.spawn(|| self.watch());
            scope.spawn(|| self.disturb(fault)).join().unwrap();
            for client in clients {
                client.join().unwrap();
            }
            self.wait_until_drained();
            self.over.store(true, Ordering::SeqCst);
            for keeper in keepers {
                keeper.join().unwrap();
            }
            watcher.join().unwrap();
        });
        self.place.stdout("asyncq -q process --wait-retries || [ $? = 1 ]");
        assert_eq!(rules::broken(&connect(&self.place)), [""; 0]);
        judge(&self.books, &self.place.store())
    }

    /// Looks again and again whether the store breaks a rule of calls that wait for others.
    fn watch(&self) {
        let _end = End(&self.over);
        let store = connect(&self.place);
        while !self.is_over() {
            assert_eq!(rules::broken(&store), [""; 0]);
            self.looks.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn processor(&self, number: usize) -> MutexGuard<'_, Option<Child>> {
        self.processors[number].lock().unwrap()
    }

    /// Starts one processor after the other.
    fn keep(&self, number: usize) {
        let services: Vec<String> = (0..PROCESSORS).map(|n| format!("s{}", (number + n) % PROCESSORS)).collect();
        let line = format!("exec asyncq -q process {}", services.join(" "));
        while !self.over.load(Ordering::SeqCst) {
            let said = self.place.at(&format!("said{number}"));
            let mut command = self.place.command(&line);
            command.stdout(Stdio::null()).stderr(File::create(&said).unwrap());
            *self.processor(number) = Some(command.spawn().unwrap());
            let (pid, status) = loop {
                let mut processor = self.processor(number);
                let child = processor.as_mut().unwrap();
                if let Some(status) = child.try_wait().unwrap() {
                    break (child.id(), status);
                }
                drop(processor);
                std::thread::sleep(Duration::from_millis(3));
            };
            // Some calls fail, which is told by a 1.
            let well = matches!(status.code(), Some(0 | 1));
            // Also who is told to stop before it can hear that.
            let met = self.met.lock().unwrap()[number] == pid && (self.kills || status.signal() == Some(15));
            assert!(well || met, "{status}: {}", std::fs::read_to_string(said).unwrap());
        }
        *self.processor(number) = None;
    }

    /// Makes the calls of one client, each until it is acknowledged.
    fn call(&self, client: usize) {
        let _end = End(&self.over);
        let mut random = scale::random(&format!("client {client}"));
        let mut latest = None;
        while self.enqueued.load(Ordering::SeqCst) < self.jobs && !self.over.load(Ordering::SeqCst) {
            latest = Some(if random.usize(..100) < BY_HAND {
                self.call_by_hand(&mut random, latest)
            } else {
                self.call_by_sql(&mut random)
            });
        }
    }

    fn next(&self, random: &mut fastrand::Rng) -> Called {
        let number = self.enqueued.fetch_add(1, Ordering::SeqCst);
        let draw = random.usize(..1000);
        let function = self.mix.iter().find(|(up_to, _)| draw < *up_to).map_or("quick", |(_, function)| function);
        let lane = ["a", "b"].get(random.usize(..8)).copied();
        let (key, service) = (format!("k{number}"), format!("s{}", random.usize(..PROCESSORS)));
        Called { key, service, function: function.to_owned(), lane, follows: random.u8(..8) == 0 }
    }

    /// A command line that is killed now and then, and typed again.
    fn call_by_hand(&self, random: &mut fastrand::Rng, latest: Option<i64>) -> i64 {
        let Called { key, service, function, lane, follows } = self.next(random);
        let lane = lane.map(|lane| format!("--lane {lane}")).unwrap_or_default();
        // It may have ended meanwhile, and in an error.
        let after = latest.filter(|_| follows).map(|job| format!("--after-any {job}")).unwrap_or_default();
        loop {
            let options = format!("--key {key} {lane} {after}");
            let mut command = self.place.command(&format!("exec asyncq enqueue {options} {service} {function} 1"));
            let mut child = command.spawn().unwrap();
            if random.u8(..4) == 0 {
                std::thread::sleep(Duration::from_micros(random.u64(..4000)));
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                let id = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
                self.books.acknowledged(id, &key);
                return id;
            }
            assert_eq!(output.status.code(), None, "{output:?}");
            let made = self.place.query(&format!("SELECT count(*) FROM asyncq_job WHERE key = '{key}'"));
            self.repeated.fetch_add(made.parse().unwrap(), Ordering::SeqCst);
        }
    }

    /// A transaction of an application; now and then it is rolled back, or nobody hears that it was committed, and it is
    /// made again. A call that needs the one before it is cancelled if that one fails.
    fn call_by_sql(&self, random: &mut fastrand::Rng) -> i64 {
        let calls: Vec<_> = (0..random.usize(1..50)).map(|_| self.next(random)).collect();
        let mut store = connect(&self.place);
        loop {
            let transaction = store.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
            let mut ids: Vec<i64> = Vec::new();
            for Called { key, service, function, lane, follows } in &calls {
                let insert = "INSERT INTO asyncq_job (service, function, args, key, lane, after)
                    VALUES (?1, ?2, '[1]', ?3, ?4, ?5) ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING id";
                let after = ids.last().filter(|_| *follows).map(|job| format!("[{job}]"));
                let values = (service, function, key, lane, after);
                ids.push(transaction.query_row(insert, values, |row| row.get(0)).unwrap());
            }
            if random.u8(..10) == 0 {
                continue;
            }
            transaction.commit().unwrap();
            if random.u8(..20) == 0 {
                self.repeated.fetch_add(calls.len(), Ordering::SeqCst);
                continue;
            }
            for (id, Called { key, .. }) in ids.iter().zip(&calls) {
                self.books.acknowledged(*id, key);
            }
            return ids[ids.len() - 1];
        }
    }

    /// Lets the faults happen, evenly over the jobs.
    fn disturb(&self, fault: Fault<'_>) {
        self.at_moments(self.faults, "faults", |random| {
            let mut whom = random.usize(..PROCESSORS);
            while !self.try_fault(whom, random, fault) && !self.is_over() {
                whom = (whom + 1) % PROCESSORS;
            }
        });
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Does something so many times, at random moments, evenly over the jobs.
    pub fn at_moments(&self, count: usize, name: &str, act: impl Fn(&mut fastrand::Rng)) {
        let _end = End(&self.over);
        let mut random = scale::random(name);
        let every = (self.jobs as u64 * BYTES_OF_A_JOB) / (count as u64 + 1);
        for number in 0..count as u64 {
            let mark = number * every + random.u64(..every);
            let book = self.books.at("functions");
            let undisturbed = || self.place.query("SELECT count(*) FROM asyncq_job WHERE state = 'queued'") == "0";
            let mut looks = 0;
            while book.metadata().unwrap().len() < mark && !self.is_over() {
                std::thread::sleep(Duration::from_millis(1));
                looks += 1;
                // Jobs that end without a line in the book are fewer than the estimate.
                if looks % 1000 == 0 && self.enqueued.load(Ordering::SeqCst) >= self.jobs && undisturbed() {
                    break;
                }
            }
            act(&mut random);
        }
    }

    fn try_fault(&self, whom: usize, random: &mut fastrand::Rng, fault: Fault<'_>) -> bool {
        let mut processor = self.processor(whom);
        let Some(child) = processor.as_mut() else { return false };
        // Not reaped while this is locked, so that its number is still its own.
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        // A second signal to stop would mean something else.
        if std::mem::replace(&mut self.met.lock().unwrap()[whom], child.id()) == child.id() {
            return false;
        }
        let running = format!(
            "SELECT count(*) FROM asyncq_job JOIN asyncq_processor ON asyncq_processor.id = processor
             WHERE pid = {} AND state = 'processing'",
            child.id()
        );
        let running: usize = self.place.query(&running).parse().unwrap();
        self.in_flight.fetch_add(running.min(self.most), Ordering::SeqCst);
        fault(random, child);
        true
    }

    fn wait_until_drained(&self) {
        let store = connect(&self.place);
        let left = || -> i64 {
            let count = "SELECT count(*) FROM asyncq_job WHERE state IN ('queued', 'processing', 'blocked')";
            store.query_row(count, [], |row| row.get(0)).unwrap()
        };
        let (mut least, mut since) = (i64::MAX, Instant::now());
        while !self.over.load(Ordering::SeqCst) {
            match left() {
                0 => return,
                fewer if fewer < least => (least, since) = (fewer, Instant::now()),
                same => assert!(since.elapsed() < Duration::from_secs(60), "{same} jobs do not get on"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What functions did in a transaction of their own is there once for each that succeeded, and for no other.
pub fn effects_are_there_once(place: &Place) {
    let wrong =
        "SELECT count(*) FROM asyncq_job LEFT JOIN (SELECT job, count(*) AS times FROM effect GROUP BY job) ON job = id
        WHERE coalesce(times, 0) <> (function = 'own' AND state = 'completed')";
    assert_eq!(place.query(wrong), "0");
    assert_ne!(place.query("SELECT count(*) FROM effect"), "0");
}

/// Ends the storm when a part of it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

fn connect(place: &Place) -> Connection {
    let store = Connection::open(place.store()).unwrap();
    store.busy_timeout(Duration::from_secs(60)).unwrap();
    store.execute_batch("PRAGMA synchronous=FULL").unwrap();
    store
}

/// Kills the process that was started, the one that does the work, or both.
pub fn kill(random: &mut fastrand::Rng, child: &Child) {
    let started = Pid::from_child(child);
    let children = std::fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap_or_default();
    let engine = children.split(' ').next().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    let whom = match (random.u8(..4), engine) {
        (0, Some(engine)) => vec![engine],
        (1, Some(engine)) => vec![started, engine],
        (2, Some(engine)) => vec![engine, started],
        _ => vec![started],
    };
    for pid in whom {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[test]
fn a_storm_of_kills_loses_nothing_and_runs_nothing_twice() {
    let (jobs, kills) = (scale::many(1_000_000, 10_000), scale::many(10_000, 100));
    let storm = Storm::new(jobs, kills, true);
    let verdict = storm.rage(&kill);
    let (repeated, cut_off) = (storm.repeated.into_inner(), verdict.cut_off);
    let (in_flight, looks) = (storm.in_flight.into_inner(), storm.looks.into_inner());
    scale::figure(
        "kill storm",
        format!(
            "{kills} kills, {in_flight} attempts in flight at them; {repeated} calls repeated that were there; {cut_off} \
             completed themselves and were killed before their end; {looks} looks at lanes and needs; {verdict}"
        ),
    );
    verdict.is_clean();
    assert!(verdict.acknowledged >= jobs && repeated > 0 && verdict.interrupted == 0);
    assert!(cut_off > 0 || !scale::full());
    // Few kills may all meet full slots.
    let at_most = if scale::full() { in_flight } else { in_flight * HELD };
    assert!(verdict.extra_starts <= at_most, "{} extra starts", verdict.extra_starts);
    effects_are_there_once(&storm.place);
}

#[test]
fn rolling_restarts_lose_nothing_and_burn_no_attempt() {
    let (jobs, restarts) = (scale::many(100_000, 1000), scale::many(1000, 30));
    let storm = Storm::new(jobs, restarts, false);
    let verdict = storm.rage(&|_, child| kill_process(Pid::from_child(child), Signal::TERM).unwrap());
    scale::figure("rolling restarts", format!("{restarts} restarts; {verdict}"));
    verdict.is_clean();
    assert_eq!((verdict.extra_starts, verdict.crashes, verdict.interrupted), (0, 0, 0));
    assert_eq!((verdict.given_up, verdict.cut_off), (0, 0));
    assert_eq!(storm.place.query("SELECT count(*) FROM asyncq_job WHERE crashes > 0"), "0");
    effects_are_there_once(&storm.place);
}

/// What completes a job in the transaction of its effect: the function below.
pub fn own_command() -> String {
    let program = std::env::current_exe().unwrap();
    format!("{} --quiet --exact {OWN_TEST}", program.display())
}

const OWN_TEST: &str = "storm::a_function_completes_its_own_job_in_the_transaction_of_its_effect";

/// Called as a function, this test is one: with the same SQLite as asyncq, as old ones lose commits under load.
#[test]
fn a_function_completes_its_own_job_in_the_transaction_of_its_effect() {
    if let Ok(job) = std::env::var("ASYNCQ_JOB") {
        return complete(&job);
    }
    let (place, books) = (Place::with_functions(&[]), Books::open());
    connect(&place).execute_batch(EFFECTS).unwrap();
    books.function(&place, &format!("events {OWN}"), &format!("around {}", own_command()));
    place.stdout("asyncq enqueue events own --key k1");
    books.acknowledged(1, "k1");
    place.stdout("asyncq -q process");
    judge(&books, &place.store()).is_clean();
    assert_eq!(place.query("SELECT state FROM asyncq_job"), "completed");
    effects_are_there_once(&place);
}

fn complete(job: &str) {
    let variable = |name: &str| std::env::var(name).unwrap();
    let mut store = Connection::open(variable("ASYNCQ_DB")).unwrap();
    store.busy_timeout(Duration::from_secs(60)).unwrap();
    let transaction = store.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    transaction.execute("INSERT INTO effect VALUES (?1)", [job]).unwrap();
    let complete = "UPDATE asyncq_job SET state = 'completed'
        WHERE id = ?1 AND attempt = ?2 AND token = ?3 AND state = 'processing'";
    let changed = transaction.execute(complete, [job, &variable("ASYNCQ_ATTEMPT"), &variable("ASYNCQ_TOKEN")]).unwrap();
    assert_eq!(changed, 1);
    transaction.commit().unwrap();
}
