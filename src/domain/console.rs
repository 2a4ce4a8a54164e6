//! Where asyncq shows what functions print, and what it says about them.

use std::sync::Arc;

use super::log::Stream;
use crate::error::Error;

/// Where messages wait until they are written.
pub trait MessageQueue: Send + Sync {
    /// Writes a message to stderr, its line feed included, after the output that came before it. Waits while many messages are not
    /// written.
    ///
    /// # Errors
    /// The message, once nothing is passed on: then everything that came before it is written.
    fn say(&self, message: Vec<u8>) -> Result<(), Vec<u8>>;

    /// Whether so many messages wait that one more had better be left out.
    fn is_behind(&self) -> bool;
}

/// The messages of a processor.
pub type Messages = Arc<dyn MessageQueue>;

/// How to show output to a caller. Threads of their own write to it.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether stdout and stderr end in the same file, and so in one order.
    pub is_joint: bool,
    /// Whether each line of a function begins with its job and its function.
    pub has_labels: bool,
    /// Writes to a stream, on a line of its own or where the last piece ended, and waits for its reader.
    pub write: fn(stream: Stream, bytes: &[u8], own_line: bool),
    /// From now on, messages go through these, so that they come after what functions have printed before. Without them, they
    /// are written at once.
    pub send_messages_through: fn(Option<Messages>),
    /// Reports why an outcome cannot be recorded yet. asyncq tries again.
    pub cannot_record: fn(&Error),
}
