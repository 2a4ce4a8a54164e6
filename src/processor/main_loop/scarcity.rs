//! Going on while the system lacks processes, memory or descriptors: calls go back, nothing is claimed, and now and then it
//! is tried again. Who does not stay ends with that when nothing runs any more.

use std::time::{Duration, Instant};

use super::MainLoop;
use crate::domain::event::Event;
use crate::domain::job::Claim;
use crate::domain::retry::POSTPONED;
use crate::error::{Error, Kind, Result};
use crate::runner::system_error::hint;
use crate::runner::{StartFailure, in_words};

/// How long nothing is claimed, then.
const REST: Duration = Duration::from_secs(1);

/// A system that lets no program be started.
pub(super) struct StartPause {
    /// How it was met.
    error: Error,
    met: Instant,
}

impl MainLoop<'_> {
    /// A call that was handed to a slot has not begun, and goes back.
    pub(super) fn take_back_unbegun(&mut self, claim: &Claim, hitch: StartFailure) {
        let Some(registration) = &mut self.registration else { return };
        registration.slots.came_back([claim]);
        self.budget.gave_back(1);
        let Some(served) = self.served.iter_mut().find(|served| served.name == claim.call.service) else { return };
        match hitch {
            StartFailure::Written(why) => {
                served.postpones(claim);
                (self.tell)(Event::Postponed { claim, why: &why, pause: POSTPONED });
            }
            StartFailure::Scarce(error) => {
                served.gives_back(std::slice::from_ref(claim));
                self.meet_scarcity("cannot start a program", &error);
            }
            _ => served.gives_back(std::slice::from_ref(claim)),
        }
    }

    /// Nothing is claimed for now, as `what` is not possible.
    pub(super) fn meet_scarcity(&mut self, what: &str, error: &std::io::Error) {
        let error = Error::new(Kind::Busy, format!("{what}: {}", in_words(error))).with_hint(hint(error));
        if self.options.follow && !std::mem::replace(&mut self.told_of_scarcity, true) {
            (self.tell)(Event::Scarce { error: &error });
        }
        self.scarcity = Some(StartPause { error, met: Instant::now() });
    }

    /// A call that has run makes room for others.
    pub(super) fn end_scarcity(&mut self) {
        self.scarcity = None;
        self.told_of_scarcity = false;
    }

    /// Who stays tries again after a while.
    pub(super) fn outlast_scarcity(&mut self) {
        let rested = |scarcity: &StartPause| scarcity.met.elapsed() >= REST;
        if self.options.follow && self.scarcity.as_ref().is_some_and(rested) {
            self.scarcity = None;
        }
    }

    /// How long until then.
    pub(super) fn rest_of_scarcity(&self) -> Option<Duration> {
        self.scarcity.as_ref().map(|scarcity| REST.saturating_sub(scarcity.met.elapsed()))
    }

    /// Ends with nothing in its hands, unless it stays.
    ///
    /// # Errors
    /// What the system lacks.
    pub(super) fn end_with_scarcity(&mut self) -> Result<()> {
        if self.options.follow {
            return Ok(());
        }
        self.scarcity.take().map_or(Ok(()), |scarcity| Err(scarcity.error))
    }
}
