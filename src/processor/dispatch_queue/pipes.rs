//! Which calls are sent to a worker that still runs one, and which wait in the queue for the first free slot.
//!
//! Invariant: no call waits behind another one in a worker while an idle slot could run it, except for calls that the worker
//! has already read. Where calls take long, these are few.

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
        let lane = state.lane;
        let place = self.first_for_slots(lane)?;
        let next = &self.services[lane].waiting[place];
        let alone = state.crashed_before || next.before.crashes > 0;
        // A call that waits in a worker which runs one after another takes no slot of its own.
        let in_turn = room.at_once == 1 && !state.fences.is_empty();
        let may = if in_turn { self.may_wait(slot, room) } else { self.has_room(lane) };
        if alone && !state.fences.is_empty() || !may || !worker(next) {
            return None;
        }
        self.take(slot, lane, place)
    }

    /// Whether one more call may wait in the worker of a slot: not while another slot could run it, nor where the workers of
    /// other slots would lack calls. Calls stay in the queue, except for those that a worker needs to go on without a pause.
    fn may_wait(&self, slot: usize, room: SendLimits) -> bool {
        let SlotState { lane, ref fences, .. } = self.slots[slot];
        if !self.is_open() || self.has_room(lane) {
            return false;
        }
        let ServiceQueue { waiting, width, .. } = &self.services[lane];
        if *width <= 1 {
            return true;
        }
        let in_pipes: usize = self.slots.iter().filter(|slot| slot.lane == lane).map(|slot| slot.fences.len()).sum();
        fences.len() <= room.ahead && (room.are_tiny || fences.len() < (waiting.len() + in_pipes).div_ceil(*width))
    }

    /// The worker of a slot gets no further calls: those that wait are for others.
    pub(in crate::processor) fn leaves(&mut self, slot: usize) {
        if let Some(serving) = &mut self.slots[slot].serving {
            serving.leaves = true;
        }
    }

    /// Whether other slots are idle, and could run the calls that wait in the worker of a slot.
    pub(in crate::processor) fn is_short_of_calls(&self, slot: usize) -> bool {
        let lane = self.slots[slot].lane;
        self.services[lane].waiting.is_empty() && self.has_room(lane)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::call::Call;
    use crate::domain::function::{CallFormat, Definition, FunctionName, WorkerLimits};
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
            generation: 0,
        });
        let claim = |job| Claim {
            fence: Fence { job: JobId(job), attempt: 1, claim: 1, processor: ProcessorId(1) },
            token: Token::from_text("token"),
            call: Call {
                service: service(),
                function: FunctionName::parse("work").unwrap(),
                args: Json::parse("[]").unwrap(),
                kwargs: Json::parse("{}").unwrap(),
                principal: None,
                site: None,
            },
            definition: Arc::clone(&definition),
            before: AttemptCounts::default(),
        };
        (from..from + count).map(claim).collect()
    }

    fn service() -> ServiceName {
        ServiceName::parse("events").unwrap()
    }

    /// A board with slots of which each has a call that its worker runs, and so many calls that wait.
    fn queue(slots: usize, waiting: i64) -> QueueState {
        let mut work = QueueState::default();
        for _ in 0..slots {
            work.slots.push(SlotState::new(Arc::new(StopSwitch::new().unwrap())));
        }
        let running = i64::try_from(slots).unwrap();
        work.add(&service(), claims(1, running + waiting), slots);
        for slot in 0..slots {
            // As if the workers of all others were just starting.
            let lane = 0;
            assert!(work.take(slot, lane, 0).is_some());
            work.learn(slot, 1);
        }
        work
    }

    /// How many calls a slot takes into its pipe.
    fn fill(work: &mut QueueState, slot: usize, ahead: usize) -> usize {
        let next = |work: &mut QueueState| {
            let held = work.slots[slot].fences.len();
            work.pick_more(slot, |_| true, SendLimits { held, at_once: 1, ahead, are_tiny: ahead == TINY })
        };
        std::iter::from_fn(|| next(work)).count()
    }

    #[test]
    fn one_worker_alone_takes_all_that_waits() {
        assert_eq!(fill(&mut queue(1, 40), 0, 0), 40);
    }

    #[test]
    fn several_workers_get_no_more_than_their_share() {
        let mut work = queue(8, 40);
        let taken: Vec<usize> = (0..8).map(|slot| fill(&mut work, slot, NO_END)).collect();
        assert_eq!(taken, [5; 8]);
        let mut work = queue(8, 41);
        assert_eq!(fill(&mut work, 3, NO_END), 6);
        assert_eq!(fill(&mut queue(8, 0), 3, NO_END), 0);
        assert_eq!(fill(&mut queue(8, 40), 3, TINY), TINY);
    }

    #[test]
    fn where_calls_take_long_most_of_them_wait_for_whoever_is_free() {
        let mut work = queue(8, 40);
        let taken: Vec<usize> = (0..8).map(|slot| fill(&mut work, slot, 1)).collect();
        assert_eq!((taken, work.services[0].waiting.len()), (vec![1; 8], 32));
        assert_eq!(fill(&mut queue(8, 40), 3, 0), 0);
    }

    #[test]
    fn nothing_is_taken_into_a_pipe_that_another_slot_could_run() {
        let mut work = queue(2, 10);
        assert_eq!(fill(&mut work, 0, 3), 3);
        assert!(!work.is_short_of_calls(0));
        let ended = work.slots[1].fences[0];
        work.release(1, ended);
        assert_eq!(fill(&mut work, 0, NO_END), 0);
        // The other one has calls to take here, and does not need those in the pipe.
        assert!(!work.is_short_of_calls(0));
        work.take_out(|_| true);
        assert!(work.is_short_of_calls(0));
    }
}
