//! Who opens the files of a store, and what functions inherit: a trace of every open, and functions that tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;
use crate::scale;

/// Traces every process that is started, each into a file of its own, with the files that descriptors lead to.
const TRACE: &str = "strace -ff -y -qq --seccomp-bpf -s 4096 -e signal=none \
    -e trace=open,openat,openat2,creat,execve,fork,vfork,clone,clone3";

/// What SQLite adds to a path for the files beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// One file that was opened.
#[derive(Debug)]
struct Open {
    /// The file itself, whatever it was called.
    path: String,
    flags: BTreeSet<String>,
}

impl Open {
    /// Reads a line such as `openat(AT_FDCWD</tmp>, "q.db", O_RDWR|O_CLOEXEC) = 3</tmp/q.db>`.
    fn read(line: &str) -> Option<Open> {
        line.strip_prefix("open").or_else(|| line.strip_prefix("creat"))?;
        let (call, result) = line.rsplit_once(" = ")?;
        let path = result.split_once('<')?.1.strip_suffix('>')?;
        let words = call.rsplit('"').next()?.split([',', ' ', '|', ')', '{', '}', '=']);
        let flags = words.filter(|word| word.starts_with("O_")).map(str::to_owned).collect();
        Some(Open { path: path.to_owned(), flags })
    }

    /// Whether it is opened as SQLite does, and nobody else here.
    fn is_by_sqlite(&self) -> bool {
        let all = ["O_RDWR", "O_RDONLY", "O_CREAT", "O_NOFOLLOW", "O_CLOEXEC"];
        let has = |flag: &str| self.flags.contains(flag);
        has("O_NOFOLLOW") && has("O_CLOEXEC") && self.flags.iter().all(|flag| all.contains(&flag.as_str()))
    }

    /// Whether it makes the file of a store that nobody has open yet.
    fn makes_a_draft(&self) -> bool {
        Path::new(&self.path).extension() == Some("new".as_ref()) && self.flags.contains("O_EXCL")
    }
}

/// What one thread did, and its children.
#[derive(Debug, Default)]
struct Thread {
    /// The program that it ran at last, if it began one.
    program: Option<String>,
    /// What it opened while it ran `asyncq`, or what it was a copy of.
    opens: Vec<(Option<String>, Open)>,
    children: Vec<(String, Option<String>)>,
}

impl Thread {
    fn read(trace: &str) -> Thread {
        let mut thread = Thread::default();
        for line in trace.lines() {
            let Some((_, result)) = line.rsplit_once(" = ") else { continue };
            let number = result.split([' ', '<']).next().unwrap_or_default();
            if let Some(rest) = line.strip_prefix("execve(\"") {
                if number == "0" {
                    thread.program = rest.split('"').next().map(str::to_owned);
                }
            } else if let Some(open) = Open::read(line) {
                thread.opens.push((thread.program.clone(), open));
            } else if ["fork", "vfork", "clone"].iter().any(|call| line.starts_with(call)) {
                thread.children.push((number.to_owned(), thread.program.clone()));
            }
        }
        thread
    }
}

/// All that programs of the name `asyncq` opened, in a folder of traces.
fn opens_of_asyncq(traces: &Path) -> Vec<Open> {
    let mut threads: BTreeMap<String, Thread> = BTreeMap::new();
    for entry in fs::read_dir(traces).unwrap() {
        let path = entry.unwrap().path();
        let thread = path.extension().unwrap().to_string_lossy().into_owned();
        threads.insert(thread, Thread::read(&String::from_utf8_lossy(&fs::read(&path).unwrap())));
    }
    let parents: BTreeMap<String, (String, Option<String>)> = threads
        .iter()
        .flat_map(|(name, thread)| {
            thread.children.iter().map(|(child, program)| (child.clone(), (name.clone(), program.clone())))
        })
        .collect();
    // What a thread ran that was started by another one, before it began a program itself.
    let inherited = |name: &str| {
        let mut name = name;
        for _ in 0..100 {
            match parents.get(name)? {
                (_, Some(program)) => return Some(program.clone()),
                (parent, None) => name = parent,
            }
        }
        None
    };
    let mut found = Vec::new();
    for (name, thread) in &mut threads {
        for (program, open) in std::mem::take(&mut thread.opens) {
            let program = program.or_else(|| inherited(name));
            if program.is_some_and(|program| program == "asyncq" || program.ends_with("/asyncq")) {
                found.push(open);
            }
        }
    }
    found
}

/// What was seen of stores in a folder of traces.
struct Seen {
    stores: usize,
    opens: usize,
    /// What somebody else than SQLite opened.
    foreign: Vec<Open>,
}

impl Seen {
    fn in_traces(folder: &Path) -> Seen {
        let opens = opens_of_asyncq(folder);
        let stores: BTreeSet<String> = opens
            .iter()
            .flat_map(|open| BESIDE.iter().filter_map(|end| open.path.strip_suffix(end)))
            .map(str::to_owned)
            .collect();
        let of_a_store = |path: &str| stores.contains(path) || BESIDE.iter().any(|suffix| path.ends_with(suffix));
        let of_stores: Vec<Open> = opens.into_iter().filter(|open| of_a_store(&open.path)).collect();
        let count = of_stores.len();
        let foreign = of_stores.into_iter().filter(|open| !open.is_by_sqlite() && !open.makes_a_draft()).collect();
        Seen { stores: stores.len(), opens: count, foreign }
    }

    /// Gives what to tell, where nothing is wrong and enough was seen.
    fn all_by_sqlite(&self, stores: usize, opens: usize) -> String {
        let told = format!("{} opens of {} stores, each by SQLite", self.opens, self.stores);
        assert!(self.foreign.is_empty(), "{told} but: {:#?}", self.foreign);
        assert!(self.stores >= stores && self.opens >= opens, "only {told}: this test is broken");
        told
    }
}

/// A folder for traces that a `Place` does not see.
fn traces() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let prefix = format!("{TRACE} -o {}/of ", folder.path().display());
    (folder, prefix)
}

const SESSION: &str = "asyncq init; asyncq service add events --concurrency 2
    for f in well fails prints gives nests; do asyncq function add events $f -- ./$f; done
    for f in well fails prints gives nests well; do asyncq enqueue events $f 1 x; done
    asyncq enqueue --hold events well; asyncq enqueue events absent
    asyncq process; asyncq service list; asyncq service show events; asyncq function list events
    asyncq job list; asyncq job list --json; asyncq job show 1; asyncq job log 3; asyncq job result 4
    asyncq job retry 2; asyncq job cancel 2; asyncq job start 7; asyncq service pause events
    asyncq process; asyncq service resume events; asyncq process events; asyncq init
    ASYNCQ_FUTURE_SCHEMA=1 asyncq init; asyncq job list; asyncq job clean; asyncq is-async; asyncq whoami
    sqlite3 shop.db 'CREATE TABLE orders (item)'; asyncq --db shop.db init; asyncq --db shop.db service add shop
    asyncq --db shop.db function add shop well -- ./well; asyncq --db shop.db enqueue shop well
    asyncq --db shop.db process; ln -s shop.db link.db; asyncq --db link.db job list; asyncq --db absent.db job list; :";

#[test]
fn only_sqlite_opens_a_store_its_wal_or_its_index() {
    let place = Place::new();
    for (name, script) in [
        ("well", ":"),
        ("fails", "exit 3"),
        ("prints", "head -c 300000 /dev/zero | tr '\\0' x"),
        ("gives", "echo '[7]' > $ASYNCQ_RESULT"),
        ("nests", "asyncq is-async; asyncq enqueue events well; asyncq enqueue --defer events well"),
    ] {
        place.program(name, &format!("#!/bin/sh\n{script}\n"));
    }
    let (folder, trace) = traces();
    place.write("session", SESSION);
    place.stdout(&format!("{trace} sh session"));
    let told = Seen::in_traces(folder.path()).all_by_sqlite(3, 100);
    scale::figure("descriptors", format!("a session: {told}"));
    if scale::full() {
        trace_the_suites();
    }
}

/// Tests that cannot pass while they are traced, and why.
const NOT_WHILE_TRACED: [(&str, &str); 5] = [
    ("leftover::a_program_that_cannot_be_watched_leaves_nothing", "traces somebody itself"),
    ("store::root_is_not_led_elsewhere_by_a_link_that_changes_once_it_was_looked_at", STOPPED),
    ("supervisor::a_processor_that_is_killed_while_it_is_stopped_leaves_nothing", STOPPED),
    ("supervisor::a_stopped_engine_hears_the_request_to_stop", STOPPED),
    ("supervisor::both_halves_stop_at_the_terminals_wish_and_go_on", STOPPED),
];

const STOPPED: &str = "who is stopped and traced is in another state than who is only stopped";

/// The whole of `tests/cli`, and all of these tests that do not trace anything themselves, which cannot be done twice.
fn trace_the_suites() {
    trace_a_suite("cli", &[], (100, 1000));
    let mut modules = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults")).unwrap() {
        let path = entry.unwrap().path();
        let traces = |text: String| text.contains("strace") || text.contains("ptrace");
        if path.is_file() && !traces(fs::read_to_string(&path).unwrap()) {
            modules.push(format!("{}::", path.file_stem().unwrap().to_string_lossy()));
        }
    }
    trace_a_suite("faults", &modules, (50, 1000));
}

/// Small, whatever the size of this test.
fn trace_a_suite(name: &str, modules: &[String], (stores, opens): (usize, usize)) {
    let (folder, trace) = traces();
    let cargo = env!("CARGO");
    // The README's first command is an example, which one test runs.
    let test = format!("{cargo} test --test {name} --no-fail-fast -- {}", modules.join(" "));
    let suite = format!("{cargo} build --examples && exec {trace} {test}");
    let mut command = Command::new("sh");
    command.args(["-c", &suite]).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("ASYNCQ_FAULTS");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = Seen::in_traces(folder.path()).all_by_sqlite(stores, opens);
    let result = said.lines().rfind(|line| line.starts_with("test result")).unwrap_or("no result");
    scale::figure("descriptors", format!("tests/{name}: {told}; {result}"));
    let failed = said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let unexpected: Vec<_> = failed.filter(|test| NOT_WHILE_TRACED.iter().all(|(known, _)| known != test)).collect();
    assert!(unexpected.is_empty() && result != "no result", "{unexpected:?}\n{said}\n{output:?}");
}

#[test]
fn an_open_by_somebody_else_would_be_seen() {
    let place = Place::new();
    place.session("$ asyncq -q service add events\n$ cp /bin/cat asyncq");
    let (folder, trace) = traces();
    let wal = format!("{}-wal", place.store().display());
    place.stdout(&format!("{trace} sh -c 'asyncq service list; ./asyncq {wal}' > /dev/null"));
    let foreign = Seen::in_traces(folder.path()).foreign;
    assert_eq!(foreign.iter().map(|open| &open.path).collect::<Vec<_>>(), [&wal]);
}

/// A function that tells its descriptors: the shell's own, which has its script open beside them; and how many pipes they
/// are.
const TELLS: &str = "(exec ls -l /proc/$$/fd > listing)
    sed -n 's/^l\\(..\\)x.* \\([0-9]*\\) -> \\([^:]*\\).*/\\2 \\1 \\3/p' listing | sed '/^[0-9][0-9]* r. .*\\/tells$/d' | \
    tr '\\n' ',' >> told; grep -o 'pipe:.*' listing | sort -u | grep -c . >> told";

fn told(place: &Place) -> Vec<String> {
    let lines = place.read("told").lines().map(str::to_owned).collect();
    fs::remove_file(place.at("told")).unwrap();
    lines
}

#[test]
fn functions_inherit_only_their_own_three_descriptors() {
    let own = "0 r- pipe,1 -w pipe,2 -w pipe,3";
    let place = Place::with_functions(&[("tells", TELLS), ("nests", NESTS)]);
    let store: PathBuf = place.store();
    let store = store.display();
    for around in [
        "asyncq process < /dev/null".to_owned(),
        "asyncq process < tells".to_owned(),
        "echo x | asyncq process | cat".to_owned(),
        "asyncq process <&-".to_owned(),
        "asyncq process >&-".to_owned(),
        "asyncq process 2>&-".to_owned(),
        "asyncq process <&- >&- 2>&-".to_owned(),
        "script -qec 'asyncq process' /dev/null".to_owned(),
        format!("asyncq process 3< {store} 4<> {store} 7< . 8> spare 9<> /dev/null"),
    ] {
        place.run("for f in tells nests; do asyncq enqueue events $f; done");
        place.run(&around);
        // Its own call, and those that it makes with stdins of all kinds.
        assert_eq!(told(&place), vec![own; 6], "{around}");
    }
    assert_eq!(place.query("SELECT count(*) FROM asyncq_job WHERE state <> 'completed'"), "0");
}

/// Makes nested calls with everything that a shell can hand on.
const NESTS: &str = "asyncq enqueue events tells < /dev/null; asyncq enqueue events tells <&- >&- 2>&-
    echo x | asyncq enqueue events tells; asyncq enqueue events tells 3< $ASYNCQ_DB 4< . 9> spare
    asyncq enqueue events tells";

/// Since Linux 6.13, a file of which somebody has asked when it was written last gets new times with its next write, which
/// makes a durable commit a third slower.
#[test]
fn a_commit_does_not_look_when_the_wal_was_written() {
    let place = Place::with_functions(&[("hello", "#!/bin/sh\n")]);
    place.stdout("for i in 1 2 3 4 5; do asyncq enqueue events hello; done");
    place.stdout("strace -f -s 4096 -e signal=none -e trace=statx,?stat,?newfstatat,fdatasync -o trace asyncq process");
    let trace = place.read("trace");
    let of_the_wal =
        trace.lines().skip_while(|line| !line.contains("fdatasync(")).filter(|line| line.contains("-wal\""));
    let asked: Vec<&str> = of_the_wal.map(|line| line.split(", {").next().unwrap()).collect();
    assert!(asked.len() >= 5, "{asked:?}");
    let for_times =
        |line: &&str| !line.contains("statx(") || ["TIME", "BASIC", "ALL"].iter().any(|it| line.contains(it));
    assert_eq!(asked.into_iter().filter(for_times).collect::<Vec<_>>(), [""; 0]);
}
