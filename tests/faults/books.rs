//! The books outside of the store: what clients were told, and what functions did.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::place::{Place, install};

/// One book for a test, on another file system than the store where there is one.
pub struct Books {
    folder: TempDir,
}

/// A line that a function has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub word: String,
    pub job: i64,
    pub attempt: i64,
    pub pid: String,
    /// Microseconds since 1970.
    pub time: i64,
}

impl Books {
    pub fn open() -> Books {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let books = Books { folder: folder.unwrap() };
        for name in ["functions", "clients", "locks"] {
            fs::write(books.at(name), "").unwrap();
        }
        books
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds a function to a service, as in `events quick`, that keeps the books; `how` is what `job.c` takes.
    pub fn function(&self, place: &Place, name: &str, how: &str) {
        let (book, locks) = (self.at("functions"), self.at("locks"));
        place.session(&format!(
            "$ asyncq function add {name} --env BOOK={} --env LOCKS={} -- {} {how}",
            book.display(),
            locks.display(),
            program().display()
        ));
    }

    /// Adds a function that a worker runs, and that keeps the books; `how` is what `worker.c` takes. The place gets a copy of
    /// the program, `worker`, by which its processes are known; `own` is what completes a job.
    pub fn worker(&self, place: &Place, name: &str, how: &str, own: &str) {
        let (book, locks, program) = (self.at("functions"), self.at("locks"), place.at("worker"));
        if !program.exists() {
            install(&compiled("worker", &[]), &program);
        }
        place.session(&format!(
            "$ asyncq function add {name} --worker --env BOOK={} --env LOCKS={} --env 'OWN={own}' -- {} {how}",
            book.display(),
            locks.display(),
            program.display()
        ));
    }

    /// Notes that a client was told that a call with this key is job `id`.
    pub fn acknowledged(&self, id: i64, key: &str) {
        let mut file = OpenOptions::new().append(true).open(self.at("clients")).unwrap();
        file.write_all(format!("ENQ {id} {key}\n").as_bytes()).unwrap();
    }

    /// What functions have written, in its order.
    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.at("functions")).unwrap();
        text.lines().map(|line| Line::parse(line).unwrap_or_else(|| panic!("`{line}` in the book"))).collect()
    }

    /// Adds a line to the functions' book, as a function would.
    pub fn write(&self, line: &str) {
        let mut file = OpenOptions::new().append(true).open(self.at("functions")).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// How many lines with this word there are.
    pub fn count(&self, word: &str) -> usize {
        let text = fs::read_to_string(self.at("functions")).unwrap();
        text.lines().filter(|line| line.split(' ').next() == Some(word)).count()
    }

    /// Which job each key is, as clients were told.
    pub fn keys(&self) -> BTreeMap<String, Vec<i64>> {
        let mut keys: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for line in fs::read_to_string(self.at("clients")).unwrap().lines() {
            let [_, id, key] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("`{line}` in the book") };
            keys.entry(key.to_owned()).or_default().push(id.parse().unwrap());
        }
        keys
    }
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let [word, job, attempt, pid, time] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
        Some(Line {
            word: word.to_owned(),
            job: job.parse().ok()?,
            attempt: attempt.parse().ok()?,
            pid: pid.to_owned(),
            time: time.parse().ok()?,
        })
    }
}

/// `job.c`, compiled once for all tests.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| compiled("job", &[]));
    &PROGRAM
}

/// Compiles one of the C files beside this one; gives where what was made of it is.
pub fn compiled(name: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/faults/{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let made = folder.join(name);
    // Others may run the one that is there: it is replaced, not written.
    let draft = folder.join(format!("{name}.{}", std::process::id()));
    let lock = File::create(folder.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let status = Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&draft).args(options).arg(source).status();
    assert!(status.unwrap().success());
    fs::rename(&draft, &made).unwrap();
    made
}
