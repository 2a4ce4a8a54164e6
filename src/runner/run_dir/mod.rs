//! The folder that a processor keeps next to the store while it runs. Its lock proves that the processor lives, and its marks
//! show which calls run.
//!
//! Invariant: only the holder of its lock removes a folder. So a free lock proves that the processor is dead.

pub mod access;
pub mod disk_reserve;
pub mod home;
mod host_marks;
mod unkillable;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rustix::fs::OFlags;

use crate::domain::job::{JobId, Token};
use crate::domain::processor::NewProcessor;
use crate::runner::process::{identity, unkillable::own_session};
use crate::runner::{Access, DiskReserve, run_dir::access::open_folder};

const LOCK: &str = "lock";

/// The file that only the processor process locks, and not its supervisor. If it is free while [`LOCK`] is not, the processor
/// process has died, and its supervisor is ending what it left. It names the session of these processes.
const ENGINE: &str = "engine";

/// The lock file before it is complete.
const DRAFT: &str = "draft";

/// A folder without a lock is abandoned after this time, because nobody takes that long to make one.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// The bytes of a mark: the number of a job, negative if it runs in a host, or 0.
const MARK: usize = 8;

/// The file with the outcomes of ended calls, with a place for each mark.
const OUTCOMES: &str = "outcomes";

/// The bytes of such a place: a page, which is always written as a whole or not at all, even if the writer is killed.
const NOTE: usize = 4096;

/// The bytes before an outcome: its job and its length.
const NOTE_HEAD: usize = MARK + 4;

/// The longest outcome that can be noted, in bytes.
pub const LONGEST_NOTE: usize = NOTE - NOTE_HEAD;

/// How many marks have a place from the start, so that a full disk does not prevent them.
const MARKS: usize = 512;

/// The folder of this processor. It is locked until this is dropped.
#[derive(Debug)]
pub struct RunDir {
    /// Where it is.
    pub path: PathBuf,
    name: String,
    /// The marks in its lock file.
    pub marks: Arc<Marks>,
    /// Locked for as long as this process lives.
    _engine: File,
}

/// The lock file. Its marks show which calls have begun and are not recorded yet. They outlive a killed process; after a power cut,
/// nobody reads them.
#[derive(Debug)]
pub struct Marks {
    file: File,
    /// The outcomes of calls that have ended. They live as long as the marks.
    outcomes: File,
    /// The free places in the file: all from a certain number on, and some before it.
    free: Mutex<Free>,
    /// Why a mark could not be written.
    flaw: OnceLock<io::Error>,
}

/// Places that hold no mark.
#[derive(Debug, Default)]
struct Free {
    from: usize,
    before: BinaryHeap<Reverse<usize>>,
}

impl Free {
    fn take(&mut self) -> usize {
        if let Some(Reverse(place)) = self.before.pop() {
            return place;
        }
        self.from += 1;
        self.from - 1
    }
}

/// One mark.
#[derive(Debug)]
pub struct Mark {
    place: usize,
    /// Whether the outcome of the call is noted, so that the death of its processor does not repeat the call.
    pub noted: bool,
    /// Whether a slot waits until the outcome is recorded.
    pub awaited: bool,
}

/// What the lock of another processor's folder shows.
#[derive(Debug)]
pub enum Liveness {
    /// The processor holds its lock.
    Alive,
    /// The processor is gone. Its folder is locked until this is dropped.
    Dead(DeadRunDir),
    /// There is no folder.
    NoRunDir,
}

/// The folder of a dead processor, locked by us.
#[derive(Debug)]
pub struct DeadRunDir {
    path: PathBuf,
    lock: File,
}

impl RunDir {
    /// Makes and locks a folder in `run_folder`. `name` must be new. Only its owner can read it, but everybody who may use the
    /// store can check the lock.
    ///
    /// # Errors
    /// When the run folder does not belong to the store, and whatever the file system answers.
    pub fn make(run_folder: &Path, name: String, access: Access) -> io::Result<RunDir> {
        access.make_run_folder(run_folder)?;
        let path = run_folder.join(&name);
        private(&path)?;
        let (marks, engine) = new_locks(&path, access).inspect_err(|_| {
            // Nobody else would remove it: without a lock, it looks as if somebody were just making it. The files are removed by
            // name, because a process that cannot open files may not be able to list a folder either.
            for name in [DRAFT, OUTCOMES, ENGINE] {
                let _ = fs::remove_file(path.join(name));
            }
            let _ = fs::remove_dir(&path);
        })?;
        Ok(RunDir { path, name, marks: Arc::new(marks), _engine: engine })
    }

    /// The lock.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.marks.file.as_fd()
    }

    /// The beginning of its workers' tokens.
    pub fn token(&self) -> Token {
        token_of(&self.name)
    }

    /// Removes the folder, when nothing refers to it. A rescuer removes what is left.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// The registration of the processor with this folder; `pid` is the process that was started.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn describe(&self, pid: i64) -> io::Result<NewProcessor> {
        Ok(NewProcessor {
            folder: self.name.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: identity::here()?,
            pid,
            pid_start: identity::started(pid)?,
        })
    }
}

impl Marks {
    /// Notes that a job has begun.
    pub fn set(&self, job: JobId) -> Mark {
        let place = self.free().take();
        self.write(place, job.0);
        Mark { place, noted: false, awaited: false }
    }

    /// Notes the outcome of a job, at most [`LONGEST_NOTE`] bytes. If that fails, the death of its processor repeats the call.
    pub fn note(&self, mark: &mut Mark, job: JobId, outcome: &[u8]) {
        let Some(length) = u32::try_from(outcome.len()).ok().filter(|_| outcome.len() <= LONGEST_NOTE) else { return };
        let note = [&job.0.to_ne_bytes()[..], &length.to_ne_bytes()[..], outcome].concat();
        mark.noted = self.outcomes.write_all_at(&note, (mark.place * NOTE) as u64).is_ok();
    }

    /// Forgets a job whose outcome is recorded.
    pub fn clear(&self, mark: &Mark) {
        self.write(mark.place, 0);
        self.free().before.push(Reverse(mark.place));
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is written.
    fn write(&self, place: usize, job: i64) -> bool {
        // If this fails, a crash is not counted. The call runs all the same, because it ends with this process.
        let written = self.file.write_all_at(&job.to_ne_bytes(), (place * MARK) as u64);
        written.map_err(|error| self.flaw.get_or_init(|| error)).is_ok()
    }

    /// Why a mark could not be written for the first time.
    pub fn flaw(&self) -> Option<&io::Error> {
        self.flaw.get()
    }
}

impl DeadRunDir {
    /// The jobs that were running, or had just ended, when the processor died.
    ///
    /// # Errors
    /// Whatever the file system answers; then that is unknown.
    pub fn begun(&self) -> io::Result<Vec<JobId>> {
        Ok(self.marks()?.into_iter().map(|(_, mark)| job(mark)).collect())
    }

    /// The noted outcomes of those that had ended.
    ///
    /// # Errors
    /// Whatever the file system answers; then that is unknown.
    pub fn outcomes(&self) -> io::Result<Vec<(JobId, Vec<u8>)>> {
        let file = open_file(&self.path.join(OUTCOMES))?;
        let mut found = Vec::new();
        for (place, mark) in self.marks()? {
            let job = job(mark);
            let mut note = [0; NOTE];
            let count = file.read_at(&mut note, (place * NOTE) as u64)?;
            let (head, outcome) = note[..count].split_at(count.min(NOTE_HEAD));
            // The place may still hold the outcome of an earlier job.
            if let (Some(of), Some(length)) = (head.first_chunk(), head.last_chunk())
                && i64::from_ne_bytes(*of) == job.0
                && let Some(outcome) = outcome.get(..u32::from_ne_bytes(*length) as usize)
            {
                found.push((job, outcome.to_owned()));
            }
        }
        Ok(found)
    }

    /// The marks, with their places.
    fn marks(&self) -> io::Result<Vec<(usize, i64)>> {
        let mut bytes = Vec::new();
        (&self.lock).rewind()?;
        (&self.lock).read_to_end(&mut bytes)?;
        let marks = bytes.as_chunks::<MARK>().0.iter().map(|mark| i64::from_ne_bytes(*mark));
        Ok(marks.enumerate().filter(|(_, mark)| *mark != 0).collect())
    }

    /// Frees the disk reserve of the dead processor, because putting back its jobs may need the space.
    pub fn give_space(&self) {
        let reserve = DiskReserve::of(&self.path);
        while reserve.give() {}
    }

    /// Removes the folder, when nothing refers to it.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The job of a mark; a negative one is in the host.
fn job(mark: i64) -> JobId {
    JobId(mark.abs())
}

/// Makes and takes the locks of a new folder: that of the processor, and that of the processor process.
fn new_locks(folder: &Path, access: Access) -> io::Result<(Marks, File)> {
    access.show(&open_folder(folder)?, 0o710)?;
    let engine = locked(&folder.join(ENGINE), access)?;
    engine.write_all_at(own_session().as_bytes(), 0)?;
    let outcomes = new(&folder.join(OUTCOMES), access)?;
    // It gets its name only when it is locked.
    let draft = folder.join(DRAFT);
    let lock = locked(&draft, access)?;
    lock.write_all_at(&[0; MARK * MARKS], 0)?;
    fs::rename(draft, folder.join(LOCK))?;
    Ok((Marks { file: lock, outcomes, free: Mutex::default(), flaw: OnceLock::new() }, engine))
}

/// Makes a folder for its owner alone, whatever the umask.
fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Makes a file and locks it.
fn locked(path: &Path, access: Access) -> io::Result<File> {
    let file = new(path, access)?;
    file.try_lock()?;
    Ok(file)
}

/// Makes a file. Its owner can write it, and all users of the store can read it.
fn new(path: &Path, access: Access) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    access.show(&file, 0o640)?;
    Ok(file)
}

/// The beginning of the tokens of the workers of a processor that has a folder with this name.
pub fn token_of(name: &str) -> Token {
    Token::from_text(name)
}

/// The names of all folders of processors.
///
/// # Errors
/// Whatever the file system answers.
pub fn names(run_folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(run_folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Removes a folder next to this one that a processor has left without a lock, because it was killed long ago while it made the
/// folder. The file system's own clock decides how long ago.
pub fn remove_unfinished(this: &Path, name: &str) {
    if !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return;
    }
    let path = this.with_file_name(name);
    let modified = |path: &Path| fs::symlink_metadata(path).and_then(|meta| meta.modified());
    if let (Ok(now), Ok(then)) = (modified(this), modified(&path))
        && now.duration_since(then).is_ok_and(|age| age > UNFINISHED)
        && fs::symlink_metadata(path.join(LOCK)).is_err()
    {
        // If somebody is making it after all, that fails now. Nothing depends on the folder yet.
        let _ = fs::remove_dir_all(&path);
    }
}

/// Checks whether the processor that made this folder lives.
///
/// # Errors
/// Whatever the file system answers; then that is unknown.
pub fn liveness(run_folder: &Path, name: &str) -> io::Result<Liveness> {
    let path = run_folder.join(name);
    let lock = match open_file(&path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Liveness::NoRunDir),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Liveness::Dead(DeadRunDir { path, lock })),
        Err(TryLockError::WouldBlock) => Ok(Liveness::Alive),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether one of the two processes of a processor is gone, and the other one is ending what its functions left.
pub fn is_dying(run_folder: &Path, is: &NewProcessor) -> bool {
    // The lock is shared, so that two checks at the same time do not take each other for the processor process.
    let engine = open_file(&run_folder.join(&is.folder).join(ENGINE));
    let engine_is_gone = engine.is_ok_and(|lock| lock.try_lock_shared().is_ok());
    (engine_is_gone || !identity::process_lives(is)) && matches!(liveness(run_folder, &is.folder), Ok(Liveness::Alive))
}

fn open_file(path: &Path) -> io::Result<File> {
    // Not through a link, and without waiting for a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}
