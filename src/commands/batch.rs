//! Many calls from one file or pipe, one on each line.
//!
//! Invariant: at every moment, all lines up to some line are enqueued, and no line after it.

use std::collections::BTreeMap;
use std::{fs::File, panic::resume_unwind, thread};

use super::lines::{InputLine, Lines};
use super::{caller::Caller, queue::Queue};
use crate::domain::batch::{LONGEST_LINE, parse, resolve_names};
use crate::domain::call::{Call, OnBehalfOf};
use crate::domain::job::JobId;
use crate::domain::new_job::{Enqueued, NewJob, Origin};
use crate::error::{Error, Kind, Result};
use crate::store::{Refused, Store};
use crate::system::error::io_error;

/// About how many bytes of calls one transaction holds at most. This bounds memory, however many calls there are.
const BYTES_AT_ONCE: u64 = 8 * 1024 * 1024;

/// Many calls, and how they go into the store.
#[derive(Debug)]
pub struct BatchRequest {
    /// The calls, a line of JSON each.
    pub input: File,
    /// On whose behalf calls are made whose lines do not say it.
    pub on_behalf_of: OnBehalfOf,
    /// Whether jobs wait until somebody starts them, if their lines do not say it.
    pub hold: bool,
    /// Whether the calls are queued even inside a running function.
    pub defer: bool,
    /// All of them or none.
    pub atomic: bool,
    /// How many calls go into one transaction at most.
    pub at_once: usize,
    /// A call that runs after all of them.
    pub then: Option<Call>,
}

/// What is the same for all calls of a batch.
struct Batch {
    origin: Origin,
    hold: bool,
    atomic: bool,
    at_once: usize,
    then: Option<NewJob>,
}

/// What later calls of a batch need to know about earlier ones.
#[derive(Default)]
struct EarlierLines {
    /// The jobs of lines that have a name.
    names: BTreeMap<String, JobId>,
    /// All jobs, if a call runs after them.
    jobs: Vec<JobId>,
}

/// What is enqueued now.
#[derive(Debug)]
pub struct BatchProgress<'a> {
    /// The jobs of the latest transaction, in the order of the lines.
    pub jobs: &'a [Enqueued],
    /// How many bytes of the input are read.
    pub bytes: u64,
}

/// Calls that are read and not enqueued yet.
struct ReadCalls<'a> {
    batch: &'a Batch,
    calls: Vec<NewJob>,
    /// The line of each of these calls, and the name of that line.
    lines: Vec<(u64, Option<String>)>,
    /// Where the input stands after them.
    bytes: u64,
    /// Whether more of it is to be read then.
    goes_on: bool,
    /// Why nothing after them will be enqueued.
    failure: Option<Error>,
}

impl Queue {
    /// Enqueues all calls of a batch, as many in each transaction as the batch allows. While they go into the store, it reads the
    /// next ones if they are there already.
    ///
    /// # Errors
    /// The first line that is no call, or that the store refuses. Then all lines before it are enqueued, or nothing if the batch is
    /// atomic. [`Kind::Usage`] inside a running function, unless the batch is deferred. Whatever the store or `report` answers.
    pub fn enqueue_batch<E: From<Error>>(
        &mut self,
        request: BatchRequest,
        caller: &Caller,
        mut report: impl FnMut(&BatchProgress<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let BatchRequest { input, on_behalf_of, hold, defer, atomic, at_once, then } = request;
        let (origin, running) = self.origin(caller, on_behalf_of)?;
        if running.is_some() && !defer {
            return Err(Error::new(Kind::Usage, "inside a running function, calls run at once, one at a time")
                .with_hint("`--defer` queues a batch; `asyncq enqueue SERVICE FUNCTION` runs one call")
                .into());
        }
        if let Some(call) = &then {
            // Before its batch is enqueued.
            self.store.function(&call.service, &call.function)?;
        }
        let principal = origin.principal.clone();
        let then = then.map(|call| origin.job(NewJob::new(Call { principal, ..call }))).transpose()?;
        let (batch, mut lines) = (Batch { origin, hold, atomic, at_once, then }, Lines::of(input, LONGEST_LINE));
        let mut known = EarlierLines::default();
        let (batch, lines) = (&batch, &mut lines);
        let mut next = None;
        loop {
            let mut pending = next.take().unwrap_or_else(|| ReadCalls::read(lines, batch));
            let more = pending.goes_on && lines.has_more();
            thread::scope(|scope| -> Result<(), E> {
                let read = || ReadCalls::read(lines, batch);
                // If the system gives no thread, it reads afterwards.
                let reader = if more { thread::Builder::new().spawn_scoped(scope, read).ok() } else { None };
                if let Some(jobs) = pending.put(&mut self.store, &mut known)? {
                    report(&BatchProgress { jobs: &jobs, bytes: pending.bytes })?;
                }
                next = reader.map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic)));
                Ok(())
            })?;
            if let Some(failure) = pending.failure {
                return Err(failure.into());
            }
            if !pending.goes_on {
                if let Some(then) = batch.then.as_ref().filter(|_| !batch.atomic) {
                    let last = self.store.enqueue_after_all(then, &known.jobs)?;
                    report(&BatchProgress { jobs: &[last], bytes: pending.bytes })?;
                }
                return Ok(());
            }
        }
    }
}

impl<'a> ReadCalls<'a> {
    /// Reads as many calls as go into one transaction, or as there are.
    fn read(lines: &mut Lines, batch: &'a Batch) -> ReadCalls<'a> {
        let mut pending =
            ReadCalls { batch, calls: Vec::new(), lines: Vec::new(), bytes: 0, goes_on: true, failure: None };
        let since = lines.bytes;
        while pending.goes_on {
            pending.goes_on = pending.read_line(lines);
            let full = pending.calls.len() >= batch.at_once || lines.bytes - since >= BYTES_AT_ONCE;
            if !batch.atomic && (full || !lines.has_more()) {
                break;
            }
        }
        pending.bytes = lines.bytes;
        pending
    }

    /// Reads one line. Returns whether more lines may follow.
    fn read_line(&mut self, lines: &mut Lines) -> bool {
        match lines.next() {
            Ok(Some(line)) if line.is_blank() => {}
            Ok(Some(line)) => match call(&line, self.batch) {
                Ok((call, name)) => {
                    self.calls.push(call);
                    self.lines.push((line.number, name));
                }
                Err(error) => self.failure = Some(self.in_line(line.number, &error)),
            },
            Ok(None) => return false,
            Err(error) => self.failure = Some(io_error("the calls cannot be read", &error)),
        }
        self.failure.is_none()
    }

    /// Enqueues the calls that were read, up to the first one that is refused.
    fn put(&mut self, store: &mut Store, known: &mut EarlierLines) -> Result<Option<Vec<Enqueued>>> {
        self.resolve(known);
        let then = self.batch.then.as_ref().filter(|_| self.batch.atomic);
        while !(self.calls.is_empty() && then.is_none() || self.batch.atomic && self.failure.is_some()) {
            let done = match then {
                Some(then) => store.enqueue_all_then(&self.calls, then),
                None => store.enqueue_all(&self.calls),
            };
            match done {
                Ok(jobs) => {
                    let named =
                        self.lines.iter().zip(&jobs).filter_map(|((_, name), job)| Some((name.clone()?, job.id())));
                    known.names.extend(named);
                    if self.batch.then.is_some() {
                        known.jobs.extend(jobs.iter().map(|job| job.id()));
                    }
                    return Ok(Some(jobs));
                }
                Err(Refused { call: Some(index), error }) if index == self.calls.len() => return Err(error),
                Err(Refused { call: Some(index), error }) => {
                    self.failure = Some(self.in_line(self.lines[index].0, &error));
                    self.calls.truncate(index);
                }
                Err(Refused { call: None, error }) if self.batch.atomic || self.lines[0].0 == 1 => return Err(error),
                Err(Refused { call: None, error }) => {
                    let message = format!("{error}; the lines before line {} were enqueued", self.lines[0].0);
                    return Err(error.reworded(error.kind(), message));
                }
            }
        }
        Ok(None)
    }

    /// Finds the calls that others need by their names.
    fn resolve(&mut self, known: &EarlierLines) {
        let names: Vec<Option<&str>> = self.lines.iter().map(|(_, name)| name.as_deref()).collect();
        if let Err((index, error)) = resolve_names(&mut self.calls, &names, &known.names) {
            self.failure = Some(self.in_line(self.lines[index].0, &error));
            self.calls.truncate(index);
        }
    }

    /// An error about a line, which ends the batch.
    fn in_line(&self, number: u64, error: &Error) -> Error {
        // The mistake is in the data, not on the command line.
        let kind = if error.kind() == Kind::Usage { Kind::Invalid } else { error.kind() };
        let done =
            if self.batch.atomic || number == 1 { "nothing was enqueued" } else { "the lines before it were enqueued" };
        error.reworded(kind, format!("line {number}: {error}; {done}"))
    }
}

fn call(line: &InputLine, batch: &Batch) -> Result<(NewJob, Option<String>)> {
    let Some(text) = line.text()? else {
        return Err(
            Error::new(Kind::Invalid, "too long for a call").with_hint("put the data into a file and pass its path")
        );
    };
    parse(text, &batch.origin, batch.hold)
}
