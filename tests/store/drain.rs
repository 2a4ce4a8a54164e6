//! Registering, claiming, finishing.

use std::num::NonZeroU32;
use std::time::Duration;

use asyncq::domain::attempt::{Conflict, Ending, Failure, FailureKind, Outcome};
use asyncq::domain::job::State;
use asyncq::domain::json::Json;
use asyncq::domain::log::Stream;
use asyncq::domain::pause::Pause;
use asyncq::domain::processor::ProcessorId;
use asyncq::domain::query::JobQuery;
use asyncq::domain::retry::{LONGEST_PAUSE, POSTPONED};
use asyncq::domain::service::ServiceChange;
use asyncq::store::{Cycle, Patience};

use crate::fixture::{
    again, call, claim, definition, ends, enqueue, function, log, new_processor, processor, run_cycle, service, state,
    tokens, two, wide, with_events,
};

conformance! {
    fn calls_that_are_claimed_together_have_the_secrets_that_were_handed_out(store: &mut Store) {
        with_events(store);
        for number in 1..=4 {
            enqueue(store, number);
        }
        let processor = processor(store, 1);
        let first = claim(store, processor);
        let more = run_cycle(store, processor, &[], 1, 1).claims;
        let run = run_cycle(store, processor, &[], 0, 2).claims;
        for claim in [&[first][..], &more, &run].concat() {
            assert!(store.running(claim.fence.job, &claim.token).unwrap().is_some());
        }
    }

    fn processors_come_and_go(store: &mut Store) {
        let (first, second) = (processor(store, 1), processor(store, 2));
        let found = store.processors().unwrap();
        assert_eq!(found.iter().map(|it| it.id).collect::<Vec<_>>(), [first, second]);
        assert_eq!(found[0].is, new_processor(1));
        store.unregister(first).unwrap();
        assert_eq!(store.processors().unwrap().len(), 1);
        assert_ne!(processor(store, 3), first);
    }

    fn a_claim_that_its_processor_never_heard_of_goes_back_when_it_ends(store: &mut Store) {
        with_events(store);
        let (unheard, cancelled) = (enqueue(store, 1), enqueue(store, 2));
        let processor = processor(store, 1);
        // A commit can be told as a failure, so that the claims in it are nobody's.
        assert_eq!(run_cycle(store, processor, &[], 0, 2).claims.len(), 2);
        store.cancel(cancelled).unwrap();
        store.unregister(processor).unwrap();
        assert_eq!((state(store, unheard), state(store, cancelled)), (State::Queued, State::Cancelled));
        assert!(store.tokens(processor, &[]).unwrap().is_empty() && store.processors().unwrap().is_empty());
        let next = self::processor(store, 2);
        let claim = claim(store, next);
        assert_eq!((claim.fence.attempt, claim.fence.claim), (1, 2));
    }

    fn a_claim_has_all_that_is_needed_to_run_it(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 5);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!((claim.fence.job, claim.fence.attempt, claim.fence.processor), (id, 1, processor));
        assert_eq!(claim.call, call(5).call);
        assert_eq!(*claim.definition, definition());
        assert_eq!(claim.before.conflicts, 0);
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.counts.attempt), (State::Processing, 1));
        assert!(job.times.started_at.is_some() && job.times.finished_at.is_none());
        assert_eq!(store.tokens(processor, &[]).unwrap(), [claim.token]);
    }

    fn claims_come_in_order_and_within_the_limit(store: &mut Store) {
        with_events(store);
        let ids: Vec<_> = (1..=5).map(|number| enqueue(store, number)).collect();
        let (one, other) = (processor(store, 1), processor(store, 2));
        let first = run_cycle(store, one, &[], 0, 1);
        assert_eq!(first.claims[0].fence.job, ids[0]);
        assert_eq!((first.status.concurrency, first.status.taken, first.status.free()), (2, 0, 2));
        // The other has room for three, but only one slot is free.
        let second = run_cycle(store, other, &[], 0, 3);
        assert_eq!(second.claims.iter().map(|it| it.fence.job).collect::<Vec<_>>(), [ids[1]]);
        assert_eq!((second.status.taken, second.status.free(), second.status.ready), (1, 1, true));
        assert!(run_cycle(store, one, &[], 1, 3).claims.is_empty());
        let holders = store.holders(&service("events")).unwrap();
        assert_eq!(holders.iter().map(|it| it.id).collect::<Vec<_>>(), [one, other]);
        // Finishing and claiming the next is one step.
        let third = run_cycle(store, one, &[&ends(&first.claims[0], &Outcome::Completed)], 0, 1);
        assert_eq!((third.finished, third.claims[0].fence.job), (vec![Some(State::Completed)], ids[2]));
        // Who runs nothing any more has no slots.
        run_cycle(store, other, &[&ends(&second.claims[0], &Outcome::Completed)], 0, 0);
        assert_eq!(store.holders(&service("events")).unwrap().len(), 1);
        assert_eq!(store.service_status(&service("events"), Some(other)).unwrap().taken, 1);
        assert_eq!(store.service_status(&service("events"), None).unwrap().taken, 1);
    }

    fn a_lowered_limit_holds_for_the_next_claim(store: &mut Store) {
        with_events(store);
        for number in 1..=4 {
            enqueue(store, number);
        }
        let processor = processor(store, 1);
        let both = run_cycle(store, processor, &[], 0, 2).claims;
        let one = ServiceChange { concurrency: Some(NonZeroU32::MIN), ..ServiceChange::default() };
        store.set_service(&service("events"), &one).unwrap();
        assert!(run_cycle(store, processor, &[&ends(&both[0], &Outcome::Completed)], 1, 2).claims.is_empty());
        assert_eq!(run_cycle(store, processor, &[&ends(&both[1], &Outcome::Completed)], 0, 2).claims.len(), 1);
    }

    fn what_is_claimed_ahead_takes_no_slot_and_can_be_given_back(store: &mut Store) {
        with_events(store);
        let ids: Vec<_> = (1..=5).map(|number| enqueue(store, number)).collect();
        let (one, other) = (processor(store, 1), processor(store, 2));
        let (events, tokens) = (service("events"), tokens(5));
        let plan = Cycle { ahead: 1, tokens: &tokens, ..Cycle::of(one, &events) };
        let first = store.run_cycle(&plan).unwrap();
        assert_eq!((first.claims.len(), first.slots, first.status.ready), (3, 2, true));
        assert_eq!(store.service_status(&events, Some(other)).unwrap().taken, 2);
        store.cancel(ids[1]).unwrap();
        let returned = [first.claims[1].fence, first.claims[2].fence];
        let plan = Cycle { returned: &returned, held: 1, running: 1, ahead: 0, tokens: &[], ..plan };
        let second = store.run_cycle(&plan).unwrap();
        assert_eq!((second.claims.len(), second.slots), (0, 1));
        assert_eq!((state(store, ids[1]), state(store, ids[2])), (State::Cancelled, State::Queued));
        let back = store.job(ids[2]).unwrap();
        assert_eq!((back.counts.attempt, back.times.started_at), (0, None));
        assert!(store.attempts(&back).unwrap().is_empty());
        assert_eq!(run_cycle(store, other, &[], 0, 1).claims[0].fence.job, ids[2]);
    }

    fn what_could_not_begin_is_given_back_for_later(store: &mut Store) {
        with_events(store);
        let ids: Vec<_> = (1..=2).map(|number| enqueue(store, number)).collect();
        let one = processor(store, 1);
        let claims = run_cycle(store, one, &[], 0, 2).claims;
        store.cancel(ids[1]).unwrap();
        let (events, postponed) = (service("events"), [claims[0].fence, claims[1].fence]);
        let plan = Cycle { postponed: &postponed, tokens: &tokens(2), ..Cycle::of(one, &events) };
        let done = store.run_cycle(&plan).unwrap();
        assert_eq!((done.claims.len(), done.slots, done.status.ready), (0, 0, false));
        assert_eq!((state(store, ids[0]), state(store, ids[1])), (State::Delayed, State::Cancelled));
        let back = store.job(ids[0]).unwrap();
        let pause = back.times.run_at.since(done.status.now);
        assert_eq!((back.counts.attempt, back.times.started_at, pause), (0, None, POSTPONED));
        assert_eq!(done.status.next_due, Some(back.times.run_at));
        // What a fence is for: it is nobody's any more.
        let again = Cycle { postponed: &postponed, ..plan };
        store.run_cycle(&again).unwrap();
        assert_eq!(store.job(ids[0]).unwrap().times.run_at, back.times.run_at);
    }

    fn a_paused_service_gives_no_claims(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let paused = |paused: bool| ServiceChange { pause: Some(paused.then(Pause::default)), ..ServiceChange::default() };
        store.set_service(&service("events"), &paused(true)).unwrap();
        let processor = processor(store, 1);
        let none = run_cycle(store, processor, &[], 0, 1);
        assert!(none.claims.is_empty() && none.status.paused && none.status.ready && none.status.free() == 0);
        store.set_service(&service("events"), &paused(false)).unwrap();
        assert_eq!(run_cycle(store, processor, &[], 0, 1).claims.len(), 1);
    }

    fn each_job_is_claimed_once_however_many_claim(store: &mut Store) {
        store.add_service(&service("events"), &wide(NonZeroU32::new(100).unwrap())).unwrap();
        store.add_function(&service("events"), &function("compute"), &definition()).unwrap();
        let ids: Vec<_> = (0..200).map(|number| enqueue(store, number)).collect();
        let claimed: Vec<_> = std::thread::scope(|scope| {
            let claimers: Vec<_> = (0..4)
                .map(|number| {
                    let mut store = again(store);
                    scope.spawn(move || {
                        let processor = processor(&mut store, number);
                        let mut mine = Vec::new();
                        let mut last = Vec::new();
                        loop {
                            let finished: Vec<_> = last.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
                            let finished: Vec<_> = finished.iter().collect();
                            last = run_cycle(&mut store, processor, &finished, 0, 3).claims;
                            if last.is_empty() {
                                return mine;
                            }
                            mine.extend(last.iter().map(|claim| claim.fence.job));
                        }
                    })
                })
                .collect();
            claimers.into_iter().flat_map(|claimer| claimer.join().unwrap()).collect()
        });
        let mut sorted = claimed.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ids);
    }

    fn an_end_is_recorded_whole(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let mut end = ends(&claim, &Outcome::Completed);
        end.result = Some(Json::parse("[9.50]").unwrap());
        end.log = log();
        let done = run_cycle(store, processor, &[&end], 0, 0);
        assert_eq!(done.finished, [Some(State::Completed)]);
        let job = store.job(id).unwrap();
        assert_eq!((job.state, job.result.as_deref(), job.counts.attempt), (State::Completed, Some("[9.50]"), 1));
        let (started, finished) = (job.times.started_at.unwrap(), job.times.finished_at.unwrap());
        assert_eq!(finished.since(started), Duration::from_millis(1234));
        let attempts = store.attempts(&job).unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!((attempts[0].number, attempts[0].ending, &attempts[0].error), (1, Some(Ending::Completed), &None));
        assert_eq!((attempts[0].log_bytes, attempts[0].log_dropped), (18, 5555));
        assert_eq!((attempts[0].started_at, attempts[0].finished_at), (Some(started), Some(finished)));
        let kept = store.log(id, 1).unwrap();
        assert_eq!(kept, log());
        let parts: Vec<_> = kept.parts().collect();
        assert_eq!(parts, [(Stream::Out, &b"to stdout"[..], false), (Stream::Err, &b"to stderr"[..], true)]);
        assert!(store.log(id, 2).unwrap().is_empty());
    }

    fn a_silent_success_is_told_without_a_row_of_its_own(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let running = store.job(id).unwrap();
        let attempts = store.attempts(&running).unwrap();
        assert_eq!((attempts[0].number, attempts[0].ending, attempts[0].started_at), (1, None, running.times.started_at));
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        let job = store.job(id).unwrap();
        let attempts = store.attempts(&job).unwrap();
        assert_eq!((attempts.len(), attempts[0].ending, attempts[0].finished_at), (1, Some(Ending::Completed), job.times.finished_at));
    }

    fn a_conflict_waits_and_is_tried_again(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let first = claim(store, processor);
        let mut end = ends(&first, &Outcome::Conflict(Conflict::default()));
        end.decision.pause = Some(LONGEST_PAUSE);
        let done = run_cycle(store, processor, &[&end], 0, 1);
        assert_eq!((done.finished, done.claims.len(), done.status.ready), (vec![Some(State::Delayed)], 0, false));
        let due = store.job(id).unwrap().times.run_at;
        assert_eq!(done.status.next_due, Some(due));
        assert_eq!(due.since(done.status.now), LONGEST_PAUSE);
        // By hand it is ready at once, and its budget is renewed.
        store.cancel(id).unwrap();
        store.retry(id).unwrap();
        let second = claim(store, processor);
        assert_eq!((second.fence.attempt, second.before.conflicts), (2, 0));
    }

    fn due_calls_are_made_ready_by_the_claim(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let mut end = ends(&claim, &Outcome::Conflict(Conflict::default()));
        end.decision.pause = Some(Duration::from_millis(20));
        assert_eq!(run_cycle(store, processor, &[&end], 0, 1).finished, [Some(State::Delayed)]);
        while !store.service_status(&service("events"), None).unwrap().ready {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(state(store, claim.fence.job), State::Delayed);
        let next = run_cycle(store, processor, &[], 0, 1);
        assert_eq!((next.claims[0].fence.attempt, next.claims[0].before.conflicts), (2, 1));
    }

    fn nobody_finishes_what_is_not_theirs(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let (one, other) = (processor(store, 1), processor(store, 2));
        let stale = claim(store, one);
        let mut forged = ends(&stale, &Outcome::Completed);
        forged.fence.processor = other;
        assert_eq!(run_cycle(store, other, &[&forged], 0, 0).finished, [None]);
        forged = ends(&stale, &Outcome::Completed);
        forged.fence.attempt = 2;
        assert_eq!(run_cycle(store, one, &[&forged], 0, 0).finished, [None]);
        assert_eq!(state(store, id), State::Processing);
        store.rescue(one, None, &[]).unwrap();
        let current = claim(store, other);
        let mut late = ends(&stale, &Outcome::Completed);
        late.result = Some(Json::parse("1").unwrap());
        late.log = log();
        assert_eq!(run_cycle(store, one, &[&late], 0, 0).finished, [None]);
        assert_eq!((state(store, id), store.job(id).unwrap().result), (State::Processing, None));
        assert_eq!(run_cycle(store, other, &[&ends(&current, &Outcome::Completed)], 0, 0).finished, [Some(State::Completed)]);
        assert_eq!(run_cycle(store, other, &[&ends(&current, &Outcome::Completed)], 0, 0).finished, [None]);
    }

    fn calls_that_end_together_are_each_recorded_as_they_ended(store: &mut Store) {
        with_events(store);
        let eight = ServiceChange { concurrency: NonZeroU32::new(8), ..ServiceChange::default() };
        store.set_service(&service("events"), &eight).unwrap();
        let ids: Vec<_> = (1..=9).map(|number| enqueue(store, number)).collect();
        store.cancel(ids[1]).unwrap();
        let processor = processor(store, 1);
        let claims = run_cycle(store, processor, &[], 0, 8).claims;
        let claimed: Vec<_> = claims.iter().map(|claim| claim.fence.job).collect();
        assert_eq!(claimed, [&ids[..1], &ids[2..]].concat());
        for claim in &claims {
            assert_eq!(store.running(claim.fence.job, &claim.token).unwrap().unwrap().fence, claim.fence);
        }
        let mut finished: Vec<_> = claims.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
        // All but the first two are neighbours; of these the second says something, and the third is not this attempt's.
        finished[3].result = Some(Json::parse("14").unwrap());
        finished[4].fence.attempt = 2;
        finished[7] = ends(&claims[7], &Outcome::Failed(Failure::new(FailureKind::Exit, "no")));
        finished.reverse();
        let done = run_cycle(store, processor, &finished.iter().collect::<Vec<_>>(), 0, 0);
        let (completed, error) = (Some(State::Completed), Some(State::Error));
        assert_eq!(done.finished, [error, completed, completed, None, completed, completed, completed, completed]);
        let said: Vec<_> = ids.iter().map(|id| store.job(*id).unwrap()).map(|job| (job.state, job.result)).collect();
        let (quiet, result) = ((State::Completed, None), Some("14".to_owned()));
        assert_eq!(said[0], quiet);
        assert_eq!(said[1], (State::Cancelled, None));
        assert_eq!(said[2..], [quiet.clone(), quiet.clone(), (State::Completed, result), (State::Processing, None), quiet.clone(), quiet, (State::Error, None)]);
    }

    fn one_of_many_that_end_together_may_not_be_its_processors_any_more(store: &mut Store) {
        with_events(store);
        let eight = ServiceChange { concurrency: NonZeroU32::new(8), ..ServiceChange::default() };
        store.set_service(&service("events"), &eight).unwrap();
        let ids: Vec<_> = (1..=5).map(|number| enqueue(store, number)).collect();
        let processor = processor(store, 1);
        let claims = run_cycle(store, processor, &[], 0, 8).claims;
        let finished: Vec<_> = claims.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
        let early = ends(&claims[2], &Outcome::Interrupted);
        assert_eq!(store.finish(&[&early]).unwrap(), [Some(State::Queued)]);
        let completed = Some(State::Completed);
        let told = store.finish(&finished.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(told, [completed, completed, None, completed, completed]);
        assert_eq!(state(store, ids[2]), State::Queued);
        let job = store.job(ids[4]).unwrap();
        assert_eq!(job.times.finished_at.unwrap().0 - job.times.started_at.unwrap().0, 1234);
        assert_eq!(store.running(ids[4], &claims[4].token).unwrap().map(|it| it.depth), None);
    }

    fn put_back_when_interrupted(store: &mut Store) {
        with_events(store);
        let id = enqueue(store, 1);
        let processor = processor(store, 1);
        let first = claim(store, processor);
        let done = run_cycle(store, processor, &[&ends(&first, &Outcome::Interrupted)], 0, 0);
        assert_eq!((done.finished, done.status.ready), (vec![Some(State::Queued)], true));
        assert_eq!(store.running(id, &first.token).unwrap().map(|it| it.depth), None);
        let second = claim(store, processor);
        assert_eq!((second.fence.attempt, second.before.conflicts), (2, 0));
        assert_ne!(first.token, second.token);
    }

    fn a_service_that_is_not_there_has_nothing_to_do(store: &mut Store) {
        let status = store.service_status(&service("nothing"), Some(ProcessorId(1))).unwrap();
        assert!(status.paused && !status.ready && status.free() == 0);
        store.add_service(&service("nothing"), &wide(two())).unwrap();
        let status = store.service_status(&service("nothing"), None).unwrap();
        assert!(!status.paused && !status.ready && status.free() == 2 && status.next_due.is_none());
    }

    fn the_patient_wait_for_each_other(store: &mut Store) {
        with_events(store);
        let mut other = again(store);
        for store in [&mut *store, &mut other] {
            store.be_patient(Patience::Deadline(Duration::ZERO));
            store.be_patient(Patience::Endless);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100).map(|number| enqueue(&mut other, number)).count());
            assert_eq!((100..200).map(|number| enqueue(store, number)).count(), 100);
        });
        assert_eq!(store.jobs(&JobQuery::default()).unwrap().jobs.len(), 200);
    }
}
