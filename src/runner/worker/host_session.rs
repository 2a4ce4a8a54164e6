//! Calls that run in a host: a program which has started the processor itself, and is spoken to as workers are, but is neither
//! started nor ended by asyncq.
//!
//! Invariant: a call that was written to the host and not answered is given to nobody else while the host lives. Nothing is
//! written ahead, as it could not be taken back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence, Token};
use crate::error::reason;
use crate::failpoint::reached;
use crate::runner::process::tree::{GRACE, LAST_LOOK, REST_GRACE};
use crate::runner::process::{fds, orphans};
use crate::runner::worker::channel::Channel;
use crate::runner::worker::host::Host;
use crate::runner::worker::in_flight::{InFlight, InFlightCall};
use crate::runner::worker::printed::WorkerOutput;
use crate::runner::worker::protocol;
use crate::runner::worker::protocol::{Hello, WorkerMessage};
use crate::runner::worker::serve::{LONG, now};
use crate::runner::worker::{CallSource, EndedCall, HELLO, SendLimits, SentCall};
use crate::runner::{Output, Stop, StopSwitch};

/// How long a wait for its hello lasts at most, before it is looked whether it still lives.
const LOOK: Duration = Duration::from_millis(500);

/// How long what a host has started inside its calls may take to end, once the host has ended and that is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing more is sent to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostLoss {
    /// It has ended.
    Ended,
    /// Says what it did, to go on after "the host"; it lives.
    Protocol(String),
}

/// A host that has said hello.
#[derive(Debug)]
pub struct HostSession {
    host: Host,
    /// Tells that it has ended.
    ended: OwnedFd,
    line: Channel,
    hello: Hello,
    held: InFlight,
    cancelling: Vec<Fence>,
    /// Passes on what its calls say that they have printed; it has no streams.
    printed: WorkerOutput,
}

impl HostSession {
    /// Waits until the host at the other end of a socket says hello. `wait` waits for that end, so long, and says whether to go
    /// on; `None` when not.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn greet(
        socket: OwnedFd,
        (host, ended): (Host, OwnedFd),
        wait: impl Fn(BorrowedFd<'_>, Duration) -> bool,
    ) -> Result<Option<HostSession>, HostLoss> {
        let cannot = |error: std::io::Error| HostLoss::Protocol(format!("cannot be spoken to: {}", reason(&error)));
        let mut line = Channel::at(socket).map_err(cannot)?;
        let began = Instant::now();
        loop {
            // Looked at first: what it said before it ended is there then.
            let is_gone = is_over(&ended);
            line.read();
            while let Some(frame) = line.next() {
                match frame.and_then(protocol::read).map_err(HostLoss::Protocol)? {
                    WorkerMessage::Nothing => {}
                    WorkerMessage::Hello(id, hello) => {
                        let hello = hello.and_then(with_functions);
                        let refused = hello.as_ref().err().map(String::as_str);
                        protocol::write_welcome(line.outgoing(), &id, refused);
                        line.write();
                        let hello = hello.map_err(|why| HostLoss::Protocol(format!("was refused: {why}")))?;
                        let (held, printed) = (InFlight::default(), WorkerOutput::of([None, None]));
                        let cancelling = Vec::new();
                        return Ok(Some(HostSession { host, ended, line, hello, held, cancelling, printed }));
                    }
                    _ => return Err(HostLoss::Protocol("did not begin with hello".to_owned())),
                }
            }
            if is_gone || line.is_over() {
                let before = |what| HostLoss::Protocol(format!("{what} before it said hello"));
                return Err(before(if is_gone || lingers(&ended) { "ended" } else { "closed the socket" }));
            }
            let left = HELLO.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(HostLoss::Protocol(format!("did not say hello in {} seconds", HELLO.as_secs())));
            }
            if !wait(line.fd(), left.min(LOOK)) {
                return Ok(None);
            }
        }
    }

    /// Who it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The functions that run in it.
    #[must_use]
    pub fn functions(&self) -> &[String] {
        self.hello.functions.as_deref().unwrap_or_default()
    }

    /// How many calls it runs at once.
    #[must_use]
    pub fn at_once(&self) -> usize {
        self.hello.calls.max(1)
    }

    /// Whether it has promised that no call of an earlier processor runs in it any more.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.hello.idle
    }

    /// Runs calls from `calls`, until that is `closed` and all are answered, or until nothing can be run in it any more: then
    /// says why.
    pub fn serve(
        &mut self,
        calls: &dyn CallSource,
        (output, folder): (Output<'_>, &Path),
        control: &StopSwitch,
        closed: impl Fn() -> bool,
    ) -> Option<HostLoss> {
        loop {
            self.fill(calls, folder);
            if let Some(flaw) = calls.flaw() {
                return Some(HostLoss::Protocol(flaw));
            }
            if self.held.is_empty() && closed() {
                self.printed.finish(output);
                return None;
            }
            self.line.write();
            self.wait_for(control, output);
            control.drain();
            let is_gone = is_over(&self.ended);
            let heard = self.hear(calls, output, is_gone);
            if is_gone {
                return Some(HostLoss::Ended);
            }
            let flaw = heard.err().or_else(|| self.line.is_over().then(|| "closed the socket".to_owned()));
            if let Some(flaw) = flaw.or_else(|| self.mind(calls, control)) {
                // One that ends closes its socket a moment before.
                let ends = self.line.is_over() && lingers(&self.ended);
                return Some(if ends || is_over(&self.ended) { HostLoss::Ended } else { HostLoss::Protocol(flaw) });
            }
        }
    }

    /// Nothing can be run in it any more: gives back what it has not got, and closes the socket. Gives the calls that it may
    /// be running, if it lives, and those that have ended with it.
    #[must_use]
    pub fn part(self, loss: &HostLoss, calls: &dyn CallSource) -> (Vec<Claim>, Vec<EndedCall>) {
        let HostSession { mut line, mut held, .. } = self;
        let (from, _) = line.take_back();
        let unsent = held.take_from(from);
        drop(line);
        calls.back(unsent.into_iter().map(|call| call.begun).collect());
        let begun = held.take();
        let tokens: Vec<Token> = begun.iter().map(|call| call.begun.claim.token.clone()).collect();
        if *loss != HostLoss::Ended || !orphans::end(&tokens, PATIENCE) {
            // Not unmarked: who comes next finds out when they have ended.
            return (begun.into_iter().map(|call| call.begun.claim).collect(), Vec::new());
        }
        let end = |call: InFlightCall| {
            let outcome = call.ending.map_or_else(
                || Outcome::Crashed("the program that it ran in has ended".to_owned()),
                |ending| ending.why.outcome(),
            );
            call.ended(outcome)
        };
        (Vec::new(), begun.into_iter().map(end).collect())
    }

    fn fill(&mut self, calls: &dyn CallSource, folder: &Path) {
        while self.held.len() < self.at_once() && !self.is_ending() {
            let room = SendLimits { held: self.held.len(), at_once: self.at_once(), ahead: 0, are_tiny: false };
            let Some(begun) = calls.next(room) else { return };
            self.send(begun, folder);
        }
    }

    fn send(&mut self, begun: SentCall, folder: &Path) {
        let from = self.line.end();
        let id = self.held.push(begun, from, folder);
        if let Some(call) = self.held.latest() {
            let limit = call.begun.claim.definition.timeout;
            let deadline = limit.map(|limit| now().after(limit));
            protocol::write_call(self.line.outgoing(), id, &call.begun.claim, deadline);
        }
    }

    fn is_ending(&mut self) -> bool {
        self.held.running(false).any(|call| call.ending.is_some())
    }

    /// Sleeps until something happens.
    fn wait_for(&mut self, control: &StopSwitch, output: Output<'_>) {
        let listening = output.forwarder.has_room();
        let wake = control.wake();
        let mut fds = vec![PollFd::new(&self.ended, PollFlags::IN), PollFd::new(&wake, PollFlags::IN)];
        let writing = if self.line.waiting() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        if listening {
            fds.push(PollFd::from_borrowed_fd(self.line.fd(), PollFlags::IN | writing));
        }
        let limit = self.held.next_limit(false).map(|limit| limit.saturating_duration_since(Instant::now()));
        let progress = self.held.next_progress();
        let time = limit.into_iter().chain(progress).min().unwrap_or(LONG).max(Duration::from_micros(100));
        let ending = self.held.running(false).any(|call| call.ending.is_some());
        let time = if ending { LAST_LOOK } else { time };
        let time = if listening { time } else { time.min(Duration::from_millis(10)) };
        // Interrupted or not: whoever waits looks what has happened.
        let _ = fds::wait(&mut fds, Some(time));
    }

    /// Takes what it has said, unless nobody takes what its calls print; the last of it whoever takes that.
    fn hear(&mut self, calls: &dyn CallSource, output: Output<'_>, last: bool) -> Result<(), String> {
        let mut done = Vec::new();
        if last || output.forwarder.has_room() {
            self.line.read();
        }
        let heard = loop {
            let Some(frame) = self.line.next() else { break Ok(()) };
            let said = frame.and_then(protocol::read);
            if let Err(flaw) = said.and_then(|said| hear(self, said, &mut done, output)) {
                break Err(flaw);
            }
        };
        for (fence, text) in self.held.due_progress() {
            calls.progress(fence, text);
        }
        if !done.is_empty() {
            reached("calls answered");
            calls.done(done);
        }
        heard
    }

    /// Tells it which calls are to end; says what it did when that was told long enough ago.
    fn mind(&mut self, calls: &dyn CallSource, control: &StopSwitch) -> Option<String> {
        self.cancelling.extend(calls.cancelled());
        let stop = control.asked();
        let HostSession { held, line, cancelling, .. } = self;
        for (call, why) in held.ask_to_end(false, stop, cancelling) {
            protocol::write_cancel(line.outgoing(), &call.begun.claim, why.as_str());
        }
        line.write();
        if stop == Stop::Kill && !held.is_empty() {
            return Some("was not waited for".to_owned());
        }
        let now = Instant::now();
        let mut late = held.running(false).filter(|call| call.ending.is_some_and(|ending| now >= ending.kill_at));
        late.next().map(|call| {
            let (job, time) = (call.begun.claim.fence.job, GRACE.as_secs());
            format!("did not end job {job} within {time} seconds")
        })
    }
}

fn hear(
    hosted: &mut HostSession,
    said: WorkerMessage,
    done: &mut Vec<EndedCall>,
    output: Output<'_>,
) -> Result<(), String> {
    match said {
        WorkerMessage::Nothing => {}
        WorkerMessage::Hello(..) => return Err("said hello twice".to_owned()),
        WorkerMessage::Answer(id, answer) => {
            let call = hosted.held.remove(id, false);
            let call = call.ok_or_else(|| format!("gave an answer with the id {id}, which no open call has"))?;
            let took = hosted.held.since(&call, false).elapsed();
            done.push(call.answered(answer, took));
        }
        WorkerMessage::Output(job, stream, text) => {
            if let Some(call) = hosted.held.of_job(job) {
                call.capture.push(stream, text.as_bytes());
            }
            hosted.printed.say(stream, &text, output);
        }
        WorkerMessage::Progress(job, text) => hosted.held.note_progress(job, text),
    }
    Ok(())
}

/// A host says which functions run in it: it has not been registered for any.
fn with_functions(hello: Hello) -> Result<Hello, String> {
    if hello.functions.is_some() { Ok(hello) } else { Err("`functions` has to name what runs in it".to_owned()) }
}

fn is_over(ended: &OwnedFd) -> bool {
    waits(ended, Duration::ZERO)
}

/// Whether a process that has closed its socket ends, too: it gets a moment for that.
fn lingers(ended: &OwnedFd) -> bool {
    waits(ended, REST_GRACE)
}

fn waits(ended: &OwnedFd, time: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN)];
    matches!(fds::wait(&mut fds, Some(time)), Ok(1..))
}
