//! Calls that expire, by the verbs of the store.

use std::time::Duration;

use asyncq::domain::attempt::{Conflict, FailureKind, Outcome};
use asyncq::domain::job::{JobId, State};
use asyncq::domain::lane::Lane;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, Expiry, NewJob};
use asyncq::domain::time::Timestamp;
use asyncq::store::Store;

use crate::fixture::{call, claim, ends, enqueue, processor, run_cycle, service, state, with_events};

const PAST: Timestamp = Timestamp(1_600_000_000_000);
const FUTURE: Timestamp = Timestamp(4_102_444_800_000);

fn expires(at: Timestamp) -> CallOptions {
    CallOptions { expires: Some(Expiry::At(at)), ..CallOptions::default() }
}

fn add(store: &mut Store, new: &NewJob) -> JobId {
    store.enqueue(new).unwrap().id()
}

conformance! {
    fn whatever_waits_expires(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let good = enqueue(store, 1);
        let lane = Some(Lane::parse("x").unwrap());
        let head = add(store, &NewJob { options: CallOptions { lane: lane.clone(), ..expires(PAST) }, ..call(2) });
        let second = add(store, &NewJob { options: CallOptions { lane: lane.clone(), ..CallOptions::default() }, ..call(3) });
        let third = add(store, &NewJob { options: CallOptions { lane, ..expires(PAST) }, ..call(4) });
        let delayed = add(store, &NewJob { due: Due::At(FUTURE), options: expires(PAST), ..call(5) });
        let held = add(store, &NewJob { hold: true, options: expires(PAST), ..call(6) });
        let mut needs = Needs::default();
        needs.add([good], Need::Completed).unwrap();
        let needing = add(store, &NewJob { options: CallOptions { needs, ..expires(PAST) }, ..call(7) });
        let mut needs = Needs::default();
        needs.add([needing], Need::Completed).unwrap();
        let dependent = add(store, &NewJob { options: CallOptions { needs, ..expires(FUTURE) }, ..call(8) });

        assert_eq!(store.service_status(&service("events"), None).unwrap().expires, Some(PAST));
        let cycle = run_cycle(store, processor, &[], 0, 3);
        let claimed: Vec<JobId> = cycle.claims.iter().map(|claim| claim.fence.job).collect();
        // The lane has let out the next one.
        assert_eq!(claimed, [good, second]);
        assert_eq!(cycle.status.expires, None);
        for id in [head, third, delayed, held, needing] {
            let job = store.job(id).unwrap();
            assert_eq!((job.state, job.error.unwrap().kind), (State::Cancelled, FailureKind::Expired));
            assert!(job.times.finished_at.is_some());
        }
        let dependent = store.job(dependent).unwrap();
        assert_eq!((dependent.state, dependent.error.unwrap().kind), (State::Cancelled, FailureKind::Needs));
    }

    fn what_is_to_be_tried_again_expires_and_what_runs_does_not(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let job = add(store, &NewJob { options: CallOptions { expires: Some(Expiry::In(Duration::from_millis(400))), ..CallOptions::default() }, ..call(1) });
        let Some(claim) = run_cycle(store, processor, &[], 0, 1).claims.pop() else {
            // On a machine that is so busy, it has expired already.
            return assert_eq!(state(store, job), State::Cancelled);
        };
        assert_eq!(claim.expires_at, store.job(job).unwrap().options.expires_at);
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(run_cycle(store, processor, &[], 1, 1).status.expires, None);
        assert_eq!(state(store, job), State::Processing);
        let pause = Conflict { pause: Some(Duration::from_secs(1)), reported: None };
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Conflict(pause))], 0, 1);
        let job = store.job(job).unwrap();
        assert_eq!((job.state, job.error.unwrap().kind, job.counts.attempt), (State::Cancelled, FailureKind::Expired, 1));
        // Tried again by hand, it runs.
        store.retry(job.id).unwrap();
        assert_eq!(crate::fixture::claim(store, processor).fence.job, job.id);
    }

    fn many_expire_in_steps_and_none_of_them_begins(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let mut calls: Vec<NewJob> = (0..1500).map(|number| NewJob { options: expires(PAST), ..call(number) }).collect();
        calls.push(call(1500));
        let ids = store.enqueue_all(&calls).unwrap();
        let first = run_cycle(store, processor, &[], 0, 10);
        assert!(first.claims.is_empty() && first.status.ready && first.status.expires == Some(PAST));
        let good = claim(store, processor).fence.job;
        assert_eq!(good, ids[1500].id());
        assert!(ids[..1500].iter().all(|id| state(store, id.id()) == State::Cancelled));
    }
}
