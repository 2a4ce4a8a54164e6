//! The Python package, as its own tests in this folder see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, RwLock};

/// An interpreter with what the tests use.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = folder.join("bin/python");
    let wanted = fs::read_to_string(here().join("requirements.txt")).unwrap();
    let installed = folder.join("requirements.txt");
    if fs::read_to_string(&installed).ok().as_deref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(&python).args(pip).arg(here().join("requirements.txt")));
        fs::write(&installed, &wanted).unwrap();
    }
    python
});

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{command:?}: {}\n{out}{err}", done.status);
    print!("{out}");
}

/// Building a wheel replaces the program, with which all others work.
static PROGRAM: RwLock<()> = RwLock::new(());

/// Runs the tests of one file.
fn passes(file: &str) {
    let _others = PROGRAM.read();
    passes_with(&PYTHON, file);
}

fn passes_with(python: &Path, file: &str) {
    let mut command = Command::new(python);
    command.args(["-W", "error::ResourceWarning", "-m", "unittest", "--quiet", file]).current_dir(here());
    command.env("PYTHONPATH", here().join("../../python").canonicalize().unwrap());
    let program = Path::new(env!("CARGO_BIN_EXE_asyncq"));
    // Where Cargo builds, for the test that builds a wheel.
    let target = program.ancestors().nth(2).unwrap();
    command.env("ASYNCQ_BIN", program).env("ASYNCQ_TARGET", target).env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command);
}

#[test]
fn every_file_of_tests_is_run() {
    let mut files: Vec<String> = fs::read_dir(here())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".py").map(str::to_owned))
        .filter(|name| name.starts_with("test_"))
        .collect();
    files.sort();
    let source = fs::read_to_string(here().join("main.rs")).unwrap();
    files.retain(|name| !source.contains(&format!("passes(\"{name}\")")) && name != "test_wheel");
    assert_eq!(files, [""; 0]);
}

#[test]
fn calls() {
    passes("test_calls");
}

#[test]
fn the_child() {
    passes("test_child");
}

#[test]
fn deployment() {
    passes("test_deployment");
}

#[test]
fn gunicorn() {
    passes("test_gunicorn");
}

#[test]
fn input() {
    passes("test_input");
}

#[test]
fn look() {
    passes("test_look");
}

#[test]
fn process() {
    passes("test_process");
}

#[test]
fn properties() {
    passes("test_properties");
}

#[test]
fn the_document_of_the_original() {
    passes("test_seed");
}

#[test]
fn the_protocol() {
    passes("test_protocol");
}

#[test]
fn schedules() {
    passes("test_schedules");
}

#[test]
fn signature() {
    passes("test_signature");
}

#[test]
fn sql() {
    passes("test_sql");
}

#[test]
fn types() {
    passes("test_types");
}

#[test]
fn wheel() {
    let _alone = PROGRAM.write();
    passes_with(&PYTHON, "test_wheel");
}

#[test]
fn worker() {
    passes("test_worker");
}

/// Later versions of Python do the same, where there are any.
#[test]
fn later_versions() {
    let later = "sys.exit(sys.version_info < (3, 12))";
    let mut found: Vec<PathBuf> = (12..20).map(|minor| PathBuf::from(format!("python3.{minor}"))).collect();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let versions = fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten();
    found.extend(versions.flatten().map(|entry| entry.path().join("bin/python3")));
    for python in found {
        let is_later = Command::new(&python).args(["-c", &format!("import sys; {later}")]).output();
        if is_later.is_ok_and(|done| done.status.success()) {
            let _others = PROGRAM.read();
            for file in [
                "test_calls",
                "test_child",
                "test_input",
                "test_process",
                "test_seed",
                "test_signature",
                "test_sql",
                "test_worker",
            ] {
                passes_with(&python, file);
            }
        }
    }
}
