//! Keeps the head and the tail of what a function prints, in bounded memory.
//!
//! Invariant: at most [`MEMORY`] bytes of one call's output are in memory, however much it prints. An unnamed file has the rest of
//! what is kept. Losing a log never makes a call fail: what cannot be kept counts as dropped.

use std::path::{Path, PathBuf};
use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt};

use tempfile::NamedTempFile;

use crate::domain::log::{Log, MAX_LOG_BYTES, Stream};

/// How much output is kept in memory before it goes to a file.
const MEMORY: usize = 64 * 1024;

/// How much of the kept output is the head.
const HEAD: usize = MAX_LOG_BYTES / 4;

/// How much of it is the tail, at most.
const TAIL: usize = MAX_LOG_BYTES - HEAD;

/// How many pieces the head and the tail may each have. If a function alternates between its streams byte by byte, less of its
/// output is kept, and memory stays bounded.
const PIECES: usize = 8192;

/// A part of an output.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::runner) enum OutputPart<'a> {
    /// These bytes of a stream.
    Bytes(Stream, &'a [u8]),
    /// So many bytes that are not kept.
    Lost(u64),
}

/// The output of one call while it runs.
#[derive(Debug)]
pub struct Capture {
    space: Space,
    head: VecDeque<(Stream, usize)>,
    head_bytes: usize,
    head_closed: bool,
    tail: VecDeque<(Stream, usize)>,
    tail_bytes: usize,
    /// The place in the ring for the next byte of the tail.
    tail_end: usize,
    dropped: u64,
}

impl Capture {
    /// Nothing is printed yet. If a file is needed, it will be in `folder`.
    pub fn new(folder: &Path) -> Capture {
        Capture {
            space: Space::Memory { bytes: Vec::new(), folder: folder.to_owned() },
            head: VecDeque::new(),
            head_bytes: 0,
            head_closed: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_end: 0,
            dropped: 0,
        }
    }

    /// Takes what was read from a stream.
    pub fn push(&mut self, stream: Stream, mut bytes: &[u8]) {
        if !self.head_closed {
            let room = bytes.len().min(HEAD - self.head_bytes);
            let (now, later) = bytes.split_at(room);
            if self.space.write(self.head_bytes, now) {
                add(&mut self.head, stream, now.len());
                self.head_bytes += now.len();
            } else {
                self.dropped += now.len() as u64;
            }
            self.head_closed = self.head_bytes == HEAD || self.head.len() == PIECES;
            bytes = later;
        }
        if bytes.len() > TAIL {
            let (gone, rest) = bytes.split_at(bytes.len() - TAIL);
            self.dropped += gone.len() as u64;
            bytes = rest;
        }
        if bytes.is_empty() {
            return;
        }
        self.forget((self.tail_bytes + bytes.len()).saturating_sub(TAIL));
        while self.tail.len() >= PIECES {
            self.forget(self.tail[0].1);
        }
        let first = bytes.len().min(TAIL - self.tail_end);
        let (to_end, from_start) = bytes.split_at(first);
        if self.space.write(HEAD + self.tail_end, to_end) && self.space.write(HEAD, from_start) {
            add(&mut self.tail, stream, bytes.len());
            self.tail_bytes += bytes.len();
            self.tail_end = (self.tail_end + bytes.len()) % TAIL;
        } else {
            self.forget(self.tail_bytes);
            self.tail_end = 0;
            self.dropped += bytes.len() as u64;
        }
    }

    /// Drops the oldest bytes of the tail.
    fn forget(&mut self, mut count: usize) {
        self.dropped += count as u64;
        self.tail_bytes -= count;
        while count > 0 {
            let Some(oldest) = self.tail.front_mut() else { break };
            let gone = count.min(oldest.1);
            oldest.1 -= gone;
            count -= gone;
            if oldest.1 == 0 {
                self.tail.pop_front();
            }
        }
    }

    /// How many bytes are kept.
    pub fn kept(&self) -> usize {
        self.head_bytes + self.tail_bytes
    }

    /// How many bytes were printed.
    fn printed(&self) -> u64 {
        self.head_bytes as u64 + self.dropped + self.tail_bytes as u64
    }

    /// Gives what was printed after the first `seen` bytes, about this many bytes at most. Returns how many bytes are seen then.
    pub(in crate::runner) fn after(&self, mut seen: u64, most: usize, give: &mut dyn FnMut(OutputPart<'_>)) -> u64 {
        let (head, tail) = (self.head_bytes as u64, self.printed() - self.tail_bytes as u64);
        let mut left = most;
        while left > 0 && seen < self.printed() {
            let kept = match seen {
                seen if seen < head => Some((&self.head, seen)),
                seen if seen < tail => None,
                seen => Some((&self.tail, seen - tail)),
            };
            let Some((pieces, at)) = kept else {
                give(OutputPart::Lost(tail - seen));
                seen = tail;
                continue;
            };
            // It is within what is kept.
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let place = if seen < head { 0 } else { HEAD };
            let given = self.give(pieces, (place, at), left, give);
            if given == 0 {
                give(OutputPart::Lost(self.printed() - seen));
                return self.printed();
            }
            seen += given as u64;
            left -= given;
        }
        seen
    }

    /// Gives the bytes of these pieces from `at` on, at most `most`. Returns how many. It gives none if they cannot be read.
    fn give(
        &self,
        pieces: &VecDeque<(Stream, usize)>,
        (place, at): (usize, usize),
        most: usize,
        give: &mut dyn FnMut(OutputPart<'_>),
    ) -> usize {
        let start = (self.tail_end + TAIL - self.tail_bytes) % TAIL;
        let (mut begin, mut given, mut bytes) = (0, 0, Vec::new());
        for &(stream, length) in pieces {
            let from = (at + given).max(begin);
            begin += length;
            let count = begin.saturating_sub(from).min(most - given);
            bytes.resize(count, 0);
            let is_read = if place == 0 {
                self.space.read(from, &mut bytes)
            } else {
                let from = (start + from) % TAIL;
                let (to_end, from_start) = bytes.split_at_mut(count.min(TAIL - from));
                self.space.read(HEAD + from, to_end) && self.space.read(HEAD, from_start)
            };
            if !is_read {
                return given;
            }
            if count > 0 {
                give(OutputPart::Bytes(stream, &bytes));
            }
            given += count;
            if given == most {
                break;
            }
        }
        given
    }

    /// What is kept, as it goes into the store.
    pub fn log(&self) -> Log {
        let mut bytes = vec![0; self.kept()];
        let (head, tail) = bytes.split_at_mut(self.head_bytes);
        let start = (self.tail_end + TAIL - self.tail_bytes) % TAIL;
        let (to_end, from_start) = tail.split_at_mut(self.tail_bytes.min(TAIL - start));
        let read =
            self.space.read(0, head) && self.space.read(HEAD + start, to_end) && self.space.read(HEAD, from_start);
        if !read {
            return Log { dropped: self.dropped + bytes.len() as u64, ..Log::default() };
        }
        let mut pieces = self.head.clone();
        for &(stream, length) in &self.tail {
            // No piece reaches across the gap, so that a reader can tell where the gap is.
            if self.dropped > 0 && pieces.iter().map(|piece| piece.1).sum::<usize>() == self.head_bytes {
                pieces.push_back((stream, length));
            } else {
                add(&mut pieces, stream, length);
            }
        }
        Log { bytes, pieces: pieces.into(), dropped: self.dropped, gap: self.head_bytes }
    }
}

fn add(pieces: &mut VecDeque<(Stream, usize)>, stream: Stream, length: usize) {
    match pieces.back_mut() {
        _ if length == 0 => {}
        Some(last) if last.0 == stream => last.1 += length,
        _ => pieces.push_back((stream, length)),
    }
}

/// Space for [`MAX_LOG_BYTES`] bytes. Every place can be written and read.
#[derive(Debug)]
enum Space {
    Memory {
        bytes: Vec<u8>,
        folder: PathBuf,
    },
    File(File),
    /// No file could be made or written, because the disk is full.
    Lost,
}

impl Space {
    fn write(&mut self, at: usize, new: &[u8]) -> bool {
        if new.is_empty() {
            return true;
        }
        if let Space::Memory { bytes, folder } = self {
            let end = at + new.len();
            if end <= MEMORY {
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(new);
                return true;
            }
            // Unlike a file that never has a name, this one is closed to others from the start.
            let file = NamedTempFile::new_in(folder).map(NamedTempFile::into_file);
            let moved = file.and_then(|file| file.write_all_at(bytes, 0).map(|()| file));
            // If that fails, the bytes in memory are lost too. They count as dropped, so that no log shows other bytes for them.
            *self = moved.map_or(Space::Lost, Space::File);
        }
        match self {
            Space::File(file) => file.write_all_at(new, at as u64).is_ok(),
            Space::Memory { .. } | Space::Lost => false,
        }
    }

    fn read(&self, at: usize, into: &mut [u8]) -> bool {
        match self {
            _ if into.is_empty() => true,
            Space::Memory { bytes, .. } => match bytes.get(at..at + into.len()) {
                Some(found) => {
                    into.copy_from_slice(found);
                    true
                }
                None => false,
            },
            Space::File(file) => file.read_exact_at(into, at as u64).is_ok(),
            Space::Lost => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture::new(&std::env::temp_dir())
    }

    #[test]
    fn one_huge_write_is_like_many_small_ones() {
        let all: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut once, mut often) = (capture(), capture());
        once.push(Stream::Out, &all);
        for part in all.chunks(7001) {
            often.push(Stream::Out, part);
        }
        assert_eq!(once.log(), often.log());
    }

    #[test]
    fn what_is_kept_can_be_read_from_anywhere() {
        let all: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        for size in [100, 60_000, 700_000, MAX_LOG_BYTES, MAX_LOG_BYTES + 1, all.len()] {
            let mut capture = capture();
            for (number, part) in all[..size].chunks(7001).enumerate() {
                capture.push(if number % 3 == 0 { Stream::Err } else { Stream::Out }, part);
            }
            let log = capture.log();
            for most in [97, 64 * 1024, usize::MAX] {
                for from in [0, 1, 99, 50_000, HEAD - 1, HEAD, HEAD + 1, size - 1, size] {
                    let from = from.min(size);
                    let (mut seen, mut bytes, mut lost) = (from as u64, Vec::new(), 0);
                    // Small steps take long to the end.
                    for _ in 0..100 {
                        seen = capture.after(seen, most, &mut |part| match part {
                            OutputPart::Bytes(_, more) => bytes.extend_from_slice(more),
                            OutputPart::Lost(count) => lost += count,
                        });
                    }
                    assert_eq!(seen, (from + bytes.len()) as u64 + lost);
                    if most > 97 && from == 0 {
                        assert_eq!((&bytes, lost), (&log.bytes, log.dropped));
                    } else if lost == 0 {
                        assert_eq!(bytes, all[from..from + bytes.len()]);
                    }
                }
            }
        }
    }

    #[test]
    fn streams_are_told_apart_when_read() {
        let mut capture = capture();
        capture.push(Stream::Out, b"out");
        capture.push(Stream::Err, b"err");
        let mut parts = Vec::new();
        let seen = capture.after(1, 100, &mut |part| parts.push(format!("{part:?}")));
        assert_eq!((seen, parts.len()), (6, 2));
        assert!(parts[0].starts_with("Bytes(Out, [117, 116]") && parts[1].starts_with("Bytes(Err"), "{parts:?}");
    }

    #[test]
    fn alternating_streams_take_no_more_memory() {
        let mut capture = capture();
        for number in 0..100_000 {
            capture.push(if number % 2 == 0 { Stream::Out } else { Stream::Err }, b"x");
        }
        assert_eq!(capture.kept(), 2 * PIECES);
        let log = capture.log();
        assert_eq!(log.dropped + log.bytes.len() as u64, 100_000);
        assert_eq!(log.pieces.len(), 2 * PIECES);
    }

    #[test]
    fn a_full_disk_loses_log_and_nothing_else() {
        let mut capture = Capture::new(Path::new("/nonexistent"));
        capture.push(Stream::Out, &vec![b'x'; 100_000]);
        capture.push(Stream::Out, b"more");
        let log = capture.log();
        assert_eq!((log.bytes.len(), log.dropped), (0, 100_004));
        let mut lost = 0;
        let seen = capture.after(0, 100, &mut |part| {
            if let OutputPart::Lost(count) = part {
                lost += count;
            }
        });
        assert_eq!((seen, lost), (100_004, 100_004));
    }
}
