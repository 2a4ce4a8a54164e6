//! What is wrong with a command line, in the form of all other errors.

use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::output::nobody_reads;
use super::{Cli, exit, session, stdio};
use crate::error::reason;

/// Tells it. Help and version are no errors; nobody may be reading them any more.
pub fn tell(error: &clap::Error) -> ExitCode {
    let text = error.render().ansi().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        stdio::tell(&text);
        return ExitCode::from(exit::USAGE);
    }
    if !error.use_stderr() {
        return match stdio::print(&text) {
            Err(error) if !nobody_reads(&error) => {
                session::show(&reason(&error), None);
                ExitCode::from(exit::IO)
            }
            _ => ExitCode::from(exit::DONE),
        };
    }
    let (message, hint) = words(&error.render().to_string());
    session::show(&message, Some(&hint));
    ExitCode::from(exit::USAGE)
}

/// The sentence and the hint in what clap says: the first paragraph, and its tip or, without one, where help is.
fn words(said: &str) -> (String, String) {
    let mut paragraphs = said.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let message = ticked(first.strip_prefix("error: ").unwrap_or(first));
    let rest: Vec<&str> = paragraphs.collect();
    let tip = rest.iter().find_map(|part| part.trim_start().strip_prefix("tip: ").map(ticked));
    (message, tip.unwrap_or_else(|| format!("`{} --help` shows how", asked())))
}

/// The command that was asked for, as far as there is one.
fn asked() -> String {
    let mut name = "asyncq".to_owned();
    let mut command = Cli::command();
    command.build();
    for word in std::env::args_os().skip(1) {
        let Some(inner) = word.to_str().and_then(|word| command.find_subcommand(word)).cloned() else { continue };
        name = format!("{name} {}", inner.get_name());
        command = inner;
    }
    name
}

/// One line, with ticks for quotes around what is named.
fn ticked(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut ticked = String::with_capacity(line.len());
    let mut before = ' ';
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let opens = before == ' ' && c == '\'';
        let closes = c == '\'' && chars.peek().is_none_or(|next| " :,;".contains(*next));
        ticked.push(if opens || closes { '`' } else { c });
        before = c;
    }
    ticked
}

/// Reads how many calls are meant.
///
/// # Errors
/// What such a number has to be.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "a number of calls is a whole number from 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn sentence_and_hint() {
        let said = "error: the following required arguments were not provided:\n  <SERVICE>\n\nUsage: asyncq service add [OPTIONS] <NAME>\n\nFor more information, try '--help'.\n";
        let (message, hint) = words(said);
        assert_eq!(message, "the following required arguments were not provided: <SERVICE>");
        assert_eq!(hint, "`asyncq --help` shows how");
        let said =
            "error: unexpected argument '--it's' found\n\n  tip: a similar argument exists: '--its'\n\nUsage: asyncq";
        let (message, hint) = words(said);
        assert_eq!(
            (message.as_str(), hint.as_str()),
            ("unexpected argument `--it's` found", "a similar argument exists: `--its`")
        );
    }
}
