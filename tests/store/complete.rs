//! What a shell completes, and how little of the store that touches.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use asyncq::domain::attempt::{Failure, FailureKind, Outcome};
use asyncq::domain::completion::Topic;
use asyncq::domain::job::State;
use asyncq::domain::lane::Lane;
use asyncq::domain::new_job::{CallOptions, NewJob};
use asyncq::store::{Patience, Store};

use crate::fixture::{call, ends, enqueue, processor, run_cycle, service, two, wide, with_events};

/// Longer than a shell waits: this is not about time.
const PATIENCE: Patience = Patience::Deadline(Duration::from_secs(10));

fn words(store: &Store, topic: &Topic, start: &str) -> Vec<String> {
    let found = Store::open_to_read(store.location(), PATIENCE).unwrap().completions(topic, start).unwrap();
    found.into_iter().map(|it| it.word).collect()
}

/// The files of a store and next to it, with their sizes, the times of their last changes, and their attributes.
fn files(store: &Store) -> BTreeMap<PathBuf, (u64, i64, i64, usize)> {
    let path = PathBuf::from(store.location().as_os_str());
    let state = |path: PathBuf| {
        let meta = path.symlink_metadata().unwrap();
        let mut names = [0_u8; 1024];
        let attributes = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
        (path, (meta.size(), meta.mtime(), meta.mtime_nsec(), attributes))
    };
    let entries = path.parent().unwrap().read_dir().unwrap();
    // Readers note in the index of the log what they read.
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.to_string_lossy().ends_with("-shm"));
    files.map(state).collect()
}

conformance! {
    fn names_are_found_by_their_beginning(store: &mut Store) {
        with_events(store);
        store.add_service(&service("evening"), &wide(two())).unwrap();
        store.add_service(&service("morning"), &wide(two())).unwrap();
        assert_eq!(words(store, &Topic::Service, "ev"), ["evening", "events"]);
        assert_eq!(words(store, &Topic::Service, ""), ["evening", "events", "morning"]);
        assert_eq!(words(store, &Topic::Function(Some("events".to_owned())), "c"), ["compute"]);
        assert_eq!(words(store, &Topic::Function(Some("morning".to_owned())), ""), [""; 0]);
        assert_eq!(words(store, &Topic::Function(None), ""), ["compute"]);
        assert_eq!(words(store, &Topic::Hook, "eve"), ["evening/", "events/"]);
        assert_eq!(words(store, &Topic::Hook, "events/"), ["events/compute"]);
        assert_eq!(words(store, &Topic::Schedule, ""), [""; 0]);
    }

    fn jobs_are_found_by_their_state_and_the_beginning_of_their_number(store: &mut Store) {
        with_events(store);
        let processor = processor(store, 1);
        let ids: Vec<String> = (1..=12).map(|number| enqueue(store, number).to_string()).collect();
        for message in ["the first\nends so", "the second"] {
            let claims = run_cycle(store, processor, &[], 0, 1).claims;
            let failed = Outcome::Failed(Failure::new(FailureKind::Exit, message));
            run_cycle(store, processor, &[&ends(&claims[0], &failed)], 0, 0);
        }
        let failed = Topic::Job(vec![State::Error]);
        let mut reader = Store::open_to_read(store.location(), PATIENCE).unwrap();
        let about: Vec<_> = reader.completions(&failed, "").unwrap().into_iter().map(|it| (it.word, it.about.unwrap())).collect();
        assert_eq!(about, [
            (ids[1].clone(), "events compute: the second".to_owned()),
            (ids[0].clone(), "events compute: the first".to_owned()),
        ]);
        assert_eq!(words(store, &Topic::Job(vec![State::Queued]), "1"), ["12", "11", "10"]);
        assert_eq!(words(store, &Topic::Job(vec![]), "1"), ["12", "11", "10", "1"]);
        assert_eq!(words(store, &failed, "7"), [""; 0]);
        for none in ["0", "x", "-1"] {
            assert_eq!(words(store, &failed, none), [""; 0]);
        }
    }

    fn lanes_in_use_are_found(store: &mut Store) {
        with_events(store);
        for (number, lane) in [(1, "a lane"), (2, "gpu"), (3, "gpu"), (4, "zoe"), (5, "gpt")] {
            let options = CallOptions { lane: Some(Lane::parse(lane).unwrap()), ..CallOptions::default() };
            store.enqueue(&NewJob { options, ..call(number) }).unwrap();
        }
        let of = |service: &str| Topic::Lane(Some(service.to_owned()));
        assert_eq!(words(store, &Topic::Lane(None), ""), ["a lane", "gpt", "gpu", "zoe"]);
        assert_eq!(words(store, &of("events"), "gp"), ["gpt", "gpu"]);
        assert_eq!(words(store, &of("events"), "z"), ["zoe"]);
        assert_eq!(words(store, &of("other"), ""), [""; 0]);
    }

    fn a_reader_changes_nothing(store: &mut Store) {
        with_events(store);
        enqueue(store, 1);
        let before = files(store);
        assert_eq!(words(store, &Topic::Job(vec![]), ""), ["1"]);
        assert_eq!(files(store), before);
        // Another client leaves nothing next to the store, as `sqlite3` does.
        let path = PathBuf::from(store.location().as_os_str());
        let copy = path.with_extension("copy");
        let others = rusqlite::Connection::open(&path).unwrap();
        others.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        let location = asyncq::store::Location::File(copy.clone());
        for mode in ["WAL", "DELETE"] {
            rusqlite::Connection::open(&copy).unwrap().pragma_update(None, "journal_mode", mode).unwrap();
            let before = files(store);
            let found = Store::open_to_read(&location, PATIENCE).unwrap().completions(&Topic::Service, "").unwrap();
            assert_eq!((found.len(), found[0].word.as_str()), (1, "events"));
            assert_eq!(files(store), before, "{mode}");
        }
        // Nobody upgrades a store by looking at it, nor trusts a newer one.
        let client = rusqlite::Connection::open(&copy).unwrap();
        for version in [1, 99] {
            client.execute("UPDATE asyncq_schema SET version = ?1", [version]).unwrap();
            let found = Store::open_to_read(&location, PATIENCE).unwrap().completions(&Topic::Service, "").unwrap();
            assert!(found.is_empty());
        }
    }
}
