//! The thread of a processor that receives followers' requests.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use std::{io, path::Path, sync::Arc, thread::JoinHandle};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::runner::Access;
use crate::runner::tap::audience::{FollowRequest, Tap};
use crate::runner::tap::{FrameKind, REQUEST, add_frame, address};
use crate::system::fds;

/// How long a follower may take for its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many connections without a complete request are kept at most.
const VISITORS: usize = 16;

/// How long to wait after the system has given no descriptor.
const BREATH: Duration = Duration::from_millis(100);

/// Stack of the thread, in bytes: it runs no recursion.
const STACK: usize = 128 * 1024;

/// Brings a follower to its call. If the call does not run here, returns the request.
type Usher = Box<dyn Fn(FollowRequest) -> Result<(), FollowRequest> + Send>;

/// The socket, and the thread that listens. Both end when this is dropped.
#[derive(Debug)]
pub struct TapServer {
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl TapServer {
    /// Creates the socket in the folder of a processor and listens. Everyone who may enter that folder can connect.
    ///
    /// # Errors
    /// When the file system has no sockets, or the system gives no thread or descriptor.
    pub fn start(folder: &Path, access: Access, tap: Arc<Tap>, usher: Usher) -> io::Result<TapServer> {
        let (_open, path) = address(folder)?;
        let listener = UnixListener::bind(&path)?;
        access.show_socket(&path)?;
        listener.set_nonblocking(true)?;
        let listener = Arc::new(listener);
        let desk = Desk { listener: Arc::clone(&listener), tap, usher, visitors: Vec::new() };
        let thread = std::thread::Builder::new().name("tap".to_owned()).stack_size(STACK);
        let thread = Some(thread.spawn(move || desk.listen())?);
        Ok(TapServer { listener, thread })
    }
}

impl Drop for TapServer {
    fn drop(&mut self) {
        let _ = shutdown(&*self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Desk {
    listener: Arc<UnixListener>,
    tap: Arc<Tap>,
    usher: Usher,
    visitors: Vec<Visitor>,
}

/// A connection without a complete request.
struct Visitor {
    socket: OwnedFd,
    since: Instant,
    said: Vec<u8>,
}

impl Desk {
    fn listen(mut self) {
        loop {
            let mut fds = vec![PollFd::new(&*self.listener, PollFlags::IN)];
            fds.extend(self.visitors.iter().map(|visitor| PollFd::new(&visitor.socket, PollFlags::IN)));
            let patience = self.visitors.iter().map(|visitor| PATIENCE.saturating_sub(visitor.since.elapsed())).min();
            // Interrupted or not: it looks.
            let _ = fds::wait(&mut fds, patience);
            if fds[0].revents().contains(PollFlags::HUP) {
                return;
            }
            self.accept();
            for mut visitor in std::mem::take(&mut self.visitors) {
                match visitor.hear() {
                    Ok(Some(said)) => self.usher(visitor.socket, said),
                    Ok(None) if visitor.since.elapsed() < PATIENCE => self.visitors.push(visitor),
                    Ok(None) | Err(_) => {}
                }
            }
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if self.visitors.len() < VISITORS && socket.set_nonblocking(true).is_ok() => {
                    self.visitors.push(Visitor { socket: socket.into(), since: Instant::now(), said: Vec::new() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return std::thread::sleep(BREATH),
            }
        }
    }

    fn usher(&self, socket: OwnedFd, said: [u8; REQUEST]) {
        let number = |at: usize| said[at..].first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        if self.tap.followers() >= fds::followers_at_once() {
            return answer(&socket, FrameKind::Full);
        }
        let request = FollowRequest { job: number(0), attempt: number(8), socket };
        if let Err(request) = (self.usher)(request) {
            answer(&request.socket, FrameKind::Elsewhere);
        }
    }
}

impl Visitor {
    /// Reads from the connection. Returns the request once it is complete.
    fn hear(&mut self) -> rustix::io::Result<Option<[u8; REQUEST]>> {
        let mut space = [0; REQUEST];
        let missing = REQUEST - self.said.len();
        match recv(self.socket.as_fd(), &mut space[..missing], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(Errno::PIPE),
            Ok((_, count)) => {
                self.said.extend_from_slice(&space[..count]);
                Ok(self.said.as_slice().try_into().ok())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Answers a request that is refused. A new socket has room for the answer.
fn answer(socket: &OwnedFd, kind: FrameKind) {
    let mut frame = Vec::new();
    add_frame(&mut frame, kind, &[]);
    let _ = send(socket, &frame, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}
