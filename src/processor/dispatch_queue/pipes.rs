//! Which calls are sent ahead to a worker that still runs one, and which wait in the queue for the first free slot.
//!
//! Invariant: no call waits in a worker while an idle slot could run it, except for calls that the worker has already read. There
//! are few of these if calls take long.

use super::{QueueState, ServiceQueue, SlotState};
use crate::domain::job::Claim;
use crate::runner::worker::SendLimits;

impl QueueState {
    /// Takes the next call for the worker of a slot, within the limits of what to send it.
    pub(in crate::processor) fn pick_more(
        &mut self,
        slot: usize,
        worker: impl Fn(&Claim) -> bool,
        room: SendLimits,
    ) -> Option<Claim> {
        let state = &self.slots[slot];
        let index = state.service;
        let place = self.first_for_slots(index)?;
        let next = &self.services[index].waiting[place];
        let alone = state.crashed_before || next.before.crashes > 0;
        // A call that waits in a worker takes no slot, if that worker runs one call after another.
        let in_turn = room.at_once == 1 && !state.fences.is_empty();
        // A call that may expire while it waits is not sent ahead.
        let may = if in_turn && next.expires_at.is_some() {
            false
        } else if in_turn {
            self.may_wait(slot, room)
        } else {
            self.has_room(index)
        };
        if alone && !state.fences.is_empty() || !may || !worker(next) {
            return None;
        }
        self.take(slot, index, place)
    }

    /// Whether one more call may wait in the worker of a slot. It may not if another slot could run it, or if the workers of other
    /// slots would run out of calls. All other calls stay in the queue, except for as many as the worker needs to go on without a
    /// pause.
    fn may_wait(&self, slot: usize, room: SendLimits) -> bool {
        let SlotState { service: index, ref fences, .. } = self.slots[slot];
        if !self.is_open() || self.has_room(index) {
            return false;
        }
        let ServiceQueue { waiting, width, .. } = &self.services[index];
        if *width <= 1 {
            return true;
        }
        let with_workers: usize =
            self.slots.iter().filter(|slot| slot.service == index).map(|slot| slot.fences.len()).sum();
        fences.len() <= room.ahead && (room.are_tiny || fences.len() < (waiting.len() + with_workers).div_ceil(*width))
    }

    /// The worker of a slot gets no further calls, so its waiting calls are free for others.
    pub(in crate::processor) fn leaves(&mut self, slot: usize) {
        if let Some(serving) = &mut self.slots[slot].serving {
            serving.leaves = true;
        }
    }

    /// Whether other slots are idle, and could run the calls that wait in the worker of a slot.
    pub(in crate::processor) fn is_short_of_calls(&self, slot: usize) -> bool {
        let index = self.slots[slot].service;
        self.services[index].waiting.is_empty() && self.has_room(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::call::Call;
    use crate::domain::function::{CallFormat, Definition, FunctionName, FunctionPolicy, Inputs, WorkerLimits};
    use crate::domain::job::{Fence, JobId, Token};
    use crate::domain::json::Json;
    use crate::domain::processor::ProcessorId;
    use crate::domain::retry::AttemptCounts;
    use crate::domain::service::ServiceName;
    use crate::runner::StopSwitch;

    const NO_END: usize = usize::MAX;
    const TINY: usize = 20;

    fn claims(from: i64, count: i64) -> Vec<Claim> {
        let definition = Arc::new(Definition {
            command: vec!["./work".to_owned()],
            site: "/".to_owned(),
            env: BTreeMap::new(),
            timeout: None,
            worker: Some(WorkerLimits::default()),
            call_format: CallFormat::default(),
            inputs: Inputs::default(),
            policy: FunctionPolicy::default(),
            generation: 0,
        });
        let claim = |job| Claim {
            fence: Fence { job: JobId(job), attempt: 1, claim: 1, processor: ProcessorId(1), tied: false },
            token: Token::from_text("token"),
            call: Call::new(
                service(),
                FunctionName::parse("work").unwrap(),
                Json::parse("[]").unwrap(),
                Json::parse("{}").unwrap(),
            ),
            definition: Arc::clone(&definition),
            before: AttemptCounts::default(),
            expires_at: None,
            meta: None,
            tick: None,
        };
        (from..from + count).map(claim).collect()
    }

    fn service() -> ServiceName {
        ServiceName::parse("events").unwrap()
    }

    /// A queue with slots that each have a call which their worker runs, and with calls that wait.
    fn queue(slots: usize, waiting: i64) -> QueueState {
        let mut state = QueueState::default();
        for _ in 0..slots {
            state.slots.push(SlotState::new(Arc::new(StopSwitch::new().unwrap())));
        }
        let running = i64::try_from(slots).unwrap();
        state.add(&service(), claims(1, running + waiting), slots);
        for slot in 0..slots {
            // As if the workers of all others were just starting.
            assert!(state.take(slot, 0, 0).is_some());
            state.learn(slot, 1);
        }
        state
    }

    /// How many calls a slot sends to its worker.
    fn fill(state: &mut QueueState, slot: usize, ahead: usize) -> usize {
        let next = |state: &mut QueueState| {
            let held = state.slots[slot].fences.len();
            state.pick_more(slot, |_| true, SendLimits { held, at_once: 1, ahead, are_tiny: ahead == TINY })
        };
        std::iter::from_fn(|| next(state)).count()
    }

    #[test]
    fn one_worker_alone_takes_all_waiting_calls() {
        assert_eq!(fill(&mut queue(1, 40), 0, 0), 40);
    }

    #[test]
    fn several_workers_get_no_more_than_their_share() {
        let mut state = queue(8, 40);
        let taken: Vec<usize> = (0..8).map(|slot| fill(&mut state, slot, NO_END)).collect();
        assert_eq!(taken, [5; 8]);
        let mut state = queue(8, 41);
        assert_eq!(fill(&mut state, 3, NO_END), 6);
        assert_eq!(fill(&mut queue(8, 0), 3, NO_END), 0);
        assert_eq!(fill(&mut queue(8, 40), 3, TINY), TINY);
    }

    #[test]
    fn calls_that_take_long_wait_for_the_first_free_slot() {
        let mut state = queue(8, 40);
        let taken: Vec<usize> = (0..8).map(|slot| fill(&mut state, slot, 1)).collect();
        assert_eq!((taken, state.services[0].waiting.len()), (vec![1; 8], 32));
        assert_eq!(fill(&mut queue(8, 40), 3, 0), 0);
    }

    #[test]
    fn a_worker_gets_no_call_that_another_slot_could_run() {
        let mut state = queue(2, 10);
        assert_eq!(fill(&mut state, 0, 3), 3);
        assert!(!state.is_short_of_calls(0));
        let ended = state.slots[1].fences[0];
        state.release(1, ended);
        assert_eq!(fill(&mut state, 0, NO_END), 0);
        // The other one has calls to take here, and does not need those of the first worker.
        assert!(!state.is_short_of_calls(0));
        state.take_out(|_| true);
        assert!(state.is_short_of_calls(0));
    }
}
