//! A dead processor is not a dead job: what its functions have started is gone before the job is run again, however that
//! tries to get away.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::process::CommandExt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::books::{Books, Line};
use crate::place::{Place, Running, runs, wait_until};
use crate::referee::{Verdict, judge};
use crate::scale::{figure, full, many, random};

/// How many trials there are at once, each on a store of its own.
const LANES: usize = 2;

/// How long after the kill it is looked once more whether anything is left.
const LATEST: Duration = Duration::from_secs(15);

/// Who is killed. `Group` is the process group of the one that was started, as a shell's `kill -9 %1` means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Supervisor,
    Engine,
    Both,
    Group,
}

#[derive(Debug, Clone)]
struct Trial {
    /// How the function's tree gets away: the letters that `job.c` knows.
    shape: String,
    victim: Victim,
    /// How many microseconds the tree may grow before the kill; without, it is fully grown.
    growing: Option<u64>,
    /// Whether another processor is at work already, or one is started after the kill.
    other: bool,
}

impl Trial {
    fn new(random: &mut fastrand::Rng, number: usize) -> Trial {
        let victims = [Victim::Supervisor, Victim::Engine, Victim::Both, Victim::Group];
        let victim = victims[random.usize(..victims.len())];
        let mut shape: String = "schbqd".chars().filter(|_| random.bool()).collect();
        let growing = (random.u8(..4) == 0).then(|| random.u64(..3000));
        if growing.is_none() && random.u8(..6) == 0 {
            // It has ended, and what it has left is given time to end as well, which the deaf ones use up.
            shape = shape.replace(['d', 'h'], "") + "hde";
        }
        if victim == Victim::Both {
            // The known limit: nobody is left who would find those that have cleared their environment.
            shape = shape.replace('b', "");
        }
        Trial { shape, victim, growing, other: number.is_multiple_of(2) }
    }

    /// Whether the program ends before the kill.
    fn ends(&self) -> bool {
        self.shape.contains('e')
    }
}

impl Victim {
    /// Kills whoever is meant of a processor; `order` says who is first, where it is both. Gives who was killed.
    fn kill(self, processor: &Running, order: bool) -> Vec<Pid> {
        let started = Pid::from_child(&processor.0);
        // None where it was too late, and the processor has ended.
        let engine = processor.engine().parse().ok().and_then(Pid::from_raw);
        let mut whom = match self {
            Victim::Group => {
                kill_process_group(started, Signal::KILL).unwrap();
                return vec![started];
            }
            Victim::Supervisor => vec![started],
            Victim::Engine => engine.into_iter().collect(),
            Victim::Both => engine.into_iter().chain([started]).collect(),
        };
        if order {
            whom.reverse();
        }
        for pid in &whom {
            // The second one may have followed the first by itself.
            let _ = kill_process(*pid, Signal::KILL);
        }
        whom
    }
}

/// What came of the trials.
#[derive(Default)]
struct Count {
    /// Microseconds from the kill to the new start, beside another processor and without one.
    beside: Vec<i64>,
    alone: Vec<i64>,
    /// Jobs whose outcome was recorded before the kill.
    recorded: usize,
    checked_late: usize,
    verdicts: Vec<Verdict>,
}

/// One store with its books, for some trials one after the other.
struct Lane {
    place: Place,
    books: Books,
    /// What names the trees that must be gone by then.
    to_check: VecDeque<(Instant, String)>,
    count: Count,
}

impl Lane {
    fn new() -> Lane {
        let (place, books) = (Place::with_functions(&[]), Books::open());
        place.stdout("asyncq service set events --concurrency 2");
        books.function(&place, "events tree", "tree");
        books.function(&place, "events keeps", "until");
        Lane { place, books, to_check: VecDeque::new(), count: Count::default() }
    }

    fn play(&mut self, number: usize, trial: &Trial, order: bool) {
        let name = self.place.at(&format!("tree-{number}-")).display().to_string();
        let job = self.enqueue(&format!("tree '{}' {name}", trial.shape));
        // It cannot claim what is for the other one.
        let victim = self.process("--max-jobs 1");
        self.wait_for("START", job);
        let kept = self.place.at(&format!("kept-{number}"));
        let other = trial.other.then(|| {
            let keeps = self.enqueue(&format!("keeps {}", kept.display()));
            let other = self.process("");
            self.wait_for("START", keeps);
            other
        });
        fs::write(&name, "").unwrap();
        match trial.growing {
            Some(micros) => std::thread::sleep(Duration::from_micros(micros)),
            None => self.wait_for(if trial.ends() { "END" } else { "GROWN" }, job),
        }
        let due = Instant::now() + LATEST;
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let dead = trial.victim.kill(&victim, order);
        let next = other.unwrap_or_else(|| {
            wait_until("the kill has come about", || dead.iter().all(|pid| !runs(&pid.to_string())));
            self.process("")
        });

        self.wait_for_the_next_start(job, trial);
        let again = self.started_again(job);
        let left = trees(&name, again.as_ref());
        assert!(left.is_empty(), "{trial:?}: {left:?} run beside the next attempt");
        match again.map(|again| again.time - i64::try_from(killed).unwrap()) {
            None => self.count.recorded += 1,
            Some(took) if trial.other => self.count.beside.push(took),
            Some(took) => self.count.alone.push(took),
        }
        fs::write(kept, "").unwrap();
        let output = next.wait();
        assert!(output.status.success(), "{trial:?}: {output:?}");
        drop(victim);
        self.to_check.push_back((due, name));
        self.check_those_that_are_due();
    }

    fn enqueue(&self, call: &str) -> i64 {
        self.place.stdout(&format!("asyncq enqueue events {call}")).trim().parse().unwrap()
    }

    /// A processor in a process group of its own.
    fn process(&self, options: &str) -> Running {
        let mut command = self.place.command(&format!("exec asyncq -q process {options}"));
        Running(command.process_group(0).spawn().unwrap())
    }

    fn lines(&self, word: &str, job: i64) -> Vec<Line> {
        self.books.lines().into_iter().filter(|line| line.word == word && line.job == job).collect()
    }

    fn wait_for(&self, word: &str, job: i64) {
        wait_until(&format!("{word} {job}"), || !self.lines(word, job).is_empty());
    }

    fn started_again(&self, job: i64) -> Option<Line> {
        self.lines("START", job).into_iter().nth(1)
    }

    fn wait_for_the_next_start(&self, job: i64, trial: &Trial) {
        let state = format!("SELECT state FROM asyncq_job WHERE id = {job}");
        wait_until(&format!("{trial:?}: it is run again"), || {
            self.started_again(job).is_some() || trial.ends() && self.place.query(&state) == "completed"
        });
    }

    /// At full size each tree is looked for once more when its time is over.
    fn check_those_that_are_due(&mut self) {
        while full()
            && self.to_check.front().is_some_and(|(due, _)| *due <= Instant::now())
            && let Some((_, name)) = self.to_check.pop_front()
        {
            self.check(&name);
        }
    }

    fn check(&mut self, name: &str) {
        let left = trees(name, None);
        assert!(left.is_empty(), "{left:?} of {name} are left");
        self.count.checked_late += 1;
    }

    /// Checks what is left to check, and has the referee judge.
    fn end(&mut self) -> Count {
        for (due, name) in std::mem::take(&mut self.to_check) {
            if full() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.check(&name);
        }
        self.count.verdicts.push(judge(&self.books, &self.place.store()));
        std::mem::take(&mut self.count)
    }
}

impl Drop for Lane {
    /// A test that fails leaves nothing behind either.
    fn drop(&mut self) {
        for pid in trees(&self.place.path().display().to_string(), None) {
            let _ = kill_process(pid.parse().ok().and_then(Pid::from_raw).unwrap(), Signal::KILL);
        }
    }
}

/// The processes with a word on their command line that begins with this name, `but` the one who wrote this line.
pub fn trees(name: &str, but: Option<&Line>) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && but.is_none_or(|line| line.pid != *pid))
        .filter(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|b| *b == 0).any(|word| word.starts_with(name.as_bytes()))
        })
        .collect()
}

fn play(trials: &[(usize, Trial, bool)]) -> Count {
    let mut lane = Lane::new();
    for (number, trial, order) in trials {
        lane.play(*number, trial, *order);
    }
    lane.end()
}

/// Plays all trials, some at once, and adds up what came of them.
fn play_all(trials: &[(usize, Trial, bool)]) -> Count {
    let lots = Mutex::new(trials.chunks(many(50, trials.len().div_ceil(LANES))));
    let next = || lots.lock().unwrap().next();
    let counts: Vec<Count> = std::thread::scope(|scope| {
        let lanes = (0..LANES).map(|_| scope.spawn(|| std::iter::from_fn(next).map(play).collect::<Vec<_>>()));
        lanes.collect::<Vec<_>>().into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    let mut sum = Count::default();
    for count in counts {
        sum.beside.extend(count.beside);
        sum.alone.extend(count.alone);
        sum.recorded += count.recorded;
        sum.checked_late += count.checked_late;
        sum.verdicts.extend(count.verdicts);
    }
    sum.beside.sort_unstable();
    sum.alone.sort_unstable();
    sum
}

/// The value below which so many of a thousand are, in milliseconds.
fn at(sorted: &[i64], share: usize) -> i64 {
    sorted[(sorted.len() * share / 1000).min(sorted.len() - 1)] / 1000
}

#[test]
fn the_processes_of_a_dead_processor_are_gone_before_its_job_runs_again_at_once() {
    let name = "trees";
    let mut random = random(name);
    let trials: Vec<_> =
        (0..many(1000, 20)).map(|number| (number, Trial::new(&mut random, number), random.bool())).collect();
    let Count { beside, alone, recorded, checked_late, verdicts } = play_all(&trials);
    for (times, how) in [(&beside, "another processor at work"), (&alone, "one started after the kill")] {
        let (p50, p99, max) = (at(times, 500), at(times, 990), at(times, 1000));
        let many = times.len();
        figure(name, format!("{many} kills with {how}: p50 {p50} ms, p99 {p99} ms, max {max} ms to the new start"));
        let bar = if full() { p99 <= 2000 } else { max <= 10_000 };
        assert!(bar, "with {how} it took p99 {p99} ms, max {max} ms to the new start");
    }
    let broken: Vec<String> = verdicts.into_iter().flat_map(|verdict| verdict.violations).collect();
    figure(
        name,
        format!(
            "{} trials, {recorded} of them recorded before the kill: never two at once, none left at the new start nor, \
             of {checked_late}, later; {} violations",
            trials.len(),
            broken.len()
        ),
    );
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!((beside.len() + alone.len() + recorded, checked_late), (trials.len(), trials.len()));
    assert!(recorded * 10 <= trials.len(), "{recorded} trials of {} show nothing", trials.len());
}
