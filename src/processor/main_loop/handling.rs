//! Waiting for events, and handling them.

use std::time::Duration;

use super::{MainLoop, Obstacle, START_PAUSE};
use crate::domain::{attempt::Outcome, event::Event, job::Claim, retry::POSTPONED};
use crate::error::{Error, Kind};
use crate::processor::{events::LoopEvent, reporter::Warning, service_state::ServiceState};
use crate::runner::{StartFailure, worker::CallReport, worker::EndedCall};
use crate::system::error::{hint, in_words};

impl MainLoop<'_> {
    /// Sleeps until something happens, at most for `time`, and handles all that has happened.
    pub(super) fn wait(&mut self, time: Duration) {
        let (time, changes) = if self.could_begin_more() { self.watcher.wait_for(time) } else { (time, None) };
        self.events.wait(time, changes);
        for event in self.events.take() {
            self.shutdown.park_if_supervisor_died();
            match event {
                LoopEvent::Ended(calls) => self.calls_ended(calls),
                LoopEvent::NotStarted(claim, failure) => self.call_not_started(&claim, failure),
                LoopEvent::Report(fence, CallReport::Progress(text)) => {
                    self.progress.insert(fence.job, (fence, text));
                }
                LoopEvent::LostHost(lost) => {
                    self.calls_left(lost.left.len());
                    self.others.lost_host = Some(lost);
                }
                LoopEvent::Left(count) => self.calls_left(count),
                LoopEvent::Returned | LoopEvent::Stop => {}
            }
        }
        self.report_unwritten_marks();
        if let Some(registration) = self.membership.get() {
            registration.unkillable().into_iter().for_each(|process| self.reporter.unkillable(process));
        }
    }

    /// Whether a call that is enqueued now could begin now. If not, notifications are useless.
    pub(super) fn could_begin_more(&self) -> bool {
        let Some(registration) = self.membership.get() else { return true };
        let room =
            |service: &ServiceState| service.snapshot.status.free() > registration.slots.load(&service.name).held;
        let may = self.may_claim() && self.full_disk.is_none() && self.scarcity.is_none();
        may && (self.open_calls() == 0 || self.services.iter().any(room))
    }

    fn calls_ended(&mut self, calls: Vec<EndedCall>) {
        if calls.iter().any(|call| !matches!(call.ended.outcome, Outcome::Unstarted(_) | Outcome::Cancelled)) {
            self.scarcity = None;
            self.reporter.is_over(Warning::Scarcity);
        }
        let Some(registration) = self.membership.active() else { return };
        registration.slots.came_back(calls.iter().map(|call| &call.claim));
        for call in calls {
            if let Some(service) = self.services.iter_mut().find(|service| service.name == call.claim.call.service) {
                service.ends(call);
            }
        }
    }

    /// Puts back a call that did not begin in its slot.
    fn call_not_started(&mut self, claim: &Claim, failure: StartFailure) {
        let Some(registration) = self.membership.active() else { return };
        registration.slots.came_back([claim]);
        self.budget.gave_back(1);
        let Some(service) = self.state_of(&claim.call.service) else { return };
        match failure {
            StartFailure::Written(why) => {
                service.postpones(claim);
                self.reporter.tell(Event::Postponed { claim, why: &why, pause: POSTPONED });
            }
            StartFailure::Scarce(error) => {
                service.gives_back(std::slice::from_ref(claim));
                self.pause_starts("cannot start a program", &error);
            }
            _ => service.gives_back(std::slice::from_ref(claim)),
        }
    }

    /// Calls are left to a host, or to processes that cannot be ended.
    fn calls_left(&mut self, count: usize) {
        if let Some(registration) = self.membership.active() {
            registration.slots.left += count;
        }
    }

    /// Claims nothing for a while, because the system has no process, descriptor or memory left. Without `--follow`, the processor
    /// ends with this error as soon as its calls have ended.
    pub(super) fn pause_starts(&mut self, what: &str, error: &std::io::Error) {
        let error = Error::new(Kind::Busy, format!("{what}: {}", in_words(error))).with_hint(hint(error));
        if self.options.follow {
            self.reporter.warn(Warning::Scarcity, Event::Scarce(&error));
        }
        self.scarcity = Some(Obstacle::new(error));
    }

    pub(super) fn end_start_pause(&mut self) {
        let is_over = |scarcity: &Obstacle| scarcity.since.elapsed() >= START_PAUSE;
        if self.options.follow && self.scarcity.as_ref().is_some_and(is_over) {
            self.scarcity = None;
        }
    }
}
