//! Copies of a whole store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use asyncq::Kind;
use asyncq::domain::attempt::Outcome;
use asyncq::domain::job::{JobId, State};
use asyncq::domain::query::{BulkChange, JobChange, JobFilter};
use asyncq::domain::time::Timestamp;
use asyncq::store::{Location, Restoration, RestoreTurn, Store};

use crate::fixture::{PATIENCE, again, call, claim, ends, processor, run_cycle, with_events};

/// The path of a file next to a store.
fn beside(store: &Store, name: &str) -> PathBuf {
    Path::new(store.location().as_os_str()).with_file_name(name)
}

fn open(path: &Path) -> Store {
    Store::open(&Location::File(path.to_owned()), PATIENCE).unwrap()
}

/// The names in the folder of a file.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

conformance! {
    fn a_backup_has_all_that_was_there_and_nothing_that_comes_later(store: &mut Store) {
        with_events(store);
        let first = store.enqueue(&call(1)).unwrap().id();
        let target = beside(store, "b.db");
        let copied = store.back_up(&target).unwrap();
        let second = store.enqueue(&call(2)).unwrap().id();
        let mut backup = open(&target);
        backup.check().unwrap();
        assert_eq!(format!("{:?}", backup.job(first).unwrap()), format!("{:?}", store.job(first).unwrap()));
        assert_eq!(backup.job(second).unwrap_err().kind(), Kind::NotFound);
        let meta = fs::metadata(&target).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o7777), (copied.bytes, 0o600));
        assert_eq!(copied.is_shared, store.has_company().unwrap());
    }

    fn nothing_is_replaced_and_nothing_is_left(store: &mut Store) {
        with_events(store);
        let target = beside(store, "b.db");
        store.back_up(&target).unwrap();
        let before = (names(&target), fs::read(&target).unwrap());
        let mut refused = |name: &str| {
            let target = beside(store, name);
            let error = store.back_up(&target).unwrap_err();
            assert!(error.hint().is_some(), "{error}");
            error.kind()
        };
        assert_eq!(refused("b.db"), Kind::Denied);
        assert_eq!(refused("b.db-wal"), Kind::Denied);
        assert_eq!(refused("b.db-journal"), Kind::Denied);
        assert_eq!(refused("none/b.db"), Kind::NotFound);
        assert_eq!((names(&target), fs::read(&target).unwrap()), before);
    }

    /// Two connections at once, each of which writes while the other one copies.
    fn a_copy_waits_for_no_commit_and_begins_only_once(store: &mut Store) {
        with_events(store);
        let mut other = again(store);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (0..50).map(|_| other.enqueue(&call(1)).unwrap().id()).last().unwrap());
            for number in 0..5 {
                store.back_up(&beside(store, &format!("{number}.db"))).unwrap();
            }
            assert!(store.job(writer.join().unwrap()).is_ok());
        });
        for number in 0..5 {
            open(&beside(store, &format!("{number}.db"))).check().unwrap();
        }
    }

    fn numbers_go_on_a_million_later(store: &mut Store) {
        with_events(store);
        let first = store.enqueue(&call(1)).unwrap().id();
        assert_eq!(store.newest_numbers().unwrap().0, first.0);
        store.number_after(70, 3).unwrap();
        assert_eq!(store.newest_numbers().unwrap(), (1_000_070, 1_000_003));
        store.number_after(70, 3).unwrap();
        assert_eq!(store.enqueue(&call(2)).unwrap().id().0, 2_000_071);
        assert_eq!(processor(store, 1).0, 2_000_004);
    }

    fn what_runs_is_queued_again_without_a_crash(store: &mut Store) {
        with_events(store);
        for number in 1..=3 {
            store.enqueue(&call(number)).unwrap();
        }
        let at_work = processor(store, 1);
        let claims = [claim(store, at_work), claim(store, at_work)];
        store.cancel(claims[1].fence.job).unwrap();
        let back = store.put_back_all().unwrap();
        assert_eq!(back, [(claims[0].fence.job, State::Queued), (claims[1].fence.job, State::Cancelled)]);
        assert_eq!(store.job(claims[0].fence.job).unwrap().counts.crashes, 0);
        assert_eq!(store.processors().unwrap(), []);
        store.check().unwrap();
        let at_work = processor(store, 1);
        assert_eq!(claim(store, at_work).fence.job, claims[0].fence.job);
    }

    fn calls_that_have_ended_since_a_backup_are_counted(store: &mut Store) {
        with_events(store);
        for number in 1..=4 {
            store.enqueue(&call(number)).unwrap();
        }
        let target = beside(store, "b.db");
        store.back_up(&target).unwrap();
        let mut backup = open(&target);
        assert_eq!(backup.run_again(store).unwrap(), 0);
        let at_work = processor(store, 1);
        let claim = claim(store, at_work);
        store.cancel(JobId(2)).unwrap();
        assert_eq!(backup.run_again(store).unwrap(), 1);
        run_cycle(store, at_work, &[&ends(&claim, &Outcome::Completed)], 0, 1);
        assert_eq!((claim.fence.job, backup.run_again(store).unwrap()), (JobId(1), 2));
        // Of another store, nothing is known.
        backup.enqueue(&call(5)).unwrap();
        let mut other = Store::create(&Location::File(beside(store, "other.db")), PATIENCE).unwrap().0;
        with_events(&mut other);
        assert_eq!(backup.run_again(&mut other).unwrap(), 0);
    }

    fn calls_that_are_removed_since_a_backup_are_counted_even_if_none_is_left(store: &mut Store) {
        with_events(store);
        for number in 1..=2 {
            store.enqueue(&call(number)).unwrap();
        }
        let target = beside(store, "b.db");
        store.back_up(&target).unwrap();
        for job in 1..=2 {
            store.cancel(JobId(job)).unwrap();
        }
        let ended = JobFilter { states: JobChange::Remove.states(), ..JobFilter::default() };
        let many = BulkChange { change: JobChange::Remove, filter: ended, before: None, dry_run: false };
        assert_eq!(store.change_many(&many, JobId(0)).unwrap().changed, 2);
        // The service shows that it is the same store.
        assert_eq!(open(&target).run_again(store).unwrap(), 2);
    }

    fn calls_that_a_backup_lacks_are_counted(store: &mut Store) {
        with_events(store);
        let lacking = |store: &mut Store, backup: &mut Store, newest: i64| {
            let newest = JobId(newest);
            store.unended_without(backup, newest).unwrap() + store.unended_after(newest).unwrap()
        };
        for number in 1..=2 {
            store.enqueue(&call(number)).unwrap();
        }
        store.cancel(JobId(2)).unwrap();
        let target = beside(store, "b.db");
        store.back_up(&target).unwrap();
        let mut backup = open(&target);
        assert_eq!(lacking(store, &mut backup, 2), 0);
        for number in 3..=5 {
            store.enqueue(&call(number)).unwrap();
        }
        store.cancel(JobId(4)).unwrap();
        // In the backup it has ended.
        store.retry(JobId(2)).unwrap();
        for newest in [0, 2, 4, 5, 9] {
            assert_eq!(lacking(store, &mut backup, newest), if newest == 0 { 4 } else { 3 }, "{newest}");
        }
        let mut other = Store::create(&Location::File(beside(store, "other.db")), PATIENCE).unwrap().0;
        assert_eq!(lacking(store, &mut other, 5), 4);
    }

    fn a_restoration_takes_the_place_of_the_store(store: &mut Store) {
        with_events(store);
        store.enqueue(&call(1)).unwrap();
        let (location, target) = (store.location().clone(), beside(store, "b.db"));
        store.back_up(&target).unwrap();
        store.enqueue(&call(2)).unwrap();
        let newest = store.newest_numbers().unwrap();
        let turn = RestoreTurn::take(&location).unwrap();
        assert!(turn.has_file());
        assert_eq!(RestoreTurn::take(&location).err().unwrap().kind(), Kind::Busy);
        let ready = Restoration::prepare(turn, &target, PATIENCE, (newest, None)).unwrap();
        let refuse = ready.replace(Timestamp(0), &mut || Err(asyncq::Error::new(Kind::Busy, "no")));
        assert_eq!(refuse.unwrap_err().kind(), Kind::Busy);
        assert_eq!(store.enqueue(&call(3)).unwrap().id().0, 3);
        let turn = RestoreTurn::take(&location).unwrap();
        let ready = Restoration::prepare(turn, &target, PATIENCE, (newest, None)).unwrap();
        let folder = ready.replace(Timestamp(0), &mut || Ok(())).unwrap().unwrap();
        assert!(folder.to_string_lossy().ends_with(".before-restore-19700101T000000Z"), "{}", folder.display());
        assert_eq!(store.enqueue(&call(4)).unwrap_err().kind(), Kind::Io);
        assert_eq!(again(store).enqueue(&call(5)).unwrap().id().0, 1_000_003);
        let file = Path::new(location.as_os_str()).file_name().unwrap();
        assert!(open(&folder.join(file)).job(JobId(3)).is_ok());
        assert!(Store::run_folder_of(&target).ends_with("b.db-asyncq"));
    }
}
