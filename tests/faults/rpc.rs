//! Kills of `asyncq rpc` while many threads of a program share it.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::place::Place;
use crate::scale;

/// How many threads share one process.
const THREADS: usize = 8;

/// What a thread learns of its request.
enum News {
    /// The job of the call with this number.
    Job(usize, i64),
    /// The process with this number has ended; what it has not answered, it never will.
    Ended(usize),
}

/// The process that is asked now.
struct Process {
    number: usize,
    child: Child,
    requests: ChildStdin,
}

/// A call, and the job that it got, if it got an answer.
struct Made {
    key: Option<String>,
    job: Option<i64>,
}

/// A program of many threads, and the process that they share.
struct Program {
    place: Place,
    process: Mutex<Process>,
    threads: Vec<Sender<News>>,
    kills: AtomicUsize,
    over: AtomicBool,
}

impl Program {
    fn new() -> (Program, Vec<Receiver<News>>) {
        let place = Place::with_functions(&[("mail", ":")]);
        let (threads, news): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
        let process = Mutex::new(start(&place, 0, &threads));
        (Program { place, process, threads, kills: AtomicUsize::new(0), over: AtomicBool::new(false) }, news)
    }

    /// Sends a request; gives the number of the process that got it, or was to get it.
    fn send(&self, line: &str) -> usize {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // Where it was killed, its end is news.
        let _ = process.requests.write_all(line.as_bytes());
        process.number
    }

    /// Makes calls, each after the answer to the one before. A call with a key that got no answer is made again.
    fn call(&self, thread: usize, calls: usize, news: &Receiver<News>) -> Vec<Made> {
        let mut made = Vec::new();
        for number in 0..calls {
            let key = (number % 4 != 0).then(|| format!("{thread}.{number}"));
            let member = key.as_ref().map(|key| format!(",\"key\":\"{key}\"")).unwrap_or_default();
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":\"{thread}.{number}\",\"method\":\"enqueue\",\"params\":{{\"service\":\"events\",\
                 \"function\":\"mail\",\"args\":[{thread},{number}]{member}}}}}\n"
            );
            let job = loop {
                let job = answer(news, number, self.send(&line));
                if job.is_some() || key.is_none() {
                    break job;
                }
            };
            made.push(Made { key, job });
        }
        made
    }

    /// Kills the process again and again, and starts the next one.
    fn kill(&self, kills: usize, random: &mut fastrand::Rng) {
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_micros(random.u64(500..30_000)));
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            if self.kills.load(Ordering::SeqCst) < kills {
                process.child.kill().unwrap();
                self.kills.fetch_add(1, Ordering::SeqCst);
                process.child.wait().unwrap();
                *process = start(&self.place, process.number + 1, &self.threads);
            }
        }
    }
}

/// Starts a process, and a thread that passes its answers on.
fn start(place: &Place, number: usize, threads: &[Sender<News>]) -> Process {
    let mut child = place.command("exec asyncq rpc").stdin(Stdio::piped()).spawn().unwrap();
    let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let threads = threads.to_vec();
    std::thread::spawn(move || {
        // A line that a kill has cut short is no answer.
        let lines = BufReader::new(answers).lines().map_while(Result::ok);
        for answer in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
            let (thread, call) = answer["id"].as_str().unwrap().split_once('.').unwrap();
            let job = answer["result"]["job"].as_i64().unwrap_or_else(|| panic!("{answer}"));
            let _ = threads[thread.parse::<usize>().unwrap()].send(News::Job(call.parse().unwrap(), job));
        }
        for thread in threads {
            let _ = thread.send(News::Ended(number));
        }
    });
    Process { number, child, requests }
}

/// The job of a call that this process was asked for; none if it ended without an answer.
fn answer(news: &Receiver<News>, call: usize, process: usize) -> Option<i64> {
    loop {
        match news.recv().unwrap() {
            News::Job(number, job) if number == call => return Some(job),
            News::Ended(number) if number == process => return None,
            News::Job(..) | News::Ended(_) => {}
        }
    }
}

#[test]
fn kills_lose_no_answered_call_and_double_none_with_a_key() {
    let (calls, kills) = (scale::many(20_000, 150), scale::many(2_000, 25));
    let (program, news) = Program::new();
    let mut random = scale::random("rpc");
    let made: Vec<Vec<Made>> = std::thread::scope(|scope| {
        let program = &program;
        let callers: Vec<_> = news
            .into_iter()
            .enumerate()
            .map(|(thread, news)| scope.spawn(move || program.call(thread, calls, &news)))
            .collect();
        let killer = scope.spawn(|| program.kill(kills, &mut random));
        let made = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        program.over.store(true, Ordering::SeqCst);
        killer.join().unwrap();
        made
    });
    let mut process = program.process.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(process.requests);
    assert!(process.child.wait().unwrap().success());

    // What is in the store, by arguments.
    let store = rusqlite::Connection::open(program.place.store()).unwrap();
    let mut statement = store.prepare("SELECT id, args FROM asyncq_job").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
    let mut stored: HashMap<String, Vec<i64>> = HashMap::new();
    for (id, args) in rows.map(Result::unwrap) {
        stored.entry(args).or_default().push(id);
    }
    let mut figures: BTreeMap<&str, usize> = BTreeMap::new();
    for (thread, made) in made.iter().enumerate() {
        assert_eq!(made.len(), calls);
        for (number, Made { key, job }) in made.iter().enumerate() {
            let jobs = stored.remove(&format!("[{thread},{number}]")).unwrap_or_default();
            match job {
                Some(job) => assert_eq!(jobs, [*job], "{thread}.{number}: {key:?}"),
                None => assert!(jobs.len() <= 1, "{thread}.{number}: {jobs:?}"),
            }
            *figures.entry(if job.is_some() { "answered" } else { "not answered" }).or_default() += 1;
            let silent = job.is_none() && !jobs.is_empty();
            *figures.entry("enqueued without an answer").or_default() += usize::from(silent);
        }
    }
    assert!(stored.is_empty(), "{stored:?}");
    let kills = program.kills.into_inner();
    assert!(kills > 5 && figures["answered"] > calls);
    scale::figure("rpc", format!("{kills} kills, {THREADS} threads: {figures:?}; 0 lost, 0 doubled"));
}
