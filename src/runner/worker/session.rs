//! The conversation with a program that runs calls: a worker, which asyncq has started, or the host, which has started asyncq.
//!
//! Invariant: a call that the peer may have read goes to nobody else before the peer has answered it or has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::domain::{attempt::Outcome, job::Fence};
use crate::failpoint::reached;
use crate::runner::worker::in_flight::{InFlight, InFlightCall, QUICK};
use crate::runner::worker::peer::{EndingCalls, Peer, SessionEnd};
use crate::runner::worker::protocol::{self, Hello, WorkerMessage};
use crate::runner::worker::{CallSource, EndedCall, SentCall, channel::Channel, hangup::HangupDetector};
use crate::runner::{Output, Stop, StopSwitch, output::program_output::ProgramOutput, process::tree::LAST_LOOK};
use crate::system::fds;

/// How long a peer may take to say hello.
pub(super) const HELLO: Duration = Duration::from_secs(30);

/// How many calls a worker that runs one after another holds at most. With these, it does not have to wait for the next one.
const WINDOW: usize = 1024;

/// If this many bytes of calls wait to be written, the peer gets no more.
const AHEAD: usize = 1024 * 1024;

/// How long to sleep when only descriptors can wake the session.
const LONG: Duration = Duration::from_secs(600);

/// A peer, the channel to it, and the calls that it holds.
#[derive(Debug)]
pub struct Session<P> {
    pub(super) peer: P,
    /// Becomes readable when the peer's process has ended.
    pub(super) ended: OwnedFd,
    pub(super) channel: Channel,
    pub(super) hello: Option<Hello>,
    pub(super) in_flight: InFlight,
    /// Attempts that are to be cancelled.
    pub(super) cancelling: Vec<Fence>,
    pub(super) output: ProgramOutput,
    /// Whether the peer has printed while nobody took it. Then nothing is read from it until somebody does.
    pub(super) is_clogged: bool,
    /// Watches the other end of the channel, if asyncq has that end open too.
    pub(super) hangup: Option<HangupDetector>,
    pub(super) started: Instant,
    /// Where long outputs are put.
    pub(super) folder: PathBuf,
}

impl<P> Session<P> {
    /// A session with a peer that has not said hello yet, and has no streams.
    pub(super) fn new(peer: P, ended: OwnedFd, channel: Channel, folder: &Path) -> Session<P> {
        Session {
            peer,
            ended,
            channel,
            hello: None,
            in_flight: InFlight::default(),
            cancelling: Vec::new(),
            output: ProgramOutput::new(folder),
            is_clogged: false,
            hangup: None,
            started: Instant::now(),
            folder: folder.to_owned(),
        }
    }

    /// How many calls the peer runs at once, if it has said hello.
    pub fn at_once(&self) -> Option<usize> {
        self.hello.as_ref().map(|hello| hello.calls.max(1))
    }

    /// Whether the peer's process ends within this time.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN)];
        matches!(fds::wait(&mut fds, Some(time)), Ok(1..))
    }

    /// Sleeps until something happens on the channel, the streams, the peer's end, or the others.
    pub(super) fn wait_for(&self, others: &[PollFd<'_>], time: Duration, output: Output<'_>) {
        let listening = output.forwarder.has_room();
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(4 + others.len());
        fds.push(PollFd::new(&self.ended, PollFlags::IN));
        let writing = if self.channel.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        if !self.channel.is_over && !self.is_clogged {
            fds.push(PollFd::from_borrowed_fd(self.channel.fd(), PollFlags::IN | writing));
        }
        if listening {
            fds.extend(self.output.streams().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        }
        fds.extend(self.in_flight.followers());
        fds.extend_from_slice(others);
        // Room that has come since then wakes nobody.
        let time = if listening && !self.is_clogged { time } else { time.min(Duration::from_millis(10)) };
        // It makes no difference whether a signal interrupted this: the caller checks what has happened anyway.
        let _ = fds::wait(&mut fds, Some(time));
    }

    /// What is left of the time for a hello.
    ///
    /// # Errors
    /// When that is over.
    pub(super) fn time_for_hello(&self) -> Result<Duration, SessionEnd> {
        let left = HELLO.saturating_sub(self.started.elapsed());
        let late = || SessionEnd::Violation(format!("did not say hello in {} seconds", HELLO.as_secs()));
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }

    /// Takes the calls that the peer has not read, unless the oldest call has to stay.
    pub(super) fn take_unread(&mut self, keep_oldest: bool) -> Vec<InFlightCall> {
        let (from, mut bytes) = self.channel.take_back();
        let taken = self.in_flight.take_from(from, keep_oldest);
        if let Some(first) = taken.first() {
            bytes.truncate(usize::try_from(first.from - from).unwrap_or(usize::MAX));
        }
        // These are the rest of a message that the peer has read in part, and messages that are not calls.
        self.channel.outgoing.extend_from_slice(&bytes);
        self.channel.write();
        taken
    }

    /// Whether a call that runs was told to end.
    pub(super) fn is_ending(&self, serial: bool) -> bool {
        self.in_flight.running(serial).any(|call| call.ending.is_some())
    }
}

#[expect(private_bounds, reason = "the layers above know the two peers, and not how they differ")]
impl<P: Peer> Session<P> {
    /// Runs calls until there are none left and all are answered, or until the peer does not go on.
    pub(super) fn run(&mut self, calls: &dyn CallSource, output: Output<'_>, control: &StopSwitch) -> SessionEnd {
        self.cancelling.clear();
        // This is what it said and printed while nobody listened.
        let mut result = self.hear(calls, output, false);
        while result.is_ok() {
            result = self.turn(calls, output, control);
        }
        result.err().unwrap_or(SessionEnd::Idle)
    }

    /// Sends calls, waits until something happens, and handles that.
    fn turn(&mut self, calls: &dyn CallSource, output: Output<'_>, control: &StopSwitch) -> Result<(), SessionEnd> {
        if self.hello.is_some() {
            self.fill(calls).map_err(SessionEnd::Violation)?;
            if self.in_flight.is_empty() && !calls.waits() && !(self.is_clogged && calls.is_open()) {
                self.output.finish(output);
                return Err(SessionEnd::Idle);
            }
        } else if control.asked() > Stop::Cancel || !calls.is_open() {
            return Err(SessionEnd::Unneeded);
        }
        self.channel.write();
        let wake = PollFd::from_borrowed_fd(control.wake(), PollFlags::IN);
        self.wait_for(&[wake], self.time_to_look()?, output);
        control.drain();
        // This is checked first, so that everything that the peer said before its end is there.
        let has_ended = self.ends_within(Duration::ZERO);
        self.hear(calls, output, has_ended)?;
        if let Some(tap) = output.tap {
            self.in_flight.serve_followers(tap);
        }
        if has_ended || self.channel.is_over && !self.is_clogged {
            return Err(SessionEnd::Ended);
        }
        self.check_calls(calls, control)?;
        self.check_hangup()
    }

    /// Whether the peer runs one call after another, and more may wait behind the one that runs.
    pub(super) fn is_serial(&self) -> bool {
        self.peer.can_queue() && self.hello.as_ref().is_none_or(Hello::is_serial)
    }

    /// How many calls the peer may hold now.
    fn window(&self) -> usize {
        match &self.hello {
            // If the peer does not count what it prints, only the time shows to which call that belongs.
            Some(hello) if self.is_serial() => {
                let may_queue = hello.counts_output() && self.in_flight.longest() < QUICK;
                if may_queue { WINDOW } else { 1 }
            }
            Some(hello) => hello.calls.max(1),
            None => 0,
        }
    }

    /// Sends calls, as far as they may be sent. A call that was charged with a crash has the worker for itself.
    fn fill(&mut self, calls: &dyn CallSource) -> Result<(), String> {
        if self.peer.wears_out(self.in_flight.len()) {
            calls.leaves();
        }
        let (at_once, serial) = (self.at_once().unwrap_or(1), self.is_serial());
        // A host takes as many calls as it runs at once, whether it reads them or not. Otherwise, the rest would be claimed and put
        // back again and again.
        let is_fast = |session: &Self| session.channel.outgoing.len() < AHEAD && !session.is_clogged;
        while self.in_flight.len() < self.window()
            && (!self.peer.can_queue() || is_fast(self))
            && !self.peer.is_worn(self.in_flight.len())
            && !self.is_ending(serial)
        {
            let Some(begun) = calls.next(self.in_flight.room(at_once))? else { break };
            self.send(begun, calls);
        }
        Ok(())
    }

    fn send(&mut self, begun: SentCall, calls: &dyn CallSource) {
        self.peer.prepare(&begun.claim);
        let (fence, to_cancel) = (begun.claim.fence, self.cancelling.len());
        self.cancelling.retain(|which| *which != fence);
        let missing = self.hello.as_ref().and_then(|hello| hello.missing(begun.claim.call.function.as_str()));
        let over = match missing {
            Some(failure) => Some(Outcome::Unstarted(failure)),
            None => (self.cancelling.len() < to_cancel).then_some(Outcome::Cancelled),
        };
        let call = InFlightCall::new(self.in_flight.take_id(), begun, self.channel.end(), &self.folder);
        if let Some(outcome) = over {
            return calls.done(vec![call.ended(outcome)]);
        }
        protocol::write_call(&mut self.channel.outgoing, call.id, &call.begun.claim, call.deadline());
        self.in_flight.push(call);
    }

    /// How long until something has to be checked.
    fn time_to_look(&self) -> Result<Duration, SessionEnd> {
        if self.hello.is_none() {
            return self.time_for_hello();
        }
        let serial = self.is_serial();
        if self.is_ending(serial) {
            return Ok(LAST_LOOK);
        }
        let calls = &self.in_flight;
        let look = self.hangup.as_ref().filter(|_| !calls.is_empty());
        let look = look.map(|hangup| calls.until_silent().max(hangup.next_look()));
        let limit = calls.next_limit(serial).map(|limit| limit.saturating_duration_since(Instant::now()));
        let times = [limit, look, calls.until_stranded(serial), calls.next_report()];
        Ok(times.into_iter().flatten().min().unwrap_or(LONG).max(Duration::from_micros(100)))
    }

    /// Checks now and then, while a call takes long, whether an answer can come at all.
    fn check_hangup(&mut self) -> Result<(), SessionEnd> {
        let is_silent = !self.in_flight.is_empty() && self.in_flight.until_silent().is_zero();
        let may_check = is_silent && !self.is_ending(self.is_serial());
        let hangup = self.hangup.as_mut().filter(|hangup| may_check && hangup.next_look().is_zero());
        let is_gone = hangup.is_some_and(HangupDetector::is_gone);
        if is_gone { Err(SessionEnd::Violation("closed its channel".to_owned())) } else { Ok(()) }
    }

    /// Ends calls that have to end, and takes back those that wait behind a long one.
    fn check_calls(&mut self, calls: &dyn CallSource, control: &StopSwitch) -> Result<(), SessionEnd> {
        let serial = self.is_serial();
        let cancelled = calls.cancelled();
        let stop = control.asked();
        if !cancelled.is_empty() || stop > Stop::Cancel || self.in_flight.strands(serial, || calls.is_short_of_calls())
        {
            self.cancelling.extend(cancelled);
            self.take_back(calls, serial && stop <= Stop::Cancel);
        }
        let are_new = self.ask_to_end(serial, stop);
        let ending = self.in_flight.running(serial).filter_map(|call| Some((call.ending?.kill_at, call.fence().job)));
        if let Some((kill_at, job)) = ending.min() {
            let are_late = Instant::now() >= kill_at || stop == Stop::Kill;
            let ending = EndingCalls { job, are_new, are_late, stop };
            self.peer.end_calls(&ending).map_err(SessionEnd::Violation)?;
        }
        if self.peer.is_left() { Err(SessionEnd::Unkillable) } else { Ok(()) }
    }

    /// Tells the peer which of the running calls have to end. Returns whether there are new ones among them.
    fn ask_to_end(&mut self, serial: bool, stop: Stop) -> bool {
        let asked = self.in_flight.ask_to_end(serial, stop, &mut self.cancelling);
        if asked.is_empty() {
            return false;
        }
        for (call, why) in asked {
            protocol::write_cancel(&mut self.channel.outgoing, &call.begun.claim, why.as_str());
        }
        self.channel.write();
        true
    }

    /// Takes back the calls that the peer has not read yet. If `one_after_another`, the call whose turn it is stays, because its
    /// time goes on, unless it has to be cancelled.
    fn take_back(&mut self, calls: &dyn CallSource, one_after_another: bool) {
        let oldest = self.in_flight.oldest().map(|oldest| oldest.fence());
        let keep = one_after_another && oldest.is_some_and(|oldest| !self.cancelling.contains(&oldest));
        let taken = self.take_unread(keep);
        self.in_flight.took_back = true;
        let (cancelled, back): (Vec<InFlightCall>, Vec<InFlightCall>) =
            taken.into_iter().partition(|call| self.cancelling.contains(&call.fence()));
        self.cancelling.retain(|which| !cancelled.iter().any(|call| call.fence() == *which));
        calls.back(back.into_iter().map(|call| call.begun).collect());
        calls.done(cancelled.into_iter().map(|call| call.ended(Outcome::Cancelled)).collect());
    }

    /// Takes what the peer has printed and said. If that is the `last` of it, takes it even if nobody reads the output. What it
    /// printed before an answer is read before that answer.
    fn hear(&mut self, calls: &dyn CallSource, output: Output<'_>, last: bool) -> Result<(), SessionEnd> {
        self.is_clogged &= !last && !output.forwarder.has_room();
        if self.is_clogged {
            return Ok(());
        }
        if last || output.forwarder.has_room() {
            self.output.take();
        }
        let mut done = Vec::new();
        let heard = loop {
            self.channel.read();
            let heard = self.hear_messages(output, &mut done, last);
            // The search for the output of an answer may have read what was printed after answers that arrived meanwhile.
            if heard.is_err() || !self.output.was_read_ahead() {
                break heard;
            }
        };
        let serial = self.is_serial();
        // The rest was printed after the last answer.
        if serial && !self.output.is_empty() {
            if let Some(oldest) = self.in_flight.oldest() {
                let given = self.output.give(&mut oldest.capture, output.of(&oldest.begun.claim));
                oldest.printed = [0, 1].map(|which| oldest.printed[which] + given[which]);
            } else if let Some(latest) = done.last_mut() {
                let output = output.of(&latest.claim);
                self.output.give(&mut latest.ended.output, output);
                self.output.call_ended(output);
            }
        }
        if self.hello.is_some() {
            self.output.pass_on(output);
        } else {
            self.output.keep(output);
        }
        for (fence, report) in self.in_flight.due_reports() {
            calls.report(fence, report);
        }
        if !done.is_empty() {
            self.in_flight.answered(&mut done, serial);
            self.peer.count_answers(done.len(), self.in_flight.len());
            reached("calls answered");
            calls.done(done);
        }
        heard
    }

    fn hear_messages(&mut self, output: Output<'_>, done: &mut Vec<EndedCall>, last: bool) -> Result<(), SessionEnd> {
        while !self.is_clogged
            && let Some(frame) = self.channel.next()
        {
            match frame.and_then(protocol::read).map_err(SessionEnd::Violation)? {
                message if self.hello.is_none() => self.take_hello(message)?,
                WorkerMessage::Nothing => {}
                WorkerMessage::Hello(..) => return Err(SessionEnd::Violation("said hello twice".to_owned())),
                WorkerMessage::Answer(id, answer) => {
                    let serial = self.is_serial();
                    let Some(mut call) = self.in_flight.remove(id, serial) else {
                        let what = format!("gave an answer with the id {id}, which no open call has");
                        return Err(SessionEnd::Violation(what));
                    };
                    let output = output.of(&call.begun.claim);
                    if serial && self.output.settle(&mut call.capture, call.printed, answer.printed, output) {
                        self.is_clogged = !last && !output.forwarder.has_room();
                    }
                    self.output.call_ended(output);
                    let took = self.in_flight.since(&call, serial).elapsed();
                    done.push(call.answered(answer, took));
                }
                WorkerMessage::Output(job, stream, text) => {
                    let claim = self.in_flight.of_job(job).map(|call| call.keep(stream, &text));
                    let output = claim.map_or(output, |claim| output.of(claim));
                    if self.peer.echoes(self.hello.as_ref()) {
                        self.output.say(stream, &text, output);
                        self.is_clogged = !last && !output.forwarder.has_room();
                    }
                }
                WorkerMessage::Report(job, report) => self.in_flight.note_report(job, report),
            }
        }
        Ok(())
    }

    /// Takes a message of a peer that has not said hello yet.
    pub(super) fn take_hello(&mut self, message: WorkerMessage) -> Result<(), SessionEnd> {
        match message {
            WorkerMessage::Nothing => Ok(()),
            WorkerMessage::Hello(id, hello) => {
                let hello = hello.and_then(|hello| self.peer.accept(&hello).map(|()| hello));
                protocol::write_welcome(&mut self.channel.outgoing, &id, hello.as_ref().err().map(String::as_str));
                self.channel.write();
                self.hello = Some(hello.map_err(SessionEnd::Refused)?);
                Ok(())
            }
            _ => Err(SessionEnd::Violation("did not begin with hello".to_owned())),
        }
    }
}
