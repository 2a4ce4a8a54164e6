//! How a worker ends, and what becomes of its calls if it does not go on.

use std::time::{Duration, Instant};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::process::Signal;

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::log::Stream;
use crate::runner::process::tree::{GRACE, REST_GRACE, soon};
use crate::runner::worker::{
    CallSource, EndedCall, FailedWorker, SentCall, ServeEnd, Worker, in_flight::InFlightCall, peer::SessionEnd,
};
use crate::runner::{Capture, Output};
use crate::system::signals;

impl Worker {
    /// Lets it end, and kills it if it does not. What it prints meanwhile goes to `output`.
    pub fn end(mut self: Box<Self>, output: Output<'_>) {
        self.channel.close();
        self.wait_for_exit(GRACE, output);
        let _ = self.reap();
        self.output.finish(output);
    }

    /// Kills it at once.
    pub fn kill(mut self: Box<Self>) {
        let _ = self.peer.tree.kill();
    }

    /// Makes a worker end that has not begun a call.
    pub(super) fn leave(mut self: Box<Self>, output: Output<'_>) -> ServeEnd {
        let _ = self.reap();
        self.output.finish(output);
        ServeEnd::Gone
    }

    /// Leaves a worker that may not be ended, with the calls that it may be running.
    pub(super) fn leave_behind(mut self: Box<Self>, calls: &dyn CallSource, output: Output<'_>) -> ServeEnd {
        calls.back(begun(self.take_unread(false)));
        calls.leave(begun(self.in_flight.take()));
        self.output.finish(output);
        ServeEnd::Gone
    }

    /// Waits until it has ended, at most for this time. Drops its messages.
    fn wait_for_exit(&mut self, time: Duration, output: Output<'_>) {
        let by = Instant::now() + time;
        self.is_clogged = false;
        while self.lives() && Instant::now() < by {
            self.wait_for(&[], by.saturating_duration_since(Instant::now()), output);
            if output.forwarder.has_room() {
                self.output.take();
                self.output.pass_on(output);
            }
            self.channel.read();
            self.channel.forget();
        }
    }

    /// Ends everything that is left of it, and reads what it has printed. Returns how it ended, unless it is left behind.
    fn reap(&mut self) -> Option<std::io::Result<ExitStatus>> {
        let kill_at = soon(None);
        let status = self.peer.tree.end_the_rest(|| Instant::now() >= kill_at, || _ = self.output.take());
        self.output.take_all();
        status
    }

    /// The worker does not go on. Ends all of it, and returns its calls with their outcomes.
    pub(super) fn end_with(mut self, end: &SessionEnd, calls: &dyn CallSource, output: Output<'_>) -> ServeEnd {
        let unread = self.take_unread(false);
        // If the time of a call was over before the worker has read it, the call does not go back.
        let (overdue, untouched): (Vec<InFlightCall>, Vec<InFlightCall>) =
            unread.into_iter().partition(|call| call.ending.is_some());
        let serial = self.is_serial();
        let ended_by_us = self.is_ending(serial) || !overdue.is_empty();
        if matches!(end, SessionEnd::Violation(_)) {
            self.peer.tree.escalate(true);
        } else {
            // A worker that closes its channel is about to end. One that was refused may want to say something.
            self.channel.close();
            self.wait_for_exit(REST_GRACE, output);
        }
        let Some(status) = self.reap() else {
            calls.back(begun(untouched));
            calls.leave(begun(overdue.into_iter().chain(self.in_flight.take())));
            self.output.finish(output);
            return ServeEnd::Gone;
        };
        let has_ended = matches!(end, SessionEnd::Ended);
        let how = match end {
            SessionEnd::Violation(what) => what.clone(),
            SessionEnd::Refused(why) => format!("was refused: {why}"),
            _ => how(&status),
        };
        let no_hello = self.hello.is_none();
        if no_hello || (self.peer.answers == 0 && self.in_flight.is_empty() && !ended_by_us) {
            let when = if no_hello { "before it said hello" } else { "before it read a call" };
            let how = if has_ended { format!("{how} {when}") } else { how };
            let mut untouched = begun(untouched).into_iter();
            let first = untouched.next();
            calls.back(untouched.collect());
            return ServeEnd::FailedWorker(Box::new(self.failed(
                &how,
                has_ended && was_killed(&status),
                first,
                output,
            )));
        }
        if let Some(oldest) = self.in_flight.oldest() {
            self.output.give(&mut oldest.capture, output.of(&oldest.begun.claim));
        }
        self.output.finish(output);
        let ended = |call: InFlightCall| call.ending.map(|ending| call.ended(ending.why.outcome()));
        let mut done: Vec<EndedCall> = overdue.into_iter().filter_map(ended).collect();
        let mut running = self.in_flight.take();
        let mut back = begun(running.split_off(if serial { 1.min(running.len()) } else { running.len() }));
        done.extend(running.into_iter().map(|call| {
            let outcome = match call.ending {
                Some(ending) => ending.why.outcome(),
                None if ended_by_us => Outcome::Interrupted,
                None => Outcome::Crashed(format!("its worker {how}")),
            };
            call.ended(outcome)
        }));
        back.extend(begun(untouched));
        calls.back(back);
        calls.done(done);
        ServeEnd::Gone
    }

    /// The worker is gone before it has begun any call. Whether it cannot be started or was killed, its first call is charged with
    /// that, so that asyncq does not try that call forever.
    fn failed(mut self, how: &str, was_killed: bool, first: Option<SentCall>, output: Output<'_>) -> FailedWorker {
        self.output.keep(output);
        self.output.finish(output);
        let printed = self.output.own;
        let outcome = if was_killed {
            Outcome::Crashed(format!("its worker {how}"))
        } else {
            let last = last_line(&printed).map(|line| format!(": {line}")).unwrap_or_default();
            Outcome::Unstarted(Failure::not_executable(format!("its worker {how}{last}")))
        };
        FailedWorker { outcome, printed, first }
    }
}

fn begun(calls: impl IntoIterator<Item = InFlightCall>) -> Vec<SentCall> {
    calls.into_iter().map(|call| call.begun).collect()
}

/// Whether somebody else has killed it.
fn was_killed(status: &std::io::Result<ExitStatus>) -> bool {
    let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
    signal.is_some_and(|signal| [Signal::KILL, Signal::TERM].map(Signal::as_raw).contains(&signal))
}

/// How a worker ended, to continue "its worker".
fn how(status: &std::io::Result<ExitStatus>) -> String {
    match status.as_ref().map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => format!("ended with exit code {code}"),
        Ok((None, Some(signal))) => format!("was ended by {}", signals::name(signal)),
        _ => "ended".to_owned(),
    }
}

/// The last line that was printed, preferably to stderr.
fn last_line(printed: &Capture) -> Option<String> {
    let log = printed.log();
    let text = |stream| {
        let parts = log.parts().filter(|part| part.0 == stream).flat_map(|part| part.1.to_vec());
        String::from_utf8_lossy(&parts.collect::<Vec<u8>>()).into_owned()
    };
    let (err, out) = (text(Stream::Err), text(Stream::Out));
    let line = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    line(&err).or_else(|| line(&out)).map(|line| line.chars().take(300).collect())
}
