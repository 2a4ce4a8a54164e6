//! Processes that may not be ended: telling of them, and leaving them behind.

use super::MainLoop;
use crate::domain::event::Event;
use crate::error::{Error, Kind};
use crate::runner::process::identity::user_name;

impl MainLoop<'_> {
    /// Tells of those that were found, here and to whoever wants to cancel their jobs.
    pub(super) fn tell_of_immune(&mut self) {
        let Some(registration) = &self.registration else { return };
        for immune in registration.immune() {
            (self.tell)(Event::Unkillable { immune: &immune });
            self.immune = Some(immune);
        }
    }

    /// Calls are left behind in one, as it was told to end at once.
    pub(super) fn leave_behind(&mut self, count: usize) {
        if let Some(registration) = &mut self.registration {
            registration.slots.leave(count);
        }
    }

    /// Why it ends without what it was running.
    pub(super) fn left_behind(&self) -> Error {
        let whom = self.immune.as_ref().map_or_else(
            || "a process".to_owned(),
            |immune| format!("process {} of user {}", immune.pid, user_name(immune.user)),
        );
        Error::new(Kind::Busy, format!("{whom} is left running, as it cannot be ended"))
            .with_hint("once it has ended, the next `asyncq process` puts its job back")
    }
}
