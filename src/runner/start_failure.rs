//! What keeps a program from being started for a moment, and how long that is waited for.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::domain::attempt::{Failure, Outcome};
use crate::error::reason;
use crate::runner::{Stop, StopSwitch};

/// How long to wait for what is in the way only for a moment.
const MOMENT: Duration = Duration::from_secs(5);

/// How often to look whether it still is.
const LOOK: Duration = Duration::from_millis(100);

/// Why a program was not started. Nothing of its call was executed.
#[derive(Debug)]
pub enum StartFailure {
    /// It cannot be started as it is.
    Unable(Failure),
    /// The call cannot be passed to it, and never will.
    Unfit(Failure),
    /// Somebody has been writing the program for too long.
    Written(Failure),
    /// The system has had no process, descriptor or memory for any program for too long.
    Scarce(io::Error),
    /// This was asked for meanwhile.
    Stopped(Stop),
}

impl StartFailure {
    /// What an error means that is told as a failure by `why_not`, unless it is for another time.
    pub(in crate::runner) fn of(error: io::Error, why_not: impl Fn(&io::Error) -> Failure) -> StartFailure {
        match Errno::from_io_error(&error) {
            Some(Errno::TXTBSY) => StartFailure::Written(why_not(&error)),
            Some(Errno::TOOBIG) => StartFailure::Unfit(why_not(&error)),
            _ if is_scarcity(&error) => StartFailure::Scarce(error),
            _ => StartFailure::Unable(why_not(&error)),
        }
    }

    /// How a call ends that waits no longer.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            StartFailure::Unable(failure) | StartFailure::Written(failure) => Outcome::Unstarted(failure),
            StartFailure::Unfit(failure) => Outcome::Failed(failure),
            StartFailure::Scarce(error) => Outcome::Unstarted(Failure::not_executable(format!(
                "its program cannot be started: {}",
                in_words(&error)
            ))),
            StartFailure::Stopped(Stop::Cancel) => Outcome::Cancelled,
            StartFailure::Stopped(_) => Outcome::Interrupted,
        }
    }
}

/// What the system lacks, in words for people; another error in its own.
#[must_use]
pub fn in_words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => "the system gives no more processes and threads".to_owned(),
        Some(Errno::NOMEM) => "the system gives no more memory".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "too many files are open".to_owned(),
        _ => reason(error),
    }
}

/// The error of a system call, which is named where the system does not know it, or a container or a sandbox refuses it.
pub(in crate::runner) fn of_call(name: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    match Errno::from_io_error(&error) {
        Some(Errno::NOSYS | Errno::PERM) => io::Error::new(error.kind(), format!("the system refuses `{name}`")),
        _ => error,
    }
}

fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Since when the system has let no program be started, if it is so. All calls of a processor wait together: a queue does
/// not wait once for each of its calls.
#[derive(Debug, Default)]
pub struct Scarcity(Mutex<Option<Instant>>);

impl Scarcity {
    /// Does what starts a program, and again for a moment where that fails for want of something or as the program is being
    /// written; but not once `control` is told to stop.
    pub(in crate::runner) fn wait<T>(
        &self,
        control: &StopSwitch,
        mut work: impl FnMut() -> io::Result<T>,
        why_not: impl Fn(&io::Error) -> Failure,
    ) -> Result<T, StartFailure> {
        let began = Instant::now();
        loop {
            let failure = match work() {
                Ok(done) => {
                    *self.since() = None;
                    return Ok(done);
                }
                Err(error) => StartFailure::of(error, &why_not),
            };
            let since = match failure {
                StartFailure::Scarce(_) => *self.since().get_or_insert(began),
                StartFailure::Written(_) => began,
                StartFailure::Unable(_) | StartFailure::Unfit(_) | StartFailure::Stopped(_) => return Err(failure),
            };
            match control.asked() {
                Stop::No if since.elapsed() < MOMENT => std::thread::sleep(LOOK),
                Stop::No => return Err(failure),
                stop => return Err(StartFailure::Stopped(stop)),
            }
        }
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what belongs to a program that runs already, and again for a moment where the system lacks something.
pub(in crate::runner) fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + MOMENT;
    loop {
        match work() {
            Err(error) if is_scarcity(&error) && Instant::now() < until => std::thread::sleep(LOOK),
            done => return done,
        }
    }
}
