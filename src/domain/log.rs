//! The output of one attempt. The beginning and the end are kept, at most a mebibyte.

use serde::Deserialize;

/// How many bytes of an attempt's output are kept, in head and tail together.
pub const MAX_LOG_BYTES: usize = 1024 * 1024;

/// Which stream a piece of output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// A part of the output of a running call, as a follower gets it.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The function has printed this.
    Output(Stream, Vec<u8>),
    /// This many bytes are lost, because the follower was too slow.
    Lost(u64),
    /// The call has ended.
    End,
    /// Nothing now.
    Nothing,
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
    /// Where in `bytes` the dropped ones were; meaningful only if some were dropped.
    pub gap: usize,
}

impl Log {
    /// Whether nothing was printed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dropped == 0
    }

    /// The pieces with their bytes, in order. The flag says whether the dropped bytes were just before the piece.
    pub fn parts(&self) -> impl Iterator<Item = (Stream, &[u8], bool)> {
        let mut at = 0;
        self.pieces.iter().map(move |&(stream, length)| {
            let start = at;
            at += length;
            (stream, &self.bytes[start..at], self.dropped > 0 && start == self.gap)
        })
    }

    /// The same, with consecutive pieces of one stream joined.
    pub fn joined_parts(&self) -> impl Iterator<Item = (Stream, &[u8], bool)> {
        let mut joined: Vec<(Stream, std::ops::Range<usize>, bool)> = Vec::new();
        let mut at = 0;
        for (stream, bytes, after_gap) in self.parts() {
            let range = at..at + bytes.len();
            at = range.end;
            match joined.last_mut() {
                Some((last, piece, _)) if *last == stream && !after_gap => piece.end = range.end,
                _ => joined.push((stream, range, after_gap)),
            }
        }
        joined.into_iter().map(|(stream, range, after_gap)| (stream, &self.bytes[range], after_gap))
    }

    /// Keeps only the last bytes, at most this many. Returns whether anything was dropped.
    pub fn keep_end(&mut self, most: usize) -> bool {
        if self.bytes.len() <= most {
            return false;
        }
        // It never keeps bytes across the gap, because a log can have only one gap.
        let after = if self.dropped > 0 { self.bytes.len() - self.gap } else { self.bytes.len() };
        let mut gone = self.bytes.len() - most.min(after);
        self.dropped += gone as u64;
        self.gap = 0;
        self.bytes.drain(..gone);
        for piece in &mut self.pieces {
            let less = gone.min(piece.1);
            piece.1 -= less;
            gone -= less;
        }
        self.pieces.retain(|piece| piece.1 > 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(gap: Option<usize>) -> Log {
        let pieces = vec![(Stream::Out, 3), (Stream::Err, 4), (Stream::Out, 3)];
        let dropped = if gap.is_some() { 100 } else { 0 };
        Log { bytes: b"oneERR2two".to_vec(), pieces, dropped, gap: gap.unwrap_or(10) }
    }

    #[test]
    fn the_end_is_kept_and_the_rest_counted() {
        let mut cut = log(None);
        assert!(!cut.keep_end(10));
        assert_eq!(cut, log(None));
        assert!(cut.keep_end(5));
        let parts: Vec<_> = cut.parts().collect();
        assert_eq!(parts, [(Stream::Err, &b"R2"[..], true), (Stream::Out, &b"two"[..], false)]);
        assert_eq!(cut.dropped, 5);
        assert!(cut.keep_end(0) && !cut.keep_end(0));
        assert_eq!((cut.bytes.len(), cut.pieces.len(), cut.dropped), (0, 0, 10));
    }

    #[test]
    fn there_is_still_one_gap() {
        let mut cut = log(Some(7));
        assert!(cut.keep_end(5));
        assert_eq!(cut.parts().collect::<Vec<_>>(), [(Stream::Out, &b"two"[..], true)]);
        assert_eq!(cut.dropped, 107);
    }
}
