//! Writes to the descriptors of stdout and stderr, and gives up on a reader that does not read.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::PIPE_BUF;

use crate::domain::log::Stream;
use crate::system::fds;

static GIVES_UP_AT: Mutex<Option<Instant>> = Mutex::new(None);

static HAS_GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// From now on, asyncq waits for readers of its output until this time at most. A write that comes later fails unless the reader is
/// ready for it.
pub fn give_up_at(until: Instant) {
    *when_to_give_up() = Some(until);
}

/// Whether a write failed because its reader did not read in time.
pub fn has_given_up() -> bool {
    HAS_GIVEN_UP.load(Ordering::Relaxed)
}

fn when_to_give_up() -> MutexGuard<'static, Option<Instant>> {
    GIVES_UP_AT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptor of a stream.
pub fn descriptor(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Out => rustix::stdio::stdout(),
        Stream::Err => rustix::stdio::stderr(),
    }
}

/// What a write did.
pub enum Written {
    /// It wrote this many bytes.
    Bytes(usize),
    /// Nothing, because the stream is closed.
    Nothing,
}

/// Writes some bytes and waits for the reader, also if another process has set `O_NONBLOCK`.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when it is time to give up; and whatever the system answers.
pub fn write(stream: Stream, bytes: &[u8]) -> io::Result<Written> {
    let fd = descriptor(stream);
    let mut refused = false;
    loop {
        let bytes = taken_at_once(fd, bytes)?;
        match rustix::io::write(fd, bytes) {
            Ok(count) => return Ok(Written::Bytes(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // It was said to be ready, and was not.
                if refused {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if when_to_give_up().is_none() {
                    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
                }
                refused = true;
            }
            // It is open only for reading, which counts as closed.
            Err(Errno::BADF) => return Ok(Written::Nothing),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first bytes that a write takes without waiting for the reader. They are all bytes until there is a time to give up.
fn taken_at_once<'a>(fd: BorrowedFd<'_>, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let Some(until) = *when_to_give_up() else { return Ok(bytes) };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match fds::wait(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(left)) {
            Ok(0) if left.is_zero() => {
                HAS_GIVEN_UP.store(true, Ordering::Relaxed);
                return Err(ErrorKind::TimedOut.into());
            }
            Ok(0) => {}
            // A ready pipe takes this much.
            _ => return Ok(&bytes[..bytes.len().min(PIPE_BUF)]),
        }
    }
}
