//! Passes on the output of functions, and the processor's messages about them, while they run.
//!
//! Invariant: when nobody reads the output, asyncq can still end functions and record their outcomes. Only threads of the
//! forwarder write, and the amount that waits for them is bounded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{collections::VecDeque, io, time::Duration};

use crate::domain::log::Stream;

/// How many bytes may wait to be written before asyncq stops reading from functions.
const WAITING: usize = 256 * 1024;

/// How many bytes of messages may wait in addition.
const WAITING_MESSAGES: usize = 256 * 1024;

/// About how much room a piece takes in addition to its bytes, in the queue and for the allocator.
const PIECE: usize = 64;

/// How long a reader may take for the rest after [`ForwarderHandle::skip_wait`].
const REST: Duration = Duration::from_secs(1);

/// Bytes that are written together.
#[derive(Debug)]
pub struct Piece {
    /// The stream.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they are.
    pub kind: PieceKind,
}

/// What a piece is, and so where it may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Output that goes on where the last piece ended.
    Output,
    /// Output that begins a line of its own.
    Lines,
    /// A message of the processor, on a line of its own.
    Message,
}

impl Piece {
    /// How much room it takes.
    fn room(&self) -> usize {
        self.bytes.len() + PIECE
    }
}

/// How much stack a writer needs.
const STACK: usize = 256 * 1024;

/// Writes a piece, and waits for its reader.
type Write = Arc<dyn Fn(&Piece) + Send + Sync>;

/// Passes output on. Each stream keeps its order; both have one order if they end in the same file.
pub struct Forwarder {
    shared: Arc<ForwarderState>,
}

/// Reaches a [`Forwarder`] from elsewhere, and does not keep it from ending.
pub struct ForwarderHandle(Arc<ForwarderState>);

struct ForwarderState {
    write: Write,
    queue: Mutex<PieceQueue>,
    /// Notified when there is something to write, one for each queue.
    filled: [Condvar; 2],
    /// Notified when a message is written, or the wait is skipped.
    room: Condvar,
    /// Notified when a writer has ended, or the wait is skipped.
    ending: Condvar,
}

#[derive(Default)]
struct PieceQueue {
    streams: [StreamQueue; 2],
    /// The room that output takes, with the piece that is being written.
    output: usize,
    /// The room that messages take.
    messages: usize,
    closed: bool,
    hurried: bool,
}

/// The pieces for one writer thread.
#[derive(Default)]
struct StreamQueue {
    pieces: VecDeque<Piece>,
    stage: WriterState,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// Not needed yet.
    #[default]
    Unused,
    Open,
    /// Everything is written, or the other queue takes what belongs here.
    Over,
}

impl Forwarder {
    /// Starts to pass pieces on to `write`. If both streams end in the same file, they are `joint`: one thread writes both, in
    /// one order. Otherwise a stream that nobody reads does not hold up the other one.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(joint: bool, write: impl Fn(&Piece) + Send + Sync + 'static) -> io::Result<Forwarder> {
        let shared = Arc::new(ForwarderState {
            write: Arc::new(write),
            queue: Mutex::default(),
            filled: Default::default(),
            room: Condvar::new(),
            ending: Condvar::new(),
        });
        let mut queue = shared.lock();
        queue.streams[0].stage = WriterState::Open;
        if joint {
            queue.streams[1].stage = WriterState::Over;
        }
        drop(queue);
        let of_writer = Arc::clone(&shared);
        std::thread::Builder::new().stack_size(STACK).spawn(move || of_writer.work(0))?;
        Ok(Forwarder { shared })
    }

    /// A handle for messages, and to end the wait for a reader.
    pub fn handle(&self) -> ForwarderHandle {
        ForwarderHandle(Arc::clone(&self.shared))
    }

    /// Whether more may be pushed now.
    pub fn has_room(&self) -> bool {
        self.shared.lock().output < WAITING
    }

    /// Passes output on, in one piece.
    pub fn push(&self, stream: Stream, bytes: Vec<u8>, kind: PieceKind) {
        if !bytes.is_empty() {
            self.shared.push(&mut self.shared.lock(), Piece { stream, bytes, kind });
        }
    }
}

/// Waits until everything is written; not for long if the wait is skipped.
impl Drop for Forwarder {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.filled.iter().for_each(Condvar::notify_one);
        self.shared.room.notify_all();
        let waiting = self.shared.ending.wait_while(queue, |queue| !queue.is_over() && !queue.hurried);
        let queue = waiting.unwrap_or_else(PoisonError::into_inner);
        drop(self.shared.ending.wait_timeout_while(queue, REST, |queue| !queue.is_over()));
    }
}

impl ForwarderHandle {
    /// From now on, the end of the forwarder does not wait long for a reader that does not read.
    pub fn skip_wait(&self) {
        self.0.lock().hurried = true;
        self.0.room.notify_all();
        self.0.ending.notify_all();
    }

    /// Writes a message to stderr after the output that came before it, its line feed included. Waits while many messages are not written yet, unless the wait is
    /// skipped. Gives the message back if the forwarder has ended.
    ///
    /// # Errors
    /// The message itself.
    pub fn say(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        let full = |queue: &mut PieceQueue| queue.messages >= WAITING_MESSAGES && !queue.hurried && !queue.closed;
        let mut queue = self.0.room.wait_while(self.0.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return Err(message);
        }
        self.0.push(&mut queue, Piece { stream: Stream::Err, bytes: message, kind: PieceKind::Message });
        Ok(())
    }

    /// Whether half as many messages wait as may wait.
    pub fn is_behind(&self) -> bool {
        self.0.lock().messages >= WAITING_MESSAGES / 2
    }

    /// Waits until all messages are written, unless the wait is skipped.
    pub fn finish(&self) {
        let waits = |queue: &mut PieceQueue| queue.messages > 0 && !queue.hurried && !queue.is_over();
        drop(self.0.room.wait_while(self.0.lock(), waits));
    }
}

impl PieceQueue {
    fn is_over(&self) -> bool {
        self.streams.iter().all(|lane| lane.stage != WriterState::Open)
    }

    /// The room that pieces of this kind take.
    fn taken(&mut self, kind: PieceKind) -> &mut usize {
        if kind == PieceKind::Message { &mut self.messages } else { &mut self.output }
    }
}

impl ForwarderState {
    fn lock(&self) -> MutexGuard<'_, PieceQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, queue: &mut PieceQueue, piece: Piece) {
        let mut lane = usize::from(piece.stream == Stream::Err);
        if queue.streams[lane].stage == WriterState::Unused {
            let of_writer = Arc::clone(self);
            let started = std::thread::Builder::new().stack_size(STACK).spawn(move || of_writer.work(1));
            // If the system gives no thread, the first one writes both.
            queue.streams[lane].stage = if started.is_ok() { WriterState::Open } else { WriterState::Over };
        }
        if queue.streams[lane].stage == WriterState::Over {
            lane = 0;
        }
        *queue.taken(piece.kind) += piece.room();
        queue.streams[lane].pieces.push_back(piece);
        self.filled[lane].notify_one();
    }

    /// The life of a writer.
    fn work(&self, lane: usize) {
        let mut queue = self.lock();
        loop {
            let Some(piece) = queue.streams[lane].pieces.pop_front() else {
                if queue.closed {
                    break;
                }
                queue = self.filled[lane].wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            (self.write)(&piece);
            queue = self.lock();
            // Only now: a piece takes room while it is being written.
            *queue.taken(piece.kind) -= piece.room();
            if piece.kind == PieceKind::Message {
                self.room.notify_all();
            }
        }
        queue.streams[lane].stage = WriterState::Over;
        self.room.notify_all();
        self.ending.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An echo whose writer waits for a word before each piece, and what it has written.
    fn slow(joint: bool, wait: mpsc::Receiver<()>) -> (Forwarder, Arc<Mutex<Vec<u8>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (of_writer, wait) = (Arc::clone(&seen), Mutex::new(wait));
        let forwarder = Forwarder::start(joint, move |piece| {
            if piece.stream == Stream::Out {
                let _ = wait.lock().unwrap().recv();
            }
            of_writer.lock().unwrap().extend_from_slice(&piece.bytes);
        });
        (forwarder.unwrap(), seen)
    }

    #[test]
    fn small_pieces_take_room_as_well() {
        let (go, wait) = mpsc::channel();
        let (forwarder, _) = slow(true, wait);
        let mut pieces = 0;
        while forwarder.has_room() {
            forwarder.push(Stream::Out, vec![b'x'], PieceKind::Output);
            pieces += 1;
        }
        assert!(pieces <= WAITING / PIECE);
        drop(go);
    }

    #[test]
    fn messages_come_after_what_was_printed_before_them() {
        let (go, wait) = mpsc::channel();
        let (forwarder, seen) = slow(true, wait);
        let handle = forwarder.handle();
        let mut expected = Vec::new();
        for number in 0..100_u8 {
            forwarder.push(Stream::Out, vec![b'o', number], PieceKind::Output);
            handle.say(vec![b'm', number]).unwrap();
            expected.extend([b'o', number, b'm', number]);
        }
        drop(go);
        drop(forwarder);
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(handle.say(b"late".to_vec()), Err(b"late".to_vec()));
    }

    #[test]
    fn messages_do_not_wait_for_a_reader_of_stdout_who_does_not_read() {
        let (go, wait) = mpsc::channel();
        let (forwarder, seen) = slow(false, wait);
        while forwarder.has_room() {
            forwarder.push(Stream::Out, vec![b'x'; 50_000], PieceKind::Output);
        }
        let handle = forwarder.handle();
        // Each waits until there is room for it.
        for _ in 0..10 {
            handle.say(vec![b'm'; WAITING_MESSAGES]).unwrap();
        }
        assert!(seen.lock().unwrap().iter().all(|byte| *byte == b'm'));
        drop(go);
    }

    #[test]
    fn what_was_said_is_written_also_while_somebody_keeps_the_echo() {
        let (go, wait) = mpsc::channel();
        let (forwarder, seen) = slow(true, wait);
        forwarder.push(Stream::Out, b"o".to_vec(), PieceKind::Output);
        let handle = forwarder.handle();
        handle.say(b"m".to_vec()).unwrap();
        drop(go);
        handle.finish();
        assert_eq!(*seen.lock().unwrap(), b"om");
    }

    #[test]
    fn in_a_hurry_messages_wait_for_nobody() {
        let (go, wait) = mpsc::channel();
        let (forwarder, _) = slow(true, wait);
        forwarder.push(Stream::Out, vec![b'x'], PieceKind::Output);
        forwarder.handle().skip_wait();
        let handle = forwarder.handle();
        for _ in 0..3 {
            handle.say(vec![b'm'; WAITING_MESSAGES]).unwrap();
        }
        drop(go);
    }
}
