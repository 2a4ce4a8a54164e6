//! Opening, making, upgrading.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use asyncq::Kind;
use asyncq::domain::call::Reading;
use asyncq::store::{Location, Store};

use crate::fixture::{PATIENCE, again, call, service, two, wide, with_events};

conformance! {
    fn a_store_is_made_once(store: &mut Store) {
        store.add_service(&service("events"), &wide(two())).unwrap();
        let (mut same, made) = Store::create(store.location(), PATIENCE).unwrap();
        assert!(!made);
        assert_eq!(same.services().unwrap().len(), 1);
        same.check().unwrap();
        assert_eq!(same.mend().unwrap(), []);
        assert!(store.run_folder().to_string_lossy().ends_with("-asyncq"));
    }

    fn what_others_change_is_seen(store: &mut Store) {
        let mut other = again(store);
        store.changed().unwrap();
        assert!(!store.changed().unwrap());
        store.services().unwrap();
        assert!(!store.changed().unwrap());
        other.add_service(&service("events"), &wide(two())).unwrap();
        assert!(store.changed().unwrap());
        assert!(!store.changed().unwrap());
    }

    fn a_store_that_was_moved_away_is_of_use_when_it_is_back(store: &mut Store) {
        let path = PathBuf::from(store.location().as_os_str());
        let away = path.with_extension("away");
        for _ in 0..2 {
            std::fs::rename(&path, &away).unwrap();
            assert_eq!(store.add_service(&service("events"), &wide(two())).unwrap_err().kind(), Kind::Io);
            assert_eq!(store.services().unwrap_err().kind(), Kind::Io);
            assert_eq!(store.still_there().unwrap_err().kind(), Kind::Io);
            std::fs::rename(&away, &path).unwrap();
            store.still_there().unwrap();
            again(store).services().unwrap();
            store.services().unwrap();
        }
        again(store).add_service(&service("events"), &wide(two())).unwrap();
        store.add_service(&service("more"), &wide(two())).unwrap();
    }

    fn no_trouble_is_told_where_others_are_only_in_the_way(store: &mut Store) {
        with_events(store);
        let reader = rusqlite::Connection::open(store.location().as_os_str()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM asyncq_job").unwrap();
        let troubles = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&troubles);
        store.on_trouble(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let mut large = call(1);
        large.call.args = Reading::Json.positional(&["x".repeat(500_000)]).unwrap();
        store.enqueue(&large).unwrap();
        assert_eq!(troubles.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_store_is_called_as_it_was_named_and_keeps_its_files_beside_the_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let at = |name: &str| Location::parse(name, folder.path()).unwrap();
    let (mut made, new) = Store::open_or_make(&at("q.db"), PATIENCE).unwrap();
    assert!(new);
    made.add_service(&service("events"), &wide(two())).unwrap();
    let run_folder = made.run_folder();
    symlink("q.db", file("link.db")).unwrap();
    let store = Store::open(&at("link.db"), PATIENCE).unwrap();
    assert_eq!(store.location(), &at("link.db"));
    assert_eq!(store.run_folder(), run_folder);
    std::fs::remove_file(file("link.db")).unwrap();
    assert_eq!(store.metadata().unwrap().ino(), file("q.db").metadata().unwrap().ino());
    std::fs::set_permissions(file("q.db"), Permissions::from_mode(0o666)).unwrap();
    assert_eq!(store.only_root_can_change().unwrap_err().kind(), Kind::Denied);
    assert_eq!(at("q.db").only_root_can_change().unwrap_err().kind(), Kind::Denied);
}

#[test]
fn there_is_no_store_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse("queue.db", folder.path()).unwrap();
    let error = Store::open(&location, PATIENCE).err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_sqlite_inside_does_not_lose_commits() {
    let engines = Store::engines();
    let version = engines.strip_prefix("SQLite ").unwrap().split('.');
    let version: Vec<u32> = version.map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![3, 51, 3], "{version:?}");
}

#[test]
fn an_application_database_becomes_a_store_without_being_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("PRAGMA user_version = 7; CREATE TABLE orders (id INTEGER PRIMARY KEY)").unwrap();
    let location = Location::File(path);
    let (mut store, made) = Store::open_or_make(&location, PATIENCE).unwrap();
    assert_eq!(
        (made, store.add_service(&service("events"), &wide(two())).unwrap_err().kind()),
        (false, Kind::Unreachable)
    );
    let (mut store, made) = Store::create(&location, PATIENCE).unwrap();
    assert!(made);
    store.add_service(&service("events"), &wide(two())).unwrap();
    let version: i64 = app.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let mode: String = app.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!((version, mode.as_str()), (7, "delete"));
}
