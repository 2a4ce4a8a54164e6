//! Functions.

use std::collections::BTreeMap;
use std::time::Duration;

use asyncq::Kind;
use asyncq::domain::function::{
    CallFormat, Definition, FunctionChange, FunctionPolicy, InputChange, PolicyChange, WantedFunction, WorkerLimits,
};
use asyncq::domain::json::Json;
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::secret::Secrets;
use asyncq::domain::service::{Added, Defined};
use asyncq::domain::signature::Signature;
use asyncq::store::Store;

use crate::fixture::{call, definition, enqueue, function, service, two, wide, with_events};

/// A function of which nothing is wanted but that it is there.
fn anything(name: &str) -> WantedFunction {
    WantedFunction {
        service: service("events"),
        name: function(name),
        command: None,
        site: None,
        env: BTreeMap::new(),
        timeout: None,
        worker: None,
        inputs: InputChange::default(),
        policy: PolicyChange::default(),
    }
}

/// What a program wants that registers `definition`.
fn wanted() -> WantedFunction {
    let Definition { command, site, env, timeout, .. } = definition();
    WantedFunction { command: Some(command), site: Some(site), env, timeout: Some(timeout), ..anything("compute") }
}

/// Registers a function; gives what that did, and what differed.
fn register(store: &mut Store, wanted: &WantedFunction, change: bool) -> (Defined, Vec<&'static str>) {
    let done = store.define_functions(std::slice::from_ref(wanted), change).unwrap().remove(0);
    (done.outcome, done.differs)
}

conformance! {
    fn everything_is_kept(store: &mut Store) {
        with_events(store);
        let kept = store.function(&service("events"), &function("compute")).unwrap();
        assert_eq!((kept.service, kept.name, kept.definition), (service("events"), function("compute"), definition()));
        let bare = Definition { env: BTreeMap::new(), timeout: None, ..definition() };
        store.add_function(&service("events"), &function("bare"), &bare).unwrap();
        assert_eq!(store.function(&service("events"), &function("bare")).unwrap().definition, bare);
        for takes in [CallFormat::Words, CallFormat::Stdin, CallFormat::WordsAndStdin] {
            let change = FunctionChange { call_format: Some(takes), ..FunctionChange::default() };
            store.set_function(&service("events"), &function("bare"), &change).unwrap();
            assert_eq!(store.function(&service("events"), &function("bare")).unwrap().definition.call_format, takes);
        }
    }

    fn what_a_function_takes_is_kept_and_checked(store: &mut Store) {
        with_events(store);
        let (events, compute) = (service("events"), function("compute"));
        let inputs = InputChange {
            takes: Some(Some(Signature::parse("a:int [b] [--key:text]").unwrap())),
            secret: Some(Secrets::parse(&["key", "2"]).unwrap()),
            env_file: Some(Some("secrets.env".to_owned())),
        };
        let set = |store: &mut Store, inputs: InputChange| {
            store.set_function(&events, &compute, &FunctionChange { inputs, ..FunctionChange::default() })
        };
        let kept = set(store, inputs.clone()).unwrap().definition;
        assert_eq!(store.function(&events, &compute).unwrap().definition, kept);
        let two = function("two");
        store.add_function(&events, &two, &kept).unwrap();
        assert_eq!(store.add_function(&events, &two, &kept).unwrap(), Added::Same);
        for (member, change) in [
            ("takes", InputChange { takes: inputs.takes.clone(), ..InputChange::default() }),
            ("secret", InputChange { secret: Some(Secrets::default()), ..InputChange::default() }),
            ("env_file", InputChange { env_file: Some(None), ..InputChange::default() }),
        ] {
            let wanted = |inputs| WantedFunction { inputs, ..anything("compute") };
            assert_eq!(register(store, &wanted(inputs.clone()), true), (Defined::Same, vec![]), "{member}");
            let (wanted, differs) = (wanted(change), if member == "takes" { vec![] } else { vec![member] });
            let outcomes = if member == "takes" { [Defined::Same; 2] } else { [Defined::Kept, Defined::Changed] };
            assert_eq!(register(store, &wanted, false), (outcomes[0], differs.clone()), "{member}");
            assert_eq!(register(store, &wanted, true), (outcomes[1], differs), "{member}");
            set(store, inputs.clone()).unwrap();
        }
        // A function without a signature gets one only by a change.
        set(store, InputChange { takes: Some(None), ..InputChange::default() }).unwrap();
        let wanted = WantedFunction { inputs: inputs.clone(), ..anything("compute") };
        assert_eq!(register(store, &wanted, false), (Defined::Same, vec![]));
        assert_eq!(register(store, &wanted, true), (Defined::Changed, vec!["takes"]));
        let error = set(store, InputChange { takes: Some(Some(Signature::default())), ..InputChange::default() });
        assert_eq!(error.unwrap_err().to_string(), "the function has no argument `key` that could be secret");
        assert!(store.function(&events, &compute).unwrap().definition.is_like(&kept));
    }

    fn a_call_is_kept_as_its_function_takes_it(store: &mut Store) {
        with_events(store);
        let takes = Some(Some(Signature::parse("number:text key").unwrap()));
        let inputs = InputChange { takes, secret: Some(Secrets::parse(&["key"]).unwrap()), env_file: None };
        let change = FunctionChange { inputs, ..FunctionChange::default() };
        store.set_function(&service("events"), &function("compute"), &change).unwrap();
        let mut new = call(7);
        let error = store.enqueue(&new).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (Kind::Usage, "`events compute` takes text as `number`, you gave a whole number"));
        new.call.is_typed = true;
        let id = store.enqueue(&new).unwrap().id();
        let shown = |store: &mut Store| {
            let call = store.job(id).unwrap().call;
            (call.args, call.kwargs)
        };
        assert_eq!(shown(store), (r#"["7","•••"]"#.to_owned(), "{}".to_owned()));
        store.reveal_secrets();
        assert_eq!(shown(store), (r#"["7","word"]"#.to_owned(), "{}".to_owned()));
        // Of many calls together, those that do not fit are refused.
        new.call.is_typed = false;
        new.call.args = Json::parse(r#"["7"]"#).unwrap();
        let mut many = vec![new; 120];
        for wrong in [3, 60] {
            many[wrong].call.args = Json::parse("[]").unwrap();
            many[wrong].call.kwargs = Json::parse("{}").unwrap();
        }
        let done = store.enqueue_each(&many).unwrap();
        let refused: Vec<usize> = (0..many.len()).filter(|at| done[*at].is_err()).collect();
        assert_eq!(refused, [3, 60]);
        assert_eq!(store.enqueue_all(&many).unwrap_err().call, Some(3));
    }

    fn adding_what_is_there_fires_no_trigger_of_the_application(store: &mut Store) {
        with_events(store);
        let app = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
        for table in ["asyncq_service", "asyncq_function"] {
            let sql = "BEGIN SELECT RAISE(ABORT, 'nothing new'); END";
            app.execute_batch(&format!("CREATE TRIGGER app_{table} BEFORE INSERT ON {table} {sql}")).unwrap();
        }
        let (on, name) = (service("events"), function("compute"));
        assert_eq!(store.add_service(&on, &wide(two())).unwrap(), Added::Same);
        assert_eq!(store.add_function(&on, &name, &definition()).unwrap(), Added::Same);
        assert_eq!(store.add_service(&service("more"), &wide(two())).unwrap_err().kind(), Kind::Denied);
        assert_eq!(store.add_function(&on, &function("more"), &definition()).unwrap_err().kind(), Kind::Denied);
    }

    fn registering_adds_and_changes_only_what_is_wanted(store: &mut Store) {
        store.add_service(&service("events"), &wide(two())).unwrap();
        let is = |store: &mut Store| store.function(&service("events"), &function("compute")).unwrap().definition;
        assert_eq!(register(store, &wanted(), false), (Defined::Added, vec![]));
        assert_eq!(is(store), definition());
        for same in [wanted(), anything("compute"), WantedFunction { worker: Some(None), ..wanted() }] {
            assert_eq!(register(store, &same, true), (Defined::Same, vec![]));
        }
        let other = WantedFunction {
            command: Some(vec!["/other".to_owned()]),
            site: Some("/other".to_owned()),
            env: BTreeMap::from([("OTHER".to_owned(), "value".to_owned())]),
            timeout: Some(None),
            worker: Some(Some(WorkerLimits { calls: Some(5), ..WorkerLimits::default() })),
            ..anything("compute")
        };
        let all = vec!["command", "site", "env", "worker", "timeout"];
        assert_eq!(register(store, &other, false), (Defined::Kept, all.clone()));
        assert_eq!(is(store), definition());
        assert_eq!(register(store, &other, true), (Defined::Changed, all));
        let changed = is(store);
        assert!(changed.generation > 0);
        let mut env = definition().env;
        env.extend(other.env.clone());
        assert_eq!((changed.env, changed.timeout, &changed.site[..]), (env, None, "/other"));
        // A worker with any limits, or with another one besides.
        let worker = |limits| WantedFunction { worker: Some(Some(limits)), ..anything("compute") };
        assert_eq!(register(store, &worker(WorkerLimits::default()), false), (Defined::Same, vec![]));
        let idle = WorkerLimits { idle: Some(Duration::from_secs(9)), ..WorkerLimits::default() };
        assert_eq!(register(store, &worker(idle), true), (Defined::Changed, vec!["worker"]));
        assert_eq!(is(store).worker, Some(WorkerLimits { calls: Some(5), ..idle }));
        let command = WantedFunction { worker: Some(None), ..anything("compute") };
        assert_eq!(register(store, &command, true), (Defined::Changed, vec!["worker"]));
    }

    fn registering_makes_a_command_a_worker_whatever_its_format(store: &mut Store) {
        with_events(store);
        let change = FunctionChange { call_format: Some(CallFormat::Stdin), ..FunctionChange::default() };
        store.set_function(&service("events"), &function("compute"), &change).unwrap();
        assert_eq!(register(store, &wanted(), true), (Defined::Same, vec![]));
        let worker = WantedFunction { worker: Some(Some(WorkerLimits::default())), ..wanted() };
        assert_eq!(register(store, &worker, true), (Defined::Changed, vec!["worker"]));
        let is = store.function(&service("events"), &function("compute")).unwrap().definition;
        assert_eq!((is.worker, is.call_format), (Some(WorkerLimits::default()), CallFormat::default()));
    }

    fn registering_is_all_or_nothing(store: &mut Store) {
        with_events(store);
        let new = WantedFunction { name: function("new"), ..wanted() };
        let unknown = WantedFunction { service: service("evnts"), ..new.clone() };
        let error = store.define_functions(&[new.clone(), unknown], true).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "there is no service `evnts`"));
        let error = store.define_functions(&[new.clone(), anything("bare")], true).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Invalid, "function `bare` of service `events` is new, so it needs `command` and `site`")
        );
        assert_eq!(store.functions(None).unwrap().len(), 1);
        let done = store.define_functions(&[new.clone(), wanted(), new], false).unwrap();
        let outcomes: Vec<Defined> = done.into_iter().map(|done| done.outcome).collect();
        assert_eq!(outcomes, [Defined::Added, Defined::Same, Defined::Same]);
    }

    fn adding_is_idempotent(store: &mut Store) {
        with_events(store);
        let (on, name) = (service("events"), function("compute"));
        assert_eq!(store.add_function(&on, &name, &definition()).unwrap(), Added::Same);
        for other in [
            Definition { command: vec!["/other".to_owned()], ..definition() },
            Definition { site: "/other".to_owned(), ..definition() },
            Definition { env: BTreeMap::new(), ..definition() },
            Definition { timeout: None, ..definition() },
            Definition { call_format: CallFormat::Words, ..definition() },
        ] {
            assert_eq!(store.add_function(&on, &name, &other).unwrap_err().kind(), Kind::Denied);
        }
        let (mut from, mut to) = (definition(), definition());
        "/the/release".clone_into(&mut from.site);
        "/bin/link".clone_into(&mut to.command[0]);
        assert!(!store.repath_function(&on, &name, &from, &to).unwrap());
        assert!(!store.repath_function(&on, &function("other"), &definition(), &to).unwrap());
        assert!(!store.repath_function(&service("evnts"), &name, &definition(), &to).unwrap());
        assert_eq!(store.function(&on, &name).unwrap().definition, definition());
        "/the/link".clone_into(&mut to.site);
        assert!(store.repath_function(&on, &name, &definition(), &to).unwrap());
        assert_eq!(store.function(&on, &name).unwrap().definition, to);
        assert!(store.repath_function(&on, &name, &to, &definition()).unwrap());
        let unknown = store.add_function(&service("evnts"), &function("compute"), &definition()).unwrap_err();
        assert_eq!(unknown.kind(), Kind::NotFound);
        assert!(unknown.hint().unwrap().contains("`events`"));
    }

    fn a_reload_is_later_than_any_before(store: &mut Store) {
        with_events(store);
        let (events, others) = (service("events"), service("others"));
        let (name, more) = (function("compute"), function("more"));
        store.add_service(&others, &wide(two())).unwrap();
        store.add_function(&others, &name, &definition()).unwrap();
        store.add_function(&others, &more, &definition()).unwrap();
        let generation = |store: &mut asyncq::store::Store, on, name| store.function(on, name).unwrap().definition.generation;
        assert_eq!(generation(store, &events, &name), 0);
        assert_eq!(store.reload_functions(Some(&events), Some(&name)).unwrap(), 1);
        let first = generation(store, &events, &name);
        assert!(first > 0 && generation(store, &others, &name) == 0);
        assert_eq!(store.reload_functions(Some(&others), None).unwrap(), 2);
        let second = generation(store, &others, &name);
        assert!(second > first && generation(store, &others, &more) == second);
        assert_eq!(store.reload_functions(None, None).unwrap(), 3);
        let third = generation(store, &events, &name);
        assert!(third > second);
        // The same one is the same, and what does not concern a worker is no deploy.
        assert_eq!(store.add_function(&events, &name, &definition()).unwrap(), Added::Same);
        let change = FunctionChange { timeout: Some(None), ..FunctionChange::default() };
        assert_eq!(store.set_function(&events, &name, &change).unwrap().definition.generation, third);
        let change = FunctionChange { command: Some(vec!["/other".to_owned()]), ..FunctionChange::default() };
        let set = store.set_function(&events, &name, &change).unwrap().definition;
        assert!(set.generation > third && store.function(&events, &name).unwrap().definition == set);
        assert_eq!(store.reload_functions(Some(&service("no")), None).unwrap_err().kind(), Kind::NotFound);
        let none = store.reload_functions(Some(&events), Some(&function("no"))).unwrap_err();
        assert_eq!(none.kind(), Kind::NotFound);
    }

    fn functions_are_listed_by_service_and_name(store: &mut Store) {
        with_events(store);
        store.add_service(&service("a"), &wide(two())).unwrap();
        for (on, name) in [("events", "b"), ("a", "z"), ("a", "y")] {
            store.add_function(&service(on), &function(name), &definition()).unwrap();
        }
        let names = |found: Vec<asyncq::domain::function::Function>| -> Vec<String> {
            found.into_iter().map(|it| format!("{} {}", it.service, it.name)).collect()
        };
        assert_eq!(names(store.functions(None).unwrap()), ["a y", "a z", "events b", "events compute"]);
        assert_eq!(names(store.functions(Some(&service("a"))).unwrap()), ["a y", "a z"]);
        assert_eq!(store.functions(Some(&service("b"))).unwrap_err().kind(), Kind::NotFound);
    }

    fn changes_leave_the_rest_as_it_is(store: &mut Store) {
        with_events(store);
        let change = FunctionChange { timeout: Some(None), ..FunctionChange::default() };
        let set = store.set_function(&service("events"), &function("compute"), &change).unwrap();
        assert_eq!(set.definition, Definition { timeout: None, ..definition() });
        let change = FunctionChange {
            env: BTreeMap::from([("NAME".to_owned(), None), ("NEW".to_owned(), Some("value".to_owned()))]),
            ..FunctionChange::default()
        };
        store.set_function(&service("events"), &function("compute"), &change).unwrap();
        let env = store.function(&service("events"), &function("compute")).unwrap().definition.env;
        assert_eq!(env, BTreeMap::from([("NEW".to_owned(), "value".to_owned())]));
        assert_eq!(store.set_function(&service("events"), &function("x"), &change).unwrap_err().kind(), Kind::NotFound);
    }

    fn removing_cancels_only_its_own_jobs(store: &mut Store) {
        with_events(store);
        store.add_function(&service("events"), &function("other"), &definition()).unwrap();
        let id = enqueue(store, 1);
        store.remove_function(&service("events"), &function("other"), IfWaiting::Refuse).unwrap();
        let error = store.remove_function(&service("events"), &function("compute"), IfWaiting::Refuse).unwrap_err();
        assert_eq!(error.to_string(), "function `compute` of service `events` has 1 waiting job");
        let removed = store.remove_function(&service("events"), &function("compute"), IfWaiting::Cancel).unwrap();
        assert_eq!((removed.cancelled, removed.oldest), (1, vec![id]));
        assert_eq!(store.function(&service("events"), &function("compute")).unwrap_err().kind(), Kind::NotFound);
    }

    fn a_service_comes_with_a_function_or_not_at_all(store: &mut Store) {
        let (shell, run) = (service("shell"), function("run"));
        let policy = FunctionPolicy { is_local: true, ..FunctionPolicy::default() };
        let is = Definition { policy, ..definition() };
        assert_eq!(store.add_service_with(&shell, &run, &is).unwrap(), Some(Added::New));
        assert_eq!(store.add_service_with(&shell, &run, &definition()).unwrap(), Some(Added::Same));
        assert_eq!(store.function(&shell, &run).unwrap().definition, is);
        assert_eq!(store.add_service_with(&shell, &function("other"), &definition()).unwrap(), None);
        assert_eq!(store.function(&shell, &function("other")).unwrap_err().kind(), Kind::NotFound);
    }
}
