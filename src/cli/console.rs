//! stdout and stderr as the console on which commands show the output of functions.

use std::sync::Arc;

use super::session::print_info;
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
        print_info(&trying_again(error), None);
    }
}

/// The message about an outcome that cannot be recorded yet.
pub fn trying_again(error: &Error) -> String {
    format!("{error}; trying again, so that no outcome is lost")
}
