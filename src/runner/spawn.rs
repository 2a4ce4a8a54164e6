//! Starts the program of a function with its arguments and its environment, and says why it cannot be started.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::{ffi::OsString, fmt::Display, fs::File, os::fd::OwnedFd};

use std::os::unix::{ffi::OsStringExt, process::CommandExt};

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;

use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::env_file::{LARGEST_ENV_FILE, Variables, parse_env_file};
use crate::domain::function::{Args, Inputs, Stdin as Holds};
use crate::domain::job::{Claim, Token};
use crate::domain::{call::Call, json, text::escape_control};
use crate::error::reason;
use crate::runner::{
    StartFailure, StopSwitch, Surroundings, later_file::LaterFile, process::oom_score::Offer,
    process::orphans::WORKER_TOKEN, result_file::ResultFile,
};
use crate::system::{error::in_words, private_file::read_private};

/// The longest argument that Linux passes to a program, in bytes (`MAX_ARG_STRLEN`, execve(2), without the NUL).
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;

/// The program that runs a call.
#[derive(Debug, Clone, Copy)]
pub(in crate::runner) struct Program<'a> {
    pub(in crate::runner) claim: &'a Claim,
    pub(in crate::runner) around: &'a Surroundings,
    /// Its rank for the kernel's out-of-memory killer.
    pub(in crate::runner) offer: Offer,
    /// Ends the wait while the system lacks something.
    pub(in crate::runner) control: &'a StopSwitch,
}

impl Program<'_> {
    /// Starts it for this call alone, in its own process group and its site, with pipes as its stdin, stdout and stderr.
    pub(in crate::runner) fn start(self, result: &ResultFile, later: &LaterFile) -> Result<Child, StartFailure> {
        let claim = self.claim;
        // This is looked up once, so that every try is the same.
        let from_file = self.env_file().map_err(StartFailure::Unable)?;
        let (_, program) = self.command(&from_file).map_err(StartFailure::Unable)?;
        let words = words(claim).map_err(StartFailure::Unfit)?;
        let start = || {
            let (mut command, _) = self.command(&from_file).map_err(|failure| io::Error::other(failure.message))?;
            command.args(&words).envs(variables(claim)).env("ASYNCQ_RESULT", result.path());
            command.env("ASYNCQ_LATER", later.path());
            let reads_call = claim.definition.call_format.stdin() == Holds::Call;
            command.stdin(if reads_call { Stdio::piped() } else { Stdio::null() });
            if !claim.definition.policy.is_merged {
                return self.offer.start(&mut command);
            }
            let (ours, both) = io::pipe()?;
            command.stdout(both.try_clone()?).stderr(both);
            let mut child = self.offer.start(&mut command)?;
            child.stdout = Some(ChildStdout::from(OwnedFd::from(ours)));
            Ok(child)
        };
        self.around.scarcity.wait(self.control, start, |error| match Errno::from_io_error(error) {
            Some(Errno::TOOBIG) if !words.is_empty() => too_many(claim, &words),
            _ => why_not(error, &program, Path::new(claim.site())),
        })
    }

    /// The current variables from the function's file.
    fn env_file(self) -> Result<Variables, Failure> {
        let Some(path) = self.claim.definition.env_file() else { return Ok(Variables::new()) };
        let read = read_private(&path, LARGEST_ENV_FILE);
        read.map_err(|unfit| unfit.what)
            .and_then(|bytes| parse_env_file(&bytes).map_err(|flaw| format!("cannot be used: {flaw}")))
            .map_err(|flaw| Failure::not_found(format!("its environment file `{}` {flaw}", path.display())))
    }

    /// The command without the parts of a call, with these variables, and the path of the program.
    fn command(self, variables: &Variables) -> Result<(Command, PathBuf), Failure> {
        let (site, definition) = (Path::new(self.claim.site()), &self.claim.definition);
        let Some((program, first)) = definition.command.split_first() else {
            return Err(Failure::not_found("the function has no program"));
        };
        // The path has no `.` components, so that messages show a short path.
        let program: PathBuf = site.join(program).components().collect();
        let mut command = Command::new(&program);
        command.args(first).current_dir(site);
        for (name, value) in &self.around.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // They name the folder in which the processor was started.
        command.env_remove("OLDPWD");
        command.envs(variables.iter().map(|(name, value)| (name, OsString::from_vec(value.clone()))));
        command.envs(&definition.env).env("PWD", site);
        command.env("ASYNCQ_DB", &self.around.store).env("ASYNCQ_SITE", site);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Ok((command, program))
    }

    /// Starts it as a worker, with `channel` as its descriptor 3.
    pub(in crate::runner) fn start_worker(self, token: &Token, channel: OwnedFd) -> Result<Child, StartFailure> {
        let from_file = self.env_file().map_err(StartFailure::Unable)?;
        let (mut command, program) = self.command(&from_file).map_err(StartFailure::Unable)?;
        command.env("ASYNCQ_WORKER", WORKER_CHANNEL.to_string()).env("ASYNCQ_TOKEN", token.as_str());
        if !self.around.in_worker {
            command.env(WORKER_TOKEN, token.as_str());
        }
        command.stdin(Stdio::null());
        let cannot = |error: &io::Error| why_not(error, &program, Path::new(self.claim.site()));
        let mapping = FdMapping { parent_fd: channel, child_fd: WORKER_CHANNEL };
        let mapped = command.fd_mappings(vec![mapping]).map_err(io::Error::other);
        mapped.map_err(|error| StartFailure::Unable(cannot(&error)))?;
        self.around.scarcity.wait(self.control, || self.offer.start(&mut command), cannot)
    }
}

/// The descriptor at which a worker finds its channel.
const WORKER_CHANNEL: i32 = 3;

fn variables(claim: &Claim) -> Vec<(&'static str, String)> {
    let call = &claim.call;
    let mut variables = vec![
        ("ASYNCQ_JOB", claim.fence.job.to_string()),
        ("ASYNCQ_ATTEMPT", claim.fence.attempt.to_string()),
        ("ASYNCQ_SERVICE", call.service.to_string()),
        ("ASYNCQ_FUNCTION", call.function.to_string()),
        ("ASYNCQ_TOKEN", claim.token.as_str().to_owned()),
    ];
    if let Some(principal) = &call.principal {
        variables.push(("ASYNCQ_PRINCIPAL", principal.to_string()));
    }
    if let Some(meta) = &claim.meta {
        variables.push(("ASYNCQ_META", meta.as_str().to_owned()));
        variables.extend(meta.traceparent().map(|trace| ("TRACEPARENT", trace)));
    }
    if let Some(tick) = &claim.tick {
        variables.push(("ASYNCQ_SCHEDULE", tick.name.clone()));
        variables.push(("ASYNCQ_TICK", tick.tick.clone()));
        variables.push(("ASYNCQ_MISSED", tick.missed.to_string()));
    }
    variables
}

/// The arguments of a call as words, if its function takes words. Every user of the machine can read a command line, so it has no
/// secret.
fn words(claim: &Claim) -> Result<Vec<String>, Failure> {
    if claim.definition.call_format.args() == Args::Stdin {
        return Ok(Vec::new());
    }
    let text = |value: &str| match json::unquote(value) {
        Some(text) => text.into_owned(),
        None => json::compact(value),
    };
    let (mut words, Inputs { takes, secret, .. }) = (Vec::new(), &claim.definition.inputs);
    for (index, value) in claim.call.args.elements().into_iter().enumerate() {
        if secret.hides_at(index, takes.as_ref()) {
            continue;
        }
        words.push(word(claim, &(index + 1), text(value))?);
    }
    for (name, value) in claim.call.kwargs.entries() {
        if secret.hides_named(&name, takes.as_ref()) {
            continue;
        }
        words.push(word(claim, &format_args!("`{}`", escape_control(&name)), format!("--{name}={}", text(value)))?);
    }
    Ok(words)
}

/// A word that can stand on a command line.
fn word(claim: &Claim, which: &impl Display, word: String) -> Result<String, Failure> {
    if word.len() <= LONGEST_ARGUMENT {
        return Ok(word);
    }
    let size = word.len();
    let what = format!("its argument {which} is a word of {size} bytes, and one may have at most {LONGEST_ARGUMENT}");
    Err(does_not_fit(claim, &what))
}

fn too_many(claim: &Claim, words: &[String]) -> Failure {
    // For each of them, the kernel counts a NUL at its end and a pointer to it (execve(2)).
    let (count, size) = (words.len(), words.iter().map(|word| word.len() + 1 + size_of::<usize>()).sum::<usize>());
    does_not_fit(claim, &format!("its {count} arguments take {size} bytes of a command line, more than it may have"))
}

/// The failure of a call whose arguments do not fit as words, with the way out.
fn does_not_fit(claim: &Claim, what: &str) -> Failure {
    let Call { service, function, .. } = &claim.call;
    let hint =
        format!("`asyncq function set {service} {function} --args stdin` passes the call on standard input alone");
    Failure::new(FailureKind::CannotRun, format!("{what}; {hint}"))
}

/// The message for a program whose interpreter is missing.
fn no_interpreter(program: &Path) -> String {
    let shown = program.display();
    let mut start = Vec::new();
    // The kernel reads this much of it.
    let read = File::open(program).and_then(|file| file.take(256).read_to_end(&mut start));
    let first = start.split(|byte| *byte == b'\n').next().and_then(|line| line.strip_prefix(b"#!"));
    let Some(first) = first.filter(|_| read.is_ok()) else {
        return format!("the loader that `{shown}` names is missing: it was built for another system");
    };
    let named = String::from_utf8_lossy(first.trim_ascii_start()).into_owned();
    let name = named.split([' ', '\t']).next().unwrap_or_default();
    let mut said =
        format!("the interpreter `{}` that `{shown}` names in its first line is missing", escape_control(name));
    if named.ends_with('\r') {
        said += &format!("; its lines end as on Windows, `sed -i 's/\\r$//' {shown}` mends that");
    }
    said
}

fn why_not(error: &io::Error, program: &Path, site: &Path) -> Failure {
    let program: &Path = &program.components().collect::<PathBuf>();
    let shown = program.display();
    match site.metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Failure::not_found(format!("its site `{}` is no longer a directory", site.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Failure::not_found(format!("its site `{}` is gone", site.display()));
        }
        Err(error) => {
            return Failure::not_executable(format!(
                "its site `{}` cannot be entered: {}",
                site.display(),
                reason(&error)
            ));
        }
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) if program.exists() => Failure::not_found(no_interpreter(program)),
        Some(Errno::NOENT) => Failure::not_found(format!("its program `{shown}` is gone")),
        Some(Errno::ACCESS) => Failure::not_executable(format!("its program `{shown}` is not executable")),
        Some(Errno::NOEXEC) => Failure::not_executable(format!(
            "its program `{shown}` is neither a binary nor a script that begins with `#!`"
        )),
        Some(Errno::TOOBIG) => Failure::not_executable(format!(
            "its program `{shown}` cannot be started: its command and its environment are too long"
        )),
        Some(Errno::TXTBSY) => Failure::not_executable(format!("its program `{shown}` is being written")),
        _ => Failure::not_executable(format!("its program `{shown}` cannot be started: {}", in_words(error))),
    }
}
