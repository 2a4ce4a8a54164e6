//! Sessions that read like a shell's.
//!
//! ```text
//! $ asyncq enqueue events heavy_computng 2 7
//! ! error: service `events` has no function `heavy_computng`
//! ! hint: did you mean `heavy_computing`? `asyncq function list events` shows all
//! ? 66
//! ```
//! A line with `$` is run by `sh`, in an empty directory that is also the home; lines with `>` continue it. What follows
//! is everything that it prints: lines with `!` to stderr, the others to stdout, and with `?` the exit code if it is not 0.
//! `[..]` stands for any text within a line, a line of `...` for any lines.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// With what a worker begins that a test writes, in Python.
pub const WORKER: &str = concat!(include_str!("speak.py"), include_str!("worker.py"));

/// With what a host begins, a program that drains into itself.
pub const HOST: &str = concat!(include_str!("speak.py"), include_str!("host.py"));

/// A command of shell with which a function completes its job itself, as in a transaction of its application.
pub const COMPLETES: &str = "sqlite3 -cmd '.timeout 20000' \"$ASYNCQ_DB\" \"UPDATE asyncq_job SET state = 'completed'
    WHERE id = $ASYNCQ_JOB AND attempt = $ASYNCQ_ATTEMPT AND token = '$ASYNCQ_TOKEN' AND state = 'processing'\"";

/// An empty directory with a user in it.
pub struct Place {
    folder: TempDir,
    env: Vec<(String, String)>,
}

impl Default for Place {
    fn default() -> Place {
        Place { folder: tempfile::tempdir().unwrap(), env: Vec::new() }
    }
}

impl Place {
    /// An empty directory, and an environment with nothing in it but `PATH` and `HOME`.
    pub fn new() -> Place {
        Place::default()
    }

    /// A place with the service `events` and functions on it, each a shell script.
    pub fn with_functions(functions: &[(&str, &str)]) -> Place {
        let place = Place::new();
        place.session("$ asyncq -q service add events");
        for (name, script) in functions {
            place.function(name, "", script);
        }
        place
    }

    /// Adds a shell script as a function of the service `events`.
    pub fn function(&self, name: &str, options: &str, script: &str) {
        self.program(name, &format!("#!/bin/sh\n{script}\n"));
        self.session(&format!("$ asyncq function add events {name} {options} -- ./{name}"));
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a file in the directory, absolute.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The default place of the store.
    pub fn store(&self) -> PathBuf {
        self.at(".local/share/asyncq/queue.db")
    }

    /// What is in a file; nothing if it is not there.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// Makes a file, or replaces it.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    /// Makes a file that can be run, or replaces it.
    pub fn program(&self, name: &str, text: &str) {
        self.write(name, text);
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Sets a variable for all commands that follow.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// A shell command here, not started yet.
    pub fn command(&self, line: &str) -> Command {
        let asyncq = crate::asyncq();
        // Whoever runs the tests may ignore signals, as `nohup` does.
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal", "/bin/sh", "-c", line]).current_dir(self.path()).env_clear();
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", asyncq.parent().unwrap().display()));
        command.env("HOME", self.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a shell command to its end.
    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What a command that succeeds prints to stdout.
    pub fn stdout(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a person sees on a terminal that is so many columns wide.
    pub fn on_terminal(&self, columns: u16, line: &str) -> String {
        let command = format!("stty cols {columns}; {line}");
        let shell = self.command("");
        // `script` gives its command a terminal.
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(self.path()).env_clear();
        script.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = script.env("TERM", "xterm").env("SHELL", "/bin/sh").stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that succeeds shows on a terminal.
    pub fn terminal(&self, line: &str) -> String {
        let pty = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', sys.argv[1]])))";
        self.write("on-a-terminal", line);
        self.stdout(&format!("python3 -c \"{pty}\" '. ./on-a-terminal'")).replace("\r\n", "\n")
    }

    /// A single value from the store.
    pub fn query(&self, sql: &str) -> String {
        let store = rusqlite::Connection::open(self.store()).unwrap();
        let value: rusqlite::types::Value = store.query_row(sql, [], |row| row.get(0)).unwrap();
        match value {
            rusqlite::types::Value::Null => "NULL".to_owned(),
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Real(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Blob(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Runs SQL on the store, as another client does.
    pub fn execute(&self, sql: &str) {
        rusqlite::Connection::open(self.store()).unwrap().execute_batch(sql).unwrap();
    }

    /// Enqueues a call of `events` by INSERT, as an application does: columns and values as SQL writes them.
    pub fn insert(&self, columns: &str, values: &str) {
        self.execute(&format!("INSERT INTO asyncq_job (service, {columns}) VALUES ('events', {values})"));
    }

    /// Enqueues calls of a function of `events`, without arguments.
    pub fn enqueue_many(&self, function: &str, count: usize) {
        self.write("many", &format!("{{\"service\":\"events\",\"function\":\"{function}\"}}\n").repeat(count));
        self.stdout("asyncq enqueue --batch many");
    }

    /// Lets the clock go on for one schedule with `--every`, by this many of its ticks.
    pub fn let_ticks_pass(&self, schedule: &str, ticks: i64) {
        let next = format!("next_tick = next_tick - {ticks} * every, last_tick = NULL");
        self.execute(&format!("UPDATE asyncq_schedule SET {next} WHERE name = '{schedule}'"));
    }

    /// How many processors are at work on the store.
    pub fn processors(&self) -> usize {
        self.query("SELECT count(*) FROM asyncq_processor").parse().unwrap()
    }

    /// How many slots of which services processors have taken, as in `events 2, others 1`: a part for each processor.
    pub fn slots(&self) -> String {
        self.query("SELECT COALESCE(group_concat(service || ' ' || taken, ', ' ORDER BY service, processor), '') FROM asyncq_slot")
    }

    /// Starts a shell command, which is killed when this is dropped.
    pub fn start(&self, line: &str) -> Running {
        Running(self.command(&format!("exec {line}")).spawn().unwrap())
    }

    /// Plays the sessions of a document, the blocks marked `console`: there both streams appear as on a terminal, and
    /// exit codes do not. `cat FILE` shows a program that the reader writes, so it is written before. So is a block marked
    /// `python` or `toml` whose first line names its file: `# FILE.py`.
    pub fn document(&mut self, text: &str) {
        for begin in ["```python\n# ", "```toml\n# "] {
            for file in text.split(begin).skip(1).map(|part| part.split("```").next().unwrap()) {
                let (name, content) = file.split_once('\n').unwrap();
                self.write(name, content);
            }
        }
        let blocks = text.split("```console\n").skip(1).map(|part| part.split("```").next().unwrap());
        let steps: Vec<Step> = blocks.flat_map(steps).collect();
        assert!(!steps.is_empty(), "no session in this document");
        for Step { command, expected } in steps {
            if let Some(setting) = command.strip_prefix("export ") {
                let (name, value) = setting.split_once('=').unwrap();
                let value = self.stdout(&format!("echo \"{value}\""));
                self.set(name, value.trim_end());
                continue;
            }
            if let Some(name) = command.strip_prefix("cat ")
                && !self.at(name).exists()
            {
                self.program(name, &(expected.join("\n") + "\n"));
            }
            let mut output = self.run(&format!("exec 2>&1\n{command}"));
            output.status = ExitStatus::default();
            compare(&command, &expected, &output);
        }
    }

    /// Plays a session and compares everything.
    pub fn session(&self, script: &str) {
        for step in steps(script) {
            compare(&step.command, &step.expected, &self.run(&step.command));
        }
    }
}

fn compare(command: &str, expected: &[String], output: &Output) {
    let actual = show(output);
    let (wanted, got) = (expected.join("\n"), actual.join("\n"));
    assert!(matches(expected, &actual), "\n$ {command}\n--- expected\n{wanted}\n--- actual\n{got}\n---");
}

/// A transaction of another program, which keeps writers out; it ends when this is dropped.
pub struct Lock(#[expect(dead_code, reason = "held, not used")] rusqlite::Connection);

/// Keeps every other writer from a store, until the lock is dropped.
pub fn lock(store: &Path) -> Lock {
    let store = rusqlite::Connection::open(store).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    Lock(store)
}

/// A program in the background.
pub struct Running(pub Child);

impl Running {
    /// The process that does the work of a processor: the child of the one that was started.
    pub fn engine(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        fs::read_to_string(children).unwrap_or_default().trim().to_owned()
    }

    /// Sends a signal, named as `kill` names it, to the process that was started.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process, and returns what it printed.
    pub fn wait(mut self) -> Output {
        let child = std::mem::replace(&mut self.0, Command::new("true").spawn().unwrap());
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process runs, and be it in one thread that is not its first; one that is only waiting to be reaped by
/// whoever adopted it does not.
pub fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // From the third field of proc(5) on; the twentieth counts the threads.
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, after)| after.split(' ').collect()).unwrap_or_default();
    fields.first().is_some_and(|state| *state != "Z" || fields[17] != "1")
}

/// Whether a process is stopped, as by `SIGSTOP`.
pub fn is_stopped(pid: impl std::fmt::Display) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") T ")
}

/// How often the threads of a process have gone to sleep.
pub fn sleeps(pid: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    status.filter_map(count).sum()
}

/// Milliseconds since 1970, as the store has them.
pub fn unix_time() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// Copies a program, by another process: what is started from here at the same time would have a file open for writing that
/// this one had, and nobody can run such a file.
pub fn install(program: &Path, copy: &Path) {
    assert!(Command::new("cp").arg(program).arg(copy).status().unwrap().success());
}

/// Waits until a condition holds; fails after a time that is far longer than it can take.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    let mut asked = Instant::now();
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        // What takes long to find out is asked less often, so that it holds up nothing that it waits for.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(5)));
        asked = Instant::now();
    }
}

struct Step {
    command: String,
    expected: Vec<String>,
}

fn steps(script: &str) -> Vec<Step> {
    let indent = script.lines().find(|line| line.trim_start().starts_with("$ ")).unwrap();
    let indent = indent.len() - indent.trim_start().len();
    let mut steps: Vec<Step> = Vec::new();
    for line in script.lines() {
        let line = line.get(indent..).unwrap_or_else(|| line.trim_start());
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else if let Some(more) = line.strip_prefix("> ") {
            write!(steps.last_mut().unwrap().command, "\n{more}").unwrap();
        } else if let Some(step) = steps.last_mut()
            && !line.starts_with("# ")
        {
            step.expected.push(line.to_owned());
        }
    }
    for step in &mut steps {
        while step.expected.last().is_some_and(String::is_empty) {
            step.expected.pop();
        }
    }
    steps
}

fn show(output: &Output) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.extend(String::from_utf8_lossy(&output.stderr).lines().map(|line| format!("! {line}").trim_end().to_owned()));
    match output.status.code() {
        Some(0) => {}
        Some(code) => lines.push(format!("? {code}")),
        None => lines.push("? signal".to_owned()),
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn matches(expected: &[String], actual: &[String]) -> bool {
    match (expected.split_first(), actual.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => (0..=actual.len()).any(|skip| matches(rest, &actual[skip..])),
        (Some((first, rest)), Some((line, others))) => line_matches(first, line) && matches(rest, others),
        _ => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|tail| line_matches(after, tail)))
        }),
    }
}
