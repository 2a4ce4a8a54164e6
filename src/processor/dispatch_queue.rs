//! The board on which the slots of a processor find what to do.
//!
//! Invariant: of each service at most as many calls run at once as its width says. A call that waits in the pipe of a worker
//! which runs one after another does not count until its turn.

mod host;
mod pipes;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::function::Definition;
use crate::domain::job::{Claim, Fence};
use crate::domain::service::ServiceName;
use crate::runner::worker::Worker;
use crate::runner::{Stop, StopSwitch};

/// How long it may take until an outcome is recorded, for slots to go on meanwhile. A processor's death repeats what has
/// ended and is not recorded: where many share a store, that would be more with every call that begins.
const QUICK: Duration = Duration::from_millis(5);

pub(super) use host::HostState;

/// The board.
pub(super) struct DispatchQueue {
    work: Mutex<QueueState>,
    changed: Condvar,
}

/// What is on it.
#[derive(Default)]
pub(super) struct QueueState {
    services: Vec<ServiceQueue>,
    /// Which lane is looked at first, so that none is always last.
    turn: usize,
    /// One for each slot.
    pub(super) slots: Vec<SlotState>,
    /// The program that some calls run in, if there is one.
    pub(super) host: Option<HostState>,
    /// How long the latest outcome took to be recorded.
    recording: Duration,
    /// Whether calls share the output, so that it is passed on in whole lines.
    pub(super) whole_lines: bool,
    /// Whether nothing is to begin any more.
    pub(super) halted: bool,
    pub(super) closed: bool,
}

/// The calls of one service.
struct ServiceQueue {
    service: ServiceName,
    /// What may begin, most urgent first.
    waiting: VecDeque<Claim>,
    /// How many calls may run at once.
    width: usize,
    /// When calls ended whose outcome is neither noted nor recorded yet.
    unrecorded: VecDeque<Instant>,
}

/// What a slot does.
pub(super) struct SlotState {
    /// The calls that it has, and where they belong to.
    fences: VecDeque<Fence>,
    lane: usize,
    /// Whether one that a crash was charged to is among them.
    suspect: bool,
    serving: Option<Serving>,
    /// Those that are to be cancelled, for a worker.
    pub(super) cancels: Vec<Fence>,
    /// What ends what runs in the slot, or makes it look here.
    pub(super) control: Arc<StopSwitch>,
}

/// A worker that a slot feeds.
struct Serving {
    definition: Arc<Definition>,
    site: String,
    /// How many calls it runs at once, once it has said so.
    at_once: Option<usize>,
    /// Whether it gets no more.
    leaves: bool,
}

impl Serving {
    /// The worker for a call, if it needs one; it is to be taken or started.
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
        SlotState { fences: VecDeque::new(), lane: 0, suspect: false, serving: None, cancels: Vec::new(), control }
    }

    fn running(&self) -> usize {
        let at_once = self.serving.as_ref().map_or(1, |serving| serving.at_once.unwrap_or(1));
        self.fences.len().min(at_once)
    }
}

impl DispatchQueue {
    pub(super) fn new() -> DispatchQueue {
        DispatchQueue { work: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn work(&self) -> MutexGuard<'_, QueueState> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for a change.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    /// Waits for a change.
    pub(super) fn wait<'a>(&self, work: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        self.changed.wait(work).unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Whether calls may still begin.
    pub(super) fn is_open(&self) -> bool {
        !self.halted && !self.closed
    }

    /// Lets those who feed workers look here.
    pub(super) fn wake_workers(&self) {
        for seat in self.slots.iter().filter(|seat| seat.serving.is_some()) {
            seat.control.wake_up();
        }
    }

    /// How many calls run.
    pub(super) fn running(&self) -> usize {
        self.slots.iter().map(SlotState::running).sum::<usize>() + self.hosted()
    }

    /// How many calls of a service run.
    pub(super) fn running_of(&self, service: &ServiceName) -> usize {
        self.find(service).map_or(0, |lane| self.running_in(lane))
    }

    /// How many calls of a service have not begun, and do not only wait until their worker has started.
    pub(super) fn stranded_of(&self, service: &ServiceName) -> usize {
        let starting: Vec<&Serving> = self.slots.iter().filter_map(|seat| seat.serving.as_ref()).collect();
        let starts = |claim: &Claim| starting.iter().any(|it| it.at_once.is_none() && it.is_for(claim));
        let waiting = self.find(service).map(|lane| self.services[lane].waiting.iter());
        waiting.into_iter().flatten().filter(|claim| !starts(claim)).count()
    }

    /// How many slots have something to do: one for each call that may run at once. Where a worker runs it, another one for
    /// each that has no call any more, but perhaps a worker to end.
    pub(super) fn useful_slots(&self) -> usize {
        let useful = |(number, lane): (usize, &ServiceQueue)| {
            let in_seats = || self.slots.iter().filter(move |seat| seat.lane == number);
            let busy: usize = in_seats().map(SlotState::running).sum();
            let waiting = lane.waiting.len();
            if in_seats().any(|seat| seat.serving.is_some()) || lane.waiting.iter().any(Claim::is_for_worker) {
                return busy + waiting.min(lane.width);
            }
            busy.max((busy + waiting).min(lane.width.saturating_sub(self.hosted_of(number))))
        };
        self.services.iter().enumerate().map(useful).sum()
    }

    fn running_in(&self, lane: usize) -> usize {
        let in_seats: usize = self.slots.iter().filter(|seat| seat.lane == lane).map(SlotState::running).sum();
        in_seats + self.hosted_of(lane)
    }

    fn find(&self, service: &ServiceName) -> Option<usize> {
        self.services.iter().position(|lane| lane.service == *service)
    }

    fn lane(&mut self, service: &ServiceName) -> usize {
        self.find(service).unwrap_or_else(|| {
            let (waiting, unrecorded) = (VecDeque::new(), VecDeque::new());
            self.services.push(ServiceQueue { service: service.clone(), waiting, width: 0, unrecorded });
            self.services.len() - 1
        })
    }

    /// Adds calls of a service, of which from now on so many may run at once; wakes the workers that may take them.
    pub(super) fn add(&mut self, service: &ServiceName, claims: Vec<Claim>, width: usize) {
        let lane = self.lane(service);
        self.services[lane].waiting.extend(claims);
        self.services[lane].width = width;
        for seat in self.slots.iter().filter(|seat| seat.serving.is_some() && seat.lane == lane) {
            seat.control.wake_up();
        }
        self.call_host();
    }

    /// Whether one more call may begin in a lane.
    fn has_room(&self, lane: usize) -> bool {
        self.room(lane) > 0
    }

    /// How many more calls may begin in a lane.
    fn room(&self, lane: usize) -> usize {
        let ServiceQueue { width, unrecorded, .. } = &self.services[lane];
        let spare = if self.recording < QUICK { *width } else { 0 };
        let busy = self.running_in(lane) + unrecorded.len().saturating_sub(spare);
        if self.is_open() { width.saturating_sub(busy) } else { 0 }
    }

    /// Takes the next call for a slot that has none, if one may begin; says also whether it shares the output.
    pub(super) fn pick(&mut self, slot: usize) -> Option<(Claim, bool)> {
        let count = self.services.len();
        let mut services = (0..count).map(|step| (self.turn + step) % count);
        let (lane, place) = services.find_map(|lane| Some((lane, self.next_in(lane)?)))?;
        self.turn = lane + 1;
        Some((self.take(slot, lane, place)?, self.whole_lines))
    }

    /// The first call of a lane that may begin in a slot that has none. While a worker starts, which may take long, that is one
    /// which is not for it.
    fn next_in(&self, lane: usize) -> Option<usize> {
        let waiting = &self.services[lane].waiting;
        let place = self.first_for_slots(lane).filter(|place| self.has_room_behind_hosted(lane, *place))?;
        let first = &waiting[place];
        if !self.is_for_another(lane, first) {
            return Some(place);
        }
        let mut starting = self.slots.iter().filter_map(|seat| seat.serving.as_ref());
        if !starting.any(|serving| serving.at_once.is_none() && serving.is_for(first)) {
            return None;
        }
        let other = waiting.iter().position(|claim| !self.is_hosted(claim) && !self.is_for_another(lane, claim))?;
        let hosted = waiting.iter().take(other).filter(|claim| self.is_hosted(claim)).count();
        self.has_room_behind_hosted(lane, hosted).then_some(other)
    }

    /// Whether a worker that another slot feeds can take a call, or may turn out to: it is just starting, or its slot is about
    /// to look for the next one.
    fn is_for_another(&self, lane: usize, claim: &Claim) -> bool {
        self.slots.iter().filter(|seat| seat.lane == lane).any(|seat| {
            let Some(serving) = &seat.serving else { return false };
            let spare = serving.at_once.is_none_or(|at_once| seat.fences.len() < at_once);
            spare && !serving.leaves && !seat.suspect && claim.before.crashes == 0 && serving.is_for(claim)
        })
    }

    fn take(&mut self, slot: usize, lane: usize, place: usize) -> Option<Claim> {
        let claim = self.services[lane].waiting.remove(place)?;
        let seat = &mut self.slots[slot];
        if seat.fences.is_empty() {
            seat.suspect = false;
        }
        seat.lane = lane;
        // From the moment on in which the call is taken, so that no other slot starts a second worker for what this one may run.
        seat.serving = seat.serving.take().or_else(|| Serving::begin(&claim));
        seat.suspect |= claim.before.crashes > 0;
        seat.fences.push_back(claim.fence);
        Some(claim)
    }

    /// A slot feeds a worker, which runs so many calls at once, if that is known; or none any more.
    pub(super) fn serve(&mut self, slot: usize, worker: Option<(&Worker, Option<usize>)>) {
        self.slots[slot].serving = worker.map(|(worker, at_once)| {
            let (definition, site) = worker.made_of();
            Serving { definition: Arc::clone(definition), site: site.to_owned(), at_once, leaves: false }
        });
    }

    /// The worker that a slot feeds runs so many calls at once.
    pub(super) fn learn(&mut self, slot: usize, at_once: usize) -> bool {
        let serving = self.slots[slot].serving.as_mut();
        serving.is_some_and(|serving| serving.at_once.replace(at_once) != Some(at_once))
    }

    /// A slot has a call no more.
    pub(super) fn release(&mut self, slot: usize, fence: Fence) {
        let seat = &mut self.slots[slot];
        if let Some(place) = seat.fences.iter().position(|which| *which == fence) {
            seat.fences.remove(place);
        }
        seat.cancels.retain(|which| *which != fence);
        self.call_host();
    }

    /// Puts calls back that were picked and have not begun; the first one was the most urgent.
    pub(super) fn put_back(&mut self, claims: Vec<Claim>) {
        for claim in claims.into_iter().rev() {
            let lane = self.lane(&claim.call.service);
            self.services[lane].waiting.push_front(claim);
        }
    }

    /// A call has ended in a slot that waits until its outcome is recorded.
    pub(super) fn await_record(&mut self, service: &ServiceName) {
        let lane = self.lane(service);
        self.services[lane].unrecorded.push_back(Instant::now());
    }

    /// The outcome of such a call is recorded.
    pub(super) fn recorded(&mut self, service: &ServiceName) {
        let lane = self.lane(service);
        if let Some(ended) = self.services[lane].unrecorded.pop_front() {
            self.recording = ended.elapsed();
        }
        self.call_host();
    }

    /// Takes out what has not begun: all of it, that of a service, or one attempt.
    pub(super) fn take_out(&mut self, which: impl Fn(&Claim) -> bool) -> Vec<Claim> {
        let mut taken = Vec::new();
        for lane in &mut self.services {
            let waiting = std::mem::take(&mut lane.waiting);
            let (out, left): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(&which);
            lane.waiting = left;
            taken.extend(out);
        }
        taken
    }

    /// Asks one attempt to end, if it is running.
    pub(super) fn cancel(&mut self, fence: Fence) {
        for seat in self.slots.iter_mut().filter(|seat| seat.fences.contains(&fence)) {
            // A slot that is just taking a worker hears of it when it has one.
            seat.cancels.push(fence);
            if seat.serving.is_some() {
                seat.control.wake_up();
            } else {
                seat.control.stop(Stop::Cancel);
            }
        }
        self.cancel_in_host(fence);
    }

    /// Asks everything that runs to end.
    pub(super) fn stop(&self, how: Stop) {
        for seat in self.slots.iter().filter(|seat| !seat.fences.is_empty()) {
            seat.control.stop(how);
        }
        if let Some(host) = &self.host {
            host.control.stop(how);
        }
    }
}
