//! What the suites of asyncq have in common: places to type commands in, and stores with something in them.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

pub mod fixture;
mod jobs;
pub mod place;
pub mod rules;

/// The program under test, which cargo builds for the suite that runs now.
///
/// Cargo names it to the tests that it starts. A suite that you start yourself finds it where cargo puts it by default.
pub fn asyncq() -> PathBuf {
    let named = std::env::var_os("CARGO_BIN_EXE_asyncq").map(PathBuf::from);
    let program = named.unwrap_or_else(|| {
        let suite = std::env::current_exe().unwrap();
        suite.parent().and_then(|deps| deps.parent()).unwrap().join("asyncq")
    });
    assert!(program.is_file(), "{} is not built: run this suite with `cargo test`", program.display());
    program
}
