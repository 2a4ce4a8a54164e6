//! The command line as a user types it: real programs, real files, stdout and stderr compared in full.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use support::place;

mod application;
mod batch;
mod call;
mod command;
mod conversation;
mod copy;
mod cron;
mod delay;
mod documents;
mod due;
mod enqueue;
mod explain;
mod follow;
mod format;
mod function;
mod grace;
mod hint;
mod hook;
mod inherit;
mod job;
mod lane;
mod leftover;
mod limits;
mod line;
mod link;
mod log_follow;
mod meta;
mod nested;
mod process;
mod register;
mod remove;
mod report;
mod rerun;
mod rescue;
mod retry;
mod rpc;
mod schedule;
mod seed;
mod service;
mod set;
mod signals;
mod snooze;
mod socket;
mod stake;
mod status;
mod stdio;
mod store;
mod supervisor;
mod tables;
mod variable;
mod wait;
mod worker;
