//! Calls that run in the host: a program that has started the processor itself. It speaks the protocol of workers, but asyncq
//! neither starts nor ends it.
//!
//! Invariant: a call that was written to the host and is not answered goes to nobody else while the host lives. No call is sent to
//! wait there, because asyncq could not take it back.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::{path::Path, time::Duration};

use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Token};
use crate::error::reason;
use crate::runner::process::tree::{GRACE, REST_GRACE};
use crate::runner::worker::peer::{EndingCalls, Peer, SessionEnd};
use crate::runner::worker::protocol::{self, Hello};
use crate::runner::worker::{
    CallSource, EndedCall, channel::Channel, host::Host, in_flight::InFlightCall, session::Session,
};
use crate::runner::{Output, Stop, StopSwitch, process::orphans};

/// How long a wait for the hello lasts at most before asyncq checks whether the host still lives.
const LOOK: Duration = Duration::from_millis(500);

/// How long the programs of its calls may take to end, after the host has ended and they were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing more is sent to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostLoss {
    /// It has ended.
    Ended,
    /// What it did wrong, to continue "the host". It lives.
    Protocol(String),
}

/// A host that has said hello, and the calls that it holds.
pub type HostSession = Session<Host>;

impl HostSession {
    /// Waits until the host at the other end of a socket says hello. `wait` waits for its end for this long, and returns whether to
    /// go on, or `None` if not.
    ///
    /// # Errors
    /// Why there is no session with it.
    pub fn greet(
        socket: OwnedFd,
        (host, ended): (Host, OwnedFd),
        wait: impl Fn(BorrowedFd<'_>, Duration) -> bool,
    ) -> Result<Option<HostSession>, HostLoss> {
        let channel = Channel::at(socket)
            .map_err(|error| HostLoss::Protocol(format!("cannot be spoken to: {}", reason(&error))))?;
        let mut session = Session::new(host, ended, channel, Path::new(""));
        while session.hello.is_none() {
            match session.try_greet() {
                Ok(left) if session.hello.is_none() && !wait(session.channel.fd(), left.min(LOOK)) => return Ok(None),
                Ok(_) => {}
                Err(SessionEnd::Ended) => {
                    let ended = session.ends_within(REST_GRACE);
                    let what = if ended { "ended" } else { "closed the socket" };
                    return Err(HostLoss::Protocol(format!("{what} before it said hello")));
                }
                Err(end) => return Err(HostLoss::Protocol(violation(end))),
            }
        }
        Ok(Some(session))
    }

    /// Reads what the host says until its hello. Returns how long to wait for more.
    fn try_greet(&mut self) -> Result<Duration, SessionEnd> {
        // This is checked first, so that everything that it said before its end is there.
        let has_ended = self.ends_within(Duration::ZERO);
        self.channel.read();
        while self.hello.is_none()
            && let Some(frame) = self.channel.next()
        {
            let message = frame.and_then(protocol::read).map_err(SessionEnd::Violation)?;
            self.take_hello(message)?;
        }
        match self.hello {
            Some(_) => Ok(Duration::ZERO),
            None if has_ended || self.channel.is_over => Err(SessionEnd::Ended),
            None => self.time_for_hello(),
        }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.peer
    }

    /// The functions that run in it.
    pub fn functions(&self) -> &[String] {
        self.hello.as_ref().and_then(|hello| hello.functions.as_deref()).unwrap_or_default()
    }

    /// Whether it has promised that no call of an earlier processor still runs in it.
    pub fn is_idle(&self) -> bool {
        self.hello.as_ref().is_some_and(|hello| hello.idle)
    }

    /// Runs calls from `calls` until no more are expected and all are answered, or until the host is lost; then says why. Long
    /// outputs go into `folder`.
    pub fn serve(
        &mut self,
        calls: &dyn CallSource,
        (output, folder): (Output<'_>, &Path),
        control: &StopSwitch,
    ) -> Option<HostLoss> {
        folder.clone_into(&mut self.folder);
        let violation = match self.run(calls, output, control) {
            SessionEnd::Idle | SessionEnd::Unneeded | SessionEnd::Unkillable => return None,
            end => violation(end),
        };
        // A host that ends closes its socket a moment earlier.
        let time = if self.channel.is_over { REST_GRACE } else { Duration::ZERO };
        Some(if self.ends_within(time) { HostLoss::Ended } else { HostLoss::Protocol(violation) })
    }

    /// The host is lost. Gives back the calls that it has not got, and closes the socket. Returns the calls that it may still be
    /// running, if it lives, and those that have ended with it.
    #[must_use]
    pub fn part(mut self, loss: &HostLoss, calls: &dyn CallSource) -> (Vec<Claim>, Vec<EndedCall>) {
        let (from, _) = self.channel.take_back();
        let unsent = self.in_flight.take_from(from, false);
        let begun = self.in_flight.take();
        drop(self);
        calls.back(unsent.into_iter().map(|call| call.begun).collect());
        let tokens: Vec<Token> = begun.iter().map(|call| call.begun.claim.token.clone()).collect();
        if *loss != HostLoss::Ended || !orphans::end(&tokens, PATIENCE) {
            // They keep their marks, so the next processor finds out when they have ended.
            return (begun.into_iter().map(|call| call.begun.claim).collect(), Vec::new());
        }
        let crashed = || Outcome::Crashed("the program that it ran in has ended".to_owned());
        let end = |call: InFlightCall| {
            let outcome = call.ending.map_or_else(crashed, |ending| ending.why.outcome());
            call.ended(outcome)
        };
        (Vec::new(), begun.into_iter().map(end).collect())
    }
}

impl Peer for Host {
    /// A host has to name its functions, because it is registered for none.
    fn accept(&mut self, hello: &Hello) -> Result<(), String> {
        hello.functions.as_ref().map(|_| ()).ok_or_else(|| "`functions` has to name what runs in it".to_owned())
    }

    fn echoes(&self, hello: Option<&Hello>) -> bool {
        hello.is_none_or(|hello| hello.echo)
    }

    fn end_calls(&mut self, calls: &EndingCalls) -> Result<(), String> {
        match calls {
            EndingCalls { stop: Stop::Kill, .. } => Err("was not waited for".to_owned()),
            EndingCalls { are_late: true, job, .. } => {
                Err(format!("did not end job {job} within {} seconds", GRACE.as_secs()))
            }
            _ => Ok(()),
        }
    }
}

/// What the host did, to go on after "the host".
fn violation(end: SessionEnd) -> String {
    match end {
        SessionEnd::Violation(what) => what,
        SessionEnd::Refused(why) => format!("was refused: {why}"),
        _ => "closed the socket".to_owned(),
    }
}
