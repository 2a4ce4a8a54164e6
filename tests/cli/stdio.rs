//! stdin, stdout and stderr as others share them: who writes between, who sets `O_NONBLOCK`, disks that are full.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rustix::fs::OFlags;

use crate::place::{Place, wait_until};

/// What a command writes to stderr, one by one.
fn writes(place: &Place, line: &str) -> Vec<String> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut command = place.command(line);
    command.stdout(Stdio::null()).stderr(OwnedFd::from(theirs)).status().unwrap();
    drop(command);
    ours.set_nonblocking(true).unwrap();
    let mut space = [0; 4096];
    let next = || {
        let count = ours.recv(&mut space).ok()?;
        Some(String::from_utf8_lossy(&space[..count]).into_owned())
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn a_message_is_one_write() {
    let place =
        Place::with_functions(&[("fails", "exit 3"), ("meets", "exit 75"), ("nests", "asyncq enqueue events fails")]);
    for (line, expected) in [
        ("asyncq job show 99", &["error: there is no job 99\nhint: there are no jobs at all\n"][..]),
        (
            "asyncq job shw",
            &[
                "error: `asyncq job` has no command `shw`\nhint: did you mean `asyncq job show`? `asyncq job --help` lists all commands\n",
            ],
        ),
        ("asyncq enqueue events fails && asyncq process", &["asyncq: job 1 (`events` `fails`): exit code 3\n"]),
        (
            "asyncq enqueue events nests && asyncq process",
            &["asyncq: job 3 (`events` `fails`): exit code 3\n", "asyncq: job 2 (`events` `nests`): exit code 1\n"],
        ),
    ] {
        assert_eq!(writes(&place, line), expected, "{line}");
    }
    let help = writes(&place, "asyncq service");
    assert_eq!(help.len(), 1, "{help:?}");
}

#[test]
fn a_message_stands_on_a_line_of_its_own() {
    let place =
        Place::with_functions(&[("out", "printf 'no line end'; exit 3"), ("err", "printf 'no line end' >&2; exit 3")]);
    place.session(
        "
        $ asyncq enqueue events err; asyncq enqueue events out; asyncq process
        1
        2
        no line end
        ! no line end
        ! asyncq: job 1 (`events` `err`): exit code 3
        ! asyncq: job 2 (`events` `out`): exit code 3
        ? 1
        $ asyncq job retry 1 2; asyncq process 2>&1
        no line end
        asyncq: job 1 (`events` `err`): exit code 3
        no line end
        asyncq: job 2 (`events` `out`): exit code 3
        ? 1
        ",
    );
}

#[test]
fn lines_of_functions_that_run_at_once_are_not_glued() {
    let place = Place::with_functions(&[
        ("half", "printf half; touch printed; until [ -e go ]; do sleep 0.01; done"),
        ("whole", "until [ -e printed ]; do sleep 0.01; done; echo whole; touch go"),
    ]);
    place.stdout(
        "asyncq service set events --concurrency 3; for f in half half half; do asyncq enqueue events $f; done",
    );
    place.stdout("asyncq enqueue events whole");
    place.write("go", "");
    let printed = place.stdout("asyncq process");
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["half", "half", "half", "whole"]);
}

/// Starts a command with one of its streams a pipe on which somebody has set `O_NONBLOCK`; gives the other end.
fn nonblocking(place: &Place, line: &str, stream: u32) -> (crate::place::Running, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (ours, theirs) = if stream == 0 { (write, read) } else { (read, write) };
    rustix::fs::fcntl_setfl(&theirs, OFlags::NONBLOCK).unwrap();
    let mut command = place.command(&format!("exec {line}"));
    match stream {
        0 => command.stdin(theirs),
        1 => command.stdout(theirs),
        _ => command.stderr(theirs),
    };
    let running = crate::place::Running(command.spawn().unwrap());
    drop(command);
    (running, File::from(ours))
}

/// Whether a pipe takes no more.
fn is_full(pipe: &File) -> bool {
    // A page is not filled by what does not fit into its rest.
    rustix::io::ioctl_fionread(pipe).unwrap() > 40_000
}

#[test]
fn a_pipe_that_does_not_block_loses_nothing() {
    let place = Place::with_functions(&[("many", "seq 40000"), ("err", "seq 40000 >&2")]);
    let expected = place.stdout("seq 40000");
    place.stdout("asyncq enqueue events many; asyncq enqueue events err");
    place.stdout("for n in 1 2 3 4 5 6 7 8; do asyncq enqueue --hold events many $(seq 2000); done");
    for (line, stream) in [
        ("asyncq process --max-jobs 1", 1),
        ("asyncq process", 2),
        ("asyncq job log 1", 1),
        ("asyncq job log 2", 2),
        ("asyncq job list --json", 1),
        ("asyncq job show 3 --json", 1),
    ] {
        let (running, mut pipe) = nonblocking(&place, line, stream);
        if !line.contains("show") {
            wait_until("the pipe is full", || is_full(&pipe));
        }
        let mut seen = String::new();
        pipe.read_to_string(&mut seen).unwrap();
        assert!(running.wait().status.success(), "{line}");
        if line.contains("job log") || line.contains("process") {
            assert!(seen == expected, "{line}: {} bytes", seen.len());
        } else {
            assert!(seen == place.stdout(line), "{line}: {} bytes", seen.len());
        }
    }
}

#[test]
fn a_processor_that_follows_goes_on_after_its_pipe_was_full() {
    let place = Place::with_functions(&[("many", "seq 40000"), ("fails", "exit 3")]);
    place.stdout("asyncq enqueue events many");
    let (running, mut pipe) = nonblocking(&place, "asyncq process --follow", 1);
    wait_until("the pipe is full", || is_full(&pipe));
    place.stdout("asyncq enqueue events many");
    let expected = place.stdout("seq 40000; seq 40000");
    let mut seen = vec![0; expected.len()];
    pipe.read_exact(&mut seen).unwrap();
    running.signal("TERM");
    assert!(running.wait().status.success());
    assert!(seen == expected.as_bytes());
}

#[test]
fn a_stdin_that_does_not_block_is_waited_for() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    let (running, mut pipe) = nonblocking(&place, "asyncq enqueue --batch -", 0);
    for (job, word) in ["a", "b"].iter().enumerate() {
        writeln!(pipe, "{{\"service\":\"events\",\"function\":\"say\",\"args\":[\"{word}\"]}}").unwrap();
        wait_until("it is enqueued", || place.count("") == job + 1);
    }
    drop(pipe);
    let output = running.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n");
}

#[test]
fn output_that_is_lost_on_a_full_disk_is_counted_and_reported() {
    let place = Place::with_functions(&[("say", "echo $1"), ("fails", "exit 3")]);
    place.session(
        "
        $ asyncq enqueue events say lost; asyncq enqueue events say again; asyncq process >/dev/full
        1
        2
        ! asyncq: cannot write to stdout: no space left on the device; trying again with the next output
        ! asyncq: 11 bytes could not be written to stdout: no space left on the device
        $ asyncq job log 1
        lost
        # Where nothing can be said, the exit code does.
        $ asyncq enqueue events say lost; asyncq process >/dev/full 2>&1
        3
        ? 74
        $ asyncq enqueue events fails; asyncq process >/dev/full 2>&1
        4
        ? 1
        $ asyncq enqueue events say unread; asyncq process | true
        5
        ",
    );
}

#[test]
fn a_command_that_cannot_print_reports_the_error_and_a_hint() {
    let place = Place::with_functions(&[("say", "echo $1")]);
    place.stdout("asyncq enqueue events say hello; asyncq process");
    for command in [
        "job list",
        "job list --json",
        "job show 1",
        "job show 1 --json",
        "job log 1",
        "job result 1",
        "service list",
        "function show events say",
        "is-async",
        "--help",
        "job --help",
        "--version",
    ] {
        place.session(&format!(
            "
            $ asyncq {command} >/dev/full
            ! error: cannot write to stdout: no space left on the device
            ! hint: make room there, or send the output elsewhere, and run the command again
            ? 74
            "
        ));
    }
    place.session(
        "
        $ truncate -s 4194304 long; (ulimit -f 8192; exec asyncq job list >>long)
        ! error: cannot write to stdout: file too large
        ! hint: `ulimit -f` shows how large a file may be, in blocks
        ? 74
        $ asyncq job list | true; asyncq --help | true; asyncq job list --json >&-
        ",
    );
}

/// A log that may grow to so many blocks of 512 bytes, and is emptied then.
#[test]
fn a_log_that_could_not_grow_is_written_again_when_it_can() {
    let place = Place::with_functions(&[("say", "printf '%0*d\n' $1 $2"), ("moan", "printf '%0*d\n' $1 $2 >&2")]);
    place.write("limited", "ulimit -f 8192; exec asyncq process --follow >>out 2>>err");
    let process = place.start("sh ./limited");
    let ended = |count| wait_until("the calls have run", || place.count("--state completed") == count);
    let length = |name: &str| place.at(name).metadata().map_or(0, |file| file.len());
    for (function, log) in [("say", "out"), ("moan", "err")] {
        place.stdout(&format!("asyncq enqueue events {function} 1 7"));
        wait_until("it is in the log", || place.read(log).contains("7\n"));
        place.stdout(&format!("truncate -s 4190000 {log}; asyncq enqueue events {function} 5000 0"));
        wait_until("the log is full", || length(log) == 4_194_304);
        place.stdout(&format!("asyncq enqueue events {function} 20 0"));
        ended(if function == "say" { 3 } else { 8 });
        // The first of these may still meet the full log.
        place.stdout(&format!(": > {log}; for n in 1 2; do asyncq enqueue events {function} 1 8; done"));
        wait_until("it is in the log again", || place.read(log).contains("8\n"));
        ended(if function == "say" { 5 } else { 10 });
    }
    process.signal("TERM");
    assert!(process.wait().status.success());
    let (out, err) = (place.read("out"), place.read("err"));
    assert!(out.lines().all(|line| line.chars().all(|c| c == '0') || line == "8"), "{out}");
    assert!(err.contains("bytes could not be written to stderr: file too large"), "{err}");
}

#[test]
fn a_terminal_that_is_gone_ends_no_call() {
    let place = Place::with_functions(&[("say", "echo hello")]);
    place.stdout("asyncq enqueue events say");
    // Nobody has the other end of the terminal any more.
    place.write(
        "gone.py",
        "import os, pty, subprocess
ours, theirs = pty.openpty()
process = subprocess.Popen(['asyncq', 'process'], stdout=theirs)
os.close(theirs), os.close(ours)
raise SystemExit(process.wait())
",
    );
    place.session(
        "
        $ python3 gone.py
        ! asyncq: cannot write to stdout: input/output error; trying again with the next output
        ! asyncq: 6 bytes could not be written to stdout: input/output error
        $ asyncq job log 1
        hello
        ",
    );
}
