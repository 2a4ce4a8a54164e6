//! Carries out the requests of a program that stays. It takes together all requests that are there.
//!
//! Invariants: calls that are read together go into the store in one transaction, and are answered once it is durable. One thread
//! carries out requests in their order. Another thread ([`waits`](super::rpc_waits)) does all waiting, so that it holds up nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::thread::{self, Scope};

use super::caller::Caller;
use super::caller::os_user;
use super::enqueue::origin_inside;
use super::lines::{InputLine, Lines};
use super::queue::{Place, Queue};
use super::rpc_answers::{Answers, RpcError, RpcResult};
use super::rpc_waits::{BYTES_AT_ONCE, OpenWait, RpcContext, stop};
use crate::domain::batch::{WrittenCall, resolve_names};
use crate::domain::job::{JobId, Token};
use crate::domain::new_job::{Enqueued, NewJob, Origin, Rerun};
use crate::domain::rpc::{LONGEST_MESSAGE, RpcCalls, RpcJobChange, RpcMessage, RpcRequest};
use crate::domain::rpc_fault::MOST_ENTRIES;
use crate::domain::rpc_look::{PauseRequest, RpcAwaited};
use crate::error::{Error, Kind, Result};
use crate::system::error::io_error;
use crate::system::signals;

/// How many requests to carry out together at most.
const AT_ONCE: usize = 1000;

/// Carries out the requests in `input`, until the input ends or a signal asks this process to stop, and hands out the answers.
///
/// # Errors
/// [`Kind::Io`] when the store was moved or removed, or answers cannot be written; [`Kind::Busy`] when the system gives no thread.
pub fn run(place: &Place, caller: &Caller, input: File, answers: &dyn Answers) -> Result<()> {
    let shared = RpcContext::new(place, answers).map_err(|error| io_error("cannot carry out requests", &error))?;
    let asked = Arc::clone(&shared.stop);
    signals::on_stop(move || stop(&asked))?;
    answers.end_with(Arc::clone(&shared.stop));
    let mut lines = Lines::of(input, LONGEST_MESSAGE).until(Arc::clone(&shared.stop));
    let read = carry_out_all(&shared, caller, &mut lines);
    read.map_err(|error| io_error("the requests cannot be read", &error))?;
    shared.into_failure()?;
    answers.failure().map_or(Ok(()), Err)
}

/// Carries out all requests. Returns when all its threads have ended.
fn carry_out_all(shared: &RpcContext<'_>, caller: &Caller, lines: &mut Lines) -> io::Result<()> {
    thread::scope(|scope| {
        // It also runs if this thread panics: then the other thread is still waited for.
        let _end = shared.end_of_waits();
        let os_user = Some(os_user());
        Rpc { shared, scope, caller, queue: None, os_user, watches: false }.carry_out_all(lines)
    })
}

/// Reads the requests that are there. If there is none, waits for one. Returns whether more may follow, or why nothing can be read
/// after these.
fn read(lines: &mut Lines) -> (Vec<InputLine>, io::Result<bool>) {
    let (mut requests, since) = (Vec::new(), lines.bytes);
    loop {
        match lines.next() {
            Ok(None) => return (requests, Ok(false)),
            Ok(Some(line)) if line.is_blank() => {}
            Ok(Some(line)) => requests.push(line),
            Err(error) => return (requests, Err(error)),
        }
        let is_full = requests.len() >= AT_ONCE || lines.bytes - since >= BYTES_AT_ONCE;
        if is_full || !requests.is_empty() && !lines.has_more() {
            return (requests, Ok(true));
        }
    }
}

/// A call that others do not need by its name, so that it can go into the store without them.
fn alone(mut call: WrittenCall<'_>) -> Result<WrittenCall<'_>> {
    match call.take_name() {
        None => Ok(call),
        Some(_) => Err(Error::new(Kind::Invalid, "only calls that are enqueued together can have a `name`")
            .with_hint("give `calls`, and \"atomic\":true")),
    }
}

/// Carries out requests.
struct Rpc<'scope, 'env> {
    shared: &'env RpcContext<'env>,
    scope: &'scope Scope<'scope, 'env>,
    caller: &'env Caller,
    queue: Option<Queue>,
    os_user: Option<String>,
    /// Whether the thread that waits was started.
    watches: bool,
}

/// A request to enqueue that has passed all checks but the store's.
struct PreparedRequest<'a> {
    id: Option<&'a str>,
    /// The calls: `None` for those that go into the store, an error for those that were refused already.
    calls: Vec<Option<RpcError>>,
    are_listed: bool,
}

/// The calls of several requests for one transaction, and what to answer after it.
#[derive(Default)]
struct Together<'a> {
    requests: Vec<PreparedRequest<'a>>,
    /// How many calls the requests have.
    calls: usize,
    jobs: Vec<NewJob>,
    /// Requests that only read, for afterwards.
    reads: Vec<(Option<&'a str>, RpcRequest<'a>)>,
}

impl<'env> Rpc<'_, 'env> {
    /// Carries out all requests. If nobody reads the answers any longer, or the store is gone, it ends with the requests that it
    /// has already read.
    fn carry_out_all(&mut self, lines: &mut Lines) -> io::Result<()> {
        let mut goes_on = true;
        while goes_on {
            let (requests, more) = read(lines);
            self.carry_out(&requests);
            self.shared.answers.flush();
            if self.shared.answers.is_closed() {
                stop(&self.shared.stop);
            }
            goes_on = more?;
        }
        Ok(())
    }

    fn carry_out(&mut self, lines: &[InputLine]) {
        let mut together = Together::default();
        for line in lines {
            let message = match line.text() {
                Ok(Some(text)) => RpcMessage::parse(text),
                Ok(None) => RpcMessage::too_long(),
                Err(error) => RpcMessage::not_text(error),
            };
            let RpcMessage { id, request } = message;
            let done = match request {
                Ok(RpcRequest::Enqueue(calls)) if calls.atomic => {
                    self.enqueue(&mut together);
                    self.enqueue_atomic(calls).map(RpcResult::EnqueuedAll)
                }
                Ok(RpcRequest::Enqueue(calls)) => match self.prepare(id, calls, &mut together) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                // A request that only reads comes after the calls that were read before it, but does not separate them from later
                // calls.
                Ok(request) if request.only_reads() => {
                    together.reads.push((id, request));
                    continue;
                }
                Ok(request) => {
                    self.enqueue(&mut together);
                    match self.do_other(id, request) {
                        Ok(None) => continue,
                        Ok(Some(result)) => Ok(result),
                        Err(error) => Err(error),
                    }
                }
                Err(fault) => Err(fault.into()),
            };
            self.answer(id, done);
        }
        self.enqueue(&mut together);
    }

    fn answer(&self, id: Option<&str>, answer: Result<RpcResult<'_>, RpcError>) {
        if let Some(id) = id {
            self.shared.answers.answer(id, answer);
        }
    }

    /// The open store, and what `work` makes of it.
    fn with_queue<T>(&mut self, work: impl FnOnce(&mut Queue) -> Result<T>) -> Result<T> {
        self.shared.check()?;
        if self.queue.is_none() {
            self.queue = Some(self.shared.place.open()?);
        }
        let queue = self.queue.as_mut().expect("it was opened just now");
        let done = work(queue);
        if let Err(error) = &done
            && error.kind() == Kind::Io
            && queue.store.still_there().is_err()
        {
            self.shared.fail(error);
        }
        done
    }

    /// Checks calls, and puts those that pass with the others for the next transaction.
    fn prepare<'a>(
        &mut self,
        id: Option<&'a str>,
        calls: RpcCalls<'_>,
        together: &mut Together<'a>,
    ) -> Result<(), RpcError> {
        let origin = self.origin(calls.inside)?;
        let mut refused = Vec::with_capacity(calls.calls.len());
        for call in calls.calls {
            refused.push(match call.map_err(RpcError::from).and_then(|call| Ok(alone(call)?.job(&origin, false)?)) {
                Ok(job) => {
                    together.jobs.push(job);
                    None
                }
                Err(error) if !calls.are_listed => return Err(error),
                Err(error) => Some(error),
            });
        }
        together.calls += refused.len();
        together.requests.push(PreparedRequest { id, calls: refused, are_listed: calls.are_listed });
        // What waits for the others takes memory.
        if together.calls >= MOST_ENTRIES {
            self.enqueue(together);
        }
        Ok(())
    }

    /// Where the calls of a request come from.
    fn origin(&mut self, inside: Option<(JobId, Token)>) -> Result<Origin> {
        let os_user = self.os_user.clone();
        let Some((job, token)) = inside else {
            let principal = self.caller.principal()?;
            return Ok(Origin { principal, os_user, ..Origin::default() });
        };
        match self.with_queue(|queue| queue.store.running(job, &token))? {
            Some(running) => Ok(origin_inside(&running, os_user)),
            None => Err(Error::new(Kind::Denied, format!("job {job} no longer runs this attempt"))
                .with_hint("leave `inside` out to make the call outside of any job")),
        }
    }

    /// Enqueues the calls of several requests. Answers these requests, and then those that only read.
    fn enqueue(&mut self, together: &mut Together<'_>) {
        let Together { requests, jobs, reads, .. } = std::mem::take(together);
        let done =
            if jobs.is_empty() { Ok(Vec::new()) } else { self.with_queue(|queue| queue.store.enqueue_each(&jobs)) };
        let mut done = done.map(Vec::into_iter);
        for PreparedRequest { id, calls, are_listed } in requests {
            let mut results = calls.into_iter().map(|refused| match (refused, &mut done) {
                (Some(refused), _) => Err(refused),
                (None, Ok(done)) => {
                    let done = done.next().expect("each call has an outcome");
                    done.map_err(RpcError::from)
                }
                (None, Err(error)) => Err(error.reworded(error.kind(), error.to_string()).into()),
            });
            let results: Vec<_> = results.by_ref().collect();
            let answer = if are_listed {
                Ok(RpcResult::EnqueuedAll(results))
            } else {
                let only = results.into_iter().next().expect("a request without a list has a call");
                only.map(RpcResult::Enqueued)
            };
            self.answer(id, answer);
        }
        for (id, request) in reads {
            match self.do_other(id, request) {
                Ok(None) => {}
                Ok(Some(result)) => self.answer(id, Ok(result)),
                Err(error) => self.answer(id, Err(error)),
            }
        }
    }

    /// Enqueues all calls or none, in a transaction of their own.
    fn enqueue_atomic(&mut self, calls: RpcCalls<'_>) -> Result<Vec<Result<Enqueued, RpcError>>, RpcError> {
        let origin = self.origin(calls.inside)?;
        let in_call = |index: usize| move |error: RpcError| RpcError { call: Some(index), ..error };
        let (mut jobs, mut names) = (Vec::with_capacity(calls.calls.len()), Vec::with_capacity(calls.calls.len()));
        for (index, call) in calls.calls.into_iter().enumerate() {
            let job = call.map_err(RpcError::from).and_then(|mut call| {
                names.push(call.take_name());
                Ok(call.job(&origin, false)?)
            });
            jobs.push(job.map_err(in_call(index))?);
        }
        let names: Vec<Option<&str>> = names.iter().map(Option::as_deref).collect();
        resolve_names(&mut jobs, &names, &BTreeMap::new()).map_err(|(index, error)| in_call(index)(error.into()))?;
        let mut refused = None;
        let done = self.with_queue(|queue| {
            queue.store.enqueue_all(&jobs).map_err(|why| {
                refused = why.call;
                why.error
            })
        });
        let done = done.map_err(|error| RpcError { call: refused, ..error.into() })?;
        Ok(done.into_iter().map(Ok).collect())
    }

    /// Carries out any other request. Returns nothing if the answer comes later.
    fn do_other(&mut self, id: Option<&str>, request: RpcRequest<'_>) -> Result<Option<RpcResult<'env>>, RpcError> {
        let caller = self.caller;
        Ok(Some(match request {
            RpcRequest::Hello => RpcResult::Hello(self.shared.place.path()),
            RpcRequest::Define(name, wanted) => {
                RpcResult::Defined(self.with_queue(|queue| queue.define_service(&name, &wanted))?)
            }
            RpcRequest::Register(wanted, change) => {
                RpcResult::Registered(self.with_queue(|queue| queue.register_functions(wanted, change, caller))?)
            }
            RpcRequest::Job(job, change) => {
                let is_done = self.with_queue(|queue| match change {
                    None => Ok(true),
                    Some(RpcJobChange::Cancel) => queue.begin_to_cancel(job),
                    Some(RpcJobChange::Retry) => queue.retry_job(job).map(|_| true),
                    Some(RpcJobChange::Start) => queue.start_job(job).map(|()| true),
                })?;
                if !is_done {
                    return self.wait_for(id.map(|id| OpenWait::for_cancelled(id, job)));
                }
                if id.is_none() {
                    return Ok(None);
                }
                RpcResult::Job(Box::new(self.with_queue(|queue| queue.job(job))?))
            }
            RpcRequest::Wait(awaited, timeout) => {
                return self.wait_for(id.map(|id| OpenWait::of(id, awaited, timeout)));
            }
            RpcRequest::Rerun(job, again) => {
                let again = Rerun { os_user: self.os_user.clone(), ..again };
                RpcResult::Rerun(self.with_queue(|queue| queue.store.rerun(job, &again))?)
            }
            RpcRequest::Look(request) => self.with_queue(|queue| queue.look(request))?,
            RpcRequest::Pause(PauseRequest::Store(pause, Some(timeout))) => {
                self.with_queue(|queue| queue.set_pause(Some(&pause)))?;
                return self.wait_for(id.map(|id| OpenWait::of(id, RpcAwaited::Nothing, timeout)));
            }
            RpcRequest::Pause(request) => self.with_queue(|queue| queue.carry_out_pause(request))?,
            RpcRequest::Schedule(request) => self.with_queue(|queue| queue.carry_out_schedule(*request, caller))?,
            RpcRequest::Enqueue(_) => unreachable!("enqueued elsewhere"),
        }))
    }

    /// Leaves a wait to the other thread, and starts that thread if necessary. A notification gets no answer, so nothing waits for
    /// it.
    fn wait_for<T>(&mut self, wait: Option<OpenWait>) -> Result<Option<T>, RpcError> {
        let Some(wait) = wait else { return Ok(None) };
        let shared = self.shared;
        shared.check()?;
        if !self.watches {
            let started = thread::Builder::new().name("waits".to_owned()).spawn_scoped(self.scope, || shared.watch());
            started.map_err(|error| io_error("cannot wait for jobs", &error))?;
            self.watches = true;
        }
        shared.add(wait)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    /// Panics at the answer to the request with this id.
    struct Panics(&'static str);

    impl Answers for Panics {
        fn answer(&self, id: &str, _: Result<RpcResult<'_>, RpcError>) {
            assert!(id != self.0, "this test wants it");
        }

        fn flush(&self) {}

        fn end_with(&self, _: Arc<OwnedFd>) {}

        fn is_closed(&self) -> bool {
            false
        }

        fn failure(&self) -> Option<Error> {
            None
        }
    }

    #[test]
    fn a_thread_that_panics_ends_the_other_one() {
        // The wait is answered by the thread that waits, as there is no store; the other request by the one that reads.
        for panics in ["1", "2"] {
            let place = Place::default_at("/nothing/here/queue.db".into(), Duration::ZERO, |_| {});
            let caller = Caller {
                env: Vec::new(),
                words: Vec::new(),
                folder: Ok("/".into()),
                clock: || crate::domain::time::Timestamp(0),
            };
            let (answers, (read, write)) = (Panics(panics), rustix::pipe::pipe().unwrap());
            let shared = RpcContext::new(&place, &answers).unwrap();
            let (read, mut write): (OwnedFd, File) = (read, write.into());
            let mut lines = Lines::of(read.into(), LONGEST_MESSAGE).until(Arc::clone(&shared.stop));
            for (id, request) in [(1, r#""wait","params":{"jobs":[1]}"#), (2, r#""hello","params":{"protocol":1}"#)] {
                writeln!(write, r#"{{"jsonrpc":"2.0","id":{id},"method":{request}}}"#).unwrap();
            }
            let done = catch_unwind(AssertUnwindSafe(|| carry_out_all(&shared, &caller, &mut lines)));
            assert!(done.is_err());
            // There could have come more.
            drop(write);
        }
    }
}
