//! `asyncq backup`.

use std::fs;
use std::os::unix::fs::symlink;

use crate::place::{Place, is_stopped, lock, wait_until};
use crate::rescue::is_root;

/// A place with a store in `q.db`.
fn place() -> Place {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "q.db");
    place.session(
        "
        $ asyncq service add events; asyncq function add events note -- echo
        ! asyncq: created the store `[..]/q.db`
        $ asyncq enqueue events note 1
        1
        ",
    );
    place
}

/// The names in a folder, but those of the files that SQLite makes.
fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.at(folder)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_is_a_store() {
    let place = place();
    place.session(
        "
        $ asyncq backup b.db
        [..]/b.db
        $ stat -c '%a' b.db; ls -A | grep -c copy-of
        600
        0
        ? 1
        $ asyncq enqueue events note 2
        2
        $ asyncq --db b.db job list
        ID  SERVICE  FUNCTION  ARGUMENTS  PRINCIPAL  STATE   WHEN
        1   events   note      [1]        -          queued  now
        $ asyncq --db b.db process
        1
        $ asyncq -v backup $HOME/c.db
        [..]/c.db
        ! asyncq: copied [..]B
        ",
    );
}

#[test]
fn what_is_there_stays_and_nothing_is_left_of_a_backup_that_fails() {
    let place = place();
    for folder in ["folder", "q.db-asyncq"] {
        fs::create_dir_all(place.at(folder)).unwrap();
    }
    fs::write(place.at("folder/left.db-wal"), "x").unwrap();
    symlink("nowhere", place.at("link")).unwrap();
    symlink("q.db", place.at("same.db")).unwrap();
    place.stdout("asyncq service list");
    let before = names(&place, ".");
    place.session(
        "
        $ asyncq backup q.db
        ! error: `[..]/q.db` is there, and a backup replaces nothing
        ! hint: name another file, or a folder, in which each backup gets a name of its own
        ? 77
        $ asyncq --db same.db backup same.db
        ! error: `[..]/same.db` is there, and a backup replaces nothing
        ! hint: name another file, or a folder, in which each backup gets a name of its own
        ? 77
        $ asyncq backup link
        ! error: `[..]/link` is there, and a backup replaces nothing
        ! hint: name another file, or a folder, in which each backup gets a name of its own
        ? 77
        $ asyncq backup q.db-journal
        ! error: `[..]/q.db-journal` is a name for a part of a database, by its end `-journal`
        ! hint: name another file
        ? 77
        $ asyncq backup q.db-asyncq
        ! error: `[..]/q.db-asyncq/q-[..]Z.db` is in the run folder of a store
        ! hint: processors remove what is there: name another folder
        ? 77
        $ asyncq backup folder/left.db
        ! error: `[..]/folder/left.db` is gone, but `[..]/folder/left.db-wal` is there
        ! hint: the store was moved or removed; put it back together with that file, which may hold calls, or move that file away
        ? 74
        $ asyncq backup none/b.db
        ! error: cannot write the backup `[..]/none/b.db`: No such file or directory
        ! hint: make its folder first, with `mkdir`
        ? 66
        $ asyncq backup none/
        ! error: there is no folder `none/`
        ! hint: make it first, with `mkdir`
        ? 66
        $ asyncq backup b.db --keep 3
        ! error: `b.db` is no folder
        ! hint: `--keep` is for backups in a folder: name one that is there
        ? 2
        $ asyncq backup folder --keep 0
        ! error: `--keep` cannot be `0`: a number of backups is a whole number from 1
        ! hint: `asyncq backup --help` shows how
        ? 2
        $ asyncq --db none.db backup b.db
        ! error: there is no store at `[..]/none.db`
        ! hint: `asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place
        ? 69
        $ ulimit -f 128; asyncq backup b.db
        ! error: cannot write the backup `[..]/b.db`: [..]
        ! hint: nothing is left of it; [..]
        ? 74
        ",
    );
    assert_eq!(names(&place, "."), before);
    assert_eq!(names(&place, "folder"), ["left.db-wal"]);
}

#[test]
fn a_folder_without_rights_is_refused() {
    let place = place();
    let user = if is_root(&place) { "setpriv --reuid 65534 --regid 65534 --clear-groups " } else { "" };
    place.stdout("mkdir closed && chmod 555 closed && chmod 666 q.db* && chmod 777 .");
    place.session(&format!(
        "
        $ {user}asyncq backup closed
        ! error: cannot write the backup `[..]/closed/q-[..]Z.db`: Permission denied
        ! hint: asyncq must be able to write the folder of the backup
        ? 77
        $ ls -A closed
        "
    ));
}

#[test]
fn in_a_folder_the_newest_stay_and_what_is_not_a_backup() {
    let place = place();
    fs::create_dir(place.at("d")).unwrap();
    let others = ["other-20200101T000000Z.db", "q-20200101T000000Z.db-old", "q-2020.db", "q.db"];
    // The last one is of a clock that was ahead.
    for name in ["q-20200101T000000Z.db", "q-20200102T000000Z.db", "q-22000101T000000Z.db"].iter().chain(&others) {
        fs::write(place.at("d").join(name), "").unwrap();
    }
    fs::create_dir(place.at("d/q-20200103T000000Z.db")).unwrap();
    place.session(
        "
        $ asyncq backup d
        [..]/d/q-2[..]Z.db
        $ asyncq -v backup d --keep 3
        [..]/d/q-2[..]Z.db
        ! asyncq: copied [..]B, and removed 2 older backups
        ",
    );
    let left = names(&place, "d");
    assert!(others.iter().all(|name| left.contains(&(*name).to_owned())), "{left:?}");
    let backups: Vec<&String> = left.iter().filter(|it| it.starts_with("q-") && it.ends_with("Z.db")).collect();
    assert_eq!(backups.len(), 4, "{left:?}");
    assert!(!left.iter().any(|name| name.contains("20200102T")), "{left:?}");
    // The new one stays, although its name is older.
    place.session(
        "
        $ asyncq backup d --keep 1 > made; ls $(cat made) | wc -l; ls d | grep -c '^q-2.*Z.db$'
        1
        2
        ",
    );
}

#[test]
fn backups_of_one_second_get_names_of_their_own() {
    let place = place();
    place.stdout("mkdir folder; date +%s > began");
    let slow = place.start("env 'ASYNCQ_FAILPOINT=backup pages checked=stop' asyncq backup folder");
    wait_until("it has chosen its name", || is_stopped(slow.0.id()));
    // Another backup has the name that it has chosen.
    place.stdout(
        "for at in $(seq $(cat began) $(date +%s)); do touch folder/q-$(date -u -d @$at +%Y%m%dT%H%M%SZ).db; done",
    );
    let others = names(&place, "folder").len() - 1;
    slow.signal("CONT");
    let made = slow.wait();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(names(&place, "folder").len(), others + 1);
    place.session("$ asyncq --db $(find folder -type f -size +0) job list --json | grep -c queued\n1");
}

#[test]
fn what_a_killed_backup_leaves_is_removed_by_the_next_one() {
    let place = place();
    for step in ["backup draft made", "backup pages copied", "backup pages checked", "backup synced"] {
        let killed = place.run(&format!("ASYNCQ_FAILPOINT='{step}=kill' asyncq backup b.db"));
        assert!(!killed.status.success(), "{step}");
        assert!(!place.at("b.db").exists(), "{step}");
    }
    // Each has removed what the one before had left.
    let left = || names(&place, ".").into_iter().filter(|name| name.contains("copy-of")).count();
    assert_eq!(left(), 1);
    let at_work = place.start("env 'ASYNCQ_FAILPOINT=backup pages copied=stop' asyncq backup b.db");
    wait_until("it has a draft of its own", || left() == 1 && is_stopped(at_work.0.id()));
    place.session(
        "
        $ asyncq backup b.db
        [..]/b.db
        ",
    );
    assert_eq!(left(), 1, "the draft of a process that lives stays");
    at_work.signal("CONT");
    let told = String::from_utf8(at_work.wait().stderr).unwrap();
    assert!(told.contains("somebody has just made this file"), "{told}");
    assert_eq!(left(), 0);
}

#[test]
fn what_killed_backups_leave_in_a_folder_any_backup_into_it_removes() {
    let place = place();
    place.stdout("mkdir d");
    for target in ["d/one.db", "d/two.db", "d"] {
        let killed = place.run(&format!("ASYNCQ_FAILPOINT='backup synced=kill' asyncq backup {target}"));
        assert!(!killed.status.success(), "{target}");
        assert_eq!(names(&place, "d").len(), 1, "{target}");
    }
    // A draft of an earlier build.
    place.write("d/.copy-of-q-aB3dEf.new", "a draft");
    place.session("$ asyncq backup d/three.db\n[..]/three.db");
    assert_eq!(names(&place, "d"), ["three.db"]);
}

#[test]
fn a_backup_is_a_file_and_not_a_stream() {
    place().session(
        "
        $ asyncq backup -
        ! error: a backup cannot be written to standard output
        ! hint: name a file, and read that when it is complete: asyncq backup q.db && gzip q.db
        ? 2
        $ ls -A | grep -c '^-$'
        0
        ? 1
        ",
    );
}

#[test]
fn a_backup_waits_for_no_writer_and_keeps_none() {
    let place = place();
    let lock = lock(&place.at("q.db"));
    place.session(
        "
        $ asyncq --lock-timeout 10ms backup b.db
        [..]/b.db
        ",
    );
    drop(lock);
}

#[test]
fn a_damaged_store_is_not_backed_up() {
    let place = place();
    place.stdout("i=0; while [ $i -lt 5 ]; do asyncq enqueue events note $(head -c 3000 /dev/zero | tr '\\0' x); i=$((i + 1)); done");
    // Into the file, without a WAL.
    place.stdout("asyncq backup whole.db; rm -r q.db*; cp whole.db q.db");
    let mut bytes = fs::read(place.at("q.db")).unwrap();
    let pages = bytes.len() / 4096;
    for page in pages / 2..pages {
        bytes[page * 4096..page * 4096 + 100].fill(0xa5);
    }
    fs::write(place.at("q.db"), bytes).unwrap();
    place.session(
        "
        $ asyncq backup b.db
        ! error: the store is damaged: [..]
        ! hint: stop every processor, [..]
        ? 65
        ",
    );
    assert!(!names(&place, ".").iter().any(|name| name.contains("copy-of") || name == "b.db"));
}
