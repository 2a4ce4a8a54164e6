//! How data is shown: as a table fitted to the terminal, or as JSON.
//!
//! Invariant: text that somebody else wrote reaches a terminal only through [`visible`].

use std::io::ErrorKind;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Padding, Style as Border, Width};

use super::session::to_terminal;
use super::stdio;
use crate::domain::job::State;
use crate::domain::text::visible;
use crate::domain::time::{Timestamp, show_span};

/// Rows with the names of their columns.
pub struct Table {
    builder: Builder,
    rows: usize,
}

impl Table {
    /// A table without rows.
    pub fn new<const N: usize>(columns: [&str; N]) -> Table {
        let mut builder = Builder::new();
        builder.push_record(columns);
        Table { builder, rows: 0 }
    }

    /// Adds a row; what is in it was made safe to show.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows += 1;
        self.builder.push_record(cells);
    }

    /// Prints it: as wide as the terminal at most, or as wide as it is when nobody looks. Nothing without rows.
    pub fn print(self) -> anyhow::Result<()> {
        self.print_page(true)
    }

    /// The same for a part of a longer table; only the first part has the names of the columns.
    pub fn print_page(self, first: bool) -> anyhow::Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut table = self.builder.build();
        table.with(Border::empty()).with(Padding::new(0, 2, 0, 0));
        if let Some(width) = terminal_width() {
            table.with(Width::truncate(width + 2).suffix("…").priority(Priority::max(true)));
        }
        let mut lines = String::new();
        for line in table.to_string().lines().skip(usize::from(!first)) {
            lines += line.trim_end();
            lines.push('\n');
        }
        stdio::print(&lines)
    }
}

/// How many columns the terminal has on which stdout ends, if it does.
fn terminal_width() -> Option<usize> {
    if !to_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

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
        stdio::print(&lines)
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
    visible(text).into_owned()
}

/// The same, or a dash when there is none.
pub fn or_dash(value: Option<&str>) -> String {
    value.map_or_else(|| "-".to_owned(), text)
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
    error.chain().any(|cause| {
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        json == Some(ErrorKind::BrokenPipe) || cause.downcast_ref::<std::io::Error>().is_some_and(is_pipe)
    })
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
