//! Call it now, run it later: the insides of the `asyncq` command.
//!
//! This library is no interface, and makes no promise: it exists so that the command, its tests and its measurements share one
//! build of the code, and any version may change all of it. From a program, use the command (`--output json`), or plain SQL
//! on the store's tables. Both are documented, and stay as they are documented.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod cli;
mod commands;
#[doc(hidden)]
pub mod domain;
mod error;
mod failpoint;
mod processor;
mod runner;
#[doc(hidden)]
pub mod store;
mod system;

pub use cli::main;
#[doc(hidden)]
pub use cli::{pages, reference};
#[doc(hidden)]
pub use error::{Error, Kind, Result};
#[doc(hidden)]
pub use runner::process::orphans;
