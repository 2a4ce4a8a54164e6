//! The followers of one call, on the processor's side.

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

/// A follower that waits until the thread of its call takes it.
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

    /// Lets a follower wait for its call. Then the caller wakes the thread of that call.
    pub fn admit(&self, request: FollowRequest) {
        let FollowRequest { job, attempt, socket } = request;
        self.all.fetch_add(1, Ordering::Relaxed);
        let follower = Follower::new(socket, Arc::clone(&self.all));
        self.with_newcomers(|newcomers| newcomers.push(Newcomer { job, attempt, follower }));
    }

    /// Turns away followers that still wait when the call is over.
    pub fn forget(&self, fence: &Fence) {
        if self.is_awaited() {
            self.with_newcomers(|newcomers| newcomers.retain(|newcomer| !newcomer.is_for(fence)));
        }
    }

    /// Whether a follower waits.
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

/// The followers of a call.
#[derive(Debug, Default)]
pub(in crate::runner) struct Audience(Vec<Follower>);

impl Audience {
    pub(in crate::runner) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the waiting followers of a call. Returns whether there were any.
    pub(in crate::runner) fn join(&mut self, tap: &Tap, fence: &Fence) -> bool {
        if !tap.is_awaited() {
            return false;
        }
        let before = self.0.len();
        self.0.extend(tap.take(fence));
        self.0.len() > before
    }

    /// Sends new output to each follower that can take it.
    pub(in crate::runner) fn serve(&mut self, output: &Capture) {
        self.0.retain_mut(|follower| follower.serve(output).is_ok());
    }

    /// Sends the rest of the output and the end to each follower that can take it. The others read the rest from the store.
    pub(in crate::runner) fn finish(&mut self, output: &Capture) {
        for mut follower in self.0.drain(..) {
            if follower.serve(output).is_ok() && follower.outgoing.is_empty() {
                add_frame(&mut follower.outgoing, FrameKind::End, &[]);
                let _ = follower.send();
            }
        }
    }

    /// What becomes ready when a follower can take more, or is gone.
    pub(in crate::runner) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.iter().map(|follower| {
            let more = if follower.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(follower.socket.as_fd(), more)
        })
    }
}

/// A follower.
#[derive(Debug)]
struct Follower {
    socket: OwnedFd,
    /// How many bytes of the output are in frames for it.
    seen: u64,
    /// Frames that are not sent completely.
    outgoing: Vec<u8>,
    /// How many bytes of them are sent.
    sent: usize,
    all: Arc<AtomicUsize>,
}

impl Follower {
    fn new(socket: OwnedFd, all: Arc<AtomicUsize>) -> Follower {
        let mut outgoing = Vec::new();
        add_frame(&mut outgoing, FrameKind::Here, &[VERSION]);
        Follower { socket, seen: 0, outgoing, sent: 0, all }
    }

    /// Sends as much new output as the follower takes now.
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
