//! How calls end that do not end by themselves, and what becomes of a worker's calls when it does not go on.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::log::Stream;
use crate::runner::process::signals;
use crate::runner::process::tree::{GRACE, REST_GRACE, soon};
use crate::runner::worker::in_flight::InFlightCall;
use crate::runner::worker::{CallSource, EndedCall, FailedWorker, ServeEnd, Worker, protocol};
use crate::runner::{Capture, Output, Stop, StopSwitch};

/// A worker does not go on.
pub(in crate::runner) enum WorkerFailure {
    /// It does not keep to the protocol, which goes on after "its worker".
    Nonsense(String),
    /// It has ended, or closed its line.
    Ended,
    /// What is wrong with its hello.
    Refused(String),
}

impl Worker {
    /// Lets it end, and makes it, if it does not; what it prints meanwhile goes to `output`.
    pub fn end(mut self: Box<Self>, output: Output<'_>) {
        self.line.close();
        self.wait_for_exit(GRACE, output);
        let _ = self.reap();
        self.printed.pass_on(output);
        self.printed.finish(output);
    }

    /// Ends it at once.
    pub fn kill(mut self: Box<Self>) {
        let _ = self.tree.kill();
    }

    /// It has nothing to do, and is not needed any more, or has not begun with anything: makes it end.
    pub(in crate::runner) fn leave(mut self: Box<Self>, output: Output<'_>) -> ServeEnd {
        let _ = self.reap();
        self.printed.pass_on(output);
        self.printed.finish(output);
        ServeEnd::Gone
    }

    /// It may not be ended, and nobody waits for it: leaves it, with the calls that it may run.
    pub(in crate::runner) fn leave_behind(mut self: Box<Self>, calls: &dyn CallSource, output: Output<'_>) -> ServeEnd {
        let unread = self.take_unread(false);
        calls.back(unread.into_iter().map(|call| call.begun).collect());
        calls.leave(self.held.take().into_iter().map(|call| call.begun).collect());
        self.printed.finish(output);
        ServeEnd::Gone
    }

    /// Waits until it has ended, but not for longer than that. Whatever it says meanwhile is nobody's.
    fn wait_for_exit(&mut self, time: Duration, output: Output<'_>) {
        let by = Instant::now() + time;
        self.is_clogged = false;
        while !self.has_ended() && Instant::now() < by {
            self.wait_for(&[], by.saturating_duration_since(Instant::now()), output);
            if output.forwarder.has_room() {
                self.printed.take();
                self.printed.pass_on(output);
            }
            self.line.read();
            self.line.forget();
        }
    }

    /// Ends what is left of it, and keeps what it has printed; gives how it ended, unless it is left behind.
    fn reap(&mut self) -> Option<std::io::Result<ExitStatus>> {
        let kill_at = soon(None);
        let Worker { tree, printed, .. } = self;
        let status = tree.end_the_rest(|| Instant::now() >= kill_at, || printed.take());
        self.printed.take_all();
        status
    }

    /// Ends calls that are to end, and takes back those that wait behind a long one.
    pub(in crate::runner) fn mind(&mut self, calls: &dyn CallSource, control: &StopSwitch) {
        let serial = self.is_serial();
        let cancelled = calls.cancelled();
        let stop = control.asked();
        let stranded = self.strands(calls);
        if !cancelled.is_empty() || stranded || stop > Stop::Cancel {
            self.cancelling.extend(cancelled);
            self.take_back(calls, serial && stop <= Stop::Cancel);
        }
        let asked = self.ask_to_end(stop);
        let listens = self.hello.as_ref().is_some_and(|hello| hello.cancel);
        if asked && !listens {
            self.tree.terminate();
            self.asked = true;
        }
        let ending = self.held.running(serial).filter_map(|call| Some((call.ending?.kill_at, call.fence().job))).min();
        if let Some((kill_at, job)) = ending {
            self.tree.works_for(job);
            let kill = Instant::now() >= kill_at || stop == Stop::Kill;
            if kill || !listens {
                self.tree.escalate(kill);
            }
        }
    }

    /// Tells the worker which of the calls that run are to end; says whether any are that were not before.
    fn ask_to_end(&mut self, stop: Stop) -> bool {
        let serial = self.is_serial();
        let Worker { held, line, cancelling, .. } = self;
        let asked = held.ask_to_end(serial, stop, cancelling);
        for (call, why) in &asked {
            protocol::write_cancel(line.outgoing(), &call.begun.claim, why.as_str());
        }
        !asked.is_empty()
    }

    /// Takes back the calls that the worker has not read yet; if `one_after_another`, not the one whose turn it is, unless
    /// that is to be cancelled: its time goes on.
    fn take_back(&mut self, calls: &dyn CallSource, one_after_another: bool) {
        let Worker { held, cancelling, .. } = self;
        let keep = one_after_another && held.oldest().is_some_and(|oldest| !cancelling.contains(&oldest.fence()));
        let taken = self.take_unread(keep);
        self.took_back = true;
        let (cancelled, back): (Vec<InFlightCall>, Vec<InFlightCall>) = taken.into_iter().partition(|call| {
            let fence = call.fence();
            self.cancelling.contains(&fence)
        });
        self.cancelling.retain(|which| !cancelled.iter().any(|call| call.fence() == *which));
        calls.back(back.into_iter().map(|call| call.begun).collect());
        calls.done(cancelled.into_iter().map(|call| call.ended(Outcome::Cancelled)).collect());
    }

    fn take_unread(&mut self, keep_oldest: bool) -> Vec<InFlightCall> {
        let (from, mut bytes) = self.line.take_back();
        let mut taken = self.held.take_from(from);
        if keep_oldest && self.held.is_empty() && !taken.is_empty() {
            self.held.put_back(taken.remove(0));
        }
        if let Some(first) = taken.first() {
            bytes.truncate(usize::try_from(first.from - from).unwrap_or(usize::MAX));
        }
        // The rest of a frame that it is in the middle of, and what is no call.
        self.line.outgoing().extend_from_slice(&bytes);
        self.line.write();
        taken
    }

    /// The worker does not go on: ends all of it, and tells what becomes of its calls.
    pub(in crate::runner) fn end_with(
        mut self,
        flaw: &WorkerFailure,
        calls: &dyn CallSource,
        output: Output<'_>,
    ) -> ServeEnd {
        let unread = self.take_unread(false);
        // One whose time is over before the worker has read it does not go back.
        let (overdue, untouched): (Vec<InFlightCall>, Vec<InFlightCall>) =
            unread.into_iter().partition(|call| call.ending.is_some());
        let ended_by_us = self.is_ending() || !overdue.is_empty();
        if matches!(flaw, WorkerFailure::Ended | WorkerFailure::Refused(_)) {
            // One that closes its line is about to end; one that was refused may want to say so.
            self.line.close();
            self.wait_for_exit(REST_GRACE, output);
        } else {
            self.tree.escalate(true);
        }
        let Some(status) = self.reap() else {
            calls.back(untouched.into_iter().map(|call| call.begun).collect());
            calls.leave(overdue.into_iter().chain(self.held.take()).map(|call| call.begun).collect());
            self.printed.finish(output);
            return ServeEnd::Gone;
        };
        let how = match flaw {
            WorkerFailure::Nonsense(what) => what.clone(),
            WorkerFailure::Refused(why) => format!("was refused: {why}"),
            WorkerFailure::Ended => how(&status),
        };
        let no_hello = self.hello.is_none();
        if no_hello || (self.answered == 0 && self.held.is_empty() && !ended_by_us) {
            let when = if no_hello { "before it said hello" } else { "before it read a call" };
            let when = if matches!(flaw, WorkerFailure::Ended) { format!(" {when}") } else { String::new() };
            let mut untouched = untouched.into_iter().map(|call| call.begun);
            let first = untouched.next();
            calls.back(untouched.collect());
            let killed = matches!(flaw, WorkerFailure::Ended) && was_killed(&status);
            return ServeEnd::FailedWorker(Box::new(self.unfit(&format!("{how}{when}"), killed, first, output)));
        }
        if let Some(oldest) = self.held.oldest() {
            self.printed.give(&mut oldest.capture, output);
        }
        self.printed.pass_on(output);
        self.printed.finish(output);
        let serial = self.is_serial();
        let mut back = Vec::new();
        let ended = |call: InFlightCall| call.ending.map(|ending| call.ended(ending.why.outcome()));
        let mut done: Vec<EndedCall> = overdue.into_iter().filter_map(ended).collect();
        for (place, call) in self.held.take().into_iter().enumerate() {
            if serial && place > 0 {
                back.push(call.begun);
                continue;
            }
            let outcome = match call.ending {
                Some(ending) => ending.why.outcome(),
                None if ended_by_us => Outcome::Interrupted,
                None => Outcome::Crashed(format!("its worker {how}")),
            };
            done.push(call.ended(outcome));
        }
        back.extend(untouched.into_iter().map(|call| call.begun));
        calls.back(back);
        calls.done(done);
        ServeEnd::Gone
    }

    /// It is gone before it has begun a single call. That it cannot be started, or that somebody has killed it, is told of the
    /// call which was to be its first: so it is not tried for ever.
    fn unfit(
        mut self,
        how: &str,
        killed: bool,
        first: Option<crate::runner::worker::SentCall>,
        output: Output<'_>,
    ) -> FailedWorker {
        self.printed.give(&mut self.before, output);
        self.printed.finish(output);
        let outcome = if killed {
            Outcome::Crashed(format!("its worker {how}"))
        } else {
            let last = last_line(&self.before).map(|line| format!(": {line}")).unwrap_or_default();
            Outcome::Unstarted(Failure::not_executable(format!("its worker {how}{last}")))
        };
        FailedWorker { outcome, printed: self.before, first }
    }
}

/// Whether somebody else has ended it.
fn was_killed(status: &std::io::Result<ExitStatus>) -> bool {
    let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
    signal.is_some_and(|signal| [Signal::KILL, Signal::TERM].map(Signal::as_raw).contains(&signal))
}

/// How a worker ended, to go on after "its worker".
fn how(status: &std::io::Result<ExitStatus>) -> String {
    match status.as_ref().map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => format!("ended with exit code {code}"),
        Ok((None, Some(signal))) => format!("was ended by {}", signals::name(signal)),
        _ => "ended".to_owned(),
    }
}

/// The last line of what was printed, to stderr if there is any.
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
