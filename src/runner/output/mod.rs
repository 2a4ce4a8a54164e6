//! What functions print: read from their pipes, kept for the log, and forwarded while they run.

pub mod capture;
pub mod forwarder;
pub(in crate::runner) mod line_buffer;
pub(in crate::runner) mod program_output;
