//! Poison: jobs that kill the processor which runs them, among others that do no harm.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::books::Books;
use crate::place::{Place, wait_until};
use crate::referee::judge;
use crate::scale;

/// How many processors there are at once, each with a service of its own to begin with; when one ends, whyever, the next
/// is started, as by cron.
const PROCESSORS: usize = 3;

/// How many slots each service has.
const SLOTS: usize = 4;

/// Whom a job kills, and so the functions that are poison.
const KILLED: [&str; 4] = ["engine", "supervisor", "both", "group"];

/// How much memory a processor and its functions have, in bytes.
const CAGE: &str = "67108864";

/// By how many seconds one poisonous job may make a drain longer: three crashes, each with a processor that is started and
/// finds the dead one.
const COST: f64 = 2.0;

const POISON: &str = "function <> 'other'";

/// Services with `others` calls, each of which sleeps for 100 ms, and poisonous ones somewhere among them.
fn laden(others: usize, poisons: usize) -> (Place, Books) {
    let (place, books) = (Place::new(), Books::open());
    for number in 0..PROCESSORS {
        place.session(&format!("$ asyncq -q service add s{number} --concurrency {SLOTS}"));
        books.function(&place, &format!("s{number} other"), "sleep 100");
        for whom in KILLED {
            books.function(&place, &format!("s{number} {whom}"), &format!("poison {whom}"));
        }
    }
    let mut random = scale::random("poison");
    let mut functions = vec!["other"; others];
    for number in 0..poisons {
        functions.insert(random.usize(..functions.len()), KILLED[number % KILLED.len()]);
    }
    let mut store = Connection::open(place.store()).unwrap();
    let transaction = store.transaction().unwrap();
    for (number, function) in functions.iter().enumerate() {
        let (service, key) = (format!("s{}", number % PROCESSORS), format!("k{number}"));
        let insert = "INSERT INTO asyncq_job (service, function, key) VALUES (?1, ?2, ?3) RETURNING id";
        let id = transaction.query_row(insert, [&service, *function, &key], |row| row.get(0)).unwrap();
        books.acknowledged(id, &key);
    }
    transaction.commit().unwrap();
    (place, books)
}

/// How the processors of a drain have ended.
#[derive(Debug, Default)]
struct Ends {
    killed: usize,
    /// What those have said that were not killed and did not end as they should.
    wrong: Vec<String>,
}

impl Ends {
    fn note(&mut self, output: &Output) {
        // So does a processor end of which only the half was killed that does the work.
        let halved = String::from_utf8_lossy(&output.stderr).contains("the processor was ended by signal 9");
        match (output.status.code(), output.status.signal()) {
            (Some(0 | 1), _) => {}
            (Some(75), _) if halved => self.killed += 1,
            (_, Some(9)) => self.killed += 1,
            _ => self.wrong.push(format!("{output:?}")),
        }
    }
}

/// Starts one processor after the other until nothing is left to do; tells how long that took, and how they ended.
fn drain(place: &Place) -> (Duration, Ends) {
    let (began, ends) = (Instant::now(), Mutex::<Ends>::default());
    let left = || {
        let left = "SELECT EXISTS (SELECT 1 FROM asyncq_job WHERE state = 'queued')
            OR EXISTS (SELECT 1 FROM asyncq_job WHERE token IS NOT NULL)";
        place.query(left) == "1"
    };
    std::thread::scope(|scope| {
        for number in 0..PROCESSORS {
            let (left, ends) = (&left, &ends);
            scope.spawn(move || {
                let services: Vec<String> =
                    (0..PROCESSORS).map(|n| format!("s{}", (number + n) % PROCESSORS)).collect();
                while left() {
                    let mut command = place.command(&format!("exec asyncq -q process {}", services.join(" ")));
                    let output = command.stdout(Stdio::null()).output().unwrap();
                    ends.lock().unwrap().note(&output);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    (began.elapsed(), ends.into_inner().unwrap())
}

#[test]
fn a_job_that_kills_its_processor_ends_in_an_error_after_three_crashes_and_no_other_does() {
    let (others, poisons) = (scale::many(12_000, 240), scale::many(12, 8));
    let ((clean, clean_books), (place, books)) = (laden(others, 0), laden(others, poisons));
    // At the same time, so that whatever else the machine does meets both.
    let ((alone, alone_ends), (among, ends)) = std::thread::scope(|scope| {
        let alone = scope.spawn(|| drain(&clean));
        let among = drain(&place);
        (alone.join().unwrap(), among)
    });
    judge(&clean_books, &clean.store()).is_clean();
    assert_eq!(clean_books.count("END"), others);
    let verdict = judge(&books, &place.store());
    let (quick, slow) = (alone.as_secs_f64(), among.as_secs_f64());
    let ratio = quick / slow;
    let each = (slow - quick) / f64::from(u32::try_from(poisons).unwrap());
    let speed = format!(
        "others at {:.1} % of their speed ({quick:.1} s alone, {slow:.1} s among them: {each:.2} s for each)",
        100.0 * ratio
    );
    let density = format!("{poisons} poisonous jobs among {others} others, {} processors killed", ends.killed);
    scale::figure("poison", format!("{density}; {verdict}; {speed}"));
    verdict.is_clean();
    assert!(alone_ends.killed == 0 && alone_ends.wrong.is_empty(), "{alone_ends:#?}");
    assert!(ends.killed >= 3 && ends.wrong.is_empty(), "{ends:#?}");
    let count = |condition: &str| place.query(&format!("SELECT count(*) FROM asyncq_job WHERE {condition}"));
    let harmed = "SELECT coalesce(group_concat(id || ': ' || crashes || ' ' || error, char(10)), '') FROM asyncq_job
        WHERE function = 'other' AND state <> 'completed'";
    assert_eq!(place.query(harmed), "");
    let crashed = "state = 'error' AND crashes = 3 AND failures = 0 AND conflicts = 0";
    assert_eq!(count(&format!("{POISON} AND {crashed}")), poisons.to_string());
    assert!(!scale::full() || ratio >= 0.95);
    assert!(each <= COST, "{each} s for each poisonous job");
}

#[test]
fn crashes_count_neither_as_failures_nor_as_conflicts() {
    let place = Place::with_functions(&[
        ("meets", "case $ASYNCQ_ATTEMPT in 1|3) kill -9 $PPID; sleep 1000;; 2|4) exit 75;; esac"),
        ("fails", "case $ASYNCQ_ATTEMPT in 1|2) kill -9 $PPID; sleep 1000;; esac; exit 3"),
    ]);
    for (id, function) in [(1, "meets"), (2, "fails")] {
        place.stdout(&format!("asyncq enqueue events {function}"));
        for _ in 0..3 {
            place.run("asyncq -q process --wait-retries");
        }
        let told = place.stdout(&format!("asyncq job show {id} --json"));
        let endings = told.split("\"ending\":\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let endings = endings.collect::<Vec<_>>().join(" ");
        let counts = "SELECT state || ' ' || crashes || ' ' || conflicts || ' ' || failures FROM asyncq_job WHERE id =";
        let (wanted, counted) = if function == "meets" {
            ("crash conflict crash conflict completed", "completed 2 2 0")
        } else {
            assert!(told.contains(r#""error":{"kind":"exit","message":"exit code 3","exit_code":3,"signal":null}"#));
            ("crash crash error", "error 2 0 1")
        };
        assert_eq!((endings.as_str(), place.query(&format!("{counts} {id}")).as_str()), (wanted, counted));
    }
}

#[test]
fn functions_are_offered_to_the_kernel_before_their_processor() {
    let place = Place::with_functions(&[(
        "scores",
        "own=$1; cat /proc/self/oom_score_adj
        # While it starts something, it is offered as well.
        for it in $PPID $(awk '/^PPid/ {print $2}' /proc/$PPID/status); do
            until [ $(cat /proc/$it/oom_score_adj) = $own ]; do sleep 0.01; done
        done",
    )]);
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    place.stdout(&format!("asyncq enqueue events scores {own}"));
    assert_eq!(place.stdout("asyncq process"), format!("{}\n", (own + 500).min(1000)));
}

/// A group of processes that may have only so much memory together.
struct Cage(PathBuf);

impl Cage {
    /// None where the machine has no such groups for this process: that is told.
    fn new(name: &str) -> Option<Cage> {
        let name = format!("asyncq-{name}-{}", std::process::id());
        let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        for (folder, limit, swap) in
            [(first, "memory.limit_in_bytes", "memory.swappiness"), (second, "memory.max", "memory.swap.max")]
        {
            let cage = Cage(folder.join(&name));
            if fs::create_dir(&cage.0).is_ok() && fs::write(cage.0.join(limit), CAGE).is_ok() {
                // Not everywhere is there anything to swap to.
                let _ = fs::write(cage.0.join(swap), "0");
                return Some(cage);
            }
        }
        assert!(!scale::full(), "no memory cgroup that this process may use");
        scale::figure(name.as_str(), "left out: no memory cgroup that this process may use");
        None
    }

    /// The command that runs a processor in it.
    fn process(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec asyncq process", self.0.display())
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let is_busy = || fs::remove_dir(&self.0).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy);
        if std::thread::panicking() {
            is_busy();
        } else {
            // As long as the kernel has not quite forgotten the last one in it.
            wait_until("nothing lives in the cage", || !is_busy());
        }
    }
}

#[test]
fn a_function_that_takes_all_memory_is_ended_before_its_processor() {
    let Some(cage) = Cage::new("eats") else { return };
    let (place, books) = (Place::with_functions(&[]), Books::open());
    books.function(&place, "events eats", "eat");
    place.session("$ asyncq enqueue events eats\n1");
    let told = place.run(&cage.process());
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let told = place.stdout("asyncq job show 1 --json");
    assert!(told.contains(r#""ending":"error","error":{"kind":"signal","#) && told.contains(r#""signal":9"#), "{told}");
    assert_eq!(place.query("SELECT state || crashes || failures FROM asyncq_job"), "error01");
    assert_eq!(books.count("START"), 1);
}

#[test]
fn a_function_for_which_the_kernel_ends_its_processor_ends_in_an_error_after_three_crashes() {
    let Some(cage) = Cage::new("slyly") else { return };
    let (place, books) = (Place::with_functions(&[]), Books::open());
    books.function(&place, "events eats", "slyly");
    place.session("$ asyncq enqueue events eats\n1");
    for _ in 0..3 {
        assert_ne!(place.run(&cage.process()).status.code(), Some(0));
    }
    assert_eq!(place.run("asyncq process").status.code(), Some(1));
    assert_eq!(place.query("SELECT state || crashes || failures FROM asyncq_job"), "error30");
    assert_eq!(books.count("START"), 3);
    judge(&books, &place.store()).is_clean();
}
