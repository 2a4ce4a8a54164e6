//! What asyncq does, for every caller: the command line now, others later. All of it is asked of a [`queue::Queue`].
//!
//! Invariant: no clap and no printing here, and nothing read from the environment: a [`caller::Caller`] holds that as data.

pub mod batch;
pub mod caller;
pub mod console;
pub mod enqueue;
pub mod function;
pub mod job;
pub mod job_change;
mod lines;
pub mod process;
pub mod queue;
pub mod service;
pub mod waiting;

use crate::error::Result;
use crate::runner::process::identity::user_name;
use crate::runner::process::signals;
use crate::runner::system_error::io_error;

/// A write that exceeds the size that files may have (`ulimit -f`) fails from now on, instead of ending this process.
///
/// # Errors
/// When the system refuses handlers.
pub fn outlive_limits() -> Result<()> {
    signals::outlive_limits().map_err(|error| io_error("cannot handle signals", &error))
}

/// The system's name for a user, or the number when there is no name.
#[must_use]
pub fn user(number: u32) -> String {
    user_name(number)
}
