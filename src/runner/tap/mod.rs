//! The tap of a processor: a socket in its run directory, through which others follow what a running call prints.
//!
//! A follower names a job and an attempt. It gets what is kept of the output so far, and then each piece as the function prints it.
//! A slow follower continues with the output that is still kept, and learns how many bytes are lost.
//!
//! Invariant: no function waits for a follower. A call without followers only reads one counter.

pub mod audience;
pub mod feed;
pub mod server;

use std::path::{Path, PathBuf};
use std::{fs::File, io, os::fd::AsRawFd};

use rustix::fs::{Mode, OFlags, open};

use crate::domain::log::Stream;

/// The name of the socket.
const SOCKET: &str = "tap";

/// The version of this protocol, which the processor sends first.
const VERSION: u8 = 1;

/// The bytes of a request: the numbers of a job and of an attempt.
const REQUEST: usize = 16;

/// The size of a frame's header, in bytes: its kind and its length.
const HEAD: usize = 5;

/// About how many bytes of output are sent at once.
const CHUNK: usize = 64 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum FrameKind {
    /// The call runs here. The content is the version.
    Here = b'+',
    /// The call does not run here.
    Elsewhere = b'?',
    /// There are too many followers.
    Full = b'!',
    Out = b'1',
    Err = b'2',
    /// The content is the number of bytes that are lost at this point.
    Lost = b'-',
    /// The call has ended.
    End = b'.',
}

impl FrameKind {
    fn of(byte: u8) -> Option<FrameKind> {
        use FrameKind::{Elsewhere, End, Err, Full, Here, Lost, Out};
        [Here, Elsewhere, Full, Out, Err, Lost, End].into_iter().find(|kind| *kind as u8 == byte)
    }

    fn of_stream(stream: Stream) -> FrameKind {
        if stream == Stream::Out { FrameKind::Out } else { FrameKind::Err }
    }
}

/// Adds a frame. No content is longer than [`CHUNK`].
fn add_frame(to: &mut Vec<u8>, kind: FrameKind, content: &[u8]) {
    to.push(kind as u8);
    to.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(content);
}

/// The path of the socket in a folder, short enough for the address of a socket (unix(7): 107 bytes). It is valid while the folder
/// is open.
fn address(folder: &Path) -> io::Result<(File, PathBuf)> {
    // A follower may have permission to enter the folder, but not to list it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = File::from(open(folder, flags, Mode::empty())?);
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into();
    Ok((folder, path))
}
