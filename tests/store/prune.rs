//! Jobs are removed that are older than their service keeps them.

use std::time::Duration;

use asyncq::domain::attempt::{Failure, FailureKind, Outcome};
use asyncq::domain::job::{JobId, State};
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, NewJob};
use asyncq::domain::pause::Pause;
use asyncq::domain::query::JobQuery;
use asyncq::domain::retention::RetentionChange;
use asyncq::domain::service::ServiceChange;
use asyncq::store::{Location, Pruned, Store};
use rusqlite::Connection;

use crate::fixture::{call, claim, ends, enqueue, processor, run_cycle, service, with_events};

const HOUR: Duration = Duration::from_secs(3600);

fn execute(store: &Store, sql: &str) {
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let as_asyncq =
        format!("UPDATE asyncq_schema SET version = -version; {sql}; UPDATE asyncq_schema SET version = -version");
    Connection::open(path).unwrap().execute_batch(&as_asyncq).unwrap();
}

fn keep(store: &mut Store, ended: Option<Duration>, errors: Option<Duration>) {
    let retention = RetentionChange { ended: Some(ended), errors: Some(errors) };
    store.set_service(&service("events"), &ServiceChange { retention, ..ServiceChange::default() }).unwrap();
}

fn jobs(store: &mut Store) -> Vec<i64> {
    let page = store.jobs(&JobQuery::default()).unwrap();
    let mut numbers: Vec<i64> = page.jobs.iter().map(|job| job.id.0).collect();
    numbers.reverse();
    numbers
}

/// Makes everything in the store older.
fn age(store: &Store, by: Duration) {
    let millis = by.as_millis();
    execute(
        store,
        &format!(
            "UPDATE asyncq_job SET created_at = created_at - {millis}, run_at = run_at - {millis},
                finished_at = finished_at - {millis};
            UPDATE asyncq_schema SET pruned_at = pruned_at - {millis}, clock = clock - {millis}"
        ),
    );
}

/// Steps until a round is over.
fn prune(store: &mut Store, most: u16) -> u64 {
    let mut removed = 0;
    loop {
        let step = store.prune(most).unwrap();
        removed += step.removed;
        if !step.more {
            return removed;
        }
    }
}

/// Ends jobs: the first completes, the second fails, the third is cancelled.
fn end_three(store: &mut Store) {
    let processor = processor(store, 1);
    for number in 1..=3 {
        enqueue(store, number);
    }
    for outcome in [Outcome::Completed, Outcome::Failed(Failure::new(FailureKind::Exit, "no"))] {
        let claim = claim(store, processor);
        run_cycle(store, processor, &[&ends(&claim, &outcome)], 0, 0);
    }
    store.cancel(JobId(3)).unwrap();
    store.unregister(processor).unwrap();
}

conformance! {
    fn what_a_service_does_not_keep_is_removed(store: &mut Store) {
        with_events(store);
        end_three(store);
        enqueue(store, 4);
        age(store, HOUR * 3);
        assert_eq!(prune(store, 100), 0);
        keep(store, Some(HOUR * 4), Some(HOUR));
        assert_eq!((prune(store, 100), jobs(store)), (1, vec![1, 3, 4]));
        // The next round is not due yet.
        age(store, Duration::from_secs(1));
        assert_eq!((prune(store, 100), jobs(store)), (0, vec![1, 3, 4]));
        // The round before has passed these; a later one comes back to them.
        age(store, HOUR * 24);
        assert_eq!((prune(store, 100), jobs(store)), (2, vec![4]));
        // Other times have it start over.
        enqueue(store, 5);
        store.cancel(JobId(5)).unwrap();
        keep(store, Some(HOUR * 20), None);
        assert_eq!(prune(store, 100), 0);
        age(store, HOUR * 2);
        keep(store, Some(HOUR), None);
        assert_eq!((prune(store, 100), jobs(store)), (1, vec![4]));
        assert_eq!(store.job(JobId(4)).unwrap().state, State::Queued);
    }

    fn errors_stay_for_ever_without_a_time_of_their_own(store: &mut Store) {
        with_events(store);
        end_three(store);
        keep(store, Some(HOUR), None);
        age(store, HOUR * 1000);
        assert_eq!((prune(store, 1), jobs(store)), (2, vec![2]));
    }

    fn a_round_ends_at_the_first_job_that_is_too_young(store: &mut Store) {
        with_events(store);
        end_three(store);
        age(store, HOUR * 3);
        let processor = processor(store, 2);
        enqueue(store, 4);
        let claim = claim(store, processor);
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        keep(store, Some(HOUR), Some(HOUR));
        assert_eq!(store.prune(2).unwrap(), Pruned { removed: 2, more: true });
        assert_eq!(store.prune(2).unwrap(), Pruned { removed: 1, more: false });
        assert_eq!(jobs(store), [4]);
        // It went on from there, and comes to the last one in time.
        age(store, HOUR * 2);
        assert_eq!((prune(store, 2), jobs(store)), (1, vec![]));
    }

    fn a_round_of_a_clock_that_was_ahead_puts_off_no_other(store: &mut Store) {
        with_events(store);
        end_three(store);
        keep(store, Some(HOUR), Some(HOUR));
        assert_eq!(prune(store, 100), 0);
        age(store, HOUR * 3);
        enqueue(store, 4);
        store.cancel(JobId(4)).unwrap();
        // As if the clock had been ten hours ahead until now, and had been set back.
        let ahead = (HOUR * 13).as_millis();
        execute(store, &format!("UPDATE asyncq_schema SET pruned_at = pruned_at + {ahead}, clock = clock + {ahead}"));
        assert_eq!((prune(store, 100), jobs(store)), (3, vec![4]));
        // By less than the time between two rounds, too.
        let (past, ahead) = ((HOUR * 2).as_millis(), Duration::from_secs(30).as_millis());
        execute(
            store,
            &format!(
                "UPDATE asyncq_job SET created_at = created_at - {past}, finished_at = finished_at - {past};
                UPDATE asyncq_schema SET pruned_at = pruned_at + {ahead}"
            ),
        );
        assert_eq!((prune(store, 100), jobs(store)), (1, vec![]));
    }

    fn a_job_that_ended_by_a_clock_that_was_ahead_stays_until_it_is_old(store: &mut Store) {
        with_events(store);
        end_three(store);
        keep(store, Some(HOUR), Some(HOUR));
        let ahead = (HOUR * 10).as_millis();
        execute(store, &format!("UPDATE asyncq_job SET finished_at = finished_at + {ahead} WHERE id = 2"));
        age(store, HOUR * 3);
        assert_eq!((prune(store, 100), jobs(store)), (2, vec![2]));
        age(store, HOUR * 24);
        assert_eq!((prune(store, 100), jobs(store)), (1, vec![]));
    }

    fn a_job_that_others_need_is_removed_when_they_know_how_it_ended(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let mut needs = Needs::default();
        needs.add([JobId(1)], Need::Failed).unwrap();
        store.enqueue(&NewJob { options: CallOptions { needs, ..CallOptions::default() }, ..call(2) }).unwrap();
        keep(store, Some(HOUR), Some(HOUR));
        let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
        let client = Connection::open(path).unwrap();
        client.execute_batch("UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1").unwrap();
        assert_eq!(store.job(JobId(2)).unwrap().state, State::Blocked);
        age(store, HOUR * 3);
        assert_eq!((prune(store, 100), jobs(store)), (1, vec![2]));
        assert_eq!(store.job(JobId(2)).unwrap().state, State::Queued);
    }

    fn nothing_is_removed_in_a_pause_of_the_store(store: &mut Store) {
        with_events(store);
        end_three(store);
        keep(store, Some(HOUR), Some(HOUR));
        age(store, HOUR * 3);
        store.set_pause(Some(&Pause::default())).unwrap();
        assert_eq!(prune(store, 100), 0);
        store.set_pause(None).unwrap();
        assert_eq!((prune(store, 100), jobs(store)), (3, vec![]));
    }
}
