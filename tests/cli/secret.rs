//! Secret arguments: nobody is shown them, and they stand on no command line.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, process::Output};

use crate::place::{Place, wait_until};

#[test]
fn secrets_are_masked_unless_somebody_asks_for_them() {
    let place = Place::with_functions(&[("login", "true")]);
    place.session(
        r#"
        $ asyncq function set events login --takes 'user pin [site] [--password]' --secret password --secret 2
        $ asyncq function show events login | grep secret
        secret    password, 2
        $ asyncq function show events login --json | grep -o '"secret":[^]]*.'
        "secret":["password","2"]
        $ asyncq enqueue events login zoe 1234 -k password=hunter2 -k site=home
        1
        $ asyncq job list
        ID  SERVICE  FUNCTION  ARGUMENTS  [..]  PRINCIPAL  STATE   WHEN
        1   events   login     ["zoe","•••","home"] {"password":"•••"}  -          queued  now
        $ asyncq job show 1 | grep args
        args       ["zoe","•••","home"]
        kwargs     {"password":"•••"}
        $ asyncq job show 1 --json | grep -o '"args".*"principal"'
        "args":["zoe","•••","home"],"kwargs":{"password":"•••"},"principal"
        $ asyncq job list --json --reveal | grep -o '"args".*"principal"'
        "args":["zoe",1234,"home"],"kwargs":{"password":"hunter2"},"principal"
        $ asyncq job show 1 --reveal | grep args
        args       ["zoe",1234,"home"]
        kwargs     {"password":"hunter2"}
        $ asyncq schedule add nightly --cron '0 4 * * *' --tz UTC events login zoe -k pin=1234 -k password=hunter2
        $ asyncq schedule list | grep -o 'events login.*"}'
        events login ["zoe","•••"] {"password":"•••"}
        $ asyncq schedule show nightly --json | grep -o '"args".*"principal"'
        "args":["zoe","•••"],"kwargs":{"password":"•••"},"principal"
        $ asyncq schedule show nightly --reveal | grep calls
        calls      events login ["zoe",1234] {"password":"hunter2"}
        $ asyncq schedule list --reveal --json | grep -o '"kwargs":[^}]*.'
        "kwargs":{"password":"hunter2"}
        $ printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"job","params":{"job":1}}' | asyncq rpc | grep -o '"args".*"principal"'
        "args":["zoe","•••","home"],"kwargs":{"password":"•••"},"principal"
        $ asyncq job rerun 1
        2
        $ asyncq job show 2 --reveal | grep kwargs
        kwargs     {"password":"hunter2"}
        "#,
    );
}

/// A secret is no word of the command line, so those after it move up; standard input has all.
#[test]
fn secrets_are_no_words() {
    Place::with_functions(&[("show", r#"printf '<%s>' "$@"; cat | grep -o '"args".*"principal"'"#)]).session(
        r#"
        $ asyncq function set events show --secret 2 --secret pin
        $ asyncq enqueue events show a b c -k pin=1 -k other=2
        1
        $ asyncq process
        <a><c><--other=2>"args":["a","b","c"],"kwargs":{"pin":1,"other":2},"principal"
        $ asyncq function set events show --stdin none
        ! error: with `--stdin none` the program gets no secret arguments, as they are never words
        ! hint: `--stdin call` passes them on standard input
        ? 2
        $ asyncq function add events silent --stdin none --secret pin -- ./show
        ! error: with `--stdin none` the program gets no secret arguments, as they are never words
        ! hint: `--stdin call` passes them on standard input
        ? 2
        $ asyncq function set events show --takes 'a b'
        ! error: the function has no argument `pin` that could be secret
        ! hint: its signature is `a b`
        ? 2
        $ asyncq function set events show --takes 'a b' --secret 3
        ! error: the function has no positional argument 3 that could be secret
        ! hint: its signature is `a b`
        ? 2
        $ asyncq function set events show --secret a=b
        ! error: `a=b` cannot be a secret argument
        ! hint: give the name of an argument, or its place, counted from 1
        ? 2
        $ asyncq function set events show --no-secret
        ! asyncq: jobs of `events` `show` are shown with the arguments that were secret
        ! hint: `asyncq job clean --service events --function show` removes those that have ended
        $ asyncq job show 1 | grep args
        args       ["a","b","c"]
        kwargs     {"pin":1,"other":2}
        "#,
    );
}

#[test]
fn a_value_comes_from_standard_input() {
    let place = Place::with_functions(&[("show", "true"), ("inner", "true")]);
    place.session(
        r#"
        $ printf 'hunter2\n\n' | asyncq enqueue events show -k password=@-
        1
        $ echo 12 | asyncq enqueue events show -k password=@- -k other=12 @-
        2
        $ echo 12 | asyncq enqueue events show --raw -k password=@-
        3
        $ asyncq enqueue events show -k 'password="@-"' < /dev/null
        4
        $ asyncq enqueue events show -k password=@- < /dev/null
        5
        $ asyncq job list --json | grep -o '"args".*"principal"'
        "args":[],"kwargs":{"password":""},"principal"
        "args":[],"kwargs":{"password":"@-"},"principal"
        "args":[],"kwargs":{"password":"@-"},"principal"
        "args":["@-"],"kwargs":{"password":"12","other":12},"principal"
        "args":[],"kwargs":{"password":"hunter2\n"},"principal"
        $ asyncq function set events show --takes '[n:int]'; echo 12 | asyncq enqueue events show -k n=@-
        6
        $ asyncq job show 6 | grep args
        args       [12]
        kwargs     {}
        $ echo x | asyncq enqueue events inner -k a=@- -k b=@-
        ! error: argument `a` and argument `b` cannot both come from standard input
        ! hint: put one of them into a file
        ? 2
        $ echo x | asyncq enqueue events inner -k a=@- --after -
        ! error: argument `a` and a list of jobs cannot both come from standard input
        ! hint: put one of them into a file
        ? 2
        $ echo x | asyncq enqueue --batch - --then events inner -k a=@-
        ! error: argument `a` and the batch cannot both come from standard input
        ! hint: put one of them into a file
        ? 2
        $ head -c 1048577 /dev/zero | tr '\0' x | asyncq enqueue events inner -k a=@-
        ! error: standard input, for `-k a=@-`, has more than 1048576 bytes
        ! hint: put the data into a file and pass its path
        ? 65
        $ printf '\377' | asyncq enqueue events inner -k a=@-
        ! error: standard input, for `-k a=@-`, is not UTF-8
        ! hint: encode it, for example with `base64`
        ? 65
        $ printf 'a\0b' | asyncq enqueue events inner -k a=@-
        ! error: argument `a`: a NUL character in a string
        ! hint: `--raw` passes the text itself
        ? 65
        $ echo x | asyncq job rerun 1 -k a=@- -- 5
        ! error: `events show` takes no argument `a`
        ! hint: usage: asyncq enqueue events show [n:int]
        ? 2
        $ echo 0x1 | asyncq schedule add s --every 1h events inner -k a=@-
        $ asyncq schedule show s | grep calls
        calls      events inner {"a":"0x1"}
        "#,
    );
    let said = place.on_terminal(200, "asyncq enqueue events inner -k a=@-");
    assert!(said.contains("`-k a=@-` reads standard input, and that is a terminal"), "{said}");
    assert!(said.contains("pass a file or a pipe"), "{said}");
}

/// What nobody may find.
const SENTINEL: &str = "sentinel-5f1c8e0b";

/// For each command of asyncq, lines that use it while job 1, which has secret arguments, runs. Job 2 and the schedule have
/// them too, and job 3 has ended in an error.
const COMMANDS: &[(&str, &[&str])] = &[
    ("init", &["-v init"]),
    ("service add", &["-v service add more"]),
    ("service list", &["service list", "service list --json"]),
    ("service show", &["service show events", "service show events --json"]),
    ("service set", &["-v service set more --concurrency 2"]),
    ("service pause", &["-v service pause more"]),
    ("service resume", &["-v service resume more"]),
    ("service remove", &["-v service remove more"]),
    ("function add", &["-v function add events extra -- true"]),
    ("function list", &["function list", "function list --json", "function list --csv"]),
    ("function show", &["function show events login", "function show events login --json"]),
    ("function set", &["-v function set events login --timeout 10m", "-v function set events login --takes 'a b'"]),
    ("function reload", &["-v function reload"]),
    ("function remove", &["-v function remove events extra", "-v function remove events login"]),
    (
        "enqueue",
        &[
            "-v enqueue events login -k user=zoe -k password=@- < secret",
            "-v enqueue events login zoe -k password=@- -k wrong=1 < secret",
            "-v enqueue events login -k password=@- < secret",
            "-v enqueue --batch batch",
            "-v enqueue --batch batch --key k",
            "-v enqueue events login zoe -k password=@- --key other < secret",
            "-v enqueue events login bob -k password=@- --key other < secret",
        ],
    ),
    ("call", &["-v call events login zoe -k password=@- --timeout 0s < secret"]),
    ("process", &["-v process --wait 0s events"]),
    (
        "job list",
        &["job list", "job list --json", "job list --csv", "job list --state error", "job list --state queued"],
    ),
    (
        "job show",
        &["job show 1", "job show 2", "job show 3", "job show 1 --json", "job show 3 --json", "job show 2 --csv"],
    ),
    ("job result", &["job result 3"]),
    ("job log", &["job log 3", "job log 1"]),
    ("job cancel", &["-v job cancel 2"]),
    ("job retry", &["-v job retry 2"]),
    ("job rerun", &["-v job rerun 3", "-v job rerun 3 -k password=@- < secret"]),
    ("job start", &["-v job start 1"]),
    ("job set", &["-v job set 2 --priority 5"]),
    ("job clean", &["-v job clean --dry-run"]),
    ("schedule add", &["-v schedule add other --every 1h events login zoe -k password=@- < secret"]),
    ("schedule list", &["schedule list", "schedule list --json", "schedule list --csv"]),
    ("schedule show", &["schedule show nightly", "schedule show nightly --json"]),
    (
        "schedule set",
        &["-v schedule set nightly events login bob -k password=@- < secret", "-v schedule set nightly --every 2h"],
    ),
    ("schedule next", &["schedule next nightly", "schedule next nightly --json"]),
    ("schedule run", &["-v schedule run nightly"]),
    ("schedule pause", &["-v schedule pause other"]),
    ("schedule resume", &["-v schedule resume other"]),
    ("schedule remove", &["-v schedule remove other"]),
    ("due", &["due", "due --json"]),
    ("doctor", &["doctor", "doctor --full", "doctor --json"]),
    ("status", &["status", "status --json", "status events"]),
    ("wait", &["-v wait --timeout 0s 1 2 3"]),
    ("explain", &["explain 1", "explain 2", "explain 3", "explain 1 --json", "explain 2 --json", "explain 3 --json"]),
    ("rpc", &["rpc < requests"]),
    ("is-async", &["is-async"]),
    ("whoami", &["whoami"]),
    ("restore", &["-v restore copy.db"]),
    ("apply", &["-v apply --dry-run manifest", "-v apply manifest"]),
    ("export", &["export hooks"]),
    ("run", &["-v run -- true"]),
    ("backup", &["-v backup copy.db", "-v backup copy.db"]),
    ("pause", &["-v pause --why lunch"]),
    ("resume", &["-v resume"]),
    ("schema", &["schema", "schema job-show"]),
    ("remove", &["-v remove --dry-run", "remove < /dev/null"]),
];

/// The names of all commands that have no commands of their own.
fn commands() -> BTreeSet<String> {
    let reference = asyncq::reference();
    let all: BTreeSet<String> =
        reference.lines().filter_map(|line| line.strip_prefix("## asyncq ")).map(str::to_owned).collect();
    all.iter().filter(|name| !all.iter().any(|other| other.starts_with(&format!("{name} ")))).cloned().collect()
}

fn check(what: &str, output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains(SENTINEL), "{what}: {text}");
    }
}

/// The command lines of all processes of this machine.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

#[test]
fn a_secret_is_found_nowhere_but_where_it_must_be() {
    let named: BTreeMap<&str, &[&str]> = COMMANDS.iter().copied().collect();
    let listed: BTreeSet<String> = named.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed, commands(), "each command has a line here that may not show a secret");

    let place = Place::with_functions(&[(
        "login",
        "cat > got.$ASYNCQ_JOB\nenv > env.$ASYNCQ_JOB\nprintf '%s\\n' \"$*\"\n[ $ASYNCQ_JOB = 3 ] && exit 3\n\
         [ $ASYNCQ_JOB = 1 ] || exit 0\ntouch runs\nuntil [ -e go ]; do sleep 0.02; done",
    )]);
    place.write("secret", SENTINEL);
    // What `export` writes, `apply` has to read: there, the calls of schedules are whole.
    place.write(
        "manifest",
        &format!("[schedule.more]\ncall = \"events/login\"\nargs = [\"zoe\", \"{SENTINEL}\"]\nevery = \"1h\"\n"),
    );
    let call = format!(r#"{{"service":"events","function":"login","args":["zoe",{{"in":"{SENTINEL}"}}]}}"#);
    place.write("batch", &format!("{call}\n"));
    let enqueue = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"enqueue","params":{call}}}"#);
    let bad = enqueue.replace("zoe\",", "zoe\",1,2,3,");
    let job = |method: &str, job: &str| format!(r#"{{"jsonrpc":"2.0","id":2,"method":"{method}","params":{{{job}}}}}"#);
    let requests = [
        enqueue,
        bad,
        job("job", r#""job":1"#),
        job("job", r#""job":3"#),
        job("retry", r#""job":3"#),
        job("cancel", r#""job":2"#),
        job("wait", r#""jobs":[1,3],"timeout":0"#),
    ];
    place.write("requests", &(requests.join("\n") + "\n"));
    place.program("hook", "#!/bin/sh\n{ echo \"$@\"; cat; env; } >> hooked\n");
    place.session(
        "
        $ asyncq service add hooks; asyncq function add hooks hook -- ./hook
        $ asyncq function set events login --secret password --secret 2
        $ asyncq service set events --on-error hooks/hook --on-success hooks/hook --concurrency 3
        $ asyncq function set events login --takes 'user password'
        $ for job in 1 2 3; do asyncq enqueue events login zoe -k password=@- --hold < secret; done
        1
        2
        3
        $ asyncq schedule add nightly --every 1h events login zoe -k password=@- < secret
        $ asyncq job start 1 3
        ",
    );
    let processor = place.start("asyncq -v process --follow");
    wait_until("the calls run", || place.at("runs").exists() && place.at("got.3").exists());
    let kept = command_lines();
    assert!(kept.contains("login zoe") && !kept.contains(SENTINEL), "{kept}");
    for (command, lines) in COMMANDS {
        if *command == "remove" {
            continue;
        }
        for line in *lines {
            check(line, &place.run(&format!("timeout 20 asyncq {line}")));
        }
    }
    let kept = command_lines();
    assert!(!kept.contains(SENTINEL), "{kept}");
    place.write("go", "");
    let has_heard = |what: &str| place.at("hooked").exists() && place.read("hooked").contains(what);
    wait_until("the hooks have run", || has_heard("--state=completed") && has_heard("--state=error"));
    processor.signal("TERM");
    check("process --follow", &processor.wait());
    for line in named["remove"] {
        check(line, &place.run(&format!("timeout 20 asyncq {line}")));
    }
    let hooked = place.read("hooked");
    assert!(hooked.contains("--kind=exit") && !hooked.contains(SENTINEL), "{hooked}");
    assert!(!place.read("env.1").contains(SENTINEL));
    for (what, text) in
        [("standard input", place.read("got.1")), ("--reveal", place.stdout("asyncq job show 1 --reveal"))]
    {
        assert!(text.contains(SENTINEL), "{what}: {text}");
    }
}
