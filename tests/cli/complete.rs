//! Completions, as shells ask for them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::place::{Place, lock, wait_until};

/// A place with two services, failed and waiting calls, a schedule and a lane.
fn place() -> Place {
    let place = Place::with_functions(&[("fail", "echo no >&2; exit 3"), ("pkg.mod:Class.work", "true")]);
    place.session(
        r"
        $ asyncq -q service add mails
        $ asyncq enqueue events fail; asyncq enqueue events fail; asyncq -q process
        1
        2
        ! no
        ! no
        ? 1
        $ asyncq enqueue events pkg.mod:Class.work --lane 'a lane' --hold
        3
        $ asyncq enqueue events pkg.mod:Class.work --lane gpu
        4
        $ asyncq schedule add nightly --every 1d events fail
        ",
    );
    place
}

/// What bash is offered for the last of these words.
fn bash(place: &Place, words: &str) -> Vec<String> {
    let text = place.stdout(&format!("COMPLETE=bash asyncq -- {words}"));
    text.lines().map(str::to_owned).collect()
}

/// The same, once the machine has had the time to find it.
fn offers(place: &Place, words: &str, expected: &[&str]) {
    let mut found = Vec::new();
    wait_until(&format!("`{words}` is completed to {expected:?}"), || {
        found = bash(place, words);
        found == expected
    });
}

#[test]
fn names_of_the_store_are_completed() {
    let place = place();
    for (words, expected) in [
        ("asyncq enqueue ''", &["events", "mails"][..]),
        ("asyncq enqueue ev", &["events"]),
        ("asyncq enqueue events f", &["fail"]),
        ("asyncq enqueue events pkg.mod:Cl", &["pkg.mod:Class.work"]),
        ("asyncq enqueue mails f", &[]),
        ("asyncq job list --service=e", &["--service=events"]),
        ("asyncq job list --service events --function f", &["fail"]),
        ("asyncq -q process m", &["mails"]),
        ("asyncq status m", &["mails"]),
        ("asyncq schedule run ''", &["nightly"]),
        ("asyncq schedule add n", &[]),
        ("asyncq service remove m", &["mails"]),
        ("asyncq service add m", &[]),
        ("asyncq service set events --on-error ma", &["mails/"]),
        ("asyncq service set events --on-error events/", &["events/fail", "events/pkg.mod:Class.work"]),
        ("asyncq enqueue events fail --lane g", &["gpu"]),
        ("asyncq job retry ''", &["2", "1"]),
        ("asyncq job retry 1", &["1"]),
        ("asyncq job retry 1 2", &["2"]),
        ("asyncq job cancel ''", &["4", "3"]),
        ("asyncq job start ''", &["3"]),
        ("asyncq job log ''", &["2", "1"]),
        ("asyncq job result ''", &[]),
        ("asyncq explain ''", &["4", "3", "2", "1"]),
        ("asyncq wait ''", &["4", "3"]),
        ("asyncq enqueue events fail --after 3,", &["3,4", "3,3"]),
        ("asyncq job cancel --state d", &["delayed"]),
        ("asyncq job ret", &["retry"]),
    ] {
        // Where nothing else fits, options do.
        wait_until(&format!("`{words}` is completed to {expected:?}"), || {
            let found = bash(&place, words);
            if expected.is_empty() { found.iter().all(|word| word.starts_with('-')) } else { found == expected }
        });
    }
    assert!(bash(&place, "asyncq enqueue --").contains(&"--lane".to_owned()));
}

#[test]
fn programs_are_completed_from_the_path_and_then_files() {
    let place = place();
    place.stdout("mkdir bin folder; touch bin/tool-plain tool-file folder/tool-below");
    place.program("bin/tool-two", "");
    place.program("bin/tool-one", "");
    for (words, expected) in [
        ("asyncq run tool-", &["tool-one", "tool-two", "tool-file"][..]),
        ("asyncq run -- tool-o", &["tool-one"]),
        ("asyncq run --start tool-", &["tool-one", "tool-two", "tool-file"]),
        ("asyncq run folder/t", &["folder/tool-below"]),
        ("asyncq run tool-one tool-", &["tool-file"]),
        ("asyncq run -- tool-one x tool-", &["tool-file"]),
        ("asyncq function add events new -- tool-o", &["tool-one"]),
        ("asyncq function add events new -- tool-one tool-", &["tool-file"]),
        ("asyncq backup tool-", &["tool-file"]),
        ("asyncq enqueue --tz Europe/Berl", &["Europe/Berlin"]),
        ("asyncq run --env HOM", &["HOME"]),
    ] {
        let asked = || place.stdout(&format!("PATH=$PWD/bin:$PATH COMPLETE=bash asyncq -- {words}"));
        wait_until(&format!("`{words}` is completed to {expected:?}"), || asked().lines().eq(expected.iter().copied()));
    }
}

#[test]
fn zsh_and_fish_show_what_a_name_stands_for() {
    let place = place();
    let zsh = "_CLAP_COMPLETE_INDEX=3 COMPLETE=zsh asyncq -- asyncq job retry ''";
    let fish = "COMPLETE=/usr/bin/fish asyncq -- asyncq job retry ''";
    let both = |colon: &str| format!("2{colon}events fail: exit code 3\n1{colon}events fail: exit code 3");
    wait_until("failed jobs are shown with their errors", || {
        place.stdout(zsh) == both(":") && place.stdout(fish) == both("\t") + "\n"
    });
    place.session(
        "
        $ asyncq -q service pause mails
        ",
    );
    wait_until("a pause is shown", || place.stdout("COMPLETE=fish asyncq -- asyncq enqueue m") == "mails\tpaused\n");
}

#[test]
fn the_store_is_the_one_that_was_typed() {
    let place = place();
    place.session(
        "
        $ mkdir 'my folder'
        $ asyncq --db 'my folder/own.db' -q service add own
        ",
    );
    offers(&place, "asyncq --db 'my folder/own.db' enqueue o", &["own"]);
    // As a shell hands on what was typed.
    offers(&place, r#"asyncq "--db='my folder/own.db'" enqueue o"#, &["own"]);
    offers(&place, r"asyncq enqueue --db 'my\ folder/own.db' o", &["own"]);
    offers(&place, r"asyncq --db '~/my folder/own.db' enqueue o", &["own"]);
    wait_until("the variable names the store", || {
        place.stdout("ASYNCQ_DB='my folder/own.db' COMPLETE=bash asyncq -- asyncq enqueue o") == "own\n"
    });
}

#[test]
fn words_of_bash_are_quoted() {
    let place = place();
    offers(&place, "asyncq job set 4 --lane g", &["gpu"]);
    place.session("$ asyncq job start 3");
    offers(&place, "asyncq job set 4 --lane a", &[r"a\ lane"]);
    place.session("$ asyncq function set events fail --lane 'of $x'");
    offers(&place, "asyncq job set 4 --lane o", &[r"of\ \$x"]);
}

/// A shell that asks for a name prints nothing that nobody wants to read, and leaves the store alone.
#[test]
fn a_failure_is_silent() {
    let place = place();
    let asks = |db: &str| {
        let output = place.run(&format!("COMPLETE=bash asyncq -- asyncq --db {db} service remove e"));
        assert!(output.status.success() && output.stderr.is_empty(), "{db}: {output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{db}");
    };
    place.write("text", "this is no database, and long enough for anybody to see that it is none");
    place.write("empty", "");
    place.session("$ mkfifo pipe; mkdir folder");
    fs::copy(place.store(), place.at("cut")).unwrap();
    fs::OpenOptions::new().write(true).open(place.at("cut")).unwrap().set_len(5000).unwrap();
    for db in ["nothing/at/all.db", "none.db", "text", "empty", "pipe", "folder", "cut", "''", "mysql://host/db"] {
        asks(db);
    }
    for made in ["nothing", "none.db", "none.db-asyncq", "empty-wal", "cut-wal", "cut-shm"] {
        assert!(!place.at(made).exists(), "{made}");
    }
    let mut words = place.command("COMPLETE=bash asyncq -- asyncq service remove e");
    // Only other users than root can be kept from reading a file.
    if place.stdout("id -u") == "0\n" {
        words = Command::new("setpriv");
        words.args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_asyncq")]).env_clear();
        words.args(["--", "asyncq", "--db", place.store().to_str().unwrap(), "service", "pause", "e"]);
        words.env("COMPLETE", "bash");
    } else {
        fs::set_permissions(place.store(), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let output = words.output().unwrap();
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_writer_keeps_nobody_from_reading() {
    let place = place();
    let writer = lock(&place.store());
    offers(&place, "asyncq service remove e", &["events"]);
    drop(writer);
}

#[test]
fn a_shell_is_told_how_to_ask() {
    Place::new().session(
        "
        $ COMPLETE=bash asyncq | tail -1
        complete -o bashdefault -o nosort -F _asyncq asyncq
        $ COMPLETE=zsh asyncq | head -1
        #compdef asyncq
        $ COMPLETE=fish asyncq | cut -c -50
        complete --keep-order --exclusive --command asyncq

        $ COMPLETE=tcsh asyncq
        ! error: `$COMPLETE` names no shell for which asyncq has completions
        ! hint: set it to `bash`, `zsh` or `fish`
        ? 2
        $ COMPLETE=tcsh asyncq -- asyncq enqueue ''
        $ COMPLETE=bash asyncq --
        ",
    );
}

/// A variable that stands there for another program does not keep a call from being made.
#[test]
fn the_variable_alone_asks_for_nothing() {
    let place = Place::with_functions(&[("work", "true")]);
    place.session(
        "
        $ COMPLETE=bash asyncq enqueue events work
        1
        $ COMPLETE=zsh asyncq enqueue events work -- -x
        2
        ",
    );
}
