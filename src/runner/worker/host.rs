//! The *host*: a program that drains into itself, at the other end of a socket that this process has inherited.
//!
//! Invariant: a host counts as gone only if the same process that made the socket is gone. Its number and its start time identify
//! it, because numbers of processes are used again.

use std::{io, os::fd::OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_type;
use rustix::net::{AddressFamily, SocketType, getpeername};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::error::{Error, Kind, Result};
use crate::runner::process::identity::{self, Presence};
use crate::system::{error::of_call, fds};

/// The hint for an unusable descriptor.
const HINT: &str = "give it one end of a `socketpair(AF_UNIX, SOCK_STREAM)` that the calling program has made, as a \
    descriptor from 3 on which asyncq inherits: docs/protocol.md shows how";

/// Takes an inherited descriptor, and checks that it is a socket to another process, which must be visible from here.
///
/// # Errors
/// [`Kind::Usage`] when it is not.
pub fn inherit(number: u32) -> Result<OwnedFd> {
    let wrong = |what: &str| Error::new(Kind::Usage, format!("`--worker-socket {number}` {what}")).with_hint(HINT);
    if number <= 2 {
        return Err(wrong("names a standard stream"));
    }
    let socket = i32::try_from(number).ok().and_then(fds::take).ok_or_else(|| wrong("is not an open descriptor"))?;
    match (socket_type(&socket), getpeername(&socket)) {
        (Err(_), _) => return Err(wrong("is not a socket")),
        (Ok(SocketType::STREAM), Ok(Some(peer))) if peer.address_family() == AddressFamily::UNIX => {}
        (Ok(SocketType::STREAM), Ok(None) | Err(_)) => return Err(wrong("is a socket without another end")),
        (Ok(_), _) => return Err(wrong("is a socket of another kind")),
    }
    let maker = maker(&socket).ok_or_else(|| wrong("was made by a process that cannot be seen from here"))?;
    if maker == getpid() {
        return Err(wrong("was made by this process itself"));
    }
    Ok(socket)
}

/// The process that made the pair; `None` if it is in another PID namespace.
fn maker(socket: &OwnedFd) -> Option<Pid> {
    // rustix cannot do this: the kernel gives 0 for another namespace, and the type of rustix has no 0.
    Pid::from_raw(getsockopt(socket, sockopt::PeerCredentials).ok()?.pid())
}

/// A host, as the next processor can find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its process.
    pub pid: i64,
    /// When that began, in clock ticks since boot.
    start: i64,
    /// Its boot and PID namespace.
    place: String,
}

impl Host {
    /// The host at the other end of a socket, and a descriptor that becomes readable when it has ended. From now on, no program
    /// inherits the socket.
    ///
    /// # Errors
    /// When it has ended already, or cannot be watched.
    pub fn behind(socket: &OwnedFd) -> io::Result<(Host, OwnedFd)> {
        fcntl_setfd(socket, FdFlags::CLOEXEC)?;
        let maker = maker(socket).ok_or(Errno::SRCH)?;
        let ended = pidfd_open(maker, PidfdFlags::empty()).map_err(|error| of_call("pidfd_open", error))?;
        let pid = maker.as_raw_nonzero().get().into();
        Ok((Host { pid, start: identity::started(pid)?, place: identity::here()? }, ended))
    }

    /// Writes it as one line.
    pub(in crate::runner) fn note(&self) -> String {
        format!("{} {} {}\n", self.pid, self.start, self.place)
    }

    /// Reads that line.
    pub(in crate::runner) fn parse(note: &str) -> Option<Host> {
        let mut words = note.strip_suffix('\n')?.splitn(3, ' ');
        let (pid, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Host { pid, start, place: words.next()?.to_owned() })
    }

    /// Whether it may still live. If its namespace is hidden from here, it may, unless the namespace is `gone`.
    pub fn lives(&self, gone: bool) -> bool {
        match identity::look(self.pid, self.start, &self.place) {
            Presence::There => true,
            Presence::Gone => false,
            Presence::Hidden => !gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_names_one_process() {
        let pid = i64::from(getpid().as_raw_nonzero().get());
        let own = Host { pid, start: identity::started(pid).unwrap(), place: identity::here().unwrap() };
        assert_eq!(Host::parse(&own.note()), Some(own.clone()));
        assert!(own.lives(false));
        assert!(!Host { start: own.start + 1, ..own.clone() }.lives(false));
        assert!(!Host { place: own.place.replacen(' ', "0 ", 1), ..own.clone() }.lives(false));
        let elsewhere = Host { place: own.place.replace("pid:[", "pid:[1"), ..own.clone() };
        assert!(elsewhere.lives(false) && !elsewhere.lives(true));
        for bad in ["", "1 2 3", "a b c\n", "1 2\n"] {
            assert_eq!(Host::parse(bad), None, "{bad}");
        }
    }
}
