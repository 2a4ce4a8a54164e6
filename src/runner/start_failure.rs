//! Why a program was not started, and how long asyncq waits if the system lacks something.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use crate::domain::attempt::{Failure, Outcome};
use crate::domain::{job::Claim, time::millis};
use crate::runner::{Stop, StopSwitch};
use crate::system::error::in_words;

/// How long to wait for something that the system may lack only for a moment.
const MOMENT: Duration = Duration::from_secs(5);

/// How often to try again.
const LOOK: Duration = Duration::from_millis(100);

/// Why a program was not started. Nothing of its call was executed.
#[derive(Debug)]
pub enum StartFailure {
    /// The program cannot be started.
    Unable(Failure),
    /// The call can never be passed to the program.
    Unfit(Failure),
    /// Another process has been writing the program for too long.
    Written(Failure),
    /// The system has lacked processes, descriptors or memory for too long.
    Scarce(io::Error),
    /// The call was told to end meanwhile.
    Stopped(Stop),
    /// The call has expired.
    Expired,
}

impl StartFailure {
    /// The meaning of an error. `why_not` makes the failure, unless a later try may succeed.
    pub(in crate::runner) fn of(error: io::Error, why_not: impl Fn(&io::Error) -> Failure) -> StartFailure {
        match Errno::from_io_error(&error) {
            Some(Errno::TXTBSY) => StartFailure::Written(why_not(&error)),
            Some(Errno::TOOBIG) => StartFailure::Unfit(why_not(&error)),
            _ if is_scarcity(&error) => StartFailure::Scarce(error),
            _ => StartFailure::Unable(why_not(&error)),
        }
    }

    /// How a call ends that is not tried again now.
    pub fn outcome(self) -> Outcome {
        match self {
            StartFailure::Unable(failure) | StartFailure::Written(failure) => Outcome::Unstarted(failure),
            StartFailure::Unfit(failure) => Outcome::Failed(failure),
            StartFailure::Scarce(error) => Outcome::Unstarted(Failure::not_executable(format!(
                "its program cannot be started: {}",
                in_words(&error)
            ))),
            StartFailure::Stopped(Stop::Cancel) => Outcome::Cancelled,
            StartFailure::Stopped(_) | StartFailure::Expired => Outcome::Interrupted,
        }
    }
}

/// Whether a call must not begin because it has expired. The store ends it once it is back.
pub fn has_expired(claim: &Claim) -> bool {
    let now = || millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    claim.expires_at.is_some_and(|at| at.0 <= now())
}

fn is_scarcity(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Since when no program could be started, if that is so. All calls of a processor share the wait, so that a queue does not wait
/// once for each of its calls.
#[derive(Debug, Default)]
pub struct Scarcity(Mutex<Option<Instant>>);

impl Scarcity {
    /// Calls `work`, which starts a program. If the system lacks something or the program is being written, tries again for a
    /// moment, but not after `control` is told to stop.
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
                _ => return Err(failure),
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

/// Calls `work`. If the system lacks something, tries again for a moment.
pub(in crate::runner) fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + MOMENT;
    loop {
        match work() {
            Err(error) if is_scarcity(&error) && Instant::now() < until => std::thread::sleep(LOOK),
            done => return done,
        }
    }
}
