//! Calls that have ended and are not recorded yet, and how to record one, even on a full disk.

use std::{collections::VecDeque, path::Path};

use crate::domain::attempt::{Ending, FailureKind, Outcome};
use crate::domain::event::{Event, Report};
use crate::domain::hook::EndHooks;
use crate::domain::job::{BrokenClaim, Claim, Finish, State};
use crate::domain::retry::{not_by_itself, refused_here};
use crate::domain::retry_policy::RetryPolicy;
use crate::domain::{call::Call, nested::NestedCalls, processor::Summary, service::ServiceName};
use crate::error::{Kind, Result};
use crate::processor::random::draw_for;
use crate::runner::{DiskReserve, Ended, Mark, worker::EndedCall};
use crate::store::Store;

/// About how many bytes of output and nested calls one transaction records. This bounds memory, however many calls end at once.
const LOGS_AT_ONCE: usize = 4 * 1024 * 1024;

/// How many bytes of a call's output are kept while the disk is full. The reserve is meant for outcomes.
const LITTLE: usize = 4096;

/// Returns all calls that never ran, and as many of the ended ones as one transaction may record.
pub(super) fn collect(unrun: &mut Vec<FinishedCall>, done: &mut VecDeque<EndedCall>) -> Result<Vec<FinishedCall>> {
    let mut calls = std::mem::take(unrun);
    let mut bytes = 0;
    while bytes < LOGS_AT_ONCE
        && let Some(done) = done.pop_front()
    {
        bytes += done.ended.output.kept() + done.ended.nested.as_ref().map_or(0, |nested| nested.bytes());
        calls.push(FinishedCall::of(done)?);
    }
    Ok(calls)
}

/// A call that has ended and is not recorded yet.
pub(super) struct FinishedCall {
    pub(super) service: ServiceName,
    function: String,
    pub(super) finish: Finish,
    /// Shows that the call has begun; `None` if it has not.
    pub(super) mark: Option<Mark>,
    /// Whether it could not run and has a site of its own, which does not exist.
    lacks_own_site: bool,
    /// Whether it said when to run instead, but did not ask to be tried again.
    in_vain: bool,
}

impl FinishedCall {
    /// A call that ended in a slot.
    pub(super) fn of(done: EndedCall) -> Result<FinishedCall> {
        let EndedCall { claim, ended, mark } = done;
        let retry = &claim.definition.policy.retry;
        let decision = retry.decide(&ended.outcome, claim.before, draw_for(&ended.outcome, retry)?);
        let Ended { result, took, output, nested, in_vain, .. } = ended;
        let finish = Finish { result, took, log: output.log(), nested, ..Finish::new(claim.fence, decision) };
        Ok(FinishedCall { mark, in_vain, ..FinishedCall::new(&claim, finish) })
    }

    /// A call that did not run in this processor.
    pub(super) fn elsewhere(service: ServiceName, function: String, finish: Finish) -> FinishedCall {
        FinishedCall { service, function, finish, mark: None, lacks_own_site: false, in_vain: false }
    }

    /// A claim that cannot be run.
    pub(super) fn broken(claim: BrokenClaim) -> FinishedCall {
        let BrokenClaim { fence, service, function, before, failure, hooks } = claim;
        let decision = RetryPolicy::default().decide(&Outcome::Failed(failure), before, 0.0);
        let finish = Finish { hooks: EndHooks::Known(hooks), ..Finish::new(fence, decision) };
        FinishedCall::elsewhere(service, function, finish)
    }

    /// A claim that was not run.
    pub(super) fn unrun(claim: &Claim, outcome: &Outcome) -> FinishedCall {
        let decision = claim.definition.policy.retry.decide(outcome, claim.before, 0.0);
        FinishedCall::new(claim, Finish::new(claim.fence, decision))
    }

    fn new(claim: &Claim, finish: Finish) -> FinishedCall {
        let finish = Finish { hooks: EndHooks::Known(claim.definition.policy.hooks.clone()), ..finish };
        let cannot_run = finish.decision.error.as_ref().is_some_and(|error| error.kind == FailureKind::CannotRun);
        let Call { service, function, site, .. } = &claim.call;
        let lacks_own_site = cannot_run && site.as_ref().is_some_and(|site| !Path::new(site).is_dir());
        let (service, function) = (service.clone(), function.as_str().to_owned());
        FinishedCall { service, function, finish, mark: None, lacks_own_site, in_vain: false }
    }

    /// Reports what was recorded. `state` is the state of the job now, or `None` if the job no longer belonged to this processor.
    pub(super) fn report(self, state: Option<State>, summary: &mut Summary, tell: &mut dyn FnMut(Event<'_>)) {
        summary.attempts += 1;
        let Some(state) = state else {
            return;
        };
        if state == State::Error {
            summary.errors += 1;
        }
        let decision = self.finish.decision;
        let decision = if decision.by_itself && state != State::Completed { not_by_itself() } else { decision };
        let decision = if state == State::Error && decision.state != State::Error {
            refused_here(self.finish.fence.job)
        } else {
            decision
        };
        // The function may have completed its job before it was ended.
        let itself = state == State::Completed && decision.ending != Ending::Completed;
        tell(Event::Ended(&Report {
            job: self.finish.fence.job,
            service: self.service,
            function: self.function,
            ending: if itself { Ending::Completed } else { decision.ending },
            error: decision.error.filter(|_| !itself),
            pause: decision.pause,
            retry: decision.retry,
            state,
            took: self.finish.took,
            lacks_own_site: self.lacks_own_site,
            in_vain: self.in_vain,
        }));
    }
}

/// Records one outcome and returns the state of its job now, as [`Store::finish`] does. On a full disk, it takes what it needs from
/// the reserve, and drops output and nested calls that do not fit.
///
/// # Errors
/// Whatever the store answers; [`Kind::Full`] when the reserve is used up, too.
pub(super) fn record(store: &mut Store, reserve: &DiskReserve, finish: &mut Finish) -> Result<Option<State>> {
    loop {
        match store.finish(&[&*finish]) {
            Err(error) if error.kind() == Kind::Full => {
                let log = &mut finish.log;
                let takes_less =
                    log.keep_end(LITTLE) || drop_calls(&mut finish.nested) || reserve.give() || log.keep_end(0);
                if !takes_less {
                    return Err(error);
                }
            }
            states => return Ok(states?.pop().flatten()),
        }
    }
}

/// Counts the nested calls instead of recording them. Returns whether there were any.
fn drop_calls(nested: &mut Option<Box<NestedCalls>>) -> bool {
    let Some(nested) = nested.as_mut().filter(|nested| !nested.calls.is_empty()) else { return false };
    nested.leave_out_all();
    true
}
