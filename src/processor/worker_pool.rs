//! The workers of a processor that have nothing to do, those that are on their way out, and those that cannot be started.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::function::Definition;
use crate::domain::job::{Claim, Token};
use crate::error::Error;
use crate::processor::random::new_token;
use crate::runner::process::fds;
use crate::runner::worker::Worker;
use crate::runner::{Forwarder, Output, StartFailure, StopSwitch, Surroundings};

/// How long not to try again to start what cannot be started: less than the shortest pause of a call that could not be
/// started, so that each of its tries is a new one.
const BROKEN: Duration = Duration::from_millis(500);

/// How much stack a thread needs that waits for a worker's end.
const STACK: usize = 128 * 1024;

/// The workers that no slot feeds.
pub(super) struct WorkerPool {
    shelf: Mutex<PoolState>,
    forwarder: Arc<Forwarder>,
    /// With what the tokens of all of them begin, so that whoever comes after this processor finds them.
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
    /// None yet.
    pub(super) fn new(forwarder: Arc<Forwarder>, token: Token) -> WorkerPool {
        WorkerPool { shelf: Mutex::default(), forwarder, token }
    }

    /// Starts the worker for a claim; notes where that is not possible.
    pub(super) fn start(
        &self,
        claim: &Claim,
        around: &Surroundings,
        control: &StopSwitch,
    ) -> Result<Box<Worker>, StartFailure> {
        let no_token = |error: Error| StartFailure::Unable(Failure::new(FailureKind::CannotRun, error.to_string()));
        let token = new_token().map_err(no_token)?;
        Worker::start(claim, &token.inside(&self.token), around, control).map(Box::new).inspect_err(|hitch| {
            if let StartFailure::Unable(failure) | StartFailure::Unfit(failure) = hitch {
                self.broke(&claim.definition, claim.site(), failure);
            }
        })
    }

    /// An idle worker that runs the function of a claim.
    pub(super) fn take(&self, claim: &Claim) -> Option<Box<Worker>> {
        let mut shelf = self.shelf();
        while let Some(place) = shelf.idle.iter().position(|(_, worker)| worker.is_superseded_by(claim)) {
            let (_, worker) = shelf.idle.remove(place);
            self.let_go(&mut shelf, worker);
        }
        loop {
            // The latest one: the others may go.
            let place = shelf.idle.iter().rposition(|(_, worker)| worker.runs(claim))?;
            let (_, mut worker) = shelf.idle.remove(place);
            if worker.lives() && !worker.is_outdated() {
                return Some(worker);
            }
            self.let_go(&mut shelf, worker);
        }
    }

    /// Keeps a worker that has nothing to do; if there are too many, the one goes that has been idle for longest.
    pub(super) fn put(&self, worker: Box<Worker>) {
        let mut shelf = self.shelf();
        shelf.idle.push((Instant::now(), worker));
        if shelf.idle.len() > fds::functions_at_once() {
            let (_, oldest) = shelf.idle.remove(0);
            self.let_go(&mut shelf, oldest);
        }
    }

    /// Ends a worker, in a thread of its own.
    pub(super) fn retire(&self, worker: Box<Worker>) {
        self.let_go(&mut self.shelf(), worker);
    }

    /// Ends those that have been idle for long enough.
    pub(super) fn retire_idle(&self) {
        let mut shelf = self.shelf();
        let idle = std::mem::take(&mut shelf.idle);
        for (since, worker) in idle {
            if since.elapsed() >= worker.idle() || !worker.lives() {
                self.let_go(&mut shelf, worker);
            } else {
                shelf.idle.push((since, worker));
            }
        }
        shelf.leaving.retain(|thread| !thread.is_finished());
    }

    /// When the next one has been idle for long enough.
    pub(super) fn next_end(&self) -> Option<Duration> {
        let shelf = self.shelf();
        shelf.idle.iter().map(|(since, worker)| worker.idle().saturating_sub(since.elapsed())).min()
    }

    /// Ends all of them, and waits until they are gone.
    pub(super) fn end(&self) {
        let mut shelf = self.shelf();
        let idle = std::mem::take(&mut shelf.idle);
        for (_, worker) in idle {
            self.let_go(&mut shelf, worker);
        }
        let leaving = std::mem::take(&mut shelf.leaving);
        drop(shelf);
        for thread in leaving {
            let _ = thread.join();
        }
    }

    /// Ends all that are idle, at once.
    pub(super) fn kill(&self) {
        let idle = std::mem::take(&mut self.shelf().idle);
        for (_, worker) in idle {
            worker.kill();
        }
    }

    fn let_go(&self, shelf: &mut PoolState, worker: Box<Worker>) {
        worker.close();
        let forwarder = Arc::clone(&self.forwarder);
        let end = move || worker.end(Output { forwarder: &forwarder, whole_lines: true });
        let thread = std::thread::Builder::new().name("worker's end".to_owned()).stack_size(STACK).spawn(end);
        // Without a thread it was dropped, and has read the end of its line; what is left of it ends with this processor.
        shelf.leaving.extend(thread);
    }

    /// Why the worker for a claim cannot be started, if that was tried a short time ago.
    pub(super) fn flaw(&self, claim: &Claim) -> Option<Failure> {
        let mut shelf = self.shelf();
        shelf.start_failures.retain(|failed| failed.since.elapsed() < BROKEN);
        let is_of =
            |failed: &&StartFailed| failed.definition.shares_worker(&failed.site, &claim.definition, claim.site());
        shelf.start_failures.iter().find(is_of).map(|failed| failed.failure.clone())
    }

    /// Notes that the worker of a definition cannot be started in a site.
    pub(super) fn broke(&self, definition: &Arc<Definition>, site: &str, failure: &Failure) {
        let (definition, site, failure) = (Arc::clone(definition), site.to_owned(), failure.clone());
        self.shelf().start_failures.push(StartFailed { definition, site, failure, since: Instant::now() });
    }

    fn shelf(&self) -> MutexGuard<'_, PoolState> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
