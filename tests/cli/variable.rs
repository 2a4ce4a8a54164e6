//! What the environment says, and what it says when it is empty, no text, or too long.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::place::Place;

#[test]
fn an_empty_store_option_is_refused_and_changes_no_other_store() {
    let mut place = Place::with_functions(&[]);
    place.stdout("asyncq -q --db prod.db init");
    place.set("ASYNCQ_DB", "prod.db");
    for command in ["service list", "service remove events --force", "init", "process", "whoami", "is-async"] {
        for db in ["--db ''", "--db=", "--db \"$UNSET\""] {
            place.session(&format!(
                "
                $ asyncq {db} {command}
                ! error: `--db` is empty
                ! hint: name a SQLite file, as in `--db queue.db`, or leave `--db` out
                ? 2
                "
            ));
        }
    }
    place.session("$ ASYNCQ_DB= asyncq service list\nSERVICE  CONCURRENCY  STATE\nevents   1            active");
}

#[test]
fn an_empty_site_is_refused() {
    let place = Place::with_functions(&[("hello", "echo hello")]);
    for command in ["add events other --site '' -- ./hello", "set events hello --site ''"] {
        place.session(&format!(
            "
            $ asyncq function {command}
            ! error: `--site` is empty
            ! hint: a site is the directory in which the function runs
            ? 2
            "
        ));
    }
}

#[test]
fn every_empty_variable_counts_as_not_set() {
    let mut place =
        Place::with_functions(&[("hello", "asyncq is-async; asyncq whoami; env | grep -c '^ASYNCQ_[A-Z_]*=$'")]);
    for name in
        ["DB", "LOCK_TIMEOUT", "PRINCIPAL", "JOB", "TOKEN", "WORKER_TOKEN", "SUPERVISOR", "FAILPOINT", "FUTURE_SCHEMA"]
    {
        place.set(&format!("ASYNCQ_{name}"), "");
    }
    place.session(
        "
        $ asyncq init
        ! asyncq: `[..]/.local/share/asyncq/queue.db` is up to date
        $ asyncq is-async
        false
        ? 1
        $ asyncq whoami
        ? 1
        $ asyncq enqueue events hello
        1
        $ asyncq process; asyncq job show 1 --json | grep -o '\"principal\":null'
        true
        0
        \"principal\":null
        ! asyncq: job 1 (`events` `hello`): exit code 1
        ",
    );
}

#[test]
fn a_variable_that_says_no_time_is_named() {
    Place::with_functions(&[]).session(
        "
        $ ASYNCQ_LOCK_TIMEOUT=abc asyncq service list
        ! error: `$ASYNCQ_LOCK_TIMEOUT` is `abc`: [..]
        ! hint: set it to a time, as in 10s, or unset it
        ? 2
        $ ASYNCQ_LOCK_TIMEOUT=abc asyncq --lock-timeout 1s service list | wc -l
        2
        $ asyncq --lock-timeout '' service list 2>&1 | head -1
        error: [..]--lock-timeout[..]
        ",
    );
}

#[test]
fn a_home_whose_name_is_no_text_keeps_its_store() {
    let place = Place::new();
    let home = place.path().join(OsStr::from_bytes(b"h\xff"));
    fs::create_dir(&home).unwrap();
    place.stdout(
        "export HOME=$PWD/$(printf 'h\\377')
         asyncq -q init; asyncq service add s
         asyncq function add s inner -- true; asyncq function add s outer -- asyncq enqueue s inner
         asyncq enqueue s outer; asyncq process",
    );
    place.session(
        "
        $ HOME=$PWD/$(printf 'h\\377') asyncq job list --json | grep -c completed
        2
        $ cd $(printf 'h\\377')/.local/share/asyncq; asyncq --db queue.db job list --json | grep -c completed
        2
        $ ASYNCQ_DB=$(printf 'h\\377')/.local/share/asyncq/queue.db asyncq job list --json | grep -c completed
        2
        $ ls
        h\u{fffd}
        ",
    );
}

#[test]
fn a_home_that_is_no_absolute_path_is_none() {
    Place::new().session(
        "
        $ mkdir home; HOME=home asyncq init; ls home
        ! error: there is no home directory, so the store has no default location
        ! hint: set `--db` or `$ASYNCQ_DB`, or set `$HOME` to an absolute path
        $ HOME=home XDG_DATA_HOME=$PWD/data asyncq init; XDG_DATA_HOME= HOME=$PWD/home asyncq init
        ! asyncq: the store `[..]/data/asyncq/queue.db` is ready
        ! asyncq: the store `[..]/home/.local/share/asyncq/queue.db` is ready
        ",
    );
}

#[test]
fn a_path_that_is_too_long_says_by_how_much() {
    let place = Place::new();
    let folder = format!("{}/{}", place.path().display(), "d".repeat(200));
    let path = |length: usize| {
        let folder = format!("{folder}/{}", "e".repeat(length - folder.len() - 102));
        format!("{folder}/{}", "f".repeat(100))
    };
    let too_long = |command: &str, what: &str, most: usize| {
        place.session(&format!(
            "
            $ asyncq --db {command}
            ! error: the {what} of the store has {} bytes, and at most {most} are possible
            ! hint: name a shorter one with `--db` or `$ASYNCQ_DB`
            ? 2
            ",
            most + 1
        ));
    };
    too_long(&format!("{} init", path(494)), "path", 493);
    assert!(!place.at(&"d".repeat(200)).exists());
    place.stdout(&format!("asyncq -q --db {} init", path(493)));
    // One that is there needs no draft. A link shortens nothing, as SQLite opens the file itself.
    for length in [504, 505] {
        place.stdout(&format!("mkdir $(dirname {0}); cp {1} {0}; ln -sf {0} link.db", path(length), path(493)));
        if length == 504 {
            place.stdout("asyncq --db link.db service add s");
        }
    }
    too_long("link.db service list", "path", 504);
    too_long(&format!("{} init", "n".repeat(237)), "name", 236);
    too_long(&format!("{} service list", "n".repeat(248)), "name", 247);
    place.session(&format!(
        "$ asyncq -q --db {0} init; asyncq --db {0} service add s; asyncq --db {0} process",
        "n".repeat(236)
    ));
}

#[test]
fn root_makes_no_store_in_the_home_of_another_user() {
    let place = Place::new();
    if place.stdout("id -u") != "0\n" {
        return;
    }
    let home = place.path().display();
    place.stdout("mkdir home data; chown 65003 home");
    for command in ["init", "service add s"] {
        place.session(&format!(
            "
            $ HOME=$PWD/home asyncq {command}; find home
            home
            ! error: root would make `{home}/home/.local/share/asyncq/queue.db` in a folder that belongs to user 65003
            ! hint: run this as that user (`sudo -u`), with root's own home (`sudo -H`), or name the store with `--db`
            "
        ));
    }
    place.session(
        "
        $ HOME=$PWD/home asyncq job list
        ! error: there is no store at `[..]/home/.local/share/asyncq/queue.db`
        ! hint: `asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place
        ? 69
        $ HOME=$PWD/home XDG_DATA_HOME=$PWD/data asyncq init; find home
        home
        ! asyncq: the store `[..]/data/asyncq/queue.db` is ready
        $ mkdir -p home/.local/share/asyncq; cp data/asyncq/queue.db home/.local/share/asyncq
        $ chown -R 65003 home; export HOME=$PWD/home; asyncq init; asyncq service add s; find home ! -user 65003
        ! asyncq: `[..]/home/.local/share/asyncq/queue.db` is up to date
        $ export HOME=$PWD/home; asyncq -q --db home/q.db init; asyncq --db home/q.db service add s
        ",
    );
}
