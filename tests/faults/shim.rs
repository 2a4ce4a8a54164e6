//! Makes calls of the system fail that asyncq makes on a store: the K-th open, write, sync or truncate, once or for ever.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The disk fails.
    Eio,
    /// The disk is full.
    Enospc,
    /// A signal came.
    Eintr,
    /// Writes write half of what they should; nothing else fails.
    Short,
}

impl Error {
    fn number(self) -> u32 {
        match self {
            Error::Eio => 5,
            Error::Enospc => 28,
            Error::Eintr => 4,
            Error::Short => 0,
        }
    }
}

/// Which calls fail, by their number from 1.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub error: Error,
    pub first: u32,
    pub last: u32,
}

impl Fault {
    pub fn once(error: Error, at: u32) -> Fault {
        Fault { error, first: at, last: at }
    }

    pub fn for_ever(error: Error, from: u32) -> Fault {
        Fault { error, first: from, last: u32::MAX }
    }
}

/// One call of the system on the store, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `open`, `write`, `sync` or `truncate`.
    pub what: String,
    pub failed: bool,
    /// What it was about, without the folder.
    pub path: String,
}

/// What decides which calls below one folder fail. The program reads it while it runs.
pub struct Shim {
    control: PathBuf,
    log: PathBuf,
    folder: PathBuf,
}

impl Shim {
    /// For the store in `folder`; what the shim needs itself is kept in `scratch`.
    pub fn new(folder: &Path, scratch: &Path, fault: Fault) -> Shim {
        let (control, log) = (scratch.join("shim-control"), scratch.join("shim-log"));
        let words = [fault.first, fault.last, fault.error.number(), 0, 0];
        fs::write(&control, words.map(u32::to_ne_bytes).concat()).unwrap();
        fs::write(&log, "").unwrap();
        Shim { control, log, folder: folder.to_owned() }
    }

    /// Has a command and what it starts fail.
    pub fn preload(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("SHIM_CONTROL", &self.control);
        command.env("SHIM_FOLDER", &self.folder).env("SHIM_LOG", &self.log);
    }

    /// From now on, everything fails.
    pub fn fail(&self) {
        let words = [1, u32::MAX].map(u32::to_ne_bytes).concat();
        File::options().write(true).open(&self.control).unwrap().write_all_at(&words, 0).unwrap();
    }

    /// From now on, nothing fails any more.
    pub fn heal(&self) {
        File::options().write(true).open(&self.control).unwrap().write_all_at(&[0; 4], 0).unwrap();
    }

    /// How many calls there were.
    pub fn count(&self) -> u32 {
        self.word(3)
    }

    /// How many of them failed.
    pub fn fired(&self) -> u32 {
        self.word(4)
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        File::open(&self.control).unwrap().read_exact_at(&mut bytes, at * 4).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// What was called.
    pub fn calls(&self) -> Vec<Call> {
        let log = fs::read_to_string(&self.log).unwrap();
        let read = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (what, outcome, path) = (words.next()?, words.next()?, words.next()?);
            let path = path.strip_prefix(self.folder.to_str()?).unwrap_or(path).trim_start_matches('/');
            Some(Call { what: what.to_owned(), failed: outcome == "fails", path: path.to_owned() })
        };
        log.lines().filter_map(read).collect()
    }
}

/// The library that is preloaded, compiled once in a run of the tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let draft = tempfile::Builder::new().prefix("shim").suffix(".so").tempfile_in(folder).unwrap().into_temp_path();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&draft).arg(source).status().unwrap();
        assert!(cc.success());
        let library = folder.join("shim.so");
        draft.persist(&library).unwrap();
        library
    })
}
