//! Calls as the store has them. A client may have written them.

use super::columns::groups;
use super::engine::{Tx, one};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::call::{Call, Principal};
use crate::domain::function::FunctionName;
use crate::domain::job::JobId;
use crate::domain::meta::Meta;
use crate::domain::retry::{AttemptCounts, POISON};
use crate::domain::{json::Json, service::ServiceName, time::Timestamp};
use crate::error::Result;

const REST: &str = "SELECT (lane IS NOT NULL OR key_until IS NOT NULL), expires_at, meta, os_user = '' FROM asyncq_job
    WHERE id = ?1";
const LARGE: &str = "SELECT args, kwargs FROM asyncq_large WHERE job = ?1";

/// A call as a client may have stored it. This checks what triggers cannot check cheaply.
pub(super) struct Stored {
    pub(super) id: JobId,
    pub(super) attempt: i64,
    pub(super) claim: i64,
    pub(super) function: String,
    pub(super) args: Option<Vec<u8>>,
    pub(super) kwargs: Option<Vec<u8>>,
    pub(super) principal: Option<Vec<u8>>,
    pub(super) site: Option<Vec<u8>>,
    pub(super) before: AttemptCounts,
    /// 1 if it has anything of the [`Extras`].
    pub(super) has_rest: Option<i64>,
}

/// What few calls have.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) tied: bool,
    pub(super) expires_at: Option<Timestamp>,
    meta: Option<Vec<u8>>,
    /// 1 if asyncq has made it itself.
    pub(super) is_own: Option<i64>,
}

groups! {
    Stored { id, attempt, claim, function, args, kwargs, principal, site, before, has_rest }
    Extras { tied, expires_at, meta, is_own }
}

impl Extras {
    /// Takes the metadata out.
    pub(super) fn meta(self) -> Result<Option<Meta>, Failure> {
        let Some(bytes) = self.meta else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| bad("meta", "bytes that are not UTF-8"))?;
        Meta::stored(text).map_err(|fault| bad("meta", &fault))
    }
}

impl Stored {
    pub(super) fn is_poison(&self) -> bool {
        self.before.crashes >= POISON
    }

    pub(super) fn with_large(mut self, tx: &mut dyn Tx) -> Result<Stored> {
        if self.args.is_none() {
            (self.args, self.kwargs) = tx.row(LARGE, &[self.id.into()])?.unwrap_or_default();
        }
        Ok(self)
    }

    /// The rest of it.
    pub(super) fn rest(&self, tx: &mut dyn Tx) -> Result<Extras> {
        if self.has_rest == Some(1) { one(tx.row(REST, &[self.id.into()])?) } else { Ok(Extras::default()) }
    }

    /// Takes the call out.
    pub(super) fn call(&mut self, service: &ServiceName, function: FunctionName) -> Result<Call, Failure> {
        let text = |what, bytes: &mut Option<Vec<u8>>| {
            let bytes = bytes.take().map(String::from_utf8).transpose();
            bytes.map_err(|_| bad(what, "bytes that are not UTF-8"))
        };
        let json = |what, bytes: &mut Option<Vec<u8>>| {
            let text = text(what, bytes)?.ok_or_else(|| bad(what, "missing"))?;
            Json::take(text).map_err(|fault| bad(what, &fault.to_string()))
        };
        // Applications that do not know NULL leave these empty, and older schemas have kept that.
        let principal = text("principal", &mut self.principal)?.filter(|text| !text.is_empty());
        let site = text("site", &mut self.site)?.filter(|text| !text.is_empty());
        let call = Call {
            service: service.clone(),
            function,
            args: json("args", &mut self.args)?,
            kwargs: json("kwargs", &mut self.kwargs)?,
            principal: principal
                .map(|text| Principal::parse(&text).map_err(|error| bad("principal", &error.to_string())))
                .transpose()?,
            site,
            is_typed: false,
        };
        if !call.args.is_array() {
            return Err(bad("args", "not an array"));
        }
        if !call.kwargs.is_object() {
            return Err(bad("kwargs", "not an object"));
        }
        match &call.site {
            Some(site) if !site.starts_with('/') || site.contains('\0') => Err(bad("site", "not an absolute path")),
            _ => Ok(call),
        }
    }
}

pub(super) fn bad(what: &str, why: &str) -> Failure {
    Failure::new(FailureKind::BadCall, format!("{what}: {why}"))
}
