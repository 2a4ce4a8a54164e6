//! The schemas that `asyncq schema` prints: what commands print is as they say, and they change by additions only.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::{fs, io::Write as _};

use serde_json::Value;

use crate::place::{Place, WORKER, wait_until};

/// A store with one of everything that an output can show, but for what runs only now.
fn place() -> Place {
    let place =
        Place::with_functions(&[("work", "echo '{\"a\": 1}' > \"$ASYNCQ_RESULT\""), ("fail", "echo no >&2; exit 3")]);
    let body = "
hello()
while message := hear():
    if message['params']['args']:
        data = {'type': 'ValueError', 'traceback': 'Traceback ...', 'unrecorded': 3}
        say(id=message['id'], error={'code': 1, 'message': 'no', 'data': data})
    else:
        say(method='progress', params={'job': message['params']['job'], 'note': 'half of it'})
        until(exists('go'))
        say(id=message['id'], result={'value': None})
";
    place.program("worker", &format!("{WORKER}{body}"));
    place.session(
        "
        $ asyncq -q service add slow
        $ asyncq function add slow work --worker --calls-per-worker 100 --memory-growth 100M -- ./worker
        $ touch e.env; chmod 600 e.env
        $ asyncq function set events fail --timeout 90s --env A=b --retries 1 --no-retry-on exit --on-error events/work --lane l --takes '[a]' --secret a --env-file e.env
        $ asyncq service set events --keep 30d --keep-errors 90d --rate 100/s --burst 3 --on-success events/work
        $ asyncq schedule add each --every 1h --missed skip --within 1ms --until 2036-01-01 --expires 1h --meta a=b --lane l --description why events work 1 -k a=1
        $ asyncq schedule add daily --cron '15 4 * * *' --tz Europe/Berlin events work --principal zoe
        $ asyncq schedule add made --every 1h events work
        $ asyncq schedule pause daily
        ",
    );
    place.let_ticks_pass("each", 2);
    place.let_ticks_pass("made", 1);
    for call in [
        "slow work 1",
        "events work 2 7 -k to=bob --principal zoe --meta tenant=acme --priority 3 --key k --key-until ended",
        "events fail",
        "events work --in 1h --expires 2h",
        "events work --hold",
        "events work --after 5",
    ] {
        place.stdout(&format!("asyncq enqueue {call}"));
    }
    place.run("asyncq -q process");
    place
}

/// What these commands print, each with the name of its schema.
fn printed(place: &Place, commands: &[(&str, &str)]) -> String {
    let mut lines = String::new();
    for (name, command) in commands {
        let text = place.stdout(&format!("asyncq {command} --json"));
        writeln!(lines, "{}", serde_json::json!([name, text])).unwrap();
    }
    lines
}

#[test]
fn what_commands_print_is_as_the_schemas_say() {
    let place = place();
    let mut lines = printed(
        &place,
        &[
            ("service-list", "service list"),
            ("service-show", "service show events"),
            ("function-list", "function list"),
            ("function-show", "function show slow work"),
            ("job-list", "job list"),
            ("schedule-list", "schedule list"),
            ("schedule-show", "schedule show daily"),
            ("schedule-next", "schedule next daily"),
            ("schedule-next", "schedule next --every 1h"),
            ("due", "due"),
            ("doctor", "doctor"),
        ],
    );
    let jobs: Vec<Value> = serde_json::from_str(&place.stdout("asyncq job list --json")).unwrap();
    let ids: Vec<String> = jobs.iter().map(|job| job["id"].to_string()).collect();
    for id in &ids {
        lines += &printed(&place, &[("job-show", &format!("job show {id}"))]);
    }
    lines += &printed(&place, &[("explain", &format!("explain {}", ids.join(" ")))]);
    // While one runs, and the store is paused.
    let running = place.stdout("asyncq enqueue slow work");
    let mut processor = place.start("asyncq -q process slow");
    let show = format!("job show {}", running.trim());
    wait_until("the job reports its progress", || place.stdout(&format!("asyncq {show}")).contains("half of it"));
    place.stdout("asyncq -q pause --why 'a deploy'; asyncq -q service pause events --why 'it is down'");
    lines += &printed(
        &place,
        &[("job-show", &show), ("job-list", "job list"), ("status", "status"), ("service-list", "service list")],
    );
    place.stdout("asyncq -q resume; touch go");
    processor.0.wait().unwrap();
    for line in BATCH {
        writeln!(lines, "{}", serde_json::json!(["batch-line", line])).unwrap();
    }
    // What nothing may be as it is, so that this test can fail.
    let wrong = [
        r#"["due", "{}"]"#,
        r#"["batch-line", "{\"service\":\"events\",\"function\":\"work\",\"arg\":1}"]"#,
        r#"["service-list", "[{\"name\":1}]"]"#,
    ];
    let found = compared(&place, &lines);
    assert_eq!(found, "");
    let found = compared(&place, &wrong.join("\n"));
    for expected in [
        "due: $: 'due' is a required property",
        "batch-line: $: Additional properties are not allowed ('arg' was unexpected)",
        "service-list: $[0].name: 1 is not of type 'string'",
        "no output has `id` of `job`",
    ] {
        assert!(found.contains(expected), "{expected} is not in\n{found}");
    }
}

/// What the script says of these lines.
fn compared(place: &Place, lines: &str) -> String {
    place.write("compare.py", include_str!("schema.py"));
    // The interpreter of the system has the package that reads schemas.
    let mut compare = place.command("exec /usr/bin/python3 compare.py").stdin(Stdio::piped()).spawn().unwrap();
    compare.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = compare.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines of a batch that name every member.
const BATCH: [&str; 3] = [
    r#"{"service":"events","function":"work","args":[1],"kwargs":{"a":1},"principal":"zoe","key":"batch","key_until":"ended","if_taken":"keep","site":"/tmp","priority":-5,"at":"2036-01-01T00:00:00Z","expires":"10m","lane":"l","meta":{"a":"b"},"name":"first"}"#,
    r#"{"service":"events","function":"work","in":"10m","after":["first",2],"principal":null,"expires":"2036-01-01T00:00:00Z"}"#,
    r#"{"service":"events","function":"work","hold":true,"after":{"any":["first",1]}}"#,
];

/// The schema knows no less than the program, and no more.
#[test]
fn lines_of_a_batch_are_what_the_schema_says() {
    let place = place();
    let schema: Value = serde_json::from_str(&place.stdout("asyncq schema batch-line")).unwrap();
    let known = schema["$defs"]["call"]["properties"].as_object().unwrap();
    let written: BTreeSet<String> = BATCH
        .iter()
        .flat_map(|line| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap())
        .map(|(name, _)| name)
        .collect();
    assert!(known.keys().eq(&written), "{written:?}");
    place.write("batch", &BATCH.join("\n"));
    place.stdout("asyncq enqueue --batch batch");
}

#[test]
fn each_schema_stands_alone() {
    let place = Place::new();
    let all: Value = serde_json::from_str(&place.stdout("asyncq schema")).unwrap();
    place.session(
        "
        $ asyncq schema due | grep -E '^  \"[$d]'
          \"$defs\": {
          \"$ref\": \"#/$defs/next-task\",
          \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",
          \"description\": \"What `asyncq due --json` prints; nothing if nothing is next.\"
        $ asyncq schema nothing
        ! error: `NAME` cannot be `nothing`: it must be `service-list`[..]
        ! hint: `asyncq schema --help` shows how
        ? 2
        ",
    );
    let help = place.stdout("asyncq schema --help");
    let names = all["$defs"].as_object().unwrap().iter().filter(|(name, _)| help.contains(name.as_str()));
    assert!(names.count() >= 13, "{help}");
}

/// What the schemas said when they were last looked at.
fn kept() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/schema.json"))
}

#[test]
fn schemas_change_by_additions_only() {
    let current: Value = serde_json::from_str(&Place::new().stdout("asyncq schema")).unwrap();
    let before: Value = serde_json::from_str(&fs::read_to_string(kept()).unwrap_or("{}".to_owned())).unwrap();
    let mut broken = Vec::new();
    broken_promises("", (&before, &current), false, &mut broken);
    assert_eq!(broken, [""; 0], "programs rely on that");
    if before != current {
        fs::write(kept(), serde_json::to_string_pretty(&current).unwrap() + "\n").unwrap();
        panic!("tests/cli/schema.json was not current; it is now: look at it and commit it");
    }
}

/// Where the second schema breaks what the first one promised to programs that read outputs, or that write `input`.
fn broken_promises(path: &str, (before, now): (&Value, &Value), input: bool, broken: &mut Vec<String>) {
    let input = input || path == "/$defs/call" || path.starts_with("/$defs/manifest");
    let set = |value: &Value| -> BTreeSet<String> {
        match value {
            Value::Array(items) => items.iter().map(ToString::to_string).collect(),
            Value::Null => BTreeSet::new(),
            one => [one.to_string()].into(),
        }
    };
    match (before, now) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                let inner = format!("{path}/{name}");
                match (name.as_str(), new.get(name)) {
                    // Texts for people.
                    ("description" | "examples", _) => {}
                    ("type" | "enum", Some(now)) if input => {
                        if !set(now).is_superset(&set(value)) {
                            broken.push(format!("{inner} was {value}, and is {now}"));
                        }
                    }
                    ("required", now) => {
                        let (old, new) = (set(value), set(now.unwrap_or(&Value::Null)));
                        // A program need not write more than before, and reads what was always there.
                        let fits = if input { old.is_superset(&new) } else { new.is_superset(&old) };
                        if !fits {
                            broken.push(format!("{inner} was {old:?}, and is {new:?}"));
                        }
                    }
                    (_, Some(now)) => broken_promises(&inner, (value, now), input, broken),
                    (_, None) => broken.push(format!("{inner} is gone")),
                }
            }
            let more = [
                "type",
                "enum",
                "pattern",
                "minimum",
                "maximum",
                "maxLength",
                "minLength",
                "minItems",
                "not",
                "oneOf",
                "if",
                "dependentRequired",
                "propertyNames",
            ];
            for name in more.into_iter().filter(|name| input && new.contains_key(*name) && !old.contains_key(*name)) {
                broken.push(format!("{path}/{name} is new, and refuses what was right"));
            }
        }
        _ if set(before) == set(now) => {}
        _ => broken.push(format!("{path} was {before}, and is {now}")),
    }
}

#[test]
fn the_test_of_additions_can_fail() {
    let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let all = |before: &str, now: &str| {
        let mut broken = Vec::new();
        broken_promises("/$defs/x", (&schema(before), &schema(now)), false, &mut broken);
        broken_promises("/$defs/call", (&schema(before), &schema(now)), false, &mut broken);
        broken
    };
    let before =
        r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"required":["a"],"description":"b"}"#;
    assert_eq!(all(before, before), [""; 0]);
    for (now, expected) in [
        (
            before.replace("\"a\":{\"type\":[\"string\",\"null\"]}", ""),
            &["x/properties/a is gone", "call/properties/a is gone"][..],
        ),
        (
            before.replace(r#"["string","null"]"#, "\"string\""),
            &["x/properties/a/type was", "call/properties/a/type was"],
        ),
        (before.replace(r#"["string","null"]"#, r#"["string","null","integer"]"#), &["x/properties/a/type was"]),
        (before.replace(r#"["a"]"#, "[]"), &["x/required was"]),
        (before.replace(r#"["a"]"#, r#"["a","c"]"#), &["call/required was"]),
        (before.replace("\"b\"", "\"c\""), &[]),
        (before.replace("{\"a\"", "{\"c\":{\"type\":\"string\"},\"a\""), &[]),
        (before.replace("\"type\":\"object\"", "\"type\":\"object\",\"not\":{}"), &["call/not is new"]),
    ] {
        let found = all(before, &now);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{found:?}");
    }
}
