//! Shows on a console what functions print.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::console::{Console, MessageQueue};
use crate::domain::log::Stream;
use crate::error::Result;
use crate::runner::{Forwarder, ForwarderHandle, Piece, PieceKind};
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

/// How often to check whether it is time to give up on a reader.
const LOOK: Duration = Duration::from_millis(50);

/// Shows on a console what a followed job prints. Its own threads write, so that the thread that follows the job never waits for a
/// reader longer than it wants to. Messages of this process come after the output before them. Dropping it waits for the reader.
pub struct OutputPrinter {
    // Ends first: the messages that it still writes go through `attached`.
    forwarder: Forwarder,
    _attached: Attached,
}

impl OutputPrinter {
    /// Starts to write to a console.
    ///
    /// # Errors
    /// [`crate::Kind::Busy`] when the system gives no thread, or has too little memory.
    pub fn start(console: Console) -> Result<OutputPrinter> {
        let (attached, forwarder) = attach(console)?;
        Ok(OutputPrinter { forwarder, _attached: attached })
    }

    /// Prints bytes, as a line of their own or where the last output ended. If the reader is far behind, it first waits for it, until
    /// `is_over`. Returns whether the bytes are on their way; otherwise they are dropped.
    pub fn print(&self, (stream, bytes): (Stream, &[u8]), own_line: bool, is_over: &dyn Fn() -> bool) -> bool {
        while !self.forwarder.wait_for_room(LOOK) {
            if is_over() {
                return false;
            }
        }
        let kind = if own_line { PieceKind::Lines } else { PieceKind::Output };
        self.forwarder.push(Piece { stream, bytes: bytes.to_vec(), kind, label: None });
        true
    }

    /// Waits until everything is written, until `is_over`. Returns whether it is written. If it is not, the reader has one more second
    /// when this is dropped.
    pub fn finish(&self, is_over: &dyn Fn() -> bool) -> bool {
        while !self.forwarder.wait_until_written(LOOK) {
            if is_over() {
                self.forwarder.handle().skip_wait();
                return false;
            }
        }
        true
    }
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
