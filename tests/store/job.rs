//! Jobs: enqueueing, reading, and what is done by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::call::{Key, Principal, Reading};
use asyncq::domain::job::{Fence, JobId, State};
use asyncq::domain::lane::Lane;
use asyncq::domain::new_job::{CallOptions, Due, Enqueued, NewJob, Priority, Rerun};
use asyncq::domain::pattern::OfServices;
use asyncq::domain::query::{BulkChange, JobChange, JobFilter, JobQuery};
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::time::Timestamp;
use asyncq::store::{Cancelled, Step, Store};

use crate::fixture::{
    call, claim, ends, enqueue, function, processor, run_cycle, service, state, two, wide, with_events,
};

fn failed() -> Outcome {
    Outcome::Failed(Failure { exit_code: Some(3), ..Failure::new(FailureKind::Exit, "exit code 3") })
}

fn priority(number: i64) -> CallOptions {
    CallOptions { priority: Priority::new(number).unwrap(), ..CallOptions::default() }
}

/// All that have ended.
fn ended() -> JobFilter {
    JobFilter { states: JobChange::Remove.states(), ..JobFilter::default() }
}

/// One step of a change of many jobs, after the job of that number.
fn step(store: &mut Store, change: JobChange, filter: &JobFilter, after: i64) -> Step {
    let many = BulkChange { change, filter: filter.clone(), before: None, dry_run: false };
    store.change_many(&many, JobId(after)).unwrap()
}

conformance! {
    fn everything_is_kept(store: &mut Store) {
        with_events(store);
        let new = NewJob { key: Some(Key::parse("the key").unwrap()), parent: Some(JobId(77)), ..call(5) };
        let id = store.enqueue(&new).unwrap().id();
        let job = store.job(id).unwrap();
        assert_eq!((job.call.service.as_str(), job.call.function.as_str()), ("events", "compute"));
        assert_eq!((job.call.args.as_str(), job.call.kwargs.as_str()), ("[5]", r#"{"key":"word"}"#));
        assert_eq!((job.call.principal.as_deref(), job.os_user.as_deref()), (Some("the principal"), Some("the user")));
        assert_eq!((job.call.site.as_deref(), job.options.key.as_deref()), (Some("/the/site"), Some("the key")));
        assert_eq!((job.state, job.immediate, job.parent, job.counts.attempt), (State::Queued, false, Some(JobId(77)), 0));
        assert_eq!((job.times.started_at, job.times.finished_at, &job.result, &job.error), (None, None, &None, &None));
        assert!(job.times.created_at == job.times.run_at && !job.cancelling && job.options.priority == 0);
        assert!(store.attempts(&job).unwrap().is_empty());
    }

    fn a_job_knows_how_many_come_before_it(store: &mut Store) {
        with_events(store);
        let ids: Vec<_> = (1..=4).map(|number| enqueue(store, number)).collect();
        let line = |store: &mut Store, id| {
            let job = store.job(id).unwrap();
            store.line(&job).unwrap()
        };
        let before = |store: &mut Store| ids.iter().map(|id| line(store, *id).before).collect::<Vec<_>>();
        assert_eq!(before(store), [0, 1, 2, 3]);
        let second = line(store, ids[1]);
        assert!(second.processor.is_none() && !second.is_poison);
        let processor = processor(store, 1);
        claim(store, processor);
        assert_eq!(before(store), [0, 0, 1, 2]);
        assert_eq!(line(store, ids[0]).processor, Some(processor));
        let mut gone = store.job(ids[0]).unwrap();
        gone.id = JobId(77);
        assert_eq!(store.line(&gone).unwrap_err().kind(), Kind::NotFound);
    }

    fn the_folder_of_the_processor_that_runs_a_job(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        assert_eq!(store.runs_in(id).unwrap(), None);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let folder = store.processors().unwrap()[0].is.folder.clone();
        assert_eq!(store.runs_in(id).unwrap(), Some(folder));
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!((store.runs_in(id).unwrap(), store.runs_in(JobId(77)).unwrap()), (None, None));
    }

    fn a_job_is_called_again(store: &mut Store) {
        with_events(store);
        let options = CallOptions { lane: Some(Lane::parse("lane").unwrap()), ..priority(3) };
        let new = NewJob { key: Some(Key::parse("the key").unwrap()), options, ..call(5) };
        let id = store.enqueue(&new).unwrap().id();
        let args = Reading::Json.positional(&["other"]).unwrap();
        let again = Rerun { args: Some(args), os_user: Some("me".to_owned()), ..Rerun::default() };
        let done = store.rerun(id, &again).unwrap();
        assert!(done.cancelled);
        assert_eq!(state(store, id), State::Cancelled);
        let job = store.job(done.new).unwrap();
        assert_eq!((job.call.args.as_str(), job.call.kwargs.as_str()), (r#"["other"]"#, r#"{"key":"word"}"#));
        assert_eq!((job.call.principal.as_deref(), job.os_user.as_deref()), (Some("the principal"), Some("me")));
        assert_eq!((job.call.site.as_deref(), job.options.key.as_deref()), (Some("/the/site"), None));
        assert_eq!((job.options.lane.as_deref(), job.options.priority), (Some("lane"), 3));
        assert_eq!(job.state, State::Queued);
        let processor = processor(store, 1);
        claim(store, processor);
        assert_eq!(store.rerun(done.new, &again).unwrap_err().kind(), Kind::Denied);
        assert_eq!(store.rerun(JobId(77), &again).unwrap_err().kind(), Kind::NotFound);
    }

    fn large_arguments_are_kept_whole(store: &mut Store) {
        with_events(store);
        let mut new = call(0);
        new.call.args = Reading::Json.positional(&["x".repeat(500_000), "\u{1f600}".repeat(1000)]).unwrap();
        let id = store.enqueue(&new).unwrap().id();
        assert_eq!(store.job(id).unwrap().call.args, new.call.args.as_str());
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!(claim.call, new.call);
    }

    fn unknown_names_are_refused_with_a_suggestion(store: &mut Store) {
        with_events(store);
        let mut new = call(1);
        new.call.function = function("compuet");
        let error = store.enqueue(&new).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "service `events` has no function `compuet`"));
        assert!(error.hint().unwrap().starts_with("did you mean `compute`?"));
        new.call.service = service("evens");
        let error = store.enqueue(&new).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "there is no service `evens`"));
        assert!(store.jobs(&JobQuery::default()).unwrap().jobs.is_empty());
    }

    fn calls_that_come_together_are_enqueued_together_or_not_at_all(store: &mut Store) {
        with_events(store);
        let keyed = |number| NewJob { key: Some(Key::parse("k").unwrap()), ..call(number) };
        let mut large = NewJob { hold: true, ..call(0) };
        large.call.args = Reading::Json.positional(&["x".repeat(5000)]).unwrap();
        let done = store.enqueue_all(&[keyed(1), large.clone(), keyed(1)]).unwrap();
        assert_eq!(done, [Enqueued::New(JobId(1)), Enqueued::New(JobId(2)), Enqueued::Same(JobId(1))]);
        let job = store.job(JobId(2)).unwrap();
        assert_eq!((job.state, job.call.args.as_str()), (State::Held, large.call.args.as_str()));
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
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().jobs.len(), 2);
    }

    fn of_calls_that_are_enqueued_each_only_the_refused_ones_fall_out(store: &mut Store) {
        with_events(store);
        let keyed = |number| NewJob { key: Some(Key::parse("k").unwrap()), ..call(number) };
        let mut unknown = call(9);
        unknown.call.function = function("compuet");
        let done = store.enqueue_each(&[call(1), unknown.clone(), keyed(2), keyed(2), keyed(3), unknown, call(4)]).unwrap();
        let done: Vec<Result<Enqueued, Kind>> = done.into_iter().map(|one| one.map_err(|error| error.kind())).collect();
        let (first, second, third) = (JobId(1), JobId(2), JobId(3));
        assert_eq!(done, [
            Ok(Enqueued::New(first)),
            Err(Kind::NotFound),
            Ok(Enqueued::New(second)),
            Ok(Enqueued::Same(second)),
            Err(Kind::Denied),
            Err(Kind::NotFound),
            Ok(Enqueued::New(third)),
        ]);
        assert_eq!(store.job(third).unwrap().call.args, "[4]");
        assert!(store.enqueue_each(&[]).unwrap().is_empty());
        let many: Vec<NewJob> = (0..120).map(call).collect();
        let done = store.enqueue_each(&many).unwrap();
        assert!((4..124).zip(done).all(|(id, one)| one.unwrap() == Enqueued::New(JobId(id))));
    }

    fn a_call_that_is_due_later_is_delayed_at_once(store: &mut Store) {
        with_events(store);
        let first = enqueue(store, 0);
        let now = store.job(first).unwrap().times.created_at;
        let (later, before) = (Timestamp(4_102_444_800_000), now.before(Duration::from_secs(60)));
        let span = Duration::from_secs(100 * 24 * 3600);
        let calls = [
            NewJob { due: Due::At(later), options: priority(-5), ..call(1) },
            NewJob { due: Due::At(later), hold: true, ..call(2) },
            NewJob { due: Due::At(before), options: priority(5), ..call(3) },
            NewJob { due: Due::In(span), options: priority(-9), ..call(4) },
        ];
        let ids: Vec<JobId> = store.enqueue_all(&calls).unwrap().into_iter().map(Enqueued::id).collect();
        let job = |store: &mut Store, at: usize| store.job(ids[at]).unwrap();
        let states = [State::Delayed, State::Held, State::Queued, State::Delayed];
        for (at, (new, state)) in calls.iter().zip(states).enumerate() {
            let job = job(store, at);
            let due = new.due.moment(job.times.created_at);
            assert_eq!((job.state, Some(job.times.run_at), job.options.priority), (state, due, new.options.priority.get()));
            assert!(job.times.created_at >= now);
        }
        assert_eq!(store.start(ids[1]).unwrap(), State::Delayed);
        let many: Vec<NewJob> = (0..100).map(|number| NewJob { due: Due::At(later), options: priority(7), ..call(number) }).collect();
        for id in store.enqueue_all(&many).unwrap() {
            let job = store.job(id.id()).unwrap();
            assert_eq!((job.state, job.times.run_at, job.options.priority), (State::Delayed, later, 7));
        }
        // The one that was due at once comes first, and the one of the greater priority last.
        let processor = processor(store, 1);
        assert_eq!(claim(store, processor).fence.job, JobId(1));
        assert_eq!(claim(store, processor).fence.job, ids[2]);
    }

    fn the_states_of_several_jobs_are_those_of_one_moment(store: &mut Store) {
        with_events(store);
        let (first, second) = (enqueue(store, 1), enqueue(store, 2));
        store.cancel(second).unwrap();
        let states = store.states(&[second, JobId(77), first, second]).unwrap();
        assert_eq!(states, [Some(State::Cancelled), None, Some(State::Queued), Some(State::Cancelled)]);
        // More than one statement asks for, one that asks for many, and some that are asked for one by one.
        let asked: Vec<JobId> = (0..210).map(|number| [first, JobId(77), second][number % 3]).collect();
        let states = store.states(&asked).unwrap();
        let expected = [Some(State::Queued), None, Some(State::Cancelled)];
        assert!(states.iter().zip(expected.iter().cycle()).all(|(one, other)| one == other) && states.len() == 210);
        assert!(store.states(&[]).unwrap().is_empty());
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
            store.record_progress(processor, &[(fence, text.to_owned())]).unwrap();
            assert_eq!(told(store).as_deref(), Some(shown));
        }
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!(told(store), None);
        store.record_progress(processor, &[(claim.fence, "late".to_owned())]).unwrap();
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
        others[2].call.kwargs = Reading::Json.keywords(&[("key", "other")]).unwrap();
        others[3].call.site = Some("/elsewhere".to_owned());
        for other in others {
            assert_eq!(store.enqueue(&other).unwrap_err().kind(), Kind::Denied);
        }
        assert_eq!(store.cancel(id).unwrap(), Cancelled::Now);
        assert_eq!(store.enqueue(&keyed(1)).unwrap(), Enqueued::Same(id));
    }

    fn lists_are_filtered_paged_and_newest_first(store: &mut Store) {
        with_events(store);
        store.add_service(&service("other"), &wide(two())).unwrap();
        store.add_function(&service("other"), &function("compute"), &crate::fixture::definition()).unwrap();
        for number in 1..=4 {
            enqueue(store, number);
        }
        let mut other = NewJob { hold: true, ..call(5) };
        other.call.service = service("other");
        other.call.principal = None;
        store.enqueue(&other).unwrap();
        let mut ids = |filter: JobFilter, before: Option<i64>, limit| -> Vec<i64> {
            let page = store.jobs(&JobQuery { filter, among: None, before: before.map(JobId), limit }).unwrap();
            page.jobs.iter().map(|job| job.id.0).collect()
        };
        let all = JobFilter::default();
        assert_eq!(ids(all.clone(), None, None), [5, 4, 3, 2, 1]);
        assert_eq!(ids(all.clone(), None, Some(2)), [5, 4]);
        assert_eq!(ids(all.clone(), Some(3), None), [2, 1]);
        let of = |services| JobFilter { services, ..all.clone() };
        assert_eq!(ids(of(OfServices::only(service("other"))), None, None), [5]);
        assert_eq!(ids(of(OfServices::Only(["events", "x"].map(service).into())), None, Some(1)), [4]);
        assert_eq!(ids(of(OfServices::Only(BTreeSet::new())), None, None), Vec::<i64>::new());
        assert_eq!(ids(of(OfServices::Without(["events", "x"].map(service).into())), None, None), [5]);
        assert_eq!(ids(JobFilter { function: Some("compute".into()), ..all.clone() }, None, Some(1)), [5]);
        assert_eq!(ids(JobFilter { states: vec![State::Held], ..all.clone() }, None, None), [5]);
        let waiting = JobFilter { states: vec![State::Held, State::Queued], ..all.clone() };
        assert_eq!(ids(waiting, None, Some(3)), [5, 4, 3]);
        let theirs = JobFilter { principal: Some("the principal".into()), ..all.clone() };
        assert_eq!(ids(theirs, Some(4), Some(2)), [3, 2]);
        assert_eq!(ids(JobFilter { principal: Some(String::new()), ..all.clone() }, None, None), [5]);
        assert_eq!(ids(JobFilter { older_than: Some(Duration::from_secs(3600)), ..all.clone() }, None, None), Vec::<i64>::new());
        assert_eq!(ids(JobFilter { parent: Some(JobId(1)), ..all }, None, None), Vec::<i64>::new());
    }

    fn a_page_holds_as_many_bytes_as_one_reads_in_a_moment(store: &mut Store) {
        with_events(store);
        let mut large = call(1);
        large.call.args = Reading::Json.positional(&["x".repeat(400_000)]).unwrap();
        for _ in 0..7 {
            store.enqueue(&large).unwrap();
        }
        let (mut query, mut pages) = (JobQuery::default(), Vec::new());
        loop {
            let page = store.jobs(&query).unwrap();
            pages.push(page.jobs.iter().map(|job| job.id.0).collect::<Vec<_>>());
            query.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
        let numbers = |page: (Vec<JobId>, Option<JobId>)| (page.0.iter().map(|id| id.0).collect::<Vec<_>>(), page.1);
        let all = JobFilter::default();
        assert_eq!(numbers(store.newest_jobs(&all, None, 3).unwrap()), (vec![7, 6, 5], Some(JobId(5))));
        assert_eq!(numbers(store.newest_jobs(&all, Some(JobId(5)), 9).unwrap()), (vec![4, 3, 2, 1], None));
    }

    fn cancelling(store: &mut Store) {
        with_events(store);
        store.set_user(|| "zoe".to_owned());
        let (first, second) = (enqueue(store, 1), enqueue(store, 2));
        assert_eq!(store.cancel(second).unwrap(), Cancelled::Now);
        assert_eq!(store.cancel(second).unwrap(), Cancelled::Ended(State::Cancelled));
        let by = |store: &mut Store, job| store.job(job).unwrap().error.map(|error| (error.kind, error.message));
        let zoe = Some((FailureKind::Cancelled, "cancelled by zoe".to_owned()));
        assert_eq!(by(store, second), zoe);
        assert!(store.job(second).unwrap().times.finished_at.is_some());
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!(claim.fence.job, first);
        assert!(store.cancelling(processor).unwrap().is_empty());
        assert_eq!(store.cancel(first).unwrap(), Cancelled::Requested);
        assert!(store.job(first).unwrap().cancelling);
        assert_eq!(store.cancelling(processor).unwrap(), [claim.fence]);
        // It may have met a conflict instead: it is not tried again.
        let ended = run_cycle(store, processor, &[&ends(&claim, &Outcome::Conflict(Conflict::default()))], 0, 0);
        assert_eq!(ended.finished, [Some(State::Cancelled)]);
        let job = store.job(first).unwrap();
        assert!(!job.cancelling && job.times.finished_at.is_some());
        assert_eq!(by(store, first), zoe);
        assert_eq!(store.cancel(JobId(9)).unwrap_err().kind(), Kind::NotFound);
    }

    fn what_completes_is_not_cancelled_afterwards(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        store.cancel(claim.fence.job).unwrap();
        let ended = run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!(ended.finished, [Some(State::Completed)]);
        assert_eq!(store.job(claim.fence.job).unwrap().error, None);
    }

    fn retrying(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        assert_eq!(store.retry(id).unwrap_err().kind(), Kind::Denied);
        let processor = processor(store, 1);
        let first = claim(store, processor);
        assert_eq!(store.retry(id).unwrap_err().kind(), Kind::Denied);
        run_cycle(store, processor, &[&ends(&first, &failed())], 0, 0);
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.error.unwrap().exit_code), (State::Error, Some(3)));
        store.retry(id).unwrap();
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.error, job.times.finished_at, job.counts.attempt), (State::Queued, None, None, 1));
        let second = claim(store, processor);
        assert_eq!((second.fence.attempt, second.before.conflicts), (2, 0));
        run_cycle(store, processor, &[&ends(&second, &Outcome::Completed)], 0, 0);
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
            run_cycle(store, processor, &[&ends(&claim, &outcome)], 0, 0);
        }
        let old = JobFilter { older_than: Some(Duration::from_secs(3600)), ..ended() };
        assert_eq!(step(store, JobChange::Remove, &old, 0), Step::default());
        let errors = JobFilter { states: vec![State::Error], ..JobFilter::default() };
        assert_eq!(step(store, JobChange::Remove, &errors, ids[1].0), Step::default());
        assert_eq!(step(store, JobChange::Remove, &errors, 0), Step { changed: 1, ..Step::default() });
        assert_eq!(step(store, JobChange::Remove, &ended(), 0), Step { changed: 2, ..Step::default() });
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().jobs.len(), 1);
        assert_eq!(enqueue(store, 5), JobId(5));
    }

    fn cleaning_goes_in_steps(store: &mut Store) {
        with_events(store);
        let calls: Vec<NewJob> = (0..2003).map(call).collect();
        store.enqueue_all(&calls).unwrap();
        let queued = JobFilter { states: vec![State::Queued], ..JobFilter::default() };
        while step(store, JobChange::Cancel, &queued, 0).next.is_some() {}
        let first = step(store, JobChange::Remove, &ended(), 0);
        assert_eq!(first, Step { changed: 2000, next: Some(JobId(2000)), ..Step::default() });
        // Nobody has to wait for the rest.
        let between = enqueue(store, 2004);
        assert_eq!(step(store, JobChange::Remove, &ended(), 2000), Step { changed: 3, ..Step::default() });
        assert_eq!(state(store, between), State::Queued);
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().jobs.len(), 1);
    }

    fn many_are_changed_as_one_is(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let failing: Vec<JobId> = (1..=2).map(|number| enqueue(store, number)).collect();
        for _ in &failing {
            let claim = claim(store, processor);
            run_cycle(store, processor, &[&ends(&claim, &failed())], 0, 0);
        }
        let running = enqueue(store, 3);
        claim(store, processor);
        let waiting = enqueue(store, 4);
        let held = store.enqueue(&NewJob { hold: true, ..call(5) }).unwrap().id();
        let filter = |states: &[State]| JobFilter { states: states.to_vec(), ..JobFilter::default() };
        let one = Step { changed: 1, ..Step::default() };
        let two = Step { changed: 2, ..Step::default() };

        let errors = filter(&[State::Error]);
        let dry = BulkChange { change: JobChange::Retry, filter: errors.clone(), before: None, dry_run: true };
        assert_eq!(store.change_many(&dry, JobId(0)).unwrap(), two);
        assert_eq!(state(store, failing[0]), State::Error);
        let theirs = JobFilter { principal: Some("nobody".to_owned()), ..errors.clone() };
        assert_eq!(step(store, JobChange::Retry, &theirs, 0), Step::default());
        assert_eq!(step(store, JobChange::Retry, &errors, 0), two);
        let job = store.job(failing[1]).unwrap();
        assert_eq!((job.state, job.error, job.times.finished_at, job.counts.attempt), (State::Queued, None, None, 1));

        assert_eq!(step(store, JobChange::Start, &filter(&[State::Held]), 0), one);
        assert_eq!(state(store, held), State::Queued);

        let active = filter(&[State::Held, State::Delayed, State::Queued, State::Processing]);
        let cancelled = step(store, JobChange::Cancel, &active, failing[1].0);
        assert_eq!(cancelled, Step { changed: 3, asked: vec![running], ..Step::default() });
        assert!(store.job(running).unwrap().cancelling);
        assert_eq!((state(store, waiting), state(store, held)), (State::Cancelled, State::Cancelled));
        assert_eq!(step(store, JobChange::Cancel, &active, 0), Step { changed: 3, asked: vec![running], ..Step::default() });
    }

    fn of_many_those_that_nothing_could_run_stay(store: &mut Store) {
        with_events(store);
        let gone = enqueue(store, 1);
        store.cancel(gone).unwrap();
        store.remove_function(&service("events"), &function("compute"), IfWaiting::Refuse).unwrap();
        store.add_function(&service("events"), &function("other"), &crate::fixture::definition()).unwrap();
        let mut other = call(2);
        other.call.function = function("other");
        let other = store.enqueue(&other).unwrap().id();
        store.cancel(other).unwrap();
        let cancelled = JobFilter { states: vec![State::Cancelled], ..JobFilter::default() };
        let done = Step { changed: 1, removed: 1, ..Step::default() };
        assert_eq!(step(store, JobChange::Retry, &cancelled, 0), done);
        assert_eq!((state(store, gone), state(store, other)), (State::Cancelled, State::Queued));
    }

    fn many_are_found_beyond_jobs_that_do_not_match(store: &mut Store) {
        with_events(store);
        let many: Vec<NewJob> = (0..10_100).map(call).collect();
        let first = store.enqueue_all(&many).unwrap()[0].id();
        let last = enqueue(store, 1);
        store.cancel(first).unwrap();
        store.cancel(last).unwrap();
        // Few are cancelled, so that an index of those serves; of those that wait there is none by their ids.
        let cancelled = JobFilter { states: vec![State::Cancelled], ..JobFilter::default() };
        assert_eq!(step(store, JobChange::Retry, &cancelled, 0), Step { changed: 2, ..Step::default() });
        store.cancel(last).unwrap();
        let both = JobFilter { states: vec![State::Cancelled, State::Error], ..JobFilter::default() };
        assert_eq!(step(store, JobChange::Retry, &both, 0), Step { next: Some(JobId(10_000)), ..Step::default() });
        assert_eq!(step(store, JobChange::Retry, &both, 10_000), Step { changed: 1, ..Step::default() });
    }

    fn what_is_measured_without_the_disk_does_the_same(store: &mut Store) {
        with_events(store);
        store.measure_without_disk().unwrap();
        let id = enqueue(store, 1);
        assert_eq!(state(store, id), State::Queued);
    }

    fn what_is_rare_is_found_beyond_the_newest_jobs(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let error = enqueue(store, 1);
        let first = claim(store, processor);
        run_cycle(store, processor, &[&ends(&first, &failed())], 0, 0);
        let [cancelled, running] = [2, 3].map(|number| enqueue(store, number));
        store.cancel(cancelled).unwrap();
        claim(store, processor);
        let child = store.enqueue(&NewJob { parent: Some(JobId(77)), ..call(4) }).unwrap().id();
        let held = store.enqueue(&NewJob { hold: true, ..call(5) }).unwrap().id();
        store.cancel(child).unwrap();
        let queued = enqueue(store, 6);
        let list = |store: &mut Store, filter: JobFilter, before| {
            let mut query = JobQuery { filter, among: None, before, limit: Some(50) };
            let mut found = Vec::new();
            loop {
                let page = store.jobs(&query).unwrap();
                found.extend(page.jobs.into_iter().map(|job| job.id));
                query.before = page.next;
                if page.next.is_none() {
                    return found;
                }
            }
        };
        let look = |store: &mut Store, before| {
            for (state, expected) in [
                (State::Error, vec![error]),
                (State::Cancelled, vec![child, cancelled]),
                (State::Processing, vec![running]),
                (State::Held, vec![held]),
            ] {
                let filter = JobFilter { states: vec![state], ..JobFilter::default() };
                assert_eq!(list(store, filter.clone(), before), expected, "{state}");
                assert_eq!(list(store, JobFilter { services: OfServices::only(service("events")), ..filter.clone() }, before), expected);
                assert_eq!(list(store, JobFilter { services: OfServices::only(service("other")), ..filter }, before), []);
            }
            let stopped = vec![State::Held, State::Error, State::Cancelled];
            let stopped = JobFilter { states: stopped, ..JobFilter::default() };
            assert_eq!(list(store, stopped, before), [held, child, cancelled, error]);
            let parent = JobFilter { parent: Some(JobId(77)), ..JobFilter::default() };
            assert_eq!(list(store, parent, before), [child]);
        };
        look(store, None);
        let many: Vec<NewJob> = (0..10_100).map(call).collect();
        let last = store.enqueue_all(&many).unwrap().last().unwrap().id();
        look(store, None);
        look(store, Some(last));
        let errors = JobFilter { states: vec![State::Error], ..JobFilter::default() };
        assert_eq!(list(store, errors, Some(error)), []);
        let waiting = JobFilter { states: vec![State::Queued], ..JobFilter::default() };
        assert_eq!(list(store, waiting.clone(), Some(JobId(queued.0 + 2))), [JobId(queued.0 + 1), queued]);
        assert_eq!(list(store, waiting, None).len(), 10_101);
    }
}
