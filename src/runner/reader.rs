//! Reading what a function prints, for the log and for whoever listens.

use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::{Capture, Echo};
use crate::domain::log::Stream;

/// How a function's output is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// To whom.
    pub echo: &'a Echo,
    /// Only in whole lines, because other functions may print at the same time.
    pub whole_lines: bool,
}

/// Passes a function's output on as it comes, or line by line.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// The beginnings of lines that have no end yet, by stream.
    unfinished: [Vec<u8>; 2],
}

impl Passing {
    pub(super) fn push(&mut self, output: Output<'_>, stream: Stream, bytes: &[u8]) {
        let unfinished = &mut self.unfinished[usize::from(stream == Stream::Err)];
        if !output.whole_lines {
            let mut piece = std::mem::take(unfinished);
            piece.extend_from_slice(bytes);
            return output.echo.push(stream, piece);
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            let mut lines = std::mem::take(unfinished);
            lines.extend_from_slice(&bytes[..whole]);
            output.echo.push(stream, lines);
        }
        unfinished.extend_from_slice(&bytes[whole..]);
        if unfinished.len() >= BUFFER {
            output.echo.push(stream, std::mem::take(unfinished));
        }
    }

    pub(super) fn finish(&mut self, output: Output<'_>) {
        for (unfinished, stream) in self.unfinished.iter_mut().zip([Stream::Out, Stream::Err]) {
            output.echo.push(stream, std::mem::take(unfinished));
        }
    }
}

/// Takes a function's output from its pipes into the capture and to the echo.
pub(super) struct Reader<'a> {
    capture: &'a mut Capture,
    output: Output<'a>,
    buffer: Vec<u8>,
    passing: Passing,
}

/// How much is read at once, and how long a line may be before it is passed on in parts.
pub(super) const BUFFER: usize = 64 * 1024;

impl<'a> Reader<'a> {
    pub(super) fn new(capture: &'a mut Capture, output: Output<'a>) -> Reader<'a> {
        Reader { capture, output, buffer: Vec::new(), passing: Passing::default() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.output.echo.has_room()
    }

    pub(super) fn read(&mut self, stream: Stream, pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.buffer.clear();
        self.buffer.reserve_exact(BUFFER);
        let count = rustix::io::read(pipe, spare_capacity(&mut self.buffer))?;
        let bytes = &self.buffer[..count];
        self.capture.push(stream, bytes);
        self.passing.push(self.output, stream, bytes);
        Ok(count)
    }

    pub(super) fn finish(&mut self) {
        self.passing.finish(self.output);
    }
}
