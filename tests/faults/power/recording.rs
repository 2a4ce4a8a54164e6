//! A run of everything that asyncq does, recorded by strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::NamedTempFile;

use super::disk::{Act, Deed, act};
use super::ledger::{Fact, facts};
use super::trace::{TRACED, parse};
use crate::place::Place;

/// How much is done in a run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many calls of each kind are made one by one,
    pub singles: usize,
    /// and how many by one INSERT.
    pub batch: usize,
    /// How many calls print so much that the WAL is copied by a processor that goes on.
    pub prints: usize,
}

/// Whose database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Own,
    /// Made by an application, with a rollback journal, SQLite's default.
    Applications,
}

/// What was done to the disk, and what was told, each with its line of the trace.
pub struct Recording {
    /// Where it was done; its functions can still be run.
    pub place: Place,
    pub acts: Vec<Act>,
    /// How many acts come before those of asyncq; the power is not cut there.
    pub before: usize,
    pub facts: Vec<(usize, Fact)>,
}

/// Tells which attempt begins, before it does anything.
const BEGAN: &str = "#!/bin/sh\necho \"began $ASYNCQ_JOB $ASYNCQ_ATTEMPT\"\n";

/// Each with what it does then.
const FUNCTIONS: [(&str, &str); 6] = [
    ("say", "echo '\"said\"' > \"$ASYNCQ_RESULT\""),
    ("fail_once", "[ \"$ASYNCQ_ATTEMPT\" -gt 1 ] || exit 3"),
    ("conflict_once", "[ \"$ASYNCQ_ATTEMPT\" -gt 1 ] || exit 75"),
    ("print", "printf '%0300000d\\n' 1"),
    ("nest", "asyncq enqueue events say '\"nested\"'; asyncq enqueue --defer events say '\"deferred\"'"),
    (
        "finish",
        "sqlite3 -cmd '.timeout 30000' \"$ASYNCQ_DB\" \"PRAGMA synchronous=EXTRA;
        UPDATE asyncq_job SET state = 'completed' WHERE id = $ASYNCQ_JOB AND attempt = $ASYNCQ_ATTEMPT
            AND token = '$ASYNCQ_TOKEN' AND state = 'processing';
        SELECT 'finished', $ASYNCQ_JOB WHERE changes() = 1\"",
    ),
];

const HELPERS: &str = r#"
set -e
db=$HOME/.local/share/asyncq/queue.db
look() { asyncq job list --limit 0 --json; }
drain() { asyncq process -v --wait-retries events || [ $? = 1 ]; }
version() { sqlite3 -readonly "$db" "SELECT 'version', version FROM asyncq_schema"; }
insert() {
    sqlite3 -cmd '.timeout 30000' "$db" "PRAGMA synchronous=EXTRA; BEGIN IMMEDIATE;
        WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < $2)
        INSERT INTO asyncq_job (service, function, args, key)
            SELECT 'events', '$3', json_array(n, '$1'), '$1-' || n FROM counted;
        COMMIT;
        SELECT 'promised', id, key, args FROM asyncq_job WHERE key LIKE '$1-%'"
}
large() { head -c "$1" /dev/zero | tr '\0' y; }
define() {
    asyncq init
    asyncq service add events --concurrency 2
    for name in say fail_once conflict_once print nest finish; do
        asyncq function add events $name -- ./$name
    done
}
"#;

/// An application's database, safe on the disk.
const APPLICATION: &str = r#"
mkdir "$HOME/.local" "$HOME/.local/share" "$HOME/.local/share/asyncq"
sqlite3 "$db" "PRAGMA synchronous=EXTRA; CREATE TABLE note (text TEXT)"
sync "$HOME" "$HOME/.local" "$HOME/.local/share" "$HOME/.local/share/asyncq"
"#;

/// What is done: by enqueuers, by clients with plain SQL, by processors, one of which is killed, and by hand.
const EVERYTHING: &str = r#"
define
for n in $(seq $SINGLES); do
    asyncq enqueue events say $n '"one by one"'
    asyncq enqueue --key "key-$n" events fail_once $n
    asyncq enqueue -k mode=fast --principal bob events finish $n
done
asyncq enqueue events conflict_once 1
asyncq enqueue events nest 1
asyncq enqueue events say "\"$(large 100000)\""
asyncq enqueue events say "\"$(large 120000)\""
insert first $BATCH say
asyncq job cancel "$(asyncq enqueue --hold events say 98)"
asyncq enqueue --hold events say 99
look
drain
look

# Everybody at once.
insert second $BATCH finish
asyncq process -v events & processor=$!
for n in $(seq $SINGLES); do
    asyncq enqueue events finish $n '"at once"'
    asyncq enqueue --key "again-$n" events fail_once $n
done
insert third $BATCH say
wait $processor || [ $? = 1 ]
drain
look

# By hand.
asyncq job retry $(sqlite3 -readonly "$db" "SELECT id FROM asyncq_job WHERE state = 'error'")
look
asyncq job start "$(sqlite3 -readonly "$db" "SELECT id FROM asyncq_job WHERE state = 'held'")"
drain
look
asyncq job clean
look

# A processor is killed, another one takes over.
insert fourth $BATCH say
if ASYNCQ_FAILPOINT='transaction committed:4=kill' asyncq process -v events; then exit 1; fi
asyncq enqueue events say '"after the kill"'
drain
look

# The WAL grows, and is copied while the processor goes on.
for n in $(seq $PRINTS); do
    asyncq enqueue events print $n
done
asyncq process -v events > /dev/null
look

# An upgrade, with calls that wait.
insert fifth $BATCH say
version
export ASYNCQ_FUTURE_SCHEMA=1
asyncq enqueue events say '"upgrades"'
version
drain
look
asyncq job clean --state completed
look
"#;

/// Does all of it.
pub fn everything(size: Size, database: Database) -> Recording {
    let mut place = place();
    place.set("SINGLES", &size.singles.to_string());
    place.set("BATCH", &size.batch.to_string());
    place.set("PRINTS", &size.prints.to_string());
    let recorder = Recorder::new(place);
    let recorder = match database {
        Database::Own => recorder,
        Database::Applications => recorder.run(QUICKLY, APPLICATION).that_was_before(),
    };
    recorder.run(QUICKLY, EVERYTHING).end()
}

/// Commands are killed when what they do is written and not synced; then each is given again.
pub fn killed_before_the_sync() -> Recording {
    let commands = [
        "asyncq service add more",
        "asyncq function add events more -- ./say",
        "asyncq enqueue --key 1 events say 1",
        "asyncq enqueue --key 2 events say 2",
        "asyncq enqueue --key 3 events say 3",
    ];
    let mut recorder = Recorder::new(place()).run(QUICKLY, "define");
    for command in commands {
        recorder = recorder
            .run("-e inject=fsync,fdatasync:signal=KILL", &format!("if {command}; then exit 1; fi"))
            .run(QUICKLY, command);
    }
    recorder.end()
}

/// Does these steps one after the other, the first of them before the power may be cut. Gives the line of the trace on which each
/// of the others has ended.
pub fn in_steps(steps: &[&str]) -> (Recording, Vec<usize>) {
    let mut recorder = Recorder::new(place()).run(QUICKLY, steps[0]).that_was_before();
    let mut ends = Vec::new();
    for step in &steps[1..] {
        recorder = recorder.run(QUICKLY, step);
        ends.push(recorder.text().lines().count());
    }
    (recorder.end(), ends)
}

fn place() -> Place {
    let place = Place::new();
    for (name, script) in FUNCTIONS {
        place.program(name, &format!("{BEGAN}{script}\n"));
    }
    place
}

/// Spares strace the calls that are not traced; nothing can be injected then.
const QUICKLY: &str = "--seccomp-bpf";

struct Recorder {
    place: Place,
    trace: NamedTempFile,
    /// On which line of the trace asyncq begins.
    begin: usize,
}

impl Recorder {
    fn new(place: Place) -> Recorder {
        Recorder { place, trace: NamedTempFile::new().unwrap(), begin: 0 }
    }

    /// Goes on with a script.
    fn run(self, options: &str, script: &str) -> Recorder {
        self.place.write("script", &format!("{HELPERS}{script}"));
        let to = self.trace.path().display();
        let strace = format!("strace -f -xx -y -s 16777216 -e trace={TRACED}");
        let output = self.place.run(&format!("{strace} {options} -A -o {to} sh script"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self
    }

    fn text(&self) -> String {
        fs::read_to_string(self.trace.path()).unwrap()
    }

    /// What was done so far comes before asyncq.
    fn that_was_before(self) -> Recorder {
        Recorder { begin: self.text().lines().count(), ..self }
    }

    fn end(self) -> Recording {
        let root = fs::canonicalize(self.place.path()).unwrap();
        let calls = parse(&self.text(), &root.display().to_string());
        let acts: Vec<Act> = calls.iter().filter_map(|call| act(call, &root)).collect();
        let before = acts.partition_point(|act| act.ended < self.begin);
        Recording { acts, before, facts: facts(&calls), place: self.place }
    }
}

/// How many checkpoints were made, by what became of the WAL.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// Written over by those who went on.
    pub reused: usize,
    pub emptied: usize,
    /// By the last connection, which was a client's.
    pub removed: usize,
}

impl Recording {
    /// How many calls of asyncq can be followed by a power cut.
    pub fn calls(&self) -> usize {
        self.acts.len() - self.before
    }

    /// How often each thing was done, as far as it was told.
    pub fn verbs(&self) -> BTreeMap<&'static str, usize> {
        let mut verbs = BTreeMap::new();
        for verb in self.facts.iter().filter_map(|(_, fact)| fact.verb()) {
            *verbs.entry(verb).or_default() += 1;
        }
        verbs
    }

    /// Finds the checkpoints: of a database with a WAL, only they sync the file.
    pub fn checkpoints(&self) -> Checkpoints {
        let mut found = Checkpoints::default();
        let mut fresh = false;
        let is = |path: &Path, name| path.ends_with(name);
        for Act { deed, .. } in &self.acts {
            let kind = match deed {
                Deed::Sync { path, .. } if is(path, "queue.db") => {
                    fresh = true;
                    continue;
                }
                Deed::Write { path, at: Some(0), .. } if is(path, "queue.db-wal") => &mut found.reused,
                Deed::Resize { path, length: 0 } if is(path, "queue.db-wal") => &mut found.emptied,
                Deed::Remove(path) if is(path, "queue.db-wal") => &mut found.removed,
                _ => continue,
            };
            *kind += usize::from(std::mem::take(&mut fresh));
        }
        found
    }
}

/// What of the recording decides whether a call is lost: not the folders of processors.
pub fn counts(path: &Path) -> bool {
    !path.to_string_lossy().contains("queue.db-asyncq")
}
