//! Copies of a whole store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use asyncq::Kind;
use asyncq::store::{Location, Store};

use crate::fixture::{PATIENCE, again, call, with_events};

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
        let copied = store.back_up(&target, "b.db".as_ref()).unwrap();
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
        store.back_up(&target, "b.db".as_ref()).unwrap();
        let before = (names(&target), fs::read(&target).unwrap());
        let mut refused = |name: &str| {
            let target = beside(store, name);
            let error = store.back_up(&target, target.file_name().unwrap()).unwrap_err();
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
                store.back_up(&beside(store, &format!("{number}.db")), "b".as_ref()).unwrap();
            }
            assert!(store.job(writer.join().unwrap()).is_ok());
        });
        for number in 0..5 {
            open(&beside(store, &format!("{number}.db"))).check().unwrap();
        }
    }
}
