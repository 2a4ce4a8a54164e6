//! How many instructions the store's verbs take, counted by valgrind: the same from run to run, whatever else the machine
//! does, so that a change which costs more is seen. Fails when one takes more than it may.
//!
//! ```sh
//! cargo bench --bench instructions
//! ```
//!
//! Each is counted twice, for few and for many calls; the difference is what a call takes.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};

use asyncq::domain::attempt::Outcome;
use asyncq::domain::call::Call;
use asyncq::domain::function::{CallFormat, Definition, FunctionName, FunctionPolicy, Inputs};
use asyncq::domain::job::{Finish, Token};
use asyncq::domain::json::Json;
use asyncq::domain::new_job::NewJob;
use asyncq::domain::processor::NewProcessor;
use asyncq::domain::service::{ServiceChange, ServiceName};
use asyncq::domain::{retry::AttemptCounts, retry_policy::RetryPolicy};
use asyncq::store::{Cycle, Location, Patience, Store};

/// A verb, how many calls it is counted for, and how many instructions each may take: about a fiftieth more than it did
/// with Rust 1.95 when that was last looked at.
const MEASURES: &[(&str, usize, u64)] = &[
    ("enqueue one", 200, 72_500),
    ("enqueue a thousand", 10, 11_280_000),
    ("claim and finish one", 200, 123_000),
    ("claim and finish 128", 20, 4_960_000),
    ("look for work", 500, 23_700),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, name, count, folder] = &args[..]
        && word == "count"
    {
        return run(name, count.parse().unwrap(), Path::new(folder));
    }
    let mut dear = Vec::new();
    println!("{:<24} {:>14} {:>14}", "instructions", "each", "at most");
    for (name, count, most) in MEASURES {
        let [few, many] = [*count, 3 * *count].map(|count| instructions(name, count));
        let each = (many - few) / (2 * *count as u64);
        println!("{name:<24} {each:>14} {most:>14}");
        if each > *most {
            dear.push(*name);
        }
    }
    assert!(
        dear.is_empty(),
        "{dear:?} take more instructions than they may: make them cheaper, or say why in a commit that allows more"
    );
}

/// How many instructions this program takes for so many calls of a verb.
fn instructions(name: &str, count: usize) -> u64 {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().to_str().unwrap();
    let counts = folder.path().join("counts");
    let program = std::env::current_exe().unwrap();
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", &format!("--callgrind-out-file={}", counts.display())])
        .arg(program)
        .args(["count", name, &count.to_string(), path])
        .stdout(Stdio::null())
        .status()
        .expect("valgrind is installed");
    assert!(status.success(), "{name}: {status}");
    let text = std::fs::read_to_string(counts).unwrap();
    let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    totals.unwrap().trim().parse().unwrap()
}

/// Calls a verb so many times in a new store.
fn run(name: &str, count: usize, folder: &Path) {
    let mut bench = Bench::new(&folder.join("queue.db"));
    match name {
        "enqueue one" => (0..count).for_each(|_| assert!(bench.store.enqueue(&bench.job).is_ok())),
        "enqueue a thousand" => {
            let jobs = vec![bench.job.clone(); 1000];
            (0..count).for_each(|_| assert!(bench.store.enqueue_all(&jobs).is_ok()));
        }
        "claim and finish one" => bench.claim(1, count),
        "claim and finish 128" => bench.claim(128, count),
        "look for work" => {
            (0..count).for_each(|_| assert!(!bench.store.service_status(&bench.service, None).unwrap().ready));
        }
        other => panic!("there is no measure `{other}`"),
    }
}

struct Bench {
    store: Store,
    service: ServiceName,
    job: NewJob,
}

impl Bench {
    fn new(path: &Path) -> Bench {
        let (mut store, _) = Store::create(&Location::File(path.to_owned()), Patience::Endless).unwrap();
        let (service, function) = (ServiceName::parse("events").unwrap(), FunctionName::parse("compute").unwrap());
        let wanted = ServiceChange { concurrency: std::num::NonZeroU32::new(1000), ..ServiceChange::default() };
        store.add_service(&service, &wanted).unwrap();
        let definition = Definition {
            command: vec!["/bin/true".to_owned()],
            site: "/".to_owned(),
            env: std::collections::BTreeMap::new(),
            timeout: None,
            worker: None,
            call_format: CallFormat::default(),
            inputs: Inputs::default(),
            policy: FunctionPolicy::default(),
            generation: 0,
        };
        store.add_function(&service, &function, &definition).unwrap();
        let [args, kwargs] = ["[2,7]", "{}"].map(|text| Json::parse(text).unwrap());
        let job = NewJob::new(Call::new(service.clone(), function, args, kwargs));
        Bench { store, service, job }
    }

    /// Finishes some and claims as many, so many times.
    fn claim(&mut self, at_once: usize, count: usize) {
        let is = NewProcessor { folder: "bench".into(), host: "h".into(), boot: "b".into(), pid: 1, pid_start: 1 };
        let processor = self.store.register(&is).unwrap();
        // As many whatever the count, so that only the claims differ.
        for _ in 0..8 {
            self.store.enqueue_all(&vec![self.job.clone(); 1000]).unwrap();
        }
        let tokens: Vec<Token> = (0..at_once).map(|number| Token::from_random(number as u128)).collect();
        let mut last: Vec<Finish> = Vec::new();
        for _ in 0..count {
            let finished: Vec<&Finish> = last.iter().collect();
            let plan = Cycle { finished: &finished, tokens: &tokens, ..Cycle::of(processor, &self.service) };
            let claims = self.store.run_cycle(&plan).unwrap().claims;
            assert_eq!(claims.len(), at_once);
            let ended = claims.into_iter().map(|claim| {
                let decision = RetryPolicy::default().decide(&Outcome::Completed, AttemptCounts::default(), 0.0);
                Finish::new(claim.fence, decision)
            });
            last = ended.collect();
        }
    }
}
