//! Stores that a disk has damaged: flipped bits, zeroed and swapped pages, cut files, in the database and its WAL.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use asyncq::domain::call::{Call, Key, Reading};
use asyncq::domain::function::FunctionName;
use asyncq::domain::job::{JobId, State, Token};
use asyncq::domain::new_job::NewJob;
use asyncq::domain::pattern::OfServices;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter, JobQuery};
use asyncq::domain::service::ServiceName;
use asyncq::store::{Cycle, Location, Patience, Store};
use asyncq::{Error, Kind};
use fastrand::Rng;

use self::oracle::{Finding, Oracle};
use crate::place::Place;
use crate::scale::{figure, many, random};

mod oracle;

const PAGE: usize = 4096;

/// Longer than anything here may take.
const HANG: Duration = Duration::from_secs(30);

/// The files of a store, as bytes.
#[derive(Clone, PartialEq)]
struct Files {
    db: Vec<u8>,
    wal: Vec<u8>,
    shm: Vec<u8>,
}

impl Files {
    fn read(db: &Path) -> Files {
        let beside = |suffix: &str| fs::read(format!("{}{suffix}", db.display())).unwrap_or_default();
        Files { db: beside(""), wal: beside("-wal"), shm: beside("-shm") }
    }

    fn write(&self, db: &Path) {
        for (suffix, bytes) in [("", &self.db), ("-wal", &self.wal), ("-shm", &self.shm)] {
            let path = format!("{}{suffix}", db.display());
            if suffix.is_empty() || !bytes.is_empty() {
                fs::write(path, bytes).unwrap();
            } else {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Whether the content is the same; what SQLite builds anew from it does not count.
    fn holds_the_same(&self, other: &Files) -> bool {
        self.db == other.db && self.wal == other.wal
    }
}

/// The files of the store, after one more call if a checkpoint has just emptied the WAL.
fn with_a_wal(place: &Place) -> Files {
    loop {
        let files = Files::read(&place.store());
        if !files.wal.is_empty() {
            return files;
        }
        place.stdout("asyncq enqueue events note");
    }
}

/// A store with all that stores hold, when most of it is in the database file, and when most of it is in the WAL.
fn stores() -> (Place, Vec<Files>) {
    let place = Place::with_functions(&[
        ("prints", "head -c $((ASYNCQ_JOB * 100)) /dev/zero | tr '\\0' x; echo \"$ASYNCQ_JOB\" > \"$ASYNCQ_RESULT\""),
        ("fails", "echo no >&2; exit 3"),
        ("nests", "asyncq enqueue events prints"),
        ("note", "true"),
    ]);
    place.stdout(
        "asyncq service add other --concurrency 3; asyncq service set events --concurrency 2
         large=$(head -c 9000 /dev/zero | tr '\\0' y)
         for i in 1 2 3 4 5 6 7 8; do asyncq enqueue events prints $i $large --key key$i; asyncq enqueue events fails
            asyncq enqueue events nests --principal me; done
         asyncq process; asyncq enqueue events note --hold; asyncq enqueue events note 7; true",
    );
    let wal = with_a_wal(&place);
    let checkpointed = {
        let store = rusqlite::Connection::open(place.store()).unwrap();
        store.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(store);
        Files::read(&place.store())
    };
    place.stdout("for i in 1 2 3 4 5 6; do asyncq enqueue events note $i --key more$i; done; asyncq enqueue events fails; asyncq process events --max-jobs 3; true");
    let both = with_a_wal(&place);
    assert!(checkpointed.wal.is_empty());
    (place, vec![wal, checkpointed, both])
}

/// One damage; says what it was.
fn damage(files: &mut Files, random: &mut Rng) -> String {
    let in_wal = !files.wal.is_empty() && random.bool();
    let (bytes, name) = if in_wal { (&mut files.wal, "wal") } else { (&mut files.db, "db") };
    let length = bytes.len();
    let at = random.usize(..length);
    let page = at / PAGE * PAGE;
    let end = |from: usize, count: usize| (from + count).min(length);
    let what = match random.u32(..8) {
        0 | 1 => {
            for _ in 0..random.usize(1..4) {
                bytes[random.usize(..length)] ^= 1 << random.u32(..8);
            }
            "bits flipped"
        }
        2 => {
            bytes[at..end(at, random.usize(1..600))].fill(0);
            "bytes zeroed"
        }
        3 => {
            bytes[page..end(page, PAGE)].fill(0);
            "page zeroed"
        }
        // Nothing at all is a database that was never used; nobody can tell.
        4 => {
            bytes.truncate(at.max(1));
            "cut"
        }
        5 => {
            bytes.truncate(page.max(PAGE));
            "cut between pages"
        }
        6 => {
            let other = random.usize(..length / PAGE) * PAGE;
            let (first, second) = (page.min(other), page.max(other));
            for offset in 0..PAGE.min(length - second) {
                bytes.swap(first + offset, second + offset);
            }
            "pages swapped"
        }
        _ => {
            let garbage = random.usize(1..200).min(length);
            bytes[..garbage].fill_with(|| random.u8(..));
            "garbage at the beginning"
        }
    };
    format!("{name}: {what}")
}

fn open(db: &Path) -> asyncq::Result<Store> {
    Store::open(&Location::File(db.to_owned()), Patience::Deadline(Duration::from_secs(5)))
}

/// What a verb answers about each thing, as text.
type Answer = asyncq::Result<BTreeMap<String, String>>;

type Verb = (&'static str, fn(&Path, &mut Rng) -> Answer);

fn events() -> ServiceName {
    ServiceName::parse("events").unwrap()
}

fn none<T>(_: T) -> BTreeMap<String, String> {
    BTreeMap::new()
}

/// What people and programs ask of a store; what they are told can be compared with what was told before the damage.
const READING: &[Verb] = &[
    ("list", |db, _| {
        let jobs = open(db)?.jobs(&JobQuery::default())?.jobs;
        Ok(jobs.into_iter().map(|job| (format!("job {}", job.id), format!("{job:?}"))).collect())
    }),
    ("list one state", |db, _| {
        let (states, services) = (vec![State::Queued], OfServices::only(ServiceName::parse("events").unwrap()));
        let filter = JobFilter { states, services, ..JobFilter::default() };
        let jobs = open(db)?.jobs(&JobQuery { filter, ..JobQuery::default() })?.jobs;
        Ok(jobs.into_iter().map(|job| (format!("queued {}", job.id), format!("{job:?}"))).collect())
    }),
    ("show", |db, random| {
        let mut store = open(db)?;
        let mut shown = BTreeMap::new();
        for _ in 0..6 {
            let job = store.job(JobId(random.i64(1..30)))?;
            let attempts = store.attempts(&job)?;
            let log = store.log(job.id, job.counts.attempt)?;
            shown.insert(format!("job {} whole", job.id), format!("{job:?} {attempts:?} {log:?}"));
        }
        Ok(shown)
    }),
    ("services", |db, _| {
        let mut store = open(db)?;
        let services = store.services()?.into_iter().map(|it| (format!("service {}", it.name), format!("{it:?}")));
        let services: BTreeMap<_, _> = services.collect();
        let functions =
            store.functions(None)?.into_iter().map(|it| (format!("function {}", it.name), format!("{it:?}")));
        Ok(services.into_iter().chain(functions).collect())
    }),
];

const WRITING: &[Verb] = &[
    ("enqueue", |db, random| {
        let (args, kwargs) = (Reading::Json.positional(&["1".to_owned()])?, Reading::Json.keywords::<&str>(&[])?);
        let call = Call::new(events(), FunctionName::parse("note")?, args, kwargs);
        let key = Some(Key::parse(&format!("new{}", random.u32(..)))?);
        let new = NewJob { key, ..NewJob::new(call) };
        let job = open(db)?.enqueue(&new)?.id();
        Ok(BTreeMap::from([(job.to_string(), String::new())]))
    }),
    ("process", |db, _| {
        let is = NewProcessor { folder: "f".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 2 };
        open(db)?.register(&is).map(none)
    }),
    ("claim", |db, random| {
        let mut store = open(db)?;
        let Some(processor) = store.processors()?.pop() else { return Ok(BTreeMap::new()) };
        let (service, tokens) = (events(), [Token::from_random(random.u128(..)), Token::from_random(random.u128(..))]);
        let plan = Cycle { tokens: &tokens, ..Cycle::of(processor.id, &service) };
        let claims = store.run_cycle(&plan)?.claims;
        Ok(claims.into_iter().map(|claim| (claim.fence.job.to_string(), String::new())).collect())
    }),
    ("rescue", |db, _| {
        let mut store = open(db)?;
        let Some(processor) = store.processors()?.pop() else { return Ok(BTreeMap::new()) };
        store.rescue(processor.id, None, &[]).map(none)
    }),
    ("clean", |db, _| {
        let filter = JobFilter { states: vec![State::Error], ..JobFilter::default() };
        open(db)?
            .change_many(&BulkChange { change: JobChange::Remove, filter, before: None, dry_run: false }, JobId(0))
            .map(none)
    }),
];

/// What `asyncq init` does.
fn init(db: &Path) -> asyncq::Result<()> {
    let (mut store, made) = Store::create(&Location::File(db.to_owned()), Patience::Deadline(Duration::from_secs(5)))?;
    assert!(!made, "nothing is made in what was a store");
    store.check()
}

fn check_error(what: &str, error: &Error) {
    assert!(error.hint().is_some(), "{what}: `{error}` without a way out");
    // A flipped bit in a name, a version or a state is another name, version or state; input fails when it is cut.
    let kinds = [Kind::Invalid, Kind::NotFound, Kind::Unreachable, Kind::Busy, Kind::Denied];
    assert!(kinds.contains(&error.kind()), "{what}: {:?} {error}", error.kind());
}

#[derive(Default)]
struct Count {
    verbs: usize,
    told: usize,
    /// Copies in which SQLite by itself finds damage; so does `init` in each.
    flawed: usize,
    /// Copies of those that answered differently, without an error.
    findable: usize,
    /// Copies that did so because the WAL ends before the damage.
    cut_off: usize,
    /// Copies that did so and in which nothing can find any: the content of a cell is another.
    hidden: usize,
    /// Calls that were acknowledged.
    acknowledged: usize,
    /// Those to a store in which SQLite finds damage.
    unaware: usize,
    /// Those of them besides which something else changed.
    harmful: usize,
    claimed: usize,
    programs: usize,
}

struct Trial<'a> {
    db: PathBuf,
    what: String,
    truth: &'a BTreeMap<String, String>,
    oracle: &'a Oracle,
    count: &'a mut Count,
}

impl Trial<'_> {
    /// Runs one verb: it neither panics nor hangs, and when it only reads, or says that the store is damaged, nothing was
    /// written.
    fn run(&mut self, (name, verb): &Verb, random: &mut Rng) -> Answer {
        let before = Files::read(&self.db);
        let began = Instant::now();
        let what = format!("{} {name} after {}", self.db.display(), self.what);
        let answer = catch_unwind(AssertUnwindSafe(|| verb(&self.db, random)));
        let answer = answer.unwrap_or_else(|_| panic!("{what}: a panic"));
        assert!(began.elapsed() < HANG, "{what}: took {:?}", began.elapsed());
        self.count.verbs += 1;
        if let Err(error) = &answer {
            check_error(&what, error);
            self.count.told += 1;
        }
        if answer.is_err() || !WRITING.iter().any(|(writing, _)| writing == name) {
            assert!(Files::read(&self.db).holds_the_same(&before), "{what}: {answer:?}, and wrote");
        }
        answer
    }

    fn look(&self) -> Finding {
        self.oracle.look(&Files::read(&self.db))
    }

    /// What SQLite finds by itself, `init` finds, and who reads all jobs is told what SQLite tells who does that.
    fn must_be_told(&self, finding: &Finding, listed: &Answer, checked: &Answer) {
        let what = &self.what;
        let tells = |answer: &Answer| {
            let newer = finding.version.is_some_and(|version| version > *SCHEMA);
            answer.as_ref().is_err_and(|error| error.kind() == if newer { Kind::Busy } else { Kind::Invalid })
        };
        if let Some(flaw) = &finding.flaw {
            assert!(tells(checked), "{what}: SQLite finds `{flaw}`, and `init` {checked:?}");
        }
        assert!(!finding.jobs_are_damaged || tells(listed), "{what}: list: {listed:?}");
    }

    /// A call that is acknowledged is there, and nothing else has changed.
    fn check_enqueued(&mut self, before: &Finding, after: &Finding, answer: &Answer) {
        let Ok(answer) = answer else { return };
        self.count.acknowledged += 1;
        let job = JobId(answer.keys().next().unwrap().parse().unwrap());
        let there = open(&self.db).and_then(|mut store| store.job(job));
        let clean = match (&before.rows, &after.rows) {
            (Some(before), Some(after)) => after.is_one_more_than(before),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if before.flaw.is_none() {
            assert!(clean && after.flaw.is_none(), "{}: a call has changed more than itself", self.what);
            assert!(there.is_ok() || !before.is_readable, "{}: acknowledged {job}, but {there:?}", self.what);
        } else {
            self.count.unaware += 1;
            // Reading it may meet the damage.
            let lost = there.is_err_and(|error| error.kind() == Kind::NotFound);
            self.count.harmful += usize::from(!clean || lost);
        }
    }

    /// What is claimed was waiting.
    fn check_claimed(&mut self, before: &Finding, answer: &Answer) {
        for job in answer.iter().flatten().map(|(job, _)| job) {
            self.count.claimed += 1;
            let may_run = before.rows.as_ref().is_none_or(|rows| rows.may_run(job.parse().unwrap()));
            assert!(may_run, "{}: job {job} is run again", self.what);
        }
    }

    /// Whether an answer differs from the truth.
    fn differs(&self, name: &str, answer: &Answer) -> bool {
        let Ok(answer) = answer else { return false };
        let whole = ["list", "services"].contains(&name);
        let prefixes: &[&str] = if name == "list" { &["job "] } else { &["service ", "function "] };
        let expected = self.truth.iter().filter(|(key, _)| {
            whole && !key.ends_with("whole") && prefixes.iter().any(|prefix| key.starts_with(prefix))
        });
        answer.iter().any(|(key, value)| self.truth.get(key) != Some(value))
            || expected.count() != if whole { answer.len() } else { 0 }
    }
}

/// A place for copies that need not be durable.
fn quick_place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let db = folder.path().join("q.db");
    (folder, db)
}

/// All that can be read of a sound store.
fn truth(db: &Path) -> BTreeMap<String, String> {
    let mut truth = BTreeMap::new();
    for (_, verb) in READING {
        for seed in 0..60 {
            truth.append(&mut verb(db, &mut Rng::with_seed(seed)).unwrap());
        }
    }
    truth
}

/// Plays everything on one damaged copy.
fn trial(trial: &mut Trial<'_>, random: &mut Rng) {
    let in_wal = trial.what.starts_with("wal");
    let finding = trial.look();
    let answers: Vec<Answer> = READING.iter().map(|verb| trial.run(verb, random)).collect();
    let differs = READING.iter().zip(&answers).any(|(verb, answer)| {
        // Jobs that are not there are an answer too.
        let missing = answer.as_ref().is_err_and(|error| error.kind() == Kind::NotFound);
        missing || trial.differs(verb.0, answer)
    });
    let checked = trial.run(&("init", |db, _| init(db).map(none)), random);
    trial.must_be_told(&finding, &answers[0], &checked);
    trial.count.flawed += usize::from(finding.flaw.is_some());
    match (differs, in_wal, finding.flaw.is_some()) {
        (false, ..) => {}
        (true, _, true) => trial.count.findable += 1,
        (true, true, false) => trial.count.cut_off += 1,
        (true, false, false) => trial.count.hidden += 1,
    }
    let mut before = finding;
    for verb in WRITING {
        let answer = trial.run(verb, random);
        match verb.0 {
            "enqueue" => {
                let after = trial.look();
                trial.check_enqueued(&before, &after, &answer);
                before = after;
            }
            "claim" => trial.check_claimed(&before, &answer),
            _ => {}
        }
    }
}

/// The schema that this build knows.
static SCHEMA: LazyLock<i64> = LazyLock::new(|| {
    let schema = include_str!("../../../schema.sql");
    let (_, version) = schema.split_once("INSERT INTO asyncq_schema (version, used) VALUES (").unwrap();
    version.split_once(',').unwrap().0.parse().unwrap()
});

/// The exit codes that a command may end with on a damaged store.
fn codes(command: &str, finding: &Finding) -> Vec<i32> {
    let own: &[i32] = match command.split(' ').next().unwrap() {
        // A job, a service or a function that is not found, because it has another name now.
        "job" if command.starts_with("job show") => &[0, 65, 66],
        "enqueue" => &[0, 65, 66],
        // Some of what it runs fails on a good store too.
        "process" => &[0, 1, 65],
        "init" if finding.flaw.is_some() => &[65],
        _ => &[0, 65],
    };
    match finding.version {
        Some(version) if version == *SCHEMA && command.starts_with("job list") && finding.jobs_are_damaged => vec![65],
        Some(version) if version > *SCHEMA => vec![75],
        _ => own.to_vec(),
    }
}

/// The same by the program, whose exit codes and words are what people see.
fn program(place: &Place, oracle: &Oracle, (files, what): (&Files, &str), count: &mut Count) {
    let db = place.store();
    files.write(&db);
    for command in
        ["job list --limit 0", "job show 3", "service list", "init", "enqueue events note", "process", "job clean"]
    {
        let before = Files::read(&db);
        let expected = codes(command, &oracle.look(&before));
        let output = place.run(&format!("exec timeout 60 asyncq {command}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or(-1);
        assert!(expected.contains(&code), "{what}: {command}: {code}, not {expected:?}: {said}");
        assert!(!said.contains("panicked"), "{what}: {command}: {said}");
        assert!(code < 65 || said.contains("hint: "), "{what}: {command}: {said}");
        // A processor may have recorded something before it found the damage.
        let writes = ["enqueue events note", "process", "job clean"].contains(&command)
            // A bit of the words of a table, an index or a trigger, which stand in the schema of this build.
            || command == "init" && code == 0 && said.contains("made again");
        if !writes || code == 65 && command != "process" {
            assert!(Files::read(&db).holds_the_same(&before), "{what}: {command} wrote: {said}");
        }
        assert!(!Files::read(&db).db.is_empty() || before.db.is_empty(), "{what}: {command} emptied it");
        count.programs += 1;
    }
}

#[test]
fn damage_is_reported_and_never_made_worse() {
    let name = "damage: told and never made worse";
    let (place, stores) = stores();
    let mut random = random(name);
    let (oracle, mut count) = (Oracle::new(), Count::default());
    let (_folder, db) = quick_place();
    let truths: Vec<_> = stores
        .iter()
        .map(|files| {
            files.write(&db);
            truth(&db)
        })
        .collect();
    let rounds = many(10_000, 150);
    for round in 0..rounds {
        let which = random.usize(..stores.len());
        let mut files = stores[which].clone();
        let what = damage(&mut files, &mut random);
        files.write(&db);
        let truth = &truths[which];
        let mut one = Trial { db: db.clone(), what: what.clone(), truth, oracle: &oracle, count: &mut count };
        trial(&mut one, &mut random);
        if round % 15 == 0 {
            program(&place, &oracle, (&files, &what), &mut count);
        }
    }
    let Count { verbs, told, flawed, findable, cut_off, hidden, .. } = count;
    let Count { acknowledged, unaware, harmful, claimed, programs, .. } = count;
    figure(
        name,
        format_args!(
            "{rounds} damaged stores, {flawed} of them by what SQLite finds itself, and each told by `init`: {verbs} verbs \
             and {programs} programs, 0 panics, 0 hangs, {told} errors with a way out, 0 writes by who told it or only \
             reads; answers that differ: {hidden} by another content of a cell, {cut_off} by a WAL that ends before its \
             damage, {findable} more that `init` finds; {acknowledged} calls acknowledged, {unaware} of them beside \
             damage, which {harmful} made worse; {claimed} claimed, 0 that had ended"
        ),
    );
    // With checks that never fire, or fire always, this would count nothing.
    assert!(told > rounds && told < verbs && flawed > rounds / 4, "{told} of {verbs}, {flawed} of {rounds}");
    assert!(acknowledged > rounds / 8 && claimed > rounds / 8, "{acknowledged}, {claimed}");
    assert!(hidden < rounds / 4 && findable < rounds / 10 && harmful <= rounds / 100);
}

/// Commands that must read something, by what it is.
const READERS: [(&str, &[&str]); 9] = [
    ("sqlite_schema", &["job list", "enqueue events note", "service add more", "process", "init"]),
    ("asyncq_schema", &["job list", "enqueue events note", "process", "init"]),
    ("asyncq_service", &["service list", "service set events --concurrency 2", "process", "init"]),
    ("asyncq_function", &["function list events", "enqueue events note", "init"]),
    ("asyncq_job", &["job list --limit 0", "job show 3", "enqueue events note", "process", "job clean", "init"]),
    ("asyncq_job_queued", &["enqueue events note", "process", "init"]),
    ("asyncq_job_key", &["enqueue events note --key other", "enqueue events note", "init"]),
    ("asyncq_large", &["job show 1", "job list --limit 0", "init"]),
    ("asyncq_attempt", &["job log 2", "init"]),
];

#[test]
fn every_command_that_meets_damage_ends_with_exit_code_65() {
    let (place, stores) = stores();
    stores[1].write(&place.store());
    let mut commands_run = 0;
    let pages =
        READERS.map(|(name, _)| place.query(&format!("SELECT group_concat(pageno) FROM dbstat WHERE name = '{name}'")));
    for ((name, commands), pages) in READERS.into_iter().zip(pages) {
        let mut files = stores[1].clone();
        for page in pages.split(',').map(|page| page.parse::<usize>().unwrap()) {
            // The header of the file is in the first one.
            let begin = if page == 1 { 100 } else { (page - 1) * PAGE };
            files.db[begin..page * PAGE].fill(0xee);
        }
        for command in commands {
            files.write(&place.store());
            let output = place.run(&format!("exec timeout 60 asyncq {command}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(65), "{command} without {name}: {output:?}");
            assert!(said.contains("the store is damaged: ") && said.contains("\nhint: "), "{command}: {said}");
            // A processor was registered before it met the damage.
            let unchanged = *command == "process" || Files::read(&place.store()).holds_the_same(&files);
            assert!(unchanged && output.stdout.is_empty(), "{command} without {name}: {output:?}");
            commands_run += 1;
        }
    }
    figure("damage: met", format_args!("{commands_run} commands, each on a store without what it must read: 65"));
}

/// Makes changes of which the disk loses what an index, of one page, has of the last one.
fn lose_a_write(place: &Place, index: &str, changes: [&str; 2]) {
    let page = place.query(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{index}'"));
    let end = page.parse::<usize>().unwrap() * PAGE;
    let [before, mut after] = changes.map(|sql| {
        place.stdout(&format!(
            "sqlite3 -cmd '.dbconfig enable_trigger off' {} \"{sql}; PRAGMA wal_checkpoint(TRUNCATE)\"",
            place.store().display()
        ));
        Files::read(&place.store())
    });
    assert_ne!(before.db[end - PAGE..end], after.db[end - PAGE..end], "{index}");
    after.db[end - PAGE..end].copy_from_slice(&before.db[end - PAGE..end]);
    after.write(&place.store());
}

#[test]
fn a_job_that_ended_is_not_run_again_because_a_damaged_index_says_that_it_waits() {
    for state in ["queued", "delayed"] {
        let place = Place::with_functions(&[("note", "echo $ASYNCQ_JOB >> runs")]);
        let waiting = format!(
            "INSERT INTO asyncq_job (service, function, state, run_at) VALUES ('events', 'note', '{state}', 1700000000000)"
        );
        lose_a_write(&place, &format!("asyncq_job_{state}"), [&waiting, "UPDATE asyncq_job SET state = 'completed'"]);
        place.session(
            "
            $ asyncq process
            ! error: the store is damaged: [..]
            ! hint: stop every processor, and copy [..]
            ? 65
            ",
        );
        assert_eq!(place.read("runs"), "", "{state}");
        assert_eq!(place.query("SELECT state FROM asyncq_job NOT INDEXED"), "completed");
    }
}

#[test]
fn init_finds_an_entry_too_many_in_every_index_that_has_only_some_jobs() {
    let place = Place::with_functions(&[("note", "true")]);
    let partial = "type = 'index' AND tbl_name = 'asyncq_job' AND sql LIKE '%WHERE%'";
    let indexes = place.query(&format!("SELECT group_concat(name) FROM sqlite_schema WHERE {partial}"));
    assert_eq!(indexes.split(',').count(), 8, "{indexes}");
    for index in indexes.split(',') {
        let place = Place::with_functions(&[("note", "true")]);
        let in_all =
            "INSERT INTO asyncq_job (service, function, parent) VALUES ('events', 'note', 1), ('events', 'note', 1),
            ('events', 'note', 1); UPDATE asyncq_job SET state = 'delayed', attempt = 1, token = 'x' WHERE id = 2;
            UPDATE asyncq_job SET state = 'held' WHERE id = 3;
            UPDATE asyncq_job SET lane = 'x', waits = 1, expires_at = 4102444800000";
        let in_none =
            "UPDATE asyncq_job SET state = 'completed', attempt = 0, token = NULL, parent = NULL, lane = NULL,
            waits = 0, expires_at = NULL";
        lose_a_write(&place, index, [in_all, in_none]);
        let damaged = Files::read(&place.store());
        place.session(&format!(
            "
            $ asyncq init
            ! error: the store is damaged: wrong number of entries in index {index}
            ! hint: stop every processor, and copy [..]
            ? 65
            "
        ));
        assert!(Files::read(&place.store()).holds_the_same(&damaged));
    }
}

#[test]
fn a_damaged_index_of_the_wal_does_no_harm() {
    let name = "damage: -shm";
    let (_place, stores) = stores();
    let mut random = random(name);
    let (_folder, db) = quick_place();
    let rounds = many(1000, 30);
    let sound = &stores[2];
    sound.write(&db);
    let truth = truth(&db);
    assert!(!sound.shm.is_empty());
    for _ in 0..rounds {
        let mut files = sound.clone();
        let length = files.shm.len();
        match random.u32(..4) {
            0 => files.shm[random.usize(..length)] ^= 1 << random.u32(..8),
            1 => files.shm.fill_with(|| random.u8(..)),
            2 => files.shm.truncate(random.usize(1..length)),
            _ => files.shm[..200].fill(0),
        }
        files.write(&db);
        for (verb, read) in READING {
            let answer = read(&db, &mut random).unwrap_or_else(|error| panic!("{verb}: {error}"));
            assert!(answer.iter().all(|(key, value)| truth.get(key) == Some(value)), "{verb}");
        }
        init(&db).unwrap();
    }
    figure(name, format_args!("{rounds} damaged, 0 answers that differ"));
}

#[test]
fn an_emptied_store_keeps_its_wal() {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout("asyncq enqueue events note");
    let before = Files::read(&place.store());
    assert!(!before.wal.is_empty());
    let emptied = Files { db: Vec::new(), ..before };
    emptied.write(&place.store());
    place.stdout("ln -s .local/share/asyncq/queue.db link.db");
    for command in ["job list", "init", "enqueue events note", "process", "--db link.db init"] {
        place.session(&format!(
            "
            $ asyncq {command}
            ! error: the store is damaged: `[..].db` is empty, but `[..]/queue.db-wal` is not
            ! hint: stop every processor, and copy [..]
            ? 65
            "
        ));
        assert!(Files::read(&place.store()).holds_the_same(&emptied), "{command}");
    }
}

#[test]
fn a_store_that_lost_its_tables_is_not_made_anew() {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout("asyncq enqueue events note; sqlite3 .local/share/asyncq/queue.db 'PRAGMA wal_checkpoint(TRUNCATE)'");
    let mut files = Files::read(&place.store());
    // The first page says that the schema has no rows at all.
    files.db[103..105].fill(0);
    files.db[100] = 13;
    files.write(&place.store());
    for (command, code) in [("init", 65), ("service add more", 69)] {
        let output = place.run(&format!("asyncq {command}"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(Files::read(&place.store()).holds_the_same(&files));
    }
}

#[test]
fn the_hint_for_damage_works() {
    let place = Place::with_functions(&[("note", "echo $ASYNCQ_JOB >> runs")]);
    place.stdout(
        "large=$(head -c 1900 /dev/zero | tr '\\0' y); for i in $(seq 60); do asyncq enqueue events note $large; done
         sqlite3 .local/share/asyncq/queue.db 'PRAGMA wal_checkpoint(TRUNCATE)'",
    );
    let mut files = Files::read(&place.store());
    // A page in the midst of the jobs.
    let page = place.query("SELECT max(pageno) FROM dbstat WHERE name = 'asyncq_job' AND pagetype = 'leaf'");
    let at = (page.parse::<usize>().unwrap() - 1) * PAGE;
    files.db[at..at + PAGE].fill(0xee);
    files.write(&place.store());
    let output = place.run("asyncq job list --limit 0");
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let recipe = said.split("save what can be read: `").nth(1).unwrap().split('`').next().unwrap();
    place.stdout("cp .local/share/asyncq/queue.db copy.db; cp .local/share/asyncq/queue.db-wal copy.db-wal");
    place.stdout(&recipe.replace("COPY", "copy.db").replace("NEW", "new.db"));
    assert!(Files::read(&place.store()).holds_the_same(&files), "what is damaged is left as it is");
    place.session("$ asyncq --db new.db init\n! asyncq: `[..]/new.db` is up to date");
    place.stdout("asyncq --db new.db process");
    let saved = place.read("runs").lines().count();
    assert!((50..60).contains(&saved), "all but those of one page: {saved} of 60");
    place.session("$ asyncq --db new.db enqueue events note | grep -c .\n1");
}
