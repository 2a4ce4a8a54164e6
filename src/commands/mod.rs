//! What asyncq does, for every caller: the command line now, others later. A [`queue::Queue`] carries out everything.
//!
//! Invariant: nothing here uses clap, prints, or reads the environment. A [`caller::Caller`] holds the environment as data.

pub mod apply;
pub mod backup;
pub mod batch;
pub mod call;
pub mod caller;
pub mod complete;
pub mod doctor;
pub mod due;
pub mod enqueue;
pub mod examination;
pub mod explain;
mod flaw;
pub mod follow;
pub mod function;
pub mod job;
pub mod job_change;
mod lines;
mod lookout;
pub mod pause;
pub mod process;
mod program;
pub mod queue;
mod register;
pub mod restore;
mod result_target;
pub mod rpc;
pub mod rpc_answers;
mod rpc_look;
mod rpc_schedule;
mod rpc_waits;
pub mod run;
pub mod schedule;
pub mod service;
pub mod status;
pub mod wait;
