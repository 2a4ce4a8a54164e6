//! Jobs: enqueueing, reading, and what is done by hand.

use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::{Failure, FailureKind, Outcome};
use asyncq::domain::call::{Key, Principal, positional};
use asyncq::domain::job::{Fence, JobId, NewJob, State};
use asyncq::store::{Cancelled, CleanQuery, Enqueued, IfWaiting, JobQuery};

use crate::fixture::{advance, call, claim, ends, enqueue, function, processor, service, state, two, with_events};

fn failed() -> Outcome {
    Outcome::Failed(Failure { exit_code: Some(3), ..Failure::new(FailureKind::Exit, "exit code 3") })
}

conformance! {
    fn everything_is_kept(store: &mut Store) {
        with_events(store);
        let new = NewJob { key: Some(Key::parse("the key").unwrap()), parent: Some(JobId(77)), ..call(5) };
        let id = store.enqueue(&new).unwrap().id();
        let job = store.job(id).unwrap();
        assert_eq!((job.service.as_str(), job.function.as_str()), ("events", "compute"));
        assert_eq!((job.args.as_str(), job.kwargs.as_str()), ("[5]", r#"{"key":"word"}"#));
        assert_eq!((job.principal.as_deref(), job.os_user.as_deref()), (Some("the principal"), Some("the user")));
        assert_eq!((job.site.as_deref(), job.key.as_deref()), (Some("/the/site"), Some("the key")));
        assert_eq!((job.state, job.immediate, job.parent, job.attempt), (State::Queued, false, Some(JobId(77)), 0));
        assert_eq!((job.started_at, job.finished_at, &job.result, &job.error), (None, None, &None, &None));
        assert!(job.created_at == job.run_at && !job.cancelling && job.priority == 0);
        assert!(store.attempts(&job).unwrap().is_empty());
    }

    fn large_arguments_are_kept_whole(store: &mut Store) {
        with_events(store);
        let mut new = call(0);
        new.call.args = positional(&["x".repeat(500_000), "\u{1f600}".repeat(1000)]).unwrap();
        let id = store.enqueue(&new).unwrap().id();
        assert_eq!(store.job(id).unwrap().args, new.call.args.as_str());
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!(claim.call.unwrap(), new.call);
    }

    fn unknown_names_are_refused_with_a_suggestion(store: &mut Store) {
        with_events(store);
        let mut new = call(1);
        new.call.function = function("compuet");
        let error = store.enqueue(&new).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "service `events` has no function `compuet`"));
        assert!(error.way_out().unwrap().starts_with("did you mean `compute`?"));
        new.call.service = service("evens");
        let error = store.enqueue(&new).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "there is no service `evens`"));
        assert!(store.jobs(&JobQuery::default()).unwrap().is_empty());
    }

    fn calls_that_come_together_are_enqueued_together_or_not_at_all(store: &mut Store) {
        with_events(store);
        let keyed = |number| NewJob { key: Some(Key::parse("k").unwrap()), ..call(number) };
        let mut large = NewJob { hold: true, ..call(0) };
        large.call.args = positional(&["x".repeat(5000)]).unwrap();
        let done = store.enqueue_all(&[keyed(1), large.clone(), keyed(1)]).unwrap();
        assert_eq!(done, [Enqueued::New(JobId(1)), Enqueued::New(JobId(2)), Enqueued::Same(JobId(1))]);
        let job = store.job(JobId(2)).unwrap();
        assert_eq!((job.state, job.args.as_str()), (State::Held, large.call.args.as_str()));
        assert!(store.enqueue_all(&[]).unwrap().is_empty());
        // What is known to be there is as durable as what is new.
        assert_eq!(store.enqueue_all(&[keyed(1)]).unwrap(), [Enqueued::Same(JobId(1))]);

        let mut unknown = call(9);
        unknown.call.function = function("compuet");
        for (calls, at, kind) in [
            ([call(5), keyed(2), unknown.clone()], 1, Kind::Denied),
            ([call(5), call(6), unknown.clone()], 2, Kind::NotFound),
        ] {
            let refused = store.enqueue_all(&calls).unwrap_err();
            assert_eq!((refused.call, refused.error.kind()), (Some(at), kind));
        }
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().len(), 2);
    }

    fn how_far_a_call_is_stands_there_while_it_runs(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let told = |store: &mut asyncq::store::Store| store.job(id).unwrap().progress;
        assert_eq!(told(store), None);
        let stale = Fence { attempt: 7, ..claim.fence };
        for (fence, text, shown) in
            [(claim.fence, "1 of 3", "1 of 3"), (claim.fence, "2 of 3", "2 of 3"), (stale, "late", "2 of 3")]
        {
            store.tell_progress(processor, &[(fence, text.to_owned())]).unwrap();
            assert_eq!(told(store).as_deref(), Some(shown));
        }
        advance(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!(told(store), None);
        store.tell_progress(processor, &[(claim.fence, "late".to_owned())]).unwrap();
        assert_eq!(told(store), None);
        store.unregister(processor).unwrap();
    }

    fn a_key_stands_for_one_call(store: &mut Store) {
        with_events(store);
        let keyed = |number| NewJob { key: Some(Key::parse("k").unwrap()), ..call(number) };
        let id = JobId(1);
        assert_eq!(store.enqueue(&keyed(1)).unwrap(), Enqueued::New(id));
        assert_eq!(store.enqueue(&keyed(1)).unwrap(), Enqueued::Same(id));
        let mut others = vec![keyed(2), keyed(1), keyed(1), keyed(1)];
        others[1].call.principal = Some(Principal::parse("another").unwrap());
        others[2].call.kwargs = asyncq::domain::call::keywords(&[("key", "other")]).unwrap();
        others[3].call.site = Some("/elsewhere".to_owned());
        for other in others {
            assert_eq!(store.enqueue(&other).unwrap_err().kind(), Kind::Denied);
        }
        assert_eq!(store.cancel(id).unwrap(), Cancelled::Now);
        assert_eq!(store.enqueue(&keyed(1)).unwrap(), Enqueued::Same(id));
    }

    fn lists_are_filtered_paged_and_newest_first(store: &mut Store) {
        with_events(store);
        store.add_service(&service("other"), two()).unwrap();
        store.add_function(&service("other"), &function("compute"), &crate::fixture::definition()).unwrap();
        for number in 1..=4 {
            enqueue(store, number);
        }
        let mut other = NewJob { hold: true, ..call(5) };
        other.call.service = service("other");
        other.call.principal = None;
        store.enqueue(&other).unwrap();
        let mut ids = |query: &JobQuery| -> Vec<i64> { store.jobs(query).unwrap().iter().map(|job| job.id.0).collect() };
        let all = JobQuery::default();
        assert_eq!(ids(&all), [5, 4, 3, 2, 1]);
        assert_eq!(ids(&JobQuery { limit: Some(2), ..all.clone() }), [5, 4]);
        assert_eq!(ids(&JobQuery { before: Some(JobId(3)), ..all.clone() }), [2, 1]);
        assert_eq!(ids(&JobQuery { service: Some("other".into()), ..all.clone() }), [5]);
        assert_eq!(ids(&JobQuery { function: Some("compute".into()), limit: Some(1), ..all.clone() }), [5]);
        assert_eq!(ids(&JobQuery { state: Some(State::Held), ..all.clone() }), [5]);
        let theirs = JobQuery { principal: Some("the principal".into()), before: Some(JobId(4)), limit: Some(2), ..all.clone() };
        assert_eq!(ids(&theirs), [3, 2]);
        assert_eq!(ids(&JobQuery { parent: Some(JobId(1)), ..all }), Vec::<i64>::new());
    }

    fn cancelling(store: &mut Store) {
        with_events(store);
        let (first, second) = (enqueue(store, 1), enqueue(store, 2));
        assert_eq!(store.cancel(second).unwrap(), Cancelled::Now);
        assert_eq!(store.cancel(second).unwrap(), Cancelled::Ended(State::Cancelled));
        assert!(store.job(second).unwrap().finished_at.is_some());
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!(claim.fence.job, first);
        assert!(store.cancelling(processor).unwrap().is_empty());
        assert_eq!(store.cancel(first).unwrap(), Cancelled::Requested);
        assert!(store.job(first).unwrap().cancelling);
        assert_eq!(store.cancelling(processor).unwrap(), [claim.fence]);
        // It may have met a conflict instead: it is not tried again.
        let ended = advance(store, processor, &[&ends(&claim, &Outcome::Conflict(None))], 0, 0);
        assert_eq!(ended.finished, [Some(State::Cancelled)]);
        let job = store.job(first).unwrap();
        assert!(!job.cancelling && job.finished_at.is_some());
        assert_eq!(store.cancel(JobId(9)).unwrap_err().kind(), Kind::NotFound);
    }

    fn what_completes_is_not_cancelled_afterwards(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        store.cancel(claim.fence.job).unwrap();
        let ended = advance(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!(ended.finished, [Some(State::Completed)]);
    }

    fn retrying(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        assert_eq!(store.retry(id).unwrap_err().kind(), Kind::Denied);
        let processor = processor(store, 1);
        let first = claim(store, processor);
        assert_eq!(store.retry(id).unwrap_err().kind(), Kind::Denied);
        advance(store, processor, &[&ends(&first, &failed())], 0, 0);
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.error.unwrap().exit_code), (State::Error, Some(3)));
        store.retry(id).unwrap();
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.error, job.finished_at, job.attempt), (State::Queued, None, None, 1));
        let second = claim(store, processor);
        assert_eq!((second.fence.attempt, second.before.conflicts), (2, 0));
        advance(store, processor, &[&ends(&second, &Outcome::Completed)], 0, 0);
        assert_eq!(store.retry(id).unwrap_err().kind(), Kind::Denied);
        let waiting = enqueue(store, 2);
        store.cancel(waiting).unwrap();
        store.retry(waiting).unwrap();
        assert_eq!(state(store, waiting), State::Queued);
        assert_eq!(store.retry(JobId(9)).unwrap_err().kind(), Kind::NotFound);
    }

    fn starting(store: &mut Store) {
        with_events(store);
        let id = store.enqueue(&NewJob { hold: true, ..call(1) }).unwrap().id();
        assert_eq!(state(store, id), State::Held);
        assert_eq!(store.start(id).unwrap(), State::Queued);
        assert_eq!(store.start(id).unwrap_err().kind(), Kind::Denied);
        assert_eq!(store.start(JobId(9)).unwrap_err().kind(), Kind::NotFound);
    }

    fn what_nothing_could_run_is_not_queued_again(store: &mut Store) {
        with_events(store);
        let (cancelled, held) = (enqueue(store, 1), store.enqueue(&NewJob { hold: true, ..call(2) }).unwrap().id());
        store.remove_function(&service("events"), &function("compute"), IfWaiting::Cancel).unwrap();
        for id in [cancelled, held] {
            let refused = store.retry(id).unwrap_err();
            assert_eq!((refused.kind(), refused.to_string().contains("`compute`")), (Kind::NotFound, true));
        }
        store.remove_service(&service("events"), IfWaiting::Refuse).unwrap();
        assert_eq!(store.retry(held).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(state(store, held), State::Cancelled);
    }

    fn cleaning(store: &mut Store) {
        with_events(store);
        let ids: Vec<JobId> = (1..=4).map(|number| enqueue(store, number)).collect();
        store.cancel(ids[0]).unwrap();
        let processor = processor(store, 1);
        for outcome in [failed(), Outcome::Completed] {
            let claim = claim(store, processor);
            advance(store, processor, &[&ends(&claim, &outcome)], 0, 0);
        }
        let old = CleanQuery { states: State::ENDED.to_vec(), older_than: Duration::from_hours(1) };
        assert_eq!(store.clean(&old, JobId(0)).unwrap(), (0, None));
        let errors = CleanQuery { states: vec![State::Error], older_than: Duration::ZERO };
        assert_eq!(store.clean(&errors, ids[1]).unwrap(), (0, None));
        assert_eq!(store.clean(&errors, JobId(0)).unwrap(), (1, None));
        let all = CleanQuery { states: State::ENDED.to_vec(), older_than: Duration::ZERO };
        assert_eq!(store.clean(&all, JobId(0)).unwrap(), (2, None));
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().len(), 1);
        assert_eq!(enqueue(store, 5), JobId(5));
    }

    fn cleaning_goes_in_steps(store: &mut Store) {
        with_events(store);
        for number in 0..2003 {
            let id = enqueue(store, number);
            store.cancel(id).unwrap();
        }
        let all = CleanQuery { states: State::ENDED.to_vec(), older_than: Duration::ZERO };
        let (removed, next) = store.clean(&all, JobId(0)).unwrap();
        assert_eq!((removed, next), (2000, Some(JobId(2000))));
        // Nobody has to wait for the rest.
        let between = enqueue(store, 2004);
        assert_eq!(store.clean(&all, next.unwrap()).unwrap(), (3, None));
        assert_eq!(state(store, between), State::Queued);
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().len(), 1);
    }

    fn what_is_rare_is_found_beyond_the_newest_jobs(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let error = enqueue(store, 1);
        let first = claim(store, processor);
        advance(store, processor, &[&ends(&first, &failed())], 0, 0);
        let [cancelled, running] = [2, 3].map(|number| enqueue(store, number));
        store.cancel(cancelled).unwrap();
        claim(store, processor);
        let child = store.enqueue(&NewJob { parent: Some(JobId(77)), ..call(4) }).unwrap().id();
        let held = store.enqueue(&NewJob { hold: true, ..call(5) }).unwrap().id();
        store.cancel(child).unwrap();
        let queued = enqueue(store, 6);
        let list = |store: &mut asyncq::store::Store, query: JobQuery| {
            let jobs = store.jobs(&JobQuery { limit: Some(50), ..query }).unwrap();
            jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
        };
        let look = |store: &mut asyncq::store::Store, before| {
            for (state, expected) in [
                (State::Error, vec![error]),
                (State::Cancelled, vec![child, cancelled]),
                (State::Processing, vec![running]),
                (State::Held, vec![held]),
            ] {
                let query = JobQuery { state: Some(state), before, ..JobQuery::default() };
                assert_eq!(list(store, query.clone()), expected, "{state}");
                assert_eq!(list(store, JobQuery { service: Some("events".into()), ..query.clone() }), expected);
                assert_eq!(list(store, JobQuery { service: Some("other".into()), ..query }), []);
            }
            let parent = JobQuery { parent: Some(JobId(77)), before, ..JobQuery::default() };
            assert_eq!(list(store, parent), [child]);
        };
        look(store, None);
        let many: Vec<NewJob> = (0..10_100).map(call).collect();
        let last = store.enqueue_all(&many).unwrap().last().unwrap().id();
        look(store, None);
        look(store, Some(last));
        assert_eq!(list(store, JobQuery { state: Some(State::Error), before: Some(error), ..JobQuery::default() }), []);
        let waiting = JobQuery { state: Some(State::Queued), before: Some(JobId(queued.0 + 2)), ..JobQuery::default() };
        assert_eq!(list(store, waiting), [JobId(queued.0 + 1), queued]);
    }
}
