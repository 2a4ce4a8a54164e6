//! Full disks: small file systems that are filled and freed again, limits on the size of files, and a disk that fails
//! for a while.
//!
//! The books of what was begun and ended are kept outside of the small file system.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::place::{Place, Running, wait_until};
use crate::scale;
use crate::shim::{Error, Fault, Shim};

/// Leaves so many pages of the small file system, once the store has given back what it could use again.
const LEAVE: &str = r#"#!/bin/sh
[ "$(stat -f -c %T disk)" = tmpfs ] || exit 99
sqlite3 disk/q.db 'PRAGMA wal_checkpoint(TRUNCATE)' > /dev/null
rm -f disk/filler
pages=$(($(stat -f -c %a disk) - $1))
[ $pages -le 0 ] || head -c $((pages * 4096)) /dev/zero > disk/filler
[ "$(stat -f -c %a disk)" -le "$1" ]
"#;

/// Notes that it begins, does what its arguments say, notes that it ends.
const WORK: &str = r"#!/bin/sh
echo $ASYNCQ_JOB >> begun
case $1 in
    fill) ./leave $2 && echo > full;;
    wait) until [ -e go-$ASYNCQ_JOB ] || [ -e go-all ]; do sleep 0.02; done;;
    call) asyncq enqueue events work wait 10 && echo $ASYNCQ_JOB >> called;;
esac
head -c ${3:-$2} /dev/zero | tr '\0' x
echo $ASYNCQ_JOB >> ended
";

const PROCESS: &str = "asyncq process --trust-store-writers";

/// How soon work goes on when there is space; slow machines with much else to do have longer in small runs.
fn soon() -> Duration {
    if scale::full() { Duration::from_secs(1) } else { Duration::from_secs(10) }
}

/// A place with a small file system, in a mount namespace that is gone with the process which holds it.
struct Disk {
    place: Place,
    _holder: Running,
    enter: String,
}

impl Disk {
    fn new(kib: usize) -> Disk {
        let mut place = Place::new();
        place.set("ASYNCQ_DB", "disk/q.db");
        place.program("leave", LEAVE);
        place.program("work", WORK);
        fs::create_dir(place.at("disk")).unwrap();
        let is_root = place.stdout("id -u").trim() == "0";
        let (unshare, user) =
            if is_root { ("unshare -m", "") } else { ("unshare -rm", "--user --preserve-credentials") };
        place.write("mount", &format!("mount -t tmpfs -o size={kib}k none disk && echo > mounted && exec sleep 1000"));
        let holder = place.start(&format!("{unshare} sh ./mount"));
        wait_until("the file system is mounted", || place.at("mounted").exists());
        let enter = format!("nsenter --target {} {user} --mount -- sh -c", holder.0.id());
        let disk = Disk { place, _holder: holder, enter };
        let mounted = disk.stdout("stat -f -c '%T %b %S' disk");
        assert_eq!(mounted, format!("tmpfs {} 4096\n", kib / 4));
        disk
    }

    /// With a service, a function, and calls of it with these arguments.
    fn with_calls(kib: usize, concurrency: usize, calls: &[String]) -> Disk {
        let disk = Disk::new(kib);
        let mut script = format!(
            "set -e; asyncq service add events --concurrency {concurrency}; asyncq function add events work -- ./work\n"
        );
        for arguments in calls {
            script += &format!("asyncq enqueue events work {arguments}\n");
        }
        disk.stdout(&script);
        disk
    }

    /// The shell command by which another one sees the file system. The folder is entered there: who takes it along
    /// from outside sees what was there before.
    fn inside(&self, line: &str) -> String {
        let line = format!("cd {} && {line}", self.place.path().display());
        format!("{} '{}'", self.enter, line.replace('\'', r"'\''"))
    }

    fn run(&self, line: &str) -> Output {
        self.place.run(&self.inside(&format!("{{ {line}\n}}")))
    }

    fn stdout(&self, line: &str) -> String {
        self.place.stdout(&self.inside(&format!("{{ {line}\n}}")))
    }

    /// Starts a program that sees the file system.
    fn start(&self, line: &str) -> Running {
        self.place.start(&self.inside(&format!("exec {line}")))
    }

    /// Starts a processor; what functions print goes to a file.
    fn process(&self) -> Running {
        self.start(&format!("{PROCESS} > printed"))
    }

    fn leave(&self, pages: usize) {
        self.stdout(&format!("./leave {pages}"));
    }

    fn free(&self) {
        self.stdout("rm -f disk/filler");
    }

    /// A value from the store, as another program reads it.
    fn query(&self, sql: &str) -> String {
        let read = format!("sqlite3 -cmd \".timeout 20000\" disk/q.db \"{sql}\"");
        self.stdout(&read).trim().to_owned()
    }

    fn count(&self, states: &str) -> usize {
        self.query(&format!("SELECT count(*) FROM asyncq_job WHERE state IN ({states})")).parse().unwrap()
    }

    /// The jobs in a book.
    fn book(&self, name: &str) -> Vec<String> {
        self.place.read(name).lines().map(str::to_owned).collect()
    }

    /// Makes room in some way for a processor that waits; tells how long it took until that went on.
    fn goes_on(&self, jobs: usize, make_room: impl FnOnce()) -> Duration {
        let (begun, since) = (self.book("begun").len(), Instant::now());
        make_room();
        wait_until("work goes on", || self.book("begun").len() > begun || self.count("'completed'") == jobs);
        let waited = since.elapsed();
        wait_until("everything is done", || self.count("'completed'") == jobs);
        waited
    }

    /// Each call began and ended once, and the store is sound.
    fn is_settled(&self, jobs: usize, when: &str) {
        for book in [self.book("begun"), self.book("ended")] {
            assert_eq!(book.len(), jobs, "{when}: {book:?}");
            assert_eq!(book.iter().collect::<BTreeSet<_>>().len(), jobs, "{when}: {book:?}");
        }
        assert_eq!(self.count("'completed'"), jobs, "{when}");
        assert_eq!(self.query("PRAGMA integrity_check"), "ok", "{when}");
    }
}

/// Makes sure that a command did what it should, or told that there is no space, and says which.
fn is_done(output: &Output, when: &str) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return true;
    }
    assert_eq!(output.status.code(), Some(74), "{when}: {output:?}");
    let reasons = ["no space left for the store", "No space left on device", "no storage space", "File too large"];
    let is_clear = said.lines().count() == 2
        && said.starts_with("error: ")
        && said.contains("\nhint: ")
        && said.contains("/q.db")
        && !said.contains("/.q.db")
        && reasons.iter().any(|reason| said.contains(reason));
    assert!(is_clear, "{when}: {said}");
    false
}

/// Runs a command with ever more of something until three in a row have done it; says how many were refused.
fn at_every_step(steps: usize, mut try_at: impl FnMut(usize) -> bool) -> usize {
    let (mut refused, mut in_a_row) = (0, 0);
    for step in 0..steps {
        if try_at(step) {
            in_a_row += 1;
        } else {
            (refused, in_a_row) = (refused + 1, 0);
        }
        if in_a_row == 3 {
            return refused;
        }
    }
    panic!("not even with {steps} steps");
}

#[test]
fn init_and_enqueue_and_clean_are_whole_or_refused_at_every_page() {
    let test = "every_page";
    let disk = Disk::new(8 * 1024);
    let made = at_every_step(200, |pages| {
        disk.stdout("rm -rf disk/*");
        let room = format!("head -c $(((2048 - {pages}) * 4096)) /dev/zero > disk/filler");
        let done = is_done(&disk.run(&format!("{room}; asyncq init")), &format!("init, {pages} pages"));
        disk.stdout("rm disk/filler");
        let left = disk.stdout("ls -A disk");
        assert_eq!(left.contains("q.db"), done, "{pages} pages: {left}");
        done
    });
    disk.stdout("rm -rf disk/*; asyncq service add events; asyncq function add events work -- ./work");
    let mut known = 0;
    let refused = at_every_step(100, |pages| {
        disk.leave(pages);
        let done = is_done(&disk.run("asyncq enqueue events work no 100"), &format!("enqueue, {pages} pages"));
        known += usize::from(done);
        disk.free();
        assert_eq!(disk.query("SELECT count(*) FROM asyncq_job"), known.to_string(), "{pages} pages");
        done
    });
    disk.stdout("for i in $(seq 40); do asyncq enqueue events work no 3000 > /dev/null; done");
    disk.query("UPDATE asyncq_job SET state = 'cancelled'");
    let total = disk.count("'cancelled'");
    let kept = at_every_step(100, |pages| {
        disk.leave(pages);
        let done = is_done(&disk.run("asyncq -q job clean"), &format!("clean, {pages} pages"));
        disk.free();
        let left = disk.count("'cancelled'");
        assert_eq!(left, if done { 0 } else { total }, "{pages} pages");
        if done {
            disk.query(&format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {total})
                 INSERT INTO asyncq_job (service, function) SELECT 'events', 'work' FROM n;
                 UPDATE asyncq_job SET state = 'cancelled'"
            ));
        }
        done
    });
    assert_eq!(disk.query("PRAGMA integrity_check"), "ok");
    assert!(made > 0 && refused > 0 && kept > 0, "{made} {refused} {kept}");
    scale::figure(
        test,
        format!("refused with exit code 74, and whole after: init {made}, enqueue {refused}, clean {kept} times"),
    );
}

#[test]
fn a_backup_is_whole_or_refused_at_every_page() {
    let disk = Disk::with_calls(2 * 1024, 1, &["no 100".to_owned()]);
    let refused = at_every_step(100, |step| {
        let pages = scale::many(1, 5) * step;
        disk.leave(pages);
        let output = disk.run("asyncq backup disk/b.db");
        let done = output.status.success();
        if !done {
            let said = String::from_utf8_lossy(&output.stderr);
            let is_clear = said.contains("No space left on device")
                || said.contains("no storage space")
                || said.contains("no space left");
            assert!(output.status.code() == Some(74) && is_clear, "{pages} pages: {output:?}");
        }
        disk.free();
        assert_eq!(
            disk.stdout("ls -A disk | grep -c 'b[.]db\\|copy' || :"),
            if done { "1\n" } else { "0\n" },
            "{pages}"
        );
        if done {
            let check = "sqlite3 disk/b.db 'PRAGMA integrity_check; SELECT count(*) FROM asyncq_job'; rm disk/b.db*";
            assert_eq!(disk.stdout(check), "ok\n1\n", "{pages} pages");
        }
        done
    });
    assert!(refused > 5, "{refused}");
    scale::figure("every_page_of_a_backup", format!("refused with exit code 74, nothing left, {refused} times"));
}

#[test]
fn a_file_system_that_can_hold_no_more_files_is_a_full_one() {
    let calls = ["no 10".to_owned()];
    let disk = Disk::with_calls(8 * 1024, 1, &calls);
    disk.query("VACUUM INTO 'disk/other'");
    disk.stdout("rm disk/q.db*; mv disk/other disk/q.db; mount -o remount,nr_inodes=2 disk");
    // The root of the file system is one, and so is the store.
    assert!(!is_done(&disk.run("asyncq enqueue events work no 10"), "enqueue"));
    assert!(!is_done(&disk.run(PROCESS), "process"));
    disk.stdout(&format!("mount -o remount,nr_inodes=100 disk; {PROCESS} > printed"));
    disk.is_settled(1, "after all");
}

#[test]
fn outcomes_are_recorded_and_work_goes_on_at_every_page() {
    let test = "every_page_of_process";
    // Beyond these, the calls after the first one do not notice that the disk was filled.
    let pages: Vec<usize> = (0..scale::many(80, 12)).step_by(scale::many(1, 3)).collect();
    let (mut waited, mut longest) = (0, Duration::ZERO);
    for &left in &pages {
        let when = format!("{left} pages");
        let calls = [format!("fill {left} 3000"), "no 200000".to_owned(), "no 10".to_owned(), "no 3000".to_owned()];
        let disk = Disk::with_calls(8 * 1024, 1, &calls);
        let mut process = disk.process();
        let mut over = false;
        wait_until("what has ended is recorded", || {
            over = process.0.try_wait().unwrap().is_some();
            let begun = disk.book("begun").len();
            over || disk.place.at("full").exists() && disk.count("'completed'") == begun && disk.count("'queued'") > 0
        });
        if !over {
            waited += 1;
            longest = longest.max(disk.goes_on(calls.len(), || disk.free()));
        }
        let output = process.wait();
        assert!(is_done(&output, &when) && String::from_utf8_lossy(&output.stderr).lines().count() <= 1, "{output:?}");
        disk.is_settled(calls.len(), &when);
        assert_eq!(disk.stdout("ls disk/q.db-asyncq 2> /dev/null || :"), "", "{when}");
    }
    assert!(waited > 0);
    assert!(longest < soon(), "{longest:?}");
    scale::figure(
        test,
        format!(
            "{} times, {waited} of them waiting for space; 0 lost, 0 twice; went on at most {longest:.0?} after there \
             was space",
            pages.len()
        ),
    );
}

#[test]
fn a_processor_begins_nothing_that_it_may_not_be_able_to_record_at_every_page() {
    let test = "every_page_of_claim";
    let disk = Disk::with_calls(8 * 1024, 1, &["no 10".to_owned()]);
    let (mut jobs, mut refused, mut waited, mut longest) = (1, 0, 0, Duration::ZERO);
    // The reserve takes 256 of them.
    let pages: Vec<usize> =
        if scale::full() { (0..300).collect() } else { [0, 1, 100].into_iter().chain(256..272).collect() };
    for &left in &pages {
        let when = format!("{left} pages");
        disk.leave(left);
        disk.place.write("said", "");
        let mut process = disk.start(&format!("sh -c \"exec {PROCESS} 2> said\""));
        let mut over = false;
        wait_until("it ends, or waits for space", || {
            over = process.0.try_wait().unwrap().is_some();
            over || disk.place.read("said").contains("no job starts until there is space")
        });
        if over {
            disk.free();
        } else {
            waited += 1;
            // The claim itself may have found space, and the outcome none.
            wait_until("what began is recorded", || disk.count("'completed'") == disk.book("begun").len());
            longest = longest.max(disk.goes_on(jobs, || disk.free()));
        }
        let output = Output { stderr: disk.place.read("said").into_bytes(), ..process.wait() };
        let done = is_done(&output, &when);
        assert_eq!(disk.book("begun").len(), if done { jobs } else { jobs - 1 }, "{when}");
        assert_eq!(disk.stdout("ls disk/q.db-asyncq 2> /dev/null || :"), "", "{when}");
        assert_eq!(disk.query("SELECT count(*) FROM asyncq_processor"), "0", "{when}");
        if done {
            disk.stdout("asyncq enqueue events work no 10");
            jobs += 1;
        } else {
            refused += 1;
        }
        if over && done {
            break;
        }
    }
    disk.stdout(PROCESS);
    disk.is_settled(jobs, "after all");
    assert!(refused > 0 && waited > 0, "{refused} {waited}");
    assert!(longest < soon(), "{longest:?}");
    scale::figure(
        test,
        format!(
            "{refused} processors refused with exit code 74, {waited} waited for space and went on at most \
             {longest:.0?} after there was some; whatever they began was recorded before"
        ),
    );
}

/// Whether a processor waits for space, or could not even start: the reason stands first, or there is none.
#[test]
fn a_full_disk_explains_why_nothing_runs() {
    let calls: Vec<String> = (0..3).map(|_| "no 10".to_owned()).collect();
    let disk = Disk::with_calls(8 * 1024, 1, &calls);
    let codes = || {
        let shown = disk.stdout("asyncq explain 1 --json");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let reasons = shown[0]["reasons"].as_array().unwrap();
        reasons.iter().map(|reason| reason["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(codes(), "no-processor");
    // With less, nobody can even read the store.
    for pages in [24, 100, 255] {
        disk.leave(pages);
        assert!(!is_done(&disk.run(PROCESS), "process"), "{pages}");
        assert_eq!(codes(), "no-space no-processor", "{pages} pages are free");
    }
    // What a processor holds back for outcomes is not taken for space that is missing.
    disk.free();
    disk.stdout("asyncq service pause events");
    let process = disk.start(&format!("{PROCESS} --follow 2> said"));
    wait_until("it is there", || disk.query("SELECT count(*) FROM asyncq_processor") == "1");
    disk.leave(100);
    assert_eq!(codes(), "service-paused");
    disk.leave(0);
    disk.stdout("asyncq -q service resume events || :");
    assert_eq!(codes(), "service-paused no-space");
    disk.free();
    disk.stdout("asyncq service resume events");
    wait_until("all are done", || disk.count("'completed'") == 3);
    process.signal("TERM");
    process.wait();
}

#[test]
fn sixty_four_outcomes_are_recorded_on_a_full_disk() {
    let test = "sixty_four_outcomes";
    let mut calls: Vec<String> = (0..64).map(|n| format!("wait {}", [1000, 4000, 300_000, 10][n % 4])).collect();
    calls[0] = "call 1000".to_owned();
    let disk = Disk::with_calls(8 * 1024, 64, &calls);
    let process = disk.process();
    wait_until("all calls run, and the nested one", || disk.book("begun").len() == 65);
    disk.leave(0);
    // One after the other, which takes more space than all at once.
    for job in 2..=scale::many(64, 16) {
        disk.place.write(&format!("go-{job}"), "");
        wait_until("the outcome is recorded", || disk.count("'completed'") == job - 1);
    }
    disk.place.write("go-all", "");
    wait_until("all outcomes are recorded", || disk.count("'completed'") == 65);
    let kept = disk.query("SELECT count(*) FROM asyncq_attempt WHERE length(log) >= 1000");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    disk.free();
    disk.is_settled(65, "64 at once");
    scale::figure(test, format!("65 outcomes recorded with 0 pages free, {kept} of them with output"));
}

#[test]
fn a_limit_on_the_size_of_files_ends_no_process_and_work_goes_on_when_it_is_lifted() {
    let test = "file_size";
    let (mut refused, mut waited, mut longest) = (0, 0, Duration::ZERO);
    // In blocks of 512 bytes, of which a page has 8.
    let limits: Vec<usize> = (0..scale::many(1600, 520)).step_by(scale::many(8, 104)).collect();
    for &blocks in &limits {
        let when = format!("{blocks} blocks");
        let calls = ["no 3000".to_owned(), "no 200000".to_owned(), "no 10".to_owned()];
        let disk = Disk::with_calls(8 * 1024, 1, &calls);
        let known =
            usize::from(is_done(&disk.run(&format!("ulimit -f {blocks}; asyncq enqueue events work no 10")), &when));
        disk.stdout("sqlite3 disk/q.db 'PRAGMA wal_checkpoint(TRUNCATE)'");
        let jobs = calls.len() + known;
        refused += 1 - known;
        assert_eq!(disk.count("'queued'"), jobs, "{when}");
        let mut process = disk.start(&format!("sh -c \"ulimit -S -f {blocks}; exec {PROCESS} > printed 2> said\""));
        let mut over = false;
        wait_until("it ends, or waits for space", || {
            over = process.0.try_wait().unwrap().is_some();
            over || disk.place.read("said").contains("no job starts until there is space")
        });
        if !over {
            waited += 1;
            let lift = format!("prlimit --fsize=unlimited --pid {}", process.engine());
            longest = longest.max(disk.goes_on(jobs, || drop(disk.run(&lift))));
        }
        let output = process.wait();
        assert!(matches!(output.status.code(), Some(0 | 74)), "{when}: {output:?} {}", disk.place.read("said"));
        disk.stdout(PROCESS);
        disk.is_settled(jobs, &when);
    }
    assert!(refused > 0 && waited > 0, "{refused} {waited}");
    assert!(longest < soon(), "{longest:?}");
    scale::figure(
        test,
        format!(
            "{} limits: 0 killed, 0 lost, 0 twice; {refused} calls refused; {waited} processors went on at \
             most {longest:.0?} after the limit was lifted",
            limits.len()
        ),
    );
}

#[test]
fn functions_are_limited_as_everybody_else() {
    let place = Place::with_functions(&[
        ("tells", "sed -n 's/^Sig[BI][lg][kn]:\\t//p' /proc/self/status"),
        ("writes", "head -c 2000000 /dev/zero > large; echo $?"),
    ]);
    place.stdout("asyncq enqueue events tells; asyncq enqueue events writes");
    let told = place.stdout("trap '' XFSZ; ulimit -f 2000; asyncq process");
    let [blocked, ignored, writes] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    for mask in [blocked, ignored] {
        // SIGXFSZ is 25.
        assert_eq!(u64::from_str_radix(mask, 16).unwrap() & 1 << 24, 0, "{told}");
    }
    assert_eq!(writes, "153");
}

#[test]
fn a_disk_that_fails_for_a_while_costs_no_nested_call_its_outcome() {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "data/q.db");
    fs::create_dir(place.at("data")).unwrap();
    place.session("$ asyncq -q service add events");
    place.function("inner", "", "echo run");
    // It stops itself when it is about to record the outcome.
    let nested =
        "#!/bin/sh\necho $$ > pid\nASYNCQ_FAILPOINT='transaction begun:2=stop' exec asyncq enqueue events inner\n";
    place.program("nested", nested);
    place.function("outer", "", "./nested; echo exit code $?");
    place.stdout("asyncq enqueue events outer");
    let shim = Shim::new(&place.at("data"), place.path(), Fault { error: Error::Eio, first: 0, last: 0 });
    let mut command = place.command("exec asyncq process --trust-store-writers");
    shim.preload(&mut command);
    let process = Running(command.spawn().unwrap());
    let stat = || fs::read_to_string(format!("/proc/{}/stat", place.read("pid").trim())).unwrap_or_default();
    wait_until("it is stopped", || stat().contains(") T "));

    shim.fail();
    assert!(Command::new("kill").args(["-CONT", place.read("pid").trim()]).status().unwrap().success());
    wait_until("the disk fails", || shim.fired() > 0);
    shim.heal();
    let output = process.wait();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "run\nexit code 0\n", "{output:?}");
    let states = "sqlite3 data/q.db 'SELECT group_concat(state) FROM asyncq_job'";
    assert_eq!(place.stdout(states), "completed,completed\n");
    let said = place.stdout("asyncq job log 1 2>&1");
    assert_eq!(said.matches("; trying again, so that no outcome is lost").count(), 1, "{said}");
}
