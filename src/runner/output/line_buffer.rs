//! Passes on what a function prints while it runs.

use crate::domain::job::Claim;
use crate::domain::log::Stream;
use crate::runner::{Forwarder, Label, Piece, PieceKind, Tap};

/// How a function's output is passed on.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Where it goes.
    pub forwarder: &'a Forwarder,
    /// Whether to pass on whole lines only, because other functions may print at the same time.
    pub whole_lines: bool,
    /// Through which others follow it, if they can.
    pub tap: Option<&'a Tap>,
    /// The call that prints it, if that is known.
    pub claim: Option<&'a Claim>,
}

impl<'a> Output<'a> {
    /// The output of this call.
    #[must_use]
    pub fn of<'b>(self, claim: &'b Claim) -> Output<'b>
    where
        'a: 'b,
    {
        Output { claim: Some(claim), ..self }
    }
}

/// Passes a function's output on at once, or line by line.
#[derive(Debug, Default)]
pub(in crate::runner) struct LineBuffer {
    streams: [StreamBuffer; 2],
    /// The buffers of each call with a label. Its lines are always passed on whole.
    labelled: Vec<(Label, [StreamBuffer; 2])>,
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
        let which = usize::from(stream == Stream::Err);
        if let Some(label) = output.forwarder.label(output.claim) {
            let place = self.labelled.iter().position(|(of, _)| *of == label).unwrap_or_else(|| {
                self.labelled.push((label, Default::default()));
                self.labelled.len() - 1
            });
            let (label, streams) = &mut self.labelled[place];
            return streams[which].push_lines((output, Some(label)), stream, bytes);
        }
        let passed = &mut self.streams[which];
        if output.whole_lines {
            return passed.push_lines((output, None), stream, bytes);
        }
        let mut piece = std::mem::take(&mut passed.unfinished);
        piece.extend_from_slice(bytes);
        passed.within = piece.last().is_some_and(|last| *last != b'\n');
        output.forwarder.push(Piece { stream, bytes: piece, kind: PieceKind::Output, label: None });
    }

    /// Passes on the incomplete lines of a call that has ended, if its lines have a label.
    pub(in crate::runner) fn call_ended(&mut self, output: Output<'_>) {
        if self.labelled.is_empty() {
            return;
        }
        let ended = output.forwarder.label(output.claim);
        let place = self.labelled.iter().position(|(label, _)| Some(label) == ended.as_ref());
        if let Some((label, streams)) = place.map(|place| self.labelled.swap_remove(place)) {
            pass_all(streams, output, Some(&label));
        }
    }

    pub(in crate::runner) fn finish(&mut self, output: Output<'_>) {
        for (label, streams) in self.labelled.drain(..) {
            pass_all(streams, output, Some(&label));
        }
        for (passed, stream) in self.streams.iter_mut().zip(STREAMS) {
            passed.pass((output, None), stream);
        }
    }
}

const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];

fn pass_all(streams: [StreamBuffer; 2], output: Output<'_>, label: Option<&Label>) {
    for (mut passed, stream) in streams.into_iter().zip(STREAMS) {
        passed.pass((output, label), stream);
    }
}

impl StreamBuffer {
    /// Passes on lines that are complete, or long.
    fn push_lines(&mut self, output: (Output<'_>, Option<&Label>), stream: Stream, bytes: &[u8]) {
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            self.unfinished.extend_from_slice(&bytes[..whole]);
            self.pass(output, stream);
        }
        self.unfinished.extend_from_slice(&bytes[whole..]);
        if self.unfinished.len() >= BUFFER {
            self.pass(output, stream);
        }
    }

    /// Passes on everything, on a line of its own unless it continues one.
    fn pass(&mut self, (output, label): (Output<'_>, Option<&Label>), stream: Stream) {
        let bytes = std::mem::take(&mut self.unfinished);
        let whole_lines = output.whole_lines || label.is_some();
        let kind = if self.within || !whole_lines { PieceKind::Output } else { PieceKind::Lines };
        self.within = bytes.last().is_some_and(|last| *last != b'\n') || (self.within && bytes.is_empty());
        output.forwarder.push(Piece { stream, bytes, kind, label: label.cloned() });
    }
}

/// How much to read at once, and how long a line may get before it is passed on in parts.
pub(in crate::runner) const BUFFER: usize = 64 * 1024;
