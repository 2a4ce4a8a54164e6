//! The store is moved, removed, replaced or gets a second name while it is in use: nothing is acknowledged to a file that
//! is not at the path, and everybody is told within a second.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;

use crate::place::{Place, Running, wait_until};
use crate::scale::{figure, full, many, random};

/// What can become of a store while it is in use; a shell command each, in the folder that `deep/q.db` counts from.
const MOVES: &[(&str, &str)] = &[
    ("removed", "rm deep/q.db"),
    ("renamed", "mv deep/q.db deep/away.db"),
    ("replaced by another store", "mv other.db deep/q.db"),
    ("restored from a copy", "cp deep/q.db copy.db && mv copy.db deep/q.db"),
    ("given a second name", "ln deep/q.db second.db"),
    ("moved with its folder", "mv deep deeper"),
    ("moved with its folder, and another one put there", "mv deep deeper && mkdir deep && mv other.db deep/q.db"),
    ("robbed of its WAL", "rm deep/q.db-wal"),
    ("robbed of its shared memory", "rm deep/q.db-shm"),
    ("robbed of both", "rm deep/q.db-*m deep/q.db-*l"),
];

/// How long the news may take; a small run shares the machine with all other tests.
fn soon() -> Duration {
    Duration::from_secs(if full() { 1 } else { 15 })
}

/// A place with a store in `deep`, and a second one.
fn two_stores() -> Place {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "deep/q.db");
    place.program("hello", "#!/bin/sh\ntouch begun; until [ -e go ]; do sleep 0.01; done\n");
    for store in ["other.db", "deep/q.db"] {
        place.session(&format!(
            "$ export ASYNCQ_DB={store}; asyncq -q service add events; asyncq function add events hello -- ./hello"
        ));
    }
    place.stdout("asyncq enqueue events hello");
    // The last client to close it leaves everything in one file.
    place.stdout("sqlite3 other.db 'PRAGMA integrity_check'");
    place
}

fn state(process: &Running) -> u8 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
    stat.rsplit_once(") ").unwrap().1.as_bytes()[0]
}

fn wait_until_stopped(process: &Running) {
    wait_until("it stops", || state(process) == b'T');
}

/// Waits for the end of a process, and says how long that took.
fn end(process: Running) -> (Output, Duration) {
    let begun = Instant::now();
    wait_until("it ends", || state(&process) == b'Z');
    (process.wait(), begun.elapsed())
}

fn told(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{what}: {output:?}");
    assert!(output.stdout.is_empty(), "{what}: acknowledged: {output:?}");
    assert!(
        said.contains("was moved, replaced or removed while in use\nhint: nothing was acknowledged")
            || said.contains("has a second name (a hard link)\nhint: "),
        "{what}: {said}"
    );
}

/// Where a verb that writes may be when the store moves.
const STEPS: [&str; 3] = ["transaction begun", "transaction done", "transaction committed"];

#[test]
fn an_enqueuer_acknowledges_nothing_to_a_file_that_is_not_at_the_path() {
    let mut longest = Duration::ZERO;
    for (what, fault) in MOVES {
        for step in STEPS {
            longest = longest.max(move_under("enqueue events hello", step, (what, fault)));
        }
    }
    figure(
        "moves",
        format!("{} moves under an enqueuer at 3 steps, 0 acknowledged, told within {longest:?}", MOVES.len()),
    );
    assert!(longest <= soon(), "{longest:?}");
}

/// Plays one move under a command that is stopped at a step; gives how long it took to tell.
fn move_under(command: &str, step: &str, (what, fault): (&str, &str)) -> Duration {
    let place = two_stores();
    place.stdout("asyncq enqueue events hello; asyncq job cancel 2; asyncq enqueue --hold events hello");
    let stopped = place.start(&format!("env ASYNCQ_FAILPOINT='{step}=stop' asyncq {command}"));
    wait_until_stopped(&stopped);
    place.stdout(fault);
    stopped.signal("CONT");
    let (output, took) = end(stopped);
    told(&format!("{command}: {what} at `{step}`"), &output);
    took
}

/// What people change by hand; the second job is cancelled, the third one held.
const BY_HAND: [&str; 8] = [
    "job cancel 1",
    "job retry 2",
    "job start 3",
    "service add more",
    "service pause events",
    "service set events --concurrency 2",
    "function set events hello -- true",
    "function add events more -- true",
];

#[test]
fn nothing_that_people_change_is_acknowledged_to_a_file_that_is_not_at_the_path() {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    for (number, &(what, fault)) in MOVES.iter().enumerate() {
        for (nth, command) in BY_HAND.into_iter().cycle().skip(number).take(many(BY_HAND.len(), 2)).enumerate() {
            for step in STEPS.into_iter().cycle().skip(number + nth).take(many(STEPS.len(), 1)) {
                longest = longest.max(move_under(command, step, (what, fault)));
                count += 1;
            }
        }
    }
    figure("moves", format!("{count} moves under changes by hand, 0 acknowledged, told within {longest:?}"));
    assert!(longest <= soon(), "{longest:?}");
}

/// Where a processor may be when the store moves: it registers, claims, records, and unregisters.
const STEPS_OF_A_PROCESSOR: [&str; 10] = [
    "transaction begun:1",
    "transaction done:1",
    "transaction committed:1",
    "transaction begun:2",
    "transaction done:2",
    "transaction committed:2",
    "claims made",
    "transaction begun:3",
    "transaction done:3",
    "transaction committed:3",
];

#[test]
fn a_processor_acknowledges_no_claim_and_no_end_to_a_file_that_is_not_at_the_path() {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    for (number, (what, fault)) in MOVES.iter().enumerate() {
        for step in STEPS_OF_A_PROCESSOR.into_iter().cycle().skip(number).take(many(STEPS_OF_A_PROCESSOR.len(), 2)) {
            let place = two_stores();
            place.write("go", "");
            let process = place.start(&format!("env ASYNCQ_FAILPOINT='{step}=stop' asyncq process"));
            let stopped = || fs::read_to_string(format!("/proc/{}/stat", process.engine())).unwrap_or_default();
            wait_until("its engine stops", || stopped().contains(") T "));
            place.stdout(&format!("{fault}; kill -CONT {}", process.engine()));
            let (output, took) = end(process);
            told(&format!("{what} at `{step}`"), &output);
            // Whatever is at the path now has no call that anybody claimed.
            if what.contains("another") {
                assert_eq!(count_jobs(&place), 0, "{what} at `{step}`");
            }
            (longest, count) = (longest.max(took), count + 1);
        }
    }
    figure("moves", format!("{count} moves under a processor that claims and records: told within {longest:?}"));
    assert!(longest <= soon(), "{longest:?}");
}

/// How many jobs are in the file at the path, without the WAL of the one that was there before.
fn count_jobs(place: &Place) -> i64 {
    let copy = place.at("copy.db");
    fs::copy(place.at("deep/q.db"), &copy).unwrap();
    let store = rusqlite::Connection::open(copy).unwrap();
    store.query_row("SELECT count(*) FROM asyncq_job", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_processor_whose_store_moves_away_ends_its_calls_and_reports_it() {
    let mut longest = Duration::ZERO;
    for (what, fault) in MOVES {
        let place = two_stores();
        let process = place.start("asyncq process");
        wait_until("the call begins", || place.at("begun").exists());
        place.stdout(fault);
        let (output, took) = end(process);
        told(what, &output);
        longest = longest.max(took);
    }
    figure("moves", format!("{} moves under a processor that runs a call: told within {longest:?}", MOVES.len()));
    assert!(longest <= soon(), "{longest:?}");
}

fn has_open(process: &Running, name: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.0.id())) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.ends_with(name)))
}

/// How often a process has gone to sleep.
fn sleeps(process: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

#[test]
fn a_process_that_waits_for_a_lock_notices_that_the_file_is_gone() {
    for fault in ["rm deep/q.db", "mv other.db deep/q.db", "ln deep/q.db second.db"] {
        let place = two_stores();
        let holder = rusqlite::Connection::open(place.at("deep/q.db")).unwrap();
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        let enqueue = place.start("asyncq enqueue events hello");
        wait_until("it has the store open", || has_open(&enqueue, "q.db-shm"));
        let before = sleeps(&enqueue);
        wait_until("it tries again and again", || sleeps(&enqueue) > before + 20);
        place.stdout(fault);
        let (output, took) = end(enqueue);
        told(fault, &output);
        assert!(took <= soon(), "{fault}: {took:?}");
    }
}

#[test]
fn an_application_database_without_a_wal_is_watched_as_well() {
    for step in ["transaction begun", "transaction done", "transaction committed"] {
        for fault in ["rm shop.db", "mv shop.db away.db", "cp shop.db x; mv x shop.db", "ln shop.db second.db"] {
            let mut place = Place::new();
            place.set("ASYNCQ_DB", "shop.db");
            place.stdout(
                "sqlite3 shop.db 'CREATE TABLE orders (id)'; asyncq -q init; asyncq service add events; \
                 asyncq function add events hello -- true",
            );
            let enqueue = place.start(&format!("env ASYNCQ_FAILPOINT='{step}=stop' asyncq enqueue events hello"));
            wait_until_stopped(&enqueue);
            place.stdout(fault);
            enqueue.signal("CONT");
            told(&format!("`{fault}` at `{step}`"), &end(enqueue).0);
        }
    }
}

#[test]
fn a_link_that_leads_elsewhere_and_one_that_does_not() {
    let mut place = two_stores();
    place.session(
        "
        $ ln -s deep/q.db link.db; ln -s deep folder; ln -s ../link.db deep/chain.db
        $ for db in link.db folder/q.db deep/../deep/./q.db deep/chain.db $HOME/link.db; do asyncq --db $db enqueue events hello; done
        2
        3
        4
        5
        6
        $ ls | grep -v hello; ls deep
        deep
        folder
        link.db
        other.db
        chain.db
        q.db
        q.db-shm
        q.db-wal
        ",
    );
    // Through whatever name they come, processors see each other.
    let one = place.start("asyncq --db link.db process");
    wait_until("the call begins", || place.at("begun").exists());
    for db in ["deep/q.db", "folder/q.db", "deep/chain.db"] {
        place.session(&format!(
            "
            $ asyncq --verbose --db {db} process
            ! asyncq: service `events` is busy: its one slot is taken by processor 1 (process {} on [..])
            ! asyncq: 0 attempts; 0 jobs ended in an error
            ",
            one.0.id()
        ));
    }
    place.write("go", "");
    assert!(one.wait().status.success());
    place.set("ASYNCQ_DB", "link.db");
    let enqueue = place.start("env ASYNCQ_FAILPOINT='transaction done=stop' asyncq enqueue events hello");
    wait_until_stopped(&enqueue);
    place.stdout("ln -sf other.db link.db");
    enqueue.signal("CONT");
    told("the link leads elsewhere", &end(enqueue).0);
}

#[test]
fn a_store_with_a_second_name_is_refused_under_both() {
    let place = two_stores();
    place.session(
        "
        $ ln deep/q.db second.db
        $ asyncq enqueue events hello
        ! error: the store `/[..]/deep/q.db` has a second name (a hard link)
        ! hint: changes made under one name are lost under the other; `find / -inum [..] 2>/dev/null` shows them: remove all but one, or make a symbolic link
        ? 74
        $ asyncq --db second.db job list 2> said; echo $?; head -1 said; asyncq process 2> said; echo $?; ls
        74
        error: the store `/[..]/second.db` has a second name (a hard link)
        74
        deep
        hello
        other.db
        said
        second.db
        $ rm second.db; asyncq enqueue events hello
        2
        ",
    );
}

#[test]
fn a_file_that_is_mounted_without_its_folder_is_refused() {
    let place = two_stores();
    place.write("mounted", "touch q.db; mount --bind deep/q.db q.db || exit 99; asyncq --db q.db enqueue events hello");
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare -m" } else { "unshare -rm" };
    place.session(&format!(
        "
        $ {unshare} sh ./mounted
        ! error: the store `/[..]/q.db` is mounted without its folder
        ! hint: its calls are also in the files next to it: mount the folder that they are in
        ? 74
        "
    ));
}

#[test]
fn a_network_file_system_is_refused_before_anything_is_written() {
    let place = two_stores();
    for (number, name) in [("6969000000000000", "NFS"), ("424d53fe00000000", "SMB2"), ("9719020100000000", "9p")] {
        let strace = format!("strace -f -o trace -e inject=statfs:poke_exit=@arg2={number}");
        place.session(&format!(
            "
            $ {strace} asyncq enqueue events hello
            ! error: the store `/[..]/q.db` would be on a network file system ({name})
            ! hint: SQLite loses or damages data there; put the store on a local disk of the machine that uses it
            ? 74
            $ {strace} asyncq --db new/q.db init; ls new
            ! error: the store `/[..]/new/q.db` would be on a network file system ({name})
            ! hint: SQLite loses or damages data there; put the store on a local disk of the machine that uses it
            ! ls: cannot access 'new': No such file or directory
            ? 2
            "
        ));
    }
    // What only looks like one is fine.
    place.session(
        "$ strace -f -o trace -e inject=statfs:poke_exit=@arg2=53ef000000000000 asyncq enqueue events hello\n2",
    );
}

#[test]
fn a_wal_that_its_last_user_removes_while_another_one_comes_is_no_error() {
    let place = two_stores();
    let killed = "ASYNCQ_FAILPOINT='transaction committed:1=kill' asyncq enqueue events hello";
    place.stdout(&format!("{killed}; test -e deep/q.db-wal"));
    // It is there when its owner is asked for, and gone when its rights are.
    let strace = "strace -f -o trace -P $PWD/deep/q.db-wal -e inject=faccessat,faccessat2:error=ENOENT";
    place.session(&format!("$ {strace} asyncq enqueue events hello && grep -c INJECTED trace\n3\n1"));
}

#[test]
fn the_wal_of_an_old_file_is_not_played_into_the_one_that_replaced_it() {
    let place = two_stores();
    for command in ["enqueue events hello", "process", "job list", "service add more", "init"] {
        place.stdout("rm -rf now; cp -a deep now; cp now/q.db backup.db; mv backup.db deep/q.db");
        place.session(&format!(
            "
            $ asyncq {command}
            ! error: `/[..]/deep/q.db-wal` does not belong to the store `/[..]/deep/q.db`, which was replaced
            ! hint: to use the store as it is now, move `/[..]/q.db-wal` away; to keep the calls in that file, put the store back that was here before
            ? 74
            $ rm -r deep; mv now deep
            "
        ));
        // The folder is a copy: its mark says nothing until somebody writes.
        place.stdout("asyncq enqueue events hello");
    }
    place.session(
        "
        $ mv deep/q.db old.db; mv other.db deep/q.db; asyncq job list 2>/dev/null
        ? 74
        $ mkdir old; mv deep/q.db-wal deep/q.db-shm old; asyncq enqueue events hello
        1
        ",
    );
}

#[test]
fn copies_and_moves_of_a_whole_folder_are_no_false_alarm() {
    let place = two_stores();
    place.session(
        "
        $ for i in 2 3 4; do asyncq enqueue events hello; done
        2
        3
        4
        $ cp -a deep copy; cp -r deep plain; tar cf deep.tar deep; mv deep moved; mkdir out; tar xf deep.tar -C out
        $ for db in copy plain moved out/deep; do asyncq --db $db/q.db enqueue events hello; done
        5
        5
        5
        5
        $ rm -r moved/*; cp -a copy/* moved; asyncq --db moved/q.db enqueue events hello
        6
        $ cp -a plain/q.db* moved; asyncq --db moved/q.db enqueue events hello
        6
        $ sqlite3 moved/q.db 'PRAGMA integrity_check; VACUUM'; asyncq --db moved/q.db enqueue events hello
        ok
        7
        ",
    );
}

#[test]
fn without_its_file_a_store_with_a_wal_is_not_taken_for_none() {
    let place = two_stores();
    for command in ["enqueue events hello", "process", "job list", "service add more", "init"] {
        place.session(&format!(
            "
            $ mv deep/q.db away.db; asyncq {command}
            ! error: `/[..]/deep/q.db` is gone, but `/[..]/deep/q.db-wal` is there
            ! hint: the store was moved or removed; put it back together with that file, which may hold calls, or move that file away
            ? 74
            $ mv away.db deep/q.db; asyncq service list | wc -l
            2
            "
        ));
    }
}

/// Whoever opens a store while another one takes its place may have the WAL of the one, and tell in the shared index of
/// the other what stands in there.
#[test]
fn a_store_whose_index_tells_of_another_ones_wal_is_not_used() {
    let place = two_stores();
    place.stdout("for it in other.db deep/q.db; do sqlite3 $it 'CREATE TABLE orders (id INTEGER)'; done");
    let open = |store: &str| {
        let connection = rusqlite::Connection::open(place.at(store)).unwrap();
        let _: i64 = connection.query_row("SELECT count(*) FROM asyncq_job", [], |row| row.get(0)).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        connection
    };
    let (gone, there) = (open("deep/q.db"), open("other.db"));
    // Nothing that asyncq reads is in that WAL. Without a look at the index it would acknowledge the call, which SQLite
    // writes behind frames that are not there, and which is lost.
    gone.execute_batch("INSERT INTO orders VALUES (1)").unwrap();
    place.stdout("dd conv=notrunc if=deep/q.db-shm of=other.db-shm");
    place.session(
        "
        $ asyncq --db other.db --lock-timeout 200ms enqueue events hello
        ! error: the store `/[..]/other.db` took the place of another one while somebody opened it
        ! hint: nothing was changed; end all that use it, which `fuser /[..]/other.db-shm` shows, then try again
        ? 75
        ",
    );
    let waits = place.start("asyncq --db other.db enqueue --key waits events hello");
    wait_until("it looks at the index", || has_open(&waits, "other.db-shm"));
    drop((gone, there));
    assert!(waits.wait().status.success());
    assert_eq!(keys(&place.at("other.db")), ["waits"]);
}

/// Where each store that was at the path is now.
fn worlds(place: &Place, moved: usize) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = (0..moved).map(|number| place.at(&format!("gone{number}/q.db"))).collect();
    all.push(place.at("deep/q.db"));
    all
}

fn keys(store: &Path) -> Vec<String> {
    let store = rusqlite::Connection::open(store).unwrap();
    let check: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut keys = store.prepare("SELECT key FROM asyncq_job WHERE key IS NOT NULL").unwrap();
    keys.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn calls_acknowledged_while_stores_are_replaced_are_in_the_file_that_was_there() {
    let (rounds, writers) = (many(200, 10), many(8, 4));
    let place = two_stores();
    place.stdout("asyncq --db other.db function set events hello -- true; asyncq function set events hello -- true");
    let mut random = random("moves");
    let (over, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = Mutex::new(BTreeSet::new());
    let enqueue = |writer: usize| {
        for number in 0.. {
            if over.load(Ordering::SeqCst) {
                break;
            }
            let key = format!("{writer}-{number}");
            let output = place.run(&format!("asyncq enqueue --key {key} events hello"));
            match output.status.code() {
                Some(0) => drop(acknowledged.lock().unwrap().insert(key)),
                Some(74) => drop(refused.fetch_add(1, Ordering::SeqCst)),
                // Between the old one and the new one there is none.
                Some(69) => {}
                _ => panic!("{output:?}"),
            }
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|writer| scope.spawn(move || enqueue(writer))).collect();
        for round in 0..rounds {
            thread::sleep(Duration::from_millis(random.u64(20..200)));
            place.stdout(&format!("mkdir new; cp other.db new/q.db; mv deep gone{round}; mv new deep"));
        }
        over.store(true, Ordering::SeqCst);
        let failed = writers.into_iter().filter_map(|writer| writer.join().err()).count();
        assert_eq!(failed, 0);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let there: Vec<String> = worlds(&place, rounds).iter().flat_map(|store| keys(store)).collect();
    let lost = acknowledged.iter().filter(|key| !there.contains(key)).count();
    figure(
        "moves",
        format!(
            "{rounds} times another store was put at the path: {} calls acknowledged, {lost} of them lost; {} refused",
            acknowledged.len(),
            refused.into_inner()
        ),
    );
    assert!(acknowledged.len() > rounds);
    assert_eq!(lost, 0);
}
