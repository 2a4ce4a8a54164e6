//! A call as an object in JSON: a line of a batch, or a call in a request to enqueue.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::call::{Call, Key, OnBehalfOf};
use super::job::JobId;
use super::json::{Json, MAX_BYTES};
use super::lane::Lane;
use super::meta::Meta;
use super::needs::{Needed, Needs};
use super::new_job::{CallOptions, Due, Expiry, IfTaken, KeyUntil, NewJob, Origin, Priority};
use super::time::{NO_SPAN, Timestamp, parse_span};
use super::{function::FunctionName, object, service::ServiceName, text::escape_control};
use crate::error::{Error, Kind, Result};

/// The longest line that can be a call, in bytes. It has room for positional and keyword arguments, and for everything else.
pub const LONGEST_LINE: usize = 2 * MAX_BYTES + 64 * 1024;

/// The earliest moment at which a call can be due. The schema refuses earlier ones, which are seconds instead of milliseconds.
const FIRST: Timestamp = Timestamp(100_000_000_000);

/// A call as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenCall<'a> {
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
    site: Option<String>,
    priority: Option<i64>,
    at: Option<String>,
    #[serde(rename = "in")]
    delay: Option<String>,
    lane: Option<String>,
    name: Option<String>,
    expires: Option<String>,
    key_until: Option<String>,
    if_taken: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    /// The attempt inside which a request makes the call. A line of a batch cannot have it.
    #[serde(borrow)]
    pub(super) inside: Option<&'a RawValue>,
}

/// Distinguishes a principal of `null`, which means nobody, from a missing one.
fn principal<'a, D: Deserializer<'a>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

impl<'a> WrittenCall<'a> {
    /// Parses one of many calls.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub fn read(text: &'a str) -> Result<WrittenCall<'a>, String> {
        let call: WrittenCall<'_> = object::read(text)?;
        if call.inside.is_some() { Err("`inside` is not known".to_owned()) } else { Ok(call) }
    }

    /// The name that later calls can use for this one.
    pub fn take_name(&mut self) -> Option<String> {
        self.name.take()
    }

    /// Refuses members about a key if there is no key.
    fn check_key(&self) -> Result<()> {
        let refuse = |member: &str, needed: &str| {
            Err(Error::new(Kind::Invalid, format!("`{member}` needs `{needed}`"))
                .with_hint(r#"write "key":"reindex","key_until":"started","if_taken":"replace""#))
        };
        match (&self.key, &self.key_until, &self.if_taken) {
            (None, Some(_), _) => refuse("key_until", "key"),
            (_, None, Some(_)) => refuse("if_taken", "key_until"),
            _ => Ok(()),
        }
    }

    /// The job for this call, made at `origin`. `hold` says whether the job is held, unless the call says it itself.
    ///
    /// # Errors
    /// [`Kind::Invalid`] or [`Kind::Usage`] for what is impossible, [`Kind::Denied`] for a principal where none is allowed.
    pub fn job(self, origin: &Origin, hold: bool) -> Result<NewJob> {
        self.check_key()?;
        let on_behalf_of = self.principal.as_deref().map(OnBehalfOf::parse).transpose()?.unwrap_or_default();
        let principal = origin.principal(on_behalf_of).map_err(|error| error.with_hint("leave `principal` out"))?;
        let (args, kwargs) = (self.args.map_or("[]", RawValue::get), self.kwargs.map_or("{}", RawValue::get));
        let call = Call {
            service: ServiceName::parse(&self.service)?,
            function: FunctionName::parse(&self.function)?,
            args: json("args", args, Json::is_array, "an array, as in [2,7]")?,
            kwargs: json("kwargs", kwargs, Json::is_object, r#"an object, as in {"to":"bob"}"#)?,
            principal,
            site: self.site.map(site).transpose()?,
            is_typed: false,
        };
        origin.job(NewJob {
            key: self.key.as_deref().map(Key::parse).transpose()?,
            hold: self.hold.unwrap_or(hold),
            due: due(self.at.as_deref(), self.delay.as_deref())?,
            options: CallOptions {
                priority: self.priority.map(priority).transpose()?.unwrap_or_default(),
                lane: self.lane.as_deref().map(Lane::parse).transpose()?,
                expires: self.expires.as_deref().map(expiry).transpose()?,
                key_until: self
                    .key_until
                    .as_deref()
                    .map(|text| named("key_until", text, KeyUntil::from_name))
                    .transpose()?,
                if_taken: self
                    .if_taken
                    .as_deref()
                    .map(|text| named("if_taken", text, IfTaken::from_name))
                    .transpose()?
                    .unwrap_or_default(),
                meta: self.meta.map(meta).transpose()?.flatten(),
                needs: self.after.map(|after| Needs::parse_json(after.get())).transpose()?.unwrap_or_default(),
            },
            ..NewJob::new(call)
        })
    }
}

/// Parses one line, for a call that is made at `origin`. `hold` says whether the job is held, unless the line says it itself. Also
/// returns the name of the line.
///
/// # Errors
/// [`Kind::Invalid`] when it is not a call; [`Kind::Denied`] for a principal where none is allowed.
pub fn parse(line: &str, origin: &Origin, hold: bool) -> Result<(NewJob, Option<String>)> {
    let mut call = WrittenCall::read(line).map_err(|fault| {
        Error::new(Kind::Invalid, format!("not a call in JSON: {fault}"))
            .with_hint(r#"write {"service":"events","function":"mail","args":[2,7]}"#)
    })?;
    let name = call.take_name();
    Ok((call.job(origin, hold)?, name))
}

/// Finds the calls that others need by name: earlier ones of `calls`, each with its name, or known jobs.
///
/// # Errors
/// The call that is wrong, counted from 0, and why: [`Kind::Invalid`] for a name that no earlier call has, or two of them; and as
/// for [`Needs::add`](super::needs::Needs::add).
pub fn resolve_names(
    calls: &mut [NewJob],
    names: &[Option<&str>],
    known: &BTreeMap<String, JobId>,
) -> Result<(), (usize, Error)> {
    let mut here: HashMap<&str, usize> = HashMap::new();
    for (index, (call, name)) in calls.iter_mut().zip(names).enumerate() {
        let find = |name: &str| match here.get(name) {
            Some(index) => Some(Needed::Earlier(*index)),
            None => known.get(name).copied().map(Needed::Job),
        };
        call.options.needs.resolve_names(find).map_err(|error| (index, error))?;
        if let Some(name) = name
            && (known.contains_key(*name) || here.insert(name, index).is_some())
        {
            let message = format!("an earlier line has the name `{}`, too", escape_control(name));
            return Err((index, Error::new(Kind::Invalid, message).with_hint("give each line a name of its own")));
        }
    }
    Ok(())
}

pub(super) fn json(name: &str, text: &str, fits: fn(&Json) -> bool, expected: &str) -> Result<Json> {
    match Json::parse(text) {
        Ok(json) if fits(&json) => Ok(json),
        Ok(_) => Err(Error::new(Kind::Invalid, format!("`{name}` is not {expected}"))),
        Err(fault) => Err(Error::new(Kind::Invalid, format!("`{name}`: {fault}"))),
    }
}

/// The directory of a call. It must be absolute, because nobody knows where a relative path would begin.
pub(super) fn site(text: String) -> Result<String> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(text);
    }
    let message = format!("`site` is `{}`, which is not an absolute path", escape_control(&text));
    Err(Error::new(Kind::Invalid, message).with_hint("a site begins with `/`, as in \"/srv/app\""))
}

/// The priority of a call.
pub(super) fn priority(number: i64) -> Result<Priority> {
    Priority::new(number).ok_or_else(|| {
        let message = format!("`priority` is {number}, which is not {}", Priority::RANGE);
        Error::new(Kind::Invalid, message).with_hint("a call with a smaller priority runs first; 0 is the default")
    })
}

/// The metadata of a call.
pub(super) fn meta(written: &RawValue) -> Result<Option<Meta>> {
    Meta::of(json("meta", written.get(), Json::is_object, r#"an object, as in {"tenant":"acme"}"#)?)
}

/// The value with this name, for a member whose values have names.
fn named<T>(member: &str, text: &str, from_name: fn(&str) -> Option<T>) -> Result<T> {
    from_name(text).ok_or_else(|| {
        let hint = match member {
            "key_until" => "write \"started\" or \"ended\"",
            _ => "write \"keep\", \"replace\" or \"postpone\"",
        };
        Error::new(Kind::Invalid, format!("`{member}` cannot be `{}`", escape_control(text))).with_hint(hint)
    })
}

/// When a call is due.
fn due(at: Option<&str>, delay: Option<&str>) -> Result<Due> {
    match (at, delay) {
        (None, None) => Ok(Due::Now),
        (Some(at), None) => moment("at", "be due", at).map(Due::At),
        (None, Some(span)) => parse_span(span)
            .map(Due::In)
            .map_err(|error| error.reworded(Kind::Invalid, format!("`in` is `{}`: {error}", escape_control(span)))),
        (Some(_), Some(_)) => {
            let message = "`at` and `in` both say when the call is due";
            Err(Error::new(Kind::Invalid, message).with_hint("leave one of them out"))
        }
    }
}

/// When a call expires.
fn expiry(text: &str) -> Result<Expiry> {
    match parse_span(text) {
        Ok(span) => Ok(Expiry::In(span)),
        Err(error) if error.to_string() == NO_SPAN => moment("expires", "expire", text).map(Expiry::At),
        Err(error) => {
            let message = format!("`expires` is `{}`: {error}", escape_control(text));
            Err(error.reworded(Kind::Invalid, message))
        }
    }
}

/// Parses a moment at which a call is due, or expires. It needs an offset, because without one it means different moments on
/// different machines.
fn moment(member: &str, to_be: &str, text: &str) -> Result<Timestamp> {
    let moment = Timestamp::parse(text);
    moment.filter(|at| *at >= FIRST).ok_or_else(|| {
        let text = escape_control(text);
        let message = match moment {
            Some(_) => format!("`{member}` is `{text}`, and no call can {to_be} before {FIRST}"),
            None => format!("`{member}` is `{text}`, which is not a time with its offset from UTC"),
        };
        Error::new(Kind::Invalid, message)
            .with_hint("write it as in \"2026-11-23T22:29:00Z\" or \"2026-11-23T23:29:00+01:00\"")
    })
}
