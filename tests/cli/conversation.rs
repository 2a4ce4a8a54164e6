//! The worker protocol word for word: conversations that asyncq is held to, and workers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn conversations(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ending| ending == "txt")).collect();
    found.sort();
    found
}

/// What stands between two words.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).unwrap().1.split_once(to).unwrap().0
}

/// What the conversations say about asyncq is what it writes; and what becomes of the jobs.
#[test]
fn asyncq_writes_what_the_conversations_say() {
    let ends = [
        ("cancelled", "cancelled cancelled by "),
        ("cannot_run", "error the module `shop.reports` is gone"),
        ("completed", "completed 14"),
        ("completed_not", "error "),
        ("conflict", "completed"),
        ("conflict_by_code", "completed \"at last\""),
        ("counted", "completed, error printed and failed"),
        ("counted_messages", "completed"),
        ("deadline", "error took longer than its time limit"),
        ("failed", "error ZeroDivisionError: division by zero"),
        ("metadata", "completed 14"),
        ("nested", "completed 14, completed 9, completed, error ValueError: no address"),
        ("nested_failed", "error ValueError: no, error ValueError: no"),
        ("refused", "error its worker was refused: this asyncq speaks protocol 1"),
        ("scheduled", "completed 14"),
        ("several", "completed \"one\", completed \"two\""),
        ("snoozed", "delayed"),
        ("stopped", "queued"),
        ("traceback", "error ValueError: no"),
        ("values", "completed {\"n\":1.10,\"big\":18446744073709551616,\"text\":\"ä\"}"),
    ];
    let files = conversations("tests/protocol");
    assert_eq!(files.len(), ends.len(), "{files:?}");
    for (file, (name, end)) in files.iter().zip(ends) {
        assert_eq!(file.file_stem().unwrap(), name);
        let text = fs::read_to_string(file).unwrap();
        let place = Place::new();
        let hear = root().join("tests/protocol/hear.py");
        let limit = if text.contains("DEADLINE") { "--timeout 300ms" } else { "" };
        place.stdout(&format!(
            "asyncq service add events --concurrency 2 && asyncq function add events heavy_computing --worker {limit} -- {} {} verdict",
            hear.display(),
            file.display()
        ));
        let mut calls: BTreeSet<&str> = text.lines().filter(|line| line.contains(r#""attempt":1,"#)).collect();
        if calls.is_empty() {
            calls.insert(r#""args":[],"kwargs":{},"principal":null,"site""#);
        }
        // One after another where they come so: a second one would be for a second worker.
        if !text.contains(r#""calls":2"#) {
            place.stdout("asyncq service set events --concurrency 1");
        }
        if name == "scheduled" {
            place.session(
                r"
                $ asyncq schedule add nightly --cron '30 2 * * *' --tz Europe/Berlin events heavy_computing 2 7
                $ asyncq schedule run nightly --from 2026-01-01 --until 2026-01-02
                1
                ! asyncq: made 1 job
                ",
            );
            calls.clear();
        }
        if name == "metadata" {
            let traced =
                r"asyncq enqueue events heavy_computing 2 7 --meta tenant=acme --meta 'traceparent=00-ab-cd-01'";
            place.stdout(traced);
            calls.clear();
        }
        for call in calls {
            let call = between(call, r#""args":"#, r#","site""#);
            place.write("call", &format!(r#"{{"service":"events","function":"heavy_computing","args":{call}}}"#));
            place.stdout("asyncq enqueue --batch call");
        }
        let output = place.run("asyncq process --wait-retries");
        let verdicts: BTreeSet<String> = place.read("verdict").lines().map(str::to_owned).collect();
        assert!(verdicts.iter().eq(["as it should be"]), "{name}: {verdicts:?} {output:?}");
        let told = place.jobs("state result error.message");
        assert!(
            told == end || ["cancelled", "completed_not"].contains(&name) && told.starts_with(end),
            "{name}: {told}"
        );
    }
}

/// The same with a program that drains into itself.
#[test]
fn asyncq_writes_what_the_conversations_with_a_host_say() {
    let ends =
        [("cancelled", "cancelled"), ("drained", "completed 14"), ("quiet", "completed 14"), ("refused", "queued")];
    let files = conversations("tests/protocol/host");
    assert_eq!(files.len(), ends.len(), "{files:?}");
    for (file, (name, end)) in files.iter().zip(ends) {
        assert_eq!(file.file_stem().unwrap(), name);
        let place = Place::new();
        let principal = if name == "drained" { "--principal zope.user" } else { "" };
        place.stdout(&format!(
            "asyncq service add events; asyncq function add events heavy_computing --worker -- /bin/false; asyncq enqueue {principal} events heavy_computing 2 7"
        ));
        let output =
            place.run(&format!("{} {} verdict", root().join("tests/protocol/hear.py").display(), file.display()));
        assert_eq!(place.read("verdict"), "as it should be\n", "{name}: {output:?}");
        assert_eq!(place.jobs("state result"), end, "{name}: {output:?}");
        if end.starts_with("completed") {
            assert_eq!(place.stdout("asyncq job log 1"), "half of it\n", "{name}");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert_eq!(printed, if name == "quiet" { "" } else { "half of it\n" }, "{name}");
        }
    }
}

/// The workers that are shown as examples are the protocol's, too.
#[test]
fn the_workers_of_the_examples_do_what_the_conversations_say() {
    let (play, conversations) = (root().join("tests/protocol/play.py"), conversations("tests/protocol/worker"));
    assert!(conversations.len() > 10);
    let folder = tempfile::tempdir().unwrap();
    for worker in ["worker.py", "worker.mjs", "worker.sh"] {
        let missing = worker == "worker.mjs" && Command::new("node").arg("--version").output().is_err();
        if missing {
            continue;
        }
        let mut command = Command::new(&play);
        // It says itself that it reads no escapes.
        let theirs = conversations.iter().filter(|path| worker != "worker.sh" || !path.ends_with("escapes.txt"));
        command.args(theirs).arg("--").arg(root().join("examples").join(worker)).current_dir(folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{worker}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// What a function of an example raises, prints, forks or returns costs no more than its call: `go CASE` does it.
#[test]
fn the_programs_of_the_examples_outlive_their_functions() {
    let python = r"
import asyncio
class Silent(Exception):
    def __str__(self): raise ValueError('no text')
def go(case):
    open('runs', 'a').write(case + '\n')
    if case == 'interrupted': raise KeyboardInterrupt
    if case == 'cancelled': raise asyncio.CancelledError
    if case == 'silent': raise Silent
    if case == 'raises': raise ValueError(os.fsdecode(b'caf\xff'))
    if case == 'returns': return os.fsdecode(b'caf\xff')
    if case == 'prints': print(os.fsdecode(b'caf\xff'))
    if case == 'long': print('x' * (5 << 20))
    if case in ('exits', 'goes on'):
        child = os.fork()
        if child == 0 and case == 'exits': sys.exit(3)
        return child and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
";
    let node = r"
import { appendFileSync } from 'node:fs';
const go = (word) => {
  appendFileSync('runs', word + '\n');
  if (word === 'raises') throw new Error('caf\u{1f600}'.slice(0, 4));
  if (word === 'nothing') throw null;
  if (word === 'silent') throw Object.create(null);
  if (word === 'code') throw { code: 1e300 };
  return 'caf\u{1f600}'.slice(0, 4);
};
";
    let ended = [
        ("interrupted", "error KeyboardInterrupt"),
        ("cancelled", "error asyncio.exceptions.CancelledError"),
        ("silent", "error Silent: <exception str() failed>"),
        ("raises", "error ValueError: caf\u{fffd}"),
        ("returns", "error its result is a lone surrogate in a string"),
        ("prints", "completed"),
        ("long", "completed"),
        ("exits", "completed 3"),
        ("goes on", "completed 0"),
    ];
    let in_node = [
        ("raises", "error Error: caf\u{fffd}"),
        ("nothing", "error null"),
        ("silent", "error threw what cannot be shown"),
        ("code", "error [object Object]"),
        ("returns", "error its result is a lone surrogate in a string"),
    ];
    outlives("worker.py", ["\nclass Conflict", "(heavy_computing, "], python, &ended);
    outlives("worker.mjs", ["\nclass Conflict", "heavy_computing: (a, b) => a * b,"], node, &in_node);
    outlives("drain.py", ["\ndef heavy_computing", "(heavy_computing, "], python, &ended);
}

/// An example, with functions put before a line of it and `go` into its list, ends each case like this, in one run.
fn outlives(example: &str, [first, list]: [&str; 2], functions: &str, ends: &[(&str, &str)]) {
    if example == "worker.mjs" && Command::new("node").arg("--version").output().is_err() {
        return;
    }
    let source = fs::read_to_string(root().join("examples").join(example)).unwrap();
    assert!(source.contains(first) && source.contains(list), "{example}");
    let source = source.replacen(first, &(functions.to_owned() + first.trim_start()), 1);
    let place = Place::with_functions(&[]);
    place.program(example, &source.replacen(list, &list.replacen("heavy", "go, heavy", 1), 1));
    place.stdout(&format!("asyncq function add events go --worker -- ./{example}"));
    let calls: Vec<String> = ends.iter().map(|(case, _)| format!("asyncq enqueue events go '{case}'")).collect();
    place.stdout(&calls.join(" && "));
    let output = place.run(if example == "drain.py" { "./drain.py events" } else { "asyncq process" });
    assert_eq!(output.status.code(), Some(1), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    let ends: Vec<&str> = ends.iter().map(|(_, end)| *end).collect();
    assert_eq!(place.jobs("state result error.message"), ends.join(", "), "{example}");
    assert_eq!(place.read("runs").lines().count(), ends.len(), "{example}");
}

/// A player that finds nothing wrong with anybody would be no test.
#[test]
fn the_player_finds_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let good = fs::read_to_string(root().join("examples/worker.py")).unwrap();
    let files = ["hello", "two_in_one_write"].map(|name| root().join(format!("tests/protocol/worker/{name}.txt")));
    let flaws = [
        ("return FUNCTIONS[", "return 0, FUNCTIONS["),
        ("sys.stdout.flush(), sys.stderr.flush()", "pass"),
        ("asyncq.sendall(reply)", "asyncq.sendall(reply + reply)"),
        ("asyncq.sendall(reply)", "break"),
        ("id=id, result", "id=id + 1, result"),
        ("\"protocol\": 1", "\"protocol\": 2"),
    ];
    let play = |number: usize, (right, wrong)| {
        assert!(good.contains(right));
        let worker = folder.path().join(format!("worker{number}.py"));
        fs::write(&worker, good.replace(right, wrong)).unwrap();
        let mut command = Command::new(root().join("tests/protocol/play.py"));
        // As where the tests themselves run with it.
        command.env("PYTHONUNBUFFERED", "1");
        command.args(["--timeout", "5"]).args(&files).args(["--", "python3"]).arg(&worker);
        let status = command.current_dir(folder.path()).output().unwrap().status;
        assert_eq!(status.code(), Some(1), "{wrong}");
    };
    // Some wait until the time of the player is over.
    std::thread::scope(|scope| {
        let play = &play;
        for (number, flaw) in flaws.into_iter().enumerate() {
            scope.spawn(move || play(number, flaw));
        }
    });
}

/// Each message that the protocol's page shows stands in one of the conversations.
#[test]
fn every_message_of_the_protocol_is_in_a_conversation() {
    let frames = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with("> {") || line.starts_with("< {"));
        lines.map(|line| line.replace(env!("CARGO_PKG_VERSION"), "VERSION")).collect()
    };
    let page = frames(&fs::read_to_string(root().join("docs/protocol.md")).unwrap());
    let all: Vec<PathBuf> =
        ["", "/host", "/worker"].into_iter().flat_map(|of| conversations(&format!("tests/protocol{of}"))).collect();
    let played: BTreeSet<String> = all.iter().flat_map(|path| frames(&fs::read_to_string(path).unwrap())).collect();
    let missing: Vec<&String> = page.difference(&played).collect();
    assert!(page.len() > 10 && missing.is_empty(), "{missing:#?}");
}
