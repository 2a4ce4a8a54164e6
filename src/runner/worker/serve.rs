//! Feeding a worker and hearing it, until it holds nothing and there is nothing for it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::frames::{self, Said};
use super::held::{Call, Ending, Why};
use super::{Begun, Desk, Done, Fate, HELLO, Unfit, WINDOW, Worker, how};
use crate::domain::attempt::Outcome;
use crate::domain::time::Timestamp;
use crate::failpoint::reached;
use crate::runner::tree::{GRACE, LAST_LOOK};
use crate::runner::{Capture, Control, Output, Stop, start};

/// How long a call may run before those behind it are taken back.
const STRANDED: Duration = Duration::from_millis(50);

/// How quick calls must be for others to wait behind one.
const QUICK: Duration = Duration::from_millis(5);

/// How often to look how much memory a worker uses.
const MEASURE: Duration = Duration::from_millis(100);

/// How long to sleep when nothing is to be watched but descriptors.
const LONG: Duration = Duration::from_mins(10);

/// A worker does not go on.
enum Flaw {
    /// It does not keep to the protocol, which goes on after "its worker".
    Nonsense(String),
    /// It has ended, or closed its line.
    Ended,
    /// The processor stops before it has said hello.
    Stopped,
    /// What is wrong with its hello.
    Refused(String),
}

impl Worker {
    /// Runs calls from `desk` until it has none for this worker and all are answered.
    #[must_use]
    pub fn serve(mut self: Box<Self>, desk: &dyn Desk, output: Output<'_>, control: &Control) -> Fate {
        // What it said and printed while nobody listened.
        let mut flaw = self.hear(desk, output).err();
        loop {
            if let Some(flaw) = flaw.take() {
                return self.end_with(&flaw, desk, output);
            }
            if self.hello.is_some() {
                self.fill(desk);
                if self.held.is_empty() {
                    self.printed.finish(output);
                    return if self.is_worn() { Fate::Worn(self) } else { Fate::Idle(self) };
                }
            }
            self.line.write();
            let wake = PollFd::from_borrowed_fd(control.wake(), PollFlags::IN);
            let time = self.time_to_look();
            self.wait_for(&[wake], time, output);
            control.drain();
            // Looked at first: what it said before it ended is there then.
            let ended = self.has_ended();
            flaw = self.hear(desk, output).err();
            if flaw.is_none() {
                flaw = (ended || self.line.is_over()).then_some(Flaw::Ended).or_else(|| self.greet_late());
            }
            if flaw.is_none() {
                self.mind(desk, control);
            }
            if self.hello.is_none() && control.asked() > Stop::Cancel {
                self.tree.press(control.asked() == Stop::Kill);
                flaw = Some(Flaw::Stopped);
            }
        }
    }

    fn is_serial(&self) -> bool {
        self.hello.as_ref().is_none_or(super::Hello::is_serial)
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
    fn fill(&mut self, desk: &dyn Desk) {
        let at_once = self.hello.as_ref().map_or(1, |hello| hello.calls.max(1));
        while self.held.len() < self.window() && !self.is_worn() && !self.is_ending() && !self.line.is_full() {
            let Some(begun) = desk.next(self.held.len(), at_once) else { return };
            self.send(begun, desk);
        }
    }

    fn send(&mut self, begun: Begun, desk: &dyn Desk) {
        let function = begun.claim.function.as_str();
        let known = self.hello.as_ref().and_then(|hello| hello.functions.as_ref());
        let unknown = known.filter(|known| !known.iter().any(|name| name == function)).map(|known| {
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            start::cannot_run(127, format!("its worker has no function `{function}`; it has {has}"))
        });
        let fence = begun.claim.fence;
        let from = self.line.end();
        if let Ok(definition) = &begun.claim.definition {
            self.keep = definition.worker.unwrap_or_default();
        }
        let id = self.held.push(begun, from, &self.folder);
        let over = match unknown {
            Some(failure) => Some(Outcome::Failed(failure)),
            None => self.is_cancelled(fence).then_some(Outcome::Cancelled),
        };
        if let Some(outcome) = over {
            let call = self.held.take_from(from).pop();
            return desk.done(call.map(|call| call.ended(outcome)).into_iter().collect());
        }
        let claim = self.held.latest().map(|call| &call.begun.claim);
        self.took_back = false;
        if let Some(claim) = claim {
            let limit = claim.definition.as_ref().ok().and_then(|definition| definition.timeout);
            let deadline = limit.map(|limit| now().after(limit));
            frames::write_call(self.line.outgoing(), id, claim, deadline);
        }
    }

    fn is_cancelled(&mut self, fence: crate::domain::job::Fence) -> bool {
        let place = self.cancelling.iter().position(|which| *which == fence);
        place.map(|place| self.cancelling.swap_remove(place)).is_some()
    }

    fn is_ending(&mut self) -> bool {
        let serial = self.is_serial();
        self.held.running(serial).any(|call| call.ending.is_some())
    }

    /// Whether it has done enough.
    fn is_worn(&self) -> bool {
        let ahead = self.answered + self.held.len() as u64;
        self.has_grown || self.asked || self.keep.calls.is_some_and(|calls| ahead >= calls)
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
        let limit = self.held.next_limit(serial).map(|limit| limit.saturating_duration_since(Instant::now()));
        let stranded = self.may_strand().then(|| STRANDED.saturating_sub(self.held.longest()));
        limit.into_iter().chain(stranded).min().unwrap_or(LONG).max(Duration::from_micros(100))
    }

    /// Whether calls wait on the line behind one that may take long.
    fn may_strand(&self) -> bool {
        self.is_serial() && self.held.len() > 1 && !self.took_back
    }

    fn greet_late(&self) -> Option<Flaw> {
        let late = self.hello.is_none() && self.started.elapsed() >= HELLO;
        late.then(|| Flaw::Nonsense(format!("did not say hello in {} seconds", HELLO.as_secs())))
    }

    /// Takes what it has printed and said. What it printed before an answer was read before that answer.
    fn hear(&mut self, desk: &dyn Desk, output: Output<'_>) -> Result<(), Flaw> {
        let serial = self.is_serial();
        if output.echo.has_room() {
            self.printed.take();
        }
        let mut done = Vec::new();
        let heard = loop {
            self.line.read();
            let heard = self.hear_frames(desk, output, &mut done);
            // Looked for what an answer counts, it may have read what was printed after answers that came meanwhile.
            if heard.is_err() || !self.printed.was_read_ahead() {
                break heard;
            }
        };
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
        }
        if !done.is_empty() {
            self.answered += done.len() as u64;
            self.held.answered(&mut done, serial);
            self.measure();
            reached("calls answered");
            desk.done(done);
        }
        heard
    }

    fn hear_frames(&mut self, desk: &dyn Desk, output: Output<'_>, done: &mut Vec<Done>) -> Result<(), Flaw> {
        while let Some(frame) = self.line.next() {
            let said = frame.and_then(frames::read).map_err(Flaw::Nonsense)?;
            match (said, self.hello.is_some()) {
                (Said::Nothing, _) => {}
                (Said::Hello(id, hello), false) => {
                    frames::write_welcome(self.line.outgoing(), &id, hello.as_ref().err().map(String::as_str));
                    self.line.write();
                    self.hello = Some(hello.map_err(Flaw::Refused)?);
                    self.memory = Worker::memory(self.tree.pid());
                }
                (Said::Hello(..), true) => return Err(Flaw::Nonsense("said hello twice".to_owned())),
                (_, false) => return Err(Flaw::Nonsense("did not begin with hello".to_owned())),
                (Said::Answer(id, answer), true) => {
                    let serial = self.is_serial();
                    let Some(mut call) = self.held.remove(id, serial) else {
                        return Err(Flaw::Nonsense(format!("gave an answer with the id {id}, which no open call has")));
                    };
                    if serial {
                        self.printed.settle(&mut call.capture, call.printed, answer.printed, output);
                    }
                    let took = self.held.since(&call, serial).elapsed();
                    done.push(call.answered(answer, took));
                }
                (Said::Output(job, stream, text), true) => {
                    if let Some(call) = self.held.of_job(job) {
                        call.capture.push(stream, text.as_bytes());
                    }
                    self.printed.say(stream, &text, output);
                }
                (Said::Progress(job, text), true) => {
                    if let Some(call) = self.held.of_job(job) {
                        desk.progress(call.fence(), text);
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends calls that are to end, and takes back those that wait behind a long one.
    fn mind(&mut self, desk: &dyn Desk, control: &Control) {
        let serial = self.is_serial();
        let cancelled = desk.cancelled();
        let stop = control.asked();
        let stranded = self.may_strand() && self.held.longest() >= STRANDED;
        if !cancelled.is_empty() || stranded || stop > Stop::Cancel {
            self.cancelling.extend(cancelled);
            self.take_back(desk, serial && stop <= Stop::Cancel);
        }
        let now = Instant::now();
        let limits: Vec<bool> = {
            let held = &self.held;
            held.limits(serial).map(|limit| limit.is_some_and(|limit| limit <= now)).collect()
        };
        let Worker { held, line, cancelling, hello, tree, asked: told, .. } = self;
        let mut asked = false;
        for (call, late) in held.running(serial).zip(limits).filter(|(call, _)| call.ending.is_none()) {
            let fence = call.fence();
            let why = if cancelling.contains(&fence) {
                cancelling.retain(|which| *which != fence);
                Why::Cancelled
            } else if stop > Stop::Cancel {
                Why::Interrupted
            } else if late {
                Why::TooLong
            } else {
                continue;
            };
            call.ending = Some(Ending { why, kill_at: now + GRACE });
            frames::write_cancel(line.outgoing(), &call.begun.claim, why.as_str());
            asked = true;
        }
        if asked && !hello.as_ref().is_some_and(|hello| hello.cancel) {
            tree.ask();
            *told = true;
        }
        let kill_at = held.running(serial).filter_map(|call| Some(call.ending?.kill_at)).min();
        if let Some(kill_at) = kill_at {
            let kill = now >= kill_at || stop == Stop::Kill;
            if kill || hello.as_ref().is_none_or(|hello| !hello.cancel) {
                tree.press(kill);
            }
        }
    }

    /// Takes back the calls that the worker has not read yet; if `one_after_another`, not the one whose turn it is, unless
    /// that is to be cancelled: its time goes on.
    fn take_back(&mut self, desk: &dyn Desk, one_after_another: bool) {
        let Worker { held, cancelling, .. } = self;
        let keep = one_after_another && held.oldest().is_some_and(|oldest| !cancelling.contains(&oldest.fence()));
        let taken = self.take_unread(keep);
        self.took_back = true;
        let (cancelled, back): (Vec<Call>, Vec<Call>) = taken.into_iter().partition(|call| {
            let fence = call.fence();
            self.cancelling.contains(&fence)
        });
        self.cancelling.retain(|which| !cancelled.iter().any(|call| call.fence() == *which));
        desk.back(back.into_iter().map(|call| call.begun).collect());
        desk.done(cancelled.into_iter().map(|call| call.ended(Outcome::Cancelled)).collect());
    }

    fn take_unread(&mut self, keep_oldest: bool) -> Vec<Call> {
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
    fn end_with(mut self, flaw: &Flaw, desk: &dyn Desk, output: Output<'_>) -> Fate {
        let unread = self.take_unread(false);
        // One whose time is over before the worker has read it does not go back.
        let (overdue, untouched): (Vec<Call>, Vec<Call>) = unread.into_iter().partition(|call| call.ending.is_some());
        let ended_by_us = self.is_ending() || !overdue.is_empty();
        if matches!(flaw, Flaw::Nonsense(_) | Flaw::Refused(_)) {
            self.tree.press(true);
        }
        let status = self.bury();
        if matches!(flaw, Flaw::Stopped) {
            self.printed.pass_on(output);
            self.printed.finish(output);
            return Fate::Gone;
        }
        let how = match flaw {
            Flaw::Nonsense(what) => what.clone(),
            Flaw::Refused(why) => format!("was refused: {why}"),
            Flaw::Ended | Flaw::Stopped => how(&status),
        };
        if self.answered == 0 && self.held.is_empty() && !ended_by_us {
            let when = match flaw {
                Flaw::Ended if self.hello.is_none() => " before it said hello",
                Flaw::Ended => " before it read a call",
                _ => "",
            };
            let killed = matches!(flaw, Flaw::Ended) && was_killed(&status);
            return self.never_begun(&format!("{how}{when}"), killed, untouched, (desk, output));
        }
        if let Some(oldest) = self.held.oldest() {
            self.printed.give(&mut oldest.capture, output);
        }
        self.printed.pass_on(output);
        self.printed.finish(output);
        let serial = self.is_serial();
        let mut back = Vec::new();
        let ended = |call: Call| call.ending.map(|ending| call.ended(ending.why.outcome()));
        let mut done: Vec<Done> = overdue.into_iter().filter_map(ended).collect();
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
        desk.back(back);
        desk.done(done);
        Fate::Gone
    }

    /// It is gone before it has begun a single call. That it cannot be started, or that somebody has killed it, is told of the
    /// call which was to be its first: so it is not tried for ever.
    fn never_begun(mut self, how: &str, killed: bool, untouched: Vec<Call>, to: (&dyn Desk, Output<'_>)) -> Fate {
        let (desk, output) = to;
        let mut untouched = untouched.into_iter().map(|call| call.begun);
        let call = untouched.next();
        desk.back(untouched.collect());
        let mut capture = Capture::new(&self.folder);
        self.printed.give(&mut capture, output);
        self.printed.finish(output);
        let outcome = if killed {
            Outcome::Crashed(format!("its worker {how}"))
        } else {
            let last = last_line(&capture).map(|line| format!(": {line}")).unwrap_or_default();
            Outcome::Failed(start::cannot_run(126, format!("its worker {how}{last}")))
        };
        Fate::Unfit(Unfit { outcome, output: capture, call })
    }
}

/// Whether somebody else has ended it.
fn was_killed(status: &std::io::Result<ExitStatus>) -> bool {
    let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
    signal.is_some_and(|signal| [Signal::KILL, Signal::TERM].map(Signal::as_raw).contains(&signal))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The last line of what was printed, to stderr if there is any.
fn last_line(printed: &Capture) -> Option<String> {
    use crate::domain::log::Stream;
    let log = printed.log();
    let text = |stream| {
        let parts = log.parts().filter(|part| part.0 == stream).flat_map(|part| part.1.to_vec());
        String::from_utf8_lossy(&parts.collect::<Vec<u8>>()).into_owned()
    };
    let (err, out) = (text(Stream::Err), text(Stream::Out));
    let line = |text: &str| text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    line(&err).or_else(|| line(&out)).map(|line| line.chars().take(300).collect())
}
