//! The socket pair to a worker. It carries messages in both directions, and asyncq can take back messages that the worker has not
//! read yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair,
};

use crate::runner::worker::oversized::{LONGEST, Oversized};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// One end of a socket pair, with the bytes that wait to be written or handed out.
#[derive(Debug)]
pub(super) struct Channel {
    ours: OwnedFd,
    /// The worker's end. asyncq has it too, so that it can read what the worker has not read.
    theirs: Option<OwnedFd>,
    /// Bytes that wait to be written. Append messages here, and send them with [`Channel::write`].
    pub(super) outgoing: Vec<u8>,
    /// The number of bytes written so far.
    written: u64,
    /// Bytes that were read. Those from `at` on are not handed out yet.
    incoming: Vec<u8>,
    at: usize,
    /// How far the rest was searched for the end of a message.
    searched: usize,
    /// A message that is too long, as far as it was read.
    long: Option<Oversized>,
    /// What is kept of the latest one.
    cut: Vec<u8>,
    /// Whether the other side has closed it.
    pub(super) is_over: bool,
}

/// A message of a worker, without its line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether it was too long. Then the ends of its texts and deep members are missing.
    pub(super) is_cut: bool,
}

impl Channel {
    /// A new channel, and the worker's end of it.
    pub(super) fn new() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let kept = theirs.try_clone()?;
        Ok((Channel { theirs: Some(kept), ..Channel::at(ours)? }, theirs))
    }

    /// The channel whose end this is.
    pub(super) fn at(ours: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Channel {
            ours,
            theirs: None,
            outgoing: Vec::new(),
            written: 0,
            incoming: Vec::new(),
            at: 0,
            searched: 0,
            long: None,
            cut: Vec::new(),
            is_over: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// The inode of the worker's end, if asyncq has that end too.
    pub(super) fn other_end(&self) -> Option<u64> {
        Some(rustix::fs::fstat(self.theirs.as_ref()?).ok()?.st_ino)
    }

    /// Where the next message begins, counted in bytes from the first message.
    pub(super) fn end(&self) -> u64 {
        self.written + self.outgoing.len() as u64
    }

    /// Writes as much as fits. It is not an error if the worker is gone.
    pub(super) fn write(&mut self) {
        let mut done = 0;
        while done < self.outgoing.len() {
            match send(&self.ours, &self.outgoing[done..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.written += done as u64;
        self.outgoing.drain(..done);
    }

    /// Reads what is there. Returns whether there was anything.
    pub(super) fn read(&mut self) -> bool {
        self.incoming.drain(..self.at);
        self.searched -= self.at;
        self.at = 0;
        let before = self.incoming.len();
        while self.incoming.len() <= LONGEST {
            self.incoming.reserve(CHUNK);
            match recv(&self.ours, spare_capacity(&mut self.incoming), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.is_over = true,
                Ok((_, count)) if count < CHUNK => {}
                Ok(_) | Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                Err(_) => self.is_over = true,
            }
            break;
        }
        self.incoming.len() > before
    }

    /// The next complete message; an error if the line is too long for a message.
    pub(super) fn next(&mut self) -> Option<Result<Frame<'_>, String>> {
        let found = self.incoming[self.searched..].iter().position(|byte| *byte == b'\n');
        let frame = self.at..found.map_or(self.incoming.len(), |found| self.searched + found);
        if self.long.is_some() || frame.len() > LONGEST {
            if let Err(flaw) = self.long.get_or_insert_default().push(&self.incoming[frame.clone()]) {
                return Some(Err(flaw));
            }
            self.at = frame.end;
        }
        if found.is_none() {
            self.searched = frame.end;
            return None;
        }
        (self.at, self.searched) = (frame.end + 1, frame.end + 1);
        if let Some(long) = self.long.take() {
            self.cut = long.kept;
            return Some(Ok(Frame { bytes: &self.cut, is_cut: true }));
        }
        Some(Ok(Frame { bytes: &self.incoming[frame], is_cut: false }))
    }

    /// Drops what was read and not handed out.
    pub(super) fn forget(&mut self) {
        self.at = self.incoming.len();
        self.searched = self.at;
        self.long = None;
    }

    /// Takes back what the worker has not read yet, in one step, so that the worker cannot read a part of it meanwhile. Returns
    /// where that begins, counted in bytes from the first message, and the bytes.
    pub(super) fn take_back(&mut self) -> (u64, Vec<u8>) {
        let mut back = Vec::new();
        if let Some(theirs) = &self.theirs {
            // More than a socket holds.
            back.reserve(LONGEST);
            let _ = recv(theirs, spare_capacity(&mut back), RecvFlags::DONTWAIT);
        }
        self.written -= back.len() as u64;
        back.append(&mut self.outgoing);
        (self.written, back)
    }

    /// Closes this side: the worker reads the end of the file.
    pub(super) fn close(&self) {
        let _ = shutdown(&self.ours, Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_was_not_read_is_taken_back_to_the_byte() {
        let (mut line, theirs) = Channel::new().unwrap();
        let mut worker = UnixStream::from(theirs);
        for frame in ["one\n", "two\n", "three\n"] {
            line.outgoing.extend_from_slice(frame.as_bytes());
        }
        line.write();
        let mut read = [0; 6];
        worker.read_exact(&mut read).unwrap();
        line.outgoing.extend_from_slice(b"four\n");
        assert_eq!((&read, line.take_back(), line.end()), (b"one\ntw", (6, b"o\nthree\nfour\n".to_vec()), 6));
        line.outgoing.extend_from_slice(b"o\n");
        line.write();
        let mut rest = String::new();
        BufReader::new(worker).read_line(&mut rest).unwrap();
        assert_eq!((rest.as_str(), line.end()), ("o\n", 8));
    }

    #[test]
    fn what_comes_after_a_long_frame_is_whole() {
        let (mut line, theirs) = Channel::new().unwrap();
        let mut worker = UnixStream::from(theirs);
        let write = std::thread::spawn(move || {
            let text = "x".repeat(3 * LONGEST);
            worker.write_all(format!("{{\"a\":1}}\n{{\"b\":[\"{text}\"]}}\n{{\"c\":1}}\n").as_bytes()).unwrap();
            worker
        });
        let mut frames = Vec::new();
        while frames.len() < 3 {
            line.read();
            while let Some(frame) = line.next() {
                let Frame { bytes, is_cut } = frame.unwrap();
                frames.push((bytes.len(), is_cut));
            }
            assert!(line.incoming.capacity() < 3 * LONGEST);
        }
        assert_eq!(frames, [(7, false), (1024 * 1024 + 10, true), (7, false)]);
        drop(write.join());
    }
}
