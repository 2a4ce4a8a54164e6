//! This process and its system: signals, descriptors, memory, users, and the errors of the system.
//!
//! Invariant: nothing here knows a function, a child process, or a file of asyncq.

pub mod disk;
pub mod error;
pub mod fds;
pub mod memory;
pub mod private_file;
pub mod signals;
pub mod user;
