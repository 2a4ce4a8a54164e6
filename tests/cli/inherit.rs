//! What functions and processors inherit from whoever starts them, and what they do not.

use crate::place::{Place, WORKER, wait_until};

/// Becomes the program that it is given, with every signal blocked, and every signal ignored that may be.
const SULLEN: &str = "#!/usr/bin/env python3
import os, signal, sys
for number in signal.valid_signals():
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
";

/// The same, and only ignores that its children end.
const DEAF: &str = "#!/usr/bin/env python3
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
";

/// The signals that `/proc` says are blocked or ignored, as one number; without 32 and 33, which the C library keeps for
/// itself, and ignores in what it starts.
fn signals(status: &str, field: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap() & !(0b11 << 31)
}

#[test]
fn a_caller_that_ignores_the_end_of_its_children_hides_no_outcome() {
    let place = Place::with_functions(&[("ok", "exit 0"), ("fails", "exit 3")]);
    place.program("deaf", DEAF);
    place.function("caller", "", "exec ./deaf asyncq enqueue events ok");
    place.program("worker.py", &format!("{WORKER}serve(lambda call: 1)"));
    place.session("$ asyncq function add events work --worker -- ./worker.py");
    place.function("calls_worker", "", "exec ./deaf asyncq enqueue events work");
    place.session(
        "
        $ for f in ok fails caller work calls_worker; do asyncq enqueue events $f; done >/dev/null
        $ ./deaf asyncq process
        ! asyncq: job 2 (`events` `fails`): exit code 3
        ? 1
        ",
    );
    assert_eq!(place.jobs("state"), "completed, error, completed, completed, completed, completed, completed");

    place.stdout("asyncq enqueue events ok");
    let process = place.start("./deaf asyncq process --follow");
    wait_until("the call ends", || place.job(8)["state"] == "completed");
    process.signal("TERM");
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn functions_start_with_no_signal_blocked_and_only_those_ignored_that_a_terminal_sends() {
    let place = Place::with_functions(&[("nested", "cat /proc/self/status > nested.seen")]);
    place.program("sullen", SULLEN);
    place.function("command", "", "cat /proc/self/status > command.seen");
    place.function("caller", "", "exec ./sullen asyncq enqueue events nested");
    place.program("worker.py", &format!("{WORKER}serve(lambda call: 1)"));
    place.program("worker", "#!/bin/sh\ncat /proc/self/status > worker.seen\nexec ./worker.py\n");
    place.session("$ asyncq function add events work --worker -- ./worker");
    place.stdout("for f in command caller work; do asyncq enqueue events $f; done");
    place.session("$ ./sullen asyncq process");
    for kind in ["command", "nested", "worker"] {
        let seen = place.read(&format!("{kind}.seen"));
        // SIGHUP, SIGINT and SIGQUIT: `nohup` and a shell's `&` have programs ignore those.
        assert_eq!((signals(&seen, "SigBlk:"), signals(&seen, "SigIgn:")), (0, 0b111), "{kind}: {seen}");
    }
    place.stdout("asyncq enqueue events command; asyncq process");
    assert_eq!(signals(&place.read("command.seen"), "SigIgn:"), 0);
}

#[test]
fn signals_that_the_caller_blocks_still_reach_functions_and_their_processor() {
    let place = Place::with_functions(&[("waits", "touch begun; until [ -e go ]; do sleep 0.01; done")]);
    place.program("sullen", SULLEN);
    place.session("$ asyncq function add events naps --timeout 100ms -- sleep 1000\n$ asyncq enqueue events naps\n1");
    place.run("./sullen asyncq process");
    let told = place.stdout("asyncq job show 1 --json");
    // It was asked to end, and did not have to be made to.
    assert!(told.contains(r#""kind":"timeout""#) && told.contains(r#""signal":15"#), "{told}");

    place.stdout("asyncq enqueue events waits; asyncq enqueue events waits");
    let process = place.start("./sullen asyncq process");
    wait_until("the call begins", || place.at("begun").exists());
    process.signal("TERM");
    place.write("go", "");
    assert!(process.wait().status.success());
    assert_eq!(place.jobs("state"), "error, completed, queued");
}

#[test]
fn pwd_is_the_site_and_there_is_no_folder_before_it() {
    let mut place = Place::with_functions(&[("outer", "cd /; exec asyncq enqueue events inner")]);
    place.set("PWD", "/usr");
    place.set("OLDPWD", "/usr/bin");
    place.write("print.py", "import os\nprint(os.environ['PWD'], os.environ.get('OLDPWD'), flush=True)\n");
    let worker = "exec(open('print.py').read()); serve(lambda call: 1)";
    place.program("worker.py", &format!("{WORKER}{worker}"));
    place.session(
        "
        $ asyncq function add events command -- python3 print.py
        $ asyncq function add events recorded --env PWD=/bin -- python3 print.py
        $ mkdir there && cp print.py there
        $ asyncq function add events inner --site there -- python3 print.py
        $ asyncq function add events work --worker -- ./worker.py
        $ for f in command recorded outer work; do asyncq enqueue events $f; done >/dev/null
        $ cd /usr && asyncq process | sed 's|'$HOME'|~|'
        ~ None
        ~ None
        ~/there None
        ~ None
        ",
    );
}

#[test]
fn a_program_is_the_kernels_first_victim_from_its_first_instruction_on() {
    let place = Place::with_functions(&[]);
    place.program("worker", "#!/bin/sh\ncat /proc/self/oom_score_adj\nexec ./worker.py\n");
    place.program("worker.py", &format!("{WORKER}serve(lambda call: 1)"));
    let own: i32 = place.stdout("cat /proc/self/oom_score_adj").trim().parse().unwrap();
    place.stdout(
        "asyncq function add events score -- cat /proc/self/oom_score_adj
        asyncq function add events work --worker -- ./worker
        asyncq service set events --concurrency 4
        for i in $(seq 100); do echo '{\"service\":\"events\",\"function\":\"score\"}'; done | asyncq enqueue --batch -
        asyncq enqueue events work",
    );
    let told = place.stdout("asyncq process ");
    let scores: Vec<i32> = told.lines().map(|line| line.parse().unwrap()).collect();
    let at_least = (own + 500).min(1000);
    assert!(scores.len() == 101 && scores.iter().all(|score| *score >= at_least), "{scores:?}");
}

#[test]
fn no_zombies_pile_up_below_a_processor_that_is_a_containers_first_process() {
    let unshare = "unshare -pf --mount-proc --propagation private";
    let in_container = if Place::new().stdout("id -u").trim() == "0" { unshare } else { &format!("{unshare} -r") };
    for how in ["", in_container] {
        let place = Place::with_functions(&[]);
        // A child of the shell that asyncq takes the place of, and later what it orphans.
        let others = "(until [ -e go ]; do sleep 0.01; done; (true &); touch left) &";
        let process =
            place.start(&format!("{how} sh -c '{others} exec asyncq process --follow --trust-store-writers'"));
        let children = |pid: &str| {
            let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            list.unwrap_or_default().trim().to_owned()
        };
        let own = process.0.id().to_string();
        let supervisor = || if how.is_empty() { own.clone() } else { children(&own) };
        wait_until("both run", || children(&supervisor()).contains(' '));
        place.write("go", "");
        wait_until("something was left", || place.at("left").exists());
        wait_until("the dead are reaped", || !children(&supervisor()).contains(' '));
        assert!(!children(&supervisor()).is_empty());
        place.stdout(&format!("kill {}", supervisor()));
        assert!(process.wait().status.success());
    }
}

/// With the tests above, and `descriptors::` among the faults, each row of the table in docs/functions.md.
#[test]
fn a_function_inherits_as_in_the_table_and_nothing_else() {
    let place = Place::with_functions(&[(
        "all",
        "echo umask $(umask), nice $(nice), seconds $(ulimit -t), in $(/bin/pwd), kept $KEPT, notify ${NOTIFY_SOCKET-unset}
        read -r pid name state parent group session terminal rest < /proc/$$/stat
        [ $group = $$ ] && [ $session = $parent ] && [ $terminal = 0 ] && echo apart",
    )]);
    place.session("$ asyncq function add events descriptors -- ls /proc/self/fd");
    let nice: i32 = place.stdout("nice -n 5 nice").trim().parse().unwrap();
    place.stdout("asyncq enqueue events all; asyncq enqueue events descriptors");
    place.session(&format!(
        "
        $ export KEPT=yes NOTIFY_SOCKET=/none; umask 027; ulimit -t 1000; cd /usr; nice -n 5 asyncq process 7</dev/null
        umask 0027, nice {nice}, seconds 1000, in {}, kept yes, notify unset
        apart
        0
        1
        2
        3
        ",
        place.path().canonicalize().unwrap().display()
    ));
}
