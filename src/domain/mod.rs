//! The terms of asyncq as types, and their rules: services, functions, calls, jobs, attempts and outcomes.
//!
//! Invariant: no SQL, no clap, no clock, no processes, no files but those of the time zones. Tests need only values.

pub mod attempt;
pub mod batch;
pub mod call;
pub mod console;
pub mod cron;
mod cron_field;
mod cron_words;
pub mod due;
pub mod event;
pub mod exit;
pub mod function;
pub mod hook;
pub mod job;
pub mod job_edit;
pub mod job_tick;
pub mod json;
pub mod lane;
pub mod log;
pub mod meta;
pub mod moment;
pub mod name;
pub mod needs;
pub mod nested;
pub mod new_job;
pub mod object;
pub mod processor;
pub mod query;
pub mod rate;
pub mod removal;
pub mod retry;
pub mod retry_policy;
pub mod rpc;
pub mod rpc_fault;
mod rpc_register;
pub mod schedule;
pub mod service;
pub mod size;
pub mod snooze;
pub mod state;
pub mod suggest;
pub mod text;
pub mod tick;
pub mod time;
pub mod timetable;
pub mod zone;
