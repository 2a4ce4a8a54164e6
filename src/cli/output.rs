//! How data is shown: line by line, or as JSON.
//!
//! Invariant: text that somebody else wrote reaches a terminal only through [`escape_control`].

use std::io::ErrorKind;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::session::to_terminal;
use super::stdio;
use crate::domain::job::State;
use crate::domain::text::escape_control;
use crate::domain::time::{Timestamp, show_span};

/// One thing, name and value a line.
pub struct Sheet(Vec<(&'static str, String)>);

impl Sheet {
    /// Nothing yet.
    pub fn new() -> Sheet {
        Sheet(Vec::new())
    }

    /// Adds a line; the value was made safe to show.
    pub fn line(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    /// Prints it.
    pub fn print(self) -> anyhow::Result<()> {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut lines = String::new();
        for (name, value) in &self.0 {
            lines += format!("{name:width$}  {value}").trim_end();
            lines.push('\n');
        }
        Ok(stdio::print(&lines)?)
    }
}

/// Prints a thing as one line of JSON.
pub fn json(thing: &impl Serialize) -> anyhow::Result<()> {
    super::say(serde_json::to_string(thing)?)
}

/// A state, with its colour.
pub fn state(state: State) -> String {
    let style = match state {
        State::Completed => AnsiColor::Green.on_default(),
        State::Error => AnsiColor::Red.on_default(),
        State::Processing => AnsiColor::Cyan.on_default(),
        State::Held | State::Delayed | State::Cancelled => AnsiColor::Yellow.on_default(),
        State::Queued => Style::new(),
    };
    format!("{style}{state}{style:#}")
}

/// Text of somebody else, safe to show.
pub fn text(text: &str) -> String {
    escape_control(text).into_owned()
}

/// The same, or a dash when there is none.
pub fn or_dash(value: Option<&str>) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// A moment: local time on a terminal, elsewhere RFC 3339 in UTC.
pub fn moment(moment: Timestamp) -> String {
    let local = || {
        let zone = jiff::tz::TimeZone::try_system().ok()?;
        let local = jiff::Timestamp::from_millisecond(moment.0).ok()?.to_zoned_datetime(zone);
        Some(local.strftime("%Y-%m-%d %H:%M:%S %Z").to_string())
    };
    let local = if to_terminal() { local() } else { None };
    local.unwrap_or_else(|| moment.to_string())
}

/// A moment as a person says it: `3m ago`, `in 5h`.
pub fn relative(moment: Timestamp, now: Timestamp) -> String {
    if moment > now {
        format!("in {}", show_span(moment.since(now)))
    } else if now.since(moment).as_secs() == 0 {
        "now".to_owned()
    } else {
        format!("{} ago", show_span(now.since(moment)))
    }
}

/// Whether this failed because the reader of our output has gone, as `head` does: that is no failure.
pub fn nobody_reads(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_pipe))
}

/// The help of a command and of all below it, in Markdown.
pub fn reference(root: &mut clap::Command) -> String {
    root.build();
    let mut out = String::from("# The command line\n\nMade from the program by `cargo test`; do not edit.\n");
    add_reference(root, &mut out);
    out
}

fn add_reference(command: &mut clap::Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or("asyncq").to_owned();
    let help = command.clone().term_width(96).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    *out += &format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        add_reference(inner, out);
    }
}
