//! Mistakes that are easily made, each with a hint that leads out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use crate::place::Place;

#[test]
fn a_program_without_two_dashes_before_it_gets_a_hint() {
    Place::with_functions(&[]).session(
        r#"
        $ asyncq function add events greet echo "hello world" -n
        ! error: `echo` is one argument too many for `asyncq function add`
        ! hint: put `--` before the program: `asyncq function add events greet -- echo 'hello world' -n`
        ? 2
        $ asyncq function add events greet -- echo 'hello world' -n
        $ asyncq function set events greet echo
        ! error: `echo` is one argument too many for `asyncq function set`
        ! hint: put `--` before the program: `asyncq function set events greet -- echo`
        ? 2
        $ asyncq function add events other
        ! error: `asyncq function add` needs `PROGRAM`
        ! hint: put `--` and the program at the end, as in `asyncq function add events mail -- ./mail`
        ? 2
        "#,
    );
}

#[test]
fn an_option_in_the_place_of_a_name_gets_a_hint() {
    let place = Place::with_functions(&[]);
    for (line, command, option) in [
        ("function add s -x -- true", "function add", "-x"),
        ("function add s --no-name -- true", "function add", "--no-name"),
        ("function add s -5 -- true", "function add", "-5"),
        ("function add s -x", "function add", "-x"),
        ("function add -x f -- true", "function add", "-x"),
        ("function set s -x --timeout 5s", "function set", "-x"),
        ("function remove s -x", "function remove", "-x"),
        ("service add -x", "service add", "-x"),
        ("service remove -x --force", "service remove", "-x"),
    ] {
        place.session(&format!(
            "
            $ asyncq {line}
            ! error: `asyncq {command}` has no option `{option}`
            ! hint: a name cannot begin with `-`; `asyncq {command} --help` lists all options
            ? 2
            "
        ));
    }
    for line in ["function add s f -x -- true", "function set s f -x", "function add s f -x"] {
        let command = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        place.session(&format!(
            "
            $ asyncq {line}
            ! error: `asyncq {command}` has no option `-x`
            ! hint: put `--` before the program, and its options after it
            ? 2
            "
        ));
    }
    place.session(
        "
        $ asyncq service add --conurrency 3
        ! error: `asyncq service add` has no option `--conurrency`
        ! hint: did you mean `--concurrency`? `asyncq service add --help` lists all options
        ? 2
        $ asyncq service add --follow
        ! error: `asyncq service add` has no option `--follow`
        ! hint: it is an option of `asyncq process` and `asyncq job log`
        ? 2
        ",
    );
}

#[test]
fn a_line_of_shell_gets_a_hint_to_name_the_shell() {
    let place = Place::with_functions(&[]);
    fs::write(place.at("a file"), "").unwrap();
    place.session(
        r#"
        $ asyncq function add events f -- 'cd /tmp && ls'
        ! error: there is no program `cd /tmp && ls`
        ! hint: there is no shell in between; name one: `-- sh -c 'cd /tmp && ls'`
        ? 66
        $ asyncq function add events f -- "echo 'a' | wc"
        ! error: there is no program `echo 'a' | wc`
        ! hint: there is no shell in between; name one: `-- sh -c 'echo '\''a'\'' | wc'`
        ? 66
        $ asyncq function add events f -- cd /tmp '&&' ls
        ! error: there is no program `cd`
        ! hint: there is no shell in between; name one, as in `-- sh -c 'cd ...'`
        ? 66
        $ asyncq function add events f -- LANG=C sort
        ! error: there is no program `LANG=C`
        ! hint: there is no shell in between; `--env LANG=C` sets a variable
        ? 66
        $ asyncq function add events f -- ./program
        ! error: there is no program `/[..]/program`
        ! hint: a path with a slash is relative to the site of the function
        ? 66
        $ asyncq function add events f -- nothing
        ! error: there is no program `nothing` in `$PATH`
        ! hint: name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`
        ? 66
        $ asyncq function add events f -- './a file'
        ! error: `/[..]/a file` is not executable
        ! hint: `chmod +x /[..]/a file` makes it so
        ? 77
        "#,
    );
}

#[test]
fn a_missing_interpreter_of_a_script_is_named() {
    let place = Place::with_functions(&[]);
    place.program("windows", "#!/bin/sh\r\necho hello\r\n");
    place.program("old", "#! /usr/bin/python1.5 -u\nprint 1\n");
    place.session(
        r"
        $ for name in windows old; do asyncq function add events $name -- ./$name; asyncq enqueue events $name; done
        1
        2
        ",
    );
    // It is tried again some times, as a deploy may have taken the program away for a moment.
    place.run("asyncq process --wait-retries");
    let told = |job| place.job(job)["error"]["message"].as_str().unwrap().to_owned();
    let windows = told(1);
    assert!(
        windows.contains(r"the interpreter `/bin/sh\r` that `")
            && windows.contains("` names in its first line is missing"),
        "{windows}"
    );
    assert!(windows.contains(r"its lines end as on Windows, `sed -i 's/\r$//' "), "{windows}");
    let old = told(2);
    assert!(old.contains("the interpreter `/usr/bin/python1.5` that `") && !old.contains("Windows"), "{old}");
}

#[test]
fn an_option_of_another_command_names_that_command() {
    Place::with_functions(&[]).session(
        "
        $ asyncq process --concurrency 4
        ! error: `asyncq process` has no option `--concurrency`
        ! hint: it is an option of `asyncq service add` and `asyncq service set`
        ? 2
        $ asyncq process --soon
        ! error: `asyncq process` has no option `--soon`
        ! hint: `asyncq process --help` lists all options
        ? 2
        $ asyncq process --in 5m
        ! error: `asyncq process` has no option `--in`
        ! hint: it is an option of `asyncq enqueue`, `asyncq call`, `asyncq run` and `asyncq job set`
        ? 2
        $ asyncq job show --follow 63
        ! error: `asyncq job show` has no option `--follow`
        ! hint: it is an option of `asyncq process` and `asyncq job log`
        ? 2
        $ asyncq enqueue --run-at 14:30 events mail
        ! error: `asyncq enqueue` has no option `--run-at`
        ! hint: `--in 10m` or `--at 14:30` runs a call later
        ? 2
        $ asyncq enqueue events mail --to bob
        ! error: `asyncq enqueue` has no option `--to`
        ! hint: if it is an argument of the call, put `--` before the arguments: `asyncq enqueue SERVICE FUNCTION -- --to`
        ? 2
        $ asyncq job retry --all
        ! asyncq: queued 0 jobs again
        ",
    );
}

#[test]
fn each_mistake_has_a_sentence_and_a_hint() {
    Place::new().session(
        "
        $ asyncq jbo list
        ! error: `asyncq` has no command `jbo`
        ! hint: did you mean `asyncq job`? `asyncq --help` lists all commands
        ? 2
        $ asyncq job shw
        ! error: `asyncq job` has no command `shw`
        ! hint: did you mean `asyncq job show`? `asyncq job --help` lists all commands
        ? 2
        $ asyncq job xyz
        ! error: `asyncq job` has no command `xyz`
        ! hint: `asyncq job --help` lists all commands
        ? 2
        $ asyncq help jbo
        ! error: `asyncq` has no command `jbo`
        ! hint: did you mean `asyncq job`? `asyncq --help` lists all commands
        ? 2
        $ asyncq job help --help
        ! error: `asyncq job` has no command `--help`
        ! hint: `asyncq job --help` lists all commands
        ? 2
        $ asyncq job list --limt 5
        ! error: `asyncq job list` has no option `--limt`
        ! hint: did you mean `--limit`? `asyncq job list --help` lists all options
        ? 2
        $ asyncq process -x
        ! error: `asyncq process` has no option `-x`
        ! hint: `asyncq process --help` lists all options
        ? 2
        $ asyncq job show 1 2
        ! error: `2` is one argument too many for `asyncq job show`
        ! hint: `asyncq job show --help` shows how
        ? 2
        $ asyncq function set s g --timeout 5s ./g
        ! error: `./g` is one argument too many for `asyncq function set`
        ! hint: put `--` before the program: `asyncq function set s g --timeout 5s -- ./g`
        ? 2
        $ asyncq service add
        ! error: `asyncq service add` needs `NAME`
        ! hint: `asyncq service add --help` shows how
        ? 2
        $ asyncq enqueue
        ! error: `asyncq enqueue` needs `SERVICE` and `FUNCTION`
        ! hint: `asyncq enqueue --help` shows how
        ? 2
        $ asyncq job list --limit
        ! error: `--limit` needs a value
        ! hint: `asyncq job list --help` shows how
        ? 2
        $ asyncq job list --state eror
        ! error: `--state` cannot be `eror`: it must be `held`, `blocked`, `delayed`, `queued`, `processing`, `completed`, `error` or `cancelled`
        ! hint: did you mean `error`?
        ? 2
        $ asyncq job show x
        ! error: `ID` cannot be `x`: the number of a job is a whole number from 1
        ! hint: `asyncq job show --help` shows how
        ? 2
        $ asyncq job list --json --json
        ! error: `--json` is given twice
        ! hint: `asyncq job list --help` shows how
        ? 2
        $ asyncq job list --json=yes
        ! error: `--json` takes no value, so `yes` is not allowed
        ! hint: `asyncq job list --help` shows how
        ? 2
        $ asyncq process --follow --wait-retries
        ! error: `--follow` cannot be used with `--wait-retries`
        ! hint: `asyncq process --help` shows how
        ? 2
        ",
    );
}

#[test]
fn an_argument_that_is_not_text_is_named() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    let shell = place.command("");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec asyncq enqueue events say plain \"$1\"", "sh"]);
    command.arg(OsString::from_vec(b"caf\xe9.txt".to_vec())).current_dir(place.path());
    command.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let hint =
        "calls are stored as JSON, which is UTF-8: rename the file, or encode its name, for example with `base64`";
    assert_eq!(said, format!("error: argument 5 (`caf\u{fffd}.txt`) is not UTF-8\nhint: {hint}\n"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_store_has_to_be_a_file() {
    let place = Place::new();
    place.session(
        "
        $ asyncq --db /dev/null init
        ! error: `/dev/null` is a device, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        $ asyncq --db /dev/full job list
        ! error: `/dev/full` is a device, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        $ mkfifo pipe && asyncq --db pipe init
        ! error: `[..]pipe` is a pipe, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        $ python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")' && asyncq --db socket service add s
        ! error: `[..]socket` is a socket, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        $ asyncq --db . init
        ! error: `[..]` is a directory, not a store
        ! hint: name a file, as in `--db queue.db`
        ? 69
        ",
    );
}

/// As old container runtimes and sandboxes do.
#[test]
fn a_refused_system_call_is_reported_as_such() {
    let place = Place::with_functions(&[("say", "echo hello")]);
    place.write("refuse.py", include_str!("refuse.py"));
    let hint = "if a container or a sandbox refuses system calls, have it allow `clone3`, `fallocate`, `ioctl`, `pidfd_open` and `prctl`; else look who may do this, and whether this Linux is older than 5.4";
    // Their numbers are the same on all machines; EPERM is 1, ENOSYS 38.
    for (errno, code) in [(1, 77), (38, 74)] {
        let output = place.run(&format!("python3 refuse.py {errno} 434 asyncq process"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("error: cannot start a processor: the system refuses `pidfd_open`\nhint: {hint}\n"));
        assert_eq!(output.status.code(), Some(code));
        // Whether a file may be written is asked in another way.
        place.session(&format!(
            "$ python3 refuse.py {errno} 439 sh -c 'asyncq -q job clean; asyncq enqueue events say; asyncq process'\n[..]\nhello"
        ));
    }
    // Without `clone3`, where that is refused and not unknown, nothing can be started.
    let said = String::from_utf8(place.run("python3 refuse.py 1 435 asyncq process").stderr).unwrap();
    assert_eq!(said, format!("error: cannot start a processor: Operation not permitted\nhint: {hint}\n"));
}

#[test]
fn every_command_is_described_in_the_help() {
    let place = Place::new();
    for group in ["", "service", "function", "job"] {
        let help = place.stdout(&format!("asyncq {group} --help"));
        let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        for line in commands.lines().filter(|line| !line.starts_with("   ")) {
            assert!(line.split_ascii_whitespace().count() > 2, "`asyncq {group} --help` says only `{line}`");
        }
    }
}
