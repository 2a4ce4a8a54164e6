//! What a program prints, and to which of its calls that belongs.

use std::os::fd::{AsFd, OwnedFd};
use std::{path::Path, process::Child};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::domain::log::Stream;
use crate::runner::output::line_buffer::{BUFFER, LineBuffer};
use crate::runner::{Capture, Output};

/// How much a pipe can hold, in bytes (the default of `/proc/sys/fs/pipe-max-size`, pipe(7)).
pub(in crate::runner) const LARGEST_PIPE: usize = 1024 * 1024;

const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];

/// The streams of a program, and what was read from them but not passed on yet.
#[derive(Debug)]
pub(in crate::runner) struct ProgramOutput {
    pipes: [Option<OwnedFd>; 2],
    fresh: [Vec<u8>; 2],
    /// Whether the search for the output of an answer has read anything.
    ahead: bool,
    lines: LineBuffer,
    /// What the program of a single call has printed; for a worker, what it printed before its hello.
    pub(in crate::runner) own: Capture,
}

impl ProgramOutput {
    /// The output of a program without streams. Long outputs go into `folder`.
    pub(in crate::runner) fn new(folder: &Path) -> ProgramOutput {
        let (pipes, fresh) = Default::default();
        ProgramOutput { pipes, fresh, ahead: false, lines: LineBuffer::default(), own: Capture::new(folder) }
    }

    /// That of a child with pipes.
    pub(in crate::runner) fn of(child: &mut Child, folder: &Path) -> ProgramOutput {
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        for pipe in pipes.iter().flatten() {
            // If this fails, reading may wait. It does not fail for pipes.
            let _ = rustix::io::ioctl_fionbio(pipe, true);
        }
        ProgramOutput { pipes, ..ProgramOutput::new(folder) }
    }

    /// The streams that are open.
    pub(in crate::runner) fn streams(&self) -> impl Iterator<Item = &OwnedFd> {
        self.pipes.iter().flatten()
    }

    /// Reads once what is there from each stream. Returns how much that was.
    pub(in crate::runner) fn take(&mut self) -> usize {
        [0, 1].map(|which| self.read(which).unwrap_or(0)).iter().sum()
    }

    /// Reads everything that is there.
    pub(in crate::runner) fn take_all(&mut self) {
        for which in 0..2 {
            let mut left = LARGEST_PIPE;
            while left > 0
                && let Some(count) = self.read(which)
            {
                left = left.saturating_sub(count);
            }
        }
    }

    /// Reads until it has this many bytes of each stream, or as many as the pipes can have held.
    fn take_until(&mut self, counts: [usize; 2]) {
        for (which, count) in counts.into_iter().enumerate() {
            let mut left = LARGEST_PIPE;
            while self.fresh[which].len() < count
                && left > 0
                && let Some(read) = self.read(which)
            {
                left = left.saturating_sub(read);
                self.ahead = true;
            }
        }
    }

    /// Whether that search has read anything since the last call of this.
    pub(in crate::runner) fn was_read_ahead(&mut self) -> bool {
        std::mem::take(&mut self.ahead)
    }

    /// Reads once from a pipe, and closes it at its end; `None` if nothing is there now.
    fn read(&mut self, which: usize) -> Option<usize> {
        let pipe = self.pipes[which].as_ref()?;
        let fresh = &mut self.fresh[which];
        fresh.reserve(BUFFER);
        match rustix::io::read(pipe.as_fd(), spare_capacity(fresh)) {
            Ok(count) if count > 0 => Some(count),
            Err(Errno::INTR) => Some(0),
            Err(Errno::AGAIN) => None,
            Ok(_) | Err(_) => {
                self.pipes[which] = None;
                None
            }
        }
    }

    /// Whether everything that was read is passed on.
    pub(in crate::runner) fn is_empty(&self) -> bool {
        self.fresh.iter().all(Vec::is_empty)
    }

    /// Gives a call the output that its answer counts, of which it has already got `before`; without `counted`, all output. Returns
    /// whether there was any.
    pub(in crate::runner) fn settle(
        &mut self,
        call: &mut Capture,
        before: [u64; 2],
        counted: Option<[u64; 2]>,
        output: Output<'_>,
    ) -> bool {
        let Some(counted) = counted else {
            self.take_all();
            return self.give(call, output) != [0, 0];
        };
        let missing = [0, 1].map(|which| usize::try_from(counted[which].saturating_sub(before[which])).unwrap_or(0));
        self.take_until(missing);
        for (which, stream) in STREAMS.into_iter().enumerate() {
            let count = missing[which].min(self.fresh[which].len());
            if count > 0 {
                let bytes: Vec<u8> = self.fresh[which].drain(..count).collect();
                call.push(stream, &bytes);
                self.lines.push(output, stream, &bytes);
            }
        }
        missing != [0, 0]
    }

    /// Gives a call everything that was read. Returns how many bytes.
    pub(in crate::runner) fn give(&mut self, call: &mut Capture, output: Output<'_>) -> [u64; 2] {
        let counts = [0, 1].map(|which| self.fresh[which].len() as u64);
        for (stream, fresh) in STREAMS.into_iter().zip(&self.fresh) {
            call.push(stream, fresh);
        }
        self.pass_on(output);
        counts
    }

    /// Keeps everything that was read as the output of the program itself.
    pub(in crate::runner) fn keep(&mut self, output: Output<'_>) {
        for (stream, fresh) in STREAMS.into_iter().zip(&self.fresh) {
            self.own.push(stream, fresh);
        }
        self.pass_on(output);
    }

    /// Passes on output that belongs to no call.
    pub(in crate::runner) fn pass_on(&mut self, output: Output<'_>) {
        for (stream, fresh) in STREAMS.into_iter().zip(&mut self.fresh) {
            if !fresh.is_empty() {
                self.lines.push(output, stream, fresh);
                fresh.clear();
            }
        }
    }

    /// Passes on the output in a message of a call.
    pub(in crate::runner) fn say(&mut self, stream: Stream, text: &str, output: Output<'_>) {
        self.lines.push(output, stream, text.as_bytes());
    }

    /// Passes on the incomplete lines of a call that has ended, if its lines have a label.
    pub(in crate::runner) fn call_ended(&mut self, output: Output<'_>) {
        self.lines.call_ended(output);
    }

    /// Passes on what is left, unfinished lines too.
    pub(in crate::runner) fn finish(&mut self, output: Output<'_>) {
        self.pass_on(output);
        self.lines.finish(output);
    }
}
