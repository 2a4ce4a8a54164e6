//! Paths that lead through links: releases behind a link that a deploy changes, and a store behind one.

use crate::place::{Place, lock, runs, wait_until};

/// A place with two releases of a program, the first one behind the link `current`.
fn releases() -> Place {
    let place = Place::new();
    place.stdout("mkdir -p releases/1 releases/2");
    for number in [1, 2] {
        place.program(&format!("releases/{number}/job"), &format!("#!/bin/sh\necho release {number}\n"));
    }
    place.stdout("ln -s releases/1 current; asyncq -q service add s");
    place
}

const DEPLOY: &str = "ln -sfn releases/2 current; rm -r releases/1; asyncq enqueue s job; asyncq process";

#[test]
fn a_site_that_is_given_as_a_link_is_the_new_release_after_a_deploy() {
    for add in [
        "asyncq function add s job --site $HOME/current -- ./job",
        "asyncq function add s job --site current -- ./job",
        "asyncq function add s job --site releases/../current/. -- ./job",
        "cd current; asyncq function add s job -- ./job",
        "cd current; asyncq function add s job --site . -- ./job",
        "mkdir current/bin; cd current/bin; asyncq function add s job --site .. -- ./job",
        "asyncq function add s job --site / -- $HOME/current/job; asyncq function set s job --site current -- ./job",
    ] {
        let place = releases();
        place.session(&format!(
            "
            $ {add}
            $ asyncq function show s job | grep site
            site      {}/current
            $ {DEPLOY}
            1
            release 2
            ",
            place.path().display()
        ));
    }
}

#[test]
fn a_program_on_the_path_keeps_its_link() {
    let place = releases();
    place.session(&format!(
        "
        $ PATH=$PATH:$HOME/current asyncq function add s job -- job
        $ cd current; PATH=$PATH:. asyncq function add s other -- job
        $ ln -s releases/1/job tool; PATH=$PATH:$HOME asyncq function add s tool -- tool
        $ asyncq function list s | tr -s ' ' | cut -d ' ' -f 2,4
        FUNCTION PROGRAM
        job {0}/current/job
        other {0}/current/./job
        tool {0}/tool
        $ {DEPLOY}
        1
        release 2
        ",
        place.path().display()
    ));
}

#[test]
fn a_folder_above_a_link_is_the_one_that_programs_see() {
    let place = releases();
    place.program("releases/job", "#!/bin/sh\necho above\n");
    place.session(&format!(
        "
        $ cd current; asyncq function add s job --site .. -- ./job
        $ asyncq function show s job | grep site
        site      {}/current/..
        $ asyncq enqueue s job; asyncq process
        1
        above
        ",
        place.path().display()
    ));
}

#[test]
fn a_working_directory_that_another_variable_names_comes_from_the_system() {
    let place = releases();
    for shown in ["$HOME/releases/2", "current", "$HOME/gone", "$HOME/current/../1", ""] {
        place.session(&format!(
            "
            $ cd -P current; export PWD={shown}; asyncq function add s job -- ./job
            $ asyncq function show s job | grep site; asyncq function remove s job
            site      {}/releases/1
            ",
            place.path().display()
        ));
    }
}

#[test]
fn adding_again_through_the_link_keeps_the_function_and_takes_the_link() {
    let place = releases();
    let site = |expected: &str| {
        place.session(&format!(
            "$ asyncq function show s job | grep site\nsite      {}/{expected}",
            place.path().display()
        ));
    };
    // As it was recorded when links were followed at once.
    place.stdout("cd -P current; PATH=$PATH:. PWD= asyncq function add s job --timeout 5s -- job");
    site("releases/1");
    place.stdout("asyncq enqueue s job");
    place.session(
        "
        $ cd current; PATH=$PATH:. asyncq function add s job -- job
        ! error: service `s` has a function `job` that is defined differently
        ! hint: `asyncq function show s job` shows it, `asyncq function set s job` changes it
        ? 77
        ",
    );
    site("releases/1");
    place.session(
        "
        $ cd current; PATH=$PATH:. asyncq -v function add s job --timeout 5s -- job
        ! asyncq: function `job` of service `s` already exists
        ",
    );
    site("current");
    place.session(
        "
        $ ln -sfn releases/2 current; rm -r releases/1
        $ cd current; PATH=$PATH:. asyncq -v function add s job --timeout 5s -- job
        ! asyncq: function `job` of service `s` already exists
        $ asyncq process
        release 2
        $ cd releases/2; PATH=$PATH:. asyncq function add s job --timeout 5s -- job
        ! error: service `s` has a function `job` that is defined differently
        ! hint: `asyncq function show s job` shows it, `asyncq function set s job` changes it
        ? 77
        ",
    );
    site("current");
}

#[test]
fn a_function_learns_its_site_and_its_store_as_they_were_given() {
    let mut place = releases();
    place.stdout("mkdir shared; ln -s ../../shared/q.db releases/1/q.db; ln -s ../../shared/q.db releases/2/q.db");
    place.stdout("asyncq -q --db shared/q.db init; asyncq --db shared/q.db service add s --concurrency 2");
    place.set("ASYNCQ_DB", "current/q.db");
    place.program("releases/1/inner", "#!/bin/sh\necho inner\n");
    place.program(
        "releases/1/outer",
        "#!/bin/sh
echo $ASYNCQ_SITE $ASYNCQ_DB
asyncq is-async; asyncq whoami; asyncq enqueue s inner
touch begun; until [ -e go ]; do sleep 0.01; done
asyncq is-async; asyncq whoami; asyncq enqueue s inner
",
    );
    place.stdout("cp releases/1/inner releases/1/outer releases/2");
    place.stdout("for f in inner outer; do asyncq function add s $f --site current -- ./$f; done");
    place.stdout("asyncq enqueue s outer --principal bob");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.at("releases/1/begun").exists());
    // The next release is there; what runs goes on with the same store, as the new link leads to it, too.
    place.stdout("ln -sfn releases/2 current");
    place.session("$ asyncq process; ls shared\nq.db\nq.db-asyncq\nq.db-shm\nq.db-wal");
    place.write("releases/1/go", "");
    let output = process.wait();
    let home = place.path().display();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{home}/current {home}/current/q.db\ntrue\nbob\ninner\ntrue\nbob\ninner\n"),
    );
    assert!(output.status.success() && output.stderr.is_empty());
    place.session(
        "
        $ asyncq job list --json | grep -c completed; ls releases/1 releases/2 | grep q.db
        3
        q.db
        q.db
        $ asyncq init
        ! asyncq: `[..]/current/q.db` is up to date
        $ rm -r shared; asyncq job list
        ! error: `[..]/current/q.db` is a link to a file that is not there
        ! hint: remove the link, or put the file back
        ? 69
        ",
    );
}

#[test]
fn a_link_that_leads_to_another_store_ends_processors_of_the_first_one() {
    let place = Place::new();
    place.program("work", "#!/bin/sh\necho $$ > pid; touch begun; sleep 1000\n");
    place.stdout(
        "for db in one.db two.db; do
             asyncq -q --db $db service add s; asyncq --db $db function add s work -- ./work
         done
         ln -s one.db link.db",
    );
    let follow = place.start("asyncq --db link.db process --follow");
    place.stdout("asyncq --db link.db enqueue s work");
    wait_until("the call begins", || place.at("begun").exists());
    place.stdout("ln -sfn two.db link.db");
    let output = follow.wait();
    let said = String::from_utf8(output.stderr).unwrap();
    let home = place.path().display();
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(
        said.contains(&format!("the store `{home}/link.db` was moved, replaced or removed while in use")),
        "{said}"
    );
    assert!(!runs(&place.read("pid")));
    // The call is where it was made.
    place.session("$ asyncq --db link.db job list; asyncq --db one.db job list --json | grep -c '\"id\":1'\n1");
}

#[test]
fn a_store_behind_a_link_is_called_by_that_name() {
    let place = Place::new();
    place.stdout("mkdir real; ln -s real linked; asyncq -q --db real/q.db service add s; ln -s real/q.db q.db");
    let lock = lock(&place.at("real/q.db"));
    for db in ["q.db", "linked/q.db"] {
        place.session(&format!(
            "
            $ asyncq --db {db} --lock-timeout 100ms service pause s
            ! error: the store `{}/{db}` is locked by process {} (`[..]`)
            ! hint: try again; a writer that works in one long transaction keeps everybody waiting
            ? 75
            ",
            place.path().display(),
            std::process::id()
        ));
    }
    drop(lock);
    place.session(&format!(
        "
        $ cd linked; asyncq --db new.db init; ls new.db
        new.db
        ! asyncq: the store `[..]/linked/new.db` is ready
        # A name that means something else to each process is no use to a function.
        $ asyncq --db /proc/self/cwd/own.db init; asyncq --db /proc/self/cwd/own.db init
        ! asyncq: the store `{0}/own.db` is ready
        ! asyncq: `{0}/own.db` is up to date
        ",
        place.path().display()
    ));
}

#[test]
fn root_does_not_go_through_a_link_that_others_can_change() {
    let place = Place::new();
    if place.stdout("id -u") != "0\n" {
        return;
    }
    let home = place.path().display();
    place.program("work", "#!/bin/sh\necho done >> $ASYNCQ_SITE/ran\n");
    place.stdout(
        "mkdir ours theirs sticky closed; chmod 755 .; chmod 700 closed; chmod 1777 sticky; chown 65001 theirs
         asyncq -q --db ours/q.db service add s; asyncq --db ours/q.db function add s work -- ./work
         ln -s ../ours/q.db theirs/q.db; ln -s theirs/q.db through.db; ln -s ours ours2; ln -s ../ours sticky/ours
         ln -s ../ours sticky/theirs; chown -h 65001 sticky/theirs; ln -s $PWD/ours closed/ours; chmod 777 closed; chmod 700 closed",
    );
    for (db, why) in [
        ("theirs/q.db", "`HOME/theirs` belongs to user 65001"),
        ("through.db", "`HOME/theirs` belongs to user 65001"),
        ("theirs/../theirs/q.db", "`HOME/theirs` belongs to user 65001"),
        ("sticky/theirs/q.db", "`HOME/sticky/theirs` belongs to user 65001"),
    ] {
        let why = why.replace("HOME", &home.to_string());
        place.session(&format!(
            "
            $ asyncq --db {db} enqueue s work > /dev/null; asyncq --db {db} process
            ! error: root runs no functions out of `{home}/[..].db`, which others can change: {why}
            ! hint: name the file itself, `{home}/ours/q.db`, or trust all who can change the links to it, with `--trust-store-writers`
            ? 77
            $ asyncq --db {db} process --trust-store-writers; cat ran; rm ran
            done
            "
        ));
    }
    for db in ["ours2/q.db", "sticky/ours/q.db", "closed/ours/q.db", "ours/q.db"] {
        place.session(&format!(
            "$ asyncq --db {db} enqueue s work > /dev/null; asyncq --db {db} process; cat ran; rm ran\ndone"
        ));
    }
}

#[test]
fn functions_find_asyncq_by_the_link_through_which_it_was_started() {
    let place = Place::with_functions(&[("path", "echo ${PATH##*:}")]);
    let real = std::path::Path::new(env!("CARGO_BIN_EXE_asyncq")).parent().unwrap().display();
    let home = place.path().display();
    place
        .stdout(&format!("mkdir bin; ln -s {real} current; ln -s {real}/asyncq bin/asyncq; ln -s current/asyncq mine"));
    for (start, found) in [
        ("PATH=/usr/bin:/bin $HOME/current/asyncq process", format!("{home}/current")),
        ("PATH=/usr/bin:/bin; cd bin; ../current/asyncq process", format!("{home}/current")),
        ("PATH=/usr/bin:/bin; cd bin; ./asyncq process", format!("{home}/bin")),
        ("PATH=/usr/bin:/bin:$HOME/bin asyncq process", format!("{home}/bin")),
        ("PATH=/usr/bin:/bin:bin:$HOME/current; asyncq process", format!("{home}/current")),
        ("cd bin; PATH=/usr/bin:/bin:. asyncq process", real.to_string()),
        ("asyncq=$(which asyncq); PATH=/usr/bin:/bin; bash -c \"exec -a other $asyncq process\"", real.to_string()),
    ] {
        assert_eq!(
            place.stdout(&format!("asyncq enqueue events path > number; {start}")),
            format!("{found}\n"),
            "{start}"
        );
    }
}
