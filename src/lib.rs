//! Call it now, run it later: the library behind the `asyncq` command.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;
pub mod commands;
pub mod domain;
mod error;
mod failpoint;
pub mod processor;
pub mod runner;
pub mod store;

pub use error::{Error, Kind, Result};
