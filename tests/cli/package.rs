//! What `.ci/package` puts into packages, as far as a moment shows it. That script itself builds, installs and tries them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::place::Place;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Runs the check of the C library that a program needs.
fn needs_at_most(version: &str, program: &str) -> (bool, String) {
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/glibc");
    let output = Command::new("sh").args([check, version, program]).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_program_that_needs_a_newer_library_is_noticed() {
    let program = env!("CARGO_BIN_EXE_asyncq");
    let (fits, why) = needs_at_most("99.9", program);
    assert!(fits, "{why}");
    // By numbers: 2.9 is older than 2.31.
    for version in ["2.3", "2.9"] {
        let (fits, why) = needs_at_most(version, program);
        assert!(!fits && why.contains(&format!("and at most GLIBC_{version} is allowed")), "{why}");
    }
    let (fits, why) = needs_at_most("99.9", file!());
    assert!(!fits && why.contains("this check is broken"), "{why}");
}

/// The script looks for these files, the page tells of them, and the package takes the folders that they are in.
#[test]
fn the_package_has_what_the_page_says() {
    let (script, page, manifest) = (read(".ci/try-package"), read("docs/install.md"), read("Cargo.toml"));
    let list = script.split("for file in ").nth(1).unwrap().split("; do").next().unwrap();
    let files: Vec<&str> = list.split_whitespace().filter(|word| *word != "\\").collect();
    assert!(files.len() >= 8, "{files:?}");
    let folders = ["bin/", "share/", "lib/systemd/system/"];
    assert!(folders.iter().all(|folder| manifest.contains(&format!("dest = \"usr/{folder}\""))));
    for file in files {
        assert!(folders.iter().any(|folder| file.starts_with(folder)), "{file}");
        // Of many man pages, the page names the first.
        let named = page.contains(&format!("/usr/{file}")) || file.contains("asyncq-job");
        assert!(named, "docs/install.md does not name /usr/{file}");
    }
}

#[test]
fn scripts_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place::new();
    for (reader, script) in
        [("sh -n", "package"), ("sh -n", "try-package"), ("sh -n", "glibc"), ("python3 -m py_compile", "session")]
    {
        fs::copy(root.join(".ci").join(script), place.at(script)).unwrap();
        place.stdout(&format!("{reader} {script}"));
    }
}

/// The script that plays the sessions of a document sees what is not so.
#[test]
fn a_session_is_played_where_asyncq_is_installed() {
    let place = Place::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/session");
    place.write(
        "session.md",
        "```console\n$ echo 1\n1\n```\n```console\n$ cat work\n#!/bin/sh\necho a b\n$ ./work\na [..]\n```\n",
    );
    place.write("wrong.md", "```console\n$ echo 1\n2\n```\n");
    let played = place.stdout(&format!("python3 {script} session.md 1 2 . sh -c"));
    assert!(played.ends_with("$ ./work\na b\n3 commands did what session.md says\n"), "{played}");
    for (arguments, expected) in [("wrong.md 1 1", "expected:\n2"), ("session.md 3 3", "there is no session")] {
        let output = place.run(&format!("python3 {script} {arguments} . sh -c"));
        assert!(!output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    }
}

/// Where systemd is, it reads the unit.
#[test]
fn the_unit_is_one() {
    let place = Place::new();
    let unit = read("examples/asyncq.service");
    let script = read(".ci/package");
    assert!(unit.contains("\nUser=") && unit.contains("/usr/local/bin/asyncq ") && unit.contains("\nDescription="));
    assert!(script.contains("s/^User=.*/User=%i/"));
    let unit = unit.replace("User=shop", "User=%i").replace("/usr/local/bin/asyncq", env!("CARGO_BIN_EXE_asyncq"));
    place.write("asyncq@.service", &unit);
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    place.session("$ systemd-analyze verify ./asyncq@root.service 2>&1");
    place.write("asyncq@.service", &unit.replace("ExecStart=", "ExecStat="));
    let output = place.run("systemd-analyze verify ./asyncq@root.service 2>&1");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ExecStat"), "{output:?}");
}
