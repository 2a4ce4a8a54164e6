//! The program that this processor drains into, if there is one. A thread feeds it calls, as slots feed workers.
//!
//! Invariant: when the host is lost, the calls that may still run in it keep their marks and stay with this processor.

use std::{sync::Arc, thread::JoinHandle};

use super::events::{LoopEvent, LostHost};
use super::shared::{STACK, Shared};
use super::{dispatch_queue::HostState, outcome_journal::note};
use crate::domain::job::Fence;
use crate::error::reason;
use crate::failpoint::reached;
use crate::runner::worker::{CallReport, CallSource, EndedCall, SendLimits, SentCall};
use crate::runner::{Output, StartFailure, StopSwitch, has_expired, worker::host_session::HostSession};

/// Starts a thread that feeds a host.
///
/// # Errors
/// When the system gives no thread, or no descriptor.
pub(super) fn feed(shared: &Arc<Shared>, mut session: HostSession) -> std::io::Result<JoinHandle<()>> {
    let control = Arc::new(StopSwitch::new()?);
    let state = HostState::new(session.functions(), session.at_once().unwrap_or(1), Arc::clone(&control));
    shared.queue.state().host = Some(state);
    let shared = Arc::clone(shared);
    let feed = move || {
        let output = Output { forwarder: &shared.forwarder, whole_lines: true, tap: Some(&shared.tap), claim: None };
        let calls = HostCalls { shared: &shared };
        let Some(loss) = session.serve(&calls, (output, &shared.around.folder), &control) else { return };
        let pid = session.host().pid;
        let (left, ended) = session.part(&loss, &calls);
        shared.queue.state().lose_host();
        shared.queue.notify();
        shared.events.send(LoopEvent::LostHost(LostHost { pid, loss, left }));
        // These come after that event, so that the main loop claims nothing for a lost host.
        if !ended.is_empty() {
            calls.done(ended);
        }
    };
    std::thread::Builder::new().name("host".to_owned()).stack_size(STACK).spawn(feed)
}

/// The calls for a host.
struct HostCalls<'a> {
    shared: &'a Shared,
}

impl CallSource for HostCalls<'_> {
    fn next(&self, _room: SendLimits) -> Result<Option<SentCall>, String> {
        let claim = loop {
            let mut state = self.shared.queue.state();
            let Some(claim) = state.pick_hosted() else { return Ok(None) };
            if !has_expired(&claim) {
                break claim;
            }
            state.release_hosted(claim.fence);
            self.shared.events.send(LoopEvent::NotStarted(Box::new(claim), StartFailure::Expired));
        };
        let marks = &self.shared.marks;
        let mark = marks.set_in_host(claim.fence.job);
        if mark.is_none() {
            self.back(vec![SentCall { claim, mark }]);
            let cannot =
                |error| format!("gets no call, because asyncq cannot write down that it has one: {}", reason(error));
            return marks.flaw().map_or(Ok(None), |error| Err(cannot(error)));
        }
        reached("call marked");
        Ok(Some(SentCall { claim, mark }))
    }

    fn done(&self, mut done: Vec<EndedCall>) {
        if done.is_empty() {
            return;
        }
        reached("call ended");
        let marks = &self.shared.marks;
        for done in &mut done {
            note(marks, done);
            // From now on, the call no longer belongs to the host. The note alone does not say so, because it may be from an
            // earlier attempt.
            if let Some(mark) = &done.mark {
                marks.came_out(mark, done.claim.fence.job);
            }
        }
        reached("outcome noted");
        let mut state = self.shared.queue.state();
        for done in &done {
            state.release_hosted(done.claim.fence);
        }
        self.shared.report(state, done);
    }

    fn back(&self, sent: Vec<SentCall>) {
        let mut state = self.shared.queue.state();
        let mut claims = Vec::with_capacity(sent.len());
        for SentCall { claim, mark } in sent {
            state.release_hosted(claim.fence);
            if let Some(mark) = mark {
                self.shared.marks.clear(&mark);
            }
            claims.push(claim);
        }
        state.put_back(claims);
    }

    fn cancelled(&self) -> Vec<Fence> {
        self.shared.queue.state().hosted_to_cancel()
    }

    fn is_open(&self) -> bool {
        self.shared.queue.state().is_open()
    }

    fn waits(&self) -> bool {
        !self.shared.queue.state().closed
    }

    fn report(&self, fence: Fence, report: CallReport) {
        self.shared.events.send(LoopEvent::Report(fence, report));
    }
}
