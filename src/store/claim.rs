//! Claiming calls: the most urgent ones that are ready, with all that is needed to run them.

use std::collections::HashMap;

use super::drain::Plan;
use super::engine::{Row, Tx};
use super::{function, one};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::call::{Call, Principal};
use crate::domain::function::{Definition, FunctionName};
use crate::domain::job::{Claim, Fence, JobId, Token};
use crate::domain::json::Json;
use crate::domain::service::ServiceName;
use crate::error::Result;

/// How many delayed calls one transaction makes ready.
const PROMOTE_STEP: i64 = 1000;

const PROMOTE: &str = "UPDATE asyncq_job SET state = 'queued' WHERE id IN (
    SELECT id FROM asyncq_job WHERE state = 'delayed' AND service = ?1 AND run_at <= ?2 ORDER BY run_at LIMIT ?3)";
pub(super) const NEXT: &str = "SELECT id FROM asyncq_job WHERE state = 'queued' AND service = ?1
    ORDER BY priority, run_at, id LIMIT ?2";
const TAKE: &str = "UPDATE asyncq_job SET state = 'processing', attempt = attempt + 1, processor = ?2, token = ?3,
    started_at = ?4 WHERE id = ?1 RETURNING attempt, function, args, kwargs, principal, site, conflicts";
const LARGE: &str = "SELECT args, kwargs FROM asyncq_large WHERE job = ?1";

/// Makes due calls of a service ready, and claims as many as there is room for.
pub(super) fn claim(tx: &mut dyn Tx, plan: &Plan<'_>, room: usize) -> Result<Vec<Claim>> {
    if room == 0 {
        return Ok(Vec::new());
    }
    let name = plan.service.as_str();
    let now = tx.now();
    tx.execute(PROMOTE, &[name.into(), now.into(), PROMOTE_STEP.into()])?;
    let limit = i64::try_from(room).unwrap_or(i64::MAX);
    let ids = tx.all(NEXT, &[name.into(), limit.into()], |row| row.i64(0).map(JobId))?;
    let mut definitions = HashMap::new();
    let mut claims = Vec::with_capacity(ids.len());
    for (id, token) in ids.into_iter().zip(plan.tokens) {
        claims.push(take(tx, plan, id, token, &mut definitions)?);
    }
    Ok(claims)
}

fn take(
    tx: &mut dyn Tx,
    plan: &Plan<'_>,
    id: JobId,
    token: &Token,
    definitions: &mut HashMap<String, Option<Definition>>,
) -> Result<Claim> {
    let now = tx.now();
    let args = [id.0.into(), plan.processor.0.into(), token.as_str().into(), now.into()];
    let stored = one(tx.first(TAKE, &args, |row| {
        Ok(Stored {
            attempt: row.i64(0)?,
            function: row.lossy(1)?.unwrap_or_default(),
            args: row.bytes(2)?.map(<[u8]>::to_vec),
            kwargs: row.bytes(3)?.map(<[u8]>::to_vec),
            principal: row.bytes(4)?.map(<[u8]>::to_vec),
            site: row.bytes(5)?.map(<[u8]>::to_vec),
            conflicts: row.i64(6)?,
        })
    })?)?;
    let stored = stored.with_large(tx, id)?;
    let definition = if let Some(known) = definitions.get(&stored.function) {
        known.clone()
    } else {
        let found = function::definition(tx, plan.service.as_str(), &stored.function)?;
        definitions.insert(stored.function.clone(), found.clone());
        found
    };
    Ok(Claim {
        fence: Fence { job: id, attempt: stored.attempt, processor: plan.processor },
        token: token.clone(),
        call: stored.call(plan.service),
        definition,
        conflicts: stored.conflicts,
        service: plan.service.clone(),
        function: stored.function,
    })
}

/// A call as a client may have stored it: what the triggers cannot check cheaply is checked here.
struct Stored {
    attempt: i64,
    function: String,
    args: Option<Vec<u8>>,
    kwargs: Option<Vec<u8>>,
    principal: Option<Vec<u8>>,
    site: Option<Vec<u8>>,
    conflicts: i64,
}

impl Stored {
    fn with_large(mut self, tx: &mut dyn Tx, id: JobId) -> Result<Stored> {
        if self.args.is_none() {
            let bytes = |row: &dyn Row, column| Ok(row.bytes(column)?.map(<[u8]>::to_vec));
            let large = tx.first(LARGE, &[id.0.into()], |row| Ok((bytes(row, 0)?, bytes(row, 1)?)))?;
            (self.args, self.kwargs) = large.unwrap_or_default();
        }
        Ok(self)
    }

    fn call(&self, service: &ServiceName) -> Result<Call, Failure> {
        let bad = |what: &str, why: &str| Failure::new(FailureKind::BadCall, format!("{what}: {why}"));
        let text = |what, bytes: &Option<Vec<u8>>| {
            let bytes = bytes.clone().map(String::from_utf8).transpose();
            bytes.map_err(|_| bad(what, "bytes that are no UTF-8"))
        };
        let json = |what, bytes| {
            let text = text(what, bytes)?.ok_or_else(|| bad(what, "missing"))?;
            Json::parse(&text).map_err(|flaw| bad(what, &flaw.to_string()))
        };
        let principal = text("principal", &self.principal)?;
        let site = text("site", &self.site)?;
        let call = Call {
            service: service.clone(),
            function: FunctionName::parse(&self.function).map_err(|error| bad("function", &error.to_string()))?,
            args: json("args", &self.args)?,
            kwargs: json("kwargs", &self.kwargs)?,
            principal: principal
                .map(|text| Principal::parse(&text).map_err(|error| bad("principal", &error.to_string())))
                .transpose()?,
            site,
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
