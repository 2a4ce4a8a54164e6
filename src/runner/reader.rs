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

/// Takes a function's output from its pipes into the capture and to the echo.
pub(super) struct Reader<'a> {
    capture: &'a mut Capture,
    output: Output<'a>,
    buffer: Vec<u8>,
    /// The beginnings of lines that have no end yet, by stream.
    unfinished: [Vec<u8>; 2],
}

/// How much is read at once, and how long a line may be before it is passed on in parts.
const BUFFER: usize = 64 * 1024;

impl<'a> Reader<'a> {
    pub(super) fn new(capture: &'a mut Capture, output: Output<'a>) -> Reader<'a> {
        Reader { capture, output, buffer: Vec::new(), unfinished: [Vec::new(), Vec::new()] }
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
        if !self.output.whole_lines {
            self.output.echo.push(stream, bytes.to_vec());
            return Ok(count);
        }
        let unfinished = &mut self.unfinished[usize::from(stream == Stream::Err)];
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            let mut lines = std::mem::take(unfinished);
            lines.extend_from_slice(&bytes[..whole]);
            self.output.echo.push(stream, lines);
        }
        unfinished.extend_from_slice(&bytes[whole..]);
        if unfinished.len() >= BUFFER {
            self.output.echo.push(stream, std::mem::take(unfinished));
        }
        Ok(count)
    }

    pub(super) fn finish(&mut self) {
        for (unfinished, stream) in self.unfinished.iter_mut().zip([Stream::Out, Stream::Err]) {
            self.output.echo.push(stream, std::mem::take(unfinished));
        }
    }
}
