//! Old and new programs on one store, and upgrades that are killed.
//!
//! A debug build plays the next version when `ASYNCQ_FUTURE_SCHEMA` is set: it knows one schema more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::Outcome;
use asyncq::domain::job::{Claim, Finish, State, Token};
use asyncq::domain::processor::{NewProcessor, ProcessorId};
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::service::ServiceName;
use asyncq::domain::{retry::AttemptCounts, retry_policy::RetryPolicy};
use asyncq::store::{Cycle, Location, Patience, Store};

use crate::place::{Place, Running, wait_until};
use crate::scale::{figure, many, random};

const NEW: &str = "ASYNCQ_FUTURE_SCHEMA=1 asyncq";

/// The schema of this build; the next one is that of the tests.
const OLD: i64 = 6;

/// The steps of an upgrade at which it is killed: before each of its statements, and before and after the commit.
const STATEMENTS: usize = 7;

/// The commands by which a store is upgraded; for the last one there is nothing to run when it is killed.
const UPGRADES: [&str; 3] = ["init", "enqueue events note", "process"];

/// The store has one schema or the other, whole.
fn schema(place: &Place) -> i64 {
    let traces = "(SELECT count(*) FROM sqlite_schema WHERE name LIKE 'asyncq_test_future%')
        + (SELECT count(*) FROM pragma_table_info('asyncq_job') WHERE name LIKE 'test_future%')";
    let found = place.query(&format!("SELECT version || ' ' || ({traces}) FROM asyncq_schema"));
    let (version, traces) = found.split_once(' ').unwrap();
    let version: i64 = version.parse().unwrap();
    let whole = [(OLD, "0"), (OLD + 1, "4")].contains(&(version, traces));
    assert!(whole, "half upgraded: version and what is there of the next schema: {found}");
    version
}

/// Everybody who is at work while the store is upgraded: each writes down what was acknowledged, and how it ended.
fn crowd(place: &Place) -> Vec<Running> {
    // One enqueues each call after the one before it, and so does the client of plain SQL.
    place.write(
        "enqueue",
        "name=$1; shift
         while [ ! -e stop ]; do
            job=$(asyncq enqueue events note \"$@\" 2>> said.$name); code=$?
            [ $code != 0 ] || echo $job >> acknowledged.$name
            echo $code >> codes.$name; [ $code = 0 ] || exit 0
            [ $name = enqueue1 ] || set -- --lane narrow --after $job
         done",
    );
    place.write(
        "insert",
        "store=.local/share/asyncq/queue.db
         while [ ! -e stop ]; do
            job=$(sqlite3 -cmd '.timeout 60000' $store \"INSERT INTO asyncq_job (service, function, after) VALUES ('events', 'note', '[$job]') RETURNING id\" 2>> said.$1)
            code=$?; [ $code != 0 ] || echo $job >> acknowledged.$1
            echo $code >> codes.$1; [ $code = 0 ] || exit 0; sleep 0.02
         done",
    );
    place.write(
        "process",
        "while [ ! -e stop ]; do
            asyncq process 2>> said.$1 > /dev/null; code=$?
            echo $code >> codes.$1; [ $code = 0 ] || exit 0; sleep 0.02
         done",
    );
    let start = |line: &str| place.start(line);
    vec![
        start("sh ./enqueue enqueue1"),
        start("sh ./enqueue enqueue2"),
        start("sh ./process process1"),
        start("sh ./process process2"),
        start("sh ./insert insert"),
    ]
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[derive(Default)]
struct Count {
    kills: usize,
    acknowledged: usize,
    refused: usize,
}

/// One store from its old schema to the new one, through upgrades that are killed at each of `points`.
fn upgrade_under_load(points: &[(String, &str)]) -> Count {
    let place = Place::with_functions(&[("note", "echo $ASYNCQ_JOB >> runs")]);
    place.stdout("asyncq service set events --concurrency 2; asyncq enqueue events note >> acknowledged.first");
    let crowd = crowd(&place);
    for (point, command) in points {
        let so_far = || place.read("acknowledged.enqueue1").len();
        let before = so_far();
        let killed = place.run(&format!("ASYNCQ_FAILPOINT='{point}=kill' {NEW} {command}; exit $?"));
        // Of a processor, the half that was killed is told by the other one.
        let expected = if command.starts_with("process") { 75 } else { 128 + 9 };
        assert_eq!(killed.status.code(), Some(expected), "{point} {command} {killed:?}");
        if point == "transaction committed" {
            break;
        }
        assert_eq!(schema(&place), OLD, "{point}");
        wait_until("the old one goes on", || so_far() > before + 20);
    }
    let last = points.last().is_some_and(|(point, _)| point == "transaction committed");
    assert!(last && schema(&place) == OLD + 1, "what is committed is there");
    for name in ["enqueue1", "enqueue2", "process1", "process2"] {
        wait_until("the old ones are refused", || place.read(&format!("codes.{name}")).ends_with("75\n"));
    }
    place.stdout(&format!("{NEW} enqueue events note >> acknowledged.last"));
    let inserted = || place.read("acknowledged.insert").len();
    let before = inserted();
    wait_until("the client that knows of nothing goes on", || inserted() > before);
    place.write("stop", "");
    for running in crowd {
        assert!(running.wait().status.success());
    }
    let left = place.run(&format!("{NEW} process"));
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    audit(&place, points.len())
}

fn audit(place: &Place, kills: usize) -> Count {
    let mut count = Count { kills, ..Count::default() };
    let mut runs: BTreeMap<u64, usize> = BTreeMap::new();
    let order = numbers(&place.read("runs"));
    for job in &order {
        *runs.entry(*job).or_default() += 1;
    }
    for name in ["enqueue2", "insert"] {
        let chain = numbers(&place.read(&format!("acknowledged.{name}")));
        let ran: Vec<u64> = order.iter().copied().filter(|job| chain.contains(job)).collect();
        assert_eq!(ran, chain, "each call of {name} ran after the one that it needs");
    }
    for name in ["first", "last", "enqueue1", "enqueue2", "insert"] {
        for job in numbers(&place.read(&format!("acknowledged.{name}"))) {
            assert!(runs.contains_key(&job), "job {job} of {name} is lost");
            count.acknowledged += 1;
        }
    }
    assert!(runs.values().all(|times| *times == 1), "no processor was killed that ran anything: {runs:?}");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job WHERE state <> 'completed'"), "0");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job"), runs.len().to_string());
    assert_eq!(place.query("SELECT count(*) FROM asyncq_processor"), "0", "each left by itself");
    for name in ["enqueue1", "enqueue2", "process1", "process2"] {
        let (codes, said) = (numbers(&place.read(&format!("codes.{name}"))), place.read(&format!("said.{name}")));
        assert!(codes.iter().all(|code| [0, 75].contains(code)), "{name}: {codes:?} {said}");
        let newer = format!("the store has schema {}, this asyncq knows schemas up to {OLD}\nhint: ", OLD + 1);
        assert!(said.contains(&newer), "{name}: {said}");
        assert!(!said.contains("died"), "{name}: {said}");
        count.refused += codes.iter().filter(|code| **code == 75).count();
    }
    let codes = numbers(&place.read("codes.insert"));
    assert!(codes.iter().all(|code| *code == 0), "{codes:?} {}", place.read("said.insert"));
    count
}

#[test]
fn an_upgrade_killed_at_any_statement_loses_nothing_and_is_never_half_done() {
    let name = "upgrade: killed at any statement";
    let mut random = random(name);
    let mut total = Count::default();
    for _ in 0..many(40, 1) {
        let command = || UPGRADES[random.usize(..UPGRADES.len())];
        let mut points: Vec<String> = (1..=STATEMENTS).map(|number| format!("upgrade statement:{number}")).collect();
        points.extend(["transaction done".to_owned(), "transaction committed".to_owned()]);
        let points: Vec<_> = points.into_iter().zip(std::iter::repeat_with(command)).collect();
        let count = upgrade_under_load(&points);
        total.kills += count.kills;
        total.acknowledged += count.acknowledged;
        total.refused += count.refused;
    }
    figure(
        name,
        format_args!(
            "{} upgrades killed under load, {} calls acknowledged, 0 lost, 0 run twice, {} refusals of old programs, \
             all with 75",
            total.kills, total.acknowledged, total.refused
        ),
    );
}

#[test]
fn an_old_processor_records_its_calls_and_then_gives_way() {
    let place = Place::with_functions(&[
        ("good", "touch runs.good; until [ -e go1 ]; do sleep 0.01; done; echo '\"done\"' > $ASYNCQ_RESULT"),
        ("bad", "touch runs.bad; until [ -e go2 ]; do sleep 0.01; done; echo broken >&2; exit 3"),
        ("inner", "touch runs.inner; until [ -e go2 ]; do sleep 0.01; done"),
        ("outer", "asyncq enqueue events inner"),
        ("late", "echo $ASYNCQ_JOB >> runs.late"),
        ("then", "echo $ASYNCQ_JOB >> runs.then"),
    ]);
    place.stdout(
        "asyncq service set events --concurrency 3
         for name in good bad outer late late; do asyncq enqueue events $name; done",
    );
    let old = place.start("asyncq process");
    for name in ["good", "bad", "inner"] {
        wait_until("they run", || place.at(&format!("runs.{name}")).exists());
    }
    place.session(&format!("$ {NEW} -q init\n$ asyncq -q init 2>/dev/null\n? 75"));
    assert_eq!(schema(&place), OLD + 1);
    place.stdout(&format!(
        "for needs in '--after 1' '--after 2' '--after-failed 2'; do {NEW} enqueue events then $needs; done"
    ));
    // What it runs may end, its outcomes are recorded, its slots become free one by one; and nothing else is begun.
    place.write("go1", "");
    wait_until("the first outcome", || place.query("SELECT state FROM asyncq_job WHERE id = 1") != "processing");
    wait_until("its slot is free", || place.query("SELECT taken FROM asyncq_slot") == "2");
    place.stdout(&format!("{NEW} process"));
    assert_eq!(place.read("runs.late"), "4\n5\n", "the new one takes the free slot");
    assert_eq!(place.read("runs.then"), "7\n", "and what needed a call of the old one");
    place.write("go2", "");
    let output = old.wait();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("error: the store has schema {}", OLD + 1)) && said.contains("hint: a newer asyncq"),
        "{said}"
    );
    place.stdout(&format!("{NEW} process"));
    let states = "SELECT group_concat(id || state || attempt, ' ') FROM (SELECT * FROM asyncq_job ORDER BY id)";
    let old = "1completed1 2error1 3completed1 4completed1 5completed1 6completed1";
    assert_eq!(place.query(states), format!("{old} 7completed1 8cancelled0 9completed1"));
    assert_eq!(place.read("runs.then"), "7\n9\n", "each once");
    assert_eq!(place.query("SELECT result FROM asyncq_job WHERE id = 1"), "\"done\"");
    place.session(&format!("$ {NEW} job log 2\n! broken"));
    assert_eq!(place.query("SELECT count(*) FROM asyncq_processor"), "0");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_slot"), "0");
    assert_eq!(place.stdout("ls .local/share/asyncq/queue.db-asyncq"), "");
    assert_eq!(place.read("runs.late"), "4\n5\n", "each once");
}

const SCHEMA_3: &str = include_str!("../store/fixtures/schema-3.sql");

/// A store of version 3, in which a processor of that time runs some calls. What stands for its process is another processor,
/// at work elsewhere, so that it lives as long as that one.
struct Older {
    place: Place,
    /// It writes without triggers, as all processors do.
    store: rusqlite::Connection,
    claimed: i64,
    _process: (Place, Running),
}

impl Older {
    fn new(calls: usize) -> Older {
        let elsewhere = Place::with_functions(&[("runs", "touch begun; sleep 1000")]);
        elsewhere.stdout("asyncq enqueue events runs");
        let process = elsewhere.start("asyncq process");
        wait_until("it works", || elsewhere.at("begun").exists());
        let identity = elsewhere.query(
            "SELECT quote(host) || ', ' || quote(boot) || ', ' || pid || ', ' || pid_start FROM asyncq_processor",
        );

        let place = Place::new();
        place.program("note", "#!/bin/sh\necho $ASYNCQ_JOB >> runs\n");
        place.stdout("mkdir -p -m 700 .local/share/asyncq");
        let store = rusqlite::Connection::open(place.store()).unwrap();
        store.busy_timeout(Duration::from_secs(60)).unwrap();
        let site = place.path().display();
        let rows = format!(
            "INSERT INTO asyncq_service (name, concurrency) VALUES ('events', 3);
             INSERT INTO asyncq_function (service, name, command, site) VALUES ('events', 'note', '[\"{site}/note\"]', '{site}');
             INSERT INTO asyncq_processor (id, folder, host, boot, pid, pid_start, started_at) VALUES (1, 'older', {identity}, 3);
             INSERT INTO asyncq_slot (service, processor, taken) VALUES ('events', 1, 1);
             WITH RECURSIVE it (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it WHERE n < {calls})
             INSERT INTO asyncq_job (service, function) SELECT 'events', 'note' FROM it;"
        );
        store.execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA_3} {rows}")).unwrap();
        place.stdout("chmod 600 .local/share/asyncq/queue.db*");
        store.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        Older { place, store, claimed: 0, _process: (elsewhere, process) }
    }

    fn version(&self) -> i64 {
        self.store.query_row("SELECT version FROM asyncq_schema", [], |row| row.get(0)).unwrap()
    }

    fn schema(&self) -> Vec<String> {
        let mut statement =
            self.store.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Claims the next call.
    fn claim(&mut self) -> i64 {
        self.claimed += 1;
        let claim =
            "UPDATE asyncq_job SET state = 'processing', attempt = 1, claim = 1, processor = 1, token = 'old ' || id,
            started_at = 100000000003 WHERE id = ?1 AND state = 'queued'";
        assert_eq!(self.store.execute(claim, [self.claimed]).unwrap(), 1);
        self.claimed
    }

    /// Ends one in its own words; those that it runs to their end leave a line.
    fn end(&self, job: i64, how: &str) {
        if how.contains("'completed'") || how.contains("'error'") {
            self.place.stdout(&format!("echo {job} >> runs"));
        }
        let sql = format!(
            "UPDATE asyncq_job SET {how}, token = NULL, cancelling = 0
             WHERE id = ?1 AND attempt = 1 AND processor = 1 AND claim = 1 AND state = 'processing'"
        );
        assert_eq!(self.store.execute(&sql, [job]).unwrap(), 1, "{how}");
    }
}

const COMPLETES: &str = "state = 'completed', started_at = 100000000003, finished_at = 100000000009, result = NULL";
const FAILS: &str = "state = 'error', started_at = 100000000003, finished_at = 100000000009, error = '{\"kind\":\"exit\",\"message\":\"exit code 3\"}'";
const AGAIN: &str = "state = 'delayed', started_at = 100000000003, run_at = 100000000009, conflicts = conflicts + 1";
const GOES_BACK: &str = "state = 'queued', started_at = NULL, attempt = attempt - 1";

/// The upgrade from a schema whose processors know of no calls that need others, and release none.
#[test]
fn a_killed_upgrade_below_older_processors_is_absent_and_a_whole_one_loses_none_of_their_dependents() {
    let mut older = Older::new(many(100, 20));
    let before = older.schema();
    let ends = [COMPLETES, FAILS, AGAIN, GOES_BACK, COMPLETES, FAILS, AGAIN, GOES_BACK];
    let held = ends.map(|_| older.claim());
    let commands = ["asyncq init", "asyncq enqueue events note", "asyncq service set events --concurrency 3"];
    let mut kills = 0;
    for statement in (1..).step_by(many(1, 9)) {
        // One is killed with everything done, and nothing committed.
        let point = if kills == 2 { "transaction done".to_owned() } else { format!("upgrade statement:{statement}") };
        let line = format!("ASYNCQ_FAILPOINT='{point}=kill' {}; exit $?", commands[kills % commands.len()]);
        if older.place.run(&line).status.success() {
            break;
        }
        assert_eq!((older.version(), older.schema()), (3, before.clone()), "{point}");
        kills += 1;
        let job = older.claim();
        older.end(job, COMPLETES);
    }
    assert!(older.version() == OLD && kills > 5);

    let place = &older.place;
    let mut needs = Vec::new();
    for (job, by_hand) in held.into_iter().zip([[true; 4], [false; 4]].concat()) {
        for needed in [format!("[{job}]"), format!("{{\"any\":[{job}]}}")] {
            if by_hand {
                let option = if needed.contains("any") { "--after-any" } else { "--after" };
                place.stdout(&format!("asyncq enqueue events note {option} {job}"));
            } else {
                place.insert("function, after", &format!("'note', '{needed}'"));
            }
            needs.push((job, place.query("SELECT max(id) FROM asyncq_job").parse::<i64>().unwrap()));
        }
    }
    let follows = place.start("asyncq process --follow");
    let waiting = (held.len() + needs.len()).to_string();
    let open = "SELECT count(*) FROM asyncq_job WHERE state NOT IN ('completed', 'error', 'cancelled')";
    wait_until("the calls that need no other one have run", || place.query(open) == waiting);
    for (job, how) in held.into_iter().zip(ends) {
        older.end(job, how);
    }
    older
        .store
        .execute_batch("DELETE FROM asyncq_slot WHERE processor = 1; DELETE FROM asyncq_processor WHERE id = 1")
        .unwrap();
    wait_until("their dependents have run", || place.query(open) == "0");
    follows.signal("TERM");
    assert!(follows.wait().status.success());

    let runs = numbers(&place.read("runs"));
    let at = |job: i64| runs.iter().position(|it| i64::try_from(*it) == Ok(job));
    for (job, dependent) in &needs {
        // One of those that need a failed one was cancelled.
        assert!(at(*dependent).is_none_or(|it| it > at(*job).unwrap()), "{dependent} after {job}: {runs:?}");
    }
    let states = "SELECT group_concat(state || ' ' || many, ', ') FROM
        (SELECT state, count(*) AS many FROM asyncq_job GROUP BY state ORDER BY state)";
    let all: usize = place.query("SELECT count(*) FROM asyncq_job").parse().unwrap();
    assert_eq!(place.query(states), format!("cancelled 2, completed {}, error 2", all - 4));
    assert_eq!((runs.len(), runs.iter().collect::<BTreeSet<_>>().len()), (all - 2, all - 2), "each once: {runs:?}");
    figure(
        "upgrade: from schema 3",
        format_args!("killed at {kills} statements; {} calls that needed those of an older processor", needs.len()),
    );
}

fn upgraded(path: &Path) {
    let store = rusqlite::Connection::open(path).unwrap();
    store.execute("UPDATE asyncq_schema SET version = 99", []).unwrap();
}

fn completed(claim: &Claim) -> Finish {
    let decision = RetryPolicy::default().decide(&Outcome::Completed, AttemptCounts::default(), 0.5);
    Finish { took: Duration::from_millis(1), ..Finish::new(claim.fence, decision) }
}

struct Old {
    store: Store,
    service: ServiceName,
    processor: ProcessorId,
}

impl Old {
    fn advance(&mut self, finished: &[&Finish], returned: &[Claim], held: usize) -> asyncq::store::CycleResult {
        let returned: Vec<_> = returned.iter().map(|claim| claim.fence).collect();
        let tokens: Vec<_> = (1..4).map(Token::from_random).collect();
        let (processor, service) = (self.processor, &self.service);
        let plan = Cycle {
            finished,
            returned: &returned,
            held,
            running: held,
            ahead: 1,
            tokens: &tokens,
            ..Cycle::of(processor, service)
        };
        self.store.run_cycle(&plan).unwrap()
    }
}

#[test]
fn a_store_that_is_newer_takes_the_end_of_old_work_and_nothing_else() {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout(
        "asyncq service set events --concurrency 2
         for i in 1 2 3 4; do asyncq enqueue events note; done",
    );
    let location = Location::File(place.store());
    let mut store = Store::open(&location, Patience::Deadline(Duration::from_secs(20))).unwrap();
    let is =
        NewProcessor { folder: "folder".to_owned(), host: "h".to_owned(), boot: "b".to_owned(), pid: 1, pid_start: 2 };
    let processor = store.register(&is).unwrap();
    let service = ServiceName::parse("events").unwrap();
    let mut old = Old { store, service: service.clone(), processor };
    let claims = old.advance(&[], &[], 0).claims;
    assert_eq!(claims.len(), 3);
    upgraded(&place.store());

    let done = old.advance(&[&completed(&claims[0])], &claims[2..], 1);
    assert_eq!(done.finished, [Some(State::Completed)]);
    assert!(done.claims.is_empty() && done.status.outdated && done.status.free() == 0);
    assert_eq!(place.query("SELECT taken FROM asyncq_slot"), "1");
    let states = "SELECT group_concat(state, ' ') FROM (SELECT * FROM asyncq_job ORDER BY id)";
    assert_eq!(place.query(states), "completed processing queued queued");
    assert_eq!(old.store.finish(&[&completed(&claims[1])]).unwrap(), [Some(State::Completed)]);

    let refused = [
        old.store.services().map(drop),
        old.store.service_status(&service, Some(processor)).map(drop),
        old.store.register(&is).map(drop),
        old.store.cancel(claims[2].fence.job).map(drop),
        old.store.remove_service(&service, IfWaiting::Cancel).map(drop),
        Store::create(&location, Patience::Endless).map(drop),
    ];
    assert!(refused.iter().all(|it| it.as_ref().unwrap_err().kind() == Kind::Busy), "{refused:?}");
    assert_eq!(place.query(states), "completed completed queued queued");
    old.store.unregister(processor).unwrap();
    assert_eq!(place.query("SELECT count(*) FROM asyncq_processor"), "0");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_slot"), "0");
}
