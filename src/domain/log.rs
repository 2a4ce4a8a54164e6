//! What a function printed during one attempt, as it is kept: the head and the tail of it, never more than a mebibyte.

/// How much of one attempt's output is kept, head and tail together, in bytes.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;

/// Which stream a piece of output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// Its file descriptor number.
    #[must_use]
    pub fn fd(self) -> i64 {
        match self {
            Stream::Out => 1,
            Stream::Err => 2,
        }
    }

    /// The stream of that file descriptor number.
    #[must_use]
    pub fn from_fd(fd: i64) -> Option<Stream> {
        match fd {
            1 => Some(Stream::Out),
            2 => Some(Stream::Err),
            _ => None,
        }
    }
}

/// The output of one attempt, both streams in the order in which they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The bytes that were kept: the head, then the tail.
    pub bytes: Vec<u8>,
    /// Consecutive pieces of `bytes`, each with the stream that it was written to and its length.
    pub pieces: Vec<(Stream, usize)>,
    /// How many bytes between head and tail were dropped.
    pub dropped: u64,
    /// Where in `bytes` the dropped ones were; only meaningful when some were.
    pub gap: usize,
}

impl Log {
    /// Whether nothing was printed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dropped == 0
    }

    /// The pieces with their bytes, in order; the flag says that the dropped bytes were just before this piece.
    pub fn parts(&self) -> impl Iterator<Item = (Stream, &[u8], bool)> {
        let mut at = 0;
        self.pieces.iter().map(move |&(stream, length)| {
            let start = at;
            at += length;
            (stream, &self.bytes[start..at], self.dropped > 0 && start == self.gap)
        })
    }
}
