//! How programs look at jobs and services, wait for them and pause them. `docs/rpc.md` describes it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::json;
use super::job::JobId;
use super::json::Json;
use super::new_job::Rerun;
use super::pattern::{ServicePattern, ServiceSelection};
use super::pause::Pause;
use super::rpc_fault::{RpcFault, check_count, name, parsed, read};
use super::service::ServiceName;
use super::status::ProblemLimits;
use super::time::parse_span;
use crate::error::Result;

/// What a program waits for.
#[derive(Debug)]
pub enum RpcAwaited {
    /// All of these jobs end.
    All(Vec<JobId>),
    /// One of these jobs ends.
    Any(Vec<JobId>),
    /// No call of these services is queued, blocked or running.
    Services(ServiceSelection),
    /// No call runs.
    Nothing,
}

/// What a program asks about jobs and services.
#[derive(Debug)]
pub enum LookRequest {
    /// What is kept of the output of an attempt, or of the latest one that has ended.
    Log(JobId, Option<i64>),
    /// Why a job does not run, or why it ended so.
    Explain(JobId),
    /// An overview of services. The flag says whether everything is counted.
    Status(ServiceSelection, bool),
    /// The problems of services.
    Check(ServiceSelection, ProblemLimits),
}

/// What a program wants to be paused.
#[derive(Debug)]
pub enum PauseRequest {
    /// To pause the whole store. The option says whether the answer waits until nothing runs any longer, and how long it may take.
    Store(Pause, Option<Option<Duration>>),
    /// These services.
    Services(ServiceSelection, Pause),
    /// To end the pause of the whole store.
    ResumeStore,
    /// These services go on.
    ResumeServices(ServiceSelection),
}

/// Parses what a program waits for, and for how long.
pub(super) fn wait(params: &str) -> Result<(RpcAwaited, Option<Duration>), RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WaitParams {
        jobs: Option<Vec<i64>>,
        any: Option<bool>,
        service: Option<String>,
        timeout: Option<f64>,
    }
    let WaitParams { jobs, any, service, timeout } = read(params)?;
    let timeout = time_limit(timeout)?;
    let refuse = |flaw: &str| Err(RpcFault::params(format!("wrong params: {flaw}")));
    let awaited = match (jobs, service) {
        (None, None) => return refuse("`jobs` is missing"),
        (Some(_), Some(_)) => return refuse("`jobs` and `service` exclude each other"),
        (None, Some(_)) if any.is_some() => return refuse("`any` needs `jobs`"),
        (None, Some(service)) => RpcAwaited::Services(ServiceSelection::only(name(ServiceName::parse(&service))?)),
        (Some(jobs), None) => {
            check_count("jobs", &jobs)?;
            let is_any = any.unwrap_or_default();
            if is_any && jobs.is_empty() {
                return refuse("`jobs` is empty, so none of them can end");
            }
            let jobs = jobs.into_iter().map(JobId).collect();
            if is_any { RpcAwaited::Any(jobs) } else { RpcAwaited::All(jobs) }
        }
    };
    Ok((awaited, timeout))
}

/// The time after which a program no longer waits.
fn time_limit(timeout: Option<f64>) -> Result<Option<Duration>, RpcFault> {
    match timeout {
        Some(seconds) if seconds < 0.0 => {
            Err(RpcFault::params("wrong params: `timeout` has to be a number of seconds from 0"))
        }
        // If it is too long for the clock, it is as good as forever.
        seconds => Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())),
    }
}

/// Parses which job a program calls again, and what is different.
pub(super) fn rerun(params: &str) -> Result<(JobId, Rerun), RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RerunParams<'a> {
        job: i64,
        #[serde(borrow)]
        args: Option<&'a RawValue>,
        #[serde(borrow)]
        kwargs: Option<&'a RawValue>,
    }
    let RerunParams { job, args, kwargs } = read(params)?;
    let args = args.map(|args| json("args", args.get(), Json::is_array, "an array, as in [2,7]"));
    let kwargs = kwargs.map(|kwargs| json("kwargs", kwargs.get(), Json::is_object, r#"an object, as in {"to":"bob"}"#));
    let (args, kwargs) = (name(args.transpose())?, name(kwargs.transpose())?);
    Ok((JobId(job), Rerun { args, kwargs, ..Rerun::default() }))
}

/// Parses which log a program asks for.
pub(super) fn log(params: &str) -> Result<LookRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LogParams {
        job: i64,
        attempt: Option<i64>,
    }
    let LogParams { job, attempt } = read(params)?;
    Ok(LookRequest::Log(JobId(job), attempt))
}

/// Parses which services a program wants an overview of.
pub(super) fn status(params: &str) -> Result<LookRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct StatusParams {
        services: Option<Vec<String>>,
        except: Option<Vec<String>>,
        exact: Option<bool>,
    }
    let StatusParams { services, except, exact } = read(params)?;
    Ok(LookRequest::Status(selection(services, except)?, exact.unwrap_or_default()))
}

/// Parses which problems a program asks for.
pub(super) fn check(params: &str) -> Result<LookRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct CheckParams {
        services: Option<Vec<String>>,
        except: Option<Vec<String>>,
        max_age: Option<String>,
        max_errors: Option<u64>,
    }
    let CheckParams { services, except, max_age, max_errors } = read(params)?;
    let max_age = parsed("max_age", max_age, parse_span);
    let max_age = max_age.map_err(|flaw| RpcFault::params(format!("wrong params: {flaw}")))?;
    let limits = ProblemLimits { max_age: max_age.unwrap_or(ProblemLimits::MAX_AGE), max_errors };
    Ok(LookRequest::Check(selection(services, except)?, limits))
}

/// Parses what a program pauses, or lets go on.
pub(super) fn pause_request(method: &str, params: &str) -> Result<PauseRequest, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct PauseParams {
        why: Option<String>,
        wait: Option<bool>,
        timeout: Option<f64>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ServicesParams {
        services: Vec<String>,
        why: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ResumeParams {
        services: Vec<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoParams {}
    let because =
        |why: Option<String>| name(why.as_deref().map(Pause::because).transpose()).map(Option::unwrap_or_default);
    let some = |services: Vec<String>| {
        if services.is_empty() {
            return Err(RpcFault::params("wrong params: `services` is empty"));
        }
        selection(Some(services), None)
    };
    Ok(match method {
        "pause" => {
            let PauseParams { why, wait, timeout } = read(params)?;
            if timeout.is_some() && wait != Some(true) {
                return Err(RpcFault::params("wrong params: `timeout` needs \"wait\":true"));
            }
            let timeout = time_limit(timeout)?;
            PauseRequest::Store(because(why)?, (wait == Some(true)).then_some(timeout))
        }
        "service.pause" => {
            let ServicesParams { services, why } = read(params)?;
            PauseRequest::Services(some(services)?, because(why)?)
        }
        "service.resume" => PauseRequest::ResumeServices(some(read::<ResumeParams>(params)?.services)?),
        _ => {
            read::<NoParams>(params)?;
            PauseRequest::ResumeStore
        }
    })
}

/// The services that a program names.
fn selection(services: Option<Vec<String>>, except: Option<Vec<String>>) -> Result<ServiceSelection, RpcFault> {
    let patterns = |member: &str, texts: Option<Vec<String>>| {
        let texts = texts.unwrap_or_default();
        check_count(member, &texts)?;
        texts.iter().map(|text| name(ServicePattern::parse(text))).collect::<Result<Vec<_>, _>>()
    };
    Ok(ServiceSelection { services: patterns("services", services)?, except: patterns("except", except)? })
}
