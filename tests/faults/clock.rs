//! The clock of the machine is set, stops, or runs wild while processors work.
//!
//! What is early is told by the clock that processors see: a call must not begin before its moment by that clock. Only
//! the clock that people set is changed; the one that counts since the machine was started never is, on any machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asyncq::domain::time::Timestamp;
use asyncq::domain::timetable::{Rule, Timetable};
use rusqlite::{Connection, OptionalExtension};

use crate::books::{Books, compiled};
use crate::place::{Place, wait_until};
use crate::referee::judge;
use crate::scale;

const PROCESSORS: usize = 3;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const TEN_YEARS: i64 = 3652 * 24 * HOUR;

/// How early a call may begin.
const EARLY: i64 = SECOND;

/// From a moment on, the clock shows another one, and goes faster. All in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Setting {
    from: i64,
    shows: i64,
    speed: i64,
}

impl Setting {
    fn at(self, moment: i64) -> i64 {
        self.shows + (moment - self.from) * self.speed
    }
}

/// The clock that everything in a place sees, but for the functions.
pub struct Clock {
    file: File,
    path: PathBuf,
    settings: Vec<Setting>,
}

impl Clock {
    /// One that shows what is true so far, in a file.
    pub fn at(path: &Path) -> Clock {
        fs::write(path, [0; 4096]).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let mut clock = Clock { file, path: path.to_owned(), settings: Vec::new() };
        clock.set(0, 1);
        clock
    }

    /// Sets it so far ahead of what is true, and so fast.
    pub fn set(&mut self, ahead: i64, speed: i64) {
        let number = self.settings.len() as u64;
        let from = truth();
        self.settings.push(Setting { from, shows: from + ahead, speed });
        for (at, value) in (0..).zip([from, from + ahead, speed]) {
            self.file.write_all_at(&value.to_ne_bytes(), 8 * (1 + 3 * number + at)).unwrap();
        }
        self.file.write_all_at(&number.to_ne_bytes(), 0).unwrap();
    }

    fn now(&self) -> i64 {
        self.settings.last().unwrap().at(truth())
    }

    /// The latest that it has shown between two moments.
    fn latest(&self, from: i64, until: i64) -> i64 {
        let ends = self.settings.iter().skip(1).map(|next| next.from).chain([i64::MAX]);
        let held = self.settings.iter().zip(ends).filter(|(setting, end)| setting.from <= until && *end >= from);
        held.map(|(setting, end)| setting.at(until.min(end))).max().unwrap()
    }
}

pub fn truth() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

/// A place whose processors, and clients, see a clock of its own.
struct Watch {
    place: Place,
    books: Books,
    over: AtomicBool,
}

impl Watch {
    fn new() -> (Watch, Clock) {
        let (mut place, books) = (Place::new(), Books::open());
        let clock = Clock::at(&books.at("clock"));
        place.set("CLOCK", clock.path.to_str().unwrap());
        place.set("LD_PRELOAD", compiled("clock", &["-shared", "-fPIC"]).to_str().unwrap());
        place.session("$ asyncq -q service add events --concurrency 6");
        for (name, how) in [("quick", "quick"), ("slow", "sleep 30"), ("meet", "conflict")] {
            // Functions keep their books by the true clock.
            books.function(&place, &format!("events {name} --env LD_PRELOAD="), how);
        }
        (Watch { place, books, over: AtomicBool::new(false) }, clock)
    }

    fn keep_processing(&self) {
        self.keep("--wait-retries");
    }

    /// Runs one processor after the other, with these options.
    fn keep(&self, options: &str) {
        while !self.over.load(Ordering::SeqCst) {
            let mut command = self.place.command(&format!("exec asyncq -q process {options}"));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes calls, one in five of them for later; gives when that was. The client has the same clock, as it is the one that
    /// says when a call was made.
    fn call(&self, count: usize, clock: &Clock, random: &mut fastrand::Rng) -> i64 {
        let made = truth();
        let now = clock.now() / 1000;
        let mut script = ".timeout 60000\nBEGIN IMMEDIATE;\n".to_owned();
        let keys: Vec<String> = (0..count).map(|_| format!("k{:x}", random.u64(..))).collect();
        for key in &keys {
            let later = if random.u8(..5) == 0 { random.i64(1000..3000) } else { 0 };
            let function = if later > 0 { "quick" } else { random.choice(["quick", "slow", "slow", "meet"]).unwrap() };
            let run_at = now + later;
            script += &format!(
                "INSERT INTO asyncq_job (service, function, key, run_at)
                VALUES ('events', '{function}', '{key}', {run_at}) RETURNING id;\n"
            );
        }
        script += "COMMIT;\n";
        self.place.write("calls.sql", &script);
        let ids = self.place.stdout("sqlite3 -bail .local/share/asyncq/queue.db < calls.sql");
        assert_eq!(ids.lines().count(), count, "{ids}");
        for (id, key) in ids.lines().zip(&keys) {
            self.books.acknowledged(id.parse().unwrap(), key);
        }
        made
    }

    fn none_is(&self, condition: &str) -> bool {
        self.place.query(&format!("SELECT count(*) FROM asyncq_job WHERE {condition}")) == "0"
    }

    /// How much too early any call began, at most. What has been due once stays so, whatever the clock shows then. `made` is
    /// when each batch of calls was. The store knows when a job was due latest: earlier attempts are not judged.
    fn earliest(&self, clock: &Clock, made: &[i64]) -> i64 {
        let store = Connection::open(self.place.store()).unwrap();
        let mut due = store.prepare("SELECT run_at * 1000 FROM asyncq_job WHERE id = ?1 AND attempt = ?2").unwrap();
        let lines = self.books.lines();
        let put_back: BTreeMap<i64, i64> =
            lines.iter().filter(|line| line.word == "CONFLICT").map(|line| (line.job, line.time)).collect();
        let batch = lines.iter().map(|line| line.job).max().unwrap() / i64::try_from(made.len()).unwrap();
        let early = lines.iter().filter(|line| line.word == "START").filter_map(|line| {
            let due: i64 = due.query_row([line.job, line.attempt], |row| row.get(0)).optional().unwrap()?;
            let made = made[usize::try_from((line.job - 1) / batch).unwrap()];
            Some(due - clock.latest(*put_back.get(&line.job).unwrap_or(&made), line.time))
        });
        early.max().unwrap()
    }
}

/// Ends what waits for it.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Shows another clock in the middle of a drain, and later the true one again. Until then everything is done that this
/// clock lets become due; and in the end all.
fn withstands(name: &str, ahead: i64, speed: i64) {
    let (watch, mut clock) = Watch::new();
    let (mut random, count) = (scale::random(name), scale::many(1000, 60));
    let mut made = vec![watch.call(count, &clock, &mut random)];
    std::thread::scope(|scope| {
        let _end = End(&watch.over);
        for _ in 0..PROCESSORS {
            scope.spawn(|| watch.keep_processing());
        }
        wait_until("some have begun", || watch.books.count("START") > count / 3);
        clock.set(ahead, speed);
        made.push(watch.call(count, &clock, &mut random));
        let soon = if speed == 0 { 0 } else { clock.now() / 1000 + 10_000 };
        let left = format!(
            "state IN ('queued', 'processing') OR state = 'delayed' AND (run_at < {soon} OR attempt > 0 AND {speed} > 0)"
        );
        wait_until("what this clock lets become due is done", || watch.none_is(&left));
        clock.set(0, 1);
        made.push(watch.call(count, &clock, &mut random));
        wait_until("all is done", || watch.none_is("state IN ('queued', 'processing', 'delayed')"));
    });
    let (verdict, early) = (judge(&watch.books, &watch.place.store()), watch.earliest(&clock, &made));
    scale::figure(name, format!("{verdict}; the earliest call began {} ms too early", early.max(0) / 1000));
    verdict.is_clean();
    assert_eq!((verdict.acknowledged, verdict.extra_starts, verdict.crashes), (3 * count, 0, 0));
    assert!(early <= EARLY, "{early} microseconds");
}

#[test]
fn a_clock_set_ten_years_ahead_loses_and_repeats_nothing() {
    withstands("clock ten years ahead", TEN_YEARS, 1);
}

#[test]
fn a_clock_set_ten_years_back_loses_repeats_and_delays_nothing() {
    withstands("clock ten years back", -TEN_YEARS, 1);
}

#[test]
fn a_clock_set_an_hour_back_loses_repeats_and_delays_nothing() {
    withstands("clock an hour back", -HOUR, 1);
}

#[test]
fn a_clock_that_stands_still_loses_and_repeats_nothing() {
    withstands("clock frozen", 0, 0);
}

#[test]
fn a_clock_a_hundred_times_too_fast_loses_and_repeats_nothing() {
    withstands("clock a hundred times faster", 0, 100);
}

/// The ticks that have jobs, each with the moment when its job began, in milliseconds since 1970.
fn ticked(watch: &Watch, schedule: &str) -> Vec<(i64, i64)> {
    let store = Connection::open(watch.place.store()).unwrap();
    let sql = "SELECT o.tick, j.started_at FROM asyncq_origin o JOIN asyncq_job j ON j.id = o.job
        WHERE o.schedule = ?1 AND j.state = 'completed' ORDER BY o.tick";
    let mut ticks = store.prepare(sql).unwrap();
    let rows = ticks.query_map([schedule], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Days on which clocks change, from an hour before, UTC.
const CHANGES: [(&str, &str); 4] = [
    ("Europe/Berlin", "2026-10-24T23:10:00Z"),
    ("Europe/Berlin", "2027-03-28T00:10:00Z"),
    ("America/New_York", "2026-11-01T04:10:00Z"),
    ("America/New_York", "2027-03-14T06:10:00Z"),
];

#[test]
fn schedules_tick_once_each_through_changes_of_clocks() {
    let patterns = ["*/10 * * * *", "30 2 * * *", "0,30 1,2,3 * * *", "15 */1 * * *"];
    let (mut all, mut late) = (0, 0);
    for (zone, begins) in &CHANGES[..scale::many(CHANGES.len(), 1)] {
        let (watch, mut clock) = Watch::new();
        let begins = Timestamp::parse(begins).unwrap();
        // An hour in less than half a second.
        clock.set(begins.0 * 1000 - truth(), 9000);
        for (number, pattern) in patterns.iter().enumerate() {
            let rule = format!("--cron '{pattern}' --tz {zone} --missed all");
            watch.place.stdout(&format!("asyncq schedule add s{number} {rule} events quick"));
        }
        let added = Timestamp(clock.now() / 1000);
        let ends = Timestamp(begins.0 + 3 * 3_600_000 + 1_800_000);
        std::thread::scope(|scope| {
            let _end = End(&watch.over);
            for _ in 0..PROCESSORS {
                scope.spawn(|| watch.keep(""));
            }
            let done = format!("next_tick > {}", ends.0);
            let open = format!("SELECT count(*) FROM asyncq_schedule WHERE NOT {done}");
            wait_until("the clock has gone on", || watch.place.query(&open) == "0");
            // From here on, as fast as any.
            let ahead = clock.now() - truth();
            clock.set(ahead, 1);
        });
        watch.place.stdout("asyncq schedule pause s0 s1 s2 s3 && asyncq -q process");
        for (number, pattern) in patterns.iter().enumerate() {
            let table = Timetable::new(Rule::cron(pattern, zone).unwrap(), None, Some(ends)).unwrap();
            let ticks = ticked(&watch, &format!("s{number}"));
            assert!(ticks.iter().all(|(tick, began)| began >= tick), "{pattern} in {zone} too early: {ticks:?}");
            late = ticks.iter().map(|(tick, began)| began - tick).max().unwrap_or(0).max(late);
            let ticks: Vec<i64> = ticks.iter().map(|(tick, _)| *tick).filter(|tick| *tick < ends.0).collect();
            // It was added a moment before or after a tick.
            let expected: Vec<i64> = table.ticks(begins).map(|tick| tick.0).collect();
            let first = expected.iter().position(|tick| *tick > added.0).unwrap_or(expected.len());
            assert!(
                expected.ends_with(&ticks) && ticks.len() + first >= expected.len(),
                "{pattern} in {zone}: {ticks:?}"
            );
            all += ticks.len();
        }
    }
    scale::figure("changes of clocks", format!("{all} ticks: each one job, 0 early, at most {} s late", late / 1000));
}

#[test]
fn no_schedule_sleeps_when_the_clock_is_right_again() {
    let clocks = [("ten years", TEN_YEARS), ("an hour back", -HOUR), ("an hour", HOUR), ("ten years back", -TEN_YEARS)];
    for (name, ahead) in clocks.into_iter().take(scale::many(4, 1)) {
        let (watch, mut clock) = Watch::new();
        watch.place.stdout("asyncq schedule add each --every 1s events quick");
        let fired = || -> u64 { watch.place.query("SELECT fired FROM asyncq_schedule").parse().unwrap() };
        std::thread::scope(|scope| {
            let _end = End(&watch.over);
            scope.spawn(|| watch.keep(""));
            wait_until("it ticks", || fired() > 0);
            clock.set(ahead, 1);
            // Back by an hour, it waits until the clock passes its next tick.
            if ahead != -HOUR {
                let before = fired();
                wait_until("it ticks with a wrong clock", || fired() > before);
            }
            clock.set(0, 1);
            let next = || watch.place.query("SELECT next_tick FROM asyncq_schedule").parse::<i64>().unwrap() * 1000;
            if ahead == HOUR {
                // As far as is known, it is the clock of now that is wrong. It waits until the clock passes its next tick.
                let ahead = next() - truth();
                assert!((0..HOUR + 5 * SECOND).contains(&ahead), "{name}: the next tick is {ahead} µs ahead");
                clock.set(HOUR, 1);
            } else {
                wait_until("it ticks at the right time", || (next() - truth()).abs() < 5 * SECOND);
            }
            let before = fired();
            wait_until("it goes on", || fired() > before);
        });
        let twice = "SELECT count(*) - count(DISTINCT tick) FROM asyncq_origin";
        assert_eq!(watch.place.query(twice), "0", "{name}");
        let early =
            "SELECT count(*) FROM asyncq_origin o JOIN asyncq_job j ON j.id = o.job WHERE j.created_at < o.tick";
        assert_eq!(watch.place.query(early), "0", "{name}");
    }
}

#[test]
fn who_waits_does_not_depend_on_the_clock() {
    let (watch, mut clock) = Watch::new();
    let place = &watch.place;
    place.stdout("asyncq enqueue events quick; asyncq enqueue events quick --hold");
    let waits = [
        place.start("asyncq -q wait 1 --timeout 10m"),
        place.start("asyncq -q wait --service events --timeout 10m"),
        place.start("asyncq -q call events quick --timeout 10m"),
    ];
    let late = place.start("asyncq -q wait 2 --timeout 1s");
    wait_until("all are there", || place.count("--state queued") == 2);
    clock.set(-HOUR, 1);
    let status = late.wait().status;
    assert_eq!(status.code(), Some(75));
    clock.set(TEN_YEARS, 1);
    place.stdout("asyncq -q process");
    for waits in waits {
        let output = waits.wait();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn processors_see_the_clock_that_a_test_sets() {
    let (watch, mut clock) = Watch::new();
    watch.place.session("$ asyncq enqueue events quick\n1");
    clock.set(-TEN_YEARS, 1);
    watch.place.session("$ asyncq process");
    assert!(watch.none_is(&format!("abs(finished_at - {}) > 60000", clock.now() / 1000)));
    assert!((truth() - watch.books.lines()[0].time).abs() < 60 * SECOND);
}
