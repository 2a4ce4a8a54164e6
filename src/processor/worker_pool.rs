//! Workers that no slot feeds: idle ones, and those that are ending. Also remembers which could not be started.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::function::Definition;
use crate::domain::job::{Claim, Token};
use crate::error::Error;
use crate::processor::random::new_token;
use crate::runner::{Forwarder, Output, StartFailure, StopSwitch, Surroundings, worker::Worker};
use crate::system::fds;

/// For how long a failed start counts for other calls. It is shorter than the shortest pause before such a call is tried again, so
/// that each attempt tries to start the worker.
const REMEMBERED: Duration = Duration::from_millis(500);

/// Stack of a thread that waits for the end of a worker, in bytes.
const STACK: usize = 128 * 1024;

/// The workers that no slot feeds.
pub(super) struct WorkerPool {
    state: Mutex<PoolState>,
    forwarder: Arc<Forwarder>,
    /// All their tokens begin with this, so that a rescuer finds them.
    token: Token,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<(Instant, Box<Worker>)>,
    leaving: Vec<JoinHandle<()>>,
    start_failures: Vec<StartFailed>,
}

struct StartFailed {
    definition: Arc<Definition>,
    site: String,
    failure: Failure,
    since: Instant,
}

impl WorkerPool {
    /// An empty pool.
    pub(super) fn new(forwarder: Arc<Forwarder>, token: Token) -> WorkerPool {
        WorkerPool { state: Mutex::default(), forwarder, token }
    }

    /// Starts the worker for a claim; remembers a failure.
    pub(super) fn start(
        &self,
        claim: &Claim,
        around: &Surroundings,
        control: &StopSwitch,
    ) -> Result<Box<Worker>, StartFailure> {
        let no_token = |error: Error| StartFailure::Unable(Failure::new(FailureKind::CannotRun, error.to_string()));
        let token = new_token().map_err(no_token)?;
        Worker::start(claim, &token.inside(&self.token), around, control).map(Box::new).inspect_err(|error| {
            if let StartFailure::Unable(failure) | StartFailure::Unfit(failure) = error {
                self.note_start_failure(&claim.definition, claim.site(), failure);
            }
        })
    }

    /// An idle worker that runs the function of a claim.
    pub(super) fn take(&self, claim: &Claim) -> Option<Box<Worker>> {
        let mut state = self.state();
        while let Some(place) = state.idle.iter().position(|(_, worker)| worker.is_superseded_by(claim)) {
            let (_, worker) = state.idle.remove(place);
            self.let_go(&mut state, worker);
        }
        loop {
            // The latest one: the others may go.
            let place = state.idle.iter().rposition(|(_, worker)| worker.runs(claim))?;
            let (_, mut worker) = state.idle.remove(place);
            if worker.lives() && !worker.is_outdated() {
                return Some(worker);
            }
            self.let_go(&mut state, worker);
        }
    }

    /// Keeps an idle worker. If there are too many, ends the one that was idle for longest.
    pub(super) fn put(&self, worker: Box<Worker>) {
        let mut state = self.state();
        state.idle.push((Instant::now(), worker));
        if state.idle.len() > fds::functions_at_once() {
            let (_, oldest) = state.idle.remove(0);
            self.let_go(&mut state, oldest);
        }
    }

    /// Ends a worker, in its own thread.
    pub(super) fn retire(&self, worker: Box<Worker>) {
        self.let_go(&mut self.state(), worker);
    }

    /// Ends workers that were idle for long enough.
    pub(super) fn retire_idle(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        for (since, worker) in idle {
            if since.elapsed() >= worker.idle() || !worker.lives() {
                self.let_go(&mut state, worker);
            } else {
                state.idle.push((since, worker));
            }
        }
        state.leaving.retain(|thread| !thread.is_finished());
    }

    /// Time until the next worker was idle for long enough.
    pub(super) fn next_end(&self) -> Option<Duration> {
        let state = self.state();
        state.idle.iter().map(|(since, worker)| worker.idle().saturating_sub(since.elapsed())).min()
    }

    /// Ends all workers, and waits until they have ended.
    pub(super) fn end(&self) {
        let mut state = self.state();
        let idle = std::mem::take(&mut state.idle);
        for (_, worker) in idle {
            self.let_go(&mut state, worker);
        }
        let leaving = std::mem::take(&mut state.leaving);
        drop(state);
        for thread in leaving {
            let _ = thread.join();
        }
    }

    /// Kills all idle workers.
    pub(super) fn kill(&self) {
        let idle = std::mem::take(&mut self.state().idle);
        for (_, worker) in idle {
            worker.kill();
        }
    }

    fn let_go(&self, state: &mut PoolState, worker: Box<Worker>) {
        worker.close();
        let forwarder = Arc::clone(&self.forwarder);
        let end = move || worker.end(Output { forwarder: &forwarder, whole_lines: true, tap: None, claim: None });
        let thread = std::thread::Builder::new().name("worker end".to_owned()).stack_size(STACK).spawn(end);
        // If there is no thread, the worker is dropped: it reads the end of its input, and its processes end with this processor.
        state.leaving.extend(thread);
    }

    /// Why the worker for a claim cannot be started, if that has just been tried.
    pub(super) fn start_failure(&self, claim: &Claim) -> Option<Failure> {
        let mut state = self.state();
        state.start_failures.retain(|failed| failed.since.elapsed() < REMEMBERED);
        let is_of =
            |failed: &&StartFailed| failed.definition.shares_worker(&failed.site, &claim.definition, claim.site());
        state.start_failures.iter().find(is_of).map(|failed| failed.failure.clone())
    }

    /// Notes that the worker of a definition cannot be started in a site.
    pub(super) fn note_start_failure(&self, definition: &Arc<Definition>, site: &str, failure: &Failure) {
        let (definition, site, failure) = (Arc::clone(definition), site.to_owned(), failure.clone());
        self.state().start_failures.push(StartFailed { definition, site, failure, since: Instant::now() });
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
