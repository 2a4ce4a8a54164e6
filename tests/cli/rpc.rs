//! Requests of a program: `asyncq rpc`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Place, lock, wait_until};

/// A program that asks, and the process that it asks.
struct Rpc {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Answers that were read and not asked for yet, by their ids.
    early: BTreeMap<String, Value>,
    next: u64,
}

impl Rpc {
    fn start(place: &Place) -> Rpc {
        Rpc::with(place, "exec asyncq rpc")
    }

    fn with(place: &Place, line: &str) -> Rpc {
        let mut process = place.command(line).stdin(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        Rpc { process, requests, answers, early: BTreeMap::new(), next: 1 }
    }

    /// Writes lines as they are.
    fn write(&mut self, lines: &str) {
        self.requests.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    }

    /// Sends a request; gives its id.
    fn send(&mut self, method: &str, params: &str) -> String {
        let id = self.next.to_string();
        self.next += 1;
        self.write(&request(&id, method, params));
        id
    }

    /// The next line; none at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.answers.read_line(&mut line).unwrap() > 0).then_some(line)
    }

    /// The answer to the request with this id.
    fn answer(&mut self, id: &str) -> Value {
        loop {
            if let Some(answer) = self.early.remove(id) {
                return answer;
            }
            let line = self.line().unwrap_or_else(|| panic!("no answer to {id}"));
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["jsonrpc"], "2.0");
            self.early.insert(answer["id"].to_string(), answer);
        }
    }

    /// Asks, and gives the result.
    fn ask(&mut self, method: &str, params: &str) -> Value {
        let id = self.send(method, params);
        let answer = self.answer(&id);
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].clone()
    }

    /// Asks, and gives the error.
    fn refused(&mut self, method: &str, params: &str) -> Value {
        let id = self.send(method, params);
        let answer = self.answer(&id);
        assert!(answer.get("result").is_none(), "{method} {params}: {answer}");
        answer["error"].clone()
    }

    /// Enqueues one call of `events`; gives its job.
    fn enqueue(&mut self, function: &str) -> i64 {
        self.ask("enqueue", &format!(r#"{{"service":"events","function":"{function}"}}"#))["job"].as_i64().unwrap()
    }

    /// Ends the requests; gives the rest of the answers, what stderr says, and the exit code.
    fn end(mut self) -> (String, String, Option<i32>) {
        drop(self.requests.take());
        self.wait()
    }

    fn wait(mut self) -> (String, String, Option<i32>) {
        let (mut rest, mut said) = (String::new(), String::new());
        self.answers.read_to_string(&mut rest).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (rest, said, self.process.wait().unwrap().code())
    }
}

fn request(id: &str, method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n")
}

/// Plays a conversation: lines with `>` are written, lines with `<` are the answers, in any order.
fn play(place: &Place, conversation: &str) {
    let mut rpc = Rpc::start(place);
    let mut expected: Vec<String> = Vec::new();
    let mut written = true;
    let settle = |rpc: &mut Rpc, expected: &mut Vec<String>| {
        let mut got: Vec<String> = expected.iter().map(|_| plain(place, &rpc.line().unwrap())).collect();
        got.sort();
        expected.sort();
        assert_eq!(got, *expected);
        expected.clear();
    };
    for line in conversation.lines() {
        if let Some(line) = line.strip_prefix("> ") {
            if !written {
                settle(&mut rpc, &mut expected);
            }
            written = true;
            rpc.write(&format!("{}\n", line.replace("SITE", place.path().to_str().unwrap())));
        } else if let Some(line) = line.strip_prefix("< ") {
            written = false;
            expected.push(line.to_owned());
        } else if let Some(command) = line.strip_prefix("$ ") {
            settle(&mut rpc, &mut expected);
            written = true;
            place.stdout(command);
        }
    }
    settle(&mut rpc, &mut expected);
    assert_eq!(rpc.end(), (String::new(), String::new(), Some(0)));
}

/// An answer with words for what differs each time.
fn plain(place: &Place, line: &str) -> String {
    let line = line.trim_end().replace(place.path().to_str().unwrap(), "SITE");
    let line = line.replace(&format!("\"asyncq\":\"{}\"", env!("CARGO_PKG_VERSION")), "\"asyncq\":\"VERSION\"");
    let mut words = line.split('"').map(str::to_owned).collect::<Vec<_>>();
    for word in &mut words {
        let digits: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if digits == "0000-00-00T00:00:00.000Z" && !word.starts_with("2036") {
            "TIME".clone_into(word);
        }
    }
    let mut line = words.join("\"");
    if let Some((before, after)) = line.split_once("\"os_user\":\"") {
        let after = after.split_once('"').unwrap().1;
        line = format!("{before}\"os_user\":\"USER\"{after}");
    }
    if let Some((before, after)) = line.split_once("cancelled by ") {
        let after = after.split_once('"').unwrap().1;
        line = format!("{before}cancelled by USER\"{after}");
    }
    line
}

fn conversations() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/rpc");
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_answers_are_those_of_the_conversations() {
    let all = conversations();
    assert!(all.len() > 5);
    for (name, conversation) in all {
        println!("{name}");
        let place = Place::new();
        place.stdout("asyncq -q init");
        play(&place, &conversation);
    }
}

/// Each message that the page shows stands in one of the conversations.
#[test]
fn every_message_of_the_page_is_in_a_conversation() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rpc.md")).unwrap();
    let all: String = conversations().into_iter().map(|(_, conversation)| conversation).collect();
    let shown: Vec<&str> = page.lines().filter(|line| line.starts_with("> ") || line.starts_with("< ")).collect();
    let missing: Vec<&&str> = shown.iter().filter(|line| !all.lines().any(|played| played == **line)).collect();
    assert!(shown.len() > 10 && missing.is_empty(), "{missing:#?}");
}

#[test]
fn arguments_are_kept_byte_for_byte() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let args = r#"[ 1.10, 18446744073709551616, 1e400, -0, "\u00e4ä😀\"\\", {"b":1, "a":[ ]}]"#;
    let kwargs = r#"{"z" : 1.0,"\u0061":null}"#;
    rpc.ask("enqueue", &format!(r#"{{"service":"events","function":"mail","args":{args} ,"kwargs": {kwargs}}}"#));
    rpc.ask("enqueue", &format!(r#"{{"calls":[{{"service":"events","function":"mail","args":{args}}}]}}"#));
    let listed = place.stdout("asyncq job list --json");
    assert_eq!(listed.matches(args).count(), 2, "{listed}");
    let id = rpc.send("job", r#"{"job":1}"#);
    let shown = rpc.line().unwrap();
    assert!(shown.contains(args) && shown.contains(kwargs), "{id} {shown}");
    rpc.end();
}

/// Methods and params, and the code, the message and the hint of the error. `CALL` stands for a function that is there.
const REFUSED: &[(&str, &str, i64, &str, Option<&str>)] = &[
    ("hello", "{\"protocol\":2}", -32602, "this asyncq speaks protocol 1", None),
    ("hello", "{}", -32602, "wrong params: `protocol` is missing", None),
    ("hello", "[1]", -32602, "wrong params: it has to be an object", None),
    ("jbo", "{}", -32601, "there is no method `jbo`, did you mean `job`?", None),
    ("enqueue", r#"{CALL,"arg":[]}"#, -32602, "wrong params: `arg` is not known, did you mean `args`?", None),
    ("enqueue", r#"{CALL,"hold":1}"#, -32602, "wrong params: `hold` has to be true or false", None),
    ("enqueue", r#"{CALL,"atomic":true}"#, -32602, "wrong params: `atomic` is not known", None),
    ("enqueue", r#"{CALL,"calls":[]}"#, -32602, "wrong params: `service` is not known", None),
    ("enqueue", r#"{"service":"events"}"#, -32602, "wrong params: `function` is missing", None),
    ("enqueue", r#"{CALL,"inside":{"job":1}}"#, -32602, "wrong params: `inside`: `token` is missing", None),
    ("enqueue", r#"{CALL,"args":{}}"#, 65, "`args` is not an array, as in [2,7]", None),
    ("enqueue", r#"{CALL,"args":["\ud800"]}"#, 65, "`args`: a lone surrogate in a string", None),
    ("enqueue", r#"{CALL,"kwargs":{"a":1,"a":2}}"#, 65, "`kwargs`: the key `a` twice in one object", None),
    (
        "enqueue",
        r#"{CALL,"site":"here"}"#,
        65,
        "`site` is `here`, which is not an absolute path",
        Some("a site begins with `/`, as in \"/srv/app\""),
    ),
    (
        "enqueue",
        r#"{CALL,"at":"2036-01-01T00:00:00"}"#,
        65,
        "`at` is `2036-01-01T00:00:00`, which is not a time with its offset from UTC",
        Some("write it as in \"2026-11-23T22:29:00Z\" or \"2026-11-23T23:29:00+01:00\""),
    ),
    (
        "enqueue",
        r#"{CALL,"at":"1970-01-01T00:00:00Z"}"#,
        65,
        "`at` is `1970-01-01T00:00:00Z`, and no call can be due before 1973-03-03T09:46:40.000Z",
        Some("write it as in \"2026-11-23T22:29:00Z\" or \"2026-11-23T23:29:00+01:00\""),
    ),
    ("enqueue", r#"{CALL,"priority":1.5}"#, -32602, "wrong params: `priority` has to be a whole number", None),
    (
        "enqueue",
        r#"{"service":"evnts","function":"mail"}"#,
        66,
        "there is no service `evnts`",
        Some("did you mean `events`? `asyncq service list` shows all"),
    ),
    (
        "enqueue",
        r#"{"service":"Events","function":"mail"}"#,
        65,
        "`Events` cannot be the name of a service",
        Some(
            "a name starts with a lower-case letter or a digit and goes on with those, `.`, `_` and `-`, at most 255 bytes",
        ),
    ),
    (
        "define",
        r#"{"service":"events","concurrency":0}"#,
        -32602,
        "wrong params: `concurrency` has to be a whole number from 1 to 4294967295",
        None,
    ),
    ("job", r#"{"job":"7"}"#, -32602, "wrong params: `job` has to be a whole number", None),
    ("job", r#"{"job":7}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    ("wait", r#"{"jobs":[7]}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    (
        "wait",
        r#"{"jobs":[7],"timeout":-1}"#,
        -32602,
        "wrong params: `timeout` has to be a number of seconds from 0",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","worker":{"idle":0}}]}"#,
        -32602,
        "wrong params: `functions[0]`: `idle` has to be a number of seconds, from 0.001 to a hundred years",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","worker":{"growth":0}}]}"#,
        -32602,
        "wrong params: `functions[0]`: `growth` has to be a whole number from 1 to 9223372036854775807",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","worker":{"growth":9223372036854775808}}]}"#,
        -32602,
        "wrong params: `functions[0]`: `growth` has to be a whole number from 1 to 9223372036854775807",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","worker":{"calls":9223372036854775808}}]}"#,
        -32602,
        "wrong params: `functions[0]`: `calls` has to be a whole number from 1 to 9223372036854775807",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","comand":[]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `comand` is not known, did you mean `command`?",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","retries":1,"retry_on":"256"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `retry_on` cannot be `256`: `256` is not an exit code of a failure",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","backoff":"1m"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `backoff` says nothing about a function without `retries`",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","on_error":"page"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `on_error` cannot be `page`: a hook is SERVICE/FUNCTION",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"more","command":["/bin/true"],"site":"/","on_error":"events/page"}]}"#,
        66,
        "service `events` has no function `page`, which is to be a hook",
        Some("`asyncq function list events` shows all; add it first"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"evnts","name":"mail"}]}"#,
        66,
        "there is no service `evnts`",
        Some("did you mean `events`? `asyncq service list` shows all"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","command":["/no/program"]}]}"#,
        66,
        "there is no program `/no/program`",
        Some("a path with a slash is relative to the site of the function"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","env":{"ASYNCQ_DB":"x"}}]}"#,
        65,
        "`ASYNCQ_DB` is set by asyncq itself",
        Some("record a variable with another name"),
    ),
    // What it takes, and what only it knows.
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","takes":"[a] b"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `takes` cannot be `[a] b`: `b` is required, and stands after `[a]`, which may be left out",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","takes":"a:str"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `takes` cannot be `a:str`: there is no type `str`",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","takes":["a"]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `takes` has to be a string",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"new","command":["/bin/true"],"site":"/","takes":"a","secret":["b"]}]}"#,
        65,
        "the function has no argument `b` that could be secret",
        Some("its signature is `a`"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"new","command":["/bin/true"],"site":"/","takes":"a","secret":[2]}]}"#,
        65,
        "the function has no positional argument 2 that could be secret",
        Some("its signature is `a`"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":"a"}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret` has to be an array of names of arguments, and of places counted from 1",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":[0]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret` has to be an array of names of arguments, and of places counted from 1",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":[-1]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret` has to be an array of names of arguments, and of places counted from 1",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":[1.5]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret` has to be an array of names of arguments, and of places counted from 1",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":[["a"]]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret` has to be an array of names of arguments, and of places counted from 1",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":["a=b"]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret`: `a=b` cannot be a secret argument",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","secret":[""]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `secret`: `` cannot be a secret argument",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","env_file":""}]}"#,
        65,
        "`` cannot be the path of an environment file",
        Some("name a file; a relative path counts from the site"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","env_file":"a\u0000b"}]}"#,
        65,
        "`a\\u{0}b` cannot be the path of an environment file",
        Some("name a file; a relative path counts from the site"),
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","env_file":["a"]}]}"#,
        -32602,
        "wrong params: `functions[0]`: `env_file` has to be a string",
        None,
    ),
    (
        "register",
        r#"{"functions":[{"service":"events","name":"mail","local":true}]}"#,
        -32602,
        "wrong params: `functions[0]`: `local` is not known",
        None,
    ),
    // Of schedules.
    ("schedule.ad", "{}", -32601, "there is no method `schedule.ad`, did you mean `schedule.add`?", None),
    ("schedule.add", r#"{"schedule":"s","every":"90s"}"#, -32602, "wrong params: `service` is missing", None),
    (
        "schedule.add",
        r#"{"schedule":"s","service":"events"}"#,
        -32602,
        "wrong params: a call needs `function`, too",
        None,
    ),
    ("schedule.set", r#"{"schedule":"s","args":[1]}"#, -32602, "wrong params: a call needs `function`, too", None),
    ("schedule.set", r#"{"schedule":"s"}"#, -32602, "wrong params: they change nothing", None),
    (
        "schedule.set",
        r#"{"schedule":"s","tz":"UTC","change":true}"#,
        -32602,
        "wrong params: `change` is not known",
        None,
    ),
    (
        "schedule.set",
        r#"{"schedule":"s","tz":"UTC"}"#,
        66,
        "there is no schedule `s`",
        Some("`asyncq schedule add s` adds it"),
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"corn":"* * * * *"}"#,
        -32602,
        "wrong params: `corn` is not known, did you mean `cron`?",
        None,
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"every":"90"}"#,
        -32602,
        "wrong params: `every` cannot be `90`: the unit is missing",
        None,
    ),
    ("schedule.add", r#"{"schedule":"s",CALL,"every":90}"#, -32602, "wrong params: `every` has to be a string", None),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"every":"9s","missed":"twice"}"#,
        -32602,
        "wrong params: `missed` has to be \"once\" or \"skip\" or \"all\", not `twice`",
        None,
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"every":"9s","args":7}"#,
        -32602,
        "`args` is not an array, as in [2,7]",
        None,
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"every":"9s","lane":""}"#,
        -32602,
        "`` cannot be a lane",
        Some("a lane is 1 to 255 bytes of text without control characters"),
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL}"#,
        65,
        "the rule of the schedule is missing",
        Some("give times with `--cron`, as in --cron '30 2 * * *', or a span with `--every`, as in --every 90s"),
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"cron":"0 0 * * *","every":"9s"}"#,
        65,
        "`--cron` and `--every` exclude each other",
        Some("leave one of them out"),
    ),
    (
        "schedule.add",
        r#"{"schedule":"s",CALL,"cron":"0 0 * * *","tz":"Europe/Berln"}"#,
        65,
        "there is no time zone `Europe/Berln`",
        Some("did you mean `Europe/Berlin`?"),
    ),
    (
        "schedule.next",
        r#"{"schedule":"s","every":"9s"}"#,
        -32602,
        "wrong params: `schedule` and a rule exclude each other",
        None,
    ),
    (
        "schedule.next",
        r#"{"every":"9s","count":0}"#,
        -32602,
        "wrong params: `count` has to be a whole number from 1 to 10000",
        None,
    ),
    ("schedule.run", r#"{"schedule":"s","until":"2026-01-01"}"#, -32602, "wrong params: `until` needs `from`", None),
    (
        "schedule.pause",
        r#"{"schedules":["s"]}"#,
        66,
        "there is no schedule `s`",
        Some("`asyncq schedule add s` adds it"),
    ),
    // Of waits, logs and pauses.
    ("wait", "{}", -32602, "wrong params: `jobs` is missing", None),
    ("wait", r#"{"jobs":[],"any":true}"#, -32602, "wrong params: `jobs` is empty, so none of them can end", None),
    ("wait", r#"{"jobs":[7],"any":true}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    (
        "wait",
        r#"{"jobs":[1],"service":"events"}"#,
        -32602,
        "wrong params: `jobs` and `service` exclude each other",
        None,
    ),
    ("wait", r#"{"service":"events","any":true}"#, -32602, "wrong params: `any` needs `jobs`", None),
    ("log", r#"{"job":7}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    ("log", r#"{"job":7,"atempt":1}"#, -32602, "wrong params: `atempt` is not known, did you mean `attempt`?", None),
    ("explain", r#"{"job":7}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    ("rerun", r#"{"job":7}"#, 66, "there is no job 7", Some("there are no jobs at all")),
    ("rerun", r#"{"job":7,"args":{}}"#, -32602, "`args` is not an array, as in [2,7]", None),
    (
        "status",
        r#"{"services":["evnts"]}"#,
        66,
        "there is no service `evnts`",
        Some("did you mean `events`? `asyncq service list` shows all"),
    ),
    ("check", r#"{"max_age":"10"}"#, -32602, "wrong params: `max_age` cannot be `10`: the unit is missing", None),
    ("pause", r#"{"timeout":5}"#, -32602, "wrong params: `timeout` needs \"wait\":true", None),
    ("resume", r#"{"why":"x"}"#, -32602, "wrong params: `why` is not known", None),
    ("service.pause", r#"{"services":[]}"#, -32602, "wrong params: `services` is empty", None),
    (
        "pause",
        r#"{"why":""}"#,
        -32602,
        "a reason is one line of 1 to 1000 bytes",
        Some("leave out `--why`, or write as in `--why 'new release'`"),
    ),
];

#[test]
fn an_error_says_what_the_command_line_says_and_ends_nothing() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    for (method, params, code, message, hint) in REFUSED {
        let params = params.replace("CALL", r#""service":"events","function":"mail""#);
        let mut data = json!({"exit_code": if *code > 0 { *code } else { 65 }});
        if let Some(hint) = hint {
            data["hint"] = json!(hint);
        }
        let error = rpc.refused(method, &params);
        assert_eq!(error, json!({"code": code, "message": message, "data": data}), "{method} {params}");
    }
    assert_eq!(rpc.enqueue("mail"), 1);
    assert_eq!(rpc.end(), (String::new(), String::new(), Some(0)));
}

#[test]
fn a_line_that_is_no_request_is_answered_with_its_id_if_it_has_one() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    for (line, id, code, message) in [
        ("{", "null", -32700, "not JSON: it is not complete"),
        ("nonsense", "null", -32700, "not JSON: unexpected `o` at column 2"),
        ("[]", "null", -32600, "not a request: it has to be an object"),
        (r#"{"jsonrpc":"2.0","id":7}"#, "7", -32600, "not a request: `method` is missing"),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"hello"}"#,
            "null",
            -32600,
            "not a request: `id` has to be a number or a string",
        ),
        (
            r#"{"jsonrpc":"2.0","id":[7],"method":"hello"}"#,
            "null",
            -32600,
            "not a request: `id` has to be a number or a string",
        ),
        (
            r#"{"jsonrpc":"1.0","id":"a","method":"hello"}"#,
            "\"a\"",
            -32600,
            "not a request: `jsonrpc` has to be \"2.0\"",
        ),
        (r#"{"id":1.50,"method":"hello"}"#, "1.50", -32600, "not a request: `jsonrpc` is missing"),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"job","parms":{}}"#,
            "8",
            -32600,
            "not a request: `parms` is not known, did you mean `params`?",
        ),
    ] {
        rpc.write(&format!("{line}\n"));
        let answer = rpc.line().unwrap();
        assert!(answer.contains(&format!("\"id\":{id},")), "{line}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"], json!({"code": code, "message": message, "data": {"exit_code": 65}}), "{line}");
    }
    rpc.requests.as_mut().unwrap().write_all(b"\xff\n\n \n").unwrap();
    let answer: Value = serde_json::from_str(&rpc.line().unwrap()).unwrap();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)));
    assert_eq!(answer["error"]["message"], "not UTF-8 from byte 1 on");
    assert_eq!(rpc.enqueue("mail"), 1);
    assert_eq!(rpc.end(), (String::new(), String::new(), Some(0)));
}

#[test]
fn a_message_that_is_too_long_costs_only_itself() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let wrong = r#"{"jsonrpc":"2.0","id":1,"method":"job","params":{"job":7}}"#;
    let longest = format!("{wrong}{}", " ".repeat((4 << 20) - wrong.len()));
    rpc.write(&format!("{longest}\n"));
    assert_eq!(rpc.answer("1")["error"]["code"], 66);
    rpc.write(&format!("{longest} \n"));
    let error = rpc.answer("null")["error"].clone();
    assert_eq!(error["message"], "not a request: it is longer than 4194304 bytes");
    assert_eq!((&error["code"], &error["data"]["hint"]), (&json!(-32600), &json!("send fewer calls in one request")));
    assert_eq!(rpc.enqueue("mail"), 1);
    rpc.end();
}

#[test]
fn calls_have_all_that_a_line_of_a_batch_has() {
    let mut place = Place::with_functions(&[("mail", "cat")]);
    place.set("ASYNCQ_PRINCIPAL", "carol");
    place.stdout("mkdir other && cp mail other");
    let mut rpc = Rpc::start(&place);
    let call = r#""service":"events","function":"mail""#;
    let site = place.path().display();
    for more in [
        "",
        r#","principal":null"#,
        r#","principal":"","hold":true"#,
        &format!(r#","principal":"alice","site":"{site}/other","priority":-5"#),
        r#","at":"2036-01-01T01:00:00.5+01:00","key":"k""#,
        r#","at":"2016-01-01T00:00:00Z","hold":false"#,
        r#","at":"2036-01-01T00:00:00Z","hold":true"#,
    ] {
        rpc.ask("enqueue", &format!("{{{call}{more}}}"));
    }
    assert_eq!(
        place.jobs("principal state priority site key"),
        format!(
            "carol queued 0 {site}, queued 0 {site}, held 0 {site}, alice queued -5 {site}/other, carol delayed 0 {site} k, \
             carol queued 0 {site}, carol held 0 {site}"
        )
    );
    assert_eq!(place.job(5)["run_at"], "2036-01-01T00:00:00.500Z");
    assert_eq!(place.job(6)["run_at"], "2016-01-01T00:00:00.000Z");
    assert_eq!(rpc.ask("start", r#"{"job":7}"#)["state"], "delayed");
    // The same call with the same key is the same job, whatever its priority and its time.
    let again = format!(r#"{{{call},"key":"k","priority":3}}"#);
    assert_eq!(rpc.ask("enqueue", &again), json!({"job": 5, "new": false}));
    let other = rpc.refused("enqueue", &format!(r#"{{{call},"key":"k","args":[1]}}"#));
    assert_eq!(other["message"], "key `k` belongs to job 5, which is another call");
    assert_eq!(other["data"]["exit_code"], 77);
    rpc.end();
    place.stdout("asyncq -q process --max-jobs 1");
    assert_eq!(place.job(4)["state"], "completed");
}

#[test]
fn a_list_of_calls_is_enqueued_each_or_all() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let (good, bad) = (r#"{"service":"events","function":"mail"}"#, r#"{"service":"events","function":"male"}"#);
    let wrong = r#"{"service":"events","function":"mail","inside":{"job":1,"token":"x"}}"#;
    let keyed = r#"{"service":"events","function":"mail","key":"k"}"#;
    assert_eq!(rpc.ask("enqueue", r#"{"calls":[]}"#), json!({"jobs": []}));
    let jobs = rpc.ask("enqueue", &format!(r#"{{"calls":[{good},{bad},{wrong},{keyed},{keyed}]}}"#));
    let jobs = jobs["jobs"].as_array().unwrap();
    assert_eq!((&jobs[0], &jobs[3]), (&json!({"job": 1, "new": true}), &json!({"job": 2, "new": true})));
    assert_eq!(jobs[4], json!({"job": 2, "new": false}));
    assert_eq!(jobs[1]["error"]["data"]["exit_code"], 66);
    assert_eq!(
        jobs[2]["error"],
        json!({"code": -32602, "message": "wrong params: not a call: `inside` is not known", "data": {"exit_code": 65}})
    );
    for (calls, at, code) in
        [(format!("{good},{good},{bad}"), 2, 66), (format!("{good},{wrong}"), 1, -32602), (bad.to_owned(), 0, 66)]
    {
        let error = rpc.refused("enqueue", &format!(r#"{{"calls":[{calls}],"atomic":true}}"#));
        assert_eq!((&error["code"], &error["data"]["call"]), (&json!(code), &json!(at)), "{calls}");
        assert_eq!(place.count(""), 2);
    }
    let jobs = rpc.ask("enqueue", &format!(r#"{{"calls":[{good},{keyed}],"atomic":true}}"#));
    assert_eq!(jobs, json!({"jobs": [{"job": 3, "new": true}, {"job": 2, "new": false}]}));
    rpc.end();
}

/// A lock keeps the first request waiting; when it goes, all are there together.
#[test]
fn requests_that_are_there_together_are_one_transaction_and_a_refused_one_falls_out() {
    let place = Place::with_functions(&[("mail", "cat")]);
    place.stdout("asyncq enqueue events mail");
    let mut rpc = Rpc::start(&place);
    rpc.enqueue("mail");
    let before = commits(&place);
    let held = lock(&place.store());
    let call = |function: &str| format!(r#"{{"service":"events","function":"{function}"}}"#);
    let first = rpc.send("enqueue", &call("mail"));
    let unread = |rpc: &Rpc| rustix::io::ioctl_fionread(rpc.requests.as_ref().unwrap()).unwrap();
    wait_until("it was read", || unread(&rpc) == 0);
    let more: Vec<String> =
        (0..20).map(|number| rpc.send("enqueue", &call(if number % 5 == 4 { "male" } else { "mail" }))).collect();
    drop(held);
    rpc.answer(&first);
    let answers: Vec<Value> = more.iter().map(|id| rpc.answer(id)).collect();
    let (refused, done): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| answer.get("error").is_some());
    assert!(refused.iter().all(|answer| answer["error"]["code"] == 66));
    assert_eq!((refused.len(), done.len(), place.count("")), (4, 16, 19));
    assert!((1..=2).contains(&(commits(&place) - before)));
    rpc.end();
}

/// How many transactions the WAL of the store holds.
fn commits(place: &Place) -> usize {
    let wal = fs::read(place.at(".local/share/asyncq/queue.db-wal")).unwrap();
    let number = |at: usize| u32::from_be_bytes(wal[at..at + 4].try_into().unwrap());
    let page = usize::try_from(number(8)).unwrap();
    let frames = (32..).step_by(24 + page).take_while(|at| at + 24 + page <= wal.len());
    // The last frame of a transaction names the size of the database; those that an earlier WAL left have another salt.
    frames.take_while(|at| wal[at + 8..at + 16] == wal[16..24]).filter(|at| number(at + 4) > 0).count()
}

#[test]
fn threads_that_share_it_are_answered_and_share_commits() {
    const EACH: usize = 50;
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    rpc.enqueue("mail");
    let before = commits(&place);
    let requests = std::sync::Mutex::new(rpc.requests.take().unwrap());
    let answered = std::sync::Mutex::new(vec![0; 8]);
    // Each thread sends its next request when the last one is answered.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (requests, answered) = (&requests, &answered);
            scope.spawn(move || {
                for number in 0..EACH {
                    let id = format!("\"{thread}.{number}\"");
                    let call = format!(r#"{{"service":"events","function":"mail","args":[{thread},{number}]}}"#);
                    requests.lock().unwrap().write_all(request(&id, "enqueue", &call).as_bytes()).unwrap();
                    wait_until("it is answered", || answered.lock().unwrap()[thread] == number + 1);
                }
            });
        }
        for _ in 0..8 * EACH {
            let answer: Value = serde_json::from_str(&rpc.line().unwrap()).unwrap();
            assert_eq!(answer["result"]["new"], true, "{answer}");
            let (thread, _) = answer["id"].as_str().unwrap().split_once('.').unwrap();
            answered.lock().unwrap()[thread.parse::<usize>().unwrap()] += 1;
        }
    });
    drop(requests);
    assert_eq!(place.count(""), 8 * EACH + 1);
    let commits = commits(&place) - before;
    assert!(commits <= 8 * EACH, "{commits}");
    rpc.end();
}

#[test]
fn what_is_defined_before_a_call_is_there_for_it() {
    let place = Place::new();
    place.stdout("asyncq -q init");
    let mut rpc = Rpc::start(&place);
    let site = place.path().display();
    let function =
        format!(r#"{{"functions":[{{"service":"events","name":"mail","command":["true"],"site":"{site}"}}]}}"#);
    let call = r#"{"service":"events","function":"mail"}"#;
    let lines = [
        request("1", "enqueue", call),
        request("2", "define", r#"{"service":"events"}"#),
        request("3", "enqueue", call),
        request("4", "register", &function),
        request("5", "enqueue", call),
    ];
    rpc.write(&lines.concat());
    let outcomes: Vec<Value> = (1..=5).map(|id: i32| rpc.answer(&id.to_string())).collect();
    assert_eq!(outcomes[0]["error"]["message"], "there is no service `events`");
    assert_eq!(outcomes[1]["result"], json!({"outcome": "added"}));
    assert_eq!(outcomes[2]["error"]["message"], "service `events` has no function `mail`");
    assert_eq!(outcomes[3]["result"], json!({"functions": [{"outcome": "added", "differs": []}]}));
    assert_eq!(outcomes[4]["result"], json!({"job": 1, "new": true}));
    // The program was looked up.
    assert!(place.stdout("asyncq function show events mail --json").contains(r#""command":["/"#));
    rpc.end();
}

#[test]
fn registering_keeps_what_differs_unless_it_may_change_it() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let site = place.path().display().to_string();
    let mut register = |members: &str, change: bool| {
        let params = format!(r#"{{"functions":[{{"service":"events","name":"mail",{members}}}],"change":{change}}}"#);
        let done = rpc.ask("register", &params)["functions"][0].clone();
        (done["outcome"].as_str().unwrap().to_owned(), done["differs"].clone())
    };
    let same = format!(r#""command":["./mail"],"site":"{site}","worker":false,"timeout":null"#);
    let other = r#""command":["/bin/true"],"site":"/usr","env":{"A":"1"},"worker":true,"timeout":1.5"#;
    let all = json!(["command", "site", "env", "worker", "timeout"]);
    assert_eq!(register(&same, false), ("same".to_owned(), json!([])));
    assert_eq!(register(other, false), ("kept".to_owned(), all.clone()));
    assert_eq!(register(&same, false), ("same".to_owned(), json!([])));
    assert_eq!(register(other, true), ("changed".to_owned(), all));
    assert_eq!(
        register(r#""env":{"B":"2"},"worker":{"calls":7}"#, true),
        ("changed".to_owned(), json!(["env", "worker"]))
    );
    assert_eq!(register(r#""worker":{"calls":7},"timeout":1.5"#, false), ("same".to_owned(), json!([])));
    let policy = r#""retries":3,"backoff":"1m","retry_on":"1,timeout","no_retry_on":"2","conflicts":9,"lane":"a","on_error":"events/mail","on_success":"events/mail""#;
    let members =
        json!(["retries", "backoff", "retry_on", "no_retry_on", "conflicts", "lane", "on_error", "on_success"]);
    assert_eq!(register(policy, false), ("kept".to_owned(), members.clone()));
    assert_eq!(register(policy, true), ("changed".to_owned(), members));
    assert_eq!(register(policy, false), ("same".to_owned(), json!([])));
    let none = r#""retries":0,"lane":null,"on_error":null"#;
    assert_eq!(register(none, true), ("changed".to_owned(), json!(["retries", "lane", "on_error"])));
    let function: Value = serde_json::from_str(&place.stdout("asyncq function show events mail --json")).unwrap();
    assert_eq!((&function["retries"], &function["conflicts"]), (&json!(0), &json!(9)));
    assert_eq!((&function["on_error"], &function["on_success"]), (&json!(null), &json!("events/mail")));
    assert_eq!(function["env"], json!({"A": "1", "B": "2"}));
    assert_eq!(function["worker"], json!({"calls_per_worker": 7, "idle": 60.0, "memory_growth": null}));
    assert_eq!((&function["timeout"], &function["site"]), (&json!(1.5), &json!("/usr")));
    rpc.end();
}

#[test]
fn a_notification_is_carried_out_and_not_answered() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let notify =
        |method: &str, params: &str| format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}\n");
    rpc.write(&notify("enqueue", r#"{"service":"events","function":"mail"}"#));
    rpc.write(&notify("enqueue", r#"{"service":"events","function":"male"}"#));
    rpc.write(&notify("wait", r#"{"jobs":[1]}"#));
    rpc.write(&notify("cancel", r#"{"job":1}"#));
    let id = rpc.send("hello", r#"{"protocol":1}"#);
    assert_eq!(rpc.answer(&id)["result"]["store"], place.store().to_str().unwrap());
    assert_eq!(rpc.end(), (String::new(), String::new(), Some(0)));
    assert_eq!(place.jobs("state"), "cancelled");
    // What is not a request cannot say that it wants no answer.
    let mut rpc = Rpc::start(&place);
    rpc.write(&notify("nothing", "{}"));
    assert_eq!(rpc.answer("null")["error"]["code"], -32601);
}

/// A function that shows its attempt and waits.
const SHOWS: &str =
    "echo \"$ASYNCQ_JOB $ASYNCQ_TOKEN\" > attempt.new && mv attempt.new attempt; until [ -e go ]; do sleep 0.02; done";

#[test]
fn calls_inside_an_attempt_are_its_children_while_it_runs() {
    let mut place = Place::with_functions(&[("shows", SHOWS), ("mail", "cat")]);
    place.stdout("asyncq enqueue --principal alice events shows");
    let process = place.start("asyncq -q process --max-jobs 1");
    wait_until("it runs", || place.at("attempt").exists());
    let attempt = place.read("attempt");
    let (job, token) = attempt.trim().split_once(' ').unwrap();
    // Where the process itself runs counts for nothing.
    place.set("ASYNCQ_JOB", job);
    place.set("ASYNCQ_TOKEN", token);
    place.set("ASYNCQ_PRINCIPAL", "carol");
    let mut rpc = Rpc::start(&place);
    let call = |more: &str, token: &str| {
        format!(r#"{{"service":"events","function":"mail"{more},"inside":{{"job":{job},"token":"{token}"}}}}"#)
    };
    assert_eq!(rpc.ask("enqueue", &call("", token)), json!({"job": 2, "new": true}));
    rpc.ask("enqueue", &call(r#","hold":true,"site":"/usr""#, token));
    rpc.enqueue("mail");
    let inside = format!(r#""inside":{{"job":{job},"token":"{token}"}}"#);
    rpc.ask("enqueue", &format!(r#"{{"calls":[{{"service":"events","function":"mail"}}],"atomic":true,{inside}}}"#));
    let shown = |id: usize, member: &str| place.job(id)[member].clone();
    for (id, parent, principal) in
        [(2, json!(1), "alice"), (3, json!(1), "alice"), (4, Value::Null, "carol"), (5, json!(1), "alice")]
    {
        assert_eq!((shown(id, "parent"), shown(id, "principal")), (parent, json!(principal)), "{id}");
    }
    assert_eq!(shown(3, "site"), "/usr");
    for principal in [r#","principal":"bob""#, r#","principal":null"#] {
        let error = rpc.refused("enqueue", &call(principal, token));
        assert_eq!(error["message"], "a call inside a running function has the principal of that function");
        assert_eq!((&error["code"], &error["data"]["hint"]), (&json!(77), &json!("leave `principal` out")));
    }
    let stale = json!({
        "code": 77,
        "message": "job 1 no longer runs this attempt",
        "data": {"hint": "leave `inside` out to make the call outside of any job", "exit_code": 77},
    });
    assert_eq!(rpc.refused("enqueue", &call("", "00000000000000000000000000000000")), stale);
    place.write("go", "");
    assert!(process.wait().status.success());
    assert_eq!(rpc.refused("enqueue", &call("", token)), stale);
    rpc.end();
}

#[test]
fn jobs_are_shown_and_changed_as_by_hand() {
    let place = Place::with_functions(&[("fail", "exit 3"), ("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    rpc.enqueue("fail");
    rpc.ask("enqueue", r#"{"service":"events","function":"mail","hold":true}"#);
    let error = rpc.refused("start", r#"{"job":1}"#);
    assert_eq!(
        (&error["message"], &error["data"]["hint"]),
        (
            &json!("job 1 is queued, not held"),
            &json!("only a job that is held, or waits for other jobs, can be started")
        )
    );
    assert_eq!(rpc.ask("start", r#"{"job":2}"#)["state"], "queued");
    assert_eq!(rpc.ask("cancel", r#"{"job":2}"#)["state"], "cancelled");
    assert_eq!(rpc.ask("cancel", r#"{"job":2}"#)["state"], "cancelled");
    place.run("asyncq -q process");
    let error = rpc.refused("cancel", r#"{"job":1}"#);
    assert_eq!((&error["code"], &error["message"]), (&json!(77), &json!("job 1 is error, nothing to cancel")));
    let id = rpc.send("job", r#"{"job":1}"#);
    let shown = rpc.line().unwrap();
    let by_hand = place.stdout("asyncq job show 1 --json");
    assert_eq!(shown, format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{}}}\n", by_hand.trim_end()));
    assert_eq!(rpc.ask("retry", r#"{"job":1}"#)["state"], "queued");
    rpc.end();
}

#[test]
fn a_running_job_that_is_cancelled_holds_up_nothing() {
    let place = Place::with_functions(&[
        ("stays", "trap 'touch asked' TERM; touch begun; until [ -e go ]; do sleep 0.02; done"),
        ("mail", "cat"),
    ]);
    place.stdout("asyncq enqueue events stays");
    let process = place.start("asyncq -q process");
    wait_until("it runs", || place.at("begun").exists());
    let mut rpc = Rpc::start(&place);
    let cancel = rpc.send("cancel", r#"{"job":1}"#);
    assert_eq!(rpc.enqueue("mail"), 2);
    wait_until("it is asked to end", || place.at("asked").exists());
    assert!(rpc.early.is_empty());
    place.write("go", "");
    assert_eq!(rpc.answer(&cancel)["result"]["state"], "cancelled");
    rpc.end();
    process.wait();
}

#[test]
fn waits_hold_up_nothing_and_end_with_their_jobs() {
    let place = Place::with_functions(&[
        ("waits", "until [ -e go-$1 ]; do sleep 0.02; done"),
        ("fail", "exit 3"),
        ("mail", "true"),
    ]);
    place.stdout("asyncq service set events --concurrency 4");
    for call in ["waits 1", "waits 2", "fail", "mail"] {
        place.stdout(&format!("asyncq enqueue events {call}"));
    }
    let mut rpc = Rpc::start(&place);
    let both = rpc.send("wait", r#"{"jobs":[1,2,1]}"#);
    let first = rpc.send("wait", r#"{"jobs":[1],"timeout":600}"#);
    let short = rpc.send("wait", r#"{"jobs":[2],"timeout":0.05}"#);
    let error = rpc.answer(&short)["error"].clone();
    assert_eq!(error["message"], "job 2 has not ended yet: it is queued");
    assert_eq!(
        (&error["code"], &error["data"]["hint"]),
        (&json!(75), &json!("`asyncq job show 2` shows what it waits for"))
    );
    assert_eq!(rpc.refused("wait", r#"{"jobs":[1],"timeout":0}"#)["data"]["exit_code"], 75);
    assert_eq!(rpc.ask("wait", r#"{"jobs":[]}"#), json!({"jobs": []}));
    let process = place.start("asyncq -q process");
    let ended = rpc.ask("wait", r#"{"jobs":[4,3],"timeout":null}"#);
    assert_eq!((&ended["jobs"][0]["id"], &ended["jobs"][0]["state"]), (&json!(4), &json!("completed")));
    assert_eq!((&ended["jobs"][1]["id"], &ended["jobs"][1]["error"]["exit_code"]), (&json!(3), &json!(3)));
    assert_eq!(ended["jobs"][1]["attempts"][0]["ending"], "error");
    assert!(rpc.early.is_empty());
    place.write("go-1", "");
    assert_eq!(rpc.answer(&first)["result"]["jobs"][0]["state"], "completed");
    assert!(rpc.early.is_empty());
    place.write("go-2", "");
    let ended = rpc.answer(&both)["result"]["jobs"].clone();
    assert_eq!(ended.as_array().unwrap().iter().map(|job| job["id"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 2, 1]);
    process.wait();
    rpc.end();
}

/// The time from the moment at which a job has ended, as the store records it, to the answer.
#[test]
fn a_wait_wakes_when_the_end_is_recorded() {
    let place = Place::with_functions(&[("mail", "true")]);
    let process = place.start("asyncq -q process --follow");
    wait_until("it follows", || {
        place.stdout("ls .local/share/asyncq/queue.db-asyncq 2> /dev/null || :").lines().count() > 0
    });
    let mut rpc = Rpc::start(&place);
    let _other = rpc.enqueue("mail");
    let mut late = Vec::new();
    for _ in 0..20 {
        let job = rpc.enqueue("mail");
        let ended = rpc.ask("wait", &format!(r#"{{"jobs":[{job}]}}"#));
        let now = i128::try_from(crate::place::unix_time()).unwrap();
        let finished: jiff::Timestamp = ended["jobs"][0]["finished_at"].as_str().unwrap().parse().unwrap();
        late.push(now - i128::from(finished.as_millisecond()));
    }
    late.sort_unstable();
    println!("{late:?} ms");
    // The machine of a test may be busy; half a second is how often it would look without being woken.
    assert!(late[10] < 250, "{late:?}");
    process.signal("TERM");
    process.wait();
    rpc.end();
}

#[test]
fn a_job_that_is_removed_ends_its_wait() {
    let place = Place::with_functions(&[("mail", "true")]);
    place.stdout("asyncq enqueue events mail; asyncq enqueue events mail --hold; asyncq -q process");
    let mut rpc = Rpc::start(&place);
    let wait = rpc.send("wait", r#"{"jobs":[1,2]}"#);
    rpc.refused("wait", r#"{"jobs":[1,2],"timeout":0}"#);
    place.stdout("asyncq job clean --all 2> /dev/null || asyncq job clean");
    let error = rpc.answer(&wait)["error"].clone();
    assert_eq!((&error["code"], &error["message"]), (&json!(66), &json!("job 1 was removed while it was waited for")));
    rpc.end();
}

#[test]
fn at_the_end_of_the_requests_all_are_answered() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let mut requests = String::new();
    for id in 1..=30 {
        requests += &request(&id.to_string(), "enqueue", r#"{"service":"events","function":"mail"}"#);
    }
    requests += &request("31", "wait", r#"{"jobs":[1]}"#);
    requests += request("32", "job", r#"{"job":1}"#).trim_end();
    rpc.write(&requests);
    let (rest, said, code) = rpc.end();
    assert_eq!((said.as_str(), code, rest.lines().count(), place.count("")), ("", Some(0), 32, 30));
    let wait = rest.lines().find(|line| line.contains("\"id\":31,")).unwrap();
    assert!(wait.contains("\"exit_code\":75"), "{wait}");
    // In the middle of a request.
    let mut rpc = Rpc::start(&place);
    rpc.write("{\"jsonrpc\":\"2.0\",\"id\":1,\"meth");
    let (rest, _, code) = rpc.end();
    assert!(
        rest.contains("\"id\":null,\"error\":{\"code\":-32700,\"message\":\"not JSON: it is not complete\""),
        "{rest}"
    );
    assert_eq!(code, Some(0));
    assert_eq!(Rpc::start(&place).end(), (String::new(), String::new(), Some(0)));
}

#[test]
fn a_signal_ends_it_like_the_end_of_the_requests() {
    let place = Place::with_functions(&[("mail", "cat")]);
    for signal in ["TERM", "INT", "HUP"] {
        let mut rpc = Rpc::start(&place);
        let job = rpc.enqueue("mail");
        let wait = rpc.send("wait", &format!(r#"{{"jobs":[{job}]}}"#));
        rpc.ask("hello", r#"{"protocol":1}"#);
        place.stdout(&format!("kill -{signal} {}", rpc.process.id()));
        assert_eq!(rpc.answer(&wait)["error"]["data"]["exit_code"], 75);
        let (rest, said, code) = rpc.wait();
        assert_eq!((rest.as_str(), said.as_str(), code), ("", "", Some(0)), "{signal}");
    }
}

#[test]
fn a_signal_ends_it_even_if_nobody_reads_the_answers() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let long = "x".repeat(200_000);
    rpc.ask("enqueue", &format!(r#"{{"service":"events","function":"mail","args":["{long}"]}}"#));
    let (job, wait) = (request("1", "job", r#"{"job":1}"#), request("2", "wait", r#"{"jobs":[1]}"#));
    let call = request("3", "enqueue", r#"{"service":"events","function":"mail"}"#);
    rpc.write(&format!("{wait}{job}"));
    let unread = |rpc: &Rpc| rustix::io::ioctl_fionread(rpc.answers.get_ref()).unwrap();
    wait_until("it writes a long answer", || unread(&rpc) > 40_000);
    rpc.write(&call);
    place.stdout(&format!("kill -TERM {}", rpc.process.id()));
    let code = rpc.process.wait().unwrap().code();
    let (_, said, _) = rpc.wait();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.starts_with("error: nobody reads the answers\n"), "{said}");
}

#[test]
fn half_a_request_holds_up_no_whole_one() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let call = request("1", "enqueue", r#"{"service":"events","function":"mail"}"#);
    let (half, rest) = call.split_at(20);
    rpc.write(&format!("{call}{half}"));
    assert_eq!(rpc.answer("1")["result"]["job"], 1);
    rpc.write(rest);
    assert_eq!(rpc.answer("1")["result"]["job"], 2);
    rpc.end();
}

#[test]
fn without_a_reader_it_does_what_it_has_read() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let held = lock(&place.store());
    let mut rpc = Rpc::with(&place, "exec asyncq rpc > out");
    rpc.write(&request("1", "enqueue", r#"{"service":"events","function":"mail"}"#));
    drop(held);
    rpc.end();
    assert_eq!(place.count(""), 1);
    let mut rpc = Rpc::start(&place);
    rpc.write(&request("1", "enqueue", r#"{"service":"events","function":"mail"}"#).repeat(100));
    let Rpc { mut process, requests, answers, .. } = rpc;
    drop(answers);
    // Its requests have not ended; nobody reads the answers.
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(place.count("") > 1);
    drop(requests);
}

#[test]
fn answers_that_cannot_be_written_are_an_error() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::with(&place, "exec asyncq rpc > /dev/full");
    rpc.write(&request("1", "enqueue", r#"{"service":"events","function":"mail"}"#));
    let (_, said, code) = rpc.wait();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.starts_with("error: cannot write to stdout: no space left on the device\n"), "{said}");
}

#[test]
fn without_a_store_a_request_is_refused_and_the_next_one_looks_again() {
    let mut place = Place::new();
    place.set("ASYNCQ_DB", "later.db");
    let mut rpc = Rpc::start(&place);
    rpc.ask("hello", r#"{"protocol":1}"#);
    let none = rpc.refused("define", r#"{"service":"events"}"#);
    assert_eq!((&none["code"], &none["data"]["exit_code"]), (&json!(69), &json!(69)));
    assert!(none["data"]["hint"].as_str().unwrap().contains("`asyncq init`"), "{none}");
    assert_eq!(rpc.refused("wait", r#"{"jobs":[1]}"#)["code"], 69);
    assert!(!place.at("later.db").exists());
    place.stdout("asyncq -q init");
    assert_eq!(rpc.ask("define", r#"{"service":"events"}"#), json!({"outcome": "added"}));
    assert_eq!(rpc.refused("wait", r#"{"jobs":[1]}"#)["code"], 66);
    assert_eq!(rpc.end().2, Some(0));
}

#[test]
fn a_store_that_stays_locked_is_an_error_of_its_requests() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::with(&place, "exec asyncq rpc --lock-timeout 100ms");
    let held = lock(&place.store());
    let error = rpc.refused("enqueue", r#"{"service":"events","function":"mail"}"#);
    assert_eq!(error["code"], 75, "{error}");
    drop(held);
    assert_eq!(rpc.enqueue("mail"), 1);
    rpc.end();
}

#[test]
fn a_store_that_is_gone_ends_it() {
    for with_wait in [false, true] {
        let place = Place::with_functions(&[("mail", "cat")]);
        let mut rpc = Rpc::start(&place);
        let job = rpc.enqueue("mail");
        let wait = with_wait.then(|| rpc.send("wait", &format!(r#"{{"jobs":[{job}]}}"#)));
        if with_wait {
            rpc.refused("wait", &format!(r#"{{"jobs":[{job}],"timeout":0}}"#));
        }
        place.stdout("mv .local/share/asyncq elsewhere");
        if let Some(wait) = wait {
            assert_eq!(rpc.answer(&wait)["error"]["code"], 74);
        } else {
            let error = rpc.refused("enqueue", r#"{"service":"events","function":"mail"}"#);
            assert_eq!((&error["code"], &error["data"]["exit_code"]), (&json!(74), &json!(74)), "{error}");
        }
        let (rest, said, code) = rpc.wait();
        assert_eq!((rest.as_str(), code), ("", Some(74)));
        assert!(said.starts_with("error: "), "{said}");
    }
}

/// More requests than asyncq carries out at once. It finds them all in its pipe, and the world as `change` leaves it.
fn write_many(rpc: &mut Rpc, method: &str, params: &str, change: impl FnOnce(&mut Rpc)) -> usize {
    let many = 1020;
    let requests: String = (1..=many).map(|id| request(&id.to_string(), method, params)).collect();
    rustix::pipe::fcntl_setpipe_size(rpc.requests.as_ref().unwrap(), 256 * 1024).unwrap();
    let pid = rustix::process::Pid::from_child(&rpc.process);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    rpc.write(&requests);
    change(rpc);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    many
}

#[test]
fn a_store_that_is_gone_leaves_no_request_unanswered_that_was_read() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    rpc.enqueue("mail");
    let many = write_many(&mut rpc, "cancel", r#"{"job":1}"#, |_| {
        place.stdout("mv .local/share/asyncq elsewhere");
    });
    let (rest, said, code) = rpc.wait();
    assert_eq!(code, Some(74), "{said}");
    assert_eq!((rest.lines().count(), rest.matches("\"exit_code\":74").count()), (many, many), "{rest}");
}

#[test]
fn without_a_reader_it_carries_out_all_that_it_has_read() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let many = write_many(&mut rpc, "enqueue", r#"{"service":"events","function":"mail"}"#, |rpc| {
        rpc.answers = Rpc::with(&place, "true").answers;
    });
    let (_, said, code) = rpc.wait();
    assert_eq!((said.as_str(), code, place.count("")), ("", Some(0), many));
}

#[test]
fn requests_that_were_read_are_answered_when_no_more_can_be_read() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    for id in ["1", "2"] {
        ours.write_all(request(id, "enqueue", r#"{"service":"events","function":"mail"}"#).as_bytes()).unwrap();
    }
    ours.write_all(b"{\"jsonrpc\"").unwrap();
    // Closed before it has read this, our side is reset.
    theirs.write_all(b"unread").unwrap();
    drop(ours);
    let process = place.command("exec asyncq rpc").stdin(std::os::fd::OwnedFd::from(theirs)).spawn().unwrap();
    let output = process.wait_with_output().unwrap();
    let (answers, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((answers.lines().count(), place.count(""), output.status.code()), (2, 2, Some(74)), "{answers}{said}");
    assert!(said.starts_with("error: the requests cannot be read: "), "{said}");
}

#[test]
fn many_answers_need_little_memory() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let long = "x".repeat(900_000);
    let mut rpc = Rpc::start(&place);
    rpc.ask("enqueue", &format!(r#"{{"service":"events","function":"mail","args":["{long}"]}}"#));
    let requests = request("1", "job", r#"{"job":1}"#).repeat(300);
    let mut writer = rpc.requests.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        let since = Instant::now();
        for _ in 0..300 {
            assert!(rpc.line().unwrap().len() > long.len());
        }
        assert!(since.elapsed() < Duration::from_secs(60));
    });
    let status = fs::read_to_string(format!("/proc/{}/status", rpc.process.id())).unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(peak < 60_000, "{peak} kB");
    }
}

#[test]
fn a_request_names_at_most_ten_thousand_calls_functions_or_jobs() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    for (method, member, entry) in [("enqueue", "calls", "{}"), ("register", "functions", "{}"), ("wait", "jobs", "1")]
    {
        let params = |count| format!(r#"{{"{member}":[{}]}}"#, vec![entry; count].join(","));
        let error = rpc.refused(method, &params(10_001));
        let message = format!("wrong params: `{member}` has 10001 entries, and at most 10000 are allowed");
        assert_eq!((&error["code"], &error["message"]), (&json!(-32602), &json!(message)));
        assert_eq!(error["data"]["hint"], "send several requests");
        let id = rpc.send(method, &params(10_000));
        assert!(!rpc.answer(&id)["error"]["message"].as_str().unwrap_or_default().contains("entries"));
    }
    rpc.end();
}

#[test]
fn many_calls_in_many_requests_need_little_memory() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let params = format!(r#"{{"calls":[{}]}}"#, vec!["{}"; 10_000].join(","));
    let request = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"enqueue\",\"params\":{params}}}\n");
    let mut rpc = Rpc::start(&place);
    rpc.write(&request.repeat(30));
    rpc.ask("hello", r#"{"protocol":1}"#);
    let status = fs::read_to_string(format!("/proc/{}/status", rpc.process.id())).unwrap();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        println!("{peak} kB");
        assert!(peak < 40_000, "{peak} kB");
    }
    rpc.end();
}

#[test]
fn the_answer_to_a_wait_is_not_too_long() {
    let place = Place::with_functions(&[("mail", "cat")]);
    let mut rpc = Rpc::start(&place);
    let long = "x".repeat(20_000);
    rpc.ask("enqueue", &format!(r#"{{"service":"events","function":"mail","args":["{long}"]}}"#));
    place.stdout("asyncq -q process");
    let wait = |count| format!(r#"{{"jobs":[{}]}}"#, vec!["1"; count].join(","));
    let error = rpc.refused("wait", &wait(4000));
    assert_eq!((&error["code"], &error["message"]), (&json!(65), &json!("these jobs together hold more than 64 MiB")));
    assert_eq!(error["data"]["hint"], "wait for fewer jobs in one request");
    assert_eq!(rpc.ask("wait", &wait(100))["jobs"].as_array().unwrap().len(), 100);
    rpc.end();
}

#[test]
fn a_function_that_no_processor_could_start_is_not_registered() {
    let place = Place::with_functions(&[]);
    let mut rpc = Rpc::start(&place);
    for (members, message) in [
        (r#""command":["/bin/echo","a\u0000b"],"site":"/tmp""#, "`command` contains a NUL character"),
        (r#""command":["/bin/echo"],"site":"/tmp","env":{"A":"\u0000"}"#, "`env` contains a NUL character"),
        (r#""command":["/bin/echo"],"site":"/tmp\u0000""#, "`site` contains a NUL character"),
        (r#""command":["/bin/echo"]"#, "function `new` of service `events` is new, so it needs `command` and `site`"),
        (r#""command":["echo"]"#, "function `new` of service `events` is new, so it needs `command` and `site`"),
        (r#""command":["./mail"]"#, "function `new` of service `events` is new, so it needs `command` and `site`"),
    ] {
        let functions = format!(r#"{{"functions":[{{"service":"events","name":"new",{members}}}]}}"#);
        let error = rpc.refused("register", &functions);
        assert_eq!((&error["message"], &error["data"]["exit_code"]), (&json!(message), &json!(65)));
        assert!(!error["data"]["hint"].as_str().unwrap().contains("backup"), "{error}");
    }
    rpc.end();
    assert_eq!(place.stdout("asyncq function list --json").trim(), "[]");
}

#[test]
fn a_service_is_defined_with_its_limits_and_hooks() {
    let place = Place::with_functions(&[("alert", "true")]);
    let mut rpc = Rpc::start(&place);
    let all = r#"{"service":"mails","concurrency":4,"lane_width":2,"rate":"10/s","burst":5,"keep":3600,"on_error":"events/alert"}"#;
    assert_eq!(rpc.ask("define", all), json!({"outcome": "added"}));
    assert_eq!(rpc.ask("define", r#"{"service":"mails"}"#), json!({"outcome": "same"}));
    let show = |of: &str| place.stdout(&format!("asyncq service show mails | grep -E '{of}' | tr -s ' '"));
    assert_eq!(
        show("rate|lane|on error|keeps"),
        "lane width 2\nrate 10/s, burst 5\nkeeps jobs 1h, errors forever\non error events/alert\n"
    );
    let less = r#"{"service":"mails","rate":null,"on_error":null,"lane_width":3,"keep":null}"#;
    assert_eq!(rpc.ask("define", less), json!({"outcome": "changed"}));
    assert_eq!(show("rate|lane|on error|keeps"), "lane width 3\n");
    for (params, flaw) in [
        (r#"{"service":"mails","rate":"10"}"#, "wrong params: `rate` cannot be `10`: "),
        (r#"{"service":"mails","burst":5}"#, "wrong params: `burst` needs `rate`"),
        (
            r#"{"service":"mails","rate":"1/s","burst":0}"#,
            "wrong params: `burst` has to be a whole number from 1 to 1000000",
        ),
        (
            r#"{"service":"mails","lane_width":1001}"#,
            "wrong params: `lane_width` has to be a whole number from 1 to 1000",
        ),
        (
            r#"{"service":"mails","concurrency":0}"#,
            "wrong params: `concurrency` has to be a whole number from 1 to 4294967295",
        ),
        (r#"{"service":"mails","keep":0}"#, "wrong params: `keep` has to be a number of seconds, "),
        (r#"{"service":"mails","on_success":"x"}"#, "wrong params: `on_success` cannot be `x`: "),
    ] {
        let error = rpc.refused("define", params);
        assert!(error["message"].as_str().unwrap().starts_with(flaw), "{error}");
    }
    assert_eq!(rpc.refused("define", r#"{"service":"mails","on_error":"events/none"}"#)["code"], 66);
    rpc.end();
}

#[test]
fn a_schedule_of_a_program_is_one_of_the_command_line() {
    let mut place = Place::with_functions(&[("mail", "true")]);
    place.set("TZ", "America/New_York");
    place.set("ASYNCQ_PRINCIPAL", "carol");
    let mut rpc = Rpc::start(&place);
    let call = r#""service":"events","function":"mail","args":[ 1.10],"kwargs":{"a":2}"#;
    let add = |name: &str, more: &str| format!(r#"{{"schedule":"{name}",{call}{more}}}"#);
    let all = r#","cron":"30 2 * * *","missed":"all","within":"2h","from":"2026-01-01","until":"2036-01-01 9:00","priority":-3,"lane":"disk","expires":"1h","meta":{"a":1},"description":"why","site":"/srv""#;
    assert_eq!(rpc.ask("schedule.add", &add("by-program", all)), json!({"outcome": "added"}));
    place.stdout(
        "asyncq schedule add by-hand --cron '30 2 * * *' --missed all --within 2h --from 2026-01-01 --until '2036-01-01 9:00' \
         --priority -3 --lane disk --expires 1h --meta a=1 --description why -k a=2 events mail 1.10",
    );
    let mut shown = rpc.ask("schedule.show", r#"{"schedule":"by-program"}"#);
    let by_hand: Value = serde_json::from_str(&place.stdout("asyncq schedule show by-hand --json")).unwrap();
    assert_eq!(
        (&shown["zone"], &shown["principal"], &shown["site"]),
        (&json!("America/New_York"), &json!("carol"), &json!("/srv"))
    );
    assert_eq!((&shown["meta"], &by_hand["meta"]), (&json!({"a": 1}), &json!({"a": "1"})));
    for member in ["name", "site", "meta", "created_at"] {
        shown[member] = by_hand[member].clone();
    }
    assert_eq!(shown, by_hand);
    assert_eq!(rpc.ask("schedule.list", r#"{"service":"events"}"#)["schedules"].as_array().unwrap().len(), 2);
    rpc.ask("schedule.add", &add("nobody", r#","every":"1h","principal":null"#));
    assert_eq!(rpc.ask("schedule.show", r#"{"schedule":"nobody"}"#)["principal"], Value::Null);
    // A pause stays where the definition changes.
    rpc.ask("schedule.pause", r#"{"schedules":["nobody"]}"#);
    let every = add("nobody", r#","every":"2h","principal":null,"change":true"#);
    assert_eq!(rpc.ask("schedule.add", &every), json!({"outcome": "changed"}));
    assert_eq!(rpc.ask("schedule.add", &every), json!({"outcome": "same"}));
    let shown = rpc.ask("schedule.show", r#"{"schedule":"nobody"}"#);
    assert_eq!((&shown["every"], &shown["state"]), (&json!(7200.0), &json!("paused")));
    rpc.ask("schedule.resume", r#"{"schedules":["nobody"]}"#);
    assert_eq!(rpc.ask("schedule.show", r#"{"schedule":"nobody"}"#)["state"], "active");
    rpc.end();
}

#[test]
fn waits_for_the_first_job_and_for_a_service_end_in_time() {
    let place = Place::with_functions(&[("waits", "until [ -e go-$1 ]; do sleep 0.02; done"), ("mail", "true")]);
    place.stdout(
        "asyncq service set events --concurrency 4; asyncq service add other; asyncq function add other mail -- true",
    );
    for call in ["waits 1", "waits 2"] {
        place.stdout(&format!("asyncq enqueue events {call}"));
    }
    let mut rpc = Rpc::start(&place);
    let any = rpc.send("wait", r#"{"jobs":[2,1],"any":true}"#);
    let service = rpc.send("wait", r#"{"service":"events"}"#);
    let pause = rpc.send("pause", r#"{"wait":true,"timeout":600}"#);
    let removed = rpc.send("wait", r#"{"service":"other","timeout":0}"#);
    assert_eq!(rpc.answer(&removed)["result"], json!({}));
    // Nothing runs, so that the pause is complete at once.
    assert_eq!(rpc.answer(&pause)["result"], json!({}));
    rpc.ask("resume", "{}");
    let process = place.start("asyncq -q process");
    wait_until("both run", || place.jobs("state") == "processing, processing");
    let error = rpc.refused("pause", r#"{"wait":true,"timeout":0.05}"#);
    assert_eq!((&error["code"], &error["message"]), (&json!(75), &json!("job 1 still runs")));
    place.write("go-1", "");
    let ended = rpc.answer(&any)["result"]["jobs"].clone();
    assert_eq!((ended.as_array().unwrap().len(), &ended[0]["id"]), (1, &json!(1)));
    let pause = rpc.send("pause", r#"{"wait":true}"#);
    assert_eq!(
        rpc.refused("wait", r#"{"jobs":[2],"any":true,"timeout":0}"#)["message"],
        "job 2 has not ended yet: it is processing"
    );
    place.write("go-2", "");
    assert_eq!(rpc.answer(&service)["result"], json!({}));
    assert_eq!(rpc.answer(&pause)["result"], json!({}));
    process.wait();
    rpc.end();
}

#[test]
fn a_program_reads_logs_overviews_and_reasons() {
    let place = Place::with_functions(&[
        ("prints", "head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2"),
        ("raw", "printf '\\377\\0a'"),
    ]);
    place.stdout("asyncq enqueue events prints; asyncq enqueue events raw; asyncq -q process > out 2>&1; asyncq enqueue events raw");
    let mut rpc = Rpc::start(&place);
    let log = rpc.ask("log", r#"{"job":1,"attempt":1}"#);
    let parts = log["parts"].as_array().unwrap();
    let text = |part: &Value| part["text"].as_str().map_or(0, str::len);
    let kept: usize = parts.iter().map(text).sum();
    let dropped: u64 = parts.iter().filter_map(|part| part["dropped"].as_u64()).sum();
    assert_eq!(kept as u64 + dropped, 3_000_004);
    assert_eq!(parts.iter().filter(|part| part["dropped"].is_u64()).count(), 1);
    assert_eq!(rpc.ask("log", r#"{"job":2}"#)["parts"], json!([{"stream": "out", "text": "\u{fffd}\0a"}]));
    assert_eq!(rpc.refused("log", r#"{"job":1,"attempt":2}"#)["message"], "job 1 has no attempt 2");
    let explained: Value = serde_json::from_str(&place.stdout("asyncq explain 3 --json")).unwrap();
    assert_eq!(rpc.ask("explain", r#"{"job":3}"#)["reasons"][0]["code"], explained[0]["reasons"][0]["code"]);
    let mut shown = rpc.ask("status", r#"{"services":["ev*"],"except":["x*"],"exact":true}"#);
    let mut by_hand: Value = serde_json::from_str(&place.stdout("asyncq status --json")).unwrap();
    for overview in [&mut shown, &mut by_hand] {
        overview["at"] = Value::Null;
        overview["bytes"] = Value::Null;
    }
    assert_eq!(shown, by_hand);
    assert_eq!(shown["services"][0]["queued"], 1);
    rpc.end();
}
