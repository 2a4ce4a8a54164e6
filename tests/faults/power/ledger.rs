//! The books: what asyncq has told anybody so far, and whether a store still knows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::trace::{self, Argument};

/// Something told.
#[derive(Debug)]
pub enum Fact {
    /// The store is made.
    Made,
    /// The service or the function is there.
    Defined(String),
    /// The schema has this version.
    Version(i64),
    /// The call is queued.
    Promised { job: i64, call: Call },
    /// The function runs.
    Began { job: i64, attempt: i64 },
    /// The job is completed, with this result.
    Completed { job: i64, result: String },
    /// All jobs while nobody is at work.
    All(Vec<(i64, Job)>),
    /// Somebody asks for these to be run again,
    Reopening(Vec<i64>),
    /// and for those that have ended to be removed.
    Cleaning,
}

impl Fact {
    /// What somebody did that this tells of.
    pub fn verb(&self) -> Option<&'static str> {
        Some(match self {
            Fact::Promised { .. } => "enqueue",
            Fact::Began { .. } => "claim",
            Fact::Completed { .. } => "finish",
            Fact::Reopening(_) => "retry",
            Fact::Cleaning => "clean",
            Fact::Version(2..) => "upgrade",
            Fact::Made | Fact::Defined(_) | Fact::Version(_) | Fact::All(_) => return None,
        })
    }
}

/// What a call says, with JSON as its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    args: String,
    kwargs: String,
    key: Option<String>,
    principal: Option<String>,
}

impl Call {
    fn plain(args: String) -> Call {
        Call { args, kwargs: "{}".to_owned(), key: None, principal: None }
    }

    /// As the words that follow `asyncq enqueue` say.
    fn enqueued(words: &[&str]) -> Option<Call> {
        let events = words.iter().position(|word| *word == "events")?;
        let mut call = Call::plain(format!("[{}]", words[events + 2..].join(",")));
        for option in words[..events].windows(2) {
            match *option {
                ["--key", key] => call.key = Some(key.to_owned()),
                ["--principal", name] => call.principal = Some(name.to_owned()),
                ["-k", kwarg] => {
                    let (name, value) = kwarg.split_once('=')?;
                    call.kwargs = json!({ name: value }).to_string();
                }
                _ => {}
            }
        }
        Some(call)
    }
}

/// A result that is none.
const NOTHING: &str = "null";

/// The facts in a trace, each with the line after which it is known.
pub fn facts(calls: &[trace::Call]) -> Vec<(usize, Fact)> {
    let mut reporter = Reporter::default();
    for call in calls {
        reporter.hear(call);
    }
    reporter.facts
}

/// Listens to what programs are told to do, and what they tell.
#[derive(Default)]
struct Reporter {
    programs: HashMap<u32, Program>,
    facts: Vec<(usize, Fact)>,
}

/// A program, or a thread of one; then without arguments.
#[derive(Default)]
struct Program {
    arguments: Vec<String>,
    stdout: Stream,
    stderr: Stream,
}

/// What was written, and how much of it was heard: whole lines.
#[derive(Default)]
struct Stream {
    text: Vec<u8>,
    heard: usize,
}

impl Stream {
    /// Gives the lines that are whole now.
    fn hear(&mut self, text: &[u8]) -> String {
        let begin = self.heard;
        if let Some(newline) = text.iter().rposition(|byte| *byte == b'\n') {
            self.heard = self.text.len() + newline + 1;
        }
        self.text.extend(text);
        String::from_utf8_lossy(&self.text[begin..self.heard]).into_owned()
    }
}

impl Reporter {
    fn hear(&mut self, call: &trace::Call) {
        match (call.name.as_str(), &call.arguments[..]) {
            ("execve", [_, Argument::List(arguments), ..]) => {
                let arguments = arguments.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
                let program = Program { arguments, ..Program::default() };
                self.facts.extend(program.intention().map(|fact| (call.begun, fact)));
                self.programs.insert(call.thread, program);
            }
            ("write", [Argument::File(number @ (1 | 2), _), Argument::Text(text), ..]) => {
                let program = self.programs.entry(call.thread).or_default();
                let stream = if *number == 1 { &mut program.stdout } else { &mut program.stderr };
                let lines = stream.hear(text);
                self.facts.extend(lines.lines().filter_map(|line| program.fact(line)).map(|fact| (call.begun, fact)));
            }
            ("exited", _) => {
                let program = self.programs.remove(&call.thread).unwrap_or_default();
                self.facts.extend(program.end(call.result).map(|fact| (call.begun, fact)));
            }
            _ => {}
        }
    }
}

impl Program {
    /// The words of an asyncq command.
    fn words(&self) -> Vec<&str> {
        let mut words = self.arguments.iter().map(String::as_str);
        let is_asyncq = words.next().is_some_and(|program| program.ends_with("asyncq"));
        if is_asyncq { words.collect() } else { Vec::new() }
    }

    fn intention(&self) -> Option<Fact> {
        match self.words()[..] {
            ["job", "retry", ref jobs @ ..] => {
                Some(Fact::Reopening(jobs.iter().map(|job| job.parse().unwrap()).collect()))
            }
            ["job", "clean", ..] => Some(Fact::Cleaning),
            _ => None,
        }
    }

    fn fact(&self, line: &str) -> Option<Fact> {
        if let ["enqueue", ref words @ ..] = self.words()[..] {
            return Some(Fact::Promised { job: line.parse().ok()?, call: Call::enqueued(words)? });
        }
        if let Some(promised) = line.strip_prefix("promised|") {
            let (job, rest) = promised.split_once('|')?;
            let (key, args) = rest.split_once('|')?;
            let call = Call { key: Some(key.to_owned()), ..Call::plain(args.to_owned()) };
            return Some(Fact::Promised { job: job.parse().ok()?, call });
        }
        if let Some(version) = line.strip_prefix("version|") {
            return version.parse().ok().map(Fact::Version);
        }
        if let Some(job) = line.strip_prefix("finished|") {
            return Some(Fact::Completed { job: job.parse().ok()?, result: NOTHING.to_owned() });
        }
        if let Some(began) = line.strip_prefix("began ") {
            let (job, attempt) = began.split_once(' ')?;
            return Some(Fact::Began { job: job.parse().ok()?, attempt: attempt.parse().ok()? });
        }
        // What `asyncq process -v` tells about each call.
        let (job, end) = line.strip_prefix("asyncq: job ")?.split_once(" (")?;
        let result = if end.contains("`say`") { "\"said\"" } else { NOTHING }.to_owned();
        end.contains("): completed after ").then(|| Some(Fact::Completed { job: job.parse().ok()?, result }))?
    }

    fn end(&self, code: i64) -> Option<Fact> {
        match self.words()[..] {
            ["init"] if code == 0 => Some(Fact::Made),
            ["service", "add", name, ..] if code == 0 => Some(Fact::Defined(format!("service {name}"))),
            ["function", "add", _, name, ..] if code == 0 => Some(Fact::Defined(format!("function {name}"))),
            ["job", "list", ..] => {
                let jobs: Vec<Value> = serde_json::from_slice(&self.stdout.text).unwrap();
                Some(Fact::All(jobs.iter().map(|job| (job["id"].as_i64().unwrap(), Job::listed(job))).collect()))
            }
            _ => None,
        }
    }
}

/// What is known of a job.
#[derive(Debug, Default, Clone)]
struct Known {
    call: Option<Call>,
    /// What its function gave back, as its text.
    result: Option<String>,
    /// The latest attempt that is known.
    attempt: i64,
    /// The state in which it has ended.
    ended: Option<String>,
    /// It was tried again by hand: the error of this attempt counts no more.
    reopened: Option<i64>,
    may_go: bool,
    gone: bool,
}

/// All that is known at a time.
#[derive(Debug, Default)]
pub struct Ledger {
    made: bool,
    version: i64,
    defined: BTreeSet<String>,
    jobs: BTreeMap<i64, Known>,
}

/// What a store does not know any more.
#[derive(Debug, Default)]
pub struct Faults {
    /// Acknowledged and not there, or not as it was.
    pub lost: Vec<String>,
    /// What SQLite finds wrong, or that it can read nothing.
    pub broken: Vec<String>,
    /// Ended, or removed, and back.
    pub revived: Vec<String>,
}

impl Faults {
    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.broken.is_empty() && self.revived.is_empty()
    }
}

/// A job as a store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    state: String,
    attempt: i64,
    call: Call,
    result: String,
}

impl Job {
    /// As `asyncq job list` shows it.
    fn listed(job: &Value) -> Job {
        let text = |name: &str| job[name].as_str().map(str::to_owned);
        let json = |name: &str| job[name].to_string();
        let call = Call { args: json("args"), kwargs: json("kwargs"), key: text("key"), principal: text("principal") };
        let attempt = job["attempt"].as_i64().unwrap();
        Job { state: text("state").unwrap(), attempt, call, result: json("result") }
    }
}

fn has_ended(state: &str) -> bool {
    ["completed", "error", "cancelled"].contains(&state)
}

impl Ledger {
    pub fn learn(&mut self, fact: &Fact) {
        match fact {
            Fact::Made => self.made = true,
            Fact::Version(version) => self.version = *version,
            Fact::Defined(what) => drop(self.defined.insert(what.clone())),
            Fact::Promised { job, call } => self.job(*job).call = Some(call.clone()),
            Fact::Began { job, attempt } => {
                let job = self.job(*job);
                job.attempt = job.attempt.max(*attempt);
            }
            Fact::Completed { job, result } => {
                let job = self.job(*job);
                (job.ended, job.result) = (Some("completed".to_owned()), Some(result.clone()));
            }
            Fact::All(jobs) => self.compare(jobs),
            Fact::Reopening(jobs) => {
                for job in jobs {
                    self.job(*job).ended = None;
                }
            }
            Fact::Cleaning => {
                for job in self.jobs.values_mut().filter(|job| job.ended.is_some()) {
                    job.may_go = true;
                }
            }
        }
    }

    fn job(&mut self, job: i64) -> &mut Known {
        self.jobs.entry(job).or_default()
    }

    fn compare(&mut self, jobs: &[(i64, Job)]) {
        let there: BTreeSet<i64> = jobs.iter().map(|(job, ..)| *job).collect();
        for (job, known) in &mut self.jobs {
            let gone = !there.contains(job);
            assert!(!gone || known.may_go || known.gone, "job {job} is gone without a power cut");
            known.gone = gone;
            known.may_go = false;
        }
        for (job, found) in jobs {
            let known = self.job(*job);
            let mut faults = Faults::default();
            known.compare(*job, Some(found), &mut faults);
            assert!(faults.is_empty(), "without a power cut: {faults:?}");
            known.attempt = found.attempt;
            known.call = Some(found.call.clone());
            if has_ended(&found.state) {
                (known.ended, known.result) = (Some(found.state.clone()), Some(found.result.clone()));
            } else {
                known.reopened = Some(found.attempt);
            }
        }
    }

    /// Whether somebody was told that the store is there.
    pub fn is_made(&self) -> bool {
        self.made
    }

    /// Whether a job has ended for good.
    pub fn has_ended(&self, job: i64) -> bool {
        self.jobs.get(&job).is_some_and(|known| known.ended.is_some() || known.gone)
    }

    /// The latest attempt of a job that is known to have begun.
    pub fn attempt(&self, job: i64) -> i64 {
        self.jobs.get(&job).map_or(0, |known| known.attempt)
    }

    /// The jobs that must be there.
    pub fn promised(&self) -> impl Iterator<Item = i64> {
        self.jobs.iter().filter(|(_, known)| !known.gone && !known.may_go).map(|(job, _)| *job)
    }

    /// Opens the store that a power cut left, which recovers it, and compares.
    pub fn check(&self, store: &Path) -> Faults {
        let mut faults = Faults::default();
        if !store.exists() {
            faults.lost.extend(self.made.then(|| "the store".to_owned()));
            return faults;
        }
        match look(store) {
            // An application's database, before asyncq has come into it.
            Ok(look) if !self.made && look.is_foreign => faults.broken = look.complaints,
            Err(error) => faults.broken.push(error.to_string()),
            Ok(look) => {
                faults.broken = look.complaints;
                faults.lost.extend((look.version < self.version).then(|| "the upgrade".to_owned()));
                faults.lost.extend(self.defined.difference(&look.defined).cloned());
                for (job, known) in &self.jobs {
                    known.compare(*job, look.jobs.get(job), &mut faults);
                }
            }
        }
        faults
    }
}

impl Known {
    fn compare(&self, job: i64, found: Option<&Job>, faults: &mut Faults) {
        let Some(found) = found else {
            faults.lost.extend((!self.gone && !self.may_go).then(|| format!("job {job}, {self:?}")));
            return;
        };
        let text = || format!("job {job}, {self:?}: {found:?}");
        if self.gone || self.ended.as_ref().is_some_and(|ended| *ended != found.state) {
            faults.revived.push(text());
        }
        let is_other = self.call.as_ref().is_some_and(|call| *call != found.call);
        let is_fruitless = self.ended.is_some() && self.result.as_ref().is_some_and(|result| *result != found.result);
        let is_closed = found.state == "error" && self.ended.is_none() && self.reopened == Some(found.attempt);
        if is_other || is_fruitless || is_closed || found.attempt < self.attempt {
            faults.lost.push(text());
        }
    }
}

/// What a store has.
#[derive(Default)]
struct Look {
    is_foreign: bool,
    version: i64,
    complaints: Vec<String>,
    defined: BTreeSet<String>,
    jobs: BTreeMap<i64, Job>,
}

fn look(store: &Path) -> rusqlite::Result<Look> {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let texts = |sql: &str| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let mut complaints = texts("PRAGMA integrity_check")?;
    complaints.retain(|text| text != "ok");
    complaints.extend(texts("SELECT 'a row of ' || \"table\" || ' refers to nothing' FROM pragma_foreign_key_check")?);
    let tables = texts("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    if tables == ["note"] {
        return Ok(Look { is_foreign: true, complaints, ..Look::default() });
    }
    let version = connection.query_row("SELECT version FROM asyncq_schema", [], |row| row.get(0))?;
    let defined =
        "SELECT 'service ' || name FROM asyncq_service UNION ALL SELECT 'function ' || name FROM asyncq_function";
    let defined = texts(defined)?.into_iter().collect();
    let sql = "SELECT id, state, attempt, coalesce(job.args, large.args), coalesce(job.kwargs, large.kwargs), key,
        principal, coalesce(result, 'null') FROM asyncq_job job LEFT JOIN asyncq_large large ON large.job = job.id";
    let mut statement = connection.prepare(sql)?;
    let jobs = statement.query_map([], |row| {
        let call = Call { args: row.get(3)?, kwargs: row.get(4)?, key: row.get(5)?, principal: row.get(6)? };
        Ok((row.get(0)?, Job { state: row.get(1)?, attempt: row.get(2)?, call, result: row.get(7)? }))
    })?;
    Ok(Look { is_foreign: false, version, complaints, defined, jobs: jobs.collect::<Result<_, _>>()? })
}

/// As after a start of the machine: nobody who was at work is still there. Gives the version of the schema.
pub fn start_anew(store: &Path) -> i64 {
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    connection.execute("UPDATE asyncq_processor SET boot = 'another'", []).unwrap();
    connection.query_row("SELECT version FROM asyncq_schema", [], |row| row.get(0)).unwrap()
}

/// The states of all jobs in a store.
pub fn states(store: &Path) -> BTreeMap<i64, String> {
    look(store).unwrap().jobs.into_iter().map(|(job, found)| (job, found.state)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_see_every_change_of_a_call() {
        let words = ["--key", "1", "-k", "mode=fast", "--principal", "bob", "events", "say", "1"];
        let call = Call::enqueued(&words).unwrap();
        let mut ledger = Ledger::default();
        ledger.learn(&Fact::Promised { job: 1, call: call.clone() });
        ledger.learn(&Fact::Completed { job: 1, result: "7".to_owned() });
        let lost = |job: &Job| {
            let mut faults = Faults::default();
            ledger.jobs[&1].compare(1, Some(job), &mut faults);
            faults.lost.len()
        };
        let right = Job { state: "completed".to_owned(), attempt: 1, call, result: "7".to_owned() };
        assert_eq!(lost(&right), 0);
        let spoils: [fn(&mut Job); 5] = [
            |job| job.call.args = "[2]".to_owned(),
            |job| job.call.kwargs = "{}".to_owned(),
            |job| job.call.key = None,
            |job| job.call.principal = None,
            |job| job.result = NOTHING.to_owned(),
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let mut job = right.clone();
            spoil(&mut job);
            assert_eq!(lost(&job), 1, "{number}: {job:?}");
        }
    }
}
