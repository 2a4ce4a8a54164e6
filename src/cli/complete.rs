//! Completions for shells: commands and options, and names and numbers from the store.
//!
//! After `source <(COMPLETE=bash asyncq)`, bash asks for completions by `COMPLETE=bash asyncq -- WORD...`; zsh and fish do the
//! same. asyncq answers at once, or with nothing, because nobody wants to read an error while typing.
//!
//! Other commands pay nothing for this: the names that an argument takes are looked up here, and not stored with each argument.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{env, path::Path, thread};

use clap::{Arg, ArgMatches, Command, FromArgMatches, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter, complete};
use clap_complete::env::{EnvCompleter, Fish, Zsh};

use super::session::{Global, Session, show_error};
use super::{exit, output, stdio};
use crate::commands::complete::programs;
use crate::commands::queue::Place;
use crate::domain::completion::{Candidate, Topic};
use crate::domain::job::State;
use crate::domain::job_edit::JobEdit;
use crate::domain::query::JobChange;
use crate::domain::zone::zone_names;
use crate::error::{Error, Kind};

/// The variable that names the shell which asks.
const ASKING: &str = "COMPLETE";

/// How long a shell waits for names from the store.
const PATIENCE: Duration = Duration::from_millis(50);

/// With this, the completion of zsh works both when it is sourced, and as an autoloaded function.
const ZSH_AUTOLOAD: &str = "[[ ${funcstack[1]} == _asyncq ]] && _clap_dynamic_completer_asyncq\n";

/// A shell that completes.
#[derive(Debug, Clone, Copy)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What is known about the command line before the word to complete.
struct Typed {
    place: Place,
    service: Option<String>,
}

/// Answers a shell that asks for completions, or for the script that asks for them. Returns `None` if this is no such question.
pub fn answer(command: fn() -> Command) -> Option<ExitCode> {
    let shell = env::var_os(ASKING).filter(|name| !name.is_empty())?;
    let words: Vec<OsString> = env::args_os().collect();
    let shell = Shell::named(&shell);
    match (&words[..], shell) {
        ([program], Some(shell)) => Some(report(print(&shell.registration(program)))),
        ([_], None) => {
            let error = Error::new(Kind::Usage, "`$COMPLETE` names no shell for which asyncq has completions");
            show_error(&error.with_hint("set it to `bash`, `zsh` or `fish`").into());
            Some(ExitCode::from(exit::USAGE))
        }
        ([_, dashes, words @ ..], shell) if dashes == "--" => {
            let answer = shell.zip((!words.is_empty()).then_some(words));
            let answer = answer.and_then(|(shell, words)| shell.completions(command, words));
            // If the shell is gone meanwhile, it needs no answer.
            let _ = print(&answer.unwrap_or_default());
            Some(ExitCode::SUCCESS)
        }
        // The variable is there for another program, or by mistake.
        _ => None,
    }
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    Ok(stdio::print(&String::from_utf8_lossy(text))?)
}

fn report(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Err(error) if !output::is_broken_pipe(&error) => {
            show_error(&error);
            ExitCode::from(exit::code(&error))
        }
        _ => ExitCode::SUCCESS,
    }
}

impl Shell {
    /// The shell with this name, or at this path.
    fn named(name: &OsStr) -> Option<Shell> {
        match Path::new(name).file_name()?.to_str()? {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }

    /// The script that has this shell ask `program`.
    fn registration(self, program: &OsStr) -> Vec<u8> {
        let program = match env::current_dir() {
            Ok(folder) if Path::new(program).components().count() > 1 => folder.join(program).into_os_string(),
            _ => program.to_owned(),
        };
        let (program, mut script) = (program.to_string_lossy(), Vec::new());
        // Writing to memory never fails.
        let _ = match self {
            Shell::Bash => {
                let quoted = output::command_line(&[program.into_owned()]);
                script = include_str!("complete.bash").replace("PROGRAM", &quoted).into_bytes();
                Ok(())
            }
            Shell::Zsh => Zsh.write_registration(ASKING, "asyncq", "asyncq", &program, &mut script),
            Shell::Fish => Fish.write_registration(ASKING, "asyncq", "asyncq", &program, &mut script),
        };
        if matches!(self, Shell::Zsh) {
            script.extend(b"\n");
            script.extend(ZSH_AUTOLOAD.as_bytes());
        }
        script
    }

    /// What the word at the cursor may become, as this shell reads it.
    fn completions(self, command: fn() -> Command, words: &[OsString]) -> Option<Vec<u8>> {
        let index = match self {
            Shell::Zsh => env::var("_CLAP_COMPLETE_INDEX").ok()?.parse().ok()?,
            Shell::Bash | Shell::Fish => words.len() - 1,
        };
        let current = words.get(index).cloned().unwrap_or_default();
        let mut command = command_with_names(command, words.get(..index)?, current.is_empty());
        let (words, folder, mut answer) = (words.to_vec(), env::current_dir().ok(), Vec::new());
        match self {
            Shell::Bash => {
                let found = complete(&mut command, words, index, folder.as_deref()).ok()?;
                for candidate in found {
                    answer.extend(as_typed(&candidate.get_value().to_string_lossy()).as_bytes());
                    answer.push(b'\n');
                }
            }
            Shell::Zsh => Zsh.write_complete(&mut command, words, folder.as_deref(), &mut answer).ok()?,
            Shell::Fish => Fish.write_complete(&mut command, words, folder.as_deref(), &mut answer).ok()?,
        }
        Some(answer)
    }
}

/// A word as it is typed into bash, which does not quote what it completes.
fn as_typed(word: &str) -> String {
    let tame = |c: char| c.is_alphanumeric() || "_-./:=,+@%^~".contains(c);
    word.chars().flat_map(|c| (!tame(c)).then_some('\\').into_iter().chain([c])).collect()
}

/// The command line, with arguments that complete names from the store. `before` are the words before the one to complete. Options
/// are offered only if nothing else is, or if somebody has begun to type one.
fn command_with_names(command: fn() -> Command, before: &[OsString], hide_options: bool) -> Command {
    let before: Vec<OsString> = before.iter().map(|word| unquoted(word)).collect();
    let matches = command().ignore_errors(true).try_get_matches_from(&before).ok();
    let has_program = matches.as_ref().is_some_and(|it| value(it, "command").is_some());
    let typed = matches.and_then(|matches| typed(&matches)).map(Arc::new);
    let mut command = command();
    command.build();
    with_names(command, &mut Vec::new(), &|path: &[String], arg: Arg| {
        let arg = if hide_options && !arg.is_positional() { arg.hide(true) } else { arg };
        if let Some(hint) = files(&arg) {
            return arg.value_hint(hint);
        }
        if let Some(completer) = outside(&arg, has_program) {
            return arg.add(completer);
        }
        match (topic(path, &arg), typed.clone()) {
            (Some(topic), Some(typed)) => {
                arg.add(ArgValueCompleter::new(move |start: &OsStr| candidates(&typed, &topic, start)))
            }
            _ => arg,
        }
    })
}

fn with_names(command: Command, path: &mut Vec<String>, each: &dyn Fn(&[String], Arg) -> Arg) -> Command {
    let command = command.mut_args(|arg| each(path, arg));
    command.mut_subcommands(|inner| {
        path.push(inner.get_name().to_owned());
        let inner = with_names(inner, path, each);
        path.pop();
        inner
    })
}

/// What the words say about the store and the service, as far as they are valid.
fn typed(matches: &ArgMatches) -> Option<Typed> {
    let global = Global::from_arg_matches(matches).ok()?;
    let place = Session::new(global).ok()?.place_within(PATIENCE).ok()?;
    Some(Typed { place, service: value(matches, "service") })
}

/// The first value of an argument of the command that was typed.
fn value(matches: &ArgMatches, id: &str) -> Option<String> {
    let mut inner = matches;
    while let Some((_, next)) = inner.subcommand() {
        inner = next;
    }
    let mut words = inner.try_get_raw(id).ok()??;
    Some(words.next()?.to_string_lossy().into_owned())
}

/// A word without its quotes, and with the user's home in place of `~`, because shells pass on what was typed.
fn unquoted(word: &OsStr) -> OsString {
    let Some(text) = word.to_str() else { return word.to_owned() };
    let (mut plain, mut quote, mut rest) = (String::new(), None, text.chars());
    if let Some((home, below)) = env::var("HOME").ok().zip(text.strip_prefix("~/")) {
        plain = home + "/";
        rest = below.chars();
    }
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => plain.extend(rest.next()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => plain.push(c),
        }
    }
    plain.into()
}

/// The hint for an argument that may be a file.
fn files(arg: &Arg) -> Option<ValueHint> {
    match value_name(arg)? {
        "FILE" | "FILE|DIR" | "PATH" | "ARG" => Some(ValueHint::AnyPath),
        "DIR" => Some(ValueHint::DirPath),
        _ => None,
    }
}

/// What completes an argument that is neither just a file nor something in the store.
fn outside(arg: &Arg, has_program: bool) -> Option<ArgValueCompleter> {
    let names = |all: fn() -> Vec<String>| {
        ArgValueCompleter::new(move |start: &OsStr| {
            let mut names = all();
            names.retain(|name| start.to_str().is_some_and(|start| name.starts_with(start)));
            names.sort_unstable();
            in_order(names)
        })
    };
    match value_name(arg)? {
        "CMD" | "PROGRAM" if has_program => Some(ArgValueCompleter::new(PathCompleter::any())),
        "CMD" | "PROGRAM" => Some(ArgValueCompleter::new(program)),
        "ZONE" => Some(names(zone_names)),
        "NAME[=VALUE]" => Some(names(|| env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect())),
        _ => None,
    }
}

fn in_order(names: Vec<String>) -> Vec<CompletionCandidate> {
    let candidate = |(order, name): (usize, String)| CompletionCandidate::new(name).display_order(Some(order));
    names.into_iter().enumerate().map(candidate).collect()
}

/// A program by its name in `$PATH`, or a path.
fn program(start: &OsStr) -> Vec<CompletionCandidate> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found = in_order(start.to_str().map(|start| programs(&path, start)).unwrap_or_default());
    let files = PathCompleter::any().complete(start).into_iter();
    found.extend(files.map(|file| file.display_order(Some(usize::MAX))));
    found
}

fn value_name(arg: &Arg) -> Option<&str> {
    arg.get_value_names()?.first().map(clap::builder::Str::as_str)
}

/// What an argument of a command names in the store. The name of its value in the help tells that, and a job is one that the
/// command is for.
fn topic(command: &[String], arg: &Arg) -> Option<Topic> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match value_name(arg)? {
        "SERVICE" | "SERVICE|PATTERN" => Some(Topic::Service),
        // The service that was typed before is filled in later.
        "FUNCTION" => Some(Topic::Function(None)),
        "SERVICE/FUNCTION" => Some(Topic::Hook),
        "LANE" => Some(Topic::Lane(None)),
        "NAME" | "NAME|PATTERN" if arg.is_positional() => match words[..] {
            [_, "add"] => None,
            ["service", _] => Some(Topic::Service),
            ["schedule", _] => Some(Topic::Schedule),
            _ => None,
        },
        "ID" | "IDS" => Some(Topic::Job(states(&words, arg))),
        _ => None,
    }
}

/// The states of the jobs that an argument is for; none for all.
fn states(command: &[&str], arg: &Arg) -> Vec<State> {
    let all_that = |fits: fn(State) -> bool| State::ALL.into_iter().filter(|state| fits(*state)).collect();
    match command {
        ["job", "retry"] => vec![State::Error],
        ["job", "cancel"] => JobChange::Cancel.states(),
        ["job", "start"] => JobChange::Start.states(),
        ["job", "set"] => JobChange::Set(JobEdit::default()).states(),
        ["job", "result"] => vec![State::Completed],
        ["job", "log"] => all_that(|state| state == State::Processing || state.has_ended()),
        ["explain"] => all_that(|state| state != State::Completed),
        ["wait"] => all_that(|state| !state.has_ended()),
        _ if value_name(arg) == Some("IDS") => all_that(|state| !state.has_ended()),
        _ => Vec::new(),
    }
}

/// What the store offers within [`PATIENCE`]; nothing if it takes longer, or if the store cannot be read.
fn candidates(typed: &Arc<Typed>, topic: &Topic, start: &OsStr) -> Vec<CompletionCandidate> {
    let Some(start) = start.to_str() else { return Vec::new() };
    // Of a list of jobs, the last one is completed.
    let (list, start) = match (topic, start.rfind(',')) {
        (Topic::Job(_), Some(comma)) => start.split_at(comma + 1),
        _ => ("", start),
    };
    let topic = match topic {
        Topic::Function(_) => Topic::Function(typed.service.clone()),
        Topic::Lane(_) => Topic::Lane(typed.service.clone()),
        other => other.clone(),
    };
    let (tell, told) = mpsc::channel();
    let (typed, asked) = (Arc::clone(typed), start.to_owned());
    // The thread may hang in the file system. This process ends all the same.
    let asking = thread::Builder::new().spawn(move || {
        let _ = tell.send(typed.place.completions(&topic, &asked));
    });
    let found = asking.ok().and_then(|_| told.recv_timeout(PATIENCE).ok()?.ok()).unwrap_or_default();
    found.into_iter().enumerate().map(|(order, it)| candidate(list, order, it)).collect()
}

fn candidate(list: &str, order: usize, found: Candidate) -> CompletionCandidate {
    let candidate = CompletionCandidate::new(format!("{list}{}", found.word));
    candidate.help(found.about.map(Into::into)).display_order(Some(order))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// How arguments are completed whose values have these names, by the words of their commands.
    fn topics(names: &[&str]) -> Vec<(String, Option<Topic>)> {
        let found = std::cell::RefCell::new(Vec::new());
        let mut command = crate::cli::Cli::command();
        command.build();
        with_names(command, &mut Vec::new(), &|path, arg| {
            if value_name(&arg).is_some_and(|name| names.contains(&name)) && path.first().is_none_or(|it| it != "help")
            {
                found.borrow_mut().push((format!("{} {}", path.join(" "), arg.get_id()), topic(path, &arg)));
            }
            arg
        });
        found.into_inner()
    }

    #[test]
    fn every_name_of_the_store_is_completed() {
        let all = topics(&["SERVICE", "SERVICE|PATTERN", "FUNCTION", "SERVICE/FUNCTION", "LANE", "ID", "IDS"]);
        assert!(all.len() > 50, "{all:?}");
        assert!(all.iter().all(|(_, topic)| topic.is_some()), "{all:?}");
        let names = topics(&["NAME", "NAME|PATTERN"]);
        for (argument, expected) in [
            ("service remove name", Some(Topic::Service)),
            ("service pause services", Some(Topic::Service)),
            ("service add name", None),
            ("schedule run name", Some(Topic::Schedule)),
            ("schedule add name", None),
            ("enqueue principal", None),
        ] {
            assert!(names.contains(&(argument.to_owned(), expected)), "{argument}: {names:?}");
        }
    }

    #[test]
    fn words_are_read_as_a_shell_reads_them() {
        for (typed, plain) in [("a", "a"), ("'a b'", "a b"), ("\"a'b", "a'b"), (r"a\ b", "a b"), (r"'a\b'", r"a\b")] {
            assert_eq!(unquoted(typed.as_ref()), plain);
        }
        assert_eq!(as_typed("a b$"), r"a\ b\$");
        assert_eq!(as_typed("pkg.mod:f_1/é"), "pkg.mod:f_1/é");
    }
}
