//! Waits for one call and shows its output, as if it ran in this process.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::explain::needs_processor;
use super::follow::{FollowEnd, Followed, Following, Onlooker};
use super::job_change::{CANCEL_PATIENCE, LOOK_AT_CANCELLED, look_if_cancelled};
use super::queue::{Place, Queue};
use super::wait::{JobEnd, still_there};
use crate::domain::job::{Job, JobId, State};
use crate::domain::reason::Reason;
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::processor::ProcessorStarter;
use crate::system::signals::Interrupts;

/// A reason is reported once it has held for this long.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// The longest time until it is looked at again. It doubles each time.
const LAST_WORD: Duration = Duration::from_secs(60);

/// How often to check whether to start a processor.
const LOOK_FOR_PROCESSOR: Duration = Duration::from_millis(400);

/// A call to wait for.
#[derive(Debug)]
pub struct AwaitedCall<'a> {
    /// Its job.
    pub id: JobId,
    /// The process that waits.
    pub caller: &'a Caller,
    /// How long to wait at most.
    pub timeout: Option<Duration>,
    /// How to start a processor if none is at work, if that is wanted.
    pub start: Option<StartWith<'a>>,
    /// The interrupts of this process: the first one ends the wait.
    pub interrupts: &'a Interrupts,
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
    /// The job has ended.
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
    /// When to look for the reason next, and how long to wait after that.
    next_word: Instant,
    pause: Duration,
    /// The codes of the reason at the last look, and of the one that was reported last.
    waits: Option<&'static str>,
    told: Option<&'static str>,
    starter: Option<ProcessorStarter>,
    looked_for_processor: Option<Instant>,
}

impl CallProgress {
    /// Reports why a call waits, once per reason, and only if the reason holds for a while: usually a processor takes the call in
    /// a moment.
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
    /// Waits until a call has ended, or an interrupt comes. `tell` gets what the function prints, and what happens meanwhile.
    ///
    /// # Errors
    /// [`Kind::Busy`] when the time is over, [`Kind::NotFound`] when the job was removed, [`Kind::Io`] when the store was moved or a
    /// processor cannot be started; and whatever the store answers.
    pub fn wait_for_call(&mut self, call: &AwaitedCall<'_>, tell: &mut dyn FnMut(CallEvent<'_>)) -> Result<CallEnd> {
        let (began, id) = (Instant::now(), call.id);
        let starter = call.start.map(StartWith::starter).transpose()?;
        let pulse = Some(if starter.is_some() { LOOK_FOR_PROCESSOR } else { FIRST_WORD });
        let mut progress = CallProgress {
            next_word: began + FIRST_WORD,
            pause: FIRST_WORD,
            waits: None,
            told: None,
            starter,
            looked_for_processor: None,
        };
        let following = Following {
            by: Onlooker { caller: call.caller, reader: None },
            from: Some(1),
            until: call.timeout.and_then(|timeout| began.checked_add(timeout)),
            stop: Some(call.interrupts.as_fd()),
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
            FollowEnd::Stopped(_) if call.interrupts.take() => Ok(CallEnd::Interrupted),
            FollowEnd::Stopped(state) => Err(too_late(id, state)),
        }
    }

    /// Cancels a call, unless an interrupt comes before it has ended. Returns whether it is cancelled.
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
