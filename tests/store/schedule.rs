//! Schedules, by the verbs of the store.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use asyncq::Kind;
use asyncq::domain::attempt::Outcome;
use asyncq::domain::due::{NextTask, Task};
use asyncq::domain::function::{FunctionChange, InputChange};
use asyncq::domain::job::{JobId, State};
use asyncq::domain::lane::Lane;
use asyncq::domain::meta::Meta;
use asyncq::domain::new_job::{Due, NewJob, Priority};
use asyncq::domain::pause::Pause;
use asyncq::domain::removal::IfWaiting;
use asyncq::domain::schedule::{Schedule, ScheduleDefinition, ScheduleName};
use asyncq::domain::secret::Secrets;
use asyncq::domain::service::{Added, Defined, ServiceChange};
use asyncq::domain::signature::Signature;
use asyncq::domain::status::Count;
use asyncq::domain::tick::{Lateness, Missed, Overlap, Skip, TickTrouble, Why};
use asyncq::domain::time::Timestamp;
use asyncq::domain::timetable::{Rule, Timetable};
use asyncq::store::{CycleResult, Location, Store};
use rusqlite::config::DbConfig;

use crate::fixture::{self, again, call, claim, ends, enqueue, function, processor, run_cycle, service, sqlite};

const HOUR: i64 = 3_600_000;

fn name(text: &str) -> ScheduleName {
    ScheduleName::parse(text).unwrap()
}

fn priority(number: i64) -> Priority {
    Priority::new(number).unwrap()
}

fn now() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Every hour, a call of `compute`.
fn hourly() -> ScheduleDefinition {
    let rule = Rule::every(Duration::from_secs(3600)).unwrap();
    ScheduleDefinition {
        call: call(7).call,
        timetable: Timetable::new(rule, None, None).unwrap(),
        lateness: Lateness::new(Missed::Once, None, None).unwrap(),
        priority: priority(5),
        lane: Some(Lane::parse("a lane").unwrap()),
        expires: Some(Duration::from_secs(36_000)),
        meta: Some(Meta::of_texts(&[("tenant", "acme")]).unwrap().unwrap()),
        description: Some("what it is for".to_owned()),
    }
}

fn with(missed: Missed, overlap: Option<Overlap>) -> ScheduleDefinition {
    ScheduleDefinition { lateness: Lateness::new(missed, None, overlap).unwrap(), lane: None, ..hourly() }
}

/// Changes the store as a processor does, whose statements no trigger sees.
fn execute(store: &Store, sql: &str) {
    let Location::File(path) = store.location().clone() else { panic!("a store that is no file") };
    let database = rusqlite::Connection::open(path).unwrap();
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    database.execute_batch(sql).unwrap();
}

/// A service with a function, at a time at which no hour ends soon.
fn with_events(store: &mut Store) {
    while now() % HOUR > HOUR - 20_000 {
        std::thread::sleep(Duration::from_millis(100));
    }
    fixture::with_events(store);
}

/// Has the next tick of all schedules be this one.
fn tick_at(store: &Store, tick: i64) {
    execute(store, &format!("UPDATE asyncq_schedule SET next_tick = {tick}"));
}

fn schedule(store: &mut Store, text: &str) -> Schedule {
    store.schedule(&name(text)).unwrap()
}

/// Fires what is due, and claims nothing.
fn fire(store: &mut Store) -> CycleResult {
    let processor = processor(store, now());
    let done = run_cycle(store, processor, &[], 0, 0);
    store.unregister(processor).unwrap();
    done
}

/// The ticks that have jobs, each with how many it stands for, too.
fn ticks(store: &mut Store, jobs: &[i64]) -> Vec<(i64, i64)> {
    let mut ticks = Vec::new();
    for job in jobs {
        let tick = store.job_tick(JobId(*job)).unwrap().unwrap();
        ticks.push((Timestamp::parse(&tick.tick).unwrap().0 / HOUR, tick.missed));
    }
    ticks
}

conformance! {
    fn a_schedule_is_defined_again_and_again(store: &mut Store) {
        with_events(store);
        let is = hourly();
        let nightly = name("nightly");
        assert_eq!(store.define_schedule(&nightly, &is).unwrap(), Defined::Added);
        assert_eq!(store.define_schedule(&nightly, &is).unwrap(), Defined::Same);
        let next = schedule(store, "nightly").progress.next_tick;
        store.pause_schedules(std::slice::from_ref(&nightly)).unwrap();
        // Other times begin with the next tick from now; anything else leaves the next tick alone.
        tick_at(store, HOUR);
        let other = ScheduleDefinition { priority: priority(7), ..is.clone() };
        assert_eq!(store.define_schedule(&nightly, &other).unwrap(), Defined::Changed);
        let there = schedule(store, "nightly");
        assert_eq!((&there.definition, there.paused, there.progress.next_tick), (&other, true, Some(Timestamp(HOUR))));
        let rule = Rule::every(Duration::from_secs(1800)).unwrap();
        let other = ScheduleDefinition { timetable: Timetable::new(rule, None, None).unwrap(), ..is.clone() };
        assert_eq!(store.define_schedule(&nightly, &other).unwrap(), Defined::Changed);
        let there = schedule(store, "nightly");
        assert_eq!((&there.definition, there.paused), (&other, true));
        assert!(there.progress.next_tick > Some(Timestamp(now())) && there.progress.next_tick <= next);
        let mut nowhere = is;
        nowhere.call.function = function("nothing");
        assert_eq!(store.define_schedule(&nightly, &nowhere).unwrap_err().kind(), asyncq::Kind::NotFound);
        assert_eq!(store.define_schedule(&name("other"), &nowhere).unwrap_err().kind(), asyncq::Kind::NotFound);
        assert_eq!(schedule(store, "nightly").definition, other);
    }

    fn a_schedule_is_kept_as_it_was_added(store: &mut Store) {
        with_events(store);
        let is = hourly();
        assert_eq!(store.add_schedule(&name("nightly"), &is).unwrap(), Added::New);
        assert_eq!(store.add_schedule(&name("nightly"), &is).unwrap(), Added::Same);
        let there = schedule(store, "nightly");
        assert_eq!((&there.definition, there.paused, there.progress.fired), (&is, false, 0));
        let next = there.progress.next_tick.unwrap().0;
        assert!(next > now() && next <= now() + HOUR && next % HOUR == 0, "{next}");
        let error = store.add_schedule(&name("nightly"), &with(Missed::Skip, None)).unwrap_err();
        assert_eq!(error.to_string(), "schedule `nightly` exists with another `--missed`, `--within` and lane");
        assert_eq!(store.schedules(Some(&service("events"))).unwrap(), [there]);
        let error = store.remove_function(&service("events"), &function("compute"), IfWaiting::Cancel).unwrap_err();
        assert_eq!(error.to_string(), "schedule `nightly` calls `events compute`");
        let error = store.remove_service(&service("events"), IfWaiting::Refuse).unwrap_err();
        assert_eq!(error.to_string(), "service `events` has the schedule `nightly`");
        store.remove_service(&service("events"), IfWaiting::Cancel).unwrap();
        assert_eq!(store.schedules(None).unwrap(), []);
        let error = store.schedule(&name("nightly")).unwrap_err();
        assert_eq!(error.to_string(), "there is no schedule `nightly`");
    }

    fn a_tick_makes_a_job_that_is_claimed_at_once(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        store.add_schedule(&name("nightly"), &hourly()).unwrap();
        let next = schedule(store, "nightly").progress.next_tick.unwrap();
        let status = store.service_status(&service("events"), None).unwrap();
        assert_eq!((status.ready, status.next_due, status.next_tick), (false, None, Some(next)));
        assert_eq!(run_cycle(store, processor, &[], 0, 1).claims.len(), 0);
        tick_at(store, next.0 - HOUR);
        assert!(store.service_status(&service("events"), None).unwrap().ready);
        let done = run_cycle(store, processor, &[], 0, 1);
        let [claimed] = &done.claims[..] else { panic!("{done:?}") };
        assert_eq!((&claimed.call, done.status.next_tick, done.status.ready), (&call(7).call, Some(next), false));
        let job = store.job(claimed.fence.job).unwrap();
        assert_eq!((job.options.priority, job.options.lane.as_deref(), job.os_user), (5, Some("a lane"), None));
        assert_eq!(job.options.expires_at, Some(Timestamp(next.0 + 9 * HOUR)));
        assert_eq!((&claimed.meta, job.options.meta), (&hourly().meta, hourly().meta.map(|it| it.as_str().to_owned())));
        assert_eq!(ticks(store, &[job.id.0]), [(next.0 / HOUR - 1, 0)]);
        let there = schedule(store, "nightly").progress;
        assert_eq!((there.fired, there.last_job, there.next_tick), (1, Some(job.id), Some(next)));
        assert_eq!(there.last_tick, Some(Timestamp(next.0 - HOUR)));
    }

    fn missed_ticks_make_jobs_as_the_schedule_says(store: &mut Store) {
        with_events(store);
        for (text, missed) in [("a", Missed::Once), ("b", Missed::Skip), ("c", Missed::All)] {
            store.add_schedule(&name(text), &with(missed, None)).unwrap();
        }
        let next = schedule(store, "a").progress.next_tick.unwrap().0 / HOUR;
        tick_at(store, (next - 4) * HOUR);
        execute(store, "UPDATE asyncq_schedule SET within = 1 WHERE name = 'b'");
        fire(store);
        assert_eq!(ticks(store, &[1, 2, 3, 4, 5]), [(next - 1, 3), (next - 4, 0), (next - 3, 0), (next - 2, 0), (next - 1, 0)]);
        let skipped = schedule(store, "b").progress;
        assert_eq!((skipped.fired, skipped.skipped), (0, 4));
        assert!(matches!(skipped.last_skip, Some(Skip { why: Why::Late { within: 1, .. }, .. })), "{skipped:?}");
    }

    fn a_tick_waits_for_no_job_of_the_one_before(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        for (text, overlap) in [("a", Overlap::Skip), ("b", Overlap::Queue), ("c", Overlap::Allow)] {
            store.add_schedule(&name(text), &with(Missed::Once, Some(overlap))).unwrap();
        }
        let fired = |store: &mut Store| ["a", "b", "c"].map(|text| schedule(store, text).progress.fired);
        let next = schedule(store, "a").progress.next_tick.unwrap().0;
        let tick = |store: &mut Store, hours: i64| {
            // The ticks before stay handled.
            execute(store, &format!("UPDATE asyncq_schedule SET next_tick = {}", next - hours * HOUR));
            execute(store, &format!("UPDATE asyncq_schedule SET last_tick = {}", next - (hours + 1) * HOUR));
            fire(store);
        };
        tick(store, 5);
        assert_eq!(fired(store), [1, 1, 1]);
        // They wait.
        execute(store, "DELETE FROM asyncq_origin");
        tick(store, 4);
        assert_eq!(fired(store), [1, 1, 2]);
        let why = schedule(store, "a").progress.last_skip.unwrap().why;
        assert_eq!(why, Why::Overlap { job: 1, runs: false });
        // They run.
        let claims = run_cycle(store, processor, &[], 0, 2).claims;
        assert_eq!(claims.len(), 2);
        execute(store, "DELETE FROM asyncq_origin");
        tick(store, 3);
        assert_eq!(fired(store), [1, 2, 3]);
        // They have ended.
        let ended: Vec<_> = claims.iter().map(|claim| ends(claim, &Outcome::Completed)).collect();
        run_cycle(store, processor, &ended.iter().collect::<Vec<_>>(), 0, 0);
        execute(store, "DELETE FROM asyncq_origin");
        tick(store, 2);
        assert_eq!(fired(store), [2, 2, 4]);
    }

    fn a_tick_that_has_a_job_makes_none(store: &mut Store) {
        with_events(store);
        store.add_schedule(&name("a"), &with(Missed::All, None)).unwrap();
        let next = schedule(store, "a").progress.next_tick.unwrap();
        let [from, until] = [5, 2].map(|hours| Timestamp(next.0 - hours * HOUR));
        let made = store.backfill(&name("a"), from, Some(until)).unwrap();
        assert_eq!((made.jobs.len(), made.had), (3, 0));
        let made = store.backfill(&name("a"), from, None).unwrap();
        assert_eq!((made.jobs.len(), made.had), (2, 3));
        tick_at(store, next.0 - 5 * HOUR);
        let mut other = again(store);
        fire(store);
        fire(&mut other);
        let there = schedule(store, "a").progress;
        assert_eq!((there.fired, there.skipped, there.next_tick), (0, 0, Some(next)));
        let error = store.backfill(&name("a"), Timestamp(0), None).unwrap_err();
        assert_eq!(error.to_string(), "schedule `a` has more than 10000 ticks then");
        let error = store.backfill(&name("a"), next, None).unwrap_err();
        assert_eq!(error.to_string(), "schedule `a` has no tick then that has passed");
        // A call by hand is none of its ticks, and goes also while it is paused.
        store.pause_schedules(&[name("a")]).unwrap();
        let job = store.run_schedule(&name("a")).unwrap();
        assert!(store.job_tick(job).unwrap().is_some());
        assert_eq!(schedule(store, "a").progress, there);
    }

    fn what_is_paused_does_not_tick(store: &mut Store) {
        with_events(store);
        store.add_schedule(&name("a"), &with(Missed::Once, None)).unwrap();
        let next = schedule(store, "a").progress.next_tick.unwrap();
        // Ticks of a paused service are missed.
        let paused = |paused: bool| ServiceChange { pause: Some(paused.then(Pause::default)), ..ServiceChange::default() };
        store.set_service(&service("events"), &paused(true)).unwrap();
        tick_at(store, next.0 - 3 * HOUR);
        let status = store.service_status(&service("events"), None).unwrap();
        assert_eq!((status.ready, status.next_tick), (false, None));
        fire(store);
        assert_eq!(schedule(store, "a").progress.fired, 0);
        store.set_service(&service("events"), &paused(false)).unwrap();
        fire(store);
        assert_eq!(ticks(store, &[1]), [(next.0 / HOUR - 1, 2)]);
        // A paused schedule goes on with its next tick.
        store.pause_schedules(&[name("a"), name("a")]).unwrap();
        tick_at(store, next.0 - 2 * HOUR);
        fire(store);
        assert_eq!(store.service_status(&service("events"), None).unwrap().next_tick, None);
        store.resume_schedules(&[name("a")]).unwrap();
        let there = schedule(store, "a");
        assert_eq!((there.progress.fired, there.progress.next_tick), (1, Some(next)));
        store.resume_schedules(&[name("a")]).unwrap();
        assert_eq!(schedule(store, "a"), there);
        assert!(store.pause_schedules(&[name("a"), name("b")]).is_err());
        assert!(!schedule(store, "a").paused);
    }

    fn many_schedules_are_due_at_once(store: &mut Store) {
        with_events(store);
        for number in 0..150 {
            store.add_schedule(&name(&format!("s{number}")), &with(Missed::Once, None)).unwrap();
        }
        let next = schedule(store, "s0").progress.next_tick.unwrap();
        tick_at(store, next.0 - HOUR);
        let done = fire(store);
        assert!(done.status.ready && done.status.has_due_ticks());
        let done = fire(store);
        assert!(!done.status.has_due_ticks());
        let fired: u64 = store.schedules(None).unwrap().iter().map(|it| it.progress.fired).sum();
        assert_eq!((fired, ticks(store, &[150]).len()), (150, 1));
    }

    fn a_clock_that_was_ahead_puts_no_schedule_to_sleep(store: &mut Store) {
        with_events(store);
        for text in ["fired", "new", "ended"] {
            store.add_schedule(&name(text), &with(Missed::Once, None)).unwrap();
        }
        let next = schedule(store, "new").progress.next_tick.unwrap();
        let years = 100_000 * HOUR;
        execute(store, &format!(
            "UPDATE asyncq_schema SET clock = {0}; UPDATE asyncq_schedule SET next_tick = {0};
            UPDATE asyncq_schedule SET last_tick = {0} - {HOUR} WHERE name = 'fired';
            UPDATE asyncq_schedule SET last_tick = {0}, next_tick = NULL WHERE name = 'ended'", next.0 + years));
        let done = fire(store);
        assert_eq!(done.troubles.iter().map(|it| &*it.0).collect::<Vec<_>>(), ["ended", "fired", "new"]);
        for text in ["ended", "fired", "new"] {
            let there = schedule(store, text).progress;
            assert_eq!((there.next_tick, there.last_tick), (Some(next), None), "{text}");
        }
        assert!(fire(store).troubles.is_empty());
        // Back by an hour, nothing runs twice.
        tick_at(store, next.0 - HOUR);
        fire(store);
        execute(store, &format!("UPDATE asyncq_schema SET clock = {}", next.0 + HOUR));
        fire(store);
        assert!(store.schedules(None).unwrap().iter().all(|it| it.progress.fired == 1 && it.progress.next_tick == Some(next)));
    }

    fn a_schedule_that_cannot_be_read_keeps_no_other_from_its_ticks(store: &mut Store) {
        with_events(store);
        for text in ["a", "b"] {
            store.add_schedule(&name(text), &with(Missed::Once, None)).unwrap();
        }
        let next = schedule(store, "a").progress.next_tick.unwrap();
        tick_at(store, next.0 - HOUR);
        execute(store, "UPDATE asyncq_schedule SET cron = '99 * * * *', zone = 'UTC', every = NULL WHERE name = 'a'");
        let done = fire(store);
        assert!(matches!(&done.troubles[..], [(_, TickTrouble::Unreadable(_))]), "{:?}", done.troubles);
        assert_eq!((schedule(store, "b").progress.fired, done.status.has_due_ticks()), (1, false));
        let error = store.schedule(&name("a")).unwrap_err();
        assert_eq!(error.to_string(), "the store is damaged: schedule `a`: `99` is not a minute");
        store.pause_schedules(&[name("a")]).unwrap();
        store.remove_schedule(&name("a")).unwrap();
    }

    fn a_rule_of_the_application_skips_a_tick(store: &mut Store) {
        with_events(store);
        store.add_schedule(&name("a"), &with(Missed::Once, None)).unwrap();
        let next = schedule(store, "a").progress.next_tick.unwrap();
        execute(store, "CREATE UNIQUE INDEX app_rule ON asyncq_job (function)");
        tick_at(store, next.0 - HOUR);
        assert!(fire(store).troubles.is_empty());
        tick_at(store, next.0 - HOUR);
        execute(store, "DELETE FROM asyncq_origin; UPDATE asyncq_schedule SET last_tick = NULL, overlap = 'allow'");
        let done = fire(store);
        assert!(matches!(&done.troubles[..], [(_, TickTrouble::Refused(_))]), "{:?}", done.troubles);
        let there = schedule(store, "a").progress;
        assert_eq!((there.fired, there.skipped), (1, 1));
        let Why::Refused { error, hint } = there.last_skip.unwrap().why else { panic!("it was skipped otherwise") };
        assert!(error.unwrap().starts_with("index `app_rule` refuses this: ") && hint.is_some());
    }

    fn what_there_is_to_do_next(store: &mut Store) {
        with_events(store);
        let names = [service("events")];
        let next = |store: &mut Store| store.next_task(&names).unwrap().1.map(|task| (task.at.0, task.what));
        assert_eq!(next(store), None);
        store.add_schedule(&name("a"), &with(Missed::Once, None)).unwrap();
        let tick = schedule(store, "a").progress.next_tick.unwrap().0;
        assert_eq!(next(store), Some((tick, Task::Schedule("a".to_owned()))));
        let due = Timestamp(tick - 1);
        let job = store.enqueue(&NewJob { due: Due::At(due), ..call(1) }).unwrap().id();
        assert_eq!(next(store), Some((due.0, Task::Job(job))));
        let ready = enqueue(store, 2);
        let (now, task) = store.next_task(&names).unwrap();
        assert_eq!(task, Some(NextTask { at: now, service: Some(service("events")), what: Task::Job(ready) }));
        // Without a free slot, only schedules have something to do.
        let processor = processor(store, 1);
        store.set_service(&service("events"), &fixture::wide(NonZeroU32::MIN)).unwrap();
        let claimed = claim(store, processor);
        assert_eq!(next(store), Some((tick, Task::Schedule("a".to_owned()))));
        run_cycle(store, processor, &[&ends(&claimed, &Outcome::Completed)], 0, 0);
        execute(store, &format!("UPDATE asyncq_schema SET clock = {}", tick + HOUR));
        assert!(matches!(next(store), Some((_, Task::Upkeep))));
    }

    fn schedules_that_a_function_does_not_take_are_found(store: &mut Store) {
        with_events(store);
        store.add_schedule(&name("a"), &hourly()).unwrap();
        let takes = |store: &mut Store, text: &str| {
            let takes = Some(Some(Signature::parse(text).unwrap()));
            let inputs = InputChange { takes, secret: Some(Secrets::parse(&["key"]).unwrap()), env_file: None };
            let change = FunctionChange { inputs, ..FunctionChange::default() };
            store.set_function(&service("events"), &function("compute"), &change).unwrap();
        };
        takes(store, "[number:int] --key");
        assert!(store.unfit_schedules(&service("events"), &function("compute")).unwrap().is_empty());
        assert!(store.idle_schedules(&service("events")).unwrap().is_empty());
        assert_eq!(schedule(store, "a").definition.call.kwargs.as_str(), r#"{"key":"•••"}"#);
        takes(store, "--key");
        let unfit = store.unfit_schedules(&service("events"), &function("compute")).unwrap();
        assert_eq!(unfit[0].0, name("a"));
        assert_eq!((unfit.len(), &*unfit[0].1.to_string()), (1, "`events compute` takes no arguments, you gave 1"));
        let idle = store.idle_schedules(&service("events")).unwrap();
        assert_eq!((&idle[0].0, idle[0].1.to_string()), (&unfit[0].0, unfit[0].1.to_string()));
        let tick = schedule(store, "a").progress.next_tick.unwrap().0;
        tick_at(store, tick - HOUR);
        let processor = processor(store, 1);
        run_cycle(store, processor, &[], 0, 0);
        let why = schedule(store, "a").progress.last_skip.unwrap().why;
        assert_eq!(why.to_string(), "`events compute` takes no arguments, you gave 1");
        store.pause_schedules(&[name("a")]).unwrap();
        assert!(store.idle_schedules(&service("events")).unwrap().is_empty());
        assert_eq!(store.run_schedule(&name("a")).unwrap_err().kind(), Kind::Usage);
        // The arguments are still there.
        store.reveal_secrets();
        assert_eq!(schedule(store, "a").definition.call.kwargs.as_str(), r#"{"key":"word"}"#);
        assert!(store.unfit_schedules(&service("events"), &function("other")).is_err());
    }

    fn changes_of_a_schedule(store: &mut Store) {
        with_events(store);
        store.add_schedule(&name("a"), &hourly()).unwrap();
        let next = schedule(store, "a").progress.next_tick.unwrap();
        tick_at(store, next.0 - HOUR);
        // What is due stays due, unless the times change.
        let urgent = |is: &ScheduleDefinition| Ok(ScheduleDefinition { priority: priority(-1), ..is.clone() });
        assert_eq!(store.set_schedule(&name("a"), &urgent).unwrap().definition.priority, priority(-1));
        assert_eq!(schedule(store, "a").progress.next_tick, Some(Timestamp(next.0 - HOUR)));
        let until = |is: &ScheduleDefinition| {
            let timetable = Timetable::new(is.timetable.rule.clone(), None, Some(Timestamp(next.0 + 1)))?;
            Ok(ScheduleDefinition { timetable, ..is.clone() })
        };
        store.set_schedule(&name("a"), &until).unwrap();
        assert_eq!(schedule(store, "a").progress.next_tick, Some(next));
        let late = |is: &ScheduleDefinition| {
            let timetable = Timetable::new(is.timetable.rule.clone(), None, Some(Timestamp(HOUR)))?;
            Ok(ScheduleDefinition { timetable, ..is.clone() })
        };
        let error = store.set_schedule(&name("a"), &late).unwrap_err();
        assert_eq!(error.to_string(), "`every 1h` does not come before --until");
        let nowhere = |is: &ScheduleDefinition| {
            let mut is = is.clone();
            is.call.function = function("compote");
            Ok(is)
        };
        let error = store.set_schedule(&name("a"), &nowhere).unwrap_err();
        assert_eq!(error.to_string(), "service `events` has no function `compote`");
    }
}

#[test]
fn an_overview_counts_calls_and_schedules() {
    sqlite(|store| {
        with_events(store);
        let ids: Vec<_> = (0..5).map(|number| enqueue(store, number)).collect();
        let processor = processor(store, 1);
        claim(store, processor);
        store.cancel(ids[4]).unwrap();
        store.add_schedule(&name("nightly"), &hourly()).unwrap();
        let services = store.services().unwrap();
        for exact in [false, true] {
            let (now, found) = store.overview(&services, exact).unwrap();
            let [events] = &found[..] else { panic!("{found:?}") };
            let queued = Count { number: 3, more: false };
            assert_eq!((events.running, events.queued, events.errors), (1, queued, Count::default()));
            assert!(events.oldest.unwrap() <= now && events.next_due.is_none());
            assert_eq!(events.next_tick.as_ref().unwrap().1, "nightly");
        }
        let events = service("events");
        assert_eq!(store.count_queued(&[&events, &events]).unwrap(), Count { number: 6, more: false });
        assert_eq!(store.count_queued(&[]).unwrap(), Count::default());
        assert_eq!(store.count_schedules(&services).unwrap(), (1, 0));
        assert_eq!(store.count_schedules(&[]).unwrap(), (0, 0));
    });
}

#[test]
fn an_enqueued_call_has_no_tick() {
    sqlite(|store| {
        with_events(store);
        let processor = processor(store, 1);
        let job = enqueue(store, 1);
        assert_eq!(claim(store, processor).fence.job, job);
        assert_eq!(store.job_tick(job).unwrap(), None);
        assert_eq!(store.job(job).unwrap().state, State::Processing);
    });
}
