//! Shows on a console what functions print.

use std::sync::Arc;

use crate::domain::console::{Console, MessageQueue};
use crate::error::Result;
use crate::runner::{Forwarder, ForwarderHandle, PieceKind};
use crate::system::{error::io_error, memory};

/// Sends the messages of a console through a [`Forwarder`]. When this is dropped, they are written.
pub(super) struct Attached {
    console: Console,
    writer: ForwarderHandle,
}

/// Starts to pass on to a console what functions print. The forwarder has to end first.
///
/// # Errors
/// [`crate::Kind::Busy`] when the system gives no thread, or too little memory for what follows.
pub(super) fn attach(console: Console) -> Result<(Attached, Forwarder)> {
    memory::look().map_err(|error| io_error("cannot run functions", &error))?;
    let forwarder = Forwarder::start(console.is_joint, console.has_labels, move |piece| {
        (console.write)(piece.stream, &piece.bytes, piece.kind != PieceKind::Output);
    })
    .map_err(|error| io_error("cannot pass on what functions print", &error))?;
    let (said, writer) = (forwarder.handle(), forwarder.handle());
    (console.send_messages_through)(Some(Arc::new(said)));
    Ok((Attached { console, writer }, forwarder))
}

impl MessageQueue for ForwarderHandle {
    fn say(&self, message: Vec<u8>) -> std::result::Result<(), Vec<u8>> {
        ForwarderHandle::say(self, message)
    }

    fn is_behind(&self) -> bool {
        ForwarderHandle::is_behind(self)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        (self.console.send_messages_through)(None);
        self.writer.finish();
    }
}
