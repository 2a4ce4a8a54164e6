//! Waits for one call and shows its output, as if it ran in this process.

use std::cell::Cell;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::explain::needs_processor;
use super::follow::{FollowEnd, Followed, Following, Onlooker};
use super::job_change::{CANCEL_PATIENCE, LOOK_AT_CANCELLED, look_if_cancelled};
use super::queue::{Place, Queue};
use super::wait::{JobEnd, still_there};
use crate::domain::console::Console;
use crate::domain::job::{Job, JobId, State};
use crate::domain::log::Stream;
use crate::domain::reason::Reason;
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::processor::{OutputPrinter, ProcessorStarter};
use crate::system::signals::Interrupts;

/// A reason is reported once it has lasted this long.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// The longest time between two looks at the reason. The time doubles with each look.
const LAST_WORD: Duration = Duration::from_secs(60);

/// How often to check whether to start a processor.
const LOOK_FOR_PROCESSOR: Duration = Duration::from_secs(1);

/// A call to wait for.
pub struct AwaitedCall<'a> {
    /// Its job.
    pub id: JobId,
    /// The process that waits.
    pub caller: &'a Caller,
    /// How to start a processor if none is at work, if that is wanted.
    pub start: Option<StartWith<'a>>,
    /// Where its output goes, and when to give up.
    pub output: &'a CallOutput<'a>,
}

/// Shows what a call prints until the time is over or an interrupt comes, even if nobody reads the output.
pub struct CallOutput<'a> {
    printer: OutputPrinter,
    until: Option<Instant>,
    interrupts: &'a Interrupts,
    /// Whether output was dropped, because the reader did not take it in time.
    is_cut: Cell<bool>,
    gives_up: Cell<bool>,
}

impl<'a> CallOutput<'a> {
    /// Starts to write to a console. From now on, messages come after the output before them. The time begins now.
    ///
    /// # Errors
    /// [`Kind::Busy`] when the system gives no thread, or has too little memory.
    pub fn start(console: Console, timeout: Option<Duration>, interrupts: &'a Interrupts) -> Result<CallOutput<'a>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (printer, no) = (OutputPrinter::start(console)?, || Cell::new(false));
        Ok(CallOutput { printer, until, interrupts, is_cut: no(), gives_up: no() })
    }

    /// Prints bytes, as a line of their own or where the last output ended.
    pub fn print(&self, stream: Stream, bytes: &[u8], own_line: bool) {
        if !self.printer.print((stream, bytes), own_line, &|| self.is_over()) {
            self.is_cut.set(true);
        }
    }

    /// Until when to wait, for the call and then for the reader.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Stops waiting for the reader.
    pub fn give_up(&self) {
        self.gives_up.set(true);
    }

    fn is_over(&self) -> bool {
        self.gives_up.get() || self.until.is_some_and(|until| until <= Instant::now()) || self.interrupts.have_come()
    }

    /// Waits until everything is written, the time is over, an interrupt comes, or [`CallOutput::give_up`] was called. Returns whether
    /// all output was written.
    pub fn finish(&self) -> bool {
        self.printer.finish(&|| self.is_over()) && !self.is_cut.get()
    }
}

/// What happens during the wait for a call.
#[derive(Debug)]
pub enum CallEvent<'a> {
    /// What happens to its job.
    Followed(Followed<'a>),
    /// The job has waited for a while for this reason.
    Waits(&'a Job, &'a Reason),
}

/// How the wait for a call has ended.
#[derive(Debug)]
pub enum CallEnd {
    /// The job has ended. [`CallOutput::finish`] tells whether its output was read.
    Ended(JobEnd),
    /// An interrupt came first.
    Interrupted,
}

/// How to start a processor in the background.
#[derive(Debug, Clone, Copy)]
pub struct StartWith<'a> {
    /// The store.
    pub place: &'a Place,
    /// The process that starts the processor.
    pub caller: &'a Caller,
    /// The service that it drains.
    pub service: &'a ServiceName,
}

impl StartWith<'_> {
    pub(super) fn starter(self) -> Result<ProcessorStarter> {
        let (db, service) = (self.place.path().into(), OsString::from(self.service.as_str()));
        let words = ["-q".into(), "--db".into(), db, "process".into(), service];
        Ok(ProcessorStarter::new(self.service.clone(), self.caller.program()?, words.into(), self.caller.env.clone()))
    }
}

/// The state of a wait for a call.
struct CallProgress {
    /// When to look for the reason next, and how long to pause after that.
    next_word: Instant,
    pause: Duration,
    /// The codes of the reason at the last look, and of the one that was reported last.
    waits: Option<&'static str>,
    told: Option<&'static str>,
    starter: Option<ProcessorStarter>,
    looked_for_processor: Option<Instant>,
}

impl CallProgress {
    /// Reports why a call waits, once for each reason, and only if the reason lasts for a while: usually a processor takes the call
    /// within moments.
    fn tell(&mut self, queue: &mut Queue, job: &Job, tell: &mut dyn FnMut(CallEvent<'_>)) -> Result<()> {
        if Instant::now() < self.next_word {
            return Ok(());
        }
        let reason = queue.held_up_by(job)?;
        let kind = reason.as_ref().map(Reason::code);
        if kind == self.waits {
            self.pause = (self.pause * 2).min(LAST_WORD);
            if let Some(reason) = reason.filter(|_| kind != self.told) {
                tell(CallEvent::Waits(job, &reason));
            }
            self.told = kind;
        } else {
            (self.waits, self.pause) = (kind, FIRST_WORD);
        }
        self.next_word = Instant::now() + self.pause;
        Ok(())
    }

    /// Starts a processor if the call needs one.
    fn tend(&mut self, queue: &mut Queue, id: JobId) -> Result<()> {
        let Some(starter) = &mut self.starter else { return Ok(()) };
        if self.looked_for_processor.is_some_and(|looked| looked.elapsed() < LOOK_FOR_PROCESSOR) {
            return Ok(());
        }
        starter.tend(&mut queue.store, &mut |store| needs_processor(store, id))?;
        self.looked_for_processor = Some(Instant::now());
        Ok(())
    }
}

impl Queue {
    /// Waits until a call has ended or an interrupt comes. `tell` gets the function's output and what happens meanwhile.
    ///
    /// # Errors
    /// [`Kind::Busy`] when the time is over, [`Kind::NotFound`] when the job was removed, [`Kind::Io`] when the store was moved or
    /// a processor cannot be started; and whatever the store answers.
    pub fn wait_for_call(&mut self, call: &AwaitedCall<'_>, tell: &mut dyn FnMut(CallEvent<'_>)) -> Result<CallEnd> {
        let (id, output) = (call.id, call.output);
        let starter = call.start.map(StartWith::starter).transpose()?;
        let pulse = Some(if starter.is_some() { LOOK_FOR_PROCESSOR } else { FIRST_WORD });
        let mut progress = CallProgress {
            next_word: Instant::now() + FIRST_WORD,
            pause: FIRST_WORD,
            waits: None,
            told: None,
            starter,
            looked_for_processor: None,
        };
        let following = Following {
            by: Onlooker { caller: call.caller, reader: None },
            from: Some(1),
            until: output.until,
            stop: Some(output.interrupts.as_fd()),
            pulse,
        };
        let followed = self.follow_as(id, &following, &mut |queue, followed| {
            if let Followed::Quiet(job) = followed {
                progress.tell(queue, job, tell)?;
                return progress.tend(queue, id);
            }
            tell(CallEvent::Followed(followed));
            Ok(())
        });
        match still_there(id, followed)? {
            FollowEnd::Ended(end) => Ok(CallEnd::Ended(end)),
            FollowEnd::Stopped(state) => {
                // While it waited for the reader, it did not look at the job.
                let job = if output.is_cut.get() { Some(still_there(id, self.store.job(id))?) } else { None };
                match job {
                    Some(job) if job.state.has_ended() => {
                        Ok(CallEnd::Ended(JobEnd { id, state: job.state, error: job.error }))
                    }
                    _ if output.interrupts.take() => Ok(CallEnd::Interrupted),
                    job => Err(too_late(id, job.map_or(state, |job| job.state))),
                }
            }
        }
    }

    /// Cancels a call. Stops waiting for its end at an interrupt. Returns whether the call is cancelled.
    ///
    /// # Errors
    /// As [`Queue::cancel_job`].
    pub fn cancel_call(&mut self, id: JobId, interrupts: &Interrupts) -> Result<bool> {
        let until = Instant::now() + CANCEL_PATIENCE;
        if self.begin_to_cancel(id)? {
            return Ok(true);
        }
        while !look_if_cancelled(&mut self.store, id, until)? {
            if interrupts.wait(LOOK_AT_CANCELLED) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The error for a call that has not ended in time.
fn too_late(id: JobId, state: State) -> Error {
    Error::new(Kind::Busy, format!("job {id} has not ended in time: it is {state}"))
        .with_hint(format!("it is not cancelled: `asyncq wait {id}` waits on, and `asyncq job cancel {id}` cancels it"))
}
