//! Services that a program defines, and functions that it registers. `docs/rpc.md` describes them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::function::{FunctionName, InputChange, PolicyChange, WantedFunction, WorkerLimits};
use super::hook::{HookChange, HookTarget};
use super::lane::{Lane, MAX_WIDTH};
use super::object;
use super::rate::Rate;
use super::retention::RetentionChange;
use super::retry_policy::{Backoff, FailureList, RetryChange};
use super::rpc_fault::{RpcFault, check_count, name, parsed, present, read};
use super::secret::Secrets;
use super::service::{ServiceChange, ServiceName};
use super::signature::Signature;

/// Parses which service a program wants, and what limits and hooks it has.
pub(super) fn define(params: &str) -> Result<(ServiceName, ServiceChange), RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct DefineParams<'a> {
        #[serde(borrow)]
        service: Cow<'a, str>,
        concurrency: Option<u32>,
        lane_width: Option<u32>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a rate, none, or as it is")]
        rate: Option<Option<String>>,
        burst: Option<u32>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a time, for ever, or as it is")]
        keep: Option<Option<f64>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a time, for ever, or as it is")]
        keep_errors: Option<Option<f64>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a hook, none, or as it is")]
        on_error: Option<Option<String>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a hook, none, or as it is")]
        on_success: Option<Option<String>>,
    }
    let params: DefineParams<'_> = read(params)?;
    let wrong = |flaw: String| RpcFault::params(format!("wrong params: {flaw}"));
    let number = |member: &str, number: Option<u32>, most: u32| {
        let Some(number) = number else { return Ok(None) };
        let found = NonZeroU32::new(number).filter(|number| number.get() <= most);
        found.map(Some).ok_or_else(|| wrong(format!("`{member}` has to be a whole number from 1 to {most}")))
    };
    let burst = number("burst", params.burst, Rate::LARGEST_BURST)?;
    let rate = match params.rate {
        None if burst.is_some() => return Err(wrong("`burst` needs `rate`".to_owned())),
        None => None,
        Some(rate) => {
            let rate = parsed("rate", rate, Rate::parse).map_err(wrong)?;
            Some(rate.map(|rate| burst.map_or(rate, |burst| rate.with_burst(burst.get()))))
        }
    };
    let hooks = HookChange {
        on_error: hook("on_error", params.on_error).map_err(wrong)?,
        on_success: hook("on_success", params.on_success).map_err(wrong)?,
    };
    let span = |member: &str, seconds: Option<Option<f64>>| {
        let parse = |seconds| self::span(member, seconds).map_err(wrong);
        seconds.map(|seconds| seconds.map(parse).transpose()).transpose()
    };
    let retention =
        RetentionChange { ended: span("keep", params.keep)?, errors: span("keep_errors", params.keep_errors)? };
    let wanted = ServiceChange {
        concurrency: number("concurrency", params.concurrency, u32::MAX)?,
        lane_width: number("lane_width", params.lane_width, MAX_WIDTH)?,
        rate,
        hooks,
        retention,
        ..ServiceChange::default()
    };
    Ok((name(ServiceName::parse(&params.service))?, wanted))
}

/// Parses which functions a program registers, and whether they may be changed.
pub(super) fn register(params: &str) -> Result<(Vec<WantedFunction>, bool), RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RegisterParams<'a> {
        #[serde(borrow)]
        functions: Vec<&'a RawValue>,
        change: Option<bool>,
    }
    let RegisterParams { functions, change } = read(params)?;
    check_count("functions", &functions)?;
    let functions = functions.into_iter().enumerate().map(|(index, function)| {
        wanted(function.get()).map_err(|flaw| match flaw {
            Ok(fault) => fault,
            Err(flaw) => RpcFault::params(format!("wrong params: `functions[{index}]`: {flaw}")),
        })
    });
    Ok((functions.collect::<Result<_, _>>()?, change.unwrap_or_default()))
}

/// A function that a program registers. The error is a fault, or what is wrong with the object.
fn wanted(function: &str) -> Result<WantedFunction, Result<RpcFault, String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct FunctionParams<'a> {
        #[serde(borrow)]
        service: Cow<'a, str>,
        #[serde(borrow)]
        name: Cow<'a, str>,
        command: Option<Vec<String>>,
        site: Option<String>,
        #[serde(default)]
        env: Option<BTreeMap<String, String>>,
        #[serde(borrow)]
        worker: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a limit, none, or as it is")]
        timeout: Option<Option<f64>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a signature, none, or as it is")]
        takes: Option<Option<String>>,
        #[serde(borrow)]
        secret: Option<&'a RawValue>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a file, none, or as it is")]
        env_file: Option<Option<String>>,
        retries: Option<u32>,
        backoff: Option<String>,
        retry_on: Option<String>,
        no_retry_on: Option<String>,
        conflicts: Option<NonZeroU32>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a lane, none, or as it is")]
        lane: Option<Option<String>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a hook, none, or as it is")]
        on_error: Option<Option<String>>,
        #[serde(default, deserialize_with = "present")]
        #[expect(clippy::option_option, reason = "a hook, none, or as it is")]
        on_success: Option<Option<String>>,
    }
    let function: FunctionParams<'_> = object::read(function).map_err(Err)?;
    let timeout = function.timeout.map(|limit| limit.map(|seconds| span("timeout", seconds)).transpose());
    let list = |member, text: Option<String>| parsed(member, text, FailureList::parse);
    let retry = RetryChange {
        none: false,
        retries: function.retries,
        backoff: parsed("backoff", function.backoff, Backoff::parse).map_err(Err)?,
        on: list("retry_on", function.retry_on).map_err(Err)?,
        not_on: list("no_retry_on", function.no_retry_on).map_err(Err)?,
        conflicts: function.conflicts,
    };
    if let Some(member) = retry.idle_member() {
        return Err(Err(format!("`{member}` says nothing about a function without `retries`")));
    }
    let hooks = HookChange {
        on_error: hook("on_error", function.on_error).map_err(Err)?,
        on_success: hook("on_success", function.on_success).map_err(Err)?,
    };
    let lane = function.lane.map(|lane| parsed("lane", lane, Lane::parse)).transpose().map_err(Err)?;
    let takes = function.takes.map(|takes| parsed("takes", takes, Signature::parse)).transpose().map_err(Err)?;
    let secret = function.secret.map(|secret| secrets(secret.get())).transpose().map_err(Err)?;
    Ok(WantedFunction {
        inputs: InputChange { takes, secret, env_file: function.env_file },
        policy: PolicyChange { lane, retry, hooks, is_local: None, is_merged: None },
        service: name(ServiceName::parse(&function.service)).map_err(Ok)?,
        name: name(FunctionName::parse(&function.name)).map_err(Ok)?,
        command: function.command,
        site: function.site,
        env: function.env.unwrap_or_default(),
        timeout: timeout.transpose().map_err(Err)?,
        worker: function.worker.map(|worker| limits(worker.get())).transpose().map_err(Err)?,
    })
}

/// Secret arguments, each as a name or a place.
fn secrets(json: &str) -> Result<Secrets, String> {
    let wrong = || "`secret` has to be an array of names of arguments, and of places counted from 1".to_owned();
    let read = Secrets::from_json(json).ok_or_else(wrong)?;
    Secrets::parse(&read.words().collect::<Vec<_>>()).map_err(|error| format!("`secret`: {error}"))
}

/// The change of a hook: another one, none, or no change.
#[expect(clippy::option_option, reason = "a hook, none, or as it is")]
fn hook(member: &str, text: Option<Option<String>>) -> Result<Option<Option<HookTarget>>, String> {
    text.map(|text| parsed(member, text, HookTarget::parse)).transpose()
}

/// How a program is kept: as a worker with these limits, or not at all.
fn limits(worker: &str) -> Result<Option<WorkerLimits>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WorkerParams {
        calls: Option<u64>,
        idle: Option<f64>,
        growth: Option<u64>,
    }
    match worker {
        "true" => return Ok(Some(WorkerLimits::default())),
        "false" => return Ok(None),
        _ => {}
    }
    let WorkerParams { calls, idle, growth } =
        object::read(worker).map_err(|flaw| format!("`worker`: {flaw}; or true or false"))?;
    for (member, limit) in [("calls", calls), ("growth", growth)] {
        // As the store keeps it.
        if limit.is_some_and(|limit| limit == 0 || i64::try_from(limit).is_err()) {
            return Err(format!("`{member}` has to be a whole number from 1 to {}", i64::MAX));
        }
    }
    Ok(Some(WorkerLimits { calls, idle: idle.map(|seconds| span("idle", seconds)).transpose()?, growth }))
}

/// A span in whole milliseconds, as the store keeps it.
fn span(member: &str, seconds: f64) -> Result<Duration, String> {
    let longest = Duration::from_secs(100 * 366 * 24 * 3600);
    let span = Duration::try_from_secs_f64(seconds).ok().filter(|span| span.as_millis() > 0 && *span <= longest);
    let span =
        span.ok_or_else(|| format!("`{member}` has to be a number of seconds, from 0.001 to a hundred years"))?;
    Ok(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}
