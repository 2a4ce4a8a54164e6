//! The signals by which a person, cron or a service manager asks a program to stop, and the one that is outlived.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Those of some signals that this process does not ignore. What was ignored when it started, as `nohup` wants it, stays
/// so, and functions inherit that.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn heard(signals: &[i32]) -> io::Result<Vec<i32>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let ignored = ignored.ok_or_else(|| io::Error::other("`/proc` has another form"))?;
    Ok(signals.iter().copied().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect())
}

/// Calls `asked` in a thread of its own whenever this process is asked to stop, from now on until it ends, by a signal that it
/// does not ignore.
///
/// # Errors
/// When the system refuses handlers, or `/proc` cannot be read.
pub fn on_stop(mut asked: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(heard(&[SIGINT, SIGTERM, SIGHUP])?)?;
    std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || {
        for _ in signals.forever() {
            asked();
        }
    })?;
    Ok(())
}

/// Ends this process as SIGKILL does.
pub fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // A process may always signal itself.
    std::process::abort();
}

/// A signal for a person, as in `signal 9 (SIGKILL)`.
#[must_use]
pub fn name(number: i32) -> String {
    match signal_hook::low_level::signal_name(number) {
        Some(name) => format!("signal {number} ({name})"),
        None => format!("signal {number}"),
    }
}

/// A write that exceeds the size that files may have (`ulimit -f`) fails from now on, and ends this process no more.
/// Functions do not inherit that: a handler is gone when a program is started, where a signal that is ignored stays so.
///
/// # Errors
/// When the system refuses handlers.
pub fn outlive_limits() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(|_| ())
}
