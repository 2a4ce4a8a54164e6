//! The main job from beginning to end, as a shell session: `cargo run --release --example quickstart`.
//!
//! Everything happens in a temporary folder, which is removed at the end.

use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};

const SESSION: &[&str] = &[
    "asyncq service add events",
    r#"asyncq function add events heavy_computing -- sh -c 'echo "Computing $1 + $2 = $(($1 + $2))"' sh"#,
    "asyncq enqueue events heavy_computing 2 7",
    "asyncq process events",
    "asyncq job list",
];

fn main() -> anyhow::Result<ExitCode> {
    // Called by its other name, this program is the `asyncq` command of the session.
    if env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("asyncq")) {
        return Ok(asyncq::main());
    }
    let folder = tempfile::tempdir()?;
    symlink(env::current_exe()?, folder.path().join("asyncq"))?;
    let path = format!("{}:{}", folder.path().display(), env::var("PATH").unwrap_or_default());
    for line in SESSION {
        println!("$ {line}");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", line])
            .current_dir(&folder)
            .env("PATH", &path)
            .env("ASYNCQ_DB", folder.path().join("queue.db"));
        if !shell.status()?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
