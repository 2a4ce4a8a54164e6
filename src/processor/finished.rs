//! Calls that have ended, on their way into the store.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use super::outcome_journal::JournalEntry;

use crate::domain::attempt::{Ending, FailureKind, Outcome};
use crate::domain::call::Call;
use crate::domain::event::{Event, Report};
use crate::domain::job::{BrokenClaim, Claim, Finish, JobId, State};
use crate::domain::log::Log;
use crate::domain::processor::Summary;
use crate::domain::retry::{Decision, decide, not_by_itself, refused};
use crate::domain::service::ServiceName;
use crate::error::Result;
use crate::processor::random::draw_for;
use crate::runner::Mark;
use crate::runner::worker::EndedCall;

/// How many bytes of output one transaction records, about: memory is bounded by this, not by how many calls end at
/// once.
const LOGS_AT_ONCE: usize = 4 * 1024 * 1024;

/// What is over, as much of it as one transaction may hold: what never ran, and what came back.
pub(super) fn collect(unrun: &mut Vec<FinishedCall>, done: &mut VecDeque<EndedCall>) -> Result<Vec<FinishedCall>> {
    let mut over = std::mem::take(unrun);
    let mut bytes = 0;
    while bytes < LOGS_AT_ONCE
        && let Some(done) = done.pop_front()
    {
        bytes += done.ended.output.kept();
        over.push(FinishedCall::of(done)?);
    }
    Ok(over)
}

/// A call that has ended and is not recorded yet.
pub(super) struct FinishedCall {
    pub(super) service: ServiceName,
    function: String,
    pub(super) finish: Finish,
    /// Unless it never began.
    pub(super) mark: Option<Mark>,
    /// Whether it could not be run, and has a site of its own that is not there.
    lacks_own_site: bool,
}

impl FinishedCall {
    /// What a slot gave back.
    pub(super) fn of(done: EndedCall) -> Result<FinishedCall> {
        let EndedCall { claim, ended, mark } = done;
        let verdict = decide(&ended.outcome, claim.before, draw_for(&ended.outcome)?);
        let (result, took, log) = (ended.result, ended.took, ended.output.log());
        let finish = Finish { fence: claim.fence, verdict, result, took, log };
        Ok(FinishedCall { mark, ..FinishedCall::new(&claim, finish) })
    }

    /// What a dead processor has noted.
    pub(super) fn noted(note: JournalEntry) -> Result<FinishedCall> {
        let JournalEntry { fence, service, function, before, outcome, result, took, log } = note;
        let verdict = decide(&outcome, before, draw_for(&outcome)?);
        let finish = Finish { fence, verdict, result, took, log };
        Ok(FinishedCall { service, function, finish, mark: None, lacks_own_site: false })
    }

    /// A claim that cannot be run.
    pub(super) fn broken(claim: BrokenClaim) -> FinishedCall {
        let BrokenClaim { fence, service, function, before, failure } = claim;
        let verdict = decide(&Outcome::Failed(failure), before, 0.0);
        let finish = Finish { fence, verdict, result: None, took: Duration::ZERO, log: Log::default() };
        FinishedCall { service, function, finish, mark: None, lacks_own_site: false }
    }

    /// A claim that was not run.
    pub(super) fn unrun(claim: &Claim, outcome: &Outcome) -> FinishedCall {
        let verdict = decide(outcome, claim.before, 0.0);
        let (took, log) = (Duration::ZERO, Log::default());
        FinishedCall::new(claim, Finish { fence: claim.fence, verdict, result: None, took, log })
    }

    fn new(claim: &Claim, finish: Finish) -> FinishedCall {
        let cannot_run = finish.verdict.error.as_ref().is_some_and(|error| error.kind == FailureKind::CannotRun);
        let Call { service, function, site, .. } = &claim.call;
        let lacks_own_site = cannot_run && site.as_ref().is_some_and(|site| !Path::new(site).is_dir());
        let (service, function) = (service.clone(), function.as_str().to_owned());
        FinishedCall { service, function, finish, mark: None, lacks_own_site }
    }

    /// Tells what was recorded: the state in which the job is now, unless it was no longer ours.
    pub(super) fn report(self, state: Option<State>, summary: &mut Summary, tell: &mut dyn FnMut(Event<'_>)) {
        summary.attempts += 1;
        let Some(state) = state else {
            return;
        };
        if state == State::Error {
            summary.errors += 1;
        }
        let verdict = self.finish.verdict;
        let verdict = if verdict.by_itself && state != State::Completed { not_by_itself() } else { verdict };
        let verdict = if state == State::Error && verdict.state != State::Error {
            refused_here(self.finish.fence.job)
        } else {
            verdict
        };
        // It may have completed itself before it was ended.
        let itself = state == State::Completed && verdict.ending != Ending::Completed;
        tell(Event::Ended(&Report {
            job: self.finish.fence.job,
            service: self.service,
            function: self.function,
            ending: if itself { Ending::Completed } else { verdict.ending },
            error: verdict.error.filter(|_| !itself),
            pause: verdict.pause,
            state,
            took: self.finish.took,
            lacks_own_site: self.lacks_own_site,
        }));
    }
}

/// The verdict that was recorded instead of the one that a rule of the application refuses; the job itself names the rule.
fn refused_here(job: JobId) -> Decision {
    refused(format!("a rule of the application refuses its outcome; `asyncq job show {job}` names it"))
}
