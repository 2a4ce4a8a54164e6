//! Functions that are commands: asyncq starts a process for each call.
//!
//! Invariant: when [`run`] returns, the process has ended, and so has everything that it left behind.

use std::time::{Duration, Instant};
use std::{io, os::fd::OwnedFd, os::unix::process::ExitStatusExt, process::ExitStatus};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::exit::Exit;
use crate::domain::job::{Claim, Fence};
use crate::error::reason;
use crate::failpoint::reached;
use crate::runner::call::{CallEnding, CallParams, EndReason, write_line};
use crate::runner::output::program_output::{LARGEST_PIPE, ProgramOutput};
use crate::runner::process::tree::{GRACE, LAST_LOOK, Tree, soon};
use crate::runner::tap::audience::Audience;
use crate::runner::{
    Ended, Output, StartFailure, Stop, StopSwitch, Surroundings, later_file::LaterFile, result_file::ResultFile,
    spawn::Program,
};
use crate::system::{fds, signals};

/// Runs a call to its end. Returns `None` if it leaves the call behind, because asyncq cannot end it and nobody waits for it.
///
/// # Errors
/// When asyncq cannot start the program.
pub fn run(
    claim: &Claim,
    around: &Surroundings,
    output: Output<'_>,
    control: &StopSwitch,
) -> Result<Option<Ended>, StartFailure> {
    let (began, output) = (Instant::now(), output.of(claim));
    let result = ResultFile::new(&around.folder, &claim.fence);
    let later = LaterFile::new(&around.folder, &claim.fence);
    let start = |offer| Program { claim, around, offer, control }.start(&result, &later);
    let mut tree = Tree::start(&around.orphans, &claim.token, start)?;
    reached("program started");
    tree.works_for(claim.fence.job);
    let limit = claim.definition.timeout.map(|timeout| began + timeout);
    let mut call = Vec::new();
    write_line(&mut call, &CallParams::for_stdin(claim));
    let stdin = tree.child.stdin.take().map(|pipe| (OwnedFd::from(pipe), call));
    let printed = ProgramOutput::of(&mut tree.child, &around.folder);
    let mut running =
        RunningCommand { fence: claim.fence, tree, stdin, printed, output, audience: Audience::default() };
    let outcome = match running.watch() {
        Ok(ended) => running.until_the_end(&ended, limit, control),
        Err(error) => running.give_up(&error),
    };
    let Some(outcome) = outcome else { return Ok(None) };
    let took = began.elapsed();
    let outcome = if is_lost(&outcome) && !around.home.is_there() { Outcome::Interrupted } else { outcome };
    let (outcome, result) = match (outcome, result.take()) {
        (outcome, Ok(result)) => (outcome, result),
        (Outcome::Completed, Err(failure)) => (Outcome::Failed(failure), None),
        (outcome, Err(_)) => (outcome, None),
    };
    let (outcome, in_vain) = match outcome {
        Outcome::Conflict(conflict) => (later.take().unwrap_or(Outcome::Conflict(conflict)), false),
        outcome => (outcome, later.remove()),
    };
    Ok(Some(Ended { outcome, result, took, output: running.printed.own, nested: None, in_vain }))
}

/// Whether a call with this outcome may have lost its result, or failed, because the folder for the result is gone.
fn is_lost(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Completed => true,
        Outcome::Failed(failure) => failure.exit_code.is_some(),
        _ => false,
    }
}

/// A function's process and the pipes to it.
struct RunningCommand<'a> {
    fence: Fence,
    tree: Tree,
    stdin: Option<(OwnedFd, Vec<u8>)>,
    printed: ProgramOutput,
    output: Output<'a>,
    /// Who follows its output.
    audience: Audience,
}

impl RunningCommand<'_> {
    /// Prepares to wait for the program and its pipes. Returns a descriptor that becomes readable when the program has ended.
    fn watch(&self) -> io::Result<OwnedFd> {
        if let Some((pipe, _)) = &self.stdin {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.tree.watch()
    }

    /// Ends a program that asyncq cannot watch, with everything that it has left. No program may go on unwatched.
    fn give_up(&mut self, error: &io::Error) -> Option<Outcome> {
        let _ = self.tree.kill()?;
        self.read_what_is_left();
        Some(Outcome::Failed(Failure::not_executable(format!("cannot be watched: {}", reason(&error)))))
    }

    fn until_the_end(&mut self, ended: &OwnedFd, limit: Option<Instant>, control: &StopSwitch) -> Option<Outcome> {
        let mut ending: Option<CallEnding> = None;
        self.write();
        while !self.wait(ended, ending.map_or(limit, |_| Some(Instant::now() + LAST_LOOK)), control) {
            let now = Instant::now();
            let asked = match control.asked() {
                Stop::No => limit.filter(|limit| now >= *limit).map(|_| (EndReason::TooLong, GRACE)),
                Stop::Cancel => Some((EndReason::Cancelled, GRACE)),
                Stop::Interrupt => Some((EndReason::Interrupted, GRACE)),
                Stop::Kill => Some((EndReason::Interrupted, Duration::ZERO)),
            };
            if let (None, Some((why, grace))) = (&ending, asked) {
                ending = Some(CallEnding { why, kill_at: now + grace });
                self.tree.terminate();
            }
            if let Some(ending) = &ending {
                self.tree.escalate(now >= ending.kill_at || control.asked() == Stop::Kill);
            }
            if self.tree.is_left() {
                break;
            }
        }
        let status = self.end_the_rest(soon(ending.map(|ending| ending.kill_at)), control)?;
        Some(match ending.map(|ending| ending.why.outcome()) {
            None => exit(status).outcome(),
            Some(Outcome::Failed(failure)) => {
                Outcome::Failed(Failure { signal: status.ok().as_ref().and_then(ExitStatusExt::signal), ..failure })
            }
            Some(outcome) => outcome,
        })
    }

    /// Ends what a program has left behind, in its group and outside of it, and reads the rest of the output.
    fn end_the_rest(&mut self, kill_at: Instant, control: &StopSwitch) -> Option<io::Result<ExitStatus>> {
        let RunningCommand { tree, printed, output, .. } = self;
        let kill = || Instant::now() >= kill_at || control.asked() == Stop::Kill;
        let status = tree.end_the_rest(kill, || read(printed, *output));
        self.read_what_is_left();
        status
    }

    /// Waits until something happens, then reads and writes. Returns whether the program has ended.
    fn wait(&mut self, ended: &OwnedFd, deadline: Option<Instant>, control: &StopSwitch) -> bool {
        let listening = self.output.forwarder.has_room();
        let mut fds = Vec::with_capacity(5);
        fds.extend(self.audience.poll_fds());
        let followers = fds.len();
        fds.push(PollFd::new(ended, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(control.wake(), PollFlags::IN));
        if listening {
            fds.extend(self.printed.streams().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        }
        if let Some((pipe, _)) = &self.stdin {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let mut timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !listening {
            let soon = Duration::from_millis(10);
            timeout = Some(timeout.map_or(soon, |timeout| timeout.min(soon)));
        }
        if fds::wait(&mut fds, timeout).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = !fds[followers].revents().is_empty();
        control.drain();
        self.write();
        read(&mut self.printed, self.output);
        self.serve_followers();
        ended
    }

    /// Sends new output to the followers of the call.
    fn serve_followers(&mut self) {
        if let Some(tap) = self.output.tap {
            self.audience.join(tap, &self.fence);
            self.audience.serve(&self.printed.own);
        }
    }

    /// Writes as much of the call as fits. It is not an error if the program does not read it.
    fn write(&mut self) {
        let Some((pipe, call)) = &mut self.stdin else { return };
        match rustix::io::write(&*pipe, call) {
            Ok(written) if written < call.len() => drop(call.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.stdin = None,
        }
    }

    /// Reads what the pipes still hold, even if nobody takes it. Only a process that has left the group can still write into them,
    /// and it must not keep the call from ending.
    fn read_what_is_left(&mut self) {
        let mut left = 2 * LARGEST_PIPE;
        while left > 0
            && let count @ 1.. = self.printed.take()
        {
            self.printed.keep(self.output);
            left = left.saturating_sub(count);
        }
        self.printed.finish(self.output);
        self.serve_followers();
        self.audience.finish(&self.printed.own);
    }
}

/// Reads what is there from both streams, if somebody takes it.
fn read(printed: &mut ProgramOutput, output: Output<'_>) {
    if output.forwarder.has_room() {
        printed.take();
        printed.keep(output);
    }
}

/// How a program has ended by itself.
fn exit(status: io::Result<ExitStatus>) -> Exit {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => Exit::Code(code),
        Ok((None, Some(signal))) => Exit::Signal(signal, signals::name(signal)),
        Ok((None, None)) => Exit::Unknown("neither an exit code nor a signal".to_owned()),
        Err(error) => Exit::Unknown(format!("it is unknown how it ended: {}", reason(&error))),
    }
}
