//! What is wrong with requests of programs, and how to find it.

use serde::{Deserialize, Deserializer};

use super::object;
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// How many calls, functions or jobs one request names at most.
pub const MOST_ENTRIES: usize = 10_000;

/// Why a message is refused before anything is done.
#[derive(Debug)]
pub struct RpcFault {
    /// What is wrong in general.
    pub what: RpcFlaw,
    /// And in particular.
    pub error: Error,
}

/// What can be wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcFlaw {
    /// It is not JSON.
    Syntax,
    /// It is not a request.
    Form,
    /// No method has this name.
    Method,
    /// The method does not take these parameters.
    Params,
}

impl RpcFault {
    pub(super) fn new(what: RpcFlaw, message: impl Into<String>) -> RpcFault {
        RpcFault { what, error: Error::new(Kind::Invalid, message) }
    }

    pub(super) fn params(message: impl Into<String>) -> RpcFault {
        RpcFault::new(RpcFlaw::Params, message)
    }
}

/// The parameters of a method.
pub(super) fn read<'a, T: Deserialize<'a>>(params: &'a str) -> Result<T, RpcFault> {
    object::read(params).map_err(|flaw| RpcFault::params(format!("wrong params: {flaw}")))
}

/// A name, or why it is none.
pub(super) fn name<T>(parsed: Result<T>) -> Result<T, RpcFault> {
    parsed.map_err(|error| RpcFault { what: RpcFlaw::Params, error })
}

/// The value of a member that is a text, which `parse` understands.
pub(super) fn parsed<T>(
    member: &str,
    text: Option<String>,
    parse: fn(&str) -> crate::error::Result<T>,
) -> Result<Option<T>, String> {
    let Some(text) = text else { return Ok(None) };
    parse(&text).map(Some).map_err(|error| format!("`{member}` cannot be `{}`: {error}", escape_control(&text)))
}

/// Refuses a member of the parameters that has too many entries.
pub(super) fn check_count<T>(member: &str, entries: &[T]) -> Result<(), RpcFault> {
    if entries.len() <= MOST_ENTRIES {
        return Ok(());
    }
    let message =
        format!("wrong params: `{member}` has {} entries, and at most {MOST_ENTRIES} are allowed", entries.len());
    let error = Error::new(Kind::Invalid, message).with_hint("send several requests");
    Err(RpcFault { what: RpcFlaw::Params, error })
}

/// Distinguishes `null` from a missing member.
pub(super) fn present<'a, T: Deserialize<'a>, D: Deserializer<'a>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}
