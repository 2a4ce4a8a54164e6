//! Runs functions in workers: programs that stay, and get one call after another over their own channel.
//!
//! Invariant: if a worker ends, only calls that it may have begun are charged with that. A call that the worker had not read goes
//! back untouched. When a worker is gone, so is everything that it has started.

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
