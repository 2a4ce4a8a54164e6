//! Old and new programs on one store, and upgrades that are killed.
//!
//! A debug build plays the next version when `ASYNCQ_FUTURE_SCHEMA` is set: it knows one schema more.

use std::collections::BTreeMap;
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
const OLD: i64 = 4;

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
    place.write(
        "enqueue",
        "while [ ! -e stop ]; do
            job=$(asyncq enqueue events note 2>> said.$1); code=$?
            [ $code != 0 ] || echo $job >> acknowledged.$1
            echo $code >> codes.$1; [ $code = 0 ] || exit 0
         done",
    );
    place.write(
        "insert",
        "store=.local/share/asyncq/queue.db
         while [ ! -e stop ]; do
            job=$(sqlite3 -cmd '.timeout 60000' $store \"INSERT INTO asyncq_job (service, function) VALUES ('events', 'note') RETURNING id\" 2>> said.$1)
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
    for job in numbers(&place.read("runs")) {
        *runs.entry(job).or_default() += 1;
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
    // What it runs may end, its outcomes are recorded, its slots become free one by one; and nothing else is begun.
    place.write("go1", "");
    wait_until("the first outcome", || place.query("SELECT state FROM asyncq_job WHERE id = 1") != "processing");
    wait_until("its slot is free", || place.query("SELECT taken FROM asyncq_slot") == "2");
    place.stdout(&format!("{NEW} process"));
    assert_eq!(place.read("runs.late"), "4\n5\n", "the new one takes the free slot");
    place.write("go2", "");
    let output = old.wait();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!("error: the store has schema {}", OLD + 1)) && said.contains("hint: a newer asyncq"),
        "{said}"
    );
    let states = "SELECT group_concat(id || state || attempt, ' ') FROM (SELECT * FROM asyncq_job ORDER BY id)";
    assert_eq!(place.query(states), "1completed1 2error1 3completed1 4completed1 5completed1 6completed1");
    assert_eq!(place.query("SELECT result FROM asyncq_job WHERE id = 1"), "\"done\"");
    place.session(&format!("$ {NEW} job log 2\n! broken"));
    assert_eq!(place.query("SELECT count(*) FROM asyncq_processor"), "0");
    assert_eq!(place.query("SELECT count(*) FROM asyncq_slot"), "0");
    assert_eq!(place.stdout("ls .local/share/asyncq/queue.db-asyncq"), "");
    assert_eq!(place.read("runs.late"), "4\n5\n", "each once");
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
