//! Hooks of ends that no call reports itself, and hooks that are gone.

use asyncq::domain::attempt::{FailureKind, Outcome};
use asyncq::domain::function::{FunctionChange, PolicyChange};
use asyncq::domain::hook::{EndHooks, HookChange, HookTarget};
use asyncq::domain::job::{Finish, JobId, State};
use asyncq::domain::retry::CRASHES;
use asyncq::domain::service::ServiceChange;
use asyncq::store::Store;

use crate::fixture::{claim, definition, ends, enqueue, function, processor, service, state, with_events};

/// A store with `events/compute`, whose hook after an error and a success is `alerts/page`.
fn with_hooks(store: &mut Store) {
    with_events(store);
    store.add_service(&service("alerts"), &ServiceChange::default()).unwrap();
    store.add_function(&service("alerts"), &function("page"), &definition()).unwrap();
    let page = HookTarget { service: service("alerts"), function: function("page") };
    let hooks = HookChange { on_error: Some(Some(page.clone())), on_success: Some(Some(page)) };
    let change =
        FunctionChange { policy: PolicyChange { hooks, ..PolicyChange::default() }, ..FunctionChange::default() };
    store.set_function(&service("events"), &function("compute"), &change).unwrap();
}

conformance! {
    fn the_third_crash_calls_the_hook(store: &mut Store) {
        with_hooks(store);
        let job = enqueue(store, 1);
        for crash in 1..=CRASHES {
            let dead = processor(store, crash);
            let _ = claim(store, dead);
            let rescued = store.rescue(dead, None, &[]).unwrap();
            let expected = if crash == CRASHES { State::Error } else { State::Queued };
            assert_eq!(rescued.jobs, [(job, expected)]);
            assert_eq!(store.job(JobId(2)).is_ok(), crash == CRASHES);
        }
        let hook = store.job(JobId(2)).unwrap();
        assert_eq!((hook.call.function.as_str(), hook.state, hook.parent), ("page", State::Queued, Some(job)));
        assert!(hook.call.kwargs.contains(r#""kind":"crash","message":"the processor died in 3 attempts""#));
    }

    fn hooks_that_are_not_known_are_looked_up(store: &mut Store) {
        with_hooks(store);
        let at_work = processor(store, 1);
        for outcome in [Outcome::Completed, Outcome::Interrupted] {
            enqueue(store, 1);
            let claim = claim(store, at_work);
            let end = Finish { hooks: EndHooks::Unknown, ..ends(&claim, &outcome) };
            store.finish(&[&end]).unwrap();
        }
        assert_eq!(store.job(JobId(2)).unwrap().call.service, "alerts");
        assert!(store.job(JobId(4)).is_err());
    }

    fn a_claim_knows_the_hooks_and_an_end_without_any_calls_none(store: &mut Store) {
        with_hooks(store);
        let at_work = processor(store, 1);
        enqueue(store, 1);
        let claim = claim(store, at_work);
        let hooks = EndHooks::Known(claim.definition.policy.hooks.clone());
        assert_eq!(claim.definition.policy.hooks.targets().count(), 2);
        store.finish(&[&ends(&claim, &Outcome::Completed)]).unwrap();
        assert!(store.job(JobId(2)).is_err());
        enqueue(store, 1);
        let claim = crate::fixture::claim(store, at_work);
        store.finish(&[&Finish { hooks, ..ends(&claim, &Outcome::Completed) }]).unwrap();
        assert_eq!(store.job(JobId(3)).unwrap().parent, Some(JobId(2)));
    }

    fn an_end_whose_hook_is_gone_is_recorded(store: &mut Store) {
        with_hooks(store);
        let at_work = processor(store, 1);
        let job = enqueue(store, 1);
        let claim = claim(store, at_work);
        let hooks = EndHooks::Known(claim.definition.policy.hooks.clone());
        let none = HookChange { on_error: Some(None), on_success: Some(None) };
        let change = FunctionChange { policy: PolicyChange { hooks: none, ..PolicyChange::default() }, ..FunctionChange::default() };
        store.set_function(&service("events"), &function("compute"), &change).unwrap();
        store.remove_service(&service("alerts"), asyncq::domain::removal::IfWaiting::Refuse).unwrap();
        store.finish(&[&Finish { hooks, ..ends(&claim, &Outcome::Completed) }]).unwrap();
        assert_eq!(state(store, job), State::Completed);
        let lost = store.job(JobId(2)).unwrap();
        let error = lost.error.unwrap();
        assert_eq!((lost.state, lost.times.finished_at.is_some(), error.kind), (State::Error, true, FailureKind::CannotRun));
        assert_eq!(error.message, "there is no service `alerts`");
    }
}
