//! Requests of programs: JSON-RPC 2.0, one message on each line. `docs/rpc.md` describes them.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::WrittenCall;
use super::function::WantedFunction;
use super::job::{JobId, Token};
use super::json::entries;
use super::new_job::Rerun;
use super::object;
use super::rpc_fault::{RpcFault, RpcFlaw, check_count, present, read};
use super::rpc_look::{LookRequest, PauseRequest, RpcAwaited, check, log, pause_request, rerun, status, wait};
use super::rpc_register::{define, register};
use super::rpc_schedule::{SCHEDULE_METHODS, ScheduleRequest, schedule_request};
use super::service::{ServiceChange, ServiceName};
use super::suggest::nearest;
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// The version of the protocol that this build speaks.
pub const PROTOCOL: u64 = 1;

/// The longest message, in bytes.
pub const LONGEST_MESSAGE: usize = 4 * 1024 * 1024;

/// A message, and what it asks for.
#[derive(Debug)]
pub struct RpcMessage<'a> {
    /// What its answer has to name, as JSON; `None` for a notification, which gets no answer.
    pub id: Option<&'a str>,
    /// The request, or why it is none.
    pub request: Result<RpcRequest<'a>, RpcFault>,
}

/// What a program can ask for.
#[derive(Debug)]
pub enum RpcRequest<'a> {
    /// What this asyncq is.
    Hello,
    /// To enqueue calls.
    Enqueue(RpcCalls<'a>),
    /// To make sure that there is a service like this.
    Define(ServiceName, ServiceChange),
    /// To make sure that there are functions like these, and to change those that differ if the flag says so.
    Register(Vec<WantedFunction>, bool),
    /// To show a job, after a change if there is one.
    Job(JobId, Option<RpcJobChange>),
    /// To call the function of a job again.
    Rerun(JobId, Rerun),
    /// To answer when something is over, or when the time is.
    Wait(RpcAwaited, Option<Duration>),
    /// To look at jobs and services.
    Look(LookRequest),
    /// To pause the store or services, or to end their pauses.
    Pause(PauseRequest),
    /// Something about schedules.
    Schedule(Box<ScheduleRequest>),
}

impl RpcRequest<'_> {
    /// Whether it changes nothing. Then it comes after the calls that were read before it.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        match self {
            RpcRequest::Job(_, change) => change.is_none(),
            RpcRequest::Wait(..) | RpcRequest::Look(_) => true,
            RpcRequest::Schedule(request) => request.only_reads(),
            RpcRequest::Hello
            | RpcRequest::Enqueue(_)
            | RpcRequest::Define(..)
            | RpcRequest::Register(..)
            | RpcRequest::Rerun(..)
            | RpcRequest::Pause(_) => false,
        }
    }
}

/// Changes of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcJobChange {
    /// Cancels it.
    Cancel,
    /// Queues it again.
    Retry,
    /// Releases it.
    Start,
}

/// Calls to enqueue.
#[derive(Debug)]
pub struct RpcCalls<'a> {
    /// The calls, or what is wrong with them.
    pub calls: Vec<Result<WrittenCall<'a>, RpcFault>>,
    /// Whether they came as a list. Then the answer is a list, too.
    pub are_listed: bool,
    /// All of them or none.
    pub atomic: bool,
    /// The attempt inside which they are made.
    pub inside: Option<(JobId, Token)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// The id of a message that does not fit into an [`Envelope`], because its sender wants to know which message is wrong.
#[derive(Deserialize)]
struct IdAlone<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

const METHODS: [&str; 18] = [
    "hello",
    "enqueue",
    "define",
    "register",
    "job",
    "cancel",
    "retry",
    "start",
    "rerun",
    "wait",
    "log",
    "explain",
    "status",
    "check",
    "pause",
    "resume",
    "service.pause",
    "service.resume",
];

/// All methods.
fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.into_iter().chain(SCHEDULE_METHODS)
}

impl<'a> RpcMessage<'a> {
    /// Parses a message.
    #[must_use]
    pub fn parse(text: &'a str) -> RpcMessage<'a> {
        let envelope: Envelope<'_> = match object::read(text) {
            Ok(envelope) => envelope,
            Err(flaw) => return RpcMessage::without_form(text, &flaw),
        };
        let id = envelope.id.map(RawValue::get);
        let refused = |what, message: String| {
            let id = Some(id.filter(|id| is_id(id)).unwrap_or("null"));
            RpcMessage { id, request: Err(RpcFault::new(what, message)) }
        };
        if id.is_some_and(|id| !is_id(id)) {
            return refused(RpcFlaw::Form, "not a request: `id` has to be a number or a string".to_owned());
        }
        if envelope.jsonrpc != "2.0" {
            return refused(RpcFlaw::Form, "not a request: `jsonrpc` has to be \"2.0\"".to_owned());
        }
        let method = envelope.method.as_ref();
        if !methods().any(|known| known == method) {
            let near = nearest(method, methods()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            return refused(RpcFlaw::Method, format!("there is no method `{}`{near}", escape_control(method)));
        }
        RpcMessage { id, request: request(method, envelope.params.map_or("{}", RawValue::get)) }
    }

    /// A message that is longer than [`LONGEST_MESSAGE`].
    #[must_use]
    pub fn too_long() -> RpcMessage<'static> {
        let message = format!("not a request: it is longer than {LONGEST_MESSAGE} bytes");
        let error = Error::new(Kind::Invalid, message).with_hint("send fewer calls in one request");
        RpcMessage { id: Some("null"), request: Err(RpcFault { what: RpcFlaw::Form, error }) }
    }

    /// A message that is not a text, for this reason.
    #[must_use]
    pub fn not_text(error: Error) -> RpcMessage<'static> {
        RpcMessage { id: Some("null"), request: Err(RpcFault { what: RpcFlaw::Syntax, error }) }
    }

    fn without_form(text: &'a str, flaw: &str) -> RpcMessage<'a> {
        if serde_json::from_str::<&RawValue>(text).is_err() {
            let fault = RpcFault::new(RpcFlaw::Syntax, format!("not JSON: {flaw}"));
            return RpcMessage { id: Some("null"), request: Err(fault) };
        }
        let id = object::read::<IdAlone<'_>>(text).ok().and_then(|it| it.id).map(RawValue::get);
        let fault = RpcFault::new(RpcFlaw::Form, format!("not a request: {flaw}"));
        RpcMessage { id: Some(id.filter(|id| is_id(id)).unwrap_or("null")), request: Err(fault) }
    }
}

/// Whether JSON text is a number or a string.
fn is_id(json: &str) -> bool {
    json.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

fn request<'a>(method: &str, params: &'a str) -> Result<RpcRequest<'a>, RpcFault> {
    Ok(match method {
        "hello" => return hello(params),
        "enqueue" => RpcRequest::Enqueue(calls(params)?),
        "define" => {
            let (service, wanted) = define(params)?;
            RpcRequest::Define(service, wanted)
        }
        "register" => {
            let (functions, change) = register(params)?;
            RpcRequest::Register(functions, change)
        }
        "wait" => {
            let (awaited, timeout) = wait(params)?;
            RpcRequest::Wait(awaited, timeout)
        }
        "rerun" => {
            let (job, again) = rerun(params)?;
            RpcRequest::Rerun(job, again)
        }
        "log" => RpcRequest::Look(log(params)?),
        "explain" => RpcRequest::Look(LookRequest::Explain(job(params)?)),
        "status" => RpcRequest::Look(status(params)?),
        "check" => RpcRequest::Look(check(params)?),
        "pause" | "resume" | "service.pause" | "service.resume" => RpcRequest::Pause(pause_request(method, params)?),
        "cancel" => RpcRequest::Job(job(params)?, Some(RpcJobChange::Cancel)),
        "retry" => RpcRequest::Job(job(params)?, Some(RpcJobChange::Retry)),
        "start" => RpcRequest::Job(job(params)?, Some(RpcJobChange::Start)),
        "job" => RpcRequest::Job(job(params)?, None),
        _ => RpcRequest::Schedule(Box::new(schedule_request(method, params)?)),
    })
}

fn hello(params: &str) -> Result<RpcRequest<'_>, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct HelloParams {
        protocol: u64,
    }
    if read::<HelloParams>(params)?.protocol == PROTOCOL {
        return Ok(RpcRequest::Hello);
    }
    Err(RpcFault::params(format!("this asyncq speaks protocol {PROTOCOL}")))
}

fn job(params: &str) -> Result<JobId, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct JobParams {
        job: i64,
    }
    Ok(JobId(read::<JobParams>(params)?.job))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InsideParams {
    job: i64,
    token: String,
}

impl InsideParams {
    /// Parses the member `inside` of the parameters.
    fn read(json: Option<&RawValue>) -> Result<Option<(JobId, Token)>, RpcFault> {
        let Some(json) = json else { return Ok(None) };
        let InsideParams { job, token } =
            object::read(json.get()).map_err(|flaw| RpcFault::params(format!("wrong params: `inside`: {flaw}")))?;
        Ok(Some((JobId(job), Token::from_text(&token))))
    }
}

fn calls(params: &str) -> Result<RpcCalls<'_>, RpcFault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct CallsParams<'a> {
        #[serde(borrow)]
        calls: Vec<&'a RawValue>,
        atomic: Option<bool>,
        #[serde(borrow)]
        inside: Option<&'a RawValue>,
    }
    if !(params.contains("\"calls\"") && entries(params).iter().any(|(name, _)| name == "calls")) {
        let mut call: WrittenCall<'_> = read(params)?;
        let inside = InsideParams::read(call.inside.take())?;
        return Ok(RpcCalls { calls: vec![Ok(call)], are_listed: false, atomic: false, inside });
    }
    let CallsParams { calls, atomic, inside } = read(params)?;
    check_count("calls", &calls)?;
    let calls = calls.into_iter().map(|call| {
        WrittenCall::read(call.get()).map_err(|flaw| RpcFault::params(format!("wrong params: not a call: {flaw}")))
    });
    let (calls, inside) = (calls.collect(), InsideParams::read(inside)?);
    Ok(RpcCalls { calls, are_listed: true, atomic: atomic.unwrap_or_default(), inside })
}
