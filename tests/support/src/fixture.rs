//! Stores to test with, and what is put into them. No two things in here have the same value, so that one that is taken
//! for another is seen.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use asyncq::domain::attempt::Outcome;
use asyncq::domain::call::{Call, Principal, Reading};
use asyncq::domain::function::{CallFormat, Definition, FunctionName, FunctionPolicy, Inputs};
use asyncq::domain::job::{Claim, Finish, JobId, State, Token};
use asyncq::domain::log::{Log, Stream};
use asyncq::domain::new_job::NewJob;
use asyncq::domain::processor::{NewProcessor, ProcessorId};
use asyncq::domain::service::{ServiceChange, ServiceName};
use asyncq::store::{Cycle, CycleResult, Location, Patience, Store};

/// How long a store of these waits for others.
pub const PATIENCE: Patience = Patience::Deadline(Duration::from_secs(20));

/// Runs a test on an empty SQLite store.
pub fn sqlite(test: fn(&mut Store)) {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse("queue.db", folder.path()).unwrap();
    test(&mut Store::create(&location, PATIENCE).unwrap().0);
}

/// Runs a test on an empty store in the database of an application that keeps text as UTF-16.
pub fn utf16(test: fn(&mut Store)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("PRAGMA encoding = 'UTF-16'; PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER)")
        .unwrap();
    test(&mut Store::create(&Location::File(path), PATIENCE).unwrap().0);
}

/// Another connection to the same store.
pub fn again(store: &Store) -> Store {
    Store::open(store.location(), PATIENCE).unwrap()
}

/// A name of a service, which has to be one.
pub fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

/// A name of a function, which has to be one.
pub fn function(name: &str) -> FunctionName {
    FunctionName::parse(name).unwrap()
}

/// How many calls of a service run at once.
pub fn two() -> NonZeroU32 {
    NonZeroU32::new(2).unwrap()
}

/// A service that runs this many calls at once.
pub fn wide(concurrency: NonZeroU32) -> ServiceChange {
    ServiceChange { concurrency: Some(concurrency), ..ServiceChange::default() }
}

/// A function with everything that one can have but a worker.
pub fn definition() -> Definition {
    Definition {
        command: vec!["/bin/program".to_owned(), "first argument".to_owned()],
        site: "/the/site".to_owned(),
        env: BTreeMap::from([("NAME".to_owned(), "the value".to_owned())]),
        worker: None,
        call_format: CallFormat::default(),
        inputs: Inputs::default(),
        policy: FunctionPolicy::default(),
        generation: 0,
        timeout: Some(Duration::from_millis(7001)),
    }
}

/// Adds the service `events`, two calls at once, with the function `compute`.
pub fn with_events(store: &mut Store) {
    store.add_service(&service("events"), &wide(two())).unwrap();
    store.add_function(&service("events"), &function("compute"), &definition()).unwrap();
}

/// A call of `compute`, which the number tells from others.
pub fn call(number: i64) -> NewJob {
    let (args, kwargs) =
        (Reading::Json.positional(&[number.to_string()]).unwrap(), Reading::Json.keywords(&[("key", "word")]).unwrap());
    let principal = Some(Principal::parse("the principal").unwrap());
    let call = Call { principal, ..Call::new(service("events"), function("compute"), args, kwargs) };
    NewJob { os_user: Some("the user".to_owned()), ..NewJob::new(call) }
}

/// Enqueues the call with this number.
pub fn enqueue(store: &mut Store, number: i64) -> JobId {
    store.enqueue(&call(number)).unwrap().id()
}

/// Registers the processor with this number.
pub fn processor(store: &mut Store, number: i64) -> ProcessorId {
    store.register(&new_processor(number)).unwrap()
}

/// A processor that runs nowhere.
pub fn new_processor(number: i64) -> NewProcessor {
    NewProcessor {
        folder: format!("folder {number}"),
        host: "the host".to_owned(),
        boot: "the boot".to_owned(),
        pid: 4000 + number,
        pid_start: 90_000 + number,
    }
}

/// Tokens that no other test has.
pub fn tokens(count: u128) -> Vec<Token> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    (0..count).map(|_| Token::from_random(NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst).into())).collect()
}

/// Records ends and claims up to `room` calls of `events`.
pub fn run_cycle(
    store: &mut Store,
    processor: ProcessorId,
    finished: &[&Finish],
    running: usize,
    room: u128,
) -> CycleResult {
    let service = service("events");
    let tokens = tokens(room);
    let plan = Cycle { finished, held: running, running, tokens: &tokens, ..Cycle::of(processor, &service) };
    store.run_cycle(&plan).unwrap()
}

/// Gives a claim back that never began, and claims the next call.
pub fn give_back(store: &mut Store, processor: ProcessorId, claim: &Claim) -> CycleResult {
    let (service, tokens) = (service("events"), tokens(1));
    let plan = Cycle { returned: &[claim.fence], tokens: &tokens, ..Cycle::of(processor, &service) };
    store.run_cycle(&plan).unwrap()
}

/// Claims the one call that is ready.
pub fn claim(store: &mut Store, processor: ProcessorId) -> Claim {
    run_cycle(store, processor, &[], 0, 1).claims.pop().unwrap()
}

/// The end of a claimed call with this outcome.
pub fn ends(claim: &Claim, outcome: &Outcome) -> Finish {
    let decision = claim.definition.policy.retry.decide(outcome, claim.before, 0.5);
    Finish { took: Duration::from_millis(1234), ..Finish::new(claim.fence, decision) }
}

/// A log of both streams of which the middle is dropped.
pub fn log() -> Log {
    Log {
        bytes: b"to stdoutto stderr".to_vec(),
        pieces: vec![(Stream::Out, 9), (Stream::Err, 9)],
        dropped: 5555,
        gap: 9,
    }
}

/// The state of a job.
pub fn state(store: &mut Store, id: JobId) -> State {
    store.job(id).unwrap().state
}
