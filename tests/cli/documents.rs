//! What the documents show is what happens.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::place::Place;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_sessions_of_the_documents_are_true() {
    for document in [
        "README.md",
        "docs/functions.md",
        "docs/backup.md",
        "docs/batches.md",
        "docs/delays.md",
        "docs/limits.md",
        "docs/chains.md",
        "docs/retries.md",
        "docs/workers.md",
        "docs/cron.md",
        "docs/sql.md",
        "docs/python.md",
        "docs/schedules.md",
        "docs/scripting.md",
        "docs/watching.md",
        "docs/for-scripts.md",
        "docs/pauses.md",
        "docs/manifest.md",
        "docs/run.md",
        "docs/keeping.md",
        "docs/coming-from.md",
    ] {
        let mut place = Place::new();
        // The package as a checkout has it, not installed.
        place.set("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/python"));
        place.document(&read(document));
    }
}

/// The first command of the README.
#[test]
fn the_quickstart_does_the_main_job() {
    let program = Path::new(env!("CARGO_BIN_EXE_asyncq")).parent().unwrap().join("examples/quickstart");
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("\n1\n$ asyncq process events\nComputing 2 + 7 = 9\n"), "{text}");
}

/// Packages hold a man page for each command, with all that the reference says of it.
#[test]
fn each_command_has_a_man_page() {
    let (place, reference) = (Place::new(), read("docs/cli.md"));
    let program = Path::new(env!("CARGO_BIN_EXE_asyncq")).parent().unwrap().join("examples/man_pages");
    let status = Command::new(program).arg(place.at("man")).env("SOURCE_DATE_EPOCH", "1700000000").status().unwrap();
    assert!(status.success());
    let complaints = place.run("mandoc -T lint man/*.1");
    assert!(complaints.status.success() && complaints.stdout.is_empty(), "{complaints:?}");
    let sections: Vec<(&str, &str)> =
        reference.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    assert_eq!(fs::read_dir(place.at("man")).unwrap().count(), sections.len());
    assert!(sections.len() > 40, "only {} commands", sections.len());
    for (name, help) in sections {
        let page = place.stdout(&format!("mandoc -T utf8 man/{}.1 | col -b", name.replace(' ', "-")));
        assert!(page.contains("2023-11-14") && page.contains("SYNOPSIS"), "{page}");
        let options = help.split_whitespace().filter(|word| word.starts_with("--"));
        for option in options.map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())) {
            let is_common = option == "--help" && !page.contains(option);
            assert!(is_common || page.contains(option), "the page of {name} has no {option}\n{page}");
        }
    }
}

/// The lines that a picture of a session shows, without its colours.
fn shown(picture: &str) -> Vec<String> {
    let lines = picture.lines().filter(|line| line.starts_with("<text "));
    let without_tags = |line: &str| -> String {
        line.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
    };
    lines.map(|line| without_tags(line).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).collect()
}

/// A line without its times, which are other ones on a slow machine, and without the spaces that depend on them.
fn without_times(line: &str) -> String {
    let is_time = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        word == "now" || unit != word && ["ms", "s"].contains(&unit.trim_end_matches([':', ';']))
    };
    let words = line.split_whitespace().map(|word| if is_time(word) { "TIME" } else { word });
    words.collect::<Vec<_>>().join(" ").replace("TIME ago", "TIME")
}

fn same_session(kept: &str, current: &str) -> bool {
    let text = |picture| shown(picture).iter().map(|line| without_times(line)).collect::<Vec<_>>();
    text(kept) == text(current)
}

/// The picture in the README.
#[test]
fn the_picture_of_a_session_is_what_asyncq_prints() {
    let program = Path::new(env!("CARGO_BIN_EXE_asyncq")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/session.py");
    let drawn = Command::new("python3").arg(script).env("PATH", path).stderr(Stdio::inherit()).output().unwrap();
    assert!(drawn.status.success());
    let (kept, current) = (read("docs/session.svg"), String::from_utf8(drawn.stdout).unwrap());
    let text = shown(&current).join("\n");
    assert!(text.contains("$ asyncq process") && text.contains("failed job 2"), "nothing was recorded: {text}");
    assert!(same_session(&kept, &current), "draw docs/session.svg anew: docs/session.py says how\n{text}");
}

#[test]
fn the_test_of_the_picture_can_fail() {
    let line = |text: &str| format!("<text x=\"1\"><tspan class=\"output\">{text}</tspan></text>\n");
    assert_eq!(shown(&line("a &lt;b&gt; &amp;</tspan><tspan class=\"red\">c")), ["a <b> &c"]);
    assert!(same_session(&line("completed  now"), &line("completed  2s ago")));
    assert!(!same_session(&line("completed  now"), &line("error  now")));
    assert!(!same_session(&line("1"), &line("2")));
    assert!(!same_session(&line("a"), &(line("a") + &line("b"))));
}
