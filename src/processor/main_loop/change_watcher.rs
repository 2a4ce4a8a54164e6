//! Staying: hearing that somebody changed the store, and telling that one is there.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::super::service_state::ServiceState;
use super::MainLoop;
use crate::domain::event::Event;
use crate::error::{Kind, Result};
use crate::store::Watch;

/// How often to look whether the store has changed where nothing was heard.
const NET: Duration = Duration::from_millis(500);

/// The same where the system tells nothing.
const NET_OF_THE_DEAF: Duration = Duration::from_millis(10);

/// How soon to look again after something was heard: what is written is committed when the disk has it, and that is not
/// heard.
const SOON: Duration = Duration::from_micros(50);

/// Hears of changes to a store.
pub(super) struct ChangeWatcher {
    watch: Option<Watch>,
    /// How long to wait for a commit after what was heard; grows up to the net.
    pause: Duration,
}

impl ChangeWatcher {
    fn net(&self) -> Duration {
        if self.watch.is_some() { NET } else { NET_OF_THE_DEAF }
    }

    /// What becomes readable when there is something to hear.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// How long to wait for that, where it would be `time` otherwise.
    pub(super) fn at_most(&self, time: Duration) -> Duration {
        time.min(self.pause)
    }

    /// Takes note of what there is to hear; says whether to look.
    pub(super) fn heard(&mut self) -> bool {
        if self.watch.as_mut().is_some_and(Watch::heard) {
            self.prick();
        } else {
            self.pause = (self.pause * 3 / 2).min(self.net());
        }
        true
    }

    /// Looks again soon: where one has written, others may be about to.
    pub(super) fn prick(&mut self) {
        self.pause = SOON.min(self.net());
    }
}

impl MainLoop<'_> {
    /// Begins to stay: is there for others to see, hears of changes, and tells that it is ready.
    pub(super) fn begin_to_follow(&mut self) -> Result<()> {
        self.be_patient();
        self.registration()?;
        let watch = self.store.watch();
        if let Err(error) = &watch {
            (self.tell)(Event::Deaf { error });
        }
        let mut watcher = ChangeWatcher { watch: watch.ok(), pause: SOON };
        watcher.prick();
        self.watcher = Some(watcher);
        (self.tell)(Event::Ready);
        Ok(())
    }

    /// How long to do nothing when nothing is to be done.
    pub(super) fn time_to_listen(&self) -> Duration {
        let due = self.served.iter().filter_map(|served| served.snapshot.until_next()).min();
        let rest = self.registration.as_ref().and_then(|registration| registration.slots.next_retirement());
        let pulse = self.options.pulse.map(|pulse| pulse.saturating_sub(self.told_of_life.elapsed()));
        let times = [due, rest, pulse, self.budget.time_left(), self.rest_of_scarcity()];
        times.into_iter().flatten().min().unwrap_or(NET).min(NET)
    }

    /// Whether a call that comes now could begin now, so that it is worth hearing of it.
    pub(super) fn could_begin_more(&self) -> bool {
        let Some(registration) = &self.registration else { return true };
        let room = |served: &ServiceState| served.snapshot.status.free() > registration.slots.load(&served.name).held;
        let may = self.may_claim() && self.shortage.is_none() && self.scarcity.is_none();
        may && (self.held() == 0 || self.served.iter().any(room))
    }

    /// Tells that this processor lives, as often as that is wanted.
    pub(super) fn tell_of_life(&mut self) {
        if self.options.pulse.is_some_and(|pulse| self.told_of_life.elapsed() >= pulse) {
            self.told_of_life = Instant::now();
            (self.tell)(Event::Alive);
        }
    }

    /// Who follows all services serves new ones too, and those no more that are gone.
    pub(super) fn look_for_services(&mut self) -> Result<()> {
        if !self.options.follow || !self.options.services.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.store.services()?.into_iter().map(|service| service.name).collect();
        let Some(registration) = &self.registration else { return Ok(()) };
        let in_use = |served: &ServiceState| served.has_news() || registration.slots.load(&served.name).held > 0;
        self.served.retain(|served| in_use(served) || names.contains(&served.name));
        for name in names {
            if self.served.iter().all(|served| served.name != name) {
                match self.look(&name) {
                    Ok(status) => self.served.push(ServiceState::new(name, status)),
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
