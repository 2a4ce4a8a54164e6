//! Functions that are commands: one process started for each call.
//!
//! Invariant: when [`run`] returns, the process has ended and so has its process group.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};

use super::result::ResultFile;
use super::{Capture, Control, Echo, Ended, Request, Stop, Surroundings};
use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::json;
use crate::domain::log::Stream;

/// How long a function that was asked to end may take before it is made to.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long what is left of a process group may take to end, after the program itself has ended.
const REST_GRACE: Duration = Duration::from_secs(2);

/// The longest argument that Linux passes to a program, in bytes (`MAX_ARG_STRLEN`, execve(2), without the NUL).
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;

/// How much a pipe can hold, in bytes (the default of `/proc/sys/fs/pipe-max-size`, pipe(7)).
const LARGEST_PIPE: usize = 1024 * 1024;

/// The exit code by which a function asks to be tried again (`EX_TEMPFAIL` of sysexits.h).
const CONFLICT: i32 = 75;

/// How a function's output is passed on.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// To whom.
    pub echo: &'a Echo,
    /// Only in whole lines, because other functions may print at the same time.
    pub whole_lines: bool,
}

/// Runs a call to its end.
#[must_use]
pub fn run(request: &Request<'_>, around: &Surroundings, output: Output<'_>, control: &Control) -> Ended {
    let began = Instant::now();
    let result = ResultFile::new(&around.folder, request.fence);
    let mut capture = Capture::new(&around.folder);
    let outcome = match spawn(request, around, &result) {
        Err(failure) => Outcome::Failed(failure),
        Ok(child) => {
            let limit = request.definition.timeout.map(|timeout| began + timeout);
            let call = stdin_line(request);
            match Running::new(child, call, Reader::new(&mut capture, output)) {
                Ok(running) => running.until_the_end(limit, control),
                Err(error) => Outcome::Failed(cannot_run(126, format!("cannot be watched: {error}"))),
            }
        }
    };
    let took = began.elapsed();
    let (outcome, result) = match (outcome, result.take()) {
        (outcome, Ok(result)) => (outcome, result),
        (Outcome::Completed, Err(failure)) => (Outcome::Failed(failure), None),
        (outcome, Err(_)) => (outcome, None),
    };
    Ended { outcome, result, took, output: capture }
}

fn spawn(request: &Request<'_>, around: &Surroundings, result: &ResultFile) -> Result<Child, Failure> {
    let definition = request.definition;
    let site = Path::new(request.call.site.as_deref().unwrap_or(&definition.site));
    let Some((program, first)) = definition.command.split_first() else {
        return Err(cannot_run(127, "the function has no program".to_owned()));
    };
    let program = site.join(program);
    let start = |args: &[String]| {
        let mut command = Command::new(&program);
        command.args(first).args(args).current_dir(site);
        command.env_clear().envs(around.env.iter().map(|(name, value)| (name, value))).envs(&definition.env);
        command.envs(variables(request, around)).env("ASYNCQ_RESULT", result.path()).env("ASYNCQ_SITE", site);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn()
    };
    let child = match start(&arguments(request)) {
        // Too much for one command line all together: then it reaches the function on stdin only.
        Err(error) if error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) => start(&[]),
        child => child,
    };
    child.map_err(|error| why_not(&error, &program, site))
}

fn variables<'a>(request: &Request<'a>, around: &'a Surroundings) -> Vec<(&'static str, String)> {
    let call = request.call;
    let mut variables = vec![
        ("ASYNCQ_JOB", request.fence.job.to_string()),
        ("ASYNCQ_ATTEMPT", request.fence.attempt.to_string()),
        ("ASYNCQ_SERVICE", call.service.to_string()),
        ("ASYNCQ_FUNCTION", call.function.to_string()),
        ("ASYNCQ_DB", around.store.clone()),
        ("ASYNCQ_TOKEN", request.token.as_str().to_owned()),
    ];
    if let Some(principal) = &call.principal {
        variables.push(("ASYNCQ_PRINCIPAL", principal.to_string()));
    }
    variables
}

/// The call's arguments as words. One that is too long for a command line is left to stdin: an empty word stands in
/// its place, so that the others keep theirs.
fn arguments(request: &Request<'_>) -> Vec<String> {
    let word = |value: &str| match json::unquote(value) {
        Some(text) => text.into_owned(),
        None => json::compact(value),
    };
    let mut words: Vec<String> = request.call.args.elements().into_iter().map(word).collect();
    for long in words.iter_mut().filter(|word| word.len() > LONGEST_ARGUMENT) {
        long.clear();
    }
    for (name, value) in request.call.kwargs.entries() {
        let option = format!("--{name}={}", word(value));
        if option.len() <= LONGEST_ARGUMENT {
            words.push(option);
        }
    }
    words
}

/// The whole call as one line of JSON.
fn stdin_line(request: &Request<'_>) -> Vec<u8> {
    let call = request.call;
    let text = |text: Option<&str>| text.map_or("null".to_owned(), json::quote);
    let line = format!(
        r#"{{"job":{},"attempt":{},"service":{},"function":{},"args":{},"kwargs":{},"principal":{},"site":{}}}"#,
        request.fence.job,
        request.fence.attempt,
        json::quote(call.service.as_str()),
        json::quote(call.function.as_str()),
        call.args,
        call.kwargs,
        text(call.principal.as_ref().map(super::super::domain::call::Principal::as_str)),
        text(Some(call.site.as_deref().unwrap_or(&request.definition.site))),
    );
    // JSON has line ends only between its tokens, where a space means the same.
    let mut line: Vec<u8> =
        line.into_bytes().into_iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }).collect();
    line.push(b'\n');
    line
}

fn cannot_run(exit_code: i32, message: String) -> Failure {
    Failure { exit_code: Some(exit_code), ..Failure::new(FailureKind::CannotRun, message) }
}

fn why_not(error: &io::Error, program: &Path, site: &Path) -> Failure {
    let shown = program.display();
    match site.metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return cannot_run(127, format!("its site `{}` is no directory any more", site.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return cannot_run(127, format!("its site `{}` is gone", site.display()));
        }
        Err(error) => return cannot_run(126, format!("its site `{}` cannot be entered: {error}", site.display())),
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) if program.exists() => {
            cannot_run(127, format!("the interpreter that `{shown}` names in its first line is missing"))
        }
        Some(Errno::NOENT) => cannot_run(127, format!("its program `{shown}` is gone")),
        Some(Errno::ACCESS) => cannot_run(126, format!("its program `{shown}` is not executable")),
        Some(Errno::NOEXEC) => {
            cannot_run(126, format!("its program `{shown}` is neither a binary nor a script that begins with `#!`"))
        }
        _ => cannot_run(126, format!("its program `{shown}` cannot be started: {error}")),
    }
}

/// A function's process and the pipes to it.
struct Running<'a> {
    child: Child,
    group: Pid,
    ended: OwnedFd,
    stdin: Option<(OwnedFd, Vec<u8>)>,
    streams: [Option<OwnedFd>; 2],
    reader: Reader<'a>,
}

/// What is to become of a function that does not end by itself.
#[derive(Clone, Copy)]
struct Ending {
    why: Why,
    /// When it is made to end.
    kill_at: Instant,
    killed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    TooLong,
    Cancelled,
    Interrupted,
}

impl<'a> Running<'a> {
    fn new(mut child: Child, call: Vec<u8>, reader: Reader<'a>) -> io::Result<Running<'a>> {
        let group = Pid::from_child(&child);
        let pipes = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        let prepared = pidfd_open(group, PidfdFlags::empty()).and_then(|ended| {
            for pipe in pipes.iter().flatten() {
                rustix::io::ioctl_fionbio(pipe, true)?;
            }
            Ok(ended)
        });
        let ended = match prepared {
            Ok(ended) => ended,
            Err(error) => {
                // Nothing that nobody watches may go on.
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                return Err(error.into());
            }
        };
        let [stdin, stdout, stderr] = pipes;
        let stdin = stdin.map(|pipe| (pipe, call));
        Ok(Running { child, group, ended, stdin, streams: [stdout, stderr], reader })
    }

    fn until_the_end(mut self, limit: Option<Instant>, control: &Control) -> Outcome {
        let mut ending: Option<Ending> = None;
        self.write();
        loop {
            let deadline = ending.map_or(limit, |ending| (!ending.killed).then_some(ending.kill_at));
            if self.wait(deadline, Some(control)) {
                break;
            }
            let now = Instant::now();
            let asked = match control.asked() {
                Stop::No => limit.filter(|limit| now >= *limit).map(|_| (Why::TooLong, GRACE)),
                Stop::Cancel => Some((Why::Cancelled, GRACE)),
                Stop::Interrupt => Some((Why::Interrupted, GRACE)),
                Stop::Kill => Some((Why::Interrupted, Duration::ZERO)),
            };
            if let (None, Some((why, grace))) = (&ending, asked) {
                ending = Some(Ending { why, kill_at: now + grace, killed: false });
                self.signal(Signal::TERM);
                // A stopped process does not see the signal before it goes on.
                self.signal(Signal::CONT);
            }
            if let Some(ending) = &mut ending
                && !ending.killed
                && (now >= ending.kill_at || control.asked() == Stop::Kill)
            {
                ending.killed = true;
                self.signal(Signal::KILL);
            }
        }
        let status = self.end_the_rest(control);
        match ending.map(|ending| ending.why) {
            None => outcome(status),
            Some(Why::Cancelled) => Outcome::Cancelled,
            Some(Why::Interrupted) => Outcome::Interrupted,
            Some(Why::TooLong) => Outcome::Failed(Failure {
                signal: status.as_ref().ok().and_then(ExitStatusExt::signal),
                ..Failure::new(FailureKind::Timeout, "took longer than its time limit")
            }),
        }
    }

    /// The program has ended: ends what it left behind in its group, and reads what all of them have printed.
    fn end_the_rest(&mut self, control: &Control) -> io::Result<ExitStatus> {
        // Its number still belongs to the group: it is not reaped yet.
        self.signal(Signal::TERM);
        let status = self.child.wait();
        let mut kill_at = Instant::now() + REST_GRACE;
        let mut pause = Duration::from_millis(1);
        while test_kill_process_group(self.group).is_ok() {
            if Instant::now() >= kill_at || control.asked() == Stop::Kill {
                self.signal(Signal::KILL);
                kill_at = Instant::now() + REST_GRACE;
            }
            self.read();
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.read_what_is_left();
        self.reader.finish();
        status
    }

    fn signal(&self, signal: Signal) {
        // The only way to fail is that the whole group is gone.
        let _ = kill_process_group(self.group, signal);
    }

    /// Waits until something happens, and passes on what can be; says whether the program has ended.
    fn wait(&mut self, deadline: Option<Instant>, control: Option<&Control>) -> bool {
        let listening = self.reader.has_room();
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(&self.ended, PollFlags::IN));
        if let Some(control) = control {
            fds.push(PollFd::from_borrowed_fd(control.wake(), PollFlags::IN));
        }
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
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        let ended = !fds[0].revents().is_empty();
        if let Some(control) = control {
            control.drain();
        }
        self.write();
        self.read();
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

    /// Reads what is there from both streams, as long as somebody takes it.
    fn read(&mut self) {
        for (slot, stream) in self.streams.iter_mut().zip([Stream::Out, Stream::Err]) {
            if self.reader.has_room() {
                read_once(slot, stream, &mut self.reader);
            }
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
fn outcome(status: io::Result<ExitStatus>) -> Outcome {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let message = format!("it is unknown how it ended: {error}");
            return Outcome::Failed(Failure::new(FailureKind::Exit, message));
        }
    };
    let failure =
        |kind, message| Failure { exit_code: status.code(), signal: status.signal(), ..Failure::new(kind, message) };
    Outcome::Failed(match (status.code(), status.signal()) {
        (Some(0), _) => return Outcome::Completed,
        (Some(CONFLICT), _) => return Outcome::Conflict,
        (Some(code @ 126), _) => failure(FailureKind::CannotRun, format!("exit code {code}: not executable")),
        (Some(code @ 127), _) => failure(FailureKind::CannotRun, format!("exit code {code}: a command was not found")),
        (Some(code), _) => failure(FailureKind::Exit, format!("exit code {code}")),
        (None, Some(signal)) => failure(FailureKind::Signal, format!("ended by signal {}", signal_name(signal))),
        (None, None) => failure(FailureKind::Exit, "neither an exit code nor a signal".to_owned()),
    })
}

fn signal_name(number: i32) -> String {
    match signal_hook::low_level::signal_name(number) {
        Some(name) => format!("{number} ({name})"),
        None => number.to_string(),
    }
}

/// Takes a function's output from its pipes into the capture and to the echo.
struct Reader<'a> {
    capture: &'a mut Capture,
    output: Output<'a>,
    buffer: Vec<u8>,
    /// The beginnings of lines that have no end yet, by stream.
    unfinished: [Vec<u8>; 2],
}

/// How much is read at once, and how long a line may be before it is passed on in parts.
const BUFFER: usize = 64 * 1024;

impl<'a> Reader<'a> {
    fn new(capture: &'a mut Capture, output: Output<'a>) -> Reader<'a> {
        Reader { capture, output, buffer: Vec::new(), unfinished: [Vec::new(), Vec::new()] }
    }

    fn has_room(&self) -> bool {
        self.output.echo.has_room()
    }

    fn read(&mut self, stream: Stream, pipe: std::os::fd::BorrowedFd<'_>) -> Result<usize, Errno> {
        self.buffer.resize(BUFFER, 0);
        let count = rustix::io::read(pipe, &mut self.buffer[..])?;
        let bytes = &self.buffer[..count];
        self.capture.push(stream, bytes);
        if !self.output.whole_lines {
            self.output.echo.push(stream, bytes.to_vec());
            return Ok(count);
        }
        let unfinished = &mut self.unfinished[usize::from(stream == Stream::Err)];
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        if whole > 0 {
            let mut lines = std::mem::take(unfinished);
            lines.extend_from_slice(&bytes[..whole]);
            self.output.echo.push(stream, lines);
        }
        unfinished.extend_from_slice(&bytes[whole..]);
        if unfinished.len() >= BUFFER {
            self.output.echo.push(stream, std::mem::take(unfinished));
        }
        Ok(count)
    }

    fn finish(&mut self) {
        for (unfinished, stream) in self.unfinished.iter_mut().zip([Stream::Out, Stream::Err]) {
            self.output.echo.push(stream, std::mem::take(unfinished));
        }
    }
}
