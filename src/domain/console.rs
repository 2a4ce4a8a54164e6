//! Where asyncq shows the output of functions, and its messages about them.

use std::sync::Arc;

use super::log::Stream;
use crate::error::Error;

/// Where messages wait until they are written.
pub trait MessageQueue: Send + Sync {
    /// Writes a message, with its line feed, to stderr after the output that came before it. Waits while too many messages are not
    /// written yet.
    ///
    /// # Errors
    /// The message, if the queue has ended. Then everything before it is written.
    fn say(&self, message: Vec<u8>) -> Result<(), Vec<u8>>;

    /// Whether so many messages are waiting that it is better to leave the next one out.
    fn is_behind(&self) -> bool;
}

/// The messages of a processor.
pub type Messages = Arc<dyn MessageQueue>;

/// How to show output to a caller. Separate threads write to it.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether stdout and stderr end in the same file, so that they share one order.
    pub is_joint: bool,
    /// Whether each line of a function begins with its job and its function.
    pub has_labels: bool,
    /// Writes to a stream, on a line of its own or where the last piece ended, and waits for its reader.
    pub write: fn(stream: Stream, bytes: &[u8], own_line: bool),
    /// From now on, messages go through this queue, so that they come after what functions have printed before. With `None`, they
    /// are written at once.
    pub send_messages_through: fn(Option<Messages>),
    /// Reports why an outcome cannot be recorded yet. asyncq tries again.
    pub cannot_record: fn(&Error),
}
