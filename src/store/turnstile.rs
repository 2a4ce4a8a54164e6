//! Whoever wants to write waits in line.
//!
//! SQLite has no queue: who waits for its lock tries again and again, many who wait take the processor from the one who
//! has the lock, and who has just given it back is the fastest to take it again. So only one asyncq at a time tries, and
//! the others sleep in the kernel until it is their turn. Other clients take no part, and nothing depends on it: without
//! the folder, or behind somebody who was stopped in the line, all try as they please; and whoever has waited in vain goes
//! past the line until it moves again.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::holder::held_by_a_stopped_one;

/// How long the line is respected.
const AT_MOST: Duration = Duration::from_secs(10);

/// How much stack it takes to wait.
const STACK: usize = 64 * 1024;

/// How often it is looked whether the first one in the line was stopped.
const LOOK: Duration = Duration::from_millis(500);

/// The right to try; given back when it is dropped.
pub(super) struct Turn(File);

/// The line at one store, as one connection knows it.
pub(super) struct Line {
    /// The line is the kernel's lock on it.
    folder: PathBuf,
    /// The thread that waits in the line, or did: the kernel's lock has no deadline.
    waiter: Option<JoinHandle<()>>,
}

impl Line {
    pub(super) fn at(folder: PathBuf) -> Line {
        Line { folder, waiter: None }
    }

    /// Waits for a turn, at most for `patience`.
    pub(super) fn wait_for_turn(&mut self, patience: Duration) -> Option<Turn> {
        // Until the turn has come that was given up, the line stands still, and nobody waits in it once more.
        if self.waiter.as_ref().is_some_and(|waiter| !waiter.is_finished()) {
            return None;
        }
        let folder = &self.folder;
        let turn = Turn(File::open(folder).ok()?);
        if flock(&turn.0, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Some(turn);
        }
        // A turn that comes too late is dropped with the channel.
        let (hand, mine) = channel();
        let wait = move || {
            if flock(&turn.0, FlockOperation::LockExclusive).is_ok() {
                let _ = hand.send(turn);
            }
        };
        let waiter = thread::Builder::new().stack_size(STACK).spawn(wait).ok()?;
        let turn = self.receive(&mine, patience);
        if turn.is_some() {
            // It has nothing left to do, and must not be taken for one who still waits.
            let _ = waiter.join();
        } else {
            self.waiter = Some(waiter);
        }
        turn
    }

    fn receive(&self, mine: &Receiver<Turn>, patience: Duration) -> Option<Turn> {
        let until = Instant::now() + patience.min(AT_MOST);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match mine.recv_timeout(left.min(LOOK)) {
                Ok(turn) => return Some(turn),
                Err(RecvTimeoutError::Timeout) if left > LOOK && !held_by_a_stopped_one(&self.folder) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing is not enough while a program that is being started has a copy of the descriptor.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
