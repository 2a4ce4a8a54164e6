//! Where a caller shows what functions print, and what asyncq says about them.

use std::sync::Arc;

use crate::domain::log::Stream;
use crate::error::{Error, Result};
use crate::runner::process::memory;
use crate::runner::system_error::io_error;
use crate::runner::{Forwarder, MessageWriter, PieceKind};

/// What shows output to a caller. Threads of their own write to it.
pub trait Console: Send + Sync {
    /// Whether stdout and stderr end in the same file, and so in one order.
    fn is_joint(&self) -> bool;

    /// Writes to a stream, on a line of its own or where the last piece ended, and waits for its reader.
    fn write(&self, stream: Stream, bytes: &[u8], own_line: bool);

    /// From now on, messages go through `messages`, so that they come after what functions have printed before; at once
    /// when there is none.
    fn send_messages_through(&self, messages: Option<Messages>);

    /// Says why an outcome cannot be recorded yet; that is tried again.
    fn cannot_record(&self, error: &Error);
}

/// Takes messages for stderr while functions print.
#[derive(Debug, Clone)]
pub struct Messages(MessageWriter);

impl Messages {
    /// Says a message, its line feed included, after the output that came before it. Waits while many have not been written.
    ///
    /// # Errors
    /// The message itself, when nothing is passed on any more: whatever came before it is written.
    pub fn say(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        self.0.say(message)
    }
}

/// Has messages of a console go through an [`Forwarder`], until it is dropped: then those that were said are written.
pub(super) struct Attached {
    console: Arc<dyn Console>,
    writer: MessageWriter,
}

/// Starts to pass on to a console what functions print.
///
/// # Errors
/// [`crate::Kind::Busy`] when the system gives no thread, or too little memory for what follows.
pub(super) fn attach(console: &Arc<dyn Console>) -> Result<(Forwarder, Attached)> {
    memory::look().map_err(|error| io_error("cannot run functions", &error))?;
    let shown = Arc::clone(console);
    let forwarder = Forwarder::start(console.is_joint(), move |piece| {
        shown.write(piece.stream, &piece.bytes, piece.kind != PieceKind::Output);
    })
    .map_err(|error| io_error("cannot pass on what functions print", &error))?;
    console.send_messages_through(Some(Messages(forwarder.voice())));
    let writer = forwarder.voice();
    Ok((forwarder, Attached { console: Arc::clone(console), writer }))
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.console.send_messages_through(None);
        self.writer.clone().finish();
    }
}
