//! A worker that asyncq has started: a program that stays and gets one call after another.

use std::time::{Duration, Instant};
use std::{path::Path, sync::Arc};

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::function::{Definition, FunctionName, WorkerLimits};
use crate::domain::job::{Claim, Token};
use crate::domain::service::ServiceName;
use crate::failpoint::reached;
use crate::runner::worker::peer::{EndingCalls, Peer, SessionEnd};
use crate::runner::worker::{
    CallSource, SentCall, channel::Channel, hangup::HangupDetector, program_files::ProgramFiles, protocol::Hello,
    session::Session,
};
use crate::runner::{
    Capture, Output, StartFailure, StopSwitch, Surroundings, output::program_output::ProgramOutput,
    process::tree::Tree, spawn::Program,
};
use crate::system::{error::in_words, memory};

/// How often to measure the memory of a worker.
const MEASURE: Duration = Duration::from_millis(100);

/// A running worker, and the calls that it holds.
pub type Worker = Session<Child>;

/// The program of a worker.
#[derive(Debug)]
pub struct Child {
    pub(super) tree: Tree,
    /// How its program was started, and in which site.
    definition: Arc<Definition>,
    site: String,
    files: ProgramFiles,
    /// For which service and function it was started.
    made_for: (ServiceName, FunctionName),
    /// Whether it reads `cancel` while it runs a call.
    listens: bool,
    /// Whether it was asked to end. Then it gets no more calls.
    is_asked: bool,
    /// Whether its slot knows that it is leaving with calls that still run.
    leaves: bool,
    pub(super) answers: u64,
    memory: MemoryUse,
    /// How its latest call wants it to be kept.
    limits: WorkerLimits,
}

/// How much memory a worker uses.
#[derive(Debug)]
struct MemoryUse {
    /// In bytes, when it said hello.
    at_hello: u64,
    measured: Instant,
    /// Whether it has grown too much since.
    has_grown: bool,
}

/// What has become of a worker that has nothing to do.
#[derive(Debug)]
pub enum ServeEnd {
    /// It waits for more.
    Idle(Box<Worker>),
    /// It has done enough, and has to end.
    Worn(Box<Worker>),
    /// It is gone.
    Gone,
    /// It is gone before it has begun a call.
    FailedWorker(Box<FailedWorker>),
}

/// A worker that cannot be started, or was killed before it could begin.
#[derive(Debug)]
pub struct FailedWorker {
    /// What that means for the call for which it was started. The call has failed if the worker cannot be started.
    pub outcome: Outcome,
    /// What it has printed.
    pub printed: Capture,
    /// The call that it was sent and has not read, if there is one.
    pub first: Option<SentCall>,
}

impl Worker {
    /// Starts the worker that runs the function of a claim. Every process that it starts carries `token`.
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
        let (channel, theirs) = around.scarcity.wait(control, Channel::new, cannot)?;
        // This comes before the start, so that no later change is missed.
        let files = ProgramFiles::of(definition, site, Path::new(&around.store));
        let mut tree = Tree::start(&around.orphans, token, |offer| {
            Program { claim, around, offer, control }.start_worker(token, theirs)
        })?;
        reached("worker started");
        let output = ProgramOutput::of(&mut tree.child, &around.folder);
        let watched = tree.watch().inspect_err(|_| drop(tree.kill()));
        let ended = watched.map_err(|error| StartFailure::of(error, cannot))?;
        let hangup = channel.other_end().map(|socket| HangupDetector::new(socket, tree.pid()));
        let child = Child {
            tree,
            definition: Arc::clone(definition),
            site: site.to_owned(),
            files,
            made_for: (claim.call.service.clone(), claim.call.function.clone()),
            listens: false,
            is_asked: false,
            leaves: false,
            answers: 0,
            memory: MemoryUse { at_hello: 0, measured: Instant::now(), has_grown: false },
            limits: WorkerLimits::default(),
        };
        Ok(Session { output, hangup, ..Session::new(child, ended, channel, &around.folder) })
    }

    /// Runs calls from `calls` until there are none left for this worker and all are answered.
    #[must_use]
    pub fn serve(mut self: Box<Self>, calls: &dyn CallSource, output: Output<'_>, control: &StopSwitch) -> ServeEnd {
        match self.run(calls, output, control) {
            SessionEnd::Idle if self.peer.is_worn(0) => ServeEnd::Worn(self),
            SessionEnd::Idle => ServeEnd::Idle(self),
            SessionEnd::Unneeded => self.leave(output),
            SessionEnd::Unkillable => self.leave_behind(calls, output),
            end => self.end_with(&end, calls, output),
        }
    }

    /// Whether it runs the function of a claim.
    pub fn runs(&self, claim: &Claim) -> bool {
        let (definition, site, (own, own_site)) = (&claim.definition, claim.site(), self.made_of());
        Arc::ptr_eq(definition, own) && site == own_site || own.shares_worker(own_site, definition, site)
    }

    /// Whether a file from which it was started was replaced or written since.
    pub fn is_outdated(&mut self) -> bool {
        self.peer.files.check()
    }

    /// Whether the function for which it was started was reloaded or changed since, as a claim shows.
    pub fn is_superseded_by(&self, claim: &Claim) -> bool {
        let (service, function) = &self.peer.made_for;
        let Claim { call, definition, .. } = claim;
        *service == call.service
            && *function == call.function
            && definition.generation > self.peer.definition.generation
    }

    /// How its program was started: for which definition, and in which site.
    pub fn made_of(&self) -> (&Arc<Definition>, &str) {
        (&self.peer.definition, &self.peer.site)
    }

    /// Lets it read the end of its channel.
    pub fn close(&self) {
        self.channel.close();
    }

    /// Whether it is still there.
    pub fn lives(&self) -> bool {
        !self.ends_within(Duration::ZERO)
    }

    /// How long it may be idle.
    pub fn idle(&self) -> Duration {
        self.peer.limits.idle()
    }
}

impl Peer for Child {
    fn accept(&mut self, hello: &Hello) -> Result<(), String> {
        self.listens = hello.cancel;
        self.memory.at_hello = memory::resident(self.tree.pid());
        Ok(())
    }

    fn can_queue(&self) -> bool {
        true
    }

    fn prepare(&mut self, claim: &Claim) {
        self.limits = claim.definition.worker.unwrap_or_default();
    }

    /// Measures its memory now and then, and when it has nothing to do.
    fn count_answers(&mut self, answers: usize, held: usize) {
        self.answers += answers as u64;
        let Some(growth) = self.limits.growth else { return };
        if held == 0 || self.memory.measured.elapsed() >= MEASURE {
            self.memory.measured = Instant::now();
            self.memory.has_grown = memory::resident(self.tree.pid()) > self.memory.at_hello + growth;
        }
    }

    fn is_worn(&self, held: usize) -> bool {
        let calls = self.answers + held as u64;
        self.memory.has_grown
            || self.is_asked
            || self.files.has_changed
            || self.limits.calls.is_some_and(|most| calls >= most)
    }

    fn wears_out(&mut self, held: usize) -> bool {
        // Each worker runs at least one call, even if one of the files is written all the time.
        if self.answers > 0 {
            self.files.check();
        }
        held > 0 && self.is_worn(held) && !std::mem::replace(&mut self.leaves, true)
    }

    fn end_calls(&mut self, calls: &EndingCalls) -> Result<(), String> {
        if calls.are_new && !self.listens {
            self.tree.terminate();
            self.is_asked = true;
        }
        self.tree.works_for(calls.job);
        if calls.are_late || !self.listens {
            self.tree.escalate(calls.are_late);
        }
        Ok(())
    }

    fn is_left(&self) -> bool {
        self.tree.is_left()
    }
}
