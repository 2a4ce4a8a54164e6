//! Backups of stores in use, and backups and restores that are killed.

use std::collections::BTreeSet;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::failpoints::all_steps;
use crate::place::Place;
use crate::scale::{figure, full, many, random};

/// Starts a processor, and has both of its processes killed after a while.
const KILLED: &str = "timeout -s KILL $1 setsid -w asyncq -q process --wait 1m; exit 0";

/// The number that a successful `asyncq enqueue` prints.
fn number(output: &Output) -> Option<i64> {
    if output.status.success() { String::from_utf8_lossy(&output.stdout).trim().parse().ok() } else { None }
}

/// The numbers of the jobs in a store.
fn jobs(place: &Place, db: &str) -> BTreeSet<i64> {
    let list = format!("sqlite3 -cmd '.timeout 20000' {db} 'SELECT id FROM asyncq_job'");
    place.stdout(&list).lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_backup_of_a_busy_store_has_every_call_that_was_acknowledged_before_it() {
    let (enqueuers, backups) = (many(16, 3), many(60, 3));
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "q.db");
    place.stdout("asyncq -q service add events --concurrency 4; asyncq function add events brief -- sleep 0.01");
    place.program("killed", &format!("#!/bin/sh\n{KILLED}\n"));
    let (acknowledged, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let (mut known, mut kills) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        for _ in 0..enqueuers {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Some(id) = number(&place.run("asyncq enqueue events brief")) {
                        acknowledged.lock().unwrap().push(id);
                    }
                }
            });
        }
        let processors = scope.spawn(|| {
            let (mut random, mut kills) = (random("backup"), 0);
            while !over.load(Ordering::Relaxed) {
                place.run(&format!("./killed 0.{}", random.u32(20..60)));
                kills += 1;
            }
            kills
        });
        let mut random = random("backups");
        for backup in 0..backups {
            std::thread::sleep(Duration::from_millis(random.u64(50..200)));
            if random.bool() {
                place.run(&format!("timeout -s KILL 0.0{} asyncq backup {backup}.db", random.u32(1..9)));
            }
            let before = acknowledged.lock().unwrap().clone();
            place.run(&format!("rm -f {backup}.db; asyncq backup {backup}.db"));
            known.push(before);
        }
        over.store(true, Ordering::Relaxed);
        kills = processors.join().unwrap();
    });
    let (mut again, newest) = (0, *acknowledged.lock().unwrap().iter().max().unwrap());
    for (backup, before) in known.iter().enumerate() {
        let (file, db) = (format!("{backup}.db"), format!("restored/{backup}.db"));
        place.stdout(&format!("mkdir -p restored && asyncq -q --db {db} restore {file}"));
        assert_eq!(place.stdout(&format!("sqlite3 {db} 'PRAGMA integrity_check'")), "ok\n");
        let there = jobs(&place, &db);
        let lost: Vec<&i64> = before.iter().filter(|id| !there.contains(id)).collect();
        assert!(lost.is_empty(), "backup {backup} lacks {lost:?}");
        let next = number(&place.run(&format!("asyncq --db {db} enqueue events brief"))).unwrap();
        assert!(next > newest, "{next} was used before");
        place.stdout(&format!("asyncq -q --db {db} service set events --concurrency 8; asyncq -q --db {db} process"));
        let left = format!("sqlite3 {db} \"SELECT count(*) FROM asyncq_job WHERE state <> 'completed'\"");
        assert_eq!(place.stdout(&left), "0\n", "backup {backup}");
        again += there.len();
    }
    assert_eq!(place.stdout("ls -A | grep -c copy-of || :"), "0\n");
    figure(
        "backup",
        format!(
            "{backups} backups beside {enqueuers} enqueuers, {kills} kills of processors: each restored, {again} jobs, 0 lost"
        ),
    );
}

/// Programs enqueue while the store is restored: each answer is of the old store or of the new one.
#[test]
fn a_number_is_never_given_twice_around_a_restore() {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "q.db");
    place.stdout("asyncq -q service add events; asyncq function add events brief -- true; asyncq backup b.db");
    let (acknowledged, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let restores = many(100, 3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let output = place.run("asyncq enqueue events brief");
                    acknowledged.lock().unwrap().extend(number(&output));
                    assert!(matches!(output.status.code(), Some(0 | 74)), "{output:?}");
                }
            });
        }
        for _ in 0..restores {
            std::thread::sleep(Duration::from_millis(50));
            place.stdout("asyncq -q restore b.db");
        }
        over.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let different: BTreeSet<i64> = acknowledged.iter().copied().collect();
    assert_eq!(different.len(), acknowledged.len());
    // Each is in the store of its time.
    let mut there = jobs(&place, "q.db");
    for db in place.stdout("ls -d q.db.before*/q.db").lines() {
        let in_folder = jobs(&place, db);
        assert!(there.is_disjoint(&in_folder));
        there.extend(in_folder);
    }
    assert!(different.is_subset(&there), "{:?}", different.difference(&there));
    figure(
        "restore",
        format!("{restores} restores beside two enqueuers: {} calls acknowledged, no number twice", different.len()),
    );
}

/// At each step that the code names, as often as it comes there.
#[test]
fn a_kill_at_any_step_leaves_a_whole_store_and_no_half_backup() {
    let steps: Vec<String> =
        all_steps().into_iter().filter(|it| it.starts_with("backup ") || it.starts_with("restore ")).collect();
    let (mut kills, mut reached) = (0, BTreeSet::new());
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "q.db");
    place.stdout("asyncq -q service add events; asyncq function add events brief -- true; asyncq enqueue events brief; asyncq backup old.db");
    let fresh = "rm -rf q.db* b.db; cp old.db q.db; asyncq enqueue events brief";
    let count = "sqlite3 q.db 'PRAGMA integrity_check; SELECT count(*) FROM asyncq_job'";
    // Small runs of the suite of the command line kill backups.
    for verb in ["restore old.db", "backup b.db"].into_iter().take(many(2, 1)) {
        for step in &steps {
            for time in 1..=many(1000, 1) {
                place.stdout(fresh);
                let output = place.run(&format!("ASYNCQ_FAILPOINT='{step}:{time}=kill' asyncq -q {verb}"));
                if output.status.success() {
                    break;
                }
                (kills, _) = (kills + 1, reached.insert(step));
                let when = format!("{verb}, {step} {time}");
                // Another one may be killed as it puts back what was there.
                place.run("ASYNCQ_FAILPOINT='restore part put back=kill' asyncq job list");
                place.stdout("asyncq -q job list");
                let found = place.stdout(count);
                let is_new = verb.starts_with("restore") && found == "ok\n1\n";
                assert!(is_new || found == "ok\n2\n", "{when}: {found}");
                if place.at("b.db").exists() {
                    assert_eq!(
                        place.stdout("sqlite3 b.db 'PRAGMA integrity_check; SELECT count(*) FROM asyncq_job'"),
                        "ok\n2\n"
                    );
                } else {
                    place.stdout("asyncq -q backup b.db");
                }
                place.stdout("asyncq -q restore old.db");
                assert_eq!(place.stdout(count), "ok\n1\n", "{when}");
                assert_eq!(place.stdout("ls -A | grep -c 'copy-of\\|q.db-restore' || :"), "0\n", "{when}");
            }
        }
    }
    let missed: Vec<&String> = steps.iter().filter(|step| !reached.contains(step)).collect();
    let only_backup = ["backup draft made", "backup pages checked"];
    let is_elsewhere = |step: &str| step == "restore part put back" || !full() && only_backup.contains(&step);
    assert!(missed.iter().all(|step| is_elsewhere(step)), "{missed:?}");
    figure("backup_steps", format!("{kills} kills at {} steps: 0 stores lost, 0 half backups", reached.len()));
}
