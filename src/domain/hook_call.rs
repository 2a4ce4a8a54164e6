//! The call of a hook: the arguments of a function that asyncq calls when a job ends.

use serde_json::json;

use super::attempt::{Failure, FailureKind};
use super::call::Call;
use super::hook::{HookKind, HookTarget};
use super::job::JobId;
use super::json::{Json, JsonFault};
use super::signature::Signature;
use super::state::State;
use crate::error::{Error, Result};

/// What a hook learns about a job that has ended.
#[derive(Debug, Clone, Copy)]
pub struct HookedJob<'a> {
    /// The service of the job.
    pub service: &'a str,
    /// Its function.
    pub function: &'a str,
    /// Its state.
    pub state: State,
    /// Why it failed, if it did.
    pub error: Option<&'a Failure>,
    /// The number of its last attempt.
    pub attempt: i64,
}

impl HookedJob<'_> {
    /// The call of a hook after the end of this job.
    ///
    /// # Errors
    /// When the store holds an error that cannot be an argument.
    pub fn call(&self, job: JobId, target: &HookTarget) -> Result<Call, JsonFault> {
        let kwargs = json!({
            "service": self.service,
            "function": self.function,
            "state": self.state.as_str(),
            "kind": self.error.map(|error| error.kind),
            "message": self.error.map(|error| &error.message),
            "attempt": self.attempt,
        });
        let HookTarget { service, function } = target.clone();
        let (args, kwargs) = (Json::parse(&json!([job.0]).to_string())?, Json::parse(&kwargs.to_string())?);
        Ok(Call::new(service, function, args, kwargs))
    }
}

/// Why a function with this signature cannot be a hook of this kind, if it cannot.
#[must_use]
pub fn unfit_hook(kind: HookKind, target: &HookTarget, takes: &Signature) -> Option<Error> {
    let failure = Failure::new(FailureKind::Exit, "exit code 1");
    let (state, error) = match kind {
        HookKind::OnError => (State::Error, Some(&failure)),
        HookKind::OnSuccess => (State::Completed, None),
    };
    let ended = HookedJob { service: "service", function: "function", state, error, attempt: 1 };
    takes.fit(&ended.call(JobId(1), target).ok()?).err()
}
