//! Copies of a store, made while calls run in it.

use crate::place::{Place, Running, wait_until};
use crate::rescue::is_root;

/// A call that is running, and a copy of its store, made meanwhile.
fn copied_while_it_runs() -> (Place, Running) {
    let place = Place::with_functions(&[(
        "waits",
        "echo $ASYNCQ_ATTEMPT >> begun; [ $ASYNCQ_ATTEMPT = 2 ] || until [ -e go ]; do sleep 0.01; done; echo done",
    )]);
    place.stdout("asyncq enqueue events waits");
    let process = place.start("asyncq process");
    wait_until("the call begins", || place.read("begun") == "1\n");
    place.execute(&format!("VACUUM INTO '{}'", place.at("copy.db").display()));
    (place, process)
}

const OF_THE_ORIGINAL: &str = "
    $ asyncq --db copy.db process
    done
    ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; put back 1 of its jobs
    ";

#[test]
fn a_copy_is_not_held_up_by_the_processor_of_the_original_and_ends_nothing_of_it() {
    let (place, process) = copied_while_it_runs();
    place.session(OF_THE_ORIGINAL);
    place.session(
        r#"
        $ asyncq --db copy.db job show 1 --json
        {[..]"state":"completed",[..]"attempts":[{"attempt":1,[..]"ending":"crash","error":{"kind":"crash","message":"the store was copied while it ran",[..]
        "#,
    );
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
    place.session("$ asyncq job list --json | grep -o '\"state\":\"[a-z]*\"\\|\"attempt\":[0-9]*'\n\"state\":\"completed\"\n\"attempt\":1");
}

#[test]
fn a_copy_with_its_folder_ends_nothing_of_the_original_either() {
    let (place, process) = copied_while_it_runs();
    place.stdout("cp -r .local/share/asyncq/queue.db-asyncq copy.db-asyncq");
    place.session(OF_THE_ORIGINAL);
    place.session("$ ls copy.db-asyncq");
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
}

/// Each on a copy of its own, of the same moment: without the folder of the original, with it, and with it after a reboot.
#[test]
fn every_command_puts_back_the_calls_that_ran_in_the_original() {
    let (place, process) = copied_while_it_runs();
    let folder = "cp -r .local/share/asyncq/queue.db-asyncq now.db-asyncq";
    let rebooted = format!("{folder}; sqlite3 now.db \"UPDATE asyncq_processor SET boot = 'another pid:[1]'\"");
    for beside in ["", folder, &rebooted] {
        for session in [
            "
            $ asyncq --db now.db init
            ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; put back 1 of its jobs
            ! asyncq: `[..]` is up to date
            $ asyncq --db now.db init
            ! asyncq: `[..]` is up to date
            $ asyncq --db now.db process
            done
            ",
            "
            $ asyncq --db now.db job cancel 1
            $ asyncq --db now.db job show 1 --json | grep -o '\"state\":\"[a-z]*\"\\|the store was copied while it ran'
            \"state\":\"cancelled\"
            the store was copied while it ran
            ",
            "
            $ asyncq --db now.db job cancel --all
            ! asyncq: cancelled 1 job
            $ asyncq --db now.db job retry 1
            $ asyncq --db now.db process
            done
            ",
            "
            $ asyncq --db now.db job retry 1
            ! error: job 1 is queued, nothing to retry
            ! hint: it will run by itself
            ? 77
            ",
            "
            $ asyncq --db now.db service remove events
            ! error: service `events` has 1 waiting job
            ! hint: `--force` removes it and cancels them
            ? 77
            $ asyncq --db now.db service remove events --force
            ! asyncq: cancelled 1 waiting job: 1
            ",
            "
            $ asyncq --db now.db function remove events waits --force
            ! asyncq: cancelled 1 waiting job: 1
            ",
        ] {
            place.stdout(&format!("rm -rf now.db*; cp copy.db now.db; echo 1 > begun; {beside}"));
            place.session(session);
            place.session(
                "
                $ sqlite3 now.db 'SELECT count(*) FROM asyncq_processor'; find . -path './now.db-asyncq/[0-9a-f]*'
                0
                ",
            );
        }
    }
    place.write("go", "");
    assert_eq!(String::from_utf8_lossy(&process.wait().stdout), "done\n");
    assert_eq!(place.jobs("state attempt"), "completed 1");
}

#[test]
fn where_a_backup_replaces_its_original_only_a_processor_puts_back_calls_that_may_still_run() {
    let (place, process) = copied_while_it_runs();
    let engine = process.engine();
    let both = format!("{engine} $(ps -o ppid= -p {engine})");
    // Neither is to see the other one die, and end what it ran.
    place.stdout(&format!("kill -STOP {both}; kill -9 {both}"));
    drop(process);
    place.session(
        "
        $ cd .local/share/asyncq; rm queue.db queue.db-wal queue.db-shm; mv ../../../copy.db queue.db
        $ asyncq job retry 1
        ! error: job 1 is processing, nothing to retry
        ! hint: `asyncq job cancel 1` ends it first
        ? 77
        $ asyncq process
        done
        ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; put back 1 of its jobs
        ",
    );
}

#[test]
fn calls_that_ran_during_a_backup_run_again_on_a_machine_with_another_name() {
    let (place, process) = copied_while_it_runs();
    place.write("go", "");
    assert!(process.wait().status.success());
    let unshare = if is_root(&place) { "unshare -u" } else { "unshare -ru" };
    place.session(&format!(
        "
        $ {unshare} sh -c 'hostname newbox; asyncq --db copy.db process --trust-store-writers'
        done
        ! asyncq: processor 1 (process [..] on [..]) belongs to the original of this copy; put back 1 of its jobs
        $ asyncq --db copy.db job list --json | grep -o '\"state\":\"[a-z]*\"'
        \"state\":\"completed\"
        "
    ));
}

#[test]
fn a_machine_is_known_by_its_boot_and_not_by_its_name() {
    let (place, process) = copied_while_it_runs();
    // One that is stopped does not see that its folder is gone, and so does not end.
    place.stdout(&format!("kill -STOP {}; rm -r .local/share/asyncq/queue.db-asyncq", process.engine()));
    let unshare = if is_root(&place) { "unshare -u" } else { "unshare -ru" };
    // The same machine with another name: what runs there runs here.
    place.session(&format!(
        "
        $ {unshare} sh -c 'hostname newname; asyncq enqueue events waits; asyncq -v process --trust-store-writers'
        2
        ! asyncq: service `events` is busy: its one slot is taken by processor 1 (process [..] on [..])
        ! asyncq: 0 attempts; 0 jobs ended in an error
        "
    ));
    // Another machine with the same name, or after a new start.
    place.execute("UPDATE asyncq_processor SET boot = 'another pid:[1]'");
    place.session(
        "
        $ asyncq process --max-jobs 1
        done
        ! asyncq: processor 1 (process [..] on [..]) died; put back 1 of its jobs
        ",
    );
    drop(process);
}
