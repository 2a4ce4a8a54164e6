//! Hooks of functions and services: how they are stored, and why a function that is a hook cannot be removed.

use super::columns::Column;
use super::engine::{Row, Tx, Value, damaged};
use crate::domain::hook::{HookKind, HookTarget, Hooks};
use crate::domain::hook_call::unfit_hook;
use crate::domain::name::{FunctionName, ServiceName};
use crate::domain::signature::Signature;
use crate::error::{Error, Kind, Result};

const TARGET: &str = "SELECT takes FROM asyncq_function WHERE service = ?1 AND name = ?2 /*! FOR KEY SHARE */";
const OF_SERVICE: &str = "SELECT on_error, on_success FROM asyncq_service WHERE name = ?1";
const CALLER: &str = "SELECT service, name FROM asyncq_function
    WHERE (on_error = ?1 OR on_success = ?1) AND NOT (service = ?2 AND name = ?3) ORDER BY service, name LIMIT 1";
const CALLING_SERVICE: &str =
    "SELECT name FROM asyncq_service WHERE on_error = ?1 OR on_success = ?1 ORDER BY name LIMIT 1";
/// The functions and services that have a function as a hook: which hooks these are, and whether it is a service's.
const HOOKED: &str = "SELECT service, name, on_error = ?1, on_success = ?1 FROM asyncq_function
    WHERE on_error = ?1 OR on_success = ?1 ORDER BY service, name";
const HOOKED_BY_SERVICE: &str = "SELECT name, NULL, on_error = ?1, on_success = ?1 FROM asyncq_service
    WHERE on_error = ?1 OR on_success = ?1 ORDER BY name";
/// The same for functions of another service. `?1` is the beginning of their names, and `?2` its length.
const CALLER_OF_SERVICE: &str = "SELECT service, name FROM asyncq_function
    WHERE (substr(on_error, 1, ?2) = ?1 OR substr(on_success, 1, ?2) = ?1) AND service <> ?3
    ORDER BY service, name LIMIT 1";
const CALLING_SERVICE_OF_SERVICE: &str = "SELECT name FROM asyncq_service
    WHERE (substr(on_error, 1, ?2) = ?1 OR substr(on_success, 1, ?2) = ?1) AND name <> ?3 ORDER BY name LIMIT 1";

/// The hooks of a service.
pub(super) fn of_service(tx: &mut dyn Tx, service: &ServiceName) -> Result<Hooks> {
    Ok(tx.row(OF_SERVICE, &[service.into()])?.unwrap_or_default())
}

/// Hooks as they are stored, in the order of [`HookKind::ALL`].
pub(super) fn texts(hooks: &Hooks) -> [Option<String>; HookKind::ALL.len()] {
    HookKind::ALL.map(|kind| hooks.get(kind).map(ToString::to_string))
}

/// Checks that the functions exist that become hooks, and that they take the arguments of hooks. Nobody removes them before the
/// commit.
///
/// # Errors
/// [`Kind::NotFound`] when one does not exist, [`Kind::Denied`] when its signature does not fit.
pub(super) fn find<'a>(tx: &mut dyn Tx, targets: impl IntoIterator<Item = (HookKind, &'a HookTarget)>) -> Result<()> {
    for (kind, target) in targets {
        let HookTarget { service, function } = target;
        let Some(takes) = tx.row::<Option<String>>(TARGET, &[service.into(), function.into()])? else {
            let message = format!("service `{service}` has no function `{function}`, which is to be a hook");
            let hint = format!("`asyncq function list {service}` shows all; add it first");
            return Err(Error::new(Kind::NotFound, message).with_hint(hint));
        };
        let takes = takes.map(|text| Signature::parse(&text)).transpose()?;
        if let Some(refusal) = takes.and_then(|takes| unfit_hook(kind, target, &takes)) {
            return Err(Error::new(Kind::Denied, format!("`{target}` cannot be a hook: {refusal}")).with_hint(AS_HOOK));
        }
    }
    Ok(())
}

/// The way out for a function that is a hook.
const AS_HOOK: &str =
    "a hook gets the number of a job, and service, function, state, kind, message and attempt as keyword arguments";

/// Refuses a signature with which a function that is a hook could no longer be called.
pub(super) fn refuse_signature(
    tx: &mut dyn Tx,
    (service, function): (&ServiceName, &FunctionName),
    takes: &Signature,
) -> Result<()> {
    let target = HookTarget { service: service.clone(), function: function.clone() };
    let unfit: Vec<(HookKind, Error)> =
        HookKind::ALL.into_iter().filter_map(|kind| Some((kind, unfit_hook(kind, &target, takes)?))).collect();
    if unfit.is_empty() {
        return Ok(());
    }
    let (text, mut owners) = (target.to_string(), Vec::new());
    let args: [Value<'_>; 1] = [(&text).into()];
    for sql in [HOOKED, HOOKED_BY_SERVICE] {
        tx.query(sql, &args, &mut |row| {
            let owner = match row.text(1)? {
                Some(name) => format!("function `{name}` of service `{}`", row.str(0)?),
                None => format!("service `{}`", row.str(0)?),
            };
            owners.push((owner, [row.int(2)? == Some(1), row.int(3)? == Some(1)]));
            Ok(())
        })?;
    }
    for (owner, is_hook) in &owners {
        if let Some((_, refusal)) = unfit.iter().find(|(kind, _)| is_hook[*kind as usize]) {
            let message = format!("`{target}` is a hook of {owner}, and could no longer be called: {refusal}");
            return Err(Error::new(Kind::Denied, message).with_hint(AS_HOOK));
        }
    }
    Ok(())
}

/// Refuses to remove a function that is a hook of another function or of a service.
pub(super) fn refuse_removal(tx: &mut dyn Tx, service: &ServiceName, function: &FunctionName) -> Result<()> {
    let target = HookTarget { service: service.clone(), function: function.clone() }.to_string();
    let caller = tx.row(CALLER, &[(&target).into(), service.into(), function.into()])?;
    let calling = tx.row(CALLING_SERVICE, &[(&target).into()])?;
    is_hook(&format!("function `{function}` of service `{service}` is"), caller, calling)
}

/// Refuses to remove a service with a function that is a hook of another service or of one of its functions.
pub(super) fn refuse_removal_of(tx: &mut dyn Tx, service: &ServiceName) -> Result<()> {
    let target = format!("{service}/");
    let args = [(&target).into(), target.len().into(), service.into()];
    let (caller, calling) = (tx.row(CALLER_OF_SERVICE, &args)?, tx.row(CALLING_SERVICE_OF_SERVICE, &args)?);
    is_hook(&format!("a function of service `{service}` is"), caller, calling)
}

fn is_hook(what: &str, caller: Option<(String, String)>, calling: Option<String>) -> Result<()> {
    let (of, set) = match (caller, calling) {
        (Some((service, name)), _) => {
            (format!("function `{name}` of service `{service}`"), format!("function set {service} {name}"))
        }
        (None, Some(service)) => (format!("service `{service}`"), format!("service set {service}")),
        (None, None) => return Ok(()),
    };
    let hint = format!("`asyncq {set}` with `--no-on-error` or `--no-on-success` takes the hook away");
    Err(Error::new(Kind::Denied, format!("{what} a hook of {of}")).with_hint(hint))
}

impl Column for Hooks {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        let mut targets = [None, None];
        for target in &mut targets {
            *target = row.text(*at)?.map(HookTarget::parse).transpose().map_err(|error| damaged(&error.to_string()))?;
            *at += 1;
        }
        Ok(Hooks::new(targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn hooks_are_found_by_their_keys() {
        for sql in [TARGET, OF_SERVICE] {
            let steps = plan(sql);
            assert!(steps.iter().all(|step| step.starts_with("SEARCH ")), "{steps:?}");
        }
    }
}
