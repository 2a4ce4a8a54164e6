//! Many calls out of one file or pipe, a line each.
//!
//! Invariant: at every moment all lines up to one are enqueued, and none after it.

use std::panic::resume_unwind;
use std::thread;

use super::lines::{InputLine, Lines};
use crate::domain::batch::{Caller, parse};
use crate::domain::job::{Enqueued, NewJob};
use crate::error::{Error, Kind, Result};
use crate::store::{Refused, Store};

/// How many bytes of calls one transaction holds at most, about: memory is bounded by this, not by their count.
const BYTES_AT_ONCE: u64 = 8 * 1024 * 1024;

/// How a batch goes into the store.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions {
    /// All of it or nothing.
    pub atomic: bool,
    /// How many calls go into one transaction at most.
    pub at_once: usize,
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
struct Pending {
    options: BatchOptions,
    calls: Vec<NewJob>,
    /// In which line each of them is.
    lines: Vec<u64>,
    /// Where the input stands after them.
    bytes: u64,
    /// Whether more of it is to be read then.
    goes_on: bool,
    /// Why nothing after them will be enqueued.
    flaw: Option<Error>,
}

/// Enqueues all calls in `lines`, as many in one transaction as there are at once. While they go into the store, the next
/// ones are read, if they are there.
///
/// # Errors
/// The first line that is no call, or that the store refuses; all lines before it are enqueued, or nothing when the
/// options say so. Whatever the store or `told` answers.
pub fn enqueue<E: From<Error>>(
    store: &mut Store,
    lines: &mut Lines,
    caller: &Caller,
    options: BatchOptions,
    mut told: impl FnMut(&BatchProgress<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut next = None;
    loop {
        let mut pending = next.take().unwrap_or_else(|| Pending::read(lines, caller, options));
        let more = pending.goes_on && lines.has_more();
        thread::scope(|scope| -> Result<(), E> {
            let read = || Pending::read(lines, caller, options);
            // Where no thread can be had, it is read afterwards.
            let reader = if more { thread::Builder::new().spawn_scoped(scope, read).ok() } else { None };
            if let Some(jobs) = pending.put(store)? {
                told(&BatchProgress { jobs: &jobs, bytes: pending.bytes })?;
            }
            next = reader.map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic)));
            Ok(())
        })?;
        if let Some(flaw) = pending.flaw {
            return Err(flaw.into());
        }
        if !pending.goes_on {
            return Ok(());
        }
    }
}

impl Pending {
    /// Reads as many calls as go into one transaction, or as there are.
    fn read(lines: &mut Lines, caller: &Caller, options: BatchOptions) -> Pending {
        let mut pending =
            Pending { options, calls: Vec::new(), lines: Vec::new(), bytes: 0, goes_on: true, flaw: None };
        let since = lines.bytes();
        while pending.goes_on {
            pending.goes_on = pending.read_line(lines, caller);
            let full = pending.calls.len() >= options.at_once || lines.bytes() - since >= BYTES_AT_ONCE;
            if !options.atomic && (full || !lines.has_more()) {
                break;
            }
        }
        pending.bytes = lines.bytes();
        pending
    }

    /// Reads one line; says whether that was not the last one.
    fn read_line(&mut self, lines: &mut Lines, caller: &Caller) -> bool {
        match lines.next() {
            Ok(Some(line)) if line.is_blank() => {}
            Ok(Some(line)) => match call(&line, caller) {
                Ok(call) => {
                    self.calls.push(call);
                    self.lines.push(line.number);
                }
                Err(error) => self.flaw = Some(self.in_line(line.number, &error)),
            },
            Ok(None) => return false,
            Err(error) => self.flaw = Some(super::io_error("the calls cannot be read", &error)),
        }
        self.flaw.is_none()
    }

    /// Enqueues what was read, up to the first call that is refused.
    fn put(&mut self, store: &mut Store) -> Result<Option<Vec<Enqueued>>> {
        while !(self.calls.is_empty() || self.options.atomic && self.flaw.is_some()) {
            match store.enqueue_all(&self.calls) {
                Ok(jobs) => return Ok(Some(jobs)),
                Err(Refused { call: Some(index), error }) => {
                    self.flaw = Some(self.in_line(self.lines[index], &error));
                    self.calls.truncate(index);
                }
                Err(Refused { call: None, error }) if self.options.atomic || self.lines[0] == 1 => return Err(error),
                Err(Refused { call: None, error }) => {
                    let message = format!("{error}; the lines before line {} are enqueued", self.lines[0]);
                    return Err(again(error.kind(), message, &error));
                }
            }
        }
        Ok(None)
    }

    /// An error about a line, which ends the batch.
    fn in_line(&self, number: u64, error: &Error) -> Error {
        // What is wrong there is in the data, not on the command line.
        let kind = if error.kind() == Kind::Usage { Kind::Invalid } else { error.kind() };
        let done =
            if self.options.atomic || number == 1 { "nothing is enqueued" } else { "the lines before are enqueued" };
        again(kind, format!("line {number}: {error}; {done}"), error)
    }
}

fn again(kind: Kind, message: String, error: &Error) -> Error {
    let told = Error::new(kind, message);
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

fn call(line: &InputLine, caller: &Caller) -> Result<NewJob> {
    let Some(bytes) = &line.bytes else {
        return Err(
            Error::new(Kind::Invalid, "too long for a call").with_hint("put the data into a file and pass its path")
        );
    };
    let text = str::from_utf8(bytes)
        .map_err(|error| Error::new(Kind::Invalid, format!("no UTF-8 from its byte {} on", error.valid_up_to() + 1)))?;
    parse(text, caller)
}
