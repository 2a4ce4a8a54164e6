//! Lines of a file or a pipe. It knows whether more of them are there already.

use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::{fs::File, sync::Arc, time::Duration};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::system::fds;

/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// The lines of a file or a pipe.
#[derive(Debug)]
pub(super) struct Lines {
    input: File,
    /// The input ends when this is readable.
    stop: Option<Arc<OwnedFd>>,
    longest: usize,
    /// The bytes that were read. The next line begins at `next` and does not end before `searched`.
    buffer: Vec<u8>,
    next: usize,
    searched: usize,
    /// Whether the next line is too long; then its beginning is dropped.
    is_too_long: bool,
    ended: bool,
    failed: Option<io::Error>,
    number: u64,
    /// How many bytes were read.
    pub(super) bytes: u64,
}

/// One line, without its end.
pub(super) struct InputLine {
    /// Its number, from 1.
    pub(super) number: u64,
    /// What is in it; `None` when it is too long.
    pub(super) bytes: Option<Vec<u8>>,
}

impl InputLine {
    pub(super) fn is_blank(&self) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.trim_ascii().is_empty())
    }

    /// Its text; `None` when it is too long.
    pub(super) fn text(&self) -> Result<Option<&str>> {
        let text = self.bytes.as_deref().map(str::from_utf8).transpose();
        text.map_err(|error| Error::new(Kind::Invalid, format!("not UTF-8 from byte {} on", error.valid_up_to() + 1)))
    }
}

impl Lines {
    /// The lines of `input`, each of at most `longest` bytes.
    pub(super) fn of(input: File, longest: usize) -> Lines {
        let buffer = Vec::with_capacity(BUFFER);
        let (stop, failed) = (None, None);
        Lines {
            input,
            stop,
            longest,
            buffer,
            next: 0,
            searched: 0,
            is_too_long: false,
            ended: false,
            failed,
            number: 0,
            bytes: 0,
        }
    }

    /// The same lines, which end when `stop` becomes readable.
    pub(super) fn until(self, stop: Arc<OwnedFd>) -> Lines {
        Lines { stop: Some(stop), ..self }
    }

    /// The next line, waited for if need be; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<InputLine>> {
        while !self.has_line() {
            if self.ended {
                let is_empty = self.next == self.buffer.len() && !self.is_too_long;
                return Ok(if is_empty { None } else { Some(self.take(0)) });
            }
            self.failed.take().map_or(Ok(()), Err)?;
            self.read(true)?;
        }
        Ok(Some(self.take(1)))
    }

    /// Whether [`Lines::next`] has an answer at once, even if that is the end. A line that has only begun does not count.
    pub(super) fn has_more(&mut self) -> bool {
        while !self.has_line() && !self.ended && self.failed.is_none() {
            match self.read(false) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => self.failed = Some(error),
            }
        }
        true
    }

    /// Whether the end of the next line is read. Searches no byte twice.
    fn has_line(&mut self) -> bool {
        if self.searched > self.next && self.buffer[self.searched - 1] == b'\n' {
            return true;
        }
        let mut rest = &self.buffer[self.searched..];
        // Only a slice, which never fails.
        self.searched += rest.skip_until(b'\n').unwrap_or_default();
        if self.searched > self.next && self.buffer[self.searched - 1] == b'\n' {
            return true;
        }
        if self.searched - self.next > self.longest {
            self.is_too_long = true;
            self.bytes += (self.searched - self.next) as u64;
            self.next = self.searched;
        }
        false
    }

    /// Takes the next line, all of which was read. `end` is its length with the line end.
    fn take(&mut self, end: usize) -> InputLine {
        let line = &self.buffer[self.next..self.searched - end];
        let fits = !self.is_too_long && line.len() <= self.longest;
        let bytes = fits.then(|| line.to_vec());
        self.number += 1;
        self.bytes += (self.searched - self.next) as u64;
        self.next = self.searched;
        self.is_too_long = false;
        InputLine { number: self.number, bytes }
    }

    /// Reads more, or the end. Returns whether it did; it did not if it would have had to wait and may not.
    fn read(&mut self, may_wait: bool) -> io::Result<bool> {
        self.buffer.drain(..self.next);
        self.searched -= self.next;
        self.next = 0;
        self.buffer.reserve(BUFFER / 4);
        // Another process that shares the input may have set `O_NONBLOCK`. Then this waits as well.
        let mut waits = !may_wait || self.stop.is_some();
        loop {
            if waits && !self.is_ready(may_wait)? {
                return Ok(false);
            }
            if self.ended {
                return Ok(true);
            }
            match rustix::io::read(&self.input, spare_capacity(&mut self.buffer)) {
                Ok(count) => {
                    self.ended = count == 0;
                    return Ok(true);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => waits = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until there is something to read, if it may wait. Also notices when this has to be the end.
    fn is_ready(&mut self, may_wait: bool) -> io::Result<bool> {
        let time = if may_wait { None } else { Some(Duration::ZERO) };
        let mut all = vec![PollFd::new(&self.input, PollFlags::IN)];
        all.extend(self.stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)));
        let mut is_ready = fds::wait(&mut all, time)? > 0;
        while may_wait && !is_ready {
            // A signal has ended the sleep.
            is_ready = fds::wait(&mut all, time)? > 0;
        }
        self.ended = all.get(1).is_some_and(|stop| !stop.revents().is_empty());
        Ok(is_ready)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        (read.into(), write.into())
    }

    fn next(lines: &mut Lines) -> Option<String> {
        lines.next().unwrap().map(|line| line.text().unwrap().unwrap_or("too long").to_owned())
    }

    #[test]
    fn a_line_counts_when_its_end_is_there() {
        let (read, mut write) = pipe();
        let mut lines = Lines::of(read, 8);
        assert!(!lines.has_more());
        write.write_all(b"one\ntw").unwrap();
        assert!(lines.has_more());
        assert_eq!(next(&mut lines), Some("one".to_owned()));
        assert!(!lines.has_more());
        write.write_all(b"o\n\nthree").unwrap();
        for line in ["two", ""] {
            assert!(lines.has_more());
            assert_eq!(next(&mut lines), Some(line.to_owned()));
        }
        assert!(!lines.has_more());
        drop(write);
        assert!(lines.has_more());
        assert_eq!(next(&mut lines), Some("three".to_owned()));
        assert_eq!((next(&mut lines), lines.number, lines.bytes), (None, 4, 14));
    }

    #[test]
    fn what_is_too_long_is_skipped() {
        let (read, mut write) = pipe();
        let mut lines = Lines::of(read, 8);
        write.write_all(b"12345678\n123456789\n1234567890123").unwrap();
        assert_eq!(next(&mut lines), Some("12345678".to_owned()));
        assert_eq!(next(&mut lines), Some("too long".to_owned()));
        assert!(!lines.has_more());
        write.write_all(b"456\nx\n123456789").unwrap();
        assert_eq!(next(&mut lines), Some("too long".to_owned()));
        assert_eq!(next(&mut lines), Some("x".to_owned()));
        drop(write);
        assert_eq!(next(&mut lines), Some("too long".to_owned()));
        assert_eq!((next(&mut lines), lines.bytes), (None, 47));
    }

    #[test]
    fn they_end_when_they_are_stopped() {
        let ((read, mut write), (stopped, mut stop)) = (pipe(), pipe());
        let mut lines = Lines::of(read, 8).until(Arc::new(stopped.into()));
        write.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(next(&mut lines), Some("one".to_owned()));
        stop.write_all(b"!").unwrap();
        assert_eq!(next(&mut lines), Some("two".to_owned()));
        assert_eq!(next(&mut lines), None);
    }
}
