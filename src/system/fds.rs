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

/// Prepares this process to run functions: marks every descriptor except stdin, stdout and stderr, so that the programs that it
/// starts do not get it. Our own are marked from the start; these were inherited.
///
/// # Errors
/// When `/proc` cannot be read, and when so few descriptors are allowed that not even one function can run.
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

/// Sleeps until one of `fds` is ready, for at most `time`; without a time, for as long as it takes. Returns how many are ready:
/// none if a signal ends the sleep.
///
/// # Errors
/// As poll(2).
pub fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) -> rustix::io::Result<usize> {
    // If a time is too long for the system, it sleeps for as long as it takes.
    let time = time.and_then(|time| Timespec::try_from(time).ok());
    poll(fds, time.as_ref()).or_else(|error| if error == Errno::INTR { Ok(0) } else { Err(error) })
}

/// Closes a descriptor that the kernel takes long to close, without waiting for that. An inotify takes 10 to 20 ms, and the end of
/// a process waits for it, too. This sends the descriptor to a socket that can only be reached through its own messages. The kernel
/// collects such sockets in the background (before Linux 6.9, it does so at once, which is as slow as closing the descriptor).
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
    // When a socket is closed, the kernel looks for those that nobody can reach.
    drop(ours);
}

/// How many descriptors a running function needs at most: pipes, a pidfd, a file for output, and some spare.
const FOR_A_FUNCTION: u64 = 12;

/// How many descriptors everything else takes.
const FOR_THE_REST: u64 = 16;

/// One in this many descriptors may belong to a follower.
const FOLLOWER_SHARE: u64 = 32;

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many functions this process may run at once with its limit of descriptors; at least one.
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
    // SAFETY: it is open, nothing in this program has opened it, and only the caller of this takes it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

#[expect(unsafe_code, reason = "a descriptor that was inherited has no owner in this program")]
fn mark(number: i32) {
    // SAFETY: the number is only used for this call, which changes a flag that nobody here needs to be unset. The descriptor may
    // have been closed meanwhile (that of the directory itself was). Then the call fails, which does no harm.
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
