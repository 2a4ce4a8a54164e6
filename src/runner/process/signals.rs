//! The signals by which a person, cron or a service manager asks a program to stop, the one that is outlived, and what a
//! caller may have done to any of them.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::SigSet;
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// What stays ignored where it was when this process started: `nohup` and a shell's `&` have programs ignore what a
/// terminal sends. SIGPIPE is ignored by every Rust program, and the standard library undoes that for what it starts.
const LEFT_ALONE: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGPIPE];

/// Undoes, for this process and all that it starts, what its caller has left behind: signals that are blocked, and signals
/// that are ignored, but for those that a terminal sends. Called before there are threads, which would keep their own mask.
///
/// A caller that ignores SIGCHLD would keep this process from learning how its children end.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn reset() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    let ignored = ignored()?;
    for number in (1..=64).filter(|number| ignored & bit(*number) != 0 && !LEFT_ALONE.contains(number)) {
        set_default(number);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a handler could do anything; the default is none")]
fn set_default(number: i32) {
    // SAFETY: no code of this process runs on the signal, before or after. The C library refuses its own two signals, which it
    // ignores in all that it starts.
    let _ = unsafe { nix::libc::signal(number, nix::libc::SIG_DFL) };
}

/// Those of some signals that this process does not ignore.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn heard(signals: &[i32]) -> io::Result<Vec<i32>> {
    let ignored = ignored()?;
    Ok(signals.iter().copied().filter(|signal| ignored & bit(*signal) == 0).collect())
}

/// The signals that this process ignores, each a bit.
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("`/proc` has another form"))
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
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
