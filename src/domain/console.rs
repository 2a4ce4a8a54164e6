//! Where asyncq shows what functions print, and what it says about them.

use std::sync::Arc;

use super::log::Stream;
use crate::error::Error;

/// Writes a message to stderr, its line feed included, after the output that came before it. Waits while many messages are not
/// written. Gives the message back once nothing is passed on: then everything that came before it is written.
pub type Messages = Arc<dyn Fn(Vec<u8>) -> Result<(), Vec<u8>> + Send + Sync>;

/// How to show output to a caller. Threads of their own write to it.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether stdout and stderr end in the same file, and so in one order.
    pub is_joint: bool,
    /// Writes to a stream, on a line of its own or where the last piece ended, and waits for its reader.
    pub write: fn(stream: Stream, bytes: &[u8], own_line: bool),
    /// From now on, messages go through these, so that they come after what functions have printed before. Without them, they
    /// are written at once.
    pub send_messages_through: fn(Option<Messages>),
    /// Reports why an outcome cannot be recorded yet. asyncq tries again.
    pub cannot_record: fn(&Error),
}
