//! Passing on what functions print, while they run.
//!
//! Invariant: a reader who does not read never keeps a function from being ended, nor its outcome from being recorded:
//! only a thread of its own writes, and what waits for it is bounded.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::log::Stream;

/// How many bytes may wait to be written before functions that print are no longer read.
const WAITING: usize = 256 * 1024;

/// How much room a piece takes besides its bytes, about: its place in the queue, and what the allocator needs.
const PIECE: usize = 64;

/// How long a reader may take for the rest, once there is a [`Hurry`].
const REST: Duration = Duration::from_secs(1);

/// Where a stream is passed on to.
pub type Sink = Box<dyn Write + Send>;

/// Passes output on, in the order in which it comes.
pub struct Echo {
    shared: Arc<Shared>,
}

/// Keeps the end of an [`Echo`] from waiting for a reader who does not read.
pub struct Hurry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Told when the writer is over, or there is a hurry.
    ending: Condvar,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<(Stream, Vec<u8>)>,
    /// How much room they take, with those that are being written.
    bytes: usize,
    closed: bool,
    /// Whether everything is written.
    over: bool,
    hurried: bool,
}

impl Echo {
    /// Starts to pass on to `out` and `err`. A sink that fails once is not written to again: nobody is listening.
    #[must_use]
    pub fn start(out: Sink, err: Sink) -> Echo {
        let shared = Arc::new(Shared::default());
        let of_writer = Arc::clone(&shared);
        std::thread::spawn(move || {
            of_writer.write(Some(out), Some(err));
            of_writer.lock().over = true;
            of_writer.ending.notify_all();
        });
        Echo { shared }
    }

    /// What ends the wait for its reader.
    #[must_use]
    pub fn hurry(&self) -> Hurry {
        Hurry(Arc::clone(&self.shared))
    }

    /// Whether more may be pushed now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.lock().bytes < WAITING
    }

    /// Passes `bytes` on, in one piece.
    pub fn push(&self, stream: Stream, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut queue = self.shared.lock();
        queue.bytes += bytes.len() + PIECE;
        queue.chunks.push_back((stream, bytes));
        self.shared.filled.notify_one();
    }
}

/// Waits until everything is written; in a hurry, not for long.
impl Drop for Echo {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.filled.notify_one();
        let waiting = self.shared.ending.wait_while(queue, |queue| !queue.over && !queue.hurried);
        let queue = waiting.unwrap_or_else(PoisonError::into_inner);
        drop(self.shared.ending.wait_timeout_while(queue, REST, |queue| !queue.over));
    }
}

impl Hurry {
    /// From now on, the end does not wait long.
    pub fn up(&self) {
        self.0.lock().hurried = true;
        self.0.ending.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: Option<Sink>, mut err: Option<Sink>) {
        loop {
            let mut queue = self.lock();
            while queue.chunks.is_empty() && !queue.closed {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((stream, bytes)) = queue.chunks.pop_front() else { return };
            drop(queue);
            let sink = match stream {
                Stream::Out => &mut out,
                Stream::Err => &mut err,
            };
            if let Some(open) = sink
                && open.write_all(&bytes).and_then(|()| open.flush()).is_err()
            {
                *sink = None;
            }
            // Counted down only now: what is being written still takes room.
            self.lock().bytes -= bytes.len() + PIECE;
        }
    }
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Echo").field("waiting", &self.shared.lock().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_does_not_read_blocks_nobody() {
        let (go, wait) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let echo = Echo::start(Box::new(Slow(wait, Arc::clone(&seen))), Box::new(std::io::sink()));
        while echo.has_room() {
            echo.push(Stream::Out, vec![b'x'; 50_000]);
        }
        assert!(seen.lock().unwrap().is_empty());
        drop(go);
        drop(echo);
        assert_eq!(seen.lock().unwrap().len(), 300_000);
    }
    #[test]
    fn small_pieces_take_room_as_well() {
        let (go, wait) = mpsc::channel();
        let echo = Echo::start(Box::new(Slow(wait, Arc::default())), Box::new(std::io::sink()));
        let mut pieces = 0;
        while echo.has_room() {
            echo.push(Stream::Out, vec![b'x']);
            pieces += 1;
        }
        assert!(pieces <= WAITING / PIECE);
        drop(go);
    }
}
