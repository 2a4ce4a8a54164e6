//! The two processes of a processor: the supervisor, which somebody started, and its child, which does the work.
//!
//! Invariant: when one of the two dies for any reason, the other one ends everything that functions have left. Only if both die at
//! once, the next processor finds the rest by its tokens. Both hold the lock that proves that the processor lives, so the lock is
//! free only when nothing is left.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair, sockopt::socket_peercred,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, pidfd_open, set_parent_process_death_signal,
    setpgid, setsid, wait,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::low_level::pipe;

use crate::runner::{Orphans, process::stat::Stat};
use crate::system::{error::of_call, fds, signals};

/// The variable that names the supervisor to its child.
pub const SUPERVISOR: &str = "ASYNCQ_SUPERVISOR";

/// Starts this program a second time, with these words (the first one is its name) and a socket to this process as its stdin.
/// Passes on signals to stop, and returns when the child and everything that it started have ended. The child also inherits
/// `handed_on`, which this process then closes.
///
/// # Errors
/// When it cannot be started.
pub fn supervise(words: &[OsString], handed_on: Option<OwnedFd>) -> io::Result<ExitStatus> {
    let orphans = Orphans::adopt()?;
    let signals = Caught::new()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (name, words) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(this_program()?);
    command.arg0(name).args(words).env(SUPERVISOR, getpid().to_string()).stdin(theirs);
    // With its own group, a signal to a whole process group leaves one of the two to clean up.
    let child = command.process_group(0).spawn()?;
    drop((command, handed_on));
    let mut supervisor = Supervisor { child, line: ours, signals, lock: None };
    let status = supervisor.until_the_end();
    orphans.end();
    status
}

/// The program of this process, even if another one has been installed in its place.
fn this_program() -> io::Result<PathBuf> {
    let (link, path) = (PathBuf::from("/proc/self/exe"), std::env::current_exe()?);
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let is_there = path.metadata().and_then(|there| Ok(same(&there, &link.metadata()?)));
    Ok(if is_there.unwrap_or(false) { path } else { link })
}

/// Signals that this process does not ignore, as descriptors.
struct Caught {
    stop: UnixStream,
    suspend: UnixStream,
    children: UnixStream,
}

impl Caught {
    fn new() -> io::Result<Caught> {
        let caught = |signals: &[i32]| {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            for signal in signals::heard(signals)? {
                pipe::register(signal, handlers.try_clone()?)?;
            }
            Ok::<_, io::Error>(ours)
        };
        Ok(Caught {
            stop: caught(&[SIGINT, SIGTERM, SIGHUP])?,
            suspend: caught(&[SIGTSTP])?,
            children: caught(&[SIGCHLD])?,
        })
    }
}

struct Supervisor {
    child: Child,
    line: OwnedFd,
    signals: Caught,
    /// The lock that the child has handed over. It is held until nothing is left.
    lock: Option<OwnedFd>,
}

impl Supervisor {
    fn until_the_end(&mut self) -> io::Result<ExitStatus> {
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .map_err(|error| of_call("pidfd_open", error))?;
        // Children from before may have ended by now.
        if let Some(status) = self.reap() {
            return Ok(status);
        }
        loop {
            let mut fds = [
                PollFd::new(&ended, PollFlags::IN),
                PollFd::new(&self.signals.children, PollFlags::IN),
                PollFd::new(&self.signals.stop, PollFlags::IN),
                PollFd::new(&self.signals.suspend, PollFlags::IN),
                PollFd::new(&self.line, PollFlags::IN),
            ];
            fds::wait(&mut fds, None)?;
            let [ended, children, stop, suspend, line] = fds.map(|fd| !fd.revents().is_empty());
            if line {
                self.take_lock();
            }
            if children
                && arrived(&self.signals.children)
                && let Some(status) = self.reap()
            {
                return Ok(status);
            }
            if ended {
                return self.child.wait();
            }
            if stop && arrived(&self.signals.stop) {
                self.pass_on_stop();
            }
            if suspend && arrived(&self.signals.suspend) {
                self.suspend();
            }
        }
    }

    fn take_lock(&mut self) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        if recvmsg(&self.line, &mut [IoSliceMut::new(&mut byte)], &mut control, flags).is_err() {
            return;
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.lock = descriptors.last().or(self.lock.take());
            }
        }
    }

    fn pass_on_stop(&self) {
        // If this fails, the child is about to end.
        let _ = send(&self.line, &[0], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        // A stopped process reads nothing.
        let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
    }

    /// Reaps all children that have ended. The first process of a container also gets the orphans of others, and a shell that has
    /// started asyncq by `exec` leaves its children. Returns how the processor process ended, if it is among them.
    fn reap(&self) -> Option<ExitStatus> {
        let mut status = None;
        while let Ok(Some((pid, how))) = wait(WaitOptions::NOHANG) {
            if pid == Pid::from_child(&self.child) {
                status = Some(ExitStatus::from_raw(how.as_raw()));
            }
        }
        status
    }

    /// Stops both processes, as the terminal asks, until somebody continues this one.
    fn suspend(&self) {
        let child = Pid::from_child(&self.child);
        let _ = kill_process(child, Signal::STOP);
        let _ = kill_process(getpid(), Signal::STOP);
        let _ = kill_process(child, Signal::CONT);
    }
}

/// Whether signals have come; several at once count as one.
fn arrived(caught: &UnixStream) -> bool {
    matches!(rustix::io::read(caught, &mut [0; 64]), Ok(count) if count > 0)
}

/// The socket from a processor process to its supervisor.
#[derive(Debug)]
pub struct SupervisorLink(OwnedFd);

impl SupervisorLink {
    /// The socket of this process, if `supervisor`, the value of [`SUPERVISOR`], is its parent and is at the other end of its
    /// stdin.
    pub fn of_this_process(supervisor: Option<&str>) -> Option<SupervisorLink> {
        let supervisor = Pid::from_raw(supervisor?.parse().ok()?)?;
        let stdin = rustix::stdio::stdin();
        let is_ours = getppid() == Some(supervisor) && socket_peercred(stdin).ok()?.pid == supervisor;
        if !is_ours {
            return None;
        }
        leave_terminal(supervisor);
        // The supervisor may die after it has stopped this process. Then nobody else would continue it.
        let _ = set_parent_process_death_signal(Some(Signal::CONT));
        Some(SupervisorLink(stdin.try_clone_to_owned().ok()?))
    }

    /// Lets the supervisor hold a lock too.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn hand_over(&self, lock: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [lock];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Starts a thread that calls `asked` whenever the supervisor passes on a signal to stop, and `lost` when the supervisor has
    /// died.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn listen(
        &self,
        mut asked: impl FnMut() + Send + 'static,
        lost: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let line = self.0.as_fd().try_clone_to_owned()?;
        let listen = move || {
            loop {
                match rustix::io::read(&line, &mut [0; 1]) {
                    Ok(1..) => asked(),
                    Err(Errno::INTR) => {}
                    Ok(0) | Err(_) => return lost(),
                }
            }
        };
        std::thread::Builder::new().name("line".to_owned()).stack_size(64 * 1024).spawn(listen)?;
        Ok(())
    }
}

/// Makes this process the leader of its own session, without a terminal. In the session of the supervisor's terminal, the groups of
/// this process and of functions would be in the background, and `stty tostop` stops such a group when it writes.
///
/// The leader of a group cannot do that, so this process joins the supervisor's group for a moment. It does not begin there,
/// because a signal to that group could come before there are handlers. If this fails, only the terminal differs.
fn leave_terminal(supervisor: Pid) {
    // Field 5. A group outside of this container has no number here, which `getpgid` cannot tell.
    let group = Stat::of(supervisor).ok().and_then(|stat| Pid::from_raw(stat.field(5).parse().ok()?));
    let joined = group.is_some_and(|group| setpgid(None, Some(group)).is_ok());
    if joined && setsid().is_err() {
        let _ = setpgid(None, None);
    }
}

/// The supervisor of this process, even if it is dead and another process is the parent.
pub fn visible_pid() -> i64 {
    socket_peercred(rustix::stdio::stdin()).map_or(0, |peer| peer.pid.as_raw_nonzero().get().into())
}
