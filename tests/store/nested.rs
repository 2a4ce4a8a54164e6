//! Calls inside running jobs.

use asyncq::Kind;
use asyncq::domain::attempt::{FailureKind, Outcome};
use asyncq::domain::job::{JobId, NewJob, State, Token};
use asyncq::domain::retry::decide_once;

use crate::fixture::{
    call, claim, ends, enqueue, function, new_processor, processor, run_cycle, service, tokens, with_events,
};

conformance! {
    fn only_the_token_of_the_running_attempt_counts(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let running = store.running(id, &claim.token).unwrap().unwrap();
        assert_eq!((running.fence, running.depth, running.site), (claim.fence, 0, None));
        assert_eq!(running.principal.unwrap().as_str(), "the principal");
        assert_eq!(running.folder, new_processor(1).folder);
        for (job, token) in [(id, Token::from_text("forged")), (id, tokens(1)[0].clone()), (JobId(9), claim.token.clone())] {
            assert!(store.running(job, &token).unwrap().is_none());
        }
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert!(store.running(id, &claim.token).unwrap().is_none());
    }

    fn a_nested_call_is_recorded_as_a_child(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let parent = claim(store, processor);
        let new = NewJob { parent: Some(parent.fence.job), ..call(2) };
        let token = tokens(1)[0].clone();
        let child = store.begin_nested(&parent.fence, &new, &token).unwrap();
        assert_eq!(child.call, new.call);
        let running = store.running(child.fence.job, &token).unwrap().unwrap();
        assert_eq!((running.depth, running.folder), (1, new_processor(1).folder));
        // It takes no slot.
        assert_eq!(store.service_status(&service("events"), None).unwrap().taken, 1);
        let mut end = ends(&child, &Outcome::Completed);
        end.decision = decide_once(&Outcome::Conflict(None), 1);
        assert_eq!(store.finish(&[&end]).unwrap().pop().flatten(), Some(State::Error));
        let job = store.job(child.fence.job).unwrap();
        assert_eq!((job.immediate, job.parent, job.counts.attempt), (true, Some(parent.fence.job), 1));
        assert_eq!(job.error.unwrap().kind, FailureKind::Conflict);
        assert_eq!(store.retry(child.fence.job).unwrap_err().kind(), Kind::Denied);
    }

    fn it_needs_a_function_and_a_parent_that_still_runs(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let parent = claim(store, processor);
        let mut unknown = call(2);
        unknown.call.function = function("unknown");
        assert_eq!(store.begin_nested(&parent.fence, &unknown, &tokens(1)[0]).unwrap_err().kind(), Kind::NotFound);
        run_cycle(store, processor, &[&ends(&parent, &Outcome::Completed)], 0, 0);
        assert_eq!(store.begin_nested(&parent.fence, &call(2), &tokens(1)[0]).unwrap_err().kind(), Kind::Denied);
        assert_eq!(store.cancel(JobId(2)).unwrap_err().kind(), Kind::NotFound);
    }

    fn it_can_be_32_deep(store: &mut Store) {
        with_events(store);
        enqueue(store, 0);
        let processor = processor(store, 1);
        let mut inside = claim(store, processor).fence;
        for number in 1..=32 {
            let new = NewJob { parent: Some(inside.job), ..call(number) };
            inside = store.begin_nested(&inside, &new, &tokens(1)[0]).unwrap().fence;
        }
        assert_eq!(store.begin_nested(&inside, &call(33), &tokens(1)[0]).unwrap_err().kind(), Kind::Denied);
    }

    fn a_parent_that_ends_takes_its_calls_with_it(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let parent = claim(store, processor);
        let inside = |fence: asyncq::domain::job::Fence| NewJob { parent: Some(fence.job), ..call(2) };
        let child = store.begin_nested(&parent.fence, &inside(parent.fence), &tokens(1)[0]).unwrap();
        let grandchild = store.begin_nested(&child.fence, &inside(child.fence), &tokens(1)[0]).unwrap();
        assert_eq!(store.cancel(child.fence.job).unwrap_err().kind(), Kind::Denied);
        run_cycle(store, processor, &[&ends(&parent, &Outcome::Interrupted)], 0, 0);
        for ended in [&child, &grandchild] {
            let job = store.job(ended.fence.job).unwrap();
            assert_eq!((job.state, job.error.unwrap().kind), (State::Error, FailureKind::Parent));
            assert!(job.times.finished_at.is_some());
        }
    }
}
