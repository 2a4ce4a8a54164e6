//! Backups and restores that the power cuts short: the store is whole, and so is each file that has the name of a backup.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use asyncq::store::{Location, Patience, Store};
use rusqlite::{Connection, OpenFlags};

use super::disk::{Act, Deed, Disk, Names, make_files};
use super::recording::{Recording, counts, in_steps};
use super::replay::quick_folder;
use crate::scale;

/// What is done, and which calls the store has then: the number that each was given.
const STEPS: [(&str, &[i64]); 8] = [
    ("define; for n in 1 2 3; do asyncq enqueue events say $n; done", &[1, 2, 3]),
    ("asyncq backup backup.db", &[1, 2, 3]),
    ("mkdir \"$HOME/kept\"; sync \"$HOME\"; asyncq backup kept --keep 1", &[1, 2, 3]),
    // The name of a backup tells its second.
    ("asyncq enqueue events say 4; sleep 1; asyncq backup kept --keep 1", &[1, 2, 3, 4]),
    // Whoever comes next puts everything back.
    ("if ASYNCQ_FAILPOINT='restore moved=kill' asyncq restore backup.db; then exit 1; fi", &[1, 2, 3, 4]),
    ("look", &[1, 2, 3, 4]),
    ("asyncq restore backup.db", &[1, 2, 3]),
    ("asyncq enqueue events say 5", &[1, 2, 3, 5]),
];

/// Those after which a backup, the kept ones and the store of the backup are there.
const BACKED_UP: usize = 1;
const KEPT: usize = 2;
const KEPT_ANOTHER: usize = 3;
const RESTORED: usize = 6;

/// The power is cut in this many states under each way in which names may be kept.
fn states() -> usize {
    scale::many(4000, 40)
}

/// Cuts it during each step.
pub fn leave_whole_files() {
    let (recording, ends) = in_steps(&STEPS.map(|(step, _)| step));
    for names in [Names::Loose, Names::Ordered] {
        let faults = cut(&recording, &ends, names, &|_| false);
        scale::figure("power", format!("backup and restore, names {names:?}: {} acts", recording.calls()));
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// The same on a disk that syncs nothing, where each kind of file is lost.
pub fn lose_files_without_syncs() {
    let (recording, ends) = in_steps(&STEPS.map(|(step, _)| step));
    let is_sync = |act: &Act| matches!(act.deed, Deed::Sync { .. });
    let faults = cut(&recording, &ends, Names::Ordered, &is_sync);
    for name in ["backup.db", "kept", "the store"] {
        assert!(faults.iter().any(|fault| fault.contains(name)), "no fault of {name}: {faults:#?}");
    }
}

/// Cuts the power after acts of the recording; gives what is wrong then.
fn cut(recording: &Recording, ends: &[usize], names: Names, without: &dyn Fn(&Act) -> bool) -> Vec<String> {
    let root = fs::canonicalize(recording.place.path()).unwrap();
    let (mut disk, mut open) = (Disk::new(&root, names), Vec::new());
    for (index, act) in recording.acts.iter().enumerate() {
        if !without(act) {
            disk.act(act);
        }
        if index >= recording.before && disk.is_open(counts) {
            open.push(index);
        }
    }
    let count = states();
    let cuts: Vec<usize> = (0..count).map(|state| open[state * open.len() / count]).collect();
    let (mut disk, mut done, folder) = (Disk::new(&root, names), 0, quick_folder());
    let mut faults = Vec::new();
    for (state, cut) in cuts.into_iter().enumerate() {
        for act in recording.acts[done..=cut].iter().filter(|act| !without(act)) {
            disk.act(act);
        }
        done = cut + 1;
        // What was told before the next act was done must be true.
        let until = recording.acts.get(done).map_or(usize::MAX, |act| act.ended);
        let told = ends.iter().take_while(|end| **end <= until).count();
        let left = disk.cut(&mut scale::random(&format!("copies {names:?} {state}")));
        let place = make_files(&left, &root, folder.path());
        let found =
            look(&place, &place.join(recording.place.store().strip_prefix(recording.place.path()).unwrap()), told);
        faults.extend(found.into_iter().map(|fault| format!("after act {cut}, step {told} was told: {fault}")));
    }
    faults
}

/// What is wrong when the power is cut in the step after `told`.
fn look(place: &Path, store: &Path, told: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let next = (told + 1).min(STEPS.len() - 1);
    let expected = |steps: std::ops::RangeInclusive<usize>| STEPS[steps].iter().map(|(_, calls)| calls.to_vec());
    let expected = |steps| expected(steps).collect::<BTreeSet<_>>();

    // A store that is being restored is put back or taken by whoever opens it first.
    let opened = Store::open(&Location::File(store.to_owned()), Patience::Deadline(Duration::from_secs(5)));
    let is = opened.and_then(|mut store| store.check()).map_err(|error| error.to_string()).and_then(|()| calls(store));
    match &is {
        Ok(calls) if expected(told..=next).contains(calls) => {}
        wrong => faults.push(format!("the store: {wrong:?}")),
    }
    let kept_before = beside(store, "queue.db.before-restore-");
    if told >= RESTORED {
        match kept_before.as_deref().map(|folder| calls(&folder.join("queue.db"))) {
            Some(Ok(calls)) if calls == STEPS[KEPT_ANOTHER].1 => {}
            wrong => faults.push(format!("what was before the restore: {wrong:?}")),
        }
    }

    let backup = place.join("backup.db");
    if told >= BACKED_UP || backup.exists() {
        match calls(&backup) {
            Ok(calls) if calls == STEPS[BACKED_UP].1 => {}
            wrong => faults.push(format!("backup.db: {wrong:?}")),
        }
    }

    let files = fs::read_dir(place.join("kept")).into_iter().flatten().map(|entry| entry.unwrap().path());
    // Others are drafts.
    let files = files.filter(|file| file.extension().is_some_and(|it| it == "db"));
    let kept: BTreeSet<Result<Vec<i64>, String>> = files.map(|file| calls(&file)).collect();
    let whole = expected(KEPT..=KEPT_ANOTHER);
    let is_whole = kept.iter().all(|it| it.as_ref().is_ok_and(|calls| whole.contains(calls)));
    let has = |step: usize| kept.contains(&Ok(STEPS[step].1.to_vec()));
    let is_there = match told {
        ..KEPT => true,
        KEPT => has(KEPT) || has(KEPT_ANOTHER),
        _ => has(KEPT_ANOTHER),
    };
    if !is_whole || !is_there {
        faults.push(format!("kept: {kept:?}"));
    }
    faults
}

/// The entry next to a store whose name begins so.
fn beside(store: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(store.parent()?).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|it| it.file_name().unwrap().to_string_lossy().starts_with(name))
}

/// The numbers that the calls of a whole store were given; or what is wrong with it.
fn calls(store: &Path) -> Result<Vec<i64>, String> {
    let read = || -> rusqlite::Result<Result<Vec<i64>, String>> {
        let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let damage: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if damage != "ok" {
            return Ok(Err(damage));
        }
        let mut calls = connection.prepare("SELECT args ->> 0 FROM asyncq_job ORDER BY id")?;
        calls.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>().map(Ok)
    };
    read().map_err(|error| error.to_string())?
}
