//! What a processor reports while it works. It gives each warning once, until the reason is gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::finished::FinishedCall;
use crate::domain::event::{Event, Unkillable};
use crate::domain::job::{JobId, State};
use crate::domain::processor::Summary;
use crate::error::{Error, Kind};
use crate::system::user::user_name;

/// What keeps a processor from working as it should.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Warning {
    /// Marks cannot be written.
    Unmarked,
    /// There is no space for a claim.
    FullDisk,
    /// No program can be started.
    Scarcity,
    /// The whole store is paused.
    StorePaused,
}

/// Passes events on, and counts.
pub(super) struct Reporter<'a> {
    tell: &'a mut dyn FnMut(Event<'_>),
    pub(super) summary: Summary,
    /// Signals to stop that were reported.
    signals: usize,
    alive: Instant,
    /// Since when calls run without a pause.
    busy: Option<Busy>,
    /// Warnings that were given and whose reason is not gone.
    warnings: BTreeSet<Warning>,
    /// The latest process that cannot be ended.
    unkillable: Option<Unkillable>,
}

/// A time in which calls run without a pause.
struct Busy {
    began: Instant,
    /// How many attempts had ended before.
    before: u64,
    /// When it was told how far this processor is.
    told: Instant,
}

impl<'a> Reporter<'a> {
    /// Reports to `tell`.
    pub(super) fn new(tell: &'a mut dyn FnMut(Event<'_>)) -> Reporter<'a> {
        let (summary, alive) = (Summary::default(), Instant::now());
        Reporter { tell, summary, signals: 0, alive, busy: None, warnings: BTreeSet::new(), unkillable: None }
    }

    /// Reports an event.
    pub(super) fn tell(&mut self, event: Event<'_>) {
        (self.tell)(event);
    }

    /// Reports signals to stop. The slots handle the signals themselves. The processor waits for `running` calls.
    pub(super) fn signals(&mut self, signals: usize, running: usize, follow: bool) {
        if self.signals == 0 && signals > 0 && (running > 0 || follow) {
            self.tell(Event::Stopping { running });
        }
        self.signals = signals;
    }

    /// Reports that the processor is alive, as often as `pulse` asks for.
    pub(super) fn alive(&mut self, pulse: Option<Duration>) {
        if self.until_alive(pulse).is_some_and(|rest| rest.is_zero()) {
            self.alive = Instant::now();
            self.tell(Event::Alive);
        }
    }

    /// How many attempts have ended in how much time, if it is time to tell that. It is time once in each `interval` while calls
    /// are open. When no call is open any longer, this reports that there is nothing to show.
    pub(super) fn drained(&mut self, interval: Option<Duration>, has_open: bool) -> Option<(u64, Duration)> {
        let interval = interval?;
        if !has_open {
            if self.busy.take().is_some() {
                self.tell(Event::Progress(None));
            }
            return None;
        }
        let (now, attempts) = (Instant::now(), self.summary.attempts);
        let busy = self.busy.get_or_insert(Busy { began: now, before: attempts, told: now });
        if now - busy.told < interval {
            return None;
        }
        busy.told = now;
        Some((attempts - busy.before, now - busy.began))
    }

    /// How long until the next report that it is alive.
    pub(super) fn until_alive(&self, pulse: Option<Duration>) -> Option<Duration> {
        pulse.map(|pulse| pulse.saturating_sub(self.alive.elapsed()))
    }

    /// Gives a warning, unless it was given and its reason is not gone yet.
    pub(super) fn warn(&mut self, warning: Warning, event: Event<'_>) {
        if self.warnings.insert(warning) {
            self.tell(event);
        }
    }

    /// The reason for a warning is gone.
    pub(super) fn is_over(&mut self, warning: Warning) {
        self.warnings.remove(&warning);
    }

    /// A rule of the application holds calls back.
    pub(super) fn held_back(&mut self, error: &Error) {
        if self.summary.held_back == 0 {
            self.tell(Event::HeldBack(error));
        }
        self.summary.held_back += 1;
    }

    /// Reports a recorded call. `state` is the state of its job now, or `None` if the job no longer belonged to this processor.
    pub(super) fn finished(&mut self, call: FinishedCall, state: Option<State>) {
        call.report(state, &mut self.summary, self.tell);
    }

    /// Counts jobs that a rescue put into these states.
    pub(super) fn rescued(&mut self, jobs: &[(JobId, State)]) {
        let errors = jobs.iter().filter(|(_, state)| *state == State::Error).count();
        self.summary.errors += errors as u64;
    }

    /// A process cannot be ended.
    pub(super) fn unkillable(&mut self, process: Unkillable) {
        self.tell(Event::Unkillable(&process));
        self.unkillable = Some(process);
    }

    /// The error of a processor that ends although a process still runs.
    pub(super) fn left_behind(&self) -> Error {
        let what = self.unkillable.as_ref().map_or_else(
            || "a process".to_owned(),
            |process| format!("process {} of user {}", process.pid, user_name(process.user)),
        );
        Error::new(Kind::Busy, format!("{what} is left running, as it cannot be ended"))
            .with_hint("once it has ended, the next `asyncq process` puts its job back")
    }
}
