//! The calls that a peer holds, and when each of them has to end.

use std::time::{Duration, Instant};
use std::{collections::VecDeque, mem::discriminant, path::Path};

use rustix::event::PollFd;

use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::job::{Claim, Fence};
use crate::domain::{exit::Exit, json::Json, log::Stream, nested::NestedCalls, time::Timestamp};
use crate::runner::call::{CallEnding, EndReason};
use crate::runner::clock::now;
use crate::runner::worker::protocol::{Answer, CallResult};
use crate::runner::worker::{CallReport, EndedCall, SendLimits, SentCall};
use crate::runner::{Capture, Ended, Stop, Tap, process::tree::GRACE, tap::audience::Audience};

/// How long a call may run before asyncq takes back the calls behind it.
const STRANDED: Duration = Duration::from_millis(50);

/// How quick calls must be for others to wait behind one. Also how long these may have to wait there if another worker could run
/// them.
pub(super) const QUICK: Duration = Duration::from_millis(5);

/// How quick calls must be for more of them to wait behind one, and for workers to need no share of their own: waking another
/// worker would cost as much.
const TINY: Duration = Duration::from_micros(200);

/// How long a call runs before asyncq checks whether its worker still has its end of the channel.
const SILENT: Duration = Duration::from_secs(1);

/// Calls that are sent and not answered, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    calls: VecDeque<InFlightCall>,
    next_id: u64,
    /// When the latest answer came.
    latest: Option<Instant>,
    /// How long calls take that run one after another, assuming that the next ones are like the latest.
    pace: Option<Duration>,
    /// Whether unread calls were taken back since the latest call was sent.
    pub(super) took_back: bool,
    /// Whether there may be reports that are not passed on yet.
    has_reports: bool,
    /// Whether somebody may follow one of them.
    has_followers: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct InFlightCall {
    pub(super) id: u64,
    pub(super) begun: SentCall,
    /// Where on the channel it begins, in bytes.
    pub(super) from: u64,
    sent: Instant,
    pub(super) capture: Capture,
    /// How many bytes of its output it has been given so far.
    pub(super) printed: [u64; 2],
    pub(super) ending: Option<CallEnding>,
    /// The latest report of each kind that was not passed on.
    reports: Vec<CallReport>,
    /// When reports were last passed on.
    told: Option<Instant>,
    /// Who follows its output.
    audience: Audience,
}

/// How often to pass on the reports of a call.
const REPORTS: Duration = Duration::from_millis(250);

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// An id for the next call.
    pub(super) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes a call that is sent now.
    pub(super) fn push(&mut self, call: InFlightCall) {
        self.took_back = false;
        self.calls.push_back(call);
    }

    /// The call that was sent first.
    pub(super) fn oldest(&mut self) -> Option<&mut InFlightCall> {
        self.calls.front_mut()
    }

    /// Takes the call with this id. If calls run one after another, only the oldest one can have an answer.
    pub(super) fn remove(&mut self, id: u64, serial: bool) -> Option<InFlightCall> {
        let place = self.calls.iter().take(if serial { 1 } else { usize::MAX }).position(|call| call.id == id)?;
        self.calls.remove(place)
    }

    pub(super) fn of_job(&mut self, job: i64) -> Option<&mut InFlightCall> {
        self.calls.iter_mut().find(|call| call.begun.claim.fence.job.0 == job)
    }

    /// Keeps a report of a call.
    pub(super) fn note_report(&mut self, job: i64, report: CallReport) {
        if let Some(call) = self.of_job(job) {
            call.reports.retain(|earlier| discriminant(earlier) != discriminant(&report));
            call.reports.push(report);
            self.has_reports = true;
        }
    }

    /// The reports that are due.
    pub(super) fn due_reports(&mut self) -> Vec<(Fence, CallReport)> {
        let mut due = Vec::new();
        if !self.has_reports {
            return due;
        }
        for call in self.calls.iter_mut().filter(|call| !call.reports.is_empty() && call.until_told().is_zero()) {
            call.told = Some(Instant::now());
            let fence = call.fence();
            due.extend(call.reports.drain(..).map(|report| (fence, report)));
        }
        self.has_reports = self.calls.iter().any(|call| !call.reports.is_empty());
        due
    }

    /// How long until the next one is due.
    pub(super) fn next_report(&self) -> Option<Duration> {
        let calls = self.calls.iter().take(if self.has_reports { usize::MAX } else { 0 });
        calls.filter(|call| !call.reports.is_empty()).map(InFlightCall::until_told).min()
    }

    /// Sends new output of calls to their followers.
    pub(super) fn serve_followers(&mut self, tap: &Tap) {
        if tap.is_awaited() {
            for call in &mut self.calls {
                self.has_followers |= call.audience.join(tap, &call.begun.claim.fence);
            }
        }
        if self.has_followers {
            self.calls.iter_mut().for_each(|call| call.audience.serve(&call.capture));
            self.has_followers = self.calls.iter().any(|call| !call.audience.is_empty());
        }
    }

    /// What becomes ready when a follower can take more, or is gone.
    pub(super) fn followers(&self) -> impl Iterator<Item = PollFd<'_>> {
        let calls = self.calls.iter().take(if self.has_followers { usize::MAX } else { 0 });
        calls.flat_map(|call| call.audience.poll_fds())
    }

    /// The calls that may be running.
    pub(super) fn running(&self, serial: bool) -> impl Iterator<Item = &InFlightCall> {
        self.calls.iter().take(if serial { 1 } else { usize::MAX })
    }

    /// When a call began: when it was sent or, if calls run one after another, when the one before was answered.
    pub(super) fn since(&self, call: &InFlightCall, serial: bool) -> Instant {
        self.latest.filter(|_| serial).map_or(call.sent, |latest| latest.max(call.sent))
    }

    /// How long the oldest call has been running.
    pub(super) fn longest(&self) -> Duration {
        self.calls.front().map_or(Duration::ZERO, |oldest| self.since(oldest, true).elapsed())
    }

    /// How many calls that run one after another take about this long; 0 while nothing is known about them.
    fn many_in(&self, time: Duration) -> usize {
        let many = |pace: Duration| time.as_nanos() / pace.as_nanos().max(1);
        self.pace.map_or(0, |pace| usize::try_from(many(pace)).unwrap_or(usize::MAX))
    }

    /// How much more a peer that runs this many at once can take.
    pub(super) fn room(&self, at_once: usize) -> SendLimits {
        let are_tiny = self.many_in(TINY) > 0;
        let ahead = self.many_in(if are_tiny { 2 * QUICK } else { QUICK });
        SendLimits { held: self.len(), at_once, ahead, are_tiny }
    }

    /// Whether the running call takes so long that asyncq has to take back the calls behind it.
    pub(super) fn strands(&self, serial: bool, others_are_short: impl Fn() -> bool) -> bool {
        let longest = self.longest();
        self.may_strand(serial) && (longest >= STRANDED || longest >= QUICK && others_are_short())
    }

    /// How long until that may be so, if it may.
    pub(super) fn until_stranded(&self, serial: bool) -> Option<Duration> {
        let longest = self.longest();
        let first = QUICK.saturating_sub(longest);
        let next = if first.is_zero() { QUICK.min(STRANDED.saturating_sub(longest)) } else { first };
        self.may_strand(serial).then_some(next)
    }

    fn may_strand(&self, serial: bool) -> bool {
        serial && self.len() > 1 && !self.took_back
    }

    /// How long until the peer has been silent for long.
    pub(super) fn until_silent(&self) -> Duration {
        SILENT.saturating_sub(self.longest())
    }

    /// When the next running call reaches its time limit.
    pub(super) fn next_limit(&self, serial: bool) -> Option<Instant> {
        self.limits(serial).flatten().min()
    }

    /// When each running call reaches its time limit.
    pub(super) fn limits(&self, serial: bool) -> impl Iterator<Item = Option<Instant>> {
        self.running(serial).map(move |call| self.since(call, serial).checked_add(call.timeout()?))
    }

    /// Marks the running calls that have to end now, because they are cancelled, late, or stopped. Returns those that were not
    /// marked before, and why.
    pub(super) fn ask_to_end(
        &mut self,
        serial: bool,
        stop: Stop,
        cancelling: &mut Vec<Fence>,
    ) -> Vec<(&InFlightCall, EndReason)> {
        let now = Instant::now();
        let limits: Vec<bool> = self.limits(serial).map(|limit| limit.is_some_and(|limit| limit <= now)).collect();
        let mut asked = Vec::new();
        for (call, late) in self.calls.iter_mut().zip(limits).filter(|(call, _)| call.ending.is_none()) {
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

    /// Notes answers. Calls that ran one after another share the time equally.
    pub(super) fn answered(&mut self, done: &mut [EndedCall], serial: bool) {
        let now = Instant::now();
        if serial && let (Some(first), Ok(count)) = (done.first(), u32::try_from(done.len())) {
            // The first one has the time of all.
            let each = first.ended.took / count;
            for done in done.iter_mut() {
                done.ended.took = each;
            }
            self.pace = Some(self.pace.map_or(each, |before| (before + each) / 2));
        }
        self.latest = Some(now);
    }

    /// Takes the calls that begin at this byte of the channel, or later, unless the oldest call has to stay.
    pub(super) fn take_from(&mut self, offset: u64, keep_oldest: bool) -> Vec<InFlightCall> {
        let kept = usize::from(keep_oldest).min(self.calls.len());
        let first = self.calls.iter().position(|call| call.from >= offset).unwrap_or(self.calls.len());
        self.calls.split_off(first.max(kept)).into()
    }

    /// Takes all calls.
    pub(super) fn take(&mut self) -> Vec<InFlightCall> {
        std::mem::take(&mut self.calls).into()
    }
}

impl InFlightCall {
    /// A call that begins at this byte of the channel. Long outputs go into `folder`.
    pub(super) fn new(id: u64, begun: SentCall, from: u64, folder: &Path) -> InFlightCall {
        InFlightCall {
            id,
            begun,
            from,
            sent: Instant::now(),
            capture: Capture::new(folder),
            printed: [0, 0],
            ending: None,
            reports: Vec::new(),
            told: None,
            audience: Audience::default(),
        }
    }

    pub(super) fn fence(&self) -> Fence {
        self.begun.claim.fence
    }

    fn timeout(&self) -> Option<Duration> {
        self.begun.claim.definition.timeout
    }

    /// When its time limit ends, counted from now.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let limit = self.timeout()?;
        Some(now().after(limit))
    }

    fn until_told(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |told| REPORTS.saturating_sub(told.elapsed()))
    }

    /// Keeps what the call has printed, as the peer says. Returns the call.
    pub(super) fn keep(&mut self, stream: Stream, text: &str) -> &Claim {
        self.capture.push(stream, text.as_bytes());
        &self.begun.claim
    }

    /// The end of a call that was answered after it had run for `took`.
    pub(super) fn answered(self, answer: Answer, took: Duration) -> EndedCall {
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
            // It was told to end, so any error counts as that end.
            _ if self.ending.is_some() => (self.ending.map_or(Outcome::Completed, |it| it.why.outcome()), None),
            CallResult::Error(error) => (Exit::Reported(error).outcome(), None),
        };
        self.over(outcome, result, took, answer.nested)
    }

    /// The end of a call that was not answered.
    pub(super) fn ended(self, outcome: Outcome) -> EndedCall {
        let took = self.sent.elapsed();
        self.over(outcome, None, took, None)
    }

    fn over(
        mut self,
        outcome: Outcome,
        result: Option<Json>,
        took: Duration,
        nested: Option<Box<NestedCalls>>,
    ) -> EndedCall {
        self.audience.finish(&self.capture);
        let SentCall { claim, mark } = self.begun;
        EndedCall { claim, ended: Ended { outcome, result, took, output: self.capture, nested, in_vain: false }, mark }
    }
}
