//! What the documents show is what happens.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::place::Place;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_sessions_of_the_documents_are_true() {
    for document in
        ["README.md", "docs/functions.md", "docs/batches.md", "docs/workers.md", "docs/cron.md", "docs/sql.md"]
    {
        Place::new().document(&read(document));
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
