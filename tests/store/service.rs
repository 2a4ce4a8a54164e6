//! Services.

use std::num::NonZeroU32;
use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::attempt::Outcome;
use asyncq::domain::job::State;
use asyncq::domain::needs::{Need, Needs};
use asyncq::domain::new_job::{CallOptions, Due, NewJob};
use asyncq::domain::pattern::{ServicePattern, ServiceSelection};
use asyncq::domain::pause::{Pause, Paused};
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::service::{Added, Defined, ServiceChange};

use crate::fixture::{call, claim, ends, enqueue, processor, run_cycle, service, state, two, wide, with_events};

/// A service with this limit, or with whatever it has.
fn wanted(concurrency: Option<NonZeroU32>) -> ServiceChange {
    ServiceChange { concurrency, ..ServiceChange::default() }
}

conformance! {
    fn adding_is_idempotent(store: &mut Store) {
        assert_eq!(store.add_service(&service("events"), &wide(two())).unwrap(), Added::New);
        assert_eq!(store.add_service(&service("events"), &wide(two())).unwrap(), Added::Same);
        let error = store.add_service(&service("events"), &wide(NonZeroU32::MIN)).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.hint().unwrap().contains("service set events --concurrency 1"));
        assert_eq!(store.service(&service("events")).unwrap().concurrency, two());
    }

    fn defining_adds_or_changes_or_leaves_as_it_is(store: &mut Store) {
        let events = service("events");
        let (two, three) = (Some(two()), NonZeroU32::new(3));
        for (concurrency, outcome, after) in [
            (None, Defined::Added, NonZeroU32::new(1)),
            (two, Defined::Changed, two),
            (two, Defined::Same, two),
            (None, Defined::Same, two),
            (three, Defined::Changed, three),
        ] {
            assert_eq!(store.define_service(&events, &wanted(concurrency)).unwrap(), outcome);
            assert_eq!(Some(store.service(&events).unwrap().concurrency), after);
        }
        store.set_service(&events, &ServiceChange { pause: Some(Some(Pause::default())), ..ServiceChange::default() }).unwrap();
        assert_eq!(store.define_service(&events, &wanted(two)).unwrap(), Defined::Changed);
        assert!(store.service(&events).unwrap().pause.is_some());
        assert_eq!(store.define_service(&service("other"), &wanted(two)).unwrap(), Defined::Added);
        assert_eq!(Some(store.service(&service("other")).unwrap().concurrency), two);
    }

    fn services_are_listed_by_name(store: &mut Store) {
        for name in ["b", "c", "a"] {
            store.add_service(&service(name), &wide(two())).unwrap();
        }
        let names: Vec<_> = store.services().unwrap().into_iter().map(|it| it.name.to_string()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(store.service(&service("d")).unwrap_err().kind(), Kind::NotFound);
    }

    fn changes_leave_the_rest_as_it_is(store: &mut Store) {
        store.add_service(&service("events"), &wide(two())).unwrap();
        store.set_service(&service("events"), &ServiceChange { pause: Some(Some(Pause::default())), ..ServiceChange::default() }).unwrap();
        let three = NonZeroU32::new(3);
        let set = store.set_service(&service("events"), &wanted(three)).unwrap();
        assert_eq!((Some(set.concurrency), set.pause.is_some()), (three, true));
        assert_eq!(store.service(&service("events")).unwrap(), set);
        assert_eq!(store.set_service(&service("x"), &ServiceChange::default()).unwrap_err().kind(), Kind::NotFound);
    }

    fn removing_cancels_only_when_told(store: &mut Store) {
        with_events(store);
        let first = enqueue(store, 1);
        let second = store.enqueue(&NewJob { hold: true, ..call(2) }).unwrap().id();
        let error = store.remove_service(&service("events"), IfWaiting::Refuse).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Denied, "service `events` has 2 waiting jobs"));
        let removed = store.remove_service(&service("events"), IfWaiting::Cancel).unwrap();
        assert_eq!((removed.cancelled, removed.oldest), (2, vec![first, second]));
        assert_eq!((state(store, first), state(store, second)), (State::Cancelled, State::Cancelled));
        assert!(store.services().unwrap().is_empty() && store.functions(None).unwrap().is_empty());
    }

    fn a_service_is_quiet_when_nothing_of_it_is_queued_blocked_running_or_due(store: &mut Store) {
        with_events(store);
        store.add_service(&service("a"), &ServiceChange::default()).unwrap();
        let events = ServiceSelection::only(service("events"));
        let held = store.enqueue(&NewJob { hold: true, ..call(1) }).unwrap().id();
        store.enqueue(&NewJob { due: Due::In(Duration::from_secs(3600)), ..call(2) }).unwrap();
        assert_eq!(store.busy_service(&events).unwrap(), None);

        let mut needs = Needs::default();
        needs.add([held], Need::Completed).unwrap();
        let options = CallOptions { needs, ..CallOptions::default() };
        let blocked = store.enqueue(&NewJob { options, ..call(3) }).unwrap().id();
        assert_eq!(state(store, blocked), State::Blocked);
        assert_eq!(store.busy_service(&events).unwrap(), Some(service("events")));
        let but_for = |pattern| ServiceSelection { except: vec![ServicePattern::parse(pattern).unwrap()], ..ServiceSelection::default() };
        assert_eq!(store.busy_service(&but_for("a*")).unwrap(), Some(service("events")));
        assert_eq!(store.busy_service(&but_for("e*")).unwrap(), None);
        store.cancel(blocked).unwrap();
        assert_eq!(store.busy_service(&events).unwrap(), None);

        enqueue(store, 4);
        assert_eq!(store.busy_service(&events).unwrap(), Some(service("events")));
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        assert_eq!(store.busy_service(&events).unwrap(), Some(service("events")));
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!(store.busy_service(&events).unwrap(), None);

        store.enqueue(&NewJob { due: Due::In(Duration::from_millis(1)), ..call(5) }).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(store.busy_service(&events).unwrap(), Some(service("events")));
        assert_eq!(store.busy_service(&ServiceSelection::only(service("x"))).unwrap_err().kind(), Kind::NotFound);
    }

    fn a_service_with_a_running_job_stays(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let processor = processor(store, 1);
        let claim = claim(store, processor);
        let error = store.remove_service(&service("events"), IfWaiting::Cancel).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        store.remove_service(&service("events"), IfWaiting::Refuse).unwrap();
        assert_eq!(state(store, claim.fence.job), State::Completed);
    }

    fn a_pause_of_the_store_is_apart_from_those_of_services(store: &mut Store) {
        with_events(store);
        let (events, other) = (service("events"), service("other"));
        store.add_service(&other, &wide(two())).unwrap();
        enqueue(store, 1);
        let why = Pause::because("new release").unwrap();
        let select = |names: &[&str]| ServiceSelection {
            services: names.iter().map(|name| ServicePattern::parse(name).unwrap()).collect(),
            ..ServiceSelection::default()
        };
        assert_eq!(store.pause_services(&select(&["o*"]), Some(&Pause::default())).unwrap(), 1);
        assert_eq!(store.pause().unwrap(), None);
        store.set_pause(Some(&why)).unwrap();
        assert_eq!(store.pause().unwrap(), Some(why.clone()));
        for name in [&events, &other] {
            assert_eq!(store.pause_of(name).unwrap(), Some(Paused::Store(why.clone())));
        }
        let processor = processor(store, 1);
        let none = run_cycle(store, processor, &[], 0, 1);
        assert!(none.claims.is_empty() && none.status.paused);
        store.set_pause(None).unwrap();
        let paused = Paused::Service(other.clone(), Pause::default());
        assert_eq!([store.pause_of(&events).unwrap(), store.pause_of(&other).unwrap()], [None, Some(paused)]);

        assert_eq!(store.busy_processors().unwrap(), []);
        let claim = claim(store, processor);
        assert_eq!(store.busy_processors().unwrap(), [(processor, claim.fence.job)]);
        store.set_pause(Some(&Pause::default())).unwrap();
        run_cycle(store, processor, &[&ends(&claim, &Outcome::Completed)], 0, 0);
        assert_eq!((store.busy_processors().unwrap(), store.pause().unwrap()), (vec![], Some(Pause::default())));

        assert_eq!(store.pause_services(&select(&["*"]), None).unwrap(), 2);
        let mut chosen = |names: &[&str]| {
            let services = store.select_services(&select(names)).unwrap();
            services.into_iter().map(|it| it.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen(&["other", "*"]), "other events");
        assert_eq!(chosen(&["x*"]), "");
        let wrong = select(&["*", "x"]);
        let refused = [store.select_services(&wrong).map(drop), store.pause_services(&wrong, None).map(drop)];
        assert_eq!(refused.map(|it| it.unwrap_err().kind()), [Kind::NotFound; 2]);
    }
}
