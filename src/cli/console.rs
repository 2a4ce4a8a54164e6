//! stdout and stderr as the place where commands show what functions print.

use std::sync::Arc;

use super::session::say;
use super::stdio;
use crate::commands::console::{Console, Messages};
use crate::domain::log::Stream;
use crate::error::Error;

/// The console of this process.
pub fn console() -> Arc<dyn Console> {
    Arc::new(Stdio)
}

struct Stdio;

impl Console for Stdio {
    fn is_joint(&self) -> bool {
        stdio::are_joint()
    }

    fn write(&self, stream: Stream, bytes: &[u8], own_line: bool) {
        stdio::put(stream, bytes, own_line);
    }

    fn send_messages_through(&self, messages: Option<Messages>) {
        stdio::send_messages_through(messages);
    }

    fn cannot_record(&self, error: &Error) {
        say(&trying_again(error), None);
    }
}

/// What is told when an outcome cannot be recorded yet.
pub fn trying_again(error: &Error) -> String {
    format!("{error}; trying again, so that no outcome is lost")
}
