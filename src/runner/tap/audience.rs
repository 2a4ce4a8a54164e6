//! Those who follow one call, as its processor sees them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, Result};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::domain::job::Fence;
use crate::runner::output::capture::{Capture, OutputPart};
use crate::runner::tap::{CHUNK, FrameKind, VERSION, add_frame};

/// Where followers wait until the thread of their call takes them.
#[derive(Debug, Default)]
pub struct Tap {
    newcomers: Mutex<Vec<Newcomer>>,
    /// How many newcomers there are.
    waiting: AtomicUsize,
    /// How many followers there are in all.
    all: Arc<AtomicUsize>,
}

/// A follower who waits for its call.
#[derive(Debug)]
struct Newcomer {
    job: i64,
    attempt: i64,
    follower: Follower,
}

impl Newcomer {
    fn is_for(&self, fence: &Fence) -> bool {
        (self.job, self.attempt) == (fence.job.0, fence.attempt)
    }
}

impl Tap {
    /// How many followers there are.
    pub(in crate::runner) fn followers(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Lets a follower wait for its call. Wake the thread of that call then.
    pub fn admit(&self, request: FollowRequest) {
        let FollowRequest { job, attempt, socket } = request;
        self.all.fetch_add(1, Ordering::Relaxed);
        let follower = Follower::new(socket, Arc::clone(&self.all));
        self.with_newcomers(|newcomers| newcomers.push(Newcomer { job, attempt, follower }));
    }

    /// Sends away those who still wait for a call that is over.
    pub fn forget(&self, fence: &Fence) {
        if self.is_awaited() {
            self.with_newcomers(|newcomers| newcomers.retain(|newcomer| !newcomer.is_for(fence)));
        }
    }

    /// Whether somebody waits.
    pub(in crate::runner) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn take(&self, fence: &Fence) -> Vec<Follower> {
        let taken =
            self.with_newcomers(|newcomers| newcomers.extract_if(.., |it| it.is_for(fence)).collect::<Vec<_>>());
        taken.into_iter().map(|newcomer| newcomer.follower).collect()
    }

    fn with_newcomers<T>(&self, work: impl FnOnce(&mut Vec<Newcomer>) -> T) -> T {
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut newcomers);
        self.waiting.store(newcomers.len(), Ordering::Release);
        done
    }
}

/// A request to follow a call.
#[derive(Debug)]
pub struct FollowRequest {
    /// The number of the job.
    pub job: i64,
    /// The number of the attempt.
    pub attempt: i64,
    pub(in crate::runner) socket: OwnedFd,
}

/// Those who follow a call.
#[derive(Debug, Default)]
pub(in crate::runner) struct Audience(Vec<Follower>);

impl Audience {
    pub(in crate::runner) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes those who wait for a call; says whether there were any.
    pub(in crate::runner) fn join(&mut self, tap: &Tap, fence: &Fence) -> bool {
        if !tap.is_awaited() {
            return false;
        }
        let before = self.0.len();
        self.0.extend(tap.take(fence));
        self.0.len() > before
    }

    /// Sends what is new to each of them who can take it.
    pub(in crate::runner) fn serve(&mut self, output: &Capture) {
        self.0.retain_mut(|follower| follower.serve(output).is_ok());
    }

    /// Sends the rest to those who can take it, and the end. The others find the rest in the store.
    pub(in crate::runner) fn finish(&mut self, output: &Capture) {
        for mut follower in self.0.drain(..) {
            if follower.serve(output).is_ok() && follower.outgoing.is_empty() {
                add_frame(&mut follower.outgoing, FrameKind::End, &[]);
                let _ = follower.send();
            }
        }
    }

    /// What becomes ready when one of them can take more, or is gone.
    pub(in crate::runner) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.iter().map(|follower| {
            let more = if follower.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(follower.socket.as_fd(), more)
        })
    }
}

/// One who follows a call.
#[derive(Debug)]
struct Follower {
    socket: OwnedFd,
    /// How many bytes of the output are in frames that were made for it.
    seen: u64,
    /// Frames of which it has not taken all.
    outgoing: Vec<u8>,
    /// How much of them it has taken.
    sent: usize,
    all: Arc<AtomicUsize>,
}

impl Follower {
    fn new(socket: OwnedFd, all: Arc<AtomicUsize>) -> Follower {
        let mut outgoing = Vec::new();
        add_frame(&mut outgoing, FrameKind::Here, &[VERSION]);
        Follower { socket, seen: 0, outgoing, sent: 0, all }
    }

    /// Sends what is new, as far as it takes that now.
    fn serve(&mut self, output: &Capture) -> Result<()> {
        loop {
            self.send()?;
            if !self.outgoing.is_empty() {
                return Ok(());
            }
            let outgoing = &mut self.outgoing;
            self.seen = output.after(self.seen, CHUNK, &mut |part| match part {
                OutputPart::Bytes(stream, bytes) => add_frame(outgoing, FrameKind::of_stream(stream), bytes),
                OutputPart::Lost(count) => add_frame(outgoing, FrameKind::Lost, &count.to_le_bytes()),
            });
            if self.outgoing.is_empty() {
                return self.is_there();
            }
        }
    }

    fn send(&mut self) -> Result<()> {
        while self.sent < self.outgoing.len() {
            match send(&self.socket, &self.outgoing[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.outgoing.clear();
        Ok(())
    }

    /// Whether it still listens.
    fn is_there(&self) -> Result<()> {
        match recv(&self.socket, &mut [0; 1], RecvFlags::DONTWAIT) {
            // It has nothing more to say.
            Ok(_) => Err(Errno::PIPE),
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
