//! What a processor keeps beside the store while it runs: a folder of its own, and in it the lock that proves its life.
//!
//! Invariant: a folder is removed only by whoever holds its lock, so that a lock which can be taken proves a death.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::domain::processor::NewProcessor;

const LOCK: &str = "lock";

/// The folder of this processor, locked until this is dropped, when the folder is removed.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
    _lock: File,
}

/// What the lock of another processor's folder says.
#[derive(Debug)]
pub enum Life {
    /// The processor holds its lock.
    Alive,
    /// The processor is gone; its folder is locked now until this is dropped.
    Dead(Remains),
    /// There is no folder.
    NoFolder,
}

/// The folder of a dead processor, locked by us.
#[derive(Debug)]
pub struct Remains {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes and locks a folder among the others in `run_folder`, for its owner only. `name` must be new.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub fn make(run_folder: &Path, name: String) -> io::Result<Folder> {
        match private(run_folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let path = run_folder.join(&name);
        private(&path)?;
        let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(LOCK))?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        lock.try_lock()?;
        Ok(Folder { path, name, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this process tells about itself, with this folder.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn describe(&self) -> io::Result<NewProcessor> {
        let pid = i64::from(std::process::id());
        Ok(NewProcessor {
            folder: self.name.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: boot()?,
            pid,
            pid_start: started(pid)?,
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The lock is still held; left-overs are swept by whoever finds the folder without an owner.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Remains {
    /// Removes the folder, once nothing refers to it any more.
    pub fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes a folder for its owner only, whatever the umask.
fn private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

/// Looks whether the processor that made this folder lives.
///
/// # Errors
/// Whatever the file system answers; then nothing is known.
pub fn life(run_folder: &Path, name: &str) -> io::Result<Life> {
    let path = run_folder.join(name);
    let lock = match OpenOptions::new().write(true).open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Life::NoFolder),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Life::Dead(Remains { path, _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(Life::Alive),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the very process that registered is still there, on this machine. Only asked when its folder is gone: the
/// lock is the proof, this is the best guess without one.
#[must_use]
pub fn process_lives(is: &NewProcessor) -> bool {
    let here = rustix::system::uname().nodename().to_string_lossy() == is.host;
    let same_boot = boot().is_ok_and(|boot| boot == is.boot);
    !here || same_boot && started(is.pid).is_ok_and(|start| start == is.pid_start)
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When a process began, in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)), counted after the program's
/// name, which may hold anything.
fn started(pid: i64) -> io::Result<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let field = after.split_ascii_whitespace().nth(19);
    field.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("`/proc` has another form"))
}
