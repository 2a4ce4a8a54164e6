//! The options of `asyncq function add` and `set`.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

use super::clap_error::{one_of, parse_count, whole_number};
use super::hook_options::HookOptions;
use super::input_options::InputOptions;
use crate::commands::function::{Typed, TypedWorker};
use crate::domain::function::{Args as Passing, PolicyChange, Stdin};
use crate::domain::lane::Lane;
use crate::domain::retry_policy::{Backoff, FailureList, RetryChange};
use crate::domain::size::parse_size;
use crate::domain::time::parse_span;
use crate::error::Error;

/// How a function runs.
#[derive(Debug, Args)]
pub struct DefinitionOptions {
    /// The directory in which it runs; each call follows its links anew [default of `add`: the current one]
    #[arg(long, value_name = "DIR")]
    site: Option<String>,
    /// Record an environment variable, with this value or its current one
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    #[command(flatten)]
    inputs: InputOptions,
    #[command(flatten)]
    worker: WorkerOptions,
    /// How a command gets the arguments of its call: as words, or only on standard input [default of `add`: words]
    #[arg(long, value_name = "HOW", value_parser = one_of(Passing::ALL, Passing::as_str))]
    args: Option<Passing>,
    /// What a command reads on its standard input: its call, or nothing [default of `add`: call]
    #[arg(long, value_name = "WHAT", value_parser = one_of(Stdin::ALL, Stdin::as_str))]
    stdin: Option<Stdin>,
    /// Give a command one pipe for stdout and stderr: its output keeps its exact order, and all of it counts as stdout
    #[arg(long)]
    merge: bool,
    /// How long one run may take, as in 90s or 1h30m
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    timeout: Option<Duration>,
    /// The lane of calls that name none; {principal} in it stands for the principal of the call
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
    /// Only a program that opens the store itself may call it: no server, and no user of a database
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    retry: RetryOptions,
    #[command(flatten)]
    hooks: HookOptions,
}

/// How the program of a worker is kept.
#[derive(Debug, Args)]
struct WorkerOptions {
    /// The program is a worker: it stays and runs one call after another
    #[arg(long)]
    worker: bool,
    /// End a worker after N calls
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    calls_per_worker: Option<u64>,
    /// End a worker that has been idle for this long [default: 1m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span, allow_hyphen_values = true)]
    idle: Option<Duration>,
    /// End a worker that uses this much more memory than at its start, as in 500M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_growth: Option<u64>,
}

impl WorkerOptions {
    fn typed(&self) -> TypedWorker {
        let is = self.worker.then_some(true);
        TypedWorker { is, calls: self.calls_per_worker, idle: self.idle, growth: self.memory_growth }
    }
}

/// When calls that failed are tried again.
#[derive(Debug, Args)]
struct RetryOptions {
    /// How many times to retry a failed call [default of `add`: 0]
    #[arg(long, value_name = "N", value_parser = parse_retries, allow_negative_numbers = true)]
    retries: Option<u32>,
    /// How long to pause before each retry: `1m`, `15s..1h` (twice as long each time), or `1m,10m,1h` [default: 15s..1h]
    #[arg(long, value_name = "SPANS", value_parser = Backoff::parse, allow_hyphen_values = true)]
    backoff: Option<Backoff>,
    /// Which failures to retry: exit codes, as in 1,64-78, and exit, error, signal, timeout, conflict, cannot-run, bad-result or
    /// any [default: exit,error,signal,timeout,conflict]
    #[arg(long, value_name = "LIST", value_parser = FailureList::parse, allow_hyphen_values = true)]
    retry_on: Option<FailureList>,
    /// Failures not to retry, even if --retry-on lists them
    #[arg(long, value_name = "LIST", value_parser = FailureList::parse, allow_hyphen_values = true)]
    no_retry_on: Option<FailureList>,
    /// How many times in all to try a call that reports a conflict, before it counts as failed [default of `add`: 3]
    #[arg(long, value_name = "N", value_parser = parse_conflicts, allow_negative_numbers = true)]
    conflicts: Option<NonZeroU32>,
}

impl RetryOptions {
    fn change(self) -> RetryChange {
        RetryChange {
            none: false,
            retries: self.retries,
            backoff: self.backoff,
            on: self.retry_on,
            not_on: self.no_retry_on,
            conflicts: self.conflicts,
        }
    }
}

impl DefinitionOptions {
    /// The definition as typed, with this program and its first arguments.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) for an invalid lane or secret argument.
    pub fn typed(self, command: Vec<String>) -> Result<Typed, Error> {
        let DefinitionOptions { site, env, inputs, worker, args, stdin, merge, timeout, lane, local, retry, hooks } =
            self;
        let lane = lane.as_deref().map(Lane::parse).transpose()?.map(Some);
        let [is_local, is_merged] = [local, merge].map(|is| is.then_some(true));
        let policy = PolicyChange { lane, retry: retry.change(), hooks: hooks.change(), is_local, is_merged };
        let (worker, inputs) = (worker.typed(), inputs.change()?);
        let (timeout, unset_env) = (timeout.map(Some), Vec::new());
        Ok(Typed { command, site, env, unset_env, timeout, worker, args, stdin, inputs, policy })
    }
}

fn parse_retries(text: &str) -> Result<u32, String> {
    let number = whole_number(text, "a number of retries", 0)?;
    u32::try_from(number).map_err(|_| format!("it is too large: a number of retries is at most {}", u32::MAX))
}

fn parse_conflicts(text: &str) -> Result<NonZeroU32, String> {
    let number = u32::try_from(whole_number(text, "a number of attempts", 1)?).ok().and_then(NonZeroU32::new);
    number.ok_or_else(|| format!("it is too large: a number of attempts is at most {}", u32::MAX))
}
