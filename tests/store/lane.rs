//! Lanes, and calls that need others, by the verbs of the store.

use std::num::NonZeroU32;

use asyncq::Kind;
use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::job::{JobId, State};
use asyncq::domain::job_edit::JobEdit;
use asyncq::domain::lane::Lane;
use asyncq::domain::needs::{Blockers, Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, NewJob, Priority};
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter};
use asyncq::domain::service::ServiceChange;
use asyncq::store::Store;

use crate::fixture::{call, ends, enqueue, processor, run_cycle, service, state, wide, with_events};

fn in_lane(store: &mut Store, number: i64, lane: &str) -> JobId {
    let options = CallOptions { lane: Some(Lane::parse(lane).unwrap()), ..CallOptions::default() };
    store.enqueue(&NewJob { options, ..call(number) }).unwrap().id()
}

fn after(store: &mut Store, number: i64, jobs: &[JobId], need: Need) -> JobId {
    let mut needs = Needs::default();
    needs.add(jobs.iter().copied(), need).unwrap();
    store.enqueue(&NewJob { options: CallOptions { needs, ..CallOptions::default() }, ..call(number) }).unwrap().id()
}

fn states<const N: usize>(store: &mut Store, ids: [JobId; N]) -> [State; N] {
    ids.map(|id| state(store, id))
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1"))
}

/// Claims one call, and ends it so.
fn run_one(store: &mut Store, processor: ProcessorId, outcome: &Outcome) -> JobId {
    let claims = run_cycle(store, processor, &[], 0, 1).claims;
    run_cycle(store, processor, &[&ends(&claims[0], outcome)], 0, 0);
    claims[0].fence.job
}

conformance! {
    fn who_leaves_a_lane_lets_out_the_next(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let [a, b, c] = [1, 2, 3].map(|number| in_lane(store, number, "x"));
        assert_eq!(states(store, [a, b, c]), [State::Queued, State::Blocked, State::Blocked]);
        assert_eq!(store.blocked_by(c).unwrap(), Blockers::Lane(vec![a]));
        // Claimed, put back and claimed again, it is still the head.
        let claims = run_cycle(store, processor, &[], 0, 2).claims;
        assert_eq!(claims.iter().map(|claim| claim.fence.job).collect::<Vec<_>>(), [a]);
        assert_eq!(states(store, [a, b, c]), [State::Processing, State::Blocked, State::Blocked]);
        // A conflict pauses and leaves the lane.
        run_cycle(store, processor, &[&ends(&claims[0], &Outcome::Conflict(Conflict::default()))], 0, 0);
        assert_eq!(states(store, [a, b, c]), [State::Delayed, State::Queued, State::Blocked]);
        store.cancel(b).unwrap();
        assert_eq!(states(store, [a, b, c]), [State::Delayed, State::Cancelled, State::Queued]);
        // Queued again, it gets in line.
        store.retry(b).unwrap();
        assert_eq!(states(store, [b, c]), [State::Blocked, State::Queued]);
        store.unregister(processor).unwrap();
    }

    fn a_wider_service_lets_out_more_calls_of_a_lane(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let [a, b] = [1, 2].map(|number| in_lane(store, number, "x"));
        let wide = ServiceChange { lane_width: NonZeroU32::new(2), ..ServiceChange::default() };
        assert_eq!(store.set_service(&service("events"), &wide).unwrap().lane_width.get(), 2);
        assert_eq!(states(store, [a, b]), [State::Queued, State::Blocked]);
        let c = in_lane(store, 3, "x");
        assert_eq!(states(store, [a, b, c]), [State::Queued, State::Queued, State::Blocked]);
        for expected in [a, b, c] {
            assert_eq!(run_one(store, processor, &Outcome::Completed), expected);
        }
        assert_eq!(states(store, [a, b, c]), [State::Completed; 3]);
    }

    fn a_processor_that_dies_leaves_the_head_of_a_lane_where_it_was(store: &mut Store) {
        with_events(store);
        let dead = processor(store, 1);
        let [a, b] = [1, 2].map(|number| in_lane(store, number, "x"));
        assert_eq!(run_cycle(store, dead, &[], 0, 1).claims[0].fence.job, a);
        store.rescue(dead, None, &[]).unwrap();
        assert_eq!(states(store, [a, b]), [State::Queued, State::Blocked]);
        // The third death ends it, and lets out the next.
        for number in 2..4 {
            let dead = processor(store, number);
            assert_eq!(run_cycle(store, dead, &[], 0, 1).claims[0].fence.job, a);
            store.rescue(dead, None, &[]).unwrap();
        }
        assert_eq!(states(store, [a, b]), [State::Error, State::Queued]);
    }

    fn a_call_waits_for_all_that_it_needs(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let first = store.enqueue(&call(1)).unwrap().id();
        let second = store.enqueue(&call(2)).unwrap().id();
        let both = after(store, 3, &[first, second], Need::Completed);
        assert_eq!(store.blocked_by(both).unwrap(), Blockers::Needs(vec![first, second]));
        assert_eq!(run_one(store, processor, &Outcome::Completed), first);
        assert_eq!((state(store, both), store.blocked_by(both).unwrap()), (State::Blocked, Blockers::Needs(vec![second])));
        assert_eq!(run_one(store, processor, &Outcome::Completed), second);
        assert_eq!(state(store, both), State::Queued);
    }

    fn a_failure_goes_down_the_chain_and_comes_back_with_a_retry(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let first = store.enqueue(&call(1)).unwrap().id();
        let second = after(store, 2, &[first], Need::Completed);
        let third = after(store, 3, &[second], Need::Completed);
        let cleanup = after(store, 4, &[third], Need::Failed);
        run_one(store, processor, &failed());
        let ended = [State::Error, State::Cancelled, State::Cancelled, State::Queued];
        assert_eq!(states(store, [first, second, third, cleanup]), ended);
        assert_eq!(store.job(second).unwrap().error.unwrap().kind, FailureKind::Needs);
        assert_eq!(store.unmet_need(first).unwrap(), None);
        assert_eq!(store.unmet_need(third).unwrap(), Some((second, Need::Completed)));
        assert_eq!(store.unmet_need(cleanup).unwrap(), None);
        assert_eq!(store.retry(first).unwrap(), 2);
        assert_eq!(states(store, [first, second, third]), [State::Queued, State::Blocked, State::Blocked]);
        // The first is due when it was queued again, after the cleanup.
        for expected in [cleanup, first, second, third] {
            assert_eq!(run_one(store, processor, &Outcome::Completed), expected);
        }
    }

    fn a_call_that_needs_two_failed_jobs_is_revived_by_the_second_retry(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let first = store.enqueue(&call(1)).unwrap().id();
        let second = store.enqueue(&call(2)).unwrap().id();
        let both = after(store, 3, &[first, second], Need::Completed);
        run_one(store, processor, &failed());
        run_one(store, processor, &failed());
        assert_eq!(state(store, both), State::Cancelled);
        assert_eq!((store.retry(first).unwrap(), state(store, both)), (0, State::Cancelled));
        assert_eq!((store.retry(second).unwrap(), state(store, both)), (1, State::Blocked));
    }

    fn a_call_is_revived_by_the_last_retry_of_what_it_needs_in_any_order(store: &mut Store) {
        with_events(store);
        let [last_first, first_last, mixed] = [0, 1, 2].map(|order| {
            let ids: Vec<JobId> = (0..9).map(|number| enqueue(store, number)).collect();
            let then = after(store, 9, &ids, Need::Completed);
            for id in &ids {
                store.cancel(*id).unwrap();
            }
            let by = |at: usize| ids[[8 - at, at, at * 4 % 9][order]];
            let revived: Vec<u64> = (0..9).map(|at| store.retry(by(at)).unwrap()).collect();
            assert_eq!(state(store, then), State::Blocked);
            revived
        });
        let by_the_last = [0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!([last_first, first_last, mixed], [by_the_last; 3]);
        // One that has failed again since, before the job that was the reason the last time, is seen.
        let [one, two, three] = [1, 2, 3].map(|number| enqueue(store, number));
        let then = after(store, 4, &[one, two, three], Need::Completed);
        for id in [one, two, three] {
            store.cancel(id).unwrap();
        }
        assert_eq!([one, two].map(|id| store.retry(id).unwrap()), [0, 0]);
        store.cancel(one).unwrap();
        assert_eq!((store.retry(three).unwrap(), state(store, then)), (0, State::Cancelled));
        assert_eq!((store.retry(one).unwrap(), state(store, then)), (1, State::Blocked));
    }

    fn a_retry_of_many_revives_what_needs_them_all(store: &mut Store) {
        with_events(store);
        let many: Vec<NewJob> = (1..=2000).map(call).collect();
        let then = store.enqueue_all_then(&many, &call(2001)).unwrap()[2000].id();
        let change = |store: &mut Store, change, states: &[State]| {
            let filter = JobFilter { states: states.to_vec(), ..JobFilter::default() };
            store.change_many(&BulkChange { change, filter, before: None, dry_run: false }, JobId(0)).unwrap()
        };
        assert_eq!(change(store, JobChange::Cancel, &[State::Queued]).changed, 2000);
        assert_eq!(state(store, then), State::Cancelled);
        // One step leaves the call itself out.
        assert_eq!(change(store, JobChange::Retry, &[State::Cancelled]).changed, 2000);
        assert_eq!(state(store, then), State::Blocked);
    }

    fn a_call_is_revived_after_all_that_are_revived_before_it(store: &mut Store) {
        with_events(store);
        let [first, other] = [1, 2].map(|number| enqueue(store, number));
        let middle: Vec<JobId> = (3..=100).map(|number| after(store, number, &[first], Need::Completed)).collect();
        let chained = after(store, 101, &[middle[0]], Need::Completed);
        let last = after(store, 102, &[&middle[..], &[chained]].concat(), Need::Completed);
        let too_much = after(store, 103, &[last, other], Need::Completed);
        store.cancel(first).unwrap();
        assert_eq!(states(store, [middle[97], chained, last, too_much]), [State::Cancelled; 4]);
        store.cancel(other).unwrap();
        assert_eq!(store.retry(first).unwrap(), 100);
        assert_eq!(states(store, [middle[97], chained, last, too_much]), [State::Blocked, State::Blocked, State::Blocked, State::Cancelled]);
        assert_eq!(store.retry(other).unwrap(), 1);
        assert_eq!(state(store, too_much), State::Blocked);
    }

    fn many_calls_that_need_one_job_are_told_in_steps(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let first = store.enqueue(&call(1)).unwrap().id();
        let mut needs = Needs::default();
        needs.add([first], Need::Completed).unwrap();
        let options = CallOptions { needs, ..CallOptions::default() };
        let many: Vec<NewJob> = (0..2500).map(|number| NewJob { options: options.clone(), ..call(number) }).collect();
        let ids: Vec<JobId> = store.enqueue_all(&many).unwrap().iter().map(|done| done.id()).collect();
        let queued = |store: &mut Store| {
            let states = store.states(&ids).unwrap();
            states.iter().filter(|state| **state == Some(State::Queued)).count()
        };
        assert_eq!(run_one(store, processor, &Outcome::Completed), first);
        assert_eq!(queued(store), 1000);
        // A job whose end is not known to all cannot be removed.
        let clean = asyncq::domain::query::BulkChange {
            change: asyncq::domain::query::JobChange::Remove,
            filter: asyncq::domain::query::JobFilter { states: vec![State::Completed], ..Default::default() },
            before: None, dry_run: false,
        };
        let _ = store.change_many(&clean, JobId(0));
        assert_eq!(state(store, first), State::Completed);
        assert!(store.service_status(&service("events"), None).unwrap().ready);
        // Each transaction tells some more, also one that would remove it.
        assert_eq!(queued(store), 2000);
        run_cycle(store, processor, &[], 0, 0);
        assert_eq!(queued(store), 2500);
        assert_eq!(store.change_many(&clean, JobId(0)).unwrap().changed, 1);
    }

    fn a_call_that_is_set_leaves_its_lane_to_the_next(store: &mut Store) {
        with_events(store);
        let [a, b, c] = [1, 2, 3].map(|number| in_lane(store, number, "x"));
        let set = |store: &mut Store, id, edit: &JobEdit| store.set(id, edit).unwrap();
        let lane = |lane: Option<&str>| Some(lane.map(|lane| Lane::parse(lane).unwrap()));
        assert_eq!(set(store, a, &JobEdit { lane: lane(Some("y")), ..JobEdit::default() }), State::Queued);
        assert_eq!(states(store, [b, c]), [State::Queued, State::Blocked]);
        let later = Some(Due::In(std::time::Duration::from_secs(60)));
        assert_eq!(set(store, b, &JobEdit { due: later, ..JobEdit::default() }), State::Delayed);
        assert_eq!(state(store, c), State::Queued);
        // Due again, it gets in line.
        assert_eq!(set(store, b, &JobEdit { due: Some(Due::Now), ..JobEdit::default() }), State::Blocked);
        assert_eq!(set(store, c, &JobEdit { hold: true, lane: lane(None), ..JobEdit::default() }), State::Held);
        assert_eq!(state(store, b), State::Queued);
        assert_eq!(store.job(c).unwrap().options.lane, None);
        store.cancel(b).unwrap();
        assert_eq!(store.set(b, &JobEdit { hold: true, ..JobEdit::default() }).unwrap_err().kind(), Kind::Denied);
    }

    fn what_keeps_a_call_is_counted(store: &mut Store) {
        with_events(store);
        let events = service("events");
        assert_eq!((store.last_end(&events).unwrap(), store.first_priority(&events).unwrap()), (None, None));
        let processor = processor(store, 1);
        let lane = [1, 2, 3].map(|number| in_lane(store, number, "x"));
        let before = lane.map(|id| {
            let job = store.job(id).unwrap();
            store.before_in_lane(&job).unwrap()
        });
        assert_eq!(before, [0, 0, 1]);
        let options = CallOptions { priority: Priority::new(-7).unwrap(), ..CallOptions::default() };
        let first = store.enqueue(&NewJob { options, ..call(4) }).unwrap().id();
        assert_eq!(store.first_priority(&events).unwrap(), Some(-7));
        let claims = run_cycle(store, processor, &[], 0, 1).claims;
        let running = store.running_jobs(&events).unwrap();
        assert_eq!(running.iter().map(|job| (job.id, job.timeout)).collect::<Vec<_>>(), [(first, Some(7001))]);
        run_cycle(store, processor, &[&ends(&claims[0], &Outcome::Completed)], 0, 0);
        assert_eq!(store.last_end(&events).unwrap(), store.job(first).unwrap().times.finished_at);
        assert!(store.running_jobs(&events).unwrap().is_empty());
        // No upgrade has left older processors.
        assert_eq!(store.newest_older().unwrap(), Some(ProcessorId(0)));
    }

    fn a_call_runs_after_thousands_of_others(store: &mut Store) {
        with_events(store);
        store.set_service(&service("events"), &wide(NonZeroU32::new(1000).unwrap())).unwrap();
        let processor = processor(store, 1);
        let many: Vec<NewJob> = (0..12_000).map(call).collect();
        let mut ids: Vec<JobId> = store.enqueue_all(&many).unwrap().iter().map(|done| done.id()).collect();
        let last = store.enqueue_after_all(&call(1), &ids).unwrap().id();
        let together = store.enqueue_all_then(&[call(1), call(2)], &call(3)).unwrap();
        assert_eq!((together.len(), state(store, together[2].id())), (3, State::Blocked));
        assert_eq!(store.job(last).unwrap().options.after.as_deref(), Some(format!("[[1,{}]]", ids.len()).as_str()));
        assert_eq!(state(store, last), State::Blocked);
        // One fails, and all others complete.
        assert_eq!(run_one(store, processor, &failed()), ids.remove(0));
        assert_eq!(state(store, last), State::Cancelled);
        assert_eq!(store.retry(JobId(1)).unwrap(), 1);
        let mut waiting: Vec<_> = Vec::new();
        loop {
            let ended: Vec<_> = waiting.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
            waiting = run_cycle(store, processor, &ended.iter().collect::<Vec<_>>(), 0, 500).claims;
            if waiting.is_empty() {
                break;
            }
        }
        assert_eq!([state(store, last), state(store, together[2].id())], [State::Completed; 2]);
    }
}
