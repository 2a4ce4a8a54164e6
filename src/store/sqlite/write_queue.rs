//! Writers wait in a queue.
//!
//! SQLite has none: a process that waits for its lock tries again and again, many of them take CPU time from the owner of
//! the lock, and a process that has just released it is the fastest to take it again. So only one asyncq at a time
//! tries, and the others sleep in the kernel until it is their turn. Other clients take no part, and nothing depends on the
//! queue: without its file, or behind a stopped process in the queue, all try as they please; and a process that has
//! waited in vain passes the queue until it moves again.
//!
//! The kernel's locks alone are not a queue either: a released lock is free until the process that waits for it is awake, and
//! goes to another one that comes by meanwhile. Here each process locks the byte of the queue's file whose number is the time at
//! which it came, and then waits for all bytes below. Later ones are not in its way.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::{errno::Errno, libc};
use rustix::time::{ClockId, clock_gettime};
use rustix::{fs::OFlags, process::geteuid};

use super::lock_owner::a_stopped_one_is_before;

/// The queue's file in the run folder.
pub(super) const FILE: &str = ".line";

/// The longest wait in the queue.
const AT_MOST: Duration = Duration::from_secs(10);

/// The stack of a thread that waits, in bytes.
const STACK: usize = 64 * 1024;

/// How often to look for a stopped process further ahead.
const LOOK: Duration = Duration::from_millis(500);

/// How often to try another byte, if another process came in the same nanosecond, or a later one is served already.
const TRIES: usize = 100;

/// The queue at one store, as one connection knows it.
pub(in crate::store) struct WriteQueue {
    /// Its file.
    path: PathBuf,
    /// The thread that is waiting in the queue, or has waited: the kernel's locks have no deadline.
    waiter: Option<JoinHandle<()>>,
}

/// A place in the queue; the first one is the right to try. Dropping it closes the file, and so unlocks its byte.
pub(super) struct Ticket {
    file: File,
    /// Its byte.
    byte: i64,
}

impl WriteQueue {
    pub(in crate::store) fn at(run_folder: &Path) -> WriteQueue {
        WriteQueue { path: run_folder.join(FILE), waiter: None }
    }

    /// Waits for a turn, at most for `patience`.
    pub(in crate::store) fn wait_for_turn(&mut self, patience: Duration) -> Option<Ticket> {
        // A turn that was given up has not come yet, and keeps its place, so no second thread waits.
        if self.waiter.as_ref().is_some_and(|waiter| !waiter.is_finished()) {
            return None;
        }
        let ticket = Ticket::last(&self.path).ok()?;
        if ticket.is_first() {
            return Some(ticket);
        }
        let byte = ticket.byte;
        // A turn that comes too late is dropped with the channel.
        let (hand, mine) = channel();
        let wait = move || {
            if ticket.become_first() {
                let _ = hand.send(ticket);
            }
        };
        let waiter = thread::Builder::new().stack_size(STACK).spawn(wait).ok()?;
        let turn = self.receive(&mine, patience, byte);
        if turn.is_some() {
            // It has nothing left to do, and must not count as one that still waits.
            let _ = waiter.join();
        } else {
            self.waiter = Some(waiter);
        }
        turn
    }

    fn receive(&self, mine: &Receiver<Ticket>, patience: Duration, byte: i64) -> Option<Ticket> {
        let until = Instant::now() + patience.min(AT_MOST);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match mine.recv_timeout(left.min(LOOK)) {
                Ok(turn) => return Some(turn),
                Err(RecvTimeoutError::Timeout) if left > LOOK && !a_stopped_one_is_before(&self.path, byte) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Ticket {
    /// The last place in the queue.
    fn last(path: &Path) -> io::Result<Ticket> {
        let mut file = match open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path)?;
                open(path)
            }
            opened => opened,
        }?;
        for _ in 0..TRIES {
            let now = clock_gettime(ClockId::Boottime);
            let ticket = Ticket { file, byte: now.tv_sec * 1_000_000_000 + now.tv_nsec };
            if ticket.lock(ticket.byte, 1, false).is_ok() {
                return Ok(ticket);
            }
            file = ticket.file;
        }
        Err(Errno::EAGAIN.into())
    }

    fn is_first(&self) -> bool {
        self.lock(0, self.byte, false).is_ok()
    }

    fn become_first(&self) -> bool {
        loop {
            match self.lock(0, self.byte, true) {
                Err(Errno::EINTR) => {}
                done => return done.is_ok(),
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "they are 1 and 0")]
    fn lock(&self, first: i64, count: i64, wait: bool) -> nix::Result<()> {
        let lock = libc::flock {
            l_type: libc::F_WRLCK as _,
            l_whence: libc::SEEK_SET as _,
            l_start: first,
            l_len: count,
            l_pid: 0,
        };
        fcntl(&self.file, if wait { FcntlArg::F_SETLKW(&lock) } else { FcntlArg::F_SETLK(&lock) }).map(drop)
    }
}

/// Opens the queue's file, but not something that was put in its place.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Makes the queue's file for the users of its folder, unless somebody else does.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let whose = folder.symlink_metadata()?;
    let draft = tempfile::NamedTempFile::new_in(folder)?;
    if geteuid().is_root() {
        fchown(draft.as_file(), Some(whose.uid()), Some(whose.gid()))?;
    }
    draft.as_file().set_permissions(Permissions::from_mode(whose.mode() & 0o660))?;
    match draft.persist_noclobber(path) {
        Err(failed) if failed.error.kind() != ErrorKind::AlreadyExists => Err(failed.error),
        _ => Ok(()),
    }
}
