//! Rates of services, by the verbs of the store.

use std::num::NonZeroU32;

use asyncq::domain::rate::Rate;
use asyncq::domain::service::ServiceChange;
use asyncq::store::Store;

use crate::fixture::{enqueue, give_back, processor, run_cycle, service, with_events};

fn limit(store: &mut Store, rate: Option<&str>, burst: u32) {
    let rate = rate.map(|rate| Rate::parse(rate).unwrap().with_burst(burst));
    let change = ServiceChange { rate: Some(rate), concurrency: NonZeroU32::new(9), ..ServiceChange::default() };
    store.set_service(&service("events"), &change).unwrap();
}

conformance! {
    fn no_more_calls_are_claimed_than_the_rate_lets_start(store: &mut Store) {
        with_events(store);
        limit(store, Some("2/h"), 3);
        let [one, two] = [1, 2].map(|number| processor(store, number));
        for number in 0..5 {
            enqueue(store, number);
        }
        let first = run_cycle(store, one, &[], 0, 2);
        assert_eq!((first.claims.len(), first.slots), (2, 2));
        assert!(first.status.ready && first.status.waits_for_rate().is_none());
        // What is left is one, whoever takes it; the slots stay with the one that waits.
        let second = run_cycle(store, two, &[], 0, 5);
        assert_eq!((second.claims.len(), second.slots), (1, 5));
        let next = second.status.waits_for_rate().unwrap();
        assert!((1_799_000..=1_800_000).contains(&(next.0 - second.status.now.0)), "{next:?}");
        assert!(store.service_status(&service("events"), None).unwrap().waits_for_rate().is_some());
        // A call that goes back gives nothing back of the rate.
        let back = give_back(store, two, &second.claims[0]);
        assert!(back.claims.is_empty() && back.status.waits_for_rate().is_some());
        limit(store, None, 1);
        let rest = run_cycle(store, two, &[], 0, 9);
        assert_eq!((rest.claims.len(), rest.status.ready, rest.status.allowance), (3, false, None));
    }

    fn a_service_without_calls_keeps_no_slots_for_its_rate(store: &mut Store) {
        with_events(store);
        limit(store, Some("1/h"), 1);
        let one = processor(store, 1);
        enqueue(store, 1);
        let first = run_cycle(store, one, &[], 0, 3);
        assert_eq!((first.claims.len(), first.slots, first.status.waits_for_rate()), (1, 1, None));
    }
}
