//! Power cuts: a recorded run is cut after each of its system calls, with what was not synced lost or torn.

mod copies;
mod disk;
mod ledger;
mod recording;
mod replay;
mod trace;

use disk::{Act, Deed, Names};
use recording::{Checkpoints, Database, Recording, Size, everything, killed_before_the_sync};
use replay::{AttemptCounts, Replay};

use crate::scale;

fn size() -> Size {
    Size { singles: scale::many(10, 2), batch: scale::many(20, 4), prints: scale::many(24, 18) }
}

/// Cuts the power under each of the two ways in which names may be kept.
fn cut(what: &str, recording: &Recording, states: usize) {
    // Small runs make a sample.
    assert!(!scale::full() || states >= recording.calls(), "{} calls, and only {states} states", recording.calls());
    for names in [Names::Loose, Names::Ordered] {
        let replay = Replay { recording, names, states, drained: scale::many(100, 40), without: |_| false };
        let tally = replay.run();
        scale::figure("power", format!("{what}, names {names:?}: {tally}"));
        assert!(tally.is_clean(), "{:#?}", tally.examples);
    }
}

#[test]
fn a_power_cut_after_any_call_loses_nothing_that_was_acknowledged() {
    let recording = everything(size(), Database::Own);
    let (verbs, checkpoints) = (recording.verbs(), recording.checkpoints());
    scale::figure("power", format!("recorded: {verbs:?}, {checkpoints:?}"));
    assert!(verbs.keys().eq(&["claim", "clean", "enqueue", "finish", "retry", "upgrade"]), "{verbs:?}");
    let Checkpoints { reused, emptied, removed } = checkpoints;
    assert!(reused > 0 && emptied > 0 && removed > 0, "{checkpoints:?}");
    cut("own store", &recording, scale::many(40_000, 400));
}

#[test]
fn a_power_cut_loses_nothing_in_an_applications_database_with_a_rollback_journal() {
    let recording = everything(Size { prints: 0, ..size() }, Database::Applications);
    cut("application's database", &recording, scale::many(20_000, 100));
}

#[test]
fn a_repeated_key_that_is_acknowledged_survives_a_power_cut() {
    cut("killed before the sync", &killed_before_the_sync(), scale::many(1_000, 100));
}

#[test]
fn a_power_cut_during_a_backup_or_a_restore_leaves_whole_files() {
    copies::leave_whole_files();
}

#[test]
fn backups_and_restores_on_a_disk_that_syncs_nothing_are_found_to_lose_files() {
    copies::lose_files_without_syncs();
}

#[test]
fn power_cuts_on_a_disk_that_syncs_nothing_are_found_to_lose_calls() {
    let recording = everything(Size { prints: 0, ..size() }, Database::Own);
    let replay = |what, names, without: fn(&Act) -> bool| -> AttemptCounts {
        let tally = Replay { recording: &recording, names, states: 200, drained: usize::MAX, without }.run();
        scale::figure("power", format!("without syncs of {what}, names {names:?}: {tally}"));
        tally
    };
    let all = replay("anything", Names::Ordered, |act| is_sync_of(act, ""));
    assert!(all.lost > 0 && all.broken > 0 && all.revived > 0, "{all}");
    // As under `synchronous=NORMAL`, and more so.
    let wal = replay("the WAL", Names::Ordered, |act| is_sync_of(act, "queue.db-wal"));
    assert!(wal.lost > 0 && wal.revived > 0, "{wal}");
    let checkpoint = replay("the database", Names::Ordered, |act| is_sync_of(act, "queue.db"));
    assert!(checkpoint.lost + checkpoint.broken > 0, "{checkpoint}");
    let folder = replay("a folder", Names::Loose, |act| is_sync_of(act, "share"));
    assert!(folder.lost > 0, "{folder}");
}

/// Of a file, a folder, or with an empty name of anything.
fn is_sync_of(act: &Act, name: &str) -> bool {
    matches!(&act.deed, Deed::Sync { path, .. } if name.is_empty() || path.ends_with(name))
}
