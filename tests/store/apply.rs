//! Making a store what a manifest says, and writing such a manifest.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::call::{Call, Principal};
use asyncq::domain::function::{Args, CallFormat, Definition, FunctionPolicy, Inputs, Stdin, WorkerLimits};
use asyncq::domain::hook::{HookChange, HookTarget, Hooks};
use asyncq::domain::job::State;
use asyncq::domain::json::Json;
use asyncq::domain::lane::Lane;
use asyncq::domain::manifest::{Manifest, ManifestFunction};
use asyncq::domain::manifest_plan::{ManifestPlan, WantedSchedule, WantedStore};
use asyncq::domain::manifest_text::{EnvValues, manifest_text};
use asyncq::domain::meta::Meta;
use asyncq::domain::new_job::Priority;
use asyncq::domain::pattern::ServiceSelection;
use asyncq::domain::pause::Pause;
use asyncq::domain::rate::Rate;
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::retention::RetentionChange;
use asyncq::domain::retry_policy::{Backoff, FailureList, RetryPolicy};
use asyncq::domain::schedule::{ScheduleDefinition, ScheduleName};
use asyncq::domain::secret::Secrets;
use asyncq::domain::service::ServiceChange;
use asyncq::domain::signature::Signature;
use asyncq::domain::tick::{Lateness, Missed, Overlap};
use asyncq::domain::time::Timestamp;
use asyncq::domain::timetable::{Rule, Timetable};
use asyncq::domain::toml_file::TomlFile;
use asyncq::store::Store;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::fixture::{claim, definition, enqueue, function, processor, service, sqlite, state, with_events};

fn target(text: &str) -> HookTarget {
    HookTarget::parse(text).unwrap()
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::parse(text).unwrap()
}

/// A call of `events/compute` every hour.
fn hourly(schedule: &str) -> WantedSchedule {
    let call =
        Call::new(service("events"), function("compute"), Json::parse("[1]").unwrap(), Json::parse("{}").unwrap());
    let definition = ScheduleDefinition {
        call,
        timetable: Timetable::new(Rule::every(Duration::from_secs(3600)).unwrap(), None, None).unwrap(),
        lateness: Lateness::new(Missed::Once, None, None).unwrap(),
        priority: Priority::default(),
        lane: None,
        expires: None,
        meta: None,
        description: None,
    };
    WantedSchedule { name: name(schedule), definition, paused: None }
}

/// The service `events` with `compute` and a schedule.
fn wanted() -> WantedStore {
    WantedStore {
        services: vec![(
            service("events"),
            ServiceChange { concurrency: NonZeroU32::new(2), ..ServiceChange::default() },
        )],
        functions: vec![(target("events/compute"), definition())],
        schedules: vec![hourly("hourly")],
        prune: true,
    }
}

fn lines(plan: &ManifestPlan) -> Vec<String> {
    plan.changes.iter().map(ToString::to_string).collect()
}

fn apply(store: &mut Store, wanted: &WantedStore) -> Vec<String> {
    let planned = lines(&store.plan_manifest(wanted, IfWaiting::Refuse).unwrap());
    let done = lines(&store.apply_manifest(wanted, IfWaiting::Refuse).unwrap());
    assert_eq!(planned, done);
    done
}

conformance! {
    fn a_plan_is_carried_out_once(store: &mut Store) {
        let mut wanted = wanted();
        assert_eq!(apply(store, &wanted), ["+ service events", "+ function events/compute", "+ schedule hourly"]);
        let _ = store.changed().unwrap();
        assert_eq!(apply(store, &wanted), [""; 0]);
        assert!(!store.changed().unwrap());
        wanted.functions[0].1.env.insert("NAME".to_owned(), "another".to_owned());
        wanted.schedules[0] = WantedSchedule { name: name("daily"), ..hourly("hourly") };
        assert_eq!(apply(store, &wanted), ["~ function events/compute: env changed", "+ schedule daily", "- schedule hourly"]);
        let it = store.function(&service("events"), &function("compute")).unwrap();
        assert_eq!(it.definition.env["NAME"], "another");
        // A worker that has the old environment ends.
        assert!(it.definition.generation > 0);
        assert!(store.schedule(&name("daily")).unwrap().progress.next_tick.is_some());
    }

    fn what_waits_is_cancelled_only_when_told(store: &mut Store) {
        with_events(store);
        let job = enqueue(store, 1);
        let wanted = WantedStore { functions: vec![], schedules: vec![], ..wanted() };
        for verb in [Store::plan_manifest, Store::apply_manifest] {
            assert_eq!(verb(store, &wanted, IfWaiting::Refuse).unwrap_err().kind(), Kind::Denied);
        }
        let plan = store.plan_manifest(&wanted, IfWaiting::Cancel).unwrap();
        assert_eq!((lines(&plan), state(store, job)), (vec!["- function events/compute, cancels 1 waiting call".to_owned()], State::Queued));
        let at_work = processor(store, 1);
        let claimed = claim(store, at_work);
        for verb in [Store::plan_manifest, Store::apply_manifest] {
            assert_eq!(verb(store, &wanted, IfWaiting::Cancel).unwrap_err().kind(), Kind::Busy);
        }
        store.finish(&[&crate::fixture::ends(&claimed, &asyncq::domain::attempt::Outcome::Completed)]).unwrap();
        let job = enqueue(store, 2);
        assert_eq!(lines(&store.apply_manifest(&wanted, IfWaiting::Cancel).unwrap()), lines(&plan));
        assert_eq!(state(store, job), State::Cancelled);
        assert_eq!(store.functions(None).unwrap(), []);
    }

    fn a_refused_file_changes_nothing(store: &mut Store) {
        let mut wanted = wanted();
        wanted.functions[0].1.policy.hooks = Hooks::new([Some(target("events/nowhere")), None]);
        assert_eq!(store.apply_manifest(&wanted, IfWaiting::Refuse).unwrap_err().kind(), Kind::NotFound);
        // The last of its changes is refused while they are carried out.
        wanted.functions[0].1.policy.hooks = Hooks::default();
        let never = Rule::cron("0 0 29 2 */7", "UTC").unwrap();
        let from = Timestamp::parse("2032-03-01T00:00:00Z");
        wanted.schedules[0].definition.timetable = Timetable::new(never, from, None).unwrap();
        assert_eq!(store.apply_manifest(&wanted, IfWaiting::Refuse).unwrap_err().kind(), Kind::Usage);
        assert_eq!(store.services().unwrap(), []);
    }

    fn a_schedule_whose_end_has_passed_is_added_and_never_ticks(store: &mut Store) {
        let mut wanted = wanted();
        let rule = Rule::every(Duration::from_secs(60)).unwrap();
        wanted.schedules[0].definition.timetable = Timetable::new(rule, None, Some(Timestamp(86_400_000))).unwrap();
        apply(store, &wanted);
        assert_eq!(store.schedule(&name("hourly")).unwrap().progress.next_tick, None);
        assert_eq!(apply(store, &wanted), [""; 0]);
    }

    fn functions_of_a_file_are_hooks_of_each_other(store: &mut Store) {
        let mut wanted = wanted();
        let hooks = |text: &str| Hooks::new([Some(target(text)), Some(target("events/compute"))]);
        wanted.functions[0].1.policy.hooks = hooks("events/other");
        let mut other = definition();
        other.policy.hooks = hooks("events/compute");
        wanted.functions.push((target("events/other"), other));
        wanted.services[0].1.hooks = HookChange { on_error: Some(Some(target("events/other"))), on_success: None };
        assert_eq!(apply(store, &wanted).len(), 4);
        // They go together, too; the service lets its hook go.
        let rest = WantedStore {
            services: vec![(service("events"), ServiceChange { hooks: HookChange { on_error: Some(None), on_success: None }, ..ServiceChange::default() })],
            prune: true,
            ..WantedStore::default()
        };
        assert_eq!(apply(store, &rest).len(), 4);
    }

    fn an_export_has_what_was_chosen(store: &mut Store) {
        apply(store, &wanted());
        store.add_service(&service("other"), &ServiceChange::default()).unwrap();
        let there = store.export(&ServiceSelection::default()).unwrap();
        assert_eq!((there.services.len(), there.functions.len(), there.schedules.len()), (2, 1, 1));
        let only = ServiceSelection { services: vec![asyncq::domain::pattern::ServicePattern::parse("o*").unwrap()], except: vec![] };
        let there = store.export(&only).unwrap();
        assert_eq!((there.services.len(), there.functions.len(), there.schedules.len()), (1, 0, 0));
        let none = ServiceSelection { services: vec![asyncq::domain::pattern::ServicePattern::parse("x").unwrap()], except: vec![] };
        assert_eq!(store.export(&none).unwrap_err().kind(), Kind::NotFound);
    }
}

// Random stores.

const SERVICES: [&str; 3] = ["0", "a.b", "mails-1"];
const FUNCTIONS: [&str; 4] = ["_", "Send", "pkg.mod:Class.f", "x-1"];

/// Any text that a command line can pass.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("'''\"\"\"\\".to_owned()),
        Just("a\nb\r\n\tc\u{1b}\u{7f}".to_owned()),
        "[a-z =.'\"\\\\#\\[\\]{}]{0,12}",
        "\\PC{0,12}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 '\"\\\\äß😀{}]{1,12}"
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![1..100_000_u64, 1..3_162_240_000_000_u64].prop_map(Duration::from_millis)
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string()),
        any::<u64>().prop_map(|it| it.to_string()),
        any::<f64>().prop_map(|it| if it.is_finite() { format!("{it:e}") } else { "-0.0".to_owned() }),
        prop_oneof![Just("-0"), Just("1.10"), Just("1E+05"), Just("1e400"), Just("0.5e-7")].prop_map(str::to_owned),
        text().prop_map(|it| serde_json::Value::from(it).to_string()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|it| format!("[{}]", it.join(", "))),
            btree_map(text(), inner, 0..4).prop_map(object),
        ]
    })
}

/// An object whose keys are not in their order.
fn object(entries: BTreeMap<String, String>) -> String {
    let entries: Vec<String> =
        entries.into_iter().rev().map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key))).collect();
    format!("{{{}}}", entries.join(" ,"))
}

fn some_target() -> impl Strategy<Value = HookTarget> {
    (0..SERVICES.len(), 0..FUNCTIONS.len()).prop_map(|(it, of)| target(&format!("{}/{}", SERVICES[it], FUNCTIONS[of])))
}

fn hooks() -> impl Strategy<Value = Hooks> {
    (of(some_target()), of(some_target())).prop_map(|(error, success)| Hooks::new([error, success]))
}

fn some_service() -> impl Strategy<Value = ServiceChange> {
    let rate = prop_oneof![Just("1/s"), Just("1000/s"), Just("5/10m"), Just("7/1h30m")]
        .prop_map(|it| Rate::parse(it).unwrap());
    let rate = (rate, of(1..1000_u32)).prop_map(|(rate, burst)| burst.map_or(rate, |burst| rate.with_burst(burst)));
    let pause = of(of(line().prop_filter("not blank", |it| !it.trim().is_empty())));
    let keep = (of(span()), of(span()))
        .prop_map(|(ended, errors)| RetentionChange { ended: Some(ended), errors: Some(errors) });
    (1..u32::MAX, 1..1000_u32, of(rate), hooks(), pause, keep).prop_map(
        |(concurrency, width, rate, hooks, pause, retention)| {
            let mut of_kind = hooks_of(&hooks);
            ServiceChange {
                concurrency: NonZeroU32::new(concurrency),
                lane_width: NonZeroU32::new(width),
                rate: Some(rate),
                hooks: HookChange { on_error: Some(of_kind.remove(0)), on_success: Some(of_kind.remove(0)) },
                retention,
                pause: Some(pause.map(|why| why.map_or_else(Pause::default, |why| Pause::because(&why).unwrap()))),
            }
        },
    )
}

fn hooks_of(hooks: &Hooks) -> Vec<Option<HookTarget>> {
    asyncq::domain::hook::HookKind::ALL.map(|kind| hooks.get(kind).cloned()).into()
}

fn policy() -> impl Strategy<Value = FunctionPolicy> {
    let backoff = prop_oneof![
        Just(Backoff::default()),
        vec((1..31_622_400_000_u64).prop_map(Duration::from_millis), 1..4).prop_map(Backoff::Listed),
        Just(Backoff::parse("1s..1m1ms").unwrap()),
    ];
    let list = || {
        of(prop_oneof![Just("any"), Just("1,64-78,timeout"), Just("75"), Just("cannot-run,exit"), Just("2-2")]
            .prop_map(|it| FailureList::parse(it).unwrap()))
    };
    let retry = (prop_oneof![Just(0), any::<u32>()], backoff, list(), list(), 1..u32::MAX);
    let retry = retry.prop_map(|(retries, backoff, on, not_on, conflicts)| RetryPolicy {
        retries,
        backoff,
        on,
        not_on,
        conflicts: NonZeroU32::new(conflicts).unwrap(),
    });
    let lane = of(line().prop_map(|it| Lane::parse(&it).unwrap()));
    (lane, prop_oneof![Just(RetryPolicy::default()), retry], hooks(), any::<bool>(), any::<bool>()).prop_map(
        |(lane, retry, hooks, is_local, is_merged)| FunctionPolicy { lane, retry, hooks, is_local, is_merged },
    )
}

/// What a function takes, with secret arguments only where it reads its standard input.
fn inputs() -> impl Strategy<Value = Inputs> {
    let secret = |word: BoxedStrategy<String>| vec(word, 0..3).prop_map(|words| Secrets::parse(&words).unwrap());
    let any_secret = secret(prop_oneof![Just("2".to_owned()), "[a-z]", "[a-z .'\"]{2,8}"].boxed());
    let own_secret = secret(prop_oneof![Just("2"), Just("pin"), Just("html")].prop_map(str::to_owned).boxed());
    let takes = prop_oneof![Just("[user] [pin] [word...] [--more...]"), Just("[pin...] [--html] [--more...]")];
    let described = (takes, own_secret).prop_map(|(takes, secret)| (Some(Signature::parse(takes).unwrap()), secret));
    let both = prop_oneof![any_secret.prop_map(|secret| (None, secret)), described];
    (both, of("[a-z ./'\"]{1,12}")).prop_map(|((takes, secret), env_file)| Inputs { takes, secret, env_file })
}

fn some_function() -> impl Strategy<Value = Definition> {
    let worker = (of(1..i64::MAX as u64), of(span()), of(1..i64::MAX as u64))
        .prop_map(|(calls, idle, growth)| WorkerLimits { calls, idle, growth });
    let format = prop_oneof![
        Just((Args::Words, Stdin::Call)),
        Just((Args::Words, Stdin::Nothing)),
        Just((Args::Stdin, Stdin::Call))
    ];
    let env = btree_map("[A-Za-z_ .'\"]{1,8}", text(), 0..4);
    (vec(text(), 1..4), text(), env, of(span()), of(worker), format, (inputs(), policy())).prop_map(
        |(command, site, env, timeout, worker, (args, stdin), (inputs, policy))| Definition {
            command,
            site: format!("/{site}"),
            env,
            timeout,
            call_format: if worker.is_some() { CallFormat::default() } else { CallFormat::new(args, stdin).unwrap() },
            worker,
            inputs: match stdin {
                Stdin::Nothing if worker.is_none() => Inputs { secret: Secrets::default(), ..inputs },
                _ => inputs,
            },
            policy: FunctionPolicy { is_merged: policy.is_merged && worker.is_none(), ..policy },
            generation: 0,
        },
    )
}

fn some_schedule() -> impl Strategy<Value = (ScheduleDefinition, bool)> {
    let cron = (
        prop_oneof![Just("30 2 * * *"), Just("*/5  1-3 * jan,feb mon-fri"), Just("@daily"), Just("0 0 L 2 *")],
        prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/New_York")],
    );
    let rule = prop_oneof![
        cron.prop_map(|(pattern, zone)| Rule::cron(pattern, zone).unwrap()),
        (1000..200_000_000_u64).prop_map(|it| Rule::every(Duration::from_millis(it)).unwrap()),
    ];
    let times = (of(0..4_000_000_000_000_i64), of(1..5_000_000_000_000_i64));
    let timetable = (rule, times).prop_map(|(rule, (from, after))| {
        let until = after.map(|after| Timestamp(from.unwrap_or_default() + after));
        Timetable::new(rule, from.map(Timestamp), until).unwrap()
    });
    // One that is not over and never ticks is refused.
    let now = Timestamp(i64::try_from(support::place::unix_time()).unwrap());
    let timetable =
        timetable.prop_filter("ticks", move |it| it.until().is_some_and(|until| until <= now) || it.first(now).is_ok());
    let lateness =
        (0..Missed::ALL.len(), of(span()), of(0..Overlap::ALL.len())).prop_map(|(missed, within, overlap)| {
            let (missed, overlap) = (Missed::ALL[missed], overlap.map(|it| Overlap::ALL[it]));
            Lateness::new(missed, within, overlap.filter(|_| missed != Missed::All)).unwrap()
        });
    let principal = of("[a-z @']{1,9}".prop_map(|it| Principal::parse(&it).unwrap()));
    let call = (some_target(), vec(json(), 0..4), btree_map(text(), json(), 0..3), principal, of(text()));
    let meta = of(btree_map("[a-z ]{1,5}", json(), 1..3));
    let description = of(text().prop_filter("not empty", |it| !it.is_empty()));
    let rest = (-1000..=1000_i64, of(line()), of(span()), meta, description, any::<bool>());
    (call, timetable, lateness, rest).prop_filter_map("a valid call", |(call, timetable, lateness, rest)| {
        let (target, args, kwargs, principal, site) = call;
        let args = Json::parse(&format!("[{}]", args.join(","))).ok()?;
        let kwargs = Json::parse(&object(kwargs)).ok()?;
        let call = Call {
            principal,
            site: site.map(|it| format!("/{it}")),
            ..Call::new(target.service, target.function, args, kwargs)
        };
        let (priority, lane, expires, meta, description, paused) = rest;
        let meta = meta.map(|it| Meta::of(Json::parse(&object(it)).ok()?).ok()).unwrap_or_default().flatten();
        let lane = lane.map(|it| Lane::parse(&it).unwrap());
        let priority = Priority::new(priority).unwrap();
        Some((ScheduleDefinition { call, timetable, lateness, priority, lane, expires, meta, description }, paused))
    })
}

/// A store with all functions there are, so that any of them is a hook of any other.
fn some_store() -> impl Strategy<Value = WantedStore> {
    let count = SERVICES.len() * FUNCTIONS.len();
    let parts = (vec(some_service(), SERVICES.len()), vec(some_function(), count), vec(some_schedule(), 0..5));
    parts.prop_map(|(services, functions, schedules)| WantedStore {
        services: SERVICES.iter().map(|it| service(it)).zip(services).collect(),
        functions: SERVICES
            .iter()
            .flat_map(|service| FUNCTIONS.iter().map(move |it| target(&format!("{service}/{it}"))))
            .zip(functions)
            .collect(),
        schedules: schedules
            .into_iter()
            .enumerate()
            .map(|(at, (definition, paused))| WantedSchedule {
                name: name(&format!("s.{at}")),
                definition,
                paused: Some(paused),
            })
            .collect(),
        prune: true,
    })
}

/// What a manifest wants, whose paths are absolute.
fn read(text: &str) -> WantedStore {
    let zone = || panic!("every zone is named");
    let manifest =
        Manifest::parse(TomlFile { name: "it", text }, &zone).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let definition = |it: ManifestFunction| Definition {
        command: it.command,
        site: it.site.unwrap(),
        env: it.env.into_iter().map(|(name, value)| (name, value.unwrap())).collect(),
        timeout: it.timeout,
        worker: it.worker,
        call_format: it.call_format,
        inputs: it.inputs,
        policy: it.policy,
        generation: 0,
    };
    WantedStore {
        services: manifest.services,
        functions: manifest.functions.into_iter().map(|it| (it.target.clone(), definition(it))).collect(),
        schedules: manifest
            .schedules
            .into_iter()
            .map(|it| WantedSchedule { name: it.name, definition: it.definition, paused: it.paused })
            .collect(),
        prune: true,
    }
}

fn export(store: &mut Store) -> String {
    let there = store.export(&ServiceSelection::default()).unwrap();
    manifest_text(&there.services, &there.functions, &there.schedules, EnvValues::Shown)
}

/// For a random store: what it exports changes nothing in it, and makes an empty store the same; another one becomes the same, too.
#[test]
fn an_export_makes_the_same_store() {
    sqlite(|store| {
        // More with `PROPTEST_CASES`.
        let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 10 };
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let store = std::cell::RefCell::new(store);
        let ran = runner.run(&some_store(), |wanted| {
            let store = &mut **store.borrow_mut();
            // From whatever the last case has left.
            store.apply_manifest(&wanted, IfWaiting::Refuse).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let text = export(store);
            let again = read(&text);
            let plan = store.plan_manifest(&again, IfWaiting::Refuse).unwrap();
            prop_assert!(plan.is_empty(), "{:?}\n{text}", lines(&plan));
            let plan = store.plan_manifest(&wanted, IfWaiting::Refuse).unwrap();
            prop_assert!(plan.is_empty(), "{:?}\n{text}", lines(&plan));
            let new = tempfile::tempdir().unwrap();
            let place = asyncq::store::Location::File(new.path().join("queue.db"));
            let mut new = Store::create(&place, crate::fixture::PATIENCE).unwrap().0;
            new.measure_without_disk().unwrap();
            new.apply_manifest(&again, IfWaiting::Refuse).unwrap();
            prop_assert!(new.plan_manifest(&wanted, IfWaiting::Refuse).unwrap().is_empty());
            let again = read(&export(&mut new));
            prop_assert!(new.plan_manifest(&again, IfWaiting::Refuse).unwrap().is_empty());
            Ok(())
        });
        ran.unwrap();
    });
}
