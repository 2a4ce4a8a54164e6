//! Taking over from the dead.

use std::num::NonZeroU32;

use asyncq::domain::attempt::{Ending, FailureKind, Outcome};
use asyncq::domain::job::State;
use asyncq::domain::needs::Need;
use asyncq::domain::new_job::NewJob;
use asyncq::domain::service::ServiceChange;
use asyncq::store::CycleResult;

use crate::fixture::{call, claim, ends, enqueue, processor, run_cycle, service, state, tokens, with_events};

conformance! {
    fn jobs_go_back_and_the_processor_is_forgotten(store: &mut Store) {
        with_events(store);
        let (first, second) = (enqueue(store, 1), enqueue(store, 2));
        let (dead, alive) = (processor(store, 1), processor(store, 2));
        claim(store, dead);
        let theirs = claim(store, alive);
        let rescued = store.rescue(dead, None, &[]).unwrap();
        assert_eq!(rescued.jobs, [(first, State::Queued)]);
        assert_eq!(state(store, second), State::Processing);
        assert_eq!(store.processors().unwrap().iter().map(|it| it.id).collect::<Vec<_>>(), [alive]);
        assert_eq!(store.service_status(&service("events"), Some(alive)).unwrap().taken, 0);
        let job = store.job(first).unwrap();
        let attempts = store.attempts(&job).unwrap();
        assert_eq!((attempts.len(), attempts[0].ending), (1, Some(Ending::Crash)));
        assert_eq!(attempts[0].error.as_ref().unwrap().kind, FailureKind::Crash);
        assert_eq!(run_cycle(store, alive, &[], 1, 1).claims[0].fence.attempt, 2);
        assert_eq!(theirs.fence.job, second);
        // Once more changes nothing.
        assert!(store.rescue(dead, None, &[]).unwrap().jobs.is_empty());
    }

    fn after_three_crashes_it_is_an_error(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        for (number, expected) in [(1, State::Queued), (2, State::Queued), (3, State::Error)] {
            let dead = processor(store, number);
            claim(store, dead);
            assert_eq!(store.rescue(dead, None, &[]).unwrap().jobs, [(id, expected)]);
        }
        let job = store.job(id).unwrap();
        assert_eq!(job.error.as_ref().unwrap().kind, FailureKind::Crash);
        assert!(job.times.finished_at.is_some());
        assert_eq!(store.attempts(&job).unwrap().len(), 3);
        store.retry(id).unwrap();
        let dead = processor(store, 4);
        claim(store, dead);
        assert_eq!(store.rescue(dead, None, &[]).unwrap().jobs, [(id, State::Queued)]);
    }

    fn what_two_processors_died_of_is_claimed_alone(store: &mut Store) {
        with_events(store);
        let change = ServiceChange { concurrency: NonZeroU32::new(9), ..ServiceChange::default() };
        store.set_service(&service("events"), &change).unwrap();
        let (oldest, younger) = (processor(store, 1), processor(store, 2));
        enqueue(store, 1);
        let before = claim(store, oldest);
        let poison = [enqueue(store, 2), enqueue(store, 3)];
        for number in 3..=4 {
            let dead = processor(store, number);
            assert_eq!(run_cycle(store, dead, &[], 0, 2).claims.len(), 2);
            store.rescue(dead, None, &[]).unwrap();
        }
        let (second, third) = (enqueue(store, 4), enqueue(store, 5));
        for (id, is_poison) in [(poison[0], true), (second, false)] {
            let job = store.job(id).unwrap();
            assert_eq!(store.line(&job).unwrap().is_poison, is_poison);
        }
        let jobs = |run_cycle: &CycleResult| run_cycle.claims.iter().map(|claim| claim.fence.job).collect::<Vec<_>>();
        // Whoever has something in his hands passes them over, unless he is the oldest: then he waits until he has not.
        let passed = run_cycle(store, younger, &[], 1, 1);
        assert_eq!((jobs(&passed), passed.status.ready), (vec![second], true));
        let waits = run_cycle(store, oldest, &[], 1, 3);
        assert_eq!((jobs(&waits), waits.status.ready), (vec![], false));
        let alone = run_cycle(store, oldest, &[&ends(&before, &Outcome::Completed)], 0, 3);
        assert_eq!((jobs(&alone), alone.claims[0].before.crashes, alone.slots), (vec![poison[0]], 2, 1));
        // While one runs, the others are nobody's, even if his hands are empty.
        assert_eq!(jobs(&run_cycle(store, younger, &[], 0, 3)), [third]);
        let end = ends(&alone.claims[0], &Outcome::Completed);
        assert_eq!(jobs(&run_cycle(store, oldest, &[&end], 0, 3)), [poison[1]]);
    }

    fn what_had_not_begun_did_not_crash(store: &mut Store) {
        with_events(store);
        let (first, second) = (enqueue(store, 1), enqueue(store, 2));
        for number in 1..=4 {
            let dead = processor(store, number);
            assert_eq!(run_cycle(store, dead, &[], 0, 2).claims.len(), 2);
            let begun = if number == 4 { vec![second] } else { Vec::new() };
            let back = store.rescue(dead, Some(&begun), &[]).unwrap();
            assert_eq!(back.jobs, [(first, State::Queued), (second, State::Queued)]);
        }
        let job = store.job(first).unwrap();
        assert!(job.counts.attempt == 0 && store.attempts(&job).unwrap().is_empty());
        let job = store.job(second).unwrap();
        assert_eq!(store.attempts(&job).unwrap().len(), 1);
    }

    fn what_was_to_be_cancelled_is(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let dead = processor(store, 1);
        claim(store, dead);
        store.cancel(id).unwrap();
        assert_eq!(store.rescue(dead, None, &[]).unwrap().jobs, [(id, State::Cancelled)]);
        assert!(!store.job(id).unwrap().cancelling);
    }

    fn nested_calls_end_with_their_parents(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let dead = processor(store, 1);
        let parent = claim(store, dead);
        let child = store.begin_nested(&parent.fence, &call(2), &tokens(1)[0]).unwrap();
        let grandchild = store.begin_nested(&child.fence, &call(3), &tokens(1)[0]).unwrap();
        assert_eq!(store.tokens(dead, &[]).unwrap().len(), 3);
        assert_eq!(store.rescue(dead, None, &[]).unwrap().jobs, [(parent.fence.job, State::Queued)]);
        for ended in [&child, &grandchild] {
            let job = store.job(ended.fence.job).unwrap();
            assert_eq!((job.state, job.error.unwrap().kind), (State::Error, FailureKind::Parent));
        }
        assert_eq!(store.finish(&[&ends(&child, &Outcome::Completed)]).unwrap().pop().flatten(), None);
    }

    fn whoever_needs_a_nested_call_learns_that_it_ended_with_its_processor(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let dead = processor(store, 1);
        let parent = claim(store, dead);
        let new = NewJob { parent: Some(parent.fence.job), ..call(2) };
        let child = store.begin_nested(&parent.fence, &new, &tokens(1)[0].inside(&parent.token)).unwrap().fence.job;
        let mut new = call(3);
        new.options.needs.add([child], Need::Completed).unwrap();
        let waits = store.enqueue(&new).unwrap().id();
        // The parent completes itself, and does not end the call.
        let client = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
        let complete = "UPDATE asyncq_job SET state = 'completed' WHERE id = ?1";
        assert_eq!(client.execute(complete, [parent.fence.job.0]).unwrap(), 1);
        store.rescue(dead, None, &[]).unwrap();
        assert_eq!((state(store, child), state(store, waits)), (State::Error, State::Blocked));
        let alive = processor(store, 2);
        run_cycle(store, alive, &[], 0, 0);
        assert_eq!(state(store, waits), State::Cancelled);
    }

    fn what_outlives_its_processor_stays_with_its_slots(store: &mut Store) {
        with_events(store);
        let change = ServiceChange { concurrency: NonZeroU32::new(3), ..ServiceChange::default() };
        store.set_service(&service("events"), &change).unwrap();
        let dead = processor(store, 1);
        let jobs: Vec<_> = (1..=3).map(|number| enqueue(store, number)).collect();
        let claims = run_cycle(store, dead, &[], 0, 3).claims;
        let inner = claims[0].token.inside(&claims[0].token);
        store.begin_nested(&claims[0].fence, &call(4), &inner).unwrap();
        assert_eq!(store.tokens(dead, &jobs[..1]).unwrap(), [claims[1].token.clone(), claims[2].token.clone()]);
        let rescued = store.rescue(dead, Some(&jobs[..2]), &jobs[..1]).unwrap();
        assert_eq!((rescued.jobs, rescued.held), (vec![(jobs[1], State::Queued), (jobs[2], State::Queued)], vec![jobs[0]]));
        let other = processor(store, 2);
        assert_eq!(store.service_status(&service("events"), Some(other)).unwrap().taken, 1);
        assert!(store.running(jobs[0], &claims[0].token).unwrap().is_some());
        assert_eq!(store.job(jobs[0]).unwrap().state, State::Processing);
        let rescued = store.rescue(dead, Some(&jobs), &[]).unwrap();
        assert_eq!((rescued.jobs, rescued.held), (vec![(jobs[0], State::Queued)], vec![]));
        assert_eq!(store.processors().unwrap().iter().map(|it| it.id).collect::<Vec<_>>(), [other]);
    }
}
