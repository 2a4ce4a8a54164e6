//! This process and its system: signals, descriptors, memory, users, and the errors of the system.
//!
//! Invariant: nothing here knows of functions, child processes, or files of asyncq.

pub mod disk;
pub mod error;
pub mod fds;
pub mod memory;
pub mod private_file;
pub mod signals;
pub mod user;
