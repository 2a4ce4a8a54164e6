//! Requests that wait for jobs. One thread with its own connection handles all of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::job_change::{CANCEL_PATIENCE, LOOK_AT_CANCELLED, look_if_cancelled};
use super::lookout::Lookout;
use super::pause::still_runs;
use super::queue::{Place, Queue};
use super::rpc_answers::{Answers, RpcError, RpcResult};
use super::wait::{Progress, StillOpen, not_yet, progress, service_gone};
use crate::domain::attempt::{Attempt, Failure};
use crate::domain::job::{Job, JobId, State};
use crate::domain::rpc_look::RpcAwaited;
use crate::error::{Error, Kind, Result};
use crate::processor::EventQueue;

/// How many bytes of requests are read before they are answered, about.
pub(super) const BYTES_AT_ONCE: u64 = 8 * 1024 * 1024;

/// How many bytes of jobs an answer holds at most, about.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// A request that waits.
pub(super) struct OpenWait {
    id: Box<str>,
    wants: WaitFor,
    until: Option<Instant>,
    /// Whether what it waits for was seen.
    seen: bool,
}

/// What a request waits for.
enum WaitFor {
    /// That something ends by itself.
    End(RpcAwaited),
    /// This job, which was asked to end, is cancelled.
    Cancelled(JobId),
}

impl OpenWait {
    /// A request with this id that waits for this, at most for this time.
    pub(super) fn of(id: &str, awaited: RpcAwaited, timeout: Option<Duration>) -> OpenWait {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        OpenWait { id: id.into(), wants: WaitFor::End(awaited), until, seen: false }
    }

    /// A request with this id that waits until a job is cancelled that was asked to end.
    pub(super) fn for_cancelled(id: &str, job: JobId) -> OpenWait {
        let until = Some(Instant::now() + CANCEL_PATIENCE);
        OpenWait { id: id.into(), wants: WaitFor::Cancelled(job), until, seen: true }
    }

    /// How much memory it takes.
    fn size(&self) -> usize {
        size_of::<OpenWait>() + self.id.len() + size_of_val(self.asks_for())
    }

    /// The jobs whose states decide whether the wait is over.
    fn asks_for(&self) -> &[JobId] {
        match &self.wants {
            WaitFor::End(RpcAwaited::All(jobs) | RpcAwaited::Any(jobs)) => jobs,
            WaitFor::End(RpcAwaited::Services(_) | RpcAwaited::Nothing) | WaitFor::Cancelled(_) => &[],
        }
    }

    /// Checks whether the wait is over, by the states of the jobs that it asks for. If so, returns the answer.
    fn look(&mut self, queue: &mut Queue, states: &[Option<State>]) -> Option<Result<RpcResult<'static>, RpcError>> {
        let done = self.try_look(queue, states);
        self.seen = true;
        done.map_err(RpcError::from).transpose()
    }

    fn try_look(&self, queue: &mut Queue, states: &[Option<State>]) -> Result<Option<RpcResult<'static>>> {
        match &self.wants {
            WaitFor::Cancelled(job) => {
                let until = self.until.unwrap_or_else(Instant::now);
                let is_done = look_if_cancelled(&mut queue.store, *job, until)?;
                if is_done { Ok(Some(RpcResult::Job(Box::new(queue.job(*job)?)))) } else { Ok(None) }
            }
            WaitFor::End(RpcAwaited::All(jobs)) => {
                let states = jobs.iter().copied().zip(states.iter().copied());
                match progress(&mut queue.store, states, self.seen)? {
                    Progress::Ended => self.answer(queue, jobs),
                    Progress::Open(id, state) => self.go_on(|| not_yet(id, state)),
                }
            }
            WaitFor::End(RpcAwaited::Any(jobs)) => {
                let pairs = || jobs.iter().copied().zip(states.iter().copied());
                if let Some((first, _)) = pairs().find(|(_, state)| state.is_some_and(State::has_ended)) {
                    return self.answer(queue, &[first]);
                }
                match progress(&mut queue.store, pairs(), self.seen)? {
                    Progress::Open(id, state) => self.go_on(|| not_yet(id, state)),
                    Progress::Ended => Ok(None),
                }
            }
            WaitFor::End(RpcAwaited::Services(services)) => match queue.store.busy_service(services) {
                Ok(None) => Ok(Some(RpcResult::Done)),
                Ok(Some(name)) => self.go_on(|| StillOpen::Service(name).too_late()),
                Err(error) if self.seen => Err(service_gone(&mut queue.store, services, error)),
                Err(error) => Err(error),
            },
            WaitFor::End(RpcAwaited::Nothing) => match queue.oldest_running()? {
                Some(job) => self.go_on(|| still_runs(job)),
                None => Ok(Some(RpcResult::Done)),
            },
        }
    }

    /// Waits on, unless the time is over.
    fn go_on(&self, too_late: impl FnOnce() -> Error) -> Result<Option<RpcResult<'static>>> {
        if self.until.is_some_and(|until| until <= Instant::now()) { Err(too_late()) } else { Ok(None) }
    }

    /// The answer about jobs that have all ended; nothing if one of them was queued again just now.
    fn answer(&self, queue: &mut Queue, jobs: &[JobId]) -> Result<Option<RpcResult<'static>>> {
        let (mut shown, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
        for id in jobs {
            let (job, attempts) = queue.job(*id)?;
            if !job.state.has_ended() {
                return self.go_on(|| not_yet(*id, job.state));
            }
            bytes += size(&job, &attempts);
            if bytes > LONGEST_ANSWER {
                let message = format!("these jobs together hold more than {} MiB", LONGEST_ANSWER >> 20);
                return Err(Error::new(Kind::Invalid, message).with_hint("wait for fewer jobs in one request"));
            }
            shown.push((job, attempts));
        }
        Ok(Some(RpcResult::Jobs(shown)))
    }
}

/// About how much memory a job takes with its attempts, in bytes.
fn size(job: &Job, attempts: &[Attempt]) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let failure = |error: &Failure| error.message.len() + text(&error.class) + text(&error.traceback);
    let error = |error: &Option<Failure>| error.as_ref().map_or(0, failure);
    let own = job.call.args.len() + job.call.kwargs.len() + text(&job.result) + error(&job.error);
    let attempts = attempts.iter().map(|attempt| size_of::<Attempt>() + error(&attempt.error));
    size_of::<Job>() + own + attempts.sum::<usize>()
}

/// What the thread that waits gets.
enum WaitEvent {
    /// One more to wait for.
    New(OpenWait),
    /// No more requests will come. What is still open is answered at once.
    End,
}

/// The open waits, for the thread that handles them.
struct Waits {
    events: EventQueue<WaitEvent>,
    /// How much memory they take, in bytes.
    size: AtomicUsize,
}

impl Waits {
    fn new() -> io::Result<Waits> {
        Ok(Waits { events: EventQueue::new()?, size: AtomicUsize::new(0) })
    }

    fn add(&self, wait: OpenWait) -> Result<()> {
        let (size, most) = (wait.size(), usize::try_from(BYTES_AT_ONCE).unwrap_or(usize::MAX));
        if self.size.fetch_add(size, Ordering::Relaxed) + size > most {
            self.size.fetch_sub(size, Ordering::Relaxed);
            return Err(Error::new(Kind::Busy, "too many jobs are waited for")
                .with_hint("wait for fewer at a time, or in another process"));
        }
        self.events.send(WaitEvent::New(wait));
        Ok(())
    }
}

/// Ends all waits when it is dropped.
pub(super) struct EndOfWaits<'a>(&'a EventQueue<WaitEvent>);

impl Drop for EndOfWaits<'_> {
    fn drop(&mut self) {
        self.0.send(WaitEvent::End);
    }
}

/// If its thread panics, no more requests are read, because nobody would answer them.
struct StopOnPanic<'a>(&'a OwnedFd);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            stop(self.0);
        }
    }
}

/// What both threads share.
pub(super) struct RpcContext<'a> {
    pub(super) place: &'a Place,
    pub(super) answers: &'a dyn Answers,
    waits: Waits,
    /// Readable when no more requests are to be read.
    pub(super) stop: Arc<OwnedFd>,
    /// Why this has to end.
    fatal: OnceLock<Error>,
}

impl<'a> RpcContext<'a> {
    /// Nothing waits yet.
    pub(super) fn new(place: &'a Place, answers: &'a dyn Answers) -> io::Result<RpcContext<'a>> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(RpcContext { place, answers, waits: Waits::new()?, stop, fatal: OnceLock::new() })
    }

    /// Ends everything here, because the store is gone.
    pub(super) fn fail(&self, error: &Error) {
        let _ = self.fatal.set(error.reworded(error.kind(), error.to_string()));
        stop(&self.stop);
    }

    /// Whether the store can still be used.
    ///
    /// # Errors
    /// Why this has to end, if it has to.
    pub(super) fn check(&self) -> Result<()> {
        self.fatal.get().map_or(Ok(()), |error| Err(error.reworded(error.kind(), error.to_string())))
    }

    /// Adds a wait.
    ///
    /// # Errors
    /// [`Kind::Busy`] when the open ones take too much memory.
    pub(super) fn add(&self, wait: OpenWait) -> Result<()> {
        self.waits.add(wait)
    }

    /// Dropping this answers all open requests, whether their waits are over or not.
    pub(super) fn end_of_waits(&self) -> EndOfWaits<'_> {
        EndOfWaits(&self.waits.events)
    }

    /// Why it had to end, if it had to.
    pub(super) fn into_failure(self) -> Result<()> {
        self.fatal.into_inner().map_or(Ok(()), Err)
    }
}

/// Makes reading requests stop.
pub(super) fn stop(bell: &OwnedFd) {
    // A write fails only if the counter is full. Then it is readable already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

impl RpcContext<'_> {
    /// Looks after the waits until they are to end.
    pub(super) fn watch(&self) {
        let _stop = StopOnPanic(&self.stop);
        let mut open: Vec<OpenWait> = Vec::new();
        let mut watched: Option<(Queue, Lookout)> = None;
        loop {
            for event in self.waits.events.take() {
                match event {
                    WaitEvent::New(wait) => open.push(wait),
                    WaitEvent::End => return self.end(open, watched),
                }
            }
            let looked = if open.is_empty() { Ok(()) } else { self.look_at(&mut open, &mut watched) };
            if let Err(error) = looked {
                self.refuse(&mut open, &error, &mut watched);
            }
            self.answers.flush();
            if self.answers.is_closed() {
                stop(&self.stop);
            }
            if let (Some((queue, lookout)), false) = (&mut watched, open.is_empty()) {
                let until = open.iter().filter_map(OpenWait::next_look).min();
                if let Err(error) = lookout.sleep(&mut queue.store, until, Some(self.waits.events.as_fd())) {
                    self.refuse(&mut open, &error, &mut watched);
                }
            } else {
                self.waits.events.wait(Duration::from_secs(3600), None);
            }
        }
    }

    /// Looks at all waits, and answers those that are over.
    fn look_at(&self, open: &mut Vec<OpenWait>, watched: &mut Option<(Queue, Lookout)>) -> Result<()> {
        if watched.is_none() {
            let mut queue = self.place.open()?;
            let lookout = Lookout::of(&mut queue.store)?;
            *watched = Some((queue, lookout));
        }
        let Some((queue, _)) = watched else { return Ok(()) };
        // All states are read together, because there may be many waits for one job each.
        let asked: Vec<JobId> = open.iter().flat_map(OpenWait::asks_for).copied().collect();
        let states = queue.store.states(&asked)?;
        let (mut failed, mut states) = (Ok(()), &states[..]);
        open.retain_mut(|wait| {
            let (own, rest) = states.split_at(wait.asks_for().len());
            states = rest;
            let Some(answer) = wait.look(queue, own) else { return true };
            match answer {
                // Then it fails for all.
                Err(error) if error.error.kind() == Kind::Io => {
                    failed = Err(error.error);
                    return true;
                }
                answer => self.answer(wait, answer),
            }
            false
        });
        failed
    }

    fn answer(&self, wait: &OpenWait, answer: Result<RpcResult<'_>, RpcError>) {
        self.waits.size.fetch_sub(wait.size(), Ordering::Relaxed);
        self.answers.answer(&wait.id, answer);
    }

    /// Answers all open requests with an error of the store. The store is opened anew for the next ones.
    fn refuse(&self, open: &mut Vec<OpenWait>, error: &Error, watched: &mut Option<(Queue, Lookout)>) {
        for wait in open.drain(..) {
            self.answer(&wait, Err(error.reworded(error.kind(), error.to_string()).into()));
        }
        self.answers.flush();
        if watched.take().is_some_and(|(queue, _)| queue.store.still_there().is_err()) {
            self.fail(error);
        }
    }

    /// Answers all open requests at the end. Those that are not over get the answer that they are not.
    fn end(&self, mut open: Vec<OpenWait>, mut watched: Option<(Queue, Lookout)>) {
        let now = Instant::now();
        for wait in &mut open {
            wait.until = Some(now);
        }
        if !open.is_empty()
            && let Err(error) = self.check().and_then(|()| self.look_at(&mut open, &mut watched))
        {
            self.refuse(&mut open, &error, &mut watched);
        }
        self.answers.flush();
    }
}

impl OpenWait {
    /// When to look at this wait, even if nothing has changed.
    fn next_look(&self) -> Option<Instant> {
        // The store does not show that a process cannot be ended.
        let soon = Instant::now() + LOOK_AT_CANCELLED;
        match self.wants {
            WaitFor::Cancelled(_) => self.until.map(|until| until.min(soon)),
            // So is the end of a processor that died.
            WaitFor::End(RpcAwaited::Nothing) => Some(self.until.map_or(soon, |until| until.min(soon))),
            WaitFor::End(_) => self.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::batch::WrittenCall;
    use crate::domain::function::{FunctionName, InputChange, PolicyChange, WantedFunction};
    use crate::domain::new_job::Origin;
    use crate::domain::service::{ServiceChange, ServiceName};

    /// A store with one job, which is held.
    fn with_job(folder: &tempfile::TempDir) -> Queue {
        let place = Place::default_at(folder.path().join("queue.db"), Duration::ZERO, |_| {});
        let (mut queue, _) = place.open_or_make().unwrap();
        let (service, name) = (ServiceName::parse("events").unwrap(), FunctionName::parse("mail").unwrap());
        queue.define_service(&service, &ServiceChange::default()).unwrap();
        let (command, site) = (Some(vec!["/bin/true".to_owned()]), Some("/".to_owned()));
        let env = std::collections::BTreeMap::new();
        let wanted = WantedFunction {
            service,
            name,
            command,
            site,
            env,
            timeout: None,
            worker: None,
            inputs: InputChange::default(),
            policy: PolicyChange::default(),
        };
        queue.store.define_functions(&[wanted], false).unwrap();
        let call = WrittenCall::read(r#"{"service":"events","function":"mail"}"#).unwrap();
        queue.store.enqueue(&call.job(&Origin::default(), true).unwrap()).unwrap();
        queue
    }

    #[test]
    fn a_wait_whose_job_was_queued_again_between_two_looks_ends_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = with_job(&folder);
        let answer = |timeout, queue: &mut Queue| {
            OpenWait::of("1", RpcAwaited::All(vec![JobId(1)]), timeout).answer(queue, &[JobId(1)])
        };
        assert!(answer(None, &mut queue).unwrap().is_none());
        assert_eq!(answer(Some(Duration::ZERO), &mut queue).unwrap_err().kind(), Kind::Busy);
    }
}
