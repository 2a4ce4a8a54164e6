//! What a signature costs: the check of a call in asyncq, and that of the trigger for a plain INSERT.

use std::hint::black_box;
use std::time::Duration;

use asyncq::domain::call::Call;
use asyncq::domain::function::FunctionName;
use asyncq::domain::json::Json;
use asyncq::domain::service::ServiceName;
use asyncq::domain::signature::{Signature, fitted};
use rusqlite::Connection;

use super::{Bench, in_turn, tell, timed};

const TAKES: &str = "to:text subject:text [body:text] [--html:bool] [--priority:int]";
const ARGS: &str = r#"["someone@example.com","Your order","a body of some length, as mails have it"]"#;
const KWARGS: &str = r#"{"html":true,"priority":7}"#;

const CHECKS: u32 = 100_000;
const INSERTS: u32 = 50_000;
const AT_ONCE: u32 = 1000;

/// The signature is read and the call is checked, as in each `enqueue`; and plain INSERTs, with a signature and without one.
pub fn signature() {
    println!("signature: `{TAKES}`, all of which the call gives; medians, in turn with the other; per call");
    let json = |text| Json::parse(text).unwrap();
    let (service, function) = (ServiceName::parse("events").unwrap(), FunctionName::parse("mail").unwrap());
    let call = Call::new(service, function, json(ARGS), json(KWARGS));
    let check = |takes: Option<&str>| {
        timed(|| {
            for _ in 0..CHECKS {
                let takes = black_box(takes).map(|text| Signature::parse(text).unwrap());
                black_box(fitted(black_box(call.clone()), takes.as_ref()).unwrap());
            }
        }) / CHECKS
    };
    let [ours, theirs] = in_turn(21, || [check(Some(TAKES)), check(None)]);
    println!("{:<58} {:>10.1?}{:>16}(to reach: at most 20 µs)", "the check of a call", ours.saturating_sub(theirs), "");
    let [ours, theirs] = in_turn(11, || [insert(Some(TAKES)), insert(None)]);
    tell(
        "a plain INSERT, 1,000 at once | without a signature",
        ours,
        theirs,
        "at most 1.05, that is 0.95 of its speed",
    );
}

fn insert(takes: Option<&str>) -> Duration {
    let bench = Bench::new(1);
    let signature = takes.map_or_else(Vec::new, |takes| vec!["--takes", takes]);
    let command = ["--", "/bin/true"];
    bench.asyncq(&[&["function", "add", "events", "mail"], &signature[..], &command].concat());
    let db = Connection::open(bench.path()).unwrap();
    db.execute_batch("PRAGMA synchronous=FULL").unwrap();
    let sql = "INSERT INTO asyncq_job (service, function, args, kwargs) VALUES ('events', 'mail', ?1, ?2)";
    let mut insert = db.prepare(sql).unwrap();
    timed(|| {
        for _ in 0..INSERTS / AT_ONCE {
            db.execute_batch("BEGIN IMMEDIATE").unwrap();
            for _ in 0..AT_ONCE {
                insert.execute([ARGS, KWARGS]).unwrap();
            }
            db.execute_batch("COMMIT").unwrap();
        }
    }) / INSERTS
}
