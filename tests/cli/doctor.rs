//! `asyncq doctor`.

use crate::place::{Place, wait_until};

#[test]
fn a_healthy_store_is_ok_in_each_check() {
    let place = Place::with_functions(&[("note", "true")]);
    place.stdout("asyncq enqueue events note; asyncq process");
    for command in ["asyncq doctor", "asyncq doctor --full", "asyncq doctor --fix"] {
        let found = place.stdout(command);
        assert!(found.lines().count() >= 15 && found.lines().all(|line| line.starts_with("ok ")), "{found}");
    }
    let json = place.stdout("asyncq doctor --json");
    assert_eq!(json.matches("\"health\":\"ok\"").count(), json.matches("\"check\":").count());
}

#[test]
fn faults_are_named_with_the_way_out() {
    let place = Place::with_functions(&[("stays", "sleep 1000")]);
    place.session(
        "
        $ asyncq --db none.db doctor
        fault    file        there is no store at `[..]/none.db`
                             `asyncq init` creates one; `--db` or `$ASYNCQ_DB` names another place
        ? 1
        $ cp /bin/true gone; asyncq function add events gone -- ./gone; rm gone; asyncq doctor | grep -v '^ok '
        fault    calls       function `gone` of service `events` cannot run: its program `[..]/gone` is missing
                             `asyncq function set events gone -- PROGRAM` names another program
        ",
    );
    place.stdout("asyncq function remove events gone; asyncq enqueue events stays");
    let process = place.start("asyncq process");
    wait_until("it runs", || place.stdout("asyncq job show 1 --json").contains("processing"));
    place.session("$ asyncq doctor | grep -v '^ok '\n? 1");
    place.stdout(&format!("kill -9 {} {}", process.0.id(), process.engine()));
    process.wait();
    place.session(
        "
        $ asyncq doctor > found; echo $?; grep -A1 '^fault' found
        1
        fault    processors  processor 1 (process [..] on [..]) died, and its calls wait for another
                             `asyncq process` puts them back and runs them
        $ asyncq service pause events; asyncq doctor | grep '^warning'
        warning  calls       service `events` is paused[..]
        ",
    );
}

#[test]
fn what_a_function_lacks_is_named() {
    let place = Place::with_functions(&[]);
    place.stdout(
        "cp /bin/true prog; mkdir site; echo A=b > e.env; chmod 600 e.env; asyncq function add events a --env-file e.env -- true
         asyncq function add events b -- ./prog; asyncq function add events c --site site -- true",
    );
    for (change, function, why, help) in [
        ("true", "", "", ""),
        (
            "chmod 640 e.env",
            "a",
            "its environment file `[..]/e.env` is open to other users; `chmod 600 [..]/e.env` closes it",
            "",
        ),
        (
            "chmod 600 e.env; echo A > e.env",
            "a",
            "its environment file `[..]/e.env` cannot be used: line 1: it is not NAME=VALUE",
            "`asyncq function set events a --env-file FILE` names another file",
        ),
        (
            "rm e.env",
            "a",
            "its environment file `[..]/e.env` is missing",
            "`asyncq function set events a --env-file FILE` names another file",
        ),
        (
            "asyncq function remove events a; chmod -x prog",
            "b",
            "its program `[..]/prog` is not executable",
            "`chmod +x [..]/prog` makes it executable",
        ),
        (
            "rm prog",
            "b",
            "its program `[..]/prog` is missing",
            "`asyncq function set events b -- PROGRAM` names another program",
        ),
        (
            "asyncq function remove events b; rmdir site",
            "c",
            "its site `[..]/site` is missing",
            "`asyncq function set events c --site FOLDER` names another site",
        ),
    ] {
        let expected = if why.is_empty() {
            "? 1".to_owned()
        } else {
            format!("fault    calls       function `{function}` of service `events` cannot run: {why}")
        };
        let hint = if help.is_empty() { String::new() } else { format!("\n                     {help}") };
        place.session(&format!("$ {change}; asyncq doctor | grep -v '^ok '\n{expected}{hint}"));
    }
}

#[test]
fn what_the_system_denies_is_named() {
    let place = Place::with_functions(&[("note", "true")]);
    let trace = "strace -f -qq -o trace -e inject";
    let denied =
        if place.stdout("id -u").trim() == "0" { "setpriv --reuid 65534 --clear-groups" } else { "chmod 0 $db;" };
    place.session(&format!(
        "
        $ sh -c 'ulimit -n 100; asyncq doctor' | grep -A1 -v '^ok ' | head -2
        warning  limits      a process may open only 100 files
                             raise it with `ulimit -n`, or `LimitNOFILE=` of systemd
        $ {trace}=inotify_init1:error=EMFILE asyncq doctor | grep -A1 -v '^ok ' | head -2
        warning  limits      this user can watch no more files: Too many open files
                             raise `fs.inotify.max_user_instances` and `max_user_watches` with `sysctl`
        $ {trace}=statfs:poke_exit=@arg2=6969000000000000 asyncq doctor
        fault    file        the store `[..]/queue.db` would be on a network file system (NFS)
                             SQLite loses or damages data there; put the store on a local disk of the machine that uses it
        ? 1
        $ chmod 666 .local/share/asyncq/queue.db; asyncq doctor | grep -A1 -v '^ok ' | head -2; chmod 600 .local/share/asyncq/queue.db
        warning  rights      everybody can write the store, and have its processors run any program
                             `chmod o-w '[..]/queue.db'` takes that right away
        $ chmod 711 .; db=.local/share/asyncq/queue.db; {denied} asyncq --db $PWD/$db doctor
        fault    file        the store `[..]/queue.db` cannot be opened
                             asyncq must be able to write the file and the folder it is in
        ? 1
        "
    ));
}

#[test]
fn a_disk_that_is_full_is_named() {
    let place = Place::with_functions(&[]);
    let unshare = if place.stdout("id -u").trim() == "0" { "unshare -m" } else { "unshare -rm" };
    place.write(
        "full",
        "mount -t tmpfs -o size=2m none small; export ASYNCQ_DB=$PWD/small/q.db; asyncq -q init
         dd if=/dev/zero of=small/fill bs=1k count=100000 2>/dev/null; asyncq doctor | grep -A1 -v '^ok ' | head -2",
    );
    place.session(&format!(
        "
        $ mkdir small; {unshare} sh ./full
        fault    space       0 bytes of disk space are left, too little to begin a call
                             make room on the file system of the store
        "
    ));
}

#[test]
fn what_is_no_store_is_named() {
    let place = Place::with_functions(&[]);
    place.session(
        "
        $ mkdir folder; asyncq --db folder doctor
        fault    file        `[..]/folder` is a directory, not a store
                             name a file, as in `--db queue.db`
        ? 1
        $ echo hello > text; asyncq --db text doctor
        fault    file        `[..]/text` is not a SQLite database
                             check `--db` and `$ASYNCQ_DB`; the file was left as it is; if it was a store, restore a backup
        ? 1
        $ touch empty; asyncq --db empty doctor --json | grep -o '\"health\":\"fault\",\"message\":\"[^\"]*'
        \"health\":\"fault\",\"message\":\"`[..]/empty` holds no store
        $ asyncq backup one.db; ln one.db two.db; asyncq --db one.db doctor | head -1
        [..]/one.db
        fault    file        the store `[..]/one.db` has a second name (a hard link)
        ",
    );
}
