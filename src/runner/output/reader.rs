//! Reading what a function prints, for the log and for whoever listens.

use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::domain::log::Stream;
use crate::runner::{Capture, Forwarder, PieceKind};

/// How a function's output is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// To whom.
    pub forwarder: &'a Forwarder,
    /// Only in whole lines, because other functions may print at the same time.
    pub whole_lines: bool,
}

/// Passes a function's output on as it comes, or line by line.
#[derive(Debug, Default)]
pub(in crate::runner) struct LineBuffer {
    streams: [StreamBuffer; 2],
}

/// One stream of it.
#[derive(Debug, Default)]
struct StreamBuffer {
    /// The beginning of a line that has no end yet.
    unfinished: Vec<u8>,
    /// Whether what was passed on ended within a line.
    within: bool,
}

impl LineBuffer {
    pub(in crate::runner) fn push(&mut self, output: Output<'_>, stream: Stream, bytes: &[u8]) {
        let passed = &mut self.streams[usize::from(stream == Stream::Err)];
        if !output.whole_lines {
            let mut piece = std::mem::take(&mut passed.unfinished);
            piece.extend_from_slice(bytes);
            passed.within = piece.last().is_some_and(|last| *last != b'\n');
            return output.forwarder.push(stream, piece, PieceKind::Output);
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            passed.unfinished.extend_from_slice(&bytes[..whole]);
            passed.pass(output, stream);
        }
        passed.unfinished.extend_from_slice(&bytes[whole..]);
        if passed.unfinished.len() >= BUFFER {
            passed.pass(output, stream);
        }
    }

    pub(in crate::runner) fn finish(&mut self, output: Output<'_>) {
        for (passed, stream) in self.streams.iter_mut().zip([Stream::Out, Stream::Err]) {
            passed.pass(output, stream);
        }
    }
}

impl StreamBuffer {
    /// Passes on what there is, on a line of its own unless it goes on with one.
    fn pass(&mut self, output: Output<'_>, stream: Stream) {
        let piece = std::mem::take(&mut self.unfinished);
        let kind = if self.within || !output.whole_lines { PieceKind::Output } else { PieceKind::Lines };
        self.within = piece.last().is_some_and(|last| *last != b'\n') || (self.within && piece.is_empty());
        output.forwarder.push(stream, piece, kind);
    }
}

/// Takes a function's output from its pipes into the capture and to the echo.
pub(in crate::runner) struct Reader<'a> {
    capture: &'a mut Capture,
    output: Output<'a>,
    buffer: Vec<u8>,
    lines: LineBuffer,
}

/// How much is read at once, and how long a line may be before it is passed on in parts.
pub(in crate::runner) const BUFFER: usize = 64 * 1024;

impl<'a> Reader<'a> {
    pub(in crate::runner) fn new(capture: &'a mut Capture, output: Output<'a>) -> Reader<'a> {
        Reader { capture, output, buffer: Vec::new(), lines: LineBuffer::default() }
    }

    pub(in crate::runner) fn has_room(&self) -> bool {
        self.output.forwarder.has_room()
    }

    pub(in crate::runner) fn read(&mut self, stream: Stream, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.buffer.clear();
        self.buffer.reserve_exact(BUFFER);
        let count = rustix::io::read(pipe, spare_capacity(&mut self.buffer))?;
        let bytes = &self.buffer[..count];
        self.capture.push(stream, bytes);
        self.lines.push(self.output, stream, bytes);
        Ok(count)
    }

    pub(in crate::runner) fn finish(&mut self) {
        self.lines.finish(self.output);
    }
}
