//! Functions that do not want to end, and what they leave: at their time limit, and when they are cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::books;
use crate::place::{Place, Running, install, wait_until};
use crate::process::{self, Dead, Process, enqueue, only_waits};
use crate::scale;

/// What `hostile.c` can be.
const SHAPES: [&str; 30] = [
    "obedient",
    "deaf",
    "blocked",
    "reborn",
    "pipe_holder",
    "daemon",
    "session",
    "own_group",
    "stopped",
    "stopped_group",
    "stopped_daemon",
    "traced",
    "zombies",
    "orphan_zombies",
    "storm",
    "scattered_storm",
    "chain",
    "deep",
    "vfork",
    "threads",
    "headless",
    "cleared",
    "closed",
    "renamed",
    "subreaper",
    "fifo",
    "stdin",
    "busy",
    "talker",
    "namespace",
];

/// How long those with a time limit may take.
const LIMIT: Duration = Duration::from_secs(2);

/// How long a function that was asked to end has for it (`GRACE` of the runner).
const GRACE: Duration = Duration::from_secs(10);

/// How much more memory a processor may have after many jobs, in KiB.
const MORE_MEMORY: i64 = 4096;

/// How much longer a job may take: in a small run, the machine may have much else to do.
fn slack() -> Duration {
    Duration::from_secs(if scale::full() { 2 } else { 10 })
}

/// How long the dead may wait to be reaped: a processor looks twice a second.
fn reaping() -> Duration {
    Duration::from_secs(if scale::full() { 2 } else { 10 })
}

/// Waits until nothing of it is left, as long as it gets less.
fn wait_while_less(what: &str, mut left: impl FnMut() -> i64) {
    let (mut least, mut since) = (i64::MAX, Instant::now());
    while least > 0 {
        let now = left();
        if now < least {
            (least, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < Duration::from_secs(60), "nothing goes on: {what}, {least} left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A store with the service `events`, on which `waits` keeps a processor at work until a file is there.
pub fn place(concurrency: usize) -> Place {
    let place = Place::with_functions(&[("waits", "until [ -e go-$1 ]; do sleep 0.02; done")]);
    place.session(&format!("$ asyncq service set events --concurrency {concurrency}"));
    fs::create_dir(place.at("pids")).unwrap();
    // A program of its own, by which its processes are known.
    install(&books::compiled("hostile", &["-pthread"]), &place.at("hostile"));
    place
}

/// One job for each shape and for each way to end it.
struct Hostile {
    place: Place,
    processor: Running,
    limited: BTreeMap<i64, &'static str>,
    cancelled: BTreeMap<i64, &'static str>,
}

impl Hostile {
    fn begin(shapes: &[&'static str]) -> Hostile {
        let place = place(2 * shapes.len() + 1);
        let count = scale::many(200, 60);
        let each = |line: &dyn Fn(&str) -> String| shapes.iter().map(|shape| line(shape)).collect::<String>();
        // Those that are to be cancelled have a limit too, so that nothing storms on for ever should this test be killed.
        let add = |shape: &str| format!("add {shape} --timeout {}s; add {shape}_ --timeout 5m\n", LIMIT.as_secs());
        place.program(
            "add",
            &format!(
                "#!/bin/sh\nexec asyncq function add events \"$@\" --env PIDS=pids -- ./hostile ${{1%_}} {count}\n"
            ),
        );
        place.stdout(&format!("PATH=.:$PATH\n{}", each(&add)));
        place.stdout("asyncq enqueue events waits end");
        let enqueue = |ending: &str| {
            let lines = each(&|shape| format!("asyncq enqueue events {shape}{ending}\n"));
            place.stdout(&lines).lines().map(|id| id.parse().unwrap()).zip(shapes.iter().copied()).collect()
        };
        let (cancelled, limited) = (enqueue("_"), enqueue(""));
        let processor = process::start(&place, "asyncq -q process --trust-store-writers");
        Hostile { place, processor, limited, cancelled }
    }

    fn shape(&self, job: i64) -> &'static str {
        self.limited.get(&job).or(self.cancelled.get(&job)).unwrap()
    }

    fn notes(&self, job: i64) -> String {
        self.place.read(&format!("pids/{job}"))
    }

    /// What lives of a job: every process of it has noted itself.
    fn left(&self, job: i64) -> Vec<String> {
        let notes = self.notes(job);
        notes
            .lines()
            .filter(|line| Process::noted(line).is_some_and(|noted| noted.lives()))
            .map(str::to_owned)
            .collect()
    }

    /// Cancels those that are to be, each as soon as it has got into its shape, and tells when.
    fn cancel(&self) -> (BTreeMap<i64, i64>, Vec<Child>) {
        let mut asked = BTreeMap::new();
        let mut cancels = Vec::new();
        wait_until("all are in their shape", || {
            for job in self.cancelled.keys() {
                if !asked.contains_key(job) && self.notes(*job).contains("READY") {
                    asked.insert(*job, now());
                    let mut cancel = self.place.command(&format!("exec asyncq job cancel {job}"));
                    cancels.push(cancel.stdout(Stdio::null()).spawn().unwrap());
                }
            }
            asked.len() == self.cancelled.len()
        });
        (asked, cancels)
    }

    /// Looks at each job as soon as it is over: nothing of it may be left.
    fn watch(&self) {
        let mut over = BTreeSet::new();
        let store = Connection::open(self.place.store()).unwrap();
        store.busy_timeout(Duration::from_secs(60)).unwrap();
        let mut ended = store.prepare("SELECT id FROM asyncq_job WHERE finished_at > 0").unwrap();
        let mut left = Vec::new();
        wait_until("all are over", || {
            let ids: Vec<i64> = ended.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            for job in ids.into_iter().filter(|job| over.insert(*job)) {
                left.extend(self.left(job).into_iter().map(|process| format!("{job} {}: {process}", self.shape(job))));
            }
            over.len() == self.jobs().count()
        });
        assert!(left.is_empty(), "left of jobs that are over: {left:#?}");
    }

    /// How much longer than they may each job took; `asked` says when those were asked which were cancelled.
    fn overtime(&self, asked: &BTreeMap<i64, i64>) -> Vec<(i64, &'static str)> {
        let grace = millis(GRACE);
        let overtime = |job: i64| {
            let query = |column: &str| self.place.query(&format!("SELECT {column} FROM asyncq_job WHERE id = {job}"));
            let time = |column: &str| query(column).parse::<i64>().unwrap();
            let due = asked.get(&job).map_or_else(|| time("started_at") + millis(LIMIT), |asked| *asked);
            (time("finished_at") - due - grace, self.shape(job))
        };
        self.jobs().map(overtime).collect()
    }

    fn jobs(&self) -> impl Iterator<Item = i64> {
        self.limited.keys().chain(self.cancelled.keys()).copied()
    }

    /// Each job has ended as it was to.
    fn states_are_right(&self) {
        for (jobs, what) in [(&self.limited, "errortimeout"), (&self.cancelled, "cancelledcancelled")] {
            for (job, shape) in jobs {
                let state = "SELECT state || coalesce(error ->> 'kind', '') FROM asyncq_job";
                assert_eq!(self.place.query(&format!("{state} WHERE id = {job}")), what, "{shape}");
            }
        }
    }

    /// While the processor is still at work, nothing of them is left, not even a name in the kernel's list.
    fn nothing_is_left(&self) {
        let processor = [self.processor.0.id().to_string(), self.processor.engine()];
        let mut dead = Dead::default();
        wait_until("the dead are reaped", || dead.look(&processor) == 0);
        assert!(dead.longest <= reaping(), "the dead are reaped after {:?}", dead.longest);
        assert_eq!(process::running(&self.place.at("hostile")), Vec::<String>::new());
    }
}

fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

fn millis(time: Duration) -> i64 {
    time.as_millis().try_into().unwrap()
}

#[test]
fn a_function_of_any_shape_is_over_in_time_and_leaves_nothing() {
    let rounds = scale::many(20, 1);
    // In a small run, all at once: less exact, and sooner over. Those that storm are neighbours in the list, and in
    // different groups.
    let groups = scale::many(3, 1);
    let mut overtime = Vec::new();
    let mut unable = 0;
    for group in (0..groups).cycle().take(rounds * groups) {
        let shapes: Vec<&'static str> = SHAPES.into_iter().skip(group).step_by(groups).collect();
        let hostile = Hostile::begin(&shapes);
        let (asked, cancels) = hostile.cancel();
        hostile.watch();
        hostile.states_are_right();
        hostile.nothing_is_left();
        for cancel in cancels {
            let output = cancel.wait_with_output().unwrap();
            // All at once on a loaded machine, they may take longer than the command waits.
            let is_late = groups == 1 && output.status.code() == Some(75);
            assert!(output.status.success() || is_late, "{output:?}");
        }
        overtime.extend(hostile.overtime(&asked));
        unable += hostile.jobs().filter(|job| hostile.notes(*job).contains("UNABLE")).count();
        hostile.place.write("go-end", "");
        hostile.processor.wait();
    }
    overtime.sort_unstable();
    let (latest, shape) = *overtime.last().unwrap();
    scale::figure(
        "hostile shapes",
        format!(
            "{rounds} times {} shapes, a third of them at once, at their limit and cancelled ({unable} not allowed \
             here): the last one was over {latest} ms after limit and grace (`{shape}`)",
            SHAPES.len()
        ),
    );
    assert!(latest <= millis(slack()), "{overtime:?}");
    assert!(!scale::full() || unable == 0, "{unable} shapes are not allowed here");
}

#[test]
fn many_jobs_leave_no_descriptor_and_no_memory_and_no_dead_behind() {
    let jobs = scale::many(10_000, 500);
    let place = place(4);
    place.session("$ asyncq function add events quick -- ./hostile quick");
    enqueue(&place, "quick", "", 100);
    enqueue(&place, "waits", "first", 1);
    let processor = process::start(&place, "asyncq -q process --trust-store-writers");
    only_waits(&place);
    let pids = [processor.0.id().to_string(), processor.engine()];
    let look = || pids.each_ref().map(|pid| (process::descriptors(pid), process::memory(pid, "VmRSS")));
    let before = look();
    enqueue(&place, "quick", "", jobs);
    enqueue(&place, "waits", "second", 1);
    place.write("go-first", "");
    let mut dead = Dead::default();
    wait_while_less("jobs", || {
        dead.look(&pids);
        place.query("SELECT count(*) - 1 FROM asyncq_job WHERE state IN ('queued', 'processing')").parse().unwrap()
    });
    only_waits(&place);
    wait_until("the dead are reaped", || dead.look(&pids) == 0);
    let after = look();
    scale::figure(
        "descriptors",
        format!(
            "{jobs} jobs: (descriptors, KiB) of both processes {before:?} before, {after:?} after; at most {} dead at once, \
             for {:?} at most",
            dead.most, dead.longest
        ),
    );
    for (before, after) in before.into_iter().zip(after) {
        assert!(after.0 <= before.0 && after.1 - before.1 <= MORE_MEMORY, "{before:?} {after:?}");
    }
    assert!(dead.longest <= reaping(), "reaped after {:?}", dead.longest);
    // Those that were just ending in four slots, and what they left.
    assert!(dead.most <= 50, "{} dead at once", dead.most);
    place.write("go-second", "");
    assert!(processor.wait().status.success());
}
