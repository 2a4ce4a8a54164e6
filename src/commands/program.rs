//! Finds the program of a function by what somebody typed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::caller::Caller;
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};

/// Where something is typed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Here<'a> {
    /// The working directory, as the shell shows it.
    pub(super) folder: &'a Path,
    pub(super) caller: &'a Caller,
}

/// A bare name is looked up now and recorded as an absolute path, because cron has another `PATH`. A path with a slash stays as it
/// is, relative to the site.
pub(super) fn find_program(program: &str, site: &str, here: Here<'_>) -> Result<String> {
    let name_one = "name a program, then its first arguments, as in `-- /usr/bin/python3 job.py`";
    if program.is_empty() {
        return Err(Error::new(Kind::Usage, "a program needs a name").with_hint(name_one));
    }
    if program.contains('/') {
        let path: PathBuf = Path::new(site).join(program).components().collect();
        return match runnable(&path) {
            Runnable::Yes => Ok(program.to_owned()),
            Runnable::No => Err(not_executable(&path)),
            Runnable::Missing if for_shell(program).is_some() => Err(no_shell(program)),
            Runnable::Missing => Err(Error::new(Kind::NotFound, format!("there is no program `{}`", path.display()))
                .with_hint("a path with a slash is relative to the site of the function")),
        };
    }
    let path = here.caller.raw_variable("PATH").unwrap_or_default();
    let mut refused = None;
    for entry in std::env::split_paths(path) {
        let found = here.folder.join(entry).join(program);
        match (runnable(&found), found.into_os_string().into_string()) {
            (Runnable::Yes, Ok(text)) => return Ok(text),
            (Runnable::No, Ok(text)) => refused = refused.or(Some(text)),
            _ => {}
        }
    }
    if let Some(refused) = refused {
        return Err(not_executable(Path::new(&refused)));
    }
    if for_shell(program).is_some() {
        return Err(no_shell(program));
    }
    let error = Error::new(Kind::NotFound, format!("there is no program `{}` in `$PATH`", escape_control(program)));
    Err(if matches!(runnable(&Path::new(site).join(program)), Runnable::Yes | Runnable::No) {
        error.with_hint(format!("did you mean `./{program}`?"))
    } else {
        error.with_hint(name_one)
    })
}

/// Whether a shell would know the name of this missing program.
pub(super) fn is_for_shell(program: &str) -> bool {
    for_shell(program).is_some()
}

/// The hint for a missing program that a shell would know.
fn for_shell(program: &str) -> Option<String> {
    const BUILT_IN: [&str; 14] = [
        ".", "cd", "eval", "exec", "export", "for", "if", "read", "set", "source", "ulimit", "umask", "unset", "while",
    ];
    if let Some((name, value)) = program.split_once('=')
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    {
        return Some(format!("there is no shell in between; `--env {name}={}` sets a variable", escape_control(value)));
    }
    if BUILT_IN.contains(&program) {
        return Some(format!("there is no shell in between; name one, as in `-- sh -c '{program} ...'`"));
    }
    let is_line = program.contains(|c: char| c.is_whitespace() || "|&;<>()$`*?\"'".contains(c));
    let quoted = program.replace('\'', r"'\''");
    is_line.then(|| format!("there is no shell in between; name one: `-- sh -c '{}'`", escape_control(&quoted)))
}

fn no_shell(program: &str) -> Error {
    let error = Error::new(Kind::NotFound, format!("there is no program `{}`", escape_control(program)));
    match for_shell(program) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Whether a path leads to a program.
pub(super) fn is_program(path: &Path) -> bool {
    matches!(runnable(path), Runnable::Yes)
}

enum Runnable {
    Yes,
    No,
    Missing,
}

fn runnable(path: &Path) -> Runnable {
    match path.metadata() {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Runnable::Yes,
        Ok(_) => Runnable::No,
        Err(_) => Runnable::Missing,
    }
}

fn not_executable(path: &Path) -> Error {
    let shown: PathBuf = path.into();
    let error = Error::new(Kind::Denied, format!("`{}` is not executable", shown.display()));
    if shown.is_dir() {
        return error.with_hint("it is a directory; name a program");
    }
    error.with_hint(format!("`chmod +x {}` makes it so", shown.display()))
}
