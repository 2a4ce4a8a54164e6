//! The words of asyncq as types: services, functions, calls, jobs, outcomes and what follows from them.
//!
//! Invariant: no SQL, no clap, no clock, no processes, no files. Everything here can be tested with values alone.

pub mod attempt;
pub mod batch;
pub mod call;
pub mod event;
pub mod exit;
pub mod function;
pub mod job;
pub mod json;
pub mod log;
pub mod object;
pub mod processor;
pub mod query;
pub mod removal;
pub mod retry;
pub mod service;
pub mod size;
pub mod state;
pub mod suggest;
pub mod text;
pub mod time;
