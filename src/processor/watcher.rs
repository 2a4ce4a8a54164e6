//! When a processor looks at the store again: because it was changed, or because it is time.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::store::Watch;
use crate::system::fds;

/// How often a processor looks at the store while its calls run. Also how long it keeps a call that cannot begin.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// How often it looks for dead processors, for new services and whether the store was moved. Also how long it sleeps at most.
pub(super) const POLL_OTHERS: Duration = Duration::from_millis(500);

/// How often a processor that cannot be notified of changes looks for them.
const POLL_BLIND: Duration = Duration::from_millis(10);

/// How soon to look again after a notification. The notification comes with the write, and the commit follows when the disk has
/// confirmed it.
const SOON: Duration = Duration::from_micros(50);

/// Decides when to look.
pub(super) struct Watcher {
    /// Notifies of changes to the store's files; only with `--follow`.
    notifications: Option<Notifications>,
    looked: Instant,
    looked_at_others: Instant,
    /// Whether the store has changed since the last look.
    pub(super) changed: bool,
    /// Whether it has changed since the last look at other processors.
    changed_for_others: bool,
}

/// Changes to the store's files, as the system reports them.
pub struct Notifications {
    /// `None` where the system reports nothing.
    watch: Option<Watch>,
    /// How long to wait for a commit after the latest notification. This grows.
    pause: Duration,
}

impl Notifications {
    /// Uses the notifications of `watch`. Without it, the store is polled often.
    pub fn by(watch: Option<Watch>) -> Notifications {
        Notifications { watch, pause: SOON }
    }

    fn longest_pause(&self) -> Duration {
        if self.watch.is_some() { POLL_OTHERS } else { POLL_BLIND }
    }

    /// Looks again soon after a change was found, because others may be about to write too.
    pub fn look_soon(&mut self) {
        self.pause = SOON;
    }

    /// What becomes readable at a notification, and how long to wait for it.
    pub fn wait_for(&self) -> (Duration, Option<BorrowedFd<'_>>) {
        (self.pause, self.watch.as_ref().map(AsFd::as_fd))
    }

    /// Takes the notifications, and says whether there were any.
    pub fn take(&mut self) -> bool {
        let any = self.watch.as_mut().is_some_and(Watch::heard);
        if any {
            self.look_soon();
        } else {
            self.pause = (self.pause * 3 / 2).min(self.longest_pause());
        }
        any
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            fds::close_later(watch.into());
        }
    }
}

impl Watcher {
    /// Without notifications.
    pub(super) fn new() -> Watcher {
        let (looked, looked_at_others) = (Instant::now(), Instant::now());
        Watcher { notifications: None, looked, looked_at_others, changed: false, changed_for_others: true }
    }

    /// From now on, uses the notifications of `watch`; without it, polls often.
    pub(super) fn follow(&mut self, watch: Option<Watch>) {
        self.notifications = Some(Notifications::by(watch));
    }

    /// What becomes readable at a notification, and how long to wait for that. Without notifications, the time to wait is `time`.
    pub(super) fn wait_for(&self, time: Duration) -> (Duration, Option<BorrowedFd<'_>>) {
        let Some(notifications) = &self.notifications else { return (time, None) };
        let (pause, watch) = notifications.wait_for();
        (time.min(pause), watch)
    }

    /// Whether to look at the store now. With notifications, which this takes, the answer is always yes. Otherwise it is yes now
    /// and then, and if a call `is_due`.
    pub(super) fn is_time(&mut self, is_due: bool) -> bool {
        if let Some(notifications) = &mut self.notifications {
            notifications.take();
        } else if !is_due && self.looked.elapsed() < POLL {
            return false;
        }
        self.looked = Instant::now();
        true
    }

    /// Whether to look at other processors now.
    pub(super) fn is_time_for_others(&mut self) -> bool {
        let is_time = self.looked_at_others.elapsed() >= POLL_OTHERS;
        if is_time {
            self.looked_at_others = Instant::now();
        }
        is_time
    }

    /// Whether anything has changed since the last call of this.
    pub(super) fn take_change_for_others(&mut self) -> bool {
        std::mem::take(&mut self.changed_for_others) || self.changed
    }

    /// A change was found: looks again soon, because others may be about to write too.
    pub(super) fn found_change(&mut self, others_know: bool) {
        self.changed_for_others |= !others_know;
        if let Some(notifications) = &mut self.notifications {
            notifications.look_soon();
        }
    }
}
