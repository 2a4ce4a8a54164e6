//! Descriptors: functions do not inherit those of the processor, and there must be enough of them.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{fs, time::Duration};

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::{Resource, getrlimit};

use super::error::io_error;
use crate::error::Result;

/// Makes this process ready to run functions: marks every descriptor but stdin, stdout and stderr to be closed in the
/// programs that it starts. Our own are marked from the start; these were inherited.
///
/// # Errors
/// When `/proc` cannot be read, and where too few descriptors are allowed to run even one function.
pub fn prepare() -> Result<()> {
    let is_enough = limit() >= FOR_THE_REST + FOR_A_FUNCTION;
    let open = if is_enough { fs::read_dir("/proc/self/fd") } else { Err(Errno::MFILE.into()) };
    let open = open.map_err(|error| io_error("cannot run functions", &error))?;
    let numbers: Vec<i32> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        mark(number);
    }
    Ok(())
}

/// Sleeps until one of `fds` is ready, for at most `time`, without end if there is none. Returns how many are ready: none if a
/// signal ends the sleep.
///
/// # Errors
/// As poll(2).
pub fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) -> rustix::io::Result<usize> {
    // A time that is too long for the system has no end.
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    poll(fds, time.as_ref()).or_else(|error| if error == Errno::INTR { Ok(0) } else { Err(error) })
}

/// Closes a descriptor whose end takes the kernel long, without waiting for that: an inotify takes 10 to 20 ms, and the end of a
/// process waits for it, too. It is sent to a socket that nobody can reach but through its own messages. The kernel collects
/// such sockets in the background (older ones than Linux 6.9 do so at once, which is as slow as to close it).
pub fn close_later(descriptor: OwnedFd) {
    let Ok((ours, theirs)) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None) else {
        return;
    };
    let sent = [theirs.as_fd(), descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&sent));
    // If this fails, it is closed here.
    let _ = sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    drop((descriptor, theirs));
    // The end of a socket has the kernel look for those that nobody can reach.
    drop(ours);
}

/// How many descriptors a running function takes at most: pipes, a pidfd, a file for output, and some spare.
const FOR_A_FUNCTION: u64 = 12;

/// How many descriptors everything else takes.
const FOR_THE_REST: u64 = 16;

/// One of so many descriptors may be that of a follower.
const FOLLOWER_SHARE: u64 = 32;

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many functions this process may run at once, by its limit of descriptors; at least one.
pub fn functions_at_once() -> usize {
    let many = limit().saturating_sub(FOR_THE_REST) / FOR_A_FUNCTION;
    usize::try_from(many.max(1)).unwrap_or(usize::MAX)
}

/// How many others may follow the output of its calls at once.
pub fn followers_at_once() -> usize {
    usize::try_from(limit() / FOLLOWER_SHARE).unwrap_or(usize::MAX).clamp(1, 64)
}

/// Takes a descriptor that this process has inherited, if it is open. Call it once, before anything else is opened.
#[expect(unsafe_code, reason = "a descriptor that was inherited has no owner in this program")]
pub fn take(number: i32) -> Option<OwnedFd> {
    // SAFETY: the number is only used for this call, which changes nothing.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(descriptor).ok()?;
    // SAFETY: it is open, and nothing in this program has opened it, nor takes it but the one who asks.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[expect(unsafe_code, reason = "a descriptor that was inherited has no owner in this program")]
fn mark(number: i32) {
    // SAFETY: the number is only used for this call, which changes a flag that nobody here relies on being unset. It may
    // have been closed meanwhile (the one of the directory itself was): then the call fails, and that is as well.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_later_is_closed() {
        for _ in 0..100 {
            let (reads, writes) = rustix::pipe::pipe().unwrap();
            close_later(writes);
            // It is readable at its end, and no earlier, as nobody writes.
            let mut end = [PollFd::new(&reads, rustix::event::PollFlags::IN)];
            assert_eq!(wait(&mut end, Some(Duration::from_secs(60))), Ok(1));
            assert_eq!(rustix::io::read(&reads, &mut [0; 1]), Ok(0));
        }
    }
}
