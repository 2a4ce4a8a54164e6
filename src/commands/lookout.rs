//! Sleeping until the store was changed.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::error::Result;
use crate::processor::Notifications;
use crate::store::Store;
use crate::system::fds;

/// After a notification: how long to wait at most for the commit, before looking again.
const COMMIT: Duration = Duration::from_millis(10);

/// For how long after a notification that applies. A commit on a slower disk is noticed later.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

/// How often to look at least, and to check whether the store was moved.
const LOOK: Duration = Duration::from_millis(500);

/// The shortest time between two looks, so that a busy store costs little.
const BREATH: Duration = Duration::from_millis(1);

/// The longest time between two looks at a busy store, after many looks that found nothing.
const LONG_BREATH: Duration = Duration::from_millis(15);

/// Sleeps until the store was changed.
pub(super) struct Lookout {
    breath: Duration,
    notifications: Notifications,
    /// When a notification came last.
    notified: Option<Instant>,
    woke: Instant,
    looked_for_store: Instant,
}

/// Why a sleep is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The store was changed.
    Change,
    /// The time is over, or the other descriptor is readable.
    Other,
}

impl Lookout {
    /// Begins to watch a store.
    pub(super) fn of(store: &mut Store) -> Result<Lookout> {
        let notifications = Notifications::by(store.watch().ok());
        store.changed()?;
        let now = Instant::now();
        Ok(Lookout { breath: BREATH, notifications, notified: None, woke: now, looked_for_store: now })
    }

    /// Sleeps until the store changes, `other` is readable, or the time is `until`.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the store was moved or removed; whatever the store answers.
    pub(super) fn sleep(
        &mut self,
        store: &mut Store,
        until: Option<Instant>,
        other: Option<BorrowedFd<'_>>,
    ) -> Result<Woken> {
        std::thread::sleep(self.breath.saturating_sub(self.woke.elapsed()));
        let began = Instant::now();
        let woken = self.sleep_on(store, until, other);
        self.woke = Instant::now();
        self.breath = if began.elapsed() >= LOOK / 2 { BREATH } else { self.breath };
        woken
    }

    /// Delays the next look at a busy store after a look that found nothing, so that looking does not slow down processors.
    pub(super) fn slow_down(&mut self) {
        self.breath = (self.breath * 3 / 2).min(LONG_BREATH);
    }

    fn sleep_on(&mut self, store: &mut Store, until: Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Woken> {
        loop {
            if store.changed()? {
                self.notifications.look_soon();
                return Ok(Woken::Change);
            }
            if self.looked_for_store.elapsed() >= LOOK {
                store.still_there()?;
                self.looked_for_store = Instant::now();
            }
            let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Woken::Other);
            }
            let (pause, watch) = self.notifications.wait_for();
            let is_commit_near = self.notified.is_some_and(|at| at.elapsed() < SLOW_COMMIT);
            let time = if is_commit_near { pause.min(COMMIT) } else { pause };
            let watched = [other, watch].into_iter().flatten();
            let mut watched: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // Interrupted or not: it looks.
            let _ = fds::wait(&mut watched, Some(time.min(left)));
            let is_called = other.is_some() && !watched[0].revents().is_empty();
            if self.notifications.take() {
                self.notified = Some(Instant::now());
            }
            if is_called {
                return Ok(Woken::Other);
            }
        }
    }
}
