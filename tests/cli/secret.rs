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

/// For each command of asyncq, lines that use it while job 1, which has secret arguments, runs, and the exit code of each. Jobs
/// 2 and 4 and the schedule have them too, and job 3 has ended in an error.
const COMMANDS: &[(&str, &[(i32, &str)])] = &[
    ("init", &[(0, "-v init")]),
    ("service add", &[(0, "-v service add more")]),
    ("service list", &[(0, "service list"), (0, "service list --json")]),
    ("service show", &[(0, "service show events"), (0, "service show events --json")]),
    ("service set", &[(0, "-v service set more --concurrency 2")]),
    ("service pause", &[(0, "-v service pause more")]),
    ("service resume", &[(0, "-v service resume more")]),
    ("service remove", &[(0, "-v service remove more")]),
    ("function add", &[(0, "-v function add events extra -- true")]),
    ("function list", &[(0, "function list"), (0, "function list --json"), (0, "function list --output csv")]),
    ("function show", &[(0, "function show events login"), (0, "function show events login --json")]),
    (
        "function set",
        &[(0, "-v function set events login --timeout 10m"), (2, "-v function set events login --takes 'a b'")],
    ),
    ("function reload", &[(0, "-v function reload")]),
    ("function remove", &[(0, "-v function remove events extra"), (77, "-v function remove events login")]),
    (
        "enqueue",
        &[
            (0, "-v enqueue events login -k user=zoe -k password=@- < secret"),
            (2, "-v enqueue events login zoe -k password=@- -k wrong=1 < secret"),
            (2, "-v enqueue events login -k password=@- < secret"),
            (0, "-v enqueue --batch batch"),
            (65, "-v enqueue --batch wrong"),
            (0, "-v enqueue events login zoe -k password=@- --key other < secret"),
            (77, "-v enqueue events login bob -k password=@- --key other < secret"),
        ],
    ),
    ("call", &[(75, "-v call events login zoe -k password=@- --in 1h --timeout 0 < secret")]),
    ("process", &[(0, "-v process events")]),
    (
        "job list",
        &[
            (0, "job list"),
            (0, "job list --json"),
            (0, "job list --output csv"),
            (0, "job list --state error"),
            (0, "job list --state queued"),
        ],
    ),
    (
        "job show",
        &[
            (0, "job show 1"),
            (0, "job show 2"),
            (0, "job show 3"),
            (0, "job show 1 --json"),
            (0, "job show 3 --json"),
            (0, "job show 2 --output csv"),
        ],
    ),
    ("job result", &[(1, "job result 3")]),
    ("job log", &[(0, "job log 3"), (75, "job log 1")]),
    ("job cancel", &[(0, "-v job cancel 2")]),
    ("job retry", &[(0, "-v job retry 2")]),
    (
        "job rerun",
        &[
            (0, "-v job rerun 3"),
            (2, "-v job rerun 3 -k password=@- < secret"),
            (0, "-v job rerun 3 -k password=@- -- zoe < secret"),
        ],
    ),
    ("job start", &[(77, "-v job start 1")]),
    ("job set", &[(0, "-v job set 4 --priority 5"), (77, "-v job set 3 --priority 5")]),
    ("job clean", &[(0, "-v job clean --dry-run")]),
    ("schedule add", &[(0, "-v schedule add other --every 1h events login zoe -k password=@- < secret")]),
    ("schedule list", &[(0, "schedule list"), (0, "schedule list --json"), (0, "schedule list --output csv")]),
    ("schedule show", &[(0, "schedule show nightly"), (0, "schedule show nightly --json")]),
    (
        "schedule set",
        &[
            (0, "-v schedule set nightly events login bob -k password=@- < secret"),
            (0, "-v schedule set nightly --every 2h"),
        ],
    ),
    ("schedule next", &[(0, "schedule next nightly"), (0, "schedule next nightly --json")]),
    ("schedule run", &[(0, "-v schedule run nightly")]),
    ("schedule pause", &[(0, "-v schedule pause other")]),
    ("schedule resume", &[(0, "-v schedule resume other")]),
    ("schedule remove", &[(0, "-v schedule remove other")]),
    ("due", &[(0, "due"), (0, "due --json")]),
    ("doctor", &[(0, "doctor"), (0, "doctor --full"), (0, "doctor --json")]),
    ("status", &[(0, "status"), (0, "status --json"), (0, "status events")]),
    ("wait", &[(75, "-v wait --timeout 0 1 2 3")]),
    (
        "explain",
        &[
            (0, "explain 1"),
            (0, "explain 2"),
            (0, "explain 3"),
            (0, "explain 1 --json"),
            (0, "explain 2 --json"),
            (0, "explain 3 --json"),
        ],
    ),
    ("rpc", &[(0, "rpc < requests")]),
    ("is-async", &[(1, "is-async")]),
    ("whoami", &[(1, "whoami")]),
    ("restore", &[(0, "-v restore copy.db")]),
    ("apply", &[(1, "-v apply --dry-run manifest"), (0, "-v apply manifest")]),
    ("export", &[(0, "export hooks")]),
    ("run", &[(0, "-v run -- true")]),
    ("backup", &[(0, "-v backup copy.db"), (77, "-v backup copy.db")]),
    ("pause", &[(0, "-v pause --why lunch")]),
    ("resume", &[(0, "-v resume")]),
    ("schema", &[(0, "schema"), (0, "schema job-show")]),
    ("remove", &[(77, "remove < /dev/null")]),
];

/// The commands that run after the processor has ended, in this order.
const AT_REST: &[&str] = &["process", "restore", "remove"];

/// The names of all commands that have no commands of their own.
fn commands() -> BTreeSet<String> {
    let reference = asyncq::reference();
    let all: BTreeSet<String> =
        reference.lines().filter_map(|line| line.strip_prefix("## asyncq ")).map(str::to_owned).collect();
    all.iter().filter(|name| !all.iter().any(|other| other.starts_with(&format!("{name} ")))).cloned().collect()
}

fn check((code, what): (i32, &str), output: &Output) {
    assert_eq!(output.status.code(), Some(code), "{what}: {output:?}");
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
    let named: BTreeMap<&str, &[(i32, &str)]> = COMMANDS.iter().copied().collect();
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
    place.write("wrong", &format!("{}\n", call.replace("zoe\",", "zoe\",1,2,3,")));
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
        $ for job in 1 2 3 4; do asyncq enqueue events login zoe -k password=@- --hold < secret; done
        1
        2
        3
        4
        $ asyncq schedule add nightly --every 1h events login zoe -k password=@- < secret
        $ asyncq job start 1 3
        ",
    );
    let processor = place.start("asyncq -v process --follow");
    wait_until("the calls run", || place.at("runs").exists() && place.at("got.3").exists());
    let kept = command_lines();
    assert!(kept.contains("login zoe") && !kept.contains(SENTINEL), "{kept}");
    for (command, lines) in COMMANDS {
        if AT_REST.contains(command) {
            continue;
        }
        for line in *lines {
            check(*line, &place.run(&format!("timeout 20 asyncq {}", line.1)));
        }
    }
    let kept = command_lines();
    assert!(!kept.contains(SENTINEL), "{kept}");
    place.write("go", "");
    let has_heard = |what: &str| place.at("hooked").exists() && place.read("hooked").contains(what);
    wait_until("the hooks have run", || has_heard("--state=completed") && has_heard("--state=error"));
    // A request has put it back on the queue.
    place.run("timeout 20 asyncq wait 3");
    processor.signal("TERM");
    check((1, "process --follow"), &processor.wait());
    place.stdout("asyncq job start 4");
    for line in AT_REST.iter().flat_map(|command| named[command]) {
        check(*line, &place.run(&format!("timeout 20 asyncq {}", line.1)));
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
