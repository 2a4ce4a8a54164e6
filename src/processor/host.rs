//! The program that this processor drains into, if there is one: a thread feeds it, as slots feed workers.
//!
//! Invariant: when the host is lost, the calls that it may be running keep their marks, and stay with this processor.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::STACK_OF_A_FEEDER;
use super::call_source::note;
use super::dispatch_queue::HostState;
use super::events::LoopEvent;
use super::slots::Shared;
use crate::domain::job::{Claim, Fence};
use crate::error::{Error, Kind, reason};
use crate::failpoint::reached;
use crate::runner::worker::host_session::{HostLoss, HostSession};
use crate::runner::worker::{CallSource, EndedCall, SendLimits, SentCall};
use crate::runner::{Output, StopSwitch};

/// A host in which nothing can be run any more.
#[derive(Debug)]
pub(super) struct Lost {
    /// Its process.
    pub(super) pid: i64,
    /// What it did.
    pub(super) loss: HostLoss,
    /// The calls that it may still be running.
    pub(super) left: Vec<Claim>,
}

impl Lost {
    /// What there is to tell of it.
    pub(super) fn error(&self) -> Error {
        let error = lost(self.pid, &self.loss);
        if self.left.is_empty() {
            return error;
        }
        let jobs: Vec<String> = self.left.iter().map(|claim| claim.fence.job.to_string()).collect();
        let jobs = if jobs.len() == 1 { format!("job {}", jobs[0]) } else { format!("jobs {}", jobs.join(", ")) };
        error.with_hint(format!(
            "{jobs} may still run there: `asyncq process` puts that back when the process has ended, or says `\"idle\":true` in a new hello"
        ))
    }
}

/// That nothing can be run in a host.
pub(super) fn lost(pid: i64, loss: &HostLoss) -> Error {
    let (what, hint) = match loss {
        HostLoss::Ended => ("has ended", "what it was running was put back, or has failed"),
        HostLoss::Protocol(what) => {
            (what.as_str(), "docs/protocol.md tells what a program has to say that is drained into")
        }
    };
    Error::new(Kind::Io, format!("the host (process {pid}) {what}")).with_hint(hint)
}

/// Feeds a host from now on, in a thread of its own.
///
/// # Errors
/// When the system gives no thread, or no descriptor.
pub(super) fn feed(shared: &Arc<Shared>, mut hosted: HostSession) -> std::io::Result<JoinHandle<()>> {
    let control = Arc::new(StopSwitch::new()?);
    let seat = HostState::new(hosted.functions(), hosted.at_once(), Arc::clone(&control));
    shared.queue.work().host = Some(seat);
    let shared = Arc::clone(shared);
    let feed = move || {
        let output = Output { forwarder: &shared.common.forwarder, whole_lines: true };
        let desk = HostCalls { shared: &shared, unmarked: Cell::new(false) };
        let closed = || shared.queue.work().closed;
        let Some(loss) = hosted.serve(&desk, (output, &shared.common.around.folder), &control, closed) else { return };
        let pid = hosted.host().pid;
        let (left, ended) = hosted.part(&loss, &desk);
        shared.queue.work().lose_host();
        shared.queue.tell();
        shared.events.send(LoopEvent::Lost(Lost { pid, loss, left }));
        // After that, so that none of them is claimed anew by who does not know it yet.
        if !ended.is_empty() {
            desk.done(ended);
        }
    };
    std::thread::Builder::new().name("host".to_owned()).stack_size(STACK_OF_A_FEEDER).spawn(feed)
}

/// The desk at which a host gets its calls.
struct HostCalls<'a> {
    shared: &'a Shared,
    /// Whether a call could not be marked.
    unmarked: Cell<bool>,
}

impl CallSource for HostCalls<'_> {
    fn next(&self, _room: SendLimits) -> Option<SentCall> {
        let claim = self.shared.queue.work().pick_hosted()?;
        let mark = self.shared.common.marks.set_in_host(claim.fence.job);
        if mark.is_none() {
            self.unmarked.set(true);
            self.back(vec![SentCall { claim, mark }]);
            return None;
        }
        reached("call marked");
        Some(SentCall { claim, mark })
    }

    fn done(&self, mut done: Vec<EndedCall>) {
        reached("call ended");
        let marks = &self.shared.common.marks;
        for done in &mut done {
            note(marks, done);
            // Only now: from here on it is not held for the host. A note alone says nothing, as that of an earlier attempt may
            // stand in the same place.
            if let Some(mark) = &done.mark {
                marks.came_out(mark, done.claim.fence.job);
            }
        }
        reached("outcome noted");
        let mut work = self.shared.queue.work();
        for done in &done {
            work.release_hosted(done.claim.fence);
        }
        self.shared.tell(work, done);
    }

    fn back(&self, begun: Vec<SentCall>) {
        let mut work = self.shared.queue.work();
        let mut claims = Vec::with_capacity(begun.len());
        for SentCall { claim, mark } in begun {
            work.release_hosted(claim.fence);
            if let Some(mark) = mark {
                self.shared.common.marks.clear(&mark);
            }
            claims.push(claim);
        }
        work.put_back(claims);
    }

    fn cancelled(&self) -> Vec<Fence> {
        self.shared.queue.work().hosted_to_cancel()
    }

    fn is_open(&self) -> bool {
        self.shared.queue.work().is_open()
    }

    fn flaw(&self) -> Option<String> {
        let error = self.shared.common.marks.flaw().filter(|_| self.unmarked.get())?;
        Some(format!("can be given no call, as it cannot be written down that it has it: {}", reason(&error)))
    }

    fn progress(&self, fence: Fence, text: String) {
        self.shared.events.send(LoopEvent::Progress(fence, text));
    }
}
