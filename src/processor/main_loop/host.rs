//! Draining into the program that has started this processor: waiting for its hello, and losing it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::super::host::{Lost, lost};
use super::MainLoop;
use crate::error::{Error, Kind, Result, reason};
use crate::runner::worker::host::Host;
use crate::runner::worker::host_session::HostSession;

impl MainLoop<'_> {
    /// Waits for the hello of the host at the other end of a socket, unless it is told to stop. Calls run there from then on.
    pub(in super::super) fn greet(&mut self, socket: OwnedFd) -> Result<()> {
        let (host, ended) = Host::behind(&socket).map_err(|error| {
            Error::new(Kind::Io, format!("the host cannot be watched: {}", reason(&error)))
                .with_hint("the program that made the socket has to live for as long as calls run in it")
        })?;
        let pid = host.pid;
        let (events, button) = (Arc::clone(&self.events), self.button.clone());
        let wait = |end: BorrowedFd<'_>, time: Duration| {
            events.wait(time, Some(end));
            drop(events.take());
            button.stay_if_lost();
            button.pressed() == 0
        };
        let hosted = HostSession::greet(socket, (host, ended), wait).map_err(|loss| lost(pid, &loss))?;
        if let Some(hosted) = &hosted
            && hosted.is_idle()
        {
            self.idle = Some(hosted.host().clone());
        }
        if let Some(runtime) = &mut self.runtime {
            runtime.host = hosted;
        }
        Ok(())
    }

    /// Nothing can be run in the host any more: nothing else begins.
    pub(super) fn lose_host(&mut self, lost: Lost) {
        if let Some(registration) = &mut self.registration {
            registration.slots.leave(lost.left.len());
        }
        self.lost = Some(lost);
    }
}
