//! The JSON Schema of the manifest, held to what `asyncq apply` takes and refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::{fs, io::Write as _};

use serde_json::{Value, json};

use crate::place::Place;

/// What a table says that is right. Together they have every key of its kind.
const RIGHT: &[(&str, &[&str])] = &[
    (
        "service",
        &[
            "",
            "concurrency = 4294967295\nlane_width = 1000\nrate = '10/s'\nburst = 1_000_000\nkeep = '30d'\nkeep_errors = 'forever'",
            "concurrency = 0x10\nrate = 'none'\npaused = true",
            "paused = 'it is down'\non_error = 'a/f'\non_success = 'a/f'",
            "paused = false",
        ],
    ),
    (
        "function",
        &[
            "",
            "site = '.'\nenv = { A = 'b', 'ä b' = '', HOME = true }\ntimeout = '90s'",
            "worker = true\nlocal = true\nmerge = false",
            "worker = false\nmerge = true\nargs = 'stdin'\nstdin = 'call'",
            "worker = { calls_per_worker = 9223372036854775807, idle = '5m', memory_growth = '100M' }",
            "worker = {}\nlocal = false",
            "args = 'words'\nstdin = 'none'",
            "retries = 0\nbackoff = '15s..1h'\nretry_on = '1,64-78,timeout'\nno_retry_on = [64, '70-79', 'timeout']",
            "conflicts = 1\nlane = 'l'\ntakes = '[job] [b:int] [--c] [--more...]'\non_error = 'a/f'\non_success = 'a/f'",
            "takes = ''\nsecret = []\nenv_file = 'e.env'",
            "takes = 'a [b:int] [--c]'\nsecret = ['a', '2', '--c']",
        ],
    ),
    (
        "schedule",
        &[
            "every = '90s'\nargs = []\nkwargs = {}\nmeta = {}",
            "cron = '30 2 * * *'\nargs = [1, 1.5, 'a', [], {}]\nkwargs = { a = 1 }\nmeta = { tenant = 'acme' }",
            "cron = '@daily'\ntz = 'Europe/Berlin'\nargs = '[null]'\nkwargs = '{\"a\": null}'\nmeta = '{}'",
            "every = '90s'\nprincipal = 'zoe'\nsite = '.'\npriority = -1000\nlane = 'l'\nexpires = '1h'\ndescription = ''",
            "every = '90s'\nmissed = 'all'\noverlap = 'allow'\nwithin = '1h'\npaused = true",
            "every = '90s'\nmissed = 'skip'\noverlap = 'queue'\npaused = false\nfrom = 2036-12-01T09:00:00\nuntil = '2037-01-01'",
            "every = '90s'\nmissed = 'once'\noverlap = 'skip'\nfrom = 2036-12-01\npriority = 1000",
        ],
    ),
];

/// What a table says that is wrong, so that a schema can see it.
const WRONG: &[(&str, &[&str])] = &[
    (
        "service",
        &[
            "concurrency = 0",
            "concurrency = 4294967296",
            "concurrency = 1.5",
            "concurrency = '2'",
            "lane_width = 1001",
            "rate = 10",
            "burst = 3",
            "rate = '10/s'\nburst = 1000001",
            "keep = 30",
            "on_error = 'f'",
            "on_success = 'A/f'",
            "paused = 1",
            "limit = 3",
        ],
    ),
    (
        "function",
        &[
            "site = 7",
            "env = ['A=b']",
            "env = { A = false }",
            "env = { A = 7 }",
            "env = { ASYNCQ_DB = 'x' }",
            "env = { 'A=B' = 'x' }",
            "timeout = 30",
            "worker = 1",
            "worker = { calls_per_worker = 0 }",
            "worker = { idle = 5 }",
            "worker = { calls = 5 }",
            "worker = true\nmerge = true",
            "worker = {}\nargs = 'words'",
            "worker = true\nstdin = 'call'",
            "args = 'both'",
            "stdin = 'words'",
            "args = 'stdin'\nstdin = 'none'",
            "takes = ['a']",
            "secret = 'a'",
            "secret = [1]",
            "secret = ['']",
            "env_file = ''",
            "retries = -1",
            "retries = '5'",
            "backoff = '15s'",
            "retry_on = [64]",
            "no_retry_on = '64'",
            "retries = 1\nretry_on = []",
            "retries = 1\nretry_on = [1.5]",
            "retries = 1\nno_retry_on = 64",
            "retries = 1\nno_retry_on = [256]",
            "retries = 1\nno_retry_on = [0]",
            "conflicts = 0",
            "lane = ''",
            "local = 'yes'",
            "merge = 1",
            "on_error = 'a/'",
            "comand = []",
        ],
    ),
    (
        "schedule",
        &[
            "",
            "every = '90s'\ncron = '30 2 * * *'",
            "every = '90s'\ntz = 'Europe/Berlin'",
            "every = 90",
            "cron = ['30 2 * * *']",
            "every = '90s'\nargs = {}",
            "every = '90s'\nkwargs = []",
            "every = '90s'\nmeta = 7",
            "every = '90s'\nprincipal = ''",
            "every = '90s'\nsite = ''",
            "every = '90s'\npriority = 1001",
            "every = '90s'\nexpires = 60",
            "every = '90s'\nmissed = 'twice'",
            "every = '90s'\noverlap = 'all'",
            "every = '90s'\nmissed = 'all'\noverlap = 'skip'",
            "every = '90s'\npaused = 'why'",
            "every = '90s'\nfrom = 7",
            "every = '90s'\nfunction = 'a/f'",
        ],
    ),
];

/// Files that are wrong as a whole.
const WRONG_FILES: &[&str] = &[
    "",
    "services = {}",
    "service = 'a'",
    "[[service]]\nname = 'a'",
    "service.a = 2",
    "[service.A]",
    "[service.a]\n[function.f]\ncommand = ['cat']",
    "[service.a]\n[function.'a/1']\ncommand = ['cat']",
    "[service.a]\n[function.'a/f']",
    "[service.a]\n[function.'a/f']\ncommand = []",
    "[service.a]\n[function.'a/f']\ncommand = 'cat'",
    "[service.a]\n[function.'a/f']\ncommand = ['cat', 1]",
    "[service.a]\n[schedule.s]\nevery = '90s'",
    "[service.a]\n[schedule.'s/t']\ncall = 'a/f'\nevery = '90s'",
];

/// A manifest in which the table of this kind says this.
fn manifest(kind: &str, says: &str) -> String {
    let table = |table: &str, always: &str| {
        let says = if table == kind { says } else { "" };
        let name = if table == "function" { "'a/f'" } else { "a" };
        format!("[{table}.{name}]\n{always}\n{says}\n")
    };
    let schedule = if kind == "schedule" { table("schedule", "call = 'a/f'") } else { String::new() };
    table("service", "") + &table("function", "command = ['cat']") + &schedule
}

fn manifests(tables: &[(&str, &[&str])]) -> Vec<String> {
    tables.iter().flat_map(|(kind, all)| all.iter().map(|says| manifest(kind, says))).collect()
}

/// What the schema says of each of these manifests; nothing if it takes it.
fn judged(place: &Place, manifests: &[String]) -> Vec<String> {
    place.write("manifest.py", include_str!("manifest.py"));
    // The interpreter of the system has the package that reads schemas.
    let mut script = place.command("exec /usr/bin/python3 manifest.py").stdin(Stdio::piped()).spawn().unwrap();
    script.stdin.take().unwrap().write_all(json!(manifests).to_string().as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What `asyncq apply` says of a manifest; nothing if it takes it.
fn applied(place: &Place, manifest: &str) -> String {
    place.write("deploy.toml", manifest);
    let output = place.run("asyncq apply deploy.toml --dry-run");
    let is_taken = output.status.code() == Some(1) && output.stderr.is_empty();
    if is_taken { String::new() } else { String::from_utf8(output.stderr).unwrap() }
}

#[test]
fn the_schema_takes_what_apply_takes() {
    let place = Place::new();
    let right = manifests(RIGHT);
    let judged = judged(&place, &right);
    assert_eq!(judged.len(), right.len());
    for (manifest, judged) in right.iter().zip(judged) {
        assert_eq!((applied(&place, manifest), judged), (String::new(), String::new()), "{manifest}");
    }
}

#[test]
fn the_schema_takes_the_manifests_of_the_documents() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let pages = read("README.md") + &read("docs/manifest.md");
    let shown = pages.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    let shown: Vec<String> = shown.collect();
    assert!(!shown.is_empty());
    assert_eq!(judged(&Place::new(), &shown), vec![""; shown.len()]);
}

#[test]
fn the_schema_refuses_what_apply_refuses() {
    let place = Place::new();
    let wrong: Vec<String> =
        manifests(WRONG).into_iter().chain(WRONG_FILES.iter().map(|&file| file.to_owned())).collect();
    let judged = judged(&place, &wrong);
    assert_eq!(judged.len(), wrong.len());
    for (manifest, judged) in wrong.iter().zip(judged) {
        assert_ne!(judged, "", "the schema takes {manifest}");
        assert_ne!(applied(&place, manifest), "", "apply takes {manifest}");
    }
}

/// A key that the parser knows is in the schema and in a manifest above, and the other way round.
#[test]
fn the_schema_has_the_keys_that_apply_knows() {
    let place = Place::new();
    let schema: Value = serde_json::from_str(&place.stdout("asyncq schema manifest")).unwrap();
    let properties = |of: &Value| of["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (kind, all) in RIGHT {
        let keys = all.iter().flat_map(|says| says.lines()).filter_map(|line| line.split_once(" = "));
        used.entry(kind).or_default().extend(keys.map(|(key, _)| key.to_owned()));
    }
    used.get_mut("function").unwrap().insert("command".to_owned());
    used.get_mut("schedule").unwrap().insert("call".to_owned());
    for (kind, unknown) in [
        ("", "qqqqqqqqqqqqqqqq = 1\n".to_owned()),
        ("service", manifest("service", "qqqqqqqqqqqqqqqq = 1")),
        ("function", manifest("function", "qqqqqqqqqqqqqqqq = 1")),
        ("worker", manifest("function", "worker = { qqqqqqqqqqqqqqqq = 1 }")),
        ("schedule", manifest("schedule", "qqqqqqqqqqqqqqqq = 1")),
    ] {
        let said = applied(&place, &unknown);
        let known = said.split_once("hint: known are ").unwrap_or_else(|| panic!("{kind}: {said}")).1;
        let known: BTreeSet<String> = known.trim_end().split(", ").map(str::to_owned).collect();
        let own = if kind.is_empty() { &schema } else { &schema["$defs"][format!("manifest-{kind}")] };
        assert_eq!(properties(own), known, "{kind}");
        if let Some(used) = used.get(kind) {
            assert_eq!(*used, known, "{kind}");
        }
    }
}
