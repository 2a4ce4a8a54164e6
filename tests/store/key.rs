//! Keys with a lifetime, by the verbs of the store.

use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::{Conflict, Outcome};
use asyncq::domain::call::Key;
use asyncq::domain::job::{JobId, State};
use asyncq::domain::lane::Lane;
use asyncq::domain::new_job::{CallOptions, Due, Enqueued, Expiry, IfTaken, KeyUntil, NewJob};
use asyncq::domain::time::Timestamp;
use asyncq::store::Store;

use crate::fixture::{call, claim, ends, enqueue, processor, run_cycle, service, state, two, wide, with_events};

const LATER: Timestamp = Timestamp(4_102_444_800_000);

fn keyed(number: i64, until: KeyUntil, if_taken: IfTaken) -> NewJob {
    let options = CallOptions { key_until: Some(until), if_taken, ..CallOptions::default() };
    NewJob { key: Some(Key::parse("k").unwrap()), options, ..call(number) }
}

fn args(store: &mut Store, id: i64) -> String {
    store.job(JobId(id)).unwrap().call.args
}

fn key(store: &mut Store, id: i64) -> Option<String> {
    store.job(JobId(id)).unwrap().options.key
}

conformance! {
    fn of_the_calls_with_a_key_until_started_one_waits(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let new = |number| keyed(number, KeyUntil::Started, IfTaken::Keep);
        assert_eq!(store.enqueue(&new(1)).unwrap(), Enqueued::New(JobId(1)));
        assert_eq!(store.enqueue(&new(2)).unwrap(), Enqueued::Same(JobId(1)));
        assert_eq!(args(store, 1), "[1]");
        let running = claim(store, processor);
        assert_eq!((running.fence.job, key(store, 1)), (JobId(1), None));
        assert_eq!(store.enqueue(&new(3)).unwrap(), Enqueued::New(JobId(2)));
        // A retry has no key any longer.
        let conflict = Outcome::Conflict(Conflict { pause: Some(Duration::from_secs(60)), reported: None });
        run_cycle(store, processor, &[&ends(&running, &conflict)], 0, 0);
        assert_eq!((key(store, 1), key(store, 2).as_deref()), (None, Some("k")));
        // Nor has a call that was cancelled before it began.
        store.cancel(JobId(2)).unwrap();
        assert_eq!(store.enqueue(&new(4)).unwrap(), Enqueued::New(JobId(3)));
    }

    fn of_the_calls_with_a_key_until_ended_one_waits_or_runs(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let new = |number| keyed(number, KeyUntil::Ended, IfTaken::Keep);
        store.enqueue(&new(1)).unwrap();
        let running = claim(store, processor);
        assert_eq!(store.enqueue(&new(2)).unwrap(), Enqueued::Same(JobId(1)));
        for if_taken in [IfTaken::Replace, IfTaken::Postpone] {
            let refused = store.enqueue(&keyed(3, KeyUntil::Ended, if_taken)).unwrap_err();
            assert_eq!((refused.kind(), refused.to_string().as_str()), (Kind::Busy, "job 1, which has the key `k`, is running"));
            assert_eq!(refused.hint(), Some("with --key-until started a second call could wait"));
        }
        let conflict = Outcome::Conflict(Conflict { pause: Some(Duration::from_secs(60)), reported: None });
        run_cycle(store, processor, &[&ends(&running, &conflict)], 0, 0);
        let refused = store.enqueue(&keyed(3, KeyUntil::Ended, IfTaken::Replace)).unwrap_err();
        assert_eq!(refused.to_string(), "job 1, which has the key `k`, is to be tried again");
        store.cancel(JobId(1)).unwrap();
        assert_eq!(store.enqueue(&new(4)).unwrap(), Enqueued::New(JobId(2)));
        let running = claim(store, processor);
        run_cycle(store, processor, &[&ends(&running, &Outcome::Completed)], 0, 0);
        assert_eq!(store.enqueue(&new(5)).unwrap(), Enqueued::New(JobId(3)));
    }

    fn the_latest_arguments_win(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let new = |number| NewJob { due: Due::At(LATER), ..keyed(number, KeyUntil::Started, IfTaken::Replace) };
        store.enqueue(&NewJob { due: Due::Now, ..new(1) }).unwrap();
        assert_eq!(store.enqueue(&new(2)).unwrap(), Enqueued::Same(JobId(1)));
        let job = store.job(JobId(1)).unwrap();
        assert_eq!((job.call.args.as_str(), job.state), ("[2]", State::Queued));
        // Large ones stand elsewhere.
        let mut large = new(3);
        large.call.args = asyncq::domain::json::Json::parse(&format!("[\"{}\"]", "x".repeat(5000))).unwrap();
        for _ in 0..2 {
            store.enqueue(&large).unwrap();
            assert_eq!(args(store, 1).len(), 5004);
        }
        store.enqueue(&new(4)).unwrap();
        assert_eq!(args(store, 1), "[4]");
        assert_eq!(claim(store, processor).call.args.as_str(), "[4]");
    }

    fn a_call_is_put_off_while_others_come(store: &mut Store) {
        with_events(store);
        let new = |due, number| NewJob { due, ..keyed(number, KeyUntil::Started, IfTaken::Postpone) };
        store.enqueue(&new(Due::Now, 1)).unwrap();
        for (due, then) in [(Due::At(LATER), State::Delayed), (Due::Now, State::Queued), (Due::In(Duration::from_secs(9)), State::Delayed)] {
            assert_eq!(store.enqueue(&new(due, 2)).unwrap(), Enqueued::Same(JobId(1)));
            assert_eq!(state(store, JobId(1)), then);
        }
        assert_eq!(args(store, 1), "[2]");
        let mut expiring = new(Due::Now, 2);
        expiring.options.expires = Some(Expiry::At(LATER));
        store.enqueue(&expiring).unwrap();
        assert_eq!(store.job(JobId(1)).unwrap().options.expires_at, Some(LATER));
        store.enqueue(&NewJob { hold: true, ..keyed(3, KeyUntil::Started, IfTaken::Keep) }).unwrap();
        store.cancel(JobId(1)).unwrap();
        store.enqueue(&NewJob { hold: true, ..keyed(3, KeyUntil::Started, IfTaken::Keep) }).unwrap();
        store.enqueue(&new(Due::At(LATER), 3)).unwrap();
        assert_eq!((state(store, JobId(2)), store.job(JobId(2)).unwrap().times.run_at), (State::Held, LATER));
    }

    fn a_call_that_is_put_off_leaves_its_lane_to_the_next(store: &mut Store) {
        with_events(store);
        store.set_service(&service("events"), &wide(two())).unwrap();
        let lane = Some(Lane::parse("x").unwrap());
        let mut first = keyed(1, KeyUntil::Started, IfTaken::Postpone);
        first.options.lane.clone_from(&lane);
        store.enqueue(&first).unwrap();
        let options = CallOptions { lane, ..CallOptions::default() };
        let second = store.enqueue(&NewJob { options, ..call(2) }).unwrap().id();
        assert_eq!(state(store, second), State::Blocked);
        first.due = Due::At(LATER);
        store.enqueue(&first).unwrap();
        assert_eq!((state(store, JobId(1)), state(store, second)), (State::Delayed, State::Queued));
        first.due = Due::Now;
        store.enqueue(&first).unwrap();
        assert_eq!((state(store, JobId(1)), state(store, second)), (State::Blocked, State::Queued));
        first.due = Due::At(LATER);
        store.enqueue(&first).unwrap();
        assert_eq!(state(store, JobId(1)), State::Delayed);
        enqueue(store, 3);
    }

    fn a_key_stands_for_one_function_one_principal_and_one_site(store: &mut Store) {
        with_events(store);
        let new = keyed(1, KeyUntil::Started, IfTaken::Replace);
        store.enqueue(&new).unwrap();
        let mut other = keyed(2, KeyUntil::Started, IfTaken::Replace);
        other.call.principal = None;
        let refused = store.enqueue(&other).unwrap_err();
        assert_eq!((refused.kind(), refused.to_string().as_str()), (Kind::Denied, "key `k` belongs to job 1, which is another call"));
        // Without a lifetime, it stands for the same arguments, too.
        let plain = NewJob { key: Some(Key::parse("k").unwrap()), ..call(2) };
        assert_eq!(store.enqueue(&plain).unwrap_err().kind(), Kind::Denied);
        assert_eq!(args(store, 1), "[1]");
        // One that waits is in nobody's way, in a batch either.
        let done = store.enqueue_each(&[other, new.clone(), call(3)]).unwrap();
        assert!(done[0].is_err() && matches!(done[1], Ok(Enqueued::Same(JobId(1)))) && done[2].is_ok());
    }
}
