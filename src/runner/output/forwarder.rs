//! Passes on the output of functions, and the processor's messages about them, while they run.
//!
//! Invariant: when nobody reads the output, asyncq can still end functions and record their outcomes. Only threads of the
//! forwarder write, and the amount that waits for them is bounded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{collections::VecDeque, io, time::Duration};

use crate::domain::job::{Claim, JobId};
use crate::domain::log::Stream;

/// How many bytes may wait to be written before asyncq stops reading from functions.
const WAITING: usize = 256 * 1024;

/// How many bytes of messages may wait in addition to that.
const WAITING_MESSAGES: usize = 256 * 1024;

/// About how much memory a piece takes in addition to its bytes, in the queue and in the allocator.
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
    /// What is to stand before each of its lines.
    pub label: Option<Label>,
}

/// What stands before each line of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    job: JobId,
    text: Arc<str>,
}

impl Label {
    /// The label of a call: its job and its function.
    pub fn of(claim: &Claim) -> Label {
        let job = claim.fence.job;
        Label { job, text: format!("{job} {} | ", claim.call.function).into() }
    }
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

/// How many labelled bytes are written together, at least.
const LABELLED: usize = 64 * 1024;

/// How much stack a writer needs.
const STACK: usize = 256 * 1024;

/// Writes a piece, and waits for its reader.
type Write = Arc<dyn Fn(&Piece) + Send + Sync>;

/// Passes output on. Each stream keeps its order. If both end in the same file, they share one order.
pub struct Forwarder {
    shared: Arc<ForwarderState>,
}

/// Reaches a [`Forwarder`] from elsewhere, without keeping it alive.
pub struct ForwarderHandle(Arc<ForwarderState>);

struct ForwarderState {
    has_labels: bool,
    write: Write,
    queue: Mutex<PieceQueue>,
    /// Notified when there is something to write, one for each queue.
    filled: [Condvar; 2],
    /// Notified when a message is written, when any piece is while somebody waits for output, and when the wait is skipped.
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
    /// Whether somebody waits for output to be written.
    is_awaited: bool,
    closed: bool,
    hurried: bool,
}

/// The pieces for one writer thread.
#[derive(Default)]
struct StreamQueue {
    pieces: VecDeque<Piece>,
    stage: WriterState,
    /// The labelled output that was written last, if nothing was written after it.
    latest: Option<(JobId, Stream)>,
}

impl StreamQueue {
    /// Whether a piece continues where the last one ended. The piece is about to be written.
    fn goes_on(&mut self, piece: &Piece) -> bool {
        if piece.bytes.is_empty() {
            return true;
        }
        let from = piece.label.as_ref().map(|label| (label.job, piece.stream));
        std::mem::replace(&mut self.latest, from) == from && piece.kind == PieceKind::Output
    }
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum WriterState {
    /// Not needed yet.
    #[default]
    Unused,
    Open,
    /// Everything is written, or the other queue takes the pieces of this one.
    Over,
}

impl Forwarder {
    /// Starts to pass pieces on to `write`. If both streams end in the same file, they are `joint`: one thread writes both, in one
    /// order. Otherwise, if nobody reads one stream, the other one goes on. If it `has_labels`, each line of a call begins with its
    /// [`Label`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        joint: bool,
        has_labels: bool,
        write: impl Fn(&Piece) + Send + Sync + 'static,
    ) -> io::Result<Forwarder> {
        let shared = Arc::new(ForwarderState {
            has_labels,
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

    /// Waits until more may be pushed, at most for this time. Returns whether it may. Only one thread may wait.
    pub fn wait_for_room(&self, time: Duration) -> bool {
        self.wait(time, |queue| queue.output < WAITING)
    }

    /// Waits until everything is written, at most for this time. Returns whether it is. Only one thread may wait.
    pub fn wait_until_written(&self, time: Duration) -> bool {
        self.wait(time, |queue| queue.output == 0 && queue.messages == 0)
    }

    fn wait(&self, time: Duration, is_met: impl Fn(&PieceQueue) -> bool) -> bool {
        let mut queue = self.shared.lock();
        queue.is_awaited = true;
        let waited = self.shared.room.wait_timeout_while(queue, time, |queue| !is_met(queue));
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.is_awaited = false;
        is_met(&queue)
    }

    /// The label for the output of a call, if lines have labels.
    pub fn label(&self, claim: Option<&Claim>) -> Option<Label> {
        claim.filter(|_| self.shared.has_labels).map(Label::of)
    }

    /// Passes output on, in one piece.
    pub fn push(&self, piece: Piece) {
        if !piece.bytes.is_empty() {
            self.shared.push(&mut self.shared.lock(), piece);
        }
    }
}

/// Waits until everything is written, or only briefly if the wait is skipped.
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

    /// Writes a message, with its line feed, to stderr after the output that came before it. While many messages are not written
    /// yet, it waits, unless the wait is skipped. If the forwarder has ended, returns the message.
    ///
    /// # Errors
    /// The message itself.
    pub fn say(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        let full = |queue: &mut PieceQueue| queue.messages >= WAITING_MESSAGES && !queue.hurried && !queue.closed;
        let mut queue = self.0.room.wait_while(self.0.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return Err(message);
        }
        self.0.push(&mut queue, Piece { stream: Stream::Err, bytes: message, kind: PieceKind::Message, label: None });
        Ok(())
    }

    /// Whether half as many messages are waiting as may wait.
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

    /// Writes a piece with its label before each line. If somebody else has written in the middle of a line, the label comes once
    /// more.
    fn write_labelled(&self, piece: &Piece, label: &Label, goes_on: bool) {
        let kind = if goes_on { PieceKind::Output } else { PieceKind::Lines };
        let mut part = Piece { stream: piece.stream, bytes: Vec::new(), kind, label: None };
        let mut has_label = goes_on;
        for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
            if !std::mem::take(&mut has_label) {
                part.bytes.extend_from_slice(label.text.as_bytes());
            }
            part.bytes.extend_from_slice(line);
            if part.bytes.len() >= LABELLED {
                (self.write)(&part);
                part.bytes.clear();
                part.kind = PieceKind::Output;
            }
        }
        if !part.bytes.is_empty() {
            (self.write)(&part);
        }
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
            let goes_on = queue.streams[lane].goes_on(&piece);
            drop(queue);
            match &piece.label {
                Some(label) => self.write_labelled(&piece, label, goes_on),
                None => (self.write)(&piece),
            }
            queue = self.lock();
            // This comes only now, because a piece takes room while it is being written.
            *queue.taken(piece.kind) -= piece.room();
            if piece.kind == PieceKind::Message || queue.is_awaited {
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
        let forwarder = Forwarder::start(joint, false, move |piece| {
            if piece.stream == Stream::Out {
                let _ = wait.lock().unwrap().recv();
            }
            of_writer.lock().unwrap().extend_from_slice(&piece.bytes);
        });
        (forwarder.unwrap(), seen)
    }

    fn output(bytes: impl Into<Vec<u8>>) -> Piece {
        Piece { stream: Stream::Out, bytes: bytes.into(), kind: PieceKind::Output, label: None }
    }

    #[test]
    fn small_pieces_take_room_as_well() {
        let (go, wait) = mpsc::channel();
        let (forwarder, _) = slow(true, wait);
        let mut pieces = 0;
        while forwarder.has_room() {
            forwarder.push(output(vec![b'x']));
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
            forwarder.push(output(vec![b'o', number]));
            handle.say(vec![b'm', number]).unwrap();
            expected.extend([b'o', number, b'm', number]);
        }
        drop(go);
        drop(forwarder);
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(handle.say(b"late".to_vec()), Err(b"late".to_vec()));
    }

    #[test]
    fn a_line_that_was_interrupted_gets_its_label_again() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let of_writer = Arc::clone(&seen);
        let forwarder = Forwarder::start(true, true, move |piece| {
            // As a terminal that goes on to a new line where that is asked for.
            let mut seen = of_writer.lock().unwrap();
            if piece.kind != PieceKind::Output && seen.last().is_some_and(|last| *last != b'\n') {
                seen.push(b'\n');
            }
            seen.extend_from_slice(&piece.bytes);
        });
        let forwarder = forwarder.unwrap();
        let push = |job: i64, stream, text: &str, kind| {
            let label = Label { job: JobId(job), text: format!("{job}| ").into() };
            forwarder.push(Piece { stream, bytes: text.as_bytes().to_vec(), kind, label: Some(label) });
        };
        push(1, Stream::Out, "a\nb", PieceKind::Lines);
        push(1, Stream::Out, "b\n\nc", PieceKind::Output);
        push(2, Stream::Out, "d", PieceKind::Lines);
        push(1, Stream::Out, "c", PieceKind::Output);
        push(1, Stream::Err, "e\r\n", PieceKind::Lines);
        push(1, Stream::Out, "c\n", PieceKind::Output);
        forwarder.handle().say(b"message\n".to_vec()).unwrap();
        push(2, Stream::Out, "d\n", PieceKind::Output);
        drop(forwarder);
        let expected = "1| a\n1| bb\n1| \n1| c\n2| d\n1| c\n1| e\r\n1| c\nmessage\n2| d\n";
        assert_eq!(String::from_utf8(seen.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn messages_do_not_wait_for_a_reader_of_stdout_who_does_not_read() {
        let (go, wait) = mpsc::channel();
        let (forwarder, seen) = slow(false, wait);
        while forwarder.has_room() {
            forwarder.push(output(vec![b'x'; 50_000]));
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
        forwarder.push(output(b"o".to_vec()));
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
        forwarder.push(output(vec![b'x']));
        forwarder.handle().skip_wait();
        let handle = forwarder.handle();
        for _ in 0..3 {
            handle.say(vec![b'm'; WAITING_MESSAGES]).unwrap();
        }
        drop(go);
    }
}
