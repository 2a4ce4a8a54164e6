//! Passing on what a function prints while it runs.

use crate::domain::log::Stream;
use crate::runner::{Forwarder, PieceKind, Tap};

/// How a function's output is passed on.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Where it goes.
    pub forwarder: &'a Forwarder,
    /// Only in whole lines, because other functions may print at the same time.
    pub whole_lines: bool,
    /// Through which others follow it, if they can.
    pub tap: Option<&'a Tap>,
}

/// Passes a function's output on at once, or line by line.
#[derive(Debug, Default)]
pub(in crate::runner) struct LineBuffer {
    streams: [StreamBuffer; 2],
}

/// One stream of it.
#[derive(Debug, Default)]
struct StreamBuffer {
    /// The beginning of an unfinished line.
    unfinished: Vec<u8>,
    /// Whether the last piece ended within a line.
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
    /// Passes on what there is, on a line of its own unless it continues one.
    fn pass(&mut self, output: Output<'_>, stream: Stream) {
        let piece = std::mem::take(&mut self.unfinished);
        let kind = if self.within || !output.whole_lines { PieceKind::Output } else { PieceKind::Lines };
        self.within = piece.last().is_some_and(|last| *last != b'\n') || (self.within && piece.is_empty());
        output.forwarder.push(stream, piece, kind);
    }
}

/// How much is read at once, and how long a line may be before it is passed on in parts.
pub(in crate::runner) const BUFFER: usize = 64 * 1024;
