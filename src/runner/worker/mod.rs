//! Functions that are run by workers: programs that stay, and get one call after another over a channel of their own.
//!
//! Invariant: a call is charged with its worker's end only if the worker may have begun it. A call that the worker had not read
//! goes back untouched. When a worker is gone, so is everything that it has started.

mod call;
mod channel;
mod child;
mod hangup;
pub mod host;
pub mod host_session;
mod in_flight;
mod nested;
mod oversized;
mod peer;
mod program_files;
mod protocol;
mod session;
mod shutdown;
pub mod single_call;
mod unicode;

pub use call::{CallReport, CallSource, EndedCall, SendLimits, SentCall};
pub use child::{FailedWorker, ServeEnd, Worker};
