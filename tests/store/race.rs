//! Verbs of two writers that interleave.

use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use asyncq::Kind;
use asyncq::domain::attempt::{Failure, FailureKind, Outcome};
use asyncq::domain::call::Key;
use asyncq::domain::job::{Claim, JobId, State};
use asyncq::domain::new_job::{Enqueued, NewJob};
use asyncq::domain::query::{BulkChange, JobChange, JobFilter};
use asyncq::domain::service::ServiceChange;
use asyncq::store::{Cycle, Location, Step, Store};
use rusqlite::config::DbConfig;
use support::place::wait_until;

use crate::fixture::{
    again, call, claim, ends, enqueue, processor, run_cycle, service, sqlite, state, tokens, with_events,
};

/// Whether somebody in this process waits for a turn to write.
fn waits(write_queue: &Path) -> bool {
    let Ok(queue) = write_queue.metadata() else { return false };
    std::fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{} ", queue.ino()))
}

/// Runs a verb while another writer has the store, who commits `sql` only when the verb has looked and wants to write.
fn after_a_look<T: Send>(store: &mut Store, sql: &str, verb: impl FnOnce(&mut Store) -> T + Send) -> T {
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let folder = store.run_folder();
    std::fs::create_dir_all(&folder).unwrap();
    let writer = rusqlite::Connection::open(path).unwrap();
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    writer.execute_batch(&format!("BEGIN IMMEDIATE; {sql}")).unwrap();
    std::thread::scope(|scope| {
        let verb = scope.spawn(|| verb(store));
        wait_until("the verb waits for its turn to write", || waits(&folder.join(".line")));
        writer.execute_batch("COMMIT").unwrap();
        verb.join().unwrap()
    })
}

fn change(store: &mut Store, change: JobChange, states: &[State]) -> Step {
    let filter = JobFilter { states: states.to_vec(), ..JobFilter::default() };
    store.change_many(&BulkChange { change, filter, before: None, dry_run: false }, JobId(0)).unwrap()
}

const WAITING: [State; 3] = [State::Held, State::Delayed, State::Queued];

/// So few that each is changed by a statement of its own, and so many that they are changed in sets of two sizes.
const COUNTS: [i64; 2] = [5, 90];

#[test]
fn a_job_that_was_claimed_or_ended_since_the_look_is_not_cancelled() {
    sqlite(|store| {
        with_events(store);
        for count in COUNTS {
            let ids: Vec<_> = (0..count).map(|number| enqueue(store, number)).collect();
            let meanwhile = format!(
                "UPDATE asyncq_job SET state = 'completed', finished_at = 7 WHERE id = {};
                UPDATE asyncq_job SET state = 'processing', token = 'x', processor = 8 WHERE id = {}",
                ids[1], ids[3]
            );
            let step = after_a_look(store, &meanwhile, |store| change(store, JobChange::Cancel, &WAITING));
            assert_eq!((step.changed, step.refused), (count.unsigned_abs() - 2, None));
            let states: Vec<_> = ids.iter().map(|id| state(store, *id)).collect();
            assert_eq!(
                states[..5],
                [State::Cancelled, State::Completed, State::Cancelled, State::Processing, State::Cancelled]
            );
            assert!(states[5..].iter().all(|state| *state == State::Cancelled));
        }
    });
}

#[test]
fn a_job_that_was_queued_again_since_the_look_is_not_retried_or_removed() {
    sqlite(|store| {
        with_events(store);
        for what in [JobChange::Retry, JobChange::Remove] {
            for count in COUNTS {
                let ids: Vec<_> = (0..count).map(|number| enqueue(store, number)).collect();
                change(store, JobChange::Cancel, &WAITING);
                let meanwhile =
                    format!("UPDATE asyncq_job SET state = 'held', finished_at = NULL WHERE id = {}", ids[2]);
                let step = after_a_look(store, &meanwhile, |store| change(store, what.clone(), &[State::Cancelled]));
                assert_eq!((step.changed, step.refused), (count.unsigned_abs() - 1, None));
                assert_eq!(state(store, ids[2]), State::Held);
                change(store, JobChange::Cancel, &WAITING);
                change(store, JobChange::Remove, &JobChange::Remove.states());
            }
        }
    });
}

#[test]
fn a_job_that_has_ended_once_more_since_the_look_is_not_removed() {
    sqlite(|store| {
        with_events(store);
        for count in COUNTS {
            let ids: Vec<_> = (0..count).map(|number| enqueue(store, number)).collect();
            change(store, JobChange::Cancel, &WAITING);
            let meanwhile = format!("UPDATE asyncq_job SET finished_at = finished_at + 1000 WHERE id = {}", ids[4]);
            let step = after_a_look(store, &meanwhile, |store| change(store, JobChange::Remove, &[State::Cancelled]));
            assert_eq!((step.changed, step.refused), (count.unsigned_abs() - 1, None));
            assert_eq!(state(store, ids[4]), State::Cancelled);
            change(store, JobChange::Remove, &JobChange::Remove.states());
        }
    });
}

#[test]
fn a_job_that_was_started_since_the_look_is_not_started_again() {
    sqlite(|store| {
        with_events(store);
        for count in COUNTS {
            let held = |number| NewJob { hold: true, ..call(number) };
            let ids: Vec<_> = (0..count).map(|number| store.enqueue(&held(number)).unwrap().id()).collect();
            let meanwhile = format!("UPDATE asyncq_job SET state = 'error', finished_at = 9 WHERE id = {}", ids[0]);
            let step = after_a_look(store, &meanwhile, |store| change(store, JobChange::Start, &[State::Held]));
            assert_eq!((step.changed, step.refused), (count.unsigned_abs() - 1, None));
            assert_eq!((state(store, ids[0]), state(store, ids[1])), (State::Error, State::Queued));
            change(store, JobChange::Cancel, &WAITING);
        }
    });
}

conformance! {
    fn scattered_jobs_that_end_together_are_each_recorded_once(store: &mut Store) {
        with_events(store);
        let concurrency = NonZeroU32::new(200);
        store.set_service(&service("events"), &ServiceChange { concurrency, ..ServiceChange::default() }).unwrap();
        let mut other = again(store);
        let (one, two) = (processor(store, 1), processor(&mut other, 2));
        let ids: Vec<_> = (0..150).map(|number| enqueue(store, number)).collect();
        let (mut mine, mut theirs): (Vec<Claim>, Vec<Claim>) = (Vec::new(), Vec::new());
        for running in 0..75 {
            mine.extend(run_cycle(store, one, &[], running, 1).claims);
            theirs.extend(run_cycle(&mut other, two, &[], running, 1).claims);
        }
        let mut finished: Vec<_> = mine.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
        // One has gone back since, one was taken over by the other processor, and one says something.
        other.finish(&[&ends(&mine[10], &Outcome::Interrupted)]).unwrap();
        finished[20].fence.processor = two;
        finished[30] = ends(&mine[30], &Outcome::Failed(Failure::new(FailureKind::Exit, "no")));
        let told = store.finish(&finished.iter().collect::<Vec<_>>()).unwrap();
        for (number, told) in told.into_iter().enumerate() {
            let (expected, now) = match number {
                10 => (None, State::Queued),
                20 => (None, State::Processing),
                30 => (Some(State::Error), State::Error),
                _ => (Some(State::Completed), State::Completed),
            };
            assert_eq!((told, state(store, ids[2 * number])), (expected, now), "{number}");
        }
        for claim in &theirs {
            assert_eq!(state(store, claim.fence.job), State::Processing);
        }
        assert_eq!(store.finish(&finished.iter().collect::<Vec<_>>()).unwrap(), vec![None; 75]);
    }

    fn a_processor_that_was_declared_dead_claims_nothing(store: &mut Store) {
        with_events(store);
        let mut other = again(store);
        let dead = processor(store, 1);
        let id = enqueue(store, 1);
        let lost = claim(store, dead);
        other.rescue(dead, None, &[]).unwrap();
        let (service, tokens) = (service("events"), tokens(1));
        let end = ends(&lost, &Outcome::Completed);
        let plan = Cycle { finished: &[&end], tokens: &tokens, ..Cycle::of(dead, &service) };
        assert_eq!(store.run_cycle(&plan).unwrap_err().kind(), Kind::Denied);
        assert_eq!(state(store, id), State::Queued);
        let alive = processor(&mut other, 2);
        assert_eq!(claim(&mut other, alive).fence.attempt, 2);
    }

    fn one_key_makes_one_job_whoever_comes_first(store: &mut Store) {
        with_events(store);
        let mut other = again(store);
        let keyed = |number: i64| NewJob { key: Some(Key::parse(&format!("key {number}")).unwrap()), ..call(number) };
        let enqueue_all = |store: &mut Store| (0..50).map(|number| store.enqueue(&keyed(number)).unwrap()).collect::<Vec<_>>();
        let (mine, theirs) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| enqueue_all(&mut other));
            (enqueue_all(store), theirs.join().unwrap())
        });
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            assert_eq!(mine.id(), theirs.id());
            assert!(matches!((mine, theirs), (Enqueued::New(_), Enqueued::Same(_)) | (Enqueued::Same(_), Enqueued::New(_))));
        }
    }
}
