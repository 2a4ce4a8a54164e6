//! Cuts the power after each call of a recording, again and again, and looks what is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tempfile::TempDir;

use super::disk::{Act, Disk, Left, Names, make_files};
use super::ledger::{Faults, Ledger, start_anew, states};
use super::recording::{Recording, counts};
use crate::scale;

/// How many work at it.
const THREADS: usize = 2;

/// A replay.
pub struct Replay<'a> {
    pub recording: &'a Recording,
    pub names: Names,
    /// How many states are made: one after each call and several where it leaves something open, or else a sample of those.
    pub states: usize,
    /// Of so many states one is also worked on by asyncq itself.
    pub drained: usize,
    /// The acts that are left out, to see what comes of it.
    pub without: fn(&Act) -> bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct AttemptCounts {
    pub calls: usize,
    pub states: usize,
    pub drained: usize,
    /// In how many states something was wrong,
    pub lost: usize,
    pub broken: usize,
    pub revived: usize,
    /// and what, in the first of them.
    pub examples: Vec<String>,
    pub seconds: f64,
}

impl std::fmt::Display for AttemptCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AttemptCounts { calls, states, drained, lost, broken, revived, seconds, .. } = self;
        write!(
            f,
            "{states} states after {calls} calls, {drained} of them drained: {lost} with something acknowledged lost, \
             {broken} with integrity errors, {revived} with a finished job back to life; {seconds:.0} s"
        )
    }
}

impl AttemptCounts {
    fn add(&mut self, faults: &Faults, after: &str) {
        let kinds =
            [(&mut self.lost, &faults.lost), (&mut self.broken, &faults.broken), (&mut self.revived, &faults.revived)];
        for (count, texts) in kinds {
            *count += usize::from(!texts.is_empty());
            if let Some(text) = texts.first()
                && self.examples.len() < 5
            {
                self.examples.push(format!("{after}: {text:.300}"));
            }
        }
    }

    fn merge(&mut self, other: AttemptCounts) {
        self.states += other.states;
        self.drained += other.drained;
        self.lost += other.lost;
        self.broken += other.broken;
        self.revived += other.revived;
        self.examples.extend(other.examples);
    }

    pub fn is_clean(&self) -> bool {
        (self.lost, self.broken, self.revived) == (0, 0, 0)
    }
}

impl Replay<'_> {
    pub fn run(&self) -> AttemptCounts {
        let begin = Instant::now();
        let cuts = self.cuts();
        let (cuts, threads) = (&cuts, THREADS);
        let mut tally = AttemptCounts { calls: self.recording.calls(), ..AttemptCounts::default() };
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads).map(|part| scope.spawn(move || self.part(cuts, part))).collect();
            for part in parts {
                tally.merge(part.join().unwrap());
            }
        });
        tally.seconds = begin.elapsed().as_secs_f64();
        tally
    }

    fn root(&self) -> PathBuf {
        fs::canonicalize(self.recording.place.path()).unwrap()
    }

    /// After how many acts the power is cut, once for each state: evenly spread over those that leave something open.
    /// If there are more states than acts, then also once after each of the others.
    fn cuts(&self) -> Vec<usize> {
        let mut disk = Disk::new(&self.root(), self.names);
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for (index, act) in self.recording.acts.iter().enumerate() {
            self.act(&mut disk, act);
            if index < self.recording.before {
                continue;
            }
            if disk.is_open(counts) { &mut open } else { &mut closed }.push(index);
        }
        if self.states < open.len() + closed.len() {
            closed.clear();
        }
        let count = self.states - closed.len();
        let mut cuts: Vec<usize> = (0..count).map(|state| open[state * open.len() / count]).chain(closed).collect();
        cuts.sort_unstable();
        cuts
    }

    fn act(&self, disk: &mut Disk, act: &Act) {
        if !(self.without)(act) {
            disk.act(act);
        }
    }

    /// One of the threads' part of the cuts.
    fn part(&self, cuts: &[usize], part: usize) -> AttemptCounts {
        let Recording { acts, facts, .. } = self.recording;
        let mut facts = facts.iter().peekable();
        let mut disk = Disk::new(&self.root(), self.names);
        let mut ledger = Ledger::default();
        let mut tally = AttemptCounts::default();
        let folder = quick_folder();
        let mut done = 0;
        for (state, cut) in cuts.iter().enumerate().skip(part).step_by(THREADS) {
            for act in &acts[done..=*cut] {
                self.act(&mut disk, act);
            }
            done = cut + 1;
            // What was told before the next act was done must be true.
            let until = acts.get(done).map_or(usize::MAX, |act| act.ended);
            while let Some((_, fact)) = facts.next_if(|(line, _)| *line < until) {
                ledger.learn(fact);
            }
            let mut random = scale::random(&format!("power {:?} {state}", self.names));
            let left = disk.cut(&mut random);
            let after = format!("state {state}, after call {cut} of {} bytes", weight(&left));
            let store = self.put(&left, folder.path());
            tally.states += 1;
            tally.add(&ledger.check(&store), &after);
            if state % self.drained == 0 && tally.is_clean() {
                self.put(&left, folder.path());
                tally.drained += 1;
                tally.add(&self.drain(&store, &ledger), &format!("{after}, drained"));
            }
        }
        tally
    }

    /// Makes the files that are left; gives the path of the store.
    fn put(&self, left: &Left<'_>, folder: &Path) -> PathBuf {
        let store = self.recording.place.store();
        make_files(left, &self.root(), folder).join(store.strip_prefix(self.recording.place.path()).unwrap())
    }

    /// Has asyncq itself go on after the power cut: every call that was promised runs to its end, and none again.
    fn drain(&self, store: &Path, ledger: &Ledger) -> Faults {
        let mut faults = Faults::default();
        let place = &self.recording.place;
        let asyncq = format!("asyncq --db '{}'", store.display());
        if !ledger.is_made() || !store.exists() {
            let output = place.run(&format!("{asyncq} init"));
            faults.broken.extend((!output.status.success()).then(|| format!("{output:?}")));
            return faults;
        }
        let future = if start_anew(store) > 1 { "ASYNCQ_FUTURE_SCHEMA=1 " } else { "" };
        let output = place.run(&format!("{future}{asyncq} process"));
        if !matches!(output.status.code(), Some(0 | 1)) {
            faults.broken.push(format!("{output:?}"));
            return faults;
        }
        for (job, attempt) in began(&String::from_utf8_lossy(&output.stdout)) {
            if ledger.has_ended(job) {
                faults.revived.push(format!("job {job} runs again"));
            } else if attempt <= ledger.attempt(job) {
                faults.lost.push(format!("attempt {attempt} of job {job} is made again"));
            }
        }
        let states = states(store);
        let state = |job: &i64| states.get(job).map_or("missing", String::as_str);
        let left = ledger.promised().filter(|job| ["queued", "processing", "missing"].contains(&state(job)));
        faults.lost.extend(left.map(|job| format!("job {job} is left {}", state(&job))));
        faults
    }
}

fn began(stdout: &str) -> impl Iterator<Item = (i64, i64)> {
    let lines = stdout.lines().filter_map(|line| line.strip_prefix("began ")?.split_once(' '));
    lines.map(|(job, attempt)| (job.parse().unwrap(), attempt.parse().unwrap()))
}

fn weight(left: &Left<'_>) -> usize {
    left.values().flatten().map(|(_, bytes)| bytes.len()).sum()
}

/// A folder in memory where there is one.
pub fn quick_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
