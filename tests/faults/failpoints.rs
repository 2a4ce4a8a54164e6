//! Kills, and stops, at every step that the code names: of claim, spawn, finish, rescue, checkpoint and upgrade.
//!
//! The steps are read from the code, so that no new one is forgotten: each must be reached, or the test fails.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use rusqlite::Connection;

use crate::books::Books;
use crate::place::{Place, Running, runs, wait_until};
use crate::referee::judge;
use crate::scale::{figure, full, random};

/// How many runs there are at once.
const LANES: usize = 2;

/// A program that makes one nested call, at the step that is in a file, and tells its pid and how it ended.
const NESTED: &str = "#!/bin/sh
[ -e point ] || exit 0
ASYNCQ_FAILPOINT=$(cat point) ASYNCQ_FUTURE_SCHEMA=1 asyncq enqueue events quick &
rm point; echo $! > nested; wait $!; echo $? > met
";

/// Who meets its fate first knows a newer schema than the store has, and so does everybody after it.
const NEWER: &str = "ASYNCQ_FUTURE_SCHEMA=1";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// Every step that the code names, but those of backups and restores, which [`crate::backup`] tests.
fn steps() -> Vec<String> {
    let is_elsewhere = |step: &String| ["backup ", "restore "].iter().any(|verb| step.starts_with(verb));
    all_steps().into_iter().filter(|step| !is_elsewhere(step)).collect()
}

/// Every step that the code names.
pub fn all_steps() -> Vec<String> {
    let mut steps = Vec::new();
    for path in sources(&root().join("src")).iter().filter(|path| !path.ends_with("failpoint.rs")) {
        let source = fs::read_to_string(path).unwrap();
        let calls: Vec<&str> = source.split("reached(").skip(1).collect();
        let names = calls.iter().filter_map(|call| call.strip_prefix('"')?.split('"').next());
        let before = steps.len();
        steps.extend(names.map(str::to_owned));
        assert_eq!(steps.len() - before, calls.len(), "{} names a step that cannot be read", path.display());
    }
    steps.sort();
    steps.dedup();
    steps
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Processor,
    Enqueuer,
    /// Who enqueues inside of a function.
    Nested,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Killed, or aborted, at the step itself.
    Kill,
    Abort,
    /// Stopped at the step, and then its supervisor killed, or both of them.
    KillSupervisor,
    KillBoth,
    /// Stopped at the step while another processor works, and let go on.
    Stop,
}

impl Fate {
    const ALL: [Fate; 5] = [Fate::Kill, Fate::Abort, Fate::KillSupervisor, Fate::KillBoth, Fate::Stop];

    fn action(self) -> &'static str {
        match self {
            Fate::Kill => "kill",
            Fate::Abort => "abort",
            Fate::KillSupervisor | Fate::KillBoth | Fate::Stop => "stop",
        }
    }
}

#[derive(Debug, Clone)]
struct Run {
    who: Who,
    fate: Fate,
    step: String,
    /// The how many-th time that it is there.
    time: usize,
}

/// Runs that differ by their time only; the first at which the step is not reached is the last.
type Runs = Vec<Run>;

/// A store with calls, some of them for a worker, of which some belong to dead processors, and its books.
struct Scene {
    place: Place,
    books: Books,
    /// Open while somebody meets its fate, so that there is a WAL to copy back.
    store: Connection,
    calls: usize,
}

impl Scene {
    /// `dead` processors have each left a call that runs; and one more, if there are any, one that has ended.
    fn new(dead: usize) -> Scene {
        let (place, books) = (Place::with_functions(&[]), Books::open());
        place.stdout("asyncq service set events --concurrency 8");
        for (name, how) in [("quick", "quick"), ("fails", "fail"), ("stays", "tree")] {
            books.function(&place, &format!("events {name}"), how);
        }
        books.worker(&place, "events slow", "65536", "");
        place.stdout("asyncq function set events fails --on-error events/quick");
        let store = Connection::open(place.store()).unwrap();
        store.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
        store.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
        let mut scene = Scene { place, books, store, calls: 0 };
        let mut processors = Vec::new();
        if dead > 0 {
            scene.call("quick", &[]);
            let noted = scene.place.start("env 'ASYNCQ_FAILPOINT=outcome noted=stop' asyncq -q process --max-jobs 1");
            wait_until("it has noted an outcome", || state(&noted.engine()) == Some(b'T'));
            processors.push(noted);
        }
        // Once there is a file of this name, what is started anew ends.
        let file = scene.place.at("grow");
        for _ in 0..dead {
            scene.call("stays", &["h", file.to_str().unwrap()]);
        }
        processors.extend((0..dead).map(|_| scene.place.start("asyncq -q process --max-jobs 1")));
        wait_until("they are at work", || scene.books.count("START") == processors.len());
        fs::write(&file, "").unwrap();
        wait_until("the daemons are there", || scene.books.count("GROWN") == dead);
        for processor in processors {
            kill(&[&processor.0.id().to_string(), &processor.engine()]);
        }
        scene.work();
        scene.schedules();
        scene
    }

    /// Schedules that have each one tick which is due.
    fn schedules(&self) {
        // As `asyncq schedule add` does, which would leave no WAL to copy back.
        let every = 3000 * 86_400_000_i64;
        for name in ["one", "two"] {
            let insert = "INSERT INTO asyncq_schedule (name, service, function, every, within, next_tick, created_at)
                SELECT ?1, 'events', 'quick', ?2, 10 * ?2, 1000 * unixepoch() / ?2 * ?2, 0";
            self.store.execute(insert, rusqlite::params![name, every]).unwrap();
        }
    }

    /// Some calls, large enough for a checkpoint.
    fn work(&mut self) {
        let large = "x".repeat(100_000);
        for _ in 0..3 {
            self.call("quick", &[&large]);
            self.call("quick", &[]);
            self.call("fails", &[]);
            self.call("slow", &[]);
        }
    }

    fn call(&mut self, function: &str, arguments: &[&str]) {
        let (key, arguments) = (self.next_key(), serde_json::to_string(arguments).unwrap());
        let insert = "INSERT INTO asyncq_job (service, function, args, key) VALUES ('events', ?1, ?2, ?3) RETURNING id";
        let id = self.store.query_row(insert, [function, &arguments, &key], |row| row.get(0)).unwrap();
        self.books.acknowledged(id, &key);
    }

    fn next_key(&mut self) -> String {
        self.calls += 1;
        format!("k{}", self.calls)
    }

    /// Says whether the step was reached.
    fn play(mut self, run: &Run) -> bool {
        let Run { who, step, time, fate } = run;
        let key = self.next_key();
        let command = match who {
            Who::Processor | Who::Nested => "asyncq -q process".to_owned(),
            Who::Enqueuer => enqueue(&key),
        };
        let point = format!("{step}:{time}={}", fate.action());
        let environment = match who {
            Who::Nested => self.nest(&point),
            _ => format!("'ASYNCQ_FAILPOINT={point}'"),
        };
        let victim = self.place.start(&format!("env {NEWER} {environment} {command}"));
        let (met, output) = self.meet(victim, *fate);
        let answered = output.status.success() && *who == Who::Enqueuer;
        let told = if answered { output } else { self.place.run(&format!("{NEWER} {}", enqueue(&key))) };
        assert!(told.status.success(), "{run:?}: {told:?}");
        self.books.acknowledged(String::from_utf8(told.stdout).unwrap().trim().parse().unwrap(), &key);
        if met {
            self.drain(run);
        }
        met
    }

    /// Enqueues a call that makes a nested one, which is to meet its fate there.
    fn nest(&mut self, point: &str) -> String {
        self.place.program("nest", NESTED);
        self.place.write("point", point);
        self.books.function(&self.place, "events nests", "around ./nest");
        self.call("nests", &[]);
        String::new()
    }

    /// Waits until the victim has met its fate, or has ended without.
    fn meet(&self, victim: Running, fate: Fate) -> (bool, Output) {
        if fate.action() != "stop" {
            let output = victim.wait();
            let told = String::from_utf8_lossy(&output.stderr).contains("the processor was ended by signal");
            // By a signal, as the shell tells it.
            let nested = self.place.read("met").trim().parse().is_ok_and(|code: u8| code > 128);
            return (told || nested || output.status.signal().is_some(), output);
        }
        let Some(stopped) = self.wait_until_stopped(&victim) else { return (false, victim.wait()) };
        let started = victim.0.id().to_string();
        match fate {
            Fate::KillSupervisor => kill(&[&started]),
            Fate::KillBoth => kill(&[&victim.engine(), &started]),
            _ => {
                let code = self.place.run(&format!("{NEWER} asyncq -q process --lock-timeout 200ms")).status.code();
                assert!([Some(0), Some(1), Some(75)].contains(&code), "beside a stopped one: {code:?}");
            }
        }
        // Nobody is there any more where both were killed.
        drop(Command::new("kill").args(["-CONT", &stopped]).output().unwrap());
        let output = victim.wait();
        wait_until("it has ended", || state(&stopped).is_none_or(|state| state == b'Z'));
        (true, output)
    }

    /// Waits until one of the processes has stopped, and gives which; none when they have ended instead.
    fn wait_until_stopped(&self, victim: &Running) -> Option<String> {
        let started = victim.0.id().to_string();
        let mut stopped = None;
        wait_until("it stops or ends", || {
            let nested = self.place.read("nested").trim().to_owned();
            stopped = [nested, victim.engine(), started.clone()].into_iter().find(|pid| state(pid) == Some(b'T'));
            stopped.is_some() || state(&started) == Some(b'Z')
        });
        stopped
    }

    /// Others take over; then nothing is open, and the books agree.
    fn drain(self, run: &Run) {
        let drained = self.place.run(&format!("{NEWER} asyncq -q process"));
        assert!([Some(0), Some(1)].contains(&drained.status.code()), "{run:?}: {drained:?}");
        let verdict = judge(&self.books, &self.place.store());
        assert!(verdict.violations.is_empty(), "{run:?}: {verdict:?}");
        let ticks =
            "SELECT (SELECT count(*) FROM asyncq_origin WHERE schedule IS NOT NULL) || (SELECT count(*) FROM asyncq_job WHERE os_user = '' AND parent IS NULL)
            || (SELECT sum(fired = 1 AND next_tick > last_tick) FROM asyncq_schedule)";
        assert_eq!(self.place.query(ticks), "222", "{run:?}: each tick makes one job");
        let hooks = "SELECT (SELECT count(*) FROM asyncq_origin WHERE hook = 'on_error')
            - (SELECT count(*) FROM asyncq_job WHERE function = 'fails' AND state = 'error')";
        assert_eq!(self.place.query(hooks), "0", "{run:?}: each failure calls its hook");
        let called = self.place.query("SELECT count(*) FROM asyncq_job WHERE immediate = 0 AND os_user IS NOT ''");
        assert_eq!(called, verdict.acknowledged.to_string(), "{run:?}");
        let left = "SELECT (SELECT count(*) FROM asyncq_processor) || (SELECT count(*) FROM asyncq_slot)
            || (SELECT count(*) FROM asyncq_job WHERE token IS NOT NULL)";
        assert_eq!(self.place.query(left), "000", "{run:?}: processors, slots, tokens");
    }
}

fn enqueue(key: &str) -> String {
    format!("asyncq enqueue --key {key} events quick")
}

/// Kills them, and waits until that has come about.
fn kill(pids: &[&str]) {
    // The second one may have followed the first by itself.
    let there = pids.iter().filter(|pid| !pid.is_empty());
    let _ = Command::new("kill").arg("-KILL").args(there).output().unwrap();
    wait_until("they are dead", || pids.iter().all(|pid| !runs(pid)));
}

fn state(pid: &str) -> Option<u8> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").map(|(_, after)| after.as_bytes()[0])
}

/// What is tried at each step.
fn all_runs(random: &mut fastrand::Rng) -> Vec<Runs> {
    let mut all = Vec::new();
    for step in steps() {
        let mut add = |who, fate, times: RangeInclusive<usize>| {
            all.push(times.map(|time| Run { who, fate, step: step.clone(), time }).collect());
        };
        if full() {
            for fate in (0..2).flat_map(|_| Fate::ALL) {
                add(Who::Processor, fate, 1..=10);
                add(Who::Enqueuer, fate, 1..=10);
                add(Who::Nested, fate, 1..=10);
            }
        } else {
            let fates = [Fate::Abort, Fate::KillSupervisor, Fate::KillBoth];
            let time = random.usize(1..3);
            add(Who::Processor, Fate::Kill, 1..=1);
            add(Who::Processor, Fate::Stop, 1..=1);
            add(Who::Processor, fates[random.usize(..fates.len())], time..=time);
            add(Who::Enqueuer, Fate::Kill, 1..=1);
            add(Who::Nested, Fate::ALL[random.usize(..Fate::ALL.len())], 1..=1);
        }
    }
    random.shuffle(&mut all);
    all
}

/// Plays it where it can happen: beside as many dead processors as the step is to be reached times, or in a place where
/// nobody was before.
fn play(run: &Run) -> bool {
    let dead = if run.who == Who::Processor { run.time.min(3) } else { 0 };
    dead > 0 && Scene::new(dead).play(run) || Scene::new(0).play(run)
}

#[test]
fn a_kill_or_stop_at_any_step_loses_nothing_and_runs_nothing_twice() {
    let name = "failpoints";
    let all = all_runs(&mut random(name));
    let queue = Mutex::new(all.iter());
    let met = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let next = || queue.lock().unwrap().next();
                for runs in std::iter::from_fn(next) {
                    let reached: Vec<&Run> = runs.iter().take_while(|run| play(run)).collect();
                    met.lock().unwrap().extend(reached);
                }
            });
        }
    });
    let met = met.into_inner().unwrap();
    let steps = steps();
    for step in &steps {
        let count = |fate| met.iter().filter(|run| run.step == *step && run.fate == fate).count();
        eprintln!("{step}: {:?}", Fate::ALL.map(|fate| (fate, count(fate))));
        for fate in [Fate::Kill, Fate::Stop] {
            assert!(count(fate) > 0, "nobody was at `{step}` to meet {fate:?}: this test must learn how to get there");
        }
    }
    let stops = met.iter().filter(|run| run.fate == Fate::Stop).count();
    figure(
        name,
        format!(
            "{} steps, {} kills and {stops} stops at them: 0 lost, 0 completed twice, 0 at once, nothing left open",
            steps.len(),
            met.len() - stops
        ),
    );
}

/// What may not be found in a release build.
fn names() -> Vec<String> {
    let variables = ["ASYNCQ_FAILPOINT", "ASYNCQ_FUTURE_SCHEMA", "asyncq_test_future"].map(str::to_owned);
    variables.into_iter().chain(steps()).collect()
}

fn found(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    names().into_iter().filter(|name| text.contains(name)).collect()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The whole program is only built at full size. Otherwise the one file is, by which every other one is bound: what it
/// does not offer to a release build, nobody can use there.
#[test]
fn a_release_build_has_no_failpoints() {
    let here = found(Path::new(env!("CARGO_BIN_EXE_asyncq")));
    assert!(here.contains(&names()[0]), "this build has them, and that can be seen: {here:?}");
    let cargo = Path::new(env!("CARGO"));
    let made = if full() {
        succeed(Command::new(cargo).args(["build", "--release", "--locked"]).current_dir(root()));
        root().join("target/release/asyncq")
    } else {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failpoint.o");
        let mut rustc = Command::new(cargo.with_file_name("rustc"));
        rustc.args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-Cdebug-assertions=off", "-o"]);
        succeed(rustc.arg(&made).arg(root().join("src/failpoint.rs")));
        made
    };
    assert_eq!(found(&made), [""; 0]);
}
