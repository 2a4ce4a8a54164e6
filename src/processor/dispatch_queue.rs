//! The queue from which the slots of a processor take their calls.
//!
//! Invariant: at most `width` calls of a service run at once. A call that waits in a worker behind another call does not count
//! until its turn comes.

mod host;
mod pipes;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::domain::job::{Claim, Fence};
use crate::domain::{function::Definition, service::ServiceName};
use crate::runner::{Stop, StopSwitch, Tap, tap::audience::FollowRequest, worker::Worker};

/// The queue, which the slots share.
#[derive(Default)]
pub(super) struct DispatchQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

/// What is in it.
#[derive(Default)]
pub(super) struct QueueState {
    services: Vec<ServiceQueue>,
    /// Which service comes first next time. It changes, so that no service is always last.
    turn: usize,
    /// One for each slot.
    pub(super) slots: Vec<SlotState>,
    /// The program that some calls run in, if there is one.
    pub(super) host: Option<HostState>,
    /// Whether several calls share the output, so that the forwarder passes on whole lines only.
    pub(super) whole_lines: bool,
    /// Whether no further call may begin.
    pub(super) halted: bool,
    pub(super) closed: bool,
    /// Where new followers wait until the slot of their call takes them.
    pub(super) tap: Arc<Tap>,
}

/// The calls of one service.
struct ServiceQueue {
    service: ServiceName,
    /// Calls that wait, most urgent first.
    waiting: VecDeque<Claim>,
    /// How many calls may run at once.
    width: usize,
    /// How many ended calls have an outcome that is neither noted nor recorded yet. If the processor dies, these calls run again,
    /// so there must not be more of them than slots.
    unrecorded: usize,
}

/// What a slot does.
pub(super) struct SlotState {
    /// Its calls, all of one service.
    fences: VecDeque<Fence>,
    /// The index of that service.
    service: usize,
    /// Whether one of them was charged with a crash before.
    crashed_before: bool,
    serving: Option<Serving>,
    /// Calls that its worker is to cancel.
    pub(super) cancels: Vec<Fence>,
    /// Ends the call that runs in the slot, or makes the slot look at the queue.
    pub(super) control: Arc<StopSwitch>,
}

/// What the host does.
pub(super) struct HostState {
    /// The functions that run in it.
    functions: Vec<String>,
    /// How many calls it runs at once.
    at_once: usize,
    /// Its calls, and the index of the service of each.
    calls: Vec<(Fence, usize)>,
    /// Whether one of them was charged with a crash before.
    crashed_before: bool,
    /// Calls that it is to cancel.
    cancels: Vec<Fence>,
    /// Makes the thread that feeds it look at the queue.
    pub(super) control: Arc<StopSwitch>,
}

impl HostState {
    /// A host without calls.
    pub(super) fn new(functions: &[String], at_once: usize, control: Arc<StopSwitch>) -> HostState {
        let (calls, cancels) = (Vec::new(), Vec::new());
        HostState { functions: functions.to_vec(), at_once, calls, crashed_before: false, cancels, control }
    }

    fn free(&self) -> usize {
        self.at_once.saturating_sub(self.calls.len())
    }
}

/// A worker that a slot feeds.
struct Serving {
    definition: Arc<Definition>,
    site: String,
    /// How many calls it runs at once, once it has said so.
    at_once: Option<usize>,
    /// Whether it gets no further call.
    leaves: bool,
}

impl Serving {
    /// The worker that a call needs, if it needs one.
    fn begin(claim: &Claim) -> Option<Serving> {
        let (definition, site) = (Arc::clone(&claim.definition), claim.site().to_owned());
        definition.worker.map(|_| Serving { definition, site, at_once: None, leaves: false })
    }

    fn is_for(&self, claim: &Claim) -> bool {
        self.definition.shares_worker(&self.site, &claim.definition, claim.site())
    }
}

impl SlotState {
    /// An empty one.
    pub(super) fn new(control: Arc<StopSwitch>) -> SlotState {
        let (fences, cancels) = (VecDeque::new(), Vec::new());
        SlotState { fences, service: 0, crashed_before: false, serving: None, cancels, control }
    }

    fn running(&self) -> usize {
        let at_once = self.serving.as_ref().map_or(1, |serving| serving.at_once.unwrap_or(1));
        self.fences.len().min(at_once)
    }
}

impl DispatchQueue {
    /// Locks the state.
    pub(super) fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all slots that wait for a change.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Whether calls may still begin.
    pub(super) fn is_open(&self) -> bool {
        !self.halted && !self.closed
    }

    /// Wakes the slots that feed a worker, to look at the queue again.
    pub(super) fn wake_workers(&self) {
        for slot in self.slots.iter().filter(|slot| slot.serving.is_some()) {
            slot.control.wake_up();
        }
    }

    /// How many calls run.
    pub(super) fn running(&self) -> usize {
        self.slots.iter().map(SlotState::running).sum::<usize>() + self.hosted()
    }

    /// How many calls of a service run.
    pub(super) fn running_of(&self, service: &ServiceName) -> usize {
        self.find(service).map_or(0, |index| self.running_in(index))
    }

    /// How many calls of a service wait for something else than the start of their worker.
    pub(super) fn stranded_of(&self, service: &ServiceName) -> usize {
        let starting: Vec<&Serving> = self.slots.iter().filter_map(|slot| slot.serving.as_ref()).collect();
        let starts = |claim: &Claim| starting.iter().any(|it| it.at_once.is_none() && it.is_for(claim));
        let waiting = self.find(service).map(|index| self.services[index].waiting.iter());
        waiting.into_iter().flatten().filter(|claim| !starts(claim)).count()
    }

    /// How many slots can have something to do: one for each call that may run at once. For workers, it is one more for each slot
    /// without a call, because such a slot may still have to end its worker.
    pub(super) fn useful_slots(&self) -> usize {
        let useful = |(index, queue): (usize, &ServiceQueue)| {
            let in_slots = || self.slots.iter().filter(move |slot| slot.service == index);
            let busy: usize = in_slots().map(SlotState::running).sum();
            let waiting = queue.waiting.len();
            if in_slots().any(|slot| slot.serving.is_some()) || queue.waiting.iter().any(Claim::is_for_worker) {
                return busy + waiting.min(queue.width);
            }
            busy.max((busy + waiting).min(queue.width.saturating_sub(self.hosted_of(index))))
        };
        self.services.iter().enumerate().map(useful).sum()
    }

    fn running_in(&self, index: usize) -> usize {
        let in_slots: usize = self.slots.iter().filter(|slot| slot.service == index).map(SlotState::running).sum();
        in_slots + self.hosted_of(index)
    }

    fn find(&self, service: &ServiceName) -> Option<usize> {
        self.services.iter().position(|queue| queue.service == *service)
    }

    fn index_of(&mut self, service: &ServiceName) -> usize {
        self.find(service).unwrap_or_else(|| {
            let (service, waiting) = (service.clone(), VecDeque::new());
            self.services.push(ServiceQueue { service, waiting, width: 0, unrecorded: 0 });
            self.services.len() - 1
        })
    }

    /// Adds calls of a service, and sets how many of them may run at once. Wakes the slots whose workers may take them.
    pub(super) fn add(&mut self, service: &ServiceName, claims: Vec<Claim>, width: usize) {
        let index = self.index_of(service);
        self.services[index].waiting.extend(claims);
        self.services[index].width = width;
        for slot in self.slots.iter().filter(|slot| slot.serving.is_some() && slot.service == index) {
            slot.control.wake_up();
        }
        self.call_host();
    }

    /// Whether one more call of a service may begin.
    fn has_room(&self, index: usize) -> bool {
        self.room(index) > 0
    }

    /// How many more calls of a service may begin.
    fn room(&self, index: usize) -> usize {
        let ServiceQueue { width, unrecorded, .. } = &self.services[index];
        let busy = self.running_in(index) + unrecorded.saturating_sub(*width);
        if self.is_open() { width.saturating_sub(busy) } else { 0 }
    }

    /// Takes the next call for an empty slot, if one may begin. Also returns whether it shares the output.
    pub(super) fn pick(&mut self, slot: usize) -> Option<(Claim, bool)> {
        let count = self.services.len();
        let mut services = (0..count).map(|step| (self.turn + step) % count);
        let (index, place) = services.find_map(|index| Some((index, self.next_in(index)?)))?;
        self.turn = index + 1;
        Some((self.take(slot, index, place)?, self.whole_lines))
    }

    /// The first call of a service that may begin in an empty slot. Skips calls whose worker is starting, because a start may take
    /// long.
    fn next_in(&self, index: usize) -> Option<usize> {
        let waiting = &self.services[index].waiting;
        let place = self.first_for_slots(index).filter(|place| self.has_room_behind_hosted(index, *place))?;
        let first = &waiting[place];
        if !self.is_for_another(index, first) {
            return Some(place);
        }
        let mut starting = self.slots.iter().filter_map(|slot| slot.serving.as_ref());
        if !starting.any(|serving| serving.at_once.is_none() && serving.is_for(first)) {
            return None;
        }
        let other = waiting.iter().position(|claim| !self.is_hosted(claim) && !self.is_for_another(index, claim))?;
        let hosted = waiting.iter().take(other).filter(|claim| self.is_hosted(claim)).count();
        self.has_room_behind_hosted(index, hosted).then_some(other)
    }

    /// Whether the worker of another slot can take this call now or soon. Soon means that the worker is starting, or that its slot
    /// is about to look for the next call.
    fn is_for_another(&self, index: usize, claim: &Claim) -> bool {
        self.slots.iter().filter(|slot| slot.service == index).any(|slot| {
            let Some(serving) = &slot.serving else { return false };
            let spare = serving.at_once.is_none_or(|at_once| slot.fences.len() < at_once);
            spare && !serving.leaves && !slot.crashed_before && claim.before.crashes == 0 && serving.is_for(claim)
        })
    }

    fn take(&mut self, slot: usize, index: usize, place: usize) -> Option<Claim> {
        let claim = self.services[index].waiting.remove(place)?;
        let state = &mut self.slots[slot];
        if state.fences.is_empty() {
            state.crashed_before = false;
        }
        state.service = index;
        // It is set as soon as the call is taken. Otherwise, another slot would start a second worker for calls that this one may
        // run.
        state.serving = state.serving.take().or_else(|| Serving::begin(&claim));
        state.crashed_before |= claim.before.crashes > 0;
        state.fences.push_back(claim.fence);
        Some(claim)
    }

    /// Notes which worker a slot feeds, and how many calls that worker runs at once, if it has said so.
    pub(super) fn serve(&mut self, slot: usize, worker: Option<(&Worker, Option<usize>)>) {
        self.slots[slot].serving = worker.map(|(worker, at_once)| {
            let (definition, site) = worker.made_of();
            Serving { definition: Arc::clone(definition), site: site.to_owned(), at_once, leaves: false }
        });
    }

    /// Notes how many calls the worker of a slot runs at once. Returns whether that is new.
    pub(super) fn learn(&mut self, slot: usize, at_once: usize) -> bool {
        let serving = self.slots[slot].serving.as_mut();
        serving.is_some_and(|serving| serving.at_once.replace(at_once) != Some(at_once))
    }

    /// Takes a call from a slot.
    pub(super) fn release(&mut self, slot: usize, fence: Fence) {
        let state = &mut self.slots[slot];
        if let Some(place) = state.fences.iter().position(|which| *which == fence) {
            state.fences.remove(place);
        }
        state.cancels.retain(|which| *which != fence);
        self.tap.forget(&fence);
        self.call_host();
    }

    /// Lets somebody follow a call that runs here. If the call does not run here, returns the request.
    pub(super) fn usher(&self, request: FollowRequest) -> Result<(), FollowRequest> {
        let is_it = |fence: &Fence| (fence.job.0, fence.attempt) == (request.job, request.attempt);
        let slot = self.slots.iter().find(|slot| slot.fences.iter().any(is_it)).map(|slot| &slot.control);
        let of_host = || self.host.as_ref().filter(|host| host.calls.iter().any(|(fence, _)| is_it(fence)));
        let Some(control) = slot.or_else(|| of_host().map(|host| &host.control)) else { return Err(request) };
        self.tap.admit(request);
        control.wake_up();
        Ok(())
    }

    /// Puts back calls that have not begun; the first one is the most urgent.
    pub(super) fn put_back(&mut self, claims: Vec<Claim>) {
        for claim in claims.into_iter().rev() {
            let index = self.index_of(&claim.call.service);
            self.services[index].waiting.push_front(claim);
        }
    }

    /// Notes that a slot waits until the outcome of a call is recorded.
    pub(super) fn await_record(&mut self, service: &ServiceName) {
        let index = self.index_of(service);
        self.services[index].unrecorded += 1;
    }

    /// Notes that this outcome is recorded.
    pub(super) fn recorded(&mut self, service: &ServiceName) {
        let index = self.index_of(service);
        self.services[index].unrecorded -= 1;
        self.call_host();
    }

    /// Takes out calls that have not begun.
    pub(super) fn take_out(&mut self, which: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        let mut taken = Vec::new();
        for queue in &mut self.services {
            let waiting = std::mem::take(&mut queue.waiting);
            let (out, left): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(&which);
            queue.waiting = left;
            taken.extend(out);
        }
        taken
    }

    /// Asks a call to end, if it runs.
    pub(super) fn cancel(&mut self, fence: Fence) {
        for slot in self.slots.iter_mut().filter(|slot| slot.fences.contains(&fence)) {
            // A slot that is about to get a worker reads this once it has one.
            slot.cancels.push(fence);
            if slot.serving.is_some() {
                slot.control.wake_up();
            } else {
                slot.control.stop(Stop::Cancel);
            }
        }
        self.cancel_in_host(fence);
    }

    /// Asks all running calls to end.
    pub(super) fn stop(&self, how: Stop) {
        for slot in self.slots.iter().filter(|slot| !slot.fences.is_empty()) {
            slot.control.stop(how);
        }
        if let Some(host) = &self.host {
            host.control.stop(how);
        }
    }
}
