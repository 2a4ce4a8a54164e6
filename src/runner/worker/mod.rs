//! Functions that are run by workers: programs that stay, and get one call after another over a line of their own.
//!
//! Invariant: a call is charged with its worker's end only if it may have begun; one that the worker had not read goes back
//! untouched. When a worker is gone, so is all that it has started.

mod channel;
mod hangup;
pub mod host;
pub mod host_session;
mod in_flight;
mod oversized;
mod printed;
mod program_files;
mod protocol;
mod serve;
mod shutdown;
pub mod single_call;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use self::channel::Channel;
use self::hangup::HangupDetector;
use self::in_flight::InFlight;
use self::printed::WorkerOutput;
use self::program_files::ProgramFiles;
use self::protocol::Hello;
use crate::domain::attempt::{Failure, Outcome};
use crate::domain::function::{Definition, FunctionName, WorkerLimits};
use crate::domain::job::{Claim, Fence, Token};
use crate::domain::service::ServiceName;
use crate::failpoint::reached;
use crate::runner::process::fds;
use crate::runner::process::tree::Tree;
use crate::runner::spawn::SpawnContext;
use crate::runner::{Capture, Ended, Mark, Output, StartFailure, StopSwitch, Surroundings, in_words, spawn};

/// How long a worker may take to say hello.
const HELLO: Duration = Duration::from_secs(30);

/// How many calls a worker holds at most that runs them one after another, so that it need not wait for the next one.
const WINDOW: usize = 1024;

/// How many bytes of calls may wait to be written to a worker, before it gets no more.
const AHEAD: usize = 1024 * 1024;

/// A call that is handed to a worker.
#[derive(Debug)]
pub struct SentCall {
    /// The claim.
    pub claim: Claim,
    /// Says that it may have begun.
    pub mark: Option<Mark>,
}

/// A call that has ended.
#[derive(Debug)]
pub struct EndedCall {
    /// The claim.
    pub claim: Claim,
    /// How it ended.
    pub ended: Ended,
    /// Says that it had begun, if it had, until its outcome is recorded.
    pub mark: Option<Mark>,
}

/// What a worker has, and could take.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// How many calls it holds.
    pub held: usize,
    /// How many it runs at once.
    pub at_once: usize,
    /// How many may wait behind the one that it runs, so that each begins soon, if another worker could run them as well.
    pub ahead: usize,
    /// Whether they take so little time that it makes no difference who runs them.
    pub are_tiny: bool,
}

/// Where a worker's calls come from and go to.
pub trait CallSource {
    /// The next call for a worker with so much room, if there is one that it may have now.
    fn next(&self, room: SendLimits) -> Option<SentCall>;
    /// Calls have ended.
    fn done(&self, done: Vec<EndedCall>);
    /// Calls have not begun and will not; the first one was to be the next.
    fn back(&self, begun: Vec<SentCall>);
    /// Calls are left behind in a worker that may not be ended, and that nobody waits for: nothing comes of them here.
    fn leave(&self, begun: Vec<SentCall>) {
        drop(begun);
    }
    /// Attempts that are to be cancelled, each told once.
    fn cancelled(&self) -> Vec<Fence>;
    /// Whether calls may still begin.
    fn is_open(&self) -> bool;
    /// The worker gets no more calls, although it holds some: others may run those that wait.
    fn leaves(&self) {}
    /// Whether others have nothing to do, and could run the calls that wait behind the one which this worker runs.
    fn is_short_of_calls(&self) -> bool {
        false
    }
    /// A call tells how far it is.
    fn progress(&self, fence: Fence, text: String);
    /// Why no call may be given to it any more.
    fn flaw(&self) -> Option<String> {
        None
    }
}

/// What became of a worker for which there is nothing to do.
#[derive(Debug)]
pub enum ServeEnd {
    /// It waits for more.
    Idle(Box<Worker>),
    /// It has done enough, and is to be ended.
    Worn(Box<Worker>),
    /// It is gone.
    Gone,
    /// It is gone before it has begun a call.
    FailedWorker(Box<FailedWorker>),
}

/// A worker that cannot be started, or was killed before it could begin.
#[derive(Debug)]
pub struct FailedWorker {
    /// What that means for the call for which it was started: it has failed if the worker cannot be started.
    pub outcome: Outcome,
    /// What it has printed.
    pub printed: Capture,
    /// The call that it has got and not read, if it came as far as that.
    pub first: Option<SentCall>,
}

/// A running worker.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each notes one thing that has happened to it")]
pub struct Worker {
    tree: Tree,
    /// Tells that it has ended.
    ended: OwnedFd,
    line: Channel,
    other_end: HangupDetector,
    printed: WorkerOutput,
    /// What it has printed before it said hello.
    before: Capture,
    /// Whether it has printed while nobody took it: then it is not listened to until somebody does.
    is_clogged: bool,
    /// How its program was started, in which site, and from which files.
    definition: Arc<Definition>,
    site: String,
    origin: ProgramFiles,
    /// For which service and function it was started.
    made_for: (ServiceName, FunctionName),
    /// Whether it was told that it leaves, with calls that still run.
    leaves: bool,
    hello: Option<Hello>,
    held: InFlight,
    /// Attempts that are to be cancelled.
    cancelling: Vec<Fence>,
    /// Whether it was asked to end, so that it gets no more calls.
    asked: bool,
    /// Whether what it has not read was taken back since the latest call was sent.
    took_back: bool,
    started: Instant,
    answered: u64,
    /// How much memory it used when it said hello, in bytes.
    memory: u64,
    /// When that was looked at, and whether it is too much by now.
    measured: Instant,
    has_grown: bool,
    /// How its latest call wants it to be kept.
    keep: WorkerLimits,
    /// Where long outputs are put.
    folder: PathBuf,
}

impl Worker {
    /// Starts the worker that runs the function of a claim; every process that it starts carries `token`.
    ///
    /// # Errors
    /// When its program was not started.
    pub fn start(
        claim: &Claim,
        token: &Token,
        around: &Surroundings,
        control: &StopSwitch,
    ) -> Result<Worker, StartFailure> {
        let (definition, site) = (&claim.definition, claim.site());
        let cannot = |error: &std::io::Error| {
            Failure::not_executable(format!("its worker cannot be started: {}", in_words(error)))
        };
        let (line, theirs) = around.scarcity.wait(control, Channel::new, cannot)?;
        // What is written from here on is seen.
        let origin = ProgramFiles::of(definition, site, Path::new(&around.store));
        let mut tree = Tree::start(&around.orphans, token, |offer| {
            spawn::Program { definition, site, way: SpawnContext { around, offer, control } }
                .start_worker(token, theirs)
        })?;
        reached("worker started");
        let child = tree.child();
        let printed =
            WorkerOutput::of([child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)]);
        let watched = tree.watch().inspect_err(|_| drop(tree.kill()));
        let ended = watched.map_err(|error| StartFailure::of(error, cannot))?;
        Ok(Worker {
            tree,
            ended,
            line,
            other_end: HangupDetector::new(),
            printed,
            before: Capture::new(&around.folder),
            is_clogged: false,
            definition: Arc::clone(definition),
            site: site.to_owned(),
            origin,
            made_for: (claim.call.service.clone(), claim.call.function.clone()),
            leaves: false,
            hello: None,
            held: InFlight::default(),
            cancelling: Vec::new(),
            asked: false,
            took_back: false,
            started: Instant::now(),
            answered: 0,
            memory: 0,
            measured: Instant::now(),
            has_grown: false,
            keep: WorkerLimits::default(),
            folder: around.folder.clone(),
        })
    }

    /// Whether it runs the function of a claim.
    #[must_use]
    pub fn runs(&self, claim: &Claim) -> bool {
        let (definition, site) = (&claim.definition, claim.site());
        let same = Arc::ptr_eq(definition, &self.definition) && site == self.site;
        same || self.definition.shares_worker(&self.site, definition, site)
    }

    /// Whether a file from which it was started is another one by now, or was written.
    #[must_use]
    pub fn is_outdated(&mut self) -> bool {
        self.origin.has_changed()
    }

    /// Whether the function for which it was started was deployed or defined anew since, as a claim shows.
    #[must_use]
    pub fn is_superseded_by(&self, claim: &Claim) -> bool {
        let (service, function) = &self.made_for;
        let Claim { call, definition, .. } = claim;
        *service == call.service && *function == call.function && definition.generation > self.definition.generation
    }

    /// How its program was started: as what function, and in which site.
    #[must_use]
    pub fn made_of(&self) -> (&Arc<Definition>, &str) {
        (&self.definition, &self.site)
    }

    /// How many calls it runs at once, if it has said so.
    #[must_use]
    pub fn at_once(&self) -> Option<usize> {
        self.hello.as_ref().map(|hello| hello.calls.max(1))
    }

    /// Lets it read the end of its line.
    pub fn close(&self) {
        self.line.close();
    }

    /// Whether it is still there.
    #[must_use]
    pub fn lives(&self) -> bool {
        !self.has_ended()
    }

    /// How long it may be idle.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.keep.idle()
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        matches!(fds::wait(&mut fds, Some(Duration::ZERO)), Ok(1..))
    }

    /// Sleeps until something happens: on its line, its streams, its end, or the others.
    fn wait_for(&self, others: &[PollFd<'_>], time: Duration, output: Output<'_>) {
        let listening = output.forwarder.has_room();
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(4 + others.len());
        fds.push(PollFd::new(&self.ended, PollFlags::IN));
        let writing = if self.line.waiting() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        if !self.line.is_over() && !self.is_clogged {
            fds.push(PollFd::from_borrowed_fd(self.line.fd(), PollFlags::IN | writing));
        }
        if listening {
            fds.extend(self.printed.streams().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        }
        fds.extend_from_slice(others);
        let time = if listening { time } else { time.min(Duration::from_millis(10)) };
        // Interrupted or not: whoever waits looks what has happened.
        let _ = fds::wait(&mut fds, Some(time));
    }

    /// How much memory a process has in use, in bytes; 0 when that cannot be told.
    fn memory(pid: Pid) -> u64 {
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok();
        let resident = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        resident.unwrap_or(0) * u64::try_from(rustix::param::page_size()).unwrap_or(0)
    }
}
