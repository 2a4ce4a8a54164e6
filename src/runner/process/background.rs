//! Starts programs that outlive this process.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::runner::Access;

/// The right to start a processor in the background. One process has it at a time. It ends with this value.
#[derive(Debug)]
pub struct StartRight {
    #[expect(dead_code, reason = "the kernel's lock is released when it is closed")]
    folder: File,
}

impl StartRight {
    /// Takes the right for the store with this run folder, unless another process has it. Makes the folder if it is missing.
    ///
    /// # Errors
    /// When the folder does not belong to the store, and whatever the file system answers.
    pub fn take(run_folder: &Path, access: Access) -> io::Result<Option<StartRight>> {
        access.make_run_folder(run_folder)?;
        let folder = File::open(run_folder)?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(StartRight { folder })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether a program in the background gets this variable. It also runs for other users, who must get nothing else.
fn is_passed_on(name: &str) -> bool {
    const NAMES: [&str; 8] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];
    NAMES.contains(&name) || ["ASYNCQ_", "LC_", "LD_", "XDG_"].iter().any(|start| name.starts_with(start))
}

/// Starts a program in a process group of its own, which no signal of a terminal reaches. It gets only the usual ones of these
/// variables, reads and prints nothing, and keeps no directory in use.
///
/// # Errors
/// When it cannot be started.
pub fn start(program: &Path, words: &[OsString], env: &[(OsString, OsString)]) -> io::Result<Child> {
    let mut command = Command::new(program);
    let env = env.iter().filter(|(name, _)| is_passed_on(&name.to_string_lossy())).cloned();
    command.args(words).env_clear().envs(env).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
