//! A call as one line of JSON, as batches hold it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call::{Call, Key, Principal};
use super::function::FunctionName;
use super::job::{JobId, NewJob};
use super::json::{Json, MAX_BYTES};
use super::object;
use super::service::ServiceName;
use crate::error::{Error, Kind, Result};

/// The longest line that can be a call, in bytes: positional and keyword arguments, and room for everything else.
pub const LONGEST_LINE: usize = 2 * MAX_BYTES + 64 * 1024;

/// Who makes the calls of a batch: what a line leaves out.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// On whose behalf.
    pub principal: Option<Principal>,
    /// Whether a line may name another principal.
    pub for_others: bool,
    /// Whether the jobs wait until somebody starts them.
    pub hold: bool,
    /// The directory to run in, when it is not the one in which the function was defined.
    pub site: Option<String>,
    /// The operating system's name for who enqueues.
    pub os_user: Option<String>,
    /// The job inside which the calls are made, if any.
    pub parent: Option<JobId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchLine<'a> {
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    function: Cow<'a, str>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow)]
    kwargs: Option<&'a RawValue>,
    #[serde(default)]
    principal: BatchPrincipal,
    key: Option<String>,
    hold: Option<bool>,
}

/// On whose behalf a call is made: `null` is not what was left out.
#[derive(Default, Deserialize, PartialEq)]
#[serde(from = "Option<String>")]
enum BatchPrincipal {
    #[default]
    Callers,
    Nobodys,
    Named(String),
}

impl From<Option<String>> for BatchPrincipal {
    fn from(name: Option<String>) -> BatchPrincipal {
        name.filter(|name| !name.is_empty()).map_or(BatchPrincipal::Nobodys, BatchPrincipal::Named)
    }
}

/// Reads one line.
///
/// # Errors
/// [`Kind::Invalid`] when it is no call; [`Kind::Denied`] for a principal where the caller may not give one.
pub fn parse(line: &str, caller: &Caller) -> Result<NewJob> {
    let line: BatchLine<'_> = object::read(line).map_err(|flaw| {
        Error::new(Kind::Invalid, format!("not a call in JSON: {flaw}"))
            .with_hint(r#"write {"service":"events","function":"mail","args":[2,7]}"#)
    })?;
    let Caller { principal, for_others, hold, site, os_user, parent } = caller.clone();
    if line.principal != BatchPrincipal::Callers && !for_others {
        return Err(Error::new(Kind::Denied, "a call inside a running function has the principal of that function")
            .with_hint("leave `principal` out"));
    }
    let principal = match line.principal {
        BatchPrincipal::Callers => principal,
        BatchPrincipal::Nobodys => None,
        BatchPrincipal::Named(name) => Some(Principal::parse(&name)?),
    };
    let (args, kwargs) = (line.args.map_or("[]", RawValue::get), line.kwargs.map_or("{}", RawValue::get));
    Ok(NewJob {
        call: Call {
            service: ServiceName::parse(&line.service)?,
            function: FunctionName::parse(&line.function)?,
            args: json("args", args, Json::is_array, "an array, as in [2,7]")?,
            kwargs: json("kwargs", kwargs, Json::is_object, r#"an object, as in {"to":"bob"}"#)?,
            principal,
            site,
        },
        key: line.key.as_deref().map(Key::parse).transpose()?,
        hold: line.hold.unwrap_or(hold),
        os_user,
        parent,
    })
}

fn json(name: &str, text: &str, fits: fn(&Json) -> bool, expected: &str) -> Result<Json> {
    match Json::parse(text) {
        Ok(json) if fits(&json) => Ok(json),
        Ok(_) => Err(Error::new(Kind::Invalid, format!("`{name}` is not {expected}"))),
        Err(flaw) => Err(Error::new(Kind::Invalid, format!("`{name}`: {flaw}"))),
    }
}
