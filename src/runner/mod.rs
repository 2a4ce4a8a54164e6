//! Runs functions: processes, their output, and the files that a processor keeps while it works.
//!
//! Invariant: this layer knows processes and files, but no database. It does not decide what an outcome leads to.

mod call;
pub mod clock;
pub mod command;
mod later_file;
pub mod output;
pub mod process;
mod result_file;
pub mod run_dir;
mod spawn;
mod start_failure;
mod stop_switch;
pub mod tap;
pub mod worker;

pub use call::{Ended, Surroundings};
pub use output::capture::Capture;
pub use output::forwarder::{Forwarder, ForwarderHandle, Label, Piece, PieceKind};
pub use output::line_buffer::Output;
pub use process::orphans::Orphans;
pub use run_dir::access::Access;
pub use run_dir::disk_reserve::DiskReserve;
pub use run_dir::home::Home;
pub use run_dir::{LONGEST_NOTE, Mark, Marks, RunDir};
pub use start_failure::{StartFailure, has_expired};
pub use stop_switch::{Stop, StopSwitch};
pub use tap::audience::Tap;
