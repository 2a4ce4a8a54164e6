//! stdout and stderr as the console for the output of functions.

use super::{session::print_info, stdio};
use crate::domain::console::Console;
use crate::error::Error;

/// The console of this process.
pub fn console() -> Console {
    Console {
        is_joint: *stdio::JOINT,
        has_labels: false,
        write: stdio::put,
        send_messages_through: stdio::send_messages_through,
        cannot_record: |error| print_info(&trying_again(error), None),
    }
}

/// The message about an outcome that cannot be recorded yet.
pub fn trying_again(error: &Error) -> String {
    format!("{error}; trying again, so that no outcome is lost")
}
