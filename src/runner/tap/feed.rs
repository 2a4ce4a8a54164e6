//! The follower's side of a tap.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{fs, io, io::Read, io::Write};

use crate::domain::log::{Heard, Stream};
use crate::runner::tap::{CHUNK, FrameKind, HEAD, REQUEST, VERSION, address};

/// The live output of a running call.
#[derive(Debug)]
pub struct Feed {
    socket: UnixStream,
    bytes: Vec<u8>,
    /// How many of these bytes are taken.
    taken: usize,
    is_welcome: bool,
}

/// Why a call cannot be followed in the run directory of its processor.
#[derive(Debug)]
pub enum NoFeed {
    /// It does not run there now.
    Elsewhere,
    /// This process has no permission.
    Denied {
        /// The user whose processor runs it; `None` if that cannot be seen.
        user: Option<u32>,
    },
    /// Another error.
    Fails(io::Error),
}

impl Feed {
    /// Begins to follow an attempt of a job that runs in the processor with this folder.
    ///
    /// # Errors
    /// Why that is not possible now.
    pub fn open(run_folder: &Path, name: &str, (job, attempt): (i64, i64)) -> Result<Feed, NoFeed> {
        // A name in the store leads nowhere else.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoFeed::Elsewhere);
        }
        let folder = run_folder.join(name);
        let fails = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let user = fs::symlink_metadata(&folder).ok().map(|folder| folder.uid());
                NoFeed::Denied { user }
            }
            // The processor is about to end.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::BrokenPipe => NoFeed::Elsewhere,
            io::ErrorKind::NotFound if !folder.exists() => NoFeed::Elsewhere,
            _ => NoFeed::Fails(error),
        };
        let (_open, path) = address(&folder).map_err(fails)?;
        let mut socket = UnixStream::connect(path).map_err(fails)?;
        let mut request = [0; REQUEST];
        request[..8].copy_from_slice(&job.to_le_bytes());
        request[8..].copy_from_slice(&attempt.to_le_bytes());
        socket.write_all(&request).map_err(fails)?;
        socket.set_nonblocking(true).map_err(fails)?;
        Ok(Feed { socket, bytes: Vec::new(), taken: 0, is_welcome: false })
    }

    /// The next piece, if there is one; never blocks.
    ///
    /// # Errors
    /// When the processor does not run the call, has ended, or sends an unknown frame.
    pub fn next(&mut self) -> Result<Heard, NoFeed> {
        loop {
            if let Some((kind, content)) = self.take_frame()? {
                match (kind, self.is_welcome) {
                    (FrameKind::Here, false) if content.first() == Some(&VERSION) => self.is_welcome = true,
                    (FrameKind::Elsewhere, false) => return Err(NoFeed::Elsewhere),
                    (FrameKind::Full, false) => return Err(NoFeed::Fails(io::Error::other("too many follow it"))),
                    (FrameKind::Out, true) => return Ok(Heard::Output(Stream::Out, content)),
                    (FrameKind::Err, true) => return Ok(Heard::Output(Stream::Err, content)),
                    (FrameKind::End, true) => return Ok(Heard::End),
                    (FrameKind::Lost, true) => {
                        let count = content.first_chunk().ok_or_else(foreign)?;
                        return Ok(Heard::Lost(u64::from_le_bytes(*count)));
                    }
                    _ => return Err(foreign()),
                }
                continue;
            }
            self.bytes.drain(..std::mem::take(&mut self.taken));
            let mut space = vec![0; CHUNK];
            match self.socket.read(&mut space) {
                Ok(0) => return Err(NoFeed::Elsewhere),
                Ok(count) => self.bytes.extend_from_slice(&space[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(NoFeed::Elsewhere),
                Err(error) => return Err(NoFeed::Fails(error)),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<(FrameKind, Vec<u8>)>, NoFeed> {
        let Some((head, rest)) = self.bytes[self.taken..].split_at_checked(HEAD) else { return Ok(None) };
        let length = head.last_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        let kind = FrameKind::of(head[0]).filter(|_| length <= CHUNK).ok_or_else(foreign)?;
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let frame = (kind, content.to_vec());
        self.taken += HEAD + length;
        Ok(Some(frame))
    }
}

impl AsFd for Feed {
    /// Readable when there is something next.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn foreign() -> NoFeed {
    NoFeed::Fails(io::Error::other("its processor has another version of asyncq"))
}
