//! The environment of other processes, which shows to which attempt they belong.

use std::{fs, io, sync::LazyLock};

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use crate::runner::process::stat::Stat;

/// Fields of `/proc/PID/stat` (proc(5)): how many threads share the memory, and where the environment begins and ends.
const FLAGS: usize = 9;
const THREADS: usize = 20;
const ENVIRONMENT: usize = 50;
const ENVIRONMENT_END: usize = 51;

/// Flags of a process (`PF_EXITING` and `PF_KTHREAD` of the kernel's `sched.h`). A process that is ending, or that belongs to the
/// kernel, has no memory, and so no environment.
const EXITING: u64 = 0x4;
const WITHOUT_MEMORY: u64 = EXITING | 0x0020_0000;

/// How often to try again when a process changes its environment all the time.
const LOOKS: usize = 3;

/// Whether the kernel shows where environments are. Linux does; imitations of it may not.
static IS_TOLD: LazyLock<bool> = LazyLock::new(|| Stat::of(getpid()).is_ok_and(|own| own.number(ENVIRONMENT_END) != 0));

/// Reads the environment of a process. It is `None` in the middle of `execve`, when the old one is gone and the new one is not
/// there yet. At that moment, the process may have lost the locks that it inherited.
///
/// # Errors
/// Whatever `/proc` answers.
pub(in crate::runner) fn read(pid: Pid) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..LOOKS {
        let environment = match fs::read(format!("/proc/{pid}/environ")) {
            // Some kernels answer this when the first thread has ended, even if other threads run.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Vec::new(),
            read => read?,
        };
        if !environment.is_empty() {
            return Ok(Some(environment));
        }
        let process = Stat::of(pid)?;
        if process.number(THREADS) > 1 && process.number(FLAGS) & EXITING != 0 {
            return Ok(Some(of_other_threads(pid)));
        }
        if is_being_made(&process) {
            return Ok(None);
        }
        if process.number(ENVIRONMENT) == process.number(ENVIRONMENT_END) {
            break;
        }
        // It was there a moment later.
    }
    Ok(Some(Vec::new()))
}

/// Whether a process has ended, or is about to.
pub(in crate::runner) fn is_gone(pid: Pid) -> bool {
    Stat::of(pid).map_or(true, |process| process.number(FLAGS) & EXITING != 0 && process.number(THREADS) < 2)
}

/// The tracer of a process (proc(5)), if there is one.
pub(in crate::runner) fn tracer(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    Pid::from_raw(tracer.trim().parse().ok()?)
}

/// The environment of a process that lives on without its first thread.
fn of_other_threads(pid: Pid) -> Vec<u8> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut read = threads.filter_map(|thread| fs::read(thread.path().join("environ")).ok());
    read.find(|environment| !environment.is_empty()).unwrap_or_default()
}

/// Whether a process has no memory yet, although it will have some.
fn is_being_made(process: &Stat) -> bool {
    process.number(ENVIRONMENT_END) == 0 && process.number(FLAGS) & WITHOUT_MEMORY == 0 && *IS_TOLD
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_environment_of_every_process_can_be_read() {
        let mut sleeping = Command::new("sleep").arg("1000").env_clear().stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&sleeping);
        // It has an empty environment, but only once it has started.
        while read(pid).unwrap().is_none() {}
        assert_eq!(read(pid).unwrap(), Some(Vec::new()));
        sleeping.kill().unwrap();
        // Killed and not reaped.
        while fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S") {}
        assert_eq!(read(pid).unwrap(), Some(Vec::new()));
        sleeping.wait().unwrap();
        assert!(read(pid).is_err());
        assert!(!read(getpid()).unwrap().unwrap().is_empty());
    }
}
