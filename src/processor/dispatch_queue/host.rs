//! Calls that run in a host: the program that has started this processor to drain into itself.

use super::{HostState, QueueState};
use crate::domain::job::{Claim, Fence};

impl QueueState {
    /// Whether a call runs in the host.
    pub(in crate::processor) fn is_hosted(&self, claim: &Claim) -> bool {
        let has = |host: &HostState| {
            claim.is_for_worker() && host.functions.iter().any(|name| name == claim.call.function.as_str())
        };
        self.host.as_ref().is_some_and(has)
    }

    /// Whether the host can take no further call now.
    pub(in crate::processor) fn host_is_full(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.free() == 0)
    }

    /// Whether a call waits for the host, and will go on waiting until the host has room.
    pub(crate) fn waits_for_host(&self, claim: &Claim) -> bool {
        self.host_is_full() && self.is_hosted(claim)
    }

    /// How many calls run in the host.
    pub(super) fn hosted(&self) -> usize {
        self.host.as_ref().map_or(0, |host| host.calls.len())
    }

    /// How many of them are of a service.
    pub(super) fn hosted_of(&self, index: usize) -> usize {
        let calls = self.host.iter().flat_map(|host| &host.calls);
        calls.filter(|(_, of)| *of == index).count()
    }

    /// Wakes the thread that feeds the host, to look at the queue again.
    pub(in crate::processor) fn call_host(&self) {
        if let Some(host) = &self.host {
            host.control.wake_up();
        }
    }

    /// The first waiting call of a service that does not run in the host.
    pub(super) fn first_for_slots(&self, index: usize) -> Option<usize> {
        self.services[index].waiting.iter().position(|claim| !self.is_hosted(claim))
    }

    /// Whether a call may begin in a slot although `hosted` calls before it wait for the host. Those that can begin in the host go
    /// first.
    pub(super) fn has_room_behind_hosted(&self, index: usize, hosted: usize) -> bool {
        let before = self.host.as_ref().map_or(0, |host| hosted.min(host.free()));
        self.room(index) > before
    }

    /// Takes the next call for the host, if one may begin. A call that was charged with a crash runs alone there.
    pub(in crate::processor) fn pick_hosted(&mut self) -> Option<Claim> {
        let host = self.host.as_ref().filter(|host| host.free() > 0)?;
        let count = self.services.len();
        let (index, place) = (0..count).map(|step| (self.turn + step) % count).find_map(|index| {
            let waiting = &self.services[index].waiting;
            let place = waiting.iter().position(|claim| self.is_hosted(claim))?;
            let alone = host.crashed_before || waiting[place].before.crashes > 0;
            // The calls before it are for slots.
            let may = self.room(index) > place && (host.calls.is_empty() || !alone);
            may.then_some((index, place))
        })?;
        let claim = self.services[index].waiting.remove(place)?;
        self.turn = index + 1;
        let host = self.host.as_mut()?;
        host.crashed_before = claim.before.crashes > 0;
        host.calls.push((claim.fence, index));
        Some(claim)
    }

    /// Takes a call from the host.
    pub(in crate::processor) fn release_hosted(&mut self, fence: Fence) {
        if let Some(host) = &mut self.host {
            host.calls.retain(|(which, _)| *which != fence);
            host.cancels.retain(|which| *which != fence);
        }
        self.tap.forget(&fence);
    }

    pub(super) fn cancel_in_host(&mut self, fence: Fence) {
        if let Some(host) = &mut self.host
            && host.calls.iter().any(|(which, _)| *which == fence)
        {
            host.cancels.push(fence);
            host.control.wake_up();
        }
    }

    /// Calls that the host is to cancel, each of them once.
    pub(in crate::processor) fn hosted_to_cancel(&mut self) -> Vec<Fence> {
        self.host.as_mut().map(|host| std::mem::take(&mut host.cancels)).unwrap_or_default()
    }

    /// The host is lost. Asks the calls that run elsewhere to end, and lets no call begin.
    pub(in crate::processor) fn lose_host(&mut self) {
        self.host = None;
        self.halted = true;
        self.wake_workers();
    }
}
