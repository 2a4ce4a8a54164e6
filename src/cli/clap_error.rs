//! Shows errors of clap in the form of all other errors: a sentence and a hint.

use std::ffi::OsString;
use std::num::IntErrorKind;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::output::{command_line, is_broken_pipe};
use super::{exit, session, stdio};
use crate::domain::suggest::nearest;
use crate::error::Error;

/// The words that were typed after the name of the program, for the command line that `root` describes.
struct Typed<'a> {
    words: &'a [OsString],
    root: fn() -> clap::Command,
}

/// Prints an error of the command line that `root` describes. clap also passes help and version through here, which are not
/// errors; their reader may be gone.
pub fn report(error: &clap::Error, root: fn() -> clap::Command) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let typed = Typed { words: &words, root };
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            stdio::print_message(&asked(&typed).render_help().ansi().to_string());
            return ExitCode::from(exit::USAGE);
        }
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match stdio::print(&error.render().ansi().to_string()).map_err(Into::into) {
                Err(error) if !is_broken_pipe(&error) => {
                    session::show_error(&error);
                    ExitCode::from(exit::code(&error))
                }
                _ => ExitCode::from(exit::DONE),
            };
        }
        _ => {}
    }
    let (message, hint) = explain(error, &typed);
    session::show(&message, Some(&hint));
    ExitCode::from(exit::USAGE)
}

/// The sentence and the hint for an error of clap.
fn explain(error: &clap::Error, typed: &Typed<'_>) -> (String, String) {
    let asked = asked(typed);
    let name = asked.get_bin_name().unwrap_or("asyncq");
    let help = format!("`{name} --help` shows how");
    let arg = context(error, ContextKind::InvalidArg);
    let arg = arg.first().map(|arg| plain(arg)).unwrap_or_default();
    let value = context(error, ContextKind::InvalidValue).join(" ");
    match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => {
            (format!("`{name}` has no option `{arg}`"), other_option(&asked, &arg, typed))
        }
        ErrorKind::UnknownArgument => {
            (format!("`{arg}` is one argument too many for `{name}`"), too_many(name, &arg, typed.words))
        }
        ErrorKind::InvalidSubcommand => {
            let given = context(error, ContextKind::InvalidSubcommand).join(" ");
            let near = nearest(&given, asked.get_subcommands().map(clap::Command::get_name));
            let hint = match near {
                Some(near) => format!("did you mean `{name} {near}`? `{name} --help` lists all commands"),
                None => format!("`{name} --help` lists all commands"),
            };
            (format!("`{name}` has no command `{given}`"), hint)
        }
        ErrorKind::InvalidValue if value.is_empty() => (format!("`{arg}` needs a value"), help),
        ErrorKind::InvalidValue => {
            let may_be = context(error, ContextKind::ValidValue);
            let near = nearest(&value, may_be.iter().map(String::as_str));
            let hint = near.map_or(help, |near| format!("did you mean `{near}`?"));
            (format!("`{arg}` cannot be `{value}`: it must be {}", list(&may_be, "or")), hint)
        }
        ErrorKind::ValueValidation => {
            let source = std::error::Error::source(error);
            let why = source.map(ToString::to_string).unwrap_or_default();
            let own = source.and_then(|source| source.downcast_ref::<Error>()).and_then(Error::hint);
            (format!("`{arg}` cannot be `{value}`: {why}"), own.map_or(help, str::to_owned))
        }
        ErrorKind::ArgumentConflict => {
            let others = context(error, ContextKind::PriorArg);
            let others: Vec<String> = others.iter().map(|other| plain(other)).collect();
            if others.is_empty() || others == [arg.clone()] {
                return (format!("`{arg}` is given twice"), help);
            }
            (format!("`{arg}` cannot be used with {}", list(&others, "and")), help)
        }
        ErrorKind::MissingRequiredArgument => missing(error, &asked, typed, help),
        ErrorKind::TooManyValues => (format!("`{arg}` takes no value, so `{value}` is not allowed"), help),
        ErrorKind::InvalidUtf8 => not_text(typed.words),
        _ => {
            let said = error.render().to_string();
            let first = said.lines().next().unwrap_or_default();
            (first.strip_prefix("error: ").unwrap_or(first).to_owned(), help)
        }
    }
}

/// What clap adds to the kind of its error.
fn context(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

/// The name of an argument alone: `--limit` of `--limit <N>`, `ID` of `[ID]...`.
fn plain(arg: &str) -> String {
    let name = match arg.strip_prefix(['<', '[']) {
        Some(inside) => inside.split(['>', ']']).next(),
        None => arg.split([' ', '=']).next(),
    };
    name.unwrap_or(arg).to_owned()
}

/// Names with ticks, as in a sentence.
fn list(names: &[String], and: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {and} {last}", rest.join(", ")),
        _ => names.join(""),
    }
}

/// The command that was typed, as far as it exists. `asyncq help job` is about `asyncq job`.
fn asked(typed: &Typed<'_>) -> clap::Command {
    let mut command = (typed.root)();
    command.build();
    for word in typed.words.iter().filter(|word| *word != "help") {
        if let Some(inner) = word.to_str().and_then(|word| command.find_subcommand(word)) {
            command = inner.clone();
        }
    }
    command
}

/// The hint for an option that the command does not take.
fn other_option(asked: &clap::Command, option: &str, typed: &Typed<'_>) -> String {
    let name = asked.get_bin_name().unwrap_or("asyncq");
    let long = option.trim_start_matches('-');
    let own = asked.get_arguments().filter_map(clap::Arg::get_long);
    if option.starts_with("--")
        && let Some(near) = nearest(long, own)
    {
        return format!("did you mean `--{near}`? `{name} --help` lists all options");
    }
    let others = if option.starts_with("--") { others_with(long, typed) } else { Vec::new() };
    if others.is_empty() && stands_for_a_name(name, option, typed) {
        return format!("a name cannot begin with `-`; `{name} --help` lists all options");
    }
    if name.starts_with("asyncq function") && asked.get_arguments().any(clap::Arg::is_last_set) {
        return "put `--` before the program, and its options after it".to_owned();
    }
    if name == "asyncq enqueue" {
        if ["delay", "later", "run-at", "when"].contains(&long) {
            return "`--in 10m` or `--at 14:30` runs a call later".to_owned();
        }
        return format!(
            "if it is an argument of the call, put `--` before the arguments: `{name} SERVICE FUNCTION -- {option}`"
        );
    }
    if !others.is_empty() {
        return format!("it is an option of {}", list(&others, "and"));
    }
    format!("`{name} --help` lists all options")
}

/// Whether somebody typed an option in place of a service or a function: with a name instead, the command line would have the right
/// number of words.
fn stands_for_a_name(name: &str, option: &str, typed: &Typed<'_>) -> bool {
    let at = typed.words.iter().position(|word| word == option);
    let (true, Some(at)) = (name.starts_with("asyncq function ") || name.starts_with("asyncq service "), at) else {
        return false;
    };
    let mut words = vec![OsString::from("asyncq")];
    words.extend_from_slice(typed.words);
    words[at + 1] = OsString::from("name");
    match (typed.root)().try_get_matches_from(words) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::MissingRequiredArgument,
    }
}

/// The names of all commands that have an option.
fn others_with(long: &str, typed: &Typed<'_>) -> Vec<String> {
    let (mut root, mut found) = ((typed.root)(), Vec::new());
    root.build();
    commands_with(&root, long, &mut found);
    found
}

/// Adds the names of the commands at or below `command` that have an option.
fn commands_with(command: &clap::Command, long: &str, found: &mut Vec<String>) {
    if command.get_arguments().any(|arg| arg.get_long() == Some(long)) {
        found.extend(command.get_bin_name().map(str::to_owned));
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        commands_with(inner, long, found);
    }
}

/// The hint for a word that is one too many for the command.
fn too_many(name: &str, word: &str, typed: &[OsString]) -> String {
    if !["asyncq function add", "asyncq function set"].contains(&name) {
        return format!("`{name} --help` shows how");
    }
    let at = typed.iter().rposition(|given| given == word).unwrap_or(typed.len());
    let words = |words: &[OsString]| {
        command_line(&words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>())
    };
    format!("put `--` before the program: `asyncq {} -- {}`", words(&typed[..at]), words(&typed[at..]))
}

/// The sentence and the hint for arguments that are missing.
fn missing(error: &clap::Error, asked: &clap::Command, typed: &Typed<'_>, help: String) -> (String, String) {
    let name = asked.get_bin_name().unwrap_or("asyncq");
    let missing: Vec<String> = context(error, ContextKind::InvalidArg).iter().map(|arg| plain(arg)).collect();
    if missing.iter().any(|arg| arg == "ID") && asked.get_arguments().any(|arg| arg.get_long() == Some("all")) {
        let hint = "give the numbers of jobs, or options such as `--state` and `--service`; `--all` means all";
        return (format!("`{name}` needs to know which jobs"), hint.to_owned());
    }
    let hint = if missing.iter().any(|arg| arg.starts_with("PROGRAM")) {
        format!("put `--` and the program at the end, as in `{name} events mail -- ./mail`")
    } else {
        help
    };
    let options: Vec<String> = missing.iter().filter(|it| it.starts_with("--")).cloned().collect();
    match that_needs(&options, asked, typed) {
        Some(needing) => (format!("`{needing}` needs {}", list(&options, "and")), hint),
        None => (format!("`{name}` needs {}", list(&missing, "and")), hint),
    }
}

/// The option without which these other options would not be required.
fn that_needs(missing: &[String], asked: &clap::Command, typed: &Typed<'_>) -> Option<String> {
    let own = typed.words.split(|word| word == "--").next().unwrap_or_default();
    own.iter().enumerate().filter(|_| !missing.is_empty()).find_map(|(at, word)| {
        let word = word.to_str()?;
        let name = word.split('=').next()?;
        let long = name.strip_prefix("--")?;
        let option = asked.get_arguments().find(|it| it.get_long() == Some(long))?;
        let has_value = option.get_action().takes_values() && name == word;
        let mut rest = vec![OsString::from("asyncq")];
        rest.extend(typed.words[..at].iter().cloned());
        rest.extend(typed.words[at + 1..].iter().skip(usize::from(has_value)).cloned());
        let is_missing = match (typed.root)().try_get_matches_from(rest) {
            Ok(_) => false,
            Err(error) => context(&error, ContextKind::InvalidArg).iter().any(|it| missing.contains(&plain(it))),
        };
        (!is_missing).then(|| name.to_owned())
    })
}

/// The sentence and the hint for arguments that are not UTF-8.
fn not_text(typed: &[OsString]) -> (String, String) {
    let bad = typed.iter().enumerate().filter(|(_, word)| word.to_str().is_none());
    let bad: Vec<String> = bad.map(|(at, word)| format!("{} (`{}`)", at + 1, word.to_string_lossy())).collect();
    let (what, are) = if bad.len() == 1 { ("argument", "is") } else { ("arguments", "are") };
    (
        format!("{what} {} {are} not UTF-8", bad.join(", ")),
        "calls are stored as JSON, which is UTF-8: rename the file, or encode its name, for example with `base64`"
            .to_owned(),
    )
}

/// Parses the name of one of these values.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    values: impl Into<Vec<T>>,
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let values = values.into();
    let names = PossibleValuesParser::new(values.iter().map(|value| name(*value)));
    names.try_map(move |given| values.iter().copied().find(|value| name(*value) == given).ok_or("no such name"))
}

/// Parses a number of calls.
///
/// # Errors
/// What the number must be.
pub fn parse_count(text: &str) -> Result<u64, String> {
    whole_number(text, "a number of calls", 1).map(i64::unsigned_abs)
}

/// Parses a number that is at least `least`; `what` names it in errors.
///
/// # Errors
/// What the number must be.
pub fn whole_number(text: &str, what: &str, least: i64) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) if number >= least => Ok(number),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("it is too large: {what} is at most {}", i64::MAX))
        }
        // A negative number is accepted if the error is then about a thing that does not exist.
        _ => Err(format!("{what} is a whole number from {}", if least < 0 { 1 } else { least })),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::Cli;

    /// Without this, clap takes a negative span for an option that does not exist.
    #[test]
    fn an_option_that_takes_a_span_takes_a_negative_one_and_refuses_it_itself() {
        let mut found = 0;
        for page in super::super::reference::pages(Cli::command()) {
            for option in page.get_arguments() {
                let takes_span =
                    option.get_value_names().unwrap_or_default().iter().any(|name| name.starts_with("SPAN"));
                found += usize::from(takes_span);
                assert!(!takes_span || option.is_allow_hyphen_values_set(), "{} {option}", page.get_name());
            }
        }
        assert!(found > 20, "{found}");
    }
}
