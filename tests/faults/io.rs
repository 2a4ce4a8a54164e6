//! Failing input and output: every open, write, sync and truncate on a store fails in its turn, once and for ever. Nothing
//! is acknowledged that is not there, nothing fails in silence, and once the fault ends all is well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::place::{Place, Running};
use crate::scale;
use crate::shim::{Call, Error, Fault, Shim};

/// A command, the store that it is given, and how to see that it did what it says.
struct Scenario {
    name: &'static str,
    /// What makes the store, in a shell, with `$ASYNCQ_DB` set.
    before: &'static str,
    command: &'static str,
    /// Gives 1 where the command has done its work.
    done: &'static str,
}

const FUNCTIONS: &str = "asyncq service add events --concurrency 2
    for f in well fails prints gives calls; do asyncq function add events $f -- ./$f; done";

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "init", before: "", command: "init", done: "SELECT count(*) FROM asyncq_schema" },
    Scenario {
        name: "service add",
        before: "asyncq init",
        command: "service add more",
        done: "SELECT count(*) FROM asyncq_service WHERE name = 'more'",
    },
    Scenario {
        name: "function add",
        before: "asyncq service add events",
        command: "function add events more -- ./well",
        done: "SELECT count(*) FROM asyncq_function WHERE name = 'more'",
    },
    Scenario {
        name: "enqueue",
        before: "",
        command: "enqueue events well 7",
        done: "SELECT count(*) FROM asyncq_job WHERE args = '[7]'",
    },
    Scenario {
        name: "enqueue a large call",
        before: "",
        command: "enqueue events well $(head -c 120000 /dev/zero | tr '\\0' x) $(head -c 120000 /dev/zero | tr '\\0' y)",
        done: "SELECT count(*) FROM asyncq_large WHERE length(args) > 240000",
    },
    Scenario {
        name: "enqueue into an application's database",
        before: "mv $ASYNCQ_DB old; sqlite3 $ASYNCQ_DB 'CREATE TABLE t (x)'; asyncq init; FUNCTIONS",
        command: "enqueue events well 7",
        done: "SELECT count(*) FROM asyncq_job WHERE args = '[7]'",
    },
    Scenario {
        name: "job retry",
        before: "asyncq enqueue events fails; asyncq process; :",
        command: "job retry 1",
        done: "SELECT count(*) FROM asyncq_job WHERE state = 'queued'",
    },
    Scenario {
        name: "job cancel",
        before: "asyncq enqueue events well",
        command: "job cancel 1",
        done: "SELECT count(*) FROM asyncq_job WHERE state = 'cancelled'",
    },
    Scenario {
        name: "job clean",
        before: "for i in 1 2 3; do asyncq enqueue events prints; done; asyncq process",
        command: "job clean",
        done: "SELECT count(*) = 0 FROM asyncq_job",
    },
];

/// What came of the runs of one scenario.
#[derive(Debug, Default)]
struct AttemptCounts {
    runs: u32,
    codes: BTreeMap<i32, u32>,
    told: u32,
    /// Refused, and done all the same.
    unsure: u32,
    harmless: BTreeMap<String, u32>,
    longest: Duration,
    /// What must not be.
    wrong: Vec<String>,
}

/// A place with a store that is copied for each run.
struct Bench {
    place: Place,
    scenario: &'static Scenario,
}

impl Bench {
    fn new(scenario: &'static Scenario) -> Bench {
        let mut place = Place::new();
        place.set("ASYNCQ_DB", place.at("data/q.db").to_str().unwrap());
        for (name, script) in [
            ("well", ":"),
            ("fails", "exit 3"),
            ("prints", "head -c 300000 /dev/zero | tr '\\0' x"),
            ("gives", "echo '[7]' > $ASYNCQ_RESULT"),
            ("calls", "asyncq enqueue events well"),
        ] {
            place.program(name, &format!("#!/bin/sh\necho $ASYNCQ_JOB >> {}/runs\n{script}\n", place.path().display()));
        }
        fs::create_dir(place.at("data")).unwrap();
        let adds = ["init", "service add", "function add"].contains(&scenario.name);
        let functions = if adds { ":" } else { FUNCTIONS };
        let before = scenario.before.replace("FUNCTIONS", FUNCTIONS);
        place.stdout(&format!("{functions}\n{before}"));
        fs::rename(place.at("data"), place.at("template")).unwrap();
        Bench { place, scenario }
    }

    fn store(&self) -> PathBuf {
        self.place.at("data/q.db")
    }

    fn fresh(&self) {
        let _ = fs::remove_dir_all(self.place.at("data"));
        for name in ["runs", "said"] {
            let _ = fs::remove_file(self.place.at(name));
        }
        copy(&self.place.at("template"), &self.place.at("data"));
    }

    /// Whether the store has a WAL from the start that somebody wrote to, and whose name the folder knows therefore.
    fn named(&self) -> bool {
        fs::metadata(self.place.at("template/q.db-wal")).is_ok_and(|wal| wal.len() > 0)
    }

    fn shim(&self, fault: Fault) -> Shim {
        Shim::new(&self.place.at("data"), self.place.path(), fault)
    }

    fn run(&self, shim: &Shim) -> (Output, Duration) {
        let mut command = self.place.command(&format!("exec asyncq {}", self.scenario.command));
        shim.preload(&mut command);
        let began = Instant::now();
        let output = command.stdout(Stdio::piped()).output().unwrap();
        (output, began.elapsed())
    }

    /// Asks the store, without leaving a trace in it.
    fn ask(&self, sql: &str) -> i64 {
        let Ok(store) = Connection::open_with_flags(self.store(), OpenFlags::SQLITE_OPEN_READ_WRITE) else { return 0 };
        store.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        store.query_row(sql, [], |row| row.get(0)).unwrap_or(0)
    }

    /// How many calls there are that can fail.
    fn count(&self, error: Error) -> u32 {
        self.fresh();
        let shim = self.shim(Fault { error, first: 0, last: 0 });
        let (output, _) = self.run(&shim);
        assert!([Some(0), Some(1)].contains(&output.status.code()), "{output:?}");
        assert_eq!(self.ask(self.scenario.done), 1, "{}", self.scenario.name);
        shim.count()
    }

    /// One run with a fault, and everything that must hold then.
    fn judge(&self, fault: Fault, tally: &mut AttemptCounts) {
        self.fresh();
        let before = self.ask(self.scenario.done);
        let shim = self.shim(fault);
        let (output, took) = self.run(&shim);
        let calls = shim.calls();
        let about = format!("{} with {fault:?}: {output:?}\n{}", self.scenario.name, show(&calls));
        tally.runs += 1;
        tally.longest = tally.longest.max(took);
        let mut wrong = |what: &str| tally.wrong.push(format!("{what}: {about}"));
        if took >= limit(Duration::from_secs(2)) {
            wrong("too long");
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().unwrap_or(-1);
        assert_eq!(before, 0, "{about}");
        let form = || {
            let lines: Vec<&str> = stderr.lines().collect();
            lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: ")
        };
        let done = self.ask(self.scenario.done) == 1;
        match code {
            0 if !done => wrong("a false acknowledgement"),
            0 => {}
            // Others would acknowledge what follows it.
            74 | 75 if done && unsynced(&calls) && fault.first == fault.last => wrong("what was not synced is left"),
            74 | 75 if form() => tally.unsure += u32::from(done),
            _ => wrong("another end"),
        }
        if code == 0 && shim.fired() > 0 {
            if told(&stderr) {
                tally.told += 1;
            } else if let Some(why) = harmless(fault.error, self.named(), &calls) {
                *tally.harmless.entry(why).or_default() += 1;
            } else {
                wrong("swallowed");
            }
        }
        *tally.codes.entry(code).or_default() += 1;
        self.recover(&about);
    }

    /// The fault is over: the same command works now, unless it did, and whatever is queued is drained.
    fn recover(&self, about: &str) {
        let damaged =
            self.place.run("test ! -e $ASYNCQ_DB || test $(sqlite3 $ASYNCQ_DB 'PRAGMA integrity_check') = ok");
        assert!(damaged.status.success(), "{about}{damaged:?}");
        if self.ask(self.scenario.done) != 1 {
            let again = self.place.run(&format!("asyncq {}", self.scenario.command));
            assert!(again.status.success() && self.ask(self.scenario.done) == 1, "{about}{again:?}");
        }
        let process = self.place.run("asyncq process");
        assert!([Some(0), Some(1)].contains(&process.status.code()), "{about}{process:?}");
        assert_eq!(
            self.ask("SELECT count(*) = 0 FROM asyncq_job WHERE state NOT IN ('completed', 'error', 'cancelled')"),
            1
        );
    }
}

/// How long a run may take: what is said at full size, where nobody else is at work; small runs only find what hangs.
fn limit(time: Duration) -> Duration {
    if scale::full() { time } else { Duration::from_secs(30) }
}

fn show(calls: &[Call]) -> String {
    let line = |call: &Call| format!("{} {} {}", if call.failed { "!" } else { " " }, call.what, call.path);
    calls.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Whether the WAL was not synced.
fn unsynced(calls: &[Call]) -> bool {
    calls.iter().any(|call| call.failed && call.what == "sync" && call.path.ends_with("-wal"))
}

/// Whether it is one of the files in which SQLite keeps a database.
fn is_database(path: &str) -> bool {
    ["q.db", "q.db-wal", "q.db-journal"].contains(&path)
}

/// Whether it notes which call has begun, or that it is over.
fn is_mark(call: &Call) -> bool {
    call.what == "write" && call.path.ends_with("/lock")
}

/// Why it does no harm that calls failed of which a command that succeeded says nothing.
fn harmless(error: Error, named: bool, calls: &[Call]) -> Option<String> {
    let failed: Vec<&Call> = calls.iter().filter(|call| call.failed).collect();
    if error == Error::Eintr || error == Error::Short {
        return Some("tried again at once".to_owned());
    }
    // A commit that finds no space has the WAL copied, and is tried again.
    if error == Error::Enospc && failed.iter().all(|call| call.what == "write" && is_database(&call.path)) {
        return Some("room was made, and it was done after all".to_owned());
    }
    // A crash might not be counted, which has to be told.
    if failed.iter().any(|call| is_mark(call)) {
        return None;
    }
    let first = calls.iter().position(|call| call.failed)?;
    if failed.iter().all(|call| call.what == "open" && call.path.ends_with("/.line")) {
        return Some("writers do not wait in line".to_owned());
    }
    if failed.iter().all(|call| call.path.contains("-asyncq")) {
        let what = match failed[0] {
            Call { path, .. } if path.ends_with("(deleted)") => "less of the output is kept, which the log tells",
            _ => "the next processor removes a folder, or less of the output is kept",
        };
        return Some(what.to_owned());
    }
    let last = calls.iter().rposition(|call| call.failed)?;
    let synced = |calls: &[Call], what: fn(&str) -> bool| {
        calls.iter().any(|call| call.what == "sync" && !call.failed && what(&call.path))
    };
    let draft = |path: &str| Path::new(path).extension() == Some("new".as_ref());
    let folder = str::is_empty;
    // Before a draft gets its name, nobody minds in which state a power cut leaves it and the folder.
    let published = synced(&calls[last..], draft) && synced(&calls[last..], folder);
    let reads = |call: &Call| call.what == "open" && call.path == "q.db";
    if failed.iter().all(|call| reads(call)) && calls[last..].iter().skip(1).any(reads) {
        return Some("SQLite opens the store for reading, and nothing more was to be written".to_owned());
    }
    if failed.iter().any(|call| !call.path.is_empty()) {
        return None;
    }
    if named {
        return Some("SQLite syncs the folder, which knows the WAL since it has content".to_owned());
    }
    if published || synced(&calls[..first], folder) {
        return Some("SQLite syncs the folder, which asyncq does itself".to_owned());
    }
    None
}

fn every_fault(scenario: &'static Scenario) {
    let bench = Bench::new(scenario);
    let mut tally = AttemptCounts::default();
    let mut random = scale::random(scenario.name);
    for error in [Error::Eio, Error::Enospc, Error::Eintr, Error::Short] {
        let count = bench.count(error);
        let stride = scale::many(1, (count as usize).div_ceil(5));
        for at in (1..=count).skip(random.usize(..stride)).step_by(stride) {
            bench.judge(Fault::once(error, at), &mut tally);
            match error {
                // Nobody is interrupted for ever.
                Error::Eintr => bench.judge(Fault { error, first: at, last: at + 4 }, &mut tally),
                _ => bench.judge(Fault::for_ever(error, at), &mut tally),
            }
        }
    }
    let wrong = std::mem::take(&mut tally.wrong);
    scale::figure("failing I/O", format!("{}: {tally:?}", scenario.name));
    assert!(wrong.is_empty(), "{} of {} runs went wrong: {}", wrong.len(), tally.runs, wrong.join("\n\n"));
}

#[test]
fn a_command_whose_disk_fails_says_so_and_acknowledges_nothing() {
    for scenario in SCENARIOS {
        every_fault(scenario);
    }
}

const DRAIN: Scenario = Scenario {
    name: "process",
    before: "for f in well fails prints gives calls well; do asyncq enqueue events $f; done",
    command: "process",
    done: "SELECT count(*) = 6 AND max(state = 'error' AND id = 2) FROM asyncq_job
        WHERE state IN ('completed', 'error') AND id <= 6",
};

/// How a processor ended whose disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// By itself, as if nothing had been.
    Done,
    /// By itself, with an error.
    GaveUp,
    /// It kept trying, and ended well as soon as the disk did what it should.
    Recovered,
    /// It kept trying, and ended when it was told to: once,
    Stopped,
    /// or once more, which gives up what it tried to record.
    GaveIn,
}

/// A processor under a fault.
struct Drained {
    end: End,
    stderr: String,
    /// Since it was begun, or since the disk was mended, or since it was last told to stop.
    took: Duration,
    calls: Vec<Call>,
}

/// What a processor that keeps trying is helped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Help {
    Mend,
    Stop,
    /// The second signal.
    StopNow,
}

/// How long after the first signal the second one comes: longer than what counts as one (docs/store.md), and than it
/// takes to end for one that needs no second.
const SECOND_SIGNAL: Duration = Duration::from_millis(700);

impl std::fmt::Display for Drained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} after {:?}: {}\n{}", self.end, self.took, self.stderr, show(&self.calls))
    }
}

impl Bench {
    fn drain(&self, fault: Fault, stop: bool) -> Result<Drained, String> {
        self.fresh();
        let shim = self.shim(fault);
        let mut command = self.place.command("exec asyncq process > /dev/null 2> said");
        shim.preload(&mut command);
        let began = Instant::now();
        let mut process = Running(command.spawn().unwrap());
        let mut helped: Option<(Help, Instant)> = None;
        let status = loop {
            if let Some(status) = process.0.try_wait().unwrap() {
                break status;
            }
            let help = match helped {
                None if fault.last == u32::MAX && goes_on(&self.place.read("said")) => {
                    Some(if stop { Help::Stop } else { Help::Mend })
                }
                Some((Help::Stop, at)) if at.elapsed() >= SECOND_SIGNAL => Some(Help::StopNow),
                _ => None,
            };
            if let Some(help) = help {
                match help {
                    Help::Mend => shim.heal(),
                    Help::Stop | Help::StopNow => process.signal("TERM"),
                }
                helped = Some((help, Instant::now()));
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err(format!("never ended: {}", self.place.read("said")));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let took = helped.map_or(began, |(_, at)| at).elapsed();
        let stderr = self.place.read("said");
        let end = match (status.code(), helped.map(|(help, _)| help)) {
            (Some(0 | 1), None) => End::Done,
            (Some(0 | 1), Some(Help::Mend)) => End::Recovered,
            (Some(0 | 1 | 74 | 75), Some(Help::Stop)) => End::Stopped,
            (Some(74 | 75), Some(Help::StopNow)) => End::GaveIn,
            (Some(74 | 75), None) => End::GaveUp,
            _ => return Err(format!("another end: {status}: {stderr}")),
        };
        Ok(Drained { end, stderr, took, calls: shim.calls() })
    }

    /// What is wrong with a drain, if anything is.
    fn flaw(&self, fault: Fault, drained: &Drained) -> Option<&'static str> {
        let Drained { end, stderr, took, calls } = drained;
        let done = self.ask(self.scenario.done) == 1;
        let error = stderr.lines().rev().take(2).any(|line| line.starts_with("error: "));
        match end {
            _ if *took >= limit(Duration::from_secs(2)) => return Some("too long"),
            End::Done | End::Recovered if !done => return Some("a false end"),
            End::GaveUp | End::GaveIn if !error => return Some("gave up without a word"),
            End::GaveIn if given_up(stderr).is_empty() => return Some("does not tell whose outcomes it gives up"),
            End::Done if calls.iter().all(|call| !call.failed) || told(stderr) => {}
            End::Done if harmless(fault.error, self.named(), calls).is_none() => return Some("swallowed"),
            _ => {}
        }
        let lasting = matches!(fault.error, Error::Eio | Error::Enospc);
        if lasting && calls.iter().any(|call| call.failed && is_mark(call)) && !stderr.contains(NOT_MARKED) {
            return Some("does not tell that a crash may not be counted");
        }
        // A call may fail with the disk, but not in silence: one that cannot make its nested call, or whose result
        // cannot be read.
        let mut failed =
            (1..=6).filter(|job| self.ask(&format!("SELECT state = 'error' FROM asyncq_job WHERE id = {job}")) == 1);
        let given_up = given_up(stderr);
        let told = |job: i64| stderr.contains(&format!("job {job} (")) || given_up.contains(&&*job.to_string());
        if failed.any(|job| !told(job)) {
            return Some("failed in silence");
        }
        let process = self.place.run("asyncq process");
        if !process.status.success() && process.status.code() != Some(1) || self.ask(self.scenario.done) != 1 {
            return Some("does not recover");
        }
        let swept = "nothing() { test -z \"$(ls data/q.db-asyncq)\"; }
            for try in 1 2 3; do nothing || { asyncq enqueue events well; asyncq process; }; done; nothing";
        if !self.place.run(swept).status.success() {
            return Some("leaves something beside the store");
        }
        let kept = "SELECT dropped + coalesce(length(log), 0) FROM asyncq_attempt WHERE job = 3 ORDER BY number DESC";
        if self.ask("SELECT state = 'completed' FROM asyncq_job WHERE id = 3") == 1 && self.ask(kept) != 300_000 {
            return Some("loses output in silence");
        }
        let runs = self.place.read("runs");
        let count = |job: &str| runs.lines().filter(|line| *line == job).count();
        let most = ["1", "2", "3", "4", "5", "6"].map(count).into_iter().max();
        if most > Some(1) && *end != End::GaveIn {
            return Some("ran twice");
        }
        None
    }
}

/// Whether a processor tells that it waits for a disk that works.
fn goes_on(stderr: &str) -> bool {
    ["; trying again", "; no job starts until"].iter().any(|words| stderr.contains(words))
}

/// The jobs whose outcomes it gives up.
fn given_up(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines().filter_map(|line| {
        let rest = line.strip_prefix("asyncq: could not record the outcome")?;
        rest.strip_prefix("s of jobs ").or_else(|| rest.strip_prefix(" of job "))
    });
    lines.flat_map(|line| line.split(';').next().unwrap().split(", ")).collect()
}

/// What a processor tells that cannot write a mark.
const NOT_MARKED: &str = "cannot record which calls have begun: ";

fn told(stderr: &str) -> bool {
    ["failed", "no space", "cannot be synced", "trying again", NOT_MARKED].iter().any(|word| stderr.contains(word))
}

#[test]
fn a_processor_whose_disk_fails_loses_no_outcome_and_runs_no_call_twice() {
    let bench = Bench::new(&DRAIN);
    let mut random = scale::random("process");
    let mut ends: BTreeMap<End, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for error in [Error::Eio, Error::Enospc, Error::Eintr, Error::Short] {
        let count = bench.count(error);
        let stride = scale::many(1, (count as usize).div_ceil(8));
        for at in (1..=count).skip(random.usize(..stride)).step_by(stride) {
            let for_ever = if error == Error::Eintr {
                Fault { error, first: at, last: at + 4 }
            } else {
                Fault::for_ever(error, at)
            };
            for fault in [Fault::once(error, at), for_ever] {
                match bench.drain(fault, at % 3 == 0) {
                    Err(flaw) => wrong.push(format!("{fault:?}: {flaw}")),
                    Ok(drained) => {
                        *ends.entry(drained.end).or_default() += 1;
                        let flaw = bench.flaw(fault, &drained);
                        wrong.extend(flaw.map(|flaw| format!("{fault:?}: {flaw}: {drained}")));
                    }
                }
            }
        }
    }
    scale::figure("failing I/O", format!("process: {ends:?}"));
    assert!(wrong.is_empty(), "{} runs went wrong: {}", wrong.len(), wrong.join("\n\n"));
}

const ONE_CALL: Scenario = Scenario {
    name: "process one call",
    before: "asyncq enqueue events well",
    command: "process",
    done: "SELECT count(*) = 1 FROM asyncq_job WHERE state = 'completed'",
};

#[test]
fn a_processor_that_cannot_write_down_which_calls_run_runs_them_and_says_so() {
    let bench = Bench::new(&ONE_CALL);
    bench.fresh();
    let shim = bench.shim(Fault { error: Error::Eio, first: 0, last: 0 });
    bench.run(&shim);
    let calls = shim.calls();
    let marks: Vec<u32> = calls.iter().zip(1..).filter(|(call, _)| is_mark(call)).map(|(_, number)| number).collect();
    assert_eq!(marks.len(), 2, "{}", show(&calls));
    for (error, at) in
        [Error::Eio, Error::Enospc].into_iter().flat_map(|error| marks.iter().map(move |at| (error, *at)))
    {
        // Two threads are at work, so that another call may have this number.
        let hit = |drained: &Drained| drained.calls.iter().any(|call| call.failed && is_mark(call));
        let drained = (0..10).map(|_| bench.drain(Fault::once(error, at), false).unwrap()).find(hit);
        let drained = drained.expect("a mark that cannot be written");
        assert_eq!(drained.stderr.matches(NOT_MARKED).count(), 1, "{drained}");
        assert_eq!((drained.end, bench.ask(bench.scenario.done)), (End::Done, 1), "{drained}");
    }
}
