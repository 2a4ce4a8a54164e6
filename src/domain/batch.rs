//! A call as one line of JSON, as in a batch.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::call::{Call, Key, OnBehalfOf};
use super::job::{NewJob, Origin};
use super::json::{Json, MAX_BYTES};
use super::{function::FunctionName, object, service::ServiceName};
use crate::error::{Error, Kind, Result};

/// The longest line that can be a call, in bytes: room for positional and keyword arguments, and for everything else.
pub const LONGEST_LINE: usize = 2 * MAX_BYTES + 64 * 1024;

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
    #[serde(default, deserialize_with = "principal")]
    principal: Option<String>,
    key: Option<String>,
    hold: Option<bool>,
}

/// Distinguishes a principal of `null`, which means nobody, from one that is left out.
fn principal<'a, D: Deserializer<'a>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

/// Parses one line, for a call that is made at `origin`. `hold` says whether the job is held, unless the line says so.
///
/// # Errors
/// [`Kind::Invalid`] when it is not a call; [`Kind::Denied`] for a principal where none is allowed.
pub fn parse(line: &str, origin: &Origin, hold: bool) -> Result<NewJob> {
    let line: BatchLine<'_> = object::read(line).map_err(|fault| {
        Error::new(Kind::Invalid, format!("not a call in JSON: {fault}"))
            .with_hint(r#"write {"service":"events","function":"mail","args":[2,7]}"#)
    })?;
    let on_behalf_of = line.principal.as_deref().map(OnBehalfOf::parse).transpose()?.unwrap_or_default();
    let principal = origin.principal(on_behalf_of).map_err(|error| error.with_hint("leave `principal` out"))?;
    let (args, kwargs) = (line.args.map_or("[]", RawValue::get), line.kwargs.map_or("{}", RawValue::get));
    let call = Call {
        service: ServiceName::parse(&line.service)?,
        function: FunctionName::parse(&line.function)?,
        args: json("args", args, Json::is_array, "an array, as in [2,7]")?,
        kwargs: json("kwargs", kwargs, Json::is_object, r#"an object, as in {"to":"bob"}"#)?,
        principal,
        site: None,
    };
    let key = line.key.as_deref().map(Key::parse).transpose()?;
    Ok(origin.job(call, key, line.hold.unwrap_or(hold)))
}

fn json(name: &str, text: &str, fits: fn(&Json) -> bool, expected: &str) -> Result<Json> {
    match Json::parse(text) {
        Ok(json) if fits(&json) => Ok(json),
        Ok(_) => Err(Error::new(Kind::Invalid, format!("`{name}` is not {expected}"))),
        Err(fault) => Err(Error::new(Kind::Invalid, format!("`{name}`: {fault}"))),
    }
}
