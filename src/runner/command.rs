//! Functions that are commands: one process started for each call.
//!
//! Invariant: when [`run`] returns, the process has ended and so has all that it left behind.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::exit::Exit;
use crate::domain::log::Stream;
use crate::error::reason;
use crate::failpoint::reached;
use crate::runner::output::reader::{Output, Reader};
use crate::runner::process::tree::{GRACE, LAST_LOOK, Tree, soon};
use crate::runner::process::{fds, signals};
use crate::runner::result_file::ResultFile;
use crate::runner::spawn::SpawnContext;
use crate::runner::{Capture, Ended, Request, StartFailure, Stop, StopSwitch, Surroundings, spawn};

/// How much a pipe can hold, in bytes (the default of `/proc/sys/fs/pipe-max-size`, pipe(7)).
const LARGEST_PIPE: usize = 1024 * 1024;

/// Runs a call to its end; gives nothing where it was left behind, as it may not be ended and nobody waits for it.
///
/// # Errors
/// When its program was not started.
pub fn run(
    request: &Request<'_>,
    around: &Surroundings,
    output: Output<'_>,
    control: &StopSwitch,
) -> Result<Option<Ended>, StartFailure> {
    let began = Instant::now();
    let result = ResultFile::new(&around.folder, request.fence);
    let mut capture = Capture::new(&around.folder);
    let mut tree = Tree::start(&around.orphans, request.token, |offer| {
        spawn::start(request, &result, SpawnContext { around, offer, control })
    })?;
    reached("program started");
    tree.works_for(request.fence.job);
    let limit = request.definition.timeout.map(|timeout| began + timeout);
    let call = spawn::stdin_line(request);
    let running = RunningCommand::new(tree, call, Reader::new(&mut capture, output));
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
    Ok(Some(Ended { outcome, result, took, output: capture }))
}

/// Whether a call that ended so may have left a result, or have failed to, where it has no place for one any more.
fn is_lost(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Completed => true,
        Outcome::Failed(failure) => failure.exit_code.is_some(),
        _ => false,
    }
}

/// A function's process and the pipes to it.
struct RunningCommand<'a> {
    tree: Tree,
    stdin: Option<(OwnedFd, Vec<u8>)>,
    streams: [Option<OwnedFd>; 2],
    reader: Reader<'a>,
}

/// What is to become of a function that does not end by itself.
#[derive(Clone, Copy)]
struct CommandEnding {
    why: EndedBecause,
    /// When it is made to end, with all that it has left.
    kill_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndedBecause {
    TooLong,
    Cancelled,
    Interrupted,
}

impl<'a> RunningCommand<'a> {
    fn new(mut tree: Tree, call: Vec<u8>, reader: Reader<'a>) -> RunningCommand<'a> {
        let child = tree.child();
        let stdin = child.stdin.take().map(|pipe| (OwnedFd::from(pipe), call));
        let streams = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        RunningCommand { tree, stdin, streams, reader }
    }

    /// Prepares to wait for the program and its pipes together; gives what tells that the program has ended.
    fn watch(&self) -> io::Result<OwnedFd> {
        for pipe in self.stdin.iter().map(|(pipe, _)| pipe).chain(self.streams.iter().flatten()) {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.tree.watch()
    }

    /// Ends a program that cannot be watched, at once, with all that it has left: nothing that nobody watches may go on.
    fn give_up(mut self, error: &io::Error) -> Option<Outcome> {
        // Reading from them might wait.
        self.streams = [None, None];
        let _ = self.tree.kill()?;
        self.reader.finish();
        Some(Outcome::Failed(Failure::not_executable(format!("cannot be watched: {}", reason(&error)))))
    }

    fn until_the_end(mut self, ended: &OwnedFd, limit: Option<Instant>, control: &StopSwitch) -> Option<Outcome> {
        let mut ending: Option<CommandEnding> = None;
        self.write();
        while !self.wait(ended, ending.map_or(limit, |_| Some(Instant::now() + LAST_LOOK)), control) {
            let now = Instant::now();
            let asked = match control.asked() {
                Stop::No => limit.filter(|limit| now >= *limit).map(|_| (EndedBecause::TooLong, GRACE)),
                Stop::Cancel => Some((EndedBecause::Cancelled, GRACE)),
                Stop::Interrupt => Some((EndedBecause::Interrupted, GRACE)),
                Stop::Kill => Some((EndedBecause::Interrupted, Duration::ZERO)),
            };
            if let (None, Some((why, grace))) = (&ending, asked) {
                ending = Some(CommandEnding { why, kill_at: now + grace });
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
        Some(match ending.map(|ending| ending.why) {
            None => exit(status).outcome(),
            Some(EndedBecause::Cancelled) => Outcome::Cancelled,
            Some(EndedBecause::Interrupted) => Outcome::Interrupted,
            Some(EndedBecause::TooLong) => Outcome::Failed(Failure {
                signal: status.as_ref().ok().and_then(ExitStatusExt::signal),
                ..Failure::new(FailureKind::Timeout, "took longer than its time limit")
            }),
        })
    }

    /// The program has ended: ends what it left behind, in its group and out of it, and reads what all of them have
    /// printed.
    fn end_the_rest(&mut self, kill_at: Instant, control: &StopSwitch) -> Option<io::Result<ExitStatus>> {
        let RunningCommand { tree, streams, reader, .. } = self;
        let kill = || Instant::now() >= kill_at || control.asked() == Stop::Kill;
        let status = tree.end_the_rest(kill, || read(streams, reader));
        self.read_what_is_left();
        self.reader.finish();
        status
    }

    /// Waits until something happens, and passes on what can be; says whether the program has ended.
    fn wait(&mut self, ended: &OwnedFd, deadline: Option<Instant>, control: &StopSwitch) -> bool {
        let listening = self.reader.has_room();
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(ended, PollFlags::IN));
        fds.push(PollFd::from_borrowed_fd(control.wake(), PollFlags::IN));
        if listening {
            fds.extend(self.streams.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        }
        if let Some((pipe, _)) = &self.stdin {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let mut timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !listening {
            let soon = Duration::from_millis(10);
            timeout = Some(timeout.map_or(soon, |timeout| timeout.min(soon)));
        }
        match fds::wait(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        let ended = !fds[0].revents().is_empty();
        control.drain();
        self.write();
        read(&mut self.streams, &mut self.reader);
        ended
    }

    /// Writes as much of the call as fits; a program that does not want it is no error.
    fn write(&mut self) {
        let Some((pipe, call)) = &mut self.stdin else { return };
        match rustix::io::write(&*pipe, call) {
            Ok(written) if written < call.len() => drop(call.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.stdin = None,
        }
    }

    /// Reads what the pipes still hold, whether or not anybody takes it: nobody writes into them any more, or somebody
    /// who got away from the group does, and is not to keep the call from ending.
    fn read_what_is_left(&mut self) {
        for (slot, stream) in self.streams.iter_mut().zip([Stream::Out, Stream::Err]) {
            let mut left = LARGEST_PIPE;
            while let Some(count) = read_once(slot, stream, &mut self.reader)
                && left > 0
            {
                left = left.saturating_sub(count);
            }
        }
    }
}

/// Reads what is there from both streams, as long as somebody takes it.
fn read(streams: &mut [Option<OwnedFd>; 2], reader: &mut Reader<'_>) {
    for (slot, stream) in streams.iter_mut().zip([Stream::Out, Stream::Err]) {
        if reader.has_room() {
            read_once(slot, stream, reader);
        }
    }
}

/// Reads once from a pipe, and closes it at its end; `None` when nothing is there now.
fn read_once(slot: &mut Option<OwnedFd>, stream: Stream, reader: &mut Reader<'_>) -> Option<usize> {
    let pipe = slot.as_ref()?;
    match reader.read(stream, pipe.as_fd()) {
        Ok(count) if count > 0 => Some(count),
        Err(Errno::INTR) => Some(0),
        Err(Errno::AGAIN) => None,
        Ok(_) | Err(_) => {
            *slot = None;
            None
        }
    }
}

/// How a program that was left alone ended.
fn exit(status: io::Result<ExitStatus>) -> Exit {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => Exit::Code(code),
        Ok((None, Some(signal))) => Exit::Signal(signal, signals::name(signal)),
        Ok((None, None)) => Exit::Unknown("neither an exit code nor a signal".to_owned()),
        Err(error) => Exit::Unknown(format!("it is unknown how it ended: {}", reason(&error))),
    }
}
