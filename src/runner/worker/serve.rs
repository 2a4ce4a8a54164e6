//! Feeding a worker and hearing it, until it holds nothing and there is nothing for it.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::time::Timestamp;
use crate::failpoint::reached;
use crate::runner::process::tree::LAST_LOOK;
use crate::runner::worker::protocol;
use crate::runner::worker::protocol::WorkerMessage;
use crate::runner::worker::shutdown::WorkerFailure;
use crate::runner::worker::{AHEAD, CallSource, EndedCall, HELLO, SendLimits, SentCall, ServeEnd, WINDOW, Worker};
use crate::runner::{Output, Stop, StopSwitch};

/// How long a call may run before those behind it are taken back.
const STRANDED: Duration = Duration::from_millis(50);

/// How quick calls must be for others to wait behind one; and how long they may have to wait there where another worker could
/// run them.
const QUICK: Duration = Duration::from_millis(5);

/// How long a call must take for it to be looked whether its worker still has its line.
const SILENT: Duration = Duration::from_secs(1);

/// How little time calls take of which some more may wait behind one, and no worker needs its share: to wake another one costs as
/// much.
const TINY: Duration = Duration::from_micros(200);

/// How often to look how much memory a worker uses.
const MEASURE: Duration = Duration::from_millis(100);

/// How long to sleep when nothing is to be watched but descriptors.
pub(super) const LONG: Duration = Duration::from_secs(600);

impl Worker {
    /// Runs calls from `calls` until it has none for this worker and all are answered.
    #[must_use]
    pub fn serve(mut self: Box<Self>, calls: &dyn CallSource, output: Output<'_>, control: &StopSwitch) -> ServeEnd {
        self.cancelling.clear();
        // What it said and printed while nobody listened.
        let mut flaw = self.hear(calls, output, false).err();
        loop {
            if let Some(flaw) = flaw.take() {
                return self.end_with(&flaw, calls, output);
            }
            if self.hello.is_none() && (control.asked() > Stop::Cancel || !calls.is_open()) {
                return self.leave(output);
            }
            if self.hello.is_some() {
                self.fill(calls);
                if self.held.is_empty() && !(self.is_clogged && calls.is_open()) {
                    self.printed.finish(output);
                    return if self.is_worn() { ServeEnd::Worn(self) } else { ServeEnd::Idle(self) };
                }
            }
            self.line.write();
            let wake = PollFd::from_borrowed_fd(control.wake(), PollFlags::IN);
            let time = self.time_to_look();
            self.wait_for(&[wake], time, output);
            control.drain();
            // Looked at first: what it said before it ended is there then.
            let ended = self.has_ended();
            flaw = self.hear(calls, output, ended).err();
            if flaw.is_none() {
                let over = ended || self.line.is_over() && !self.is_clogged;
                flaw = over.then_some(WorkerFailure::Ended).or_else(|| self.greet_late());
            }
            if flaw.is_none() {
                self.mind(calls, control);
                if self.tree.is_left() {
                    return self.leave_behind(calls, output);
                }
                flaw = self.hang_up();
            }
        }
    }

    pub(super) fn is_serial(&self) -> bool {
        self.hello.as_ref().is_none_or(crate::runner::worker::Hello::is_serial)
    }

    /// How many calls it may hold now.
    fn window(&self) -> usize {
        let Some(hello) = &self.hello else { return 0 };
        if !hello.is_serial() {
            return hello.calls;
        }
        // An uncounted output is told apart by nothing but time.
        if hello.counts_output() && self.held.longest() < QUICK { WINDOW } else { 1 }
    }

    /// Sends what may be sent. A call that a crash is charged with has the worker for itself.
    fn fill(&mut self, calls: &dyn CallSource) {
        // Each one runs a call at least, also where a file is written all the time.
        if self.answered > 0 {
            self.origin.has_changed();
        }
        if !self.held.is_empty() && self.is_worn() && !std::mem::replace(&mut self.leaves, true) {
            calls.leaves();
        }
        let at_once = self.hello.as_ref().map_or(1, |hello| hello.calls.max(1));
        while self.held.len() < self.window()
            && self.line.waiting() < AHEAD
            && !self.is_worn()
            && !self.is_ending()
            && !self.is_clogged
        {
            let are_tiny = self.held.many_in(TINY) > 0;
            let ahead = self.held.many_in(if are_tiny { 2 * QUICK } else { QUICK });
            let room = SendLimits { held: self.held.len(), at_once, ahead, are_tiny };
            let Some(begun) = calls.next(room) else { return };
            self.send(begun, calls);
        }
    }

    fn send(&mut self, begun: SentCall, calls: &dyn CallSource) {
        let function = begun.claim.call.function.as_str();
        let known = self.hello.as_ref().and_then(|hello| hello.functions.as_ref());
        let unknown = known.filter(|known| !known.iter().any(|name| name == function)).map(|known| {
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failure::not_found(format!("its worker has no function `{function}`; it has {has}"))
        });
        let fence = begun.claim.fence;
        let from = self.line.end();
        self.keep = begun.claim.definition.worker.unwrap_or_default();
        let id = self.held.push(begun, from, &self.folder);
        let over = match unknown {
            Some(failure) => Some(Outcome::Unstarted(failure)),
            None => self.is_cancelled(fence).then_some(Outcome::Cancelled),
        };
        if let Some(outcome) = over {
            let call = self.held.take_from(from).pop();
            return calls.done(call.map(|call| call.ended(outcome)).into_iter().collect());
        }
        let claim = self.held.latest().map(|call| &call.begun.claim);
        self.took_back = false;
        if let Some(claim) = claim {
            let limit = claim.definition.timeout;
            let deadline = limit.map(|limit| now().after(limit));
            protocol::write_call(self.line.outgoing(), id, claim, deadline);
        }
    }

    fn is_cancelled(&mut self, fence: crate::domain::job::Fence) -> bool {
        let place = self.cancelling.iter().position(|which| *which == fence);
        place.map(|place| self.cancelling.swap_remove(place)).is_some()
    }

    pub(super) fn is_ending(&mut self) -> bool {
        let serial = self.is_serial();
        self.held.running(serial).any(|call| call.ending.is_some())
    }

    /// Whether it has done enough.
    fn is_worn(&self) -> bool {
        let ahead = self.answered + self.held.len() as u64;
        self.has_grown || self.asked || self.origin.was_changed() || self.keep.calls.is_some_and(|calls| ahead >= calls)
    }

    /// Looks whether it has grown too much: now and then, and when it has nothing to do.
    fn measure(&mut self) {
        let Some(growth) = self.keep.growth else { return };
        if self.held.is_empty() || self.measured.elapsed() >= MEASURE {
            self.measured = Instant::now();
            self.has_grown = Worker::memory(self.tree.pid()) > self.memory + growth;
        }
    }

    fn time_to_look(&mut self) -> Duration {
        if self.hello.is_none() {
            return HELLO.saturating_sub(self.started.elapsed());
        }
        if self.is_ending() {
            return LAST_LOOK;
        }
        let serial = self.is_serial();
        let look = (!self.held.is_empty()).then(|| self.until_silent().max(self.other_end.next_look()));
        let limit = self.held.next_limit(serial).map(|limit| limit.saturating_duration_since(Instant::now()));
        let progress = self.held.next_progress();
        let stranded = self.may_strand().then(|| self.next_look_behind());
        limit
            .into_iter()
            .chain(look)
            .chain(stranded)
            .chain(progress)
            .min()
            .unwrap_or(LONG)
            .max(Duration::from_micros(100))
    }

    /// Whether calls wait on the line behind one that may take long.
    fn may_strand(&self) -> bool {
        self.is_serial() && self.held.len() > 1 && !self.took_back
    }

    /// Whether the call that runs takes so long that those behind it are to be taken back.
    pub(super) fn strands(&self, calls: &dyn CallSource) -> bool {
        let longest = self.held.longest();
        self.may_strand() && (longest >= STRANDED || longest >= QUICK && calls.is_short_of_calls())
    }

    /// How long until that may be so.
    fn next_look_behind(&self) -> Duration {
        let longest = self.held.longest();
        let first = QUICK.saturating_sub(longest);
        if first.is_zero() { QUICK.min(STRANDED.saturating_sub(longest)) } else { first }
    }

    /// Tells how far calls are: the latest of each, now and then.
    fn tell_progress(&mut self, calls: &dyn CallSource) {
        for (fence, text) in self.held.due_progress() {
            calls.progress(fence, text);
        }
    }

    fn greet_late(&self) -> Option<WorkerFailure> {
        let late = self.hello.is_none() && self.started.elapsed() >= HELLO;
        late.then(|| WorkerFailure::Nonsense(format!("did not say hello in {} seconds", HELLO.as_secs())))
    }

    fn until_silent(&self) -> Duration {
        SILENT.saturating_sub(self.held.longest())
    }

    /// Looks now and then, while a call takes long, whether an answer can come at all.
    fn hang_up(&mut self) -> Option<WorkerFailure> {
        let due = !self.held.is_empty() && self.until_silent().is_zero() && self.other_end.next_look().is_zero();
        if !due || self.is_ending() {
            return None;
        }
        let gone = self.other_end.is_gone(self.line.other_end()?, self.tree.pid());
        gone.then(|| WorkerFailure::Nonsense("closed its line".to_owned()))
    }

    /// Takes what it has printed and said; the last of it whoever takes what it prints. What it printed before an answer was
    /// read before that answer.
    fn hear(&mut self, calls: &dyn CallSource, output: Output<'_>, last: bool) -> Result<(), WorkerFailure> {
        self.is_clogged &= !last && !output.forwarder.has_room();
        if self.is_clogged {
            return Ok(());
        }
        if last || output.forwarder.has_room() {
            self.printed.take();
        }
        let mut done = Vec::new();
        let heard = loop {
            self.line.read();
            let heard = self.hear_frames(output, &mut done, last);
            // Looked for what an answer counts, it may have read what was printed after answers that came meanwhile.
            if heard.is_err() || !self.printed.was_read_ahead() {
                break heard;
            }
        };
        let serial = self.is_serial();
        // What is left was printed after the last answer.
        if serial && !self.printed.is_empty() {
            let Worker { held, printed, .. } = self;
            if let Some(oldest) = held.oldest() {
                let given = printed.give(&mut oldest.capture, output);
                oldest.printed = [0, 1].map(|which| oldest.printed[which] + given[which]);
            } else if let Some(latest) = done.last_mut() {
                printed.give(&mut latest.ended.output, output);
            }
        }
        if self.hello.is_some() {
            self.printed.pass_on(output);
        } else {
            self.printed.give(&mut self.before, output);
        }
        self.tell_progress(calls);
        if !done.is_empty() {
            self.answered += done.len() as u64;
            self.held.answered(&mut done, serial);
            self.measure();
            reached("calls answered");
            calls.done(done);
        }
        heard
    }

    fn hear_frames(&mut self, output: Output<'_>, done: &mut Vec<EndedCall>, last: bool) -> Result<(), WorkerFailure> {
        while !self.is_clogged
            && let Some(frame) = self.line.next()
        {
            let said = frame.and_then(protocol::read).map_err(WorkerFailure::Nonsense)?;
            match (said, self.hello.is_some()) {
                (WorkerMessage::Nothing, _) => {}
                (WorkerMessage::Hello(id, hello), false) => {
                    protocol::write_welcome(self.line.outgoing(), &id, hello.as_ref().err().map(String::as_str));
                    self.line.write();
                    self.hello = Some(hello.map_err(WorkerFailure::Refused)?);
                    self.memory = Worker::memory(self.tree.pid());
                }
                (WorkerMessage::Hello(..), true) => return Err(WorkerFailure::Nonsense("said hello twice".to_owned())),
                (_, false) => return Err(WorkerFailure::Nonsense("did not begin with hello".to_owned())),
                (WorkerMessage::Answer(id, answer), true) => {
                    let serial = self.is_serial();
                    let Some(mut call) = self.held.remove(id, serial) else {
                        return Err(WorkerFailure::Nonsense(format!(
                            "gave an answer with the id {id}, which no open call has"
                        )));
                    };
                    if serial && self.printed.settle(&mut call.capture, call.printed, answer.printed, output) {
                        self.is_clogged = !last && !output.forwarder.has_room();
                    }
                    let took = self.held.since(&call, serial).elapsed();
                    done.push(call.answered(answer, took));
                }
                (WorkerMessage::Output(job, stream, text), true) => {
                    if let Some(call) = self.held.of_job(job) {
                        call.capture.push(stream, text.as_bytes());
                    }
                    self.printed.say(stream, &text, output);
                    self.is_clogged = !last && !output.forwarder.has_room();
                }
                (WorkerMessage::Progress(job, text), true) => {
                    self.held.note_progress(job, text);
                }
            }
        }
        Ok(())
    }
}

pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
