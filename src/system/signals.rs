//! Signals: requests to stop from a person, cron or a service manager; the size limit of files; and what a caller may have changed
//! about signals.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{
    fs, io,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, pipe};

use super::{error::io_error, fds};
use crate::error::{Error, Result};

/// Signals that stay ignored if they were when this process started. With `nohup` and a shell's `&`, programs ignore the signals of
/// a terminal. Every Rust program ignores SIGPIPE, which the standard library undoes for its children.
const LEFT_ALONE: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGPIPE];

/// Unblocks all signals for this process and its children, and stops ignoring those that the caller ignored, except for the signals
/// of a terminal. Call this before there are threads, because each thread has its own mask.
///
/// Otherwise, a caller that ignores SIGCHLD would hide from this process how its children end.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn reset() -> Result<()> {
    let unblocked = SigSet::empty().thread_set_mask().map_err(io::Error::from);
    let ignored = unblocked.and_then(|()| ignored()).map_err(|error| cannot_handle(&error))?;
    for number in (1..=64).filter(|number| ignored & bit(*number) != 0 && !LEFT_ALONE.contains(number)) {
        set_default(number);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a handler could do anything; the default is none")]
fn set_default(number: i32) {
    // SAFETY: no code of this process runs on the signal, before or after. The C library refuses its own two signals, which it
    // ignores in everything that it starts.
    let _ = unsafe { nix::libc::signal(number, nix::libc::SIG_DFL) };
}

/// Those of these signals that this process does not ignore.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn heard(signals: &[i32]) -> io::Result<Vec<i32>> {
    let ignored = ignored()?;
    Ok(signals.iter().copied().filter(|signal| ignored & bit(*signal) == 0).collect())
}

/// The signals that this process ignores, one bit for each.
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("`/proc` has another form"))
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Starts a thread that calls `asked` whenever a signal that is not ignored asks this process to stop.
///
/// # Errors
/// When the system refuses handlers, or `/proc` cannot be read.
pub fn on_stop(mut asked: impl FnMut() + Send + 'static) -> Result<()> {
    let thread = || std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024);
    let started = heard(&[SIGINT, SIGTERM, SIGHUP])
        .and_then(Signals::new)
        .and_then(|mut signals| thread().spawn(move || signals.forever().for_each(|_| asked())));
    started.map(drop).map_err(|error| io_error("cannot watch for signals", &error))
}

/// The interrupts of this process (SIGINT). From now on, they do not end it.
#[derive(Debug)]
pub struct Interrupts {
    caught: UnixStream,
    /// Kept open even if nothing is caught, because otherwise the other end would be readable.
    _handlers: UnixStream,
    /// Whether the next one ends this process.
    ends: Arc<AtomicBool>,
}

impl Interrupts {
    /// Begins to catch interrupts, unless this process ignores them.
    ///
    /// # Errors
    /// When the system refuses handlers, or `/proc` cannot be read.
    pub fn catch() -> Result<Interrupts> {
        let caught = || {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let ends = Arc::new(AtomicBool::new(false));
            if !heard(&[SIGINT])?.is_empty() {
                flag::register_conditional_default(SIGINT, Arc::clone(&ends))?;
                pipe::register(SIGINT, handlers.try_clone()?)?;
            }
            Ok(Interrupts { caught: ours, _handlers: handlers, ends })
        };
        caught().map_err(|error| cannot_handle(&error))
    }

    /// Whether any have come that nobody has taken.
    #[must_use]
    pub fn have_come(&self) -> bool {
        matches!(fds::wait(&mut [PollFd::new(&self.caught, PollFlags::IN)], Some(Duration::ZERO)), Ok(1..))
    }

    /// From now on, an interrupt ends this process again.
    pub fn release(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    /// Takes the interrupts that have come. Returns whether there were any.
    #[must_use]
    pub fn take(&self) -> bool {
        matches!(rustix::io::read(&self.caught, &mut [0; 64]), Ok(count) if count > 0)
    }

    /// Sleeps until an interrupt has come, at most for `time`. Returns whether one has.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let _ = fds::wait(&mut [PollFd::new(&self.caught, PollFlags::IN)], Some(left));
            match (self.take(), left.is_zero()) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
    }

    /// Ends this process as an interrupt does, so that a shell ends its script, too.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn die() -> Result<()> {
        emulate_default_handler(SIGINT).map_err(|error| cannot_handle(&error))
    }
}

/// Readable when one has come.
impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.caught.as_fd()
    }
}

/// Kills this process with SIGKILL.
pub fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // A process may always signal itself.
    std::process::abort();
}

/// A signal for a person, as in `signal 9 (SIGKILL)`.
pub fn name(number: i32) -> String {
    match signal_hook::low_level::signal_name(number) {
        Some(name) => format!("signal {number} ({name})"),
        None => format!("signal {number}"),
    }
}

/// From now on, a write that exceeds the size limit of files (`ulimit -f`) fails, and does not end this process. Functions do not
/// inherit that: a program starts without handlers, but it would inherit an ignored signal.
///
/// # Errors
/// When the system refuses handlers.
pub fn outlive_limits() -> Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop).map_err(|error| cannot_handle(&error))
}

fn cannot_handle(error: &io::Error) -> Error {
    io_error("cannot handle signals", error)
}
