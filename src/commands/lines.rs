//! Lines of a file or a pipe, and whether there are more of them already.

use std::io::{self, BufRead, BufReader, Read};
use std::{fs::File, time::Duration};

use rustix::event::{PollFd, PollFlags};

use crate::system::fds;

/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// The lines of a file or a pipe.
#[derive(Debug)]
pub(super) struct Lines {
    input: BufReader<BlockingFile>,
    longest: usize,
    number: u64,
    /// How many bytes were read.
    pub(super) bytes: u64,
}

/// A file that is waited for, also when somebody who shares it has set `O_NONBLOCK`.
#[derive(Debug)]
struct BlockingFile(File);

impl Read for BlockingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    fds::wait(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
                }
                done => return done,
            }
        }
    }
}

/// One line, without its end.
pub(super) struct InputLine {
    /// Its number, from 1.
    pub(super) number: u64,
    /// What is in it; `None` when it is too long.
    pub(super) bytes: Option<Vec<u8>>,
}

impl Lines {
    /// The lines of `input`, each of at most `longest` bytes.
    pub(super) fn of(input: File, longest: usize) -> Lines {
        Lines { input: BufReader::with_capacity(BUFFER, BlockingFile(input)), longest, number: 0, bytes: 0 }
    }

    /// The next line, waited for if need be; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<InputLine>> {
        let mut line = Vec::new();
        let most = self.longest as u64 + 2;
        let count = (&mut self.input).take(most).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += count as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let fits = line.len() <= self.longest;
        Ok(Some(InputLine { number: self.number, bytes: fits.then_some(line) }))
    }

    /// Whether there is more to read at once.
    pub(super) fn has_more(&self) -> bool {
        if self.input.buffer().contains(&b'\n') {
            return true;
        }
        let mut ready = [PollFd::new(&self.input.get_ref().0, PollFlags::IN)];
        // If that is unknown, the caller waits.
        fds::wait(&mut ready, Some(Duration::ZERO)).is_ok_and(|count| count > 0)
    }
}
