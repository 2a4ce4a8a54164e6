//! How a function is defined, as columns.

use std::{collections::BTreeMap, time::Duration};

use super::columns::Column;
use super::engine::{Row, Value, damaged};
use super::hook;
use crate::domain::function::{Args, CallFormat, Definition, FunctionPolicy, Inputs, Stdin};
use crate::domain::hook::{HookKind, Hooks};
use crate::domain::lane::Lane;
use crate::domain::object;
use crate::domain::secret::Secrets;
use crate::domain::signature::Signature;
use crate::domain::time::millis;
use crate::error::{Error, Result};

/// A definition as it is stored.
pub(super) struct Columns<'a> {
    is: &'a Definition,
    command: String,
    env: String,
    worker: Option<String>,
    retry: Option<String>,
    hooks: [Option<String>; HookKind::ALL.len()],
    takes: Option<String>,
    secret: Option<String>,
}

impl Columns<'_> {
    /// These columns of a definition.
    pub(super) fn of(is: &Definition) -> Columns<'_> {
        let text = |json: serde_json::Result<String>| json.unwrap_or_else(|_| "{}".to_owned());
        Columns {
            is,
            command: serde_json::Value::from(is.command.clone()).to_string(),
            env: text(serde_json::to_string(&is.env)),
            worker: is.worker.map(|worker| text(serde_json::to_string(&worker))),
            retry: is.policy.retry.to_json(),
            hooks: hook::texts(&is.policy.hooks),
            takes: is.inputs.takes.as_ref().map(ToString::to_string),
            secret: is.inputs.secret.to_json(),
        }
    }

    /// The parameters of [`ADD`] and [`SET`] after the key.
    pub(super) fn values(&self) -> [Value<'_>; 19] {
        let Definition { site, timeout, call_format, inputs, policy, generation, .. } = self.is;
        let (command, env, worker) = (&self.command, &self.env, self.worker.as_ref());
        let (args, stdin) = (call_format.args().as_str(), call_format.stdin().as_str());
        let timeout = timeout.map(millis);
        [
            command.into(),
            site.into(),
            env.into(),
            timeout.into(),
            worker.into(),
            args.into(),
            stdin.into(),
            (*generation).into(),
            policy.lane.as_ref().map(Lane::as_str).into(),
            self.retry.as_ref().into(),
            self.hooks[0].as_ref().into(),
            self.hooks[1].as_ref().into(),
            policy.is_local.into(),
            self.takes.as_ref().into(),
            inputs.takes.as_ref().map(Signature::least).into(),
            inputs.takes.as_ref().and_then(Signature::most).into(),
            self.secret.as_ref().into(),
            inputs.env_file.as_ref().into(),
            policy.is_merged.into(),
        ]
    }
}

/// The error for a function that cannot be read.
pub(super) fn broken(row: &dyn Row, what: &str) -> Error {
    let [service, name] = [0, 1].map(|column| row.str(column).unwrap_or_default());
    damaged(&format!("function `{name}` of service `{service}`: {what}"))
}

/// Reads a definition from the columns of a function.
pub(super) fn read_definition(row: &dyn Row) -> Result<Definition> {
    let env = match row.str(4)? {
        "{}" => BTreeMap::new(),
        env => serde_json::from_str(env).map_err(|_| broken(row, "its environment is not an object of strings"))?,
    };
    let plain = Definition {
        command: serde_json::from_str(row.str(2)?)
            .map_err(|_| broken(row, "its command is not an array of strings"))?,
        site: row.str(3)?.to_owned(),
        env,
        timeout: None,
        worker: None,
        call_format: CallFormat::default(),
        inputs: Inputs::default(),
        policy: FunctionPolicy::default(),
        generation: row.i64(10)?,
    };
    // Each claim reads a definition, and each column that it asks for costs: most functions have none of the others.
    if row.bool(20)? { add_options(row, plain) } else { Ok(plain) }
}

/// Adds what a function need not have.
fn add_options(row: &dyn Row, plain: Definition) -> Result<Definition> {
    let worker = row.text(6)?.map(object::read).transpose();
    let retry = row.text(12)?.map(object::read).transpose();
    Ok(Definition {
        timeout: row.int(5)?.map(|millis| Duration::from_millis(millis.unsigned_abs())),
        worker: worker.map_err(|fault| broken(row, &format!("how its worker is kept: {fault}")))?,
        call_format: Args::from_name(row.str(8)?)
            .zip(Stdin::from_name(row.str(9)?))
            .and_then(|(args, stdin)| CallFormat::new(args, stdin).ok())
            .ok_or_else(|| broken(row, "how it gets its calls is unknown"))?,
        inputs: Inputs {
            takes: row.text(16)?.map(Signature::parse).transpose().map_err(|error| broken(row, &error.to_string()))?,
            secret: match row.text(17)? {
                None => Secrets::default(),
                Some(text) => Secrets::from_json(text)
                    .ok_or_else(|| broken(row, "its secret arguments are not an array of names and places"))?,
            },
            env_file: row.text(18)?.map(str::to_owned),
        },
        policy: FunctionPolicy {
            lane: row.text(11)?.map(Lane::parse).transpose().map_err(|error| broken(row, &error.to_string()))?,
            retry: retry.map_err(|fault| broken(row, &format!("how it is retried: {fault}")))?.unwrap_or_default(),
            hooks: Hooks::read(row, &mut 13).map_err(|error| broken(row, &error.to_string()))?,
            is_local: row.bool(15)?,
            is_merged: row.bool(19)?,
        },
        ..plain
    })
}
