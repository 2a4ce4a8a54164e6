//! Calls inside running jobs.

use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::{Conflict, Ending, Failure, FailureKind, Outcome};
use asyncq::domain::call::Call;
use asyncq::domain::job::{Finish, JobId, State, Token};
use asyncq::domain::json::Json;
use asyncq::domain::nested::{NestedCall, NestedCalls};
use asyncq::domain::new_job::NewJob;
use asyncq::domain::query::{JobFilter, JobQuery};
use asyncq::domain::retry::decide_once;

use crate::fixture::{
    call, claim, ends, enqueue, function, log, new_processor, processor, run_cycle, service, tokens, with_events,
};

/// A call that a worker reports, which took 7 milliseconds.
fn reported(args: &str, outcome: &Outcome) -> NestedCall {
    let (args, kwargs) = (Json::parse(args).unwrap(), Json::parse("{}").unwrap());
    let call = Call::new(service("events"), function("inner"), args, kwargs);
    let (outcome, took) = (outcome.clone(), Duration::from_millis(7));
    NestedCall { call, parent: None, depth: 0, outcome, result: None, took }
}

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
        end.decision = decide_once(&Outcome::Conflict(Conflict::default()), 1);
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

    fn what_a_worker_reports_is_recorded_with_the_end_of_the_attempt(store: &mut Store) {
        with_events(store);
        let job = enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let failed = Outcome::Failed(Failure { class: Some("shop.Late".to_owned()), ..Failure::new(FailureKind::Error, "no") });
        let met = Outcome::Conflict(Conflict::default());
        let long = format!("[\"{}\"]", "x".repeat(3000));
        let mut nested = NestedCalls::default();
        for (depth, args, outcome) in
            [(1, "[1]", &Outcome::Completed), (2, &*long, &failed), (3, "[3]", &met), (1, "[4]", &Outcome::Completed)]
        {
            nested.add(depth, Some(reported(args, outcome)));
        }
        let end = Finish { nested: Some(Box::new(nested)), ..ends(&claim, &Outcome::Completed) };
        assert_eq!(store.finish(&[&end, &end]).unwrap(), [Some(State::Completed), None]);
        let jobs: Vec<_> = (1..=4).map(|number| store.job(JobId(job.0 + number)).unwrap()).collect();
        let parents: Vec<i64> = jobs.iter().map(|job| job.parent.unwrap().0 - claim.fence.job.0).collect();
        assert_eq!(parents, [0, 1, 2, 0]);
        let states: Vec<State> = jobs.iter().map(|job| job.state).collect();
        assert_eq!(states, [State::Completed, State::Error, State::Error, State::Completed]);
        assert_eq!((jobs[1].call.args.as_str(), jobs[1].error.as_ref()), (&*long, decide_once(&failed, 1).error.as_ref()));
        assert_eq!((jobs[1].counts.failures, jobs[2].counts.conflicts), (1, 1));
        let own = store.job(job).unwrap();
        for inner in &jobs {
            assert_eq!((inner.immediate, inner.counts.attempt, inner.call.principal.clone()), (true, 1, own.call.principal.clone()));
            assert_eq!(inner.times.finished_at, own.times.finished_at);
            assert_eq!(inner.times.finished_at.unwrap().since(inner.times.created_at).as_millis(), 7);
        }
        let endings: Vec<Ending> =
            jobs.iter().map(|job| store.attempts(job).unwrap().pop().unwrap().ending.unwrap()).collect();
        assert_eq!(endings, [Ending::Completed, Ending::Error, Ending::Conflict, Ending::Completed]);
        assert!(store.jobs(&JobQuery::default()).unwrap().jobs.len() == 5);
    }

    fn what_is_not_recorded_is_counted_with_the_attempt(store: &mut Store) {
        with_events(store);
        enqueue(store, 0);
        let processor = processor(store, 1);
        let parent = claim(store, processor);
        let mut inside = parent.fence;
        for number in 1..=31 {
            let new = NewJob { parent: Some(inside.job), ..call(number) };
            inside = store.begin_nested(&inside, &new, &tokens(1)[0]).unwrap().fence;
        }
        let mut nested = NestedCalls::default();
        // The second one would be 33 deep.
        for depth in [1, 2, 3, 1] {
            nested.add(depth, Some(reported("[]", &Outcome::Completed)));
        }
        nested.leave_out(5);
        let end = Finish { fence: inside, nested: Some(Box::new(nested)), ..ends(&parent, &Outcome::Completed) };
        store.finish(&[&end]).unwrap();
        let job = store.job(inside.job).unwrap();
        let attempts = store.attempts(&job).unwrap();
        assert_eq!((attempts.len(), attempts[0].ending, attempts[0].unrecorded), (1, Some(Ending::Completed), 7));
        let filter = JobFilter { parent: Some(inside.job), ..JobFilter::default() };
        assert_eq!(store.jobs(&JobQuery { filter, ..JobQuery::default() }).unwrap().jobs.len(), 2);
        let mut end = Finish { nested: Some(Box::default()), ..ends(&parent, &Outcome::Completed) };
        end.nested.as_mut().unwrap().leave_out(u64::MAX);
        end.log = log();
        store.finish(&[&end]).unwrap();
        let job = store.job(parent.fence.job).unwrap();
        let attempts = store.attempts(&job).unwrap();
        assert_eq!((attempts.len(), attempts[0].unrecorded, attempts[0].log_bytes), (1, i64::MAX, 18));
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
