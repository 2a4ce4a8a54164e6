//! What a processor keeps beside the store while it runs: a folder of its own, and in it the lock that proves its life,
//! with marks that tell which calls it runs.
//!
//! Invariant: a folder is removed only by whoever holds its lock, so that a lock which can be taken proves a death.

pub mod access;
pub mod disk_reserve;
pub mod home;
mod host_marks;
mod unkillable;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::domain::job::{JobId, Token};
use crate::domain::processor::NewProcessor;
use crate::runner::process::identity;
use crate::runner::process::identity::process_lives;
use crate::runner::process::unkillable::own_session;
use crate::runner::run_dir::access::{Access, open_folder};
use crate::runner::run_dir::disk_reserve::DiskReserve;

const LOCK: &str = "lock";

/// The file that the engine alone has locked, not its supervisor: free while [`LOCK`] is not, it tells that the engine has
/// died and what it left is being ended. It names the session in which that is.
const ENGINE: &str = "engine";

/// The lock, before it is what it should be.
const DRAFT: &str = "draft";

/// How long nobody takes to make a folder.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// How many bytes a mark takes: the number of a job, negative where that is in a host, or 0.
const MARK: usize = 8;

/// The file with the outcomes of calls that have ended, a place for each mark.
const OUTCOMES: &str = "outcomes";

/// How many bytes a place in it has: a page, which is written whole or not at all, whenever the writer is killed.
const NOTE: usize = 4096;

/// What precedes an outcome: its job, and how long it is.
const NOTE_HEAD: usize = MARK + 4;

/// How long a noted outcome may be, in bytes.
pub const LONGEST_NOTE: usize = NOTE - NOTE_HEAD;

/// How many marks have their place from the start, so that a full disk keeps nobody from making them.
const MARKS: usize = 512;

/// The folder of this processor, locked until this is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    name: String,
    marks: Arc<Marks>,
    /// Locked for as long as this process lives.
    _engine: File,
}

/// The lock file; what is in it tells which calls have begun and are not recorded yet. It outlives a process that is
/// killed; nobody asks it after a power cut.
#[derive(Debug)]
pub struct Marks {
    file: File,
    /// What came of the calls that have ended; as long-lived as the marks.
    outcomes: File,
    /// Which places in the file hold no mark: all from a number on, and some before.
    free: Mutex<Free>,
    /// Why one of them could not be written.
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
    /// Whether the outcome of the call is noted there, so that its processor's death does not repeat it.
    pub noted: bool,
    /// Whether a slot waits until the outcome is recorded.
    pub awaited: bool,
}

/// What the lock of another processor's folder says.
#[derive(Debug)]
pub enum Liveness {
    /// The processor holds its lock.
    Alive,
    /// The processor is gone; its folder is locked now until this is dropped.
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
    /// Makes and locks a folder among the others in `run_folder`. `name` must be new. What is in it is for its owner only;
    /// who may use the store may look at the lock.
    ///
    /// # Errors
    /// When the run folder is not the store's, and whatever the file system answers.
    pub fn make(run_folder: &Path, name: String, access: Access) -> io::Result<RunDir> {
        access.make_run_folder(run_folder)?;
        let path = run_folder.join(&name);
        private(&path)?;
        let (marks, engine) = new_locks(&path, access).inspect_err(|_| {
            // Others do not dare to: without a lock, nobody knows that it is not just being made. By name, as who cannot
            // open files may not be able to look into a folder.
            for name in [DRAFT, OUTCOMES, ENGINE] {
                let _ = fs::remove_file(path.join(name));
            }
            let _ = fs::remove_dir(&path);
        })?;
        Ok(RunDir { path, name, marks: Arc::new(marks), _engine: engine })
    }

    /// The lock.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.marks.file.as_fd()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// With what the tokens of its workers begin.
    #[must_use]
    pub fn token(&self) -> Token {
        token_of(&self.name)
    }

    /// Removes it, once nothing refers to it any more. Where that is not done, a rescuer finds it.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// The marks in its lock file.
    #[must_use]
    pub fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks)
    }

    /// Why its marks cannot be relied on, if they cannot.
    #[must_use]
    pub fn flaw(&self) -> Option<&io::Error> {
        self.marks.flaw()
    }

    /// What the processor with this folder tells about itself; `pid` is the process that was started.
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

    /// Notes what came of a job, at most [`LONGEST_NOTE`] bytes. Where that is not possible, the death of its processor
    /// repeats the call.
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

    /// Says whether it is written.
    fn write(&self, place: usize, job: i64) -> bool {
        // Where this fails, a crash is not counted; a call that ends with this process is safe, so it runs.
        let written = self.file.write_all_at(&job.to_ne_bytes(), (place * MARK) as u64);
        written.map_err(|error| self.flaw.get_or_init(|| error)).is_ok()
    }

    /// Why a mark could not be written: the first of them.
    #[must_use]
    pub fn flaw(&self) -> Option<&io::Error> {
        self.flaw.get()
    }
}

impl DeadRunDir {
    /// The jobs that were running, or had just ended, when the processor died.
    ///
    /// # Errors
    /// Whatever the file system answers; then it is not known.
    pub fn begun(&self) -> io::Result<Vec<JobId>> {
        Ok(self.marks()?.into_iter().map(|(_, mark)| job(mark)).collect())
    }

    /// What came of those that had ended, as it was noted.
    ///
    /// # Errors
    /// Whatever the file system answers; then it is not known.
    pub fn outcomes(&self) -> io::Result<Vec<(JobId, Vec<u8>)>> {
        let file = open_file(&self.path.join(OUTCOMES))?;
        let mut found = Vec::new();
        for (place, mark) in self.marks()? {
            let job = job(mark);
            let mut note = [0; NOTE];
            let count = file.read_at(&mut note, (place * NOTE) as u64)?;
            let (head, outcome) = note[..count].split_at(count.min(NOTE_HEAD));
            // What stood there before this job was marked is another's.
            if let (Some(of), Some(length)) = (head.first_chunk(), head.last_chunk())
                && i64::from_ne_bytes(*of) == job.0
                && let Some(outcome) = outcome.get(..u32::from_ne_bytes(*length) as usize)
            {
                found.push((job, outcome.to_owned()));
            }
        }
        Ok(found)
    }

    /// What stands in each place that is not free.
    fn marks(&self) -> io::Result<Vec<(usize, i64)>> {
        let mut bytes = Vec::new();
        (&self.lock).rewind()?;
        (&self.lock).read_to_end(&mut bytes)?;
        let marks = bytes.as_chunks::<MARK>().0.iter().map(|mark| i64::from_ne_bytes(*mark));
        Ok(marks.enumerate().filter(|(_, mark)| *mark != 0).collect())
    }

    /// Gives up the space that the dead processor kept: who puts its jobs back may need it.
    pub fn give_space(&self) {
        let reserve = DiskReserve::of(&self.path);
        while reserve.give() {}
    }

    /// Removes the folder, once nothing refers to it any more.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The job of a mark; a negative one is in the host.
fn job(mark: i64) -> JobId {
    JobId(mark.abs())
}

/// Makes the locks of a new folder, and takes them: that of the processor, and the engine's.
fn new_locks(folder: &Path, access: Access) -> io::Result<(Marks, File)> {
    access.show(&open_folder(folder)?, 0o710)?;
    let engine = locked(&folder.join(ENGINE), access)?;
    engine.write_all_at(own_session().as_bytes(), 0)?;
    let outcomes = new(&folder.join(OUTCOMES), access)?;
    // Nobody sees it before it is locked.
    let draft = folder.join(DRAFT);
    let lock = locked(&draft, access)?;
    lock.write_all_at(&[0; MARK * MARKS], 0)?;
    fs::rename(draft, folder.join(LOCK))?;
    Ok((Marks { file: lock, outcomes, free: Mutex::default(), flaw: OnceLock::new() }, engine))
}

/// Makes a folder for its owner only, whatever the umask.
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

/// Makes a file that its owner writes, and who may use the store may read.
fn new(path: &Path, access: Access) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    access.show(&file, 0o640)?;
    Ok(file)
}

/// With what the tokens of the workers begin that belong to the processor with a folder of this name.
#[must_use]
pub fn token_of(name: &str) -> Token {
    Token::from_text(name)
}

/// The names of all folders that processors have made and that are still there.
///
/// # Errors
/// Whatever the file system answers.
pub fn names(run_folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(run_folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Removes a folder beside this one whose processor was killed while it made it, long ago: it has no lock that could tell.
/// How long ago, only the file system's own clock knows.
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
        // Should somebody be making it after all, that fails now, and nothing depends on it yet.
        let _ = fs::remove_dir_all(&path);
    }
}

/// Looks whether the processor that made this folder lives.
///
/// # Errors
/// Whatever the file system answers; then nothing is known.
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

/// Whether one of the two processes of a processor is gone, and the other one is ending what functions have left.
#[must_use]
pub fn is_dying(run_folder: &Path, is: &NewProcessor) -> bool {
    // Shared, so that those who look at the same time do not take each other for the engine.
    let engine = open_file(&run_folder.join(&is.folder).join(ENGINE));
    let engine_is_gone = engine.is_ok_and(|lock| lock.try_lock_shared().is_ok());
    (engine_is_gone || !process_lives(is)) && matches!(liveness(run_folder, &is.folder), Ok(Liveness::Alive))
}

fn open_file(path: &Path) -> io::Result<File> {
    // Neither a link to somewhere else nor a pipe that would keep us waiting.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}
