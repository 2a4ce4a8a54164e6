//! The calls that a worker holds, and when each is to end.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::exit::Exit;
use crate::domain::job::Fence;
use crate::domain::json::Json;
use crate::runner::process::tree::GRACE;
use crate::runner::worker::protocol::{Answer, CallResult};
use crate::runner::worker::{EndedCall, SentCall};
use crate::runner::{Capture, Ended, Stop};

/// The calls that are sent and not answered, oldest first.
#[derive(Debug, Default)]
pub(in crate::runner) struct InFlight {
    calls: VecDeque<InFlightCall>,
    next_id: u64,
    /// When the latest answer came.
    latest: Option<Instant>,
    /// How long calls take that run one after another, taken that the next ones are like the latest.
    pace: Option<Duration>,
    /// Whether calls have told how far they are, and that may not be passed on yet.
    has_progress: bool,
}

/// One of them.
#[derive(Debug)]
pub(in crate::runner) struct InFlightCall {
    pub(in crate::runner) id: u64,
    pub(in crate::runner) begun: SentCall,
    /// Where on the line it begins, in bytes.
    pub(in crate::runner) from: u64,
    sent: Instant,
    pub(in crate::runner) capture: Capture,
    /// How much of its output it has been given.
    pub(in crate::runner) printed: [u64; 2],
    pub(in crate::runner) ending: Option<CallEnding>,
    /// How far it is, unless that was passed on.
    progress: Option<String>,
    /// When that was passed on.
    told: Option<Instant>,
}

/// How often it is passed on how far a call is.
const PROGRESS: Duration = Duration::from_millis(250);

/// What is to become of a call that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) struct CallEnding {
    pub(in crate::runner) why: EndReason,
    /// When it is made to end.
    pub(in crate::runner) kill_at: Instant,
}

/// Why a call is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runner) enum EndReason {
    Cancelled,
    TooLong,
    Interrupted,
}

impl EndReason {
    /// In the words of the protocol.
    pub(in crate::runner) fn as_str(self) -> &'static str {
        match self {
            EndReason::Cancelled => "cancelled",
            EndReason::TooLong => "timeout",
            EndReason::Interrupted => "stop",
        }
    }

    pub(in crate::runner) fn outcome(self) -> Outcome {
        match self {
            EndReason::Cancelled => Outcome::Cancelled,
            EndReason::Interrupted => Outcome::Interrupted,
            EndReason::TooLong => {
                Outcome::Failed(Failure::new(FailureKind::Timeout, "took longer than its time limit"))
            }
        }
    }
}

impl InFlight {
    pub(in crate::runner) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(in crate::runner) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes a call that begins there on the line; gives its id.
    pub(in crate::runner) fn push(&mut self, begun: SentCall, from: u64, folder: &Path) -> u64 {
        self.next_id += 1;
        self.calls.push_back(InFlightCall {
            id: self.next_id,
            begun,
            from,
            sent: Instant::now(),
            capture: Capture::new(folder),
            printed: [0, 0],
            ending: None,
            progress: None,
            told: None,
        });
        self.next_id
    }

    /// The oldest one, and the latest that was sent.
    pub(in crate::runner) fn oldest(&mut self) -> Option<&mut InFlightCall> {
        self.calls.front_mut()
    }

    pub(in crate::runner) fn latest(&self) -> Option<&InFlightCall> {
        self.calls.back()
    }

    /// The call with that id: the oldest, where the worker runs one after another.
    pub(in crate::runner) fn remove(&mut self, id: u64, serial: bool) -> Option<InFlightCall> {
        let place = self.calls.iter().take(if serial { 1 } else { usize::MAX }).position(|call| call.id == id)?;
        self.calls.remove(place)
    }

    pub(in crate::runner) fn of_job(&mut self, job: i64) -> Option<&mut InFlightCall> {
        self.calls.iter_mut().find(|call| call.begun.claim.fence.job.0 == job)
    }

    /// A call tells how far it is.
    pub(in crate::runner) fn note_progress(&mut self, job: i64, text: String) {
        if let Some(call) = self.of_job(job) {
            call.progress = Some(text);
            self.has_progress = true;
        }
    }

    /// How far calls are of which that is to be passed on now.
    pub(in crate::runner) fn due_progress(&mut self) -> Vec<(Fence, String)> {
        let mut due = Vec::new();
        if !self.has_progress {
            return due;
        }
        for call in self.calls.iter_mut().filter(|call| call.progress.is_some() && call.until_told().is_zero()) {
            call.told = Some(Instant::now());
            due.extend(call.progress.take().map(|text| (call.fence(), text)));
        }
        self.has_progress = self.calls.iter().any(|call| call.progress.is_some());
        due
    }

    /// How long until there are such.
    pub(in crate::runner) fn next_progress(&self) -> Option<Duration> {
        let calls = self.calls.iter().take(if self.has_progress { usize::MAX } else { 0 });
        calls.filter(|call| call.progress.is_some()).map(InFlightCall::until_told).min()
    }

    /// Those that may be running.
    pub(in crate::runner) fn running(&mut self, serial: bool) -> impl Iterator<Item = &mut InFlightCall> {
        self.calls.iter_mut().take(if serial { 1 } else { usize::MAX })
    }

    /// Since when a call runs: since it was sent, or, one after another, since the answer before.
    pub(in crate::runner) fn since(&self, call: &InFlightCall, serial: bool) -> Instant {
        self.latest.filter(|_| serial).map_or(call.sent, |latest| latest.max(call.sent))
    }

    /// How long the oldest one has been running.
    pub(in crate::runner) fn longest(&self) -> Duration {
        self.calls.front().map_or(Duration::ZERO, |oldest| self.since(oldest, true).elapsed())
    }

    /// How many calls that run one after another take about so long; none while nothing is known of them.
    pub(in crate::runner) fn many_in(&self, time: Duration) -> usize {
        let many = |pace: Duration| time.as_nanos() / pace.as_nanos().max(1);
        self.pace.map_or(0, |pace| usize::try_from(many(pace)).unwrap_or(usize::MAX))
    }

    /// When the next one of those that run is at its time limit.
    pub(in crate::runner) fn next_limit(&self, serial: bool) -> Option<Instant> {
        self.limits(serial).flatten().min()
    }

    /// When each of those that run is at its time limit.
    pub(in crate::runner) fn limits(&self, serial: bool) -> impl Iterator<Item = Option<Instant>> {
        self.calls.iter().take(if serial { 1 } else { usize::MAX }).map(move |call| {
            let definition = &call.begun.claim.definition;
            self.since(call, serial).checked_add(definition.timeout?)
        })
    }

    /// Notes which of those that run are to end and were not before, as they are cancelled, as their time is over, or by `stop`;
    /// gives them, and why.
    pub(in crate::runner) fn ask_to_end(
        &mut self,
        serial: bool,
        stop: Stop,
        cancelling: &mut Vec<Fence>,
    ) -> Vec<(&InFlightCall, EndReason)> {
        let now = Instant::now();
        let limits: Vec<bool> = self.limits(serial).map(|limit| limit.is_some_and(|limit| limit <= now)).collect();
        let mut asked = Vec::new();
        for (call, late) in self.running(serial).zip(limits).filter(|(call, _)| call.ending.is_none()) {
            let fence = call.fence();
            let why = if cancelling.contains(&fence) {
                cancelling.retain(|which| *which != fence);
                EndReason::Cancelled
            } else if stop > Stop::Cancel {
                EndReason::Interrupted
            } else if late {
                EndReason::TooLong
            } else {
                continue;
            };
            call.ending = Some(CallEnding { why, kill_at: now + GRACE });
            asked.push((&*call, why));
        }
        asked
    }

    /// Notes that answers have come; gives how long each of those calls took, taken that all took the same.
    pub(in crate::runner) fn answered(&mut self, done: &mut [EndedCall], serial: bool) {
        let now = Instant::now();
        if serial && let (Some(first), Ok(count)) = (done.first(), u32::try_from(done.len())) {
            // The first one has been told how long all of them took.
            let each = first.ended.took / count;
            for done in done.iter_mut() {
                done.ended.took = each;
            }
            self.pace = Some(self.pace.map_or(each, |before| (before + each) / 2));
        }
        self.latest = Some(now);
    }

    /// Those that begin there on the line, or later.
    pub(in crate::runner) fn take_from(&mut self, offset: u64) -> Vec<InFlightCall> {
        let first = self.calls.iter().position(|call| call.from >= offset).unwrap_or(self.calls.len());
        self.calls.split_off(first).into()
    }

    /// Keeps the oldest after all.
    pub(in crate::runner) fn put_back(&mut self, oldest: InFlightCall) {
        self.calls.push_front(oldest);
    }

    /// All of them.
    pub(in crate::runner) fn take(&mut self) -> Vec<InFlightCall> {
        std::mem::take(&mut self.calls).into()
    }
}

impl InFlightCall {
    pub(in crate::runner) fn fence(&self) -> Fence {
        self.begun.claim.fence
    }

    fn until_told(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| PROGRESS.saturating_sub(told.elapsed()))
    }

    /// The end of a call that was answered after it had run for `took`.
    pub(in crate::runner) fn answered(self, answer: Answer, took: Duration) -> EndedCall {
        let failed = |kind, message: String| Outcome::Failed(Failure::new(kind, message));
        let (outcome, result) = match answer.end {
            CallResult::Value(value, by_itself) => {
                let outcome = if by_itself { Outcome::CompletedItself } else { Outcome::Completed };
                match value.map(|value| Json::parse(&value)).transpose() {
                    Ok(result) => (outcome, result),
                    Err(flaw) => (failed(FailureKind::BadResult, format!("its result is {flaw}")), None),
                }
            }
            CallResult::BadValue(flaw) => (failed(FailureKind::BadResult, format!("its {flaw}")), None),
            // However it ended: it was to.
            _ if self.ending.is_some() => (self.ending.map_or(Outcome::Completed, |it| it.why.outcome()), None),
            CallResult::Error(error) => (Exit::Reported(error).outcome(), None),
        };
        self.over(outcome, result, took)
    }

    /// The end of a call that was not answered.
    pub(in crate::runner) fn ended(self, outcome: Outcome) -> EndedCall {
        let took = self.sent.elapsed();
        self.over(outcome, None, took)
    }

    fn over(self, outcome: Outcome, result: Option<Json>, took: Duration) -> EndedCall {
        let SentCall { claim, mark } = self.begun;
        EndedCall { claim, ended: Ended { outcome, result, took, output: self.capture }, mark }
    }
}
